"""The help texts, word for word, and what surrounds the commands."""

import builtins
import inspect
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bulkrestart import RestartClient, __version__
from bulkrestart.__main__ import main
from bulkrestart.cli.app import _restart

from .conftest import Cli

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("command", [(), ("restart",), ("simulate",), ("demo",)])
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
    assert ours["max_at_once"].default == inspect.signature(RestartClient).parameters["max_at_once"].default
    text = " ".join((GOLDEN / "help-restart.txt").read_text().split())
    for name in shared - {"wait", "escalate", "start_stopped", "reboot_type"}:
        assert f"Default: {ours[name].default:.0f}." in text


def _hide(monkeypatch: pytest.MonkeyPatch, module: str, error: ImportError) -> None:
    """Let the import of a module of ours fail."""
    real = builtins.__import__

    def fail(name: str, *rest: Any) -> ModuleType:
        if name == module:
            raise error
        return real(name, *rest)

    monkeypatch.setattr("builtins.__import__", fail)


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_missing_extra(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], missing: str) -> None:
    """Without typer or rich the command is one line that names the extra."""
    _hide(monkeypatch, "bulkrestart.cli.app", ModuleNotFoundError(name=missing))
    assert main() == 2
    err = capfd.readouterr().err
    assert err == f"bulkrestart: the command line needs {missing}: pip install 'bulkrestart[cli]'\n"


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
        ("rich", "demo", "cli"),
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

    def fail(_: Sequence[str], __: object) -> None:
        raise TypeError("boom\x1b[31m")

    monkeypatch.setattr("bulkrestart.cli.app.gather_ids", fail)
    end = cli("restart", "--endpoint", "http://127.0.0.1:9/v2.1/abc", "ID")
    assert (end.code, end.err) == (
        4,
        "bulkrestart: a defect of bulkrestart, please report it: TypeError: boom\\x1b[31m\n",
    )


def test_the_entry_point(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """What the console script calls runs the command line on the process's arguments."""
    monkeypatch.setattr(sys, "argv", ["bulkrestart", "--version"])
    assert main() == 0
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


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
