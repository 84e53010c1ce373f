"""Signals before anything is sent: one line, exit 130, and nobody is touched."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from bulkrestart.__main__ import _leave
from bulkrestart.cli.loop import run_before_sending
from bulkrestart.simulator import Call, Cloud, Fault

from .conftest import SIGNALS, Clouds, Serve, take_all_signals

INTERRUPTED = "bulkrestart: interrupted; nothing was sent\n"


@contextmanager
def silent() -> Iterator[tuple[socket.socket, str]]:
    """Listen, and answer nothing; give the socket and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server, f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def running(*arguments: str, start: tuple[str, ...] = ("-m", "bulkrestart")) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process of its own."""
    with subprocess.Popen(
        [sys.executable, *start, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_all_signals,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("command", "number"),
    [
        (("servers", "--all", "--output", "json"), signal.SIGTERM),
        (("restart", "--name", "web", "--yes"), signal.SIGINT),
        *((("servers", "--all"), number) for number in SIGNALS),
    ],
)
def test_while_it_lists(command: tuple[str, ...], number: signal.Signals) -> None:
    """While the cloud lists servers, a signal ends it at once."""
    with silent() as (cloud, url), running(*command, "--endpoint", f"{url}/v2.1/p") as process:
        connection, _ = cloud.accept()
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        connection.close()
    assert (process.returncode, out, err) == (130, "", INTERRUPTED)


def test_between_pages(serve: Serve) -> None:
    """What was listed before the signal is shown, and the line still says that nothing was sent."""
    served = serve(Cloud(4, max_limit=2))
    served.cloud.script(None, None, Fault.slow(300.0), call=Call.LIST)
    with running("servers", "--all", "--endpoint", served.endpoint) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert {line.split()[0] for line in lines} < set(served.cloud.ids)
    assert (process.returncode, out, err) == (130, "", INTERRUPTED)


@pytest.mark.parametrize(
    ("command", "number"),
    [(("servers", "--all"), signal.SIGINT), *((("restart", "--all"), number) for number in SIGNALS)],
)
def test_while_it_signs_in(clouds: Clouds, command: tuple[str, ...], number: signal.Signals) -> None:
    """While Keystone does not answer, a signal ends it at once, though a thread waits for that answer."""
    with silent() as (keystone, url):
        clouds(one={"auth": {"auth_url": f"{url}/v3"}})
        with running(*command, "--cloud", "one") as process:
            connection, _ = keystone.accept()
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
            connection.close()
    assert (process.returncode, out, err) == (130, "", INTERRUPTED)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_a_large_run_signs_in(clouds: Clouds, number: signal.Signals) -> None:
    """The sign-in that the question waits for ends the same way."""
    with silent() as (keystone, url):
        clouds(one={"auth": {"auth_url": f"{url}/v3"}})
        with running("restart", "--cloud", "one", *(f"server-{one}" for one in range(11))) as process:
            connection, _ = keystone.accept()
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
            connection.close()
    assert (process.returncode, out, err) == (130, "", INTERRUPTED)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("is_known", [True, False])
def test_while_the_run_begins(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, is_known: bool
) -> None:
    """Once servers are named, an interrupted sign-in or first look accounts for each of them as not sent."""
    with silent() as (other, url):
        clouds(one={"auth": {"auth_url": f"{url}/v3"}})
        if is_known:
            monkeypatch.setenv("OS_TOKEN", "token")
        where = ["--endpoint", f"{url}/v2.1/p"] if is_known else ["--cloud", "one"]
        with running("restart", *where, "first", "second") as process:
            connection, _ = other.accept()
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
            connection.close()
    *rows, summary, stopped = out.splitlines()
    assert process.returncode == 130
    assert [row.split()[:2] for row in rows] == [["first", "skipped"], ["second", "skipped"]]
    assert summary.startswith("2 skipped in ")
    assert stopped == "stopped (interrupted): the run was cancelled; nothing was sent by this command"
    assert err.count("\n") == 1
    assert err.startswith("bulkrestart: interrupted: nothing more is sent")


_SLOW_NAMES = """
import socket, threading

real = socket.getaddrinfo

def look_up(host, *rest, **more):
    if "cloud.test" in str(host):
        print("looking", flush=True)
        threading.Event().wait(60)
    return real(host, *rest, **more)

socket.getaddrinfo = look_up
from bulkrestart.__main__ import main
main()
"""


@pytest.mark.parametrize("command", [("servers", "--all"), ("restart", "ID")])
def test_while_a_name_is_looked_up(command: tuple[str, ...]) -> None:
    """A thread that looks a name up, which nothing can cancel, holds nobody."""
    arguments = (*command, "--endpoint", "http://cloud.test/v2.1/p")
    with running(*arguments, start=("-c", _SLOW_NAMES)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "looking\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "nothing" in err


@pytest.mark.parametrize("number", SIGNALS)
def test_while_files_are_read(number: signal.Signals, tmp_path: os.PathLike[str]) -> None:
    """While it waits for ids that nobody writes, a signal ends it."""
    pipe = os.path.join(tmp_path, "ids")
    os.mkfifo(pipe)
    with running("restart", "--endpoint", "http://127.0.0.1:9/v2.1/p", "--ids-from", pipe) as process:
        writer = os.open(pipe, os.O_WRONLY)
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        os.close(writer)
    assert (process.returncode, out, err) == (130, "", INTERRUPTED)


def test_while_modules_are_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The handler of that time ends the process itself: an exception in an import may get lost."""
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    _leave()
    assert codes == [130]
    assert capsys.readouterr().err == INTERRUPTED


@pytest.mark.parametrize("number", SIGNALS)
def test_what_sends_nothing_is_cancelled(number: signal.Signals) -> None:
    """A signal cancels it and comes out as one exception, and what heeded it before does so again."""
    before = signal.getsignal(number)

    async def wait() -> None:
        os.kill(os.getpid(), number)
        await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        run_before_sending(wait())
    assert signal.getsignal(number) is before
