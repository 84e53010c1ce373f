"""Lanes of our own: what their transport makes of time-outs, of turns, and of servers that do not keep to the rules."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import cast

import anyio
import anyio.abc
import anyio.lowlevel
import httpx
import pytest
from anyio.streams.tls import TLSStream

from bulkrestart.cloud import transport as transport_module
from bulkrestart.cloud.network import tls_context
from bulkrestart.cloud.transport import LaneTransport

from .certificates import Authority
from .loopback import (
    ACCEPTED,
    Connection,
    Handler,
    KeepAlive,
    both_backends,
    closed_port,
    lanes,
    leaves_generators,
    listening,
    read_request,
    reset,
    secured,
)

CONFLICT = b"HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n\r\nodd"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\nuntil the end"
#: Nothing of a request has left.
UNSENT = httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give somebody who issues certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


async def ask(
    transport: httpx.AsyncBaseTransport,
    url: str,
    *,
    method: str = "POST",
    content: bytes | AsyncIterator[bytes] = b"",
    timeout: Mapping[str, float] | None = None,
) -> httpx.Response:
    """Send one request, and read the answer to its end."""
    request = httpx.Request(method, url, content=content, extensions={"timeout": timeout or {}})
    response = await transport.handle_async_request(request)
    async with aclosing(response):
        await response.aread()
    return response


def saying(*replies: bytes) -> Callable[[Connection], Awaitable[None]]:
    """Answer one request after the other with these, whatever the connection; with the last for ever."""
    left = list(replies)

    async def answer(connection: Connection) -> None:
        await connection.send(left.pop(0) if len(left) > 1 else left[0])

    return answer


# Turns.


@both_backends
def test_who_finds_no_lane_waits_for_its_turn(backend: str) -> None:
    """No more lanes are busy than there may be, and those who wait are served in the order in which they came."""

    async def main() -> None:
        server = KeepAlive(hold := Holding())
        async with listening(server) as address, aclosing(lanes(2)) as transport, anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(ask, transport, f"http://{address}/{number}")
                await anyio.wait_all_tasks_blocked()
            for left in range(6, 0, -1):
                await hold.until(min(left, 2))
                await anyio.wait_all_tasks_blocked()
                assert hold.waiting == min(left, 2)
                hold.let_one_pass()
        paths = [request.split()[1] for _, request in server.requests]
        assert paths == [b"/%d" % number for number in range(6)]
        assert server.connections == 2

    anyio.run(main, backend=backend)


class Holding:
    """Answers the requests that it holds one by one, when it is told."""

    def __init__(self) -> None:
        self._events: list[anyio.Event] = []
        self._news = anyio.Event()

    @property
    def waiting(self) -> int:
        """How many it holds."""
        return len(self._events)

    async def until(self, waiting: int) -> None:
        """Wait until it holds so many."""
        with anyio.fail_after(5):
            while self.waiting != waiting:
                await self._news.wait()

    async def __call__(self, connection: Connection) -> None:
        """Hold a request."""
        self._events.append(event := anyio.Event())
        self._news.set()
        self._news = anyio.Event()
        await event.wait()
        await connection.send(ACCEPTED)

    def let_one_pass(self) -> None:
        """Answer the one that came first."""
        self._events.pop(0).set()


@both_backends
@pytest.mark.parametrize("end", ["in time", "cancelled"])
def test_who_gives_up_waiting_leaves_its_turn_to_the_next(backend: str, end: str) -> None:
    """A turn that is not waited for any more is not lost, and nothing was sent."""

    async def main() -> None:
        server = KeepAlive(hold := Holding())
        timeout = {"pool": 0.05} if end == "in time" else None

        async def give_up() -> None:
            with pytest.raises(httpx.PoolTimeout):
                await ask(transport, f"http://{address}/second", timeout=timeout)

        async with listening(server) as address, aclosing(lanes(1)) as transport, anyio.create_task_group() as group:
            group.start_soon(ask, transport, f"http://{address}/first")
            await hold.until(1)
            async with anyio.create_task_group() as second:
                second.start_soon(give_up)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(ask, transport, f"http://{address}/third")
                if end == "cancelled":
                    await anyio.wait_all_tasks_blocked()
                    second.cancel_scope.cancel()
            hold.let_one_pass()
            await hold.until(1)
            hold.let_one_pass()
        assert [request.split()[1] for _, request in server.requests] == [b"/first", b"/third"]

    anyio.run(main, backend=backend)


@both_backends
def test_closing_ends_who_waits(backend: str) -> None:
    """Who waits for a lane when the transport is closed is unsent; who has one is not."""

    async def main() -> None:
        errors: list[httpx.TransportError] = []

        async def request() -> None:
            with pytest.raises(httpx.TransportError) as caught:
                await ask(transport, f"http://{address}/")
            errors.append(caught.value)

        async def stall(connection: Connection) -> None:
            assert await read_request(connection) == b""

        server = KeepAlive(stall)
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(request)
                await server.until(lambda: len(server.requests) == 1)
                await transport.aclose()
            await server.until(lambda: server.open == 0)
        assert sorted(type(error).__name__ for error in errors) == ["ConnectError", "ConnectError", "ReadError"]
        assert {str(error) for error in errors} == {"the client is closed"}
        assert server.connections == 1

    anyio.run(main, backend=backend)


# Time-outs.


@leaves_generators
@both_backends
@pytest.mark.parametrize("phase", ["connect", "write", "read"])
def test_each_phase_has_its_time(backend: str, phase: str) -> None:
    """Each phase ends when its time is up, with its own error; its lane is closed, and the next request is served."""

    async def main() -> None:
        server = KeepAlive()

        async def handle(connection: Connection) -> None:
            is_stuck.append(True)
            if len(is_stuck) > 1:
                await server(connection)
            elif phase == "read":
                assert await read_request(connection)
                await connection.send(b"HTTP/1.1 202 Acc")
            await gone.wait()

        is_stuck: list[bool] = []
        gone = anyio.Event()
        errors = {"connect": httpx.ConnectTimeout, "write": httpx.WriteTimeout, "read": httpx.ReadTimeout}
        content = b"x" * 50_000_000 if phase == "write" else b""
        async with listening(handle) as address, aclosing(lanes(1)) as transport:
            scheme = "https" if phase == "connect" else "http"
            with anyio.fail_after(5), pytest.raises(errors[phase]) as caught:
                await ask(transport, f"{scheme}://{address}/", content=content, timeout={phase: 0.05})
            assert str(caught.value) == ""
            gone.set()
            assert (await ask(transport, f"http://{address}/")).status_code == 202
        assert len(is_stuck) == 2

    anyio.run(main, backend=backend)


@both_backends
def test_a_body_that_stalls_ends_in_time(backend: str) -> None:
    """The time to read is that of each piece, of the body too."""

    async def main() -> None:
        server = KeepAlive(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", ACCEPTED))
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            request = httpx.Request("GET", f"http://{address}/", extensions={"timeout": {"read": 0.05}})
            response = await transport.handle_async_request(request)
            with pytest.raises(httpx.ReadTimeout):
                await response.aread()
            await response.aclose()
            assert (await ask(transport, f"http://{address}/")).status_code == 202
        assert [number for number, _ in server.requests] == [1, 2]

    anyio.run(main, backend=backend)


# Whether a lane that was idle is used again.


@both_backends
@pytest.mark.parametrize(
    "last_words",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", id="close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1", id="the beginning of another"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + CONFLICT, id="another"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\x00\x00", id="rubbish"),
    ],
)
def test_a_lane_that_ends_with_its_answer_is_not_used_again(backend: str, last_words: bytes) -> None:
    """Where another answer cannot be told from what is left of the last, the next request goes over another lane."""

    async def main() -> None:
        server = KeepAlive(saying(last_words, last_words, ACCEPTED))
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            statuses = [(await ask(transport, f"http://{address}/")).status_code for _ in range(4)]
            assert statuses == [200, 200, 202, 202]
            assert [number for number, _ in server.requests] == [1, 2, 3, 3]
            await server.until(lambda: server.open == 1)

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("unasked", [CONFLICT, b"\x00", b"end", b"reset"])
@pytest.mark.parametrize("used", [1, 2])
def test_what_comes_unasked_costs_no_request(
    backend: str, authority: Authority, is_secured: bool, unasked: bytes, used: int
) -> None:
    """A lane on which something came while it was idle, be it its end, is replaced before anything is written to it."""

    async def main() -> None:
        told = anyio.Event()

        async def answer(connection: Connection) -> None:
            await connection.send(ACCEPTED)
            if len(server.requests) == used:
                await idle.wait()
                if unasked == b"reset" and not is_secured:
                    reset(connection)
                if unasked in (b"end", b"reset"):
                    await connection.aclose()
                else:
                    await connection.send(unasked)
                told.set()

        idle = anyio.Event()
        server = KeepAlive(answer)
        handler = secured(server, authority.server("127.0.0.1")) if is_secured else server
        trust = tls_context(cacert=authority.cacert)
        scheme = "https" if is_secured else "http"
        async with listening(handler) as address, aclosing(LaneTransport(trust, max_at_once=1)) as transport:
            for _ in range(used):
                assert (await ask(transport, f"{scheme}://{address}/")).status_code == 202
            idle.set()
            await told.wait()
            for _ in range(3):
                assert (await ask(transport, f"{scheme}://{address}/")).status_code == 202
            assert [number for number, _ in server.requests] == [1] * used + [2, 2, 2]

    anyio.run(main, backend=backend)


@both_backends
def test_nothing_is_read_ahead_from_a_new_lane(backend: str) -> None:
    """What comes unasked over a connection that was never waited for shows on its socket, on asyncio as well."""

    async def main() -> None:
        async def greet(connection: Connection) -> None:
            await paused.wait()
            await connection.send(ACCEPTED)
            greeted.set()
            assert await read_request(connection) == b""

        paused, greeted = anyio.Event(), anyio.Event()
        async with listening(greet) as address:
            host, _, port = address.rpartition(":")
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await transport_module._pause(stream)
                paused.set()
                await greeted.wait()
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
                raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 (anyio's `extra`, not Django's)
                assert transport_module.has_pending_data(raw.fileno())
            assert transport_module.has_pending_data(raw.fileno())

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("is_readable", [True, False], ids=["a record", "rubbish"])
def test_an_answer_that_follows_in_the_same_bytes_is_not_the_next_ones(
    backend: str, authority: Authority, is_readable: bool
) -> None:
    """Over TLS too, where what follows is a record of its own that comes with the first answer, or none at all."""

    async def main() -> None:
        held: list[Held] = []

        async def answer(connection: Connection) -> None:
            await connection.send(ACCEPTED)
            if len(server.requests) == 1:
                await (connection.send(CONFLICT) if is_readable else held[-1].send(b"\x17\x03\x03\x00\x05hello"))
            await held[-1].flush()

        async def handle(connection: Connection) -> None:
            held.append(Held(connection))
            stream = await TLSStream.wrap(held[-1], server_side=True, ssl_context=context, standard_compatible=False)
            held[-1].is_held = True
            # It has the same methods, as far as the server uses them.
            await server(cast(Connection, stream))

        server = KeepAlive(answer)
        context = authority.server("127.0.0.1")
        trust = tls_context(cacert=authority.cacert)
        async with listening(handle) as address, aclosing(LaneTransport(trust, max_at_once=1)) as transport:
            for _ in range(3):
                assert (await ask(transport, f"https://{address}/")).status_code == 202
        assert [number for number, _ in server.requests] == [1, 2, 2]

    anyio.run(main, backend=backend)


class Held(anyio.abc.ByteStream):
    """Sends what it is given together, when it is told.

    Attributes:
        is_held: Not before it is told.
    """

    def __init__(self, stream: Connection) -> None:
        self.is_held = False
        self._stream = stream
        self._kept = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive."""
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        """Send, or keep."""
        self._kept += item
        if not self.is_held:
            await self.flush()

    async def flush(self) -> None:
        """Send what was kept."""
        kept, self._kept = self._kept, b""
        await self._stream.send(kept)

    async def send_eof(self) -> None:
        """Send no more."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()


@both_backends
def test_a_lane_that_was_idle_for_long_is_not_used(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes that were idle for too long are closed, all of them, by the request that finds them."""

    async def main() -> None:
        hold = Holding()

        async def answer(connection: Connection) -> None:
            await (hold(connection) if len(server.requests) <= 3 else connection.send(ACCEPTED))

        server = KeepAlive(answer)
        async with listening(server) as address, aclosing(lanes(3)) as transport:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(ask, transport, f"http://{address}/")
                await hold.until(3)
                monkeypatch.setattr(transport_module, "_IDLE_LIFE", -1.0)
                for _ in range(3):
                    hold.let_one_pass()
            assert server.open == 3
            monkeypatch.setattr(transport_module, "_IDLE_LIFE", 60.0)
            for _ in range(2):
                await ask(transport, f"http://{address}/")
            assert [number for number, _ in server.requests[3:]] == [4, 4]
            await server.until(lambda: server.open == 1)

    anyio.run(main, backend=backend)


@both_backends
def test_two_servers_have_lanes_of_their_own(backend: str) -> None:
    """A lane is used for the server that it leads to, and for no other."""

    async def main() -> None:
        one, other = KeepAlive(), KeepAlive()
        async with listening(one) as here, listening(other) as there, aclosing(lanes(1)) as transport:
            for address in (here, there, here, there):
                await ask(transport, f"http://{address}/")
        assert (one.connections, len(one.requests)) == (1, 2)
        assert (other.connections, len(other.requests)) == (1, 2)

    anyio.run(main, backend=backend)


@both_backends
def test_a_lane_that_dies_under_a_request_is_not_replaced(backend: str) -> None:
    """From the first write on a request is nobody's to send again: it fails, and it came once."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await (connection.send(ACCEPTED) if len(server.requests) != 2 else connection.aclose())

        server = KeepAlive(answer)
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            await ask(transport, f"http://{address}/first")
            with pytest.raises(httpx.TransportError) as caught:
                await ask(transport, f"http://{address}/second")
            assert not isinstance(caught.value, UNSENT)
            await ask(transport, f"http://{address}/third")
        assert [request.split()[1] for _, request in server.requests] == [b"/first", b"/second", b"/third"]
        assert [number for number, _ in server.requests] == [1, 1, 2]

    anyio.run(main, backend=backend)


# Bodies.


@both_backends
@pytest.mark.parametrize("is_in_pieces", [False, True])
def test_a_coded_body_is_decoded(backend: str, is_in_pieces: bool) -> None:
    """A body that is compressed is read as what it holds, by httpx, whether it comes at once or in pieces."""

    async def main() -> None:
        body = gzip.compress(b"hello" * 100)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)

        async def answer(connection: Connection) -> None:
            for piece in [head, body[:10], body[10:]] if is_in_pieces else [head + body]:
                await connection.send(piece)
                await anyio.wait_all_tasks_blocked()

        server = KeepAlive(answer)
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            for _ in range(2):
                assert (await ask(transport, f"http://{address}/", method="GET")).content == b"hello" * 100
        assert server.connections == 1

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "TLS without notice"])
@pytest.mark.parametrize(
    ("reply", "is_whole"),
    [
        (UNTIL_THE_END, True),
        (UNTIL_THE_END.replace(b"OK\r\n", b"OK\r\nContent-Length: 13\r\n"), True),
        (UNTIL_THE_END.replace(b"OK\r\n", b"OK\r\nContent-Length: 14\r\n"), False),
    ],
    ids=["until the end", "length", "short"],
)
def test_the_end_of_the_connection_ends_only_what_has_no_other_end(
    backend: str, authority: Authority, is_secured: bool, reply: bytes, is_whole: bool
) -> None:
    """A body without a length ends with its connection; one that is shorter than its length is no body."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await connection.send(reply)
            await anyio.wait_all_tasks_blocked()
            await connection.aclose()

        server = KeepAlive(answer)
        handler = secured(server, authority.server("127.0.0.1")) if is_secured else server
        trust = tls_context(cacert=authority.cacert)
        url = "https://%s/" if is_secured else "http://%s/"
        async with listening(handler) as address, aclosing(LaneTransport(trust, max_at_once=1)) as transport:
            for _ in range(2):
                if is_whole:
                    assert (await ask(transport, url % address, method="GET")).content == b"until the end"
                    await server.until(lambda: server.open == 0)
                else:
                    with pytest.raises(httpx.RemoteProtocolError, match="in the middle of the body"):
                        await ask(transport, url % address, method="GET")
        assert server.connections == 2

    anyio.run(main, backend=backend)


@both_backends
def test_a_body_is_closed_once(backend: str) -> None:
    """A body that is closed gives nothing more, and closing it again frees no lane that another request has."""

    async def main() -> None:
        server = KeepAlive(hold := Holding())
        drip = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
        async with listening(saying(drip)) as other, listening(server) as address, aclosing(lanes(1)) as transport:
            response = await transport.handle_async_request(httpx.Request("GET", f"http://{other}/"))
            body = response.stream
            assert isinstance(body, httpx.AsyncByteStream)
            assert await anext(aiter(body)) == b"hello"
            await body.aclose()
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(ask, transport, f"http://{address}/")
                await hold.until(1)
                await body.aclose()
                assert [chunk async for chunk in body] == []
                await anyio.wait_all_tasks_blocked()
                assert (hold.waiting, len(server.requests)) == (1, 1)
                hold.let_one_pass()
                await hold.until(1)
                hold.let_one_pass()

    anyio.run(main, backend=backend)


@both_backends
def test_a_head_has_no_body(backend: str) -> None:
    """The answer to a HEAD is in with its head."""

    async def main() -> None:
        server = KeepAlive(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"))
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            for _ in range(2):
                assert (await ask(transport, f"http://{address}/", method="HEAD")).content == b""

    anyio.run(main, backend=backend)


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    """Give these one by one."""
    for piece in given:
        await anyio.lowlevel.checkpoint()
        yield piece


@both_backends
def test_a_request_in_pieces_is_framed(backend: str) -> None:
    """A body whose length nobody knows is sent in chunks, an empty piece of it left out."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            body = b""
            while not body.endswith(b"0\r\n\r\n"):
                body += await connection.receive()
            bodies.append(body)
            await connection.send(ACCEPTED)

        bodies: list[bytes] = []
        server = KeepAlive(answer)
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            large = b"x" * 100_000
            for _ in range(2):
                await ask(transport, f"http://{address}/", content=pieces(b"hello", b"", large, b"!"))
        framed = b"5\r\nhello\r\n186a0\r\n%b\r\n1\r\n!\r\n0\r\n\r\n" % large
        received = [
            request.partition(b"\r\n\r\n")[2] + body for (_, request), body in zip(server.requests, bodies, strict=True)
        ]
        assert received == [framed] * 2
        assert server.connections == 1

    anyio.run(main, backend=backend)


@leaves_generators
@both_backends
@pytest.mark.parametrize(
    "given", [[], [b"hell"], [b"hello", b"!"], [b"x" * 70_000]], ids=["none", "short", "long", "large"]
)
def test_a_body_that_is_not_as_long_as_it_says_is_not_sent(backend: str, given: list[bytes]) -> None:
    """A request that is not as long as its head says would let the next one be taken for a part of it."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            headers = {"Content-Length": "5"}
            request = httpx.Request("POST", f"http://{address}/", headers=headers, content=pieces(*given))
            with pytest.raises(httpx.LocalProtocolError):
                await transport.handle_async_request(request)
            assert (await ask(transport, f"http://{address}/next")).status_code == 202
        assert [request.split()[1] for _, request in server.requests] == [b"/next"]

    anyio.run(main, backend=backend)


@leaves_generators
@both_backends
def test_an_answer_may_come_before_the_request_is_written(backend: str) -> None:
    """A server may answer what it has not read; it is its answer, and the lane is not used again."""

    async def main() -> None:
        async def handle(connection: Connection) -> None:
            connections.append(connection)
            if len(connections) == 1:
                await connection.receive(100)
                await connection.send(CONFLICT)
                await answered.wait()
                reset(connection)
            else:
                await KeepAlive()(connection)

        async def content() -> AsyncIterator[bytes]:
            yield b"x" * 70_000
            await anyio.wait_all_tasks_blocked()
            answered.set()
            await anyio.wait_all_tasks_blocked()
            for _ in range(20):
                yield b"x" * 70_000

        answered = anyio.Event()
        connections: list[Connection] = []
        async with listening(handle) as address, aclosing(lanes(1)) as transport:
            # asyncio drops what has come when a write fails; then the fate of the request is unknown.
            with suppress(httpx.ReadError):
                assert (await ask(transport, f"http://{address}/", content=content())).status_code == 409
            assert (await ask(transport, f"http://{address}/")).status_code == 202
        assert len(connections) == 2

    anyio.run(main, backend=backend)


# What cannot be sent.


@both_backends
@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET / HTTP/1.1\r\nX: y\r\n\r\nPOST", {}),
        ("PO ST", {}),
        ("", {}),
        ("POST", {"X-Auth-Token": "secret\r\nX-Evil: 1"}),
        ("POST", {"X-Auth-Token": "secret\n"}),
        ("POST", {"X-Auth-Token": "secret\r"}),
        ("POST", {"X-Auth-Token": "secret\x00"}),
        ("POST", {"X-Auth-Token": "secret\x7f"}),
        ("POST", {"X Auth": "secret"}),
        ("POST", {"X-Auth:": "secret"}),
        ("POST", {"": "secret"}),
    ],
)
def test_what_would_end_a_line_is_not_sent(backend: str, method: str, headers: dict[str, str]) -> None:
    """Nothing in a request begins another line, or another request; and the error repeats no secret."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            request = httpx.Request(method, f"http://{address}/", headers=headers)
            with pytest.raises(httpx.LocalProtocolError) as caught:
                await transport.handle_async_request(request)
            assert "secret" not in str(caught.value)
            assert (await ask(transport, f"http://{address}/")).status_code == 202
        assert len(server.requests) == 1

    anyio.run(main, backend=backend)


@both_backends
def test_what_is_no_request_of_ours_is_not_sent(backend: str) -> None:
    """Neither another scheme than HTTP's, nor a body that blocks while it is read."""

    class Blocking(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            for scheme in ("ftp", "unix"):
                with pytest.raises(httpx.UnsupportedProtocol):
                    await ask(transport, f"{scheme}://{address}/")
            with pytest.raises(RuntimeError, match="synchronously"):
                await transport.handle_async_request(httpx.Request("POST", f"http://{address}/", stream=Blocking()))
            assert (await ask(transport, f"http://{address}/")).status_code == 202
        assert len(server.requests) == 1

    anyio.run(main, backend=backend)


# Connecting.


def closing(server: KeepAlive) -> Handler:
    """Close each connection when the server is done with it."""

    async def handle(connection: Connection) -> None:
        async with connection:
            await server(connection)

    return handle


@both_backends
def test_an_address_of_ipv6_is_one(backend: str) -> None:
    """An address in brackets is connected to, and named so."""

    async def main() -> None:
        server = KeepAlive()
        listener = await anyio.create_tcp_listener(local_host="::1")
        async with listener, anyio.create_task_group() as group, aclosing(lanes(1)) as transport:
            group.start_soon(listener.serve, closing(server))
            port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (anyio's `extra`, not Django's)
            assert (await ask(transport, f"http://[::1]:{port}/")).status_code == 202
            group.cancel_scope.cancel()
        assert b"\r\nHost: [::1]:%d\r\n" % port in server.requests[0][1]

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".test"], ids=["unknown", "too long"])
def test_a_host_that_is_none_is_a_connect_error(backend: str, host: str) -> None:
    """However a name fails to be one, it is the connection that failed, and the turn is another's."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            with pytest.raises(httpx.ConnectError):
                await ask(transport, f"http://{host}/")
            assert (await ask(transport, f"http://{address}/")).status_code == 202

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("way", ["answered", "nobody there"])
def test_the_trace_tells_what_may_have_left(backend: str, way: str) -> None:
    """The first write is told before it is made, once a connection stands, and never where there is none."""

    async def main() -> None:
        steps: list[str] = []

        async def trace(step: str, _: Mapping[str, object]) -> None:
            steps.append(step if server.connections == 0 or "http11" in step else f"{step} again")

        server = KeepAlive()
        async with listening(server) as address, aclosing(lanes(1)) as transport:
            url = f"http://{address}/" if way == "answered" else f"http://127.0.0.1:{closed_port()}/"
            request = httpx.Request("POST", url, extensions={"trace": trace})
            with suppress(httpx.ConnectError):
                await transport.handle_async_request(request)
        told = [
            "connection.wait.started",
            "http11.send_request_headers.started",
            "http11.receive_response_headers.complete",
        ]
        assert steps == (told if way == "answered" else told[:1])

    anyio.run(main, backend=backend)


# Cancellation.


async def answer_in_pieces(connection: Connection) -> None:
    """Answer so that there are many places to be cancelled at."""
    for piece in (b"HTTP/1.1 202 Acc", b"epted\r\nContent-", b"Length: 5\r\n\r\nhel", b"lo"):
        await connection.send(piece)
        await anyio.lowlevel.checkpoint()


@both_backends
@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "TLS"])
def test_a_request_that_is_cancelled_anywhere_breaks_nothing(
    backend: str, authority: Authority, is_secured: bool
) -> None:
    """Wherever a request is cancelled, the next one is answered with its own answer, and no lane is lost or kept."""

    async def main() -> None:
        server = KeepAlive(answer_in_pieces)
        handler = secured(server, authority.server("127.0.0.1")) if is_secured else server
        trust = tls_context(cacert=authority.cacert)
        url = "https://%s/" if is_secured else "http://%s/"
        async with listening(handler) as address, aclosing(LaneTransport(trust, max_at_once=1)) as transport:
            answered, passes = 0, 0
            while answered < 3:
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as group:
                        group.start_soon(cancel_after, passes, scope)
                        request = httpx.Request("POST", url % address)
                        response = await transport.handle_async_request(request)
                        async with aclosing(response):
                            assert await response.aread() == b"hello"
                        answered += 1
                        group.cancel_scope.cancel()
                with anyio.fail_after(5):
                    assert (await ask(transport, url % address)).content == b"hello"
                if passes % 3 == 0:
                    # From a new connection as well.
                    await transport._idle.popitem()[1].pop().aclose()
                passes += 1
            assert passes > 10
        await server.until(lambda: server.open == 0)

    anyio.run(main, backend=backend)


async def cancel_after(passes: int, scope: anyio.CancelScope) -> None:
    """Cancel after so many passes of the event loop."""
    for _ in range(passes):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.asyncio
async def test_a_task_that_is_cancelled_anywhere_breaks_nothing() -> None:
    """The same for a cancellation of asyncio's own, which comes once and through every shield."""
    server = KeepAlive(answer_in_pieces)
    async with listening(server) as address, aclosing(lanes(1)) as transport:
        answered, passes = 0, 0
        while answered < 3:
            task = asyncio.create_task(ask(transport, f"http://{address}/"))
            for _ in range(passes):
                await asyncio.sleep(0)
            task.cancel()
            try:
                assert (await task).content == b"hello"
                answered += 1
            except asyncio.CancelledError:
                pass
            async with asyncio.timeout(5):
                assert (await ask(transport, f"http://{address}/")).content == b"hello"
            passes += 1
        assert passes > 10
    await server.until(lambda: server.open == 0)


@both_backends
@pytest.mark.parametrize("is_followed", [False, True])
def test_much_that_arrives_at_once_is_read_with_pauses(backend: str, is_followed: bool) -> None:
    """Other tasks run while many small chunks are parsed, and what follows the answer is noticed all the same."""

    async def main() -> None:
        runs = 0

        async def count() -> None:
            nonlocal runs
            while True:
                runs += 1
                await anyio.lowlevel.checkpoint()

        fed: list[int] = []
        chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
        pieces = [chunks + ACCEPTED if is_followed else chunks]
        lane = transport_module._Lane(("http", "h", 80), cast(anyio.abc.ByteStream, Ready(pieces)), Ready(pieces))
        feed = lane.answers.feed

        def note(data: bytes) -> None:
            fed.append(runs)
            feed(data)

        lane.answers.feed = note  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            group.start_soon(count)
            await anyio.lowlevel.checkpoint()
            await lane.read(None)
            group.cancel_scope.cancel()
        assert len(fed) == 8
        assert fed[-1] > fed[0]
        assert (lane.answers.is_complete, lane.answers.may_follow) == (True, not is_followed)
        assert len(lane.answers.take()) == 20_000

    anyio.run(main, backend=backend)


class Ready:
    """Gives what is ready."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def extra(self, *_: object) -> None:
        """Have nothing to tell."""

    def fileno(self) -> int:
        """Give none."""
        return -1

    async def receive(self, _: int) -> bytes:
        """Give the next piece."""
        return self._pieces.pop(0)
