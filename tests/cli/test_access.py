"""How a command gets in: by an endpoint and what signs, or by a cloud; and what is said where it does not."""

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from bulkrestart.cli.access import Access, TargetOptions, Trust, read_access
from bulkrestart.cloud.auth import AccessKey, Token
from bulkrestart.cloud.keystone import Keystone
from bulkrestart.core.target import Target
from bulkrestart.simulator import Cloud, Face, LoopbackCloud
from tests.cloud.certificates import Authority

from .conftest import PASSWORD, Cli, Clouds, Serve, sdk_warns

pytestmark = sdk_warns

PROJECT: Final = "0123456789abcdef0123456789abcdef"
ENDPOINT: Final = f"http://127.0.0.1:9/v2.1/{PROJECT}"
AK, SK, PROJECT_ID, SECURITY_TOKEN = (
    f"HUAWEICLOUD_SDK_{name}" for name in ("AK", "SK", "PROJECT_ID", "SECURITY_TOKEN")
)
KEYS: Final = {AK: "AKAKAKAKAK", SK: "sksksksksk"}
#: An openrc file, as dashboards give it.
OPENRC: Final = {
    "OS_AUTH_URL": "http://127.0.0.1:9/v3",
    "OS_USERNAME": "demo",
    "OS_PASSWORD": PASSWORD,
    "OS_PROJECT_NAME": "demo",
    "OS_USER_DOMAIN_ID": "default",
    "OS_PROJECT_DOMAIN_ID": "default",
}


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OS_TOKEN")


def export(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    """Put variables into the environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def signed_by(access: Access) -> type:
    """Name what signs, as the library's users know it."""
    return next(kind for kind in (Token, AccessKey, object) if isinstance(access.auth, kind))


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate to cert.pem, and its key to key.pem."""
    files = Authority(folder).issue("own")
    return files.cert.rename(folder / "cert.pem"), files.key.rename(folder / "key.pem")


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({"OS_TOKEN": "t"}, Token),
        ({"OS_TOKEN": "t", SK: "sk", PROJECT_ID: "other"}, Token),
        ({"OS_TOKEN": "t", AK: ""}, Token),
        ({"OS_TOKEN": "t", **OPENRC, "OS_CLOUD": "none"}, Token),
        (KEYS, AccessKey),
        (KEYS | {"OS_TOKEN": ""}, AccessKey),
        (KEYS | {PROJECT_ID: PROJECT}, AccessKey),
        (KEYS | {PROJECT_ID: "", SECURITY_TOKEN: "st"}, AccessKey),
        (KEYS | OPENRC, AccessKey),
    ],
)
def test_endpoint(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], kind: type) -> None:
    """With --endpoint the token signs, or the access keys do; nothing else in the environment counts."""
    export(monkeypatch, environment)
    access = read_access(TargetOptions(endpoint=ENDPOINT), Trust())
    assert access.target == Target(endpoint=ENDPOINT, project_id=PROJECT)
    assert signed_by(access) is kind


@pytest.mark.parametrize(
    ("endpoint", "cloud", "environment", "words"),
    [
        (None, None, {}, "no endpoint: give --endpoint https://HOST/v2.1/PROJECT_ID, or --cloud NAME"),
        (None, None, {"OS_TOKEN": "t"}, "no endpoint: give --endpoint"),
        (None, None, KEYS, "no endpoint: give --endpoint"),
        (None, None, {"OS_CLOUD": "", "OS_AUTH_URL": ""}, "no endpoint: give --endpoint"),
        (ENDPOINT, "one", {"OS_TOKEN": "t"}, "give --endpoint or --cloud, not both; compute_endpoint_override"),
        (ENDPOINT, "", {"OS_TOKEN": "t"}, "give --endpoint or --cloud, not both"),
        ("", None, {"OS_TOKEN": "t"}, "--endpoint: the endpoint must be a URL"),
        ("https://h/v2.1", None, {"OS_TOKEN": "t"}, "--endpoint: the endpoint must end in /v2.1/ or /v2/"),
        (ENDPOINT, None, {}, "no token in OS_TOKEN: export OS_TOKEN=$(openstack token issue -f value -c id), or give"),
        (ENDPOINT, None, OPENRC, "or give --cloud NAME in place of --endpoint"),
        (
            ENDPOINT,
            None,
            {"OS_TOKEN": "s3cret token"},
            "OS_TOKEN: the token must be printable ASCII without white space",
        ),
        (ENDPOINT, None, {"OS_TOKEN": "s3cret\n"}, "OS_TOKEN: the token must be printable ASCII without white space"),
        (ENDPOINT, None, {"OS_TOKEN": "t", **KEYS}, f"OS_TOKEN and {AK} are both set: unset the one that is not meant"),
        (ENDPOINT, None, {AK: "AK"}, f"{AK} is set without {SK}: export both"),
        (ENDPOINT, None, {AK: "AK", SK: ""}, f"{AK} is set without {SK}: export both"),
        (ENDPOINT, None, {SK: "s3cret"}, AK),
        (ENDPOINT, None, {AK: "two words", SK: "s3cret"}, f"{AK} must be printable ASCII without white space"),
        (ENDPOINT, None, {AK: "AK", SK: "s3cret key"}, f"{SK} must be printable ASCII without white space"),
        (ENDPOINT, None, {AK: "AK", SK: "s3cret\n"}, f"{SK} must be printable ASCII without white space"),
        (
            ENDPOINT,
            None,
            KEYS | {SECURITY_TOKEN: "s3cret token"},
            f"{SECURITY_TOKEN} must be printable ASCII without white space",
        ),
        (ENDPOINT, None, KEYS | {PROJECT_ID: "other"}, f"{PROJECT_ID} is other, and --endpoint ends in {PROJECT}"),
        (
            None,
            "missing",
            {},
            "cloud 'missing' cannot be used: there is no cloud of that name; there are: bad_ca, bad_type, no_url",
        ),
        (None, "", {}, "--cloud"),
        (
            None,
            None,
            {"OS_CLOUD": "missing"},
            "cloud 'missing' cannot be used: there is no cloud of that name; there are:",
        ),
        (None, "no_url", {}, "cloud 'no_url' cannot be used: "),
        (None, "bad_type", {}, "cloud 'bad_type' cannot be used: "),
        (None, "bad_ca", {}, "cannot read certificates from /no/such/file"),
        # What is told to export a token for --endpoint, and then forgets that.
        (None, None, OPENRC | {"OS_TOKEN": "s3cret"}, "OS_TOKEN"),
    ],
)
def test_no_way_in(
    cli: Cli,
    clouds: Clouds,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str | None,
    cloud: str | None,
    environment: Mapping[str, str],
    words: str,
) -> None:
    """What is missing or cannot be meant is one line that names it, repeats no secret, and is exit 2."""
    clouds(no_url={"auth": {"auth_url": None}}, bad_type={"auth_type": "no such"}, bad_ca={"cacert": "/no/such/file"})
    export(monkeypatch, environment)
    options = [*(["--endpoint", endpoint] if endpoint is not None else [])]
    options += [*(["--cloud", cloud] if cloud is not None else [])]
    for command in ("servers", "--all"), ("restart", "ID"):
        end = cli(*command, *options)
        assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end
        assert words in end.err
        assert "s3cret" not in end.err


@pytest.mark.parametrize(
    ("name", "environment", "shown"),
    [
        ("one", {}, "one"),
        ("one", {"OS_CLOUD": "two"}, "one"),
        ("two", KEYS, "two:west"),
        (None, {"OS_CLOUD": "one"}, "one"),
        (None, OPENRC, "envvars"),
        (None, OPENRC | {"OS_REGION_NAME": "north"}, "envvars:north"),
    ],
)
def test_cloud(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch, name: str | None, environment: Mapping[str, str], shown: str
) -> None:
    """A cloud is that of --cloud, that of OS_CLOUD, or that of an openrc file; only the catalog knows its endpoint."""
    clouds(one={}, two={"region_name": "west"})
    export(monkeypatch, environment)
    access = read_access(TargetOptions(cloud=name), Trust())
    assert access.target is None
    assert isinstance(access.auth, Keystone)
    assert access.auth.name == shown
    assert PASSWORD not in repr(access)


def test_the_extra_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, --cloud is one line that names it, and --endpoint needs none."""
    monkeypatch.setitem(sys.modules, "bulkrestart.cloud.keystone", None)
    monkeypatch.setenv("OS_TOKEN", "t")
    end = cli("restart", "ID", "--cloud", "one")
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert read_access(TargetOptions(endpoint=ENDPOINT), Trust()).target is not None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a certificate and its key."""
    return write_certificate(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("by", ["option", "environment", "both"])
def test_files(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Certificates are those of the options, and else those of OS_CACERT, OS_CERT and OS_KEY."""
    monkeypatch.setenv("OS_TOKEN", "t")
    cert, key = map(str, certificate)
    good = {"cacert": cert, "cert": cert, "key": key}
    if by != "option":
        for name, file in good.items():
            monkeypatch.setenv(f"OS_{name.upper()}", file if by == "environment" else "/no/such/file")
    trust = Trust() if by == "environment" else Trust(cacert=cert, cert=cert, key=key)
    access = read_access(TargetOptions(endpoint=ENDPOINT), trust)
    assert access.tls.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize("is_of_environment", [False, True])
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"cacert": "missing"}, "cannot read certificates from {tmp}/missing"),
        ({"cacert": "rubbish"}, "{tmp}/rubbish holds no certificates: give a file in PEM format"),
        ({"cert": "missing"}, "cannot read the certificate {tmp}/missing"),
        ({"cert": "rubbish"}, "{tmp}/rubbish holds no certificate with its key"),
        ({"cert": "cert.pem"}, "{tmp}/cert.pem holds no certificate with its key"),
        ({"cert": "cert.pem", "key": "rubbish"}, "{tmp}/cert.pem and {tmp}/rubbish hold no certificate with its key"),
        ({"cert": "cert.pem", "key": "missing"}, "cannot read the certificate {tmp}/cert.pem, or its key"),
        ({"key": "key.pem"}, "a key without a certificate: give the certificate of {tmp}/key.pem too"),
    ],
)
def test_bad_files(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: Mapping[str, str],
    words: str,
    is_of_environment: bool,
) -> None:
    """A file of certificates that cannot be used is one line that names it, and exit 2."""
    write_certificate(tmp_path)
    (tmp_path / "rubbish").write_text("rubbish")
    monkeypatch.setenv("OS_TOKEN", "t")
    options = []
    for name, file in files.items():
        if is_of_environment:
            monkeypatch.setenv(f"OS_{name.upper()}", str(tmp_path / file))
        else:
            options += [f"--{name}", str(tmp_path / file)]
    end = cli("restart", "--endpoint", ENDPOINT, "ID", *options)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
    assert words.format(tmp=tmp_path) in end.err


NOT_VERIFIED: Final = (
    "bulkrestart: certificates are not verified: whoever is on the way can read the token and change the answers\n"
)


@pytest.mark.parametrize(
    "command", [("servers", "--all"), ("restart", "--all", "--no-wait"), ("restart", "--all", "--yes", "--no-wait")]
)
def test_insecure(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """--insecure works, and is warned of once, however many requests are made."""
    monkeypatch.setenv("OS_TOKEN", "token")
    served = serve(Cloud(3))
    end = cli(*command, "--endpoint", served.endpoint, "--insecure")
    assert (end.code, end.err) == (0, NOT_VERIFIED)


def test_insecure_cloud(clouds: Clouds, caplog: pytest.LogCaptureFixture) -> None:
    """--insecure holds for a cloud of clouds.yaml as well, whatever that says, and is warned of once."""
    clouds(one={"verify": True})
    access = read_access(TargetOptions(cloud="one"), Trust(is_insecure=True))
    assert not access.tls.check_hostname
    assert [record.message for record in caplog.records] == [NOT_VERIFIED.removeprefix("bulkrestart: ").strip()]


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign with access keys, and do not wait to be refused a second time."""
    export(monkeypatch, {AK: "AK", SK: "s3cret"})
    monkeypatch.setattr("bulkrestart.core.decide.REFUSED_TOKEN_DELAY", 0.01)


def huawei(*, ahead: float = 0.0) -> Cloud:
    """Make a cloud behind Huawei Cloud's gateway, whose clock is so many seconds ahead of ours."""
    cloud = Cloud(3, face=Face.HUAWEI, clock=lambda: time.time() + ahead, reboot_seconds=(0.01, 0.02))
    cloud.add_access_key("AK")
    return cloud


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("ahead", [0.0, 600.0, -600.0])
def test_access_keys(cli: Cli, serve: Serve, ahead: float) -> None:
    """With access keys servers are listed and restarted, with clocks that differ as much as the gateway bears."""
    served = serve(huawei(ahead=ahead))
    listed = cli("servers", "--all", "--endpoint", served.endpoint, "--output", "jsonl")
    assert (listed.code, listed.err) == (0, "")
    assert sorted(json.loads(line)["id"] for line in listed.out.splitlines()) == sorted(served.cloud.ids)
    end = cli("restart", "--all", "--endpoint", served.endpoint, *(["--no-wait"] if ahead else []))
    assert (end.code, end.err) == (0, "")
    assert end.out.splitlines()[-1].startswith("3 accepted in " if ahead else "3 completed in ")
    assert set(served.cloud.posts.values()) == {1}


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("command", [("servers", "--all"), ("restart", "--all"), ("restart", "ID")])
@pytest.mark.parametrize(("ahead", "words"), [(1200.0, "20 minutes behind"), (-1200.0, "20 minutes ahead of")])
def test_a_clock_that_is_off(cli: Cli, serve: Serve, command: tuple[str, ...], ahead: float, words: str) -> None:
    """Where this machine's clock is too far off, one line says to set it, and nothing is sent."""
    served = serve(huawei(ahead=ahead))
    end = cli(*command, "--endpoint", served.endpoint)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end
    assert f"this machine's clock is {words} the cloud's: set it; nothing was sent" in end.err
    assert "s3cret" not in end.err
    assert not served.cloud.posts


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cloud: cloud.access_keys.clear(), "check the access key, the secret key and the project"),
        (lambda cloud: setattr(cloud, "face", Face.NOVA), "check the access key, the secret key and the project"),
    ],
    ids=["unknown key", "not Huawei Cloud"],
)
def test_refused_keys(cli: Cli, change: Callable[[Cloud], None], words: str) -> None:
    """Keys that are refused are one line that names them, not their words, and nothing is sent."""
    cloud = huawei()
    change(cloud)
    with LoopbackCloud(cloud) as served:
        end = cli("restart", "ID", "--endpoint", served.endpoint)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end
    assert words in end.err
    assert "s3cret" not in end.err
    assert not cloud.posts


def test_refused_token(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is refused is one line that says how to go on, and nothing is sent."""
    monkeypatch.setenv("OS_TOKEN", "s3cret")
    monkeypatch.setattr("bulkrestart.core.decide.REFUSED_TOKEN_DELAY", 0.01)
    served = serve(Cloud(1))
    for command in ("servers", "--all"), ("restart", "--all"), ("restart", *served.cloud.ids):
        end = cli(*command, "--endpoint", served.endpoint)
        assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end
        assert re.search(r"; export a new OS_TOKEN and give the same command; nothing was sent\n$", end.err)
        assert "s3cret" not in end.err
    assert not served.cloud.posts


@pytest.mark.parametrize(("value", "code"), [("true", 2), ("1", 2), ("yes", 2), ("false", 0), ("False", 0), ("", 0)])
def test_a_variable_beside_an_endpoint(
    cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch, value: str, code: int
) -> None:
    """OS_INSECURE is not silently ignored: --insecure says the same for --endpoint."""
    monkeypatch.setenv("OS_TOKEN", "token")
    monkeypatch.setenv("OS_INSECURE", value)
    served = serve(Cloud(1))
    end = cli("servers", "--all", "--endpoint", served.endpoint)
    assert (end.code, "OS_INSECURE is set" in end.err) == (code, code == 2)
    assert cli("servers", "--all", "--endpoint", served.endpoint, "--insecure").code == 0
