"""What tests of the command line share: a cloud on loopback, and the command line run in this process."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
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


Cli = Callable[..., End]
Serve = Callable[..., LoopbackCloud]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_TOKEN", "token")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A command keeps the signals until its process ends; this process goes on."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Give a function that runs a command line in this process."""

    def call(*arguments: str) -> End:
        code = run(arguments)
        return End(code, *capfd.readouterr())

    return call


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a function that serves a cloud until the test ends."""
    with ExitStack() as stack:

        def call(cloud: Cloud) -> LoopbackCloud:
            return stack.enter_context(LoopbackCloud(cloud))

        yield call
