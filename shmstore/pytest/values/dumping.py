"""A value as bytes and buffers, and back.

The bytes are msgpack where that keeps exact types and where nothing in the value is reached in two
ways; else a pickle behind a mark, with which msgpack never begins:

     0  0xc1                          1  how many buffers were left out of the pickle
     5  the number of the first       13  the pickle
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from ...engine import quick_tree
from . import exact, pickled
from .culprit import Refused, not_shareable
from .errors import NotShareable
from .options import Options
from .survey import MUTABLE, Survey, survey

DEPTH_MAX = 200
"""Deeper values are pickled: msgpack bears 500, and who unpacks may be deep in calls already."""
TOGETHER = 64
"""So many values are looked at at once: to begin takes as long as to look at one."""
_MARK = 0xC1
_HEADER = struct.Struct(">BIQ")


class Dumped(NamedTuple):
    """A value as bytes, with the buffers that it leaves where they are."""

    body: bytes
    buffers: Sequence[memoryview] = ()
    frozen: bool = False
    """Whether nothing in the value can be changed, so that all may use one object."""


def dump(value: Any, options: Options, first: int = 0) -> Dumped:
    """Return ``value`` as bytes; its buffers will be numbered from ``first`` on.

    Raises NotShareable, which names the part that is at fault.
    """
    try:
        return _dump(options, value, first)
    except Refused as refused:
        again = partial(_dump, options)
        raise not_shareable(value, options.name, refused, again, options.pickle) from None


def dump_each(values: Iterable[Any], options: Options) -> Iterator[Dumped]:
    """Yield each of ``values`` as dump() returns it alone; its buffers are numbered on.

    Whether one is frozen is not told. Raises NotShareable where the value at fault would come.
    """
    first = 0
    waiting = iter(values)
    while together := list(islice(waiting, TOGETHER)):
        found = None
        for value in together:
            body = quick_tree(value)
            if body is None:
                found = found or survey(together)
                body = _packed_as(found, value)
            dumped = dump(value, options, first) if body is None else Dumped(body)
            first += len(dumped.buffers)
            yield dumped


def _packed_as(found: Survey, value: Any) -> bytes | None:
    """Return ``value`` packed, if that can be done with all that ``found`` is of; else None."""
    if _why_not_packed(found) is not None:
        return None
    try:
        return exact.pack(value, found.kinds)
    except exact.Uncoded:
        return None


def load(body: bytes | memoryview, buffer: Callable[[int], memoryview], name: str) -> Any:
    """Return the value of a body, made of fresh objects; ``buffer`` gives a buffer by its number.

    Raises what ``buffer`` raises, and NotShareable for ``name`` if a pickled object cannot be made
    again.
    """
    if body[0] != _MARK:
        return exact.unpack(body)
    _, count, first = _HEADER.unpack_from(body)
    buffers = [buffer(number) for number in range(first, first + count)]
    try:
        return pickled.load(memoryview(body)[_HEADER.size :], buffers)
    except MemoryError:
        raise
    except Exception as error:  # objects raise what they like
        reason = f"{type(error).__name__}: {error}"
        kind = type(error).__name__
    raise NotShareable(
        f"{name} was pickled, but cannot be made again of that ({reason}); return plain data from "
        f"the fixture, or objects whose pickles can be loaded",
        path=name,
        type=kind,
    )


def _dump(options: Options, value: Any, first: int = 0) -> Dumped:
    packed = quick_tree(value)
    if packed is not None:
        return Dumped(packed, (), type(value) not in MUTABLE)
    found = survey(value)
    refused = _why_not_packed(found)
    if refused is None:
        try:
            return Dumped(exact.pack(value, found.kinds), (), found.kinds.isdisjoint(MUTABLE))
        except exact.Uncoded:
            refused = Refused("with a time zone of another kind is for pickle alone")
    if not options.pickle:
        refused.args = (f"{refused}, which is switched off",)
        raise refused
    data, buffers = _pickled(value, options.buffer_bytes)
    return Dumped(_HEADER.pack(_MARK, len(buffers), first) + data, buffers)


def _why_not_packed(found: Survey) -> Refused | None:
    if found.depth > DEPTH_MAX:
        return Refused(f"nested more than {DEPTH_MAX} deep is for pickle alone", whole=True)
    if found.shared:
        return Refused("with parts that it holds twice, or that hold it, is for pickle alone")
    if not found.kinds <= exact.KINDS:
        return Refused("is for pickle alone")
    return None


def _pickled(value: Any, buffer_bytes: int) -> pickled.Pickled:
    try:
        return pickled.dump(value, buffer_bytes)
    except RecursionError:
        refused = Refused("is nested too deep", whole=True)
    except MemoryError:
        raise
    except Exception as error:  # objects raise what they like
        refused = Refused(f"cannot be pickled ({type(error).__name__}: {error})")
    raise refused  # here, as the frames of the other error hold buffers
