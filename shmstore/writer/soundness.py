"""Whether all that is committed is sound: the segment, and the catalogue and indexes in it.

The engine checks its structures; that an index says what the records say only who knows fields
can tell. Writer process only.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..engine import INVARIANTS as SEGMENT_INVARIANTS
from ..engine import Owner
from ..errors import ShmstoreError
from .border import Place
from .catalogue import TABLE, TABLES, Catalogue, walk
from .fields import fields_of, index_names
from .ties import HOLDERS, Ties

INVARIANTS = (
    *SEGMENT_INVARIANTS,
    "each table and namespace in the catalogue holds records, or is a declared store",
    "each index list of a store holds the records that have its value, in their order",
    "each pin and each tie is that of a known holder",
)


def check(owner: Owner) -> list[str]:
    """Return what is wrong, in words; nothing if all is well. The open batch must be empty.

    Costs a walk over everything.
    """
    problems = owner.check()
    if problems:
        return problems
    try:
        return [*_check_catalogue(owner), *_check_holders(owner)]
    except ShmstoreError as error:
        return [f"the walk over the stores ended: {error}"]


def _check_holders(owner: Owner) -> Iterator[str]:
    known = {item[0] for item in walk(owner, Place(TABLE, HOLDERS))}
    for holder, granule, _ in owner.pins():
        if holder not in known:
            yield f"the pin of the value at granule {granule} is that of no known holder"
    for tie in Ties(owner).all():
        if tie.holder not in known:
            yield f"the tie of {tie.key!r} in table {tie.place.table!r} is that of no known holder"


def _check_catalogue(owner: Owner) -> Iterator[str]:
    catalogue = Catalogue(owner)
    for item in walk(owner, Place(TABLE, TABLES)):
        table = str(item[0])
        indexes = catalogue.indexes(table)
        if indexes is None and not owner.count(table, ""):
            yield f"table {table!r} is in the catalogue and holds nothing"
        for place in catalogue.places(table) if indexes is not None else ():
            if not owner.count(*place):
                yield f"namespace {place.namespace!r} of store {table!r} holds nothing"
            yield from _check_indexes(owner, place, indexes or ())


def _check_indexes(owner: Owner, place: Place, indexes: tuple[str, ...]) -> Iterator[str]:
    expected: dict[bytes, list[object]] = {}
    for key, value, *_ in walk(owner, place):
        for name in index_names(fields_of(value), indexes):
            expected.setdefault(name, []).append(key)
    for name, keys in expected.items():
        listed = [item[0] for item in walk(owner, place, name)]
        if listed != keys or owner.count(*place, name) != len(keys):
            yield (
                f"index {name!r} of store {place.table!r} in {place.namespace!r} has "
                f"{len(listed)} records, {len(keys)} have its value"
            )
