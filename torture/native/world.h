/* What plain requests should have done, by the simplest means: a list of records. */

#ifndef SHMSTORE_WORLD_H
#define SHMSTORE_WORLD_H

#include "requests.h"

#define WORLD_RECORDS_MAX 512

/* A record, or one that was: its spans point to bytes that outlive it. */
struct known {
    struct span table;
    struct span key;
    struct span value;
    uint64_t version;
    uint32_t key_class;
    bool there;
    bool touched; /* by the open batch */
    bool named;   /* by the input at hand */
};

struct world {
    size_t count;
    struct known items[WORLD_RECORDS_MAX];
};

static void
world_copy(struct world *target, const struct world *source)
{
    target->count = source->count;
    memcpy(target->items, source->items, source->count * sizeof *source->items);
}

static bool
span_equal(struct span one, struct span other)
{
    return one.size == other.size && (one.size == 0 || memcmp(one.data, other.data, one.size) == 0);
}

static struct known *
world_find(struct world *world, struct span table, uint32_t key_class, struct span key)
{
    for (size_t i = 0; i < world->count; i++) {
        struct known *known = &world->items[i];
        if (known->key_class == key_class && span_equal(known->key, key) &&
            span_equal(known->table, table)) {
            return known;
        }
    }
    return NULL;
}

static uint64_t
world_table(const struct world *world, struct span table)
{
    uint64_t count = 0;
    for (size_t i = 0; i < world->count; i++) {
        const struct known *known = &world->items[i];
        count += known->there && span_equal(known->table, table);
    }
    return count;
}

static bool
world_has_room(const struct world *world, const struct request *request)
{
    return world->count + request->pair_count <= WORLD_RECORDS_MAX;
}

static bool
world_touches(struct world *world, const struct request *request)
{
    struct cursor cursor = request->pairs;
    for (uint32_t i = 0; i < request->pair_count; i++) {
        struct span key, value;
        uint32_t key_class;
        take_pair(request, &cursor, &key, &key_class, &value);
        const struct known *known = world_find(world, request->table, key_class, key);
        if (known != NULL && known->touched) {
            return true;
        }
    }
    return false;
}

static void
world_put(struct world *world, struct span table, uint32_t key_class, struct span key,
          struct span value, uint64_t version)
{
    struct known *known = world_find(world, table, key_class, key);
    if (known == NULL) {
        known = &world->items[world->count++];
    }
    *known = (struct known){table, key, value, version, key_class, true, true, true};
}

/* Do what a request says, in batch ``version``; return what it should be answered. */
static enum result
world_apply(struct world *world, const struct request *request, uint64_t version)
{
    struct cursor cursor = request->pairs;
    for (uint32_t i = 0; i < request->pair_count; i++) {
        struct span key, value;
        uint32_t key_class;
        take_pair(request, &cursor, &key, &key_class, &value);
        struct known *known = world_find(world, request->table, key_class, key);
        bool there = known != NULL && known->there;
        if (request->operation == DELETE) {
            if (there) {
                known->there = false;
                known->touched = known->named = true;
            }
            return there ? RESULT_TRUE : RESULT_FALSE;
        }
        if (request->operation == INSERT && there) {
            return RESULT_NONE;
        }
        world_put(world, request->table, key_class, key, value, version);
    }
    return RESULT_NUMBER;
}

static void
world_begin_batch(struct world *world)
{
    for (size_t i = 0; i < world->count; i++) {
        world->items[i].touched = false;
    }
}

#endif
