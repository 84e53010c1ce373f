"""The two ways to send: what an httpx client does of itself is done without one as well."""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.cloud.clone import Clone, Template, address_of
from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.sender import Draft, LaneSender, LentSender, Sender, Trace
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.endpoint import Endpoint, check_id
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer, Unanswered, Unsent

BASE = "https://nova.test:8774/v2.1/p/servers"
DRAFT = Draft("POST", BASE, {"Accept": "application/json"}, b"{}")


class Fake(httpx.AsyncBaseTransport):
    """A transport that does as it is told, and notes what it is given."""

    def __init__(self, handle: Callable[[httpx.Request], httpx.Response]) -> None:
        self.requests: list[httpx.Request] = []
        self.is_closed = False
        self._handle = handle

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        return self._handle(request)

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True


def accept(request: httpx.Request) -> httpx.Response:
    """Answer with an acceptance."""
    return httpx.Response(202)


def write(sender: Sender, path: str = "/s/action") -> httpx.Request:
    """Write the request of a reboot."""
    return sender.write(DRAFT, path, query=None, seconds=10.0)


def as_clone(path: str) -> Clone:
    """Write the same as a clone."""
    request = write(LaneSender(Fake(accept)), path)
    assert isinstance(request, Clone)
    return request


# Clones.


def test_a_clone_is_what_httpx_builds() -> None:
    """A clone has the method, the URL, the headers and the body of the request that httpx would build."""
    clone = as_clone("/s/action")
    built = httpx.AsyncClient(headers={"Accept": "application/json"}).build_request(
        "POST", f"{BASE}/s/action", content=b"{}", headers={"Accept-Encoding": "gzip, deflate"}
    )
    assert (clone.method, clone.url, clone.content) == (built.method, built.url, built.content)
    assert dict(clone.headers) == {name: value for name, value in built.headers.items() if name != "connection"}
    assert address_of(clone) == address_of(built) == (("https", "nova.test", 8774), b"/v2.1/p/servers/s/action")


@given(st.text(min_size=1, max_size=40))
def test_the_address_of_a_clone_is_that_of_its_url(raw: str) -> None:
    """Whatever id a path names, what is written is what httpx makes of the URL."""
    try:
        server_id = check_id(raw)
    except ValueError:
        return
    transport = Fake(accept)

    async def main() -> None:
        compute = Compute(Endpoint.parse("https://nova.test/v2.1/p"), LaneSender(transport), None, CloudClock(), 5.0)
        await compute.reboot(server_id, RebootType.SOFT)

    anyio.run(main)
    [request] = transport.requests
    assert isinstance(request, Clone)
    unseen = request.address
    assert unseen == (("https", "nova.test", 443), request.url.raw_path)
    assert request.address == unseen


def test_a_clone_is_changed_alone() -> None:
    """What an auth flow does to one clone, to its headers or to its URL, no other clone sees."""
    sender = LaneSender(Fake(accept))
    first, second = write(sender), write(sender)
    first.headers["X-Auth-Token"] = "first"
    first.url = first.url.copy_set_param("signature", "abc")
    first.extensions["mine"] = True
    assert "X-Auth-Token" not in second.headers
    assert "mine" not in second.extensions
    assert address_of(first)[1] == b"/v2.1/p/servers/s/action?signature=abc"
    assert address_of(second)[1] == b"/v2.1/p/servers/s/action"
    assert str(second.url) == f"{BASE}/s/action"


def test_a_query_is_part_of_the_url() -> None:
    """A request with a query asks for it."""
    request = LaneSender(Fake(accept)).write(DRAFT, "/detail", query={"limit": "5", "name": "a b"}, seconds=1.0)
    assert address_of(request)[1] == b"/v2.1/p/servers/detail?limit=5&name=a+b"


def test_a_template_names_the_port_of_its_scheme() -> None:
    """Without a port in its URL a request goes to the one of the scheme."""
    assert Template(httpx.Request("GET", "http://nova.test/v2")).origin == ("http", "nova.test", 80)


def test_the_time_for_what_sends_nothing_is_half() -> None:
    """Waiting and connecting have half of the time each, so that what never left is known as such when time is up."""
    own, lent = write(LaneSender(Fake(accept))), write(LentSender(httpx.AsyncClient()))
    assert own.extensions["timeout"] == {"connect": 5.0, "pool": 5.0}
    assert lent.extensions["timeout"] == {"connect": 5.0, "pool": 5.0, "read": 10.0, "write": 10.0}


# What a client does of itself.


class Twice(httpx.Auth):
    """Asks for something first, reads what it gets, and signs with it; at last it signs out.

    Attributes:
        seen: What it was answered.
    """

    requires_response_body = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign in, send, sign out."""
        response = yield httpx.Request("POST", "https://keystone.test/v3/auth/tokens")
        self.seen.append(f"{response.request.url.host} {response.text}")
        request.headers["X-Auth-Token"] = response.text
        response = yield request
        self.seen.append(f"{response.request.url.host} {response.text}")


@pytest.mark.asyncio
async def test_an_auth_flow_is_run_to_its_end() -> None:
    """Each request of an auth flow is sent, and each answer, with its request and its body, comes back to it."""
    transport = Fake(lambda request: httpx.Response(200, text=f"for {request.url.host}"))
    sender, auth, trace = LaneSender(transport), Twice(), Trace()
    request = write(sender)
    response = await sender.send(request, auth, trace)
    assert response.request is request
    assert auth.seen == ["keystone.test for keystone.test", "nova.test for nova.test"]
    assert transport.requests[1].headers["X-Auth-Token"] == "for keystone.test"
    assert trace.is_handed_out
    # A sign-in is no send of ours: only what is ours tells the trace.
    assert ["trace" in sent.extensions for sent in transport.requests] == [False, True]


@pytest.mark.asyncio
async def test_an_error_knows_its_request() -> None:
    """An error of the transport names the request that it is about, be it the sign-in's or ours."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("lost")

    for auth, host in ((httpx.Auth(), "nova.test"), (Twice(), "keystone.test")):
        sender = LaneSender(Fake(fail))
        with pytest.raises(httpx.ReadTimeout) as caught:
            await sender.send(write(sender), auth, Trace())
        assert caught.value.request.url.host == host


class Closing(httpx.AsyncByteStream):
    """A body that notes when it is closed."""

    def __init__(self) -> None:
        self.is_closed = False

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        yield b"hello"

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True


class Failing(httpx.Auth):
    """Fails when it sees the answer, and notes that it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send, and fail."""
        try:
            yield request
            raise RuntimeError("odd")
        finally:
            self.is_closed = True


@pytest.mark.asyncio
async def test_an_auth_flow_that_fails_closes_the_answer() -> None:
    """The connection of an answer that nobody gets is free again."""
    body, auth = Closing(), Failing()
    sender = LaneSender(Fake(lambda _: httpx.Response(200, stream=body)))
    with pytest.raises(RuntimeError, match="odd"):
        await sender.send(write(sender), auth, Trace())
    assert (body.is_closed, auth.is_closed) == (True, True)


@pytest.mark.asyncio
async def test_an_answer_on_the_way_is_read_before_the_next_request() -> None:
    """What an auth flow asks before is read to its end, so that its connection is free for what comes next."""
    bodies: list[Closing] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert all(body.is_closed for body in bodies)
        bodies.append(Closing())
        return httpx.Response(200, stream=bodies[-1])

    sender = LaneSender(Fake(answer))
    response = await sender.send(write(sender), Twice(), Trace())
    await response.aclose()
    assert [body.is_closed for body in bodies] == [True, True]


@pytest.mark.asyncio
async def test_closing_closes_the_transport_and_a_lent_client_stays_open() -> None:
    """What is ours is closed; what is lent is not."""
    transport = Fake(accept)
    async with httpx.AsyncClient(transport=Fake(accept)) as http:
        async with aclosing(LaneSender(transport)) as own, aclosing(LentSender(http)) as lent:
            assert (own.is_closed, lent.is_closed) == (False, False)
        assert (own.is_closed, transport.is_closed) == (True, True)
        assert (lent.is_closed, http.is_closed) == (False, False)
    assert lent.is_closed


def test_whose_auth_counts() -> None:
    """A lent client signs by itself, as it was set up to; our own does not."""
    auth = httpx.BasicAuth("name", "password")
    assert LentSender(httpx.AsyncClient(auth=auth)).auth is auth
    assert isinstance(LentSender(httpx.AsyncClient()).auth, httpx.Auth)
    assert isinstance(LaneSender(Fake(accept)).auth, httpx.Auth)


# What a failure means.


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("steps", "is_unsent"),
    [
        ([], False),
        (["connection.wait.started"], True),
        (["connection.wait.started", "http11.send_request_headers.started"], False),
        (["http11.send_request_headers.started"], False),
    ],
)
async def test_the_trace_decides(steps: list[str], is_unsent: bool) -> None:
    """What a transport told before it failed decides; what it did not tell may have happened."""

    class Telling(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            for step in steps:
                await request.extensions["trace"](step, {"request": request})
            raise httpx.ConnectError("lost")

    endpoint = Endpoint.parse("https://nova.test/v2.1/p")
    compute = Compute(endpoint, LaneSender(Telling()), None, CloudClock(), 5.0)
    seen = await compute.reboot("s", RebootType.SOFT)
    assert isinstance(seen, Unsent if is_unsent else Unanswered)


@pytest.mark.asyncio
async def test_no_cookie_is_kept() -> None:
    """Our own client keeps no session: what a server sets does not come back to it."""
    transport = Fake(lambda _: httpx.Response(202, headers={"Set-Cookie": "route=a"}))
    compute = Compute(Endpoint.parse("https://nova.test/v2.1/p"), LaneSender(transport), None, CloudClock(), 5.0)
    for _ in range(2):
        assert await compute.reboot("s", RebootType.SOFT) == Answer(202)
    assert ["cookie" in request.headers for request in transport.requests] == [False, False]


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        (None, "gzip, deflate"),
        ("gzip, deflate, br, zstd", "gzip, deflate"),
        ("*", "gzip, deflate"),
        ("identity", "identity"),
        ("gzip;q=0.5", "gzip;q=0.5"),
    ],
)
def test_a_lent_client_asks_for_what_is_decoded_here(own: str | None, asked: str) -> None:
    """With Brotli installed httpx asks for it by itself; what a client asks for and is read here stays as it is."""
    http = httpx.AsyncClient(headers={"Accept-Encoding": own} if own is not None else None)
    assert write(LentSender(http)).headers["Accept-Encoding"] == asked
    assert write(LaneSender(Fake(accept))).headers["Accept-Encoding"] == "gzip, deflate"
