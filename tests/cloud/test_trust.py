"""The sign-in and the compute API trust the same certificates and use the same proxy."""

import errno
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest
from urllib3 import HTTPSConnectionPool, PoolManager

from bulkrestart.cloud.bounded import BoundedAdapter
from bulkrestart.cloud.configuration import Overrides
from bulkrestart.cloud.credentials import SignInError
from bulkrestart.cloud.keystone import Keystone
from bulkrestart.cloud.network import CertificatesError, proxies_for_requests, proxy_of, tls_context
from bulkrestart.cloud.sender import LaneSender
from bulkrestart.cloud.transport import LaneTransport
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer

from .certificates import Authority
from .fake_keystone import FakeKeystone
from .loopback import Connection, KeepAlive, both_backends, closed_port, compute_of, listening, secured
from .test_network import pipe

PASSWORD = "s3cr3t-passw0rd"

#: keystoneauth1 keeps its connections in a session that nobody closes.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove clouds, proxies and certificates from the environment."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("OS_CLIENT_SECURE_FILE", str(tmp_path / "secure.yaml"))


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the certificate authority of the cloud."""
    return Authority(tmp_path_factory.mktemp("right"))


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return another certificate authority."""
    return Authority(tmp_path_factory.mktemp("wrong"), "wrong")


@pytest.fixture
def keystone(right: Authority) -> Iterator[FakeKeystone]:
    """Serve a Keystone over TLS."""
    with FakeKeystone(right.server("127.0.0.1")).serving() as served:
        yield served


def read(url: str, settings: Mapping[str, object] | None = None, overrides: Overrides | None = None) -> Keystone:
    """Read a cloud of clouds.yaml."""
    auth = {
        "auth_url": f"{url}/v3",
        "username": "demo",
        "password": PASSWORD,
        "project_name": "demo",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    cloud = {"auth": auth, "region_name": "RegionOne", **(settings or {})}
    Path(os.environ["OS_CLIENT_CONFIG_FILE"]).write_text(json.dumps({"clouds": {"test": cloud}}))
    return Keystone.from_cloud("test", overrides)


def reaches(context: ssl.SSLContext, server: ssl.SSLContext) -> bool:
    """Return whether a request to the compute API trusts the server."""

    async def main() -> bool:
        async with (
            listening(secured(KeepAlive(), server)) as address,
            aclosing(LaneSender(LaneTransport(context, max_at_once=1))) as sender,
        ):
            seen = await compute_of(sender, f"https://{address}").reboot("s", RebootType.SOFT)
            return seen == Answer(202)

    return anyio.run(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("variables", "settings", "option", "is_trusted"),
    [
        pytest.param({}, {}, None, False, id="nothing"),
        pytest.param({"SSL_CERT_FILE": "right"}, {}, None, True, id="SSL_CERT_FILE"),
        pytest.param({"REQUESTS_CA_BUNDLE": "right"}, {}, None, True, id="REQUESTS_CA_BUNDLE"),
        pytest.param({"CURL_CA_BUNDLE": "right"}, {}, None, True, id="CURL_CA_BUNDLE"),
        pytest.param({}, {"cacert": "right"}, None, True, id="cacert"),
        pytest.param({"OS_CACERT": "right"}, {}, None, True, id="OS_CACERT"),
        pytest.param({}, {}, "right", True, id="--cacert"),
        pytest.param({}, {"verify": False}, None, True, id="verify: false"),
        pytest.param({}, {"insecure": True}, None, True, id="insecure"),
        pytest.param({"SSL_CERT_FILE": "wrong"}, {"verify": False}, None, True, id="verify: false counts first"),
        pytest.param({"SSL_CERT_FILE": "wrong"}, {}, "right", True, id="--cacert before SSL_CERT_FILE"),
        pytest.param({"SSL_CERT_FILE": "right"}, {}, "wrong", False, id="no more than --cacert"),
        pytest.param({}, {"cacert": "wrong"}, "right", True, id="--cacert before cacert"),
        pytest.param({"OS_CACERT": "right"}, {"cacert": "wrong"}, None, True, id="OS_CACERT before cacert"),
        pytest.param({"SSL_CERT_FILE": "right"}, {"cacert": "wrong"}, None, False, id="cacert before SSL_CERT_FILE"),
        pytest.param({"REQUESTS_CA_BUNDLE": "right"}, {"cacert": "wrong"}, None, False, id="cacert before requests'"),
        pytest.param(
            {"SSL_CERT_FILE": "right", "REQUESTS_CA_BUNDLE": "wrong"}, {}, None, True, id="SSL_CERT_FILE first"
        ),
        pytest.param(
            {"SSL_CERT_FILE": "wrong", "REQUESTS_CA_BUNDLE": "right"}, {}, None, False, id="SSL_CERT_FILE alone"
        ),
        pytest.param(
            {"REQUESTS_CA_BUNDLE": "right", "CURL_CA_BUNDLE": "wrong"}, {}, None, True, id="requests' before curl's"
        ),
        pytest.param(
            {"SSL_CERT_DIR": "folder", "REQUESTS_CA_BUNDLE": "right"}, {}, None, True, id="a bundle before a folder"
        ),
        pytest.param({"SSL_CERT_FILE": "", "CURL_CA_BUNDLE": "right"}, {}, None, True, id="empty is unset"),
    ],
)
def test_two_trust_stores_are_one(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    keystone: FakeKeystone,
    right: Authority,
    wrong: Authority,
    variables: Mapping[str, str],
    settings: Mapping[str, object],
    option: str | None,
    is_trusted: bool,
) -> None:
    """Sign-in and compute API agree whatever names the certificates, and the first source counts."""
    files = {"right": str(right.cacert), "wrong": str(wrong.cacert), "folder": str(tmp_path)}
    for name, value in variables.items():
        monkeypatch.setenv(name, files.get(value, value))
    named = {key: files.get(str(value), value) for key, value in settings.items()}
    signs = read(keystone.url, named, Overrides(cacert=None if option is None else files[option]))
    trouble = anyio.run(signs.sign_in)
    assert (trouble is None) is is_trusted
    if trouble is not None:
        assert "CERTIFICATE_VERIFY_FAILED 127.0.0.1:" in trouble.words
        assert (trouble.is_final, trouble.remedy) == (True, "check cacert (OS_CACERT)")
    assert reaches(signs.tls_context(), right.server("127.0.0.1")) is is_trusted


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, "rubbish"], ids=["missing", "rubbish"])
def test_a_variable_that_names_no_certificates_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, content: str | None
) -> None:
    """OpenSSL ignores such a file, and would then refuse every certificate without naming the cause."""
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(CertificatesError, match=rf"^{variable}: .*bundle.pem.*; correct it, or unset it$"):
        tls_context()
    # The variable is not read if nothing is verified, or if other certificates are given.
    assert tls_context(verify=False).verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("has_store", [True, False])
def test_a_system_without_a_store_trusts_certifis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_store: bool
) -> None:
    """A minimal container has no certificates; a folder of hashed ones is not read before it is needed."""
    folder = tmp_path / "certs"
    folder.mkdir()
    if has_store:
        (folder / "ab12cd34.0").write_text("a certificate")
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    assert bool(tls_context().get_ca_certs()) is not has_store


# The proxy.


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "https://keystone.test:5000/v3"),
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "http://keystone.test:5000/v3"),
        ({"ALL_PROXY": "http://proxy.test:3128"}, "http://keystone.test:5000/v3"),
        ({"ALL_PROXY": "http://proxy.test:3128", "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3:5000/v3"),
        ({"ALL_PROXY": "http://proxy.test:3128", "NO_PROXY": "keystone.test:5000"}, "https://keystone.test:5000/v3"),
        ({"ALL_PROXY": "http://proxy.test:3128", "NO_PROXY": "keystone.test:5000"}, "https://keystone.test:5001/v3"),
        ({"ALL_PROXY": "http://proxy.test:3128"}, "http://127.0.0.1:5000/v3"),
    ],
)
def test_two_proxy_rules_are_one(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], url: str) -> None:
    """Requests uses the same proxy for the sign-in as httpx for the compute API."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_of(url)
    assert proxies_for_requests(url) == ({} if proxy is None else {url.partition(":")[0]: "http://proxy.test:3128"})


@pytest.mark.parametrize(
    ("named", "given"),
    [
        ("http://me:pass%40word@proxy.test:3128", "http://me:pass%40word@proxy.test:3128"),
        ("https://me:secret@proxy.test", "https://me:secret@proxy.test"),
        ("proxy.test:3128", "http://proxy.test:3128"),
    ],
)
def test_requests_gets_the_password_of_the_proxy(monkeypatch: pytest.MonkeyPatch, named: str, given: str) -> None:
    """Requests takes the password from the URL."""
    monkeypatch.setenv("HTTPS_PROXY", named)
    assert proxies_for_requests("https://keystone.test/v3") == {"https": given}


@pytest.mark.parametrize(
    ("but", "url", "is_used"),
    [
        ("compute.test:443", "https://compute.test/", False),
        ("compute.test:80", "https://compute.test/", True),
        ("[2001:db8::1]", "https://[2001:db8::1]:8774/", False),
        ("[2001:db8::1]:8774", "https://[2001:db8::1]:8774/", False),
        ("[2001:db8::1]:8775", "https://[2001:db8::1]:8774/", True),
        ("[2001:db8::1]", "https://[2001:db8::2]/", True),
        ("[rubbish]", "https://[2001:db8::2]/", True),
        ("2001:db8::/32", "https://[2001:db8::1]:8774/", False),
    ],
)
def test_ports_and_addresses_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, but: str, url: str, is_used: bool
) -> None:
    """A port is compared with the one that is used, and an address may stand in brackets."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", but)
    assert (proxy_of(url) is not None) is is_used


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_sign_in_names_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """The text names the error, Keystone and the proxy, without the password of the proxy."""
    port = closed_port()
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://me:{PASSWORD}@127.0.0.1:{port}")
    signs = read("https://keystone.test:5000")
    with pytest.raises(SignInError) as caught:
        anyio.run(signs.fetch)
    trouble = caught.value.trouble
    assert f"ECONNREFUSED keystone.test:5000 through the proxy 127.0.0.1:{port}: Connection refused" in trouble.words
    assert PASSWORD not in str(trouble)
    assert not trouble.is_final


def test_a_socks_proxy_keeps_its_own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of another kind would bypass the proxy."""

    class Connections(HTTPSConnectionPool):
        """Stands for those that speak SOCKS."""

    def manager(*_: object, **options: object) -> PoolManager:
        made = PoolManager()
        made.pool_classes_by_scheme = {**made.pool_classes_by_scheme, "https": Connections}
        assert options["ssl_context"] is context
        return made

    context = tls_context()
    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", manager)
    made = BoundedAdapter(context).proxy_manager_for("socks5://proxy.test:1080")
    assert made.pool_classes_by_scheme["https"] is Connections


# A sign-in whose connection fails.


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:{port}", "ECONNREFUSED 127.0.0.1:{port}: Connection refused"),
        ("https://127.0.0.1:{port}", "ECONNREFUSED 127.0.0.1:{port}: Connection refused"),
        ("http://localhost:{port}", "ECONNREFUSED localhost:{port}: Connection refused"),
        ("https://nowhere.invalid:{port}", "EAI_[A-Z]+ nowhere.invalid:{port}: "),
    ],
)
def test_a_sign_in_names_the_error_and_the_address(url: str, words: str) -> None:
    """The text is like that of a request to the compute API, without class names of other libraries."""
    port = closed_port()
    with pytest.raises(SignInError, match=words.format(port=port)) as caught:
        anyio.run(read(url.format(port=port)).fetch)
    assert caught.value.trouble.remedy == "check auth_url (OS_AUTH_URL) and HTTPS_PROXY"
    assert "ConnectionPool" not in caught.value.trouble.words


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EADDRNOTAVAIL, errno.EPERM], ids=errno.errorcode.get)
def test_a_limit_of_this_machine_is_not_keystones_trouble(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The remedy is for this machine."""

    def refuse(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    signs = read("http://127.0.0.1:5000")
    monkeypatch.setattr("urllib3.util.connection.create_connection", refuse)
    with pytest.raises(SignInError, match=f"{errno.errorcode[number]} 127.0.0.1:5000: .* on this machine") as caught:
        anyio.run(signs.fetch)
    assert "auth_url" not in caught.value.trouble.remedy
    assert not caught.value.trouble.is_final


@both_backends
def test_a_sign_in_whose_tls_handshake_is_cut_is_tried_again(
    backend: str, monkeypatch: pytest.MonkeyPatch, right: Authority
) -> None:
    """A connection that a load balancer closes is tried again, also before a run."""
    monkeypatch.setattr("bulkrestart.cloud.credentials._CUT_DELAYS", (0.0, 0.0))
    taken = 0

    async def handle(connection: Connection) -> None:
        nonlocal taken
        taken += 1
        # keystoneauth1 asks for the versions first, and goes on if that fails.
        if taken > 3:
            await secured(leading_to_keystone, right.server("127.0.0.1"))(connection)
        else:
            await connection.receive()

    async def leading_to_keystone(connection: Connection) -> None:
        host, _, port = served.url.removeprefix("http://").rpartition(":")
        async with await anyio.connect_tcp(host, int(port)) as target:
            await pipe(connection, target)

    async def main() -> None:
        async with listening(handle) as address:
            signs = read(f"https://{address}", {"cacert": str(right.cacert)})
            assert await signs.sign_in() is None

    with FakeKeystone().serving() as served:
        anyio.run(main, backend=backend)
    assert len(served.sign_ins) == 1


@both_backends
def test_a_sign_in_that_is_always_cut_ends(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three tries, an error names the cause."""
    monkeypatch.setattr("bulkrestart.cloud.credentials._CUT_DELAYS", (0.0, 0.0))

    async def handle(connection: Connection) -> None:
        await connection.receive()

    async def main() -> None:
        async with listening(handle) as address:
            trouble = await read(f"https://{address}").sign_in()
        assert trouble is not None
        assert f"UNEXPECTED_EOF_WHILE_READING {address}: the other side ended the connection" in trouble.words

    anyio.run(main, backend=backend)
