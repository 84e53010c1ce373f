"""How requests are signed: with a token, or with access keys."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import UTC, datetime
from inspect import isawaitable, iscoroutinefunction
from typing import Final

import anyio
import httpx

from bulkrestart.cloud.credentials import CloudAuth, Credential, Issued, Renewed, SignInError, Trouble, in_thread
from bulkrestart.cloud.signature import sign
from bulkrestart.core.faults import cloud_time
from bulkrestart.core.secrets import Secret

#: The most that Huawei Cloud's gateway lets a clock be off, in seconds.
_CLOCK_BOUND: Final = 900.0
_WORD: Final = re.compile(r"[!-~]+")


class AccessKey(CloudAuth):
    """Signs with a pair of access keys, as Huawei Cloud and Open Telekom Cloud take them (SDK-HMAC-SHA256).

    Every request is signed anew, so there is nothing that expires but temporary keys.

    Args:
        access_key: The access key (AK).
        secret_key: The secret key (SK).
        project_id: The project of the endpoint; needed where the keys are good for several. None leaves it out.
        security_token: What came with temporary keys; None with permanent ones.
        clock: Tells the time, in seconds since the epoch; the gateway bears 15 minutes of difference.

    Raises:
        ValueError: One of them is empty, or holds characters that no key has.
    """

    #: httpx then reads a body that is streamed before `auth_flow` signs it.
    requires_request_body = True

    def __init__(
        self,
        access_key: str,
        secret_key: str,
        *,
        project_id: str | None = None,
        security_token: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        keys = (Secret(access_key), Secret(secret_key), Secret(security_token))
        # No local variable may hold a secret from here on: a traceback may show it.
        del access_key, secret_key, security_token
        self._access_key = _check_word("access_key", keys[0])
        self._secret_key = _check_word("secret_key", keys[1])
        self._project_id = None if project_id is None else _check_word("project_id", Secret(project_id)).reveal()
        self._security_token = None if keys[2].reveal() is None else _check_word("security_token", keys[2])
        self._clock = clock

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the date, the project and the signature of this very request."""
        request.headers["x-sdk-date"] = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y%m%dT%H%M%SZ")
        # Proxies may change other headers on the way.
        signed = ["content-type", "host", "x-sdk-date"]
        if self._project_id is not None:
            request.headers["x-project-id"] = self._project_id
            signed.append("x-project-id")
        if self._security_token is not None:
            request.headers["x-security-token"] = self._security_token.reveal()
            signed.append("x-security-token")
        request.headers["Authorization"] = sign(
            method=request.method,
            path=request.url.raw_path.decode("ascii").partition("?")[0],
            query=request.url.params.multi_items(),
            headers=Secret({name: request.headers[name] for name in signed if name in request.headers}),
            body=request.content,
            access_key=self._access_key,
            secret_key=self._secret_key,
        )
        yield request

    @property
    def secrets(self) -> Sequence[Secret[str]]:
        """The keys, and the security token."""
        keys = (self._access_key, self._secret_key)
        return keys if self._security_token is None else (*keys, self._security_token)

    def remedy(self, refusal: httpx.Response) -> str:
        """Name this machine's clock if it is off, and else the keys."""
        cloud = cloud_time(refusal.headers)
        ahead = 0.0 if cloud is None else self._clock() - cloud
        if abs(ahead) <= _CLOCK_BOUND:
            return "check the access key, the secret key and the project"
        direction = "ahead of" if ahead > 0 else "behind"
        return f"this machine's clock is {abs(ahead) / 60:.0f} minutes {direction} the cloud's: set it"


TokenSource = Callable[[], str | Awaitable[str]]


class Token(Renewed):
    """Signs with a token that was issued elsewhere.

    Args:
        value: The token, scoped to the project whose servers are restarted, as `openstack token issue -f value -c id`
            prints it; it has to outlive the run. Or a function that gives one, plain or async: it is asked at the
            start, and again when the cloud refuses what it gave. A plain one is called in a worker thread, because
            most that fetch a token block.

    Raises:
        ValueError: It is empty, or holds characters that no token has.
    """

    def __init__(self, value: str | TokenSource) -> None:
        super().__init__()
        # The repr of a function may show a bound token.
        self._source: Secret[TokenSource] | None = Secret(value) if callable(value) else None
        given = Secret(value)
        # No local variable may hold the token from here on: a traceback may show it.
        del value
        if self._source is None:
            self.can_renew = False
            self._newest = Credential(_token_headers(given))

    async def fetch(self) -> Issued:
        """Ask for the token."""
        assert self._source is not None, "a token that was given as such lasts"
        try:
            value = await _call(self._source)
        except (Exception, anyio.get_cancelled_exc_class()) as error:
            if isinstance(error, anyio.get_cancelled_exc_class()) and _is_cancelled():
                raise
            # Its words may hold the token, or the URL of a request that failed.
            words = f"the function that gives the token fails: {type(error).__name__}"
            raise SignInError(Trouble(words, "see why")) from error
        try:
            return Issued(_token_headers(value).reveal())
        except ValueError as error:
            raise SignInError(Trouble(str(error), "see the function that gives it")) from error

    def remedy(self, refusal: httpx.Response) -> str:
        """Ask for another token."""
        return "get a new token for this project"


async def _call(source: Secret[TokenSource]) -> Secret[object]:
    """Call a function, plain or async; a plain one in a thread."""
    function = type(source.reveal()).__call__
    is_async = iscoroutinefunction(source.reveal()) or iscoroutinefunction(function)
    given = Secret(source.reveal()()) if is_async else await in_thread(lambda: Secret(source.reveal()()))
    value = given.reveal()
    return Secret(await value) if isawaitable(value) else given


def _is_cancelled() -> bool:
    """Tell whether it is we who are cancelled, and not something that a function of the user's awaited."""
    if anyio.current_effective_deadline() == float("-inf"):
        return True
    try:
        task = asyncio.current_task()
    except RuntimeError:  # trio
        return False
    return task is not None and task.cancelling() > 0


def _token_headers(token: Secret[object]) -> Secret[dict[str, str]]:
    word = _checked(token.reveal())
    if word is None:
        raise ValueError(
            "the token must be printable ASCII without white space, and not empty: give it as `openstack token issue` "
            "prints it"
        )
    return Secret({"X-Auth-Token": word.reveal()})


def _check_word(name: str, value: Secret[object]) -> Secret[str]:
    word = _checked(value.reveal())
    if word is None:
        raise ValueError(
            f"{name} must be printable ASCII without white space, and not empty: give it as the console shows it"
        )
    return word


def _checked(value: object) -> Secret[str] | None:
    """Return the value if a header can carry it, and else None: an error raised here would show it in a traceback."""
    return Secret(value) if isinstance(value, str) and _WORD.fullmatch(value) else None
