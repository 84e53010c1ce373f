"""Signals, closed pipes and whole processes: every server is accounted for, however the run ends."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from bulkrestart.cli.show import Display
from bulkrestart.cli.signals import Interrupts, on_signals
from bulkrestart.cli.streams import Streams
from bulkrestart.core.model import ServerResult
from bulkrestart.simulator import Call, Cloud, Fault

from .conftest import SIGNALS, Cli, Serve, full_pipe, take_all_signals


def slow_cloud(*seconds: float) -> Cloud:
    """Make a cloud whose first server is answered at once, and the others after these seconds."""
    cloud = Cloud(1 + len(seconds))
    for server_id, delay in zip(cloud.ids[1:], seconds, strict=True):
        cloud.script(server_id, Fault.slow(delay))
    return cloud


@contextmanager
def restarting(endpoint: str, *arguments: str, **pipes: int) -> Iterator[subprocess.Popen[str]]:
    """Run `bulkrestart restart --no-wait --output jsonl` in a process of its own."""
    command = [sys.executable, "-m", "bulkrestart", "restart", "--no-journal", "--endpoint", endpoint, "--no-wait"]
    with subprocess.Popen(
        [*command, "--output", "jsonl", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=pipes.get("stdout", subprocess.PIPE),
        stderr=pipes.get("stderr", subprocess.PIPE),
        text=True,
        preexec_fn=take_all_signals,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal(serve: Serve, number: signal.Signals) -> None:
    """After the first signal nothing more is sent, the answer in flight is awaited, and all is reported; exit 130."""
    served = serve(slow_cloud(2.0, 0.0))
    with restarting(served.endpoint, "--max-at-once", "1", *served.cloud.ids) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.send_signal(number)
        rest = process.stdout.read()
        err = process.stderr.read()
        assert process.wait(20) == 130
    results = {one["server_id"]: one for one in map(json.loads, [first, *rest.splitlines()])}
    assert len(results) == 1 + len(rest.splitlines())
    assert [results[server_id]["outcome"] for server_id in served.cloud.ids] == ["accepted", "accepted", "skipped"]
    assert [served.cloud.posts[server_id] for server_id in served.cloud.ids] == [1, 1, 0]
    message, summary, stopped = err.splitlines()
    assert message == (
        "bulkrestart: interrupted: nothing more is sent, and answers in flight are awaited for up to 10 s; "
        "a second signal ends that at once"
    )
    assert summary.startswith("2 accepted, 1 skipped in ")
    assert stopped == "stopped (interrupted): the run was cancelled"


def test_second_signal(serve: Serve) -> None:
    """The second signal awaits nothing: what is in flight is in doubt, and reported as such; exit 130."""
    served = serve(slow_cloud(300.0))
    with restarting(served.endpoint, *served.cloud.ids) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "a second signal ends that at once" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=8)
        assert process.returncode == 130
    results = {one["server_id"]: one["outcome"] for one in map(json.loads, [first, *out.splitlines()])}
    assert results == dict(zip(served.cloud.ids, ["accepted", "in_doubt"], strict=True))
    assert err.splitlines()[0] == "bulkrestart: interrupted again: what is in flight is left in doubt"
    assert err.count("bulkrestart: ") == 1


@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")])
def test_signals_and_a_reader_that_never_reads(streams: tuple[str, ...]) -> None:
    """Whoever does not read the report, or anything, holds no process that is told to end; exit 130."""
    with full_pipe() as (_, writer), socket.create_server(("127.0.0.1", 0)) as cloud:
        endpoint = f"http://127.0.0.1:{cloud.getsockname()[1]}/v2.1/abc"
        with restarting(endpoint, "ID", **dict.fromkeys(streams, writer)) as process:
            os.close(writer)
            connection, _ = cloud.accept()
            # The first ends the run, the next the wait for its reader; one that comes between the two does nothing.
            for _ in range(20):
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    assert process.wait(1) == 130
                    break
            else:
                pytest.fail("it does not end")
            connection.close()


def test_signal_after_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all is over but the writing, a signal ends the process at once; exit 130."""
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)

    async def scenario() -> None:
        with on_signals(lambda: None):
            pass

    asyncio.run(scenario())
    for number in SIGNALS:
        signal.raise_signal(number)
    assert codes == [130] * 3


def test_ignored_signal(serve: Serve) -> None:
    """A signal that the process was started to ignore stays ignored, as nohup wants it."""
    served = serve(slow_cloud(1.0))
    code = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "os.execv(sys.executable, [sys.executable, '-m', 'bulkrestart', *sys.argv[1:]])"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "restart",
        "--no-journal",
        "--endpoint",
        served.endpoint,
        "--no-wait",
        *served.cloud.ids,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert process.stdout.read().endswith("2 accepted in 1 s\n")
        assert process.wait(20) == 0


def test_closed_pipe(serve: Serve) -> None:
    """A reader that leaves after the first line (head) ends nothing; not a word, and the exit code is the run's."""
    served = serve(slow_cloud(0.5, 0.5, 0.5))
    with restarting(served.endpoint, *served.cloud.ids) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(20) == 0
    assert err == "4 accepted in 1 s\n"
    assert served.cloud.posts.total() == 4


def test_both_streams_closed(serve: Serve) -> None:
    """Closed from the start, both streams at once: every server is restarted, and nothing is written elsewhere."""
    served = serve(slow_cloud(0.1))
    command = [
        sys.executable,
        "-m",
        "bulkrestart",
        "restart",
        "--no-journal",
        "--endpoint",
        served.endpoint,
        *served.cloud.ids,
    ]
    script = '"$@" >&- 2>&-'
    end = subprocess.run(["/bin/sh", "-c", script, "sh", *command, "--no-wait"], check=False, timeout=30)
    assert end.returncode == 5
    assert served.cloud.posts.total() == 2


def _signal_once(act: Callable[..., None], number: signal.Signals = signal.SIGINT) -> Callable[..., None]:
    """Let the first call of a method raise a signal in this process."""
    calls: list[object] = []

    def wrapped(*arguments: object) -> None:
        calls.append(arguments)
        act(*arguments)
        if len(calls) == 1:
            signal.raise_signal(number)

    return wrapped


def test_first_signal_here(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in this process: each server is printed once, with a summary that says why it stopped."""
    monkeypatch.setattr(Display, "show", _signal_once(Display.show))
    served = serve(slow_cloud(0.3, 0.0))
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", "--max-at-once", "1", *served.cloud.ids)
    *rows, summary, stopped = end.out.splitlines()
    assert end.code == 130
    assert [line.split()[0] for line in rows] == served.cloud.ids
    assert summary.startswith("2 accepted, 1 skipped in")
    assert stopped.startswith("stopped (interrupted)")


def test_second_signal_here(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal in this process, right after the first, leaves what is in flight in doubt, and waits no more."""
    monkeypatch.setattr(Display, "show", _signal_once(Display.show))
    monkeypatch.setattr(Streams, "warn", _signal_once(Streams.warn))
    served = serve(slow_cloud(300.0))
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *served.cloud.ids)
    assert end.code == 130
    assert re.search(r"^1 accepted, 1 in doubt in \d s$", end.out, re.MULTILINE)


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_signal_at_the_first_look(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    """Interrupted before the first send, the report says of every server that it was skipped."""
    served = serve(Cloud(2))
    first = served.cloud.ids[0]
    served.cloud.script(first, Fault.slow(300.0), call=Call.SHOW)
    real = Interrupts.handled

    @contextmanager
    def handled(interrupts: Interrupts) -> Iterator[None]:
        with real(interrupts):
            asyncio.get_running_loop().call_later(0.2, signal.raise_signal, signal.SIGTERM)
            yield

    monkeypatch.setattr(Interrupts, "handled", handled)
    end = cli("restart", "--endpoint", served.endpoint, "--output", output, *served.cloud.ids)
    assert end.code == 130
    assert end.out.count("skipped") == (3 if output != "jsonl" else 2)
    assert "2 skipped in 0 s\nstopped (interrupted): " in end.out + end.err
    assert not served.cloud.posts


def test_cancelled_otherwise() -> None:
    """A cancellation that no signal began is not taken for one."""

    async def scenario() -> None:
        streams = Streams()
        streams.close()
        interrupts = Interrupts(streams)
        with interrupts.absorbed():
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())


def test_defect_in_a_run(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks, the report is printed."""
    shown: list[ServerResult] = []
    real = Display.show

    def show(display: Display, result: ServerResult) -> None:
        if not shown:
            shown.append(result)
            raise TypeError("boom")
        real(display, result)

    monkeypatch.setattr(Display, "show", show)
    served = serve(Cloud(2))
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", "--max-at-once", "1", *served.cloud.ids)
    assert end.code == 4
    assert [line.split()[0] for line in end.out.splitlines()[:2]] == served.cloud.ids
    assert end.err.endswith("please report it: TypeError: boom\n")
