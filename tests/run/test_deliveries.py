"""A send that something on the way delivers twice: what is sent again, and what becomes of the server."""

from collections import deque
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack

import pytest
import trio

from bulkrestart import Outcome, Reason, Report, Rollout, ServerResult
from bulkrestart.core.model import RebootType
from bulkrestart.simulator import Call, Cloud, Fault, HostFault, LogRow, RequestIds
from bulkrestart.simulator.records import SimulatedServer
from tests.virtual import EPOCH, REGARDLESS, client_of, cloud_of, end_of, virtually


class Cloudy(TypedDict, total=False):
    """How the cloud shows what it did."""

    date_skew: float
    reboot_seconds: tuple[float, float]
    request_ids: RequestIds
    has_date: bool


def delivered(
    *faults: Fault, reboot_type: RebootType = RebootType.SOFT, witnesses: int = 0, **cloudy: Unpack[Cloudy]
) -> tuple[ServerResult, int, int]:
    """Restart a server whose sends meet these faults, after others that meet none.

    Returns:
        Its result, the sends of ours to it, and how often its guest was cycled.
    """

    async def main() -> tuple[ServerResult, int, int]:
        cloud = cloud_of(witnesses + 1, **cloudy)
        server_id = cloud.ids[-1]
        cloud.script(server_id, *faults)
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type)
        return report[server_id], cloud.posts[server_id], cloud.cycles[server_id]

    return virtually(main)


@pytest.mark.parametrize("witnesses", [0, 4])
@pytest.mark.parametrize("request_ids", RequestIds)
@pytest.mark.parametrize("reboot_type", RebootType)
def test_refusal_of_the_second_delivery_is_not_taken_for_ours(
    reboot_type: RebootType, request_ids: RequestIds, witnesses: int
) -> None:
    """The first delivery is found in the log whatever the second was answered with: nothing is sent again."""
    result, posts, cycles = delivered(
        Fault.delivered_twice(1.0), reboot_type=reboot_type, witnesses=witnesses, request_ids=request_ids
    )

    assert (result.outcome, posts, cycles) == (Outcome.COMPLETED, 1, 1)


@pytest.mark.parametrize("date_skew", [5.0, 60.0])
def test_lone_server_whose_log_is_behind_is_in_doubt(date_skew: float) -> None:
    """With nothing to date the log by, a reboot that seems to precede the send may be ours: it is not sent again."""
    result, posts, cycles = delivered(Fault.delivered_twice(1.0), date_skew=date_skew)

    assert (result.outcome, result.reason, posts, cycles) == (Outcome.IN_DOUBT, Reason.UNANSWERED, 1, 1)


@pytest.mark.parametrize("has_date", [True, False])
@pytest.mark.parametrize("request_ids", RequestIds)
def test_fleet_dates_the_log_without_ids_and_without_a_date(request_ids: RequestIds, has_date: bool) -> None:
    """Servers that were accepted before date the log, also where a gateway hides its ids, its `Date`, or both."""
    result, posts, cycles = delivered(
        Fault.delivered_twice(1.0), witnesses=6, date_skew=30.0, request_ids=request_ids, has_date=has_date
    )

    assert (result.outcome, posts, cycles) == (Outcome.COMPLETED, 1, 1)


@pytest.mark.parametrize("reboot_type", RebootType)
def test_request_that_is_accepted_at_its_second_delivery_is_not_sent_again(reboot_type: RebootType) -> None:
    """A request that met a passing task, and was delivered once more when that was over, is found before the next."""
    result, posts, cycles = delivered(
        Fault(applied_after=0.0, task_state="image_snapshot", task_seconds=5.0, again_after=5.01, answered_by="first"),
        reboot_type=reboot_type,
        reboot_seconds=(0.3, 0.3),
    )

    assert (result.outcome, posts, cycles) == (Outcome.COMPLETED, 1, 1)
    assert [attempt.answer for attempt in result.attempts] == ["409 conflictingRequest"]


@pytest.mark.parametrize(
    "log", [Fault.error(500), Fault.error(403), Fault.no_reply(applied=False)], ids=["500", "403", "lost"]
)
def test_log_that_fails_before_the_next_send_does_not_hold_it_up(log: Fault) -> None:
    """A refusal for a passing task says that nothing was started: where the log does not answer, that is enough."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.script(server_id, Fault.busy(3.0))
        cloud.script(server_id, log, call=Call.LOG)
        async with client_of(cloud) as client:
            [result] = await client.restart(cloud.ids)
        assert (result.outcome, cloud.posts[server_id], cloud.cycles[server_id]) == (Outcome.COMPLETED, 2, 1)

    virtually(main)


def test_reboot_by_another_user_after_a_refusal_counts() -> None:
    """A server that another user rebooted after our send was refused is not rebooted once more."""

    async def main() -> None:
        cloud = cloud_of(5)
        server_id = cloud.ids[-1]
        cloud.script(server_id, Fault.busy(20.0))
        cloud.script(cloud.ids[0], Fault.no_reply(applied=True))
        cloud.later(20.1, lambda: cloud.reboot_by_other(server_id))
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 5}
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (1, 1)

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("request_ids", RequestIds)
@pytest.mark.parametrize(("date_skew", "has_date"), [(5.0, True), (-5.0, True), (0.0, True), (0.0, False)])
@pytest.mark.parametrize("wait_timeout", [20.0, 600.0])
def test_reboot_that_never_reached_the_guest_has_failed(
    request_ids: RequestIds, date_skew: float, has_date: bool, wait_timeout: float
) -> None:
    """A row with Error is found whatever a gateway does to ids and clocks, also where the wait ends early."""

    async def main() -> None:
        cloud = cloud_of(3, request_ids=request_ids, date_skew=date_skew, has_date=has_date)
        for server_id in cloud.ids:
            cloud.break_host(server_id, HostFault.REVERTED)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=wait_timeout, rollout=REGARDLESS)
        assert {(result.outcome, result.reason) for result in report} == {(Outcome.FAILED, Reason.NOT_REBOOTED)}

    virtually(main)


class _Behind(Cloud):
    """A cloud of which the next readings of the last server's action log are so many seconds behind."""

    @cached_property
    def behind(self) -> deque[float]:
        """The seconds, one reading each."""
        return deque()

    def log(self, server: SimulatedServer) -> list[LogRow]:
        """Return the log as it was then."""
        behind = self.behind.popleft() if self.behind and server.id == self.ids[-1] else 0.0
        at = self.now - behind
        return [row.seen(at, ahead=0.0) for row in reversed(server.log) if row.start_time <= at]


@pytest.mark.parametrize(
    ("request_ids", "readings"),
    # By an id that an answer carried, its row is read before the whole log is.
    [(RequestIds.HIDDEN, 0), (RequestIds.SHOWN, 1), (RequestIds.REPLACED, 1)],
)
def test_delivery_that_ends_in_error_while_the_log_is_read_does_not_stand_for_the_other(
    request_ids: RequestIds, readings: int
) -> None:
    """The whole log showed two rows under way, and one of them, read singly, an Error: the other one counts."""

    async def main() -> None:
        cloud = _Behind(
            4, clock=lambda: EPOCH + trio.current_time(), reboot_seconds=(3.0, 3.0), request_ids=request_ids
        )
        server_id = cloud.ids[-1]
        cloud.script(server_id, Fault.delivered_twice(0.01))
        cloud.behind.extend([*[0.0] * readings, 2.5])
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, reboot_type="HARD")
        assert {row.result for row in cloud.server(server_id).log if row.action == "reboot"} == {"Success", "Error"}
        assert report[server_id].outcome is not Outcome.FAILED
        assert not cloud.behind

    virtually(main)


@pytest.mark.parametrize(
    "fault", [Fault.no_reply(applied=False), Fault.error(500), Fault.cut_short(200, b"{", applied=False)]
)
def test_delivery_that_ended_in_error_is_not_judged_without_the_whole_log(fault: Fault) -> None:
    """The row of our answer ended in Error, and the read of the log that shows the other one fails a few times."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(3.0, 3.0))
        [server_id] = cloud.ids
        cloud.script(server_id, Fault.delivered_twice(0.01))
        cloud.script(server_id, *[fault] * 3, call=Call.LOG)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, reboot_type="HARD")
        assert {row.result for row in cloud.server(server_id).log if row.action == "reboot"} == {"Success", "Error"}
        assert report[server_id].outcome is Outcome.COMPLETED

    virtually(main)


@pytest.mark.parametrize("reboot_type", RebootType)
@pytest.mark.parametrize("date_skew", [3.0, 30.0])
def test_request_that_is_accepted_later_by_a_wrong_date_is_not_sent_again(
    reboot_type: RebootType, date_skew: float
) -> None:
    """Where the clocks do not tell whether a reboot of ours preceded the refused send, nothing is sent again."""
    result, posts, cycles = delivered(
        met_a_task(seconds=1.0, again_after=1.01),
        reboot_type=reboot_type,
        reboot_seconds=(0.3, 0.3),
        date_skew=date_skew,
    )

    assert (result.outcome, result.reason, posts, cycles) == (Outcome.IN_DOUBT, Reason.UNANSWERED, 1, 1)


def test_fleet_tells_that_a_refused_request_was_accepted_later() -> None:
    """Servers that were accepted before date the log, so that the second delivery is found for what it is."""
    result, posts, cycles = delivered(
        met_a_task(seconds=1.0, again_after=1.01), reboot_seconds=(0.3, 0.3), date_skew=30.0, witnesses=4
    )

    assert (result.outcome, posts, cycles) == (Outcome.COMPLETED, 1, 1)


def met_a_task(*, seconds: float, again_after: float) -> Fault:
    """Let a request meet a passing task, and be delivered once more later; we get the first answer."""
    return Fault(
        applied_after=0.0,
        task_state="image_snapshot",
        task_seconds=seconds,
        again_after=again_after,
        answered_by="first",
    )


def test_server_that_the_second_delivery_left_in_error_was_not_refused() -> None:
    """A state in which nothing is sent may be what a refused request has led to, delivered once more."""

    async def main() -> None:
        cloud = cloud_of(2, reboot_seconds=(0.3, 0.3))
        broken, locked = cloud.ids
        for server_id in cloud.ids:
            cloud.script(server_id, met_a_task(seconds=1.0, again_after=1.01))
        cloud.break_host(broken, HostFault.DEAD)
        cloud.later(1.02, lambda: cloud.change(locked, locked=True))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert [end_of(result) for result in report] == [
            (Outcome.FAILED, Reason.ERROR),
            (Outcome.COMPLETED, None),
        ]
        assert cloud.posts.total() == 2

    virtually(main)


@pytest.mark.parametrize("kills", [1, 2])
def test_process_that_ended_after_the_refusal(tmp_path: Path, kills: int) -> None:
    """The next process, or the one after it, finds in the log that the refused request was delivered once more."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(0.3, 0.3))
        [server_id] = cloud.ids
        cloud.script(server_id, met_a_task(seconds=1.0, again_after=1.5))
        async with client_of(cloud) as client:
            for _ in range(kills):
                with trio.move_on_after(0.1):
                    await client.restart(cloud.ids, journal=tmp_path / "journal")
            await trio.sleep(60.0)
            [result] = await client.restart(cloud.ids, journal=tmp_path / "journal")
        assert (result.outcome, cloud.posts[server_id], cloud.cycles[server_id]) == (Outcome.COMPLETED, 1, 1)

    virtually(main)


async def say_no(_: Report) -> bool:
    """Stop the run between two waves."""
    return False


@pytest.mark.unmeasured
@pytest.mark.parametrize("reboot_type", RebootType)
@pytest.mark.parametrize("request_ids", RequestIds)
def test_run_that_goes_on_as_another_user_does_not_take_its_own_reboot_for_another_users(
    tmp_path: Path, reboot_type: RebootType, request_ids: RequestIds
) -> None:
    """By the journal we are the first process's user: a row of the second's may be ours all the same."""

    async def main() -> None:
        cloud = cloud_of(6, reboot_seconds=(0.3, 0.3), date_skew=5.0, request_ids=request_ids)
        cloud.add_token("another-token", user_id="another-user")
        last = cloud.ids[-1]
        for server_id in (cloud.ids[0], last):
            cloud.script(server_id, Fault.no_reply(applied=True))
        settings: dict[str, Any] = {"journal": tmp_path / "journal", "reboot_type": reboot_type}
        only_canary = Rollout(canary=5, pause=say_no)
        async with client_of(cloud, max_at_once=1, max_per_second=0.1) as client:
            await client.restart(cloud.ids, rollout=only_canary, **settings)
        assert not cloud.posts[last]
        async with client_of(cloud, max_at_once=1, token="another-token") as client:
            report = await client.restart(cloud.ids, **settings)
        assert end_of(report[last]) == (Outcome.IN_DOUBT, Reason.UNANSWERED)
        assert (cloud.posts[last], cloud.cycles[last]) == (1, 1)

    virtually(main)
