"""Generate the C header of the format, shmstore/native/layout.h, from shmstore/layout.py.

    python3 scripts/gen_layout_h.py           write the header
    python3 scripts/gen_layout_h.py --check   only say whether it is up to date

Needs nothing but Python: the format is loaded as a file, not with its package.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
FORMAT = ROOT / "shmstore/layout.py"
HEADER = ROOT / "shmstore/native/layout.h"
INT_MAX = (1 << 31) - 1

TOP = """\
/* The format of a segment as C constants; shmstore/layout.py says what they mean.
   Generated from it by scripts/gen_layout_h.py: change that file, then run the script. */

#ifndef SHMSTORE_LAYOUT_H
#define SHMSTORE_LAYOUT_H

#include <stdint.h>
"""


def load_format() -> ModuleType:
    """Run layout.py as a module of its own."""
    spec = spec_from_file_location("layout", FORMAT)
    assert spec is not None
    assert spec.loader is not None
    layout = module_from_spec(spec)
    spec.loader.exec_module(layout)
    return layout


def literal(value: int | float) -> str:
    """Write a number as C does: what an int may not hold is 64 bits wide, and unsigned."""
    if isinstance(value, int) and value > INT_MAX:
        return f"UINT64_C({value:#x})"
    return repr(value)


def header(layout: ModuleType) -> str:
    """Return the text of the header."""
    lines = [f"#define {name} {literal(value)}" for name, value in layout.constants().items()]
    mark = f'#define LAYOUT_DIGEST "{layout.digest()}"'
    return "\n".join([TOP, *lines, "", mark, "", "#endif", ""])


def main() -> int:
    """Write the header, or compare it; return the exit status."""
    parser = argparse.ArgumentParser(description="Generate shmstore/native/layout.h.")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    text = header(load_format())
    if not parser.parse_args().check:
        HEADER.write_text(text)
        return 0
    if HEADER.is_file() and HEADER.read_text() == text:
        return 0
    print(
        f"{HEADER.relative_to(ROOT)} does not say what shmstore/layout.py says: "
        "run python3 scripts/gen_layout_h.py",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
