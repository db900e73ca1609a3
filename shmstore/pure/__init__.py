"""The reference engine, in plain Python.

``clock`` (F, K, R) < ``hashing`` < ``records`` (entries) < ``heap`` (blocks), ``index`` (words),
``order`` (lists) < ``reader`` (any process), ``owner`` (the writer), ``recovery``, ``check``.

Racing memory is loaded and stored as aligned 8-byte words through a memoryview; CPython emits
plain moves for these and no fence, which x86 orders as the protocol needs and others do not.
"""

from .check import INVARIANTS, check_segment
from .owner import Found, Owner
from .reader import Reader, is_formatted

__all__ = ["INVARIANTS", "Found", "Owner", "Reader", "check_segment", "is_formatted"]
