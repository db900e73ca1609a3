/* Sound segments, and some that a writer left half changed, all made by the core at the start. They
   lie here until a copy of one is damaged. */

#ifndef SHMSTORE_TEMPLATES_H
#define SHMSTORE_TEMPLATES_H

#include "small.h" /* the first, as it takes the place of figures */

#include "check.h"
#include "owner.h"

#define TEMPLATES_MAX 20
#define RECORDS_MAX 34
#define SORTED_MAX 14
#define ENTRIES_MAX 160
#define BLOCKS_MAX 256

/* Where a word is that may be damaged. */
enum part { IN_HEADER, IN_DIRECTORY, IN_INDEX, IN_ENTRY, IN_BODY, IN_NODE, ANYWHERE, PARTS };

struct words {
    size_t count;
    uint16_t items[SMALL_WORDS];
};

struct template {
    _Alignas(CACHE_LINE_BYTES) unsigned char bytes[SMALL_BYTES];
    bool is_sound;   /* not half changed */
    uint64_t digest; /* of what its readers see */
    struct words parts[PARTS];
    uint16_t entries[ENTRIES_MAX]; /* granules */
    size_t entry_count;
    uint16_t blocks[BLOCKS_MAX]; /* granules at which something begins */
    size_t block_count;
};

static struct template templates[TEMPLATES_MAX];
static size_t template_count;
static unsigned char *segment; /* the copy at hand, with nothing allowed on either side */
static struct crc_tables tables;

__attribute__((noreturn, format(printf, 1, 2))) static void
broken(const char *format, ...)
{
    va_list arguments;
    fputs("BROKEN: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort();
}

static void
must(enum status status, const char *what, const struct fault *fault)
{
    if (status != FINE) {
        broken("%s failed with status %d: %s", what, (int)status, fault->text);
    }
}

/* A generator of numbers; the same ones whenever it begins alike. */
static uint32_t
draw(uint64_t *state, uint32_t limit)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % limit);
}

/* The tables, and their records */

static const struct span PLAIN = {"\1t\0", 3}, SORTED = {"\1s\1n", 4};
static const struct span INDEXES[] = {{"\x92"
                                       "f1",
                                       3},
                                      {"\x92"
                                       "f2",
                                       3}};

static bool
extend(void *context, uint64_t offset, uint64_t size, char *why, size_t why_size)
{
    (void)context, (void)offset, (void)size, (void)why, (void)why_size;
    return true;
}

static void
release(void *context, uint64_t offset, uint64_t size)
{
    (void)context;
    memset(segment + offset, 0, size);
}

static const struct system SYSTEM = {NULL, extend, release};

struct text {
    char bytes[24];
    size_t size;
};

static struct text
key_text(char letter, uint32_t number)
{
    struct text text;
    text.size = (size_t)snprintf(text.bytes, sizeof text.bytes, "%c%u%s", letter, number,
                                 number % 5 ? "" : "-longer-key");
    return text;
}

static struct lead
lead_to(const struct lookup *lookup, struct span table, const struct text *key)
{
    uint64_t scope = list_hash(lookup, table.data, table.size);
    return record_lead(lookup, scope, key->size % 2 ? CLASS_STR : CLASS_BYTES, key->bytes,
                       key->size);
}

/* Write a packed map of about so many bytes; return how many. */
static size_t
pack_value(unsigned char *out, size_t size, uint32_t number)
{
    const unsigned char start[] = {0x82, 0xA1, 'a', (unsigned char)(number & 0x7F),
                                   0xA1, 'b',  0xDA};
    memcpy(out, start, sizeof start);
    out[7] = (unsigned char)(size >> 8);
    out[8] = (unsigned char)size;
    memset(out + 9, (int)('a' + number % 26), size);
    return 9 + size;
}

static struct indexes
indexes_of(uint32_t number)
{
    return number % 3 ? (struct indexes){&INDEXES[number % 2], 1} : NO_INDEXES;
}

static enum status
put_record(struct owner *owner, bool sorted, uint32_t number, size_t size, struct fault *fault)
{
    unsigned char value[1024];
    bool inserted;
    int64_t created = number % 5;
    struct text key = key_text(sorted ? 's' : 'k', number);
    struct span table = sorted ? SORTED : PLAIN;
    struct lead lead = lead_to(&owner->lookup, table, &key);
    struct indexes indexes = sorted ? indexes_of(number) : NO_INDEXES;
    struct content content = {{value, pack_value(value, size, number)}, sorted ? &created : NULL};
    struct entry old;
    bool found = false;
    enum status status = owner_find(owner, &lead, &old, &found, fault);
    if (status != FINE) {
        return status;
    }
    return owner_put(owner, table, &lead, content, found ? indexes : NO_INDEXES, indexes, &inserted,
                     fault);
}

static enum status
remove_record(struct owner *owner, bool sorted, uint32_t number, struct fault *fault)
{
    bool removed;
    struct text key = key_text(sorted ? 's' : 'k', number);
    struct span table = sorted ? SORTED : PLAIN;
    struct lead lead = lead_to(&owner->lookup, table, &key);
    return owner_remove(owner, table, &lead, sorted ? indexes_of(number) : NO_INDEXES, sorted,
                        &removed, fault);
}

static enum status
pin_record(struct owner *owner, bool sorted, uint32_t number, struct fault *fault)
{
    struct text key = key_text(sorted ? 's' : 'k', number);
    struct lead lead = lead_to(&owner->lookup, sorted ? SORTED : PLAIN, &key);
    struct entry entry;
    bool found;
    return owner_pin(owner, (struct span){"one", 3}, &lead, &entry, &found, fault);
}

/* Where things are */

static void
words_add(struct words *words, uint64_t word)
{
    if (word < SMALL_WORDS && words->count < SMALL_WORDS) {
        words->items[words->count++] = (uint16_t)word;
    }
}

static void
mark_block(struct template *template, uint64_t granule)
{
    if (template->block_count < BLOCKS_MAX) {
        template->blocks[template->block_count++] = (uint16_t)granule;
    }
}

static void
mark_nodes(struct template *template, const struct memory *memory, const struct leaf_or_inner *node)
{
    struct fault fault;
    for (uint32_t at = 0; node->level && at < node->count; at++) {
        struct leaf_or_inner below;
        uint64_t child = node_child(node, at), word = child * WORDS_PER_GRANULE;
        must(node_load(memory, child, node->level - 1, node->width, &below, &fault), "a node",
             &fault);
        mark_block(template, child);
        for (uint64_t i = 0; i < 1 + (uint64_t)below.count * below.width; i++) {
            words_add(&template->parts[IN_NODE], word + i);
        }
        mark_nodes(template, memory, &below);
    }
}

static void
mark_entry(struct template *template, const struct memory *memory, uint64_t granule)
{
    for (size_t i = 0; i < template->entry_count; i++) {
        if (template->entries[i] == granule) {
            return; /* pinned twice, or the index leads to it, too */
        }
    }
    struct fault fault;
    struct entry entry;
    uint64_t word = granule * WORDS_PER_GRANULE, count;
    must(load_entry(memory, granule, &entry, &fault), "an entry", &fault);
    if (template->entry_count < ENTRIES_MAX) {
        template->entries[template->entry_count++] = (uint16_t)granule;
    }
    mark_block(template, granule);
    uint64_t end = shape_granules(&entry.shape) * WORDS_PER_GRANULE;
    for (uint64_t i = 0; i < end; i++) {
        words_add(&template->parts[i < ENTRY_HEADER_WORDS ? IN_ENTRY : IN_BODY], word + i);
    }
    if (shape_class(&entry.shape) == CLASS_HEAD && !(entry.prev & DEAD)) {
        struct leaf_or_inner root;
        must(load_head(memory, word, &count, &root, &fault), "a head", &fault);
        mark_nodes(template, memory, &root);
    }
    if (shape_class(&entry.shape) == CLASS_PIN && !(entry.prev & DEAD)) {
        struct pin_key key;
        must(load_pin(memory, word, &key, &granule, &fault), "a pin", &fault);
        mark_entry(template, memory, granule);
    }
}

static void
mark_parts(struct template *template)
{
    struct memory memory = {(_Atomic uint64_t *)(void *)template->bytes, SMALL_WORDS};
    struct blocks blocks = {0};
    struct fault fault;
    uint64_t start, count;
    for (uint64_t word = SECRET_WORD; word <= EXTENT_END_WORD; word++) {
        words_add(&template->parts[IN_HEADER], word < FREE_CLOCK_WORD ? word | 7 : word);
    }
    must(directory_find(&memory, &start, &count, &fault), "a directory", &fault);
    must(index_blocks(&memory, &blocks, &fault), "an index", &fault);
    for (uint64_t i = 0; i < count; i++) {
        words_add(&template->parts[IN_DIRECTORY], start + i);
    }
    for (size_t i = 0; i < blocks.count; i++) {
        mark_block(template, blocks.items[i].start);
        for (uint64_t slot = 0; i && slot < SEGMENT_SLOTS; slot++) {
            uint64_t at = blocks.items[i].start * WORDS_PER_GRANULE + slot;
            words_add(&template->parts[IN_INDEX], at);
            if (word_load(&memory, at) > VACATED) {
                mark_entry(template, &memory, word_load(&memory, at) & GRANULE_MASK);
            }
        }
    }
    blocks_close(&blocks);
    for (uint64_t word = SECRET_WORD; word < SMALL_WORDS; word++) {
        words_add(&template->parts[ANYWHERE], word);
    }
}

/* Making them */

/* Keep the segment as it is now. */
static void
keep_template(bool is_sound)
{
    if (template_count < TEMPLATES_MAX) {
        struct template *template = &templates[template_count++];
        memcpy(template->bytes, segment, SMALL_BYTES);
        template->is_sound = is_sound;
        mark_parts(template);
    }
}

static unsigned torn_seen, torn_between;

/* Keep some of the states that a writer leaves torn if it dies before a store. */
static void
keep_torn(void)
{
    static struct problems problems;
    struct lookup lookup;
    lookup_open(&lookup, segment, SMALL_BYTES);
    must(check_segment(&lookup, &tables, NULL, &problems), "check", NULL);
    if (problems.count && torn_seen++ % torn_between == 0) {
        keep_template(false);
    }
}

static void
watch_stores(unsigned between)
{
    torn_seen = 0;
    torn_between = between;
    before_store = between ? keep_torn : NULL;
}

static void
commit(struct owner *owner)
{
    struct fault fault;
    must(owner_commit(owner, &fault), "commit", &fault);
}

static void
change_records(struct owner *owner, uint32_t from, uint32_t to)
{
    struct fault fault;
    for (uint32_t number = from; number < to; number++) {
        must(put_record(owner, false, number, number % 7 * 8, &fault), "put", &fault);
        if (number < SORTED_MAX) {
            must(put_record(owner, true, number, number == 3 ? 260 : 5, &fault), "put", &fault);
        }
    }
}

static void
remove_records(struct owner *owner, uint32_t from, uint32_t to)
{
    struct fault fault;
    for (uint32_t number = from; number < to; number++) {
        must(remove_record(owner, number % 2, number, &fault), "remove", &fault);
    }
}

/* Pin some of them, those that are pinned already by one more; take other pins away. */
static void
pin_records(struct owner *owner, uint32_t from, uint32_t to)
{
    struct fault fault;
    const struct blockmap_item *pin;
    bool changed;
    for (size_t at = 0; (pin = blockmap_next(&owner->staging.heap.pinned.entries, &at));) {
        must(at % 2 ? pins_share(&owner->staging, (struct span){"other", 5}, pin->value, &changed,
                                 &fault)
                    : pins_remove(&owner->staging, (struct span){"one", 3}, pin->value, &changed,
                                  &fault),
             "a change of a pin", &fault);
    }
    for (uint32_t number = from; number < to; number++) {
        must(pin_record(owner, number % 2, number, &fault), "pin", &fault);
    }
}

static void
make_templates(void)
{
    static const uint64_t random[2 + SECRET_WORDS] = {1,
                                                      2,
                                                      UINT64_C(0xa0761d6478bd642f),
                                                      UINT64_C(0xe7037ed1a0b428db),
                                                      UINT64_C(0x8ebc6af09c88c6e3),
                                                      UINT64_C(0x589965cc75374cc3),
                                                      UINT64_C(0x1d8e4e27c47d124f)};
    static struct owner owner;
    struct fault fault;
    crc_prepare(&tables);
    segment = aligned_alloc(CACHE_LINE_BYTES, SMALL_BYTES);
    memset(segment, 0, SMALL_BYTES);
    must(owner_lay_out(segment, SMALL_BYTES, random, &SYSTEM, &fault), "laying out", &fault);
    owner_mark_formatted(segment, SMALL_BYTES);
    must(owner_open(&owner, segment, SMALL_BYTES, &SYSTEM), "open", &fault);
    must(owner_take_over(&owner, &fault), "takeover", &fault);
    change_records(&owner, 0, 1);
    commit(&owner);
    keep_template(true);
    change_records(&owner, 1, 8);
    commit(&owner);
    keep_template(true);
    watch_stores(1); /* while the index is split */
    change_records(&owner, 8, RECORDS_MAX);
    watch_stores(0);
    commit(&owner);
    remove_records(&owner, 2, 6);
    change_records(&owner, 0, 2);
    commit(&owner);
    keep_template(true);
    remove_records(&owner, 7, 14);
    change_records(&owner, 10, 20);
    watch_stores(5); /* while the batch is published */
    commit(&owner);
    watch_stores(0);
    keep_template(true);
    pin_records(&owner, 0, 6);
    commit(&owner);
    keep_template(true);
    remove_records(&owner, 0, 3);
    change_records(&owner, 3, 5);
    commit(&owner);
    keep_template(true);
    pin_records(&owner, 15, 19);
    change_records(&owner, 15, 17);
    remove_records(&owner, 17, 20);
    watch_stores(8); /* while a batch is published that pins, unpins and replaces */
    commit(&owner);
    watch_stores(0);
    keep_template(true);
    owner_close(&owner);
}

#endif
