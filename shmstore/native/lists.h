/* The order lists the open batch has changed, by name: opened when first changed, then sealed in
   that order. */

#ifndef SHMSTORE_LISTS_H
#define SHMSTORE_LISTS_H

#include "order.h"
#include "staging.h"

/* The secondary indexes of a record: what follows the name of its table's list in theirs. */
struct indexes {
    const struct span *items;
    size_t count;
};

#define NO_INDEXES ((struct indexes){NULL, 0})
#define LIST_BYTES_MAX ((UINT64_C(1) << (64 - KEY_SIZE_SHIFT)) - 1)

struct changed_list {
    struct order order;
    uint64_t next; /* one more than the place of another list of the same hash, or 0 */
    size_t name_size;
    unsigned char name[];
};

struct lists {
    struct lookup *lookup;
    struct staging *staging;
    struct changed_list **changed;
    size_t count;
    size_t room;
    struct blockmap by_hash; /* one more than a place in ``changed`` */
    unsigned char *name;     /* room to put names together */
};

static enum status
lists_open(struct lists *lists, struct lookup *lookup, struct staging *staging)
{
    memset(lists, 0, sizeof *lists);
    lists->lookup = lookup;
    lists->staging = staging;
    lists->name = malloc(LIST_BYTES_MAX);
    return lists->name == NULL ? NO_MEMORY : FINE;
}

/* Forget the batch's changes. */
static void
lists_begin(struct lists *lists)
{
    for (size_t i = 0; i < lists->count; i++) {
        order_close(&lists->changed[i]->order);
        free(lists->changed[i]);
    }
    lists->count = 0;
    blockmap_clear(&lists->by_hash);
}

static void
lists_close(struct lists *lists)
{
    lists_begin(lists);
    blockmap_close(&lists->by_hash);
    free(lists->changed);
    free(lists->name);
}

/* Put together the name of a list; it stays until the next one is. */
static enum status
lists_name(struct lists *lists, struct span table, struct span index, struct span *name,
           struct fault *fault)
{
    if (index.size == 0) {
        *name = table;
        return FINE;
    }
    if (table.size > LIST_BYTES_MAX || index.size > LIST_BYTES_MAX - table.size) {
        return fail(fault, DAMAGED, "the name of a list has %zu bytes", table.size + index.size);
    }
    memcpy(lists->name, table.data, table.size);
    memcpy(lists->name + table.size, index.data, index.size);
    *name = (struct span){lists->name, table.size + index.size};
    return FINE;
}

static struct changed_list *
lists_changed(const struct lists *lists, uint64_t hash, struct span name)
{
    const struct blockmap_item *item = blockmap_find(&lists->by_hash, hash);
    uint64_t next = item ? item->value : 0;
    while (next) {
        struct changed_list *list = lists->changed[next - 1];
        if (list->name_size == name.size && memcmp(list->name, name.data, name.size) == 0) {
            return list;
        }
        next = list->next;
    }
    return NULL;
}

/* Read the committed (count, root) of a list; *found tells whether it has a head. */
static enum status
lists_load(const struct lists *lists, const struct lead *head, uint64_t *count,
           struct leaf_or_inner *root, bool *found, struct fault *fault)
{
    struct entry entry;
    enum status status = staging_find(lists->staging, head, &entry, found, fault);
    if (status != FINE || !*found) {
        *count = 0;
        return status;
    }
    return load_head(&lists->lookup->memory, entry.granule * WORDS_PER_GRANULE, count, root, fault);
}

/* Make room for one more changed list. */
static enum status
lists_reserve(struct lists *lists)
{
    if (lists->count < lists->room) {
        return FINE;
    }
    size_t room = lists->room ? lists->room * 2 : 16;
    struct changed_list **changed = realloc(lists->changed, room * sizeof *changed);
    if (changed == NULL) {
        return NO_MEMORY;
    }
    lists->changed = changed;
    lists->room = room;
    return FINE;
}

static enum status
lists_add(struct lists *lists, const struct lead *head, uint32_t width, struct changed_list **added,
          struct fault *fault)
{
    struct leaf_or_inner root = {.count = 0, .width = width, .level = 0};
    const struct blockmap_item *same;
    uint64_t count;
    bool found;
    enum status status = lists_load(lists, head, &count, &root, &found, fault);
    if (status != FINE || (status = lists_reserve(lists)) != FINE) {
        return status;
    }
    struct changed_list *list = malloc(sizeof *list + head->key_size);
    if (list == NULL) {
        return NO_MEMORY;
    }
    status = order_open(&list->order, &lists->lookup->memory, &root, count);
    same = blockmap_find(&lists->by_hash, head->word_hash);
    list->next = same ? same->value : 0;
    if (status == FINE) {
        status = blockmap_put(&lists->by_hash, head->word_hash, lists->count + 1);
    }
    if (status != FINE) {
        order_close(&list->order);
        free(list);
        return status;
    }
    list->name_size = head->key_size;
    memcpy(list->name, head->key, head->key_size);
    lists->changed[lists->count++] = *added = list;
    return FINE;
}

/* Find a list in order to change it. */
static enum status
lists_change(struct lists *lists, struct span table, struct span index, uint32_t width,
             struct order **order, struct fault *fault)
{
    struct span name;
    enum status status = lists_name(lists, table, index, &name, fault);
    if (status != FINE) {
        return status;
    }
    struct lead head = head_lead(lists->lookup, name.data, name.size);
    struct changed_list *list = lists_changed(lists, head.word_hash, name);
    lists->staging->changes++;
    if (list == NULL) {
        status = lists_add(lists, &head, width, &list, fault);
        if (status != FINE) {
            return status;
        }
    }
    else if (list->order.count == 0) {
        list->order.root->width = width;
    }
    *order = &list->order;
    return FINE;
}

/* Find the number of elements of the list ``name``. */
static enum status
lists_count(const struct lists *lists, struct span name, uint64_t *count, struct fault *fault)
{
    struct lead head = head_lead(lists->lookup, name.data, name.size);
    const struct changed_list *list = lists_changed(lists, head.word_hash, name);
    struct leaf_or_inner root;
    bool found;
    if (list != NULL) {
        *count = list->order.count;
        return FINE;
    }
    return lists_load(lists, &head, count, &root, &found, fault);
}

/* Find the elements of the list ``name`` beyond ``walk->beyond``, whose sort word counts only in
   lists that have some. The caller sets the rest of ``walk`` but memory and fault. */
static enum status
lists_walk(const struct lists *lists, struct span name, struct walk *walk, struct fault *fault)
{
    struct lead head = head_lead(lists->lookup, name.data, name.size);
    const struct changed_list *list = lists_changed(lists, head.word_hash, name);
    struct leaf_or_inner root;
    uint64_t count;
    bool found = true;
    enum status status = FINE;
    walk->memory = &lists->lookup->memory;
    walk->fault = fault;
    if (list == NULL) {
        status = lists_load(lists, &head, &count, &root, &found, fault);
    }
    if (status != FINE || !found) {
        return status;
    }
    if ((list ? list->order.root->width : root.width) != 3) {
        walk->beyond.sort = 0;
    }
    return list ? walk_own(walk, list->order.root) : walk_node(walk, &root);
}

/* Tell whether a record of these indexes is in the list of ``index``; it is in its table's. */
static bool
indexes_name(const struct indexes *indexes, struct span index)
{
    if (index.size == 0) {
        return true;
    }
    for (size_t i = 0; i < indexes->count; i++) {
        const struct span *item = &indexes->items[i];
        if (item->size == index.size && memcmp(item->data, index.data, index.size) == 0) {
            return true;
        }
    }
    return false;
}

/* The index at a place where the table's own list is the first. */
static struct span
index_at(const struct indexes *indexes, size_t place)
{
    return place ? indexes->items[place - 1] : (struct span){NULL, 0};
}

/* Move a record from its old place in its lists to its new one; NULL is no place. */
static enum status
lists_move(struct lists *lists, struct span table, uint64_t word_hash, uint32_t width,
           const struct position *was, const struct position *now, struct indexes old,
           struct indexes new, struct fault *fault)
{
    bool stays = was && now && position_compare(*was, *now) == 0;
    enum status status = FINE;
    struct order *order;
    for (size_t i = 0; was && i <= old.count; i++) {
        struct span index = index_at(&old, i);
        if (stays && indexes_name(&new, index)) {
            continue;
        }
        status = lists_change(lists, table, index, width, &order, fault);
        if (status != FINE || (status = order_remove(order, *was, fault)) != FINE) {
            return status;
        }
    }
    for (size_t i = 0; now && i <= new.count; i++) {
        struct span index = index_at(&new, i);
        if (stays && indexes_name(&old, index)) {
            continue;
        }
        status = lists_change(lists, table, index, width, &order, fault);
        if (status != FINE || (status = order_insert(order, *now, word_hash, fault)) != FINE) {
            return status;
        }
    }
    return status;
}

/* Empty a list whose records are deleted one by one. */
static enum status
lists_drop(struct lists *lists, struct span table, struct span index, struct fault *fault)
{
    struct order *order;
    enum status status = lists_change(lists, table, index, 2, &order, fault);
    return status == FINE ? order_drop(order, fault) : status;
}

static enum status
note_replaced(struct staging *staging, const struct order *order)
{
    const struct blockmap_item *item;
    size_t at = 0;
    while ((item = blockmap_next(&order->replaced, &at)) != NULL) {
        if (blockmap_put(&staging->replaced, item->key, item->value) != FINE) {
            return NO_MEMORY;
        }
    }
    return FINE;
}

static enum status
kill_head(struct staging *staging, const struct lead *head, struct fault *fault)
{
    struct entry entry;
    bool found;
    enum status status = staging_find(staging, head, &entry, &found, fault);
    return status == FINE && found ? staging_kill(staging, head, &entry, fault) : status;
}

static enum status
write_head(struct staging *staging, const struct lead *head, struct order *order,
           struct fault *fault)
{
    uint64_t words[1 + NODE_WORDS_MAX] = {order->count};
    struct place place;
    size_t count;
    enum status status =
        order_seal(order, &staging->heap, &staging->written, words + 1, &count, fault);
    size_t size = (1 + count) * WORD_BYTES;
    if (status == FINE) {
        status = staging_allocate(staging, head, CLASS_HEAD, size, true, &place, fault);
    }
    if (status != FINE) {
        return status;
    }
    return staging_write(staging, &place, head, CLASS_HEAD, 0, 0, words, size, fault);
}

/* Write the changed nodes and heads into blocks. */
static enum status
lists_seal(struct lists *lists, struct fault *fault)
{
    struct staging *staging = lists->staging;
    for (size_t i = 0; i < lists->count; i++) {
        struct changed_list *list = lists->changed[i];
        struct order *order = &list->order;
        struct lead head = head_lead(lists->lookup, list->name, list->name_size);
        enum status status = note_replaced(staging, order);
        if (status == FINE) {
            status = order->count ? write_head(staging, &head, order, fault)
                                  : kill_head(staging, &head, fault);
        }
        if (status != FINE) {
            return status;
        }
    }
    return FINE;
}

#endif
