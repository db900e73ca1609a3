/* Order lists as the open batch changes them: new copies of the nodes on the way to a change.

   Nodes that are committed are never changed; sealing writes the batch's own into new blocks,
   children first. How readers walk the result is in walk.h. */

#ifndef SHMSTORE_ORDER_H
#define SHMSTORE_ORDER_H

#include "heap.h"
#include "walk.h"

#define NODE_SPARSE (NODE_ELEMENTS_MAX / 4)
#define NODE_MERGED_MAX (NODE_ELEMENTS_MAX * 3 / 4)

/* A node of the open batch. It holds one element more than it may keep, until it is split. */
struct node {
    uint32_t level;
    uint32_t width;
    uint32_t count;
    struct position positions[NODE_ELEMENTS_MAX + 1];
    uint64_t children[NODE_ELEMENTS_MAX + 1]; /* hashes in a leaf, granules of nodes above */
    struct node *own[NODE_ELEMENTS_MAX + 1];  /* above leaves: the batch's copy, or NULL */
};

struct order {
    const struct memory *memory;
    struct node *root;
    uint64_t count;
    struct blockmap replaced; /* size by start of the committed nodes that were copied */
    bool broken;              /* left half changed: the batch can only be aborted */
};

static inline uint64_t
node_granules(uint32_t count, uint32_t width)
{
    return (1 + (uint64_t)count * width + WORDS_PER_GRANULE - 1) / WORDS_PER_GRANULE;
}

static struct node *
node_make(uint32_t level, uint32_t width)
{
    struct node *node = malloc(sizeof *node);
    if (node != NULL) {
        node->level = level;
        node->width = width;
        node->count = 0;
    }
    return node;
}

static struct node *
node_copy(const struct leaf_or_inner *source)
{
    struct node *node = node_make(source->level, source->width);
    if (node == NULL) {
        return NULL;
    }
    node->count = source->count;
    for (uint32_t at = 0; at < source->count; at++) {
        node->positions[at] = node_position(source, at);
        node->children[at] = node_child(source, at);
        node->own[at] = NULL;
    }
    return node;
}

static void
node_destroy(struct node *node)
{
    if (node == NULL) {
        return;
    }
    for (uint32_t at = 0; node->level && at < node->count; at++) {
        node_destroy(node->own[at]);
    }
    free(node);
}

/* The first place whose position is not less (``after`` false) or is greater (true). */
static uint32_t
own_search(const struct node *node, struct position position, bool after)
{
    uint32_t low = 0, high = node->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        int order = position_compare(node->positions[middle], position);
        if (order < 0 || (after && order == 0)) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    return low;
}

/* The place of the child that covers a position. */
static uint32_t
child_place(const struct node *node, struct position position)
{
    uint32_t at = own_search(node, position, true);
    return at ? at - 1 : 0;
}

/* Move the elements from place ``from`` on to place ``to``; the count stays as it is. */
static void
node_shift(struct node *node, uint32_t from, uint32_t to)
{
    size_t moved = node->count - from;
    memmove(node->positions + to, node->positions + from, moved * sizeof *node->positions);
    memmove(node->children + to, node->children + from, moved * sizeof *node->children);
    if (node->level) {
        memmove(node->own + to, node->own + from, moved * sizeof *node->own);
    }
}

static void
node_put(struct node *node, uint32_t at, struct position position, uint64_t child, struct node *own)
{
    node_shift(node, at, at + 1);
    node->positions[at] = position;
    node->children[at] = child;
    node->own[at] = own;
    node->count++;
}

static void
node_delete(struct node *node, uint32_t at)
{
    node_shift(node, at + 1, at);
    node->count--;
}

/* Put the elements of ``source`` from place ``from`` on at the end of ``node``. */
static void
node_append(struct node *node, const struct node *source, uint32_t from)
{
    size_t moved = source->count - from;
    memcpy(node->positions + node->count, source->positions + from,
           moved * sizeof *node->positions);
    memcpy(node->children + node->count, source->children + from, moved * sizeof *node->children);
    if (node->level) {
        memcpy(node->own + node->count, source->own + from, moved * sizeof *node->own);
    }
    node->count += (uint32_t)moved;
}

static enum status
order_open(struct order *order, const struct memory *memory, const struct leaf_or_inner *root,
           uint64_t count)
{
    order->memory = memory;
    order->count = count;
    order->broken = false;
    memset(&order->replaced, 0, sizeof order->replaced);
    order->root = node_copy(root);
    return order->root == NULL ? NO_MEMORY : FINE;
}

static void
order_close(struct order *order)
{
    node_destroy(order->root);
    blockmap_close(&order->replaced);
}

/* Find a child as the batch's own copy. */
static enum status
own_child(struct order *order, struct node *node, uint32_t at, struct node **child,
          struct fault *fault)
{
    if (at >= node->count) {
        return fail(fault, DAMAGED, "a node of level %u has no children", node->level);
    }
    if (node->own[at] == NULL) {
        uint64_t granule = node->children[at];
        struct leaf_or_inner committed;
        enum status status =
            node_load(order->memory, granule, node->level - 1, node->width, &committed, fault);
        if (status != FINE) {
            return status;
        }
        uint64_t size = node_granules(committed.count, committed.width);
        struct node *copy = node_copy(&committed);
        if (copy == NULL || blockmap_put(&order->replaced, granule, size) != FINE) {
            free(copy);
            return NO_MEMORY;
        }
        node->own[at] = copy;
    }
    *child = node->own[at];
    return FINE;
}

/* Split a node that has grown too large: the elements from place ``at`` on go into *right. */
static enum status
node_split(struct node *node, uint32_t at, struct node **right)
{
    *right = node_make(node->level, node->width);
    if (*right == NULL) {
        return NO_MEMORY;
    }
    node_append(*right, node, at);
    node->count = at;
    return FINE;
}

static enum status
node_insert(struct order *order, struct node *node, struct position position, uint64_t word_hash,
            struct node **right, struct fault *fault)
{
    uint32_t at;
    *right = NULL;
    if (node->level == 0) {
        at = own_search(node, position, false);
        node_put(node, at, position, word_hash, NULL);
    }
    else {
        struct node *child, *more;
        at = child_place(node, position);
        enum status status = own_child(order, node, at, &child, fault);
        if (status == FINE) {
            status = node_insert(order, child, position, word_hash, &more, fault);
        }
        if (status != FINE) {
            return status;
        }
        node->positions[at] = child->positions[0];
        if (more != NULL) {
            node_put(node, ++at, more->positions[0], 0, more);
        }
    }
    if (node->count <= NODE_ELEMENTS_MAX) {
        return FINE;
    }
    /* Appending leaves full nodes behind, as most lists only ever grow at their end. */
    bool appends = at == NODE_ELEMENTS_MAX;
    return node_split(node, appends ? NODE_ELEMENTS_MAX : NODE_ELEMENTS_MAX / 2, right);
}

/* Put a new root over the old one and its right half. */
static enum status
order_raise(struct order *order, struct node *right)
{
    struct node *left = order->root, *root = node_make(left->level + 1, left->width);
    if (root == NULL) {
        node_destroy(right);
        return NO_MEMORY;
    }
    node_put(root, 0, left->positions[0], 0, left);
    node_put(root, 1, right->positions[0], 0, right);
    order->root = root;
    return FINE;
}

static enum status
check_whole(const struct order *order, struct fault *fault)
{
    return order->broken ? fail(fault, DAMAGED, "a list was left half changed") : FINE;
}

/* Add an element; costs a copy of one node per level. */
static enum status
order_insert(struct order *order, struct position position, uint64_t word_hash, struct fault *fault)
{
    struct node *right;
    enum status status = check_whole(order, fault);
    if (status != FINE) {
        return status;
    }
    status = node_insert(order, order->root, position, word_hash, &right, fault);
    if (status == FINE && right != NULL) {
        status = order_raise(order, right);
    }
    order->broken = status == NO_MEMORY;
    order->count += status == FINE;
    return status;
}

/* Put the child behind ``at`` into the one at ``at``, if they fit in half a node more. */
static enum status
node_merge(struct order *order, struct node *node, uint32_t at, struct fault *fault)
{
    struct node *left, *right;
    enum status status = own_child(order, node, at, &left, fault);
    if (status == FINE) {
        status = own_child(order, node, at + 1, &right, fault);
    }
    if (status != FINE || left->count + right->count > NODE_MERGED_MAX) {
        return status;
    }
    node_append(left, right, 0);
    free(right);
    node_delete(node, at + 1);
    return FINE;
}

static enum status
node_remove(struct order *order, struct node *node, struct position position, struct fault *fault)
{
    if (node->level == 0) {
        uint32_t at = own_search(node, position, false);
        if (at == node->count || position_compare(node->positions[at], position) != 0) {
            return fail(fault, DAMAGED, "position (%llu, %llu) is missing from its list",
                        (unsigned long long)position.sort, (unsigned long long)position.insertion);
        }
        node_delete(node, at);
        return FINE;
    }
    uint32_t at = child_place(node, position);
    struct node *child;
    enum status status = own_child(order, node, at, &child, fault);
    if (status == FINE) {
        status = node_remove(order, child, position, fault);
    }
    if (status != FINE) {
        return status;
    }
    if (child->count == 0) {
        free(child);
        node_delete(node, at);
        return FINE;
    }
    node->positions[at] = child->positions[0];
    if (child->count < NODE_SPARSE && node->count > 1) {
        return node_merge(order, node, at ? at - 1 : 0, fault);
    }
    return FINE;
}

/* Take the root away as long as it has a single child. */
static enum status
order_lower(struct order *order, struct fault *fault)
{
    while (order->root->level && order->root->count == 1) {
        struct node *root = order->root, *child;
        enum status status = own_child(order, root, 0, &child, fault);
        if (status != FINE) {
            return status;
        }
        order->root = child;
        free(root);
    }
    return FINE;
}

/* Take an element out; it must be there. */
static enum status
order_remove(struct order *order, struct position position, struct fault *fault)
{
    enum status status = check_whole(order, fault);
    if (status != FINE) {
        return status;
    }
    status = node_remove(order, order->root, position, fault);
    if (status == FINE && order->count == 0) {
        order->broken = true;
        return fail(fault, DAMAGED, "a list that says it is empty has elements");
    }
    if (status == FINE) {
        order->count--;
        status = order_lower(order, fault);
    }
    order->broken = status == NO_MEMORY;
    return status;
}

static enum status
drop_committed(struct order *order, uint64_t granule, uint32_t level, uint32_t width,
               struct fault *fault)
{
    struct leaf_or_inner node;
    enum status status = node_load(order->memory, granule, level, width, &node, fault);
    if (status == FINE) {
        status = blockmap_put(&order->replaced, granule, node_granules(node.count, node.width));
    }
    for (uint32_t at = 0; status == FINE && level && at < node.count; at++) {
        status = drop_committed(order, node_child(&node, at), level - 1, width, fault);
    }
    return status;
}

static enum status
drop_own(struct order *order, const struct node *node, struct fault *fault)
{
    enum status status = FINE;
    for (uint32_t at = 0; status == FINE && node->level && at < node->count; at++) {
        if (node->own[at] != NULL) {
            status = drop_own(order, node->own[at], fault);
        }
        else {
            status = drop_committed(order, node->children[at], node->level - 1, node->width, fault);
        }
    }
    return status;
}

/* Put up all committed nodes for retirement. */
static enum status
order_drop(struct order *order, struct fault *fault)
{
    struct node *empty = node_make(0, order->root->width);
    enum status status = empty == NULL ? NO_MEMORY : drop_own(order, order->root, fault);
    if (status != FINE) {
        free(empty);
        return status;
    }
    node_destroy(order->root);
    order->root = empty;
    order->count = 0;
    return FINE;
}

/* Give the node as words, of which there are at most NODE_WORDS_MAX; return their number. Its
   children must all be granules. */
static size_t
node_words(const struct node *node, uint64_t *words)
{
    uint64_t *word = words;
    *word++ = (uint64_t)node->width << NODE_WIDTH_SHIFT |
              (uint64_t)node->level << NODE_LEVEL_SHIFT | node->count;
    for (uint32_t at = 0; at < node->count; at++) {
        if (node->width == 3) {
            *word++ = node->positions[at].sort;
        }
        *word++ = node->positions[at].insertion;
        *word++ = node->children[at];
    }
    return (size_t)(word - words);
}

/* Write a node whose children are sealed into a block of its own. */
static enum status
node_write(const struct order *order, const struct node *node, struct heap *heap,
           struct blockmap *written, uint64_t *granule, struct fault *fault)
{
    uint64_t words[NODE_WORDS_MAX], size = node_granules(node->count, node->width);
    enum status status = heap_allocate(heap, size, true, granule, fault);
    if (status != FINE) {
        return status;
    }
    if (blockmap_put(written, *granule, size) != FINE) {
        heap_free(heap, *granule, size);
        return NO_MEMORY;
    }
    size_t count = node_words(node, words);
    for (size_t i = 0; i < count; i++) {
        word_store(order->memory, *granule * WORDS_PER_GRANULE + i, words[i]);
    }
    return FINE;
}

static enum status
seal_children(const struct order *order, struct node *node, struct heap *heap,
              struct blockmap *written, struct fault *fault)
{
    for (uint32_t at = 0; node->level && at < node->count; at++) {
        struct node *child = node->own[at];
        if (child == NULL) {
            continue;
        }
        enum status status = seal_children(order, child, heap, written, fault);
        if (status == FINE) {
            status = node_write(order, child, heap, written, &node->children[at], fault);
        }
        if (status != FINE) {
            return status;
        }
        node->own[at] = NULL;
        free(child);
    }
    return FINE;
}

/* Write the batch's nodes, children first, and give the root as words, at most NODE_WORDS_MAX.
   Blocks taken are noted in ``written``. */
static enum status
order_seal(struct order *order, struct heap *heap, struct blockmap *written, uint64_t *words,
           size_t *count, struct fault *fault)
{
    enum status status = check_whole(order, fault);
    if (status == FINE) {
        status = seal_children(order, order->root, heap, written, fault);
    }
    *count = status == FINE ? node_words(order->root, words) : 0;
    return status;
}

/* Find the elements beyond a position, among the batch's own nodes and those committed. */
static enum status
walk_own(struct walk *walk, const struct node *node)
{
    uint32_t start = 0, end = node->count;
    if (walk->has_beyond && walk->newest_first) {
        end = own_search(node, walk->beyond, false);
    }
    else if (walk->has_beyond) {
        start = own_search(node, walk->beyond, true);
        if (node->level && start) {
            start--;
        }
    }
    enum status status = FINE;
    for (uint32_t step = 0; step < end - start && walk->found->count < walk->limit; step++) {
        uint32_t at = walk->newest_first ? end - 1 - step : start + step;
        size_t before = walk->found->count;
        struct leaf_or_inner child;
        if (node->level == 0) {
            status = walk_leaf(walk, node->positions[at], node->children[at]);
        }
        else if (node->own[at] != NULL) {
            status = walk_own(walk, node->own[at]);
        }
        else {
            status = node_load(walk->memory, node->children[at], node->level - 1, node->width,
                               &child, walk->fault);
            status = status == FINE ? walk_node(walk, &child) : status;
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
