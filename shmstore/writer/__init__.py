"""The writer process: it alone changes the segment. Imports point down:

process                        the process itself: takes the segment over, serves it, ends
loop                           one turn: hear all clients, apply, commit, answer
batch; inquiries; peer         group commit; what changes nothing; one client's connection
holders; waits                 processes whose end is watched for; who waits for which record
operations; sessions; soundness  what each mutation means; exactly once; what check() says
ties                           records that go with a process
catalogue; fields              which tables and stores there are; packed records taken apart
border                         where foreign arguments are checked
trouble                        what the writer says of its own trouble
"""

from .process import EXIT_REFUSED, main, stand_by

__all__ = ["EXIT_REFUSED", "main", "stand_by"]
