/* Inputs of the fuzz targets: which template is damaged, how, and what is done then; and how they
   are mutated by something that knows where the parts of a segment are. */

#ifndef SHMSTORE_DAMAGE_H
#define SHMSTORE_DAMAGE_H

#include "templates.h" /* the first, as it takes the place of figures */

#define DAMAGES_MAX 16
#define CLOCK_STEPS_MAX 1000
#define INPUT_START 4
#define DAMAGE_BYTES 12
#define INPUT_BYTES_MAX (INPUT_START + DAMAGES_MAX * DAMAGE_BYTES)

/* What happens to a word. */
enum change { SET, FLIP, ADD, COPY, LEAD, EXTREME, BYTE, SWAP, SEAL, CHANGES };

/* An input is a template, two bytes that say what is done afterwards, how often; and damages: a
   part, a change, the number of the word among those of its part (2 bytes), and a value. */
struct input {
    const struct template *template;
    uint64_t random; /* chooses what is done */
    unsigned steps;
    const uint8_t *damages;
    size_t damage_count;
};

static bool
input_open(const uint8_t *data, size_t size, struct input *input)
{
    if (size < INPUT_START) {
        return false;
    }
    if (segment == NULL) {
        make_templates();
    }
    input->template = &templates[data[0] % template_count];
    input->random = (uint64_t)data[1] << 8 | data[2];
    input->steps = data[3] % 24;
    input->damages = data + INPUT_START;
    input->damage_count = (size - INPUT_START) / DAMAGE_BYTES;
    return true;
}

static uint64_t
extreme(uint64_t number)
{
    static const uint64_t every[] = {
        0,
        1,
        2,
        7,
        15,
        16,
        63,
        64,
        1u << 16,
        UINT32_MAX,
        GRANULE_MASK,
        SMALL_BYTES / GRANULE_BYTES,
        DEAD,
        DEAD | 3,
        UINT64_MAX,
        NUMBER_MAX,
        NUMBER_MAX + 1,
        SMALL_BYTES,
        (uint64_t)1 << DEPTH_SHIFT,
        (uint64_t)28 << DEPTH_SHIFT,
        (uint64_t)KIND_GHOST << KIND_SHIFT,
        (uint64_t)KIND_SORTED << KIND_SHIFT,
        (uint64_t)1 << KEY_SIZE_SHIFT,
        INSERTION_MASK,
    };
    return every[number % (sizeof every / sizeof *every)];
}

/* Give an entry, if it is inside, the checksum of what it is now. */
static void
seal_entry(const struct memory *memory, uint64_t granule)
{
    struct lookup lookup = {.memory = *memory};
    struct check check = {.lookup = &lookup, .memory = memory, .tables = &tables};
    struct entry entry;
    struct fault fault;
    if (load_entry(memory, granule, &entry, &fault) == FINE &&
        granule + shape_granules(&entry.shape) <= SMALL_BYTES / GRANULE_BYTES) {
        uint64_t sizes = (uint64_t)crc_of_entry(&check, &entry) << 32 | entry.shape.value_size;
        plain_word_store(memory, granule * WORDS_PER_GRANULE, sizes);
    }
}

/* Let up to three words in a row change places with others of the same part, mostly near ones. */
static void
swap_words(const struct memory *memory, const struct words *words, uint64_t number, uint64_t value)
{
    uint64_t from = value >> 40 & 3 ? number + 2 + value % 5 : value;
    for (uint64_t i = 0; i <= (value >> 32) % 3; i++) {
        uint64_t one = words->items[(number + i) % words->count];
        uint64_t other = words->items[(from + i) % words->count], kept = word_load(memory, one);
        plain_word_store(memory, one, word_load(memory, other));
        plain_word_store(memory, other, kept);
    }
}

static void
apply_damage(const struct template *template, const struct memory *memory, const uint8_t *damage)
{
    const struct words *words = &template->parts[damage[0] % PARTS];
    uint64_t number = (uint64_t)damage[3] << 8 | damage[2], value;
    memcpy(&value, damage + 4, sizeof value);
    if (damage[1] % CHANGES == SEAL) {
        seal_entry(memory, template->entries[number % template->entry_count]);
        return;
    }
    if (words->count == 0) {
        return;
    }
    if (damage[1] % CHANGES == SWAP) {
        swap_words(memory, words, number, value);
        return;
    }
    uint64_t word = words->items[number % words->count], old = word_load(memory, word);
    switch ((enum change)(damage[1] % CHANGES)) {
    case FLIP:
        value = old ^ UINT64_C(1) << value % 64;
        break;
    case ADD:
        value = old + (uint64_t)(int64_t)(int8_t)value;
        break;
    case COPY:
        value = word_load(memory, words->items[value % words->count]);
        break;
    case LEAD: /* mostly to where something begins */
        value = (old & ~GRANULE_MASK) |
                (value >> 32 & 3 ? template->blocks[value % template->block_count]
                                 : value % (SMALL_BYTES / GRANULE_BYTES));
        break;
    case EXTREME:
        value = extreme(value);
        break;
    case BYTE:
        value = (old & ~(UINT64_C(0xFF) << value % 8 * 8)) | (value >> 8 & 0xFF) << value % 8 * 8;
        break;
    default:
        break;
    }
    plain_word_store(memory, word, value);
}

/* Put the damaged copy into the segment. */
static void
damage_segment(const struct input *input)
{
    struct memory memory = {(_Atomic uint64_t *)(void *)segment, SMALL_WORDS};
    memcpy(segment, input->template->bytes, SMALL_BYTES);
    for (size_t i = 0; i < input->damage_count; i++) {
        apply_damage(input->template, &memory, input->damages + i * DAMAGE_BYTES);
    }
    /* A clock right before its end would come to it on the way. */
    for (uint64_t word = FREE_CLOCK_WORD; word <= COMMITTED_WORD; word++) {
        if (word_load(&memory, word) <= NUMBER_MAX &&
            word_load(&memory, word) > NUMBER_MAX - CLOCK_STEPS_MAX) {
            plain_word_store(&memory, word, NUMBER_MAX - CLOCK_STEPS_MAX);
        }
    }
}

/* Tell whether no checksum was changed: all entries that carry theirs are as they were. */
static bool
checksums_are_old(const struct template *template)
{
    for (size_t i = 0; i < template->entry_count; i++) {
        size_t offset = template->entries[i] * GRANULE_BYTES;
        if (memcmp(segment + offset, template->bytes + offset, WORD_BYTES) != 0) {
            return false;
        }
    }
    return true;
}

/* Mutation */

static void
draw_damage(uint8_t *damage, uint64_t *random)
{
    static const uint8_t parts[] = {IN_HEADER, IN_DIRECTORY, IN_INDEX, IN_INDEX, IN_ENTRY, IN_ENTRY,
                                    IN_ENTRY,  IN_BODY,      IN_NODE,  IN_NODE,  ANYWHERE};
    damage[0] = parts[draw(random, sizeof parts)];
    damage[1] = (uint8_t)draw(random, CHANGES);
    for (int i = 2; i < DAMAGE_BYTES; i++) {
        damage[i] = (uint8_t)draw(random, 256);
    }
}

/* Change an input; return its new size. */
static size_t
mutate_input(uint8_t *data, size_t size, size_t max_size, uint64_t random)
{
    size_t most = max_size < INPUT_BYTES_MAX ? max_size : INPUT_BYTES_MAX;
    if (most < INPUT_START + DAMAGE_BYTES) {
        return size;
    }
    if (size < INPUT_START) {
        memset(data, 0, INPUT_START);
        size = INPUT_START;
    }
    size_t count = (size - INPUT_START) / DAMAGE_BYTES;
    uint8_t *damages = data + INPUT_START;
    uint8_t *one = damages + (count ? draw(&random, (uint32_t)count) : 0) * DAMAGE_BYTES;
    switch (draw(&random, 8)) {
    case 0:
        data[0] = (uint8_t)draw(&random, 256);
        break;
    case 1:
        data[1 + draw(&random, 3)] = (uint8_t)draw(&random, 256);
        break;
    case 2:
        if (count) {
            memmove(one, one + DAMAGE_BYTES, (size_t)(damages + --count * DAMAGE_BYTES - one));
        }
        break;
    case 3: /* the word beside it */
        if (count) {
            one[2] = (uint8_t)(one[2] + 1 + draw(&random, 3));
        }
        break;
    case 4:
        if (count) {
            one[draw(&random, DAMAGE_BYTES)] = (uint8_t)draw(&random, 256);
        }
        break;
    case 5: /* one more of the same kind */
        if (count && INPUT_START + (count + 1) * DAMAGE_BYTES <= most) {
            uint8_t kind[2] = {one[0], one[1]};
            draw_damage(damages + count * DAMAGE_BYTES, &random);
            memcpy(damages + count++ * DAMAGE_BYTES, kind, sizeof kind);
        }
        break;
    default:
        if (INPUT_START + (count + 1) * DAMAGE_BYTES <= most) {
            draw_damage(damages + count++ * DAMAGE_BYTES, &random);
        }
        else {
            draw_damage(one, &random);
        }
    }
    return INPUT_START + count * DAMAGE_BYTES;
}

/* What libFuzzer calls, and driver.c. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return seed % 4 ? mutate_input(data, size, max_size, seed)
                    : LLVMFuzzerMutate(data, size, max_size);
}

#endif
