"""A run over more than ten servers asks first, on the terminal."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bulkrestart.cli.ask import confirm
from bulkrestart.cli.errors import InputError
from bulkrestart.cli.plan import target_lines
from bulkrestart.simulator import Cloud

from .conftest import SIGNALS, Cli, Serve, take_all_signals

#: Makes the terminal that is named first the controlling one of a new session, and becomes the command line.
_ON_TERMINAL = (
    "import os, sys; os.open(sys.argv[1], os.O_RDWR); "
    "os.execv(sys.executable, [sys.executable, '-m', 'bulkrestart', *sys.argv[2:]])"
)


def test_no_terminal(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal and without --yes it is exit 2, and the line names --yes."""
    monkeypatch.setattr("bulkrestart.cli.ask.TERMINAL", "/no/such/terminal")
    served = serve(Cloud(11))
    end = cli("restart", "--endpoint", served.endpoint, *served.cloud.ids)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
    assert "--yes" in end.err
    assert not served.cloud.requests


def test_a_terminal_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was there before the plan was made, and is not when it is asked on, is as good as none."""
    monkeypatch.setattr("bulkrestart.cli.ask.TERMINAL", "/no/such/terminal")
    with pytest.raises(InputError, match="no terminal to ask on: give --yes"):
        confirm("Well?")


@pytest.mark.parametrize(
    ("servers", "more", "answer", "code"),
    [
        (11, (), b"y\n", 0),
        (11, ("--type", "hard"), b" YES \n", 0),
        (11, (), b"n\n", 2),
        (11, (), b"\n", 2),
        (11, (), b"\x04", 2),
        (11, (), b"\xff\n", 2),
        (11, ("--type", "HARD"), b"yesterday\n", 2),
        (11, ("--yes",), b"n\n", 0),
        (10, (), b"n\n", 0),
    ],
)
def test_answers(
    cli: Cli,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    servers: int,
    more: tuple[str, ...],
    answer: bytes,
    code: int,
) -> None:
    """Only yes sends; up to ten servers, or with --yes, nobody is asked."""
    served = serve(Cloud(servers))
    with terminal() as (master, name):
        monkeypatch.setattr("bulkrestart.cli.ask.TERMINAL", name)
        os.write(master, answer)
        end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *more, *served.cloud.ids)
        os.write(master, b"end\n")
        seen = read_until(master, "end")
    assert end.code == code
    assert served.cloud.posts.total() == (0 if code else servers)
    is_asked = servers > 10 and more != ("--yes",)
    assert ("Restart them? [y/N] " in seen) is is_asked
    if is_asked:
        kind = "HARD" if more else "SOFT"
        assert f"{kind} restart of 11 servers, at most 50 requests at once" in seen
        assert served.endpoint in seen
        assert "web-0001, web-0002, web-0003 and 8 more" in seen
        assert "expected  11 to be sent to" in seen
    assert end.err == ("bulkrestart: not confirmed; nothing was sent\n" if code else "")


@contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """Give a terminal: the user's end, and the name of the other."""
    master, slave = pty.openpty()
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


def read_until(master: int, words: str) -> str:
    """Read what a terminal shows until it shows these words."""
    seen = b""
    while words.encode() not in seen:
        seen += os.read(master, 1000)
    return seen.decode(errors="replace")


@contextmanager
def asking(endpoint: str, ids: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a restart that asks, in a process whose three standard streams are no terminal; give that one as well."""
    command = ["restart", "--no-journal", "--endpoint", endpoint, "--no-wait", "--ids-from", "-"]
    with (
        terminal() as (master, name),
        subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, name, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=take_all_signals,
        ) as process,
    ):
        assert process.stdin is not None
        process.stdin.write("\n".join(ids))
        process.stdin.close()
        process.stdin = None
        assert "11 servers" in read_until(master, "[y/N] ")
        try:
            yield process, master
        finally:
            process.kill()


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 2)])
def test_real_terminal(serve: Serve, answer: bytes, code: int) -> None:
    """It is asked and answered on the terminal, wherever the three standard streams go."""
    served = serve(Cloud(11))
    with asking(served.endpoint, served.cloud.ids) as (process, master):
        os.write(master, answer)
        out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert ("11 accepted" in out) is (code == 0)
    assert err == ("bulkrestart: not confirmed; nothing was sent\n" if code else "")
    assert served.cloud.posts.total() == (0 if code else 11)


@pytest.mark.parametrize("number", [*SIGNALS, None])
def test_interrupted_question(serve: Serve, number: signal.Signals | None) -> None:
    """A signal at the question, or Ctrl-C on its terminal, is exit 130, and nothing is sent."""
    served = serve(Cloud(11))
    with asking(served.endpoint, served.cloud.ids) as (process, master):
        if number is None:
            os.write(master, b"\x03")
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "bulkrestart: interrupted; nothing was sent\n")
    assert not served.cloud.posts


def test_a_plan_without_a_target_names_none() -> None:
    """A `Plan` that a program made itself may have no target."""
    assert target_lines(None) == []
