"""What a request is signed with, where it has to be fetched and does not last: fetched once for all, and in time.

Law: an auth flow only adds headers. What has to be fetched is fetched by `Renewed.sign_in`, before a request takes its
turn.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn, TypeVar

import anyio
import anyio.to_thread
import httpx

from bulkrestart.cloud.instants import boottime
from bulkrestart.core.faults import Fault
from bulkrestart.core.observation import Answer
from bulkrestart.core.secrets import Secret
from bulkrestart.core.target import Target

T = TypeVar("T")

#: Seconds before its end at which a credential is renewed; of a short-lived one, this share of its life.
#: keystoneauth1/identity/base.py `MIN_TOKEN_LIFE_SECONDS`.
_MARGIN: Final = 120.0
_SHARE: Final = 0.25
#: Seconds until another try where a renewal failed, and what there is still serves.
_RENEWAL_INTERVAL: Final = 5.0
#: Seconds that one sign-in may take: Keystone may be asked for its versions first, and each request has 60.
LONGEST_FETCH: Final = 120.0
#: Seconds before another try after a sign-in whose connection was cut.
_CUT_DELAYS: Final = (0.5, 2.0)
#: Seconds without a sign-in after which it is given up.
_PATIENCE: Final = 300.0
#: Seconds for which a refusal stands: to try a wrong password again and again locks the user out.
_REFUSAL_STANDS: Final = 60.0

#: Refusals that show that the cloud knows who asks.
_KNOWN: Final = frozenset({403, 404, 409})
#: Refusals in a row of a credential that was accepted before, after which a new one is fetched. More are needed once a
#: node of the cloud has been seen to refuse what others accept, because a new credential would not help there.
_REFUSED_IN_A_ROW: Final = 2
_REFUSED_BY_SOME: Final = 10
#: Where a request carries what signed it.
_CREDENTIAL: Final = "bulkrestart.credential"


def is_authenticated(status: int) -> bool:
    """Return whether an answer with this status shows that the cloud has accepted the request's credentials."""
    return 200 <= status < 300 or status in _KNOWN


class CloudAuth(httpx.Auth, ABC):
    """Signs requests, and knows what may help where the cloud refuses that."""

    @abstractmethod
    def remedy(self, refusal: httpx.Response) -> str:
        """Say in a few words what may help against a 401."""

    @property
    def secrets(self) -> Sequence[Secret[str]]:
        """The secrets that it knows, sent or not. They are masked in what the cloud answers."""
        return ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets and cannot be pickled or copied: make a new one")


class Issued:
    """What a sign-in gives.

    Args:
        headers: What signs a request.
        seconds: How long it is good for; None if that is unknown.
    """

    __slots__ = ("seconds", "secret")

    def __init__(self, headers: Mapping[str, str], seconds: float | None = None) -> None:
        self.secret = Secret(headers)
        self.seconds = seconds

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that sign a request."""
        return self.secret.reveal()


@dataclass(slots=True, eq=False)
class Credential:
    """What requests are signed with now.

    Attributes:
        headers: The headers that sign a request.
        renew_at: When to renew it, in seconds of `boottime`, which counts suspension; infinite if its end is unknown.
        ends_at: When it ends, on the same clock; infinite if that is unknown.
        was_accepted: Whether the cloud has taken it.
        refused: How often the cloud has refused it since the cloud last accepted it.
    """

    headers: Secret[Mapping[str, str]]
    renew_at: float = float("inf")
    ends_at: float = float("inf")
    was_accepted: bool = False
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is nothing to sign with.

    Attributes:
        words: What was seen.
        remedy: What may help.
        is_final: Trying again is no use, or has been of none for long enough.
        retry_after: Seconds after which another try may go well; None where nobody says.
        is_cut: The other side closed the connection without an answer: the next try may succeed at once.
    """

    words: str
    remedy: str
    is_final: bool = False
    retry_after: float | None = None
    is_cut: bool = False

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
        self._refusal_stands_until = float("-inf")
        #: Whether a credential was accepted after it had been refused.
        self._is_refused_by_some = False

    @abstractmethod
    async def fetch(self) -> Issued:
        """Sign in.

        Raises:
            SignInError: It failed.
        """

    @property
    def is_signed_in(self) -> bool:
        """Whether there is something to sign with that is still good."""
        return self.is_lasting or (self._newest is not None and boottime() < self._newest.ends_at)

    @property
    def is_lasting(self) -> bool:
        """Whether what there is to sign with is good for as long as nobody refuses it."""
        return self._newest is not None and self._newest.renew_at == float("inf")

    async def sign_in(self) -> Trouble | None:
        """See that there is something to sign with; give the trouble if there is not."""
        while not self._is_fresh():
            if self._lock.locked() and self.is_signed_in:
                # Another one renews it before its end: nobody else has to wait for that.
                return None
            fetches = self._fetches
            async with self._lock:
                # What another one fetched meanwhile is ours as well, be it a trouble.
                if self._fetches == fetches and boottime() >= self._refusal_stands_until:
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
        request.headers.update(self._newest.headers.reveal())
        request.extensions[_CREDENTIAL] = self._newest
        yield request

    def note(self, request: httpx.Request, status: int, *, is_for_all: bool = True) -> bool:
        """Record the status of an answer; return whether it refuses a credential that was accepted before.

        A credential that is refused several times in a row is not used again: the next sign-in fetches another.

        Args:
            request: The request.
            status: The status of its answer.
            is_for_all: Whether a refusal also concerns other kinds of requests. If not, a credential that was accepted
                before is kept.
        """
        credential: Credential | None = request.extensions.get(_CREDENTIAL)
        if credential is None:
            return False
        if status != 401:
            if is_authenticated(status):
                self._is_refused_by_some |= credential.refused > 0
                credential.was_accepted = True
                credential.refused = 0
            return False
        if not credential.was_accepted:
            most = 1
        elif not is_for_all:
            return True
        else:
            most = _REFUSED_BY_SOME if self._is_refused_by_some else _REFUSED_IN_A_ROW
        credential.refused += 1
        if credential is self._newest and credential.refused >= most and self.can_renew:
            self._newest = None
        return credential.was_accepted

    def _is_fresh(self) -> bool:
        return self.is_lasting or (self._newest is not None and boottime() < self._newest.renew_at)

    async def _renew(self) -> None:
        began = boottime()
        try:
            with anyio.fail_after(LONGEST_FETCH):
                issued = await self._fetch_again_if_cut()
        except SignInError as error:
            self._fail(boottime(), error.trouble)
        except TimeoutError:
            words = f"the sign-in takes more than {LONGEST_FETCH:.0f} s"
            self._fail(boottime(), Trouble(words, "see why it hangs"))
        else:
            life = float("inf") if issued.seconds is None else issued.seconds
            if boottime() - began >= life:
                self._fail(boottime(), Trouble("what the sign-in gives is over already", "check Keystone's clock"))
                return
            # Not from now: its life began when it was issued, at some time since we asked.
            margin = min(_MARGIN, life * _SHARE)
            self._newest = Credential(issued.secret, renew_at=began + life - margin, ends_at=began + life)
            self._was_signed_in = True
            self._trouble = None
        finally:
            self._fetches += 1

    async def _fetch_again_if_cut(self) -> Issued:
        """Sign in; try again if the connection is cut, as when a load balancer closes it."""
        for delay in _CUT_DELAYS:
            try:
                return await self.fetch()
            except SignInError as error:
                if not error.trouble.is_cut:
                    raise
            await anyio.sleep(delay)
        return await self.fetch()

    def _fail(self, now: float, trouble: Trouble) -> None:
        if self._newest is not None and now < self._newest.ends_at:
            next_try = float("inf") if trouble.is_final else now + _RENEWAL_INTERVAL
            self._newest.renew_at = min(next_try, self._newest.ends_at)
            return
        self._newest = None
        if self._trouble is None or now - self._troubled_at > _PATIENCE:
            self._troubled_since = now
        self._troubled_at = now
        # Before a run there is nothing to lose: whoever asks for it is told at once.
        is_over = not self._was_signed_in or now - self._troubled_since >= _PATIENCE
        self._trouble = replace(trouble, is_final=trouble.is_final or is_over)
        if trouble.is_final:
            self._refusal_stands_until = now + _REFUSAL_STANDS


class CatalogAuth(Renewed):
    """Signs with what a sign-in gives, and knows from it where the project's compute API is."""

    @abstractmethod
    async def find_target(self) -> Target:
        """Find the compute endpoint of the project, and the names of cloud, region and project; `sign_in` comes first.

        Raises:
            EndpointError: There is none.
        """


async def in_thread(function: Callable[[], T]) -> T:
    """Call a function that blocks in a worker thread; it is not counted among those of the program that embeds us."""

    def call() -> T:
        try:
            return function()
        except Exception:
            raise
        except BaseException as error:
            # In a thread, an exit is nobody's: it would end the event loop and leave the thread.
            raise RuntimeError(f"{type(error).__name__} in a worker thread") from error

    return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
