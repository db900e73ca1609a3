"""Who has something in the store for as long as its process lives, and what goes when that ends.

A holder is a process, told by its id and its start time. It is watched by a descriptor that tells
of its end, also of a zombie's; where none is to be had, /proc is looked at again and again. The
segment has a record of each, so that the next writer goes on watching. Writer process only; commits
batches of its own, for which the open batch must be empty.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ..codec import message_pack
from ..engine import Owner
from ..errors import CorruptSegment, InvalidArgument, ProcessUnseen, ShmstoreError
from ..keys import shown
from ..processes import HOLDER_BYTES, Sight, holder_of, look, process_of
from .border import Place
from .catalogue import walk
from .operations import Operations
from .ties import HOLDERS, TABLE, Tie, Ties
from .trouble import presentable

LOOK_SECONDS = 1.0
"""How often /proc is looked at, and what could not be done for want of room is tried again."""


class Watch(Protocol):
    """Who waits for descriptors."""

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call ``handler`` when ``fd`` can be read."""

    def unwatch(self, fd: int) -> None:
        """Do not wait for ``fd`` any more."""


class Holders:
    """The holders of the segment that ``owner`` writes."""

    def __init__(
        self, owner: Owner, operations: Operations, watch: Watch, now: Callable[[], float]
    ) -> None:
        """Watch those of the writer before. Errors: ``CorruptSegment``."""
        self._owner = owner
        self._operations = operations
        self._ties = Ties(owner)
        self._watch = watch
        self._now = now
        self.look_at: float | None = None
        """When ``tidy`` is to be called; None if there is no reason."""
        self._descriptors: dict[bytes, int] = {}
        """Of the holders that are watched that way."""
        self._looked_at: dict[bytes, None] = {}
        """The other ones, and those that have ended and could not be released."""
        for item in walk(owner, Place(TABLE, HOLDERS)):
            self._begin(_checked(item[0]))

    def __len__(self) -> int:
        return len(self._descriptors) + len(self._looked_at)

    def hold(self, pid: int, start: object) -> bytes:
        """Return the holder that a process is, from now on if it was none.

        ``pid`` is what the kernel says of who asks, ``start`` what that says of itself. Errors:
        ``ProcessUnseen`` if there is no such process here, ``InvalidArgument``, ``StoreFull``.
        """
        if type(start) is not int or not 0 <= start < 1 << 64:
            raise InvalidArgument(f"the start time of a process is a count, not {shown(start)}")
        sight = look(pid) if pid else None
        if sight is None or sight.start != start:
            raise ProcessUnseen(
                "the writer does not see this process, as they are in different containers, and so "
                "could not tell when it has ended: nothing can be held for it",
                pid=pid,
            )
        holder = holder_of(pid, start)
        if holder not in self._descriptors and holder not in self._looked_at:
            try:
                self._owner.put(TABLE, HOLDERS, holder, message_pack([pid, start]))
                self._owner.commit()
            except ShmstoreError:
                self._owner.abort()
                raise
            self._begin(holder)
        return holder

    def tidy(self) -> None:
        """Look at those that no descriptor tells of, and release those that have ended."""
        for holder in list(self._looked_at):
            if _has_ended(holder):
                self._release(holder)
        self.look_at = self._now() + LOOK_SECONDS if self._looked_at else None

    def close(self) -> None:
        """Watch nobody any more; the segment keeps what is held."""
        for descriptor in self._descriptors.values():
            self._watch.unwatch(descriptor)
            os.close(descriptor)
        self._descriptors.clear()

    def _begin(self, holder: bytes) -> None:
        descriptor = _open_descriptor(holder)
        if descriptor is not None:
            try:
                self._watch.watch(descriptor, partial(self._end, holder))
            except OSError:  # the kernel has no memory for it
                os.close(descriptor)
            else:
                self._descriptors[holder] = descriptor
                return
        self._looked_at[holder] = None
        self.look_at = self._now()

    def _end(self, holder: bytes) -> None:
        """A holder has ended, as its descriptor says."""
        descriptor = self._descriptors.pop(holder)
        self._watch.unwatch(descriptor)
        os.close(descriptor)
        self._looked_at[holder] = None
        self.look_at = self._now()

    def _release(self, holder: bytes) -> None:
        """Give up all that a holder held, together if there is room for that batch; try again
        later if there is not even room for single ones."""
        ties = self._ties.of(holder)
        if self._commit(holder, ties, last=True):
            return
        if all(self._commit(holder, [tie], last=False) for tie in ties):
            self._commit(holder, [], last=True)

    def _commit(self, holder: bytes, ties: list[Tie], last: bool) -> bool:
        try:
            for tie in ties:
                if not self._ties.is_stale(tie):
                    self._operations.delete(tie.place, tie.key)
                self._ties.drop(tie)
            if last:
                self._owner.remove(TABLE, HOLDERS, holder)
            self._owner.commit()
        except ShmstoreError:
            self._owner.abort()
            return False
        except Exception as error:
            self._owner.abort()
            presentable(error, "releasing what a process held")  # logged
            return False
        if last:
            del self._looked_at[holder]
        return True


def _has_ended(holder: bytes) -> bool:
    pid, start = process_of(holder)
    try:
        sight = look(pid)
    except OSError:  # not known
        return False
    return sight is None or sight.start != start or sight.ended


def _open_descriptor(holder: bytes) -> int | None:
    """Return what can be read once a process has ended; None if there is none for it."""
    pid, start = process_of(holder)
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError, OverflowError):
        return None
    try:
        sight: Sight | None = look(pid)
    except OSError:
        sight = None
    if sight is not None and sight.start == start:
        return descriptor
    os.close(descriptor)  # of another process that has this id now
    return None


def _checked(holder: object) -> bytes:
    if type(holder) is not bytes or len(holder) != HOLDER_BYTES:
        raise CorruptSegment(f"the record of holder {holder!r} is damaged")
    return holder
