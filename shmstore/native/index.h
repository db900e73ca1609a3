/* The index as the writer uses it: finds, stages and publishes words; split.h makes room.

   Staged words are seen by the batch alone until index_publish() stores them. */

#ifndef SHMSTORE_INDEX_H
#define SHMSTORE_INDEX_H

#include "heap.h"
#include "lookup.h"

#define SEGMENT_GRANULES (SEGMENT_BYTES / GRANULE_BYTES)

struct index {
    const struct lookup *lookup;
    const struct memory *memory;
    struct heap *heap;
    struct blockmap staged; /* word by address */
    struct blockmap fresh;  /* segment by address, of the words this batch is the first to use */
    struct blockmap used;   /* words in use by segment */
};

/* What a probe looks for: the entry of a lead, or the record a list element stands for. */
struct wanted {
    uint64_t word_hash;
    const struct lead *lead; /* NULL: by scope and insertion */
    uint64_t scope;
    uint64_t insertion;
};

/* What a probe found; an address of 0 is none, since the header lies there. */
struct probed {
    uint64_t found;
    uint64_t free;
};

static void
index_open(struct index *index, const struct lookup *lookup, struct heap *heap)
{
    memset(index, 0, sizeof *index);
    index->lookup = lookup;
    index->memory = &lookup->memory;
    index->heap = heap;
}

static void
index_close(struct index *index)
{
    blockmap_close(&index->staged);
    blockmap_close(&index->fresh);
    blockmap_close(&index->used);
}

/* The directory and its segments */

static inline uint64_t
directory_granules(uint64_t depth)
{
    return heap_max(1, ((uint64_t)1 << depth) / WORDS_PER_GRANULE);
}

/* Find where the directory begins and how many words it has, all inside the memory. */
static enum status
directory_find(const struct memory *memory, uint64_t *start, uint64_t *count, struct fault *fault)
{
    uint64_t root = word_load(memory, ROOT_WORD), depth = root >> DEPTH_SHIFT;
    *start = (root & GRANULE_MASK) * WORDS_PER_GRANULE;
    if (depth > DEPTH_MAX || !words_fit(memory, *start, (uint64_t)1 << depth)) {
        return fail(fault, DAMAGED, "the root names a directory of depth %u at granule %llu",
                    (unsigned)depth, (unsigned long long)(root & GRANULE_MASK));
    }
    *count = (uint64_t)1 << depth;
    return FINE;
}

/* Append the blocks of the index: the directory, then each segment once, in order of the hashes. */
static enum status
index_blocks(const struct memory *memory, struct blocks *out, struct fault *fault)
{
    struct blockmap seen = {0};
    uint64_t start, count;
    enum status status = directory_find(memory, &start, &count, fault);
    if (status == FINE) {
        status = blocks_add(out, start / WORDS_PER_GRANULE,
                            directory_granules(word_load(memory, ROOT_WORD) >> DEPTH_SHIFT));
    }
    for (uint64_t i = 0; status == FINE && i < count; i++) {
        uint64_t granule = word_load(memory, start + i) & GRANULE_MASK;
        if (!blockmap_has(&seen, granule)) {
            status = blockmap_put(&seen, granule, 0);
            if (status == FINE) {
                status = blocks_add(out, granule, SEGMENT_GRANULES);
            }
        }
    }
    blockmap_close(&seen);
    return status;
}

static enum status
index_segment(const struct index *index, uint64_t word_hash, uint64_t *base, struct fault *fault)
{
    enum status status = segment_at(index->memory, word_hash, base, fault);
    if (status == FINE && !words_fit(index->memory, *base, SEGMENT_SLOTS)) {
        return fail(fault, DAMAGED, "an index segment reaches out of the memory");
    }
    return status;
}

/* Lay out an empty index: one segment, a directory of one word. */
static enum status
index_create(struct index *index, struct fault *fault)
{
    const struct memory *memory = index->memory;
    uint64_t segment, directory;
    enum status status = heap_allocate(index->heap, SEGMENT_GRANULES, false, &segment, fault);
    if (status == FINE) {
        status = heap_allocate(index->heap, 1, false, &directory, fault);
    }
    if (status == FINE) {
        status = blockmap_put(&index->used, segment * WORDS_PER_GRANULE, 0);
    }
    if (status != FINE) {
        return status;
    }
    for (uint64_t slot = 0; slot < SEGMENT_SLOTS; slot++) {
        word_store(memory, segment * WORDS_PER_GRANULE + slot, EMPTY);
    }
    word_store(memory, directory * WORDS_PER_GRANULE, segment);
    word_store_release(memory, ROOT_WORD, directory);
    return FINE;
}

/* Count anew the words in use, after a takeover. */
static enum status
index_adopt(struct index *index, struct fault *fault)
{
    struct blocks blocks = {0};
    enum status status = index_blocks(index->memory, &blocks, fault);
    for (size_t i = 1; status == FINE && i < blocks.count; i++) {
        uint64_t base = blocks.items[i].start * WORDS_PER_GRANULE, used = 0;
        if (!words_fit(index->memory, base, SEGMENT_SLOTS)) {
            status = fail(fault, DAMAGED, "an index segment reaches out of the memory");
            break;
        }
        for (uint64_t slot = 0; slot < SEGMENT_SLOTS; slot++) {
            used += word_load(index->memory, base + slot) != EMPTY;
        }
        status = blockmap_put(&index->used, base, used);
    }
    blocks_close(&blocks);
    return status;
}

/* Words */

/* The word as readers find it. */
static inline uint64_t
index_committed_word(const struct index *index, uint64_t address)
{
    return word_load(index->memory, address);
}

/* The word as the open batch sees it. */
static inline uint64_t
index_word(const struct index *index, uint64_t address)
{
    const struct blockmap_item *staged = blockmap_find(&index->staged, address);
    return staged ? staged->value : word_load(index->memory, address);
}

static inline bool
index_is_staged(const struct index *index, uint64_t address)
{
    return blockmap_has(&index->staged, address);
}

/* Count a segment's words in use up or down. */
static inline void
index_count(struct index *index, uint64_t base, int64_t change)
{
    struct blockmap_item *used = blockmap_find(&index->used, base);
    if (used) {
        used->value += (uint64_t)change;
    }
}

static enum status
index_is_wanted(const struct index *index, const struct wanted *wanted, uint64_t entry, bool *is_it,
                struct fault *fault)
{
    const struct memory *memory = index->memory;
    const struct lead *lead = wanted->lead;
    enum status status = check_entry(memory, entry, fault);
    if (status != FINE) {
        return status;
    }
    *is_it = lead ? matches(memory, entry, lead->scope, lead->key_class, lead->key, lead->key_size)
                  : word_load(memory, entry + SCOPE_FIELD) == wanted->scope &&
                        load_insertion(memory, entry) == wanted->insertion;
    return FINE;
}

/* Look for an entry in its segment, and for the first word a new one could take. */
static enum status
index_probe(const struct index *index, uint64_t base, const struct wanted *wanted,
            struct probed *probed, struct fault *fault)
{
    uint64_t tag = tag_of(wanted->word_hash), slot = wanted->word_hash & SLOT_MASK;
    probed->found = probed->free = 0;
    for (int step = 0; step < SEGMENT_SLOTS; step++, slot = (slot + 1) & SLOT_MASK) {
        uint64_t address = base + slot, word = word_load(index->memory, address);
        if (word > VACATED && word >> GRANULE_BITS != tag) {
            /* What the batch has staged over an entry is of the same key, so of the same tag. */
            continue;
        }
        word = index_word(index, address);
        if (word == EMPTY || word == VACATED) {
            probed->free = probed->free ? probed->free : address;
            if (word == EMPTY) {
                return FINE;
            }
        }
        else if (word >> GRANULE_BITS == tag) {
            uint64_t entry = (word & GRANULE_MASK) * WORDS_PER_GRANULE;
            bool is_it;
            enum status status = index_is_wanted(index, wanted, entry, &is_it, fault);
            if (status != FINE || is_it) {
                probed->found = address;
                return status;
            }
        }
    }
    return FINE;
}

static enum status
index_find_wanted(const struct index *index, const struct wanted *wanted, uint64_t *address,
                  bool *found, struct fault *fault)
{
    struct probed probed = {0, 0};
    uint64_t base;
    enum status status = index_segment(index, wanted->word_hash, &base, fault);
    if (status == FINE) {
        status = index_probe(index, base, wanted, &probed, fault);
    }
    *address = probed.found;
    *found = status == FINE && probed.found;
    return status;
}

/* Find the word of a lead's entry; the batch's own words are seen. */
static inline enum status
index_find(const struct index *index, const struct lead *lead, uint64_t *address, bool *found,
           struct fault *fault)
{
    struct wanted wanted = {lead->word_hash, lead, 0, 0};
    return index_find_wanted(index, &wanted, address, found, fault);
}

/* Find the word by which readers come to the entry at ``granule``. */
static enum status
index_find_committed(const struct index *index, uint64_t word_hash, uint64_t granule,
                     uint64_t *address, bool *found, struct fault *fault)
{
    uint64_t wanted = tag_of(word_hash) << GRANULE_BITS | granule;
    uint64_t base, slot = word_hash & SLOT_MASK;
    enum status status = index_segment(index, word_hash, &base, fault);
    *found = false;
    for (int step = 0; status == FINE && step < SEGMENT_SLOTS; step++) {
        uint64_t word = word_load(index->memory, base + slot);
        if (word == wanted) {
            *address = base + slot;
            *found = true;
            break;
        }
        if (word == EMPTY) {
            break;
        }
        slot = (slot + 1) & SLOT_MASK;
    }
    return status;
}

/* Staging */

/* Let the word lead to the entry at ``granule`` from the next commit on. */
static enum status
index_stage(struct index *index, uint64_t address, uint64_t granule, uint64_t word_hash,
            struct fault *fault)
{
    uint64_t base, word = tag_of(word_hash) << GRANULE_BITS | granule;
    enum status status = index_segment(index, word_hash, &base, fault);
    if (status == FINE) {
        status = blockmap_reserve(&index->staged, 1);
    }
    if (status == FINE && index_word(index, address) == EMPTY) {
        status = blockmap_put(&index->fresh, address, base);
        if (status == FINE) {
            index_count(index, base, 1);
        }
    }
    return status == FINE ? blockmap_put(&index->staged, address, word) : status;
}

/* Withdraw the batch's word; what was probed past it stays reachable. */
static void
index_unstage(struct index *index, uint64_t address)
{
    if (word_load(index->memory, address) == EMPTY) {
        struct blockmap_item *staged = blockmap_find(&index->staged, address);
        if (staged) {
            staged->value = VACATED;
        }
    }
    else {
        blockmap_pop(&index->staged, address, NULL);
    }
}

static void
index_forget(struct index *index)
{
    blockmap_clear(&index->staged);
    blockmap_clear(&index->fresh);
}

/* Step 3: store the staged words. */
static void
index_publish(struct index *index)
{
    const struct blockmap_item *item;
    for (size_t at = 0; (item = blockmap_next(&index->staged, &at));) {
        word_store_release(index->memory, item->key, item->value);
    }
    index_forget(index);
}

/* Forget the staged words. */
static void
index_abort(struct index *index)
{
    const struct blockmap_item *item;
    for (size_t at = 0; (item = blockmap_next(&index->fresh, &at));) {
        index_count(index, item->value, -1);
    }
    index_forget(index);
}

/* Take an entry out of its word for good; the horizon has passed its deletion. Before an empty
   word a vacated one serves no probe, so it and those behind become empty. */
static enum status
index_vacate(struct index *index, uint64_t address, uint64_t word_hash, struct fault *fault)
{
    const struct memory *memory = index->memory;
    uint64_t base;
    enum status status = index_segment(index, word_hash, &base, fault);
    if (status != FINE) {
        return status;
    }
    uint64_t slot = address - base;
    if (index_word(index, base + ((slot + 1) & SLOT_MASK)) != EMPTY) {
        word_store_release(memory, address, VACATED);
        return FINE;
    }
    for (int step = 0; step < SEGMENT_SLOTS; step++) {
        word_store_release(memory, base + slot, EMPTY);
        index_count(index, base, -1);
        slot = (slot - 1) & SLOT_MASK;
        if (word_load(memory, base + slot) != VACATED || index_is_staged(index, base + slot)) {
            break;
        }
    }
    return FINE;
}

#endif
