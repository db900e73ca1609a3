/* Open addressing: from a 64-bit key to the number of the item that carries it.

   The items lie elsewhere, in arrays that may move; their numbers begin with 1. A table is at
   most half full, and an item that is taken out leaves no trace. */

#ifndef SHMSTORE_SLOTS_H
#define SHMSTORE_SLOTS_H

#include "memory.h"

#define SLOTS_ITEMS_MAX (UINT32_MAX / 4)

struct slots {
    uint32_t *numbers; /* 0 is an empty slot */
    uint64_t mask;
    unsigned shift;
};

/* Gives the key of an item; the calls vanish, as all that take it are inlined. */
typedef uint64_t slots_key(const void *items, uint32_t number);

/* Make an empty table for so many items. */
static inline enum status
slots_open(struct slots *slots, size_t items)
{
    unsigned bits = 3;
    while ((uint64_t)1 << bits < (uint64_t)items * 2) {
        bits++;
    }
    slots->mask = ((uint64_t)1 << bits) - 1;
    slots->shift = 64 - bits;
    slots->numbers = calloc((size_t)1 << bits, sizeof *slots->numbers);
    return slots->numbers == NULL ? NO_MEMORY : FINE;
}

static inline void
slots_close(struct slots *slots)
{
    free(slots->numbers);
    slots->numbers = NULL;
}

static inline void
slots_clear(struct slots *slots)
{
    memset(slots->numbers, 0, (size_t)(slots->mask + 1) * sizeof *slots->numbers);
}

/* The slot at which the search for a key begins. The factor is 2**64 over the golden ratio. */
static inline uint64_t
slots_home(const struct slots *slots, uint64_t key)
{
    return key * UINT64_C(0x9E3779B97F4A7C15) >> slots->shift;
}

/* The slot of the item with this key, or the empty one where it belongs. */
static inline uint64_t
slots_seek(const struct slots *slots, uint64_t key, const void *items, slots_key *key_of)
{
    uint64_t at = slots_home(slots, key);
    while (slots->numbers[at] && key_of(items, slots->numbers[at]) != key) {
        at = (at + 1) & slots->mask;
    }
    return at;
}

/* The number of the item with this key; 0 if there is none, or no table yet. */
static inline uint32_t
slots_get(const struct slots *slots, uint64_t key, const void *items, slots_key *key_of)
{
    return slots->numbers ? slots->numbers[slots_seek(slots, key, items, key_of)] : 0;
}

/* Add an item; none has its key, and there is room. */
static inline void
slots_add(struct slots *slots, uint64_t key, uint32_t number)
{
    uint64_t at = slots_home(slots, key);
    while (slots->numbers[at]) {
        at = (at + 1) & slots->mask;
    }
    slots->numbers[at] = number;
}

/* Empty the slot of this key; what was pushed past it moves up. */
static inline void
slots_remove(struct slots *slots, uint64_t key, const void *items, slots_key *key_of)
{
    uint64_t hole = slots_seek(slots, key, items, key_of), at = hole;
    for (;;) {
        at = (at + 1) & slots->mask;
        uint32_t number = slots->numbers[at];
        if (number == 0) {
            break;
        }
        uint64_t home = slots_home(slots, key_of(items, number));
        if (((at - home) & slots->mask) >= ((at - hole) & slots->mask)) {
            slots->numbers[hole] = number;
            hole = at;
        }
    }
    slots->numbers[hole] = 0;
}

#endif
