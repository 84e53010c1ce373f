"""How fast a client goes: its rate, who goes first, and what a slow or a throttling cloud makes of it."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise

import pytest
import trio

from bulkrestart import EndpointError, Outcome, Rollout, StopReason
from bulkrestart.simulator import Call, Cloud, Fault
from tests.virtual import assert_accounted, client_of, cloud_of, slow_down, virtually

pytestmark = pytest.mark.unmeasured

WINDOW = b'{"error_msg": "policy user over ratelimit,limit:%d,time:%d %s", "error_code": "APIGW.0308"}'


def busiest(times: Sequence[float], seconds: float) -> int:
    """Give the most requests that arrived within a span."""
    return max(sum(0.0 <= time - first < seconds - 1e-6 for time in times) for first in times)


def arrivals(cloud: Cloud, *calls: Call) -> list[float]:
    """Give when requests arrived, in seconds since the first; of some kinds, or of all."""
    began = cloud.requests[0].time
    return [record.time - began for record in cloud.requests if not calls or record.call in calls]


@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
def test_max_per_second_counts_whatever_is_asked(reboot_type: str) -> None:
    """Sends, looks, polls and proofs together are no more in any second than was allowed."""

    async def main() -> None:
        cloud = cloud_of(60, reboot_seconds=(5.0, 9.0))
        for server_id in cloud.ids[:10]:
            cloud.script(server_id, Fault.no_reply(applied=True))
        async with client_of(cloud, max_per_second=10.0) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type)
        assert report.summary == {Outcome.COMPLETED: 60}
        assert busiest(arrivals(cloud), 1.0) <= 10
        assert {Call.REBOOT, Call.SHOW, Call.LOG, Call.LOG_ROW} <= {record.call for record in cloud.requests}
        sends = arrivals(cloud, Call.REBOOT)
        assert sends[-1] - sends[0] < 60 / 10.0 + 4.0

    virtually(main)


def test_max_per_second_is_of_the_client() -> None:
    """Two runs and a listing share one rate."""

    async def main() -> None:
        cloud = cloud_of(60)

        async def read(client_servers: Callable[[], object]) -> None:
            assert len([server async for server in client.servers()]) == 60

        async with client_of(cloud, max_per_second=20.0) as client, trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.restart, cloud.ids[:30], wait=False))
            nursery.start_soon(partial(client.restart, cloud.ids[30:], wait=False))
            nursery.start_soon(read, client.servers)
        assert busiest(arrivals(cloud), 1.0) <= 20
        assert sum(cloud.posts.values()) == 60

    virtually(main)


def test_no_burst_after_idle() -> None:
    """A client that has sent nothing for an hour begins as slowly as any."""

    async def main() -> None:
        cloud = cloud_of(40)
        async with client_of(cloud, max_per_second=5.0) as client:
            await client.restart(cloud.ids[:10], wait=False)
            await trio.sleep(3600.0)
            await client.restart(cloud.ids[10:], wait=False)
        times = arrivals(cloud)
        assert min(later - earlier for earlier, later in pairwise(times)) == pytest.approx(0.2)

    virtually(main)


def test_a_look_before_its_send_is_paid_for() -> None:
    """With `since` a look leaves right before its send; on the whole the rate is kept."""

    async def main() -> None:
        cloud = cloud_of(30)
        since = datetime(2026, 1, 1, tzinfo=UTC)
        async with client_of(cloud, max_per_second=4.0) as client:
            report = await client.restart(cloud.ids, since=since, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 30}
        times = arrivals(cloud)
        assert len(times) / (times[-1] - times[0]) < 4.2
        assert busiest(times, 10.0) <= 42

    virtually(main)


def test_no_slot_is_held_by_who_waits_for_the_rate() -> None:
    """Of two that may be in flight at once, none is in flight while both wait for the rate."""

    async def main() -> None:
        cloud = cloud_of(10)
        seen = []

        async def watch() -> None:
            while True:
                await trio.sleep(0.5)
                seen.append(client._request_limiter.admission.in_flight)

        async with client_of(cloud, max_at_once=2, max_per_second=1.0) as client, trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.sleep(0.25)
            await client.restart(cloud.ids, wait=False)
            nursery.cancel_scope.cancel()
        assert len(seen) >= 20
        assert not any(seen)

    virtually(main)


def test_polls_and_looks_go_before_sends() -> None:
    """At one request a second a lost reply is looked for, and who is accepted is polled, before the rest is sent."""

    async def main() -> None:
        cloud = cloud_of(200, reboot_seconds=(3.0, 3.0))
        cloud.script(cloud.ids[0], Fault.no_reply(applied=True))
        async with client_of(cloud, max_per_second=1.0) as client, client.restarting(cloud.ids) as run:
            await trio.sleep(60.0)
            back = run.report.summary[Outcome.COMPLETED]
        assert back >= 8
        [lost] = [record.time for record in cloud.requests if record.status is None]
        assert Call.REBOOT not in {record.call for record in cloud.requests if lost < record.time <= lost + 2.0}

    virtually(main)


def test_sends_of_another_run_do_not_keep_polls_waiting() -> None:
    """Who comes first of two runs is decided by what is asked, not by who asks."""

    async def main() -> None:
        cloud = cloud_of(205, reboot_seconds=(1.0, 1.0))
        async with client_of(cloud, max_per_second=1.0) as client, trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.restart, cloud.ids[5:]))
            await trio.sleep(10.0)
            began = trio.current_time()
            async with client.restarting(cloud.ids[:1]) as run:
                # Its own send has to wait for its turn among the others; then its polls go first.
                async for _ in run:
                    pass
            assert trio.current_time() - began < 240.0
            assert run.report.summary == {Outcome.COMPLETED: 1}
            nursery.cancel_scope.cancel()

    virtually(main)


def test_a_narrow_run_does_not_keep_the_others_waiting() -> None:
    """While one run uses all of its own bound, the requests of another pass it by."""

    async def main() -> None:
        cloud = cloud_of(40)
        slow_down(cloud, 100.0, but=cloud.ids[20:])
        async with client_of(cloud, max_at_once=5) as client, trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.restart, cloud.ids[:20], wait=False, max_at_once=1))
            await trio.sleep(1.0)
            began = trio.current_time()
            report = await client.restart(cloud.ids[20:], wait=False)
            assert report.summary == {Outcome.ACCEPTED: 20}
            assert trio.current_time() - began < 1.0
            nursery.cancel_scope.cancel()

    virtually(main)


@pytest.mark.unmeasured
def test_one_throttled_answer_at_two_hundred_at_once() -> None:
    """A 429 with Retry-After 3 holds all for 3 s beyond what was in flight; then one probes, and the others follow."""

    async def main() -> None:
        cloud = cloud_of(2000)
        slow_down(cloud, 0.5, but={cloud.ids[300]})
        cloud.script(cloud.ids[300], Fault.throttled(3.0))
        async with client_of(cloud, max_at_once=200) as client:
            report = await client.restart(cloud.ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 2000}
        [hit] = [record.time for record in cloud.requests if record.status == 429]
        later = sorted(record.time - hit for record in cloud.requests if record.time > hit)
        assert later[0] >= 3.0
        flights = [sum(begin <= time < begin + 0.4 for time in later) for begin in (3.0, 3.5, 4.0, 4.5, 5.0)]
        assert flights == [1, 2, 4, 8, 16]

    virtually(main)


@pytest.mark.parametrize(("seconds", "told"), [(3.0, 0), (60.0, 1), (2000.0, 0)])
def test_a_long_hold_is_told_once(seconds: float, told: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks on learns why nothing goes on, once, and of one that is too long that it stops the run."""

    async def main() -> None:
        cloud = cloud_of(50)
        for server_id in cloud.ids[10:20]:
            cloud.script(server_id, Fault(answer=Fault.throttled(seconds).answer, answered_after=0.5))
        async with client_of(cloud, max_at_once=50) as client:
            report = await client.restart(cloud.ids, wait=False)
        assert (report.stopped is None) is (seconds < 900.0)

    with caplog.at_level(logging.WARNING, "bulkrestart"):
        virtually(main)
    said = [record.getMessage() for record in caplog.records if "all requests paused" in record.getMessage()]
    assert len(said) == told
    assert all(words.startswith("the cloud is rate-limiting (429 ") for words in said)
    assert all(words.endswith("; all requests paused for 60 s") for words in said)


def test_a_throttled_answer_that_comes_late_holds_nobody() -> None:
    """Once a hold is over, an answer to a request from before it says nothing new: nobody waits, and nothing ramps."""

    async def main() -> None:
        cloud = cloud_of(200)
        slow_down(cloud, 0.5, but=cloud.ids[:2])
        # Not before all of the first ten have left.
        cloud.script(cloud.ids[0], Fault(answer=Fault.throttled(None).answer, answered_after=0.1))
        cloud.script(cloud.ids[1], Fault(answer=Fault.throttled(None).answer, answered_after=8.0))
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 200}
        assert [record.status for record in cloud.requests].count(429) == 2
        times = [time for time in arrivals(cloud, Call.REBOOT) if time > 2.0]
        assert max(later - earlier for earlier, later in pairwise(times)) <= 0.5 + 1e-6

    virtually(main)


@pytest.mark.parametrize(("faulty", "least", "most"), [(1, 40, 40), (4, 40, 40), (30, 1, 20)])
def test_an_overloaded_cloud_gets_half(faulty: int, least: int, most: int) -> None:
    """A few 503 change nothing; if many requests that left together get a 503, the limit is halved."""

    async def main() -> None:
        cloud = cloud_of(400)
        busy = cloud.ids[40 : 40 + faulty]
        slow_down(cloud, 1.0, but=set(busy))
        for server_id in busy:
            cloud.script(server_id, Fault(answer=Fault.error(503).answer, answered_after=1.0))
        async with client_of(cloud, max_at_once=40) as client, client.restarting(cloud.ids) as run:
            await trio.sleep(2.5)
            cloud.peak_posts_in_flight = 0
            await trio.sleep(0.7)
            run.stop()
        assert least <= cloud.peak_posts_in_flight <= most

    virtually(main)


def test_time_outs_halve() -> None:
    """An API that queues more than it can answer in time gets less at once, until it answers in time."""

    async def main() -> None:
        cloud = cloud_of(300, capacity=(2, 1.0))
        async with client_of(cloud, max_at_once=100) as client:
            report = await client.restart(cloud.ids, request_timeout=20.0, server_timeout=9000.0)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 300}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


def test_a_rate_that_the_cloud_keeps_is_found() -> None:
    """Behind a limit of 30 a minute 120 servers are restarted, each once, with few refusals on the way."""

    async def main() -> None:
        cloud = cloud_of(120, rate_limit=(30, 60.0))
        async with client_of(cloud, max_at_once=50) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 120}
        assert sum(record.status == 429 for record in cloud.requests) < 60

    virtually(main)


def test_retry_after_zero_is_no_leave_to_hammer() -> None:
    """A cloud that throttles for a minute and asks to wait for 0 s is asked ever more rarely."""

    async def main() -> None:
        cloud = cloud_of(20)
        slow_down(cloud, 0.1)
        cloud.outage = Fault.respond(429, headers={"retry-after": "0"})
        cloud.later(60.0, lambda: setattr(cloud, "outage", None))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 20}
        assert sum(record.status == 429 for record in cloud.requests) < 10

    virtually(main)


@pytest.mark.parametrize(
    "said", ["soon", "-5", "1e9", "nan", "Wed, 99 Nov 2026 25:61:61 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"]
)
def test_nonsense_is_backoff(said: str) -> None:
    """A Retry-After that says nothing makes everybody wait as if there were none."""

    async def main() -> None:
        cloud = cloud_of(20)
        slow_down(cloud, 0.1, but={cloud.ids[5]})
        cloud.script(cloud.ids[5], *[Fault.respond(429, headers={"retry-after": said})] * 3)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 20}
        assert 1.0 < report.elapsed < 30.0

    virtually(main)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.throttled(1900.0), id="Retry-After"),
        pytest.param(Fault.respond(503, headers={"retry-after": "3600"}), id="maintenance"),
        pytest.param(Fault.respond(429, headers={"x-ratelimit-reset": "2000"}), id="x-ratelimit-reset"),
        pytest.param(Fault.respond(429, WINDOW % (1000, 1, b"hour")), id="APIGW.0308"),
        pytest.param(Fault.respond(429, headers={"retry-after": "2592000"}), id="a month"),
    ],
)
def test_more_than_half_an_hour_stops_the_run(fault: Fault) -> None:
    """Nobody waits for an hour: the run stops at once, says for how long it was asked to wait, and what to do."""

    async def main() -> None:
        cloud = cloud_of(100, reboot_seconds=(60.0, 60.0))
        slow_down(cloud, 1.0, but={cloud.ids[45]})
        cloud.script(cloud.ids[45], fault)
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
            assert report.stopped is not None
            assert report.stopped.reason is StopReason.OUTAGE
            assert "asks to wait for" in report.stopped.detail
            assert "what is left can be restarted after that" in report.stopped.detail
            assert report.elapsed < 10.0
            assert report.summary[Outcome.SKIPPED] >= 50
            assert Outcome.COMPLETED not in report.summary
            sent = len(cloud.requests)
            with pytest.raises(EndpointError, match=r"asks to wait for .* nothing was sent"):
                await client.restart(cloud.ids)
            assert len(cloud.requests) == sent

    virtually(main)


@pytest.mark.parametrize("seconds", [60.0, 900.0])
def test_a_run_that_is_stopped_does_not_sit_out_a_hold(seconds: float) -> None:
    """Whoever waits to send learns at once that the run has stopped; what was accepted is followed after the hold."""

    async def main() -> None:
        cloud = cloud_of(60)
        slow_down(cloud, 0.5, but={cloud.ids[25]})
        cloud.script(cloud.ids[25], Fault.throttled(seconds))
        async with client_of(cloud, max_at_once=10) as client, client.restarting(cloud.ids, wait=False) as run:
            await trio.sleep(5.0)
            run.stop()
            async for _ in run:
                pass
            assert trio.current_time() < 6.0
        assert_accounted(run.report, cloud)

    virtually(main)


def test_a_run_that_is_stopped_does_not_sit_out_a_hold_before_its_next_send() -> None:
    """What is seen before a HARD is of no use to a run that has stopped: it does not wait for leave to see it."""

    async def main() -> None:
        cloud = cloud_of(60, reboot_seconds=(2.0, 2.0))
        for server_id in cloud.ids[1:]:
            cloud.script(server_id, Fault.throttled(600.0), call=Call.SHOW)
        # The states that were read before the run are too old for a HARD by then.
        rollout = Rollout(canary=1, pause=120.0)
        async with (
            client_of(cloud) as client,
            client.restarting(cloud.ids, reboot_type="HARD", rollout=rollout) as run,
        ):
            await trio.sleep(150.0)
            run.stop()
            async for _ in run:
                pass
            assert trio.current_time() < 151.0
        assert run.report.summary == {Outcome.COMPLETED: 1, Outcome.SKIPPED: 59}
        assert any(record.status == 429 for record in cloud.requests)

    virtually(main)


def test_a_stopped_run_still_follows_what_it_sent_after_the_hold() -> None:
    """Polls are not sends: they wait for the end of the hold, and then the accepted are seen to be back."""

    async def main() -> None:
        cloud = cloud_of(60)
        slow_down(cloud, 0.5, but={cloud.ids[25]})
        cloud.script(cloud.ids[25], Fault.throttled(60.0))
        async with client_of(cloud, max_at_once=10) as client, client.restarting(cloud.ids) as run:
            await trio.sleep(5.0)
            run.stop()
            async for _ in run:
                pass
        assert_accounted(run.report, cloud)
        assert run.report.summary[Outcome.COMPLETED] >= 20
        assert set(run.report.summary) == {Outcome.COMPLETED, Outcome.REFUSED, Outcome.SKIPPED}
        [hit] = [record.time for record in cloud.requests if record.status == 429]
        assert min(record.time for record in cloud.requests if record.time > hit) >= hit + 60.0

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize(("capacity", "most"), [(1, 72), (4, 72), (12, 72)])
def test_latency_finds_what_the_api_bears(capacity: int, most: int) -> None:
    """An API that works on a few at once is sent not many more, and is never idle for it."""

    async def main() -> None:
        cloud = cloud_of(1200, capacity=(capacity, 0.1))
        async with (
            client_of(cloud, max_at_once=100, adaptive="latency") as client,
            client.restarting(cloud.ids, wait=False) as run,
        ):
            # Half of what it takes: by then the first growth, which overshoots, is over.
            await trio.sleep(600 * 0.1 / capacity)
            cloud.peak_posts_in_flight = 0
            async for _ in run:
                pass
        assert run.report.summary == {Outcome.ACCEPTED: 1200}
        assert run.report.elapsed < 1200 * 0.1 / capacity * 1.15
        assert capacity <= cloud.peak_posts_in_flight <= most

    virtually(main)


def test_latency_reaches_the_most_where_the_api_bears_it() -> None:
    """Where answers take as long however many are asked for at once, all that is allowed is used."""

    async def main() -> None:
        cloud = cloud_of(2000, latency=0.05)
        async with client_of(cloud, max_at_once=50, adaptive="latency") as client:
            report = await client.restart(cloud.ids, wait=False)
        assert cloud.peak_posts_in_flight == 50
        assert report.elapsed < 2000 / 50 * 0.05 * 1.5

    virtually(main)


def test_latency_with_one_at_a_time() -> None:
    """A client of one request at once has nothing to find."""

    async def main() -> None:
        cloud = cloud_of(50, latency=0.05)
        async with client_of(cloud, max_at_once=1, adaptive="latency") as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 50}
        assert cloud.peak_in_flight == 1

    virtually(main)
