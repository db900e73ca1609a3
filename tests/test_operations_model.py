"""Any sequence of operations agrees with plain dicts, and so do indexes and the catalogue."""

from __future__ import annotations

from copy import deepcopy
from types import ModuleType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shmstore.codec import pack
from shmstore.errors import RecordNotFound
from tests.desk import TABLE, Desk

STORES = ("a", "b")
FIELDS = ("f", "g")
VALUES = (None, 0, 0.0, False, "", "v")

ids = st.sampled_from(["k1", "k2", "k3", "k4"])
places = st.sampled_from(["", *STORES])
fields = st.sampled_from(FIELDS)
values = st.sampled_from(VALUES)
records = st.dictionaries(fields, values)
steps = st.one_of(
    st.tuples(st.just("put"), places, ids, records, st.integers(0, 3)),
    st.tuples(st.just("patch"), places, ids, records),
    st.tuples(st.just("increment"), places, ids),
    st.tuples(st.just("delete"), places, ids),
    st.tuples(st.just("delete_where"), places, fields, values),
    st.tuples(st.just("clear"), places),
    st.tuples(st.just("clear_all"), places),
    st.tuples(st.just("declare"), places, fields),
)
endings = st.sampled_from(["commit", "stay open", "abort", "take over"])


class Model:
    """The records as dicts in dicts, in the order they were inserted."""

    def __init__(self) -> None:
        self.places: dict[str, dict[str, dict[str, Any]]] = {"": {}, "a": {}, "b": {}}
        self.indexes: set[str] = set()

    def put(self, place: str, key: str, changes: dict[str, Any], created: int) -> None:
        self.places[place][key] = {**changes, "id": key, "created": created}

    def patch(self, place: str, key: str, changes: dict[str, Any]) -> bool:
        self.places[place].get(key, {}).update(changes)
        return key in self.places[place]

    def increment(self, place: str, key: str) -> int | None:
        record = self.places[place].get(key)
        if record is None:
            return None
        record["n"] = record.get("n", 0) + 1
        return int(record["n"])

    def delete(self, place: str, key: str) -> bool:
        return self.places[place].pop(key, None) is not None

    def delete_where(self, place: str, field: str, value: Any) -> int:
        found = self.find(place, field, value)
        for key in found:
            del self.places[place][key]
        return len(found)

    def clear(self, place: str) -> int:
        count = len(self.places[place])
        self.places[place].clear()
        return count

    def clear_all(self, place: str) -> int:
        return sum(map(self.clear, STORES))

    def declare(self, place: str, field: str) -> None:
        self.indexes.add(field)

    def keys(self, place: str) -> list[str]:
        records = self.places[place]
        return sorted(records, key=lambda key: records[key]["created"] if place else 0)

    def find(self, place: str, field: str, value: Any) -> list[str]:
        records = self.places[place]
        return [
            key
            for key in self.keys(place)
            if field in records[key]
            and type(records[key][field]) is type(value)
            and records[key][field] == value
        ]


def perform(desk: Desk, name: str, place: str, *rest: Any) -> Any:
    """Stage one step of a script, as a client would ask for it."""
    if name == "put":
        key, changes, created = rest
        record = pack({**changes, "id": key, "created": created})
        desk.stage("upsert" if place else "put", TABLE, place, key, record)
        return None
    if name == "patch":
        return desk.stage(name, TABLE, place, rest[0], pack(rest[1]))
    if name == "delete_where":
        return desk.stage(name, TABLE, place, [[rest[0], pack(rest[1])]])
    if name == "declare":
        return desk.stage(name, TABLE, place, rest)
    if name == "increment":
        try:
            return desk.stage(name, TABLE, place, *rest, "n", 1, 0, None, None, True)
        except RecordNotFound:
            return None
    return desk.stage(name, TABLE, place, *rest)


def check(desk: Desk, model: Model) -> None:
    """Compare all a reader can see, and the invariants of the segment."""
    for place, expected in model.places.items():
        assert desk.keys(place) == model.keys(place)
        assert {key: desk.get(key, place) for key in expected} == expected
        for field in FIELDS:
            for value in VALUES:
                indexed = place and field in model.indexes
                assert desk.find(place, **{field: value}) == (
                    model.find(place, field, value) if indexed else []
                )
    assert sorted(desk.namespaces()) == [place for place in STORES if model.places[place]]
    assert bool(model.places[""]) <= (TABLE in desk.tables())
    assert desk.owner.check() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(script=st.lists(st.tuples(steps, endings), max_size=30))
def test_any_operations_agree_with_dicts(engine: ModuleType, script):
    desk, model, committed = Desk(engine, 2 << 20), Model(), Model()
    for (name, place, *rest), ending in script:
        assert perform(desk, name, place, *rest) == getattr(model, name)(place, *rest)
        if ending == "stay open":
            continue
        if ending == "commit":
            desk.owner.commit()
            committed = deepcopy(model)
        elif ending == "abort":
            desk.owner.abort()
        else:
            desk.take_over()
        model = deepcopy(committed)
        check(desk, model)
    desk.owner.abort()
    check(desk, committed)
    desk.segment.close()
