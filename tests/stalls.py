"""Clouds that refuse some requests without end, on virtual time, and a run against them."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

import httpx
import trio

from bulkrestart import RestartClient, Token
from bulkrestart.simulator import Cloud, asgi

#: Seconds that an answer takes.
LATENCY: Final = 0.3

OVER_LIMIT: Final = b'{"overLimit": {"code": 429, "message": "This request was rate-limited.", "retryAfter": "0"}}'
TOO_LARGE: Final = b'{"overLimit": {"code": 413, "message": "This request was rate-limited."}}'
FLOW_LIMIT: Final = b'{"error": {"code": "Common.0024", "message": "Flow limit exceeded."}}'
GATEWAY: Final = b'{"error_msg": "The throttling threshold has been reached", "error_code": "APIGW.0308"}'
PAGE: Final = b"<html><title>503 Service Unavailable</title></html>"


class Which(StrEnum):
    """The requests that are refused."""

    ALL = "all"
    SENDS = "sends"
    READS = "reads"
    LISTS = "lists"
    LOGS = "logs"

    def has(self, request: httpx.Request) -> bool:
        """Tell whether a request is one of them."""
        path = request.url.path
        match self:
            case Which.ALL:
                return True
            case Which.SENDS:
                return request.method == "POST"
            case Which.READS:
                return request.method == "GET"
            case Which.LISTS:
                return path.endswith("/servers/detail")
            case Which.LOGS:
                return "os-instance-actions" in path


class Refusing:
    """A transport to a simulated cloud that refuses some requests until it is healed.

    Args:
        cloud: The cloud.
        which: The requests that are refused.
        answer: Gives the answer to such a request.
        grace: Requests that are let through first.
    """

    def __init__(self, cloud: Cloud, which: Which, answer: Callable[[], httpx.Response], *, grace: int = 0) -> None:
        self._inner = httpx.ASGITransport(asgi(cloud))
        self._which = which
        self._answer = answer
        self._grace = grace
        self.is_healed = False
        self.refused = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        await trio.sleep(LATENCY)
        if self.is_healed or not self._which.has(request) or self._grace > 0:
            self._grace -= 1
            return await self._inner.handle_async_request(request)
        self.refused += 1
        return self._answer()


def answering(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Callable[[], httpx.Response]:
    """Give what answers so, again and again."""
    return lambda: httpx.Response(status, content=body, headers={"content-type": "application/json", **(headers or {})})


@asynccontextmanager
async def client_through(cloud: Cloud, way: Refusing, *, max_at_once: int = 50) -> AsyncIterator[RestartClient]:
    """Give a client whose requests go this way."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(way)) as http:
        url = f"http://cloud.test/v2.1/{cloud.project_id}"
        yield RestartClient(url, auth=Token(cloud.token), http=http, max_at_once=max_at_once)
