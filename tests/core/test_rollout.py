"""How a fleet is cut into waves, what budgets allow, and what a rollout may not be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart import Outcome, Reason, Rollout, Server, ServerResult, StopReason
from bulkrestart.core.model import RebootType
from bulkrestart.core.rollout import Budgets, is_about_server, is_harm, is_refusal, stays_down


def ids(count: int) -> list[str]:
    """Give so many ids."""
    return [f"s{number}" for number in range(count)]


async def wait_for_it(server: Server) -> str:
    """Name a domain, but not at once."""
    return server.id


def result(outcome: Outcome, reason: Reason | None = None) -> ServerResult:
    """Give an outcome of some server."""
    return ServerResult(server_id="s", outcome=outcome, reason=reason, reboot_type=RebootType.SOFT)


@pytest.mark.parametrize(
    ("rollout", "sizes"),
    [
        (Rollout(), [10]),
        (Rollout(canary=1), [1, 9]),
        (Rollout(canary=10), [10]),
        (Rollout(canary=11), [10]),
        (Rollout(wave=3), [3, 3, 3, 1]),
        (Rollout(wave=10), [10]),
        (Rollout(wave=100), [10]),
        (Rollout(canary=2, wave=5), [2, 5, 3]),
        (Rollout(wave="50%"), [5, 5]),
        (Rollout(canary=1, wave="25%"), [1, 2, 2, 2, 2, 1]),
        (Rollout(wave="1%"), [1] * 10),
        (Rollout(wave="0.1%"), [1] * 10),
        (Rollout(wave="100%"), [10]),
    ],
)
def test_waves_of_ten(rollout: Rollout, sizes: list[int]) -> None:
    """A canary is the first wave; a percentage is of the whole fleet, rounded down, and at least one server."""
    assert [len(wave) for wave in rollout.waves([ids(10)])] == sizes


def test_waves_keep_to_zones() -> None:
    """No wave reaches over two zones, and the canary is of the first."""
    waves = Rollout(canary=1, wave=2).waves([["a1", "a2", "a3", "a4"], ["b1", "b2", "b3"]])
    assert waves == [["a1"], ["a2", "a3"], ["a4"], ["b1", "b2"], ["b3"]]


def test_waves_of_nobody() -> None:
    """No servers make no wave."""
    assert Rollout(canary=1, wave=2).waves([[]]) == []


@given(
    sizes=st.lists(st.integers(0, 40), max_size=5),
    canary=st.integers(0, 50),
    wave=st.none() | st.integers(1, 50) | st.sampled_from(["1%", "33%", "33.3%", "100%"]),
)
def test_waves_are_the_fleet(sizes: list[int], canary: int, wave: int | str | None) -> None:
    """Whatever is asked, every server is in one wave, in the order given, and no wave is empty."""
    zones = [[f"{zone}-{number}" for number in range(size)] for zone, size in enumerate(sizes)]
    waves = Rollout(canary=canary, wave=wave).waves(zones)
    assert [one for part in waves for one in part] == [one for zone in zones for one in zone]
    assert all(waves)


@pytest.mark.parametrize(
    ("given_", "fleet", "failures"),
    [
        (None, 1, 5),
        (None, 100, 5),
        (None, 119, 5),
        (None, 120, 6),
        (None, 20_000, 1000),
        (0, 100, 0),
        (7, 3, 7),
        ("0%", 100, 0),
        ("1%", 99, 0),
        ("1%", 199, 1),
        ("0.5%", 1000, 5),
        ("29%", 100, 29),
        ("100%", 37, 37),
    ],
)
def test_failures_allowed(given_: int | str | None, fleet: int, failures: int) -> None:
    """A percentage is rounded down, exactly; without a budget it is 5 %, and 5 for a small fleet."""
    assert Rollout(max_failures=given_).failures_allowed(fleet) == failures


@pytest.mark.parametrize(("fleet", "refusals"), [(1, 20), (200, 20), (210, 21), (20_000, 2000)])
def test_refusals_allowed(fleet: int, refusals: int) -> None:
    """Without a budget it is 10 %, and 20 for a small fleet."""
    assert Rollout().refusals_allowed(fleet) == refusals


@pytest.mark.parametrize(
    ("rollout", "places"),
    [
        (Rollout(), None),
        (Rollout(max_down=3), 3),
        (Rollout(max_down="10%"), 5),
        (Rollout(max_down="1%"), 1),
        (Rollout(max_down="budget", max_failures=0), 1),
        (Rollout(max_down="budget", max_failures="4%"), 3),
        (Rollout(max_down="budget"), 6),
    ],
)
def test_places(rollout: Rollout, places: int | None) -> None:
    """What may be down at once is at least one server; by the budget, one more than may fail."""
    assert rollout.places(59) == places


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"canary": -1}, "canary must be a whole number from 0 up, not -1"),
        ({"canary": True}, "canary must be"),
        ({"canary": "10%"}, "canary must be"),
        ({"wave": 0}, r'wave must be a whole number from 1 up, or a percentage such as "10%", not 0'),
        ({"wave": "0%"}, "wave must be"),
        ({"wave": "101%"}, "wave must be"),
        ({"wave": "ten"}, "wave must be"),
        ({"wave": "10"}, "wave must be"),
        ({"wave": "-1%"}, "wave must be"),
        ({"wave": "1e1%"}, "wave must be"),
        ({"wave": "٣%"}, "wave must be"),  # a digit, to Python
        ({"wave": 0.5}, "wave must be"),
        ({"wave": True}, "wave must be"),
        ({"max_down": 0}, r'max_down must be a whole number from 1 up, or a percentage such as "10%", or "budget"'),
        ({"max_down": "Budget"}, "max_down must be"),
        ({"max_failures": -1}, "max_failures must be a whole number from 0 up"),
        ({"max_failures": "budget"}, "max_failures must be"),
        ({"max_refused": "100.1%"}, "max_refused must be"),
        ({"max_refused": "1" * 10_000}, "max_refused must be"),
        ({"wave": 1, "pause": -1.0}, "pause must be a positive number of seconds"),
        ({"wave": 1, "pause": float("nan")}, "pause must be"),
        ({"wave": 1, "pause": "5"}, "pause must be"),
        ({"pause": 5.0}, 'pause is between waves, and there is one: give canary, wave or spread="az" too'),
        ({"spread": "rack"}, 'spread must be "az", "host" or a plain function of a Server'),
        ({"spread": 5}, "spread must be"),
        ({"spread": wait_for_it}, "spread must be"),
    ],
)
def test_what_makes_no_sense(arguments: dict[str, Any], words: str) -> None:
    """Each mistake is refused in one line that names the argument and what it may be."""
    with pytest.raises(ValueError, match=f"^{words}") as caught:
        Rollout(**arguments)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("rollout", "needs_wait"),
    [
        (Rollout(), False),
        (Rollout(max_failures=0, max_refused="5%"), False),
        (Rollout(canary=1), True),
        (Rollout(wave="5%"), True),
        (Rollout(max_down=5), True),
        (Rollout(spread="host"), True),
    ],
)
def test_what_goes_by_servers_that_are_back(rollout: Rollout, needs_wait: bool) -> None:
    """Waves, places and domains need to know who is back; budgets do not."""
    assert rollout.needs_wait is needs_wait


def test_domains() -> None:
    """A host is a domain where it is shown, a zone is none, and a function names its own."""
    server = Server(id="s", host_id="h", availability_zone="z", metadata={"role": "db"})
    by_host, by_role = Rollout(spread="host").domain, Rollout(spread=lambda one: one.metadata["role"]).domain
    assert by_host is not None
    assert (by_host(server), by_host(Server(id="s"))) == ("h", None)
    assert by_role is not None
    assert by_role(server) == "db"
    assert Rollout(spread="az").domain is None


HARM = [(Outcome.FAILED, reason) for reason in (Reason.ERROR, Reason.NOT_BACK, Reason.WRONG_STATE)]
HARM += [(Outcome.IN_DOUBT, reason) for reason in (Reason.UNANSWERED, Reason.INTERRUPTED)]
UP = [(Outcome.FAILED, Reason.NOT_REBOOTED), (Outcome.FAILED, Reason.GONE), (Outcome.IN_DOUBT, Reason.GONE)]
LEFT_OUT = [(Outcome.REFUSED, reason) for reason in (Reason.NOT_FOUND, Reason.LOCKED, Reason.BUSY, Reason.FORBIDDEN)]
LEFT_OUT += [(Outcome.SKIPPED, reason) for reason in (Reason.LOCKED, Reason.HISTORY_UNREADABLE, Reason.UNREACHABLE)]
NOT_OUR_MATTER: list[tuple[Outcome, Reason | None]] = [
    (Outcome.SKIPPED, reason) for reason in (Reason.STOPPED, Reason.HELD_BACK, Reason.NOT_STARTED)
]
NOT_OUR_MATTER += [(Outcome.REFUSED, Reason.STOPPED), (Outcome.ACCEPTED, None), (Outcome.COMPLETED, None)]


@pytest.mark.parametrize(
    ("cases", "kind"),
    [
        (HARM, (True, False, True)),
        (UP, (True, False, False)),
        (LEFT_OUT, (False, True, False)),
        (NOT_OUR_MATTER, (False, False, False)),
    ],
)
def test_kinds_of_outcomes(cases: list[tuple[Outcome, Reason | None]], kind: tuple[bool, bool, bool]) -> None:
    """Harm is what was sent to and is not well; a refusal is about the server; and harm may leave it up."""
    for case in cases:
        one = result(*case)
        assert (is_harm(one), is_refusal(one), stays_down(one)) == kind, case


@pytest.mark.parametrize("allowed", [0, 1, 5])
@pytest.mark.parametrize(
    ("cases", "budget", "reason"),
    [
        (HARM + UP, "max_failures", StopReason.MAX_FAILURES),
        (LEFT_OUT, "max_refused", StopReason.MAX_REFUSED),
    ],
)
def test_budget_is_exceeded_and_not_met(
    cases: list[tuple[Outcome, Reason | None]], budget: str, reason: StopReason, allowed: int
) -> None:
    """A run stops at one more than its budget allows, and what is no matter of the budget does not count."""
    arguments: dict[str, Any] = {budget: allowed}
    budgets = Budgets(Rollout(**arguments), 100)
    others = NOT_OUR_MATTER
    for number in range(allowed):
        assert budgets.note(result(*cases[number % len(cases)])) is None
        assert budgets.note(result(*others[number % len(others)])) is None
    stop = budgets.note(result(*cases[0]))
    assert stop is not None
    assert stop.reason is reason
    assert stop.detail.startswith(f"{allowed + 1} server")
    assert f"{budget} is {allowed}" in stop.detail


def test_budgets_are_apart() -> None:
    """37 ids that are no more do not use up a budget of 5 failures, and still stop a list that is wrong."""
    budgets = Budgets(Rollout(max_failures=5, max_refused=37), 1000)
    for _ in range(37):
        assert budgets.note(result(Outcome.REFUSED, Reason.NOT_FOUND)) is None
    for _ in range(5):
        assert budgets.note(result(Outcome.FAILED, Reason.ERROR)) is None
    for one, reason in (
        (result(Outcome.REFUSED, Reason.NOT_FOUND), StopReason.MAX_REFUSED),
        (result(Outcome.FAILED, Reason.ERROR), StopReason.MAX_FAILURES),
    ):
        stop = budgets.note(one)
        assert stop is not None
        assert stop.reason is reason


ALWAYS = [(Outcome.REFUSED, Reason.LOCKED), (Outcome.FAILED, Reason.NOT_BACK), (Outcome.COMPLETED, None)]
ALWAYS += [(Outcome.IN_DOUBT, Reason.GONE), (Outcome.IN_DOUBT, Reason.UNANSWERED)]
ALWAYS += [(Outcome.SKIPPED, Reason.WRONG_STATE)]
NEVER = [(Outcome.REFUSED, reason) for reason in (Reason.FORBIDDEN, Reason.UNAUTHORIZED, Reason.WRONG_ENDPOINT)]
NEVER += [(Outcome.SKIPPED, reason) for reason in (Reason.UNREACHABLE, Reason.HISTORY_UNREADABLE, Reason.STOPPED)]
NEVER += [(Outcome.IN_DOUBT, Reason.INTERRUPTED)]
IN_VAIN = [(Outcome.REFUSED, Reason.BUSY), (Outcome.REFUSED, Reason.ATTEMPTS_EXHAUSTED)]


@pytest.mark.parametrize("exhausted", [0, 1, 2, 3, 50])
@pytest.mark.parametrize(
    ("cases", "alone", "together"), [(ALWAYS, True, True), (NEVER, False, False), (IN_VAIN, True, False)]
)
def test_whose_doing_an_outcome_is(
    cases: list[tuple[Outcome, Reason | None]], alone: bool, together: bool, exhausted: int
) -> None:
    """What the cloud does to all is no server's; and a server that is given up is, unless several are together."""
    for case in cases:
        assert is_about_server(result(*case), exhausted=exhausted) is (together if exhausted >= 3 else alone), case
