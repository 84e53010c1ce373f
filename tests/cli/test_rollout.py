"""How the command line spreads a restart, what it shows before, and what it refuses."""

import json
from pathlib import Path

import pytest

from bulkrestart import Rollout
from bulkrestart.cli import ask
from bulkrestart.cli.spreading import read_spreading
from bulkrestart.simulator import Cloud, HostFault

from .conftest import Cli, Serve

NOTHING = {
    "canary": None,
    "wave": None,
    "pause": 0.0,
    "max_down": None,
    "max_failures": None,
    "max_refused": None,
    "spread": None,
    "wait": True,
}
SMALL, LARGE = ask.ASKS_OVER, ask.ASKS_OVER + 1


@pytest.mark.parametrize(
    ("given", "servers", "rollout"),
    [
        ({}, SMALL, Rollout()),
        ({}, LARGE, Rollout(canary=1, max_down=50)),
        ({"wait": False}, LARGE, Rollout()),
        ({"canary": 0}, LARGE, Rollout(max_down=50)),
        ({"canary": 5, "max_down": "100%"}, LARGE, Rollout(canary=5, max_down="100%")),
        ({"max_down": "BUDGET", "max_failures": "0"}, SMALL, Rollout(max_down="budget", max_failures=0)),
        ({"wave": "3", "pause": 5.0}, SMALL, Rollout(wave=3, pause=5.0)),
        ({"max_refused": "2%", "spread": "AZ"}, SMALL, Rollout(max_refused="2%", spread="az")),
        ({"spread": "host"}, LARGE, Rollout(canary=1, max_down=50, spread="host")),
    ],
)
def test_what_options_mean(given: dict[str, object], servers: int, rollout: Rollout) -> None:
    """A large run has a canary and a bound on what is down unless told otherwise; shares are as in the library."""
    assert read_spreading(**{**NOTHING, **given}).over(servers) == rollout  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--canary", "-1"], "--canary must be a whole number from 0 up, not -1"),
        (["--wave", "0"], '--wave must be a whole number from 1 up, or a percentage such as "10%", not 0'),
        (["--wave", "ten"], "--wave must be a whole number from 1 up, or a percentage such as \"10%\", not 'ten'"),
        (["--wave", "9" * 400], "--wave must be"),
        (["--max-down", "0%"], "--max-down must be"),
        (["--max-failures", "-1"], "--max-failures must be"),
        (["--max-refused", "101%"], "--max-refused must be"),
        (["--pause", "-1"], "--pause must be a number of seconds from 0 up, not -1.0"),
        (["--canary", "1", "--pause", "nan"], "--pause must be"),
        (["--spread", "rack"], "--spread must be az or host, not 'rack'"),
        (["--no-wait", "--wave", "5"], "go by servers that are back: leave out --no-wait"),
        (["--no-wait", "--canary", "1"], "go by servers that are back: leave out --no-wait"),
        (["--pause", "5"], "--pause is between waves, and there is one: give canary, wave or spread"),
    ],
)
def test_what_makes_no_sense(cli: Cli, serve: Serve, options: list[str], words: str) -> None:
    """It is one line that names the option, exit 2, and nothing is sent."""
    served = serve(Cloud(1))
    end = cli("restart", "--endpoint", served.endpoint, *options, *served.cloud.ids)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
    assert words in end.err
    assert not served.cloud.posts


def mixed_cloud() -> Cloud:
    """Make a cloud of which one server each is locked, stopped and busy."""
    cloud = Cloud(12, reboot_seconds=(0.0, 0.0))
    cloud.change(cloud.ids[1], locked=True)
    cloud.change(cloud.ids[2], vm_state="stopped")
    cloud.occupy(cloud.ids[3], "image_snapshot", 1000.0)
    return cloud


STRANGER = "616fb98f-46ca-475e-917e-2563e5a8cd19"


def test_dry_run(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """Each server has a line with its wave and what is to be expected; no reboot is sent, no journal is made."""
    served = serve(mixed_cloud())
    cloud = served.cloud
    journal = tmp_path / "journal"
    command = ["restart", "--endpoint", served.endpoint, "--journal", str(journal), "--dry-run", "--spread", "host"]
    end = cli(*command, *cloud.ids, STRANGER)
    rows = end.out.splitlines()
    assert (end.code, end.err) == (0, "")
    assert len(rows) == 13 + 7
    expected = ["SOFT", "locked", "wrong_state", "busy", *["SOFT"] * 8, "not_found"]
    assert [row.split()[:4] for row in rows[:13]] == [
        [server_id, word, "wave", "1," if number == 0 else "2" if server_id == STRANGER else "2,"]
        for number, (server_id, word) in enumerate(zip([*cloud.ids, STRANGER], expected, strict=True))
    ]
    assert "web-0002  vm_state active, task_state None, locked" in rows[1]
    assert rows[13] == f"project   {cloud.project_id}"
    assert rows[14] == f"endpoint  {served.endpoint}"
    assert rows[15] == "expected  9 to be sent to, 1 locked, 1 wrong state, 1 not found, 1 busy"
    assert rows[16] == "waves     2 of 1, 12 servers, at most 50 down at once"
    assert rows[17] == "stops     if more than 5 fail, or more than 20 are refused (3 expected)"
    assert rows[19] == "nothing was sent"
    few = cli(*command, "--max-refused", "2", *cloud.ids, STRANGER)
    assert few.out.splitlines()[17].endswith(", or more than 2 are refused (3 expected): it will")
    assert not cloud.posts
    assert not journal.exists()


@pytest.mark.parametrize("output", ["json", "jsonl"])
def test_dry_run_for_programs(cli: Cli, serve: Serve, output: str) -> None:
    """The plan is one object, or one for each server, and the summary goes to standard error."""
    served = serve(mixed_cloud())
    end = cli("restart", "--endpoint", served.endpoint, "--dry-run", "--output", output, *served.cloud.ids)
    assert end.code == 0
    assert end.err.endswith("nothing was sent\n")
    if output == "json":
        plan = json.loads(end.out)
        assert plan["expected"] == {"sent": 9, "locked": 1, "wrong_state": 1, "busy": 1}
        assert plan["waves"] == [1, 11]
        rows = plan["servers"]
    else:
        rows = [json.loads(line) for line in end.out.splitlines()]
    assert [row["server_id"] for row in rows] == served.cloud.ids
    assert [row["reason"] for row in rows[:5]] == [None, "locked", "wrong_state", "busy", None]


def test_dry_run_of_what_is_left(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """With a journal it is about the servers that are left, and reads it without holding it."""
    served = serve(Cloud(3, reboot_seconds=(0.0, 0.0)))
    served.cloud.break_host(served.cloud.ids[1], HostFault.DEAD)
    command = ["restart", "--endpoint", served.endpoint, "--journal", str(tmp_path / "journal")]
    budget = ["--max-failures", "0", "--canary", "2"]
    assert cli(*command, *budget, *served.cloud.ids).code == 4
    end = cli(*command, "--dry-run", *served.cloud.ids)
    assert end.code == 0
    assert [line.split()[0] for line in end.out.splitlines()[:-7]] == [served.cloud.ids[2]]
    end = cli(*command, "--dry-run", *budget[:2], *served.cloud.ids)
    assert end.out.splitlines()[-3] == "stops     if more than 0 fail (1 already), or more than 20 are refused: it will"


def test_dry_run_of_nothing(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """Where the journal leaves nothing to do, the plan says so, and where."""
    served = serve(Cloud(1))
    command = ["restart", "--endpoint", served.endpoint, "--no-wait", "--journal", str(tmp_path / "journal")]
    assert cli(*command, *served.cloud.ids).code == 0
    end = cli(*command, "--dry-run")
    target = f"project   {served.cloud.project_id}\nendpoint  {served.endpoint}\n"
    assert (end.code, end.out, end.err) == (0, f"{target}nothing is left to do\nnothing was sent\n", "")


def test_dry_run_that_is_refused(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan needs the cloud: what refuses a run refuses its plan."""
    served = serve(Cloud(1))
    monkeypatch.setenv("OS_TOKEN", "other")
    monkeypatch.setattr("bulkrestart.core.decide.REFUSED_TOKEN_DELAY", 0.01)
    end = cli("restart", "--endpoint", served.endpoint, "--dry-run", *served.cloud.ids)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
    assert "does not let us in" in end.err


@pytest.mark.parametrize(
    ("options", "reason"), [(["--max-failures", "0"], "max failures"), (["--max-down", "1"], "max down")]
)
def test_exit_code_of_a_run_that_stops_itself(cli: Cli, serve: Serve, options: list[str], reason: str) -> None:
    """It is 4, and the last line says why."""
    served = serve(Cloud(4, reboot_seconds=(0.0, 0.0)))
    served.cloud.break_host(served.cloud.ids[0], HostFault.DEAD)
    end = cli("restart", "--endpoint", served.endpoint, "--canary", "1", *options, *served.cloud.ids)
    assert end.code == 4
    assert end.out.splitlines()[-1].startswith(f"stopped ({reason}): 1 server ")
    assert served.cloud.posts.total() == 1
