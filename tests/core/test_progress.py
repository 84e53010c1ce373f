"""What one server's way so far is known to be, at every step of it."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import inf

import pytest

from bulkrestart.core.decide import decide
from bulkrestart.core.decision import Accept, End, Look, Send
from bulkrestart.core.look import decide_look
from bulkrestart.core.model import Action, Attempt, Log, Outcome, Proof, Reason, ServerResult
from bulkrestart.core.observation import Observation, Sighting, Unanswered, Unsent
from bulkrestart.core.progress import NO_LOOK, FailedSoft, Progress
from bulkrestart.core.sends import SETTLED, SHORTEST_TIME_OUT, Fate, Sends
from tests.core.samples import (
    HARD,
    OTHER_REQUEST,
    REQUEST,
    SERVER,
    SOFT,
    answer,
    begun,
    conflict,
    conflict_words,
    ecs,
    keystone,
    nova,
    page,
    sent,
)

ACCEPTED = answer(202, b"", {"x-compute-request-id": REQUEST})
LOST_REPLY = Unanswered("ReadTimeout")
NEVER_SENT = Unsent("ConnectError")
STOPPED = conflict("vm_state", "stopped")
BUSY = conflict("task_state", "migrating")
CREATED = Action(action="create", request_id="req-created", start_time=0.0)


@pytest.mark.parametrize(
    ("seen", "answers"),
    [
        (ACCEPTED, Attempt(2.0, "202", REQUEST)),
        (answer(202), Attempt(2.0, "202", None)),
        (BUSY, Attempt(2.0, "409 conflictingRequest", REQUEST)),
        (ecs(400, "Ecs.0605", "ECS locked."), Attempt(2.0, "400 Ecs.0605", None)),
        (page(502, "Bad Gateway"), Attempt(2.0, "502", None)),
        (LOST_REPLY, Attempt(2.0, "unanswered: ReadTimeout", None)),
        (NEVER_SENT, Attempt(2.0, "unsent: ConnectError", None)),
    ],
    ids=str,
)
def test_attempt_says_when_it_left_and_what_came(seen: Observation, answers: Attempt) -> None:
    """Every send stands in the account: seconds since the run began, a few words, the cloud's id."""
    progress = begun(run_began=10.0, began=10.0)
    progress.sends.leave(12.0, None)
    progress.answer(15.0, seen, Look(is_unresolved=False))

    assert progress.sends.attempts == (answers,)
    assert progress.sends.in_flight_since is None


@pytest.mark.parametrize(
    ("seen", "spent"),
    [
        pytest.param([ACCEPTED], 1, id="accepted"),
        pytest.param([LOST_REPLY], 1, id="unanswered"),
        pytest.param([STOPPED], 1, id="409 on vm_state"),
        pytest.param([answer(429)], 0, id="throttled"),
        pytest.param([BUSY], 0, id="409 on a passing task"),
        pytest.param([keystone()], 0, id="401"),
        pytest.param([keystone(has_stale_token=True)], 0, id="401 with an older token"),
        pytest.param([answer(429), BUSY, keystone(), ACCEPTED], 1, id="all of them, and then accepted"),
    ],
)
def test_only_what_does_not_pass_by_itself_is_an_attempt(seen: Sequence[Observation], spent: int) -> None:
    """Throttling, a passing state and a token that is not known yet are not counted against the server."""
    progress = sent(*seen)

    assert (progress.sends.spent, len(progress.sends.attempts)) == (spent, len(seen))


@pytest.mark.parametrize(
    ("seen", "refused"),
    [
        ([keystone()], 1),
        ([keystone(), keystone()], 2),
        ([keystone(), keystone(has_stale_token=True)], 0),
        ([keystone(), answer(429)], 0),
        ([keystone(), LOST_REPLY], 0),
    ],
)
def test_refused_tokens_are_counted_in_a_row(seen: Sequence[Observation], refused: int) -> None:
    """Only the newest token's refusals count, and any other answer ends their row."""
    assert sent(*seen).sends.refused == refused


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of the fate of the sends."""

    is_unresolved: bool = False
    doubts: int = 0
    has_lost_race: bool = False
    has_reached: bool = True


@pytest.mark.parametrize(
    ("seen", "known"),
    [
        pytest.param([], Known(has_reached=False), id="nothing sent"),
        pytest.param([NEVER_SENT], Known(has_reached=False), id="unsent"),
        pytest.param([ACCEPTED], Known(), id="accepted"),
        pytest.param([STOPPED], Known(), id="409"),
        pytest.param([LOST_REPLY], Known(is_unresolved=True, doubts=1), id="unanswered"),
        pytest.param([LOST_REPLY, NEVER_SENT], Known(doubts=1), id="unanswered, then unsent"),
        pytest.param(
            [nova(500, "Unexpected API Error.")],
            Known(is_unresolved=True, doubts=1, has_lost_race=True),
            id="Nova's own 500",
        ),
        pytest.param(
            [nova(500, "Unexpected API Error."), LOST_REPLY],
            Known(is_unresolved=True, doubts=2),
            id="Nova's own 500, then unanswered",
        ),
        pytest.param([page(500, "Oops")], Known(is_unresolved=True, doubts=1), id="a proxy's 500"),
        pytest.param([nova(503, "Busy")], Known(is_unresolved=True, doubts=1), id="Nova's 503"),
    ],
)
def test_what_is_known_of_the_sends(seen: Sequence[Observation], known: Known) -> None:
    """Doubt is noted, and stays noted; a lost race is about the last send alone."""
    progress = sent(*seen)

    assert (
        Known(
            is_unresolved=progress.fate.is_unresolved,
            doubts=progress.sends.doubts,
            has_lost_race=progress.sends.has_lost_race,
            has_reached=progress.sends.has_reached,
        )
        == known
    )


def test_since_is_the_first_send_of_unknown_fate() -> None:
    """A reboot counts as ours from the first send whose fate was unknown, not from the one after it."""
    progress = begun()
    seen_in_turn: list[Observation] = [STOPPED, LOST_REPLY, STOPPED]
    since = []
    for moment, seen in enumerate(seen_in_turn):
        progress.sends.leave(float(moment), (1000.0 + moment, 1002.0 + moment))
        progress.answer(moment + 0.5, seen, Look(is_unresolved=seen is LOST_REPLY))
        since.append(progress.sends.since)

    assert since == [(1000.0, 1002.0), (1001.0, 1003.0), (1001.0, 1003.0)]


@pytest.mark.parametrize(
    ("log", "counted"),
    [
        pytest.param((CREATED,), 1, id="readable"),
        pytest.param((), 0, id="empty is no log"),
        pytest.param(nova(403, "Policy"), 0, id="403"),
        pytest.param(LOST_REPLY, 0, id="unanswered"),
        pytest.param(None, 0, id="not asked for"),
    ],
)
def test_looks_at_a_readable_log_are_counted(log: Log | Observation | None, counted: int) -> None:
    """Only a log that was read can have been silent; the next answer starts the count anew."""
    progress = sent(LOST_REPLY)
    progress.look(Sighting(server=LOST_REPLY, log=log, at=101.0), Look(is_unresolved=True))
    assert progress.fate.readable_looks == counted

    progress.sends.leave(102.0, None)
    progress.answer(103.0, LOST_REPLY, Look(is_unresolved=True))
    assert (progress.fate.readable_looks, progress.fate.answered_at) == (0, 103.0)


def test_look_that_escalates_changes_the_type() -> None:
    """What is sent next is what the look decided, and the report says so."""
    progress = sent(STOPPED, may_escalate=True, may_start=True)

    progress.look(Sighting(server=STOPPED, log=None, at=101.0), Send(reboot_type=HARD))

    assert progress.result(102.0, progress.so_far(is_over=True)).reboot_type is HARD


def test_look_that_resolves_ends_the_doubt_but_not_its_memory() -> None:
    """A resolved send leaves nothing outstanding; that there was a doubt stays known."""
    progress = sent(LOST_REPLY)

    progress.look(Sighting(server=LOST_REPLY, log=(CREATED,), at=101.0), Send(reboot_type=SOFT))

    assert (progress.fate.is_unresolved, progress.sends.doubts) == (False, 1)


def test_look_with_a_refused_token_is_counted() -> None:
    """A token that is refused on a look is refused."""
    progress = sent(STOPPED)
    sighting = Sighting(server=keystone(), log=None, at=101.0)

    progress.look(sighting, decide_look(sighting, progress))

    assert (progress.sends.refused, progress.last_look.refused) == (0, 1)


@pytest.mark.parametrize("proof", [None, Proof.STATE])
def test_acceptance_is_kept(proof: Proof | None) -> None:
    """An acceptance, by an answer or by a look, is noted with its id and its proof."""
    progress = sent(LOST_REPLY)

    progress.look(
        Sighting(server=LOST_REPLY, log=(CREATED,), at=106.0),
        Accept(request_id=OTHER_REQUEST, proof=proof),
    )

    assert progress.accepted == Accept(request_id=OTHER_REQUEST, proof=proof)


def test_nothing_is_left_to_find_out_of_an_accepted_send() -> None:
    """What was looked for is found: an open entry holds no more than is needed to see the reboot end.

    The time of the send finds the row where the id of the answer was a gateway's.
    """
    progress = sent(Unanswered("ReadTimeout", may_come_late=True), cloud_time=(1000.0, 1002.0))

    progress.look(Sighting(server=LOST_REPLY, log=(CREATED,), at=106.0), Accept(request_id=OTHER_REQUEST))

    assert (progress.fate, progress.last_look) == (SETTLED, NO_LOOK)
    assert progress.sends.since == (1000.0, 1002.0)
    assert progress.is_sent


def test_hard_begins_anew_after_a_soft_that_failed() -> None:
    """The account goes on; nothing else of the SOFT can be taken for the HARD."""
    progress = sent(LOST_REPLY, cloud_time=(1000.0, 1002.0))
    progress.look(Sighting(server=LOST_REPLY, log=(CREATED,), at=106.0), Accept(proof=Proof.STATE))
    progress.identify(REQUEST)
    attempts = progress.sends.attempts

    progress.escalate(End(outcome=Outcome.FAILED, reason=Reason.ERROR, detail="vm_state error"))

    assert progress.sends == Sends(attempts=attempts, has_reached=True)
    assert (progress.accepted, progress.fate, progress.reboot_type) == (None, SETTLED, HARD)
    assert progress.failed_soft == FailedSoft(request_id=REQUEST, words="vm_state error")
    assert progress.settled_ids >= {REQUEST}


def test_intent_is_a_copy() -> None:
    """What is written before a send leaves is how far the server will have come; the server itself has not yet."""
    progress = sent(BUSY)
    before = deepcopy(progress)

    leaving = progress.leaving(200.0, (1000.0, 1002.0))

    assert (leaving.sends.in_flight_since, leaving.sends.since) == (200.0, (1000.0, 1002.0))
    assert progress == before


def in_flight(*seen: Observation) -> Progress:
    """Give a server with one more send that is out."""
    progress = sent(*seen)
    progress.sends.leave(200.0, None)
    return progress


#: What a report says of a server meanwhile, and what once the run broke off.
SO_FAR: list[tuple[str, Progress, tuple[Outcome, Reason | None, str], tuple[Outcome, Reason | None, str]]] = [
    (
        "nothing sent",
        sent(),
        (Outcome.SKIPPED, Reason.NOT_STARTED, ""),
        (Outcome.SKIPPED, Reason.STOPPED, ""),
    ),
    (
        "its first send is out",
        in_flight(),
        (Outcome.IN_DOUBT, Reason.IN_FLIGHT, ""),
        (Outcome.IN_DOUBT, Reason.INTERRUPTED, ""),
    ),
    (
        "a send again is out",
        in_flight(BUSY),
        (Outcome.IN_DOUBT, Reason.IN_FLIGHT, conflict_words("task_state", "migrating")),
        (Outcome.IN_DOUBT, Reason.INTERRUPTED, conflict_words("task_state", "migrating")),
    ),
    (
        "its answer never came",
        sent(LOST_REPLY),
        (Outcome.IN_DOUBT, Reason.IN_FLIGHT, "ReadTimeout"),
        (Outcome.IN_DOUBT, Reason.INTERRUPTED, "ReadTimeout"),
    ),
    (
        "accepted",
        sent(ACCEPTED),
        (Outcome.ACCEPTED, None, ""),
        (Outcome.ACCEPTED, Reason.INTERRUPTED, ""),
    ),
    (
        "refused, and waiting to be sent to again",
        sent(BUSY),
        (Outcome.REFUSED, Reason.PARKED, conflict_words("task_state", "migrating")),
        (Outcome.REFUSED, Reason.STOPPED, conflict_words("task_state", "migrating")),
    ),
    (
        "unsent so far",
        sent(NEVER_SENT),
        (Outcome.SKIPPED, Reason.NOT_STARTED, "ConnectError"),
        (Outcome.SKIPPED, Reason.STOPPED, "ConnectError"),
    ),
]


@pytest.mark.parametrize(("progress", "meanwhile", "at_last"), [pytest.param(*row[1:], id=row[0]) for row in SO_FAR])
def test_so_far(
    progress: Progress,
    meanwhile: tuple[Outcome, Reason | None, str],
    at_last: tuple[Outcome, Reason | None, str],
) -> None:
    """At any moment it can be said what is known; what is out is in doubt, never skipped."""
    for is_over, expected in ((False, meanwhile), (True, at_last)):
        end = progress.so_far(is_over=is_over)
        assert (end.outcome, end.reason, end.detail) == expected


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("seen", [answer(429), BUSY, keystone(), STOPPED], ids=str)
def test_skipped_means_that_nothing_was_sent(seen: Observation, is_over: bool) -> None:
    """A server that the cloud refused, and that waits to be sent to again, was not skipped: it was sent to."""
    assert sent(seen).so_far(is_over=is_over).outcome is not Outcome.SKIPPED


GIVING_UP = [
    pytest.param([NEVER_SENT], Outcome.SKIPPED, Reason.UNREACHABLE, Reason.UNREACHABLE, id="never reached the cloud"),
    pytest.param([NEVER_SENT, STOPPED], Outcome.REFUSED, Reason.ATTEMPTS_EXHAUSTED, Reason.BUSY, id="reached it once"),
    pytest.param([BUSY], Outcome.REFUSED, Reason.ATTEMPTS_EXHAUSTED, Reason.BUSY, id="in a passing state"),
]


@pytest.mark.parametrize(("seen", "outcome", "after_attempts", "after_time"), GIVING_UP)
def test_giving_up(seen: Sequence[Observation], outcome: Outcome, after_attempts: Reason, after_time: Reason) -> None:
    """After all attempts or all the time, a server that was reached is refused, and any other was skipped."""
    progress = sent(*seen)

    assert progress.out_of_attempts() == End(outcome=outcome, reason=after_attempts, detail=progress.words)
    assert progress.out_of_time() == End(outcome=outcome, reason=after_time, detail=progress.words)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param([], End(outcome=Outcome.SKIPPED, reason=Reason.BUSY), id="looked at alone"),
        pytest.param(
            [LOST_REPLY],
            End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail="ReadTimeout"),
            id="a send of unknown fate",
        ),
    ],
)
def test_out_of_time(seen: Sequence[Observation], expected: End) -> None:
    """When the time is up, doubt stays doubt, and a server that was only looked at was skipped."""
    assert sent(*seen).out_of_time() == expected


def test_result_carries_the_whole_account() -> None:
    """The result is the entry, closed: its sends, its id, its proof and its time."""
    progress = sent(BUSY, ACCEPTED)

    result = progress.result(130.0, End(outcome=Outcome.COMPLETED, proof=Proof.ACTION))

    assert result == ServerResult(
        server_id=SERVER,
        outcome=Outcome.COMPLETED,
        reboot_type=SOFT,
        attempts=(Attempt(100.0, "409 conflictingRequest", REQUEST), Attempt(100.0, "202", REQUEST)),
        request_id=REQUEST,
        proof=Proof.ACTION,
        elapsed=30.0,
    )


@pytest.mark.parametrize("unsent", [Unsent("ConnectError"), Unsent("the look was old", is_withheld=True)])
def test_send_that_has_not_left_does_not_move_the_moment_since_which_is_looked(unsent: Unsent) -> None:
    """A request that was refused may be delivered once more: the log is read since then, whatever did not leave."""
    progress = sent(conflict("task_state", "image_snapshot"), cloud_time=(1000.0, 1002.0))

    progress.sends.leave(200.0, (1100.0, 1102.0))
    assert progress.sends.since == (1100.0, 1102.0)
    progress.answer(200.0, unsent, decide(unsent, progress))

    assert progress.sends.since == (1000.0, 1002.0)


@pytest.mark.parametrize("status", [408, 504])
@pytest.mark.parametrize(
    ("took", "may_come_late"),
    [
        pytest.param(0.3, False, id="the gateway did not wait"),
        pytest.param(SHORTEST_TIME_OUT, True, id="it waited"),
        pytest.param(60.0, True, id="it waited for long"),
        pytest.param(inf, True, id="nothing tells how long it waited"),
    ],
)
def test_only_a_gateway_that_waited_leaves_a_request_at_work(status: int, took: float, may_come_late: bool) -> None:
    """A 504 or 408 that comes at once is like any 5xx."""
    fate = Fate.of(0.0, page(status, "Gateway Time-out"), Look(is_unresolved=True), took=took)
    assert fate.may_come_late is may_come_late


def test_a_postponed_request_is_late_however_soon_it_was_said() -> None:
    """`Common.0024` says that the request was delivered, and is carried out later."""
    seen = ecs(202, "Common.0024", "Flow limit exceeded")
    assert Fate.of(0.0, seen, Look(is_unresolved=True), took=0.1).may_come_late
