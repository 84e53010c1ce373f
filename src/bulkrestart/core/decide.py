"""What an answer means: the first of the two tables that are the retry policy; `look` holds the second.

Both are total: whatever a cloud says has a decision. Neither does anything; the run performs what they return.

The one rule behind both: a reply that never came is neither a failure nor a licence to send again. Until a look has
told the fate of a send, nothing is sent to that server, whatever state it shows.
"""

import re
from dataclasses import replace
from typing import Final

from bulkrestart.core.decision import Accept, Again, Decision, End, Hold, Look, Ready, Send
from bulkrestart.core.errors import AuthError, EndpointError
from bulkrestart.core.faults import Body
from bulkrestart.core.model import Outcome, Reason, RebootType, Stop, StopReason
from bulkrestart.core.observation import EXECUTING, POSTPONED, Answer, Observation, Unanswered, Unsent
from bulkrestart.core.progress import Progress
from bulkrestart.core.states import (
    ACTIVE,
    BUILDING,
    ERROR,
    HARD_ONLY_STATES,
    KEEPING_TASKS,
    REBOOT_TASKS,
    STOPPED,
    TASK_ENDS_IN,
)

#: Seconds between two looks at a server that is in a passing state.
PASSING_DELAY: Final = 2.0
#: Seconds before a second try with a token that was refused: a token just issued may not have reached every node.
REFUSED_TOKEN_DELAY: Final = 5.0
#: Answers in a row that refuse a token that was never accepted; then the run stops.
REFUSED_IN_A_ROW: Final = 3
#: Answers in a row that refuse one server's requests with a token that other requests are accepted with; then that
#: server is given up.
STALE_IN_A_ROW: Final = 10
#: Answers before a run that are not the compute API's; then the endpoint is wrong. Each is to a request for another
#: server, if there are several.
STRAY_IN_A_ROW: Final = 3
#: Seconds that `Ecs.0603` asks for: "The commands are being executed. Try again 1 minute later."
COMMANDS_EXECUTING_DELAY: Final = 60.0
#: Refusals by policy in a row, with no acceptance between, that stop a run: the rest would be refused as well.
FORBIDDEN_IN_A_ROW: Final = 10

_UNCERTAIN_CODES: Final = ("Ecs.0000", "Ecs.0227", "Ecs.1000", "Ecs.1001", "Ecs.1002")
#: nova/api/openstack/common.py raise_http_conflict_for_instance_invalid_state
_CONFLICT: Final = re.compile(r"Cannot 'reboot' instance \S+ while it is in (vm_state|task_state|launched_at) (\S+)")
_NEVER_LAUNCHED: Final = "is in an invalid state for 'reboot'"
#: Words of a gateway before Nova which say that another request for the same server is under way.
_UNDER_WAY: Final = re.compile(
    r"in progress|under ?way|\balready\b|\b(?:is|being) (?:re)?(?:boot|start|execut)", re.IGNORECASE
)
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
        case Unsent(is_withheld=True):
            return Look(is_unresolved=False, is_attempt=False)
        case Unsent():
            # A limit of this machine is not the server's failure.
            return Send(reboot_type=progress.reboot_type, is_attempt=not seen.is_local)
        case Unanswered():
            return Look(is_unresolved=True)
        case Answer():
            return _no_sooner(_decide_answer(seen, progress), seen.fault.retry_after or 0.0)


def hold_for(seen: Observation) -> Hold | None:
    """Tell whether an answer, to whatever request, makes everybody wait; None if it does not.

    To wait for 0 s is no answer to how long: who is throttled and comes again at once is throttled again.
    """
    if not isinstance(seen, Answer):
        return None
    wait = seen.fault.retry_after or None
    if seen.is_throttled or (200 <= seen.status < 300 and seen.fault.has_code(POSTPONED)):
        return Hold(wait)
    if seen.is_refused_token:
        # Whoever sends meanwhile is refused as well.
        return Hold(max(REFUSED_TOKEN_DELAY, wait or 0.0))
    is_in_trouble = seen.status >= 500 or seen.status == 408
    return Hold(wait) if is_in_trouble and wait is not None and not seen.fault.has_code(EXECUTING) else None


def _decide_answer(answer: Answer, progress: Progress) -> Decision:
    status, fault = answer.status, answer.fault
    if answer.is_redirect:
        return Look(is_unresolved=True)
    if 200 <= status < 300:
        is_plain = fault.body is Body.EMPTY or (fault.body is Body.JSON and not fault.code)
        if is_plain:
            return Accept(request_id=fault.request_id)
        # The cloud postpones a request because it throttles, and not because of the server.
        return Look(is_unresolved=True, is_attempt=not fault.has_code(POSTPONED))
    if answer.is_throttled:
        return Send(reboot_type=progress.reboot_type, is_attempt=False)
    if fault.has_code("Ecs.0605"):
        return refuse(Reason.LOCKED, answer)
    if fault.has_code("Ecs.0100"):
        # The wrong state may be that of our own reboot, if the request was delivered twice.
        return Look(is_unresolved=True)
    if fault.has_code(EXECUTING):
        return Look(is_unresolved=True, delay=COMMANDS_EXECUTING_DELAY)
    if status == 409:
        return _decide_conflict(answer, progress)
    if status < 200 or status >= 500 or status == 408 or fault.has_code(*_UNCERTAIN_CODES):
        # Who asks everybody to wait says that it is no server's fault.
        return Look(is_unresolved=True, is_attempt=hold_for(answer) is None)
    if status == 401:
        return _decide_refused_token(answer, progress)
    if status == 403:
        return refuse(Reason.FORBIDDEN, answer)
    if answer.is_wrong_endpoint or (status == 404 and not answer.is_not_found):
        # A proxy or gateway answered instead of the compute API, which may have got the request all the same.
        # `Rejections` stops the run if it does so repeatedly.
        return Look(is_unresolved=True)
    if status != 404 and _UNDER_WAY.search(fault.message):
        # What is under way may be our own reboot, if the request was delivered twice.
        return Look(is_unresolved=True)
    return refuse(Reason.NOT_FOUND if status == 404 else Reason.REJECTED, answer)


def _decide_conflict(answer: Answer, progress: Progress) -> Decision:
    message = answer.fault.message
    if _LOCKED.search(message):
        return refuse(Reason.LOCKED, answer)
    conflict = _CONFLICT.search(message)
    if _NEVER_LAUNCHED in message or (conflict and conflict[1] == "launched_at"):
        return refuse(Reason.NEVER_LAUNCHED, answer)
    if conflict is None:
        return Look(is_unresolved=True)
    kind, state = conflict[1], conflict[2]
    # A look shows when the state has passed, and whether the request was delivered a second time. A HARD without a look
    # would start a stopped server.
    wait = Look(is_unresolved=False, delay=PASSING_DELAY, is_attempt=False)
    if kind == "vm_state":
        # Nova tests vm_state before task_state, so a server that is being started reads "stopped" here.
        # An earlier delivery of this send may have rebooted the server, failed, and left it in error.
        return wait if state == BUILDING else Look(is_unresolved=state == ERROR)
    if state in REBOOT_TASKS:
        # It may be our own: something between us and the cloud may have delivered the request twice.
        return Look(is_unresolved=True, is_attempt=False)
    if progress.reboot_type is RebootType.HARD:
        return wait
    ends_in = state_after(state, ACTIVE)
    if ends_in is None:
        return Look(is_unresolved=False)
    return wait if sendable_type(ends_in, progress) else refuse(Reason.WRONG_STATE, answer)


def _decide_refused_token(answer: Answer, progress: Progress) -> Decision:
    if answer.has_stale_token:
        if progress.sends.stale + 1 < STALE_IN_A_ROW:
            return Send(reboot_type=progress.reboot_type, is_attempt=False)
        return refuse(Reason.UNAUTHORIZED, answer)
    if progress.sends.refused + 1 < REFUSED_IN_A_ROW:
        return Send(reboot_type=progress.reboot_type, delay=REFUSED_TOKEN_DELAY, is_attempt=False)
    return refuse(Reason.UNAUTHORIZED, answer, unauthorized(answer))


def decide_first(
    seen: Observation, *, refused_tokens: int, stale_tokens: int, strays: int, is_about_server: bool
) -> Ready | Again:
    """Decide, before anything is sent, whether this is the project's compute API, and whether it knows our credentials.

    A single odd answer decides nothing, unless its text can only come from the compute API.

    Args:
        seen: What came instead of the resource that was requested.
        refused_tokens: Earlier answers that refused our credentials.
        stale_tokens: Earlier answers that refused a token that had been accepted before.
        strays: Earlier answers that were not the compute API's.
        is_about_server: Whether the request was for one server. If the API fails to show that server, it may still show
            others.

    Raises:
        AuthError: Our credentials are refused.
        EndpointError: It is something else than the compute API of the project.
    """
    if isinstance(seen, Unsent) and seen.is_insecure:
        remedy = "trust its certificate (verify=, --cacert, or cacert in clouds.yaml), or check the URL"
        raise EndpointError(f"the connection is not secure ({seen.words}); {remedy}; nothing was sent")
    if not isinstance(seen, Answer) or seen.fault.body is Body.CUT_SHORT:
        return Again(is_try=True)
    if seen.is_throttled:
        return Again(is_try=False)
    if seen.status >= 500 or seen.status == 408:
        # A 500 of Nova's may be about this server; a 503 is about the API.
        is_api = is_about_server and seen.status == 500 and seen.fault.is_nova_fault
        return Ready(refusal=seen) if is_api else Again(is_try=True)
    if seen.status == 401:
        # A token that was accepted before gets one more try: it is first sent again, and then renewed.
        refused = stale_tokens - 1 if seen.has_stale_token else refused_tokens
        if refused + 1 >= REFUSED_IN_A_ROW:
            raise AuthError(f"{unauthorized(seen).detail}; nothing was sent")
        return Again(is_try=False)
    if seen.is_unscoped:
        raise AuthError(f"the token belongs to no project ({seen.words}); get one for the project; nothing was sent")
    if is_about_server and 200 <= seen.status < 300 and seen.fault.body is Body.EMPTY:
        # A proxy's page is never empty. A mock API that shows no server may still accept reboots.
        return Ready(refusal=seen)
    if seen.is_wrong_endpoint or seen.status < 400:
        if strays + 1 >= STRAY_IN_A_ROW:
            raise EndpointError(f"{wrong_endpoint(seen).detail}; nothing was sent")
        return Again(is_try=True)
    return Ready(refusal=seen)


class Refusals:
    """Counts refusals by policy that follow each other: ten in a row mean that all the rest would be refused."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def note(self, end: End) -> Stop | None:
        """Take an outcome; give the reason to stop the run if it is one."""
        self._in_a_row += end.reason is Reason.FORBIDDEN
        if self._in_a_row < FORBIDDEN_IN_A_ROW:
            return None
        return Stop(StopReason.FORBIDDEN, f"{self._in_a_row} servers in a row were refused: {end.detail}")

    def forget(self) -> None:
        """Begin anew, because a server was accepted."""
        self._in_a_row = 0


def sendable_type(vm_state: str, progress: Progress) -> RebootType | None:
    """Tell which type may be sent to an idle server in this state; None if none may."""
    if progress.failed_soft is not None:
        # Its SOFT was accepted: only HARD follows, and only where that left it in error.
        return RebootType.HARD if vm_state == ERROR and progress.order.may_escalate else None
    asked_type = progress.order.reboot_type
    if vm_state == ACTIVE:
        return asked_type
    has_leave = asked_type is RebootType.HARD or progress.order.may_escalate
    if vm_state in HARD_ONLY_STATES and has_leave and (vm_state != STOPPED or progress.order.may_start):
        return RebootType.HARD
    return None


def state_after(task_state: str, vm_state: str) -> str | None:
    """Tell the vm_state that a task leads to; None for a task that Nova does not have."""
    return vm_state if task_state in KEEPING_TASKS else TASK_ENDS_IN.get(task_state)


def _no_sooner(decision: Decision, wait: float) -> Decision:
    if isinstance(decision, Send) and decision.delay < wait:
        return replace(decision, delay=wait)
    if isinstance(decision, Look) and decision.delay < wait:
        return replace(decision, delay=wait)
    return decision


def refuse(reason: Reason, answer: Answer, stop: Stop | None = None) -> End:
    """End a server that the cloud refused, in its own words."""
    return End(outcome=Outcome.REFUSED, reason=reason, detail=answer.words, stop=stop)


def wrong_endpoint(answer: Answer) -> Stop:
    """Stop a run whose endpoint cannot be the project's."""
    remedy, words = "check the URL and the project in it", answer.words
    if answer.location:
        words = f"{words}, which points to {answer.location}"
        remedy = (
            f"if the compute API is there, set --endpoint, or compute_endpoint_override in clouds.yaml; or {remedy}"
        )
    if answer.status == 407:
        remedy = "the proxy wants to know you: give HTTPS_PROXY with a user name and a password"
    return Stop(
        StopReason.WRONG_ENDPOINT,
        f"this is not the compute endpoint of the project ({words}); {remedy}",
    )


def unauthorized(answer: Answer) -> Stop:
    """Stop a run whose credentials are refused."""
    return Stop(StopReason.UNAUTHORIZED, f"the cloud does not let us in ({answer.words}); {answer.remedy}")
