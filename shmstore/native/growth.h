/* The memory of the segment as its system gives it: growth, and what is given back.

   Private to the writer, and rebuilt at takeover. Sizes and places are in granules. The first
   blocks of a segment are the reserve, for batches that only delete. */

#ifndef SHMSTORE_GROWTH_H
#define SHMSTORE_GROWTH_H

#include "clock.h"
#include "free.h"
#include "pinned.h"
#include "queue.h"

#define EXTENT_GRANULES (EXTENT_BYTES / GRANULE_BYTES)
#define HEAP_START_GRANULE (HEAP_START / GRANULE_BYTES)
#define HEAP_IDLE_EXTENTS 8

/* The operating system under the segment. ``extend`` makes memory real, or returns false and says
   why; ``release`` takes it back, and what is read there afterwards is zero. In bytes. */
struct system {
    void *context;
    bool (*extend)(void *context, uint64_t offset, uint64_t size, char *why, size_t why_size);
    void (*release)(void *context, uint64_t offset, uint64_t size);
};

/* Empties the word of a deleted entry; *emptied is false if the open batch stands on it. */
struct purger {
    void *context;
    enum status (*purge)(void *context, uint64_t start, uint64_t word_hash, bool *emptied,
                         struct fault *fault);
};

struct heap {
    const struct memory *memory;
    struct system system;
    struct purger purger;
    uint64_t limit;
    uint64_t end;
    uint64_t reserve_end;
    struct free_blocks free;
    struct free_blocks reserve;
    struct pinned pinned; /* what is not given up, though nothing but a pin may lead to it */
    uint64_t *returned;   /* a bit for each extent that was given back to the system */
    uint64_t returned_count;
    int64_t idle_seen;
    uint64_t owed; /* blocks the open batch may give back, for which there must be nodes */
    char denied[256];
    struct queue quarantine;
    struct queue dead;
    struct queue deferred; /* dead ones on whose words the open batch stands */
    struct queue pending;  /* blocks that get the next stamp */
    uint64_t hold_bytes_min;
    uint64_t hold_bytes; /* what stays in quarantine while there is room */
    uint64_t quarantine_granules;
    bool growing; /* whether the open batch has taken a block that was not for a deletion */
};

static inline uint64_t
heap_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t
heap_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void
heap_close(struct heap *heap)
{
    free_close(&heap->free);
    free_close(&heap->reserve);
    pinned_close(&heap->pinned);
    free(heap->returned);
    queue_close(&heap->quarantine);
    queue_close(&heap->dead);
    queue_close(&heap->deferred);
    queue_close(&heap->pending);
    heap->returned = NULL;
}

/* Without a ``purger`` words count as emptied. */
static enum status
heap_open(struct heap *heap, const struct memory *memory, const struct system *system,
          const struct purger *purger)
{
    uint64_t capacity = memory_bytes(memory);
    memset(heap, 0, sizeof *heap);
    heap->memory = memory;
    heap->system = *system;
    if (purger) {
        heap->purger = *purger;
    }
    heap->limit = capacity / GRANULE_BYTES;
    heap->end = word_load(memory, EXTENT_END_WORD) / GRANULE_BYTES;
    heap->reserve_end =
        heap_min(RESERVE_BYTES_MAX, HEAP_START + capacity / RESERVE_DIVISOR) / GRANULE_BYTES;
    heap->hold_bytes_min = heap_min(QUARANTINE_BYTES, capacity / QUARANTINE_DIVISOR);
    heap->hold_bytes = heap->hold_bytes_min;
    heap->returned = calloc((size_t)(heap->limit / EXTENT_GRANULES / 64 + 1), sizeof(uint64_t));
    return heap->returned == NULL ? NO_MEMORY : FINE;
}

static inline uint64_t
heap_free_granules(const struct heap *heap)
{
    return heap->free.granules + heap->reserve.granules;
}

/* Granules in use by what is committed or staged. */
static inline uint64_t
heap_used_granules(const struct heap *heap)
{
    uint64_t header = heap->end ? HEAP_START_GRANULE : 0;
    return heap->end - heap_free_granules(heap) - heap->quarantine_granules - header;
}

static inline uint64_t
heap_capacity_bytes(const struct heap *heap)
{
    return heap->limit * GRANULE_BYTES;
}

/* Bytes of memory the segment takes from the system. */
static inline uint64_t
heap_real_bytes(const struct heap *heap)
{
    return heap->end * GRANULE_BYTES - heap->returned_count * EXTENT_BYTES;
}

/* Write a number with commas between its thousands. */
static const char *
heap_grouped(char text[32], uint64_t number)
{
    char *at = text + 31;
    *at = '\0';
    for (int digits = 0; number || digits == 0; digits++, number /= 10) {
        if (digits && digits % 3 == 0) {
            *--at = ',';
        }
        *--at = (char)('0' + number % 10);
    }
    return at;
}

static enum status
heap_full(const struct heap *heap, uint64_t size, struct fault *fault)
{
    char requested[32], used[32], capacity[32];
    const char *denied = heap->denied;
    fault->requested = size * GRANULE_BYTES;
    fault->used = heap_used_granules(heap) * GRANULE_BYTES;
    fault->capacity = heap_capacity_bytes(heap);
    return fail(fault, FULL,
                "the store is full: %s bytes more do not fit, %s of %s are in use%s%s%s; "
                "delete records or start it with a larger capacity=",
                heap_grouped(requested, fault->requested), heap_grouped(used, fault->used),
                heap_grouped(capacity, fault->capacity),
                *denied ? " (the system gives no more memory: " : "", denied, *denied ? ")" : "");
}

/* Growth, and giving memory back to the system */

/* See to it that one block more than the batch may give back can become free without fail. */
static inline enum status
heap_reserve_nodes(struct heap *heap)
{
    enum status status = free_reserve(&heap->free, heap->owed + 2);
    return status == FINE ? free_reserve(&heap->reserve, heap->owed + 2) : status;
}

/* Give back a block that no reader can reach. Cannot fail for one the open batch has taken. */
static inline void
heap_free(struct heap *heap, uint64_t start, uint64_t size)
{
    free_add(start < heap->reserve_end ? &heap->reserve : &heap->free, start, size);
}

/* Add free memory that may begin in the reserve and end beyond it. */
static enum status
heap_add(struct heap *heap, uint64_t start, uint64_t end)
{
    uint64_t border = heap_min(heap_max(start, heap->reserve_end), end);
    enum status status = heap_reserve_nodes(heap);
    if (status == FINE && start < border) {
        heap_free(heap, start, border - start);
    }
    if (status == FINE && border < end) {
        heap_free(heap, border, end - border);
    }
    return status;
}

/* Make the next extents real; *grown is false if capacity or the system's memory is used up. */
static enum status
heap_grow(struct heap *heap, uint64_t size, bool *grown)
{
    uint64_t wanted =
        heap_min(heap_max(EXTENT_BYTES, heap->end * GRANULE_BYTES / 8), EXTEND_BYTES_MAX);
    uint64_t granules = heap_max(wanted / GRANULE_BYTES, size + heap->end % EXTENT_GRANULES);
    uint64_t extents = (heap->end + granules + EXTENT_GRANULES - 1) / EXTENT_GRANULES;
    uint64_t start = heap->end, end = heap_min(extents * EXTENT_GRANULES, heap->limit);
    *grown = false;
    if (end <= start) {
        return FINE;
    }
    enum status status = heap_reserve_nodes(heap);
    if (status != FINE) {
        return status;
    }
    heap->denied[0] = '\0';
    if (!heap->system.extend(heap->system.context, start * GRANULE_BYTES,
                             (end - start) * GRANULE_BYTES, heap->denied, sizeof heap->denied)) {
        /* What the system refuses now it may grant later; until then this is the end. */
        return FINE;
    }
    *grown = true;
    heap->denied[0] = '\0';
    heap->end = end;
    word_store(heap->memory, EXTENT_END_WORD, end * GRANULE_BYTES);
    return heap_add(heap, heap_max(start, HEAP_START_GRANULE), end);
}

static inline bool
heap_is_returned(const struct heap *heap, uint64_t extent)
{
    return heap->returned[extent / 64] >> extent % 64 & 1;
}

static inline void
heap_note_returned(struct heap *heap, uint64_t extent)
{
    if (!heap_is_returned(heap, extent)) {
        heap->returned[extent / 64] |= (uint64_t)1 << extent % 64;
        heap->returned_count++;
    }
}

/* Ask the system again for returned extents that a block touches. */
static bool
heap_make_real(struct heap *heap, uint64_t start, uint64_t size)
{
    if (heap->returned_count == 0) {
        return true;
    }
    uint64_t last = (start + size - 1) / EXTENT_GRANULES;
    for (uint64_t extent = start / EXTENT_GRANULES; extent <= last; extent++) {
        if (heap_is_returned(heap, extent)) {
            char why[sizeof heap->denied];
            if (!heap->system.extend(heap->system.context, extent * EXTENT_BYTES, EXTENT_BYTES, why,
                                     sizeof why)) {
                return false;
            }
            heap->returned[extent / 64] &= ~((uint64_t)1 << extent % 64);
            heap->returned_count--;
        }
    }
    return true;
}

/* Return whole free extents to the system, if more lies idle than is in use. Safe because a
   block becomes free only after the horizon has passed its stamp: who still reads there meets
   zeros, and is turned away. Without memory for the list of them they stay. */
static void
heap_give_back(struct heap *heap)
{
    uint64_t free_granules = heap_free_granules(heap);
    int64_t idle = (int64_t)(free_granules - heap->returned_count * EXTENT_GRANULES);
    heap->idle_seen = idle < heap->idle_seen ? idle : heap->idle_seen;
    /* A look at all free blocks is worth it only when much has become free since the last. */
    if (idle - heap->idle_seen < HEAP_IDLE_EXTENTS * EXTENT_GRANULES ||
        idle < (int64_t)heap_used_granules(heap)) {
        return;
    }
    struct blocks blocks = {0};
    if (free_list(&heap->free, EXTENT_GRANULES, &blocks) == FINE) {
        blocks_sort(&blocks);
        for (size_t i = 0; i < blocks.count; i++) {
            const struct block *block = &blocks.items[i];
            uint64_t extent = (block->start + EXTENT_GRANULES - 1) / EXTENT_GRANULES;
            for (; extent < (block->start + block->size) / EXTENT_GRANULES; extent++) {
                if (!heap_is_returned(heap, extent)) {
                    heap->system.release(heap->system.context, extent * EXTENT_BYTES, EXTENT_BYTES);
                    heap_note_returned(heap, extent);
                }
            }
        }
        heap->idle_seen = (int64_t)(free_granules - heap->returned_count * EXTENT_GRANULES);
    }
    blocks_close(&blocks);
}

#endif
