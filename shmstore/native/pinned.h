/* Which blocks are pinned, and which of them live by that alone: the writer's private notes.

   A pin is an entry of the index, so that it is committed, taken back and found again as any other;
   pins.h writes it. A block that is given up while a pin names it is held: it goes to the
   quarantine with the batch in which its last pin goes. Without pins nothing is looked up. */

#ifndef SHMSTORE_PINNED_H
#define SHMSTORE_PINNED_H

#include "blockmap.h"

struct pinned {
    struct blockmap entries;     /* the pinned block by the entry of the pin, of all committed */
    struct blockmap counts;      /* their number by the pinned block */
    struct blockmap held;        /* size by start of the blocks to which nothing but pins leads */
    struct blockmap added;       /* pins of the open batch: the pinned block by the entry */
    struct blockmap removed;     /* the same of those it has deleted */
    struct blockmap differences; /* what it adds to the counts, negative as 2**64 less it */
};

static void
pinned_close(struct pinned *pinned)
{
    blockmap_close(&pinned->entries);
    blockmap_close(&pinned->counts);
    blockmap_close(&pinned->held);
    blockmap_close(&pinned->added);
    blockmap_close(&pinned->removed);
    blockmap_close(&pinned->differences);
}

/* Add to the value of a key, for which there is room; one that was not there was 0. */
static inline void
pinned_change(struct blockmap *map, uint64_t key, uint64_t difference)
{
    struct blockmap_item *item = blockmap_find(map, key);
    blockmap_put(map, key, (item ? item->value : 0) + difference);
}

/* Count a committed pin, for which there is room. */
static inline void
pinned_count(struct pinned *pinned, uint64_t entry, uint64_t granule)
{
    blockmap_put(&pinned->entries, entry, granule);
    pinned_change(&pinned->counts, granule, 1);
}

/* Take over what was found: the pinned blocks by entry, and the held ones. */
static enum status
pinned_adopt(struct pinned *pinned, const struct blockmap *pins, const struct blocks *held)
{
    const struct blockmap_item *item;
    if (blockmap_reserve(&pinned->entries, pins->count) != FINE ||
        blockmap_reserve(&pinned->counts, pins->count) != FINE ||
        blockmap_reserve(&pinned->held, held->count) != FINE) {
        return NO_MEMORY;
    }
    for (size_t at = 0; (item = blockmap_next(pins, &at));) {
        pinned_count(pinned, item->key, item->value);
    }
    for (size_t i = 0; i < held->count; i++) {
        blockmap_put(&pinned->held, held->items[i].start, held->items[i].size);
    }
    return FINE;
}

/* The open batch */

/* See to it that a pin can be noted without fail. */
static enum status
pinned_reserve(struct pinned *pinned)
{
    enum status status = blockmap_reserve(&pinned->differences, 1);
    if (status == FINE) {
        status = blockmap_reserve(&pinned->added, 1);
    }
    return status == FINE ? blockmap_reserve(&pinned->removed, 1) : status;
}

/* Note a pin that the open batch has written; there is room. */
static void
pinned_add(struct pinned *pinned, uint64_t entry, uint64_t granule)
{
    blockmap_put(&pinned->added, entry, granule);
    pinned_change(&pinned->differences, granule, 1);
}

/* Note a pin that the open batch has deleted; there is room. */
static void
pinned_remove(struct pinned *pinned, uint64_t entry, uint64_t granule)
{
    if (!blockmap_pop(&pinned->added, entry, NULL)) {
        blockmap_put(&pinned->removed, entry, granule);
    }
    pinned_change(&pinned->differences, granule, UINT64_MAX);
}

/* Tell whether a block is pinned as the open batch has it. */
static inline bool
pinned_in_batch(const struct pinned *pinned, uint64_t granule)
{
    const struct blockmap_item *count = blockmap_find(&pinned->counts, granule);
    const struct blockmap_item *difference = blockmap_find(&pinned->differences, granule);
    return (count ? count->value : 0) + (difference ? difference->value : 0) > 0;
}

/* Forget the batch. */
static inline void
pinned_abort(struct pinned *pinned)
{
    blockmap_clear(&pinned->added);
    blockmap_clear(&pinned->removed);
    blockmap_clear(&pinned->differences);
}

/* See to it that a commit can be counted in without fail. */
static inline enum status
pinned_reserve_commit(struct pinned *pinned)
{
    if (pinned->added.count == 0) {
        return FINE;
    }
    enum status status = blockmap_reserve(&pinned->entries, pinned->added.count);
    return status == FINE ? blockmap_reserve(&pinned->counts, pinned->added.count) : status;
}

/* Count in what the batch has added; what it has removed follows, one by one. */
static inline void
pinned_commit_added(struct pinned *pinned)
{
    const struct blockmap_item *item;
    for (size_t at = 0; (item = blockmap_next(&pinned->added, &at));) {
        pinned_count(pinned, item->key, item->value);
    }
}

/* Count out a pin; tell whether a held block, whose size is told, is not pinned any more. */
static bool
pinned_commit_removed(struct pinned *pinned, uint64_t entry, uint64_t granule, uint64_t *size)
{
    struct blockmap_item held, *count = blockmap_find(&pinned->counts, granule);
    blockmap_pop(&pinned->entries, entry, NULL);
    if (count == NULL || --count->value) {
        return false;
    }
    blockmap_pop(&pinned->counts, granule, NULL);
    bool released = blockmap_pop(&pinned->held, granule, &held);
    *size = released ? held.value : 0;
    return released;
}

/* Blocks that are given up */

/* See to it that so many blocks can be held without fail. */
static inline enum status
pinned_reserve_held(struct pinned *pinned, size_t more)
{
    bool some = pinned->entries.count + pinned->added.count > 0;
    return some ? blockmap_reserve(&pinned->held, more) : FINE;
}

/* Hold a block, to which nothing leads any more, if a committed pin names it; tell whether one
   does. There is room. */
static inline bool
pinned_keeps(struct pinned *pinned, uint64_t start, uint64_t size)
{
    return blockmap_has(&pinned->counts, start) && blockmap_put(&pinned->held, start, size) == FINE;
}

#endif
