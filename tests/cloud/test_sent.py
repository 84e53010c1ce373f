"""Whether a request that failed may have been seen by the cloud: the line between sending again and looking first.

*Unsent* licenses a second POST, so the server tells in each such case that no request came.
"""

import gzip
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import anyio
import httpx
import pytest

from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.sender import Sender
from bulkrestart.core.faults import Body
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent

from .loopback import (
    ACCEPTED,
    TLS,
    Connection,
    KeepAlive,
    both_backends,
    by_each_way,
    client_of,
    closed_port,
    compute_of,
    each_lent_client,
    each_way,
    leaves_generators,
    listening,
    open_sender,
    read_request,
    reset,
    sender_of,
)

SOFT = RebootType.SOFT


def send(compute: Compute) -> Awaitable[Observation]:
    """Send the reboot."""
    return compute.reboot("s", SOFT)


# What the network does.


async def close_unread(connection: Connection) -> None:
    """Close before anything is read."""


async def close_read(connection: Connection) -> None:
    """Read the request, and close."""
    assert await read_request(connection)


async def reset_unread(connection: Connection) -> None:
    """Reset before anything is read."""
    reset(connection)


async def reset_read(connection: Connection) -> None:
    """Read the request, and reset."""
    assert await read_request(connection)
    reset(connection)


async def stall(connection: Connection) -> None:
    """Read the request, and say nothing until the client goes."""
    assert await read_request(connection)
    await hold(connection)


async def hold(connection: Connection) -> None:
    """Say nothing to a request that was read, until the client goes."""
    assert await read_request(connection) == b""


def saying(reply: bytes) -> Callable[[Connection], Awaitable[None]]:
    """Read the request, say this, and close."""

    async def handle(connection: Connection) -> None:
        assert await read_request(connection)
        await connection.send(reply)

    return handle


@leaves_generators
@both_backends
@each_way
@pytest.mark.parametrize(
    "handle",
    [
        pytest.param(close_unread, id="closed before it was read"),
        pytest.param(close_read, id="closed after it was read"),
        pytest.param(reset_unread, id="reset before it was read"),
        pytest.param(reset_read, id="reset after it was read"),
        pytest.param(saying(b"this is not HTTP\r\n\r\n"), id="garbage"),
        pytest.param(saying(b"\x00" * 1000), id="zeros"),
        pytest.param(saying(b"HTTP/1.1 202"), id="half a status line"),
        pytest.param(saying(b"HTTP/1.1 202 Accepted\r\nContent-Le"), id="half a head"),
        pytest.param(saying(b"HTTP/1.1 100 Continue\r\n\r\n"), id="only Continue"),
        pytest.param(saying(b"HTTP/1.1 202 Accepted\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"), id="endless head"),
        pytest.param(saying(b"HTTP/1.1 999999 Odd\r\n\r\n"), id="status that is none"),
    ],
)
def test_after_the_first_byte_it_is_unanswered(
    backend: str, way: str, handle: Callable[[Connection], Awaitable[None]]
) -> None:
    """Once a connection stands, nothing that goes wrong is unsent, not even a close before a byte was read."""

    async def main() -> None:
        async with listening(handle) as address, sender_of(way) as sender:
            seen = await send(compute_of(sender, f"http://{address}", timeout=1.0))
        assert isinstance(seen, Unanswered)
        assert seen.words

    anyio.run(main, backend=backend)


@leaves_generators
@both_backends
def test_a_stall_is_unanswered(backend: str) -> None:
    """What was read, and never answered, is not unsent either."""

    async def main() -> None:
        async with listening(stall) as address:

            async def ask(sender: Sender) -> None:
                seen = await send(compute_of(sender, f"http://{address}", timeout=1.0))
                assert isinstance(seen, Unanswered)
                assert seen.words

            await by_each_way(ask)

    anyio.run(main, backend=backend)


@both_backends
@each_way
def test_a_port_where_nobody_listens_is_unsent(backend: str, way: str) -> None:
    """A connection that is refused is unsent."""

    async def main() -> None:
        async with sender_of(way) as sender:
            seen = await send(compute_of(sender, f"http://127.0.0.1:{closed_port()}"))
        assert isinstance(seen, Unsent)
        assert seen.words.startswith("ConnectError")

    anyio.run(main, backend=backend)


@both_backends
@each_way
def test_a_name_that_does_not_resolve_is_unsent(backend: str, way: str) -> None:
    """A name that does not resolve is unsent (`.invalid` never does: RFC 6761, section 6.4)."""

    async def main() -> None:
        async with sender_of(way) as sender:
            seen = await send(compute_of(sender, "http://nowhere.invalid"))
        assert isinstance(seen, Unsent)

    anyio.run(main, backend=backend)


@both_backends
@each_way
@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["answered in plain", "closed"])
def test_tls_to_a_plain_port_is_unsent(backend: str, way: str, reply: bytes) -> None:
    """A connection that could not be secured carried no request."""

    async def main() -> None:
        async def handle(connection: Connection) -> None:
            assert b"reboot" not in await connection.receive()
            await connection.send(reply)

        async with listening(handle) as address, sender_of(way) as sender:
            seen = await send(compute_of(sender, f"https://{address}"))
        assert isinstance(seen, Unsent)

    anyio.run(main, backend=backend)


async def read_all(connection: Connection) -> None:
    """Read until the client leaves, and never answer its TLS."""
    received = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while chunk := await connection.receive():
            received += chunk
            assert b"reboot" not in received


def connecting_within(sender: Sender, seconds: float, monkeypatch: pytest.MonkeyPatch) -> Sender:
    """Bound connecting alone, so that a busy machine cannot run out of the time for the whole request first."""
    write = sender.write

    def write_impatiently(*args: Any, **options: Any) -> httpx.Request:
        request = write(*args, **options)
        request.extensions["timeout"] = {**request.extensions["timeout"], "connect": seconds}
        return request

    monkeypatch.setattr(sender, "write", write_impatiently)
    return sender


@both_backends
@each_way
def test_tls_that_stalls_is_unsent(backend: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake that never ends is unsent, within the time for connecting."""

    async def main() -> None:
        async with listening(read_all) as address, sender_of(way) as sender:
            impatient = connecting_within(sender, 0.1, monkeypatch)
            seen = await send(compute_of(impatient, f"https://{address}", timeout=30.0))
            assert seen == Unsent(f"ConnectTimeout: ETIMEDOUT {address}: no connection in time")

    anyio.run(main, backend=backend)


@both_backends
# A lent client of httpx leaves the connection open.
@pytest.mark.parametrize("way", ["lanes", "proxied", "lent lanes"])
@pytest.mark.parametrize("end", ["time-out", "cancelled"])
def test_tls_that_is_abandoned_leaves_no_connection(backend: str, way: str, end: str) -> None:
    """Whatever ends a request during its handshake, its connection is closed."""

    async def main() -> None:
        began, left = anyio.Event(), anyio.Event()

        async def handle(connection: Connection) -> None:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await connection.receive()
                began.set()
            await read_all(connection)
            left.set()

        async with listening(handle) as address:
            sender, close = open_sender(way)
            compute = compute_of(sender, f"https://{address}", timeout=0.5 if end == "time-out" else 30.0)
            async with anyio.create_task_group() as group:
                group.start_soon(compute.reboot, "s", SOFT)
                if end == "cancelled":
                    await began.wait()
                    group.cancel_scope.cancel()
            with anyio.fail_after(5):
                await left.wait()
            await close()

    anyio.run(main, backend=backend)


@both_backends
def test_connecting_for_longer_than_the_whole_request_is_unsent(backend: str) -> None:
    """When time is up while it still connects (phases that add up), it is unsent."""

    async def main() -> None:
        class Slow(httpx.AsyncBaseTransport):
            """Tells what httpcore tells while it connects, and connects for ever."""

            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                await request.extensions["trace"]("connection.connect_tcp.started", {})
                while True:
                    await anyio.sleep_forever()

        seen = await send(compute_of(httpx.AsyncClient(transport=Slow()), timeout=0.1))
        assert seen == Unsent("no answer within 0.1 s")

    anyio.run(main, backend=backend)


@both_backends
def test_a_pool_without_a_free_connection_is_unsent(backend: str) -> None:
    """A request that found no free connection in a lent client's pool is unsent; the one in its way is not."""

    async def main() -> None:
        server = KeepAlive(hold)
        limits = httpx.Limits(max_connections=1)
        seen: list[Observation] = []

        async with listening(server) as address, httpx.AsyncClient(limits=limits, verify=TLS, trust_env=False) as http:
            compute = compute_of(http, f"http://{address}", timeout=1.0)

            async def request() -> None:
                seen.append(await send(compute))

            async with anyio.create_task_group() as group:
                group.start_soon(request)
                await server.until(lambda: len(server.requests) == 1)
                group.start_soon(request)
        assert seen[0] == Unsent("PoolTimeout")
        assert isinstance(seen[1], Unanswered)
        assert len(server.requests) == 1

    anyio.run(main, backend=backend)


@both_backends
@each_way
def test_on_a_connection_that_stood_it_is_unanswered(backend: str, way: str) -> None:
    """A request over a connection that is used again tells of no connecting, and its loss is unanswered."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await (connection.send(ACCEPTED) if len(server.requests) == 1 else connection.aclose())

        server = KeepAlive(answer)
        async with listening(server) as address, sender_of(way) as sender:
            compute = compute_of(sender, f"http://{address}")
            assert await send(compute) == Answer(202)
            assert isinstance(await send(compute), Unanswered)
        assert [number for number, _ in server.requests] == [1, 1]

    anyio.run(main, backend=backend)


@both_backends
@each_way
def test_a_client_that_is_closed_sends_nothing(backend: str, way: str) -> None:
    """A request through a client that is closed is unsent."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address:
            sender, close_sender = open_sender(way)
            compute = compute_of(sender, f"http://{address}")
            assert await send(compute) == Answer(202)
            await close_sender()
            assert isinstance(await send(compute), Unsent)
        assert len(server.requests) == 1

    anyio.run(main, backend=backend)


@both_backends
@each_way
def test_a_client_that_is_closed_meanwhile_is_unanswered(backend: str, way: str) -> None:
    """A request that the server has when the client is closed is unanswered: it may be carried out all the same."""

    async def main() -> None:
        server = KeepAlive(hold)
        seen: list[Observation] = []
        async with listening(server) as address:
            sender, close_sender = open_sender(way)
            compute = compute_of(sender, f"http://{address}")

            async def request() -> None:
                seen.append(await send(compute))

            async with anyio.create_task_group() as group:
                group.start_soon(request)
                await server.until(lambda: len(server.requests) == 1)
                await close_sender()
        assert [type(one) for one in seen] == [Unanswered]

    anyio.run(main, backend=backend)


# What a lent client's own parts do.


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectTimeout("a reply that never came"),
        httpx.ConnectError("a reply that never came"),
        httpx.ReadTimeout(""),
        httpx.RemoteProtocolError("closed"),
        httpx.ProxyError("502"),
        TimeoutError(),
        ConnectionResetError(104, "reset"),
        RuntimeError("odd"),
        ExceptionGroup("several", [OSError("a"), OSError("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_transport_that_tells_nothing_is_not_believed(error: Exception) -> None:
    """A foreign transport names its errors as it likes (httpx-aiohttp: ConnectTimeout for a lost reply): unanswered."""

    async def lose(request: httpx.Request) -> httpx.Response:
        await request.aread()
        raise error

    seen = await send(compute_of(httpx.AsyncClient(transport=httpx.MockTransport(lose))))
    assert isinstance(seen, Unanswered)
    assert seen.words.startswith(type(error).__name__)


@pytest.mark.asyncio
async def test_a_foreign_pool_that_is_exhausted_is_unsent() -> None:
    """A PoolTimeout is unsent whoever raises it: it has no other meaning."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.PoolTimeout("")

    seen = await send(compute_of(httpx.AsyncClient(transport=httpx.MockTransport(refuse))))
    assert seen == Unsent("PoolTimeout")


class SignIn(httpx.Auth):
    """Signs in at a place of its own before every request that has no token yet."""

    def __init__(self, url: str, *, is_checked: bool = False, timeout: float | None = 0.2) -> None:
        self._url = url
        self._is_checked = is_checked
        self._timeout = timeout

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign in, then send."""
        response = yield httpx.Request("POST", self._url, extensions={"timeout": {"read": self._timeout}})
        if self._is_checked:
            response.raise_for_status()
        request.headers["X-Auth-Token"] = "issued"
        yield request


@both_backends
@each_way
@pytest.mark.parametrize("handle", [None, close_read, reset_read, stall, saying(b"odd\r\n\r\n")])
def test_a_sign_in_that_fails_leaves_the_request_unsent(
    backend: str, way: str, handle: Callable[[Connection], Awaitable[None]] | None
) -> None:
    """A sign-in inside an auth flow that fails, in whatever way, is no send of ours."""

    async def main() -> None:
        server = KeepAlive()
        async with (
            listening(server) as address,
            listening(handle or close_unread) as keystone,
            sender_of(way) as sender,
        ):
            keystone = keystone if handle is not None else f"127.0.0.1:{closed_port()}"
            auth = SignIn(f"http://{keystone}/v3/auth/tokens")
            seen = await send(compute_of(sender, f"http://{address}", auth=auth))
        assert isinstance(seen, Unsent)
        assert server.requests == []

    anyio.run(main, backend=backend)


@both_backends
@each_way
def test_a_sign_in_that_is_refused_leaves_the_request_unsent(backend: str, way: str) -> None:
    """An auth flow that raises for the status of its sign-in has sent nothing of ours."""

    async def main() -> None:
        server = KeepAlive()
        refuse = saying(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        async with listening(server) as address, listening(refuse) as keystone, sender_of(way) as sender:
            auth = SignIn(f"http://{keystone}/v3/auth/tokens", is_checked=True)
            seen = await send(compute_of(sender, f"http://{address}", auth=auth))
        assert isinstance(seen, Unsent)
        assert server.requests == []

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("handle", [close_read, reset_read, stall])
def test_a_request_that_is_lost_after_its_sign_in_is_unanswered(
    backend: str, handle: Callable[[Connection], Awaitable[None]]
) -> None:
    """A sign-in that went well proves nothing about the request that followed it."""

    async def main() -> None:
        async with listening(handle) as address, listening(KeepAlive()) as keystone:

            async def ask(sender: Sender) -> None:
                auth = SignIn(f"http://{keystone}/v3/auth/tokens")
                seen = await send(compute_of(sender, f"http://{address}", auth=auth, timeout=1.0))
                assert isinstance(seen, Unanswered)

            await by_each_way(ask)

    anyio.run(main, backend=backend)


@both_backends
def test_a_sign_in_that_stalls_is_bounded(backend: str) -> None:
    """A sign-in without a time-out of its own is given up with the request, of which nothing was sent."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, listening(stall) as keystone:

            async def ask(sender: Sender) -> None:
                auth = SignIn(f"http://{keystone}/v3/auth/tokens", timeout=None)
                seen = await send(compute_of(sender, f"http://{address}", auth=auth, timeout=1.0))
                assert isinstance(seen, Unsent | Unanswered)
                assert seen.words == "no answer within 1 s"

            await by_each_way(ask)
        assert server.requests == []

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
async def test_an_auth_flow_that_raises_is_never_an_error_of_ours() -> None:
    """An auth flow that raises in a way of its own sends nothing: it is unsent, or as good as unanswered."""

    class Broken(httpx.Auth):
        async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
            raise RuntimeError("no password")
            yield request

    server = KeepAlive()
    async with listening(server) as address, client_of("lent") as http:
        seen = await send(compute_of(http, f"http://{address}", auth=Broken()))
    assert isinstance(seen, Unsent | Unanswered)
    assert seen.words == "RuntimeError: no password"
    assert server.requests == []


class SignUrl(httpx.Auth):
    """Sends a signed copy of the request, as schemes do that sign the query."""

    def __init__(self, query: dict[str, str]) -> None:
        self._query = query

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the copy."""
        url = request.url.copy_merge_params(self._query)
        yield httpx.Request(request.method, url, headers=request.headers, content=request.content)


each_signature = pytest.mark.parametrize("query", [{}, {"X-Signature": "abc"}], ids=["in a header", "in the query"])


@both_backends
@each_way
@each_signature
def test_a_signed_copy_that_is_lost_is_unanswered(backend: str, way: str, query: dict[str, str]) -> None:
    """An auth flow may send a copy of the request; the copy is the reboot, and its loss is unanswered."""

    async def main() -> None:
        async with listening(close_read) as address, sender_of(way) as sender:
            seen = await send(compute_of(sender, f"http://{address}", auth=SignUrl(query)))
        assert isinstance(seen, Unanswered)

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
@each_signature
async def test_a_signed_copy_that_is_answered_is_no_redirect(query: dict[str, str]) -> None:
    """The answer to a signed copy of the request is the answer to the request."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(202)))
    assert await send(compute_of(http, auth=SignUrl(query))) == Answer(202)


class SignOut(httpx.Auth):
    """Sends, and then signs out."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send, then sign out."""
        yield request
        yield httpx.Request("DELETE", self._url)


@both_backends
@each_way
def test_a_sign_out_that_fails_does_not_unsend_the_request(backend: str, way: str) -> None:
    """What fails within an auth flow after the request was answered does not make the request unsent."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, sender_of(way) as sender:
            auth = SignOut(f"http://127.0.0.1:{closed_port()}/")
            seen = await send(compute_of(sender, f"http://{address}", auth=auth))
        assert len(server.requests) == 1
        assert not isinstance(seen, Unsent)

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [httpx.ConnectError("down"), httpx.PoolTimeout("full")], ids=repr)
async def test_a_sign_out_that_fails_over_a_foreign_transport_does_not_unsend_the_request(error: Exception) -> None:
    """The same over a transport that tells nothing, whatever the sign-out fails of."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.method == "DELETE":
            raise error
        return httpx.Response(202)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    seen = await send(compute_of(http, auth=SignOut("http://cloud.test/sign-out")))
    assert asked == ["POST", "DELETE"]
    assert not isinstance(seen, Unsent)


def raising(error: Exception) -> Callable[[object], Awaitable[None]]:
    """Make a hook that raises."""

    async def hook(_: object) -> None:
        raise error

    return hook


def calling(url: str) -> Callable[[object], Awaitable[None]]:
    """Make a hook that tells another service, which is not there."""

    async def hook(_: object) -> None:
        async with httpx.AsyncClient(verify=TLS, trust_env=False) as other:
            await other.post(url)

    return hook


@both_backends
@each_lent_client
@pytest.mark.parametrize("error", [RuntimeError("odd"), ValueError(), httpx.ReadError("odd"), httpx.InvalidURL("odd")])
def test_a_request_hook_that_raises_is_never_an_error_of_ours(backend: str, way: str, error: Exception) -> None:
    """A request hook that raises sends nothing and raises nothing: it is unsent, or as good as unanswered."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, client_of(way) as http:
            http.event_hooks = {"request": [raising(error)]}
            seen = await send(compute_of(http, f"http://{address}"))
        assert isinstance(seen, Unsent | Unanswered)
        assert seen.words.startswith(type(error).__name__)
        assert server.requests == []

    anyio.run(main, backend=backend)


@both_backends
@each_lent_client
@pytest.mark.parametrize("error", [RuntimeError("odd"), httpx.ReadError("odd"), httpx.ConnectError("odd")])
def test_a_response_hook_that_raises_is_unanswered(backend: str, way: str, error: Exception) -> None:
    """A response hook runs after the answer, so what it raises is never unsent."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, client_of(way) as http:
            http.event_hooks = {"response": [raising(error)]}
            seen = await send(compute_of(http, f"http://{address}"))
        assert isinstance(seen, Unanswered)
        assert len(server.requests) == 1

    anyio.run(main, backend=backend)


@both_backends
@each_lent_client
def test_a_response_hook_that_calls_elsewhere_is_unanswered(backend: str, way: str) -> None:
    """A response hook whose own request fails (an audit service that is down) does not make ours unsent."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, client_of(way) as http:
            http.event_hooks = {"response": [calling(f"http://127.0.0.1:{closed_port()}/audit")]}
            seen = await send(compute_of(http, f"http://{address}"))
        assert len(server.requests) == 1
        assert isinstance(seen, Unanswered)

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
async def test_a_response_hook_that_calls_elsewhere_over_a_foreign_transport_is_unanswered() -> None:
    """The same over a transport that tells nothing: an error of another request is no proof that ours never left."""

    def accept(request: httpx.Request) -> httpx.Response:
        return httpx.Response(202)

    http = httpx.AsyncClient(transport=httpx.MockTransport(accept))
    http.event_hooks = {"response": [calling(f"http://127.0.0.1:{closed_port()}/audit")]}
    assert isinstance(await send(compute_of(http)), Unanswered)


async def raise_for_status(response: httpx.Response) -> None:
    """Raise for the status, as httpx's documentation shows it."""
    response.raise_for_status()


async def read_and_raise_for_status(response: httpx.Response) -> None:
    """Read the body first, so that whoever catches the error can tell why."""
    await response.aread()
    response.raise_for_status()


@both_backends
@each_lent_client
@pytest.mark.parametrize(
    ("status", "reason"), [(202, b"Accepted"), (307, b"Temporary Redirect"), (409, b"Conflict"), (503, b"Unavailable")]
)
@pytest.mark.parametrize("hook", [raise_for_status, read_and_raise_for_status])
def test_a_hook_that_raises_for_the_status_hides_no_answer(
    backend: str, way: str, status: int, reason: bytes, hook: Callable[[httpx.Response], Awaitable[None]]
) -> None:
    """An answer is an answer, also where a lent client's hook raises for its status; so is a body that was read."""

    async def main() -> None:
        body = b'{"conflictingRequest": {"code": 409, "message": "Instance s is locked"}}'
        head = b"HTTP/1.1 %d %s\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n" % (status, reason, len(body))

        async def answer(connection: Connection) -> None:
            await connection.send(head + body)

        async with listening(KeepAlive(answer)) as address, client_of(way) as http:
            http.event_hooks = {"response": [hook]}
            seen = await send(compute_of(http, f"http://{address}"))
        assert isinstance(seen, Answer)
        assert (seen.status, seen.fault.retry_after, seen.is_redirected) == (status, 7.0, False)
        if hook is read_and_raise_for_status:
            assert (seen.fault.code, seen.fault.message) == ("conflictingRequest", "Instance s is locked")

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """A lent client that follows redirects does not follow ours: a 303 would make a GET of it, a 307 a second POST."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url}")
        return httpx.Response(status, headers={"Location": "http://elsewhere.test/"})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=True)
    seen = await send(compute_of(http))
    assert asked == ["POST http://cloud.test/v2.1/p/servers/s/action"]
    assert isinstance(seen, Answer)
    assert (seen.status, seen.is_redirect, seen.is_redirected) == (status, True, False)


@pytest.mark.asyncio
async def test_an_answer_to_another_request_is_told() -> None:
    """An auth flow that ends with a request of its own gives an answer that is not ours, and says so."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(202)))
    seen = await send(compute_of(http, auth=SignOut("http://cloud.test/sign-out")))
    assert isinstance(seen, Answer)
    assert seen.is_redirected


@both_backends
@each_lent_client
def test_a_body_that_a_hook_has_consumed_is_cut_short(backend: str, way: str) -> None:
    """A hook that takes the body for itself leaves an answer that says nothing, and no error."""

    async def main() -> None:
        async def consume(response: httpx.Response) -> None:
            async for _ in response.aiter_raw():
                pass

        reply = saying(b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}")
        async with listening(reply) as address, client_of(way) as http:
            http.event_hooks = {"response": [consume]}
            seen = await send(compute_of(http, f"http://{address}"))
        assert isinstance(seen, Answer)
        assert (seen.status, seen.fault.body) == (409, Body.CUT_SHORT)

    anyio.run(main, backend=backend)


@both_backends
@each_way
def test_a_cancelled_request_raises_its_cancellation(backend: str, way: str) -> None:
    """A cancellation from outside is never turned into an observation."""

    async def main() -> None:
        server = KeepAlive(hold)
        seen: list[Observation] = []
        async with listening(server) as address, sender_of(way) as sender:

            async def request() -> None:
                seen.append(await send(compute_of(sender, f"http://{address}")))

            async with anyio.create_task_group() as group:
                group.start_soon(request)
                await server.until(lambda: len(server.requests) == 1)
                group.cancel_scope.cancel()
        assert seen == []

    anyio.run(main, backend=backend)


# What a Content-Encoding says that is not true.

JSON: Final = b'{"conflictingRequest": {"message": "busy", "code": 409}}'


@leaves_generators
@both_backends
@each_way
@pytest.mark.parametrize(
    ("coding", "body", "words"),
    [
        ("gzip", JSON, "cannot be decoded (Content-Encoding: gzip)"),
        ("deflate", b"\xff" + JSON, "cannot be decoded (Content-Encoding: deflate)"),
        ("br", JSON, "cannot be decoded (Content-Encoding: br)"),
        ("gzip, gzip", gzip.compress(JSON, mtime=0), "cannot be decoded (Content-Encoding: gzip, gzip)"),
        ("zstd\r\nContent-Encoding: gzip", JSON, "cannot be decoded (Content-Encoding: zstd, gzip)"),
        (None, gzip.compress(JSON, mtime=0), "is in gzip, and no Content-Encoding says so"),
        ("identity", gzip.compress(JSON, mtime=0), "is in gzip, and no Content-Encoding says so"),
        ("utf-8", JSON, ""),
        ("gzip", gzip.compress(JSON, mtime=0), ""),
        ("gzip", b"", ""),
    ],
)
@pytest.mark.parametrize("status", [b"409 Conflict", b"202 Accepted"])
def test_a_coding_that_is_not_true_is_named(
    backend: str, way: str, coding: str | None, body: bytes, words: str, status: bytes
) -> None:
    """The answer says so, in place of the words that cannot be read."""
    header = b"" if coding is None else b"Content-Encoding: %b\r\n" % coding.encode()
    reply = b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, header, len(body), body)

    async def main() -> None:
        async with listening(saying(reply)) as address, sender_of(way) as sender:
            seen = await send(compute_of(sender, f"http://{address}"))
        assert isinstance(seen, Answer)
        assert ("the body of the answer" in seen.fault.message) is bool(words)
        assert words in seen.fault.message
        assert (seen.fault.body in (Body.CUT_SHORT, Body.OTHER)) is bool(words)

    anyio.run(main, backend=backend)
