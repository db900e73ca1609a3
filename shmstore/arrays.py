"""Arrays of numpy as records: a codec for ``Table.view``. Needs the extra ``shmstore[numpy]``.

An array is stored as an extension of msgpack with code 78, which holds a file of numpy's own
format, version 2.0, that ``numpy.load`` could read. Before that stands padding, its length in its
first byte, with which the file begins 64 bytes into the record, and the elements at a multiple of
64: so those of all but small arrays are aligned in memory, whatever the processor does with them.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

try:
    import numpy as np
except ImportError as error:
    raise ImportError("shmstore.arrays needs numpy: install shmstore[numpy]") from error

from .codec import Extension
from .errors import InvalidRecord

CODE = 78
_HEADS = {0xC7: 3, 0xC8: 4, 0xC9: 6}
"""How long the head of an extension is, by its first byte; its last one is the code."""
_START = 64
_SHORT_HEAD, _LONG_HEAD = 4, 6
_SHORT_BYTES_MAX = 0xFFFF
"""The longest extension that has a short head. Those below 256 bytes have a shorter one: small
arrays are not aligned anyhow."""
_PREFIX_BYTES = 12
"""What stands in a file before its header: magic, version, and the length of the header."""


def pack(array: np.ndarray[Any, Any]) -> Extension:
    """Return what stands for ``array`` in a record, or as one; it holds a copy.

    InvalidRecord for what is no plain array (a subclass, a scalar), for elements that are Python
    objects, and for names of fields that numpy would not read again.
    """
    if type(array) is not np.ndarray:
        raise InvalidRecord(f"a {type(array).__name__} is no plain array: give numpy.asarray of it")
    file = BytesIO()
    file.seek(_START)
    try:
        np.lib.format.write_array(file, array, version=(2, 0), allow_pickle=False)
    except ValueError as error:
        raise InvalidRecord(f"an array of {array.dtype} cannot be stored: {error}") from None
    is_short = file.tell() - _SHORT_HEAD <= _SHORT_BYTES_MAX
    head = _SHORT_HEAD if is_short else _LONG_HEAD
    data = file.getbuffer()[head:]
    data[0] = _START - head
    packed = Extension(CODE, bytes(data))
    unpack(packed)
    return packed


def unpack(packed: Extension | memoryview | bytes) -> np.ndarray[Any, Any]:
    """Return the array, read-only, over the memory of what was given: nothing is copied.

    Takes what ``pack`` returned, as records have it, and its msgpack, as a view shows it.
    InvalidRecord for anything else.
    """
    if isinstance(packed, Extension):
        code, data = packed.code, memoryview(packed.data)
    else:
        data = memoryview(packed)
        head = _HEADS.get(data[0], 0) if len(data) else 0
        code, data = data[head - 1] if 0 < head <= len(data) else None, data[head:]
    if code != CODE:
        raise InvalidRecord("this is no array: use arrays.unpack for what arrays.pack made")
    try:
        return _array(data[data[0] :])
    except Exception as error:  # of a damaged header numpy raises whatever its parsers do
        raise InvalidRecord(f"this is an array that numpy cannot read: {error}") from None


def _array(file: memoryview) -> np.ndarray[Any, Any]:
    header_bytes = int.from_bytes(file[8:_PREFIX_BYTES], "little")
    start = _PREFIX_BYTES + header_bytes
    header = BytesIO(file[:start])
    if np.lib.format.read_magic(header) != (2, 0):
        raise ValueError("its format is not version 2.0")
    shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(header)
    if dtype.hasobject:
        raise ValueError("its elements are addresses of Python objects")
    array: np.ndarray[Any, Any] = np.ndarray(
        shape, dtype, file, start, order="F" if is_fortran else "C"
    )
    return array
