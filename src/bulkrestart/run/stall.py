"""Ends what makes no progress: a run after `stall_timeout`, and what is asked without a run after as long.

Law: the clock of a run stands still between two waves, and at no other time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from bulkrestart.cloud.credentials import Trouble
from bulkrestart.core.errors import StalledError
from bulkrestart.core.model import Stop
from bulkrestart.core.stall import LEEWAY, STALL_TIMEOUT, Asked, Stall

#: Seconds between two looks at the clock while it stands still.
_PAUSED_INTERVAL: Final = 5.0


class StallWatch:
    """Is told how requests end and how servers fare, and ends what makes no progress.

    Args:
        timeout: Seconds without progress that are too long.
        is_run: It is a run that is watched. If not, the clock stands still outside of `bounded`.

    Attributes:
        holding: Gives the answer for which all requests wait; "" if they do not.
    """

    def __init__(self, timeout: float = STALL_TIMEOUT, *, is_run: bool = True) -> None:
        now = anyio.current_time()
        lacking = "no server was accepted or came back" if is_run else "the cloud has not given all that was asked for"
        self._stall = Stall(timeout + LEEWAY if is_run else timeout, now, lacking=lacking)
        if not is_run:
            self._stall.pause(now)
        self._closed = anyio.Event()
        self.holding: Callable[[], str] = str

    def advance(self) -> None:
        """Note progress that is no server's: the run begins, or a server was seen for the first time."""
        self._stall.advance(anyio.current_time())

    def note_server(self) -> None:
        """Note a server that was accepted, came back, or got an outcome of its own."""
        self._stall.note_server(anyio.current_time())

    def has_progressed_since(self, moment: float) -> bool:
        """Tell whether any server did since a moment."""
        return self._stall.has_progressed_since(moment)

    def hear(self, asked: Asked, seen: object) -> None:
        """Note how a request ended."""
        self._stall.hear(asked, seen, anyio.current_time())

    def hear_sign_in(self, trouble: Trouble | None) -> None:
        """Note how a sign-in ended; None if it was well."""
        self._stall.hear_sign_in(None if trouble is None else trouble.answer, anyio.current_time())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the time pass within: it does not count."""
        self._stall.pause(anyio.current_time())
        try:
            yield
        finally:
            self._stall.resume(anyio.current_time())

    async def watch(self, give_up: Callable[[Stop], None]) -> None:
        """Watch a run until `close`.

        Args:
            give_up: Ends the run, once, when it is stalled.
        """
        self.advance()
        while not self._closed.is_set():
            now = anyio.current_time()
            if not (left := self._stall.remaining(now)):
                give_up(self._stall.stop(now, holding=self.holding()))
                return
            with anyio.move_on_after(max(left, _PAUSED_INTERVAL) if self._stall.is_paused else left):
                await self._closed.wait()

    def close(self) -> None:
        """Watch no longer: the run is over."""
        self._closed.set()

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """End what is awaited within, when all such blocks together have taken too long.

        Raises:
            StalledError: They have.
        """
        now = anyio.current_time()
        self._stall.resume(now)
        with anyio.move_on_after(self._stall.remaining(now)) as scope:
            try:
                yield
            finally:
                self._stall.pause(anyio.current_time())
        if scope.cancelled_caught:
            cause = self._stall.cause(anyio.current_time(), holding=self.holding())
            raise StalledError(f"{cause}; nothing was sent")
