"""The one way to the cloud: so many requests at once, and none while the brake is on."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import anyio

from bulkrestart.cloud.credentials import Renewed, Trouble
from bulkrestart.core.decide import hold_for
from bulkrestart.core.observation import Answer, Unanswered, Unsent
from bulkrestart.core.pacing import Brake

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Gate:
    """Lets a request through. A slot is held for one request and nothing else: not while waiting or signing in.

    Only a send and the looks that have to come right before it share one (`Submitter`).
    When a slot is had, nobody was asked to wait at that moment, and nothing awaits between that and the request.
    Entering gives the trouble if there is nothing to sign with and never will be: nothing is to be sent then.

    Args:
        limiters: The bounds on requests at once, the narrower first: of this run, and of the client.
        brake: The client's brake.
        auth: What has to be signed in before a slot is taken; None if nothing.
    """

    def __init__(self, limiters: tuple[anyio.CapacityLimiter, ...], brake: Brake, auth: Renewed | None) -> None:
        self._limiters = limiters
        self._brake = brake
        self._auth = auth

    async def __aenter__(self) -> Trouble | None:
        while True:
            trouble = await self.sign_in()
            await self._acquire()
            if not self.is_held or trouble is not None:
                return trouble
            self._release(len(self._limiters))

    @property
    def is_held(self) -> bool:
        """Nothing may leave at this moment, slot or no slot."""
        is_signed_in = self._auth is None or self._auth.is_signed_in
        return self._brake.remaining(anyio.current_time()) > 0.0 or not is_signed_in

    async def sign_in(self) -> Trouble | None:
        """See that there is something to sign with, when nobody is asked to wait; give the trouble if it is final.

        While whoever signs us in is in trouble that may pass, everybody waits: no server is tried in vain.
        """
        while True:
            if wait := self._brake.remaining(anyio.current_time()):
                await anyio.sleep(wait)
            asked = anyio.current_time()
            trouble = await self._auth.sign_in() if self._auth is not None else None
            if trouble is None or trouble.is_final:
                return trouble
            now = anyio.current_time()
            if not self._brake.remaining(now):
                _log.warning("everybody waits: %s", trouble.words)
            self._brake.hold(now, trouble.retry_after, sent_at=asked)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release(len(self._limiters))

    async def _acquire(self) -> None:
        held = 0
        try:
            for limiter in self._limiters:
                await limiter.acquire()
                held += 1
        except BaseException:
            self._release(held)
            raise

    def _release(self, held: int) -> None:
        for limiter in self._limiters[:held]:
            limiter.release()

    async def ask(self, request: Callable[[], Awaitable[T]]) -> tuple[T | Answer, float]:
        """Make a request that changes nothing, and heed its answer.

        Returns:
            The answer, and when the request left. Where nobody signs us in nothing leaves, and that is the answer.
        """
        async with self as trouble:
            asked = anyio.current_time()
            if trouble is not None:
                return trouble.answer, asked
            seen = await request()
        self.heed(seen, sent_at=asked)
        return seen, asked

    def heed(self, seen: object, *, sent_at: float) -> None:
        """Let what came back for a request that left at `sent_at` hold everybody, or release the brake."""
        hold = hold_for(seen) if isinstance(seen, Answer) else None
        if hold is not None:
            self._brake.hold(anyio.current_time(), hold.seconds, sent_at=sent_at)
        elif not isinstance(seen, Unsent | Unanswered):
            self._brake.release()

    def patience(self, moment: float) -> float:
        """Read at a moment a clock that stands still while everybody is held: that time counts against nobody."""
        return moment - self._brake.held(moment)


class Shields:
    """Keeps what is in flight from being cancelled, until there is a bound to that.

    A request that is abandoned leaves a server whose fate is unknown, so a cancelled run awaits its requests until
    `bound` gives them a deadline. Native asyncio cancellation does not reach a child task, so a shield holds there, and
    only there.
    """

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self._deadline = float("inf")

    @contextmanager
    def up(self) -> Iterator[anyio.CancelScope]:
        """Shield what is awaited within."""
        with anyio.CancelScope(shield=True, deadline=self._deadline) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def bound(self, deadline: float) -> None:
        """End every shield at the deadline."""
        self._deadline = deadline
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, deadline)
