"""Where lanes wait for a server whose turn it is, and the run for a wave to be over."""

from collections import deque

import anyio

from bulkrestart.core.model import ServerResult
from bulkrestart.core.turns import Turns
from bulkrestart.engine.stop_signal import StopSignal


class Line:
    """Gives servers out, and nobody waits in it once the run stops.

    Args:
        turns: Whose turn it is.
        stop_signal: Tells when the run stops.
    """

    def __init__(self, turns: Turns, stop_signal: StopSignal) -> None:
        self._turns = turns
        self._stop_signal = stop_signal
        # Each waits for an event of its own: one server that comes back gives a turn to one lane.
        self._waiters: deque[anyio.Event] = deque()
        stop_signal.subscribe(self._wake_all)

    async def next(self) -> str | None:
        """Wait for the next server whose turn it is; None if there is none any more, or the run has stopped."""
        while self._stop_signal.stop is None:
            server_id = self._turns.take()
            if server_id is not None:
                return server_id
            if not self._turns.waiting or self._turns.is_stuck:
                return None
            await self._wait()
        return None

    async def all_back(self) -> None:
        """Wait until every server that had its turn has its outcome, or the run has stopped."""
        while self._turns.under_way and self._stop_signal.stop is None:
            await self._wait()

    def end(self, result: ServerResult) -> None:
        """Take an outcome."""
        self._turns.end(result)
        if self._waiters and self._turns.waiting and self._turns.under_way:
            self._waiters.popleft().set()
        else:
            self._wake_all()

    async def _wait(self) -> None:
        waiter = anyio.Event()
        self._waiters.append(waiter)
        await waiter.wait()

    def _wake_all(self) -> None:
        while self._waiters:
            self._waiters.popleft().set()
