"""What each operation of the protocol does to the engine: the meaning of every mutation.

All of it only stages; the writer commits or aborts. Nothing here reads a clock, a random number or
the environment, so equal operations on equal segments give equal segments.

An operation acts in a place, a (table, namespace). The namespace "" holds plain records of any
shape. Every other namespace belongs to a store: its records are mappings with an ``id``, which is
their key, and ``created``, and stand in the lists of the indexes declared for the table. A store
that was never declared is declared, without indexes, by the first record put into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..codec import canonical_packed, index_name_packed, join_map, pack
from ..engine import Found, Owner
from ..errors import InvalidArgument, ShmstoreError, rebuild
from ..keys import Key, missing, shown
from .border import Place, checked, checked_transaction
from .catalogue import Catalogue, walk
from .fields import (
    Number,
    added,
    check_patch,
    completed,
    created_of,
    field_name,
    fields_of,
    index_names,
    matches,
    number_of,
    patched,
)
from .ties import Ties


class Operations:
    """The operations on the segment that ``owner`` writes; writer process only.

    The methods are named as the operations and take arguments that ``border`` has checked. Of what
    they raise, StoreFull and what a transaction raises may leave the batch half done; all else
    leaves it as it was, though a writer does better to ask ``owner.changes``.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._catalogue = Catalogue(owner)
        self._ties = Ties(owner)

    def apply(self, operation: object, arguments: object) -> Any:
        """Stage one operation and return its result, which can travel.

        Takes whatever a client may send and raises nothing but kinds of ShmstoreError.
        """
        if operation == "transaction":
            return self._transaction(arguments)
        name, values = checked(operation, arguments)
        return getattr(self, name)(*values)

    def _transaction(self, operations: object) -> list[Any]:
        """Stage several operations; return their results in order.

        The error of one carries its ``position``, counted from 0, in its details.
        """
        prepared = [
            (operation, *_at(position, operation, checked, operation, arguments))
            for position, (operation, arguments) in enumerate(checked_transaction(operations))
        ]
        return [
            _at(position, operation, getattr(self, name), *values)
            for position, (operation, name, values) in enumerate(prepared)
        ]

    # Records of any place

    def put(self, place: Place, key: Key, value: bytes) -> int:
        """Insert or replace a record; return its version."""
        return self._write(place, key, value)

    def put_many(self, place: Place, pairs: list[tuple[Key, bytes]]) -> int:
        """Insert or replace records; return their version."""
        for key, value in pairs:
            self._write(place, key, value)
        return self._owner.committed + 1 if pairs else self._owner.committed

    def insert(
        self, place: Place, key: Key, value: bytes, holder: bytes | None = None
    ) -> int | None:
        """Insert a record; return its version, or None if there is one already.

        With a ``holder`` it is there for as long as that at most.
        """
        if holder is not None:
            self._ties.check(holder)
        if self._owner.find(*place, key):
            return None
        version = self._write(place, key, value)
        if holder is not None:
            self._ties.add(holder, place, key)
        return version

    def setdefault(self, place: Place, key: Key, value: bytes) -> list[Any]:
        """Insert a record unless there is one; return [whether inserted, what is there now]."""
        found = self._owner.find(*place, key)
        if found:
            return [False, found.value]
        self._write(place, key, value)
        return [True, value]

    def cas(self, place: Place, key: Key, version: int, value: bytes) -> int | None:
        """Replace a record of this version, 0 for none; return the new version or None."""
        found = self._owner.find(*place, key)
        if version != (found.version if found else 0):
            return None
        return self._write(place, key, value, found)

    def pop(self, place: Place, key: Key) -> bytes | None:
        """Remove a record and return it, or None."""
        found = self._owner.find(*place, key)
        if found is None:
            return None
        self._remove(place, key, found)
        return found.value

    def popitem(self, place: Place) -> list[Any] | None:
        """Remove the last record and return [key, record]; None if there is none.

        The last is the one inserted last; in a store it is the newest.
        """
        items = self._owner.chunk(*place, b"", None, 1, True)
        if not items:
            return None
        key, value = items[0][:2]
        self._remove(place, key)
        return [key, value]

    def delete(self, place: Place, key: Key) -> bool:
        """Remove a record; tell whether there was one."""
        return self._remove(place, key)

    def delete_many(self, place: Place, keys: list[Key]) -> int:
        """Remove records; return how many there were."""
        return sum(self._remove(place, key) for key in keys)

    def clear(self, place: Place) -> int:
        """Remove all records of a place; return how many there were."""
        names: set[bytes] = set()
        indexes = self._indexes(place)
        if indexes:
            for _, value, *_ in walk(self._owner, place):
                names.update(index_names(fields_of(value), indexes))
        count = self._owner.clear(*place, sorted(names))
        if count:
            self._catalogue.left(place)
        return count

    def increment(
        self,
        place: Place,
        key: Key,
        field: str | None,
        by: Number,
        default: Number,
        wrap_at: Number | None,
        reset_to: Number | None,
        must_exist: bool,
    ) -> Number:
        """Add to a number, the record or one field of it, and return the sum.

        A missing field counts as ``default``; so does a missing record, which is then made, unless
        it ``must_exist`` (RecordNotFound) as a store's record must. See ``fields.added``.
        """
        found = self._owner.find(*place, key)
        if found is None and (must_exist or place.namespace):
            raise missing(key, *place)
        if place.namespace and field is not None:
            check_patch({field_name(field): b""})
        if field is None:
            start = number_of(found.value, "the record") if found else default
            total = added(start, by, wrap_at, reset_to)
            self._write(place, key, pack(total), found)
            return total
        fields = fields_of(found.value) if found else {}
        value = fields.get(field_name(field))
        start = default if value is None else number_of(value, f"field {shown(field)}")
        total = added(start, by, wrap_at, reset_to)
        fields[field_name(field)] = pack(total)
        self._write(place, key, join_map(fields), found)
        return total

    def patch(self, place: Place, key: Key, changes: bytes) -> bool:
        """Set fields of a record that is a mapping; tell whether there is a record."""
        changed = fields_of(changes, "the patch")
        found = self._owner.find(*place, key)
        if found is None:
            return False
        if place.namespace:
            check_patch(changed)
        self._write(place, key, join_map({**fields_of(found.value), **changed}), found)
        return True

    def pin(self, place: Place, key: Key, holder: bytes) -> list[int] | None:
        """Keep the value of a record where it lies for as long as the holder wants it; return
        [granule, offset, size, version], or None if there is no record."""
        self._ties.check(holder)
        pinned = self._owner.pin(holder, *place, key)
        return None if pinned is None else list(pinned)

    # Records of stores

    def upsert(self, place: Place, key: Key, value: bytes, now: int | None = None) -> int:
        """Insert or replace a store's record; return its ``created``.

        A missing ``object`` or ``created`` is taken from the record it replaces, else ``created``
        is ``now``, the client's time.
        """
        self._check_store(place)
        fields = fields_of(value)
        found = self._owner.find(*place, key)
        if completed(fields, fields_of(found.value) if found else None, now):
            value = join_map(fields)
        self._write(place, key, value, found)
        return created_of(fields, key)

    def store_patch(self, place: Place, key: Key, changes: bytes) -> bytes | None:
        """Set fields of a store's record and return it as it is now; None if there is none.

        Id, object and created never change. Metadata is merged; "" deletes a key of it.
        """
        self._check_store(place)
        changed = fields_of(changes, "the patch")
        check_patch(changed)
        found = self._owner.find(*place, key)
        if found is None:
            return None
        value = join_map(patched(fields_of(found.value), changed))
        self._write(place, key, value, found)
        return value

    def delete_where(self, place: Place, filters: list[tuple[str, bytes]]) -> int:
        """Remove the records that have all these values; return how many there were.

        Uses the index that leaves the fewest to look at, if one of the fields has any.
        """
        wanted = {field_name(field): canonical_packed(value) for field, value in filters}
        indexes = self._indexes(place)
        names = [index_name_packed(field, value) for field, value in filters if field in indexes]
        name = min(names, key=lambda name: self._owner.count(*place, name), default=b"")
        count = 0
        for key, value, *_ in walk(self._owner, place, name):
            if matches(value, wanted):
                count += self._remove(place, key)
        return count

    def clear_all(self, place: Place) -> int:
        """Remove the records of all namespaces of a store; return how many there were."""
        return sum(self.clear(used) for used in self._catalogue.places(place.table))

    def declare(self, place: Place, indexes: list[str]) -> None:
        """Make the table a store with at least these indexes.

        New ones are filled from the records there are.
        """
        new = self._catalogue.declare(place.table, indexes)
        for used in self._catalogue.places(place.table) if new else ():
            for key, value, *_ in walk(self._owner, used):
                names = index_names(fields_of(value), new)
                if names:
                    self._owner.reindex(*used, key, (), names)

    # What all of them do

    def _write(self, place: Place, key: Key, value: bytes, found: Found | None = None) -> int:
        """Insert or replace a record; ``found`` is what is there, where it is known."""
        if place.namespace:
            version, inserted = self._write_to_store(place, key, value, found)
        else:
            version, inserted = self._owner.put(*place, key, value)
        if inserted and self._owner.count(*place) == 1:
            self._catalogue.entered(place)
        return version

    def _write_to_store(
        self, place: Place, key: Key, value: bytes, found: Found | None
    ) -> tuple[int, bool]:
        fields = fields_of(value, "a store's record")
        created = created_of(fields, key)
        indexes = self._catalogue.indexes(place.table)
        if indexes is None:
            self._catalogue.declare(place.table, [])
        if not indexes:
            return self._owner.put(*place, key, value, created)
        found = found or self._owner.find(*place, key)
        old_names = index_names(fields_of(found.value), indexes) if found else ()
        new_names = index_names(fields, indexes)
        return self._owner.put(*place, key, value, created, old_names, new_names)

    def _remove(self, place: Place, key: Key, found: Found | None = None) -> bool:
        names: list[bytes] = []
        indexes = self._indexes(place)
        if indexes:
            found = found or self._owner.find(*place, key)
            if found is None:
                return False
            names = index_names(fields_of(found.value), indexes)
        removed = self._owner.remove(*place, key, names, bool(place.namespace))
        if removed and not self._owner.count(*place):
            self._catalogue.left(place)
        return removed

    def _indexes(self, place: Place) -> tuple[str, ...]:
        return (self._catalogue.indexes(place.table) or ()) if place.namespace else ()

    def _check_store(self, place: Place) -> None:
        if not place.namespace:
            raise InvalidArgument("a store's records live in a namespace; name one")


def _at(position: int, operation: object, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function; an error it raises says which operation of a transaction it was."""
    try:
        return function(*arguments)
    except ShmstoreError as error:
        raise rebuild(
            error.code,
            f"operation {position} of the transaction ({shown(operation)}): {error.message}",
            {**error.details, "position": position},
        ) from error
