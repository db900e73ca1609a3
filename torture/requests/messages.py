"""Hostile messages: of every operation there is, right but for something, or wrong altogether.

What operations there are and what they take is read from the tables of the protocol, so a new one
is tried without being named here. All chance comes from the generator that is given.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from shmstore import keys, processes, protocol
from shmstore.writer import border

TABLES = ("t", "u", "store", "other", "n:store", "s", "ä", "x" * 255)
NAMESPACES = ("", "", "", "default", "other", "s", "n:t", "ü" * 20)
KEYS = ("k", "k0", "k1", "k2", "k3", "", "ü", b"k", b"", b"\xff", "id", "y" * 300)
FIELDS = ("a", "b", "id", "created", "object", "metadata", "", "long" * 40)
START = looked.start if (looked := processes.look()) else 0
HOLDERS = (processes.holder_of(os.getpid(), START),) * 3 + (b"h" * 16, b"", "h" * 16)
HEAD = b"\x94"
"""A list of four begins every request."""
KINDS = b"\x80\x90\xa0\xc0\xc4\xc6\xca\xcf\xdd\xdf"
"""First bytes, after which something is expected."""
DEEP, WIDE = 1020, 5_000
"""How deep lists are nested so that they still can be decoded, and how many stand side by side."""


class Raw(NamedTuple):
    """Bytes that stand in a message as they are."""

    data: bytes


class Packed(NamedTuple):
    """A value that travels packed."""

    value: Any


class Composer:
    """Makes messages and mutates them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._of_check: dict[Callable[[Any], Any], Callable[[], Any]] = {
            keys.key_of: self.key,
            border._value: lambda: Packed(self.record()),
            border._keys: lambda: self.several(self.key),
            border._pairs: lambda: self.several(lambda: [self.key(), Packed(self.record())]),
            border._filters: lambda: self.several(lambda: [self.field(), Packed(self.scalar())]),
            border._indexes: lambda: self.several(self.field),
            border._field: lambda: self.one_of((None, self.field())),
            border._number: self.number,
            border._optional_number: lambda: self.one_of((None, self.number())),
            border._flag: lambda: self.one_of((True, False)),
            border._version: lambda: int(self.rng.random() * 40),
            border._holder: lambda: self.one_of(HOLDERS),
            border._time: lambda: self.one_of((None, 1_700_000_000, self.number())),
        }

    def one_of(self, choices: Any) -> Any:
        return choices[int(self.rng.random() * len(choices))]

    def often(self, one_in: int) -> bool:
        return self.rng.random() * one_in < 1

    def several(self, make: Callable[[], Any]) -> list[Any]:
        return [make() for _ in range(int(self.rng.random() * 5))]

    # What requests are made of

    def key(self) -> Any:
        return self.one_of(KEYS)

    def field(self) -> str:
        return str(self.one_of(FIELDS))

    def number(self) -> Any:
        if self.often(3):
            edges = (0, 1, -1, 1 << 63, (1 << 64) - 1, -(1 << 63), 1e308, -0.0, float("inf"))
            return self.one_of((*edges, float("nan"), 1.5))
        return int(self.rng.random() * 100)

    def scalar(self) -> Any:
        return self.one_of((None, True, self.number(), self.key(), self.field(), self.odd()))

    def odd(self) -> Any:
        """Return what no client of ours would send."""
        return self.one_of((
            Raw(b"\xc1"), Raw(b"\xd4\x05\x00"), Raw(b"\xd6\xff\x00\x00\x00\x00"), Raw(b""),
            Raw(b"\xc7\x0c\xff" + b"\xff" * 12), Raw(b"\xa2\xff\xfe"), Raw(b"\x81\x90\x01"),
            Raw(b"\xdd\xff\xff\xff\xff"), Raw(b"\xc6\xff\xff\xff\xff"),
            Raw(b"\xdf\x7f\xff\xff\xff"), Raw(b"\xc9\xff\xff\xff\xff\x01"),
            Raw(b"\x82\xa1a\x01\xa1a\x02"), Raw(b"\x82\xa1a\x01\xd9\x01a\x02"),
            [], {}, [[]], {"a": {"b": 1}},
        ))  # fmt: skip

    def record(self) -> Any:
        """Return a record, often one that a store takes."""
        if self.often(3):
            return self.scalar()
        fields: dict[str, Any] = {"id": self.key(), "created": 1_700_000_000}
        if self.often(4):
            fields["created"] = self.number()
        for _ in range(int(self.rng.random() * 4)):
            fields[self.field()] = self.scalar()
        if self.often(8):
            fields["metadata"] = {self.field(): self.one_of(("", 1)) for _ in range(3)}
        if self.often(50):
            fields["large"] = "v" * int(self.rng.random() * 60_000)
        return fields

    def anything(self) -> Any:
        choice = self.rng.random()
        if choice < 0.05:
            return self.bomb()
        if choice < 0.4:
            return self.scalar()
        return self.one_of((self.key, self.number, self.record, self.odd, self.packed_record))()

    def packed_record(self) -> Packed:
        return Packed(self.record())

    def bomb(self) -> Raw:
        """Return what is small and looks large, or is deep, or wide."""
        deep = DEEP if self.often(2) else self.one_of((31, 32, 33, 64, DEEP + 10, 1_000_000))
        if self.often(2):
            return Raw(b"\x91" * deep + b"\x01")
        bombs = (
            Raw(b"\x81\xa1x" * deep + b"\x01"),
            Raw(b"\x81" * deep + b"\x01" * (deep + 1)), Raw(b"\xdd\x00\x01\x00\x00" * 10),
            Raw(b"\xdd" + struct.pack(">I", WIDE) + b"\x90" * WIDE),
            Raw(b"\xde" + struct.pack(">H", 2_000) + b"\x00" * 4_000),
            Raw(b"\xdb" + struct.pack(">I", WIDE) + b"\xf0" * WIDE),
        )  # fmt: skip
        bomb: Raw = self.one_of(bombs)
        return bomb

    # Requests

    def arguments(self, operation: str) -> Any:
        if operation == "transaction":
            return [self.part() for _ in range(int(self.rng.random() * 5))]
        if operation == "read":
            return self.read_arguments()
        if operation in ("wait", "hold", "share", "unpin"):
            return self.arguments_of_holder(operation)
        signature = border.SIGNATURES.get(operation)
        if signature is None:
            return self.several(self.anything) if self.often(4) else []
        arguments = [self.one_of(TABLES), self.one_of(NAMESPACES)]
        arguments += [self._of_check.get(check, self.anything)() for check in signature.checks]
        return arguments[: len(arguments) - int(self.rng.random() * (1 + signature.optional))]

    def arguments_of_holder(self, operation: str) -> list[Any]:
        """Return what a process says that waits, or holds something."""
        if operation == "wait":
            version = self._of_check[border._version]()
            return [self.one_of(TABLES), self.one_of(NAMESPACES), self.key(), version]
        if operation == "hold":
            return [self.one_of((START, START, self.number()))]
        granules = self.several(lambda: int(self.rng.random() * 600))
        return [self.one_of(HOLDERS), self.one_of((granules, granules, self.several(self.number)))]

    def part(self) -> Any:
        operation = self.one_of(OPERATIONS)
        return [operation, self.bent(self.arguments(operation))]

    def read_arguments(self) -> Any:
        method = self.one_of(READS)
        place = [self.one_of(TABLES), self.one_of(NAMESPACES)]
        scope = int(self.rng.random() * (1 << 64))
        shapes: tuple[list[Any], ...] = (
            [scope, self.key()], [scope, self.several(self.key)], place, [*place, b""],
            [*place, b"", None, 10, False], [*place, "n", 10, None, None],
            [*place, self.anything()], [],
            [*place, b"", [self.number(), self.number()], self.number(), True],
        )  # fmt: skip
        return [method, self.bent(list(self.one_of(shapes)))]

    def bent(self, arguments: Any) -> Any:
        """Return the arguments with something wrong about them, or as they are."""
        if not isinstance(arguments, list) or not self.often(3):
            return arguments
        choice = int(self.rng.random() * 10)
        if choice == 0 or not arguments:
            return [*arguments, self.anything()]
        position = int(self.rng.random() * len(arguments))
        if choice == 1:
            return arguments[:position]
        return [*arguments[:position], self.anything(), *arguments[position + 1 :]]

    def body(self) -> bytes:
        """Return what follows the ids in a request: operation and arguments."""
        operation = self.one_of(OPERATIONS)
        if self.often(30):
            operation = self.anything()
        known = operation if isinstance(operation, str) else "put"
        return self.encoded(operation) + self.encoded(self.bent(self.arguments(known)))

    def changed(self, body: bytes) -> bytes:
        """Return the body with some of its bytes changed."""
        data = bytearray(body)
        for _ in range(1 + int(self.rng.random() * 3)):
            at = int(self.rng.random() * (len(data) + 1))
            choice = int(self.rng.random() * 5)
            if choice == 0:
                data[at : at + 1] = bytes((int(self.rng.random() * 256),))
            elif choice == 1:
                data[at:at] = self.encoded(self.anything())
            elif choice == 2:
                del data[at : at + 1 + int(self.rng.random() * 4)]
            elif choice == 3 and at < len(data):
                data[at] ^= 1 << int(self.rng.random() * 8)
            else:
                data[at : at + 1] = bytes(
                    (self.one_of(b"\x80\x90\xa0\xc0\xc4\xc6\xca\xcf\xdd\xdf"),)
                )
        return bytes(data)

    # Bytes

    def encoded(self, value: Any) -> bytes:
        """Return the value packed, now and then in another form than the shortest."""
        if isinstance(value, str):
            data = value.encode()
            return self._sized(data, 0xA0, 31, (0xD9, 0xDA, 0xDB))
        if isinstance(value, Packed):
            value = self.encoded(value.value)
        if isinstance(value, bytes):
            return self._sized(value, None, -1, (0xC4, 0xC5, 0xC6))
        if isinstance(value, Raw):
            return value.data
        if isinstance(value, bool) or value is None:
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        if isinstance(value, int):
            return self.number_encoded(value)
        if isinstance(value, float):
            return b"\xcb" + struct.pack(">d", value)
        if isinstance(value, dict):
            parts = [self.encoded(part) for pair in value.items() for part in pair]
            return self._headed(len(value), 0x80, (0xDE, 0xDF)) + b"".join(parts)
        return self._headed(len(value), 0x90, (0xDC, 0xDD)) + b"".join(map(self.encoded, value))

    def number_encoded(self, value: int) -> bytes:
        if 0 <= value < 128 and not self.often(16):
            return bytes((value,))
        if value < 0:
            return b"\xd3" + struct.pack(">q", value)
        if value < 65536 and not self.often(16):
            return b"\xcd" + struct.pack(">H", value)
        return b"\xcf" + struct.pack(">Q", value)

    def _sized(self, data: bytes, short: int | None, short_max: int, kinds: Any) -> bytes:
        size = len(data)
        if short is not None and size <= short_max and not self.often(16):
            return bytes((short + size,)) + data
        width = 0 if size < 256 else 1 if size < 65536 else 2
        if self.often(16):
            width = 2
        return bytes((kinds[width],)) + struct.pack((">B", ">H", ">I")[width], size) + data

    def _headed(self, count: int, short: int, kinds: Any) -> bytes:
        if count < 16 and not self.often(16):
            return bytes((short + count,))
        width = 1 if count >= 65536 or self.often(4) else 0
        return bytes((kinds[width],)) + struct.pack((">H", ">I")[width], count)


OPERATIONS = (*sorted(protocol.OPERATIONS), "put", "put", "put_many", "upsert", "upsert", "delete")
READS = (*sorted(protocol.READ_METHODS), "close", "scope")
