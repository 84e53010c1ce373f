"""How each service of a run serves: on a socket that it inherits, for as long as the process that started it lives."""

import os
import socket
import sys
import threading

from cheroot import wsgi


def die_with_parent() -> None:
    """End this process when its standard input closes, which the kernel sees to however the parent ends."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


class InheritingServer(wsgi.Server):
    """Serves on a socket that was bound before this process began, so that no port is lost to another run."""

    def __init__(self, descriptor: int, app: object, *, threads: int) -> None:
        self.inherited = socket.socket(fileno=descriptor)
        super().__init__(self.inherited.getsockname(), app, numthreads=threads, request_queue_size=2048, timeout=120)

    def bind(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Take the inherited socket for the one that is asked for."""
        self.inherited.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = self.inherited
        return self.socket
