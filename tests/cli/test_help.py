"""The help texts, word for word, and what surrounds the commands."""

import builtins
import inspect
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from bulkrestart import RestartClient, __version__
from bulkrestart.__main__ import main
from bulkrestart.cli.app import _restart, _servers, run

from .conftest import SIGNALS, Cli, take_all_signals

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("command", [(), ("restart",), ("servers",), ("journal",), ("simulate",), ("demo",)])
def test_help(cli: Cli, command: tuple[str, ...]) -> None:
    """A help text says what its golden file says."""
    end = cli(*command, "--help")
    assert (end.code, end.err) == (0, "")
    assert end.out == (GOLDEN / f"{'-'.join(('help', *command))}.txt").read_text()


def test_version(cli: Cli) -> None:
    """--version prints the version."""
    end = cli("--version")
    assert (end.code, end.out, end.err) == (0, f"bulkrestart {__version__}\n", "")


def test_defaults_are_the_library_s() -> None:
    """An option's default is the library's, and its help says so."""
    ours = inspect.signature(_restart).parameters
    restart = inspect.signature(RestartClient.restart).parameters
    shared = (ours.keys() & restart.keys()) - {"ids", "max_at_once"}
    assert {name: ours[name].default for name in shared} == {name: restart[name].default for name in shared}
    client = inspect.signature(RestartClient).parameters
    of_client = {"max_at_once", "max_per_second"}
    assert {name: ours[name].default for name in of_client} == {name: client[name].default for name in of_client}
    text = " ".join((GOLDEN / "help-restart.txt").read_text().split())
    for name in shared - {"wait", "escalate", "start_stopped", "since", "journal"}:
        assert f"[default: {ours[name].default}]" in text


def test_selectors_are_the_library_s() -> None:
    """Both commands have the same options to get in and to select, and those are the library's."""
    ours, listing = inspect.signature(_restart).parameters, inspect.signature(_servers).parameters
    assert listing.keys() < ours.keys()
    assert {name: ours[name].annotation for name in listing} == {name: listing[name].annotation for name in listing}
    assert {name: ours[name].default for name in listing} == {name: listing[name].default for name in listing}
    selectors = inspect.signature(RestartClient.servers).parameters.keys() - {"self"}
    assert {"tags" if name == "tag" else name for name in listing} >= selectors


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Give the entry point, which here returns the exit code."""

    def leave(code: int) -> NoReturn:
        raise SystemExit(code)

    def call() -> int:
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code

    monkeypatch.setattr("os._exit", leave)
    return call


def _hide(monkeypatch: pytest.MonkeyPatch, module: str, error: BaseException) -> None:
    """Let the import of a module of ours fail."""
    real = builtins.__import__

    def fail(name: str, *rest: Any) -> ModuleType:
        if name == module:
            raise error
        return real(name, *rest)

    monkeypatch.setattr("builtins.__import__", fail)


MISSING = ModuleNotFoundError(name="typer")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MISSING, 2, "the command line needs typer: pip install 'bulkrestart[cli]'"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was sent"),
    ],
)
def test_failed_import(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    entry: Callable[[], int],
    error: BaseException,
    code: int,
    words: str,
) -> None:
    """Without typer the command is one line that names the extra; interrupted while it loads, it says so."""
    _hide(monkeypatch, "bulkrestart.cli.app", error)
    assert entry() == code
    assert capfd.readouterr().err == f"bulkrestart: {words}\n"


def test_failed_import_unheard(monkeypatch: pytest.MonkeyPatch, entry: Callable[[], int]) -> None:
    """Without standard error the exit code says it."""
    _hide(monkeypatch, "bulkrestart.cli.app", MISSING)
    monkeypatch.setattr("sys.stderr", None)
    assert entry() == 2


def test_ignored_signals(monkeypatch: pytest.MonkeyPatch, entry: Callable[[], int]) -> None:
    """What ends the process raises KeyboardInterrupt from the start; what it was started to ignore stays ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(sys, "argv", ["bulkrestart", "--version"])
    assert entry() == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


@pytest.mark.usefixtures("entry")
def test_broken_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is missing from elsewhere is not blamed on the extra."""
    _hide(monkeypatch, "bulkrestart.cli.app", ModuleNotFoundError(name="httpx"))
    with pytest.raises(ModuleNotFoundError):
        main()


@pytest.mark.parametrize("command", ["simulate", "demo"])
def test_missing_simulator(cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Without the simulator's extra its commands are one line that names it."""
    _hide(monkeypatch, f"bulkrestart.cli.{command}", ImportError("pip install 'bulkrestart[simulator]'"))
    end = cli(command)
    assert (end.code, end.out, end.err) == (2, "", "bulkrestart: pip install 'bulkrestart[simulator]'\n")


_WITHOUT = """
import sys

missing = sys.argv.pop(1)

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
from bulkrestart.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("typer", "demo", "cli"),
        ("starlette", "demo", "simulator"),
        ("uvicorn", "simulate", "simulator"),
    ],
)
def test_really_missing(missing: str, command: str, extra: str) -> None:
    """The same in a process that really cannot import it."""
    end = _python("-c", _WITHOUT, missing, command)
    assert (end.returncode, end.stdout, end.stderr.count("\n")) == (2, "", 1), end.stderr
    assert f"pip install 'bulkrestart[{extra}]'" in end.stderr


def test_defect(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours is one line, and not mistaken for a run that went well or for bad input."""

    def fail(**_: object) -> None:
        raise TypeError("boom\x1b[31m")

    monkeypatch.setattr("bulkrestart.cli.app.choose", fail)
    end = cli("restart", "--endpoint", "http://127.0.0.1:9/v2.1/abc", "ID")
    assert (end.code, end.err) == (
        4,
        "bulkrestart: a defect of bulkrestart, please report it: TypeError: boom\\x1b[31m\n",
    )


def test_the_entry_point(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], entry: Callable[[], int]
) -> None:
    """What the console script calls runs the command line on the process's arguments."""
    monkeypatch.setattr(sys, "argv", ["bulkrestart", "--version"])
    assert entry() == 0
    assert capfd.readouterr().out.startswith("bulkrestart ")


def test_a_defect_of_ours_is_not_called_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of our own that is missing is no reason to install anything."""
    monkeypatch.setitem(sys.modules, "bulkrestart.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match=r"bulkrestart\.cli\.app"):
        main()


@pytest.mark.parametrize(
    "start", [("-m", "bulkrestart"), ("-c", "from bulkrestart.__main__ import main; exit(main())")]
)
def test_process(start: tuple[str, ...]) -> None:
    """The exit code is the process's, as a module and as the console script."""
    end = _python(*start)
    assert (end.returncode, end.stdout, end.stderr) == (2, "", "bulkrestart: Missing command; see bulkrestart --help\n")


_SIGNALLED = """
import os, sys

class Signal:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), int(sys.argv[1]))

sys.meta_path.insert(0, Signal())
from bulkrestart.__main__ import main
main()
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_while_it_loads(number: signal.Signals) -> None:
    """A signal while the modules are read is one line, and exit 130."""
    end = _python("-c", _SIGNALLED, str(int(number)))
    assert (end.returncode, end.stdout, end.stderr) == (130, "", "bulkrestart: interrupted; nothing was sent\n")


def test_signal_while_the_line_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that typer makes an exit code of is the same interruption."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("bulkrestart.cli.app.read_access", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(["restart", "--endpoint", "http://127.0.0.1:9/v2.1/abc", "ID"])


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, preexec_fn=take_all_signals)
