"""An answer to a sign-in in another form than Keystone's is one line that names the answer and the remedy."""

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import anyio
import pytest

from bulkrestart import AuthError, EndpointError, RestartClient

from .fake_keystone import PROJECT, FakeKeystone, Reply, compute

#: keystoneauth1 keeps its connections in a session that nobody closes.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SECRET: Final = "s3cr3t-passw0rd"
SUBJECT: Final = {"X-Subject-Token": "the-token"}
TOKEN: Final[dict[str, object]] = {
    "methods": ["password"],
    "user": {"id": "u", "name": "demo", "domain": {"id": "default", "name": "Default"}},
    "project": {"id": PROJECT, "name": "demo", "domain": {"id": "default", "name": "Default"}},
    "issued_at": "2026-12-01T00:00:00.000000Z",
    "expires_at": "2026-12-01T01:00:00.000000Z",
    "catalog": [compute(f"http://127.0.0.1:9/v2.1/{PROJECT}")],
}
URL_REMEDY: Final = "check auth_url (OS_AUTH_URL)"


@pytest.fixture
def keystone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeKeystone]:
    """Give a Keystone, and let the variables describe a user of it."""
    for name in os.environ:
        if name.startswith("OS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with FakeKeystone().serving() as served:
        variables = {
            "AUTH_URL": f"{served.url}/v3",
            "USERNAME": "demo",
            "PASSWORD": SECRET,
            "PROJECT_NAME": "demo",
            "USER_DOMAIN_NAME": "Default",
            "PROJECT_DOMAIN_NAME": "Default",
        }
        for name, value in variables.items():
            monkeypatch.setenv(f"OS_{name}", value)
        yield served


def locate() -> str:
    """Sign in, and give the endpoint or the words of the error."""

    async def main() -> str:
        async with RestartClient.from_cloud() as client:
            return (await client.locate()).endpoint

    try:
        return anyio.run(main)
    except (AuthError, EndpointError) as error:
        words = str(error)
    assert words.isprintable()
    assert words.endswith("; nothing was sent")
    assert SECRET not in words
    assert not any(f"{name}:" in words for name in ("KeyError", "TypeError", "ValueError", "AttributeError"))
    return words


def answer(document: object, status: int = 201, headers: Mapping[str, str] = SUBJECT) -> Reply:
    """Answer with JSON."""
    return Reply(status=status, body=json.dumps(document).encode(), headers=headers)


def token(**changes: object) -> Reply:
    """Answer with a token; None leaves a part of it out."""
    return answer({"token": {name: value for name, value in (TOKEN | changes).items() if value is not None}})


RECEIPT: Final = {"Openstack-Auth-Receipt": "the-receipt"}
FACTOR: Final = "Keystone asks for another factor (HTTP 401 with Openstack-Auth-Receipt); use an application credential"
GOOD: Final = json.dumps({"token": TOKEN}).encode()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        pytest.param(answer({"token": TOKEN}, headers={}), "201 without the header X-Subject-Token", id="no header"),
        pytest.param(
            answer(
                {
                    "receipt": {"methods": ["password"], "expires_at": "2026-12-01T01:00:00Z"},
                    "required_auth_methods": [["password", "totp"]],
                },
                401,
                RECEIPT,
            ),
            FACTOR,
            id="receipt",
        ),
        pytest.param(answer({}, 401, RECEIPT), FACTOR, id="receipt without its body"),
        pytest.param(answer([1], 401, RECEIPT), FACTOR, id="receipt with a list"),
        pytest.param(token(expires_at="yesterday"), "a token whose expires_at is not a time: 'yesterday'", id="end"),
        pytest.param(token(expires_at=5), "a token whose expires_at is not a time: '5'", id="end is a number"),
        pytest.param(token(issued_at=["x"]), "a token whose issued_at is not a time", id="begin is a list"),
        pytest.param(token(issued_at=SECRET), "a token whose issued_at is not a time: '***'", id="begin is a secret"),
        pytest.param(token(user=None), "a token that names no user", id="no user"),
        pytest.param(token(user="demo"), "a token whose user must be a mapping, not text", id="user is a text"),
        pytest.param(token(project=[1]), "a token whose project must be a mapping, not a list", id="project is a list"),
        pytest.param(token(user={"id": "u"}), "a token in another form than Keystone's", id="user in part"),
        pytest.param(answer({"token": [1]}), "201 with JSON that holds no token", id="token is a list"),
        pytest.param(answer({"token": None}), "201 with JSON that holds no token", id="token is null"),
        pytest.param(answer({}), "201 with JSON that holds no token", id="no token"),
        pytest.param(answer([1]), "201 with JSON that holds no token", id="list"),
        pytest.param(answer(None), "201 with JSON that holds no token", id="null"),
        pytest.param(answer({"access": {}}, 200, {}), "200 with JSON that holds no token", id="Keystone v2"),
        pytest.param(
            Reply(status=200, body=b"<html>", headers={"Content-Type": "text/html"}), "not JSON (text/html)", id="page"
        ),
        pytest.param(
            Reply(status=201, body=b'{"token'), "201 with a body that is not JSON (no Content-Type)", id="cut"
        ),
        pytest.param(Reply(status=201, body=b"[" * 100_000), "201 with a body that is not JSON", id="deep"),
        pytest.param(Reply(status=204, headers=SUBJECT), "204 without a body", id="nothing"),
        pytest.param(Reply(status=302, headers={}), "302, a redirect to nowhere", id="redirect to nowhere"),
        pytest.param(
            Reply(status=304, headers={"Location": "http://me:pa55@h.test/"}),
            "304, a redirect to http://…@h.test/",
            id="redirect with a password",
        ),
        pytest.param(
            Reply(status=201, body=GOOD, headers=SUBJECT | {"Content-Encoding": "gzip"}),
            "the body of the answer cannot be decoded (Content-Encoding: gzip)",
            id="not gzip",
        ),
        pytest.param(
            Reply(status=201, body=GOOD, headers=SUBJECT | {"Content-Encoding": "deflate"}),
            "the body of the answer cannot be decoded (Content-Encoding: deflate)",
            id="not deflate",
        ),
        pytest.param(
            Reply(status=201, body=GOOD, headers=SUBJECT | {"Content-Encoding": "gzip, br"}),
            "the answer has several content codings (gzip, br)",
            id="two codings",
        ),
        pytest.param(
            Reply(status=201, body=gzip.compress(GOOD), headers=SUBJECT),
            "201: the body of the answer is in gzip, and no Content-Encoding says so",
            id="gzip unsaid",
        ),
    ],
)
def test_a_sign_in_that_is_answered_oddly(keystone: FakeKeystone, reply: Reply, words: str) -> None:
    """It names what was answered, and what to check."""
    keystone.reply = reply
    said = locate()
    assert words in said
    assert said.startswith("the sign-in to cloud envvars fails: ")
    assert (URL_REMEDY in said) is (words is not FACTOR)


@pytest.mark.parametrize(
    ("discovery", "words"),
    [
        (answer({"error": {"message": "no"}}, 401), "answers HTTP 401 to the request for its versions"),
        (Reply(status=401), "answers HTTP 401 to the request for its versions"),
        (answer({"versions": None}, 300), "300 with JSON in another form than Keystone's"),
        (answer({"versions": {"values": [5]}}, 200), "200 with JSON in another form than Keystone's"),
        (answer({"versions": {"values": None}}, 300), "300 with JSON in another form than Keystone's"),
        (answer({"versions": "v3"}, 200), "200 with JSON in another form than Keystone's"),
        (answer("v3", 200), "200 with JSON in another form than Keystone's"),
        (answer([1], 200), "List returned instead of dict"),
    ],
)
def test_versions_that_are_answered_oddly(
    keystone: FakeKeystone, monkeypatch: pytest.MonkeyPatch, discovery: Reply, words: str
) -> None:
    """It is told at once. A 401 made keystoneauth1 wait for itself, and the sign-in ended after two minutes."""
    monkeypatch.setenv("OS_AUTH_URL", keystone.url)
    keystone.discovery = discovery
    said = locate()
    assert words in said
    assert URL_REMEDY in said
    assert len(keystone.seen) < 5


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b"[1]"])
def test_versions_that_are_refused_are_read_from_the_url(keystone: FakeKeystone, body: bytes) -> None:
    """A URL that ends in /v3 says enough."""
    keystone.discovery = Reply(status=401, body=body)
    keystone.reply = token()
    assert locate() == f"http://127.0.0.1:9/v2.1/{PROJECT}"


def of_compute(**changes: object) -> list[object]:
    """Make a catalog of one compute service."""
    return [{"type": "compute", "name": "nova", **changes}]


@pytest.mark.parametrize(
    ("catalog", "words"),
    [
        ([1], "a service must be a mapping, not a number"),
        ([None], "a service must be a mapping, not null"),
        (of_compute(endpoints={"a": 1}), "the endpoints of compute must be a list, not a mapping"),
        (of_compute(endpoints=5), "the endpoints of compute must be a list, not a number"),
        (of_compute(endpoints=[None]), "an endpoint of compute must be a mapping, not null"),
        (of_compute(endpoints=["x"]), "an endpoint of compute must be a mapping, not text"),
        (
            of_compute(endpoints=[{"publicURL": "http://h/v2.1/p", "region": "r"}]),
            "the interface of an endpoint of compute must be text, not null",
        ),
        (
            of_compute(endpoints=[{"interface": "public", "url": ["http://h"], "region": "r"}]),
            "the url of an endpoint of compute must be text, not a list",
        ),
        (5, "it must be a list, not a number"),
        (True, "it must be a list, not true or false"),
    ],
)
def test_a_catalog_in_another_form(keystone: FakeKeystone, catalog: object, words: str) -> None:
    """It names the part that cannot be read, and the setting that makes the catalog needless."""
    keystone.reply = token(catalog=catalog)
    said = locate()
    assert f"the catalog in the token is not in Keystone's form: {words}; set compute_endpoint_override" in said
