"""The cloud's clock, as its `Date` headers show it (RFC 9110 section 6.6.1), and the age of what was seen."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

#: Seconds by which two nodes of one cloud may differ. Clouds keep their clocks by NTP; this allows for one that does
#: not.
SKEW: Final = 60.0
#: Seconds by which `Date`, which a gateway may write, may differ from the action log's times as long as no row of ours
#: has shown how they compare: as much as a cloud forgives its users (15 min, Huawei Cloud's signatures).
UNCHECKED_SKEW: Final = 900.0


@dataclass(frozen=True, slots=True)
class LogTime:
    """Where a send stands in the action log's own time, in seconds since the epoch.

    Attributes:
        since: The earliest and the latest that it can have left.
        now: The latest that it can be by now.
        skew: How far the log may be off from that: rows are written by many nodes.
    """

    since: tuple[float, float]
    now: float
    skew: float = UNCHECKED_SKEW


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMoment:
    """A moment that a user named (`since`), in the action log's own time, in seconds since the epoch.

    Attributes:
        earliest: The earliest that the log can name for it.
        likeliest: What it most likely names for it.
    """

    earliest: float
    likeliest: float


def moment_text(seconds: float) -> str:
    """Write a moment, given in seconds since the epoch, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def log_shift(start_time: float, written: tuple[float, float]) -> tuple[float, float]:
    """Tell by how many seconds the action log is ahead of `Date`, at least and at most; (0.0, 0.0) if they agree.

    Args:
        start_time: The time of a row whose request was ours. It names a whole second, cut off or rounded.
        written: The earliest and the latest that `Date` can have shown when it was written.
    """
    least, most = start_time - 0.5 - written[1], start_time + 1.0 - written[0]
    return (0.0, 0.0) if least <= 0.0 <= most else (least, most)


class CloudClock:
    """Translates our monotonic clock into the cloud's, with the uncertainty that the translation has.

    A `Date` names a whole second, and was written at some moment between our request and its answer, so each answer
    gives an interval for the difference of the two clocks. The newest answer counts: a cloud has many nodes whose
    clocks differ, and intervals of different nodes must not narrow each other.

    Where no answer carries a `Date`, the clock of this machine stands for it (`is_guess`): rows of the action log that
    are known to be ours tell later how far the two are apart.

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
        """Take the clock of this machine, after an answer without a `Date`.

        Args:
            now: The time, by our clock.
            wall: The same moment as this machine shows it, in seconds since the epoch.
        """
        if self._offset is None:
            self._offset = (wall - now, wall - now)

    @property
    def spread(self) -> float:
        """Seconds by which `Date` has contradicted itself: nodes whose clocks differ, or one that was set."""
        return max(0.0, self._highest_least - self._lowest_most)

    def at(self, moment: float) -> tuple[float, float] | None:
        """Tell the cloud's time at a moment of ours, as (earliest, latest) seconds since the epoch.

        None as long as no request was answered.
        """
        return None if self._offset is None else (moment + self._offset[0], moment + self._offset[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """A moment on three clocks, from which an age can be told that counts the time in which this process stood still.

    Attributes:
        running: Seconds on the event loop's clock, which goes on while the process is stopped (SIGSTOP).
        asleep: Seconds that the machine has been suspended since it started, which the event loop's clock leaves out.
        wall: Seconds since the epoch, as this machine shows them: a virtual machine that was paused may show nothing
            but a step of this clock.
    """

    running: float
    asleep: float
    wall: float

    def age(self, now: "Instant") -> float:
        """Tell how old this instant is. A clock that was set forward makes it older, never younger."""
        return max(now.running - self.running + now.asleep - self.asleep, now.wall - self.wall)

    def at(self, running: float) -> "Instant":
        """Tell the instant at another moment of the event loop's clock, as if nothing had stood still between."""
        return Instant(running=running, asleep=self.asleep, wall=self.wall + running - self.running)
