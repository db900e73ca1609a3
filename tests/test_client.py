"""Clients of a real server: connecting, using, pickling, closing."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading

import pytest

import shmstore
from shmstore import (
    InvalidArgument,
    RecordNotFound,
    RequestTimeout,
    StoreNotFound,
    WriterUnavailable,
)
from tests.waiting import eventually, writer_of


def test_a_server_is_found_by_name_and_by_address(server):
    server.table("t")["k"] = 1
    for where in (server.name, server.address):
        with shmstore.connect(where) as client:
            assert client.table("t")["k"] == 1
            assert client.address == server.address


def test_a_server_that_does_not_run_is_reported_at_once_with_those_that_do(server):
    with pytest.raises(StoreNotFound, match=f"'nobody'.*{server.name}") as caught:
        shmstore.connect("nobody")
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(StoreNotFound, match=r"'/nowhere/x\.sock'"):
        shmstore.connect("/nowhere/x.sock")
    with pytest.raises(StoreNotFound):
        shmstore.connect("/dev/null")


def test_what_can_be_no_name_is_refused():
    with pytest.raises(InvalidArgument, match="A-Z a-z"):
        shmstore.connect("no such name")


def test_a_client_reads_and_mutates(client):
    table = client.table("t")
    table["k"] = {"a": 1}
    assert table["k"] == {"a": 1}
    assert client.table("t").increment("n", by=5) == 5
    with pytest.raises(RecordNotFound):
        table["missing"]
    assert client.check() == []
    assert client.stats()["committed"] >= 2
    client.ping()


def test_pipelines_and_transactions_go_through_it(client):
    with client.pipeline() as pipeline:
        replies = [pipeline.table("t").put(str(n), n) for n in range(1000)]
    assert len(client.table("t")) == 1000
    versions = [reply.result() for reply in replies]
    assert versions == sorted(versions)
    assert client.table("t").version("999") == versions[-1]
    with client.transaction() as transaction:
        transaction.table("t")["0"] = "changed"
        transaction.table("u")["0"] = "new"
    assert (client.table("t")["0"], client.table("u")["0"]) == ("changed", "new")


def test_a_pipeline_may_hold_more_than_the_sockets_do(client):
    with client.pipeline() as pipeline:
        table = pipeline.table("t")
        for number in range(600):
            table.put(str(number % 2), bytes(100_000))
        popped = [table.pop(str(number)) for number in range(2)]
    assert [len(reply.result()) for reply in popped] == [100_000] * 2


def test_converting_is_up_to_the_caller(client):
    assert client.call("ping", [], str) == str(client.stats()["pid"])
    assert client.call("ping", [], timeout=20.0) == client.stats()["pid"]
    assert client.submit("ping", []).result() == client.stats()["pid"]


def test_the_timeout_can_be_read_and_set(client, server):
    assert client.timeout == 30.0
    client.timeout = 5
    assert client.timeout == 5.0
    client.timeout = None
    assert client.timeout is None
    client.ping()
    with pytest.raises(InvalidArgument, match="positive"):
        client.timeout = 0
    with shmstore.connect(server.name, timeout=7.5) as other:
        assert other.timeout == 7.5


def test_a_closed_client_says_so(server):
    client = server.connect()
    table = client.table("t")
    client.close()
    client.close()
    assert client.closed
    assert "closed" in repr(client)
    for use in (
        client.ping,
        client.stats,
        lambda: table.put("k", 1),
        lambda: client.table("t")["k"],
    ):
        with pytest.raises(WriterUnavailable, match="closed"):
            use()


def test_a_client_is_shown_with_its_address(client, server):
    assert repr(client) == f"<shmstore.Client of {server.address}>"


@pytest.mark.parametrize("duplicate", [copy.copy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_attaches_for_itself(client, duplicate):
    client.timeout = 12.0
    client.table("t")["k"] = 1
    other = duplicate(client)
    assert other.timeout == 12.0
    table = duplicate(other.table("t"))
    assert table["k"] == 1
    table["k"] = 2
    assert client.table("t")["k"] == 2
    other.close()
    assert client.table("t")["k"] == 2


def test_an_endless_timeout_survives_pickling(client):
    client.timeout = None
    assert pickle.loads(pickle.dumps(client)).timeout is None


def test_unpickling_reaches_nobody(server):
    data = pickle.dumps(server.client)
    server.close()
    client = pickle.loads(data)
    with pytest.raises(StoreNotFound):
        client.ping()


def test_a_pickled_client_does_not_take_another_server_for_its_own():
    with shmstore.start("same", capacity="1MiB") as server:
        data = pickle.dumps(server.table("t"))
    with shmstore.start("same", capacity="1MiB") as other:
        other.table("t")["k"] = 1
        table = pickle.loads(data)
        with pytest.raises(StoreNotFound, match="another one"):
            table.get("k")
        with pytest.raises(StoreNotFound, match="another one"):
            table["k"] = 2
        assert other.table("t")["k"] == 1


def test_an_attached_client_does_not_take_another_server_for_its_own():
    with shmstore.start("same", capacity="1MiB") as server:
        client = server.connect()
        client.table("t")["k"] = "old"
    with shmstore.start("same", capacity="1MiB"), client:
        with pytest.raises(StoreNotFound, match="another one"):
            client.table("t")["k"] = "new"
        assert client.table("t")["k"] == "old"


def test_what_was_stored_can_be_read_when_the_server_has_ended():
    server = shmstore.start(capacity="1MiB")
    with server.connect() as client:
        table = client.table("t")
        table["k"] = 1
        server.close()
        assert table["k"] == 1
        assert list(table) == ["k"]
        with pytest.raises(WriterUnavailable, match="can still be read") as caught:
            table["k"] = 2
        assert isinstance(caught.value, ConnectionError)


def test_connecting_waits_for_a_writer_that_does_not_answer_and_not_for_ever(server):
    os.kill(writer_of(server), signal.SIGSTOP)
    try:
        with pytest.raises(RequestTimeout):
            shmstore.connect(server.name, timeout=0.05)
    finally:
        os.kill(writer_of(server), signal.SIGCONT)
    shmstore.connect(server.name).close()


def test_threads_share_a_client(client):
    def work(number: int) -> None:
        table = client.table("t")
        for step in range(50):
            table.increment("all")
            table[f"{number}"] = step
            assert table[f"{number}"] == step

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.table("t")["all"] == 300


def test_a_client_that_leaves_is_forgotten(server):
    with server.connect() as client:
        client.table("t")["k"] = 1
        assert server.client.stats()["sessions"] == 2
    eventually(lambda: server.client.stats()["sessions"] == 1)


def test_a_client_that_is_dropped_leaves_nothing_open(server):
    server.connect().table("t")["k"] = 1
    assert server.table("t")["k"] == 1
    eventually(lambda: server.client.stats()["connections"] == 1)
