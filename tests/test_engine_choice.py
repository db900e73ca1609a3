"""Which engine runs, and what is said if it is not the one that was wanted.

Each choice is made in a process of its own, as it is made at import. A native engine that is
told from outside stands in for the compiled one: the choice is the same with and without one.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from shmstore import layout, pure
from shmstore.cli import main
from shmstore.engine import INVARIANTS

PRELUDE = """
import platform, sys, types

class Native(types.ModuleType):
    '''The pure engine by another name; DIFFERENT says what else is different.'''
    __file__ = "built.so"
    NAME = "native"
    def __getattr__(self, name):
        if name in DIFFERENT:
            if DIFFERENT[name] is None:
                raise AttributeError(name)
            return DIFFERENT[name]
        from shmstore import layout, pure
        return layout.digest() if name == "LAYOUT_DIGEST" else getattr(pure, name)

platform.machine = lambda: MACHINE
sys.modules["shmstore._native"] = Native("shmstore._native") if DIFFERENT is not None else None
import shmstore.engine as engine
print(engine.NAME, engine.Owner is engine.pure.Owner, engine.WHY_PURE, sep=", ")
"""
FITS: dict[str, str | None] = {}
ABSENT = None
STALE = {"LAYOUT_DIGEST": "0123456789abcdef"}
OLD = {"LAYOUT_DIGEST": None}
HALF = {"Owner": None, "Found": None}
REMEDY = "to get it, install a C compiler and Python's headers, then shmstore again"


def choose(
    demanded: str | None, different: dict[str, str | None] | None, machine: str = "x86_64"
) -> subprocess.CompletedProcess[str]:
    """Choose with SHMSTORE_ENGINE as it was demanded, and a native engine or None."""
    environment = {name: text for name, text in os.environ.items() if name != "SHMSTORE_ENGINE"}
    if demanded is not None:
        environment["SHMSTORE_ENGINE"] = demanded
    return subprocess.run(
        [sys.executable, "-c", f"DIFFERENT = {different}; MACHINE = {machine!r}\n{PRELUDE}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("demanded", [None, "", "native"])
def test_a_native_engine_that_fits_is_taken(demanded):
    ran = choose(demanded, FITS)
    assert (ran.stdout, ran.stderr) == ("native, True, None\n", "")


@pytest.mark.parametrize("native", [FITS, ABSENT, STALE])
def test_the_pure_engine_is_taken_where_it_is_demanded(native):
    ran = choose("pure", native)
    assert (ran.stdout, ran.stderr) == ("pure, True, None\n", "")


UNFIT = [
    pytest.param(ABSENT, "shmstore._native", id="absent"),
    pytest.param(STALE, "built.so was built for another format", id="stale"),
    pytest.param(OLD, "built.so was built for another format", id="without a digest"),
    pytest.param(HALF, "built.so lacks Found, Owner", id="half"),
]


@pytest.mark.parametrize("demanded", [None, ""])
@pytest.mark.parametrize(("native", "why"), UNFIT)
def test_one_that_does_not_fit_is_not_taken_and_the_reason_is_kept(demanded, native, why):
    ran = choose(demanded, native)
    assert ran.stdout.startswith("pure, True, the native engine cannot be used: ")
    assert why in ran.stdout
    assert REMEDY in ran.stdout
    assert ran.stderr == ""


@pytest.mark.parametrize(("native", "why"), UNFIT)
def test_one_that_does_not_fit_cannot_be_demanded(native, why):
    ran = choose("native", native)
    assert (ran.returncode, ran.stdout) == (1, "")
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("ImportError: the native engine cannot be used: ")
    assert why in last
    assert REMEDY in last


def test_what_is_no_engine_cannot_be_demanded():
    ran = choose("fast", FITS)
    assert (ran.returncode, ran.stdout) == (1, "")
    wanted = "ImportError: SHMSTORE_ENGINE must be 'pure', 'native' or unset, not 'fast'"
    assert ran.stderr.splitlines()[-1] == wanted


def test_the_pure_engine_alone_warns_of_other_processors():
    ran = choose("pure", FITS, machine="aarch64")
    assert "RuntimeWarning: the pure engine needs the memory order of x86" in ran.stderr
    assert choose("native", FITS, machine="aarch64").stderr == ""


def test_what_is_checked_is_the_same_for_both_engines():
    assert INVARIANTS is pure.INVARIANTS


@pytest.mark.parametrize("name", ["FORMAT_VERSION", "GHOST_BYTES", "READ_SECONDS_MAX"])
def test_the_digest_is_of_every_figure(name, monkeypatch):
    before = layout.digest()
    monkeypatch.setattr(layout, name, getattr(layout, name) + 1)
    assert layout.digest() != before


class TestWarning:
    """The commands that show figures say so if the slower engine runs, and why."""

    @pytest.fixture
    def why(self, monkeypatch) -> str:
        monkeypatch.setattr("shmstore.commands.outcome.WHY_PURE", "it rains")
        return "shmstore: warning: the pure engine runs, which is slower: it rains\n"

    def test_stats_warns_once(self, server, why, capsys):
        assert main(["stats", server.address]) == 0
        assert capsys.readouterr().err == why

    def test_demo_warns_once(self, why, monkeypatch, capsys):
        monkeypatch.setattr("shmstore.demo.run", lambda *_: True)
        assert main(["demo"]) == 0
        assert capsys.readouterr().err == why

    def test_other_commands_do_not_warn(self, server, why, capsys):
        assert main(["check", server.address]) == 0
        assert capsys.readouterr().err == ""
