"""Where in the code a worker is that computes a shared fixture: told to those who wait for it."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

import _pytest
import pluggy

from ..errors import ShmstoreError

TELL_SECONDS = 0.5
"""How often it is looked where a worker is; what takes less tells nothing."""
FRAMES_MAX = 4
_PASSED_OVER = tuple(
    os.path.dirname(str(file)) + os.sep for file in (__file__, _pytest.__file__, pluggy.__file__)
)


class Teller:
    """Tells where the thread that makes it is, whenever that has changed, until it is stopped.

    By a thread of its own, as the other may be in a call that never returns.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._whose = threading.get_ident()
        self._is_over = threading.Event()
        self._telling = threading.Lock()
        thread = threading.Thread(target=self._watch, name="shmstore-place", daemon=True)
        with suppress(RuntimeError):  # no thread to be had: then nobody is told
            thread.start()

    def stop(self) -> None:
        """Tell nothing from now on."""
        with self._telling:
            self._is_over.set()

    def _watch(self) -> None:
        before = ""
        while not self._is_over.wait(TELL_SECONDS):
            place = place_of(self._whose)
            with self._telling, suppress(ShmstoreError):
                if place != before and not self._is_over.is_set():
                    self._tell(place)
            before = place


def place_of(thread: int) -> str:
    """Return the innermost calls of a thread that are not pytest's or the plugin's own."""
    calls: list[str] = []
    for frame, line in traceback.walk_stack(sys._current_frames().get(thread)):
        code = frame.f_code
        if not code.co_filename.startswith(_PASSED_OVER):
            calls.append(f"{_shown(code.co_filename)}:{line} in {code.co_name}")
        elif calls:
            break  # who called the fixture
    return " < ".join(calls[:FRAMES_MAX])


def _shown(file: str) -> str:
    """Return a file's name and its directory's: enough to find it."""
    return os.sep.join(file.rsplit(os.sep, 2)[-2:])
