"""The brake: one throttled answer holds everybody, for no less than the cloud asked."""

from collections.abc import Sequence

import pytest

from bulkrestart.core.pacing import FIRST_HOLD, LONGEST_HOLD, Brake

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
