"""A run over more than ten servers asks first, on the terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from bulkrestart.simulator import Cloud

from .conftest import Cli, Serve

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


@pytest.mark.parametrize(
    ("servers", "more", "answer", "code"),
    [
        (11, (), "y\n", 0),
        (11, ("--type", "hard"), " YES \n", 0),
        (11, (), "n\n", 2),
        (11, (), "\n", 2),
        (11, (), "", 2),
        (11, ("--type", "HARD"), "yesterday\n", 2),
        (11, ("--yes",), "n\n", 0),
        (10, (), "n\n", 0),
    ],
)
def test_answers(
    cli: Cli,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    servers: int,
    more: tuple[str, ...],
    answer: str,
    code: int,
) -> None:
    """Only yes sends; up to ten servers, or with --yes, nobody is asked."""
    terminal = tmp_path / "terminal"
    terminal.write_text(answer)
    monkeypatch.setattr("bulkrestart.cli.ask.TERMINAL", str(terminal))
    served = serve(Cloud(servers))
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *more, *served.cloud.ids)
    assert end.code == code
    assert served.cloud.posts.total() == (0 if code else servers)
    is_asked = servers > 10 and more != ("--yes",)
    assert ("Restart them? [y/N]" in end.err) is is_asked
    if is_asked:
        kind = "HARD" if more else "SOFT"
        assert f"{kind} restart of 11 servers, at most 50 requests at once" in end.err
        assert served.endpoint in end.err
        assert f"{', '.join(served.cloud.ids[:3])} and 8 more" in end.err
    if code:
        assert end.err.endswith("bulkrestart: not confirmed; nothing was sent\n")


def test_interrupted_question(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the question is exit 130, and nothing is sent."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bulkrestart.cli.app.confirm", interrupt)
    served = serve(Cloud(11))
    end = cli("restart", "--endpoint", served.endpoint, *served.cloud.ids)
    assert (end.code, end.err) == (130, "bulkrestart: interrupted; nothing was sent\n")
    assert not served.cloud.requests


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 2)])
def test_real_terminal(serve: Serve, answer: bytes, code: int) -> None:
    """The answer is read from the terminal, also when the ids come by standard input."""
    served = serve(Cloud(11))
    master, slave = pty.openpty()
    command = [sys.executable, "-c", _ON_TERMINAL, os.ttyname(slave), "restart", "--endpoint", served.endpoint]
    with subprocess.Popen(
        [*command, "--no-wait", "--ids-from", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=slave,
        start_new_session=True,
    ) as process:
        os.close(slave)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(served.cloud.ids).encode())
        process.stdin.close()
        seen = b""
        while b"[y/N]" not in seen:
            seen += os.read(master, 1000)
        os.write(master, answer)
        out = process.stdout.read()
        assert process.wait(20) == code
    os.close(master)
    assert (b"11 accepted" in out) is (code == 0)
    assert served.cloud.posts.total() == (0 if code else 11)
