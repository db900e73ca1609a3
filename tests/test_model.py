"""Tables and stores against dicts: any mutation, in any order, with restarts and new readers.

One machine of rules, run over two worlds. In process an owner stands in for the writer, and a
takeover for its death; that is fast, and does most of the steps. Then the same rules are played
with a server, whose writer process is killed, and with clients that come and go.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import shmstore
from tests.local import Local

STEPS_IN_PROCESS = 20_000
STEPS_ACROSS_PROCESSES = 1_000
FIXED = ("id", "object", "created")

tables = st.sampled_from(["a", "b"])
namespaces = st.sampled_from(["n1", "n2"])
keys = st.sampled_from(["k1", "k2", "k3", b"k1", b"", "ключ"])
ids = st.sampled_from([f"th_{i}" for i in range(6)])
counts = st.integers(-5, 5)
values = st.one_of(
    st.none(), counts, st.text(max_size=5), st.binary(max_size=300), st.lists(st.booleans())
)
records = st.one_of(values, st.fixed_dictionaries({"n": counts, "x": values}))
states = st.sampled_from(["on", "off", 1, 1.0, True, None])
bodies = st.fixed_dictionaries(
    {"created": st.integers(0, 3)}, optional={"state": states, "n": counts}
)


class Things(shmstore.Store):
    """A resource with an index."""

    table, resource, prefix = "things", "thing", "th"
    indexes = ("state",)


class Failure(Exception):
    """What a test raises inside a transaction."""


class Model:
    """What should be there: plain dicts, and the insertion number of each store's record."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Any, Any]] = {"a": {}, "b": {}}
        self.spaces: dict[str, dict[str, Any]] = {"n1": {}, "n2": {}}
        self.inserted: dict[tuple[str, str], int] = {}
        self.insertions = 0

    def store(self, space: str, record: dict[str, Any]) -> None:
        if record["id"] not in self.spaces[space]:
            self.insertions += 1
            self.inserted[space, record["id"]] = self.insertions
        self.spaces[space][record["id"]] = record

    def newest_first(self, space: str) -> list[dict[str, Any]]:
        def position(record: dict[str, Any]) -> tuple[int, int]:
            return record["created"], self.inserted[space, record["id"]]

        return sorted(self.spaces[space].values(), key=position, reverse=True)


class InProcess:
    """An owner in this process; its death is a takeover."""

    def __init__(self) -> None:
        self.client: Any = Local()

    def end_writer(self, how: signal.Signals) -> None:
        self.client.take_over()

    def new_reader(self) -> Any:
        return self.client

    def close(self) -> None:
        self.client.close()


class AcrossProcesses:
    """A server with its writer process, and clients that come and go."""

    def __init__(self) -> None:
        self._server = shmstore.start(capacity="16MiB")
        self.client: Any = self._server.connect()
        self._reader: Any = None

    def end_writer(self, how: signal.Signals) -> None:
        pid = self._server.writer_pid
        if pid is not None:
            with suppress(ProcessLookupError):  # it is being replaced just now
                os.kill(pid, how)

    def new_reader(self) -> Any:
        if self._reader is not None:
            self._reader.close()
        self._reader = self._server.connect()
        return self._reader

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self.client.close()
        self._server.close()


class Rules(RuleBasedStateMachine):
    """All mutations; ``world`` is set by subclasses."""

    world: ClassVar[Callable[[], Any]]
    steps: ClassVar[Counter[str]]

    @initialize()
    def begin(self) -> None:
        self.place = type(self).world()
        self.model = Model()
        self.reader = self.place.client
        type(self).steps["steps"] -= 1  # the beginning is none

    def teardown(self) -> None:
        if hasattr(self, "place"):
            try:
                self.compare()
                assert self.place.client.check() == []
            finally:
                self.place.close()

    @invariant()
    def count(self) -> None:
        """A step was made."""
        type(self).steps["steps"] += 1

    def table(self, name: str) -> Any:
        return self.place.client.table(name)

    def things(self) -> Things:
        return Things(self.place.client)

    # Tables

    @rule(name=tables, key=keys, value=records, how=st.sampled_from(["put", "set", "cas"]))
    def put(self, name: str, key: Any, value: Any, how: str) -> None:
        table = self.table(name)
        if how == "put":
            assert table.put(key, value) == table.version(key)
        elif how == "cas":
            assert table.compare_and_swap(key, table.version(key), value)
            assert not table.compare_and_swap(key, table.version(key) - 1, "stale")
        else:
            table[key] = value
        self.model.tables[name][key] = value

    @rule(name=tables, key=keys, value=records)
    def insert_new(self, name: str, key: Any, value: Any) -> None:
        model = self.model.tables[name]
        assert self.table(name).insert_new(key, value) == (key not in model)
        assert self.table(name).setdefault(key, "other") == model.setdefault(key, value)

    @rule(name=tables, batch=st.dictionaries(keys, records))
    def update(self, name: str, batch: dict[Any, Any]) -> None:
        self.table(name).update(batch)
        self.model.tables[name].update(batch)

    @rule(name=tables, key=keys, how=st.sampled_from(["delete", "del", "pop"]))
    def delete(self, name: str, key: Any, how: str) -> None:
        table, model = self.table(name), self.model.tables[name]
        if how == "delete":
            assert table.delete(key) == (model.pop(key, model) is not model)
        elif how == "pop":
            assert table.pop(key, "none") == model.pop(key, "none")
        elif key in model:
            del table[key], model[key]
        else:
            with pytest.raises(KeyError):
                del table[key]

    @rule(name=tables, some=st.lists(keys, max_size=4))
    def delete_many(self, name: str, some: list[Any]) -> None:
        model = self.model.tables[name]
        assert self.table(name).delete_many(some) == len(set(some) & model.keys())
        for key in some:
            model.pop(key, None)

    @rule(name=tables)
    def popitem(self, name: str) -> None:
        model = self.model.tables[name]
        if model:
            assert self.table(name).popitem() == model.popitem()
        else:
            with pytest.raises(KeyError):
                self.table(name).popitem()

    @rule(name=tables, key=keys, by=counts, wrap_at=st.none() | st.just(4))
    def increment(self, name: str, key: Any, by: int, wrap_at: int | None) -> None:
        model = self.model.tables[name]
        value = model.get(key, 0)
        if type(value) is not int:
            with pytest.raises(shmstore.InvalidRecord):
                self.table(name).increment(key, by=by)
            return
        total = value + by
        if wrap_at is not None and ((by > 0 and total > 4) or (by < 0 and total < 4)):
            total = 0
        assert self.table(name).increment(key, by=by, wrap_at=wrap_at) == total
        model[key] = total

    @rule(name=tables, key=keys, by=counts)
    def patch(self, name: str, key: Any, by: int) -> None:
        model = self.model.tables[name]
        if isinstance(model.get(key), dict):
            total = model[key].get("n", 0) + by
            assert self.table(name).increment(key, "n", by) == total
            assert self.table(name).patch(key, x="patched")
            model[key] = {**model[key], "n": total, "x": "patched"}
        elif key in model:
            with pytest.raises(shmstore.InvalidRecord):
                self.table(name).patch(key, x=1)
        else:
            assert not self.table(name).patch(key, x=1)

    @rule(name=tables)
    def clear(self, name: str) -> None:
        self.table(name).clear()
        self.model.tables[name].clear()

    # Stores

    @rule(space=namespaces, key=ids, body=bodies, how=st.sampled_from(["insert", "update"]))
    def insert(self, space: str, key: str, body: dict[str, Any], how: str) -> None:
        with shmstore.namespace(space):
            stored = getattr(self.things(), how)({"id": key, **body})
        assert stored == {"id": key, "object": "thing", **body}
        self.model.store(space, stored)

    @rule(space=namespaces, key=ids)
    def replace_without_created(self, space: str, key: str) -> None:
        if key in self.model.spaces[space]:
            with shmstore.namespace(space):
                stored = self.things().update({"id": key, "new": True})
            assert stored["created"] == self.model.spaces[space][key]["created"]
            self.model.store(space, stored)

    @rule(space=namespaces, key=ids, state=states)
    def patch_thing(self, space: str, key: str, state: Any) -> None:
        known = self.model.spaces[space].get(key)
        with shmstore.namespace(space):
            patched = self.things().patch(key, state=state)
        assert patched == (None if known is None else {**known, "state": state})
        if known is not None:
            known["state"] = state

    @rule(space=namespaces, key=ids, by=counts)
    def increment_thing(self, space: str, key: str, by: int) -> None:
        known = self.model.spaces[space].get(key)
        with shmstore.namespace(space):
            if known is None:
                with pytest.raises(shmstore.RecordNotFound):
                    self.things().increment(key, "n", by)
            else:
                known["n"] = known.get("n", 0) + by
                assert self.things().increment(key, "n", by) == known["n"]

    @rule(space=namespaces, key=ids, how=st.sampled_from(["delete", "pop"]))
    def delete_thing(self, space: str, key: str, how: str) -> None:
        known = self.model.spaces[space].pop(key, None)
        with shmstore.namespace(space):
            if how == "delete":
                assert self.things().delete(key) == (known is not None)
            else:
                assert self.things().pop(key, None) == known

    @rule(space=namespaces, state=states)
    def delete_where(self, space: str, state: Any) -> None:
        gone = [one["id"] for one in self.with_state(space, state)]
        with shmstore.namespace(space):
            assert self.things().delete_where(state=state) == len(gone)
        for key in gone:
            del self.model.spaces[space][key]

    @rule(space=namespaces)
    def clear_namespace(self, space: str) -> None:
        assert self.things().clear_namespace(space) == len(self.model.spaces[space])
        self.model.spaces[space].clear()

    @rule()
    def clear_things(self) -> None:
        assert self.things().clear() == sum(map(len, self.model.spaces.values()))
        for space in self.model.spaces.values():
            space.clear()

    def with_state(self, space: str, state: Any) -> list[dict[str, Any]]:
        return [
            one
            for one in self.model.newest_first(space)
            if "state" in one and one["state"] == state and type(one["state"]) is type(state)
        ]

    # Many at a time

    @rule(name=tables, space=namespaces, key=keys, thing=ids, value=records, body=bodies)
    def transaction(
        self, name: str, space: str, key: Any, thing: str, value: Any, body: dict[str, Any]
    ) -> None:
        with shmstore.namespace(space), self.place.client.transaction() as tx:
            tx.table(name)[key] = value
            reply = tx.table("b").delete(key)
            stored = Things(tx).insert({"id": thing, **body})
        self.model.tables[name][key] = value
        assert reply.result() == (key in self.model.tables["b"])
        self.model.tables["b"].pop(key, None)
        self.model.store(space, stored)

    @rule(name=tables, key=keys, thing=ids, refused=st.booleans())
    def failing_transaction(self, name: str, key: Any, thing: str, refused: bool) -> None:
        """An error of the block, or of the writer, leaves nothing behind."""
        self.place.client.table("counters")["text"] = "no number"

        def fail() -> None:
            with shmstore.namespace("n1"), self.place.client.transaction() as tx:
                tx.table(name).clear()
                tx.table(name)[key] = "never"
                Things(tx).delete(thing)
                if not refused:
                    raise Failure
                tx.table("counters").increment("text")

        with pytest.raises(shmstore.InvalidRecord if refused else Failure):
            fail()

    @rule(name=tables, pairs=st.lists(st.tuples(keys, records), max_size=6))
    def pipeline(self, name: str, pairs: list[tuple[Any, Any]]) -> None:
        with self.table(name).pipeline() as many:
            for key, value in pairs:
                many[key] = value
        self.model.tables[name].update(pairs)

    # What happens around

    @rule(how=st.sampled_from([signal.SIGKILL, signal.SIGTERM]))
    def restart(self, how: signal.Signals) -> None:
        """The writer dies, or ends cleanly; another one takes its place."""
        self.place.end_writer(how)

    @rule()
    def attach(self) -> None:
        self.reader = self.place.new_reader()

    @rule()
    def compare(self) -> None:
        """Everything that can be read is as the model says, whoever reads."""
        for name, model in self.model.tables.items():
            table = self.reader.table(name)
            assert (len(table), list(table.items())) == (len(model), list(model.items()))
            assert table.get_many([*model, "nothing"]) == model
            assert list(reversed(table)) == list(reversed(model))
        things = Things(self.reader)
        for space in self.model.spaces:
            expected = self.model.newest_first(space)
            with shmstore.namespace(space):
                assert (things.count(), things.list_namespace(space)) == (len(expected), expected)
                assert [one for page in things.pages(limit=2) for one in page] == expected
                for state in ("on", 1, True, None):
                    assert things.find(state=state) == self.with_state(space, state)


class InProcessRules(Rules):
    world = InProcess
    steps: ClassVar[Counter[str]] = Counter()


class ServerRules(Rules):
    world = AcrossProcesses
    steps: ClassVar[Counter[str]] = Counter()


def play(machine: type[Rules], steps: int) -> None:
    """Run examples of a machine until it has made so many steps."""
    machine.steps.clear()
    while machine.steps["steps"] < steps:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=20,
                stateful_step_count=60,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )


@pytest.mark.timeout(300)
def test_the_store_is_as_its_model_says() -> None:
    play(InProcessRules, STEPS_IN_PROCESS)
    assert InProcessRules.steps["steps"] >= STEPS_IN_PROCESS


@pytest.mark.timeout(300)
def test_the_store_is_as_its_model_says_across_processes() -> None:
    play(ServerRules, STEPS_ACROSS_PROCESSES)
    assert ServerRules.steps["steps"] >= STEPS_ACROSS_PROCESSES
