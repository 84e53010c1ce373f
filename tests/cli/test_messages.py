"""Messages of other libraries are shown once, on standard error, on one line, without secrets."""

import errno
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from openstack.warnings import ConfigurationWarning

from bulkrestart.__main__ import _main
from bulkrestart.cli.streams import Streams
from bulkrestart.core.secrets import Secret
from bulkrestart.simulator import Cloud
from tests.cloud.certificates import Authority
from tests.cloud.fake_keystone import FakeKeystone, compute

from .conftest import PASSWORD, Cli, Clouds, Serve, sdk_warns

pytestmark = [sdk_warns, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

LINK = "https://idp.example.com/device?user_code=ABCD-EFGH"
LONG_CODE = "a1b2c3d4" * 12


def show(capfd: pytest.CaptureFixture[str], act: Callable[[], object]) -> list[str]:
    """Call `act` while warnings are shown, and return the lines on standard error."""
    streams = Streams()
    streams.secrets = lambda: (Secret(PASSWORD),)
    with streams.showing_warnings():
        act()
    streams.close()
    out, err = capfd.readouterr()
    assert out == ""
    return [str(line) for line in err.splitlines()]


@pytest.mark.parametrize(
    ("logger", "message", "line"),
    [
        (
            "keystoneauth.identity",
            f"To authenticate please go to: {LINK}",
            f"keystoneauth: To authenticate please go to: {LINK}",
        ),
        (
            "keystoneauth.identity",
            f"go to https://idp.example.com/{LONG_CODE} and confirm",
            f"keystoneauth: go to https://idp.example.com/{LONG_CODE} and confirm",
        ),
        (
            "keystoneauth.identity",
            "go to https://idp.example.com/device and enter ABCD-EFGH",
            "keystoneauth: go to https://idp.example.com/device and enter ABCD-EFGH",
        ),
        ("openstack.config", "two\nlines\x1b[31m", "openstack: two lines[31m"),
        ("kerberos_plugin", f"the password {PASSWORD} ends soon", "kerberos_plugin: the password *** ends soon"),
        ("plugin", "https://me:pa55word@idp.test/x is old", "plugin: https://…@idp.test/x is old"),
        ("plugin", "see https://idp.test/x?token=0123456789abcdef", "plugin: see https://idp.test/x?token=…"),
        ("plugin", f"the token is {LONG_CODE}", "plugin: the token is …"),
    ],
)
def test_what_others_log_is_shown(capfd: pytest.CaptureFixture[str], logger: str, message: str, line: str) -> None:
    """A link stays whole and is shown once, however often it is logged; a secret is masked."""

    def act() -> None:
        for _ in range(3):
            logging.getLogger(logger).warning(message)

    assert show(capfd, act) == [f"bulkrestart: {line}"]


@pytest.mark.parametrize(
    ("logger", "level"),
    [
        ("keystoneauth.session", logging.INFO),
        ("keystoneauth.session", logging.DEBUG),
        ("asyncio", logging.ERROR),
        ("stevedore.extension", logging.ERROR),
        ("keystoneauth.identity.generic.base", logging.WARNING),
    ],
)
def test_what_is_for_programmers_is_not_shown(capfd: pytest.CaptureFixture[str], logger: str, level: int) -> None:
    """Messages for developers are not shown, and neither are requests, which carry tokens."""
    assert show(capfd, lambda: logging.getLogger(logger).log(level, "REQ: curl -g -i")) == []


@pytest.mark.filterwarnings("always")
def test_what_others_warn_of_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """A warning is shown once, on one line, without the line of code."""

    def act() -> None:
        for _ in range(3):
            warnings.warn("The cacert is not used", ConfigurationWarning, stacklevel=1)

    former = warnings.showwarning
    assert show(capfd, act) == ["bulkrestart: openstack: The cacert is not used"]
    assert warnings.showwarning is former


def test_nothing_is_shown_after_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    """After the command has reported its end, nothing else is shown."""
    streams = Streams()
    with streams.showing_warnings():
        streams.hush()
        for logger in ("keystoneauth", "bulkrestart"):
            logging.getLogger(logger).warning("too late")
    streams.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cacert": "/nonexistent/ca.pem", "verify": False}, "You are specifying a cacert for the cloud one:RegionOne"),
        ({"cloud": "otc"}, "uses the keyword 'cloud' to reference a known vendor profile"),
        ({"external_network": "net"}, "external_network is deprecated"),
    ],
)
def test_what_is_odd_in_clouds_yaml_is_said_once(
    cli: Cli, clouds: Clouds, settings: Mapping[str, object], words: str
) -> None:
    """Openstacksdk warns about settings that it ignores or will drop."""
    clouds(one={"region_name": "RegionOne", **settings})
    end = cli("servers", "--all", "--cloud", "one")
    assert end.err.count(words) == 1, end.err
    assert all(line.startswith("bulkrestart: ") for line in end.err.splitlines())
    assert PASSWORD not in end.err


def test_an_insecure_sign_in_is_said_once(cli: Cli, clouds: Clouds, serve: Serve, tmp_path: Path) -> None:
    """A sign-in makes two requests, and urllib3 would warn at each of them."""
    served = serve(Cloud(3))
    keystone = FakeKeystone(Authority(tmp_path).server("127.0.0.1"))
    keystone.issued = served.cloud.add_token
    keystone.scope = served.cloud.project_id
    keystone.catalog = [compute(served.endpoint)]
    with keystone.serving():
        clouds(one={"auth": {"auth_url": f"{keystone.url}/v3"}, "region_name": "RegionOne", "verify": False})
        end = cli("servers", "--all", "--cloud", "one")
    assert (end.code, end.err.count("\n")) == (0, 1), end
    assert "certificates are not verified" in end.err


NOTHING_LISTENS = ("--endpoint", "http://127.0.0.1:9/v2.1/abc")
COMMANDS = [("restart", "ID"), ("restart", "ID", "--dry-run"), ("servers", "--all")]
LIMITS = [
    (OSError(errno.EMFILE, "x"), "EMFILE: Too many open files on this machine; raise the limit of open files (ulimit"),
    (
        OSError(errno.ENFILE, "x"),
        "ENFILE: Too many open files in system on this machine; raise the limit of open files",
    ),
    (OSError(errno.ENOMEM, "x"), "ENOMEM: Cannot allocate memory on this machine; free memory"),
    (OSError(errno.ENOBUFS, "x"), "ENOBUFS: No buffer space available on this machine; free memory"),
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", ["_check_files", "asyncio.Runner"])
@pytest.mark.parametrize(
    ("error", "words"),
    [*LIMITS, (PermissionError(errno.EPERM, "not permitted"), "not permitted; check the limits of this machine")],
)
def test_an_event_loop_that_cannot_start(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], what: str, error: OSError, words: str
) -> None:
    """It is one line that names the limit and the remedy, and exit 2: nothing was sent."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"bulkrestart.cli.loop.{what}", fail)
    end = cli(*command, *NOTHING_LISTENS)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end
    assert end.err.startswith(f"bulkrestart: the event loop cannot start: {words}")
    assert end.err.endswith("; nothing was sent\n")


@pytest.mark.parametrize("files", [5, 6, 8, 10])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_with_few_files(files: int, command: tuple[str, ...]) -> None:
    """The same in a process that really may open no more."""
    limited = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", sys.executable, "-m", "bulkrestart"]
    journal = ["--no-journal"] if command[0] == "restart" else []
    end = subprocess.run([*limited, *command, *journal, *NOTHING_LISTENS], capture_output=True, text=True, check=False)
    assert (end.returncode, end.stdout, end.stderr.count("\n")) == (2, "", 1), end.stderr
    assert "EMFILE" in end.stderr
    assert "ulimit -n" in end.stderr


@pytest.mark.parametrize(("error", "words"), LIMITS)
def test_a_limit_that_is_met_later(cli: Cli, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str) -> None:
    """A limit of this machine is no defect. The exit code does not say that nothing was sent."""

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("bulkrestart.cli.app.choose", fail)
    end = cli("restart", "ID", *NOTHING_LISTENS)
    assert (end.code, end.err.count("\n")) == (4, 1)
    assert end.err.startswith(f"bulkrestart: {words}")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files", "typer.py"),
        RuntimeError("can't start new thread"),
        PermissionError(errno.EACCES, "Permission denied", "app.py"),
        OSError(errno.EIO, "Input/output error"),
    ],
)
def test_a_process_that_cannot_start(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    """A module that cannot be read, or a thread that cannot start, is one line and exit 2."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("bulkrestart.cli.app.run", fail)
    assert _main() == 2
    line = f"bulkrestart: cannot start: {error}; check the limits of this machine (ulimit -a)\n"
    assert capfd.readouterr() == ("", line)
