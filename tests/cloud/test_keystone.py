"""Sign-in by clouds.yaml and `OS_*`, with a Keystone on loopback: who is let in, for how long, and where Nova is."""

import gzip
import json
import logging
import os
import re
import ssl
import subprocess
import sys
import tracemalloc
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import anyio
import httpx
import pytest
from keystoneauth1 import loading

from bulkrestart import AuthError, EndpointError, Outcome, RestartClient, Target
from bulkrestart.cloud.configuration import Overrides
from bulkrestart.cloud.credentials import Issued, SignInError, Trouble
from bulkrestart.cloud.keystone import SECRET_OPTIONS, Keystone
from bulkrestart.simulator import Cloud, LoopbackCloud

from .certificates import Authority
from .fake_keystone import PROJECT, FakeKeystone, Reply, compute
from .loopback import both_backends, closed_port

SECRET = "s3cr3t-passw0rd"
#: What is read of a cloud: its settings, of which `auth` holds some.
Settings = Mapping[str, object]

#: keystoneauth1 keeps its connections in a session that nobody closes.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the environment name no cloud, and no file but those of the test be found."""
    for name in os.environ:
        if name.startswith("OS_") or name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("OS_CLIENT_SECURE_FILE", str(tmp_path / "secure.yaml"))
    write({})


@pytest.fixture
def keystone() -> Iterator[FakeKeystone]:
    """Give a Keystone."""
    with FakeKeystone().serving() as served:
        yield served


def auth_of(keystone: FakeKeystone, **changes: object) -> dict[str, object]:
    """Describe a user with a password; None leaves something out."""
    auth: dict[str, object] = {
        "auth_url": f"{keystone.url}/v3",
        "username": "demo",
        "password": SECRET,
        "project_name": "demo",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    return {name: value for name, value in (auth | changes).items() if value is not None}


def write(clouds: Mapping[str, Settings], *, name: str = "clouds.yaml") -> None:
    """Write a file of clouds into the folder of the test."""
    # JSON is YAML.
    Path(name).write_text(json.dumps({"clouds": clouds}))


def read(keystone: FakeKeystone, _auth: Settings | None = None, /, **settings: object) -> Keystone:
    """Read a cloud that is described so; None leaves something out."""
    usual: dict[str, object] = {"auth": auth_of(keystone) if _auth is None else _auth, "region_name": "RegionOne"}
    write({"test": {name: value for name, value in (usual | settings).items() if value is not None}})
    return Keystone.from_cloud("test")


def fetch(signs: Keystone) -> Issued:
    """Sign in."""
    return anyio.run(signs.fetch)


def trouble_of(signs: Keystone) -> Trouble:
    """Sign in, and give the trouble that comes of it."""
    with pytest.raises(SignInError) as caught:
        fetch(signs)
    trouble = caught.value.trouble
    assert SECRET not in str(trouble)
    assert str(trouble).isprintable()
    return trouble


def endpoint_of(signs: Keystone) -> str:
    """Sign in, and find the endpoint."""

    async def find() -> str:
        assert await signs.sign_in() is None
        return (await signs.find_target()).endpoint

    return anyio.run(find)


# Who signs in.


@pytest.mark.parametrize(
    ("settings", "changes", "methods"),
    [
        pytest.param({}, {}, ["password"], id="password"),
        pytest.param({"auth_type": "password"}, {}, ["password"], id="named"),
        pytest.param({"auth_type": "v3password"}, {}, ["password"], id="v3password"),
        pytest.param(
            {"auth_type": "v3applicationcredential"},
            {
                "username": None,
                "password": None,
                "project_name": None,
                "application_credential_id": "credential",
                "application_credential_secret": SECRET,
            },
            ["application_credential"],
            id="application credential",
        ),
        pytest.param(
            {"auth_type": "v3token"},
            {"username": None, "password": None, "user_domain_name": None, "token": SECRET},
            ["token"],
            id="token",
        ),
        pytest.param(
            {"auth_type": "v3totp"}, {"password": None, "passcode": "123456"}, ["totp"], id="one-time password"
        ),
    ],
)
def test_each_way_to_sign_in(
    keystone: FakeKeystone, settings: Settings, changes: Mapping[str, object], methods: list[str]
) -> None:
    """Every auth type of keystoneauth1 signs in with one request, and gives a token for its life."""
    issued = fetch(read(keystone, auth_of(keystone, **changes), **settings))
    assert issued.headers == {"X-Auth-Token": "token-1"}
    assert issued.seconds == pytest.approx(3600.0)
    [sign_in] = keystone.sign_ins
    identity = sign_in["identity"]
    assert isinstance(identity, dict)
    assert identity["methods"] == methods
    # The scope comes with an application credential.
    assert ("scope" in sign_in) is (methods != ["application_credential"])


@pytest.mark.parametrize(
    ("auth_type", "auth", "headers"),
    [
        ("none", {"endpoint": f"https://nova.test/v2.1/{PROJECT}"}, {"X-Auth-Token": "notused"}),
        (
            "http_basic",
            {"username": "demo", "password": SECRET, "endpoint": f"https://nova.test/v2.1/{PROJECT}"},
            {"Authorization": f"Basic {b64encode(f'demo:{SECRET}'.encode()).decode()}"},
        ),
        (
            "admin_token",
            {"token": SECRET, "endpoint": f"https://nova.test/v2.1/{PROJECT}"},
            {"X-Auth-Token": SECRET},
        ),
    ],
)
def test_ways_that_need_no_keystone(
    keystone: FakeKeystone, auth_type: str, auth: Mapping[str, object], headers: Mapping[str, str]
) -> None:
    """What needs no sign-in asks nobody, lasts, and leads to the endpoint that it names."""
    signs = read(keystone, auth, auth_type=auth_type)
    issued = fetch(signs)
    assert (issued.headers, issued.seconds) == (headers, None)
    assert endpoint_of(signs) == f"https://nova.test/v2.1/{PROJECT}"
    assert not keystone.seen


@pytest.mark.parametrize("auth_type", ["none", "admin_token"])
def test_an_endpoint_without_its_project_is_told(keystone: FakeKeystone, auth_type: str) -> None:
    """Where nobody knows the project, an endpoint without it cannot be used, and none is made up."""
    auth = {"endpoint": "https://nova.test/v2.1"} | ({"token": SECRET} if auth_type == "admin_token" else {})
    client_auth = read(keystone, auth, auth_type=auth_type)

    async def main() -> None:
        client = RestartClient(None, auth=client_auth)
        with pytest.raises(EndpointError, match="project") as caught:
            await client.locate()
        assert "None" not in str(caught.value)

    anyio.run(main)


@pytest.mark.parametrize(
    ("auth_type", "auth"),
    [
        ("http_basic", {"endpoint": "https://nova.test/v2.1"}),
        ("http_basic", {"endpoint": "https://nova.test/v2.1", "username": "demo"}),
        ("admin_token", {"endpoint": "https://nova.test/v2.1", "token": "\u00fc"}),
        ("admin_token", {"endpoint": "https://nova.test/v2.1", "token": " "}),
    ],
)
def test_a_way_that_gives_nothing_to_sign_with_is_refused(
    keystone: FakeKeystone, auth_type: str, auth: Mapping[str, object]
) -> None:
    """What no header can hold, and what holds nothing, is final."""
    trouble = trouble_of(read(keystone, auth, auth_type=auth_type))
    assert trouble.is_final
    assert "it gives no token" in trouble.words


@pytest.mark.parametrize("life", [1.0, 3600.0, 86_400.0])
def test_a_life_is_reckoned_by_keystones_clock(keystone: FakeKeystone, life: float) -> None:
    """It is the time from the issue to the end: our own clock may be off."""
    keystone.life = life
    assert fetch(read(keystone)).seconds == pytest.approx(life)


def test_a_life_may_be_unsaid(keystone: FakeKeystone) -> None:
    """A token that says nothing of its end is used until it is refused."""
    keystone.life = None
    issued = fetch(read(keystone))
    assert (issued.headers, issued.seconds) == ({"X-Auth-Token": "token-1"}, None)


def test_each_sign_in_is_a_new_one(keystone: FakeKeystone) -> None:
    """What keystoneauth1 keeps is not given again, though it is still good."""
    signs = read(keystone)
    assert [fetch(signs).headers["X-Auth-Token"] for _ in range(3)] == ["token-1", "token-2", "token-3"]


@pytest.mark.parametrize("life", [30.0, 3600.0])
def test_sign_in_and_catalog_are_one_request(keystone: FakeKeystone, life: float) -> None:
    """The endpoint comes with the token; a short life does not make keystoneauth1 sign in at every look."""
    keystone.life = life
    keystone.catalog = [compute(f"https://nova.test/v2.1/{PROJECT}")]
    signs = read(keystone)
    assert endpoint_of(signs) == f"https://nova.test/v2.1/{PROJECT}"
    assert len(keystone.sign_ins) == 1
    # v3password asks for no versions; the generic one does, once.
    assert len(keystone.seen) <= 2


@pytest.mark.parametrize("auth_url", ["", "/", "/v3", "/v3/"])
def test_the_url_of_keystone_may_name_its_version(keystone: FakeKeystone, auth_url: str) -> None:
    """With and without its version, and with a slash, the same Keystone signs in."""
    signs = read(keystone, auth_of(keystone, auth_url=f"{keystone.url}{auth_url}"))
    assert fetch(signs).headers == {"X-Auth-Token": "token-1"}
    assert keystone.paths("POST") == ["/v3/auth/tokens"]


# Who is not let in.

KEYSTONE_401 = Reply.error(401, "The request you have made requires authentication.", "Unauthorized")


@pytest.mark.parametrize(
    ("reply", "is_final", "words"),
    [
        pytest.param(KEYSTONE_401, True, "is refused: .*requires authentication", id="wrong password"),
        pytest.param(Reply.error(403, "You are not authorized."), True, "is refused: .*not authorized", id="403"),
        pytest.param(Reply.error(404, "Could not find project: demo."), True, "is refused: .*project", id="no project"),
        pytest.param(Reply.error(400, "Expecting to find domain."), True, "is refused: .*domain", id="400"),
        pytest.param(Reply.error(409, "Conflict"), True, "is refused", id="409"),
        pytest.param(Reply.error(408, "Too slow"), False, "fails", id="408"),
        pytest.param(Reply.error(413, "Too much"), False, "fails", id="413"),
        pytest.param(Reply.error(429, "Too many"), False, "fails", id="429"),
        pytest.param(Reply.error(500, "An unexpected error."), False, "fails: .*unexpected", id="500"),
        pytest.param(Reply.error(503, "Down"), False, "fails", id="503"),
        pytest.param(Reply(status=502, body=b"<html>Bad gateway</html>"), False, "fails: Bad Gateway", id="page"),
        pytest.param(Reply(status=0), False, "fails: .*(aborted|closed|disconnected)", id="cut"),
    ],
)
def test_who_is_not_let_in(keystone: FakeKeystone, reply: Reply, is_final: bool, words: str) -> None:
    """What Keystone says of us is final, to try a wrong password again locks the user out; its own trouble passes."""
    keystone.reply = reply
    trouble = trouble_of(read(keystone))
    assert trouble.is_final is is_final
    assert trouble.words.startswith("the sign-in to cloud test:RegionOne ")
    with pytest.raises(ValueError, match=words):
        raise ValueError(trouble.words)
    assert (trouble.remedy == "check its auth section in clouds.yaml, or OS_*") is is_final


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(status=201, body=b"<html>Please sign in</html>"), id="page"),
        pytest.param(Reply(status=201), id="nothing"),
        pytest.param(Reply(status=200, body=b"{}"), id="empty"),
        pytest.param(Reply(status=201, body=b"[]"), id="list"),
        pytest.param(Reply(status=201, body=b"null"), id="null"),
        pytest.param(Reply(status=201, body=b'"token"'), id="text"),
        pytest.param(Reply(status=201, body=b'{"token": null}'), id="token null, no header"),
        pytest.param(Reply(status=201, body=b'{"token": {}}'), id="no header"),
        pytest.param(Reply(status=201, body=b'{"token": null}', headers={"X-Subject-Token": "t"}), id="token null"),
        pytest.param(Reply(status=201, body=b'{"token": []}', headers={"X-Subject-Token": "t"}), id="token list"),
        pytest.param(
            Reply(status=201, body=b'{"token": {"expires_at": "soon"}}', headers={"X-Subject-Token": "t"}), id="time"
        ),
        pytest.param(Reply(status=201, body=b"{" * 10_000), id="deep"),
        pytest.param(Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}), id="elsewhere"),
        pytest.param(Reply(status=300, body=b"{}"), id="300"),
    ],
)
def test_an_answer_that_is_none(keystone: FakeKeystone, reply: Reply) -> None:
    """Whatever comes in place of a token is trouble in one line, and never an error of its own."""
    keystone.reply = reply
    assert trouble_of(read(keystone)).words.startswith("the sign-in to cloud test:RegionOne ")


GZIPPED: Final = gzip.compress(b"\0" * (64 * 2**20), 1)


@pytest.mark.parametrize("where", ["reply", "discovery"])
@pytest.mark.parametrize(
    ("coding", "body", "words"),
    [
        pytest.param("gzip", GZIPPED, "is longer than 2097152 bytes", id="one layer"),
        pytest.param("gzip, gzip", gzip.compress(GZIPPED), "has several content codings", id="two layers"),
        pytest.param("identity", b" " * (3 * 2**20), "is longer than 2097152 bytes", id="none"),
        pytest.param("gzip", b"no gzip", "decod", id="not what it says"),
    ],
)
def test_an_answer_of_keystone_is_read_within_bounds(
    keystone: FakeKeystone, where: str, coding: str, body: bytes, words: str
) -> None:
    """An answer that grows when it is decompressed is trouble, and takes no more memory than a long token."""
    reply = Reply(status=201, body=body, headers={"Content-Encoding": coding})
    if where == "reply":
        keystone.reply = reply
    else:
        keystone.discovery = keystone.reply = reply
    signs = read(keystone, auth_of(keystone, auth_url=keystone.url))
    tracemalloc.start()
    try:
        trouble = trouble_of(signs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert words in trouble.words
    assert peak < 32 * 2**20


@pytest.mark.parametrize(
    "echoed",
    [
        pytest.param(SECRET, id="as it is"),
        pytest.param(SECRET.encode().hex(), id="in hexadecimal"),
        pytest.param("".join(f"%{ord(char):02x}" for char in SECRET), id="escaped"),
    ],
)
@pytest.mark.parametrize("status", [401, 500])
def test_a_password_that_keystone_echoes_is_masked(keystone: FakeKeystone, status: int, echoed: str) -> None:
    """What a Keystone, or a proxy before it, repeats of the sign-in stands in no message."""
    keystone.reply = Reply.error(status, f"no: {echoed} is wrong")
    trouble = trouble_of(read(keystone))

    assert echoed not in str(trouble)
    assert "no: *** is wrong" in trouble.words


def test_a_token_that_is_echoed_is_masked(keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of the token, when the compute service is asked for its versions, stands in no message."""
    keystone.catalog = [compute(f"{keystone.url}/compute")]
    signs = read(keystone)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("token-1 is not known")

    monkeypatch.setattr(signs._plugin, "get_endpoint_data", fail)
    fetch(signs)
    with pytest.raises(EndpointError, match=r"RuntimeError: \*\*\* is not known"):
        anyio.run(signs.find_target)


def test_secret_options_are_those_of_keystoneauth1() -> None:
    """Each option that an auth type marks as secret is masked."""
    marked = {
        option.dest
        for name in loading.get_available_plugin_names()
        for option in loading.get_plugin_options(name)
        if option.secret
    }

    assert marked <= set(SECRET_OPTIONS)


@pytest.mark.parametrize("token", ["a\x1bb", "a\tb", " ", ""])
def test_a_token_that_no_header_can_carry_is_refused(
    keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """It is told at the sign-in, and not taken for a compute API that does not answer."""
    signs = read(keystone)
    monkeypatch.setattr(signs._plugin, "get_headers", lambda _: {"X-Auth-Token": token})

    assert "it gives no token" in trouble_of(signs).words


def test_the_compute_api_may_echo_no_secret_of_the_sign_in(keystone: FakeKeystone) -> None:
    """What the sign-in is made with is masked in what the compute API answers too."""
    assert [secret.reveal() for secret in read(keystone).secrets] == [SECRET]


@pytest.mark.parametrize(
    "discovery",
    [
        pytest.param(Reply(status=200, body=b"<html>Welcome</html>"), id="page"),
        pytest.param(Reply(status=200, body=b"{}"), id="empty"),
        pytest.param(Reply(status=200, body=b'{"versions": {"values": []}}'), id="none"),
        pytest.param(Reply(status=200, body=b'{"versions": 5}'), id="number"),
        pytest.param(Reply(status=404), id="404"),
        pytest.param(Reply(status=500), id="500"),
        pytest.param(Reply(status=0), id="cut"),
    ],
)
def test_a_url_that_is_no_keystones(keystone: FakeKeystone, discovery: Reply) -> None:
    """A URL without a version at which nobody tells of one is trouble that names auth_url, or is tried as v3."""
    keystone.discovery = discovery
    keystone.reply = Reply(status=404)
    trouble = trouble_of(read(keystone, auth_of(keystone, auth_url=keystone.url)))
    assert trouble.words.startswith("the sign-in to cloud test:RegionOne ")


def test_nobody_listens(keystone: FakeKeystone) -> None:
    """A port where nobody listens is trouble that may pass, and names the variable."""
    auth = auth_of(keystone, auth_url=f"http://127.0.0.1:{closed_port()}/v3")
    trouble = trouble_of(read(keystone, auth))
    assert not trouble.is_final
    assert trouble.remedy == "check auth_url (OS_AUTH_URL) and HTTPS_PROXY"


@pytest.mark.parametrize("auth_url", ["rubbish", "ftp://127.0.0.1/v3", "http://", "http://127.0.0.1:port/v3"])
def test_a_url_that_is_none(keystone: FakeKeystone, auth_url: str) -> None:
    """A URL that cannot be one is trouble, or is refused when it is read."""
    try:
        signs = read(keystone, auth_of(keystone, auth_url=auth_url))
    except ValueError as error:
        assert SECRET not in str(error)  # noqa: PT017 (either of two)
    else:
        assert trouble_of(signs).words.startswith("the sign-in to cloud test:RegionOne ")


def test_a_sign_in_that_hangs_is_given_up(keystone: FakeKeystone) -> None:
    """`api_timeout` bounds one request, and it is trouble that may pass."""
    keystone.going.clear()
    trouble = trouble_of(read(keystone, api_timeout=0.2))
    assert not trouble.is_final
    assert "imed out" in trouble.words


@pytest.mark.parametrize(("api_timeout", "seconds"), [(None, 60.0), (5.0, 5.0), (600, 600.0)])
def test_a_sign_in_has_a_minute(keystone: FakeKeystone, api_timeout: float | None, seconds: float) -> None:
    """Without `api_timeout` a request to Keystone has 60 s, where keystoneauth1 would wait for ever."""
    assert read(keystone, api_timeout=api_timeout)._session.timeout == seconds


def test_a_token_for_no_project_is_told(keystone: FakeKeystone) -> None:
    """A sign-in that names no project is final, and says what to set."""
    keystone.scope = None
    auth = auth_of(keystone, project_name=None, project_domain_name=None)
    trouble = trouble_of(read(keystone, auth))
    assert str(trouble) == ("the sign-in to cloud test:RegionOne is for no project; set project_name (OS_PROJECT_NAME)")
    assert trouble.is_final


@both_backends
def test_a_sign_in_can_be_cancelled(backend: str, keystone: FakeKeystone) -> None:
    """Whoever waits for a Keystone that hangs is not held, and the next sign-in goes its way."""
    signs = read(keystone)
    keystone.going.clear()

    async def main() -> None:
        with anyio.move_on_after(0.1) as scope:
            await signs.sign_in()
        assert scope.cancelled_caught
        keystone.going.set()
        with anyio.fail_after(5.0):
            assert await signs.sign_in() is None

    anyio.run(main, backend=backend)


# Where the compute API is.


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        pytest.param(f"https://nova.test/v2.1/{PROJECT}", f"https://nova.test/v2.1/{PROJECT}", id="whole"),
        pytest.param(f"https://nova.test/v2.1/{PROJECT}/", f"https://nova.test/v2.1/{PROJECT}", id="whole, slash"),
        pytest.param("https://nova.test/v2.1", f"https://nova.test/v2.1/{PROJECT}", id="without the project"),
        pytest.param("https://nova.test/v2.1/", f"https://nova.test/v2.1/{PROJECT}", id="without it, slash"),
        pytest.param("https://nova.test/compute/v2.1", f"https://nova.test/compute/v2.1/{PROJECT}", id="path"),
        pytest.param(f"https://nova.test:8774/v2/{PROJECT}", f"https://nova.test:8774/v2/{PROJECT}", id="v2"),
        pytest.param("https://nova.test/v2", f"https://nova.test/v2/{PROJECT}", id="v2 without the project"),
        pytest.param(
            "https://ecs.eu-de.otc.t-systems.com/v2.1/other",
            "https://ecs.eu-de.otc.t-systems.com/v2.1/other",
            id="other",
        ),
    ],
)
def test_the_endpoint_stands_in_the_catalog(keystone: FakeKeystone, listed: str, found: str) -> None:
    """The project is added where the catalog leaves it out, and nobody is asked for versions."""
    keystone.catalog = [compute("https://volume.test/v3", service_type="volumev3"), compute(listed)]
    assert endpoint_of(read(keystone)) == found
    assert not [path for path in keystone.paths() if "compute" in path]


@pytest.mark.parametrize("path", ["/compute", "/compute/"])
def test_an_endpoint_without_a_version_is_asked(keystone: FakeKeystone, path: str) -> None:
    """A catalog that names no version leads to Nova's own list of them."""
    keystone.catalog = [compute(f"{keystone.url}{path}")]
    assert endpoint_of(read(keystone)) == f"{keystone.url}/compute/v2.1/{PROJECT}"


@pytest.mark.parametrize(
    "discovery",
    [
        pytest.param(Reply(status=200, body=b"<html>Welcome</html>"), id="page"),
        pytest.param(Reply(status=200, body=b"{}"), id="empty"),
        pytest.param(Reply(status=200, body=b'{"versions": []}'), id="none"),
        pytest.param(Reply(status=200, body=b'{"versions": [5]}'), id="number"),
        pytest.param(Reply(status=200, body=b'{"versions": {"values": 5}}'), id="odd"),
        pytest.param(Reply(status=200, body=b'{"versions": [{"id": "v2.1"}]}'), id="no link"),
        pytest.param(Reply(status=401), id="401"),
        pytest.param(Reply(status=404), id="404"),
        pytest.param(Reply(status=503), id="503"),
        pytest.param(Reply(status=0), id="cut"),
    ],
)
def test_an_endpoint_that_tells_no_version_is_refused(keystone: FakeKeystone, discovery: Reply) -> None:
    """It is an EndpointError in one line, and nothing was sent."""
    keystone.catalog = [compute(f"{keystone.url}/compute")]
    keystone.compute_discovery = discovery

    async def main() -> None:
        async with RestartClient(None, auth=read(keystone)) as client:
            with pytest.raises(EndpointError, match="nothing was sent") as caught:
                await client.restart(["s"])
        assert str(caught.value).isprintable()

    anyio.run(main)


def test_an_endpoint_that_hangs_is_given_up(keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look for versions is bounded as the sign-in is, whatever `api_timeout` leaves it."""
    monkeypatch.setattr("bulkrestart.cloud.keystone.LONGEST_FETCH", 0.2)
    keystone.catalog = [compute(f"{keystone.url}/compute")]
    signs = read(keystone)

    async def main() -> None:
        assert await signs.sign_in() is None
        keystone.going.clear()
        with pytest.raises(EndpointError, match=r"is not found in .*; nothing was sent"), anyio.fail_after(5.0):
            await signs.find_target()

    anyio.run(main)


def test_a_nova_that_is_too_old_is_refused(keystone: FakeKeystone) -> None:
    """Where there is nothing from 2.1 on, it is not taken for something else."""
    keystone.catalog = [compute(f"{keystone.url}/compute-old")]

    async def main() -> None:
        async with RestartClient(None, auth=read(keystone)) as client:
            with pytest.raises(EndpointError):
                await client.locate()

    anyio.run(main)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        (f"https://own.test/v2.1/{PROJECT}", f"https://own.test/v2.1/{PROJECT}"),
        ("https://own.test/v2.1", f"https://own.test/v2.1/{PROJECT}"),
        ("https://own.test/v2/", f"https://own.test/v2/{PROJECT}"),
        # As keystoneauth1/session.py fills it in.
        ("https://own.test/v2.1/%(project_id)s", f"https://own.test/v2.1/{PROJECT}"),
    ],
)
def test_an_override_counts_before_the_catalog(keystone: FakeKeystone, override: str, found: str) -> None:
    """`compute_endpoint_override` is where the servers are, whatever the catalog says."""
    keystone.catalog = [compute("https://nova.test/v2.1")]
    assert endpoint_of(read(keystone, compute_endpoint_override=override)) == found


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, "public-one"),
        ({"region_name": "RegionTwo"}, "public-two"),
        ({"interface": "internal"}, "internal-one"),
        ({"interface": "internal", "region_name": "RegionTwo"}, "internal-two"),
        ({"compute_interface": "internal"}, "internal-one"),
        ({"endpoint_type": "internal"}, "internal-one"),
        ({"compute_region_name": "RegionTwo"}, "public-two"),
        ({"compute_service_type": "own-compute"}, "own"),
    ],
)
def test_region_and_interface_choose(keystone: FakeKeystone, settings: Settings, found: str) -> None:
    """Of several endpoints, that of the region and of the interface is taken, as configured."""
    keystone.catalog = [
        compute(f"https://{interface}-{number}.test/v2.1", interface=interface, region=region)
        for region, number in (("RegionOne", "one"), ("RegionTwo", "two"))
        for interface in ("internal", "public")
    ]
    keystone.catalog.append(compute("https://own.test/v2.1", service_type="own-compute"))
    assert endpoint_of(read(keystone, **settings)) == f"https://{found}.test/v2.1/{PROJECT}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"region_name": "RegionThree"}, r"interface public, region RegionThree"),
        ({"interface": "admin"}, r"interface admin, region RegionOne"),
        ({"compute_service_name": "other"}, "no compute service"),
    ],
)
def test_a_catalog_without_a_compute_api_is_told(keystone: FakeKeystone, settings: Settings, words: str) -> None:
    """The error names what was looked for, and what to set."""
    keystone.catalog = [compute("https://nova.test/v2.1")]
    signs = read(keystone, **settings)
    with pytest.raises(EndpointError, match=words) as caught:
        endpoint_of(signs)
    assert "check region_name and interface, or set compute_endpoint_override; nothing was sent" in str(caught.value)


@pytest.mark.parametrize(
    ("regions", "named"), [(("eu-1", ""), "eu-1"), (("eu-1", "\x1b"), "eu-1"), (("", "\x1b"), "NAME")]
)
def test_the_remedy_names_a_region_that_can_be_named(
    keystone: FakeKeystone, regions: tuple[str, str], named: str
) -> None:
    """Where the compute API stands in several regions, one without a name is no example of one."""
    keystone.catalog = [compute(f"https://nova.test/{at}/v2.1", region=region) for at, region in enumerate(regions)]
    signs = read(keystone, region_name="")
    fetch(signs)
    with pytest.raises(EndpointError, match=rf"name one, such as --region {named}, "):
        anyio.run(signs.find_target)


def test_a_token_without_a_catalog_is_told(keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was issued without a catalog leads nowhere, and an endpoint that is configured needs none."""
    issue = keystone._issue

    def without_catalog(number: int) -> Reply:
        reply = issue(number)
        document = json.loads(reply.body)
        del document["token"]["catalog"]
        return keystone._json(document, 201, reply.headers)

    monkeypatch.setattr(keystone, "_issue", without_catalog)
    with pytest.raises(EndpointError, match=r"is not found|no compute service"):
        endpoint_of(read(keystone))
    override = f"https://own.test/v2.1/{PROJECT}"
    assert endpoint_of(read(keystone, compute_endpoint_override=override)) == override


def test_an_endpoint_of_another_project_is_refused(keystone: FakeKeystone) -> None:
    """A configured endpoint that ends in another project than the sign-in's is named, with both."""
    signs = read(keystone, compute_endpoint_override="https://own.test/v2.1/other")
    with pytest.raises(EndpointError, match=f"is for project {PROJECT}, and its compute endpoint is of project other"):
        endpoint_of(signs)


@pytest.mark.parametrize(("listed", "name"), [("other", ""), (PROJECT, "demo")])
def test_a_catalog_may_lead_to_another_project(keystone: FakeKeystone, listed: str, name: str) -> None:
    """A catalog is Keystone's word for this sign-in; the name of the token's project is not given to another."""
    keystone.catalog = [compute(f"https://nova.test/v2.1/{listed}")]
    signs = read(keystone)

    async def find() -> Target:
        assert await signs.sign_in() is None
        return await signs.find_target()

    target = anyio.run(find)
    assert (target.project_id, target.project_name) == (listed, name)


def test_the_target_is_found_once(keystone: FakeKeystone) -> None:
    """A catalog that changes after the endpoint was found leads to no other servers."""
    keystone.catalog = [compute("https://one.test/v2.1")]
    signs = read(keystone)
    assert endpoint_of(signs) == f"https://one.test/v2.1/{PROJECT}"
    keystone.catalog = [compute("https://two.test/v2.1")]
    fetch(signs)
    assert endpoint_of(signs) == f"https://one.test/v2.1/{PROJECT}"


@pytest.mark.parametrize(
    ("settings", "region"),
    [
        ({"region_name": None}, "RegionTwo"),
        ({"region_name": "RegionTwo"}, "RegionTwo"),
        ({"region_name": None, "compute_endpoint_override": "https://other.test/v2.1"}, ""),
        ({"compute_endpoint_override": "https://other.test/v2.1"}, "RegionOne"),
    ],
)
def test_the_region_of_a_configured_endpoint(keystone: FakeKeystone, settings: Settings, region: str) -> None:
    """The region is the catalog's for an endpoint that it has, and else the configured one, if there is any."""
    keystone.catalog = [compute("https://own.test/v2.1", region="RegionTwo")]
    signs = read(keystone, **{"compute_endpoint_override": "https://own.test/v2.1/%(project_id)s", **settings})

    async def find() -> str:
        assert await signs.sign_in() is None
        return (await signs.find_target()).region

    assert anyio.run(find) == region


@pytest.mark.parametrize(
    "catalog",
    [
        pytest.param([], id="empty"),
        pytest.param([compute("https://volume.test/v3", service_type="volumev3")], id="another service"),
        pytest.param([{"type": "compute", "endpoints": []}], id="no endpoint"),
        pytest.param([{"type": "compute"}], id="no endpoints"),
        pytest.param([{}], id="no type"),
        pytest.param([compute("")], id="empty URL"),
        pytest.param([compute("rubbish")], id="no URL"),
        pytest.param([compute("ftp://nova.test/v2.1")], id="other scheme"),
        pytest.param([compute("https://me:s3cr3t-passw0rd@nova.test/v2.1")], id="user in the URL"),
        pytest.param([{"type": "compute", "endpoints": [{"interface": "public", "region": "RegionOne"}]}], id="no url"),
    ],
)
def test_a_catalog_that_leads_nowhere_is_an_endpoint_error(
    keystone: FakeKeystone, catalog: list[dict[str, object]]
) -> None:
    """Whatever a catalog holds in place of an endpoint is an EndpointError in one line, and nothing was sent."""
    keystone.catalog = catalog

    async def main() -> None:
        async with RestartClient(None, auth=read(keystone)) as client:
            with pytest.raises(EndpointError, match="nothing was sent") as caught:
                await client.restart(["s"])
        assert str(caught.value).isprintable()

    anyio.run(main)


# What is read, and from where.


def variables(keystone: FakeKeystone, **changes: str) -> dict[str, str]:
    """Describe a user by variables."""
    return {
        "OS_AUTH_URL": f"{keystone.url}/v3",
        "OS_USERNAME": "demo",
        "OS_PASSWORD": SECRET,
        "OS_PROJECT_NAME": "demo",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": "RegionOne",
    } | changes


def test_variables_describe_a_cloud(keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch) -> None:
    """An openrc file that was sourced is enough."""
    for name, value in variables(keystone).items():
        monkeypatch.setenv(name, value)
    keystone.catalog = [compute("https://nova.test/v2.1")]
    signs = Keystone.from_cloud()
    assert signs.name == "envvars:RegionOne"
    assert endpoint_of(signs) == f"https://nova.test/v2.1/{PROJECT}"


def test_os_cloud_chooses(keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name, OS_CLOUD tells which cloud; a name counts before it."""
    write({"one": {"auth": auth_of(keystone)}, "two": {"auth": auth_of(keystone), "region_name": "RegionTwo"}})
    monkeypatch.setenv("OS_CLOUD", "two")
    assert Keystone.from_cloud().name == "two:RegionTwo"
    assert Keystone.from_cloud("one").name == "one"


def test_a_secure_file_is_merged(keystone: FakeKeystone) -> None:
    """The password may stand in secure.yaml."""
    write({"test": {"auth": {"password": SECRET}}}, name="secure.yaml")
    signs = read(keystone, auth_of(keystone, password=None))
    assert fetch(signs).headers == {"X-Auth-Token": "token-1"}


@pytest.mark.parametrize("region", ["eu-de", "eu-nl"])
def test_the_profile_of_open_telekom_cloud(keystone: FakeKeystone, region: str) -> None:
    """`profile: otc` is known without otcextensions, and is read without the network."""
    auth = auth_of(keystone, auth_url=None, user_domain_name="OTC00000000001000000001")
    signs = read(keystone, auth, profile="otc", region_name=region, ak="AK", sk="SK")
    assert signs.name == f"test:{region}"
    assert signs._auth_url == f"https://iam.{region}.otc.t-systems.com/v3"
    assert not keystone.seen


def test_nothing_is_asked_before_the_first_use(keystone: FakeKeystone) -> None:
    """A client of a cloud is made without the network."""
    read(keystone)
    RestartClient.from_cloud("test")
    assert not keystone.seen


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        pytest.param("test", None, "cloud 'test' cannot be used: .*no such file", id="no file"),
        pytest.param("test", "", "cloud 'test' cannot be used", id="empty file"),
        pytest.param("other", '{"clouds": {"test": {}}}', "cloud 'other' cannot be used: .*test", id="other cloud"),
        pytest.param("test", "clouds: {", "cloud 'test' cannot be used", id="no YAML"),
        pytest.param("test", "clouds:\n\ttest:\n", "cloud 'test' cannot be used", id="tab"),
        pytest.param("test", "- a\n- b\n", "cloud 'test' cannot be used", id="list"),
        pytest.param("test", "clouds: [test]\n", "cloud 'test' cannot be used", id="list of clouds"),
        pytest.param("test", "clouds: 5\n", "cloud 'test' cannot be used", id="number"),
        pytest.param("test", "clouds: {test: null}\n", "cloud 'test' cannot be used", id="null"),
        pytest.param("test", "clouds: {test: {auth: text}}\n", "cloud 'test' cannot be used", id="auth is a text"),
        pytest.param("test", "clouds: {test: {auth: null}}\n", "cloud 'test' cannot be used", id="auth is null"),
        pytest.param("test", "\x00\x01", "cloud 'test' cannot be used", id="bytes"),
        pytest.param("test", "clouds: {test: {profile: nowhere}}", "cloud 'test' cannot be used", id="profile"),
        pytest.param("test", "clouds: {test: {auth_type: odd}}", "cloud 'test' cannot be used: .*odd", id="auth type"),
        pytest.param("", "{}", "the cloud in OS_CLOUD or OS_", id="empty name"),
        pytest.param(None, '{"clouds": {}}', "the cloud in OS_CLOUD or OS_", id="no name"),
    ],
)
def test_a_cloud_that_cannot_be_read_is_refused(name: str | None, text: str | None, words: str) -> None:
    """Whatever is wrong with the files is a ValueError in one line that names the cloud."""
    Path("clouds.yaml").unlink() if text is None else Path("clouds.yaml").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        Keystone.from_cloud(name)
    assert str(caught.value).isprintable()
    assert "clouds.yaml" in str(caught.value)


def test_a_cloud_without_its_keystone_is_refused(keystone: FakeKeystone) -> None:
    """Without auth_url there is nobody to sign in with; it is named, and the password is not shown."""
    with pytest.raises(ValueError, match="auth_url") as caught:
        read(keystone, auth_of(keystone, auth_url=None))
    assert SECRET not in str(caught.value)


def test_a_password_that_is_missing_is_named(keystone: FakeKeystone) -> None:
    """What keystoneauth1 misses only when it signs in is final all the same, and Keystone is not asked."""
    trouble = trouble_of(read(keystone, auth_of(keystone, password=None)))
    assert trouble.is_final
    assert "password" in trouble.words
    assert trouble.remedy == "check its auth section in clouds.yaml, or OS_*"
    assert not keystone.sign_ins


def test_the_name_of_a_cloud_does_not_make_its_trouble(keystone: FakeKeystone) -> None:
    """A cloud that is named after a protocol is not taken for one with a bad certificate."""
    auth = auth_of(keystone, auth_url=f"http://127.0.0.1:{closed_port()}/v3")
    write({"SSL-VPN": {"auth": auth}})
    trouble = trouble_of(Keystone.from_cloud("SSL-VPN"))
    assert not trouble.is_final
    assert trouble.remedy == "check auth_url (OS_AUTH_URL) and HTTPS_PROXY"


@pytest.mark.parametrize(
    ("header", "seconds"), [({"Retry-After": "17"}, 17.0), ({}, None), ({"Retry-After": "?"}, None)]
)
@pytest.mark.parametrize("status", [413, 429, 503])
def test_keystone_may_ask_to_wait(
    keystone: FakeKeystone, header: Mapping[str, str], seconds: float | None, status: int
) -> None:
    """How long a Keystone in trouble asks to wait is heard."""
    keystone.reply = Reply(status=status, headers=header)
    assert trouble_of(read(keystone)).retry_after == seconds


def test_nothing_shows_the_password(keystone: FakeKeystone, caplog: pytest.LogCaptureFixture) -> None:
    """No log at any level shows the password or the token, and neither does what holds them."""
    keystone.catalog = [compute("https://nova.test/v2.1")]
    with caplog.at_level(logging.DEBUG):
        signs = read(keystone)
        endpoint_of(signs)
        keystone.reply = KEYSTONE_401
        trouble_of(signs)
    for shown in (caplog.text, repr(signs), str(signs)):
        assert SECRET not in shown
        assert "token-1" not in shown
    assert repr(signs) == "Keystone(...)"


def test_the_remedy_names_the_cloud(keystone: FakeKeystone) -> None:
    """Where Nova refuses a token that Keystone gave, the user is told whose it is."""
    remedy = read(keystone).remedy(httpx.Response(401))
    assert remedy == "check that the user of cloud test:RegionOne may use the compute API"


# Certificates.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give somebody who issues certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(authority: Authority) -> Iterator[FakeKeystone]:
    """Give a Keystone that speaks TLS."""
    with FakeKeystone(authority.server("127.0.0.1")).serving() as served:
        yield served


def test_a_keystone_that_is_not_trusted_is_told(secure: FakeKeystone) -> None:
    """An unknown certificate is final, and the error says what to set; the password never left."""
    trouble = trouble_of(read(secure))
    assert trouble.is_final
    assert "certificate verify failed" in trouble.words
    assert trouble.remedy == "check cacert (OS_CACERT)"
    assert not secure.seen


def test_the_configuration_says_whom_to_trust(secure: FakeKeystone, authority: Authority) -> None:
    """`cacert` is trusted for the sign-in, and for the requests to the compute API."""
    signs = read(secure, cacert=str(authority.cacert))
    assert fetch(signs).headers == {"X-Auth-Token": "token-1"}
    assert len(signs.tls_context().get_ca_certs()) == 1


@pytest.mark.parametrize("settings", [{"verify": False}, {"insecure": True}])
def test_the_configuration_may_trust_anybody(
    secure: FakeKeystone, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """`verify: false` holds for the sign-in and the requests, and is warned of once, whatever is requested."""
    with caplog.at_level(logging.WARNING):
        signs = read(secure, **settings)
        for number in (1, 2):
            # urllib3's own warning would be an error here.
            assert fetch(signs).headers == {"X-Auth-Token": f"token-{number}"}
    assert signs.tls_context().verify_mode is ssl.CERT_NONE
    assert caplog.text.count("certificates are not verified") == 1


@pytest.mark.filterwarnings("ignore::openstack.warnings.ConfigurationWarning")
def test_an_option_counts_before_the_configuration(secure: FakeKeystone, authority: Authority) -> None:
    """What is given with the name counts before what the file says; what is left empty does not."""
    with pytest.raises(ValueError, match=r"/nonexistent/cacert\.pem"):
        read(secure, cacert="/nonexistent/cacert.pem")
    trusting = Keystone.from_cloud("test", Overrides(cacert=str(authority.cacert)))
    assert fetch(trusting).headers == {"X-Auth-Token": "token-1"}
    insecure = Keystone.from_cloud("test", Overrides(is_insecure=True))
    assert insecure.tls_context().verify_mode is ssl.CERT_NONE
    assert fetch(insecure).headers == {"X-Auth-Token": "token-2"}


def test_the_configuration_counts_before_the_environment(
    secure: FakeKeystone, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cacert` is trusted where REQUESTS_CA_BUNDLE names another."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    signs = read(secure, cacert=str(authority.cacert))
    assert fetch(signs).headers == {"X-Auth-Token": "token-1"}
    assert len(signs.tls_context().get_ca_certs()) == 1


def test_a_certificate_of_our_own_is_shown(authority: Authority) -> None:
    """`cert` and `key` say who we are, to Keystone and to the compute API."""
    asking = authority.server("127.0.0.1")
    asking.verify_mode = ssl.CERT_REQUIRED
    asking.load_verify_locations(authority.cacert)
    ours = authority.issue("ours")
    with FakeKeystone(asking).serving() as served:
        signs = read(served, cacert=str(authority.cacert), cert=str(ours.cert), key=str(ours.key))
        assert fetch(signs).headers == {"X-Auth-Token": "token-1"}
        signs.tls_context()
        both = ours.cert.with_name("both.pem")
        both.write_bytes(ours.cert.read_bytes() + ours.key.read_bytes())
        signs = read(served, cacert=str(authority.cacert), cert=str(both))
        assert fetch(signs).headers == {"X-Auth-Token": "token-2"}
        signs.tls_context()


@pytest.mark.parametrize("name", ["cacert", "cert"])
def test_a_file_that_is_missing_is_told(keystone: FakeKeystone, name: str) -> None:
    """A file that the configuration names and that does not exist is a ValueError before anything is sent."""
    with pytest.raises(ValueError, match=r"/nonexistent/file\.pem"):
        read(keystone, **{name: "/nonexistent/file.pem"})


# All of it.


@pytest.fixture
def served() -> Iterator[LoopbackCloud]:
    """Give a cloud that knows no token yet."""
    cloud = Cloud(12, reboot_seconds=(0.05, 0.1), project_id=PROJECT)
    cloud.tokens.clear()
    with LoopbackCloud(cloud) as loopback:
        yield loopback


@both_backends
@pytest.mark.parametrize("listed", ["{url}/v2.1/{project}", "{url}/v2.1", "{url}/v2"])
def test_a_fleet_is_restarted_by_the_name_of_its_cloud(
    backend: str, keystone: FakeKeystone, served: LoopbackCloud, listed: str
) -> None:
    """With nothing but a name, the sign-in, the catalog and the servers are found, and each is restarted once."""
    keystone.catalog = [compute(listed.format(url=served.url, project=PROJECT))]
    keystone.issued = served.cloud.add_token
    read(keystone)

    async def main() -> None:
        async with RestartClient.from_cloud("test", max_at_once=4) as client:
            servers = [server async for server in client.servers()]
            report = await client.restart(servers, wait=False)
            version = "v2" if listed.endswith("v2") else "v2.1"
            assert (await client.locate()).endpoint == f"{served.url}/{version}/{PROJECT}"
        assert report.summary == {Outcome.ACCEPTED: 12}

    anyio.run(main, backend=backend)
    assert len(keystone.sign_ins) == 1
    assert set(served.cloud.posts.values()) == {1}


@pytest.mark.asyncio
async def test_a_token_that_ends_is_renewed(keystone: FakeKeystone, served: LoopbackCloud) -> None:
    """A token that is revoked in mid-run is replaced by one sign-in, and each server is restarted once."""
    keystone.catalog = [compute(f"{served.url}/v2.1")]
    keystone.issued = served.cloud.add_token
    read(keystone)
    async with (
        RestartClient.from_cloud("test", max_at_once=3) as client,
        client.restarting(served.cloud.ids, wait=False) as run,
    ):
        await anext(run)
        served.cloud.tokens.pop("token-1")
        async for _ in run:
            pass
    assert run.report.summary == {Outcome.ACCEPTED: 12}
    assert len(keystone.sign_ins) == 2


@both_backends
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (KEYSTONE_401, "is refused: .*; check its auth section in clouds.yaml, or OS_.*; nothing was sent"),
        (Reply.error(503, "Down"), "fails: Down.*; try again later; nothing was sent"),
    ],
)
def test_who_is_not_let_in_is_told_before_a_run(backend: str, keystone: FakeKeystone, reply: Reply, words: str) -> None:
    """It is an AuthError, at once, after one try."""
    keystone.reply = reply
    read(keystone)

    async def main() -> None:
        async with RestartClient.from_cloud("test") as client:
            for use in (client.locate, lambda: client.restart(["s"]), lambda: anext(aiter(client.servers()))):
                with pytest.raises(AuthError, match=words) as caught, anyio.fail_after(5.0):
                    await use()
                assert SECRET not in str(caught.value)

    anyio.run(main, backend=backend)
    assert len(keystone.sign_ins) == (1 if reply is KEYSTONE_401 else 3)


@pytest.mark.parametrize("name", [5, b"test", ["test"], True])
def test_a_name_that_is_no_text_is_refused(name: str) -> None:
    """It is a ValueError that says what came instead."""
    with pytest.raises(ValueError, match=r"the name of a cloud must be a string, not (int|bytes|list|bool)"):
        RestartClient.from_cloud(name)


@pytest.mark.parametrize("module", ["openstack.config", "keystoneauth1"])
def test_the_extra_may_be_missing_in_part(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Whatever is missing of the extra, from_cloud says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("keystone", "configuration"):
        monkeypatch.delitem(sys.modules, f"bulkrestart.cloud.{name}")
    with pytest.raises(ImportError, match=r"need an extra: pip install 'bulkrestart\[openstack\]'"):
        RestartClient.from_cloud("test")


@pytest.mark.parametrize("module", ["openstack", "keystoneauth1"])
def test_the_extra_may_be_missing(module: str) -> None:
    """Without the extra, from_cloud says what to install; the rest of the package needs none of it."""
    code = f"""
import sys
sys.modules[{module!r}] = None
import bulkrestart
try:
    bulkrestart.RestartClient.from_cloud("test")
except ImportError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "clouds.yaml and OS_* need an extra: pip install 'bulkrestart[openstack]'\n"


def test_the_extra_is_loaded_only_where_it_is_used() -> None:
    """A program that brings its own token does not pay for reading clouds.yaml."""
    code = "import sys, bulkrestart; print([name for name in sys.modules if name in ('openstack', 'keystoneauth1')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


# What turns the verification off, and what only seems to.


@pytest.mark.parametrize(
    ("settings", "variable", "words"),
    [
        ({"verify": "/nope"}, None, "verify of cloud 'test': cannot read certificates from /nope: "),
        (
            {"verify": "/nope", "cert": "/dev/null"},
            None,
            "verify of cloud 'test': cannot read certificates from /nope: ",
        ),
        ({"cacert": "/nope"}, None, "cacert of cloud 'test': cannot read certificates from /nope: "),
        (
            {"cacert": "/nope", "verify": "/other"},
            None,
            "cacert of cloud 'test': cannot read certificates from /nope: ",
        ),
        ({"cacert": "/dev/null"}, None, "cacert of cloud 'test': /dev/null holds no certificates: "),
        ({"cert": "/nope", "verify": False}, None, "cert of cloud 'test': cannot read the certificate /nope"),
        (
            {"cert": "/dev/null", "key": "/nope", "verify": False},
            None,
            "cert and key of cloud 'test': /dev/null and ",
        ),
        ({}, "/nope", "SSL_CERT_FILE: cannot read certificates from /nope: "),
        ({"cert": "/other"}, "/nope", "SSL_CERT_FILE: cannot read certificates from /nope: "),
    ],
)
def test_a_file_of_certificates_that_cannot_be_used(
    keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch, settings: Settings, variable: str | None, words: str
) -> None:
    """The error names the setting and the cloud; a file that a variable names is no setting of the cloud."""
    monkeypatch.delenv("OS_CACERT", raising=False)
    if variable is not None:
        monkeypatch.setenv("SSL_CERT_FILE", variable)
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        read(keystone, **settings)


@pytest.mark.parametrize(
    ("settings", "variable", "words"),
    [
        pytest.param({"verify": "false"}, None, "verify must be true or false without quotes, not 'false'", id="text"),
        pytest.param({"verify": "False", "cacert": "ca.pem"}, None, "verify must be true or false", id="with cacert"),
        pytest.param({"verify": "no"}, None, "verify must be true or false without quotes, not 'no'", id="no"),
        pytest.param({"verify": 0}, None, "verify must be true or false without quotes, not '0'", id="number"),
        pytest.param({"verify": "null"}, None, "verify must be true or false without quotes, not 'null'", id="a word"),
        pytest.param({"verify": {}}, None, "verify must be true or false without quotes, not '{}'", id="mapping"),
        pytest.param({"verify": ["x"]}, None, "verify must be true or false without quotes", id="list"),
        pytest.param({"insecure": "yes"}, None, "insecure must be true or false, not 'yes'", id="insecure: yes"),
        pytest.param({"insecure": 1}, None, "insecure must be true or false, not '1'", id="insecure: 1"),
        pytest.param({"insecure": [True]}, None, "insecure must be true or false, not", id="insecure: list"),
        pytest.param({}, "true", "OS_INSECURE is true, and `openstack` does not read it", id="OS_INSECURE"),
        pytest.param({"verify": True}, "True", "OS_INSECURE is true, and `openstack` does not", id="and verify: true"),
        pytest.param({"insecure": False}, "TRUE", "OS_INSECURE is true", id="and insecure: false"),
        pytest.param({}, "1", "OS_INSECURE must be true or false, not '1'", id="OS_INSECURE=1"),
        pytest.param({"verify": False}, "yes", "OS_INSECURE must be true or false, not 'yes'", id="OS_INSECURE=yes"),
    ],
)
def test_what_only_seems_to_turn_the_verification_off_is_refused(
    keystone: FakeKeystone,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    variable: str | None,
    words: str,
) -> None:
    """`openstack` goes on verifying in each of these cases, so a user who meant it is told."""
    monkeypatch.delenv("OS_INSECURE", raising=False)
    if variable is not None:
        monkeypatch.setenv("OS_INSECURE", variable)
    with pytest.raises(ValueError, match=r"^cloud 'test' cannot be used: ") as caught:
        read(keystone, **settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "variable", "is_verified"),
    [
        ({}, "", True),
        ({}, "false", True),
        ({"insecure": ""}, "False", True),
        ({"insecure": "false"}, "", True),
        ({"insecure": "True"}, "", False),
        ({"insecure": True}, "true", False),
        ({"verify": False}, "true", False),
        ({"verify": False}, "false", False),
    ],
)
def test_what_turns_the_verification_off(
    keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch, settings: Settings, variable: str, is_verified: bool
) -> None:
    """The file decides for a named cloud, as for `openstack`."""
    monkeypatch.setenv("OS_INSECURE", variable)
    assert (read(keystone, **settings).tls_context().verify_mode is ssl.CERT_REQUIRED) is is_verified


@pytest.mark.parametrize(
    ("value", "is_verified"), [("", True), ("false", True), ("False", True), ("true", False), ("TRUE", False)]
)
def test_a_variable_turns_the_verification_off_for_the_cloud_of_the_variables(
    keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch, value: str, is_verified: bool
) -> None:
    """OS_INSECURE means there what it means to `openstack`."""
    for name, setting in (variables(keystone) | {"OS_INSECURE": value}).items():
        monkeypatch.setenv(name, setting)
    assert (Keystone.from_cloud().tls_context().verify_mode is ssl.CERT_REQUIRED) is is_verified


@pytest.mark.parametrize("value", ["1", "yes", "on", "0"])
def test_a_variable_that_openstack_takes_for_false_is_refused(
    keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """A user who exports OS_INSECURE=1 does not mean false."""
    for name, setting in (variables(keystone) | {"OS_INSECURE": value}).items():
        monkeypatch.setenv(name, setting)
    with pytest.raises(ValueError, match=f"OS_INSECURE must be true or false, not '{value}'"):
        Keystone.from_cloud()
