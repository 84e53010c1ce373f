"""How many requests at once a cloud can bear. The time comes in as an argument.

Law: neither limit is ever above the most that is allowed, or below 1.
"""

from math import sqrt
from statistics import median
from typing import Final

#: Requests at once while the latency of an API that has little to do is measured. Envoy's 3 (`min_concurrency`) make
#: the first seconds slow, a large part of a short run: a real Nova took 0.6 of the sends of a fixed limit.
LEAST: Final = 10
#: Answers that such a measurement takes. Envoy's 50 (`request_count`) would be a large part of a short run.
MEASURED: Final = 10
#: Seconds from one such measurement to the next (Envoy: `min_rtt_calc_params.interval`, for which it has no default).
MEASURED_EVERY: Final = 60.0
#: How many times as long as that answers may take before they count as late (Envoy: `buffer`, 25 %).
TOLERANCE: Final = 1.5
#: How many roots of the limit may wait in the API's queue. Envoy has 1, for proxies, which refuse the rest. With 1 the
#: API of a real Nova, which shares its process with the reboots that it has accepted, takes a third fewer sends a
#: second, and with 4 a seventh; and a client that has many at once in one event loop is a part of their latency, and
#: finds half of what a quick API bears. However slow an API is, 2 * QUEUE ** 2 = 72 are at once: where the fall of the
#: gradient ends, the roots make up for it.
QUEUE: Final = 6.0
#: Answers of which one takes the median: so many, or this share of the limit.
_WINDOW: Final = 10
_WINDOW_SHARE: Final = 0.25
#: How far one step may go (Envoy: `GradientController::calculateNewLimit`).
_STEEPEST_FALL: Final = 0.5
_STEEPEST_RISE: Final = 2.0


class Limit:
    """Additive increase, multiplicative decrease, as TCP has it (RFC 5681): it halves where the cloud is overcharged.

    After a hold it is 1, so that one probe leaves. While answers come it grows by one for each (slow start) up to half
    of what it was, and by one for as many as are at once from there on.

    Many answers to requests that were in flight together count as one: only an answer to a request that left after the
    last decrease says anything, for better or worse.

    Args:
        most: Requests at once, at most; it begins there.
        is_adaptive: Whether it halves. If not, it ramps up to `most` after each hold, and is `most` else.
    """

    def __init__(self, most: int, *, is_adaptive: bool = True) -> None:
        self._most = float(most)
        self._window = self._most
        #: Slow start ends here.
        self._threshold = self._most
        self._decreased_at = float("-inf")
        self._is_adaptive = is_adaptive

    @property
    def at_once(self) -> int:
        """How many requests may be in flight."""
        return int(self._window)

    def restart(self, now: float, *, sent_at: float, is_overcharged: bool) -> None:
        """Begin with a probe, because everybody is held.

        Args:
            now: The time, in seconds.
            sent_at: When the request left that was answered so.
            is_overcharged: It was too much for the cloud. If not, slow start goes up to the former limit.
        """
        # A probe that is answered so says the same of the same limit (RFC 5681, section 3.1).
        if is_overcharged and self._is_adaptive and sent_at > self._decreased_at and self._window > 1.0:
            self._threshold = self._window / 2.0
        self._window = 1.0
        self._decreased_at = now

    def halve(self, now: float, *, sent_at: float) -> None:
        """Note that an answer, or the lack of one, shows the cloud overcharged, and that it does not ask to wait."""
        if self._is_adaptive and sent_at > self._decreased_at:
            self._window = self._threshold = max(1.0, self._window / 2.0)
            self._decreased_at = now

    def grow(self, *, sent_at: float, is_full: bool) -> None:
        """Note that a request got through.

        Args:
            sent_at: When it left.
            is_full: As many as may were in flight at some time since then. A limit that nobody comes to does not grow:
                nothing shows that the cloud bears it (RFC 7661).
        """
        if self._window >= self._most or sent_at <= self._decreased_at or not is_full:
            return
        step = 1.0 if self._window < self._threshold else 1.0 / self._window
        self._window = min(self._most, self._window + step)


class LatencyLimit:
    """Finds by their latency how many requests at once an API works on; more would only wait in its queue.

    It is the gradient controller of Envoy's adaptive concurrency filter
    (envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter), but that a window is
    a number of answers and not a time, because an API may give fifteen a second:

        gradient = TOLERANCE * ideal latency / median latency of the window, from 0.5 to 2
        limit    = gradient * limit + QUEUE * sqrt(gradient * limit)

    The ideal latency is the median of a few requests, at most `LEAST` of which are in flight, at first and once a
    minute.

    Args:
        most: Requests at once, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._least = float(min(LEAST, most))
        self._limit = self._least
        #: The limit to go on with after a measurement.
        self._former = self._least
        self._ideal: float | None = None
        self._measured_at = float("-inf")
        self._samples: list[float] = []
        self._was_full = False
        self._since = float("-inf")

    @property
    def at_once(self) -> int:
        """How many requests may be in flight."""
        return int(self._limit)

    def note(self, now: float, *, sent_at: float, is_full: bool) -> None:
        """Note a good answer.

        Args:
            now: When it came, in seconds.
            sent_at: When its request left; one that left under another limit says nothing of this one.
            is_full: As many as may were in flight at some time since then. A window without that says nothing.
        """
        if sent_at <= self._since:
            return
        self._samples.append(now - sent_at)
        self._was_full |= is_full
        if self._ideal is None:
            if len(self._samples) >= MEASURED:
                self._ideal, self._measured_at = median(self._samples), now
                self._begin(now, self._former)
        elif len(self._samples) >= max(_WINDOW, self._limit * _WINDOW_SHARE):
            self._former = self._next(self._ideal, median(self._samples))
            if now - self._measured_at < MEASURED_EVERY:
                self._begin(now, self._former)
            else:
                self._ideal = None
                self._begin(now, self._least)

    def _next(self, ideal: float, latency: float) -> float:
        if not self._was_full:
            return self._limit
        gradient = TOLERANCE * ideal / latency if latency > 0.0 else _STEEPEST_RISE
        limit = self._limit * min(_STEEPEST_RISE, max(_STEEPEST_FALL, gradient))
        return min(self._most, max(self._least, limit + QUEUE * sqrt(limit)))

    def _begin(self, now: float, limit: float) -> None:
        self._limit, self._since, self._was_full = limit, now, False
        self._samples.clear()
