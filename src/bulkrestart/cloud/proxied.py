"""Connections through a proxy, made by httpx's transport without the cost of its pool.

A request costs more than one over `LaneTransport`, whose parser is written in C, and which knows no proxies.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import httpcore
import httpx

from bulkrestart.cloud.clone import PROXY
from bulkrestart.cloud.transport import has_buffered_data, has_pending_data

_LIMITS: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1)
#: A connection is closed after an answer with more bytes. httpcore reads 64 KiB at once, and anyio keeps what asyncio
#: has read beyond that, where a second answer could not be seen.
_LONGEST_ANSWER: Final = 32 * 1024

#: httpx's `trace` extension: called with the name of each step.
_Trace = Callable[[str, Mapping[str, object]], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Lane:
    """One transport of httpx, with at most one connection.

    Attributes:
        transport: The transport.
        stream: The connection of its latest answer; None before that, and where a mock has answered.
        opened: The TCP connection below that one, from the moment it is open.
    """

    transport: httpx.AsyncHTTPTransport
    stream: httpcore.AsyncNetworkStream | None = None
    opened: httpcore.AsyncNetworkStream | None = None

    def is_silent(self) -> bool:
        """Return whether nothing has arrived since the latest answer: no end of the stream, no unsolicited bytes."""
        if self.stream is None:
            return True
        socket, tls = (self.stream.get_extra_info(name) for name in ("socket", "ssl_object"))
        if socket is None or has_pending_data(socket.fileno()) or (tls is not None and has_buffered_data(tls)):
            return False
        # h11 holds the bytes that were read together with the answer, and httpcore has no public access to them.
        pool = getattr(self.transport, "_pool", None)
        for connection in getattr(pool, "connections", ()):
            inner: object = connection
            while inner is not None and not hasattr(inner, "_h11_state"):
                inner = getattr(inner, "_connection", None)
            trailing = getattr(getattr(inner, "_h11_state", None), "trailing_data", (b"unknown", False))
            if trailing[0]:
                return False
        return True


class ProxiedTransport(httpx.AsyncBaseTransport):
    """A transport whose lanes are transports of httpx, each with a pool of one connection.

    httpx's own pool looks through all its connections for each that is idle, so its cost per request grows with their
    number; here a free lane is found in one step. How many lanes there are follows from how many requests are made
    at once, which is the caller's to bound. A lane on which bytes arrived after its latest answer is not used again:
    httpcore would use them as the answer to the next request.

    Args:
        verify: How certificates are verified; one context for all lanes.
        proxy: Through which every lane goes; None for none, as the tests have it.
    """

    def __init__(self, verify: ssl.SSLContext, proxy: httpx.Proxy | None = None) -> None:
        self._verify = verify
        self._proxy = proxy
        # The lane used last is used next: what is not needed goes idle and is closed by the cloud.
        self._idle: list[_Lane] = []
        self._busy: set[_Lane] = set()
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request over a lane of its own; the lane is free again when the response is closed."""
        extensions = request.extensions
        try:
            while True:
                try:
                    return await self._send(request, await self._take(), extensions.get("trace"))
                except _UnsolicitedDataError:
                    # Nothing of it has left.
                    continue
        except httpx.TransportError:
            # The message about the failure will name the proxy.
            extensions = {**extensions, PROXY: self._proxy}
            raise
        finally:
            request.extensions = extensions

    async def _send(self, request: httpx.Request, lane: _Lane, trace: _Trace | None) -> httpx.Response:
        self._busy.add(lane)

        async def check(step: str, information: Mapping[str, object]) -> None:
            """Check the connection as late as httpcore allows."""
            if step.endswith(".connect_tcp.started"):
                # httpcore has closed the connection of the latest answer, or it was to another host.
                lane.stream = None
            elif step.endswith(".connect_tcp.complete"):
                opened = information.get("return_value")
                lane.opened = opened if isinstance(opened, httpcore.AsyncNetworkStream) else None
            elif step == "http11.send_request_headers.started" and not lane.is_silent():
                raise _UnsolicitedDataError
            if trace is not None:
                await trace(step, information)

        request.extensions = {**request.extensions, "trace": check}
        try:
            response = await lane.transport.handle_async_request(request)
            if not isinstance(response.stream, httpx.AsyncByteStream):
                raise TypeError(f"the body of an answer is a {type(response.stream).__name__}, as of a mock")
            lane.stream = response.extensions.get("network_stream")
        except BaseException:
            await self._drop(lane)
            raise
        response.stream = _LaneStream(response.stream, partial(self._free, lane, response))
        return response

    async def _take(self) -> _Lane:
        """Return an idle lane without unsolicited bytes, or a new one."""
        while self._idle:
            lane = self._idle.pop()
            if lane.is_silent():
                return lane
            await self._drop(lane)
        if self._is_closed:
            raise httpx.ConnectError("the client is closed")
        return _Lane(httpx.AsyncHTTPTransport(verify=self._verify, proxy=self._proxy, limits=_LIMITS))

    async def _free(self, lane: _Lane, response: httpx.Response) -> None:
        if lane not in self._busy:
            # The transport was closed while this lane was connecting: its connection came too late to be closed.
            if lane.stream is not None:
                with anyio.CancelScope(shield=True):
                    await lane.stream.aclose()
        elif lane.stream is not None and lane.is_silent() and response.num_bytes_downloaded <= _LONGEST_ANSWER:
            self._busy.remove(lane)
            self._idle.append(lane)
        else:
            await self._drop(lane)

    async def _drop(self, lane: _Lane) -> None:
        self._busy.discard(lane)
        with anyio.CancelScope(shield=True):
            await lane.transport.aclose()
            if lane.opened is not None:
                # httpcore 1.0 leaves it open if the request is cancelled during the TLS handshake.
                await lane.opened.aclose()

    async def aclose(self) -> None:
        """Close every lane, for good."""
        self._is_closed = True
        lanes = [*self._idle, *self._busy]
        self._idle.clear()
        self._busy.clear()
        for lane in lanes:
            await self._drop(lane)


class _UnsolicitedDataError(Exception):
    """Raised within httpcore before it writes, if unsolicited bytes have arrived."""


class _LaneStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, free: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._free = free

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._free()
