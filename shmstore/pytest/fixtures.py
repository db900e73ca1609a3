"""The store of a run for tests: ``shm_client``, ``shm_table`` and ``shm_namespace``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .run import RUN

if TYPE_CHECKING:
    from ..client import Client
    from ..table import Table

TABLE = "shm_table"


@pytest.fixture(scope="session")
def shm_client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of the store of this run, which all its workers share; it ends with the run."""
    with request.config.stash[RUN].connect() as client:
        yield client


@pytest.fixture(scope="session")
def shm_table(shm_client: Client) -> Table:
    """A table that all workers of this run share, and may change: for counters and such.

    Nobody clears it: what a test leaves there the others see.
    """
    return shm_client.table(TABLE)


@pytest.fixture
def shm_namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace, current in the test and in the child processes it starts; its name.

    What the test stores in it, by way of stores bound to ``shm_client``, no other test sees. It is
    cleared afterwards, whatever the test comes to.
    """
    from ..namespaces import namespace

    run = request.config.stash[RUN]
    with namespace(f"test-{run.worker}-{os.urandom(8).hex()}") as name:
        try:
            yield name
        finally:
            if run.has_begun:
                _clear(run.client, name)


def _clear(client: Client, namespace: str) -> None:
    """Remove all records of all stores in a namespace."""
    from ..table import Table
    from ..table.views import walk
    from ..writer.catalogue import TABLE as CATALOGUE
    from ..writer.catalogue import TABLES

    tables: list[Any] = [name for name, _ in walk(client, CATALOGUE, TABLES)]
    for name in tables:
        if client.read("count", name, namespace):
            Table(client, name, namespace).clear()
