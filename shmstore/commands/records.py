"""One record at a time: ``get``, ``put`` and ``delete``."""

from __future__ import annotations

import argparse
import sys

from shmstore.commands import options
from shmstore.commands.notation import from_json, to_json
from shmstore.commands.outcome import Exit, Misuse, complain

NOTATION = """\
What JSON cannot say is written as an object of one member:
  {"$bytes": "AAE="}   {"$datetime": "2026-07-11T10:16:37+00:00"}   {"$float": "nan"}
  {"$map": [[1, "a map"], [null, "whose keys are not all text"]]}
"""


def add_to(commands: options.Commands) -> None:
    """Add the three commands."""
    parser = options.add_command(
        commands,
        "get",
        get,
        "print one record as JSON",
        "exit status 1 if there is no such record\n\n"
        f"{NOTATION}\n"
        "examples:\n"
        "  shmstore get mystore users alice\n"
        "  shmstore get mystore webhooks we_0123456789abcdef --namespace global\n",
    )
    options.add_server(parser)
    options.add_table(parser)
    parser.add_argument("key", metavar="KEY", help="key of the record")
    options.add_hex(parser)

    parser = options.add_command(
        commands,
        "put",
        put,
        "store one record, in place of one that has its key",
        f"{NOTATION}\n"
        "examples:\n"
        "  shmstore put mystore users alice '{\"age\": 41}'\n"
        "  generate-config | shmstore put mystore config current -\n",
    )
    options.add_server(parser)
    options.add_table(parser)
    parser.add_argument("key", metavar="KEY", help="key of the record")
    parser.add_argument("json", metavar="JSON", help="the record; - reads it from standard input")
    options.add_hex(parser)

    parser = options.add_command(
        commands,
        "delete",
        delete,
        "remove records",
        "exit status 1 if one of them was not there; the others are removed\n\n"
        "example:\n"
        "  shmstore delete mystore users alice bob\n",
    )
    options.add_server(parser)
    options.add_table(parser)
    parser.add_argument("keys", metavar="KEY", nargs="+", help="key of a record")
    options.add_hex(parser)


def get(arguments: argparse.Namespace) -> int:
    """Print a record: on one line, or laid out on a terminal."""
    key = options.key_of(arguments.key, arguments)
    with options.connect(arguments) as client:
        record = options.table_of(client, arguments)[key]
    print(to_json(record, indent=2 if sys.stdout.isatty() else None))
    return Exit.DONE


def put(arguments: argparse.Namespace) -> int:
    """Store a record."""
    key = options.key_of(arguments.key, arguments)
    text = sys.stdin.read() if arguments.json == "-" else arguments.json
    try:
        record = from_json(text)
    except ValueError as error:
        raise Misuse(f"the record: {error}") from None
    with options.connect(arguments) as client:
        options.table_of(client, arguments).put(key, record)
    return Exit.DONE


def delete(arguments: argparse.Namespace) -> int:
    """Remove records, and name those that were not there."""
    keys = [options.key_of(text, arguments) for text in arguments.keys]
    with options.connect(arguments) as client:
        table = options.table_of(client, arguments)
        missing = [key for key in keys if not table.delete(key)]
    for key in missing:
        complain(f"no record {key!r} in table {arguments.table!r}")
    return Exit.PROBLEM if missing else Exit.DONE
