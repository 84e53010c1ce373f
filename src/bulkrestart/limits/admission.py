"""Decides whether a request may leave, and learns from each answer. The time is an argument.

Law: after a pause, new requests obey the limits; requests sent before it are counted separately. No more than
`max_at_once` requests are ever in flight, of all flows and of each. None leaves while the throttle pauses all requests,
and one at a time while the circuit breaker is open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Literal

from bulkrestart.core.decide import hold_for
from bulkrestart.core.model import Stop
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.trouble import (
    gets_through,
    is_down,
    is_overload,
    is_rate_signal,
    is_trouble,
    may_lie_in_server,
    outage,
    sends_fail,
    too_long,
)
from bulkrestart.limits.concurrency import AimdLimit, GradientLimit, OverloadLimit
from bulkrestart.limits.pacing import (
    LONGEST_REQUESTED_PAUSE,
    OUTAGE,
    CircuitBreaker,
    FailingSends,
    PausableClock,
    RateLimiter,
    Throttle,
)
from bulkrestart.limits.permit import BasePermit, Flow

#: The weight of the latest good answer in the smoothed latency, as in RFC 6298, section 2.3.
_SMOOTHING: Final = 0.125


@dataclass(slots=True, eq=False)
class FailedSend:
    """A send that failed. Its server may be the cause, or an outage.

    Attributes:
        flow: The flow of the send.
        server_id: Its server.
        is_reported: Whether an outage is known to be the cause.
    """

    flow: Flow
    server_id: str
    is_reported: bool = False


class Admission:
    """Decides when requests may leave, and learns from their answers.

    Args:
        max_at_once: Requests in flight, at most.
        max_per_second: Requests a second, at most; None for no bound.
        adaptive: Whether the limit falls below `max_at_once` when the cloud is overloaded; "latency": also when more
            requests would only wait in the API's queue.

    Attributes:
        throttle: Pauses all requests after a throttled answer.
        breaker: Pauses all requests during an outage.
        in_flight: Requests in flight.
    """

    def __init__(
        self, max_at_once: int, max_per_second: float | None = None, adaptive: bool | Literal["latency"] = True
    ) -> None:
        self.throttle = Throttle()
        self.breaker = CircuitBreaker(self.throttle)
        self.in_flight = 0
        self._rate = None if max_per_second is None else RateLimiter(max_per_second)
        self._most = max_at_once
        self._limit = AimdLimit(max_at_once, is_adaptive=adaptive is not False)
        self._overload = None if adaptive is False else OverloadLimit(max_at_once)
        self._latency = GradientLimit(max_at_once) if adaptive == "latency" else None
        #: The smoothed time to a good answer, in seconds; None before the first.
        self._good_latency: float | None = None
        #: When the slots of quick overload answers become free (`_keep_slot`); a heap.
        self._kept: list[float] = []
        #: Requests that were in flight when the last pause began: those that leave after it do not wait for them.
        self._early = 0
        self._epoch = 0
        #: When the limit was last reached.
        self._full_at = float("-inf")
        self._words = ""
        #: When an answer such as 503 with Retry-After last paused all requests; `inf` before that.
        self._asked_at = float("inf")
        self._probe: BasePermit | None = None
        #: Sends that failed in the present row of failures, until it is known whether an outage is the cause.
        self._failed_in_row: list[FailedSend] = []
        self._failing = FailingSends()
        self._failing_words = ""
        self._failed_sends: list[FailedSend] = []
        self._send_clock, self._look_clock = PausableClock(), PausableClock()

    @property
    def free(self) -> int:
        """How many more requests may leave; below 0 if the limit fell below the number in flight."""
        limits = (self._limit, self._overload, self._latency)
        at_once = min(limit.at_once for limit in limits if limit is not None)
        return min(self._most, at_once + self._early) - self.in_flight - len(self._kept)

    @property
    def is_slot_kept(self) -> bool:
        """Whether the slot of a quick overload answer becomes free at a known time."""
        return bool(self._kept)

    def is_paused(self, now: float) -> bool:
        """Return whether all requests are paused."""
        return self.breaker.is_open or self.throttle.remaining(now) > 0.0

    def active_time(self, moment: float) -> float:
        """Read a clock that is paused while all requests are paused: no time-out counts that time."""
        return moment - self.throttle.paused_time(moment) - self.breaker.open_time(moment)

    def active_send_time(self, moment: float) -> float:
        """Read a clock that is also paused while the cloud refuses every send, or every look, of all servers.

        So no server runs out of time because of what the cloud does to all of them.
        """
        return self._look_clock.time(self._send_clock.time(self.active_time(moment)))

    def pause_cause(self, now: float) -> str:
        """Return the answer because of which all requests are paused; "" if they are not."""
        return self._words if self.is_paused(now) else ""

    def wait(self, flow: Flow, now: float) -> float:
        """Return the seconds until a request may leave; 0.0 if it may now, `inf` if another must end first."""
        while self._kept and self._kept[0] <= now:
            heappop(self._kept)
        wait = self.throttle.remaining(now)
        if self._rate is not None:
            wait = max(wait, self._rate.remaining(now))
        if self.breaker.is_open:
            wait = max(wait, self.breaker.remaining(now))
        if wait == 0.0 and not (self.free >= 1 and flow.has_room):
            return self._kept[0] - now if self._kept and flow.has_room else float("inf")
        return wait

    def admit(self, permit: BasePermit, now: float) -> None:
        """Let a request leave, for which `wait` is 0.0."""
        self.in_flight += 1
        permit.flow.in_flight += 1
        if self.free < 1:
            self._full_at = now
        permit.granted_at, permit.epoch, permit.is_probe = now, self._epoch, self.breaker.is_open
        if permit.is_probe:
            self.breaker.start_probe(now)
            self._probe = permit

    def record_sent(self, now: float) -> None:
        """Record that a request leaves, the first of its permit or a further one."""
        if self._rate is not None:
            self._rate.take(now)
        if self._overload is not None:
            is_reachable = self._limit.at_once >= self._overload.at_once
            self._overload.record_sent(now, in_flight=self.in_flight, is_reachable=is_reachable)

    def release(self, permit: BasePermit) -> None:
        """Record that a request is over."""
        permit.granted_at = None
        self.in_flight -= 1
        permit.flow.in_flight -= 1
        # A probe from before the breaker closed and opened again is not the present one.
        if permit is self._probe:
            self.breaker.cancel_probe()
            self._probe = None
        if permit.epoch != self._epoch:
            self._early -= 1

    def observe(
        self, seen: object, now: float, *, sent_at: float, server_id: str | None, sender: Flow | None = None
    ) -> Sequence[FailedSend]:
        """Learn from an answer.

        Args:
            seen: What came back, to whatever request.
            now: The time, in seconds.
            sent_at: When that request left.
            server_id: The server of the request; None if it was for none, or for many.
            sender: The flow of the request if it was a send; None if it was not.

        Returns:
            The failed sends, this one or earlier ones, of which an outage is known to be the cause as of now.
        """
        is_send = sender is not None
        is_local = isinstance(seen, Unsent) and seen.is_local
        if self._overload is not None:
            # Fewer requests at once also need fewer file descriptors and local ports.
            is_overloaded = is_local or (isinstance(seen, Observation) and is_overload(seen))
            self._overload.record(now, sent_at=sent_at, is_overload=is_overloaded)
            if is_overloaded and self._good_latency is not None:
                self._keep_slot(now, sent_at + self._good_latency)
        if is_local:
            # A limit of this machine says nothing about the cloud.
            self.breaker.postpone_probe(now, sent_at=sent_at)
            return ()
        caused: Sequence[FailedSend] = ()
        hold = hold_for(seen) if isinstance(seen, Observation) else None
        if isinstance(seen, Observation) and is_trouble(seen):
            failed = None
            if sender is not None and server_id is not None:
                failed = FailedSend(sender, server_id, is_reported=hold is not None)
            self._record_failure(seen, now, failed, sent_at=sent_at, server_id=server_id)
            caused = self._take_caused_by_outage()
        else:
            self._close(now, sent_at)
            if hold is None:
                self._record_success(now, sent_at=sent_at, is_send=is_send)
        if isinstance(seen, Observation) and hold is not None:
            self._pause_for(seen, now, hold.seconds, sent_at=sent_at)
        elif not isinstance(seen, Unsent | Unanswered):
            self.throttle.reset_backoff()
        self._pause_or_resume(seen, now, is_send=is_send)
        if is_send and isinstance(seen, Observation) and gets_through(seen):
            self.record_accepted()
        return caused

    def _keep_slot(self, now: float, free_at: float) -> None:
        """Keep the slot of an overload answer for as long as a good answer would have taken.

        An API at its limit may shed a request at once. If its slot were free then, the next request would be shed as
        well, and so on, until a good answer comes.
        """
        if free_at > now:
            heappush(self._kept, free_at)

    def _pause_for(self, seen: Observation, now: float, seconds: float | None, *, sent_at: float) -> None:
        """Pause all requests, unless the answer that asks to wait is about one server only.

        A rate limit is about all requests. A 503 with Retry-After may be about one server, whose host is in
        maintenance. So it pauses all requests once, and again only if no request that left after that pause began got a
        good answer. In any case the next request for that server waits.
        """
        if is_trouble(seen):
            if not self.breaker.is_open and self.breaker.last_good > self._asked_at:
                return
            self._asked_at = now
        self.pause(now, seconds, sent_at=sent_at, words=str(seen))
        if self.throttle.remaining(now) > 0.0:
            self._restart(now, sent_at=sent_at, is_rate_signal=is_rate_signal(seen))

    def _take_caused_by_outage(self) -> Sequence[FailedSend]:
        """Return each failed send once when an outage is known to be its cause."""
        caused: list[FailedSend] = []
        for failures, is_confirmed in (
            (self._failed_in_row, self.breaker.is_confirmed),
            (self._failed_sends, self._failing.is_confirmed),
        ):
            if failures and is_confirmed:
                caused += [failed for failed in failures if not failed.is_reported]
                for failed in failures:
                    failed.is_reported = True
                failures.clear()
        return caused

    def _pause_or_resume(self, seen: object, now: float, *, is_send: bool) -> None:
        if isinstance(seen, Answer) and seen.status == 401:
            return
        clock, time = self._send_clock, self.active_time(now)
        if not is_send:
            clock, time = self._look_clock, self._send_clock.time(time)
        if isinstance(seen, Observation) and (hold_for(seen) is not None or (is_send and self._failing.is_confirmed)):
            clock.pause(time)
        elif not isinstance(seen, Observation) or gets_through(seen):
            clock.resume(time)

    def record_accepted(self) -> None:
        """Record that the compute service takes sends: an answer shows it, or a later look at the server."""
        self._failing.record_success()
        self._failed_sends.clear()

    def pause(self, now: float, seconds: float | None, *, sent_at: float, words: str) -> None:
        """Pause all requests for at least so many seconds; None if the cloud named no time."""
        self.throttle.pause(now, seconds, sent_at=sent_at)
        self._words = words

    def verdict(self, flow: Flow, now: float) -> Stop | None:
        """Return why to stop if a flow would wait for too long; None if it may wait."""
        if (wait := self.throttle.remaining(now)) > LONGEST_REQUESTED_PAUSE:
            return too_long(wait, self._words)
        if now >= self.breaker.outage_ends(flow.began):
            return outage(now - max(flow.began, self.breaker.began), self._words)
        return None

    def sends_verdict(self, flow: Flow, now: float) -> Stop | None:
        """Return why to stop if the sends of a flow have failed for too long while other requests are answered.

        The time for which the cloud asked to wait does not count.
        """
        if not self._failing.is_confirmed:
            return None
        seconds = min(self._failing.lasts(self.active_time(now)), now - flow.began)
        return sends_fail(seconds, self._failing_words) if seconds >= OUTAGE else None

    def _record_failure(
        self,
        seen: Observation,
        now: float,
        failed: FailedSend | None,
        *,
        sent_at: float,
        server_id: str | None,
    ) -> None:
        if sent_at >= self.breaker.last_good:
            if failed is not None:
                self._failed_in_row.append(failed)
            cause = server_id if may_lie_in_server(seen) else None
            self.breaker.record_failure(now, sent_at=sent_at, server_id=cause)
            if self.breaker.is_open:
                self._words = str(seen)
        if failed is not None and is_down(seen):
            # After the circuit breaker, which may set the clock back to the first failure.
            self._failing.record_failure(self.active_time(now), failed.server_id)
            self._failing_words = str(seen)
            self._failed_sends.append(failed)

    def _close(self, now: float, sent_at: float) -> None:
        if self.breaker.is_open:
            self._restart(now, sent_at=sent_at, is_rate_signal=False)
            if self._overload is not None:
                # So many failures in a row exceed every share that the limit allows.
                self._overload.shrink(now)
        self.breaker.record_success(now, sent_at=sent_at)
        self._failed_in_row.clear()

    def _restart(self, now: float, *, sent_at: float, is_rate_signal: bool) -> None:
        self._limit.restart(now, sent_at=sent_at, is_rate_signal=is_rate_signal)
        if self._overload is not None:
            self._overload.restart(now)
        self._epoch += 1
        self._early = self.in_flight
        self._kept.clear()

    def _record_success(self, now: float, *, sent_at: float, is_send: bool) -> None:
        latency = now - sent_at
        if self._good_latency is None:
            self._good_latency = latency
        self._good_latency += _SMOOTHING * (latency - self._good_latency)
        is_full = self._full_at >= sent_at
        self._limit.grow(sent_at=sent_at, is_full=is_full)
        if self._latency is not None and is_send:
            self._latency.record(now, sent_at=sent_at, is_full=is_full)
