"""The arguments that several commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import shmstore
from shmstore.commands.outcome import Misuse
from shmstore.table import Table

TIMEOUT_SECONDS = 30.0

Commands = Any
"""What add_subparsers() returns; argparse has no public name for it."""


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], about: str, more: str
) -> argparse.ArgumentParser:
    """Add the command ``name``: ``about`` in one line, ``more`` as the end of its own help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the server to work with, and how long to wait for it."""
    parser.add_argument("server", metavar="NAME", help="name or address of a running server")
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="how long to wait for an answer (default: %(default)g)",
    )


def add_table(parser: argparse.ArgumentParser) -> None:
    """Add the table to work with."""
    parser.add_argument("table", metavar="TABLE", help="name of a table")
    add_namespace(parser)


def add_namespace(parser: argparse.ArgumentParser) -> None:
    """Add the namespace of a resource store."""
    parser.add_argument(
        "--namespace",
        default="",
        metavar="NAMESPACE",
        help="the records of a resource store in this namespace (default: a plain table's)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice of output for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_hex(parser: argparse.ArgumentParser) -> None:
    """Add the notation for keys that are bytes."""
    parser.add_argument(
        "--hex", action="store_true", help="KEY is a bytes key, written in hexadecimal"
    )


def connect(arguments: argparse.Namespace) -> shmstore.Client:
    """Return a client of the server that was named."""
    return shmstore.connect(arguments.server, timeout=arguments.timeout)


def table_of(client: shmstore.Client, arguments: argparse.Namespace) -> Table:
    """Return the table that was named, in the namespace that was named."""
    return Table(client, arguments.table, arguments.namespace)


def key_of(text: str, arguments: argparse.Namespace) -> str | bytes:
    """Return the key that ``text`` stands for."""
    if not arguments.hex:
        return text
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Misuse(
            f"with --hex a key is an even number of hexadecimal digits, not {text!r}"
        ) from None
