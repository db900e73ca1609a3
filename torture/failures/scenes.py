"""What is done while a call fails: short plays of a client, and the start and end of servers.

A play is a list of steps. When one fails, the steps before it must have happened and the ones
after it not; itself wholly or not at all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import shmstore
from shmstore import Client, Server

TABLE, OTHER = "t", "u"
LARGE = 3 << 20
PIPELINED = 150
FIRST_ERRNO = 100
"""What a child process adds to an errno to make it its exit status."""
GONE = None
"""In a state: no record has this key."""
State = Mapping[str, Any]


class Notes(shmstore.Store):
    """A store with an index."""

    table, resource, prefix = "notes", "note", "no"
    indexes = ("parity",)


@dataclass
class Step:
    """One call, what it must return, and what it does to the records of the tables."""

    call: Callable[[], Any]
    expected: Any = None
    changes: State = field(default_factory=dict)
    each: bool = False
    """Whether each record is changed for itself, and not all together."""


@dataclass
class Play:
    """Steps, with the client who is used afterwards, and the state before them."""

    steps: list[Step]
    client: Client | None
    before: State = field(default_factory=dict)
    clean_up: Callable[[], None] = lambda: None
    """To be called when nothing fails any more."""

    def states(self, done: int, *, failed: bool) -> Iterator[dict[str, Any]]:
        """Yield what may be stored when so many steps succeeded, and the next one failed or not."""
        state = {key: GONE for step in self.steps for key in step.changes} | dict(self.before)
        for step in self.steps[:done]:
            state |= step.changes
        yield state
        if failed and done < len(self.steps):
            yield state | dict(self.steps[done].changes)

    def may_hold(self, found: State, done: int, *, failed: bool) -> bool:
        """Tell whether the tables may hold this."""
        states = list(self.states(done, failed=failed))
        if done < len(self.steps) and self.steps[done].each:
            return all(value in [state[key] for state in states] for key, value in found.items())
        return found in states


Maker = Callable[[Server, int], Play]


def attached(server: Server, timeout: float = 5.0) -> Client:
    """Return a client that has sent something already."""
    client = server.connect(timeout)
    client.ping()
    return client


def connecting(server: Server, number: int) -> Play:
    """A client comes and goes."""
    client = Client(server.address, 5.0)
    table = client.table(TABLE)
    return Play(
        [
            Step(client.attach),
            Step(lambda: table.put("c", number), ANY, {"t c": number}),
            Step(lambda: table["c"], number),
            Step(client.close),
        ],
        client,
    )


def calling(server: Server, number: int) -> Play:
    """Single requests of most kinds."""
    client = attached(server)
    table = client.table(TABLE)
    return Play(
        [
            Step(lambda: table.put("a", {"n": number}), ANY, {"t a": {"n": number}}),
            Step(lambda: table["a"], {"n": number}),
            Step(lambda: table.increment("i", by=7), 7, {"t i": 7}),
            Step(lambda: table.increment("i", by=7), 14, {"t i": 14}),
            Step(lambda: table.update({"a": 1, "b": 2}), None, {"t a": 1, "t b": 2}),
            Step(lambda: table.get_many(["a", "b", "x"]), {"a": 1, "b": 2}),
            Step(lambda: table.pop("a"), 1, {"t a": GONE}),
            Step(lambda: table.insert_new("i", 1), False),
            Step(lambda: len(table), 2),
            Step(lambda: sorted(table.items()), [("b", 2), ("i", 14)]),
            Step(client.check, []),
            Step(table.clear, ANY, {"t b": GONE, "t i": GONE}),
        ],
        client,
    )


def large(server: Server, number: int) -> Play:
    """Requests of which no socket takes all at once."""
    client = attached(server)
    table = client.table(TABLE)
    value, small = bytes([number % 251]) * LARGE, {f"m{i}": [i] * 9 for i in range(2000)}
    return Play(
        [
            Step(lambda: table.put("l", value), ANY, {"t l": value}),
            Step(lambda: table["l"], value),
            Step(lambda: table.update(small), None, {f"t {key}": small[key] for key in small}),
            Step(lambda: dict(table.items()) == {"l": value, **small}, True),
        ],
        client,
    )


def pipelining(server: Server, number: int) -> Play:
    """Many requests on their way together."""
    client = attached(server)
    keys = [f"p{i}" for i in range(PIPELINED)]

    def go() -> None:
        with client.pipeline() as many:
            for key in keys:
                many.table(TABLE).put(key, number)

    return Play([Step(go, None, {f"t {key}": number for key in keys}, each=True)], client)


def transacting(server: Server, number: int) -> Play:
    """Changes of two tables together."""
    client = attached(server)

    def go() -> None:
        with client.transaction() as tx:
            for i in range(20):
                tx.table(TABLE).put(f"x{i}", number)
                tx.table(OTHER).put(f"x{i}", number)

    keys = [f"{table} x{i}" for table in (TABLE, OTHER) for i in range(20)]
    return Play([Step(go, None, {key: number for key in keys})], client)


def inserting(server: Server, number: int) -> Play:
    """A store with an index."""
    client = attached(server)
    notes = Notes(client)
    made = [{"id": f"no_{i}", "object": "note", "created": i, "parity": i % 2} for i in range(6)]
    changed: dict[str, Any] = made[1] | {"parity": 0}
    steps = [
        Step(lambda one=one: notes.insert(one), ANY, {f"notes {one['id']}": one})  # type: ignore[misc]
        for one in made
    ]
    return Play(
        [
            *steps,
            Step(lambda: [one["id"] for one in notes.find(parity=1)], ["no_5", "no_3", "no_1"]),
            Step(lambda: notes.patch("no_1", parity=0), changed, {"notes no_1": changed}),
            Step(notes.count, 6),
            Step(lambda: notes.delete("no_0"), True, {"notes no_0": GONE}),
            Step(notes.clear, 5, {f"notes {one['id']}": GONE for one in made}),
        ],
        client,
    )


def growing(server: Server, number: int) -> Play:
    """More memory is needed, several times."""
    client = attached(server)
    table = client.table(TABLE)
    value = bytes([number % 251]) * 1_200_000
    steps = [
        Step(lambda key=f"g{i}": table.put(key, value), ANY, {f"t g{i}": value})  # type: ignore[misc]
        for i in range(8)
    ]
    return Play(steps, client)


def viewing(server: Server, number: int) -> Play:
    """A value is looked at where it lies, while its record is replaced and deleted."""
    client = attached(server)
    table = client.table(TABLE)
    first, second = bytes([number % 251]) * 300_000, b"second"
    views: list[memoryview] = []
    return Play(
        [
            Step(lambda: table.put("v", first), ANY, {"t v": first}),
            Step(lambda: views.append(table.view("v"))),
            Step(lambda: table.put("v", second), ANY, {"t v": second}),
            Step(lambda: views.append(table.view("v"))),
            Step(lambda: table.delete("v"), True, {"t v": GONE}),
            Step(lambda: [bytes(view) for view in views] == [first, second], True),
            Step(views.clear),
        ],
        client,
        clean_up=views.clear,
    )


def tying(server: Server, number: int) -> Play:
    """A record is tied to this process, and waited for."""
    client = attached(server)
    table = client.table(TABLE)
    return Play(
        [
            Step(lambda: table.insert_new("e", number, while_alive=True), True, {"t e": number}),
            Step(lambda: table.wait_changed("e", None, 5.0) == table.version("e"), True),
            Step(lambda: table.delete("e"), True, {"t e": GONE}),
            Step(lambda: table.wait_changed("e", 1, 5.0), ANY),
        ],
        client,
    )


def restarting(server: Server, number: int) -> Play:
    """The writer was killed."""
    client = attached(server)
    table = client.table(TABLE)
    table["kept"] = number
    pid = server.writer_pid
    assert pid is not None
    return Play(
        [
            Step(lambda: os.kill(pid, signal.SIGKILL)),
            Step(lambda: table["kept"], number),
            Step(lambda: table.put("r", number), ANY, {"t r": number}),
            Step(lambda: table.increment("i"), 1, {"t i": 1}),
        ],
        client,
        {"t kept": number},
    )


def forking(server: Server, number: int) -> Play:
    """Parent and child both use the client."""
    client = attached(server)
    table = client.table(TABLE)

    def in_child() -> None:
        status = 1
        try:
            table.put("child", number)
            status = 0 if table["child"] == number else 2
        except OSError as error:
            status = FIRST_ERRNO + (error.errno or 0)
        finally:
            os._exit(status)

    def fork() -> int:
        child = os.fork()
        if child == 0:
            in_child()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status > FIRST_ERRNO:
            raise OSError(status - FIRST_ERRNO, "in the child")
        return status

    return Play(
        [
            Step(fork, 0, {"t child": number}),
            Step(lambda: table.put("parent", number), ANY, {"t parent": number}),
        ],
        client,
    )


def starting(server: Server, number: int) -> Play:
    """A server of its own is started, used and ended."""
    return _started(number, lazy=False)


def starting_lazily(server: Server, number: int) -> Play:
    """The same, and its writer comes with its first client."""
    return _started(number, lazy=True)


def _started(number: int, *, lazy: bool) -> Play:
    started: list[Server] = []

    def use() -> None:
        # The error goes to whoever calls: what was started is closed there.
        started.append(shmstore.start(capacity=4 << 20, lazy=lazy, timeout=5.0))

    def end() -> None:
        for each in started:
            each.close()

    return Play(
        [
            Step(use),
            Step(lambda: started[0].table(TABLE).put("s", number), ANY),
            Step(lambda: started[0].table(TABLE)["s"], number),
            Step(end),
        ],
        None,
        clean_up=end,
    )


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY = _Any()
PLAYS: Mapping[str, Maker] = MappingProxyType(
    {
        "connect": connecting,
        "call": calling,
        "large": large,
        "pipeline": pipelining,
        "transaction": transacting,
        "store": inserting,
        "growth": growing,
        "view": viewing,
        "tie": tying,
        "restart": restarting,
        "fork": forking,
        "start": starting,
        "lazy start": starting_lazily,
    }
)


def stored(client: Client, keys: Iterator[str] | list[str]) -> dict[str, Any]:
    """Return what the tables hold under keys of the form "table key"."""
    found = {}
    for name in keys:
        table, _, key = name.partition(" ")
        found[name] = (Notes(client) if table == "notes" else client.table(table)).get(key)
    return found


def emptied(client: Client) -> None:
    """Delete all records, for the next play."""
    Notes(client).clear()
    for name in (TABLE, OTHER):
        client.table(name).clear()
