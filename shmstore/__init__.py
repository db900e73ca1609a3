"""An ETS for Python: one writer process owns a table in shared memory, everybody else reads it.

Floors, top to bottom; imports point down only:

    cli, commands, demo            the command line
    store, stores                  resources: ids, namespaces, finds and pages over a table
    server                         starting a server and keeping its writer alive
    client                         a server as any process sees it
    table                          a mapping; pipelines and transactions over mappings
    pipe                           a process's end of the pipe to the writer
    writer                         the process that changes the memory, and what it does there
    engine, pure, native; protocol the table in memory, read and written; messages of the pipe
    segment, codec, runtime        memory; records as bytes; where servers are found
    layout, errors, namespaces     the format as data; every error; the current namespace
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    CorruptSegment,
    FormatMismatch,
    InvalidArgument,
    InvalidKey,
    InvalidRecord,
    LimitReached,
    NameInUse,
    ProcessUnseen,
    ProtocolError,
    RecordNotFound,
    RecordTooLarge,
    RequestTimeout,
    ShmstoreError,
    StoreFull,
    StoreNotFound,
    UnknownCursor,
    WriterUnavailable,
)
from .namespaces import environment, namespace

if TYPE_CHECKING:
    from .client import Client, connect
    from .engine import Record
    from .server import Server, start
    from .store import Page, Store
    from .table import Pipeline, Reply, Table, Transaction

__all__ = [
    "Client",
    "CorruptSegment",
    "FormatMismatch",
    "InvalidArgument",
    "InvalidKey",
    "InvalidRecord",
    "LimitReached",
    "NameInUse",
    "Page",
    "Pipeline",
    "ProcessUnseen",
    "ProtocolError",
    "Record",
    "RecordNotFound",
    "RecordTooLarge",
    "Reply",
    "RequestTimeout",
    "Server",
    "ShmstoreError",
    "Store",
    "StoreFull",
    "StoreNotFound",
    "Table",
    "Transaction",
    "UnknownCursor",
    "WriterUnavailable",
    "connect",
    "environment",
    "namespace",
    "start",
]

# Imported when they are first asked for: a writer needs none of them, and is to start fast.
_HOMES = {
    "Client": "client",
    "connect": "client",
    "Record": "engine",
    "Server": "server",
    "start": "server",
    "Page": "store",
    "Store": "store",
    "Pipeline": "table",
    "Reply": "table",
    "Table": "table",
    "Transaction": "table",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
