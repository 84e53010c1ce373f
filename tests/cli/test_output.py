"""What is printed where, and which exit code follows."""

import errno
import io
import json
import os
import pty
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest

from bulkrestart.cli.follow import ExitCode, exit_code
from bulkrestart.cli.show import row
from bulkrestart.cli.streams import Notes, Results, safe
from bulkrestart.core.model import Outcome, Reason, RebootType, ServerResult, Stop, StopReason
from bulkrestart.core.report import Report
from bulkrestart.simulator import Cloud, Fault

from .conftest import Cli, Serve


def result(outcome: Outcome, reason: Reason | None = None, detail: str = "") -> ServerResult:
    """Make a result of a server."""
    return ServerResult(
        server_id="web", outcome=outcome, reason=reason, detail=detail, reboot_type=RebootType.SOFT, elapsed=12.34
    )


@pytest.mark.parametrize(
    ("outcomes", "stop", "is_interrupted", "code"),
    [
        ((Outcome.COMPLETED, Outcome.ACCEPTED), None, False, 0),
        ((Outcome.COMPLETED, Outcome.REFUSED), None, False, 1),
        ((Outcome.COMPLETED, Outcome.FAILED), None, False, 1),
        ((Outcome.COMPLETED, Outcome.SKIPPED), None, False, 1),
        ((Outcome.FAILED, Outcome.IN_DOUBT), None, False, 3),
        ((Outcome.IN_DOUBT,), StopReason.OUTAGE, False, 4),
        ((Outcome.COMPLETED,), StopReason.UNAUTHORIZED, False, 4),
        ((Outcome.SKIPPED,), StopReason.ASKED, False, 1),
        ((Outcome.COMPLETED,), None, True, 130),
        ((Outcome.IN_DOUBT,), StopReason.INTERRUPTED, True, 130),
        ((Outcome.IN_DOUBT,), StopReason.FORBIDDEN, True, 130),
    ],
)
def test_exit_code(outcomes: tuple[Outcome, ...], stop: StopReason | None, is_interrupted: bool, code: int) -> None:
    """Of the exit codes that fit, the first of 130, 4, 3, 1, 0 is given."""
    stopped = None if stop is None else Stop(stop, "because")
    report = Report(results=tuple(map(result, outcomes)), stopped=stopped, elapsed=1.0)
    assert exit_code(report, is_interrupted=is_interrupted) == ExitCode(code)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (result(Outcome.COMPLETED), "web   completed     12.3 s"),
        (result(Outcome.IN_DOUBT, Reason.UNANSWERED), "web   in_doubt      12.3 s  unanswered"),
        (result(Outcome.REFUSED, Reason.LOCKED, "It is\nlocked"), "web   refused       12.3 s  locked: It is locked"),
        (result(Outcome.REFUSED, None, "\x1b[31m[red]x\x9b"), "web   refused       12.3 s  \\x1b[31m[red]x\\x9b"),
    ],
)
def test_row(given: ServerResult, line: str) -> None:
    """A server is one line: id, outcome, seconds, reason and detail."""
    assert row(given, 4) == line


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain [red]text[/red] ü", "plain [red]text[/red] ü"), ("\x1b]0;x\x07", "\\x1b]0;x\\x07"), ("\u202e", "\\u202e")],
)
def test_safe(text: str, shown: str) -> None:
    """What is not printable is written as an escape, and markup is text."""
    assert safe(text) == shown


def test_table(cli: Cli, serve: Serve) -> None:
    """The table has a line for each server, good ones too, then the summary; standard error stays silent."""
    served = serve(Cloud(3, reboot_seconds=(0.01, 0.02)))
    locked = served.cloud.ids[1]
    served.cloud.change(locked, locked=True)
    end = cli("restart", "--endpoint", served.endpoint, *served.cloud.ids)
    *rows, summary = end.out.splitlines()
    assert (end.code, end.err) == (1, "")
    assert {line.split()[0]: line.split()[1] for line in rows} == {
        server_id: "refused" if server_id == locked else "completed" for server_id in served.cloud.ids
    }
    assert f"  locked: Instance {locked} is locked" in end.out
    assert summary.startswith("2 completed, 1 refused in ")


def test_json(cli: Cli, serve: Serve) -> None:
    """Json is one report at the end, in the order given; the summary goes to standard error."""
    served = serve(Cloud(2))
    ids = [*served.cloud.ids[::-1], "unknown"]
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", "--output", "json", *ids)
    report = json.loads(end.out)
    assert list(report) == ["summary", "results", "stopped", "elapsed"]
    assert [one["server_id"] for one in report["results"]] == ids
    assert (report["summary"], report["stopped"]) == ({"accepted": 2, "refused": 1}, None)
    assert end.out.startswith('{\n  "summary"')
    assert (end.code, end.err) == (1, "2 accepted, 1 refused in 0 s\n")


def test_jsonl(cli: Cli, serve: Serve) -> None:
    """Jsonl is an object for each server, with the keys of the report's results."""
    served = serve(Cloud(2))
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", "--output", "jsonl", *served.cloud.ids)
    lines = [json.loads(line) for line in end.out.splitlines()]
    assert [list(line) for line in lines] == [list(asdict(result(Outcome.ACCEPTED)))] * 2
    assert sorted(line["server_id"] for line in lines) == sorted(served.cloud.ids)
    assert (end.code, end.err) == (0, "2 accepted in 0 s\n")


def test_stopped(cli: Cli, serve: Serve) -> None:
    """A run that stopped itself says why, on both streams, and is exit 4."""
    served = serve(Cloud(12))
    for server_id in served.cloud.ids:
        served.cloud.script(server_id, Fault.error(403, "Policy says \x1b[31mno"))
    end = cli("restart", "--endpoint", served.endpoint, "--yes", "--max-at-once", "1", *served.cloud.ids)
    assert end.code == 4, end
    assert end.out.splitlines()[-1].startswith("stopped (forbidden): 10 ")
    assert end.err.startswith("bulkrestart: the run stops: 10 ")
    assert end.err.count("\n") == 1
    assert "Policy says" in end.out
    assert "\x1b" not in end.out + end.err


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_words_of_the_cloud_are_text(cli: Cli, serve: Serve, output: str) -> None:
    """Markup and control characters that a cloud sends reach no terminal as such."""
    served = serve(Cloud(1))
    (server_id,) = served.cloud.ids
    served.cloud.script(server_id, Fault.error(418, "[red]a[/red]\x1b[2J\x9b31m\u202eb"))
    end = cli("restart", "--endpoint", served.endpoint, "--output", output, server_id)
    assert end.code == 1
    assert "[red]a[/red]" in end.out
    assert not set("\x1b\x9b\u202e") & set(end.out + end.err)


@pytest.mark.asyncio
async def test_everything_is_written() -> None:
    """Leaving the block waits until all lines are written, through a pipe that is full and does not block."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines = [f"{number:0100}" for number in range(3000)]
    seen: list[str] = []
    with _stdout(writer), open(reader) as pipe:  # noqa: ASYNC230 - a pipe, read by a thread
        thread = threading.Thread(target=lambda: seen.extend(pipe.read().splitlines()))
        async with Results(Notes()) as results:
            for line in lines:
                results.line(line)
            thread.start()
        os.close(writer)
        thread.join()
    assert seen == lines


@contextmanager
def _stdout(descriptor: int, encoding: str = "utf-8") -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), encoding))
        yield


@pytest.mark.asyncio
async def test_characters_that_the_stream_lacks() -> None:
    """A character that the encoding of a stream lacks is written as an escape."""
    reader, writer = os.pipe()
    with _stdout(writer, "ascii"):
        async with Results(Notes()) as results:
            results.line("Zürich")
    assert os.read(reader, 100) == b"Z\\xfcrich\n"
    os.close(reader)
    os.close(writer)


def test_reader_is_gone(cli: Cli, serve: Serve) -> None:
    """A closed standard output ends nothing: every server is restarted, in silence."""
    served = serve(Cloud(3))
    reader, writer = os.pipe()
    os.close(reader)
    with _stdout(writer):
        end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *served.cloud.ids)
    os.close(writer)
    assert (end.code, end.err) == (0, "")
    assert served.cloud.posts.total() == 3


def test_full_disk(cli: Cli, serve: Serve) -> None:
    """Results that cannot be written end nothing either, and it is said."""
    served = serve(Cloud(1))
    full = os.open("/dev/full", os.O_WRONLY)
    with _stdout(full):
        end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *served.cloud.ids)
    os.close(full)
    words = os.strerror(errno.ENOSPC)
    assert (end.code, end.err) == (0, f"bulkrestart: standard output could not be written: {words}\n")


def test_no_streams_at_all(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without standard streams does its work."""
    served = serve(Cloud(1))
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *served.cloud.ids)
    assert (end.code, end.out, end.err) == (0, "", "")


@pytest.mark.parametrize(("terminal", "has_bar"), [("xterm", True), ("dumb", False)])
def test_terminal(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch, terminal: str, has_bar: bool) -> None:
    """On a terminal there is a bar, and each result is a line above it; on a dumb one there are the lines."""
    monkeypatch.setenv("TERM", terminal)
    served = serve(Cloud(2, reboot_seconds=(0.01, 0.02)))
    text = _on_terminal(monkeypatch, lambda: cli("restart", "--endpoint", served.endpoint, *served.cloud.ids).code)
    assert ("0/2  0 in flight, 0 parked, 2 accepted" in text) is has_bar
    for server_id in served.cloud.ids:
        assert f"{server_id}  completed" in text
    assert "2 completed in " in text.rstrip().splitlines()[-1]


def test_closed_terminal(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that is closed ends nothing, the bar included."""
    served = serve(Cloud(1, reboot_seconds=(0.01, 0.02)))
    master, slave = pty.openpty()
    with open(slave, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setattr("sys.stderr", terminal)
        os.close(master)
        # What is not one's controlling terminal hangs up as an error alone.
        assert cli("restart", "--endpoint", served.endpoint, *served.cloud.ids).code == 0
    assert served.cloud.posts.total() == 1


def _on_terminal(monkeypatch: pytest.MonkeyPatch, act: Callable[[], int]) -> str:
    master, slave = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(master, 4096):
                seen.append(data)
        except OSError:
            pass

    thread = threading.Thread(target=read)
    thread.start()
    with open(slave, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setattr("sys.stderr", terminal)
        assert act() == 0
    thread.join()
    os.close(master)
    return b"".join(seen).decode()
