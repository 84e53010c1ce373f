"""One watcher for all servers that were accepted, until each is back or its time is up.

Law: it waits for no single server. What takes time, a HARD that follows or a user's check, is in tasks beside it.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
from anyio.abc import TaskGroup

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.calibration import ActionLogCalibration
from bulkrestart.core.decide import REFUSED_IN_A_ROW, unauthorized
from bulkrestart.core.decision import Accept, Confirm, End, Look, Prove, Send, Watch
from bulkrestart.core.history import with_row
from bulkrestart.core.look import GRACE, is_log_unreadable, is_untouched_since
from bulkrestart.core.model import Log, Outcome, Server, Stop, StopReason
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.progress import Progress
from bulkrestart.core.settling import (
    FoundRow,
    decide_back,
    decide_escalation,
    decide_proof,
    find_accepted,
    gone,
    has_ended_badly,
    late,
    never_shown,
    states_unreadable,
)
from bulkrestart.core.sources import is_source_outage
from bulkrestart.core.states import REBOOT_TASKS
from bulkrestart.core.trouble import is_trouble
from bulkrestart.engine.limiter import RunLimiter
from bulkrestart.limits.pacing import PausableClock
from bulkrestart.run.crew import unhurried, work_through
from bulkrestart.run.sources import Sources
from bulkrestart.run.sweep import Sweep, Swept
from bulkrestart.run.verify import Verifier

_log = logging.getLogger(__name__)

#: Seconds between two polls: at first, and at most. A poll that saw no server come back makes the next wait longer.
FIRST_INTERVAL: Final = 2.0
LAST_INTERVAL: Final = 15.0
_GROWTH: Final = 1.5
#: The share of an interval that is left to chance, more or less, so that two clients do not poll in step.
_JITTER: Final = 0.2
SHORTEST_INTERVAL: Final = FIRST_INTERVAL * (1.0 - _JITTER)
#: Seconds without any server in the answers to polls after which the wait is given up, though the cloud does answer.
BLIND_TIMEOUT: Final = 300.0
#: Polls in a row without a server, after which it is given up once its `wait_timeout` has passed.
UNSEEN_IN_A_ROW: Final = 2
#: Polls in a row that are refused, after which states count as unreadable. By then `Sweep` has replaced lists by
#: requests for single servers.
_STRAYS_IN_A_ROW: Final = 4
#: Servers to which HARD is being sent, at most: each has a task. The others stay with the watcher until there is room.
ESCALATED_AT_MOST: Final = 100
#: Rows of one log that are read singly in one poll, at most. A send has as many rows as it had deliveries.
MOST_ROWS: Final = 5
#: How many requests in a row for the row of a reboot have failed when the whole log is asked for an Error, before the
#: wait is over. They are ever further apart, so that the log is not read at each poll.
_FAILED_ROWS: Final = frozenset(2**exponent for exponent in range(1, 16))


@dataclass(slots=True)
class Watched:
    """A server that is waited for.

    Attributes:
        progress: Its way so far.
        accepted: When it was accepted.
        deadline: When the wait for it ends, on the clock of `Settler`, which stands still at times.
        seen: When the request left that last showed its state; None before the first.
        back: The snapshot that last showed it back; None as long as none has.
        back_at: When the first snapshot of a row that all show it back was asked for; None if the last did not.
        was_rebooting: Whether a snapshot has shown it in a reboot since it was accepted.
        was_saved: Whether a snapshot has shown that the cloud saved its record after the send, as in every reboot.
        is_untouched: Whether the last snapshot showed that the cloud has not saved the server since the send.
        unseen: Polls in a row that asked for the server and did not show it.
        has_ended_badly: That showed the reboot ended, and the server not active.
        failed_rows: Requests in a row for the row of its reboot that were answered, and failed.
    """

    progress: Progress
    accepted: float
    deadline: float
    seen: float | None = None
    back: Server | None = None
    back_at: float | None = None
    was_rebooting: bool = False
    was_saved: bool = False
    is_untouched: bool = False
    unseen: int = 0
    has_ended_badly: bool = False
    failed_rows: int = 0


class Settler:
    """Watches, by a clock that is paused while all requests are paused, and while no poll shows a server.

    Args:
        compute: The cloud.
        limiter: Limits its requests.
        sources: Read the action logs and states of single servers.
        sweep: Reads the states of the servers.
        calibration: Measures the action log.
        escalate: Sends HARD after a SOFT that was accepted and ended as told.
        verifier: Lets the servers that are back be checked; None if that is not asked for.
        keep: Writes down how far a server has come.
        finish: Takes the outcome of each server.
        wait_timeout: Seconds to wait for a server after its acceptance.
        limits_down: Whether the run limits the servers that are down; a server that is not shown may be one of them.
        lanes: Requests at once.
        rng: The source of jitter.
    """

    def __init__(
        self,
        *,
        compute: Compute,
        limiter: RunLimiter,
        sources: Sources,
        sweep: Sweep,
        calibration: ActionLogCalibration,
        escalate: Callable[[Progress, End], Awaitable[Accept | End]],
        verifier: Verifier | None,
        keep: Callable[[Progress], None],
        finish: Callable[[Progress, End], None],
        wait_timeout: float,
        limits_down: bool,
        lanes: int,
        rng: random.Random,
    ) -> None:
        self._compute = compute
        self._limiter = limiter
        self._sources = sources
        self._sweep = sweep
        self._stop_signal = limiter.stop_signal
        self._calibration = calibration
        self._escalate = escalate
        self._verifier = verifier
        self._keep = keep
        self._finish = finish
        self._wait_timeout = wait_timeout
        self._limits_down = limits_down
        self._lanes = lanes
        self._rng = rng
        self._watched: dict[str, Watched] = {}
        self._escalated: set[str] = set()
        self._news = anyio.Event()
        self._is_closed = False
        self._answered_at = 0.0
        #: Polls in a row that showed no server and ended with a refused token, or with another refusal.
        self._refusals = self._strays = 0
        #: The answer that shows that no states can be read; None while they count as readable.
        self._unreadable_states: Answer | None = None
        #: The id of the server that was shown last.
        self._seen_id: str | None = None
        #: Paused while no poll shows a server, from the last poll on that did.
        self._clock = PausableClock()
        self._shown_at = 0.0

    def __len__(self) -> int:
        verified = 0 if self._verifier is None else len(self._verifier)
        return len(self._watched) + len(self._escalated) + verified

    def watch(self, progress: Progress) -> None:
        """Take a server that was accepted just now, or that a former process saw back."""
        if progress.back is not None:
            assert self._verifier is not None, "without a check it would have its outcome"
            self._verifier.take(progress, progress.back, None)
            return
        if self._unreadable_states is not None:
            self._finish(progress, states_unreadable(self._unreadable_states, may_be_down=self._limits_down))
            return
        now = anyio.current_time()
        if not self._watched:
            # Its acceptance is the last that was seen.
            self._record_shown(now)
        deadline = self._time(now) + self._wait_timeout
        self._watched[progress.server_id] = Watched(progress, now, deadline)
        self._news.set()

    def forget(self) -> None:
        """Give up all that are still watched."""
        self._watched.clear()
        self._escalated.clear()
        if self._verifier is not None:
            self._verifier.forget()

    def close(self) -> None:
        """Expect no more servers: the watcher ends with the last of those it has."""
        self._is_closed = True
        self._news.set()

    async def run(self) -> None:
        """Watch until closed and done, or until the cloud no longer answers; then end what has its own tasks."""
        async with anyio.create_task_group() as beside:
            if self._verifier is not None:
                beside.start_soon(self._verifier.run)
            await self._watch_all(beside)
            if self._verifier is not None:
                self._verifier.close()

    async def _watch_all(self, beside: TaskGroup) -> None:
        interval = FIRST_INTERVAL
        self._answered_at = self._limiter.active_time(anyio.current_time())
        while True:
            if not self._watched:
                if self._is_closed and not self._escalated:
                    return
                self._news = anyio.Event()
                await self._news.wait()
                interval, self._answered_at = FIRST_INTERVAL, self._limiter.active_time(anyio.current_time())
                continue
            with anyio.move_on_after(interval * self._rng.uniform(1.0 - _JITTER, 1.0 + _JITTER)):
                await self._stop_signal.abandoned.wait()
            count = len(self._watched)
            swept = await self._poll(beside)
            if self._stop_signal.abandoned.is_set() or self._is_hopeless(swept):
                return
            has_news = len(self._watched) < count
            # A slow cloud is polled less often, so that polls never take most of its time.
            interval = max(FIRST_INTERVAL if has_news else min(interval * _GROWTH, LAST_INTERVAL), swept.took)

    async def _poll(self, beside: TaskGroup) -> Swept:
        began = anyio.current_time()
        active_began = self._limiter.active_time(began)
        # They came in the order in which they were accepted.
        oldest = next(iter(self._watched.values())).accepted
        back: list[str] = []
        unsure: list[str] = []
        failed: dict[str, End] = {}

        def take(server_id: str, server: Server | Observation, asked: float) -> None:
            if isinstance(server, Server):
                self._seen_id = server_id
                self._record_shown(asked)
            watched = self._watched.get(server_id)
            if watched is None or asked < watched.accepted:
                return
            match self._decide(watched, server, asked):
                case Prove():
                    back.append(watched.progress.server_id)
                case Confirm(failure):
                    failed[watched.progress.server_id] = failure
                case Look():
                    unsure.append(watched.progress.server_id)
                case End() as end:
                    self._end(watched.progress, end)
                case Watch():
                    pass

        def find_absent(watched: Watched) -> None:
            if self._is_absent(watched, began):
                unsure.append(watched.progress.server_id)

        swept = await self._sweep.read(self._watched.keys(), take, changed_since=oldest)
        if not swept.answered and await self._is_about_servers(swept.trouble):
            swept.answered += 1
        if swept.answered:
            self._record_shown(began)
        else:
            self._clock.pause(self._shown_at)
        if swept.is_complete:
            await unhurried(list(self._watched.values()), find_absent)
        await self._sweep.read_each(dict.fromkeys(unsure), take, swept)
        # Measured before the action logs are read, which may time out.
        swept.took = self._limiter.active_time(anyio.current_time()) - active_began
        # A server that stands on two pages of a list that changes while it is read may have its outcome already.
        # Only ids are kept meanwhile: what is watched of a server is free once it has its outcome.
        proving = [server_id for server_id in dict.fromkeys(back) if server_id in self._watched]
        if proving:
            await work_through(proving, self._prove, lanes=min(self._lanes, len(proving)))
        room = ESCALATED_AT_MOST - len(self._escalated)
        confirming = [server_id for server_id in failed if server_id in self._watched][:room]
        if confirming:
            confirm = partial(self._confirm, failed, beside)
            await work_through(confirming, confirm, lanes=min(self._lanes, len(confirming)))
        return swept

    async def _is_about_servers(self, trouble: Observation | None) -> bool:
        """Return whether a poll failed because of the servers that it asked for, and not because of the cloud.

        If Nova cannot show a server, it answers 500 for that server and for each list with it, and shows all others.
        """
        if trouble is None or not is_trouble(trouble):
            return False
        if self._seen_id is None or self._seen_id in self._watched:
            # There is no other server to ask for. A 500 of Nova's shows that the API answers.
            return isinstance(trouble, Answer) and trouble.status == 500 and trouble.fault.is_nova_fault
        other, _ = await self._limiter.ask(partial(self._compute.show, self._seen_id))
        return isinstance(other, Server) or (isinstance(other, Answer) and other.is_not_found)

    def _give_up_states(self, trouble: Observation | None) -> bool:
        """Stop waiting for servers if their states cannot be read at all; return whether that is so."""
        is_stray = isinstance(trouble, Answer) and not is_trouble(trouble) and not trouble.is_throttled
        self._strays = self._strays + 1 if is_stray else 0
        most = 1 if self._sources.states.refusal is not None else _STRAYS_IN_A_ROW
        if not isinstance(trouble, Answer) or self._seen_id is not None or trouble.status == 401 or self._strays < most:
            return False
        self._unreadable_states = trouble
        _log.warning("the states of servers cannot be read (%s): the run does not wait for any", trouble.words)
        for watched in list(self._watched.values()):
            self._end(watched.progress, states_unreadable(trouble, may_be_down=self._limits_down))
        return True

    def _is_absent(self, watched: Watched, began: float) -> bool:
        """Tell whether to look at a server singly after a complete walk, which may not have shown it.

        One that no walk has ever shown may be in a cell that is down; one that is late is not given up unseen.
        """
        if watched.accepted >= began:
            return False
        return watched.seen is None or (watched.seen < began and self._is_late(watched, began))

    def _is_late(self, watched: Watched, asked: float) -> bool:
        return self._time(asked) >= watched.deadline

    def _time(self, moment: float) -> float:
        return self._clock.time(self._limiter.active_time(moment))

    def _record_shown(self, asked: float) -> None:
        moment = self._limiter.active_time(asked)
        self._clock.resume(moment)
        self._shown_at = max(self._shown_at, moment)

    def _decide(
        self, watched: Watched, server: Server | Observation, asked: float
    ) -> Watch | Prove | Confirm | Look | End:
        if isinstance(server, Answer) and server.is_not_found:
            return gone(server)
        if not isinstance(server, Server):
            watched.unseen += 1
            is_over = watched.unseen >= UNSEEN_IN_A_ROW and self._is_late(watched, asked)
            return never_shown(server) if is_over else Watch()
        watched.unseen = 0
        decision = decide_back(server, watched.progress, is_second_look=watched.has_ended_badly)
        watched.seen, watched.has_ended_badly = asked, has_ended_badly(server)
        watched.was_rebooting |= server.task_state in REBOOT_TASKS
        watched.was_saved |= self._calibration.record_updated(server, watched.progress, asked)
        log_time = self._calibration.log_time(watched.progress, asked)
        watched.is_untouched = log_time is not None and is_untouched_since(server, log_time)
        if not isinstance(decision, Prove):
            watched.back_at = None
        elif watched.back_at is None:
            watched.back_at = asked
        if self._verifier is not None and isinstance(decision, Prove):
            watched.back = server
        # One that has ended, and is not active, is seen once more: it is not late, it has failed in its own way.
        is_late = isinstance(decision, Watch) and not watched.has_ended_badly and self._is_late(watched, asked)
        return late(server) if is_late else decision

    async def _prove(self, server_id: str) -> None:
        watched = self._watched[server_id]
        is_late = self._is_late(watched, anyio.current_time())
        log, found = await self._find_row(watched, is_late=is_late)
        can_date = self._calibration.can_date(watched.progress)
        now = anyio.current_time()
        end = decide_proof(
            log,
            found,
            watched.progress,
            can_date=can_date,
            is_view_fresh=watched.was_rebooting
            or watched.was_saved
            or now - watched.accepted >= self._calibration.view_lag,
            is_untouched=watched.is_untouched and not watched.was_rebooting,
            # A server on two pages of one list may have been shown in a reboot again.
            is_log_fresh=watched.back_at is not None and now - watched.back_at >= self._calibration.lag,
            is_late=is_late,
        )
        if isinstance(end, End) and end.outcome is Outcome.COMPLETED and self._verifier is not None:
            del self._watched[server_id]
            watched.progress.back = end
            self._keep(watched.progress)
            self._verifier.take(watched.progress, end, watched.back)
        elif isinstance(end, End):
            self._end(watched.progress, end)

    async def _confirm(self, failed: Mapping[str, End], beside: TaskGroup, server_id: str) -> None:
        """Read in the action log how the SOFT of a server in error ended, and let HARD follow if it may."""
        watched, failure = self._watched[server_id], failed[server_id]
        is_late = self._is_late(watched, anyio.current_time())
        read, found = await self._find_row(watched, is_late=is_late)
        log, _ = await self._sources.read_log(server_id, is_shown=True)
        log = self._calibration.name_own_rows(log, watched.progress)
        if isinstance(log, tuple):
            log = with_row(log, read if found is None else (found.row,))
        decision = decide_escalation(log, watched.progress, failure, is_late=is_late)
        if isinstance(decision, End):
            self._end(watched.progress, decision)
        elif isinstance(decision, Send):
            del self._watched[server_id]
            self._escalated.add(server_id)
            beside.start_soon(self._follow, watched.progress, failure)

    async def _follow(self, progress: Progress, failure: End) -> None:
        """Send HARD, and have its end waited for like that of any other."""
        decision = await self._escalate(progress, failure)
        self._escalated.discard(progress.server_id)
        if isinstance(decision, Accept):
            self.watch(progress)
        else:
            self._finish(progress, decision)
        self._news.set()

    async def _find_row(self, watched: Watched, *, is_late: bool) -> tuple[Log | Observation, FoundRow | None]:
        """Read the row of the accepted reboot: by its id, or in the whole log if it has no row with that id.

        Args:
            watched: The server.
            is_late: The wait for it is over: a row that may be an earlier one counts.

        Returns:
            What was read, and the row in it; None if there is none.
        """
        progress = watched.progress
        named: FoundRow | None = None
        single: set[str] = set()
        failed: Observation | None = None
        # The id of an answer may be a gateway's; an id that the log has shown is not.
        is_foreign = self._calibration.are_ids_foreign and progress.request_id == progress.sends.attempts[-1].request_id
        if progress.request_id is not None and not is_foreign:
            read = await self._read_row(watched, progress.request_id)
            named = self._find(read, watched, is_late=is_late) if isinstance(read, tuple) else None
            if named is not None and not named.row.is_error:
                return read, named
            if not isinstance(read, tuple) and not is_source_outage(read) and not _may_be_about_row(read):
                # What was not answered may have taken a minute, as the log may as well.
                watched.failed_rows += isinstance(read, Answer)
                if not is_late and (watched.failed_rows not in _FAILED_ROWS or not isinstance(read, Answer)):
                    return read, None
                single.add(progress.request_id)
                failed = read
        whole, asked = await self._sources.read_log(progress.server_id, is_shown=True, is_last=is_late)
        whole = self._calibration.name_own_rows(whole, progress)
        if not isinstance(whole, tuple):
            # If the reboot was delivered twice, the log may show a row without Error: it is read again, if it can be.
            if named is not None and (is_log_unreadable(whole) or is_late):
                return (named.row,), named
            return whole, None
        self._observe(whole, watched, asked)
        log: Log | Observation = whole
        if named is not None:
            single.add(named.row.request_id)
            log = with_row(whole, (named.row,))
        while isinstance(log, tuple):
            found = self._find(log, watched, is_late=is_late)
            is_known = found is None or found.doubt or found.row.request_id in {"", *single}
            if failed is not None and not is_late and (found is None or not found.row.is_error):
                # Without an Error, the row is waited for: it shows more than the whole log.
                return failed, None
            if found is None or is_known or len(single) == MOST_ROWS:
                return log, found
            # Read singly, it may have ended in Error since the whole log was read: then another row may count.
            progress.identify(found.row.request_id)
            single.add(found.row.request_id)
            row = await self._read_row(watched, found.row.request_id)
            # Once the wait is over, the whole log, which shows errors, replaces a row that was not read.
            if isinstance(row, tuple) or not is_late:
                log = with_row(log, row)
        return log, None

    async def _read_row(self, watched: Watched, request_id: str) -> Log | Observation:
        server_id = watched.progress.server_id
        log, asked = await self._sources.read_row(server_id, request_id)
        log = self._calibration.name_own_rows(log, watched.progress)
        if isinstance(log, tuple):
            watched.failed_rows = 0
            self._observe(log, watched, asked)
        elif isinstance(log, Answer) and log.is_not_found:
            # A row that is missing tells how late the log is, whichever way it was asked for.
            self._observe((), watched, asked)
        return log

    def _observe(self, log: Log, watched: Watched, asked: float) -> None:
        """Calibrate the action log by that of a server whose reboot was accepted."""
        self._calibration.learn_user(log, watched.progress.sends.attempts[-1].request_id)
        sample = self._calibration.sample_of(watched.progress, watched.accepted)
        if sample is not None:
            self._calibration.observe(log, sample, asked_at=asked)

    def _find(self, log: Log, watched: Watched, *, is_late: bool) -> FoundRow | None:
        now = anyio.current_time()
        return find_accepted(
            log,
            watched.progress,
            self._calibration.log_time(watched.progress, now),
            self._calibration.user_id(watched.progress),
            # Where a gateway replaces ids, a row that never comes by its id is taken for one that is late.
            is_shown=is_late or now - watched.accepted >= GRACE + self._calibration.lag,
        )

    def _end(self, progress: Progress, end: End) -> None:
        del self._watched[progress.server_id]
        self._finish(progress, end)

    def _is_hopeless(self, swept: Swept) -> bool:
        """Tell whether to give up the wait: the cloud no longer lets us in, or shows us no server any more.

        An outage is not judged here: the circuit breaker opens, and the clock is paused.
        """
        now = self._limiter.active_time(anyio.current_time())
        trouble = None if swept.answered else swept.trouble
        is_refused = isinstance(trouble, Answer) and trouble.status == 401
        self._refusals = self._refusals + 1 if is_refused else 0
        if isinstance(trouble, Answer) and self._refusals >= REFUSED_IN_A_ROW:
            self._stop_signal.halt(unauthorized(trouble))
            return True
        if self._give_up_states(trouble):
            return False
        if swept.answered:
            self._answered_at = now
        elif now - self._answered_at > BLIND_TIMEOUT:
            seconds = f"{now - self._answered_at:.0f}"
            self._stop_signal.halt(Stop(StopReason.OUTAGE, f"no poll has shown a server for {seconds} s ({trouble})"))
            return True
        return False


def _may_be_about_row(seen: Observation) -> bool:
    """Return whether a refusal may be about a single row of the log, so that the whole log is worth a request."""
    return isinstance(seen, Answer) and not is_trouble(seen) and not seen.is_throttled and not seen.is_refused_token
