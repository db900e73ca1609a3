"""The native engine while other code runs in the middle of its calls, and closes what they use."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import pytest

from shmstore.engine import load_native
from shmstore.errors import StoreFull
from tests.segments import Segment, nothing

RECORDS = 300
CAPACITY = 1 << 20


@pytest.fixture
def native() -> ModuleType:
    try:
        return load_native()
    except ImportError as error:
        if os.environ.get("SHMSTORE_ENGINE") == "native":
            raise
        pytest.skip(f"no native engine here: {error}")


@contextmanager
def collecting(threshold: int) -> Iterator[None]:
    """Collect garbage after so many new objects."""
    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(threshold, 1000, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize("threshold", range(3, 300, 29))
def test_a_finalizer_closes_the_reader_amid_a_walk(native: ModuleType, threshold: int) -> None:
    segment = Segment(native, CAPACITY)
    for i in range(RECORDS):
        segment.owner.put("t", "", f"k{i}", b"x" * 30)
    segment.owner.commit()
    memory = segment.memory
    reader = native.Reader(memory)
    segment.owner.close()

    class Closer:
        def __init__(self) -> None:
            self.circle = self

        def __del__(self) -> None:
            reader.close()
            with suppress(BufferError):
                memory.close()

    gc.disable()
    Closer()
    gc.enable()
    with collecting(threshold), suppress(ValueError):
        assert len(reader.chunk("t", "", b"", None, None, False)) == RECORDS
    gc.collect()
    with pytest.raises(ValueError, match="closed"):
        reader.chunk("t", "", b"", None, None, False)
    memory.close()


def test_a_view_keeps_the_reader_it_was_attached_to_first(native: ModuleType) -> None:
    """Attaching may attach: whoever reads with the first reader must not lose it."""
    segment = Segment(native)
    segment.put("k", b"\x01")
    readers: list[Any] = []

    class View(native.View):  # type: ignore[misc, name-defined]
        def _attach(self) -> tuple[Any, int]:
            readers.append(native.Reader(segment.memory))
            mine = readers[-1]
            if len(readers) < 3:
                assert self["k"] == 1
            return mine, mine.scope("t", "")

        def _ask(self, method: str, key: Any) -> str:
            return "asked"

    view = View()
    assert view.get_bytes("k") == b"\x01"
    assert len(readers) == 3
    for reader in readers[:2]:
        reader.close()
    assert view.get_bytes("k") == b"\x01"
    readers[2].close()
    assert view.get_bytes("k") == "asked"
    segment.close()


def test_an_owner_that_calls_back_refuses_other_calls(native: ModuleType) -> None:
    memory = mmap.mmap(-1, 2 * CAPACITY)
    refused: list[str] = []
    native.Owner.create(memory, nothing, nothing).close()

    def extend(offset: int, size: int) -> None:
        for method in (owner.close, owner.commit, owner.abort, owner.settle, owner.check):
            with pytest.raises(RuntimeError, match="at work") as raised:
                method()
            refused.append(str(raised.value))
        raise OSError("not now, é" + "é" * 500)

    owner = native.Owner.take_over(memory, extend, nothing)
    with pytest.raises(StoreFull, match="not now, ééé"):
        owner.put("t", "", "k", bytes(CAPACITY))
    assert len(refused) == 5
    owner.close()
    memory.close()
