"""Where the arguments of foreign processes are checked, once, before any operation sees them.

What passes here has the right count and types, keys and names of allowed sizes, and values that
are one msgpack object each. Whatever else is sent raises a ShmstoreError of a fitting kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from ..codec import validate
from ..errors import InvalidArgument, InvalidKey, ProtocolError
from ..keys import Key, key_of, name_of, shown
from ..layout import GRANULE_MASK
from ..processes import HOLDER_BYTES

Check: TypeAlias = Callable[[Any], Any]


class Place(NamedTuple):
    """Where an operation acts. Plain tables have the namespace "", stores never."""

    table: str
    namespace: str


class Signature(NamedTuple):
    """What follows table and namespace; the last ``optional`` may be left out."""

    checks: tuple[Check, ...]
    optional: int = 0


def checked(operation: object, arguments: object) -> tuple[str, list[Any]]:
    """Return the operation and its arguments: a Place, then what the signature lists.

    Raises ProtocolError for an unknown operation or a wrong count, InvalidKey, InvalidRecord,
    RecordTooLarge or InvalidArgument.
    """
    signature = SIGNATURES.get(operation) if isinstance(operation, str) else None
    if signature is None:
        raise ProtocolError(f"there is no operation {shown(operation)}")
    if not isinstance(arguments, list):
        raise ProtocolError(f"the arguments of {operation} are not a list")
    count, most = len(arguments) - 2, len(signature.checks)
    if not most - signature.optional <= count <= most:
        raise ProtocolError(
            f"{operation} takes {most} arguments after table and namespace, not {count}"
        )
    place = Place(name_of("table", arguments[0]), _namespace(arguments[1]))
    rest = (check(value) for check, value in zip(signature.checks, arguments[2:], strict=False))
    return str(operation), [place, *rest]


def checked_wait(arguments: object) -> tuple[Place, Key, int]:
    """Return place, key and version of a wait. Raises as ``checked``."""
    if not isinstance(arguments, list) or len(arguments) != 4:
        raise ProtocolError("a wait names table, namespace, key and version")
    table, namespace, key, version = arguments
    place = Place(name_of("table", table), _namespace(namespace))
    return place, key_of(key), _version(version)


def checked_pins(arguments: object) -> tuple[bytes, list[int]]:
    """Return the holder and the granules of a request about its pins. Raises as ``checked``."""
    if not isinstance(arguments, list) or len(arguments) != 2:
        raise ProtocolError("a request about pins names a holder and a list of granules")
    holder, granules = arguments
    for granule in _list(granules, "granules"):
        if type(granule) is not int or not 0 < granule <= GRANULE_MASK:
            raise InvalidArgument(f"{shown(granule)} is not a granule")
    return _holder(holder), granules


def checked_transaction(operations: object) -> list[tuple[object, object]]:
    """Return the (operation, arguments) of a transaction, which are not checked themselves yet."""
    if not isinstance(operations, list):
        raise ProtocolError("a transaction is a list of operations")
    for position, pair in enumerate(operations):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ProtocolError(
                f"operation {position} of the transaction is not [name, arguments]",
                position=position,
            )
        if pair[0] == "transaction":
            raise InvalidArgument(
                f"operation {position} is a transaction itself; put all operations into one",
                position=position,
            )
    return [(operation, arguments) for operation, arguments in operations]


def _namespace(value: object) -> str:
    return "" if value == "" else name_of("namespace", value)


def _value(value: Any) -> bytes:
    validate(value)
    return bytes(value)


def _keys(values: Any) -> list[Key]:
    return [key_of(value) for value in _list(values, "keys")]


def _pairs(values: Any) -> list[tuple[Key, bytes]]:
    pairs = []
    for pair in _list(values, "[key, value] pairs"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InvalidArgument(f"expected a [key, value] pair, not {shown(pair)}")
        pairs.append((key_of(pair[0]), _value(pair[1])))
    return pairs


def _filters(values: Any) -> list[tuple[str, bytes]]:
    filters = []
    for pair in _list(values, "[field, value] filters"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InvalidArgument(f"expected a [field, value] filter, not {shown(pair)}")
        filters.append((name_of("field", pair[0]), _value(pair[1])))
    if not filters:
        raise InvalidArgument("no filter would delete every record; use clear for that")
    return filters


def _indexes(values: Any) -> list[str]:
    return [name_of("field", value) for value in _list(values, "fields")]


def _field(value: Any) -> str | None:
    return None if value is None else _exact_str(value)


def _exact_str(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidKey(f"a field is a str, not {type(value).__name__} ({shown(value)})")
    return value


def _number(value: Any) -> int | float:
    if type(value) is not int and type(value) is not float:
        raise InvalidArgument(f"expected an int or a float, not {shown(value)}")
    return value


def _optional_number(value: Any) -> int | float | None:
    return None if value is None else _number(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise InvalidArgument(f"expected True or False, not {shown(value)}")
    return value


def _version(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise InvalidArgument(
            f"a version is an int, 0 for a record that is not there; not {shown(value)}"
        )
    return value


def _time(value: Any) -> int | None:
    if value is not None and type(value) is not int:
        raise InvalidArgument(f"a time is a whole number of seconds, not {shown(value)}")
    return value


def _holder(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != HOLDER_BYTES:
        raise InvalidArgument(f"a holder is {HOLDER_BYTES} bytes, not {shown(value)}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidArgument(f"expected a list of {what}, not {shown(value)}")
    return value


SIGNATURES: dict[str, Signature] = {
    "put": Signature((key_of, _value)),
    "insert": Signature((key_of, _value, _holder), optional=1),
    "setdefault": Signature((key_of, _value)),
    "pop": Signature((key_of,)),
    "popitem": Signature(()),
    "delete": Signature((key_of,)),
    "delete_many": Signature((_keys,)),
    "put_many": Signature((_pairs,)),
    "increment": Signature(
        (key_of, _field, _number, _number, _optional_number, _optional_number, _flag)
    ),
    "patch": Signature((key_of, _value)),
    "cas": Signature((key_of, _version, _value)),
    "clear": Signature(()),
    "upsert": Signature((key_of, _value, _time), optional=1),
    "store_patch": Signature((key_of, _value)),
    "clear_all": Signature(()),
    "delete_where": Signature((_filters,)),
    "declare": Signature((_indexes,)),
    "pin": Signature((key_of, _holder)),
}
"""By operation. A transaction, which has no place of its own, is checked apart."""
