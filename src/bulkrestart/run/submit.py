"""One server until it is accepted, or has its outcome.

The way that most servers take is `send`, once. Only what is not plain comes to `pursue`, where tenacity keeps time;
what happens next is never its choice but `core.decide`'s.
"""

import logging
import random
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.instants import current_instant
from bulkrestart.core.calibration import ActionLogCalibration
from bulkrestart.core.clock import CloudClock, Instant
from bulkrestart.core.decide import decide
from bulkrestart.core.decision import Accept, Decision, End, Look, Send
from bulkrestart.core.history import decide_since, last_reboot, needs_log, with_row
from bulkrestart.core.look import LOOK_TIMEOUT, decide_delivered_again, decide_look, is_log_unreadable, next_look
from bulkrestart.core.model import Log, Outcome, RebootType, Server, Stop, StopReason
from bulkrestart.core.observation import Answer, Observation, Sighting, Unanswered, Unsent
from bulkrestart.core.options import Options
from bulkrestart.core.progress import Progress
from bulkrestart.engine.limiter import RunLimiter
from bulkrestart.limits.permit import Priority
from bulkrestart.run.recorder import Recorder
from bulkrestart.run.shields import Shields
from bulkrestart.run.sources import Sources

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Seconds for which a look is valid. A send does not leave if the look before it is older.
LOOK_LIFE: Final = 60.0
#: The same with `since`, and if HARD follows a SOFT: another client's reboot in between would make ours the second one.
#: A slow API takes up to 6 s for an answer (a real Nova with 50 requests at once).
CLOSE_LOOK_LIFE: Final = 15.0
#: Seconds: the ceiling of the first random wait, doubled at each more, up to the last.
FIRST_CEILING: Final = 0.5
LAST_CEILING: Final = 30.0
#: Seconds between two rounds of calibration, and the samples that one round reads.
_CALIBRATION_INTERVAL: Final = 2.0
_CALIBRATION_SAMPLES: Final = 3
#: More than it takes to the last ceiling; a float overflows at 1024.
_MOST_DOUBLINGS: Final = 10


class Submitter:
    """Sends, looks, waits.

    Args:
        compute: The cloud.
        limiter: Limits its requests.
        sources: Read the action logs and states of single servers.
        shields: Keeps sends from being cancelled.
        clock: The cloud's time.
        options: What was asked for.
        calibration: Measures the action log.
        recorder: Keeps the journal.
        rng: The source of jitter.
    """

    def __init__(
        self,
        *,
        compute: Compute,
        limiter: RunLimiter,
        sources: Sources,
        shields: Shields,
        clock: CloudClock,
        options: Options,
        calibration: ActionLogCalibration,
        recorder: Recorder,
        rng: random.Random,
    ) -> None:
        self._compute = compute
        self._limiter = limiter
        self._sources = sources
        self._shields = shields
        self._clock = clock
        self._options = options
        self._calibration = calibration
        self._stop_signal = limiter.stop_signal
        self._recorder = recorder
        self._rng = rng
        self._calibrating: anyio.Event | None = None
        self._calibrated_at = float("-inf")

    async def send(self, progress: Progress) -> Decision:
        """Send the reboot once, and decide on what comes back.

        The intent is on the disk first. The permit is taken after that, so nothing leaves if the run stopped meanwhile.
        """
        if progress.sends.spent >= self._options.max_attempts and not self._limiter.is_breaker_open:
            return progress.out_of_attempts()
        is_written = await self._recorder.write_ahead(progress, self._clock)
        decision = await self._send(progress) if is_written else progress.so_far(is_over=True)
        self._recorder.note(progress)
        self._stop_if_told(decision)
        return decision

    async def _send(self, progress: Progress) -> Decision:
        probe = partial(self._compute.show, progress.server_id)
        async with self._limiter.permit(Priority.SEND, probe=probe) as permit:
            if permit.failure is not None:
                self._stop_signal.halt(Stop(StopReason.UNAUTHORIZED, str(permit.failure)))
            if self._stop_signal.stop is not None:
                return progress.so_far(is_over=True)
            if progress.sends.spent >= self._options.max_attempts:
                # The trouble passed before anybody knew whose it was.
                return progress.out_of_attempts()
            assert permit.granted_at is not None, "only a stop leaves a send without a permit"
            sent_at = permit.granted_at
            if self._looks_in_slot(progress) or self._needs_look(progress):
                reboot_type = progress.reboot_type
                decision = await self._look_first(progress)
                # The journal has the send that was meant at first.
                if not isinstance(decision, Send) or decision.reboot_type is not reboot_type:
                    return decision
                # The look took time: somebody may have been asked to wait, or to stop, meanwhile.
                if self._limiter.is_paused or self._stop_signal.stop is not None:
                    return decision
                sent_at = anyio.current_time()
            progress.sends.leave(sent_at, self._clock.at(sent_at))
            look = progress.last_look.instant
            veto = None if look is None else partial(self._veto_stale_look, progress, look)
            # What stands if the end of the shield, and not an answer, ends the wait.
            seen: Observation = Unanswered("the run was cancelled before the answer", may_come_late=True)
            left = current_instant()
            with self._shields.up():
                seen = await self._compute.reboot(progress.server_id, progress.reboot_type, veto=veto)
            decision = decide(seen, progress)
            answered_at = anyio.current_time()
            progress.answer(answered_at, seen, decision, took=left.age(current_instant()))
            self._calibration.note_id(progress.sends.attempts[-1].request_id)
        if isinstance(decision, Accept) and (sample := self._calibration.sample_of(progress, answered_at)) is not None:
            self._calibration.add(sample)
        return decision

    def _veto_stale_look(self, progress: Progress, look: Instant) -> str | None:
        """Return why a send must not leave if its look is too old; None if it may. Called right before it leaves."""
        life = CLOSE_LOOK_LIFE if self._looks_in_slot(progress) else LOOK_LIFE
        age = look.age(current_instant())
        return None if age <= life else f"the look at the server before it was {age:.0f} s old"

    async def escalate(self, progress: Progress, failure: End) -> Accept | End:
        """Send HARD after a SOFT that was accepted, and left its server in error.

        Args:
            progress: The server's way so far.
            failure: The end of the SOFT.
        """
        progress.escalate(failure)
        return await self.pursue(progress, Send(reboot_type=progress.reboot_type))

    async def _look_first(self, progress: Progress) -> Decision:
        """Look at a server in the slot of the send that would follow.

        A HARD starts a server that was stopped meanwhile, and with `since` nobody's reboot is to fit between the look
        and ours, but one that begins in this very instant. Nor is one where HARD follows a SOFT that was accepted.
        """
        since = None if self._options.since is None else self._calibration.moment(self._options.since)
        at, instant = anyio.current_time(), current_instant()
        show = partial(self._compute.show, progress.server_id)
        server = await self._sources.states.request(show, progress.server_id)
        log: Log | Observation | None = None
        if since is not None and needs_log(server, since):
            if self._limiter.is_paused:
                return Send(reboot_type=progress.reboot_type)
            instant = current_instant()
            log = await self._see_log(progress)
        if since is not None and isinstance(log, tuple) and (last := last_reboot(log, since.earliest)):
            if self._limiter.is_paused:
                return Send(reboot_type=progress.reboot_type)
            read_row = partial(self._compute.action, progress.server_id, last.request_id)
            log = with_row(log, await self._sources.row.request(read_row, progress.server_id, is_shown=True))
            log = self._calibration.name_own_rows(log, progress)
            if self._limiter.is_paused:
                return Send(reboot_type=progress.reboot_type)
            # Where no finish is shown (before microversion 2.51) the state tells, if it is seen after the row.
            server = await self._sources.states.request(show, progress.server_id)
        sighting = Sighting(server=server, log=log, at=at, instant=instant)
        if since is None:
            decision = decide_look(sighting, progress)
        else:
            is_given_up = self._sources.log.failing_seconds(progress.server_id) >= LOOK_TIMEOUT
            decision = decide_since(sighting, since, progress, is_log_given_up=is_given_up)
        may_be_delivered_again = progress.sends.has_reached and progress.failed_soft is None
        if isinstance(decision, Send | End) and log is None and may_be_delivered_again:
            if self._limiter.is_paused:
                return Send(reboot_type=progress.reboot_type)
            log = await self._see_log(progress, must_ask=True)
            decision = self._decide_delivered_again(log, progress) or decision
        progress.look(sighting, decision)
        return decision

    async def _see_log(self, progress: Progress, *, must_ask: bool = False) -> Log | Answer | Unsent | Unanswered:
        """Read the action log with the permit of the send that would follow."""
        read_log = partial(self._compute.actions, progress.server_id)
        log = await self._sources.log.request(read_log, progress.server_id, is_shown=True, must_ask=must_ask)
        return self._calibration.name_own_rows(log, progress)

    def _needs_look(self, progress: Progress) -> bool:
        """Return whether to look within the slot of the send: the last look is too old, or a HARD reboot has had none.

        A HARD reboot would start a server that was stopped since. A send whose look became too old while it waited for
        its slot would be withheld at every try (`_veto_stale_look`).
        """
        look = progress.last_look.instant
        if look is None:
            return progress.reboot_type is RebootType.HARD
        return look.age(current_instant()) > LOOK_LIFE

    async def look(self, progress: Progress) -> Decision:
        """Look at the server, the action log first if the fate of a send is unknown, and decide on what is seen."""
        log: Log | Observation | None = None
        at = anyio.current_time()
        if progress.fate.is_unresolved:
            await self._calibrate()
            is_last = at - progress.fate.answered_at >= LOOK_TIMEOUT
            log, _ = await self._sources.read_log(progress.server_id, is_last=is_last)
            log = self._calibration.name_own_rows(log, progress)
        instant = current_instant()
        server, _ = await self._sources.read_server(progress.server_id, is_for_send=not progress.fate.is_unresolved)
        if isinstance(server, Unsent) and self._is_given_up(progress):
            return progress.so_far(is_over=True)
        if isinstance(log, Answer) and log.is_not_found and isinstance(server, Server):
            log = self._sources.log.judge(log, progress.server_id, asked_at=at, is_shown=True)
        if isinstance(log, tuple):
            self._calibration.learn_user(log, progress.sends.attempts[-1].request_id)
        sighting = Sighting(
            server=server,
            log=log,
            at=at,
            instant=instant,
            is_log_proven=self._calibration.facts.is_proven,
            user_id=self._calibration.user_id(progress),
            log_time=self._calibration.log_time(progress, anyio.current_time()),
            lag=self._calibration.lag,
            view_lag=self._calibration.view_lag,
            may_be_dated_soon=self._calibration.may_be_dated_soon,
        )
        decision = decide_look(sighting, progress)
        if isinstance(decision, Accept) and decision.request_id is not None:
            self._calibration.mark_proven()
        if isinstance(decision, Send | End) and log is None and progress.sends.has_reached:
            decision = await self._delivered_again(progress) or decision
        if isinstance(decision, Look | End) and progress.fate.is_unresolved:
            decision = await self._satisfied_meanwhile(sighting, progress) or decision
        progress.look(sighting, decision)
        self._recorder.note(progress)
        self._stop_if_told(decision)
        return decision

    async def _delivered_again(self, progress: Progress) -> Accept | Look | None:
        """Look in the action log before what follows a refused send, which may have been delivered twice."""
        await self._calibrate()
        log, _ = await self._sources.read_log(progress.server_id, is_for_send=True, is_shown=True)
        return self._decide_delivered_again(self._calibration.name_own_rows(log, progress), progress)

    def _decide_delivered_again(self, log: Log | Observation, progress: Progress) -> Accept | Look | None:
        log_time = self._calibration.log_time(progress, anyio.current_time())
        if not isinstance(log, tuple) or log_time is None:
            return None
        return decide_delivered_again(log, progress, log_time, self._calibration.user_id(progress))

    async def _satisfied_meanwhile(self, sighting: Sighting, progress: Progress) -> Look | End | None:
        """With `since`, a reboot by whomever ends also a server whose send is of unknown fate; it is waited for."""
        since, log = None, sighting.log
        if self._options.since is not None:
            since = self._calibration.moment(self._options.since)
        last = last_reboot(log, since.latest) if since is not None and isinstance(log, tuple) else None
        if since is None or last is None or not isinstance(log, tuple):
            return None
        row, _ = await self._sources.read_row(progress.server_id, last.request_id)
        log = self._calibration.name_own_rows(with_row(log, row), progress)
        decision = decide_since(replace(sighting, log=log), since, progress)
        match decision:
            case Look(is_unresolved=True) | End(outcome=Outcome.SATISFIED):
                return decision
            case _:
                # Whatever else a look back says, it does not tell the fate of the send.
                return None

    async def _calibrate(self) -> None:
        """Calibrate the action log by the logs of some servers whose reboot was accepted.

        One task reads them. Others that call this meanwhile wait for its result.
        """
        if self._calibrating is not None:
            await self._calibrating.wait()
            return
        now = anyio.current_time()
        sample = self._calibration.next_sample(now)
        if sample is None or now < self._calibrated_at + _CALIBRATION_INTERVAL:
            return
        self._calibrating, self._calibrated_at = anyio.Event(), now
        try:
            former, left = None, _CALIBRATION_SAMPLES
            while sample is not None and sample is not former and left:
                log, asked = await self._sources.read_log(sample.server_id, is_shown=True)
                if not isinstance(log, tuple):
                    if is_log_unreadable(log):
                        self._calibration.mark_unreadable()
                    return
                self._calibration.observe(log, sample, asked_at=asked)
                former, sample, left = sample, self._calibration.next_sample(anyio.current_time()), left - 1
        finally:
            self._calibrating.set()
            self._calibrating = None

    def _is_given_up(self, progress: Progress) -> bool:
        """Return whether to ask nothing more about it: its fate is known, or the run is abandoned."""
        if progress.fate.is_unresolved:
            return self._stop_signal.abandoned.is_set()
        return self._stop_signal.stop is not None

    def _stop_if_told(self, decision: Decision) -> None:
        if isinstance(decision, End) and decision.stop is not None:
            self._stop_signal.halt(decision.stop)

    async def pursue(self, progress: Progress, first: Decision) -> Accept | End:
        """Wait, look and send until the server is accepted or has its outcome.

        Args:
            progress: The server's way so far.
            first: What was decided on its first send, or its first look.
        """
        decision = first
        is_first = True
        deadline = self._limiter.active_send_time(anyio.current_time()) + self._options.server_timeout

        async def step() -> Decision:
            # tenacity tries and then waits; its first try is the step that was taken already.
            nonlocal decision, is_first
            if is_first:
                is_first = False
            elif self._is_given_up(progress):
                decision = progress.so_far(is_over=True)
            elif progress.fate.is_unresolved or self._looks_first(progress, decision):
                decision = await self.look(progress)
                if isinstance(decision, Send):
                    decision = await self.send(progress)
            else:
                decision = await self.send(progress)
            _log.debug("%s: %s", progress.server_id, decision)
            return decision

        async def pause(seconds: float) -> None:
            # A run that stops sends nothing more, so only the fate of what was sent is worth waiting for.
            with anyio.move_on_after(seconds):
                await (self._stop_signal.abandoned if progress.fate.is_unresolved else self._stop_signal.stopped).wait()

        end: Decision = await AsyncRetrying(
            sleep=pause,
            wait=partial(self._wait, progress, deadline),
            stop=lambda _: self._limiter.active_send_time(anyio.current_time()) >= deadline,
            retry=retry_if_result(lambda result: isinstance(result, Send | Look)),
            retry_error_callback=lambda _: progress.out_of_time(),
        )(step)
        assert isinstance(end, Accept | End)
        if isinstance(end, End) and progress.failed_soft is not None:
            return progress.failed_soft.unfollowed(end)
        return end

    def _looks_first(self, progress: Progress, decision: Decision) -> bool:
        """Tell whether a send wants a look of its own before it, because it does not look by itself."""
        is_wanted = isinstance(decision, Look) or progress.reboot_type is RebootType.HARD
        return is_wanted and not self._looks_in_slot(progress)

    def _looks_in_slot(self, progress: Progress) -> bool:
        """Tell whether each send looks by itself, in its own slot."""
        return self._options.since is not None or progress.failed_soft is not None

    def _wait(self, progress: Progress, deadline: float, state: RetryCallState) -> float:
        """Wait as long as the decision asks for, and then a random time (full jitter) that grows with the steps."""
        decision = state.outcome.result() if state.outcome is not None else None
        delay = decision.delay if isinstance(decision, Send | Look) else 0.0
        doublings = min(state.attempt_number - 1, _MOST_DOUBLINGS)
        ceiling: float = min(FIRST_CEILING * 2.0**doublings, LAST_CEILING)
        now = anyio.current_time()
        return delay + next_look(
            progress,
            now + delay,
            self._calibration.lag,
            drawn=self._rng.uniform(0.0, ceiling),
            after_grace=self._rng.uniform(0.0, FIRST_CEILING),
            left=deadline - self._limiter.active_send_time(now) - delay,
        )
