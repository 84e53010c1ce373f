"""Reads heads of answers that RFC 9112 allows a client to refuse, as other clients read them.

Law: pure. A head that two clients could read as different answers is a `ValueError`, which says why.

Gateways send such heads, and aiohttp, curl, httpx or Python's http.client accept them. Each rule names the clients that
it follows.
"""

import re
from typing import Final, NamedTuple

#: Headers of one answer. Python's http.client allows 100.
MOST_HEADERS: Final = 1000

#: aiohttp allows any version of this form, http.client anything after "HTTP/1.", curl "HTTP/2". Blanks may come before
#: and after the version. "http/" is refused, as by aiohttp, httpx and http.client; curl reads it as status 200.
_STATUS_LINE: Final = re.compile(rb"[ \t]*HTTP/(?:(\d\.\d)|1\.\S*|2)[ \t]+(\d{3})(?:[ \t](.*))?", re.DOTALL)
#: The line end in a header that continues on the next line (RFC 9112, section 5.2). It is replaced by a space.
_FOLD: Final = re.compile(rb"\r{0,2}\n[ \t]+")
#: RFC 9110, section 5.6.2. A header with another name is left out, because nothing reads it.
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: The headers that say where the body ends.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class Head(NamedTuple):
    """The head of an answer.

    Attributes:
        status: The status.
        reason: The reason phrase.
        version: The version of HTTP, such as "1.1".
        headers: Names and values as they came.
    """

    status: int
    reason: bytes
    version: str
    headers: list[tuple[bytes, bytes]]


def read_head(data: bytes) -> Head:
    """Read a head, from its first byte to the empty line that ends it.

    Raises:
        ValueError: The head is not HTTP, or clients could read it as different answers.
    """
    first, _, block = data.partition(b"\n")
    line = _STATUS_LINE.fullmatch(first.rstrip(b"\r"))
    if line is None:
        raise ValueError("what came is not HTTP: its first line is no status line")
    return Head(int(line[2]), line[3] or b"", (line[1] or b"1.1").decode(), _read_headers(block))


def _read_headers(block: bytes) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    lines = [line.rstrip(b"\r") for line in _FOLD.sub(b" ", block).split(b"\n")]
    if len(lines) - lines.count(b"") > MOST_HEADERS:
        raise ValueError("the answer has too many headers")
    for line in lines:
        name, _, value = line.partition(b":")
        # Blanks before the colon are removed (RFC 9112, section 5.1), as curl does.
        name = name.rstrip(b" \t")
        if b"\0" in line:
            raise ValueError("what came is not HTTP: a header contains a zero byte")
        if b":" in line.partition(b"\r")[2]:
            raise ValueError("a header holds a CR, after which http.client reads another header, and curl does not")
        if line.startswith(b"HTTP/"):
            raise ValueError("the answer has a second status line")
        # Only the first line can begin with a blank here. aiohttp reads it as a header; http.client does not.
        if name.lstrip(b" \t").lower() in _FRAMING and line.startswith((b" ", b"\t")):
            raise ValueError("the first header of the answer begins with a blank, and tells where the body ends")
        # A line without a colon is left out as well, as http.client does.
        if _NAME.fullmatch(name) and b":" in line:
            headers.append((name, value.strip(b" \t").replace(b"\r", b" ")))
    return headers
