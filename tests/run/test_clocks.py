"""A gateway whose `Date` is wrong: the rows of the run's own reboots tell what time the action log has."""

import pytest
import trio

from bulkrestart import Outcome, Report
from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, CloudClock, LogTime
from bulkrestart.core.model import Action, RebootType
from bulkrestart.core.progress import Order, Progress
from bulkrestart.core.record import LogFacts
from bulkrestart.core.sends import Sends
from bulkrestart.run.knowledge import LogKnowledge, Witness
from bulkrestart.simulator import Call, Fault, LogAccess
from tests.virtual import assert_accounted, client_of, cloud_of, virtually


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
        assert [record.call for record in cloud.requests].count(Call.LOG_ROW) == 1

    virtually(main)


def sent_at(least: float, most: float, *, is_former: bool = False) -> Progress:
    """Give a server with a send of unknown fate that left between these moments, as `Date` shows them."""
    order = Order(reboot_type=RebootType.SOFT)
    sends = Sends(since=(least, most), is_since_former=is_former)
    return Progress(server_id="server", order=order, reboot_type=order.reboot_type, sends=sends)


def test_what_a_former_process_noted() -> None:
    """A former process's sends are read by the shift that it knew, loosely, and ours by our own alone."""
    clock = CloudClock()

    async def main() -> None:
        clock.learn(1000.0, sent=trio.current_time(), received=trio.current_time())
        knowledge = LogKnowledge(clock, LogFacts(is_proven=True, user_id="we", shift=(-300.0, -299.0)))
        former, ours = sent_at(500.0, 502.0, is_former=True), sent_at(1000.0, 1002.0)
        assert knowledge.log_time(former) == LogTime((200.0, 203.0), 1001.0, UNCHECKED_SKEW)
        assert knowledge.log_time(ours) == LogTime((1000.0, 1002.0), 1001.0, UNCHECKED_SKEW)
        knowledge.compare(
            (Action(action="reboot", request_id="req-1", start_time=1100.0),),
            Witness("server", "req-1", (1000.0, 1001.0)),
        )
        assert knowledge.log_time(ours) == LogTime((1098.5, 1103.0), 1102.0, SKEW)

    virtually(main)


def test_row_of_another_request_is_no_witness() -> None:
    """A cloud that shows another row than the one that was asked for tells nothing of its log's time."""
    clock = CloudClock()
    witness = Witness("server", "req-1", (1000.0, 1002.0))
    other = Action(action="reboot", request_id="req-2", start_time=5000.0)

    async def main() -> None:
        clock.learn(1000.0, sent=trio.current_time(), received=trio.current_time())
        knowledge = LogKnowledge(clock, LogFacts())
        knowledge.compare((other,), witness)
        assert knowledge.log_time(sent_at(1000.0, 1002.0)) == LogTime((1000.0, 1002.0), 1001.0, UNCHECKED_SKEW)
        assert not knowledge.facts.is_proven

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
        cloud.script(cloud.ids[0], Fault.slow(40.0), call=Call.LOG_ROW)
        for server_id in cloud.ids[1:]:
            cloud.script(server_id, Fault.no_reply(applied=True))
        async with client_of(cloud, max_at_once=20) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 8}

    virtually(main)


@pytest.mark.parametrize("ahead", [90.0, 600.0])
def test_gateways_that_contradict_each_other_date_nothing_closely(ahead: float) -> None:
    """Where one gateway's `Date` is ahead of another's, a row that one of them dates does not vouch for the other."""
    clock = CloudClock()

    async def main() -> None:
        now = trio.current_time()
        clock.learn(1000.0, sent=now, received=now)
        knowledge = LogKnowledge(clock, LogFacts())
        witness = Witness("server", "req-1", (1000.0, 1001.0))
        knowledge.note(witness)
        knowledge.compare((Action(action="reboot", request_id="req-1", start_time=1000.0),), witness)
        clock.learn(1000.0 + ahead, sent=now, received=now)
        log_time = knowledge.log_time(sent_at(1000.0 + ahead, 1001.0 + ahead))
        assert log_time is not None
        assert log_time.skew == SKEW + ahead - 1.0

    virtually(main)


def test_send_that_took_long_is_no_witness() -> None:
    """A row that was written at any time of a long send dates nothing."""
    knowledge = LogKnowledge(CloudClock(), LogFacts())
    knowledge.note(Witness("server", "req-1", (1000.0, 1010.5)))
    assert knowledge.witness is None
