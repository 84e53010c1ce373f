"""How many requests at once: fewer where the cloud limits the rate or is overloaded, and what latency allows."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.limits.concurrency import (
    LEAST,
    LONGEST_WAIT,
    MEASURED,
    MEASURED_EVERY,
    AimdLimit,
    GradientLimit,
    OverloadLimit,
)


def grown(limit: AimdLimit, answers: int, *, sent_at: float = 1000.0) -> AimdLimit:
    """Let so many requests get through that filled the limit."""
    for _ in range(answers):
        limit.grow(sent_at=sent_at, is_full=True)
    return limit


def signalled(*, most: int = 100) -> AimdLimit:
    """Make a limit after a rate signal and the slow start up to half of its former value."""
    limit = AimdLimit(most)
    limit.restart(10.0, sent_at=9.0, is_rate_signal=True)
    return grown(limit, most // 2 - 1)


def test_it_begins_at_the_most() -> None:
    """Where nothing goes wrong nothing is held back."""
    assert AimdLimit(50).at_once == 50
    assert grown(AimdLimit(50), 1000).at_once == 50


def test_it_recovers_by_one_for_each_round_trip() -> None:
    """Above half of the former limit as many answers as are at once make it one more."""
    limit = signalled()

    assert [grown(limit, 51).at_once, grown(limit, 52).at_once, grown(limit, 53).at_once] == [51, 52, 53]


def test_what_left_before_the_decrease_does_not_make_it_grow() -> None:
    """An answer to a request that left under the former limit says nothing of this one."""
    assert grown(signalled(), 500, sent_at=10.0).at_once == 50


def test_a_limit_that_nothing_reaches_does_not_grow() -> None:
    """A poll now and then does not show that the cloud would bear a hundred at once."""
    limit = signalled()
    for _ in range(10_000):
        limit.grow(sent_at=1000.0, is_full=False)

    assert limit.at_once == 50


def test_after_a_pause_one_probe_then_slow_start_up_to_half_then_one_by_one() -> None:
    """One leaves; each answer makes it one more up to half of what it was; from there it takes a round trip for one."""
    limit = AimdLimit(100)
    limit.restart(10.0, sent_at=9.0, is_rate_signal=True)

    assert limit.at_once == 1
    assert [grown(limit, 1, sent_at=11.0).at_once for _ in range(49)] == list(range(2, 51))
    assert grown(limit, 49, sent_at=11.0).at_once == 50
    assert grown(limit, 2, sent_at=11.0).at_once == 51


def test_a_probe_that_is_throttled_leaves_half_of_the_former_limit_to_go_for() -> None:
    """However often the probe is throttled, slow start still goes up to half of what there was before."""
    limit = AimdLimit(100)
    for number in range(10):
        limit.restart(10.0 + number, sent_at=9.5 + number, is_rate_signal=True)

    assert grown(limit, 49).at_once == 50
    assert grown(limit, 1).at_once == 50


def test_a_pause_that_is_no_rate_signal_costs_no_half() -> None:
    """A refused token, or one 503 with Retry-After, says nothing about how much the cloud can handle."""
    limit = AimdLimit(100)
    limit.restart(10.0, sent_at=9.0, is_rate_signal=False)

    assert limit.at_once == 1
    assert grown(limit, 99).at_once == 100


def test_a_fixed_limit_ramps_after_a_pause() -> None:
    """A fixed limit is not halved, but after a pause the first request is a probe."""
    limit = AimdLimit(100, is_adaptive=False)
    limit.restart(2.0, sent_at=1.5, is_rate_signal=True)

    assert limit.at_once == 1
    assert grown(limit, 99).at_once == 100


@given(
    most=st.integers(1, 300),
    steps=st.lists(st.tuples(st.sampled_from(["restart", "grow"]), st.floats(-2.0, 0.0)), max_size=200),
)
def test_limit_stays_between_one_and_the_most(most: int, steps: list[tuple[str, float]]) -> None:
    """Whatever is recorded, the limit is at least one and at most `most`."""
    limit = AimdLimit(most)
    for now, (what, ago) in enumerate(steps):
        match what:
            case "restart":
                limit.restart(float(now), sent_at=now + ago, is_rate_signal=now % 2 == 0)
            case _:
                limit.grow(sent_at=now + ago, is_full=True)
        assert 1 <= limit.at_once <= most


#: Tells of a request whether it is shed: from how many are in flight, itself among them.
Shed = Callable[[int], bool]


def flights(limit: OverloadLimit, count: int, shed: Shed, *, began: float = 0.0, demand: int = 10_000) -> list[int]:
    """Let flights of requests leave, one a second, each as large as the limit; return how large they were.

    Args:
        limit: The limit.
        count: How many flights.
        shed: Whether the request is shed that leaves as the first, second ... of its flight.
        began: When the first leaves.
        demand: How many want to leave at once.
    """
    sizes = []
    for number in range(count):
        now = began + number
        size = min(limit.at_once, demand)
        sizes.append(size)
        for place in range(1, size + 1):
            limit.record_sent(now, in_flight=place, is_reachable=True)
        for place in range(1, size + 1):
            limit.record(now + 0.5, sent_at=now, is_overload=shed(place))
    return sizes


def bears(capacity: int) -> Shed:
    """Return an API that works on `capacity` requests at once and sheds the others."""
    return lambda place: place > capacity


def drawn(share: float, seed: int = 0) -> Shed:
    """Return servers of which a share is faulty, however many requests are in flight."""
    rng = Random(seed)
    return lambda _: rng.random() < share


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.005, 0.02, 0.05, 0.1])
def test_faulty_servers_do_not_shrink_the_limit(share: float, seed: int) -> None:
    """Up to 10 % of faulty servers cost less than 10 % of the rate."""
    sizes = flights(OverloadLimit(50), 300, drawn(share, seed))

    assert sum(sizes) / 300 >= 45
    assert min(sizes) >= 25


@pytest.mark.unmeasured
@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 10, 19, 33, 49])
@pytest.mark.parametrize("most", [50, 200])
def test_the_capacity_of_an_overloaded_api_is_found(most: int, capacity: int) -> None:
    """Within 40 round trips the limit is what the API works on; after that, trials of one more become rare."""
    limit = OverloadLimit(most)
    flights(limit, 40 + 10 // capacity * 40, bears(capacity))
    sizes = flights(limit, 400, bears(capacity), began=1000.0)
    shed = sum(max(0, size - capacity) for size in sizes)

    # A cohort that is shed up to the tolerated share is left alone.
    assert capacity * 0.9 <= sum(sizes) / 400 <= capacity * 1.12
    assert shed / sum(sizes) < 0.1


@pytest.mark.parametrize(("capacity", "round_trips"), [(1, 40), (10, 20), (25, 20)])
def test_it_recovers_when_the_overload_is_over(capacity: int, round_trips: int) -> None:
    """After an overload of a few round trips, the limit is back at its maximum within as few."""
    limit = OverloadLimit(50)
    flights(limit, 10, bears(capacity))

    assert flights(limit, round_trips, bears(50), began=100.0)[-1] == 50


def test_it_recovers_from_a_long_overload() -> None:
    """However long the overload lasted, a higher limit is tried after at most `LONGEST_WAIT` cohorts."""
    limit = OverloadLimit(50)
    flights(limit, 1000, bears(10))

    assert flights(limit, 2 * LONGEST_WAIT + 20, bears(50), began=2000.0)[-1] == 50


@pytest.mark.parametrize("shed", [bears(0), drawn(0.9)], ids=["all", "most"])
def test_an_api_that_sheds_most_gets_one_at_a_time(shed: Shed) -> None:
    """If more than half is shed at any limit, the limit falls at once and stays near one."""
    limit = OverloadLimit(50)
    sizes = flights(limit, 100, shed)

    assert sizes[:4] == [50, 25, 12, 6]
    assert sum(sizes[20:]) / 80 < 2.0


def test_a_burst_of_time_outs_from_many_cohorts_is_none() -> None:
    """Fifty requests to faulty servers time out in a row, after all others were answered."""
    limit, slow = OverloadLimit(50), []
    for now in range(10):
        for place in range(1, 51):
            limit.record_sent(float(now), in_flight=place, is_reachable=True)
        for _ in range(45):
            limit.record(now + 0.5, sent_at=float(now), is_overload=False)
        slow += [float(now)] * 5
    for sent_at in slow:
        limit.record(60.0, sent_at=sent_at, is_overload=True)

    assert limit.at_once == 50


def test_a_cohort_that_ends_in_time_outs_is_overload() -> None:
    """If most of the requests that left together are not answered in time, the limit is halved."""
    limit = OverloadLimit(50)
    for place in range(1, 51):
        limit.record_sent(1.0, in_flight=place, is_reachable=True)
    for number in range(50):
        limit.record(61.0, sent_at=1.0, is_overload=number >= 20)

    assert limit.at_once == 25


def test_a_raised_limit_that_nothing_reaches_is_not_kept() -> None:
    """Ten requests at once do not show that the API can handle fifty."""
    limit = OverloadLimit(50)
    flights(limit, 3, bears(0))
    assert limit.at_once == 6
    flights(limit, 50, bears(50), began=100.0, demand=3)

    assert limit.at_once == 6


def test_a_trial_that_nothing_reaches_is_no_trial() -> None:
    """If the requests run out while a higher limit is tried, the former limit is kept."""
    limit = OverloadLimit(50)
    flights(limit, 3, bears(0))
    assert limit.at_once == 6
    flights(limit, 4, bears(50), began=100.0)
    tried = limit.at_once
    flights(limit, 50, bears(50), began=200.0, demand=3)

    assert 6 <= limit.at_once < tried


def test_no_cohort_begins_below_another_limit() -> None:
    """While another limit allows fewer requests, answers say nothing about this one."""
    limit = OverloadLimit(50)
    for now in range(100):
        for place in range(1, 6):
            limit.record_sent(float(now), in_flight=place, is_reachable=False)
            limit.record(now + 0.5, sent_at=float(now), is_overload=True)

    assert limit.at_once == 50


def test_what_left_under_another_limit_says_nothing() -> None:
    """Late answers to requests from before a decrease do not cause the next one."""
    limit = OverloadLimit(50)
    flights(limit, 1, bears(0))
    for _ in range(1000):
        limit.record(2.0, sent_at=0.0, is_overload=True)

    assert limit.at_once == 25


@given(
    most=st.integers(1, 300),
    steps=st.lists(
        st.tuples(st.sampled_from(["send", "answer", "restart", "shrink"]), st.floats(0.0, 3.0), st.booleans()),
        max_size=400,
    ),
)
def test_overload_limit_stays_between_one_and_the_most(most: int, steps: list[tuple[str, float, bool]]) -> None:
    """Whatever is recorded, the limit is at least one and at most `most`."""
    limit = OverloadLimit(most)
    for now, (what, ago, flag) in enumerate(steps):
        match what:
            case "send":
                limit.record_sent(float(now), in_flight=limit.at_once, is_reachable=flag)
            case "answer":
                limit.record(float(now), sent_at=now - ago, is_overload=flag)
            case "restart":
                limit.restart(float(now))
            case _:
                limit.shrink(float(now))
        assert 1 <= limit.at_once <= most


class Api:
    """An API that works on `capacity` requests at once, `seconds` each; the others queue. All that may, are at once."""

    def __init__(self, capacity: float, seconds: float = 0.1) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self.now = 0.0

    def serve(self, limit: GradientLimit, answers: int) -> list[int]:
        """Answer so many requests, each as late as its limit makes it; give the limit after each."""
        seen = []
        for _ in range(answers):
            at_once = limit.at_once
            latency = self.seconds * max(1.0, at_once / self.capacity)
            self.now += latency / at_once
            limit.record(self.now, sent_at=self.now - latency, is_full=True)
            seen.append(limit.at_once)
        return seen


def spread(values: Iterable[int]) -> tuple[int, int]:
    """Give the lowest and the highest."""
    ordered = sorted(values)
    return ordered[0], ordered[-1]


@pytest.mark.parametrize(("capacity", "lowest", "highest"), [(1, 3, 72), (4, 4, 72), (16, 16, 75), (40, 40, 180)])
def test_latency_limit_finds_the_concurrency_that_an_api_works_on(capacity: int, lowest: int, highest: int) -> None:
    """It stays above what the API works on at once, with some roots of that in the queue."""
    limit, api = GradientLimit(200), Api(capacity)
    api.serve(limit, 1000)

    low, high = spread(value for value in api.serve(limit, 400) if value != LEAST or capacity <= LEAST)

    assert lowest <= low <= high <= highest


def test_latency_limit_comes_to_the_most_where_the_api_bears_it() -> None:
    """An API whose latency does not grow gets all that is allowed, within some hundred answers."""
    limit = GradientLimit(100)

    assert Api(1000).serve(limit, 500)[-1] == 100


def test_latency_limit_begins_with_a_measurement() -> None:
    """Until the latency of an idle API is known, `LEAST` are in flight, or fewer where fewer are allowed."""
    assert set(Api(1000).serve(GradientLimit(100), MEASURED - 1)) == {LEAST}
    assert set(Api(1000).serve(GradientLimit(2), 100)) == {2}


def test_latency_is_measured_again() -> None:
    """An API that has become slower for good is not taken for a full one for ever."""
    limit, api = GradientLimit(200), Api(150)
    api.serve(limit, 300)
    api.seconds = 1.0
    slow = api.serve(limit, 600)
    assert slow[-1] < 150
    while api.now < 2 * MEASURED_EVERY:
        slow = api.serve(limit, 100)

    assert api.serve(limit, 500)[-1] >= 150


def test_what_left_under_another_limit_is_no_sample() -> None:
    """Answers to requests that queued under a higher limit do not push this one down any further."""
    limit, api = GradientLimit(100), Api(1000)
    api.serve(limit, 600)
    for _ in range(1000):
        limit.record(api.now, sent_at=api.now - 60.0, is_full=True)

    assert limit.at_once == 100


def test_latency_says_nothing_of_a_limit_that_nobody_comes_to() -> None:
    """A few requests that take longer for reasons of their own do not change what is known of many."""
    limit, api = GradientLimit(100), Api(1000)
    api.serve(limit, 600)
    for _ in range(500):
        api.now += 1.0
        limit.record(api.now, sent_at=api.now - 0.9, is_full=False)

    assert limit.at_once in (100, LEAST)


@given(
    most=st.integers(1, 300),
    latencies=st.lists(st.floats(0.0, 100.0), max_size=400),
)
def test_latency_limit_stays_between_one_and_the_most(most: int, latencies: list[float]) -> None:
    """Whatever the latencies are, none at all among them, it stays where it is allowed to be."""
    limit, now = GradientLimit(most), 0.0
    for latency in latencies:
        now += latency + 0.001
        limit.record(now, sent_at=now - latency, is_full=True)
        assert 1 <= limit.at_once <= most


@pytest.mark.parametrize(
    ("is_shed", "waits"),
    [(lambda number: number % 5 == 0, [2, 4, 8, 16, 32]), (lambda number: number >= 10, [3, 5, 9, 17, 33])],
    ids=["lower", "higher"],
)
def test_failed_trials_become_rare(is_shed: Callable[[int], bool], waits: list[int]) -> None:
    """A failed trial is repeated after 2, 4, 8 ... cohorts, the first of which is its own only for a lower limit."""
    limit, tried = OverloadLimit(20), []
    for cohort in range(90):
        at_once = limit.at_once
        tried.append(at_once)
        left = [cohort + number / 1000 for number in range(max(10, at_once))]
        for sent_at in left:
            limit.record_sent(sent_at, in_flight=at_once, is_reachable=True)
        for number, sent_at in enumerate(left):
            limit.record(cohort + 0.5, sent_at=sent_at, is_overload=is_shed(number))
    usual = max(set(tried), key=tried.count)
    trials = [cohort for cohort, at_once in enumerate(tried) if at_once != usual]
    assert [later - earlier for earlier, later in pairwise(trials)][-len(waits) :] == waits
