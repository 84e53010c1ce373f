"""What a user may get wrong in an argument: it is one line that names the argument, before anything is sent."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

import httpx
import pytest
import trio

from bulkrestart import AccessKey, RestartClient, Server, Token
from tests.naming import name_of

ENDPOINT: Final = "https://compute.example.com/v2.1/p"

Ask = Callable[..., Coroutine[None, None, object]]


@pytest.fixture
def requests() -> list[httpx.Request]:
    """Give the requests that were made."""
    return []


@pytest.fixture
def ask(requests: list[httpx.Request]) -> Ask:
    """Give a restart of one server, any argument of which may be another."""

    def note(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(404)

    async def restart(**arguments: Any) -> object:
        async with httpx.AsyncClient(transport=httpx.MockTransport(note)) as http:
            return await RestartClient(ENDPOINT, http=http).restart(**({"ids": ["s"]} | arguments))

    return restart


SCHEME: Final = "the endpoint must be a URL with its scheme and a valid host, such as https://"
STRING: Final = "the endpoint must be a string such as https://compute.example.com/v2.1/PROJECT_ID, not"
SENDABLE: Final = "the endpoint must be a URL that requests can be sent to:"
#: Some versions of Python know better than others what may stand between brackets.
EITHER: Final = "the endpoint must be a URL"
AUTH: Final = 'auth must be Token("...") or another httpx.Auth, not'
HTTP: Final = "http must be an httpx.AsyncClient, not"
RATE: Final = "max_per_second must be a number of requests a second, one a day at least, or None for no bound, not"
ADAPTIVE: Final = 'adaptive must be True, False or "latency", not'
VERIFY: Final = "verify must be True, False or an ssl.SSLContext, not"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"endpoint": None}, f"{STRING} NoneType"),
        ({"endpoint": 5}, f"{STRING} int"),
        ({"endpoint": ENDPOINT.encode()}, f"{STRING} bytes"),
        ({"endpoint": httpx.URL(ENDPOINT)}, f"{STRING} URL"),
        ({"endpoint": "https://a..b/v2.1/p"}, SCHEME),
        ({"endpoint": "https://xn--/v2.1/p"}, SENDABLE),
        ({"endpoint": "https://xn--i-7iq.example/v2.1/p"}, SENDABLE),
        ({"endpoint": "https://☃☃.example/v2.1/p"}, SENDABLE),
        ({"endpoint": f"https://{'é' * 63}/v2.1/p"}, SENDABLE),
        ({"endpoint": "https://999.0.0.1/v2.1/p"}, SENDABLE),
        ({"endpoint": "https://[v1.x]/v2.1/p"}, EITHER),
        ({"endpoint": "https://[::1]x/v2.1/p"}, EITHER),
        ({"endpoint": f"https://h/v2.1/{'p' * 70_000}"}, SENDABLE),
        ({"auth": "s3cret"}, f"{AUTH} str"),
        ({"auth": ""}, f"{AUTH} str"),
        ({"auth": 5}, f"{AUTH} int"),
        ({"auth": ("user", "s3cret")}, f"{AUTH} tuple"),
        ({"auth": Token}, f"{AUTH} a class"),
        ({"http": httpx.Client(verify=False)}, f"{HTTP} Client"),  # noqa: S501 - it sends nothing
        ({"http": httpx.AsyncClient}, f"{HTTP} type"),
        ({"http": object()}, f"{HTTP} object"),
        ({"auth": AccessKey}, f"{AUTH} a class"),
        ({"auth": lambda: "s3cret"}, f"{AUTH} function"),
        ({"endpoint": None, "auth": Token("s3cret")}, f"{STRING} NoneType"),
        ({"endpoint": None, "auth": AccessKey("AK", "s3cret")}, f"{STRING} NoneType"),
        ({"verify": "/etc/ssl/ca.pem"}, f"{VERIFY} str"),
        ({"verify": None}, f"{VERIFY} NoneType"),
        ({"verify": 0}, f"{VERIFY} int"),
        ({"verify": False, "http": httpx.AsyncClient()}, "verify is for a client of our own: set up the one that is"),
        ({"max_at_once": 0}, "max_at_once must be a whole number from 1 up, not 0"),
        ({"max_at_once": 2.0}, "max_at_once must be a whole number from 1 up, not 2.0"),
        *(
            ({"max_per_second": value}, f"{RATE} {value!r:.40}")
            for value in (0, -1.0, float("nan"), float("inf"), True, "5", 1e-9, 10**400)
        ),
        *(({"adaptive": value}, f"{ADAPTIVE} {value!r}") for value in ("Latency", 1, None, 0.5)),
    ],
    ids=name_of,
)
def test_argument_of_a_client(arguments: dict[str, Any], words: str) -> None:
    """No client is made with what it could not send with, and what may be a secret is not repeated."""
    with pytest.raises(ValueError, match=f"^{re.escape(words)}") as caught:
        RestartClient(**({"endpoint": ENDPOINT} | arguments))

    # idna's errors are ValueErrors too.
    assert type(caught.value) is ValueError
    assert str(caught.value).isprintable()
    assert "s3cret" not in str(caught.value)


TOKEN: Final = "the token must be printable ASCII without white space, and not empty"


ACCESS_KEY: Final = {"access_key": "AK", "secret_key": "s3cret"}


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        *(
            (Token, {"value": value}, TOKEN)
            for value in ("", "s3cret\n", "two s3cret", "s3cr\xf6t", "s3cret\x7f", "\u200bs3cret", b"s3cret", None)
        ),
        *(
            (
                AccessKey,
                ACCESS_KEY | {name: value},
                f"{name} must be printable ASCII without white space, and not empty",
            )
            for name in ("access_key", "secret_key", "project_id", "security_token")
            for value in ("", "s3cret\n", "two s3cret", "s3cr\xf6t", "s3cret\x7f", b"s3cret", 5)
        ),
        (
            AccessKey,
            ACCESS_KEY | {"access_key": None},
            "access_key must be printable ASCII without white space, and not empty",
        ),
        (
            AccessKey,
            ACCESS_KEY | {"secret_key": None},
            "secret_key must be printable ASCII without white space, and not empty",
        ),
    ],
)
def test_argument_of_what_signs(kind: Callable[..., object], arguments: dict[str, Any], words: str) -> None:
    """Nothing is signed with what cannot be a secret, and it is not repeated."""
    with pytest.raises(ValueError, match=f"^{words}: give it as ") as caught:
        kind(**arguments)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "("}, "name must be a regular expression, not '('"),
        ({"status": None}, "status must be a word or several, not None"),
        ({"tags": [""]}, "tags must be words that are not empty, one each, not ''"),
        ({"az": 5}, "az must be a word or several, not 5"),
        ({"metadata": "a=b"}, "metadata must be a mapping of keys to values, not 'a=b'"),
    ],
)
def test_argument_of_a_selection(ask: Ask, requests: list[httpx.Request], arguments: Any, words: str) -> None:
    """A selection that makes no sense is refused where it is made, and asks the cloud nothing."""
    client = RestartClient(ENDPOINT)
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        asyncio.run(ask(ids=client.servers(**arguments)))

    assert requests == []


@pytest.mark.parametrize(
    "endpoint",
    ["https://münchen.example/v2.1/p", "https://xn--mnchen-3ya.example/v2.1/p", "https://[fe80::1]:8774/v2.1/p"],
)
def test_odd_host_that_can_be_sent_to(endpoint: str) -> None:
    """An international name, in either spelling, and an address are hosts."""
    RestartClient(endpoint)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"wait": "no"}, "wait must be True or False, not 'no'"),
        ({"escalate": None}, "escalate must be True or False, not None"),
        ({"start_stopped": 1}, "start_stopped must be True or False, not 1"),
        ({"request_timeout": 10**400}, "request_timeout must be a positive number of seconds, not 1000"),
        ({"reboot_type": None}, 'reboot_type must be "SOFT" or "HARD", not None'),
        ({"reboot_type": 5}, 'reboot_type must be "SOFT" or "HARD", not 5'),
        ({"ids": None}, "ids must be an iterable of server ids, not NoneType: put a single id in a list"),
        ({"ids": "s"}, "ids must be an iterable of server ids, not str: put a single id in a list"),
        ({"ids": Server(id="s")}, "ids must be an iterable of server ids, not Server: put a single id in a list"),
        ({"ids": ["s", None]}, "a server id must be a string, not NoneType: give the id itself"),
        ({"ids": ["s", b"s"]}, "a server id must be a string, not bytes: give the id itself"),
        ({"ids": [["s"]]}, "a server id must be a string, not list: give the id itself"),
        ({"ids": [{"id": "s"}]}, "a server id must be a string, not dict: give the id itself"),
    ],
    ids=name_of,
)
def test_argument_of_a_restart(
    ask: Ask, requests: list[httpx.Request], arguments: dict[str, object], words: str
) -> None:
    """A restart that makes no sense asks the cloud nothing."""
    with pytest.raises(ValueError, match=f"^{re.escape(words)}") as caught:
        asyncio.run(ask(**arguments))

    assert str(caught.value).isprintable()
    assert requests == []


def broken() -> Iterator[str]:
    """Give one id, and fail."""
    yield "s"
    raise KeyError("the inventory")


async def broken_stream() -> AsyncIterator[str]:
    """Give one id, and fail."""
    yield "s"
    raise KeyError("the inventory")


@pytest.mark.parametrize("source", [broken, broken_stream])
def test_ids_that_fail_midway(ask: Ask, requests: list[httpx.Request], source: Callable[[], object]) -> None:
    """What the caller's own ids raise comes out bare, and the ids before it are not sent to."""
    with pytest.raises(KeyError, match="the inventory"):
        asyncio.run(ask(ids=source()))

    assert requests == []


async def empty_stream() -> AsyncIterator[str]:
    """Give no ids."""
    nothing: tuple[str, ...] = ()
    for server_id in nothing:
        yield server_id


@pytest.mark.parametrize("source", [list, dict, lambda: iter(()), empty_stream], ids=["list", "dict", "iter", "stream"])
def test_no_ids_are_an_empty_report(ask: Ask, requests: list[httpx.Request], source: Callable[[], object]) -> None:
    """No servers are no mistake: the report is empty, and the cloud is asked nothing."""
    assert str(asyncio.run(ask(ids=source()))).startswith("no servers")
    assert requests == []


def in_asyncio(main: Callable[[], Awaitable[object]]) -> None:
    """Run to the end in an event loop of asyncio's own."""

    async def awaited() -> None:
        await main()

    asyncio.run(awaited())


def in_trio(main: Callable[[], Awaitable[object]]) -> None:
    """Run to the end in an event loop of trio's own."""
    trio.run(main)


@pytest.mark.parametrize("second", [in_asyncio, in_trio])
@pytest.mark.parametrize("first", [in_asyncio, in_trio])
def test_a_client_keeps_to_one_event_loop(first: Callable[..., None], second: Callable[..., None]) -> None:
    """In another event loop a client says so at once, to a restart and at its closing; in its own it goes on."""
    client = RestartClient(ENDPOINT)

    async def restart() -> None:
        await client.restart([])

    async def restart_twice() -> None:
        await restart()
        await restart()

    async def list_servers() -> None:
        await anext(client.servers())

    first(restart_twice)
    for again in (restart, list_servers, client.locate, client.aclose):
        with pytest.raises(RuntimeError, match="used in another event loop: make one client for each"):
            second(again)


def test_a_client_may_be_made_and_closed_outside_its_event_loop() -> None:
    """A client that holds no connections of its own belongs to the loop that it is used in, and to that alone."""
    unused = RestartClient(ENDPOINT)
    lender = RestartClient(
        ENDPOINT, http=httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(404)))
    )

    in_trio(lambda: lender.restart([]))
    for client in (unused, lender):
        in_asyncio(client.aclose)


def test_where_the_endpoint_is_known_nobody_is_asked(requests: list[httpx.Request]) -> None:
    """The endpoint that was given is the one that is told, until the client is closed."""
    client = RestartClient(f"{ENDPOINT}/")

    async def locate() -> str:
        return (await client.locate()).endpoint

    assert asyncio.run(locate()) == ENDPOINT
    in_asyncio(client.aclose)
    with pytest.raises(ValueError, match="the client is closed: make a new one"):
        asyncio.run(locate())
    assert requests == []
