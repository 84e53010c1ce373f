"""Reads action logs and states of single servers, and stops asking a source that cannot be read (`docs/sources.md`).

Law: a source that is known to be unreadable is not asked again in this run, and one warning says so. A source that
fails is asked rarely until it can be read again; one warning says that it fails, and another that it can be read again.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar, cast

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.model import Log, Server
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.sources import SourceHealth, SourceOutage, is_failure
from bulkrestart.core.stall import RequestKind, span
from bulkrestart.engine.limiter import RunLimiter

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Words:
    """How warnings name a source, and what is used instead of it."""

    name: str
    instead: str


_LOG_WORDS: Final = _Words("action logs", "reboots are judged by the states of servers alone")
_ROW_WORDS: Final = _Words("single rows of action logs", "whole logs do not show when a reboot ends")
_STATES_WORDS: Final = _Words("single servers", "only lists can show whether servers are back")
_FINISH_WORDS: Final = (
    "the action log does not show when a reboot ends: the states of servers tell whether they are back"
)


class Source:
    """One kind of information that the cloud gives about single servers.

    Args:
        limiter: Limits its requests.
        kind: What its requests ask for.
        words: How warnings name it.
        servers: How many servers the run has.
        compare: Asks another source about a server, to tell if only this one fails; None if this source is asked as
            usual however often it fails.
    """

    def __init__(
        self,
        limiter: RunLimiter,
        kind: RequestKind,
        words: _Words,
        servers: int,
        compare: Callable[[str], Awaitable[Server | Observation]] | None = None,
    ) -> None:
        self._limiter = limiter
        self._kind = kind
        self._words = words
        self._compare = compare
        self._health = SourceHealth(servers)
        self._outage = SourceOutage()
        #: Whether a warning said that the source fails, and none yet that it can be read again.
        self._has_warned_of_outage = False

    @property
    def permanent_answer(self) -> Answer | None:
        """The answer that takes the place of all further ones; None while the source counts as readable."""
        return self._health.permanent_answer

    @property
    def refusal(self) -> Answer | None:
        """The last answer after which a server is judged without the source; None if the source was read since."""
        return self._health.refusal

    def relate(self, other: "Source") -> None:
        """Let the failures of each of two sources count for the other one as well."""
        self._outage.related, other._outage.related = other._outage, self._outage

    def record_read(self) -> None:
        """Record that the source was read, or that an answer of another source shows that it can be."""
        self._health.record_read()
        self._outage.record_read(anyio.current_time())
        if self._has_warned_of_outage:
            self._has_warned_of_outage = False
            _log.warning("%s can be read again", self._words.name)

    def failing_seconds(self, server_id: str) -> float:
        """Return for how many seconds the source has failed; 0.0 unless the server is judged without it."""
        now = anyio.current_time()
        return self._outage.lasts(now) if self._outage.is_failing(server_id, now) else 0.0

    def is_suspect(self, server_id: str) -> bool:
        """Return whether so many requests failed in a row that only one request at a time is made."""
        return self._outage.is_suspect(server_id)

    def withhold(self, server_id: str, *, is_last: bool = False) -> Answer | Unsent | Unanswered | None:
        """Return what stands for an answer if no request is to be made now; see `SourceOutage.withhold`."""
        return self.permanent_answer or self._outage.withhold(server_id, anyio.current_time(), is_last=is_last)

    def judge(
        self, seen: T, server_id: str, *, asked_at: float, is_shown: bool = False
    ) -> T | Answer | Unsent | Unanswered:
        """Record an answer, and return what stands for it: see `SourceHealth.judge` and `SourceOutage`."""
        good_elsewhere = self._limiter.count_good_except(self._kind)
        if self._compare is not None and is_failure(seen):
            now = anyio.current_time()
            self._outage.record_failure(seen, server_id, now, good_elsewhere, asked_at=asked_at)
            if not self._outage.is_failing(server_id, now):
                return seen
            self._warn_of_outage(seen, now)
            return self._outage.answer(now)
        was_readable = self.permanent_answer is None
        if was_readable and not isinstance(seen, Observation):
            self.record_read()
        result = self._health.judge(seen, server_id, good_elsewhere, is_shown=is_shown)
        if was_readable and self.permanent_answer is not None:
            _log.warning(
                "%s cannot be read (%s): %s", self._words.name, self.permanent_answer.words, self._words.instead
            )
        return result

    async def request(
        self, request: Callable[[], Awaitable[T]], server_id: str, *, is_shown: bool = False, must_ask: bool = False
    ) -> T | Answer | Unsent | Unanswered:
        """Make a request with a permit that is held already, unless the source is known to be unreadable or to fail.

        Args:
            request: Makes the request.
            server_id: The server that it is about.
            is_shown: Whether the cloud shows the server.
            must_ask: Ask also a source that fails.
        """
        withheld = self.permanent_answer if must_ask else self.withhold(server_id)
        if withheld is not None:
            return withheld
        asked = anyio.current_time()
        return self.judge(await request(), server_id, asked_at=asked, is_shown=is_shown)

    def _warn_of_outage(self, failure: Observation, now: float) -> None:
        """Warn that the source fails, once until it can be read again."""
        if not self._has_warned_of_outage:
            self._has_warned_of_outage = True
            words = "%s have failed for %s while other requests succeed (%s): %s, until they can be read again"
            _log.warning(words, self._words.name, span(self._outage.lasts(now)), failure, self._words.instead)

    async def ask(
        self,
        request: Callable[[], Awaitable[T | Observation]],
        server_id: str,
        *,
        is_for_send: bool = False,
        is_shown: bool = False,
        is_last: bool = False,
        must_ask: bool = False,
    ) -> tuple[T | Observation, float]:
        """Make a request, unless the source is known to be unreadable or to fail; see `RunLimiter.ask`.

        If no request of another kind has succeeded since the last failure, another source is asked first: if that fails
        as well, it is not only this source that fails.

        Args:
            request: Makes the request.
            server_id: The server that it is about.
            is_for_send: It is of no use once the run has stopped.
            is_shown: Whether the cloud shows the server.
            is_last: The reader will not ask again.
            must_ask: The request is made even if the source fails.
        """
        is_comparison = False

        async def make_request() -> T | Server | Observation:
            # Other requests may have failed while this one waited to leave, so this is decided now.
            nonlocal is_comparison
            good_elsewhere = self._limiter.count_good_except(self._kind)
            if not must_ask and self._outage.needs_comparison(good_elsewhere):
                is_comparison = True
                assert self._compare is not None, "no other source is known to fail"
                return await self._compare(server_id)
            return await request()

        withheld = self.permanent_answer if must_ask else self.withhold(server_id, is_last=is_last)
        if withheld is not None:
            return withheld, anyio.current_time()
        while True:
            is_comparison = False
            seen, asked = await self._limiter.ask(make_request, is_for_send=is_for_send)
            if is_comparison and not isinstance(seen, Observation):
                continue
            if is_comparison:
                # Other requests fail as well, so this one is made as if it were any other.
                seen, asked = await self._limiter.ask(request, is_for_send=is_for_send)
            return self.judge(cast("T | Observation", seen), server_id, asked_at=asked, is_shown=is_shown), asked


class Sources:
    """The sources of a run: action logs, their single rows, and states.

    Args:
        compute: The cloud.
        limiter: Limits its requests.
        servers: How many servers the run has.

    Attributes:
        log: The action log.
        row: A single row of the action log, which shows more than the whole log does.
        states: The states of a single server.
    """

    def __init__(self, compute: Compute, limiter: RunLimiter, servers: int) -> None:
        self._compute = compute
        self._has_warned_of_finish = False
        self.log = Source(limiter, RequestKind.LOG, _LOG_WORDS, servers, compute.show)
        self.row = Source(limiter, RequestKind.LOG, _ROW_WORDS, servers, compute.show)
        self.log.relate(self.row)
        self.states = Source(limiter, RequestKind.SERVER, _STATES_WORDS, servers)

    async def read_log(
        self,
        server_id: str,
        *,
        is_for_send: bool = False,
        is_shown: bool = False,
        is_last: bool = False,
    ) -> tuple[Log | Observation, float]:
        """Read the action log of a server; return it, or what came instead, and when the request left.

        Before a send that may be the second, the log is asked even if it fails.
        """
        request = partial(self._compute.actions, server_id)
        return await self.log.ask(
            request,
            server_id,
            is_for_send=is_for_send,
            is_shown=is_shown,
            is_last=is_last,
            must_ask=is_for_send,
        )

    async def read_row(self, server_id: str, request_id: str) -> tuple[Log | Observation, float]:
        """Read one row of the action log of a server; return a log of that row, or what came instead."""
        seen, asked = await self.row.ask(partial(self._compute.action, server_id, request_id), server_id)
        if isinstance(seen, tuple):
            # A user who may read rows may read logs.
            self.log.record_read()
            self._warn_of_finish(seen)
        elif self.log.is_suspect(server_id):
            # Whole logs replace rows, so one reader finds out whether these fail as well.
            await self.read_log(server_id, is_shown=True)
        return seen, asked

    def _warn_of_finish(self, row: Log) -> None:
        """Warn once if a row that was read singly does not tell whether it has finished."""
        if not self._has_warned_of_finish and any(one.is_finished is None and not one.is_error for one in row):
            self._has_warned_of_finish = True
            _log.warning(_FINISH_WORDS)

    async def read_server(self, server_id: str, *, is_for_send: bool) -> tuple[Server | Observation, float]:
        """Read the states of a server."""
        return await self.states.ask(partial(self._compute.show, server_id), server_id, is_for_send=is_for_send)
