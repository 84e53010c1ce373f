"""How far one server has come: the ledger's open entry, and what decisions know besides what is seen now."""

from dataclasses import dataclass, replace

from bulkrestart.core.decision import Accept, Decision, End, Look, Send
from bulkrestart.core.model import Attempt, Outcome, Proof, Reason, RebootType, Server, ServerResult
from bulkrestart.core.observation import Answer, Observation, Sighting, Unsent
from bulkrestart.core.states import REBOOT_TASKS


@dataclass(slots=True, kw_only=True)
class Progress:
    """One server between its first look or send and its outcome. Times are seconds on the run's clock.

    Attributes:
        server_id: The server.
        reboot_type: The type that the last or the next send asks for.
        asked_type: The type that was asked for; None: the same.
        may_escalate: Leave to send HARD where SOFT can never work.
        may_start: Leave to send HARD to a stopped server, which starts it.
        run_began: When the run began.
        began: When the run came to it.
        attempts: Every send that was answered or given up, the oldest first.
        spent: How many of them count against `max_attempts`.
        in_flight_since: When the send that is out now left; None while none is out.
        is_unresolved: The fate of the last send is unknown. While it is, nothing may be sent.
        doubts: Sends whose fate was unknown at first.
        last_status: The status that the last send was answered with; None if it was not.
        has_reached: Some send may have got as far as the cloud.
        since: The cloud's clock, as (earliest, latest) seconds since the epoch, at the first send whose fate was
            unknown, or at the last send if there was none such. A reboot that started since may be ours. None if the
            cloud's clock is unknown. It is not kept as a moment of ours: our clock stands still while the machine
            sleeps.
        is_since_former: `since` was noted by a former process, by the `Date` that it saw.
        answered_at: When the last send was answered, or given up; looks are timed from it.
        may_come_late: The last send may still be at work, though its answer is in, or was given up.
        was_seen_rebooting: A look since then showed the server in a reboot, while the fate of the send was unknown.
        readable_looks: Looks at a log that could be read, since `answered_at`.
        refused_sends: Sends in a row whose answer refused our newest token, or whatever else signs our requests. A
            look that is let in says nothing of sends.
        stale_sends: Sends in a row whose answer refused an older token.
        refused_looks: Looks in a row that refused our newest token, or whatever else signs our requests.
        words: What the cloud said last of the sends, or showed last if nothing was sent.
        is_accepted: It was accepted.
        request_id: The cloud's id of the accepted reboot.
        proof: How the reboot is known; None before.
        looked_at: When the last look at the server began; None before the first.
        soft_id: The cloud's id of a SOFT that was accepted and ended in error, and that HARD follows; None where none
            does. It is also what allows no second HARD.
        soft_words: What was seen of that end.
        back: Completed, and what is left is the user's own check; None before, or without one.
        is_history_unread: The last look wanted to see in the action log whether the server has rebooted, and could not.
    """

    server_id: str
    reboot_type: RebootType
    asked_type: RebootType | None = None
    may_escalate: bool = False
    may_start: bool = False
    run_began: float = 0.0
    began: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    spent: int = 0
    in_flight_since: float | None = None
    is_unresolved: bool = False
    doubts: int = 0
    last_status: int | None = None
    has_reached: bool = False
    since: tuple[float, float] | None = None
    is_since_former: bool = False
    answered_at: float = 0.0
    may_come_late: bool = False
    was_seen_rebooting: bool = False
    readable_looks: int = 0
    refused_sends: int = 0
    stale_sends: int = 0
    refused_looks: int = 0
    words: str = ""
    is_accepted: bool = False
    request_id: str | None = None
    proof: Proof | None = None
    looked_at: float | None = None
    soft_id: str | None = None
    soft_words: str = ""
    back: End | None = None
    is_history_unread: bool = False

    @property
    def is_sent(self) -> bool:
        """What was sent is to be followed to its end: it was accepted, or its fate is unknown."""
        return self.is_accepted or self.is_unresolved

    @property
    def settled_ids(self) -> frozenset[str | None]:
        """The requests of ours whose fate is known while that of the last one is not."""
        return frozenset((self.soft_id, *(attempt.request_id for attempt in self.attempts[:-1])))

    @property
    def has_lost_race(self) -> bool:
        """The last send was answered by the compute service's own 500, with its request id.

        If the action log does not show that id, nothing was started.
        """
        return self.last_status == 500 and self.attempts[-1].request_id is not None

    def send(self, now: float, cloud_time: tuple[float, float] | None) -> None:
        """Note, before the request leaves, that it leaves."""
        self.in_flight_since = now
        if not self.doubts:
            self.since, self.is_since_former = cloud_time, False

    def answer(self, now: float, seen: Observation, decision: Decision) -> None:
        """Note what came back, and what was decided on it."""
        sent_at = self.in_flight_since if self.in_flight_since is not None else now
        request_id = seen.fault.request_id if isinstance(seen, Answer) else None
        self.attempts = (*self.attempts, Attempt(sent_at - self.run_began, str(seen), request_id))
        self.in_flight_since = None
        self.has_reached |= not isinstance(seen, Unsent)
        self.last_status = seen.status if isinstance(seen, Answer) else None
        self.answered_at, self.readable_looks, self.was_seen_rebooting = now, 0, False
        self.may_come_late = not isinstance(seen, Unsent) and seen.may_come_late
        self.words = seen.words
        is_stale = isinstance(seen, Answer) and seen.has_stale_token
        self.stale_sends = self.stale_sends + 1 if is_stale else 0
        self.refused_sends = self.refused_sends + 1 if _is_refused_token(seen) else 0
        self.spent += not isinstance(decision, Send | Look) or decision.is_attempt
        self._take(decision)
        self.doubts += self.is_unresolved

    def forgive(self) -> None:
        """Do not count a send against `max_attempts`: what it met was the cloud's trouble, and not the server's."""
        self.spent -= 1

    def look(self, sighting: Sighting, decision: Decision) -> None:
        """Note what a look showed, and what was decided on it."""
        server = sighting.server
        self.looked_at = sighting.at
        self.is_history_unread = not self.is_unresolved and isinstance(sighting.log, Observation)
        self.readable_looks += isinstance(sighting.log, tuple) and bool(sighting.log)
        self.was_seen_rebooting |= (
            self.is_unresolved and isinstance(server, Server) and server.task_state in REBOOT_TASKS
        )
        is_refused = _is_refused_token(sighting.log) or _is_refused_token(sighting.server)
        self.refused_looks = self.refused_looks + 1 if is_refused else 0
        if not self.attempts:
            self.words = sighting.server.words
        self._take(decision)

    def _take(self, decision: Decision) -> None:
        self.is_unresolved = isinstance(decision, Look) and decision.is_unresolved
        match decision:
            case Accept():
                self.is_accepted = True
                self.request_id = decision.request_id
                if self.request_id is not None:
                    # The log is asked for that id from now on, not for a time.
                    self.since = None
                self.proof = decision.proof
            case Send():
                self.reboot_type = decision.reboot_type
            case Look() | End():
                pass

    def escalate(self, failure: End) -> None:
        """Begin anew with HARD, after a SOFT that was accepted and ended in error.

        Attempts are counted anew. What the SOFT left is forgotten, so that only a reboot that starts from now on can
        be taken for the HARD.
        """
        self.soft_id, self.soft_words = self.request_id, failure.detail
        self.reboot_type = RebootType.HARD
        self.is_accepted, self.request_id, self.proof = False, None, None
        self.spent, self.doubts, self.last_status, self.since, self.is_since_former = 0, 0, None, None, False

    def after_soft(self, end: End) -> End:
        """Tell what became of a server whose SOFT was accepted, where it is clear that HARD has not followed."""
        if self.soft_id is None or end.outcome is Outcome.IN_DOUBT:
            return end
        why = "the run stopped" if end.outcome is Outcome.ACCEPTED else end.detail or end.reason
        return replace(
            end,
            outcome=Outcome.FAILED,
            reason=Reason.GONE if end.reason is Reason.NOT_FOUND else Reason.ERROR,
            detail=f"{self.soft_words}; HARD was to follow, and did not: {why}",
            proof=None,
        )

    def result(self, now: float, end: End) -> ServerResult:
        """Close the entry with its outcome."""
        return ServerResult(
            server_id=self.server_id,
            outcome=end.outcome,
            reason=end.reason,
            detail=end.detail or self._escalation,
            reboot_type=self.reboot_type,
            attempts=self.attempts,
            request_id=self.request_id,
            proof=end.proof,
            elapsed=now - self.began,
        )

    @property
    def _escalation(self) -> str:
        if self.soft_id is None:
            return ""
        return f"HARD followed the SOFT {self.soft_id}, which ended in error: {self.soft_words}"

    def so_far(self, *, is_over: bool) -> End:
        """Tell what is known now: for a report that is read meanwhile, or of a run that broke off."""
        interrupted = Reason.INTERRUPTED if is_over else None
        if self.back is not None:
            return replace(self.back, reason=interrupted, detail="it was not verified to the end" if is_over else "")
        if self.is_accepted:
            return End(outcome=Outcome.ACCEPTED, reason=interrupted)
        if self.in_flight_since is not None or self.is_unresolved:
            reason = Reason.INTERRUPTED if is_over else Reason.IN_FLIGHT
            return End(outcome=Outcome.IN_DOUBT, reason=reason, detail=self.words)
        if self.soft_id is not None:
            return End(outcome=Outcome.ACCEPTED, reason=interrupted, detail=f"{self.soft_words}; HARD was to follow")
        if self.has_reached:
            reason = Reason.STOPPED if is_over else Reason.PARKED
            return End(outcome=Outcome.REFUSED, reason=reason, detail=self.words)
        reason = Reason.STOPPED if is_over else Reason.NOT_STARTED
        return End(outcome=Outcome.SKIPPED, reason=reason, detail=self.words)

    def out_of_attempts(self) -> End:
        """Give up after `max_attempts` sends, each known to have started nothing."""
        if not self.has_reached:
            return End(outcome=Outcome.SKIPPED, reason=Reason.UNREACHABLE, detail=self.words)
        return End(outcome=Outcome.REFUSED, reason=Reason.ATTEMPTS_EXHAUSTED, detail=self.words)

    def out_of_time(self) -> End:
        """Give up after `server_timeout`."""
        if self.is_unresolved:
            return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=self.words)
        if self.is_history_unread:
            return self.history_unreadable(self.words)
        if not self.attempts:
            return End(outcome=Outcome.SKIPPED, reason=Reason.BUSY, detail=self.words)
        if not self.has_reached:
            return End(outcome=Outcome.SKIPPED, reason=Reason.UNREACHABLE, detail=self.words)
        return End(outcome=Outcome.REFUSED, reason=Reason.BUSY, detail=self.words)

    def history_unreadable(self, detail: str) -> End:
        """Leave it alone, because the action log does not tell whether it has rebooted."""
        outcome = Outcome.REFUSED if self.has_reached else Outcome.SKIPPED
        return End(outcome=outcome, reason=Reason.HISTORY_UNREADABLE, detail=detail)


def _is_refused_token(seen: object) -> bool:
    return isinstance(seen, Answer) and seen.is_refused_token
