"""The rivals by name, each in a file of its own, imported only where it is used."""

from __future__ import annotations

import importlib

from .base import NotAvailable, Rival

WHERE = {
    "dict": "plain_dict:PlainDict",
    "shmstore": "ours:Shmstore",
    "lmdb": "lightning:Lmdb",
    "lmdb, txn per get": "lightning:LmdbEach",
    "sqlite": "sqlite:Sqlite",
    "diskcache": "disk_cache:DiskCache",
    "Manager().dict()": "manager:ManagerDict",
    "redis": "redis_server:Redis",
    "memcached": "memcached:Memcached",
    "UltraDict": "ultra_dict:Ultra",
    "shared-memory-dict": "shared_dict:SharedDict",
    "EasyGlobals": "easy_globals:Easy",
    "gunicorn stash": "gunicorn_stash:Stash",
    "iceoryx2": "iceoryx:Blackboard",
}
"""Name -> module and class, in the order in which they are shown."""
OURS = "shmstore"
LIMIT = "dict"
"""What no store that is shared between processes can beat."""


def load(name: str) -> type[Rival]:
    """Return the adapter of this name. Raises NotAvailable if its package is not installed."""
    module, _, kind = WHERE[name].partition(":")
    try:
        found: type[Rival] = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    except ImportError as error:
        raise NotAvailable(f"{error}") from error
    return found


def survey(names: list[str]) -> tuple[dict[str, type[Rival]], dict[str, str]]:
    """Return the adapters of those that are here, and what is said of all of them."""
    found: dict[str, type[Rival]] = {}
    said: dict[str, str] = {}
    for name in names:
        try:
            rival = load(name)
            said[name] = rival.version()
            found[name] = rival
        except NotAvailable as error:
            said[name] = f"not available: {error}"
    return found, said
