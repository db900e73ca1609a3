"""Short cuts through the codec: the native engine has some, this one has none.

Each may say None at any time: then the caller does it with the codec, with the same outcome.
"""

from __future__ import annotations

from typing import Any

from ..codec import Packed


def quick_frame(*fields: Any) -> bytes | None:
    """Return the message of these fields in its frame; None if the codec has to make it."""
    return None


def quick_pairs(records: dict[Any, Any]) -> Packed | None:
    """Return the [key, packed record] pairs of ``put_many``; None if the codec has to make them."""
    return None


def quick_messages(data: bytes, bytes_max: int) -> list[bytes | bytearray] | None:
    """Return the messages of whole frames; None if there is anything else in ``data``.

    That is also one that is larger than ``bytes_max``.
    """
    return None


def quick_answers(data: bytes) -> list[tuple[int, Any, None]] | None:
    """Return (id, result, None) of each answer in ``data``, which begins with a frame.

    None if there is anything else than whole answers of success.
    """
    return None


def quick_tree(value: Any) -> bytes | None:
    """Return as msgpack what holds each list and dict once, and no tuple; None if unsure.

    It holds exactly what msgpack has a type for: no bytearray, no subclass.
    """
    return None
