"""What a journal holds of a run, so that another process can resume it.

That is what the run is for, what it has learnt of the cloud's action log, and a checkpoint of each server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bulkrestart.core.clock import moment_text
from bulkrestart.core.decision import Accept, End, Look
from bulkrestart.core.errors import JournalError
from bulkrestart.core.model import Attempt, Outcome, Reason, RebootType, ServerResult
from bulkrestart.core.observation import Unanswered
from bulkrestart.core.progress import FailedSoft, Order, Progress
from bulkrestart.core.report import Ledger, Report
from bulkrestart.core.sends import SETTLED, Fate, Sends
from bulkrestart.core.target import Target

#: Refusals of our credentials, or of the run, and not of the server: a process that resumes the run tries again.
_TRIED_AGAIN: Final = frozenset(
    {
        *(Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.WRONG_ENDPOINT),
        *(Reason.STOPPED, Reason.PARKED, Reason.HISTORY_UNREADABLE, Reason.HISTORY_UNCERTAIN),
    }
)
#: RFC 9110, section 15.5.10: what Nova answers for a state in which it does not reboot.
_CONFLICT: Final = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """What a run is for. Limits and time-outs may change from one process to the next; this may not.

    Attributes:
        target: The project of the servers. Its endpoint must stay the same; its names may change.
        reboot_type: The type that was asked for.
        since: Servers that have rebooted since are not sent to, in seconds since the epoch; None: all are.
    """

    target: Target
    reboot_type: RebootType
    since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """What rows of this run's own reboots have shown of the cloud's action log.

    Attributes:
        is_proven: It has shown a reboot of this run.
        user_id: Our user in it; None while unknown.
        shift: Seconds by which it is ahead of `Date`, at least and at most; None while unknown.
    """

    is_proven: bool = False
    user_id: str | None = None
    shift: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How far a run has come with one server.

    Fields without a description are as in `Progress`, `Sends` and `Fate`. Moments are in seconds since the run began.

    Attributes:
        began: When the run began with this server.
        sent_at: When the send that is in flight left; None if none is.
        elapsed: Seconds from `began` to the outcome; 0.0 while there is none.
        end: The outcome; None while there is none. A server that is completed and not yet verified has that one.
    """

    server_id: str
    reboot_type: RebootType
    began: float
    attempts: tuple[Attempt, ...] = ()
    sent_at: float | None = None
    is_unresolved: bool = False
    doubts: int = 0
    last_status: int | None = None
    has_reached: bool = False
    since: tuple[float, float] | None = None
    may_come_late: bool = False
    was_seen_rebooting: bool = False
    words: str = ""
    accepted: Accept | None = None
    failed_soft: FailedSoft | None = None
    elapsed: float = 0.0
    end: End | None = None

    @classmethod
    def of(cls, progress: Progress, now: float, end: End | None = None) -> "Checkpoint":
        """Return the checkpoint of a server.

        Args:
            progress: How far the run has come with it.
            now: The time, on the clock of `progress`.
            end: Its outcome; None while there is none.
        """
        end = end or progress.back
        if end is not None and end.stop is not None:
            # The stop is of this process, and not of the one that resumes.
            end = replace(end, stop=None)
        sends, fate, run_began = progress.sends, progress.fate, progress.order.run_began
        return cls(
            server_id=progress.server_id,
            reboot_type=progress.reboot_type,
            began=progress.began - run_began,
            attempts=sends.attempts,
            sent_at=None if sends.in_flight_since is None else sends.in_flight_since - run_began,
            is_unresolved=fate.is_unresolved,
            doubts=sends.doubts,
            last_status=sends.last_status,
            has_reached=sends.has_reached,
            since=sends.since,
            may_come_late=fate.may_come_late,
            was_seen_rebooting=fate.was_seen_rebooting,
            words=progress.words,
            accepted=progress.accepted,
            failed_soft=progress.failed_soft,
            elapsed=0.0 if end is None else now - progress.began,
            end=end,
        )

    def is_finished(self, goal: Outcome) -> bool:
        """Return whether nothing is left to do for this server; `goal` as in `leaves_nothing_to_do`."""
        return self.end is not None and leaves_nothing_to_do(self.end, goal)

    def result(self) -> ServerResult:
        """Return the result of a server that has its outcome."""
        assert self.end is not None, "it has no outcome yet"
        progress = self.progress(Order(reboot_type=self.reboot_type))
        return progress.result(progress.began + self.elapsed, self.end)

    def resume(self, order: Order, *, now: float) -> Progress:
        """Return the progress from which another process resumes the server.

        A send that was in flight counts as one whose reply was lost just now: the wall clock may have been set since,
        so it does not show how long ago that was. Attempts and time-outs start again from zero.

        Args:
            order: What this process was asked for. `run_began` is on the clock of this process.
            now: The time, on the same clock.
        """
        progress = self.progress(order)
        sends = progress.sends
        if sends.in_flight_since is not None:
            lost = Unanswered("the process ended before the answer", may_come_late=True)
            progress.answer(now, lost, Look(is_unresolved=True))
        if self.end is not None and self.end.outcome is Outcome.IN_DOUBT and progress.accepted is None:
            # The former process gave up looking for this send; this one looks for it again.
            progress.fate = replace(progress.fate, is_unresolved=True)
        if self.end is not None and self.end.outcome is Outcome.COMPLETED:
            progress.back = self.end
        if progress.failed_soft is not None and not progress.is_sent:
            # No HARD has started anything: how the SOFT ended is read and judged again.
            progress.accepted = Accept(request_id=progress.failed_soft.request_id)
            progress.reboot_type, progress.failed_soft = RebootType.SOFT, None
        if not progress.is_sent:
            # It is sent to as if for the first time. Only a send that was once in doubt, or that was refused for a
            # passing state and delivered a second time since, may still be found in the log.
            # Without a status, an earlier process than the last one has kept `since`.
            may_be_found = sends.doubts or sends.last_status in (_CONFLICT, None)
            sends.since = sends.since if may_be_found else None
            progress.reboot_type, sends.last_status = order.reboot_type, None
        progress.fate = replace(progress.fate, answered_at=now) if progress.fate.is_unresolved else SETTLED
        sends.is_since_former = sends.is_former = sends.since is not None
        sends.spent = 0
        progress.began = min(progress.began, now)
        return progress

    def progress(self, order: Order) -> Progress:
        """Return how far the run had come with the server.

        Args:
            order: What was asked for. `run_began` is on the clock of the progress.
        """
        return Progress(
            server_id=self.server_id,
            order=order,
            reboot_type=self.reboot_type,
            began=order.run_began + self.began,
            sends=Sends(
                attempts=self.attempts,
                has_reached=self.has_reached,
                in_flight_since=None if self.sent_at is None else order.run_began + self.sent_at,
                doubts=self.doubts,
                last_status=self.last_status,
                since=self.since,
            ),
            fate=Fate(
                is_unresolved=self.is_unresolved,
                may_come_late=self.may_come_late,
                was_seen_rebooting=self.was_seen_rebooting,
            ),
            words=self.words,
            accepted=self.accepted,
            failed_soft=self.failed_soft,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHeader:
    """What a journal says of its whole run.

    Attributes:
        identity: What the run is for.
        began: When it first began, in seconds since the epoch.
        facts: What it has learnt of the cloud's action log.
    """

    identity: RunIdentity
    began: float
    facts: LogFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All that a journal holds.

    Attributes:
        header: What it says of its whole run.
        ids: The fleet, in the order in which it was given.
        checkpoints: The checkpoints of the servers with which the run has begun, by id.
        written: When a checkpoint was last written, in seconds since the epoch.
    """

    header: JournalHeader
    ids: tuple[str, ...]
    checkpoints: Mapping[str, Checkpoint]
    written: float

    @property
    def lasted(self) -> float:
        """Seconds from the begin of the run until the last write, by the wall clock, which may have been set."""
        return max(0.0, self.written - self.header.began)

    def check(self, path: object, identity: RunIdentity, fleet: Sequence[str] | None) -> None:
        """Check that the journal is of the run that is asked for now.

        Args:
            path: The journal.
            identity: What is asked for.
            fleet: The servers; None for those of the journal.

        Raises:
            JournalError: It is of another run.
        """
        difference = self._difference(identity, fleet)
        if difference is not None:
            raise JournalError(f"the journal {path} is of a run {difference}: give another journal")

    def _difference(self, identity: RunIdentity, fleet: Sequence[str] | None) -> str | None:
        held = self.header.identity
        if held.target.endpoint != identity.target.endpoint:
            return f"at {held.target}, not at {identity.target}"
        if held.reboot_type is not identity.reboot_type:
            return f"of type {held.reboot_type}, not {identity.reboot_type}"
        if held.since != identity.since:
            moments = ["none" if since is None else moment_text(since) for since in (held.since, identity.since)]
            return f"with since {moments[0]}, not {moments[1]}"
        if fleet is not None and tuple(fleet) != self.ids:
            words = f"over {len(self.ids)} servers, not over these {len(fleet)}"
            for number, (known, given) in enumerate(zip(self.ids, fleet, strict=False), 1):
                if known != given:
                    return f"{words}; number {number} is {known}, not {given}"
            return words
        return None

    def report(self, *, is_over: bool) -> Report:
        """Return what was known of each server when the journal was last written.

        Args:
            is_over: No process is running it.
        """
        ledger = Ledger(self.ids, self.header.identity.reboot_type, target=self.header.identity.target)
        order = Order(reboot_type=self.header.identity.reboot_type)
        for checkpoint in self.checkpoints.values():
            ledger.begin(checkpoint.progress(order))
            if checkpoint.end is not None:
                ledger.close(checkpoint.result())
        return ledger.report(self.lasted, began=0.0, stopped=None, is_over=is_over)


def leaves_nothing_to_do(end: End | ServerResult, goal: Outcome) -> bool:
    """Return whether an outcome leaves nothing to do for a process that resumes the run.

    Args:
        end: The outcome.
        goal: How far the server is to come: `Options.goal`.
    """
    match end.outcome:
        case Outcome.SKIPPED:
            return False
        case Outcome.ACCEPTED:
            return goal is Outcome.ACCEPTED
        case Outcome.IN_DOUBT:
            return end.reason is Reason.GONE
        case Outcome.REFUSED:
            return end.reason not in _TRIED_AGAIN
        case Outcome.COMPLETED:
            return goal is not Outcome.VERIFIED
        case Outcome.VERIFIED | Outcome.FAILED | Outcome.SATISFIED:
            return True
