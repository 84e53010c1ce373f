"""What is to happen, and when.

Law: time passes by the clock alone. Whatever is due by now is done, in order and each at its own time, when somebody
looks; nothing sleeps and nothing runs in the background.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class Agenda:
    """What is due at which time, and the time that it has been brought up to.

    Args:
        now: The time at the beginning, in seconds since the epoch.

    Attributes:
        now: The time: of the entry that is being done, or else of the last `run_until`.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self._entries: list[tuple[float, int, Callable[[], object]]] = []
        #: Keeps entries of one time in the order in which they came.
        self._numbers = count()
        self._is_running = False

    def add(self, seconds: float, do: Callable[[], object]) -> None:
        """Put something on the agenda, `seconds` from now."""
        heappush(self._entries, (self.now + seconds, next(self._numbers), do))

    def run_until(self, now: float) -> None:
        """Do what is due by `now`; time does not run back.

        It does nothing when called from an entry: what the entry looks at is the cloud at the entry's own time.
        """
        if self._is_running:
            return
        self._is_running = True
        try:
            while self._entries and self._entries[0][0] <= now:
                at, _, do = heappop(self._entries)
                self.now = max(self.now, at)
                do()
            self.now = max(self.now, now)
        finally:
            self._is_running = False
