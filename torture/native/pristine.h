/* A segment that can be as it was at the start, soon: the pages that were stored to are noted.

   To be included before all headers of shmstore, whose stores it takes the place of. */

#ifndef SHMSTORE_PRISTINE_H
#define SHMSTORE_PRISTINE_H

#define word_store plain_word_store
#define word_store_release plain_word_store_release
#define bytes_store plain_bytes_store
#include "memory.h"
#undef word_store
#undef word_store_release
#undef bytes_store

#define PAGE_BYTES 4096u
#define PAGES (CAPACITY_BYTES_MIN / PAGE_BYTES)

struct pristine { /* the memory comes first */
    _Alignas(PAGE_BYTES) unsigned char memory[CAPACITY_BYTES_MIN];
    unsigned char before[CAPACITY_BYTES_MIN];
    bool is_dirty[PAGES];
    uint16_t dirty[PAGES];
    size_t dirty_count;
};

/* A segment begins where its struct does. */
static inline void
pristine_note(const struct memory *memory, uint64_t offset, uint64_t size)
{
    struct pristine *pristine = (struct pristine *)(void *)memory->words;
    for (uint64_t page = offset / PAGE_BYTES; page * PAGE_BYTES < offset + size; page++) {
        if (!pristine->is_dirty[page]) {
            pristine->is_dirty[page] = true;
            pristine->dirty[pristine->dirty_count++] = (uint16_t)page;
        }
    }
}

static inline void
word_store(const struct memory *memory, uint64_t word, uint64_t value)
{
    pristine_note(memory, word * WORD_BYTES, WORD_BYTES);
    plain_word_store(memory, word, value);
}

static inline void
word_store_release(const struct memory *memory, uint64_t word, uint64_t value)
{
    pristine_note(memory, word * WORD_BYTES, WORD_BYTES);
    plain_word_store_release(memory, word, value);
}

static inline void
bytes_store(const struct memory *memory, uint64_t offset, const void *source, size_t size)
{
    pristine_note(memory, offset, size);
    plain_bytes_store(memory, offset, source, size);
}

/* What is in the memory now is what it goes back to. */
static void
pristine_keep(struct pristine *pristine)
{
    for (; pristine->dirty_count; pristine->dirty_count--) {
        pristine->is_dirty[pristine->dirty[pristine->dirty_count - 1]] = false;
    }
    memcpy(pristine->before, pristine->memory, sizeof pristine->memory);
}

static void
pristine_restore(struct pristine *pristine)
{
    for (; pristine->dirty_count; pristine->dirty_count--) {
        size_t page = pristine->dirty[pristine->dirty_count - 1];
        memcpy(pristine->memory + page * PAGE_BYTES, pristine->before + page * PAGE_BYTES,
               PAGE_BYTES);
        pristine->is_dirty[page] = false;
    }
}

#endif
