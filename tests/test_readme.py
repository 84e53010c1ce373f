"""The README's code runs as it stands there, against a cloud on loopback."""

import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bulkrestart import Rollout, Server
from bulkrestart.simulator import Cloud, HostFault, LoopbackCloud
from tests.virtual import client_of, cloud_of, slow_down, virtually

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Give the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(command: list[str], served: LoopbackCloud, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader of the README would, in a folder that holds fleet.txt."""
    (folder / "fleet.txt").write_text("\n".join(served.cloud.ids))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "OS_TOKEN": served.cloud.token, "ENDPOINT": served.endpoint}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def function(parameters: str, body: str) -> Callable[..., Awaitable[object]]:
    """Make an async function of a piece of code, which returns what it calls its report."""
    lines = [f"async def function({parameters}):", *f"{body}\nreturn locals().get('report')".splitlines()]
    names: dict[str, Callable[..., Awaitable[object]]] = {}
    exec(compile("\n    ".join(lines), "README.md", "exec"), names)  # noqa: S102
    return names["function"]


def test_the_first_example(tmp_path: Path) -> None:
    """The program of the first lines restarts a fleet, and names what went wrong."""
    cloud = Cloud(5, reboot_seconds=(0.0, 0.1))
    locked = cloud.ids[2]
    cloud.change(locked, locked=True)
    assert README[: README.index(blocks("python")[0])].count("\n") < 40
    with LoopbackCloud(cloud) as served:
        done = run([sys.executable, "-c", blocks("python")[0]], served, tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"4 completed, 1 refused in \d+ s", first)
    assert second == f"{locked} refused locked Instance {locked} is locked"
    assert cloud.cycles == {server_id: server_id != locked for server_id in cloud.ids}


def test_the_command(tmp_path: Path) -> None:
    """The command of the first lines does the same in a shell."""
    [command] = [line for line in blocks("sh")[0].splitlines() if line.startswith("bulkrestart")]
    with LoopbackCloud(Cloud(5, reboot_seconds=(0.0, 0.1))) as served:
        done = run(["sh", "-c", command], served, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 completed" in done.stdout
    assert set(served.cloud.cycles.values()) == {1}


def test_the_selection() -> None:
    """The selection restarts the servers that it names, and no other."""
    select = function("client", blocks("python")[1])

    async def main() -> None:
        cloud = cloud_of(9)
        meant, *others = cloud.ids
        cloud.change(meant, tags=("kernel-fix", "x"))
        cloud.change(others[0], tags=("kernel-fix",), name="db-0001")
        cloud.change(others[1], tags=("kernel-fix",), vm_state="stopped")
        async with client_of(cloud) as client:
            assert str(await select(client)).startswith("1 completed")
        assert [server_id for server_id, count in cloud.cycles.items() if count] == [meant]

    virtually(main)


def test_the_rollout(capsys: pytest.CaptureFixture[str]) -> None:
    """The plan is shown, and the run that follows it restarts each server once."""
    restart = function("client, server_ids, Rollout", blocks("python")[2])

    async def main() -> None:
        cloud = cloud_of(30)
        async with client_of(cloud) as client:
            assert str(await restart(client, cloud.ids, Rollout)).startswith("30 completed")
        assert set(cloud.posts.values()) == {1}

    virtually(main)
    assert capsys.readouterr().out.startswith("30 to send to in 12 waves: ")


def test_the_dry_run(tmp_path: Path) -> None:
    """The command that shows the plan sends no reboot."""
    [command] = [line for block in blocks("sh") for line in block.splitlines() if "--dry-run" in line]
    with LoopbackCloud(Cloud(30)) as served:
        done = run(
            ["sh", "-c", command.replace("--cloud production", f"--endpoint {served.endpoint}")], served, tmp_path
        )
    assert done.returncode == 0, done.stderr
    assert "expected  30 to be sent to" in done.stdout
    assert not served.cloud.posts


def test_the_check() -> None:
    """The check is called with each server that is back, and one that fails it is not well."""
    restart = function("client, server_ids, http_ok", blocks("python")[3])
    urls: list[str] = []

    def fake_check(url: str) -> Callable[[Server], Awaitable[bool]]:
        async def check(server: Server) -> bool:
            urls.append(url.format(address=server.name))
            return True

        return check

    async def main() -> None:
        cloud = cloud_of(2)
        async with client_of(cloud) as client:
            assert str(await restart(client, cloud.ids, fake_check)).startswith("2 verified")

    virtually(main)
    assert sorted(urls) == ["http://web-0001:8080/health", "http://web-0002:8080/health"]


def test_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given twice, the call with a journal restarts each server once, and the journal is where it says."""
    restart = function("client, server_ids", blocks("python")[4])
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        cloud = cloud_of(3)
        async with client_of(cloud) as client:
            for _ in range(2):
                assert str(await restart(client, cloud.ids)).startswith("3 completed")
        assert set(cloud.posts.values()) == {1}

    virtually(main)
    assert (tmp_path / "fleet.journal").exists()


def test_since() -> None:
    """Given twice, the call with `since` restarts each server once."""
    restart = function("client, server_ids, datetime, UTC", blocks("python")[5])

    async def main() -> None:
        cloud = cloud_of(3)
        async with client_of(cloud) as client:
            assert str(await restart(client, cloud.ids, datetime, UTC)).startswith("3 completed")
            assert str(await restart(client, cloud.ids, datetime, UTC)).startswith("3 satisfied")
        assert set(cloud.posts.values()) == {1}

    virtually(main)


def test_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """The stream of a service stops at the first failure, and follows to its end what was sent before."""
    stream = function("client, server_ids", blocks("python")[6])

    async def main() -> None:
        cloud = cloud_of(100)
        slow_down(cloud, 5.0)
        cloud.break_host(cloud.ids[0], HostFault.DEAD)
        async with client_of(cloud, max_at_once=5) as client:
            await stream(client, cloud.ids)
        assert set(cloud.cycles.values()) == {0, 1}

    virtually(main)
    *results, report = capsys.readouterr().out.splitlines()
    assert len(results) == 100
    assert "1 failed" in report
    assert " skipped" in report


@pytest.mark.parametrize("target", ["demo", "test", "test-nova", "bench", "proof"])
def test_the_make_targets(target: str) -> None:
    """What the README tells to make is in the Makefile."""
    assert re.search(rf"^make {target}\b", "\n".join(blocks("sh")), re.MULTILINE)
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", re.findall(r"\]\(([^)#:]+)\)", README))
def test_the_links(name: str) -> None:
    """What the README links to is there."""
    assert (ROOT / name).exists()
