"""Server programs of rivals: started on a Unix socket in a private folder, and ended."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import suppress

from .base import NotAvailable

START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 10.0


def find_program(program: str, package: str) -> str:
    """Return the path of a program. Raises NotAvailable, which names the package that has it."""
    path = shutil.which(program)
    if path is None:
        raise NotAvailable(f"no program {program}; install the package {package}")
    return path


def version_of(command: list[str]) -> str:
    """Return what a program says of its version."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Program:
    """A running server program that listens on a Unix socket."""

    def __init__(self, command: list[str], path: str) -> None:
        """Start it and wait until it accepts connections. Raises NotAvailable if it does not."""
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not _accepts(path):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise NotAvailable(f"{command[0]} does not start: {self._complaint}")
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    _complaint = ""

    def stop(self) -> None:
        """End it; harmless when repeated."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            said = self._process.communicate(timeout=STOP_SECONDS_MAX)[1]
        except subprocess.TimeoutExpired:
            self._process.kill()
            said = self._process.communicate()[1]
        self._complaint = said.decode(errors="replace")[-300:].strip()


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(path)
        return True
    return False
