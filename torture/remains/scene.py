"""A server with its programs; what strikes them; and what has to be gone then, and is not."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from multiprocess import get_context

from . import actors, traces
from .traces import Process

ROLES = ("starter", "writer", "spare", "client", "child")
SERVANTS = frozenset({"starter", "writer", "spare"})
"""While one of these lives, somebody can remove the socket's file."""
WAYS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "stop": signal.SIGSTOP}
"""What strikes. Where some are stopped, all the others are killed then."""
POLL_SECONDS = 0.005
REPLY_SECONDS = 60.0


class Broken(Exception):
    """A promise that did not hold."""


class Scene:
    """One life of a server, always of the same name in ``directory``.

    ``patience`` is how many seconds what has to go may take to be gone.
    """

    def __init__(self, directory: str, patience: float) -> None:
        self.slowest = 0.0
        """The longest time, in seconds, that anything took to be gone."""
        self.kept_socket = False
        """Whether the socket's file stayed."""
        self._directory = directory
        self._patience = patience
        self._address = os.path.join(directory, f"{actors.NAME}.sock")
        self._cast: dict[str, Process] = {}
        self._memory: int | None = None
        self._closing = False
        self._programs: list[Any] = []
        self._channel = self._play("starter", actors.starter, directory)

    def open(self) -> None:
        """Wait until the starter is about to start the server."""
        self._hear("start")

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass."""
        time.sleep(seconds)

    def begin(self) -> None:
        """Wait until the server is there with its spare, and all who use it."""
        self._meet(self._hear())
        talk = self._play("client", actors.client, self._address)
        if not talk.poll(REPLY_SECONDS):
            raise Broken("a client cannot connect")

    def order(self, order: str, until_done: bool = True) -> None:
        """Have the starter do something; return when it has done it, or else when it begins."""
        self._closing = order == "close"
        self._channel.send(order)
        self._hear(order)
        if until_done:
            self._hear("done")

    def who(self) -> list[str]:
        """Return who is there now; those without a role are named by their process ids."""
        known = {process.pid for process in self._cast.values()}
        for pid in traces.children_of(self._cast["starter"].pid):
            if pid not in known:
                self._admit(str(pid), pid)
        return [role for role, process in self._cast.items() if not process.gone()]

    def can_be_stopped(self, role: str) -> bool:
        """Tell whether it would end though it is stopped: nobody promises that for the first
        moment of its life."""
        return role in ROLES or traces.can_be_woken(self._cast[role].pid)

    def strike(self, roles: Sequence[str], way: str, one_by_one: bool) -> None:
        """Strike these in this order, each when the one before it is gone if ``one_by_one``."""
        self._send(roles, WAYS[way], one_by_one and way != "stop")
        if way == "stop":
            others = [role for role in self._cast if role not in roles]
            self._send(others, signal.SIGKILL, one_by_one)

    def restart(self, times: int) -> None:
        """Kill the writer so often; Broken if the starter has more open, or more children, then."""
        self.order("put")
        self.order("settle")
        before = self._belongings()
        for _ in range(times):
            self.order("restart")
            self.order("settle")
        if (after := self._belongings()) != before:
            raise Broken(f"after {times} restarts the starter has {after - before} more")

    def judge(self, doomed: bool, excused: bool, orderly: bool) -> None:
        """End what is left of the scene; raise Broken for what is still there then.

        ``doomed``: the starter was struck. If not, mutations must flow again, and the starter
        closes the server if ``orderly``, or is killed. ``excused``: there may have been nobody to
        remove the socket's file.
        """
        starter = self._cast["starter"]
        if not doomed:
            served = self._see_service()
            doomed = not served
            if orderly and served:
                self._channel.send(None)
        if doomed or not orderly:
            starter.send(signal.SIGKILL)
        if not starter.gone(REPLY_SECONDS):
            raise Broken("the starter does not end")
        self._wait("processes", lambda: traces.servants_of(self._directory))
        # One that has not been executed yet is none of them, and would end as soon as it is.
        self._wait("listeners", lambda: traces.listeners_at(self._address))
        self.kept_socket = os.path.exists(self._address)
        if self.kept_socket and not excused:
            raise Broken("the socket's file is left, and somebody could have removed it")
        self._send([role for role in ("client", "child") if role in self._cast], signal.SIGKILL)
        if (memory := self._memory) is not None:
            self._wait("memory", lambda: traces.holders_of(memory))
        if others := set(os.listdir(self._directory)) - {os.path.basename(self._address)}:
            raise Broken(f"files are left: {others}")

    def close(self) -> None:
        """End everything, and forget it."""
        for process in self._cast.values():
            process.send(signal.SIGKILL)
        for pid in traces.servants_of(self._directory):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for program in self._programs:
            program.join()
            program.close()
        for process in self._cast.values():
            process.close()
        self._channel.close()

    def _belongings(self) -> Counter[str]:
        pid = self._cast["starter"].pid
        children = Counter(children=len(traces.children_of(pid)))
        return traces.descriptors_of(pid) + children

    def _play(self, role: str, program: Callable[..., None], place: str) -> Any:
        ours, theirs = get_context("fork").Pipe()
        playing = get_context("fork").Process(target=program, args=(place, theirs))
        playing.start()
        theirs.close()
        self._programs.append(playing)
        self._admit(role, playing.pid)
        return ours

    def _admit(self, role: str, pid: int) -> None:
        with suppress(ProcessLookupError):  # it is gone already
            self._cast[role] = Process(pid)

    def _meet(self, cast: dict[str, int]) -> None:
        self._memory = cast.pop("memory")
        for role, pid in cast.items():
            self._admit(role, pid)

    def _send(self, roles: Sequence[str], number: signal.Signals, one_by_one: bool = False) -> None:
        for role in roles:
            self._cast[role].send(number)
            if one_by_one and not self._cast[role].gone(REPLY_SECONDS):
                raise Broken(f"{role} does not end")

    def _hear(self, expected: str | None = None) -> Any:
        """Return what the starter says next; if something is expected, wait for that."""
        while self._channel.poll(REPLY_SECONDS):
            said = self._channel.recv()
            if str(said).startswith("failed"):
                raise Broken(f"the starter {said}")
            if expected in (None, said):
                return said
        raise Broken(f"the starter has not said {expected!r} within {REPLY_SECONDS:g} s")

    def _see_service(self) -> bool:
        """See that a mutation is acknowledged; False if there is no server, and rightly so."""
        if self._closing:
            self._hear("done")
            return False
        if self._memory is None:
            try:
                self._meet(self._hear())
            except Broken:
                return False  # who loses the first writer has not started a server
        self.order("put")
        return True

    def _wait(self, what: str, look: Callable[[], dict[int, str]]) -> None:
        began = time.monotonic()
        while left := look():
            if time.monotonic() > began + self._patience:
                raise Broken(f"{what} left after {self._patience:g} s: {left}")
            time.sleep(POLL_SECONDS)
        self.slowest = max(self.slowest, time.monotonic() - began)
