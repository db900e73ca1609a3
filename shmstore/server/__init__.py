"""Starting a server and keeping its writer alive. Imports point down:

server                         start(): the name, the memory, the handle
supervisor                     the thread that starts the writer again when it dies
child                          the writer as a child process
"""

from .server import Server, start

__all__ = ["Server", "start"]
