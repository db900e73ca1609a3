"""The reference engine, in plain Python. Imports point down:

    owner; view                    the writer's batches; lookups by key, the base of a table
    check                          every invariant
    recovery; lists; pins          taking over a dead writer's segment; the lists a batch changed;
                                   who looks at which block
    staging; reader                the open batch; lookups in one snapshot, from any process
    lookup                         the ways through the memory, inside a reader's window
    index; order                   from a hash to an entry; records by position
    heap; free; pinned             blocks, and the quarantine of those just given up; those that
                                   are not given up
    records; clock; hashing        entries; F, K and R; the keyed hash
    record; wire                   what is stored, decoded where it is touched; no short cuts
    window                         bytes that are mapped for as long as somebody looks at them

Racing memory is loaded and stored as aligned 8-byte words through a memoryview; CPython emits
plain moves for these and no fence, which x86 orders as the protocol needs and others do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..codec import pack
    from .check import INVARIANTS, check_segment
    from .owner import Found, Owner
    from .reader import Reader, is_formatted
    from .record import Record, RecordArray, field_of, record_of
    from .view import View
    from .window import open_window
    from .wire import quick_answers, quick_frame, quick_messages, quick_pairs, quick_tree

__all__ = [
    "INVARIANTS",
    "NAME",
    "Found",
    "Owner",
    "Reader",
    "Record",
    "RecordArray",
    "View",
    "check_segment",
    "field_of",
    "is_formatted",
    "open_window",
    "pack",
    "quick_answers",
    "quick_frame",
    "quick_messages",
    "quick_pairs",
    "quick_tree",
    "record_of",
]

NAME = "pure"

# Imported when they are first asked for: where the native engine runs, nobody asks for most.
_HOMES = {
    "INVARIANTS": ".check",
    "Found": ".owner",
    "Owner": ".owner",
    "Reader": ".reader",
    "Record": ".record",
    "RecordArray": ".record",
    "View": ".view",
    "check_segment": ".check",
    "field_of": ".record",
    "is_formatted": ".reader",
    "open_window": ".window",
    "pack": "..codec",
    "quick_answers": ".wire",
    "quick_frame": ".wire",
    "quick_messages": ".wire",
    "quick_pairs": ".wire",
    "quick_tree": ".wire",
    "record_of": ".record",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
