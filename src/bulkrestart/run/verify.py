"""The user's own check of servers that are back: called again and again, until each has passed or its time is up.

Law: however many checks hang, no more than so many run at once, and none holds the watcher or a slot for requests.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Final

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.decision import End, Unmet
from bulkrestart.core.faults import plain
from bulkrestart.core.model import Server
from bulkrestart.core.progress import Progress
from bulkrestart.core.settling import decide_check
from bulkrestart.engine.limiter import RunLimiter

#: Checks at once, at most. Each may hold a socket, and processes may have few (256 on macOS, 1024 elsewhere).
CHECKS_AT_ONCE: Final = 150
#: Seconds for one call of a check, at most: one that hangs must not take the time of all others.
LONGEST_CALL: Final = 30.0
#: Seconds between two calls for one server: at first, and at most. Each call makes the next wait longer.
FIRST_INTERVAL: Final = 1.0
LAST_INTERVAL: Final = 15.0
_GROWTH: Final = 1.5
#: The share of an interval that is left to chance, more or less, so that servers that came back together part.
_JITTER: Final = 0.2


@dataclass(slots=True)
class Checked:
    """A server that is checked.

    Attributes:
        progress: Its way so far.
        back: What became of it before: it is completed.
        server: The newest snapshot of it; None if a former process had that.
        deadline: When the last call begins, at the latest; None before the first.
        interval: Seconds until the next call.
    """

    progress: Progress
    back: End
    server: Server | None
    deadline: float | None = None
    interval: float = FIRST_INTERVAL


class Verifier:
    """Calls the check.

    Args:
        compute: The cloud.
        limiter: Limits its requests.
        check: What the user gave; it is to be an async function that gives a bool.
        timeout: Seconds from the first call for a server until the last one begins. Time in which a server waits for
            its first call is not counted against it, and nobody fails whose last call began any earlier.
        finish: Takes the outcome of each server.
        rng: The source of jitter.
    """

    def __init__(
        self,
        *,
        compute: Compute,
        limiter: RunLimiter,
        check: Callable[[Server], object],
        timeout: float,
        finish: Callable[[Progress, End], None],
        rng: random.Random,
    ) -> None:
        self._compute = compute
        self._limiter = limiter
        self._check = check
        self._timeout = timeout
        self._longest = min(LONGEST_CALL, timeout)
        self._finish = finish
        self._rng = rng
        self._due: list[tuple[float, int, Checked]] = []
        self._numbers = count()
        self._unfinished = 0
        self._slots = anyio.Semaphore(CHECKS_AT_ONCE)
        self._news = anyio.Event()
        self._is_closed = False

    def __len__(self) -> int:
        return self._unfinished

    def take(self, progress: Progress, back: End, server: Server | None) -> None:
        """Take a server that is back.

        Args:
            progress: Its way so far.
            back: What became of it.
            server: The newest snapshot of it; None if there is none.
        """
        self._unfinished += 1
        self._put(Checked(progress, back, server), anyio.current_time())

    def close(self) -> None:
        """Expect no more servers: it ends with the last of those it has."""
        self._is_closed = True
        self._news.set()

    def forget(self) -> None:
        """Give up all that are not finished."""
        self._due.clear()
        self._unfinished = 0

    async def run(self) -> None:
        """Check until closed and done."""
        async with anyio.create_task_group() as calls:
            while self._unfinished or not self._is_closed:
                wait = self._due[0][0] - anyio.current_time() if self._due else float("inf")
                if wait > 0.0:
                    self._news = anyio.Event()
                    with anyio.move_on_after(wait):
                        await self._news.wait()
                    continue
                await self._slots.acquire()
                _, _, checked = heappop(self._due)
                calls.start_soon(self._verify, checked)

    def _put(self, checked: Checked, due: float) -> None:
        heappush(self._due, (due, next(self._numbers), checked))
        self._news.set()

    async def _verify(self, checked: Checked) -> None:
        try:
            unmet, is_late = await self._call(checked)
        finally:
            self._slots.release()
        end = decide_check(unmet, checked.back, is_late=is_late)
        if isinstance(end, End):
            self._unfinished -= 1
            self._finish(checked.progress, end)
            self._news.set()
            return
        now = anyio.current_time()
        assert checked.deadline is not None, "it has been called"
        due = min(now + checked.interval * self._rng.uniform(1.0 - _JITTER, 1.0 + _JITTER), max(now, checked.deadline))
        checked.interval = min(checked.interval * _GROWTH, LAST_INTERVAL)
        self._put(checked, due)

    async def _call(self, checked: Checked) -> tuple[Unmet | None, bool]:
        """Call the check once; give why it was not passed, and whether the call began when the time was over."""
        server = checked.server
        unmet: Unmet | None = None
        if server is None:
            server_id = checked.progress.server_id
            seen, _ = await self._limiter.ask(lambda: self._compute.show(server_id))
            if isinstance(seen, Server):
                server = checked.server = seen
            else:
                unmet = Unmet(f"it cannot be looked at: {seen.words}")
        now = anyio.current_time()
        if checked.deadline is None:
            checked.deadline = now + self._timeout
        is_late = now >= checked.deadline
        seconds = self._longest if is_late else min(self._longest, checked.deadline - now)
        return (unmet if server is None else await self._ask(server, seconds)), is_late

    async def _ask(self, server: Server, seconds: float) -> Unmet | None:
        answers: list[Unmet | None] = []

        async def ask() -> None:
            try:
                answer = self._check(server)
                answers.append(_read(await answer) if isinstance(answer, Awaitable) else _not_async(answer))
            except Exception as error:  # whatever a user's check may raise
                answers.append(Unmet(_words(error)))

        with anyio.move_on_after(seconds) as bounded:
            # A task of its own: asyncio lets anybody raise a cancellation, and here it ends nothing but the call.
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
        if answers:
            return answers[0]
        return Unmet(f"no answer within {seconds:g} s" if bounded.cancelled_caught else "it was cancelled")


def _read(answer: object) -> Unmet | None:
    """Read what a check gave. What is only like a bool may mean anything: a response, or None for no error."""
    if answer is True:
        return None
    if answer is False:
        return Unmet("it gave False")
    return Unmet(f"verify must give True or False, not {type(answer).__name__}", is_final=True)


def _not_async(answer: object) -> Unmet:
    kind = type(answer).__name__
    return Unmet(f"verify must be an async function (async def): what it gave is a {kind}", is_final=True)


def _words(error: BaseException) -> str:
    """Say what a check raised; of a group, the first that is in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return plain(f"{type(error).__name__}: {error}".removesuffix(": "))
