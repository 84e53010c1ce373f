"""Tests of users that replace a part of httpx or httpcore: no request of ours leaves by a connection of our own."""

import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from unittest import mock

import anyio
import httpcore
import httpx
import pytest
import pytest_httpx
import respx
import vcr

from bulkrestart import RestartClient
from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.proxied import ProxiedTransport
from bulkrestart.cloud.seam import Seam
from bulkrestart.cloud.sender import LaneSender
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent

from .loopback import TLS, KeepAlive, both_backends, closed_port, compute_of, lanes, listening

#: Where no server is: what leaves fails.
NOWHERE = f"http://127.0.0.1:{closed_port()}"
MOCKED = Answer(202)


def sender_over(transport: httpx.AsyncBaseTransport) -> LaneSender:
    """Make what the library sends with."""
    return LaneSender(transport, Seam(lambda: ProxiedTransport(TLS)))


@asynccontextmanager
async def opened(base: str = NOWHERE, *, is_proxied: bool = False) -> AsyncIterator[Compute]:
    """Open a client of our own."""
    transport = ProxiedTransport(TLS) if is_proxied else lanes()
    async with aclosing(sender_over(transport)) as sender:
        yield compute_of(sender, base)


async def send(compute: Compute) -> Observation:
    """Send a reboot."""
    return await compute.reboot("s", RebootType.SOFT)


# Each replaces a part, and answers 202 to everything.


@contextmanager
def respx_httpcore() -> Iterator[None]:
    """Replace by respx as it does by default."""
    with respx.mock as router:
        router.route().respond(202)
        yield


@contextmanager
def respx_httpx() -> Iterator[None]:
    """Replace by respx on the level of the client."""
    with respx.mock(using="httpx") as router:
        router.route().respond(202)
        yield


async def answer(*_: object, **__: object) -> httpx.Response:
    """Answer in place of any of httpx's methods."""
    return httpx.Response(202)


async def answer_core(*_: object, **__: object) -> httpcore.Response:
    """Answer in place of any of httpcore's methods."""
    return httpcore.Response(202, content=httpx.ByteStream(b""))


def patch(target: str, replacement: object) -> AbstractContextManager[object]:
    """Replace by the standard library."""
    return mock.patch(target, replacement)


class FakeTransport(httpx.AsyncHTTPTransport):
    """Stands for httpx's own by its name."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        return httpx.Response(202)


class FakeClient(httpx.AsyncClient):
    """Stands for httpx's own by its name."""

    send = answer


def init_mocked(self: httpx.AsyncClient, **_: object) -> None:
    """Stand for the constructor: whatever is asked for, it is over a mock."""
    real_init(self, transport=httpx.MockTransport(lambda _: httpx.Response(202)))


real_init = httpx.AsyncClient.__init__

REPLACED: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "respx": respx_httpcore,
    "respx, httpx": respx_httpx,
    "transport": lambda: patch("httpx.AsyncHTTPTransport.handle_async_request", answer),
    "transport, a mock": lambda: mock.patch.object(
        httpx.AsyncHTTPTransport, "handle_async_request", return_value=httpx.Response(202)
    ),
    "transport, autospec": lambda: mock.patch(
        "httpx.AsyncHTTPTransport.handle_async_request", autospec=True, return_value=httpx.Response(202)
    ),
    "transport, by name": lambda: patch("httpx.AsyncHTTPTransport", FakeTransport),
    "client": lambda: patch("httpx.AsyncClient.send", answer),
    "client, one request": lambda: patch("httpx.AsyncClient._send_single_request", answer),
    "client, by name": lambda: patch("httpx.AsyncClient", FakeClient),
    "client, its making": lambda: patch("httpx.AsyncClient.__init__", init_mocked),
    "pool": lambda: patch("httpcore.AsyncConnectionPool.handle_async_request", answer_core),
    "connection": lambda: patch("httpcore.AsyncHTTPConnection.handle_async_request", answer_core),
}
each_replacement = pytest.mark.parametrize("replace", REPLACED.values(), ids=REPLACED)


@pytest.mark.unmeasured
@both_backends
@each_replacement
@pytest.mark.parametrize("is_proxied", [False, True], ids=["lanes", "proxied"])
def test_what_is_replaced_answers(
    backend: str, replace: Callable[[], AbstractContextManager[object]], is_proxied: bool
) -> None:
    """Whatever is replaced answers, before the client is made and after; no server sees anything."""

    async def main() -> None:
        with replace():
            async with opened(is_proxied=is_proxied) as compute:
                assert [await send(compute) for _ in range(3)] == [MOCKED] * 3
        async with opened(is_proxied=is_proxied) as compute:
            assert isinstance(await send(compute), Unsent)
            for _ in range(2):
                with replace():
                    assert [await send(compute) for _ in range(2)] == [MOCKED] * 2
                assert isinstance(await send(compute), Unsent)

    anyio.run(main, backend=backend)


@both_backends
@each_replacement
def test_a_kept_connection_is_not_used_meanwhile(
    backend: str, replace: Callable[[], AbstractContextManager[object]]
) -> None:
    """A client that has sent for real before sends nothing while a part is replaced, and goes on afterwards."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, opened(f"http://{address}") as compute:
            assert await send(compute) == Answer(202)
            with replace():
                assert await send(compute) == MOCKED
            assert len(server.requests) == 1
            assert await send(compute) == Answer(202)
            assert [number for number, _ in server.requests] == [1, 1]

    anyio.run(main, backend=backend)


@both_backends
def test_one_mock_after_another(backend: str) -> None:
    """What was made while one part was replaced is not used when it is another."""

    async def main() -> None:
        async with opened() as compute:
            for replace in [*REPLACED.values(), *reversed(REPLACED.values())]:
                with replace():
                    assert await send(compute) == MOCKED

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
@respx.mock
async def test_respx_as_a_decorator() -> None:
    """A decorated test answers, and sees the request as it would arrive."""
    route = respx.post(f"{NOWHERE}/v2.1/p/servers/s/action").respond(
        409, json={"conflictingRequest": {"code": 409, "message": "no"}}
    )
    async with opened() as compute:
        seen = await send(compute)
    assert isinstance(seen, Answer)
    assert (seen.status, seen.fault.message) == (409, "no")
    [call] = route.calls
    assert json.loads(call.request.content) == {"reboot": {"type": "SOFT"}}
    assert call.request.headers["accept"] == "application/json"


@pytest.mark.asyncio
async def test_respx_as_a_fixture(respx_mock: respx.MockRouter) -> None:
    """So does its fixture; an answer that fails is a failure of the connection."""
    respx_mock.get(f"{NOWHERE}/v2.1/p/servers/s").respond(json={"server": {"id": "s", "name": "web"}})
    respx_mock.post(f"{NOWHERE}/v2.1/p/servers/s/action").mock(side_effect=httpx.ReadTimeout("slow"))
    async with opened() as compute:
        shown = await compute.show("s")
        assert not isinstance(shown, Observation)
        assert shown.name == "web"
        assert await send(compute) == Unanswered("ReadTimeout: slow", may_come_late=True)


@pytest.mark.asyncio
@pytest.mark.parametrize("using", ["httpx", "httpcore"])
async def test_a_route_that_is_not_mocked(using: str) -> None:
    """The mock's own error is told, and nothing is sent."""
    server = KeepAlive()
    async with listening(server) as address, opened(f"http://{address}") as compute:
        with respx.mock(using=using, assert_all_called=False) as router:
            router.get("http://elsewhere.test/").respond(200)
            seen = await send(compute)
        assert isinstance(seen, Unanswered)
        assert seen.words.startswith("AllMockedAssertionError: RESPX:")
        assert not server.requests


@pytest.mark.asyncio
@pytest.mark.parametrize("using", ["httpx", "httpcore"])
async def test_a_route_that_passes_through(using: str) -> None:
    """What a test lets through arrives."""
    server = KeepAlive()
    async with listening(server) as address, opened(f"http://{address}") as compute:
        with respx.mock(using=using) as router:
            router.route().pass_through()
            assert [await send(compute) for _ in range(2)] == [Answer(202)] * 2
        assert len(server.requests) == 2
        await send(compute)
    assert len(server.requests) == 3


@pytest.mark.asyncio
async def test_pytest_httpx(httpx_mock: pytest_httpx.HTTPXMock) -> None:
    """Its fixture answers, and sees the request."""
    httpx_mock.add_response(
        status_code=202, url=f"{NOWHERE}/v2.1/p/servers/s/action", match_json={"reboot": {"type": "SOFT"}}
    )
    async with opened() as compute:
        assert await send(compute) == Answer(202)
    [request] = httpx_mock.get_requests()
    assert request.method == "POST"


@pytest.mark.asyncio
@pytest.mark.httpx_mock(should_mock=lambda _: False)
async def test_pytest_httpx_lets_pass(httpx_mock: pytest_httpx.HTTPXMock) -> None:
    """What it is told not to mock arrives."""
    server = KeepAlive()
    async with listening(server) as address, opened(f"http://{address}") as compute:
        assert await send(compute) == Answer(202)
    assert len(server.requests) == 1
    assert httpx_mock.get_requests() == []


@pytest.mark.asyncio
async def test_a_recording(tmp_path: Path) -> None:
    """VCR.py records what is sent, and plays it back without a server."""
    recorder = vcr.VCR(record_mode="once")
    cassette = str(tmp_path / "cassette.yaml")
    server = KeepAlive()
    async with listening(server) as address:
        with recorder.use_cassette(cassette):
            async with opened(f"http://{address}") as compute:
                assert await send(compute) == Answer(202)
    assert len(server.requests) == 1
    with recorder.use_cassette(cassette):
        async with opened(f"http://{address}") as compute:
            assert await send(compute) == Answer(202)
    assert len(server.requests) == 1


# What wraps.


def traced(method: Callable[..., Awaitable[object]], calls: list[str]) -> Callable[..., Awaitable[object]]:
    """Wrap a method as an instrumentation does."""

    @functools.wraps(method)
    async def wrapper(*arguments: object, **named: object) -> object:
        calls.append(method.__name__)
        return await method(*arguments, **named)

    return wrapper


@both_backends
@pytest.mark.parametrize(
    ("owner", "name", "is_passed"),
    [
        (httpx.AsyncClient, "send", True),
        (httpx.AsyncHTTPTransport, "handle_async_request", True),
        (httpx.AsyncClient, "request", False),
        (httpx.AsyncClient, "post", False),
    ],
)
def test_an_instrumentation_sees_requests(backend: str, owner: type[object], name: str, is_passed: bool) -> None:
    """A wrapper that names what it wraps stops nothing, keeps connections, and sees what passes it."""

    async def main() -> None:
        calls: list[str] = []
        server = KeepAlive()
        async with listening(server) as address, opened(f"http://{address}") as compute:
            with mock.patch.object(owner, name, traced(getattr(owner, name), calls)):
                assert [await send(compute) for _ in range(5)] == [Answer(202)] * 5
            assert calls == [name] * 5 * is_passed
            assert {number for number, _ in server.requests} == {1}

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("name", ["request", "stream", "get", "post"])
@pytest.mark.parametrize(
    "replacement", [answer, mock.AsyncMock(return_value=httpx.Response(202))], ids=["a function", "a mock"]
)
def test_a_method_that_is_not_called_refuses(backend: str, name: str, replacement: object) -> None:
    """Where a test replaces what a request of ours does not pass, nothing leaves, and the remedy is named."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(server) as address, opened(f"http://{address}") as compute:
            with mock.patch.object(httpx.AsyncClient, name, replacement):
                seen = await send(compute)
            assert isinstance(seen, Unsent)
            assert f"httpx.AsyncClient.{name} is replaced" in seen.words
            assert "respx" in seen.words
            assert not server.requests

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
async def test_a_mock_that_answers_nonsense() -> None:
    """A mock without an answer is a failure of the request, and nothing leaves."""
    server = KeepAlive()
    async with listening(server) as address, opened(f"http://{address}") as compute:
        for target in ("httpx.AsyncHTTPTransport.handle_async_request", "httpx.AsyncClient"):
            with mock.patch(target):
                assert isinstance(await send(compute), Unanswered | Unsent)
        assert isinstance(await send(compute), Answer)
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_a_body_that_is_read_synchronously() -> None:
    """A mock whose answer cannot be read asynchronously is a failure, and its lane is not kept."""
    odd = httpx.Response(202, stream=mock.Mock(spec=httpx.SyncByteStream))
    async with aclosing(ProxiedTransport(TLS)) as transport:
        with (
            mock.patch.object(httpx.AsyncHTTPTransport, "handle_async_request", return_value=odd),
            pytest.raises(TypeError, match="the body of an answer"),
        ):
            await transport.handle_async_request(httpx.Request("POST", NOWHERE))
        assert (transport._idle, transport._busy) == ([], set())


@pytest.mark.asyncio
async def test_a_whole_client() -> None:
    """A user's test with the real endpoint in its settings: the mock is asked, and no server is rebooted."""
    server = KeepAlive()
    async with listening(server) as address:
        url = f"http://{address}/v2.1/p"
        with respx.mock(base_url=url) as router:
            router.get("/servers/a").respond(json={"server": {"id": "a", "status": "ACTIVE"}})
            reboot = router.post("/servers/a/action").respond(202)
            async with RestartClient(url) as client:
                report = await client.restart(["a"], wait=False)
    assert str(report).startswith("1 accepted")
    assert reboot.call_count == 1
    assert not server.requests


@pytest.mark.asyncio
async def test_a_sign_in_that_is_refused_has_no_trace() -> None:
    """A request of an auth flow is refused like ours, though nothing listens to its steps."""
    with mock.patch.object(httpx.AsyncClient, "post"), pytest.raises(httpx.ConnectError, match="post is replaced"):
        await Seam(lambda: ProxiedTransport(TLS)).send(httpx.Request("POST", NOWHERE))


@pytest.mark.asyncio
async def test_an_answer_of_a_mock_that_outlives_the_transport() -> None:
    """It has no connection that could be closed."""
    transport = ProxiedTransport(TLS)
    with respx_httpcore():
        response = await transport.handle_async_request(httpx.Request("POST", NOWHERE))
    await transport.aclose()
    await response.aclose()
    assert transport._idle == []
