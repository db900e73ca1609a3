/* Order lists as readers use them: the elements of a B+ tree beyond a position, in either order.

   Nodes are copied out of the memory before they are looked at, so what is checked is what is
   used. Depth and elements are bounded, and positions must grow, so that no damage is endless. */

#ifndef SHMSTORE_WALK_H
#define SHMSTORE_WALK_H

#include "records.h"

#define NODE_WIDTH_MAX 3
#define NODE_WORDS_MAX (1 + NODE_ELEMENTS_MAX * NODE_WIDTH_MAX)

struct position {
    uint64_t sort; /* 0 in lists that have none */
    uint64_t insertion;
};

/* A node in private memory, as its words. */
struct leaf_or_inner {
    uint32_t count;
    uint32_t width;
    uint32_t level;
    uint64_t words[NODE_WORDS_MAX];
};

struct element {
    struct position position;
    uint64_t word_hash;
};

/* The elements found, in memory of this process. */
struct elements {
    struct element *items;
    size_t count;
    size_t room;
};

struct walk {
    const struct memory *memory;
    struct elements *found;
    struct fault *fault;
    struct position beyond;
    bool has_beyond;
    bool newest_first;
    bool has_last;
    struct position last;
    size_t limit;
};

static inline int
position_compare(struct position a, struct position b)
{
    if (a.sort != b.sort) {
        return a.sort < b.sort ? -1 : 1;
    }
    return a.insertion < b.insertion ? -1 : a.insertion > b.insertion;
}

static inline struct position
node_position(const struct leaf_or_inner *node, uint32_t at)
{
    const uint64_t *element = node->words + 1 + (size_t)at * node->width;
    struct position position = {
        .sort = node->width == 3 ? element[0] : 0,
        .insertion = element[node->width - 2],
    };
    return position;
}

static inline uint64_t
node_child(const struct leaf_or_inner *node, uint32_t at)
{
    return node->words[(size_t)(at + 1) * node->width];
}

/* The first place whose position is not less (``after`` false) or is greater (true). */
static uint32_t
node_search(const struct leaf_or_inner *node, struct position position, bool after)
{
    uint32_t low = 0, high = node->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        int order = position_compare(node_position(node, middle), position);
        if (order < 0 || (after && order == 0)) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    return low;
}

/* Read the node that begins at ``word``, of whose words so many may be looked at. */
static enum status
node_parse(const struct memory *memory, uint64_t word, uint64_t word_count,
           struct leaf_or_inner *node, struct fault *fault)
{
    uint64_t head = word_load(memory, word);
    uint64_t count = head & NODE_COUNT_MASK, width = head >> NODE_WIDTH_SHIFT;
    node->level = (uint32_t)(head >> NODE_LEVEL_SHIFT & NODE_LEVEL_MASK);
    node->count = (uint32_t)count;
    node->width = (uint32_t)width;
    if ((width != 2 && width != 3) || count > NODE_ELEMENTS_MAX || node->level >= LEVELS_MAX) {
        return fail(fault, DAMAGED, "a node begins with 0x%llx", (unsigned long long)head);
    }
    if (1 + count * width > word_count) {
        return fail(fault, DAMAGED, "a node reaches beyond its block");
    }
    node->words[0] = head;
    for (uint64_t i = 1; i < 1 + count * width; i++) {
        node->words[i] = word_load(memory, word + i);
    }
    return FINE;
}

/* Read the child of ``parent`` at ``granule``. */
static enum status
node_load(const struct memory *memory, uint64_t granule, uint32_t level, uint32_t width,
          struct leaf_or_inner *node, struct fault *fault)
{
    uint64_t word = granule * WORDS_PER_GRANULE;
    if (granule > GRANULE_MASK || word >= memory->word_count) {
        return fail(fault, DAMAGED, "a list names a node at granule %llu",
                    (unsigned long long)granule);
    }
    uint64_t left = memory->word_count - word, most = 1 + (uint64_t)NODE_ELEMENTS_MAX * width;
    enum status status = node_parse(memory, word, left < most ? left : most, node, fault);
    if (status == FINE && (node->level != level || node->width != width || !node->count)) {
        return fail(fault, DAMAGED, "the node at granule %llu does not belong to its parent",
                    (unsigned long long)granule);
    }
    return status;
}

/* Read (count, root) of the list whose head is the entry at word ``entry``. */
static enum status
load_head(const struct memory *memory, uint64_t entry, uint64_t *count, struct leaf_or_inner *root,
          struct fault *fault)
{
    struct shape shape = load_shape(memory, entry);
    uint64_t offset;
    enum status status = find_value(memory, entry, &shape, &offset, fault);
    if (status != FINE) {
        return status;
    }
    if (shape.value_size < 2 * WORD_BYTES || shape.value_size % WORD_BYTES) {
        return fail(fault, DAMAGED, "a list head holds %u bytes", shape.value_size);
    }
    uint64_t words[1 + NODE_WORDS_MAX];
    size_t size = shape.value_size < sizeof words ? shape.value_size : sizeof words;
    bytes_load(memory, offset, words, size);
    struct memory copy = {(_Atomic uint64_t *)words, size / WORD_BYTES};
    *count = words[0];
    return node_parse(&copy, 1, copy.word_count - 1, root, fault);
}

static enum status
elements_add(struct elements *elements, struct position position, uint64_t word_hash)
{
    if (elements->count == elements->room) {
        size_t room = elements->room ? elements->room * 2 : 64;
        struct element *items = realloc(elements->items, room * sizeof *items);
        if (items == NULL) {
            return NO_MEMORY;
        }
        elements->items = items;
        elements->room = room;
    }
    elements->items[elements->count].position = position;
    elements->items[elements->count++].word_hash = word_hash;
    return FINE;
}

static enum status
walk_leaf(struct walk *walk, struct position position, uint64_t word_hash)
{
    bool has_edge = walk->has_last || walk->has_beyond;
    if (has_edge) {
        int order = position_compare(position, walk->has_last ? walk->last : walk->beyond);
        if (walk->newest_first ? order >= 0 : order <= 0) {
            return fail(walk->fault, DAMAGED, "a list is out of order at %llu",
                        (unsigned long long)position.insertion);
        }
    }
    walk->last = position;
    walk->has_last = true;
    return elements_add(walk->found, position, word_hash);
}

/* Only the first child may lie short of the walk's beginning: nodes that lead to each other would
   else be walked for ever, without an element. */
static inline enum status
walk_advanced(const struct walk *walk, size_t before, uint32_t step)
{
    return step == 0 || walk->found->count > before
               ? FINE
               : fail(walk->fault, DAMAGED, "a list has a node of none of its elements");
}

static enum status
walk_node(struct walk *walk, const struct leaf_or_inner *node)
{
    uint32_t start = 0, end = node->count;
    if (walk->has_beyond && walk->newest_first) {
        end = node_search(node, walk->beyond, false);
    }
    else if (walk->has_beyond) {
        start = node_search(node, walk->beyond, true);
        if (node->level && start) {
            start--;
        }
    }
    for (uint32_t step = 0; step < end - start && walk->found->count < walk->limit; step++) {
        uint32_t at = walk->newest_first ? end - 1 - step : start + step;
        size_t before = walk->found->count;
        enum status status;
        if (node->level == 0) {
            status = walk_leaf(walk, node_position(node, at), node_child(node, at));
        }
        else {
            struct leaf_or_inner child;
            status = node_load(walk->memory, node_child(node, at), node->level - 1, node->width,
                               &child, walk->fault);
            if (status == FINE) {
                status = walk_node(walk, &child);
            }
        }
        if (status == FINE) {
            status = walk_advanced(walk, before, step);
        }
        if (status != FINE) {
            return status;
        }
    }
    return FINE;
}

#endif
