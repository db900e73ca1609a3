"""A mapping from keys to records. Imports point down:

deferred                       pipelines and transactions, which stand in for a client
table                          the mapping, with its mutations
reading; arguments             its reads, from memory; arguments checked before they are sent
views                          keys(), values(), items(), and the walks behind them
handles                        what tables and stores need of the thing they are bound to
"""

from .deferred import Pipeline, Reply, Transaction
from .table import RAISE, Table

__all__ = ["RAISE", "Pipeline", "Reply", "Table", "Transaction"]
