/* Reads of the damaged segment, as readers make them. */

#ifndef SHMSTORE_READING_H
#define SHMSTORE_READING_H

#include "damage.h" /* the first, as it takes the place of figures */

#include "packed.h"

#define COPIED_MAX 8 /* values of a page that are looked into */

/* A snapshot, what was seen in it, and the first thing that went wrong. */
struct reader {
    struct lookup lookup;
    struct window window;
    uint64_t digest;
    enum status status;
    struct fault fault;
};

static void
reader_begin(struct reader *reader, unsigned char *bytes)
{
    lookup_open(&reader->lookup, bytes, SMALL_BYTES);
    reader->window = read_begin(&reader->lookup.memory);
    reader->digest = 0;
    reader->status = FINE;
}

static bool
reader_took(struct reader *reader, enum status status)
{
    if (status != FINE && reader->status == FINE) {
        reader->status = status;
    }
    return status == FINE;
}

static void
reader_saw(struct reader *reader, const void *bytes, size_t size)
{
    static const uint64_t secret[4] = {3, 5, 7, 11};
    reader->digest = wyhash(bytes, size, reader->digest, secret);
}

/* Copy what is in the memory to the end of a buffer, so that nobody reads beyond it unnoticed. */
static const unsigned char *
reader_copied(struct reader *reader, uint64_t offset, size_t size)
{
    static unsigned char *copies;
    if (copies == NULL) {
        copies = malloc(SMALL_BYTES);
    }
    unsigned char *copy = copies + SMALL_BYTES - size;
    bytes_load(&reader->lookup.memory, offset, copy, size);
    reader_saw(reader, copy, size);
    return copy;
}

/* Look at all of a record, fields of its value included. */
static void
read_entry(struct reader *reader, uint64_t entry)
{
    const struct memory *memory = &reader->lookup.memory;
    struct shape shape = load_shape(memory, entry);
    struct {
        uint64_t version, insertion, sort;
    } seen = {word_load(memory, entry + SEQ_FIELD), load_insertion(memory, entry), 0};
    uint64_t key, value;
    if (!reader_took(reader, find_key(memory, entry, &shape, &key, &reader->fault)) ||
        !reader_took(reader, load_sort(memory, entry, &shape, &seen.sort, &reader->fault)) ||
        !reader_took(reader, find_value(memory, entry, &shape, &value, &reader->fault))) {
        return;
    }
    reader_saw(reader, &seen, sizeof seen);
    reader_copied(reader, key, shape.key_size < SMALL_BYTES ? shape.key_size : 0);
    const unsigned char *packed = reader_copied(reader, value, shape.value_size), *found = NULL;
    const unsigned char *end = packed + shape.value_size;
    if (packed_skip(packed, end) == end && packed_kind(*packed) == PACKED_MAP) {
        enum packed_finding finding = packed_find(packed, end, "b", 1, &found);
        if (finding == FIELD_FOUND && packed_skip(found, end) == NULL) {
            broken("a field that was found has no end");
        }
    }
}

static void
read_key(struct reader *reader, bool sorted, uint32_t number)
{
    struct text key = key_text(sorted ? 's' : 'k', number);
    struct lead lead = lead_to(&reader->lookup, sorted ? SORTED : PLAIN, &key);
    uint64_t entry;
    if (reader_took(reader, find_record(&reader->lookup, &lead, reader->window.committed, &entry,
                                        &reader->fault)) &&
        entry) {
        read_entry(reader, entry);
    }
}

/* A list of a table, or of one value of an index of it. */
struct listed {
    unsigned char name[16];
    size_t size;
    struct span table;
};

static struct listed
listed_of(struct span table, const struct span *index)
{
    struct listed listed = {.size = table.size, .table = table};
    memcpy(listed.name, table.data, table.size);
    if (index) {
        memcpy(listed.name + listed.size, index->data, index->size);
        listed.size += index->size;
    }
    return listed;
}

static void
read_page(struct reader *reader, const struct listed *listed, struct walk walk)
{
    struct elements found = {0};
    struct leaf_or_inner root;
    uint64_t count, scope;
    walk.memory = &reader->lookup.memory;
    walk.found = &found;
    walk.fault = &reader->fault;
    scope = list_hash(&reader->lookup, listed->table.data, listed->table.size);
    if (!reader_took(reader, find_head(&reader->lookup, listed->name, listed->size,
                                       reader->window.committed, &count, &root, &reader->fault))) {
        return;
    }
    reader_saw(reader, &count, sizeof count);
    if (reader_took(reader,
                    find_listed(&reader->lookup, scope, &root, &walk, reader->window.committed))) {
        if (walk.limit == SIZE_MAX && found.count != count) {
            reader_took(reader, fail(&reader->fault, DAMAGED, "a list has not its count"));
        }
        for (size_t i = 0; i < found.count; i++) {
            reader_saw(reader, &found.items[i].position, sizeof found.items[i].position);
            if (i < COPIED_MAX) {
                read_entry(reader, found.items[i].word_hash);
            }
        }
    }
    free(found.items);
}

/* Begin beyond the record of a key, as a cursor does. */
static void
read_from(struct reader *reader, uint32_t number, bool newest_first)
{
    struct text key = key_text('s', number);
    struct lead lead = lead_to(&reader->lookup, SORTED, &key);
    struct listed listed = listed_of(SORTED, NULL);
    struct walk walk = {.limit = 4, .newest_first = newest_first};
    if (reader_took(reader, find_position(&reader->lookup, &lead, reader->window.committed,
                                          &walk.has_beyond, &walk.beyond, &reader->fault))) {
        read_page(reader, &listed, walk);
    }
}

/* Of a table, what depends on nothing but records that the check knows all of. */
static void
read_table(struct reader *reader, bool sorted)
{
    struct listed listed = listed_of(sorted ? SORTED : PLAIN, NULL);
    for (uint32_t number = 0; number < (sorted ? SORTED_MAX : RECORDS_MAX); number += 3) {
        read_key(reader, sorted, number);
    }
    read_page(reader, &listed, (struct walk){.limit = SIZE_MAX, .newest_first = sorted});
}

/* Cursors and indexes, chosen by chance. */
static void
read_some(struct reader *reader, uint64_t random, unsigned steps)
{
    struct listed listed = listed_of(SORTED, &INDEXES[random % 2]);
    for (unsigned i = 0; i < steps; i++) {
        struct walk walk = {.limit = draw(&random, 9),
                            .newest_first = draw(&random, 2),
                            .has_beyond = draw(&random, 3),
                            .beyond = {SORT_BIAS + draw(&random, 6), draw(&random, 60)}};
        switch (draw(&random, 3)) {
        case 0:
            read_from(reader, draw(&random, SORTED_MAX + 1), draw(&random, 2));
            break;
        case 1:
            read_page(reader, &listed, walk);
            break;
        default:
            read_key(reader, draw(&random, 2), draw(&random, RECORDS_MAX + 2));
        }
    }
}

/* Let the check look at the segment as it is; return what it says. */
static const struct problems *
look(const struct blocks *unused)
{
    static struct problems problems;
    struct lookup lookup;
    lookup_open(&lookup, segment, SMALL_BYTES);
    must(check_segment(&lookup, &tables, unused, &problems), "check", NULL);
    return &problems;
}

/* What readers see of a table of a template, and of one that is empty. */
static uint64_t
digest_of(const struct template *template, bool sorted, bool is_empty)
{
    static _Alignas(CACHE_LINE_BYTES) unsigned char copy[SMALL_BYTES];
    static uint64_t digests[TEMPLATES_MAX][2][2];
    uint64_t *digest = &digests[template - templates][sorted][is_empty];
    if (*digest == 0) {
        struct reader reader;
        const struct words *words = &template->parts[IN_INDEX];
        memcpy(copy, template->bytes, SMALL_BYTES);
        for (size_t i = 0; is_empty && i < words->count; i++) {
            memset(copy + words->items[i] * WORD_BYTES, 0, WORD_BYTES);
        }
        reader_begin(&reader, copy);
        read_table(&reader, sorted);
        must(reader.status, "reading a template", &reader.fault);
        *digest = reader.digest;
    }
    return *digest;
}

/* What came of reading the segment. */
struct outcome {
    enum status status;
    bool differs; /* a table is neither as it was nor empty */
    struct fault fault;
};

static void
take_outcome(const struct reader *reader, struct outcome *outcome)
{
    if (reader->status != FINE && outcome->status == FINE) {
        outcome->status = reader->status;
        memcpy(outcome->fault.text, reader->fault.text, sizeof outcome->fault.text);
    }
}

/* Read all tables, and what the input says. A table whose records and list were lost together, by
   one word of the directory perhaps, is empty to all who look; checksums that were made to fit
   tell of nothing. */
static void
read_segment(const struct input *input, struct outcome *outcome)
{
    static struct reader reader;
    bool known = input->template->is_sound && checksums_are_old(input->template);
    outcome->status = FINE;
    outcome->differs = false;
    for (int sorted = 0; sorted < 2; sorted++) {
        reader_begin(&reader, segment);
        read_table(&reader, sorted);
        take_outcome(&reader, outcome);
        outcome->differs |= known && reader.digest != digest_of(input->template, sorted, false) &&
                            reader.digest != digest_of(input->template, sorted, true);
    }
    reader_begin(&reader, segment);
    read_some(&reader, input->random, input->steps);
    take_outcome(&reader, outcome);
}

#endif
