"""However a run with a journal ends, and at its deadline: nothing is forgotten, and everything is released."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import trio

from bulkrestart import EndpointError, Outcome, Reason, Report, RestartClient, Run, StopReason
from bulkrestart.journal import Journal, read_journal
from bulkrestart.journal.codec import EncodedCheckpoints
from bulkrestart.simulator import Call, Cloud, Fault
from tests.run.test_ends import slow_cloud, until
from tests.virtual import assert_accounted, client_of, cloud_of, slow_down, virtually

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def in_seconds(seconds: float) -> datetime:
    """Give a moment that is yet to come; it is told by the clock on the wall, and kept by the run's."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def assert_resumable(journal: Path, run: Run, cloud: Cloud) -> None:
    """Hold that nobody holds the journal, and that it tells of every send what the run knew of it."""
    contents, holder = read_journal(journal)
    assert holder is None
    Journal.open(journal).close()
    report = contents.report(is_over=True)
    assert [(result.server_id, result.outcome) for result in report] == [
        (result.server_id, result.outcome) for result in run.report
    ]
    assert {server_id for server_id, checkpoint in contents.checkpoints.items() if checkpoint.has_reached} == set(
        cloud.posts
    )
    assert [checkpoint for checkpoint in contents.checkpoints.values() if checkpoint.sent_at is not None] == []


# An end, on both backends, where a thread writes the journal.

Ending = Callable[[RestartClient, Cloud, Path, list[Run]], Awaitable[None]]


class MineError(Exception):
    """An error of whoever calls."""


async def leave(client: RestartClient, cloud: Cloud, journal: Path, runs: list[Run]) -> None:
    """Leave the block early."""
    async with client.restarting(cloud.ids, journal=journal) as run:
        runs.append(run)
        await until(lambda: cloud.in_flight == 4)


async def fail(client: RestartClient, cloud: Cloud, journal: Path, runs: list[Run]) -> None:
    """Raise in the block."""
    with suppress(MineError):
        async with client.restarting(cloud.ids, journal=journal) as run:
            runs.append(run)
            await until(lambda: cloud.in_flight == 4)
            raise MineError


async def limit(client: RestartClient, cloud: Cloud, journal: Path, runs: list[Run]) -> None:
    """Let a time limit from outside run out; an event stands for its moment."""
    with anyio.CancelScope() as scope:
        async with client.restarting(cloud.ids, journal=journal) as run:
            runs.append(run)
            await until(lambda: cloud.in_flight == 4)
            scope.cancel()
            async for _ in run:
                pass
    assert scope.cancelled_caught


async def stop(client: RestartClient, cloud: Cloud, journal: Path, runs: list[Run]) -> None:
    """Stop the run."""
    async with client.restarting(cloud.ids, journal=journal, wait=False) as run:
        runs.append(run)
        await until(lambda: cloud.in_flight == 4)
        run.stop()
        async for _ in run:
            pass


@BACKENDS
@pytest.mark.parametrize("end", [leave, fail, limit, stop], ids=lambda end: str(end.__name__))
def test_an_end_in_real_time(tmp_path: Path, backend: str, end: Ending) -> None:
    """What is in flight is awaited and written, the journal is let go, and the same client goes on with it."""

    async def main() -> None:
        journal = tmp_path / "journal"
        runs: list[Run] = []
        async with slow_cloud() as (cloud, client):
            await end(client, cloud, journal, runs)
            assert runs[0].report.summary == {Outcome.ACCEPTED: 4, Outcome.SKIPPED: 8}
            assert_accounted(runs[0].report, cloud)
            assert cloud.in_flight == 0
            assert_resumable(journal, runs[0], cloud)
            report = await client.restart(cloud.ids, journal=journal, wait=False)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.ACCEPTED: 12}
        assert set(cloud.posts.values()) == {1}

    anyio.run(main, backend=backend)


def test_native_cancellation(tmp_path: Path) -> None:
    """`Task.cancel` of asyncio ends a run with a journal like any other, and no task is left behind."""

    async def main() -> None:
        journal = tmp_path / "journal"
        runs: list[Run] = []
        async with slow_cloud() as (cloud, client):

            async def drive() -> None:
                async with client.restarting(cloud.ids, journal=journal) as run:
                    runs.append(run)
                    async for _ in run:
                        pass

            tasks = asyncio.all_tasks()
            task = asyncio.create_task(drive())
            await until(lambda: cloud.in_flight == 4)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() == tasks
            assert runs[0].report.summary == {Outcome.ACCEPTED: 4, Outcome.SKIPPED: 8}
            assert_resumable(journal, runs[0], cloud)
            report = await client.restart(cloud.ids, journal=journal, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 12}
        assert set(cloud.posts.values()) == {1}

    asyncio.run(main())


def test_a_second_native_cancellation(tmp_path: Path) -> None:
    """A second `Task.cancel` cuts off what is in flight: that is in doubt in the journal, and looked for next."""

    async def main() -> None:
        journal = tmp_path / "journal"
        cloud = Cloud(4, reboot_seconds=(0.0, 0.0))
        slow_down(cloud, 60.0)
        async with client_of(cloud) as client:
            runs: list[Run] = []

            async def drive() -> None:
                async with client.restarting(cloud.ids, journal=journal) as run:
                    runs.append(run)
                    await anyio.sleep_forever()

            task = asyncio.create_task(drive())
            await until(lambda: cloud.in_flight == 4)
            task.cancel()
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            task.cancel()
            with anyio.fail_after(5.0), pytest.raises(asyncio.CancelledError):
                await task
            assert runs[0].report.summary == {Outcome.IN_DOUBT: 4}
            assert_resumable(journal, runs[0], cloud)
            # Each row is in the log, so nothing has to be waited for, and nothing is sent.
            report = await client.restart(cloud.ids, journal=journal, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 4}
        assert set(cloud.posts.values()) == {1}

    asyncio.run(main())


@BACKENDS
@pytest.mark.parametrize("commit", [1, 2])
def test_cancelled_while_the_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, commit: int
) -> None:
    """A cancellation in the midst of a commit waits for the disk; an intent that was never sent is none afterwards."""
    journal = tmp_path / "journal"
    started, go_on, write = threading.Event(), threading.Event(), Journal.write
    commits = [0]

    def slow(held: Journal, rows: EncodedCheckpoints, now: float) -> None:
        commits[0] += 1
        if commits[0] == commit:
            started.set()
            assert go_on.wait(10.0)
        write(held, rows, now)

    monkeypatch.setattr(Journal, "write", slow)

    async def main() -> None:
        cloud = Cloud(8, reboot_seconds=(0.0, 0.0))
        async with client_of(cloud, max_at_once=2) as client:
            with anyio.CancelScope() as scope:
                async with client.restarting(cloud.ids, journal=journal) as run:
                    await until(started.is_set)
                    scope.cancel()
                    # By another thread: this task does not run again before the disk is done.
                    threading.Timer(0.05, go_on.set).start()
            assert_accounted(run.report, cloud)
            assert cloud.posts.total() < 8
            assert_resumable(journal, run, cloud)
            report = await client.restart(cloud.ids, journal=journal, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 8}
        assert set(cloud.posts.values()) == {1}

    anyio.run(main, backend=backend)


@BACKENDS
def test_connections_are_let_go(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each journal that was opened is closed, whether its run ended well, was refused, or was left."""
    opened: list[Journal] = []
    really = Journal.open

    def remember(path: Path) -> Journal:
        journal = really(path)
        opened.append(journal)
        return journal

    monkeypatch.setattr(Journal, "open", remember)

    async def main() -> None:
        cloud = Cloud(2, reboot_seconds=(0.0, 0.0))
        async with client_of(cloud) as client:
            await client.restart(cloud.ids, journal=tmp_path / "good", wait=False)
            with pytest.raises(ValueError, match=r"^ids must"):
                await client.restart("id", journal=tmp_path / "refused")
            async with client.restarting(cloud.ids, journal=tmp_path / "left"):
                pass

    anyio.run(main, backend=backend)
    assert len(opened) == 3
    for journal in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(journal._descriptor)


# A deadline, with a journal and without.


WITH_OR_WITHOUT = pytest.mark.parametrize("is_kept", [False, True], ids=["no journal", "journal"])


def ended_by_deadline(report: Report) -> bool:
    """Tell whether a report says that the deadline came."""
    return report.stopped is not None and report.stopped.reason is StopReason.DEADLINE


@WITH_OR_WITHOUT
def test_deadline_in_the_midst(tmp_path: Path, is_kept: bool) -> None:
    """At the deadline nothing more is sent, and what is in flight is awaited; the report is returned, not raised."""
    journal = tmp_path / "journal" if is_kept else None

    async def main() -> None:
        cloud = cloud_of(40, reboot_seconds=(60.0, 60.0))
        slow_down(cloud, 4.0)
        async with client_of(cloud, max_at_once=4) as client:
            began = trio.current_time()
            report = await client.restart(cloud.ids, deadline=in_seconds(10.0), journal=journal)
            # Three rounds of four seconds: the third was under way, and was awaited.
            assert trio.current_time() - began == pytest.approx(12.0, abs=0.5)
            assert_accounted(report, cloud)
            assert ended_by_deadline(report)
            assert report.summary == {Outcome.ACCEPTED: 12, Outcome.SKIPPED: 28}
            assert {result.reason for result in report} == {Reason.INTERRUPTED, Reason.STOPPED}
            if is_kept:
                again = await client.restart(cloud.ids, journal=journal)
                assert_accounted(again, cloud)
                assert again.summary == {Outcome.COMPLETED: 40}

    virtually(main)


@WITH_OR_WITHOUT
def test_deadline_while_settling(tmp_path: Path, is_kept: bool) -> None:
    """Servers that are not back at the deadline are `accepted`, those that are back are `completed`."""
    journal = tmp_path / "journal" if is_kept else None

    async def main() -> None:
        cloud = cloud_of(10, reboot_seconds=(5.0, 200.0))
        async with client_of(cloud) as client:
            began = trio.current_time()
            report = await client.restart(cloud.ids, deadline=in_seconds(100.0), journal=journal)
            assert trio.current_time() - began == pytest.approx(100.0, abs=0.5)
            assert_accounted(report, cloud)
            assert {*report.summary} == {Outcome.ACCEPTED, Outcome.COMPLETED}
            assert ended_by_deadline(report)
            if is_kept:
                again = await client.restart(cloud.ids, journal=journal)
                assert again.summary == {Outcome.COMPLETED: 10}
        assert set(cloud.posts.values()) == {1}

    virtually(main)


@WITH_OR_WITHOUT
def test_deadline_while_looking(tmp_path: Path, is_kept: bool) -> None:
    """A send whose fate is unknown at the deadline is in doubt, and whoever goes on looks for it first."""
    journal = tmp_path / "journal" if is_kept else None

    async def main() -> None:
        cloud = cloud_of(2)
        cloud.script(cloud.ids[0], Fault.no_reply(applied=False))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, deadline=in_seconds(5.0), journal=journal)
            assert (report.results[0].outcome, report.results[0].reason) == (Outcome.IN_DOUBT, Reason.INTERRUPTED)
            assert ended_by_deadline(report)
            if is_kept:
                again = await client.restart(cloud.ids, journal=journal)
                assert again.summary == {Outcome.COMPLETED: 2}
                assert cloud.posts == {cloud.ids[0]: 2, cloud.ids[1]: 1}

    virtually(main)


@WITH_OR_WITHOUT
def test_deadline_before_the_first_send(tmp_path: Path, is_kept: bool) -> None:
    """A cloud that is not there until the deadline is no error then: nobody was sent to, and the report says so."""
    journal = tmp_path / "journal" if is_kept else None

    async def main() -> None:
        cloud = cloud_of(3)
        cloud.script(cloud.ids[0], Fault.slow(40.0), call=Call.SHOW)
        async with client_of(cloud) as client:
            async with client.restarting(cloud.ids, deadline=in_seconds(5.0), journal=journal) as run:
                results = [result async for result in run]
            assert len(results) == 3
            assert run.report.summary == {Outcome.SKIPPED: 3}
            assert {result.reason for result in run.report} == {Reason.STOPPED}
            assert ended_by_deadline(run.report)
            assert run.report.elapsed == pytest.approx(5.0, abs=0.5)
            assert not cloud.posts
            again = await client.restart(cloud.ids, journal=journal)
            assert again.summary == {Outcome.COMPLETED: 3}

    virtually(main)


def test_deadline_does_not_hide_a_refusal() -> None:
    """What refuses the run before the deadline is raised as ever."""

    async def main() -> None:
        cloud = cloud_of(3)
        cloud.outage = Fault.no_reply(applied=False)
        async with client_of(cloud) as client:
            with pytest.raises(EndpointError, match="does not answer"):
                await client.restart(cloud.ids, deadline=in_seconds(3600.0))

    virtually(main)


def test_deadline_that_is_not_needed() -> None:
    """A run that is over before its deadline ends as if there were none."""

    async def main() -> None:
        cloud = cloud_of(5)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, deadline=in_seconds(3600.0))
        assert report.summary == {Outcome.COMPLETED: 5}
        assert report.stopped is None
        assert trio.current_time() < 60.0

    virtually(main)


@pytest.mark.parametrize("deadline", [datetime(2020, 1, 1, tzinfo=UTC), datetime(2999, 1, 1)])
def test_deadline_that_makes_no_sense(deadline: datetime, tmp_path: Path) -> None:
    """A deadline that has come, or that has no zone, is refused before anything is asked or made."""

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match=r"^deadline must "):
                await client.restart(cloud.ids, deadline=deadline, journal=tmp_path / "journal")
        assert not cloud.requests

    virtually(main)
    assert list(tmp_path.iterdir()) == []


def test_deadline_bounds_what_is_in_flight() -> None:
    """What has no answer 10 s after the deadline is given up, in doubt."""

    async def main() -> None:
        cloud = cloud_of(3)
        slow_down(cloud, 50.0)
        async with client_of(cloud) as client:
            began = trio.current_time()
            report = await client.restart(cloud.ids, deadline=in_seconds(5.0))
            assert trio.current_time() - began == pytest.approx(15.0, abs=0.5)
        assert report.summary == {Outcome.IN_DOUBT: 3}
        assert ended_by_deadline(report)

    virtually(main)


def test_deadline_while_everybody_is_held() -> None:
    """A cloud that throttles for longer than there is time does not keep the run beyond its deadline."""

    async def main() -> None:
        cloud = cloud_of(5)
        cloud.script(cloud.ids[0], Fault.throttled(300.0))
        async with client_of(cloud, max_at_once=1) as client:
            began = trio.current_time()
            report = await client.restart(cloud.ids, deadline=in_seconds(30.0))
            assert trio.current_time() - began == pytest.approx(30.0, abs=0.5)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.REFUSED: 1, Outcome.SKIPPED: 4}
        assert ended_by_deadline(report)

    virtually(main)


@BACKENDS
def test_deadline_in_real_time(tmp_path: Path, backend: str) -> None:
    """On both backends the deadline ends the run; the journal is let go, and goes on."""

    async def main() -> None:
        journal = tmp_path / "journal"
        cloud = Cloud(12, reboot_seconds=(0.0, 0.0))
        slow_down(cloud, 0.6)
        async with client_of(cloud, max_at_once=4) as client:
            async with client.restarting(cloud.ids, journal=journal, deadline=in_seconds(0.4)) as run:
                async for _ in run:
                    pass
            assert_accounted(run.report, cloud)
            assert ended_by_deadline(run.report)
            assert_resumable(journal, run, cloud)
            report = await client.restart(cloud.ids, journal=journal, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 12}
        assert set(cloud.posts.values()) == {1}

    anyio.run(main, backend=backend)
