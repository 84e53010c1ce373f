"""Signals that end a command: the first in good order, the second at once."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bulkrestart.cli.streams import Notes
from bulkrestart.core.options import DRAIN

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_signals(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` in the running loop for each signal that asks the process to end.

    A signal that the process was started to ignore stays ignored: SIGHUP under nohup, SIGINT in a shell's background.
    """
    loop = asyncio.get_running_loop()
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


class Interrupts:
    """Cancels the task that made it, once for each signal.

    Attributes:
        count: Signals so far.
    """

    def __init__(self, notes: Notes) -> None:
        self.count = 0
        self._notes = notes
        self._task = asyncio.current_task()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take signals meanwhile."""
        with on_signals(self._interrupt):
            yield

    @contextmanager
    def absorbed(self) -> Iterator[None]:
        """Let a cancellation that a signal began end this block, and no more."""
        try:
            yield
        except asyncio.CancelledError:
            if not self.count:
                raise

    def _interrupt(self) -> None:
        self.count += 1
        if self.count == 1:
            self._notes.warn(
                f"interrupted: nothing more is sent, and answers in flight are awaited for up to {DRAIN:.0f} s; "
                "a second signal ends that at once"
            )
        else:
            self._notes.warn("interrupted again: what is in flight is left in doubt")
        assert self._task is not None, "it is made in a task"
        self._task.cancel()
