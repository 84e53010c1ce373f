"""Lanes: connections of our own, which cost the same however many there are.

Law: until the first write nothing of a request has left, and it fails with `ConnectError`, `ConnectTimeout`,
`PoolTimeout` or `LocalProtocolError`. From then on all of it may have, and it fails with another error. It is written
once: a lane that dies under a request is never the cause of a second one.
"""

import re
import select
import ssl
import sys
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from itertools import chain
from typing import Final, Protocol, Self

import anyio
import anyio.abc
import httpx
from anyio.streams.tls import TLSAttribute, TLSStream

from bulkrestart.cloud.answer import Answers
from bulkrestart.cloud.body import EMPTY
from bulkrestart.cloud.clone import PORTS, Clone, Origin, address_of

#: Seconds after which an idle lane is not used any more. Of the servers in wide use Apache is the quickest to close one
#: (KeepAliveTimeout, 5 s), and a request that crosses the close on its way is one whose fate is unknown.
_IDLE_LIFE: Final = 4.0
#: Bytes that are read at once: what asyncio reads from a socket, so that nothing is left in its hands.
_READ_SIZE: Final = 256 * 1024
#: Bytes that are parsed without a pause: if each is a chunk, they take about 2 ms.
_FEED_SIZE: Final = 16 * 1024
#: Bytes of a request that are written at once; a reboot is a few hundred.
_WRITE_SIZE: Final = 64 * 1024
#: What a name is made of (RFC 9110, section 5.6.2), and what else may stand on a line but its end (section 5.5).
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLAIN: Final = bytes(code for code in range(256) if code >= 0x20 and code != 0x7F) + b"\t"

_UNBOUNDED: Final = nullcontext()
_CLOSED: Final = "the client is closed"

#: Seconds for each phase, as httpx's `timeout` extension has them: connect, read, write, pool.
_Timeout = Mapping[str, float | None]
#: httpx's `trace` extension: called with the name of each step.
_Trace = Callable[[str, Mapping[str, object]], Awaitable[None]]


class _Socket(Protocol):
    """The part of a socket that asyncio's and trio's wrappers have in common."""

    def fileno(self) -> int: ...


class LaneTransport(httpx.AsyncBaseTransport):
    """A transport of lanes: each is one connection that carries one request at a time.

    httpx's own pool looks through all its connections for each that is idle, so its cost per request grows with their
    number; here a free lane is found in one step. It heeds the extensions `timeout` and `trace` of httpx; of the steps
    it tells `connection.wait.started`, before anything else, `http11.send_request_headers.started`, right before
    the first write, and `http11.receive_response_headers.complete`. If the trace raises an exception, the connection is
    closed; before the first write nothing has left then. It knows no proxies and no HTTP/2.

    Args:
        verify: How certificates are verified; one context for all lanes.
        max_at_once: How many lanes are busy at once; who finds none free waits for its turn.
    """

    def __init__(self, verify: ssl.SSLContext, *, max_at_once: int) -> None:
        verify.set_alpn_protocols(["http/1.1"])
        self._verify = verify
        self._turns = anyio.Semaphore(max_at_once, fast_acquire=True)
        # The lane used last is used next: what is not needed goes idle, the first of them longest.
        self._idle: defaultdict[Origin, deque[_Lane]] = defaultdict(deque)
        self._busy: set[_Lane] = set()
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request over a lane of its own, which is free again when the answer is in, or closed."""
        origin, target = address_of(request)
        head = _head_of(request, target)
        timeout: _Timeout = request.extensions.get("timeout", {})
        trace: _Trace = request.extensions.get("trace", _tell_nobody)
        await trace("connection.wait.started", {"request": request})
        try:
            self._turns.acquire_nowait()
        except anyio.WouldBlock:
            with _within(timeout.get("pool"), httpx.PoolTimeout):
                await self._turns.acquire()
        try:
            lane = await self._take(origin, timeout)
        except BaseException:
            self._turns.release()
            raise
        self._busy.add(lane)
        try:
            await trace("http11.send_request_headers.started", {"request": request})
            answers = await lane.exchange(head, request, timeout)
            version = b"HTTP/" + answers.version.encode()
            told = (version, answers.status, answers.reason, answers.headers)
            await trace("http11.receive_response_headers.complete", {"request": request, "return_value": told})
        except BaseException:
            await self._drop(lane)
            raise
        stream: httpx.AsyncByteStream
        if answers.is_complete:
            # Nobody has to close such an answer: its lane is free already.
            stream = httpx.ByteStream(body) if (body := answers.take()) else EMPTY
            await self._give_back(lane)
        else:
            stream = _Body(lane, timeout.get("read"), self._give_back)
        return httpx.Response(
            answers.status,
            headers=answers.headers,
            stream=stream,
            extensions={"http_version": version, "reason_phrase": answers.reason},
        )

    async def _take(self, origin: Origin, timeout: _Timeout) -> "_Lane":
        """Find a lane that is idle and whole, or else make one."""
        idle = self._idle[origin]
        now = time.monotonic()
        while idle and idle[0].idle_until < now:
            await idle.popleft().aclose()
        while idle:
            lane = idle.pop()
            if lane.is_whole():
                return lane
            await lane.aclose()
        if not self._is_closed:
            with _within(timeout.get("connect"), httpx.ConnectTimeout):
                lane = _Lane(origin, *await self._connect(*origin))
            if not self._is_closed:
                return lane
            await lane.aclose()
        raise httpx.ConnectError(_CLOSED)

    async def _connect(self, scheme: str, host: str, port: int) -> tuple[anyio.abc.ByteStream, _Socket]:
        if scheme not in PORTS:
            raise httpx.UnsupportedProtocol("the URL is not one of http or https")
        try:
            stream = await anyio.connect_tcp(host, port)
            try:
                await _pause(stream)
                socket = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 (anyio's `extra`, not Django's)
                if scheme == "http":
                    return stream, socket
                # Many close without the notice that TLS asks for, and HTTP tells by itself what is whole.
                secured = await TLSStream.wrap(
                    _LargeReads(stream),
                    server_side=False,
                    hostname=host,
                    ssl_context=self._verify,
                    standard_compatible=False,
                )
                return secured, socket
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
        except Exception as error:  # whatever it is, nothing was sent
            raise httpx.ConnectError(str(error)) from error

    async def _give_back(self, lane: "_Lane") -> None:
        """Let the next request have a lane; close one that cannot carry it."""
        if self._is_closed or not lane.may_carry_more:
            await self._drop(lane)
            return
        self._busy.remove(lane)
        lane.idle_until = time.monotonic() + _IDLE_LIFE
        self._idle[lane.origin].append(lane)
        self._turns.release()

    async def _drop(self, lane: "_Lane") -> None:
        self._busy.remove(lane)
        self._turns.release()
        await lane.aclose()

    async def aclose(self) -> None:
        """Close every lane, for good: what is in flight fails, and so does what comes later."""
        self._is_closed = True
        # Those that are busy are dropped by whoever uses them.
        lanes = [*self._busy, *chain.from_iterable(self._idle.values())]
        self._idle.clear()
        for lane in lanes:
            await lane.aclose()


class _Lane:
    """One connection.

    Attributes:
        origin: Where it leads.
        answers: Reads what comes.
        idle_until: When it has been idle for too long.
    """

    __slots__ = ("_is_written", "_socket", "_stream", "_tls", "answers", "idle_until", "origin")

    def __init__(self, origin: Origin, stream: anyio.abc.ByteStream, socket: _Socket) -> None:
        self.origin = origin
        self.answers = Answers()
        self.idle_until = float("inf")
        self._stream = stream
        self._socket = socket
        self._tls: ssl.SSLObject | None = stream.extra(TLSAttribute.ssl_object, None)  # noqa: S610
        self._is_written = True

    def is_whole(self) -> bool:
        """Tell whether nothing has come since the last answer: no end, and no bytes that nobody asked for."""
        return not has_pending_data(self._socket.fileno()) and (self._tls is None or not has_buffered_data(self._tls))

    @property
    def may_carry_more(self) -> bool:
        """Both request and answer have come to their end, and neither was the last."""
        return self._is_written and self.answers.may_follow

    async def exchange(self, head: bytes, request: httpx.Request, timeout: _Timeout) -> Answers:
        """Write a request, and read the head of its answer, with as much of the body as comes along."""
        self.answers.begin(has_body=request.method != "HEAD")
        self._is_written = False
        # A server may answer before it has read it all, and close.
        self._is_written = await self._write(head, request, timeout.get("write"))
        while not self.answers.status:
            await self.read(timeout.get("read"))
        return self.answers

    async def _write(self, head: bytes, request: httpx.Request, seconds: float | None) -> bool:
        """Write a request; False if the other side does not take it."""
        if isinstance(request, Clone):
            return await self._send(head + request.content, seconds)
        if not isinstance(request.stream, httpx.AsyncByteStream):
            raise RuntimeError("a request whose body is read synchronously")
        is_chunked = "transfer-encoding" in request.headers
        left = int(request.headers.get("content-length", 0))
        buffer = bytearray(head)
        async for chunk in request.stream:
            left -= len(chunk)
            if left < 0 and not is_chunked:
                break
            buffer += b"%x\r\n%b\r\n" % (len(chunk), chunk) if is_chunked and chunk else chunk
            if len(buffer) >= _WRITE_SIZE:
                if not await self._send(bytes(buffer), seconds):
                    return False
                buffer.clear()
        if left and not is_chunked:
            raise httpx.LocalProtocolError("the body of the request is not as long as its head says")
        return await self._send(bytes(buffer + b"0\r\n\r\n" if is_chunked else buffer), seconds)

    async def _send(self, data: bytes, seconds: float | None) -> bool:
        try:
            with _within(seconds, httpx.WriteTimeout):
                await self._stream.send(data)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    async def read(self, seconds: float | None) -> None:
        """Read once.

        Raises:
            httpx.TransportError: What came is no answer, or nothing came.
        """
        if self.answers.fault:
            raise httpx.RemoteProtocolError(self.answers.fault)
        data = b""
        try:
            with _within(seconds, httpx.ReadTimeout):
                data = await self._stream.receive(_READ_SIZE)
        except anyio.EndOfStream:
            pass
        except anyio.ClosedResourceError as error:
            raise httpx.ReadError(_CLOSED) from error
        except (OSError, anyio.BrokenResourceError) as error:
            raise httpx.ReadError(str(error)) from error
        for start in range(0, len(data) or 1, _FEED_SIZE):
            if start:
                await anyio.lowlevel.checkpoint()
            self.answers.feed(data[start : start + _FEED_SIZE])

    async def aclose(self) -> None:
        """Close it, whoever uses it."""
        with anyio.CancelScope(shield=True):
            await self._stream.aclose()


class _LargeReads(anyio.abc.ByteStream):
    """The connection under TLS, read in pieces as large as asyncio's own.

    anyio's TLS stream reads 64 KiB at once. Bytes that asyncio has read beyond that would stay in a buffer of anyio,
    where `_Lane.is_whole` does not see them.
    """

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = _READ_SIZE) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of an answer whose end was not in when its head was. Not a generator: one may be left where it is."""

    def __init__(self, lane: _Lane, seconds: float | None, give_back: Callable[[_Lane], Awaitable[None]]) -> None:
        self._lane: _Lane | None = lane
        self._seconds = seconds
        self._give_back = give_back

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        # Once it is closed, its lane is another request's.
        while self._lane is not None:
            if chunk := self._lane.answers.take():
                return chunk
            if self._lane.answers.is_complete:
                break
            await self._lane.read(self._seconds)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            await self._give_back(lane)


def _head_of(request: httpx.Request, target: bytes) -> bytes:
    """Write the head of a request.

    Raises:
        httpx.LocalProtocolError: A header, or the URL, holds what would end it.
    """
    headers = request.headers.raw
    method = request.method.encode()
    lines = [b"%b: %b\r\n" % pair for pair in headers]
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, b"".join(lines))
    are_names = _is_name(method) and all(_is_name(name) for name, _ in headers)
    # Nothing in it may begin a line of its own, let alone a request of its own.
    if not are_names or b" " in target or head.translate(None, _PLAIN) != b"\r\n" * (len(lines) + 2):
        raise httpx.LocalProtocolError("a header of the request, or its URL, holds a character that none may have")
    return head


@lru_cache(maxsize=128)
def _is_name(word: bytes) -> bool:
    return _NAME.fullmatch(word) is not None


async def _pause(stream: anyio.abc.SocketStream) -> None:
    """Let nobody read from a new connection who was not asked to.

    On asyncio anyio's stream reads ahead until somebody has waited for bytes once, and what it has read does not show
    on the socket, where `_Lane.is_whole` looks.
    """
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stream.receive()


def has_pending_data(descriptor: int) -> bool:
    """Return whether a socket has bytes to read or has ended; a closed socket counts as ended."""
    if descriptor < 0:
        return True
    if sys.platform == "win32":  # which has no poll, and no bound on what select takes
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def has_buffered_data(tls: ssl.SSLObject) -> bool:
    """Return whether TLS holds bytes that were read together with the last answer."""
    try:
        tls.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass
    return True


def _within(seconds: float | None, error: type[httpx.TimeoutException]) -> AbstractContextManager[None]:
    """Bound what is awaited within, if there is a bound; a scope costs as much as a tenth of a request."""
    return _UNBOUNDED if seconds is None else _bounded(seconds, error)


@contextmanager
def _bounded(seconds: float, error: type[httpx.TimeoutException]) -> Iterator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise error("") from None


async def _tell_nobody(step: str, information: Mapping[str, object]) -> None:
    """Stand for the trace of a request that has none."""
