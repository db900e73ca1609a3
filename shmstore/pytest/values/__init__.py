"""Values of fixtures in the store: equal, and of the same types, in every process of a run.

Knows nothing of pytest. Imports point down:

keeping                        store, load, remove; store as a part of a transaction
rows; tabular                  large mappings and sequences, row by row; which values these are
parts                          where rows and buffers lie
dumping                        a value as bytes and buffers
culprit; exact; pickled        which part is at fault; Python's own types; all other objects
keys                           any key of a dict as a key of a table
survey; options; errors        what a value is made of; what may be chosen; what goes wrong
"""

from .errors import NotShareable, ValueGone
from .keeping import Loaded, Staged, Stored, fetch, load, remove, stage, store
from .options import Options
from .rows import SharedMapping, SharedSequence

__all__ = [
    "Loaded",
    "NotShareable",
    "Options",
    "SharedMapping",
    "SharedSequence",
    "Staged",
    "Stored",
    "ValueGone",
    "fetch",
    "load",
    "remove",
    "stage",
    "store",
]
