"""Objects of any type as pickles of protocol 5, whose large buffers stay where they are.

Both is done in the processes of a run alone: the store sees bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from io import BytesIO
from typing import Any, NamedTuple

from ..conftests import reduced


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
    views: dict[int, memoryview] = {}
    left_out: list[memoryview] = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = views.get(id(buffer)) or buffer.raw()
        if raw.nbytes < buffer_bytes:
            return True
        left_out.append(raw)
        return False

    _Pickler(file, stays_inside, views).dump(value)
    return Pickled(file.getvalue(), left_out)


def load(data: bytes | memoryview, buffers: Iterable[memoryview] = ()) -> Any:
    """Return what dump() was given: arrays over the ``buffers``, all else as fresh objects.

    Raises whatever the objects raise as they are made.
    """
    return pickle.loads(data, buffers=buffers)


class _Pickler(pickle.Pickler):
    """Takes what stands in any conftest.py, and memoryviews.

    It notes these by the id of the buffer that stands for each.

    A memoryview of a memoryview crashes the garbage collector before Python 3.12.3, if both end in
    a cycle, as that of an exception. So of each there is none but while it is pickled, and the
    pickler itself is in no cycle.
    """

    def __init__(self, file: BytesIO, stays_inside: Any, views: dict[int, memoryview]) -> None:
        super().__init__(file, protocol=5, buffer_callback=stays_inside)
        self._views = views

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not memoryview:
            return reduced(value)
        if not value.c_contiguous:
            raise BufferError("it leaves gaps in its memory: make it contiguous, or bytes")
        buffer = pickle.PickleBuffer(value)
        self._views[id(buffer)] = value.cast("B")
        return _memoryview, (buffer, value.format, value.shape)


def _memoryview(buffer: Any, format: str, shape: tuple[int, ...]) -> memoryview:
    flat = memoryview(buffer).toreadonly().cast("B")
    return flat if format == "B" and len(shape) == 1 else flat.cast(format, shape)  # type: ignore[call-overload]
