/* The allocator of the segment. Sizes and places are in granules.

   Which block an allocation gets is part of what both engines agree on. */

#ifndef SHMSTORE_HEAP_H
#define SHMSTORE_HEAP_H

#include "quarantine.h"

/* A new batch begins: what was taken before will not be given back. */
static inline void
heap_begin(struct heap *heap)
{
    heap->growing = false;
    heap->owed = 0;
}

static inline bool
heap_take(struct heap *heap, uint64_t size, uint64_t *start)
{
    uint32_t node = free_find(&heap->free, size);
    if (node == 0 || !heap_make_real(heap, heap->free.nodes[node].start, size)) {
        return false;
    }
    *start = heap->free.nodes[node].start;
    free_cut(&heap->free, node, size);
    return true;
}

static enum status
heap_take_reserved(struct heap *heap, uint64_t size, uint64_t *start, struct fault *fault)
{
    uint32_t node = free_find(&heap->reserve, size);
    if (node == 0) {
        return heap_full(heap, size, fault);
    }
    *start = heap->reserve.nodes[node].start;
    free_cut(&heap->reserve, node, size);
    return FINE;
}

/* Tell whether a record leaves half of the reserve, or as much as all of it in one piece, to
   deletions; what deletions have written there lives until it is written again. */
static enum status
heap_spare_deletions(struct heap *heap, uint64_t size, struct fault *fault)
{
    uint64_t reserve = heap->reserve_end - HEAP_START_GRANULE, wanted = size + reserve;
    while (heap->reserve.granules < reserve / 2) {
        if (free_find(&heap->free, wanted) || heap->limit - heap->end >= wanted) {
            break;
        }
        bool released;
        enum status status = heap_release_some(heap, &released, fault);
        if (status != FINE || !released) {
            return status != FINE ? status : heap_full(heap, size, fault);
        }
    }
    return FINE;
}

/* Find the granule of a block of ``size`` granules that may be overwritten. ``reserved`` lets it
   come from the reserve, if it must and the batch is not growing. Nothing is taken on failure. */
static enum status
heap_allocate(struct heap *heap, uint64_t size, bool reserved, uint64_t *start, struct fault *fault)
{
    enum status status = heap_reserve_nodes(heap);
    if (status == FINE) {
        status = heap_release_surplus(heap, fault);
    }
    if (status == FINE && !reserved) {
        status = heap_spare_deletions(heap, size, fault);
    }
    while (status == FINE && !heap_take(heap, size, start)) {
        bool gained;
        status = heap_grow(heap, size, &gained);
        if (status == FINE && !gained) {
            status = heap_release_some(heap, &gained, fault);
        }
        if (status == FINE && !gained) {
            if (heap->growing || !reserved) {
                return heap_full(heap, size, fault);
            }
            status = heap_take_reserved(heap, size, start, fault);
            heap->owed += status == FINE;
            return status;
        }
    }
    if (status == FINE) {
        heap->growing = heap->growing || !reserved;
        heap->owed++;
    }
    return status;
}

/* Takeover and reports */

/* Take all memory but the given blocks as free, some of it perhaps returned. The caller has
   raised the horizon past every reader that may be looking at it. */
static enum status
heap_adopt(struct heap *heap, struct blocks *blocks)
{
    uint64_t at = HEAP_START_GRANULE;
    blocks_sort(blocks);
    for (size_t i = 0; i <= blocks->count; i++) {
        struct block last = {heap->end, 0};
        struct block block = i < blocks->count ? blocks->items[i] : last;
        if (block.start > at) {
            enum status status = heap_add(heap, at, block.start);
            if (status != FINE) {
                return status;
            }
            uint64_t extent = (at + EXTENT_GRANULES - 1) / EXTENT_GRANULES;
            for (; extent < block.start / EXTENT_GRANULES; extent++) {
                heap_note_returned(heap, extent);
            }
        }
        at = block.start + block.size;
    }
    return FINE;
}

/* Append all free blocks, by place. */
static enum status
heap_free_blocks(const struct heap *heap, struct blocks *out)
{
    size_t first = out->count;
    if (free_list(&heap->reserve, 1, out) != FINE || free_list(&heap->free, 1, out) != FINE) {
        return NO_MEMORY;
    }
    struct blocks added = {out->items + first, out->count - first, 0};
    blocks_sort(&added);
    return FINE;
}

/* Append all blocks that wait for the horizon and that nothing leads to. */
static enum status
heap_quarantined(const struct heap *heap, struct blocks *out)
{
    const struct queue *queues[] = {&heap->pending, &heap->quarantine};
    for (int which = 0; which < 2; which++) {
        for (size_t i = 0; i < queues[which]->count; i++) {
            const struct retired *retired = queue_at(queues[which], i);
            if (blocks_add(out, retired->start, retired->size) != FINE) {
                return NO_MEMORY;
            }
        }
    }
    return FINE;
}

#endif
