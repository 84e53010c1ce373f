"""What the command line says of a cloud that makes no progress, and with which code it ends."""

from pathlib import Path

import pytest

from bulkrestart.cli.end import ExitCode
from bulkrestart.simulator import Cloud, Fault

from .conftest import Cli, Serve

#: Bounds of some tenths of a second.
SHORT = ("--server-timeout", "0.3", "--wait-timeout", "0.3", "--stall-timeout", "0.3")


@pytest.fixture(autouse=True)
def _no_leeway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a bound be what it says."""
    monkeypatch.setattr("bulkrestart.engine.stall.LEEWAY", 0.0)


def test_a_run_that_is_stalled(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """It ends with 4, the cause in the cloud's own words, and how to go on."""
    cloud = Cloud(2)
    for server_id in cloud.ids:
        cloud.script(server_id, *[Fault.throttled(60.0)] * 5)
    journal = str(tmp_path / "journal")
    end = cli("restart", "--endpoint", serve(cloud).endpoint, "--journal", journal, *SHORT, *cloud.ids)
    assert end.code == ExitCode.STOPPED
    assert "stopped (stalled): the cloud has answered 429 to every request for 0 s" in end.out
    assert f"2 of 2 servers are left: the same command with --journal {journal} goes on" in end.err


@pytest.mark.parametrize("command", ["restart", "--dry-run"])
def test_before_anything_is_sent(cli: Cli, serve: Serve, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cloud never answers is no bad input: it ends with 4, and nothing was sent."""
    monkeypatch.setattr("bulkrestart.client.STALL_TIMEOUT", 0.3)
    cloud = Cloud(2)
    cloud.outage = Fault.throttled(60.0)
    options = [command] if command != "restart" else []
    end = cli("restart", "--endpoint", serve(cloud).endpoint, *SHORT, *options, *cloud.ids)
    assert end.code == ExitCode.STOPPED
    assert "the cloud has answered 429 to every request for 0 s (overLimit: This request was rate-limited.)" in end.err
    assert "nothing was sent" in end.err


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.throttled(3600.0), id="429"),
        pytest.param(Fault.throttled(3600.0, status=413), id="413"),
        pytest.param(Fault.throttled(7200.0), id="two hours"),
        pytest.param(Fault.respond(429, b"slow down", {"retry-after": "3600"}), id="a gateway's"),
        pytest.param(Fault.respond(429, b"", {"retry-after": "86400"}), id="empty"),
    ],
)
@pytest.mark.parametrize("command", ["restart", "restart --dry-run", "restart --all", "servers --all"])
def test_a_wait_that_is_too_long_before_anything_is_sent(cli: Cli, serve: Serve, command: str, fault: Fault) -> None:
    """The input is good: it ends with 4. One line says so, and a list of servers is no run that stops."""
    cloud = Cloud(2)
    cloud.outage = fault
    name, *options = command.split()
    ids = [] if "--all" in options else cloud.ids
    end = cli(name, "--endpoint", serve(cloud).endpoint, *options, *ids)
    assert (end.code, end.out, end.err.count("\n")) == (ExitCode.STOPPED, "", 1), end
    assert end.err.startswith("bulkrestart: the cloud asks to wait for ")
    assert end.err.endswith("what is left can be restarted after that; nothing was sent\n")
    assert not cloud.posts


@pytest.mark.parametrize("command", ["restart", "restart --dry-run", "servers --all"])
@pytest.mark.parametrize(
    "fault", [Fault.respond(404, b"<html>"), Fault.respond(302), Fault.respond(407), Fault.respond(200, b"<html>")]
)
def test_what_stays_bad_input(cli: Cli, serve: Serve, command: str, fault: Fault) -> None:
    """A wrong endpoint is bad input, and is told once as well."""
    cloud = Cloud(2)
    cloud.outage = fault
    name, *options = command.split()
    end = cli(name, "--endpoint", serve(cloud).endpoint, *options, *([] if "--all" in options else cloud.ids))
    assert (end.code, end.err.count("\n")) == (ExitCode.USAGE, 1), end
    assert "nothing was sent" in end.err


def test_a_list_that_never_comes(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """`servers` ends as a restart does."""
    monkeypatch.setattr("bulkrestart.client.STALL_TIMEOUT", 0.3)
    cloud = Cloud(2)
    cloud.outage = Fault.throttled(60.0)
    end = cli("servers", "--all", "--endpoint", serve(cloud).endpoint)
    assert end.code == ExitCode.STOPPED
    assert "429 to every request" in end.err


def test_a_bound_that_is_too_short(cli: Cli) -> None:
    """It would cut a server's own time-out short, which is bad input."""
    end = cli("restart", "--endpoint", "https://c.test/v2.1/p", "--stall-timeout", "60", "s")
    assert end.code == ExitCode.USAGE
    words = "--stall-timeout is 60, which is less than server_timeout (900): raise it, or lower server_timeout"
    assert words in end.err
