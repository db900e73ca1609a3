"""What a fixture raised, so that it can be raised in every process that asks for its value."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any

import _pytest
import pluggy
import pytest

from ..errors import ShmstoreError
from .errors import FixtureFailed, OriginalTraceback
from .values import pickled

FAILURES = (Exception, pytest.skip.Exception, pytest.fail.Exception)
"""What counts as the outcome of a fixture; anything else ends the process, or is to end the run."""
ENDS = (pytest.exit.Exception,)
"""What is an Exception, and ends the run all the same."""
_OUTCOMES: dict[str, Any] = {
    "skip": pytest.skip.Exception,
    "xfail": pytest.xfail.Exception,  # which is a kind of fail
    "fail": pytest.fail.Exception,
}
_FOREIGN = tuple(
    os.path.dirname(str(file)) + os.sep for file in (__file__, _pytest.__file__, pluggy.__file__)
)


def failure_of(error: BaseException, *, may_pickle: bool) -> dict[str, Any]:
    """Return ``error`` as a record."""
    for outcome, kind in _OUTCOMES.items():
        if isinstance(error, kind):
            record: dict[str, Any] = {"outcome": outcome, "message": str(error.msg)}
            return {**record, "pytrace": error.pytrace, "traceback": _text(error)}
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    message = f"{name}: {error}" if str(error) else name
    whole = _pickled(error) if may_pickle or isinstance(error, ShmstoreError) else None
    return {"outcome": "error", "message": message, "traceback": _text(error), "pickled": whole}


def raise_failure(record: dict[str, Any]) -> None:
    """Raise what ``failure_of`` made a record of; the traceback it had there is its cause."""
    __tracebackhide__ = True
    cause = OriginalTraceback(record["traceback"]) if record["traceback"] else None
    if record["outcome"] in _OUTCOMES:
        raise _OUTCOMES[record["outcome"]](record["message"], record["pytrace"]) from cause
    raise _unpickled(record) from cause


def _pickled(error: BaseException) -> bytes | None:
    """Return pickles of an exception, one in the other, as far as it lets itself be pickled."""
    kind = type(error)
    with suppress(Exception):
        whole = _dumped(error)
        copy = pickled.load(whole)
        if type(copy) is kind and str(copy) == str(error):
            return whole
    with suppress(Exception):
        state = {name: value for name, value in vars(error).items() if _can_pickle(value)}
        args = error.args if _can_pickle(error.args) else (str(error),)
        return _dumped(_Parts(kind, args, state))
    return None


class _Parts:
    """An exception whose own way of being pickled does not lead back to it."""

    def __init__(self, kind: type, args: tuple[Any, ...], state: dict[str, Any]) -> None:
        self.parts = kind, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return _assembled, self.parts


def _assembled(kind: type[BaseException], args: Any, state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


def _can_pickle(value: Any) -> bool:
    with suppress(Exception):
        pickled.load(_dumped(value))
        return True
    return False


def _dumped(value: Any) -> bytes:
    return pickled.dump(value, sys.maxsize).data


def _unpickled(record: dict[str, Any]) -> BaseException:
    with suppress(Exception):
        error = pickled.load(record["pickled"])
        if isinstance(error, BaseException):
            return error
    return FixtureFailed(record["message"])


def _text(error: BaseException) -> str:
    """Return the traceback as text, without the frames that lead to the fixture; "" if none."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_FOREIGN):
        trace = trace.tb_next
    return "" if trace is None else "".join(_formatted(error, trace))


def _formatted(error: BaseException, trace: TracebackType) -> list[str]:
    return traceback.format_exception(type(error), error, trace)
