"""Answers that RFC 9112 allows a client to refuse, compared with aiohttp, httpx and http.client over real sockets.

What another client accepts is accepted, unless two readings could differ in what the answer is.
"""

import asyncio
import http.client
import re
import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import reduce

import aiohttp
import anyio
import httptools
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkrestart.cloud import answer, lenient
from bulkrestart.cloud.answer import Answers
from bulkrestart.core.faults import Body
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer, Unanswered

from .loopback import TLS, Connection, KeepAlive, both_backends, compute_of, listening, sender_of
from .test_answer import OK, cut, read
from .test_sent import saying

LENGTH = b"Content-Length: 5\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
HELLO = (200, b"hello")
PLAIN = OK + LENGTH + b"\r\nhello"

#: The status and the body; None if the answer is refused.
Reading = tuple[int, bytes] | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """An answer, and how it is read.

    Attributes:
        data: Its bytes; the connection is closed after them.
        ours: How our reader reads it.
        why: Why ours refuses what another client accepts.
        otherwise: The clients that may read another answer in it.
        is_known: Whether another client of this test accepts it; curl accepts the others.
    """

    data: bytes
    ours: Reading = HELLO
    why: str = ""
    otherwise: frozenset[str] = frozenset()
    is_known: bool = True


SLOPPY = frozenset({"http.client"})


def line(status_line: bytes, ours: Reading = HELLO, *, why: str = "", is_known: bool = True) -> Row:
    """Make a row of a status line."""
    return Row(data=status_line + LENGTH + b"\r\nhello", ours=ours, why=why, is_known=is_known)


def headers(
    block: bytes,
    body: bytes = b"hello",
    ours: Reading = HELLO,
    *,
    why: str = "",
    otherwise: frozenset[str] = frozenset(),
) -> Row:
    """Make a row of headers."""
    return Row(data=OK + block + b"\r\n" + body, ours=ours, why=why, otherwise=otherwise)


def chunks(body: bytes, ours: Reading = HELLO, *, why: str = "", is_known: bool = True) -> Row:
    """Make a row of a chunked body."""
    return Row(data=OK + CHUNKED + b"\r\n" + body, ours=ours, why=why, is_known=is_known)


NO_STATUS = "it is not a status of three digits"
LENGTHS = "clients take different lengths"
BOTH = "the length and the chunks contradict each other"
CUT = "it may be cut short"

STATUS_LINES = {
    "without a reason": line(b"HTTP/1.1 200\r\n"),
    "without a reason, a blank": line(b"HTTP/1.1 200 \r\n"),
    "blanks after the version": line(b"HTTP/1.1   200 OK\r\n"),
    "tab after the version": line(b"HTTP/1.1\t200 OK\r\n"),
    "tab after the status": line(b"HTTP/1.1 200\tOK\r\n"),
    "blanks before it": line(b"  HTTP/1.1 200 OK\r\n"),
    "blanks after it": line(b"HTTP/1.1 200 OK   \r\n"),
    "two blanks before the reason": line(b"HTTP/1.1 200  OK\r\n"),
    "bytes over 0x7f in the reason": line(b"HTTP/1.1 200 \xc3\xa9t\xe9 \xff\r\n"),
    "control characters in the reason": line(b"HTTP/1.1 200 a\x01b\x7f\x1b[0m\r\n"),
    "zero in the reason": line(b"HTTP/1.1 200 a\0b\r\n"),
    "bare CR in the reason": line(b"HTTP/1.1 200 a\rb\r\n"),
    "a status of no class": line(b"HTTP/1.1 999 Odd\r\n", (999, b"hello")),
    "HTTP/0.9": line(b"HTTP/0.9 200 OK\r\n"),
    "HTTP/1.2": line(b"HTTP/1.2 200 OK\r\n"),
    "HTTP/1.10": line(b"HTTP/1.10 200 OK\r\n"),
    "HTTP/1.x": line(b"HTTP/1.x 200 OK\r\n"),
    "HTTP/2.0": line(b"HTTP/2.0 200 OK\r\n"),
    "HTTP/2": line(b"HTTP/2 200 OK\r\n", is_known=False),
    "HTTP/1": line(b"HTTP/1 200 OK\r\n", None),
    "HTTP/3": line(b"HTTP/3 200 OK\r\n", None),
    "HTTP": line(b"HTTP 200 OK\r\n", None),
    "lower case": line(b"http/1.1 200 OK\r\n", None),
    "another protocol": line(b"RTSP/1.0 200 OK\r\n", None, why="a server of RTSP is no cloud"),
    "another name": line(b"ICY 200 OK\r\n", None),
    "no blank after the version": line(b"HTTP/1.1200 OK\r\n", None),
    "two digits": line(b"HTTP/1.1 20 OK\r\n", None),
    "four digits": line(b"HTTP/1.1 2000 OK\r\n", None),
    "a zero before the status": line(b"HTTP/1.1 0200 OK\r\n", None, why=NO_STATUS),
    "a status below 100": line(b"HTTP/1.1 099 Odd\r\n", None, why=NO_STATUS),
    "no blank after the status": line(b"HTTP/1.1 200OK\r\n", None),
    "a fraction": line(b"HTTP/1.1 200.1 OK\r\n", None),
    "no status": line(b"HTTP/1.1\r\n", None),
    "words for a status": line(b"HTTP/1.1 OK\r\n", None),
    "digits of another script": line("HTTP/1.1 ٢٠٠ OK\r\n".encode(), None),
}
LINE_ENDS = {
    "LF after the status line": line(b"HTTP/1.1 200 OK\n"),
    "LF without a reason": line(b"HTTP/1.1 200\n"),
    "LF everywhere": Row(data=PLAIN.replace(b"\r\n", b"\n")),
    "LF for the empty line": Row(data=OK + LENGTH + b"\nhello"),
    "LF after a header": headers(b"X: 1\n" + LENGTH),
    "CR CR LF after the status line": line(b"HTTP/1.1 200 OK\r\r\n"),
    "CR CR LF after a header": headers(b"X: 1\r\r\n" + LENGTH),
    "CR only": Row(data=PLAIN.replace(b"\r\n", b"\r"), ours=None, why=CUT),
}
BEFORE = {
    "an empty line": Row(data=b"\r\n" + PLAIN),
    "empty lines": Row(data=b"\r\n\r\n\n" + PLAIN),
    "Continue": Row(data=b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN),
    "Continue with LF": Row(data=b"HTTP/1.1 100 Continue\n\n" + PLAIN),
    "Continue without a reason": Row(data=b"HTTP/1.1 100\r\n\r\n" + PLAIN),
    "Continue with a folded header": Row(data=b"HTTP/1.1 100 Continue\r\nX: a\r\n b\r\n\r\n" + PLAIN),
    "Continue that closes": Row(data=b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n" + PLAIN),
    "Continue with a length and no body": Row(data=b"HTTP/1.1 100 Continue\r\n" + LENGTH + b"\r\n" + PLAIN),
    "Continue with a body": Row(data=b"HTTP/1.1 100 Continue\r\n" + LENGTH + b"\r\nhello" + PLAIN, ours=None),
    "several": Row(data=b"HTTP/1.1 102 P\n\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + PLAIN, otherwise=SLOPPY),
    "a switch": Row(data=b"HTTP/1.1 101 Switch\r\n\r\n" + PLAIN, ours=None, why="nothing asked for another protocol"),
    "a line of words": Row(data=b"words\r\n" + PLAIN, ours=None),
    "a byte order mark": Row(data=b"\xef\xbb\xbf" + PLAIN, ours=None),
    "a zero": Row(data=b"\0" + PLAIN, ours=None),
}
HEADERS = {
    "folded": headers(b"X: a\r\n b\r\n" + LENGTH),
    "folded with a tab": headers(b"X: a\r\n\tb\r\n" + LENGTH),
    "folded with LF": headers(b"X: a\n b\n" + LENGTH),
    "folded often": headers(b"X:\r\n  a\r\n\t b\r\n \r\n" + LENGTH),
    "folded, with a length in the fold": headers(b"X: a\r\n Content-Length: 9\r\n" + LENGTH),
    "the length folded": headers(b"Content-Length:\r\n 5\r\n"),
    "a fold without a header": headers(b" X: a\r\n" + LENGTH),
    "a fold without a header, and a length in it": headers(
        b" " + LENGTH, ours=None, why="aiohttp takes it for the length, and http.client does not"
    ),
    "a blank before the colon": headers(b"X : a\r\n" + LENGTH),
    "a tab before the colon": headers(b"X\t: a\r\n" + LENGTH),
    "a blank before the colon of the length": headers(b"Content-Length : 5\r\n"),
    "no colon": headers(b"words\r\n" + LENGTH),
    "no colon, several words": headers(LENGTH + b"From me  Mon Jan 1\r\n"),
    "no name": headers(b": a\r\n" + LENGTH),
    "a blank in the name": headers(b"X Y: a\r\n" + LENGTH),
    "separators in the name": headers(b"X(Y)/[0]@=Z: a\r\n" + LENGTH),
    "quotes around the name": headers(b'"X": a\r\n' + LENGTH),
    "bytes over 0x7f in the name": headers(b"X\xe9: a\r\n" + LENGTH),
    "a control character in the name": headers(b"X\x01: a\r\n" + LENGTH),
    "bytes over 0x7f in the value": headers(b"X: \xe9\xff\x80\r\n" + LENGTH),
    "control characters in the value": headers(b"X: a\x01b\x7f\x0b\r\n" + LENGTH),
    "a bare CR in the value": headers(b"X: a\rb\r\n" + LENGTH),
    "a bare CR before a length": headers(
        b"X: a\rContent-Length: 9\r\n" + LENGTH, b"hello 123", None, why="http.client takes it for a line end"
    ),
    "a zero in the name": headers(b"X\0Y: a\r\n" + LENGTH, ours=None, why="curl refuses it: a word may end there"),
    "a zero in the value": headers(b"X: a\0b\r\n" + LENGTH, ours=None, why="curl refuses it: a word may end there"),
    "a second status line": headers(
        LENGTH + b"HTTP/1.1 409 Conflict\r\n", ours=None, why="it may be the head of another answer"
    ),
    "odd words about the connection": headers(b"Connection: \x80 foo,,bar\r\n" + LENGTH),
    "nothing about the connection": headers(b"Connection:\r\n" + LENGTH),
}
LENGTHS_TOLD = {
    "twice": headers(LENGTH * 2),
    "three times": headers(LENGTH * 3),
    "twice, with more behind": headers(LENGTH * 2, b"hello and more"),
    "a list": headers(b"Content-Length: 5, 5\r\n"),
    "a list without blanks": headers(b"Content-Length: 5,5\r\n"),
    "a list, and again": headers(b"Content-Length: 5, 5\r\n" + LENGTH),
    "a list with nothing in it": headers(b"Content-Length: 5,\r\n"),
    "twice, once with a zero": headers(LENGTH + b"Content-Length: 05\r\n"),
    "twice, once without a value": headers(LENGTH + b"Content-Length:\r\n"),
    "zeros": headers(b"Content-Length: 0005\r\n"),
    "a sign": headers(b"Content-Length: +5\r\n"),
    "blanks": headers(b"Content-Length:  \t 5 \t \r\n"),
    "a form feed": headers(b"Content-Length: \x0c5\r\n"),
    "odd case": headers(b"cOnTeNt-LENGTH: 5\r\n"),
    "two that differ": headers(LENGTH + b"Content-Length: 6\r\n", ours=None, why=LENGTHS),
    "two that differ, the first too long": headers(b"Content-Length: 6\r\n" + LENGTH, ours=None, why=LENGTHS),
    "two that differ, one is 0": headers(b"Content-Length: 0\r\n" + LENGTH, ours=None, why=LENGTHS),
    "a list that differs": headers(b"Content-Length: 5, 6\r\n", ours=None, why=LENGTHS),
    "no value": headers(b"Content-Length:\r\n", ours=None, why=LENGTHS),
    "a negative one": headers(b"Content-Length: -5\r\n", ours=None, why=LENGTHS),
    "hexadecimal": headers(b"Content-Length: 0x5\r\n", ours=None, why=LENGTHS),
    "a fraction": headers(b"Content-Length: 5.0\r\n", ours=None, why=LENGTHS),
    "a unit": headers(b"Content-Length: 5 bytes\r\n", ours=None, why=LENGTHS),
    "a parameter": headers(b"Content-Length: 5;x\r\n", ours=None, why=LENGTHS),
    "an underscore": headers(b"Content-Length: 0_5\r\n", ours=None, why=LENGTHS),
    "words": headers(b"Content-Length: five\r\n", ours=None, why=LENGTHS),
    "quotes": headers(b'Content-Length: "5"\r\n', ours=None, why=LENGTHS),
    "more than 64 bits": headers(b"Content-Length: 18446744073709551621\r\n", ours=None, why=LENGTHS),
    "twice, without a body": Row(data=b"HTTP/1.1 304 Not Modified\r\n" + LENGTH * 2 + b"\r\n", ours=(304, b"")),
    "two that differ, without a body": Row(
        data=b"HTTP/1.1 204 No Content\r\n" + LENGTH + b"Content-Length: 6\r\n\r\n", ours=(204, b"")
    ),
}
CODINGS = {
    "odd case": headers(b"Transfer-Encoding: CHUNKED\r\n", CHUNKS),
    "blanks": headers(b"Transfer-Encoding: chunked  \r\n", CHUNKS, otherwise=SLOPPY),
    "twice": headers(CHUNKED * 2, CHUNKS),
    "folded": headers(b"Transfer-Encoding:\r\n chunked\r\n", CHUNKS, otherwise=SLOPPY),
    "a blank before the colon": headers(b"Transfer-Encoding : chunked\r\n", CHUNKS, otherwise=SLOPPY),
    "HTTP/1.0": Row(data=b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"\r\n" + CHUNKS),
    "identity": headers(b"Transfer-Encoding: identity\r\n"),
    "identity and a length": headers(b"Transfer-Encoding: identity\r\n" + LENGTH),
    "identity, then chunked": headers(b"Transfer-Encoding: identity, chunked\r\n", CHUNKS, otherwise=SLOPPY),
    "no value": headers(b"Transfer-Encoding:\r\n"),
    "no value and a length": headers(b"Transfer-Encoding:\r\n" + LENGTH),
    "unknown": headers(b"Transfer-Encoding: none\r\n"),
    "unknown and a length": headers(b"Transfer-Encoding: none\r\n" + LENGTH, ours=None, why=BOTH),
    "a length that agrees": headers(LENGTH + CHUNKED, CHUNKS),
    "a length that agrees, after it": headers(CHUNKED + LENGTH, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    "a length that agrees, and no empty line": headers(LENGTH + CHUNKED, CHUNKS[:-2]),
    "a length that is too long": headers(b"Content-Length: 6\r\n" + CHUNKED, CHUNKS, None, why=BOTH),
    "a length that is too short": headers(b"Content-Length: 3\r\n" + CHUNKED, CHUNKS, None, why=BOTH),
    "a length of 0": headers(b"Content-Length: 0\r\n" + CHUNKED, CHUNKS, None, why=BOTH),
    "the length of the chunks": headers(b"Content-Length: 15\r\n" + CHUNKED, CHUNKS, None, why=BOTH),
    "a length, and no chunks": headers(LENGTH + CHUNKED, b"hello", None),
    "chunked, then identity": headers(b"Transfer-Encoding: chunked, identity\r\n", CHUNKS, None, why=BOTH),
    "chunked, then nothing": headers(b"Transfer-Encoding: chunked,\r\n", CHUNKS, None, why=BOTH),
    "a parameter": headers(b"Transfer-Encoding: chunked;q=1\r\n", CHUNKS, None, why=BOTH),
    "quotes": headers(b'Transfer-Encoding: "chunked"\r\n', CHUNKS, None, why=BOTH),
    "a vertical tab": headers(b"Transfer-Encoding: \x0bchunked\r\n", CHUNKS, None, why=BOTH),
}
CHUNKED_BODIES = {
    "blanks after the size": chunks(b"5  \r\nhello\r\n0  \r\n\r\n"),
    "a tab after the size": chunks(b"5\t\r\nhello\r\n0\t\r\n\r\n"),
    "a blank before the size": chunks(b" 5\r\nhello\r\n 0\r\n\r\n"),
    "zeros": chunks(b"000000000000000000005\r\nhello\r\n0000\r\n\r\n"),
    "a sign": chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
    "an extension": chunks(b"5;a=b\r\nhello\r\n0;z\r\n\r\n"),
    "an extension with blanks": chunks(b"5 ; a = b\r\nhello\r\n0 ;z\r\n\r\n"),
    "an extension of separators": chunks(b'5;;=;"\r\nhello\r\n0\r\n\r\n'),
    "an empty extension": chunks(b"5;\r\nhello\r\n0;\r\n\r\n"),
    "an extension in bytes": chunks(b"5;\xff\xfe\x01\r\nhello\r\n0\r\n\r\n"),
    "words after the size": chunks(b"5 abc\r\nhello\r\n0\r\n\r\n", is_known=False),
    "a comma after the size": chunks(b"5,abc\r\nhello\r\n0\r\n\r\n", is_known=False),
    "LF after the size": chunks(b"5\nhello\r\n0\n\r\n"),
    "LF after the data": chunks(b"5\r\nhello\n0\r\n\r\n"),
    "LF at the end": chunks(b"5\r\nhello\r\n0\r\n\n"),
    "LF after a trailer": chunks(b"5\r\nhello\r\n0\r\nX: 1\n\n"),
    "CR CR LF after the size": chunks(b"5\r\r\nhello\r\n0\r\n\r\n"),
    "a trailer": chunks(b"5\r\nhello\r\n0\r\nX: 1\r\n\r\n"),
    "a trailer folded": chunks(b"5\r\nhello\r\n0\r\nX: 1\r\n 2\r\n\r\n"),
    "a trailer without a colon": chunks(b"5\r\nhello\r\n0\r\nwords\r\n\r\n"),
    "a trailer with a blank in its name": chunks(b"5\r\nhello\r\n0\r\nX Y: 1\r\n\r\n"),
    "a length in the trailer": chunks(b"5\r\nhello\r\n0\r\nContent-Length: 7\r\n\r\n"),
    "rubbish after the end": chunks(CHUNKS + b"rubbish"),
    "empty lines after the end": chunks(CHUNKS + b"\r\n\r\n"),
    "no empty line at the end": chunks(b"5\r\nhello\r\n0\r\n"),
    "half an empty line at the end": chunks(b"5\r\nhello\r\n0\r\n\r"),
    "no line end at the end": chunks(b"5\r\nhello\r\n0", None, why=CUT),
    "hexadecimal": chunks(b"0x5\r\nhello\r\n0\r\n\r\n", None, why="for curl the size is 0"),
    "an underscore": chunks(b"0_5\r\nhello\r\n0\r\n\r\n", None, why="for curl the size is 0"),
    "a negative size": chunks(b"-5\r\nhello\r\n0\r\n\r\n", None),
    "words for a size": chunks(b"five\r\nhello\r\n0\r\n\r\n", None),
    "no size": chunks(b"\r\nhello\r\n0\r\n\r\n", None),
    "a size of more than 64 bits": chunks(b"10000000000000005\r\nhello\r\n0\r\n\r\n", None),
    "CR after the size": chunks(b"5\rhello\r\n0\r\n\r\n", None),
    "LF in an extension": chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n", None),
    "no line end after the data": chunks(b"5\r\nhello0\r\n\r\n", None),
    "rubbish after the data": chunks(b"5\r\nhello!\r\n0\r\n\r\n", None),
    "blanks after the data": chunks(b"5\r\nhello \r\n0\r\n\r\n", None),
    "two line ends after the data": chunks(b"5\r\nhello\r\n\r\n0\r\n\r\n", None),
    "no last chunk": chunks(b"5\r\nhello\r\n", None),
    "half a chunk": chunks(b"5\r\nhel", None),
}
ENDS = {
    "in order": Row(data=PLAIN),
    "without a length": Row(data=OK + b"\r\nhello"),
    "without a length, closing": Row(data=OK + b"Connection: close\r\n\r\nhello"),
    "without a length, kept": Row(data=OK + b"Connection: keep-alive\r\n\r\nhello"),
    "without a length, HTTP/1.0": Row(data=b"HTTP/1.0 200 OK\n\nhello"),
    "more than the length": Row(data=PLAIN + b" and more"),
    "less than the length": Row(data=PLAIN[:-2], ours=None),
    "another answer": Row(data=PLAIN.replace(b"\r\n", b"\n") + PLAIN),
    "half a status line": Row(data=OK[:-2], ours=None, why=CUT),
    "a status line": Row(data=OK, ours=None, why=CUT),
    "half a head": Row(data=OK + LENGTH, ours=None),
}
ROWS = {
    f"{kind}: {name}": row
    for kind, rows in {
        "status line": STATUS_LINES,
        "line end": LINE_ENDS,
        "before the answer": BEFORE,
        "header": HEADERS,
        "length": LENGTHS_TOLD,
        "coding": CODINGS,
        "chunks": CHUNKED_BODIES,
        "end": ENDS,
    }.items()
    for name, row in rows.items()
}
each_row = pytest.mark.parametrize("name", ROWS)


def reading_of(pieces: Sequence[bytes]) -> Reading:
    """Read an answer with our reader, the connection closed after it."""
    told = read(pieces, is_closed=True)
    return (told.status, told.body) if told.is_complete else None


class Handler(socketserver.BaseRequestHandler):
    """Answers a request with the row whose number is its path, and closes."""

    def handle(self) -> None:
        """Read the head of the request, and answer."""
        request = b""
        while b"\r\n\r\n" not in request:
            request += self.request.recv(65536)
        self.request.sendall([*ROWS.values()][int(request.split()[1][1:])].data)
        self.request.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            self.request.recv(65536)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Serve the rows."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def read_with_aiohttp(port: int, path: str) -> Reading:
    """Ask with aiohttp."""

    async def ask() -> Reading:
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://127.0.0.1:{port}{path}") as response,
        ):
            return response.status, await response.read()

    return asyncio.run(ask())


def read_with_httpx(port: int, path: str) -> Reading:
    """Ask with httpx."""
    with httpx.Client(trust_env=False, verify=TLS, timeout=5) as client:
        response = client.get(f"http://127.0.0.1:{port}{path}")
        return response.status_code, response.content


def read_with_http_client(port: int, path: str) -> Reading:
    """Ask with the standard library, as requests does."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.status, response.read()


OTHERS = {"aiohttp": read_with_aiohttp, "httpx": read_with_httpx, "http.client": read_with_http_client}
#: What the clients raise for an answer that they refuse.
REFUSED = (aiohttp.ClientError, httpx.RemoteProtocolError, http.client.HTTPException, ValueError, OverflowError)


@each_row
def test_what_another_client_accepts_is_accepted(port: int, name: str) -> None:
    """Our reader accepts what another client accepts, as the same answer, or refuses it for a stated reason."""
    row = ROWS[name]
    ours = reading_of([row.data])
    assert ours == row.ours
    theirs: dict[str, Reading] = {}
    for client, ask in OTHERS.items():
        with suppress(*REFUSED):
            theirs[client] = ask(port, f"/{[*ROWS].index(name)}")
    if ours is None:
        assert row.why or not theirs, theirs
    else:
        assert ours in theirs.values() or not row.is_known, theirs
        assert {client for client, reading in theirs.items() if reading != ours} <= row.otherwise, theirs


@pytest.mark.unmeasured
@each_row
def test_an_answer_is_the_same_however_it_is_split(name: str) -> None:
    """Each way to split the bytes in two, and byte by byte, gives the reading of the whole."""
    row = ROWS[name]
    for pieces in cut(row.data):
        assert reading_of(pieces) == row.ours, pieces


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"Content-Length: 0\r\nContent-Length: 0\r\n", id="the same length twice"),
        pytest.param(b"Content-Length: 0, 0\r\n", id="a list of one length"),
        pytest.param(b"X-Via: one\r\n two\r\nContent-Length: 0\r\n", id="folded"),
        pytest.param(b"X-Via : one\nContent-Length: 0\n", id="LF, and a blank before the colon"),
        pytest.param(b"Transfer-Encoding: Chunked\r\nContent-Length: 0\r\n", id="a length that agrees"),
    ],
)
@both_backends
def test_an_odd_acceptance_is_one(backend: str, head: bytes) -> None:
    """A send that is answered in an odd way is accepted, and the id of its request is read."""

    async def main() -> None:
        odd = b"HTTP/1.1  202\r\nX-Openstack-Request-Id: req-1\r\n" + head + b"\r\n"
        reply = odd + b"0 \r\n\r\n" if b"Chunked" in head else odd
        async with listening(saying(reply)) as address, sender_of("lanes") as sender:
            seen = await compute_of(sender, f"http://{address}").reboot("s", RebootType.SOFT)
        assert isinstance(seen, Answer)
        assert (seen.status, seen.fault.body, seen.fault.request_id) == (202, Body.EMPTY, "req-1")

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("status", [b"202 Accepted", b"404 Not Found", b"409 Conflict", b"429 Too Many Requests"])
@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"Content-Length: 0\r\nContent-Length: 2\r\n\r\n{}", id="two lengths"),
        pytest.param(b"Content-Length: 0, 2\r\n\r\n{}", id="a list of two lengths"),
        pytest.param(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", id="too short"),
        pytest.param(b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", id="too long"),
        pytest.param(b"Transfer-Encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n", id="chunked or not"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", id="two status lines"),
        pytest.param(b"X: 1\rContent-Length: 0\r\nContent-Length: 2\r\n\r\n{}", id="a bare CR"),
    ],
)
def test_an_answer_of_two_readings_is_unanswered(status: bytes, rest: bytes) -> None:
    """An answer that can be read in two ways counts as lost: the run looks at the server, whatever the status says."""

    async def main() -> None:
        reply = b"HTTP/1.1 " + status + b"\r\n" + rest
        async with listening(saying(reply)) as address, sender_of("lanes") as sender:
            seen = await compute_of(sender, f"http://{address}").reboot("s", RebootType.SOFT)
        assert isinstance(seen, Unanswered), seen
        assert seen.words.startswith("RemoteProtocolError: ")

    anyio.run(main)


@pytest.mark.parametrize(
    ("before", "may_follow"),
    [
        pytest.param(b"HTTP/1.1 200 OK\n" + LENGTH * 2, True, id="the same length twice"),
        pytest.param(b"HTTP/1.1 200 OK\n" + LENGTH + b"Connection: keep-alive,\n close\n", False, id="closing"),
        pytest.param(b"HTTP/1.0 200 OK\n" + LENGTH, False, id="HTTP/1.0"),
        pytest.param(b"HTTP/1.0 200 OK\n" + LENGTH + b"Connection : Keep-Alive\n", True, id="HTTP/1.0, kept"),
        pytest.param(b"HTTP/2 200 OK\n" + LENGTH, True, id="HTTP/2"),
        pytest.param(b"HTTP/2.0 200 OK\n" + LENGTH, False, id="HTTP/2.0"),
    ],
)
def test_a_connection_is_kept_after_an_odd_answer(before: bytes, may_follow: bool) -> None:
    """An odd answer with a known end leaves its connection reusable."""
    told = read([before + b"\r\nhello"])
    assert (told.body, told.is_complete, told.may_follow) == (b"hello", True, may_follow)


@both_backends
def test_a_connection_carries_one_odd_answer_after_another(backend: str) -> None:
    """Requests that follow each other use one connection, also where each answer is odd."""

    async def main() -> None:
        async def reply(connection: Connection) -> None:
            await connection.send(b"HTTP/1.1 202\n" + LENGTH * 2 + b"\r\n")
            await connection.send(b"hello")

        server = KeepAlive(reply)
        async with listening(server) as address, sender_of("lanes") as sender:
            compute = compute_of(sender, f"http://{address}")
            for _ in range(3):
                assert isinstance(await compute.reboot("s", RebootType.SOFT), Answer)
        assert (server.connections, len(server.requests)) == (1, 3)

    anyio.run(main, backend=backend)


def test_a_connection_is_not_kept_after_a_length_and_chunks() -> None:
    """A sender of both may have been tricked (RFC 9112, section 6.1), even if they agree."""
    told = read([OK + LENGTH + CHUNKED + b"\r\n" + CHUNKS])
    assert (told.body, told.is_complete, told.may_follow) == (b"hello", True, False)


def test_a_status_is_held_until_chunks_agree_with_the_length() -> None:
    """No status is set while the chunks may still contradict the length."""
    answers = Answers()
    answers.feed(OK + LENGTH + CHUNKED + b"\r\n5\r\nhello\r\n")
    assert (answers.status, answers.headers, answers.is_complete) == (0, [], False)
    answers.feed(b"0\r\n\r\n")
    assert (answers.status, len(answers.headers), answers.is_complete, answers.take()) == (200, 2, True, b"hello")


def test_a_long_answer_is_not_held() -> None:
    """Only so much is held back: the status of a longer body is set at once, and the body is cut if it is too long."""
    answers = Answers()
    answers.feed(OK + b"Content-Length: 1048577\r\n" + CHUNKED + b"\r\n5\r\nhello\r\n")
    assert (answers.status, answers.take()) == (200, b"hello")
    answers.feed(b"100000\r\n")
    assert (answers.is_complete, answers.fault) == (
        False,
        "the chunks of the answer are not as long as its Content-Length",
    )


class Searched:
    """Replaces the pattern of an empty line, and counts the bytes that are searched."""

    def __init__(self) -> None:
        self.count = 0
        self._pattern = answer._END_OF_HEAD

    def search(self, buffer: bytes | bytearray, start: int) -> re.Match[bytes] | None:
        """Search from here to the end."""
        self.count += len(buffer) - start
        return self._pattern.search(buffer, start)


@pytest.mark.parametrize("filler", [b"a", b"\r", b"\n ", b"X: 1\n", b"\n\r\r\r"])
def test_a_head_is_searched_once(monkeypatch: pytest.MonkeyPatch, filler: bytes) -> None:
    """A head that arrives byte by byte is not searched again from its start."""
    monkeypatch.setattr(answer, "_END_OF_HEAD", searched := Searched())
    answers = Answers()
    data = OK + b"X: " + filler * (20_000 // len(filler))
    for place in range(len(data)):
        answers.feed(data[place : place + 1])
    assert (answers.status, answers.fault) == (0, "")
    assert searched.count < 6 * len(data)


#: Status, version, reason, headers and body.
Told = tuple[int, str, bytes, list[tuple[bytes, bytes]], bytes]


class Strict:
    """Reads an answer with httptools alone."""

    def __init__(self) -> None:
        self.reason = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.answers: list[Told] = []
        self._parser = httptools.HttpResponseParser(self)

    def read(self, data: bytes) -> Told | None:
        """Read the first answer that is not of status 1xx; None if it is refused, or does not end by itself."""
        with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(data)
            return self.answers[0] if self.answers else None
        return None

    def on_status(self, reason: bytes) -> None:
        """Take the words beside a status."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Note what the head says."""
        self.head = (self._parser.get_status_code(), self._parser.get_http_version(), self.reason, self.headers)
        self.reason, self.headers = b"", []

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Note an answer."""
        if self.head[0] not in range(100, 200):
            self.answers.append((*self.head, self.body))


WORDS = [
    *(
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 202",
        b"HTTP/1.1  409  C ",
        b"HTTP/1.1 204 x",
        b"HTTP/1.1 100 Continue",
        b"HTTP/2.0 300 ",
    ),
    *(b"\r\n", b"\r\n", b"\r\n\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b":", b"; ", b",", b"\0", b"\xff"),
    *(b"Content-Length: 5", b"Content-Length: 0", b"Content-Length:  05 ", b"Transfer-Encoding: chunked", b"X: y"),
    *(
        b"Transfer-Encoding:gzip , Chunked",
        b"Transfer-Encoding: identity",
        b"Connection: close",
        b"connection: keep-alive",
    ),
    *(
        b"Proxy-Connection: close",
        b"Connection: x, Close",
        b"X-Y:",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"2;a=b\r\n",
        b"0",
    ),
]
#: The rows with words in odd places, and words alone.
odd_answers = st.builds(
    lambda row, places, words: reduce(
        lambda data, edit: data[: edit[0]] + edit[1] + data[edit[0] + edit[2] :],
        zip(places, words, [0, 1, 2], strict=True),
        row,
    ),
    st.sampled_from([row.data for row in ROWS.values()]),
    st.tuples(*[st.integers(0, 90)] * 3),
    st.tuples(*[st.one_of(st.just(b""), st.sampled_from(WORDS))] * 3),
) | st.lists(st.sampled_from(WORDS), max_size=14).map(lambda words: OK[:-2] + b"".join(words))


@given(data=odd_answers, is_lenient=st.booleans())
@example(data=OK + LENGTH + b"\r\nhello", is_lenient=True)
@example(data=OK + CHUNKED + b"\r\n" + CHUNKS, is_lenient=True)
def test_what_httptools_reads_is_read_the_same(data: bytes, is_lenient: bool) -> None:
    """Both readers of heads, and the reader of bodies, agree with httptools on all that httptools reads.

    Only a status below 100, and the protocol RTSP, are no answers here.
    """
    expected = Strict().read(data)
    if expected is None or expected[0] < 100 or b"RTSP" in data:
        return
    answers = Answers()
    with pytest.MonkeyPatch.context() as patch:
        if is_lenient:
            patch.setattr(answer, "_read_head", lenient.read_head)
        answers.feed(data)
    head = (answers.status, answers.version, answers.reason, answers.headers)
    assert answers.is_complete, answers.fault
    assert (*head, answers.take()) == expected


@given(data=odd_answers, places=st.lists(st.integers(1, 200), max_size=5))
def test_an_answer_of_odd_words_is_the_same_however_it_is_split(data: bytes, places: list[int]) -> None:
    """For any input, the result does not depend on how the bytes are split."""
    ends = [*sorted({place for place in places if place < len(data)}), len(data)]
    pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert read(pieces, is_closed=True)._replace(may_follow=False) == read([data], is_closed=True)._replace(
        may_follow=False
    )
