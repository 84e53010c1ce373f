"""When all requests are paused: after throttled answers, by the rate limiter, and by the circuit breaker."""

from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.limits.pacing import (
    FAILURES,
    FIRST_PAUSE,
    LAST_PROBE,
    LATENESS,
    LONGEST_PAUSE,
    OUTAGE,
    CircuitBreaker,
    FailingSends,
    PausableClock,
    RateLimiter,
    Throttle,
)

#: One throttled answer: when it came, what it asked for, when its request had left.
Throttled = tuple[float, float | None, float]


def throttled(*answers: Throttled) -> Throttle:
    """Return a throttle after these answers."""
    throttle = Throttle()
    for now, seconds, sent_at in answers:
        throttle.pause(now, seconds, sent_at=sent_at)
    return throttle


def test_way_is_free_at_first() -> None:
    """A throttle without a throttled answer pauses no request, at any time."""
    free = Throttle()

    assert [free.remaining(now) for now in (-1.0, 0.0, 1e9)] == [0.0, 0.0, 0.0]
    assert [free.paused_time(now) for now in (-1.0, 0.0, 1e9)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("answers", "free_at"),
    [
        pytest.param([(0.0, 17.0, -1.0)], 17.0, id="what the cloud asked"),
        pytest.param([(0.0, 0.0, -1.0)], 0.0, id="nothing"),
        pytest.param([(0.0, None, -1.0)], 1.0, id="no time"),
        pytest.param([(0.0, 17.0, -1.0), (1.0, 3.0, -1.0)], 17.0, id="a shorter one never undercuts a longer one"),
        pytest.param([(0.0, 3.0, -1.0), (1.0, 17.0, -1.0)], 18.0, id="a longer one counts from when it came"),
        pytest.param([(0.0, 17.0, -1.0), (1.0, None, 0.5)], 17.0, id="one without a time never undercuts it"),
        pytest.param([(0.0, None, -1.0), (0.5, 17.0, -1.0)], 17.5, id="one with a time after one without"),
        pytest.param([(0.0, 3.0, -1.0), (9.0, 3.0, 8.0)], 12.0, id="a new pause after the end of the last"),
        pytest.param([(0.0, 3.0, -1.0), (3.0, 3.0, 3.0)], 6.0, id="a new pause at the end of the last"),
    ],
)
def test_pause(answers: Sequence[Throttled], free_at: float) -> None:
    """All requests wait until the latest moment that any answer asked for, and no longer."""
    now = answers[-1][0]

    assert throttled(*answers).remaining(now) == free_at - now
    assert throttled(*answers).remaining(free_at) == 0.0
    assert throttled(*answers).remaining(free_at + 100.0) == 0.0


def test_no_answer_shortens_a_pause() -> None:
    """No later answer ends a pause that the cloud asked for."""
    for seconds in (None, 0.0, 1.0, 29.0, 31.0):
        for now in (0.0, 1.0, 29.9):
            for sent_at in (-5.0, 0.0, now):
                throttle = throttled((0.0, 30.0, -1.0), (now, seconds, sent_at))
                assert now + throttle.remaining(now) >= 30.0
                throttle.reset_backoff()
                assert now + throttle.remaining(now) >= 30.0


def backoff_pauses(count: int) -> list[float]:
    """Throttle so many requests, each sent as soon as the last pause was over, without naming a time."""
    throttle = Throttle()
    now, waits = 0.0, []
    for _ in range(count):
        now += 0.1
        throttle.pause(now, None, sent_at=now - 0.05)
        waits.append(throttle.remaining(now))
        now += waits[-1]
    return waits


def test_pauses_without_a_time_double_up_to_a_bound() -> None:
    """A cloud that keeps throttling without naming a time is asked less and less often, but at least once a minute."""
    assert backoff_pauses(8) == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0])
    assert (FIRST_PAUSE, LONGEST_PAUSE) == (1.0, 60.0)


def test_pauses_without_a_time_can_go_on_for_days() -> None:
    """A cloud that throttles everything for a day and a night gets the longest pause every time, and no error."""
    assert backoff_pauses(1500)[-1] == pytest.approx(LONGEST_PAUSE)


@pytest.mark.parametrize("sent_at", [-5.0, -0.1, 0.0], ids=["long before", "just before", "at the same moment"])
def test_requests_in_flight_together_count_once(sent_at: float) -> None:
    """Fifty throttled answers to requests from before the pause count as one."""
    throttle = throttled(*[(0.0, None, sent_at)] * 50)

    assert throttle.remaining(0.0) == FIRST_PAUSE


def test_late_answer_to_an_early_request_does_not_pause_again() -> None:
    """A throttled answer to a request from before the last pause starts no pause after it."""
    assert throttled((10.0, None, 9.0), (12.0, None, 9.5)).remaining(12.0) == 0.0


def test_reset_makes_the_next_pause_a_first_one() -> None:
    """After a request that got through, the back-off begins anew."""
    throttle = throttled((0.0, None, -1.0), (2.0, None, 1.5))
    assert throttle.remaining(2.0) == 2.0

    throttle.reset_backoff()
    throttle.pause(5.0, None, sent_at=4.5)

    assert throttle.remaining(5.0) == FIRST_PAUSE


@pytest.mark.parametrize(
    ("answers", "paused_at"),
    [
        pytest.param([(10.0, 5.0, 9.0)], {10.0: 0.0, 12.0: 2.0, 15.0: 5.0, 99.0: 5.0}, id="one pause"),
        pytest.param([(10.0, 0.0, 9.0)], {10.0: 0.0, 99.0: 0.0}, id="a pause of nothing"),
        pytest.param([(10.0, 5.0, 9.0), (12.0, 5.0, 9.0)], {12.0: 2.0, 17.0: 7.0, 99.0: 7.0}, id="overlapping"),
        pytest.param([(10.0, 5.0, 9.0), (20.0, 5.0, 19.0)], {20.0: 5.0, 22.0: 7.0, 99.0: 10.0}, id="one after another"),
        pytest.param([(10.0, 5.0, 9.0), (15.0, 5.0, 15.0)], {15.0: 5.0, 99.0: 10.0}, id="back to back"),
    ],
)
def test_paused_time_is_counted_once(answers: Sequence[Throttled], paused_at: dict[float, float]) -> None:
    """Overlapping pauses are counted once, so that a server's time-out can leave them out."""
    throttle = throttled(*answers)

    assert {now: throttle.paused_time(now) for now in paused_at} == paused_at


def leaving(rate: float, arrivals: Sequence[float], *, late: float = 0.0) -> list[float]:
    """Let requests leave, each as soon as it may and `late` seconds after that; they come at these times."""
    limiter = RateLimiter(rate)
    times: list[float] = []
    for arrival in arrivals:
        now = max(arrival, times[-1] if times else arrival)
        if wait := limiter.remaining(now):
            now += wait + late
        limiter.take(now)
        times.append(now)
    return times


def test_rate_is_kept_from_one_request_to_the_next() -> None:
    """A hundred that wait at once leave one by one, each a tenth of a second after the one before."""
    assert leaving(10.0, [0.0] * 100) == pytest.approx([number / 10.0 for number in range(100)])


def test_rate_has_no_burst_after_idle() -> None:
    """An hour in which nothing was sent makes no room for more."""
    assert leaving(10.0, [0.0, *[3600.0] * 5]) == pytest.approx([0.0, 3600.0, 3600.1, 3600.2, 3600.3, 3600.4])


def test_lateness_of_timers_does_not_add_up() -> None:
    """Where each wait ends 2 ms late, ten seconds at 100 a second are still a thousand requests."""
    assert leaving(100.0, [0.0] * 1000, late=0.002)[-1] == pytest.approx(10.0, abs=0.02)


def test_a_loop_that_hung_is_not_made_up_for() -> None:
    """What could not leave for a second, because nothing could, does not leave at once after it."""
    times = leaving(10.0, [0.0, 1.0, 1.0, 1.0])

    assert times == pytest.approx([0.0, 1.0, 1.1, 1.2])


def test_those_that_leave_together_are_paid_for_by_those_after_them() -> None:
    """A look and its send leave at once and count twice: the next waits for both."""
    limiter = RateLimiter(2.0)
    for _ in range(3):
        limiter.take(0.0)

    assert limiter.remaining(0.0) == pytest.approx(1.5)


@given(
    rate=st.floats(0.1, 500.0),
    gaps=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60),
    late=st.floats(0.0, 0.02),
)
def test_rate_is_never_exceeded(rate: float, gaps: list[float], late: float) -> None:
    """In any span there are no more requests than the rate allows for it and a timer's lateness, and one."""
    times = leaving(rate, list(accumulate(gaps)), late=late)

    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first <= rate * (times[last] - times[first] + LATENESS) + 1e-6


#: What may happen to a throttle and a circuit breaker.
WHAT = ("pause", "failure", "probe", "success")
#: One failure: when it came, and the server that may be the cause.
Failure = tuple[float, str | None]


def failed(*failures: Failure, throttle: Throttle | None = None) -> CircuitBreaker:
    """Return a circuit breaker after these failures, each of a request that left just before."""
    breaker = CircuitBreaker(throttle or Throttle())
    for now, server_id in failures:
        breaker.record_failure(now, sent_at=now - 0.1, server_id=server_id)
    return breaker


@pytest.mark.parametrize(
    ("failures", "is_open"),
    [
        pytest.param([None] * 4, False, id="four of no server"),
        pytest.param([None] * 5, True, id="five of no server"),
        pytest.param(["a"] * 99, False, id="one server's, however many"),
        pytest.param(["a", "b"] * 50, False, id="two servers'"),
        pytest.param(["a", "b", "c", "a"], False, id="three servers', four times"),
        pytest.param(["a", "b", "c", "a", "b"], True, id="three servers', five times"),
        pytest.param(["a", "a", "a", None, None], True, id="one server's, and two of no server"),
        pytest.param(["a", "a", "a", "a", None], False, id="one server's, and one of no server"),
    ],
)
def test_breaker_opens_after_failures_of_several_servers(failures: Sequence[str | None], is_open: bool) -> None:
    """It takes five failures in a row, from at least three sources."""
    assert failed(*[(0.0, server_id) for server_id in failures]).is_open is is_open


@pytest.mark.parametrize("at", range(5))
def test_any_good_answer_ends_the_row(at: int) -> None:
    """Eight failures with a good answer among them open nothing, wherever that comes."""
    breaker = failed(*[(0.0, None)] * at)
    breaker.record_success(0.0, sent_at=0.0)
    for _ in range(4):
        breaker.record_failure(0.0, sent_at=0.0, server_id=None)

    assert not breaker.is_open


def opened(at: float = 0.0, throttle: Throttle | None = None) -> CircuitBreaker:
    """Return a circuit breaker that opened at some time."""
    return failed(*[(at, None)] * 5, throttle=throttle)


def test_probes_become_rarer() -> None:
    """The first probe leaves after one second; each that fails doubles that, up to 15 s."""
    breaker, now, waits = opened(), 0.0, []
    for _ in range(7):
        waits.append(breaker.remaining(now))
        now += waits[-1]
        breaker.start_probe(now)
        assert breaker.remaining(now) == float("inf")
        breaker.record_failure(now + 0.5, sent_at=now, server_id="any")
        now += 0.5

    assert waits == pytest.approx([1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0])


def test_probes_can_go_on_for_days() -> None:
    """A cloud that is gone for a week is still asked, and nothing overflows."""
    breaker = opened()
    for number in range(2000):
        breaker.start_probe(float(number))
        breaker.record_failure(float(number), sent_at=float(number), server_id=None)

    assert breaker.remaining(2000.0) <= LAST_PROBE


def test_a_good_answer_closes_the_breaker() -> None:
    """An answer to a request from before the breaker opened closes it as well."""
    breaker = opened()
    breaker.record_success(0.5, sent_at=0.5)

    assert not breaker.is_open
    assert breaker.outage_ends(0.0) == float("inf")


def test_only_a_probe_that_fails_confirms() -> None:
    """Failures of requests from before the breaker opened do not confirm the outage."""
    breaker = opened()
    breaker.record_failure(0.5, sent_at=-1.0, server_id=None)
    assert not breaker.is_confirmed
    breaker.start_probe(1.0)
    breaker.record_failure(1.2, sent_at=-1.0, server_id=None)
    assert not breaker.is_confirmed

    breaker.record_failure(1.5, sent_at=1.0, server_id=None)

    assert breaker.is_confirmed
    breaker.record_success(2.0, sent_at=2.0)
    assert not breaker.is_confirmed


def test_a_probe_that_is_cancelled_makes_room_for_another() -> None:
    """If a run is cancelled while it probes, another probe may leave at once."""
    breaker = opened()
    breaker.start_probe(1.0)
    breaker.cancel_probe()

    assert breaker.remaining(1.0) == 0.0
    assert not breaker.is_confirmed


def test_outage_counts_from_the_first_failure_or_from_the_run() -> None:
    """A run that begins during an outage waits as long as a run from before it."""
    breaker = opened(100.0)

    assert breaker.outage_ends(0.0) == 100.0 + OUTAGE
    assert breaker.outage_ends(350.0) == 350.0 + OUTAGE
    assert failed((0.0, None)).outage_ends(0.0) == float("inf")


def test_open_time_is_counted_from_the_first_failure() -> None:
    """The time from the first failure to the opening counts as outage as well."""
    breaker = failed((10.0, None), (11.0, None), (12.0, None), (13.0, None))
    assert breaker.open_time(13.5) == 0.0

    breaker.record_failure(14.0, sent_at=13.0, server_id=None)
    assert [breaker.open_time(now) for now in (9.0, 14.0, 20.0)] == [0.0, 4.0, 10.0]
    breaker.record_success(30.0, sent_at=30.0)

    assert [breaker.open_time(now) for now in (30.0, 99.0)] == [20.0, 20.0]


def test_pauses_during_an_outage_are_counted_once() -> None:
    """A pause that begins before an outage and one that ends after it overlap with the outage."""
    throttle = Throttle()
    throttle.pause(5.0, 10.0, sent_at=4.0)
    breaker = opened(10.0, throttle)
    throttle.pause(40.0, 30.0, sent_at=39.0)
    breaker.record_success(50.0, sent_at=50.0)

    assert breaker.open_time(50.0) + throttle.paused_time(50.0) == pytest.approx(45.0)
    assert breaker.open_time(99.0) + throttle.paused_time(99.0) == pytest.approx(65.0)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 20.0), st.sampled_from(WHAT), st.floats(0.0, 30.0)),
        max_size=60,
    )
)
def test_paused_time_is_never_more_than_what_has_passed(steps: list[tuple[float, str, float]]) -> None:
    """Throttle and breaker together never count more seconds than have passed."""
    throttle, now = Throttle(), 0.0
    breaker = CircuitBreaker(throttle)
    for gap, what, seconds in steps:
        now += gap
        match what:
            case "pause":
                throttle.pause(now, seconds, sent_at=now)
            case "failure":
                breaker.record_failure(now, sent_at=now, server_id=None)
            case "probe" if breaker.is_open:
                breaker.start_probe(now)
            case "success":
                breaker.record_success(now, sent_at=now)
            case _:
                pass
        assert 0.0 <= throttle.paused_time(now) + breaker.open_time(now) <= now + 1e-6


def test_pausable_clock() -> None:
    """The clock stands still from the first refusal to the next request that gets through, and loses that time."""
    clock = PausableClock()
    clock.resume(5.0)
    assert clock.time(10.0) == 10.0
    clock.pause(10.0)
    clock.pause(20.0)
    assert (clock.time(8.0), clock.time(10.0), clock.time(500.0)) == (8.0, 10.0, 10.0)
    clock.resume(100.0)
    assert clock.time(100.0) == 10.0
    assert clock.time(130.0) == 40.0


def failing(*servers: str, has_succeeded: bool) -> FailingSends:
    """Let sends to these servers fail, one each second."""
    sends = FailingSends()
    if has_succeeded:
        sends.record_success()
    for number, server_id in enumerate(servers):
        sends.record_failure(float(number), server_id)
    return sends


@pytest.mark.parametrize(
    ("servers", "has_succeeded", "is_confirmed"),
    [
        pytest.param("abcde", True, True, id="several servers"),
        pytest.param("abcaa", True, True, id="three servers are several"),
        pytest.param("ababababab", True, False, id="two servers, of many that get through"),
        pytest.param("abcd", True, False, id="too few"),
        pytest.param("aaaaa", False, True, id="one server, and no send has ever got through"),
        pytest.param("aaaa", False, False, id="one server, and too few"),
    ],
)
def test_cause_of_failing_sends(servers: str, has_succeeded: bool, is_confirmed: bool) -> None:
    """It is the cloud's where several servers meet it, or where no other send has shown that it takes any."""
    sends = failing(*servers, has_succeeded=has_succeeded)
    assert sends.is_confirmed is is_confirmed
    assert sends.lasts(100.0) == 100.0


def test_a_send_that_gets_through_ends_the_row() -> None:
    """After it the count begins again, and so does the time."""
    sends = failing(*"abcde", has_succeeded=False)
    sends.record_success()
    assert not sends.is_confirmed
    for number in range(FAILURES):
        sends.record_failure(50.0 + number, f"s{number}")
    assert sends.is_confirmed
    assert sends.lasts(100.0) == 50.0


def test_a_clock_that_is_resumed_before_its_pause_goes_on() -> None:
    """A pause from the last sight on, which an answer to an earlier request ends, takes no time and gives none."""
    clock = PausableClock()
    clock.pause(10.0)
    clock.resume(9.0)
    assert clock.time(12.0) == 12.0
