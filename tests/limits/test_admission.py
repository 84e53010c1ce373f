"""When a request may leave, and what an answer changes: limits, rate, throttle and circuit breaker together."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.core.model import StopReason
from bulkrestart.core.observation import Observation, Unanswered, Unsent
from bulkrestart.limits.admission import Admission
from bulkrestart.limits.concurrency import LEAST, MEASURED
from bulkrestart.limits.fair_queue import FairQueue
from bulkrestart.limits.pacing import FAILURES, FIRST_PROBE, LATENESS, LONGEST_REQUESTED_PAUSE, OUTAGE
from bulkrestart.limits.permit import BasePermit, Flow, Priority
from tests.core.samples import answer, ecs, keystone, nova, page

INFINITY: Final = float("inf")

GOOD: Final = answer(202)
UNSAID: Final = answer(429)
THROTTLED: Final = answer(429, headers={"retry-after": "30"})
OVERLOAD: Final = page(503, "Service Unavailable")
GATEWAY: Final = page(502, "Bad Gateway")
MAINTENANCE: Final = answer(503, headers={"retry-after": "30"})
BROKEN: Final = nova(500, "Unexpected API Error.")
LATE: Final = Unanswered("ReadTimeout", may_come_late=True)
LOCAL: Final = Unsent("EMFILE", is_local=True)
#: What a request gets that asks for a list.
SERVERS: Final = ("server", "server")


def flow(most: int | None = None, began: float = 0.0) -> Flow:
    """Give a run."""
    return Flow(most, began)


def leave(admission: Admission, count: int, now: float = 0.0, run: Flow | None = None) -> list[BasePermit]:
    """Let so many requests leave at once, none of which has to wait."""
    run = run or flow()
    permits = [BasePermit(run, Priority.SEND) for _ in range(count)]
    for permit in permits:
        assert admission.wait(run, now) == 0.0
        admission.admit(permit, now)
        admission.record_sent(now)
    return permits


def observe(admission: Admission, *seen: object, now: float = 1.0, sent_at: float = 0.5) -> Admission:
    """Let these come back, about no server, at one moment."""
    for one in seen:
        admission.observe(one, now, sent_at=sent_at, server_id=None)
    return admission


def in_outage(most: int = 10, now: float = 1.0) -> Admission:
    """Return one in an outage: its first probe may leave a second later."""
    return observe(Admission(most), *[GATEWAY] * FAILURES, now=now, sent_at=now - 0.5)


# Slots.


def test_at_first_all_may_leave_that_are_allowed() -> None:
    """As many as the most leave at once, and the next waits until one of them is done."""
    admission, run = Admission(3), flow()
    permits = leave(admission, 3)
    assert admission.wait(run, 0.0) == INFINITY
    assert admission.wait(run, 1e9) == INFINITY

    admission.release(permits[1])

    assert admission.wait(run, 0.0) == 0.0
    assert admission.in_flight == 2


def test_a_run_that_uses_its_own_bound_waits_alone() -> None:
    """The permits that it may not take are there for the others."""
    admission, narrow = Admission(3), flow(most=1)
    [permit] = leave(admission, 1, run=narrow)

    assert admission.wait(narrow, 0.0) == INFINITY
    assert admission.wait(flow(), 0.0) == 0.0
    admission.release(permit)
    assert admission.wait(narrow, 0.0) == 0.0


@pytest.mark.parametrize("seen", [LATE, LOCAL], ids=["late", "a limit of this machine"])
def test_a_limit_that_falls_below_what_is_in_flight_waits_for_more_than_one(seen: object) -> None:
    """If most of ten requests are shed, the limit is halved, so only the sixth answer makes room for another."""
    admission, run = Admission(10), flow()
    permits = leave(admission, 10)
    observe(admission, *[seen, seen, GOOD] * 3, sent_at=0.0)
    assert admission.free == -5

    for permit in permits[:5]:
        assert admission.wait(run, 1.0) == INFINITY
        admission.release(permit)
    assert admission.wait(run, 1.0) == INFINITY
    admission.release(permits[5])

    assert admission.wait(run, 1.0) == 0.0


def shed_at_once(admission: Admission, run: Flow, seen: object = OVERLOAD) -> None:
    """Have one of the requests in flight at 2.0 answered at 2.25, where a good answer takes a second."""
    observe(admission, GOOD, now=1.0, sent_at=0.0)
    permits = leave(admission, admission.free, 2.0, run)
    observe(admission, seen, now=2.25, sent_at=2.0)
    admission.release(permits[0])


@pytest.mark.parametrize("seen", [OVERLOAD, page(504, "Gateway Time-out"), LOCAL], ids=["503", "504", "this machine"])
def test_a_request_that_is_shed_at_once_keeps_its_slot(seen: object) -> None:
    """The slot is free when a good answer would have come; otherwise the next request would be shed as well."""
    admission, run = Admission(10), flow()
    shed_at_once(admission, run, seen)

    assert admission.wait(run, 2.25) == 0.75
    assert admission.wait(run, 2.75) == 0.25
    assert admission.wait(run, 3.0) == 0.0


@pytest.mark.parametrize("seen", [GOOD, SERVERS, BROKEN, answer(409)], ids=["good", "a list", "500", "409"])
def test_any_other_quick_answer_frees_its_slot(seen: object) -> None:
    """These do not show that the API has too many requests at once."""
    admission, run = Admission(10), flow()
    shed_at_once(admission, run, seen)

    assert admission.wait(run, 2.25) == 0.0


def test_slots_of_shed_requests_are_kept_each_for_its_own_time() -> None:
    """One of them may be shed later than the other; a run without room for another request does not wait for them."""
    admission, run, narrow = Admission(3), flow(), flow(most=1)
    observe(admission, GOOD, now=1.0, sent_at=0.0)
    [early] = leave(admission, 1, 2.0, run)
    [late] = leave(admission, 1, 2.5, run)
    leave(admission, 1, 2.5, narrow)
    observe(admission, OVERLOAD, now=2.75, sent_at=2.5)
    observe(admission, OVERLOAD, now=2.75, sent_at=2.0)
    for permit in (early, late):
        admission.release(permit)

    assert admission.wait(narrow, 2.75) == INFINITY
    assert admission.wait(run, 2.75) == 0.25
    leave(admission, 1, 3.0, run)
    assert admission.wait(run, 3.0) == 0.5


def test_the_smoothed_latency_is_not_that_of_one_slow_answer() -> None:
    """One answer that takes 81 s lengthens the time for which a slot is kept from one second to eleven."""
    admission, run = Admission(10), flow()
    observe(admission, GOOD, now=1.0, sent_at=0.0)
    observe(admission, GOOD, now=82.0, sent_at=1.0)
    permits = leave(admission, 10, 100.0, run)
    observe(admission, OVERLOAD, now=100.0, sent_at=100.0)
    admission.release(permits[0])

    assert admission.wait(run, 100.0) == 11.0


def test_a_pause_frees_the_slots_of_shed_requests() -> None:
    """The probe that follows a pause does not wait for requests from before it."""
    admission, run = Admission(1), flow()
    observe(admission, GOOD, now=10.0, sent_at=0.0)
    [permit] = leave(admission, 1, 20.0, run)
    observe(admission, OVERLOAD, UNSAID, now=20.0, sent_at=20.0)
    admission.release(permit)

    assert admission.wait(run, 20.0) == admission.throttle.remaining(20.0) < 5.0
    assert admission.wait(run, 25.0) == 0.0


def test_a_fixed_limit_keeps_no_slot() -> None:
    """With `adaptive=False` a slot is free as soon as its request is answered."""
    admission, run = Admission(10, adaptive=False), flow()
    shed_at_once(admission, run)

    assert admission.wait(run, 2.25) == 0.0


@pytest.mark.parametrize(
    ("seen", "adaptive", "free"),
    [
        pytest.param(GOOD, True, 10, id="good"),
        pytest.param(SERVERS, True, 10, id="a list"),
        pytest.param(OVERLOAD, True, 10, id="503"),
        pytest.param(page(504, "Gateway Time-out"), True, 10, id="504"),
        pytest.param(LATE, True, 10, id="late"),
        pytest.param(Unanswered("ReadError"), True, 10, id="cut"),
        pytest.param(Unsent("ConnectError"), True, 10, id="unsent"),
        pytest.param(LOCAL, True, 10, id="a limit of this machine"),
        pytest.param(BROKEN, True, 10, id="500"),
        pytest.param(UNSAID, True, 1, id="429"),
        pytest.param(UNSAID, False, 1, id="429, and a fixed limit"),
        pytest.param(MAINTENANCE, True, 1, id="503 that asks to wait"),
        pytest.param(keystone(), True, 1, id="401"),
    ],
)
def test_what_an_answer_leaves_of_ten_slots(seen: object, adaptive: bool, free: int) -> None:
    """A fault that may be one server's frees all permits; after a pause of all requests only one request leaves."""
    assert observe(Admission(10, adaptive=adaptive), seen).free == free


def test_a_limit_of_this_machine_is_no_outage() -> None:
    """However often it occurs, the circuit breaker stays closed, no request is paused, and no outage begins."""
    admission = observe(Admission(10), *[LOCAL] * (3 * FAILURES))

    assert not admission.breaker.is_open
    assert not admission.is_paused(1.0)
    assert admission.verdict(flow(), 10_000.0) is None


def test_a_limit_of_this_machine_does_not_end_an_outage() -> None:
    """It is no good answer of the cloud either; a probe that it stops is repeated after a delay."""
    admission, run = in_outage(now=1.0), flow()
    [permit] = leave(admission, 1, 2.0, run)
    observe(admission, LOCAL, now=2.1, sent_at=1.9)
    assert admission.wait(run, 2.2) == INFINITY
    observe(admission, LOCAL, now=2.5, sent_at=2.0)
    admission.release(permit)

    assert admission.breaker.is_open
    assert not admission.breaker.is_confirmed
    assert admission.wait(run, 2.5) == 1.0


@pytest.mark.parametrize(("adaptive", "flights"), [(True, [1, 2, 4, 5]), (False, [1, 2, 4, 8])])
def test_after_a_pause_it_ramps_up(adaptive: bool, flights: list[int]) -> None:
    """Where each flight is answered, the next is twice as large, up to half of what was too much."""
    admission, now, seen = observe(Admission(10, adaptive=adaptive), UNSAID), 2.0, []
    for _ in flights:
        permits = leave(admission, admission.free, now)
        seen.append(len(permits))
        for permit in permits:
            observe(admission, GOOD, now=now + 0.5, sent_at=now)
            admission.release(permit)
        now += 1.0

    assert seen == flights


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize(
    ("seen", "is_overload"),
    [
        pytest.param(LATE, True, id="late"),
        pytest.param(page(504, "Gateway Time-out"), True, id="504"),
        pytest.param(page(408, "Request Time-out"), True, id="408"),
        pytest.param(OVERLOAD, True, id="503"),
        pytest.param(GATEWAY, False, id="502"),
        pytest.param(BROKEN, False, id="500"),
        pytest.param(Unanswered("ReadError"), False, id="cut"),
        pytest.param(Unsent("ConnectError"), False, id="unsent"),
        pytest.param(nova(404, "no"), False, id="404"),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 11])
def test_a_share_of_overload_halves_the_slots(seen: object, is_overload: bool, count: int, adaptive: bool) -> None:
    """If more than half of a cohort is overload, the limit is halved; a fixed limit stays."""
    admission = Admission(20, adaptive=adaptive)
    permits = leave(admission, 20)
    for number in range(count):
        # Good answers between them, so that nothing is an outage.
        observe(admission, seen, *[SERVERS] * (number < 9), sent_at=0.0)
    for permit in permits:
        admission.release(permit)

    assert admission.free == (10 if adaptive and is_overload and count > 10 else 20)


def test_a_limit_that_nothing_reaches_does_not_grow() -> None:
    """Requests one at a time, after an overload, do not show that the cloud can handle more at once."""
    admission = Admission(10)
    permits = leave(admission, 10)
    observe(admission, *[LATE, LATE, GOOD] * 3, sent_at=0.0)
    for permit in permits:
        admission.release(permit)
    for number in range(50):
        [permit] = leave(admission, 1, 2.0 + number)
        observe(admission, GOOD, now=2.5 + number, sent_at=2.0 + number)
        admission.release(permit)

    assert admission.free == 5


def test_requests_from_before_a_pause_keep_no_probe_waiting() -> None:
    """Slow requests from before a pause take no permit of those that leave after it, which are one at first."""
    admission, run = Admission(10), flow()
    early = leave(admission, 6)
    observe(admission, UNSAID)
    [probe] = leave(admission, 1, 2.0)
    assert admission.wait(run, 2.0) == INFINITY

    admission.release(early[0])
    assert admission.wait(run, 2.0) == INFINITY
    admission.release(probe)

    assert admission.wait(run, 2.0) == 0.0


def test_requests_from_before_a_pause_count_against_the_most() -> None:
    """Not even a probe is one more than are allowed at once."""
    admission, run = Admission(2), flow()
    early = leave(admission, 2)
    observe(admission, UNSAID)
    assert admission.wait(run, 2.0) == INFINITY

    admission.release(early[0])

    assert admission.wait(run, 2.0) == 0.0


def test_latency_is_that_of_sends() -> None:
    """Where it is to be found what a slow API bears, few go at first; answers to polls make them no more."""
    admission = Admission(100, adaptive="latency")
    assert admission.free == LEAST
    for now in range(100):
        permits = leave(admission, LEAST, float(now))
        observe(admission, *[SERVERS] * LEAST, now=now + 0.1, sent_at=float(now))
        for permit in permits:
            admission.release(permit)
    assert admission.free == LEAST

    for now in range(100, 200):
        permits = leave(admission, admission.free, float(now))
        for permit in permits:
            admission.observe(GOOD, now + 0.1, sent_at=float(now), server_id="server", sender=flow())
            admission.release(permit)

    assert admission.free > LEAST


def test_the_latency_of_what_is_throttled_is_no_sample() -> None:
    """A gateway that refuses in a moment does not make the API behind it look slow ever after."""
    admission = Admission(100, adaptive="latency")
    for _ in range(MEASURED):
        admission.observe(UNSAID, 1.0, sent_at=0.999, server_id="server", sender=flow())

    for now in range(10, 50):
        permits = leave(admission, admission.free, float(now))
        for permit in permits:
            admission.observe(GOOD, now + 0.5, sent_at=float(now), server_id="server", sender=flow())
            admission.release(permit)

    assert admission.free > 50


# The rate.


def test_the_rate_is_waited_for_with_slots_to_spare() -> None:
    """At two a second the next leaves half a second after the last, whoever's it is."""
    admission = Admission(10, 2.0)
    leave(admission, 1, 5.0)

    assert admission.wait(flow(), 5.0) == pytest.approx(0.5)
    assert admission.wait(flow(), 5.5) == 0.0


def test_who_leaves_in_the_slot_of_another_is_paid_for() -> None:
    """A look right before its send needs no permit, and its turn all the same."""
    admission = Admission(10, 2.0)
    leave(admission, 1, 5.0)
    admission.record_sent(5.0)

    assert admission.wait(flow(), 5.0) == pytest.approx(1.0)


def test_the_longest_wait_counts() -> None:
    """Rate and throttle are waited for together, not one after the other; and other requests only after both."""
    admission, run = Admission(1, 0.1), flow()
    leave(admission, 1)
    observe(admission, UNSAID, now=1.0)
    assert admission.wait(run, 1.0) == pytest.approx(9.0)

    observe(admission, THROTTLED, now=1.0)

    assert admission.wait(run, 1.0) == 30.0
    assert admission.wait(run, 31.0) == INFINITY


# The throttle.


def test_a_throttled_answer_pauses_all_requests() -> None:
    """No request leaves for as long as the cloud asked; the clock of time-outs is paused."""
    admission = observe(Admission(10), THROTTLED)

    for run in (flow(), flow(1), flow(began=5.0)):
        assert admission.wait(run, 1.0) == 30.0
        assert admission.wait(run, 30.9) > 0.0
        assert admission.wait(run, 31.0) == 0.0
    assert (admission.is_paused(30.9), admission.is_paused(31.0)) == (True, False)
    assert [admission.active_time(moment) for moment in (1.0, 20.0, 31.0, 40.0)] == [1.0, 1.0, 1.0, 10.0]


@pytest.mark.parametrize(
    ("seen", "seconds"),
    [
        pytest.param(GOOD, 1.0, id="good"),
        pytest.param(BROKEN, 1.0, id="500"),
        pytest.param(SERVERS, 1.0, id="a list"),
        pytest.param(Unsent("ConnectError"), 2.0, id="unsent"),
        pytest.param(Unanswered("ReadError"), 2.0, id="unanswered"),
    ],
)
def test_what_makes_the_next_pause_a_first_one(seen: object, seconds: float) -> None:
    """Whatever got through does; what did not says nothing of the cloud's limit."""
    admission = observe(Admission(10), UNSAID)
    observe(admission, seen, now=3.0, sent_at=2.5)

    observe(admission, UNSAID, now=4.0, sent_at=3.5)

    assert admission.wait(flow(), 4.0) == seconds


def test_a_throttled_answer_that_comes_late_is_no_news() -> None:
    """An answer to a request from before the last pause starts no pause, and shrinks no limit that grew since."""
    admission = observe(Admission(10), UNSAID)
    for now in (2.0, 3.0, 4.0):
        permits = leave(admission, admission.free, now)
        for permit in permits:
            observe(admission, GOOD, now=now + 0.5, sent_at=now)
            admission.release(permit)
    free = admission.free

    observe(admission, UNSAID, now=5.0, sent_at=0.5)

    assert (admission.wait(flow(), 5.0), admission.free) == (0.0, free)


def test_a_sign_in_pauses_all_requests_as_well() -> None:
    """A pause need not come from an answer to a request."""
    admission = Admission(10)
    admission.pause(1.0, 5.0, sent_at=0.5, words="Keystone is busy")

    assert admission.wait(flow(), 1.0) == 5.0


def test_a_503_that_asks_to_wait_pauses_all_once() -> None:
    """While other requests succeed, it is about one server: only the next request for that server waits."""
    admission = observe(Admission(10), MAINTENANCE)
    assert admission.wait(flow(), 1.0) == 30.0
    observe(admission, GOOD, now=32.0, sent_at=31.5)

    observe(admission, MAINTENANCE, now=33.0, sent_at=32.0)

    assert admission.wait(flow(), 33.0) == 0.0


@pytest.mark.parametrize(
    ("seen", "is_for_all"),
    [
        pytest.param(MAINTENANCE, False, id="503"),
        pytest.param(answer(502, headers={"retry-after": "30"}), False, id="502"),
        pytest.param(answer(500, headers={"retry-after": "30"}), False, id="500"),
        pytest.param(answer(504, headers={"retry-after": "30"}), False, id="504"),
        pytest.param(answer(408, headers={"retry-after": "30"}), False, id="408"),
        pytest.param(THROTTLED, True, id="429"),
        pytest.param(answer(413, headers={"retry-after": "30"}), True, id="413"),
        pytest.param(ecs(503, "Common.1503", "Api flow control Error"), True, id="503 that throttles"),
        pytest.param(ecs(202, "Common.0024", "Flow limit exceeded."), True, id="202 that is postponed"),
        pytest.param(keystone(), True, id="401"),
    ],
)
def test_only_rate_signals_pause_all_again_and_again(seen: Observation, is_for_all: bool) -> None:
    """An answer about all requests pauses all of them each time; one that may be about one server does so once."""
    admission = observe(Admission(10), MAINTENANCE)
    for now in (50.0, 150.0, 250.0):
        observe(admission, GOOD, now=now, sent_at=now - 0.5)
        observe(admission, seen, now=now + 1.0, sent_at=now + 0.5)

        assert (admission.wait(flow(), now + 1.0) > 0.0) is is_for_all


def test_a_503_that_asks_to_wait_pauses_all_again_where_nothing_else_is_answered() -> None:
    """Good answers to requests from before the pause do not show that the 503 was about one server."""
    admission = observe(Admission(10), GOOD, MAINTENANCE)
    observe(admission, GOOD, now=2.0, sent_at=0.5)

    observe(admission, MAINTENANCE, now=31.5, sent_at=31.0)

    assert admission.wait(flow(), 31.5) == 30.0


def test_a_503_that_asks_to_wait_pauses_all_in_an_outage() -> None:
    """Once the circuit breaker has opened, any server's 503 counts for the whole cloud."""
    admission = observe(Admission(10), MAINTENANCE)
    observe(admission, GOOD, now=50.0, sent_at=49.5)

    observe(admission, *[MAINTENANCE] * FAILURES, now=51.0, sent_at=50.5)

    assert admission.breaker.is_open
    assert admission.wait(flow(), 51.0) == 30.0


# The circuit breaker.


def test_in_an_outage_one_at_a_time_probes() -> None:
    """No request leaves before the first probe is due, and none beside it while it is in flight."""
    admission, run = in_outage(), flow()
    assert admission.is_paused(1.0)
    assert admission.wait(run, 1.0) == FIRST_PROBE

    [probe] = leave(admission, 1, 2.0, run)

    assert probe.is_probe
    assert admission.wait(run, 2.0) == INFINITY
    assert admission.wait(flow(), 99.0) == INFINITY


def test_a_probe_that_fails_makes_the_next_one_come_later() -> None:
    """It gives back its permit and its permit, and says nothing but that all wait longer."""
    admission = in_outage()
    [probe] = leave(admission, 1, 2.0)
    observe(admission, GATEWAY, now=2.5, sent_at=2.0)
    admission.release(probe)

    assert admission.wait(flow(), 2.5) == 2.0 * FIRST_PROBE
    assert admission.wait(flow(), 4.5) == 0.0


def test_a_probe_that_is_lost_frees_its_place() -> None:
    """A run that was cancelled while it probed lets another one ask at once."""
    admission = in_outage()
    [probe] = leave(admission, 1, 2.0)

    admission.release(probe)

    assert admission.wait(flow(), 2.0) == 0.0


def test_a_probe_of_an_earlier_outage_frees_no_place() -> None:
    """The outage ended by another answer while a probe hung, and another outage began: it has a probe of its own."""
    admission = in_outage()
    [hung] = leave(admission, 1, 2.0)
    observe(admission, GOOD, now=3.0)
    observe(admission, *[GATEWAY] * FAILURES, now=4.0, sent_at=3.5)
    [probe] = leave(admission, 1, 5.0)

    admission.release(hung)
    assert admission.wait(flow(), 6.0) == INFINITY

    admission.release(probe)
    assert admission.wait(flow(), 6.0) == 0.0


def test_a_request_from_before_an_outage_frees_no_place() -> None:
    """While a probe is in flight, the end of another request lets none leave."""
    admission = Admission(10)
    early = leave(admission, 3)
    observe(admission, *[GATEWAY] * FAILURES)
    leave(admission, 1, 2.0)
    for permit in early:
        admission.release(permit)

    assert admission.wait(flow(), 9.0) == INFINITY


@pytest.mark.parametrize("seen", [GOOD, SERVERS, nova(404, "no"), UNSAID], ids=["202", "list", "404", "429"])
def test_any_answer_ends_the_outage_and_lets_one_go(seen: object) -> None:
    """When the cloud is back, one request leaves, and not all that wait."""
    admission, run = in_outage(), flow()
    [probe] = leave(admission, 1, 2.0, run)
    observe(admission, seen, now=2.5, sent_at=2.0)
    admission.release(probe)

    assert not admission.breaker.is_open
    leave(admission, 1, 9.0, run)
    assert admission.wait(run, 9.0) == INFINITY


def test_late_failures_of_a_few_servers_are_no_outage() -> None:
    """They fail in a row after all others; a good answer to a request that left later outweighs them."""
    admission = observe(Admission(10), GOOD, now=3.5, sent_at=3.0)
    for number in range(50):
        admission.observe(LATE, 60.0 + number / 50, sent_at=number / 50, server_id=f"{number}", sender=flow())

    assert not admission.breaker.is_open


def test_failures_that_left_after_the_last_good_answer_are_an_outage() -> None:
    """If the cloud answers nothing any more there is an outage, whatever it answered before."""
    admission = observe(Admission(10), GOOD, now=3.5, sent_at=3.0)
    for number in range(FAILURES):
        admission.observe(LATE, 64.0, sent_at=4.0, server_id=f"{number}", sender=flow())

    assert admission.breaker.is_open


def test_an_outage_leaves_a_fixed_limit() -> None:
    """When the cloud is back, slow start goes up to the fixed limit."""
    admission = observe(Admission(4, adaptive=False), *[GATEWAY] * FAILURES)
    for now in (2.0, 3.0, 4.0, 5.0):
        permits = leave(admission, 1 if admission.breaker.is_open else admission.free, now)
        for permit in permits:
            observe(admission, GOOD, now=now + 0.5, sent_at=now)
            admission.release(permit)

    assert admission.free == 4


def test_an_outage_halves_the_limit() -> None:
    """When the cloud is back, slow start goes up to half of what there was before."""
    admission, now = in_outage(20), 2.0
    sizes: list[int] = []
    for _ in range(5):
        permits = leave(admission, admission.free if sizes else 1, now)
        sizes.append(len(permits))
        for permit in permits:
            observe(admission, GOOD, now=now + 0.5, sent_at=now)
            admission.release(permit)
        now += 1.0

    assert sizes == [1, 1, 2, 4, 8]
    assert admission.free == 10


@pytest.mark.parametrize("seen", [GATEWAY, MAINTENANCE, Unsent("ConnectError")], ids=["502", "503", "unsent"])
def test_no_failure_ends_the_outage(seen: Observation) -> None:
    """A failure does not show that the cloud is back, even if it asks to wait."""
    assert observe(in_outage(), seen, now=1.5, sent_at=0.5).breaker.is_open


def test_failures_of_one_server_are_no_outage() -> None:
    """Any number of Nova's own 500s for one server are that server's failures."""
    admission = Admission(10)
    for _ in range(99):
        admission.observe(BROKEN, 1.0, sent_at=0.5, server_id="bad")

    assert not admission.is_paused(1.0)


def test_the_clock_is_paused_in_an_outage() -> None:
    """It is paused from the first failure to the first good answer; a pause of the throttle in between counts once."""
    admission = in_outage(now=10.0)
    observe(admission, MAINTENANCE, now=20.0, sent_at=9.0)
    assert admission.active_time(30.0) == 10.0
    observe(admission, GOOD, now=40.0, sent_at=9.0)

    assert admission.active_time(40.0) == 10.0
    assert admission.active_time(60.0) == 20.0


# Failed sends that an outage has caused.


def refunds(*after: tuple[object, float], failure: Observation = GATEWAY, ids: str = "ababa") -> list[int]:
    """Return how many of the sends that opened the breaker are reported, at first and after each answer to a probe."""
    admission, run = Admission(10), flow()
    # Two servers of many that are sent to with success: a gateway without a service behind it is no cause by itself.
    admission.record_accepted()
    counts = [sum(len(admission.observe(failure, 1.0, sent_at=0.5, server_id=id_, sender=run)) for id_ in ids)]
    for seen, now in after:
        [probe] = leave(admission, 1, now)
        counts.append(len(admission.observe(seen, now, sent_at=now, server_id="any")))
        admission.release(probe)
    return counts


def test_only_a_probe_that_fails_shows_that_no_server_is_the_cause() -> None:
    """Sends that failed in an outage are reported once; without proof of an outage they are not."""
    assert refunds() == [0]
    assert refunds((GOOD, 2.0)) == [0, 0]
    assert refunds((GATEWAY, 2.0)) == [0, 5]
    assert refunds((GATEWAY, 2.0), (GATEWAY, 4.0), (GATEWAY, 8.0)) == [0, 5, 0, 0]
    assert refunds((GATEWAY, 2.0), (GOOD, 4.0)) == [0, 5, 0]


@pytest.mark.parametrize("ids", ["abcab", "abcde"])
def test_sends_that_fail_at_the_gateway_of_several_servers_are_reported_at_once(ids: str) -> None:
    """They show an outage of sends before any probe; the circuit breaker does not report them a second time."""
    assert refunds((GATEWAY, 2.0), ids=ids) == [5, 0]


def test_a_send_whose_answer_asked_to_wait_is_not_reported() -> None:
    """The decision on its answer does not count it as an attempt: it must not be refunded as well."""
    assert refunds((GATEWAY, 32.0), failure=MAINTENANCE) == [0, 0]
    assert refunds((GATEWAY, 32.0), failure=MAINTENANCE, ids="abcde") == [0, 0]


def test_failures_before_a_good_answer_are_not_reported_later() -> None:
    """Only failures of the row that opened the circuit breaker are the cloud's."""
    admission = Admission(10)
    assert not admission.observe(BROKEN, 1.0, sent_at=0.5, server_id="bad", sender=flow())
    observe(admission, GOOD, *[GATEWAY] * FAILURES)
    [probe] = leave(admission, 1, 2.0)

    assert not admission.observe(GATEWAY, 2.5, sent_at=2.0, server_id=None)
    admission.release(probe)
    assert admission.breaker.is_confirmed


def test_a_failed_send_is_reported_with_its_flow_and_server() -> None:
    """Runs that share a client each learn of their own servers."""
    admission, flows = Admission(10), [flow(), flow()]
    for number in range(FAILURES):
        admission.observe(BROKEN, 1.0, sent_at=0.5, server_id=f"{number}", sender=flows[number % 2])
    [probe] = leave(admission, 1, 2.0)
    caused = admission.observe(GATEWAY, 2.0, sent_at=2.0, server_id=None)
    admission.release(probe)

    assert [(failed.flow, failed.server_id) for failed in caused] == [
        (flows[number % 2], f"{number}") for number in range(FAILURES)
    ]


# Who waits for too long.


@pytest.mark.parametrize(
    ("admission", "began", "now", "detail"),
    [
        pytest.param(Admission(10), 0.0, 1e9, None, id="no request waits"),
        pytest.param(observe(Admission(10), THROTTLED), 0.0, 1.0, None, id="paused for a while"),
        pytest.param(in_outage(), 0.0, OUTAGE, None, id="an outage until now"),
        pytest.param(in_outage(), 0.0, 1.0 + OUTAGE, "in trouble for 300 s (502", id="an outage for too long"),
        pytest.param(in_outage(), 100.0, 1.0 + OUTAGE, None, id="an outage that the run found"),
        pytest.param(in_outage(), 100.0, 110.0 + OUTAGE, "in trouble for 310 s (502", id="that one for too long"),
        pytest.param(observe(in_outage(), GOOD, now=299.0), 0.0, 1e9, None, id="an outage that is over"),
    ],
)
def test_verdict(admission: Admission, began: float, now: float, detail: str | None) -> None:
    """A run stops after five minutes of trouble that it has seen itself, and says whose words those were."""
    stop = admission.verdict(flow(began=began), now)

    if detail is None:
        assert stop is None
    else:
        assert stop is not None
        assert stop.reason is StopReason.OUTAGE
        assert detail in stop.detail


@pytest.mark.parametrize(
    ("seconds", "is_too_long"), [(LONGEST_REQUESTED_PAUSE, False), (LONGEST_REQUESTED_PAUSE + 1.0, True), (1e9, True)]
)
def test_verdict_of_a_pause(seconds: float, is_too_long: bool) -> None:
    """Who is asked to wait for more than half an hour does not wait, as long as that much is left of it."""
    admission = Admission(10)
    admission.pause(1.0, seconds, sent_at=0.5, words="come back tomorrow")
    stop = admission.verdict(flow(), 1.0)

    assert (stop is not None) is is_too_long
    assert stop is None or f"asks to wait for {seconds:.0f} s (come back tomorrow)" in stop.detail
    assert admission.verdict(flow(), 1.0 + seconds - LONGEST_REQUESTED_PAUSE) is None


# Whatever comes.


@dataclass
class Crowd:
    """Requests of several runs that wait, leave and come back; it holds the laws at each that leaves."""

    admission: Admission
    most: int
    flows: list[Flow]
    queues: FairQueue[BasePermit] = field(default_factory=FairQueue)
    waiting: list[BasePermit] = field(default_factory=list)
    out: list[BasePermit] = field(default_factory=list)
    left_at: list[float] = field(default_factory=list)
    now: float = 0.0

    def come(self, number: int, priority: Priority) -> None:
        """Have one more wait."""
        self.waiting.append(BasePermit(self.flows[number % len(self.flows)], priority))
        self.queues.join(self.waiting[-1])

    def go(self) -> None:
        """Let all leave that may."""
        while (permit := self.queues.first()) and self.admission.wait(permit.flow, self.now) == 0.0:
            assert self.admission.throttle.remaining(self.now) == 0.0
            assert not (self.admission.breaker.is_open and any(permit.is_probe for permit in self.out))
            could = [other for other in self.waiting if other.flow.has_room]
            assert permit.priority is min(other.priority for other in could)
            self.queues.quit(permit)
            self.waiting.remove(permit)
            self.admission.admit(permit, self.now)
            self.admission.record_sent(self.now)
            self.out.append(permit)
            self.left_at.append(self.now)
            assert self.out[-1].is_probe is self.admission.breaker.is_open
            assert self.admission.free >= 0
            self.count()

    def come_back(self, number: int, seen: object | None) -> None:
        """Let one come back, or get lost."""
        if self.out:
            permit = self.out.pop(number % len(self.out))
            assert permit.granted_at is not None
            if seen is not None:
                sent_at = permit.granted_at
                self.admission.observe(seen, self.now, sent_at=sent_at, server_id=f"{number}", sender=permit.flow)
            self.admission.release(permit)
            self.count()

    def count(self) -> None:
        """Hold that what is in flight is what has left and not come back."""
        assert self.admission.in_flight == len(self.out) <= self.most
        for one in self.flows:
            assert one.in_flight == sum(permit.flow is one for permit in self.out)


SEEN: Final = [
    *(GOOD, GOOD, SERVERS, None, None, UNSAID, THROTTLED, OVERLOAD, GATEWAY, GATEWAY, MAINTENANCE, BROKEN),
    *(keystone(), Unsent("ConnectError"), Unanswered("ReadError"), Unanswered("ReadTimeout", may_come_late=True)),
]
STEPS: Final = st.tuples(
    st.sampled_from(["come", "come", "back", "back", "later"]),
    st.integers(0, 20),
    st.sampled_from(Priority),
    st.sampled_from(SEEN),
    st.floats(0.0, 40.0),
)


@given(
    most=st.integers(1, 12),
    rate=st.one_of(st.none(), st.floats(0.1, 50.0)),
    adaptive=st.sampled_from([True, False, "latency"]),
    bounds=st.lists(st.one_of(st.none(), st.integers(1, 4)), min_size=1, max_size=3),
    steps=st.lists(STEPS, max_size=120),
)
def test_laws(
    most: int,
    rate: float | None,
    adaptive: bool | Literal["latency"],
    bounds: list[int | None],
    steps: list[tuple[str, int, Priority, object, float]],
) -> None:
    """Whatever comes back, or does not, every bound is kept; and when all are done, whoever waits may leave."""
    crowd = Crowd(Admission(most, rate, adaptive), most, [flow(bound) for bound in bounds])
    for what, number, priority, seen, seconds in steps:
        match what:
            case "come":
                crowd.come(number, priority)
            case "back":
                crowd.come_back(number, seen)
            case _:
                crowd.now += seconds
        crowd.go()
    gaps = [later - earlier for earlier, later in pairwise(crowd.left_at)]
    assert rate is None or all(gap >= 1.0 / rate - LATENESS - 1e-6 for gap in gaps)

    while crowd.waiting or crowd.out:
        crowd.now += 100.0
        before = len(crowd.waiting)
        crowd.go()
        assert len(crowd.waiting) < before or crowd.out
        while crowd.out:
            crowd.come_back(0, None)
