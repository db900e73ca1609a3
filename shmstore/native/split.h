/* Growth of the index: a segment that fills is replaced by two new ones, or by one without its
   vacated words. Readers may be sent to the old or to a new one: both say the same. */

#ifndef SHMSTORE_SPLIT_H
#define SHMSTORE_SPLIT_H

#include "index.h"

/* An entry of a segment that is being replaced. */
struct moving {
    uint64_t word_hash;
    uint64_t committed;
    uint64_t staged;
    bool is_staged;
};

/* A segment, the hash that led to it, and the segments that take its place. */
struct replacement {
    uint64_t word_hash;
    uint64_t old;    /* a word */
    uint64_t depth;  /* of the old one */
    uint64_t new[2]; /* granules */
    int parts;
};

/* Tell whether a word leads to an entry. */
static inline bool
word_leads(uint64_t word)
{
    return word != EMPTY && word != VACATED;
}

static uint64_t
local_depth(const struct memory *memory, uint64_t word_hash)
{
    uint64_t root = word_load(memory, ROOT_WORD), depth = root >> DEPTH_SHIFT;
    uint64_t at = (root & GRANULE_MASK) * WORDS_PER_GRANULE;
    return word_load(memory, at + (depth ? word_hash >> (64 - depth) : 0)) >> DEPTH_SHIFT;
}

static uint64_t
index_count_entries(const struct index *index, uint64_t base)
{
    uint64_t count = 0;
    for (uint64_t slot = 0; slot < SEGMENT_SLOTS; slot++) {
        count += word_leads(index_word(index, base + slot));
    }
    return count;
}

/* Collect all entries of a segment, the committed ones first: a word taken back at a takeover
   must not break the probe of a committed one. */
static enum status
index_entries(const struct index *index, uint64_t base, struct moving entries[SEGMENT_SLOTS],
              size_t *count, struct fault *fault)
{
    *count = 0;
    for (int committed_ones = 1; committed_ones >= 0; committed_ones--) {
        for (uint64_t slot = 0; slot < SEGMENT_SLOTS; slot++) {
            uint64_t committed = word_load(index->memory, base + slot);
            if (word_leads(committed) != committed_ones) {
                continue;
            }
            const struct blockmap_item *staged = blockmap_find(&index->staged, base + slot);
            uint64_t word = staged ? staged->value : committed;
            if (!word_leads(word)) {
                continue;
            }
            uint64_t entry = (word & GRANULE_MASK) * WORDS_PER_GRANULE;
            struct moving *moving = &entries[(*count)++];
            enum status status = check_entry(index->memory, entry, fault);
            if (status == FINE) {
                status = entry_hash(index->lookup, entry, &moving->word_hash, fault);
            }
            if (status != FINE) {
                return status;
            }
            moving->committed = committed;
            moving->staged = staged ? staged->value : 0;
            moving->is_staged = staged != NULL;
        }
    }
    return FINE;
}

/* Give the directory twice its words; the same segments, each named twice. */
static enum status
index_double(struct index *index, struct fault *fault)
{
    const struct memory *memory = index->memory;
    uint64_t root = word_load(memory, ROOT_WORD), depth = root >> DEPTH_SHIFT;
    uint64_t start, count, granule;
    if (depth == DEPTH_MAX) {
        return fail(fault, CORRUPT, "the index cannot grow: its hashes are all alike");
    }
    enum status status = directory_find(memory, &start, &count, fault);
    if (status == FINE) {
        status = heap_allocate(index->heap, directory_granules(depth + 1), true, &granule, fault);
    }
    if (status != FINE) {
        return status;
    }
    if (queue_reserve(&index->heap->pending, 1) != FINE) {
        heap_free(index->heap, granule, directory_granules(depth + 1));
        return NO_MEMORY;
    }
    for (uint64_t i = 0; i < 2 * count; i++) {
        word_store(memory, granule * WORDS_PER_GRANULE + i, word_load(memory, start + i / 2));
    }
    word_store_release(memory, ROOT_WORD, (depth + 1) << DEPTH_SHIFT | granule);
    return heap_retire(index->heap, root & GRANULE_MASK, directory_granules(depth));
}

static void
replacement_free(const struct index *index, const struct replacement *replacement, int count)
{
    for (int part = 0; part < count; part++) {
        heap_free(index->heap, replacement->new[part], SEGMENT_GRANULES);
    }
}

static enum status
replacement_allocate(const struct index *index, struct replacement *replacement,
                     struct fault *fault)
{
    for (int part = 0; part < replacement->parts; part++) {
        enum status status =
            heap_allocate(index->heap, SEGMENT_GRANULES, true, &replacement->new[part], fault);
        if (status != FINE) {
            replacement_free(index, replacement, part);
            return status;
        }
    }
    return FINE;
}

/* Which of the new segments takes the entries of this hash. */
static inline int
replacement_part(const struct replacement *replacement, uint64_t word_hash)
{
    return replacement->parts == 2 ? (int)(word_hash >> (63 - replacement->depth) & 1) : 0;
}

/* Lay out one of the new segments. There is room in the maps. */
static void
index_build(struct index *index, const struct replacement *replacement, int part,
            const struct moving *entries, size_t count)
{
    uint64_t base = replacement->new[part] * WORDS_PER_GRANULE, used = 0;
    uint64_t words[SEGMENT_SLOTS] = {EMPTY};
    bool taken[SEGMENT_SLOTS] = {false};
    for (size_t i = 0; i < count; i++) {
        const struct moving *entry = &entries[i];
        if (replacement_part(replacement, entry->word_hash) != part) {
            continue;
        }
        uint64_t slot = entry->word_hash & SLOT_MASK;
        while (taken[slot]) {
            slot = (slot + 1) & SLOT_MASK;
        }
        taken[slot] = true;
        used++;
        words[slot] = entry->committed != VACATED ? entry->committed : EMPTY;
        if (entry->is_staged) {
            blockmap_put(&index->staged, base + slot, entry->staged);
            if (words[slot] == EMPTY) {
                blockmap_put(&index->fresh, base + slot, base);
            }
        }
    }
    for (uint64_t slot = 0; slot < SEGMENT_SLOTS; slot++) {
        word_store(index->memory, base + slot, words[slot]);
    }
    blockmap_put(&index->used, base, used);
}

/* Store the directory words of a replaced segment, which readers follow at once. A takeover in
   the middle goes back to the old segment, which says the same. */
static void
index_redirect(const struct index *index, const struct replacement *replacement)
{
    const struct memory *memory = index->memory;
    uint64_t root = word_load(memory, ROOT_WORD), depth = root >> DEPTH_SHIFT;
    uint64_t span = (uint64_t)1 << (depth - replacement->depth);
    uint64_t at = depth ? replacement->word_hash >> (64 - depth) : 0;
    uint64_t first = (root & GRANULE_MASK) * WORDS_PER_GRANULE + (at & ~(span - 1));
    uint64_t parts = (uint64_t)replacement->parts;
    uint64_t new_depth = replacement->depth + parts - 1;
    for (uint64_t i = 0; i < span; i++) {
        uint64_t granule = replacement->new[i * parts / span];
        word_store_release(memory, first + i, new_depth << DEPTH_SHIFT | granule);
    }
}

/* Put the new segments in the place of the old one. Fails before anything is changed. */
static enum status
index_replace(struct index *index, const struct replacement *replacement, struct fault *fault)
{
    struct moving entries[SEGMENT_SLOTS];
    size_t count;
    if (blockmap_reserve(&index->staged, SEGMENT_SLOTS) != FINE ||
        blockmap_reserve(&index->fresh, SEGMENT_SLOTS) != FINE ||
        blockmap_reserve(&index->used, 2) != FINE ||
        queue_reserve(&index->heap->pending, 1) != FINE) {
        return NO_MEMORY;
    }
    enum status status = index_entries(index, replacement->old, entries, &count, fault);
    if (status != FINE) {
        return status;
    }
    for (uint64_t slot = 0; slot < SEGMENT_SLOTS; slot++) {
        blockmap_pop(&index->staged, replacement->old + slot, NULL);
        blockmap_pop(&index->fresh, replacement->old + slot, NULL);
    }
    for (int part = 0; part < replacement->parts; part++) {
        index_build(index, replacement, part, entries, count);
    }
    index_redirect(index, replacement);
    blockmap_pop(&index->used, replacement->old, NULL);
    return heap_retire(index->heap, replacement->old / WORDS_PER_GRANULE, SEGMENT_GRANULES);
}

/* Split the segment of this hash, or rebuild it if mostly vacated words fill it. All memory is
   taken before the entries are looked at: an allocation may vacate words. */
static enum status
index_make_room(struct index *index, uint64_t word_hash, struct fault *fault)
{
    const struct memory *memory = index->memory;
    struct replacement replacement = {.word_hash = word_hash};
    enum status status = index_segment(index, word_hash, &replacement.old, fault);
    if (status != FINE) {
        return status;
    }
    replacement.depth = local_depth(memory, word_hash);
    bool splits = index_count_entries(index, replacement.old) > SEGMENT_USED_MAX / 2;
    if (replacement.depth > word_load(memory, ROOT_WORD) >> DEPTH_SHIFT) {
        return fail(fault, DAMAGED, "a directory word names too great a depth");
    }
    if (splits && replacement.depth == word_load(memory, ROOT_WORD) >> DEPTH_SHIFT) {
        status = index_double(index, fault);
    }
    replacement.parts = splits ? 2 : 1;
    if (status == FINE) {
        status = replacement_allocate(index, &replacement, fault);
    }
    if (status != FINE) {
        return status;
    }
    status = index_replace(index, &replacement, fault);
    if (status != FINE) {
        replacement_free(index, &replacement, replacement.parts);
    }
    return status;
}

/* Find the word of a lead's entry (*found), or else the word a new entry would take; the batch's
   own words are seen. The index may split. */
static enum status
index_locate(struct index *index, const struct lead *lead, uint64_t *address, bool *found,
             struct fault *fault)
{
    struct wanted wanted = {lead->word_hash, lead, 0, 0};
    for (;;) {
        struct probed probed;
        uint64_t base;
        enum status status = index_segment(index, lead->word_hash, &base, fault);
        if (status == FINE) {
            status = index_probe(index, base, &wanted, &probed, fault);
        }
        if (status != FINE) {
            return status;
        }
        *found = probed.found != 0;
        *address = probed.found ? probed.found : probed.free;
        if (probed.found) {
            return FINE;
        }
        if (probed.free) {
            const struct blockmap_item *used = blockmap_find(&index->used, base);
            if (index_word(index, probed.free) == VACATED ||
                (used && used->value < SEGMENT_USED_MAX)) {
                return FINE;
            }
        }
        status = index_make_room(index, lead->word_hash, fault);
        if (status != FINE) {
            return status;
        }
    }
}

#endif
