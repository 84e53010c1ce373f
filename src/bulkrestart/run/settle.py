"""One watcher for all servers that were accepted, until each is back or its time is up."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.decide import unauthorized
from bulkrestart.core.decision import End, Look, Prove, Watch
from bulkrestart.core.look import reboots_since
from bulkrestart.core.model import Log, Server, Stop, StopReason
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.progress import Progress
from bulkrestart.core.settling import decide_back, decide_proof, gone, is_over, late
from bulkrestart.run.course import Course
from bulkrestart.run.crew import work_through
from bulkrestart.run.gate import Gate
from bulkrestart.run.knowledge import LogKnowledge
from bulkrestart.run.sweep import Sweep, Swept

#: Seconds between two polls: at first, and at most. A poll that saw no server come back makes the next wait longer.
FIRST_INTERVAL: Final = 2.0
LAST_INTERVAL: Final = 15.0
_GROWTH: Final = 1.5
#: Seconds without any server in the answers to polls after which the wait is given up, though the cloud does answer.
BLIND_TIMEOUT: Final = 300.0


@dataclass(slots=True)
class Watched:
    """A server that is waited for.

    Attributes:
        progress: Its way so far.
        accepted: When it was accepted.
        deadline: When the wait for it ends, on the clock that stands still while everybody is held.
        seen: When the request left that last showed its state; None before the first.
        was_over: That showed the reboot ended, and the server not active.
    """

    progress: Progress
    accepted: float
    deadline: float
    seen: float | None = None
    was_over: bool = False


class Settler:
    """Watches.

    Args:
        compute: The cloud.
        gate: The way to it.
        sweep: Reads the states of the servers.
        course: Ends the run if the cloud no longer answers us.
        knowledge: What the run knows of the action log.
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
        knowledge: LogKnowledge,
        finish: Callable[[Progress, End], None],
        wait_timeout: float,
        lanes: int,
        rng: random.Random,
    ) -> None:
        self._compute = compute
        self._gate = gate
        self._sweep = sweep
        self._course = course
        self._knowledge = knowledge
        self._finish = finish
        self._wait_timeout = wait_timeout
        self._lanes = lanes
        self._rng = rng
        self._watched: dict[str, Watched] = {}
        self._news = anyio.Event()
        self._is_closed = False
        self._answered_at = 0.0
        self._refusals = 0

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, progress: Progress) -> None:
        """Take a server that was accepted just now."""
        now = anyio.current_time()
        deadline = self._gate.patience(now) + self._wait_timeout
        self._watched[progress.server_id] = Watched(progress, now, deadline)
        self._news.set()

    def forget(self) -> None:
        """Give up all that are still watched."""
        self._watched.clear()

    def close(self) -> None:
        """Expect no more servers: the watcher ends with the last of those it has."""
        self._is_closed = True
        self._news.set()

    async def run(self) -> None:
        """Watch until closed and done, or until the cloud no longer answers."""
        interval = FIRST_INTERVAL
        self._answered_at = self._gate.patience(anyio.current_time())
        while True:
            if not self._watched:
                if self._is_closed:
                    return
                self._news = anyio.Event()
                await self._news.wait()
                interval, self._answered_at = FIRST_INTERVAL, self._gate.patience(anyio.current_time())
                continue
            with anyio.move_on_after(interval * self._rng.uniform(0.8, 1.2)):
                await self._course.lost.wait()
            began, count = self._gate.patience(anyio.current_time()), len(self._watched)
            swept = await self._poll()
            if self._course.lost.is_set() or self._is_hopeless(swept):
                return
            took = self._gate.patience(anyio.current_time()) - began
            has_news = len(self._watched) < count
            # A slow cloud is polled less often, so that polls never take most of its time.
            interval = max(FIRST_INTERVAL if has_news else min(interval * _GROWTH, LAST_INTERVAL), took)

    async def _poll(self) -> Swept:
        began = anyio.current_time()
        oldest = min(watched.accepted for watched in self._watched.values())
        back: list[str] = []
        unsure: list[str] = []

        def take(server_id: str, server: Server | Observation, asked: float) -> None:
            watched = self._watched.get(server_id)
            if watched is None or asked < watched.accepted:
                return
            match self._decide(watched, server, asked):
                case Prove():
                    back.append(watched.progress.server_id)
                case Look():
                    unsure.append(watched.progress.server_id)
                case End() as end:
                    self._end(watched.progress, end)
                case Watch():
                    pass

        swept = await self._sweep.read(self._watched.keys(), take, changed_since=oldest)
        if swept.is_complete:
            unsure.extend(self._absent(began))
        await self._sweep.read_each(dict.fromkeys(unsure), take, swept)
        # A server that stands on two pages of a list that changes while it is read may have its outcome already.
        # Only ids are kept meanwhile: what is watched of a server is free once it has its outcome.
        proving = [server_id for server_id in dict.fromkeys(back) if server_id in self._watched]
        if proving:
            await work_through(proving, self._prove, lanes=min(self._lanes, len(proving)))
        return swept

    def _absent(self, began: float) -> list[str]:
        """Find whom to look at singly after a complete walk that did not show them.

        One that no walk has ever shown may be in a cell that is down; one that is late is not given up unseen.
        """
        return [
            server_id
            for server_id, watched in self._watched.items()
            if watched.accepted < began
            and (watched.seen is None or (watched.seen < began and self._is_late(watched, began)))
        ]

    def _is_late(self, watched: Watched, asked: float) -> bool:
        return self._gate.patience(asked) >= watched.deadline

    def _decide(self, watched: Watched, server: Server | Observation, asked: float) -> Watch | Prove | Look | End:
        if not isinstance(server, Server):
            return gone(server) if isinstance(server, Answer) and server.is_not_found else Watch()
        decision = decide_back(server, is_second_look=watched.was_over)
        watched.seen, watched.was_over = asked, is_over(server)
        return late(server) if isinstance(decision, Watch) and self._is_late(watched, asked) else decision

    async def _prove(self, server_id: str) -> None:
        watched = self._watched[server_id]
        is_late = self._is_late(watched, anyio.current_time())
        log = await self._read_log(watched.progress)
        end = decide_proof(log, watched.progress, self._knowledge.log_time(watched.progress), is_late=is_late)
        if isinstance(end, End):
            self._end(watched.progress, end)

    async def _read_log(self, progress: Progress) -> Log | Observation:
        """Read the row of the accepted reboot; if its request id is unknown, find it in the whole log first."""
        if progress.request_id is None:
            log, _ = await self._gate.ask(lambda: self._compute.actions(progress.server_id), progress.server_id)
            log_time = self._knowledge.log_time(progress)
            rows = reboots_since(log, progress, log_time) if isinstance(log, tuple) and log_time else []
            if not rows:
                return log
            progress.request_id = rows[0].request_id
        log, _ = await self._gate.ask(
            partial(self._compute.action, progress.server_id, progress.request_id), progress.server_id
        )
        if isinstance(log, tuple):
            self._knowledge.learn(log, progress.attempts[-1].request_id)
        return log

    def _end(self, progress: Progress, end: End) -> None:
        del self._watched[progress.server_id]
        self._finish(progress, end)

    def _is_hopeless(self, swept: Swept) -> bool:
        """Tell whether to give up the wait: the cloud no longer lets us in, or shows us no server any more.

        A cloud that is in trouble is not for us to judge: the gate's door closes, and patience stands still.
        """
        now = self._gate.patience(anyio.current_time())
        trouble = swept.trouble
        is_refused = isinstance(trouble, Answer) and trouble.is_refused_token and not swept.answered
        self._refusals = self._refusals + 1 if is_refused else 0
        if isinstance(trouble, Answer) and self._refusals > 1:
            self._course.halt(unauthorized(trouble))
            return True
        if swept.answered:
            self._answered_at = now
        elif now - self._answered_at > BLIND_TIMEOUT:
            seconds = f"{now - self._answered_at:.0f}"
            self._course.halt(Stop(StopReason.OUTAGE, f"no poll has shown a server for {seconds} s ({trouble})"))
            return True
        return False
