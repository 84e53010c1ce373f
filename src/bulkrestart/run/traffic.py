"""How requests wait for their turn: asleep until they may leave, and woken by whoever makes room."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import anyio

from bulkrestart.cloud.credentials import Trouble
from bulkrestart.core.observation import Unsent
from bulkrestart.core.progress import Progress
from bulkrestart.limits.admission import Admission, Flow, Slot
from bulkrestart.limits.fair_queue import FairQueue, Place, Priority
from bulkrestart.limits.pacing import LONGEST_REQUESTED_PAUSE
from bulkrestart.run.course import Course
from bulkrestart.run.turnstile import Turnstile

_log = logging.getLogger(__name__)

#: Seconds from which on it is told that everybody waits: whoever looks on would take it for a run that hangs.
_LONG_HOLD: Final = 10.0


class Claim(Place):
    """One request's claim to a slot: from when it asks for one until it gives that back.

    Args:
        flow: The run or listing that it is made for.
        priority: Who goes first.
        course: That of the run.
        is_for_send: It is of no use once the run has stopped; else, once the run is lost.
        probe: Asks how the cloud is, where the request itself is not to be tried on a closed door; None if it may be.

    Attributes:
        end: Ends the wait when it is set: there is no slot then, and nothing is to leave.
        slot: What lets the request leave; None before and after.
        woken: Set when it is to look whether it may go.
    """

    __slots__ = ("course", "end", "probe", "slot", "woken")

    def __init__(
        self,
        flow: Flow,
        priority: Priority,
        course: Course,
        *,
        is_for_send: bool,
        probe: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        super().__init__(flow, priority)
        self.course = course
        self.end = course.stopped if is_for_send else course.lost
        self.probe = probe
        self.slot: Slot | None = None
        self.woken: anyio.Event | None = None

    def wake(self) -> bool:
        """Have it look whether it may go; False if it is about to."""
        assert self.woken is not None, "only who waits is woken"
        if self.woken.is_set():
            return False
        self.woken.set()
        return True

    async def sleep(self, seconds: float) -> None:
        """Wait until it is woken, and no longer than so many seconds."""
        assert self.woken is not None, "who may be woken sleeps"
        if seconds == float("inf"):
            await self.woken.wait()
        else:
            with anyio.move_on_after(seconds):
                await self.woken.wait()


class Signer(Protocol):
    """Signs a run in."""

    @property
    def is_signed_in(self) -> bool:
        """There is something to sign a request with at this moment."""
        ...

    async def sign_in_until(self, end: anyio.Event) -> Trouble | None:
        """Sign in, unless the end comes first; return the trouble if it is final."""
        ...


class Traffic:
    """The requests of a client that wait until they may leave.

    Args:
        admission: Tells when they may.
    """

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._queues: FairQueue[Claim] = FairQueue()
        self._turnstile = Turnstile()
        #: Whether a warning about a limit of this machine has been logged.
        self._has_warned_of_limit = False

    async def take(self, claim: Claim, signer: Signer) -> Trouble | None:
        """Wait for a slot at a moment at which nobody is asked to wait; nothing awaits between that and the return.

        Without a slot it returns when, and only when, the claim's `end` is set, or if there is nothing to sign with.
        A claim keeps its place while it signs in, because the claims behind it need the same token: if it had to join
        again, a poll could wait behind every send of a run whose sends outlive their tokens.

        Args:
            claim: The claim.
            signer: Signs it in.

        Returns:
            Why there is nothing to sign with, and never will be; None otherwise.
        """
        await self._turnstile.wait()
        now = anyio.current_time()
        is_open = self._queues.is_empty and not self.admission.breaker.is_open and signer.is_signed_in
        if is_open and self.admission.wait(claim.flow, now) == 0.0:
            claim.slot = self.admission.admit(claim.flow, now)
            return None
        self._queues.join(claim)
        try:
            while not claim.end.is_set():
                # Before the look, which may stop the run that it is made for, and so wake it.
                claim.woken = anyio.Event()
                if not signer.is_signed_in and self._queues.first() is claim:
                    if (trouble := await signer.sign_in_until(claim.end)) is not None:
                        return trouble
                    continue
                wait = self._look(claim)
                if claim.slot is None:
                    await claim.sleep(wait)
                elif claim.slot.is_probe and claim.probe is not None:
                    await self._ask(claim, claim.probe)
                else:
                    return None
            return None
        finally:
            self._queues.quit(claim)
            self._wake_next()

    def _look(self, claim: Claim) -> float:
        """Take a slot if it may go; tell how long to wait if not."""
        if self._queues.first() is not claim:
            return float("inf")
        now = anyio.current_time()
        outage = self.judge(claim.flow)
        wait = self.admission.wait(claim.flow, now)
        if wait == 0.0 and not claim.end.is_set():
            claim.slot = self.admission.admit(claim.flow, now)
        return min(wait, outage)

    def judge(self, flow: Flow) -> float:
        """Stop the runs that have waited for too long, and return the seconds until the next run must stop.

        Args:
            flow: A run that waits. It need not have a request in the queues yet.
        """
        now = anyio.current_time()
        self._judge(now)
        began = min([flow.began, *(head.flow.began for head in self._queues.heads())])
        return self.admission.breaker.outage_ends(began) - now

    async def _ask(self, claim: Claim, probe: Callable[[], Awaitable[object]]) -> None:
        """Spend a slot on the question whether the cloud is back. Nobody waits behind it for the answer."""
        self._queues.quit(claim)
        if (first := self._queues.first()) is not None:
            # There may be no slot for it, but somebody has to see that the runs have waited for long enough.
            first.wake()
        try:
            asked = anyio.current_time()
            self.observe(await probe(), sent_at=asked, server_id=None)
        finally:
            self.leave(claim)
            # It may be this one server that is in trouble: another asks next.
            self._queues.join(claim)

    def leave(self, claim: Claim) -> None:
        """Give the slot back."""
        if claim.slot is not None:
            self.admission.release(claim.slot)
            claim.slot = None
            self._wake_next()

    def _wake_next(self) -> None:
        """Have the first of the queues look whether it may go; without a slot, whoever gives one back does that.

        If it is about to look already, so may the one after it: slots that come free together are taken together.
        """
        if not self._queues.is_empty and (free := self.admission.free) >= 1:
            any(claim.wake() for claim in self._queues.next(free))

    def wake(self, flow: Flow) -> None:
        """Have all of one flow look whether they still wait."""
        for claim in self._queues.of(flow):
            claim.wake()

    def observe(self, seen: object, *, sent_at: float, server_id: str | None, progress: Progress | None = None) -> None:
        """Learn from what came back; `Admission.observe` says more."""
        now, was_closed = anyio.current_time(), self.admission.breaker.is_open
        held = self.admission.throttle.remaining(now)
        self.admission.observe(seen, now, sent_at=sent_at, server_id=server_id, progress=progress)
        if isinstance(seen, Unsent) and seen.is_local and not self._has_warned_of_limit:
            self._has_warned_of_limit = True
            _log.warning("a limit of this machine slows down the requests: %s; %s", seen.words, seen.remedy)
        if LONGEST_REQUESTED_PAUSE >= (hold := self.admission.throttle.remaining(now)) >= _LONG_HOLD > held:
            _log.warning("everybody waits for %.0f s, as the cloud asks (%s)", hold, seen)
        if self.admission.breaker.is_open and not was_closed:
            _log.warning("everybody waits: the cloud is in trouble (%s)", seen)
        elif was_closed and not self.admission.breaker.is_open:
            _log.warning("the cloud answers again")
        if self.admission.is_paused(now):
            self._judge(now)

    def hold(self, seconds: float | None, *, sent_at: float, words: str) -> None:
        """Hold everybody; a run that would wait for too long is stopped."""
        now = anyio.current_time()
        self.admission.pause(now, seconds, sent_at=sent_at, words=words)
        self._judge(now)

    def _judge(self, now: float) -> None:
        """Stop the runs of those that wait for too long."""
        for head in self._queues.heads():
            if (stop := self.admission.verdict(head.flow, now)) is not None:
                head.course.halt(stop)
