"""The two standard streams: results on one, everything else on the other.

Law: whoever reads them, slowly or no more, neither holds nor ends a run; and what a cloud says reaches a terminal as
text and nothing else.
"""

import errno
import logging
import os
import re
import select
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, TextIO

from bulkrestart.core.faults import plain
from bulkrestart.core.report import Statistics
from bulkrestart.core.secrets import Secret, SecretMask

#: Columns; the counts of 20,000 servers beside it fit into 80.
_BAR_WIDTH: Final = 12
#: Seconds after which the bar is drawn again.
_REFRESH: Final = 0.25
#: Where a terminal does not know its width (a serial line, a container).
_COLUMNS: Final = 80
_LINE_END: Final = re.compile(r"\s*[\r\n]\s*")
#: The most characters of another library's message that are shown: a sign-in link may be long.
_LONGEST_RELAYED: Final = 2000
#: Loggers whose messages are for developers: stevedore warns about every auth type that cannot be loaded, and
#: keystoneauth that it guesses the version of a Keystone that does not answer, before the error that says why.
_DEVELOPER_LOGGERS: Final = re.compile(r"(asyncio|stevedore|keystoneauth\.identity\.generic\.base)(\.|$)")
#: To the first column, and erase to the end of the line (ECMA-48, EL).
_ERASE: Final = "\r\x1b[K"


def safe(text: str) -> str:
    """Write as an escape what is not printable: ANSI sequences, control characters, changes of writing direction."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class Streams:
    """Standard output for results, and standard error for messages, the bar and the library's warnings.

    Each is written by a thread of its own; both by one where they are the same terminal, pipe or file, so that the
    order of their lines is kept. What is written is printed as it is: make it safe first.
    """

    def __init__(self) -> None:
        #: Returns the secrets of this command, to mask in the messages of other libraries.
        self.secrets: Callable[[], Sequence[Secret[str]]] = tuple
        #: Whether warnings are no longer shown.
        self.is_hushed = False
        self._relayed: set[str] = set()
        self._err = _Stream(sys.stderr)
        self._out = self._err if _are_one(sys.stdout, sys.stderr) else _Stream(sys.stdout)

    def line(self, text: str) -> None:
        """Write a line of results, soon."""
        self._out.write(f"{text}\n")

    def say(self, text: str) -> None:
        """Write a line to standard error, soon."""
        self._err.write(f"{text}\n")

    def warn(self, message: str) -> None:
        """Say a message as one line that begins with our name, safely."""
        self.say(f"bulkrestart: {safe(_LINE_END.sub(' ', message.strip()))}")

    def relay(self, source: str, message: str) -> None:
        """Show a message of another library once, with the secrets of this command masked."""
        mask = SecretMask(secret.reveal() for secret in self.secrets())
        line = f"{source}: {plain(message, _LONGEST_RELAYED, secrets=mask, keeps_links=True)}"
        if line not in self._relayed and not self.is_hushed:
            self._relayed.add(line)
            self.warn(line)

    @contextmanager
    def showing_warnings(self) -> Iterator[None]:
        """Show the warnings of bulkrestart and of other libraries within the block, until `hush`."""
        handler, show_warning = _WarningsHandler(self), warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            self.relay(category.__module__.partition(".")[0], str(message))

        logging.getLogger().addHandler(handler)
        # Python's own function also prints the line of code, and urllib3 warns again at every request.
        warnings.showwarning = show
        try:
            yield
        finally:
            warnings.showwarning = show_warning
            logging.getLogger().removeHandler(handler)

    def hush(self) -> None:
        """Show no more warnings: the command alone speaks of how it ends."""
        self.is_hushed = True

    @contextmanager
    def bar(self, statistics: Callable[[], Statistics]) -> Iterator[None]:
        """Show how far a run has come meanwhile, below what is written; on a terminal only."""
        began = time.monotonic()
        self._err.draw(lambda: _bar(statistics(), time.monotonic() - began))
        try:
            yield
        finally:
            self._err.draw(None)

    def close(self, account: Sequence[str] = ()) -> bool:
        """Wait until all is written.

        Args:
            account: Lines for standard error, if standard output lost what was written to it.

        Returns:
            Whether it did.
        """
        self._out.close()
        loss = self._out.loss
        if loss is not None:
            self.warn(f"standard output could not be written: {loss}")
            for line in account:
                self.say(line)
        self._err.close()
        return loss is not None


class _WarningsHandler(logging.Handler):
    def __init__(self, streams: Streams) -> None:
        super().__init__(logging.WARNING)
        self._streams = streams
        self.addFilter(lambda record: _DEVELOPER_LOGGERS.match(record.name) is None)

    def emit(self, record: logging.LogRecord) -> None:
        source = record.name.partition(".")[0]
        if source != "bulkrestart":
            self._streams.relay(source, record.getMessage())
        elif not self._streams.is_hushed:
            self._streams.warn(record.getMessage())


def _are_one(one: TextIO | None, other: TextIO | None) -> bool:
    return one is not None and other is not None and os.path.sameopenfile(one.fileno(), other.fileno())


def _bar(now: Statistics, seconds: float) -> str:
    done = "#" * (_BAR_WIDTH * now.finished // now.total)
    counts = f"{now.in_flight} in flight, {now.parked} parked, {now.accepted} accepted"
    return f"[{done:.<{_BAR_WIDTH}}] {now.finished}/{now.total}  {counts}  {timedelta(seconds=int(seconds))}"


class _Stream:
    """A standard stream, written in the order given by a thread of its own; once it fails, the rest is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._trouble: OSError | None = None
        self._is_missed = False
        # A process may be started without one (`>&-`). Its number then belongs to whatever is opened first: a socket.
        self._descriptor = None if stream is None else stream.fileno()
        self._encoding = "utf-8" if stream is None else stream.encoding
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._bar: Callable[[], str] | None = None
        # A daemon: a reader that never reads on must not keep the process alive.
        self._thread = Thread(target=self._write_all, name="bulkrestart-stream", daemon=True)
        self._thread.start()

    @property
    def loss(self) -> str | None:
        """Why something could not be written; None if nothing was lost, or its reader left and wanted no more."""
        if self._descriptor is None:
            return "it is closed" if self._is_missed else None
        if self._trouble is None or self._trouble.errno == errno.EPIPE:
            return None
        return self._trouble.strerror

    def write(self, text: str) -> None:
        """Write a text, soon."""
        self._is_missed = True
        self._queue.put(text)

    def draw(self, bar: Callable[[], str] | None) -> None:
        """Keep a line that may change below all that is written, if this is a terminal that can; None ends that."""
        self._bar = bar if self._can_erase() else None
        self._queue.put("")

    def close(self) -> None:
        """Wait until all is written."""
        self._queue.put(None)
        self._thread.join()

    def _can_erase(self) -> bool:
        is_terminal = self._descriptor is not None and os.isatty(self._descriptor)
        return is_terminal and os.environ.get("TERM", "dumb") != "dumb"

    def _write_all(self) -> None:
        erase = ""
        is_open = True
        while is_open:
            texts = self._take()
            is_open = None not in texts
            if self._descriptor is not None and self._trouble is None:
                try:
                    bar = self._fitting_bar(self._descriptor)
                    text = f"{erase}{''.join(filter(None, texts))}{bar}"
                    _write(self._descriptor, text.encode(self._encoding, "backslashreplace"))
                    erase = _ERASE if bar else ""
                except OSError as error:
                    self._trouble = error

    def _take(self) -> list[str | None]:
        """Wait for something to write, or until the bar is to be drawn again, and take all there is."""
        texts: list[str | None] = []
        with suppress(Empty):
            texts.append(self._queue.get(timeout=None if self._bar is None else _REFRESH))
            while True:
                texts.append(self._queue.get_nowait())
        return texts

    def _fitting_bar(self, terminal: int) -> str:
        bar = self._bar
        if bar is None:
            return ""
        # A line as wide as the terminal may wrap, and a line that wrapped is not erased whole.
        return bar()[: (os.get_terminal_size(terminal).columns or _COLUMNS) - 1]


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Whoever shares the stream with us (a terminal, a pipe of ssh) may have made it non-blocking.
            select.select((), (descriptor,), ())
