"""The current namespace: a context variable, and how child processes inherit it.

Within a process it follows the context: threads start in the namespace the process began in, and
asyncio tasks in that of the code that made them. A forked child starts where its parent's thread
was. Any other child reads ``SHMSTORE_NAMESPACE`` from its environment, which follows the namespace
entered last in the parent, by whichever thread; ``environment()`` is exact. Children of a fork
server, which has an old environment, are told what that of their parent holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Lock

from . import fork_server
from .errors import InvalidKey
from .keys import name_of

VARIABLE = "SHMSTORE_NAMESPACE"
DEFAULT = "global"
_VARIABLE = VARIABLE.encode()


class _Block:
    """One ``with namespace(...)`` block that is open; equal to itself only."""

    __slots__ = ("name", "outer", "process")

    def __init__(self, name: str, outer: _Block | None) -> None:
        self.name = name
        self.outer = outer
        self.process = os.getpid()


class _Process:
    """The namespace of the process itself, and the blocks that are open in any of its threads."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.outermost = os.environb.get(_VARIABLE)
        self.inherited = self.start = (self.outermost or b"").decode("utf-8", "surrogateescape")
        self.open: list[_Block] = []
        self.is_settled = False

    def settle(self) -> None:
        """Learn, once, where a child of a fork server starts."""
        if self.is_settled:
            return
        try:
            told = fork_server.told()
        except fork_server.TooEarly:
            return
        self.is_settled = True
        if told is not None:
            self.outermost = told.encode("utf-8", "surrogateescape") or None
            self.inherited = self.start = told
            self.publish()

    def enter(self, block: _Block) -> None:
        self.settle()
        with self.lock:
            if not self.open:
                self.outermost = os.environb.get(_VARIABLE)
            self.open.append(block)
            self.publish()

    def leave(self, block: _Block) -> None:
        with self.lock:
            if block.process != os.getpid():
                # A forked child walks out of a block of its parent.
                self.start = block.outer.name if block.outer else self.inherited
            if block in self.open:
                self.open.remove(block)
                self.publish()

    def publish(self) -> None:
        """Set the environment to the block entered last, or to what it was before all."""
        # As bytes: the locale's encoding may not know all characters of a name.
        name = self.open[-1].name.encode() if self.open else self.outermost
        if name is None:
            os.environb.pop(_VARIABLE, None)
        else:
            os.environb[_VARIABLE] = name
        fork_server.hand_on(VARIABLE)

    def begin_forked(self) -> None:
        """Start anew in a forked child: of the threads only the one that forked is there."""
        self.lock = Lock()
        if not self.open:
            return
        self.open = []
        block = _block.get()
        self.start = self.start if block is None else block.name
        while block is not None:
            self.open.insert(0, block)
            block = block.outer
        self.publish()


_block: ContextVar[_Block | None] = ContextVar("shmstore_namespace", default=None)
_process = _Process()


def current() -> str:
    """Return the namespace of the calling code; "global" unless one was entered or inherited.

    Raises InvalidKey if ``SHMSTORE_NAMESPACE`` was set to what cannot name a namespace.
    """
    block = _block.get()
    if block is not None:
        return block.name
    _process.settle()
    return name_of("namespace", _process.start or DEFAULT)


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """Make ``name`` the current namespace inside the block; yield it.

    Blocks nest, in each thread and task by itself. Child processes that are started inside inherit
    it, see the module. Raises InvalidKey unless ``name`` is text of 1 to 255 bytes.
    """
    name = name_of("namespace", name)
    if "\0" in name:
        raise InvalidKey("a namespace travels in the environment: it cannot hold a NUL character")
    block = _Block(name, _block.get())
    token = _block.set(block)
    _process.enter(block)
    try:
        yield name
    finally:
        _process.leave(block)
        with suppress(ValueError):
            # Refused where the block is left in another context than it was entered in, as
            # generator fixtures do: that context never saw it.
            _block.reset(token)


def environment() -> dict[str, str]:
    """Return a copy of the environment in which a child inherits the current namespace exactly.

    For ``subprocess``, where other threads may have entered namespaces of their own meanwhile.
    """
    return {**os.environ, VARIABLE: os.fsdecode(current().encode())}


os.register_at_fork(after_in_child=_process.begin_forked)
