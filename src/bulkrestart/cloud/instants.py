"""The present moment, on clocks that count the time in which this process or machine stood still."""

import time
from typing import Final

import anyio

from bulkrestart.core.clock import Instant

#: Two clocks of the system, of which the first counts the time in which the machine is suspended. Event loops go by
#: `time.monotonic`, the second: CLOCK_MONOTONIC on Linux, CLOCK_UPTIME_RAW on macOS. On Windows it counts suspension.
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


def present() -> Instant:
    """Return the present moment."""
    return Instant(running=anyio.current_time(), asleep=_asleep(), wall=time.time())


def elapsed() -> float:
    """Return the seconds on the event loop's clock, and those that the machine has been suspended."""
    return anyio.current_time() + _asleep()


def _asleep() -> float:
    """Return the seconds that this machine has been suspended; 0.0 where the system does not tell."""
    if _CLOCKS is None:
        return 0.0
    counting, standing = _CLOCKS
    before, total, after = time.clock_gettime(standing), time.clock_gettime(counting), time.clock_gettime(standing)
    _suspension.see(total - after, total - before)
    return _suspension.seconds
