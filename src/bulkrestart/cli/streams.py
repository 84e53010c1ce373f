"""The two streams: results on standard output, everything else on standard error.

Law: whoever reads them, slowly or no more, neither holds nor ends a run; and what a cloud says reaches a terminal as
text and nothing else.
"""

import asyncio
import errno
import io
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

from bulkrestart.core.report import Statistics

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Columns; the counts of 20,000 servers beside it fit into 80.
_BAR_WIDTH = 16


def safe(text: str) -> str:
    """Write as an escape what is not printable: ANSI sequences, control characters, changes of writing direction."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class Notes:
    """Standard error: messages, the bar, and the library's warnings.

    Attributes:
        is_on_terminal: Whether somebody is there to watch a bar.
    """

    def __init__(self) -> None:
        sink = _Sink(sys.stderr)
        self.is_on_terminal = sink.isatty()
        self._terminal = sink.terminal
        file = io.TextIOWrapper(io.BufferedWriter(sink), _encoding(sys.stderr), "backslashreplace")
        self._console = Console(file=file, soft_wrap=True)

    def say(self, text: str) -> None:
        """Write lines, above the bar if there is one. The text is printed as it is: make it safe first."""
        self._console.print(Text(text))

    def ask(self, text: str) -> None:
        """Write a question, and stay on its line."""
        self._console.print(Text(text), end=" ")

    def warn(self, message: str) -> None:
        """Write a message as one line that begins with our name."""
        self.say(f"bulkrestart: {safe(' '.join(message.split()))}")

    def shares_terminal(self, terminal: int | None) -> bool:
        """Tell whether a stream is on the terminal that shows the bar."""
        return terminal is not None and terminal == self._terminal

    @contextmanager
    def showing_warnings(self) -> Iterator[None]:
        """Show the library's warnings meanwhile."""
        handler = _NotesHandler(self)
        logger = logging.getLogger("bulkrestart")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    @contextmanager
    def bar(self, statistics: Callable[[], Statistics]) -> Iterator[None]:
        """Show how far a run has come meanwhile; on a terminal only."""
        if not self.is_on_terminal or self._console.is_dumb_terminal:
            yield
            return
        columns = (_Bar(statistics), _Counts(statistics), TimeElapsedColumn())
        with Progress(
            *columns,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as progress:
            progress.add_task("")
            yield


class _NotesHandler(logging.Handler):
    def __init__(self, notes: Notes) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.warn(record.getMessage())


class _Bar(ProgressColumn):
    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        super().__init__()
        self._statistics = statistics

    def render(self, task: Task) -> ProgressBar:
        now = self._statistics()
        return ProgressBar(total=now.total, completed=now.finished, width=_BAR_WIDTH)


class _Counts(ProgressColumn):
    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        super().__init__()
        self._statistics = statistics

    def render(self, task: Task) -> Text:
        now = self._statistics()
        counts = f"{now.in_flight} in flight, {now.parked} parked, {now.accepted} accepted"
        return Text(f"{now.finished}/{now.total}  {counts}")


class Results:
    """Standard output, written by a thread of its own: a pager that waits for its user does not hold the event loop.

    Leaving its block waits until all is written, or until that wait is cancelled.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._sink = _Sink(sys.stdout)
        self._encoding = _encoding(sys.stdout)
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._written: Future[None] = Future()

    async def __aenter__(self) -> Self:
        # A daemon: a reader that never reads on must not keep the process alive after the wait was cancelled.
        Thread(target=self._write_all, name="bulkrestart-results", daemon=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.put(None)
        await asyncio.wrap_future(self._written)
        trouble = self._sink.trouble
        if trouble is not None and trouble.errno != errno.EPIPE:
            self._notes.warn(f"standard output could not be written: {trouble.strerror}")

    def line(self, text: str) -> None:
        """Write a line, soon. It is printed as it is: make it safe first."""
        self._queue.put(f"{text}\n")

    def _write_all(self) -> None:
        self._written.set_running_or_notify_cancel()
        is_open = True
        while is_open:
            batch = [self._queue.get()]
            with suppress(Empty):
                while True:
                    batch.append(self._queue.get_nowait())
            is_open = batch[-1] is not None
            self._write("".join(text for text in batch if text is not None))
        self._written.set_result(None)

    def _write(self, text: str) -> None:
        if not text:
            return
        if self._notes.shares_terminal(self._sink.terminal):
            # Past the bar's back, lines and bar would overwrite each other.
            self._notes.say(text.removesuffix("\n"))
        else:
            self._sink.write(text.encode(self._encoding, "backslashreplace"))


class _Sink(io.RawIOBase):
    """A standard stream that takes everything: once it fails, its reader is gone, and the rest is dropped.

    Attributes:
        terminal: The device number of the terminal behind it; None if there is none.
        trouble: Why it failed; None while it works.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.trouble: OSError | None = None
        # A process may be started without one (`>&-`). Its number then belongs to whatever is opened first: a socket.
        self._descriptor = None if stream is None else stream.fileno()
        self.terminal: int | None = None
        if self._descriptor is not None and os.isatty(self._descriptor):
            self.terminal = os.fstat(self._descriptor).st_rdev

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.terminal is not None

    def write(self, data: "ReadableBuffer", /) -> int:
        rest = memoryview(data)
        size = rest.nbytes
        while rest and self._descriptor is not None and self.trouble is None:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                # Whoever shares the stream with us (a terminal, a pipe of ssh) may have made it non-blocking.
                select.select((), (self._descriptor,), ())
            except OSError as error:
                self.trouble = error
        return size


def _encoding(stream: TextIO | None) -> str:
    return "utf-8" if stream is None else stream.encoding
