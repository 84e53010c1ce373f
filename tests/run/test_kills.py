"""A process that is killed loses no server and doubles no reboot: real processes, SIGKILL, and the cloud's count."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bulkrestart import RebootType
from bulkrestart.core.checkpoint import Contents
from bulkrestart.simulator import Cloud, Fault, LoopbackCloud
from tests.kills import (
    FAULTS,
    Kill,
    LethalCloud,
    Moment,
    Program,
    end_of,
    in_order,
    restart_killed,
    run_once,
    wait_for,
)

REBOOT_SECONDS = (0.1, 0.3)
#: Seconds in place of the library's own. A look comes to the cloud after all that a dead process has sent it, because
#: one thread serves them; only what `FAULTS` carries out late needs a grace.
GRACE = 1.5 * FAULTS.late_seconds
POLL = 0.2


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("reboot_type", "servers", "kills"),
    [
        # The file is opened, the run is begun, and the third commit is that of the first sends.
        (RebootType.SOFT, 40, [Kill(Moment.COMMITTED, 3), Kill(Moment.ARRIVED, 12)]),
        # A HARD that was never sent is told from one that was by a log that has shown one: some are accepted first.
        (RebootType.HARD, 80, [Kill(Moment.ANSWERED, 50), Kill(Moment.LOOKING, 4)]),
    ],
)
def test_a_fleet_comes_back(reboot_type: RebootType, servers: int, kills: list[Kill]) -> None:
    """Killed twice, and before a cloud that fails, a run cycles each server once, and reports it once, as back."""
    cloud = LethalCloud(servers, reboot_seconds=REBOOT_SECONDS, latency=0.02, faults=FAULTS, legacy_host=True)
    account = restart_killed(cloud, reboot_type, in_order(*kills), grace=GRACE, poll=POLL)
    assert account.broken == []
    assert account.killed == [kill.moment for kill in kills]
    assert account.cycled == {1: servers}
    assert all(account.unresolved)


def test_killed_while_it_settles() -> None:
    """A run that is killed when all were accepted asks for no reboot again, and waits for those that are not back."""
    cloud = LethalCloud(30, reboot_seconds=(0.6, 0.8), legacy_host=True)
    held: list[Contents | None] = []
    kills = in_order(Kill(Moment.PROVING, 1))

    def choose(cloud: Cloud, contents: Contents | None) -> Kill | None:
        held.append(contents)
        return kills(cloud, contents)

    account = restart_killed(cloud, RebootType.SOFT, choose, grace=GRACE, poll=POLL)
    assert account.broken == []
    assert account.killed == [Moment.PROVING]
    assert account.sends == len(cloud.ids)
    _, after = held
    assert after is not None
    assert all(checkpoint.accepted is not None for checkpoint in after.checkpoints.values())
    assert any(checkpoint.end is None for checkpoint in after.checkpoints.values())


@pytest.mark.unmeasured
@pytest.mark.parametrize("reboot_type", RebootType)
@pytest.mark.parametrize("kill", [Kill(Moment.COMMITTED, 3), Kill(Moment.COMMITTING, 4), Kill(Moment.ANSWERED, 12)])
def test_only_the_file_is_taken_along(tmp_path: Path, reboot_type: RebootType, kill: Kill) -> None:
    """The journal's file, copied alone to another folder after each kill, is all that the next process needs."""
    cloud = LethalCloud(60, reboot_seconds=REBOOT_SECONDS, latency=0.02, legacy_host=True)
    with LoopbackCloud(cloud) as served:
        program = Program(
            endpoint=served.endpoint,
            token=cloud.token,
            ids=cloud.ids,
            reboot_type=reboot_type,
            folder=tmp_path,
            grace=GRACE,
            poll=POLL,
        )
        for number in range(2):
            assert run_once(cloud, program, kill).is_killed
            assert program.contents() is not None
            folder = tmp_path / str(number)
            folder.mkdir()
            shutil.copy(program.journal, folder)
            program = replace(program, folder=folder)
        # What left right before a commit that was the last may not have arrived.
        assert cloud.posts or kill.moment is not Moment.ANSWERED
        end = run_once(cloud, program)
    assert end.code == 0, end.err
    assert [(server_id, outcome) for server_id, outcome, *_ in end.results] == [(id_, "completed") for id_ in cloud.ids]
    assert cloud.cycles == dict.fromkeys(cloud.ids, 1)


def test_a_journal_that_was_damaged(tmp_path: Path) -> None:
    """After a kill, a journal that was cut or damaged is refused in one line, and nothing is asked."""
    cloud = LethalCloud(40, reboot_seconds=REBOOT_SECONDS, latency=0.02)
    with LoopbackCloud(cloud) as served:
        program = Program(
            endpoint=served.endpoint, token=cloud.token, ids=cloud.ids, reboot_type=RebootType.SOFT, folder=tmp_path
        )
        assert run_once(cloud, program, Kill(Moment.ARRIVED, 30)).is_killed
    # The cloud has stopped, and with it the requests of the dead process that were still arriving.
    before, data = len(cloud.requests), program.journal.read_bytes()
    with LoopbackCloud(cloud) as served:
        program = replace(program, endpoint=served.endpoint)
        place = data.index(b"server ", len(data) // 2)
        for damaged in (b"", data[:place], data[:place] + b"S" + data[place + 1 :]):
            program.journal.write_bytes(damaged)
            end = run_once(cloud, program)
            assert end.code == 2
            assert "give another file, and --since with the time at which its run began" in end.err
            assert end.err.count("\n") == 1
        assert len(cloud.requests) == before


def test_two_at_once(tmp_path: Path) -> None:
    """A journal that a process holds is refused to another, which asks nothing; a dead process holds none."""
    cloud = LethalCloud(4, reboot_seconds=REBOOT_SECONDS)
    for server_id in cloud.ids:
        cloud.script(server_id, Fault.slow(60.0))
    with LoopbackCloud(cloud) as served:
        program = Program(
            endpoint=served.endpoint, token=cloud.token, ids=cloud.ids, reboot_type=RebootType.SOFT, folder=tmp_path
        )
        with program.started() as holder:
            wait_for(lambda: cloud.posts.total() == 4, holder)
            before = len(cloud.requests)
            other = run_once(cloud, program)
            assert len(cloud.requests) == before
            assert other.code == 2
            assert other.err == (
                f"the journal {program.journal} is held by process {holder.pid}: wait for it, or end it\n"
            )
            holder.kill()
            assert end_of(holder).is_killed
        end = run_once(cloud, program)
    assert [(server_id, outcome) for server_id, outcome, *_ in end.results] == [(id_, "completed") for id_ in cloud.ids]
    assert cloud.cycles == cloud.posts == dict.fromkeys(cloud.ids, 1)
