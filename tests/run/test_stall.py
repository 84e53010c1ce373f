"""A run that makes no progress ends, in a bound that the user knows, with the true cause, and can be gone on with."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio

from bulkrestart import (
    EndpointError,
    Outcome,
    Reason,
    Report,
    RestartClient,
    Rollout,
    Server,
    StopReason,
    Token,
)
from bulkrestart.cloud.credentials import Issued, Renewed, SignInError, Trouble
from bulkrestart.core.errors import StalledError
from bulkrestart.simulator import Call, Cloud, Fault, HostFault, asgi
from tests.stalls import (
    FLOW_LIMIT,
    GATEWAY,
    OVER_LIMIT,
    PAGE,
    TOO_LARGE,
    Refusing,
    Which,
    answering,
    client_through,
)
from tests.virtual import REGARDLESS, assert_accounted, client_of, cloud_of, virtually

#: Seconds after the bound by which a run has ended.
SLACK: Final = 60.0
DEFAULT: Final = 1800.0

Answer = Callable[[], httpx.Response]


def retry(status: int, body: bytes, seconds: float) -> Answer:
    """Give an answer that asks to wait."""
    return answering(status, body, {"retry-after": f"{seconds:.0f}"})


#: The table of goodput.md, and its kin: the answer to every request of a kind, and how it is named.
ANSWERS: Final = {
    "429": (answering(429, OVER_LIMIT), "429"),
    "429, Retry-After: 1": (retry(429, OVER_LIMIT, 1), "429"),
    "429, Retry-After: 600": (retry(429, OVER_LIMIT, 600), "429"),
    "413": (answering(413, TOO_LARGE), "413"),
    "503, Retry-After: 1": (retry(503, PAGE, 1), "503"),
    "503": (answering(503, PAGE), "503"),
    "Common.0024": (answering(202, FLOW_LIMIT), "Common.0024"),
    "APIGW.0308": (answering(429, GATEWAY), "APIGW.0308"),
}
MODES: Final[Mapping[str, dict[str, Any]]] = {
    "not waited for": {"wait": False},
    "waited for": {},
    "HARD": {"wait": False, "reboot_type": "HARD"},
    "waves": {"rollout": Rollout(canary=1, wave=30, max_down=30)},
}


def assert_stopped(report: Report, *words: str, reasons: tuple[StopReason, ...] = (StopReason.STALLED,)) -> None:
    """Hold that a run stopped for one of these reasons, and says these words."""
    assert report.stopped is not None
    assert report.stopped.reason in reasons
    for word in words:
        assert word in report.stopped.detail


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        # What is measured once goes every way that the others go.
        pytest.param(name, mode, marks=() if (name, mode) == ("503", "not waited for") else pytest.mark.unmeasured)
        for name_number, name in enumerate(ANSWERS)
        for mode_number, mode in enumerate(MODES)
        if mode == "not waited for" or (name_number + mode_number) % 3 == 0
    ],
)
def test_every_send_refused_for_ever(tmp_path: Path, name: str, mode: str) -> None:
    """The run ends within its bound with the cause; after the cloud has healed the same call restarts each once."""

    async def main() -> None:
        # More than may be in flight at once, in one case; a virtual hour of many servers takes real seconds.
        cloud = cloud_of(60 if (name, mode) == ("429", "not waited for") else 6, reboot_seconds=(2.0, 9.0))
        answer, words = ANSWERS[name]
        way = Refusing(cloud, Which.SENDS, answer)
        async with client_through(cloud, way) as client:
            # Each send is a commit of its own here, so only the mode with the fewest keeps a journal.
            journal = tmp_path / "journal" if mode == "waves" else None
            restart = partial(client.restart, cloud.ids, journal=journal, **MODES[mode])
            began = trio.current_time()
            report = await restart()
            assert trio.current_time() - began <= DEFAULT + SLACK
            assert_accounted(report, cloud)
            assert_stopped(report, words.split(".")[0], reasons=(StopReason.STALLED, StopReason.OUTAGE))
            assert {result.reason for result in report} <= {Reason.STOPPED, Reason.INTERRUPTED}
            way.is_healed = True
            again = await restart()
        assert again.stopped is None
        assert set(again.summary) == {Outcome.COMPLETED if MODES[mode].get("wait", True) else Outcome.ACCEPTED}
        await trio.sleep(60.0)
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("which", "name", "mode"),
    [
        (which, name, mode)
        for which_number, which in enumerate([Which.ALL, Which.READS, Which.LISTS, Which.LOGS])
        for name_number, name in enumerate(["429", "429, Retry-After: 600", "503"])
        for mode_number, mode in enumerate(MODES)
        if (which_number + name_number + mode_number) % 3 == 0
    ],
)
def test_other_requests_refused_for_ever(tmp_path: Path, which: Which, name: str, mode: str) -> None:
    """Whichever requests are refused after the first look, no stretch without progress is longer than the bound."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(2.0, 9.0))
        way = Refusing(cloud, which, ANSWERS[name][0], grace=1)
        async with client_through(cloud, way) as client:
            restart = partial(client.restart, cloud.ids, journal=tmp_path / "journal", **MODES[mode])
            moments = [trio.current_time()]
            unstarted: StalledError | None = None
            try:
                async with client.restarting(cloud.ids, journal=tmp_path / "journal", **MODES[mode]) as run:
                    moments += [trio.current_time() async for result in run if result.outcome is Outcome.COMPLETED]
            except StalledError as error:
                unstarted = error
            if unstarted is not None:
                # The states are read before the first HARD.
                assert name[:3] in str(unstarted)
                assert not cloud.posts
            else:
                assert_accounted(run.report, cloud)
                if run.report.stopped is not None:
                    assert_stopped(run.report, name[:3], reasons=(StopReason.STALLED, StopReason.OUTAGE))
            moments.append(trio.current_time())
            assert max(later - earlier for earlier, later in pairwise(moments)) <= DEFAULT + SLACK
            way.is_healed = True
            again = await restart()
        assert again.stopped is None
        assert set(again.summary) == {Outcome.COMPLETED if MODES[mode].get("wait", True) else Outcome.ACCEPTED}
        await trio.sleep(60.0)
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


#: Each pair of two of these is in some case.
BOUNDED: Final = [
    (which, status, body, retry_after)
    for which_number, which in enumerate(Which)
    for number, (status, body) in enumerate([(429, OVER_LIMIT), (503, PAGE), (202, FLOW_LIMIT), (500, b""), (504, b"")])
    for seconds_number, retry_after in enumerate([None, 0, 1, 60, 600, 899, 901, 1e9])
    if (which_number + number + seconds_number) % 5 == 0
]


@pytest.mark.unmeasured
@pytest.mark.parametrize(("which", "status", "body", "retry_after"), BOUNDED)
def test_it_ends_in_its_bound(which: Which, status: int, body: bytes, retry_after: float | None) -> None:
    """Whatever is answered to whichever requests, and however long it asks to wait, a run ends within its bound."""

    async def main() -> None:
        cloud = cloud_of(8, reboot_seconds=(2.0, 9.0))
        answer = answering(status, body) if retry_after is None else retry(status, body, retry_after)
        way = Refusing(cloud, which, answer, grace=1)
        async with client_through(cloud, way, max_at_once=5) as client:
            began = trio.current_time()
            report = await client.restart(cloud.ids)
        # The acceptances at its beginning are progress, and so is what comes back in spite of all.
        assert trio.current_time() - began <= DEFAULT + SLACK + 10.0
        assert_accounted(report, cloud)
        if report.stopped is not None:
            # What may have been carried out, and is in doubt, is harm whoever is to blame.
            harm = (StopReason.MAX_FAILURES,) if Outcome.IN_DOUBT in report.summary else ()
            assert report.stopped.reason in (StopReason.STALLED, StopReason.OUTAGE, *harm)
        assert "right list" not in str(report.stopped)

    virtually(main)


@pytest.mark.parametrize("retry_after", [1801, 2_592_000])
def test_a_hold_that_is_too_long_stops_at_once(retry_after: float) -> None:
    """A Retry-After above 1,800 s is not waited for."""

    async def main() -> None:
        cloud = cloud_of(20)
        way = Refusing(cloud, Which.SENDS, retry(429, OVER_LIMIT, retry_after))
        async with client_through(cloud, way) as client:
            report = await client.restart(cloud.ids)
        assert_stopped(report, "the cloud asks to wait", reasons=(StopReason.OUTAGE,))
        assert report.elapsed < 5.0

    virtually(main)


#: How a cloud limits the rate of a single request, and asks to wait.
RATE_LIMITS = {
    "429": lambda seconds: Fault.respond(429, OVER_LIMIT, {"retry-after": seconds}),
    "413": lambda seconds: Fault.respond(413, OVER_LIMIT, {"retry-after": seconds}),
    "429 of a gateway": lambda seconds: Fault.respond(429, b"slow down", {"retry-after": seconds}),
    "202, postponed": lambda seconds: Fault.respond(202, FLOW_LIMIT, {"retry-after": seconds}),
}


@pytest.mark.parametrize("limit", RATE_LIMITS.values(), ids=RATE_LIMITS)
@pytest.mark.parametrize("retry_after", [600, 900, 1500, 1800])
def test_a_pause_within_the_stall_timeout_is_waited_for(limit: Callable[[str], Fault], retry_after: int) -> None:
    """One rate limit in a run that goes well does not stop it; nothing leaves before the cloud allows it."""

    async def main() -> None:
        cloud = cloud_of(50, reboot_seconds=(20.0, 20.0))
        cloud.script(cloud.ids[20], limit(str(retry_after)))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(max_down=5))
        assert (report.stopped, report.summary) == (None, {Outcome.COMPLETED: 50})
        arrivals = sorted(request.time for request in cloud.requests)
        assert max(later - earlier for earlier, later in pairwise(arrivals)) >= retry_after
        assert_accounted(report, cloud)

    virtually(main)


@pytest.mark.parametrize("limit", RATE_LIMITS.values(), ids=RATE_LIMITS)
@pytest.mark.parametrize("retry_after", [1801, 2000, 3600])
def test_a_longer_pause_stops_a_run_that_goes_well(limit: Callable[[str], Fault], retry_after: int) -> None:
    """It says how long the cloud asks to wait, and what can be restarted; nothing leaves meanwhile."""

    async def main() -> None:
        cloud = cloud_of(50, reboot_seconds=(20.0, 20.0))
        cloud.script(cloud.ids[20], limit(str(retry_after)))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(max_down=5))
            assert report.stopped is not None
            assert report.stopped.reason is StopReason.OUTAGE
            assert report.stopped.detail.startswith(f"the cloud asks to wait for {retry_after} s (")
            assert report.stopped.detail.endswith("; what is left can be restarted after that")
            assert report.summary[Outcome.SKIPPED] >= 25
            assert_accounted(report, cloud)

    virtually(main)


def test_the_cause_is_said_in_the_cloud_s_own_words() -> None:
    """What every request was answered is said once, with how long, and nothing else is claimed."""

    async def main() -> None:
        cloud = cloud_of(20)
        way = Refusing(cloud, Which.ALL, ANSWERS["429"][0], grace=1)
        async with client_through(cloud, way) as client:
            report = await client.restart(cloud.ids)
        assert report.stopped is not None
        assert report.stopped.detail == (
            "the cloud has answered 429 to every request for 30 min (overLimit: This request was rate-limited.); "
            "what is left can be restarted when that has passed"
        )

    virtually(main)


def test_a_secret_in_the_cause_is_masked() -> None:
    """A gateway that echoes our headers in its refusal tells nobody our token."""

    async def main() -> None:
        cloud = cloud_of(3)
        cloud.token = "gAAAAABsecretsecretsecret"
        cloud.add_token(cloud.token)
        echo = b'{"overLimit": {"code": 429, "message": "slow down, X-Auth-Token: ' + cloud.token.encode() + b'"}}'
        way = Refusing(cloud, Which.SENDS, answering(429, echo))
        async with client_through(cloud, way) as client:
            report = await client.restart(cloud.ids)
        assert_stopped(report, "slow down")
        assert cloud.token not in str(report.to_dict())

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", ["429", "429, Retry-After: 1", "429, Retry-After: 600"])
@pytest.mark.parametrize("which", [Which.SENDS, Which.LOGS])
def test_with_since(which: Which, name: str) -> None:
    """With `since`, where a look precedes each send, it ends the same way, also where only the log is refused."""

    async def main() -> None:
        cloud = cloud_of(10)
        since = datetime(2026, 1, 1, tzinfo=UTC)
        way = Refusing(cloud, which, ANSWERS[name][0])
        async with client_through(cloud, way) as client:
            report = await client.restart(cloud.ids, wait=False, since=since)
        assert report.elapsed <= DEFAULT + SLACK
        assert_accounted(report, cloud)
        if which is Which.SENDS:
            assert_stopped(report, "429")
        else:
            # The log alone fails, so the run goes on without it.
            assert report.stopped is None
            assert {one.reason for one in report} == {Reason.HISTORY_UNREADABLE}
        assert not any(cloud.cycles.values())

    virtually(main)


def test_refused_before_the_first_send(tmp_path: Path) -> None:
    """A cloud that throttles the very first look: nothing was sent, the error names the cause, and a call goes on."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(2.0, 9.0))
        way = Refusing(cloud, Which.ALL, ANSWERS["429"][0])
        async with client_through(cloud, way) as client:
            began = trio.current_time()
            with pytest.raises(EndpointError, match=r"429 to every request for 30 min .*; nothing was sent$") as caught:
                await client.restart(cloud.ids, journal=tmp_path / "journal")
            assert isinstance(caught.value, StalledError)
            assert DEFAULT <= trio.current_time() - began <= DEFAULT + SLACK
            way.is_healed = True
            report = await client.restart(cloud.ids, journal=tmp_path / "journal")
        assert report.summary == {Outcome.COMPLETED: 20}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


def test_refused_while_the_fleet_is_surveyed() -> None:
    """A survey that must see each server, and is shown none, ends as what comes before the first send."""

    async def main() -> None:
        cloud = cloud_of(20)
        way = Refusing(cloud, Which.READS, ANSWERS["429, Retry-After: 600"][0], grace=1)
        async with client_through(cloud, way) as client:
            began = trio.current_time()
            with pytest.raises(StalledError, match="nothing was sent"):
                await client.restart(cloud.ids, rollout=Rollout(spread="host"))
            assert trio.current_time() - began <= DEFAULT + SLACK
        assert not any(cloud.posts.values())

    virtually(main)


def test_a_slow_survey_goes_on() -> None:
    """A survey that is shown one server every 13 min is slow, and not stalled."""

    async def main() -> None:
        cloud = cloud_of(4, max_limit=1)
        inner = httpx.ASGITransport(asgi(cloud))
        seen: set[httpx.URL] = set()

        async def slow(request: httpx.Request) -> httpx.Response:
            # Only the first read of each: a later look that took as long would be too old for the send after it.
            if request.url not in seen:
                seen.add(request.url)
                await trio.sleep(800.0)
            return await inner.handle_async_request(request)

        async with httpx.AsyncClient(transport=httpx.MockTransport(slow)) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
            report = await client.restart(cloud.ids, reboot_type="HARD", request_timeout=3000.0, wait=False)
        assert report.stopped is None
        assert report.summary == {Outcome.ACCEPTED: 4}
        assert report.elapsed >= 3 * 800.0

    virtually(main)


def test_a_shorter_bound() -> None:
    """A shorter bound ends the run sooner."""

    async def main() -> None:
        cloud = cloud_of(20)
        way = Refusing(cloud, Which.SENDS, ANSWERS["429, Retry-After: 1"][0])
        async with client_through(cloud, way) as client:
            report = await client.restart(cloud.ids, wait=False, server_timeout=60.0, stall_timeout=100.0)
        assert_stopped(report, "429 to every request for 2 min")
        assert 100.0 <= report.elapsed <= 100.0 + SLACK

    virtually(main)


def test_a_rate_that_is_slower_than_the_bound_extends_it() -> None:
    """A request every 20 min is what was asked for, and no stall."""

    async def main() -> None:
        cloud = cloud_of(3)
        async with client_of(cloud, max_per_second=1 / 1200.0) as client:
            report = await client.restart(cloud.ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 3}

    virtually(main)


def test_patient_waits_are_not_cut() -> None:
    """A server that may take 4,000 s to come back extends the default bound, and fails in its own way."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(100_000.0, 100_000.0))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=4000.0)
        assert report.stopped is None
        assert report.results[0].reason is Reason.NOT_BACK

    virtually(main)


def test_a_wait_as_long_as_the_bound_comes_first() -> None:
    """Where both are equal the server fails in its own way, which says more."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(100_000.0, 100_000.0))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=1800.0)
        assert report.stopped is None
        assert report.results[0].reason is Reason.NOT_BACK

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("asks", [False, True])
def test_the_pause_between_waves_does_not_count(asks: bool) -> None:
    """Two hours between two waves, or until the user's function answers, are no stall; what follows may be one."""

    async def main() -> None:
        cloud = cloud_of(10, reboot_seconds=(1.0, 1.0))
        way = Refusing(cloud, Which.SENDS, ANSWERS["429, Retry-After: 1"][0], grace=8)

        async def decide(_: Report) -> bool:
            await trio.sleep(7200.0)
            return True

        async with client_through(cloud, way) as client:
            pause: Any = decide if asks else 7200.0
            report = await client.restart(cloud.ids, rollout=Rollout(canary=1, pause=pause))
        assert_stopped(report, "429")
        assert report.elapsed > 7200.0 + DEFAULT
        assert report.elapsed < 7200.0 + DEFAULT + 30.0 + SLACK

    virtually(main)


@pytest.mark.unmeasured
def test_a_pause_begun_without_progress() -> None:
    """Waves whose servers the cloud refuses are no progress, however many there are, and pauses still do not count."""

    async def main() -> None:
        cloud = cloud_of(100)
        way = Refusing(cloud, Which.SENDS, answering(500))
        async with client_through(cloud, way) as client:
            rollout = Rollout(wave=1, pause=100.0, max_refused=3)
            report = await client.restart(cloud.ids, rollout=rollout)
        assert_stopped(report, "500 to every reboot request")
        exhausted = sum(result.reason is Reason.ATTEMPTS_EXHAUSTED for result in report)
        assert exhausted > 5
        # The first two servers may be to blame themselves, and so are progress. Each takes less than 300 s: five sends,
        # 30 s after each for a log whose lag is not measured, and the waits of the retry policy.
        assert report.elapsed <= DEFAULT + 100.0 * exhausted + 2 * 300.0 + SLACK

    virtually(main)


def test_a_user_s_check_that_never_returns() -> None:
    """Each call is bounded, and so is the time for a server: it is failed, and not stalled."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(1.0, 1.0))

        async def check(_: Server) -> bool:
            await trio.sleep_forever()
            return True

        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, verify=check, verify_timeout=100.0)
        assert report.stopped is None
        assert {result.reason for result in report} == {Reason.VERIFY_FAILED}

    virtually(main)


@pytest.mark.unmeasured
def test_many_slow_checks_are_no_stall() -> None:
    """Where 150 checks run at once, a fleet may take longer than the bound: each call is progress."""

    async def main() -> None:
        cloud = cloud_of(900, reboot_seconds=(1.0, 1.0))

        async def check(_: Server) -> bool:
            await trio.sleep(29.0)
            return False

        async with client_of(cloud, max_at_once=500) as client:
            arguments: dict[str, Any] = {"server_timeout": 60.0, "wait_timeout": 60.0, "stall_timeout": 120.0}
            report = await client.restart(
                cloud.ids, verify=check, verify_timeout=100.0, rollout=REGARDLESS, **arguments
            )
        assert report.stopped is None
        assert report.elapsed > 2 * 150.0
        assert {result.reason for result in report} == {Reason.VERIFY_FAILED}

    virtually(main)


def test_a_lent_client_that_hangs() -> None:
    """Requests that nobody answers, in a client whose request_timeout is a day, end with the run."""

    async def main() -> None:
        cloud = cloud_of(10)
        way = Refusing(cloud, Which.ALL, answering(200), grace=1)

        async def hang(request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                await trio.sleep_forever()
            return await way(request)

        async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
            report = await client.restart(cloud.ids, request_timeout=86_400.0)
        assert_stopped(report, "no server was accepted or came back for 30 min; no request was answered")
        assert report.elapsed <= DEFAULT + SLACK
        assert report.summary == {Outcome.IN_DOUBT: 10}

    virtually(main)


def test_a_server_that_no_page_and_no_look_shows() -> None:
    """A server that is never shown again is waited for until its own `wait_timeout`, because lists are answered."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(1.0, 1.0))
        inner = httpx.ASGITransport(asgi(cloud))

        async def hide(request: httpx.Request) -> httpx.Response:
            if request.method == "GET" and request.url.path.endswith("/servers/detail"):
                return httpx.Response(200, json={"servers": []})
            if request.method == "GET" and any(cloud.posts.values()):
                return httpx.Response(500, json={"computeFault": {"code": 500, "message": "a cell is down"}})
            return await inner.handle_async_request(request)

        async with httpx.AsyncClient(transport=httpx.MockTransport(hide)) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.IN_DOUBT: 3}
        assert all("500 computeFault" in result.detail for result in report)
        assert 600.0 <= report.elapsed <= 700.0

    virtually(main)


def test_stopped_and_then_stalled(caplog: pytest.LogCaptureFixture) -> None:
    """A run that was asked to stop follows what it sent no longer than the bound; the first reason stands."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(1.0, 1.0))
        way = Refusing(cloud, Which.READS, ANSWERS["429"][0], grace=1)
        async with client_through(cloud, way) as client, client.restarting(cloud.ids) as run:
            await trio.sleep(2.0)
            run.stop()
            async for _ in run:
                pass
        assert_stopped(run.report, reasons=(StopReason.ASKED,))
        assert run.report.elapsed <= DEFAULT + SLACK

    with caplog.at_level(logging.WARNING, "bulkrestart"):
        virtually(main)
    assert any(line.getMessage().startswith("the run waits no longer: ") for line in caplog.records)


def test_busy_for_ever_is_the_server_s() -> None:
    """A server in a task that never ends is given up after `server_timeout`, and counts against its budget."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(1.0, 1.0))
        cloud.occupy(cloud.ids[0], "image_uploading", 1e9)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(max_refused=0))
        assert_stopped(report, "1 server refused or skipped", reasons=(StopReason.MAX_REFUSED,))
        assert report.results[0].reason is Reason.BUSY

    virtually(main)


@pytest.mark.unmeasured
def test_budgets_do_not_count_what_the_cloud_does() -> None:
    """A fleet whose every send is answered 500 ends by its attempts, and never as a wrong list."""

    async def main() -> None:
        cloud = cloud_of(20)
        way = Refusing(cloud, Which.SENDS, answering(500))
        async with client_through(cloud, way) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(max_refused=0, max_failures=0))
        assert report.stopped is None
        assert {result.reason for result in report} == {Reason.ATTEMPTS_EXHAUSTED}

    virtually(main)


@pytest.mark.parametrize("fault", [Fault.error(500), Fault.no_reply(applied=False)], ids=["refused", "in doubt"])
def test_a_canary_answers_for_itself(fault: Fault) -> None:
    """One server that is tried alone, and given up, spends the budget: nothing shows that it is the cloud's doing."""

    async def main() -> None:
        cloud = cloud_of(30)
        cloud.script(cloud.ids[0], *[fault] * 9)
        cloud.script(cloud.ids[0], *[Fault.error(500)] * 2000, call=Call.LOG)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(canary=1, max_refused=0, max_failures=0))
        assert_stopped(report, "1 server", reasons=(StopReason.MAX_REFUSED, StopReason.MAX_FAILURES))
        assert len(cloud.posts) == 1

    virtually(main)


def test_budgets_count_what_servers_do() -> None:
    """Servers that fail while others are accepted are their own doing."""

    async def main() -> None:
        cloud = cloud_of(60)
        for server_id in cloud.ids[:5]:
            cloud.script(server_id, *[Fault.error(500)] * 9)
        async with client_of(cloud, max_at_once=5) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(max_refused=2))
        assert_stopped(report, "is it the right list?", reasons=(StopReason.MAX_REFUSED,))

    virtually(main)


@pytest.mark.unmeasured
def test_503s_whose_reboots_were_carried_out_are_no_outage() -> None:
    """A gateway that answers 503 to every send that the cloud has taken: each server is found to be accepted."""

    async def main() -> None:
        cloud = cloud_of(100, reboot_seconds=(2.0, 9.0))
        inner = httpx.ASGITransport(asgi(cloud))

        async def lose(request: httpx.Request) -> httpx.Response:
            response = await inner.handle_async_request(request)
            if request.method != "POST":
                return response
            await trio.sleep(8.0)
            return httpx.Response(503, content=PAGE)

        async with httpx.AsyncClient(transport=httpx.MockTransport(lose)) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 100}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


@pytest.mark.unmeasured
def test_503s_for_200_s_cost_no_server_its_attempts() -> None:
    """Where sends alone fail for a while, no attempt and no time of a server is spent."""

    async def main() -> None:
        cloud = cloud_of(50, reboot_seconds=(2.0, 9.0))
        way = Refusing(cloud, Which.SENDS, answering(503, PAGE))
        cloud.later(200.0, lambda: setattr(way, "is_healed", True))
        async with client_through(cloud, way) as client:
            report = await client.restart(cloud.ids, max_attempts=2, server_timeout=60.0)
        assert report.summary == {Outcome.COMPLETED: 50}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


class Locked(Renewed):
    """A sign-in that works once, and for 60 s; then it is asked to wait for ever."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token
        self.fetches = 0

    def remedy(self, refusal: httpx.Response) -> str:
        """Say nothing of use."""
        return "wait"

    async def fetch(self) -> Issued:
        """Sign in once."""
        self.fetches += 1
        if self.fetches > 1:
            raise SignInError(Trouble("the sign-in is throttled", "wait", retry_after=600.0))
        return Issued({"X-Auth-Token": self._token}, 60.0)


def test_a_sign_in_that_never_comes() -> None:
    """A sign-in that is put off again and again ends the run, and is named."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(1e6, 1e6))
        transport = httpx.ASGITransport(asgi(cloud))
        async with httpx.AsyncClient(transport=transport) as http:
            url = f"http://cloud.test/v2.1/{cloud.project_id}"
            client = RestartClient(url, auth=Locked(cloud.token), http=http)
            report = await client.restart(cloud.ids)
            assert_stopped(report, "no sign-in has succeeded for", "(the sign-in is throttled)")
            assert report.elapsed <= DEFAULT + SLACK
            began = trio.current_time()
            with pytest.raises(StalledError, match="no sign-in has succeeded"):
                await anext(client.servers())
            assert trio.current_time() - began == pytest.approx(DEFAULT)

    virtually(main)


@asynccontextmanager
async def endless(
    answer: Callable[[httpx.Request, int], httpx.Response | None], *, servers: int = 30
) -> AsyncIterator[tuple[Cloud, RestartClient]]:
    """Give a cloud some of whose requests are answered by a function of the request and its number."""
    cloud = cloud_of(servers, reboot_seconds=(2.0, 9.0))
    inner = httpx.ASGITransport(asgi(cloud))
    numbers = count()

    async def respond(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1.0)
        return answer(request, next(numbers)) or await inner.handle_async_request(request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http:
        yield cloud, RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)


def new_page(request: httpx.Request, number: int) -> httpx.Response | None:
    """Answer a list with a server that was never there before, and with a next page."""
    if not request.url.path.endswith("/servers/detail"):
        return None
    links = [{"rel": "next", "href": "http://cloud.test/next"}]
    return httpx.Response(200, json={"servers": [{"id": f"new-{number}"}], "servers_links": links})


def new_group(request: httpx.Request, number: int) -> httpx.Response | None:
    """Answer a list of server groups with one that was never there before."""
    if "os-server-groups" not in request.url.path:
        return None
    return httpx.Response(200, json={"server_groups": [{"id": f"new-{number}", "policies": [], "members": []}]})


async def list_all(client: RestartClient) -> None:
    """Read a list to its end."""
    async for _ in client.servers():
        pass


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("answer", "ask"),
    [
        pytest.param(new_page, list_all, id="servers"),
        pytest.param(new_group, RestartClient.anti_affinity, id="groups"),
    ],
)
def test_a_list_without_an_end(
    answer: Callable[[httpx.Request, int], httpx.Response | None], ask: Callable[[RestartClient], Awaitable[object]]
) -> None:
    """What has ever new entries ends after as long as a run may stall, and says how many pages there were."""

    async def main() -> None:
        async with endless(answer) as (_, client):
            began = trio.current_time()
            words = r"has not given all .* for 30 min; the list has not ended after \d{4} pages; nothing was sent"
            with pytest.raises(StalledError, match=words):
                await ask(client)
            assert trio.current_time() - began == pytest.approx(DEFAULT, abs=2.0)

    virtually(main)


def test_the_time_of_the_caller_does_not_count() -> None:
    """A listing that is read slowly by the caller is not stalled."""

    async def main() -> None:
        cloud = cloud_of(4, max_limit=1)
        async with client_of(cloud) as client:
            ids = []
            async for server in client.servers():
                ids.append(server.id)
                await trio.sleep(3600.0)
        assert len(ids) == 4

    virtually(main)


@pytest.mark.parametrize("name", ["429", "429, Retry-After: 600"])
def test_throttled_without_a_run(name: str) -> None:
    """A list, a plan and the server groups end as a run does where the cloud throttles every request."""

    async def main() -> None:
        cloud = cloud_of(5)
        way = Refusing(cloud, Which.ALL, ANSWERS[name][0])
        async with client_through(cloud, way) as client:
            for ask in (list_all, RestartClient.anti_affinity, lambda one: one.plan(cloud.ids)):
                began = trio.current_time()
                with pytest.raises(StalledError, match=r"429 to every request for (29|30) min"):
                    await ask(client)
                assert trio.current_time() - began <= DEFAULT + SLACK

    virtually(main)


@pytest.mark.unmeasured
def test_an_endless_list_under_a_survey_and_polls() -> None:
    """Lists with ever new servers are given up for looks at single servers: the run completes."""

    async def main() -> None:
        async with endless(new_page) as (cloud, client):
            report = await client.restart(cloud.ids, reboot_type="HARD")
            assert report.summary == {Outcome.COMPLETED: 30}
            assert report.elapsed < DEFAULT
            plan = await client.plan(cloud.ids)
        assert len(plan.expected) == 1

    virtually(main)


def test_a_walk_ends_when_all_are_seen() -> None:
    """Where the first page of an endless list shows all that are waited for, no other page is read."""

    async def main() -> None:
        pages = 0

        def answer(request: httpx.Request, number: int) -> httpx.Response | None:
            nonlocal pages
            if not request.url.path.endswith("/servers/detail"):
                return None
            pages += 1
            links = [{"rel": "next", "href": "http://cloud.test/next"}]
            if "marker" in request.url.params:
                return httpx.Response(200, json={"servers": [{"id": f"new-{number}"}], "servers_links": links})
            states = {"OS-EXT-STS:vm_state": "active", "OS-EXT-STS:task_state": None}
            rows = [{"id": server_id, **states} for server_id in ids]
            return httpx.Response(200, json={"servers": rows, "servers_links": links})

        async with endless(answer) as (cloud, client):
            ids = cloud.ids
            report = await client.restart(cloud.ids)
            assert report.summary == {Outcome.COMPLETED: 30}
            assert pages < 30
            assert report.elapsed < 60.0

    virtually(main)


@pytest.mark.unmeasured
def test_a_server_missing_from_an_endless_list_is_late_in_time() -> None:
    """While a list without an end is read no time-out of a server is forgotten: it is given up by then."""

    async def main() -> None:
        async with endless(new_page, servers=3) as (cloud, client):
            cloud.break_host(cloud.ids[0], HostFault.HANG)
            report = await client.restart(cloud.ids, wait_timeout=300.0)
        assert report.summary == {Outcome.COMPLETED: 2, Outcome.FAILED: 1}
        assert report.results[0].reason is Reason.NOT_BACK
        assert report.elapsed < 400.0

    virtually(main)
