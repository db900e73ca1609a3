"""A process's end of the pipe to the writer. Imports point down:

windows                        views of values where they lie, as long as anybody has them
pipe                           requests and their results, waits, forks
line                           who receives for all threads; reconnection
attachment; courier            the segment that was mapped; who sends what was kept
connection                     bytes out, messages in
outstanding                    requests without an answer yet
"""

from .outstanding import Answer, check_timeout
from .pipe import Pipe

__all__ = ["Answer", "Pipe", "check_timeout"]
