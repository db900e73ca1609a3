"""What a process may see of the keys of one client, and the reads that are held against that.

A read sees the state after one of the client's mutations: none before the last that was
acknowledged, or seen by a read that has returned, when it was called; none after the last that was
begun when it returned.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

import shmstore
from shmstore.codec import unpack

from .board import Board, Broken
from .crew import Words
from .mutations import Shelves
from .records import Row, key_of, number_in
from .scripts import Script

Probe: TypeAlias = Callable[[], None]


class Sight:
    """The reads of one process, of the keys of one client; to be called in its namespace."""

    def __init__(
        self,
        client: shmstore.Client,
        words: Words,
        board: Board,
        script: Script,
        whose: int,
        process: int,
    ) -> None:
        self.namespace = f"c{whose}"
        self._table = client.table(self.namespace)
        self._shelves = Shelves(client)
        self._words = words
        self._begun = board.begun + whose
        self._marks = board.numbers(words, whose)
        self._script = script
        self._process = process
        self._last: dict[int, tuple[int, int]] = {}
        self._versions = [board.versions(words, whose, slot) for slot in range(script.shape.plain)]
        self.singles = self._singles()
        """Reads of one record."""
        self.snapshots = self._snapshots()
        """Reads that show several."""

    def _number(self, what: str, read: Callable[[], Any], slot: int) -> Probe:
        """Hold the number in one record against what it may be."""
        words, begun, marks, own = self._words, self._begun, self._marks, self._process
        column, length = self._script.column(slot), self._script.length

        def probe() -> None:
            low = max(marks)
            found = read()
            number = found if found is None or type(found) is int else number_in(found)
            high = words[begun]
            for at in range(low, high + 1):
                age = column[at % length]
                if number is None if age is None else number == at - age:
                    if at > marks[own]:
                        marks[own] = at
                    return
            raise Broken(self._complaint(what, found, low, high))

        return probe

    def _state(self, what: str, read: Callable[[], Any], expected: Callable[[int], Any]) -> Probe:
        """Hold anything against what it is after a mutation."""
        words, begun, marks, own = self._words, self._begun, self._marks, self._process

        def probe() -> None:
            low = max(marks)
            found = read()
            high = words[begun]
            for at in range(low, high + 1):
                if found == expected(at):
                    if at > marks[own]:
                        marks[own] = at
                    return
            wanted = [expected(at) for at in range(low, high + 1)][:3]
            raise Broken(f"{self._complaint(what, found, low, high)}: {wanted}")

        return probe

    def _complaint(self, what: str, found: Any, low: int, high: int) -> str:
        begun = self._script.mutation(high).name
        return (
            f"{what} of {self.namespace} gave {found!r:.500}, which is the state after none of "
            f"mutations {low} to {high} ({begun}) of that client"
        )

    def _versioned(self, slot: int) -> Probe:
        """Hold version and record against what they may be, and against each other."""
        key, table, marks = key_of(slot), self._table, self._versions[slot]
        found: list[Any] = []

        def read() -> Any:
            version, record = table.get_versioned(key)
            found[:] = version, number_in(record)
            return found[1]

        judged = self._number(f"get_versioned({key!r})", read, slot)

        def probe() -> None:
            low = max(marks)
            judged()
            version, number = found
            if number is None:
                if version:
                    raise Broken(f"no record {key} of {self.namespace}, but version {version}")
                return
            old_version, old_number = self._last.get(slot, (0, -1))
            together = (version > old_version) - (version < old_version)
            if version < low or together != (number > old_number) - (number < old_number):
                raise Broken(
                    f"{key} of {self.namespace}: version {version} of number {number} came after "
                    f"version {old_version} of {old_number}, when version {low} had been seen"
                )
            self._last[slot] = version, number
            if version > marks[self._process]:
                marks[self._process] = version

        return probe

    def _version(self, slot: int) -> Probe:
        key, table, marks = key_of(slot), self._table, self._versions[slot]
        column, length = self._script.column(slot), self._script.length

        def read() -> bool:
            low = max(marks)
            version = table.version(key)
            if 0 < version < low:
                raise Broken(f"version {version} of {key}, when version {low} had been seen")
            if version > marks[self._process]:
                marks[self._process] = version
            return version > 0

        return self._state(f"version({key!r})", read, lambda at: column[at % length] is not None)

    def _singles(self) -> list[Probe]:
        probes: list[Probe] = []
        for slot in range(self._script.shape.slots):
            plain = slot < self._script.shape.plain
            probes += self._of_one(self._table if plain else self._shelves, slot)
            if plain:
                probes += [self._versioned(slot), self._version(slot), self._packed(slot)]
            if plain and slot:
                probes.append(self._field(slot))
        return probes

    def _of_one(self, place: Any, slot: int) -> list[Probe]:
        key = key_of(slot)
        column, length = self._script.column(slot), self._script.length
        return [
            self._number(f"get({key!r})", lambda: place.get(key), slot),
            self._number(f"get({key!r})", lambda: place.get(key), slot),
            self._number(f"record({key!r})", lambda: place.record(key), slot),
            self._state(
                f"{key!r} in", lambda: key in place, lambda at: column[at % length] is not None
            ),
        ]

    def _packed(self, slot: int) -> Probe:
        key, table = key_of(slot), self._table

        def read() -> Any:
            data = table.get_bytes(key)
            return None if data is None else unpack(data)

        return self._number(f"get_bytes({key!r})", read, slot)

    def _field(self, slot: int) -> Probe:
        key, table = key_of(slot), self._table
        return self._number(f"get_field({key!r})", lambda: table.get_field(key, "n"), slot)

    def _snapshots(self) -> list[Probe]:
        table, shelves, script = self._table, self._shelves, self._script
        plain = [key_of(slot) for slot in range(script.shape.plain)]
        stored = [key_of(slot) for slot in range(script.shape.plain, script.shape.slots)][::-1]
        probes = [
            self._state("get_many", lambda: _row(table.get_many(plain)), script.plain_row),
            self._state("get_many of two", lambda: _row(table.get_many(plain[:2])), self._pair),
            self._state("len", lambda: len(table), lambda at: len(script.plain_row(at))),
            self._state(
                "store.get_many", lambda: _row(shelves.get_many(stored)), script.stored_row
            ),
            self._state("count", shelves.count, lambda at: len(script.stored_row(at))),
            self._state(
                "list_namespace",
                lambda: _row_of(shelves.list_namespace(self.namespace, lazy=True)),
                script.stored_row,
            ),
            *(self._found(parity=parity) for parity in range(2)),
            *(self._found(shelf=shelf) for shelf in range(2)),
            *(self._found(parity=parity, shelf=1) for parity in range(2)),
            *map(self._page, range(8)),
        ]
        if len(plain) < 32:  # then a walk is one chunk, and so one snapshot
            probes.append(self._state("copy", lambda: sorted(_row(table.copy())), script.plain_row))
        return probes

    def _pair(self, at: int) -> Row:
        return [(slot, number) for slot, number in self._script.plain_row(at) if slot < 2]

    def _found(self, **fields: Any) -> Probe:
        def expected(at: int) -> Row:
            return [
                (slot, number)
                for slot, number in self._script.stored_row(at)
                if all({"parity": number, "shelf": slot}[f] % 2 == v for f, v in fields.items())
            ]

        return self._state(
            f"find({fields})", lambda: _row_of(self._shelves.find(**fields)), expected
        )

    def _page(self, chosen: int) -> Probe:
        """A page: its records, and whether there are more; from a record that may be gone."""
        rng, shape, shelves = random.Random(chosen), self._script.shape, self._shelves
        limit = rng.choice((1, 2, 3, 10, 100))
        edge = rng.randrange(shape.plain, shape.slots)
        how = ("", "starting_after", "ending_before")[chosen % 3]
        arguments: dict[str, Any] = {how: key_of(edge)} if how else {}

        def read() -> Any:
            try:
                page = shelves.list(limit, **arguments)
            except shmstore.UnknownCursor:
                return "unknown cursor"
            return _row_of(page.data), page.has_more

        def expected(at: int) -> Any:
            row = self._script.stored_row(at)
            if how == "starting_after":
                row = [(slot, number) for slot, number in row if slot < edge]
            if how == "ending_before":
                row = [(slot, number) for slot, number in row if slot > edge]
                return row[-limit:], len(row) > limit
            return row[:limit], len(row) > limit

        def allowed(at: int) -> Any:
            gone = self._script.ages(at)[edge] is None
            return _Either(expected(at), "unknown cursor") if gone and how else expected(at)

        return self._state(f"list({limit}, {arguments})", read, allowed)


class _Either:
    """Equal to two things: the place of a record that was cleared away may be forgotten."""

    def __init__(self, *things: Any) -> None:
        self._things = things

    def __eq__(self, other: object) -> bool:
        return other in self._things

    def __repr__(self) -> str:
        return " or ".join(map(repr, self._things))

    __hash__ = None  # type: ignore[assignment]


def _row(found: dict[Any, Any]) -> Row:
    return [(int(key[1:]), number_in(one) or 0) for key, one in found.items()]


def _row_of(records: list[Any]) -> Row:
    return [(int(one["id"][1:]), number_in(one) or 0) for one in records]
