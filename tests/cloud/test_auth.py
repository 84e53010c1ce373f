"""How requests are signed, and that nothing tells the secret."""

import logging
import traceback

import httpx
import pytest

from bulkrestart import Token
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Unanswered, Unsent

from .loopback import ACCEPTED, Connection, client_of, compute_of, listening, read_request

SECRET = "gAAAAABkN0tInAnyLog"


@pytest.mark.asyncio
async def test_the_token_is_the_header_of_every_request() -> None:
    """A token signs every request, and takes the place of a header that a lent client brings."""
    seen: list[list[str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get_list("x-auth-token"))
        return httpx.Response(202)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer), headers={"X-Auth-Token": "old"})
    compute = compute_of(http, auth=Token(SECRET))
    await compute.reboot("s", RebootType.SOFT)
    await compute.show("s")
    await compute.page()
    await compute.actions("s")
    await compute.action("s", "req-1")
    assert seen == [[SECRET]] * 5


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="blank"),
        pytest.param(f"{SECRET}\n", id="newline at the end, as a file has it"),
        pytest.param(f"{SECRET}\r\nX-Evil: 1", id="another header"),
        pytest.param(f" {SECRET}", id="space before"),
        pytest.param(f"Bearer {SECRET}", id="two words"),
        pytest.param(f"{SECRET}\t", id="tab"),
        pytest.param(f"{SECRET}\x00", id="null byte"),
        pytest.param(f"{SECRET}\x7f", id="delete"),
        pytest.param(f"{SECRET}\u200b", id="zero-width space, as a web page pastes it"),
        pytest.param(f"{SECRET}\xe9", id="not ASCII"),
        pytest.param(None, id="None, as an unset variable gives it"),
        pytest.param(SECRET.encode(), id="bytes"),
    ],
)
def test_what_cannot_be_a_token_is_refused(bad: str) -> None:
    """What cannot be a token is a ValueError with the remedy, which does not repeat what may be most of a token."""
    with pytest.raises(ValueError, match="openstack token issue") as caught:
        Token(bad)
    assert SECRET not in str(caught.value)


def test_a_token_is_not_shown() -> None:
    """A token is not shown where it, or what holds it, is printed."""
    token = Token(SECRET)
    compute = compute_of(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(202))), auth=token)
    for shown in (repr(token), str(token), f"{token}", repr([token]), repr(vars(compute)), repr(compute)):
        assert SECRET not in shown
    assert repr(token) == "Token(...)"


@pytest.mark.asyncio
@pytest.mark.parametrize("is_answered", [True, False])
async def test_no_log_shows_the_token(caplog: pytest.LogCaptureFixture, is_answered: bool) -> None:
    """No log shows the token at any level, ours or those of httpx and httpcore, whether the request fails or not."""

    async def handle(connection: Connection) -> None:
        assert SECRET.encode() in await read_request(connection)
        if is_answered:
            await connection.send(ACCEPTED)

    with caplog.at_level(logging.DEBUG):
        async with listening(handle) as address, client_of("own") as http:
            seen = await compute_of(http, f"http://{address}", auth=Token(SECRET)).reboot("s", RebootType.SOFT)
    assert isinstance(seen, Unanswered) is not is_answered
    assert "send_request_headers" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(seen)


@pytest.mark.asyncio
async def test_a_traceback_does_not_show_the_token() -> None:
    """A traceback through a failing request does not show the token, even one that prints the locals of our frames."""

    class Stop(BaseException):
        """Beyond what is caught, so that there is a traceback."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise Stop(str(request.url))

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    with pytest.raises(Stop) as caught:
        await compute_of(http, auth=Token(SECRET)).reboot("s", RebootType.SOFT)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "bulkrestart/cloud/compute.py" in "".join(shown.format())
    assert SECRET not in "".join(shown.format())


@pytest.mark.asyncio
@pytest.mark.parametrize("tail", ["\n", "\r\n", "\x00"])
async def test_a_header_that_cannot_be_sent_is_not_repeated(tail: str) -> None:
    """The words for a header that cannot be sent do not repeat it: it is most often a token read from a file."""

    async def handle(connection: Connection) -> None:
        assert await read_request(connection) == b""

    async with listening(handle) as address, client_of("stock") as http:
        http.headers["X-Auth-Token"] = SECRET + tail
        seen = await compute_of(http, f"http://{address}").reboot("s", RebootType.SOFT)
    assert isinstance(seen, Unsent | Unanswered)
    assert SECRET not in seen.words
