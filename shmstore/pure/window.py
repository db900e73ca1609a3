"""Some bytes of a file, mapped for reading, and unmapped with the last view of them."""

from __future__ import annotations

import mmap
import sys
from typing import Any


def open_window(fd: int, offset: int, size: int) -> tuple[Any, int]:
    """Map some bytes; return what exports them, and where in it they begin.

    Nobody can write through that. It can be referred to weakly, and stays for as long as there is
    anything that was made of it. Errors: ``OSError``, ``ValueError`` if there can be no such bytes.
    """
    if offset < 0 or size < 1:
        raise ValueError("there are no such bytes")
    start = offset // mmap.PAGESIZE * mmap.PAGESIZE
    inside = offset - start
    # It keeps a descriptor of its own, unless Python can be told not to.
    options: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    pages = mmap.mmap(fd, inside + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=start, **options)
    return pages, inside
