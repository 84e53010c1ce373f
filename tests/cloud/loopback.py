"""Servers on loopback that behave as they are told, and the clients that meet them."""

import atexit
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Final, cast

import anyio
import anyio.abc
import httpx
import pytest
from anyio.streams.tls import TLSStream

from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.proxied import ProxiedTransport
from bulkrestart.cloud.sender import LaneSender, LentSender, Sender
from bulkrestart.cloud.transport import LaneTransport
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.endpoint import Endpoint

Connection = anyio.abc.SocketStream
Handler = Callable[[Connection], Awaitable[None]]

ACCEPTED: Final = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
#: Trusts nobody and loads nothing, so it costs nothing to make.
TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])
#: httpx leaves generators of its own to the garbage collector where a body, of a request or of an answer, does not come
#: to its end. trio finalizes them, and says so.
leaves_generators = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
#: The ways to send: the library's own, its own through a proxy, a client as a user lends it, and one over our lanes.
WAYS: Final = ("lanes", "proxied", "lent", "lent lanes")
each_way = pytest.mark.parametrize("way", WAYS)
each_lent_client = pytest.mark.parametrize("way", ["lent", "lent lanes"])


def lanes(max_at_once: int = 20) -> LaneTransport:
    """Make the transport of our own."""
    return LaneTransport(TLS, max_at_once=max_at_once)


def open_sender(way: str) -> tuple[Sender, Callable[[], Awaitable[None]]]:
    """Make what the library sends with, and say how it is closed by whoever owns it."""
    match way:
        case "lanes":
            sender = LaneSender(lanes())
            return sender, sender.aclose
        case "proxied":
            sender = LaneSender(ProxiedTransport(TLS))
            return sender, sender.aclose
        case _:
            http = client_of(way)
            return LentSender(http), http.aclose


@asynccontextmanager
async def sender_of(way: str) -> AsyncIterator[Sender]:
    """Make what the library sends with, and close it."""
    sender, close = open_sender(way)
    try:
        yield sender
    finally:
        await close()


async def by_each_way(act: Callable[[Sender], Awaitable[None]]) -> None:
    """Do something by all ways at once: what waits for a time-out does not wait for one after the other."""

    async def by(way: str) -> None:
        async with sender_of(way) as sender:
            await act(sender)

    async with anyio.create_task_group() as group:
        for way in WAYS:
            group.start_soon(by, way)


def client_of(way: str) -> httpx.AsyncClient:
    """Make a client as a user lends it."""
    if way == "lent lanes":
        return httpx.AsyncClient(transport=lanes(), trust_env=False)
    return httpx.AsyncClient(verify=TLS, trust_env=False)


def compute_of(
    sender: Sender | httpx.AsyncClient,
    base: str = "http://cloud.test",
    *,
    version: str = "v2.1",
    project: str = "p",
    auth: httpx.Auth | None = None,
    clock: CloudClock | None = None,
    timeout: float = 5.0,
) -> Compute:
    """Make the compute API of a project."""
    sender = LentSender(sender) if isinstance(sender, httpx.AsyncClient) else sender
    return Compute(Endpoint.parse(f"{base}/{version}/{project}"), sender, auth, clock or CloudClock(), timeout)


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """Give each connection to the handler, which closes it; yield the server's address."""

    async def serve(connection: Connection) -> None:
        async with connection:
            # The client may go first.
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                await handler(connection)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (anyio's `extra`, not Django's)
        yield f"127.0.0.1:{port}"
        group.cancel_scope.cancel()


def secured(handler: Handler, context: ssl.SSLContext) -> Handler:
    """Let a handler speak TLS."""

    async def handle(connection: Connection) -> None:
        with suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
            stream = await TLSStream.wrap(connection, server_side=True, ssl_context=context, standard_compatible=False)
            # It has the same methods, as far as handlers use them.
            await handler(cast(Connection, stream))

    return handle


async def read_request(connection: Connection) -> bytes:
    """Read one request; b"" if either side closed the connection instead."""
    received = b""
    try:
        while b"\r\n\r\n" not in received:
            received += await connection.receive()
        head, _, body = received.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
        while len(body) < length:
            body += await connection.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return b""
    return head + b"\r\n\r\n" + body


def reset(connection: Connection) -> None:
    """Make the close of this connection a reset (RFC 9293, section 3.10.5)."""
    raw = connection.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 (anyio's `extra`, not Django's)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def free_port() -> int:
    """Find a port that may be listened at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def closed_port() -> int:
    """Give a port that nobody listens at."""
    port: int = _silent().getsockname()[1]
    return port


@cache
def _silent() -> socket.socket:
    # It is kept as long as this process lives: tests that run beside might be given its port otherwise.
    bound = socket.socket()
    atexit.register(bound.close)
    bound.bind(("127.0.0.1", 0))
    return bound


class KeepAlive:
    """A server that answers every request of a connection, and counts.

    Attributes:
        connections: How many were opened so far.
        open: How many are open now.
        requests: Each request, with the number of the connection that it came by.
    """

    def __init__(self, answer: Callable[[Connection], Awaitable[None]] | None = None) -> None:
        self.connections = 0
        self.open = 0
        self.requests: list[tuple[int, bytes]] = []
        self._answer = answer
        self._news = anyio.Event()

    async def __call__(self, connection: Connection) -> None:
        """Serve one connection."""
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while request := await read_request(connection):
                self.requests.append((number, request))
                self._tell()
                await (self._answer(connection) if self._answer is not None else connection.send(ACCEPTED))
        finally:
            self.open -= 1
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so; it is looked at whenever a request comes or a connection ends."""
        with anyio.fail_after(2):
            while not is_so():
                await self._news.wait()
