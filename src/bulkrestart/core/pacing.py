"""When everybody has to wait. The time comes in as an argument."""

from typing import Final

#: Seconds that the first throttled answer holds everybody if the cloud does not say how long; doubled at each more.
FIRST_HOLD: Final = 1.0
#: The most that an unsaid hold grows to; the providers' own tools wait so long (gophertelekomcloud: 60 s).
LONGEST_HOLD: Final = 60.0


class Brake:
    """One throttled answer holds everybody, for no less than the cloud asked.

    Many answers to requests that were in flight together count as one: only an answer to a request that left after
    the last hold began makes the next unsaid hold longer.
    """

    def __init__(self) -> None:
        self._began = float("-inf")
        self._until = float("-inf")
        self._held = 0.0
        self._unsaid = 0

    def hold(self, now: float, seconds: float | None, *, sent_at: float) -> None:
        """Hold everybody from now on.

        Args:
            now: The time, in seconds.
            seconds: What the cloud asked for; None if it did not say.
            sent_at: When the request left that was throttled.
        """
        if seconds is None:
            if sent_at <= self._began:
                return
            seconds = FIRST_HOLD * 2.0**self._unsaid
            if seconds >= LONGEST_HOLD:
                seconds = LONGEST_HOLD
            else:
                self._unsaid += 1
        if now >= self._until:
            self._held += self._until - self._began if self._until > self._began else 0.0
            self._began = now
            self._until = now
        self._until = max(self._until, now + seconds)

    def release(self) -> None:
        """Note that a request got through: the next unsaid hold is a first one again."""
        self._unsaid = 0

    def remaining(self, now: float) -> float:
        """Seconds to wait from now; 0.0 if the way is free."""
        return max(0.0, self._until - now)

    def held(self, now: float) -> float:
        """Seconds held altogether; patience with a server does not count them."""
        if self._until == float("-inf"):
            return 0.0
        return self._held + max(0.0, min(now, self._until) - self._began)
