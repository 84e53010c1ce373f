"""One look before the first send: a bad token and a wrong endpoint are found before anything is sent."""

import errno
import logging
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest

from bulkrestart import AuthError, BulkRestartError, EndpointError, Outcome, RestartClient, Token
from bulkrestart.simulator import Call, Cloud, Fault, asgi
from tests.cloud.loopback import leaves_generators
from tests.virtual import client_of, cloud_of, virtually

UNSCOPED = "Malformed request URL: URL's project_id 'a' doesn't match Context's project_id 'None'"
WRONG_PROJECT = "Malformed request URL: URL's project_id 'a' doesn't match Context's project_id 'b'"


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        ([Fault.respond(401, b"{}")] * 3, AuthError, "get a new token"),
        ([Fault.respond(302, headers={"location": "/login"})] * 3, EndpointError, "check the URL"),
        ([Fault.respond(200, b"<html>Please sign in</html>")] * 3, EndpointError, "check the URL"),
        ([Fault.respond(404, b"<html>Not here</html>")] * 3, EndpointError, "check the URL"),
        ([Fault.respond(407)] * 3, EndpointError, "the proxy wants to know you"),
        ([Fault.error(400, WRONG_PROJECT)] * 3, EndpointError, "the project in it"),
        ([Fault.error(400, UNSCOPED)], AuthError, "belongs to no project .*; get one for the project"),
        ([Fault.respond(404, b"<html>"), Fault.respond(302), Fault.respond(407)], EndpointError, "the proxy wants"),
        ([Fault.error(503)] * 5, EndpointError, r"gives no usable answer \(503 serviceUnavailable: \w"),
        ([Fault.respond(503)] * 5, EndpointError, r"gives no usable answer \(503\); check the URL"),
        ([Fault.no_reply(applied=False)] * 5, EndpointError, "does not answer"),
        ([Fault.slow(1000.0)] * 5, EndpointError, "no answer within 60 s"),
    ],
)
def test_what_no_run_can_begin_with(faults: list[Fault], error: type[BulkRestartError], words: str) -> None:
    """An odd answer that repeats is raised without an exception group, names the remedy, and nothing is sent."""

    async def main() -> None:
        cloud = cloud_of(3)
        # The next request is for another server.
        for number, fault in enumerate(faults):
            cloud.script(cloud.ids[number % 3], fault, call=Call.SHOW)
        async with client_of(cloud) as client:
            with pytest.raises(error, match=words) as caught:
                await client.restart(cloud.ids)
        assert "nothing was sent" in str(caught.value)
        assert not cloud.posts
        assert len(cloud.requests) == len(faults)

    virtually(main)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.respond(401, b"{}")],
        [Fault.throttled(60.0)] * 8,
        [Fault.error(503)] * 4,
        [Fault.no_reply(applied=False), Fault.error(500)],
        [Fault.error(403, "no")],
        [Fault.error(404, "Instance could not be found.")],
    ],
)
def test_what_passes(faults: list[Fault]) -> None:
    """What passes, and what concerns one server only, does not keep a run from beginning."""

    async def main() -> None:
        cloud = cloud_of(3)
        cloud.script(cloud.ids[0], *faults, call=Call.SHOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 3}

    virtually(main)


def test_a_closed_port() -> None:
    """Where nothing listens, the error names what was tried."""

    async def main() -> None:
        client = RestartClient("http://127.0.0.1:9/v2.1/project", auth=Token("t"))
        with pytest.raises(EndpointError, match="does not answer"):
            await client.restart(["a"])
        await client.aclose()

    virtually(main)


def test_a_lent_client_that_is_closed() -> None:
    """A lent client that is closed is one clear error before the run."""

    async def main() -> None:
        cloud = cloud_of(1)
        http = httpx.AsyncClient(transport=httpx.ASGITransport(asgi(cloud)))
        await http.aclose()
        client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", http=http)
        with pytest.raises(ValueError, match="the client is closed"):
            await client.restart(cloud.ids)
        assert not cloud.requests

    virtually(main)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("compute.example.com/v2.1/p", "scheme"),
        ("ftp://compute.example.com/v2.1/p", "scheme"),
        ("https://compute.example.com/v2.1", "project"),
        ("https://me:secret@compute.example.com/v2.1/p", "neither user name"),
    ],
)
def test_endpoints_that_cannot_be(endpoint: str, words: str) -> None:
    """An endpoint without its scheme or its project is refused when the client is made."""
    with pytest.raises(ValueError, match=words):
        RestartClient(endpoint)


class Unreachable(httpx.AsyncBaseTransport):
    """Fails to connect, each time for one of these causes, and then answers.

    Attributes:
        asked: How many requests there were.
        causes: The causes that are left.
    """

    def __init__(self, cloud: Cloud, *causes: Exception) -> None:
        self.asked = 0
        self.causes = list(causes)
        self._inner = httpx.ASGITransport(asgi(cloud))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Connect, or fail."""
        self.asked += 1
        await request.extensions["trace"]("connection.connect_tcp.started", {})
        if self.causes:
            raise httpx.ConnectError("failed") from self.causes.pop(0)
        return await self._inner.handle_async_request(request)


def tls_error(kind: type[ssl.SSLError], reason: str) -> ssl.SSLError:
    """Make an error as OpenSSL reports it."""
    error = kind(1, f"[SSL: {reason}] words (_ssl.c:1006)")
    error.reason = reason
    return error


CUT = tls_error(ssl.SSLEOFError, "UNEXPECTED_EOF_WHILE_READING")
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


@pytest.mark.parametrize(
    "causes",
    [
        pytest.param([CUT], id="a cut TLS handshake"),
        pytest.param([CUT] * 4, id="several"),
        pytest.param([ConnectionResetError(errno.ECONNRESET, "reset")], id="a reset one"),
        pytest.param([tls_error(ssl.SSLError, "TLSV1_ALERT_INTERNAL_ERROR")], id="a server at a loss"),
        pytest.param([REFUSED, CUT], id="a server that starts"),
        pytest.param([OSError(errno.EMFILE, "Too many open files")] * 2, id="too many open files"),
    ],
)
def test_a_connection_that_fails_at_first_is_no_verdict(causes: list[Exception]) -> None:
    """The connection is tried again, and the run goes on."""

    async def main() -> None:
        cloud = cloud_of(3)
        async with httpx.AsyncClient(transport=Unreachable(cloud, *causes)) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
            report = await client.restart(cloud.ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 3}

    virtually(main)


@pytest.mark.parametrize(
    ("cause", "asked", "words"),
    [
        (
            tls_error(ssl.SSLCertVerificationError, "CERTIFICATE_VERIFY_FAILED"),
            1,
            "not secure .*CERTIFICATE_VERIFY_FAILED cloud.test:80: words.*; trust its certificate",
        ),
        (tls_error(ssl.SSLError, "WRONG_VERSION_NUMBER"), 1, "not secure .*WRONG_VERSION_NUMBER"),
        (tls_error(ssl.SSLError, "UNSUPPORTED_PROTOCOL"), 1, "not secure .*UNSUPPORTED_PROTOCOL"),
        (CUT, 5, r"does not answer .*UNEXPECTED_EOF_WHILE_READING cloud.test:80.*; check the URL \(and HTTPS_PROXY\)"),
        (REFUSED, 5, "does not answer .*ECONNREFUSED cloud.test:80: Connection refused"),
        (OSError(errno.EMFILE, "files"), 5, r"EMFILE cloud.test:80: .* on this machine.*; raise .*ulimit -n"),
        (OSError(errno.EADDRNOTAVAIL, "ports"), 5, r"EADDRNOTAVAIL cloud.test:80: .*; no local port"),
        (OSError(errno.ENETUNREACH, "route"), 5, r"ENETUNREACH cloud.test:80: .*; check the network"),
    ],
    ids=repr,
)
def test_only_tls_that_cannot_work_is_final(cause: Exception, asked: int, words: str) -> None:
    """A transient error is tried five times; the message names the error, the address and a fitting remedy."""

    async def main() -> None:
        cloud = cloud_of(1)
        transport = Unreachable(cloud, *[cause] * 5)
        async with httpx.AsyncClient(transport=transport) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
            with pytest.raises(EndpointError, match=words):
                await client.restart(cloud.ids)
        assert transport.asked == asked
        assert not cloud.posts

    virtually(main)


def test_a_limit_of_this_machine_in_a_run_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """It costs no server an attempt, does not count as an outage, and its remedy is named once."""

    async def main() -> None:
        cloud = cloud_of(60)
        limit = OSError(errno.EMFILE, "Too many open files")
        transport = Unreachable(cloud)
        async with httpx.AsyncClient(transport=transport) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
            async with client.restarting(cloud.ids, wait=False, max_attempts=1) as run:
                await anext(run)
                transport.causes += [limit] * 100
                async for _ in run:
                    pass
        assert run.report.summary == {Outcome.ACCEPTED: 60}
        assert set(cloud.posts.values()) == {1}

    with caplog.at_level(logging.WARNING):
        virtually(main)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1, messages
    assert "EMFILE cloud.test:80: Too many open files on this machine; raise the limit of open files" in messages[0]


class Stream(httpx.AsyncByteStream):
    """A body in pieces, after which the connection may break."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces, and fail."""
        for piece in self._pieces:
            yield piece
        if self._error is not None:
            raise self._error


#: Bodies that cannot be read: the headers, the pieces, what the connection raises after them, and what the error says.
UNREADABLE = [
    pytest.param({"content-encoding": "gzip"}, [b"{}"], None, r"\(Content-Encoding: gzip\)", id="gzip is said"),
    pytest.param({"content-encoding": "deflate"}, [b"{}"], None, "ends too early", id="deflate is said"),
    pytest.param({"content-encoding": "br"}, [b"{}"], None, r"\(Content-Encoding: br\)", id="br is said"),
    pytest.param({"content-encoding": "zstd, gzip"}, [b"{}"], None, "zstd, gzip", id="two are said"),
    pytest.param({}, [b'{"server'], httpx.RemoteProtocolError("bad chunk"), "ends too early", id="a bad chunk"),
    pytest.param({}, [], httpx.RemoteProtocolError("bad chunk"), "ends too early", id="a bad first chunk"),
    pytest.param({}, [b'{"server'], httpx.ReadError("reset"), "ends too early", id="a reset"),
    pytest.param({}, [b"{", *[b" " * 2**20] * 60], None, "or is too long", id="too long"),
]


@pytest.mark.unmeasured
@leaves_generators
@pytest.mark.parametrize("is_list", [False, True], ids=["look", "list"])
@pytest.mark.parametrize(("headers", "pieces", "failure", "words"), UNREADABLE)
def test_an_answer_whose_body_cannot_be_read(
    is_list: bool,
    headers: dict[str, str],
    pieces: list[bytes],
    failure: Exception | None,
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error says why the answer is of no use, and not that none came, nor only that its status is 200."""

    async def main() -> str:
        asked: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.method)
            return httpx.Response(200, headers=headers, stream=Stream(*pieces, error=failure))

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            client = RestartClient("http://cloud.test/v2.1/project", auth=Token("t"), http=http)
            with pytest.raises(EndpointError, match=words) as caught:
                await client.restart(client.servers() if is_list else ["a", "b"])
        assert set(asked) == {"GET"}
        return str(caught.value)

    with caplog.at_level(logging.DEBUG, logger="bulkrestart"):
        said = virtually(main)
    what = " when it is asked for its list of servers" if is_list else ""
    assert said.startswith(f"the compute API gives no usable answer{what} (200: the body of the answer ")
    assert said.endswith("; nothing was sent")
    looks = [line for line in caplog.messages if "follows" in line]
    assert looks
    assert all("does not answer" not in line and "(200: the body" in line for line in looks)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_a_mock_that_answers_everything_with_nothing(status: int) -> None:
    """A mock that answers every request with nothing shows no server: sends are accepted, and the run does not wait."""

    async def main() -> None:
        asked: list[str] = []

        def accept(request: httpx.Request) -> httpx.Response:
            asked.append(request.method)
            return httpx.Response(status)

        async with httpx.AsyncClient(transport=httpx.MockTransport(accept)) as http:
            client = RestartClient("http://cloud.test/v2.1/project", auth=Token("t"), http=http)
            report = await client.restart(["a", "b"])
        assert report.summary == {Outcome.ACCEPTED: 2}
        assert asked.count("POST") == 2
        assert report.elapsed < 30.0

    virtually(main)
