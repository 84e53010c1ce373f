"""The contenders: each restarts servers, a bounded number at once, over connections that it keeps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import httpx

from bulkrestart import Outcome, RestartClient, Token

Restart = Callable[[Sequence[str]], Awaitable[None]]
#: Is given the compute endpoint and the number of requests at once.
Open = Callable[[str, int], AbstractAsyncContextManager[Restart]]
Lane = tuple[asyncio.StreamReader, asyncio.StreamWriter]

TOKEN: Final = "token"
_BODY: Final = b'{"reboot": {"type": "SOFT"}}'
_HEADERS: Final = {"X-Auth-Token": TOKEN, "Content-Type": "application/json"}
#: Seconds: as `RestartClient.restart` has it, because httpx's 5 s are too short for its own pool at 500 at once.
_TIMEOUT: Final = 60.0


@asynccontextmanager
async def own(endpoint: str, at_once: int) -> AsyncIterator[Restart]:
    """`RestartClient` with the client that it makes for itself."""
    async with RestartClient(endpoint, auth=Token(TOKEN), max_at_once=at_once) as client:
        yield _restart_with(client)


@asynccontextmanager
async def lent(endpoint: str, at_once: int) -> AsyncIterator[Restart]:
    """`RestartClient` with a stock httpx client lent to it, whose pool is as wide as needed."""
    async with (
        httpx.AsyncClient(limits=httpx.Limits(max_connections=at_once), trust_env=False) as http,
        RestartClient(endpoint, auth=Token(TOKEN), http=http, max_at_once=at_once) as client,
    ):
        yield _restart_with(client)


def stock_wide(endpoint: str, at_once: int) -> AbstractAsyncContextManager[Restart]:
    """Stock httpx with a pool as wide as needed."""
    return _stock(endpoint, at_once, httpx.Limits(max_connections=at_once))


def stock_default(endpoint: str, at_once: int) -> AbstractAsyncContextManager[Restart]:
    """Stock httpx with its default limits: 100 connections, of which 20 are kept."""
    return _stock(endpoint, at_once, httpx.Limits(max_connections=100, max_keepalive_connections=20))


@asynccontextmanager
async def raw_aiohttp(endpoint: str, at_once: int) -> AsyncIterator[Restart]:
    """A loop over aiohttp: one worker for each request at once, and no more than a status is looked at."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(connector=connector, headers=_HEADERS) as session:

        async def work(ids: Iterator[str]) -> None:
            for server_id in ids:
                async with session.post(f"{endpoint}/servers/{server_id}/action", data=_BODY) as response:
                    await response.read()
                    assert response.status == 202

        async def restart(ids: Sequence[str]) -> None:
            source = iter(ids)
            await asyncio.gather(*(work(source) for _ in range(at_once)))

        yield restart


@asynccontextmanager
async def streams(endpoint: str, at_once: int) -> AsyncIterator[Restart]:
    """A loop over asyncio's streams that knows just enough HTTP for this server."""
    url = urlsplit(endpoint)
    fields = "\r\n".join(f"{name}: {value}" for name, value in _HEADERS.items())
    fields = f"Host: {url.netloc}\r\n{fields}\r\nContent-Length: {len(_BODY)}"

    async def work(lane: Lane, ids: Iterator[str]) -> None:
        reader, writer = lane
        for server_id in ids:
            head = f"POST {url.path}/servers/{server_id}/action HTTP/1.1\r\n{fields}\r\n\r\n"
            writer.write(head.encode() + _BODY)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 202 ")

    async with AsyncExitStack() as stack:
        lanes = [await stack.enter_async_context(_lane(url.hostname, url.port)) for _ in range(at_once)]

        async def restart(ids: Sequence[str]) -> None:
            source = iter(ids)
            await asyncio.gather(*(work(lane, source) for lane in lanes))

        yield restart


@asynccontextmanager
async def _stock(endpoint: str, at_once: int, limits: httpx.Limits) -> AsyncIterator[Restart]:
    semaphore = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(headers=_HEADERS, limits=limits, timeout=_TIMEOUT, trust_env=False) as http:

        async def post(server_id: str) -> None:
            async with semaphore:
                response = await http.post(f"{endpoint}/servers/{server_id}/action", content=_BODY)
            assert response.status_code == 202

        async def restart(ids: Sequence[str]) -> None:
            await asyncio.gather(*map(post, ids))

        yield restart


@asynccontextmanager
async def _lane(host: str | None, port: int | None) -> AsyncIterator[Lane]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def _restart_with(client: RestartClient) -> Restart:
    async def restart(ids: Sequence[str]) -> None:
        report = await client.restart(ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: len(ids)}

    return restart
