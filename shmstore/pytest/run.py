"""One test run as one of its processes sees it: its store, and how workers find that.

The controller of xdist starts the server, lazily, and gives each worker its address; without
xdist, or on another machine, the process that needs it starts one of its own.
"""

from __future__ import annotations

import os
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .. import runtime
from ..errors import ProcessUnseen, ShmstoreError
from .errors import NotSharedWarning
from .settings import Settings

if TYPE_CHECKING:
    from ..client import Client
    from ..server import Server

ALONE = "main"
"""What the only process of a run is called, next to gw0, gw1, ..."""
RUN: pytest.StashKey[Run] = pytest.StashKey()
"""Where the configuration of pytest has the run."""
INPUT = "shmstore"
"""Under which name a worker finds the address in what the controller gives it."""
BIND_SECONDS_MAX = 5.0
CAPACITY = "1GiB"
"""What a store may hold unless the configuration says; less where the machine leaves little."""
ELSEWHERE = (
    "a worker runs where the store of the run cannot be reached, on another machine or in another "
    "container: it computes its shared fixtures itself"
)


class Run:
    """The store of a run. ``worker`` names this process in it, also where it is the only one."""

    def __init__(self, config: Any, settings: Settings) -> None:
        given = getattr(config, "workerinput", None)
        self.worker: str = ALONE if given is None else given["workerid"]
        self.name = f"pytest-{os.getpid()}-{os.urandom(4).hex()}"
        self.settings = settings
        self.capacity: str = settings.capacity or _default_capacity()
        self._given: dict[str, str] | None = None if given is None else given.get(INPUT)
        self._process = os.getpid()
        self._bound: runtime.Bound | None = None
        self._server: Server | None = None
        self._client: Client | None = None
        self._ahead: Client | None = None

    @property
    def is_shared(self) -> bool:
        """Whether other processes take part in the run: only a worker that was told can know."""
        return self._given is not None

    @property
    def has_begun(self) -> bool:
        """Whether anybody has used the store."""
        if self._client is not None:
            return True
        return self._server is not None and self._server.writer_pid is not None

    @property
    def client(self) -> Client:
        """A client of the run's store; the first use connects, and starts what is to be started."""
        if self._client is None:
            self._client = self._connected()
        return self._client

    def connect(self) -> Client:
        """Return a client for somebody else than the plugin, who may close it."""
        from ..client import connect

        ahead, self._ahead = self._ahead, None
        return connect(self.client.address) if ahead is None else ahead

    def connect_ahead(self) -> None:
        """Have the next ``connect()`` need no connection any more."""
        self._ahead = self.connect()

    def worker_input(self) -> dict[str, str]:
        """Return what a worker is to be told; controller only.

        Here and in begin(), what goes wrong may matter to nobody: who needs the store will try to
        start one, and say why that cannot be done.
        """
        with suppress(ShmstoreError, OSError):
            if self._bound is None:
                self._bound = runtime.bind(self.name, time.monotonic() + BIND_SECONDS_MAX)
            return {"address": self._bound.address, "machine": _machine()}
        return {}

    def begin(self) -> None:
        """Start the server of what workers were told, lazily; controller only.

        Its import takes long: this is the time for it, while the workers come up.
        """
        if self._bound is not None and self._server is None:
            from ..server.server import start_on

            with suppress(ShmstoreError, OSError):
                self._server = start_on(self._bound, self.name, self.capacity)

    def close(self) -> None:
        """Hang up, and end the server if it is this process's. Nothing in a forked child."""
        if os.getpid() == self._process:
            for client in (self._ahead, self._client):
                if client is not None:
                    client.close()
            if self._server is not None:
                self._server.close()
            elif self._bound is not None:
                runtime.unlink(self._bound)
                self._bound.listener.close()

    def _connected(self) -> Client:
        from ..client import connect

        if self._given is not None:
            if _is_here(self._given):
                client = connect(self._given["address"])
                if _is_seen(client):
                    return client
                client.close()
            warnings.warn(NotSharedWarning(ELSEWHERE), stacklevel=2)
            self._given = None
        if self._server is None:
            from ..server import start

            self._server = start(self.name, self.capacity)
        return self._server.connect()


def _default_capacity() -> str:
    """Return CAPACITY, or half of what is left here: a start that asks for more is refused."""
    from ..segment import available_bytes, parse_capacity

    half = available_bytes() // 2
    return CAPACITY if half >= parse_capacity(CAPACITY) else f"{half >> 20}MiB"


def _is_here(given: dict[str, str]) -> bool:
    return given.get("machine") == _machine() and os.path.exists(given["address"])


def _is_seen(client: Client) -> bool:
    """Tell whether the writer sees when this process ends."""
    try:
        client.table("pytest.processes").insert_new(str(os.getpid()), None, while_alive=True)
    except ProcessUnseen:
        return False
    return True


def _machine() -> str:
    """Return what is the same in all processes that could share memory, until a restart."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.uname().nodename
