"""An accepted reboot is over when the server is back by its state and its action proves it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict, Unpack

import pytest

from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, LogTime
from bulkrestart.core.decision import Confirm, End, Look, Prove, Send, Unmet, Watch
from bulkrestart.core.model import Action, Outcome, Proof, Reason, RebootType, Server
from bulkrestart.core.observation import Observation, Unanswered, Unsent
from bulkrestart.core.progress import Progress
from bulkrestart.core.settling import (
    FoundRow,
    decide_back,
    decide_check,
    decide_escalation,
    decide_proof,
    find_accepted,
    gone,
    has_ended_badly,
    late,
)
from tests.core.samples import (
    HARD,
    OTHER_REQUEST,
    REBOOTING,
    REQUEST,
    SERVER,
    SOFT,
    TASK_STATES,
    answer,
    gateway,
    keystone,
    nova,
    page,
    sent,
)

SENT_AT = 1_800_000_000.0
LOOK_SINGLY = Look(is_unresolved=False)
COMPLETED = End(outcome=Outcome.COMPLETED, proof=Proof.ACTION)
BY_STATE = End(outcome=Outcome.COMPLETED, proof=Proof.STATE)
NOT_BACK = "its reboot has not finished: vm_state active, task_state None"


NEVER = End(
    outcome=Outcome.FAILED,
    reason=Reason.NOT_REBOOTED,
    detail="the action log shows no reboot since it was sent",
)


def accepted(request_id: str | None = REQUEST) -> Progress:
    """Give a server whose reboot was accepted, with or without the cloud's id of it."""
    headers = {} if request_id is None else {"x-compute-request-id": request_id}
    return sent(answer(202, b"", headers), cloud_time=(SENT_AT, SENT_AT + 2.0))


def shown(vm_state: str | None, task_state: str | None = None, fault: str = "", status: str = "") -> Server:
    """Show a server in these states."""
    return Server(id=SERVER, status=status, vm_state=vm_state, task_state=task_state, fault=fault)


def failed(reason: Reason, words: str) -> End:
    """End a server that is not back as it should be."""
    return End(outcome=Outcome.FAILED, reason=reason, detail=words)


Settling = Watch | Prove | Confirm | Look | End


def watch(*servers: Server, progress: Progress | None = None) -> list[Settling]:
    """Decide on snapshots that follow each other, as the watcher does."""
    decisions: list[Settling] = []
    is_second_look = False
    for server in servers:
        decisions.append(decide_back(server, progress or accepted(), is_second_look=is_second_look))
        is_second_look = has_ended_badly(server)
    return decisions


def way(words: str, server: Server, *expected: Settling) -> tuple[str, Server, list[Settling]]:
    """Write what is decided on one snapshot that is seen again and again."""
    return words, server, list(expected)


BACK = [
    *(way(f"in {state}", shown("active", state, status="ACTIVE"), Watch(), Watch(), Watch()) for state in REBOOTING),
    way("in a reboot of a stopped server", shown("stopped", "rebooting_hard"), Watch(), Watch(), Watch()),
    way("in a reboot of a server in error", shown("error", "reboot_started_hard"), Watch(), Watch(), Watch()),
    way("shown without its states", shown(None, status="ACTIVE"), Watch(), Watch(), Watch()),
    way("active and idle", shown("active", status="ACTIVE"), Prove(), Prove()),
    way("active and idle, whatever its status says", shown("active", status="HARD_REBOOT"), Prove(), Prove()),
    *(
        way(f"active and in {state}: the reboot is over", shown("active", state), Prove())
        for state in TASK_STATES
        if state not in REBOOTING
    ),
    way(
        "error, with its fault",
        shown("error", fault="Failed to reboot instance"),
        Watch(),
        failed(Reason.ERROR, "Failed to reboot instance"),
    ),
    way("error, without a word", shown("error"), Watch(), failed(Reason.ERROR, "vm_state error")),
    *(
        way(vm_state, shown(vm_state), Watch(), failed(Reason.WRONG_STATE, f"it ended in vm_state {vm_state}"))
        for vm_state in ("stopped", "paused", "rescued")
    ),
    way("deleted, as lists show it: only a 404 says so", shown("deleted"), LOOK_SINGLY, LOOK_SINGLY, LOOK_SINGLY),
]


@pytest.mark.parametrize(("server", "expected"), [pytest.param(*row[1:], id=row[0]) for row in BACK])
def test_server_is_back_by_its_two_states(server: Server, expected: list[Settling]) -> None:
    """Back is active and out of the six reboot states; any other end counts when it was seen twice."""
    assert watch(*[server] * len(expected)) == expected


@pytest.mark.parametrize(
    "between",
    [shown("stopped", "rebooting_hard"), shown(None)],
    ids=["in a reboot again", "shown without its states"],
)
def test_two_sightings_are_two_in_a_row(between: Server) -> None:
    """A server that was seen in error once, and then under way, is seen in error for the first time again."""
    decisions = watch(shown("error"), between, shown("error"), shown("error"))

    assert decisions == [Watch(), Watch(), Watch(), failed(Reason.ERROR, "vm_state error")]


def test_active_is_no_first_sighting_of_an_error() -> None:
    """A server that was seen active, and then in error, is seen in error for the first time."""
    decisions = watch(shown("active"), shown("error"), shown("error"))

    assert decisions == [Prove(), Watch(), failed(Reason.ERROR, "vm_state error")]


def row(
    request_id: str = REQUEST,
    *,
    after: float = 0.0,
    is_error: bool = False,
    is_finished: bool | None = True,
    action: str = "reboot",
    user_id: str = "me",
) -> Action:
    """Write a row of the action log that began so many seconds after our send."""
    return Action(
        action=action,
        request_id=request_id,
        start_time=SENT_AT + after,
        user_id=user_id,
        is_error=is_error,
        is_finished=is_finished,
    )


NOT_REBOOTED = failed(Reason.NOT_REBOOTED, "the action log says that the reboot ended in Error")
ME: Final = "me"
DISPUTED: Final = End(
    outcome=Outcome.IN_DOUBT,
    reason=Reason.UNANSWERED,
    detail="of two reboots at about that time one ended in Error, and the clocks do not show which of them is ours",
)
NAMELESS: Final = End(
    outcome=Outcome.IN_DOUBT,
    reason=Reason.UNANSWERED,
    detail="an action of that time has a name that does not show whether it was the reboot",
)
UNTOUCHED: Final = End(
    outcome=Outcome.IN_DOUBT,
    reason=Reason.UNANSWERED,
    detail="the server is active, and its state does not show that anything has changed it since the send",
)
#: The send by clocks that were never compared, and by one that nothing vouches for.
UNCHECKED: Final = LogTime((SENT_AT, SENT_AT + 2.0), SENT_AT + 60.0, UNCHECKED_SKEW)
UNDATED: Final = LogTime((SENT_AT, SENT_AT + 2.0), float("inf"), float("inf"))
CHECKED: Final = LogTime((SENT_AT, SENT_AT + 2.0), SENT_AT + 60.0, SKEW)


@dataclass(frozen=True, kw_only=True)
class LogProof:
    """What a log proves of an accepted reboot: at once, when rows must be shown, and at the very last."""

    words: str
    log: Sequence[Action] | Observation
    at_once: Settling
    shown: Settling
    at_last: Settling
    request_id: str | None = REQUEST
    log_time: LogTime | None = CHECKED
    user_id: str | None = ME

    def decide(
        self,
        *,
        is_shown: bool,
        is_late: bool,
        is_view_fresh: bool = True,
        is_untouched: bool = False,
        is_log_fresh: bool = True,
    ) -> Settling:
        """Find the row, and decide."""
        progress = accepted(self.request_id)
        can_date = self.log_time is not None and self.log_time.skew <= SKEW
        if not isinstance(self.log, Sequence):
            return decide_proof(
                self.log,
                None,
                progress,
                can_date=can_date,
                is_view_fresh=is_view_fresh,
                is_untouched=is_untouched,
                is_log_fresh=is_log_fresh,
                is_late=is_late,
            )
        log = tuple(self.log)
        found = find_accepted(log, progress, self.log_time, self.user_id, is_shown=is_shown)
        return decide_proof(
            log,
            found,
            progress,
            can_date=can_date,
            is_view_fresh=is_view_fresh,
            is_untouched=is_untouched,
            is_log_fresh=is_log_fresh,
            is_late=is_late,
        )


class Others(TypedDict, total=False):
    """What is not as usual."""

    request_id: str | None
    log_time: LogTime | None
    user_id: str | None


def always(words: str, log: Sequence[Action] | Observation, expected: Settling, **others: Unpack[Others]) -> LogProof:
    """Write a row in which time makes no difference."""
    return LogProof(words=words, log=log, at_once=expected, shown=expected, at_last=expected, **others)


def awaited(words: str, log: Sequence[Action] | Observation, at_last: Settling, **others: Unpack[Others]) -> LogProof:
    """Write a row that is waited for until the end."""
    return LogProof(words=words, log=log, at_once=Watch(), shown=Watch(), at_last=at_last, **others)


def once_shown(
    words: str, log: Sequence[Action] | Observation, expected: Settling, **others: Unpack[Others]
) -> LogProof:
    """Write a row that counts once the log has had time to show what is newer."""
    return LogProof(words=words, log=log, at_once=Watch(), shown=expected, at_last=expected, **others)


CREATED: Final = row("req-created", action="create", after=-9000.0)
BY_ID: Final = [
    always("finished", [row()], COMPLETED),
    always("finished with Error", [row(is_error=True)], NOT_REBOOTED),
    always("Error, and no finish shown", [row(is_error=True, is_finished=None)], NOT_REBOOTED),
    awaited("not finished", [row(is_finished=False)], failed(Reason.NOT_BACK, NOT_BACK)),
    always("events not shown", [row(is_finished=None)], BY_STATE),
    always("ours among others", [row(OTHER_REQUEST, after=9.0, is_error=True), row()], COMPLETED),
    always("by the clock of another node", [row(after=-600.0)], COMPLETED),
    always("by no clock at all", [row(after=-600.0)], COMPLETED, log_time=None),
    # nova/compute/manager.py `reboot_instance` drops the second of two, and its row says Error.
    always("Error, delivered once before", [row(is_error=True), row(OTHER_REQUEST, after=-1.0)], COMPLETED),
    always("Error, delivered once more", [row(OTHER_REQUEST, after=1.0), row(is_error=True)], COMPLETED),
    always("Error, and one of yesterday", [row(is_error=True), row(OTHER_REQUEST, after=-86400.0)], NOT_REBOOTED),
    always("Error, and one a minute before", [row(is_error=True), row(OTHER_REQUEST, after=-60.0)], DISPUTED),
    always("Error, and one long before", [row(is_error=True), row(OTHER_REQUEST, after=-150.0)], NOT_REBOOTED),
    always(
        "Error, and one a minute before, by clocks that were never compared",
        [row(is_error=True), row(OTHER_REQUEST, after=-60.0)],
        DISPUTED,
        log_time=UNCHECKED,
    ),
    always(
        "Error, and one right before, by no clock at all",
        [row(is_error=True), row(OTHER_REQUEST, after=-1.0)],
        COMPLETED,
        log_time=None,
    ),
    always(
        "Error, and another user's before",
        [row(is_error=True), row(OTHER_REQUEST, after=-1.0, user_id="another")],
        NOT_REBOOTED,
    ),
    always(
        "Error, and others in Error", [row(is_error=True), row(OTHER_REQUEST, after=-1.0, is_error=True)], NOT_REBOOTED
    ),
    *(
        always(f"Error, and an action of ours {words}", [row(is_error=True), other], expected)
        for words, other, expected in (
            ("of a name that Nova has not", row(OTHER_REQUEST, after=1.0, action="power-cycle"), NAMELESS),
            ("of such a name before", row(OTHER_REQUEST, after=-9.0, action="restart"), NAMELESS),
            ("of such a name, in Error", row(OTHER_REQUEST, action="power-cycle", is_error=True), NOT_REBOOTED),
            ("of such a name long before", row(OTHER_REQUEST, after=-99.0, action="power-cycle"), NOT_REBOOTED),
            ("that is no reboot", row(OTHER_REQUEST, after=1.0, action="attach_volume"), NOT_REBOOTED),
        )
    ),
]
#: Behind a gateway that hides or replaces Nova's ids.
BY_TIME: Final = [
    one
    for id_words, request_id in (("hidden", None), ("replaced", "req-of-a-gateway"))
    for one in (
        always(f"id {id_words}: since", [row(OTHER_REQUEST)], COMPLETED, request_id=request_id),
        always(f"id {id_words}: Error", [row(OTHER_REQUEST, is_error=True)], NOT_REBOOTED, request_id=request_id),
        awaited(f"id {id_words}: no reboot", [CREATED], NEVER, request_id=request_id),
        awaited(f"id {id_words}: a stop since", [row(OTHER_REQUEST, action="stop")], NEVER, request_id=request_id),
        *(
            once_shown(
                f"id {id_words}: {words} of a name that Nova has not",
                [row(OTHER_REQUEST, after=after, action="power-cycle", is_error=is_error), CREATED],
                NAMELESS,
                request_id=request_id,
            )
            for words, after, is_error in (("since", 5.0, False), ("before", -9.0, False), ("Error", 5.0, True))
        ),
        awaited(
            f"id {id_words}: another user's of a name that Nova has not",
            [row(OTHER_REQUEST, action="power-cycle", user_id="another"), CREATED],
            NEVER,
            request_id=request_id,
        ),
        awaited(
            f"id {id_words}: long before, of a name that Nova has not",
            [row(OTHER_REQUEST, after=-99.0, action="power-cycle"), CREATED],
            NEVER,
            request_id=request_id,
        ),
        always(
            f"id {id_words}: a reboot, and later one of a name that Nova has not",
            [row("req-later", after=9.0, action="power-cycle", is_error=True), row(OTHER_REQUEST)],
            COMPLETED,
            request_id=request_id,
        ),
        awaited(f"id {id_words}: long before", [row(OTHER_REQUEST, after=-99.0)], NEVER, request_id=request_id),
        awaited(
            f"id {id_words}: another user's since",
            [row(OTHER_REQUEST, user_id="another"), CREATED],
            NEVER,
            request_id=request_id,
        ),
        always(
            f"id {id_words}: the user not known",
            [row(OTHER_REQUEST, user_id="another")],
            COMPLETED,
            request_id=request_id,
            user_id=None,
        ),
        once_shown(
            f"id {id_words}: within what nodes differ",
            [row(OTHER_REQUEST, after=-9.0)],
            COMPLETED,
            request_id=request_id,
        ),
        once_shown(
            f"id {id_words}: Error, within what nodes differ",
            [row(OTHER_REQUEST, after=-9.0, is_error=True)],
            NOT_REBOOTED,
            request_id=request_id,
        ),
        once_shown(
            f"id {id_words}: the newest of several, by clocks that were never compared",
            [row(OTHER_REQUEST, after=-9.0, is_error=True), row("req-former", after=-300.0)],
            NOT_REBOOTED,
            request_id=request_id,
            log_time=UNCHECKED,
        ),
        once_shown(
            f"id {id_words}: by a clock that nothing vouches for",
            [row(OTHER_REQUEST, after=-86400.0, is_error=True)],
            NOT_REBOOTED,
            request_id=request_id,
            log_time=UNDATED,
        ),
        always(
            f"id {id_words}: one in Error and one well, and the user not known",
            [row("req-second", after=2.0, is_error=True, user_id="another"), row(OTHER_REQUEST, after=1.0)],
            DISPUTED,
            request_id=request_id,
            user_id=None,
        ),
        once_shown(
            f"id {id_words}: without a clock",
            [row(OTHER_REQUEST, after=-86400.0)],
            COMPLETED,
            request_id=request_id,
            log_time=None,
        ),
        awaited(
            f"id {id_words}: beyond what clocks that were never compared may differ",
            [row(OTHER_REQUEST, after=-901.0)],
            BY_STATE,
            request_id=request_id,
            log_time=UNCHECKED,
        ),
        always(
            f"id {id_words}: delivered twice, the second dropped",
            [row("req-second", after=2.0, is_error=True), row(OTHER_REQUEST, after=1.0)],
            COMPLETED,
            request_id=request_id,
        ),
    )
]
NO_LOG: Final = [
    awaited("without our row", [CREATED], NEVER),
    always("empty", [], BY_STATE),
    always("403", nova(403, "Policy doesn't allow it to be performed."), BY_STATE),
    always("404", gateway(404, "APIGW.0101", "The API does not exist"), BY_STATE),
    awaited("401", keystone(), BY_STATE),
    awaited("401 with an older token", keystone(has_stale_token=True), BY_STATE),
    awaited("408", answer(408), BY_STATE),
    awaited("429", answer(429), BY_STATE),
    awaited("throttled with 403", gateway(403, "APIGW.0308", "slow"), BY_STATE),
    awaited("500", page(500, "Oops"), BY_STATE),
    awaited("503", page(503, "Oops"), BY_STATE),
    awaited("200 that is no log", page(200, "Sign in"), BY_STATE),
    awaited("unanswered", Unanswered("ReadTimeout"), BY_STATE),
    awaited("unsent", Unsent("ConnectError"), BY_STATE),
]


@pytest.mark.parametrize("one", [pytest.param(one, id=one.words) for one in (*BY_ID, *BY_TIME, *NO_LOG)])
def test_proof(one: LogProof) -> None:
    """A row of the log proves the reboot, or disproves it; a log that cannot be read leaves the state."""
    assert one.decide(is_shown=False, is_late=False) == one.at_once
    assert one.decide(is_shown=True, is_late=False) == one.shown
    assert one.decide(is_shown=True, is_late=True) == one.at_last


@pytest.mark.parametrize("one", [pytest.param(one, id=one.words) for one in (*BY_ID, *BY_TIME, *NO_LOG)])
def test_state_alone_is_no_proof_while_it_may_be_of_the_time_before(one: LogProof) -> None:
    """A view that lags shows the server active before its reboot as well; what the log says needs no view."""
    early = one.decide(is_shown=True, is_late=False, is_view_fresh=False)
    assert early == (Watch() if one.shown == BY_STATE else one.shown)
    assert one.decide(is_shown=True, is_late=True, is_view_fresh=False) == one.at_last


@pytest.mark.parametrize("one", [pytest.param(one, id=one.words) for one in (*BY_ID, *BY_TIME, *NO_LOG)])
def test_state_from_before_the_send_is_no_proof(one: LogProof) -> None:
    """A server whose state shows no change since the send is in doubt in the end, if only its state could tell."""
    early = one.decide(is_shown=True, is_late=False, is_untouched=True)
    assert early == (Watch() if one.shown == BY_STATE else one.shown)
    at_last = one.decide(is_shown=True, is_late=True, is_untouched=True)
    assert at_last == (UNTOUCHED if one.at_last == BY_STATE else one.at_last)


def test_server_that_is_gone_has_failed() -> None:
    """A server that was deleted after its reboot was accepted did not come back."""
    assert gone(nova(404, f"Instance {SERVER} could not be found.")) == failed(
        Reason.GONE, f"Instance {SERVER} could not be found."
    )


def test_server_that_is_late_says_where_it_stands() -> None:
    """A server that is still rebooting at the end of the wait is named with both its states."""
    assert late(shown("active", "reboot_started")) == failed(
        Reason.NOT_BACK, "its reboot has not finished: vm_state active, task_state reboot_started"
    )


FAILURE: Final = failed(Reason.ERROR, "Failed to reboot instance")


@pytest.mark.parametrize("may_escalate", [True, False])
@pytest.mark.parametrize("reboot_type", [SOFT, HARD])
@pytest.mark.parametrize("task_state", [None, "deleting"])
def test_whom_hard_may_follow(may_escalate: bool, reboot_type: RebootType, task_state: str | None) -> None:
    """With leave, and after a SOFT alone, a server in error that nothing works on is one to read the log of."""
    progress = sent(answer(202), reboot_type=reboot_type, may_escalate=may_escalate)
    server = shown("error", task_state, fault=FAILURE.detail)
    is_one = may_escalate and reboot_type is SOFT and task_state is None
    assert watch(server, server, progress=progress) == [Watch(), Confirm(FAILURE) if is_one else FAILURE]


@pytest.mark.parametrize("vm_state", ["stopped", "paused", "rescued"])
def test_hard_follows_nothing_but_an_error(vm_state: str) -> None:
    """A server that ended in another state was taken there by somebody: no HARD follows."""
    server = shown(vm_state)
    progress = sent(answer(202), may_escalate=True, may_start=True)
    assert watch(server, server, progress=progress)[1] == failed(Reason.WRONG_STATE, f"it ended in vm_state {vm_state}")


def left(why: str) -> End:
    """Leave the server as it is."""
    return failed(Reason.ERROR, f"{FAILURE.detail}; no HARD followed: {why}")


ENDED_IN_ERROR: Final = row(is_error=True)
WELL: Final = left("the action log shows a reboot that did not end in Error")
UNREAD: Final = left("the action log cannot be read")
UNSHOWN: Final = left("the action log does not show how it ended")
SEND_HARD: Final = Send(reboot_type=HARD)
#: What is decided on time, and what when the wait is over.
ESCALATION: list[tuple[str, Sequence[Action] | Observation, Settling | Send, Settling | Send]] = [
    ("Error", [ENDED_IN_ERROR], SEND_HARD, SEND_HARD),
    ("Error, and no finish shown", [row(is_error=True, is_finished=None)], SEND_HARD, SEND_HARD),
    ("Error after another that went well", [ENDED_IN_ERROR, row(OTHER_REQUEST, after=-9.0)], SEND_HARD, SEND_HARD),
    ("Error, and others in Error since", [row(OTHER_REQUEST, is_error=True), ENDED_IN_ERROR], SEND_HARD, SEND_HARD),
    ("Error, and a stop since", [row(OTHER_REQUEST, action="stop"), ENDED_IN_ERROR], SEND_HARD, SEND_HARD),
    ("Error, and another went well since", [row(OTHER_REQUEST), ENDED_IN_ERROR], WELL, WELL),
    ("Error, and another runs", [row(OTHER_REQUEST, is_finished=False), ENDED_IN_ERROR], WELL, WELL),
    ("Error, and of another it is not shown", [row(OTHER_REQUEST, is_finished=None), ENDED_IN_ERROR], WELL, WELL),
    ("went well", [row()], WELL, WELL),
    ("not finished", [row(is_finished=False)], Watch(), UNSHOWN),
    ("no finish shown", [row(is_finished=None)], Watch(), UNSHOWN),
    ("without our row", [row("req-created", action="create", after=-9.0)], Watch(), UNSHOWN),
    ("without our row, another in Error", [row(OTHER_REQUEST, is_error=True)], Watch(), UNSHOWN),
    ("empty", [], UNREAD, UNREAD),
    ("403", nova(403, "Policy doesn't allow it to be performed."), UNREAD, UNREAD),
    ("404", gateway(404, "APIGW.0101", "The API does not exist"), UNREAD, UNREAD),
    ("429", answer(429), Watch(), UNREAD),
    ("401", keystone(), Watch(), UNREAD),
    ("500", page(500, "Oops"), Watch(), UNREAD),
    ("unanswered", Unanswered("ReadTimeout"), Watch(), UNREAD),
    ("unsent", Unsent("ConnectError"), Watch(), UNREAD),
]


@pytest.mark.parametrize(("log", "on_time", "at_last"), [pytest.param(*row[1:], id=row[0]) for row in ESCALATION])
def test_when_hard_follows(
    log: Sequence[Action] | Observation, on_time: Settling | Send, at_last: Settling | Send
) -> None:
    """HARD follows where the log says that the SOFT ended in Error and that no reboot since did not; never else."""
    read = tuple(log) if isinstance(log, Sequence) else log
    assert decide_escalation(read, accepted(), FAILURE, is_late=False) == on_time
    assert decide_escalation(read, accepted(), FAILURE, is_late=True) == at_last


def test_soft_whose_id_is_unknown() -> None:
    """Where no row is known to be ours, none proves that our SOFT has failed."""
    assert decide_escalation((ENDED_IN_ERROR,), accepted(None), FAILURE, is_late=False) == Watch()
    assert decide_escalation((ENDED_IN_ERROR,), accepted(None), FAILURE, is_late=True) == UNSHOWN


@pytest.mark.parametrize("is_late", [True, False])
def test_check(is_late: bool) -> None:
    """A check that is passed verifies; one that is not is called again until its time is over, or it is no check."""
    unmet = failed(Reason.VERIFY_FAILED, "it gave False")
    assert decide_check(None, COMPLETED, is_late=is_late) == End(outcome=Outcome.VERIFIED, proof=Proof.ACTION)
    expected = replace(unmet, proof=Proof.ACTION) if is_late else Watch()
    assert decide_check(Unmet("it gave False"), COMPLETED, is_late=is_late) == expected
    final = decide_check(Unmet("it gave False", is_final=True), BY_STATE, is_late=is_late)
    assert final == replace(unmet, proof=Proof.STATE)


def test_row_without_a_finish_may_yet_be_shown_to_have_failed() -> None:
    """Where rows show no finish, a log that lags may show the Error later than the states show the server back."""
    found = FoundRow(row(is_finished=None))
    waits, ends = (
        decide_proof(
            (found.row,),
            found,
            accepted(),
            can_date=True,
            is_view_fresh=True,
            is_untouched=False,
            is_log_fresh=is_log_fresh,
            is_late=is_late,
        )
        for is_log_fresh, is_late in ((False, False), (False, True))
    )
    assert (waits, ends) == (Watch(), BY_STATE)
