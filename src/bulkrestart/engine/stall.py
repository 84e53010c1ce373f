"""Ends a run that makes no progress for `stall_timeout`, and requests outside a run after the same time.

Law: the clock of a run is paused between two waves, and at no other time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from bulkrestart.cloud.credentials import Trouble
from bulkrestart.core.errors import StalledError
from bulkrestart.core.model import Stop
from bulkrestart.core.stall import LEEWAY, STALL_TIMEOUT, RequestKind, StallDetector

#: Seconds between two looks at the clock while it is paused.
_PAUSED_INTERVAL: Final = 5.0


class StallWatch:
    """Records how requests end and how servers progress, and ends what is stalled.

    Args:
        timeout: Seconds without progress after which it is stalled.
        is_run: Whether a run is watched. If not, the clock is paused outside of `bounded`.

    Attributes:
        pause_cause: Returns the answer because of which all requests are paused; "" if they are not.
    """

    def __init__(self, timeout: float = STALL_TIMEOUT, *, is_run: bool = True) -> None:
        now = anyio.current_time()
        lacking = "no server was accepted or came back" if is_run else "the cloud has not given all that was asked for"
        self._stall = StallDetector(timeout + LEEWAY if is_run else timeout, now, lacking=lacking)
        if not is_run:
            self._stall.pause(now)
        self._closed = anyio.Event()
        self.pause_cause: Callable[[], str] = str

    def advance(self) -> None:
        """Record progress that belongs to no server: the run begins, or a server was seen for the first time."""
        self._stall.advance(anyio.current_time())

    def note_server(self) -> None:
        """Record a server that was accepted, came back, or got an outcome of its own."""
        self._stall.note_server(anyio.current_time())

    def has_progressed_since(self, moment: float) -> bool:
        """Return whether any server was accepted, came back, or got an outcome of its own after a moment."""
        return self._stall.has_progressed_since(moment)

    def record(self, asked: RequestKind, seen: object) -> None:
        """Record how a request ended."""
        self._stall.record(asked, seen, anyio.current_time())

    def record_sign_in(self, trouble: Trouble | None) -> None:
        """Record how a sign-in ended; None if it succeeded."""
        self._stall.record_sign_in(None if trouble is None else trouble.answer, anyio.current_time())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the clock within the block: that time does not count."""
        self._stall.pause(anyio.current_time())
        try:
            yield
        finally:
            self._stall.resume(anyio.current_time())

    async def watch(self, give_up: Callable[[Stop], None]) -> None:
        """Watch a run until `close`.

        Args:
            give_up: Called once, when the run is stalled; it ends the run.
        """
        self.advance()
        while not self._closed.is_set():
            now = anyio.current_time()
            if not (left := self._stall.remaining(now)):
                give_up(self._stall.stop(now, pause_cause=self.pause_cause()))
                return
            with anyio.move_on_after(max(left, _PAUSED_INTERVAL) if self._stall.is_paused else left):
                await self._closed.wait()

    def close(self) -> None:
        """Stop watching: the run is over."""
        self._closed.set()

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Cancel the block when all such blocks together have taken longer than the timeout.

        Raises:
            StalledError: The block was cancelled.
        """
        now = anyio.current_time()
        self._stall.resume(now)
        with anyio.move_on_after(self._stall.remaining(now)) as scope:
            try:
                yield
            finally:
                self._stall.pause(anyio.current_time())
        if scope.cancelled_caught:
            cause = self._stall.cause(anyio.current_time(), pause_cause=self.pause_cause())
            raise StalledError(f"{cause}; nothing was sent")
