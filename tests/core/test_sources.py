"""A source is judged once for a whole run: which answers mean that it is unreadable, and which do not."""

from collections.abc import Sequence

import pytest

from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.sources import PROBE_INTERVAL, SourceHealth, SourceOutage, is_failure, is_source_outage
from tests.core.samples import answer, ecs, gateway, keystone, nova, page

POLICY = "Policy doesn't allow os_compute_api:os-instance-actions:list to be performed."
#: The cloud itself says that we may not read the source, or that it does not exist.
FINAL = {
    "forbidden": nova(403, POLICY),
    "forbidden, in ECS's words": ecs(403, "Ecs.0003", "no permission"),
    "not implemented": nova(501, "not here"),
    "no such method": nova(405, "Method not allowed"),
    "no such API": gateway(404, "APIGW.0101", "The API does not exist"),
}
#: Answers that count only if they repeat.
ODD = {
    "401 where the token is good elsewhere": keystone(has_stale_token=True),
    "403 of a firewall": page(403, "Forbidden"),
    "404 of a gateway": page(404, "default backend - 404"),
    "501 of a proxy": page(501, "Not Implemented"),
    "a page": page(200, "Please sign in"),
    "JSON of another kind": answer(200, b'{"actions": []}'),
    "nothing": answer(204),
    "302": answer(302),
    "406": nova(406, "Version 2.60 is not supported"),
}
#: Answers that are about the cloud, the token or one server.
NEUTRAL = {
    "503": answer(503),
    "500 of Nova": nova(500, "Unexpected API Error."),
    "429": answer(429),
    "401 of a token that was never good": keystone(),
    "404 of Nova": nova(404, "Instance x could not be found."),
    "cut short": answer(200, b"{", is_cut_short=True),
    "unanswered": Unanswered("ReadTimeout"),
    "unsent": Unsent("ConnectError"),
}


SERVERS = 30
finals = pytest.mark.parametrize("seen", FINAL.values(), ids=FINAL)
odd = pytest.mark.parametrize("seen", ODD.values(), ids=ODD)


def is_unreadable(source: SourceHealth, seen: object, server: str, good: int, *, is_shown: bool = False) -> bool:
    """Record an answer, and return whether its server is judged without the source."""
    result = source.judge(seen, server, good, is_shown=is_shown)
    assert source.permanent_answer is None or result == source.permanent_answer
    return isinstance(result, Answer) and result.is_permanent


@finals
def test_what_the_cloud_says_itself_is_final(seen: Answer) -> None:
    """One answer is enough for its server; that a feature is missing is enough for all."""
    source = SourceHealth(SERVERS)

    assert is_unreadable(source, seen, "a", 0)
    assert (source.permanent_answer is not None) is (seen.status != 403)
    assert source.refusal is not None


@pytest.mark.parametrize("seen", [seen for seen in FINAL.values() if seen.status == 403])
def test_a_policy_may_be_about_one_server(seen: Answer) -> None:
    """The source is asked about other servers until a second one is refused as well."""
    source = SourceHealth(SERVERS)

    assert all(is_unreadable(source, seen, "a", good) for good in range(30))
    assert source.permanent_answer is None
    assert is_unreadable(source, seen, "b", 30)
    assert source.permanent_answer == source.refusal
    assert is_unreadable(source, (), "c", 31)


@pytest.mark.parametrize("seen", [*FINAL.values(), *ODD.values()], ids=[*FINAL, *ODD])
def test_a_run_of_one_server(seen: Answer) -> None:
    """There is no second server to ask about."""
    source = SourceHealth(1)

    assert [is_unreadable(source, seen, "a", good) for good in (0, 1)][1]
    assert source.permanent_answer is not None


@pytest.mark.parametrize("seen", [FINAL["forbidden"], FINAL["forbidden, in ECS's words"], *ODD.values()])
def test_a_read_between_two_servers_shows_that_they_are_exceptions(seen: Answer) -> None:
    """The log of one server may be refused, and so may that of another, while others are shown."""
    source = SourceHealth(SERVERS)
    for good in range(3):
        is_unreadable(source, seen, "a", good)
    assert source.refusal is not None
    assert source.judge((), "b", 3) == ()
    assert source.refusal is None
    is_unreadable(source, seen, "c", 4)

    assert source.permanent_answer is None


@odd
def test_an_odd_answer_has_to_come_again(seen: Observation) -> None:
    """An odd answer counts again only after other sources were read; otherwise all requests may be answered so."""
    source = SourceHealth(SERVERS)

    assert not is_unreadable(source, seen, "a", 5)
    assert not is_unreadable(source, seen, "b", 5)
    assert is_unreadable(source, seen, "a", 6)
    assert source.permanent_answer is not None


@odd
def test_odd_answers_about_one_server_are_about_that_server(seen: Observation) -> None:
    """It is judged without the source, which is asked about others."""
    source = SourceHealth(SERVERS)

    assert [is_unreadable(source, seen, "a", good) for good in range(4)] == [False, True, True, True]
    assert source.permanent_answer is None
    assert is_unreadable(source, seen, "b", 4)
    assert source.permanent_answer is not None


@pytest.mark.parametrize("seen", [*FINAL.values(), *ODD.values()], ids=[*FINAL, *ODD])
def test_a_source_that_was_read_is_not_given_up_for_a_few(seen: Observation) -> None:
    """A successful read outweighs a few odd answers, but not many in a row."""
    source = SourceHealth(SERVERS)
    source.judge((), "a", 0)

    assert not any(is_unreadable(source, seen, "ab"[good % 2], good) for good in range(1, 10))
    assert is_unreadable(source, seen, "a", 10)
    assert source.permanent_answer is not None


@odd
def test_a_read_ends_the_row(seen: Observation) -> None:
    """One node of the cloud may answer oddly."""
    source = SourceHealth(SERVERS)
    source.judge(seen, "a", 1)
    source.judge((), "a", 2)

    assert not is_unreadable(source, seen, "b", 3)
    assert source.permanent_answer is None


@pytest.mark.parametrize("seen", NEUTRAL.values(), ids=NEUTRAL)
def test_what_is_about_something_else_is_no_judgement(seen: Observation) -> None:
    """An outage, a refused token or a deleted server says nothing about the source."""
    source = SourceHealth(SERVERS)

    assert all(source.judge(seen, f"{good}", good) == seen for good in range(30))
    assert source.permanent_answer is None


def test_a_log_that_no_server_has() -> None:
    """Nova's "not found" is about one server, unless it comes for servers that exist."""
    absent = nova(404, "Instance x could not be found.")
    shown, unknown = SourceHealth(SERVERS), SourceHealth(SERVERS)

    calls = [("a", 1), ("b", 1), ("c", 2)]
    assert [is_unreadable(shown, absent, server, good, is_shown=True) for server, good in calls] == [False, False, True]
    assert not any(is_unreadable(unknown, absent, f"{good}", good) for good in range(30))


def test_a_source_that_was_read_in_another_way() -> None:
    """A row of the action log shows that the log can be read, and one 403 does not end it."""
    source = SourceHealth(SERVERS)
    source.record_read()

    assert not is_unreadable(source, nova(403, "Policy"), "a", 1)
    assert source.permanent_answer is None


#: Failures that may pass, and the seconds for which each pauses all requests or takes a slot.
FAILED = {
    "500 of Nova": (nova(500, "Unexpected API Error."), 0.0),
    "502": (answer(502), 0.0),
    "503": (answer(503), 0.0),
    "503 with Retry-After": (answer(503, headers={"retry-after": "20"}), 20.0),
    "504 after a minute": (answer(504), 60.0),
    "429": (answer(429), 0.0),
    "429 with Retry-After": (answer(429, headers={"retry-after": "300"}), 300.0),
    "413 overLimit": (nova(413, "This request was rate-limited."), 0.0),
    "time-out": (Unanswered("no answer within 60 s", may_come_late=True), 60.0),
    "cut connection": (Unanswered("ReadError"), 0.0),
    "cut short": (answer(200, b"{", is_cut_short=True), 0.0),
}
failed = pytest.mark.parametrize("seen", [seen for seen, _ in FAILED.values()], ids=FAILED)
#: What is no failure of a source.
PASSED = {
    "a log": (),
    "401": keystone(),
    "404 of Nova": NEUTRAL["404 of Nova"],
    "unsent": Unsent("ConnectError"),
    **FINAL,
    **ODD,
}
THREE = ("a", "b", "c")


def fail(
    source: SourceOutage, seen: Observation, *moments: float, servers: Sequence[str] = THREE, good: int | None = None
) -> None:
    """Record at each moment one failure about each server; other requests succeed before it, unless `good` is given."""
    for at in moments:
        for server in servers:
            source.record_failure(seen, server, at, int(at) if good is None else good, asked_at=at)


@pytest.mark.parametrize("seen", PASSED.values(), ids=PASSED)
def test_what_is_no_failure(seen: object) -> None:
    """It is a read, a refusal, about one server, or has not reached the source."""
    assert not is_failure(seen)


@failed
def test_a_source_that_fails_for_long(seen: Observation) -> None:
    """Three failures, 30 s apart and over 90 s, with others before: all servers are judged without the source."""
    source = SourceOutage()
    assert is_failure(seen)
    fail(source, seen, 0.0, 30.0, 89.0)
    assert source.is_suspect("x")
    assert not source.is_failing("x", 89.9)

    assert source.is_failing("x", 90.0)
    assert source.lasts(90.0) == 90.0
    assert is_source_outage(source.answer(90.0))
    assert str(seen) in source.answer(90.0).words
    assert "90 s" in source.answer(90.0).words


@failed
def test_a_source_that_is_read_once_between_does_not_fail(seen: Observation) -> None:
    """The row begins anew."""
    source = SourceOutage()
    fail(source, seen, 0.0, 30.0, 60.0)
    source.record_read(61.0)
    fail(source, seen, 62.0, 92.0)

    assert not source.is_failing("a", 150.0)
    fail(source, seen, 151.0)
    assert not source.is_failing("a", 151.9)
    assert source.is_failing("a", 152.0)


@pytest.mark.parametrize(
    "moments", [(0.0,), (0.0, 300.0), (0.0, 1.0, 29.0, 31.0, 59.0), (0.0, 29.9, 59.8)], ids=["1", "2", "two", "two too"]
)
def test_a_few_moments_are_not_enough(moments: Sequence[float]) -> None:
    """A service that fails now and then, or for a moment, is asked as before."""
    source = SourceOutage()
    fail(source, answer(503), *moments)

    assert not source.is_failing("a", 1000.0)


@failed
def test_a_cloud_that_fails_is_not_a_source_that_fails(seen: Observation) -> None:
    """If no other request succeeds between, all may fail."""
    source = SourceOutage()
    fail(source, seen, *map(float, range(0, 600, 10)), good=7)

    assert not source.is_failing("a", 600.0)
    assert source.needs_comparison(7)
    assert not source.needs_comparison(8)


def test_a_source_that_was_read_needs_no_comparison() -> None:
    """Only after a failure another source is asked first."""
    source = SourceOutage()
    assert not source.needs_comparison(0)
    fail(source, answer(503), 0.0)
    source.record_read(1.0)

    assert not source.needs_comparison(0)


@pytest.mark.parametrize("servers", [["a"], ["a", "b"]])
def test_the_failures_of_a_few_servers_are_theirs(servers: Sequence[str]) -> None:
    """Nova may not be able to show the log of one server: the others are asked for as before."""
    source = SourceOutage()
    fail(source, nova(500, "Unexpected API Error."), 0.0, 30.0, 60.0, 90.0, 120.0, servers=servers)

    assert source.is_failing("a", 120.0)
    assert not source.is_suspect("x")
    assert source.withhold("x", 121.0, is_last=False) is None


def test_four_failures_are_followed_by_more_requests() -> None:
    """Only after five in a row one request at a time is made."""
    source = SourceOutage()
    fail(source, answer(503), 0.0, servers=["a", "b", "c", "d"])
    assert source.withhold("a", 0.1, is_last=False) is None
    fail(source, answer(503), 0.2, servers=["e"])

    held = source.withhold("x", 0.3, is_last=False)
    assert isinstance(held, Unanswered)
    assert not is_source_outage(held)


def test_one_request_at_a_time_shows_whether_a_suspect_can_be_read() -> None:
    """The next is made 30 s later; all other readers get an answer at once."""
    source = SourceOutage()
    fail(source, answer(503), 0.0, servers="abcde")

    assert isinstance(source.withhold("a", 29.9, is_last=False), Unanswered)
    assert source.withhold("a", 30.0, is_last=False) is None
    assert isinstance(source.withhold("b", 30.0, is_last=False), Unanswered), "one is under way"
    assert isinstance(source.withhold("b", 59.9, is_last=False), Unanswered)
    assert source.withhold("b", 60.0, is_last=False) is None, "that one may have been cancelled"


@pytest.mark.parametrize(("seen", "cost"), FAILED.values(), ids=FAILED)
def test_probes_cost_a_tenth_of_the_time(seen: Observation, cost: float) -> None:
    """A failing source is asked every 30 s, or more rarely if a request pauses all others or takes a slot."""
    source = SourceOutage()
    fail(source, seen, 0.0, 30.0)
    took = cost if isinstance(seen, Unanswered) or seen == answer(504) else 0.0
    source.record_failure(seen, "a", 120.0, 120, asked_at=120.0 - took)
    wait = max(PROBE_INTERVAL, 10.0 * cost)

    assert is_source_outage(source.withhold("b", 120.0 + wait - 0.1, is_last=False))
    assert source.withhold("b", 120.0 + wait, is_last=False) is None
    assert is_source_outage(source.withhold("c", 120.0 + wait + 1.0, is_last=False)), "one probe at a time"


@pytest.mark.parametrize(("seen", "cost"), FAILED.values(), ids=FAILED)
def test_a_last_question_is_asked_unless_the_source_failed_just_now(seen: Observation, cost: float) -> None:
    """A send is not in doubt because of a failure that may be over; nor do all servers wait for a time-out."""
    source = SourceOutage()
    fail(source, seen, 0.0, 30.0)
    took = cost if isinstance(seen, Unanswered) or seen == answer(504) else 0.0
    source.record_failure(seen, "a", 120.0, 120, asked_at=120.0 - took)
    now = 120.0 + max(1.0, cost)

    assert source.withhold("b", now, is_last=True) is None
    assert is_source_outage(source.withhold("c", now + 0.5, is_last=True))


def related() -> tuple[SourceOutage, SourceOutage]:
    """Make two sources that are likely to fail together: single rows, and whole logs."""
    row, log = SourceOutage(), SourceOutage()
    row.related, log.related = log, row
    return row, log


@failed
def test_failures_of_a_related_source_count(seen: Observation) -> None:
    """Whole logs are asked by one at a time while rows fail, and one failure is enough."""
    row, log = related()
    fail(row, seen, 0.0, 30.0, 89.0)

    assert is_source_outage(row.withhold("x", 90.0, is_last=False))
    assert log.withhold("x", 90.0, is_last=False) is None
    held = log.withhold("y", 90.1, is_last=False)
    assert isinstance(held, Unanswered), "it is not known yet whether it can be read"
    assert str(seen) in held.words
    log.record_failure(seen, "x", 91.0, 91, asked_at=90.0)
    assert is_source_outage(log.withhold("y", 91.0, is_last=False))


def test_a_related_source_that_can_be_read_is_asked_as_usual() -> None:
    """Only rows fail, and whole logs are used instead."""
    row, log = related()
    fail(row, answer(503), 0.0, 30.0, 89.0)
    log.record_read(90.0)

    assert row.is_failing("x", 100.0)
    assert not log.is_suspect("x")
    assert all(log.withhold(server, 91.0, is_last=False) is None for server in "xyz")


def test_a_related_source_of_one_server() -> None:
    """Whose rows alone fail is asked for its whole log by one request at a time."""
    row, log = related()
    fail(row, answer(503), 0.0, 30.0, 60.0, 90.0, 120.0, servers=["a"])

    assert log.is_suspect("a")
    assert not log.is_suspect("b")
