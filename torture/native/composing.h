/* Sequences of messages, taken apart and composed: how fuzz_requests.c reads and mutates inputs.

   An input is a byte that chooses the state of the segment, and steps: a byte that says what
   to do, the size of the message in two bytes, the message. */

#ifndef SHMSTORE_COMPOSING_H
#define SHMSTORE_COMPOSING_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define STEP_HEAD_BYTES 3
#define STEPS_MAX 64
#define COMPOSED_BYTES_MAX 4096

enum deed { APPLY, COMMIT, ABORT, SETTLE, WALK, DEED_COUNT };

struct step {
    enum deed deed;
    const uint8_t *message;
    size_t size;
};

/* The engine that mutates bytes brings this along. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* Take the input apart; a last message that is not whole is what there is of it. */
static size_t
steps_of(const uint8_t *data, size_t size, struct step steps[STEPS_MAX])
{
    size_t count = 0, at = 1;
    while (count < STEPS_MAX && at + STEP_HEAD_BYTES <= size) {
        size_t left = size - at - STEP_HEAD_BYTES;
        size_t wanted = (size_t)data[at + 1] | (size_t)data[at + 2] << 8;
        steps[count++] = (struct step){(enum deed)(data[at] % DEED_COUNT),
                                       data + at + STEP_HEAD_BYTES, wanted < left ? wanted : left};
        at += STEP_HEAD_BYTES + (wanted < left ? wanted : left);
    }
    return count;
}

/* Chance, from the seed that the engine gives. */
static uint32_t
chance(uint64_t *state, uint32_t limit)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % limit);
}

/* What is being composed; too much is left out. */
struct composed {
    uint8_t bytes[COMPOSED_BYTES_MAX];
    size_t size;
};

static void
compose(struct composed *out, const void *bytes, size_t size)
{
    if (size <= sizeof out->bytes - out->size) {
        memcpy(out->bytes + out->size, bytes, size);
        out->size += size;
    }
}

static void
compose_byte(struct composed *out, unsigned byte)
{
    uint8_t one = (uint8_t)byte;
    compose(out, &one, 1);
}

static void
compose_number(struct composed *out, uint64_t number, unsigned width)
{
    for (unsigned left = width; left > 0; left--) {
        compose_byte(out, (unsigned)(number >> (8 * (left - 1))) & 255);
    }
}

/* A count in one of the forms that msgpack has for it: within the first byte, or in ``width``
   bytes behind it, or in twice as many, and so on. */
static void
compose_count(struct composed *out, uint64_t *random, unsigned fix, unsigned fix_max,
              unsigned first, unsigned width, unsigned forms, uint64_t count)
{
    if (count <= fix_max && chance(random, 8)) {
        compose_byte(out, fix + (unsigned)count);
        return;
    }
    unsigned form = chance(random, forms);
    while (width << form < sizeof count && count >> (8 * (width << form))) {
        form++;
    }
    compose_byte(out, first + form);
    compose_number(out, count, width << form);
}

static void
compose_array(struct composed *out, uint64_t *random, uint64_t count)
{
    compose_count(out, random, 0x90, 15, 0xDC, 2, 2, count);
}

static void
compose_text(struct composed *out, uint64_t *random, const char *text)
{
    size_t size = strlen(text);
    compose_count(out, random, 0xA0, 31, 0xD9, 1, 3, size);
    compose(out, text, size);
}

static void
compose_bytes(struct composed *out, uint64_t *random, const void *bytes, size_t size)
{
    unsigned power = size > UINT8_MAX ? 1 : chance(random, 8) ? 0 : chance(random, 3);
    compose_byte(out, 0xC4 + power);
    compose_number(out, size, 1u << power);
    compose(out, bytes, size);
}

static void
compose_key(struct composed *out, uint64_t *random)
{
    char key[80] = "k";
    snprintf(key + 1, sizeof key - 1, "%u", chance(random, 12));
    if (chance(random, 16) == 0) {
        memset(key, 'k', sizeof key - 1);
        key[1 + chance(random, sizeof key - 2)] = 0;
    }
    if (chance(random, 3)) {
        compose_text(out, random, key);
    }
    else {
        compose_bytes(out, random, key, strlen(key));
    }
}

static void
compose_value(struct composed *out, uint64_t *random)
{
    static const char *const values[] = {
        "\x01",
        "\xC0",
        "\xA3\x61\x62\x63",
        "\x81\xA1x\x01",
        "\x93\x01\x02\x03",
        "\xCB@\x09!\xFBTD-\x18",
    };
    uint8_t long_value[300];
    if (chance(random, 16) == 0) {
        uint8_t deep[80];
        memset(deep, 0x91, sizeof deep);
        deep[sizeof deep - 1] = 1;
        size_t size = 1 + chance(random, sizeof deep);
        compose_bytes(out, random, deep + sizeof deep - size, size);
        return;
    }
    if (chance(random, 4)) {
        const char *value = values[chance(random, sizeof values / sizeof *values)];
        compose_bytes(out, random, value, strlen(value));
        return;
    }
    unsigned size = 3 + chance(random, sizeof long_value - 3);
    memset(long_value, 'v', sizeof long_value);
    long_value[0] = 0xC5;
    long_value[1] = (uint8_t)((size - 3) >> 8);
    long_value[2] = (uint8_t)(size - 3);
    compose_bytes(out, random, long_value, size);
}

/* A request as clients send them. */
static void
compose_request(struct composed *out, uint64_t *random)
{
    static const char *const operations[] = {"put", "insert", "put_many", "delete"};
    static const char *const tables[] = {"t", "t",   "t",
                                         "u", "new", "a_rather_long_name_of_a_table"};
    unsigned which = chance(random, 4), id = 1 + chance(random, 300);
    compose_array(out, random, 4);
    compose_count(out, random, 0, 127, 0xCC, 1, 4, id);
    compose_count(out, random, 0, 127, 0xCC, 1, 4, id - chance(random, id < 200 ? id : 200));
    compose_text(out, random, operations[which]);
    compose_array(out, random, which < 2 ? 4 : 3);
    compose_text(out, random, tables[chance(random, 6)]);
    compose_text(out, random, "");
    unsigned pairs = which == 2 ? 1 + chance(random, 6) : 1;
    if (which == 2) {
        compose_array(out, random, pairs);
    }
    while (pairs--) {
        if (which == 2) {
            compose_array(out, random, 2);
        }
        compose_key(out, random);
        if (which != 3) {
            compose_value(out, random);
        }
    }
}

static void
compose_step(struct composed *out, enum deed deed, const uint8_t *message, size_t size)
{
    uint8_t head[STEP_HEAD_BYTES] = {(uint8_t)deed, (uint8_t)size, (uint8_t)(size >> 8)};
    if (STEP_HEAD_BYTES + size <= sizeof out->bytes - out->size) {
        compose(out, head, sizeof head);
        compose(out, message, size);
    }
}

/* One step, changed: its bytes, its deed, or it comes twice, or not at all, or after a new one. */
static void
compose_changed(struct composed *out, uint64_t *random, const struct step *step)
{
    uint8_t message[COMPOSED_BYTES_MAX];
    struct composed fresh = {.size = 0};
    size_t size = step->size < sizeof message ? step->size : sizeof message;
    enum deed deed = step->deed;
    memcpy(message, step->message, size);
    switch (chance(random, 8)) {
    case 0:
        return;
    case 1:
        compose_step(out, deed, message, size);
        break;
    case 2:
        deed = (enum deed)chance(random, DEED_COUNT);
        break;
    case 3:
    case 4:
        compose_request(&fresh, random);
        compose_step(out, (enum deed)chance(random, WALK), fresh.bytes, fresh.size);
        break;
    default:
        size = LLVMFuzzerMutate(message, size, size + 16 < sizeof message ? size + 16 : size);
    }
    compose_step(out, deed, message, size);
}

#endif
