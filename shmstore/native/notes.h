/* What a check notes on its way, and how it words what is wrong. */

#ifndef SHMSTORE_NOTES_H
#define SHMSTORE_NOTES_H

#include "recovery.h"

#define PROBLEMS_MAX 100
#define PROBLEM_BYTES 768
#define SHOWN_BYTES_MAX 40
#define SHOWN_SIZE (4 * SHOWN_BYTES_MAX + 8)
#define LIST_TEXT_SIZE (3 * SHOWN_SIZE + 32)

struct problems {
    size_t count;
    char texts[PROBLEMS_MAX][PROBLEM_BYTES];
};

/* Whose a block is; any other number is the granule of a list's head, and the block a node. */
enum { BLOCK_OF_INDEX, BLOCK_OF_ENTRY, BLOCK_UNUSED, BLOCK_HEADER };

struct owned_block {
    uint64_t start;
    uint64_t size;
    uint64_t owner;
};

/* A record that is in the index; ghosts are none. */
struct indexed {
    uint64_t scope;
    uint64_t insertion;
    uint64_t granule;
    uint64_t word_hash;
    bool is_listed;
};

/* The entries of one index segment: of its words and the hash of each one's key. */
struct keys {
    struct slots slots; /* by hash, which several may share */
    uint32_t count;
    struct {
        uint64_t word_hash;
        uint64_t granule;
    } items[SEGMENT_SLOTS];
};

struct check {
    const struct lookup *lookup;
    const struct memory *memory;
    const struct crc_tables *tables;
    struct problems *problems;
    struct fault *fault;
    uint64_t limit; /* the byte at which the memory ends */
    uint64_t left;  /* granules that no block has taken */
    struct owned_block *blocks;
    size_t block_count, block_room;
    struct indexed *records;
    size_t record_count, record_room;
    struct slots by_place; /* records by scope and insertion number */
    uint64_t *heads;       /* granules */
    size_t head_count, head_room;
    uint64_t *pins; /* granules */
    size_t pin_count, pin_room;
    struct blockmap pinned; /* pinned blocks, and whether they were met */
    struct blockmap nodes;  /* all that were met */
    struct keys keys;
    unsigned char *key; /* of the entry or list at hand */
};

/* Words */

__attribute__((cold, noinline, format(printf, 3, 0))) static void
problem_add(struct problems *problems, const char *subject, const char *format, va_list arguments)
{
    if (problems->count < PROBLEMS_MAX) {
        char *text = problems->texts[problems->count++];
        int size = snprintf(text, PROBLEM_BYTES, "%s", subject);
        vsnprintf(text + size, PROBLEM_BYTES - (size_t)size, format, arguments);
    }
}

__attribute__((cold, format(printf, 2, 3))) static void
check_say(struct check *check, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    problem_add(check->problems, "", format, arguments);
    va_end(arguments);
}

/* Say something of the entry in a block. */
__attribute__((cold, format(printf, 3, 4))) static void
say_of_entry(struct check *check, uint64_t granule, const char *format, ...)
{
    va_list arguments;
    char subject[64];
    snprintf(subject, sizeof subject, "the entry at 0x%llx ",
             (unsigned long long)granule * GRANULE_BYTES);
    va_start(arguments, format);
    problem_add(check->problems, subject, format, arguments);
    va_end(arguments);
}

/* Write the beginning of a name, quoted, in letters that both engines have; return its end. */
static char *
show_name(char *out, const unsigned char *name, size_t size)
{
    *out++ = '\'';
    for (size_t i = 0; i < size && i < SHOWN_BYTES_MAX; i++) {
        bool plain = name[i] >= 32 && name[i] < 127 && name[i] != '\'' && name[i] != '\\';
        out += sprintf(out, plain ? "%c" : "\\x%02x", name[i]);
    }
    return out + sprintf(out, "'%s", size > SHOWN_BYTES_MAX ? "..." : "");
}

/* The name of a list: its table and namespace are ``whole`` bytes of it. */
struct list_name {
    const unsigned char *bytes;
    size_t size;
    size_t table;
    size_t namespace;
    size_t whole;
};

/* Read the name of the list with this head; it stays until the next key is read. */
static enum status
list_name_load(struct check *check, uint64_t head, struct list_name *name)
{
    struct shape shape = load_shape(check->memory, head * WORDS_PER_GRANULE);
    const unsigned char *key = check->key;
    size_t size = shape.key_size, end, last;
    bytes_load(check->memory, head * GRANULE_BYTES + ENTRY_HEADER_BYTES, check->key, size);
    end = size ? 1 + (size_t)key[0] : 1;
    last = end < size ? end + 1 + key[end] : end + 1;
    if (last > size) {
        return fail(check->fault, DAMAGED, "a list has an unreadable name of %zu bytes", size);
    }
    *name = (struct list_name){key, size, end - 1, last - end - 1, last};
    return FINE;
}

/* Write what to call the list with this head, whose name has been read before. */
static const char *
list_text(struct check *check, uint64_t head, char text[LIST_TEXT_SIZE])
{
    struct list_name name;
    text[0] = '\0';
    if (list_name_load(check, head, &name) == FINE) {
        char *out = text + sprintf(text, "the list of ");
        out = show_name(out, name.bytes + 1, name.table);
        out += sprintf(out, " in ");
        out = show_name(out, name.bytes + name.table + 2, name.namespace);
        if (name.size > name.whole) {
            out += sprintf(out, " at ");
            show_name(out, name.bytes + name.whole, name.size - name.whole);
        }
    }
    return text;
}

/* Say something of a list. */
__attribute__((cold, format(printf, 3, 4))) static void
say_of_list(struct check *check, uint64_t head, const char *format, ...)
{
    va_list arguments;
    char subject[LIST_TEXT_SIZE];
    list_text(check, head, subject);
    strcat(subject, " ");
    va_start(arguments, format);
    problem_add(check->problems, subject, format, arguments);
    va_end(arguments);
}

/* Notes */

/* Return the items with room for one more, or NULL. */
static void *
with_room(void *items, size_t count, size_t *room, size_t size)
{
    if (count < *room) {
        return items;
    }
    size_t wanted = *room ? *room * 2 : 64;
    void *grown = realloc(items, wanted * size);
    if (grown != NULL) {
        *room = wanted;
    }
    return grown;
}

/* Note a block. All together are no larger than the memory, so the walk ends in time. */
static enum status
check_block(struct check *check, uint64_t start, uint64_t size, uint64_t owner)
{
    if (size > check->left) {
        return fail(check->fault, DAMAGED, "the blocks are larger together than the memory");
    }
    check->left -= size;
    struct owned_block *blocks =
        with_room(check->blocks, check->block_count, &check->block_room, sizeof *check->blocks);
    if (blocks == NULL) {
        return NO_MEMORY;
    }
    check->blocks = blocks;
    blocks[check->block_count++] = (struct owned_block){start, size, owner};
    return FINE;
}

static enum status
check_head(struct check *check, uint64_t granule)
{
    uint64_t *heads =
        with_room(check->heads, check->head_count, &check->head_room, sizeof *check->heads);
    if (heads == NULL) {
        return NO_MEMORY;
    }
    check->heads = heads;
    heads[check->head_count++] = granule;
    return FINE;
}

static enum status
check_pin(struct check *check, uint64_t granule)
{
    uint64_t *pins =
        with_room(check->pins, check->pin_count, &check->pin_room, sizeof *check->pins);
    if (pins == NULL) {
        return NO_MEMORY;
    }
    check->pins = pins;
    pins[check->pin_count++] = granule;
    return FINE;
}

static struct indexed *
find_indexed(const struct check *check, uint64_t scope, uint64_t insertion)
{
    const struct slots *slots = &check->by_place;
    if (check->record_count == 0) {
        return NULL;
    }
    uint64_t at = slots_home(slots, scope ^ insertion);
    for (uint32_t number; (number = slots->numbers[at]); at = (at + 1) & slots->mask) {
        struct indexed *record = &check->records[number - 1];
        if (record->scope == scope && record->insertion == insertion) {
            return record;
        }
    }
    return NULL;
}

static enum status
indexed_grow(struct check *check)
{
    size_t room = check->record_room;
    struct indexed *records =
        with_room(check->records, check->record_count, &room, sizeof *check->records);
    struct slots slots;
    if (records == NULL) {
        return NO_MEMORY;
    }
    check->records = records;
    if (room > SLOTS_ITEMS_MAX || slots_open(&slots, room) != FINE) {
        return NO_MEMORY;
    }
    for (size_t i = 0; i < check->record_count; i++) {
        slots_add(&slots, records[i].scope ^ records[i].insertion, (uint32_t)i + 1);
    }
    slots_close(&check->by_place);
    check->by_place = slots;
    check->record_room = room;
    return FINE;
}

static void
check_insertion(struct check *check, const struct entry *entry)
{
    if (entry->insertion == 0 ||
        entry->insertion >= word_load(check->memory, NEXT_INSERTION_WORD)) {
        say_of_entry(check, entry->granule, "has the insertion number %llu",
                     (unsigned long long)entry->insertion);
    }
}

static enum status
check_record(struct check *check, const struct entry *entry, uint64_t word_hash)
{
    check_insertion(check, entry);
    const struct indexed *other = find_indexed(check, entry->scope, entry->insertion);
    if (other != NULL) {
        if (other->granule != entry->granule) {
            say_of_entry(check, entry->granule, "has the place in its list of the one at 0x%llx",
                         (unsigned long long)other->granule * GRANULE_BYTES);
        }
        return FINE;
    }
    if (check->record_count == check->record_room && indexed_grow(check) != FINE) {
        return NO_MEMORY;
    }
    check->records[check->record_count++] =
        (struct indexed){entry->scope, entry->insertion, entry->granule, word_hash, false};
    slots_add(&check->by_place, entry->scope ^ entry->insertion, (uint32_t)check->record_count);
    return FINE;
}

#endif
