"""Make the sample of real records from a Debian package index: index in, JSON lines out.

The same index gives the same sample: every package that Debian calls required, important or
standard, then those whose names have the smallest SHA-256, until there are enough.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

RECORDS = 3000
NEEDED = {"Section", "Installed-Size", "Description"}
"""A few packages lack one of these; every record of the sample has all its fields."""
WANTED = {"required", "important", "standard"}


def stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Cut an index into stanzas: blank lines between them, leading space continues a field."""
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.isspace():
            if fields:
                yield fields
            fields = {}
        elif line[0].isspace():
            fields[name] += " " + line.strip()
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    if fields:
        yield fields


def words(field: str) -> list[str]:
    """Split a field of comma-separated entries."""
    return [word.strip() for word in field.split(",") if word.strip()]


def record(fields: dict[str, str]) -> dict[str, Any]:
    """Keep what a lookup would want, under one name and of one type in every record."""
    return {
        "package": fields["Package"],
        "version": fields["Version"],
        "section": fields["Section"],
        "priority": fields["Priority"],
        "architecture": fields["Architecture"],
        "installed_size": int(fields["Installed-Size"]),
        "size": int(fields["Size"]),
        "depends": words(fields.get("Depends", "")),
        "tags": words(fields.get("Tag", "")),
        "description": fields["Description"],
        "sha256": fields["SHA256"],
    }


def rank(entry: dict[str, Any]) -> tuple[bool, bytes]:
    """Sort the wanted before the others, and those in an order that means nothing."""
    name: str = entry["package"]
    return entry["priority"] not in WANTED, hashlib.sha256(name.encode()).digest()


def main() -> None:
    """Read an index from standard input and write the sample to standard output."""
    whole = (fields for fields in stanzas(sys.stdin) if fields.keys() >= NEEDED)
    entries = {entry["package"]: entry for entry in map(record, whole)}
    chosen = sorted(entries.values(), key=rank)[:RECORDS]
    for entry in sorted(chosen, key=lambda entry: str(entry["package"])):
        print(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    main()
