"""No traceback that prints local variables shows a secret, whichever tool renders it and whatever fails."""

import asyncio
import copy
import io
import pickle
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType
from typing import Any, Final, NoReturn

import anyio
import httpx
import pytest
import rich.console
import rich.traceback

from bulkrestart import AccessKey, EndpointError, RestartClient, Token
from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.credentials import Credential, Issued
from bulkrestart.cloud.signature import sign
from bulkrestart.core.model import RebootType
from bulkrestart.core.secrets import Secret
from tests.core.test_secrets import FERNET, parts_of

from .loopback import WAYS, Connection, compute_of, listening, read_request, sender_of

ENDPOINT: Final = "https://cloud.test/v2.1/p"
URL: Final = f"{ENDPOINT}/servers/s/action"
#: What no token and no key may be, and what most of one is in.
MALFORMED: Final[dict[str, Callable[[], Any]]] = {
    "newline": lambda: f"{FERNET}\n",
    "blank": lambda: f"{FERNET[:30]} {FERNET[30:]}",
    "header": lambda: f"{FERNET}\r\nX-Evil: 1",
    "not ASCII": lambda: f"{FERNET}é",
    "bytes": FERNET.encode,
    "list": lambda: [FERNET],
    "dictionary": lambda: {"token": FERNET},
}


def frames_of(error: BaseException | None, seen: set[int]) -> Iterator[FrameType]:
    """Give the frames of an error, and of all that led to it."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        yield from frames_of(other, seen)


def rendered(error: BaseException) -> str:
    """Render a traceback with all local variables: as rich does, as traceback does, and as cgitb does."""
    console = rich.console.Console(file=io.StringIO(), width=200, color_system=None)
    console.print(
        rich.traceback.Traceback.from_exception(
            type(error), error, error.__traceback__, show_locals=True, locals_max_string=100_000, locals_max_length=1000
        )
    )
    assert isinstance(console.file, io.StringIO)
    parts = [console.file.getvalue()]
    parts += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    for frame in frames_of(error, set()):
        # cgitb shows the attributes that a line names, too.
        ours = frame.f_locals.get("self")
        parts += [f"self.{name} = {getattr(ours, name, None)!r}" for name in frame.f_code.co_names]
    return "\n".join(parts)


def assert_hidden(error: BaseException) -> None:
    """Let no part of the secret be shown."""
    # The address of an object may look like six digits of the secret's hexadecimal form.
    shown = re.sub(r" at 0x[0-9a-f]+", "", rendered(error))
    assert type(error).__name__ in shown
    lines = [line for line in shown.splitlines() if parts_of(FERNET) & parts_of(line, with_forms=False)]
    assert not lines


def fail(*_: object, **__: object) -> NoReturn:
    """Stand for a function that does not work."""
    raise RuntimeError("no")


def exhaust(auth: httpx.Auth) -> None:
    """Sign a request."""
    list(auth.sync_auth_flow(httpx.Request("POST", URL)))


@pytest.mark.unmeasured
@pytest.mark.parametrize("value", MALFORMED)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda value: Token(value), id="token"),
        pytest.param(lambda value: AccessKey(value, "sk"), id="access key"),
        pytest.param(lambda value: AccessKey("ak", value), id="secret key"),
        pytest.param(lambda value: AccessKey("ak", "sk", security_token=value), id="security token"),
        pytest.param(lambda value: AccessKey(FERNET, FERNET, security_token=FERNET, project_id=" "), id="project"),
    ],
)
def test_a_malformed_secret(make: Callable[[Any], object], value: str) -> None:
    """What cannot be a secret most often holds one: no frame of ours shows it."""
    with pytest.raises(ValueError, match="must be printable ASCII without white space") as caught:
        make(MALFORMED[value]())
    # The first frame is this one, and the second is the lambda's, which is the caller's.
    ours = caught.traceback[2]._rawentry
    assert_hidden(caught.value.with_traceback(ours))


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda: exhaust(AccessKey(FERNET, FERNET, security_token=FERNET, clock=fail)), id="clock"),
        pytest.param(lambda: exhaust(AccessKey(FERNET, FERNET, security_token=FERNET, clock=lambda: 1e30)), id="date"),
        pytest.param(lambda: exhaust(Token(partial(fail, FERNET))), id="not signed in"),
        pytest.param(
            lambda: sign(
                method="GET",
                path="/",
                query=[],
                headers=Secret({"x-security-token": FERNET}),
                body=b"",
                access_key=Secret(FERNET),
                secret_key=Secret(FERNET),
            ),
            id="no date to sign",
        ),
        pytest.param(lambda: pickle.dumps(Token(FERNET)), id="pickled token"),
        pytest.param(lambda: pickle.dumps(AccessKey(FERNET, FERNET)), id="pickled keys"),
        pytest.param(lambda: pickle.dumps(Issued({"X-Auth-Token": FERNET})), id="pickled sign-in"),
        pytest.param(lambda: pickle.dumps(Credential(Secret({"X-Auth-Token": FERNET}))), id="pickled credential"),
        pytest.param(lambda: copy.copy(Token(FERNET)), id="copied token"),
        pytest.param(lambda: pickle.dumps(RestartClient(ENDPOINT, auth=Token(FERNET))), id="pickled client"),
        pytest.param(lambda: RestartClient("no", auth=Token(FERNET)), id="no endpoint"),
        pytest.param(
            lambda: RestartClient(
                ENDPOINT, auth=Token(FERNET), http=httpx.AsyncClient(auth=("u", FERNET)), verify=False
            ),
            id="lent client",
        ),
        pytest.param(lambda: RestartClient(ENDPOINT, auth=Token(FERNET), max_at_once=0), id="no requests"),
    ],
)
def test_what_fails_at_once(act: Callable[[], object]) -> None:
    """Nothing that fails before a request shows the secret that it was about."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of many types
        act()
    assert_hidden(caught.value)


@pytest.mark.unmeasured
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda: partial(divmod, FERNET, 1), id="fails"),
        pytest.param(lambda: (FERNET + "\n").lower, id="malformed"),
        pytest.param(lambda: (FERNET + " ").upper, id="malformed, bound"),
        pytest.param(lambda: _Source(FERNET + " "), id="malformed, async"),
    ],
)
async def test_a_function_that_gives_the_token(source: Callable[[], Any]) -> None:
    """A function that fails, or gives what is none, shows neither what it gave nor what is bound to it."""
    with pytest.raises(Exception, match="token") as caught:
        await Token(source()).fetch()
    assert_hidden(caught.value)


class _Source:
    """Gives a token, and has no repr that shows it."""

    def __init__(self, token: str) -> None:
        self.give: Callable[[], str] = lambda: token

    async def __call__(self) -> str:
        return self.give()


@pytest.mark.unmeasured
@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_sign_in_that_is_cancelled(kind: str) -> None:
    """A sign-in that is cancelled does not show what is bound to its function."""
    started = anyio.Event()

    async def wait(_: str) -> str:
        started.set()
        await anyio.sleep_forever()
        raise AssertionError

    def block(_: str) -> str:
        anyio.from_thread.run_sync(started.set)
        return anyio.from_thread.run(wait, "")

    auth = Token(partial(wait if kind == "async" else block, FERNET))
    task = asyncio.ensure_future(auth.sign_in())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert FERNET not in repr(task)
    # The frame of the function itself is the caller's.
    for frame in frames_of(caught.value, set()):
        if frame.f_code.co_name in ("wait", "block"):
            frame.clear()
    assert_hidden(caught.value)


AUTHS: Final[dict[str, Callable[[], httpx.Auth]]] = {
    "token": lambda: Token(FERNET),
    "keys": lambda: AccessKey(FERNET, FERNET, security_token=FERNET),
    "basic": lambda: httpx.BasicAuth("user", FERNET),
}


@asynccontextmanager
async def hanging(stage: str) -> AsyncIterator[tuple[str, anyio.Event]]:
    """Serve nothing: what is said is read, and the answer begins or does not."""
    came = anyio.Event()

    async def handle(connection: Connection) -> None:
        await read_request(connection)
        if stage == "body":
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        came.set()
        await anyio.sleep_forever()

    async with listening(handle) as address:
        yield f"http://{address}", came


@pytest.mark.unmeasured
@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["head", "body"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by", AUTHS)
async def test_a_request_that_is_cancelled(way: str, by: str, stage: str) -> None:
    """A cancellation, which is no error and goes on to the user, shows no header of the request."""
    async with hanging(stage) as (url, came), sender_of(way) as sender:
        task = asyncio.ensure_future(compute_of(sender, url, auth=AUTHS[by]()).show("s"))
        await came.wait()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert_hidden(caught.value)


@pytest.mark.unmeasured
@pytest.mark.asyncio
@pytest.mark.parametrize("by", AUTHS)
async def test_a_defect_of_ours(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """A defect that is met while an answer is read shows neither the request nor what the cloud repeats of it."""
    monkeypatch.setattr("bulkrestart.cloud.compute.read_fault", fail)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, text=f"{FERNET} {request.headers}")

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), trust_env=False) as http:
        with pytest.raises(RuntimeError) as caught:
            await compute_of(http, auth=AUTHS[by]()).reboot("s", RebootType.SOFT)
    assert_hidden(caught.value)


@pytest.mark.unmeasured
@pytest.mark.asyncio
@pytest.mark.parametrize("by", AUTHS)
async def test_a_run_that_does_not_begin(by: str) -> None:
    """What ends a run before its first send tells no secret in all that led to it."""
    transport = httpx.MockTransport(lambda request: httpx.Response(404, text=f"{request.headers}"))
    async with (
        httpx.AsyncClient(transport=transport, trust_env=False) as http,
        RestartClient(ENDPOINT, auth=AUTHS[by](), http=http) as client,
    ):
        with pytest.raises(EndpointError) as caught:
            await client.restart(["s"])
    assert_hidden(caught.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("by", AUTHS)
async def test_what_holds_a_secret(by: str) -> None:
    """No repr of anything that holds a secret shows it, nor do the attributes of what is ours."""
    auth = AUTHS[by]()
    http = httpx.AsyncClient(headers={"X-Api-Key": FERNET}, auth=auth)
    compute = compute_of(http, auth=auth)
    client = RestartClient(ENDPOINT, auth=auth, http=http)
    issued, credential = Issued({"X-Auth-Token": FERNET}, 60.0), Credential(Secret({"X-Auth-Token": FERNET}))
    shown = [repr(one) for one in (auth, compute, client, issued, credential, vars(compute), vars(client))]
    shown.append(repr(vars(auth)) if by != "basic" else "")
    assert isinstance(compute, Compute)
    assert not parts_of(FERNET) & parts_of(" ".join(shown), with_forms=False)
    await http.aclose()


def test_who_gives_awaitables() -> None:
    """The source of a token may be anything that gives one, and is shown as nothing."""
    source: Callable[[], Awaitable[str]] = _Source(FERNET)
    assert "_Source" not in repr(vars(Token(source)))
