"""What tests of the command line share: a cloud on loopback, and the command line run in this process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from bulkrestart.cli.app import run
from bulkrestart.simulator import Cloud, LoopbackCloud


@dataclass(frozen=True, slots=True)
class End:
    """How a command line ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., End]
Serve = Callable[..., LoopbackCloud]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_TOKEN", "token")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


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
