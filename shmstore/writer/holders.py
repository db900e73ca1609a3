"""Who has something in the store for as long as its process lives, and what goes when that ends.

A holder is a process, told by its id and its start time. It is watched by a descriptor that tells
of its end, also of a zombie's; where none is to be had, /proc is looked at again and again. The
segment has a record of each, so that the next writer goes on watching. Writer process only; commits
batches of its own, for which the open batch must be empty.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ..codec import message_pack
from ..engine import Owner
from ..errors import CorruptSegment, InvalidArgument, LimitReached, ProcessUnseen, ShmstoreError
from ..keys import shown
from ..processes import HOLDER_BYTES, Sight, holder_of, look, process_of
from .border import Place
from .catalogue import walk
from .operations import Operations
from .ties import HOLDERS, TABLE, Tie, Ties
from .trouble import presentable

PIN_SECONDS = 2.0
"""How long the end of a holder is outlasted by its pins: a child it forked may be about to share
them."""
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
        """The other ones."""
        self._ended: dict[bytes, float] = {}
        """Those that have, and when what they pinned goes."""
        for item in walk(owner, Place(TABLE, HOLDERS)):
            self._begin(_checked(item[0]))

    def __len__(self) -> int:
        return len(self._descriptors) + len(self._looked_at) + len(self._ended)

    def hold(self, pid: int, start: object) -> bytes:
        """Return the holder that a process is, from now on if it was none.

        ``pid`` is what the kernel says of who asks, ``start`` what that says of itself. Errors:
        ``ProcessUnseen`` if there is no such process here, ``InvalidArgument``, ``StoreFull``,
        ``LimitReached`` if the writer lacks what it takes to look.
        """
        if type(start) is not int or not 0 <= start < 1 << 64:
            raise InvalidArgument(f"the start time of a process is a count, not {shown(start)}")
        try:
            sight = look(pid) if pid else None
        except OSError as error:
            raise LimitReached(
                f"the writer cannot look at this process now, so nothing can be held for it "
                f"({error}): try again"
            ) from error
        if sight is None or sight.start != start or sight.ended:
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

    def share(self, holder: bytes, granules: list[int]) -> list[int]:
        """Pin for a holder what others have pinned; return what nobody has. Errors: ``StoreFull``,
        ``InvalidArgument`` if there is no such holder."""
        self._ties.check(holder)
        try:
            lost = [each for each in granules if not self._owner.share_pin(holder, each)]
            self._owner.commit()
        except ShmstoreError:
            self._owner.abort()
            raise
        return lost

    def unpin(self, holder: bytes, granules: list[int]) -> int:
        """Take pins away; return how many there were."""
        count = sum(self._owner.unpin(holder, granule) for granule in granules)
        self._owner.commit()
        return count

    def tidy(self) -> None:
        """Look at those that no descriptor tells of, and release those that have ended."""
        now = self._now()
        for holder in [each for each in self._looked_at if _has_ended(each)]:
            del self._looked_at[holder]
            self._ended[holder] = now + PIN_SECONDS
        if self._ended:
            self._release(now)
        left = self._looked_at or self._ended
        self.look_at = now + LOOK_SECONDS if left else None

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
        """Note that a holder has ended, as its descriptor says."""
        descriptor = self._descriptors.pop(holder)
        self._watch.unwatch(descriptor)
        os.close(descriptor)
        self._ended[holder] = self._now() + PIN_SECONDS
        self.look_at = self._now()

    def _release(self, now: float) -> None:
        """Give up what the ended held: of each together if there is room for that batch, or in
        single steps; what there is no room for is tried again later."""
        ties, pins = defaultdict(list), defaultdict(list)
        for tie in self._ties.all():
            ties[tie.holder].append(tie)
        for holder, granule, _ in self._owner.pins():
            pins[holder].append(granule)
        for holder, until in list(self._ended.items()):
            last = now >= until or not pins[holder]
            steps: list[Callable[[], object]] = [partial(self._cut, tie) for tie in ties[holder]]
            if last:
                steps += [partial(self._owner.unpin, holder, each) for each in pins[holder]]
                steps.append(partial(self._owner.remove, TABLE, HOLDERS, holder))
            done = self._commit(steps) or all(self._commit([step]) for step in steps)
            if last and done:
                del self._ended[holder]

    def _cut(self, tie: Tie) -> None:
        if not self._ties.is_stale(tie):
            self._operations.delete(tie.place, tie.key)
        self._ties.drop(tie)

    def _commit(self, steps: list[Callable[[], object]]) -> bool:
        """Commit these steps together; tell whether there was room."""
        try:
            for step in steps:
                step()
            self._owner.commit()
        except ShmstoreError:
            self._owner.abort()
            return False
        except Exception as error:
            self._owner.abort()
            presentable(error, "releasing what a process held")  # which logs it
            return False
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
