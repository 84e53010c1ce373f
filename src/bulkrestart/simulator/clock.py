"""A clock that stands still until it is turned."""


class ManualClock:
    """Seconds since the epoch, turned by hand; give it to a `Cloud` as its clock.

    Args:
        now: The time that it shows first, seconds since the epoch; 2030-01-01T00:00:00Z unless told.
    """

    def __init__(self, now: float = 1_893_456_000.0) -> None:
        self._now = now

    def __call__(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Turn the clock forward.

        Args:
            seconds: How far; not negative.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock is turned forward only, not by {seconds} s")
        self._now += seconds
