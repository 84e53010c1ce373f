"""A clock that stands still while nothing can be seen. The time comes in as an argument."""


class Sight:
    """Knows for how long nothing has been seen: that time counts against nobody."""

    def __init__(self) -> None:
        self._last = 0.0
        self._blind_since: float | None = None
        self._blind = 0.0

    def see(self, now: float) -> None:
        """Note that something was seen."""
        if self._blind_since is not None:
            self._blind += max(0.0, now - self._blind_since)
            self._blind_since = None
        self._last = max(self._last, now)

    def miss(self) -> None:
        """Note that a look has shown nothing: since the last that did, nothing could be seen."""
        if self._blind_since is None:
            self._blind_since = self._last

    def time(self, moment: float) -> float:
        """Read the clock at a moment."""
        return (moment if self._blind_since is None else min(moment, self._blind_since)) - self._blind
