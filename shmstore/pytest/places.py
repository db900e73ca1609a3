"""Where in the code a worker is that computes a shared fixture: told to those who wait for it."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import _pytest
import pluggy

from ..errors import ShmstoreError

TELL_SECONDS = 0.5
"""How often it is looked where a worker is; what takes less tells nothing."""
FRAMES_MAX = 4
_PASSED_OVER = tuple(
    os.path.dirname(str(file)) + os.sep for file in (__file__, _pytest.__file__, pluggy.__file__)
)


@contextmanager
def told(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell where the code inside the block is, whenever that has changed.

    By a thread, as the code may be in a call that never returns.
    """
    is_done, of_whom = threading.Event(), threading.get_ident()

    def watch() -> None:
        before = ""
        while not is_done.wait(TELL_SECONDS):
            place = place_of(of_whom)
            if place != before:
                before = place
                with suppress(ShmstoreError):
                    tell(place)

    thread = threading.Thread(target=watch, name="shmstore-place", daemon=True)
    with suppress(RuntimeError):  # no thread to be had: then nobody is told
        thread.start()
    try:
        yield
    finally:
        is_done.set()
        if thread.ident is not None:
            thread.join()


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
