/* A segment with its writer, and what should be in it: how both begin, and are compared.

   To be included before all headers of shmstore. */

#ifndef SHMSTORE_STORE_H
#define SHMSTORE_STORE_H

#include "pristine.h" /* the first, as it takes the place of stores */

#include "apply.h"

#include "world.h"

#define STATES 3
#define CROWDED 1 /* the state with many records */
#define TIGHT 2   /* the state in which memory may run out */
#define FILLER_BYTES (512u << 10)
#define MANY 60
#define FEW 4

struct store {
    struct pristine pristine;
    struct owner owner;
    struct world beginning, committed, open;
    bool tight;
    bool used; /* in this round */
};

static struct store stores[STATES];
static struct store *at; /* the one of the input at hand */
static unsigned char filler[FILLER_BYTES];
static char many_keys[MANY][4];

__attribute__((noreturn, format(printf, 1, 2))) static void
give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("BROKEN: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort();
}

static void
must(enum status status, const char *what, const struct fault *fault)
{
    if (status != FINE) {
        give_up("%s failed with status %d: %s", what, (int)status, fault->text);
    }
}

/* Beginning */

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
take_over(void)
{
    struct fault fault = {.text = ""};
    unsigned char *memory = at->pristine.memory;
    must(owner_open(&at->owner, memory, CAPACITY_BYTES_MIN, &SYSTEM), "open", &fault);
    must(owner_take_over(&at->owner, &fault), "takeover", &fault);
}

static struct span
text_span(const char *text)
{
    return (struct span){text, strlen(text)};
}

static enum status
fill(struct world *world, const char *table, const char *key, struct span value)
{
    struct fault fault = {.text = ""};
    struct target target;
    bool inserted;
    target_open(&at->owner, text_span(table), &target);
    struct lead lead =
        record_lead(&at->owner.lookup, target.scope, CLASS_STR, key, text_span(key).size);
    enum status status =
        owner_put(&at->owner, target.table, &lead, (struct content){.value = value}, NO_INDEXES,
                  NO_INDEXES, &inserted, &fault);
    if (status == FINE) {
        must(owner_commit(&at->owner, &fault), "commit", &fault);
        world_put(world, text_span(table), CLASS_STR, text_span(key), value,
                  owner_committed(&at->owner));
    }
    else {
        owner_abort(&at->owner);
    }
    return status;
}

/* Fill the segment until little room is left. */
static void
fill_up(struct world *world)
{
    static const char *const keys[] = {"f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"};
    size_t size = FILLER_BYTES;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        while (size > 256 && fill(world, "f", keys[i], (struct span){filler, size}) != FINE) {
            size = size / 4 * 3;
        }
    }
}

/* Make a segment with some records, to which store_reset() goes back. */
static void
store_begin(int state)
{
    const uint64_t random[2 + SECRET_WORDS] = {1, 2, 3, 4, 5, 6, 7};
    struct fault fault = {.text = ""};
    at = &stores[state];
    at->tight = state == TIGHT;
    struct world *world = &at->beginning;
    unsigned char *memory = at->pristine.memory;
    must(owner_lay_out(memory, CAPACITY_BYTES_MIN, random, &SYSTEM, &fault), "layout", &fault);
    owner_mark_formatted(memory, CAPACITY_BYTES_MIN);
    take_over();
    for (int i = 0; i < (state == CROWDED ? MANY : FEW); i++) {
        snprintf(many_keys[i], sizeof many_keys[i], "k%d", i);
        must(fill(world, "t", many_keys[i], text_span("\x01")), "fill", &fault);
    }
    must(fill(world, "u", "k1", text_span("\xC0")), "fill", &fault);
    if (at->tight) {
        fill_up(world);
    }
    world_begin_batch(world);
    owner_close(&at->owner);
    pristine_keep(&at->pristine);
}

/* How much of the memory nothing leads to, in granules. */
static uint64_t
unused(void)
{
    struct fault fault = {.text = ""};
    struct blocks blocks = {0};
    uint64_t sum = 0;
    must(staging_unused_blocks(&at->owner.staging, &blocks, &fault), "blocks", &fault);
    for (size_t i = 0; i < blocks.count; i++) {
        sum += blocks.items[i].size;
    }
    free(blocks.items);
    return sum;
}

static void
store_reset(struct store *store)
{
    at = store;
    pristine_restore(&at->pristine);
    world_copy(&at->committed, &at->beginning);
    world_copy(&at->open, &at->committed);
    take_over();
    at->used = false;
}

/* Comparing */

static void
check_record(const struct known *known)
{
    const struct memory *memory = owner_memory(&at->owner);
    struct fault fault = {.text = ""};
    struct target target;
    uint64_t word, offset;
    target_open(&at->owner, known->table, &target);
    struct lead lead = record_lead(&at->owner.lookup, target.scope, known->key_class,
                                   known->key.data, known->key.size);
    must(find_record(&at->owner.lookup, &lead, owner_committed(&at->owner), &word, &fault),
         "lookup", &fault);
    if ((word != 0) != known->there) {
        give_up("a record is %s", word ? "there" : "not there");
    }
    if (word == 0) {
        return;
    }
    struct shape shape = load_shape(memory, word);
    must(find_value(memory, word, &shape, &offset, &fault), "value", &fault);
    if (shape.value_size != known->value.size ||
        (known->value.data != filler &&
         !bytes_equal(memory, offset, known->value.data, known->value.size))) {
        give_up("a record has another value, of %u bytes", shape.value_size);
    }
    if (word_load(memory, word + SEQ_FIELD) != known->version) {
        give_up("a record has another version than %llu", (unsigned long long)known->version);
    }
}

static void
check_table(const struct known *known)
{
    struct fault fault = {.text = ""};
    struct elements found = {0};
    struct walk walk = {.memory = owner_memory(&at->owner),
                        .found = &found,
                        .fault = &fault,
                        .limit = WORLD_RECORDS_MAX + 1};
    struct target target;
    uint64_t count, expected = world_table(&at->committed, known->table);
    target_open(&at->owner, known->table, &target);
    must(owner_count(&at->owner, target.table, &count, &fault), "count", &fault);
    must(owner_walk(&at->owner, target.table, target.scope, &walk, &fault), "walk", &fault);
    if (count != expected || found.count != expected) {
        give_up("a table of %llu records counts %llu and lists %zu", (unsigned long long)expected,
                (unsigned long long)count, found.count);
    }
    free(found.items);
}

/* What is committed: the records that the input named, or all. The batch is empty. */
static void
check_records(bool all)
{
    for (size_t i = 0; i < at->committed.count; i++) {
        struct known *known = &at->committed.items[i];
        bool first = true;
        if (!known->named && !all) {
            continue;
        }
        known->named = false;
        check_record(known);
        for (size_t before = 0; before < i && first; before++) {
            first = !span_equal(at->committed.items[before].table, known->table);
        }
        if (first) {
            check_table(known);
        }
    }
}

#endif
