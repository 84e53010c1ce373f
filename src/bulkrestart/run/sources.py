"""Reads action logs and states of single servers, and stops asking a source that cannot be read (`docs/sources.md`).

Law: a source that is known to be unreadable is not asked again in this run, and one warning says so.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.model import Log, Server
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.sources import SourceHealth
from bulkrestart.core.stall import RequestKind
from bulkrestart.engine.limiter import RunLimiter

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LOG_WORDS: Final = "action logs cannot be read (%s): reboots are judged by the states of servers alone"
_ROW_WORDS: Final = "single rows of action logs cannot be read (%s): whole logs do not show when a reboot ends"
_STATES_WORDS: Final = "single servers cannot be read (%s): only lists can show whether servers are back"


class Source:
    """One kind of information that the cloud gives about single servers.

    Args:
        limiter: Limits its requests.
        kind: What its requests ask for.
        words: The text of the warning that it cannot be read.
    """

    def __init__(self, limiter: RunLimiter, kind: RequestKind, words: str) -> None:
        self._limiter = limiter
        self._kind = kind
        self._words = words
        self._health = SourceHealth()

    @property
    def permanent_answer(self) -> Answer | None:
        """The answer that takes the place of all further ones; None while the source counts as readable."""
        return self._health.permanent_answer

    def record_read(self) -> None:
        """Record that the source was read in another way."""
        self._health.record_read()

    def judge(self, seen: T, *, is_shown: bool = False) -> T | Answer:
        """Record an answer, and return it, or `permanent_answer` once there is one; see `SourceHealth.judge`."""
        if self._health.judge(seen, self._limiter.count_good_except(self._kind), is_shown=is_shown):
            assert self.permanent_answer is not None, "the source was judged unreadable"
            _log.warning(self._words, self.permanent_answer.words)
        return self.permanent_answer or seen

    async def request(self, request: Callable[[], Awaitable[T]], *, is_shown: bool = False) -> T | Answer:
        """Make a request with a permit that is held already, unless the source is known to be unreadable."""
        if self.permanent_answer is not None:
            return self.permanent_answer
        return self.judge(await request(), is_shown=is_shown)

    async def ask(
        self,
        request: Callable[[], Awaitable[T | Observation]],
        *,
        is_for_send: bool = False,
        is_shown: bool = False,
    ) -> tuple[T | Observation, float]:
        """Make a request, unless the source is known to be unreadable; see `RunLimiter.ask`."""
        if self.permanent_answer is not None:
            return self.permanent_answer, anyio.current_time()
        seen, asked = await self._limiter.ask(request, is_for_send=is_for_send)
        return self.judge(seen, is_shown=is_shown), asked


class Sources:
    """The sources of a run: action logs, their single rows, and states.

    Args:
        compute: The cloud.
        limiter: Limits its requests.

    Attributes:
        log: The action log.
        row: A single row of the action log, which shows more than the whole log does.
        states: The states of a single server.
    """

    def __init__(self, compute: Compute, limiter: RunLimiter) -> None:
        self._compute = compute
        self.log = Source(limiter, RequestKind.LOG, _LOG_WORDS)
        self.row = Source(limiter, RequestKind.LOG, _ROW_WORDS)
        self.states = Source(limiter, RequestKind.SERVER, _STATES_WORDS)

    async def read_log(
        self, server_id: str, *, is_for_send: bool = False, is_shown: bool = False
    ) -> tuple[Log | Observation, float]:
        """Read the action log of a server; return it, or what came instead, and when the request left."""
        request = partial(self._compute.actions, server_id)
        return await self.log.ask(request, is_for_send=is_for_send, is_shown=is_shown)

    async def read_row(self, server_id: str, request_id: str) -> tuple[Log | Observation, float]:
        """Read one row of the action log of a server; return a log of that row, or what came instead."""
        seen, asked = await self.row.ask(partial(self._compute.action, server_id, request_id))
        if isinstance(seen, tuple):
            # A user who may read rows may read logs.
            self.log.record_read()
        return seen, asked

    async def read_server(self, server_id: str, *, is_for_send: bool) -> tuple[Server | Observation, float]:
        """Read the states of a server."""
        return await self.states.ask(partial(self._compute.show, server_id), is_for_send=is_for_send)
