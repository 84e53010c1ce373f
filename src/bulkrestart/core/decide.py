"""What is seen of a server, and what to do next: the whole retry policy, as two tables.

`decide` reads an answer to a send, `decide_look` a look at the server and its action log. Both are total: whatever a
cloud says has a decision. `hold_for` says of any answer whether everybody has to wait. None of them does anything; the
run performs what they return.

The one rule behind both: a reply that never came is neither a failure nor a licence to send again. Until a look has
told the fate of a send, nothing is sent to that server, whatever state it shows.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bulkrestart.core.clock import SKEW
from bulkrestart.core.decision import Accept, Decision, End, Hold, Look, Send
from bulkrestart.core.faults import Body
from bulkrestart.core.model import Action, Outcome, Proof, Reason, RebootType, Server, Stop, StopReason
from bulkrestart.core.observation import Answer, Observation, Sighting, Unanswered, Unsent
from bulkrestart.core.progress import Progress
from bulkrestart.core.states import (
    ACTIVE,
    BUILDING,
    HARD_ONLY_STATES,
    KEEPING_TASKS,
    REBOOT_TASKS,
    STOPPED,
    TASK_ENDS_IN,
    UNKNOWN,
)

#: Seconds between two looks at a server that is in a passing state.
PASSING_DELAY: Final = 2.0
#: Seconds before a second try with a token that was refused: a token just issued may not have reached every node.
REFUSED_TOKEN_DELAY: Final = 5.0
#: Seconds that `Ecs.0603` asks for: "The commands are being executed. Try again 1 minute later."
COMMANDS_EXECUTING_DELAY: Final = 60.0
#: Seconds after which a log that shows no reboot proves that none was started. A HARD waits for longer than a
#: gateway keeps a request, because a second HARD is not refused by the first (nova/compute/api.py `_hard_reboot`).
GRACE: Final = {RebootType.SOFT: 10.0, RebootType.HARD: 90.0}
#: Seconds that the fate of a send is looked for.
LOOK_TIMEOUT: Final = 300.0
#: Refusals by policy in a row, with no acceptance between, that stop a run: the rest would be refused as well.
FORBIDDEN_IN_A_ROW: Final = 10

#: "Flow limit exceeded", documented with 202: the request is delivered, but postponed.
_POSTPONED: Final = "Common.0024"
#: "The commands are being executed. Try again later."
_EXECUTING: Final = "Ecs.0603"
_UNCERTAIN_CODES: Final = ("Ecs.0000", "Ecs.0227", "Ecs.1000", "Ecs.1001", "Ecs.1002")
#: nova/api/openstack/common.py raise_http_conflict_for_instance_invalid_state
_CONFLICT: Final = re.compile(r"Cannot 'reboot' instance \S+ while it is in (vm_state|task_state|launched_at) (\S+)")
_NEVER_LAUNCHED: Final = "is in an invalid state for 'reboot'"
#: nova/exception.py InstanceIsLocked
_LOCKED: Final = re.compile(r"^Instance \S+ is locked\.?$")


def decide(seen: Observation, progress: Progress) -> Decision:
    """Decide on the answer to a send.

    Args:
        seen: What came back.
        progress: The server's way so far; it is not changed.

    Returns:
        What to do next. The fate of the send is unknown if, and only if, it is a `Look` that is unresolved.
    """
    match seen:
        case Unsent():
            return Send(reboot_type=progress.reboot_type)
        case Unanswered():
            return Look(is_unresolved=True)
        case Answer():
            return _no_sooner(_decide_answer(seen, progress), seen.fault.retry_after or 0.0)


def hold_for(seen: Observation) -> Hold | None:
    """Tell whether an answer, to whatever request, makes everybody wait; None if it does not."""
    if not isinstance(seen, Answer):
        return None
    wait = seen.fault.retry_after
    if seen.is_throttled or (200 <= seen.status < 300 and seen.fault.has_code(_POSTPONED)):
        return Hold(wait)
    if seen.status == 401 and not seen.has_stale_token:
        # Whoever sends meanwhile is refused as well.
        return Hold(max(REFUSED_TOKEN_DELAY, wait or 0.0))
    is_in_trouble = seen.status >= 500 or seen.status == 408
    return Hold(wait) if is_in_trouble and wait is not None and not seen.fault.has_code(_EXECUTING) else None


def _decide_answer(answer: Answer, progress: Progress) -> Decision:
    status, fault = answer.status, answer.fault
    if answer.is_redirect:
        return Look(is_unresolved=True, stop=wrong_endpoint(answer))
    if 200 <= status < 300:
        is_plain = fault.body is Body.EMPTY or (fault.body is Body.JSON and not fault.code)
        return Accept(request_id=fault.request_id) if is_plain else Look(is_unresolved=True)
    if answer.is_throttled:
        return Send(reboot_type=progress.reboot_type, is_attempt=False)
    if fault.has_code("Ecs.0605"):
        return _refuse(Reason.LOCKED, answer)
    if fault.has_code("Ecs.0100"):
        return Look(is_unresolved=False)
    if fault.has_code(_EXECUTING):
        return Send(reboot_type=progress.reboot_type, delay=COMMANDS_EXECUTING_DELAY)
    if status == 409:
        return _decide_conflict(answer, progress)
    if status < 200 or status >= 500 or status == 408 or fault.has_code(*_UNCERTAIN_CODES):
        return Look(is_unresolved=True)
    if status == 401:
        return _decide_refused_token(answer, progress)
    if status == 403:
        return _refuse(Reason.FORBIDDEN, answer)
    if answer.is_wrong_endpoint:
        return _refuse(Reason.WRONG_ENDPOINT, answer, wrong_endpoint(answer))
    if status == 404 and not answer.is_not_found:
        return Look(is_unresolved=False)
    return _refuse(Reason.NOT_FOUND if status == 404 else Reason.REJECTED, answer)


def _decide_conflict(answer: Answer, progress: Progress) -> Decision:
    message = answer.fault.message
    if _LOCKED.search(message):
        return _refuse(Reason.LOCKED, answer)
    conflict = _CONFLICT.search(message)
    if _NEVER_LAUNCHED in message or (conflict and conflict[1] == "launched_at"):
        return _refuse(Reason.NEVER_LAUNCHED, answer)
    if conflict is None:
        return Look(is_unresolved=False)
    kind, state = conflict[1], conflict[2]
    again = Send(reboot_type=progress.reboot_type, delay=PASSING_DELAY, is_attempt=False)
    if kind == "vm_state":
        # Nova tests vm_state before task_state, so a server that is being started reads "stopped" here.
        return again if state == BUILDING else Look(is_unresolved=False)
    if state in REBOOT_TASKS:
        # It may be our own: something between us and the cloud may have delivered the request twice.
        return Look(is_unresolved=True)
    if progress.reboot_type is RebootType.HARD:
        # The message does not show the vm_state, and HARD would start a server that is stopped.
        return Look(is_unresolved=False, delay=PASSING_DELAY, is_attempt=False)
    ends_in = _state_after(state, ACTIVE)
    if ends_in is None:
        return Look(is_unresolved=False)
    return again if sendable_type(ends_in, progress) else _refuse(Reason.WRONG_STATE, answer)


def _decide_refused_token(answer: Answer, progress: Progress) -> Decision:
    if answer.has_stale_token:
        return Send(reboot_type=progress.reboot_type, is_attempt=False)
    if progress.refused_tokens == 0:
        return Send(reboot_type=progress.reboot_type, delay=REFUSED_TOKEN_DELAY, is_attempt=False)
    return _refuse(Reason.UNAUTHORIZED, answer, unauthorized(answer))


def decide_look(sighting: Sighting, progress: Progress) -> Decision:
    """Decide on a look at a server.

    Args:
        sighting: What was seen; with the action log if the fate of a send is unknown.
        progress: The server's way so far; it is not changed.

    Returns:
        What to do next. The fate of the last send stays unknown if, and only if, it is a `Look` that is unresolved.
    """
    for seen in (sighting.log, sighting.server):
        if isinstance(seen, Answer) and seen.is_throttled:
            return Look(is_unresolved=progress.is_unresolved)
        if isinstance(seen, Answer) and seen.status == 401 and not seen.has_stale_token:
            return _decide_refused_look(seen, progress)
    return _decide_unresolved(sighting, progress) if progress.is_unresolved else _decide_resolved(sighting, progress)


def _decide_refused_look(answer: Answer, progress: Progress) -> Decision:
    if progress.refused_tokens == 0:
        return Look(is_unresolved=progress.is_unresolved, delay=REFUSED_TOKEN_DELAY)
    stop = unauthorized(answer)
    if progress.is_unresolved:
        return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=progress.words, stop=stop)
    return _refuse(Reason.UNAUTHORIZED, answer, stop)


def _decide_unresolved(sighting: Sighting, progress: Progress) -> Decision:
    server, log = sighting.server, sighting.log
    if isinstance(server, Answer) and server.is_not_found:
        detail = f"{server.words} (a reboot may have been sent before)"
        return End(outcome=Outcome.REFUSED, reason=Reason.GONE, detail=detail)
    age = sighting.at - progress.given_up
    if isinstance(log, Sequence) and log:
        return _decide_by_log(log, age, sighting, progress)
    is_rebooting = isinstance(server, Server) and server.task_state in REBOOT_TASKS
    # An empty log is no log: every server has the row of its creation.
    is_unreadable = isinstance(log, Sequence) or is_log_unreadable(log)
    if is_rebooting and (is_unreadable or age >= LOOK_TIMEOUT):
        return Accept(proof=Proof.STATE)
    return _look_on(age, progress, f"the action log cannot be read ({log or 'empty'})")


def is_log_unreadable(log: Sequence[Action] | Observation | None) -> bool:
    """Tell whether the log is kept from us for good, as against one that fails now."""
    return isinstance(log, Answer) and log.status in (403, 404) and not log.is_throttled


def _decide_by_log(log: Sequence[Action], age: float, sighting: Sighting, progress: Progress) -> Decision:
    sent_id = progress.attempts[-1].request_id
    reboots = [row for row in log if row.action == "reboot"]
    if any(row.request_id == sent_id for row in reboots):
        return Accept(request_id=sent_id)
    candidates = reboots_since(reboots, progress)
    is_trusted = progress.reboot_type is RebootType.SOFT or sighting.is_log_proven
    # Whose a row is cannot be told before the log has named us; then it may be of an earlier send of ours.
    may_be_ours = any(row.user_id == sighting.user_id for row in candidates) or (
        candidates and sighting.user_id is None and progress.doubts > 1
    )
    if progress.has_lost_race and is_trusted and not may_be_ours:
        # Nova writes the row before it answers. A log without the id of its own 500 says that we lost a race for the
        # task_state and that nothing was started (nova/compute/api.py `_soft_reboot`: save, _record_action_start).
        return _decide_resolved(sighting, progress)
    for row in candidates:
        if not _may_precede(row, progress) or sighting.user_id in (None, row.user_id):
            return Accept(request_id=row.request_id)
    grace = GRACE[progress.reboot_type]
    if candidates or _are_within_skew(reboots, sighting, progress):
        why = "a reboot began at about the same time, and the clocks do not tell whether it is this one"
        return Look(is_unresolved=True) if age < grace else _in_doubt(progress, why)
    if is_trusted and progress.since is not None and age >= grace and progress.silent_looks > 0:
        return _decide_resolved(sighting, progress)
    return _look_on(age, progress, "the action log does not tell")


def reboots_since(log: Sequence[Action], progress: Progress) -> list[Action]:
    """Find the reboots, by anyone, that may have started since `Progress.since`, but for those already settled.

    Args:
        log: Rows of the action log, the newest first.
        progress: The server's way so far.

    Returns:
        Their rows, the oldest first: the one that follows the send most closely is the likeliest to be ours.
    """
    if progress.since is None:
        return []
    settled = {attempt.request_id for attempt in progress.attempts[:-1]}
    # start_time has a resolution of 1 s: it stands for anything up to the next second.
    return [
        row
        for row in reversed(log)
        if row.action == "reboot" and row.request_id not in settled and row.start_time + 1.0 > progress.since[0]
    ]


def _may_precede(row: Action, progress: Progress) -> bool:
    # A database that rounds may show a start_time half a second too late (MySQL's DATETIME).
    return progress.since is not None and row.start_time - 0.5 < progress.since[1]


def _are_within_skew(reboots: Sequence[Action], sighting: Sighting, progress: Progress) -> bool:
    """Tell whether a reboot that seems to precede the send may be it, by the clock of another node.

    A 409 is not asked: it says that this request started nothing.
    """
    if progress.since is None or progress.last_status == 409:
        return False
    settled = {attempt.request_id for attempt in progress.attempts[:-1]}
    return any(
        row.start_time + SKEW > progress.since[0]
        for row in reboots
        if row.request_id not in settled and sighting.user_id in (None, row.user_id)
    )


def _decide_resolved(sighting: Sighting, progress: Progress) -> Decision:
    server = sighting.server
    wait = Look(is_unresolved=False, delay=PASSING_DELAY)
    if isinstance(server, Answer) and server.is_not_found:
        return _refuse(Reason.NOT_FOUND, server)
    if isinstance(server, Answer) and server.status == 403:
        return _refuse(Reason.FORBIDDEN, server)
    if not isinstance(server, Server) or server.task_state in REBOOT_TASKS:
        return wait
    if server.vm_state is None or server.status == UNKNOWN:
        return wait
    if server.locked:
        return _refuse_state(Reason.LOCKED, "locked", progress)
    shown = f"vm_state {server.vm_state}, task_state {server.task_state}"
    if server.task_state is not None:
        ends_in = _state_after(server.task_state, server.vm_state)
        is_passing = ends_in is None or sendable_type(ends_in, progress) is not None
        return wait if is_passing else _refuse_state(Reason.WRONG_STATE, shown, progress)
    if server.vm_state == BUILDING:
        return wait
    reboot_type = sendable_type(server.vm_state, progress)
    return Send(reboot_type=reboot_type) if reboot_type else _refuse_state(Reason.WRONG_STATE, shown, progress)


def sendable_type(vm_state: str, progress: Progress) -> RebootType | None:
    """Tell which type may be sent to an idle server in this state; None if none may."""
    if vm_state == ACTIVE:
        return progress.reboot_type
    has_leave = progress.reboot_type is RebootType.HARD or progress.may_escalate
    if vm_state in HARD_ONLY_STATES and has_leave and (vm_state != STOPPED or progress.may_start):
        return RebootType.HARD
    return None


def _state_after(task_state: str, vm_state: str) -> str | None:
    return vm_state if task_state in KEEPING_TASKS else TASK_ENDS_IN.get(task_state)


def _no_sooner(decision: Decision, wait: float) -> Decision:
    if isinstance(decision, Send) and decision.delay < wait:
        return replace(decision, delay=wait)
    if isinstance(decision, Look) and decision.delay < wait:
        return replace(decision, delay=wait)
    return decision


def _look_on(age: float, progress: Progress, why: str) -> Decision:
    return Look(is_unresolved=True) if age < LOOK_TIMEOUT else _in_doubt(progress, why)


def _in_doubt(progress: Progress, why: str) -> End:
    return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=f"{progress.words}; {why}")


def _refuse(reason: Reason, answer: Answer, stop: Stop | None = None) -> End:
    return End(outcome=Outcome.REFUSED, reason=reason, detail=answer.words, stop=stop)


def _refuse_state(reason: Reason, shown: str, progress: Progress) -> End:
    """End a server in whose state no reboot may be sent: the cloud said so, or we saw it before we sent."""
    outcome = Outcome.REFUSED if progress.attempts else Outcome.SKIPPED
    # What was refused for the state has the cloud's own words for it.
    is_said = progress.last_status in (400, 409)
    return End(outcome=outcome, reason=reason, detail=progress.words if is_said else shown)


def wrong_endpoint(answer: Answer) -> Stop:
    """Stop a run whose endpoint cannot be the project's."""
    return Stop(
        StopReason.WRONG_ENDPOINT,
        f"this is not the compute endpoint of the project ({answer.words}); check the URL and the project in it",
    )


def unauthorized(answer: Answer) -> Stop:
    """Stop a run whose token is refused."""
    return Stop(StopReason.UNAUTHORIZED, f"the token is refused ({answer.words}); get a new one for this project")
