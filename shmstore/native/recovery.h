/* Taking over the segment of a dead writer.

   What it committed stays, what it began is taken back, and all else that nothing leads to is
   free. Every store here may be the last one before another kill: doing it all again from the
   start ends in the same state. */

#ifndef SHMSTORE_RECOVERY_H
#define SHMSTORE_RECOVERY_H

#include "index.h"
#include "order.h"

#define NUMBER_MAX (UINT64_C(1) << 62)
#define SLOTS_AHEAD 16

struct ghost {
    uint64_t granule;
    uint64_t word_hash;
    uint64_t seq;
};

/* What a takeover found. */
struct survey {
    struct blocks blocks; /* every block in use */
    struct blockmap dead; /* size, and word hash, by start: the deleted still in their words */
    struct blockmap pins; /* the pinned block by the entry of the pin */
    struct blocks held;   /* blocks in use to which nothing but pins leads */
    struct ghost *ghosts; /* oldest first */
    size_t ghost_count;
    size_t ghost_room;
    uint64_t value_bytes_max;
};

struct recovery {
    const struct lookup *lookup;
    const struct memory *memory;
    struct survey *survey;
    struct blockmap nodes; /* all that were met */
    uint64_t committed;
    uint64_t limit; /* the granule at which the memory ends */
    uint64_t next_insertion;
    struct fault *fault;
};

static void
survey_close(struct survey *survey)
{
    blocks_close(&survey->blocks);
    blockmap_close(&survey->dead);
    blockmap_close(&survey->pins);
    blocks_close(&survey->held);
    free(survey->ghosts);
    memset(survey, 0, sizeof *survey);
}

static enum status
survey_add_ghost(struct survey *survey, struct ghost ghost)
{
    if (survey->ghost_count == survey->ghost_room) {
        size_t room = survey->ghost_room ? survey->ghost_room * 2 : 64;
        struct ghost *ghosts = realloc(survey->ghosts, room * sizeof *ghosts);
        if (ghosts == NULL) {
            return NO_MEMORY;
        }
        survey->ghosts = ghosts;
        survey->ghost_room = room;
    }
    survey->ghosts[survey->ghost_count++] = ghost;
    return FINE;
}

static int
ghost_compare(const void *left, const void *right)
{
    const struct ghost *a = left, *b = right;
    if (a->seq != b->seq) {
        return a->seq < b->seq ? -1 : 1;
    }
    return a->granule < b->granule ? -1 : a->granule > b->granule;
}

/* Check that the numbers of the header fit each other and the memory. */
static enum status
check_header(const struct memory *memory, struct fault *fault)
{
    uint64_t clock = word_load(memory, FREE_CLOCK_WORD);
    uint64_t committed = word_load(memory, COMMITTED_WORD);
    uint64_t next = word_load(memory, NEXT_INSERTION_WORD);
    uint64_t end = word_load(memory, EXTENT_END_WORD);
    if (word_load(memory, HORIZON_WORD) > clock) {
        return fail(fault, DAMAGED, "the horizon is ahead of the free clock");
    }
    if (clock > NUMBER_MAX || committed > NUMBER_MAX) {
        return fail(fault, DAMAGED,
                    "the free clock or the committed sequence is beyond all that can have "
                    "happened");
    }
    if (next == 0 || next > INSERTION_MASK + 1) {
        return fail(fault, DAMAGED, "the next insertion number is %llu", (unsigned long long)next);
    }
    if (end < HEAP_START || end > memory_bytes(memory) || end % GRANULE_BYTES) {
        return fail(fault, DAMAGED, "the memory ends at 0x%llx", (unsigned long long)end);
    }
    return FINE;
}

/* Find the directory words, first and count, that a segment named at place ``at`` fills. */
static enum status
directory_span(uint64_t word, uint64_t at, uint64_t depth, uint64_t *first, uint64_t *span,
               struct fault *fault)
{
    uint64_t local = word >> DEPTH_SHIFT;
    if (local > depth) {
        return fail(fault, DAMAGED,
                    "a directory word names depth %llu under a directory of depth %llu",
                    (unsigned long long)local, (unsigned long long)depth);
    }
    *span = UINT64_C(1) << (depth - local);
    *first = at & ~(*span - 1);
    return FINE;
}

/* Undo a replacement of an index segment that was cut off: until every directory word of the old
   one is stored, the old one, which has the smaller depth, says the same and governs.

   A segment that stands in two places is damage: each of them would give up its block. */
static enum status
mend_segments(const struct memory *memory, struct blockmap *met, struct fault *fault)
{
    uint64_t start, count, first, span;
    enum status status = directory_find(memory, &start, &count, fault);
    uint64_t depth = word_load(memory, ROOT_WORD) >> DEPTH_SHIFT;
    for (uint64_t at = 0; status == FINE && at < count; at = first + span) {
        uint64_t governing = word_load(memory, start + at);
        status = directory_span(governing, at, depth, &first, &span, fault);
        if (status != FINE) {
            return status;
        }
        governing = word_load(memory, start + first);
        for (uint64_t i = first + 1; i < first + span; i++) {
            uint64_t word = word_load(memory, start + i);
            if (word >> DEPTH_SHIFT < governing >> DEPTH_SHIFT) {
                governing = word;
            }
        }
        status = directory_span(governing, at, depth, &first, &span, fault);
        if (status == FINE && blockmap_has(met, governing & GRANULE_MASK)) {
            return fail(fault, DAMAGED, "directory word %llu names a segment that others name, too",
                        (unsigned long long)at);
        }
        if (status == FINE) {
            status = blockmap_put(met, governing & GRANULE_MASK, 0);
        }
        for (uint64_t i = first; status == FINE && i < first + span; i++) {
            if (word_load(memory, start + i) != governing) {
                word_store_release(memory, start + i, governing);
            }
        }
    }
    return status;
}

static enum status
mend_directory(const struct memory *memory, struct fault *fault)
{
    struct blockmap met = {0};
    enum status status = mend_segments(memory, &met, fault);
    blockmap_close(&met);
    return status;
}

/* Give a word back what it held when the last batch was committed. */
static enum status
take_back(const struct recovery *recovery, uint64_t address)
{
    const struct memory *memory = recovery->memory;
    struct fault *fault = recovery->fault;
    uint64_t word = word_load(memory, address);
    struct entry entry;
    if (word <= VACATED) {
        return FINE;
    }
    enum status status = load_entry(memory, word & GRANULE_MASK, &entry, fault);
    if (status == FINE && entry.seq > recovery->committed) {
        if (entry.seq > recovery->committed + 1 || entry.prev & DEAD) {
            return fail(fault, DAMAGED, "the entry at granule %llu is of no batch there was",
                        (unsigned long long)entry.granule);
        }
        if (entry.prev <= VACATED) {
            word_store_release(memory, address, entry.prev);
            return FINE;
        }
        word_store_release(memory, address, (word & ~GRANULE_MASK) | entry.prev);
        status = load_entry(memory, entry.prev, &entry, fault);
        if (status == FINE && entry.seq > recovery->committed) {
            return fail(fault, DAMAGED, "the entry at granule %llu is as new as its successor",
                        (unsigned long long)entry.granule);
        }
    }
    if (status == FINE && entry.prev & DEAD && (entry.prev ^ DEAD) > recovery->committed) {
        /* The version this entry replaced is long out of reach of every reader. */
        word_store(memory, entry.granule * WORDS_PER_GRANULE + PREV_FIELD, 0);
    }
    return status;
}

static enum status
note_children(struct recovery *recovery, const struct leaf_or_inner *node)
{
    enum status status = FINE;
    for (uint32_t at = 0; status == FINE && node->level && at < node->count; at++) {
        uint64_t child = node_child(node, at);
        struct leaf_or_inner below;
        if (blockmap_has(&recovery->nodes, child)) {
            return fail(recovery->fault, DAMAGED, "the node at granule %llu stands in two places",
                        (unsigned long long)child);
        }
        status = node_load(recovery->memory, child, node->level - 1, node->width, &below,
                           recovery->fault);
        if (status == FINE) {
            status = blockmap_put(&recovery->nodes, child, 0);
        }
        if (status == FINE) {
            status = blocks_add(&recovery->survey->blocks, child,
                                node_granules(below.count, below.width));
        }
        if (status == FINE) {
            status = note_children(recovery, &below);
        }
    }
    return status;
}

/* Note an entry that is deleted, or a ghost. */
static enum status
note_remnant(const struct recovery *recovery, const struct entry *entry, uint64_t size)
{
    struct survey *survey = recovery->survey;
    uint64_t word_hash;
    enum status status = entry_hash(recovery->lookup, entry->granule * WORDS_PER_GRANULE,
                                    &word_hash, recovery->fault);
    if (status != FINE) {
        return status;
    }
    if (entry->prev & DEAD) {
        return blockmap_put_extra(&survey->dead, entry->granule, size, word_hash);
    }
    return survey_add_ghost(survey, (struct ghost){entry->granule, word_hash, entry->seq});
}

static enum status
note_pin(const struct recovery *recovery, const struct entry *entry)
{
    struct pin_key key;
    uint64_t granule;
    enum status status = load_pin(recovery->memory, entry->granule * WORDS_PER_GRANULE, &key,
                                  &granule, recovery->fault);
    return status == FINE ? blockmap_put(&recovery->survey->pins, entry->granule, granule) : status;
}

static enum status
note_entry(struct recovery *recovery, const struct entry *entry)
{
    struct survey *survey = recovery->survey;
    uint64_t size = shape_granules(&entry->shape), count;
    struct leaf_or_inner root;
    if (entry->granule + size > recovery->limit) {
        return fail(recovery->fault, DAMAGED, "the entry at granule %llu reaches beyond the memory",
                    (unsigned long long)entry->granule);
    }
    if (!shape_is_known(&entry->shape)) {
        return fail(recovery->fault, DAMAGED, "the entry at granule %llu is of no kind there is",
                    (unsigned long long)entry->granule);
    }
    enum status status = blocks_add(&survey->blocks, entry->granule, size);
    if (status != FINE) {
        return status;
    }
    if (entry->shape.value_size > survey->value_bytes_max) {
        survey->value_bytes_max = entry->shape.value_size;
    }
    if (entry->prev & DEAD || entry->shape.kind & KIND_GHOST) {
        return note_remnant(recovery, entry, size);
    }
    if (shape_class(&entry->shape) == CLASS_HEAD) {
        status = load_head(recovery->memory, entry->granule * WORDS_PER_GRANULE, &count, &root,
                           recovery->fault);
        return status == FINE ? note_children(recovery, &root) : status;
    }
    if (shape_class(&entry->shape) == CLASS_PIN) {
        return note_pin(recovery, entry);
    }
    if (entry->insertion == 0 || entry->insertion >= recovery->next_insertion) {
        return fail(recovery->fault, DAMAGED, "the entry at granule %llu was never inserted",
                    (unsigned long long)entry->granule);
    }
    return FINE;
}

/* Entries lie anywhere: have one of the next on its way while this one is looked at. */
static inline void
expect_entry(const struct recovery *recovery, uint64_t address)
{
    const struct memory *memory = recovery->memory;
    if (address < memory->word_count) {
        uint64_t granule = word_load(memory, address) & GRANULE_MASK;
        if (granule < recovery->limit) {
            __builtin_prefetch((const void *)&memory->words[granule * WORDS_PER_GRANULE]);
        }
    }
}

static enum status
recover_word(struct recovery *recovery, uint64_t address)
{
    if (address >= recovery->memory->word_count) {
        return fail(recovery->fault, DAMAGED, "an index segment reaches out of the memory");
    }
    enum status status = take_back(recovery, address);
    uint64_t word = word_load(recovery->memory, address);
    struct entry entry;
    if (status != FINE || word <= VACATED) {
        return status;
    }
    status = load_entry(recovery->memory, word & GRANULE_MASK, &entry, recovery->fault);
    return status == FINE ? note_entry(recovery, &entry) : status;
}

/* Note a pinned block, to which something else leads if it is ``reached``. */
static enum status
note_pinned(const struct recovery *recovery, uint64_t granule, bool reached)
{
    struct survey *survey = recovery->survey;
    struct entry entry;
    enum status status = load_entry(recovery->memory, granule, &entry, recovery->fault);
    if (status != FINE) {
        return status;
    }
    if (!shape_is_record(&entry.shape) || blockmap_has(&recovery->nodes, granule) ||
        entry.seq > recovery->committed ||
        (entry.prev & DEAD && (entry.prev ^ DEAD) > recovery->committed) || entry.insertion == 0 ||
        entry.insertion >= recovery->next_insertion) {
        return fail(recovery->fault, DAMAGED, "a pin names granule %llu, where no record is",
                    (unsigned long long)granule);
    }
    return reached ? FINE : blocks_add(&survey->held, granule, shape_granules(&entry.shape));
}

/* Note the blocks to which nothing but pins leads. */
static enum status
note_all_pinned(const struct recovery *recovery)
{
    struct survey *survey = recovery->survey;
    struct blockmap pinned = {0};
    struct blockmap_item *reached;
    const struct blockmap_item *item;
    enum status status = FINE;
    for (size_t at = 0; status == FINE && (item = blockmap_next(&survey->pins, &at));) {
        status = blockmap_put(&pinned, item->value, false);
    }
    for (size_t i = 0; status == FINE && pinned.count && i < survey->blocks.count; i++) {
        if ((reached = blockmap_find(&pinned, survey->blocks.items[i].start))) {
            reached->value = true;
        }
    }
    for (size_t at = 0; status == FINE && (item = blockmap_next(&pinned, &at));) {
        status = note_pinned(recovery, item->key, item->value);
    }
    for (size_t i = 0; status == FINE && i < survey->held.count; i++) {
        status =
            blocks_add(&survey->blocks, survey->held.items[i].start, survey->held.items[i].size);
    }
    blockmap_close(&pinned);
    return status;
}

/* Two blocks that overlap would let one be overwritten by what is taken for free. */
static enum status
check_blocks(const struct recovery *recovery)
{
    struct blocks *blocks = &recovery->survey->blocks;
    uint64_t end = HEAP_START / GRANULE_BYTES;
    blocks_sort(blocks);
    for (size_t i = 0; i < blocks->count; i++) {
        if (blocks->items[i].start < end) {
            return fail(recovery->fault, DAMAGED, "two blocks overlap at granule %llu",
                        (unsigned long long)blocks->items[i].start);
        }
        end = blocks->items[i].start + blocks->items[i].size;
    }
    if (end > recovery->limit) {
        return fail(recovery->fault, DAMAGED, "a block ends at granule %llu, the memory at %llu",
                    (unsigned long long)end, (unsigned long long)recovery->limit);
    }
    return FINE;
}

static enum status
recover_index(struct recovery *recovery)
{
    const struct memory *memory = recovery->memory;
    struct blocks blocks = {0};
    enum status status = mend_directory(memory, recovery->fault);
    if (status == FINE) {
        status = index_blocks(memory, &blocks, recovery->fault);
    }
    /* The directory's own block is the first. */
    for (size_t i = 1; status == FINE && i < blocks.count; i++) {
        uint64_t base = blocks.items[i].start * WORDS_PER_GRANULE;
        for (uint64_t slot = 0; status == FINE && slot < SEGMENT_SLOTS; slot++) {
            expect_entry(recovery, base + (slot + SLOTS_AHEAD) % SEGMENT_SLOTS);
            status = recover_word(recovery, base + slot);
        }
    }
    blocks_close(&blocks);
    if (status == FINE) {
        status = note_all_pinned(recovery);
    }
    if (status == FINE) {
        status = index_blocks(memory, &recovery->survey->blocks, recovery->fault);
    }
    return status == FINE ? check_blocks(recovery) : status;
}

/* Take back what was not committed; tell what is in use, which the caller closes. */
static enum status
recover(const struct lookup *lookup, struct survey *survey, struct fault *fault)
{
    const struct memory *memory = &lookup->memory;
    struct recovery recovery = {
        .lookup = lookup,
        .memory = memory,
        .survey = survey,
        .committed = word_load(memory, COMMITTED_WORD),
        .limit = word_load(memory, EXTENT_END_WORD) / GRANULE_BYTES,
        .next_insertion = word_load(memory, NEXT_INSERTION_WORD),
        .fault = fault,
    };
    memset(survey, 0, sizeof *survey);
    enum status status = recover_index(&recovery);
    blockmap_close(&recovery.nodes);
    if (survey->ghost_count) {
        qsort(survey->ghosts, survey->ghost_count, sizeof *survey->ghosts, ghost_compare);
    }
    return status;
}

#endif
