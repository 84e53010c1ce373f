"""A restart from the command line writes down what it sends, says where, and goes on from there."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bulkrestart.cli import ask
from bulkrestart.cli.app import run
from bulkrestart.journal import read_journal
from bulkrestart.simulator import Cloud, Fault, HostFault

from .conftest import Cli, Serve


def named_in(err: str) -> Path:
    """Find the journal that standard error names."""
    [line] = [line for line in err.splitlines() if line.startswith("bulkrestart: the journal is ")]
    return Path(line.removeprefix("bulkrestart: the journal is "))


def slow_last(cloud: Cloud) -> Cloud:
    """Answer the last server two seconds late."""
    cloud.script(cloud.ids[-1], Fault.slow(2.0))
    return cloud


def test_one_is_kept_where_nobody_says_where(serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is in the user's state directory, for the user only, each run has its own, and nothing else is left there."""
    served = serve(Cloud(3))
    paths = []
    for _ in range(2):
        assert run(["restart", "--endpoint", served.endpoint, "--no-wait", *served.cloud.ids[:2]]) == 0
        paths.append(named_in(capfd.readouterr().err))
    folder = tmp_path / "state" / "bulkrestart"
    assert sorted(folder.iterdir()) == sorted({paths[0], paths[1]})
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    contents, holder = read_journal(paths[0])
    assert (list(contents.ids), holder) == (served.cloud.ids[:2], None)


@pytest.mark.parametrize("stated", ["", "relative/state"])
def test_the_state_directory_by_default(
    serve: Serve, stated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without an absolute XDG_STATE_HOME it is ~/.local/state."""
    monkeypatch.setenv("XDG_STATE_HOME", stated)
    monkeypatch.setenv("HOME", str(tmp_path))
    served = serve(Cloud(1))
    assert run(["restart", "--endpoint", served.endpoint, "--no-wait", *served.cloud.ids]) == 0
    assert named_in(capfd.readouterr().err).parent == tmp_path / ".local" / "state" / "bulkrestart"


def test_no_place_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where there is no place for one, nothing is sent, and one line says how to go on."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert run(["restart", "--endpoint", "http://127.0.0.1:9/v2.1/p", "ID"]) == 2
    assert capfd.readouterr().err == (
        "bulkrestart: there is no place for a journal of this run: Not a directory; give --journal FILE, or "
        "--no-journal\n"
    )


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_home_that_is_none(home: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A home that is no absolute path would be another one in each directory."""
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", home)
    assert run(["restart", "--endpoint", "http://127.0.0.1:9/v2.1/p", "ID"]) == 2
    assert "HOME is no absolute path; give --journal FILE, or --no-journal" in capfd.readouterr().err


def test_printing_what_was_not_waited_for(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """Whether accepted was enough only the user knows, so those are counted apart."""
    served = serve(Cloud(2))
    path = str(tmp_path / "journal")
    cli("restart", "--endpoint", served.endpoint, "--no-wait", "--journal", path, *served.cloud.ids)
    *_, nothing, rest = cli("journal", path).out.splitlines()
    assert nothing == "nothing is left to do"
    assert rest == "2 accepted ones were not waited for to the end: the same command does, without --no-wait"


def test_no_home(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A user without a home is told the same."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", home)
    assert run(["restart", "--endpoint", "http://127.0.0.1:9/v2.1/p", "ID"]) == 2
    assert "Could not determine home directory.; give --journal FILE, or --no-journal" in capfd.readouterr().err


def test_a_run_that_never_began_leaves_none(serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where the cloud is not to be had, no journal is made, and none is named."""
    served = serve(Cloud(1))
    wrong = served.endpoint.replace(served.cloud.project_id, "0" * 32)
    assert run(["restart", "--endpoint", wrong, *served.cloud.ids]) == 2
    assert list((tmp_path / "state" / "bulkrestart").iterdir()) == []
    assert "the journal is" not in capfd.readouterr().err


def test_the_same_command_goes_on(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """What one command left another one finishes, with or without the ids; a third finds nothing left to do."""
    served = serve(Cloud(5, reboot_seconds=(0.0, 0.0)))
    locked = served.cloud.ids[-1]
    served.cloud.change(locked, locked=True)
    path = str(tmp_path / "it's a journal")
    command = ("restart", "--endpoint", served.endpoint, "--type", "hard", "--journal", path)
    first = cli(*command, "--no-wait", *served.cloud.ids)
    assert first.code == 1
    assert f"1 of 5 servers are left: the same command with --journal '{tmp_path}/it'\"'\"'s a journal' goes on" in (
        first.err
    )

    served.cloud.change(locked, locked=False)
    second = cli(*command)
    assert (second.code, second.err) == (0, f"bulkrestart: the journal is {path}\n")
    assert [line.split()[1] for line in second.out.splitlines()[:5]] == ["completed"] * 5

    third = cli(*command, *served.cloud.ids)
    assert third.code == 0
    assert "finished at " in third.err
    assert "nothing is left to do, nothing was sent" in third.err
    assert set(served.cloud.posts.values()) == {1}


def test_selectors_are_not_evaluated_again(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """The fleet of a journal stands, whoever would be selected now; that is said."""
    served = serve(Cloud(3))
    path = str(tmp_path / "journal")
    command = ("restart", "--endpoint", served.endpoint, "--no-wait", "--journal", path, "--name", "web")
    assert cli(*command).code == 0
    served.cloud.change(served.cloud.ids[0], name="other")
    again = cli(*command)
    assert len(again.out.splitlines()) == 4
    assert "the fleet is that of the journal, 3 servers: none are selected again" in again.err


def test_a_run_whose_budget_is_spent(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """Its budget counts over the whole run, so with the same one it stops again: what is said to go on goes on."""
    served = serve(Cloud(3, reboot_seconds=(0.0, 0.0)))
    served.cloud.break_host(served.cloud.ids[0], HostFault.DEAD)
    path = str(tmp_path / "journal")
    command = ("restart", "--endpoint", served.endpoint, "--journal", path, "--canary", "1", *served.cloud.ids)
    for _ in range(2):
        end = cli(*command, "--max-failures", "0")
        assert end.code == 4
        words = f"2 of 3 servers are left: the same command with a larger --max-failures and --journal {path} goes on\n"
        assert end.err.endswith(words)
    assert cli(*command, "--max-failures", "1").code == 1
    assert [served.cloud.posts[server_id] for server_id in served.cloud.ids] == [1, 1, 1]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--type", "hard"), "is of a run of type SOFT, not HARD: give another journal"),
        (("--since", "2026-01-01T00:00Z"), "with since none, not 2026-01-01T00:00:00+00:00"),
        (("another",), "over 2 servers, not over these 1; number 1 is "),
    ],
)
def test_another_run_is_refused(
    cli: Cli, serve: Serve, tmp_path: Path, options: tuple[str, ...], words: str, more: tuple[str, ...]
) -> None:
    """A journal is of one run: another one, or its plan, is refused, with the reason, and nothing is sent."""
    served = serve(Cloud(2))
    path = str(tmp_path / "journal")
    command = ("restart", "--endpoint", served.endpoint, "--no-wait", "--journal", path)
    assert cli(*command, *served.cloud.ids).code == 0
    end = cli(*command, *options, *more)
    assert (end.code, end.out) == (2, "")
    assert words in end.err
    assert set(served.cloud.posts.values()) == {1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--journal", ""), "--journal is empty: give the name of a file, or --no-journal"),
        (("--journal=",), "--journal is empty"),
        (("--journal", "", "--no-journal"), "--journal is empty"),
        (("--journal", "x", "--no-journal"), "give --journal FILE or --no-journal, one of them"),
        (("--since", "yesterday"), "--since must be a moment such as 2026-11-23T02:00Z, not 'yesterday'"),
        (("--since", "2026-01-01"), "--since must have a zone: "),
        (("--since", "2999-01-01T00:00Z"), "--since must be a moment of the past, not 2999"),
    ],
)
def test_bad_options(cli: Cli, options: tuple[str, ...], words: str) -> None:
    """What cannot be meant is refused before anything is asked."""
    end = cli("restart", "--endpoint", "http://127.0.0.1:9/v2.1/p", *options, "ID")
    assert (end.code, end.out) == (2, "")
    assert end.err.startswith(f"bulkrestart: {words}")


def test_not_a_journal(cli: Cli, tmp_path: Path) -> None:
    """A file of another kind is refused in one line, by both commands."""
    path = tmp_path / "file"
    path.write_text("something else")
    for command in (
        ("restart", "--endpoint", "http://127.0.0.1:9/v2.1/p", "--journal", str(path)),
        ("journal", str(path)),
    ):
        end = cli(*command)
        assert (end.code, end.out) == (2, "")
        assert end.err.startswith(f"bulkrestart: the journal {path} cannot be used: it is not a journal of bulkrestart")


def test_since(cli: Cli, serve: Serve) -> None:
    """Who has rebooted since is satisfied; asking twice is asking once."""
    served = serve(Cloud(2, reboot_seconds=(0.0, 0.0)))
    since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    command = ("restart", "--endpoint", served.endpoint, "--since", since, *served.cloud.ids)
    assert [line.split()[1] for line in cli(*command).out.splitlines()[:2]] == ["completed", "completed"]
    assert [line.split()[1] for line in cli(*command).out.splitlines()[:2]] == ["satisfied", "satisfied"]
    assert set(served.cloud.posts.values()) == {1}


def test_the_question_counts_what_is_left(
    cli: Cli, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question is about the servers that are left, and names the journal and `since`."""
    asked: list[str] = []
    monkeypatch.setattr("bulkrestart.cli.app.confirm", asked.append)
    monkeypatch.setattr("bulkrestart.cli.ask.TERMINAL", os.devnull)
    served = serve(Cloud(ask.ASKS_OVER + 2, reboot_seconds=(0.0, 0.0)))
    for server_id in served.cloud.ids[1:]:
        served.cloud.change(server_id, locked=True)
    path = tmp_path / "journal"
    command = ("restart", "--endpoint", served.endpoint, "--type", "hard", "--journal", str(path))
    since = ("--since", "2026-01-01T00:00Z")
    assert cli(*command, *since, *served.cloud.ids).code == 1
    cli(*command, *since)
    first, second = asked
    assert first.startswith("HARD restart of 12 servers, ")
    assert second.startswith("HARD restart of 11 servers, ")
    assert f"  journal   {path}" in second
    assert "  but not   those that have rebooted since 2026-01-01T00:00Z" in second


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_printing_one(cli: Cli, serve: Serve, tmp_path: Path, output: str) -> None:
    """What is known of each server is printed, what was asked, and whether something is left."""
    served = serve(Cloud(2, reboot_seconds=(0.0, 0.0)))
    path = str(tmp_path / "journal")
    cli("restart", "--endpoint", served.endpoint, "--journal", path, *served.cloud.ids)
    end = cli("journal", path, "--output", output)
    words = end.out if output == "table" else end.err
    assert end.code == 0
    assert words.startswith(f"SOFT restart of 2 servers at {served.endpoint}, begun 2")
    assert "\n2 completed in " in f"\n{words}"
    assert words.endswith("\nnothing is left to do\n")
    if output == "json":
        assert [one["outcome"] for one in json.loads(end.out)["results"]] == ["completed"] * 2
    if output == "jsonl":
        assert [json.loads(line)["outcome"] for line in end.out.splitlines()] == ["completed"] * 2


def test_no_such_journal(cli: Cli, tmp_path: Path) -> None:
    """A path that leads nowhere, and a file that is empty, are one line each."""
    end = cli("journal", str(tmp_path / "nowhere"))
    assert (end.code, end.err) == (2, f"bulkrestart: there is no journal {tmp_path}/nowhere\n")
    (tmp_path / "empty").write_bytes(b"")
    end = cli("journal", str(tmp_path / "empty"))
    words = (
        f"the journal {tmp_path}/empty is an empty file: if it was the journal of a run, give another file, and --since"
    )
    assert (end.code, end.out) == (2, "")
    assert end.err.startswith(f"bulkrestart: {words}")


def test_a_journal_that_others_may_write(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """A journal that other users may have written is printed with a warning; a restart refuses it, and asks nothing."""
    served = serve(Cloud(2, reboot_seconds=(0.0, 0.0)))
    path = tmp_path / "journal"
    command = ("restart", "--endpoint", served.endpoint, "--no-wait", "--journal", str(path), *served.cloud.ids)
    assert cli(*command).code == 0
    path.chmod(0o666)
    doubt = f"other users may write to the journal {path} (its mode is 0666): give another file and --since"
    shown = cli("journal", str(path))
    assert shown.code == 0
    assert "2 accepted" in shown.out
    assert shown.err.startswith(
        f"bulkrestart: another user may have changed this journal, and a restart refuses it: {doubt}"
    )
    before = len(served.cloud.requests)
    for refused in (cli(*command), cli(*command, "--dry-run")):
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith(f"bulkrestart: {doubt}")
    assert len(served.cloud.requests) == before


def test_an_interrupted_run(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """While a run is at it the journal can be read, and nobody else can go on; after a signal the same command does."""
    served = serve(slow_last(Cloud(3, reboot_seconds=(0.0, 0.0))))
    path = str(tmp_path / "journal")
    command = ["restart", "--endpoint", served.endpoint, "--journal", path, "--max-at-once", "1", *served.cloud.ids]
    with subprocess.Popen(
        [sys.executable, "-m", "bulkrestart", *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert named_in(process.stderr.readline().rstrip()) == Path(path)
        shown = cli("journal", path)
        assert f", held by process {process.pid}\n" in shown.out
        refused = cli(*command)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            f"bulkrestart: the journal {path} is held by process {process.pid}: wait for it, or end it\n"
        )
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "servers are left: the same command with --journal" in err
    assert cli(*command).code == 0
    assert set(served.cloud.cycles.values()) == {1}
