"""The writer process: how it starts, refuses, survives and ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from shmstore import layout, protocol, segment
from shmstore.codec import message_unpack
from shmstore.engine import Reader
from shmstore.errors import CorruptSegment, FormatMismatch
from shmstore.protocol import CLIENT_ID_BYTES, FrameDecoder
from shmstore.writer import EXIT_REFUSED

SECONDS_MAX = 30
INCREMENT = ("t", "", b"n", None, 1, 0, None, None, False)
COMMAND = """\
import sys
sys.path[:] = {path!r}
{before}
from shmstore.writer import main
sys.exit(main({listener}, {memory}, {lifeline}, {status}, {address!r}))
"""


class Process:
    """A writer process and this end of its pipes."""

    def __init__(self, site: Site, before: str) -> None:
        lifeline_fd, self._lifeline = os.pipe()
        self._status, status_fd = os.pipe()
        listen_fd, memory_fd = site.listener.fileno(), site.memory_fd
        command = COMMAND.format(
            path=sys.path,
            before=before,
            listener=listen_fd,
            memory=memory_fd,
            lifeline=lifeline_fd,
            status=status_fd,
            address=str(site.path),
        )
        self.child = subprocess.Popen(
            [sys.executable, "-c", command],
            pass_fds=(listen_fd, memory_fd, lifeline_fd, status_fd),
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(lifeline_fd)
        os.close(status_fd)

    def report(self) -> bytes:
        """Return all it reports of its start."""
        with open(self._status, "rb", closefd=False) as status:
            return status.read()

    def ready(self) -> Process:
        assert self.report() == b"ready\n"
        return self

    def cut_lifeline(self) -> None:
        os.close(self._lifeline)
        self._lifeline = -1

    def end(self, number: int | None = None) -> int:
        """Send a signal and wait for the end; return the exit status."""
        if number is not None:
            self.child.send_signal(number)
        return self.child.wait(SECONDS_MAX)

    def log(self) -> str:
        assert self.child.stderr is not None
        return self.child.stderr.read()

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        assert self.child.stderr is not None
        self.child.stderr.close()
        os.close(self._status)
        if self._lifeline >= 0:
            os.close(self._lifeline)


class Site:
    """What a supervisor holds: the socket, the memory; and the writers that were started."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "socket"
        self.memory_fd = segment.create(2 << 20)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self._processes: list[Process] = []

    def start(self, before: str = "") -> Process:
        """Start a writer, which first does what ``before`` says."""
        self._processes.append(Process(self, before))
        return self._processes[-1]

    def connect(self, number: int = 1) -> Caller:
        return Caller(str(self.path), b"%d" % number * CLIENT_ID_BYTES)

    def close(self) -> None:
        for process in self._processes:
            process.close()
        self.listener.close()
        self.path.unlink(missing_ok=True)
        os.close(self.memory_fd)


class Caller:
    """A client that waits for each answer."""

    def __init__(self, path: str, client_id: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS_MAX)
        self._socket.connect(path)
        self._decoder = FrameDecoder()
        self._send(0, "hello", protocol.PROTOCOL_VERSION, client_id)
        data, descriptors, _, _ = socket.recv_fds(self._socket, 1000, 1)
        if not data:
            self._socket.close()
            raise ConnectionResetError
        (self.fd,) = descriptors
        (message,) = self._decoder.feed(data)
        self.facts = protocol.parse_answer(message).result

    def _send(self, request_id: int, operation: str, *arguments: Any) -> None:
        message = protocol.build_request(request_id, request_id, operation, list(arguments))
        self._socket.sendall(protocol.frame(message))

    def ask(self, request_id: int, operation: str, *arguments: Any) -> Any:
        self._send(request_id, operation, *arguments)
        messages: list[Any] = []
        while not messages:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            messages = list(self._decoder.feed(data))
        (answer,) = map(protocol.parse_answer, messages)
        assert answer.id == request_id
        if answer.error is not None:
            raise answer.error
        return answer.result

    def close(self) -> None:
        self._socket.close()
        os.close(self.fd)


@pytest.fixture
def site(runtime_dir: Path) -> Iterator[Site]:
    site = Site(runtime_dir)
    yield site
    site.close()


def stored(caller: Caller, key: bytes) -> bytes | None:
    with closing(segment.map_readonly(caller.fd)) as memory:
        reader = Reader(memory)
        value = reader.get(reader.scope("t", ""), key)
        reader.close()
    return value


# Service


def test_a_new_segment_is_laid_out_and_served(site: Site) -> None:
    process = site.start().ready()
    with closing(site.connect()) as caller:
        assert caller.facts["pid"] == process.child.pid
        assert caller.ask(1, "put", "t", "", b"k", b"\x01") == 1
        assert stored(caller, b"k") == b"\x01"
        assert caller.ask(2, "check") == []


def test_a_killed_writer_is_continued_and_nothing_is_done_twice(site: Site) -> None:
    first = site.start().ready()
    with closing(site.connect()) as caller:
        assert caller.ask(1, "increment", *INCREMENT) == 1
        assert caller.ask(2, "increment", *INCREMENT) == 2
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        assert stored(caller, b"n") == b"\x02"
        second = site.start().ready()
        assert stored(caller, b"n") == b"\x02"
    with closing(site.connect()) as caller:
        assert caller.facts["pid"] == second.child.pid
        assert caller.ask(2, "increment", *INCREMENT) == 2
        assert caller.ask(3, "increment", *INCREMENT) == 3
        assert caller.ask(4, "check") == []


def test_clients_may_call_before_the_writer_serves(site: Site) -> None:
    early = socket.socket(socket.AF_UNIX)
    early.settimeout(SECONDS_MAX)
    early.connect(str(site.path))
    hello = protocol.build_request(0, 0, "hello", [1, b"e" * CLIENT_ID_BYTES])
    early.sendall(protocol.frame(hello))
    process = site.start()
    data, (fd,), _, _ = socket.recv_fds(early, 1000, 1)
    os.close(fd)
    early.close()
    (message,) = FrameDecoder().feed(data)
    assert protocol.parse_answer(message).result["pid"] == process.child.pid


def test_the_writer_holds_a_mapping_nobody_else_can_have(site: Site) -> None:
    site.start().ready()
    with closing(site.connect()) as caller, pytest.raises(PermissionError):
        segment.map_writable(caller.fd)


# Refusal


def spoil(word: int, value: int) -> Callable[[memoryview], None]:
    def store(words: memoryview) -> None:
        words[word] = value

    return store


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (spoil(layout.VERSION_WORD, 99), FormatMismatch),
        (spoil(layout.CAPACITY_WORD, 99), CorruptSegment),
        (spoil(layout.ROOT_WORD, layout.GRANULE_MASK), CorruptSegment),
    ],
)
def test_a_damaged_segment_is_refused(
    site: Site, damage: Callable[[memoryview], None], kind: type[Exception]
) -> None:
    process = site.start().ready()
    process.end(signal.SIGKILL)
    with closing(segment.map_writable(site.memory_fd)) as memory:
        view = memoryview(memory)
        words = view.cast("Q")
        damage(words)
        words.release()
        view.release()
    refusing = site.start()
    report = refusing.report()
    assert report.endswith(b"\n")
    code, message, details = message_unpack(report[:-1])
    assert code == vars(kind)["code"]
    assert message
    assert isinstance(details, dict)
    assert refusing.end() == EXIT_REFUSED
    assert "Traceback" not in refusing.log()


# The end


def test_sigterm_ends_it_and_leaves_the_socket_to_the_supervisor(site: Site) -> None:
    process = site.start().ready()
    with closing(site.connect()) as caller:
        caller.ask(1, "put", "t", "", b"k", b"\x01")
        assert process.end(signal.SIGTERM) == 0
        assert stored(caller, b"k") == b"\x01"
    assert site.path.exists()
    assert process.log() == ""


def test_sigint_is_for_the_supervisor(site: Site) -> None:
    process = site.start().ready()
    with closing(site.connect()) as caller:
        process.child.send_signal(signal.SIGINT)
        assert caller.ask(1, "ping") == process.child.pid
    assert process.end(signal.SIGTERM) == 0


def test_it_ends_with_the_process_that_started_it(site: Site) -> None:
    process = site.start().ready()
    process.cut_lifeline()
    assert process.end() == 0
    assert not site.path.exists()
    assert process.log() == ""


def test_it_ends_even_if_its_starter_was_gone_before_it_served(site: Site) -> None:
    process = site.start()
    process.cut_lifeline()
    assert process.end() == 0


def test_it_leaves_a_socket_that_is_not_its_own(site: Site) -> None:
    process = site.start().ready()
    site.path.rename(site.path.with_name("kept"))
    site.path.write_text("somebody else's")
    process.cut_lifeline()
    assert process.end() == 0
    assert site.path.read_text() == "somebody else's"
    site.path.with_name("kept").unlink()


def test_a_bug_in_the_loop_ends_it_with_one_line(site: Site) -> None:
    process = site.start("from shmstore.writer.loop import Loop; Loop._handle = lambda *_: 1 / 0")
    process.ready()
    with pytest.raises(ConnectionResetError):
        site.connect()
    assert process.end() == 1
    logged = process.log()
    assert logged.count("\n") == 1
    assert "ends: ZeroDivisionError" in logged


def test_nobody_needs_to_listen_to_its_report(site: Site) -> None:
    process = site.start()
    os.close(process._status)
    with closing(site.connect()) as caller:
        assert caller.ask(1, "ping") == process.child.pid
    process._status = os.open(os.devnull, os.O_RDONLY)


def test_a_stopped_writer_is_read_past(site: Site) -> None:
    process = site.start().ready()
    with closing(site.connect()) as caller:
        caller.ask(1, "put", "t", "", b"k", b"\x01")
        process.child.send_signal(signal.SIGSTOP)
        assert stored(caller, b"k") == b"\x01"
        process.child.send_signal(signal.SIGCONT)
        assert caller.ask(2, "ping") == process.child.pid


def test_a_broken_connection_is_seen_by_its_client(site: Site) -> None:
    process = site.start().ready()
    with closing(site.connect()) as caller:
        process.end(signal.SIGKILL)
        poll = select.poll()
        poll.register(caller._socket, select.POLLIN)
        assert poll.poll(SECONDS_MAX * 1000)
        with suppress(BrokenPipeError), pytest.raises(ConnectionResetError):
            caller.ask(1, "ping")
