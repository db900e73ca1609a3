"""The bars of the design, as ratios of figures that the experiments measure under these names."""

from __future__ import annotations

from .bar import Bar

HOT, RANDOM = "hot 1,000", "random 100 k"

BARS = [
    Bar("get_bytes / dict.get, hot keys", f"get_bytes, {HOT}", f"dict.get, {HOT}", "at most", 2.5),
    Bar(
        "get_bytes / dict.get, random keys",
        f"get_bytes, {RANDOM}",
        f"dict.get, {RANDOM}",
        "at most",
        3,
    ),
    *(
        Bar(
            f"LMDB, {how} / get_bytes, {keys}",
            f"lmdb {how}, {keys}",
            f"get_bytes, {keys}",
            "at least",
            limit,
        )
        for keys in (HOT, RANDOM)
        for how, limit in (("long txn", 2.5), ("txn per get", 4))
    ),
    *(
        Bar(
            f"get / msgpack.unpackb(dict[key]), {keys}",
            f"get, {keys}",
            f"unpackb(dict[key]), {keys}",
            "at most",
            1.15,
        )
        for keys in (HOT, RANDOM)
    ),
    *(
        Bar(
            f"LMDB, txn per get + unpackb / get, {keys}",
            f"lmdb decoded, {keys}",
            f"get, {keys}",
            "at least",
            1.4,
        )
        for keys in (HOT, RANDOM)
    ),
    Bar(
        't.record(k)["status"] / t.get(k)["status"]',
        f"record field, {HOT}",
        f"get field, {HOT}",
        "under",
        1 / 3,
    ),
    Bar(
        "decoded reads: writer saturated / idle",
        "reads per second, saturated",
        "reads per second, idle",
        "at least",
        0.9,
    ),
    Bar("retries of these reads, per 10,000", "retries", "busy reads / 10,000", "under", 1, ""),
    Bar(
        "two readers on two cores: shmstore's scaling / dict's",
        "scaling of get_bytes",
        "scaling of dict.get",
        "at least",
        0.95,
    ),
    Bar(
        "acknowledged put / bare ping-pong of the same bytes, a core each",
        "put",
        "ping-pong",
        "at most",
        1.5,
    ),
    Bar(
        "LMDB's puts in one txn / batched or pipelined puts",
        "lmdb puts in one txn",
        "best of batched and pipelined",
        "at least",
        1,
    ),
    Bar("Manager().dict() / get_bytes", "Manager bytes", "get_bytes, small", "at least", 100),
    Bar("Manager().dict() decoded / get", "Manager decoded", "get, small", "at least", 15),
    Bar("list(limit=10) / get, 100 k records", "list(limit=10)", "get beside list", "under", 100),
    Bar("count() / get, 100 k records", "count()", "get beside list", "under", 5),
    Bar("memory per record beyond key and value, 1 M", "overhead", None, "at most", 80, "bytes"),
    Bar("memory of a reader of 1 M records", "reader memory", None, "under", 2, "MB"),
    Bar("pure get_bytes / native get_bytes", "pure get_bytes", "native get_bytes", "at most", 40),
    Bar("growing to 1 M: p99.99 of a write", "write p99.99", None, "under", 10, "ms"),
    Bar("growing to 1 M: p99.99 of a read meanwhile", "read p99.99", None, "under", 10, "ms"),
]
