"""Measures the cloud's action log by the run's own accepted reboots: its clock, its lag, our user, and our ids.

Law: a decision becomes less careful only when rows that are certainly ours, or several rows that agree, allow it. The
time is an argument, in seconds on the run's clock.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from bulkrestart.core.checkpoint import LogFacts
from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, CloudClock, LogMoment, LogTime, log_shift
from bulkrestart.core.model import Action, Log, Server
from bulkrestart.core.progress import Progress
from bulkrestart.core.states import KNOWN_ACTIONS, OTHER_ACTIONS, REBOOT

T = TypeVar("T")

#: Seconds by which reads may lag behind writes until the run has measured it, and at least when it has seen a lag.
UNMEASURED_LAG: Final = 30.0
#: Samples, each of another server, whose rows were shown at once: so many prove that reads do not lag.
_FRESH_SAMPLES: Final = 3
#: A row that is shown within so many seconds after the acceptance is shown at once.
_FRESH: Final = 5.0
#: Samples that have to agree if no row carries the id of an answer, and the seconds by which they may differ.
_AGREEING_SAMPLES: Final = 3
_AGREEMENT: Final = 10.0
#: Seconds that the send of a sample may take. The row of a slower send was written at any time in it, and shows little.
_LONGEST_SEND: Final = 10.0
#: Samples that one run reads at most, and the seconds for which it waits for the row of one.
_MOST_SAMPLES: Final = 20
_LONGEST_WAIT: Final = 300.0
#: Samples that are kept until their rows must be visible, for the case that no row carries the id of an answer.
_KEPT: Final = 8
#: How many of the newest answers to sends are searched for an id that is repeated.
_RECENT_IDS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSample:
    """An accepted send. Its row in the action log shows the log's clock and lag, and our user.

    Attributes:
        server_id: The server.
        request_id: The id that the answer carried; None if it carried none.
        written: The earliest and the latest time that the cloud's `Date` can have shown when the row was written.
        accepted_at: When the answer arrived, in seconds on the run's clock.
    """

    server_id: str
    request_id: str | None
    written: tuple[float, float]
    accepted_at: float


class ActionLogCalibration:
    """Learns from the logs of servers whose reboot was accepted.

    If answers carry Nova's own request ids, one row shows the offset between the log's clock and `Date`. If a gateway
    hides or replaces the ids, several servers must agree: the offset between the send and the newest reboot of each
    server must be the same.

    Args:
        clock: The cloud's time, as `Date` shows it.
        facts: What a former process of the run knew. Its `shift` is relative to the `Date` of that process, which may
            have been another clock, so it only translates times that this process wrote down.

    Attributes:
        facts: What is known.
        are_ids_foreign: Whether the ids of answers are not those of the log: samples agree without them, or several
            answers carried the same one.
    """

    def __init__(self, clock: CloudClock, facts: LogFacts) -> None:
        self._clock = clock
        self.facts = facts
        self.are_ids_foreign = False
        self._former = facts
        self._has_shift = False
        self._is_unreadable = False
        #: The users of rows that are certainly ours, and of sends of this process.
        self._user_ids: set[str] = set()
        #: The newest sample with an id whose log was not read yet, and the sample whose row is waited for.
        self._newest: CalibrationSample | None = None
        self._pending: CalibrationSample | None = None
        #: Samples that vote if no row carries the id of an answer.
        self._voters: list[CalibrationSample] = []
        #: This cloud's own names for a reboot.
        self._reboot_names: set[str] = set()
        self._recent_ids: deque[str] = deque(maxlen=_RECENT_IDS)
        #: Whether each `updated` so far was between the send and the snapshot.
        self._is_updated_reliable = True
        self._asked = 0
        self._fresh: set[str] = set()
        self._lag = 0.0
        #: By server: the shift that its newest reboot implies, and the user of that row.
        self._votes: dict[str, tuple[tuple[float, float], str]] = {}

    def add(self, sample: CalibrationSample) -> None:
        """Add a send that was accepted."""
        if sample.request_id is not None and not self.are_ids_foreign:
            self._newest = sample
        if len(self._voters) < _KEPT and not self._has_shift:
            self._voters.append(sample)

    def note_id(self, request_id: str | None) -> None:
        """Record the id that the answer to a send carried."""
        if request_id is None:
            return
        self.are_ids_foreign |= request_id in self._recent_ids
        self._recent_ids.append(request_id)

    def name_own_rows(self, log: Log | T, progress: Progress) -> Log | T:
        """Return a log in which the rows of our sends are named "reboot", whatever the cloud calls them.

        A row with the id of an answer to one of our sends is ours. If its name is not one of Nova's, it is this cloud's
        name for a reboot, in all logs. An id that several answers or rows carry identifies nothing: it is removed from
        the rows, so that they are judged by user and time. So is one that is on a row of another action from before the
        send. This is decided by `Date` alone, because the row itself would set the offset of the log's clock.

        Args:
            log: The action log of a server. What came instead of a log is returned as it is.
            progress: The progress of that server.
        """
        ids = [attempt.request_id for attempt in progress.sends.attempts if attempt.request_id is not None]
        if not isinstance(log, tuple) or not (ids or self._reboot_names):
            return log
        shown = [row.request_id for row in log]
        repeated = {one for one in ids if self.are_ids_foreign or ids.count(one) > 1 or shown.count(one) > 1}
        since = progress.sends.since
        repeated |= {
            row.request_id
            for row in log
            if row.request_id in ids
            and row.action in OTHER_ACTIONS
            and (since is None or row.start_time + 1.0 + SKEW <= since[0])
        }
        own = set(ids) - repeated
        self._reboot_names |= {row.action for row in log if row.request_id in own} - KNOWN_ACTIONS
        return tuple(
            replace(
                row,
                action=REBOOT if row.request_id in own or row.action in self._reboot_names else row.action,
                request_id="" if row.request_id in repeated else row.request_id,
            )
            for row in log
        )

    @property
    def lag(self) -> float:
        """Seconds by which reads may lag behind writes.

        It is `UNMEASURED_LAG` until the rows of `_FRESH_SAMPLES` servers were shown at once, and 0.0 after that. If any
        row was late, it is twice the longest delay, and at least `UNMEASURED_LAG`.
        """
        is_fresh = len(self._fresh) >= _FRESH_SAMPLES and self._lag == 0.0
        return 0.0 if is_fresh else max(UNMEASURED_LAG, 2.0 * self._lag)

    @property
    def view_lag(self) -> float:
        """Seconds by which the states of servers may lag. Only the log is measured, and never shortens it."""
        return max(UNMEASURED_LAG, 2.0 * self._lag)

    @property
    def may_be_dated_soon(self) -> bool:
        """Whether the offset of the log's clock is unknown now, and samples may soon show it."""
        has_samples = self._pending is not None or self._newest is not None or len(self._voters) >= _AGREEING_SAMPLES
        return has_samples and not self._has_shift and not self._is_unreadable

    def next_sample(self, now: float) -> CalibrationSample | None:
        """Return the sample whose log should be read now; None if there is none, or none is needed.

        A sample is returned again until its row is shown. The newest sample follows, because it shows the lag best. A
        sample without an id of the log is returned when its row must be visible.
        """
        is_known = self._has_shift and (len(self._fresh) >= _FRESH_SAMPLES or self.are_ids_foreign)
        if self._is_unreadable or is_known:
            return None
        if self._pending is None and self._asked < _MOST_SAMPLES:
            self._pending, self._newest = self._newest, None
            self._asked += self._pending is not None
        if self._pending is not None or self._has_shift:
            return self._pending
        due = (one for one in self._voters if now - one.accepted_at >= UNMEASURED_LAG)
        return next(due, None)

    def mark_unreadable(self) -> None:
        """Record that we may not read the action log, so that no sample is read."""
        self._is_unreadable = True

    def mark_proven(self) -> None:
        """Record that the log has shown a reboot that the run looked for."""
        self.facts = replace(self.facts, is_proven=True)

    def observe(self, log: Log, sample: CalibrationSample, *, asked_at: float) -> None:
        """Learn from the log of a server whose reboot was accepted.

        Args:
            log: The whole log, the newest row first; or only the row of the request.
            sample: The accepted send.
            asked_at: When the request for the log left.
        """
        request_id = None if self.are_ids_foreign else sample.request_id
        row = next((row for row in log if row.request_id == request_id), None)
        age = asked_at - sample.accepted_at
        if row is not None:
            self._identify(row, sample, age)
            is_done = True
        else:
            is_done = age >= UNMEASURED_LAG and self._vote(log, sample)
            if sample.request_id is not None and not is_done and not self.are_ids_foreign:
                self._lag = max(self._lag, age)
        if is_done or age >= _LONGEST_WAIT:
            self._voters = [one for one in self._voters if one.server_id != sample.server_id]
            if self._pending is not None and self._pending.server_id == sample.server_id:
                self._pending = None

    def learn_user(self, log: Log, request_id: str | None) -> None:
        """Learn our user from the row whose id an answer to us carried: that row is certainly ours."""
        for row in log:
            if request_id is not None and row.request_id == request_id:
                self._learn_user_id(row.user_id)

    def user_id(self, progress: Progress) -> str | None:
        """Tell who sent the last request to a server, as the log names us; None while unknown.

        A run may go on with the credentials of another user, so what a former process knew is said of its sends only.
        """
        sends = progress.sends
        if sends.is_former:
            return self._former.user_id
        own = self._user_ids if len(self._user_ids) == 1 else set()
        if sends.is_since_former and own != {self._former.user_id}:
            return None
        return next(iter(own), None)

    def _learn_user_id(self, user_id: str) -> None:
        if user_id:
            self._user_ids.add(user_id)
        users = self._user_ids | ({self._former.user_id} if self._former.is_proven else set())
        # The next process has to know of several users no less than this one.
        self.facts = replace(self.facts, is_proven=True, user_id=users.pop() if len(users) == 1 else None)

    def _identify(self, row: Action, sample: CalibrationSample, age: float) -> None:
        self._learn_user_id(row.user_id)
        if not self._has_shift:
            self.facts = replace(self.facts, shift=log_shift(row.start_time, sample.written))
            self._has_shift = True
        if age <= _FRESH and len(self._fresh) < _FRESH_SAMPLES:
            self._fresh.add(sample.server_id)

    def _vote(self, log: Log, sample: CalibrationSample) -> bool:
        """Count the log's newest reboot as that of the sample; return whether it can be.

        No sample votes before `UNMEASURED_LAG`, because a log that lags would show an older reboot.
        """
        newest = next((row for row in log if row.action == REBOOT), None)
        if newest is None:
            return False
        shift = log_shift(newest.start_time, sample.written)
        # The local clock, which is used without a `Date`, may be wrong by any time.
        if not self._clock.is_guess and max(map(abs, shift)) > UNCHECKED_SKEW:
            return False
        if not self._has_shift:
            self._votes[sample.server_id] = (shift, newest.user_id)
            self._count_votes(shift)
        return True

    def _count_votes(self, shift: tuple[float, float]) -> None:
        agreeing = [vote for vote in self._votes.values() if abs(vote[0][0] - shift[0]) <= _AGREEMENT]
        if len(agreeing) < _AGREEING_SAMPLES:
            return
        users = {user_id for _, user_id in agreeing}
        self._learn_user_id(users.pop() if len(users) == 1 else "")
        shift = (min(least for (least, _), _ in agreeing), max(most for (_, most), _ in agreeing))
        self.facts = replace(self.facts, shift=shift)
        self._has_shift, self.are_ids_foreign = True, True
        self._lag = 0.0
        self._votes.clear()

    def sample_of(self, progress: Progress, accepted_at: float) -> CalibrationSample | None:
        """Make a sample of a server whose reboot was accepted; None if the time of its send is not known well enough.

        Args:
            progress: The server's progress.
            accepted_at: When it was accepted, in seconds on the run's clock.
        """
        sends, until = progress.sends, self._clock.at(accepted_at)
        # The acceptance of a send of unknown fate was found with this calibration, so it cannot check it.
        if sends.since is None or until is None or sends.is_since_former or sends.doubts:
            return None
        if until[1] - sends.since[0] > _LONGEST_SEND:
            return None
        return CalibrationSample(
            server_id=progress.server_id,
            # Not an id that was only found in the log: what was searched for by the clock cannot tell the time.
            request_id=sends.attempts[-1].request_id,
            written=(sends.since[0], until[1]),
            accepted_at=accepted_at,
        )

    def log_time(self, progress: Progress, now: float) -> LogTime | None:
        """Translate the time of a send from the cloud's `Date` to the log's clock; None if it is unknown.

        Args:
            progress: The server's progress.
            now: The time, in seconds on the run's clock.
        """
        since, cloud_now = progress.sends.since, self._clock.at(now)
        if since is None or cloud_now is None:
            return None
        is_former = progress.sends.is_since_former
        shift = self.facts.shift if self._has_shift or is_former else None
        least, most = shift or (0.0, 0.0)
        latest = cloud_now[1] + (self.facts.shift[1] if self._has_shift and self.facts.shift else 0.0)
        if self._has_shift and not is_former:
            skew = SKEW
        elif self._clock.is_guess and shift is None:
            skew = float("inf")
        else:
            skew = UNCHECKED_SKEW
        if self._clock.is_guess and not self._has_shift:
            latest = float("inf")
        return LogTime((since[0] + least, since[1] + most), latest, skew + self._clock.spread)

    def record_updated(self, server: Server, progress: Progress, now: float) -> bool:
        """Record when a server was saved, and return whether that was after its only send, as each reboot does first.

        A time that is still to come by `Date` shows that the clocks of the cloud's nodes differ, and a time from before
        the send shows that views lag, because Nova saves the task before it answers (nova/compute/api.py `reboot`).
        From then on `updated` says nothing, of any server: an earlier change may seem to come after the send.

        Args:
            server: A snapshot of the server, asked for after the acceptance.
            progress: The server's progress.
            now: When the snapshot was asked for, in seconds on the run's clock.
        """
        sends, cloud_now = progress.sends, self._clock.at(now)
        if sends.since is None or sends.doubts or sends.is_since_former or cloud_now is None or self._clock.is_guess:
            return False
        # `updated` names a whole second.
        if server.updated is not None and not sends.since[0] - 1.0 < server.updated <= cloud_now[1]:
            self._is_updated_reliable = False
        return server.updated is not None and self._is_updated_reliable

    def can_date(self, progress: Progress) -> bool:
        """Return whether the log's clock is known well enough to say that a row is older than a send."""
        return self._has_shift and not progress.sends.is_since_former

    def moment(self, seconds: float) -> LogMoment:
        """Translate a moment that a user gave to the log's clock.

        The user may have read it on the clock of `Date` or on the clock of the log; the result allows for both.

        Args:
            seconds: The moment, in seconds since the epoch.
        """
        least, most = (self.facts.shift or (0.0, 0.0)) if self._has_shift else (0.0, 0.0)
        # The clocks of a cloud's nodes may differ by this, either way, whether or not the log's offset is known.
        skew = SKEW + self._clock.spread
        return LogMoment(earliest=seconds + min(0.0, least) - skew, latest=seconds + max(0.0, most) + skew)
