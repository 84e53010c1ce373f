"""The lanes: one connection each, no more of them than requests at once, and none that stays broken.

One contract for both kinds: those of our own, and those through a proxy.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import httpx
import pytest

from bulkrestart.cloud.proxied import ProxiedTransport

from .loopback import ACCEPTED, TLS, Connection, KeepAlive, both_backends, lanes, listening, read_request

DRIP = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst"


Make = Callable[[], httpx.AsyncBaseTransport]
each_transport = pytest.mark.parametrize("make", [lanes, lambda: ProxiedTransport(TLS)], ids=["lanes", "proxied"])


def client(make: Make) -> httpx.AsyncClient:
    """Make a client over lanes."""
    return httpx.AsyncClient(transport=make(), trust_env=False, timeout=5)


def barrier(size: int) -> Callable[[Connection], Awaitable[None]]:
    """Answer only when so many requests are in, time after time."""
    waiting: list[anyio.Event] = []

    async def answer(connection: Connection) -> None:
        mine = anyio.Event()
        waiting.append(mine)
        if len(waiting) == size:
            for event in waiting:
                event.set()
            waiting.clear()
        await mine.wait()
        await connection.send(ACCEPTED)

    return answer


@both_backends
@each_transport
def test_a_lane_is_used_again(backend: str, make: Make) -> None:
    """Requests that follow each other use one connection."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, client(make) as http:
            for _ in range(10):
                assert (await http.post(f"http://{address}/")).status_code == 202
            assert (server.connections, len(server.requests)) == (1, 10)

    anyio.run(main, backend=backend)


@both_backends
@each_transport
def test_there_are_no_more_lanes_than_requests_at_once(backend: str, make: Make) -> None:
    """As many lanes as there are requests at once, however many requests there are, and all carry requests again."""

    async def main() -> None:
        server = KeepAlive(barrier(8))
        async with listening(server) as address, client(make) as http:

            async def work() -> None:
                for _ in range(5):
                    assert (await http.get(f"http://{address}/")).status_code == 202

            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(work)
            assert (server.connections, server.open, len(server.requests)) == (8, 8, 40)

    anyio.run(main, backend=backend)


@both_backends
@each_transport
def test_the_lane_used_last_is_used_next(backend: str, make: Make) -> None:
    """After a burst, requests one after the other stay on one lane, so that the others can go idle."""

    async def main() -> None:
        hold = barrier(3)

        async def answer(connection: Connection) -> None:
            await (hold(connection) if len(server.requests) <= 3 else connection.send(ACCEPTED))

        server = KeepAlive(answer)
        async with listening(server) as address, client(make) as http:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(http.get, f"http://{address}/")
            for _ in range(4):
                await http.get(f"http://{address}/")
            assert server.connections == 3
            assert len({number for number, _ in server.requests[3:]}) == 1

    anyio.run(main, backend=backend)


@both_backends
@each_transport
def test_a_lane_carries_one_request_at_a_time(backend: str, make: Make) -> None:
    """A lane is not free before the response is closed: the head of an answer alone does not free it."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await connection.send(DRIP if len(server.requests) == 1 else ACCEPTED)

        server = KeepAlive(answer)
        async with listening(server) as address, client(make) as http:
            async with http.stream("GET", f"http://{address}/first") as first:
                assert first.status_code == 200
                await http.get(f"http://{address}/second")
            assert [number for number, _ in server.requests] == [1, 2]

    anyio.run(main, backend=backend)


@both_backends
@each_transport
def test_a_lane_that_fails_is_dropped(backend: str, make: Make) -> None:
    """After a connection that broke, the next request opens another and is answered."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await (connection.aclose() if len(server.requests) == 1 else connection.send(ACCEPTED))

        server = KeepAlive(answer)
        async with listening(server) as address, client(make) as http:
            with pytest.raises(httpx.TransportError):
                await http.get(f"http://{address}/")
            for _ in range(3):
                assert (await http.get(f"http://{address}/")).status_code == 202
            assert (server.connections, server.open) == (2, 1)

    anyio.run(main, backend=backend)


@both_backends
@each_transport
@pytest.mark.parametrize(
    "last_words", [ACCEPTED, ACCEPTED.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)], ids=["silently", "as it said"]
)
def test_an_idle_lane_that_the_cloud_closed_is_opened_again(backend: str, make: Make, last_words: bytes) -> None:
    """A connection that the cloud closed while it was idle costs no request."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await connection.send(last_words)
            await connection.aclose()

        server = KeepAlive(answer)
        async with listening(server) as address, client(make) as http:
            for count in range(1, 4):
                assert (await http.post(f"http://{address}/")).status_code == 202
                await server.until(lambda: server.open == 0)
                assert server.connections == count

    anyio.run(main, backend=backend)


@both_backends
@each_transport
def test_a_response_that_is_left_unread_breaks_no_lane(backend: str, make: Make) -> None:
    """A response that is closed before its end costs its connection, and nothing else."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await connection.send(DRIP)

        server = KeepAlive(answer)
        async with listening(server) as address, client(make) as http:
            for count in range(1, 4):
                async with http.stream("GET", f"http://{address}/"):
                    pass
                await server.until(lambda: server.open == 0)
                assert server.connections == count

    anyio.run(main, backend=backend)


@both_backends
@each_transport
@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 202", DRIP], ids=["no answer", "half a line", "half a body"])
def test_a_cancelled_request_leaves_no_broken_lane(backend: str, make: Make, head: bytes) -> None:
    """A request that is cancelled ends at once, its connection is closed, and the next is answered on another."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            if len(server.requests) == 1:
                if head:
                    await connection.send(head)
                scope.cancel()
                assert await read_request(connection) == b""
            else:
                await connection.send(ACCEPTED)

        server = KeepAlive(answer)
        async with listening(server) as address, client(make) as http:
            with anyio.CancelScope() as scope:
                await http.get(f"http://{address}/")
            assert scope.cancelled_caught
            await server.until(lambda: server.open == 0)
            for _ in range(2):
                assert (await http.get(f"http://{address}/")).status_code == 202
            assert (server.connections, server.open) == (2, 1)

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
@each_transport
@pytest.mark.parametrize("head", [b"", DRIP], ids=["no answer", "half a body"])
async def test_a_task_that_is_cancelled_natively_leaves_no_broken_lane(make: Make, head: bytes) -> None:
    """Asyncio's own cancellation leaves the transport as whole as a scope's does."""

    async def answer(connection: Connection) -> None:
        if len(server.requests) == 1:
            if head:
                await connection.send(head)
            task.cancel()
            assert await read_request(connection) == b""
        else:
            await connection.send(ACCEPTED)

    server = KeepAlive(answer)
    async with listening(server) as address, client(make) as http:
        task = asyncio.create_task(http.get(f"http://{address}/"))
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda: server.open == 0)
        for _ in range(2):
            assert (await http.get(f"http://{address}/")).status_code == 202
        assert (server.connections, server.open) == (2, 1)


@pytest.mark.asyncio
@each_transport
async def test_a_time_out_of_asyncio_leaves_no_broken_lane(make: Make) -> None:
    """`asyncio.wait_for` around requests, again and again, never starves the transport of connections."""
    is_slow = True

    async def answer(connection: Connection) -> None:
        if is_slow:
            assert await read_request(connection) == b""
        else:
            await connection.send(ACCEPTED)

    server = KeepAlive(answer)
    async with listening(server) as address, client(make) as http:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(http.get(f"http://{address}/"), 0.02)
        await server.until(lambda: server.open == 0)
        is_slow = False
        assert (await http.get(f"http://{address}/")).status_code == 202


@both_backends
@each_transport
def test_closing_closes_the_idle_lanes(backend: str, make: Make) -> None:
    """Closing the client closes every idle connection, and may be done twice."""

    async def main() -> None:
        server = KeepAlive(barrier(3))
        async with listening(server) as address:
            http = client(make)
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(http.get, f"http://{address}/")
            assert server.open == 3
            await http.aclose()
            await server.until(lambda: server.open == 0)
            await http.aclose()

    anyio.run(main, backend=backend)


@both_backends
@each_transport
@pytest.mark.parametrize("head", [b"", DRIP], ids=["no answer", "half a body"])
def test_closing_ends_what_is_in_flight(backend: str, make: Make, head: bytes) -> None:
    """Closing the client ends every request that is in flight with an error of httpx, and closes its connection."""

    async def main() -> None:
        errors: list[httpx.TransportError] = []

        async def answer(connection: Connection) -> None:
            if head:
                await connection.send(head)
            assert await read_request(connection) == b""

        async def request() -> None:
            with pytest.raises(httpx.TransportError) as caught:
                await http.get(f"http://{address}/")
            errors.append(caught.value)

        server = KeepAlive(answer)
        async with listening(server) as address:
            http = client(make)
            with anyio.fail_after(2):
                async with anyio.create_task_group() as group:
                    for _ in range(3):
                        group.start_soon(request)
                    await server.until(lambda: len(server.requests) == 3)
                    await http.aclose()
            assert len(errors) == 3
            await server.until(lambda: server.open == 0)

    anyio.run(main, backend=backend)


@both_backends
@each_transport
def test_closing_while_a_lane_connects_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, backend: str, make: Make
) -> None:
    """A request that is still connecting when the client is closed comes to an end, and so does its connection."""

    async def main() -> None:
        connected, released = anyio.Event(), anyio.Event()
        connect_tcp = anyio.connect_tcp

        async def wait() -> None:
            connected.set()
            await released.wait()

        async def connect_slowly(
            remote_host: str, remote_port: int, local_host: str | None = None
        ) -> anyio.abc.SocketStream:
            stream = await connect_tcp(remote_host, remote_port, local_host=local_host)
            await wait()
            return stream

        async def trace(event: str, _: object) -> None:
            # On trio httpcore does not connect by anyio.
            if event == "connection.connect_tcp.complete":
                await wait()

        async def request() -> None:
            with suppress(httpx.TransportError):
                await http.get(f"http://{address}/", extensions={"trace": trace})

        server = KeepAlive()
        async with listening(server) as address:
            monkeypatch.setattr(anyio, "connect_tcp", connect_slowly)
            http = client(make)
            with anyio.fail_after(2):
                async with anyio.create_task_group() as group:
                    group.start_soon(request)
                    await connected.wait()
                    await http.aclose()
                    released.set()
            await server.until(lambda: server.open == 0)

    anyio.run(main, backend=backend)


@both_backends
@each_transport
def test_a_response_that_outlives_the_lanes_frees_none(backend: str, make: Make) -> None:
    """A response that is closed after the transport gives back no lane: its connection is closed already."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await connection.send(DRIP)

        server = KeepAlive(answer)
        async with listening(server) as address:
            transport = make()
            first = await transport.handle_async_request(httpx.Request("GET", f"http://{address}/"))
            await transport.aclose()
            await first.aclose()
            await server.until(lambda: server.open == 0)
            with pytest.raises(httpx.ConnectError):
                await transport.handle_async_request(httpx.Request("GET", f"http://{address}/"))
            assert [number for number, _ in server.requests] == [1]

    anyio.run(main, backend=backend)
