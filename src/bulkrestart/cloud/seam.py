"""Lets tests that replace a part of httpx or httpcore see the requests of our own transport.

Law: while a part is replaced, no request leaves by our own connections. It goes through httpx's client, transport and
pool, as a request of any program that uses httpx does, or it is refused.
"""

from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Final

import httpcore
import httpx

#: What a request of ours does not pass, and a test may replace all the same.
_NOT_PASSED: Final = ("request", "stream", "get", "post")

#: The functions that may be replaced; the last are those that a request does not pass.
_Parts = tuple[object, ...]


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
        passed, not_passed = parts[: -len(_NOT_PASSED)], parts[-len(_NOT_PASSED) :]
        if all(map(_is_own, passed)) and not any(map(_is_mock, not_passed)):
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
        for name, part in zip(_NOT_PASSED, parts[-len(_NOT_PASSED) :], strict=True):
            if _is_mock(part):
                if "trace" in request.extensions:
                    # Says that nothing of the request has left yet.
                    await request.extensions["trace"]("connection.wait.started", {"request": request})
                raise httpx.ConnectError(
                    f"httpx.AsyncClient.{name} is replaced, and bulkrestart does not call it: nothing is sent; replace "
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
    """Look the functions up: this is done for each request, and takes 0.3 microseconds."""
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
    """Tell whether a function is defined in httpx or httpcore itself, whenever it was first looked at."""
    if type(part) is not FunctionType:
        return False
    return str(part.__globals__.get("__name__")).partition(".")[0] in ("httpx", "httpcore")


def _is_mock(part: object) -> bool:
    """Tell whether a function stands in another's place; an instrumentation's wrapper names what it calls."""
    return not _is_own(part) and not hasattr(part, "__wrapped__")
