"""The demo, and the simulated cloud as a command."""

import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from bulkrestart.cli import demo, simulate
from bulkrestart.cli.streams import Streams
from bulkrestart.core.model import Outcome, RebootType, ServerResult
from bulkrestart.simulator import Cloud, Fault
from tests.core.samples import report

from .conftest import Cli, Serve


def small_cloud() -> Cloud:
    """Make a cloud of a few servers with a fault each."""
    cloud = Cloud(6, reboot_seconds=(0.01, 0.02))
    plain, locked, lost, lost_before, failed, busy = cloud.ids
    assert plain
    cloud.change(locked, locked=True)
    cloud.script(lost, Fault.no_reply(applied=True))
    cloud.script(lost_before, Fault.error(500, applied=False))
    cloud.script(failed, Fault.error(500, applied=True))
    cloud.script(busy, Fault.throttled(1.0))
    return cloud


@pytest.fixture
def _small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "demo_cloud", small_cloud)
    # This cloud carries nothing out late.
    monkeypatch.setattr("bulkrestart.core.look.GRACE", 1.0)


@pytest.mark.usefixtures("_small_demo")
def test_demo(cli: Cli) -> None:
    """The demo shows the servers with a story, and counts what the cloud saw."""
    end = cli("demo")
    assert (end.code, end.err) == (0, "")
    lines = end.out.splitlines()
    stories = {line.split()[0]: line.split("  ")[-1].strip() for line in lines if line.startswith("  web")}
    assert {name: story for name, story in stories.items() if name != "web-0002"} == {
        "web-0003": "no reply, then found in the action log",
        "web-0004": "500 computeFault, then 202",
        "web-0005": "500 computeFault, then found in the action log",
        "web-0006": "429 overLimit, then 202",
    }
    assert stories["web-0002"].startswith("locked: Instance")
    assert "  5 servers power-cycled once, 0 more than once, 1 not at all" in lines
    assert any(line.startswith("  8 reboot requests, at most ") for line in lines)
    assert any(line.startswith("  1 replies lost: 1 reboots had started") for line in lines)
    assert any(line.startswith("  2 answers 500: 1 reboots had started") for line in lines)
    assert lines[-1] == "every promise held"


def test_fleet_of_the_demo() -> None:
    """The demo restarts 200 servers, the same each time."""
    assert demo.demo_cloud().ids == demo.demo_cloud().ids
    assert len(demo.demo_cloud().ids) == 200


def test_broken_promise(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promise that was broken is named, and exit 1."""
    monkeypatch.setattr(demo, "demo_cloud", lambda: Cloud(1, reboot_seconds=(0.01, 0.02)))
    monkeypatch.setattr(demo, "broken_promises", lambda *_: ["BROKEN: a promise"])
    end = cli("demo")
    assert (end.code, end.out.splitlines()[-1]) == (1, "BROKEN: a promise")


@pytest.mark.usefixtures("_small_demo")
def test_interrupted_demo(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted demo accounts for its servers too."""
    shown: list[str] = []

    def show(_: demo._Stories, result: ServerResult) -> None:
        shown.append(result.server_id)
        if len(shown) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(demo._Stories, "show", show)
    end = cli("demo")
    assert end.code == 130
    assert sorted(shown) == sorted(small_cloud().ids)
    assert "stopped (interrupted): " in end.out
    assert "promise" not in end.out


def test_broken_promises() -> None:
    """A report that is not what the cloud saw is found out."""
    cloud = Cloud(1)
    (server_id,) = cloud.ids
    wrong = ServerResult(server_id=server_id, outcome=Outcome.COMPLETED, reboot_type=RebootType.SOFT)
    assert demo.broken_promises(cloud, report(wrong)) == ["BROKEN: those completed are those power-cycled"]
    assert demo.broken_promises(cloud, report()) == ["BROKEN: every server is in the report once"]


@pytest.mark.parametrize("has_file", [True, False])
def test_simulate(has_file: bool, tmp_path: Path) -> None:
    """The simulated cloud says how to restart its servers, and ends with a signal and exit 0."""
    ids = tmp_path / "the ids"
    options = ["--servers", "3", "--seed", "7", "--fault", "lost-after=0.5"]
    if has_file:
        options += ["--ids-to", str(ids)]
    command = [sys.executable, "-m", "bulkrestart"]
    with subprocess.Popen([*command, "simulate", *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            head, export, servers, restart = (process.stdout.readline() for _ in range(4))
            endpoint = servers.split()[3]
            assert endpoint.startswith("http://127.0.0.1:")
            source = f"--ids-from '{ids}'" if has_file else "--all"
            assert (head, export, servers, restart) == (
                f"# 3 simulated servers at {endpoint} until Ctrl-C; in another shell:\n",
                "export OS_TOKEN=token\n",
                f"bulkrestart servers --endpoint {endpoint} --all\n",
                f"bulkrestart restart --endpoint {endpoint} {source}\n",
            )
            headers = {"X-Auth-Token": "token"}
            listed = httpx.get(f"{endpoint}/servers", headers=headers, trust_env=False).json()["servers"]
            assert len(listed) == 3
            if has_file:
                assert sorted(ids.read_text().split()) == sorted(server["id"] for server in listed)
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == "0 power cycles of 0 servers in answer to 1 requests\n"
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("ids_to", [None, "ids"])
def test_simulate_here(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ids_to: str | None) -> None:
    """The same in this process."""
    real = Streams.line

    def line(streams: Streams, text: str) -> None:
        real(streams, text)
        if text.startswith("bulkrestart restart"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Streams, "line", line)
    file = [] if ids_to is None else ["--ids-to", str(tmp_path / ids_to)]
    end = cli("simulate", "--servers", "2", "--fault", "busy=0.5", *file)
    assert (end.code, end.err) == (0, "")
    assert end.out.splitlines()[-1] == "0 power cycles of 0 servers in answer to 0 requests"


def test_simulate_where_the_port_is_taken(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """The ids of the cloud that is there are not overwritten by those of one that never is."""
    ids = tmp_path / "ids"
    ids.write_text("mine")
    port = urlsplit(serve(Cloud(1)).endpoint).port
    end = cli("simulate", "--servers", "2", "--port", str(port), "--ids-to", str(ids))
    assert (end.code, end.out) == (2, "")
    assert ids.read_text() == "mine"


def test_shares() -> None:
    """A fault is named with hyphens or underscores; the last share counts."""
    faults = simulate.read_faults(["lost-after=0.1", "lost_after=0.2", "slow=0.8"])
    assert (faults.lost_after, faults.slow, faults.busy) == (0.2, 0.8, 0.0)
