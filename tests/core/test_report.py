"""The account of a run: every id once, in order, whatever happened and whenever it is read."""

import itertools
import json
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from bulkrestart.core.decision import Accept, End, Look
from bulkrestart.core.model import Attempt, Outcome, Proof, Reason, RebootType, ServerResult, Stop, StopReason
from bulkrestart.core.observation import Unanswered
from bulkrestart.core.report import FleetError, Ledger
from bulkrestart.core.target import Target
from tests.core.samples import HARD, REQUEST, SOFT, answer, begun, report

STOP = Stop(StopReason.OUTAGE, "the cloud did not answer for 300 s")
PROBLEMS = {Outcome.REFUSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.IN_DOUBT}


def result(server_id: str, outcome: Outcome = Outcome.COMPLETED, reason: Reason | None = None) -> ServerResult:
    """Write one server's result."""
    return ServerResult(server_id=server_id, outcome=outcome, reason=reason, reboot_type=SOFT)


ONE_OF_EACH = report(*(result(outcome.value, outcome) for outcome in reversed(Outcome)), stopped=STOP)


def test_report_is_a_collection_of_results() -> None:
    """It has as many results as there are servers, in the order in which the ids were given."""
    assert len(ONE_OF_EACH) == len(Outcome)
    assert [result.server_id for result in ONE_OF_EACH] == [outcome.value for outcome in reversed(Outcome)]


def test_result_is_found_by_its_id() -> None:
    """Each server's result can be asked for, and no other's."""
    for result in ONE_OF_EACH:
        assert ONE_OF_EACH[result.server_id] is result

        assert result.server_id in ONE_OF_EACH

    for other in ("another", "no such server", 7):
        assert other not in ONE_OF_EACH
    with pytest.raises(KeyError, match="no such server"):
        ONE_OF_EACH["no such server"]


@pytest.mark.parametrize(
    ("outcomes", "summary", "words"),
    [
        pytest.param([], {}, "no servers in 312 s", id="no servers"),
        pytest.param(["completed"], {"completed": 1}, "1 completed in 312 s", id="one"),
        pytest.param(
            ["in_doubt", "completed", "failed", "completed"],
            {"completed": 2, "failed": 1, "in_doubt": 1},
            "2 completed, 1 failed, 1 in doubt in 312 s",
            id="in the order of the outcomes, not of the servers",
        ),
    ],
)
def test_summary_counts_only_what_occurs(outcomes: list[str], summary: dict[str, int], words: str) -> None:
    """The summary has each outcome that occurs, and its line is for people."""
    written = report(*(result(str(number), Outcome(outcome)) for number, outcome in enumerate(outcomes)))

    assert list(written.summary.items()) == list(summary.items())
    assert str(written) == words


def test_problems_are_the_four_that_are_not_well() -> None:
    """Refused, failed, skipped and in doubt are problems; nothing else is."""
    assert {result.outcome for result in ONE_OF_EACH.problems} == PROBLEMS


@pytest.mark.parametrize("outcome", Outcome)
def test_failures_raise_only_for_problems(outcome: Outcome) -> None:
    """One problem is enough to raise; a server that is well never raises."""
    written = report(result("a"), result("b", outcome))
    if outcome not in PROBLEMS:
        written.raise_for_failures()
        return

    with pytest.raises(FleetError, match="in 312 s") as caught:
        written.raise_for_failures()

    assert caught.value.report is written
    assert str(caught.value) == str(written)


def test_an_empty_fleet_has_no_failures() -> None:
    """Nothing asked, nothing failed."""
    report().raise_for_failures()


def test_fleet_error_survives_pickling() -> None:
    """An error that crosses a process carries its report along."""
    error = pickle.loads(pickle.dumps(FleetError(ONE_OF_EACH)))  # noqa: S301 - our own bytes

    assert isinstance(error, FleetError)
    assert (error.report, str(error)) == (ONE_OF_EACH, str(ONE_OF_EACH))


def test_to_dict_is_json() -> None:
    """The plain form goes through JSON unchanged, but for the tuples that become lists."""
    whole = ServerResult(
        server_id="a",
        outcome=Outcome.COMPLETED,
        detail="done",
        reboot_type=HARD,
        attempts=(Attempt(1.5, "202", REQUEST),),
        request_id=REQUEST,
        proof=Proof.ACTION,
        elapsed=30.0,
    )

    written = report(whole, result("b", Outcome.REFUSED, Reason.LOCKED), stopped=STOP).to_dict()

    assert json.loads(json.dumps(written)) == {
        "summary": {"completed": 1, "refused": 1},
        "results": [
            {
                "server_id": "a",
                "outcome": "completed",
                "reason": None,
                "detail": "done",
                "reboot_type": "HARD",
                "attempts": [{"sent_at": 1.5, "answer": "202", "request_id": REQUEST}],
                "request_id": REQUEST,
                "proof": "action",
                "elapsed": 30.0,
            },
            {
                "server_id": "b",
                "outcome": "refused",
                "reason": "locked",
                "detail": "",
                "reboot_type": "SOFT",
                "attempts": [],
                "request_id": None,
                "proof": None,
                "elapsed": 0.0,
            },
        ],
        "stopped": {"reason": "outage", "detail": "the cloud did not answer for 300 s"},
        "elapsed": 312.4,
        "target": None,
    }


def test_to_dict_of_a_run_that_was_not_stopped() -> None:
    """A run that came to its end was not stopped."""
    assert report().to_dict() == {"summary": {}, "results": [], "stopped": None, "elapsed": 312.4, "target": None}


def test_to_dict_names_the_target() -> None:
    """A report says which servers it is of: cloud, region, project and endpoint."""
    target = Target(endpoint="https://nova.test/v2.1/p", project_id="p", project_name="web", cloud="lab", region="eu-2")

    assert replace(report(), target=target).to_dict()["target"] == {
        "endpoint": "https://nova.test/v2.1/p",
        "project_id": "p",
        "project_name": "web",
        "cloud": "lab",
        "region": "eu-2",
    }


#: One server's way, step by step: what is done to the ledger, and what the report says then and if the run broke off.
WAY = [
    ("not begun", (Outcome.SKIPPED, Reason.NOT_STARTED), (Outcome.SKIPPED, Reason.STOPPED)),
    ("opened", (Outcome.SKIPPED, Reason.NOT_STARTED), (Outcome.SKIPPED, Reason.STOPPED)),
    ("sent", (Outcome.IN_DOUBT, Reason.IN_FLIGHT), (Outcome.IN_DOUBT, Reason.INTERRUPTED)),
    ("unanswered", (Outcome.IN_DOUBT, Reason.IN_FLIGHT), (Outcome.IN_DOUBT, Reason.INTERRUPTED)),
    ("sent again", (Outcome.IN_DOUBT, Reason.IN_FLIGHT), (Outcome.IN_DOUBT, Reason.INTERRUPTED)),
    ("accepted", (Outcome.ACCEPTED, None), (Outcome.ACCEPTED, Reason.INTERRUPTED)),
    ("closed", (Outcome.COMPLETED, None), (Outcome.COMPLETED, None)),
]


def walk(ledger: Ledger, server_id: str, steps: int) -> None:
    """Take a server so many steps along its way."""
    progress = begun(server_id=server_id, began=1.0)
    actions: tuple[Callable[[], None], ...] = (
        lambda: ledger.begin(progress),
        lambda: progress.sends.leave(2.0, None),
        lambda: progress.answer(3.0, Unanswered("ReadTimeout"), Look(is_unresolved=True)),
        lambda: progress.sends.leave(4.0, None),
        lambda: progress.answer(5.0, answer(202), Accept(request_id=REQUEST)),
        lambda: ledger.close(progress.result(6.0, End(outcome=Outcome.COMPLETED, proof=Proof.STATE))),
    )
    for action in actions[:steps]:
        action()


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("steps", range(len(WAY)), ids=[row[0] for row in WAY])
def test_report_at_any_moment(steps: int, is_over: bool) -> None:
    """At each step the report has every id once, in order, and says of the server what is known by then."""
    ledger = Ledger(["c", "a", "b"], SOFT)
    walk(ledger, "a", steps)

    written = ledger.report(7.0, began=0.0, stopped=STOP, is_over=is_over)

    assert [one.server_id for one in written] == ["c", "a", "b"]
    assert (written.results[1].outcome, written.results[1].reason) == WAY[steps][2 if is_over else 1]
    assert (written.stopped, written.elapsed) == (STOP, 7.0)


def test_report_of_servers_on_different_ways() -> None:
    """Whatever each of many servers has come to, each stands in the report once, where its id was given."""
    ids = [f"{number:04}" for number in range(7 * 7)]
    ledger = Ledger(ids, SOFT)
    for server_id, steps in zip(ids, itertools.cycle(range(len(WAY))), strict=False):
        walk(ledger, server_id, steps)

    assert [one.server_id for one in ledger.report(9.0, began=0.0, stopped=None, is_over=False)] == ids
    assert ledger.finished == 7
    assert [one.server_id for one in ledger.unfinished(9.0)] == [
        id_ for number, id_ in enumerate(ids) if number % 7 < 6
    ]


@pytest.mark.parametrize("reboot_type", RebootType)
def test_server_that_was_never_come_to(reboot_type: RebootType) -> None:
    """A server that the run never came to has the type that was asked for, no sends, and took no time."""
    (untouched,) = Ledger(["a"], reboot_type).report(99.0, began=1.0, stopped=STOP, is_over=True)

    assert untouched == replace(result("a", Outcome.SKIPPED, Reason.STOPPED), reboot_type=reboot_type)


def test_ledger_without_details() -> None:
    """Of a server that has its outcome nothing else is kept; of the others, and of the fleet, as much as ever."""
    ledger = Ledger(["a", "b"], SOFT, keeps_details=False)
    ledger.close(replace(result("a", Outcome.FAILED, Reason.ERROR), detail="words", elapsed=5.0))
    walk(ledger, "b", 5)

    first, second = ledger.report(9.0, began=0.0, stopped=None, is_over=False)

    assert first == result("a", Outcome.FAILED)
    assert (second.outcome, len(second.attempts)) == (Outcome.ACCEPTED, 2)
    assert [ledger.is_finished(one) for one in ledger] == [True, False]
    assert (ledger.finished, ledger.progress("a"), len(list(ledger.under_way()))) == (1, None, 1)
    with pytest.raises(AssertionError, match="never changed"):
        ledger.close(result("a"))


def test_ledger_is_the_fleet_in_order() -> None:
    """The ledger has each id once, in the order in which it first stood."""
    ledger = Ledger(["c", "a", "b", "a", "c"], SOFT)

    assert (list(ledger), len(ledger), ledger.finished) == (["c", "a", "b"], 3, 0)


def test_outcome_is_never_changed() -> None:
    """A server gets its outcome once."""
    ledger = Ledger(["a"], SOFT)
    ledger.close(result("a"))

    with pytest.raises(AssertionError, match="never changed"):
        ledger.close(result("a", Outcome.FAILED, Reason.ERROR))

    assert [one.outcome for one in ledger.report(1.0, began=0.0, stopped=None, is_over=True)] == [Outcome.COMPLETED]
    assert ledger.finished == 1


def test_report_does_not_change_with_the_run() -> None:
    """A report that was read stays as it was read."""
    ledger = Ledger(["a"], SOFT)
    early = ledger.report(1.0, began=0.0, stopped=None, is_over=False)

    ledger.close(result("a"))

    assert early.results[0].outcome is Outcome.SKIPPED


def test_report_of_a_large_fleet_is_quickly_written() -> None:
    """Nothing is written of servers without details before somebody asks: only what is known is copied."""
    ledger = Ledger(["a", "b", "c"], SOFT, keeps_details=False)
    ledger.close(result("b", Outcome.FAILED, Reason.ERROR))
    written = ledger.report(1.0, began=0.0, stopped=None, is_over=True)

    assert not any(isinstance(end, ServerResult) for end in written.ends)
    assert (written["b"].outcome, written["c"].reason) == (Outcome.FAILED, Reason.STOPPED)
    assert written.results == tuple(written)
    assert written.results is written.results


def test_result_is_found_by_any_spelling_of_its_id() -> None:
    """A server has one id in a report, however it is asked for, and also where nothing else is known of it."""
    server_id = "616fb98f-46ca-475e-917e-2563e5a8cd19"
    written = Ledger([server_id], SOFT).report(1.0, began=0.0, stopped=None, is_over=False)

    assert written[server_id.upper()] == written[f"{{{server_id}}}"] == written.results[0]
