"""Lanes through a proxy: what httpx knows of proxies, without the cost of its pool.

A request costs more than one over `LaneTransport`, whose parser is written in C, and which knows no proxies.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final

import anyio
import httpx

_LIMITS: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1)


class ProxiedTransport(httpx.AsyncBaseTransport):
    """A transport whose lanes are transports of httpx, each with a pool of one connection.

    httpx's own pool looks through all its connections for each that is idle, so its cost per request grows with their
    number; here a free lane is found in one step. How many lanes there are follows from how many requests are made
    at once, which is the caller's to bound.

    Args:
        verify: How certificates are verified; one context for all lanes.
        proxy: Through which every lane goes; None for none, as the tests have it.
    """

    def __init__(self, verify: ssl.SSLContext, proxy: httpx.Proxy | None = None) -> None:
        self._verify = verify
        self._proxy = proxy
        # The lane used last is used next: what is not needed goes idle and is closed by the cloud.
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._busy: set[httpx.AsyncHTTPTransport] = set()
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request over a lane of its own; the lane is free again when the response is closed."""
        if self._is_closed:
            raise httpx.ConnectError("the client is closed")
        lane = self._idle.pop() if self._idle else self._new_lane()
        self._busy.add(lane)
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            await self._drop(lane)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _LaneStream(response.stream, partial(self._free, lane, response))
        return response

    def _new_lane(self) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(verify=self._verify, proxy=self._proxy, limits=_LIMITS)

    async def _free(self, lane: httpx.AsyncHTTPTransport, response: httpx.Response) -> None:
        if lane in self._busy:
            self._busy.remove(lane)
            self._idle.append(lane)
        else:
            # The transport was closed while this lane was connecting: its connection came too late to be closed.
            with anyio.CancelScope(shield=True):
                await response.extensions["network_stream"].aclose()

    async def _drop(self, lane: httpx.AsyncHTTPTransport) -> None:
        self._busy.discard(lane)
        with anyio.CancelScope(shield=True):
            await lane.aclose()

    async def aclose(self) -> None:
        """Close every lane, for good."""
        self._is_closed = True
        lanes = [*self._idle, *self._busy]
        self._idle.clear()
        self._busy.clear()
        for lane in lanes:
            await self._drop(lane)


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
