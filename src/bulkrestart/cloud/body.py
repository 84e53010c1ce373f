"""Reads the body of an answer within bounds: on bytes that arrive, on bytes after decompression, and on each step.

Law: at most one content coding is decoded, and a decoder never gives more than one step's bytes at once. A body is
whole only if its coding came to its own end.
"""

import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing, suppress
from typing import Final, TypeVar

import httpx
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from bulkrestart.cloud.rows import Rows

T = TypeVar("T")

#: An answer's body of no bytes: it need not be read.
EMPTY: Final = httpx.ByteStream(b"")
#: What a request that is read here asks for.
CODINGS: Final = "gzip, deflate"

#: Bytes that are handled between two pauses, before and after decompression: about 0.1 ms.
_STEP: Final = 64 * 1024
#: Bytes that take as long as a piece does by itself: a server may send one byte at a time, each as a chunk.
_PIECE: Final = 2048
#: Bytes that are read of a body that is not what was asked for: what went wrong stands in its beginning.
HEAD: Final = 16 * 1024
#: Bytes of a body within which only a wait for bytes can be cancelled, and no pause: more than a page of servers has.
#: Where a body is left in its middle, httpx leaves its generators to the garbage collector, and trio warns of that.
_UNCANCELLED: Final = 8 * 1024 * 1024
#: Bytes that a compressed body may be longer than what it holds: headers, checksums, padding.
_OVERHEAD: Final = 64 * 1024
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_DECODED: Final = _GZIP | {"deflate"}
_GZIP_BITS: Final = zlib.MAX_WBITS | 16
#: Registered content codings (RFC 9110, section 8.4.1, and IANA's registry) that are not decoded here. A word that is
#: no coding ("utf-8", "none") is ignored, as other clients do.
_NOT_DECODED: Final = frozenset(
    {"aes128gcm", "br", "compress", "dcb", "dcz", "exi", "pack200-gzip", "x-compress", "zstd"}
)


class _Plain:
    """Stands for an inflater where there is no content coding."""

    is_whole = True

    def feed(self, data: bytes) -> tuple[bytes]:
        """Give the bytes as they are."""
        return (data,)


class _Inflater:
    """Decompresses one content coding step by step.

    Attributes:
        is_whole: What was fed ends where the coding ends.
    """

    def __init__(self, coding: str) -> None:
        self.is_whole = True
        self._is_gzip = coding in _GZIP
        self._has_member = False
        self._inflate: zlib._Decompress | None = None
        self._is_done = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress the next bytes, at most one step's bytes at once.

        Raises:
            zlib.error: They are not of this coding.
        """
        while not self._is_done:
            if self._inflate is None:
                self._inflate = zlib.decompressobj(_GZIP_BITS if self._is_gzip else _deflate_bits(data))
            try:
                piece = self._inflate.decompress(data, _STEP)
            except zlib.error:
                # After a whole member it is padding, which urllib3 and curl ignore too.
                if not self._has_member:
                    raise
                self._is_done = True
                return
            self._has_member |= self._inflate.eof
            # Of padding it may take a while to see that it is no other member.
            self.is_whole = self._inflate.eof or (self._has_member and self.is_whole and not piece)
            yield piece
            if self._inflate.eof:
                # A file of gzip may have several members, one after the other (RFC 1952, section 2.2).
                data, self._inflate, self._is_done = self._inflate.unused_data, None, not self._is_gzip
                if not data:
                    return
            else:
                data = self._inflate.unconsumed_tail
                if not data and len(piece) < _STEP:
                    return


def _deflate_bits(data: bytes) -> int:
    """Tell which of two formats "deflate" is: zlib's, as RFC 9110 says, or the bare one, which some servers send."""
    return zlib.MAX_WBITS if data[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS


def is_readable(codings: str) -> bool:
    """Tell whether an answer to a request with this Accept-Encoding can be read here.

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
        response: The answer. A body that something else has read already is taken as httpx decoded it.
        bound: Bytes that are read, after decompression; the rest is cut off.
        rows: Takes the body as it arrives; None if all of it is wanted.

    Returns:
        The body, with `rows` only its beginning; and whether it was cut short: it did not come to its end, is longer
        than the bound, or has a coding that is not decoded here.
    """
    if response.stream is EMPTY:
        return b"", False
    kept = bytearray()
    is_whole = False
    try:
        # Whatever a lent client's transport may raise, and what zlib raises.
        with suppress(Exception):
            async with aclosing(_arriving(response)) as chunks:
                is_whole = await _read(chunks, _inflater_of(response), bound, rows, kept)
    finally:
        with suppress(Exception):
            await response.aclose()
        # httpx's stream refers to its response, so that both, and the request, would wait for the garbage collector.
        response.stream = httpx.ByteStream(b"")
    return bytes(kept), not is_whole


async def _arriving(response: httpx.Response) -> AsyncGenerator[bytes]:
    """Give the body as it arrives, a step's bytes at most."""
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


def _inflater_of(response: httpx.Response) -> _Inflater | _Plain | None:
    """Choose what decompresses the body; None if nothing here does."""
    names = _names(response.headers.get("content-encoding", ""))
    if len(names) > 1 or not _NOT_DECODED.isdisjoint(names):
        return None
    is_coded = not response.is_stream_consumed and not _DECODED.isdisjoint(names)
    return _Inflater(names[0]) if is_coded else _Plain()


async def _read(
    chunks: AsyncIterable[bytes],
    inflater: _Inflater | _Plain | None,
    bound: int,
    rows: Rows[T] | None,
    kept: bytearray,
) -> bool:
    """Read a body; tell whether it is whole, or has shown not to be what was asked for."""
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
                return False
            if rows is not None:
                rows.feed(piece)
                await _read_on(rows, bound - left)
                if not rows.is_valid and len(kept) == most:
                    return True
            before_pause -= len(piece) + _PIECE
            if before_pause < 0:
                before_pause = _STEP
                await _pause(bound - left)
    is_whole = inflater is None or inflater.is_whole
    if rows is not None and is_whole:
        rows.end()
        await _read_on(rows, bound - left)
    return is_whole


async def _read_on(rows: Rows[T], so_far: int) -> None:
    while rows.step():
        await _pause(so_far)


async def _pause(so_far: int) -> None:
    """Let other tasks run."""
    await (checkpoint() if so_far > _UNCANCELLED else cancel_shielded_checkpoint())
