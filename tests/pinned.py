"""A plugin for suites that tests run: ``@pytest.mark.on("gw1")`` has a test run by that worker.

Tests without the mark go to gw0. Each worker gets its tests in the order of collection, and at once
the order to end after them. The tests of a worker that died go to the one that replaces it; tests
of a worker that is not there yet wait for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

FILE = ".pins"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on(worker): have this worker run the test")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down which worker is to run what, for the controller, which sees no marks."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        marks = {item.nodeid: item.get_closest_marker("on") for item in session.items}
        pins = {name: mark.args[0] if mark else "gw0" for name, mark in marks.items()}
        path = session.config.rootpath / FILE
        written = path.with_suffix(f".{worker}")
        written.write_text(json.dumps(pins))
        written.replace(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> PinnedScheduling:
    return PinnedScheduling(len(config.getvalue("tx")), config.rootpath / FILE)


class PinnedScheduling:
    """What xdist asks of a scheduler; indices stand for tests."""

    def __init__(self, workers: int, pins: Path) -> None:
        self._workers = workers
        self._pins = pins
        self._collections: dict[Any, Sequence[str]] = {}
        self._unsent: dict[int, str] = {}
        self._sent: dict[Any, list[int]] = {}
        self._has_begun = False

    @property
    def nodes(self) -> list[Any]:
        return list(self._sent)

    @property
    def collection_is_completed(self) -> bool:
        return self._has_begun or len(self._collections) >= self._workers

    @property
    def has_pending(self) -> bool:
        return bool(self._unsent) or any(self._sent.values())

    @property
    def tests_finished(self) -> bool:
        return self._has_begun and not self.has_pending

    def add_node(self, node: Any) -> None:
        self._sent[node] = []

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        self._collections[node] = collection

    def schedule(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            [names, *_] = self._collections.values()
            pins = json.loads(self._pins.read_text())
            self._unsent = {index: pins[name] for index, name in enumerate(names)}
        for node in self._collections:
            own = [index for index, worker in self._unsent.items() if worker == node.gateway.id]
            if own:
                node.send_runtest_some(own)
                self._sent[node].extend(own)
                for index in own:
                    del self._unsent[index]
            if not node.shutting_down:
                node.shutdown()

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        self._sent[node].remove(item_index)

    def mark_test_pending(self, item: str) -> None:
        raise NotImplementedError

    def remove_pending_tests_from_node(self, node: Any, indices: Sequence[int]) -> None:
        raise NotImplementedError

    def remove_node(self, node: Any) -> str | None:
        """Return the test that a worker was at; the others are for the next worker."""
        pending = self._sent.pop(node)
        collection = self._collections.pop(node, ())
        if not pending:
            return None
        crashed, *rest = pending
        successor = f"gw{self._workers}"
        self._workers += 1
        self._unsent.update(dict.fromkeys(rest, successor))
        return collection[crashed]
