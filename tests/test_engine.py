"""What every engine does: one contract for Reader and Owner, on a segment in this process."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shmstore import segment as memory_file
from shmstore.codec import index_name, message_pack, message_unpack
from shmstore.errors import (
    CorruptSegment,
    FormatMismatch,
    InvalidKey,
    ReadStalled,
    StoreFull,
    UnknownCursor,
)
from shmstore.layout import (
    CAPACITY_WORD,
    FREE_CLOCK_WORD,
    HORIZON_WORD,
    KEY_BYTES_MAX,
    VERSION_WORD,
    WORD_BYTES,
)
from tests.segments import CAPACITY, Segment, copy_of, nothing

STATUS = index_name("status", "on")
OTHER = index_name("status", "off")


@pytest.fixture
def segment(engine: ModuleType) -> Iterator[Segment]:
    made = Segment(engine)
    yield made
    assert made.owner.check() == []
    made.close()


@contextmanager
def closing_owner(engine: ModuleType, memory: mmap.mmap, release: Any) -> Iterator[Any]:
    owner = engine.Owner.create(memory, nothing, release)
    try:
        yield owner
    finally:
        owner.close()


def keys_of(items: list[Any]) -> list[Any]:
    return [item[0] for item in items]


def all_keys(segment: Segment, table: str = "t", namespace: str = "", index: bytes = b"") -> Any:
    """The keys of a list, oldest first, as readers have them both ways round."""
    reader = segment.reader
    items = reader.chunk(table, namespace, index, None, None, False)
    assert reader.chunk(table, namespace, index, None, None, True) == items[::-1]
    assert reader.count(table, namespace, index) == len(items)
    return keys_of(items)


def store(segment: Segment, key: str, created: int, *indexes: bytes, value: bytes = b"") -> None:
    """Commit one record of a store."""
    old = segment.owner.find("s", "n", key)
    olds = (STATUS,) if old and old.value == b"indexed" else ()
    value = b"indexed" if STATUS in indexes else value or key.encode()
    segment.owner.put("s", "n", key, value, created, olds, indexes)
    segment.owner.commit()


class TestReading:
    def test_an_empty_segment_has_nothing(self, segment: Segment) -> None:
        reader = segment.reader
        scope = reader.scope("t", "")
        assert reader.get(scope, "k") is None
        assert reader.get_versioned(scope, "k") is None
        assert reader.version(scope, "k") is None
        assert reader.contains(scope, "k") is False
        assert reader.get_many(scope, ["k", b"k"]) == [None, None]
        assert reader.get_many(scope, []) == []
        assert reader.count("t", "") == 0
        assert reader.chunk("t", "", b"", None, None, True) == []
        assert reader.page("t", "", 10, None, None) == [[], False]
        assert reader.info()["committed"] == segment.owner.committed == 0

    @pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 16, 100, 4095, 4096, 4097, 65_536, 300_001])
    def test_a_value_of_any_size_comes_back(self, segment: Segment, size: int) -> None:
        for key in ("", "k", "key of another alignment"):
            value = os.urandom(size)
            version = segment.put(key, value)
            reader, scope = segment.reader, segment.reader.scope("t", "")
            assert reader.get(scope, key) == value
            assert reader.get_versioned(scope, key) == (version, value)
            assert reader.version(scope, key) == version
            assert reader.contains(scope, key) is True

    @pytest.mark.parametrize("key", ["", b"", "k", b"k", "ключ", b"\xff\x00", "k" * KEY_BYTES_MAX])
    def test_any_key_is_found_and_comes_back_as_it_was(self, segment: Segment, key: Any) -> None:
        segment.put(key, b"value")
        segment.put("another", b"other")
        assert segment.get(key) == b"value"
        found = all_keys(segment)
        assert found == [key, "another"]
        assert type(found[0]) is type(key)

    def test_str_and_bytes_keys_are_different_keys(self, segment: Segment) -> None:
        segment.put("key", b"str")
        segment.put(b"key", b"bytes")
        scope = segment.reader.scope("t", "")
        assert segment.reader.get_many(scope, ["key", b"key"]) == [b"str", b"bytes"]
        assert segment.owner.remove("t", "", "key") is True
        segment.owner.commit()
        assert segment.reader.get_many(scope, ["key", b"key"]) == [None, b"bytes"]

    @pytest.mark.parametrize("key", [None, 1, "\ud800", b"k" * (KEY_BYTES_MAX + 1), ["k"]])
    def test_what_is_no_key_is_refused_by_every_method(self, segment: Segment, key: Any) -> None:
        reader, owner = segment.reader, segment.owner
        scope = reader.scope("t", "")
        calls: list[Callable[[], object]] = [
            lambda: reader.get(scope, key),
            lambda: reader.get_versioned(scope, key),
            lambda: reader.version(scope, key),
            lambda: reader.contains(scope, key),
            lambda: reader.get_many(scope, ["fine", key]),
            lambda: owner.find("t", "", key),
            lambda: owner.touched("t", "", key),
            lambda: owner.put("t", "", key, b""),
            lambda: owner.remove("t", "", key),
        ]
        for call in calls:
            with pytest.raises(InvalidKey):
                call()
        assert not owner.staged

    @pytest.mark.parametrize(("table", "namespace"), [("x" * 256, ""), ("", "\ud800"), (b"t", "")])
    def test_what_is_no_name_is_refused(self, segment: Segment, table: Any, namespace: Any) -> None:
        for call in (segment.reader.scope, segment.reader.count):
            with pytest.raises(InvalidKey):
                call(table, namespace)
        with pytest.raises(InvalidKey):
            segment.owner.put(table, namespace, "k", b"")
        assert not segment.owner.staged

    def test_tables_and_namespaces_are_apart(self, segment: Segment) -> None:
        places = [("t", ""), ("", "t"), ("ab", "c"), ("a", "bc"), ("x" * 255, "y" * 255), ("", "")]
        for place in places:
            segment.owner.put(*place, "k", repr(place).encode())
        segment.owner.commit()
        scopes = [segment.reader.scope(*place) for place in places]
        assert len(set(scopes)) == len(places)
        for place, scope in zip(places, scopes, strict=True):
            assert segment.reader.get(scope, "k") == repr(place).encode()
            assert segment.reader.count(*place) == 1

    def test_many_keys_in_the_order_asked_for(self, segment: Segment) -> None:
        for i in range(300):
            segment.owner.put("t", "", f"k{i}", str(i).encode())
        segment.owner.commit()
        asked = ["k7", "none", "k299", b"k7", "k7", "k0"]
        found = segment.reader.get_many(segment.reader.scope("t", ""), asked)
        assert found == [b"7", None, b"299", None, b"7", b"0"]

    def test_thousands_of_tables_and_namespaces(self, segment: Segment) -> None:
        names = [(f"t{i}", "") for i in range(500)] + [("s", f"n{i}") for i in range(500)]
        for i, name in enumerate(names):
            segment.owner.put(*name, "k", str(i).encode())
            if i % 100 == 0:
                segment.owner.commit()
        segment.owner.commit()
        for i, name in enumerate(names):
            assert segment.reader.get(segment.reader.scope(*name), "k") == str(i).encode()
            assert segment.reader.count(*name) == 1

    def test_arguments_and_results_can_travel(self, segment: Segment) -> None:
        """A reader that is overtaken asks the writer to call the same method."""
        for i in range(5):
            store(segment, f"id{i}", i, STATUS)
        scope = segment.reader.scope("s", "n")
        calls: list[tuple[str, list[Any]]] = [
            ("get", [scope, "id1"]),
            ("get_versioned", [scope, "id1"]),
            ("version", [scope, "id1"]),
            ("contains", [scope, b"id1"]),
            ("get_many", [scope, ["id1", b"id1"]]),
            ("count", ["s", "n", STATUS]),
            ("chunk", ["s", "n", STATUS, [1, 2], 2, False]),
            ("page", ["s", "n", 2, "id3", None]),
            ("info", []),
        ]
        for name, arguments in calls:
            method = getattr(segment.reader, name)
            result = method(*arguments)
            travelled = method(*message_unpack(message_pack(arguments)))
            assert travelled == result
            expected = list(result) if isinstance(result, tuple) else result
            assert message_unpack(message_pack(result)) == expected

    def test_a_reader_in_read_only_memory(self, engine: ModuleType) -> None:
        fd = memory_file.create(CAPACITY)
        reading = memory_file.open_readonly(fd)
        with memory_file.map_writable(fd) as memory, memory_file.map_readonly(reading) as view:
            owner = engine.Owner.create(memory, nothing, nothing)
            reader = engine.Reader(view)
            scope = reader.scope("t", "")
            assert reader.segment_id == owner.reader.segment_id
            assert reader.capacity == CAPACITY
            for i in range(20):
                owner.put("t", "", "k", str(i).encode())
                assert reader.get(scope, "k") == (str(i - 1).encode() if i else None)
                owner.commit()
                assert reader.get(scope, "k") == str(i).encode()
            reader.close()
            owner.close()
        os.close(fd)
        os.close(reading)

    def test_segments_have_ids_and_secrets_of_their_own(self, engine: ModuleType) -> None:
        one, other = Segment(engine), Segment(engine)
        assert len(one.reader.segment_id) == 16
        assert one.reader.segment_id != other.reader.segment_id
        assert one.reader.scope("t", "") != other.reader.scope("t", "")
        one.close()
        other.close()


class TestRefusals:
    def test_memory_that_holds_no_segment(self, engine: ModuleType, segment: Segment) -> None:
        with copy_of(segment.memory) as memory:
            memory[:8] = b"HMSTORE0"
            assert not engine.is_formatted(memory)
            for open_it in (engine.Reader, lambda m: engine.Owner.take_over(m, nothing, nothing)):
                with pytest.raises(FormatMismatch, match="no shmstore segment"):
                    open_it(memory)

    def test_a_segment_of_another_format(self, engine: ModuleType, segment: Segment) -> None:
        with copy_of(segment.memory) as memory:
            memory[VERSION_WORD * WORD_BYTES] = 2
            assert engine.is_formatted(memory)
            with pytest.raises(FormatMismatch, match="format 2") as caught:
                engine.Reader(memory)
            assert caught.value.details == {"found": 2, "expected": 1}

    def test_a_segment_of_another_size(self, engine: ModuleType, segment: Segment) -> None:
        with copy_of(segment.memory) as memory:
            memory[CAPACITY_WORD * WORD_BYTES] ^= 1
            with pytest.raises(CorruptSegment, match="bytes"):
                engine.Reader(memory)

    def test_a_reader_that_is_always_overtaken_gives_up(
        self, engine: ModuleType, segment: Segment
    ) -> None:
        segment.put("k", b"v")
        with copy_of(segment.memory) as memory:
            reader = engine.Reader(memory)
            words = memoryview(memory).cast("Q")
            words[HORIZON_WORD] = words[FREE_CLOCK_WORD] + 1
            words.release()
            for call in (
                lambda: reader.get(reader.scope("t", ""), "k"),
                lambda: reader.count("t", ""),
                lambda: reader.chunk("t", "", b"", None, None, False),
                lambda: reader.page("t", "", 1, None, None),
            ):
                with pytest.raises(ReadStalled):
                    call()
            assert reader.retries > 0
            reader.close()


class TestBatches:
    def test_nothing_is_seen_before_the_commit_and_all_after(self, segment: Segment) -> None:
        segment.put("old", b"1")
        owner = segment.owner
        version = owner.committed + 1
        assert owner.put("t", "", "old", b"2") == (version, False)
        assert owner.put("t", "", "new", b"3") == (version, True)
        assert owner.put("u", "", "new", b"4") == (version, True)
        assert (segment.get("old"), segment.get("new"), segment.get("new", "u")) == (
            b"1",
            None,
            None,
        )
        assert (segment.reader.count("t", ""), owner.count("t", "")) == (1, 2)
        assert owner.commit() == owner.committed == version
        assert (segment.get("old"), segment.get("new"), segment.get("new", "u")) == (
            b"2",
            b"3",
            b"4",
        )
        assert segment.reader.version(segment.reader.scope("t", ""), "old") == version

    def test_the_open_batch_sees_itself(self, segment: Segment) -> None:
        owner = segment.owner
        segment.put("a", b"1")
        segment.put("b", b"2")
        owner.put("t", "", "a", b"3")
        owner.remove("t", "", "b")
        owner.put("t", "", "c", b"4")
        found = owner.find("t", "", "a")
        assert found is not None
        assert (found.value, found.version, found.insertion) == (b"3", owner.committed + 1, 1)
        assert owner.find("t", "", "b") is None
        assert [owner.touched("t", "", key) for key in "abcd"] == [True, True, True, False]
        items = owner.chunk("t", "", b"", None, None, False)
        assert [item[:2] for item in items] == [["a", b"3"], ["c", b"4"]]
        assert owner.chunk("t", "", b"", [0, 1], 1, False) == items[1:]
        owner.commit()
        assert not any(owner.touched("t", "", key) for key in "abc")
        assert segment.reader.chunk("t", "", b"", None, None, False) == items

    def test_an_abort_leaves_no_trace(self, segment: Segment) -> None:
        owner = segment.owner
        for i in range(200):
            store(segment, f"id{i}", i, STATUS)
        before = segment.reader.chunk("s", "n", b"", None, None, False)
        used = owner.statistics()["used"]
        committed = owner.committed
        for i in range(0, 200, 3):
            owner.remove("s", "n", f"id{i}", (STATUS,), ghost=i % 2 == 0)
            owner.put("s", "n", f"id{i + 1}", b"changed", 5, (STATUS,), ())
            owner.put("t", "", f"new{i}", b"x" * i * 50)
        owner.clear("s", "n", (STATUS,))
        assert owner.staged
        owner.abort()
        assert not owner.staged
        assert owner.commit() == owner.committed == committed
        assert segment.reader.chunk("s", "n", b"", None, None, False) == before
        assert owner.chunk("s", "n", b"", None, None, False) == before
        assert owner.count("s", "n", STATUS) == 200
        assert owner.statistics()["used"] == used
        segment.put("next", b"")
        assert segment.reader.chunk("t", "", b"", None, None, False)[0][3] == 201

    def test_a_commit_of_nothing_is_no_batch(self, segment: Segment) -> None:
        owner = segment.owner
        version = segment.put("k", b"v")
        assert owner.commit() == version
        assert owner.remove("t", "", "missing") is False
        assert owner.clear("t", "elsewhere", ()) == 0
        assert not owner.staged
        assert owner.commit() == version

    def test_a_version_is_the_batch_that_wrote_the_record(self, segment: Segment) -> None:
        versions = [segment.put("k", b"same") for _ in range(20)]
        assert versions == list(range(1, 21))
        other = segment.put("other", b"")
        assert segment.reader.version(segment.reader.scope("t", ""), "k") == 20 < other

    def test_the_last_of_several_changes_of_a_key_counts(self, segment: Segment) -> None:
        owner = segment.owner
        for committed in (False, True):
            for steps in ("pp", "pr", "rp", "prp", "rpr", "ppr", "prpr", "rprp"):
                key = f"{steps}{committed}"
                if committed:
                    segment.put(key, b"first")
                expected = b"first" if committed else None
                for i, step in enumerate(steps):
                    if step == "p":
                        expected = f"{key} {i}".encode() * i
                        _, inserted = owner.put("t", "", key, expected)
                        assert inserted == ((i == 0 and not committed) or steps[i - 1 : i] == "r")
                    else:
                        was_there = expected is not None
                        assert owner.remove("t", "", key) is was_there
                        expected = None
                    found = owner.find("t", "", key)
                    assert (found and found.value) == expected
                owner.commit()
                assert segment.get(key) == expected
                assert (key in all_keys(segment)) == (expected is not None)
        assert owner.check() == []

    def test_a_commit_that_does_not_fit_changes_nothing(self, engine: ModuleType) -> None:
        """The heads of a hundred lists do not fit into what is kept for deletes."""
        segment = Segment(engine, 1 << 20)
        owner = segment.owner
        for table in range(100):
            for i in range(40):
                owner.put(f"t{table}", "", f"k{i}", b"v")
        owner.commit()
        fill(segment, 500)
        before = segment.reader.chunk("t7", "", b"", None, None, False)
        used, committed = owner.statistics()["used"], owner.committed
        for table in range(100):
            assert owner.remove(f"t{table}", "", "k3")
        with pytest.raises(StoreFull):
            owner.commit()
        assert not owner.staged
        assert (owner.committed, owner.statistics()["used"]) == (committed, used)
        assert segment.reader.chunk("t7", "", b"", None, None, False) == before
        assert owner.check() == []
        for table in range(100):
            owner.remove(f"t{table}", "", "k3")
            owner.commit()
        assert segment.reader.count("t7", "") == 39
        assert owner.check() == []
        segment.close()

    def test_equal_operations_give_equal_bytes(self, engine: ModuleType, segment: Segment) -> None:
        """So that two engines can take turns on one segment, and be compared."""

        def play(memory: Any) -> bytes:
            owner, rng = engine.Owner.take_over(memory, nothing, nothing), random.Random(9)
            for _ in range(300):
                change_anything(owner, rng)
                if rng.random() < 0.1:
                    owner.abort()
                owner.commit()
            assert owner.check() == []
            owner.close()
            return bytes(memory)

        with copy_of(segment.memory) as one, copy_of(segment.memory) as other:
            assert play(one) == play(other)


def change_anything(owner: Any, rng: random.Random) -> None:
    """Stage one change of some record of a plain table or a store."""
    key, chance = f"k{rng.randrange(60)}", rng.random()
    found = owner.find("s", "n", key)
    indexes = (found.value[:9],) if found else ()
    if chance < 0.4:
        owner.put("t", "", key, b"v" * rng.randrange(600))
    elif chance < 0.7:
        name = b"\x92f%d" % rng.randrange(3)
        value = name.ljust(9) + b"x" * rng.randrange(90)
        owner.put("s", "n", key, value, rng.randrange(9), indexes, (value[:9],))
    elif chance < 0.8:
        owner.remove("t", "", key)
    elif chance < 0.97:
        owner.remove("s", "n", key, indexes, ghost=True)
    elif chance < 0.985:
        owner.clear("t", "", ())
    else:
        names = [(b"\x92f%d" % i).ljust(9) for i in range(3)]
        owner.clear("s", "n", names)


class TestOrder:
    def test_a_plain_table_is_in_order_of_insertion(self, segment: Segment) -> None:
        keys = random.Random(4).sample(range(1000), 400)
        for i, key in enumerate(keys):
            segment.owner.put("t", "", f"k{key}", b"")
            if i % 37 == 0:
                segment.owner.commit()
        segment.owner.commit()
        expected = [f"k{key}" for key in keys]
        assert all_keys(segment) == expected
        segment.put(expected[5], b"replaced keeps its place")
        assert all_keys(segment) == expected
        segment.owner.remove("t", "", expected[5])
        segment.put(expected[5], b"removed and put again goes to the end")
        assert all_keys(segment) == expected[:5] + expected[6:] + [expected[5]]

    def test_a_store_is_in_order_of_created_then_insertion(self, segment: Segment) -> None:
        times = [5, -3, 0, 5, -(2**63) + 1, 2**63 - 1, -3, 0]
        for i, created in enumerate(times):
            store(segment, f"id{i}", created)
        expected = [f"id{i}" for _, i in sorted((created, i) for i, created in enumerate(times))]
        assert all_keys(segment, "s", "n") == expected
        items = segment.reader.chunk("s", "n", b"", None, None, False)
        assert [item[2] for item in items] == sorted(times)
        store(segment, "id2", 100)
        expected.remove("id2")
        expected.insert(-1, "id2")
        assert all_keys(segment, "s", "n") == expected

    @pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
    def test_a_list_is_read_in_parts(self, segment: Segment, count: int) -> None:
        for i in range(count):
            segment.owner.put("s", "n", f"id{i}", b"", i // 10)
        segment.owner.commit()
        for newest_first in (False, True):
            whole = segment.reader.chunk("s", "n", b"", None, None, newest_first)
            assert len(whole) == count
            for size in (1, 7, 64, count + 1):
                parts: list[Any] = []
                position = None
                while part := segment.reader.chunk("s", "n", b"", position, size, newest_first):
                    assert part == segment.owner.chunk("s", "n", b"", position, size, newest_first)
                    parts += part
                    position = [part[-1][2] or 0, part[-1][3]]
                    if count > 65 and len(parts) > 20:
                        break
                assert parts == whole[: len(parts)]
        assert segment.reader.chunk("s", "n", b"", None, 0, True) == []

    def test_a_walk_goes_on_from_a_record_that_is_gone(self, segment: Segment) -> None:
        for i in range(10):
            store(segment, f"id{i}", i)
        first = segment.reader.chunk("s", "n", b"", None, 4, False)
        position = [first[-1][2], first[-1][3]]
        segment.owner.remove("s", "n", "id3")
        segment.owner.remove("s", "n", "id4")
        segment.owner.commit()
        rest = segment.reader.chunk("s", "n", b"", position, None, False)
        assert keys_of(rest) == [f"id{i}" for i in range(5, 10)]
        back = segment.reader.chunk("s", "n", b"", position, None, True)
        assert keys_of(back) == ["id2", "id1", "id0"]


class TestIndexes:
    def test_a_record_is_in_the_lists_it_names(self, segment: Segment) -> None:
        for i in range(6):
            segment.owner.put("s", "n", f"id{i}", b"", 5, (), (STATUS,) if i % 2 else (OTHER,))
        segment.owner.commit()
        assert all_keys(segment, "s", "n", STATUS) == ["id1", "id3", "id5"]
        assert all_keys(segment, "s", "n", OTHER) == ["id0", "id2", "id4"]
        assert len(all_keys(segment, "s", "n")) == 6

    def test_a_record_changes_lists_and_place(self, segment: Segment) -> None:
        owner = segment.owner
        for i in range(4):
            owner.put("s", "n", f"id{i}", b"", i, (), (STATUS,))
        owner.put("s", "n", "id1", b"", 1, (STATUS,), (OTHER,))
        owner.commit()
        assert all_keys(segment, "s", "n", STATUS) == ["id0", "id2", "id3"]
        owner.put("s", "n", "id0", b"", 9, (STATUS,), (STATUS, OTHER))
        owner.put("s", "n", "id2", b"", 2, (STATUS,), ())
        owner.commit()
        assert all_keys(segment, "s", "n", STATUS) == ["id3", "id0"]
        assert all_keys(segment, "s", "n", OTHER) == ["id1", "id0"]
        owner.remove("s", "n", "id1", (OTHER,))
        owner.remove("s", "n", "id0", (STATUS, OTHER))
        owner.commit()
        assert all_keys(segment, "s", "n", STATUS) == ["id3"]
        assert all_keys(segment, "s", "n", OTHER) == []

    def test_a_record_is_put_into_new_lists_and_keeps_its_version(self, segment: Segment) -> None:
        for i in range(5):
            store(segment, f"id{i}", i)
        scope = segment.reader.scope("s", "n")
        before = segment.reader.get_versioned(scope, "id2")
        for key in ("id2", "id4"):
            segment.owner.reindex("s", "n", key, (), (STATUS,))
        assert all_keys(segment, "s", "n", STATUS) == []
        segment.owner.commit()
        assert all_keys(segment, "s", "n", STATUS) == ["id2", "id4"]
        assert segment.reader.get_versioned(scope, "id2") == before

    def test_lists_of_other_namespaces_are_others(self, segment: Segment) -> None:
        segment.owner.put("s", "n", "id", b"one", 1, (), (STATUS,))
        segment.owner.put("s", "m", "id", b"two", 1, (), (STATUS,))
        segment.owner.commit()
        [item] = segment.reader.chunk("s", "m", STATUS, None, None, False)
        assert item[1] == b"two"
        segment.owner.clear("s", "n", (STATUS,))
        segment.owner.commit()
        assert segment.reader.count("s", "n", STATUS) == 0
        assert segment.reader.count("s", "m", STATUS) == 1

    def test_items_without_values(self, segment: Segment) -> None:
        store(segment, "id", 7)
        [item] = segment.reader.chunk("s", "n", b"", None, None, False, False)
        assert item == ["id", None, 7, 1]


class TestPages:
    @pytest.fixture
    def ten(self, segment: Segment) -> Segment:
        for i in range(10):
            store(segment, f"id{i}", i // 3)
        return segment

    def page(self, segment: Segment, *arguments: Any) -> tuple[list[str], bool]:
        values, has_more = segment.reader.page("s", "n", *arguments)
        return [value.decode() for value in values], has_more

    def test_newest_first_after_and_before(self, ten: Segment) -> None:
        assert self.page(ten, 3, None, None) == (["id9", "id8", "id7"], True)
        assert self.page(ten, 3, "id7", None) == (["id6", "id5", "id4"], True)
        assert self.page(ten, 10, "id7", None) == ([f"id{i}" for i in range(6, -1, -1)], False)
        assert self.page(ten, 3, "id0", None) == ([], False)
        assert self.page(ten, 3, None, "id4") == (["id7", "id6", "id5"], True)
        assert self.page(ten, 5, None, "id4") == (["id9", "id8", "id7", "id6", "id5"], False)
        assert self.page(ten, 3, None, "id9") == ([], False)
        assert self.page(ten, 10, None, None) == ([f"id{i}" for i in range(9, -1, -1)], False)

    def test_a_deleted_cursor_leads_on_and_an_unknown_one_does_not(self, ten: Segment) -> None:
        for key in ("id5", "id6"):
            ten.owner.remove("s", "n", key, (), ghost=True)
        ten.owner.commit()
        assert self.page(ten, 2, "id6", None) == (["id4", "id3"], True)
        assert self.page(ten, 2, None, "id5") == (["id8", "id7"], True)
        assert ten.reader.get(ten.reader.scope("s", "n"), "id5") is None
        assert ten.reader.contains(ten.reader.scope("s", "n"), "id5") is False
        assert ten.owner.find("s", "n", "id5") is None
        assert ten.owner.remove("s", "n", "id5", (), ghost=True) is False
        for cursor in ("id10", b"id4"):
            with pytest.raises(UnknownCursor, match="start again") as caught:
                ten.reader.page("s", "n", 2, cursor, None)
            assert caught.value.details["cursor"] == cursor
        with pytest.raises(UnknownCursor):
            ten.reader.page("s", "another namespace", 2, None, "id4")

    def test_a_cursor_works_when_all_are_gone(self, ten: Segment) -> None:
        for i in range(10):
            ten.owner.remove("s", "n", f"id{i}", (), ghost=True)
        ten.owner.commit()
        assert self.page(ten, 2, "id4", None) == ([], False)
        assert self.page(ten, 2, None, "id4") == ([], False)
        assert ten.reader.count("s", "n") == 0

    def test_an_id_that_comes_back_is_where_it_is_now(self, ten: Segment) -> None:
        ten.owner.remove("s", "n", "id5", (), ghost=True)
        ten.owner.commit()
        store(ten, "id5", 50)
        assert self.page(ten, 2, None, None) == (["id5", "id9"], True)
        assert self.page(ten, 2, "id5", None) == (["id9", "id8"], True)
        assert ten.reader.count("s", "n") == 10


class TestClear:
    def test_everything_of_one_place_is_gone_and_nothing_else(self, segment: Segment) -> None:
        for i in range(150):
            store(segment, f"id{i}", i, STATUS)
            segment.put(f"k{i}", b"")
        owner = segment.owner
        owner.put("s", "n", "staged", b"", 7, (), (OTHER,))
        owner.remove("s", "n", "id3", (STATUS,))
        assert owner.clear("s", "n", (STATUS, OTHER)) == 150
        assert (owner.count("s", "n"), owner.count("s", "n", STATUS)) == (0, 0)
        assert owner.find("s", "n", "id9") is None
        assert owner.touched("s", "n", "id9")
        assert segment.reader.count("s", "n") == 150
        owner.commit()
        for index in (b"", STATUS, OTHER):
            assert all_keys(segment, "s", "n", index) == []
        assert segment.reader.get(segment.reader.scope("s", "n"), "id9") is None
        assert len(all_keys(segment)) == 150

    def test_a_cleared_place_is_filled_again_in_the_same_batch(self, segment: Segment) -> None:
        for i in range(100):
            store(segment, f"id{i}", i, STATUS)
        owner = segment.owner
        assert owner.clear("s", "n", (STATUS,)) == 100
        owner.put("s", "n", "id5", b"again", 3, (), (STATUS,))
        owner.put("s", "n", "new", b"new", 1, (), ())
        owner.commit()
        assert all_keys(segment, "s", "n") == ["new", "id5"]
        assert all_keys(segment, "s", "n", STATUS) == ["id5"]
        assert owner.clear("s", "n", (STATUS,)) == 2
        assert owner.clear("s", "n", (STATUS,)) == 0
        owner.commit()
        assert owner.commit() == owner.committed

    def test_a_place_cleared_of_sorted_records_may_take_plain_ones(self, segment: Segment) -> None:
        store(segment, "id", 4)
        segment.owner.clear("s", "n", ())
        segment.owner.put("s", "n", "plain", b"")
        segment.owner.commit()
        assert segment.reader.chunk("s", "n", b"", None, None, False) == [["plain", b"", None, 2]]


def fill(segment: Segment, size: int, table: str = "t", first: int = 0) -> int:
    """Put records of a table until the store is full; return their number."""
    count = first
    while True:
        try:
            segment.owner.put(table, "", f"k{count}", bytes(size))
            segment.owner.commit()
        except StoreFull:
            segment.owner.abort()
            return count
        count += 1


class TestFull:
    @pytest.mark.parametrize("size", [150, 900, 5000, 70_000])
    def test_a_full_store_refuses_serves_and_has_room_again(
        self, engine: ModuleType, size: int
    ) -> None:
        segment = Segment(engine, 1 << 20)
        owner = segment.owner
        segment.put("counter", b"0", "u")
        count = fill(segment, size)
        assert count > 3
        with pytest.raises(StoreFull, match="capacity=") as caught:
            owner.put("t", "", "one more", bytes(size + 20_000))
        assert caught.value.details["capacity"] == 1 << 20
        assert caught.value.details["requested"] > size
        owner.abort()
        assert all_keys(segment) == [f"k{i}" for i in range(count)]
        assert segment.get("k0") == bytes(size)
        # Every record can be deleted, one by one, however full the store is.
        for i in range(count):
            assert owner.remove("t", "", f"k{i}", (), ghost=True)
            owner.commit()
        assert segment.reader.count("t", "") == 0
        assert segment.get("counter", "u") == b"0"
        again = fill(segment, size)
        assert again >= count * 9 // 10, "room was lost"
        assert owner.check() == []
        segment.close()

    def test_a_record_can_take_the_place_of_a_deleted_one(self, engine: ModuleType) -> None:
        segment = Segment(engine, 1 << 20)
        count = fill(segment, 3000)
        for i in range(count):
            assert segment.owner.remove("t", "", f"k{i}")
            segment.owner.commit()
            segment.put(f"k{count + i}", bytes(3000))
        assert segment.reader.count("t", "") == count
        assert segment.owner.check() == []
        segment.close()

    def test_deletions_and_small_records_in_turns(self, engine: ModuleType) -> None:
        """Small records take the holes that deletions leave; the next deletion finds room."""
        segment, rng = Segment(engine, 1 << 20), random.Random(8)
        count = fill(segment, 90)
        keys = [f"k{i}" for i in range(count)]
        for i in range(600):
            assert segment.owner.remove("t", "", keys.pop(rng.randrange(len(keys))))
            segment.owner.commit()
            fill(segment, 0, table=f"u{i % 3}", first=i * 1000)
        assert segment.reader.count("t", "") == count - 600
        assert segment.owner.check() == []
        segment.close()

    def test_a_refusal_in_the_middle_of_a_batch_takes_all_of_it_back(
        self, engine: ModuleType
    ) -> None:
        segment = Segment(engine, 1 << 20)
        segment.put("k", b"before")
        before = segment.owner.statistics()["used"]
        segment.owner.put("t", "", "k", b"after")

        def put_many() -> None:
            for i in range(1000):
                segment.owner.put("t", "", f"k{i}", bytes(5000))

        for _ in range(3):
            with pytest.raises(StoreFull):
                put_many()
            segment.owner.abort()
            assert segment.owner.statistics()["used"] == before
        assert segment.get("k") == b"before"
        assert segment.owner.check() == []
        segment.close()

    def test_a_clear_needs_no_memory_and_gives_all_of_it(self, engine: ModuleType) -> None:
        """Fifty times: neither the memory nor the index grows, and as much fits each time."""
        segment = Segment(engine, 1 << 20)
        figures = []
        for _ in range(50):
            count = fill(segment, 5000)
            assert segment.owner.clear("t", "", ()) == count
            segment.owner.commit()
            assert segment.reader.count("t", "") == 0
            while segment.owner.settle():
                pass
            statistics = segment.owner.statistics()
            figures.append((count, statistics["used"], statistics["index_segments"]))
        assert segment.owner.check() == []
        counts, used, index_segments = zip(*figures, strict=True)
        assert min(counts) > 150
        assert min(counts[1:]) == max(counts[1:])
        assert len(set(used[2:])) == len(set(index_segments[2:])) == 1
        segment.close()

    def test_a_clear_of_a_store_filled_to_the_last_granule(self, engine: ModuleType) -> None:
        """The system's own records may take the reserve as well."""
        segment = Segment(engine, 1 << 20)
        count = fill(segment, 700)
        system = fill(segment, 10, table="")
        assert system > 10
        assert segment.owner.clear("t", "", ()) == count
        segment.owner.commit()
        assert segment.owner.check() == []
        assert fill(segment, 700) > count // 2
        segment.close()

    def test_a_machine_without_memory_is_a_full_store(self, engine: ModuleType) -> None:
        denied = False

        def extend(offset: int, length: int) -> None:
            if denied:
                raise OSError(28, "the machine is full")

        with mmap.mmap(-1, 16 << 20) as memory:
            owner = engine.Owner.create(memory, extend, nothing)
            owner.put("t", "", "k", b"v")
            owner.commit()
            denied = True
            with pytest.raises(StoreFull, match="the machine is full"):
                owner.put("t", "", "large", bytes(3 << 20))
            owner.abort()
            assert owner.find("t", "", "k") is not None
            assert owner.remove("t", "", "k")
            owner.commit()
            denied = False
            owner.put("t", "", "large", bytes(3 << 20))
            owner.commit()
            assert owner.check() == []
            owner.close()


class TestMemory:
    def test_idle_memory_goes_back_to_the_system_after_a_clear(self, engine: ModuleType) -> None:
        released: dict[int, int] = {}

        def release(offset: int, length: int) -> None:
            # As MADV_REMOVE does.
            memory[offset : offset + length] = bytes(length)
            released[offset] = length

        with mmap.mmap(-1, 32 << 20) as memory, closing_owner(engine, memory, release) as owner:
            owner.put("u", "", "stays", b"here")
            for round_number in range(3):
                for i in range(40):
                    owner.put("t", "", f"k{i}", bytes([i]) * 500_000)
                    owner.commit()
                full = owner.statistics()["real"]
                assert full >= 20 << 20
                owner.clear("t", "", ())
                owner.commit()
                while owner.settle():
                    pass
                assert owner.statistics()["quarantine"] == 0
                assert owner.statistics()["real"] <= 4 << 20, f"round {round_number}"
                assert sum(released.values()) >= full - (4 << 20)
                released.clear()
                assert owner.reader.get(owner.reader.scope("u", ""), "stays") == b"here"
                assert owner.check() == []

    def test_replacing_a_record_for_ever_takes_a_bounded_room(self, segment: Segment) -> None:
        owner = segment.owner
        used = set()
        for i in range(3000):
            owner.put("t", "", "k", bytes(i % 700))
            owner.commit()
            used.add(owner.statistics()["used"] // 4096)
        assert len(used) == 1
        assert owner.statistics()["extended"] <= CAPACITY

    def test_keys_that_come_and_go_take_a_bounded_room(self, segment: Segment) -> None:
        owner = segment.owner
        for i in range(4000):
            owner.put("t", "", f"k{i}", b"v")
            if i >= 20:
                owner.remove("t", "", f"k{i - 20}")
            owner.commit()
        while owner.settle():
            pass
        statistics = owner.statistics()
        assert statistics["index_segments"] <= 8
        assert statistics["used"] < 100_000
        assert len(all_keys(segment)) == 20

    def test_settling_loses_nothing(self, segment: Segment) -> None:
        owner, rng = segment.owner, random.Random(6)
        for i in range(200):
            change_anything(owner, rng)
            owner.commit()
            if i % 7 == 0:
                before = [segment.reader.chunk(*place, b"", None, None, True) for place in PLACES]
                owner.settle()
                after = [segment.reader.chunk(*place, b"", None, None, True) for place in PLACES]
                assert before == after
        while owner.settle():
            pass
        assert owner.statistics()["quarantine"] == 0


PLACES = (("t", ""), ("s", "n"))

ids = st.sampled_from([f"id{i}" for i in range(8)])
times = st.integers(0, 3)
scripts = st.lists(
    st.one_of(
        st.tuples(st.just("put"), ids, times, st.booleans()),
        st.tuples(st.just("remove"), ids, st.just(0), st.booleans()),
        st.tuples(
            st.sampled_from(["commit", "abort", "take over", "clear"]), ids, times, st.just(True)
        ),
    ),
    max_size=40,
)


class Model:
    """A store with the positions of the deleted, as plain dicts."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[int, int]] = {}
        self.ghosts: dict[str, tuple[int, int]] = {}
        self.marked: set[str] = set()
        self.next = 1

    def copy(self) -> Model:
        copy = Model()
        copy.records, copy.ghosts = dict(self.records), dict(self.ghosts)
        copy.marked, copy.next = set(self.marked), self.next
        return copy

    def page(self, limit: int, after: str | None, before: str | None) -> Any:
        cursor = after if before is None else before
        known = {**self.ghosts, **self.records}
        if cursor is not None and cursor not in known:
            return None
        ordered = sorted(self.records, key=lambda key: self.records[key], reverse=True)
        if after is not None:
            ordered = [key for key in ordered if self.records[key] < known[after]]
        if before is not None:
            ordered = [key for key in ordered if self.records[key] > known[before]]
            return [ordered[-limit:], len(ordered) > limit]
        return [ordered[:limit], len(ordered) > limit]


def compare(segment: Segment, model: Model) -> None:
    reader = segment.reader
    ordered = sorted(model.records, key=lambda key: model.records[key])
    assert all_keys(segment, "s", "n") == ordered
    marked = [key for key in ordered if key in model.marked]
    assert all_keys(segment, "s", "n", STATUS) == marked
    for cursor in (None, *(f"id{i}" for i in range(8))):
        for limit, after, before in ((3, cursor, None), (2, None, cursor)):
            try:
                values, has_more = reader.page("s", "n", limit, after, before)
                seen: Any = [[value.decode() for value in values], has_more]
            except UnknownCursor:
                seen = None
            assert seen == model.page(limit, after, before)


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(script=scripts)
def test_pages_and_indexes_agree_with_sorted_lists(engine: ModuleType, script: Any) -> None:
    segment, model, committed = Segment(engine, 1 << 20), Model(), Model()
    for step, key, created, flag in script:
        owner = segment.owner
        old = (STATUS,) if key in model.marked else ()
        if step == "put":
            owner.put("s", "n", key, key.encode(), created, old, (STATUS,) if flag else ())
            insertion = model.records[key][1] if key in model.records else model.next
            model.next += key not in model.records
            model.records[key] = created, insertion
            model.ghosts.pop(key, None)
            model.marked = model.marked | {key} if flag else model.marked - {key}
        elif step == "remove":
            assert owner.remove("s", "n", key, old, ghost=flag) == (key in model.records)
            position = model.records.pop(key, None)
            if position and flag:
                model.ghosts[key] = position
            model.marked.discard(key)
        elif step == "clear":
            assert owner.clear("s", "n", (STATUS,)) == len(model.records)
            model.records.clear()
            model.marked.clear()
        else:
            if step == "commit":
                owner.commit()
                committed = model.copy()
            elif step == "take over":
                segment.take_over()
            else:
                owner.abort()
            model = committed.copy()
            compare(segment, model)
            assert segment.owner.check() == []
    segment.close()
