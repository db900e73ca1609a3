"""Views of values where they lie: what they show, for how long, and who may die meanwhile."""

from __future__ import annotations

import ctypes
import gc
import io
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from shmstore import (
    InvalidArgument,
    LimitReached,
    ProcessUnseen,
    ProtocolError,
    RecordNotFound,
    RequestTimeout,
    ShmstoreError,
    WriterUnavailable,
    processes,
)
from shmstore.codec import pack
from shmstore.pipe import attachment, windows
from shmstore.pipe.pipe import Pipe
from tests.children import forked
from tests.waiting import eventually, writer_of

SHORT = 0.02
LARGE = 200_000


@pytest.fixture
def table(client):
    return client.table("t")


def figures(client, *names: str) -> tuple[Any, ...]:
    stats = client.stats()
    return tuple(stats[name] for name in names)


def until_pins(client, number: int) -> None:
    """Return when the segment has so many pins."""
    eventually(lambda: figures(client, "pins") == (number,))


def book_of(client) -> windows.Book:
    """Return the notes that this process has on its windows."""
    return windows._books[client.reader.segment_id]


def awaited(table, key: str) -> Any:
    """Return a record as soon as there is one."""
    assert table.wait_changed(key)
    return table[key]


def churn(table, times: int = 2) -> None:
    """Use all memory there is, again and again."""
    for n in range(times):
        for k in range(1_000):
            try:
                table[f"churn-{k}"] = bytes([n + 1]) * LARGE
            except MemoryError:
                break
        table.delete_many([f"churn-{k}" for k in range(1_000)])


# What is seen


@pytest.mark.parametrize("size", [0, 1, 255, 256, 4096, 65_535, 65_536, 1_000_000])
def test_of_bytes_it_shows_what_they_hold(table, size):
    value = random.Random(size).randbytes(size)
    table["k"] = value
    view = table.view("k")
    assert view == value
    assert len(view) == view.nbytes == size
    assert (view.format, view.ndim, view.contiguous) == ("B", 1, True)


@pytest.mark.parametrize("value", [None, 1, "text", [b"x"], {"a": 1}, [1.5] * 9000])
def test_of_other_records_it_shows_their_msgpack(table, value):
    table[b"k"] = value
    assert table.view(b"k") == pack(value)


def test_nobody_can_write_through_it(table):
    table["k"] = b"value"
    view = table.view("k")
    for target in (view, view[1:], view.cast("c"), memoryview(view), view.obj):
        with pytest.raises(TypeError):
            target[0] = 65
        with pytest.raises((TypeError, BufferError)):
            ctypes.c_char.from_buffer(target)
        with pytest.raises((TypeError, BufferError)):
            io.BytesIO(b"A").readinto(target)
    assert memoryview(view.obj).readonly
    assert table["k"] == b"value"


def test_what_is_missing(table, monkeypatch):
    with pytest.raises(RecordNotFound):
        table.view("k")
    monkeypatch.setattr(type(table), "version", lambda self, key: 7)  # it was there a moment ago
    with pytest.raises(KeyError):
        table.view("k")


def test_blocks_have_no_views(client, table):
    table["k"] = 1
    with pytest.raises(ShmstoreError, match="mutations only"), table.pipeline() as pipeline:
        pipeline.view("k")
    with pytest.raises(ShmstoreError), client.transaction() as transaction:
        transaction.view("t", "", "k", 1)


# How long it stays


def replace(table):
    table["k"] = b"new" * LARGE


CHANGES: dict[str, Callable[[Any], object]] = {
    "replaced": replace,
    "deleted": lambda table: table.delete("k"),
    "popped": lambda table: table.pop("k"),
    "cleared": lambda table: table.clear(),
    "untouched": lambda table: None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_stays_as_it_is_whatever_becomes_of_the_record(client, table, change):
    value = b"old" * LARGE
    table["k"] = value
    view = table.view("k")
    CHANGES[change](table)
    churn(table)
    assert view == value
    held = 0 if change == "untouched" else len(value)
    assert held <= figures(client, "held_bytes")[0] <= held + 256
    assert client.check() == []
    del view
    until_pins(client, 0)
    assert figures(client, "held_bytes", "pinned_bytes") == (0, 0)
    assert client.check() == []


def test_whatever_is_made_of_it_keeps_it(client, table):
    table["k"] = value = bytes(range(256)) * 16
    view = table.view("k")
    made = [view[16:], view.cast("d"), memoryview(view)[::-1], iter(view)]
    del view
    replace(table)
    while made:
        churn(table, 1)
        assert bytes(made[0]) == (value[16:], value, value[::-1], value)[-len(made)]
        assert figures(client, "pins") == (1,)
        del made[0]
    until_pins(client, 0)


def test_one_that_is_in_a_cycle_goes_with_it(client, table):
    table["k"] = 1
    cycle: list[Any] = [table.view("k")]
    cycle.append(cycle)
    del cycle
    gc.collect()
    until_pins(client, 0)


def test_it_can_be_released_at_once(client, table):
    table["k"] = 1
    with table.view("k") as view:
        assert bytes(view) == b"\x01"
    until_pins(client, 0)


def test_a_second_view_of_the_same_costs_no_request(client, table):
    table["k"] = b"one"
    first = table.view("k")
    assert table.view("k").obj is first.obj
    assert client.stats()["requests"]["pin"] == 1
    table["k"] = b"two"
    second = table.view("k")
    assert (first, second) == (b"one", b"two")
    assert figures(client, "pins") == (2,)
    del first
    until_pins(client, 1)
    assert table.view("k").obj is second.obj
    assert client.stats()["requests"]["pin"] == 2


def test_one_that_is_gone_and_comes_again_before_that_was_told_stays(client, table, monkeypatch):
    """The end of the first one is not taken for the end of the second."""
    table["k"] = value = b"value"
    asleep, go_on = threading.Event(), threading.Event()

    def sleep(seconds):
        asleep.set()
        go_on.wait()

    monkeypatch.setattr(windows, "sleep", sleep)
    del_me = table.view("k")
    del del_me
    asleep.wait()
    again = table.view("k")
    go_on.set()
    eventually(lambda: not book_of(client)._telling)
    replace(table)
    churn(table)
    assert again == value
    assert figures(client, "pins") == (1,)


def test_it_outlives_client_and_server(server, client, table):
    table["k"] = value = b"value" * LARGE
    view = table.view("k")
    client.close()
    replace(server.table("t"))
    churn(server.table("t"))
    assert view == value
    with pytest.raises(WriterUnavailable):
        table.view("k")
    server.close()
    assert view == value


def test_it_is_told_of_after_its_client_was_closed(server, client, table):
    table["k"] = 1
    view = table.view("k")
    client.close()
    assert figures(server.client, "pins") == (1,)
    del view
    until_pins(server.client, 0)


def test_a_server_that_is_gone_need_not_be_told(server, client, table):
    table["k"] = 1
    view = table.view("k")
    book = book_of(client)
    server.close()
    del view
    eventually(lambda: not book._telling)
    assert not book._leaving
    assert not book.in_use


# Limits and failures


def test_a_process_has_so_many(client, table, monkeypatch):
    monkeypatch.setattr(windows, "VIEWS_MAX", 3)
    table.put_many({f"{n}": n for n in range(9)})
    views = [table.view(f"{n}") for n in range(3)]
    with pytest.raises(LimitReached, match="views of 3 values"):
        table.view("3")
    assert table.view("2") == b"\x02"
    until_pins(client, 3)
    views.pop()
    until_pins(client, 2)
    views.append(table.view("3"))
    assert figures(client, "pins") == (3,)


def test_a_process_has_views_of_so_much(client, table):
    """Three quarters of the capacity, which is 8 MiB."""
    for name in "abc":
        table[name] = bytes(2_200_000)
    views = [table.view(name) for name in "ab"]
    with pytest.raises(LimitReached, match="a part of the capacity") as caught:
        table.view("c")
    assert isinstance(caught.value, MemoryError)
    assert caught.value.details["limit"] == 6 << 20
    until_pins(client, 2)
    views.pop()
    until_pins(client, 1)
    assert len(table.view("c")) == 2_200_000


def test_one_that_cannot_be_mapped_is_not_pinned(client, table, monkeypatch):
    def refuse(fd, offset, size):
        raise OSError(24, "Too many open files")

    table["k"] = 1
    with monkeypatch.context() as patch:
        patch.setattr(attachment, "open_window", refuse)
        with pytest.raises(LimitReached, match="Too many open files"):
            table.view("k")
    until_pins(client, 0)


@pytest.mark.parametrize(
    "answer", [7, [1, 2, 3], ["a", 1, 1, 1], [1, 1, 1.5, 1],
               [1, 1, True, 1], [1, 1 << 40, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1],
               [1, (8 << 20) - 1, 2, 1]],
)  # fmt: skip
def test_a_writer_that_answers_nonsense(table, monkeypatch, answer):
    table["k"] = 1
    call = Pipe.call

    def answered(self, operation, *rest):
        return answer if operation == "pin" else call(self, operation, *rest)

    monkeypatch.setattr(Pipe, "call", answered)
    with pytest.raises(ProtocolError):
        table.view("k")


def test_a_process_that_the_writer_does_not_see(table, monkeypatch):
    table["k"] = 1
    monkeypatch.setattr(processes, "look", lambda: processes.Sight(7, False))
    with pytest.raises(ProcessUnseen):
        table.view("k")


def test_a_writer_that_does_not_answer(server, client, table):
    table["k"] = b"value"
    assert table.view("k") == b"value"
    until_pins(client, 0)
    client.timeout = SHORT
    pid = writer_of(server)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(RequestTimeout):
        table.view("k")
    with book_of(client)._lock, pytest.raises(RequestTimeout, match="not asked for a view"):
        table.view("k")
    os.kill(pid, signal.SIGCONT)
    client.timeout = None
    assert table.view("k") == b"value"


def test_who_cannot_start_a_thread_tells_later(client, table, monkeypatch):
    def refuse(function, arguments):
        raise RuntimeError("can't start new thread")

    table.update(a=1, b=2)
    view, other = table.view("a"), table.view("b")
    with monkeypatch.context() as patch:
        patch.setattr(windows, "start_new_thread", refuse)
        del view
    assert figures(client, "pins") == (2,)
    del other
    until_pins(client, 0)


def test_who_cannot_connect_tells_later(client, table, monkeypatch):
    def refuse(*arguments):
        raise OSError(24, "Too many open files")

    table.update(a=1, b=2)
    view, other = table.view("a"), table.view("b")
    with monkeypatch.context() as patch:
        patch.setattr(windows, "Pipe", refuse)
        del view
        eventually(lambda: not book_of(client)._telling)
    assert figures(client, "pins") == (2,)
    del other
    until_pins(client, 0)


def test_a_program_may_end_with_views(server):
    program = """
import shmstore, sys
table = shmstore.connect(sys.argv[1]).table("t")
table["k"] = bytes(100_000)
view = table.view("k")
kept = [table.view("k")[5:], view]
kept.append(kept)
"""
    command = [sys.executable, "-W", "error", "-c", program, server.address]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("operation", ["share", "unpin"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [([], ProtocolError), ([1], ProtocolError), ([b"x" * 16, 7], InvalidArgument),
     ([b"x", []], InvalidArgument), ([b"x" * 16, [-1]], InvalidArgument),
     ([b"x" * 16, ["1"]], InvalidArgument), ([b"x" * 16, [True]], InvalidArgument),
     ([b"x" * 16, [1 << 62]], InvalidArgument), (["x" * 16, [1]], InvalidArgument)],
)  # fmt: skip
def test_hostile_pins(client, operation, arguments, error):
    with pytest.raises(error):
        client.call(operation, arguments)
    assert client.check() == []


def test_pins_of_who_is_no_holder_and_of_what_is_not_pinned(client, table):
    table["k"] = 1
    for operation, arguments in (
        ("share", [b"x" * 16, [1]]),
        ("pin", ["t", "", "k", b"x" * 16]),
    ):
        with pytest.raises(InvalidArgument, match="has not said who it is"):
            client.call(operation, arguments)
    holder = client.holder()
    assert client.call("share", [holder, [1, 70_000]]) == [1, 70_000]
    assert client.call("unpin", [holder, [1, 70_000]]) == 0
    assert figures(client, "pins") == (0,)


# Deaths


def test_the_next_writer_keeps_what_is_seen(server, client, table):
    table["k"] = value = b"old" * LARGE
    view = table.view("k")
    for _ in range(3):
        os.kill(writer_of(server), signal.SIGKILL)
        replace(table)
        churn(table, 1)
        assert view == value
        assert figures(client, "pins") == (1,)
    assert client.check() == []
    del view
    until_pins(client, 0)


def test_a_view_that_goes_while_no_writer_answers_is_told_to_the_next_one(server, client, table):
    table["k"] = 1
    view = table.view("k")
    pid = writer_of(server)
    os.kill(pid, signal.SIGSTOP)
    del view
    eventually(lambda: book_of(client)._leaving)
    os.kill(pid, signal.SIGKILL)
    until_pins(client, 0)


def test_what_the_dead_have_seen_is_given_up_and_nothing_else(server, client, table):
    """Many of them at once, while the living look on and the writer dies, too."""
    table["k"] = value = b"old" * LARGE
    kept: list[memoryview] = []

    def look():
        kept.append(table.view("k"))

    with ExitStack() as stack:
        children = [stack.enter_context(forked(look, wait=False)) for _ in range(12)]
        for child in children:
            child.wait_done()
        look()
        assert figures(client, "pins", "holders") == (13, 13)
        replace(table)
        for child in children[:6]:
            os.kill(child.pid, signal.SIGKILL)
        os.kill(writer_of(server), signal.SIGKILL)
        for child in children[6:]:
            os.kill(child.pid, signal.SIGKILL)
        eventually(lambda: figures(client, "pins", "holders") == (1, 1))
        churn(table, 1)
        assert kept == [value]
    assert client.check() == []


# Forks


def test_a_forked_child_has_what_its_parent_lets_go_of(client, table):
    table["k"] = value = b"old" * LARGE
    views = [table.view("k")]

    def tell():
        table.wait_changed("go")
        table["same"] = views == [value]

    with forked(tell, wait=False) as child:
        until_pins(client, 2)
        views.clear()
        until_pins(client, 1)
        replace(table)
        churn(table)
        table["go"] = 1
        child.wait_done()
        assert table["same"] is True
        assert figures(client, "pins", "holders") == (1, 2)


def report(table, name: str, views: list[memoryview], values: list[bytes]) -> None:
    """Say who this is; when told to, say whether the views are as they were."""
    table[name] = os.getpid()
    table.wait_changed(f"go {name}")
    table[f"same {name}"] = views == values
    signal.pause()


def test_children_and_grandchildren_keep_what_they_inherit_when_their_parents_are_killed(
    server, client, table
):
    table["k"] = value = b"old" * LARGE
    table["l"] = b"other" * LARGE

    def family():
        views = [table.view("k")]
        if os.fork() == 0:
            views.append(table.view("l"))
            if os.fork() == 0:
                report(table, "grandchild", views, [value, b"other" * LARGE])
            report(table, "child", [], [])
        views.clear()

    with forked(family) as parent:
        child, grandchild = awaited(table, "child"), awaited(table, "grandchild")
        try:
            until_pins(client, 4)  # two of the child, two of the grandchild
            os.kill(child, signal.SIGKILL)
            parent.kill()
            eventually(lambda: figures(client, "pins", "holders") == (2, 1))
            replace(table)
            table["l"] = b"x" * LARGE
            os.kill(writer_of(server), signal.SIGKILL)
            churn(table)
            table["go grandchild"] = 1
            assert awaited(table, "same grandchild") is True
        finally:
            for pid in (child, grandchild):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert client.check() == []


@pytest.fixture
def slow_children(monkeypatch):
    """Forked children pin what they inherit only when this pipe is written to."""
    receiver, sender = os.pipe()
    share = windows.Book.share

    def wait(self):
        os.read(receiver, 1)
        share(self)

    monkeypatch.setattr(windows.Book, "share", wait)
    yield sender
    os.close(receiver)
    os.close(sender)


def test_a_parent_lets_go_of_nothing_before_its_child_has_it(client, table, slow_children):
    table["k"] = value = b"old" * LARGE
    views = [table.view("k")]

    def tell():
        table.wait_changed("go")
        table["same"] = views == [value]

    with forked(tell, wait=False) as child:
        views.clear()
        eventually(lambda: book_of(client)._leaving)
        replace(table)
        churn(table)
        assert figures(client, "pins", "holders") == (1, 1)
        os.write(slow_children, b"+")
        eventually(lambda: not book_of(client)._leaving)
        assert figures(client, "pins", "holders") == (1, 2)
        churn(table)
        table["go"] = 1
        child.wait_done()
        assert table["same"] is True


def test_a_child_has_what_it_inherits_though_its_parent_was_killed_as_it_forked(
    client, table, slow_children
):
    table["k"] = value = b"old" * LARGE

    views: list[memoryview] = []

    def family():
        views.append(table.view("k"))
        if os.fork() == 0:
            report(table, "child", views, [value])

    with forked(family) as parent:
        assert figures(client, "pins") == (1,)
        parent.kill()
    replace(table)
    churn(table)
    os.write(slow_children, b"+")
    pid = awaited(table, "child")
    try:
        eventually(lambda: figures(client, "pins", "holders") == (1, 1))
        churn(table)
        table["go child"] = 1
        assert awaited(table, "same child") is True
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_child_for_which_nothing_was_kept_says_so(table, monkeypatch, capfd):
    table["k"] = 1
    views = [table.view("k")]
    call = Pipe.call

    def lost(self, operation, arguments, timeout=None):
        answer = call(self, operation, arguments, timeout)
        return arguments[1] if operation == "share" else answer

    monkeypatch.setattr(Pipe, "call", lost)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with forked(lambda: None):
        pass
    assert "was not kept for it" in capfd.readouterr().err
    assert len(views) == 1


def test_a_fork_after_the_server_has_ended(server, table, capfd):
    table["k"] = b"value"
    views = [table.view("k")]
    server.close()

    def see():
        assert views == [b"value"]

    with forked(see):
        pass
    assert capfd.readouterr().err == ""


def test_a_fork_without_views_asks_nobody(client, table):
    table["k"] = 1
    assert table.view("k") == b"\x01"
    until_pins(client, 0)
    eventually(lambda: not book_of(client)._telling)
    with forked(lambda: None):
        assert "share" not in client.stats()["requests"]
    assert not windows._children


def test_forks_leave_no_descriptors(client, table):
    table["k"] = 1
    view = table.view("k")
    for _ in range(5):
        with forked(lambda: None):
            assert len(windows._children) == 1
    del view
    eventually(lambda: not windows._children)


# Many at once


def test_threads_look_while_others_replace(client, table):
    """No view ever shows anything but one value, and nothing is left pinned."""
    stop = threading.Event()
    wrong: list[bytes] = []

    def look(seed: int) -> None:
        rng = random.Random(seed)
        kept: list[memoryview] = []
        while not stop.is_set():
            kept.append(table.view(f"{rng.randrange(4)}"))
            if len(kept) > 5:
                del kept[rng.randrange(5)]
            wrong.extend({bytes(each[:1]) for each in kept if len(set(each)) != 1})

    for n in range(4):
        table[f"{n}"] = bytes(5_000)
    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for n in range(1_500):
        table[f"{n % 4}"] = bytes([n % 256]) * (5_000 + n)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    until_pins(client, 0)
    assert figures(client, "held_bytes") == (0,)
    assert client.check() == []


def test_processes_look_claim_and_wait_while_writers_and_some_of_them_are_killed(
    server, client, table
):
    claims = client.table("claims")

    def work():
        rng = random.Random(os.getpid())
        kept: list[memoryview] = []
        while "stop" not in table:
            kept.append(table.view(f"{rng.randrange(4)}"))
            if len(kept) > 4:
                del kept[rng.randrange(4)]
            assert all(len(set(each)) == 1 for each in kept)
            if claims.insert_new("claim", os.getpid(), while_alive=True):
                assert claims.pop("claim") == os.getpid()
            else:
                with suppress(RequestTimeout):
                    claims.wait_changed("claim", claims.version("claim"), timeout=SHORT)

    for n in range(4):
        table[f"{n}"] = bytes(5_000)
    with ExitStack() as stack:
        children = [stack.enter_context(forked(work, wait=False)) for _ in range(6)]
        for n in range(900):
            table[f"{n % 4}"] = bytes([n % 256]) * (5_000 + n)
            if n % 300 == 150:
                os.kill(writer_of(server), signal.SIGKILL)
                children.pop().kill()
        table["stop"] = 1
        for child in children:
            child.wait_done()
        eventually(lambda: not claims)
    eventually(lambda: figures(client, "pins", "held_bytes", "holders", "waits") == (0, 0, 0, 0))
    assert client.check() == []
