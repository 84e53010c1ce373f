"""Where requests pass a few at a time, so that others of the event loop have their turn."""

from collections import deque
from typing import Final

import anyio

#: Requests that leave in one turn of the event loop. What each takes until its answer is dealt with is up to half a
#: millisecond, a connection of its own included.
PASSING: Final = 5


class Turnstile:
    """Lets `PASSING` at most go on in one turn of the event loop.

    Five hundred that are ready at once would hold everybody else for as long as all of them take; and requests that
    leave a few at a time are, as a rule, answered so.
    """

    def __init__(self) -> None:
        self._passing = 0
        self._waiting: deque[anyio.Event] = deque()

    async def wait(self) -> None:
        """Wait for a later turn of the loop, and for those who came before."""
        if self._passing < PASSING:
            self._passing += 1
            try:
                await anyio.lowlevel.checkpoint()
            finally:
                self._let_next_pass()
            return
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        finally:
            # Also of one that is cancelled meanwhile somebody else's turn may have come to depend.
            if turn.is_set():
                self._let_next_pass()
            else:
                self._waiting.remove(turn)

    def _let_next_pass(self) -> None:
        """Give the place to the next one, who goes on in the loop's next turn."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._passing -= 1
