"""A segment of each format there was, as its writer left it, and what is in it.

A file is made once, by ``python -m tests.golden FILE``, when a format is new, and never again:
that later releases still read it is what it is for.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from shmstore.codec import index_name, pack
from shmstore.pure import Owner

HERE = Path(__file__).parent
FILES = {1: HERE / "format-1.segment.gz"}
CAPACITY = 1 << 20
ENABLED = index_name("status", "enabled")
DISABLED = index_name("status", "disabled")

Item = list[Any]


def plain_records() -> dict[str | bytes, bytes]:
    """The records of the plain table, in order."""
    records: dict[str | bytes, bytes] = {
        f"k{i}": pack({"n": i, "text": "é" * i}) for i in range(70)
    }
    records[b"k1"] = pack(b"the key is bytes")
    records[""] = pack(None)
    records["large"] = pack("x" * 5000)
    records["k" * 300] = pack([1.5, -(2**63), 2**64 - 1])
    del records["k3"]
    return records


def store_records(namespace: str) -> list[dict[str, Any]]:
    """The records of the store, oldest first."""
    records = [
        {
            "id": f"we_{i}",
            "created": 1_700_000_000 + i // 3,
            "status": ("enabled", "disabled")[i % 2],
        }
        for i in range(12)
    ]
    return (
        [record for record in records if record["id"] != "we_5"]
        if namespace == "a"
        else records[:2]
    )


def build(memory: mmap.mmap) -> None:
    """Fill the segment, in several batches, with all that a format has."""
    owner = Owner.create(memory, lambda *_: None, lambda *_: None)
    owner.put("plain", "", "k3", b"")
    for key, value in plain_records().items():
        owner.put("plain", "", key, b"\xc0")
        owner.put("plain", "", key, value)
    owner.commit()
    for namespace in ("a", "b"):
        for i in range(12 if namespace == "a" else 2):
            record = {"id": f"we_{i}", "created": 1_700_000_000 + i // 3}
            record["status"] = ("enabled", "disabled")[i % 2]
            index = (ENABLED, DISABLED)[i % 2]
            owner.put(
                *("store", namespace, str(record["id"]), pack(record)),
                *(1_700_000_000 + i // 3, (), (index,)),
            )
        owner.commit()
    owner.remove("plain", "", "k3")
    owner.remove("store", "a", "we_5", (DISABLED,), ghost=True)
    owner.put("plain", "", "k10", plain_records()["k10"])
    owner.commit()
    # A batch that its writer did not live to commit: the words are there, the sequence is not.
    owner.put("plain", "", "never", pack("committed"))
    owner.put("plain", "", "k11", pack("neither"))
    owner.remove("plain", "", "k12")
    owner._lists.seal()
    owner._staging._bury(owner.committed + 1)
    owner._staging.index.publish()
    owner.close()
