/* The open batch: entries written into blocks that nothing leads to, and words to publish.

   It knows keys and entries; what a table or a list is, it does not. Until staging_publish()
   nothing of it can be reached. What a failure leaves half done, staging_abort() takes back. */

#ifndef SHMSTORE_STAGING_H
#define SHMSTORE_STAGING_H

#include "leads.h"
#include "split.h"

/* It must not move: the heap's purger points to it. */
struct staging {
    const struct lookup *lookup;
    const struct memory *memory;
    const struct crc_tables *tables;
    struct heap heap;
    struct index index;
    uint64_t changes; /* steps staged; a failure that leaves it as it was has changed nothing */
    struct blockmap written;  /* size by start of the blocks this batch has taken */
    struct blockmap replaced; /* size by start of the blocks, committed or pinned, that nothing
                                 will lead to */
    struct blockmap dead;     /* size by start of the entries deleted; the word hash as extra */
    struct leads touched;
};

/* Where an entry goes: its block, the address of its word, and what the word leads to. */
struct place {
    uint64_t granule;
    uint64_t address;
    bool has_old;
    struct entry old; /* a living record, head or ghost of the same key */
};

static enum status staging_purge(void *context, uint64_t granule, uint64_t word_hash, bool *emptied,
                                 struct fault *fault);

static void
staging_close(struct staging *staging)
{
    heap_close(&staging->heap);
    index_close(&staging->index);
    blockmap_close(&staging->written);
    blockmap_close(&staging->replaced);
    blockmap_close(&staging->dead);
    leads_close(&staging->touched);
}

/* Start an empty batch. */
static void
staging_begin(struct staging *staging)
{
    heap_begin(&staging->heap);
    staging->changes = 0;
    blockmap_clear(&staging->written);
    blockmap_clear(&staging->replaced);
    blockmap_clear(&staging->dead);
    leads_clear(&staging->touched);
}

/* On failure there is nothing to close. */
static enum status
staging_open(struct staging *staging, const struct lookup *lookup, const struct crc_tables *tables,
             const struct system *system)
{
    struct purger purger = {staging, staging_purge};
    memset(staging, 0, sizeof *staging);
    staging->lookup = lookup;
    staging->memory = &lookup->memory;
    staging->tables = tables;
    index_open(&staging->index, lookup, &staging->heap);
    enum status status = heap_open(&staging->heap, &lookup->memory, system, &purger);
    if (status == FINE) {
        staging_begin(staging);
    }
    return status;
}

/* Finding */

static inline bool
staging_is_dead(const struct staging *staging, const struct entry *entry)
{
    return entry->prev & DEAD || blockmap_has(&staging->dead, entry->granule);
}

/* Load the entry to which a word leads, as the open batch sees it. */
static inline enum status
staging_load(const struct staging *staging, uint64_t address, struct entry *entry,
             struct fault *fault)
{
    uint64_t granule = index_word(&staging->index, address) & GRANULE_MASK;
    return load_entry(staging->memory, granule, entry, fault);
}

/* Find the living record or head. */
static enum status
staging_find(const struct staging *staging, const struct lead *lead, struct entry *entry,
             bool *found, struct fault *fault)
{
    uint64_t address;
    enum status status = index_find(&staging->index, lead, &address, found, fault);
    if (status != FINE || !*found) {
        return status;
    }
    status = staging_load(staging, address, entry, fault);
    *found =
        status == FINE && !staging_is_dead(staging, entry) && !(entry->shape.kind & KIND_GHOST);
    return status;
}

/* Find the record that a list element stands for. */
static enum status
staging_find_listed(const struct staging *staging, uint64_t word_hash, uint64_t scope,
                    uint64_t insertion, struct entry *entry, struct fault *fault)
{
    struct wanted wanted = {word_hash, NULL, scope, insertion};
    uint64_t address;
    bool found;
    enum status status = index_find_wanted(&staging->index, &wanted, &address, &found, fault);
    if (status == FINE && !found) {
        return fail(fault, DAMAGED, "a list names record %llu, which is not in the index",
                    (unsigned long long)insertion);
    }
    return status == FINE ? staging_load(staging, address, entry, fault) : status;
}

static inline enum status
staging_touch(struct staging *staging, const struct lead *lead)
{
    return leads_add(&staging->touched, lead);
}

static inline bool
staging_touched(const struct staging *staging, const struct lead *lead)
{
    return leads_has(&staging->touched, lead);
}

/* Staging */

/* Take a block and note it as the batch's. */
static enum status
staging_take(struct staging *staging, uint64_t size, bool reserved, uint64_t *granule,
             struct fault *fault)
{
    enum status status = blockmap_reserve(&staging->written, 1);
    if (status == FINE) {
        status = heap_allocate(&staging->heap, size, reserved, granule, fault);
    }
    return status == FINE ? blockmap_put(&staging->written, *granule, size) : status;
}

/* Take a block for an entry, then find its word: an allocation may vacate words, and so comes
   first. */
static enum status
staging_allocate(struct staging *staging, const struct lead *lead, uint32_t kind,
                 uint64_t value_bytes, bool reserved, struct place *place, struct fault *fault)
{
    struct shape shape = {(uint32_t)lead->key_size, kind, (uint32_t)value_bytes};
    if (value_bytes > UINT32_MAX) {
        return heap_full(&staging->heap, value_bytes / GRANULE_BYTES, fault);
    }
    enum status status =
        staging_take(staging, shape_granules(&shape), reserved, &place->granule, fault);
    if (status != FINE) {
        return status;
    }
    staging->changes++;
    status = index_locate(&staging->index, lead, &place->address, &place->has_old, fault);
    if (status == FINE && place->has_old) {
        status = staging_load(staging, place->address, &place->old, fault);
        place->has_old = status == FINE && !staging_is_dead(staging, &place->old);
    }
    return status;
}

/* Free a block of the open batch, which no reader can know, unless the batch pins it; then there is
   room for one more replaced. */
static void
staging_discard(struct staging *staging, uint64_t granule)
{
    struct blockmap_item written;
    if (pinned_in_batch(&staging->heap.pinned, granule)) {
        blockmap_put(&staging->replaced, granule, blockmap_find(&staging->written, granule)->value);
    }
    else if (blockmap_pop(&staging->written, granule, &written)) {
        heap_free(&staging->heap, granule, written.value);
    }
}

/* Write the entry, stage its word, and note what becomes of the entry before it. ``sort`` counts
   for KIND_SORTED only. */
static enum status
staging_write(struct staging *staging, const struct place *place, const struct lead *lead,
              uint32_t kind, uint64_t insertion, uint64_t sort, const void *value,
              size_t value_size, struct fault *fault)
{
    const struct memory *memory = staging->memory;
    uint64_t before = index_committed_word(&staging->index, place->address);
    /* A word that was vacated must become so again if the batch is taken back. */
    uint64_t prev = before <= VACATED ? before : before & GRANULE_MASK;
    struct entry entry = {
        .granule = place->granule,
        .seq = word_load(memory, COMMITTED_WORD) + 1,
        .prev = prev,
        .insertion = insertion,
        .scope = lead->scope,
        .shape = {(uint32_t)lead->key_size, kind, (uint32_t)value_size},
    };
    struct entry old;
    enum status status = blockmap_reserve(&staging->replaced, 1);
    if (status == FINE && prev > VACATED) {
        status = load_entry(memory, prev, &old, fault);
    }
    uint64_t staged = index_word(&staging->index, place->address) & GRANULE_MASK;
    if (status == FINE) {
        store_entry(memory, staging->tables, &entry, lead->key, sort, value);
        status =
            index_stage(&staging->index, place->address, place->granule, lead->word_hash, fault);
    }
    if (status != FINE) {
        return status;
    }
    if (blockmap_has(&staging->written, staged)) {
        staging_discard(staging, staged);
    }
    else if (prev > VACATED && !(old.prev & DEAD)) {
        blockmap_pop(&staging->dead, prev, NULL);
        return blockmap_put(&staging->replaced, prev, shape_granules(&old.shape));
    }
    return FINE;
}

/* Stage the deletion of a living entry or ghost; no memory of the store is needed. */
static enum status
staging_kill(struct staging *staging, const struct lead *lead, const struct entry *old,
             struct fault *fault)
{
    uint64_t address;
    bool found;
    enum status status = blockmap_reserve(&staging->dead, 1);
    if (status == FINE) {
        status = blockmap_reserve(&staging->replaced, 1);
    }
    if (status != FINE) {
        return status;
    }
    staging->changes++;
    if (!blockmap_has(&staging->written, old->granule)) {
        return blockmap_put_extra(&staging->dead, old->granule, shape_granules(&old->shape),
                                  lead->word_hash);
    }
    status = index_find(&staging->index, lead, &address, &found, fault);
    if (status != FINE || !found) {
        return status != FINE ? status
                              : fail(fault, CORRUPT, "an entry to delete is not in the index");
    }
    index_unstage(&staging->index, address);
    staging_discard(staging, old->granule);
    uint64_t before = index_committed_word(&staging->index, address) & GRANULE_MASK;
    struct blockmap_item replaced;
    if (blockmap_pop(&staging->replaced, before, &replaced)) {
        /* The batch had replaced a committed entry, which is now deleted instead. */
        return blockmap_put_extra(&staging->dead, before, replaced.value, lead->word_hash);
    }
    return FINE;
}

/* Ending */

/* Mark the deleted entries, each over its ``prev``: a reader that began before the entry was
   written, and so needs that pointer, finds the mark and begins again. */
static void
staging_bury(const struct staging *staging, uint64_t sequence)
{
    const struct blockmap_item *item;
    for (size_t at = 0; (item = blockmap_next(&staging->dead, &at));) {
        word_store(staging->memory, item->key * WORDS_PER_GRANULE + PREV_FIELD, DEAD | sequence);
    }
}

/* Steps 2 to 5: mark the dead, store the words, commit, retire what was replaced. Fails only for
   want of memory in this process, and then with nothing done. */
static enum status
staging_publish(struct staging *staging)
{
    uint64_t sequence = word_load(staging->memory, COMMITTED_WORD) + 1;
    enum status status =
        heap_reserve_stamps(&staging->heap, staging->replaced.count, staging->dead.count);
    if (status != FINE) {
        return status;
    }
    staging_bury(staging, sequence);
    index_publish(&staging->index);
    clock_commit(staging->memory, sequence);
    heap_stamp(&staging->heap, &staging->replaced, &staging->dead);
    staging_begin(staging);
    return FINE;
}

/* Drop the batch. */
static void
staging_abort(struct staging *staging)
{
    const struct blockmap_item *item;
    index_abort(&staging->index);
    pinned_abort(&staging->heap.pinned);
    for (size_t at = SIZE_MAX; (item = blockmap_previous(&staging->written, &at));) {
        heap_free(&staging->heap, item->key, item->value);
    }
    staging_begin(staging);
}

/* Append all blocks that are free or wait for the horizon. */
static enum status
staging_unused_blocks(const struct staging *staging, struct blocks *out, struct fault *fault)
{
    const struct heap *heap = &staging->heap;
    const struct queue *queues[] = {&heap->dead, &heap->deferred};
    enum status status = heap_free_blocks(heap, out);
    if (status == FINE) {
        status = heap_quarantined(heap, out);
    }
    for (int which = 0; which < 2; which++) {
        for (size_t i = 0; status == FINE && i < queues[which]->count; i++) {
            const struct retired *dead = queue_at(queues[which], i);
            uint64_t address;
            bool found;
            status = index_find_committed(&staging->index, dead->word_hash, dead->start, &address,
                                          &found, fault);
            if (status == FINE && !found && !blockmap_has(&heap->pinned.counts, dead->start)) {
                status = blocks_add(out, dead->start, dead->size);
            }
        }
    }
    return status;
}

/* Empty the word of a deleted entry, if the entry is still in it. */
static enum status
staging_purge(void *context, uint64_t granule, uint64_t word_hash, bool *emptied,
              struct fault *fault)
{
    struct staging *staging = context;
    uint64_t address;
    bool found;
    enum status status =
        index_find_committed(&staging->index, word_hash, granule, &address, &found, fault);
    *emptied = true;
    if (status != FINE || !found) {
        return status;
    }
    if (index_is_staged(&staging->index, address)) {
        *emptied = false;
        return FINE;
    }
    return index_vacate(&staging->index, address, word_hash, fault);
}

#endif
