"""Answers read from bytes: what each says, where it ends and whether another may follow, however the bytes are cut."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkrestart.cloud.answer import Answers

OK = b"HTTP/1.1 200 OK\r\n"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


class Told(NamedTuple):
    """What a reader tells of one answer."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    is_complete: bool
    may_follow: bool
    is_faulty: bool


def read(pieces: Sequence[bytes], *, is_closed: bool = False, has_body: bool = True) -> Told:
    """Read an answer that comes in these pieces, as long as there is no fault and no end."""
    answers = Answers()
    answers.begin(has_body=has_body)
    body = b""
    for piece in [*pieces, b""] if is_closed else pieces:
        if answers.is_complete or answers.fault:
            break
        answers.feed(piece)
        body += answers.take()
    headers = answers.headers if answers.status else []
    reason = answers.reason if answers.status else b""
    is_faulty = bool(answers.fault)
    return Told(answers.status, reason, headers, body, answers.is_complete, answers.may_follow, is_faulty)


def cut(data: bytes) -> Iterator[list[bytes]]:
    """Give every way to cut bytes in two, and the one that leaves none whole."""
    yield from ([data[:at], data[at:]] for at in range(1, len(data)))
    yield [data[at : at + 1] for at in range(len(data))]


class Oracle:
    """h11 in the role of the server: what it writes is HTTP, and it knows itself what it means."""

    def __init__(self) -> None:
        self.connection = h11.Connection(our_role=h11.SERVER)
        self.connection.receive_data(b"POST / HTTP/1.1\r\nHost: nova\r\nContent-Length: 0\r\n\r\n")
        while not isinstance(self.connection.next_event(), h11.EndOfMessage):
            pass

    def answer(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
        chunks: Sequence[bytes] = (),
        *,
        reason: bytes = b"",
        before: Sequence[int] = (),
    ) -> bytes:
        """Write an answer; chunked unless a header says how long it is."""
        events: list[h11.Event] = [h11.InformationalResponse(status_code=early, headers=[]) for early in before]
        events.append(h11.Response(status_code=status, headers=list(headers), reason=reason))
        events += [*(h11.Data(data=chunk) for chunk in chunks), h11.EndOfMessage()]
        return b"".join(self.connection.send(event) or b"" for event in events)

    @property
    def may_follow(self) -> bool:
        """Another request may follow."""
        return self.connection.our_state is h11.DONE


def length(body: bytes) -> tuple[bytes, bytes]:
    """Write the header that says how long a body is."""
    return (b"Content-Length", b"%d" % len(body))


@pytest.mark.parametrize(
    ("status", "headers", "chunks", "before"),
    [
        pytest.param(202, [length(b"")], [], [], id="empty"),
        pytest.param(202, [(b"Date", b"x"), (b"X-Empty", b""), length(b"{}")], [b"{}"], [], id="length"),
        pytest.param(409, [], [b'{"conflict', b'": {}}'], [], id="chunked"),
        pytest.param(202, [], [], [], id="chunked, and empty"),
        pytest.param(204, [], [], [], id="204"),
        pytest.param(304, [(b"Content-Length", b"5")], [], [], id="304"),
        pytest.param(202, [length(b"")], [], [100], id="after Continue"),
        pytest.param(202, [length(b"ok")], [b"ok"], [102, 103, 100], id="after several"),
        pytest.param(202, [(b"Connection", b"close"), length(b"ok")], [b"ok"], [], id="closing"),
        pytest.param(200, [(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"), length(b"")], [], [], id="a header twice"),
    ],
)
def test_what_h11_writes_is_read(
    status: int, headers: list[tuple[bytes, bytes]], chunks: list[bytes], before: list[int]
) -> None:
    """An answer means what h11 meant by it, cut at every place, and byte by byte."""
    oracle = Oracle()
    data = oracle.answer(status, headers, chunks, reason=b"Because", before=before)
    for pieces in cut(data):
        told = read(pieces)
        assert (told.status, told.reason, told.body) == (status, b"Because", b"".join(chunks)), pieces
        assert [pair for pair in told.headers if pair[0] not in (b"Transfer-Encoding", b"transfer-encoding")] == headers
        assert (told.is_complete, told.may_follow, told.is_faulty) == (True, oracle.may_follow, False), pieces


tokens = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda text: b"x-" + text.encode())
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map(str.encode)
bodies = st.lists(st.binary(min_size=1, max_size=50), max_size=4)


@given(
    status=st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    headers=st.lists(st.tuples(tokens, values), max_size=5),
    chunks=bodies,
    is_chunked=st.booleans(),
    before=st.lists(st.sampled_from([100, 102, 103]), max_size=2),
    places=st.lists(st.integers(0, 400), max_size=6),
)
def test_what_h11_writes_is_read_in_any_pieces(
    status: int,
    headers: list[tuple[bytes, bytes]],
    chunks: list[bytes],
    is_chunked: bool,
    before: list[int],
    places: list[int],
) -> None:
    """Whatever h11 writes is read as it was meant, wherever it is cut."""
    oracle = Oracle()
    framing = [] if is_chunked else [length(b"".join(chunks))]
    data = oracle.answer(status, [*headers, *framing], chunks, before=before)
    ends = [*sorted({place for place in places if 0 < place < len(data)}), len(data)]
    told = read([data[start:end] for start, end in zip([0, *ends], ends, strict=False)])
    assert (told.status, told.body, told.is_complete, told.may_follow) == (status, b"".join(chunks), True, True)
    assert [pair for pair in told.headers if pair[0].startswith(b"x-")] == headers


SHAPES = [
    ACCEPTED,
    OK + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n",
    OK + b"Connection: close\r\n\r\nuntil the end",
    b"HTTP/1.1 100 Continue\r\n\r\n" + ACCEPTED,
    ACCEPTED + ACCEPTED,
]


@given(
    shape=st.sampled_from(SHAPES),
    at=st.integers(0, 150),
    dropped=st.integers(0, 20),
    inserted=st.binary(max_size=20),
    place=st.integers(1, 150),
)
@example(shape=ACCEPTED, at=0, dropped=0, inserted=b"\r\n", place=1)
@example(shape=ACCEPTED, at=9, dropped=3, inserted=b"101", place=40)
@example(shape=OK + b"Content-Length: 5\r\n\r\nhello", at=60, dropped=0, inserted=b"HTTP", place=44)
def test_whatever_comes_is_no_error_of_ours(shape: bytes, at: int, dropped: int, inserted: bytes, place: int) -> None:
    """Damaged bytes raise nothing; the result does not depend on how they are split; if h11 accepts them, it agrees."""
    data = shape[:at] + inserted + shape[at + dropped :]
    whole = read([data], is_closed=True)
    halves = read([data[:place], data[place:]] if 0 < place < len(data) else [data], is_closed=True)
    assert (whole.is_complete, whole.is_faulty) != (True, True)
    assert halves._replace(may_follow=False) == whole._replace(may_follow=False)
    if whole.is_complete and data.startswith(b"HTTP/1."):
        theirs = read_with_h11(data)
        assert theirs is None or theirs == (whole.status, whole.body)


def read_with_h11(data: bytes) -> tuple[int, bytes] | None:
    """Let h11 read one answer, the connection closed after it; None if it refuses."""
    connection = h11.Connection(our_role=h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "nova"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    status, body = 0, b""
    try:
        while True:
            event = connection.next_event()
            match event:
                case h11.Response():
                    status = event.status_code
                case h11.Data():
                    body += bytes(event.data)
                case h11.EndOfMessage():
                    return status, body
                case h11.NEED_DATA:
                    connection.receive_data(b"")
                case h11.ConnectionClosed() | h11.PAUSED:
                    return None
                case _:
                    pass
    except h11.RemoteProtocolError:
        return None


@pytest.mark.parametrize(
    ("data", "status", "body", "is_complete"),
    [
        pytest.param(b"", 0, b"", False, id="nothing"),
        pytest.param(b"HTTP/1.1 20", 0, b"", False, id="half a line"),
        pytest.param(OK + b"Content-Le", 0, b"", False, id="half a head"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", 0, b"", False, id="only Continue"),
        pytest.param(OK + b"Content-Length: 5\r\n\r\nhell", 200, b"hell", False, id="short body"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 200, b"hello", False, id="no end"),
        pytest.param(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhel", 200, b"hel", False, id="half a chunk"),
        pytest.param(OK + b"\r\nuntil the end", 200, b"until the end", True, id="until the end"),
        pytest.param(OK + b"\r\n", 200, b"", True, id="until the end, and empty"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello", True, id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 200\r\n\r\nhello", 200, b"hello", True, id="without a reason"),
        pytest.param(OK + b"Transfer-Encoding: gzip\r\n\r\nhello", 200, b"hello", True, id="coded, unchunked"),
        pytest.param(OK + b"Connection: close\r\nContent-Length: 9\r\n\r\nhello", 200, b"hello", False, id="closing"),
    ],
)
def test_what_the_end_of_the_connection_makes_of_it(data: bytes, status: int, body: bytes, is_complete: bool) -> None:
    """The end of the connection ends a body that has no other end; any other answer is cut short, and never reused."""
    pieces: list[list[bytes]] = [[data] if data else [], *cut(data)] if data else [[]]
    for parts in pieces:
        told = read(parts, is_closed=True)
        assert (told.status, told.body, told.is_complete) == (status, body, is_complete), parts
        assert (told.is_faulty, told.may_follow) == (not is_complete, False)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="ssh"),
        pytest.param(b"\x00" * 100, id="zeros"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x46", id="a TLS alert"),
        pytest.param(b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n", id="099"),
        pytest.param(b"HTTP/1.1 999999 Odd\r\n\r\n", id="999999"),
        pytest.param(b"HTTP/1.1 -20 Odd\r\n\r\n", id="-20"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", id="101"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + ACCEPTED, id="101 that switches nothing"),
        pytest.param(OK + b"Content-Length: 1, 2\r\n\r\nxy", id="a list of lengths"),
        pytest.param(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", id="two lengths"),
        pytest.param(OK + b"Content-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(OK + b"Content-Length: 99999999999999999999\r\n\r\n", id="length beyond 64 bits"),
        pytest.param(OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="length and chunks"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", id="chunks and length"),
        pytest.param(OK + b"X: a\x00b\r\n\r\n", id="zero in a value"),
    ],
)
def test_what_is_no_answer_is_a_fault(data: bytes) -> None:
    """What is no answer of HTTP/1 is never taken for one, and says why."""
    for pieces in ([data], *cut(data)):
        told = read(pieces)
        assert (told.status, told.is_complete, told.is_faulty) == (0, False, True), pieces


@pytest.mark.parametrize(
    "chunk", [b"not a size\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"2\r\nabc", b"0x2\r\nab\r\n0\r\n\r\n"]
)
def test_a_chunk_that_is_none_leaves_the_answer(chunk: bytes) -> None:
    """What goes wrong in the middle of a body is told after what came before it."""
    data = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + chunk
    for pieces in ([data], *cut(data)):
        told = read(pieces)
        assert (told.status, told.is_complete, told.is_faulty, told.may_follow) == (200, False, True, False)
        assert told.body.startswith(b"hello")


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(ACCEPTED, id="another answer"),
        pytest.param(b"HTTP/1.1 500 Odd\r\nContent-Length: 3\r\n\r\nodd", id="another with a body"),
        pytest.param(b"H", id="a byte of another"),
        pytest.param(b"rubbish", id="rubbish"),
        pytest.param(b"\x00", id="zero"),
        pytest.param(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", id="a switch"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nendless", id="an endless one"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="Continue"),
    ],
)
@pytest.mark.parametrize(
    ("first", "body"),
    [
        pytest.param(OK + b"Content-Length: 5\r\n\r\nhello", b"hello", id="length"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello", id="chunked"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204"),
        pytest.param(OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello", id="closing"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", id="HTTP/1.0"),
    ],
)
def test_of_two_answers_the_first_counts(first: bytes, body: bytes, more: bytes) -> None:
    """What comes after an answer, with it, changes nothing of it, and nothing may follow on that connection."""
    for at in range(1, len(first)):
        told = read([first[:at], first[at:] + more])
        assert (told.body, told.is_complete, told.may_follow, told.is_faulty) == (body, True, False, False)
        assert told.status in (200, 204)
        assert b"odd" not in told.body


def test_a_line_end_between_two_answers_is_none_of_them() -> None:
    """A line end after an answer is let pass, as RFC 9112 (section 2.2) has it for requests: nothing hangs on it."""
    answers = Answers()
    answers.feed(ACCEPTED + b"\r\n")
    assert (answers.is_complete, answers.may_follow) == (True, True)
    answers.begin()
    answers.feed(b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")
    assert (answers.status, answers.reason, answers.may_follow) == (409, b"Conflict", True)


@pytest.mark.parametrize(
    ("head", "may_follow"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: upgrade, close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2,h2c\r\n", True),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
    ],
)
def test_whether_another_may_follow(head: bytes, may_follow: bool) -> None:
    """A connection is kept unless somebody says otherwise, and with HTTP/1.0 only if somebody says so."""
    told = read([head + b"Content-Length: 0\r\n\r\n"])
    assert (told.is_complete, told.may_follow) == (True, may_follow)


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 500\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_the_answer_to_a_head_has_no_body(framing: bytes) -> None:
    """The answer to a HEAD ends with its head, whatever that says of a body; and its connection is not used again."""
    told = read([OK + framing + b"\r\n"], has_body=False)
    assert (told.status, told.body, told.is_complete, told.may_follow) == (200, b"", True, False)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        pytest.param(OK + b"X: ", b"x" * 4096, id="an endless value"),
        pytest.param(OK, b"X: " + b"x" * 4091 + b"\r\n", id="endless headers"),
        pytest.param(b"HTTP/1.1 200 ", b"x" * 4096, id="an endless reason"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 160, id="endless Continue"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"x" * 4091 + b"\r\n", id="trailers"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 4096, id="an endless chunk extension"),
        pytest.param(b"\r\n", b"\r\n" * 2048, id="endless line ends"),
    ],
)
def test_a_head_without_an_end_is_a_fault(start: bytes, more: bytes) -> None:
    """What frames an answer is not read for ever: about 100 KiB is the most, as with h11."""
    answers = Answers()
    answers.feed(start + b"\r\n" if start == b"\r\n" else start or more)
    count = 0
    while not answers.fault:
        assert count < 30
        answers.feed(more)
        count += 1
    assert (answers.is_complete, "too long" in answers.fault) == (False, True)
    assert count > 20


def test_a_long_body_in_small_chunks_is_no_fault() -> None:
    """What frames a body is bounded between two pieces of it, and not over all of it."""
    answers = Answers()
    answers.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(50_000):
        answers.feed(b"1;name=value\r\nx\r\n")
    answers.feed(b"0\r\n\r\n")
    assert (answers.is_complete, answers.fault, len(answers.take())) == (True, "", 50_000)


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("count", [1000, 1001])
def test_headers_are_counted(count: int, is_split: bool) -> None:
    """A thousand headers are more than any answer has; what has more is a fault, however it arrives."""
    answers = Answers()
    head = OK + b"a: b\r\n" * (count - 1) + b"Content-Length: 0\r\n\r\n"
    for piece in (head[:5000], head[5000:]) if is_split else (head,):
        answers.feed(piece)
    assert answers.is_complete == (count == 1000)
    assert answers.fault == ("" if count == 1000 else "the answer has too many headers")
    assert len(answers.headers) == (1000 if count == 1000 else 0)
    answers.feed(b"more")
    assert answers.is_complete == (count == 1000)
