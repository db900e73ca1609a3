"""The command line: parses it, runs the command, and turns whatever happens into an exit status."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from shmstore.commands import dumping, inspecting, loading, records, serving, showing
from shmstore.commands.outcome import Exit, Misuse, complain
from shmstore.errors import (
    InvalidArgument,
    InvalidKey,
    InvalidRecord,
    NameInUse,
    RecordNotFound,
    RecordTooLarge,
    ShmstoreError,
)

MISUSES = (Misuse, InvalidArgument, InvalidKey, InvalidRecord, RecordTooLarge, NameInUse)
MORE = """\
exit status:
  0    done
  1    not found, or something is wrong: a missing record, a line that cannot be loaded, a problem
       that check found
  2    the command line, or what it names, is not what the command can work with
  3    the store cannot do it: no such server, no answer in time, no room
  130  interrupted by Ctrl-C
  141  nobody reads the output any more

examples:
  shmstore serve mystore &
  shmstore load mystore packages benchmarks/data/packages.jsonl --key package
  shmstore get mystore packages bash
  shmstore stats mystore

`shmstore COMMAND --help` says more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, that of the process unless given; return the exit status."""
    _speak_utf8()
    try:
        return _run(arguments)
    except RecordNotFound as error:
        complain(str(error))
        return Exit.PROBLEM
    except MISUSES as error:
        complain(str(error))
        return Exit.USAGE
    except BrokenPipeError:
        _write_to_nobody()
        return Exit.PIPE_CLOSED
    except ShmstoreError as error:
        complain(str(error))
        return Exit.STORE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    try:
        parsed = _parser().parse_args(arguments)
        status = int(parsed.run(parsed))
    except SystemExit as end:  # argparse has said what there is to say
        status = int(end.code or 0)
    sys.stdout.flush()  # here a closed pipe is still ours to handle
    return status


def _write_to_nobody() -> None:
    """Let what Python flushes at its end go nowhere, since it cannot go where it should."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shmstore",
        description="A table in shared memory: one process writes, every other reads it directly.",
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (serving, records, loading, dumping, inspecting, showing):
        module.add_to(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            print(f"shmstore {version('shmstore')}")
        except PackageNotFoundError:
            print("shmstore, not installed")
        parser.exit()


def _speak_utf8() -> None:
    """Print records as what they are, whatever the locale."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
