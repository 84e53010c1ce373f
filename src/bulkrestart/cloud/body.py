"""Reads the body of an answer within bounds: of its bytes before and after decompression, and of each step.

Law: at most one content coding is decoded, and one step decodes at most `_STEP` bytes. A body is whole only if its
coding has reached its own end.
"""

import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Final, TypeVar

import httpx
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from bulkrestart.cloud.rows import Rows

T = TypeVar("T")

#: The body of an answer without bytes: it need not be read.
EMPTY: Final = httpx.ByteStream(b"")
#: The Accept-Encoding of a request whose answer is read here.
ACCEPT_ENCODING: Final = "gzip, deflate"

#: The message of a successful answer whose body is not whole: the beginning of that body would say nothing of it.
INCOMPLETE: Final = "the body of the answer ends too early, or is too long"

#: Bytes, before and after decompression, that are handled without a pause: about 0.1 ms.
_STEP: Final = 64 * 1024
#: The fixed cost of a piece, in bytes: a server may send each byte as a chunk of its own.
_PIECE: Final = 2048
#: Bytes that are kept of a body that is not what was asked for: its beginning says what went wrong.
HEAD: Final = 16 * 1024
#: Bytes of a body within which only a wait for bytes can be cancelled, and no pause: more than a page of servers has.
#: Where a body is left in its middle, httpx leaves its generators to the garbage collector, and trio warns of that.
_UNCANCELLED: Final = 8 * 1024 * 1024
#: Bytes by which a compressed body may be longer than its content: headers, checksums, padding.
_OVERHEAD: Final = 64 * 1024
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_DECODED: Final = _GZIP | {"deflate"}
#: The first bytes of gzip (RFC 1952, section 2.3.1).
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_BITS: Final = zlib.MAX_WBITS | 16
#: Registered content codings (RFC 9110, section 8.4.1, and IANA's registry) that are not decoded here. A word that is
#: no coding ("utf-8", "none") is ignored, as in other clients.
_NOT_DECODED: Final = frozenset(
    {"aes128gcm", "br", "compress", "dcb", "dcz", "exi", "pack200-gzip", "x-compress", "zstd"}
)


class _Identity:
    """The inflater of a body without a content coding."""

    is_whole = True

    def feed(self, data: bytes) -> tuple[bytes]:
        """Return the bytes unchanged."""
        return (data,)


class _Inflater:
    """Decompresses one content coding step by step.

    Attributes:
        is_whole: Whether the bytes so far end where the coding ends.
    """

    def __init__(self, coding: str) -> None:
        self.is_whole = True
        self._is_gzip = coding in _GZIP
        self._has_member = False
        self._inflate: zlib._Decompress | None = None
        self._is_done = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress the next bytes, in pieces of at most `_STEP` bytes.

        Raises:
            zlib.error: The bytes are not in this coding.
        """
        while not self._is_done:
            if self._inflate is None:
                self._inflate = zlib.decompressobj(_GZIP_BITS if self._is_gzip else _deflate_bits(data))
            try:
                piece = self._inflate.decompress(data, _STEP)
            except zlib.error:
                # After a whole member the rest is padding, which urllib3 and curl ignore too.
                if not self._has_member:
                    raise
                self._is_done = True
                return
            self._has_member |= self._inflate.eof
            # It can take some bytes until padding is known not to be another member.
            self.is_whole = self._inflate.eof or (self._has_member and self.is_whole and not piece)
            yield piece
            if self._inflate.eof:
                # A gzip file may have several members, one after the other (RFC 1952, section 2.2).
                data, self._inflate, self._is_done = self._inflate.unused_data, None, not self._is_gzip
                if not data:
                    return
            else:
                data = self._inflate.unconsumed_tail
                if not data and len(piece) < _STEP:
                    return


def _deflate_bits(data: bytes) -> int:
    """Return the window bits for "deflate": zlib's format, as RFC 9110 says, or raw deflate, as some servers send."""
    return zlib.MAX_WBITS if data[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS


def is_readable(codings: str) -> bool:
    """Return whether any answer to a request with this Accept-Encoding can be decoded here.

    Args:
        codings: The value of the header.
    """
    return not any(name in _NOT_DECODED or name == "*" for name in _names(codings))


def _names(value: str) -> list[str]:
    """Read a list of content codings."""
    names = [word.partition(";")[0].strip().lower() for word in value.split(",")]
    return [name for name in names if name not in ("", "identity")]


async def read_body(response: httpx.Response, bound: int, rows: Rows[T] | None = None) -> tuple[bytes, bool]:
    """Read the body of an answer to its end, or to the bound, and close the answer.

    Args:
        response: The answer. If its body was read before, for example by a hook, it is used as httpx decoded it.
        bound: Bytes that are read, after decompression; the rest is cut off.
        rows: Parses the body as it arrives; None if the whole body is wanted.

    Returns:
        The body (with `rows`, only its beginning), and whether it was cut short: it did not reach its end, is longer
        than the bound, or has a coding that is not decoded here.
    """
    if response.stream is EMPTY:
        return b"", False
    kept = bytearray()
    is_whole = False
    try:
        # A lent client's transport may raise anything; zlib raises its own error.
        with suppress(Exception):
            async with aclosing(_arriving(response)) as chunks:
                is_whole = await _read(chunks, _inflater_of(response), bound, rows, kept)
    finally:
        with suppress(Exception):
            await response.aclose()
        # httpx's stream refers to its response, so that both, and the request, would wait for the garbage collector.
        response.stream = httpx.ByteStream(b"")
    return bytes(kept), not is_whole


def coding_fault(headers: Mapping[str, str], body: bytes, *, is_cut_short: bool) -> str:
    """Return that a body is not in the content coding that its headers name; "" if nothing shows that.

    Args:
        headers: The headers of the answer.
        body: What was read of its body.
        is_cut_short: Whether that is not the whole body.
    """
    named = headers.get("content-encoding", "")
    if body.startswith(_GZIP_MAGIC) and not _names(named):
        return "the body of the answer is in gzip, and no Content-Encoding says so"
    if is_cut_short and not body and _names(named):
        return f"the body of the answer cannot be decoded (Content-Encoding: {named})"
    return ""


async def _arriving(response: httpx.Response) -> AsyncGenerator[bytes]:
    """Yield the body as it arrives, in pieces of at most `_STEP` bytes."""
    if response.is_stream_consumed:
        chunk = response.content
        for start in range(0, len(chunk), _STEP):
            yield chunk[start : start + _STEP]
        return
    stream = response.aiter_raw()
    assert isinstance(stream, AsyncGenerator)
    async with aclosing(stream):
        async for chunk in stream:
            for start in range(0, len(chunk), _STEP):
                yield chunk[start : start + _STEP]


def _inflater_of(response: httpx.Response) -> _Inflater | _Identity | None:
    """Return the inflater of a body; None if its coding is not decoded here."""
    names = _names(response.headers.get("content-encoding", ""))
    if len(names) > 1 or not _NOT_DECODED.isdisjoint(names):
        return None
    is_coded = not response.is_stream_consumed and not _DECODED.isdisjoint(names)
    return _Inflater(names[0]) if is_coded else _Identity()


async def _read(
    chunks: AsyncIterable[bytes],
    inflater: _Inflater | _Identity | None,
    bound: int,
    rows: Rows[T] | None,
    kept: bytearray,
) -> bool:
    """Read a body; return True if it is whole, is a page that was cut, or is known not to be what was asked for."""
    left, raw_left, before_pause = bound, bound + _OVERHEAD, _STEP
    most = bound if rows is None else HEAD
    async for chunk in chunks:
        if inflater is None:
            return False
        raw_left -= len(chunk)
        if raw_left < 0:
            return False
        for piece in inflater.feed(chunk):
            kept += piece[: most - len(kept)]
            left -= len(piece)
            if left < 0:
                return rows is not None and rows.cut()
            if rows is not None:
                rows.feed(piece)
                await _parse_available(rows, bound - left)
                if rows.is_cut or (not rows.is_valid and len(kept) == most):
                    return True
            before_pause -= len(piece) + _PIECE
            if before_pause < 0:
                before_pause = _STEP
                await _pause(bound - left)
    is_whole = inflater is None or inflater.is_whole
    if rows is not None and is_whole:
        rows.end()
        await _parse_available(rows, bound - left)
    return is_whole


async def _parse_available(rows: Rows[T], so_far: int) -> None:
    while rows.step():
        await _pause(so_far)


async def _pause(so_far: int) -> None:
    """Let other tasks run."""
    await (checkpoint() if so_far > _UNCANCELLED else cancel_shielded_checkpoint())
