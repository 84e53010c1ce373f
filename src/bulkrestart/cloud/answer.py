"""The answers of one connection, read from its bytes as they arrive.

Law: a head is parsed only when it is whole, so the result does not depend on how its bytes were split. httptools parses
it; `lenient` parses what httptools refuses.
"""

import re
from typing import Final

import httptools

from bulkrestart.cloud import lenient
from bulkrestart.cloud.framing import ChunkedBody, Framing, framing_of
from bulkrestart.cloud.lenient import MOST_HEADERS, Head

#: Bytes of a head, the answers of status 1xx before it among them, and of what frames a body without being one. h11,
#: which httpx reads with, has the same.
_MOST_FRAMING: Final = 100 * 1024
#: The most bytes of a chunked body that are held back until its end shows whether Content-Length is right. Answers to
#: sends, and those about one server, are shorter.
_MOST_HELD: Final = 1024 * 1024
#: An answer of status 1xx announces another (RFC 9110, section 15.2); but nobody asked for another protocol.
_INFORMATIONAL: Final = range(100, 200)
_SWITCHING_PROTOCOLS: Final = 101
_START: Final = b"HTTP/"
#: http.client and aiohttp accept blanks and line ends before a status line.
_BEFORE_START: Final = b" \t\r\n"
#: An empty line. Lines may end in a bare LF, or in CR CR LF if line ends were converted twice.
_END_OF_HEAD: Final = re.compile(rb"\n\r{0,2}\n")
_LONGEST_END: Final = 4
#: An answer to a HEAD. Its connection is not reused, because some servers send a body nevertheless.
_WITHOUT_BODY: Final = Framing(0, is_chunked=False, may_follow=False)


class Answers:
    """Reads one answer after the other: `begin`, then `feed` until it is complete.

    An answer that cannot be read sets `fault` and raises nothing; what came before the fault counts.

    Attributes:
        status: The status; 0 until the whole head is in, and while its body may still contradict it.
        reason: The words beside it.
        version: The version of HTTP.
        headers: Names and values as they came, without what follows the body.
        is_complete: The answer is in, to the last byte of its body.
        may_follow: Another request may follow on this connection: the answer ended by itself, no header closes the
            connection, and nothing came after it.
        fault: What is wrong with what came; "" if nothing is.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self, *, has_body: bool = True) -> None:
        """Expect the next answer.

        Args:
            has_body: Whether its request asks for a body; a HEAD does not.
        """
        self._has_body = has_body
        self._head: Head | None = None
        self._pending = bytearray()
        self._framing = 0
        self._left: int | None = None
        self._chunked: ChunkedBody | None = None
        self._is_kept = False
        self._chunks: list[bytes] = []
        self.status = 0
        self.reason = b""
        self.version = ""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False
        self.may_follow = False
        self.fault = ""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; none for the end of the connection."""
        if self.is_complete:
            # What follows does not change the answer. A line end is harmless (RFC 9112, section 2.2).
            self.may_follow = self.may_follow and not data.strip(b"\r\n") and bool(data)
            return
        if self.fault:
            return
        if not data:
            self._end()
            return
        self._framing += len(data)
        try:
            if self._head is None:
                data = self._read_heads(data)
            if self._head is not None:
                self._read_body(data)
        except ValueError as error:
            self.fault = str(error)
        if self._framing > _MOST_FRAMING and not self.is_complete:
            self.fault = self.fault or "the head of the answer, or what frames its body, is too long"

    def take(self) -> bytes:
        """Give the bytes of the body that have come since the last time."""
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        return body

    def _read_heads(self, data: bytes) -> bytes:
        """Read the head of the answer, and those of status 1xx before it; return the bytes that follow it.

        Raises:
            ValueError: The bytes are not an answer.
        """
        searched = max(0, len(self._pending) - _LONGEST_END)
        buffer: bytes | bytearray = data
        if self._pending:
            self._pending += data
            buffer = self._pending
        while True:
            if not searched:
                buffer = buffer.lstrip(_BEFORE_START)
                if not buffer.startswith(_START) and not _START.startswith(bytes(buffer)):
                    raise ValueError("what came is not HTTP")
            found = _END_OF_HEAD.search(buffer, searched)
            if found is None:
                # Keep the same bytearray: copying it for each byte that arrives would take quadratic time.
                self._pending = buffer if isinstance(buffer, bytearray) else bytearray(buffer)
                return b""
            head, buffer, searched = _read_head(bytes(buffer[: found.end()])), buffer[found.end() :], 0
            if head.status < _INFORMATIONAL.start or head.status == _SWITCHING_PROTOCOLS:
                raise ValueError(f"what came is no answer: status {head.status}")
            if head.status not in _INFORMATIONAL:
                self._begin_body(head)
                return bytes(buffer)

    def _begin_body(self, head: Head) -> None:
        framing = framing_of(head.status, head.version, head.headers) if self._has_body else _WITHOUT_BODY
        self._head, self._pending = head, bytearray()
        self._left = framing.length
        self._is_kept = framing.may_follow
        if framing.is_chunked:
            self._chunked = ChunkedBody(framing.length)
        if self._chunked is None or self._left is None or self._left > _MOST_HELD:
            self._publish(head)

    def _publish(self, head: Head) -> None:
        self.status, self.reason, self.version, self.headers = head

    def _read_body(self, data: bytes) -> None:
        assert self._head is not None
        count = len(self._chunks)
        if self._chunked is not None:
            data = self._chunked.feed(data, self._chunks)
            self.is_complete = self._chunked.is_complete
        else:
            piece = data if self._left is None else data[: self._left]
            if piece:
                self._chunks.append(piece)
            if self._left is not None:
                data = data[len(piece) :]
                self._left -= len(piece)
                self.is_complete = not self._left
        if len(self._chunks) > count:
            self._framing = 0
        if self.is_complete:
            self._publish(self._head)
            self.may_follow = self._is_kept and not data.strip(b"\r\n")

    def _end(self) -> None:
        if self._head is None:
            self.fault = "the connection was closed without an answer"
        elif self._left is None if self._chunked is None else self._chunked.may_be_closed:
            self.is_complete = True
            self._publish(self._head)
        else:
            self.fault = "the connection was closed in the middle of the body"


class _Callbacks:
    """Collects a head from httptools."""

    def __init__(self) -> None:
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_status(self, reason: bytes) -> None:
        """Store the reason phrase."""
        self.reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header."""
        if len(self.headers) >= MOST_HEADERS:
            raise ValueError("httptools stops at an exception")
        self.headers.append((name, value.rstrip(b" \t")))


def _read_head(data: bytes) -> Head:
    """Read a whole head: with httptools if possible, which takes a sixth of the time, else with `lenient`.

    Raises:
        ValueError: Neither can read it.
    """
    callbacks = _Callbacks()
    parser = httptools.HttpResponseParser(callbacks)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return lenient.read_head(data)
    return Head(parser.get_status_code(), callbacks.reason, parser.get_http_version(), callbacks.headers)
