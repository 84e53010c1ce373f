"""Servers that have rebooted since a moment are left alone: the look right before each send, on virtual time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import anyio
import pytest
import trio

from bulkrestart import JournalError, Outcome, Proof, Reason, RebootType, Report, StopReason
from bulkrestart.simulator import Call, Cloud, Fault, HostFault, LogAccess
from tests.virtual import assert_accounted, client_of, slow_down, virtually

#: Where the cloud's time begins: `since` is checked by the clock on the wall, and lies before it.
BEGAN: Final = 1_700_000_000.0
SINCE: Final = datetime.fromtimestamp(BEGAN + 1000.0, UTC)
#: When the restart is asked for.
NOW: Final = 2000.0

#: Right before that.
LATE: Final = 1999.0

SATISFIED: Final = (Outcome.SATISFIED, None)
COMPLETED: Final = (Outcome.COMPLETED, None)
UNREADABLE: Final = (Outcome.SKIPPED, Reason.HISTORY_UNREADABLE)
UNCERTAIN: Final = (Outcome.SKIPPED, Reason.HISTORY_UNCERTAIN)

Deed = Callable[[Cloud, str], object]


def past_cloud(
    servers: int = 1,
    *,
    reboot_seconds: tuple[float, float] = (20.0, 20.0),
    latency: float = 0.0,
    max_microversion: str | None = None,
) -> Cloud:
    """Make a cloud of the past that lives on virtual time; its servers were last saved a day before it began."""
    return Cloud(
        servers,
        clock=lambda: BEGAN + trio.current_time(),
        reboot_seconds=reboot_seconds,
        latency=latency,
        max_microversion=max_microversion,
    )


async def at(moment: float) -> None:
    """Wait until so many seconds after the cloud began."""
    await trio.sleep_until(moment)


def calls(cloud: Cloud, call: Call) -> int:
    """Count the requests of a kind."""
    return [request.call for request in cloud.requests].count(call)


def nothing(cloud: Cloud, server_id: str) -> None:
    """Do nothing."""


def reboot(cloud: Cloud, server_id: str) -> None:
    """Let another user reboot it."""
    cloud.reboot_by_other(server_id)


def hang(cloud: Cloud, server_id: str) -> None:
    """Let another user's reboot never end."""
    cloud.break_host(server_id, HostFault.HANG)
    cloud.reboot_by_other(server_id)


def fail(cloud: Cloud, server_id: str) -> None:
    """Let another user's reboot end in Error; somebody mends the server."""
    cloud.break_host(server_id, HostFault.DEAD)
    cloud.reboot_by_other(server_id)
    cloud.later(100.0, lambda: cloud.change(server_id, vm_state="active"))


def reboot_and_fail(cloud: Cloud, server_id: str) -> None:
    """Let another user reboot it, and then fail to."""
    reboot(cloud, server_id)
    cloud.later(100.0, lambda: fail(cloud, server_id))


def stop_and_start(cloud: Cloud, server_id: str) -> None:
    """Let its own user stop and start it."""
    identity = cloud.tokens[cloud.token]
    cloud.power(server_id, False, identity=identity, request_id="req-stop")
    cloud.later(100.0, lambda: cloud.power(server_id, True, identity=identity, request_id="req-start"))


def snapshot(cloud: Cloud, server_id: str) -> None:
    """Let a task that passes take it."""
    cloud.occupy(server_id, "image_snapshot", 5.0)


def snapshot_later(cloud: Cloud, server_id: str) -> None:
    """Let a task that passes take it right before the restart."""
    cloud.later(LATE - 1500.0, lambda: snapshot(cloud, server_id))


def rename(cloud: Cloud, server_id: str) -> None:
    """Let the cloud save it, so that `updated` does not spare the log."""
    cloud.change(server_id, name="renamed")


def lock(cloud: Cloud, server_id: str) -> None:
    """Lock it."""
    cloud.change(server_id, locked=True)


def delete(cloud: Cloud, server_id: str) -> None:
    """Delete it."""
    cloud.delete(server_id)


def pause(cloud: Cloud, server_id: str) -> None:
    """Pause it."""
    cloud.change(server_id, vm_state="paused")


def withhold(access: LogAccess) -> Deed:
    """Save the server, and withhold the log from then on."""

    def deed(cloud: Cloud, server_id: str) -> None:
        rename(cloud, server_id)
        cloud.log_access = access

    return deed


def log(fault: Fault, times: int, call: Call = Call.LOG) -> Deed:
    """Save the server, and let so many readings of its log meet a fault."""

    def deed(cloud: Cloud, server_id: str) -> None:
        rename(cloud, server_id)
        cloud.script(server_id, *[fault] * times, call=call)

    return deed


def row(fault: Fault, times: int) -> Deed:
    """Let so many readings of a single row of its log meet a fault."""
    return log(fault, times, Call.LOG_ROW)


def both(*deeds: Deed) -> Deed:
    """Do one after the other."""

    def deed(cloud: Cloud, server_id: str) -> None:
        for one in deeds:
            one(cloud, server_id)

    return deed


@dataclass(frozen=True)
class Case:
    """What happened to a server, and what must come of it: the outcome, our sends, and all real power cycles.

    Attributes:
        moment: When the deed was done; `since` is 1000 s, and the restart is asked for at 2000 s.
    """

    name: str
    moment: float
    deed: Deed
    end: tuple[Outcome, Reason | None]
    posts: int
    cycles: int
    reboot_type: RebootType = RebootType.SOFT
    escalate: bool = False


#: The faults that do not pass outnumber the looks of `server_timeout`.
FOR_EVER: Final = 600
CASES: Final = [
    Case("nothing", 1500.0, nothing, COMPLETED, 1, 1),
    Case("rebooted", 1500.0, reboot, SATISFIED, 0, 1),
    Case("rebooted at that moment", 1000.0, reboot, UNCERTAIN, 0, 1),
    Case("rebooted since, by less than nodes' clocks may differ", 1058.0, reboot, UNCERTAIN, 0, 1),
    Case("rebooted since, by more than nodes' clocks may differ", 1061.0, reboot, SATISFIED, 0, 1),
    Case("rebooted before", 930.0, reboot, COMPLETED, 1, 2),
    Case("rebooted before, by less than nodes' clocks may differ", 998.9, reboot, UNCERTAIN, 0, 1),
    Case("rebooted long before", 10.0, reboot, COMPLETED, 1, 2),
    Case("in a reboot", LATE, reboot, SATISFIED, 0, 1),
    Case("in a reboot that fails", LATE, fail, (Outcome.SKIPPED, Reason.WRONG_STATE), 0, 0),
    Case("in a reboot that hangs", LATE, hang, (Outcome.SKIPPED, Reason.BUSY), 0, 0),
    Case("a reboot that failed", 1500.0, fail, COMPLETED, 1, 1),
    Case("a reboot, and one that failed", 1500.0, reboot_and_fail, SATISFIED, 0, 1),
    Case("stopped and started", 1500.0, stop_and_start, COMPLETED, 1, 1),
    Case("another task", 1500.0, snapshot, COMPLETED, 1, 1),
    Case("in another task", LATE, snapshot, COMPLETED, 1, 1),
    Case("rebooted, and in another task", 1500.0, both(reboot, snapshot_later), SATISFIED, 0, 1),
    Case("locked", 1500.0, lock, (Outcome.SKIPPED, Reason.LOCKED), 0, 0),
    Case("rebooted, and locked", 1500.0, both(reboot, lock), SATISFIED, 0, 1),
    Case("deleted", 1500.0, delete, (Outcome.REFUSED, Reason.NOT_FOUND), 0, 0),
    Case("paused", 1500.0, pause, (Outcome.SKIPPED, Reason.WRONG_STATE), 0, 0),
    Case("paused, with leave", 1500.0, pause, COMPLETED, 1, 1, escalate=True),
    Case("paused, HARD", 1500.0, pause, COMPLETED, 1, 1, RebootType.HARD),
    Case("log 403", 1500.0, withhold(LogAccess.FORBIDDEN), UNREADABLE, 0, 0),
    Case("log 404", 1500.0, withhold(LogAccess.MISSING), UNREADABLE, 0, 0),
    Case("log empty", 1500.0, withhold(LogAccess.EMPTY), UNREADABLE, 0, 0),
    Case("rebooted, log 403", 1500.0, both(reboot, withhold(LogAccess.FORBIDDEN)), UNREADABLE, 0, 1),
    Case("log 500 for a while", 1500.0, log(Fault.error(500), 6), COMPLETED, 1, 1),
    Case("log 500 for ever", 1500.0, log(Fault.error(500), FOR_EVER), UNREADABLE, 0, 0),
    Case("log lost for a while", 1500.0, log(Fault.no_reply(applied=False), 3), COMPLETED, 1, 1),
    Case("log a page", 1500.0, log(Fault.respond(200, b"<html>"), FOR_EVER), UNREADABLE, 0, 0),
    Case("row 500 for a while", 1500.0, both(reboot, row(Fault.error(500), 4)), SATISFIED, 0, 1),
    Case("row 500 for ever", 1500.0, both(reboot, row(Fault.error(500), FOR_EVER)), SATISFIED, 0, 1),
    Case("row 403", 1500.0, both(reboot, row(Fault.error(403), 1)), SATISFIED, 0, 1),
    Case("log throttled", 1500.0, log(Fault.throttled(9.0), 2), COMPLETED, 1, 1),
    Case("rebooted during the look", 1500.0, log(Fault(applied_after=0.0, by_other=True), 1), SATISFIED, 0, 1),
]


@pytest.mark.unmeasured
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_one_server(case: Case) -> None:
    """What has rebooted since, without Error, is left alone; where the log does not tell, nothing is sent."""

    async def main() -> None:
        # The first server is what the preflight looks at.
        cloud = past_cloud(2)
        other, server_id = cloud.ids
        await at(case.moment)
        case.deed(cloud, server_id)
        await at(NOW)
        async with client_of(cloud) as client:
            report = await client.restart(
                cloud.ids, reboot_type=case.reboot_type, since=SINCE, escalate=case.escalate, server_timeout=300.0
            )
        result = report[server_id]
        assert (result.outcome, result.reason) == case.end
        assert cloud.posts[server_id] == case.posts
        assert cloud.cycles[server_id] == case.cycles
        assert report[other].outcome in (Outcome.COMPLETED, *UNREADABLE)
        assert report.stopped is None

    virtually(main)


@pytest.mark.parametrize(
    ("max_microversion", "proof"),
    [
        (None, Proof.ACTION),
        ("2.51", Proof.ACTION),
        # Members are not shown events: the state tells that the reboot is over.
        ("2.50", Proof.STATE),
    ],
)
def test_proof_of_what_is_satisfied(max_microversion: str | None, proof: Proof) -> None:
    """What is left alone says which reboot it had, when, and how it is known to be over."""

    async def main() -> None:
        cloud = past_cloud(max_microversion=max_microversion)
        await at(1500.0)
        row = cloud.reboot_by_other(cloud.ids[0])
        await at(NOW)
        async with client_of(cloud) as client:
            (result,) = await client.restart(cloud.ids, since=SINCE)
        assert (result.outcome, result.proof, result.attempts) == (Outcome.SATISFIED, proof, ())
        assert result.detail == f"{row.request_id} began at 2023-11-14T22:38:20+00:00"

    virtually(main)


def test_log_is_spared_where_nobody_has_touched_the_server() -> None:
    """A server that was last saved before costs one request more than without `since`, and no reading of its log."""

    async def main() -> None:
        cloud = past_cloud(50)
        await at(NOW)
        async with client_of(cloud, max_at_once=5) as client:
            report = await client.restart(cloud.ids, since=SINCE, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 50}
        # One look more: the preflight.
        assert (calls(cloud, Call.SHOW), calls(cloud, Call.LOG), calls(cloud, Call.LOG_ROW)) == (51, 0, 0)

    virtually(main)


@pytest.mark.parametrize("reboot_type", RebootType)
def test_the_look_is_right_before_the_send(reboot_type: RebootType) -> None:
    """Each server is looked at in the slot of its own send, with nothing between, also before a HARD: no list is old.

    So no more requests are under way than were asked for.
    """

    async def main() -> None:
        cloud = past_cloud(60, latency=0.1)
        await at(1500.0)
        for server_id in cloud.ids[::2]:
            snapshot(cloud, server_id)
        await at(NOW)
        async with client_of(cloud, max_at_once=4) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type, since=SINCE, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 60}
        assert cloud.peak_in_flight == 4
        assert calls(cloud, Call.LIST) == 0
        for server_id in cloud.ids[1:]:
            own = [request for request in cloud.requests if request.server_id == server_id]
            kinds = [request.call for request in own]
            assert kinds == [Call.SHOW, *([Call.LOG] if Call.LOG in kinds else []), Call.REBOOT]
            for request, following in pairwise(own):
                assert following.time - request.time == pytest.approx(0.1, abs=1e-3)

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("call", [Call.SHOW, Call.LOG])
def test_throttled_look_holds_everybody(call: Call) -> None:
    """A 429 for a look back is for all: no request leaves until its Retry-After is over."""

    async def main() -> None:
        cloud = past_cloud(40)
        await at(1500.0)
        for server_id in cloud.ids:
            snapshot(cloud, server_id)
        cloud.script(cloud.ids[7], Fault.throttled(30.0), call=call)
        await at(NOW)
        async with client_of(cloud, max_at_once=3) as client:
            report = await client.restart(cloud.ids, since=SINCE)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 40}
        throttled = next(request for request in cloud.requests if request.status == 429)
        times = [request.time - throttled.time for request in cloud.requests]
        assert [time for time in times if 0.0 < time < 30.0] == []

    virtually(main)


@pytest.mark.parametrize("call", [Call.SHOW, Call.LOG, Call.LOG_ROW])
def test_what_is_throttled_during_the_look_is_heeded_between_its_requests(call: Call) -> None:
    """A 429 for another server that comes during one request of a look back holds the next one of it."""

    async def main() -> None:
        cloud = past_cloud(2)
        first, second = cloud.ids
        await at(1500.0)
        reboot(cloud, first)
        # The preflight looks at the first server once before.
        cloud.script(first, *([None] if call is Call.SHOW else []), Fault.slow(5.0), call=call)
        cloud.script(second, Fault.slow(1.0), call=Call.SHOW)
        cloud.script(second, Fault.throttled(60.0))
        await at(NOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, since=SINCE)
        assert report.summary == {Outcome.COMPLETED: 1, Outcome.SATISFIED: 1}
        throttled = next(request for request in cloud.requests if request.status == 429)
        times = [request.time - throttled.time for request in cloud.requests]
        assert [time for time in times if 0.0 < time < 60.0] == []

    virtually(main)


def test_what_is_throttled_during_the_look_is_not_sent() -> None:
    """A 429 for another server that comes while one is looked at keeps its send back; it is looked at again then."""

    async def main() -> None:
        cloud = past_cloud(2)
        first, second = cloud.ids
        cloud.script(first, None, Fault.slow(5.0), call=Call.SHOW)
        cloud.script(second, Fault.slow(1.0), call=Call.SHOW)
        cloud.script(second, Fault.throttled(60.0))
        await at(NOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, since=SINCE)
        assert report.summary == {Outcome.COMPLETED: 2}
        sends = [request for request in cloud.requests if request.call is Call.REBOOT]
        assert [request.status for request in sends] == [429, 202, 202]
        assert min(request.time for request in sends[1:]) >= sends[0].time + 60.0
        looks = [request for request in cloud.requests if (request.call, request.server_id) == (Call.SHOW, first)]
        assert [request.time >= sends[0].time + 60.0 for request in looks[:3]] == [False, False, True]

    virtually(main)


def test_stop_during_the_look() -> None:
    """A run that is stopped while a server is looked at does not send to it."""

    async def main() -> None:
        cloud = past_cloud(3)
        slow_down(cloud, 0.0)
        for server_id in cloud.ids:
            cloud.script(server_id, *[Fault.slow(5.0)] * 2, call=Call.SHOW)
        await at(NOW)
        async with client_of(cloud) as client, client.restarting(cloud.ids, since=SINCE) as run:
            await trio.sleep(2.0)
            run.stop()
            async for _ in run:
                pass
        assert run.report.summary == {Outcome.SKIPPED: 3}
        assert {result.reason for result in run.report} == {Reason.STOPPED}
        assert not cloud.posts

    virtually(main)


@pytest.mark.parametrize("fault", [Fault.race(), Fault(applied_after=0.0, by_other=True)], ids=["500", "409"])
def test_reboot_between_the_look_and_the_send(fault: Fault) -> None:
    """Another user's reboot in the instant of our own cycles the server once, and ours is not sent after it."""

    async def main() -> None:
        cloud = past_cloud()
        cloud.script(cloud.ids[0], fault)
        await at(NOW)
        async with client_of(cloud) as client:
            (result,) = await client.restart(cloud.ids, since=SINCE)
        assert result.outcome in (Outcome.SATISFIED, Outcome.COMPLETED)
        assert cloud.cycles[result.server_id] == 1
        assert cloud.posts[result.server_id] == 1

    virtually(main)


@pytest.mark.parametrize("fault", [None, Fault.error(500), Fault.no_reply(applied=True)], ids=["told", "500", "lost"])
def test_reboot_by_another_that_cannot_be_told_from_ours(fault: Fault | None) -> None:
    """A send that met another user's reboot of the same second: that is waited for, and the server has rebooted."""

    async def main() -> None:
        cloud = past_cloud(2)
        first, second = cloud.ids
        # By then the log has told who we are, by the row of the first.
        cloud.script(second, Fault.throttled(60.0), Fault(applied_after=0.0, by_other=True))
        cloud.script(second, fault, fault, call=Call.LOG_ROW)
        await at(NOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, since=SINCE)
        assert report[first].outcome is Outcome.COMPLETED
        assert report[second].outcome is Outcome.SATISFIED
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


@pytest.mark.parametrize(
    ("fault", "posts"),
    [
        (Fault.no_reply(applied=True), 1),
        (Fault.no_reply(applied=False), 2),
        (Fault.error(applied=True), 1),
        (Fault.error(applied=False), 2),
        (Fault.throttled(5.0), 2),
        (Fault.busy(5.0), 2),
        (Fault.commands_executing(), 2),
    ],
    ids=lambda value: "" if isinstance(value, Fault) else str(value),
)
def test_fate_of_a_send_is_looked_for_as_ever(fault: Fault, posts: int) -> None:
    """A send that went wrong is looked for by the run's own rules; its own row never makes the server `satisfied`."""

    async def main() -> None:
        cloud = past_cloud()
        cloud.script(cloud.ids[0], fault)
        await at(NOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, since=SINCE)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 1}
        assert cloud.posts.total() == posts

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("reboot_type", RebootType)
def test_asking_twice_is_asking_once(reboot_type: RebootType) -> None:
    """Who asks again with the same moment finds every server satisfied, whoever has restarted it."""

    async def main() -> None:
        cloud = past_cloud(20)
        await at(1500.0)
        reboot(cloud, cloud.ids[3])
        await at(NOW)
        async with client_of(cloud) as client:
            first, second, third = [
                await client.restart(cloud.ids, reboot_type=reboot_type, since=SINCE) for _ in range(3)
            ]
        assert first.summary == {Outcome.COMPLETED: 19, Outcome.SATISFIED: 1}
        assert second.summary == third.summary == {Outcome.SATISFIED: 20}
        assert cloud.posts.total() == 19
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_two_runs_at_once(latency: float) -> None:
    """Two who ask at once, each with a client of their own, cycle every server once between them."""

    async def main() -> None:
        cloud = past_cloud(30, latency=latency)
        await at(NOW)
        reports: list[Report] = []

        async def run(ids: list[str]) -> None:
            async with client_of(cloud, max_at_once=7) as client:
                reports.append(await client.restart(ids, since=SINCE))

        async with anyio.create_task_group() as group:
            group.start_soon(run, cloud.ids)
            group.start_soon(run, cloud.ids[::-1])
        for report in reports:
            assert {*report.summary} <= {Outcome.COMPLETED, Outcome.SATISFIED}
            assert len(report) == 30
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


def test_journal_remembers_the_moment(tmp_path: Path) -> None:
    """A journal is of one `since`: another one, or none, is refused, and the error tells both."""

    async def main() -> None:
        cloud = past_cloud(3)
        await at(NOW)
        async with client_of(cloud) as client:
            restart = partial(client.restart, cloud.ids, journal=tmp_path / "journal")
            assert (await restart(since=SINCE)).summary == {Outcome.COMPLETED: 3}
            asked = len(cloud.requests)
            with pytest.raises(JournalError, match=r"with since 2023-11-14T22:30:00\+00:00, not none: "):
                await restart()
            with pytest.raises(JournalError, match=r"22:30:00\+00:00, not 2023-11-14T22:13:20\+00:00: "):
                await restart(since=datetime.fromtimestamp(BEGAN, UTC))
            assert (await restart(since=SINCE)).summary == {Outcome.COMPLETED: 3}
            assert len(cloud.requests) == asked

    virtually(main)


def test_unreadable_history_is_looked_at_again_by_whoever_resumes(tmp_path: Path) -> None:
    """A server that was skipped because its log could not be read is taken up again from the journal."""

    async def main() -> None:
        cloud = past_cloud(3)
        await at(1500.0)
        for server_id in cloud.ids:
            snapshot(cloud, server_id)
        reboot_later = cloud.ids[1]
        cloud.later(100.0, lambda: reboot(cloud, reboot_later))
        cloud.log_access = LogAccess.FORBIDDEN
        await at(NOW)
        async with client_of(cloud) as client:
            restart = partial(client.restart, cloud.ids, journal=tmp_path / "journal", since=SINCE)
            assert (await restart()).summary == {Outcome.SKIPPED: 3}
            cloud.log_access = LogAccess.OPEN
            assert (await restart()).summary == {Outcome.COMPLETED: 2, Outcome.SATISFIED: 1}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


def test_look_that_is_refused_stops_the_run() -> None:
    """A token that is revoked before the look stops the run; nobody was sent to, and nobody is called unreadable."""

    async def main() -> None:
        cloud = past_cloud(5)
        for server_id in cloud.ids:
            cloud.script(server_id, None, call=Call.SHOW)
        await at(NOW)
        async with client_of(cloud, max_at_once=1) as client, client.restarting(cloud.ids, since=SINCE) as run:
            del cloud.tokens[cloud.token]
            async for _ in run:
                pass
        assert run.report.summary == {Outcome.SKIPPED: 5}
        assert {result.reason for result in run.report} <= {Reason.UNAUTHORIZED, Reason.STOPPED}
        assert run.report.stopped is not None
        assert run.report.stopped.reason is StopReason.UNAUTHORIZED
        assert not cloud.posts

    virtually(main)


@pytest.mark.parametrize("skew", [-55.0, -30.0, 30.0, 55.0])
@pytest.mark.parametrize("after", [-4.0, 3.0])
def test_clock_of_the_log_was_not_measured(skew: float, after: float) -> None:
    """A reboot close to the moment, by a log that is up to a minute off, is neither doubled nor claimed."""

    async def main() -> None:
        cloud = past_cloud(3)
        cloud.log_skew = skew
        await at(1000.0 + after)
        for server_id in cloud.ids:
            cloud.reboot_by_other(server_id)
        await at(NOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, since=SINCE)
        assert {(result.outcome, result.reason) for result in report} == {UNCERTAIN}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


@pytest.mark.parametrize("skew", [-59.0, -30.0, 0.0, 30.0, 59.0])
@pytest.mark.parametrize(("after", "is_since"), [(-300.0, False), (300.0, True)], ids=["before", "since"])
def test_reboot_far_from_the_moment_is_told_by_any_clock(skew: float, after: float, is_since: bool) -> None:
    """Beyond what clocks may differ the log tells, before the run has measured it."""

    async def main() -> None:
        cloud = past_cloud(3)
        cloud.log_skew = skew
        await at(1000.0 + after)
        for server_id in cloud.ids:
            cloud.reboot_by_other(server_id)
        await at(NOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, since=SINCE)
        assert {(result.outcome, result.reason) for result in report} == {SATISFIED if is_since else COMPLETED}
        assert set(cloud.cycles.values()) == {1 if is_since else 2}

    virtually(main)
