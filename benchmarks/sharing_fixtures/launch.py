"""The process around one run: measures it, and the processor time of every process it starts.

    python -m benchmarks.sharing_fixtures.launch SECONDS ACCOUNT COMMAND [ARGUMENT...]

Descendants that lose their parent become children of this process, so none escapes. Writes to the
file ACCOUNT what it saw; whatever is left when SECONDS are over, or when this process is told to
end, is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LINGER_SECONDS = 20.0
"""How long processes may outlive the run before they count as left behind."""


class _TooLong(Exception):
    """The time is over."""


def main() -> None:
    """Run the command; write the account."""
    seconds, account, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGALRM, too_long)
    try:
        status, wall_ns, left = watched(command, float(seconds))
    finally:
        end_all()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_ns = round((used.ru_utime + used.ru_stime) * 1e9)
    seen = {"status": status, "wall_ns": wall_ns, "cpu_ns": cpu_ns, "left": left}
    Path(account).write_text(json.dumps(seen))


def too_long(*_: object) -> NoReturn:
    """Leave the waiting."""
    raise _TooLong


def watched(command: list[str], seconds: float) -> tuple[int | None, int, int]:
    """Run a command; return its exit status (None: not in time), the nanoseconds until its end,
    and how many processes of it were left a while later.
    """
    status, wall_ns = None, 0
    begin = time.monotonic_ns()
    first = os.posix_spawnp(command[0], command, os.environ)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        while True:
            ended, code = os.wait()
            if ended == first:
                wall_ns = time.monotonic_ns() - begin
                status = os.waitstatus_to_exitcode(code)
                signal.setitimer(signal.ITIMER_REAL, LINGER_SECONDS)
    except ChildProcessError:
        return status, wall_ns, 0
    except _TooLong:
        return status, wall_ns, len(children())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def end_all() -> None:
    """Kill all children, and those that become children by it."""
    while True:
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def children() -> list[int]:
    """Return the processes whose parent this one is."""
    return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]


if __name__ == "__main__":
    main()
