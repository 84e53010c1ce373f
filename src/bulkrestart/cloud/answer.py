"""The answers of one connection, read from its bytes as they come.

Law: httptools' parser is told of bytes and never of their end. How an answer ends, and which one counts, is told here.
"""

from typing import Final

import httptools

#: Bytes of a head, the answers of status 1xx before it among them, and of what frames a body without being one. h11,
#: which httpx reads with, has the same.
_MOST_FRAMING: Final = 100 * 1024
#: Headers of one answer. Python's http.client allows 100; a head of the size above may hold 20,000, which take 50 ms.
_MOST_HEADERS: Final = 1000
#: An answer of status 1xx announces another (RFC 9110, section 15.2); but nobody asked for another protocol.
_INFORMATIONAL: Final = range(100, 200)
_SWITCHING_PROTOCOLS: Final = 101


class Answers:
    """Reads one answer after the other: `begin`, then `feed` until it is complete.

    What no answer may look like is noted as `fault`, and never raised: what came before it counts all the same.
    Stricter than httpx's own reader, as RFC 9112 allows: a second Content-Length, or one beside Transfer-Encoding, is a
    fault, and so are folded headers and lines that end in a bare LF.

    Attributes:
        status: The status; 0 until the whole head is in.
        reason: The words beside it.
        version: The version of HTTP.
        headers: Names and values as they came, without what follows the body.
        is_complete: The answer is in, to the last byte of its body.
        may_follow: Another request may follow on this connection: the answer ended by itself, nobody said that the
            connection closes, and nothing came after it.
        fault: What is wrong with what came; "" if nothing is.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self, *, has_body: bool = True) -> None:
        """Expect the next answer.

        Args:
            has_body: Whether its request asks for a body; a HEAD does not, and the parser cannot be told.
        """
        self._has_body = has_body
        self._is_headed = False
        self._framing = 0
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
        if not data:
            self._end()
            return
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # After a whole answer it is rubbish that follows; the connection is done with, the answer stands.
            self.may_follow = False
            if not self.is_complete:
                self.fault = self.fault or f"what came is not HTTP: {error}"
        if self._framing > _MOST_FRAMING and not self.is_complete:
            self.fault = self.fault or "the head of the answer, or what frames its body, is too long"

    def take(self) -> bytes:
        """Give the bytes of the body that have come since the last time."""
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        return body

    def _end(self) -> None:
        if self.status and self._ends_with_connection():
            self.is_complete = True
        elif self.status:
            self.fault = "the connection was closed in the middle of the body"
        else:
            self.fault = "the connection was closed without an answer"

    def _ends_with_connection(self) -> bool:
        """Tell whether the body has no other end than the connection's (RFC 9112, section 6.3)."""
        named = {name.lower(): value for name, value in self.headers}
        codings = named.get(b"transfer-encoding")
        if codings is not None:
            return codings.rpartition(b",")[2].strip().lower() != b"chunked"
        return b"content-length" not in named

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Hear of the first byte of an answer."""
        if self.is_complete:
            self.may_follow = False

    def on_status(self, reason: bytes) -> None:
        """Take the words beside a status."""
        if not self._is_headed:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; not what trails a body, nor what belongs to another answer."""
        if self._is_headed:
            return
        if len(self.headers) >= _MOST_HEADERS:
            self.fault = self.fault or "the answer has too many headers"
            raise ValueError("httptools stops at an exception")
        self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Learn that a head is in; it may be of an answer that only announces another."""
        if self._is_headed:
            return
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if status < _INFORMATIONAL.start or status == _SWITCHING_PROTOCOLS or not version.startswith("1."):
            self.fault = f"what came is no answer: HTTP/{version}, status {status}"
        elif status in _INFORMATIONAL:
            self.reason, self.headers = b"", []
        else:
            self._is_headed = True
            self.status, self.version = status, version
            self.is_complete = not self._has_body

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if not self.is_complete:
            self._chunks.append(body)
            self._framing = 0

    def on_message_complete(self) -> None:
        """Learn that an answer is in."""
        if self._is_headed and not self.is_complete:
            self.is_complete = True
            self.may_follow = self._parser.should_keep_alive()
