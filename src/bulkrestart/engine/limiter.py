"""Limits the requests of a client: how many at once, how many a second, and none while all are paused.

Law: a permit is held for one request and nothing else: not while waiting or signing in. Nothing awaits between the
moment at which it is granted and the request. Only a send and the looks that have to come right before it share one.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from bulkrestart.cloud.credentials import Renewed, Trouble
from bulkrestart.core.decision import Hold
from bulkrestart.core.model import Stop
from bulkrestart.core.observation import Answer, Observation, Unsent
from bulkrestart.core.stall import RequestKind
from bulkrestart.core.trouble import closed, is_rate_signal
from bulkrestart.engine.stall import StallWatch
from bulkrestart.engine.stop_signal import StopSignal
from bulkrestart.limits.admission import Admission
from bulkrestart.limits.fair_queue import FairQueue
from bulkrestart.limits.pacing import LONGEST_REQUESTED_PAUSE
from bulkrestart.limits.permit import BasePermit, Flow, Priority
from bulkrestart.limits.rejections import Rejections

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Requests that leave in one turn of the event loop. Each takes up to half a millisecond until its answer is dealt
#: with, a new connection included, and delays all other tasks of the loop for as long.
PER_TURN: Final = 5
#: Seconds from which on a pause is logged: a user would think that the run hangs.
_LONG_PAUSE: Final = 10.0


class RequestLimiter:
    """What all requests of a client share: they wait here until they may leave.

    Args:
        admission: Decides when they may.
    """

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._queue: FairQueue[Permit] = FairQueue()
        self._turns = anyio.Semaphore(PER_TURN, fast_acquire=True)
        #: Whether a warning about a limit of this machine has been logged.
        self._has_warned_of_limit = False

    async def acquire(self, permit: "Permit") -> Trouble | None:
        """Wait until a request may leave; nothing awaits between the grant and the return.

        It returns without a grant when, and only when, the permit's `end` is set, or there is nothing to sign with.
        A request keeps its place in the queue while its run signs in, because the requests behind it need the same
        token: if it had to join again, a poll could wait behind every send of a run whose sends outlive their tokens.

        Returns:
            Why there is nothing to sign with, and never will be; None otherwise.
        """
        # A request that has to wait for the semaphore goes on in a later turn anyway.
        is_turn_free = self._turns.value > 0
        async with self._turns:
            if is_turn_free:
                await checkpoint()
        run, admission = permit.run, self.admission
        now = anyio.current_time()
        is_clear = self._queue.is_empty and not admission.breaker.is_open and run.is_signed_in
        if is_clear and admission.wait(permit.flow, now) == 0.0:
            admission.admit(permit, now)
            return None
        self._queue.join(permit)
        try:
            while not permit.end.is_set():
                # Before `_try`, which may end the wait of this permit, and so wake it.
                permit.woken = anyio.Event()
                if not run.is_signed_in and self._queue.first() is permit:
                    if (trouble := await run.sign_in_until(permit.end)) is not None:
                        return trouble
                    continue
                wait = self._try(permit)
                if permit.granted_at is None:
                    await permit.sleep(wait)
                elif permit.is_probe and permit.probe is not None:
                    await self._probe(permit, permit.probe)
                else:
                    return None
            return None
        finally:
            self._queue.quit(permit)
            self._wake_next()

    def release(self, permit: "Permit") -> None:
        """Record that a request is over, if it could leave."""
        if permit.granted_at is not None:
            self.admission.release(permit)
            self._wake_next()

    def wake(self, flow: Flow) -> None:
        """Wake all waiting requests of a flow, so that they look whether they may leave, or wait any longer."""
        for permit in self._queue.of(flow):
            permit.wake()

    def pause(self, seconds: float | None, *, sent_at: float, words: str) -> None:
        """Pause all requests; see `Admission.pause`."""
        now = anyio.current_time()
        self.admission.pause(now, seconds, sent_at=sent_at, words=words)
        self._judge(now)

    def observe(self, seen: object, flow: Flow, *, sent_at: float, server_id: str | None, is_send: bool) -> None:
        """Learn from an answer to a request of a flow, and tell the flows what follows; see `Admission.observe`."""
        now, was_open = anyio.current_time(), self.admission.breaker.is_open
        before = self.admission.throttle.remaining(now)
        sender = flow if is_send else None
        for failed in self.admission.observe(seen, now, sent_at=sent_at, server_id=server_id, sender=sender):
            failed.flow.on_outage(failed.server_id)
        if isinstance(seen, Unsent) and seen.is_local and not self._has_warned_of_limit:
            self._has_warned_of_limit = True
            _log.warning("a limit of this machine slows down the requests: %s; %s", seen.words, seen.remedy)
        if LONGEST_REQUESTED_PAUSE >= (pause := self.admission.throttle.remaining(now)) >= _LONG_PAUSE > before:
            is_rate_limit = isinstance(seen, Observation) and is_rate_signal(seen)
            what = "is rate-limiting" if is_rate_limit else "asks to wait"
            _log.warning("the cloud %s (%s); all requests paused for %.0f s", what, seen, pause)
        if self.admission.breaker.is_open and not was_open:
            _log.warning("the cloud is in trouble (%s); all requests paused until it answers", seen)
        elif was_open and not self.admission.breaker.is_open:
            _log.warning("the cloud answers again")
        if self.admission.is_paused(now):
            self._judge(now, flow)

    def judge(self, flow: Flow) -> float:
        """Tell the flows that have waited for too long, and return the seconds until the next one has.

        Args:
            flow: A flow that waits. It need not have a request in the queue yet.
        """
        now = anyio.current_time()
        self._judge(now, flow)
        began = min([flow.began, *(head.flow.began for head in self._queue.heads())])
        return self.admission.breaker.outage_ends(began) - now

    def _judge(self, now: float, *others: Flow) -> None:
        """Tell each flow with a waiting request, and the others that are given, if they would wait for too long."""
        for flow in dict.fromkeys([*others, *(head.flow for head in self._queue.heads())]):
            if (stop := self.admission.verdict(flow, now)) is not None:
                flow.on_stop(stop)

    def _try(self, permit: "Permit") -> float:
        """Let a request leave if it may, and return the seconds until it is tried again if not."""
        if self._queue.first() is not permit:
            return float("inf")
        now = anyio.current_time()
        outage = self.judge(permit.flow)
        wait = self.admission.wait(permit.flow, now)
        if wait == 0.0 and not permit.end.is_set():
            self.admission.admit(permit, now)
        return min(wait, outage)

    async def _probe(self, permit: "Permit", probe: Callable[[], Awaitable[object]]) -> None:
        """Use a permit for a probe of the cloud. No request waits behind it for the answer."""
        self._queue.quit(permit)
        if (first := self._queue.first()) is not None:
            # It may not leave yet, but it sees to it that flows which have waited for too long are told.
            first.wake()
        try:
            await probe()
        finally:
            self.release(permit)
            # The server of this probe may itself be the cause of its failure: another request probes next.
            self._queue.join(permit)

    def _wake_next(self) -> None:
        """Wake the first of the queue, if another request may leave.

        If it is awake already, wake the next one: places that become free together are taken together.
        """
        if not self._queue.is_empty and ((free := self.admission.free) >= 1 or self.admission.is_slot_kept):
            any(permit.wake() for permit in self._queue.next(max(1, free)))


class RunLimiter:
    """Limits the requests of one run, or of one listing, and ends the waits of its requests when it stops.

    Args:
        requests: What all requests of the client share.
        auth: What has to be signed in before a request leaves; None if nothing.
        max_at_once: The run's own bound on requests at once; None for that of the client.
        stall: Ends what makes no progress. None: a new one, for requests outside a run.

    Attributes:
        stop_signal: Ends the waits of sends when the run stops, and all waits when it is abandoned.
        stall: Ends what makes no progress.
    """

    def __init__(
        self,
        requests: RequestLimiter,
        auth: Renewed | None,
        max_at_once: int | None = None,
        stall: StallWatch | None = None,
    ) -> None:
        self.stop_signal = StopSignal()
        self.stall = stall or StallWatch(is_run=False)
        self.stall.pause_cause = self._pause_cause
        self.requests = requests
        self.flow = Flow(max_at_once, anyio.current_time())
        self._admission = requests.admission
        self._auth = auth
        self._rejections = Rejections()
        self.flow.on_stop = self.stop_signal.halt
        self.stop_signal.subscribe(partial(requests.wake, self.flow))

    @property
    def is_paused(self) -> bool:
        """Whether no request may leave at this moment, permit or no permit."""
        return not self.is_signed_in or self._admission.is_paused(anyio.current_time())

    @property
    def is_signed_in(self) -> bool:
        """Whether there is something to sign a request with at this moment."""
        return self._auth is None or self._auth.is_signed_in

    @property
    def is_breaker_open(self) -> bool:
        """Whether the circuit breaker is open."""
        return self._admission.breaker.is_open

    def active_time(self, moment: float) -> float:
        """Read a clock that is paused while all requests are paused: no time-out counts that time."""
        return self._admission.active_time(moment)

    def active_send_time(self, moment: float) -> float:
        """Read a clock that is also paused while the cloud refuses every send, or every look, of all servers."""
        return self._admission.active_send_time(moment)

    async def sign_in(self) -> Trouble | None:
        """Sign in if that is needed, and return the failure if it is final.

        After a failure that may pass, all requests are paused, so no attempt of any server is spent on it.
        """
        return await self.sign_in_until(self.stop_signal.abandoned)

    async def sign_in_until(self, end: anyio.Event) -> Trouble | None:
        """Sign in, unless `end` is set first; return the failure if it is final."""
        if self._auth is None or self._auth.is_lasting:
            return None
        while not end.is_set():
            if wait := self._admission.throttle.remaining(anyio.current_time()):
                # The first of the queue may wait here, and all others behind it: their flows have to be told in time.
                with anyio.move_on_after(min(wait, self.requests.judge(self.flow))):
                    await end.wait()
                continue
            asked = anyio.current_time()
            trouble = await self._auth.sign_in()
            self.stall.record_sign_in(trouble)
            if trouble is None or trouble.is_final:
                return trouble
            if not self._admission.throttle.remaining(anyio.current_time()):
                _log.warning("the sign-in fails (%s); all requests paused", trouble.words)
            self.requests.pause(trouble.retry_after, sent_at=asked, words=trouble.words)
        return None

    def permit(
        self, priority: Priority, *, is_for_send: bool = True, probe: Callable[[], Awaitable[object]] | None = None
    ) -> "Permit":
        """Return a permit for one request; entering it waits until the request may leave.

        Args:
            priority: The priority of the request.
            is_for_send: Whether the request is of no use once the run has stopped. If not, it waits until the run is
                abandoned.
            probe: Makes a request that probes the cloud during an outage, in place of this one; None if this one may.
        """
        end = self.stop_signal.stopped if is_for_send else self.stop_signal.abandoned
        return Permit(self, priority, end, probe)

    async def ask(
        self, request: Callable[[], Awaitable[T]], *, is_for_send: bool = False
    ) -> tuple[T | Answer | Unsent, float]:
        """Make a request that changes nothing, as soon as it may leave.

        Args:
            request: Makes it.
            is_for_send: Whether it is of no use once the run has stopped.

        Returns:
            The answer, and when the request left. If the sign-in fails for good, or the run is abandoned, nothing
            leaves, and the answer says so.
        """
        async with self.permit(Priority.LOOK, is_for_send=is_for_send) as permit:
            asked = anyio.current_time()
            if permit.failure is not None:
                return permit.failure.answer, asked
            if permit.granted_at is None:
                return Unsent("the run has stopped"), asked
            return await request(), asked

    def record_sent(self) -> float:
        """Record that a request leaves now, and return the time. `Compute` calls it for each request."""
        now = anyio.current_time()
        self._admission.record_sent(now)
        return now

    def record_answer(
        self, kind: RequestKind, seen: object, server_id: str | None, sent_at: float, *, is_about_page: bool = False
    ) -> None:
        """Learn from how a request ended: the one place that does. `Compute` calls it for each request.

        It may pause all requests, change how many leave at once, or stop the run.

        Args:
            kind: What was asked for.
            seen: What came back.
            server_id: The server of the request; None if it was for many.
            sent_at: When the request left.
            is_about_page: Whether the request failed because of the page of a list that it asked for. Such a failure
                says nothing about the cloud.
        """
        self.stall.record(kind, seen)
        if isinstance(seen, Unsent) and seen.is_withheld:
            return
        if isinstance(seen, Unsent) and seen.is_final:
            self.stop_signal.halt(closed(seen.words))
            return
        now = anyio.current_time()
        match self._rejections.record(kind, seen, server_id, now, sent_at=sent_at):
            case Stop() as stop:
                self.stop_signal.halt(stop)
            case Hold(seconds):
                self.requests.pause(seconds, sent_at=now, words=str(seen))
            case None:
                pass
        is_send = kind is RequestKind.SEND
        self.requests.observe(
            None if is_about_page else seen, self.flow, sent_at=sent_at, server_id=server_id, is_send=is_send
        )
        if (verdict := self._admission.sends_verdict(self.flow, now)) is not None:
            # Looks are answered, so the servers that were sent to can be followed to their end.
            self.stop_signal.halt(verdict, is_abandoned=False)

    def record_accepted(self) -> None:
        """Record a server whose acceptance an answer or a later look has shown."""
        self._admission.record_accepted()
        self._rejections.note_accepted()
        self.stall.note_server()

    def count_good_except(self, kind: RequestKind) -> int:
        """Return how many requests of other kinds got a good answer so far."""
        return self._rejections.count_good_except(kind)

    def _pause_cause(self) -> str:
        return self._admission.pause_cause(anyio.current_time())


class Permit(BasePermit):
    """Permission for one request: `async with` waits for it, and gives it back.

    Attributes:
        run: The limiter of the run.
        end: Ends the wait when it is set: the permit is not granted then, and nothing must leave.
        probe: Probes the cloud in an outage, in place of the request; None if the request itself may.
        failure: Why there is nothing to sign with, and never will be; None otherwise.
        woken: Set when the request has to look whether it may leave.
    """

    __slots__ = ("end", "failure", "probe", "run", "woken")

    def __init__(
        self, run: RunLimiter, priority: Priority, end: anyio.Event, probe: Callable[[], Awaitable[object]] | None
    ) -> None:
        super().__init__(run.flow, priority)
        self.run = run
        self.end = end
        self.probe = probe
        self.failure: Trouble | None = None
        self.woken: anyio.Event | None = None

    async def __aenter__(self) -> Self:
        self.failure = await self.run.sign_in_until(self.end) or await self.run.requests.acquire(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.run.requests.release(self)

    def wake(self) -> bool:
        """Wake the request; return False if it is awake."""
        assert self.woken is not None, "only a request that waits is woken"
        if self.woken.is_set():
            return False
        self.woken.set()
        return True

    async def sleep(self, seconds: float) -> None:
        """Wait until the request is woken, for at most so many seconds."""
        assert self.woken is not None, "only a request that waits sleeps"
        if seconds == float("inf"):
            await self.woken.wait()
        else:
            with anyio.move_on_after(seconds):
                await self.woken.wait()
