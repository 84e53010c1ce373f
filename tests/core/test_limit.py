"""How many requests at once: halved where the cloud is overcharged, and found by latency where that is asked for."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.core.limit import LEAST, MEASURED, MEASURED_EVERY, LatencyLimit, Limit


def halved(times: int, *, most: int = 100) -> Limit:
    """Give a limit that was halved so often, a second apart."""
    limit = Limit(most)
    for number in range(times):
        limit.halve(float(number), sent_at=number - 0.5)
    return limit


def grown(limit: Limit, answers: int, *, sent_at: float = 1000.0) -> Limit:
    """Let so many requests get through that filled the limit."""
    for _ in range(answers):
        limit.grow(sent_at=sent_at, is_full=True)
    return limit


def test_it_begins_at_the_most() -> None:
    """Where nothing goes wrong nothing is held back."""
    assert Limit(50).at_once == 50
    assert grown(Limit(50), 1000).at_once == 50


def test_it_halves_and_never_ends() -> None:
    """Each overcharge that is answered to a request sent since the last leaves half as many, and one at least."""
    assert [halved(times).at_once for times in range(9)] == [100, 50, 25, 12, 6, 3, 1, 1, 1]


def test_requests_in_flight_together_halve_it_once() -> None:
    """A hundred time-outs of requests that left before the decrease are one overcharge."""
    limit = Limit(100)
    for _ in range(100):
        limit.halve(10.0, sent_at=9.0)
    limit.halve(12.0, sent_at=10.0)

    assert limit.at_once == 50


def test_it_recovers_by_one_for_each_round_trip() -> None:
    """After a decrease as many answers as are at once make it one more."""
    limit = halved(1)

    assert [grown(limit, 51).at_once, grown(limit, 52).at_once, grown(limit, 53).at_once] == [51, 52, 53]


def test_what_left_before_the_decrease_does_not_make_it_grow() -> None:
    """An answer to a request that left under the former limit says nothing of this one."""
    assert grown(halved(1), 500, sent_at=0.0).at_once == 50


def test_a_limit_that_nobody_comes_to_does_not_grow() -> None:
    """A poll now and then does not show that the cloud would bear a hundred at once."""
    limit = halved(1)
    for _ in range(10_000):
        limit.grow(sent_at=1000.0, is_full=False)

    assert limit.at_once == 50


def test_after_a_hold_one_probe_then_slow_start_up_to_half_then_one_by_one() -> None:
    """One leaves; each answer makes it one more up to half of what it was; from there it takes a round trip for one."""
    limit = Limit(100)
    limit.restart(10.0, sent_at=9.0, is_overcharged=True)

    assert limit.at_once == 1
    assert [grown(limit, 1, sent_at=11.0).at_once for _ in range(49)] == list(range(2, 51))
    assert grown(limit, 49, sent_at=11.0).at_once == 50
    assert grown(limit, 2, sent_at=11.0).at_once == 51


def test_a_probe_that_is_throttled_leaves_half_of_the_former_limit_to_go_for() -> None:
    """However often the probe is throttled, slow start still goes up to half of what there was before."""
    limit = Limit(100)
    for number in range(10):
        limit.restart(10.0 + number, sent_at=9.5 + number, is_overcharged=True)

    assert grown(limit, 49).at_once == 50
    assert grown(limit, 1).at_once == 50


def test_a_hold_that_is_not_for_an_overcharge_costs_no_half() -> None:
    """A token that was refused says nothing of how much the cloud bears: slow start goes all the way."""
    limit = Limit(100)
    limit.restart(10.0, sent_at=9.0, is_overcharged=False)

    assert limit.at_once == 1
    assert grown(limit, 99).at_once == 100


def test_a_fixed_limit_ramps_after_a_hold_and_halves_for_nothing() -> None:
    """Who wants it fixed has it fixed; but after a hold the first is a probe all the same."""
    limit = Limit(100, is_adaptive=False)
    limit.halve(1.0, sent_at=0.5)
    assert limit.at_once == 100
    limit.restart(2.0, sent_at=1.5, is_overcharged=True)

    assert limit.at_once == 1
    assert grown(limit, 99).at_once == 100


@given(
    most=st.integers(1, 300),
    steps=st.lists(st.tuples(st.sampled_from(["halve", "restart", "grow"]), st.floats(-2.0, 0.0)), max_size=200),
)
def test_limit_stays_between_one_and_the_most(most: int, steps: list[tuple[str, float]]) -> None:
    """Whatever comes, in whatever order, at least one request may leave and never more than was allowed."""
    limit = Limit(most)
    for now, (what, ago) in enumerate(steps):
        match what:
            case "halve":
                limit.halve(float(now), sent_at=now + ago)
            case "restart":
                limit.restart(float(now), sent_at=now + ago, is_overcharged=now % 2 == 0)
            case _:
                limit.grow(sent_at=now + ago, is_full=True)
        assert 1 <= limit.at_once <= most


class Api:
    """An API that works on `capacity` requests at once, `seconds` each; the others queue. All that may, are at once."""

    def __init__(self, capacity: float, seconds: float = 0.1) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self.now = 0.0

    def serve(self, limit: LatencyLimit, answers: int) -> list[int]:
        """Answer so many requests, each as late as its limit makes it; give the limit after each."""
        seen = []
        for _ in range(answers):
            at_once = limit.at_once
            latency = self.seconds * max(1.0, at_once / self.capacity)
            self.now += latency / at_once
            limit.note(self.now, sent_at=self.now - latency, is_full=True)
            seen.append(limit.at_once)
        return seen


def spread(values: Iterable[int]) -> tuple[int, int]:
    """Give the lowest and the highest."""
    ordered = sorted(values)
    return ordered[0], ordered[-1]


@pytest.mark.parametrize(("capacity", "lowest", "highest"), [(1, 3, 72), (4, 4, 72), (16, 16, 75), (40, 40, 180)])
def test_latency_limit_finds_the_concurrency_that_an_api_works_on(capacity: int, lowest: int, highest: int) -> None:
    """It stays above what the API works on at once, with some roots of that in the queue."""
    limit, api = LatencyLimit(200), Api(capacity)
    api.serve(limit, 1000)

    low, high = spread(value for value in api.serve(limit, 400) if value != LEAST or capacity <= LEAST)

    assert lowest <= low <= high <= highest


def test_latency_limit_comes_to_the_most_where_the_api_bears_it() -> None:
    """An API whose latency does not grow gets all that is allowed, within some hundred answers."""
    limit = LatencyLimit(100)

    assert Api(1000).serve(limit, 500)[-1] == 100


def test_latency_limit_begins_with_a_measurement() -> None:
    """Until the latency of an idle API is known, `LEAST` are in flight, or fewer where fewer are allowed."""
    assert set(Api(1000).serve(LatencyLimit(100), MEASURED - 1)) == {LEAST}
    assert set(Api(1000).serve(LatencyLimit(2), 100)) == {2}


def test_latency_is_measured_again() -> None:
    """An API that has become slower for good is not taken for a full one for ever."""
    limit, api = LatencyLimit(200), Api(150)
    api.serve(limit, 300)
    api.seconds = 1.0
    slow = api.serve(limit, 600)
    assert slow[-1] < 150
    while api.now < 2 * MEASURED_EVERY:
        slow = api.serve(limit, 100)

    assert api.serve(limit, 500)[-1] >= 150


def test_what_left_under_another_limit_is_no_sample() -> None:
    """Answers to requests that queued under a higher limit do not push this one down any further."""
    limit, api = LatencyLimit(100), Api(1000)
    api.serve(limit, 600)
    for _ in range(1000):
        limit.note(api.now, sent_at=api.now - 60.0, is_full=True)

    assert limit.at_once == 100


def test_latency_says_nothing_of_a_limit_that_nobody_comes_to() -> None:
    """A few requests that take longer for reasons of their own do not change what is known of many."""
    limit, api = LatencyLimit(100), Api(1000)
    api.serve(limit, 600)
    for _ in range(500):
        api.now += 1.0
        limit.note(api.now, sent_at=api.now - 0.9, is_full=False)

    assert limit.at_once in (100, LEAST)


@given(
    most=st.integers(1, 300),
    latencies=st.lists(st.floats(0.0, 100.0), max_size=400),
)
def test_latency_limit_stays_between_one_and_the_most(most: int, latencies: list[float]) -> None:
    """Whatever the latencies are, none at all among them, it stays where it is allowed to be."""
    limit, now = LatencyLimit(most), 0.0
    for latency in latencies:
        now += latency + 0.001
        limit.note(now, sent_at=now - latency, is_full=True)
        assert 1 <= limit.at_once <= most
