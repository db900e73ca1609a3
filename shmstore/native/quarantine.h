/* The quarantine: blocks that were given up wait until the horizon has passed their stamp. */

#ifndef SHMSTORE_QUARANTINE_H
#define SHMSTORE_QUARANTINE_H

#include "growth.h"

#define HEAP_BURIALS 256
#define HEAP_SETTLEMENTS 1024

/* Put up a block, which nothing leads to any more, for the next stamp. */
static inline enum status
heap_retire(struct heap *heap, uint64_t start, uint64_t size)
{
    if (queue_reserve(&heap->pending, 1) != FINE) {
        return NO_MEMORY;
    }
    heap->quarantine_granules += size;
    queue_push(&heap->pending, (struct retired){0, start, size, 0});
    return FINE;
}

/* Put all of one queue, for which there is room, at the end of the other. */
static void
heap_move(struct queue *from, struct queue *to)
{
    for (size_t i = 0; i < from->count; i++) {
        queue_push(to, *queue_at(from, i));
    }
    queue_clear(from);
}

static enum status
heap_stamp_pending(struct heap *heap, uint64_t *stamp)
{
    struct queue *pending = &heap->pending;
    if (queue_reserve(&heap->quarantine, pending->count) != FINE) {
        return NO_MEMORY;
    }
    *stamp = clock_retire(heap->memory);
    for (size_t i = 0; i < pending->count; i++) {
        queue_at(pending, i)->stamp = *stamp;
    }
    heap_move(pending, &heap->quarantine);
    return FINE;
}

/* See to it that heap_stamp() cannot fail for so many blocks and entries. */
static enum status
heap_reserve_stamps(struct heap *heap, size_t replaced, size_t dead)
{
    size_t retired = replaced + heap->pinned.removed.count;
    enum status status = pinned_reserve_commit(&heap->pinned);
    if (status == FINE) {
        status = pinned_reserve_held(&heap->pinned, replaced);
    }
    if (status == FINE) {
        status = queue_reserve(&heap->pending, retired);
    }
    if (status == FINE) {
        status = queue_reserve(&heap->quarantine, heap->pending.count + retired);
    }
    return status == FINE ? queue_reserve(&heap->dead, heap->deferred.count + dead) : status;
}

/* Count the pins of the batch in, and put up the held blocks that nobody pins any more; there is
   room. */
static void
heap_retire_unpinned(struct heap *heap)
{
    struct pinned *pinned = &heap->pinned;
    const struct blockmap_item *item;
    uint64_t size;
    if (pinned->differences.count == 0) {
        return;
    }
    pinned_commit_added(pinned);
    for (size_t at = 0; (item = blockmap_next(&pinned->removed, &at));) {
        if (pinned_commit_removed(pinned, item->key, item->value, &size)) {
            heap_retire(heap, item->value, size);
        }
    }
    pinned_abort(pinned);
}

/* Step 5, after a commit: stamp the blocks it replaced (size by start) or unpinned and the entries
   it deleted (size by start, the word hash as extra), and put them into the quarantine. NULL is
   none. */
static enum status
heap_stamp(struct heap *heap, const struct blockmap *replaced, const struct blockmap *dead)
{
    const struct blockmap_item *item;
    uint64_t stamp;
    size_t at = 0;
    enum status status =
        heap_reserve_stamps(heap, replaced ? replaced->count : 0, dead ? dead->count : 0);
    if (status != FINE) {
        return status;
    }
    heap_retire_unpinned(heap);
    while (replaced && (item = blockmap_next(replaced, &at))) {
        if (!pinned_keeps(&heap->pinned, item->key, item->value)) {
            heap_retire(heap, item->key, item->value);
        }
    }
    heap_stamp_pending(heap, &stamp);
    at = 0;
    while (dead && (item = blockmap_next(dead, &at))) {
        heap->quarantine_granules += item->value;
        queue_push(&heap->dead, (struct retired){stamp, item->key, item->value, item->extra});
    }
    heap_move(&heap->deferred, &heap->dead);
    return FINE;
}

/* Step 1 for the oldest block. */
static enum status
heap_release_oldest(struct heap *heap)
{
    struct retired oldest = *queue_at(&heap->quarantine, 0);
    enum status status = heap_reserve_nodes(heap);
    if (status != FINE) {
        return status;
    }
    queue_pop(&heap->quarantine);
    clock_reuse(heap->memory, oldest.stamp);
    heap->quarantine_granules -= oldest.size;
    heap_free(heap, oldest.start, oldest.size);
    return FINE;
}

/* Step 1 for the word of the oldest deleted entry; its block waits for another stamp, as a reader
   may just have come from the word. */
static enum status
heap_bury(struct heap *heap, struct fault *fault)
{
    struct retired dead = *queue_at(&heap->dead, 0);
    bool emptied = true;
    if (queue_reserve(&heap->pending, 1) != FINE || queue_reserve(&heap->deferred, 1) != FINE ||
        pinned_reserve_held(&heap->pinned, 1) != FINE) {
        return NO_MEMORY;
    }
    queue_pop(&heap->dead);
    clock_reuse(heap->memory, dead.stamp);
    if (heap->purger.purge) {
        enum status status =
            heap->purger.purge(heap->purger.context, dead.start, dead.word_hash, &emptied, fault);
        if (status != FINE) {
            return status;
        }
    }
    if (emptied && pinned_keeps(&heap->pinned, dead.start, dead.size)) {
        heap->quarantine_granules -= dead.size;
        return FINE;
    }
    queue_push(emptied ? &heap->pending : &heap->deferred, dead);
    return FINE;
}

/* Let go what is beyond the hold, a few blocks at a time. */
static enum status
heap_release_surplus(struct heap *heap, struct fault *fault)
{
    enum status status = FINE;
    for (int i = 0; i < RELEASES_PER_ALLOCATION_MAX && status == FINE; i++) {
        if (heap->quarantine_granules * GRANULE_BYTES <= heap->hold_bytes) {
            return FINE;
        }
        bool has_block = heap->quarantine.count > 0;
        if (heap->dead.count && (!has_block || queue_at(&heap->dead, 0)->stamp <=
                                                   queue_at(&heap->quarantine, 0)->stamp)) {
            status = heap_bury(heap, fault);
        }
        else if (has_block) {
            status = heap_release_oldest(heap);
        }
        else {
            return FINE;
        }
    }
    return status;
}

/* Make something of the quarantine free, whatever it should hold; *released is false if it is
   empty. */
static enum status
heap_release_some(struct heap *heap, bool *released, struct fault *fault)
{
    enum status status = FINE;
    *released = false;
    if (heap->quarantine.count == 0) {
        uint64_t burials = heap_min(heap->dead.count, HEAP_BURIALS), stamp;
        for (; burials && status == FINE; burials--) {
            status = heap_bury(heap, fault);
        }
        if (status == FINE && heap->pending.count) {
            status = heap_stamp_pending(heap, &stamp);
        }
    }
    if (status == FINE && heap->quarantine.count) {
        status = heap_release_oldest(heap);
        *released = status == FINE;
    }
    return status;
}

/* Make some of the quarantine free; *more tells whether there is more of it. */
static enum status
heap_settle(struct heap *heap, bool *more, struct fault *fault)
{
    *more = true;
    if (queue_reserve(&heap->dead, heap->deferred.count) != FINE) {
        return NO_MEMORY;
    }
    heap->hold_bytes = heap->hold_bytes_min;
    heap_move(&heap->deferred, &heap->dead);
    for (int i = 0; i < HEAP_SETTLEMENTS && *more; i++) {
        enum status status = heap_release_some(heap, more, fault);
        if (status != FINE) {
            return status;
        }
    }
    if (!*more) {
        heap_give_back(heap);
    }
    return FINE;
}

#endif
