"""The C header of the format says what layout.py says, and the script notices if not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shmstore import layout

ROOT = Path(__file__).parent.parent
SCRIPT = "scripts/gen_layout_h.py"
HEADER = "shmstore/native/layout.h"
HEADER_TEXT = (ROOT / HEADER).read_text()


def generate(root: Path, *arguments: str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, root / SCRIPT, *arguments], capture_output=True, text=True, check=False
    )
    assert ran.stdout == ""
    return ran.returncode, ran.stderr


@pytest.fixture
def copy(tmp_path) -> Path:
    for name in (SCRIPT, HEADER, "shmstore/layout.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_header_has_every_figure_of_the_format():
    defined = re.findall(r"#define ([A-Z_0-9]+) (?:UINT64_C\()?([^\s)]+)", HEADER_TEXT)
    figures = {
        name: float(figure) if "." in figure else int(figure, 0)
        for name, figure in defined
        if name != "LAYOUT_DIGEST"
    }
    assert figures == layout.constants()
    assert f'#define LAYOUT_DIGEST "{layout.digest()}"\n' in HEADER_TEXT


def test_what_no_int_holds_is_unsigned_and_of_64_bits():
    wide = {name for name, value in layout.constants().items() if value > 0x7FFFFFFF}
    assert "DEAD" in wide
    assert set(re.findall(r"#define (\w+) UINT64_C\(", HEADER_TEXT)) == wide


def test_the_header_in_the_tree_is_up_to_date():
    assert generate(ROOT, "--check") == (0, "")


def test_another_figure_makes_the_header_stale_until_it_is_generated(copy):
    figures = copy / "shmstore/layout.py"
    figures.write_text(figures.read_text().replace("GHOST_BYTES = 96", "GHOST_BYTES = 104"))
    status, said = generate(copy, "--check")
    assert status == 1
    assert said == (
        "shmstore/native/layout.h does not say what shmstore/layout.py says: "
        "run python3 scripts/gen_layout_h.py\n"
    )
    assert (copy / HEADER).read_text() == HEADER_TEXT
    assert generate(copy) == (0, "")
    assert "#define GHOST_BYTES 104\n" in (copy / HEADER).read_text()
    assert generate(copy, "--check") == (0, "")


def test_a_missing_header_is_stale(copy):
    (copy / HEADER).unlink()
    assert generate(copy, "--check")[0] == 1
