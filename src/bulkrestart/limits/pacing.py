"""When all requests are paused: the throttle, the rate limiter and the circuit breaker. The time is an argument."""

from typing import Final

#: Seconds of the first pause after a throttled answer that names no time; doubled at each further one.
FIRST_PAUSE: Final = 1.0
#: The longest pause of that kind; the providers' own tools wait so long (gophertelekomcloud: 60 s).
LONGEST_PAUSE: Final = 60.0
#: The longest pause, in seconds, that a run waits for because the cloud asked for it. After a longer one it stops. As
#: long as a run goes on without progress by default (`stall.STALL_TIMEOUT`).
LONGEST_REQUESTED_PAUSE: Final = 1800.0

#: Seconds by which timers are late, and requests with them.
LATENESS: Final = 0.005

#: Failures in a row that open the circuit breaker, and how many sources they must have. A server is one source; a
#: failure for which no server can be the cause is a source of its own.
FAILURES: Final = 5
SOURCES: Final = 3
#: Seconds until the first probe, doubled after each probe that fails, and their upper bound.
FIRST_PROBE: Final = 1.0
LAST_PROBE: Final = 15.0
#: Seconds of an outage after which a run stops.
OUTAGE: Final = 300.0
#: More doublings than it takes to reach the upper bound; a float overflows at 1024.
_MOST_DOUBLINGS: Final = 10


class Throttle:
    """Pauses all requests after a throttled answer, for no less than the cloud asked.

    Many answers to requests that were in flight together count as one: only an answer to a request that left after
    the last pause began makes the next pause longer.
    """

    def __init__(self) -> None:
        self._began = float("-inf")
        self._until = float("-inf")
        self._paused = 0.0
        self._doublings = 0

    def pause(self, now: float, seconds: float | None, *, sent_at: float) -> None:
        """Pause all requests from now on.

        Args:
            now: The time, in seconds.
            seconds: What the cloud asked for; None if it named no time.
            sent_at: When the request left that was throttled.
        """
        if seconds is None:
            if sent_at <= self._began:
                return
            seconds = FIRST_PAUSE * 2.0**self._doublings
            if seconds >= LONGEST_PAUSE:
                seconds = LONGEST_PAUSE
            else:
                self._doublings += 1
        if now >= self._until:
            self._paused += self._until - self._began if self._until > self._began else 0.0
            self._began = now
            self._until = now
        self._until = max(self._until, now + seconds)

    def reset_backoff(self) -> None:
        """Record that a request got through: the next pause without a named time is a first one again."""
        self._doublings = 0

    def remaining(self, now: float) -> float:
        """Return the seconds until requests may leave; 0.0 if they may."""
        return max(0.0, self._until - now)

    def paused_time(self, now: float) -> float:
        """Return the seconds of all pauses together."""
        if self._until == float("-inf"):
            return 0.0
        return self._paused + max(0.0, min(now, self._until) - self._began)


class RateLimiter:
    """Limits the requests per second, without bursts: an idle time makes no room for more requests (GCRA, burst 1).

    Law: in any span there are no more requests than the rate allows for it and `LATENESS`, and one; unless some had to
    leave together (`take` does not wait), for which those after them wait.

    Args:
        per_second: Requests a second, at most.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._next = float("-inf")

    def remaining(self, now: float) -> float:
        """Return the seconds until a request may leave; 0.0 if one may."""
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """Record that a request leaves."""
        # Timers are late by so little; without that allowance their lateness would add up.
        is_due = now - self._next <= LATENESS
        self._next = (self._next if is_due else now) + self._interval


class CircuitBreaker:
    """Pauses all requests during an outage, except one probe at a time.

    It opens after so many failures in a row that no single server can be their cause. A good answer to any request
    closes it, and ends the row. If a server may be the cause of the failures, they have to come from several servers.

    Args:
        throttle: Pauses all requests as well. Time in which both do is counted once.

    Attributes:
        is_open: Whether all requests but probes are paused.
        began: When the first failure of the present row came; `inf` if there is none.
        last_good: When the latest request with a good answer left. An earlier request that fails says nothing about
            the cloud as it is now: requests for a few servers that do not answer stay in flight for a minute, and then
            fail in a row, after all others.
    """

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        self.is_open = False
        self.last_good = float("-inf")
        self.began = float("inf")
        self._throttled_before = 0.0
        self._open_time = 0.0
        self._failures = 0
        self._sources: set[str] = set()
        self._probe_at = float("inf")
        self._probing_since: float | None = None
        self._failed_probes = 0

    @property
    def is_confirmed(self) -> bool:
        """Whether a probe has failed: the cloud is the cause of the failures, and no server is."""
        return self._failed_probes > 0

    def record_failure(self, now: float, *, sent_at: float, server_id: str | None) -> None:
        """Record a failed request whose effect is unknown.

        Args:
            now: The time, in seconds.
            sent_at: When it left.
            server_id: The server that may be the cause; None if none can be.
        """
        if not self._failures:
            self.began, self._throttled_before = now, self._throttle.paused_time(now)
        self._failures += 1
        # A failure that belongs to no server counts as a separate source.
        self._sources.add(f"#{self._failures}" if server_id is None else server_id)
        if self._probing_since is not None and sent_at >= self._probing_since:
            self._failed_probes += 1
            self._probing_since = None
            self._probe_at = now + min(FIRST_PROBE * 2.0 ** min(self._failed_probes, _MOST_DOUBLINGS), LAST_PROBE)
        elif not self.is_open and self._failures >= FAILURES and len(self._sources) >= SOURCES:
            self.is_open = True
            self._probe_at = now + FIRST_PROBE

    def record_success(self, now: float, *, sent_at: float) -> None:
        """Record a good answer to a request that left at `sent_at`."""
        self.last_good = max(self.last_good, sent_at)
        if self._failures:
            self._open_time = self.open_time(now)
            self.is_open = False
            self._failures = self._failed_probes = 0
            self._sources.clear()
            self.began = self._probe_at = float("inf")
            self._probing_since = None

    def remaining(self, now: float) -> float:
        """Return the seconds until a probe may leave; `inf` while one is in flight."""
        return float("inf") if self._probing_since is not None else max(0.0, self._probe_at - now)

    def start_probe(self, now: float) -> None:
        """Record that a probe leaves."""
        self._probing_since = now

    def cancel_probe(self) -> None:
        """Record that a probe ended without an answer, because it was cancelled. Another one may leave."""
        self._probing_since = None

    def postpone_probe(self, now: float, *, sent_at: float) -> None:
        """Record a request that says nothing about the cloud: if it was the probe, another follows.

        Args:
            now: The time, in seconds.
            sent_at: When the request left.
        """
        if self._probing_since is not None and sent_at >= self._probing_since:
            self._probing_since = None
            self._probe_at = now + FIRST_PROBE

    def outage_ends(self, began: float) -> float:
        """Return when a run that began at `began` must stop; `inf` while the breaker is closed."""
        return max(self.began, began) + OUTAGE if self.is_open else float("inf")

    def open_time(self, now: float) -> float:
        """Return the seconds of all outages, each from its first failure on, without the pauses of the throttle."""
        if not self.is_open:
            return self._open_time
        throttled = self._throttle.paused_time(now) - self._throttled_before
        return self._open_time + max(0.0, now - self.began - throttled)


class PausableClock:
    """A clock that can be paused. Its arguments are times of another clock, which may be paused at times too."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._lost = 0.0

    def pause(self, now: float) -> None:
        """Pause the clock, if it is not paused."""
        if self._since is None:
            self._since = now

    def resume(self, now: float) -> None:
        """Let the clock go on, if it is paused."""
        if self._since is not None:
            self._lost += max(0.0, now - self._since)
            self._since = None

    def time(self, moment: float) -> float:
        """Return what the clock shows at a moment."""
        return (moment if self._since is None else min(moment, self._since)) - self._lost


class FailingSends:
    """Consecutive sends that a gateway answered without a compute service behind it. Other requests may succeed.

    The cloud is the cause if the sends of several servers failed, or if no send has ever succeeded.
    """

    def __init__(self) -> None:
        self._began = float("inf")
        self._count = 0
        self._servers: set[str] = set()
        self._has_succeeded = False

    @property
    def is_confirmed(self) -> bool:
        """Whether the cloud is the cause, and not a server."""
        return self._count >= FAILURES and (len(self._servers) >= SOURCES or not self._has_succeeded)

    def record_failure(self, now: float, server_id: str) -> None:
        """Record a send that failed in this way."""
        self._began = min(self._began, now)
        self._count += 1
        self._servers.add(server_id)

    def record_success(self) -> None:
        """Record a send that the compute service has answered, or a server that was accepted."""
        self._has_succeeded = True
        self._began = float("inf")
        self._count = 0
        self._servers.clear()

    def lasts(self, now: float) -> float:
        """Return the seconds since the first of them."""
        return now - self._began
