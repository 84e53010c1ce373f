"""A gateway whose `Date` is wrong: the rows of the run's own reboots tell what time the action log has."""

import pytest
import trio

from bulkrestart import Outcome, Proof, Report
from bulkrestart.simulator import Call, Cloud, Fault, LogAccess
from tests.virtual import EPOCH, assert_accounted, client_of, cloud_of, virtually


def restart(
    servers: int, *, skew: float, lost: int, is_applied: bool, rebooted: float | None = None
) -> tuple[Report, list[int]]:
    """Restart a fleet behind such a `Date`, the last `lost` of which lose the reply to their first send.

    Args:
        servers: How many there are.
        skew: Seconds by which `Date` is ahead of the action log.
        lost: How many lose a reply.
        is_applied: The cloud has acted before it was lost.
        rebooted: Seconds since somebody else rebooted the last server; None for never.

    Returns:
        The report, and how often each server was cycled by the run, in order.
    """

    async def main() -> tuple[Report, list[int]]:
        cloud = cloud_of(servers, date_skew=skew)
        if rebooted is not None:
            cloud.reboot_by_other(cloud.ids[-1])
            await trio.sleep(rebooted)
        before = dict(cloud.cycles)
        for server_id in cloud.ids[-lost:]:
            cloud.script(server_id, Fault.no_reply(applied=is_applied))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        return report, [cloud.cycles[server_id] - before.get(server_id, 0) for server_id in cloud.ids]

    return virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("skew", [-3e8, -1200.0, -90.0, -30.0, 30.0, 90.0, 1200.0, 3e9])
@pytest.mark.parametrize("is_applied", [True, False])
def test_fleet_tells_its_lost_replies_by_its_own_rows(skew: float, is_applied: bool) -> None:
    """However wrong `Date` is, one row of an accepted server dates the rows of all: nothing is doubled, or in doubt."""
    report, cycles = restart(8, skew=skew, lost=4, is_applied=is_applied)

    assert report.summary == {Outcome.COMPLETED: 8}
    assert cycles == [1] * 8


@pytest.mark.parametrize("skew", [-600.0, -90.0])
def test_fleet_does_not_take_an_earlier_reboot_for_its_own(skew: float) -> None:
    """A `Date` that is behind does not make a reboot of a minute before ours."""
    report, cycles = restart(4, skew=skew, lost=1, is_applied=False, rebooted=60.0)

    assert report.summary == {Outcome.COMPLETED: 4}
    assert cycles == [1] * 4


@pytest.mark.parametrize("skew", [90.0, 600.0, 890.0])
def test_lone_server_is_not_sent_to_twice(skew: float) -> None:
    """Without a row to compare with, a reboot of up to 15 minutes before may be the one whose reply was lost."""
    report, cycles = restart(1, skew=skew, lost=1, is_applied=True)

    assert cycles == [1]
    assert [(result.outcome, result.reason) for result in report] == [("in_doubt", "unanswered")]


@pytest.mark.parametrize("skew", [-3e8, -600.0])
def test_lone_server_does_not_take_a_row_of_the_future(skew: float) -> None:
    """Without a row to compare with, a clock that makes the log come from the future dates nothing."""
    report, cycles = restart(1, skew=skew, lost=1, is_applied=False, rebooted=60.0)

    assert [(result.outcome, result.reason) for result in report] == [("in_doubt", "unanswered")]
    assert cycles == [0]


def test_log_that_is_kept_from_us_is_asked_once() -> None:
    """A row that may not be read is not asked for again at every look."""

    async def main() -> None:
        cloud = cloud_of(8)
        cloud.log_access = LogAccess.FORBIDDEN
        for server_id in cloud.ids[4:]:
            cloud.script(server_id, Fault.no_reply(applied=False))
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(cloud.ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 4, Outcome.IN_DOUBT: 4}
        accepted = cloud.ids[:4]
        reads = [record for record in cloud.requests if record.call is Call.LOG and record.server_id in accepted]
        assert len(reads) == 1

    virtually(main)


@pytest.mark.parametrize("skew", [70.0, 1200.0])
def test_servers_are_seen_to_be_back_by_a_wrong_date(skew: float) -> None:
    """A `Date` that is ahead hides changes from the list, but not for the whole of the wait."""

    async def main() -> None:
        cloud = cloud_of(8, date_skew=skew, reboot_seconds=(10.0, 10.0))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=3600.0)
        assert report.summary == {Outcome.COMPLETED: 8}
        assert report.elapsed < 90.0

    virtually(main)


def test_row_that_is_late_dates_the_log_all_the_same() -> None:
    """A witness is kept until its row is shown, though newer ones come."""

    async def main() -> None:
        cloud = cloud_of(20, date_skew=1200.0, log_delay=3.0, latency=1.0)
        for server_id in cloud.ids[4:7]:
            cloud.script(server_id, Fault.no_reply(applied=True))
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 20}

    virtually(main)


def test_witness_that_is_slow_is_awaited() -> None:
    """While one look asks what time the log has, no other decides without it, nor asks as well."""

    async def main() -> None:
        cloud = cloud_of(8, date_skew=1200.0)
        cloud.script(cloud.ids[0], Fault.slow(40.0), call=Call.LOG)
        for server_id in cloud.ids[1:]:
            cloud.script(server_id, Fault.no_reply(applied=True))
        async with client_of(cloud, max_at_once=20) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 8}

    virtually(main)


@pytest.mark.parametrize("skew", [-60.0, -25.0, 25.0, 60.0])
@pytest.mark.parametrize("lag", [5.0, 10.0, 25.0])
@pytest.mark.parametrize("saved", [1.0, 20.0, 50.0])
def test_state_from_before_the_reboot_by_a_clock_that_is_off(skew: float, lag: float, saved: float) -> None:
    """If only states tell, no server is reported back before its reboot has ended, whatever `updated` says of it."""

    async def main() -> None:
        cloud = Cloud(
            6, clock=lambda: EPOCH + trio.current_time(), reboot_seconds=(24.0, 24.0), view_lag=lag, log_skew=skew
        )
        cloud.log_access = LogAccess.FORBIDDEN
        await trio.sleep(1000.0)
        for server_id in cloud.ids:
            cloud.change(server_id, name="renamed")
        await trio.sleep(saved)
        async with client_of(cloud) as client, client.restarting(cloud.ids) as run:
            async for result in run:
                assert (result.outcome, result.proof) == (Outcome.COMPLETED, Proof.STATE)
                assert cloud.server(result.server_id).task_state is None
                assert cloud.cycles[result.server_id] == 1

    virtually(main)


@pytest.mark.parametrize("access", [LogAccess.FORBIDDEN, LogAccess.MISSING, LogAccess.EMPTY])
@pytest.mark.parametrize("skew", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize("lag", [45.0, 90.0, 150.0])
def test_view_that_lags_beyond_what_is_allowed_for(access: LogAccess, skew: float, lag: float) -> None:
    """A server that is shown as it was saved long before the send was not seen since: it is not back yet."""

    async def main() -> None:
        cloud = Cloud(
            3, clock=lambda: EPOCH + trio.current_time(), reboot_seconds=(120.0, 120.0), view_lag=lag, date_skew=skew
        )
        cloud.log_access = access
        await trio.sleep(1000.0)
        async with client_of(cloud) as client, client.restarting(cloud.ids) as run:
            async for result in run:
                assert (result.outcome, result.proof) == (Outcome.COMPLETED, Proof.STATE)
                assert cloud.cycles[result.server_id] == 1
                assert cloud.server(result.server_id).task_state is None

    virtually(main)


@pytest.mark.parametrize("access", [LogAccess.FORBIDDEN, LogAccess.MISSING, LogAccess.EMPTY])
def test_acceptance_of_a_gateway_that_changes_nothing(access: LogAccess) -> None:
    """Where only states tell, a server that nothing has saved since the send is in doubt, and not completed."""

    async def main() -> None:
        cloud = cloud_of(3)
        cloud.log_access = access
        for server_id in cloud.ids:
            cloud.script(server_id, Fault.respond(202))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=120.0)
        assert {(result.outcome, result.reason) for result in report} == {(Outcome.IN_DOUBT, "unanswered")}
        assert set(cloud.cycles.values()) <= {0}

    virtually(main)
