"""Whether a server has rebooted since a moment, and what follows from that: a table, with no event loop."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from bulkrestart.core.clock import SKEW, LogMoment
from bulkrestart.core.decide import PASSING_DELAY
from bulkrestart.core.decision import Decision, End, Look, Send
from bulkrestart.core.history import decide_since, last_reboot, needs_log, with_row
from bulkrestart.core.model import Action, Log, Outcome, Proof, Reason, Server
from bulkrestart.core.observation import Observation, Sighting, Unanswered, Unsent
from tests.core.samples import (
    HARD,
    OTHER_REQUEST,
    REBOOTING,
    REQUEST,
    SERVER,
    SOFT,
    answer,
    begun,
    conflict,
    gateway,
    keystone,
    nova,
    page,
    sent,
)

SINCE: Final = 1_800_000_000.0
#: The same in a log whose clock agrees with `Date`.
MOMENT: Final = LogMoment(earliest=SINCE - SKEW, latest=SINCE + SKEW)
IDLE: Final = Server(id=SERVER, vm_state="active", locked=False)
CREATED: Final = Action(action="create", request_id="req-created", start_time=SINCE - 86_400.0)
STOP: Final = Action(action="stop", request_id="req-stop", start_time=SINCE + 30.0, is_finished=True)
REBUILD: Final = Action(action="rebuild", request_id="req-rebuild", start_time=SINCE + 40.0, is_finished=True)
GONE: Final = nova(404, f"Instance {SERVER} could not be found.")
MISSING_ROW: Final = nova(404, f"Action {REQUEST} not found")

WAIT: Final = Look(is_unresolved=False, delay=PASSING_DELAY)
SEND: Final = Send(reboot_type=SOFT)


def reboot(
    after: float, *, request_id: str = REQUEST, is_error: bool = False, is_finished: bool | None = True
) -> Action:
    """Give the row of a reboot that began so many seconds after `since`."""
    return Action(
        action="reboot",
        request_id=request_id,
        start_time=SINCE + after,
        is_error=is_error,
        is_finished=is_finished,
    )


def server(updated: float | None = None, **states: str) -> Server:
    """Give an idle server that was last saved so many seconds after `since`, None for one that does not show it."""
    task_state = states.get("task_state")
    moment = None if updated is None else SINCE + updated
    return Server(id=SERVER, vm_state="active", locked=False, task_state=task_state, updated=moment)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (server(None), True),
        (server(0.0), True),
        (server(-SKEW), True),
        (server(-SKEW - 0.001), False),
        (server(-86_400.0), False),
        (server(86_400.0), True),
        # A task saves the server when it begins, so this cannot be; if it is, its `updated` is not to be believed.
        (server(-86_400.0, task_state="image_snapshot"), True),
        (server(None, task_state="migrating"), True),
        (GONE, False),
        (page(502, "Bad Gateway"), False),
        (Unanswered("ReadTimeout"), False),
        (Unsent("ConnectError"), False),
    ],
)
def test_who_needs_the_log(seen: Server | Observation, expected: bool) -> None:
    """`updated` tells alone of an idle server that nobody has touched since, less what clocks may differ."""
    assert needs_log(seen, MOMENT) is expected


@pytest.mark.parametrize("task_state", REBOOTING)
@pytest.mark.parametrize("updated", [None, -86_400.0, 10.0])
def test_a_reboot_under_way_is_waited_for_first(task_state: str, updated: float | None) -> None:
    """A log whose newest reboot has not ended says nothing yet, so it is not asked."""
    assert needs_log(server(updated, task_state=task_state), MOMENT) is False


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ((), None),
        ((CREATED,), None),
        ((REBUILD, STOP, CREATED), None),
        ((reboot(-1.0), CREATED), None),
        # A row names the whole second.
        ((reboot(-0.999), CREATED), reboot(-0.999)),
        ((reboot(0.0), CREATED), reboot(0.0)),
        ((reboot(9.0), CREATED), reboot(9.0)),
        ((reboot(9.0, is_error=True), CREATED), None),
        # One that failed does not hide one that did not.
        (
            (reboot(9.0, is_error=True), reboot(5.0, request_id=OTHER_REQUEST), CREATED),
            reboot(5.0, request_id=OTHER_REQUEST),
        ),
        ((reboot(9.0), reboot(5.0, request_id=OTHER_REQUEST)), reboot(9.0)),
        ((reboot(9.0, is_finished=False), CREATED), reboot(9.0, is_finished=False)),
        ((reboot(9.0, is_finished=None), CREATED), reboot(9.0, is_finished=None)),
    ],
)
def test_last_reboot(log: Log, expected: Action | None) -> None:
    """Only reboots count that began at the moment or later, and not those that ended in Error; the newest of them."""
    assert last_reboot(log, SINCE) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # The single row shows its events; the rest of the log keeps its place.
        ((reboot(9.0),), (STOP, reboot(9.0), CREATED)),
        ((reboot(9.0, is_error=True),), (STOP, reboot(9.0, is_error=True), CREATED)),
        ((reboot(9.0, is_finished=False),), (STOP, reboot(9.0, is_finished=False), CREATED)),
        # Another row than the one that was asked for says nothing.
        ((reboot(9.0, request_id=OTHER_REQUEST),), (STOP, reboot(9.0, is_finished=None), CREATED)),
        ((), (STOP, reboot(9.0, is_finished=None), CREATED)),
        # Kept from us for good: the list is what there is.
        (answer(403), (STOP, reboot(9.0, is_finished=None), CREATED)),
        (gateway(404, "APIGW.0101", "The API does not exist"), (STOP, reboot(9.0, is_finished=None), CREATED)),
        (MISSING_ROW, (STOP, reboot(9.0, is_finished=None), CREATED)),
        # It fails now, so nothing is known now.
        (page(502, "Bad Gateway"), page(502, "Bad Gateway")),
        (answer(429), answer(429)),
        (keystone(), keystone()),
        (Unanswered("ReadTimeout"), Unanswered("ReadTimeout")),
        (Unsent("ConnectError"), Unsent("ConnectError")),
    ],
    ids=str,
)
def test_row_that_was_read_singly(row: Log | Observation, expected: Log | Observation) -> None:
    """A row that shows its finish takes its place in the log; one that fails now makes the log as good as none."""
    assert with_row((STOP, reboot(9.0, is_finished=None), CREATED), row) == expected


def satisfied(proof: Proof, request_id: str = REQUEST, after: float = 69.0) -> End:
    """Give the outcome of a server that has rebooted."""
    moment = datetime.fromtimestamp(SINCE + after, UTC).isoformat(timespec="seconds")
    return End(outcome=Outcome.SATISFIED, detail=f"{request_id} began at {moment}", proof=proof)


def uncertain(after: float) -> End:
    """Give the outcome of a server that rebooted at about that moment."""
    began, earliest, latest = (
        datetime.fromtimestamp(SINCE + seconds, UTC).isoformat(timespec="seconds") for seconds in (after, -SKEW, SKEW)
    )
    when = f"`since` is between {earliest} and {latest}"
    detail = f"{REQUEST} began at {began} by the action log's clock, on which {when}"
    return End(outcome=Outcome.SKIPPED, reason=Reason.HISTORY_UNCERTAIN, detail=detail)


def nameless(after: float) -> End:
    """Give the outcome of a server with an action of a name that is not one of Nova's."""
    began = datetime.fromtimestamp(SINCE + after, UTC).isoformat(timespec="seconds")
    detail = f"{REQUEST} began at {began}, and its name in the action log does not show whether it was a reboot"
    return End(outcome=Outcome.SKIPPED, reason=Reason.HISTORY_UNCERTAIN, detail=detail)


def unreadable(why: str, outcome: Outcome = Outcome.SKIPPED) -> End:
    """Give the outcome of a server whose log does not tell."""
    detail = f"the action log does not tell whether it has rebooted: {why}"
    return End(outcome=outcome, reason=Reason.HISTORY_UNREADABLE, detail=detail)


@pytest.mark.parametrize(
    ("seen", "log", "expected"),
    [
        # Without a log: what the server shows decides, as for any look.
        (IDLE, None, SEND),
        (server(task_state="rebooting"), None, WAIT),
        (GONE, None, End(outcome=Outcome.REFUSED, reason=Reason.NOT_FOUND, detail=GONE.words)),
        (page(502, "Bad Gateway"), None, WAIT),
        (Unanswered("ReadTimeout"), None, WAIT),
        # It has rebooted.
        (IDLE, (reboot(69.0), CREATED), satisfied(Proof.ACTION)),
        (IDLE, (reboot(60.0), CREATED), satisfied(Proof.ACTION, after=60.0)),
        (IDLE, (reboot(69.0, is_finished=None), CREATED), satisfied(Proof.STATE)),
        (server(task_state="image_snapshot"), (reboot(69.0), CREATED), satisfied(Proof.ACTION)),
        (
            IDLE,
            (reboot(72.0, is_error=True), reboot(69.0, request_id=OTHER_REQUEST)),
            satisfied(Proof.ACTION, OTHER_REQUEST),
        ),
        (IDLE, (replace(reboot(9.0), action="power-cycle"), reboot(69.0), CREATED), satisfied(Proof.ACTION)),
        # Its reboot is under way: settled first.
        (IDLE, (reboot(9.0, is_finished=False), CREATED), WAIT),
        # It has not: what the server shows decides.
        (IDLE, (CREATED,), SEND),
        (IDLE, (reboot(-61.0), CREATED), SEND),
        # By the clock of another node it may have.
        (IDLE, (reboot(-1.0), CREATED), uncertain(-1.0)),
        (IDLE, (reboot(-60.9, is_finished=None), CREATED), uncertain(-60.9)),
        (IDLE, (reboot(0.0), CREATED), uncertain(0.0)),
        (IDLE, (reboot(9.0), CREATED), uncertain(9.0)),
        (IDLE, (reboot(59.0, is_finished=None), CREATED), uncertain(59.0)),
        # By a name that only this cloud has it may have.
        *(
            (IDLE, (replace(reboot(after), action=name), CREATED), nameless(after))
            for after, name in ((9.0, "power-cycle"), (-60.9, "restart"), (900.0, "neustart"))
        ),
        (IDLE, (replace(reboot(-61.0), action="power-cycle"), CREATED), SEND),
        (IDLE, (replace(reboot(9.0, is_error=True), action="power-cycle"), CREATED), SEND),
        (IDLE, (reboot(-30.0, is_finished=False), CREATED), WAIT),
        (IDLE, (reboot(-30.0, is_error=True), CREATED), SEND),
        (server(task_state="rebooting"), (reboot(-30.0), CREATED), WAIT),
        (IDLE, (STOP, CREATED), SEND),
        (IDLE, (REBUILD, CREATED), SEND),
        (IDLE, (reboot(9.0, is_error=True), CREATED), SEND),
        (IDLE, (reboot(9.0, is_error=True, is_finished=False), CREATED), SEND),
        (server(task_state="image_snapshot"), (CREATED,), WAIT),
        (
            Server(id=SERVER, vm_state="active", locked=True),
            (CREATED,),
            End(outcome=Outcome.SKIPPED, reason=Reason.LOCKED, detail="vm_state active, task_state None, locked"),
        ),
        # Its log is kept from us for good.
        (IDLE, answer(403), unreadable("403")),
        (IDLE, page(404, "Not Found"), WAIT),
        (IDLE, gateway(404, "APIGW.0101", "The API does not exist"), unreadable("404 APIGW.0101")),
        (IDLE, (), unreadable("it is empty")),
        # Its log fails now.
        (IDLE, page(500, "Oops"), WAIT),
        (IDLE, page(503, "Oops"), WAIT),
        # A 200 that is no log: a proxy's page.
        (IDLE, page(200, "Log in"), WAIT),
        (IDLE, Unanswered("ReadTimeout"), WAIT),
        (IDLE, Unsent("ConnectError"), WAIT),
        # These are about us.
        (IDLE, answer(429), Look(is_unresolved=False)),
        (IDLE, answer(413), Look(is_unresolved=False)),
        (IDLE, keystone(has_stale_token=True), WAIT),
    ],
    ids=str,
)
def test_decision(seen: Server | Observation, log: Log | Observation | None, expected: Decision) -> None:
    """Every row of what a look can show, before anything was sent."""
    sighting = Sighting(server=seen, log=log, at=100.0)

    assert decide_since(sighting, MOMENT, sent()) == expected


def test_log_that_refuses_our_token() -> None:
    """A look that refuses our token is repeated twice, and then stops the run: it says nothing of the history."""
    sighting = Sighting(server=IDLE, log=keystone(), at=100.0)
    progress = sent()

    for _ in range(2):
        again = decide_since(sighting, MOMENT, progress)
        assert isinstance(again, Look)
        progress.look(sighting, again)
    last = decide_since(sighting, MOMENT, progress)

    assert isinstance(last, End)
    assert (last.outcome, last.reason) == (Outcome.SKIPPED, Reason.UNAUTHORIZED)
    assert last.stop is not None


@pytest.mark.parametrize("log", [answer(403), ()], ids=str)
def test_what_was_sent_before_is_said(log: Log | Observation) -> None:
    """A server that the cloud refused before is `refused` when its log does not tell, and not `skipped`."""
    progress = sent(conflict("task_state", "migrating"))

    decision = decide_since(Sighting(server=IDLE, log=log, at=100.0), MOMENT, progress)

    assert isinstance(decision, End)
    assert (decision.outcome, decision.reason) == (Outcome.REFUSED, Reason.HISTORY_UNREADABLE)


@pytest.mark.parametrize(
    ("vm_state", "escalate", "expected"),
    [
        ("paused", True, Send(reboot_type=HARD)),
        ("active", True, Send(reboot_type=SOFT)),
        (
            "paused",
            False,
            End(outcome=Outcome.SKIPPED, reason=Reason.WRONG_STATE, detail="vm_state paused, task_state None"),
        ),
    ],
)
def test_escalation(vm_state: str, escalate: bool, expected: Decision) -> None:
    """A server that has not rebooted is escalated as without `since`, with leave and not without."""
    progress = sent(may_escalate=escalate)
    sighting = Sighting(server=Server(id=SERVER, vm_state=vm_state), log=(CREATED,), at=100.0)

    assert decide_since(sighting, MOMENT, progress) == expected


@pytest.mark.parametrize(
    ("log", "before", "outcome"),
    [
        (page(500, "Oops"), (), Outcome.SKIPPED),
        (Unanswered("ReadTimeout"), (), Outcome.SKIPPED),
        (page(500, "Oops"), (conflict("task_state", "migrating"),), Outcome.REFUSED),
    ],
    ids=str,
)
def test_log_that_fails_until_the_end(log: Observation, before: tuple[Observation, ...], outcome: Outcome) -> None:
    """A log that fails for all of `server_timeout` ends its server like one that is kept from us."""
    progress = sent(*before)
    sighting = Sighting(server=IDLE, log=log, at=100.0)
    progress.look(sighting, decide_since(sighting, MOMENT, progress))

    end = progress.out_of_time()

    assert (end.outcome, end.reason) == (outcome, Reason.HISTORY_UNREADABLE)


def test_log_that_is_read_again() -> None:
    """A log that failed once does not stand against a server that is busy until the end."""
    progress = sent()
    for sighting in (
        Sighting(server=IDLE, log=page(500, "Oops"), at=100.0),
        Sighting(server=server(task_state="migrating"), log=(CREATED,), at=102.0),
    ):
        progress.look(sighting, decide_since(sighting, MOMENT, progress))

    assert progress.out_of_time() == End(
        outcome=Outcome.SKIPPED, reason=Reason.BUSY, detail="vm_state active, task_state migrating"
    )


def test_decisions_change_nothing() -> None:
    """A decision is a value: the progress is as it was."""
    for log in (None, (), (reboot(9.0),), answer(403), page(500, "Oops")):
        progress = sent()

        decide_since(Sighting(server=IDLE, log=log, at=100.0), MOMENT, progress)

        assert progress == begun(began=100.0)
