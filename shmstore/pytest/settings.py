"""What the configuration of pytest says about a run: read once, refused if it makes no sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import pytest

from ..errors import InvalidArgument

_CAPACITY = "the most that the store will hold, as 512MiB; by default 1GiB, or half of what is left"
_TIMEOUT = "how many seconds a worker waits for a shared fixture that another one computes"
_TABLE_BYTES = "from how many bytes on a dict, list or tuple is stored row by row"
_PICKLE = "whether values and exceptions that have no code of their own may be pickled"
Value = TypeVar("Value")


class Settings(NamedTuple):
    """The settings of a run."""

    capacity: str
    """What the store may hold; "" leaves that to what the machine has left."""
    timeout: float
    table_bytes: int
    pickle: bool


def add_settings(parser: pytest.Parser) -> None:
    """Have pytest know the settings."""
    parser.addini("shmstore_capacity", _CAPACITY, default="")
    parser.addini("shmstore_timeout", _TIMEOUT, default="600")
    parser.addini("shmstore_table_bytes", _TABLE_BYTES, default=str(1 << 20))
    parser.addini("shmstore_pickle", _PICKLE, type="bool", default=True)


def read_settings(config: pytest.Config) -> Settings:
    """Return the settings; pytest.UsageError, which ends the run at once, names a senseless one."""
    return Settings(
        _read(config, "capacity", _capacity, "bytes from 1MiB to 1TiB, as 512MiB or 1.5GiB"),
        _read(config, "timeout", _seconds, "a number of seconds greater than 0"),
        _read(config, "table_bytes", _count, "a whole number of bytes, 0 or more"),
        _read(config, "pickle", bool, "true or false"),
    )


def _read(
    config: pytest.Config, setting: str, parsed: Callable[[str], Value], wanted: str
) -> Value:
    name = f"shmstore_{setting}"
    given = None
    try:
        given = config.getini(name)
        return parsed(given)
    except (ValueError, TypeError, InvalidArgument, pytest.UsageError) as error:
        what = f"{name}: {error};" if given is None else f"{name} = {given}:"
    raise pytest.UsageError(f"{what} give {wanted}")


def _capacity(given: str) -> str:
    from ..segment import parse_capacity

    if given:
        parse_capacity(given)
    return given


def _seconds(given: str) -> float:
    seconds = float(given)
    if not seconds > 0:  # as nothing is in comparison with nan
        raise ValueError
    return seconds


def _count(given: str) -> int:
    count = int(given)
    if count < 0:
        raise ValueError
    return count
