"""Whose turn it is: places and domains are never overdrawn, and nobody in line is forgotten."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from bulkrestart import Outcome, Reason, Rollout, ServerResult, Stop, StopReason
from bulkrestart.core.decision import End
from bulkrestart.core.model import RebootType
from bulkrestart.core.rollout import is_harm, stays_down
from bulkrestart.core.turns import Turns


def end(server_id: str, outcome: Outcome = Outcome.COMPLETED, reason: Reason | None = None) -> ServerResult:
    """Give a server its outcome."""
    return ServerResult(server_id=server_id, outcome=outcome, reason=reason, reboot_type=RebootType.SOFT)


def line_up(turns: Turns, server_ids: Iterable[str]) -> None:
    """Put servers in line, one after the other."""
    for server_id in server_ids:
        turns.line_up(server_id)


def take_all(turns: Turns) -> list[str]:
    """Take whoever can be taken."""
    taken = []
    while (server_id := turns.take()) is not None:
        taken.append(server_id)
    return taken


def test_without_bounds() -> None:
    """Everybody in line has a turn at once, in the order of the line."""
    turns = Turns(Rollout(), 3, {})
    line_up(turns, ["a", "b", "c"])
    assert turns.waiting == 3
    assert take_all(turns) == ["a", "b", "c"]
    assert (turns.waiting, turns.under_way, turns.is_stuck) == (0, 3, False)


def test_places() -> None:
    """A place is free when its server is back, and not before."""
    turns = Turns(Rollout(max_down=2), 4, {})
    line_up(turns, "abcd")
    assert take_all(turns) == ["a", "b"]
    turns.end(end("b"))
    assert take_all(turns) == ["c"]


def test_a_server_that_stays_down_keeps_its_place() -> None:
    """What does not come back is down, and when every place is so taken the line is stuck."""
    turns = Turns(Rollout(max_down=2), 4, {})
    line_up(turns, "abcd")
    assert take_all(turns) == ["a", "b"]
    turns.end(end("a", Outcome.FAILED, Reason.ERROR))
    assert (take_all(turns), turns.is_stuck) == ([], False)
    turns.end(end("b", Outcome.IN_DOUBT, Reason.UNANSWERED))
    assert (take_all(turns), turns.is_stuck, turns.is_full) == ([], True, True)
    stop = turns.impasse()
    assert isinstance(stop, Stop)
    assert stop.reason is StopReason.MAX_DOWN
    assert stop.detail.startswith("2 servers did not come back, and more may not be down (max_down)")


def test_a_failure_that_is_up_frees_its_place() -> None:
    """A reboot that failed before it reached the host leaves the server up."""
    turns = Turns(Rollout(max_down=1), 2, {})
    line_up(turns, "ab")
    turns.take()
    turns.end(end("a", Outcome.FAILED, Reason.NOT_REBOOTED))
    assert turns.take() == "b"


def test_every_failure_uses_up_the_budget() -> None:
    """By the budget, a place is gone with each failure, whether the server is up or not."""
    turns = Turns(Rollout(max_down="budget", max_failures=1), 4, {})
    line_up(turns, "abcd")
    assert take_all(turns) == ["a", "b"]
    turns.end(end("a", Outcome.FAILED, Reason.NOT_REBOOTED))
    assert take_all(turns) == []
    turns.end(end("b"))
    assert take_all(turns) == ["c"]


def test_what_failed_in_a_former_process() -> None:
    """A budget has lost those places already; a bound on what is down has not."""
    for max_down, places in (("budget", 2), (3, 3)):
        turns = Turns(Rollout(max_down=max_down, max_failures=2), 5, {})
        turns.count_former(end("a", Outcome.FAILED, Reason.ERROR))
        turns.count_former(end("b"))
        line_up(turns, "cdefg")
        assert len(take_all(turns)) == places


def test_domains() -> None:
    """One of a domain at a time; the others let those behind them pass, and come next when it is back."""
    turns = Turns(Rollout(), 5, {"a1": "a", "a2": "a", "b1": "b", "a3": "a"})
    line_up(turns, ["a1", "a2", "b1", "a3", "free"])
    assert take_all(turns) == ["a1", "b1", "free"]
    turns.end(end("b1"))
    assert take_all(turns) == []
    turns.end(end("a1"))
    assert take_all(turns) == ["a2"]
    turns.end(end("a2", Outcome.FAILED, Reason.NOT_BACK))
    turns.end(end("free"))
    assert (take_all(turns), turns.is_stuck, turns.is_full) == ([], True, False)
    held = turns.impasse()
    assert isinstance(held, End)
    assert (held.outcome, held.reason) == (Outcome.SKIPPED, Reason.HELD_BACK)
    assert turns.give_up() == ["a3"]
    assert (turns.waiting, turns.is_stuck) == (0, False)


def test_a_domain_stays_held_for_the_next_wave() -> None:
    """Who lines up later finds the domain as it is."""
    turns = Turns(Rollout(), 3, {"a1": "a", "a2": "a"})
    line_up(turns, ["a1"])
    turns.take()
    turns.end(end("a1", Outcome.FAILED, Reason.ERROR))
    line_up(turns, ["a2"])
    assert (take_all(turns), turns.is_stuck) == ([], True)


def test_what_a_former_process_sent() -> None:
    """Servers that are down already count, also beyond the bounds, and free what they held one by one."""
    turns = Turns(Rollout(max_down=1), 4, {"a1": "a", "a2": "a", "a3": "a"})
    turns.begin("a1")
    turns.begin("a2")
    line_up(turns, ["a3"])
    assert (take_all(turns), turns.under_way) == ([], 2)
    turns.end(end("a1"))
    assert take_all(turns) == []
    turns.end(end("a2"))
    assert take_all(turns) == ["a3"]


def test_giving_up_empties_every_line() -> None:
    """Those with a domain and those without are given once each."""
    turns = Turns(Rollout(max_down=1), 4, {"a1": "a", "a2": "a"})
    line_up(turns, ["free", "a1", "other", "a2"])
    turns.take()
    turns.end(end("free", Outcome.FAILED, Reason.ERROR))
    assert turns.is_stuck
    assert sorted(turns.give_up()) == ["a1", "a2", "other"]
    assert take_all(turns) == []


ENDS = [
    (Outcome.COMPLETED, None),
    (Outcome.REFUSED, Reason.LOCKED),
    (Outcome.FAILED, Reason.ERROR),
    (Outcome.FAILED, Reason.NOT_REBOOTED),
    (Outcome.IN_DOUBT, Reason.UNANSWERED),
]


@given(
    domains=st.lists(st.none() | st.integers(0, 3), max_size=30),
    max_down=st.none() | st.integers(1, 5) | st.just("budget"),
    moves=st.lists(st.tuples(st.integers(0, 50), st.sampled_from(ENDS)), max_size=60),
)
def test_laws(
    domains: list[int | None], max_down: int | str | None, moves: list[tuple[int, tuple[Outcome, Reason | None]]]
) -> None:
    """Whoever comes back in whatever order: bounds hold, everybody has one turn, and a stuck line is truly stuck."""
    fleet = [str(number) for number in range(len(domains))]
    rollout = Rollout(max_down=max_down, max_failures=2)
    domain_of = {one: domain for one, domain in zip(fleet, domains, strict=True) if domain is not None}
    turns = Turns(rollout, len(fleet), domain_of)
    places, keeps_place = rollout.places(len(fleet)), is_harm if max_down == "budget" else stays_down
    line_up(turns, fleet)
    under_way: list[str] = []
    taken: list[str] = []
    lost: list[ServerResult] = []
    for number, (outcome, reason) in [*moves, *[(0, ENDS[0])] * len(fleet)]:
        new = take_all(turns)
        under_way += new
        taken += new
        if places is not None:
            assert len(under_way) + sum(map(keeps_place, lost)) <= places
        down = [domain_of.get(one) for one in under_way]
        down += [domain_of.get(one.server_id) for one in lost if stays_down(one)]
        known = [domain for domain in down if domain is not None]
        assert len(known) == len(set(known))
        assert turns.under_way == len(under_way)
        assert turns.waiting == len(fleet) - len(taken)
        assert turns.is_stuck == (turns.waiting > 0 and not under_way)
        if under_way:
            back = end(under_way.pop(number % len(under_way)), outcome, reason)
            turns.end(back)
            if outcome is not Outcome.COMPLETED:
                lost.append(back)
    assert len(set(taken)) == len(taken)
    assert sorted([*taken, *turns.give_up()]) == sorted(fleet)
