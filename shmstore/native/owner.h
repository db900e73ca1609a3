/* The write side: what the one writer process does to the segment.

   Everything is staged first; owner_commit() publishes it in the order of the protocol, and
   owner_abort() drops it. The functions take the *table*: the name of the list of a table in a
   namespace, whose hash is the scope of its records; and for a record its lead. */

#ifndef SHMSTORE_OWNER_H
#define SHMSTORE_OWNER_H

#include "lists.h"
#include "pins.h"
#include "recovery.h"

/* The ghosts that are committed, oldest first, then those of the open batch. */
struct ghosts {
    struct ghost *items;
    size_t first;
    size_t count;
    size_t room;
};

struct owner {
    struct lookup lookup;
    struct crc_tables tables;
    struct staging staging;
    struct lists lists;
    struct ghosts ghosts;
    size_t new_ghosts; /* how many of them are the open batch's */
    size_t ghosts_max;
    uint64_t next_insertion;
    unsigned char *key; /* room for the key of an entry at hand */
};

static inline const struct memory *
owner_memory(const struct owner *owner)
{
    return &owner->lookup.memory;
}

/* The sequence number of the last batch. */
static inline uint64_t
owner_committed(const struct owner *owner)
{
    return word_load(owner_memory(owner), COMMITTED_WORD);
}

static inline bool
owner_staged(const struct owner *owner)
{
    return owner->staging.changes > 0;
}

static inline struct lead
owner_lead(const struct owner *owner, struct span table, uint32_t key_class, struct span key)
{
    uint64_t scope = list_hash(&owner->lookup, table.data, table.size);
    return record_lead(&owner->lookup, scope, key_class, key.data, key.size);
}

/* Ghosts */

static enum status
ghosts_reserve(struct ghosts *ghosts)
{
    if (ghosts->first + ghosts->count < ghosts->room) {
        return FINE;
    }
    if (ghosts->first > ghosts->count) {
        memcpy(ghosts->items, ghosts->items + ghosts->first, ghosts->count * sizeof *ghosts->items);
        ghosts->first = 0;
        return FINE;
    }
    size_t room = ghosts->room ? ghosts->room * 2 : 64;
    struct ghost *items = realloc(ghosts->items, room * sizeof *items);
    if (items == NULL) {
        return NO_MEMORY;
    }
    ghosts->items = items;
    ghosts->room = room;
    return FINE;
}

/* Add the newest; there is room. */
static void
ghosts_add(struct ghosts *ghosts, uint64_t granule, uint64_t word_hash)
{
    ghosts->items[ghosts->first + ghosts->count++] = (struct ghost){granule, word_hash, 0};
}

static struct ghost
ghosts_take(struct ghosts *ghosts)
{
    ghosts->count--;
    return ghosts->items[ghosts->first++];
}

/* What leads to an entry at hand; its key stays until the next one is asked for. */
static enum status
lead_of(struct owner *owner, const struct entry *entry, uint64_t word_hash, struct lead *lead,
        struct fault *fault)
{
    const struct memory *memory = owner_memory(owner);
    uint64_t offset;
    enum status status =
        find_key(memory, entry->granule * WORDS_PER_GRANULE, &entry->shape, &offset, fault);
    if (status != FINE) {
        return status;
    }
    bytes_load(memory, offset, owner->key, entry->shape.key_size);
    *lead = (struct lead){word_hash, entry->scope, shape_class(&entry->shape), owner->key,
                          entry->shape.key_size};
    return FINE;
}

static enum status
evict_ghost(struct owner *owner, struct ghost ghost, struct fault *fault)
{
    struct index *index = &owner->staging.index;
    uint64_t address;
    bool found;
    struct entry old;
    struct lead lead;
    enum status status =
        index_find_committed(index, ghost.word_hash, ghost.granule, &address, &found, fault);
    if (status != FINE || !found || index_is_staged(index, address)) {
        return status;
    }
    status = load_entry(owner_memory(owner), ghost.granule, &old, fault);
    if (status != FINE || !(old.shape.kind & KIND_GHOST) || old.prev & DEAD) {
        return status;
    }
    status = lead_of(owner, &old, ghost.word_hash, &lead, fault);
    return status == FINE ? staging_kill(&owner->staging, &lead, &old, fault) : status;
}

/* Delete the oldest ghosts beyond their number. */
static enum status
evict_ghosts(struct owner *owner, struct fault *fault)
{
    struct ghosts *ghosts = &owner->ghosts;
    enum status status = FINE;
    while (status == FINE && ghosts->count > owner->ghosts_max &&
           ghosts->count > owner->new_ghosts) {
        status = evict_ghost(owner, ghosts_take(ghosts), fault);
    }
    return status;
}

static enum status
position_of(const struct owner *owner, const struct entry *entry, struct position *position,
            struct fault *fault)
{
    position->insertion = entry->insertion;
    return load_sort(owner_memory(owner), entry->granule * WORDS_PER_GRANULE, &entry->shape,
                     &position->sort, fault);
}

/* Put in the place of a record an entry that keeps its position only; *left tells whether it
   fits. */
static enum status
leave_ghost(struct owner *owner, const struct lead *lead, const struct entry *old, bool *left,
            struct fault *fault)
{
    struct staging *staging = &owner->staging;
    uint32_t kind = old->shape.kind | KIND_GHOST;
    struct position position;
    struct place place;
    *left = false;
    if (owner->new_ghosts >= owner->ghosts_max) {
        return FINE;
    }
    enum status status = position_of(owner, old, &position, fault);
    if (status != FINE || (status = ghosts_reserve(&owner->ghosts)) != FINE) {
        return status;
    }
    status = staging_allocate(staging, lead, kind, 0, true, &place, fault);
    if (status != FINE) {
        return status == FULL ? FINE : status;
    }
    status =
        staging_write(staging, &place, lead, kind, old->insertion, position.sort, "", 0, fault);
    if (status == FINE) {
        ghosts_add(&owner->ghosts, place.granule, lead->word_hash);
        owner->new_ghosts++;
        *left = true;
    }
    return status;
}

/* Let the quarantine hold twice the largest value, so that readers can copy it. */
static void
owner_hold(struct owner *owner, uint64_t value_bytes)
{
    struct heap *heap = &owner->staging.heap;
    if (heap->hold_bytes < 2 * value_bytes) {
        heap->hold_bytes = 2 * value_bytes;
    }
}

/* Reading what the open batch sees */

static enum status
owner_find(struct owner *owner, const struct lead *lead, struct entry *entry, bool *found,
           struct fault *fault)
{
    return staging_find(&owner->staging, lead, entry, found, fault);
}

/* Tell whether the open batch has put or removed this key. */
static bool
owner_touched(const struct owner *owner, const struct lead *lead)
{
    return staging_touched(&owner->staging, lead);
}

/* Find the number of records of a list, given its whole name. */
static enum status
owner_count(struct owner *owner, struct span name, uint64_t *count, struct fault *fault)
{
    return lists_count(&owner->lists, name, count, fault);
}

/* Find the elements of a list, given its whole name, as lists_walk() does; the granules of their
   records take the place of the hashes. */
static enum status
owner_walk(struct owner *owner, struct span name, uint64_t scope, struct walk *walk,
           struct fault *fault)
{
    enum status status = lists_walk(&owner->lists, name, walk, fault);
    for (size_t i = 0; status == FINE && i < walk->found->count; i++) {
        struct element *element = &walk->found->items[i];
        struct entry entry = {0};
        status = staging_find_listed(&owner->staging, element->word_hash, scope,
                                     element->position.insertion, &entry, fault);
        element->word_hash = entry.granule;
    }
    return status;
}

/* Staging */

/* What a put writes; ``created`` is NULL for a record that has none. */
struct content {
    struct span value;
    const int64_t *created;
};

/* Insert or replace a record; ``*inserted`` tells which. Its version is that of the batch. */
static enum status
owner_put(struct owner *owner, struct span table, const struct lead *lead, struct content content,
          struct indexes old, struct indexes new, bool *inserted, struct fault *fault)
{
    struct staging *staging = &owner->staging;
    struct span value = content.value;
    struct position was, now = {.insertion = owner->next_insertion};
    struct place place;
    uint32_t kind = lead->key_class | (content.created ? KIND_SORTED : 0);
    if (owner->next_insertion > INSERTION_MASK) {
        char most[32];
        return fail(fault, EXHAUSTED,
                    "all %s insertion numbers of this store are used up; start another",
                    heap_grouped(most, INSERTION_MASK));
    }
    /* The system's own records must be written even when all that is left is the reserve. */
    bool reserved = table.size && *(const unsigned char *)table.data == 0;
    enum status status = staging_allocate(staging, lead, kind, value.size, reserved, &place, fault);
    if (status != FINE) {
        return status;
    }
    *inserted = !place.has_old || place.old.shape.kind & KIND_GHOST;
    if (!*inserted) {
        status = position_of(owner, &place.old, &was, fault);
        now.insertion = was.insertion;
    }
    now.sort = content.created ? (uint64_t)*content.created + SORT_BIAS : 0;
    if (status == FINE) {
        status = staging_write(staging, &place, lead, kind, now.insertion, now.sort, value.data,
                               value.size, fault);
    }
    if (status == FINE) {
        status = staging_touch(staging, lead);
    }
    if (status != FINE) {
        return status;
    }
    owner->next_insertion += *inserted;
    owner_hold(owner, value.size);
    return lists_move(&owner->lists, table, lead->word_hash, content.created ? 3 : 2,
                      *inserted ? NULL : &was, &now, old, new, fault);
}

/* Delete a record; ``*removed`` tells whether it was there. With ``ghost`` it leaves its position
   behind, as long as there is room. */
static enum status
owner_remove(struct owner *owner, struct span table, const struct lead *lead,
             struct indexes indexes, bool ghost, bool *removed, struct fault *fault)
{
    struct entry old;
    struct position was;
    enum status status = owner_find(owner, lead, &old, removed, fault);
    if (status != FINE || !*removed) {
        return status;
    }
    status = position_of(owner, &old, &was, fault);
    if (status == FINE) {
        status = lists_move(&owner->lists, table, lead->word_hash, 2, &was, NULL, indexes,
                            NO_INDEXES, fault);
    }
    if (status == FINE) {
        status = staging_touch(&owner->staging, lead);
    }
    bool left = false;
    if (status == FINE && ghost) {
        status = leave_ghost(owner, lead, &old, &left, fault);
    }
    return status != FINE || left ? status : staging_kill(&owner->staging, lead, &old, fault);
}

/* Put a record that is there into other lists; it keeps its version. */
static enum status
owner_reindex(struct owner *owner, struct span table, const struct lead *lead, struct indexes old,
              struct indexes new, struct fault *fault)
{
    struct entry entry;
    struct position place;
    bool found;
    enum status status = owner_find(owner, lead, &entry, &found, fault);
    if (status == FINE && !found) {
        return fail(fault, DAMAGED, "a record to be indexed is not there");
    }
    if (status == FINE) {
        status = position_of(owner, &entry, &place, fault);
    }
    if (status != FINE) {
        return status;
    }
    uint32_t width = entry.shape.kind & KIND_SORTED ? 3 : 2;
    return lists_move(&owner->lists, table, lead->word_hash, width, &place, &place, old, new,
                      fault);
}

static enum status
clear_record(struct owner *owner, uint64_t word_hash, uint64_t scope, uint64_t insertion,
             struct fault *fault)
{
    struct staging *staging = &owner->staging;
    struct entry old;
    struct lead lead;
    uint64_t own_hash;
    enum status status = staging_find_listed(staging, word_hash, scope, insertion, &old, fault);
    if (status == FINE) {
        status = entry_hash(&owner->lookup, old.granule * WORDS_PER_GRANULE, &own_hash, fault);
    }
    if (status == FINE) {
        status = lead_of(owner, &old, own_hash, &lead, fault);
    }
    if (status == FINE) {
        status = staging_touch(staging, &lead);
    }
    return status == FINE ? staging_kill(staging, &lead, &old, fault) : status;
}

static enum status
clear_records(struct owner *owner, struct span table, struct fault *fault)
{
    struct elements found = {0};
    struct walk walk = {.found = &found, .limit = SIZE_MAX};
    uint64_t scope = list_hash(&owner->lookup, table.data, table.size);
    enum status status = lists_walk(&owner->lists, table, &walk, fault);
    for (size_t i = 0; status == FINE && i < found.count; i++) {
        status = clear_record(owner, found.items[i].word_hash, scope,
                              found.items[i].position.insertion, fault);
    }
    free(found.items);
    return status;
}

/* Delete all records of a table and drop its lists; takes no memory, and leaves no ghosts. */
static enum status
owner_clear(struct owner *owner, struct span table, struct indexes indexes, uint64_t *count,
            struct fault *fault)
{
    enum status status = lists_count(&owner->lists, table, count, fault);
    if (status == FINE) {
        status = clear_records(owner, table, fault);
    }
    for (size_t i = 0; status == FINE && *count && i <= indexes.count; i++) {
        status = lists_drop(&owner->lists, table, index_at(&indexes, i), fault);
    }
    return status;
}

/* Pin the value of a record as the open batch has it, which *entry tells if it is *found. */
static enum status
owner_pin(struct owner *owner, struct span holder, const struct lead *lead, struct entry *entry,
          bool *found, struct fault *fault)
{
    enum status status = owner_find(owner, lead, entry, found, fault);
    if (status != FINE || !*found) {
        return status;
    }
    return pins_add(&owner->staging, holder, entry->granule, fault);
}

/* Ending */

/* Drop the batch. */
static void
owner_abort(struct owner *owner)
{
    staging_abort(&owner->staging);
    lists_begin(&owner->lists);
    owner->ghosts.count -= owner->new_ghosts;
    owner->new_ghosts = 0;
    owner->next_insertion = word_load(owner_memory(owner), NEXT_INSERTION_WORD);
}

/* The first half of a commit: everything that can fail. After a failure the batch is to be
   aborted. */
static enum status
owner_seal(struct owner *owner, struct fault *fault)
{
    enum status status = evict_ghosts(owner, fault);
    return status == FINE ? lists_seal(&owner->lists, fault) : status;
}

/* The second half: publish. It fails for want of this process's memory only, and then at once. */
static enum status
owner_publish(struct owner *owner)
{
    word_store(owner_memory(owner), NEXT_INSERTION_WORD, owner->next_insertion);
    enum status status = staging_publish(&owner->staging);
    if (status != FINE) {
        return status;
    }
    lists_begin(&owner->lists);
    owner->new_ghosts = 0;
    heap_give_back(&owner->staging.heap);
    return FINE;
}

/* Publish the batch. When it fails the batch is aborted, and everything as before. */
static enum status
owner_commit(struct owner *owner, struct fault *fault)
{
    if (!owner_staged(owner)) {
        return FINE;
    }
    enum status status = owner_seal(owner, fault);
    if (status == FINE) {
        status = owner_publish(owner);
    }
    if (status != FINE) {
        owner_abort(owner);
    }
    return status;
}

/* Opening */

static void
owner_close(struct owner *owner)
{
    staging_close(&owner->staging);
    lists_close(&owner->lists);
    free(owner->ghosts.items);
    free(owner->key);
}

/* Attach to a formatted segment of ``size`` bytes. After a failure it can only be closed. */
static enum status
owner_open(struct owner *owner, void *bytes, uint64_t size, const struct system *system)
{
    memset(owner, 0, sizeof *owner);
    lookup_open(&owner->lookup, bytes, size);
    crc_prepare(&owner->tables);
    owner->next_insertion = word_load(owner_memory(owner), NEXT_INSERTION_WORD);
    uint64_t fitting = size / GHOST_DIVISOR / GHOST_BYTES;
    owner->ghosts_max = fitting < GHOSTS_MAX ? (size_t)fitting : GHOSTS_MAX;
    owner->key = malloc(LIST_BYTES_MAX);
    enum status status = lists_open(&owner->lists, &owner->lookup, &owner->staging);
    if (status != FINE || owner->key == NULL) {
        return NO_MEMORY;
    }
    return staging_open(&owner->staging, &owner->lookup, &owner->tables, system);
}

static enum status
owner_adopt(struct owner *owner, struct survey *survey, struct fault *fault)
{
    struct staging *staging = &owner->staging;
    enum status status = index_adopt(&staging->index, fault);
    if (status == FINE) {
        status = heap_adopt(&staging->heap, &survey->blocks);
    }
    if (status == FINE) {
        status = pinned_adopt(&staging->heap.pinned, &survey->pins, &survey->held);
    }
    if (status == FINE) {
        status = heap_stamp(&staging->heap, NULL, &survey->dead);
    }
    for (size_t i = 0; status == FINE && i < survey->ghost_count; i++) {
        status = ghosts_reserve(&owner->ghosts);
        if (status == FINE) {
            ghosts_add(&owner->ghosts, survey->ghosts[i].granule, survey->ghosts[i].word_hash);
        }
    }
    owner_hold(owner, survey->value_bytes_max);
    return status;
}

/* Check that each deleted entry can be taken out of its word: one that is missed would be free, and
   its word still lead there. */
static enum status
check_purges(const struct owner *owner, const struct blockmap *dead, struct fault *fault)
{
    enum status status = FINE;
    const struct blockmap_item *item;
    for (size_t at = 0; status == FINE && (item = blockmap_next(dead, &at));) {
        uint64_t address;
        bool found;
        status = index_find_committed(&owner->staging.index, item->extra, item->key, &address,
                                      &found, fault);
        if (status == FINE && !found) {
            return fail(fault, DAMAGED,
                        "the deleted entry at granule %llu is not where its hash leads",
                        (unsigned long long)item->key);
        }
    }
    return status;
}

/* Continue the work of a dead writer on an owner just opened; DAMAGED says why it cannot. */
static enum status
owner_take_over(struct owner *owner, struct fault *fault)
{
    const struct memory *memory = owner_memory(owner);
    struct survey survey = {0};
    enum status status = check_header(memory, fault);
    if (status != FINE) {
        return status;
    }
    /* Before: a death mark taken back leaves no way to older versions. After: blocks that only
       the dead writer's words led to are free. Either way older readers begin again. */
    clock_reuse(memory, clock_retire(memory));
    status = recover(&owner->lookup, &survey, fault);
    if (status == FINE) {
        status = check_purges(owner, &survey.dead, fault);
    }
    if (status == FINE) {
        clock_reuse(memory, clock_retire(memory));
        status = owner_adopt(owner, &survey, fault);
    }
    survey_close(&survey);
    return status;
}

/* Lay out a zeroed segment, up to the magic: the id and the secret are random. */
static enum status
owner_lay_out(void *bytes, uint64_t size, const uint64_t random[2 + SECRET_WORDS],
              const struct system *system, struct fault *fault)
{
    struct memory memory = {bytes, size / WORD_BYTES};
    word_store(&memory, VERSION_WORD, FORMAT_VERSION);
    word_store(&memory, CAPACITY_WORD, size);
    for (uint64_t i = 0; i < 2; i++) {
        word_store(&memory, SEGMENT_ID_WORD + i, random[i]);
    }
    for (uint64_t i = 0; i < SECRET_WORDS; i++) {
        word_store(&memory, SECRET_WORD + i, random[2 + i]);
    }
    word_store(&memory, NEXT_INSERTION_WORD, 1);
    word_store(&memory, EXTENT_END_WORD, 0);
    struct owner *owner = malloc(sizeof *owner);
    if (owner == NULL) {
        return NO_MEMORY;
    }
    enum status status = owner_open(owner, bytes, size, system);
    if (status == FINE) {
        status = index_create(&owner->staging.index, fault);
    }
    owner_close(owner);
    free(owner);
    return status;
}

/* The last step of laying out: a writer killed before it leaves an unformatted segment. */
static void
owner_mark_formatted(void *bytes, uint64_t size)
{
    struct memory memory = {bytes, size / WORD_BYTES};
    word_store_release(&memory, MAGIC_WORD, MAGIC);
}

#endif
