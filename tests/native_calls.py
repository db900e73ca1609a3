"""Calls of the native engine, each with its name: those that succeed and those that fail."""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import setitem
from struct import pack_into
from typing import Any

from shmstore import codec
from shmstore.layout import (
    CAPACITY_WORD,
    HORIZON_WORD,
    ROOT_WORD,
    SEGMENT_ID_WORD,
    VERSION_WORD,
    WORD_BYTES,
)

CAPACITY = 1 << 20
RECORDS = 600

Call = Callable[[], Any]
Named = Iterator[tuple[str, Call]]
Arguments = tuple[Any, ...]


class Text(str):
    """A key of a rare type."""


ODD_NAMES: list[Arguments] = [("t", ""), (Text("t"), ""), ("t" * 300, ""), (7, "")]
INDEX = b"\x91a"
CHUNKS: list[Arguments] = [
    ("t", "", b"", None, 9, False),
    ("s", "n", INDEX, [2, 50], 9, True),
    ("s", "n", INDEX, 7, 9, True),
    ("s", "n", INDEX, [1], 9, True),
    ("s", "n", INDEX, [2**70, 1], 9, True),
    ("s", "n", INDEX, [1, -1], 9, True),
    ("s", "n", bytearray(INDEX), None, 9, True),
    ("s", "n", 7, None, 9, True),
    ("t", "", b"", None, -1, False),
    ("t", "", b"", None, "", False),
    (7, "", b"", None, None, False),
]


def nothing(offset: int, size: int) -> None:
    """The memory of the system."""


def refuse(offset: int, size: int) -> None:
    raise OSError(12, "no memory for you")


def fail(offset: int, size: int) -> None:
    raise RuntimeError("broken")


def calls(kind: str, target: object, method: str, every: Iterable[Arguments]) -> Named:
    function = getattr(target, method)
    for arguments in every:
        yield f"{kind} {method}{arguments!r:.70}", partial(function, *arguments)


class Segments:
    """A sound segment and damaged copies of it."""

    def __init__(self, native: Any) -> None:
        self.native = native
        self.fd = os.memfd_create("windows")
        os.truncate(self.fd, CAPACITY)
        self.memory = mmap.mmap(-1, CAPACITY)
        self.owner = native.Owner.create(self.memory, nothing, nothing)
        record = {"status": "new", "n": [1, {"a": None}, 2.5], "by": {"name": "x", 7: b"y"}}
        for i in range(RECORDS):
            self.owner.put("t", "", f"k{i}", codec.pack({**record, "i": i}))
            self.owner.put("s", "n", f"id{i}", b"\xc0", 1000 + i % 5, (), (INDEX,))
        self.owner.put("t", "", "large", bytes(300_000))
        self.owner.put("t", "", "list", codec.pack([1, [2, "b"], {"c": 3}]))
        self.owner.commit()
        self.held, *_ = self.owner.pin(b"holder", "t", "", "k2")
        self.owner.put("t", "", "k2", b"\xc0")
        self.owner.commit()
        self.reader = native.Reader(self.memory)
        self.closed = native.Reader(self.memory)
        self.closed.close()
        self.stalled = native.Reader(self.with_word(HORIZON_WORD, 2**63))
        self.damaged = native.Reader(self.with_word(ROOT_WORD, 1 << 56 | CAPACITY))

    def with_word(self, word: int, value: int) -> mmap.mmap:
        copy = mmap.mmap(-1, CAPACITY)
        copy[:] = self.memory[:]
        pack_into("<Q", copy, word * WORD_BYTES, value)
        return copy

    def twin(self, extend: Any = nothing) -> Any:
        memory = self.with_word(SEGMENT_ID_WORD, 7)
        return self.native.Owner.take_over(memory, extend, nothing)


def constructions(segments: Segments) -> Named:
    native = segments.native
    memories: list[Arguments] = [
        (segments.memory,),
        (mmap.mmap(-1, CAPACITY),),
        (b"x" * 100,),
        (segments.with_word(VERSION_WORD, 9),),
        (segments.with_word(CAPACITY_WORD, 9),),
        (segments.with_word(ROOT_WORD, 1 << 56 | CAPACITY),),
        (None,),
        (memoryview(bytes(8192))[1:-1],),
    ]
    yield from calls("", native, "Reader", memories)
    yield from calls("", native, "is_formatted", memories)
    yield from calls("", native, "check_segment", memories)
    unused: list[Any] = [[], [(300, 2)] * 40, [(300, -1)], [(2**40, 1)], [("a", 1)], [7], 7]
    yield from calls("", native, "check_segment", [(segments.memory, these) for these in unused])
    windows: list[Any] = [
        (segments.fd, 7, 9),
        (segments.fd, -1, 9),
        (segments.fd, 7, 0),
        (-1, 7, 9),
    ]
    yield from calls("", native, "open_window", windows)
    owners = [(*memory, nothing, nothing) for memory in memories[1:]]
    yield from calls("", native.Owner, "take_over", owners)
    yield from calls("wrong", native.Owner, "create", [*owners[1:2], *owners[-2:]])
    yield "take_over and close", lambda: segments.twin().close()
    yield "take_over", segments.twin
    yield "Owner", native.Owner

    def create(extend: Any) -> None:
        with mmap.mmap(-1, CAPACITY) as memory:
            native.Owner.create(memory, extend, nothing).close()

    for extend in (nothing, refuse, fail):
        yield f"create, {extend.__name__}", partial(create, extend)


def reads(segments: Segments) -> Named:
    """All reads, on a reader of each kind."""
    scope = segments.reader.scope("t", "")
    keys = ["k1", "none", Text("k2"), b"k3", "é" * 9, "\ud800", 7, "k" * 70_000]
    every: list[Arguments] = [(scope, key) for key in keys]
    wrong: list[Arguments] = [(), (scope,), ("t", "k1"), (-1, "k1"), (2**64, "k1")]
    many = [["k1", "none", "large"], ["k1", Text("k2"), 7], 7, []]
    cursors = [(None, None), ("id5", None), (None, Text("id5")), ("none", None), (7, None), ()]
    for kind in ("reader", "closed", "damaged", "stalled"):
        reader = getattr(segments, kind)
        for method in ("get", "get_versioned", "version", "contains"):
            yield from calls(kind, reader, method, every)
        yield from calls(kind, reader, "get", [(scope, "large"), *wrong])
        yield from calls(kind, reader, "get_many", [(scope, these) for these in many])
        yield from calls(kind, reader, "scope", ODD_NAMES)
        yield from calls(kind, reader, "count", ODD_NAMES)
        yield from calls(kind, reader, "chunk", CHUNKS)
        yield from calls(kind, reader, "page", [("s", "n", 3, *cursor) for cursor in cursors])
        yield from calls(
            kind, reader, "page", [("s", "n", wrong, None, None) for wrong in (-1, "")]
        )
        yield from calls(kind, reader, "info", [()])
        for name in ("segment_id", "capacity", "retries"):
            yield f"{kind} {name}", partial(getattr, reader, name)
    whole = [("t", "", b"", None, None, False), ("t", "", b"", None, None, True, False)]
    yield from calls("reader", segments.reader, "chunk", whole)


def views(segments: Segments) -> Named:
    class Table(segments.native.View):  # type: ignore[misc, name-defined]
        def __init__(self, reader: Any) -> None:
            self.reader = reader

        def _attach(self) -> tuple[Any, int]:
            return self.reader, segments.reader.scope("t", "")

        def _ask(self, method: str, key: Any) -> Any:
            if key == "none":
                return None
            return 7 if method == "version" else codec.pack({"status": "asked"})

        def _missing(self, key: Any) -> Exception:
            return KeyError(key)

    keys = ["k1", "none", "list", Text("k2"), 7, "large"]
    methods = ("get", "get_bytes", "record", "version", "__getitem__", "__contains__")
    for kind in ("reader", "closed", "stalled", "no"):
        table = Table(getattr(segments, kind, None))
        for method in methods:
            yield from calls(kind, table, method, [(key,) for key in keys])
        for key in keys:
            yield f"{kind} default {key!r}", partial(table.get, key, default=[])
        fields: list[Arguments] = [
            (key, *more) for key in keys for more in [("status",), ("no", 7)]
        ]
        yield from calls(kind, table, "get_field", fields)
        yield from calls(kind, table, "get", [(), ("k1", 2, 3)])
        yield f"{kind} get(wrong=)", partial(table.get, "k1", wrong=7)
        yield f"{kind} view", partial(Table, segments.reader)


TOUCHES: dict[str, Callable[[Any], Any]] = {
    "a": lambda r: (r["a"], r["a"]),
    "c": lambda r: (r["c"], r["c"][1], r["c"][2]["d"]),
    "none": lambda r: r["none"],
    "unhashable": lambda r: r[[]],
    "get": lambda r: (r.get("none"), r.get("b", 7), "c" in r, 7 in r),
    "wrong get": lambda r: r.get(),
    "all": lambda r: (len(r), list(r), list(r.values()), list(r.items()), list(r.keys())),
    "copy": lambda r: (r.copy(), r.packed(), repr(r)),
    "equal": lambda r: (r == r.copy(), r != 7, r == type(r)(r.packed())),
    "less": lambda r: r < r,
    "or": lambda r: (r | {"z": 1}, {"z": 1} | r),
    "or not": lambda r: r | 7,
    "hash": hash,
    "pickle": lambda r: pickle.loads(pickle.dumps(r)),
    "pack": codec.pack,
    "update": lambda r: r.update(a=1),
    "set": lambda r: setitem(r, "a", 1),
    "set attribute": lambda r: setattr(r, "a", 1),
    "items": lambda r: (r[0], r[-1], r[1:3], r[2], r.index("two"), r.count(1)),
    "no item": lambda r: r[9],
    "no index": lambda r: r.index("never"),
    "construct": lambda r: type(r)(r.packed()),
    "construct wrongly": lambda r: type(r)(7),
}


def records(segments: Segments) -> Named:
    native = segments.native
    values: dict[str, Any] = {
        "map": {"a": 1, "b": "x" * 40, "c": [1, [2], {"d": 3}], 7: None, "f": 2.5, "g": b"z"},
        "array": [1, "two", [3], {"a": 4}, None],
        "scalar": "text",
        "large": {f"a{i}": i for i in range(90)},
    }
    packed = {name: codec.pack(value) for name, value in values.items()}
    packed |= {"broken": packed["map"][:-3], "longer": packed["map"] + b"\0", "noise": b"\x81\xc1"}
    packed |= {"empty": b"", "broken array": packed["array"][:-1], "no text": b"\x81\xa1\xff\x01"}
    for name, data in packed.items():
        for touch, function in TOUCHES.items():
            yield f"{name} record, {touch}", partial(_touch, native.record_of, function, data)
        fields: list[Arguments] = [(data, field, 7) for field in ("a", "c", "none", 7)]
        yield from calls(name, native, "field_of", fields)
    yield from calls("wrong", native, "record_of", [(7,)])
    yield from calls("wrong", native, "field_of", [(), (7, "a")])


def _touch(record_of: Callable[[bytes], Any], function: Callable[[Any], Any], data: bytes) -> None:
    function(record_of(data))


def messages(segments: Segments) -> Named:
    native = segments.native
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    plain = {"a": list(range(2000)), "b": "x" * 70_000}
    odd = [object(), deep, 2**70, -(2**70), 2**63, "\ud800", {(): 1}, {1: {2: [set()]}}]
    yield from calls("", native, "pack", [(value,) for value in [plain, *odd]])
    yield from calls("", native, "quick_frame", [(1, 1, "put", value) for value in [plain, *odd]])
    yield from calls("", native, "quick_tree", [(value,) for value in [plain, [plain], *odd]])
    pairs: list[Any] = [
        {"k": 1, b"k": [2]},
        {7: 1},
        {"k": object()},
        {"\ud800": 1},
        [],
        {"k": deep},
    ]
    yield from calls("", native, "quick_pairs", [(these,) for these in pairs])
    tail = native.quick_pairs(pairs[0])
    yield from calls("", native, "quick_frame", [(1, 1, "put_many", ["t", "", tail])])
    frame = native.quick_frame(1, 0, None)
    heard = [frame, frame * 40, frame[:-1], b"", b"\xff" * 20, "text", frame + b"\0"]
    yield from calls("", native, "quick_answers", [(data,) for data in heard])
    yield from calls("", native, "quick_messages", [(data, 100) for data in heard])
    yield from calls("wrong", native, "quick_messages", [(frame, -1), (frame,)])


def request(number: int, operation: str, *arguments: Any) -> bytes:
    return codec.pack([number, number, operation, ["t", "", *arguments]])


PUT = request(1, "put", "k9", b"\x01")
BATCHES: dict[str, Any] = {
    "puts": [PUT, request(2, "put", "k10", b"\x02")],
    "twice": [PUT, request(2, "put", "k9", b"\x02")],
    "other": [PUT, request(2, "get", "k9")],
    "noise": [b"\xc1" * 30],
    "text": ["put"],
    "many": [request(1, "put_many", [["k1", b"\x01"], ["k2", b"\x02"]])],
    "deletes": [request(1, "delete", "k3"), request(2, "insert", "new", b"\x01")],
    "no messages": 7,
}

SESSION: list[Arguments] = [
    (b"c", {1: b"a", 2: b"b"}, 0),
    (b"c", {1: 7}, 0),
    (b"c", {-1: b""}, 0),
    ("c", {}, 0),
    (b"c", {}, -1),
]
RUNS: list[Arguments] = [(PUT, "s", "n", *session, 100) for session in SESSION]
RUNS += [(batch[0], "s", "n", *SESSION[0], 100) for batch in BATCHES.values() if batch != 7]

STAGED: dict[str, list[Arguments]] = {
    "put": [
        ("t", "", "new", b"x"),
        ("t", "", "k1", b"x" * 100),
        ("s", "n", "id5", b"x", 9, (INDEX,), (b"\x91b",)),
        (Text("t"), "", Text("k5"), memoryview(b"x")),
        ("t", "", "k1", bytes(2 << 20)),
        ("t", "", 7, b"x"),
        ("t", "", "k1", "x"),
        ("t", "", "k1", b"x", 2**70),
        ("s", "n", "id5", b"x", 9, 7),
        ("s", "n", "id5", b"x", 9, (INDEX,), (b"\x91b", 7)),
        ("s", "n", "id5", b"x", 9, (), [b"%d" % i for i in range(20)]),
        ("s", "n", "id5", b"x", 9, (), (bytes(70_000),)),
        ("s", "n", "id5", b"x", 9, (b"\x91never",)),
        ("t", "", "k1"),
    ],
    "find": [("t", "", "k7"), ("s", "n", "id7"), ("t", "", "none"), ("t", "", 7), *ODD_NAMES],
    "touched": [("t", "", "k7"), ("t", "", 7)],
    "remove": [
        ("t", "", "k7"),
        ("t", "", "none"),
        ("t", "", 7),
        ("s", "n", "id7", (INDEX,), True),
        ("s", "n", "id7", (b"\x91b",), True),
        ("s", "n", "id7", 7),
    ],
    "reindex": [("s", "n", key, [INDEX], [b"\x91c"]) for key in ("id8", "none")],
    "clear": [("s", "n", (INDEX,)), ("s", "n", 7)],
    "chunk": CHUNKS,
    "count": [("s", "n", INDEX), *ODD_NAMES],
    "stage": [(batch, 9, 0, 100) for batch in BATCHES.values()],
    "run": RUNS,
    "statistics": [()],
    "check": [()],
    "settle": [()],
}


def pins(held: int) -> dict[str, list[Arguments]]:
    """Calls about pins, and about the block that is held for one."""
    granules = (held, 0, -1, 2**36, 2**80, "1", None)
    return {
        "pin": [
            (b"holder", "t", "", "k7"),
            (b"h" * 64, "s", "n", "id7"),
            (b"holder", "t", "", "none"),
            (b"holder", "t", "", 7),
            (b"h" * 65, "t", "", "k7"),
            ("holder", "t", "", "k7"),
            (b"holder", 7, "", "k7"),
            (b"holder", "t"),
        ],
        "share_pin": [*((b"other", each) for each in granules), (7, held), (b"other",)],
        "unpin": [*((b"holder", each) for each in granules), (7, held), (b"other", held)],
        "pins": [()],
    }


def writes(segments: Segments) -> Named:
    """Calls of an owner, each ended by an abort, some by a commit; and of a closed one."""
    closed = segments.twin()
    closed.close()
    for kind, owner in (("owner", segments.owner), ("closed", closed)):
        for method, every in {**STAGED, **pins(segments.held)}.items():
            for name, call in calls(kind, owner, method, every):
                yield name, partial(_ended, call, owner.abort)
        for arguments in [("t", "", "k1", b"x" * 500), ("s", "n", "id6", b"x", 1)]:
            put = partial(owner.put, *arguments)
            yield f"{kind} put and commit{arguments!r:.40}", partial(_ended, put, owner.commit)
        for attribute in ("changes", "staged", "reader", "committed"):
            yield f"{kind} {attribute}", partial(getattr, owner, attribute)
        yield from calls(kind, owner, "commit", [()])
    failing = segments.twin(fail)
    yield from calls("failing", failing, "put", [("t", "", "new", bytes(700_000))])


def _ended(call: Call, end: Call) -> None:
    try:
        call()
    finally:
        end()


ALL = (constructions, reads, views, records, messages, writes)
