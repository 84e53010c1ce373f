"""An answer that no request asked for: it is never the answer to the next request of its connection."""

import ssl
from collections.abc import Callable
from contextlib import aclosing
from itertools import count
from typing import Final, cast

import anyio
import httpcore
import httpx
import pytest
from anyio.streams.tls import TLSStream

from bulkrestart.cloud import proxied
from bulkrestart.cloud.network import tls_context
from bulkrestart.cloud.proxied import ProxiedTransport
from bulkrestart.cloud.sender import AnsweredIds, Trace
from bulkrestart.cloud.transport import _READ_SIZE, LaneTransport, _LargeReads
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer, Unanswered

from .certificates import Authority
from .loopback import (
    ACCEPTED,
    TLS,
    Connection,
    Handler,
    KeepAlive,
    both_backends,
    compute_of,
    each_way,
    listening,
    read_request,
    secured,
    sender_of,
)

CONFLICT: Final = b"HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n\r\nodd"
BODY: Final = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"

Make = Callable[[ssl.SSLContext], httpx.AsyncBaseTransport]
each_transport = pytest.mark.parametrize(
    "make", [lambda context: LaneTransport(context, max_at_once=1), ProxiedTransport], ids=["lanes", "proxied"]
)
plain_and_secured = pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "TLS"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give somebody who issues certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


async def ask(transport: httpx.AsyncBaseTransport, url: str) -> int:
    """Send one request, read the answer to its end, and give its status."""
    response = await transport.handle_async_request(httpx.Request("POST", url))
    async with aclosing(response):
        await response.aread()
    return response.status_code


def served(server: Handler, authority: Authority, is_secured: bool) -> tuple[Handler, str]:
    """Let a server speak TLS or not; give the beginning of its URL."""
    return (secured(server, authority.server("127.0.0.1")), "https") if is_secured else (server, "http")


@pytest.mark.unmeasured
@both_backends
@each_transport
@plain_and_secured
@pytest.mark.parametrize("first", [ACCEPTED, BODY], ids=["no body", "a body"])
@pytest.mark.parametrize("unasked", [ACCEPTED, CONFLICT, CONFLICT[:20], b"\0", b"\r\n\r\nx"], ids=repr)
def test_what_comes_with_an_answer(
    backend: str, make: Make, authority: Authority, is_secured: bool, first: bytes, unasked: bytes
) -> None:
    """What comes in the same bytes as an answer ends the connection: the next request goes over another."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await connection.send(first + unasked if len(server.requests) == 1 else CONFLICT)

        server = KeepAlive(answer)
        handler, scheme = served(server, authority, is_secured)
        trust = tls_context(cacert=authority.cacert)
        async with listening(handler) as address, aclosing(make(trust)) as transport:
            assert [await ask(transport, f"{scheme}://{address}/") for _ in range(3)] == [202, 409, 409]
        assert [number for number, _ in server.requests] == [1, 2, 2]

    anyio.run(main, backend=backend)


@both_backends
@each_transport
def test_what_comes_in_a_record_of_its_own(backend: str, make: Make, authority: Authority) -> None:
    """Over TLS what follows may be in a record that is read together with the answer's."""

    async def main() -> None:
        async def handle(connection: Connection) -> None:
            joined = Joined(connection)
            stream = await TLSStream.wrap(joined, server_side=True, ssl_context=context, standard_compatible=False)
            # It has the same methods, as far as the server uses them.
            await server(cast(Connection, Joining(stream, joined)))

        async def answer(connection: Connection) -> None:
            joining = cast(Joining, connection)
            joining.joined.is_held = len(server.requests) == 1
            await joining.send(BODY if len(server.requests) == 1 else CONFLICT)
            if joining.joined.is_held:
                await joining.send(ACCEPTED)
                await joining.joined.flush()

        server = KeepAlive(answer)
        context = authority.server("127.0.0.1")
        trust = tls_context(cacert=authority.cacert)
        async with listening(handle) as address, aclosing(make(trust)) as transport:
            assert [await ask(transport, f"https://{address}/") for _ in range(3)] == [202, 409, 409]
        assert [number for number, _ in server.requests] == [1, 2, 2]

    anyio.run(main, backend=backend)


class Joined(anyio.abc.ByteStream):
    """A connection that holds back what is sent while it is told to, and sends it together."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held = b""
        self.is_held = False

    async def send(self, item: bytes) -> None:
        """Send, or hold back."""
        self._held += item
        if not self.is_held:
            await self.flush()

    async def flush(self) -> None:
        """Send what was held back."""
        held, self._held, self.is_held = self._held, b"", False
        await self._connection.send(held)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive."""
        return await self._connection.receive(max_bytes)

    async def send_eof(self) -> None:
        """Send no more."""
        await self._connection.send_eof()

    async def aclose(self) -> None:
        """Close."""
        await self._connection.aclose()


class Joining:
    """A TLS stream over such a connection."""

    def __init__(self, stream: TLSStream, joined: Joined) -> None:
        self.send, self.receive, self.aclose = stream.send, stream.receive, stream.aclose
        self.joined = joined


@both_backends
@each_transport
@plain_and_secured
@pytest.mark.parametrize("unasked", [ACCEPTED, b"\0", b""], ids=["an answer", "rubbish", "the end"])
def test_what_comes_while_idle(
    backend: str, make: Make, authority: Authority, is_secured: bool, unasked: bytes
) -> None:
    """What comes on an idle connection ends it before the next request is written."""

    async def main() -> None:
        idle, told = anyio.Event(), anyio.Event()

        async def answer(connection: Connection) -> None:
            await connection.send(ACCEPTED if len(server.requests) == 1 else CONFLICT)
            if len(server.requests) == 1:
                await idle.wait()
                await (connection.send(unasked) if unasked else connection.aclose())
                told.set()

        server = KeepAlive(answer)
        handler, scheme = served(server, authority, is_secured)
        trust = tls_context(cacert=authority.cacert)
        async with listening(handler) as address, aclosing(make(trust)) as transport:
            assert await ask(transport, f"{scheme}://{address}/") == 202
            idle.set()
            await told.wait()
            assert [await ask(transport, f"{scheme}://{address}/") for _ in range(2)] == [409, 409]
        assert [number for number, _ in server.requests] == [1, 2, 2]

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("is_tunnel", [False, True], ids=["forwarding", "tunnel"])
def test_what_comes_through_a_proxy(backend: str, authority: Authority, is_tunnel: bool) -> None:
    """A real proxy makes no difference: httpcore has a connection of another kind for each."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await connection.send(BODY + ACCEPTED if len(server.requests) == 1 else CONFLICT)

        async def tunnel(connection: Connection) -> None:
            assert (await read_request(connection)).startswith(b"CONNECT")
            await connection.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            await secured(server, authority.server("cloud.test"))(connection)

        server = KeepAlive(answer)
        trust = tls_context(cacert=authority.cacert)
        url = "https://cloud.test/" if is_tunnel else "http://cloud.test/"
        async with (
            listening(tunnel if is_tunnel else server) as address,
            aclosing(ProxiedTransport(trust, httpx.Proxy(f"http://{address}"))) as transport,
        ):
            assert [await ask(transport, url) for _ in range(3)] == [202, 409, 409]
        assert [number for number, _ in server.requests] == [1, 2, 2]

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("looks", [[True, True, False], [False], [True, False]], ids=["written", "answered", "taken"])
def test_the_connection_is_looked_at_until_the_write(
    backend: str, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a proxy a lane is looked at with its answer, when it is taken, and right before httpcore writes."""

    async def main() -> None:
        steps: list[str] = []

        async def trace(step: str, _: object) -> None:
            steps.append(step)

        left = [True, *looks]
        monkeypatch.setattr(proxied._Lane, "is_silent", lambda _: left.pop(0) if left else True)
        server = KeepAlive()
        async with listening(server) as address, aclosing(ProxiedTransport(TLS)) as transport:
            for _ in range(3):
                request = httpx.Request("POST", f"http://{address}/", extensions={"trace": trace})
                async with aclosing(await transport.handle_async_request(request)) as response:
                    await response.aread()
                assert request.extensions == {"trace": trace}
        assert [number for number, _ in server.requests] == [1, 2, 2]
        assert steps.count("http11.send_request_headers.started") == 3

    anyio.run(main, backend=backend)


@both_backends
def test_a_lane_that_cannot_be_looked_into_is_not_used_again(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where httpcore keeps what it has read elsewhere, each request has a connection of its own."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, aclosing(ProxiedTransport(TLS)) as transport:
            monkeypatch.setattr(httpcore.AsyncConnectionPool, "connections", property(lambda _: [object()]))
            assert [await ask(transport, f"http://{address}/") for _ in range(3)] == [202] * 3
        assert [number for number, _ in server.requests] == [1, 2, 3]

    anyio.run(main, backend=backend)


@both_backends
def test_a_long_answer_through_a_proxy_ends_its_connection(backend: str) -> None:
    """Of what asyncio read beyond 64 KiB the rest is in anyio's hands, where it is not seen."""

    async def main() -> None:
        body = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000

        async def answer(connection: Connection) -> None:
            await connection.send(body if len(server.requests) == 1 else ACCEPTED)

        server = KeepAlive(answer)
        async with listening(server) as address, aclosing(ProxiedTransport(TLS)) as transport:
            assert [await ask(transport, f"http://{address}/") for _ in range(3)] == [200, 202, 202]
        assert [number for number, _ in server.requests] == [1, 2, 2]

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
async def test_tls_reads_as_much_as_asyncio_does() -> None:
    """What asyncio has read is taken whole, so that nothing stays where it is not seen."""

    class Asked(Joined):
        async def receive(self, max_bytes: int = 65536) -> bytes:
            return b"%d" % max_bytes

    sent: list[bytes] = []

    class Sent:
        async def send(self, item: bytes) -> None:
            sent.append(item)

        async def send_eof(self) -> None:
            sent.append(b"eof")

        async def aclose(self) -> None:
            sent.append(b"closed")

    stream = _LargeReads(Asked(cast(Connection, Sent())))
    assert await stream.receive() == b"%d" % _READ_SIZE
    await stream.send(b"hello")
    await stream.send_eof()
    await stream.aclose()
    assert sent == [b"hello", b"eof", b"closed"]


# An answer that comes twice, when the next request is on its way already.


def accepted(number: int) -> bytes:
    """Accept, with an id as Nova gives it."""
    return b"HTTP/1.1 202 Accepted\r\nX-Compute-Request-Id: req-%d\r\nContent-Length: 0\r\n\r\n" % number


@both_backends
@each_way
def test_an_answer_that_comes_twice_is_not_the_next_ones(backend: str, way: str) -> None:
    """It has the id of the answer before; its connection is closed, so that no later answer is shifted either."""

    async def main() -> None:
        numbers = count(1)

        async def answer(connection: Connection) -> None:
            number = next(numbers)
            if number == 5:
                # The one before, late, and behind it the right one.
                await connection.send(accepted(4))
            await connection.send(accepted(number))

        server = KeepAlive(answer)
        async with listening(server) as address, sender_of(way) as sender:
            compute = compute_of(sender, f"http://{address}")
            seen = [await compute.reboot("s", RebootType.SOFT) for _ in range(7)]
        words = "RemoteProtocolError: the answer carries the request id of an earlier answer"
        assert seen[4] == Unanswered(words)
        ids = [answer.fault.request_id if isinstance(answer, Answer) else "" for answer in seen]
        assert ids == ["req-1", "req-2", "req-3", "req-4", "", "req-6", "req-7"]
        assert [number for number, _ in server.requests] == [1, 1, 1, 1, 1, 2, 2]

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("ids", "extra", "is_repeated"),
    [
        pytest.param([b"a", b"b", b"c", b"c"], [], True, id="Nova's id"),
        pytest.param([b"a", b"b", b"c", b"a"], [], True, id="of an answer before"),
        pytest.param([b"a", b"b", b"c", b"c"], [(b"Age", b"5")], False, id="a cache says so"),
        pytest.param([b"a", b"a", b"a", b"a"], [], False, id="always the same"),
        pytest.param([b"a", b"b", b"a", b"b"], [], False, id="too few to tell"),
    ],
)
async def test_when_an_id_add(ids: list[bytes], extra: list[tuple[bytes, bytes]], is_repeated: bool) -> None:
    """An id that comes twice is a repeated answer, unless a cache gave it, or the cloud's ids do not differ."""
    answered = AnsweredIds()
    step = "http11.receive_response_headers.complete"
    for number, one in enumerate(ids, 1):
        # Both headers of one answer carry the same id.
        headers = [(b"x-openstack-request-id", one), (b"X-Compute-Request-Id", one), (b"Via", b"a"), *extra]
        told: dict[str, object] = {"return_value": (b"HTTP/1.1", 202, b"", headers)}
        if number == len(ids) and is_repeated:
            with pytest.raises(httpx.RemoteProtocolError, match="request id"):
                await Trace(answered=answered)(step, told)
        else:
            await Trace(answered=answered)(step, told)
        await Trace()(step, told)


@pytest.mark.asyncio
@pytest.mark.parametrize("told", [None, (), (b"HTTP/1.1", 202), "odd", [1]])
async def test_a_head_of_another_shape_is_left_alone(told: object) -> None:
    """A transport that tells something else is none of ours."""
    await Trace(answered=AnsweredIds())("http2.receive_response_headers.complete", {"return_value": told})


def test_only_the_latest_ids_are_remembered() -> None:
    """Memory does not grow with the number of requests."""
    answered = AnsweredIds()
    for number in range(10_000):
        assert not answered.add(b"%d" % number)
    assert len(answered._latest | answered._before) <= 4096
    assert [answered.add(b"%d" % number) for number in (9_999, 8_000, 0)] == [True, True, False]
