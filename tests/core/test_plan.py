"""What a plan says of each server, and what it reckons."""

import pickle
from dataclasses import replace
from typing import Any

import pytest

from bulkrestart import Reason, Rollout
from bulkrestart.core.model import Outcome, RebootType, Server, ServerResult
from bulkrestart.core.observation import Unanswered
from bulkrestart.core.options import Options
from bulkrestart.core.plan import Cost, Forecast, draw_up, forecast

SOFT = Options(reboot_type=RebootType.SOFT, wait=True, escalate=False, start_stopped=False, max_at_once=50)
HARD = replace(SOFT, reboot_type=RebootType.HARD)


def active(**states: Any) -> Server:
    """Give a server that is active, but for some of its states."""
    return Server(**{"id": "s", "name": "web", "vm_state": "active", "status": "ACTIVE", **states})


@pytest.mark.parametrize(
    ("options", "seen", "reboot_type", "reason"),
    [
        (SOFT, active(), "SOFT", None),
        (HARD, active(), "HARD", None),
        (SOFT, active(locked=True), "SOFT", Reason.LOCKED),
        (HARD, active(locked=True), "HARD", Reason.LOCKED),
        (SOFT, active(vm_state="stopped"), "SOFT", Reason.WRONG_STATE),
        (HARD, active(vm_state="stopped"), "HARD", Reason.WRONG_STATE),
        (replace(HARD, start_stopped=True), active(vm_state="stopped"), "HARD", None),
        (replace(SOFT, escalate=True), active(vm_state="paused"), "HARD", None),
        (replace(SOFT, escalate=True), active(vm_state="stopped"), "SOFT", Reason.WRONG_STATE),
        (SOFT, active(vm_state="rescued"), "SOFT", Reason.WRONG_STATE),
        (SOFT, active(task_state="image_snapshot"), "SOFT", Reason.BUSY),
        (SOFT, active(task_state="rebooting"), "SOFT", Reason.BUSY),
        (SOFT, active(task_state="powering-off"), "SOFT", Reason.WRONG_STATE),
        (SOFT, active(vm_state=None), "SOFT", Reason.BUSY),
        (SOFT, Unanswered("ReadTimeout"), "SOFT", Reason.BUSY),
    ],
)
def test_forecasts(options: Options, seen: Server | Unanswered, reboot_type: str, reason: Reason | None) -> None:
    """What is to be expected of a server is what the second table says of it."""
    one = forecast("s", seen, wave=3, domain=7, options=options)
    assert (one.server_id, one.wave, one.domain) == ("s", 3, "7")
    assert (one.reboot_type, one.reason, one.detail) == (reboot_type, reason, seen.words)
    assert one.name == ("web" if isinstance(seen, Server) else "")


CHEAP = Cost(pages=2, first_poll=1.5, max_per_second=None)
FOUR = ["a", "b", "c", "d"]


def forecasts_of(options: Options, *seen: Server) -> list[Forecast]:
    """Give what is to be expected of servers: of four, of which the last is locked, unless others are named."""
    fleet = seen or tuple(active(id=one, locked=one == "d") for one in FOUR)
    return [forecast(one.id, one, wave=1, domain=None, options=options) for one in fleet]


@pytest.mark.parametrize(
    ("options", "waves", "cost", "requests", "seconds"),
    [
        # One look, four sends (a SOFT learns by its answer that it is refused), a poll of two pages, three proofs.
        (SOFT, [FOUR], CHEAP, 1 + 4 + 2 + 3, 1.5),
        # The survey of a HARD leaves the locked one out.
        (HARD, [FOUR], CHEAP, 1 + 2 + 3 + 2 + 3, 1.5),
        (replace(SOFT, wait=False), [FOUR], CHEAP, 1 + 4, 0.0),
        (replace(SOFT, since=1.0), [FOUR], CHEAP, 1 + 4 + 4 + 2 + 3, 1.5),
        (replace(HARD, since=1.0), [FOUR], CHEAP, 1 + 4 + 4 + 2 + 3, 1.5),
        # A wave of one is polled by one request.
        (replace(SOFT, rollout=Rollout(canary=1)), [FOUR[:1], FOUR[1:]], CHEAP, 1 + 4 + 1 + 2 + 3, 3.0),
        (replace(SOFT, rollout=Rollout(canary=1, pause=60.0)), [FOUR[:1], FOUR[1:]], CHEAP, 11, 63.0),
        (replace(SOFT, rollout=Rollout(spread="host")), [FOUR], CHEAP, 1 + 2 + 4 + 2 + 3, 1.5),
        (SOFT, [FOUR], replace(CHEAP, max_per_second=0.5), 10, 20.0),
        (SOFT, [FOUR], replace(CHEAP, max_per_second=100.0), 10, 1.5),
    ],
)
def test_what_it_takes(options: Options, waves: list[list[str]], cost: Cost, requests: int, seconds: float) -> None:
    """Requests and seconds are counted at the least, by wave and by pace."""
    plan = draw_up(forecasts_of(options), waves, options, cost)
    assert (plan.requests, plan.seconds) == (requests, seconds)


@pytest.mark.parametrize(
    ("rollout", "failures", "refused", "is_to_stop"),
    [
        (Rollout(), 0, 0, False),
        (Rollout(max_refused=1), 0, 0, False),
        (Rollout(max_refused=0), 0, 0, True),
        (Rollout(max_refused=1), 0, 1, True),
        (Rollout(max_failures=1), 1, 0, False),
        (Rollout(max_failures=0), 1, 0, True),
    ],
)
def test_a_run_that_is_to_stop_itself(rollout: Rollout, failures: int, refused: int, is_to_stop: bool) -> None:
    """One of four servers is locked: whether that is too many, with what a former process met, is known beforehand."""
    former = [ServerResult(server_id="x", outcome=Outcome.FAILED, reboot_type=RebootType.SOFT)] * failures
    former += [ServerResult(server_id="y", outcome=Outcome.REFUSED, reboot_type=RebootType.SOFT)] * refused
    options = replace(SOFT, rollout=rollout)

    plan = draw_up(forecasts_of(options), [FOUR], options, CHEAP, former)

    assert (plan.refusals, plan.is_to_stop) == (1, is_to_stop)
    assert (plan.to_dict()["refusals"], plan.to_dict()["is_to_stop"]) == (1, is_to_stop)


def test_where_nothing_is_left_to_do_nothing_stops() -> None:
    """A run that finished over its budget has nothing to stop."""
    former = [ServerResult(server_id="x", outcome=Outcome.FAILED, reboot_type=RebootType.SOFT)]
    assert not draw_up([], [], replace(SOFT, rollout=Rollout(max_failures=0)), CHEAP, former).is_to_stop


def test_a_plan_in_words_and_values() -> None:
    """A plan says what it comes to on one line, is plain values for programs, and can be sent to another process."""
    options = replace(SOFT, rollout=Rollout(canary=1, max_down="50%", max_failures=0))
    plan = draw_up(forecasts_of(options), [FOUR[:1], FOUR[1:]], options, CHEAP)
    assert str(plan) == "3 to send to, 1 locked in 2 waves: at least 11 requests and 3 s besides the reboots"
    values = plan.to_dict()
    assert values["expected"] == {"sent": 3, "locked": 1}
    assert (values["waves"], values["max_down"], values["max_failures"], values["max_refused"]) == ([1, 3], 2, 0, 20)
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301 - our own
    assert str(draw_up([], [], SOFT, CHEAP)).startswith("no servers in 0 waves: ")
    stopped = draw_up(forecasts_of(SOFT, active(vm_state="stopped")), [FOUR[:1]], SOFT, CHEAP)
    assert str(stopped).startswith("1 wrong state in 1 wave: ")
