/* Packed values, walked in place: where each begins and ends, and the value of a key in a map.

   Nothing is decoded, no byte at or beyond ``end`` is read, and what is open while a value is
   skipped is a number, not a stack: no depth of nesting is too deep. */

#ifndef SHMSTORE_PACKED_H
#define SHMSTORE_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum packed_kind { PACKED_SCALAR, PACKED_ARRAY, PACKED_MAP };

enum packed_finding {
    FIELD_FOUND,
    FIELD_ABSENT,
    FIELD_ODD, /* a key is not plainly a key: its decoder is to be asked */
    MAP_BROKEN,
};

#define EIGHT(n) n, n, n, n, n, n, n, n
#define SIXTY_FOUR(n) EIGHT(n), EIGHT(n), EIGHT(n), EIGHT(n), EIGHT(n), EIGHT(n), EIGHT(n), EIGHT(n)

/* Bytes of a value by its first byte; 0 where that does not say. */
/* clang-format off */
static const uint8_t packed_sizes[256] = {
    SIXTY_FOUR(1), SIXTY_FOUR(1), EIGHT(0), EIGHT(0), EIGHT(0), EIGHT(0),
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
    1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 5, 9, 2, 3, 5, 9,
    2, 3, 5, 9, 3, 4, 6, 10, 18, 0, 0, 0, 0, 0, 0, 0,
    EIGHT(1), EIGHT(1), EIGHT(1), EIGHT(1),
};
/* clang-format on */

static inline enum packed_kind
packed_kind(unsigned char first)
{
    if ((first & 0xF0) == 0x80 || (first & 0xFE) == 0xDE) {
        return PACKED_MAP;
    }
    return (first & 0xF0) == 0x90 || (first & 0xFE) == 0xDC ? PACKED_ARRAY : PACKED_SCALAR;
}

static inline uint64_t
packed_number(const unsigned char *at, size_t size)
{
    uint64_t number = 0;
    for (size_t i = 0; i < size; i++) {
        number = number << 8 | at[i];
    }
    return number;
}

/* Return where the contents of a container begin, and of how many values they are; NULL if those
   cannot all be there. */
static inline const unsigned char *
packed_open(const unsigned char *at, const unsigned char *end, uint64_t *count)
{
    unsigned char first = *at++;
    uint64_t times = packed_kind(first) == PACKED_MAP ? 2 : 1;
    if (first < 0xA0) {
        *count = times * (first & 15);
    }
    else {
        size_t size = first & 1 ? 4 : 2;
        if ((size_t)(end - at) < size) {
            return NULL;
        }
        *count = times * packed_number(at, size);
        at += size;
    }
    return *count <= (uint64_t)(end - at) ? at : NULL;
}

/* Return where the contents of a str, bin or ext of any length begin, and its size; NULL for
   other values, or where the size is beyond ``end``. */
static const unsigned char *
packed_contents(const unsigned char *at, const unsigned char *end, uint64_t *size)
{
    unsigned char first = *at++;
    size_t width, more = 0;
    if (first >= 0xC4 && first <= 0xC9) {
        more = first >= 0xC7;
        width = (size_t)1 << ((first - 0xC4) % 3);
    }
    else if (first >= 0xD9 && first <= 0xDB) {
        width = (size_t)1 << (first - 0xD9);
    }
    else {
        return NULL;
    }
    if ((size_t)(end - at) < width + more) {
        return NULL;
    }
    *size = packed_number(at, width);
    at += width + more;
    return *size <= (uint64_t)(end - at) ? at : NULL;
}

/* Return where the value at ``at`` ends, or NULL if no whole value lies before ``end``. */
static const unsigned char *
packed_skip(const unsigned char *at, const unsigned char *end)
{
    uint64_t left = 1, size;
    while (left-- > 0) {
        if (at >= end) {
            return NULL;
        }
        size = packed_sizes[*at];
        if (size > 0) {
            if (size > (uint64_t)(end - at)) {
                return NULL;
            }
            at += size;
        }
        else if (packed_kind(*at) != PACKED_SCALAR) {
            at = packed_open(at, end, &size);
            left += size;
        }
        else {
            at = packed_contents(at, end, &size);
            at = at ? at + size : NULL;
        }
        if (at == NULL) {
            return NULL;
        }
    }
    return at;
}

/* Return the bytes of a str, or NULL for a value that is none. */
static inline const unsigned char *
packed_text(const unsigned char *at, const unsigned char *end, uint64_t *size)
{
    if ((*at & 0xE0) == 0xA0) {
        *size = *at++ & 31;
        return *size <= (uint64_t)(end - at) ? at : NULL;
    }
    return *at >= 0xD9 && *at <= 0xDB ? packed_contents(at, end, size) : NULL;
}

static inline bool
is_ascii(const unsigned char *bytes, uint64_t size)
{
    uint64_t word, all = 0;
    for (; size >= 8; size -= 8, bytes += 8) {
        memcpy(&word, bytes, 8);
        all |= word;
    }
    for (; size > 0; size--) {
        all |= *bytes++;
    }
    return (all & 0x8080808080808080u) == 0;
}

/* Find the value of a text key in the map at ``at``; of a key that stands twice the last counts,
   so the map is walked to its end, which is to be ``end``. */
static enum packed_finding
packed_find(const unsigned char *at, const unsigned char *end, const char *key, size_t key_size,
            const unsigned char **value)
{
    uint64_t count, size;
    enum packed_finding finding = FIELD_ABSENT;
    for (at = packed_open(at, end, &count); at != NULL && count > 0; count -= 2) {
        if (at >= end) {
            return MAP_BROKEN;
        }
        const unsigned char *text = packed_text(at, end, &size);
        if (text == NULL || !is_ascii(text, size)) {
            return FIELD_ODD;
        }
        at = text + size;
        if (size == key_size && memcmp(text, key, key_size) == 0) {
            *value = at;
            finding = FIELD_FOUND;
        }
        at = packed_skip(at, end);
    }
    return at == end ? finding : MAP_BROKEN;
}

#endif
