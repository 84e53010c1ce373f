"""How the cloud's action log names, dates and delays what is ours, learnt from the run's own accepted reboots.

Law: nothing here makes a decision less careful than one without a calibration, unless rows that are certainly ours, or
several that agree, say so. The time comes in as an argument, in seconds on the run's clock.
"""

from dataclasses import dataclass, replace
from typing import Final

from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, CloudClock, LogMoment, LogTime, log_shift
from bulkrestart.core.model import Action, Log
from bulkrestart.core.progress import Progress
from bulkrestart.core.record import LogFacts

#: Seconds that reads may lag behind writes as long as the run has not measured it, and once it has seen that they do.
UNMEASURED_LAG: Final = 30.0
#: Samples whose rows were shown at once, each of another server, after which reads are taken to be fresh.
_FRESH_SAMPLES: Final = 3
#: Seconds after its acceptance at which a row that is shown is shown at once.
_FRESH: Final = 5.0
#: Samples that have to agree where no row carries the id of an answer, and the seconds by which they may differ.
_AGREEING_SAMPLES: Final = 3
_AGREEMENT: Final = 10.0
#: The longest that the send of a sample may have taken, in seconds: a row written at any time of it dates nothing.
_LONGEST_SEND: Final = 10.0
#: Samples that are asked for in one run, at most, and the seconds for which one is waited for.
_MOST_SAMPLES: Final = 20
_PATIENCE: Final = 300.0
#: Samples that are kept until their rows are certain to be shown, in case no row carries the id of an answer.
_KEPT: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSample:
    """An accepted send: its row tells how the action log names and dates what is ours, and how late it shows it.

    Attributes:
        server_id: The server.
        request_id: The id that the answer carried; None without one.
        written: The earliest and the latest that the cloud's `Date` can have shown when the row was written.
        accepted_at: When the answer was in, in seconds on the run's clock.
    """

    server_id: str
    request_id: str | None
    written: tuple[float, float]
    accepted_at: float


class ActionLogCalibration:
    """Learns from the logs of servers whose reboot was accepted.

    Where answers carry Nova's own request ids, one row dates the log. Where a gateway hides or replaces them, several
    servers have to agree: the newest reboot of each has to precede or follow its send by the same time.

    Args:
        clock: The cloud's time, as `Date` shows it.
        facts: What a former process of the run knew. Its shift is of the `Date` that it saw, which may have been
            another: it only serves to read what that process noted.

    Attributes:
        facts: What is known.
        are_ids_foreign: The ids that answers carry are not those of the log.
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
        #: The newest sample that carries an id and was not asked for yet, and the one whose row is waited for.
        self._newest: CalibrationSample | None = None
        self._pending: CalibrationSample | None = None
        #: Samples that may have to vote.
        self._voters: list[CalibrationSample] = []
        self._asked = 0
        self._fresh: set[str] = set()
        self._lag = 0.0
        #: By server: the shift that its newest reboot implies, and the user of that row.
        self._votes: dict[str, tuple[tuple[float, float], str]] = {}

    def add(self, sample: CalibrationSample) -> None:
        """Take a send that was accepted."""
        if sample.request_id is not None and not self.are_ids_foreign:
            self._newest = sample
        if len(self._voters) < _KEPT and not self._has_shift:
            self._voters.append(sample)

    @property
    def lag(self) -> float:
        """Seconds by which reads may lag behind writes.

        `UNMEASURED_LAG` until the rows of `_FRESH_SAMPLES` servers were shown at once, then 0.0. Once a row was late,
        twice as long as the latest, and never less than `UNMEASURED_LAG`.
        """
        is_fresh = len(self._fresh) >= _FRESH_SAMPLES and self._lag == 0.0
        return 0.0 if is_fresh else max(UNMEASURED_LAG, 2.0 * self._lag)

    @property
    def view_lag(self) -> float:
        """Seconds by which the states of servers may lag. Only the log is measured, and never shortens it."""
        return max(UNMEASURED_LAG, 2.0 * self._lag)

    @property
    def is_coming(self) -> bool:
        """Whether the log is not dated yet, and may be soon."""
        has_samples = self._pending is not None or self._newest is not None or len(self._voters) >= _AGREEING_SAMPLES
        return has_samples and not self._has_shift and not self._is_unreadable

    def next_sample(self, now: float) -> CalibrationSample | None:
        """Give the sample whose log is to be read now; None if there is none, or none is needed.

        One whose row was not shown yet is given again until it is, then the newest one, because it tells most of the
        lag. One that carries no id of the log is given when its row is certain to be shown.
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

    def give_up(self) -> None:
        """Note that the log is kept from us: no sample will tell."""
        self._is_unreadable = True

    def prove(self) -> None:
        """Note that the log has shown a reboot that was looked for, whoever it is by."""
        self.facts = replace(self.facts, is_proven=True)

    def observe(self, log: Log, sample: CalibrationSample, *, asked_at: float) -> None:
        """Learn from the log of a server whose reboot was accepted, read as a whole or the row of the request alone.

        Args:
            log: What was read; the newest row first.
            sample: The accepted send.
            asked_at: When it was asked for.
        """
        row = next((row for row in log if row.request_id == sample.request_id), None)
        age = asked_at - sample.accepted_at
        if row is not None:
            self._identify(row, sample, age)
            is_done = True
        else:
            is_done = age >= UNMEASURED_LAG and self._vote(log, sample)
            if sample.request_id is not None and not is_done and not self.are_ids_foreign:
                self._lag = max(self._lag, age)
        if is_done or age >= _PATIENCE:
            self._voters = [one for one in self._voters if one.server_id != sample.server_id]
            if self._pending is not None and self._pending.server_id == sample.server_id:
                self._pending = None

    def learn_user(self, log: Log, request_id: str | None) -> None:
        """Look for the row of a request that was certainly ours, because an answer to us carried its id."""
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
        """Take the newest reboot of the log for that of the sample, as one of several; tell whether it may be.

        A log that lags would show an older one: hence no sample votes before `UNMEASURED_LAG`.
        """
        newest = next((row for row in log if row.action == "reboot"), None)
        if newest is None:
            return False
        shift = log_shift(newest.start_time, sample.written)
        # A clock that nothing vouches for may be off by any time.
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
        """Make a sample of a server whose reboot was accepted; None where nothing dates its send.

        Args:
            progress: Its way so far.
            accepted_at: When it was accepted, in seconds on the run's clock.
        """
        sends, until = progress.sends, self._clock.at(accepted_at)
        # A send whose fate was unknown was found by what the samples are to tell.
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
        """Translate the time of a send from the cloud's `Date` into the log's; None if it is unknown.

        Args:
            progress: The server's way so far.
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

    def can_date(self, progress: Progress) -> bool:
        """Tell whether the log's clock is known so well that a row can be said to be older than a send."""
        return self._has_shift and not progress.sends.is_since_former

    def moment(self, seconds: float) -> LogMoment:
        """Translate a moment that a user named into the log's time.

        Args:
            seconds: The moment, in seconds since the epoch.
        """
        least, most = (self.facts.shift or (0.0, 0.0)) if self._has_shift else (0.0, 0.0)
        # Nodes of a cloud may differ by so much, also where nothing has dated the log yet.
        skew = SKEW + self._clock.spread
        return LogMoment(earliest=seconds + least - skew, likeliest=seconds + (least + most) / 2.0)
