/* The plain requests of the protocol, read from their bytes: [id, oldest, operation, arguments].

   What is read here is what the general way would accept, and less: whatever is long, odd or
   wrong is left to it, so no error is ever made here. Nothing is copied. */

#ifndef SHMSTORE_REQUESTS_H
#define SHMSTORE_REQUESTS_H

#include "lists.h"
#include "packed.h"

#define REQUEST_DEPTH_MAX 32
#define REQUEST_ID_MAX UINT64_C(0x7FFFFFFFFFFFFFFF)

enum operation { PUT, INSERT, PUT_MANY, DELETE, OPERATION_COUNT };

static const char *const operation_names[OPERATION_COUNT] = {"put", "insert", "put_many", "delete"};

/* What is left of a message. */
struct cursor {
    const unsigned char *at;
    const unsigned char *end;
};

struct request {
    uint64_t id;
    uint64_t oldest;
    enum operation operation;
    struct span table;
    uint32_t pair_count;
    struct cursor pairs; /* before the keys, each followed by its value if there are values */
};

static inline bool
take(struct cursor *cursor, size_t size, const unsigned char **start)
{
    *start = cursor->at;
    if ((size_t)(cursor->end - cursor->at) < size) {
        return false;
    }
    cursor->at += size;
    return true;
}

static inline bool
take_span(struct cursor *cursor, size_t size, struct span *span)
{
    const unsigned char *start;
    bool taken = take(cursor, size, &start);
    *span = (struct span){start, size};
    return taken;
}

static bool
take_uint(struct cursor *cursor, uint64_t *value)
{
    const unsigned char *first, *bytes;
    if (!take(cursor, 1, &first)) {
        return false;
    }
    if (*first < 0x80) {
        *value = *first;
        return true;
    }
    if (*first < 0xCC || *first > 0xCF) {
        return false;
    }
    size_t size = (size_t)1 << (*first - 0xCC);
    if (!take(cursor, size, &bytes)) {
        return false;
    }
    *value = packed_number(bytes, size);
    return true;
}

/* Take a header whose count stands in it, or in the 1, 2 or 4 bytes after it. */
static bool
take_count(struct cursor *cursor, unsigned char short_first, unsigned short_max,
           unsigned char long_first, unsigned long_sizes, uint64_t *count)
{
    const unsigned char *first, *bytes;
    if (!take(cursor, 1, &first)) {
        return false;
    }
    if (*first >= short_first && *first <= short_first + short_max) {
        *count = *first - short_first;
        return true;
    }
    /* The headers with 1, 2 and 4 bytes follow each other; arrays have no first one. */
    if (*first < long_first || *first >= long_first + long_sizes) {
        return false;
    }
    size_t size = (size_t)(long_sizes == 2 ? 2 : 1) << (*first - long_first);
    if (!take(cursor, size, &bytes)) {
        return false;
    }
    *count = packed_number(bytes, size);
    return true;
}

static bool
take_text(struct cursor *cursor, struct span *text)
{
    uint64_t size;
    if (!take_count(cursor, 0xA0, 31, 0xD9, 3, &size) || !take_span(cursor, size, text)) {
        return false;
    }
    const unsigned char *letters = text->data;
    for (size_t i = 0; i < size; i++) {
        if (letters[i] >= 0x80) {
            return false; /* whether it is UTF-8 is for the general way to say */
        }
    }
    return true;
}

static bool
take_bytes(struct cursor *cursor, struct span *bytes)
{
    const unsigned char *first, *length;
    if (!take(cursor, 1, &first) || *first < 0xC4 || *first > 0xC6) {
        return false;
    }
    size_t width = (size_t)1 << (*first - 0xC4);
    if (!take(cursor, width, &length)) {
        return false;
    }
    return take_span(cursor, packed_number(length, width), bytes);
}

static bool
take_array(struct cursor *cursor, uint64_t *count)
{
    return take_count(cursor, 0x90, 15, 0xDC, 2, count);
}

/* A key: text or bytes, of an allowed size. */
static bool
take_key(struct cursor *cursor, struct span *key, uint32_t *key_class)
{
    struct cursor before = *cursor;
    *key_class = CLASS_STR;
    if (!take_text(cursor, key)) {
        *cursor = before;
        *key_class = CLASS_BYTES;
        if (!take_bytes(cursor, key)) {
            return false;
        }
    }
    return key->size <= KEY_BYTES_MAX;
}

/* Skip one object, of a container its head only; *children is how many objects follow in it. */
static bool
skip_head(struct cursor *cursor, uint64_t *children)
{
    const unsigned char *at = cursor->at, *end = cursor->end;
    *children = 0;
    if (at >= end) {
        return false;
    }
    uint64_t size = packed_sizes[*at];
    if (size) {
        at = size <= (uint64_t)(end - at) ? at + size : NULL;
    }
    else if (packed_kind(*at) != PACKED_SCALAR) {
        at = packed_open(at, end, children);
    }
    else {
        at = packed_contents(at, end, &size);
        at = at ? at + size : NULL;
    }
    cursor->at = at ? at : cursor->at;
    return at != NULL;
}

/* Tell whether these bytes are one whole object, of modest depth, and nothing after it. */
static bool
is_one_object(struct span value)
{
    uint64_t left[REQUEST_DEPTH_MAX];
    const unsigned char *start = value.data;
    struct cursor cursor = {start, start + value.size};
    unsigned depth = 0;
    left[0] = 1;
    for (;;) {
        while (left[depth] == 0) {
            if (depth == 0) {
                return cursor.at == cursor.end;
            }
            depth--;
        }
        uint64_t children;
        left[depth]--;
        if (!skip_head(&cursor, &children)) {
            return false;
        }
        if (children) {
            if (++depth == REQUEST_DEPTH_MAX) {
                return false;
            }
            left[depth] = children;
        }
    }
}

static bool
operation_of(struct span name, enum operation *operation)
{
    for (int i = 0; i < OPERATION_COUNT; i++) {
        const char *known = operation_names[i];
        if (strlen(known) == name.size && memcmp(known, name.data, name.size) == 0) {
            *operation = (enum operation)i;
            return true;
        }
    }
    return false;
}

static inline bool
has_values(const struct request *request)
{
    return request->operation != DELETE;
}

/* Take the next key, and its value if the operation has values. */
static bool
take_pair(const struct request *request, struct cursor *cursor, struct span *key,
          uint32_t *key_class, struct span *value)
{
    uint64_t parts;
    if (request->operation == PUT_MANY && (!take_array(cursor, &parts) || parts != 2)) {
        return false;
    }
    return take_key(cursor, key, key_class) && (!has_values(request) || take_bytes(cursor, value));
}

static bool
check_pairs(const struct request *request, struct cursor *cursor)
{
    struct span key, value;
    uint32_t key_class;
    for (uint32_t i = 0; i < request->pair_count; i++) {
        if (!take_pair(request, cursor, &key, &key_class, &value)) {
            return false;
        }
        if (has_values(request) && (value.size > VALUE_BYTES_MAX || !is_one_object(value))) {
            return false;
        }
    }
    return cursor->at == cursor->end;
}

/* Read a request on a plain table; false if it must go the general way. */
static bool
request_parse(struct span message, uint64_t in_flight_max, struct request *request)
{
    const unsigned char *start = message.data;
    struct cursor cursor = {start, start + message.size};
    struct span name, namespace;
    uint64_t fields, count, pairs = 1;
    if (!take_array(&cursor, &fields) || fields != 4 || !take_uint(&cursor, &request->id) ||
        !take_uint(&cursor, &request->oldest) || request->id > REQUEST_ID_MAX ||
        request->oldest > request->id || request->id - request->oldest >= in_flight_max ||
        !take_text(&cursor, &name) || !operation_of(name, &request->operation)) {
        return false;
    }
    if (!take_array(&cursor, &count) || !take_text(&cursor, &request->table) ||
        request->table.size == 0 || request->table.size > NAME_BYTES_MAX ||
        !take_text(&cursor, &namespace) || namespace.size) {
        return false;
    }
    bool many = request->operation == PUT_MANY;
    if (count != (many || !has_values(request) ? 3 : 4) || (many && !take_array(&cursor, &pairs))) {
        return false;
    }
    if (pairs == 0 || pairs > message.size) {
        return false;
    }
    request->pair_count = (uint32_t)pairs;
    request->pairs = cursor;
    return check_pairs(request, &cursor);
}

/* Answers: [id, 0, result], in the shortest form of each number. */

static size_t
write_uint(unsigned char *out, uint64_t value)
{
    if (value < 0x80) {
        out[0] = (unsigned char)value;
        return 1;
    }
    unsigned power = value > UINT32_MAX ? 3 : value > UINT16_MAX ? 2 : value > UINT8_MAX ? 1 : 0;
    size_t width = (size_t)1 << power;
    out[0] = (unsigned char)(0xCC + power);
    for (size_t i = 0; i < width; i++) {
        out[width - i] = (unsigned char)(value >> (8 * i));
    }
    return 1 + width;
}

#define ANSWER_BYTES_MAX 20

enum result { RESULT_NUMBER, RESULT_NONE, RESULT_FALSE, RESULT_TRUE };

static size_t
write_answer(unsigned char out[ANSWER_BYTES_MAX], uint64_t id, enum result result, uint64_t number)
{
    static const unsigned char constants[] = {0, 0xC0, 0xC2, 0xC3};
    size_t size = 0;
    out[size++] = 0x93;
    size += write_uint(out + size, id);
    out[size++] = 0;
    if (result == RESULT_NUMBER) {
        return size + write_uint(out + size, number);
    }
    out[size++] = constants[result];
    return size;
}

#endif
