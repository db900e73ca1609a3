"""Hostile requests, as torture/requests.py makes them, and what such have brought to light."""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from shmstore import keys, protocol
from shmstore.engine import load_native
from shmstore.errors import InvalidKey, ProtocolError, RecordNotFound
from shmstore.pipe.attachment import Attachment
from shmstore.pipe.connection import Greeting
from shmstore.table import deferred
from shmstore.table.deferred import Reply
from shmstore.table.handles import converted
from shmstore.writer import fields
from tests.segments import Segment
from torture import requests
from torture.requests import native
from torture.trial import Budget, Report

try:
    load_native()
except ImportError as error:
    NO_NATIVE = f"no native engine here: {error}"
else:
    NO_NATIVE = ""
DEPTH_MAX = 1020
"""As deep as msgpack decodes lists."""


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# What hostile requests have brought to light


def test_an_oldest_id_of_any_depth_is_refused_and_does_not_end_the_writer() -> None:
    message = b"\x94\x01" + b"\x91" * DEPTH_MAX + b"\x01\xa3put\x90"
    with pytest.raises(ProtocolError, match="oldest id"):
        protocol.parse_request(message)


def test_an_error_code_of_any_depth_is_refused_by_the_client() -> None:
    message = b"\x94\x01" + b"\x91" * DEPTH_MAX + b"\x01\xa0\x80"
    with pytest.raises(ProtocolError, match="code"):
        protocol.parse_answer(message)


def test_a_key_of_any_depth_is_an_invalid_key() -> None:
    with pytest.raises(InvalidKey, match=r"\[\[\["):
        keys.key_of(nested(DEPTH_MAX))


def test_a_read_of_names_or_keys_of_any_depth_is_refused_by_either_engine(
    engine: ModuleType,
) -> None:
    with closing(Segment(engine)) as at_hand:
        for use in (
            lambda: at_hand.reader.count(nested(DEPTH_MAX), ""),
            lambda: at_hand.reader.chunk("t", nested(DEPTH_MAX), b"", None, None, False),
            lambda: at_hand.reader.get(1, nested(DEPTH_MAX)),
            lambda: at_hand.reader.page("t", "n", 10, nested(DEPTH_MAX), None),
        ):
            with pytest.raises(InvalidKey, match=r"\[\[\["):
                use()


def test_what_an_error_shows_is_short_before_it_is_cut() -> None:
    class Costly:
        shown = 0

        def __repr__(self) -> str:
            Costly.shown += 1
            return "costly"

    assert keys.shown([Costly() for _ in range(10_000)]).startswith("[costly, costly")
    assert Costly.shown < 100


def test_long_field_names_are_not_remembered() -> None:
    before = fields._remembered_name.cache_info().currsize
    for number in range(10):
        assert fields.field_name(f"{number:01000}").endswith(b"%d" % number)
    assert fields._remembered_name.cache_info().currsize == before


@pytest.mark.parametrize("handed_out", ["an empty file", "a pipe", "a device", "a folder"])
def test_a_descriptor_that_is_no_memory_is_named_and_closed(handed_out: str) -> None:
    if handed_out == "an empty file":
        fd = os.memfd_create("empty")
    elif handed_out == "a pipe":
        fd, other = os.pipe()
        os.close(other)
    else:
        fd = os.open("/dev/null" if handed_out == "a device" else "/", os.O_RDONLY)
    attachment = Attachment("/somewhere", None)
    with pytest.raises(ProtocolError, match=r"/somewhere.*cannot be mapped"):
        attachment.accept(Greeting({"segment": b"s" * 16}, fd))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("answer", [None, "many", b"", [], {}, [[]], 1.5])
def test_a_result_that_the_operation_cannot_have_is_a_protocol_error(answer: Any) -> None:
    def first(result: Any) -> Any:
        return result[0] + 1

    with pytest.raises(ProtocolError, match="makes no sense"):
        converted(answer, first)
    with pytest.raises(ProtocolError, match="makes no sense"):
        Reply(lambda: answer, first).result()


def test_what_a_result_means_to_a_call_is_raised_as_it_is() -> None:
    def not_found(result: Any) -> Any:
        raise keys.missing("k", "t")

    with pytest.raises(RecordNotFound):
        converted(None, not_found)


def test_a_transaction_has_a_result_for_each_of_its_operations() -> None:
    with pytest.raises(ProtocolError, match="makes no sense"):
        converted([1], partial(deferred._results_of, 2))
    assert converted([1, 2], partial(deferred._results_of, 2)) == [1, 2]


# The machine, for a moment


def test_the_core_stands_plain_requests_of_any_bytes() -> None:
    report = Report()
    native.fuzz(Budget(600.0, 4, "requests"), report, runs=10_000, seconds=0)
    assert report.findings == []
    assert report.counts[native.COUNTED] >= 10_000


def answers_of(name: str, seconds: float, **variables: str) -> float:
    """Fuzz for so long; return how many answers were judged."""
    report = Report()
    requests.fuzz_writer(Budget(600.0, 4, "requests"), report, name, seconds, **variables)
    assert report.findings == []
    return sum(count for what, count in report.counts.items() if "executions" in what)


@pytest.mark.parametrize("engine", ["pure", "native"])
def test_the_writer_stands_what_hostile_clients_send(engine: str) -> None:
    if engine == "native" and NO_NATIVE:
        pytest.skip(NO_NATIVE)
    assert answers_of("writer", 1.5, SHMSTORE_ENGINE=engine) > 100


@pytest.mark.skipif(bool(NO_NATIVE), reason=NO_NATIVE)
def test_the_engines_answer_hostile_clients_alike() -> None:
    assert answers_of("twins", 1.5) > 100


def test_clients_stand_what_hostile_writers_answer() -> None:
    assert answers_of("clients", 1.0) > 100
