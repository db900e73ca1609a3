/* What was read, looked at by other means than those that read it. */

#ifndef SHMSTORE_LOOKING_H
#define SHMSTORE_LOOKING_H

#include "store.h" /* the first, for what it includes */

#define IN_FLIGHT 256

/* Return where the object at ``at`` ends, SIZE_MAX if it is not whole. */
static size_t
object_end(const unsigned char *bytes, size_t at, size_t end)
{
    static const int after[] = {1,  1,  2,  4,  1,  2,  4,   -4, -8, -1, -2, -4, -8, -1, -2,
                                -4, -8, -2, -3, -5, -9, -17, 1,  2,  4,  2,  4,  2,  4};
    if (at >= end || bytes[at] == 0xC1) {
        return SIZE_MAX;
    }
    unsigned first = bytes[at++];
    uint64_t inner = 0, raw = 0;
    if (first < 0x80 || first >= 0xE0 || (first >= 0xC0 && first <= 0xC3)) {
        return at;
    }
    if (first < 0xA0) {
        inner = (first & 15) << (first < 0x90);
    }
    else if (first < 0xC0) {
        raw = first & 31;
    }
    else {
        int size = after[first - 0xC3];
        if (size < 0) {
            raw = (uint64_t)-size;
        }
        else {
            uint64_t number = 0;
            for (int i = 0; i < size; i++) {
                if (at >= end) {
                    return SIZE_MAX;
                }
                number = number * 256 + bytes[at++];
            }
            bool is_container = first >= 0xDC;
            raw = is_container ? 0 : number + (first >= 0xC7 && first <= 0xC9);
            inner = is_container ? number << (first >= 0xDE) : 0;
        }
    }
    if (raw > end - at) {
        return SIZE_MAX;
    }
    for (at += raw; inner && at != SIZE_MAX; inner--) {
        at = object_end(bytes, at, end);
    }
    return at;
}

static void
check_inside(struct span outer, struct span inner, const char *what)
{
    const unsigned char *start = outer.data, *at = inner.data;
    if (at < start || inner.size > outer.size || at + inner.size > start + outer.size) {
        give_up("the %s is not inside the message", what);
    }
}

static void
check_parsed(struct span message, const struct request *request)
{
    struct cursor cursor = request->pairs;
    if (object_end(message.data, 0, message.size) != message.size) {
        give_up("a message that is not one object was taken for a request");
    }
    if (request->oldest > request->id || request->id - request->oldest >= IN_FLIGHT) {
        give_up("ids %llu and %llu", (unsigned long long)request->id,
                (unsigned long long)request->oldest);
    }
    check_inside(message, request->table, "table");
    for (uint32_t i = 0; i < request->pair_count; i++) {
        struct span key, value = {message.data, 0};
        uint32_t key_class;
        if (!take_pair(request, &cursor, &key, &key_class, &value)) {
            give_up("pair %u is not there when it is read again", i);
        }
        check_inside(message, key, "key");
        check_inside(message, value, "value");
        if (has_values(request) && object_end(value.data, 0, value.size) != value.size) {
            give_up("a value that is not one object was taken");
        }
    }
}

/* Any bytes, walked as a value is: all ways find the same end. */
static void
walk_bytes(struct span bytes)
{
    const unsigned char *start = bytes.data, *end = start + bytes.size, *value = NULL;
    uint64_t size;
    if (bytes.size == 0) {
        return;
    }
    const unsigned char *stop = packed_skip(start, end);
    size_t expected = object_end(start, 0, bytes.size);
    if (stop != (expected == SIZE_MAX ? NULL : start + expected)) {
        give_up("a value of %zu bytes was not found to end there", expected);
    }
    if (is_one_object(bytes) && stop != end) {
        give_up("one object does not end where it ends");
    }
    if (packed_kind(*start) == PACKED_MAP) {
        enum packed_finding finding = packed_find(start, end, "x", 1, &value);
        if (finding == FIELD_FOUND && (value <= start || packed_skip(value, end) == NULL)) {
            give_up("a field was found that is not in the map");
        }
    }
    else if (packed_kind(*start) == PACKED_ARRAY) {
        packed_open(start, end, &size);
    }
    else {
        packed_text(start, end, &size);
    }
}

#endif
