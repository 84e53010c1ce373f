"""Signals that end a command.

Law: before a run they end what is under way, as a `KeyboardInterrupt`; in it the first ends it in good order, the
second at once, and a third the process, whatever that waits for (a disk that hangs); while its report is printed, and
after it, they end the process. The exit code of `restart` and `demo` is 130 each time.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bulkrestart.cli.end import ExitCode
from bulkrestart.cli.streams import Streams
from bulkrestart.core.options import DRAIN

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_signals(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` in the running loop for each signal that asks the process to end.

    After the block such a signal ends the process at once: what is left is to wait for readers, and to go.
    """
    loop = asyncio.get_running_loop()
    # Not the loop's own handlers: taking those away leaves a moment in which a signal kills.
    for number in _heeded():
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))
    try:
        with _waking(loop):
            yield
    finally:
        leave_on_signals()


@contextmanager
def cancelled_by_signals() -> Iterator[None]:
    """Cancel the running task at each such signal meanwhile; what heeded them before does so afterwards."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "it is used in a task"
    cancel = task.cancel
    before = {number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(cancel)) for number in _heeded()}
    try:
        with _waking(loop):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _waking(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let signals end the loop's wait for something to happen.

    Python's handlers run between two of its instructions. A signal that comes after the last one before the wait would
    be heeded when that ends, which may be never (docs.python.org/3/library/signal.html#signal.set_wakeup_fd).
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        loop.add_reader(reader, reader.recv, 4096)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(reader)


def leave_on_signals() -> None:
    """Let such a signal end the process at once from now on."""
    for number in _heeded():
        signal.signal(number, _leave)


def _heeded() -> list[signal.Signals]:
    """Leave out those that the process was started to ignore: SIGHUP under nohup, SIGINT in a shell's background."""
    return [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _leave(*_: object) -> None:
    os._exit(ExitCode.INTERRUPTED)


class Interrupts:
    """Cancels the task that made it, once for each signal.

    Attributes:
        count: Signals so far.
    """

    def __init__(self, streams: Streams) -> None:
        self.count = 0
        self._streams = streams
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
        assert self._task is not None, "it is made in a task"
        self._streams.hush()
        if self.count == 1:
            self._streams.warn(
                f"interrupted: nothing more is sent, and answers in flight are awaited for up to {DRAIN:.0f} s; "
                "a second signal ends that at once"
            )
            self._task.cancel()
        else:
            self._streams.warn("interrupted again: what is in flight is left in doubt")
            # A turn of the loop later: two cancellations that meet before the task wakes up are one.
            asyncio.get_running_loop().call_soon(self._task.cancel)
            leave_on_signals()
