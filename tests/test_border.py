"""Whatever a client sends is applied or refused with an error of ours; nothing else happens."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shmstore.codec import pack
from shmstore.errors import InvalidKey, ProtocolError, ShmstoreError
from shmstore.processes import HOLDER_BYTES
from shmstore.protocol import MUTATIONS
from shmstore.writer.border import SIGNATURES
from shmstore.writer.ties import HOLDERS, TABLE
from tests.desk import NAMESPACE, Desk, open_desk


@pytest.fixture
def desk(engine: ModuleType) -> Iterator[Desk]:
    with open_desk(engine) as desk:
        desk.owner.put(TABLE, HOLDERS, HOLDER, pack(0))
        desk.owner.commit()
        yield desk


HOLDER = bytes(HOLDER_BYTES)
GOOD: dict[str, list[Any]] = {
    "put": ["k", pack(1)],
    "insert": ["k", pack(1)],
    "setdefault": ["k", pack(1)],
    "pop": ["k"],
    "popitem": [],
    "delete": ["k"],
    "delete_many": [["k"]],
    "put_many": [[["k", pack(1)]]],
    "increment": ["k", "f", 1, 0, None, None, False],
    "patch": ["k", pack({})],
    "cas": ["k", 0, pack(1)],
    "clear": [],
    "upsert": ["k", pack({"id": "k", "created": 1})],
    "store_patch": ["k", pack({})],
    "clear_all": [],
    "delete_where": [[["f", pack(1)]]],
    "declare": [["f"]],
    "pin": ["k", HOLDER],
}
ODD: list[Any] = [
    None, True, 1, -1, 1.5, "", "x" * 70_000, b"", b"\xc1", b"\xc0\xc0", [], [[]], [None], [[1, 2]],
    [["k"]], [["k", "v"]], [["k", b"\xc1"]], [["f", pack(1), 3]], {}, {"a": 1}, 2**64 - 1,
]  # fmt: skip
leaves = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(0, 9) | st.text(max_size=3)
    | st.binary(max_size=3) | st.sampled_from(["", "k", "f", pack(1), pack({"id": "k"})])
)  # fmt: skip
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=5,
)


class TestBorder:
    def test_every_operation_of_the_protocol_is_known(self):
        assert set(SIGNATURES) | {"transaction"} == MUTATIONS
        assert set(SIGNATURES) == set(GOOD)

    @pytest.mark.parametrize(
        "operation", [None, 1, "", "nothing", "__init__", "apply", "_write", ["put"], {}, b"put"]
    )
    def test_unknown_operations(self, desk: Desk, operation):
        with pytest.raises(ProtocolError, match="no operation"):
            desk.operations.apply(operation, ["t", "", "k", pack(1)])

    @pytest.mark.parametrize("operation", GOOD)
    def test_counts(self, desk: Desk, operation):
        good = ["t", NAMESPACE, *GOOD[operation]]
        optional = SIGNATURES[operation].optional
        for arguments in (*(good[:n] for n in range(len(good))), good + [None] * (1 + optional)):
            with pytest.raises(ProtocolError, match="arguments after table"):
                desk.do(operation, *arguments)

    @pytest.mark.parametrize("arguments", [None, 1, "abcd", {}, b"abcd", ("t", "", "k", b"\xc0")])
    @pytest.mark.parametrize("operation", ["put", "transaction"])
    def test_arguments_are_a_list(self, desk: Desk, operation, arguments):
        with pytest.raises(ProtocolError):
            desk.operations.apply(operation, arguments)

    @pytest.mark.parametrize("operation", GOOD)
    @pytest.mark.parametrize("table", [None, 1, b"t", "", "x" * 256, ["t"], "\ud800"], ids=ascii)
    def test_tables(self, desk: Desk, operation, table):
        with pytest.raises(InvalidKey):
            desk.operations.apply(operation, [table, NAMESPACE, *GOOD[operation]])

    @pytest.mark.parametrize("namespace", [None, 1, b"", "x" * 256, [""], "\ud800"], ids=ascii)
    def test_namespaces(self, desk: Desk, namespace):
        with pytest.raises(InvalidKey):
            desk.operations.apply("put", ["t", namespace, "k", pack(1)])

    @pytest.mark.parametrize(
        "key", [None, 1, True, 1.5, ["k"], {}, "x" * 65_537, b"x" * 65_537, "é" * 32_769, "\ud800"],
        ids=lambda key: ascii(key)[:20],
    )  # fmt: skip
    @pytest.mark.parametrize(
        "operation", [name for name, rest in GOOD.items() if rest[:1] == ["k"]]
    )
    def test_keys(self, desk: Desk, operation, key):
        with pytest.raises(InvalidKey):
            desk.operations.apply(operation, ["t", NAMESPACE, key, *GOOD[operation][1:]])

    @pytest.mark.parametrize("key", ["", b"", "x" * 65_536, b"x" * 65_536, "\0"], ids=lambda k: "")
    def test_keys_of_any_allowed_size(self, desk: Desk, key):
        desk.plain("put", key, pack(1))
        assert desk.get(key) == 1

    @pytest.mark.parametrize("operation", GOOD)
    def test_odd_arguments_are_refused_or_right_and_never_crash(self, desk: Desk, operation):
        good = GOOD[operation]
        for at in range(len(good)):
            for odd in ODD:
                arguments = [*good[:at], odd, *good[at + 1 :]]
                for namespace in ("", NAMESPACE):
                    refused_or_right(desk, operation, ["t", namespace, *arguments])

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        operation=st.sampled_from([*SIGNATURES, "transaction"]),
        arguments=st.lists(anything, max_size=8),
    )
    def test_any_arguments(self, desk: Desk, operation, arguments):
        refused_or_right(desk, operation, arguments)
        refused_or_right(desk, operation, ["t", "", *arguments])
        refused_or_right(desk, operation, ["t", NAMESPACE, *arguments])


def refused_or_right(desk: Desk, operation: str, arguments: list[Any]) -> None:
    before = desk.owner.committed
    try:
        desk.do(operation, *arguments)
    except ShmstoreError:
        assert desk.owner.committed == before
