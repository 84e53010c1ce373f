"""The last check before a request leaves: when it is made, and what is sent if it says no."""

import select
import ssl
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing

import anyio
import anyio.abc
import httpcore
import httpx
import pytest

from bulkrestart.cloud import transport
from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.network import tls_context
from bulkrestart.cloud.sender import LaneSender, Trace, WithheldError
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.simulator import Cloud, asgi

from .certificates import Authority
from .loopback import (
    ACCEPTED,
    Connection,
    KeepAlive,
    both_backends,
    compute_of,
    each_lent_client,
    each_way,
    lanes,
    listening,
    read_request,
    secured,
    sender_of,
)

WITHHELD = Unsent("the look is old", is_withheld=True)


def no() -> str:
    """Keep back."""
    return "the look is old"


def yes() -> None:
    """Let go."""


class Asked:
    """A check that says no from the given call on; it counts.

    Attributes:
        calls: How often it was asked.
    """

    def __init__(self, no_from: int) -> None:
        self.calls = 0
        self._no_from = no_from

    def __call__(self) -> str | None:
        """Answer."""
        self.calls += 1
        return no() if self.calls >= self._no_from else None


async def send(compute: Compute, veto: Callable[[], str | None] | None) -> Observation:
    """Send a reboot, if it may leave."""
    return await compute.reboot("s", RebootType.SOFT, veto=veto)


@both_backends
@each_way
@pytest.mark.parametrize("is_kept", [False, True], ids=["a new connection", "a kept connection"])
@pytest.mark.parametrize("no_from", [1, 2], ids=["handed out", "written"])
def test_what_must_not_leave_does_not(backend: str, way: str, is_kept: bool, no_from: int) -> None:
    """No byte of it arrives, whenever the check says no; it says why; and the next request is sent and answered."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, sender_of(way) as sender:
            compute = compute_of(sender, f"http://{address}")
            if is_kept:
                assert await send(compute, None) == Answer(202)
            for _ in range(3):
                assert await send(compute, asked := Asked(no_from)) == WITHHELD
                assert asked.calls == no_from
            assert len(server.requests) == is_kept
            assert await send(compute, yes) == Answer(202)
            assert len(server.requests) == is_kept + 1
        await server.until(lambda: server.open == 0)
        assert server.connections <= 5

    anyio.run(main, backend=backend)


@both_backends
@each_way
def test_the_check_is_made_when_the_connection_stands(backend: str, way: str) -> None:
    """Nothing is waited for between the check and the write: the server has the connection by then."""

    async def main() -> None:
        connected: list[int] = []
        server = KeepAlive()

        def check() -> None:
            connected.append(server.connections)

        async with listening(server) as address, sender_of(way) as sender:
            compute = compute_of(sender, f"http://{address}")
            for _ in range(2):
                assert await send(compute, check) == Answer(202)
        # Once when the transport gets it, once before the write; for each of two requests.
        assert len(connected) == 4
        assert connected[0] == 0
        assert connected[2:] == [1, 1]

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("is_kept", [False, True], ids=["a new connection", "a kept connection"])
def test_no_other_task_runs_before_the_write(
    backend: str, is_secured: bool, is_kept: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Over our own connections the bytes are with the peer before any task runs that the check has woken."""
    authority = Authority(tmp_path_factory.mktemp("authority"))

    async def main() -> None:
        woken, looked = anyio.Event(), anyio.Event()
        arrived: list[bool] = []
        peers: list[int] = []

        async def answer_late(connection: Connection) -> None:
            if is_kept:
                await read_request(connection)
                await connection.send(ACCEPTED)
            await looked.wait()
            await read_request(connection)
            await connection.send(ACCEPTED)

        async def handle(connection: Connection) -> None:
            await transport._pause(connection)
            peers.append(connection.extra(anyio.abc.SocketAttribute.raw_socket).fileno())  # noqa: S610 (not Django's)
            await (secured(answer_late, context) if is_secured else answer_late)(connection)

        async def look() -> None:
            await woken.wait()
            arrived.append(bool(select.select([peers[0]], [], [], 0)[0]))
            looked.set()

        def check() -> None:
            calls.append(True)
            if len(calls) == 2:
                woken.set()

        calls: list[bool] = []
        context = authority.server("127.0.0.1")
        # There the server speaks last in the handshake: it reads no request along with the handshake's end.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        sender = LaneSender(transport.LaneTransport(tls_context(cacert=authority.cacert), max_at_once=1))
        async with listening(handle) as address, aclosing(sender), anyio.create_task_group() as group:
            compute = compute_of(sender, f"{'https' if is_secured else 'http'}://{address}")
            if is_kept:
                assert await send(compute, None) == Answer(202)
            group.start_soon(look)
            await anyio.wait_all_tasks_blocked()
            assert await send(compute, check) == Answer(202)
        assert arrived == [True]

    anyio.run(main, backend=backend)


@both_backends
def test_a_request_that_is_kept_back_waited_for_its_turn(backend: str) -> None:
    """The check comes after the wait for a free connection: what was true when the wait began may be so no more."""

    async def main() -> None:
        may_go = True
        first, release = anyio.Event(), anyio.Event()

        async def answer(connection: Connection) -> None:
            first.set()
            await release.wait()
            await connection.send(ACCEPTED)

        async def second() -> None:
            seen.append(await send(compute, lambda: None if may_go else no()))

        seen: list[Observation] = []
        server = KeepAlive(answer)
        async with listening(server) as address, aclosing(LaneSender(lanes(1))) as sender:
            compute = compute_of(sender, f"http://{address}")
            async with anyio.create_task_group() as group:
                group.start_soon(send, compute, None)
                await first.wait()
                group.start_soon(second)
                await anyio.wait_all_tasks_blocked()
                may_go = False
                release.set()
        assert seen == [WITHHELD]
        assert len(server.requests) == 1

    anyio.run(main, backend=backend)


@both_backends
def test_a_transport_that_tells_no_trace_is_asked_when_it_gets_the_request(backend: str) -> None:
    """A lent client over such a transport does not get what must not leave."""

    async def main() -> None:
        cloud = Cloud(1)
        transport = httpx.ASGITransport(asgi(cloud, lost=httpx.ReadError))
        async with httpx.AsyncClient(transport=transport, headers={"X-Auth-Token": cloud.token}) as http:
            compute = compute_of(http, project=cloud.project_id)
            [server_id] = cloud.ids
            asked = Asked(1)
            assert await compute.reboot(server_id, RebootType.SOFT, veto=asked) == WITHHELD
            assert (cloud.posts, asked.calls) == ({}, 1)
            seen = await compute.reboot(server_id, RebootType.SOFT, veto=yes)
            assert isinstance(seen, Answer)
            assert (seen.status, cloud.posts) == (202, {server_id: 1})

    anyio.run(main, backend=backend)


class Twice(httpx.Auth):
    """Hands a request out again when it was refused, as an auth does that renews its token."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Hand it out, twice."""
        yield request
        yield request


@both_backends
@each_way
@pytest.mark.parametrize("no_from", [3, 4], ids=["handed out", "written"])
def test_what_was_sent_before_is_not_unsent(backend: str, way: str, no_from: int) -> None:
    """An auth flow that sends again is asked again; what it had sent is not forgotten over it."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, sender_of(way) as sender:
            seen = await send(compute_of(sender, f"http://{address}", auth=Twice()), Asked(no_from))
        assert seen == Unanswered("WithheldError: the look is old")
        assert len(server.requests) == 1

    anyio.run(main, backend=backend)


@both_backends
@each_lent_client
def test_a_lent_clients_sign_in_is_not_asked(backend: str, way: str) -> None:
    """Only our request is kept back: an auth flow may sign in, and a signed copy counts as ours."""
    urls: list[str] = []

    class SigningIn(httpx.Auth):
        async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
            yield httpx.Request("POST", f"{urls[0]}/v3/auth/tokens")
            yield request

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, sender_of(way) as sender:
            urls.append(f"http://{address}")
            assert await send(compute_of(sender, urls[0], auth=SigningIn()), no) == WITHHELD
        assert [request.split()[1] for _, request in server.requests] == [b"/v3/auth/tokens"]

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
async def test_a_transport_that_hides_the_exception() -> None:
    """Whatever a lent client's transport makes of the exception, the request was kept back."""

    class Hiding(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            try:
                await request.extensions["trace"]("http11.send_request_headers.started", {"request": request})
            except WithheldError:
                raise httpx.ConnectError("failed") from None
            return httpx.Response(202)

    async with httpx.AsyncClient(transport=Hiding()) as http:
        assert await send(compute_of(http), Asked(2)) == WITHHELD
        assert await send(compute_of(http), Asked(3)) == Answer(202)


@pytest.mark.asyncio
async def test_a_transport_that_tries_again() -> None:
    """What was kept back once and sent then is as sent as anything."""

    class Trying(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            for _ in range(2):
                try:
                    await request.extensions["trace"]("http11.send_request_headers.started", {"request": request})
                except WithheldError:
                    continue
                raise httpx.ReadError("lost")
            raise AssertionError

    answers = iter([None, "the look is old", None])
    async with httpx.AsyncClient(transport=Trying()) as http:
        assert await send(compute_of(http), lambda: next(answers)) == Unanswered("ReadError: lost")


@pytest.mark.asyncio
async def test_a_request_to_a_proxy_is_not_the_request() -> None:
    """What asks a proxy for a tunnel may leave; the check is made for what goes through the tunnel."""
    asked = Asked(1)
    trace = Trace(asked)
    tunnel = httpcore.Request("CONNECT", "http://proxy.test")
    await trace("http11.send_request_headers.started", {"request": tunnel})
    assert asked.calls == 0


@both_backends
def test_time_that_is_up_after_the_check(backend: str) -> None:
    """A transport that comes to no end after it was told no has sent nothing all the same."""

    class Stalling(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            try:
                await request.extensions["trace"]("http11.send_request_headers.started", {"request": request})
            except WithheldError:
                await anyio.sleep_forever()
            raise AssertionError

    async def main() -> None:
        async with httpx.AsyncClient(transport=Stalling()) as http:
            assert await send(compute_of(http, timeout=0.05), Asked(2)) == WITHHELD

    anyio.run(main, backend=backend)
