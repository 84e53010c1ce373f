"""How long requests queue before an API that works on so many at once.

Law: who came first is served first, and no worker ever does two things at a time.
"""

from heapq import heappop, heappush


class Workers:
    """Knows until when each worker is busy with what has arrived."""

    def __init__(self) -> None:
        self._busy_until: list[float] = []

    def take(self, at_once: int, seconds: float, *, now: float) -> float:
        """Give a request that arrives now to the worker that is free first.

        Args:
            at_once: How many workers there are.
            seconds: How long each request takes one of them.
            now: The time.

        Returns:
            Seconds until the request is done with.
        """
        while self._busy_until and self._busy_until[0] <= now:
            heappop(self._busy_until)
        begins = now if len(self._busy_until) < at_once else heappop(self._busy_until)
        heappush(self._busy_until, begins + seconds)
        return begins + seconds - now
