"""Servers: ``serve`` runs one, ``ls`` says which are running."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from types import FrameType

import shmstore
from shmstore import runtime
from shmstore.commands import options
from shmstore.commands.notation import to_json
from shmstore.commands.outcome import Exit, complain

CAPACITY = "1GiB"
GLANCE_SECONDS = 1.0


def add_to(commands: options.Commands) -> None:
    """Add the two commands."""
    parser = options.add_command(
        commands,
        "serve",
        serve,
        "run a server until Ctrl-C or SIGTERM",
        "Prints its address once it serves. Its memory is gone when it ends. The capacity is a\n"
        "limit: memory that holds nothing yet costs nothing.\n\n"
        "examples:\n"
        "  shmstore serve mystore\n"
        "  shmstore serve mystore --capacity 8GiB &\n",
    )
    parser.add_argument("name", metavar="NAME", help="name to connect to")
    parser.add_argument(
        "--capacity",
        default=CAPACITY,
        metavar="SIZE",
        help="bytes, or as in 512MiB (default: %(default)s)",
    )

    parser = options.add_command(
        commands,
        "ls",
        ls,
        "list the running servers of this user",
        "example:\n  shmstore ls\n",
    )
    options.add_json(parser)


class Ended(Exception):
    """A signal asked the server to end."""


def serve(arguments: argparse.Namespace) -> int:
    """Serve in the foreground."""
    capacity = arguments.capacity
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        with shmstore.start(
            arguments.name, capacity=int(capacity) if capacity.isdecimal() else capacity
        ) as server:
            print(server.address, flush=True)
            while runtime.is_listening(server.address):
                time.sleep(GLANCE_SECONDS)
    except Ended:
        return Exit.DONE
    complain("the server has ended: nobody can connect to its socket any more")
    return Exit.STORE


def ls(arguments: argparse.Namespace) -> int:
    """Print name and address of each running server; no server notices."""
    names = runtime.running()
    if arguments.json:
        print(to_json([{"name": name, "address": runtime.address_of(name)} for name in names]))
        return Exit.DONE
    width = max(map(len, names), default=0)
    for name in names:
        print(f"{name:<{width}}  {runtime.address_of(name)}")
    if not names and sys.stdout.isatty():
        complain("no server is running")
    return Exit.DONE


def _end(number: int, frame: FrameType | None) -> None:
    """End in good order; a second signal ends at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    raise Ended
