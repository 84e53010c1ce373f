"""What tests of the command line share: a cloud on loopback, and the command line run in this process."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from select import PIPE_BUF

import pytest

from bulkrestart.cli.app import run
from bulkrestart.simulator import Cloud, LoopbackCloud


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Give the two ends of a pipe that is full of line ends."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n" * PIPE_BUF)
    os.set_blocking(writer, True)
    yield reader, writer
    os.close(reader)


@dataclass(frozen=True, slots=True)
class End:
    """How a command line ended."""

    code: int
    out: str
    err: str


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def take_all_signals() -> None:
    """Take signals in a new process that the tests themselves may have to ignore, as in a shell's background."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


#: openstacksdk 4 warns of what it deprecates itself, whenever a configuration is read.
sdk_warns = pytest.mark.filterwarnings("ignore:Support for InfluxDB:PendingDeprecationWarning")
#: The password in every clouds.yaml that is written here.
PASSWORD = "s3cret-passw0rd"

Cli = Callable[..., End]
Serve = Callable[..., LoopbackCloud]
Clouds = Callable[..., None]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let nothing of whoever runs the tests say how to get in."""
    for name in list(os.environ):
        if name.startswith(("OS_", "HUAWEICLOUD_SDK_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    # The first file that is there is the one that is read, so there has to be one.
    for name in ("OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE"):
        path = tmp_path / f"{name}.yaml"
        path.write_text("clouds: {}\n")
        monkeypatch.setenv(name, str(path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OS_TOKEN", "token")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


#: Seconds in place of the library's own. When it asks, and how long it looks for a lost reply, is not what is tested
#: here, and the simulator does and shows everything at once.
SECONDS = {
    "run.preflight._FIRST_CEILING": 0.1,
    "run.settle.FIRST_INTERVAL": 0.1,
    "core.look.GRACE": 0.5,
    "core.look.LATE_GRACE": 0.5,
    "core.calibration.UNMEASURED_LAG": 0.0,
}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for tenths of a second where the library waits for seconds."""
    for place, seconds in SECONDS.items():
        monkeypatch.setattr(f"bulkrestart.{place}", seconds)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A command keeps the signals until its process ends; this process goes on."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Give a function that runs a command line in this process.

    A restart keeps no journal unless it says where: its file, and the line that names it, are of no interest to most.
    """

    def call(*arguments: str) -> End:
        is_plain = arguments[:1] == ("restart",) and "--journal" not in arguments
        code = run(("restart", "--no-journal", *arguments[1:]) if is_plain else arguments)
        return End(code, *capfd.readouterr())

    return call


@pytest.fixture
def clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clouds:
    """Give a function that writes clouds.yaml; each cloud has a user, a password, and what it is given besides.

    OS_TOKEN is for --endpoint: a sign-in by password has no use for it, with `openstack` as here.
    """
    monkeypatch.delenv("OS_TOKEN", raising=False)

    def write(**given: dict[str, object]) -> None:
        auth = {"username": "demo", "password": PASSWORD, "project_name": "demo"}
        domains = {"user_domain_id": "default", "project_domain_id": "default"}
        both = {
            name: {**options, "auth": {"auth_url": "http://127.0.0.1:9/v3", **auth, **domains, **_auth_of(options)}}
            for name, options in given.items()
        }
        # YAML is a superset of JSON.
        (tmp_path / "OS_CLIENT_CONFIG_FILE.yaml").write_text(json.dumps({"clouds": both}))

    return write


def _auth_of(options: dict[str, object]) -> dict[str, object]:
    auth = options.get("auth", {})
    assert isinstance(auth, dict)
    return auth


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a function that serves a cloud until the test ends."""
    with ExitStack() as stack:

        def call(cloud: Cloud) -> LoopbackCloud:
            return stack.enter_context(LoopbackCloud(cloud))

        yield call
