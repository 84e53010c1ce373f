"""What all requests of a client share: slots, rate, brake and door; and the queues of those that wait for them."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from itertools import count, islice
from typing import Final, Literal

import anyio

from bulkrestart.core.decide import hold_for
from bulkrestart.core.limit import LatencyLimit, Limit
from bulkrestart.core.model import Stop
from bulkrestart.core.observation import Observation, Unanswered, Unsent
from bulkrestart.core.pacing import LONGEST_SAID, Brake, Door, Pace
from bulkrestart.core.progress import Progress
from bulkrestart.core.trouble import is_overcharge, is_trouble, may_lie_in_server, outage, too_long
from bulkrestart.run.course import Course

_log = logging.getLogger(__name__)

_INFINITY: Final = float("inf")


class Rank(IntEnum):
    """Who goes first of those that wait."""

    #: Polls and looks: what was sent is to be known before more is.
    LOOK = 0
    SEND = 1


class Claim:
    """One request's claim to a slot: from when it asks for one until it gives that back.

    Args:
        party: The run or listing that it is made for.
        rank: Who goes first.
        end: Ends the wait when it is set: there is no slot then, and nothing is to leave.
        probe: Asks how the cloud is, where the request itself is not to be tried on a closed door; None if it may be.

    Attributes:
        has_slot: The request may leave now.
        left_at: When it could.
    """

    __slots__ = ("end", "epoch", "has_slot", "is_probe", "left_at", "number", "party", "probe", "rank", "woken")

    def __init__(
        self, party: "Party", rank: Rank, end: anyio.Event, probe: Callable[[], Awaitable[object]] | None
    ) -> None:
        self.party = party
        self.rank = rank
        self.end = end
        self.probe = probe
        self.has_slot = False
        self.left_at = 0.0
        self.is_probe = False
        self.number = 0
        self.epoch = 0
        self.woken: anyio.Event | None = None

    def wake(self) -> bool:
        """Have it look whether it may go; False if it is about to."""
        assert self.woken is not None, "only who waits is woken"
        if self.woken.is_set():
            return False
        self.woken.set()
        return True


class Party:
    """One run, or one listing, among those that share a client.

    Args:
        course: Ends the waits.
        most: The run's own bound on requests at once; None for none.
        began: When it began.

    Attributes:
        in_flight: Requests that have a slot.
        waiting: The claims that wait, by rank, each in the order in which they came.
    """

    def __init__(self, course: Course, most: int | None, began: float) -> None:
        self.course = course
        self._most = _INFINITY if most is None else most
        self.began = began
        self.in_flight = 0
        self.waiting: tuple[deque[Claim], deque[Claim]] = (deque(), deque())
        course.tell(self.wake)

    @property
    def has_room(self) -> bool:
        """The run's own bound allows for one more."""
        return self.in_flight < self._most

    def wake(self) -> None:
        """Wake all that wait."""
        for waiting in self.waiting:
            for claim in waiting:
                claim.wake()


class Traffic:
    """Lets requests leave, and learns from what comes back.

    Args:
        max_at_once: Requests in flight, at most.
        max_per_second: Requests a second, at most; None for no bound.
        adaptive: Whether fewer than `max_at_once` are in flight where the cloud is overcharged; "latency": also where
            more would only wait.
    """

    def __init__(
        self, max_at_once: int, max_per_second: float | None = None, adaptive: bool | Literal["latency"] = True
    ) -> None:
        self.brake = Brake()
        self._door = Door(self.brake)
        self._pace = None if max_per_second is None else Pace(max_per_second)
        self._limit = Limit(max_at_once, is_adaptive=adaptive is not False)
        self._latency = LatencyLimit(max_at_once) if adaptive == "latency" else None
        self._most = max_at_once
        self._limiter = anyio.CapacityLimiter(max_at_once)
        #: Requests that were in flight when the last hold began: those that leave after it do not wait for them.
        self._early = 0
        self._epoch = 0
        #: When last as many were in flight as may be.
        self._full_at = float("-inf")
        self._numbers = count()
        self._parties: list[Party] = []
        self._words = ""
        #: Sends that came to nothing while it is open whose trouble that is.
        self._blamed: list[Progress] = []
        self._apply()

    @property
    def is_held(self) -> bool:
        """Nothing may leave at this moment, slot or no slot."""
        return self._door.is_closed or self.brake.remaining(anyio.current_time()) > 0.0

    @property
    def is_door_closed(self) -> bool:
        """The cloud is in trouble, by all that is known."""
        return self._door.is_closed

    def patience(self, moment: float) -> float:
        """Read at a moment a clock that stands still while everybody is held: that time counts against nobody."""
        return moment - self.brake.held(moment) - self._door.held(moment)

    async def take(self, claim: Claim) -> None:
        """Wait for a slot at a moment at which nobody is asked to wait; nothing awaits between that and the return.

        Without a slot it returns when, and only when, the claim's `end` is set.
        """
        # Whoever makes a request gives way to others then.
        await anyio.lowlevel.checkpoint()
        now = anyio.current_time()
        if not self._parties and not self._door.is_closed and self._wait(claim, now) == 0.0:
            self._go(claim, now)
            return
        queue = self._join(claim)
        try:
            while not claim.end.is_set():
                wait = _INFINITY
                if self._first() is claim:
                    now = anyio.current_time()
                    self._judge(now)
                    if claim.end.is_set():
                        break
                    wait = self._wait(claim, now)
                    if wait == 0.0:
                        self._go(claim, now)
                        if not claim.is_probe or claim.probe is None:
                            return
                        await self._ask_probe(claim, claim.probe)
                        if self._door.is_closed:
                            # It may be this one server that is in trouble: another asks next.
                            claim.number = next(self._numbers)
                            queue.rotate(-1)
                            self._wake_first()
                        continue
                    wait = min(wait, self._until_outage(now))
                claim.woken = anyio.Event()
                if wait == _INFINITY:
                    await claim.woken.wait()
                else:
                    with anyio.move_on_after(wait):
                        await claim.woken.wait()
        finally:
            self._quit(claim, queue)

    def _join(self, claim: Claim) -> deque[Claim]:
        claim.number = next(self._numbers)
        claim.woken = anyio.Event()
        queue = claim.party.waiting[claim.rank]
        queue.append(claim)
        if claim.party not in self._parties:
            self._parties.append(claim.party)
        return queue

    def _quit(self, claim: Claim, queue: deque[Claim]) -> None:
        if queue[0] is claim:
            queue.popleft()
        else:
            queue.remove(claim)
        if not any(claim.party.waiting):
            self._parties.remove(claim.party)
        self._wake_first()

    def _first(self) -> Claim | None:
        """Find who goes next: a look before a send, and who came first of those whose run has room for one more."""
        parties = [party for party in self._parties if party.has_room]
        for rank in Rank:
            heads = [party.waiting[rank][0] for party in parties if party.waiting[rank]]
            if heads:
                return min(heads, key=lambda claim: claim.number)
        return None

    def _wake_first(self) -> None:
        """Have the first of the queues look whether it may go; without a slot, whoever gives one back does that.

        If it is about to look already, so may the one after it: slots that come free together are taken together.
        """
        free = int(self._limiter.available_tokens)
        first = self._first() if self._parties and free >= 1 else None
        if first is None or first.wake():
            return
        for rank in Rank:
            for party in self._parties:
                if any(claim.wake() for claim in islice(party.waiting[rank], free)):
                    return

    def _wait(self, claim: Claim, now: float) -> float:
        """Tell how long to wait; `inf` until somebody is done."""
        wait = self.brake.remaining(now)
        if self._pace is not None:
            wait = max(wait, self._pace.remaining(now))
        if self._door.is_closed:
            wait = max(wait, self._door.remaining(now))
        if wait == 0.0 and not (self._limiter.available_tokens >= 1 and claim.party.has_room):
            return _INFINITY
        return wait

    def _go(self, claim: Claim, now: float) -> None:
        self._limiter.acquire_nowait()
        claim.party.in_flight += 1
        if self._limiter.available_tokens < 1:
            self._full_at = now
        claim.has_slot = True
        claim.left_at = now
        claim.epoch = self._epoch
        if self._pace is not None:
            self._pace.take(now)
        if self._door.is_closed:
            claim.is_probe = True
            self._door.probe(now)

    def leave(self, claim: Claim) -> None:
        """Give the slot back."""
        if not claim.has_slot:
            return
        claim.has_slot = False
        if claim.is_probe:
            claim.is_probe = False
            self._door.lose_probe()
        self._limiter.release()
        claim.party.in_flight -= 1
        if self._early and claim.epoch != self._epoch:
            self._early -= 1
            self._apply()
        self._wake_first()

    async def _ask_probe(self, claim: Claim, probe: Callable[[], Awaitable[object]]) -> None:
        try:
            asked = anyio.current_time()
            self.heed(await probe(), sent_at=asked, server_id=None)
        finally:
            self.leave(claim)

    def count_one_more(self) -> None:
        """Note that a request leaves in the slot of another."""
        if self._pace is not None:
            self._pace.take(anyio.current_time())

    def heed(self, seen: object, *, sent_at: float, server_id: str | None, progress: Progress | None = None) -> None:
        """Learn from what came back.

        Args:
            seen: What came back, to whatever request.
            sent_at: When that left.
            server_id: The server that it was about; None if it was about none, or about many.
            progress: The way of the server, if it was a send.
        """
        now = anyio.current_time()
        hold = None
        if isinstance(seen, Observation) and (hold := hold_for(seen)) is not None:
            self._hold(now, hold.seconds, sent_at=sent_at, words=str(seen))
            if self.brake.remaining(now) > 0.0:
                self._restart(now, sent_at=sent_at, is_overcharged=is_overcharge(seen))
        elif not isinstance(seen, Unsent | Unanswered):
            self.brake.release()
        if isinstance(seen, Observation) and is_trouble(seen):
            if progress is not None and hold is None:
                self._blamed.append(progress)
            self._note_trouble(seen, now, sent_at=sent_at, server_id=server_id)
        else:
            self._open(now, sent_at)
            if hold is None:
                self._note_good(now, sent_at=sent_at, is_send=progress is not None)
        self._apply()
        if self.is_held:
            self._judge(now)

    def hold(self, now: float, seconds: float | None, *, sent_at: float, words: str) -> None:
        """Hold everybody; a run that would wait for too long is stopped."""
        self._hold(now, seconds, sent_at=sent_at, words=words)
        self._judge(now)

    def _hold(self, now: float, seconds: float | None, *, sent_at: float, words: str) -> None:
        self.brake.hold(now, seconds, sent_at=sent_at)
        self._words = words

    def _note_trouble(self, seen: Observation, now: float, *, sent_at: float, server_id: str | None) -> None:
        if is_overcharge(seen):
            self._limit.halve(now, sent_at=sent_at)
        was_closed = self._door.is_closed
        self._door.trouble(now, sent_at=sent_at, server_id=server_id if may_lie_in_server(seen) else None)
        if self._door.is_closed:
            self._words = str(seen)
            if not was_closed:
                _log.warning("everybody waits: the cloud is in trouble (%s)", seen)
            if self._door.is_confirmed:
                for blamed in self._blamed:
                    blamed.forgive()
                self._blamed.clear()

    def _open(self, now: float, sent_at: float) -> None:
        if self._door.is_closed:
            _log.warning("the cloud answers again")
            self._restart(now, sent_at=sent_at, is_overcharged=True)
        self._door.recover(now)
        self._blamed.clear()

    def _restart(self, now: float, *, sent_at: float, is_overcharged: bool) -> None:
        self._limit.restart(now, sent_at=sent_at, is_overcharged=is_overcharged)
        self._epoch += 1
        self._early = self._limiter.borrowed_tokens

    def _note_good(self, now: float, *, sent_at: float, is_send: bool) -> None:
        is_full = self._full_at >= sent_at
        self._limit.grow(sent_at=sent_at, is_full=is_full)
        if self._latency is not None and is_send:
            self._latency.note(now, sent_at=sent_at, is_full=is_full)

    def _apply(self) -> None:
        """Let as many slots be as the limits allow; which are above the slots in use only as far as new ones go."""
        at_once = self._limit.at_once
        if self._latency is not None:
            at_once = min(at_once, self._latency.at_once)
        at_once = min(self._most, at_once + self._early)
        if at_once != self._limiter.total_tokens:
            self._limiter.total_tokens = at_once

    def verdict(self, now: float, began: float) -> Stop | None:
        """Tell whether a run that began at some time waits for too long; None if it may wait on."""
        if (wait := self.brake.remaining(now)) > LONGEST_SAID:
            return too_long(wait, self._words)
        if now >= self._door.outage_ends(began):
            return outage(now - max(began, self._door.began), self._words)
        return None

    def _judge(self, now: float) -> None:
        for party in list(self._parties):
            if (stop := self.verdict(now, party.began)) is not None:
                party.course.halt(stop)

    def _until_outage(self, now: float) -> float:
        return max(0.0, min(self._door.outage_ends(party.began) for party in self._parties) - now)
