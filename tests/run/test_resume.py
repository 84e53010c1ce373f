"""The same call again: it goes on where the former one ended, however that was, and doubles nothing."""

import shutil
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from bulkrestart import Outcome, Proof, Reason, RebootType, Report, RestartClient, Run, StopReason
from bulkrestart.core.checkpoint import Checkpoint, JournalHeader, LogFacts, RunIdentity
from bulkrestart.core.decision import Accept, End
from bulkrestart.core.model import Attempt
from bulkrestart.core.target import Target
from bulkrestart.journal import Journal, read_journal
from bulkrestart.simulator import Call, Cloud, Fault, Faults, HostFault, LogAccess
from tests.virtual import EPOCH, assert_accounted, client_of, cloud_of, slow_down, virtually

SOFT: Final = RebootType.SOFT
HARD: Final = RebootType.HARD

COMPLETED: Final = (Outcome.COMPLETED, None)
#: When the former process came to its servers, and when this one takes them up, in seconds of virtual time.
SENT: Final = 100.0
NOW: Final = 200.0


def killed(journal: Path) -> Path:
    """Copy a journal as it is at this moment: what `kill -9` leaves."""
    return Path(shutil.copyfile(journal, journal.with_name("copy")))


def keep(journal: Path, cloud: Cloud, *checkpoints: Checkpoint, reboot_type: RebootType = SOFT) -> None:
    """Write the journal that a process would have left."""
    target = Target(endpoint=f"http://cloud.test/v2.1/{cloud.project_id}", project_id=cloud.project_id)
    identity = RunIdentity(target=target, reboot_type=reboot_type)
    header = JournalHeader(identity=identity, began=EPOCH, facts=LogFacts())
    with closing(Journal.open(journal)) as held:
        held.begin(header, cloud.ids)
        held.write(held.dump(checkpoints), EPOCH)


# What became of one server in the former process, and what becomes of it now.


def checkpoint(server_id: str, *, reboot_type: RebootType = SOFT) -> Checkpoint:
    """Give what is known of a server that was come to, and not sent to."""
    return Checkpoint(server_id=server_id, reboot_type=reboot_type, began=0.0)


def intended(known: Checkpoint) -> Checkpoint:
    """Let a send be on the disk, and its answer not."""
    return replace(known, sent_at=0.0, since=(EPOCH + SENT - 1.0, EPOCH + SENT + 1.0))


def answered(known: Checkpoint, answer: str, request_id: str | None = None) -> Checkpoint:
    """Let a send be answered."""
    attempt = Attempt(0.0, answer, request_id)
    since = (EPOCH + SENT - 1.0, EPOCH + SENT + 1.0)
    return replace(known, attempts=(*known.attempts, attempt), has_reached=True, since=since)


def unresolved(known: Checkpoint) -> Checkpoint:
    """Let a send have lost its reply."""
    return replace(answered(known, "unanswered: ReadError"), is_unresolved=True, doubts=1, words="ReadError")


def ended(known: Checkpoint, outcome: Outcome, reason: Reason | None = None) -> Checkpoint:
    """Let a server have its outcome."""
    return replace(known, end=End(outcome=outcome, reason=reason, detail="as it was"), elapsed=7.0)


def accepted(known: Checkpoint, request_id: str | None) -> Checkpoint:
    """Let a send be accepted."""
    proof = Proof.STATE if request_id is None else None
    return replace(answered(known, "202", request_id), accepted=Accept(request_id, proof))


@dataclass(frozen=True)
class Case:
    """What is known of a server, whether its send landed, and what must come of it: the outcome, our sends, cycles."""

    name: str
    known: Callable[[Checkpoint, str], Checkpoint]
    has_landed: bool
    end: tuple[Outcome, Reason | None]
    posts: int
    cycles: int


def as_it_was(outcome: Outcome, reason: Reason | None = None) -> Case:
    """Give the case of an outcome that stays."""
    return Case(f"{outcome} {reason}", lambda known, _: ended(known, outcome, reason), False, (outcome, reason), 0, 0)


def sent_now(outcome: Outcome, reason: Reason | None = None) -> Case:
    """Give the case of an outcome that does not stay, and of which nothing is unknown."""
    return Case(f"{outcome} {reason}", lambda known, _: ended(known, outcome, reason), False, COMPLETED, 1, 1)


CASES: Final = [
    Case("come to", lambda known, _: known, False, COMPLETED, 1, 1),
    Case("intended, and it never left", lambda known, _: intended(known), False, COMPLETED, 1, 1),
    Case("intended, and it landed", lambda known, _: intended(known), True, COMPLETED, 0, 1),
    Case("intended after a refusal", lambda known, _: intended(answered(known, "429")), False, COMPLETED, 1, 1),
    Case("unresolved, not landed", lambda known, _: unresolved(known), False, COMPLETED, 1, 1),
    Case("unresolved, landed", lambda known, _: unresolved(known), True, COMPLETED, 0, 1),
    Case("intended after an unresolved one", lambda known, _: intended(unresolved(known)), True, COMPLETED, 0, 1),
    Case(
        "in doubt, not landed",
        lambda known, _: ended(unresolved(known), Outcome.IN_DOUBT, Reason.UNANSWERED),
        *(False, COMPLETED, 1, 1),
    ),
    Case(
        "in doubt, landed",
        lambda known, _: ended(unresolved(known), Outcome.IN_DOUBT, Reason.UNANSWERED),
        *(True, COMPLETED, 0, 1),
    ),
    Case("accepted", accepted, True, COMPLETED, 0, 1),
    Case("accepted, and not waited for", lambda a, b: ended(accepted(a, b), Outcome.ACCEPTED), True, COMPLETED, 0, 1),
    Case("accepted by its state", lambda known, _: accepted(known, None), True, COMPLETED, 0, 1),
    sent_now(Outcome.SKIPPED, Reason.STOPPED),
    sent_now(Outcome.SKIPPED, Reason.UNREACHABLE),
    sent_now(Outcome.SKIPPED, Reason.BUSY),
    sent_now(Outcome.SKIPPED, Reason.LOCKED),
    sent_now(Outcome.SKIPPED, Reason.HISTORY_UNREADABLE),
    sent_now(Outcome.REFUSED, Reason.UNAUTHORIZED),
    sent_now(Outcome.REFUSED, Reason.FORBIDDEN),
    sent_now(Outcome.REFUSED, Reason.WRONG_ENDPOINT),
    sent_now(Outcome.REFUSED, Reason.STOPPED),
    as_it_was(Outcome.COMPLETED),
    as_it_was(Outcome.SATISFIED),
    as_it_was(Outcome.REFUSED, Reason.LOCKED),
    as_it_was(Outcome.REFUSED, Reason.NOT_FOUND),
    as_it_was(Outcome.REFUSED, Reason.ATTEMPTS_EXHAUSTED),
    as_it_was(Outcome.FAILED, Reason.ERROR),
    as_it_was(Outcome.FAILED, Reason.NOT_BACK),
    as_it_was(Outcome.IN_DOUBT, Reason.GONE),
]


@pytest.mark.unmeasured
@pytest.mark.parametrize("reboot_type", RebootType)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_one_server(tmp_path: Path, case: Case, reboot_type: RebootType) -> None:
    """What is finished stays, what was accepted is waited for, what is unknown is looked for, and the rest is sent."""

    async def main() -> None:
        # HARD trusts a silent log only once it has shown a reboot of this run: the second server's.
        cloud = cloud_of(2)
        server_id = cloud.ids[0]
        request_id = "req-never"
        await trio.sleep_until(SENT)
        if case.has_landed:
            request_id = cloud.reboot(server_id, reboot_type).request_id
        journal = tmp_path / "journal"
        keep(
            journal,
            cloud,
            case.known(checkpoint(server_id, reboot_type=reboot_type), request_id),
            reboot_type=reboot_type,
        )
        await trio.sleep_until(NOW)
        # An unresolved send is looked for, and not sent again, even if that is the only send allowed.
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type, journal=journal, max_attempts=1)
        assert [result.server_id for result in report] == cloud.ids
        result = report[server_id]
        assert (result.outcome, result.reason) == case.end
        assert cloud.posts[server_id] == case.posts
        assert cloud.cycles[server_id] == case.cycles
        assert report[cloud.ids[1]].outcome is Outcome.COMPLETED
        if case.end != COMPLETED:
            assert (result.detail, result.elapsed) == ("as it was", 7.0)
            assert not [request for request in cloud.requests if request.server_id == server_id]

    virtually(main)


def test_not_landed_is_not_believed_at_once(tmp_path: Path) -> None:
    """What the former process had out is given the time that a slow cloud may take, counted from now."""

    async def main() -> None:
        cloud = cloud_of(1)
        await trio.sleep_until(SENT)
        keep(tmp_path / "journal", cloud, intended(checkpoint(cloud.ids[0])))
        # A gateway delivers it, half a minute after this process began.
        cloud.later(NOW - SENT + 30.0, lambda: cloud.reboot(cloud.ids[0], SOFT))
        await trio.sleep_until(NOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, journal=tmp_path / "journal")
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 1}
        assert not cloud.posts

    virtually(main)


@pytest.mark.parametrize("access", [LogAccess.FORBIDDEN, LogAccess.MISSING, LogAccess.EMPTY])
def test_fate_that_nobody_tells(tmp_path: Path, access: LogAccess) -> None:
    """Without a log what the former process had out stays in doubt, and is not sent again."""

    async def main() -> None:
        cloud = cloud_of(1)
        await trio.sleep_until(SENT)
        keep(tmp_path / "journal", cloud, intended(checkpoint(cloud.ids[0])))
        cloud.log_access = access
        async with client_of(cloud) as client:
            restart = partial(client.restart, cloud.ids, journal=tmp_path / "journal")
            (result,) = await restart()
            assert (result.outcome, result.reason) == (Outcome.IN_DOUBT, Reason.UNANSWERED)
            assert not cloud.posts
            cloud.log_access = LogAccess.OPEN
            (result,) = await restart()
            assert (result.outcome, len(result.attempts)) == (Outcome.COMPLETED, 2)

    virtually(main)


def test_accepted_is_waited_for_anew(tmp_path: Path) -> None:
    """The wait for what was accepted has all of `wait_timeout` again, and no more."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(500.0, 500.0))
        cloud.break_host(cloud.ids[0], HostFault.HANG)
        await trio.sleep_until(SENT)
        row = cloud.reboot(cloud.ids[0], SOFT)
        keep(tmp_path / "journal", cloud, accepted(checkpoint(cloud.ids[0]), row.request_id))
        await trio.sleep(1000.0)
        async with client_of(cloud) as client:
            began = trio.current_time()
            (result,) = await client.restart(cloud.ids, journal=tmp_path / "journal", wait_timeout=300.0)
        assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.NOT_BACK)
        assert 300.0 < trio.current_time() - began < 350.0

    virtually(main)


def test_accepted_is_enough_for_who_does_not_wait(tmp_path: Path) -> None:
    """Who goes on without waiting takes what was accepted, and what was under way, as it is."""

    async def main() -> None:
        cloud = cloud_of(2)
        await trio.sleep_until(SENT)
        first, second = (cloud.reboot(server_id, SOFT).request_id for server_id in cloud.ids)
        known = (
            accepted(checkpoint(cloud.ids[0]), first),
            ended(accepted(checkpoint(cloud.ids[1]), second), Outcome.ACCEPTED),
        )
        keep(tmp_path / "journal", cloud, *known)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, journal=tmp_path / "journal", wait=False)
            assert report.summary == {Outcome.ACCEPTED: 2}
            # And who waits then is told that they are back.
            report = await client.restart(cloud.ids, journal=tmp_path / "journal")
            assert report.summary == {Outcome.COMPLETED: 2}
        assert not cloud.posts

    virtually(main)


# The end of the former process.


Ending = Callable[[RestartClient, Cloud, Path], Awaitable[Path]]


async def stop(client: RestartClient, cloud: Cloud, journal: Path) -> Path:
    """Stop a run in its midst."""
    async with client.restarting(cloud.ids, journal=journal) as run:
        await trio.sleep(1.3)
        run.stop()
        async for _ in run:
            pass
    assert run.report.stopped is not None
    assert run.report.stopped.reason is StopReason.ASKED
    return journal


async def leave(client: RestartClient, cloud: Cloud, journal: Path) -> Path:
    """Leave a run in its midst."""
    async with client.restarting(cloud.ids, journal=journal):
        await trio.sleep(1.3)
    return journal


async def all_sent(run: Run) -> None:
    """Wait until the lanes have come to every server."""
    with trio.fail_after(120.0):
        while (counts := run.statistics()).not_started or counts.in_flight:  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.1)


async def leave_while_settling(client: RestartClient, cloud: Cloud, journal: Path) -> Path:
    """Leave a run when all are sent to."""
    async with client.restarting(cloud.ids, journal=journal) as run:
        await all_sent(run)
    return journal


async def kill(client: RestartClient, cloud: Cloud, journal: Path) -> Path:
    """Kill a run in its midst: the journal is what it is at that moment, and the cloud has what it has."""
    async with client.restarting(cloud.ids, journal=journal):
        await trio.sleep(1.3)
        return killed(journal)


async def kill_while_settling(client: RestartClient, cloud: Cloud, journal: Path) -> Path:
    """Kill a run when all are sent to."""
    async with client.restarting(cloud.ids, journal=journal) as run:
        await all_sent(run)
        return killed(journal)


async def revoke(client: RestartClient, cloud: Cloud, journal: Path) -> Path:
    """Let the token be refused in the midst of a run."""
    token = cloud.tokens[cloud.token]
    async with client.restarting(cloud.ids, journal=journal) as run:
        await trio.sleep(1.3)
        del cloud.tokens[cloud.token]
        async for _ in run:
            pass
    assert run.report.stopped is not None
    assert run.report.stopped.reason is StopReason.UNAUTHORIZED
    cloud.tokens[cloud.token] = token
    return journal


async def forbid(client: RestartClient, cloud: Cloud, journal: Path) -> Path:
    """Let reboots be forbidden from the start."""
    for server_id in cloud.ids:
        cloud.script(server_id, Fault.error(403, "Policy doesn't allow it"))
    async with client.restarting(cloud.ids, journal=journal) as run:
        async for _ in run:
            pass
    assert run.report.stopped is not None
    assert run.report.stopped.reason is StopReason.FORBIDDEN
    # What is left of them was for sends that were never made.
    cloud._scripts.clear()
    return journal


ENDS: Final = [stop, leave, leave_while_settling, kill, kill_while_settling, revoke, forbid]


@pytest.mark.unmeasured
@pytest.mark.parametrize("reboot_type", RebootType)
@pytest.mark.parametrize("end", ENDS, ids=[end.__name__ for end in ENDS])
def test_the_same_call_again(
    tmp_path: Path, end: Ending, reboot_type: RebootType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a run ended, the same call brings every server back, once; a third one finds nothing to do or to ask."""

    async def main() -> None:
        cloud = cloud_of(25, latency=0.4, seed=11, faults=Faults(lost_after=0.1, lost_before=0.1, busy=0.1))
        async with client_of(cloud, max_at_once=7) as client:
            with monkeypatch.context() as patch:
                patch.setattr(client, "restarting", partial(client.restarting, reboot_type=reboot_type))
                journal = await end(client, cloud, tmp_path / "journal")
            report = await client.restart(cloud.ids, reboot_type=reboot_type, journal=journal)
            assert_accounted(report, cloud)
            assert report.summary == {Outcome.COMPLETED: 25}
            assert report.stopped is None
            asked = len(cloud.requests)
            again = await client.restart(cloud.ids, reboot_type=reboot_type, journal=journal)
            assert len(cloud.requests) == asked
        assert_same(again, report)
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


def assert_same(again: Report, report: Report) -> None:
    """Hold that a finished journal tells what the run told."""
    assert again.stopped is None
    for now, then in zip(again, report, strict=True):
        assert replace(now, elapsed=0.0) == replace(then, elapsed=0.0)
        assert now.elapsed == pytest.approx(then.elapsed)


@pytest.mark.unmeasured
def test_killed_again_and_again(tmp_path: Path) -> None:
    """A run that is killed every two seconds gets there all the same."""

    async def main() -> None:
        cloud = cloud_of(50, latency=0.3, seed=4, faults=Faults(lost_after=0.1, lost_before=0.1, throttled=0.05))
        path = tmp_path / "journal"
        for number in range(6):
            # Each process has a client of its own, which knows nothing of the others.
            async with client_of(cloud, max_at_once=5) as client, client.restarting(cloud.ids, journal=path):
                await trio.sleep(2.0)
                copy = killed(path)
            path = copy.rename(tmp_path / f"journal-{number}")
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, journal=path)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 50}
        assert max(len(result.attempts) for result in report) >= 2

    virtually(main)


def test_killed_before_an_answer(tmp_path: Path) -> None:
    """Sends whose answers were under way are in the journal as sent, and cycled once all the same."""

    async def main() -> None:
        cloud = cloud_of(10)
        slow_down(cloud, 5.0)
        async with client_of(cloud) as client:
            async with client.restarting(cloud.ids, journal=tmp_path / "journal"):
                await trio.sleep(1.0)
                copy = killed(tmp_path / "journal")
            contents, holder = read_journal(copy)
            assert holder is None
            assert contents is not None
            assert {checkpoint.sent_at is not None for checkpoint in contents.checkpoints.values()} == {True}
            assert contents.report(is_over=True).summary == {Outcome.IN_DOUBT: 10}
            report = await client.restart(cloud.ids, journal=copy)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 10}
        assert cloud.posts.total() == 10
        assert {result.attempts[0].answer for result in report} == {"unanswered: the process ended before the answer"}

    virtually(main)


def test_finished_servers_come_from_the_stream(tmp_path: Path) -> None:
    """A resumed run gives every server in its stream, once: those that were finished before as well."""

    async def main() -> None:
        cloud = cloud_of(30, latency=0.3)
        async with client_of(cloud, max_at_once=4) as client:
            await stop(client, cloud, tmp_path / "journal")
            async with client.restarting(cloud.ids, journal=tmp_path / "journal") as run:
                counts = run.statistics()
                assert counts.total == 30
                assert (
                    sum((counts.not_started, counts.in_flight, counts.parked, counts.accepted, counts.finished)) == 30
                )
                assert counts.finished > 0
                results = [result.server_id async for result in run]
            counts = run.statistics()
        assert sorted(results) == sorted(cloud.ids)
        assert (counts.finished, counts.in_flight, counts.accepted, counts.not_started) == (30, 0, 0, 0)

    virtually(main)


def test_leave_to_escalate_is_given_again(tmp_path: Path) -> None:
    """What was refused for want of leave stays so; what was skipped for it is sent when the leave is given."""

    async def main() -> None:
        cloud = cloud_of(2)
        cloud.change(cloud.ids[1], vm_state="paused")
        async with client_of(cloud) as client:
            first = await client.restart(
                cloud.ids, journal=tmp_path / "journal", reboot_type="HARD", start_stopped=False
            )
            assert first.summary == {Outcome.COMPLETED: 2}
            cloud.change(cloud.ids[1], vm_state="stopped")
            second = await client.restart(cloud.ids, journal=tmp_path / "other", reboot_type="HARD")
            assert second.summary == {Outcome.COMPLETED: 1, Outcome.SKIPPED: 1}
            third = await client.restart(cloud.ids, journal=tmp_path / "other", reboot_type="HARD", start_stopped=True)
        assert third.summary == {Outcome.COMPLETED: 2}
        assert cloud.posts == {cloud.ids[0]: 2, cloud.ids[1]: 2}

    virtually(main)


def test_hard_is_looked_at_again(tmp_path: Path) -> None:
    """Whoever resumes a HARD lists the fleet anew, and only what is left of it is sent to."""

    async def main() -> None:
        cloud = cloud_of(40, latency=0.3)
        async with client_of(cloud, max_at_once=4) as client:
            async with client.restarting(cloud.ids, reboot_type="HARD", journal=tmp_path / "journal") as run:
                await trio.sleep(2.0)
                run.stop()
                async for _ in run:
                    pass
            left = [result.server_id for result in run.report if result.outcome is Outcome.SKIPPED]
            assert 0 < len(left) < 40
            cloud.change(left[0], locked=True)
            cloud.change(left[1], vm_state="stopped")
            report = await client.restart(cloud.ids, reboot_type="HARD", journal=tmp_path / "journal")
        assert_accounted(report, cloud)
        assert (report[left[0]].reason, report[left[1]].reason) == (Reason.LOCKED, Reason.WRONG_STATE)
        assert report.summary == {Outcome.COMPLETED: 38, Outcome.SKIPPED: 2}

    virtually(main)


def test_report_of_what_is_finished_tells_when(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A finished journal says that nothing was sent, and when the run ended; the cloud need not even be there."""

    async def main() -> None:
        cloud = cloud_of(3)
        async with client_of(cloud) as client:
            first = await client.restart(cloud.ids, journal=tmp_path / "journal")
            cloud.outage = Fault.no_reply(applied=False)
            caplog.clear()
            second = await client.restart(cloud.ids, journal=tmp_path / "journal")
        assert_same(second, first)
        assert "nothing was sent" in caplog.text

    virtually(main)


def test_look_of_the_preflight_is_at_what_is_left(tmp_path: Path) -> None:
    """The preflight of whoever resumes does not ask for a server that has its outcome."""

    async def main() -> None:
        cloud = cloud_of(3)
        keep(tmp_path / "journal", cloud, ended(checkpoint(cloud.ids[0]), Outcome.COMPLETED))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, journal=tmp_path / "journal")
        assert report.summary == {Outcome.COMPLETED: 3}
        assert cloud.requests[0].server_id == cloud.ids[1]
        assert not [request for request in cloud.requests if request.server_id == cloud.ids[0]]
        assert cloud.requests[0].call is Call.SHOW

    virtually(main)
