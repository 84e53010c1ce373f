"""What is printed where, and which exit code follows."""

import errno
import io
import json
import os
import pty
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from bulkrestart.cli.end import ExitCode
from bulkrestart.cli.follow import exit_code
from bulkrestart.cli.show import row
from bulkrestart.cli.streams import Streams, _write, safe
from bulkrestart.core.model import Outcome, Reason, RebootType, ServerResult, Stop, StopReason
from bulkrestart.core.report import Statistics
from bulkrestart.simulator import Cloud, Fault
from tests.core.samples import report

from .conftest import Cli, Serve, full_pipe


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
    assert exit_code(report(*map(result, outcomes), stopped=stopped), is_interrupted=is_interrupted) == ExitCode(code)


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
    assert list(report) == ["summary", "results", "stopped", "elapsed", "target"]
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


def test_everything_is_written() -> None:
    """Closing waits until all lines are written, through a pipe that is full and does not block."""
    lines = [f"{number:0100}" for number in range(3000)]
    with full_pipe() as (reader, writer):
        os.set_blocking(writer, False)
        with _standard(stdout=writer):
            streams = Streams()
            for line in lines:
                streams.line(line)
            with _reading(reader) as seen:
                assert not streams.close()
                os.close(writer)
    assert b"".join(seen).decode().split() == lines


def test_a_full_pipe_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is written as soon as the pipe has been read, whatever the two processes do first."""
    waited: list[tuple[int, ...]] = []

    def wait(_reads: tuple[()], writes: tuple[int, ...], _errors: tuple[()]) -> None:
        waited.append(writes)
        os.read(reader, 2**20)

    monkeypatch.setattr("bulkrestart.cli.streams.select", SimpleNamespace(select=wait))
    with full_pipe() as (reader, writer):
        os.set_blocking(writer, False)
        _write(writer, b"a line\n")
        os.close(writer)
        assert os.read(reader, 2**20) == b"a line\n"
    assert waited == [(writer,)]


def test_a_reader_holds_nobody(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a pager reads nothing of the two streams, every server is sent to; then it reads all, in order."""
    served = serve(Cloud(3))
    first, *others = served.cloud.ids
    all_sent = threading.Event()
    real = served.cloud.reboot

    def reboot(*arguments: Any, **more: Any) -> object:
        row = real(*arguments, **more)
        if served.cloud.posts.total() == 3:
            all_sent.set()
        return row

    monkeypatch.setattr(served.cloud, "reboot", reboot)
    with (
        full_pipe() as (reader, writer),
        _standard(stdout=writer, stderr=writer),
        _reading(reader, all_sent) as seen,
    ):
        end = cli("restart", "--endpoint", served.endpoint, "--no-wait", first, first, *others)
        os.close(writer)
    assert end.code == 0
    warning, *rows, summary = b"".join(seen).decode().lstrip("\n").splitlines()
    assert warning == "bulkrestart: 1 of the ids given are duplicates; each server is restarted once"
    assert sorted(row.split()[0] for row in rows) == sorted(served.cloud.ids)
    assert summary.startswith("3 accepted in ")


@contextmanager
def _standard(encoding: str = "utf-8", **descriptors: int) -> Iterator[None]:
    """Let the standard streams be these."""
    with pytest.MonkeyPatch.context() as patch:
        for name, descriptor in descriptors.items():
            file = io.FileIO(descriptor, "w", closefd=False)
            patch.setattr(sys, name, io.TextIOWrapper(file, encoding))
        yield


@contextmanager
def _reading(reader: int, start: threading.Event | None = None) -> Iterator[list[bytes]]:
    """Read a pipe to its end beside the block, from the event on; "held" is the first word if that does not come."""
    seen: list[bytes] = []

    def read() -> None:
        if start is not None and not start.wait(20):
            seen.append(b"held\n")
        while data := os.read(reader, 65536):
            seen.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    yield seen
    thread.join()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_characters_that_a_stream_lacks(stream: str) -> None:
    """A character that the encoding of a stream lacks is written as an escape."""
    reader, writer = os.pipe()
    with _standard("ascii", **{stream: writer}):
        streams = Streams()
        (streams.line if stream == "stdout" else streams.say)("Zürich")
        streams.close()
    assert os.read(reader, 100) == b"Z\\xfcrich\n"
    os.close(reader)
    os.close(writer)


def test_reader_is_gone(cli: Cli, serve: Serve) -> None:
    """A closed standard output ends nothing: every server is restarted, in silence."""
    served = serve(Cloud(3))
    reader, writer = os.pipe()
    os.close(reader)
    with _standard(stdout=writer):
        end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *served.cloud.ids)
    os.close(writer)
    assert (end.code, end.err) == (0, "")
    assert served.cloud.posts.total() == 3


@contextmanager
def _full_disk() -> Iterator[None]:
    full = os.open("/dev/full", os.O_WRONLY)
    with _standard(stdout=full):
        yield
    os.close(full)


LOST = f"bulkrestart: standard output could not be written: {os.strerror(errno.ENOSPC)}\n"


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_full_disk(cli: Cli, serve: Serve, output: str) -> None:
    """Results that cannot be written end nothing, and the account goes to standard error; exit 5."""
    served = serve(Cloud(2))
    good, locked = served.cloud.ids
    served.cloud.change(locked, locked=True)
    with _full_disk():
        end = cli("restart", "--endpoint", served.endpoint, "--no-wait", "--output", output, good, locked)
    assert end.code == 5
    lines = end.err.replace(LOST, "").splitlines()
    [row] = [line for line in lines if line.startswith(f"{locked}  refused ")]
    [summary] = [line for line in lines if line.startswith("1 accepted, 1 refused in ")]
    assert (LOST in end.err, sorted(lines)) == (True, sorted([row, summary]))


@pytest.mark.parametrize("arguments", [("--help",), ("restart", "--help"), ("--version",)])
def test_help_on_a_full_disk(cli: Cli, arguments: tuple[str, ...]) -> None:
    """A help that cannot be written is one line, and exit 5."""
    with _full_disk():
        end = cli(*arguments)
    assert (end.code, end.err) == (5, LOST)


def test_no_streams_at_all(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without standard streams does its work, and says by its exit code that nobody was told."""
    served = serve(Cloud(1))
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *served.cloud.ids)
    assert (end.code, end.out, end.err) == (5, "", "")


@pytest.mark.parametrize(
    ("environment", "has_bar"),
    [
        ({}, True),
        ({"TERM": "dumb"}, False),
        ({"NO_COLOR": "1"}, True),
        *(({"COLUMNS": columns}, True) for columns in ("0", "1", "-5", "abc")),
    ],
)
def test_terminal(
    cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], has_bar: bool
) -> None:
    """On a terminal there is a bar, and each result is a line above it; on a dumb one there are the lines."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # It is drawn many times before a server is seen back.
    monkeypatch.setattr("bulkrestart.cli.streams._REFRESH", 0.02)
    monkeypatch.setattr("bulkrestart.run.settle.FIRST_INTERVAL", 0.8)
    served = serve(Cloud(2, reboot_seconds=(0.01, 0.02)))
    text = _on_terminal(lambda: cli("restart", "--endpoint", served.endpoint, *served.cloud.ids).code)
    assert ("[............] 0/2  0 in flight, 0 parked, 2 accepted  0:00:0" in text) is has_bar
    *rows, summary = [line.rpartition("\r\x1b[K")[2] for line in text.split("\r\n")[:-1]]
    assert sorted(row.split()[:2] for row in rows) == sorted([one, "completed"] for one in served.cloud.ids)
    assert summary.startswith("2 completed in ")


def test_narrow_terminal() -> None:
    """The bar stays on its line, and leaves nothing behind."""
    is_drawn = threading.Event()

    def statistics() -> Statistics:
        is_drawn.set()
        return Statistics(total=200, not_started=0, in_flight=20, parked=0, accepted=80, finished=100)

    def act() -> int:
        streams = Streams()
        with streams.bar(statistics):
            assert is_drawn.wait(20)
            streams.say("a line that is longer than this terminal is wide")
        streams.close()
        return 0

    before, _, after = _on_terminal(act, columns=20).partition("a line that is longer than this terminal is wide\r\n")
    assert set((before + after).split("\r\x1b[K")) <= {"[######......] 100/", ""}
    assert (before + after).endswith("\r\x1b[K")


def test_closed_terminal(cli: Cli, serve: Serve) -> None:
    """A terminal that is closed ends nothing, the bar included."""
    served = serve(Cloud(1, reboot_seconds=(0.01, 0.02)))
    master, slave = pty.openpty()
    with _standard(stdout=slave, stderr=slave):
        os.close(master)
        # What is not one's controlling terminal hangs up as an error alone.
        assert cli("restart", "--endpoint", served.endpoint, *served.cloud.ids).code == 5
    os.close(slave)
    assert served.cloud.posts.total() == 1


def _on_terminal(act: Callable[[], int], columns: int = 0) -> str:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (0, columns))
    seen: list[bytes] = []

    def read() -> None:
        # Reading fails when the other end is closed.
        with suppress(OSError):
            while data := os.read(master, 4096):
                seen.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    with _standard(stdout=slave, stderr=slave):
        assert act() == 0
    os.close(slave)
    thread.join()
    os.close(master)
    return b"".join(seen).decode()


def test_closed_standard_output(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was started without a standard output has lost its results, and gives the account elsewhere."""
    served = serve(Cloud(1))
    monkeypatch.setattr("sys.stdout", None)
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *served.cloud.ids)
    loss, summary = end.err.splitlines()
    assert (end.code, loss) == (5, "bulkrestart: standard output could not be written: it is closed")
    assert summary.startswith("1 accepted in ")
