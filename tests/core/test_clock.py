"""The cloud's clock is known from its `Date` headers, with the uncertainty that they leave."""

import itertools
import math

import pytest

from bulkrestart.core.clock import CloudClock, log_shift


def test_clock_is_unknown_before_the_first_date() -> None:
    """Without an answer that carried a `Date` nothing is guessed."""
    assert CloudClock().at(0.0) is None


def test_uncertainty_is_the_round_trip_and_the_second_of_the_date() -> None:
    """A `Date` was written at some moment of the round trip, and names a whole second."""
    clock = CloudClock()
    clock.learn(1_800_000_000.0, sent=10.0, received=10.5)

    earliest, latest = clock.at(20.0) or (0.0, 0.0)

    assert (earliest, latest) == (1_800_000_009.5, 1_800_000_011.0)


def test_newest_date_counts_alone() -> None:
    """A cloud has many nodes with clocks of their own, so intervals of different answers do not narrow each other."""
    clock = CloudClock()
    clock.learn(1_800_000_000.0, sent=10.0, received=10.0)
    clock.learn(1_800_000_300.0, sent=10.0, received=12.0)

    assert clock.at(12.0) == (1_800_000_300.0, 1_800_000_303.0)


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 0.25, 86_400.0])
def test_true_time_is_always_inside(skew: float) -> None:
    """Whenever within the round trip the cloud wrote its `Date`, its true time lies in the interval, also later."""
    for sent, there, back, later in itertools.product((0.0, 0.9), (0.0, 0.4, 30.0), (0.0, 0.7, 30.0), (0.0, 5.0)):
        clock = CloudClock()
        written = 1_800_000_000.0 + skew + sent + there
        clock.learn(float(int(written)), sent=sent, received=sent + there + back)

        moment = sent + there + back + later
        earliest, latest = clock.at(moment) or (0.0, 0.0)

        assert earliest <= 1_800_000_000.0 + skew + moment <= latest


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (0.0, (0.0, 0.0)),
        (1.0, (0.0, 0.0)),
        (-1.0, (0.0, 0.0)),
        (120.0, (117.5, 121.0)),
        (-120.0, (-122.5, -119.0)),
    ],
)
def test_shift_of_the_log_is_known_from_one_row(ahead: float, expected: tuple[float, float]) -> None:
    """A row of ours was written between our request and its answer; clocks that may agree are taken to agree."""
    assert log_shift(1_800_000_000.0 + ahead, (1_800_000_000.0, 1_800_000_002.0)) == expected


@pytest.mark.parametrize("ahead", [-1e9, -90.0, 90.0, 1e9])
def test_shift_holds_the_truth(ahead: float) -> None:
    """Whenever in the round trip the row was written, and cut off or rounded, the true shift is in the interval."""
    for written, rounding in itertools.product((100.0, 100.7, 101.9), (0.0, 0.5)):
        start_time = float(math.floor(written + ahead + rounding))
        least, most = log_shift(start_time, (100.0, 102.0))
        assert least <= ahead <= most
