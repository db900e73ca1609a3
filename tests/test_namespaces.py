"""The current namespace in threads, tasks, and child processes of every kind."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import multiprocess
import pytest

from shmstore import namespaces
from shmstore.errors import InvalidKey
from shmstore.namespaces import DEFAULT, VARIABLE, current, environment, namespace

ROOT = Path(__file__).parent.parent
PRINT_CURRENT = "from shmstore.namespaces import current; print(ascii(current()))"


def in_thread(function: Callable[[], str]) -> str:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def in_fork(function: Callable[[], str]) -> str:
    """Return what ``function`` returns in a forked child."""
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(sending, function().encode())
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as stream:
        found = stream.read().decode()
    os.waitpid(pid, 0)
    return found


def in_subprocess(env: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-c", PRINT_CURRENT]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    return str(eval(done.stdout))


def send_current(connection) -> None:
    connection.send(current())
    connection.close()


def send_all(connection) -> None:
    """Send where a child starts, where its blocks and threads are, and where its children start."""
    found = [current(), in_thread(current), in_subprocess()]
    with namespace("of the child"):
        found += [current(), in_thread(current), in_subprocess()]
    connection.send([*found, current(), in_subprocess(), in_fork(current)])
    connection.close()


def in_process(method: str, library: Any = multiprocessing, target: Any = None) -> Any:
    context: Any = library.get_context(method)
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=target or send_current, args=(sending,))
    process.start()
    sending.close()
    found = receiving.recv()
    receiving.close()
    process.join()
    process.close()
    return found


@pytest.fixture
def fork_servers() -> Iterator[None]:
    """Have the fork servers of the test end with it."""
    yield
    multiprocessing.set_forkserver_preload(["__main__"])
    for library in (multiprocessing, multiprocess):
        module = importlib.import_module(f"{library.__name__}.forkserver")
        module._forkserver._stop()


def test_the_default_is_global():
    assert current() == DEFAULT == "global"
    assert VARIABLE not in os.environ


def test_blocks_nest_and_end():
    with namespace("a") as entered:
        assert (entered, current()) == ("a", "a")
        with namespace("b"):
            assert current() == "b"
            assert os.environ[VARIABLE] == "b"
        assert current() == "a"
        assert os.environ[VARIABLE] == "a"
    assert current() == "global"
    assert VARIABLE not in os.environ


def test_an_exception_ends_the_block():
    with pytest.raises(KeyError), namespace("a"):
        raise KeyError
    assert current() == "global"
    assert VARIABLE not in os.environ


def test_it_decorates_a_function():
    @namespace("decorated")
    def function() -> str:
        return current()

    assert [function(), function(), current()] == ["decorated", "decorated", "global"]


def test_a_variable_that_was_set_comes_back(monkeypatch):
    monkeypatch.setenv(VARIABLE, "outside")
    with namespace("a"):
        assert os.environ[VARIABLE] == "a"
    assert os.environ[VARIABLE] == "outside"


@pytest.mark.parametrize(
    "name", ["", "x" * 256, "é" * 128, "\ud800", "a\0b", b"bytes", None, 1, ("a",)], ids=ascii
)
def test_wrong_names_are_refused_and_change_nothing(name):
    with pytest.raises(InvalidKey), namespace(name):
        pytest.fail("entered")
    assert current() == "global"
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "日本", "with space", "a=b", "/", "\n"])
def test_any_text_up_to_255_bytes_is_a_name(name):
    with namespace(name):
        assert current() == name
        assert in_subprocess() == name


class TestThreads:
    def test_a_thread_starts_outside_of_the_blocks_of_others(self):
        with namespace("a"):
            expected = "a" if getattr(sys.flags, "thread_inherit_context", 0) else "global"
            assert in_thread(current) == expected

    def test_threads_do_not_see_each_other(self):
        barrier = threading.Barrier(4)
        wrong: list[str] = []

        def work(name: str) -> None:
            for turn in range(20):
                with namespace(f"{name}-{turn}"):
                    barrier.wait()
                    if current() != f"{name}-{turn}":
                        wrong.append(current())
                    barrier.wait()

        threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert VARIABLE not in os.environ

    def test_the_environment_follows_what_was_entered_last(self):
        inside, leave = threading.Event(), threading.Event()

        def work() -> None:
            with namespace("other"):
                inside.set()
                leave.wait()

        with namespace("mine"):
            thread = threading.Thread(target=work)
            thread.start()
            inside.wait()
            assert os.environ[VARIABLE] == "other"
            assert environment()[VARIABLE] == "mine"
            assert in_subprocess(environment()) == "mine"
            assert in_fork(lambda: f"{current()} {os.environ[VARIABLE]}") == "mine mine"
            leave.set()
            thread.join()
            assert os.environ[VARIABLE] == "mine"

    def test_blocks_may_end_in_any_order(self):
        leave, left = threading.Event(), threading.Event()
        inside = threading.Event()

        def work() -> None:
            with namespace("first"):
                inside.set()
                leave.wait()
            left.set()

        thread = threading.Thread(target=work)
        thread.start()
        inside.wait()
        with namespace("second"):
            leave.set()
            left.wait()
            assert os.environ[VARIABLE] == "second"
        thread.join()
        assert VARIABLE not in os.environ


class TestTasks:
    def test_tasks_do_not_see_each_other(self):
        async def work(name: str, here: asyncio.Event, there: asyncio.Event) -> list[str]:
            seen = [current()]
            with namespace(name):
                here.set()
                await there.wait()
                seen.append(current())
            return [*seen, current()]

        async def main() -> Any:
            one, two = asyncio.Event(), asyncio.Event()
            with namespace("outer"):
                return await asyncio.gather(work("a", one, two), work("b", two, one))

        assert asyncio.run(main()) == [["outer", "a", "outer"], ["outer", "b", "outer"]]
        assert VARIABLE not in os.environ

    def test_a_block_left_in_another_context_ends_all_the_same(self):
        block = namespace("a")
        contextvars.copy_context().run(block.__enter__)
        assert os.environ[VARIABLE] == "a"
        contextvars.copy_context().run(block.__exit__, None, None, None)
        assert current() == "global"
        assert VARIABLE not in os.environ


class TestChildren:
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_processes_inherit(self, method):
        with namespace("outer"), namespace("of the test"):
            assert in_process(method) == "of the test"
        assert in_process(method) == "global"

    @pytest.mark.parametrize("library", [multiprocessing, multiprocess], ids=lambda it: it.__name__)
    def test_children_of_a_fork_server_are_not_where_that_was_started(self, library, fork_servers):
        assert in_process("forkserver", library) == "global"
        for name in ("one", "日本"):
            with namespace(name):
                assert in_process("forkserver", library) == name
                with namespace("inner"):
                    assert in_process("forkserver", library) == "inner"
        assert in_process("forkserver", library) == "global"

    def test_a_fork_server_started_inside_of_a_block(self, fork_servers):
        with namespace("one"):
            assert in_process("forkserver") == "one"
        assert in_process("forkserver") == "global"

    def test_a_fork_server_that_has_imported_all_before(self, fork_servers):
        multiprocessing.set_forkserver_preload([__name__])
        with namespace("one"):
            assert in_process("forkserver") == "one"
        with namespace("two"):
            assert in_process("forkserver") == "two"

    def test_what_a_child_of_a_fork_server_hands_on(self, fork_servers):
        with namespace("one"):
            found = in_process("forkserver", target=send_all)
        assert found == ["one"] * 3 + ["of the child", "one", "of the child"] + ["one"] * 3

    def test_a_variable_set_by_hand_meets_a_fork_server(self, monkeypatch, fork_servers):
        monkeypatch.setenv(VARIABLE, "by hand")
        with namespace("one"):
            assert in_process("forkserver") == "one"
        assert in_process("forkserver") == "by hand"
        monkeypatch.setenv(VARIABLE, "by another")
        assert in_process("forkserver") == "by another"
        monkeypatch.delenv(VARIABLE)
        assert in_process("forkserver") == "global"

    def test_a_subprocess_inherits(self):
        with namespace("a"):
            assert in_subprocess() == "a"
            assert in_subprocess(environment()) == "a"
        assert in_subprocess() == "global"
        assert environment()[VARIABLE] == "global"

    def test_an_empty_variable_counts_as_none(self):
        assert in_subprocess({**os.environ, VARIABLE: ""}) == "global"

    def test_a_wrong_variable_is_an_error_where_it_is_used(self):
        code = (
            "from shmstore.errors import InvalidKey\n"
            "from shmstore.namespaces import current, namespace\n"
            "with namespace('a'): assert current() == 'a'\n"
            "try: current()\n"
            "except InvalidKey: print('refused')"
        )
        for value in (b"x" * 300, b"\xff"):
            env = {**os.environb, VARIABLE.encode(): value}
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, check=True)
            assert done.stdout == b"refused\n"

    def test_names_survive_a_locale_that_lacks_their_characters(self):
        code = (
            "import subprocess, sys; from shmstore.namespaces import namespace, environment\n"
            f"command = [sys.executable, '-c', {PRINT_CURRENT!r}]\n"
            f"with namespace({'日本'!a}):\n"
            "    subprocess.run(command)\n"
            "    subprocess.run(command, env=environment())\n"
        )
        env = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, check=True)
        assert done.stdout.decode() == ascii("日本") + "\n" + ascii("日本") + "\n"

    def test_threads_of_a_forked_child_start_where_it_was_forked(self):
        with namespace("a"):
            assert in_fork(lambda: in_thread(current)) == "a"

    def test_a_forked_child_may_walk_out_of_the_blocks_of_its_parent(self):
        def walk_out() -> str:
            seen = []
            inner.__exit__(None, None, None)
            seen += [current(), os.environ.get(VARIABLE), in_thread(current)]
            outer.__exit__(None, None, None)
            seen += [current(), os.environ.get(VARIABLE), in_thread(current)]
            return repr(seen)

        outer, inner = namespace("a"), namespace("b")
        with outer, inner:
            assert eval(in_fork(walk_out)) == ["a", "a", "a", "global", None, "global"]
            assert current() == "b"

    def test_a_child_forked_outside_of_blocks_keeps_the_environment(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "set by hand")
        assert in_fork(lambda: os.environ[VARIABLE]) == "set by hand"

    def test_a_forked_child_forgets_the_blocks_of_other_threads(self):
        inside, leave = threading.Event(), threading.Event()

        def work() -> None:
            with namespace("other"):
                inside.set()
                leave.wait()

        thread = threading.Thread(target=work)
        thread.start()
        inside.wait()
        found = in_fork(lambda: repr((current(), os.environ.get(VARIABLE), in_thread(current))))
        leave.set()
        thread.join()
        assert eval(found) == ("global", None, "global")

    def test_a_fork_while_another_thread_enters_does_not_hang(self):
        with namespaces._process.lock:
            assert in_fork(lambda: in_block("child")) == "child"


def in_block(name: str) -> str:
    with namespace(name):
        return current()
