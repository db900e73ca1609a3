"""Entries as bytes: what is stored comes back, damage is named, and which version is seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from struct import unpack_from
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmstore.errors import InvalidKey
from shmstore.layout import (
    ALIGNED_VALUE_BYTES_MIN,
    CACHE_LINE_BYTES,
    CLASS_BYTES,
    CLASS_HEAD,
    CLASS_STR,
    DEAD,
    ENTRY_HEADER_BYTES,
    GRANULE_BYTES,
    INSERTION_MASK,
    KEY_BYTES_MAX,
    KIND_GHOST,
    KIND_SORTED,
    NAME_BYTES_MAX,
    PREV_FIELD,
    SEQ_FIELD,
    VACATED,
    VALUE_BYTES_MAX,
    VERSION_HOPS_MAX,
    WORD_BYTES,
)
from shmstore.pure.records import (
    Damaged,
    Entry,
    Overtaken,
    Shape,
    created_of,
    entry_checksum,
    key_object,
    key_parts,
    list_name,
    load_entry,
    load_key,
    load_shape,
    load_sort,
    load_value,
    sort_word,
    split_list_name,
    store_entry,
    visible,
)

MEMORY_BYTES = 1 << 17
WORD_MASK = (1 << 64) - 1

kinds = st.sampled_from([CLASS_HEAD, CLASS_STR, CLASS_BYTES]).flatmap(
    lambda key_class: st.sampled_from([0, KIND_GHOST, KIND_SORTED, KIND_GHOST | KIND_SORTED]).map(
        lambda flags: key_class | flags
    )
)
sizes = st.integers(0, 60) | st.integers(4080, 4200) | st.integers(0, 30_000)
words64 = st.integers(0, WORD_MASK)


@contextmanager
def memory(size: int = MEMORY_BYTES, fill: int = 0xA5) -> Iterator[tuple[memoryview, memoryview]]:
    """The same memory as bytes and as words."""
    data = memoryview(bytearray([fill]) * size)
    words = data.cast("Q")
    try:
        yield data, words
    finally:
        words.release()
        data.release()


@given(
    granule=st.integers(1, 500),
    key=st.binary(max_size=70),
    kind=kinds,
    sort=words64,
    value_size=sizes,
    seq=st.integers(1, DEAD - 1),
    prev=words64,
    insertion=st.integers(0, INSERTION_MASK),
    scope=words64,
)
def test_what_is_stored_comes_back_and_nothing_else_is_touched(
    granule, key, kind, sort, value_size, seq, prev, insertion, scope
) -> None:
    value = os.urandom(value_size)
    shape = Shape(len(key), kind, value_size)
    entry = Entry(granule, seq, prev, insertion, scope, shape, 0)
    expected_sort = sort if kind & KIND_SORTED else None
    start, end = granule * GRANULE_BYTES, (granule + shape.granules) * GRANULE_BYTES
    with memory() as (data, words):
        store_entry(data, entry, key, expected_sort, value)
        found = load_entry(words, granule)
        assert found._replace(checksum=0) == entry
        assert found.checksum == entry_checksum(words, data, found)
        at = granule * 2
        assert load_shape(words, at) == shape
        assert load_key(data, at, shape) == key
        assert load_sort(data, at, shape) == expected_sort
        assert load_value(words, data, at) == value
        outside = bytes(data[:start]) + bytes(data[end:])
        assert outside == b"\xa5" * len(outside), "the entry reaches beyond its block"


@given(
    key_size=st.integers(0, KEY_BYTES_MAX), kind=kinds, value_size=st.integers(0, VALUE_BYTES_MAX)
)
def test_a_block_holds_its_entry_wherever_it_lies_and_not_much_more(
    key_size, kind, value_size
) -> None:
    shape = Shape(key_size, kind, value_size)
    size = shape.granules * GRANULE_BYTES
    aligned = value_size >= ALIGNED_VALUE_BYTES_MIN
    for granule in range(256, 256 + CACHE_LINE_BYTES // GRANULE_BYTES):
        offset = granule * GRANULE_BYTES
        start = shape.value_start(offset)
        sort = WORD_BYTES if kind & KIND_SORTED else 0
        assert start >= offset + ENTRY_HEADER_BYTES + key_size + sort
        assert start + value_size <= offset + size
        assert not aligned or start % CACHE_LINE_BYTES == 0
    spare = size - ENTRY_HEADER_BYTES - key_size - sort - value_size
    assert spare < GRANULE_BYTES + (CACHE_LINE_BYTES if aligned else 0)


def test_the_fields_stand_where_the_format_says() -> None:
    shape = Shape(3, CLASS_STR | KIND_SORTED, 5)
    entry = Entry(2, 77, 0xABCDE, 0x123456789, 0xFEDCBA9876543210, shape, 0)
    with memory(256, 0) as (data, words):
        store_entry(data, entry, b"key", 0x8000000000000005, b"value")
        sizes, seq, prev, shape_word, scope = unpack_from("<5Q", data, 32)
        assert (sizes & 0xFFFFFFFF, seq, prev, scope) == (5, 77, 0xABCDE, 0xFEDCBA9876543210)
        assert shape_word == 0x123456789 | (CLASS_STR | KIND_SORTED) << 43 | 3 << 47
        tail = b"key" + (0x8000000000000005).to_bytes(8, "little") + b"value"
        assert bytes(data[72 : 72 + 16]) == tail
        assert bytes(data[88:]) == bytes(168)
        assert load_entry(words, 2).checksum == sizes >> 32


def test_the_largest_key_and_the_largest_sizes_fit_their_fields() -> None:
    shape = Shape(KEY_BYTES_MAX, CLASS_BYTES | KIND_SORTED | KIND_GHOST, 0)
    entry = Entry(1, 1, 0, INSERTION_MASK, 0, shape, 0)
    with memory() as (data, words):
        store_entry(data, entry, b"k" * KEY_BYTES_MAX, WORD_MASK, b"")
        assert load_entry(words, 1)._replace(checksum=0) == entry
        assert load_sort(data, 2, shape) == WORD_MASK
    assert VALUE_BYTES_MAX < 1 << 32


@pytest.mark.parametrize("value_size", [5, ALIGNED_VALUE_BYTES_MIN])
def test_the_checksum_covers_every_bit_but_itself_prev_and_padding(value_size: int) -> None:
    shape = Shape(3, CLASS_STR | KIND_SORTED, value_size)
    entry = Entry(1, 9, 4, 8, 1 << 63, shape, 0)
    start = shape.value_start(GRANULE_BYTES)
    with memory(1 << 13, 0) as (data, words):
        store_entry(data, entry, b"key", 5, b"v" * value_size)
        stored = load_entry(words, 1)
        assert stored.checksum == entry_checksum(words, data, stored)
        sizes = range(16, 20)  # a changed size would also change what is covered
        checksum, prev = range(20, 24), range(32, 40)
        padding = range(GRANULE_BYTES + shape.header_bytes, start)
        covered = set(range(16, start + value_size)) - {*sizes, *checksum, *prev, *padding}
        for at in range(24, min(len(data), start + value_size + 16)):
            for bit in range(8) if at < 128 else (at % 8,):
                data[at] ^= 1 << bit
                changed = load_entry(words, 1)
                if changed.shape.key_size == 3 and changed.shape.kind == shape.kind:
                    differs = entry_checksum(words, data, changed) != stored.checksum
                    assert differs == (at in covered), f"byte {at}, bit {bit}"
                data[at] ^= 1 << bit
        shorter = stored._replace(shape=shape._replace(value_size=value_size - 1))
        assert entry_checksum(words, data, shorter) != stored.checksum


@pytest.mark.parametrize("value_size", [100, ALIGNED_VALUE_BYTES_MIN])
def test_an_entry_that_reaches_out_of_the_memory_is_damage(value_size: int) -> None:
    with memory(1 << 13, 0) as (data, words):
        last = len(data) // GRANULE_BYTES - 3
        words[last * 2] = value_size
        with pytest.raises(Damaged, match="outside"):
            load_value(words, data, last * 2)
        with pytest.raises(Damaged, match="outside"):
            load_sort(data, last * 2, Shape(5, CLASS_STR | KIND_SORTED, 0))
        assert load_sort(data, last * 2, Shape(5, CLASS_STR, 0)) is None
        assert load_sort(data, last * 2, Shape(0, CLASS_STR | KIND_SORTED, 0)) == 0


@pytest.mark.parametrize("granule", [(1 << 13) // GRANULE_BYTES - 2, 1 << 20, 1 << 36])
def test_an_entry_outside_the_memory_is_damage(granule: int) -> None:
    with memory(1 << 13, 0) as (_, words):
        with pytest.raises((Damaged, IndexError)):
            load_entry(words, granule)


def versions(words: memoryview, *chain: tuple[int, int]) -> int:
    """Lay out entries of (seq, prev or None for the next one); return the first's word."""
    for i, (seq, prev) in enumerate(chain):
        entry = (i + 1) * 8
        words[entry + SEQ_FIELD] = seq
        words[entry + PREV_FIELD] = prev
    return 8


def granule_of(number: int) -> int:
    return (number + 1) * 4


class TestVisible:
    """Which version a reader of some batch sees."""

    @pytest.mark.parametrize(
        ("committed", "expected"), [(9, 1), (8, 1), (7, 2), (5, 2), (4, 3), (3, 3), (2, 0), (0, 0)]
    )
    @pytest.mark.parametrize("oldest", [0, VACATED])
    def test_it_is_the_last_one_of_a_batch_not_later(self, committed, expected, oldest) -> None:
        with memory(4096, 0) as (_, words):
            entry = versions(words, (8, granule_of(1)), (5, granule_of(2)), (3, oldest))
            assert visible(words, entry, committed) == expected * 8

    @pytest.mark.parametrize(("committed", "expected"), [(3, 8), (6, 8), (7, 0), (9, 0)])
    def test_a_deleted_entry_is_seen_by_the_batches_before(self, committed, expected) -> None:
        with memory(4096, 0) as (_, words):
            entry = versions(words, (3, DEAD | 7))
            assert visible(words, entry, committed) == expected

    def test_an_entry_written_and_deleted_meanwhile_hides_what_was_before(self) -> None:
        with memory(4096, 0) as (_, words), pytest.raises(Overtaken):
            visible(words, versions(words, (3, DEAD | 7)), 2)

    def test_a_deleted_older_version_is_seen_as_deleted(self) -> None:
        with memory(4096, 0) as (_, words):
            entry = versions(words, (9, granule_of(1)), (3, DEAD | 7))
            assert visible(words, entry, 8) == 0
            assert visible(words, entry, 6) == 16
            assert visible(words, entry, 9) == 8

    def test_only_some_versions_are_followed(self) -> None:
        chain = [(100 - i, granule_of(i + 1)) for i in range(VERSION_HOPS_MAX + 1)]
        with memory(4096, 0) as (_, words):
            entry = versions(words, *chain)
            oldest = 100 - VERSION_HOPS_MAX + 1
            assert visible(words, entry, oldest) == VERSION_HOPS_MAX * 8
            with pytest.raises(Overtaken):
                visible(words, entry, oldest - 1)

    def test_a_circle_of_versions_ends(self) -> None:
        with memory(4096, 0) as (_, words):
            entry = versions(words, (9, granule_of(1)), (8, granule_of(0)))
            with pytest.raises(Overtaken):
                visible(words, entry, 3)

    def test_a_version_outside_the_memory_is_no_entry(self) -> None:
        with memory(4096, 0) as (_, words), pytest.raises(IndexError):
            visible(words, versions(words, (9, 1 << 36)), 3)


class Text(str):
    __slots__ = ()

    def encode(self, *arguments: str) -> bytes:
        return b"not what it seems"


class Bytes(bytes):
    def __len__(self) -> int:
        return 0


@given(st.text() | st.binary())
def test_a_key_comes_back_as_it_was_given(key: str | bytes) -> None:
    key_class, encoded = key_parts(key)
    assert key_class == (CLASS_STR if isinstance(key, str) else CLASS_BYTES)
    again = key_object(key_class, encoded)
    assert (type(again), again) == (type(key), key)


def test_str_and_bytes_keys_of_equal_bytes_differ() -> None:
    assert key_parts("key") == (CLASS_STR, b"key")
    assert key_parts(b"key") == (CLASS_BYTES, b"key")


def test_a_subclass_of_str_or_bytes_is_taken_for_what_it_holds() -> None:
    assert key_parts(Text("key")) == (CLASS_STR, b"key")
    assert key_parts(Bytes(b"key")) == (CLASS_BYTES, b"key")


@pytest.mark.parametrize("key", [None, 1, 1.5, True, ("a",), bytearray(b"a"), memoryview(b"a")])
def test_other_types_are_no_keys(key: object) -> None:
    with pytest.raises(InvalidKey, match=f"not {type(key).__name__}"):
        key_parts(key)


def test_a_key_of_surrogates_says_what_to_do() -> None:
    with pytest.raises(InvalidKey, match="bytes key"):
        key_parts("\ud800")


@pytest.mark.parametrize("unit", ["k", "\N{SNOWMAN}", b"k"])
def test_the_longest_key_is_counted_in_bytes(unit: Any) -> None:
    size = len(unit.encode() if isinstance(unit, str) else unit)
    longest = unit * (KEY_BYTES_MAX // size)
    assert len(key_parts(longest)[1]) <= KEY_BYTES_MAX
    with pytest.raises(InvalidKey, match="too long") as caught:
        key_parts(longest + unit)
    assert caught.value.details["limit"] == KEY_BYTES_MAX


def test_a_text_key_that_is_no_text_is_damage() -> None:
    with pytest.raises(Damaged, match="no UTF-8"):
        key_object(CLASS_STR, b"\xff")


names = st.text().filter(lambda text: len(text.encode()) <= NAME_BYTES_MAX)


@given(first=st.tuples(names, names, st.binary()), second=st.tuples(names, names, st.binary()))
def test_lists_have_the_same_name_only_if_they_are_the_same(first, second) -> None:
    table, namespace, index = first
    assert split_list_name(list_name(*first)) == (table.encode(), namespace.encode(), index)
    assert (list_name(*first) == list_name(*second)) == (first == second)


@pytest.mark.parametrize(("table", "namespace"), [("x" * 256, ""), ("", "ä" * 128), ("\ud800", "")])
def test_a_name_that_does_not_fit_is_an_error(table: str, namespace: str) -> None:
    with pytest.raises(InvalidKey):
        list_name(table, namespace)


@pytest.mark.parametrize("name", [None, 1, b"bytes"])
def test_a_name_that_is_no_text_is_an_error(name: object) -> None:
    with pytest.raises(InvalidKey, match="is a str"):
        list_name(name, "")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [b"", b"\x03ab", b"\x01a", b"\x00\x02a", b"\x02ab"])
def test_a_damaged_list_name_is_damage(name: bytes) -> None:
    with pytest.raises(Damaged, match="unreadable"):
        split_list_name(name)


created = st.integers(-(2**63), 2**63 - 1)


@given(created, created)
def test_sort_words_order_as_the_times_do(one: int, other: int) -> None:
    assert 0 <= sort_word(one) < 1 << 64
    assert created_of(sort_word(one)) == one
    assert (sort_word(one) < sort_word(other)) == (one < other)
