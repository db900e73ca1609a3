/* The index as readers use it: from a hash to the entries that may be the one.

   An entry never moves to another word of its segment, so an empty word ends a probe for good. */

#ifndef SHMSTORE_PROBE_H
#define SHMSTORE_PROBE_H

#include "records.h"

#define SLOT_MASK (SEGMENT_SLOTS - 1)

#define NO_ENTRY UINT64_MAX

struct probe {
    uint64_t base;
    uint64_t tag;
    uint32_t slot;
    uint32_t steps;
};

/* The bits of the hash that an index word carries. */
static inline uint64_t
tag_of(uint64_t word_hash)
{
    return word_hash >> SEGMENT_SLOT_BITS & TAG_MASK;
}

/* Find the word at which the segment for this hash begins. */
static inline enum status
segment_at(const struct memory *memory, uint64_t word_hash, uint64_t *base, struct fault *fault)
{
    uint64_t root = word_load_acquire(memory, ROOT_WORD), depth = root >> DEPTH_SHIFT;
    uint64_t word = (root & GRANULE_MASK) * WORDS_PER_GRANULE;
    if (depth) {
        word += depth < 64 ? word_hash >> (64 - depth) : UINT64_MAX >> 8;
    }
    if (word >= memory->word_count) {
        return fail(fault, DAMAGED, "the root names a directory of depth %u outside the segment",
                    (unsigned)depth);
    }
    *base = (word_load_acquire(memory, word) & GRANULE_MASK) * WORDS_PER_GRANULE;
    return FINE;
}

static inline enum status
probe_begin(const struct memory *memory, uint64_t word_hash, struct probe *probe,
            struct fault *fault)
{
    probe->tag = tag_of(word_hash);
    probe->slot = (uint32_t)(word_hash & SLOT_MASK);
    probe->steps = 0;
    return segment_at(memory, word_hash, &probe->base, fault);
}

/* Find the next entry that may be the one of this hash; NO_ENTRY when there is none. */
static inline enum status
probe_next(const struct memory *memory, struct probe *probe, uint64_t *entry, struct fault *fault)
{
    *entry = NO_ENTRY;
    while (probe->steps++ < SEGMENT_SLOTS) {
        uint64_t address = probe->base + probe->slot;
        if (address >= memory->word_count) {
            return fail(fault, DAMAGED, "an index segment reaches out of the memory");
        }
        uint64_t word = word_load_acquire(memory, address);
        if (word == EMPTY) {
            return FINE;
        }
        probe->slot = (probe->slot + 1) & SLOT_MASK;
        if (word >> GRANULE_BITS == probe->tag && word != VACATED) {
            *entry = (word & GRANULE_MASK) * WORDS_PER_GRANULE;
            return check_entry(memory, *entry, fault);
        }
    }
    return FINE;
}

#endif
