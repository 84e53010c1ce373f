"""Who is let in where requests are limited: as a proxy counts them, and as Huawei Cloud's gateway does.

Law: what was let in is never more than the limit in any window that the throttle counts by.
"""

from collections import deque
from math import ceil, inf

from bulkrestart.simulator.answers import gateway_throttled
from bulkrestart.simulator.faults import Fault


class FixedWindows:
    """Counts in windows one after another, each from the first request after the last; refused ones do not count."""

    def __init__(self) -> None:
        self._began = -inf
        self._let_in = 0

    def refuse(self, limit: int, window: float, *, now: float) -> Fault | None:
        """Let a request in, or say when the window of `window` seconds ends."""
        if now >= self._began + window:
            self._began, self._let_in = now, 0
        if self._let_in == limit:
            return Fault.throttled(self._began + window - now)
        self._let_in += 1
        return None


class RollingWindow:
    """Counts whatever came in the last so many seconds, refused requests too.

    That those count was seen by clients whose retries kept them out. How the gateway divides time is not documented.
    """

    def __init__(self) -> None:
        self._arrivals: deque[float] = deque()

    def refuse(self, limit: int, window: float, *, now: float) -> Fault | None:
        """Let a request in, or say how many are let in within how many seconds, rounded up, and not when."""
        while self._arrivals and self._arrivals[0] <= now - window:
            self._arrivals.popleft()
        self._arrivals.append(now)
        if len(self._arrivals) <= limit:
            return None
        return Fault(answer=gateway_throttled(limit, f"{ceil(window)} second"))
