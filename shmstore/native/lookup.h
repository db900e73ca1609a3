/* Looking things up in the memory of a segment: hashes, entries, list heads.

   What these functions find may be garbage if the writer overtook them; whoever reads without
   being the writer asks read_accept() whether it mattered. */

#ifndef SHMSTORE_LOOKUP_H
#define SHMSTORE_LOOKUP_H

#include "clock.h"
#include "probe.h"
#include "walk.h"

struct lookup {
    struct memory memory;
    uint64_t seed;
    uint64_t secret[4];
};

/* Bytes that lie elsewhere. */
struct span {
    const void *data;
    size_t size;
};

/* What leads to an entry: the hash of its word, and what tells it from its neighbours. */
struct lead {
    uint64_t word_hash;
    uint64_t scope;
    uint32_t key_class;
    const void *key;
    size_t key_size;
};

static void
lookup_open(struct lookup *lookup, void *bytes, uint64_t size)
{
    lookup->memory.words = bytes;
    lookup->memory.word_count = size / WORD_BYTES;
    lookup->seed = word_load(&lookup->memory, SECRET_WORD);
    for (int i = 0; i < 4; i++) {
        lookup->secret[i] = word_load(&lookup->memory, (uint64_t)(SECRET_WORD + 1 + i));
    }
}

/* The hash of a list's name: its scope, and the hash of its head's word. */
static inline uint64_t
list_hash(const struct lookup *lookup, const void *name, size_t size)
{
    return wyhash(name, size, lookup->seed, lookup->secret);
}

static inline struct lead
record_lead(const struct lookup *lookup, uint64_t scope, uint32_t key_class, const void *key,
            size_t size)
{
    struct lead lead = {wyhash(key, size, scope ^ key_class, lookup->secret), scope, key_class, key,
                        size};
    return lead;
}

static inline struct lead
head_lead(const struct lookup *lookup, const void *name, size_t size)
{
    uint64_t scope = list_hash(lookup, name, size);
    struct lead lead = {scope, scope, CLASS_HEAD, name, size};
    return lead;
}

/* The key of a pin: its holder, then the granule of what is pinned. */
struct pin_key {
    unsigned char bytes[HOLDER_BYTES_MAX + PIN_GRANULE_BYTES];
    size_t size;
};

/* What leads to the pin by which a holder, of modest length, keeps a block. */
static struct lead
pin_lead(const struct lookup *lookup, struct pin_key *key, struct span holder, uint64_t granule)
{
    key->size = holder.size + PIN_GRANULE_BYTES;
    memcpy(key->bytes, holder.data, holder.size);
    memcpy(key->bytes + holder.size, &granule, PIN_GRANULE_BYTES);
    return record_lead(lookup, PIN_SCOPE, CLASS_PIN, key->bytes, key->size);
}

/* Read the key of a pin whose header lies inside, and the granule that it names. */
static enum status
load_pin(const struct memory *memory, uint64_t entry, struct pin_key *key, uint64_t *granule,
         struct fault *fault)
{
    struct shape shape = load_shape(memory, entry);
    uint64_t offset;
    enum status status = find_key(memory, entry, &shape, &offset, fault);
    key->size = shape.key_size;
    if (status != FINE) {
        return status;
    }
    /* Not to be taken for a pin: a head, whose nodes would be free memory then. */
    if (key->size >= PIN_GRANULE_BYTES && key->size <= sizeof key->bytes &&
        word_load(memory, entry + SCOPE_FIELD) == PIN_SCOPE) {
        bytes_load(memory, offset, key->bytes, key->size);
        memcpy(granule, key->bytes + key->size - PIN_GRANULE_BYTES, PIN_GRANULE_BYTES);
        if (*granule <= GRANULE_MASK) {
            return FINE;
        }
    }
    return fail(fault, DAMAGED, "the entry at granule %llu is no pin",
                (unsigned long long)(entry / WORDS_PER_GRANULE));
}

/* The hash that leads to the word of an entry whose header lies inside. */
static enum status
entry_hash(const struct lookup *lookup, uint64_t entry, uint64_t *word_hash, struct fault *fault)
{
    struct shape shape = load_shape(&lookup->memory, entry);
    uint64_t scope = word_load(&lookup->memory, entry + SCOPE_FIELD), offset;
    if (shape_class(&shape) == CLASS_HEAD) {
        *word_hash = scope;
        return FINE;
    }
    enum status status = find_key(&lookup->memory, entry, &shape, &offset, fault);
    if (status != FINE) {
        return status;
    }
    unsigned char small[256], *key = small;
    if (shape.key_size > sizeof small && (key = malloc(shape.key_size)) == NULL) {
        return NO_MEMORY;
    }
    bytes_load(&lookup->memory, offset, key, shape.key_size);
    *word_hash = wyhash(key, shape.key_size, scope ^ shape_class(&shape), lookup->secret);
    if (key != small) {
        free(key);
    }
    return FINE;
}

/* Find the version of an entry that batch ``committed`` sees, ghosts too; 0 if there is none. */
static inline enum status
find_seen(const struct lookup *lookup, const struct lead *lead, uint64_t committed, uint64_t *seen,
          struct fault *fault)
{
    const struct memory *memory = &lookup->memory;
    struct probe probe = {0};
    uint64_t entry;
    enum status status = probe_begin(memory, lead->word_hash, &probe, fault);
    *seen = 0;
    while (status == FINE) {
        status = probe_next(memory, &probe, &entry, fault);
        if (status != FINE || entry == NO_ENTRY) {
            return status;
        }
        if (matches(memory, entry, lead->scope, lead->key_class, lead->key, lead->key_size)) {
            return visible(memory, entry, committed, seen, fault);
        }
    }
    return status;
}

/* Find the version of a record that is seen; 0 if there is none. */
static inline enum status
find_record(const struct lookup *lookup, const struct lead *lead, uint64_t committed,
            uint64_t *seen, struct fault *fault)
{
    enum status status = find_seen(lookup, lead, committed, seen, fault);
    if (*seen && load_shape(&lookup->memory, *seen).kind & KIND_GHOST) {
        *seen = 0;
    }
    return status;
}

/* Find (count, root) of a list as seen; count is 0 if it is empty. */
static enum status
find_head(const struct lookup *lookup, const void *name, size_t size, uint64_t committed,
          uint64_t *count, struct leaf_or_inner *root, struct fault *fault)
{
    struct lead lead = head_lead(lookup, name, size);
    uint64_t seen;
    *count = 0;
    root->count = 0;
    enum status status = find_seen(lookup, &lead, committed, &seen, fault);
    return status == FINE && seen ? load_head(&lookup->memory, seen, count, root, fault) : status;
}

/* Find the record a list element stands for. */
static enum status
find_inserted(const struct lookup *lookup, uint64_t word_hash, uint64_t scope, uint64_t insertion,
              uint64_t committed, uint64_t *seen, struct fault *fault)
{
    const struct memory *memory = &lookup->memory;
    struct probe probe = {0};
    uint64_t entry;
    enum status status = probe_begin(memory, word_hash, &probe, fault);
    while (status == FINE) {
        status = probe_next(memory, &probe, &entry, fault);
        if (status != FINE || entry == NO_ENTRY) {
            break;
        }
        if (word_load(memory, entry + SCOPE_FIELD) == scope) {
            status = visible(memory, entry, committed, seen, fault);
            if (status == FINE && *seen && load_insertion(memory, *seen) == insertion) {
                return FINE;
            }
        }
    }
    return status != FINE
               ? status
               : fail(fault, DAMAGED, "a list names record %llu, which is not in the index",
                      (unsigned long long)insertion);
}

/* Find the position of a record or ghost; *found tells whether there is one. */
static enum status
find_position(const struct lookup *lookup, const struct lead *lead, uint64_t committed, bool *found,
              struct position *position, struct fault *fault)
{
    uint64_t seen;
    enum status status = find_seen(lookup, lead, committed, &seen, fault);
    *found = status == FINE && seen;
    if (!*found) {
        return status;
    }
    struct shape shape = load_shape(&lookup->memory, seen);
    position->insertion = load_insertion(&lookup->memory, seen);
    return load_sort(&lookup->memory, seen, &shape, &position->sort, fault);
}

/* Find the records of a list beyond a position; their words take the place of the hashes. */
static enum status
find_listed(const struct lookup *lookup, uint64_t scope, const struct leaf_or_inner *root,
            struct walk *walk, uint64_t committed)
{
    enum status status = walk_node(walk, root);
    for (size_t i = 0; status == FINE && i < walk->found->count; i++) {
        struct element *element = &walk->found->items[i];
        status = find_inserted(lookup, element->word_hash, scope, element->position.insertion,
                               committed, &element->word_hash, walk->fault);
    }
    return status;
}

#endif
