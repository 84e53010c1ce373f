"""A gateway whose `Date` is wrong: the rows of the run's own reboots tell what time the action log has."""

import pytest
import trio

from bulkrestart import Outcome, Report
from bulkrestart.simulator import Fault
from tests.virtual import client_of, cloud_of, virtually


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
