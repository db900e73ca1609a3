"""Records as JSON and back, with nothing lost.

JSON has no word for some of what a record may hold. Each such value is an object of one member,
whose name starts with a dollar sign:

    {"$bytes": "AAE="}                                  bytes, in base64
    {"$datetime": "2026-07-11T10:16:37+00:00"}          a time with its offset, in ISO 8601
    {"$float": "nan"}                                   nan, inf or -inf
    {"$map": [[1, "one"], [null, "none"]]}              a map whose keys are not all text

A record that itself holds a map of one member whose name starts with a dollar sign is written as
a "$map" too, so that it comes back as what it was.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any


def to_json(record: Any, indent: int | None = None) -> str:
    """Return ``record`` as JSON; on one line unless ``indent`` is given.

    Raises ValueError for what no record of ours holds: a foreign client's msgpack extensions.
    """
    separators = (",", ":") if indent is None else None
    return json.dumps(
        _plain(record), ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )


def from_json(text: str) -> Any:
    """Return the record that ``text`` says; ValueError tells what is wrong with it."""
    try:
        return json.loads(text, object_hook=_revive)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}"
        if error.lineno > 1:
            where = f"line {error.lineno}, {where}"
        raise ValueError(f"not JSON: {error.msg} ({where})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if all(type(key) is str for key in value) and not _is_marked(value):
            return {key: _plain(item) for key, item in value.items()}
        return {"$map": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(f"a value of type {type(value).__name__} has no form in JSON")


def _is_marked(value: dict[Any, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("$")


def _revive(members: dict[str, Any]) -> Any:
    if not _is_marked(members):
        return members
    ((name, content),) = members.items()
    if name not in _REVIVERS:
        return members
    try:
        return _REVIVERS[name](content)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{name} cannot be read: {error}") from None


def _bytes(content: str) -> bytes:
    return base64.b64decode(content, validate=True)


def _datetime(content: str) -> datetime:
    # Python 3.10 does not know the Z yet.
    return datetime.fromisoformat(content[:-1] + "+00:00" if content.endswith("Z") else content)


def _float(content: str) -> float:
    if content not in ("nan", "inf", "-inf"):
        raise ValueError(f"expected nan, inf or -inf, not {content!r}")
    return float(content)


def _map(content: list[list[Any]]) -> dict[Any, Any]:
    return {key: value for key, value in content}


_REVIVERS: dict[str, Callable[[Any], Any]] = {
    "$bytes": _bytes,
    "$datetime": _datetime,
    "$float": _float,
    "$map": _map,
}
