/* Plain requests applied to the open batch, without making an object of any of them.

   What may fail, what needs the catalogue and what comes twice in a batch goes the general way,
   which also makes all errors; see shmstore/writer/batch.py. */

#ifndef SHMSTORE_APPLY_H
#define SHMSTORE_APPLY_H

#include "owner.h"
#include "requests.h"

enum outcome {
    STAGED,
    GENERAL,   /* untouched: for the general way */
    BLOCKED,   /* untouched: a key of it is in the open batch, which must end first */
    HALF_DONE, /* it failed after it staged something: the batch must be taken apart */
};

/* A table as requests name it: its list's name, and the scope of its records. */
struct target {
    unsigned char name[NAME_BYTES_MAX + 2];
    struct span table;
    uint64_t scope;
};

static void
target_open(const struct owner *owner, struct span table, struct target *target)
{
    target->name[0] = (unsigned char)table.size;
    memcpy(target->name + 1, table.data, table.size);
    target->name[table.size + 1] = 0; /* the namespace of plain tables */
    target->table = (struct span){target->name, table.size + 2};
    target->scope = list_hash(&owner->lookup, target->name, target->table.size);
}

static struct lead
next_lead(const struct owner *owner, const struct target *target, const struct request *request,
          struct cursor *cursor, struct span *value)
{
    struct span key = {0};
    uint32_t key_class = 0;
    take_pair(request, cursor, &key, &key_class, value);
    return record_lead(&owner->lookup, target->scope, key_class, key.data, key.size);
}

static bool
any_touched(const struct owner *owner, const struct target *target, const struct request *request)
{
    struct cursor cursor = request->pairs;
    struct span value;
    for (uint32_t i = 0; i < request->pair_count; i++) {
        struct lead lead = next_lead(owner, target, request, &cursor, &value);
        if (owner_touched(owner, &lead)) {
            return true;
        }
    }
    return false;
}

static enum status
apply_puts(struct owner *owner, const struct target *target, const struct request *request)
{
    struct cursor cursor = request->pairs;
    struct fault fault;
    enum status status = FINE;
    for (uint32_t i = 0; status == FINE && i < request->pair_count; i++) {
        struct content content = {.created = NULL};
        bool inserted;
        struct lead lead = next_lead(owner, target, request, &cursor, &content.value);
        status = owner_put(owner, target->table, &lead, content, NO_INDEXES, NO_INDEXES, &inserted,
                           &fault);
    }
    return status;
}

static enum status
apply_one(struct owner *owner, const struct target *target, const struct request *request,
          enum result *result)
{
    struct cursor cursor = request->pairs;
    struct span value;
    struct entry entry;
    struct fault fault;
    bool found;
    struct lead lead = next_lead(owner, target, request, &cursor, &value);
    if (request->operation == DELETE) {
        enum status status =
            owner_remove(owner, target->table, &lead, NO_INDEXES, false, &found, &fault);
        *result = found ? RESULT_TRUE : RESULT_FALSE;
        return status;
    }
    enum status status = owner_find(owner, &lead, &entry, &found, &fault);
    if (status == FINE && found) {
        *result = RESULT_NONE;
        return FINE;
    }
    return status == FINE ? apply_puts(owner, target, request) : status;
}

/* Stage a request. Its number is the version of what it wrote. */
static enum outcome
apply_request(struct owner *owner, const struct request *request, enum result *result)
{
    struct target target;
    struct fault fault;
    uint64_t count, changes = owner->staging.changes;
    target_open(owner, request->table, &target);
    /* The first record of a table, and the last, are noted in the catalogue. */
    uint64_t least = request->operation == DELETE ? 2 : 1;
    if (owner_count(owner, target.table, &count, &fault) != FINE || count < least) {
        return GENERAL;
    }
    if (any_touched(owner, &target, request)) {
        return BLOCKED;
    }
    *result = RESULT_NUMBER;
    bool puts = request->operation == PUT || request->operation == PUT_MANY;
    enum status status =
        puts ? apply_puts(owner, &target, request) : apply_one(owner, &target, request, result);
    if (status == FINE) {
        return STAGED;
    }
    return owner->staging.changes == changes ? GENERAL : HALF_DONE;
}

#endif
