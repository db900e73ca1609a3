"""``demo``: the store at work."""

from __future__ import annotations

import argparse

from shmstore.commands import options
from shmstore.commands.outcome import Exit, Misuse, complain, mention_engine

SECONDS = 6.0
MORE = """\
Loads 3,000 real records and starts processes that look them up and change them, kills the writer
with SIGKILL in the middle, and says what all of them saw. Exit status 1 if a record was torn or
an acknowledged change lost.

examples:
  shmstore demo
  shmstore demo --seconds 20 --readers 4
"""


def add_to(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.add_command(commands, "demo", show, "show the store at work", MORE)
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="how long to run (default: %(default)g)"
    )
    parser.add_argument(
        "--readers", type=int, default=2, help="processes that look up (default: %(default)s)"
    )
    parser.add_argument(
        "--clients", type=int, default=2, help="processes that change (default: %(default)s)"
    )


def show(arguments: argparse.Namespace) -> int:
    """Run the demo."""
    if arguments.readers < 1 or arguments.clients < 1 or not 0 < arguments.seconds < 1e6:
        raise Misuse("the demo needs a reader, a client and some seconds")
    mention_engine()
    from shmstore import demo  # only now: it needs much that no other command does

    try:
        good = demo.run(arguments.seconds, arguments.readers, arguments.clients)
    except demo.SampleMissing as error:
        raise Misuse(str(error)) from None
    except demo.DemoFailed as error:
        complain(str(error))
        return Exit.PROBLEM
    return Exit.DONE if good else Exit.PROBLEM
