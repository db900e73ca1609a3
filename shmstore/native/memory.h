/* The memory of a segment: 64-bit words that other processes may read, or overwrite, at any time.

   Everything goes through relaxed 8-byte atomics, bytes too: plain accesses to racing memory are
   undefined, and a compiler may make two loads of one. Orders stronger than relaxed stand where
   the protocol names them, here and in clock.h. No Python in the headers from here to owner.h. */

#ifndef SHMSTORE_MEMORY_H
#define SHMSTORE_MEMORY_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the format of a segment is little-endian, and so must the machine be"
#endif
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words must be atomic without a lock");

enum status {
    FINE = 0,
    DAMAGED,   /* a word holds what the format does not allow */
    OVERTAKEN, /* the versions seen by this read are being replaced faster than it follows them */
    FULL,      /* the store has no room */
    EXHAUSTED, /* all insertion numbers are used up */
    CORRUPT,   /* damage that was found outside any reader's window */
    NO_MEMORY, /* this process has no memory left */
};

/* What went wrong, in words, for the error that somebody else raises. */
struct fault {
    char text[512];
    uint64_t requested, used, capacity; /* bytes, when the store is FULL */
};

__attribute__((cold, noinline, format(printf, 2, 3))) static void
fault_say(struct fault *fault, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
}

/* Say what is wrong; the value is the status, as a constant the compiler can see. */
#define fail(fault, status, ...) (fault_say(fault, __VA_ARGS__), (status))

/* What every store to the segment costs: nothing, but in a build for trials. */
#ifdef SHMSTORE_STORE_BUDGET
#include <budget.h>
#else
#define spend_store() ((void)0)
#endif

struct memory {
    _Atomic uint64_t *words;
    uint64_t word_count;
};

#define WORDS_PER_GRANULE (GRANULE_BYTES / WORD_BYTES)

static inline uint64_t
memory_bytes(const struct memory *memory)
{
    return memory->word_count * WORD_BYTES;
}

/* Words. Who calls has checked that the word is inside; see words_fit(). */

static inline uint64_t
word_load(const struct memory *memory, uint64_t word)
{
    return atomic_load_explicit(&memory->words[word], memory_order_relaxed);
}

static inline uint64_t
word_load_acquire(const struct memory *memory, uint64_t word)
{
    return atomic_load_explicit(&memory->words[word], memory_order_acquire);
}

static inline void
word_store(const struct memory *memory, uint64_t word, uint64_t value)
{
    spend_store();
    atomic_store_explicit(&memory->words[word], value, memory_order_relaxed);
}

static inline void
word_store_release(const struct memory *memory, uint64_t word, uint64_t value)
{
    spend_store();
    atomic_store_explicit(&memory->words[word], value, memory_order_release);
}

static inline bool
words_fit(const struct memory *memory, uint64_t first, uint64_t count)
{
    return first <= memory->word_count && count <= memory->word_count - first;
}

static inline bool
bytes_fit(const struct memory *memory, uint64_t offset, uint64_t size)
{
    return offset <= memory_bytes(memory) && size <= memory_bytes(memory) - offset;
}

/* Bytes at any offset; who calls has checked bytes_fit(). */

static inline uint64_t
shifted(uint64_t low, uint64_t high, unsigned shift)
{
    return low >> shift | high << (64 - shift);
}

/* Two atomic loads for one store into private memory: large values take half as long. */
typedef uint64_t word_pair __attribute__((vector_size(2 * WORD_BYTES)));

static void
bytes_load(const struct memory *memory, uint64_t offset, void *target, size_t size)
{
    uint64_t word = offset / WORD_BYTES;
    unsigned shift = (unsigned)(offset % WORD_BYTES) * 8;
    unsigned char *out = target;
    uint64_t value;
    if (size == 0) {
        return;
    }
    if (shift == 0) {
        for (; size >= sizeof(word_pair); size -= sizeof(word_pair), out += sizeof(word_pair)) {
            word_pair pair = {word_load(memory, word), word_load(memory, word + 1)};
            memcpy(out, &pair, sizeof pair);
            word += 2;
        }
        for (; size >= WORD_BYTES; size -= WORD_BYTES, out += WORD_BYTES) {
            value = word_load(memory, word++);
            memcpy(out, &value, WORD_BYTES);
        }
        if (size) {
            value = word_load(memory, word);
            memcpy(out, &value, size);
        }
        return;
    }
    uint64_t current = word_load(memory, word++);
    for (; size >= WORD_BYTES; size -= WORD_BYTES, out += WORD_BYTES) {
        uint64_t next = word_load(memory, word++);
        value = shifted(current, next, shift);
        memcpy(out, &value, WORD_BYTES);
        current = next;
    }
    if (size) {
        bool crosses = size * 8 > 64 - shift;
        value = crosses ? shifted(current, word_load(memory, word), shift) : current >> shift;
        memcpy(out, &value, size);
    }
}

static bool
bytes_equal(const struct memory *memory, uint64_t offset, const void *bytes, size_t size)
{
    const unsigned char *expected = bytes;
    uint64_t piece[8], word;
    if (size <= WORD_BYTES) {
        bytes_load(memory, offset, &word, size);
        return memcmp(&word, expected, size) == 0;
    }
    while (size) {
        size_t step = size < sizeof piece ? size : sizeof piece;
        bytes_load(memory, offset, piece, step);
        if (memcmp(piece, expected, step) != 0) {
            return false;
        }
        offset += step, expected += step, size -= step;
    }
    return true;
}

/* Store some bytes of one word; its other bytes stay as they are. The writer alone stores. */
static inline void
word_merge(const struct memory *memory, uint64_t word, unsigned first, const void *source,
           size_t size)
{
    uint64_t value = word_load(memory, word);
    memcpy((unsigned char *)&value + first, source, size);
    word_store(memory, word, value);
}

static void
bytes_store(const struct memory *memory, uint64_t offset, const void *source, size_t size)
{
    const unsigned char *in = source;
    uint64_t word = offset / WORD_BYTES, value;
    unsigned first = (unsigned)(offset % WORD_BYTES);
    if (first) {
        size_t step = size < WORD_BYTES - first ? size : WORD_BYTES - first;
        word_merge(memory, word++, first, in, step);
        in += step, size -= step;
    }
    for (; size >= WORD_BYTES; size -= WORD_BYTES, in += WORD_BYTES) {
        memcpy(&value, in, WORD_BYTES);
        word_store(memory, word++, value);
    }
    if (size) {
        word_merge(memory, word, 0, in, size);
    }
}

#endif
