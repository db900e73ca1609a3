"""One store, many processes: every way to start a child, forks at bad moments, sudden deaths."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import shmstore
from shmstore import StoreNotFound, WriterUnavailable, runtime
from tests.waiting import eventually, writer_of

ROOT = Path(__file__).parent.parent
CAPACITY = "1MiB"

each_package = pytest.mark.parametrize("package", ["multiprocessing", "multiprocess"])
each_method = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])


@pytest.fixture
def python_path(monkeypatch):
    """Interpreters started from here find the package and the tests."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def context(package: str, method: str):
    return importlib.import_module(package).get_context(method)


def run(start, target, *arguments) -> None:
    """Run ``target`` in a child and expect it to succeed."""
    child = start.Process(target=target, args=arguments)
    child.start()
    child.join()
    code = child.exitcode
    child.close()
    assert code == 0


def in_fork(function) -> None:
    """Run ``function`` in a forked child, with nothing of pytest around it; expect it to return."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# What children do, at the top level so that they can be pickled.


def use_table(table) -> None:
    assert table["parent"] == 1
    table["child"] = os.getpid()
    assert table["child"] == os.getpid()


def count_up(table):
    return table.increment("n")


def use_client(client) -> None:
    with client:
        use_table(client.table("t"))
        with client.transaction() as transaction:
            transaction.table("t").increment("n")


def use_address(address: str) -> None:
    with shmstore.connect(address, timeout=20.0) as client:
        use_table(client.table("t"))


class Things(shmstore.Store):
    table, resource, prefix, url_path = "things", "thing", "th", "/v1/things"


def use_store(store) -> None:
    store.insert({"id": "th_child"})
    assert store.get("th_parent") is not None


def increment(client, times: int) -> None:
    def work() -> None:
        table = client.table("t")
        for _ in range(times):
            table.increment("n")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def reached(table, goal):
    return table.get("n", 0) >= goal


@each_package
@each_method
def test_clients_tables_and_addresses_go_to_children_of_any_kind(
    package, method, server, python_path
):
    table = server.table("t")
    table["parent"] = 1
    start = context(package, method)
    run(start, use_table, table)
    assert table["child"] != os.getpid()
    run(start, use_client, server.client)
    assert table["n"] == 1
    run(start, use_address, server.address)


@each_package
@each_method
def test_stores_go_to_children_of_any_kind(package, method, server, python_path):
    store = Things(server.client)
    store.insert({"id": "th_parent"})
    run(context(package, method), use_store, store)
    assert store.count() == 2


def test_a_pool_shares_a_table(server, python_path):
    table = server.table("t")
    with context("multiprocessing", "forkserver").Pool(2) as pool:
        assert sorted(pool.map(count_up, [table] * 6)) == [1, 2, 3, 4, 5, 6]
        pool.close()
        pool.join()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_increments_of_many_processes_and_threads_add_up_while_writers_are_killed(
    method, server, python_path
):
    start = context("multiprocessing", method)
    children = [start.Process(target=increment, args=(server.client, 40)) for _ in range(3)]
    for child in children:
        child.start()
    table = server.table("t")
    for goal in (20, 100, 180):
        eventually(partial(reached, table, goal))
        os.kill(writer_of(server), signal.SIGKILL)
    for child in children:
        child.join()
        assert child.exitcode == 0
        child.close()
    assert table["n"] == 3 * 2 * 40
    assert server.client.check() == []


def test_after_a_fork_parent_and_child_go_on(server):
    table = server.table("t")
    table["parent"] = 1
    in_fork(lambda: use_table(table))
    assert table["child"] != os.getpid()
    table["parent"] = 2
    assert table["parent"] == 2


def test_a_forked_child_reads_without_a_connection_and_without_a_writer(server):
    table = server.table("t")
    table["k"] = 1
    connections = server.client.stats()["connections"]
    os.kill(writer_of(server), signal.SIGSTOP)

    def child() -> None:
        assert table["k"] == 1

    in_fork(child)
    os.kill(writer_of(server), signal.SIGCONT)
    assert server.client.stats()["connections"] == connections


def test_a_child_of_a_client_that_never_attached_attaches_itself(server):
    client = shmstore.Client(server.address)
    in_fork(lambda: client.table("t").put("k", 1))
    assert client.table("t")["k"] == 1
    client.close()


def test_grandchildren_go_on_as_well(server):
    table = server.table("t")

    def child() -> None:
        table.increment("n")
        in_fork(lambda: table.increment("n"))
        table.increment("n")

    in_fork(child)
    assert table["n"] == 3


def test_a_fork_in_the_middle_of_a_pipeline_leaves_its_answers_to_the_parent(server):
    answers = [server.client.submit("ping", []) for _ in range(3)]

    def child() -> None:
        for answer in answers:
            with pytest.raises(WriterUnavailable, match="parent"):
                answer.result()
        server.client.ping()

    server.client.ping()
    late = server.client.submit("ping", [])
    answers.append(late)
    answers[:] = [answer for answer in answers if not answer.done()]
    assert answers
    in_fork(child)
    assert all(isinstance(answer.result(), int) for answer in answers)


def test_a_fork_while_other_threads_use_the_client(server):
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            server.table("t").increment("n")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        in_fork(lambda: server.table("t").increment("children"))
    stop.set()
    for thread in threads:
        thread.join()
    assert server.table("t")["children"] == 5


def test_a_child_closes_its_client_and_not_that_of_its_parent(server):
    in_fork(server.client.close)
    server.client.ping()


def test_a_child_cannot_end_the_server_of_its_parent(server):
    def child() -> None:
        with server:
            server.table("t")["k"] = 1
        server.close()
        server._supervisor.close()

    in_fork(child)
    assert server.table("t")["k"] == 1


def test_a_child_of_the_starter_does_not_keep_the_server_alive(runtime_dir):
    ready, told = os.pipe()
    end, go = os.pipe()
    with shmstore.start("mine", capacity=CAPACITY) as server:
        writer = writer_of(server)
        pid = os.fork()
        if pid == 0:
            os.write(told, b"!")
            os.read(end, 1)
            os._exit(0)
        os.read(ready, 1)
    assert runtime.running() == []
    with pytest.raises(ProcessLookupError):
        os.kill(writer, 0)
    with shmstore.start("mine", capacity=CAPACITY):
        pass
    os.write(go, b"!")
    os.waitpid(pid, 0)
    for descriptor in (ready, told, end, go):
        os.close(descriptor)


def open_files() -> set[tuple[int, str]]:
    found = set()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the listing's own
            found.add((descriptor, os.readlink(f"/proc/self/fd/{descriptor}")))
    return found


def test_a_forked_child_has_none_of_the_descriptors_of_the_server():
    before = open_files()
    with shmstore.start(capacity=CAPACITY) as server:
        server.table("t")["k"] = 1
        assert len(open_files() - before) > 5

        def child() -> None:
            kept = open_files() - before
            assert len(kept) == 2  # the mapping has one of its own; views are mapped by the other
            assert all("memfd:shmstore" in name for _, name in kept)

        in_fork(child)


def test_a_child_may_start_a_server_of_its_own(server):
    def child() -> None:
        with shmstore.start(capacity=CAPACITY) as own:
            own.table("t")["k"] = "own"
            assert server.table("t").get("k") is None

    in_fork(child)


# Programs of their own.

USE = """
import shmstore
with shmstore.start("mine", capacity="1MiB") as server:
    server.table("t")["k"] = {"a": 1}
    print(server.table("t")["k"])
"""


def output_of(*arguments, **options):
    done = subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, **options
    )
    return done.stdout


def test_a_script_needs_no_main_guard(tmp_path, python_path):
    (tmp_path / "script.py").write_text(USE)
    assert output_of(str(tmp_path / "script.py")) == "{'a': 1}\n"
    assert runtime.running() == []


def test_it_works_in_a_command(python_path):
    assert output_of("-c", USE) == "{'a': 1}\n"


def test_it_works_where_the_standard_streams_are_closed(python_path):
    assert output_of("-c", f"import os; os.close(0); os.close(2){USE}") == "{'a': 1}\n"


def test_it_works_at_a_prompt(python_path):
    lines = [
        "import shmstore",
        "server = shmstore.start('mine', capacity='1MiB')",
        "server.table('t')['k'] = {'a': 1}",
        "print(server.table('t')['k'])",
    ]
    assert "{'a': 1}" in output_of("-i", input="\n".join(lines) + "\n")
    assert runtime.running() == []


def test_it_works_in_a_thread(python_path):
    text = "\n".join("    " + line for line in USE.splitlines())
    # Joined, because 3.12.1 lets no thread start anything once the main thread is at its end.
    use = "work = threading.Thread(target=work); work.start(); work.join()"
    assert output_of("-c", f"import threading\ndef work():\n{text}\n{use}") == "{'a': 1}\n"


def test_it_works_where_python_finds_the_package_by_a_relative_path():
    program = f"import sys; sys.path.insert(0, {ROOT.name!r})\n{USE}"
    assert output_of("-c", program, cwd=ROOT.parent) == "{'a': 1}\n"


def test_a_server_that_nobody_closes_ends_with_its_program(python_path, runtime_dir):
    program = "import shmstore; print(shmstore.start(capacity='1MiB').writer_pid)"
    pid = int(output_of("-c", program))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(runtime_dir.iterdir()) == []


def test_when_the_starter_is_killed_writer_and_socket_go_as_well(python_path, runtime_dir):
    program = (
        "import shmstore, signal; server = shmstore.start('mine', capacity='1MiB')\n"
        "server.table('t')['k'] = 1; print(server.writer_pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        with shmstore.connect("mine") as client:
            table = client.table("t")
            starter.kill()
            eventually(lambda: not Path(f"/proc/{pid}").exists())
            eventually(lambda: list(runtime_dir.iterdir()) == [])
            assert table["k"] == 1
            with pytest.raises(WriterUnavailable):
                table["k"] = 2
    with pytest.raises(StoreNotFound):
        shmstore.connect("mine")


def test_a_starter_killed_together_with_its_writer_leaves_a_name_that_can_be_used(python_path):
    program = (
        "import shmstore, os, signal; server = shmstore.start('mine', capacity='1MiB')\n"
        "for pid in (server.writer_pid, os.getpid()): os.kill(pid, signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    eventually(lambda: runtime.running() == [])
    with shmstore.start("mine", capacity=CAPACITY) as server:
        server.table("t")["k"] = 1


def test_a_client_that_is_killed_disturbs_nobody(server, python_path):
    program = (
        f"import shmstore; table = shmstore.connect({server.address!r}).table('t')\n"
        "print(flush=True)\nwhile True: table.increment('n')"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        eventually(lambda: server.table("t").get("n", 0) > 10)
        other.kill()
    assert server.table("t").increment("n") > 11
    assert server.client.check() == []
