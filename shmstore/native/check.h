/* Every invariant of a segment, walked and stated: the same problems as those of pure/check.py, in
   the same words and order, which is what its INVARIANTS are about.

   It only reads, and needs a segment that nobody changes meanwhile. No damage makes it endless: it
   stops where blocks are larger together than the memory. */

#ifndef SHMSTORE_CHECK_H
#define SHMSTORE_CHECK_H

#include "notes.h"

/* Entries */

/* A place in the index: the word, and where its segment stands. */
struct slot {
    uint64_t base;
    uint64_t number;
    uint64_t first; /* directory word of the segment */
    uint64_t depth; /* of the segment */
};

static uint32_t
crc_of_range(const struct check *check, uint32_t crc, uint64_t offset, uint64_t size)
{
    unsigned char piece[4096];
    while (size) {
        size_t step = size < sizeof piece ? (size_t)size : sizeof piece;
        bytes_load(check->memory, offset, piece, step);
        crc = crc32_of(check->tables, crc, piece, step);
        offset += step, size -= step;
    }
    return crc;
}

/* The checksum that an entry, all of it inside, should carry. */
static uint32_t
crc_of_entry(const struct check *check, const struct entry *entry)
{
    const struct shape *shape = &entry->shape;
    uint64_t offset = entry->granule * GRANULE_BYTES;
    uint32_t crc = entry_header_crc(check->tables, entry);
    crc = crc_of_range(check, crc, offset + ENTRY_HEADER_BYTES,
                       shape_header_bytes(shape) - ENTRY_HEADER_BYTES);
    return crc_of_range(check, crc, shape_value_start(shape, offset), shape->value_size);
}

/* Load the key of an entry into ``check->key``; return the hash of its word. */
static uint64_t
check_hash(struct check *check, const struct entry *entry)
{
    uint32_t key_class = shape_class(&entry->shape);
    bytes_load(check->memory, entry->granule * GRANULE_BYTES + ENTRY_HEADER_BYTES, check->key,
               entry->shape.key_size);
    return key_class == CLASS_HEAD ? entry->scope
                                   : record_lead(check->lookup, entry->scope, key_class, check->key,
                                                 entry->shape.key_size)
                                         .word_hash;
}

static enum status
check_extent(struct check *check, const struct entry *entry)
{
    uint64_t size = shape_granules(&entry->shape), offset = entry->granule * GRANULE_BYTES;
    if (offset < HEAP_START || entry->shape.key_size > KEY_BYTES_MAX) {
        return fail(check->fault, DAMAGED, "the entry at 0x%llx is no entry",
                    (unsigned long long)offset);
    }
    if (offset + size * GRANULE_BYTES > check->limit) {
        return fail(check->fault, DAMAGED, "the entry at 0x%llx reaches beyond the memory",
                    (unsigned long long)offset);
    }
    if (!shape_is_known(&entry->shape)) {
        return fail(check->fault, DAMAGED, "the entry at 0x%llx is of no kind there is",
                    (unsigned long long)offset);
    }
    return check_block(check, entry->granule, size, BLOCK_OF_ENTRY);
}

static void
check_body(struct check *check, const struct entry *entry)
{
    unsigned long long committed = word_load(check->memory, COMMITTED_WORD);
    if (entry->checksum != crc_of_entry(check, entry)) {
        say_of_entry(check, entry->granule, "does not match its checksum");
    }
    if (entry->seq > committed) {
        say_of_entry(check, entry->granule, "is of batch %llu, beyond %llu",
                     (unsigned long long)entry->seq, committed);
    }
    if (entry->prev & DEAD && (entry->prev ^ DEAD) > committed) {
        say_of_entry(check, entry->granule, "is deleted by a batch beyond %llu", committed);
    }
}

static enum status
check_content(struct check *check, const struct entry *entry, uint64_t word_hash)
{
    check_body(check, entry);
    if (entry->prev & DEAD) {
        return FINE;
    }
    if (shape_class(&entry->shape) == CLASS_HEAD) {
        return check_head(check, entry->granule);
    }
    if (shape_class(&entry->shape) == CLASS_PIN) {
        return check_pin(check, entry->granule);
    }
    return entry->shape.kind & KIND_GHOST ? FINE : check_record(check, entry, word_hash);
}

static void
check_place(struct check *check, const struct entry *entry, uint64_t word_hash, struct slot slot)
{
    uint64_t depth = word_load(check->memory, ROOT_WORD) >> DEPTH_SHIFT;
    uint64_t above = slot.depth ? word_hash >> (64 - slot.depth) : 0;
    uint64_t word = word_load(check->memory, slot.base + slot.number);
    if (word >> GRANULE_BITS != tag_of(word_hash)) {
        say_of_entry(check, entry->granule, "stands under another tag");
    }
    if (above != slot.first >> (depth - slot.depth)) {
        say_of_entry(check, entry->granule, "is in another segment than its hash says");
    }
    for (uint64_t at = word_hash & SLOT_MASK; at != slot.number; at = (at + 1) & SLOT_MASK) {
        if (word_load(check->memory, slot.base + at) == EMPTY) {
            say_of_entry(check, entry->granule, "cannot be reached from its home word");
            return;
        }
    }
}

/* Look for another entry of the segment with the key of this one, which is in ``check->key``. Equal
   keys have equal hashes: they are in one segment, or not where their hashes say. */
static void
check_key(struct check *check, const struct entry *entry, uint64_t word_hash)
{
    struct keys *keys = &check->keys;
    uint64_t at = slots_home(&keys->slots, word_hash);
    for (uint32_t number; (number = keys->slots.numbers[at]); at = (at + 1) & keys->slots.mask) {
        uint64_t other = keys->items[number - 1].granule;
        if (keys->items[number - 1].word_hash == word_hash &&
            matches(check->memory, other * WORDS_PER_GRANULE, entry->scope,
                    shape_class(&entry->shape), check->key, entry->shape.key_size)) {
            say_of_entry(check, entry->granule, "has the key of the one at 0x%llx",
                         (unsigned long long)other * GRANULE_BYTES);
            return;
        }
    }
    keys->items[keys->count].word_hash = word_hash;
    keys->items[keys->count].granule = entry->granule;
    keys->slots.numbers[at] = ++keys->count;
}

static enum status
check_slot(struct check *check, struct slot slot)
{
    uint64_t word = word_load(check->memory, slot.base + slot.number);
    struct entry entry;
    if (word <= VACATED) {
        return FINE;
    }
    enum status status = load_entry(check->memory, word & GRANULE_MASK, &entry, check->fault);
    if (status == FINE) {
        status = check_extent(check, &entry);
    }
    if (status != FINE) {
        return status;
    }
    uint64_t word_hash = check_hash(check, &entry);
    status = check_content(check, &entry, word_hash);
    if (status == FINE) {
        check_place(check, &entry, word_hash, slot);
        check_key(check, &entry, word_hash);
    }
    return status;
}

/* The index */

static enum status
check_index_segment(struct check *check, uint64_t granule, uint64_t first, uint64_t depth)
{
    struct slot slot = {granule * WORDS_PER_GRANULE, 0, first, depth};
    enum status status = FINE;
    if (!words_fit(check->memory, slot.base, SEGMENT_SLOTS)) {
        return fail(check->fault, DAMAGED, "an index segment reaches out of the memory");
    }
    slots_clear(&check->keys.slots);
    check->keys.count = 0;
    for (; status == FINE && slot.number < SEGMENT_SLOTS; slot.number++) {
        status = check_slot(check, slot);
    }
    return status;
}

/* Tell whether directory words name one segment, of a depth that fits them. */
static bool
directory_agrees(const struct check *check, uint64_t start, uint64_t at, uint64_t span,
                 uint64_t count)
{
    uint64_t word = word_load(check->memory, start + at);
    if (word >> DEPTH_SHIFT > word_load(check->memory, ROOT_WORD) >> DEPTH_SHIFT || at % span) {
        return false;
    }
    for (uint64_t i = at; i < at + span && i < count; i++) {
        if (word_load(check->memory, start + i) != word) {
            return false;
        }
    }
    return true;
}

static enum status
check_directory(struct check *check)
{
    struct blockmap met = {0};
    uint64_t start, count, span;
    enum status status = directory_find(check->memory, &start, &count, check->fault);
    uint64_t depth = word_load(check->memory, ROOT_WORD) >> DEPTH_SHIFT;
    for (uint64_t at = 0; status == FINE && at < count; at += span) {
        uint64_t word = word_load(check->memory, start + at), granule = word & GRANULE_MASK;
        uint64_t local = word >> DEPTH_SHIFT;
        local = local < depth ? local : depth;
        span = UINT64_C(1) << (depth - local);
        if (!directory_agrees(check, start, at, span, count)) {
            check_say(check, "directory words %llu to %llu do not name one segment",
                      (unsigned long long)at, (unsigned long long)(at + span - 1));
        }
        if (blockmap_has(&met, granule)) {
            check_say(check, "directory word %llu names a segment that others name, too",
                      (unsigned long long)at);
            continue;
        }
        status = blockmap_put(&met, granule, 0);
        if (status == FINE) {
            status = check_index_segment(check, granule, at, local);
        }
    }
    blockmap_close(&met);
    return status;
}

static enum status
check_index(struct check *check)
{
    struct blocks blocks = {0};
    enum status status = index_blocks(check->memory, &blocks, check->fault);
    for (size_t i = 0; status == FINE && i < blocks.count; i++) {
        status = check_block(check, blocks.items[i].start, blocks.items[i].size, BLOCK_OF_INDEX);
    }
    blocks_close(&blocks);
    return status == FINE ? check_directory(check) : status;
}

/* Lists */

/* A list at hand. */
struct listing {
    uint64_t head; /* a granule */
    uint64_t scope;
    bool is_whole; /* of a table, not of one value of an index */
    struct elements elements;
};

static enum status
check_nodes(struct check *check, struct listing *listing, const struct leaf_or_inner *node)
{
    enum status status = FINE;
    for (uint32_t at = 0; status == FINE && at < node->count; at++) {
        struct position first = node_position(node, at);
        uint64_t child = node_child(node, at);
        struct leaf_or_inner below;
        if (node->level == 0) {
            status = elements_add(&listing->elements, first, child);
            continue;
        }
        if (blockmap_has(&check->nodes, child)) {
            return fail(check->fault, DAMAGED, "the node at granule %llu stands in two places",
                        (unsigned long long)child);
        }
        status =
            node_load(check->memory, child, node->level - 1, node->width, &below, check->fault);
        if (status == FINE) {
            status = blockmap_put(&check->nodes, child, 0);
        }
        if (status == FINE) {
            status =
                check_block(check, child, node_granules(below.count, below.width), listing->head);
        }
        if (status != FINE) {
            return status;
        }
        if (position_compare(node_position(&below, 0), first) != 0) {
            say_of_list(check, listing->head,
                        "has a node that does not begin where its parent says");
        }
        status = check_nodes(check, listing, &below);
    }
    return status;
}

static enum status
check_element(struct check *check, const struct listing *listing, const struct element *element)
{
    unsigned long long insertion = element->position.insertion;
    struct indexed *record = find_indexed(check, listing->scope, insertion);
    uint64_t sort;
    if (record == NULL) {
        say_of_list(check, listing->head, "names record %llu, which is not in the index",
                    insertion);
        return FINE;
    }
    record->is_listed = record->is_listed || listing->is_whole;
    if (element->word_hash != record->word_hash) {
        say_of_list(check, listing->head, "looks for record %llu at another word", insertion);
    }
    uint64_t entry = record->granule * WORDS_PER_GRANULE;
    struct shape shape = load_shape(check->memory, entry);
    enum status status = load_sort(check->memory, entry, &shape, &sort, check->fault);
    if (status == FINE && sort != element->position.sort) {
        say_of_list(check, listing->head, "has record %llu at another place than it says",
                    insertion);
    }
    return status;
}

static enum status
check_elements(struct check *check, const struct listing *listing, uint64_t count)
{
    const struct element *items = listing->elements.items;
    size_t found = listing->elements.count;
    enum status status = FINE;
    if (count != found || count == 0) {
        say_of_list(check, listing->head, "says %llu and has %zu elements",
                    (unsigned long long)count, found);
    }
    for (size_t i = 1; i < found; i++) {
        if (position_compare(items[i - 1].position, items[i].position) >= 0) {
            say_of_list(check, listing->head, "is out of order");
            break;
        }
    }
    for (size_t i = 0; status == FINE && i < found; i++) {
        status = check_element(check, listing, &items[i]);
    }
    return status;
}

static enum status
check_list(struct check *check, uint64_t head)
{
    struct listing listing = {.head = head};
    struct leaf_or_inner root;
    struct list_name name;
    uint64_t entry = head * WORDS_PER_GRANULE, count;
    enum status status = list_name_load(check, head, &name);
    if (status != FINE) {
        return status;
    }
    listing.scope = list_hash(check->lookup, name.bytes, name.whole);
    listing.is_whole = name.whole == name.size;
    if (list_hash(check->lookup, name.bytes, name.size) !=
        word_load(check->memory, entry + SCOPE_FIELD)) {
        say_of_list(check, head, "has another hash than its name");
    }
    status = load_head(check->memory, entry, &count, &root, check->fault);
    if (status == FINE) {
        status = check_nodes(check, &listing, &root);
    }
    if (status == FINE) {
        status = check_elements(check, &listing, count);
    }
    free(listing.elements.items);
    return status;
}

static enum status
check_lists(struct check *check)
{
    enum status status = FINE;
    for (size_t i = 0; status == FINE && i < check->head_count; i++) {
        status = check_list(check, check->heads[i]);
    }
    for (size_t i = 0; status == FINE && i < check->record_count; i++) {
        const struct indexed *record = &check->records[i];
        if (!record->is_listed) {
            check_say(check, "record %llu of scope 0x%llx is in no list of its table",
                      (unsigned long long)record->insertion, (unsigned long long)record->scope);
        }
    }
    return status;
}

/* Pins */

/* Note which blocks are pinned, and which of them the index leads to. */
static enum status
find_pinned(struct check *check)
{
    struct blockmap_item *pinned;
    struct pin_key key;
    uint64_t granule;
    for (size_t i = 0; i < check->pin_count; i++) {
        uint64_t entry = check->pins[i] * WORDS_PER_GRANULE;
        if (load_pin(check->memory, entry, &key, &granule, check->fault) == FINE &&
            blockmap_put(&check->pinned, granule, false) != FINE) {
            return NO_MEMORY;
        }
    }
    for (size_t i = 0; check->pinned.count && i < check->block_count; i++) {
        pinned = blockmap_find(&check->pinned, check->blocks[i].start);
        if (pinned && check->blocks[i].owner == BLOCK_OF_ENTRY) {
            pinned->value = true;
        }
    }
    return FINE;
}

static enum status
check_pinned(struct check *check, uint64_t pin)
{
    struct pin_key key;
    struct entry entry;
    uint64_t granule;
    enum status status =
        load_pin(check->memory, pin * WORDS_PER_GRANULE, &key, &granule, check->fault);
    if (status == FINE) {
        status = load_entry(check->memory, granule, &entry, check->fault);
    }
    if (status != FINE) {
        return status;
    }
    struct blockmap_item *met = blockmap_find(&check->pinned, granule);
    if (!met->value) {
        met->value = true;
        status = check_extent(check, &entry);
        if (status != FINE) {
            return status;
        }
        check_body(check, &entry);
        check_insertion(check, &entry);
    }
    if (!shape_is_record(&entry.shape)) {
        say_of_entry(check, pin, "pins the entry at 0x%llx, which is no record",
                     (unsigned long long)granule * GRANULE_BYTES);
    }
    return FINE;
}

static enum status
check_pins(struct check *check)
{
    enum status status = find_pinned(check);
    for (size_t i = 0; status == FINE && i < check->pin_count; i++) {
        status = check_pinned(check, check->pins[i]);
    }
    return status;
}

/* Blocks */

static int
owned_block_compare(const void *left, const void *right)
{
    const struct owned_block *a = left, *b = right;
    if (a->start != b->start) {
        return a->start < b->start ? -1 : 1;
    }
    if (a->size != b->size) {
        return a->size < b->size ? -1 : 1;
    }
    return a->owner < b->owner ? -1 : a->owner > b->owner;
}

#define BLOCK_TEXT_SIZE (LIST_TEXT_SIZE + 16)

static const char *
block_text(struct check *check, const struct owned_block *block, char text[BLOCK_TEXT_SIZE])
{
    char list[LIST_TEXT_SIZE];
    switch (block->owner) {
    case BLOCK_OF_INDEX:
        return "the index";
    case BLOCK_UNUSED:
        return "unused memory";
    case BLOCK_HEADER:
        return "the header";
    case BLOCK_OF_ENTRY:
        sprintf(text, "the entry at 0x%llx", (unsigned long long)block->start * GRANULE_BYTES);
        return text;
    default:
        sprintf(text, "a node of %s", list_text(check, block->owner, list));
        return text;
    }
}

/* Check that no two blocks overlap and, if ``all`` are there, that none is lost. */
static void
check_disjoint(struct check *check, bool all)
{
    struct owned_block last = {0, HEAP_START / GRANULE_BYTES, BLOCK_HEADER};
    uint64_t end = last.size, limit = word_load(check->memory, EXTENT_END_WORD) / GRANULE_BYTES;
    char one[BLOCK_TEXT_SIZE], other[BLOCK_TEXT_SIZE];
    if (check->block_count) {
        qsort(check->blocks, check->block_count, sizeof *check->blocks, owned_block_compare);
    }
    for (size_t i = 0; i < check->block_count; i++) {
        struct owned_block block = check->blocks[i];
        if (block.start < end) {
            check_say(check, "%s and %s overlap at 0x%llx", block_text(check, &block, one),
                      block_text(check, &last, other),
                      (unsigned long long)block.start * GRANULE_BYTES);
        }
        else if (block.start > end && all) {
            check_say(check, "%llu bytes at 0x%llx belong to nobody",
                      (unsigned long long)(block.start - end) * GRANULE_BYTES,
                      (unsigned long long)end * GRANULE_BYTES);
        }
        end = heap_max(end, block.start + block.size);
        last = block;
    }
    if (end > limit || (all && end != limit)) {
        check_say(check, "blocks end at 0x%llx, the memory at 0x%llx",
                  (unsigned long long)end * GRANULE_BYTES,
                  (unsigned long long)limit * GRANULE_BYTES);
    }
}

static enum status
check_all(struct check *check, const struct blocks *unused)
{
    if (check_header(check->memory, check->fault) != FINE) {
        check_say(check, "%s", check->fault->text);
    }
    enum status status = check_index(check);
    if (status == FINE) {
        status = check_lists(check);
    }
    if (status == FINE) {
        status = check_pins(check);
    }
    check->left = UINT64_MAX; /* what is unused may be said to be anything */
    for (size_t i = 0; status == FINE && unused && i < unused->count; i++) {
        status = check_block(check, unused->items[i].start, unused->items[i].size, BLOCK_UNUSED);
    }
    if (status == FINE) {
        check_disjoint(check, unused != NULL);
    }
    return status;
}

/* Say what is wrong, in words. ``unused`` are the blocks that the writer says are free or in
   quarantine, NULL if it is not asked. Fails for want of this process's memory only. */
static enum status
check_segment(const struct lookup *lookup, const struct crc_tables *tables,
              const struct blocks *unused, struct problems *problems)
{
    struct fault fault;
    struct check check = {.lookup = lookup,
                          .memory = &lookup->memory,
                          .tables = tables,
                          .problems = problems,
                          .fault = &fault};
    check.limit = heap_min(word_load(check.memory, EXTENT_END_WORD), memory_bytes(check.memory));
    check.left = memory_bytes(check.memory) / GRANULE_BYTES;
    problems->count = 0;
    check.key = malloc(KEY_BYTES_MAX);
    enum status status = check.key ? slots_open(&check.keys.slots, SEGMENT_SLOTS) : NO_MEMORY;
    if (status == FINE) {
        status = check_all(&check, unused);
    }
    if (status == DAMAGED) {
        check_say(&check, "the walk ended at damage: %s", fault.text);
        status = FINE;
    }
    free(check.key);
    free(check.blocks);
    free(check.records);
    free(check.heads);
    free(check.pins);
    blockmap_close(&check.pinned);
    slots_close(&check.keys.slots);
    slots_close(&check.by_place);
    blockmap_close(&check.nodes);
    return status;
}

#endif
