"""A whole run: waves, lanes that send, servers that are parked, a watcher that settles; and one account of all.

Lanes take the next server in line and send once. A lane never waits for one server: what is not plain is parked in a
small task of its own. Nothing here raises for one server.
"""

import logging
import random
from collections.abc import Sequence
from itertools import islice
from typing import Final

import anyio
from anyio.abc import TaskGroup

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.calibration import ActionLogCalibration
from bulkrestart.core.clock import CloudClock, moment_text
from bulkrestart.core.decide import PASSING_DELAY, Refusals
from bulkrestart.core.decision import Accept, Decision, End, Look, Send
from bulkrestart.core.errors import BulkRestartError, StalledError
from bulkrestart.core.look import decide_look
from bulkrestart.core.model import Outcome, Server, ServerResult, Stop, StopReason
from bulkrestart.core.observation import Sighting
from bulkrestart.core.options import DRAIN, Options
from bulkrestart.core.progress import Progress
from bulkrestart.core.report import Ledger, Statistics
from bulkrestart.core.rollout import EXHAUSTED, Budgets, is_about_server
from bulkrestart.core.states import REBOOT_TASKS
from bulkrestart.core.turns import Turns
from bulkrestart.engine.limiter import RunLimiter
from bulkrestart.run.account import Account
from bulkrestart.run.crew import unhurried
from bulkrestart.run.interlude import interlude
from bulkrestart.run.line import Line
from bulkrestart.run.preflight import TRIES, Preflight, require_past
from bulkrestart.run.recorder import Recorder
from bulkrestart.run.settle import Settler
from bulkrestart.run.shields import Shields
from bulkrestart.run.sources import Sources
from bulkrestart.run.submit import Submitter
from bulkrestart.run.survey import Survey
from bulkrestart.run.sweep import Sweep
from bulkrestart.run.verify import Verifier

_log = logging.getLogger(__name__)

#: Servers parked at once, at most: a task takes about 5 KiB. Lanes wait for one to end before they pull more.
PARKED_AT_MOST: Final = 1000

#: Where a journal is kept: while one lane waits for the disk, another uses the slot.
_LANES_PER_SLOT: Final = 2


class Fleet:
    """One run over many servers.

    Args:
        compute: The cloud.
        limiter: Limits its requests.
        clock: The cloud's time.
        ledger: What is known of each server.
        recorder: Keeps the journal, and knows what it held.
        options: What was asked for.
        deadline: When the run ends, finished or not, on the run's clock; `inf` for never.
        rng: The source of jitter.

    Attributes:
        ready: Set when the preflight is over.
        refusal: What the preflight found against the run; nothing was sent then.
        account: What became of each server; over when the run is.
    """

    def __init__(
        self,
        *,
        compute: Compute,
        limiter: RunLimiter,
        clock: CloudClock,
        ledger: Ledger,
        recorder: Recorder,
        options: Options,
        deadline: float,
        rng: random.Random,
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._recorder = recorder
        #: Is cancelled at the deadline, or when the run is stalled.
        self._bounds = anyio.CancelScope(deadline=deadline)
        self._options = options
        self._shields = Shields()
        self._limiter = limiter
        self._stall = limiter.stall
        self._stop_signal = limiter.stop_signal
        self._lanes = min(options.max_at_once, len(ledger))
        self.account = Account(ledger, recorder, options, self._stop_signal)
        limiter.flow.on_outage = self.account.refund_attempt
        self.ready = anyio.Event()
        self.refusal: BulkRestartError | None = None
        #: The server that was in a reboot before anything was sent.
        self._was_rebooting: str | None = None
        self._stalled: Stop | None = None
        #: Servers that were given up since one was accepted.
        self._exhausted = 0
        self._parked = 0
        self._refusals = Refusals()
        self._parking = anyio.Semaphore(PARKED_AT_MOST)
        self._preflight = Preflight(compute, limiter, rng)
        self._sweep = Sweep(compute, limiter, clock, self._lanes, wait_timeout=options.wait_timeout)
        self._survey = Survey(
            self._sweep, options.rollout, keeps_states=options.looks_ahead, advance=self._stall.advance
        )
        self._budgets = Budgets(options.rollout, len(ledger))
        self._turns = Turns(options.rollout, len(ledger), self._survey.domains)
        self._line = Line(self._turns, self._stop_signal)
        self._calibration = ActionLogCalibration(clock, recorder.facts)
        self._sources = Sources(compute, limiter, len(ledger))
        self._submitter = Submitter(
            compute=compute,
            limiter=limiter,
            sources=self._sources,
            shields=self._shields,
            clock=clock,
            options=options,
            calibration=self._calibration,
            recorder=recorder,
            rng=rng,
        )
        verifier = None
        if options.verify is not None:
            verifier = Verifier(
                compute=compute,
                limiter=limiter,
                check=self._check,
                timeout=options.verify_timeout,
                finish=self._finish,
                rng=rng,
            )
        self._settler = Settler(
            compute=compute,
            limiter=limiter,
            sources=self._sources,
            sweep=self._sweep,
            calibration=self._calibration,
            escalate=self._escalate,
            verifier=verifier,
            keep=self._keep,
            finish=self._finish,
            wait_timeout=options.wait_timeout,
            limits_down=options.rollout.max_down is not None or options.rollout.spread is not None,
            lanes=self._lanes,
            rng=rng,
        )

    async def run(self) -> None:
        """Restart every server of the ledger: until each has its outcome, or until the run stops and has settled.

        Cancelled, it still awaits for `DRAIN` seconds what is in flight. However it ends, the account is whole, on the
        disk as well.
        """
        try:
            async with anyio.create_task_group() as recording:
                recording.start_soon(self._recorder.run, self._stop_signal, self._calibration)
                recording.start_soon(self._stall.watch, self._give_up)
                try:
                    await self._restart_all()
                except BulkRestartError as error:
                    self.refusal = error
                except BaseException:
                    self._stop_signal.halt(Stop(StopReason.INTERRUPTED, "the run was cancelled"))
                    raise
                finally:
                    self._stall.close()
                    self.account.end()
                    self._settler.forget()
        finally:
            self.ready.set()
            self.account.tell_it_is_over()

    async def _restart_all(self) -> None:
        await self.account.take_up()
        first = list(islice((id_ for id_ in self._ledger if not self._ledger.is_finished(id_)), TRIES))
        if not first:
            if (contents := self._recorder.contents) is not None:
                moment = moment_text(contents.written)
                self.account.leave_as_it_is(contents)
                _log.warning("the run of the journal finished at %s: nothing is left to do, nothing was sent", moment)
            return
        with self._bounds:
            seen = await self._preflight.look(first)
            if isinstance(seen, Server) and seen.task_state in REBOOT_TASKS:
                self._was_rebooting = seen.id
            self._sources.states.judge(seen, first[0], asked_at=anyio.current_time())
            require_past(self._options.since, self._clock)
            await self._survey_fleet()
            await self._recorder.begin()
            self._stop_signal.begin()
            self.ready.set()
            async with anyio.create_task_group() as guard:
                guard.start_soon(self._bound_shields)
                async with anyio.create_task_group() as settling:
                    settling.start_soon(self._settler.run)
                    async with anyio.create_task_group() as parked:
                        await self._go_on(parked)
                        await self._send_waves(parked)
                    self._settler.close()
                guard.cancel_scope.cancel()
        if self._bounds.cancelled_caught:
            if self._stalled is not None and not self.ready.is_set():
                raise StalledError(f"{self._stalled.detail}; nothing was sent")
            self._stop_signal.begin()
            self._stop_signal.halt(Stop(StopReason.DEADLINE, "the deadline came"))

    def _give_up(self, stop: Stop) -> None:
        """End a stalled run as the deadline does: requests in flight are awaited for `DRAIN` seconds."""
        self._stalled = stop
        # Cancel first, so that tasks that wait for the stop are cancelled and do not go on.
        self._bounds.cancel()
        self._stop_signal.halt(stop)

    async def _survey_fleet(self) -> None:
        """Look at the servers first, if there is something to know of them."""
        if not self._survey.is_wanted:
            return
        # For the waves of a run that is spread, also those that are finished.
        is_spread = self._options.rollout.spread is not None
        wanted = list(self._ledger) if is_spread else list(filter(self._is_to_start, self._ledger))
        await self._survey.read(wanted)

    def _is_to_start(self, server_id: str) -> bool:
        """Tell whether a server is to be sent to, as against one that is finished, or that a process has sent to."""
        return not self._ledger.is_finished(server_id) and not self._is_sent(server_id)

    async def _go_on(self, parked: TaskGroup) -> None:
        """Count what a former process finished, and follow what it sent, before anything else is sent."""
        checkpoints = self._recorder.checkpoints.values()
        finished = (checkpoint for checkpoint in checkpoints if checkpoint.is_finished(self._options.goal))
        await unhurried(finished, lambda checkpoint: self._count_former(checkpoint.result()))
        sent = [progress for progress in self._ledger.under_way() if progress.is_sent]
        for progress in sent:
            self._turns.begin(progress.server_id)
        for progress in sent:
            self.account.come_to(progress.server_id)
            if progress.accepted is not None:
                self._arrive(progress, progress.accepted)
            else:
                await self._follow(progress, Look(is_unresolved=True), parked)

    async def _send_waves(self, parked: TaskGroup) -> None:
        """Send to one wave after the other, each when every server of the last has its outcome."""
        is_first = True
        for wave in self._options.rollout.waves(await self._survey.zones(list(self._ledger))):
            if all(map(self._ledger.is_finished, wave)):
                continue
            if not is_first:
                with self._stall.paused():
                    await interlude(self._options.rollout.pause, self.account.report, self._stop_signal)
            if self._stop_signal.stop is not None:
                return
            is_first = False
            await self._send_wave(wave, parked)

    async def _send_wave(self, wave: Sequence[str], parked: TaskGroup) -> None:
        under_way = self._turns.under_way
        if under_way and under_way > sum(map(self._is_sent, wave)):
            # A former process left this wave, and servers of a later one are down.
            await self._line.all_back()
        await unhurried(wave, self._line_up)
        lanes = self._lanes * _LANES_PER_SLOT if self._recorder.is_kept else self._lanes
        async with anyio.create_task_group() as group:
            wanted = range(min(lanes, self._turns.waiting))
            await unhurried(wanted, lambda _: group.start_soon(self._run_lane, parked))
        if self._stop_signal.stop is None and self._turns.is_stuck:
            self._hold_back()
        await self._line.all_back()

    def _is_sent(self, server_id: str) -> bool:
        progress = self._ledger.progress(server_id)
        return progress is not None and progress.is_sent

    def _line_up(self, server_id: str) -> None:
        if self._is_to_start(server_id):
            self._turns.line_up(server_id)

    async def _run_lane(self, parked: TaskGroup) -> None:
        while (server_id := await self._line.next()) is not None:
            await self._start(server_id, parked)

    def _hold_back(self) -> None:
        """Leave out servers that would never have their turn, because others are down."""
        match self._turns.impasse():
            case Stop() as stop:
                self._stop_signal.halt(stop)
            case End() as end:
                for server_id in self._turns.give_up():
                    self.account.close(self.account.come_to(server_id), end)

    async def _bound_shields(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._shields.bound(anyio.current_time() + DRAIN)

    def abandon(self) -> None:
        """Do not even await what is in flight; what is cut off is in doubt."""
        self._shields.bound(float("-inf"))

    def halt(self, stop: Stop) -> None:
        """Send nothing more, and follow what was sent to its end. A run that is over stays as it ended."""
        if not self.account.over.is_set():
            self._stop_signal.halt(stop)

    async def _start(self, server_id: str, parked: TaskGroup) -> None:
        """Take one server as far as it goes at the first send."""
        progress = self.account.come_to(server_id)
        decision = self._decide_first(progress)
        if isinstance(decision, Send):
            decision = await self._submitter.send(progress)
        await self._follow(progress, decision, parked)

    async def _follow(self, progress: Progress, decision: Decision, parked: TaskGroup) -> None:
        """Park a server with which something is left to do before it is accepted."""
        if isinstance(decision, Send | Look):
            await self._parking.acquire()
            parked.start_soon(self._park, progress, decision)
        else:
            self._arrive(progress, decision)

    def _decide_first(self, progress: Progress) -> Decision:
        seen = self._survey.pop(progress.server_id)
        if seen is None and progress.server_id == self._was_rebooting:
            # The reboot is not ours. After a 409 that could not be told, because a send may be delivered twice.
            return Look(is_unresolved=False, delay=PASSING_DELAY)
        if progress.sends.since is not None:
            # A former process sent to it, and it was refused then: the log may show that it was delivered once more.
            return Look(is_unresolved=False)
        if seen is None:
            return Send(reboot_type=progress.reboot_type)
        sighting = Sighting(server=seen[0], log=None, at=seen[1], instant=self._survey.began.at(seen[1]))
        decision = decide_look(sighting, progress)
        progress.look(sighting, decision)
        return decision

    async def _park(self, progress: Progress, decision: Decision) -> None:
        self._parked += 1
        try:
            decision = await self._submitter.pursue(progress, decision)
        finally:
            self._parked -= 1
            self._parking.release()
        self._arrive(progress, decision)

    def _arrive(self, progress: Progress, end: Accept | End) -> None:
        """Take a server that is accepted, or has its outcome."""
        if isinstance(end, End):
            self._finish(progress, end)
            stop = self._refusals.note(end)
            if stop is not None:
                self._stop_signal.halt(stop)
            return
        self._refusals.forget()
        self._limiter.record_accepted()
        self._exhausted = 0
        if self._options.wait:
            self._settler.watch(progress)
        else:
            self._finish(progress, End(outcome=Outcome.ACCEPTED, proof=end.proof))

    def _finish(self, progress: Progress, end: End) -> None:
        """Give a server that had its turn its outcome."""
        result = self.account.close(progress, end)
        others_progress = self._stall.has_progressed_since(progress.began)
        exhausted = 0 if others_progress else self._exhausted + self._turns.under_way
        self._exhausted += result.reason in EXHAUSTED
        if is_about_server(result, exhausted=exhausted):
            self._stall.note_server()
            self._count(result)
        self._line.end(result)

    async def _escalate(self, progress: Progress, failure: End) -> Accept | End:
        """Send HARD after a SOFT that left its server in error."""
        self._stall.note_server()
        decision = await self._submitter.escalate(progress, failure)
        if isinstance(decision, Accept):
            self._limiter.record_accepted()
        return decision

    def _keep(self, progress: Progress) -> None:
        """Write down a server that is back, before it is verified."""
        self._stall.note_server()
        self._recorder.note(progress)

    def _check(self, server: Server) -> object:
        """Call the user's own check. A call counts as progress: `verify_timeout` bounds the calls for each server."""
        assert self._options.verify is not None, "without a check there is no verifier"
        self._stall.advance()
        return self._options.verify(server)

    def _count_former(self, result: ServerResult) -> None:
        self._turns.count_former(result)
        self._count(result)

    def _count(self, result: ServerResult) -> None:
        stop = self._budgets.note(result)
        if stop is not None:
            self._stop_signal.halt(stop)

    def statistics(self) -> Statistics:
        """Count where the servers are."""
        return self.account.statistics(parked=self._parked, accepted=len(self._settler))
