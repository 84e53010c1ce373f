"""When a run makes no progress for too long, and the cause in the cloud's own words. The time comes in as an argument.

Law: a cause says "every" only of requests that all ended so for as long as it says.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from bulkrestart.core.model import Stop, StopReason
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent

#: Seconds without progress after which a run stops: as they are by default, three times `wait_timeout`, and twice
#: `server_timeout`.
STALL_TIMEOUT: Final = 1800.0
#: Seconds that are granted beyond that. A server's own time-out is noticed at the next poll (15 s and jitter), or after
#: the next wait of a server that is retried (30 s), and comes first where both are equal.
LEEWAY: Final = 30.0
#: Requests that must fit into the bound where `max_per_second` is so low that fewer would.
_PACED: Final = 60.0
#: The share of the time without progress for which requests must have failed to be named as its cause.
_SHARE: Final = 0.5
#: Kinds of failures that a cause names.
_NAMED: Final = 3
#: Seconds that are none: a timer may end this much too early.
_RESOLUTION: Final = 0.001

#: Seconds from which a span is told in minutes.
_MINUTES_FROM: Final = 120.0
_MINUTE: Final = 60.0
#: Seconds that may be lacking in the last minute of a span, such as those before the first answer.
_UNTOLD: Final = 5.0

_NO_ANSWER: Final = "no answer"
_NO_CONNECTION: Final = "no connection"


class Asked(StrEnum):
    """What a request asked for, as a cause names it."""

    SEND = "reboot request"
    LOG = "look at an action log"
    SERVER = "look at a server"
    LIST = "page of the list of servers"
    GROUPS = "page of the list of server groups"


class Row:
    """Requests in a row that all failed; one that succeeds ends the row.

    Attributes:
        since: When the first of them ended; None without any.
        last_at: When the last request ended, whether it failed or not; None before the first.
        last: The last that failed; None without any.
        kinds: How they failed: each status, "no answer" or "no connection" once.
        good: Requests that succeeded, at all.
    """

    __slots__ = ("good", "kinds", "last", "last_at", "since")

    def __init__(self) -> None:
        self.since: float | None = None
        self.last_at: float | None = None
        self.last: Observation | None = None
        self.kinds: dict[str, None] = {}
        self.good = 0

    def note(self, seen: object, now: float) -> None:
        """Note how a request ended."""
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
        """Tell whether it lasts for most of the time that began then."""
        return self.lasts(now) >= (now - began) * _SHARE

    def lasts(self, now: float) -> float:
        """Seconds since the first of them; negative without any."""
        return -1.0 if self.since is None else now - self.since

    def is_recent(self, began: float, now: float) -> bool:
        """Tell whether some request has ended in the second half of the time that began then."""
        return self.last_at is not None and self.last_at >= began + (now - began) * _SHARE


class Stall:
    """Knows when the last progress was, and how requests have ended since.

    Progress is a server that was accepted, came back, or got an outcome of its own.

    Args:
        timeout: Seconds without progress that are too long.
        now: The time, in seconds.
        lacking: What has not happened then, as a sentence without its end.
    """

    def __init__(self, timeout: float, now: float, *, lacking: str = "no server was accepted or came back") -> None:
        self._timeout = timeout
        self._paused_at: float | None = None
        self._lacking = lacking
        self._progress_at = now
        self._last_server_at = float("-inf")
        self._all = Row()
        self._rows = {asked: Row() for asked in Asked}
        self._sign_in = Row()

    @property
    def is_paused(self) -> bool:
        """Time passes by design."""
        return self._paused_at is not None

    def advance(self, now: float) -> None:
        """Note progress that is no server's: the run begins, or a server was seen for the first time."""
        self._progress_at = now

    def note_server(self, now: float) -> None:
        """Note a server that was accepted, came back, or got an outcome of its own."""
        self._progress_at = self._last_server_at = now

    def has_progressed_since(self, moment: float) -> bool:
        """Tell whether any server was accepted, came back, or got an outcome of its own since a moment."""
        return self._last_server_at > moment

    def remaining(self, now: float) -> float:
        """Seconds until a run without progress is stalled; 0.0 if it is."""
        left = self._progress_at + self._timeout - (now if self._paused_at is None else self._paused_at)
        return left if left > _RESOLUTION else 0.0

    def pause(self, now: float) -> None:
        """Let time pass by design, as between two waves: it does not count."""
        self._paused_at = now

    def resume(self, now: float) -> None:
        """Count time again."""
        assert self._paused_at is not None, "it was paused"
        self._progress_at += now - self._paused_at
        self._paused_at = None

    def hear(self, asked: Asked, seen: object, now: float) -> None:
        """Note how a request ended."""
        self._all.note(seen, now)
        self._rows[asked].note(seen, now)

    def hear_sign_in(self, failure: Answer | None, now: float) -> None:
        """Note how a sign-in ended; None if it was well."""
        self._sign_in.note(failure, now)

    def stop(self, now: float, *, holding: str = "") -> Stop:
        """Give the reason to stop.

        Args:
            now: The time, in seconds.
            holding: The answer for which all requests wait at this moment; "" if they do not.
        """
        remedy = "what is left can be restarted when that has passed"
        return Stop(StopReason.STALLED, f"{self.cause(now, holding=holding)}; {remedy}")

    def cause(self, now: float, *, holding: str = "") -> str:
        """Say why there was no progress; `stop` documents the arguments."""
        began = self._progress_at
        if self._sign_in.lasts_most(began, now):
            return f"no sign-in has succeeded for {_lasting(self._sign_in, now)}"
        rows = [("request", self._all), *self._rows.items()]
        # While all requests wait, none can end.
        covering = [
            (what, row) for what, row in rows if row.lasts_most(began, now) and (holding or row.is_recent(began, now))
        ]
        if covering:
            # The longest says most, and of several "every request" does.
            what, row = max(covering, key=lambda named: named[1].lasts(now) // _MINUTE)
            return f"{_claim(what, tuple(row.kinds))} for {_lasting(row, now)}"
        lacking = f"{self._lacking} for {span(now - began)}"
        if not self._all.is_recent(began, now):
            waiting = f"all requests wait because of an earlier answer ({holding})"
            return f"{lacking}; {waiting if holding else 'no request was answered'}"
        for what in (Asked.LIST, Asked.GROUPS):
            if self._rows[what].good == self._all.good > 0:
                return f"{lacking}; the list has not ended after {self._rows[what].good} pages"
        failure = "" if self._all.last is None else f", and the last failure was {describe(self._all.last)}"
        return f"{lacking}; the cloud answers{failure}"


def bound(timeout: float, max_per_second: float | None) -> float:
    """Give the seconds without progress that are too long at a rate: some requests must have had their turn."""
    return timeout if max_per_second is None else max(timeout, _PACED / max_per_second)


def span(seconds: float) -> str:
    """Say how long: "45 s", "30 min"."""
    return f"{seconds:.0f} s" if seconds < _MINUTES_FROM else f"{(seconds + _UNTOLD) // _MINUTE:.0f} min"


def describe(seen: Observation) -> str:
    """Say how a request failed, and the cloud's own words for it: "429 (overLimit: This request was rate-limited.)"."""
    words = _words(seen)
    return f"{_kind(seen)} ({words})" if words else _kind(seen)


def _lasting(row: Row, now: float) -> str:
    assert row.last is not None, "it covers a time"
    words = _words(row.last)
    return span(row.lasts(now)) + (f" ({words})" if words else "")


def _claim(what: str, kinds: Sequence[str]) -> str:
    if kinds == (_NO_ANSWER,):
        return f"the cloud has not answered any {what}"
    if kinds == (_NO_CONNECTION,):
        return f"no {what} has reached the cloud"
    named = [*kinds[:_NAMED], *(["others"] if len(kinds) > _NAMED else [])]
    if _NO_ANSWER in kinds or _NO_CONNECTION in kinds:
        return f"every {what} has failed ({', '.join(named)})"
    return f"the cloud has answered {' or '.join(named)} to every {what}"


def _is_success(seen: Observation) -> bool:
    return isinstance(seen, Answer) and 200 <= seen.status < 300 and not seen.fault.code


def _kind(seen: Observation) -> str:
    match seen:
        case Unanswered():
            return _NO_ANSWER
        case Unsent():
            return _NO_CONNECTION
        case Answer():
            return str(seen.status)


def _words(seen: Observation) -> str:
    if not isinstance(seen, Answer):
        return seen.words
    return ": ".join(part for part in (seen.fault.code, seen.fault.message) if part)
