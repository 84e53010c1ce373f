"""Detects a run that makes no progress, and states the cause in the cloud's own words. The time is an argument.

Law: a cause says "every request" only if all requests failed in that way for the whole time that it names.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from bulkrestart.core.model import Stop, StopReason
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent

#: Seconds without progress after which a run stops: as they are by default, three times `wait_timeout`, and twice
#: `server_timeout`.
STALL_TIMEOUT: Final = 1800.0
#: Seconds that a run gets beyond that, so that a server's own time-out of the same length comes first: it is noticed
#: at the next poll (15 s and jitter), or after the next wait of a server that is retried (30 s).
LEEWAY: Final = 30.0
#: Requests that must fit into the bound: a low `max_per_second` extends it.
_PACED: Final = 60.0
#: The share of the time without progress for which requests must have failed before they are named as its cause.
_SHARE: Final = 0.5
#: The most kinds of failures that a cause names.
_NAMED: Final = 3
#: Seconds by which a timer may end too early: so little time left counts as none.
_RESOLUTION: Final = 0.001

#: A span of at least so many seconds is written in minutes.
_MINUTES_FROM: Final = 120.0
_MINUTE: Final = 60.0
#: Seconds that may be missing in the last minute of a span, such as those before the first answer.
_ROUNDING: Final = 5.0

_NO_ANSWER: Final = "no answer"
_NO_CONNECTION: Final = "no connection"
_HELD_BACK: Final = "held back"


class RequestKind(StrEnum):
    """What a request asks for, in the words of a cause."""

    SEND = "reboot request"
    LOG = "look at an action log"
    SERVER = "look at a server"
    LIST = "page of the list of servers"
    GROUPS = "page of the list of server groups"


class FailureStreak:
    """Consecutive requests that all failed. A request that succeeds ends the streak.

    Attributes:
        since: When the first of them ended; None if the last request succeeded.
        last_at: When the last request ended, whether it failed or not; None before the first.
        last: The last failure, also of an earlier streak; None if there was none.
        kinds: How they failed: each status, "no answer", "no connection" or "held back" once.
        good: How many requests have succeeded, in all.
    """

    __slots__ = ("good", "kinds", "last", "last_at", "since")

    def __init__(self) -> None:
        self.since: float | None = None
        self.last_at: float | None = None
        self.last: Observation | None = None
        self.kinds: dict[str, None] = {}
        self.good = 0

    def record(self, seen: object, now: float) -> None:
        """Record how a request ended."""
        self.last_at = now
        if not isinstance(seen, Observation) or _is_success(seen):
            self.good += 1
            self.since = None
            self.kinds.clear()
            return
        if self.since is None:
            self.since = now
        self.last = seen
        self.kinds[_kind(seen)] = None

    def lasts_most(self, began: float, now: float) -> bool:
        """Return whether it covers most of the time between `began` and `now`."""
        return self.lasts(now) >= (now - began) * _SHARE

    def lasts(self, now: float) -> float:
        """Return the seconds since the first of them; negative if the last request succeeded."""
        return -1.0 if self.since is None else now - self.since

    def is_recent(self, began: float, now: float) -> bool:
        """Return whether a request has ended in the second half of the time between `began` and `now`."""
        return self.last_at is not None and self.last_at >= began + (now - began) * _SHARE


class StallDetector:
    """Measures the time without progress, and keeps how requests have ended since.

    Progress is a server that was accepted, came back, or got an outcome of its own.

    Args:
        timeout: Seconds without progress after which the run is stalled.
        now: The time, in seconds.
        lacking: The sentence that says what has not happened; " for 30 min" is added to it.
    """

    def __init__(self, timeout: float, now: float, *, lacking: str = "no server was accepted or came back") -> None:
        self._timeout = timeout
        self._paused_at: float | None = None
        self._lacking = lacking
        self._progress_at = now
        self._last_server_at = float("-inf")
        self._all = FailureStreak()
        self._rows = {asked: FailureStreak() for asked in RequestKind}
        self._sign_in = FailureStreak()

    @property
    def is_paused(self) -> bool:
        """Whether the clock is paused."""
        return self._paused_at is not None

    def advance(self, now: float) -> None:
        """Record progress that belongs to no server: the run begins, or a server was seen for the first time."""
        self._progress_at = now

    def note_server(self, now: float) -> None:
        """Record a server that was accepted, came back, or got an outcome of its own."""
        self._progress_at = self._last_server_at = now

    def has_progressed_since(self, moment: float) -> bool:
        """Return whether any server was accepted, came back, or got an outcome of its own after a moment."""
        return self._last_server_at > moment

    def remaining(self, now: float) -> float:
        """Return the seconds until a run without progress is stalled; 0.0 if it is stalled."""
        left = self._progress_at + self._timeout - (now if self._paused_at is None else self._paused_at)
        return left if left > _RESOLUTION else 0.0

    def pause(self, now: float) -> None:
        """Pause the clock, as between two waves: the time until `resume` does not count."""
        self._paused_at = now

    def resume(self, now: float) -> None:
        """Let the clock go on."""
        assert self._paused_at is not None, "it was paused"
        self._progress_at += now - self._paused_at
        self._paused_at = None

    def record(self, kind: RequestKind, seen: object, now: float) -> None:
        """Record how a request ended."""
        self._all.record(seen, now)
        self._rows[kind].record(seen, now)

    def record_sign_in(self, failure: Answer | None, now: float) -> None:
        """Record how a sign-in ended; None if it succeeded."""
        self._sign_in.record(failure, now)

    def stop(self, now: float, *, pause_cause: str = "") -> Stop:
        """Return the reason to stop the run.

        Args:
            now: The time, in seconds.
            pause_cause: The answer because of which all requests are paused now; "" if they are not.
        """
        remedy = "what is left can be restarted when that has passed"
        return Stop(StopReason.STALLED, f"{self.cause(now, pause_cause=pause_cause)}; {remedy}")

    def cause(self, now: float, *, pause_cause: str = "") -> str:
        """Return why there was no progress; `stop` documents the arguments."""
        began = self._progress_at
        if self._sign_in.lasts_most(began, now):
            return f"no sign-in has succeeded for {_lasting(self._sign_in, now)}"
        rows = [("request", self._all), *self._rows.items()]
        # While all requests are paused, none can end.
        covering = [
            (what, row)
            for what, row in rows
            if row.lasts_most(began, now) and (pause_cause or row.is_recent(began, now))
        ]
        if covering:
            # The longest streak says most; among equals, "every request" comes first.
            what, row = max(covering, key=lambda named: named[1].lasts(now) // _MINUTE)
            return f"{_claim(what, tuple(row.kinds))} for {_lasting(row, now)}"
        lacking = f"{self._lacking} for {span(now - began)}"
        if not self._all.is_recent(began, now):
            waiting = f"all requests are paused because of an earlier answer ({pause_cause})"
            return f"{lacking}; {waiting if pause_cause else 'no request was answered'}"
        for what in (RequestKind.LIST, RequestKind.GROUPS):
            if self._rows[what].good == self._all.good > 0:
                return f"{lacking}; the list has not ended after {self._rows[what].good} pages"
        failure = "" if self._all.last is None else f", and the last failure was {describe(self._all.last)}"
        return f"{lacking}; the cloud answers{failure}"


def bound(timeout: float, max_per_second: float | None) -> float:
    """Return the stall timeout, extended so that `max_per_second` allows some requests in it."""
    return timeout if max_per_second is None else max(timeout, _PACED / max_per_second)


def span(seconds: float) -> str:
    """Format a duration: "45 s", "30 min"."""
    return f"{seconds:.0f} s" if seconds < _MINUTES_FROM else f"{(seconds + _ROUNDING) // _MINUTE:.0f} min"


def describe(seen: Observation) -> str:
    """Return how a request failed, in the cloud's own words: "429 (overLimit: This request was rate-limited.)"."""
    words, kind = _words(seen), _kind(seen)
    if kind == _HELD_BACK:
        kind = "a request that was held back"
    return f"{kind} ({words})" if words else kind


def _lasting(row: FailureStreak, now: float) -> str:
    assert row.last is not None, "it covers a time"
    words = _words(row.last)
    return span(row.lasts(now)) + (f" ({words})" if words else "")


def _claim(what: str, kinds: Sequence[str]) -> str:
    if kinds == (_NO_ANSWER,):
        return f"the cloud has not answered any {what}"
    if kinds == (_NO_CONNECTION,):
        return f"no {what} has reached the cloud"
    if kinds == (_HELD_BACK,):
        return f"no {what} was sent"
    named = [*kinds[:_NAMED], *(["others"] if len(kinds) > _NAMED else [])]
    if not {_NO_ANSWER, _NO_CONNECTION, _HELD_BACK}.isdisjoint(kinds):
        return f"every {what} has failed ({', '.join(named)})"
    return f"the cloud has answered {' or '.join(named)} to every {what}"


def _is_success(seen: Observation) -> bool:
    return isinstance(seen, Answer) and 200 <= seen.status < 300 and not seen.fault.code


def _kind(seen: Observation) -> str:
    match seen:
        case Unanswered():
            return _NO_ANSWER
        case Unsent(is_withheld=True):
            return _HELD_BACK
        case Unsent():
            return _NO_CONNECTION
        case Answer():
            return str(seen.status)


def _words(seen: Observation) -> str:
    if not isinstance(seen, Answer):
        return seen.words
    return ": ".join(part for part in (seen.fault.code, seen.fault.message) if part)
