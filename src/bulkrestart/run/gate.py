"""One run's way to the cloud: so many requests at once, and none while everybody is asked to wait."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import TypeVar

import anyio

from bulkrestart.cloud.credentials import Renewed, Trouble
from bulkrestart.core.decision import Hold
from bulkrestart.core.model import Stop
from bulkrestart.core.observation import Answer, Unsent
from bulkrestart.core.progress import Progress
from bulkrestart.core.stall import RequestKind
from bulkrestart.core.trouble import closed
from bulkrestart.limits.admission import Flow
from bulkrestart.limits.fair_queue import Priority
from bulkrestart.limits.rejections import Rejections
from bulkrestart.run.course import Course
from bulkrestart.run.stall import StallWatch
from bulkrestart.run.traffic import Claim, Traffic

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Gate:
    """Lets a request through. A slot is held for one request and nothing else: not while waiting or signing in.

    Only a send and the looks that have to come right before it share one (`Submitter`).
    When a slot is had, nobody was asked to wait at that moment, and nothing awaits between that and the request.

    Args:
        traffic: What all requests of the client share.
        auth: What has to be signed in before a slot is taken; None if nothing.
        max_at_once: The run's own bound on requests at once; None for that of the client.
        stall: Ends what makes no progress. None: a new one, for requests outside a run.

    Attributes:
        course: Ends the waits for a send when the run stops, and all of them when it is lost.
        stall: Ends what makes no progress.
    """

    def __init__(
        self, traffic: Traffic, auth: Renewed | None, max_at_once: int | None = None, stall: StallWatch | None = None
    ) -> None:
        self.course = Course()
        self.stall = stall or StallWatch(is_run=False)
        self.stall.pause_cause = self._pause_cause
        self._traffic = traffic
        self._admission = traffic.admission
        self._auth = auth
        self._rejections = Rejections()
        self._party = Flow(max_at_once, anyio.current_time())
        self.course.tell(partial(traffic.wake, self._party))

    @property
    def is_held(self) -> bool:
        """Nothing may leave at this moment, slot or no slot."""
        return not self.is_signed_in or self._admission.is_paused(anyio.current_time())

    @property
    def is_signed_in(self) -> bool:
        """There is something to sign a request with at this moment."""
        return self._auth is None or self._auth.is_signed_in

    @property
    def is_breaker_open(self) -> bool:
        """The cloud is in trouble, by all that is known."""
        return self._admission.breaker.is_open

    async def sign_in(self) -> Trouble | None:
        """See that there is something to sign with, when nobody is asked to wait; give the trouble if it is final.

        While whoever signs us in is in trouble that may pass, everybody waits: no server is tried in vain.
        """
        return await self.sign_in_until(self.course.lost)

    async def sign_in_until(self, end: anyio.Event) -> Trouble | None:
        """Sign in, unless the end comes first; return the trouble if it is final."""
        if self._auth is None or self._auth.is_lasting:
            return None
        while not end.is_set():
            if wait := self._admission.throttle.remaining(anyio.current_time()):
                self._judge()
                # The head of the queues may wait here, and all others behind it: it stops their runs in time, too.
                with anyio.move_on_after(min(wait, self._traffic.judge(self._party))):
                    await end.wait()
                continue
            asked = anyio.current_time()
            trouble = await self._auth.sign_in()
            self.stall.record_sign_in(trouble)
            if trouble is None or trouble.is_final:
                return trouble
            if not self._admission.throttle.remaining(anyio.current_time()):
                _log.warning("everybody waits: %s", trouble.words)
            self._traffic.hold(trouble.retry_after, sent_at=asked, words=trouble.words)
        return None

    def send(self, probe: Callable[[], Awaitable[object]]) -> "Passage":
        """Pass with a send, which waits no longer than until the run stops.

        Args:
            probe: Asks how the cloud is, if it is in trouble: no server's send is spent on that.
        """
        return Passage(self, Claim(self._party, Priority.SEND, self.course, is_for_send=True, probe=probe))

    async def enter(self, claim: Claim) -> Trouble | None:
        """Take a slot; give the trouble if there is nothing to sign with and never will be."""
        trouble = await self.sign_in_until(claim.end)
        return trouble or await self._traffic.take(claim, self)

    def leave(self, claim: Claim) -> None:
        """Give the slot back."""
        self._traffic.leave(claim)

    async def ask(
        self, request: Callable[[], Awaitable[T]], server_id: str | None, *, is_for_send: bool = False
    ) -> tuple[T | Answer | Unsent, float]:
        """Make a request that changes nothing, and observe its answer.

        Args:
            request: Makes it.
            server_id: The server that it is about; None if it is about many.
            is_for_send: It is of no use once the run has stopped.

        Returns:
            The answer, and when the request left. Where nobody signs us in nothing leaves, and that is the answer; nor
            does anything when the run is lost.
        """
        async with Passage(self, Claim(self._party, Priority.LOOK, self.course, is_for_send=is_for_send)) as passage:
            asked = anyio.current_time()
            if passage.trouble is not None:
                return passage.trouble.answer, asked
            if not passage.is_free:
                return Unsent("the run has stopped"), asked
            seen = await request()
            self.observe(seen, sent_at=asked, server_id=server_id)
            return seen, asked

    def count_one_more(self) -> None:
        """Note that a request leaves in the slot of another."""
        self._admission.count_one_more(anyio.current_time())

    def observe(self, seen: object, *, sent_at: float, server_id: str | None, progress: Progress | None = None) -> None:
        """Let an answer pause all requests, or change how many leave at once; see `Admission.observe`."""
        if isinstance(seen, Unsent) and seen.is_final:
            self.course.halt(closed(seen.words))
            return
        self._traffic.observe(seen, sent_at=sent_at, server_id=server_id, progress=progress)
        self._judge()
        if (stop := self._admission.sends_verdict(self._party, anyio.current_time())) is not None:
            # Looks are answered, so the servers that were sent to can be followed to their end.
            self.course.halt(stop, is_lost=False)

    def record(self, kind: RequestKind, seen: object, server_id: str | None, sent_at: float) -> None:
        """Record how a request ended; stop the run if the endpoint or the token has turned out to be wrong.

        Args:
            kind: What was asked for.
            seen: What came back.
            server_id: The server of the request; None if it was for many.
            sent_at: When the request left.
        """
        self.stall.record(kind, seen)
        now = anyio.current_time()
        match self._rejections.record(kind, seen, server_id, now, sent_at=sent_at):
            case Stop() as stop:
                self.course.halt(stop)
            case Hold(seconds):
                self._traffic.hold(seconds, sent_at=now, words=str(seen))
            case None:
                pass

    def count_good_except(self, kind: RequestKind) -> int:
        """Return how many requests of other kinds got a good answer so far."""
        return self._rejections.count_good_except(kind)

    def note_accepted(self) -> None:
        """Record a server whose acceptance an answer or a later look has shown."""
        self._admission.note_accepted()
        self._rejections.note_accepted()
        self.stall.note_server()

    def _pause_cause(self) -> str:
        return self._admission.pause_cause(anyio.current_time())

    def _judge(self) -> None:
        """Stop the run if it would wait for too long."""
        now = anyio.current_time()
        if self._admission.is_paused(now) and (stop := self._admission.verdict(self._party, now)) is not None:
            self.course.halt(stop)

    def active_time(self, moment: float) -> float:
        """Read at a moment a clock that stands still while everybody is held: that time counts against nobody."""
        return self._admission.active_time(moment)

    def active_send_time(self, moment: float) -> float:
        """Read a clock that is also paused while the cloud refuses every send, or every look, of all servers."""
        return self._admission.active_send_time(moment)


class Passage:
    """One request's way through the gate.

    Attributes:
        trouble: Why there is nothing to sign with, and never will be; nothing is to be sent then.
    """

    __slots__ = ("_claim", "_gate", "trouble")

    def __init__(self, gate: Gate, claim: Claim) -> None:
        self._gate = gate
        self._claim = claim
        self.trouble: Trouble | None = None

    @property
    def is_free(self) -> bool:
        """The request may leave."""
        return self._claim.slot is not None

    @property
    def left_at(self) -> float:
        """When the request could leave."""
        assert self._claim.slot is not None, "it waits yet, or is through"
        return self._claim.slot.left_at

    async def __aenter__(self) -> "Passage":
        self.trouble = await self._gate.enter(self._claim)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gate.leave(self._claim)
