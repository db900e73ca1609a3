"""The resource pattern over a table. Imports point down:

store                          records with an id, in namespaces, listed and found
finding; page; resource; schema  finds; pages; what a resource declares; what the writer knows
form                           dicts or Structs
"""

from .page import Page
from .store import Records, Store

__all__ = ["Page", "Records", "Store"]
