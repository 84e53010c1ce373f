"""The README's code runs as it stands there, against a cloud on loopback."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bulkrestart import RestartClient, Token
from bulkrestart.simulator import Cloud, Fault, LoopbackCloud

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


def test_the_first_example(tmp_path: Path) -> None:
    """The program of the first lines restarts a fleet, and names what went wrong."""
    cloud = Cloud(5, reboot_seconds=(0.0, 0.1))
    locked = cloud.ids[2]
    cloud.change(locked, locked=True)
    assert README.index(blocks("python")[0]) < README.index("\n".join(README.split("\n")[40:]))
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


def test_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """The stream of a service stops at the first failure, as its comment says."""
    cloud = Cloud(30, reboot_seconds=(0.0, 0.1))
    for server_id in cloud.ids:
        cloud.script(server_id, Fault.slow(0.05))
    body = blocks("python")[1].replace("\n", "\n    ")
    source = f"async def main(client, server_ids):\n    {body}"
    names: dict[str, object] = {}
    exec(compile(source, "README.md", "exec"), names)  # noqa: S102 - the README's own code

    async def main() -> None:
        async with LoopbackCloud(cloud) as served, RestartClient(served.endpoint, auth=Token(cloud.token)) as client:
            await names["main"](client, cloud.ids)  # type: ignore[operator]

    asyncio.run(main())
    assert capsys.readouterr().out.endswith(" s\n")
    assert set(cloud.cycles.values()) == {1}


@pytest.mark.parametrize("target", ["demo", "test", "test-nova"])
def test_the_make_targets(target: str) -> None:
    """What the README tells to make is in the Makefile."""
    assert re.search(rf"^make {target}\b", "\n".join(blocks("sh")), re.MULTILINE)
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", re.findall(r"\]\(([^)#:]+)\)", README))
def test_the_links(name: str) -> None:
    """What the README links to is there."""
    assert (ROOT / name).exists()
