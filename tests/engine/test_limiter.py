"""Permits: when they are granted, in which order, and that none is lost when a request is cancelled."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NoReturn

import anyio
import httpx
import pytest

from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.sender import LentSender
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.endpoint import Endpoint
from bulkrestart.core.faults import Body, Fault
from bulkrestart.core.model import RebootType, Stop, StopReason
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.options import Options
from bulkrestart.core.report import Ledger
from bulkrestart.core.stall import RequestKind
from bulkrestart.engine.limiter import PER_TURN, RequestLimiter, RunLimiter
from bulkrestart.engine.stop_signal import StopSignal
from bulkrestart.limits.admission import Admission
from bulkrestart.limits.pacing import LONGEST_REQUESTED_PAUSE
from bulkrestart.limits.permit import Priority
from bulkrestart.run.account import Account
from bulkrestart.run.recorder import Recorder
from tests.cloud.scripted import Scripted
from tests.virtual import virtually

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def limiter_of(most: int) -> RunLimiter:
    """Return the limiter of the only run of a client."""
    return RunLimiter(RequestLimiter(Admission(most)), None)


async def hold(limiter: RunLimiter, end: anyio.Event, number: int, granted: list[int]) -> None:
    """Hold a permit until the end."""
    async with limiter.permit(Priority.SEND):
        granted.append(number)
        await end.wait()


async def settle() -> None:
    """Let all tasks go on until each waits for something."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


# Turns of the event loop.


@BACKENDS
def test_few_go_on_in_one_turn_of_the_loop(backend: str) -> None:
    """Of many requests that come together few leave in one turn of the event loop; all leave in the end."""

    async def main() -> None:
        limiter = limiter_of(100)
        gone: list[int] = []

        async def go(number: int) -> None:
            async with limiter.permit(Priority.SEND):
                gone.append(number)

        for first in (0, 100):
            async with anyio.create_task_group() as group:
                for number in range(first, first + 100):
                    group.start_soon(go, number)
                before = len(gone)
                for _ in range(400):
                    # A loop may take its tasks in any order: between two turns of this one are two of the others.
                    await anyio.lowlevel.checkpoint()
                    assert len(gone) - before <= 2 * PER_TURN
                    before = len(gone)
        assert sorted(gone) == list(range(200))

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("count", [1, PER_TURN, PER_TURN + 1, 20 * PER_TURN])
def test_a_request_that_has_waited_for_its_turn_leaves_in_it(count: int) -> None:
    """So many requests leave in each turn that no turn is lost. On asyncio, whose tasks run in the order of waking."""

    async def main() -> None:
        limiter = limiter_of(count)
        gone: list[int] = []
        turns = 0

        async def go(number: int) -> None:
            async with limiter.permit(Priority.SEND):
                gone.append(number)

        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(go, number)
            while len(gone) < count:
                await anyio.lowlevel.checkpoint()
                turns += 1
        # The tasks begin in the first turn.
        assert turns == 1 + -(-count // PER_TURN)

    anyio.run(main, backend="asyncio")


@BACKENDS
@pytest.mark.parametrize("after", range(5))
def test_a_cancelled_request_leaves_its_turn_to_others(backend: str, after: int) -> None:
    """Whenever requests are cancelled, before or after their turn of the loop has come, all others leave."""

    async def main() -> None:
        limiter = limiter_of(7)
        gone: list[int] = []
        scopes = [anyio.CancelScope() for _ in range(200)]

        async def go(number: int) -> None:
            with scopes[number]:
                async with limiter.permit(Priority.SEND):
                    gone.append(number)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(go, number)
            for _ in range(after):
                await anyio.lowlevel.checkpoint()
            for scope in scopes[::3]:
                scope.cancel()
        assert {number for number in range(200) if number % 3} <= set(gone)
        assert len(gone) == len(set(gone))
        assert limiter.requests.admission.in_flight == limiter.flow.in_flight == 0

    anyio.run(main, backend=backend)


# Places that become free.


async def cancel_at_once(scope: anyio.CancelScope, end: anyio.Event) -> None:
    """Cancel a request before the place that it waits for is free."""
    scope.cancel()
    end.set()


async def cancel_together(scope: anyio.CancelScope, end: anyio.Event) -> None:
    """Wake a request and cancel it in the same turn of the loop."""
    end.set()
    await anyio.lowlevel.checkpoint()
    scope.cancel()


async def cancel_after(scope: anyio.CancelScope, end: anyio.Event) -> None:
    """Cancel a request that has its permit."""
    end.set()
    await settle()
    scope.cancel()


async def cancel_while_it_waits(scope: anyio.CancelScope, end: anyio.Event) -> None:
    """Cancel a request, and free the place when it is gone."""
    scope.cancel()
    await settle()
    end.set()


@BACKENDS
@pytest.mark.parametrize("cancel", [cancel_at_once, cancel_together, cancel_after, cancel_while_it_waits])
def test_a_cancelled_request_passes_its_wake_up_on(
    backend: str, cancel: Callable[[anyio.CancelScope, anyio.Event], Awaitable[None]]
) -> None:
    """If the first that waits is cancelled around the time it is woken, the second gets the place."""

    async def main() -> None:
        limiter = limiter_of(1)
        granted: list[int] = []
        ends = [anyio.Event() for _ in range(3)]
        scope = anyio.CancelScope()

        async def first() -> None:
            with scope:
                await hold(limiter, ends[1], 1, granted)

        with anyio.fail_after(5.0):
            async with anyio.create_task_group() as group:
                group.start_soon(hold, limiter, ends[0], 0, granted)
                await settle()
                group.start_soon(first)
                await settle()
                group.start_soon(hold, limiter, ends[2], 2, granted)
                await settle()
                assert granted == [0]
                await cancel(scope, ends[0])
                await settle()
                assert granted[-1] == 2
                ends[2].set()
        assert limiter.requests.admission.in_flight == limiter.flow.in_flight == 0

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("waiting", [1, 3])
@pytest.mark.parametrize(
    "seen",
    [Answer(503), Answer(504), Unanswered("late", may_come_late=True), Unsent("EMFILE", is_local=True)],
    ids=["503", "504", "late", "this machine"],
)
def test_a_request_that_waits_leaves_when_a_kept_slot_becomes_free(seen: Observation, waiting: int, most: int) -> None:
    """After requests are shed at once, no other request ends: the first that waits has to wait for the time itself."""

    async def main() -> None:
        limiter = limiter_of(most)
        left: list[float] = []

        async def take(seen: object, seconds: float) -> None:
            async with limiter.permit(Priority.SEND):
                sent_at = limiter.record_sent()
                left.append(sent_at)
                await anyio.sleep(seconds)
                limiter.record_answer(RequestKind.SEND, seen, "server", sent_at)

        await take(Answer(202), 1.0)
        began = anyio.current_time()
        with anyio.fail_after(60.0):
            async with anyio.create_task_group() as group:
                for _ in range(most):
                    group.start_soon(take, seen, 0.25)
                await anyio.sleep(0.125)
                for _ in range(waiting):
                    group.start_soon(take, Answer(202), 1.0)
        assert len(left) == 1 + most + waiting
        assert left[1 + most] - began == pytest.approx(1.0)

    virtually(main)


@BACKENDS
@pytest.mark.parametrize("priority", Priority)
def test_a_look_leaves_before_sends_that_wait(backend: str, priority: Priority) -> None:
    """The next free place is for the look, although sends came before it; a send waits behind them."""

    async def main() -> None:
        limiter = limiter_of(1)
        granted: list[str] = []
        end = anyio.Event()

        async def take(name: str, priority: Priority) -> None:
            async with limiter.permit(priority):
                granted.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(partial(hold, limiter, end, 0, []))
            await settle()
            for number in range(3):
                group.start_soon(take, f"send {number}", Priority.SEND)
                await settle()
            group.start_soon(take, "last", priority)
            await settle()
            end.set()
        sends = [f"send {number}" for number in range(3)]
        assert granted == (["last", *sends] if priority is Priority.LOOK else [*sends, "last"])

    anyio.run(main, backend=backend)


@BACKENDS
@pytest.mark.parametrize("turns", range(5))
def test_a_new_request_does_not_overtake_those_that_wait(backend: str, turns: int) -> None:
    """A request that comes around the moment at which a place becomes free goes behind the one that waits for it."""

    async def main() -> None:
        limiter = limiter_of(1)
        granted: list[str] = []

        async def take(name: str) -> None:
            async with limiter.permit(Priority.SEND):
                granted.append(name)

        async with anyio.create_task_group() as group, limiter.permit(Priority.SEND):
            group.start_soon(take, "waiting")
            await settle()
            group.start_soon(take, "new")
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
        assert granted == ["waiting", "new"]

    anyio.run(main, backend=backend)


# What came back.


Call = Callable[[Compute], Awaitable[object]]
#: Each request that there is, with its kind, and whether it is about one server.
REQUESTS: Final[list[tuple[RequestKind, bool, Call]]] = [
    (RequestKind.SEND, True, lambda compute: compute.reboot("server", RebootType.SOFT)),
    (RequestKind.SERVER, True, lambda compute: compute.show("server")),
    (RequestKind.LOG, True, lambda compute: compute.actions("server")),
    (RequestKind.LOG, True, lambda compute: compute.action("server", "req-1")),
    (RequestKind.LIST, False, lambda compute: compute.page()),
    (RequestKind.GROUPS, False, lambda compute: compute.groups()),
]
#: What may come back, and whether it is an answer of the cloud.
ENDS: Final[dict[str, Callable[[httpx.Request], httpx.Response]]] = {
    "success": lambda _: httpx.Response(200, json={}),
    "429": lambda _: httpx.Response(429, headers={"Retry-After": "30"}),
    "503": lambda _: httpx.Response(503),
    "login page": lambda _: httpx.Response(200, text="<html>"),
    "cut": lambda request: _fail(httpx.ReadError("cut", request=request)),
    "late": lambda request: _fail(httpx.ReadTimeout("late", request=request)),
}


def _fail(error: Exception) -> NoReturn:
    raise error


class Observed(RunLimiter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(RequestLimiter(Admission(10)), None)
        self.sent: list[float] = []
        self.answers: list[tuple[RequestKind, object, str | None, float]] = []

    def record_sent(self) -> float:
        """Keep it."""
        self.sent.append(super().record_sent())
        return self.sent[-1]

    def record_answer(
        self, kind: RequestKind, seen: object, server_id: str | None, sent_at: float, *, is_about_page: bool = False
    ) -> None:
        """Keep it."""
        self.answers.append((kind, seen, server_id, sent_at))
        super().record_answer(kind, seen, server_id, sent_at, is_about_page=is_about_page)


def compute_of(http: httpx.AsyncClient, limiter: RunLimiter) -> Compute:
    """Return the cloud whose requests the limiter sees."""
    endpoint = Endpoint.parse("http://cloud.test/v2.1/p")
    return Compute(endpoint, LentSender(http), None, CloudClock(), 5.0, limiter)


@BACKENDS
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("kind", "is_of_server", "call"), REQUESTS, ids=["reboot", "show", "actions", "action", "page", "groups"]
)
def test_each_request_is_observed_once(
    backend: str, kind: RequestKind, is_of_server: bool, call: Call, end: str
) -> None:
    """However a request ends, the limiter learns of it without a word of the caller's: what, of whom, since when."""

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(ENDS[end])) as http:
            limiter = Observed()
            async with limiter.permit(Priority.SEND) as permit:
                seen = await call(compute_of(http, limiter))
                assert permit.granted_at is not None
                assert permit.granted_at <= limiter.sent[0]
        assert limiter.answers == [(kind, seen, "server" if is_of_server else None, limiter.sent[0])]
        assert len(limiter.sent) == 1

    anyio.run(main, backend=backend)


@BACKENDS
@pytest.mark.parametrize("backoff", [30.0, None])
@pytest.mark.parametrize(("kind", "is_of_server", "call"), REQUESTS, ids=[str(number) for number in range(6)])
def test_a_throttled_answer_to_any_request_pauses_all(
    backend: str, kind: RequestKind, is_of_server: bool, call: Call, backoff: float | None
) -> None:
    """Whichever request is throttled, no other may leave after it."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={} if backoff is None else {"Retry-After": f"{backoff:g}"})

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            limiter = limiter_of(10)
            assert not limiter.is_paused
            await call(compute_of(http, limiter))
            assert limiter.is_paused

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("call", [call for _, _, call in REQUESTS[:4]], ids=["reboot", "show", "actions", "action"])
def test_each_request_counts_against_the_rate(call: Call) -> None:
    """A look that leaves with the permit of a send counts as the send does."""

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(ENDS["success"])) as http:
            admission = Admission(10, 1.0)
            limiter = RunLimiter(RequestLimiter(admission), None)
            async with limiter.permit(Priority.SEND):
                began = anyio.current_time()
                await call(compute_of(http, limiter))
                await call(compute_of(http, limiter))
        assert admission.wait(limiter.flow, began) == pytest.approx(2.0, abs=0.5)

    anyio.run(main)


def limited(seen: Observation, *, kind: RequestKind = RequestKind.SEND, count: int = 1) -> RunLimiter:
    """Return a limiter after so many of these answers, each for a server of its own; call it in an event loop."""
    limiter = limiter_of(20)
    for number in range(count):
        limiter.record_answer(kind, seen, f"s{number}", limiter.record_sent())
    return limiter


def test_a_send_that_was_withheld_says_nothing_about_the_cloud() -> None:
    """Our own check stopped it: it is neither a failure nor a success of the cloud's."""

    async def main() -> None:
        limiter = limited(Unsent("the look is old", is_withheld=True), count=20)
        assert not limiter.is_breaker_open
        assert not limiter.is_paused
        assert limiter.stop_signal.stop is None

    anyio.run(main)


@pytest.mark.parametrize("is_about_page", [True, False])
@pytest.mark.parametrize("seen", [Answer(500), Answer(502), Answer(504), Unanswered("late")], ids=str)
def test_failures_because_of_a_page_are_no_outage(seen: Observation, is_about_page: bool) -> None:
    """A list whose position the cloud cannot serve does not pause the requests of others."""

    async def main() -> None:
        limiter = limiter_of(20)
        for _ in range(20):
            sent_at = limiter.record_sent()
            limiter.record_answer(RequestKind.LIST, seen, None, sent_at, is_about_page=is_about_page)
        assert limiter.is_breaker_open is not is_about_page

    anyio.run(main)


def test_a_closed_client_ends_the_run() -> None:
    """Nothing will ever leave again, so the run does not wait for answers either."""

    async def main() -> None:
        limiter = limited(Unsent("the client is closed", is_final=True))
        assert limiter.stop_signal.abandoned.is_set()

    anyio.run(main)


@pytest.mark.parametrize(
    ("seen", "count", "words"),
    [
        (Answer(429, Fault(retry_after=16.0)), 1, "the cloud is rate-limiting (429); all requests paused for 16 s"),
        (Answer(503, Fault(retry_after=60.0)), 1, "the cloud asks to wait (503); all requests paused for 60 s"),
        (Answer(429, Fault(retry_after=16.0)), 9, "the cloud is rate-limiting (429); all requests paused for 16 s"),
        (Answer(429, Fault(retry_after=3.0)), 1, None),
        (Answer(502), 5, "the cloud is in trouble (502); all requests paused until it answers"),
        (Answer(502), 4, None),
        (Answer(202), 9, None),
    ],
    ids=str,
)
def test_a_pause_is_logged(seen: Answer, count: int, words: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """One line says what the cloud answered, and that all requests are paused, and for how long."""

    async def main() -> None:
        limited(seen, count=count)

    with caplog.at_level(logging.WARNING, "bulkrestart"):
        anyio.run(main)
    assert [record.getMessage() for record in caplog.records] == ([] if words is None else [words])


# Outages and verdicts.


@pytest.mark.parametrize("kind", [RequestKind.SERVER, RequestKind.LIST, RequestKind.LOG])
def test_an_outage_is_reported_to_the_run_of_each_failed_send(kind: RequestKind) -> None:
    """Runs that share a client each learn of their own servers, whichever request confirms the outage."""

    async def main() -> None:
        requests = RequestLimiter(Admission(20))
        limiters = [RunLimiter(requests, None) for _ in range(2)]
        reported: list[list[str]] = [[], []]
        for limiter, servers in zip(limiters, reported, strict=True):
            limiter.flow.on_outage = servers.append
        limiters[0].record_accepted()
        broken = Answer(500, Fault(body=Body.OTHER))
        for number in range(6):
            limiter = limiters[number % 2]
            limiter.record_answer(RequestKind.SEND, broken, f"s{number}", limiter.record_sent())
        assert limiters[0].is_breaker_open
        assert reported == [[], []]
        requests.admission.breaker.start_probe(anyio.current_time())
        limiters[0].record_answer(kind, Answer(502), "any", limiters[0].record_sent())
        assert reported == [["s0", "s2", "s4"], ["s1", "s3", "s5"]]

    anyio.run(main)


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_refund_of_a_finished_server_changes_nothing(is_finished: bool) -> None:
    """A server that has its outcome keeps it; another one gets its attempt back."""

    async def main() -> None:
        options = Options(
            reboot_type=RebootType.SOFT,
            wait=False,
            max_attempts=5,
            request_timeout=60.0,
            server_timeout=900.0,
            wait_timeout=600.0,
            escalate=False,
            start_stopped=False,
            max_at_once=1,
        )
        account = Account(Ledger(["server"], RebootType.SOFT), Recorder(), options, StopSignal())
        progress = account.come_to("server")
        progress.sends.spent = 1
        if is_finished:
            account.close(progress, progress.out_of_attempts())
        account.refund_attempt("server")
        assert progress.sends.spent == (1 if is_finished else 0)

    anyio.run(main)


#: What makes a run wait for too long, and when that is known.
TOO_LONG: Final = {
    "a pause that is a second too long": (Answer(429, Fault(retry_after=LONGEST_REQUESTED_PAUSE + 1.0)), 1, 0.0),
    "a pause of an hour": (Answer(429, Fault(retry_after=3600.0)), 1, 0.0),
    "an outage": (Answer(502), 5, 300.0),
    "an outage that asks to wait": (Answer(503, Fault(retry_after=60.0)), 5, 300.0),
}


@pytest.mark.parametrize("case", TOO_LONG)
@pytest.mark.parametrize("priority", Priority)
def test_runs_that_wait_for_too_long_are_told(case: str, priority: Priority) -> None:
    """Each run with a waiting request gets the reason once it is known; a run without one is left alone."""
    seen, count, seconds = TOO_LONG[case]

    async def main() -> None:
        requests = RequestLimiter(Admission(20))
        answered, *waiting, idle = (RunLimiter(requests, None) for _ in range(4))
        # The answers belong to a run that is over: only requests that wait can be told.
        answered.flow.on_stop = str
        for number in range(count):
            answered.record_answer(RequestKind.SERVER, seen, f"s{number}", answered.record_sent())
        ended: list[float] = []

        async def wait(limiter: RunLimiter) -> None:
            async with limiter.permit(priority, is_for_send=priority is Priority.SEND, probe=fail) as permit:
                assert permit.granted_at is None
            ended.append(anyio.current_time())

        async def fail() -> None:
            answered.record_answer(RequestKind.SERVER, seen, "any", answered.record_sent())

        async with anyio.create_task_group() as group:
            for limiter in waiting:
                group.start_soon(wait, limiter)
            await anyio.sleep(400.0)
            group.cancel_scope.cancel()
        assert ended == pytest.approx([seconds, seconds])
        for limiter in waiting:
            assert limiter.stop_signal.stop is not None
            assert limiter.stop_signal.stop.reason is StopReason.OUTAGE
        assert idle.stop_signal.stop is None

    virtually(main)


def outage_of(requests: RequestLimiter) -> None:
    """Let an outage begin, of which a run that is over learns."""
    over = RunLimiter(requests, None)
    for number in range(5):
        over.record_answer(RequestKind.LIST, Answer(502), f"s{number}", over.record_sent())


@pytest.mark.parametrize("hangs", [60.0, 1000.0])
def test_a_probe_that_hangs_holds_up_no_end_of_another_run(hangs: float) -> None:
    """While the first that waits probes in vain, the next one takes over the watch on the time."""

    async def main() -> None:
        requests = RequestLimiter(Admission(20))
        outage_of(requests)
        ended: list[float] = []

        async def wait(limiter: RunLimiter) -> None:
            async with limiter.permit(Priority.SEND, probe=partial(anyio.sleep, hangs)):
                pass
            ended.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait, RunLimiter(requests, None))
            await anyio.sleep(310.0)
            assert ended[:2] == pytest.approx([300.0] * 2)
            group.cancel_scope.cancel()

    virtually(main)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("seen", [Answer(200), Answer(404), Answer(429)], ids=str)
def test_a_probe_that_is_answered_lets_all_leave(seen: Answer, count: int) -> None:
    """One probe is made for all that wait, and none of their own requests is spent on it."""

    async def main() -> None:
        limiter = limiter_of(20)
        outage_of(limiter.requests)
        probed: list[float] = []
        granted: list[int] = []

        async def probe() -> None:
            probed.append(anyio.current_time())
            limiter.record_answer(RequestKind.SERVER, seen, "any", limiter.record_sent())

        async def wait(number: int) -> None:
            async with limiter.permit(Priority.SEND, probe=probe) as permit:
                assert not permit.is_probe
                granted.append(number)

        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(wait, number)
        assert probed == [1.0]
        assert len(granted) == count

    virtually(main)


@pytest.mark.parametrize(("first", "second"), [(Priority.SEND, Priority.LOOK), (Priority.LOOK, Priority.SEND)])
def test_each_run_is_told_in_its_own_time(first: Priority, second: Priority) -> None:
    """A run that began later waits longer, and the run before it ends in time whichever of the two leaves first."""

    async def main() -> None:
        requests = RequestLimiter(Admission(20))
        outage_of(requests)
        requests.admission.breaker.start_probe(anyio.current_time())
        ended: list[float] = []

        async def wait(limiter: RunLimiter, priority: Priority) -> None:
            async with limiter.permit(priority):
                pass
            ended.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            group.start_soon(wait, RunLimiter(requests, None), first)
            await anyio.sleep(100.0)
            group.start_soon(wait, RunLimiter(requests, None), second)
        assert ended == pytest.approx([300.0, 400.0])

    virtually(main)


def test_the_shared_limiter_hands_out_a_verdict_and_stops_nothing() -> None:
    """What becomes of a verdict is for the run to decide: its signal is not set by the limiter of all."""

    async def main() -> None:
        requests = RequestLimiter(Admission(1))
        limiter = RunLimiter(requests, None)
        verdicts: list[Stop] = []
        limiter.flow.on_stop = verdicts.append
        end = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(hold, limiter, end, 0, [])
            await settle()
            group.start_soon(hold, limiter, end, 1, [])
            await settle()
            requests.pause(3600.0, sent_at=anyio.current_time(), words="come back tomorrow")
            assert [stop.reason for stop in verdicts] == [StopReason.OUTAGE]
            assert limiter.stop_signal.stop is None
            group.cancel_scope.cancel()

    anyio.run(main)


# Signing in.


@pytest.mark.parametrize("takes", [0.0, 3.0])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_request_keeps_its_place_while_it_signs_in(takes: float, count: int) -> None:
    """Requests leave in the order in which they came, although the token ended while they waited."""

    async def main() -> None:
        auth = Scripted(None, life=60.0, takes=takes)
        limiter = RunLimiter(RequestLimiter(Admission(1)), auth)
        granted: list[int] = []
        end, other = anyio.Event(), anyio.Event()
        other.set()
        async with anyio.create_task_group() as group:
            group.start_soon(hold, limiter, end, 0, granted)
            await anyio.sleep(10.0)
            for number in range(1, count + 1):
                group.start_soon(hold, limiter, other, number, granted)
                await anyio.sleep(1.0)
            await anyio.sleep(60.0)
            assert not limiter.is_signed_in
            end.set()
        assert granted == list(range(count + 1))
        assert len(auth.asked) == 2

    virtually(main)
