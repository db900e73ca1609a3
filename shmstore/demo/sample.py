"""The real records that the demo works on, and how each of them certifies itself."""

from __future__ import annotations

import json
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from shmstore.codec import pack

FILE = "packages.jsonl"
DIGEST_BYTES = 16

Record = dict[str, Any]


class SampleMissing(Exception):
    """The records are not where they should be."""


def find_sample() -> Path:
    """Return where the sample is: in the source tree, or where the installation put it.

    SampleMissing says what to do.
    """
    in_tree = Path(__file__).parents[2] / "benchmarks" / "data" / FILE
    if in_tree.is_file():
        return in_tree
    try:
        installed = [
            Path(str(file.locate())) for file in files("shmstore") or () if file.name == FILE
        ]
    except PackageNotFoundError:
        installed = []
    for path in installed:
        if path.is_file():
            return path
    raise SampleMissing(
        f"the demo's records are missing: neither {in_tree} nor an installed {FILE} is there; "
        f"run it from a clone of the repository, or install shmstore again"
    )


def load_sample() -> dict[str, Record]:
    """Return the records by package name, each certified as revision 0."""
    with find_sample().open(encoding="utf-8") as lines:
        records = map(json.loads, lines)
        return {record["package"]: certified(record, 0) for record in records}


def certified(record: Record, revision: int) -> Record:
    """Return a copy of ``record`` with this revision, and with the digest of all the rest."""
    body = {name: value for name, value in record.items() if name not in ("revision", "digest")}
    body["revision"] = revision
    return {**body, "digest": _digest(body)}


def is_whole(record: Record) -> bool:
    """Tell whether every byte of ``record`` is of one and the same revision."""
    body = {name: value for name, value in record.items() if name != "digest"}
    return record.get("digest") == _digest(body)


def _digest(body: Record) -> bytes:
    return blake2b(pack(body), digest_size=DIGEST_BYTES).digest()
