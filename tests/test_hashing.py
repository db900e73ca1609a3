"""The keyed hash is wyhash, final version 4.2, bit for bit: the format depends on it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmstore.pure.hashing import Secret, wyhash

SECRET = (0x2D358DCCAA6C78A5, 0x8BB84B93962EACC9, 0x4B33A62ED433D4A3, 0x4D5A2DA51DE1AA47)
"""The default secret of the published algorithm."""
MASK = (1 << 64) - 1
VECTORS = (
    (b"", 0x93228A4DE0EEC5A2),
    (b"a", 0xC5BAC3DB178713C4),
    (b"abc", 0xA97F2F7B1D9B3314),
    (b"message digest", 0x786D1F1DF3801DF4),
    (string.ascii_lowercase.encode(), 0xDCA5A8138AD37C87),
    (
        (string.ascii_uppercase + string.ascii_lowercase + string.digits).encode(),
        0xB9E734F117CFAF70,
    ),
    (b"1234567890" * 8, 0x6CC5EAB49A92D617),
)
"""Those of its author; the seed is the position here."""

words = st.integers(0, MASK)
secrets = st.tuples(words, words, words, words)


def mum(a: int, b: int) -> tuple[int, int]:
    return a * b & MASK, a * b >> 64


def mix(a: int, b: int) -> int:
    low, high = mum(a, b)
    return low ^ high


def read(key: bytes, at: int, size: int) -> int:
    assert 0 <= at <= len(key) - size
    return int.from_bytes(key[at : at + size], "little")


def transcribed(key: bytes, seed: int, secret: Secret) -> int:
    """The C source line by line, with nothing made fast and every load within the key."""
    size, at = len(key), 0
    seed ^= mix(seed ^ secret[0], secret[1])
    if size <= 16:
        if size >= 4:
            half = size >> 3 << 2
            a = read(key, 0, 4) << 32 | read(key, half, 4)
            b = read(key, size - 4, 4) << 32 | read(key, size - 4 - half, 4)
        elif size > 0:
            a, b = key[0] << 16 | key[size >> 1] << 8 | key[size - 1], 0
        else:
            a = b = 0
    else:
        left = size
        if left >= 48:
            see1 = see2 = seed
            while left >= 48:
                seed = mix(read(key, at, 8) ^ secret[1], read(key, at + 8, 8) ^ seed)
                see1 = mix(read(key, at + 16, 8) ^ secret[2], read(key, at + 24, 8) ^ see1)
                see2 = mix(read(key, at + 32, 8) ^ secret[3], read(key, at + 40, 8) ^ see2)
                at += 48
                left -= 48
            seed ^= see1 ^ see2
        while left > 16:
            seed = mix(read(key, at, 8) ^ secret[1], read(key, at + 8, 8) ^ seed)
            at += 16
            left -= 16
        a, b = read(key, at + left - 16, 8), read(key, at + left - 8, 8)
    a, b = mum(a ^ secret[1], b ^ seed)
    return mix(a ^ secret[0] ^ size, b ^ secret[1])


@pytest.mark.parametrize("seed", range(len(VECTORS)))
def test_the_published_vectors(seed: int) -> None:
    key, expected = VECTORS[seed]
    assert wyhash(key, seed, SECRET) == expected
    assert transcribed(key, seed, SECRET) == expected


@pytest.mark.parametrize("size", [*range(0, 68), 95, 96, 97, 111, 112, 113, 144, 1000, 1 << 16])
def test_every_length_as_the_source_says(size: int) -> None:
    key = bytes((i * 151 + 7) % 256 for i in range(size))
    assert wyhash(key, size, SECRET) == transcribed(key, size, SECRET)


@given(key=st.binary(max_size=200), seed=words, secret=secrets)
def test_any_key_seed_and_secret_as_the_source_says(key: bytes, seed: int, secret: Secret) -> None:
    assert wyhash(key, seed, secret) == transcribed(key, seed, secret)
    assert 0 <= wyhash(key, seed, secret) <= MASK


def test_each_bit_of_key_and_seed_counts() -> None:
    number, size = int.from_bytes(bytes(range(80)), "little"), 80
    keys = [number ^ (1 << bit) for bit in range(size * 8)]
    hashes = {wyhash(each.to_bytes(size, "little"), 1, SECRET) for each in (number, *keys)}
    hashes.update(
        wyhash(number.to_bytes(size, "little"), 1 ^ 1 << bit, SECRET) for bit in range(64)
    )
    assert len(hashes) == 1 + size * 8 + 64


@pytest.mark.parametrize("word", range(4))
def test_each_word_of_the_secret_counts(word: int) -> None:
    changed = [each ^ (i == word) for i, each in enumerate(SECRET)]
    key = bytes(range(80))
    assert wyhash(key, 1, (*changed,)) != wyhash(key, 1, SECRET)  # type: ignore[arg-type]
