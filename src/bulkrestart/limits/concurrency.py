"""How many requests at once a cloud can handle. The time is an argument.

Law: no limit is ever above the most that is allowed, or below 1.
"""

from math import sqrt
from statistics import median
from typing import Final

#: The share of overload answers above which the API sheds more requests than it accepts. The SRE book throttles from
#: the same point: twice as many requests as were accepted (chapter 21, "Client-side throttling", K = 2).
SHED_SHARE: Final = 0.5
#: The share up to which overload answers are put down to faulty servers. A few per cent of these delay the end of a
#: run, but do not lower the limit: benchmarks/goodput.py measures up to this share.
TOLERATED_SHARE: Final = 0.1
#: The smallest cohort that a share is computed from: one answer changes the share by no more than `TOLERATED_SHARE`.
LEAST_COHORT: Final = 10
#: The most cohorts between two trials in the same direction. A trial that fails costs an API at its limit one or two
#: shed sends, with four looks for each: about 10 of the 320 requests of 32 cohorts of 10 (3 %). With a longer wait it
#: would take longer to notice that an API has recovered: 32 cohorts take 10 to 20 s if an answer takes 0.3 s.
LONGEST_WAIT: Final = 32

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


class AimdLimit:
    """Additive increase, multiplicative decrease, as in TCP (RFC 5681): halves when the cloud limits the rate.

    After a pause the limit is 1, so that one probe leaves. Then it grows by one for each answer (slow start), up to the
    former limit, or to half of it after a rate signal. From there it grows by one for each full round of answers.

    Many answers to requests that were in flight together count as one: only an answer to a request that left after the
    last decrease says anything, for better or worse.

    Args:
        most: Requests at once, at most; it begins there.
        is_adaptive: Whether the limit halves. If not, it is `most`, except that it ramps up to it after each pause.
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

    def restart(self, now: float, *, sent_at: float, is_rate_signal: bool) -> None:
        """Set the limit to 1, for the probe that follows a pause of all requests.

        Args:
            now: The time, in seconds.
            sent_at: When the request left whose answer caused the pause.
            is_rate_signal: Whether the cloud limits the rate. If not, slow start goes up to the former limit.
        """
        # A probe that is answered so says the same of the same limit (RFC 5681, section 3.1).
        if is_rate_signal and self._is_adaptive and sent_at > self._decreased_at and self._window > 1.0:
            self._threshold = self._window / 2.0
        self._window = 1.0
        self._decreased_at = now

    def grow(self, *, sent_at: float, is_full: bool) -> None:
        """Record a request that got through.

        Args:
            sent_at: When it left.
            is_full: Whether the limit was reached at some time since then. A limit that is not reached does not grow,
                because nothing shows that the cloud can handle it (RFC 7661).
        """
        if self._window >= self._most or sent_at <= self._decreased_at or not is_full:
            return
        step = 1.0 if self._window < self._threshold else 1.0 / self._window
        self._window = min(self._most, self._window + step)


class OverloadLimit:
    """Finds how many requests at once an overloaded API works on, from the share of overload answers.

    Requests for a faulty server fail with 503 or a time-out at any number in flight; an overloaded API answers so
    because of that number. To tell the two apart, one cohort of requests is sent under a trial limit, as in PCC (Dong
    et al., NSDI 2015), and its share of overload answers is compared with that at the present limit:

    - The share is above `SHED_SHARE`: halve the limit at once.
    - It is above `TOLERATED_SHARE`: try the limit reduced by that share. If the API was at its limit it now answers
      all; faulty servers fail as before. Keep the trial limit if the share falls by more than half.
    - Otherwise: try a higher limit, halfway to the limit that last failed (a binary search, as in BIC-TCP: Xu, Harfoush
      and Rhee, INFOCOM 2004), or beyond it by 1, 2, 4 ... An API at its limit sheds all added requests.

    A cohort is as many requests as the limit allows at once, in the order in which they left. Answers to requests
    outside of it do not count, so a burst of time-outs from many cohorts is not taken for overload in one.

    Args:
        most: The highest limit, and the initial one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        #: The present limit, and the trial limit in its place; None while there is no trial.
        self._base = most
        self._trial: int | None = None
        #: The share of overload answers at the present limit.
        self._share = 0.0
        #: The limit that last failed; `most + 1` if none has.
        self._failed = most + 1
        self._step = 1
        #: When the next trial of a higher limit, and of a lower one, may begin.
        self._rise, self._fall = _TrialBackoff(), _TrialBackoff()
        #: The cohort: when it began and when its last request left; its requests that left, that were answered, and
        #: that were overload answers; answers to later requests; whether the limit was reached.
        self._since = self._last_at = float("-inf")
        self._sent = self._answered = self._overloads = self._later = 0
        self._is_full = False

    @property
    def at_once(self) -> int:
        """How many requests may be in flight."""
        return self._base if self._trial is None else self._trial

    def record_sent(self, now: float, *, in_flight: int, is_reachable: bool) -> None:
        """Record that a request leaves.

        Args:
            now: The time, in seconds.
            in_flight: How many requests are in flight, this one included. A limit that is not reached is not raised,
                because nothing shows that the API can handle it (RFC 7661).
            is_reachable: Whether no other limit is lower. A cohort begins only then.
        """
        if not is_reachable and not self._sent:
            self._since = self._last_at = now
        # Requests that leave at the same moment cannot be told apart by their time, so they share a cohort.
        if now <= self._since or (self._sent >= self._size and now > self._last_at):
            return
        self._sent += 1
        self._last_at = now
        self._is_full |= in_flight >= self.at_once

    def record(self, now: float, *, sent_at: float, is_overload: bool) -> None:
        """Record how a request ended.

        Args:
            now: The time, in seconds.
            sent_at: When it left.
            is_overload: Whether it was answered as an overloaded API answers, or not in time.
        """
        if sent_at <= self._since:
            return
        if sent_at > self._last_at:
            self._later += 1
        else:
            self._overloads += is_overload
            self._answered += 1
        size = max(self._size, self._sent)
        if self._overloads > self._allowed * size:
            self.shrink(now)
        elif self._sent >= self._size and (self._answered >= self._sent or self._later >= size):
            self._judge(now, self._overloads / max(1, self._answered))

    @property
    def _size(self) -> int:
        return max(LEAST_COHORT, self.at_once)

    @property
    def _allowed(self) -> float:
        """The share above which the limit shrinks without waiting for the rest of the cohort."""
        if self._trial is None or self._trial < self._base:
            return SHED_SHARE
        # Halfway between the share of faulty servers, and the share if all added requests are shed as well.
        return min(SHED_SHARE, self._share + (1.0 - self._base / self._trial) / 2.0 + self._deviation)

    @property
    def _deviation(self) -> float:
        """The standard deviation of the share of faulty servers in a cohort of this size."""
        return sqrt(self._share * (1.0 - self._share) / self._size)

    def shrink(self, now: float) -> None:
        """End a trial that overloads the API, or halve the present limit."""
        if self._trial is not None and self._trial > self._base:
            self._failed, self._step = self._trial, 1
            if self._failed - self._base <= 1:
                self._rise.lengthen()
        else:
            self._failed = self.at_once
            self._base = max(1, self.at_once // 2)
        self._trial = None
        self.restart(now)

    def restart(self, now: float) -> None:
        """Begin a new cohort, of requests that leave from now on."""
        self._since = self._last_at = now
        self._sent = self._overloads = self._answered = self._later = 0
        self._is_full = False

    def _judge(self, now: float, share: float) -> None:
        """Decide, from the share of the cohort that has ended, whether to keep its limit and what to try next."""
        if self._trial is None:
            self._share = share
        elif self._trial > self._base:
            if self._is_full:
                # Above the limit that failed, each step is twice the last.
                self._step = 1 if self._trial < self._failed else 2 * self._step
                self._base, self._share = self._trial, share
                self._rise.reset()
        elif share <= max(0.0, self._share / 2.0 - self._deviation):
            self._failed, self._base, self._share = self._base, self._trial, share
            self._fall.reset()
        else:
            self._fall.lengthen()
        self._trial = self._next()
        self.restart(now)

    def _next(self) -> int | None:
        """Return the limit to try next; None to keep the present one."""
        if self._share > TOLERATED_SHARE and self._base > 1 and self._fall.is_over():
            return max(1, int(self._base * (1.0 - self._share)))
        if self._base >= self._most or not self._is_full or not self._rise.is_over():
            return None
        if self._failed - self._base > 1:
            return (self._base + self._failed) // 2
        return min(self._most, self._base + self._step)


class _TrialBackoff:
    """Counts the cohorts until a failed trial is repeated: 2, 4, 8 ... up to `LONGEST_WAIT`.

    The cohort of a failed trial of a lower limit is the first of them. That of a higher limit is not counted, because
    it ends as soon as the API sheds enough.
    """

    def __init__(self) -> None:
        self._left = 0
        self._length = 1

    def is_over(self) -> bool:
        """Count one cohort, and return whether the wait is over."""
        self._left = max(0, self._left - 1)
        return self._left == 0

    def lengthen(self) -> None:
        """Begin a wait, twice as long as the last one."""
        self._left = self._length = min(LONGEST_WAIT, 2 * self._length)

    def reset(self) -> None:
        """End the wait, and begin with short ones again."""
        self._left, self._length = 0, 1


class GradientLimit:
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

    def record(self, now: float, *, sent_at: float, is_full: bool) -> None:
        """Record a good answer.

        Args:
            now: When it came, in seconds.
            sent_at: When its request left; a request that left under another limit says nothing about this one.
            is_full: Whether the limit was reached at some time since then. A window without that says nothing.
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
