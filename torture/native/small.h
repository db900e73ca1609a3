/* The figures of the format, smaller: what takes thousands of records elsewhere, a directory that
   splits, lists of three levels, takes dozens here, and is looked at in microseconds. Every store
   can be looked at, too.

   To be included before all headers of shmstore, whose figures and stores it takes the place of. */

#ifndef SHMSTORE_SMALL_H
#define SHMSTORE_SMALL_H

#include "layout.h"

#undef HEAP_START
#define HEAP_START 256
#undef SEGMENT_SLOT_BITS
#define SEGMENT_SLOT_BITS 4
#undef SEGMENT_SLOTS
#define SEGMENT_SLOTS 16
#undef SEGMENT_BYTES
#define SEGMENT_BYTES 128
#undef SEGMENT_USED_MAX
#define SEGMENT_USED_MAX 14
/* Room for the longest key is asked for at every takeover, so keys are shorter. */
#undef KEY_SIZE_SHIFT
#define KEY_SIZE_SHIFT 53
#undef KEY_BYTES_MAX
#define KEY_BYTES_MAX 1024
#undef ALIGNED_VALUE_BYTES_MIN
#define ALIGNED_VALUE_BYTES_MIN 256
#undef NODE_ELEMENTS_MAX
#define NODE_ELEMENTS_MAX 4
#undef EXTENT_BYTES
#define EXTENT_BYTES 2048

#define SMALL_BYTES (12 << 10)
#define SMALL_WORDS (SMALL_BYTES / WORD_BYTES)

#define word_store plain_word_store
#define word_store_release plain_word_store_release
#define bytes_store plain_bytes_store
#include "memory.h"
#undef word_store
#undef word_store_release
#undef bytes_store

static void (*before_store)(void); /* called, if it is set */

static inline void
word_store(const struct memory *memory, uint64_t word, uint64_t value)
{
    if (before_store) {
        before_store();
    }
    plain_word_store(memory, word, value);
}

static inline void
word_store_release(const struct memory *memory, uint64_t word, uint64_t value)
{
    if (before_store) {
        before_store();
    }
    plain_word_store_release(memory, word, value);
}

static inline void
bytes_store(const struct memory *memory, uint64_t offset, const void *source, size_t size)
{
    if (before_store) {
        before_store();
    }
    plain_bytes_store(memory, offset, source, size);
}

#endif
