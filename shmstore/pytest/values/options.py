"""What may be chosen about how a value is shared."""

from __future__ import annotations

from typing import NamedTuple


class Options(NamedTuple):
    """How a value is shared. All have sane defaults."""

    name: str = "value"
    """What errors call the value: the name of the fixture."""
    as_table: bool | None = None
    """Whether to store a dict, list or tuple row by row; None decides by its size."""
    table_bytes: int = 1 << 20
    """From how many packed bytes on a dict, list or tuple of records is stored row by row."""
    pickle: bool = True
    """Whether what has no code of its own may be pickled."""
    buffer_bytes: int = 1 << 16
    """From how many bytes on a buffer, of an array for example, is viewed and not copied."""
