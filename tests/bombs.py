"""A server whose answers grow when they are decompressed: `python -m tests.bombs BOMB` serves one kind.

It imports the standard library alone: the tests start it many times.
"""

import gzip
import os
import socket
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Final

_MEGABYTE: Final = 2**20


def _deflated(beginning: bytes, repeated: bytes, times: int) -> bytes:
    """Compress the beginning of something long, quickly: what repeats is compressed once."""
    compressor = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    first, repeated = (
        compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH) for data in (beginning, repeated)
    )
    return first + repeated * times


def _zeros() -> bytes:
    return _deflated(b"", b"\0" * _MEGABYTE, 512)


def _layers(count: int) -> bytes:
    data = _zeros()
    for _ in range(count - 1):
        data = gzip.compress(data, 9)
    return data


#: Each with the value of Content-Encoding, and the body.
BOMBS: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "one layer": ("gzip", _zeros),
    "two layers": ("gzip, gzip", lambda: _layers(2)),
    "three layers": ("gzip, gzip, gzip", lambda: _layers(3)),
    "white space": ("gzip", lambda: _deflated(b'{"servers": [', b" " * _MEGABYTE, 512)),
    "rows": ("gzip", lambda: _deflated(b'{"servers": [', b'{"id":"a"},' * 100_000, 500)),
    "lists": ("gzip", lambda: _deflated(b'{"servers": [[', b"[]," * 300_000, 500)),
    "a text": ("gzip", lambda: _deflated(b'{"servers": ["', b"x" * _MEGABYTE, 512)),
    "members": ("gzip", lambda: _deflated(b'{"a": 1', b', "a": [0.5]' * 100_000, 400)),
    "text, plain": ("identity", lambda: b'{"servers": ["' + b"x" * (60 * _MEGABYTE)),
    "empty members": ("gzip", lambda: gzip.compress(b"") * 100_000),
    "chunks of a byte": ("identity\r\nTransfer-Encoding: chunked", lambda: b"1\r\n \r\n" * 400_000 + b"0\r\n\r\n"),
    "headers": ("identity" + "\r\na: b" * 16_000, lambda: b"{}"),
}


def _serve(coding: str, body: bytes) -> None:
    """Answer everything on loopback with this, and write the port to stdout; until stdin ends."""
    length = "" if "chunked" in coding else f"\r\nContent-Length: {len(body)}"
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}{length}\r\n\r\n".encode()

    def answer(connection: socket.socket) -> None:
        with connection:
            received = b""
            while True:
                try:
                    received += connection.recv(65536)
                    if not received:
                        return
                    if b"\r\n\r\n" in received:
                        received = b""
                        connection.sendall(head)
                        connection.sendall(body)
                except OSError:
                    return

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    threading.Thread(target=accept, daemon=True).start()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


def main(bomb: str) -> None:
    """Make the bomb and serve it."""
    coding, make = BOMBS[bomb]
    _serve(coding, make())


if __name__ == "__main__":
    main(*sys.argv[1:])
