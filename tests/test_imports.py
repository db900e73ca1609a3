"""What is imported when: a process pays for what it uses, above all a writer that is waited for."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import shmstore
from shmstore import engine, pure

SLOW = {"pathlib", "random", "subprocess", "tempfile"}
"""Modules of the standard library that take milliseconds each, and no writer needs."""
if engine.NAME == "native":
    SLOW |= {"dataclasses", "inspect", "platform"}


def loaded_by(statement: str, **variables: str) -> set[str]:
    """Return which modules a new interpreter has loaded for this statement, beyond its own."""
    program = f"import sys; own = set(sys.modules); {statement}; print(*set(sys.modules) - own)"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {program}"]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def names_for_type_checkers(module) -> set[str]:
    """Return what a package imports under TYPE_CHECKING."""
    tree = ast.parse(Path(module.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_a_writer_loads_what_it_needs():
    loaded = loaded_by("import shmstore.writer")
    assert "shmstore.writer.loop" in loaded
    assert not loaded & SLOW
    for part in ("client", "pipe", "server", "store", "table"):
        assert f"shmstore.{part}" not in loaded


def test_an_engine_that_was_not_chosen_is_not_loaded():
    assert "shmstore._native" not in loaded_by("import shmstore.writer", SHMSTORE_ENGINE="pure")
    if engine.NAME == "native":
        assert "shmstore.pure.owner" not in loaded_by("import shmstore.writer")


def test_the_package_itself_loads_little():
    loaded = loaded_by("import shmstore")
    assert {name for name in loaded if name.startswith("shmstore.")} == {
        f"shmstore.{part}" for part in ("errors", "fork_server", "keys", "layout", "namespaces")
    }


@pytest.mark.parametrize("module", [shmstore, pure])
def test_every_name_is_there_when_it_is_asked_for(module):
    assert names_for_type_checkers(module) == set(module._HOMES)
    assert set(module._HOMES) <= set(module.__all__) <= set(dir(module))
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_a_star_gives_all_names():
    given: dict[str, object] = {}
    exec("from shmstore import *", given)
    assert set(shmstore.__all__) <= set(given)


def test_what_comes_late_can_be_pickled():
    for name in ("Client", "Page", "Store", "Table", "connect", "start"):
        thing = getattr(shmstore, name)
        assert pickle.loads(pickle.dumps(thing)) is thing


def test_the_invariants_come_late():
    assert engine.INVARIANTS is pure.INVARIANTS
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(engine, "nothing")  # noqa: B009 - type checkers know that it is not there
