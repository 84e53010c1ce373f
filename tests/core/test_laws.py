"""What holds over the whole small space of answers and looks, whatever the tables say of each."""

import itertools
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Final, get_args

import pytest

from bulkrestart.core.decide import decide
from bulkrestart.core.decision import Accept, Decision, End, Look, Send
from bulkrestart.core.look import LATE_GRACE, LOOK_TIMEOUT, decide_look, grace_of
from bulkrestart.core.model import Action, Log, Outcome, Proof, Reason, RebootType, Server
from bulkrestart.core.observation import Answer, Observation, Sighting, Unanswered, Unsent
from bulkrestart.core.progress import Progress
from bulkrestart.core.states import HARD_ONLY_STATES, KEEPING_TASKS, REBOOT_TASKS, TASK_ENDS_IN
from tests.core.samples import (
    HARD,
    OTHER_REQUEST,
    REBOOTING,
    REQUEST,
    SERVER,
    SOFT,
    TASK_STATES,
    VM_STATES,
    answer,
    conflict_words,
    ecs_body,
    in_log,
    nova,
    nova_body,
    page,
    sent,
)

SENT_AT: Final = 1_800_000_000.0
DECISIONS: Final = get_args(Decision)
STATUSES: Final = range(100, 600)
#: Leave to escalate, and to start what is stopped.
EVERY_LEAVE: Final = tuple(itertools.product((False, True), (False, True)))
NONE_OR_ALL: Final = ((False, False), (True, True))
BODIES: Final = {
    "empty": b"",
    "JSON without a code": b'{"job_id": "ff80808288d41e1b"}',
    "a page": b"<html><title>Bad Gateway</title></html>",
    "JSON that was torn": b'{"error": {"code": "Ecs.',
    "another cloud's": b'{"error": {"status": "429 Too Many Requests", "message": "Too Many Requests"}}',
    **{
        f"Nova: {words[:12]}...{words[-24:]}": nova_body(409, words)
        for words in (
            f"Instance {SERVER} is locked",
            f"Instance {SERVER} is in an invalid state for 'reboot'",
            f"Instance {SERVER} could not be found.",
            "URL's project_id 'a' doesn't match Context's project_id 'b'",
            conflict_words("launched_at", "None"),
            *(conflict_words("vm_state", state) for state in ("building", "stopped", "resized")),
            *(conflict_words("task_state", state) for state in ("rebooting_hard", "migrating", "pausing", "deleting")),
        )
    },
    "Nova: itemNotFound": nova_body(404, f"Instance {SERVER} could not be found."),
    **{
        code: ecs_body(code, "as the error code table says")
        for code in (
            *("Ecs.0000", "Ecs.0003", "Ecs.0005", "Ecs.0023", "Ecs.0100", "Ecs.0114", "Ecs.0227", "Ecs.0603"),
            *("Ecs.0605", "Ecs.0614", "Ecs.1000", "Ecs.1001", "Ecs.1002"),
            *("Common.0013", "Common.0018", "Common.0024", "Common.1503", "APIG.0308", "APIGW.0308", "APIG.0101"),
        )
    },
}


@cache
def answers(body: bytes) -> tuple[Answer, ...]:
    """Give an answer of every status with this body, whole and cut short."""
    headers = {"x-compute-request-id": REQUEST}
    return tuple(
        answer(status, body, headers, is_cut_short=is_cut_short)
        for status, is_cut_short in itertools.product(STATUSES, (False, True))
    )


def ways(*seen: Observation, leaves: Iterable[tuple[bool, bool]] = NONE_OR_ALL) -> Iterator[Progress]:
    """Give a server for every type and leave, after these answers."""
    for reboot_type, (may_escalate, may_start) in itertools.product(RebootType, leaves):
        yield sent(
            *seen,
            reboot_type=reboot_type,
            may_escalate=may_escalate,
            may_start=may_start,
            cloud_time=(SENT_AT, SENT_AT + 2.0),
        )


def has_leave(decision: Decision, progress: Progress) -> bool:
    """Tell whether what is sent was asked for, or allowed."""
    return not (isinstance(decision, Send) and decision.reboot_type is HARD) or (
        progress.reboot_type is HARD or progress.order.may_escalate
    )


@pytest.mark.unmeasured
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_every_answer_has_a_decision(body: bytes) -> None:
    """Whatever the status and the body, there is a decision; it never sends HARD without leave."""
    wrong = [
        (observation.status, progress, decision)
        for progress in ways()
        for observation in answers(body)
        if not isinstance(decision := decide(observation, progress), DECISIONS) or not has_leave(decision, progress)
    ]

    assert wrong == []


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_only_a_plain_success_is_accepted(body: bytes) -> None:
    """Nothing but a whole 2xx that names no error is an acceptance."""
    accepting = [seen.status for seen in answers(body) if isinstance(decide(seen, sent()), Accept)]

    assert accepting == (list(range(200, 300)) if body in (BODIES["empty"], BODIES["JSON without a code"]) else [])


@pytest.mark.parametrize("status", [status for status in STATUSES if status >= 500 or status in (100, 101, 408)])
def test_nothing_follows_an_unknown_fate_but_a_look(status: int) -> None:
    """An answer that a gateway gives in the cloud's place is no licence to send again."""
    assert isinstance(decide(page(status, "Oops"), sent()), Look)


@pytest.mark.parametrize("seen", [Unanswered("ReadTimeout"), Unsent("ConnectError"), answer(429), answer(202)], ids=str)
def test_decisions_change_nothing(seen: Observation) -> None:
    """A decision is a value: the progress is as it was."""
    for progress in ways():
        before = deepcopy(progress)

        decide(seen, progress)

        assert progress == before


CREATED: Final = Action(action="create", request_id="req-created", start_time=0.0)
BEFORE: Final = Action(action="reboot", request_id="req-before", start_time=SENT_AT - 60.0, user_id="me")
LATER: Final = Action(action="reboot", request_id=OTHER_REQUEST, start_time=SENT_AT + 60.0, user_id="me")
#: What can stand where a log was asked for, without a word on the fate of a send.
NO_LOGS: Final[tuple[Log | Observation | None, ...]] = (
    *(None, (), answer(403), page(404, "Not Found"), nova(500, "Oops"), Unanswered("ReadTimeout")),
)
FATES: Final[dict[str, Observation]] = {
    "unanswered": Unanswered("ReadTimeout"),
    "500 with an id": nova(500, "UnexpectedTaskStateError"),
}


def servers() -> Iterator[Server]:
    """Give a server in every state there is, and without its states."""
    for vm_state, task_state, locked in itertools.product((None, *VM_STATES), (None, *TASK_STATES), (False, True)):
        yield Server(id=SERVER, vm_state=vm_state, task_state=task_state, locked=locked)


@pytest.mark.unmeasured
@pytest.mark.parametrize("log", NO_LOGS, ids=str)
@pytest.mark.parametrize("fate", FATES.values(), ids=FATES)
def test_without_a_log_no_state_is_a_licence_to_send(fate: Observation, log: Log | Observation | None) -> None:
    """While the log cannot be read, no server is sent to or refused for its states: our own reboot may cause them."""
    wrong = []
    for progress in ways(fate):
        progress.fate = replace(progress.fate, readable_looks=9)
        for age in (0.0, LATE_GRACE, LOOK_TIMEOUT):
            for server in servers():
                at, log_time = progress.fate.answered_at + age, in_log(progress, age)
                sighting = Sighting(server=server, log=log, at=at, is_log_proven=True, log_time=log_time)
                match decide_look(sighting, progress):
                    case Look(is_unresolved=True) | End(outcome=Outcome.IN_DOUBT):
                        pass
                    case Accept(proof=Proof.STATE) if server.task_state in REBOOTING:
                        pass
                    case decision:
                        wrong.append((progress, server, age, decision))

    assert wrong == []


@pytest.mark.unmeasured
@pytest.mark.parametrize("is_log_proven", [False, True])
@pytest.mark.parametrize("readable_looks", [0, 1])
@pytest.mark.parametrize("age", [0.0, 10.0, 90.0, LOOK_TIMEOUT])
@pytest.mark.parametrize("fate", FATES.values(), ids=FATES)
def test_silent_log_tells_in_its_own_time(
    fate: Observation, age: float, readable_looks: int, is_log_proven: bool
) -> None:
    """A log without a row of ours says that nothing was started after the grace and a second look, and not before.

    For HARD it must have shown a reboot of this run. What the server shows does not make it speak.
    """
    wrong = []
    for progress in ways(fate):
        progress.fate = replace(progress.fate, readable_looks=readable_looks)
        is_trusted = progress.reboot_type is SOFT or is_log_proven
        is_told = is_trusted and age >= grace_of(progress, 0.0) and readable_looks > 0
        for server in servers():
            at = progress.fate.answered_at + age
            sighting = Sighting(
                server=server,
                log=(BEFORE, CREATED),
                at=at,
                is_log_proven=is_log_proven,
                user_id="me",
                log_time=in_log(progress, age),
            )
            decision = decide_look(sighting, progress)
            is_open = (isinstance(decision, Look) and decision.is_unresolved) or (
                isinstance(decision, End) and decision.outcome is Outcome.IN_DOUBT
            )
            if isinstance(decision, Accept) or is_open is is_told or not has_leave(decision, progress):
                wrong.append((progress, server, decision))

    assert wrong == []


@pytest.mark.parametrize("fate", FATES.values(), ids=FATES)
def test_row_that_is_ours_is_an_acceptance_in_any_state(fate: Observation) -> None:
    """A reboot of ours that began after the send has landed, whatever the server shows and however old the look."""
    wrong = [
        (progress, server, age)
        for progress in ways(fate)
        for age in (0.0, LOOK_TIMEOUT)
        for server in servers()
        if decide_look(
            Sighting(
                server=server,
                log=(LATER, CREATED),
                at=progress.fate.answered_at + age,
                user_id="me",
                log_time=in_log(progress, age),
            ),
            progress,
        )
        != Accept(request_id=OTHER_REQUEST)
    ]

    assert wrong == []


#: nova/compute/task_states.py ALLOW_REBOOT
ALLOW_REBOOT: Final = frozenset(
    {
        *(None, "rebooting", "reboot_pending", "reboot_started", "rebooting_hard"),
        *("resuming", "unpausing", "pausing", "suspending"),
    }
)


def nova_takes(reboot_type: RebootType, server: Server) -> bool:
    """Tell whether Nova answers 202 (nova/compute/api.py `reboot`, `_soft_reboot`, `_hard_reboot`)."""
    if server.locked:
        return False
    if reboot_type is SOFT:
        return server.vm_state == "active" and server.task_state is None
    return (
        server.vm_state in {"active", "stopped", "paused", "suspended", "error"} and server.task_state in ALLOW_REBOOT
    )


def looks(server: Server) -> Iterator[tuple[Progress, Decision]]:
    """Look at this server with nothing unresolved, on every way."""
    for progress in ways(leaves=EVERY_LEAVE):
        decision = decide_look(Sighting(server=server, log=None, at=0.0), progress)
        assert isinstance(decision, DECISIONS)
        yield progress, decision


def test_nothing_is_sent_that_nova_refuses() -> None:
    """A look sends only what Nova takes, only to an idle server, and starts or escalates only with leave."""
    wrong = [
        (progress, server, decision)
        for server in servers()
        for progress, decision in looks(server)
        if isinstance(decision, Send)
        and not (
            nova_takes(decision.reboot_type, server)
            and server.task_state is None
            and (server.vm_state != "stopped" or progress.order.may_start)
            and has_leave(decision, progress)
        )
    ]

    assert wrong == []


def test_nothing_is_kept_from_a_server_that_nova_would_restart() -> None:
    """An idle server gets what was asked for if Nova takes it; else HARD, if there is leave and Nova takes that."""
    wrong = []
    for server in servers():
        for progress, decision in looks(server):
            wanted = [progress.reboot_type, *([HARD] if progress.order.may_escalate else [])]
            taken = [reboot_type for reboot_type in wanted if nova_takes(reboot_type, server)]
            is_allowed = server.vm_state != "stopped" or progress.order.may_start
            if server.task_state is None and taken and is_allowed and decision != Send(reboot_type=taken[0]):
                wrong.append((progress, server, decision))

    assert wrong == []


def test_look_with_nothing_unresolved_stays_so() -> None:
    """With nothing unresolved a look sends, waits or refuses; it accepts nothing and doubts nothing."""
    wrong = []
    for server in servers():
        for progress, decision in looks(server):
            match decision:
                case Send() | Look(is_unresolved=False, delay=2.0):
                    pass
                case End(outcome=Outcome.SKIPPED, reason=Reason.LOCKED | Reason.WRONG_STATE, stop=None):
                    pass
                case _:
                    wrong.append((progress, server, decision))

    assert wrong == []


def test_classes_of_states_cover_what_nova_has() -> None:
    """Every task of Nova's is in exactly one class, and every vm_state that is named is one of Nova's."""
    classes = [REBOOT_TASKS, KEEPING_TASKS, frozenset(TASK_ENDS_IN)]

    assert sorted(itertools.chain(*classes)) == sorted(TASK_STATES)
    assert {*TASK_ENDS_IN.values(), *HARD_ONLY_STATES} <= set(VM_STATES)
