/* Free blocks by size: two-level segregated lists (TLSF, Masmano et al. 2004).

   Which block is found is part of what both engines agree on: of a class the one last freed. */

#ifndef SHMSTORE_FREE_H
#define SHMSTORE_FREE_H

#include "blockmap.h"

#define FREE_EXACT_SIZES 64
#define FREE_CLASS_BITS 4
#define FREE_CLASSES (FREE_EXACT_SIZES + (40 << FREE_CLASS_BITS))
#define FREE_ROOM_MIN 64

/* A free block, in the list of its class. Nodes are named by numbers; 0 is none. */
struct free_node {
    uint64_t start;
    uint64_t size;
    uint32_t older;
    uint32_t newer;
};

struct free_class {
    uint32_t oldest;
    uint32_t newest;
};

struct free_blocks {
    uint64_t granules;       /* their size together */
    struct free_node *nodes; /* nodes[0] is unused */
    uint32_t count;          /* nodes that are blocks */
    uint32_t room;
    uint32_t begun;  /* nodes that have ever been blocks */
    uint32_t unused; /* those of them that no longer are, linked by ``newer`` */
    struct slots by_start;
    struct slots by_end;
    uint64_t occupied[FREE_CLASSES / 64];
    struct free_class classes[FREE_CLASSES];
};

static inline uint64_t
free_start_of(const void *nodes, uint32_t number)
{
    return ((const struct free_node *)nodes)[number].start;
}

static inline uint64_t
free_end_of(const void *nodes, uint32_t number)
{
    const struct free_node *node = (const struct free_node *)nodes + number;
    return node->start + node->size;
}

static inline unsigned
free_top_bit(uint64_t size)
{
    return 63 - (unsigned)__builtin_clzll(size);
}

static inline uint64_t
free_class_of(uint64_t size)
{
    if (size < FREE_EXACT_SIZES) {
        return size;
    }
    unsigned top = free_top_bit(size);
    return FREE_EXACT_SIZES + ((uint64_t)(top - 6) << FREE_CLASS_BITS) +
           (size >> (top - FREE_CLASS_BITS) & 15);
}

static inline uint64_t
free_class_width(uint64_t size)
{
    return size < FREE_EXACT_SIZES ? 1 : (uint64_t)1 << (free_top_bit(size) - FREE_CLASS_BITS);
}

static void
free_open(struct free_blocks *blocks)
{
    memset(blocks, 0, sizeof *blocks);
}

static void
free_close(struct free_blocks *blocks)
{
    free(blocks->nodes);
    slots_close(&blocks->by_start);
    slots_close(&blocks->by_end);
    free_open(blocks);
}

static enum status
free_grow(struct free_blocks *blocks, uint64_t wanted)
{
    uint64_t room = blocks->room ? (uint64_t)blocks->room * 2 : FREE_ROOM_MIN;
    room = room > wanted ? room : wanted;
    if (room > SLOTS_ITEMS_MAX) {
        return NO_MEMORY;
    }
    struct free_node *nodes = realloc(blocks->nodes, (size_t)(room + 1) * sizeof *nodes);
    if (nodes == NULL) {
        return NO_MEMORY;
    }
    blocks->nodes = nodes;
    struct slots by_start, by_end;
    if (slots_open(&by_start, (size_t)room) != FINE) {
        return NO_MEMORY;
    }
    if (slots_open(&by_end, (size_t)room) != FINE) {
        slots_close(&by_start);
        return NO_MEMORY;
    }
    for (uint64_t class = 0; class < FREE_CLASSES; class++) {
        for (uint32_t at = blocks->classes[class].oldest; at; at = nodes[at].newer) {
            slots_add(&by_start, nodes[at].start, at);
            slots_add(&by_end, nodes[at].start + nodes[at].size, at);
        }
    }
    slots_close(&blocks->by_start);
    slots_close(&blocks->by_end);
    blocks->by_start = by_start;
    blocks->by_end = by_end;
    blocks->room = (uint32_t)room;
    return FINE;
}

/* See to it that so many blocks can be added without fail. */
static inline enum status
free_reserve(struct free_blocks *blocks, uint64_t more)
{
    uint64_t wanted = blocks->count + more;
    return wanted <= blocks->room ? FINE : free_grow(blocks, wanted);
}

/* Put a node into the class of its size, as the newest. */
static inline void
free_link(struct free_blocks *blocks, uint32_t at)
{
    struct free_node *node = &blocks->nodes[at];
    uint64_t chosen = free_class_of(node->size);
    struct free_class *class = &blocks->classes[chosen];
    node->newer = 0;
    node->older = class->newest;
    if (class->newest) {
        blocks->nodes[class->newest].newer = at;
    }
    else {
        class->oldest = at;
        blocks->occupied[chosen / 64] |= (uint64_t)1 << chosen % 64;
    }
    class->newest = at;
    blocks->granules += node->size;
}

static inline void
free_unlink(struct free_blocks *blocks, uint32_t at)
{
    const struct free_node *node = &blocks->nodes[at];
    uint64_t chosen = free_class_of(node->size);
    struct free_class *class = &blocks->classes[chosen];
    if (node->older) {
        blocks->nodes[node->older].newer = node->newer;
    }
    else {
        class->oldest = node->newer;
    }
    if (node->newer) {
        blocks->nodes[node->newer].older = node->older;
    }
    else {
        class->newest = node->older;
    }
    if (class->oldest == 0) {
        blocks->occupied[chosen / 64] &= ~((uint64_t)1 << chosen % 64);
    }
    blocks->granules -= node->size;
}

static inline uint32_t
free_node_take(struct free_blocks *blocks)
{
    uint32_t at = blocks->unused;
    if (at) {
        blocks->unused = blocks->nodes[at].newer;
    }
    else {
        at = ++blocks->begun;
    }
    blocks->count++;
    return at;
}

static inline void
free_node_drop(struct free_blocks *blocks, uint32_t at)
{
    blocks->nodes[at].newer = blocks->unused;
    blocks->unused = at;
    blocks->count--;
}

/* Add a block, for which there is room; it merges with its neighbours. */
static void
free_add(struct free_blocks *blocks, uint64_t start, uint64_t size)
{
    struct free_node *nodes = blocks->nodes;
    uint32_t before = slots_get(&blocks->by_end, start, nodes, free_end_of);
    uint32_t after = slots_get(&blocks->by_start, start + size, nodes, free_start_of);
    uint32_t at = before;
    if (before) {
        free_unlink(blocks, before);
        slots_remove(&blocks->by_end, start, nodes, free_end_of);
        size += nodes[before].size;
        start = nodes[before].start;
    }
    else {
        at = free_node_take(blocks);
        nodes[at].start = start;
        slots_add(&blocks->by_start, start, at);
    }
    if (after) {
        free_unlink(blocks, after);
        slots_remove(&blocks->by_start, nodes[after].start, nodes, free_start_of);
        slots_remove(&blocks->by_end, start + size + nodes[after].size, nodes, free_end_of);
        size += nodes[after].size;
        free_node_drop(blocks, after);
    }
    nodes[at].size = size;
    slots_add(&blocks->by_end, start + size, at);
    free_link(blocks, at);
}

/* Take the first granules of a block out; the rest stays, as the newest of its class. */
static void
free_cut(struct free_blocks *blocks, uint32_t at, uint64_t size)
{
    struct free_node *node = &blocks->nodes[at];
    free_unlink(blocks, at);
    slots_remove(&blocks->by_start, node->start, blocks->nodes, free_start_of);
    if (node->size == size) {
        slots_remove(&blocks->by_end, node->start + size, blocks->nodes, free_end_of);
        free_node_drop(blocks, at);
        return;
    }
    node->start += size;
    node->size -= size;
    slots_add(&blocks->by_start, node->start, at);
    free_link(blocks, at);
}

/* Find a block that fits: one of the smallest class whose blocks all do, or else one of the
   size's own class. Returns its node, or 0. */
static uint32_t
free_find(const struct free_blocks *blocks, uint64_t size)
{
    uint64_t least = free_class_of(size + free_class_width(size) - 1);
    if (least >= FREE_CLASSES) {
        return 0;
    }
    uint64_t fitting = blocks->occupied[least / 64] >> least % 64 << least % 64;
    for (uint64_t i = least / 64;;) {
        if (fitting) {
            return blocks->classes[i * 64 + (unsigned)__builtin_ctzll(fitting)].newest;
        }
        if (++i == FREE_CLASSES / 64) {
            break;
        }
        fitting = blocks->occupied[i];
    }
    uint32_t at = blocks->classes[free_class_of(size)].oldest;
    while (at && blocks->nodes[at].size < size) {
        at = blocks->nodes[at].newer;
    }
    return at;
}

/* Append all blocks of at least this size, in no order that means anything. */
static enum status
free_list(const struct free_blocks *blocks, uint64_t size_min, struct blocks *out)
{
    for (uint64_t class = free_class_of(size_min); class < FREE_CLASSES; class++) {
        for (uint32_t at = blocks->classes[class].oldest; at; at = blocks->nodes[at].newer) {
            const struct free_node *node = &blocks->nodes[at];
            if (node->size >= size_min && blocks_add(out, node->start, node->size) != FINE) {
                return NO_MEMORY;
            }
        }
    }
    return FINE;
}

#endif
