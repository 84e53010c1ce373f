"""How requests leave this machine: whose certificates are trusted, who we are, and through which proxy."""

import logging
import os
import ssl
import sys
import traceback
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from pathlib import Path
from urllib import request

import anyio
import anyio.abc
import httpx
import pytest
from requests.utils import should_bypass_proxies

from bulkrestart import EndpointError, Outcome, RestartClient, Token
from bulkrestart.cloud.network import proxy_of, tls_context
from bulkrestart.cloud.proxied import ProxiedTransport
from bulkrestart.cloud.sender import LaneSender
from bulkrestart.cloud.transport import LaneTransport
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.run import preflight
from bulkrestart.simulator import Cloud, LoopbackCloud

from .certificates import Authority, Files
from .loopback import (
    ACCEPTED,
    TLS,
    Connection,
    Handler,
    KeepAlive,
    both_backends,
    closed_port,
    compute_of,
    leaves_generators,
    listening,
    read_request,
    reset,
    secured,
)

PASSWORD = "p4ssw0rd"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give somebody who issues certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give somebody whom nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Files:
    """Give a certificate of our own."""
    return authority.issue("ours")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name no proxy and no certificates."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.delenv(name)


async def pipe(one: anyio.abc.ByteStream, other: anyio.abc.ByteStream) -> None:
    """Pass on bytes both ways until either side ends."""

    async def forward(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError):
            async for chunk in source:
                await target.send(chunk)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(forward, one, other)
        group.start_soon(forward, other, one)


def leading_to(address: str) -> Handler:
    """Pass every connection on to a server."""

    async def handle(connection: Connection) -> None:
        host, _, port = address.rpartition(":")
        async with await anyio.connect_tcp(host, int(port)) as target:
            await pipe(connection, target)

    return handle


class ConnectProxy:
    """A proxy that connects whoever asks for it, whatever host is asked for, to one server.

    Attributes:
        heads: The request heads that asked for it.
    """

    def __init__(self, address: str, *, answer: bytes = b"HTTP/1.1 200 Connected\r\n\r\n") -> None:
        self.heads: list[bytes] = []
        self._lead = leading_to(address)
        self._answer = answer

    async def __call__(self, connection: Connection) -> None:
        """Serve one connection."""
        self.heads.append(await read_request(connection))
        await connection.send(self._answer)
        await self._lead(connection)


# Files of certificates.


def test_the_systems_certificates_are_trusted() -> None:
    """Without anything else, certificates are verified, with their names."""
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_what_is_not_verified_is_warned_of(caplog: pytest.LogCaptureFixture, authority: Authority) -> None:
    """Whoever turns verification off is told what that means, also where somebody is named to be trusted."""
    for cacert in (None, authority.cacert, "/nonexistent"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            context = tls_context(verify=False, cacert=cacert)
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
        assert "certificates are not verified" in caplog.text


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_certificates_is_trusted(authority: Authority, kind: Callable[[Path], str | Path]) -> None:
    """Only those in the file are trusted."""
    context = tls_context(cacert=kind(authority.cacert))
    assert [str(one["subject"]) for one in context.get_ca_certs()] == ["(((" + "'commonName', 'authority'),),)"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_folder_of_certificates_is_taken(tmp_path: Path) -> None:
    """A folder is looked into when a server shows its certificate, as OpenSSL has it."""
    assert tls_context(cacert=tmp_path).verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "cannot read certificates from .*cacert.pem: .*No such file", id="missing"),
        pytest.param("", "cacert.pem holds no certificates: give a file in PEM format", id="empty"),
        pytest.param("rubbish", "cacert.pem holds no certificates", id="rubbish"),
        pytest.param("-----BEGIN CERTIFICATE-----\nMIIB\n", "cacert.pem holds no certificates", id="cut short"),
        pytest.param("\x00\xff\xfe", "cacert.pem holds no certificates", id="bytes"),
    ],
)
def test_a_file_without_certificates_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    """A file that cannot be trusted is named, with what is wrong with it."""
    cacert = tmp_path / "cacert.pem"
    if content is not None:
        cacert.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=words):
        tls_context(cacert=cacert)


@pytest.mark.parametrize("cacert", ["a\x00b", "a\nb", "x" * 5000])
def test_a_name_that_no_file_can_have_is_refused(cacert: str) -> None:
    """It is a ValueError, whatever the system makes of it."""
    with pytest.raises(ValueError, match="certificates"):
        tls_context(cacert=cacert)


def test_a_key_in_the_place_of_certificates_is_refused(ours: Files) -> None:
    """A key is no certificate."""
    with pytest.raises(ValueError, match="holds no certificates"):
        tls_context(cacert=ours.key)


def test_a_certificate_of_our_own_is_loaded(tmp_path: Path, authority: Authority, ours: Files) -> None:
    """It is taken with its key, from two files or from one, whoever is trusted."""
    both = tmp_path / "both.pem"
    both.write_bytes(ours.key.read_bytes() + ours.cert.read_bytes())
    tls_context(cert=ours.cert, key=ours.key)
    tls_context(cert=str(ours.cert), key=str(ours.key), cacert=authority.cacert)
    tls_context(cert=both)
    tls_context(cert=both, verify=False)


def test_a_certificate_of_our_own_that_cannot_be_used_is_refused(
    tmp_path: Path, authority: Authority, ours: Files
) -> None:
    """What is wrong is told, with the names of the files; nobody is asked for a password."""
    encrypted = authority.issue("encrypted", password=PASSWORD)
    other = authority.issue("other")
    both = tmp_path / "both.pem"
    both.write_bytes(encrypted.key.read_bytes() + encrypted.cert.read_bytes())
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("rubbish")
    missing = tmp_path / "missing"
    table: list[tuple[Path | None, Path | None, str]] = [
        (None, ours.key, "a key without a certificate: give the certificate of .*ours.key too"),
        (ours.cert, None, "ours.crt holds no certificate with its key"),
        (ours.cert, other.key, "ours.crt and .*other.key hold no certificate with its key"),
        (ours.key, ours.cert, "hold no certificate with its key"),
        (rubbish, None, "rubbish holds no certificate with its key"),
        (rubbish, ours.key, "rubbish and .*ours.key hold no"),
        (ours.cert, rubbish, "ours.crt and .*rubbish hold no"),
        (missing, None, "cannot read the certificate .*missing, or its key: No such file or directory"),
        (ours.cert, missing, "cannot read the certificate .*ours.crt, or its key: No such file or directory"),
        (tmp_path, None, "cannot read the certificate|holds no certificate"),
        (encrypted.cert, encrypted.key, "the key in .*encrypted.key is encrypted: decrypt it first"),
        (both, None, "the key in .*both.pem is encrypted: decrypt it first"),
    ]
    for cert, key, words in table:
        with pytest.raises(ValueError, match=words) as caught:
            tls_context(cert=cert, key=key)
        assert "\n" not in str(caught.value)


# Servers that speak TLS.


async def look(address: str, context: ssl.SSLContext, *, timeout: float = 5.0) -> Observation:
    """Send a reboot over TLS."""
    async with aclosing(LaneSender(LaneTransport(context, max_at_once=1))) as sender:
        return await compute_of(sender, f"https://{address}", timeout=timeout).reboot("s", RebootType.SOFT)


@both_backends
def test_who_is_trusted_is_talked_to(backend: str, authority: Authority) -> None:
    """With the authority of its certificate, a server is talked to; without verification, any is."""

    async def main() -> None:
        server = KeepAlive()
        async with listening(secured(server, authority.server("127.0.0.1"))) as address:
            assert await look(address, tls_context(cacert=authority.cacert)) == Answer(202)
            assert await look(address, tls_context(verify=False)) == Answer(202)
        assert len(server.requests) == 2

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize(
    ("names", "days", "trusted", "words"),
    [
        pytest.param(("127.0.0.1",), 1, "system", "certificate verify failed", id="unknown to the system"),
        pytest.param(("127.0.0.1",), 1, "stranger", "certificate verify failed", id="unknown to the file"),
        pytest.param(("127.0.0.1",), -1, "authority", "certificate has expired", id="expired"),
        pytest.param(("127.0.0.2",), 1, "authority", "IP address mismatch", id="other address"),
        pytest.param(("compute.test",), 1, "authority", "IP address mismatch", id="name"),
    ],
)
def test_who_is_not_trusted_is_sent_nothing(
    backend: str,
    authority: Authority,
    stranger: Authority,
    names: tuple[str, ...],
    days: int,
    trusted: str,
    words: str,
) -> None:
    """A certificate that does not hold is told as what it is, and the request, with its token, never left."""

    async def main() -> None:
        files = {"system": None, "stranger": stranger.cacert, "authority": authority.cacert}
        server = KeepAlive()
        async with listening(secured(server, authority.server(*names, days=days))) as address:
            seen = await look(address, tls_context(cacert=files[trusted]))
        assert isinstance(seen, Unsent)
        assert words in seen.words
        assert not server.requests

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
async def test_a_server_that_is_not_trusted_is_told_before_a_run(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a run says that it is the certificate, and nothing was sent."""
    monkeypatch.setattr(preflight, "_FIRST_CEILING", 0.0)
    server = KeepAlive()
    async with listening(secured(server, authority.server("127.0.0.1"))) as address:
        client = RestartClient(f"https://{address}/v2.1/p", auth=Token("t"))
        async with client:
            with pytest.raises(EndpointError, match=r"certificate verify failed.*; nothing was sent"):
                await client.restart(["s"])
    assert not server.requests


@both_backends
@leaves_generators
@pytest.mark.parametrize("own", ["none", "stranger's", "ours"])
def test_a_server_may_ask_who_we_are(
    backend: str, authority: Authority, stranger: Authority, ours: Files, own: str
) -> None:
    """Our own certificate is shown to a server that asks for it; without one it does not serve us."""

    async def main() -> None:
        asking = authority.server("127.0.0.1")
        asking.verify_mode = ssl.CERT_REQUIRED
        asking.load_verify_locations(authority.cacert)
        files = {"ours": ours, "stranger's": stranger.issue("theirs")}.get(own)
        context = tls_context(
            cacert=authority.cacert, cert=files.cert if files else None, key=files.key if files else None
        )
        server = KeepAlive()
        async with listening(secured(server, asking)) as address:
            seen = await look(address, context)
        if own == "ours":
            assert seen == Answer(202)
        else:
            # With TLS 1.3 the refusal comes after our first bytes (RFC 8446, section 4.4.2.4).
            assert isinstance(seen, Unsent | Unanswered)
            assert not server.requests

    anyio.run(main, backend=backend)


# Which proxy there is.


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        pytest.param({}, "https://compute.test/v2.1/p", None, id="none"),
        pytest.param({"HTTPS_PROXY": "http://proxy:3128"}, "https://compute.test/", "http://proxy:3128", id="https"),
        pytest.param({"https_proxy": "http://proxy:3128"}, "https://compute.test/", "http://proxy:3128", id="lower"),
        pytest.param({"HTTPS_PROXY": "http://proxy:3128"}, "http://compute.test/", None, id="other scheme"),
        pytest.param({"http_proxy": "http://proxy:3128"}, "http://compute.test/", "http://proxy:3128", id="http"),
        pytest.param({"HTTP_PROXY": "http://proxy:3128"}, "https://compute.test/", None, id="not for https"),
        pytest.param({"ALL_PROXY": "http://proxy:3128"}, "https://compute.test/", "http://proxy:3128", id="all"),
        pytest.param(
            {"ALL_PROXY": "http://other:1", "HTTPS_PROXY": "http://proxy:2"},
            "https://c.test/",
            "http://proxy:2",
            id="own",
        ),
        pytest.param({"HTTPS_PROXY": "proxy:3128"}, "https://compute.test/", "http://proxy:3128", id="no scheme"),
        pytest.param({"HTTPS_PROXY": "proxy"}, "https://compute.test/", "http://proxy", id="only a host"),
        pytest.param({"HTTPS_PROXY": "10.0.0.1:3128"}, "https://compute.test/", "http://10.0.0.1:3128", id="address"),
        pytest.param({"HTTPS_PROXY": "https://proxy:443"}, "https://compute.test/", "https://proxy", id="over TLS"),
        pytest.param({"HTTPS_PROXY": ""}, "https://compute.test/", None, id="empty"),
        pytest.param({"HTTPS_PROXY": "http://[::1]:3128"}, "https://c.test/", "http://[::1]:3128", id="IPv6"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "https://localhost/", None, id="localhost"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://localhost:8774/", None, id="localhost with a port"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://LOCALHOST/", None, id="localhost in capitals"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1:8774/", None, id="loopback"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://127.1.2.3/", None, id="all of loopback"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://[::1]:8774/", None, id="loopback of IPv6"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://localhost./", None, id="localhost with a dot"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://foo.localhost/", None, id="below localhost"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://127.1:8774/", None, id="loopback in short"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://0x7f000001/", None, id="loopback as a number"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://[::ffff:127.0.0.1]/", None, id="loopback of IPv4 in IPv6"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://notlocalhost/", "http://p:1", id="ends in localhost"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://localhost.test/", "http://p:1", id="not localhost"),
        pytest.param({"ALL_PROXY": "http://p:1"}, "http://10.0.0.1/", "http://p:1", id="not loopback"),
    ],
)
def test_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    """The variable of the scheme counts before the one for all; a proxy does not reach our own loopback."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = proxy_of(url)
    assert (None if found is None else str(found.url)) == proxy


@pytest.mark.parametrize(
    ("but", "url", "is_used"),
    [
        pytest.param("", "https://compute.test/", True, id="empty"),
        pytest.param("*", "https://compute.test/", False, id="all"),
        pytest.param("compute.test", "https://compute.test/", False, id="host"),
        pytest.param("COMPUTE.TEST", "https://compute.test/", False, id="capitals"),
        pytest.param("compute.test", "https://compute.test:8774/", False, id="host with any port"),
        pytest.param("compute.test:8774", "https://compute.test:8774/", False, id="host with its port"),
        pytest.param("compute.test:8774", "https://compute.test:8775/", True, id="host with another port"),
        pytest.param("compute.test:8774", "https://compute.test/", True, id="host with a port"),
        pytest.param("test", "https://compute.test/", False, id="domain"),
        pytest.param(".test", "https://compute.test/", False, id="domain with a dot"),
        pytest.param("pute.test", "https://compute.test/", True, id="part of a name"),
        pytest.param("other.test, compute.test", "https://compute.test/", False, id="several"),
        pytest.param("other.test,,", "https://compute.test/", True, id="another"),
        pytest.param("10.0.0.1", "https://10.0.0.1:8774/", False, id="address"),
        pytest.param("2001:db8::1", "https://[2001:db8::1]/", False, id="address of IPv6"),
        pytest.param("2001:db8::1", "https://[2001:db8::1]:8774/", False, id="address of IPv6 with a port"),
        # As requests has it, by which the sign-in to Keystone goes.
        pytest.param("10.0.0.0/8", "https://10.1.2.3:8774/", False, id="network"),
        pytest.param("10.0.0.0/8", "https://11.1.2.3/", True, id="another network"),
        pytest.param("10.0.0.1/8,192.168.0.0/16", "https://10.1.2.3/", False, id="an address of the network"),
        pytest.param("foo/bar,192.168.0.0/16", "https://192.168.3.4/", False, id="network after rubbish"),
        pytest.param("*.test", "https://compute.test/", False, id="domain with a star"),
        pytest.param("*.test", "https://test/", False, id="the domain of a star"),
        pytest.param("*.test", "https://contest/", True, id="a name like that of a star"),
        pytest.param("*,other.test", "https://compute.test/", False, id="all first"),
        pytest.param("other.test, *", "https://compute.test/", False, id="all last"),
        pytest.param("other.test compute.test", "https://compute.test/", False, id="spaces"),
        pytest.param(" other.test\tcompute.test ", "https://compute.test/", False, id="tabs"),
        pytest.param("compute.test.", "https://compute.test/", False, id="entry ends in a dot"),
        pytest.param(".test.", "https://compute.test/", False, id="domain ends in a dot"),
        pytest.param("compute.test", "https://compute.test./", False, id="host ends in a dot"),
        pytest.param("compute.test.:8774", "https://COMPUTE.test.:8774/", False, id="all of that with a port"),
        pytest.param("compute.test:x", "https://compute.test/", True, id="no port"),
        pytest.param("com*.test", "https://compute.test/", True, id="star in a name"),
        pytest.param("10.*", "https://10.1.2.3/", True, id="star in an address"),
        pytest.param(".", "https://compute.test/", True, id="dot"),
        pytest.param("*.", "https://compute.test/", True, id="star and dot"),
        pytest.param("2001:db8::/32", "https://[2001:db8::1]/", False, id="network of IPv6"),
        pytest.param("[2001:db8::]/32", "https://[2001:db8::1]:8774/", False, id="network of IPv6 in brackets"),
        pytest.param("[2001:db8::]/32", "https://[2001:db9::1]/", True, id="another network of IPv6"),
        pytest.param("[2001:db8::1]:443", "https://[2001:db8::1]/", False, id="IPv6 with its port"),
        pytest.param("[2001:db8::1]:443", "https://[2001:db8::1]:8774/", True, id="IPv6 with another port"),
        pytest.param("2001:DB8:0::1", "https://[2001:db8::1]/", False, id="IPv6 written otherwise"),
        pytest.param("10.0.0.0/8:8774", "https://10.1.2.3:8774/", False, id="network with a port"),
        pytest.param("10.0.0.0/8:8774", "https://10.1.2.3/", True, id="network with another port"),
        pytest.param("10.0.0.0/8", "https://10.1/", False, id="short address"),
        pytest.param("10.0.0.0/8", "https://[::ffff:10.0.0.1]/", False, id="IPv4 in IPv6"),
        pytest.param("10.0.0.0/8", "https://10.0.0.1.test/", True, id="a name like an address"),
        pytest.param("10.0.0.0/8", "https://10.999/", False, id="short address with a large number"),
        pytest.param("10.0.0.0/8", "https://10.1.2.999/", True, id="numbers that are no address"),
    ],
)
def test_what_goes_without_a_proxy(monkeypatch: pytest.MonkeyPatch, but: str, url: str, is_used: bool) -> None:
    """What NO_PROXY names is reached without one."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", but)
    assert (proxy_of(url) is not None) is is_used


@pytest.mark.parametrize("but", ["*", "test", ".test", "compute.test", "a,compute.test", "10.0.0.1", "10.0.0.0/8"])
@pytest.mark.parametrize("host", ["compute.test", "test", "contest", "10.0.0.1", "10.1.2.3", "11.0.0.1"])
def test_what_others_reach_without_a_proxy(monkeypatch: pytest.MonkeyPatch, but: str, host: str) -> None:
    """What urllib or requests reaches without one is reached so here, and nothing else by these entries."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", but)
    theirs = bool(request.proxy_bypass(host)) or should_bypass_proxies(f"https://{host}/", None)
    assert (proxy_of(f"https://{host}/") is None) is theirs


@pytest.mark.parametrize(
    "rubbish",
    [
        f"ftp://me:{PASSWORD}@proxy",
        f"socks4://me:{PASSWORD}@proxy",
        f"htp://me:{PASSWORD}@proxy",
        f"{PASSWORD}://proxy",
        f"http://me:{PASSWORD}@proxy:port",
        f"http://me:{PASSWORD}@proxy:99999999",
        f"http://me:{PASSWORD}@proxy:0x10",
        f"http://me:{PASSWORD}@[::1",
        f"http://me:{PASSWORD}@pro xy:1",
        f"http://me:{PASSWORD}@",
        f"http://me:{PASSWORD}@:3128",
        f"://me:{PASSWORD}@proxy",
        f"http://me:{PASSWORD}@proxy\n",
        f"http://me:{PASSWORD}@\x00",
        f"http://me:{PASSWORD}@xn--\u00e4.test",
    ],
)
def test_what_is_no_proxy_is_refused(monkeypatch: pytest.MonkeyPatch, rubbish: str) -> None:
    """A proxy that cannot be is named by its variable, and the password that stands in it is not shown."""
    if "\x00" in rubbish:
        monkeypatch.setattr("bulkrestart.cloud.network.getproxies", lambda: {"https": rubbish})
    else:
        monkeypatch.setenv("HTTPS_PROXY", rubbish)
    with pytest.raises(ValueError, match=r"the environment names no usable proxy.*HTTPS_PROXY") as caught:
        proxy_of("https://compute.test/")
    is_scheme = not rubbish.startswith("http://")
    assert ("its scheme must be http, https, socks5 or socks5h" in str(caught.value)) is is_scheme
    assert ("its host or its port is missing or not valid" in str(caught.value)) is not is_scheme
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # Only the frame of this test may hold it.
    assert PASSWORD not in "".join(shown.format_exception_only())
    assert PASSWORD not in str([frame.locals for frame in shown.stack if "test_network" not in frame.filename])
    assert (shown.__cause__, shown.__context__) == (None, None)


def test_a_proxy_that_needs_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy without what speaks to it is told before anything is sent, with what is missing."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", f"socks5://me:{PASSWORD}@proxy:1080")
    with pytest.raises(ValueError, match=r"pip install 'httpx\[socks\]'") as caught:
        proxy_of("https://compute.test/")
    assert PASSWORD not in str(caught.value)


# Through a proxy.


def through(proxy: str, context: ssl.SSLContext) -> AbstractAsyncContextManager[LaneSender]:
    """Make a client that goes through a proxy."""
    return aclosing(LaneSender(ProxiedTransport(context, httpx.Proxy(proxy))))


@pytest.mark.asyncio
async def test_a_fleet_is_restarted_through_a_proxy(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HTTPS_PROXY, every connection is one that the proxy made, and what goes through it is secured."""
    cloud = Cloud(20, reboot_seconds=(0.05, 0.1))
    async with LoopbackCloud(cloud) as served:
        terminator = secured(leading_to(served.url.removeprefix("http://")), authority.server("compute.test"))
        async with listening(terminator) as secure, listening(proxy := ConnectProxy(secure)) as address:
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@{address}")
            endpoint = f"https://compute.test/v2.1/{cloud.project_id}"
            trust = tls_context(cacert=authority.cacert)
            async with RestartClient(endpoint, auth=Token(cloud.token), verify=trust, max_at_once=5) as client:
                report = await client.restart(cloud.ids, wait=False)
    assert report.summary == {Outcome.ACCEPTED: 20}
    assert 1 <= len(proxy.heads) <= 6
    credentials = b64encode(f"me:{PASSWORD}".encode())
    for head in proxy.heads:
        assert head.startswith(b"CONNECT compute.test:443 HTTP/1.1\r\n")
        assert credentials in head
        assert cloud.token.encode() not in head


async def close(connection: Connection) -> None:
    """Read the request, and close."""
    assert await read_request(connection)


async def reset_it(connection: Connection) -> None:
    """Read the request, and reset."""
    assert await read_request(connection)
    reset(connection)


async def stall(connection: Connection) -> None:
    """Read the request, and say nothing."""
    assert await read_request(connection)
    assert await read_request(connection) == b""


def saying(reply: bytes) -> Callable[[Connection], Awaitable[None]]:
    """Read the request, say this, and close."""

    async def handle(connection: Connection) -> None:
        assert (await read_request(connection)).startswith(b"CONNECT compute.test:443 ")
        await connection.send(reply)

    return handle


@leaves_generators
@both_backends
@pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(saying(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"), id="407"),
        pytest.param(saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nnever"), id="403"),
        pytest.param(saying(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), id="502"),
        pytest.param(saying(b"HTTP/1.1 503 Unavailable\r\n\r\n"), id="503"),
        pytest.param(saying(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"), id="302"),
        pytest.param(saying(b"rubbish\r\n\r\n"), id="rubbish"),
        pytest.param(saying(b"HTTP/1.1 200 Conn"), id="half a line"),
        pytest.param(saying(b"HTTP/1.1 200 Connected\r\n\r\n"), id="closed after 200"),
        pytest.param(saying(b"HTTP/1.1 200 Connected\r\n\r\nHTTP/1.1 400 Bad\r\n\r\n"), id="no TLS after 200"),
        pytest.param(close, id="closed"),
        pytest.param(reset_it, id="reset"),
        pytest.param(stall, id="stalled"),
        pytest.param(None, id="nobody there"),
    ],
)
def test_a_proxy_that_does_not_connect_leaves_the_request_unsent(backend: str, proxy: Handler | None) -> None:
    """Whatever becomes of the way to the cloud, the POST never left, and may be sent again."""

    async def main() -> None:
        async with listening(proxy or close) as address:
            address = address if proxy is not None else f"127.0.0.1:{closed_port()}"
            async with through(f"http://{address}", TLS) as sender:
                compute = compute_of(sender, "https://compute.test", timeout=0.3 if proxy is stall else 5.0)
                seen = await compute.reboot("s", RebootType.SOFT)
        assert isinstance(seen, Unsent), seen
        assert seen.words

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("kind", ["unknown", "other name", "no TLS"])
def test_tls_that_fails_behind_a_proxy_leaves_the_request_unsent(
    backend: str, authority: Authority, stranger: Authority, kind: str
) -> None:
    """A proxy that connects to somebody else is found out before anything is sent."""

    async def main() -> None:
        server = KeepAlive()
        issuer = stranger if kind == "unknown" else authority
        context = issuer.server("other.test" if kind == "other name" else "compute.test")
        async with (
            listening(server if kind == "no TLS" else secured(server, context)) as target,
            listening(ConnectProxy(target)) as address,
            through(f"http://{address}", tls_context(cacert=authority.cacert)) as sender,
        ):
            compute = compute_of(sender, "https://compute.test", timeout=0.5)
            seen = await compute.reboot("s", RebootType.SOFT)
        assert isinstance(seen, Unsent), seen
        assert not [request for _, request in server.requests if b"reboot" in request]

    anyio.run(main, backend=backend)


@leaves_generators
@both_backends
@pytest.mark.parametrize("end", ["closes", "stalls", "answers"])
def test_what_is_lost_behind_a_proxy_is_unanswered(backend: str, authority: Authority, end: str) -> None:
    """Once the way stands and the request is on it, its loss is no licence to send again."""

    async def answer(connection: Connection) -> None:
        assert b"reboot" in await read_request(connection)
        if end == "answers":
            await connection.send(ACCEPTED)
        if end == "stalls":
            await read_request(connection)

    async def main() -> None:
        async with (
            listening(secured(answer, authority.server("compute.test"))) as target,
            listening(ConnectProxy(target)) as address,
            through(f"http://{address}", tls_context(cacert=authority.cacert)) as sender,
        ):
            compute = compute_of(sender, "https://compute.test", timeout=0.5 if end == "stalls" else 5.0)
            seen = await compute.reboot("s", RebootType.SOFT)
        assert seen == Answer(202) if end == "answers" else isinstance(seen, Unanswered)

    anyio.run(main, backend=backend)


@leaves_generators
@both_backends
@pytest.mark.parametrize(
    ("reply", "seen"),
    [(ACCEPTED, Answer), (b"HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n", Answer), (b"", Unanswered)],
)
def test_a_plain_request_is_the_proxys_to_send(backend: str, reply: bytes, seen: type[Observation]) -> None:
    """Without TLS the proxy has the request itself: what it says is the answer, and its silence proves nothing."""

    async def proxy(connection: Connection) -> None:
        request = await read_request(connection)
        assert request.startswith(b"POST http://compute.test/v2.1/p/servers/s/action HTTP/1.1")
        await connection.send(reply)

    async def main() -> None:
        async with listening(proxy) as address, through(f"http://{address}", TLS) as sender:
            assert isinstance(await compute_of(sender, "http://compute.test").reboot("s", RebootType.SOFT), seen)

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
async def test_a_proxy_that_wants_a_password_is_told_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a run names what the proxy said, and not the password that it was given."""
    monkeypatch.setattr(preflight, "_FIRST_CEILING", 0.0)
    refuse = saying(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    async with listening(refuse) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@{address}")
        async with RestartClient("https://compute.test/v2.1/p", auth=Token("t")) as client:
            with pytest.raises(EndpointError, match=r"407 Proxy Authentication Required.*; nothing was sent") as caught:
                await client.restart(["s"])
    assert PASSWORD not in str(caught.value)


@pytest.mark.asyncio
async def test_a_proxy_that_cannot_be_is_told_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a ValueError like any other setting that makes no sense."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@proxy:port")
    async with RestartClient("https://compute.test/v2.1/p", auth=Token("t")) as client:
        with pytest.raises(ValueError, match="no usable proxy"):
            await client.restart(["s"])
