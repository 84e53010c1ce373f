"""A compute API on loopback that costs as little as it can, in a process of its own: no rules, no faults, no state."""

import asyncio
import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from multiprocessing.connection import Connection
from typing import Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ACTIVE: Final = b'{"server": {"id": "s", "status": "ACTIVE", "OS-EXT-STS:vm_state": "active", "locked": false}}'


@contextmanager
def serving(delay: float) -> Iterator[str]:
    """Serve for as long as the block lasts; yield the compute endpoint.

    Args:
        delay: Seconds from each request to its answer.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, delay), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v2.1/project"
    finally:
        process.terminate()
        process.join()


def _serve(port: "Connection[int, int]", delay: float) -> None:
    asyncio.run(_listen(port, delay))


async def _listen(port: "Connection[int, int]", delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Client(delay), "127.0.0.1", backlog=1024)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class _Client(asyncio.Protocol):
    """One kept connection, which carries one request at a time."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._received = b""
        headers = f"Date: {formatdate(usegmt=True)}\r\nx-compute-request-id: req-1\r\n".encode()
        self._accepted = b"HTTP/1.1 202 Accepted\r\n%bContent-Length: 0\r\n\r\n" % headers
        self._shown = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(_ACTIVE), _ACTIVE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._received = b""
        answer = self._accepted if head.startswith(b"POST") else self._shown
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)
        else:
            self._transport.write(answer)
