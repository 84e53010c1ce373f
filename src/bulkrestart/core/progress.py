"""How far one server has come: the ledger's open entry, and what decisions know besides what is seen now."""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from bulkrestart.core.clock import Instant
from bulkrestart.core.decision import Accept, Decision, End, Look, Send
from bulkrestart.core.model import Outcome, Reason, RebootType, ServerResult
from bulkrestart.core.observation import Observation, Sighting, is_refused_token
from bulkrestart.core.sends import SETTLED, Fate, Sends


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked for, and when: one and the same for all servers of a run.

    Attributes:
        reboot_type: The type that was asked for.
        may_escalate: Leave to send HARD where SOFT can never work.
        may_start: Leave to send HARD to a stopped server, which starts it.
        run_began: When the run began, in seconds on its clock.
    """

    reboot_type: RebootType
    may_escalate: bool = False
    may_start: bool = False
    run_began: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLook:
    """What the last look leaves for the next step, whatever it showed.

    Attributes:
        at: When it began, in seconds on the run's clock.
        instant: The same moment, on clocks that count suspension.
        refused: Looks in a row, up to this one, that refused our newest token, or whatever else signs our requests.
        is_history_unread: It wanted to see in the action log whether the server has rebooted, and could not.
    """

    at: float = float("-inf")
    instant: Instant | None = None
    refused: int = 0
    is_history_unread: bool = False


#: None was there yet, or none is needed any more.
NO_LOOK: Final = LastLook()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedSoft:
    """A SOFT that was accepted and ended in error, and that HARD follows. Where there is one, no second HARD is sent.

    Attributes:
        request_id: The cloud's id of it.
        words: What was seen of its end.
    """

    request_id: str
    words: str

    def unfollowed(self, end: End) -> End:
        """Tell what became of its server, where it is clear that HARD has not followed."""
        if end.outcome is Outcome.IN_DOUBT:
            return end
        why = "the run stopped" if end.outcome is Outcome.ACCEPTED else end.detail or end.reason
        return replace(
            end,
            outcome=Outcome.FAILED,
            reason=Reason.GONE if end.reason is Reason.NOT_FOUND else Reason.ERROR,
            detail=f"{self.words}; HARD was to follow, and did not: {why}",
            proof=None,
        )

    def __str__(self) -> str:
        return f"HARD followed the SOFT {self.request_id}, which ended in error: {self.words}"


@dataclass(slots=True, kw_only=True)
class Progress:
    """One server between its first look or send and its outcome.

    Attributes:
        server_id: The server.
        order: What was asked for.
        reboot_type: The type that the last or the next send asks for.
        began: When the run came to it, in seconds on the run's clock.
        sends: What was sent to it.
        fate: What is known of the last send, as long as it is not accepted.
        last_look: The last look at it, as long as nothing is accepted.
        words: What the cloud said last of the sends, or showed last if nothing was sent.
        accepted: How the last send was accepted; None while it is not.
        failed_soft: The SOFT that HARD follows; None where none does.
        back: Completed, and what is left is the user's own check; None before, or without one.
    """

    server_id: str
    order: Order
    reboot_type: RebootType
    began: float = 0.0
    sends: Sends = field(default_factory=Sends)
    fate: Fate = SETTLED
    last_look: LastLook = NO_LOOK
    words: str = ""
    accepted: Accept | None = None
    failed_soft: FailedSoft | None = None
    back: End | None = None

    @property
    def is_sent(self) -> bool:
        """What was sent is to be followed to its end: it was accepted, or its fate is unknown."""
        return self.accepted is not None or self.fate.is_unresolved

    @property
    def request_id(self) -> str | None:
        """The cloud's id of the accepted reboot; None if it is unknown, or nothing is accepted."""
        return None if self.accepted is None else self.accepted.request_id

    @property
    def settled_ids(self) -> frozenset[str | None]:
        """The requests of ours whose fate is known while that of the last one is not."""
        soft_id = None if self.failed_soft is None else self.failed_soft.request_id
        return frozenset((soft_id, *(attempt.request_id for attempt in self.sends.attempts[:-1])))

    def leaving(self, now: float, cloud_time: tuple[float, float] | None) -> "Progress":
        """Tell how far it will have come when a send has left."""
        leaving = replace(self, sends=replace(self.sends))
        leaving.sends.leave(now, cloud_time)
        return leaving

    def answer(self, now: float, seen: Observation, decision: Decision, *, took: float = inf) -> None:
        """Record what came back, and what was decided on it.

        Args:
            now: The time, in seconds on the run's clock.
            seen: What came back.
            decision: What was decided on it.
            took: Seconds from the send to `now`, by a clock that counts suspension. Unknown times are long.
        """
        self.sends.answer(now, seen, decision, run_began=self.order.run_began)
        self.fate = Fate.of(now, seen, decision, took=took)
        self.words = seen.words
        self._take(decision)

    def look(self, sighting: Sighting, decision: Decision) -> None:
        """Note what a look showed, and what was decided on it."""
        is_refused = is_refused_token(sighting.log) or is_refused_token(sighting.server)
        self.last_look = LastLook(
            at=sighting.at,
            instant=sighting.instant,
            refused=self.last_look.refused + 1 if is_refused else 0,
            is_history_unread=not self.fate.is_unresolved and isinstance(sighting.log, Observation),
        )
        self.fate = self.fate.after(sighting, decision)
        if not self.sends.attempts:
            self.words = sighting.server.words
        self._take(decision)

    def _take(self, decision: Decision) -> None:
        match decision:
            case Accept():
                self.accepted, self.last_look = decision, NO_LOOK
            case Send():
                self.reboot_type = decision.reboot_type
            case Look() | End():
                pass

    def identify(self, request_id: str) -> None:
        """Note the cloud's id of the accepted reboot, which the action log has shown."""
        assert self.accepted is not None, "what is not accepted has no row of its own"
        self.accepted = replace(self.accepted, request_id=request_id)

    def escalate(self, failure: End) -> None:
        """Begin anew with HARD, after a SOFT that was accepted and ended in error.

        Attempts are counted anew. What the SOFT left is forgotten, so that only a reboot that starts from now on can
        be taken for the HARD.
        """
        assert self.request_id is not None, "the row of the SOFT has shown how it ended"
        self.failed_soft = FailedSoft(request_id=self.request_id, words=failure.detail)
        self.reboot_type, self.accepted, self.sends = RebootType.HARD, None, self.sends.anew()

    def result(self, now: float, end: End) -> ServerResult:
        """Close the entry with its outcome."""
        return ServerResult(
            server_id=self.server_id,
            outcome=end.outcome,
            reason=end.reason,
            detail=end.detail or str(self.failed_soft or ""),
            reboot_type=self.reboot_type,
            attempts=self.sends.attempts,
            request_id=self.request_id,
            proof=end.proof,
            elapsed=now - self.began,
        )

    def so_far(self, *, is_over: bool) -> End:
        """Tell what is known now: for a report that is read meanwhile, or of a run that broke off."""
        interrupted = Reason.INTERRUPTED if is_over else None
        if self.back is not None:
            return replace(self.back, reason=interrupted, detail="it was not verified to the end" if is_over else "")
        if self.accepted is not None:
            return End(outcome=Outcome.ACCEPTED, reason=interrupted)
        if self.sends.in_flight_since is not None or self.fate.is_unresolved:
            reason = Reason.INTERRUPTED if is_over else Reason.IN_FLIGHT
            return End(outcome=Outcome.IN_DOUBT, reason=reason, detail=self.words)
        if self.failed_soft is not None:
            detail = f"{self.failed_soft.words}; HARD was to follow"
            return End(outcome=Outcome.ACCEPTED, reason=interrupted, detail=detail)
        if self.sends.has_reached:
            reason = Reason.STOPPED if is_over else Reason.PARKED
            return End(outcome=Outcome.REFUSED, reason=reason, detail=self.words)
        return untouched(self.words, is_over=is_over)

    def out_of_attempts(self) -> End:
        """Give up after `max_attempts` sends, each known to have started nothing."""
        if not self.sends.has_reached:
            return End(outcome=Outcome.SKIPPED, reason=Reason.UNREACHABLE, detail=self.words)
        return End(outcome=Outcome.REFUSED, reason=Reason.ATTEMPTS_EXHAUSTED, detail=self.words)

    def out_of_time(self) -> End:
        """Give up after `server_timeout`."""
        if self.fate.is_unresolved:
            return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=self.words)
        if self.last_look.is_history_unread:
            return self.history_unreadable(self.words)
        if not self.sends.attempts:
            return End(outcome=Outcome.SKIPPED, reason=Reason.BUSY, detail=self.words)
        if not self.sends.has_reached:
            return End(outcome=Outcome.SKIPPED, reason=Reason.UNREACHABLE, detail=self.words)
        return End(outcome=Outcome.REFUSED, reason=Reason.BUSY, detail=self.words)

    def history_unreadable(self, detail: str) -> End:
        """Leave it alone, because the action log does not tell whether it has rebooted."""
        return self._left_alone(Reason.HISTORY_UNREADABLE, detail)

    def history_uncertain(self, detail: str) -> End:
        """Leave it alone, because the clocks do not show whether it has rebooted since."""
        return self._left_alone(Reason.HISTORY_UNCERTAIN, detail)

    def _left_alone(self, reason: Reason, detail: str) -> End:
        outcome = Outcome.REFUSED if self.sends.has_reached else Outcome.SKIPPED
        return End(outcome=outcome, reason=reason, detail=detail)


def untouched(words: str = "", *, is_over: bool) -> End:
    """Tell what is known of a server that nothing has reached; `words` is what it showed, if it was looked at."""
    return End(outcome=Outcome.SKIPPED, reason=Reason.STOPPED if is_over else Reason.NOT_STARTED, detail=words)
