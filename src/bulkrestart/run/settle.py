"""One watcher for all servers that were accepted, until each is back or its time is up."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.decide import reboots_since, unauthorized
from bulkrestart.core.decision import End, Look, Prove, Settling, Watch
from bulkrestart.core.model import Action, Server, Stop, StopReason
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.progress import Progress
from bulkrestart.core.settling import decide_back, decide_proof, gone, late
from bulkrestart.run.acquaintance import Acquaintance
from bulkrestart.run.course import Course
from bulkrestart.run.crew import work_through
from bulkrestart.run.gate import Gate
from bulkrestart.run.sweep import Sight, Sweep

#: Seconds between two polls: at first, and at most. A poll that saw no server come back makes the next wait longer.
FIRST_INTERVAL: Final = 2.0
LAST_INTERVAL: Final = 15.0
_GROWTH: Final = 1.5
#: Seconds without any answer to a poll after which the wait is given up.
BLIND_TIMEOUT: Final = 300.0


class Settler:
    """Watches.

    Args:
        compute: The cloud.
        gate: The way to it.
        sweep: Reads the states of the servers.
        course: Ends the run if the cloud no longer answers us.
        acquaintance: What the run knows of the action log.
        finish: Takes the outcome of each server.
        wait_timeout: Seconds to wait for a server after its acceptance.
        lanes: Requests at once.
        rng: The source of jitter.
    """

    def __init__(
        self,
        *,
        compute: Compute,
        gate: Gate,
        sweep: Sweep,
        course: Course,
        acquaintance: Acquaintance,
        finish: Callable[[Progress, End], None],
        wait_timeout: float,
        lanes: int,
        rng: random.Random,
    ) -> None:
        self._compute = compute
        self._gate = gate
        self._sweep = sweep
        self._course = course
        self._acquaintance = acquaintance
        self._finish = finish
        self._wait_timeout = wait_timeout
        self._lanes = lanes
        self._rng = rng
        self._watched: dict[str, Progress] = {}
        self._news = anyio.Event()
        self._is_closed = False
        self._answered_at = 0.0
        self._refusals = 0

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, progress: Progress) -> None:
        """Take a server that was accepted just now."""
        progress.deadline = self._gate.patience(anyio.current_time()) + self._wait_timeout
        self._watched[progress.server_id] = progress
        self._news.set()

    def close(self) -> None:
        """Expect no more servers: the watcher ends with the last of those it has."""
        self._is_closed = True
        self._news.set()

    async def run(self) -> None:
        """Watch until closed and done, or until the cloud no longer answers."""
        interval = FIRST_INTERVAL
        self._answered_at = anyio.current_time()
        while True:
            if not self._watched:
                if self._is_closed:
                    return
                self._news = anyio.Event()
                await self._news.wait()
                interval, self._answered_at = FIRST_INTERVAL, anyio.current_time()
                continue
            await anyio.sleep(interval * self._rng.uniform(0.8, 1.2))
            began, count = anyio.current_time(), len(self._watched)
            sight = await self._poll()
            if self._is_hopeless(sight):
                return
            took = anyio.current_time() - began
            has_news = len(self._watched) < count
            # A slow cloud is polled less often, so that polls never take most of its time.
            interval = max(FIRST_INTERVAL if has_news else min(interval * _GROWTH, LAST_INTERVAL), took)

    async def _poll(self) -> Sight:
        began = anyio.current_time()
        oldest = min(progress.accepted or 0.0 for progress in self._watched.values())
        back: dict[str, Progress] = {}
        unsure: dict[str, Progress] = {}

        def take(server_id: str, server: Server | Observation, asked: float) -> None:
            progress = self._watched.get(server_id)
            if progress is None:
                return
            match self._take(progress, server, asked):
                case Prove():
                    back[server_id] = progress
                case Look():
                    unsure[server_id] = progress
                case End() as end:
                    self._end(progress, end)
                case Watch():
                    pass

        sight = await self._sweep.read(self._watched.keys(), take, changed_since=oldest)
        if sight.is_complete:
            unsure.update(self._absent(began))
        await self._sweep.read_each(unsure, take, sight)
        # A server that stands on two pages of a list that changes while it is read may have its outcome already.
        proving = [progress for server_id, progress in back.items() if server_id in self._watched]
        if proving:
            await work_through(proving, self._prove, lanes=min(self._lanes, len(proving)))
        return sight

    def _absent(self, began: float) -> dict[str, Progress]:
        """Find whom to look at singly after a complete walk that did not show them.

        One that no walk has ever shown may be in a cell that is down; one that is late is not given up unseen.
        """
        return {
            server_id: progress
            for server_id, progress in self._watched.items()
            if progress.accepted is not None
            and progress.accepted < began
            and (progress.seen is None or (progress.seen < began and self._is_late(progress, began)))
        }

    def _is_late(self, progress: Progress, asked: float) -> bool:
        return self._gate.patience(asked) >= progress.deadline

    def _take(self, progress: Progress, server: Server | Observation, asked: float) -> Settling:
        """Decide on what a sweep saw of a server."""
        if progress.accepted is None or asked < progress.accepted:
            return Watch()
        if not isinstance(server, Server):
            return gone(server) if isinstance(server, Answer) and server.is_not_found else Watch()
        progress.seen = asked
        settling = decide_back(server, progress)
        if isinstance(settling, Watch) and self._is_late(progress, asked):
            return late(server)
        return settling

    async def _prove(self, progress: Progress) -> None:
        is_late = self._is_late(progress, anyio.current_time())
        match decide_proof(await self._read_log(progress), progress, is_late=is_late):
            case End() as end:
                self._end(progress, end)
            case Prove() | Look() | Watch():
                pass

    async def _read_log(self, progress: Progress) -> Sequence[Action] | Observation:
        """Read the row of the accepted reboot; if its request id is unknown, find it in the whole log first."""
        if progress.request_id is None:
            log, _ = await self._gate.ask(lambda: self._compute.actions(progress.server_id))
            rows = reboots_since(log, progress) if isinstance(log, tuple) else []
            if not rows:
                return log
            progress.request_id = rows[0].request_id
        log, _ = await self._gate.ask(partial(self._compute.action, progress.server_id, progress.request_id))
        if isinstance(log, tuple):
            self._acquaintance.meet(log, progress.attempts[-1].request_id)
        return log

    def _end(self, progress: Progress, end: End) -> None:
        del self._watched[progress.server_id]
        self._finish(progress, end)

    def _is_hopeless(self, sight: Sight) -> bool:
        """Tell whether to give up the wait: the cloud no longer answers, or no longer answers us."""
        now = anyio.current_time()
        trouble = sight.trouble
        self._refusals = self._refusals + 1 if isinstance(trouble, Answer) and trouble.status == 401 else 0
        if isinstance(trouble, Answer) and self._refusals > 1:
            self._course.halt(unauthorized(trouble))
            return True
        if sight.answered:
            self._answered_at = now
        elif now - self._answered_at > BLIND_TIMEOUT:
            seconds = f"{now - self._answered_at:.0f}"
            self._course.halt(Stop(StopReason.OUTAGE, f"no poll was answered for {seconds} s ({trouble})"))
            return True
        return False
