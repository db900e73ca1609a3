"""The keyed hash of the index: wyhash (final version 4, Wang Yi, public domain).

Chosen because it is among the fastest well-known hashes for short keys in C and also cheap in
Python, whose integers multiply 64 x 64 bits exactly. Seed and secret are random per segment, so
that nobody can prepare keys that collide. They are not a defence against someone who can read
the segment; nothing here needs one.
"""

from __future__ import annotations

from struct import Struct

_MASK = (1 << 64) - 1
_six_words = Struct("<6Q").unpack_from
_two_words = Struct("<2Q").unpack_from
_word = Struct("<Q").unpack_from
_half = Struct("<I").unpack_from

Secret = tuple[int, int, int, int]


def _mix(a: int, b: int) -> int:
    product = a * b
    return (product & _MASK) ^ (product >> 64)


def wyhash(key: bytes, seed: int, secret: Secret) -> int:
    """Return the 64-bit hash of ``key``; cost grows by one multiplication per 16 bytes."""
    s0, s1, _, _ = secret
    size = len(key)
    product = (seed ^ s0) * s1
    seed ^= (product & _MASK) ^ (product >> 64)
    if size > 16:
        seed, a, b = _long(key, size, seed, secret)
    elif size >= 8:
        a = _half(key, 0)[0] << 32 | _half(key, (size >> 3) << 2)[0]
        b = _half(key, size - 4)[0] << 32 | _half(key, size - 4 - ((size >> 3) << 2))[0]
    elif size >= 4:
        a = _half(key, 0)[0] * 0x1_0000_0001
        b = _half(key, size - 4)[0] * 0x1_0000_0001
    elif size:
        a, b = key[0] << 16 | key[size >> 1] << 8 | key[size - 1], 0
    else:
        a = b = 0
    product = (a ^ s1) * (b ^ seed)
    product = ((product & _MASK) ^ s0 ^ size) * ((product >> 64) ^ s1)
    return (product & _MASK) ^ (product >> 64)


def _long(key: bytes, size: int, seed: int, secret: Secret) -> tuple[int, int, int]:
    _, s1, s2, s3 = secret
    at = 0
    if size - at >= 48:
        second = third = seed
        while size - at >= 48:
            w0, w1, w2, w3, w4, w5 = _six_words(key, at)
            seed = _mix(w0 ^ s1, w1 ^ seed)
            second = _mix(w2 ^ s2, w3 ^ second)
            third = _mix(w4 ^ s3, w5 ^ third)
            at += 48
        seed ^= second ^ third
    while size - at > 16:
        w0, w1 = _two_words(key, at)
        seed = _mix(w0 ^ s1, w1 ^ seed)
        at += 16
    return seed, _word(key, size - 16)[0], _word(key, size - 8)[0]
