"""Stand-in until tables have insert_new(while_alive=True) and wait_changed()."""

from __future__ import annotations

import os
import time
from typing import Any

from ..errors import RequestTimeout
from ..table import Table


def _started(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _purge(table: Table, key: str) -> None:
    version, record = table.get_versioned(key)
    pid = record["_pid"] if isinstance(record, dict) and "_pid" in record else 0
    if pid and _started(pid) != record["_start"] and table.version(key) == version:
        table.delete(key)


def insert_while_alive(table: Table, key: str, value: dict[str, Any]) -> bool:
    _purge(table, key)
    pid = os.getpid()
    return table.insert_new(key, {**value, "_pid": pid, "_start": _started(pid)})


def wait_changed(table: Table, key: str, version: int, timeout: float | None) -> None:
    end = None if timeout is None else time.monotonic() + timeout
    while table.version(key) == version:
        _purge(table, key)
        if end is not None and time.monotonic() > end:
            raise RequestTimeout("stand-in")
        time.sleep(0.001)
