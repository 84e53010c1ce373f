"""How long a run takes when the cloud is partly broken or overloaded; `make bench` measures larger fleets."""

from itertools import count

import pytest
from benchmarks.goodput import AT_ONCE, FAULTS, LATENCY, faulty, rate_limited, shed

pytestmark = pytest.mark.unmeasured

SERVERS = 300
#: Seconds without faults: one look, and then six rounds of 50 sends.
IDEAL = LATENCY * (1 + SERVERS / AT_ONCE)


@pytest.mark.parametrize("share", [0.02, 0.1])
@pytest.mark.parametrize("fault", ["503", "503 with Retry-After: 1", "504", "500", "connection cut"])
def test_a_few_per_cent_of_faults_cost_seconds(fault: str, share: float) -> None:
    """Sending again costs the grace of 10 s and a look or two, not a multiple of the run."""
    beyond = faulty(fault, share, servers=SERVERS) - IDEAL

    assert beyond <= 30.0


def test_a_slow_machine_changes_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 504 after 0.3 virtual seconds came at once, however many real seconds passed."""
    quick = faulty("504", 0.02, servers=100)
    monkeypatch.setattr("time.time", map(float, count(0, 5)).__next__)

    assert faulty("504", 0.02, servers=100) == quick


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_a_few_per_cent_of_504_after_a_wait_cost_the_longer_grace(share: float) -> None:
    """The API may still work on the request: it takes 90 s until the log proves that nothing was started."""
    beyond = faulty("504 after 5 s", share, servers=SERVERS) - IDEAL

    assert 95.0 <= beyond <= 130.0


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_a_few_per_cent_of_time_outs_cost_their_slots(share: float) -> None:
    """No circuit breaker opens and no limit falls: requests that time out only occupy their slots."""
    beyond = faulty("no answer for 70 s", share, servers=SERVERS) - IDEAL

    assert beyond <= share * SERVERS * 60.0 / AT_ONCE + 60.0


@pytest.mark.parametrize("after", [LATENCY, 0.02])
@pytest.mark.parametrize("capacity", [3, 10, 30])
def test_an_overloaded_api_is_kept_busy_and_not_flooded(capacity: int, after: float) -> None:
    """However fast it sheds, it soon gets about as many requests as it works on, and is never idle."""
    servers = 50 * capacity
    found = shed(servers, capacity=capacity, after=after)

    # Added: five requests for each server of the burst that finds the capacity, and twice the grace of 10 s, for a
    # server that is shed again.
    assert found.seconds <= (servers + 5 * 1.4 * AT_ONCE) * LATENCY / capacity * 1.1 + 25.0
    assert found.later_share < 0.1


@pytest.mark.parametrize("seconds", [1, 5])
def test_an_overloaded_api_that_asks_to_wait(seconds: int) -> None:
    """Its Retry-After pauses all requests once; after that only shed servers wait."""
    found = shed(800, headers={"retry-after": f"{seconds}"})

    assert found.seconds <= 800 * LATENCY / 10 * 1.1 + 25.0 + seconds
    assert found.later_share < 0.1


def test_a_rate_limited_api_is_handled_as_well_as_ever() -> None:
    """Rate signals pause all requests and halve the limit, and the run stays within 5 % of the ideal time."""
    found = rate_limited(1_000, 100, 10.0)

    assert found.seconds <= 1_000 * 10.0 / 100 * 1.05
    assert found.refused <= 153


def test_every_fault_of_the_benchmark_has_its_test() -> None:
    """A fault that is added to the benchmark needs a bound here."""
    assert set(FAULTS) == {
        *("503", "503 with Retry-After: 1", "500", "connection cut", "504", "no answer for 70 s"),
        *("429 with Retry-After: 1", "504 after 5 s"),
    }
