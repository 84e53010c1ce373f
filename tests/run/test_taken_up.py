"""What a former process did, or was allowed, is not mistaken for what this one does."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from bulkrestart import EndpointError, Outcome, Reason, Report
from bulkrestart.simulator import Cloud, Fault
from tests.run.test_resume import killed
from tests.run.test_since import BEGAN, past_cloud
from tests.virtual import client_of, cloud_of, virtually


async def killed_after(cloud: Cloud, journal: Path, seconds: float, **leave: bool) -> Path:
    """Restart a cloud for so many seconds, and give the journal as `kill -9` would leave it then."""
    async with client_of(cloud) as client, client.restarting(cloud.ids, journal=journal, **leave):  # type: ignore[arg-type]
        await trio.sleep(seconds)
        return killed(journal)


@pytest.mark.parametrize("may_escalate", [True, False])
def test_leave_that_was_withdrawn(tmp_path: Path, may_escalate: bool) -> None:
    """A HARD that one process had leave for, and that never came, is sent by the next only if that has leave too."""

    async def main() -> Report:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.change(server_id, vm_state="paused")
        await trio.sleep(5000.0)
        cloud.script(server_id, None, Fault.no_reply(applied=False, after=20.0))
        copy = await killed_after(cloud, tmp_path / "journal", 15.0, escalate=True)
        async with client_of(cloud) as client:
            return await client.restart(cloud.ids, journal=copy, escalate=may_escalate)

    [result] = virtually(main)
    expected = (Outcome.COMPLETED, None) if may_escalate else (Outcome.REFUSED, Reason.WRONG_STATE)
    assert (result.outcome, result.reason) == expected


def test_soft_that_was_to_be_hard_meets_an_active_server() -> None:
    """Leave to send HARD where SOFT cannot work is none to send it to a server that its owner has made active."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.change(server_id, vm_state="paused")
        cloud.script(server_id, None, Fault.throttled(120.0))
        async with client_of(cloud) as client, trio.open_nursery() as nursery:
            nursery.start_soon(make_active, cloud)
            [result] = await client.restart(cloud.ids, escalate=True)
        assert (result.outcome, result.reboot_type) == (Outcome.COMPLETED, "SOFT")
        assert [cycle.reboot_type for cycle in cloud.cycle_log] == ["SOFT"]

    async def make_active(cloud: Cloud) -> None:
        await trio.sleep(60.0)
        cloud.change(cloud.ids[0], vm_state="active")

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("ahead", [-300.0, -70.0, 70.0, 300.0])
@pytest.mark.parametrize("applied", [True, False])
def test_a_date_that_changes_between_processes(tmp_path: Path, ahead: float, applied: bool) -> None:
    """What one process noted by a wrong `Date` doubles nothing where the next one sees the right one."""

    async def main() -> None:
        cloud = cloud_of(6, date_skew=ahead)
        *_, last = cloud.ids
        await trio.sleep(10_000.0)
        cloud.script(last, Fault.no_reply(applied=applied, after=20.0))
        copy = await killed_after(cloud, tmp_path / "journal", 15.0)
        cloud.date_skew = 0.0
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, journal=copy)
        assert max(cloud.cycles.values()) == 1
        assert {result.outcome for result in report} <= {Outcome.COMPLETED, Outcome.IN_DOUBT}

    virtually(main)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.999])
def test_since_this_second(fraction: float) -> None:
    """Asking twice is asking once; a reboot of the same minute may have come before the moment by the log's clock."""

    async def main() -> None:
        await trio.sleep(fraction)
        cloud = past_cloud(3, reboot_seconds=(0.1, 0.2))
        since = datetime.fromtimestamp(BEGAN + fraction, UTC)
        async with client_of(cloud) as client:
            assert (await client.restart(cloud.ids, since=since)).summary == {Outcome.COMPLETED: 3}
            again = await client.restart(cloud.ids, since=since)
            assert {(one.outcome, one.reason) for one in again} == {(Outcome.SKIPPED, Reason.HISTORY_UNCERTAIN)}
            again = await client.restart(cloud.ids, since=since - timedelta(minutes=1, seconds=2))
            assert again.summary == {Outcome.SATISFIED: 3}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


def test_since_that_is_yet_to_come_for_the_cloud() -> None:
    """A moment that the cloud's clock has not reached is refused, by the plan too: its reboots would not count."""

    async def main() -> None:
        cloud = past_cloud()
        since = datetime.fromtimestamp(BEGAN, UTC) + timedelta(seconds=30)
        async with client_of(cloud) as client:
            for ask in (client.restart, client.plan):
                with pytest.raises(EndpointError, match=r"^the cloud's clock shows .*: give a since that"):
                    await ask(cloud.ids, since=since)
        assert cloud.posts[cloud.ids[0]] == 0

    virtually(main)


@pytest.mark.unmeasured
def test_hard_where_slots_are_waited_for_longer_than_a_look_stands() -> None:
    """A look that is too old by the time the slot comes is made again in it, and not for ever outside."""

    async def main() -> None:
        cloud = cloud_of(200, latency=20.0)
        for server_id in cloud.ids:
            cloud.script(server_id, Fault.throttled(1.0))
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids, reboot_type="HARD", server_timeout=7200.0, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 200}

    virtually(main)
