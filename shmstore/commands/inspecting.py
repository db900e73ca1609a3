"""What a server holds and whether it is sound: ``stats`` and ``check``."""

from __future__ import annotations

import argparse
from typing import Any

from shmstore.commands import options
from shmstore.commands.notation import to_json
from shmstore.commands.outcome import Exit, mention_engine
from shmstore.commands.tables import count, tables
from shmstore.writer.soundness import INVARIANTS


def add_to(commands: options.Commands) -> None:
    """Add the two commands."""
    parser = options.add_command(
        commands,
        "stats",
        stats,
        "print figures of a server and its tables",
        "sizes are in bytes\n\n"
        "examples:\n"
        "  shmstore stats mystore\n"
        "  shmstore stats mystore --json | jq .used\n",
    )
    options.add_server(parser)
    options.add_json(parser)

    parser = options.add_command(
        commands,
        "check",
        check,
        "walk the whole segment and say what is wrong",
        "Reads go on meanwhile, mutations wait. Exit status 1 if anything is wrong.\n\n"
        "example:\n"
        "  shmstore check mystore\n",
    )
    options.add_server(parser)
    options.add_json(parser)


def stats(arguments: argparse.Namespace) -> int:
    """Print the figures of the writer, then the number of records of each table."""
    mention_engine()
    with options.connect(arguments) as client:
        figures = client.stats()
        records = {
            listing.name: sum(count(client, listing.name, space) for space in listing.namespaces)
            for listing in tables(client)
        }
    if arguments.json:
        print(to_json({**figures, "tables": records}))
        return Exit.DONE
    _print_columns(figures)
    if records:
        print("\nrecords per table")
        _print_columns(records)
    return Exit.DONE


def check(arguments: argparse.Namespace) -> int:
    """Print what was checked, and what is wrong."""
    with options.connect(arguments) as client:
        problems = client.check()
    if arguments.json:
        print(to_json({"invariants": list(INVARIANTS), "problems": problems}))
        return Exit.PROBLEM if problems else Exit.DONE
    print("checked:")
    for invariant in INVARIANTS:
        print(f"  {invariant}")
    for problem in problems:
        print(f"wrong: {problem}")
    print(f"{len(problems)} problems" if problems else "nothing is wrong")
    return Exit.PROBLEM if problems else Exit.DONE


def _print_columns(figures: dict[str, Any]) -> None:
    width = max(map(len, figures))
    for name, figure in figures.items():
        print(
            f"{name:<{width}}  {figure:,}" if type(figure) is int else f"{name:<{width}}  {figure}"
        )
