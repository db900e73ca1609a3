"""iceoryx2's blackboard: a fixed set of keys with values of a fixed size in shared memory.

As its examples show: one process creates the service with all keys, readers and writers take a
handle per key once and use it ever after. Values are ctypes structures, here the length and the
bytes of a msgpack record. Creating compares each new key with all before it, in Python, so that
thousands of keys take minutes. No key can be added later, and a key has one writer.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import iceoryx2
import msgpack

from ..records import Dataset
from .base import Rival, Session

READERS_MAX = 64
HEADER = ctypes.sizeof(ctypes.c_uint32)


class Key(ctypes.Structure):
    """A record's key."""

    _fields_ = (("text", ctypes.c_char * 24),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and bool(self.text == other.text)

    __hash__ = None  # type: ignore[assignment]  # it can change


class Blackboard(Rival):
    """A service that the first process that connects creates when it loads."""

    name = "iceoryx2"

    @staticmethod
    def key(text: str) -> bytes:
        return text.encode()

    @classmethod
    def version(cls) -> str:
        return f"iceoryx2 {version('iceoryx2')}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        self.address = f"bench/{os.getpid()}/{folder.name}", dataset.value_bytes() + 64

    @staticmethod
    def connect(address: Any) -> Session:
        return Board(*address).session()


class Board:
    """One process's end of the service, with a handle for each key that it has used."""

    def __init__(self, name: str, value_bytes: int) -> None:
        iceoryx2.set_log_level(iceoryx2.LogLevel.Fatal)
        fields = [("size", ctypes.c_uint32), ("data", ctypes.c_uint8 * value_bytes)]
        self._value_type: Any = type("Value", (ctypes.Structure,), {"_fields_": fields})
        self._node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        self._name = iceoryx2.ServiceName.new(name)
        self._service: Any = None
        self._reader: Any = None
        self._writer: Any = None
        self._getters: dict[bytes, Any] = {}
        self._putters: dict[bytes, Any] = {}

    def session(self) -> Session:
        """Return what this process can do."""
        unpack = msgpack.unpackb

        def get(key: bytes) -> Any:
            return unpack(self.get_raw(key))

        return Session(
            get_raw=self.get_raw,
            get=get,
            get_field=lambda key: get(key)["status"],
            put=self.put,
            load=self.load,
            prepare=self.take_handles,
            close=self.close,
        )

    def load(self, pairs: Iterable[tuple[bytes, Any]]) -> None:
        """Create the service with these keys and records."""
        builder = self._node.service_builder(self._name).blackboard_creator(Key)
        builder = builder.max_readers(READERS_MAX).max_nodes(READERS_MAX)
        kept = [(Key(key), self._value_of(record)) for key, record in pairs]
        for key, value in kept:
            builder = builder.add(key, value)
        self._service = builder.create()

    def take_handles(self, keys: Iterable[bytes], writing: bool) -> None:
        """Look up the handles of some keys."""
        for key in keys:
            if writing:
                self._putter_of(key)
            else:
                self.get_raw(key)

    def get_raw(self, key: bytes) -> bytes | None:
        """Return the bytes of a record."""
        getter = self._getters.get(key)
        if getter is None:
            try:
                getter = self._getters[key] = self._entry_of(key)
            except iceoryx2.EntryHandleError:
                return None
        data: bytes = getter().data
        return data[HEADER : HEADER + int.from_bytes(data[:HEADER], "little")]

    def put(self, key: bytes, record: Any) -> None:
        """Replace the record of a key."""
        putter = self._putters.get(key) or self._putter_of(key)
        putter(self._value_of(record))

    def _putter_of(self, key: bytes) -> Any:
        if key not in self._putters:
            if self._writer is None:
                self._writer = self._opened().writer_builder().create()
            entry = self._writer.entry(Key(key), self._value_type)
            self._putters[key] = entry.update_with_copy
        return self._putters[key]

    def close(self) -> None:
        """Let go of everything; handles first."""
        self._getters.clear()
        self._putters.clear()
        self._reader = self._writer = self._service = self._node = None

    def _value_of(self, record: Any) -> Any:
        data = msgpack.packb(record)
        value = self._value_type(size=len(data))
        ctypes.memmove(ctypes.addressof(value) + HEADER, data, len(data))
        return value

    def _opened(self) -> Any:
        if self._service is None:
            builder = self._node.service_builder(self._name).blackboard_opener(Key)
            self._service = builder.open()
        return self._service

    def _entry_of(self, key: bytes) -> Any:
        if self._reader is None:
            self._reader = self._opened().reader_builder().create()
        return self._reader.entry(Key(key), self._value_type).get
