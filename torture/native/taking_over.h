/* Takeovers of damaged segments, and a few operations of the new writer.

   A takeover refuses what would let memory be taken for free that is in use. What it lets pass,
   wrong checksums, tags or list elements, is for the check to find; so after it the check names
   nothing else. A segment that was sound is taken over, stays sound, and every operation works. */

#ifndef SHMSTORE_TAKING_OVER_H
#define SHMSTORE_TAKING_OVER_H

#include "reading.h" /* the first, as it takes the place of figures */

static struct owner owner;
static bool operates_on_sorted;

/* What a takeover sees to itself. */
static const char *const EXCLUDED[] = {
    "the horizon is",
    "the free clock or",
    "the next insertion number",
    "the memory ends",
    "do not name one segment",
    "names a segment that others name",
    "reaches beyond the memory",
    "reaches out of the memory",
    "larger together",
    "is of batch",
    "is deleted by a batch beyond",
    "has the insertion number",
    "overlap",
    "belong to nobody",
    "blocks end at",
    "the root names a directory",
    "is outside the segment",
    "stands in two places",
    "names a node at",
    "does not belong to its parent",
    "a node begins with",
    "of no kind there is",
    "which is no record",
    "is no pin",
};

/* Let the check look at the segment that was taken over. */
static const struct problems *
look_at_all(void)
{
    struct blocks unused = {0};
    struct fault fault;
    must(staging_unused_blocks(&owner.staging, &unused, &fault), "telling what is unused", &fault);
    const struct problems *problems = look(&unused);
    blocks_close(&unused);
    return problems;
}

static void
check_excluded(const struct problems *problems)
{
    for (size_t i = 0; i < problems->count; i++) {
        for (size_t at = 0; at < sizeof EXCLUDED / sizeof *EXCLUDED; at++) {
            if (strstr(problems->texts[i], EXCLUDED[at])) {
                broken("after a takeover %s", problems->texts[i]);
            }
        }
    }
}

static enum status
walk_list(uint64_t *random, struct fault *fault)
{
    struct elements found = {0};
    struct walk walk = {
        .found = &found, .limit = draw(random, 50), .newest_first = draw(random, 2)};
    bool sorted = draw(random, 2);
    struct span table = sorted ? SORTED : PLAIN;
    uint64_t scope = list_hash(&owner.lookup, table.data, table.size), count;
    enum status status = owner_count(&owner, table, &count, fault);
    if (status == FINE) {
        status = owner_walk(&owner, table, scope, &walk, fault);
    }
    free(found.items);
    return status;
}

/* Share or take away one of the pins there are. */
static enum status
change_pin(uint64_t *random, struct fault *fault)
{
    static const struct span holders[] = {{"one", 3}, {"other", 5}};
    const struct blockmap *entries = &owner.staging.heap.pinned.entries;
    const struct blockmap_item *pin = NULL;
    struct span holder = holders[draw(random, 2)];
    bool changed;
    size_t at = 0;
    for (size_t left = entries->count ? draw(random, (uint32_t)entries->count) + 1 : 0; left;
         left--) {
        pin = blockmap_next(entries, &at);
    }
    if (pin == NULL) {
        return FINE;
    }
    return draw(random, 3) ? pins_remove(&owner.staging, holder, pin->value, &changed, fault)
                           : pins_share(&owner.staging, holder, pin->value, &changed, fault);
}

static enum status
operate(uint64_t *random, struct fault *fault)
{
    bool sorted = operates_on_sorted = draw(random, 2), more;
    uint32_t number = draw(random, sorted ? SORTED_MAX : RECORDS_MAX);
    uint64_t count;
    switch (draw(random, 10)) {
    case 0:
    case 1:
    case 2:
        return put_record(&owner, sorted, number, draw(random, 300), fault);
    case 3:
        return remove_record(&owner, sorted, number, fault);
    case 4:
        return walk_list(random, fault);
    case 5:
        if (owner_staged(&owner)) {
            return owner_commit(&owner, fault);
        }
        return heap_settle(&owner.staging.heap, &more, fault);
    case 6:
        return owner_commit(&owner, fault);
    case 7:
        return pin_record(&owner, sorted, number, fault);
    case 8:
        return change_pin(random, fault);
    default:
        if (draw(random, 4)) {
            owner_abort(&owner);
            return FINE;
        }
        return owner_clear(&owner, sorted ? SORTED : PLAIN,
                           sorted ? (struct indexes){INDEXES, 2} : NO_INDEXES, &count, fault);
    }
}

/* Whether a record is in the index list of a field is known to those who know fields, not to the
   check of the engine. */
static bool
lacks_in_index(const struct fault *fault)
{
    return operates_on_sorted && strstr(fault->text, "is missing from its list");
}

/* Do what an input says; with a segment that is sound nothing of it may fail. */
static void
work(const struct input *input, bool is_sound)
{
    uint64_t random = input->random;
    struct fault fault;
    for (unsigned i = 0; i < input->steps; i++) {
        enum status status = operate(&random, &fault);
        if (status == FULL || status == EXHAUSTED) {
            owner_abort(&owner);
        }
        else if (status != FINE) {
            if (is_sound && !lacks_in_index(&fault)) {
                must(status, "an operation on a sound segment", &fault);
            }
            return;
        }
    }
    if (is_sound) {
        owner_abort(&owner);
        const struct problems *problems = look_at_all();
        if (problems->count) {
            broken("after operations on a sound segment %s", problems->texts[0]);
        }
    }
}

/* Tell what the check said of the segment before the takeover. */
static bool
was_sound(const struct input *input)
{
    damage_segment(input);
    return look(NULL)->count == 0;
}

static void
run_takeover(const struct input *input)
{
    struct fault fault;
    must(owner_open(&owner, segment, SMALL_BYTES, &SYSTEM), "open", &fault);
    enum status status = owner_take_over(&owner, &fault);
    if (status == FINE) {
        const struct problems *problems = look_at_all();
        bool is_sound = problems->count == 0;
        check_excluded(problems);
        work(input, is_sound);
        if (!is_sound && was_sound(input)) {
            broken("a sound segment is not sound after its takeover");
        }
    }
    else if (was_sound(input)) {
        broken("a sound segment is not taken over: %s", fault.text);
    }
    else if (input->damage_count == 0) {
        broken("what a writer left is not taken over: %s", fault.text);
    }
    owner_close(&owner);
}

#endif
