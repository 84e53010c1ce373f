"""What of a run outlives its process: what was asked, what is known of each server, and of the cloud's action log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bulkrestart.core.clock import moment_text
from bulkrestart.core.decision import Accept, End, Look
from bulkrestart.core.errors import JournalError
from bulkrestart.core.model import Attempt, Outcome, Proof, Reason, RebootType, ServerResult
from bulkrestart.core.observation import Unanswered
from bulkrestart.core.progress import FailedSoft, Order, Progress
from bulkrestart.core.report import Ledger, Report
from bulkrestart.core.sends import SETTLED, Fate, Sends
from bulkrestart.core.target import Target

#: Refusals of us, or of the run, and not of the server: whoever goes on with the run tries again.
_TRIED_AGAIN: Final = frozenset(
    {
        *(Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.WRONG_ENDPOINT),
        *(Reason.STOPPED, Reason.PARKED, Reason.HISTORY_UNREADABLE, Reason.HISTORY_UNCERTAIN),
    }
)
#: RFC 9110, section 15.5.10: what Nova answers for a state in which it does not reboot.
_CONFLICT: Final = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What a run is for. Pace and patience may change from one process to the next; this may not.

    Attributes:
        target: The project of the servers. Its endpoint must stay the same; its names may change.
        reboot_type: The type that was asked for.
        since: Servers that have rebooted since are left alone, in seconds since the epoch; None: nobody is.
    """

    target: Target
    reboot_type: RebootType
    since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """What rows that are certainly ours have told of the cloud's action log.

    Attributes:
        is_proven: It has shown a reboot of this run.
        user_id: Who we are in it; None while unknown.
        shift: Seconds by which it is ahead of `Date`, at least and at most; None while unknown.
    """

    is_proven: bool = False
    user_id: str | None = None
    shift: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of one server that the run has come to.

    What is not named here is as in `Progress`, `Sends` and `Fate`. Moments are in seconds since the run first began.

    Attributes:
        began: When the run came to this server.
        sent_at: When the send that may be out left; None while none is out.
        is_accepted: The reboot was accepted.
        request_id: The cloud's id of the accepted reboot; None if it is unknown, or nothing is accepted.
        proof: How the accepted reboot is known; None before.
        soft_id: The cloud's id of a SOFT that failed, and that HARD follows; None where none does.
        soft_words: What was seen of its end.
        elapsed: Seconds from `began` to the outcome; 0.0 while there is none.
        end: The outcome; None while there is none. A server that is completed, and not verified yet, has that one.
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
    is_accepted: bool = False
    request_id: str | None = None
    proof: Proof | None = None
    soft_id: str | None = None
    soft_words: str = ""
    elapsed: float = 0.0
    end: End | None = None

    def is_finished(self, goal: Outcome) -> bool:
        """Tell whether nothing is left to do for this server; `goal` as in `leaves_nothing_to_do`."""
        return self.end is not None and leaves_nothing_to_do(self.end, goal)

    def result(self) -> ServerResult:
        """Tell what became of a server that has its outcome."""
        assert self.end is not None, "it has none yet"
        progress = self.progress(Order(reboot_type=self.reboot_type))
        return progress.result(progress.began + self.elapsed, self.end)

    def resume(self, order: Order, *, now: float) -> Progress:
        """Take the server up again, in another process.

        What a send of the former process did is looked for as if its reply had been lost just now: how long ago that
        was, only a clock could tell that nobody set meanwhile. Attempts and time-outs count anew.

        Args:
            order: What this process was asked for. The run began by the clock of this process.
            now: The moment, on the same clock.
        """
        progress = self.progress(order)
        sends = progress.sends
        if sends.in_flight_since is not None:
            lost = Unanswered("the process ended before the answer", may_come_late=True)
            progress.answer(now, lost, Look(is_unresolved=True))
        if self.end is not None and self.end.outcome is Outcome.IN_DOUBT and progress.accepted is None:
            # What was given up on is looked for again.
            progress.fate = replace(progress.fate, is_unresolved=True)
        if self.end is not None and self.end.outcome is Outcome.COMPLETED:
            progress.back = self.end
        if progress.failed_soft is not None and not progress.is_sent:
            # No HARD has started anything: the end of the SOFT is seen and judged anew.
            progress.accepted = Accept(request_id=progress.failed_soft.request_id)
            progress.reboot_type, progress.failed_soft = RebootType.SOFT, None
        if not progress.is_sent:
            # It is sent to as if for the first time; only what was once in doubt, or was refused for a state that
            # passes and delivered once more since, may still be found in the log.
            # Without a status, a process before the last one has kept it.
            may_be_found = sends.doubts or sends.last_status in (_CONFLICT, None)
            sends.since = sends.since if may_be_found else None
            progress.reboot_type, sends.last_status = order.reboot_type, None
        progress.fate = replace(progress.fate, answered_at=now) if progress.fate.is_unresolved else SETTLED
        sends.is_since_former = sends.is_former = sends.since is not None
        sends.spent = 0
        progress.began = min(progress.began, now)
        return progress

    def progress(self, order: Order) -> Progress:
        """Tell how far the server had come.

        Args:
            order: What was asked for. The run began by the clock that is to be used.
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
            accepted=Accept(self.request_id, self.proof) if self.is_accepted else None,
            failed_soft=None if self.soft_id is None else FailedSoft(request_id=self.soft_id, words=self.soft_words),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a journal says of its run.

    Attributes:
        purpose: What the run is for.
        began: When it first began, in seconds since the epoch.
        facts: What it has learnt of the action log.
    """

    purpose: Purpose
    began: float
    facts: LogFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All that a journal holds.

    Attributes:
        head: What it says of its run.
        ids: The fleet, in the order in which it was given.
        records: What is known of the servers that the run has come to, by id.
        written: When a server was last written, in seconds since the epoch.
    """

    head: Head
    ids: tuple[str, ...]
    records: Mapping[str, Record]
    written: float

    @property
    def lasted(self) -> float:
        """Seconds from the run's first beginning until it was last written, by a clock that somebody may have set."""
        return max(0.0, self.written - self.head.began)

    def check(self, path: object, purpose: Purpose, fleet: Sequence[str] | None) -> None:
        """See that the journal's run is what is asked for now.

        Args:
            path: The journal.
            purpose: What is asked for.
            fleet: For which servers; None for those of the journal.

        Raises:
            JournalError: It is another one.
        """
        difference = self._difference(purpose, fleet)
        if difference is not None:
            raise JournalError(f"the journal {path} is of a run {difference}: give another journal")

    def _difference(self, purpose: Purpose, fleet: Sequence[str] | None) -> str | None:
        held = self.head.purpose
        if held.target.endpoint != purpose.target.endpoint:
            return f"at {held.target}, not at {purpose.target}"
        if held.reboot_type is not purpose.reboot_type:
            return f"of type {held.reboot_type}, not {purpose.reboot_type}"
        if held.since != purpose.since:
            moments = ["none" if since is None else moment_text(since) for since in (held.since, purpose.since)]
            return f"with since {moments[0]}, not {moments[1]}"
        if fleet is not None and tuple(fleet) != self.ids:
            words = f"over {len(self.ids)} servers, not over these {len(fleet)}"
            for number, (known, given) in enumerate(zip(self.ids, fleet, strict=False), 1):
                if known != given:
                    return f"{words}; number {number} is {known}, not {given}"
            return words
        return None

    def report(self, *, is_over: bool) -> Report:
        """Tell what had become of every server when the journal was last written.

        Args:
            is_over: No process is at it.
        """
        ledger = Ledger(self.ids, self.head.purpose.reboot_type, target=self.head.purpose.target)
        order = Order(reboot_type=self.head.purpose.reboot_type)
        for record in self.records.values():
            ledger.begin(record.progress(order))
            if record.end is not None:
                ledger.close(record.result())
        return ledger.report(self.lasted, began=0.0, stopped=None, is_over=is_over)


def leaves_nothing_to_do(end: End | ServerResult, goal: Outcome) -> bool:
    """Tell whether an outcome leaves nothing to do: whoever goes on with the run takes up what is not finished.

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


def record_of(progress: Progress, now: float, end: End | None = None) -> Record:
    """Write down how far a server has come."""
    end = end or progress.back
    sends, fate, accepted, soft = progress.sends, progress.fate, progress.accepted, progress.failed_soft
    run_began = progress.order.run_began
    return Record(
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
        is_accepted=accepted is not None,
        request_id=progress.request_id,
        proof=None if accepted is None else accepted.proof,
        soft_id=None if soft is None else soft.request_id,
        soft_words="" if soft is None else soft.words,
        elapsed=0.0 if end is None else now - progress.began,
        end=end,
    )
