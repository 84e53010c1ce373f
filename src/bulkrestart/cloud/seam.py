"""Lets tests that replace a part of httpx or httpcore see the requests of our own transport.

Law: while a part is replaced, no request leaves by our own connections. It goes through httpx's client, transport and
pool, as a request of any program that uses httpx does, or it is refused.
"""

from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from types import FunctionType
from typing import Final

import httpcore
import httpx

#: What a request through httpx passes. respx replaces httpcore's (or `_transport_for_url`), pytest-httpx and VCR.py
#: replace `AsyncHTTPTransport.handle_async_request`; OpenTelemetry and Sentry wrap two of them.
_PASSED_IN_HTTPX: Final = (
    "AsyncClient.__init__",
    "AsyncClient._init_transport",
    "AsyncClient.send",
    "AsyncClient._send_handling_auth",
    "AsyncClient._send_handling_redirects",
    "AsyncClient._send_single_request",
    "AsyncClient._transport_for_url",
    "AsyncHTTPTransport.__init__",
    "AsyncHTTPTransport.handle_async_request",
)
_PASSED_IN_HTTPCORE: Final = (
    "AsyncConnectionPool.handle_async_request",
    "AsyncHTTPConnection.handle_async_request",
    "AsyncHTTP11Connection.handle_async_request",
)
#: What a request of ours does not pass, and a test may replace all the same.
_NOT_PASSED: Final = ("AsyncClient.request", "AsyncClient.stream", "AsyncClient.get", "AsyncClient.post")

_parts_of_httpx: Final = attrgetter(*_PASSED_IN_HTTPX, *_NOT_PASSED)
_parts_of_httpcore: Final = attrgetter(*_PASSED_IN_HTTPCORE)

_Parts = tuple[tuple[object, ...], tuple[object, ...]]


class Seam:
    """Sends through httpx while a part of it is replaced.

    Args:
        make: Makes the transport that such requests go through; it must use httpx's own.
    """

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._make = make
        #: The parts as the libraries define them; None until they have been seen so.
        self._own: _Parts | None = None
        self._client: httpx.AsyncClient | None = None
        #: The parts that the client was made with.
        self._parts: _Parts | None = None

    def is_needed(self) -> bool:
        """Tell whether a part is replaced at this moment."""
        parts = _parts()
        if parts == self._own:
            return False
        if all(_is_own(part) for group in parts for part in group):
            self._own = parts
            return False
        return True

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request through httpx.

        Raises:
            httpx.ConnectError: A part is replaced that a request does not pass.
            Exception: Whatever the replaced part raises.
        """
        parts = _parts()
        for name, part in zip((*_PASSED_IN_HTTPX, *_NOT_PASSED), parts[0], strict=True):
            # An instrumentation names what it wraps, and calls it; a mock does not.
            if name in _NOT_PASSED and not _is_own(part) and not hasattr(part, "__wrapped__"):
                raise httpx.ConnectError(
                    f"httpx.{name} is replaced, and bulkrestart does not call it: nothing is sent; replace "
                    "httpx.AsyncHTTPTransport.handle_async_request (respx, pytest-httpx), or lend a client with http="
                )
        if self._client is None or parts != self._parts:
            await self.aclose()
            # What was made before a part was replaced may not pass it.
            self._parts = parts
            self._client = httpx.AsyncClient(transport=self._make(), trust_env=False)
        return await self._client.send(request, stream=True, auth=httpx.Auth(), follow_redirects=False)

    async def aclose(self) -> None:
        """Close what it has sent with."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # it may be a mock
                await client.aclose()


def _parts() -> _Parts:
    return _parts_of_httpx(httpx), _parts_of_httpcore(httpcore)


def _is_own(part: object) -> bool:
    """Tell whether a function is defined in httpx or httpcore itself, whenever it was first looked at."""
    if type(part) is not FunctionType:
        return False
    return str(part.__globals__.get("__name__")).partition(".")[0] in ("httpx", "httpcore")
