"""Starting a server: its name, its memory, and the supervisor that keeps its writer alive."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, NoReturn

from .. import runtime, segment
from ..client import TIMEOUT_SECONDS, Client
from ..errors import RequestTimeout, ShmstoreError
from ..pipe import check_timeout
from ..table import Table
from . import supervisor
from .supervisor import Supervisor

if TYPE_CHECKING:
    from typing_extensions import Self


def start(
    name: str | None = None,
    capacity: int | str = "1GiB",
    lazy: bool = False,
    *,
    timeout: float | None = TIMEOUT_SECONDS,
) -> Server:
    """Start a server in a process of its own, supervised by this one; return a handle on it.

    ``name`` (made up if None) is what other processes of this user connect to. ``capacity`` is the
    most it will ever hold, in bytes or as "512MiB"; memory is taken as it is needed. With ``lazy``
    the writer process starts when somebody connects, otherwise it is ready on return. ``timeout``
    bounds the start and each later request through the handle.

    The server runs until close(), the end of the ``with`` block, or the end of this process,
    however it ends; then all memory is gone. Works wherever Python runs, also without a main guard.
    Raises NameInUse, InvalidArgument (a bad name, capacity, timeout or runtime directory),
    RequestTimeout, and WriterUnavailable if the writer cannot run here. Any thread may call it.
    """
    deadline = time.monotonic() + check_timeout(timeout)
    chosen = f"{os.getpid()}-{os.urandom(4).hex()}" if name is None else runtime.check_name(name)
    segment.parse_capacity(capacity)
    with supervisor.fork_lock:
        bound = runtime.bind(chosen, deadline)
        watching = _supervised(bound, capacity, lazy)
    server = Server(chosen, bound.address, watching, timeout)
    try:
        if not lazy:
            server._wait_ready(deadline)
    except BaseException:
        server.close()
        raise
    return server


def start_on(bound: runtime.Bound, name: str, capacity: int | str) -> Server:
    """Start a server lazily, as start() does, on a socket that was bound to its name before.

    Who has connected to it meanwhile is served. The socket is gone if this raises.
    """
    with supervisor.fork_lock:
        watching = _supervised(bound, capacity, lazy=True)
    return Server(name, bound.address, watching, TIMEOUT_SECONDS)


def _supervised(bound: runtime.Bound, capacity: int | str, lazy: bool) -> Supervisor:
    with ExitStack() as on_failure:
        on_failure.callback(bound.listener.close)
        on_failure.callback(runtime.unlink, bound)
        memory_fd = segment.create(segment.parse_capacity(capacity))
        on_failure.callback(os.close, memory_fd)
        watching = Supervisor(bound, memory_fd, lazy)
        on_failure.pop_all()
    return watching


class Server:
    """A server that this process started; a context manager that ends it.

    Threads may share it. In a forked child the tables and clients go on working, and close() does
    nothing to the server: it is the parent's. It cannot be pickled; its address can.
    """

    def __init__(
        self, name: str, address: str, supervisor: Supervisor, timeout: float | None
    ) -> None:
        self._name = name
        self._supervisor = supervisor
        self._client = Client(address, timeout)

    @property
    def name(self) -> str:
        """What to connect to, in processes that use the same runtime directory."""
        return self._name

    @property
    def address(self) -> str:
        """What to connect to in any process: the path of the server's socket."""
        return self._client.address

    @property
    def writer_pid(self) -> int | None:
        """The process id of the writer; None before it starts, between two, and in the end."""
        return self._supervisor.writer_pid

    @property
    def client(self) -> Client:
        """The client of the starting process, which table() uses; it attaches at its first use."""
        return self._client

    def table(self, name: str) -> Table:
        """Return the table of this name, as Client.table()."""
        return self._client.table(name)

    def connect(self, timeout: float | EllipsisType | None = ...) -> Client:
        """Return a new, attached client; its ``timeout`` is that of start() unless given."""
        client = Client(self.address, self._client.timeout if timeout is ... else timeout)
        try:
            client.attach()
        except BaseException:
            client.close()
            raise
        return client

    def _wait_ready(self, deadline: float) -> None:
        """Return when the first writer serves; raise why it does not. ``deadline``: monotonic."""
        seconds = max(0.0, deadline - time.monotonic())
        if not self._supervisor.decided.wait(min(seconds, supervisor.WAIT_SECONDS_MAX)):
            raise RequestTimeout(
                f"the writer process of server {self._name!r} was not ready in time; it was ended"
            )
        if self._supervisor.failure is not None:
            raise self._supervisor.failure

    def close(self) -> None:
        """End the server and free its memory; harmless when repeated, nothing in a forked child.

        Other processes read on in what they have mapped, and get WriterUnavailable for the rest.
        """
        self._client.close()
        self._supervisor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise ShmstoreError(
            "a server cannot be pickled: hand on server.address, a client or a table"
        )

    def __repr__(self) -> str:
        return f"<shmstore.Server {self._name!r}, writer {self.writer_pid}>"
