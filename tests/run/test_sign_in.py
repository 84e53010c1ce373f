"""A run that signs in, on virtual time: once for all, in time, and not again and again."""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import httpx
import pytest
import trio

from bulkrestart import AuthError, Outcome, Reason, Report, RestartClient, StopReason
from bulkrestart.cloud import instants
from bulkrestart.cloud.credentials import Trouble
from bulkrestart.engine.limiter import Permit, RequestLimiter
from bulkrestart.limits.admission import Admission
from bulkrestart.simulator import Call, Cloud, Fault, asgi
from tests.cloud.scripted import DOWN, WRONG_PASSWORD, Scripted
from tests.virtual import EPOCH, assert_accounted, cloud_of, slow_down, virtually


@asynccontextmanager
async def client_of(cloud: Cloud, auth: Scripted, *, max_at_once: int = 20) -> AsyncIterator[RestartClient]:
    """Give a client of a simulated cloud that signs in."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi(cloud))) as http:
        endpoint = f"http://cloud.test/v2.1/{cloud.project_id}"
        yield RestartClient(endpoint, auth=auth, http=http, max_at_once=max_at_once)


def refusals(cloud: Cloud) -> list[float]:
    """Tell when the cloud refused a token, in seconds since it began."""
    return [record.time - EPOCH for record in cloud.requests if record.status == 401]


def longest_pause(cloud: Cloud) -> float:
    """Tell the longest time between two sends, in seconds."""
    sends = [record.time for record in cloud.requests if record.call is Call.REBOOT]
    return max(later - earlier for earlier, later in pairwise(sends))


def assert_completed_once(report: Report, cloud: Cloud) -> None:
    """Hold that every server came back from one reboot, and that nothing stopped the run."""
    assert_accounted(report, cloud)
    assert report.stopped is None
    assert report.summary == {Outcome.COMPLETED: len(cloud.ids)}
    assert set(cloud.cycles.values()) == {1}


class Watched(RequestLimiter):
    """Keeps which tasks hold a permit."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(admission)
        self.holders: set[trio.lowlevel.Task] = set()

    async def acquire(self, permit: Permit) -> Trouble | None:
        """Add the task, if it has a permit now."""
        trouble = await super().acquire(permit)
        if permit.granted_at is not None:
            self.holders.add(trio.lowlevel.current_task())
        return trouble

    def release(self, permit: Permit) -> None:
        """Remove the task."""
        self.holders.discard(trio.lowlevel.current_task())
        super().release(permit)


# A token that ends.


@pytest.mark.unmeasured
@pytest.mark.parametrize(("lanes", "takes", "latency"), [(500, 0.0, 0.0), (50, 3.0, 0.2)])
def test_a_token_that_is_revoked_is_renewed_once_for_all(lanes: int, takes: float, latency: float) -> None:
    """500 requests at once that meet a revoked token make one sign-in, and no server is refused for it."""

    async def main() -> None:
        cloud = cloud_of(2 * lanes, latency=latency)
        auth = Scripted(cloud, takes=takes)
        slow_down(cloud, 1.0)
        auth.watch = lambda: cloud.later(takes + 0.7, auth.revoke) if len(auth.asked) == 1 else None
        async with client_of(cloud, auth, max_at_once=lanes) as client:
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert len(auth.asked) == 2
        assert len(refusals(cloud)) >= lanes
        assert max(cloud.posts.values()) == 2

    virtually(main)


def test_token_that_ended_while_the_machine_was_suspended_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that the machine has been suspended counts: no request leaves with a token that ended meanwhile."""

    async def main() -> None:
        cloud = cloud_of(2)
        auth = Scripted(cloud, life=3600.0)
        async with client_of(cloud, auth) as client:
            await client.restart(cloud.ids[:1])
            monkeypatch.setattr(instants, "_suspended", lambda: 4000.0)
            auth.revoke()
            await client.restart(cloud.ids[1:])
        assert len(auth.asked) == 2
        assert refusals(cloud) == []

    virtually(main)


def test_what_is_refused_late_does_not_end_a_newer_token() -> None:
    """A 401 to a request that left with the old token says nothing of the new one."""

    async def main() -> None:
        cloud = cloud_of(40)
        auth = Scripted(cloud)
        slow_down(cloud, 1.0)
        # They left with the first token, and are refused when the second is in use for long.
        for server_id in cloud.ids[10:15]:
            late = Fault.respond(401, b"{}")
            cloud.script(server_id, Fault(answer=late.answer, answered_after=30.0))
        cloud.later(0.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=20) as client:
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert len(auth.asked) == 2

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("latency", [0.0, 0.5])
def test_those_who_wait_for_a_slot_take_the_new_token(latency: float) -> None:
    """Two runs wait for the slots of one client: those who signed in before they waited send with the new token."""

    async def main() -> None:
        cloud = cloud_of(200, latency=latency)
        auth = Scripted(cloud, takes=1.0)
        slow_down(cloud, 1.0)
        cloud.later(4.5, auth.revoke)
        reports: list[Report] = []
        async with client_of(cloud, auth, max_at_once=10) as client:

            async def run(ids: Iterable[str]) -> None:
                reports.append(await client.restart(ids))

            async with anyio.create_task_group() as group:
                group.start_soon(run, cloud.ids[:100])
                group.start_soon(run, cloud.ids[100:])
        assert len(auth.asked) == 2
        assert [report.summary for report in reports] == [{Outcome.COMPLETED: 100}] * 2
        assert all(len(result.attempts) <= 2 for report in reports for result in report)
        # Nobody was held: the second token was there as soon as the first was refused.
        assert max(cloud.posts.values()) <= 2
        assert max(refusals(cloud)) - min(refusals(cloud)) < 1.5

    virtually(main)


@pytest.mark.parametrize(
    ("life", "margin"),
    [(86_400.0, 120.0), (3600.0, 120.0), (480.0, 120.0), (479.0, 119.75), (100.0, 25.0), (8.0, 2.0)],
)
@pytest.mark.parametrize("takes", [0.0, 1.0])
def test_a_token_is_renewed_before_its_end(life: float, margin: float, takes: float) -> None:
    """It is renewed 120 s before its end, or a quarter of its life if that is less, counted from when it was asked."""

    async def main() -> None:
        auth = Scripted(life=life, takes=takes)
        assert await auth.sign_in() is None
        for moment in (takes + 0.001, life - margin - 0.001):
            await trio.sleep_until(auth.asked[0] + moment)
            assert await auth.sign_in() is None
            assert len(auth.asked) == 1
        await trio.sleep_until(auth.asked[0] + life - margin)
        assert await auth.sign_in() is None
        assert len(auth.asked) == 2

    virtually(main)


@pytest.mark.parametrize("life", [8.0, 60.0, 3600.0])
def test_a_run_that_outlives_its_tokens_meets_no_refusal(life: float) -> None:
    """A run of an hour signs in as often as its tokens need it, and no request is ever refused."""

    async def main() -> None:
        cloud = cloud_of(60, reboot_seconds=(60.0, 500.0))
        for number, server_id in enumerate(cloud.ids):
            cloud.script(server_id, Fault.slow(55.0), *([Fault.busy(300.0)] * (number % 3)))
        auth = Scripted(cloud, life=life, takes=0.5)
        async with client_of(cloud, auth, max_at_once=2) as client:
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert refusals(cloud) == []
        # The sends outlive the token of 8 s, so each poll has to sign in anew, and still goes before the next send.
        polls = [record.time for record in cloud.requests if record.call is Call.LIST]
        assert max(later - earlier for earlier, later in pairwise(polls)) < 600.0
        seconds = cloud.requests[-1].time - EPOCH
        margin = min(120.0, life / 4)
        assert 1 <= len(auth.asked) <= seconds / (life - margin) + 1

    virtually(main)


@pytest.mark.unmeasured
def test_nobody_waits_for_a_renewal_in_time() -> None:
    """While one renews a token that is still good, requests go on with it."""

    async def main() -> None:
        cloud = cloud_of(300)
        slow_down(cloud, 1.0)
        auth = Scripted(cloud, life=40.0, takes=6.0)
        async with client_of(cloud, auth, max_at_once=5) as client:
            await client.restart(cloud.ids)
        assert len(auth.asked) >= 3
        assert longest_pause(cloud) <= 1.5
        assert refusals(cloud) == []

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("trouble", [DOWN, WRONG_PASSWORD])
def test_a_renewal_that_fails_while_the_old_token_lives_changes_nothing(trouble: Trouble) -> None:
    """What is still good is used, nobody is held, and a sign-in that passes again is found in time."""

    async def main() -> None:
        cloud = cloud_of(300)
        slow_down(cloud, 1.0)
        auth = Scripted(cloud, life=400.0)
        auth.watch = lambda: setattr(auth, "trouble", trouble if 280.0 < trio.current_time() < 360.0 else None)
        async with client_of(cloud, auth, max_at_once=1) as client:
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert longest_pause(cloud) <= 2.5
        # One every 5 s where it may pass; a refusal is not tried again before it has to be.
        assert len(auth.asked) <= (19 if trouble is DOWN else 3)

    virtually(main)


# A sign-in that fails in mid-run.


@pytest.mark.unmeasured
@pytest.mark.parametrize("lanes", [1, 20, 100])
def test_a_sign_in_that_is_down_for_a_while_costs_no_server_anything(lanes: int) -> None:
    """For 90 s the sign-in fails: all requests are paused, no server loses an attempt or its time, and none is lost."""

    async def main() -> None:
        cloud = cloud_of(3 * lanes + 10, reboot_seconds=(60.0, 60.0))
        auth = Scripted(cloud)
        slow_down(cloud, 1.0)
        back = 1.5 + 90.0
        auth.watch = lambda: setattr(auth, "trouble", DOWN if 1.0 < trio.current_time() < back else None)
        cloud.later(1.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=lanes) as client:
            report = await client.restart(cloud.ids, max_attempts=1, server_timeout=30.0, wait_timeout=65.0)
        assert_completed_once(report, cloud)
        times = sorted(record.time - EPOCH for record in cloud.requests)
        assert not [time for time in times if 4.0 < time < back]
        # Found again within the longest wait.
        assert min(time for time in times if time > 4.0) < back + 61.0
        assert len(auth.asked) < 12

    virtually(main)


def test_a_sign_in_that_asks_to_wait_is_waited_for() -> None:
    """Where Keystone says how long it wants to be left alone, nobody asks it sooner."""

    async def main() -> None:
        cloud = cloud_of(60)
        auth = Scripted(cloud)
        slow_down(cloud, 1.0)
        busy = Trouble("too many sign-ins", "wait", retry_after=45.0)
        auth.watch = lambda: setattr(auth, "trouble", busy if len(auth.asked) in (2, 3) else None)
        cloud.later(1.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert [later - earlier for earlier, later in pairwise(auth.asked[1:])] == [45.0, 45.0]

    virtually(main)


@pytest.mark.unmeasured
def test_a_pause_for_a_sign_in_is_logged_once_for_all(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the trouble once for each hold, not once for each of 80 that wait."""

    async def main() -> None:
        cloud = cloud_of(200)
        auth = Scripted(cloud)
        slow_down(cloud, 1.0)
        auth.watch = lambda: setattr(auth, "trouble", DOWN if 1.0 < trio.current_time() < 30.0 else None)
        cloud.later(1.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=80) as client:
            await client.restart(cloud.ids)
        said = [record for record in caplog.records if "all requests paused" in record.getMessage()]
        assert 1 <= len(said) <= len(auth.asked)

    with caplog.at_level(logging.WARNING, "bulkrestart"):
        virtually(main)


def test_a_sign_in_that_stays_down_stops_the_run() -> None:
    """After five minutes it is given up: what was accepted says so, the rest is skipped, and nothing is lost."""

    async def main() -> None:
        cloud = cloud_of(200, reboot_seconds=(1000.0, 1000.0))
        auth = Scripted(cloud)
        slow_down(cloud, 1.0)
        auth.watch = lambda: setattr(auth, "trouble", DOWN if trio.current_time() > 1.0 else None)
        cloud.later(3.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.UNAUTHORIZED
        assert "Keystone is down" in report.stopped.detail
        accepted = [record.status for record in cloud.requests].count(202)
        assert accepted == 40
        assert report.summary[Outcome.ACCEPTED] == accepted
        assert report.summary[Outcome.ACCEPTED] + report.summary[Outcome.SKIPPED] + 10 >= 200
        assert {one.reason for one in report if one.outcome == "skipped"} == {Reason.STOPPED}
        assert 300.0 <= trio.current_time() < 400.0
        assert len(auth.asked) < 20

    virtually(main)


def test_a_refusal_in_mid_run_stops_it_at_once() -> None:
    """A password that was changed is tried once, not by every lane: that would lock the user out."""

    async def main() -> None:
        cloud = cloud_of(500, reboot_seconds=(600.0, 600.0))
        auth = Scripted(cloud)
        slow_down(cloud, 1.0)
        auth.watch = lambda: setattr(auth, "trouble", WRONG_PASSWORD if trio.current_time() > 1.0 else None)
        cloud.later(3.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=50) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.UNAUTHORIZED
        assert "the password is wrong" in report.stopped.detail
        assert "check the password" in report.stopped.detail
        assert len(auth.asked) == 2
        assert trio.current_time() < 60.0
        assert [record.status for record in cloud.requests].count(202) == report.summary[Outcome.ACCEPTED] == 200

    virtually(main)


def test_what_is_unresolved_when_nobody_signs_us_in_is_in_doubt() -> None:
    """The fate of a lost reply that cannot be looked for any more is in doubt; it is not sent again."""

    async def main() -> None:
        cloud = cloud_of(30, reboot_seconds=(600.0, 600.0))
        auth = Scripted(cloud)
        lost = cloud.ids[3]
        slow_down(cloud, 1.0, but={lost})
        cloud.script(lost, Fault.late(300.0))
        auth.watch = lambda: setattr(auth, "trouble", WRONG_PASSWORD if trio.current_time() > 1.0 else None)
        cloud.later(3.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=5) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report[lost].outcome is Outcome.IN_DOUBT
        assert cloud.posts[lost] == 1
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.UNAUTHORIZED

    virtually(main)


# A token that is refused although it is new.


def test_a_new_token_that_is_refused_is_tried_once_more() -> None:
    """It may not have reached every node: after 5 s another is tried, and where that is refused the run stops."""

    async def main() -> None:
        cloud = cloud_of(200, reboot_seconds=(600.0, 600.0))
        auth = Scripted(cloud)
        slow_down(cloud, 1.0)
        auth.watch = lambda: setattr(auth, "good", len(auth.asked) == 1)
        cloud.later(3.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.UNAUTHORIZED
        assert "sign in better" in report.stopped.detail
        assert report.summary[Outcome.ACCEPTED] == 40
        assert max(cloud.posts.values()) <= 3
        assert auth.asked[2] - auth.asked[1] >= 5.0
        # The watcher asks twice more for those who were accepted.
        assert len(auth.asked) <= 20
        assert trio.current_time() < 60.0

    virtually(main)


@pytest.mark.unmeasured
def test_a_new_token_that_is_refused_for_a_moment_stops_nothing() -> None:
    """Where the second is good, every server comes back, and none was refused."""

    async def main() -> None:
        cloud = cloud_of(100)
        auth = Scripted(cloud)
        slow_down(cloud, 1.0)
        auth.watch = lambda: setattr(auth, "good", len(auth.asked) != 2)
        cloud.later(3.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert len(auth.asked) == 3

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("lanes", [1, 5])
@pytest.mark.parametrize("others", [0, 5])
def test_a_refusal_that_only_sends_meet_does_not_go_on_for_ever(lanes: int, others: int) -> None:
    """A gateway that refuses every POST, and answers every GET, is found out after a few sends.

    The looks at the others show again and again that the token is good.
    """

    async def main() -> None:
        cloud = cloud_of(40, reboot_seconds=(3000.0, 3000.0))
        auth = Scripted(cloud)
        for server_id in cloud.ids[others:]:
            cloud.script(server_id, *[Fault.respond(401, b"{}")] * 100)
        async with client_of(cloud, auth, max_at_once=lanes) as client:
            report = await client.restart(cloud.ids, wait_timeout=3600.0)
        assert_accounted(report, cloud)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.UNAUTHORIZED
        assert max(cloud.posts[server_id] for server_id in cloud.ids[others:]) <= 8
        assert len(auth.asked) <= 30
        assert max(refusals(cloud)) < 120.0

    virtually(main)


def test_tokens_that_each_serve_once_do_not_go_on_for_ever() -> None:
    """Where every other answer refuses the token, the run comes to an end, and the cloud is not asked for ever."""

    async def main() -> None:
        cloud = cloud_of(5)
        auth = Scripted(cloud)
        for server_id in cloud.ids:
            cloud.script(server_id, *[Fault.respond(401, b"{}")] * 2)
            cloud.script(server_id, *[None, Fault.respond(401, b"{}")] * 20, call=Call.SHOW)
        async with client_of(cloud, auth, max_at_once=2) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert len(auth.asked) < 60

    virtually(main)


# Before anything is sent.


def test_a_refusal_before_the_run_is_raised_at_once() -> None:
    """A wrong password is an error at once, after one try, and nothing is sent."""

    async def main() -> None:
        cloud = cloud_of(3)
        auth = Scripted(cloud)
        auth.trouble = WRONG_PASSWORD
        async with client_of(cloud, auth) as client:
            with pytest.raises(AuthError) as caught:
                await client.restart(cloud.ids)
        assert str(caught.value) == "the password is wrong; check the password; nothing was sent"
        assert (len(auth.asked), trio.current_time()) == (1, 0.0)
        assert not cloud.requests

    virtually(main)


def test_a_refusal_stands_for_a_minute() -> None:
    """Calls that follow a wrong password do not try it again before a minute has passed."""

    async def main() -> None:
        cloud = cloud_of(3)
        auth = Scripted(cloud)
        auth.trouble = WRONG_PASSWORD
        async with client_of(cloud, auth) as client:
            for seconds in (0.0, 30.0, 29.0):
                await trio.sleep(seconds)
                with pytest.raises(AuthError, match="the password is wrong"):
                    await client.restart(cloud.ids)
                with pytest.raises(AuthError, match="the password is wrong"):
                    await anext(aiter(client.servers()))
            assert len(auth.asked) == 1
            auth.trouble = None
            await trio.sleep(1.0)
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert len(auth.asked) == 2

    virtually(main)


def test_a_sign_in_that_is_down_before_the_run_is_told_at_once() -> None:
    """There is nothing to lose yet: nobody waits for it, nothing is sent, and the next call tries anew."""

    async def main() -> None:
        cloud = cloud_of(3)
        auth = Scripted(cloud)
        auth.trouble = DOWN
        async with client_of(cloud, auth) as client:
            with pytest.raises(AuthError, match="Keystone is down; wait; nothing was sent"):
                await client.restart(cloud.ids)
            assert trio.current_time() == 0.0
            assert len(auth.asked) == 1
            assert not cloud.requests
            auth.trouble = None
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)

    virtually(main)


def test_a_token_that_is_refused_from_the_first_is_told() -> None:
    """A token that the cloud refuses is tried twice more, 5 s apart, and nothing is sent."""

    async def main() -> None:
        cloud = cloud_of(3)
        auth = Scripted(cloud)
        auth.good = False
        async with client_of(cloud, auth) as client:
            with pytest.raises(AuthError, match="sign in better; nothing was sent"):
                await client.restart(cloud.ids)
        assert len(auth.asked) == 3
        assert trio.current_time() >= 10.0
        assert not cloud.posts

    virtually(main)


# Slots, runs and clients.


def test_a_run_that_is_cancelled_in_its_wait_for_a_slot_gives_back_what_it_has() -> None:
    """Of two bounds, the narrower that is held is free again when the wait for the wider is cancelled."""

    async def main() -> None:
        cloud = cloud_of(30)
        auth = Scripted(cloud)
        slow_down(cloud, 5.0)
        async with client_of(cloud, auth, max_at_once=4) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(client.restart, cloud.ids[:20])
                await trio.sleep(1.0)
                with anyio.move_on_after(2.0):
                    await client.restart(cloud.ids[20:], max_at_once=2)
            assert client._request_limiter.admission.in_flight == 0
            report = await client.restart(cloud.ids[20:], max_at_once=2)
        assert report.summary == {Outcome.COMPLETED: 10}

    virtually(main)


def test_no_slot_is_held_while_signing_in() -> None:
    """Whoever signs in holds no slot, at the start, in time, or after a refusal."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(30.0, 60.0))
        slow_down(cloud, 3.0)
        auth = Scripted(cloud, life=20.0, takes=2.0)
        async with client_of(cloud, auth, max_at_once=1) as client:
            holds: list[bool] = []
            traffic = client._request_limiter = Watched(client._request_limiter.admission)
            auth.watch = lambda: holds.append(trio.lowlevel.current_task() in traffic.holders)
            cloud.later(10.3, auth.revoke)
            cloud.later(47.1, auth.revoke)
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert refusals(cloud)
        assert len(holds) >= 5
        assert not any(holds)

    virtually(main)


@pytest.mark.unmeasured
def test_two_runs_at_once_share_one_sign_in() -> None:
    """Runs and lists that begin together sign in once, and again once when the token is revoked."""

    async def main() -> None:
        cloud = cloud_of(120)
        auth = Scripted(cloud, takes=2.0)
        slow_down(cloud, 1.0)
        cloud.later(5.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=10) as client:
            reports: list[Report] = []

            async def run(ids: Iterable[str]) -> None:
                reports.append(await client.restart(ids))

            async def read() -> None:
                assert len([server async for server in client.servers()]) == 120

            async with anyio.create_task_group() as group:
                for start in (0, 40, 80):
                    group.start_soon(run, cloud.ids[start : start + 40])
                group.start_soon(read)
        assert [report.summary for report in reports] == [{Outcome.COMPLETED: 40}] * 3
        assert len(auth.asked) == 2

    virtually(main)


def test_a_lent_client_that_signs_in_is_as_good() -> None:
    """A lent client's own auth is renewed as one that is given to us."""

    async def main() -> None:
        cloud = cloud_of(60)
        auth = Scripted(cloud, life=60.0, takes=1.0)
        slow_down(cloud, 1.0)
        cloud.later(4.5, auth.revoke)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi(cloud)), auth=auth) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", http=http, max_at_once=10)
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert len(auth.asked) == 2

    virtually(main)


@pytest.mark.parametrize("waiting", [1, 50])
def test_a_sign_in_that_is_cancelled_leaves_it_to_the_others(waiting: int) -> None:
    """Whoever signs in for all may be cancelled: the next signs in, once for those that are left."""

    async def main() -> None:
        auth = Scripted(takes=10.0)
        seen: list[Trouble | None] = []

        async def wait() -> None:
            seen.append(await auth.sign_in())

        async with anyio.create_task_group() as group:
            with anyio.move_on_after(5.0) as first:
                for _ in range(waiting):
                    group.start_soon(wait)
                    # The first to ask is the one that is cancelled.
                    group.cancel_scope.shield = True
                await auth.sign_in()
        assert first.cancelled_caught or seen
        assert seen == [None] * waiting
        assert len(auth.asked) <= 2

    virtually(main)


def test_a_run_that_is_cancelled_while_it_signs_in_leaves_the_other_whole() -> None:
    """Of two runs that wait for one sign-in, the one that asked is cancelled: the other goes its way."""

    async def main() -> None:
        cloud = cloud_of(40)
        auth = Scripted(cloud, takes=10.0)
        reports: list[Report] = []
        async with client_of(cloud, auth) as client:

            async def run(scope: anyio.CancelScope, ids: Iterable[str]) -> None:
                with scope:
                    reports.append(await client.restart(ids))

            async with anyio.create_task_group() as group:
                scope = anyio.CancelScope()
                group.start_soon(run, scope, cloud.ids[:20])
                await trio.sleep(1.0)
                group.start_soon(run, anyio.CancelScope(), cloud.ids[20:])
                await trio.sleep(1.0)
                scope.cancel()
        [report] = reports
        assert report.summary == {Outcome.COMPLETED: 20}
        assert len(auth.asked) == 2
        assert not any(cloud.posts[server_id] for server_id in cloud.ids[:20])

    virtually(main)


@pytest.mark.parametrize("stop", [True, False], ids=["stopped", "cancelled"])
def test_a_run_that_ends_while_nobody_signs_it_in_is_accounted_for(stop: bool) -> None:
    """A run that is asked to stop, or cancelled, during a sign-in that is down ends, and tells of every server."""

    async def main() -> None:
        cloud = cloud_of(60, reboot_seconds=(20.0, 20.0))
        auth = Scripted(cloud)
        slow_down(cloud, 1.0)
        auth.watch = lambda: setattr(auth, "trouble", DOWN if 1.0 < trio.current_time() < 60.0 else None)
        cloud.later(2.5, auth.revoke)
        async with client_of(cloud, auth, max_at_once=10) as client:
            with anyio.move_on_after(None if stop else 20.0):
                async with client.restarting(cloud.ids) as run:
                    await trio.sleep(20.0)
                    if stop:
                        run.stop()
                    async for _ in run:
                        pass
        report = run.report
        assert_accounted(report, cloud)
        assert report.summary[Outcome.COMPLETED if stop else Outcome.ACCEPTED] == 30
        assert report.stopped is not None
        assert report.stopped.reason is (StopReason.ASKED if stop else StopReason.INTERRUPTED)

    virtually(main)


def test_a_throttled_cloud_is_not_asked_for_a_token() -> None:
    """While everybody is held, nobody signs in either."""

    async def main() -> None:
        cloud = cloud_of(20)
        auth = Scripted(cloud, life=100.0)
        slow_down(cloud, 1.0)
        cloud.outage = Fault.throttled(500.0)
        cloud.later(10.0, lambda: setattr(cloud, "outage", None))
        async with client_of(cloud, auth) as client:
            report = await client.restart(cloud.ids)
        assert_completed_once(report, cloud)
        assert len(auth.asked) == 2
        assert auth.asked[1] >= 500.0

    virtually(main)
