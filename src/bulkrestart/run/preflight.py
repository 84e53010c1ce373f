"""What is asked before anything is sent: is this the project's compute API, and does it know us?"""

import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, repeat
from typing import Final, TypeVar

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.clock import CloudClock, moment_text
from bulkrestart.core.decide import decide_first
from bulkrestart.core.decision import Again, Ready
from bulkrestart.core.errors import AuthError, EndpointError, StalledError
from bulkrestart.core.model import Server, StopReason
from bulkrestart.core.observation import CHECK_URL, Answer, Observation, Unsent
from bulkrestart.engine.limiter import RunLimiter

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Looks at a cloud that does not answer, and the ceiling of the random wait after the first, in seconds, doubled at
#: each more: some 15 s besides what the looks take, which is `request_timeout` where nothing refuses them.
TRIES: Final = 5
_FIRST_CEILING: Final = 2.0


async def require_sign_in(limiter: RunLimiter) -> None:
    """Sign in if that is for us to see to, or raise.

    Raises:
        AuthError: It failed.
        EndpointError: It would take too long.
    """
    trouble = await limiter.sign_in()
    if trouble is not None:
        raise AuthError(f"{trouble}; nothing was sent")
    _check(limiter)


def require_past(since: float | None, clock: CloudClock) -> None:
    """Refuse a moment that is yet to come for the cloud: a reboot of this run would not count as since.

    Args:
        since: The moment, in seconds since the epoch; None for none.
        clock: The cloud's time, which a look has shown.

    Raises:
        EndpointError: It is.
    """
    now = clock.at(anyio.current_time())
    if since is not None and now is not None and not clock.is_guess and since > now[1]:
        words = f"the cloud's clock shows {moment_text(now[1])}: give a since that is past there; nothing was sent"
        raise EndpointError(words)


def _check(limiter: RunLimiter) -> None:
    if (stop := limiter.stop_signal.stop) is not None:
        kind = StalledError if stop.reason in (StopReason.STALLED, StopReason.OUTAGE) else EndpointError
        raise kind(f"{stop.detail}; nothing was sent")


class Preflight:
    """Asks, and does not go on until the cloud has answered.

    Args:
        compute: The cloud.
        limiter: Limits its requests.
        rng: The source of jitter.

    Attributes:
        compute: The cloud.
        stall: Ends what makes no progress.
    """

    def __init__(self, compute: Compute, limiter: RunLimiter, rng: random.Random) -> None:
        self.compute = compute
        self.stall = limiter.stall
        self._limiter = limiter
        self._rng = rng

    async def look(self, server_ids: Sequence[str]) -> Server | Answer:
        """Look at one server, to check the endpoint and the credentials and to read the cloud's clock.

        An inconclusive answer may be about that server only, so the next request is for another one.

        Args:
            server_ids: Some servers of the run, to look at in turn.

        Returns:
            A server, or what came instead.

        Raises:
            AuthError: Our credentials are refused.
            EndpointError: Nothing answers, or something else than the compute API of the project.
        """
        return await self._ask(cycle([(partial(self.compute.show, server_id), server_id) for server_id in server_ids]))

    async def ask(
        self, request: Callable[[], Awaitable[T | Observation]], *, what: str, remedy: str = CHECK_URL
    ) -> T | Answer:
        """Repeat a request for many servers until it succeeds, or is refused for a reason other than our credentials.

        Args:
            request: Makes the request.
            what: What is requested, for the text of an error.
            remedy: What to do if nothing answers, for the text of an error.

        Raises:
            AuthError: Our credentials are refused.
            EndpointError: Nothing answers, or something else than the compute API of the project.
        """
        return await self._ask(repeat((request, None)), what=f" when it is asked for {what}", remedy=remedy)

    async def _ask(
        self,
        requests: Iterator[tuple[Callable[[], Awaitable[T | Observation]], str | None]],
        *,
        what: str = "",
        remedy: str = CHECK_URL,
    ) -> T | Answer:
        await require_sign_in(self._limiter)
        refused_tokens = stale_tokens = strays = tries = 0
        request, server_id = next(requests)
        while True:
            seen, _ = await self._limiter.ask(request)
            _check(self._limiter)
            if not isinstance(seen, Observation):
                return seen
            if isinstance(seen, Answer) and self.compute.lower_microversion(seen):
                continue
            decision = decide_first(
                seen,
                refused_tokens=refused_tokens,
                stale_tokens=stale_tokens,
                strays=strays,
                is_about_server=server_id is not None,
            )
            match decision:
                case Ready(refusal):
                    return refusal
                case Again(is_try=False):
                    # The limiter makes the next look wait.
                    refused_tokens += isinstance(seen, Answer) and seen.is_refused_token
                    stale_tokens += isinstance(seen, Answer) and seen.has_stale_token
                    if isinstance(seen, Answer) and seen.status == 401:
                        request, server_id = next(requests)
                case Again():
                    request, server_id = next(requests)
                    tries += 1
                    is_stray = isinstance(seen, Answer) and seen.status < 500
                    strays += is_stray
                    if tries == TRIES:
                        raise _unanswered(seen, what, remedy)
                    # If stray answers repeat, an error reports them; until then there is nothing for the user to do.
                    level = logging.DEBUG if is_stray else logging.WARNING
                    _log.log(level, "%s; look %d of %d follows", _description(seen, what), tries + 1, TRIES)
                    await anyio.sleep(self._rng.uniform(0.0, _FIRST_CEILING * 2.0 ** (tries - 1)))


def _unanswered(seen: Observation, what: str, remedy: str) -> EndpointError:
    """Make the error after the last try. If this machine or its network is the cause, its remedy replaces `remedy`."""
    if isinstance(seen, Unsent) and seen.remedy != CHECK_URL:
        remedy = seen.remedy
    return EndpointError(f"{_description(seen, what)}; {remedy}; nothing was sent")


def _description(seen: Observation, what: str) -> str:
    """Describe a failed request; a status alone, such as 200, does not say why the answer is of no use."""
    if not isinstance(seen, Answer):
        return f"the compute API does not answer{what} ({seen})"
    words = f"{seen}: {seen.fault.message}" if seen.fault.message else str(seen)
    return f"the compute API gives no usable answer{what} ({words})"
