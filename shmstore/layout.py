"""The format of a segment, as data: offsets, sizes, bit fields and limits.

A segment is one file in memory. All numbers are little-endian 64-bit words at offsets that are
multiples of 8; blocks start at multiples of 16 (a *granule*) and are named by their granule
number, so that 36 bits address one tebibyte.

HEADER (offset, meaning; written once at creation unless said otherwise)

     0  magic                         8  format version
    16  capacity in bytes            24  unused
    32  segment id (16 bytes)        48  hash seed, then four secret words (40 bytes)

   128  F, the free clock           \\
   136  K, the committed sequence    |  one cache line, written by the writer alone
   144  R, the reuse horizon         |
   152  root: directory and depth   /
   160  N, the next insertion number
   168  E, the end of the memory that is allocated in extents

  4096  the heap: every other block

ROOT WORD          depth << 56 | granule of the directory
DIRECTORY          2**depth words, indexed by the top bits of the hash
DIRECTORY WORD     local depth << 56 | granule of an index segment
INDEX SEGMENT      512 words, linear probing from the low 9 bits of the hash
INDEX WORD         tag (28 bits of the hash) << 36 | granule of an entry; 0 empty, 1 vacated

ENTRY (immutable once committed, but for the death mark in ``prev``)

     0  value size (32 bits) | CRC-32 << 32 of everything but this field and ``prev``
     8  seq: the batch that wrote it
    16  prev: granule of the version it replaced (0: the word was empty, 1: vacated);
        or, with bit 63 set, the batch that deleted this entry
    24  insertion number (43 bits) | kind << 43 (4 bits) | key size << 47 (17 bits)
    32  scope: keyed hash of the (table, namespace) or of the list it belongs to; 0 for a pin
    40  key, then the sort word if the kind has one (unaligned), then the value
        (a value of 4 KiB or more starts at a multiple of 64)

LIST HEAD          an entry of kind HEAD whose value is: element count, then a node
NODE               width << 48 | level << 32 | elements, then the elements, sorted; a tree of
                   them (level 0 are the leaves) is an order list
ELEMENT            [sort word,] insertion number, payload: the record's hash in a leaf, the
                   granule of a child in an inner node; ``width`` words: two, or three if sorted

LIST NAME          size (8 bits) and UTF-8 of the table, the same of the namespace, then nothing
                   or the packed [field, value] of a secondary index
SORT WORD          ``created`` plus 2**63, so that unsigned comparison orders it

PIN                an entry of kind PIN without a value: the record at a granule is looked at, and
                   its block is not given up, whatever becomes of the record
PIN KEY            the holder: bytes that name a process; then the granule, in 8 bytes
"""

from __future__ import annotations

import hashlib

MAGIC = 0x31_45_52_4F_54_53_4D_48  # "HMSTORE1", read as a little-endian word
FORMAT_VERSION = 1

WORD_BYTES = 8
GRANULE_BYTES = 16
CACHE_LINE_BYTES = 64

# Header words, as indexes into the segment seen as 64-bit words.
MAGIC_WORD = 0
VERSION_WORD = 1
CAPACITY_WORD = 2
SEGMENT_ID_WORD = 4
SECRET_WORD = 6
SECRET_WORDS = 5
FREE_CLOCK_WORD = 16
COMMITTED_WORD = 17
HORIZON_WORD = 18
ROOT_WORD = 19
NEXT_INSERTION_WORD = 20
EXTENT_END_WORD = 21
HEAP_START = 4096

# Words that name a block.
GRANULE_BITS = 36
GRANULE_MASK = (1 << GRANULE_BITS) - 1
DEPTH_SHIFT = 56
CAPACITY_BYTES_MIN = 1 << 20
CAPACITY_BYTES_MAX = 1 << 40

# The index.
SEGMENT_SLOT_BITS = 9
SEGMENT_SLOTS = 1 << SEGMENT_SLOT_BITS
SEGMENT_BYTES = SEGMENT_SLOTS * WORD_BYTES
SEGMENT_USED_MAX = SEGMENT_SLOTS * 7 // 8
TAG_BITS = 28
TAG_MASK = (1 << TAG_BITS) - 1
DEPTH_MAX = 27
EMPTY = 0
VACATED = 1

# Entries.
ENTRY_HEADER_BYTES = 40
SEQ_FIELD = 1
PREV_FIELD = 2
SHAPE_FIELD = 3
SCOPE_FIELD = 4
DEAD = 1 << 63
INSERTION_BITS = 43
INSERTION_MASK = (1 << INSERTION_BITS) - 1
KIND_SHIFT = 43
KIND_MASK = 0xF
KEY_SIZE_SHIFT = 47
KEY_BYTES_MAX = 1 << 16
VALUE_BYTES_MAX = 1 << 30
ALIGNED_VALUE_BYTES_MIN = 4096
SORT_WORD_BYTES = 8

# Kinds of entries: two bits tell the class of the key, two are flags.
CLASS_HEAD = 0
CLASS_STR = 1
CLASS_BYTES = 2
CLASS_PIN = 3
CLASS_MASK = 3
KIND_GHOST = 4
"""A deleted record that left its position behind, for cursors."""
KIND_SORTED = 8
"""A sort word stands between key and value."""

# Pins.
PIN_SCOPE = 0
PIN_GRANULE_BYTES = 8
HOLDER_BYTES_MAX = 64

# Order lists.
NODE_ELEMENTS_MAX = 64
NODE_COUNT_MASK = (1 << 32) - 1
NODE_LEVEL_SHIFT = 32
NODE_LEVEL_MASK = 0xFFFF
NODE_WIDTH_SHIFT = 48
LEVELS_MAX = 12
SORT_BIAS = 1 << 63

# Bounds of what a reader does.
READ_TRIES_MAX = 64
READ_SECONDS_MAX = 0.25
VERSION_HOPS_MAX = 8
NAME_BYTES_MAX = 255

# The writer's memory.
EXTENT_BYTES = 1 << 20
EXTEND_BYTES_MAX = 64 << 20
QUARANTINE_BYTES = 1 << 20
QUARANTINE_DIVISOR = 16
"""On small segments the quarantine holds one part in so many, or it would fill them."""
RELEASES_PER_ALLOCATION_MAX = 32
RESERVE_DIVISOR = 32
"""One part in so many of the capacity is kept for deletes on a full store."""
RESERVE_BYTES_MAX = 1 << 20
GHOSTS_MAX = 1 << 16
GHOST_DIVISOR = 64
"""Ghosts take at most one part in so many of the capacity."""
GHOST_BYTES = 96
"""What a ghost is reckoned to take."""


def constants() -> dict[str, int | float]:
    """Return every figure of this file by its name, in the order of the file."""
    return {name: value for name, value in globals().items() if name.isupper()}


def digest() -> str:
    """Return 16 hexadecimal digits that are others as soon as a name or value above is.

    A compiled engine carries the digest of the file that it was made from.
    """
    lines = sorted(f"{name}={value}" for name, value in constants().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
