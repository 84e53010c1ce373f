"""Whatever stands in clouds.yaml, secure.yaml, `OS_*` or a catalog: one line, exit 2, no defect and no secret."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from bulkrestart import AuthError, EndpointError, RestartClient
from bulkrestart.cli.app import run
from tests.cloud.fake_keystone import FakeKeystone
from tests.cloud.loopback import closed_port
from tests.cloud.two_regions import PASSWORD, PROJECTS, SERVER, Taken, TwoRegions, dump

#: keystoneauth1 keeps its connections in a session that nobody closes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Support for InfluxDB:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),
]

#: What every secret here holds.
MARK: Final = "s3cret"
URL: Final = f"https://ops:{MARK}/of a@url@h.test/v3"
WEB: Final = PROJECTS["default", "web"]

#: Keys of a cloud, and of its auth section after a dot.
KEYS: Final = (
    *("auth", "auth.auth_url", "auth.username", "auth.password", "auth.project_name", "auth.project_id"),
    *("auth.project_domain_id", "auth.token", "auth.odd"),
    *("region_name", "regions", "interface", "endpoint_type", "compute_interface", "compute_region_name"),
    *("compute_endpoint_override", "compute_service_type", "compute_service_name", "compute_api_version"),
    *("auth_type", "profile", "cloud", "cacert", "cert", "key", "verify", "insecure", "api_timeout"),
    *("identity_api_version", "default_domain", "networks", "service_provider", "metrics", "sk", "force_ipv4"),
)
#: What stands where something else belongs. An alias makes JSON into YAML.
VALUES: Final[Mapping[str, str]] = {
    "null": "null",
    "number": "5",
    "empty": '""',
    "list": "[1, 2]",
    "list of nulls": "[null]",
    "mapping": '{"s3cret": {"s3cret": "s3cret"}}',
    "region with more": '[{"name": "eu-1", "values": {"auth": {"password": "s3cret"}}, "more": "s3cret"}]',
    "url": json.dumps(URL),
    "braces": '"{text}"',
    "date": "2026-01-01",
    "line end": '"one\\ntwo"',
    "surrogate": '"\\ud800"',
    "long": json.dumps("x" * 5000),
}


VARIABLES: Final = (
    *("OS_REGION_NAME", "OS_INTERFACE", "OS_ENDPOINT_TYPE", "OS_PROJECT_NAME", "OS_PROJECT_ID", "OS_TENANT_ID"),
    *("OS_PROJECT_DOMAIN_NAME", "OS_USERNAME", "OS_USER_DOMAIN_ID", "OS_PASSWORD", "OS_AUTH_URL", "OS_TOKEN"),
    *("OS_AUTH_TYPE", "OS_SYSTEM_SCOPE", "OS_TRUST_ID", "OS_CACERT", "OS_CERT", "OS_KEY", "OS_CLOUD"),
    *("OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE", "OS_COMPUTE_ENDPOINT_OVERRIDE", "OS_DEFAULT_DOMAIN"),
    *("OS_IDENTITY_API_VERSION", "OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_SECRET"),
)
VARIABLE_VALUES: Final = ("[1, 2]", "{text}", URL, "\x07", "x" * 5000, "null")


@pytest.fixture(scope="module")
def served() -> Iterator[TwoRegions]:
    """Give a cloud."""
    with TwoRegions().serving() as cloud:
        assert isinstance(cloud, TwoRegions)
        yield cloud


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OS_TOKEN")
    monkeypatch.setenv("OS_CLOUD", "lab")
    monkeypatch.setattr("requests.get", _no_network)


def _no_network(url: str, **_: object) -> None:
    """Fail as a profile does whose host is not there; requests would try to find it."""
    raise ConnectionError(f"cannot reach {url}")


def config(name: str = "CONFIG") -> Path:
    """Give the path of clouds.yaml."""
    return Path(os.environ[f"OS_CLIENT_{name}_FILE"])


def auth_of(served: FakeKeystone) -> dict[str, object]:
    """Describe the user."""
    return {
        "auth_url": f"{served.url}/v3",
        "username": "ops",
        "password": PASSWORD,
        "project_name": "web",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }


def document(served: FakeKeystone, key: str, value: str) -> str:
    """Write clouds.yaml with a value for a key."""
    auth = auth_of(served)
    lab: dict[str, object] = {"auth": auth, "region_name": "eu-1"}
    section, dot, name = key.partition(".")
    (auth if dot else lab)[name if dot else section] = "VALUE"
    return dump({"lab": lab}).replace('"VALUE"', value)


def check_refused(served: TwoRegions, capfd: pytest.CaptureFixture[str], *, may_run: bool = False) -> str:
    """Restart all servers, see that it is refused in one line that can be shown, and give that line.

    Args:
        served: The cloud.
        capfd: What is printed.
        may_run: The run may go well too: at the endpoint that was meant.
    """
    served.taken = Taken()
    code = run(["restart", "--all", "--no-wait", "--no-journal", "--yes"])
    out, err = capfd.readouterr()
    assert MARK not in out + err
    assert "defect" not in err
    if may_run and code == 0:
        assert set(served.taken.posts) == {f"{served.compute_url()}/{WEB}"}
        return ""
    assert (code, out, err.count("\n"), served.taken.posts) == (2, "", 1, []), err
    assert err.rstrip("\n").isprintable()
    return err


@pytest.mark.parametrize("key", KEYS)
def test_any_value_for_any_key(key: str, served: TwoRegions) -> None:
    """A value of another kind than belongs there is refused with what is documented, or means nothing."""

    async def main() -> str:
        async with RestartClient.from_cloud("lab") as client:
            return (await client.locate()).endpoint

    for value in VALUES.values():
        config().write_text(document(served, key, value))
        try:
            endpoint, words = anyio.run(main), ""
        except (ValueError, AuthError, EndpointError) as error:
            endpoint, words = "", str(error)
        assert endpoint in ("", f"{served.compute_url()}/{WEB}"), value
        assert MARK not in words, value
        assert words.isprintable(), value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key_number, key in enumerate(KEYS)
        for value_number, value in enumerate(VALUES)
        if (key_number + value_number) % 12 == 0
    ],
)
def test_any_value_on_the_command_line(
    key: str, value: str, served: TwoRegions, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command ends in one line and exit 2, or restarts the servers that are meant."""
    config().write_text(document(served, key, VALUES[value]))
    check_refused(served, capfd, may_run=True)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("null", "null"),
        ("", "null"),
        ("[1]", "a list"),
        ("[]", "a list"),
        ('"s3cret"', "text"),
        ("5", "a number"),
        ("false", "true or false"),
    ],
)
@pytest.mark.parametrize("name", ["CONFIG", "SECURE"])
def test_an_auth_section_that_is_no_mapping(
    name: str, value: str, kind: str, served: TwoRegions, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error names the cloud, the section and what stands there."""
    config().write_text(dump({"lab": {"auth": auth_of(served), "region_name": "eu-1"}}))
    config(name).write_text(f"clouds:\n  lab:\n    region_name: eu-1\n    auth: {value}\n")
    words = f"cloud 'lab' cannot be used: auth must be a mapping, not {kind}; see clouds.yaml, or OS_*"
    assert check_refused(served, capfd) == f"bulkrestart: {words}\n"


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("auth.auth_url", "null", "null"),
        ("auth.auth_url", "5", "a number"),
        ("auth.auth_url", "[1]", "a list"),
        ("profile", "5", "a number"),
        ("profile", '{"s3cret": 5}', "a mapping"),
        ("cloud", "[s3cret]", "a list"),
        ("cloud", "2026-01-01", "a date"),
        ("region_name", "null", "null"),
        ("region_name", '{"s3cret": 5}', "a mapping"),
        ("region_name", "2026-01-01", "a date"),
        ("region_name", "true", "true or false"),
    ],
)
def test_a_setting_that_is_no_text(
    key: str, value: str, kind: str, served: TwoRegions, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error names the cloud, the setting and what stands there, in words of the file and not of Python."""
    config().write_text(document(served, key, value))
    said = check_refused(served, capfd)
    assert "cloud 'lab' cannot be used: " in said
    assert f"{key.removeprefix('auth.')} must be text, not {kind}" in said.replace("the name of a region", key)


@pytest.mark.parametrize(
    ("value", "word"),
    [("null", "null"), ("", "null"), ("~", "null"), ('"null"', "'null'"), ("0", "'0'"), ("[1, 2]", "a list")],
)
def test_a_verify_that_is_neither_true_nor_false(
    value: str, word: str, served: TwoRegions, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error repeats what stands in the file, and not what Python calls it."""
    config().write_text(dump({"lab": {"auth": auth_of(served), "region_name": "eu-1"}}))
    config("SECURE").write_text(f"clouds:\n  lab:\n    verify: {value}\n")
    assert f"verify must be true or false without quotes, not {word};" in check_refused(served, capfd)


def test_a_secret_in_braces(served: TwoRegions, capfd: pytest.CaptureFixture[str]) -> None:
    """openstack.config formats each setting; what it does not find then is no word of ours."""
    config().write_text(document(served, "sk", f'"{{{MARK}}}"'))
    assert "(KeyError)" in check_refused(served, capfd)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("clouds: {lab: {auth: {password: *s3cret}}}", "is not valid YAML (line 1", id="alias"),
        pytest.param("clouds: {lab: {auth: {password: !s3cret x}}}", "is not valid YAML (line 1", id="tag"),
        pytest.param("clouds: {lab: {auth: {password: @s3cret}}}", "is not valid YAML (line 1", id="at"),
        pytest.param("clouds: {lab: {auth: {password: %s3cret}}}", "is not valid YAML (line 1", id="per cent"),
        pytest.param('clouds: {lab: {auth: {password: "s3cret}}}', "is not valid YAML (line 1", id="quote"),
        pytest.param("clouds:\n  lab:\n\tauth: s3cret\n", "is not valid YAML (line 3", id="tab"),
        pytest.param("clouds: {lab: {auth: &s3cret {again: *s3cret}}}", "refers to itself", id="cycle"),
        pytest.param("clouds: &s3cret {lab: {auth: {}}, again: *s3cret}", "refers to itself", id="cycle of clouds"),
        pytest.param("[" * 5000, "is not valid YAML", id="deep"),
        pytest.param("clouds: {lab: " + "{a: " * 60 + "1" + "}" * 60 + "}", "is too large", id="nested"),
        pytest.param(
            "a0: &a0 {x: 1}\n"
            + "".join(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}\n" for n in range(1, 40))
            + "clouds: {lab: {auth: *a39}}",
            "is too large",
            id="billions",
        ),
        pytest.param("clouds: {5: {}, lab: 5}", "it must be a mapping of settings", id="a cloud is a number"),
        pytest.param("clouds: {5: {}}", "there is no cloud of that name; there are: 5", id="a name is a number"),
        pytest.param("clouds: {lab: {5: 5}}", "cannot be used", id="a key is a number"),
        pytest.param("clouds: {lab: {null: 5}}", "cannot be used", id="a key is null"),
        pytest.param("clouds: [lab]", "must be a mapping of clouds", id="clouds are a list"),
        pytest.param("clouds: s3cret", "must be a mapping of clouds", id="clouds are a text"),
        pytest.param("- s3cret", "cannot be used", id="a list"),
        pytest.param("s3cret", "cannot be used", id="a text"),
        pytest.param("", "there is no cloud of that name", id="empty"),
        pytest.param("\x00s3cret", "is not valid YAML", id="control"),
        pytest.param("--- {}\n--- {}", "is not valid YAML", id="two documents"),
        pytest.param("clouds: {lab: {profile: s3cret-nowhere}}".replace("s3cret", "x"), "x-nowhere", id="profile"),
        pytest.param("clouds: {envvars: {}, lab: {}}", "cannot be used", id="the name of the variables"),
    ],
)
def test_any_file(text: str, words: str, served: TwoRegions, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that is not a configuration is refused with the place of the error, and without what stands there."""
    config().write_text(text)
    assert words in check_refused(served, capfd)


@pytest.mark.unmeasured
@pytest.mark.parametrize("text", ["clouds: {lab: {auth: {password: *s3cret}}}", "clouds: [lab]", "- 5", "[" * 5000])
def test_any_secure_file(text: str, served: TwoRegions, capfd: pytest.CaptureFixture[str]) -> None:
    """secure.yaml is refused in the same way, though clouds.yaml is good."""
    config().write_text(dump({"lab": {"auth": auth_of(served), "region_name": "eu-1"}}))
    config("SECURE").write_text(text)
    check_refused(served, capfd)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.mkdir(), id="folder"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe\x00"), id="bytes"),
        pytest.param(lambda path: path.write_bytes(b"clouds: {lab: {auth: {password: s3cr\xe9t}}}"), id="latin-1"),
        pytest.param(lambda path: path.symlink_to("/proc/self/mem"), id="unreadable"),
    ],
)
@pytest.mark.parametrize("name", ["clouds.yaml", "clouds.json"])
def test_a_file_that_cannot_be_read(
    make: Any,
    name: str,
    served: TwoRegions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It is named, and no other file is read in its place: that may name another cloud."""
    make(tmp_path / name)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / name))
    assert str(tmp_path / name) in check_refused(served, capfd)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name_number, name in enumerate(VARIABLES)
        for value_number, value in enumerate(VARIABLE_VALUES)
        if (name_number + value_number) % 3 == 0
    ],
)
def test_any_value_of_any_variable(
    name: str, value: str, served: TwoRegions, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A variable that cannot be meant is refused, or means nothing to `openstack` either."""
    config().write_text(dump({"lab": {"auth": auth_of(served), "region_name": "eu-1"}}))
    monkeypatch.setenv(name, value)
    check_refused(served, capfd, may_run=True)


def endpoint(**changes: object) -> dict[str, object]:
    """Make an endpoint of a catalog; None leaves something out."""
    usual = {
        "id": "e",
        "interface": "public",
        "region": "eu-1",
        "region_id": "eu-1",
        "url": f"https://h.test/v2.1/{WEB}",
    }
    return {key: value for key, value in (usual | changes).items() if value is not None}


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "catalog",
    [
        pytest.param(None, id="null"),
        pytest.param(5, id="number"),
        pytest.param("s3cret", id="text"),
        pytest.param([None], id="a service is null"),
        pytest.param([5], id="a service is a number"),
        pytest.param({"type": "compute"}, id="mapping"),
        pytest.param([{"type": 5, "endpoints": []}], id="a type is a number"),
        pytest.param([{"type": "compute", "endpoints": None}], id="endpoints are null"),
        pytest.param([{"type": "compute", "endpoints": 5}], id="endpoints are a number"),
        pytest.param([{"type": "compute", "endpoints": [None]}], id="an endpoint is null"),
        pytest.param([{"type": "compute", "endpoints": ["s3cret"]}], id="an endpoint is a text"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(url=None)]}], id="no url"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(url=5)]}], id="a url is a number"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(url=["s3cret"])]}], id="a url is a list"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(url=URL)]}], id="a url with a password"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(url="https://h/v2.1/%(text)s")]}], id="a template"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(url="https://h/v2.1/$(x)s/y")]}], id="a path"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(url=f"https://h/v2.1/{'0' * 32}")]}], id="a project"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(interface=None)]}], id="no interface"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(interface=5)]}], id="an interface is a number"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(region_id=5)]}], id="a region is a number"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(region_id=None, region=None)]}], id="no region"),
        pytest.param([{"type": "compute", "endpoints": [endpoint(region_id=["text"])]}], id="a region is a list"),
    ],
)
@pytest.mark.parametrize("region", ["eu-1", None])
def test_any_catalog(
    region: str | None,
    catalog: object,
    served: TwoRegions,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whatever Keystone answers in place of a catalog is one line; what can be read of it is used."""
    issue = served._issue

    def with_catalog(number: int) -> object:
        reply = issue(number)
        token = json.loads(reply.body)
        token["token"]["catalog"] = catalog
        return served._json(token, 201, reply.headers)

    monkeypatch.setattr(served, "_issue", with_catalog)
    settings = {"auth": auth_of(served)} | ({} if region is None else {"region_name": region})
    config().write_text(dump({"lab": settings}))

    async def main() -> None:
        async with RestartClient.from_cloud("lab") as client:
            await client.locate()

    try:
        anyio.run(main)
    except (AuthError, EndpointError) as error:
        words = str(error)
    else:
        return
    assert MARK not in words
    assert check_refused(served, capfd) == f"bulkrestart: {words}\n"


def test_a_profile_that_is_a_url_and_not_there(served: TwoRegions, capfd: pytest.CaptureFixture[str]) -> None:
    """It is one line, without the password in the URL."""
    lab = {"auth": auth_of(served), "profile": f"http://ops:{MARK}@127.0.0.1:{closed_port()}"}
    config().write_text(dump({"lab": lab}))
    assert "cloud 'lab' cannot be used" in check_refused(served, capfd)


def test_the_server_is_restarted_where_nothing_is_odd(served: TwoRegions, capfd: pytest.CaptureFixture[str]) -> None:
    """The configuration that these tests change is good."""
    config().write_text(document(served, "message", '"hello"'))
    assert check_refused(served, capfd, may_run=True) == ""
    assert SERVER
