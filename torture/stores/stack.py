"""A whole server whose writer is killed at a store while it does what a client asked for."""

from __future__ import annotations

import os
import random
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import shmstore
from shmstore.server import supervisor
from torture.trial import Report

from .life import ENDLESS, StoreBudget, in_child
from .requests import REQUESTS, Request, prepare
from .watch import Watch

CAPACITY = "8MiB"
FINDINGS_MAX = 20
SECOND_KILLS_MAX = 16
"""A successor that is killed, too, makes fewer stores than this before."""
EVERY_STORE = 64
"""Of requests with more stores, as many are the writer's last by chance."""


class Onlooker:
    """A process with a client of its own that reads all the time, and says what it should not
    have seen."""

    def __init__(self) -> None:
        self._ours, theirs = Pipe()
        self._pid = in_child(lambda: _look_on(theirs, self._ours))
        theirs.close()

    def attach(self, address: str) -> None:
        self._ours.send(address)

    def watch(self, request: int, before: Any, after: Any) -> None:
        """Return once it looks on."""
        self._ours.send((request, before, after))
        self._ours.recv()

    def stop(self) -> tuple[int, str]:
        """Let it look once more; return how often it did, and what was wrong."""
        self._ours.send(None)
        looks, problem = self._ours.recv()
        return looks, problem

    def close(self) -> None:
        self._ours.close()
        os.waitpid(self._pid, 0)


def _look_on(theirs: Connection, ours: Connection) -> None:
    ours.close()
    with shmstore.connect(theirs.recv()) as client:
        while True:
            try:
                number, before, after = theirs.recv()
            except EOFError:
                return
            request = REQUESTS[number]
            watch = Watch(before, after, request.atomic)
            watch.look(request.views(client))
            theirs.send("ready")
            while not theirs.poll():
                watch.look(request.views(client))
            theirs.recv()
            watch.look(request.views(client))
            theirs.send((watch.looks, watch.problem))


class Stack:
    """A server, a client, an onlooker, and a writer who dies as told."""

    def __init__(self, budget: StoreBudget, seed: int) -> None:
        self.report = Report()
        self._budget = budget
        self._seed = seed
        self._rng = random.Random(seed)
        self._undisturbed: dict[str, tuple[list[Any], list[Any], Any, int]] = {}
        self._server: shmstore.Server
        self._client: shmstore.Client
        self._onlooker: Onlooker

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything, and learn what each request does when nobody is killed."""
        # Deaths are what this is about: none of them is a reason for a pause.
        supervisor.QUICK_DEATHS_FREE = 1 << 60
        self._onlooker = Onlooker()
        try:
            with shmstore.start(capacity=CAPACITY) as server, server.connect() as client:
                self._server, self._client = server, client
                self._onlooker.attach(server.address)
                for request in REQUESTS:
                    self._learn(request)
                yield
        finally:
            self._onlooker.close()

    def _learn(self, request: Request) -> None:
        prepare(self._client)
        before = list(request.views(self._client))
        self._budget.disarm()
        result = request.ask(self._client)
        stores = self._budget.spent
        self._undisturbed[request.name] = before, list(request.views(self._client)), result, stores
        self.report.add("operations")

    def chances(self, most: int = EVERY_STORE) -> list[tuple[int, int]]:
        """Return (request, store): all, or those at the end and a sample. First come the last
        store of each, where all is committed and nobody has an answer, then the rest by chance."""
        first, rest = [], []
        for number, request in enumerate(REQUESTS):
            stores = self._undisturbed[request.name][3]
            early = range(max(0, stores - most // 2))
            chosen = self._rng.sample(early, min(len(early), most - most // 2))
            first.append((number, stores - 1))
            rest += [(number, at) for at in [*chosen, *range(len(early), stores - 1), stores]]
        self._rng.shuffle(first)
        self._rng.shuffle(rest)
        return first + rest

    def kill_writer(self, number: int, store: int) -> None:
        """Let a request be cut off; it must be done once, and give what it gives undisturbed."""
        request, budget, client = REQUESTS[number], self._budget, self._client
        before, after, expected, stores = self._undisturbed[request.name]
        then = self._rng.choice([ENDLESS, ENDLESS, self._rng.randrange(SECOND_KILLS_MAX)])
        where = f"{request.name}, the writer killed before store {store} of {stores}, then {then}"
        prepare(client)
        self._onlooker.watch(number, before, after)
        budget.arm(store, then)
        try:
            result = request.ask(client)
        except Exception as error:
            result = error
        kills = budget.kills
        budget.disarm()
        looks, problem = self._onlooker.stop()
        if problem:
            self._find(where, f"another process: {problem}")
        if repr(result) != repr(expected):
            self._find(where, f"the client got {result!r} and not {expected!r}")
        if list(request.views(client)) != after:
            self._find(where, "what is there now is not what the request does")
        self._check(where)
        self.report.add("whole-stack kills", kills)
        self.report.add("requests that lost their writer and came through", kills > 0)
        self.report.add("reads of another process beside them", looks)

    def kill_both(self, number: int, store: int) -> None:
        """Let the client die with the writer: what it asked for is done wholly, or not at all."""
        request, budget = REQUESTS[number], self._budget
        before, after, _, stores = self._undisturbed[request.name]
        where = f"{request.name}, client and writer killed before store {store} of {stores}"
        prepare(self._client)
        self._onlooker.watch(number, before, after)
        pid = self._ask_in_child(request, store)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        kills = budget.kills
        budget.disarm()
        self._client.ping()
        now = list(request.views(self._client))
        looks, problem = self._onlooker.stop()
        if status != (-signal.SIGKILL if kills else 0):
            self._find(where, f"the client ended with {status}")
        if problem:
            self._find(where, f"another process: {problem}")
        if now != after and (request.atomic or not _between(now, before, after)) and now != before:
            self._find(where, "what is there now is neither the state before nor that after")
        if now != after and not kills:
            self._find(where, "the request was answered and is not there")
        self._check(where)
        self.report.add("whole-stack kills", kills)
        self.report.add("requests whose client was killed with the writer", kills > 0)
        self.report.add("reads of another process beside them", looks)

    def _ask_in_child(self, request: Request, store: int) -> int:
        """Fork a client, which asks once it is connected; the kill takes it along."""
        connected, go = Pipe(), Pipe()

        def be_client() -> None:
            with shmstore.connect(self._server.address) as client:
                request.views(client)
                client.ping()
                connected[1].send(None)
                go[0].recv()
                request.ask(client)

        pid = in_child(be_client)
        if select.select([connected[0]], [], [], 30.0)[0]:
            connected[0].recv()
        self._budget.arm(store, also=pid)
        go[1].send(None)
        for end in (*connected, *go):
            end.close()
        return pid

    def _check(self, where: str) -> None:
        if complaints := self._client.check():
            self._find(where, f"check says {complaints[:3]}")
        self.report.add("states checked")

    def _find(self, where: str, what: str) -> None:
        if len(self.report.findings) < FINDINGS_MAX:
            self.report.findings.append(f"whole stack, seed {self._seed}: {where}: {what}")


def _between(now: list[Any], before: list[Any], after: list[Any]) -> bool:
    return all(seen in pair for seen, *pair in zip(now, before, after, strict=True))
