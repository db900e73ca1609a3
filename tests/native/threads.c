/* One writer and some readers as threads over one mapping, for ThreadSanitizer: it reports every
   access to the segment that is not atomic. `scripts/sanitize thread` builds and runs this.

   The segment is small, so that blocks are reused all the time. Every value tells of which record
   and batch it is, and a tally, written in each batch, what a reader of that batch must find. The
   writer also dies in the middle of batches, and takes over from itself. */

#include <pthread.h>

#include "owner.h"

#define READERS 3
#define RECORDS 64
#define VALUE_WORDS_MAX 200
#define VALUE_WORDS_MIN 2

struct table {
    unsigned char name[3]; /* a name of one letter, no namespace */
};

static const struct table RECORD_TABLE = {{1, 'r', 0}}, TALLY_TABLE = {{1, 't', 0}};
static const unsigned long BATCHES = 20000;

static _Alignas(CACHE_LINE_BYTES) unsigned char segment[CAPACITY_BYTES_MIN];
static atomic_bool finished;

/* What is wrong is told, and nothing goes on. */
__attribute__((noreturn, format(printf, 1, 2))) static void
give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void
must(enum status status, const char *what, const struct fault *fault)
{
    if (status != FINE) {
        give_up("%s failed with status %d: %s", what, (int)status, fault->text);
    }
}

/* A generator of each thread's own; the same numbers in every run. */
static uint32_t
draw(uint64_t *state, uint32_t limit)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % limit);
}

static struct span
span_of_table(const struct table *table)
{
    return (struct span){table->name, sizeof table->name};
}

static struct lead
lead_to(const struct lookup *lookup, const struct table *table, const uint32_t *record)
{
    uint64_t scope = list_hash(lookup, table->name, sizeof table->name);
    return record_lead(lookup, scope, CLASS_BYTES, record, sizeof *record);
}

/* Values */

static uint64_t
value_word(uint64_t first, size_t at)
{
    return at ? (first ^ at) * UINT64_C(0x9E3779B97F4A7C15) : first;
}

static uint64_t
value_first(uint32_t record, uint64_t batch)
{
    return (uint64_t)record << 48 | batch;
}

static uint64_t
check_value(const uint64_t *words, size_t size, uint32_t record)
{
    if (size < VALUE_WORDS_MIN * WORD_BYTES || words[0] >> 48 != record) {
        give_up("record %u has the value of %llu, %zu bytes", record,
                (unsigned long long)(words[0] >> 48), size);
    }
    for (size_t at = 1; at < size / WORD_BYTES; at++) {
        if (words[at] != value_word(words[0], at)) {
            give_up("record %u is torn at word %zu of %zu", record, at, size / WORD_BYTES);
        }
    }
    return words[0] & ((UINT64_C(1) << 48) - 1);
}

/* The writer */

struct writer {
    struct owner owner;
    uint64_t random;
    bool present[RECORDS];
};

static bool
extend(void *context, uint64_t offset, uint64_t size, char *why, size_t why_size)
{
    (void)context, (void)offset, (void)size, (void)why, (void)why_size;
    return true;
}

static void
keep(void *context, uint64_t offset, uint64_t size)
{
    (void)context, (void)offset, (void)size;
}

static const struct system SYSTEM = {NULL, extend, keep};

static void
take_over(struct writer *writer)
{
    struct fault fault = {0};
    must(owner_open(&writer->owner, segment, sizeof segment, &SYSTEM), "open", &fault);
    must(owner_take_over(&writer->owner, &fault), "takeover", &fault);
}

static void
put(struct writer *writer, const struct table *table, uint32_t record, const uint64_t *words,
    size_t count)
{
    struct fault fault = {0};
    struct lead lead = lead_to(&writer->owner.lookup, table, &record);
    struct content content = {{words, count * WORD_BYTES}, NULL};
    bool inserted;
    must(owner_put(&writer->owner, span_of_table(table), &lead, content, NO_INDEXES, NO_INDEXES,
                   &inserted, &fault),
         "put", &fault);
}

static void
put_record(struct writer *writer, uint32_t record)
{
    uint64_t words[VALUE_WORDS_MAX];
    size_t count = VALUE_WORDS_MIN + draw(&writer->random, VALUE_WORDS_MAX - VALUE_WORDS_MIN);
    for (size_t at = 0; at < count; at++) {
        words[at] = value_word(value_first(record, owner_committed(&writer->owner) + 1), at);
    }
    put(writer, &RECORD_TABLE, record, words, count);
    writer->present[record] = true;
}

static void
remove_record(struct writer *writer, uint32_t record)
{
    struct fault fault = {0};
    struct lead lead = lead_to(&writer->owner.lookup, &RECORD_TABLE, &record);
    bool removed, ghost = draw(&writer->random, 2);
    must(owner_remove(&writer->owner, span_of_table(&RECORD_TABLE), &lead, NO_INDEXES, ghost,
                      &removed, &fault),
         "remove", &fault);
    if (removed != writer->present[record]) {
        give_up("record %u is %s", record, removed ? "there" : "not there");
    }
    writer->present[record] = false;
}

static void
clear_table(struct writer *writer)
{
    struct fault fault = {0};
    uint64_t count;
    must(owner_clear(&writer->owner, span_of_table(&RECORD_TABLE), NO_INDEXES, &count, &fault),
         "clear", &fault);
    memset(writer->present, 0, sizeof writer->present);
}

static void
stage_batch(struct writer *writer)
{
    uint64_t tally[RECORDS + 1] = {owner_committed(&writer->owner) + 1};
    for (uint32_t changes = 1 + draw(&writer->random, 6); changes; changes--) {
        uint32_t record = draw(&writer->random, RECORDS);
        if (draw(&writer->random, 400) == 0) {
            clear_table(writer);
        }
        else if (draw(&writer->random, 3)) {
            put_record(writer, record);
        }
        else {
            remove_record(writer, record);
        }
    }
    for (uint32_t record = 0; record < RECORDS; record++) {
        tally[1 + record] = writer->present[record];
    }
    put(writer, &TALLY_TABLE, 0, tally, 1 + RECORDS);
}

static void
write_batch(struct writer *writer)
{
    struct fault fault = {0};
    bool more, before[RECORDS];
    memcpy(before, writer->present, sizeof before);
    stage_batch(writer);
    if (draw(&writer->random, 500) == 0) {
        memcpy(writer->present, before, sizeof before);
        owner_close(&writer->owner);
        take_over(writer);
        return;
    }
    must(owner_commit(&writer->owner, &fault), "commit", &fault);
    if (draw(&writer->random, 200) == 0) {
        must(heap_settle(&writer->owner.staging.heap, &more, &fault), "settle", &fault);
    }
}

static void *
write_all(void *argument)
{
    for (unsigned long batch = 0; batch < BATCHES; batch++) {
        write_batch(argument);
    }
    atomic_store(&finished, true);
    return NULL;
}

/* Readers */

struct reader {
    pthread_t thread;
    struct lookup lookup;
    struct window window;
    struct elements found;
    uint64_t random, accepted, overtaken;
    struct fault fault;
};

/* A value that was copied, and is looked at only when it was accepted. */
struct copied {
    uint32_t record;
    size_t size;
    uint64_t words[VALUE_WORDS_MAX];
};

static enum status
copy_value(struct reader *reader, uint64_t entry, struct copied *copied)
{
    const struct memory *memory = &reader->lookup.memory;
    struct shape shape = load_shape(memory, entry);
    uint64_t offset;
    enum status status = find_value(memory, entry, &shape, &offset, &reader->fault);
    if (status == FINE) {
        status = find_key(memory, entry, &shape, &(uint64_t){0}, &reader->fault);
    }
    if (status != FINE || shape.value_size > sizeof copied->words ||
        shape.key_size != sizeof copied->record) {
        return DAMAGED;
    }
    copied->size = shape.value_size;
    bytes_load(memory, entry * WORD_BYTES + ENTRY_HEADER_BYTES, &copied->record, shape.key_size);
    bytes_load(memory, offset, copied->words, copied->size);
    return FINE;
}

static enum status
copy_record(struct reader *reader, const struct table *table, uint32_t record,
            struct copied *copied)
{
    struct lead lead = lead_to(&reader->lookup, table, &record);
    uint64_t entry;
    copied->size = 0;
    enum status status =
        find_record(&reader->lookup, &lead, reader->window.committed, &entry, &reader->fault);
    return status == FINE && entry ? copy_value(reader, entry, copied) : status;
}

static bool
accepted(struct reader *reader, enum status status)
{
    if (status == OVERTAKEN || !read_accept(&reader->lookup.memory, reader->window.clock)) {
        reader->overtaken++;
        return false;
    }
    must(status, "a read that was not overtaken", &reader->fault);
    reader->accepted++;
    return true;
}

/* Find the page of all records, and copy them. */
static enum status
copy_page(struct reader *reader, struct copied *page, uint64_t *count)
{
    const struct table *table = &RECORD_TABLE;
    struct walk walk = {.memory = &reader->lookup.memory,
                        .found = &reader->found,
                        .fault = &reader->fault,
                        .newest_first = draw(&reader->random, 2),
                        .limit = RECORDS + 1};
    struct leaf_or_inner root;
    uint64_t scope = list_hash(&reader->lookup, table->name, sizeof table->name);
    enum status status = find_head(&reader->lookup, table->name, sizeof table->name,
                                   reader->window.committed, count, &root, &reader->fault);
    reader->found.count = 0;
    if (status == FINE && *count) {
        status = find_listed(&reader->lookup, scope, &root, &walk, reader->window.committed);
    }
    if (status == FINE && reader->found.count > RECORDS) {
        return fail(&reader->fault, DAMAGED, "a page has %zu records", reader->found.count);
    }
    for (size_t i = 0; status == FINE && i < reader->found.count; i++) {
        status = copy_value(reader, reader->found.items[i].word_hash, &page[i]);
    }
    return status;
}

static void
read_page(struct reader *reader)
{
    static _Thread_local struct copied page[RECORDS], tally;
    uint64_t count, expected = 0;
    reader->window = read_begin(&reader->lookup.memory);
    enum status status = copy_record(reader, &TALLY_TABLE, 0, &tally);
    if (status == FINE) {
        status = copy_page(reader, page, &count);
    }
    if (!accepted(reader, status)) {
        return;
    }
    if (tally.words[0] != reader->window.committed) {
        give_up("batch %llu finds the tally of %llu", (unsigned long long)reader->window.committed,
                (unsigned long long)tally.words[0]);
    }
    for (uint32_t record = 0; record < RECORDS; record++) {
        expected += tally.words[1 + record];
    }
    if (count != expected || reader->found.count != expected) {
        give_up("of %llu records the head counts %llu, and the list %zu",
                (unsigned long long)expected, (unsigned long long)count, reader->found.count);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t batch = check_value(page[i].words, page[i].size, page[i].record);
        if (batch > reader->window.committed || !tally.words[1 + page[i].record]) {
            give_up("batch %llu has record %u of batch %llu",
                    (unsigned long long)reader->window.committed, page[i].record,
                    (unsigned long long)batch);
        }
    }
}

static void
read_record(struct reader *reader)
{
    struct copied tally, copied;
    uint32_t record = draw(&reader->random, RECORDS);
    reader->window = read_begin(&reader->lookup.memory);
    enum status status = copy_record(reader, &RECORD_TABLE, record, &copied);
    if (status == FINE) {
        status = copy_record(reader, &TALLY_TABLE, 0, &tally);
    }
    if (!accepted(reader, status)) {
        return;
    }
    if (tally.words[0] != reader->window.committed ||
        (copied.size > 0) != tally.words[1 + record]) {
        give_up("batch %llu finds record %u and the tally of %llu at odds",
                (unsigned long long)reader->window.committed, record,
                (unsigned long long)tally.words[0]);
    }
    if (copied.size) {
        check_value(copied.words, copied.size, record);
    }
}

static void *
read_all(void *argument)
{
    struct reader *reader = argument;
    lookup_open(&reader->lookup, segment, sizeof segment);
    while (!atomic_load(&finished)) {
        if (draw(&reader->random, 8)) {
            read_record(reader);
        }
        else {
            read_page(reader);
        }
    }
    free(reader->found.items);
    return NULL;
}

int
main(void)
{
    static struct writer writer = {.random = 1};
    static struct reader readers[READERS];
    const uint64_t random[2 + SECRET_WORDS] = {1, 2, 3, 4, 5, 6, 7};
    struct fault fault = {0};
    pthread_t thread;
    must(owner_lay_out(segment, sizeof segment, random, &SYSTEM, &fault), "layout", &fault);
    owner_mark_formatted(segment, sizeof segment);
    take_over(&writer);
    while (owner_committed(&writer.owner) == 0) {
        write_batch(&writer); /* readers expect a tally */
    }
    for (int i = 0; i < READERS; i++) {
        readers[i].random = (uint64_t)i + 2;
        pthread_create(&readers[i].thread, NULL, read_all, &readers[i]);
    }
    pthread_create(&thread, NULL, write_all, &writer);
    pthread_join(thread, NULL);
    uint64_t horizon = word_load(owner_memory(&writer.owner), HORIZON_WORD);
    printf("%llu batches, horizon %llu\n", (unsigned long long)owner_committed(&writer.owner),
           (unsigned long long)horizon);
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        printf("reader %d: %llu reads accepted, %llu overtaken\n", i,
               (unsigned long long)readers[i].accepted, (unsigned long long)readers[i].overtaken);
        if (readers[i].accepted == 0) {
            give_up("nothing this reader read was accepted");
        }
    }
    owner_close(&writer.owner);
    return 0;
}
