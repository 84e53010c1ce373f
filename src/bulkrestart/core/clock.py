"""The cloud's clock, as its `Date` headers show it (RFC 9110 section 6.6.1)."""

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
    """

    def __init__(self) -> None:
        self._offset: tuple[float, float] | None = None
        self._highest_least = float("-inf")
        self._lowest_most = float("inf")

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

    @property
    def spread(self) -> float:
        """Seconds by which `Date` has contradicted itself: nodes whose clocks differ, or one that was set."""
        return max(0.0, self._highest_least - self._lowest_most)

    def at(self, moment: float) -> tuple[float, float] | None:
        """Tell the cloud's time at a moment of ours, as (earliest, latest) seconds since the epoch.

        None as long as no answer has carried a `Date`.
        """
        return None if self._offset is None else (moment + self._offset[0], moment + self._offset[1])
