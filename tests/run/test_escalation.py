"""HARD after an accepted SOFT that left its server in error: with leave, once, and only where nothing is doubled."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
import trio

from bulkrestart import Outcome, Proof, Reason, RebootType, ServerResult
from bulkrestart.run import settle
from bulkrestart.simulator import Call, Cloud, Fault, HostFault, LogAccess
from tests.run.test_resume import killed
from tests.run.test_taken_up import killed_after
from tests.virtual import assert_accounted, client_of, cloud_of, end_of, virtually

HARD: Final = RebootType.HARD
WELL: Final = (Outcome.COMPLETED, None)
ERROR: Final = (Outcome.FAILED, Reason.ERROR)
#: Any moment before the tests.
LONG_AGO: Final = datetime(2026, 1, 1, tzinfo=UTC)
#: What Nova says of a driver that has failed with the guest off.
WORDS: Final = "Failed to reboot instance: the driver has failed"


def broken_cloud(*faults: HostFault, servers: int = 1, reboot_seconds: tuple[float, float] = (3.0, 3.0)) -> Cloud:
    """Make a cloud in which the first reboots of every server meet these on the host."""
    cloud = cloud_of(servers, reboot_seconds=reboot_seconds)
    for server_id in cloud.ids:
        cloud.break_host(server_id, *faults)
    return cloud


async def escalated(cloud: Cloud, **options: object) -> ServerResult:
    """Restart the one server of a cloud with leave to escalate."""
    async with client_of(cloud) as client:
        [result] = await client.restart(cloud.ids, escalate=True, **options)  # type: ignore[arg-type]
    return result


def test_hard_follows() -> None:
    """The server is back by its HARD, judged by that one's own row; the result names both."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        [server_id] = cloud.ids
        result = await escalated(cloud)
        soft, hard = cloud.server(server_id).log[1:]
        assert (end_of(result), result.proof, result.reboot_type) == (WELL, Proof.ACTION, HARD)
        assert [attempt.request_id for attempt in result.attempts] == [soft.request_id, hard.request_id]
        assert result.request_id == hard.request_id
        assert result.detail == f"HARD followed the SOFT {soft.request_id}, which ended in error: {WORDS}"
        assert [cycle.reboot_type for cycle in cloud.cycle_log] == [HARD]

    virtually(main)


def test_never_without_leave() -> None:
    """Without leave the server fails with its fault, and is sent nothing more."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        async with client_of(cloud) as client:
            [result] = await client.restart(cloud.ids, start_stopped=True)
        assert (end_of(result), result.detail) == (ERROR, WORDS)
        assert cloud.posts[result.server_id] == 1

    virtually(main)


@pytest.mark.parametrize("reboot_type", RebootType)
def test_once_per_server(reboot_type: RebootType) -> None:
    """A HARD that ends in error as well is followed by nothing, whether it followed a SOFT or was asked for."""

    async def main() -> None:
        cloud = broken_cloud(*[HostFault.DEAD] * 4)
        result = await escalated(cloud, reboot_type=reboot_type)
        assert (end_of(result), result.detail, result.reboot_type) == (ERROR, WORDS, HARD)
        assert cloud.posts[result.server_id] == (2 if reboot_type is RebootType.SOFT else 1)

    virtually(main)


@pytest.mark.parametrize("vm_state", ["paused", "suspended", "error", "stopped"])
def test_once_per_server_before_the_acceptance(vm_state: str) -> None:
    """A HARD that was sent because no SOFT is ever accepted is the one HARD of the server."""

    async def main() -> None:
        cloud = broken_cloud(*[HostFault.DEAD] * 4)
        cloud.change(cloud.ids[0], vm_state=vm_state, power_state=4)
        result = await escalated(cloud, start_stopped=True)
        assert (end_of(result), result.reboot_type) == (ERROR, HARD)
        assert [row.action for row in cloud.server(result.server_id).log] == ["create", "reboot"]

    virtually(main)


def test_error_for_another_reason() -> None:
    """A server that is in error although its SOFT went well was cycled by it: HARD would be the second."""

    async def main() -> None:
        cloud = broken_cloud()
        [server_id] = cloud.ids
        cloud.later(3.1, lambda: cloud.change(server_id, vm_state="error", power_state=4))
        result = await escalated(cloud)
        assert end_of(result) == ERROR
        assert result.detail == (
            "vm_state error; no HARD followed: the action log shows a reboot that did not end in Error"
        )
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (1, 1)

    virtually(main)


def test_error_after_another_reboot_went_well() -> None:
    """A SOFT in Error is no leave where another's reboot has gone well since: the error has another reason."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        [server_id] = cloud.ids
        cloud.later(3.1, lambda: cloud.reboot_by_other(server_id, HARD))
        cloud.later(6.2, lambda: cloud.change(server_id, vm_state="error", power_state=4))
        # Nothing is seen of the server until then.
        cloud.script(server_id, None, *[Fault.error(503)] * 2, call=Call.SHOW)
        result = await escalated(cloud)
        assert end_of(result) == ERROR
        assert "no HARD followed" in result.detail
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (1, 1)

    virtually(main)


def test_error_of_the_action_alone() -> None:
    """A SOFT that another's HARD took the place of ended in Error, and its server runs: nothing follows."""

    async def main() -> None:
        cloud = broken_cloud(reboot_seconds=(30.0, 30.0))
        [server_id] = cloud.ids
        cloud.later(1.0, lambda: cloud.reboot_by_other(server_id, HARD))
        result = await escalated(cloud)
        assert end_of(result) == (Outcome.FAILED, Reason.NOT_REBOOTED)
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (1, 1)

    virtually(main)


def test_error_while_a_task_runs() -> None:
    """A server in error that is being worked on (rebuilt, deleted) is left alone."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        [server_id] = cloud.ids
        cloud.later(3.1, lambda: cloud.change(server_id, task_state="rebuilding"))
        result = await escalated(cloud)
        assert (end_of(result), cloud.posts[server_id]) == (ERROR, 1)

    virtually(main)


@pytest.mark.parametrize("access", [LogAccess.FORBIDDEN, LogAccess.MISSING, LogAccess.EMPTY])
def test_log_that_is_kept_from_us(access: LogAccess) -> None:
    """Where the log does not say how the SOFT ended, HARD might be the second: none follows."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        cloud.log_access = access
        result = await escalated(cloud)
        assert (end_of(result), cloud.posts[result.server_id]) == (ERROR, 1)
        assert result.detail == f"{WORDS}; no HARD followed: the action log cannot be read"

    virtually(main)


def test_log_that_fails_meanwhile() -> None:
    """A log that cannot be read now is asked again, until the wait for the server is over."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        cloud.script(cloud.ids[0], *[Fault.error(500)] * 3, call=Call.LOG)
        cloud.script(cloud.ids[0], *[Fault.throttled(5.0)] * 2, call=Call.LOG_ROW)
        assert end_of(await escalated(cloud)) == WELL

        cloud = broken_cloud(HostFault.DEAD)
        cloud.script(cloud.ids[0], *[Fault.error(500)] * 300, call=Call.LOG)
        result = await escalated(cloud, wait_timeout=60.0)
        assert (end_of(result), cloud.posts[result.server_id]) == (ERROR, 1)
        assert "no HARD followed: the action log cannot be read" in result.detail

    virtually(main)


def test_row_that_is_visible_late() -> None:
    """A row that does not show an end yet is waited for, and given up with the wait for the server."""

    async def main() -> None:
        cloud = cloud_of(1, log_delay=30.0)
        cloud.break_host(cloud.ids[0], HostFault.DEAD)
        assert end_of(await escalated(cloud)) == WELL

        cloud = cloud_of(1, log_delay=300.0)
        cloud.break_host(cloud.ids[0], HostFault.DEAD)
        result = await escalated(cloud, wait_timeout=60.0)
        assert (end_of(result), cloud.posts[result.server_id]) == (ERROR, 1)
        assert "does not show how it ended" in result.detail

    virtually(main)


@pytest.mark.parametrize("has_landed", [True, False])
@pytest.mark.parametrize("was_lost", [True, False], ids=["SOFT was lost too", "SOFT was answered"])
def test_lost_reply_of_the_hard(has_landed: bool, was_lost: bool) -> None:
    """A HARD whose reply is lost is looked for; the SOFT before it, whoever told of that, is not taken for it."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        [server_id] = cloud.ids
        cloud.script(server_id, Fault.no_reply(applied=True) if was_lost else None)
        cloud.script(server_id, Fault.no_reply(applied=has_landed))
        result = await escalated(cloud)
        assert (end_of(result), result.reboot_type) == (WELL, HARD)
        assert result.request_id == cloud.server(server_id).log[-1].request_id
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (2 if has_landed else 3, 1)

    virtually(main)


def test_hard_of_unknown_fate() -> None:
    """A HARD whose fate cannot be learnt is in doubt, and not a failure of the SOFT."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        [server_id] = cloud.ids
        cloud.script(server_id, None, Fault.no_reply(applied=False))
        cloud.later(12.0, lambda: setattr(cloud, "log_access", LogAccess.FORBIDDEN))
        result = await escalated(cloud)
        assert end_of(result) == (Outcome.IN_DOUBT, Reason.UNANSWERED)

    virtually(main)


def reboot_by_other(cloud: Cloud) -> None:
    """Let somebody else bring the server back."""
    cloud.reboot_by_other(cloud.ids[0], HARD)


def lock(cloud: Cloud) -> None:
    """Let its owner lock the server."""
    cloud.change(cloud.ids[0], locked=True)


def delete(cloud: Cloud) -> None:
    """Let its owner delete the server."""
    cloud.delete(cloud.ids[0])


def stop(cloud: Cloud) -> None:
    """Let its owner stop the server."""
    cloud.change(cloud.ids[0], vm_state="stopped")


MEANWHILE: Final[list[tuple[Callable[[Cloud], None], Reason, str, int]]] = [
    (reboot_by_other, Reason.ERROR, "vm_state active, task_state None", 1),
    (lock, Reason.ERROR, "locked", 0),
    (stop, Reason.ERROR, "vm_state stopped", 0),
    (delete, Reason.GONE, "could not be found", 0),
]


@pytest.mark.parametrize(
    ("do", "reason", "words", "cycles"), MEANWHILE, ids=lambda value: getattr(value, "__name__", "")
)
@pytest.mark.parametrize("with_since", [True, False])
def test_what_happens_before_the_hard(
    do: Callable[[Cloud], None], reason: Reason, words: str, cycles: int, with_since: bool
) -> None:
    """The server is looked at in the slot of the HARD: none is sent into another's reboot, nor where it does harm."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        [server_id] = cloud.ids
        # The HARD is held up, and comes a minute later.
        cloud.script(server_id, None, Fault.throttled(60.0))
        cloud.later(40.0, lambda: do(cloud))
        result = await escalated(cloud, since=LONG_AGO if with_since else None)
        assert end_of(result) == (Outcome.FAILED, reason)
        assert result.detail.startswith(f"{WORDS}; HARD was to follow, and did not: ")
        assert words in result.detail or with_since
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (2, cycles)

    virtually(main)


def test_attempts_and_time_outs_count_anew() -> None:
    """The SOFT may have taken its last attempt and all its time: the HARD has its own."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD, reboot_seconds=(50.0, 50.0))
        result = await escalated(cloud, max_attempts=1, server_timeout=30.0, wait_timeout=60.0)
        assert (end_of(result), len(result.attempts)) == (WELL, 2)
        assert result.elapsed > 100.0

    virtually(main)


@pytest.mark.parametrize("fault", [Fault.error(403, "no"), Fault.error(503), Fault.respond(400, b"no")])
def test_hard_that_is_refused(fault: Fault) -> None:
    """A server whose HARD is never taken has failed: its SOFT was accepted, so it is not merely refused."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        cloud.script(cloud.ids[0], None, *[fault] * 100)
        result = await escalated(cloud)
        assert end_of(result) == ERROR
        assert cloud.cycles[cloud.ids[0]] == 0

    virtually(main)


def test_run_that_was_stopped() -> None:
    """A run that is to send nothing more sends no HARD either, and says what it knows."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        async with client_of(cloud) as client, client.restarting(cloud.ids, escalate=True) as run:
            await trio.sleep(2.0)
            run.stop()
            [result] = [result async for result in run]
        assert end_of(result) == ERROR
        assert result.detail == f"{WORDS}; HARD was to follow, and did not: the run stopped"
        assert cloud.posts[result.server_id] == 1

    virtually(main)


def test_run_that_was_cancelled_before_the_hard(tmp_path: Path) -> None:
    """A HARD that was held up when the run ended is sent by whoever goes on; until then the server is accepted."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        [server_id] = cloud.ids
        cloud.script(server_id, None, Fault.throttled(60.0))
        async with client_of(cloud) as client:
            async with client.restarting(cloud.ids, escalate=True, journal=tmp_path / "journal") as run:
                await trio.sleep(40.0)
                [meanwhile] = run.report
            [left] = run.report
            assert end_of(meanwhile) == (Outcome.ACCEPTED, None)
            assert end_of(left) == (Outcome.ACCEPTED, Reason.INTERRUPTED)
            assert left.detail == f"{WORDS}; HARD was to follow"
            [result] = await client.restart(cloud.ids, escalate=True, journal=tmp_path / "journal")
        assert (end_of(result), result.reboot_type) == (WELL, HARD)
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (3, 1)

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("seconds", [*range(2, 30), 40, 60, 90])
@pytest.mark.parametrize(
    "hard",
    [None, Fault.slow(15.0), Fault.no_reply(applied=True, after=15.0), Fault.no_reply(applied=False, after=15.0)],
)
def test_process_that_is_killed(tmp_path: Path, seconds: float, hard: Fault | None) -> None:
    """Whenever a process dies, from the SOFT to the end of the HARD, whoever goes on brings the server back once."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        [server_id] = cloud.ids
        cloud.script(server_id, None, hard)
        copy = await killed_after(cloud, tmp_path / "journal", seconds, escalate=True)
        async with client_of(cloud) as client:
            [result] = await client.restart(cloud.ids, escalate=True, journal=copy)
        assert (end_of(result), result.reboot_type) == (WELL, HARD)
        assert cloud.cycles[server_id] == 1

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("seconds", range(2, 30))
def test_process_that_is_killed_when_the_hard_fails_too(tmp_path: Path, seconds: float) -> None:
    """What a former process escalated counts: whoever goes on sends no second HARD."""

    async def main() -> None:
        cloud = broken_cloud(*[HostFault.DEAD] * 4)
        [server_id] = cloud.ids
        copy = await killed_after(cloud, tmp_path / "journal", seconds, escalate=True)
        async with client_of(cloud) as client:
            [result] = await client.restart(cloud.ids, escalate=True, journal=copy)
        assert (end_of(result), result.reboot_type) == (ERROR, HARD)
        assert cloud.posts[server_id] == 2

    virtually(main)


def test_leave_that_was_withdrawn(tmp_path: Path) -> None:
    """A HARD of unknown fate that never came is not sent again by a process without leave."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD)
        [server_id] = cloud.ids
        cloud.script(server_id, None, Fault.no_reply(applied=False, after=20.0))
        async with client_of(cloud) as client:
            async with client.restarting(cloud.ids, escalate=True, journal=tmp_path / "journal"):
                await trio.sleep(20.0)
                copy = killed(tmp_path / "journal")
            [result] = await client.restart(cloud.ids, journal=copy)
        assert end_of(result) == ERROR
        assert result.detail.startswith(f"{WORDS}; HARD was to follow, and did not: vm_state error")
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (2, 0)

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("after", [0.0, 1.0, 2.5, 4.0, 6.0, 8.0, 12.0, 20.0])
def test_two_runs(after: float) -> None:
    """Two runs at once, each with leave, bring a server back once: whoever comes second sees what the first did."""

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD, servers=3)
        results: list[ServerResult] = []

        async def restart_later(seconds: float) -> None:
            await trio.sleep(seconds)
            async with client_of(cloud) as client:
                results.extend(await client.restart(cloud.ids, escalate=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart_later, 0.0)
            nursery.start_soon(restart_later, after)
        hards = [row for server_id in cloud.ids for row in cloud.server(server_id).log if row.action == "reboot"]
        for server_id in cloud.ids:
            # Each run may cycle it once; neither does so twice.
            mine = [result for result in results if result.server_id == server_id]
            assert cloud.cycles[server_id] <= sum(result.outcome is Outcome.COMPLETED for result in mine)
            assert cloud.cycles[server_id] >= 1
        assert len(hards) <= 9

    virtually(main)


def test_more_than_are_escalated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many servers end in error, only some have a task at once; the others' turn comes."""
    monkeypatch.setattr(settle, "ESCALATED_AT_MOST", 3)

    async def main() -> None:
        cloud = broken_cloud(HostFault.DEAD, servers=20)
        for server_id in cloud.ids:
            cloud.script(server_id, None, Fault.slow(5.0))
        async with client_of(cloud) as client, client.restarting(cloud.ids, escalate=True) as run:
            while len(run.report.summary) > 1 or Outcome.COMPLETED not in run.report.summary:
                await trio.sleep(0.5)
                assert cloud.posts_in_flight <= 3
                counts = run.statistics()
                parts = (counts.not_started, counts.in_flight, counts.parked, counts.accepted, counts.finished)
                assert sum(parts) == counts.total
                assert min(parts) >= 0
        assert run.report.summary == {Outcome.COMPLETED: 20}
        assert_accounted(run.report, cloud)
        assert set(cloud.posts.values()) == {2}

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(4))
def test_fleet_with_everything(seed: int) -> None:
    """In a fleet that meets every fault at once, what ends in error is brought back, and nothing is cycled twice."""

    async def main() -> None:
        cloud = cloud_of(150, seed=seed)
        for server_id in cloud.ids[::3]:
            cloud.break_host(server_id, HostFault.DEAD)
        faults = (
            Fault.no_reply(applied=True),
            Fault.no_reply(applied=False),
            Fault.error(500, applied=True),
            Fault.throttled(2.0),
            Fault.slow(20.0),
            Fault.late(5.0),
        )
        for number, server_id in enumerate(cloud.ids):
            cloud.script(server_id, faults[(number + seed) % 6], None, faults[(number // 6 + seed) % 6])
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, escalate=True)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 150}

    virtually(main)
