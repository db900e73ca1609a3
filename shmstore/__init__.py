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

from .client import Client, connect
from .engine import Record
from .errors import (
    CorruptSegment,
    FormatMismatch,
    InvalidArgument,
    InvalidKey,
    InvalidRecord,
    NameInUse,
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
    "NameInUse",
    "Page",
    "Pipeline",
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
