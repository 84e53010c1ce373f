"""A cloud that is gone: the door closes, nobody's attempts are spent, and one at a time asks whether it is back."""

from functools import partial
from itertools import pairwise

import httpx
import pytest
import trio

from bulkrestart import EndpointError, Outcome, Reason, Report, RestartClient, Server, StopReason, Token
from bulkrestart.core import faults
from bulkrestart.core.observation import Answer, Unanswered
from bulkrestart.core.stall import RequestKind
from bulkrestart.engine.limiter import RequestLimiter, RunLimiter
from bulkrestart.limits.admission import Admission
from bulkrestart.limits.pacing import FAILURES
from bulkrestart.limits.permit import Priority
from bulkrestart.simulator import Call, Cloud, Fault, asgi
from tests.cloud.scripted import Scripted
from tests.virtual import assert_accounted, client_of, cloud_of, slow_down, virtually

BAD_GATEWAY = Fault.respond(502, b"<html><title>502 Bad Gateway</title></html>")
GONE = [
    pytest.param(Fault.error(503), id="503"),
    pytest.param(BAD_GATEWAY, id="502"),
    pytest.param(Fault.error(500), id="500"),
    pytest.param(Fault.no_reply(applied=False), id="cut"),
]


def be_gone(cloud: Cloud, fault: Fault, at: float, until: float | None = None) -> None:
    """Let every request meet a fault for a while, or for good."""
    cloud.later(at, lambda: setattr(cloud, "outage", fault))
    if until is not None:
        cloud.later(until, lambda: setattr(cloud, "outage", None))


def troubles(cloud: Cloud) -> list[float]:
    """Give when requests arrived that came to nothing, in seconds since the first."""
    return [
        record.time - cloud.requests[0].time
        for record in cloud.requests
        if record.status is None or record.status >= 500
    ]


@pytest.mark.unmeasured
@pytest.mark.parametrize("fault", GONE)
def test_an_api_that_is_gone_for_90_s(fault: Fault) -> None:
    """It costs no server its only attempt, and it is asked by one at a time, ever more rarely."""

    async def main() -> None:
        cloud = cloud_of(200, reboot_seconds=(5.0, 5.0))
        slow_down(cloud, 0.5)
        be_gone(cloud, fault, 2.2, 92.2)
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids, max_attempts=1)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 200}
        asked = troubles(cloud)
        assert len(asked) <= 10 + 10
        probes = [time for time in asked if time > 6.0]
        assert all(later - earlier > 1.0 for earlier, later in pairwise(probes))
        assert sum(cloud.posts.values()) <= 200 + 10

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("fault", GONE)
def test_an_api_that_is_gone_for_ever(fault: Fault) -> None:
    """The run stops after 300 s: who was accepted says so, who was in flight is in doubt, the others are skipped."""

    async def main() -> None:
        cloud = cloud_of(200, reboot_seconds=(5.0, 5.0))
        slow_down(cloud, 0.5)
        be_gone(cloud, fault, 2.2)
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.OUTAGE
        assert "the cloud has been in trouble for 300 s" in report.stopped.detail
        assert "when the cloud is back" in report.stopped.detail
        assert 300.0 < report.elapsed < 320.0
        assert report.summary[Outcome.SKIPPED] >= 130
        assert report.summary[Outcome.IN_DOUBT] <= 20
        assert {result.reason for result in report if result.outcome == "skipped"} == {Reason.STOPPED}
        assert {result.reason for result in report if result.outcome == "in_doubt"} == {Reason.INTERRUPTED}
        assert len(troubles(cloud)) < 50

    virtually(main)


def test_a_probe_is_a_get() -> None:
    """While the door is closed nothing is sent, only asked."""

    async def main() -> None:
        cloud = cloud_of(100)
        slow_down(cloud, 0.5)
        be_gone(cloud, BAD_GATEWAY, 2.2, 92.2)
        async with client_of(cloud, max_at_once=10) as client:
            await client.restart(cloud.ids, wait=False)
        began = cloud.requests[0].time
        asked = [record for record in cloud.requests if 5.0 < record.time - began < 92.0]
        assert asked
        assert Call.REBOOT not in {record.call for record in asked}

    virtually(main)


def test_sends_that_never_left_are_no_attempts() -> None:
    """Where no connection can be made, the probe of a server that was never sent to finds the cloud back."""

    async def main() -> None:
        cloud = cloud_of(50)
        inner = httpx.ASGITransport(asgi(cloud))
        refused: list[httpx.Request] = []

        async def answer(request: httpx.Request) -> httpx.Response:
            if 0.0 < trio.current_time() - began < 90.0:
                refused.append(request)
                await request.extensions["trace"]("connection.connect_tcp.started", {})
                raise httpx.ConnectError("refused", request=request)
            await trio.sleep(0.2)
            return await inner.handle_async_request(request)

        began = trio.current_time()
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            url = f"http://cloud.test/v2.1/{cloud.project_id}"
            client = RestartClient(url, auth=Token(cloud.token), http=http, max_at_once=5)
            report = await client.restart(cloud.ids, max_attempts=1)
        assert report.summary == {Outcome.COMPLETED: 50}
        assert set(cloud.posts.values()) == {1}
        assert len(refused) < 20

    virtually(main)


def test_trouble_that_nobody_confirmed_is_an_attempt() -> None:
    """The door closes, and a good answer opens it before anybody has asked: then it was no trouble of the cloud's."""

    async def main() -> None:
        cloud = cloud_of(7)
        inner = httpx.ASGITransport(asgi(cloud))

        async def answer(request: httpx.Request) -> httpx.Response:
            if request.method == "POST" and cloud.ids[-1] not in request.url.path:
                await request.extensions["trace"]("connection.connect_tcp.started", {})
                raise httpx.ConnectError("refused", request=request)
            if request.method == "POST":
                await trio.sleep(0.8)
            return await inner.handle_async_request(request)

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            url = f"http://cloud.test/v2.1/{cloud.project_id}"
            client = RestartClient(url, auth=Token(cloud.token), http=http, max_at_once=7)
            report = await client.restart(cloud.ids, max_attempts=1)
        assert [result.reason for result in report] == [Reason.UNREACHABLE] * 6 + [None]
        assert {len(result.attempts) for result in report} == {1}

    virtually(main)


def test_one_server_s_500s_close_no_door() -> None:
    """A server that is answered 500 whatever is asked of it is its own trouble: nobody else waits for it."""

    async def main() -> None:
        cloud = cloud_of(60, reboot_seconds=(1.0, 1.0))
        bad = cloud.ids[-1]
        for call in (Call.REBOOT, Call.SHOW, Call.LOG):
            cloud.script(bad, *[Fault.error(500)] * 40, call=call)
        async with client_of(cloud, max_at_once=1) as client, client.restarting(cloud.ids, wait=False) as run:
            await trio.sleep(60.0)
            assert not client._request_limiter.admission.breaker.is_open
            run.stop()
            async for _ in run:
                pass
        assert_accounted(run.report, cloud)
        assert run.report.summary[Outcome.ACCEPTED] == 59

    virtually(main)


@pytest.mark.unmeasured
def test_500s_for_good_are_the_server_s_attempts() -> None:
    """Where looks are answered and sends are not, the door does not close, and attempts are spent."""

    async def main() -> None:
        cloud = cloud_of(20)
        for server_id in cloud.ids:
            cloud.script(server_id, *[Fault.error(500)] * 40)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, max_attempts=2)
        assert {(result.outcome, result.reason) for result in report} == {(Outcome.REFUSED, Reason.ATTEMPTS_EXHAUSTED)}
        assert set(cloud.posts.values()) == {2}
        assert report.stopped is None

    virtually(main)


def test_a_server_that_is_in_trouble_itself_does_not_keep_the_door_shut() -> None:
    """Where the first that waits gets no answer for itself, the next one asks, and finds the cloud back."""

    async def main() -> None:
        cloud = cloud_of(100)
        slow_down(cloud, 0.5)
        be_gone(cloud, BAD_GATEWAY, 2.2, 20.0)
        bad = set(cloud.ids[55:70:2])
        for server_id in bad:
            cloud.script(server_id, *[Fault.error(500)] * 10, call=Call.SHOW)
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 100}
        assert max(result.elapsed for result in report if result.server_id not in bad) < 120.0

    virtually(main)


def test_a_probe_that_hangs_keeps_nobody_waiting() -> None:
    """Once any answer has opened the door the others go on, whatever becomes of the probe."""

    async def main() -> None:
        limiter = RunLimiter(RequestLimiter(Admission(20)), None)
        left: dict[int, float] = {}

        async def look() -> None:
            sent_at = limiter.record_sent()
            await trio.sleep(3.0)
            limiter.record_answer(RequestKind.SERVER, Server(id="x"), "x", sent_at)

        async def probe() -> None:
            sent_at = limiter.record_sent()
            await trio.sleep(60.0)
            late = Unanswered("ReadTimeout", may_come_late=True)
            limiter.record_answer(RequestKind.SERVER, late, "x", sent_at)

        async def send(number: int) -> None:
            async with limiter.permit(Priority.SEND, probe=probe):
                left[number] = trio.current_time()
                limiter.record_answer(RequestKind.SEND, Answer(202), str(number), trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(limiter.ask, look)
            await trio.sleep(0.1)
            for _ in range(FAILURES):
                limiter.record_answer(RequestKind.LIST, Answer(503), None, trio.current_time())
            for number in range(5):
                nursery.start_soon(send, number)
        assert sorted(left.values())[:-1] == pytest.approx([3.0] * 4)

    virtually(main)


@pytest.mark.parametrize("life", [60.0, None])
def test_runs_that_wait_for_a_sign_in_behind_a_long_pause_end_in_time(life: float | None) -> None:
    """An outage of 300 s ends all runs of a client, though it was asked to wait for 800 s and its token has ended."""

    async def main() -> None:
        traffic = RequestLimiter(Admission(6))
        auth = Scripted(None, life=life)
        limiters = [RunLimiter(traffic, auth) for _ in range(2)]
        ended: list[float] = []

        async def fail(number: int, seconds: float) -> None:
            async def request() -> None:
                sent_at = limiters[0].record_sent()
                await trio.sleep(seconds)
                answer = Answer(503, faults.Fault(retry_after=800.0))
                limiters[0].record_answer(RequestKind.SERVER, answer, f"s{number}", sent_at)

            await limiters[0].ask(request)

        async def wait(limiter: RunLimiter) -> None:
            await limiter.ask(trio.lowlevel.checkpoint)
            assert limiter.stop_signal.stop is not None
            assert limiter.stop_signal.stop.reason is StopReason.OUTAGE
            ended.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(fail, number, 5.0 if number < 5 else 100.0)
            await trio.sleep(1.0)
            for limiter in limiters:
                nursery.start_soon(wait, limiter)
        assert ended == pytest.approx([305.0, 305.0])

    virtually(main)


@pytest.mark.parametrize("after", [60.0, 340.0])
def test_gone_for_ever_under_probes_that_time_out(after: float) -> None:
    """A probe that nobody answers for 55 s holds up no run's end; nor that of one which began in the meantime."""

    async def connect(request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and trio.current_time() < 0.5:
            return httpx.Response(200, json={"server": {"id": "x", "vm_state": "active"}})
        await trio.sleep(55.0)
        raise httpx.ConnectTimeout("", request=request)

    async def main() -> None:
        ids = cloud_of(20).ids
        reports: list[Report] = []
        async with httpx.AsyncClient(transport=httpx.MockTransport(connect)) as http, trio.open_nursery() as nursery:
            client = RestartClient("http://cloud.test/v2.1/p", auth=Token("t"), http=http, max_at_once=5)

            async def restart() -> None:
                reports.append(await client.restart(ids[:10], wait=False))

            async def begin_later() -> None:
                with pytest.raises(EndpointError, match="nothing was sent"):
                    await client.restart(ids[10:], wait=False)

            nursery.start_soon(restart)
            await trio.sleep(after)
            nursery.start_soon(begin_later)
        [report] = reports
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.OUTAGE
        assert len(report) == 10
        assert report.elapsed < 360.0 + 55.0

    virtually(main)


def test_gone_while_nothing_but_polls_goes_on() -> None:
    """Patience with a server stands still while the cloud is gone: nobody is failed for what was not seen."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(100.0, 100.0))
        be_gone(cloud, Fault.no_reply(applied=False), 1.0, 91.0)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=60.0)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 20}

    virtually(main)


def test_gone_for_ever_while_nothing_but_polls_goes_on() -> None:
    """The wait ends after 300 s, and who was accepted says so."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(100.0, 100.0))
        be_gone(cloud, Fault.error(503), 1.0)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.ACCEPTED: 20}
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.OUTAGE
        assert 300.0 < report.elapsed < 330.0

    virtually(main)


def test_a_cloud_that_answers_again_at_the_last_moment_stops_nobody() -> None:
    """A probe that left in time ends the trouble, though its answer comes after 300 s and asks everybody to wait."""

    async def main() -> None:
        cloud = cloud_of(100)
        slow_down(cloud, 0.5)
        be_gone(cloud, Fault.error(503), 2.2, 310.0)
        throttled = Fault(answer=Fault.throttled(5.0).answer, answered_after=20.0)
        cloud.later(285.0, lambda: setattr(cloud, "outage", throttled))
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids, wait=False)
        assert [record.status for record in cloud.requests].count(429) == 1
        assert report.summary == {Outcome.ACCEPTED: 100}

    virtually(main)


def test_gone_under_two_runs_of_one_client() -> None:
    """Both wait, one probe at a time serves both, and each stops by itself when it has waited for long enough."""

    async def main() -> None:
        cloud = cloud_of(200)
        slow_down(cloud, 0.5)
        be_gone(cloud, Fault.error(503), 3.2)
        reports = []

        async def run(ids: list[str], after: float) -> None:
            await trio.sleep(after)
            reports.append(await client.restart(ids))

        async with client_of(cloud, max_at_once=10) as client, trio.open_nursery() as nursery:
            nursery.start_soon(run, cloud.ids[:100], 0.0)
            nursery.start_soon(run, cloud.ids[100:], 1.0)
        for report in reports:
            assert report.stopped is not None
            assert report.stopped.reason is StopReason.OUTAGE
            assert 300.0 < report.elapsed < 320.0
        assert len(troubles(cloud)) < 60

    virtually(main)


def test_a_run_that_finds_the_door_closed() -> None:
    """Its first look is the probe: while the cloud is gone it is told so, and when it is back it goes on."""

    async def main() -> None:
        cloud = cloud_of(60)
        slow_down(cloud, 0.5)
        be_gone(cloud, Fault.error(503), 1.2, 1000.0)
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
            assert report.stopped is not None
            with pytest.raises(EndpointError, match="nothing was sent"):
                await client.restart(cloud.ids)
            await trio.sleep(1000.0)
            left = [result.server_id for result in report if result.outcome == "skipped"]
            assert left
            again = await client.restart(left)
            assert again.summary == {Outcome.COMPLETED: len(left)}
            assert not client._request_limiter.admission.breaker.is_open

    virtually(main)


def test_a_run_that_is_cancelled_while_it_probes() -> None:
    """The probe that is cut off is nobody's to wait for: another run asks next."""

    async def main() -> None:
        cloud = cloud_of(200)
        slow_down(cloud, 0.5)
        be_gone(cloud, Fault.no_reply(applied=False, after=4.0), 2.2, 60.0)
        async with client_of(cloud, max_at_once=10) as client, trio.open_nursery() as nursery:

            async def brief() -> None:
                with trio.move_on_after(9.0):
                    await client.restart(cloud.ids[:100], wait=False)

            nursery.start_soon(brief)
            await trio.sleep(0.1)
            report = await client.restart(cloud.ids[100:], wait=False)
            assert report.summary == {Outcome.ACCEPTED: 100}

    virtually(main)


def test_stop_while_the_door_is_closed() -> None:
    """A run that is asked to stop does not wait for the cloud to come back to learn what it has not sent."""

    async def main() -> None:
        cloud = cloud_of(100)
        slow_down(cloud, 0.5)
        be_gone(cloud, BAD_GATEWAY, 2.2)
        async with client_of(cloud, max_at_once=10) as client, client.restarting(cloud.ids, wait=False) as run:
            await trio.sleep(30.0)
            run.stop()
            await trio.sleep(0.1)
            counts = run.statistics()
            assert counts.not_started == 0 or counts.in_flight == 0
            skipped = [result async for result in run if result.outcome == "skipped"]
        assert len(skipped) >= 40
        assert run.report.stopped is not None
        assert run.report.stopped.reason is StopReason.ASKED

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
def test_after_the_outage_it_begins_with_one(reboot_type: str) -> None:
    """When the cloud is back, not all that wait fall upon it at once."""

    async def main() -> None:
        cloud = cloud_of(200, latency=0.5)
        be_gone(cloud, BAD_GATEWAY, 0.7, 50.0)
        async with client_of(cloud, max_at_once=100) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 200}
        good = [record.time for record in cloud.requests if record.status is not None and record.status < 500]
        back = min(time for time in good if time > cloud.requests[0].time + 49.0)
        flights = [sum(back + after <= time < back + after + 0.4 for time in good) for after in (0.0, 0.5, 1.0, 1.5)]
        assert flights[0] == 1
        assert all(later <= 2 * earlier + 1 for earlier, later in pairwise(flights))
        assert flights[-1] > 1

    virtually(main)


def test_door_and_brake_together() -> None:
    """A maintenance page that asks to wait is waited for, and opens nothing."""

    async def main() -> None:
        cloud = cloud_of(100)
        slow_down(cloud, 0.5)
        be_gone(cloud, Fault.respond(503, headers={"retry-after": "40"}), 2.2, 62.2)
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids, max_attempts=1, server_timeout=30.0)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 100}

    virtually(main)


def test_several_clients_in_turn() -> None:
    """What one client knows of a cloud is not known to another."""

    async def main() -> None:
        cloud = cloud_of(20)
        for _ in range(2):
            async with client_of(cloud) as client, trio.open_nursery() as nursery:
                nursery.start_soon(partial(client.restart, cloud.ids[:10], wait=False))
                nursery.start_soon(partial(client.restart, cloud.ids[10:], wait=False))
            await trio.sleep(60.0)
        assert set(cloud.cycles.values()) == {2}

    virtually(main)
