"""Lets tests that mock a part of httpx or httpcore see the requests of our own transport.

Law: while a part is replaced, no request leaves over our own connections. It goes through httpx's client, transport and
pool, as a request of any program that uses httpx does, or it is refused.
"""

from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Final

import httpcore
import httpx

#: Methods of httpx.AsyncClient that a test may replace although our requests do not call them.
_NOT_CALLED: Final = ("request", "stream", "get", "post")

#: The functions that a test may replace; the last are the methods in `_NOT_CALLED`.
_Parts = tuple[object, ...]


class Seam:
    """Sends through httpx while a part of it is replaced.

    Args:
        make: Makes the transport for such requests; it must use httpx's own.
    """

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._make = make
        #: The parts when they were last found to be the libraries' own; None before that.
        self._own: _Parts | None = None
        self._client: httpx.AsyncClient | None = None
        #: The parts when the client was made.
        self._parts: _Parts | None = None

    def is_needed(self) -> bool:
        """Return whether a part is replaced at this moment."""
        parts = _parts()
        if parts == self._own:
            return False
        called, not_called = parts[: -len(_NOT_CALLED)], parts[-len(_NOT_CALLED) :]
        if all(map(_is_own, called)) and not any(map(_is_mock, not_called)):
            self._own = parts
            return False
        return True

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request through httpx.

        Raises:
            httpx.ConnectError: A method is replaced that our requests do not call.
            Exception: Any exception that the replaced part raises.
        """
        parts = _parts()
        for name, part in zip(_NOT_CALLED, parts[-len(_NOT_CALLED) :], strict=True):
            if _is_mock(part):
                if "trace" in request.extensions:
                    # This tells the trace that nothing of the request has left.
                    await request.extensions["trace"]("connection.wait.started", {"request": request})
                raise httpx.ConnectError(
                    f"httpx.AsyncClient.{name} is replaced, and bulkrestart does not call it: nothing is sent; replace "
                    "httpx.AsyncHTTPTransport.handle_async_request (respx, pytest-httpx), or lend a client with http="
                )
        if self._client is None or parts != self._parts:
            await self.aclose()
            # A client that was made before a part was replaced may not use the replacement.
            self._parts = parts
            self._client = httpx.AsyncClient(transport=self._make(), trust_env=False)
        return await self._client.send(request, stream=True, auth=httpx.Auth(), follow_redirects=False)

    async def aclose(self) -> None:
        """Close the client that it has sent with."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # it may be a mock
                await client.aclose()


def _parts() -> _Parts:
    """Look the functions up. It is done for each request, and takes 0.3 microseconds."""
    client = httpx.AsyncClient
    # respx replaces httpcore's, or `_transport_for_url`; pytest-httpx and VCR.py replace the transport's
    # `handle_async_request`; OpenTelemetry wraps that, and Sentry `send`.
    return (
        client.__init__,
        client.send,
        client._send_single_request,
        client._transport_for_url,
        httpx.AsyncHTTPTransport.handle_async_request,
        httpcore.AsyncConnectionPool.handle_async_request,
        httpcore.AsyncHTTPConnection.handle_async_request,
        client.request,
        client.stream,
        client.get,
        client.post,
    )


def _is_own(part: object) -> bool:
    """Return whether a function is defined in httpx or httpcore itself."""
    if type(part) is not FunctionType:
        return False
    return str(part.__globals__.get("__name__")).partition(".")[0] in ("httpx", "httpcore")


def _is_mock(part: object) -> bool:
    """Return whether a function replaces another. A wrapper of an instrumentation names the one that it calls."""
    return not _is_own(part) and not hasattr(part, "__wrapped__")
