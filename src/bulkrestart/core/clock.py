"""The cloud's clock, as its `Date` headers show it (RFC 9110 section 6.6.1), and the age of a look."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

#: Seconds by which the clocks of two nodes of one cloud may differ. Clouds use NTP; this allows for a node without it.
SKEW: Final = 60.0
#: Seconds by which `Date`, which a gateway may write, may differ from the action log's clock before a row of ours has
#: shown the difference: as much as a cloud tolerates in its users' clocks (15 min, Huawei Cloud's signatures).
UNCHECKED_SKEW: Final = 900.0


@dataclass(frozen=True, slots=True)
class LogTime:
    """The time of a send on the action log's clock, in seconds since the epoch.

    Attributes:
        since: The earliest and the latest time at which the send can have left.
        now: The latest time that it can be now.
        skew: Seconds by which a row's time may differ from that: rows are written by many nodes.
    """

    since: tuple[float, float]
    now: float
    skew: float = UNCHECKED_SKEW


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMoment:
    """A moment that a user gave (`since`), on the action log's clock, in seconds since the epoch.

    Attributes:
        earliest: The earliest time that a row of that moment can show.
        latest: The latest time that such a row can show. A row of a later time certainly began after the moment.
    """

    earliest: float
    latest: float


def moment_text(seconds: float) -> str:
    """Format a moment, given in seconds since the epoch, as ISO 8601 to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def log_shift(start_time: float, written: tuple[float, float]) -> tuple[float, float]:
    """Return by how many seconds the action log is ahead of `Date`, at least and at most; (0.0, 0.0) if they agree.

    Args:
        start_time: The time of a row of our own request: a whole second, truncated or rounded.
        written: The earliest and the latest time that `Date` can have shown when the row was written.
    """
    least, most = start_time - 0.5 - written[1], start_time + 1.0 - written[0]
    return (0.0, 0.0) if least <= 0.0 <= most else (least, most)


class CloudClock:
    """Translates our monotonic clock into the cloud's, with the uncertainty that the translation has.

    A `Date` names a whole second, and was written at some moment between our request and its answer, so each answer
    gives an interval for the difference of the two clocks. The newest answer counts: a cloud has many nodes whose
    clocks differ, and intervals of different nodes must not narrow each other.

    Until an answer carries a `Date`, this machine's clock is used instead (`is_guess`). Rows of the action log that are
    known to be ours show later how far the two clocks differ.

    Attributes:
        is_guess: No answer has carried a `Date` so far.
    """

    def __init__(self) -> None:
        self._offset: tuple[float, float] | None = None
        self._highest_least = float("-inf")
        self._lowest_most = float("inf")
        self.is_guess = True

    def learn(self, date: float, *, sent: float, received: float) -> None:
        """Take one answer's `Date`.

        Args:
            date: The header, in seconds since the epoch.
            sent: When its request left, by our clock.
            received: When the answer was in, by our clock.
        """
        least, most = self._offset = (date - received, date + 1.0 - sent)
        self._highest_least = max(self._highest_least, least)
        self._lowest_most = min(self._lowest_most, most)
        self.is_guess = False

    def guess(self, now: float, wall: float) -> None:
        """Use this machine's clock, after an answer without a `Date`.

        Args:
            now: The time, by our monotonic clock.
            wall: The same moment by this machine's wall clock, in seconds since the epoch.
        """
        if self._offset is None:
            self._offset = (wall - now, wall - now)

    @property
    def spread(self) -> float:
        """Seconds by which the `Date`s seen so far differ: nodes have different clocks, or a clock was set."""
        return max(0.0, self._highest_least - self._lowest_most)

    def at(self, moment: float) -> tuple[float, float] | None:
        """Tell the cloud's time at a moment of ours, as (earliest, latest) seconds since the epoch.

        None as long as no request was answered.
        """
        return None if self._offset is None else (moment + self._offset[0], moment + self._offset[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """A moment on three clocks. Its age includes the time in which the process or the machine was suspended.

    Attributes:
        monotonic: Seconds on the event loop's clock, which goes on while the process is stopped (SIGSTOP).
        suspended: Seconds for which the machine has been suspended since it started. The event loop's clock leaves
            them out.
        wall: Seconds since the epoch on this machine's clock. After a pause of a virtual machine, only this clock may
            have advanced.
    """

    monotonic: float
    suspended: float
    wall: float

    def age(self, now: "Instant") -> float:
        """Return the seconds since this instant. A clock that was set forward makes them more, never fewer."""
        return max(now.monotonic - self.monotonic + now.suspended - self.suspended, now.wall - self.wall)

    def at(self, monotonic: float) -> "Instant":
        """Return the instant at another time of the event loop's clock, assuming no suspension in between."""
        return Instant(monotonic=monotonic, suspended=self.suspended, wall=self.wall + monotonic - self.monotonic)
