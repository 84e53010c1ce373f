"""The command line against a real Nova: exit codes, and what goes to which stream."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from .bed import Nova


@pytest.fixture
def ids_file(tmp_path: Path) -> Path:
    """Give the path of a file for ids."""
    return tmp_path / "ids.txt"


def restart(ids_file: Path, ids: Sequence[str], *, endpoint: str, token: str) -> subprocess.CompletedProcess[str]:
    """Run `bulkrestart restart` over a file of ids, without a terminal."""
    ids_file.write_text("".join(f"{line}\n" for line in ("# a fleet", "", *ids)))
    command = [sys.executable, "-m", "bulkrestart", "restart", "--ids-from", str(ids_file)]
    command += ["--endpoint", endpoint, "--yes", "--output", "json"]
    return subprocess.run(
        command,
        env={**os.environ, "OS_TOKEN": token},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_fleet_comes_back(nova: Nova, ids_file: Path) -> None:
    """All well is exit 0, with every server in the report in the order of the file."""
    ids = nova.take(3)
    end = restart(ids_file, ids, endpoint=nova.endpoint, token=nova.token)
    assert end.returncode == 0, end.stderr
    report = json.loads(end.stdout)
    assert report["summary"] == {"completed": 3}
    assert [(one["server_id"], one["outcome"]) for one in report["results"]] == [(one, "completed") for one in ids]
    for one in report["results"]:
        assert [reboot.request_id for reboot in nova.reboots(one["server_id"])] == [one["request_id"]]


def test_an_unknown_id_is_exit_1(nova: Nova, ids_file: Path) -> None:
    """A refused server is exit 1, and the others come back all the same."""
    ids = [str(uuid.uuid4()), *nova.take(1)]
    end = restart(ids_file, ids, endpoint=nova.endpoint, token=nova.token)
    assert end.returncode == 1, end.stderr
    results = json.loads(end.stdout)["results"]
    assert [(one["server_id"], one["outcome"], one["reason"]) for one in results] == [
        (ids[0], "refused", "not_found"),
        (ids[1], "completed", None),
    ]


def test_a_wrong_token_is_exit_2(nova: Nova, ids_file: Path) -> None:
    """A token that Keystone does not know is one line on standard error, which does not show it; nothing is sent."""
    ids = nova.take(1)
    end = restart(ids_file, ids, endpoint=nova.endpoint, token="made-up-token")
    assert (end.returncode, end.stdout, len(end.stderr.splitlines())) == (2, "", 1), end.stderr
    assert "made-up-token" not in end.stderr
    assert nova.posts(ids[0]) == 0


def test_another_project_is_exit_2(nova: Nova, ids_file: Path) -> None:
    """An endpoint of another project than the token's is one line on standard error; nothing is sent."""
    ids = nova.take(1)
    end = restart(ids_file, ids, endpoint=nova.other_endpoint, token=nova.token)
    assert (end.returncode, end.stdout, len(end.stderr.splitlines())) == (2, "", 1), end.stderr
    assert nova.posts(ids[0], nova.other_endpoint) == 0
