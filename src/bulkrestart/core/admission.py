"""Whether a request may leave, and what each answer means for those after it. The time comes in as an argument.

Law: of those that leave after a hold no more are in flight than the limits allow, and never more than the most, of all
and of each party; nobody leaves while the brake holds; behind a closed door there is one at a time.
"""

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Literal

from bulkrestart.core.decide import hold_for
from bulkrestart.core.limit import LatencyLimit, Limit, OverloadLimit
from bulkrestart.core.model import Stop
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.pacing import LONGEST_SAID, OUTAGE, Brake, Door, FailingSends, Pace, PausableClock
from bulkrestart.core.progress import Progress
from bulkrestart.core.trouble import (
    gets_through,
    is_down,
    is_overload,
    is_postponed,
    is_rate_signal,
    is_trouble,
    may_lie_in_server,
    outage,
    sends_fail,
    too_long,
)

#: The weight of the latest good answer in the smoothed latency, as in RFC 6298, section 2.3.
_SMOOTHING: Final = 0.125


class Party:
    """One run, or one listing, among those that share a client.

    Args:
        most: Its own bound on requests at once; None for none.
        began: When it began.

    Attributes:
        in_flight: Its requests that have a slot.
    """

    def __init__(self, most: int | None, began: float) -> None:
        self._most = float("inf") if most is None else most
        self.began = began
        self.in_flight = 0

    @property
    def has_room(self) -> bool:
        """Its own bound allows for one more."""
        return self.in_flight < self._most


@dataclass(slots=True, eq=False)
class Slot:
    """What a request has from when it may leave until it is done.

    Attributes:
        party: Whose request it is.
        left_at: When it could leave.
        epoch: How many holds and closings there were before that.
        is_probe: It left through a closed door.
    """

    party: Party
    left_at: float
    epoch: int
    is_probe: bool


@dataclass(slots=True, eq=False)
class _RefundableAttempt:
    """A send that counts as an attempt of its server until the cloud is known to be the cause of its failure."""

    progress: Progress
    is_refunded: bool = False

    def refund(self) -> None:
        """Take the attempt back, once."""
        if not self.is_refunded:
            self.is_refunded = True
            self.progress.sends.forgive()


class Admission:
    """Lets requests leave, and learns from what comes back.

    Args:
        max_at_once: Requests in flight, at most.
        max_per_second: Requests a second, at most; None for no bound.
        adaptive: Whether the limit falls below `max_at_once` when the cloud is overloaded; "latency": also when more
            requests would only wait in the API's queue.

    Attributes:
        brake: Holds everybody who is asked to wait.
        door: Closed while the cloud is in trouble.
        in_flight: Requests that have a slot.
    """

    def __init__(
        self, max_at_once: int, max_per_second: float | None = None, adaptive: bool | Literal["latency"] = True
    ) -> None:
        self.brake = Brake()
        self.door = Door(self.brake)
        self.in_flight = 0
        self._pace = None if max_per_second is None else Pace(max_per_second)
        self._most = max_at_once
        self._limit = Limit(max_at_once, is_adaptive=adaptive is not False)
        self._overload = None if adaptive is False else OverloadLimit(max_at_once)
        self._latency = LatencyLimit(max_at_once) if adaptive == "latency" else None
        #: The smoothed time to a good answer, in seconds; None before the first.
        self._good_latency: float | None = None
        #: When the slots of quick overload answers become free (`_keep_slot`); a heap.
        self._kept: list[float] = []
        #: Requests that were in flight when the last hold began: those that leave after it do not wait for them.
        self._early = 0
        self._epoch = 0
        #: When last as many were in flight as may be.
        self._full_at = float("-inf")
        self._words = ""
        #: When an answer such as 503 with Retry-After last paused all requests; `inf` before that.
        self._asked_at = float("inf")
        self._probe: Slot | None = None
        #: Sends that came to nothing while it is open whose trouble that is.
        self._in_trouble: list[_RefundableAttempt] = []
        self._failing = FailingSends()
        self._failing_words = ""
        self._failed_sends: list[_RefundableAttempt] = []
        self._send_clock, self._look_clock = PausableClock(), PausableClock()

    @property
    def free(self) -> int:
        """Slots that may be taken; below 0 where the limit fell below what is in flight."""
        limits = (self._limit, self._overload, self._latency)
        at_once = min(limit.at_once for limit in limits if limit is not None)
        return min(self._most, at_once + self._early) - self.in_flight - len(self._kept)

    @property
    def is_slot_kept(self) -> bool:
        """Whether the slot of a quick overload answer becomes free at a known time."""
        return bool(self._kept)

    def is_held(self, now: float) -> bool:
        """Tell whether nothing may leave, slot or no slot."""
        return self.door.is_closed or self.brake.remaining(now) > 0.0

    def patience(self, moment: float) -> float:
        """Read at a moment a clock that stands still while everybody is held: that time counts against nobody."""
        return moment - self.brake.held(moment) - self.door.held(moment)

    def send_patience(self, moment: float) -> float:
        """Read a clock that is also paused while the cloud refuses every send, or every look, of all servers.

        So no server runs out of time because of what the cloud does to all of them.
        """
        return self._look_clock.time(self._send_clock.time(self.patience(moment)))

    def holding(self, now: float) -> str:
        """Return the answer because of which all requests are paused; "" if they are not."""
        return self._words if self.is_held(now) else ""

    def wait(self, party: Party, now: float) -> float:
        """Tell how long to wait with a request; `inf` until somebody is done, 0.0 if it may leave."""
        while self._kept and self._kept[0] <= now:
            heappop(self._kept)
        wait = self.brake.remaining(now)
        if self._pace is not None:
            wait = max(wait, self._pace.remaining(now))
        if self.door.is_closed:
            wait = max(wait, self.door.remaining(now))
        if wait == 0.0 and not (self.free >= 1 and party.has_room):
            return self._kept[0] - now if self._kept and party.has_room else float("inf")
        return wait

    def admit(self, party: Party, now: float) -> Slot:
        """Let a request leave that need not wait."""
        self.in_flight += 1
        party.in_flight += 1
        if self.free < 1:
            self._full_at = now
        if self._overload is not None:
            is_reachable = self._limit.at_once >= self._overload.at_once
            self._overload.record_sent(now, in_flight=self.in_flight, is_reachable=is_reachable)
        self.count_one_more(now)
        slot = Slot(party, now, self._epoch, self.door.is_closed)
        if slot.is_probe:
            self.door.probe(now)
            self._probe = slot
        return slot

    def count_one_more(self, now: float) -> None:
        """Note that a request leaves, in the slot of another maybe."""
        if self._pace is not None:
            self._pace.take(now)

    def release(self, slot: Slot) -> None:
        """Take a slot back."""
        self.in_flight -= 1
        slot.party.in_flight -= 1
        # One that left before the door opened, and closed anew, is the probe no more.
        if slot is self._probe:
            self.door.lose_probe()
            self._probe = None
        if slot.epoch != self._epoch:
            self._early -= 1

    def observe(
        self, seen: object, now: float, *, sent_at: float, server_id: str | None, progress: Progress | None = None
    ) -> None:
        """Learn from what came back.

        Args:
            seen: What came back, to whatever request.
            now: The time, in seconds.
            sent_at: When that request left.
            server_id: The server that it was about; None if it was about none, or about many.
            progress: The way of the server, if it was a send.
        """
        is_local = isinstance(seen, Unsent) and seen.is_local
        if self._overload is not None:
            # Fewer requests at once also need fewer file descriptors and local ports.
            is_overloaded = is_local or (isinstance(seen, Observation) and is_overload(seen))
            self._overload.record(now, sent_at=sent_at, is_overload=is_overloaded)
            if is_overloaded and self._good_latency is not None:
                self._keep_slot(now, sent_at + self._good_latency)
        if is_local:
            # A limit of this machine says nothing about the cloud.
            self.door.postpone_probe(now, sent_at=sent_at)
            return
        hold = hold_for(seen) if isinstance(seen, Observation) else None
        if isinstance(seen, Observation) and is_trouble(seen):
            attempt = None if progress is None or hold is not None else _RefundableAttempt(progress)
            self._note_trouble(seen, now, attempt, sent_at=sent_at, server_id=server_id)
            if server_id is not None and progress is not None and is_down(seen):
                self._note_failing_send(seen, now, server_id, attempt)
        else:
            self._open(now, sent_at)
            if hold is None:
                self._note_good(now, sent_at=sent_at, is_send=progress is not None)
        if isinstance(seen, Observation) and hold is not None:
            self._pause(seen, now, hold.seconds, sent_at=sent_at)
            if progress is not None and is_postponed(seen):
                progress.sends.forgive()
        elif not isinstance(seen, Unsent | Unanswered):
            self.brake.release()
        self._pause_or_resume(seen, now, is_send=progress is not None)
        if progress is not None and isinstance(seen, Observation) and gets_through(seen):
            self.note_accepted()

    def _keep_slot(self, now: float, free_at: float) -> None:
        """Keep the slot of an overload answer for as long as a good answer would have taken.

        An API at its limit may shed a request at once. If its slot were free then, the next request would be shed as
        well, and so on, until a good answer comes.
        """
        if free_at > now:
            heappush(self._kept, free_at)

    def _pause(self, seen: Observation, now: float, seconds: float | None, *, sent_at: float) -> None:
        """Pause all requests, unless the answer that asks to wait is about one server only.

        A rate limit is about all requests. A 503 with Retry-After may be about one server, whose host is in
        maintenance. So it pauses all requests once, and again only if no request that left after that pause began got a
        good answer. In any case the next request for that server waits.
        """
        if is_trouble(seen):
            if not self.door.is_closed and self.door.last_good > self._asked_at:
                return
            self._asked_at = now
        self.hold(now, seconds, sent_at=sent_at, words=str(seen))
        if self.brake.remaining(now) > 0.0:
            self._restart(now, sent_at=sent_at, is_rate_signal=is_rate_signal(seen))

    def _note_failing_send(
        self, seen: Observation, now: float, server_id: str, attempt: _RefundableAttempt | None
    ) -> None:
        self._failing.record_failure(self.patience(now), server_id)
        self._failing_words = str(seen)
        if attempt is not None:
            self._failed_sends.append(attempt)
        if self._failing.is_confirmed:
            for failed in self._failed_sends:
                failed.refund()
            self._failed_sends.clear()

    def _pause_or_resume(self, seen: object, now: float, *, is_send: bool) -> None:
        if isinstance(seen, Answer) and seen.status == 401:
            return
        clock, time = self._send_clock, self.patience(now)
        if not is_send:
            clock, time = self._look_clock, self._send_clock.time(time)
        if isinstance(seen, Observation) and (hold_for(seen) is not None or (is_send and self._failing.is_confirmed)):
            clock.pause(time)
        elif not isinstance(seen, Observation) or gets_through(seen):
            clock.resume(time)

    def note_accepted(self) -> None:
        """Record that the compute service takes sends: an answer shows it, or a later look at the server."""
        self._failing.record_success()
        self._failed_sends.clear()

    def hold(self, now: float, seconds: float | None, *, sent_at: float, words: str) -> None:
        """Hold everybody, for no less than so many seconds; None if the cloud did not say."""
        self.brake.hold(now, seconds, sent_at=sent_at)
        self._words = words

    def verdict(self, party: Party, now: float) -> Stop | None:
        """Tell whether a party waits for too long; None if it may wait on."""
        if (wait := self.brake.remaining(now)) > LONGEST_SAID:
            return too_long(wait, self._words)
        if now >= self.door.outage_ends(party.began):
            return outage(now - max(party.began, self.door.began), self._words)
        return None

    def sends_verdict(self, party: Party, now: float) -> Stop | None:
        """Return why to stop if the sends of a party have failed for too long while other requests are answered.

        The time for which the cloud asked to wait does not count.
        """
        if not self._failing.is_confirmed:
            return None
        seconds = min(self._failing.lasts(self.patience(now)), now - party.began)
        return sends_fail(seconds, self._failing_words) if seconds >= OUTAGE else None

    def _note_trouble(
        self,
        seen: Observation,
        now: float,
        attempt: _RefundableAttempt | None,
        *,
        sent_at: float,
        server_id: str | None,
    ) -> None:
        if sent_at < self.door.last_good:
            return
        if attempt is not None:
            self._in_trouble.append(attempt)
        self.door.trouble(now, sent_at=sent_at, server_id=server_id if may_lie_in_server(seen) else None)
        if self.door.is_closed:
            self._words = str(seen)
        if self.door.is_confirmed:
            for trouble in self._in_trouble:
                trouble.refund()
            self._in_trouble.clear()

    def _open(self, now: float, sent_at: float) -> None:
        if self.door.is_closed:
            self._restart(now, sent_at=sent_at, is_rate_signal=False)
            if self._overload is not None:
                # So many failures in a row exceed every share that the limit allows.
                self._overload.shrink(now)
        self.door.recover(now, sent_at=sent_at)
        self._in_trouble.clear()

    def _restart(self, now: float, *, sent_at: float, is_rate_signal: bool) -> None:
        self._limit.restart(now, sent_at=sent_at, is_rate_signal=is_rate_signal)
        if self._overload is not None:
            self._overload.restart(now)
        self._epoch += 1
        self._early = self.in_flight
        self._kept.clear()

    def _note_good(self, now: float, *, sent_at: float, is_send: bool) -> None:
        latency = now - sent_at
        if self._good_latency is None:
            self._good_latency = latency
        self._good_latency += _SMOOTHING * (latency - self._good_latency)
        is_full = self._full_at >= sent_at
        self._limit.grow(sent_at=sent_at, is_full=is_full)
        if self._latency is not None and is_send:
            self._latency.note(now, sent_at=sent_at, is_full=is_full)
