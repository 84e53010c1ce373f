"""How requests are signed, and that nothing tells the secret."""

import asyncio
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from unittest.mock import AsyncMock, Mock

import anyio
import anyio.to_thread
import httpx
import pytest
import trio

from bulkrestart import Outcome, RestartClient, Token
from bulkrestart.cloud.credentials import SignInError, Trouble
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Unanswered, Unsent
from bulkrestart.simulator import Cloud, asgi
from tests.virtual import cloud_of, slow_down, virtually

from .loopback import ACCEPTED, Connection, both_backends, client_of, compute_of, listening, read_request, sender_of
from .scripted import DOWN, WRONG_PASSWORD, Scripted

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
        async with listening(handle) as address, sender_of("proxied") as sender:
            seen = await compute_of(sender, f"http://{address}", auth=Token(SECRET)).reboot("s", RebootType.SOFT)
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

    async with listening(handle) as address, client_of("lent") as http:
        http.headers["X-Auth-Token"] = SECRET + tail
        seen = await compute_of(http, f"http://{address}").reboot("s", RebootType.SOFT)
    assert isinstance(seen, Unsent | Unanswered)
    assert SECRET not in seen.words


# A function that gives the token.


async def give() -> str:
    """Give it as a coroutine function does."""
    await anyio.lowlevel.checkpoint()
    return SECRET


class Source:
    """Gives it when it is called."""

    def __call__(self) -> str:
        """Give it."""
        return SECRET


class AsyncSource:
    """Gives it when it is called and awaited."""

    async def __call__(self) -> str:
        """Give it."""
        return await give()

    async def give(self, tail: str = "") -> str:
        """Give it."""
        return await give() + tail


@both_backends
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda: SECRET, id="lambda"),
        pytest.param(Source(), id="callable object"),
        pytest.param(partial(str.strip, f" {SECRET} "), id="partial"),
        pytest.param(Mock(return_value=SECRET), id="mock"),
        pytest.param(give, id="coroutine function"),
        pytest.param(AsyncSource(), id="callable object, async"),
        pytest.param(AsyncSource().give, id="method, async"),
        pytest.param(partial(AsyncSource().give, ""), id="partial, async"),
        pytest.param(lambda: give(), id="lambda that gives a coroutine"),
        pytest.param(AsyncMock(return_value=SECRET), id="mock, async"),
    ],
)
def test_a_function_gives_the_token(backend: str, source: Callable[[], str | Awaitable[str]]) -> None:
    """Whatever can be called, plain or async, gives the token, and it lasts until it is refused."""

    async def main() -> None:
        assert (await Token(source).fetch()).headers == {"X-Auth-Token": SECRET}

    anyio.run(main, backend=backend)


@both_backends
def test_a_plain_function_does_not_block_the_event_loop(backend: str) -> None:
    """It is called in another thread, however many of the program's own threads are busy; an async one is not."""
    threads: list[int] = []

    def block() -> str:
        threads.append(threading.get_ident())
        return SECRET

    async def wait() -> str:
        threads.append(threading.get_ident())
        return SECRET

    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        await limiter.acquire()
        with anyio.fail_after(5.0):
            await Token(block).fetch()
            await Token(wait).fetch()
        limiter.release()

    anyio.run(main, backend=backend)
    assert threads[0] != threading.get_ident() == threads[1]


def fail(error: BaseException) -> str:
    """Raise it."""
    raise error


async def fail_later(error: BaseException) -> str:
    """Raise it."""
    await anyio.lowlevel.checkpoint()
    raise error


@both_backends
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda: None, id="nothing"),
        pytest.param(lambda: "", id="empty"),
        pytest.param(lambda: f"{SECRET}\n", id="newline"),
        pytest.param(lambda: SECRET.encode(), id="bytes"),
        pytest.param(lambda: {"token": SECRET}, id="dictionary"),
        pytest.param(lambda: (SECRET, None), id="pair"),
        pytest.param(lambda: Token(SECRET), id="token"),
        pytest.param(lambda: give, id="function"),
        pytest.param(AsyncMock(return_value=None), id="nothing, async"),
    ],
)
def test_what_a_function_gives_may_be_no_token(backend: str, source: Callable[[], str | Awaitable[str]]) -> None:
    """It is trouble that says what is wrong with it, and does not repeat what may be most of a token."""

    async def main() -> None:
        with pytest.raises(SignInError, match="must be printable ASCII without white space") as caught:
            await Token(source).fetch()
        assert SECRET not in str(caught.value.trouble)
        assert not caught.value.trouble.is_final

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize(
    ("source", "name"),
    [
        pytest.param(partial(fail, RuntimeError(f"X-Auth-Token: {SECRET}")), "RuntimeError", id="error"),
        pytest.param(partial(fail, ValueError(SECRET)), "ValueError", id="odd value"),
        pytest.param(partial(fail, KeyError("OS_TOKEN")), "KeyError", id="no variable"),
        pytest.param(partial(fail, OSError(2, "No such file", SECRET)), "FileNotFoundError", id="no file"),
        pytest.param(partial(fail, TimeoutError()), "TimeoutError", id="time-out"),
        pytest.param(partial(fail, SystemExit(1)), "RuntimeError", id="exit"),
        pytest.param(partial(fail, StopIteration()), "RuntimeError|StopIteration", id="end of an iterator"),
        pytest.param(partial(fail_later, RuntimeError(SECRET)), "RuntimeError", id="async"),
        pytest.param(partial(fail_later, ExceptionGroup("both", [OSError(SECRET)])), "ExceptionGroup", id="group"),
        pytest.param(lambda: fail_later(RuntimeError(SECRET)), "RuntimeError", id="coroutine"),
        pytest.param(lambda: 1 / 0, "ZeroDivisionError", id="defect"),
        pytest.param(lambda _: SECRET, "TypeError", id="argument"),
    ],
)
def test_a_function_that_fails_is_in_trouble(
    backend: str, source: Callable[[], str | Awaitable[str]], name: str
) -> None:
    """Whatever goes wrong in it is trouble that may pass; its own words may hold a token, and are only its cause."""

    async def main() -> None:
        with pytest.raises(SignInError, match=f"the function that gives the token fails: ({name})$") as caught:
            await Token(source).fetch()
        assert str(caught.value) == caught.value.trouble.words
        assert SECRET not in str(caught.value.trouble)
        assert not caught.value.trouble.is_final
        assert caught.value.__cause__ is not None

    anyio.run(main, backend=backend)


def test_what_a_function_awaits_may_be_cancelled() -> None:
    """A task of its own that was cancelled is its trouble, and not our cancellation (asyncio)."""

    async def source() -> str:
        task = asyncio.create_task(asyncio.sleep(3600.0))
        await asyncio.sleep(0.0)
        task.cancel()
        await task
        return SECRET

    async def main() -> None:
        with pytest.raises(SignInError, match=r"CancelledError$"):
            await Token(source).fetch()

    asyncio.run(main())


def test_what_a_function_awaits_may_be_cancelled_on_trio() -> None:
    """A cancellation that escapes its own scope is its trouble, and not ours (trio)."""

    async def source() -> str:
        escaped: list[trio.Cancelled] = []
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                escaped.append(error)
                raise
        raise escaped[0]

    async def main() -> None:
        with pytest.raises(SignInError, match=r"Cancelled$"):
            await Token(source).fetch()

    trio.run(main)


@both_backends
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_function_that_hangs_can_be_cancelled(backend: str, kind: str) -> None:
    """A sign-in that hangs ends with whoever waits for it, and the next one asks again."""
    released = threading.Event()
    asked: list[str] = []

    def block() -> str:
        asked.append("plain")
        if len(asked) == 1:
            assert released.wait(5.0)
        return SECRET

    async def wait() -> str:
        asked.append("async")
        if len(asked) == 1:
            await anyio.sleep_forever()
        return SECRET

    async def main() -> None:
        token = Token(block if kind == "plain" else wait)
        with anyio.move_on_after(0.05) as scope:
            await token.sign_in()
        assert scope.cancelled_caught
        assert not token.is_signed_in
        with anyio.fail_after(2.0):
            assert await token.sign_in() is None
        assert asked == [kind] * 2

    try:
        anyio.run(main, backend=backend)
    finally:
        released.set()


@pytest.mark.asyncio
async def test_a_function_that_hangs_can_be_cancelled_natively() -> None:
    """Asyncio's own cancellation ends it as well, and is not taken for its trouble."""
    hanging = asyncio.Event()

    async def wait() -> str:
        hanging.set()
        await asyncio.sleep(3600.0)
        return SECRET

    task = asyncio.create_task(Token(wait).sign_in())
    await hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@both_backends
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_function_is_asked_once_for_all(backend: str, kind: str) -> None:
    """However many tasks begin at once, one asks, and it is asked again only when the cloud refuses what it gave."""
    asked: list[None] = []

    def block() -> str:
        asked.append(None)
        return f"{SECRET}-{len(asked)}"

    async def wait() -> str:
        await anyio.lowlevel.checkpoint()
        return block()

    async def main() -> None:
        token = Token(block if kind == "plain" else wait)

        async def sign_in() -> None:
            assert await token.sign_in() is None

        async def all_sign_in() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(200):
                    group.start_soon(sign_in)

        await all_sign_in()
        await all_sign_in()
        assert len(asked) == 1
        request = next(token.auth_flow(httpx.Request("GET", "http://cloud.test/")))
        for status in (200, 202, 400, 403, 404, 409, 429, 500, 503):
            assert token.note(request, status) is False
        await all_sign_in()
        assert len(asked) == 1
        # The first refusal may come from a single node.
        assert token.note(request, 401)
        assert token.is_signed_in
        assert token.note(request, 401)
        assert not token.is_signed_in
        await all_sign_in()
        assert len(asked) == 2
        # The same token, refused again and late, is not the newest any more.
        assert token.note(request, 401)
        await all_sign_in()
        assert len(asked) == 2
        request = next(token.auth_flow(httpx.Request("GET", "http://cloud.test/")))
        assert request.headers["x-auth-token"] == f"{SECRET}-2"

    anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    ("statuses", "was_good"),
    [
        ([], False),
        ([200], True),
        ([202], True),
        ([204], True),
        ([403], True),
        ([404], True),
        ([409], True),
        ([400], False),
        ([429], False),
        ([302], False),
        ([500], False),
        ([503, 200, 500], True),
    ],
)
def test_what_shows_that_a_token_is_good(statuses: list[int], was_good: bool) -> None:
    """A refusal of a token that the cloud has taken before tells of its end; of another, that it never was good."""

    async def main() -> None:
        token = Scripted()
        assert await token.sign_in() is None
        request = next(token.auth_flow(httpx.Request("GET", "http://cloud.test/")))
        for status in statuses:
            assert token.note(request, status) is False
        assert token.note(request, 401) is was_good

    virtually(main)


def test_a_token_as_text_is_never_given_up() -> None:
    """There is nothing else to sign with."""

    async def main() -> None:
        token = Token(SECRET)
        for _ in range(3):
            assert await token.sign_in() is None
            request = next(token.auth_flow(httpx.Request("GET", "http://cloud.test/")))
            assert token.note(request, 200) is False
            assert token.note(request, 401) is True
            assert token.is_signed_in

    virtually(main)


def test_a_request_that_was_signed_by_another_says_nothing() -> None:
    """The answer to a request that carries no credential of ours changes nothing."""

    async def main() -> None:
        auth = Scripted()
        assert await auth.sign_in() is None
        assert auth.note(httpx.Request("GET", "http://cloud.test/"), 401) is False
        assert auth.is_signed_in

    virtually(main)


def test_nothing_is_signed_before_the_sign_in() -> None:
    """A lent client that uses it for itself is told what is missing, or why there is nothing to sign with."""

    async def main() -> None:
        auth = Scripted()
        request = httpx.Request("GET", "http://cloud.test/")
        with pytest.raises(SignInError, match="not signed in"):
            next(auth.auth_flow(request))
        auth.trouble = DOWN
        assert await auth.sign_in() == Trouble(DOWN.words, DOWN.remedy, is_final=True)
        with pytest.raises(SignInError, match="Keystone is down"):
            next(auth.auth_flow(request))
        assert "x-auth-token" not in request.headers

    virtually(main)


CUT = Trouble("the connection was cut", "look at the network", is_cut=True)


@pytest.mark.parametrize(
    ("troubles", "asked", "end"),
    [
        pytest.param([CUT], [0.0, 0.5], None, id="once"),
        pytest.param([CUT, CUT], [0.0, 0.5, 2.5], None, id="twice"),
        pytest.param([CUT, CUT, CUT], [0.0, 0.5, 2.5], CUT, id="always"),
        pytest.param([CUT, WRONG_PASSWORD], [0.0, 0.5], WRONG_PASSWORD, id="then refused"),
        pytest.param([CUT, DOWN], [0.0, 0.5], DOWN, id="then down"),
        pytest.param([DOWN], [0.0], DOWN, id="down"),
    ],
)
def test_a_sign_in_that_is_cut_is_tried_again(troubles: list[Trouble], asked: list[float], end: Trouble | None) -> None:
    """A closed connection is tried again, also before a run; a refused password is not."""

    async def main() -> None:
        auth = Scripted()
        left = [*troubles]
        auth.watch = lambda: setattr(auth, "trouble", left.pop(0) if left else None)
        began = anyio.current_time()
        trouble = await auth.sign_in()
        assert [at - began for at in auth.asked] == asked
        assert trouble == (None if end is None else replace(end, is_final=True))

    virtually(main)


def test_a_sign_in_that_hangs_is_given_up() -> None:
    """After two minutes it is trouble like any other."""

    async def main() -> None:
        auth = Scripted(takes=1e6)
        trouble = await auth.sign_in()
        assert str(trouble) == "the sign-in takes more than 120 s; see why it hangs"
        assert trio.current_time() == 120.0

    virtually(main)


def test_a_life_that_is_over_already_is_no_sign_in_for_ever() -> None:
    """A token whose life is said to be nothing, or less, is not fetched again and again for one request."""

    async def main() -> None:
        for life in (0.0, -60.0):
            auth = Scripted(life=life, takes=1.0)
            with trio.move_on_after(600.0) as scope:
                await auth.sign_in()
            assert len(auth.asked) <= 3, scope

    virtually(main)


def test_a_function_is_asked_again_when_its_token_ends() -> None:
    """Through a run: a token that ends is asked for again, once, and every server comes back."""

    async def main() -> None:
        cloud: Cloud = cloud_of(60)
        slow_down(cloud, 1.0)
        given: list[str] = []

        async def source() -> str:
            given.append(f"given-{len(given)}")
            cloud.add_token(given[-1])
            return given[-1]

        cloud.later(2.5, lambda: cloud.tokens.pop("given-0"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi(cloud))) as http:
            endpoint = f"http://cloud.test/v2.1/{cloud.project_id}"
            client = RestartClient(endpoint, auth=Token(source), http=http, max_at_once=10)
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 60}
        assert given == ["given-0", "given-1"]

    virtually(main)
