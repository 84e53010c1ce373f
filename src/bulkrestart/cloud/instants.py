"""The time on clocks that also count while this process or machine is suspended."""

import time
from typing import Final

import anyio

from bulkrestart.core.clock import Instant

#: Two clocks of the system: the first goes on while the machine is suspended, the second does not. The second is
#: `time.monotonic`, which event loops use (CLOCK_MONOTONIC on Linux, CLOCK_UPTIME_RAW on macOS). On Windows there is no
#: pair, because `time.monotonic` goes on during suspension.
_CLOCKS: Final = next(
    (
        (getattr(time, counting), getattr(time, standing))
        for counting, standing in (("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"), ("CLOCK_MONOTONIC", "CLOCK_UPTIME_RAW"))
        if hasattr(time, counting) and hasattr(time, standing)
    ),
    None,
)

#: Seconds: no suspension is shorter.
_PRECISION: Final = 0.001


class _Suspension:
    """How long the machine has been suspended: the same number until it is suspended again.

    The two clocks cannot be read at once, so their difference varies by microseconds, or longer on a busy machine. An
    age would vary with it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def see(self, least: float, most: float) -> None:
        """Take the bounds that one reading of the clocks gives, in seconds."""
        if not least - _PRECISION <= self.seconds <= most + _PRECISION:
            self.seconds = (least + most) / 2.0


_suspension: Final = _Suspension()


def current_instant() -> Instant:
    """Return the current moment."""
    return Instant(monotonic=anyio.current_time(), suspended=_suspended(), wall=time.time())


def boottime() -> float:
    """Return the event loop's time plus the time for which the machine was suspended, as CLOCK_BOOTTIME counts it."""
    return anyio.current_time() + _suspended()


def _suspended() -> float:
    """Return the seconds for which this machine has been suspended; 0.0 if the system has no clock for it."""
    if _CLOCKS is None:
        return 0.0
    counting, standing = _CLOCKS
    before, total, after = time.clock_gettime(standing), time.clock_gettime(counting), time.clock_gettime(standing)
    _suspension.see(total - after, total - before)
    return _suspension.seconds
