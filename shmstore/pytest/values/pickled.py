"""Objects of any type as pickles of protocol 5, whose large buffers stay where they are.

Both is done in the processes of a run alone: the store sees bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from io import BytesIO
from typing import Any, NamedTuple


class Pickled(NamedTuple):
    """A pickle, and the buffers it leaves out."""

    data: bytes
    buffers: list[memoryview]


def dump(value: Any, buffer_bytes: int = 0) -> Pickled:
    """Return the pickle of ``value``; buffers of at least ``buffer_bytes`` are left out of it.

    They are not copied: who changes the value changes them. Raises whatever objects raise that
    cannot be pickled, RecursionError for too deep a nesting.
    """
    file = BytesIO()
    pickler = _Pickler(file, buffer_bytes)
    pickler.dump(value)
    return Pickled(file.getvalue(), pickler.left_out)


def load(data: bytes | memoryview, buffers: Iterable[memoryview]) -> Any:
    """Return what dump() was given: arrays over the ``buffers``, all else as fresh objects.

    Raises whatever the objects raise as they are made.
    """
    return pickle.loads(data, buffers=buffers)


class _Pickler(pickle.Pickler):
    def __init__(self, file: BytesIO, buffer_bytes: int) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._stays_inside)
        self._buffer_bytes = buffer_bytes
        self.left_out: list[memoryview] = []

    def _stays_inside(self, buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < self._buffer_bytes:
            return True
        self.left_out.append(raw)
        return False

    def reducer_override(self, value: Any) -> Any:
        if type(value) is memoryview:
            if not value.c_contiguous:
                raise BufferError("it leaves gaps in its memory: make it contiguous, or bytes")
            return _memoryview, (pickle.PickleBuffer(value), value.format, value.shape)
        return NotImplemented


def _memoryview(buffer: Any, format: str, shape: tuple[int, ...]) -> memoryview:
    flat = memoryview(buffer).toreadonly().cast("B")
    return flat if format == "B" and len(shape) == 1 else flat.cast(format, shape)  # type: ignore[call-overload]
