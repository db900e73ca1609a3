/* The keyed hash of the index, wyhash (final version 4, Wang Yi, public domain), and the CRC-32
   of entries (the polynomial of zlib; eight bytes at a time, Kounavis and Berry 2005). */

#ifndef SHMSTORE_HASHING_H
#define SHMSTORE_HASHING_H

#include "memory.h"

__extension__ typedef unsigned __int128 wide;

static inline uint64_t
wyhash_mix(uint64_t a, uint64_t b)
{
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t
load_word(const unsigned char *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline uint64_t
load_half(const unsigned char *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static uint64_t
wyhash_long(const unsigned char *key, size_t size, uint64_t seed, const uint64_t secret[4])
{
    size_t left = size;
    if (left >= 48) {
        uint64_t second = seed, third = seed;
        for (; left >= 48; left -= 48, key += 48) {
            seed = wyhash_mix(load_word(key) ^ secret[1], load_word(key + 8) ^ seed);
            second = wyhash_mix(load_word(key + 16) ^ secret[2], load_word(key + 24) ^ second);
            third = wyhash_mix(load_word(key + 32) ^ secret[3], load_word(key + 40) ^ third);
        }
        seed ^= second ^ third;
    }
    for (; left > 16; left -= 16, key += 16) {
        seed = wyhash_mix(load_word(key) ^ secret[1], load_word(key + 8) ^ seed);
    }
    return seed;
}

static inline uint64_t
wyhash(const void *data, size_t size, uint64_t seed, const uint64_t secret[4])
{
    const unsigned char *key = data;
    uint64_t a = 0, b = 0;
    seed ^= wyhash_mix(seed ^ secret[0], secret[1]);
    if (size > 16) {
        seed = wyhash_long(key, size, seed, secret);
        a = load_word(key + size - 16);
        b = load_word(key + size - 8);
    }
    else if (size >= 4) {
        size_t middle = (size >> 3) << 2;
        a = load_half(key) << 32 | load_half(key + middle);
        b = load_half(key + size - 4) << 32 | load_half(key + size - 4 - middle);
    }
    else if (size) {
        a = (uint64_t)key[0] << 16 | (uint64_t)key[size >> 1] << 8 | key[size - 1];
    }
    wide product = (wide)(a ^ secret[1]) * (b ^ seed);
    return wyhash_mix((uint64_t)product ^ secret[0] ^ size, (uint64_t)(product >> 64) ^ secret[1]);
}

#define CRC_POLYNOMIAL UINT32_C(0xEDB88320)

struct crc_tables {
    uint32_t by_byte[8][256];
};

static void
crc_prepare(struct crc_tables *tables)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? CRC_POLYNOMIAL : 0);
        }
        tables->by_byte[0][byte] = crc;
    }
    for (int table = 1; table < 8; table++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = tables->by_byte[table - 1][byte];
            tables->by_byte[table][byte] = crc >> 8 ^ tables->by_byte[0][crc & 0xFF];
        }
    }
}

/* Return the CRC-32 of what ``crc`` is the CRC-32 of, followed by these bytes. */
static uint32_t
crc32_of(const struct crc_tables *tables, uint32_t crc, const void *data, size_t size)
{
    const uint32_t (*by)[256] = tables->by_byte;
    const unsigned char *in = data;
    crc = ~crc;
    for (; size >= 8; size -= 8, in += 8) {
        uint64_t word = load_word(in) ^ crc;
        crc = by[7][word & 0xFF] ^ by[6][word >> 8 & 0xFF] ^ by[5][word >> 16 & 0xFF] ^
              by[4][word >> 24 & 0xFF] ^ by[3][word >> 32 & 0xFF] ^ by[2][word >> 40 & 0xFF] ^
              by[1][word >> 48 & 0xFF] ^ by[0][word >> 56];
    }
    for (; size; size--, in++) {
        crc = crc >> 8 ^ by[0][(crc ^ *in) & 0xFF];
    }
    return ~crc;
}

#endif
