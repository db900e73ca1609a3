"""Any set of processes is killed, in any order, at any moment: nothing is left behind.

trial                          run(): all orders of all sets, then moments at random
scene                          a server with its programs, what strikes them, what is left
actors                         the programs: who starts the server, who uses it
traces                         what /proc and the runtime directory show
"""

from .trial import ORDERS, SETS, play, run

__all__ = ["ORDERS", "SETS", "play", "run"]
