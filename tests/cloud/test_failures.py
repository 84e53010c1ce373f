"""Why a connection failed: the name of the error, the address, the cause, and whether another try may help."""

import errno
import http.client
import os
import socket
import ssl
from collections.abc import Callable

import anyio
import httpx
import pytest
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream

from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.failures import failure_of, peer
from bulkrestart.cloud.network import tls_context
from bulkrestart.cloud.proxied import ProxiedTransport
from bulkrestart.cloud.sender import LaneSender
from bulkrestart.cloud.transport import LaneTransport
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import CHECK_URL, Observation, Unanswered, Unsent

from .certificates import Authority
from .loopback import (
    TLS,
    Connection,
    both_backends,
    closed_port,
    compute_of,
    each_way,
    listening,
    read_request,
    reset,
    sender_of,
)

ADDRESS = "nova.test:8774"


def caused_by(*causes: BaseException, words: str = "All connection attempts failed") -> Exception:
    """Wrap causes as anyio, httpcore and httpx do."""
    cause = causes[0] if len(causes) == 1 else BaseExceptionGroup("multiple", causes)
    inner = OSError(words)
    inner.__cause__ = cause
    outer = httpx.ConnectError(words)
    outer.__cause__ = inner
    return outer


def tls_error(reason: str, words: str, kind: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    """Make an error as OpenSSL reports it."""
    error = kind(1, f"[SSL: {reason}] {words} (_ssl.c:1006)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(
            caused_by(ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.5', 8774)")),
            "ECONNREFUSED nova.test:8774 (10.0.0.5): Connection refused",
            id="refused, on asyncio",
        ),
        pytest.param(
            caused_by(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")),
            "ECONNREFUSED nova.test:8774: Connection refused",
            id="refused, on trio",
        ),
        pytest.param(
            caused_by(TimeoutError(errno.ETIMEDOUT, "Connect call failed ('2001:db8::5', 8774, 0, 0)")),
            "ETIMEDOUT nova.test:8774 (2001:db8::5): Connection timed out",
            id="no answer of the host",
        ),
        pytest.param(
            caused_by(
                OSError(errno.ENETUNREACH, "Connect call failed ('2001:db8::5', 8774, 0, 0)"),
                ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.5', 8774)"),
            ),
            "ECONNREFUSED nova.test:8774 (10.0.0.5): Connection refused",
            id="the address with a route counts",
        ),
        pytest.param(
            caused_by(socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
            "EAI_NONAME nova.test:8774: Name or service not known",
            id="no such name",
        ),
        pytest.param(
            caused_by(socket.gaierror(-999, "System error")), "EAI_SYSTEM nova.test:8774: System error", id="odd lookup"
        ),
        pytest.param(
            caused_by(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")),
            "ECONNRESET nova.test:8774: Connection reset by peer",
            id="reset",
        ),
        pytest.param(
            caused_by(http.client.RemoteDisconnected("Remote end closed connection without response")),
            "ECONNRESET nova.test:8774: Remote end closed connection without response",
            id="closed, as http.client has it",
        ),
        pytest.param(
            caused_by(tls_error("CERTIFICATE_VERIFY_FAILED", "certificate verify failed: self-signed certificate")),
            "CERTIFICATE_VERIFY_FAILED nova.test:8774: certificate verify failed: self-signed certificate",
            id="certificate",
        ),
        pytest.param(
            caused_by(tls_error("UNEXPECTED_EOF_WHILE_READING", "EOF occurred", ssl.SSLEOFError)),
            "UNEXPECTED_EOF_WHILE_READING nova.test:8774: the other side ended the connection during TLS",
            id="cut handshake",
        ),
        pytest.param(caused_by(ssl.SSLError("odd")), "SSLError nova.test:8774: ('odd',)", id="TLS without a reason"),
    ],
)
def test_a_failure_names_its_error_and_its_address(error: Exception, words: str) -> None:
    """Whatever wraps it, the text has the error's name, the address and the system's message."""
    failure = failure_of(error, ADDRESS)
    assert failure is not None
    assert failure.words == words
    assert not failure.is_local


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("down"),
        caused_by(OSError("odd")),
        caused_by(ssl.SSLWantReadError("not yet")),
        caused_by(OSError(99999, "odd")),
        ValueError("odd"),
    ],
    ids=repr,
)
def test_what_does_not_say_why_is_left_as_it_is(error: Exception) -> None:
    """An exception without a system error is no failed connection."""
    assert failure_of(error, ADDRESS) is None


def test_causes_that_go_round_end() -> None:
    """The search in a cycle of causes ends."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert failure_of(one, ADDRESS) is None


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "ulimit -n"),
        (errno.EADDRNOTAVAIL, "local port"),
        (errno.ENOBUFS, "network buffers"),
        (errno.ENOMEM, "free memory"),
        (errno.EACCES, "firewall"),
        (errno.EPERM, "firewall"),
    ],
    ids=errno.errorcode.get,
)
def test_a_limit_of_this_machine_is_not_the_clouds_trouble(number: int, remedy: str) -> None:
    """The text names the limit, and the remedy is for this machine."""
    failure = failure_of(caused_by(OSError(number, os.strerror(number))), ADDRESS)
    assert failure is not None
    assert failure.is_local
    assert failure.words == f"{errno.errorcode[number]} {ADDRESS}: {os.strerror(number)} on this machine"
    assert remedy in failure.remedy
    assert not failure.is_cut


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH], ids=errno.errorcode.get)
def test_a_missing_route_names_the_network(number: int) -> None:
    """A missing route may be the cloud's fault or this machine's, so it counts like any other failure."""
    failure = failure_of(OSError(number, "no route"), ADDRESS)
    assert failure is not None
    assert (failure.is_local, failure.remedy) == (False, "check the network and the VPN of this machine")


@pytest.mark.parametrize(
    ("reason", "kind", "is_insecure"),
    [
        ("CERTIFICATE_VERIFY_FAILED", ssl.SSLCertVerificationError, True),
        ("WRONG_VERSION_NUMBER", ssl.SSLError, True),
        ("UNSUPPORTED_PROTOCOL", ssl.SSLError, True),
        ("TLSV1_ALERT_PROTOCOL_VERSION", ssl.SSLError, True),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", ssl.SSLError, True),
        ("TLSV1_UNRECOGNIZED_NAME", ssl.SSLError, True),
        ("UNEXPECTED_EOF_WHILE_READING", ssl.SSLError, False),
        ("", ssl.SSLEOFError, False),
        ("", ssl.SSLZeroReturnError, False),
        ("TLSV1_ALERT_INTERNAL_ERROR", ssl.SSLError, False),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", ssl.SSLError, False),
    ],
)
def test_which_tls_errors_are_final(reason: str, kind: type[ssl.SSLError], is_insecure: bool) -> None:
    """Only errors of the certificate, the host name or the protocol are final; a broken handshake is tried again."""
    failure = failure_of(tls_error(reason, "words", kind), ADDRESS)
    assert failure is not None
    assert (failure.is_insecure, failure.is_cut) == (is_insecure, not is_insecure)


@pytest.mark.parametrize(
    ("host", "proxy", "name"),
    [
        ("10.0.0.5", None, "10.0.0.5:443"),
        ("2001:db8::5", None, "[2001:db8::5]:443"),
        ("nova.test", "http://me:s3cret@proxy.test:3128", "nova.test:443 through the proxy proxy.test:3128"),
        ("nova.test", "https://proxy.test", "nova.test:443 through the proxy proxy.test:443"),
    ],
)
def test_the_other_end_is_named(host: str, proxy: str | None, name: str) -> None:
    """The text has host and port, and the proxy without its password."""
    assert peer(host, 443, None if proxy is None else httpx.Proxy(proxy)) == name


# On real sockets.


def send(compute: Compute) -> Observation:
    """Send a reboot, on asyncio."""

    async def main() -> Observation:
        return await compute.reboot("s", RebootType.SOFT)

    return anyio.run(main)


@both_backends
@each_way
def test_a_refused_connection_names_the_address(backend: str, way: str) -> None:
    """The address is in the text with each transport, on both backends."""
    port = closed_port()

    async def main() -> None:
        async with sender_of(way) as sender:
            seen = await compute_of(sender, f"http://127.0.0.1:{port}").reboot("s", RebootType.SOFT)
        assert seen == Unsent(f"ConnectError: ECONNREFUSED 127.0.0.1:{port}: Connection refused")

    anyio.run(main, backend=backend)


@both_backends
@each_way
def test_a_reset_connection_names_the_address(backend: str, way: str) -> None:
    """The request counts as unanswered, and the text has the address."""

    async def handle(connection: Connection) -> None:
        assert await read_request(connection)
        reset(connection)

    async def main() -> None:
        async with listening(handle) as address, sender_of(way) as sender:
            seen = await compute_of(sender, f"http://{address}").reboot("s", RebootType.SOFT)
        assert isinstance(seen, Unanswered)
        assert f"ECONNRESET {address}: Connection reset by peer" in seen.words

    anyio.run(main, backend=backend)


async def end(connection: Connection) -> None:
    """Read the beginning of the handshake, and close."""
    await connection.receive()


async def break_off(connection: Connection) -> None:
    """Read the beginning of the handshake, and reset."""
    await connection.receive()
    reset(connection)


async def fail(connection: Connection) -> None:
    """Send the TLS alert "internal error" (RFC 8446, section 6)."""
    await connection.receive()
    await connection.send(bytes([21, 3, 3, 0, 2, 2, 80]))


async def speak_http(connection: Connection) -> None:
    """Answer in plain HTTP."""
    await connection.receive()
    await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def know_no_version(connection: Connection) -> None:
    """Send the TLS alert of a server that supports other versions."""
    await connection.receive()
    await connection.send(bytes([21, 3, 3, 0, 2, 2, 70]))


@both_backends
@each_way
@pytest.mark.parametrize(
    ("handle", "is_insecure"),
    [(end, False), (break_off, False), (fail, False), (speak_http, True), (know_no_version, True)],
    ids=["closed", "reset", "internal error", "plain HTTP", "other version"],
)
def test_a_cut_tls_handshake_is_tried_again(
    backend: str, way: str, handle: Callable[[Connection], object], is_insecure: bool
) -> None:
    """Another protocol is final; a handshake that is cut is not, and both name the address."""

    async def main() -> None:
        async with listening(handle) as address, sender_of(way) as sender:  # type: ignore[arg-type] # async functions
            seen = await compute_of(sender, f"https://{address}").reboot("s", RebootType.SOFT)
        assert isinstance(seen, Unsent)
        assert seen.is_insecure is is_insecure
        assert address in seen.words

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("make", [lambda: LaneTransport(TLS, max_at_once=1), lambda: ProxiedTransport(TLS)])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOBUFS, errno.EACCES], ids=errno.errorcode.get)
def test_a_socket_that_cannot_be_made_is_a_local_limit(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], httpx.AsyncBaseTransport], number: int
) -> None:
    """The request never left, and the observation says that this machine is the cause."""

    async def refuse(*_: object, **__: object) -> SocketStream:
        raise OSError("All connection attempts failed") from OSError(number, os.strerror(number))

    monkeypatch.setattr(anyio, "connect_tcp", refuse)
    seen = send(compute_of(LaneSender(make()), "http://10.0.0.5:8774"))
    assert isinstance(seen, Unsent)
    assert seen.is_local
    assert f"{errno.errorcode[number]} 10.0.0.5:8774: " in seen.words
    assert seen.remedy != CHECK_URL


def test_a_proxy_that_is_not_there_is_named() -> None:
    """The text names the host and the proxy, without its password."""
    port = closed_port()
    transport = ProxiedTransport(TLS, httpx.Proxy(f"http://me:s3cret@127.0.0.1:{port}"))
    seen = send(compute_of(LaneSender(transport), "http://nova.test:8774"))
    assert seen == Unsent(
        f"ConnectError: ECONNREFUSED nova.test:8774 through the proxy 127.0.0.1:{port}: Connection refused"
    )


def test_a_certificate_of_another_host_names_the_address(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A wrong host name is final, and OpenSSL's message names the address."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    context = authority.server("127.0.0.2")

    async def handle(connection: Connection) -> None:
        with pytest.raises((ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError)):
            await TLSStream.wrap(connection, server_side=True, ssl_context=context)

    async def main() -> None:
        trust = tls_context(cacert=authority.cacert)
        async with listening(handle) as address:
            sender = LaneSender(LaneTransport(trust, max_at_once=1))
            seen = await compute_of(sender, f"https://{address}").reboot("s", RebootType.SOFT)
            await sender.aclose()
        assert isinstance(seen, Unsent)
        assert seen.is_insecure
        assert f"CERTIFICATE_VERIFY_FAILED {address}: " in seen.words
        assert "IP address mismatch" in seen.words

    anyio.run(main)


# Where a redirect points.


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://nova.test/v2.1/p/servers/s/action", "https://nova.test/v2.1/p/servers/s/action"),
        ("/login", "http://cloud.test/login"),
        ("//sso.test/login", "http://sso.test/login"),
        ("https://me:s3cret@sso.test/login?ticket=abc#part", "https://sso.test/login"),
        ("http://[::1", ""),
        ("", "http://cloud.test/v2.1/p/servers/s/action"),
        (None, ""),
    ],
)
@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_names_its_target(status: int, location: str | None, shown: str) -> None:
    """The target is shown without user, password and query, which may be secrets."""
    headers = {} if location is None else {"Location": location}
    transport = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers))
    seen = send(compute_of(LaneSender(transport)))
    assert getattr(seen, "location", None) == shown


@pytest.mark.parametrize("status", [202, 404, 503])
def test_only_a_redirect_points_somewhere(status: int) -> None:
    """A Location in another answer is no redirect: Nova sends one when it has created something."""
    reply = httpx.Response(status, headers={"Location": "https://elsewhere.test/"})
    seen = send(compute_of(LaneSender(httpx.MockTransport(lambda _: reply))))
    assert getattr(seen, "location", None) == ""
