"""How requests are signed: with a token, with access keys, or with what a sign-in gives.

Law: an auth flow only adds headers. What has to be fetched first is fetched by `Renewed.sign_in`, before a request
takes its turn.
"""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from inspect import isawaitable, iscoroutinefunction
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import httpx

from bulkrestart.cloud.signature import sign
from bulkrestart.core.faults import Fault, cloud_time, plain
from bulkrestart.core.observation import Answer

T = TypeVar("T")

#: Seconds before its end at which a credential is renewed, and the share of its life for one that lives shortly.
#: keystoneauth1/identity/base.py `MIN_TOKEN_LIFE_SECONDS`.
_MARGIN: Final = 120.0
_SHARE: Final = 0.25
#: Seconds until another try where a renewal failed, and what there is still serves.
_RENEWAL_INTERVAL: Final = 5.0
#: Seconds without a sign-in after which it is given up: where there never was one, and where there was.
_FIRST_PATIENCE: Final = 15.0
_PATIENCE: Final = 300.0
#: Seconds for which a refusal stands: to try a wrong password again and again locks the user out.
_REFUSAL_STANDS: Final = 60.0

#: Nova answers that show that it knows who asks.
_KNOWN: Final = frozenset({403, 404, 409})
#: Where a request carries what signed it.
_CREDENTIAL: Final = "bulkrestart.credential"

#: The most that Huawei Cloud's gateway lets a clock be off, in seconds.
_CLOCK_BOUND: Final = 900.0
_WORD: Final = re.compile(r"[!-~]+")


class CloudAuth(httpx.Auth, ABC):
    """Signs requests, and knows what may help where the cloud refuses that."""

    @abstractmethod
    def remedy(self, refusal: httpx.Response) -> str:
        """Say in a few words what may help against a 401."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


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
        self._access_key = _check_word("access_key", access_key)
        self._secret_key = _check_word("secret_key", secret_key)
        self._extra: dict[str, str] = {}
        if project_id is not None:
            self._extra["x-project-id"] = _check_word("project_id", project_id)
        if security_token is not None:
            self._extra["x-security-token"] = _check_word("security_token", security_token)
        self._clock = clock

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the date, the project and the signature of this very request."""
        date = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y%m%dT%H%M%SZ")
        request.headers.update({**self._extra, "x-sdk-date": date})
        # Proxies may change other headers on the way.
        signed = ("content-type", "host", "x-sdk-date", *self._extra)
        request.headers["Authorization"] = sign(
            method=request.method,
            path=request.url.raw_path.decode("ascii").partition("?")[0],
            query=request.url.params.multi_items(),
            headers={name: request.headers[name] for name in signed if name in request.headers},
            body=request.content,
            access_key=self._access_key,
            secret_key=self._secret_key,
        )
        yield request

    def remedy(self, refusal: httpx.Response) -> str:
        """Name this machine's clock if it is off, and else the keys."""
        cloud = cloud_time(refusal.headers)
        ahead = 0.0 if cloud is None else self._clock() - cloud
        if abs(ahead) <= _CLOCK_BOUND:
            return "check the access key, the secret key and the project"
        direction = "ahead of" if ahead > 0 else "behind"
        return f"this machine's clock is {abs(ahead) / 60:.0f} minutes {direction} the cloud's: set it"


@dataclass(slots=True, eq=False)
class Credential:
    """What a sign-in gave.

    Attributes:
        headers: What signs a request.
        renew_at: When to renew it, and when it ends, in seconds on the event loop's clock.
        ends_at: Infinite where that is unknown.
        was_accepted: Whether the cloud has taken it.
    """

    headers: Mapping[str, str] = field(repr=False)
    renew_at: float = float("inf")
    ends_at: float = float("inf")
    was_accepted: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is nothing to sign with.

    Attributes:
        words: What was seen.
        remedy: What may help.
        is_final: Trying again is no use, or has been of none for long enough.
    """

    words: str
    remedy: str
    is_final: bool = False

    @property
    def answer(self) -> Answer:
        """What stands for the answer to a request that could not be signed."""
        return Answer(401, Fault(message=self.words), remedy=self.remedy)

    def __str__(self) -> str:
        return f"{self.words}; {self.remedy}"


class SignInError(Exception):
    """Raised where a sign-in fails.

    Attributes:
        trouble: Why.
    """

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.words)
        self.trouble = trouble


class Renewed(CloudAuth):
    """Signs with what has to be fetched, and does not last.

    It is fetched once for all who wait for it, kept until shortly before its end or until the cloud refuses it, and
    fetched again then. It belongs to one event loop at a time, as its client does.
    """

    #: Whether another fetch may give something else.
    can_renew = True

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._newest: Credential | None = None
        self._was_signed_in = False
        self._fetches = 0
        self._trouble: Trouble | None = None
        self._troubled_since = self._troubled_at = 0.0
        self._trouble_stands_until = float("-inf")

    @abstractmethod
    async def fetch(self) -> tuple[Mapping[str, str], float | None]:
        """Sign in.

        Returns:
            The headers that sign a request, and the seconds that they are good for; None if that is unknown.

        Raises:
            SignInError: It failed.
        """

    @property
    def is_signed_in(self) -> bool:
        """Whether there is something to sign with that is still good."""
        return self._newest is not None and anyio.current_time() < self._newest.ends_at

    async def sign_in(self) -> Trouble | None:
        """See that there is something to sign with; give the trouble if there is not."""
        while not self._is_fresh():
            if self._lock.locked() and self.is_signed_in:
                # Another one renews it before its end: nobody else has to wait for that.
                return None
            fetches = self._fetches
            async with self._lock:
                # What another one fetched meanwhile is ours as well, be it a trouble.
                if self._fetches == fetches and anyio.current_time() >= self._trouble_stands_until:
                    await self._renew()
            if self.is_signed_in:
                return None
            if self._trouble is not None:
                return self._trouble
        return None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the headers of the newest sign-in.

        Raises:
            SignInError: There is none.
        """
        if self._newest is None:
            raise SignInError(self._trouble or Trouble("not signed in", "call sign_in first"))
        request.headers.update(self._newest.headers)
        request.extensions[_CREDENTIAL] = self._newest
        yield request

    def note(self, request: httpx.Request, status: int) -> bool:
        """Take the answer to a request; tell whether it refuses a credential that was good once.

        What was refused is not used again: the next sign-in fetches another.
        """
        credential: Credential | None = request.extensions.get(_CREDENTIAL)
        if credential is None or not self.can_renew:
            return False
        if status != 401:
            credential.was_accepted |= 200 <= status < 300 or status in _KNOWN
            return False
        if credential is self._newest:
            self._newest = None
        return credential.was_accepted

    def _is_fresh(self) -> bool:
        return self._newest is not None and anyio.current_time() < self._newest.renew_at

    async def _renew(self) -> None:
        began = anyio.current_time()
        try:
            headers, seconds = await self.fetch()
        except SignInError as error:
            self._fail(anyio.current_time(), error.trouble)
        else:
            life = float("inf") if seconds is None else seconds
            # Not from now: its life began when it was issued, at some time since we asked.
            margin = min(_MARGIN, life * _SHARE)
            self._newest = Credential(headers, renew_at=began + life - margin, ends_at=began + life)
            self._was_signed_in = True
            self._trouble = None
        finally:
            self._fetches += 1

    def _fail(self, now: float, trouble: Trouble) -> None:
        if self._newest is not None and now < self._newest.ends_at:
            self._newest.renew_at = self._newest.ends_at if trouble.is_final else now + _RENEWAL_INTERVAL
            return
        self._newest = None
        if self._trouble is None or now - self._troubled_at > _PATIENCE:
            self._troubled_since = now
        self._troubled_at = now
        patience = _PATIENCE if self._was_signed_in else _FIRST_PATIENCE
        is_final = trouble.is_final or now - self._troubled_since >= patience
        self._trouble = replace(trouble, is_final=is_final)
        if is_final:
            self._trouble_stands_until = now + _REFUSAL_STANDS


class CatalogAuth(Renewed):
    """Signs with what a sign-in gives, and knows from it where the project's compute API is."""

    @abstractmethod
    async def find_endpoint(self) -> str:
        """Find the compute endpoint of the project; `sign_in` comes first.

        Raises:
            EndpointError: There is none.
        """


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
        self._source = value
        if not callable(value):
            self.can_renew = False
            self._newest = Credential(_token_headers(value))

    async def fetch(self) -> tuple[Mapping[str, str], float | None]:
        """Ask for the token."""
        assert callable(self._source), "a token that was given as such lasts"
        try:
            return _token_headers(await _call(self._source)), None
        except Exception as error:
            words = f"no token: {type(error).__name__}: {plain(str(error))}"
            raise SignInError(Trouble(words, "see why the function that gives it fails")) from error

    def remedy(self, refusal: httpx.Response) -> str:
        """Ask for another token."""
        return "get a new token for this project"


async def _call(source: TokenSource) -> str:
    """Call a function, plain or async; a plain one in a thread."""
    is_async = iscoroutinefunction(source) or iscoroutinefunction(type(source).__call__)
    value = source() if is_async else await in_thread(source)
    return await value if isawaitable(value) else value


async def in_thread(function: Callable[[], T]) -> T:
    """Call a function that blocks in a worker thread; it is not counted among those of the program that embeds us."""
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))


def _token_headers(value: object) -> dict[str, str]:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError("the token is empty or holds white space: give it as `openstack token issue` prints it")
    return {"X-Auth-Token": value}


def _check_word(name: str, value: object) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError(f"{name} is empty or holds white space: give it as the console shows it")
    return value
