/* Maps and lists of blocks: the writer's private notes, in memory of its own process.

   A map keeps the order in which its keys came, as a dict of the pure engine does: what is done
   for all of them must be done in the same order by both engines. All zeros is an empty one. */

#ifndef SHMSTORE_BLOCKMAP_H
#define SHMSTORE_BLOCKMAP_H

#include "slots.h"

#define BLOCKMAP_ROOM_MIN 8
#define BLOCKMAP_ROOM_KEPT 64 /* what a map keeps when it is cleared */
#define BLOCKMAP_GONE UINT64_MAX
#define BLOCKS_DIGIT_BITS 9
#define BLOCKS_DIGIT_MASK ((UINT64_C(1) << BLOCKS_DIGIT_BITS) - 1)
#define BLOCKS_MANY 4096

struct blockmap_item {
    uint64_t key; /* anything but BLOCKMAP_GONE */
    uint64_t value;
    uint64_t extra;
};

struct blockmap {
    struct blockmap_item *items;
    size_t used; /* items in use, those that are gone included */
    size_t room;
    size_t count;
    struct slots slots;
};

static inline uint64_t
blockmap_key(const void *items, uint32_t number)
{
    return ((const struct blockmap_item *)items)[number - 1].key;
}

/* The item of a key, or NULL; it stays where it is until the next put. */
static inline struct blockmap_item *
blockmap_find(const struct blockmap *map, uint64_t key)
{
    if (map->count == 0) {
        return NULL;
    }
    uint32_t number = slots_get(&map->slots, key, map->items, blockmap_key);
    return number ? &map->items[number - 1] : NULL;
}

static inline bool
blockmap_has(const struct blockmap *map, uint64_t key)
{
    return blockmap_find(map, key) != NULL;
}

/* Put the items that are left close together, into ``target``, and number them anew. */
static void
blockmap_pack(struct blockmap *map, struct blockmap_item *target)
{
    size_t count = 0;
    for (size_t i = 0; i < map->used; i++) {
        if (map->items[i].key != BLOCKMAP_GONE) {
            target[count++] = map->items[i];
            slots_add(&map->slots, target[count - 1].key, (uint32_t)count);
        }
    }
    map->used = count;
}

static enum status
blockmap_grow(struct blockmap *map, size_t wanted)
{
    size_t room = map->room ? map->room : BLOCKMAP_ROOM_MIN;
    while (room < wanted) {
        room *= 2;
    }
    if (room > SLOTS_ITEMS_MAX) {
        return NO_MEMORY;
    }
    struct slots slots;
    struct blockmap_item *items = malloc(room * sizeof *items);
    if (items == NULL || slots_open(&slots, room) != FINE) {
        free(items);
        return NO_MEMORY;
    }
    slots_close(&map->slots);
    map->slots = slots;
    blockmap_pack(map, items);
    free(map->items);
    map->items = items;
    map->room = room;
    return FINE;
}

/* See to it that so many puts cannot fail. */
static inline enum status
blockmap_reserve(struct blockmap *map, size_t more)
{
    if (map->room - map->used >= more) {
        return FINE;
    }
    if ((map->count + more) * 2 <= map->room) {
        slots_clear(&map->slots);
        blockmap_pack(map, map->items);
        return FINE;
    }
    return blockmap_grow(map, map->count + more);
}

/* Give a key its value; a key that is there already keeps its place in the order. */
static inline enum status
blockmap_put_extra(struct blockmap *map, uint64_t key, uint64_t value, uint64_t extra)
{
    struct blockmap_item *item = blockmap_find(map, key);
    if (item == NULL) {
        if (blockmap_reserve(map, 1) != FINE) {
            return NO_MEMORY;
        }
        item = &map->items[map->used++];
        item->key = key;
        slots_add(&map->slots, key, (uint32_t)map->used);
        map->count++;
    }
    item->value = value;
    item->extra = extra;
    return FINE;
}

static inline enum status
blockmap_put(struct blockmap *map, uint64_t key, uint64_t value)
{
    return blockmap_put_extra(map, key, value, 0);
}

/* Take a key out; tell whether it was there. ``popped`` may be NULL. */
static inline bool
blockmap_pop(struct blockmap *map, uint64_t key, struct blockmap_item *popped)
{
    struct blockmap_item *item = blockmap_find(map, key);
    if (item == NULL) {
        return false;
    }
    if (popped) {
        *popped = *item;
    }
    slots_remove(&map->slots, key, map->items, blockmap_key);
    item->key = BLOCKMAP_GONE;
    map->count--;
    while (map->used && map->items[map->used - 1].key == BLOCKMAP_GONE) {
        map->used--;
    }
    return true;
}

/* Go through the items, oldest first: begin with 0, end with NULL. */
static inline const struct blockmap_item *
blockmap_next(const struct blockmap *map, size_t *at)
{
    while (*at < map->used) {
        const struct blockmap_item *item = &map->items[(*at)++];
        if (item->key != BLOCKMAP_GONE) {
            return item;
        }
    }
    return NULL;
}

/* Go through the items, newest first: begin with SIZE_MAX, end with NULL. */
static inline const struct blockmap_item *
blockmap_previous(const struct blockmap *map, size_t *at)
{
    *at = *at < map->used ? *at : map->used;
    while (*at) {
        const struct blockmap_item *item = &map->items[--*at];
        if (item->key != BLOCKMAP_GONE) {
            return item;
        }
    }
    return NULL;
}

static void
blockmap_close(struct blockmap *map)
{
    free(map->items);
    slots_close(&map->slots);
    memset(map, 0, sizeof *map);
}

static inline void
blockmap_clear(struct blockmap *map)
{
    if (map->room > BLOCKMAP_ROOM_KEPT) {
        blockmap_close(map);
    }
    else if (map->count) {
        slots_clear(&map->slots);
    }
    map->used = map->count = 0;
}

struct block {
    uint64_t start;
    uint64_t size;
};

struct blocks {
    struct block *items;
    size_t count;
    size_t room;
};

static inline enum status
blocks_add(struct blocks *blocks, uint64_t start, uint64_t size)
{
    if (blocks->count == blocks->room) {
        size_t room = blocks->room ? blocks->room * 2 : 64;
        struct block *items = realloc(blocks->items, room * sizeof *items);
        if (items == NULL) {
            return NO_MEMORY;
        }
        blocks->items = items;
        blocks->room = room;
    }
    blocks->items[blocks->count].start = start;
    blocks->items[blocks->count++].size = size;
    return FINE;
}

static int
block_compare(const void *left, const void *right)
{
    const struct block *a = left, *b = right;
    if (a->start != b->start) {
        return a->start < b->start ? -1 : 1;
    }
    return a->size < b->size ? -1 : a->size > b->size;
}

static bool
blocks_are_sorted(const struct blocks *blocks)
{
    for (size_t i = 1; i < blocks->count; i++) {
        if (block_compare(&blocks->items[i - 1], &blocks->items[i]) > 0) {
            return false;
        }
    }
    return true;
}

/* Move the blocks by one digit of where they start; those of equal digits keep their order. */
static void
blocks_distribute(const struct block *from, struct block *to, size_t count, unsigned shift)
{
    size_t places[1 << BLOCKS_DIGIT_BITS] = {0}, next = 0;
    for (size_t i = 0; i < count; i++) {
        places[from[i].start >> shift & BLOCKS_DIGIT_MASK]++;
    }
    for (size_t digit = 0; digit <= BLOCKS_DIGIT_MASK; digit++) {
        size_t here = places[digit];
        places[digit] = next;
        next += here;
    }
    for (size_t i = 0; i < count; i++) {
        to[places[from[i].start >> shift & BLOCKS_DIGIT_MASK]++] = from[i];
    }
}

/* Sort by place. By digits where there are many: a takeover has as many as there are records. */
static void
blocks_sort(struct blocks *blocks)
{
    if (blocks_are_sorted(blocks)) {
        return;
    }
    size_t bytes = blocks->count * sizeof *blocks->items;
    struct block *second = blocks->count < BLOCKS_MANY ? NULL : malloc(bytes);
    if (second == NULL) {
        qsort(blocks->items, blocks->count, sizeof *blocks->items, block_compare);
        return;
    }
    for (unsigned shift = 0; shift < GRANULE_BITS; shift += 2 * BLOCKS_DIGIT_BITS) {
        blocks_distribute(blocks->items, second, blocks->count, shift);
        blocks_distribute(second, blocks->items, blocks->count, shift + BLOCKS_DIGIT_BITS);
    }
    free(second);
}

static inline void
blocks_close(struct blocks *blocks)
{
    free(blocks->items);
    memset(blocks, 0, sizeof *blocks);
}

#endif
