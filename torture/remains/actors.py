"""The programs of a scene: one starts a server and does with it what it is told, others use it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, NoReturn

import shmstore
from shmstore.runtime import DIRECTORY_VARIABLE
from shmstore.server import supervisor

NAME = "remains"
CAPACITY = "64MiB"
PACE_SECONDS = 0.002
GROWTH = [(f"large-{number}", {"text": "x" * 4000}) for number in range(2000)]
LOAD = [(f"small-{number}", {"number": number}) for number in range(10_000)]


def starter(directory: str, channel: Any) -> None:
    """Start the server, tell who belongs to it, then obey; each order is confirmed at both ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ[DIRECTORY_VARIABLE] = directory
    supervisor.SPARE_AFTER_SECONDS = supervisor.SPARE_AGAIN_SECONDS = 0.0
    channel.send("start")
    try:
        server = shmstore.start(NAME, capacity=CAPACITY)
        channel.send(_cast(server))
        while (order := channel.recv()) is not None:
            channel.send(order)
            _obey(server, order)
            channel.send("done")
        server.close()
    except EOFError:  # the trial itself has ended
        server.close()
    except Exception as error:
        channel.send(f"failed: {error!r}")


def client(address: str, channel: Any) -> NoReturn:
    """Connect to the server, say so, and use it until the end."""
    table = shmstore.connect(address).table("counters")
    table.increment("client")
    channel.send("connected")
    _use(table, "client")


def _cast(server: shmstore.Server) -> dict[str, int]:
    watching = server._supervisor
    while (spare := watching.spare_pid) is None:
        time.sleep(PACE_SECONDS)
    alive, here = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(here, b"!")
        _use(server.table("counters"), "child")
    os.read(alive, 1)  # one that were stopped before would hold what it inherited
    os.close(alive)
    os.close(here)
    writer = server.writer_pid or 0
    memory = os.fstat(watching._memory_fd).st_ino
    return {"writer": writer, "spare": spare, "child": child, "memory": memory}


def _use(table: shmstore.Table, key: str) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        while True:
            table.increment(key)
            time.sleep(PACE_SECONDS)
    except shmstore.ShmstoreError:
        while True:  # with the memory still mapped
            signal.pause()
    finally:
        os._exit(1)


def _obey(server: shmstore.Server, order: str) -> None:
    table = server.table("t")
    if order == "put":
        table.put("k", 1)
    elif order == "grow":
        table.put_many(GROWTH)
    elif order == "load":
        table.put_many(LOAD)
    elif order == "restart":
        if (writer := server.writer_pid) is not None:
            os.kill(writer, signal.SIGKILL)
        server.client.ping()
    elif order == "settle":
        while server._supervisor.spare_pid is None:
            time.sleep(PACE_SECONDS)
    elif order == "close":
        server.close()
