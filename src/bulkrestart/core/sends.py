"""What was sent to one server, and what is known of the fate of the last send."""

from dataclasses import dataclass, field, replace
from typing import Final

from bulkrestart.core.decision import Accept, Decision, Look, Send, leaves_doubt
from bulkrestart.core.model import Attempt, Server
from bulkrestart.core.observation import Answer, Observation, Sighting, Unanswered, Unsent, is_refused_token
from bulkrestart.core.states import REBOOT_TASKS

#: Seconds. A gateway that answers 504 or 408 sooner has not waited for the API: the request is not at work there, and
#: the answer is like any 5xx. Gateways wait for 5 s (APIG's default backend time-out) to 60 s (nginx, HAProxy).
SHORTEST_TIME_OUT: Final = 1.0
#: There was no send before.
NOTHING_BEFORE: Final[tuple[tuple[float, float] | None, bool]] = (None, False)


@dataclass(slots=True, kw_only=True)
class Sends:
    """Every send to one server. Times are seconds on the run's clock.

    Attributes:
        attempts: Every send that was answered or given up, the oldest first.
        has_reached: Some send may have got as far as the cloud.
        in_flight_since: When the send that is out now left; None while none is out.
        spent: How many sends count against `max_attempts`.
        doubts: Sends whose fate was unknown at first.
        last_status: The status that the last send was answered with; None if it was not.
        since: The cloud's clock, as (earliest, latest) seconds since the epoch, at the first send whose fate was
            unknown, or at the last send if there was none such. A reboot that started since may be ours. None if the
            cloud's clock is unknown. It is not kept as a moment of ours: our clock stands still while the machine
            sleeps.
        is_since_former: `since` was noted by a former process, by the `Date` that it saw.
        is_former: The last send was a former process's.
        before: `since` and `is_since_former` as they were when the last send left.
        refused: Sends in a row whose answer refused our newest token, or whatever else signs our requests. A look that
            is let in says nothing of sends.
        stale: Sends in a row whose answer refused an older token.
    """

    attempts: tuple[Attempt, ...] = ()
    has_reached: bool = False
    in_flight_since: float | None = None
    spent: int = 0
    doubts: int = 0
    last_status: int | None = None
    since: tuple[float, float] | None = None
    is_since_former: bool = False
    is_former: bool = False
    before: tuple[tuple[float, float] | None, bool] = field(default=NOTHING_BEFORE, compare=False)
    refused: int = 0
    stale: int = 0

    @property
    def has_lost_race(self) -> bool:
        """The last send was answered by the compute service's own 500, with its request id.

        If the action log does not show that id, nothing was started.
        """
        return self.last_status == 500 and self.attempts[-1].request_id is not None

    def leave(self, now: float, cloud_time: tuple[float, float] | None) -> None:
        """Note, before a request leaves, that it leaves."""
        self.in_flight_since = now
        self.is_former = False
        # One and the same object for most servers: a fleet has many.
        self.before = NOTHING_BEFORE if self.since is None else (self.since, self.is_since_former)
        if not self.doubts:
            self.since, self.is_since_former = cloud_time, False

    def answer(self, now: float, seen: Observation, decision: Decision, *, run_began: float) -> None:
        """Note what came back, and what was decided on it."""
        sent_at = self.in_flight_since if self.in_flight_since is not None else now
        request_id = seen.fault.request_id if isinstance(seen, Answer) else None
        self.attempts = (*self.attempts, Attempt(sent_at - run_began, str(seen), request_id))
        self.in_flight_since = None
        if isinstance(seen, Unsent):
            # What has reached the cloud before may still be delivered once more, and is looked for since then.
            self.since, self.is_since_former = self.before
        self.has_reached |= not isinstance(seen, Unsent)
        self.spent += not isinstance(decision, Send | Look) or decision.is_attempt
        self.doubts += leaves_doubt(decision)
        self.last_status = seen.status if isinstance(seen, Answer) else None
        self.refused = self.refused + 1 if is_refused_token(seen) else 0
        is_stale = isinstance(seen, Answer) and seen.has_stale_token
        self.stale = self.stale + 1 if is_stale else 0

    def refund_attempt(self) -> None:
        """Do not count a send against `max_attempts`: an outage was the cause of its failure."""
        self.spent -= 1

    def anew(self) -> "Sends":
        """Begin a new row of sends, of which nothing but the account goes on."""
        return Sends(attempts=self.attempts, has_reached=self.has_reached)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What has come to be known of one send. Times are seconds on the run's clock.

    Attributes:
        is_unresolved: Its fate is unknown. While it is, nothing may be sent.
        answered_at: When it was answered, or given up; looks are timed from it.
        may_come_late: It may still be at work, though its answer is in, or was given up.
        was_seen_rebooting: A look since then showed the server in a reboot, while the fate was unknown.
        readable_looks: Looks at a log that could be read, since `answered_at`.
    """

    is_unresolved: bool = False
    answered_at: float = 0.0
    may_come_late: bool = False
    was_seen_rebooting: bool = False
    readable_looks: int = 0

    @classmethod
    def of(cls, now: float, seen: Observation, decision: Decision, *, took: float) -> "Fate":
        """Return what is known of a send from what came back.

        Args:
            now: The time, in seconds on the run's clock.
            seen: What came back.
            decision: What was decided on it.
            took: Seconds from the send to `now`.
        """
        if isinstance(decision, Accept):
            return SETTLED
        may_come_late = isinstance(seen, Answer | Unanswered) and seen.may_come_late
        if isinstance(seen, Answer) and seen.is_time_out and took < SHORTEST_TIME_OUT:
            may_come_late = False
        return cls(is_unresolved=leaves_doubt(decision), answered_at=now, may_come_late=may_come_late)

    def after(self, sighting: Sighting, decision: Decision) -> "Fate":
        """Tell what is known of it after a look."""
        if isinstance(decision, Accept):
            return SETTLED
        server, log = sighting.server, sighting.log
        if log is None and not self.is_unresolved and not leaves_doubt(decision):
            # Nobody asked after it.
            return self
        is_rebooting = isinstance(server, Server) and server.task_state in REBOOT_TASKS
        return replace(
            self,
            is_unresolved=leaves_doubt(decision),
            was_seen_rebooting=self.was_seen_rebooting or (self.is_unresolved and is_rebooting),
            readable_looks=self.readable_looks + (isinstance(log, tuple) and bool(log)),
        )


#: Nothing was sent yet, or nothing is left to find out.
SETTLED: Final = Fate()
