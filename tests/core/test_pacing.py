"""When everybody waits: the brake, which a throttled answer puts on; the rate; the door, which trouble closes."""

from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.core.pacing import (
    FIRST_HOLD,
    LAST_PROBE,
    LATENESS,
    LONGEST_HOLD,
    OUTAGE,
    TROUBLES,
    Brake,
    Door,
    FailingSends,
    Pace,
    PausableClock,
)

#: One throttled answer: when it came, what it asked for, when its request had left.
Throttled = tuple[float, float | None, float]


def brake(*answers: Throttled) -> Brake:
    """Give a brake after these answers."""
    held = Brake()
    for now, seconds, sent_at in answers:
        held.hold(now, seconds, sent_at=sent_at)
    return held


def test_way_is_free_at_first() -> None:
    """A brake that nobody has touched holds nobody, at any time."""
    free = Brake()

    assert [free.remaining(now) for now in (-1.0, 0.0, 1e9)] == [0.0, 0.0, 0.0]
    assert [free.held(now) for now in (-1.0, 0.0, 1e9)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("answers", "free_at"),
    [
        pytest.param([(0.0, 17.0, -1.0)], 17.0, id="what the cloud asked"),
        pytest.param([(0.0, 0.0, -1.0)], 0.0, id="nothing"),
        pytest.param([(0.0, None, -1.0)], 1.0, id="unsaid"),
        pytest.param([(0.0, 17.0, -1.0), (1.0, 3.0, -1.0)], 17.0, id="a shorter one never undercuts a longer one"),
        pytest.param([(0.0, 3.0, -1.0), (1.0, 17.0, -1.0)], 18.0, id="a longer one counts from when it came"),
        pytest.param([(0.0, 17.0, -1.0), (1.0, None, 0.5)], 17.0, id="an unsaid one never undercuts a said one"),
        pytest.param([(0.0, None, -1.0), (0.5, 17.0, -1.0)], 17.5, id="a said one after an unsaid one"),
        pytest.param([(0.0, 3.0, -1.0), (9.0, 3.0, 8.0)], 12.0, id="a new hold after the end of the last"),
        pytest.param([(0.0, 3.0, -1.0), (3.0, 3.0, 3.0)], 6.0, id="a new hold at the end of the last"),
    ],
)
def test_hold(answers: Sequence[Throttled], free_at: float) -> None:
    """Everybody waits until the latest moment that any answer asked for, and not longer."""
    now = answers[-1][0]

    assert brake(*answers).remaining(now) == free_at - now
    assert brake(*answers).remaining(free_at) == 0.0
    assert brake(*answers).remaining(free_at + 100.0) == 0.0


def test_no_answer_shortens_a_hold() -> None:
    """Whatever comes after it, a hold that the cloud asked for is kept to its end."""
    for seconds in (None, 0.0, 1.0, 29.0, 31.0):
        for now in (0.0, 1.0, 29.9):
            for sent_at in (-5.0, 0.0, now):
                held = brake((0.0, 30.0, -1.0), (now, seconds, sent_at))
                assert now + held.remaining(now) >= 30.0
                held.release()
                assert now + held.remaining(now) >= 30.0


def unsaid_holds(count: int) -> list[float]:
    """Throttle so many requests, each sent as soon as the last hold was over, without saying how long to wait."""
    held = Brake()
    now, waits = 0.0, []
    for _ in range(count):
        now += 0.1
        held.hold(now, None, sent_at=now - 0.05)
        waits.append(held.remaining(now))
        now += waits[-1]
    return waits


def test_unsaid_holds_double_up_to_a_bound() -> None:
    """A cloud that keeps throttling without a word is asked ever more rarely, but at least once a minute."""
    assert unsaid_holds(8) == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0])
    assert (FIRST_HOLD, LONGEST_HOLD) == (1.0, 60.0)


def test_unsaid_holds_can_go_on_for_days() -> None:
    """A cloud that throttles everything for a day and a night gets the longest hold every time, and no error."""
    assert unsaid_holds(1500)[-1] == pytest.approx(LONGEST_HOLD)


@pytest.mark.parametrize("sent_at", [-5.0, -0.1, 0.0], ids=["long before", "just before", "at the same moment"])
def test_requests_in_flight_together_count_once(sent_at: float) -> None:
    """Fifty answers to requests that had left by the time the hold began say one thing, once."""
    held = brake(*[(0.0, None, sent_at)] * 50)

    assert held.remaining(0.0) == FIRST_HOLD


def test_late_answer_to_an_early_request_does_not_hold_again() -> None:
    """A throttled answer that was under way since before the last hold says nothing new once that hold is over."""
    assert brake((10.0, None, 9.0), (12.0, None, 9.5)).remaining(12.0) == 0.0


def test_release_makes_the_next_unsaid_hold_a_first_one() -> None:
    """A request that got through shows that the limit has room again."""
    held = brake((0.0, None, -1.0), (2.0, None, 1.5))
    assert held.remaining(2.0) == 2.0

    held.release()
    held.hold(5.0, None, sent_at=4.5)

    assert held.remaining(5.0) == FIRST_HOLD


@pytest.mark.parametrize(
    ("answers", "held_at"),
    [
        pytest.param([(10.0, 5.0, 9.0)], {10.0: 0.0, 12.0: 2.0, 15.0: 5.0, 99.0: 5.0}, id="one hold"),
        pytest.param([(10.0, 0.0, 9.0)], {10.0: 0.0, 99.0: 0.0}, id="a hold of nothing"),
        pytest.param([(10.0, 5.0, 9.0), (12.0, 5.0, 9.0)], {12.0: 2.0, 17.0: 7.0, 99.0: 7.0}, id="overlapping"),
        pytest.param([(10.0, 5.0, 9.0), (20.0, 5.0, 19.0)], {20.0: 5.0, 22.0: 7.0, 99.0: 10.0}, id="one after another"),
        pytest.param([(10.0, 5.0, 9.0), (15.0, 5.0, 15.0)], {15.0: 5.0, 99.0: 10.0}, id="back to back"),
    ],
)
def test_held_time_is_counted_once(answers: Sequence[Throttled], held_at: dict[float, float]) -> None:
    """The time that everybody was held is known, so that patience with a server need not count it."""
    held = brake(*answers)

    assert {now: held.held(now) for now in held_at} == held_at


def leaving(rate: float, arrivals: Sequence[float], *, late: float = 0.0) -> list[float]:
    """Let requests leave, each as soon as it may and `late` seconds after that; they come at these times."""
    pace = Pace(rate)
    times: list[float] = []
    for arrival in arrivals:
        now = max(arrival, times[-1] if times else arrival)
        if wait := pace.remaining(now):
            now += wait + late
        pace.take(now)
        times.append(now)
    return times


def test_pace_is_kept_from_one_request_to_the_next() -> None:
    """A hundred that wait at once leave one by one, each a tenth of a second after the one before."""
    assert leaving(10.0, [0.0] * 100) == pytest.approx([number / 10.0 for number in range(100)])


def test_pace_has_no_burst_after_idle() -> None:
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
    pace = Pace(2.0)
    for _ in range(3):
        pace.take(0.0)

    assert pace.remaining(0.0) == pytest.approx(1.5)


@given(
    rate=st.floats(0.1, 500.0),
    gaps=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60),
    late=st.floats(0.0, 0.02),
)
def test_pace_is_never_exceeded(rate: float, gaps: list[float], late: float) -> None:
    """In any span there are no more requests than the rate allows for it and a timer's lateness, and one."""
    times = leaving(rate, list(accumulate(gaps)), late=late)

    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first <= rate * (times[last] - times[first] + LATENESS) + 1e-6


#: One trouble: when it came, and the server that may be to blame.
Trouble = tuple[float, str | None]


def door(*troubles: Trouble, brake: Brake | None = None) -> Door:
    """Give a door after these troubles, each of a request that left just before."""
    shut = Door(brake or Brake())
    for now, server_id in troubles:
        shut.trouble(now, sent_at=now - 0.1, server_id=server_id)
    return shut


@pytest.mark.parametrize(
    ("troubles", "is_closed"),
    [
        pytest.param([None] * 4, False, id="four of nobody's"),
        pytest.param([None] * 5, True, id="five of nobody's"),
        pytest.param(["a"] * 99, False, id="one server's, however many"),
        pytest.param(["a", "b"] * 50, False, id="two servers'"),
        pytest.param(["a", "b", "c", "a"], False, id="three servers', four times"),
        pytest.param(["a", "b", "c", "a", "b"], True, id="three servers', five times"),
        pytest.param(["a", "a", "a", None, None], True, id="a server's, and nobody's twice"),
        pytest.param(["a", "a", "a", "a", None], False, id="a server's, and nobody's once"),
    ],
)
def test_door_closes_after_trouble_across_servers(troubles: Sequence[str | None], is_closed: bool) -> None:
    """It takes five troubles in a row, and more places that they come from than one or two servers."""
    assert door(*[(0.0, server_id) for server_id in troubles]).is_closed is is_closed


@pytest.mark.parametrize("at", range(5))
def test_any_good_answer_begins_the_count_anew(at: int) -> None:
    """Nine troubles with a good answer among them close nothing, wherever that comes."""
    shut = door(*[(0.0, None)] * at)
    shut.recover(0.0, sent_at=0.0)
    for _ in range(4):
        shut.trouble(0.0, sent_at=0.0, server_id=None)

    assert not shut.is_closed


def closed(at: float = 0.0, brake: Brake | None = None) -> Door:
    """Give a door that closed at some time."""
    return door(*[(at, None)] * 5, brake=brake)


def test_probes_come_ever_more_rarely() -> None:
    """The first probe leaves a second after the closing; each that fails doubles that, up to a quarter of a minute."""
    shut, now, waits = closed(), 0.0, []
    for _ in range(7):
        waits.append(shut.remaining(now))
        now += waits[-1]
        shut.probe(now)
        assert shut.remaining(now) == float("inf")
        shut.trouble(now + 0.5, sent_at=now, server_id="any")
        now += 0.5

    assert waits == pytest.approx([1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0])


def test_probes_can_go_on_for_days() -> None:
    """A cloud that is gone for a week is still asked, and nothing overflows."""
    shut = closed()
    for number in range(2000):
        shut.probe(float(number))
        shut.trouble(float(number), sent_at=float(number), server_id=None)

    assert shut.remaining(2000.0) <= LAST_PROBE


def test_a_good_answer_opens() -> None:
    """An answer to a request that had left before the door closed opens it as well."""
    shut = closed()
    shut.recover(0.5, sent_at=0.5)

    assert not shut.is_closed
    assert shut.outage_ends(0.0) == float("inf")


def test_only_a_probe_that_fails_confirms() -> None:
    """What was in flight when the door closed says no more than what closed it."""
    shut = closed()
    shut.trouble(0.5, sent_at=-1.0, server_id=None)
    assert not shut.is_confirmed
    shut.probe(1.0)
    shut.trouble(1.2, sent_at=-1.0, server_id=None)
    assert not shut.is_confirmed

    shut.trouble(1.5, sent_at=1.0, server_id=None)

    assert shut.is_confirmed
    shut.recover(2.0, sent_at=2.0)
    assert not shut.is_confirmed


def test_a_probe_that_is_cancelled_makes_room_for_another() -> None:
    """A run that is cancelled while it probes leaves nobody waiting for its answer."""
    shut = closed()
    shut.probe(1.0)
    shut.lose_probe()

    assert shut.remaining(1.0) == 0.0
    assert not shut.is_confirmed


def test_outage_counts_from_the_first_trouble_or_from_the_run() -> None:
    """A run that begins before a closed door has the same patience with it as one that was there before."""
    shut = closed(100.0)

    assert shut.outage_ends(0.0) == 100.0 + OUTAGE
    assert shut.outage_ends(350.0) == 350.0 + OUTAGE
    assert door((0.0, None)).outage_ends(0.0) == float("inf")


def test_time_behind_a_closed_door_is_counted_from_the_first_trouble() -> None:
    """The time that everybody waits counts against nobody, and neither does that in which it showed."""
    shut = door((10.0, None), (11.0, None), (12.0, None), (13.0, None))
    assert shut.held(13.5) == 0.0

    shut.trouble(14.0, sent_at=13.0, server_id=None)
    assert [shut.held(now) for now in (9.0, 14.0, 20.0)] == [0.0, 4.0, 10.0]
    shut.recover(30.0, sent_at=30.0)

    assert [shut.held(now) for now in (30.0, 99.0)] == [20.0, 20.0]


def test_time_of_the_brake_behind_a_closed_door_is_counted_once() -> None:
    """A hold that begins before the door closes, and one that ends after it opens, overlap with it."""
    brake = Brake()
    brake.hold(5.0, 10.0, sent_at=4.0)
    shut = closed(10.0, brake)
    brake.hold(40.0, 30.0, sent_at=39.0)
    shut.recover(50.0, sent_at=50.0)

    assert shut.held(50.0) + brake.held(50.0) == pytest.approx(45.0)
    assert shut.held(99.0) + brake.held(99.0) == pytest.approx(65.0)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 20.0), st.sampled_from(["hold", "trouble", "probe", "open"]), st.floats(0.0, 30.0)),
        max_size=60,
    )
)
def test_what_is_held_is_never_more_than_what_has_passed(steps: list[tuple[float, str, float]]) -> None:
    """Whatever brake and door do together, they hold for no longer than the time that is."""
    brake, now = Brake(), 0.0
    shut = Door(brake)
    for gap, what, seconds in steps:
        now += gap
        match what:
            case "hold":
                brake.hold(now, seconds, sent_at=now)
            case "trouble":
                shut.trouble(now, sent_at=now, server_id=None)
            case "probe" if shut.is_closed:
                shut.probe(now)
            case "open":
                shut.recover(now, sent_at=now)
            case _:
                pass
        assert 0.0 <= brake.held(now) + shut.held(now) <= now + 1e-6


def test_a_standstill() -> None:
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
def test_whose_trouble_failing_sends_are(servers: str, has_succeeded: bool, is_confirmed: bool) -> None:
    """It is the cloud's where several servers meet it, or where no other send has shown that it takes any."""
    sends = failing(*servers, has_succeeded=has_succeeded)
    assert sends.is_confirmed is is_confirmed
    assert sends.lasts(100.0) == 100.0


def test_a_send_that_gets_through_ends_the_trouble() -> None:
    """After it the count begins again, and so does the time."""
    sends = failing(*"abcde", has_succeeded=False)
    sends.record_success()
    assert not sends.is_confirmed
    for number in range(TROUBLES):
        sends.record_failure(50.0 + number, f"s{number}")
    assert sends.is_confirmed
    assert sends.lasts(100.0) == 50.0
