"""What the run's own accepted reboots tell of the action log: which rows are ours, and when and how late they come."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from bulkrestart.core.calibration import UNMEASURED_LAG, ActionLogCalibration, CalibrationSample
from bulkrestart.core.checkpoint import LogFacts
from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, CloudClock, Instant, LogMoment, LogTime
from bulkrestart.core.decision import Accept
from bulkrestart.core.model import Action, Attempt, Log, RebootType, Server
from bulkrestart.core.observation import Unanswered
from bulkrestart.core.progress import Order, Progress
from bulkrestart.core.sends import Sends

#: The cloud's `Date` at moment 0.0 of the run's clock.
DATE = 1_800_000_000.0


NOTHING = LogFacts()


def calibration(*, facts: LogFacts = NOTHING, is_guess: bool = False) -> ActionLogCalibration:
    """Give a calibration that has learnt nothing yet, where `Date` is known, or this machine's clock stands for it."""
    clock = CloudClock()
    if is_guess:
        clock.guess(0.0, DATE)
    else:
        clock.learn(DATE, sent=0.0, received=0.0)
    return ActionLogCalibration(clock, facts)


def sample(number: int = 1, *, at: float = 0.0, request_id: str | None = "req") -> CalibrationSample:
    """Give a send that was accepted at once, at that moment."""
    return CalibrationSample(
        server_id=f"server-{number}",
        request_id=None if request_id is None else f"{request_id}-{number}",
        written=(DATE + at, DATE + at + 1.0),
        accepted_at=at,
    )


def reboot(number: int, *, start: float, request_id: str = "req", user_id: str = "me") -> Action:
    """Give the row of a reboot that began so many seconds after `DATE`."""
    return Action(action="reboot", request_id=f"{request_id}-{number}", start_time=DATE + start, user_id=user_id)


def unresolved(at: float = 0.0, *, is_former: bool = False) -> Progress:
    """Give a server with a send of unknown fate that left at that moment."""
    order = Order(reboot_type=RebootType.SOFT)
    sends = Sends(since=(DATE + at, DATE + at + 1.0), is_since_former=is_former, is_former=is_former)
    return Progress(server_id="server", order=order, reboot_type=order.reboot_type, sends=sends)


CREATED = Action(action="create", request_id="req-created", start_time=DATE - 86_400.0, user_id="me")


def test_row_with_the_id_of_an_answer_dates_the_log() -> None:
    """One row that is certainly ours tells who we are, and by how much the log's clock differs from `Date`."""
    one = calibration()
    assert one.log_time(unresolved(), 10.0) == LogTime((DATE, DATE + 1.0), DATE + 11.0, UNCHECKED_SKEW)

    one.observe((reboot(1, start=100.0), CREATED), sample(), asked_at=0.5)

    assert one.facts == LogFacts(is_proven=True, user_id="me", shift=(98.5, 101.0))
    assert one.log_time(unresolved(), 10.0) == LogTime((DATE + 98.5, DATE + 102.0), DATE + 112.0, SKEW)
    assert one.can_date(unresolved())
    assert not one.are_ids_foreign


def test_first_row_dates_the_log_for_good() -> None:
    """Later rows change nothing: the journal's header is not written again for each server."""
    one = calibration()
    one.observe((reboot(1, start=100.0),), sample(), asked_at=0.5)
    facts = one.facts

    one.observe((reboot(2, start=103.0),), sample(2), asked_at=0.5)

    assert one.facts == facts


def test_send_of_a_former_process() -> None:
    """It is read by the shift that its process knew, loosely, and ours by our own alone."""
    one = calibration(facts=LogFacts(is_proven=True, user_id="me", shift=(-300.0, -299.0)))
    former, ours = unresolved(is_former=True), unresolved()
    assert one.log_time(former, 0.0) == LogTime((DATE - 300.0, DATE - 298.0), DATE + 1.0, UNCHECKED_SKEW)
    assert one.log_time(ours, 0.0) == LogTime((DATE, DATE + 1.0), DATE + 1.0, UNCHECKED_SKEW)

    one.observe((reboot(1, start=100.0),), sample(), asked_at=0.5)

    assert one.log_time(ours, 0.0) == LogTime((DATE + 98.5, DATE + 102.0), DATE + 102.0, SKEW)
    assert one.can_date(ours)
    assert not one.can_date(former)


def test_clock_of_this_machine_stands_for_a_date() -> None:
    """Without a `Date` no row can be said to be older than a send, until rows of ours have dated the log."""
    one = calibration(is_guess=True)
    undated = LogTime((DATE, DATE + 1.0), float("inf"), float("inf"))
    assert one.log_time(unresolved(), 10.0) == undated
    assert one.log_time(unresolved(is_former=True), 10.0) == undated

    one.observe((reboot(1, start=-86_400.0),), sample(), asked_at=0.5)

    dated = LogTime((DATE - 86_401.5, DATE - 86_398.0), DATE - 86_389.0, SKEW)
    assert one.log_time(unresolved(), 10.0) == dated


def test_nothing_is_dated_before_an_answer() -> None:
    """Where no request was answered yet nothing is known, and no sample is made."""
    one = ActionLogCalibration(CloudClock(), LogFacts())
    assert one.log_time(unresolved(), 0.0) is None
    assert one.sample_of(unresolved(), 0.0) is None


def hidden(shifts: Sequence[float], request_id: str | None = None, *, is_guess: bool = False) -> ActionLogCalibration:
    """Let servers be read whose newest reboot began so long after their send, behind a gateway that has its own ids."""
    one = calibration(is_guess=is_guess)
    for number, shift in enumerate(shifts):
        log = (reboot(number, start=shift, request_id="nova"), CREATED)
        one.observe(log, sample(number, request_id=request_id), asked_at=UNMEASURED_LAG)
    return one


@pytest.mark.parametrize("request_id", [None, "gateway"])
@pytest.mark.parametrize("shift", [-600.0, -60.0, -5.0, 0.0, 5.0, 60.0, 600.0])
def test_servers_that_agree_date_a_log_without_our_ids(request_id: str | None, shift: float) -> None:
    """Three servers whose newest reboots are as far from their sends as each other's tell the log's clock, and us."""
    assert not hidden([shift, shift + 2.0], request_id).can_date(unresolved())

    one = hidden([shift, shift + 2.0, shift - 3.0], request_id)

    assert one.can_date(unresolved())
    assert one.are_ids_foreign
    assert one.facts.user_id == "me"
    log_time = one.log_time(unresolved(), 0.0)
    assert log_time is not None
    assert log_time.since[0] <= DATE + shift - 3.0
    assert log_time.since[1] >= DATE + shift + 2.0


def test_server_that_disagrees_is_outvoted() -> None:
    """A reboot of somebody else's in one log does not keep the others from agreeing."""
    assert hidden([5.0, -300.0, 6.0, 4.0]).can_date(unresolved())


@pytest.mark.parametrize("shifts", [[0.0, 11.0, 22.0], [0.0, 300.0, 600.0], [-901.0, -901.0, -901.0]])
def test_servers_that_do_not_agree_date_nothing(shifts: list[float]) -> None:
    """Three reboots at unlike times, or before what clocks may differ by, may be anybody's."""
    one = hidden(shifts)
    assert not one.can_date(unresolved())
    assert one.facts == LogFacts()


def test_clock_that_nothing_vouches_for_may_be_off_by_any_time() -> None:
    """Without a `Date`, servers that agree date the log by whatever they agree on."""
    assert hidden([-1e6, -1e6, -1e6], is_guess=True).can_date(unresolved())


def test_users_that_differ_are_not_us() -> None:
    """Rows that agree in time and not in the user leave open who we are."""
    one = calibration()
    for number, user_id in enumerate(("me", "me", "another")):
        log = (reboot(number, start=5.0, request_id="nova", user_id=user_id),)
        one.observe(log, sample(number, request_id=None), asked_at=UNMEASURED_LAG)
    assert one.can_date(unresolved())
    assert one.facts.user_id is None


def test_log_that_may_still_be_late_does_not_vote() -> None:
    """Before reads are certain to show it, the newest row may be that of an earlier reboot."""
    one = calibration()
    for number in range(3):
        log = (reboot(number, start=-300.0, request_id="nova"),)
        one.observe(log, sample(number, request_id=None), asked_at=UNMEASURED_LAG - 0.1)
    assert not one.can_date(unresolved())


def fresh(one: ActionLogCalibration, count: int) -> None:
    """Let the rows of so many servers be shown at once."""
    for number in range(count):
        one.observe((reboot(number, start=0.0),), sample(number), asked_at=0.5)


def test_lag_is_assumed_until_it_is_measured() -> None:
    """Three servers whose rows were shown at once say that reads are fresh; fewer do not, nor does one three times."""
    one = calibration()
    fresh(one, 2)
    fresh(one, 1)
    assert one.lag == UNMEASURED_LAG
    fresh(one, 3)
    assert one.lag == 0.0


def test_row_that_was_shown_late_is_not_fresh() -> None:
    """A row that was asked for long after its acceptance says nothing of the lag."""
    one = calibration()
    for number in range(3):
        one.observe((reboot(number, start=0.0),), sample(number), asked_at=5.1)
    assert one.lag == UNMEASURED_LAG


@pytest.mark.parametrize(("missing_at", "expected"), [(0.5, UNMEASURED_LAG), (20.0, 40.0), (70.0, 140.0)])
def test_row_that_is_missing_lengthens_the_lag(missing_at: float, expected: float) -> None:
    """A row that was not shown at some age after its acceptance was late by more; others may be later still."""
    one = calibration()
    fresh(one, 3)
    one.observe((CREATED,), sample(9), asked_at=missing_at)
    assert one.lag == expected


def test_row_that_carries_no_id_is_not_missing() -> None:
    """Where answers carry no id nothing tells a late row from an absent one."""
    one = calibration()
    fresh(one, 3)
    one.observe((CREATED,), sample(9, request_id=None), asked_at=20.0)
    assert one.lag == 0.0


def test_ids_of_a_gateway_are_no_lag() -> None:
    """Rows that were missed because their ids are a gateway's are forgotten once servers have agreed on that."""
    one = calibration()
    one.observe((CREATED,), sample(9, request_id="gateway"), asked_at=29.0)
    assert one.lag == 58.0
    for number in range(3):
        log = (reboot(number, start=0.0, request_id="nova"),)
        one.observe(log, sample(number, request_id="gateway"), asked_at=UNMEASURED_LAG)
    assert one.lag == UNMEASURED_LAG
    one.observe((CREATED,), sample(9, request_id="gateway"), asked_at=29.0)
    assert one.lag == UNMEASURED_LAG


def test_newest_sample_is_asked_for_first_and_until_it_is_shown() -> None:
    """Of the sends that were accepted the newest tells most of the lag; one that is late is asked for again."""
    one = calibration()
    assert one.next_sample(0.0) is None
    assert not one.may_be_dated_soon
    first, second, third = sample(1), sample(2, at=1.0), sample(3, at=2.0)
    one.add(first)
    one.add(second)
    assert one.may_be_dated_soon
    assert one.next_sample(1.0) == second
    one.add(third)
    one.observe((CREATED,), second, asked_at=1.0)
    assert one.next_sample(3.0) == second
    one.observe((reboot(2, start=1.0),), second, asked_at=3.0)
    assert one.next_sample(3.0) == third
    assert not one.may_be_dated_soon


def test_samples_end_when_nothing_more_is_to_be_learnt() -> None:
    """The clock is known and reads are fresh: no server's log is read for that any more."""
    one = calibration()
    fresh(one, 3)
    one.add(sample(9))
    assert one.next_sample(0.0) is None


def test_row_that_never_comes_is_given_up() -> None:
    """A sample whose row is not shown for five minutes makes room for the next."""
    one = calibration()
    one.add(sample(1))
    assert one.next_sample(0.0) == sample(1)
    one.add(sample(2, at=299.0))
    one.observe((CREATED,), sample(1), asked_at=299.9)
    assert one.next_sample(299.9) == sample(1)
    one.observe((CREATED,), sample(1), asked_at=300.0)
    assert one.next_sample(300.0) == sample(2, at=299.0)


def test_samples_of_one_run_are_bounded() -> None:
    """Where reads lag and nothing shows it, no more than twenty servers are asked about."""
    one = calibration()
    for number in range(30):
        one.add(sample(number))
        asked = one.next_sample(0.0)
        if asked is not None:
            one.observe((reboot(number, start=0.0),), asked, asked_at=6.0)
    one.add(sample(99))
    assert one.next_sample(0.0) is None


def test_samples_without_ids_wait_until_their_rows_are_shown() -> None:
    """What the newest row is tells only when the log cannot be late any more; eight are kept for that."""
    one = calibration()
    for number in range(20):
        one.add(sample(number, request_id=None))
    assert one.may_be_dated_soon
    assert one.next_sample(UNMEASURED_LAG - 0.1) is None
    asked: set[str] = set()
    while (one_sample := one.next_sample(UNMEASURED_LAG)) is not None and len(asked) < 20:
        asked.add(one_sample.server_id)
        one.observe(
            (CREATED, reboot(0, start=len(asked) * 50.0, request_id="nova")), one_sample, asked_at=UNMEASURED_LAG
        )
    assert asked == {f"server-{number}" for number in range(8)}


def test_log_that_is_kept_from_us_is_not_asked_again() -> None:
    """Once the log is refused no sample is given, and none is expected."""
    one = calibration()
    one.add(sample())
    one.mark_unreadable()
    assert one.next_sample(0.0) is None
    assert not one.may_be_dated_soon


@pytest.mark.parametrize("request_id", ["req-1", "req-other", None])
def test_user_of_a_row_that_is_ours(request_id: str | None) -> None:
    """Only the row whose id an answer of ours carried tells who we are."""
    one = calibration()
    one.learn_user((reboot(1, start=-9.0), CREATED), request_id)
    is_ours = request_id == "req-1"
    assert one.facts == LogFacts(is_proven=is_ours, user_id="me" if is_ours else None)


def accepted(*, since: tuple[float, float] | None, doubts: int = 0, is_former: bool = False) -> Progress:
    """Give a server whose reboot was accepted."""
    order = Order(reboot_type=RebootType.SOFT)
    attempts = (Attempt(0.0, "202", "req-1"),)
    sends = Sends(attempts=attempts, since=since, doubts=doubts, is_since_former=is_former)
    return Progress(
        server_id="server-1",
        order=order,
        reboot_type=order.reboot_type,
        sends=sends,
        accepted=Accept(request_id="req-1"),
    )


def test_sample_of_a_server() -> None:
    """An accepted send was written between its leaving and its answer, by `Date`."""
    one = calibration()
    expected = CalibrationSample(server_id="server-1", request_id="req-1", written=(DATE, DATE + 6.0), accepted_at=5.0)
    assert one.sample_of(accepted(since=(DATE, DATE + 1.0)), 5.0) == expected


@pytest.mark.parametrize(
    ("progress", "accepted_at"),
    [
        pytest.param(accepted(since=None), 5.0, id="its send is not dated"),
        pytest.param(accepted(since=(DATE, DATE + 1.0), doubts=1), 5.0, id="found by what a sample is to tell"),
        pytest.param(accepted(since=(DATE, DATE + 1.0), is_former=True), 5.0, id="of a former process"),
        pytest.param(accepted(since=(DATE, DATE + 1.0)), 9.1, id="it took more than 10 s"),
    ],
)
def test_server_that_is_no_sample(progress: Progress, accepted_at: float) -> None:
    """What dates nothing, or only by itself, is no sample."""
    assert calibration().sample_of(progress, accepted_at) is None


@pytest.mark.parametrize(
    ("start", "earliest", "latest"),
    [
        pytest.param(0.0, 0.0, 0.0, id="the log agrees with Date"),
        pytest.param(-20.0, -21.5, 0.0, id="the log is behind Date"),
        pytest.param(20.0, 0.0, 21.0, id="the log is ahead of Date"),
    ],
)
def test_moment_of_a_user_in_the_time_of_the_log(start: float, earliest: float, latest: float) -> None:
    """`since` may have been read on the clock of `Date`, or on one that agrees with the log's."""
    one = calibration()
    assert one.moment(DATE) == LogMoment(earliest=DATE - SKEW, latest=DATE + SKEW)
    one.observe((reboot(1, start=start),), sample(), asked_at=0.5)
    assert one.moment(DATE) == LogMoment(earliest=DATE + earliest - SKEW, latest=DATE + latest + SKEW)


def test_former_knowledge_does_not_move_a_moment_of_a_user() -> None:
    """The shift of a former process is of the `Date` that it saw."""
    one = calibration(facts=LogFacts(shift=(-300.0, -299.0)))
    assert one.moment(DATE) == LogMoment(earliest=DATE - SKEW, latest=DATE + SKEW)


def answered(*request_ids: str | None) -> Progress:
    """Give a server with a send for each answer, which carried such an id."""
    order = Order(reboot_type=RebootType.SOFT)
    attempts = tuple(Attempt(0.0, "202", request_id) for request_id in request_ids)
    sends = Sends(attempts=attempts, since=(DATE, DATE + 1.0))
    return Progress(server_id="server", order=order, reboot_type=order.reboot_type, sends=sends)


OWN = reboot(1, start=1.0)


@pytest.mark.parametrize("name", ["reboot", "power-cycle", "restart", "neustart", "stop"])
@pytest.mark.parametrize("ids", [("req-1",), (None, "req-1"), ("req-1", "req-2"), ("req-0", "req-1")])
def test_row_with_the_id_of_an_answer_is_a_reboot_by_any_name(name: str, ids: tuple[str | None, ...]) -> None:
    """An id of a request of ours is of no other action, whatever the cloud calls it."""
    log = (replace(OWN, action=name), replace(OWN, action="lock", request_id="req-9"), CREATED)

    assert calibration().name_own_rows(log, answered(*ids)) == (OWN, *log[1:])


@pytest.mark.parametrize("name", ["create", "start", "stop", "rebuild"])
@pytest.mark.parametrize(("before", "is_old"), [(-5.0, False), (59.0, False), (61.0, True), (9e6, True)])
def test_row_of_another_action_from_before_the_send_is_not_ours(name: str, before: float, is_old: bool) -> None:
    """A gateway wrote its id on an answer of ours: the row neither is a reboot nor sets the log's clock."""
    one, row = calibration(), replace(OWN, action=name, start_time=DATE - before)

    log = one.name_own_rows((row,), answered("req-1"))

    assert log == (replace(row, request_id="") if is_old else replace(row, action="reboot"),)
    undated = answered("req-1")
    undated.sends.since = None
    assert one.name_own_rows((row,), undated) == (replace(row, request_id=""),)


@pytest.mark.parametrize("name", ["power-cycle", "restart", "neustart", "stop", "create"])
def test_name_of_a_row_of_ours_is_learnt_for_all_logs(name: str) -> None:
    """A name that Nova has not, and that a row of ours has, means a reboot in other rows; one of Nova's does not."""
    one, another = calibration(), replace(OWN, action=name, request_id="req-9")
    assert one.name_own_rows((another, CREATED), answered(None)) == (another, CREATED)

    one.name_own_rows((replace(OWN, action=name), CREATED), answered("req-1"))

    known = replace(another, action="reboot") if name in ("power-cycle", "restart", "neustart") else another
    for progress in (answered(None), answered("req-2")):
        assert one.name_own_rows((another, CREATED), progress) == (known, CREATED)


@pytest.mark.parametrize("name", ["reboot", "power-cycle", "stop"])
def test_id_that_several_answers_carried_names_no_row(name: str) -> None:
    """A gateway that gives the same id to all does not tell which row is ours: user and time do."""
    row, nameless = replace(OWN, action=name), replace(OWN, action=name, request_id="")
    assert calibration().name_own_rows((row,), answered("req-1", "req-1")) == (nameless,)

    assert calibration().name_own_rows((row, row), answered("req-1")) == (nameless, nameless)

    one = calibration()
    for request_id in ("req-7", None, None, "req-1", "req-8"):
        one.note_id(request_id)
    assert not one.are_ids_foreign
    one.note_id("req-1")
    assert one.are_ids_foreign
    assert one.name_own_rows((row, CREATED), answered("req-1")) == (nameless, CREATED)
    one.observe((row,), sample(), asked_at=0.5)
    assert not one.can_date(unresolved())


@pytest.mark.parametrize("log", [(), (OWN,), Unanswered("ReadTimeout")], ids=["empty", "a row", "no log"])
def test_without_ids_a_log_stays_as_it_is(log: Log | Unanswered) -> None:
    """Where no answer carried an id, and where no log was read, nothing is named."""
    assert calibration().name_own_rows(log, answered(None)) is log


@pytest.mark.parametrize("ahead", [90.0, 600.0])
def test_gateways_that_contradict_each_other_date_nothing_closely(ahead: float) -> None:
    """Where one gateway's `Date` is ahead of another's, a row that one of them dates does not vouch for the other."""
    clock = CloudClock()
    clock.learn(DATE, sent=0.0, received=0.0)
    one = ActionLogCalibration(clock, LogFacts())
    one.observe((reboot(1, start=0.0),), sample(), asked_at=0.5)
    clock.learn(DATE + ahead, sent=0.0, received=0.0)
    log_time = one.log_time(unresolved(ahead), 0.0)
    assert log_time is not None
    assert log_time.skew == SKEW + ahead - 1.0


def test_clock_of_this_machine_is_asked_only_as_long_as_no_date_is_known() -> None:
    """A `Date` counts whenever it comes; after one, an answer without it says nothing."""
    clock = CloudClock()
    clock.guess(1.0, DATE + 50.0)
    assert (clock.at(2.0), clock.is_guess) == ((DATE + 51.0, DATE + 51.0), True)
    clock.guess(2.0, DATE + 500.0)
    assert clock.at(2.0) == (DATE + 51.0, DATE + 51.0)
    clock.learn(DATE, sent=2.0, received=2.0)
    clock.guess(3.0, DATE + 500.0)
    assert (clock.at(2.0), clock.is_guess) == ((DATE, DATE + 1.0), False)


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (Instant(monotonic=110.0, suspended=0.0, wall=1010.0), 10.0),
        # SIGSTOP: the event loop's clock goes on.
        (Instant(monotonic=280.0, suspended=0.0, wall=1180.0), 180.0),
        # The machine was suspended: the event loop's clock stood still.
        (Instant(monotonic=101.0, suspended=180.0, wall=1181.0), 181.0),
        # A virtual machine was paused, and only its clock on the wall was set.
        (Instant(monotonic=101.0, suspended=0.0, wall=1181.0), 181.0),
        # A clock on the wall that was set back makes nothing younger.
        (Instant(monotonic=110.0, suspended=0.0, wall=0.0), 10.0),
    ],
)
def test_age_includes_suspension(later: Instant, expected: float) -> None:
    """The age of an instant includes the time in which the process or its machine was suspended."""
    then = Instant(monotonic=100.0, suspended=0.0, wall=1000.0)
    assert then.age(later) == expected
    assert then.at(105.0).age(later.at(later.monotonic)) == pytest.approx(max(expected - 5.0, later.monotonic - 105.0))


def test_user_that_a_former_process_knew_is_who_sent_then() -> None:
    """A run may go on as another user: what its journal says of us holds for its sends, and for no send of ours."""
    one = calibration(facts=LogFacts(is_proven=True, user_id="before"))
    former, ours = unresolved(is_former=True), unresolved()
    assert (one.user_id(former), one.user_id(ours)) == ("before", None)

    one.learn_user((reboot(1, start=0.0),), "req-1")

    assert (one.user_id(former), one.user_id(ours)) == ("before", "me")
    assert one.facts.user_id is None


def test_server_that_two_processes_have_sent_to() -> None:
    """Where a send of each may be looked for, who we are is known only if both were the same user."""
    both = unresolved(is_former=True)
    both.sends.doubts = 1
    both.sends.leave(10.0, (DATE + 10.0, DATE + 11.0))
    other, same = (calibration(facts=LogFacts(is_proven=True, user_id=user_id)) for user_id in ("before", "me"))
    for one in (other, same):
        assert one.user_id(both) is None
        one.learn_user((reboot(1, start=0.0),), "req-1")

    assert (other.user_id(both), same.user_id(both)) == (None, "me")
    assert same.facts.user_id == "me"


def test_users_that_change_within_a_run_are_not_told_apart() -> None:
    """Where rows that are certainly ours name two users, neither alone is who we are."""
    one = calibration()
    one.learn_user((reboot(1, start=0.0, user_id="a"),), "req-1")
    one.learn_user((reboot(2, start=0.0, user_id="b"),), "req-2")

    assert (one.user_id(unresolved()), one.facts) == (None, LogFacts(is_proven=True))


def test_states_of_servers_are_not_measured_by_the_log() -> None:
    """A log that shows rows at once says nothing of how late the states of servers are shown; a late one does."""
    one = calibration()
    fresh(one, 3)
    assert (one.lag, one.view_lag) == (0.0, UNMEASURED_LAG)

    one.observe((), sample(9), asked_at=40.0)

    assert (one.lag, one.view_lag) == (80.0, 80.0)


def test_row_that_was_only_searched_for_dates_nothing() -> None:
    """A sample goes by the id of an answer; one that was found in the log by the clock may be of another reboot."""
    progress = accepted(since=(DATE, DATE + 1.0))
    progress.identify("req-2")
    made = calibration().sample_of(progress, 0.5)
    assert made is not None

    one = calibration()
    one.observe((reboot(2, start=500.0), CREATED), made, asked_at=1.0)

    assert (one.facts, one.can_date(unresolved())) == (NOTHING, False)


def shown(updated: float | None) -> Server:
    """Give a server that was saved so many seconds after `DATE`, as a whole second."""
    saved = None if updated is None else DATE + float(int(updated))
    return Server(id="server", status="ACTIVE", vm_state="active", task_state=None, updated=saved)


@pytest.mark.parametrize(
    ("updated", "is_saved"),
    [
        pytest.param(20.0, True, id="in the second of the send"),
        pytest.param(25.0, True, id="later"),
        pytest.param(19.0, False, id="a second before the send"),
        pytest.param(-9e9, False, id="long before"),
        pytest.param(60.0, False, id="in the future"),
        pytest.param(None, False, id="not told"),
    ],
)
def test_updated_after_the_send_shows_the_reboot(updated: float | None, is_saved: bool) -> None:
    """Each reboot saves its server first, so that a later `updated` cannot be older than the reboot."""
    assert calibration().record_updated(shown(updated), unresolved(20.0), 40.0) is is_saved


@pytest.mark.parametrize("wrong", [10.0, 100.0], ids=["views lag", "a clock is ahead"])
def test_updated_that_was_wrong_once_shows_no_reboot(wrong: float) -> None:
    """An `updated` from before an accepted send, or from the future, is evidence against that of every server."""
    one = calibration()
    assert one.record_updated(shown(25.0), unresolved(20.0), 40.0)
    assert not one.record_updated(shown(wrong), unresolved(20.0), 40.0)
    assert not one.record_updated(shown(25.0), unresolved(20.0), 40.0)


@pytest.mark.parametrize("kind", ["guessed clock", "former process", "several sends"])
def test_updated_where_the_time_of_the_send_is_not_known(kind: str) -> None:
    """Without `Date`, after a former process, or with an earlier send of unknown fate nothing is concluded."""
    progress = unresolved(20.0, is_former=kind == "former process")
    if kind == "several sends":
        progress = replace(progress, sends=replace(progress.sends, doubts=1))
    assert not calibration(is_guess=kind == "guessed clock").record_updated(shown(25.0), progress, 40.0)
