"""The cloud's clock, as its `Date` headers show it (RFC 9110 section 6.6.1)."""

from typing import Final

#: Seconds by which two clocks of one cloud may differ: that of a gateway, which writes `Date`, and that of the
#: database's node, which writes the action log. Clouds keep theirs by NTP; this allows for one that does not.
SKEW: Final = 60.0


class CloudClock:
    """Translates our monotonic clock into the cloud's, with the uncertainty that the translation has.

    A `Date` names a whole second, and was written at some moment between our request and its answer, so each answer
    gives an interval for the difference of the two clocks. The newest answer counts: a cloud has many nodes whose
    clocks differ, and intervals of different nodes must not narrow each other.
    """

    def __init__(self) -> None:
        self._offset: tuple[float, float] | None = None

    def learn(self, date: float, *, sent: float, received: float) -> None:
        """Take one answer's `Date`.

        Args:
            date: The header, in seconds since the epoch.
            sent: When its request left, by our clock.
            received: When the answer was in, by our clock.
        """
        self._offset = (date - received, date + 1.0 - sent)

    def at(self, moment: float) -> tuple[float, float] | None:
        """Tell the cloud's time at a moment of ours, as (earliest, latest) seconds since the epoch.

        None as long as no answer has carried a `Date`.
        """
        return None if self._offset is None else (moment + self._offset[0], moment + self._offset[1])
