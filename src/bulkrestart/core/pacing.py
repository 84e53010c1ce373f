"""When everybody has to wait: for the rate, for the brake, at the closed door. The time comes in as an argument."""

from typing import Final

#: Seconds that the first throttled answer holds everybody if the cloud does not say how long; doubled at each more.
FIRST_HOLD: Final = 1.0
#: The most that an unsaid hold grows to; the providers' own tools wait so long (gophertelekomcloud: 60 s).
LONGEST_HOLD: Final = 60.0
#: The longest that a run waits because it was asked to, in seconds; if it is to be longer, the run stops. As long as a
#: run goes on without progress by default (`stall.STALL_TIMEOUT`).
LONGEST_SAID: Final = 1800.0

#: Seconds by which timers are late, and requests with them.
LATENESS: Final = 0.005

#: Troubles in a row that close the door, and places that they have to come from: nobody's, or different servers.
TROUBLES: Final = 5
PLACES: Final = 3
#: Seconds from the closing to the first probe, doubled at each that fails, up to the last.
FIRST_PROBE: Final = 1.0
LAST_PROBE: Final = 15.0
#: Seconds of trouble after which a run is stopped.
OUTAGE: Final = 300.0
#: More than it takes to the last interval; a float overflows at 1024.
_MOST_DOUBLINGS: Final = 10


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


class Pace:
    """A rate that is kept from one request to the next: who has sent nothing for long has saved nothing up.

    Law: in any span there are no more requests than the rate allows for it and `LATENESS`, and one; unless some had to
    leave together (`take` does not wait), for which those after them wait.

    Args:
        per_second: Requests a second, at most.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._next = float("-inf")

    def remaining(self, now: float) -> float:
        """Seconds to wait from now; 0.0 if a request may leave."""
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """Note that a request leaves."""
        # Timers are late by so little; without that allowance their lateness would add up.
        is_due = now - self._next <= LATENESS
        self._next = (self._next if is_due else now) + self._interval


class Door:
    """Closed while the cloud itself is in trouble: everybody waits, and one at a time asks whether that has passed.

    It closes after so much trouble in a row that no single server can be to blame for it: any good answer, to whatever
    request, opens it, and the count begins anew. Trouble that may lie in one server has to come from several.

    Args:
        brake: Holds everybody as well. What it does while the door is closed is not counted twice.

    Attributes:
        is_closed: Everybody waits.
        began: When the trouble began that closed it, or may yet close it; `inf` without any.
        last_good: When the latest request with a good answer left. An earlier request that fails says nothing about
            the cloud as it is now: requests for a few servers that do not answer stay in flight for a minute, and then
            fail in a row, after all others.
    """

    def __init__(self, brake: Brake) -> None:
        self._brake = brake
        self.last_good = float("-inf")
        self.began = float("inf")
        self._brake_held = 0.0
        self._held = 0.0
        self._troubles = 0
        self._places: set[str] = set()
        self._probe_at = float("inf")
        self._probing_since: float | None = None
        self._failed = 0
        self.is_closed = False

    @property
    def is_confirmed(self) -> bool:
        """A probe has failed: it is the cloud's trouble, and none of the servers'."""
        return self._failed > 0

    def trouble(self, now: float, *, sent_at: float, server_id: str | None) -> None:
        """Note that a request came to nothing in a way that says nothing of it.

        Args:
            now: The time, in seconds.
            sent_at: When it left.
            server_id: The server that may be to blame; None if none can be.
        """
        if not self._troubles:
            self.began, self._brake_held = now, self._brake.held(now)
        self._troubles += 1
        # A trouble of nobody's is a place of its own.
        self._places.add(f"#{self._troubles}" if server_id is None else server_id)
        if self._probing_since is not None and sent_at >= self._probing_since:
            self._failed += 1
            self._probing_since = None
            self._probe_at = now + min(FIRST_PROBE * 2.0 ** min(self._failed, _MOST_DOUBLINGS), LAST_PROBE)
        elif not self.is_closed and self._troubles >= TROUBLES and len(self._places) >= PLACES:
            self.is_closed = True
            self._probe_at = now + FIRST_PROBE

    def recover(self, now: float, *, sent_at: float) -> None:
        """Record a good answer to a request that left at `sent_at`."""
        self.last_good = max(self.last_good, sent_at)
        if self._troubles:
            self._held = self.held(now)
            self.is_closed = False
            self._troubles = self._failed = 0
            self._places.clear()
            self.began = self._probe_at = float("inf")
            self._probing_since = None

    def remaining(self, now: float) -> float:
        """Seconds until a probe may leave; `inf` while one is out."""
        return float("inf") if self._probing_since is not None else max(0.0, self._probe_at - now)

    def probe(self, now: float) -> None:
        """Note that a probe leaves."""
        self._probing_since = now

    def lose_probe(self) -> None:
        """Note that a probe ends without an answer: it was cancelled. Another may leave."""
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
        """Tell when a run that began at some time has waited for long enough; `inf` while the door is open."""
        return max(self.began, began) + OUTAGE if self.is_closed else float("inf")

    def held(self, now: float) -> float:
        """Seconds closed altogether, each time from the first trouble on, and without those of the brake."""
        if not self.is_closed:
            return self._held
        return self._held + max(0.0, now - self.began - (self._brake.held(now) - self._brake_held))


class PausableClock:
    """A clock that is paused from a request that the cloud refused, as it would any other, to the next that succeeds.

    Its arguments are times of another clock, which may be paused at times too.
    """

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
            self._lost += now - self._since
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
        self._places: set[str] = set()
        self._has_succeeded = False

    @property
    def is_confirmed(self) -> bool:
        """Whether the cloud is the cause, and not a server."""
        return self._count >= TROUBLES and (len(self._places) >= PLACES or not self._has_succeeded)

    def record_failure(self, now: float, server_id: str) -> None:
        """Record a send that failed in this way."""
        self._began = min(self._began, now)
        self._count += 1
        self._places.add(server_id)

    def record_success(self) -> None:
        """Record a send that the compute service has answered, or a server that was accepted."""
        self._has_succeeded = True
        self._began = float("inf")
        self._count = 0
        self._places.clear()

    def lasts(self, now: float) -> float:
        """Return the seconds since the first of them."""
        return now - self._began
