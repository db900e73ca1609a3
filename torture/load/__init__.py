"""A busy store whose processes are killed and stopped at random. Imports point down:

trial                          run(): rounds, then memory, then how long a restart takes
rounds                         one server with its workers, killed and stopped; the end of both
memory                         the same work again and again
starter                        the process that has the server
audit                          what must be in the store when nobody changes it
clients, readers               the workers
worker                         what all workers share: time limits, pauses, what they report
ledger                         words of memory in which workers say what they have begun and done
"""

from .trial import run

__all__ = ["run"]
