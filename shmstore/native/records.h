/* Entries: how a record, ghost, list head or pin lies in its block, and which version is seen.

   Inside a reader's window any word may be garbage: what is followed is checked to lie inside the
   memory first, and only read_accept() tells whether it mattered. */

#ifndef SHMSTORE_RECORDS_H
#define SHMSTORE_RECORDS_H

#include "hashing.h"
#include "memory.h"

#define ENTRY_HEADER_WORDS (ENTRY_HEADER_BYTES / WORD_BYTES)

/* The sizes of an entry. */
struct shape {
    uint32_t key_size;
    uint32_t kind;
    uint32_t value_size;
};

/* What an entry says, apart from its key and value. */
struct entry {
    uint64_t granule;
    uint64_t seq;
    uint64_t prev;
    uint64_t insertion;
    uint64_t scope;
    struct shape shape;
    uint32_t checksum;
};

static inline uint32_t
shape_class(const struct shape *shape)
{
    return shape->kind & CLASS_MASK;
}

static inline bool
shape_has_user_key(const struct shape *shape)
{
    uint32_t key_class = shape_class(shape);
    return key_class == CLASS_STR || key_class == CLASS_BYTES;
}

/* Tell whether there are entries of this kind: heads and pins are neither ghosts nor sorted. */
static inline bool
shape_is_known(const struct shape *shape)
{
    return shape->kind == CLASS_HEAD || shape->kind == CLASS_PIN || shape_has_user_key(shape);
}

/* Tell whether the entry has a value that can be pinned. */
static inline bool
shape_is_record(const struct shape *shape)
{
    return shape_has_user_key(shape) && !(shape->kind & KIND_GHOST);
}

/* Everything before the value, without the padding of an aligned value. */
static inline uint64_t
shape_header_bytes(const struct shape *shape)
{
    uint64_t sort = shape->kind & KIND_SORTED ? SORT_WORD_BYTES : 0;
    return ENTRY_HEADER_BYTES + (uint64_t)shape->key_size + sort;
}

/* The size of the block; it does not depend on where the block lies. */
static inline uint64_t
shape_granules(const struct shape *shape)
{
    uint64_t size = shape_header_bytes(shape) + shape->value_size;
    if (shape->value_size >= ALIGNED_VALUE_BYTES_MIN) {
        size += CACHE_LINE_BYTES - 1;
    }
    return (size + GRANULE_BYTES - 1) / GRANULE_BYTES;
}

/* The offset of the value of an entry at ``offset``. */
static inline uint64_t
shape_value_start(const struct shape *shape, uint64_t offset)
{
    uint64_t start = offset + shape_header_bytes(shape);
    if (shape->value_size >= ALIGNED_VALUE_BYTES_MIN) {
        start = (start + CACHE_LINE_BYTES - 1) & ~(uint64_t)(CACHE_LINE_BYTES - 1);
    }
    return start;
}

static inline struct shape
shape_of(uint64_t shape_word, uint64_t sizes_word)
{
    struct shape shape = {
        .key_size = (uint32_t)(shape_word >> KEY_SIZE_SHIFT),
        .kind = (uint32_t)(shape_word >> KIND_SHIFT & KIND_MASK),
        .value_size = (uint32_t)sizes_word,
    };
    return shape;
}

/* The functions below take ``entry``: the word at which it begins. */

static inline enum status
check_entry(const struct memory *memory, uint64_t entry, struct fault *fault)
{
    if (!words_fit(memory, entry, ENTRY_HEADER_WORDS)) {
        return fail(fault, DAMAGED, "the entry at granule %llu is outside the segment",
                    (unsigned long long)(entry / WORDS_PER_GRANULE));
    }
    return FINE;
}

static inline struct shape
load_shape(const struct memory *memory, uint64_t entry)
{
    return shape_of(word_load(memory, entry + SHAPE_FIELD), word_load(memory, entry));
}

static inline uint64_t
load_insertion(const struct memory *memory, uint64_t entry)
{
    return word_load(memory, entry + SHAPE_FIELD) & INSERTION_MASK;
}

static enum status
load_entry(const struct memory *memory, uint64_t granule, struct entry *entry, struct fault *fault)
{
    uint64_t word = granule * WORDS_PER_GRANULE;
    enum status status = check_entry(memory, word, fault);
    if (status != FINE) {
        return status;
    }
    uint64_t sizes = word_load(memory, word), shape = word_load(memory, word + SHAPE_FIELD);
    entry->granule = granule;
    entry->seq = word_load(memory, word + SEQ_FIELD);
    entry->prev = word_load(memory, word + PREV_FIELD);
    entry->insertion = shape & INSERTION_MASK;
    entry->scope = word_load(memory, word + SCOPE_FIELD);
    entry->shape = shape_of(shape, sizes);
    entry->checksum = (uint32_t)(sizes >> 32);
    return FINE;
}

/* The offset of the key, checked to lie inside with all its bytes. */
static enum status
find_key(const struct memory *memory, uint64_t entry, const struct shape *shape, uint64_t *offset,
         struct fault *fault)
{
    *offset = entry * WORD_BYTES + ENTRY_HEADER_BYTES;
    if (!bytes_fit(memory, *offset, shape->key_size)) {
        return fail(fault, DAMAGED, "the key of the entry at %llu is outside the segment",
                    (unsigned long long)(entry * WORD_BYTES));
    }
    return FINE;
}

/* The sort word; 0 if this kind has none. */
static enum status
load_sort(const struct memory *memory, uint64_t entry, const struct shape *shape, uint64_t *sort,
          struct fault *fault)
{
    *sort = 0;
    if (!(shape->kind & KIND_SORTED)) {
        return FINE;
    }
    uint64_t offset = entry * WORD_BYTES + ENTRY_HEADER_BYTES + shape->key_size;
    if (!bytes_fit(memory, offset, SORT_WORD_BYTES)) {
        return fail(fault, DAMAGED, "the sort word of the entry at %llu is outside the segment",
                    (unsigned long long)(entry * WORD_BYTES));
    }
    bytes_load(memory, offset, sort, SORT_WORD_BYTES);
    return FINE;
}

/* The offset of the value, checked to lie inside with all its bytes. */
static inline enum status
find_value(const struct memory *memory, uint64_t entry, const struct shape *shape, uint64_t *offset,
           struct fault *fault)
{
    *offset = shape_value_start(shape, entry * WORD_BYTES);
    if (!bytes_fit(memory, *offset, shape->value_size)) {
        return fail(fault, DAMAGED, "the value of the entry at %llu is outside the segment",
                    (unsigned long long)(entry * WORD_BYTES));
    }
    return FINE;
}

/* Find the version that batch ``committed`` sees; *seen is 0 if it sees none. */
static inline enum status
visible(const struct memory *memory, uint64_t entry, uint64_t committed, uint64_t *seen,
        struct fault *fault)
{
    for (int hop = 0; hop < VERSION_HOPS_MAX; hop++) {
        enum status status = check_entry(memory, entry, fault);
        if (status != FINE) {
            return status;
        }
        uint64_t prev = word_load(memory, entry + PREV_FIELD);
        if (word_load(memory, entry + SEQ_FIELD) <= committed) {
            *seen = prev & DEAD && (prev ^ DEAD) <= committed ? 0 : entry;
            return FINE;
        }
        if (prev & DEAD) {
            /* Written and deleted since this read began; the horizon will turn it away. */
            return OVERTAKEN;
        }
        if (prev <= VACATED) {
            *seen = 0;
            return FINE;
        }
        entry = prev * WORDS_PER_GRANULE;
    }
    return OVERTAKEN;
}

/* Tell whether the entry, whose header lies inside, belongs to this key. */
static inline bool
matches(const struct memory *memory, uint64_t entry, uint64_t scope, uint32_t key_class,
        const void *key, size_t size)
{
    if (word_load(memory, entry + SCOPE_FIELD) != scope) {
        return false;
    }
    uint64_t shape = word_load(memory, entry + SHAPE_FIELD);
    if (shape >> KEY_SIZE_SHIFT != size || (shape >> KIND_SHIFT & CLASS_MASK) != key_class) {
        return false;
    }
    uint64_t offset = entry * WORD_BYTES + ENTRY_HEADER_BYTES;
    return bytes_fit(memory, offset, size) && bytes_equal(memory, offset, key, size);
}

/* The CRC-32 of what comes before the key. */
static uint32_t
entry_header_crc(const struct crc_tables *tables, const struct entry *entry)
{
    const struct shape *shape = &entry->shape;
    uint64_t shape_word = (uint64_t)shape->key_size << KEY_SIZE_SHIFT |
                          (uint64_t)shape->kind << KIND_SHIFT | entry->insertion;
    unsigned char fixed[4 + 3 * WORD_BYTES];
    memcpy(fixed, &shape->value_size, 4);
    memcpy(fixed + 4, &entry->seq, WORD_BYTES);
    memcpy(fixed + 12, &shape_word, WORD_BYTES);
    memcpy(fixed + 20, &entry->scope, WORD_BYTES);
    return crc32_of(tables, 0, fixed, sizeof fixed);
}

static uint32_t
entry_crc(const struct crc_tables *tables, const struct entry *entry, const void *key,
          uint64_t sort, const void *value)
{
    const struct shape *shape = &entry->shape;
    uint32_t crc = entry_header_crc(tables, entry);
    crc = crc32_of(tables, crc, key, shape->key_size);
    if (shape->kind & KIND_SORTED) {
        crc = crc32_of(tables, crc, &sort, SORT_WORD_BYTES);
    }
    return crc32_of(tables, crc, value, shape->value_size);
}

/* Step 2: write an entry, whatever checksum it names, into a block no reader can reach. */
static void
store_entry(const struct memory *memory, const struct crc_tables *tables, const struct entry *entry,
            const void *key, uint64_t sort, const void *value)
{
    const struct shape *shape = &entry->shape;
    uint64_t word = entry->granule * WORDS_PER_GRANULE, offset = entry->granule * GRANULE_BYTES;
    uint32_t crc = entry_crc(tables, entry, key, sort, value);
    word_store(memory, word, (uint64_t)shape->value_size | (uint64_t)crc << 32);
    word_store(memory, word + SEQ_FIELD, entry->seq);
    word_store(memory, word + PREV_FIELD, entry->prev);
    word_store(memory, word + SHAPE_FIELD,
               (uint64_t)shape->key_size << KEY_SIZE_SHIFT | (uint64_t)shape->kind << KIND_SHIFT |
                   entry->insertion);
    word_store(memory, word + SCOPE_FIELD, entry->scope);
    bytes_store(memory, offset + ENTRY_HEADER_BYTES, key, shape->key_size);
    if (shape->kind & KIND_SORTED) {
        bytes_store(memory, offset + ENTRY_HEADER_BYTES + shape->key_size, &sort, SORT_WORD_BYTES);
    }
    bytes_store(memory, shape_value_start(shape, offset), value, shape->value_size);
}

#endif
