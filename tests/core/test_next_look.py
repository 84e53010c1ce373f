"""When the run looks again at a server whose send got no clear answer."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.core.decision import Look
from bulkrestart.core.look import GRACE, LATE_GRACE, next_look
from bulkrestart.core.model import Action, Log, Server
from bulkrestart.core.observation import Observation, Sighting, Unanswered
from bulkrestart.core.progress import Progress
from tests.core.samples import HARD, SERVER, SOFT, answer, conflict, nova, page, sent

CUT: Final = Unanswered("ReadError")
LATE: Final = Unanswered("ReadTimeout", may_come_late=True)
SHED: Final = page(503, "Service Unavailable")
#: A log that is readable, and shows no reboot.
SILENT: Final = (Action(action="create", request_id="req-created", start_time=0.0),)
AFTER_GRACE: Final = 0.25


def looked_at(
    seen: Observation,
    *ages: float,
    log: Log | Observation = SILENT,
    task_state: str | None = None,
    is_hard: bool = False,
) -> Progress:
    """Make the progress of a server, with the answer to its send and the age of that answer at the last look."""
    progress = sent(seen, reboot_type=HARD if is_hard else SOFT)
    server = Server(id=SERVER, vm_state="active", task_state=task_state)
    for age in ages:
        sighting = Sighting(server=server, log=log, at=progress.fate.answered_at + age)
        progress.look(sighting, Look(is_unresolved=True))
    return progress


def wait(progress: Progress, age: float, drawn: float, lag: float = 0.0, left: float = 900.0) -> float:
    """Return the seconds until the next look, when the answer is `age` seconds old."""
    now = progress.fate.answered_at + age
    return next_look(progress, now, lag, drawn=drawn, after_grace=AFTER_GRACE, left=left)


@pytest.mark.parametrize(
    ("progress", "age", "drawn", "expected"),
    [
        pytest.param(looked_at(CUT), 0.0, 0.4, 0.4, id="the first look"),
        pytest.param(looked_at(CUT, 0.4), 0.4, 3.0, 3.0, id="a drawn one within the grace"),
        pytest.param(looked_at(CUT, 0.4, 6.0), 6.0, 15.0, 4.25, id="as soon as the log proves something"),
        pytest.param(looked_at(CUT, 9.9), 10.5, 15.0, 0.25, id="a look that began within the grace and ended after it"),
        pytest.param(looked_at(CUT, 0.4, 10.0), 10.3, 15.0, 15.0, id="a look after the grace that did not tell"),
        pytest.param(looked_at(LATE, 60.0), 60.0, 3.0, 3.0, id="late: a drawn one within the grace"),
        pytest.param(looked_at(LATE, 80.0), 80.0, 30.0, 10.25, id="late: as soon as the log proves something"),
        pytest.param(looked_at(CUT, 80.0, is_hard=True), 80.0, 30.0, 10.25, id="HARD"),
        pytest.param(looked_at(SHED), 0.0, 0.4, 0.4, id="503: the first look"),
        pytest.param(looked_at(SHED, 0.4), 0.4, 0.7, 9.85, id="503: none in between"),
        pytest.param(looked_at(SHED, 0.4, is_hard=True), 0.4, 0.7, 89.85, id="503 to HARD: none in between"),
        pytest.param(looked_at(SHED, 0.4, log=answer(403)), 0.4, 0.7, 0.7, id="503: a log that cannot be read"),
        pytest.param(looked_at(SHED, 0.4, log=()), 0.4, 0.7, 0.7, id="503: an empty log is none"),
        pytest.param(looked_at(SHED, 0.4, log=SHED), 0.4, 0.7, 0.7, id="503: a look that was shed too"),
        pytest.param(looked_at(SHED, 0.4, task_state="rebooting"), 0.4, 0.7, 0.7, id="503: seen in a reboot"),
        pytest.param(looked_at(SHED, 0.4, 10.1), 10.1, 1.5, 1.5, id="503: after the grace"),
        pytest.param(looked_at(nova(500, "Unexpected API Error.")), 0.0, 0.4, 0.4, id="500"),
        pytest.param(sent(conflict("task_state", "image_snapshot")), 0.0, 12.0, 12.0, id="nothing unresolved"),
        pytest.param(sent(nova(429, "slow down")), 0.0, 12.0, 12.0, id="throttled"),
    ],
)
def test_next_look(progress: Progress, age: float, drawn: float, expected: float) -> None:
    """A look comes right after the grace, and after a shed send there is none before that."""
    assert wait(progress, age, drawn) == pytest.approx(expected)


@pytest.mark.parametrize("seen", [CUT, LATE, SHED], ids=["cut", "late", "503"])
def test_a_log_that_lags_proves_something_later(seen: Observation) -> None:
    """The look comes when the grace and the lag of the log are over."""
    grace = LATE_GRACE if seen is LATE else GRACE

    assert wait(looked_at(seen, grace), grace + 1.0, 100.0, lag=30.0) == pytest.approx(29.0 + AFTER_GRACE)


@pytest.mark.parametrize("seen", [CUT, LATE, SHED, page(504, "Gateway Time-out")], ids=str)
def test_a_lag_that_may_be_measured_meanwhile_is_not_waited_for(seen: Observation) -> None:
    """One look comes when a log that does not lag would prove something: the lag may be measured by then."""
    grace = GRACE if seen in (CUT, SHED) else LATE_GRACE

    assert wait(looked_at(seen, 1.0), grace - 1.0, 100.0, lag=30.0) == pytest.approx(1.0 + AFTER_GRACE)


@pytest.mark.parametrize(
    ("progress", "drawn", "left", "expected"),
    [
        pytest.param(looked_at(SHED, 0.4), 0.7, 5.0, 5.0, id="503: less than the grace is left"),
        pytest.param(looked_at(SHED, 0.4, is_hard=True), 0.7, 60.0, 60.0, id="503 to HARD"),
        pytest.param(looked_at(SHED, 0.4), 0.7, 0.1, 0.7, id="503: less than the drawn time is left"),
        pytest.param(looked_at(SHED, 0.4), 0.7, -3.0, 0.7, id="503: none is left"),
        pytest.param(looked_at(SHED, 0.4), 0.7, 10.0, 9.85, id="503: more than the grace is left"),
        pytest.param(looked_at(CUT, 0.4), 0.7, 0.1, 0.7, id="cut: the drawn time"),
        pytest.param(sent(nova(429, "slow down")), 12.0, 1.0, 12.0, id="nothing unresolved: the drawn time"),
    ],
)
def test_a_shed_send_is_looked_for_while_its_server_has_time(
    progress: Progress, drawn: float, left: float, expected: float
) -> None:
    """The wait after a 503 ends with the time of the server, since the last look may show what became of the send."""
    assert wait(progress, 0.4, drawn, left=left) == pytest.approx(expected)


@given(
    seen=st.sampled_from([CUT, LATE, SHED, nova(500, "Unexpected API Error."), page(504, "Gateway Time-out")]),
    age=st.floats(0.0, 400.0),
    since=st.floats(0.0, 5.0),
    drawn=st.floats(0.0, 30.0),
    lag=st.floats(0.0, 60.0),
)
def test_no_look_is_later_than_drawn_and_needed(
    seen: Observation, age: float, since: float, drawn: float, lag: float
) -> None:
    """Whatever happened, the next look is no later than the drawn time, or than the log proves something."""
    grace = LATE_GRACE if seen is LATE or "504" in str(seen) else GRACE
    seconds = wait(looked_at(seen, age), age + since, drawn, lag)

    left = max(0.0, grace + lag - age - since)
    assert 0.0 <= seconds <= max(drawn, left + AFTER_GRACE) + 1e-6
