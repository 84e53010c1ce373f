"""The body of an answer: how much of it is read, what is decompressed, and what is neither."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Final

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.cloud.body import HEAD, is_readable, read_body
from bulkrestart.cloud.rows import Rows
from bulkrestart.core.secrets import SecretMask

from .loopback import both_backends, leaves_generators

TEXT: Final = b'{"conflictingRequest": {"message": "a lot of words"}}' * 40


def bare(data: bytes) -> bytes:
    """Compress as servers do that take "deflate" by its name."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ACCEPT_ENCODING: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": bare,
    "identity": bytes,
    "": bytes,
    "identity, gzip": gzip.compress,
}


async def arriving(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Give a body in pieces."""
    for piece in pieces:
        yield piece


def read(
    pieces: Sequence[bytes], coding: str | None = None, bound: int = 2**16, rows: Rows[object] | None = None
) -> tuple[bytes, bool]:
    """Read a body that arrives in these pieces."""

    async def main() -> tuple[bytes, bool]:
        headers = None if coding is None else [("Content-Encoding", coding)]
        response = httpx.Response(200, headers=headers, content=arriving(pieces))
        found = await read_body(response, bound, rows)
        assert response.is_closed
        return found

    return anyio.run(main)


def cut(data: bytes, size: int) -> list[bytes]:
    """Cut bytes into pieces."""
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.unmeasured
@pytest.mark.parametrize("coding", ACCEPT_ENCODING)
@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("content", [TEXT, b"x" * 60_000, bytes(range(256)) * 200, b""], ids=len)
def test_one_coding_is_decoded(coding: str, size: int, content: bytes) -> None:
    """One coding is decoded, in whatever pieces it arrives, and nothing is as good as any coding of nothing."""
    for data in {ACCEPT_ENCODING[coding](content), content[:0] or ACCEPT_ENCODING[coding](content)}:
        assert read(cut(data, size), coding) == (content, False)
    assert read([], coding) == (b"", False)


@pytest.mark.parametrize(
    "coding",
    ["gzip, gzip", "gzip,deflate", "deflate, x-gzip", "br", "zstd", "compress", "gzip, br", "gzip, utf-8", "GZIP,GZIP"],
)
def test_no_other_coding_is(coding: str) -> None:
    """Nothing is read of a body with several codings, or with one that is not decoded here, unless it has no bytes."""
    assert read([gzip.compress(gzip.compress(TEXT))], coding) == (b"", True)
    assert read([b"", b""], coding) == (b"", False)


def test_several_headers_are_several_codings() -> None:
    """Two headers say what one header with a comma says."""

    async def main() -> None:
        headers = [("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")]
        response = httpx.Response(200, headers=headers, content=arriving([gzip.compress(gzip.compress(TEXT))]))
        assert await read_body(response, HEAD) == (b"", True)

    anyio.run(main)


@pytest.mark.parametrize("coding", ["utf-8", "none", "binary", "gzip;q=1"])
def test_a_word_that_is_no_coding_is_ignored(coding: str) -> None:
    """Some servers put a charset there; other clients read what comes."""
    data = gzip.compress(TEXT) if coding.startswith("gzip") else TEXT
    assert read([data], coding) == (TEXT, False)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_coding_that_does_not_end_is_cut_short(coding: str) -> None:
    """What was decoded by then is given, and that it is not all."""
    data = ACCEPT_ENCODING[coding](TEXT)
    for length in (1, 2, len(data) // 2, len(data) - 1):
        content, is_cut_short = read([data[:length]], coding)
        assert is_cut_short
        assert TEXT.startswith(content)
    assert read([b"no such coding"], coding) == (b"", True)


def test_a_file_of_several_members_is_one_body() -> None:
    """Members of gzip follow each other (RFC 1952), and what is left of the last one is cut short like any other."""
    data = gzip.compress(b"one, ") + gzip.compress(b"two, ") + gzip.compress(b"three")
    for size in (1, 10, 1000):
        assert read(cut(data, size), "gzip") == (b"one, two, three", False)
        assert read(cut(data[:-9], size), "gzip")[1]
    assert read([data], "gzip", bound=7) == (b"one, tw", True)


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 100, b"\x1f", b"\r\n", b"something else"])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [1, 1000])
def test_what_follows_a_coding_is_ignored(padding: bytes, coding: str, size: int) -> None:
    """Other clients ignore it too."""
    assert read(cut(ACCEPT_ENCODING[coding](TEXT) + padding, size), coding) == (TEXT, False)


def test_what_follows_a_coding_is_bounded() -> None:
    """Bytes that decode to nothing are bounded too: padding, members without content, and flushes."""
    endless = {
        "padding": [gzip.compress(b"x"), *[b"\0" * 65536] * 100],
        "members": [gzip.compress(b"") * 3000] * 100,
        "flushes": [gzip.compress(b"")[:10], *[b"\0\0\0\xff\xff" * 10_000] * 100],
    }
    for pieces in endless.values():
        assert read(pieces, "gzip") in ((b"x", True), (b"", True))


@given(data=st.binary(max_size=200), coding=st.sampled_from(["gzip", "deflate", "", "br", "gzip, gzip"]))
def test_no_bytes_are_an_error(data: bytes, coding: str) -> None:
    """Whatever bytes come, with whatever coding, something is given."""
    content, is_cut_short = read(cut(data, 10), coding)
    assert isinstance(content, bytes)
    assert is_cut_short in (True, False)


@pytest.mark.parametrize("coding", ["", "gzip", "deflate"])
def test_the_bound_counts_after_decompression(coding: str) -> None:
    """As much is read as the bound says, and one byte more is too much."""
    for excess in (0, 1):
        data = ACCEPT_ENCODING[coding](b"x" * (200_000 + excess))
        assert read(cut(data, 1000), coding, bound=200_000) == (b"x" * 200_000, excess == 1)


# With rows.


def keep(row: object, _: SecretMask) -> object:
    """Keep a row as it is."""
    return row


def test_rows_take_the_body_as_it_arrives() -> None:
    """All rows are read, and of the body itself only the beginning is kept."""
    data = json.dumps({"servers": [{"id": f"{number:0900}"} for number in range(500)]}).encode()
    for coding in ("", "gzip"):
        rows = Rows("servers", keep)
        assert read(cut(ACCEPT_ENCODING[coding](data), 5000), coding, 2**20, rows) == (data[:HEAD], False)
        assert rows.is_valid
        assert len(rows.items) == 500


def test_a_body_that_is_not_what_was_asked_for_is_not_read_on() -> None:
    """Once it shows to be something else only its beginning is read, for what it says went wrong."""
    taken: list[bytes] = []

    async def page() -> AsyncIterator[bytes]:
        while True:
            taken.append(b"<html>" * 1000)
            yield taken[-1]

    async def main() -> None:
        rows = Rows("servers", keep)
        content, is_cut_short = await read_body(httpx.Response(200, content=page()), 2**30, rows)
        assert (content, is_cut_short, rows.is_valid) == ((b"<html>" * HEAD)[:HEAD], False, False)
        assert len(taken) == HEAD // 6000 + 1

    anyio.run(main)


def test_rows_of_a_body_that_is_cut_short_are_never_whole() -> None:
    """What is cut at the bound, or breaks off in its coding, does not end for the rows."""
    data = b'{"servers": [1, 2]}'
    for pieces, coding, bound in (([data, b"   "], "", len(data)), ([gzip.compress(data)[:-1]], "gzip", HEAD)):
        rows = Rows("servers", keep)
        content, is_cut_short = read(pieces, coding, bound, rows)
        assert (content.strip(), is_cut_short, rows._is_whole) == (data, True, False)


# What has been read before.


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip"])
def test_what_a_hook_has_read_is_taken_as_it_is(coding: str) -> None:
    """Its bytes are decoded then; a second coding is no more accepted than without the hook."""

    async def main() -> None:
        data = gzip.compress(gzip.compress(TEXT)) if "," in coding else gzip.compress(TEXT)
        response = httpx.Response(200, headers={"Content-Encoding": coding}, content=arriving([data]))
        await response.aread()
        assert await read_body(response, HEAD) == ((b"", True) if "," in coding else (TEXT, False))

    anyio.run(main)


def test_what_a_hook_has_taken_is_cut_short() -> None:
    """A hook that reads a body piece by piece leaves nothing of it."""

    async def main() -> None:
        response = httpx.Response(200, content=arriving([TEXT]))
        with suppress(StopAsyncIteration):
            await anext(response.aiter_raw())
        assert await read_body(response, HEAD) == (b"", True)

    anyio.run(main)


# Pauses.


@both_backends
@pytest.mark.parametrize(
    ("coding", "pieces"),
    [
        ("", [b"x" * 2**20]),
        ("", [b"x"] * 1000),
        ("gzip", [gzip.compress(b"\0" * 2**20)]),
        ("gzip", [gzip.compress(b"") * 1000]),
    ],
    ids=["one piece", "many pieces", "a bomb", "members of nothing"],
)
def test_reading_pauses(backend: str, coding: str, pieces: list[bytes]) -> None:
    """Other tasks run while a body is read, also if all of it is there at once."""

    async def main() -> None:
        runs = 0

        async def count() -> None:
            nonlocal runs
            while True:
                runs += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(count)
            await anyio.lowlevel.checkpoint()
            before = runs
            response = httpx.Response(200, headers={"Content-Encoding": coding}, content=arriving(pieces))
            assert not (await read_body(response, 2**20))[1]
            assert runs - before >= 10
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)


@leaves_generators
@both_backends
def test_a_bomb_ends_in_time(backend: str) -> None:
    """What is decompressed for ever ends when the time of its request is up."""

    async def main() -> None:
        data = gzip.compress(b"\0" * 2**20)

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield data

        response = httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=endless())
        with anyio.move_on_after(0.05) as scope:
            await read_body(response, 2**60)
        assert scope.cancelled_caught
        assert response.is_closed

    anyio.run(main, backend=backend)


@both_backends
def test_a_page_is_read_to_its_end_if_it_is_there(backend: str) -> None:
    """A request that is cancelled while its body is there leaves no generator of httpx to the garbage collector."""

    async def main() -> None:
        data = json.dumps({"servers": list(range(2_000))}).encode()
        rows = Rows("servers", keep)
        response = httpx.Response(200, content=arriving([data, b" " * 2**20]))
        with anyio.CancelScope() as scope:
            scope.cancel()
            assert not (await read_body(response, 2**22, rows))[1]
        assert len(rows.items) == 2_000

    anyio.run(main, backend=backend)


# What is asked for.


@pytest.mark.parametrize(
    ("offered", "is_read"),
    [
        ("", True),
        ("gzip, deflate", True),
        ("identity", True),
        ("gzip;q=0.5, identity", True),
        ("gzip, deflate, br, zstd", False),
        ("BR", False),
        ("*", False),
    ],
)
def test_what_may_be_asked_for(offered: str, is_read: bool) -> None:
    """A request may name what is decoded here; a star stands for everything."""
    assert is_readable(offered) == is_read
