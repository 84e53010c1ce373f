"""What of a server outlives the process: what is finished, what is taken up again, and that nothing is sent blindly."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkrestart.core.checkpoint import Checkpoint, Contents, JournalHeader, LogFacts, RunIdentity, leaves_nothing_to_do
from bulkrestart.core.clock import UNCHECKED_SKEW, LogTime
from bulkrestart.core.decide import decide
from bulkrestart.core.decision import Accept, Decision, End, Look, Send
from bulkrestart.core.look import LATE_GRACE, decide_look
from bulkrestart.core.model import Action, Attempt, Log, Outcome, Proof, Reason, Server, ServerResult, Stop, StopReason
from bulkrestart.core.observation import Observation, Sighting, Unanswered, Unsent
from bulkrestart.core.options import Options
from bulkrestart.core.progress import Progress
from bulkrestart.core.sends import Fate, Sends
from bulkrestart.core.target import Target
from tests.core.samples import (
    HARD,
    OTHER_REQUEST,
    REQUEST,
    SERVER,
    SOFT,
    answer,
    begun,
    conflict,
    ecs,
    keystone,
    nova,
    page,
    sent,
)

#: The cloud's clock at the sends, as `Date` shows it.
CLOUD_TIME: Final = (1_800_000_000.0, 1_800_000_002.0)
#: When the next process began its clock, and when it takes a server up; the former's are about 100.
LATER: Final = 50_000.0
NOW: Final = 50_010.0

ALL: Final[frozenset[Reason | None]] = frozenset({None, *Reason})
NONE: Final[frozenset[Reason | None]] = frozenset()

ACCEPTED: Final = answer(202, b"", {"x-compute-request-id": REQUEST})
LOST: Final = Attempt(0.0, "unanswered: the process ended before the answer", None)


def options(*, wait: bool = True, escalate: bool = False, start_stopped: bool = False) -> Options:
    """Give what the next process is asked for."""
    return Options(
        reboot_type=SOFT,
        wait=wait,
        max_attempts=5,
        request_timeout=60.0,
        server_timeout=900.0,
        wait_timeout=600.0,
        escalate=escalate,
        start_stopped=start_stopped,
        max_at_once=50,
    )


def taken_up(progress: Progress, end: End | None = None) -> Progress:
    """Write a server down, and take it up in another process."""
    return Checkpoint.of(progress, 130.0, end).resume(options().order(LATER), now=NOW)


GOALS: Final = (Outcome.ACCEPTED, Outcome.COMPLETED, Outcome.VERIFIED)
#: The reasons that leave something to do, by goal. Every other one has nothing left.
LEFT: Final[dict[Outcome, dict[Outcome, frozenset[Reason | None]]]] = {
    Outcome.ACCEPTED: {Outcome.ACCEPTED: NONE, Outcome.COMPLETED: ALL, Outcome.VERIFIED: ALL},
    Outcome.COMPLETED: {Outcome.ACCEPTED: NONE, Outcome.COMPLETED: NONE, Outcome.VERIFIED: ALL},
    Outcome.VERIFIED: dict.fromkeys(GOALS, NONE),
    Outcome.SATISFIED: dict.fromkeys(GOALS, NONE),
    Outcome.FAILED: dict.fromkeys(GOALS, NONE),
    Outcome.SKIPPED: dict.fromkeys(GOALS, ALL),
    # A server that is gone is not looked for again.
    Outcome.IN_DOUBT: dict.fromkeys(GOALS, ALL - {Reason.GONE}),
    # Refusals of us, or of the run, as against those of the server.
    Outcome.REFUSED: dict.fromkeys(
        GOALS,
        frozenset(
            {
                *(Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.WRONG_ENDPOINT),
                *(Reason.STOPPED, Reason.PARKED, Reason.HISTORY_UNREADABLE, Reason.HISTORY_UNCERTAIN),
            }
        ),
    ),
}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("reason", [None, *Reason])
@pytest.mark.parametrize("outcome", Outcome)
def test_what_is_finished(outcome: Outcome, reason: Reason | None, goal: Outcome) -> None:
    """Every outcome with every reason is finished, or is taken up again; a report and a journal agree on it."""
    end = End(outcome=outcome, reason=reason)
    checkpoint = Checkpoint.of(sent(), 130.0, end)

    assert checkpoint.is_finished(goal) is (reason not in LEFT[outcome][goal])
    assert leaves_nothing_to_do(checkpoint.result(), goal) is checkpoint.is_finished(goal)


@pytest.mark.parametrize("goal", GOALS)
def test_server_without_an_outcome_is_not_finished(goal: Outcome) -> None:
    """Not even one that was accepted."""
    assert not Checkpoint.of(sent(ACCEPTED), 130.0).is_finished(goal)


def test_server_that_was_not_sent_to() -> None:
    """What was come to and not sent is sent as if for the first time, by the clock of this process."""
    progress = begun(run_began=90.0, began=100.0)

    assert taken_up(progress) == begun(run_began=LATER, began=LATER + 10.0)


def test_send_in_flight() -> None:
    """A send whose answer the journal does not hold is one whose reply was lost just now, and that may come late."""
    progress = begun(run_began=90.0, began=100.0)
    progress.sends.leave(104.0, CLOUD_TIME)

    checkpoint = Checkpoint.of(progress, 130.0)

    assert checkpoint.sent_at == 14.0
    assert checkpoint.resume(options().order(LATER), now=NOW) == replace(
        begun(run_began=LATER, began=LATER + 10.0),
        sends=Sends(
            attempts=(replace(LOST, sent_at=14.0),),
            has_reached=True,
            doubts=1,
            since=CLOUD_TIME,
            is_since_former=True,
            is_former=True,
        ),
        fate=Fate(is_unresolved=True, answered_at=NOW, may_come_late=True),
        words="the process ended before the answer",
    )


def test_send_in_flight_after_one_of_unknown_fate() -> None:
    """The earliest send that may be ours stays the one from which on a reboot may be ours."""
    progress = sent(Unanswered("ReadError"), cloud_time=CLOUD_TIME)
    progress.sends.leave(200.0, (CLOUD_TIME[0] + 100.0, CLOUD_TIME[1] + 100.0))

    resumed = taken_up(progress)

    assert resumed.sends.since == CLOUD_TIME
    assert [attempt.answer for attempt in resumed.sends.attempts] == ["unanswered: ReadError", LOST.answer]
    assert resumed.sends.doubts == 2


@pytest.mark.parametrize(
    ("seen", "may_come_late", "last_status"),
    [
        (Unanswered("ReadError"), False, None),
        (Unanswered("ReadTimeout", may_come_late=True), True, None),
        (nova(500, "UnexpectedTaskStateError"), False, 500),
        (page(504, "Gateway Time-out"), True, 504),
        (conflict("task_state", "rebooting"), False, 409),
    ],
    ids=str,
)
def test_send_of_unknown_fate(seen: Observation, may_come_late: bool, last_status: int | None) -> None:
    """Whatever was known of a send is known again; only the time that has passed is not."""
    before = sent(seen, cloud_time=CLOUD_TIME)
    before.fate = replace(before.fate, was_seen_rebooting=True, readable_looks=3)

    after = taken_up(before)

    assert after == replace(
        before,
        order=replace(before.order, run_began=LATER),
        # By a clock that was set back meanwhile it began later than now.
        began=NOW,
        sends=replace(before.sends, is_since_former=True, is_former=True, spent=0),
        fate=replace(before.fate, answered_at=NOW, readable_looks=0),
    )
    assert after.fate.is_unresolved
    assert (after.fate.may_come_late, after.sends.last_status) == (may_come_late, last_status)


@pytest.mark.parametrize("reason", [Reason.UNANSWERED, Reason.INTERRUPTED])
def test_server_in_doubt(reason: Reason) -> None:
    """What was given up in doubt is looked at before anything is sent: the log may tell by now."""
    before = sent(Unanswered("ReadError"), cloud_time=CLOUD_TIME)
    end = End(outcome=Outcome.IN_DOUBT, reason=reason)
    before.look(Sighting(server=Server(id=SERVER), log=None, at=101.0), end)
    assert not before.fate.is_unresolved

    after = taken_up(before, end)

    assert after.fate.is_unresolved
    assert after.sends.since == CLOUD_TIME
    assert after.sends.attempts == before.sends.attempts


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (Accept(request_id=REQUEST), (REQUEST, None, CLOUD_TIME)),
        (Accept(request_id=REQUEST, proof=Proof.STATE), (REQUEST, Proof.STATE, CLOUD_TIME)),
        # Without an id of the log the action's row is found by the time of the send.
        (Accept(proof=Proof.STATE), (None, Proof.STATE, CLOUD_TIME)),
    ],
)
@pytest.mark.parametrize("end", [None, End(outcome=Outcome.ACCEPTED)])
def test_server_that_was_accepted(
    accept: Accept, end: End | None, expected: tuple[str | None, Proof | None, tuple[float, float] | None]
) -> None:
    """An accepted one stays accepted, with all that finds its row in the action log; nothing is unresolved."""
    before = begun(reboot_type=HARD, run_began=90.0, began=100.0)
    before.sends.leave(101.0, CLOUD_TIME)
    before.answer(102.0, ACCEPTED, accept)

    after = taken_up(before, end)

    assert after.accepted is not None
    assert (after.accepted.request_id, after.accepted.proof, after.sends.since) == expected
    assert (after.fate.is_unresolved, after.sends.in_flight_since) == (False, None)
    # Its own type, not the one that the next send to another server asks for.
    assert after.reboot_type is HARD


@pytest.mark.parametrize("seen", [keystone(), answer(403)], ids=str)
def test_server_that_was_refused_for_us(seen: Observation) -> None:
    """A refusal of us leaves nothing unresolved: it is sent again, and what was answered stays in its account."""
    before = sent(seen, cloud_time=CLOUD_TIME)

    after = taken_up(before, End(outcome=Outcome.REFUSED, reason=Reason.FORBIDDEN))

    assert after.sends.attempts == before.sends.attempts
    assert (after.sends.has_reached, after.fate.is_unresolved, after.accepted) == (True, False, None)
    assert (after.sends.spent, after.sends.refused, after.sends.stale) == (0, 0, 0)


def test_attempts_count_anew() -> None:
    """A server that has used up its sends may be sent to as often again, and its account goes on."""
    before = sent(*(ecs(501, "Ecs.0603", "The commands are being executed."),) * 5)
    assert before.sends.spent == 5

    after = taken_up(before, End(outcome=Outcome.SKIPPED, reason=Reason.UNREACHABLE))

    assert (after.sends.spent, len(after.sends.attempts)) == (0, 5)


def test_lost_send_does_not_count() -> None:
    """The send that the former process died over does not count against this one's `max_attempts`."""
    progress = sent()
    progress.sends.leave(101.0, CLOUD_TIME)

    assert taken_up(progress).sends.spent == 0


@pytest.mark.parametrize(("escalate", "start_stopped"), [(False, False), (True, False), (True, True)])
def test_leave_is_given_anew(escalate: bool, start_stopped: bool) -> None:
    """What may be escalated or started is what this process was told, not the former."""
    checkpoint = Checkpoint.of(sent(may_escalate=not escalate, may_start=not start_stopped), 130.0)

    progress = checkpoint.resume(options(escalate=escalate, start_stopped=start_stopped).order(LATER), now=NOW)

    assert (progress.order.may_escalate, progress.order.may_start) == (escalate, start_stopped)


def test_escalation_is_decided_anew() -> None:
    """A server that was to be sent HARD, and was not, is sent what is asked for; it may have been started meanwhile."""
    progress = sent(conflict("vm_state", "paused"), may_escalate=True)
    paused = Sighting(server=Server(id=SERVER, vm_state="paused"), log=None, at=100.0)
    progress.look(paused, decide_look(paused, progress))
    assert progress.reboot_type is HARD

    assert taken_up(progress).reboot_type is SOFT


def test_escalated_send_of_unknown_fate_keeps_its_type() -> None:
    """The grace that a send is given is that of the type which was sent."""
    progress = sent(Unanswered("ReadError"), reboot_type=HARD)

    assert taken_up(progress).reboot_type is HARD


def test_result_of_what_is_finished() -> None:
    """A finished server's result is the one that the former process gave."""
    progress = sent(conflict("task_state", "migrating"), ACCEPTED, cloud_time=CLOUD_TIME)
    end = End(outcome=Outcome.COMPLETED, proof=Proof.ACTION, detail="as it was")

    assert Checkpoint.of(progress, 130.0, end).result() == progress.result(130.0, end)
    assert Checkpoint.of(progress, 130.0, end).result().elapsed == 30.0


def test_stop_is_not_kept() -> None:
    """An outcome that stopped its run does not stop the run of the next process."""
    end = End(outcome=Outcome.REFUSED, reason=Reason.UNAUTHORIZED, stop=Stop(StopReason.UNAUTHORIZED, "no token"))

    assert Checkpoint.of(sent(), 130.0, end).end == End(outcome=Outcome.REFUSED, reason=Reason.UNAUTHORIZED)


def test_report_of_a_journal() -> None:
    """A journal alone accounts for every id in order: what has its outcome, what was under way, what was not begun."""
    in_flight = begun(server_id="in-flight")
    in_flight.sends.leave(1.0, CLOUD_TIME)
    waited_for = replace(sent(ACCEPTED), server_id="waited-for")
    back = replace(sent(ACCEPTED), server_id="back")
    checkpoints = [
        Checkpoint.of(in_flight, 5.0),
        Checkpoint.of(waited_for, 105.0),
        Checkpoint.of(back, 130.0, End(outcome=Outcome.COMPLETED, proof=Proof.ACTION)),
    ]
    identity = RunIdentity(target=Target(endpoint="https://cloud.test/v2.1/p", project_id="p"), reboot_type=SOFT)
    contents = Contents(
        header=JournalHeader(identity=identity, began=1000.0, facts=LogFacts()),
        ids=("not-begun", "waited-for", "in-flight", "back"),
        checkpoints={checkpoint.server_id: checkpoint for checkpoint in checkpoints},
        written=1040.0,
    )

    over, meanwhile = (contents.report(is_over=is_over) for is_over in (True, False))

    assert [result.server_id for result in over] == list(contents.ids)
    assert [(result.outcome, result.reason) for result in over] == [
        ("skipped", "stopped"),
        ("accepted", "interrupted"),
        ("in_doubt", "interrupted"),
        ("completed", None),
    ]
    assert [(result.outcome, result.reason) for result in meanwhile] == [
        ("skipped", "not_started"),
        ("accepted", None),
        ("in_doubt", "in_flight"),
        ("completed", None),
    ]
    assert (over.elapsed, over.stopped) == (40.0, None)
    assert over["back"] == ServerResult(
        server_id="back",
        outcome=Outcome.COMPLETED,
        reboot_type=SOFT,
        attempts=back.sends.attempts,
        request_id=REQUEST,
        proof=Proof.ACTION,
        elapsed=30.0,
    )


def names(*kinds: type[Checkpoint | Progress | Sends | Fate]) -> set[str]:
    """Give the names of the fields of these checkpoints."""
    return {field.name for kind in kinds for field in fields(kind)}


def test_what_is_not_recorded_counts_anew() -> None:
    """A field of a server's way is recorded, or is named here because whoever resumes begins it anew."""
    anew = {
        # Leave, counts and looks of a process.
        *("order", "is_since_former", "is_former", "spent", "readable_looks", "refused", "stale", "last_look"),
        # What stands again only when a send has not left.
        "before",
        # Moments of a clock that is gone; what matters of them stands under another name.
        *("answered_at", "in_flight_since"),
        # It stands as the end.
        "back",
    }
    # What they hold stands by itself.
    parts = {"sends", "fate"}
    held = names(Progress, Sends, Fate) - parts

    assert held == (names(Checkpoint) & held) | anew


#: What sends and looks can meet: one of each kind that the tables tell apart.
SEEN: Final[tuple[Observation, ...]] = (
    ACCEPTED,
    answer(202),
    Unsent("ConnectError"),
    Unanswered("ReadError"),
    Unanswered("ReadTimeout", may_come_late=True),
    nova(500, "UnexpectedTaskStateError"),
    page(504, "Gateway Time-out"),
    page(200, "Log in"),
    answer(429),
    ecs(202, "Common.0024", "Flow limit exceeded."),
    ecs(501, "Ecs.0603", "The commands are being executed."),
    keystone(),
    keystone(has_stale_token=True),
    answer(403),
    answer(302),
    conflict("task_state", "rebooting"),
    conflict("task_state", "migrating"),
    conflict("vm_state", "stopped"),
    nova(409, f"Instance {SERVER} is locked"),
    nova(404, f"Instance {SERVER} could not be found."),
)
CREATED: Final = Action(action="create", request_id="req-created", start_time=0.0)
BEFORE: Final = Action(action="reboot", request_id="req-before", start_time=CLOUD_TIME[0] - 4000.0, user_id="me")
OURS: Final = Action(action="reboot", request_id=OTHER_REQUEST, start_time=CLOUD_TIME[1] + 60.0, user_id="me")
SILENT: Final[tuple[Log | Observation | None, ...]] = (
    *(None, (), (CREATED,), (BEFORE, CREATED)),
    *(answer(403), page(404, "Not Found"), page(502, "Bad Gateway"), answer(429), Unanswered("ReadTimeout")),
)
SERVERS: Final[tuple[Server | Observation, ...]] = (
    Server(id=SERVER, vm_state="active"),
    Server(id=SERVER, vm_state="active", task_state="reboot_started"),
    Server(id=SERVER, vm_state="active", task_state="migrating"),
    Server(id=SERVER, vm_state="stopped"),
    Server(id=SERVER, vm_state="paused"),
    Server(id=SERVER, vm_state="active", locked=True),
    Server(id=SERVER),
    *(answer(403), page(502, "Bad Gateway"), Unanswered("ReadTimeout")),
    nova(404, f"Instance {SERVER} could not be found."),
)


def sighting(progress: Progress, server: Server | Observation, log: Log | Observation | None, at: float) -> Sighting:
    """Look at a server at a moment; the log is read only where a look reads it."""
    log_time = (
        None
        if progress.sends.since is None
        else LogTime(progress.sends.since, progress.sends.since[1] + 7200.0, UNCHECKED_SKEW)
    )
    read = log if progress.fate.is_unresolved else None
    return Sighting(server=server, log=read, at=at, is_log_proven=True, user_id="me", log_time=log_time)


@st.composite
def ways(draw: st.DrawFn) -> tuple[Progress, End | None]:
    """Drive a server through a way that a run can take, and leave it anywhere: also with a send in flight."""
    now = 100.0
    progress = begun(
        reboot_type=draw(st.sampled_from((SOFT, HARD))),
        may_escalate=draw(st.booleans()),
        may_start=draw(st.booleans()),
        run_began=90.0,
        began=now,
    )
    decision: Decision = Send(reboot_type=progress.reboot_type)
    for _ in range(draw(st.integers(0, 12))):
        now += draw(st.sampled_from((0.1, 5.0, 100.0)))
        if isinstance(decision, Send):
            moment = now - 100.0
            progress.sends.leave(now, draw(st.sampled_from((None, (CLOUD_TIME[0] + moment, CLOUD_TIME[1] + moment)))))
            if draw(st.integers(0, 4)) == 0:
                break
            seen = draw(st.sampled_from(SEEN))
            decision = decide(seen, progress)
            progress.answer(now, seen, decision)
        elif isinstance(decision, Look):
            log = draw(st.sampled_from((*SILENT, (OURS, CREATED))))
            look = sighting(progress, draw(st.sampled_from(SERVERS)), log, now)
            decision = decide_look(look, progress)
            progress.look(look, decision)
        else:
            break
    return progress, decision if isinstance(decision, End) else None


def unheard(progress: Progress) -> Iterator[Sighting]:
    """Give every first look of whoever resumes that does not show the reboot of a send."""
    for server in SERVERS:
        for log in SILENT:
            yield sighting(progress, server, log, NOW + LATE_GRACE)


@settings(deadline=None)
@given(way=ways(), wait=st.booleans())
def test_nothing_is_sent_while_a_fate_is_unknown(way: tuple[Progress, End | None], wait: bool) -> None:
    """However a server was left, whoever resumes knows what is unknown of it, and the first thing is not a send.

    Not even after the grace: the silence of the log counts from this process's first look at it.
    """
    progress, end = way
    was_unknown = (
        progress.sends.in_flight_since is not None
        or progress.fate.is_unresolved
        or (end is not None and end.outcome is Outcome.IN_DOUBT)
    )
    checkpoint = Checkpoint.of(progress, 5000.0, end)
    asked = options(wait=wait, escalate=True, start_stopped=True)
    assert checkpoint.is_finished(asked.goal) is (end is not None and leaves_nothing_to_do(end, asked.goal))

    resumed = checkpoint.resume(asked.order(LATER), now=NOW)

    assert resumed.fate.is_unresolved is was_unknown
    assert resumed.sends.in_flight_since is None
    assert resumed.accepted == progress.accepted
    assert not (resumed.fate.is_unresolved and resumed.accepted is not None)
    assert resumed.sends.attempts[: len(progress.sends.attempts)] == progress.sends.attempts
    if was_unknown:
        # What a look at the log asks for: the id of the last send's answer.
        assert resumed.sends.attempts
        blind = [look for look in unheard(resumed) if isinstance(decide_look(look, resumed), Send)]
        assert blind == []


@settings(deadline=None)
@given(way=ways())
def test_record_of_what_was_taken_up(way: tuple[Progress, End | None]) -> None:
    """To take a server up and write it down loses nothing: the next crash finds what the first one left."""
    progress, end = way
    once = taken_up(progress, end)

    twice = Checkpoint.of(once, NOW).resume(options().order(LATER), now=NOW)

    assert twice == once
