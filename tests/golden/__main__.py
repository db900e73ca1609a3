"""Write the golden segment of the present format to the file that is named."""

import gzip
import mmap
import sys
from pathlib import Path

from tests.golden import CAPACITY, build

with mmap.mmap(-1, CAPACITY) as memory:
    build(memory)
    Path(sys.argv[1]).write_bytes(gzip.compress(memory[:], 9, mtime=0))
