"""A server whose answers grow when they are decompressed, and what a client takes to meet them; run as a program.

`python -m tests.bombs BACKEND WAY BOMB` writes a line of JSON: `grown`, the bytes of memory that the process needed
besides what it had before, `held`, the longest time between two passes of the event loop, in seconds of CPU, so that a
busy machine makes no difference, and `seen`, what came of each request. The server is a process of its own.
"""

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.model import RebootType
from tests.cloud.loopback import compute_of, sender_of

#: Requests at once, and the seconds that each may take.
AT_ONCE: Final = 10
_SECONDS: Final = 5.0
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


@contextmanager
def _serving(bomb: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.bombs", "serve", bomb]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


def _memory(name: str) -> int:
    """The bytes of memory that this process has (VmRSS), or has had at most (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


async def _measure(way: str, url: str) -> dict[str, object]:
    held = 0.0
    seen: list[str] = []

    async def watch() -> None:
        nonlocal held
        last = time.thread_time()
        while True:
            await anyio.sleep(0.001)
            now = time.thread_time()
            held = max(held, now - last)
            last = now

    async def ask(request: Callable[[Compute], Awaitable[object]]) -> None:
        async with sender_of(way) as sender:
            compute = compute_of(sender, url, timeout=_SECONDS)
            seen.append(type(await request(compute)).__name__)

    requests: list[Callable[[Compute], Awaitable[object]]] = [
        lambda compute: compute.reboot("s", RebootType.SOFT),
        lambda compute: compute.page(),
        lambda compute: compute.show("s"),
        lambda compute: compute.actions("s"),
        lambda compute: compute.groups(),
    ]
    # What is imported and set up at first use is not the bombs'.
    await ask(requests[0])
    seen.clear()
    before = _memory("VmRSS")
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await anyio.sleep(0.01)
        held = 0.0
        async with anyio.create_task_group() as asking:
            for number in range(AT_ONCE):
                asking.start_soon(ask, requests[number % len(requests)])
        group.cancel_scope.cancel()
    return {"grown": _memory("VmHWM") - before, "held": held, "seen": sorted(seen)}


def main(first: str, *others: str) -> None:
    """Serve, or measure."""
    if first == "serve":
        coding, make = BOMBS[others[0]]
        _serve(coding, make())
    way, bomb = others
    with _serving(bomb) as url:
        sys.stdout.write(json.dumps(anyio.run(_measure, way, url, backend=first)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
