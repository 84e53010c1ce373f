"""One server until it is accepted, or has its outcome.

The way that most servers take is `send`, once. Only what is not plain comes to `pursue`, where tenacity keeps time;
what happens next is never its choice but `core.decide`'s.
"""

import logging
import random
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.decide import decide
from bulkrestart.core.decision import Accept, Decision, End, Look, Send
from bulkrestart.core.history import decide_since, last_reboot, needs_log, with_row
from bulkrestart.core.look import decide_look
from bulkrestart.core.model import Log, Outcome, RebootType, Stop, StopReason
from bulkrestart.core.observation import Answer, Observation, Sighting, Unanswered, Unsent
from bulkrestart.core.options import Options
from bulkrestart.core.progress import Progress
from bulkrestart.run.gate import Gate
from bulkrestart.run.knowledge import LogKnowledge, Witness
from bulkrestart.run.recorder import Recorder
from bulkrestart.run.shields import Shields

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Seconds for which a look stands, before a HARD.
LOOK_LIFE: Final = 60.0
#: Seconds: the ceiling of the first random wait, doubled at each more, up to the last.
FIRST_CEILING: Final = 0.5
LAST_CEILING: Final = 30.0
#: Seconds between two questions for a row that is not shown yet.
_WITNESS_INTERVAL: Final = 2.0
#: More than it takes to the last ceiling; a float overflows at 1024.
_MOST_DOUBLINGS: Final = 10


class Submitter:
    """Sends, looks, waits.

    Args:
        compute: The cloud.
        gate: The way to it.
        shields: Keeps sends from being cancelled.
        clock: The cloud's time.
        options: What was asked for.
        knowledge: What the run knows of the action log.
        recorder: Keeps the journal.
        rng: The source of jitter.
    """

    def __init__(
        self,
        *,
        compute: Compute,
        gate: Gate,
        shields: Shields,
        clock: CloudClock,
        options: Options,
        knowledge: LogKnowledge,
        recorder: Recorder,
        rng: random.Random,
    ) -> None:
        self._compute = compute
        self._gate = gate
        self._shields = shields
        self._clock = clock
        self._options = options
        self._knowledge = knowledge
        self._course = gate.course
        self._recorder = recorder
        self._rng = rng
        self._asking: anyio.Event | None = None
        self._asked_at = float("-inf")

    async def send(self, progress: Progress) -> Decision:
        """Send the reboot once, and decide on what comes back.

        The intent is on the disk first. The slot is taken after that, so whatever stopped the run meanwhile is heeded.
        """
        if progress.sends.spent >= self._options.max_attempts and not self._gate.is_door_closed:
            return progress.out_of_attempts()
        is_written = await self._recorder.intend(progress, self._clock)
        decision = await self._send(progress) if is_written else progress.so_far(is_over=True)
        self._recorder.note(progress)
        self._stop_if_told(decision)
        return decision

    async def _send(self, progress: Progress) -> Decision:
        async with self._gate.send(partial(self._compute.show, progress.server_id)) as passage:
            if passage.trouble is not None:
                self._course.halt(Stop(StopReason.UNAUTHORIZED, str(passage.trouble)))
            if self._course.stop is not None:
                return progress.so_far(is_over=True)
            if progress.sends.spent >= self._options.max_attempts:
                # The trouble passed before anybody knew whose it was.
                return progress.out_of_attempts()
            sent_at = passage.left_at
            if self._looks_in_slot(progress) or not self._has_looked(progress, sent_at):
                reboot_type = progress.reboot_type
                decision = await self._look_first(progress)
                # The journal has the send that was meant at first.
                if not isinstance(decision, Send) or decision.reboot_type is not reboot_type:
                    return decision
                # The look took time: somebody may have been asked to wait, or to stop, meanwhile.
                if self._gate.is_held or self._course.stop is not None:
                    return decision
                sent_at = anyio.current_time()
            cloud_time = self._clock.at(sent_at)
            progress.sends.leave(sent_at, cloud_time)
            # What stands if the end of the shield, and not an answer, ends the wait.
            seen: Observation = Unanswered("the run was cancelled before the answer", may_come_late=True)
            with self._shields.up():
                seen = await self._compute.reboot(progress.server_id, progress.reboot_type)
                self._gate.heed(seen, sent_at=sent_at, server_id=progress.server_id, progress=progress)
            decision = decide(seen, progress)
            answered_at = anyio.current_time()
            progress.answer(answered_at, seen, decision)
        if isinstance(decision, Accept):
            self._call_witness(progress.server_id, decision, cloud_time, self._clock.at(answered_at))
        return decision

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
        since = self._options.since
        at = anyio.current_time()
        server = await self._see(self._compute.show(progress.server_id), progress)
        log: Log | Observation | None = None
        if since is not None and needs_log(server, since):
            if self._gate.is_held:
                return Send(reboot_type=progress.reboot_type)
            log = await self._see(self._compute.actions(progress.server_id), progress)
        if since is not None and isinstance(log, tuple) and (last := last_reboot(log, since)):
            if self._gate.is_held:
                return Send(reboot_type=progress.reboot_type)
            log = with_row(log, await self._see(self._compute.action(progress.server_id, last.request_id), progress))
            if self._gate.is_held:
                return Send(reboot_type=progress.reboot_type)
            # Where no finish is shown (before microversion 2.51) the state tells, if it is seen after the row.
            server = await self._see(self._compute.show(progress.server_id), progress)
        sighting = Sighting(server=server, log=log, at=at)
        decision = decide_look(sighting, progress) if since is None else decide_since(sighting, since, progress)
        progress.look(sighting, decision)
        return decision

    async def _see(self, request: Awaitable[T], progress: Progress) -> T:
        """Make a request in a slot that is held already. The send leaves in the same turn, and counts besides."""
        asked = anyio.current_time()
        self._gate.count_one_more()
        seen = await request
        self._gate.heed(seen, sent_at=asked, server_id=progress.server_id)
        return seen

    def _call_witness(
        self, server_id: str, accept: Accept, since: tuple[float, float] | None, until: tuple[float, float] | None
    ) -> None:
        if accept.request_id is not None and since is not None and until is not None:
            self._knowledge.note(Witness(server_id, accept.request_id, (since[0], until[1])))

    def _has_looked(self, progress: Progress, now: float) -> bool:
        """Tell whether a look is fresh enough, which only a HARD needs: it starts a server that was stopped since."""
        if progress.reboot_type is not RebootType.HARD:
            return True
        return now - progress.last_look.at <= LOOK_LIFE

    async def look(self, progress: Progress) -> Decision:
        """Look at the server, the action log first if the fate of a send is unknown, and decide on what is seen."""
        log: Log | Observation | None = None
        at = anyio.current_time()
        if progress.fate.is_unresolved:
            await self._ask_witness()
            log, _ = await self._gate.ask(lambda: self._compute.actions(progress.server_id), progress.server_id)
        server, _ = await self._gate.ask(
            lambda: self._compute.show(progress.server_id),
            progress.server_id,
            is_for_send=not progress.fate.is_unresolved,
        )
        if isinstance(server, Unsent) and self._is_given_up(progress):
            return progress.so_far(is_over=True)
        if isinstance(log, tuple):
            self._knowledge.learn(log, progress.sends.attempts[-1].request_id)
        sighting = Sighting(
            server=server,
            log=log,
            at=at,
            is_log_proven=self._knowledge.facts.is_proven,
            user_id=self._knowledge.facts.user_id,
            log_time=self._knowledge.log_time(progress),
        )
        decision = decide_look(sighting, progress)
        if isinstance(decision, Accept) and decision.request_id is not None:
            self._knowledge.prove()
        if isinstance(decision, Look | End) and progress.fate.is_unresolved:
            decision = await self._satisfied_meanwhile(sighting, progress) or decision
        progress.look(sighting, decision)
        self._recorder.note(progress)
        self._stop_if_told(decision)
        return decision

    async def _satisfied_meanwhile(self, sighting: Sighting, progress: Progress) -> Look | End | None:
        """With `since`, a reboot by whomever ends also a server whose send is of unknown fate; it is waited for."""
        since, log = self._options.since, sighting.log
        last = last_reboot(log, since) if since is not None and isinstance(log, tuple) else None
        if since is None or last is None or not isinstance(log, tuple):
            return None
        row, _ = await self._gate.ask(
            lambda: self._compute.action(progress.server_id, last.request_id), progress.server_id
        )
        decision = decide_since(replace(sighting, log=with_row(log, row)), since, progress)
        match decision:
            case Look(is_unresolved=True) | End(outcome=Outcome.SATISFIED):
                return decision
            case _:
                # Whatever else a look back says, it does not tell the fate of the send.
                return None

    async def _ask_witness(self) -> None:
        """Read the row of an accepted send, once in a run: it tells how the log names and dates what is ours.

        One look asks, and those that come meanwhile await what it learns.
        """
        if self._asking is not None:
            await self._asking.wait()
            return
        witness = self._knowledge.witness
        if witness is None or anyio.current_time() < self._asked_at + _WITNESS_INTERVAL:
            return
        self._asking, self._asked_at = anyio.Event(), anyio.current_time()
        try:
            log, _ = await self._gate.ask(
                lambda: self._compute.action(witness.server_id, witness.request_id), witness.server_id
            )
        finally:
            self._asking.set()
            self._asking = None
        if isinstance(log, tuple):
            self._knowledge.compare(log, witness)
        elif isinstance(log, Answer) and log.status == 403:
            # The log is kept from us: this one will never tell.
            self._knowledge.witness = None

    def _is_given_up(self, progress: Progress) -> bool:
        """Tell whether nothing more is asked about it: its fate is known, or the cloud is lost."""
        return self._course.stop is not None and (not progress.fate.is_unresolved or self._course.lost.is_set())

    def _stop_if_told(self, decision: Decision) -> None:
        if isinstance(decision, Look | End) and decision.stop is not None:
            self._course.halt(decision.stop)

    async def pursue(self, progress: Progress, first: Decision) -> Accept | End:
        """Wait, look and send until the server is accepted or has its outcome.

        Args:
            progress: The server's way so far.
            first: What was decided on its first send, or its first look.
        """
        decision = first
        is_first = True
        deadline = self._gate.send_patience(anyio.current_time()) + self._options.server_timeout

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
                await (self._course.lost if progress.fate.is_unresolved else self._course.stopped).wait()

        end: Decision = await AsyncRetrying(
            sleep=pause,
            wait=self._wait,
            stop=lambda _: self._gate.send_patience(anyio.current_time()) >= deadline,
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

    def _wait(self, state: RetryCallState) -> float:
        """Wait as long as the decision asks for, and then a random time (full jitter) that grows with the steps."""
        decision = state.outcome.result() if state.outcome is not None else None
        delay = decision.delay if isinstance(decision, Send | Look) else 0.0
        doublings = min(state.attempt_number - 1, _MOST_DOUBLINGS)
        ceiling: float = min(FIRST_CEILING * 2.0**doublings, LAST_CEILING)
        return delay + self._rng.uniform(0.0, ceiling)
