"""The orders of the memory protocol, checked by the scenarios in tests/models.

On the processors that most of us use no test of the engine itself finds a missing fence, since
they need none of these orders spelled out. Relacy plays what the language allows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_COMMAND = Path(__file__).parent.parent / "scripts" / "models"
_HEADER = Path("relacy", "relacy.hpp")


def _has_header() -> bool:
    places = ["/usr/include", "/usr/local/include", os.environ.get("RELACY", "")]
    return any(place and (Path(place) / _HEADER).is_file() for place in places)


needs_relacy = pytest.mark.skipif(
    not _has_header(), reason="the header relacy/relacy.hpp is not here: Debian package relacy-dev"
)
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler g++ is here: Debian package g++"
)


@needs_relacy
@needs_compiler
@pytest.mark.timeout(600)  # seven programs to compile, on a machine that may be busy
def test_every_dropped_order_is_caught_and_the_protocol_is_clean() -> None:
    done = subprocess.run([_COMMAND, "--quick"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.endswith("clean") for line in lines) >= 7
    assert not [line for line in lines if "SURVIVES" in line or "FAILS" in line]


def test_missing_tools_are_named() -> None:
    environment = {**os.environ, "CXX": "no-such-compiler"}
    done = subprocess.run([_COMMAND], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Debian package is g++" in done.stderr
