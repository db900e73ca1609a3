"""``dump``: records as JSON lines that ``load`` takes back."""

from __future__ import annotations

import argparse

import shmstore
from shmstore.codec import unpack
from shmstore.commands import options
from shmstore.commands.notation import to_json
from shmstore.commands.outcome import Exit, complain
from shmstore.commands.tables import Listing, tables
from shmstore.table.views import walk

MORE = """\
Each line is an object with "table", "key" and "value", and "namespace" in a resource store; a line
with "indexes" and no key says that a table is a resource store. `shmstore load` reads them. The
server goes on serving meanwhile: what changes during the dump may be in it or not, but no record
that is there throughout is missing, twice, or half.

examples:
  shmstore dump mystore > backup.jsonl
  shmstore dump mystore users | jq .value
  shmstore dump old | shmstore load new - -
"""


def add_to(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.add_command(commands, "dump", dump, "print records as JSON lines", MORE)
    options.add_server(parser)
    parser.add_argument("table", metavar="TABLE", nargs="?", help="this table only")
    parser.add_argument("--namespace", metavar="NAMESPACE", help="this namespace only")


def dump(arguments: argparse.Namespace) -> int:
    """Print the lines of all tables that are wanted."""
    found = failed = False
    with options.connect(arguments) as client:
        for listing in tables(client):
            if arguments.table in (None, listing.name):
                found = True
                failed |= not _dump_table(client, listing, arguments.namespace)
    if arguments.table is not None and not found:
        complain(f"no table {arguments.table!r}")
        return Exit.PROBLEM
    return Exit.PROBLEM if failed else Exit.DONE


def _dump_table(client: shmstore.Client, listing: Listing, wanted: str | None) -> bool:
    """Print the lines of one table; tell whether all its records could be printed."""
    if listing.is_store:
        print(to_json({"table": listing.name, "indexes": listing.indexes}))
    complete = True
    for namespace in listing.namespaces:
        if wanted in (None, namespace):
            for key, packed in walk(client, listing.name, namespace):
                place = {"table": listing.name, "namespace": namespace, "key": key}
                if not namespace:
                    del place["namespace"]
                try:
                    print(to_json({**place, "value": unpack(packed)}))
                except ValueError as error:
                    complain(f"table {listing.name!r}, key {key!r}: {error}")
                    complete = False
    return complete
