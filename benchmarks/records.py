"""The records that everybody stores: made from a number alone, so that every run has the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

SEED = 20260711
STATUSES = ("enabled", "disabled", "pending", "failed")
RARE = "rare"
RARE_RECORDS = 10
"""How many records of a store have the status RARE, whatever its size: what a find returns."""
EPOCH = 1_700_000_000
SEQUENCE_MAX = 100_000
"""Longest sequence of random keys; it is walked again and again."""


def key_of(number: int) -> str:
    """Return the key of a record: 19 characters, as the ids of a store are."""
    return f"we_{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}"


def missing_key_of(number: int) -> str:
    """Return a key of the same shape that no record has."""
    return f"we_{number:015x}-"


def tiny(number: int) -> dict[str, Any]:
    """Return a record of 16 bytes as msgpack."""
    return {"status": "ok", "n": 1000 + number % 60_000}


def webhook(number: int) -> dict[str, Any]:
    """Return a record of about 160 bytes as msgpack: a webhook endpoint."""
    return {
        "id": key_of(number),
        "object": "webhook_endpoint",
        "created": EPOCH + number,
        "url": f"https://example.com/hooks/{number:07d}",
        "status": STATUSES[number % len(STATUSES)],
        "livemode": False,
        "failures": 0,
        "api_version": "2024-06-20",
    }


def nested(number: int) -> dict[str, Any]:
    """Return a record of about 4 KiB: an object with 25 smaller ones in it."""
    return {"status": STATUSES[number % 4], "items": [webhook(number + at) for at in range(26)]}


def blob(number: int) -> dict[str, Any]:
    """Return a record of 1 MiB: a few fields and a long piece of binary data."""
    return {"status": STATUSES[number % 4], "data": bytes((number % 251,)) * ((1 << 20) - 32)}


MAKERS = {"16 B": tiny, "160 B": webhook, "4 KiB": nested, "1 MiB": blob}


@dataclass(frozen=True)
class Dataset:
    """So many records of one kind; ``indexed`` ones are listed, counted and found by status."""

    records: int
    value: str = "160 B"
    indexed: bool = False

    def record(self, number: int) -> dict[str, Any]:
        """Return the record of this number."""
        record = MAKERS[self.value](number)
        if self.indexed and number % max(1, self.records // RARE_RECORDS) == 0:
            record["status"] = RARE
        return record

    def items(self, packed: bool, start: int = 0) -> Iterator[tuple[str, Any]]:
        """Yield (key, record); ``packed`` as msgpack bytes, for who stores Python objects."""
        for number in range(start, self.records):
            record = self.record(number)
            yield key_of(number), msgpack.packb(record) if packed else record

    def sequence(self, seed: int) -> list[int]:
        """Return numbers of records in random order: a shuffle of all, or many drawn at random."""
        chance = random.Random(seed)
        if self.records <= SEQUENCE_MAX:
            return chance.sample(range(self.records), self.records)
        return chance.choices(range(self.records), k=SEQUENCE_MAX)

    def value_bytes(self) -> int:
        """Return the size of a typical record as msgpack."""
        return len(msgpack.packb(self.record(self.records // 2 + 1)))

    def stored_bytes(self) -> int:
        """Return the bytes of all keys and values, about."""
        return self.records * (len(key_of(0)) + self.value_bytes())

    def __str__(self) -> str:
        return f"{self.records:,} x {self.value}{' indexed' if self.indexed else ''}"
