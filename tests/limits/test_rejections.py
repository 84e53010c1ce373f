"""One odd answer is about one request: a run stops only after rejections for several servers in a row."""

from dataclasses import replace

import pytest

from bulkrestart.core.decision import Hold
from bulkrestart.core.model import Server, Stop, StopReason
from bulkrestart.core.observation import Observation, Unanswered, Unsent
from bulkrestart.core.stall import RequestKind
from bulkrestart.limits.rejections import REJECTED_PAUSE, REJECTED_SENDS, Rejections
from tests.core.samples import answer, ecs, gateway, keystone, nova, page

WRONG_PROJECT = "Malformed request URL: URL's project_id 'a' doesn't match Context's project_id 'b'"

#: Answers that suggest a wrong endpoint or token, and the stop that many of them cause.
REJECTED = {
    "404 of a gateway": (page(404, "default backend - 404"), StopReason.WRONG_ENDPOINT),
    "404 without a body": (answer(404), StopReason.WRONG_ENDPOINT),
    "404 of an API gateway": (gateway(404, "APIGW.0101", "The API does not exist"), StopReason.WRONG_ENDPOINT),
    "302": (answer(302), StopReason.WRONG_ENDPOINT),
    "followed redirect": (answer(200, is_redirected=True), StopReason.WRONG_ENDPOINT),
    "407": (page(407, "Proxy"), StopReason.WRONG_ENDPOINT),
    "a page to sign in": (page(200, "Please sign in"), StopReason.WRONG_ENDPOINT),
    "another project": (nova(400, WRONG_PROJECT), StopReason.WRONG_ENDPOINT),
    "another project, in ECS's words": (ecs(400, "Ecs.0023", "project_id mismatches"), StopReason.WRONG_ENDPOINT),
    "401 with a token that was good": (keystone(has_stale_token=True), StopReason.UNAUTHORIZED),
}
#: Answers that show that the endpoint and the token work for a kind of request.
GOOD = {
    "accepted": answer(202),
    "refused by Nova": nova(409, "Cannot 'reboot' instance x while it is in task_state rebooting"),
    "not found by Nova": nova(404, "Instance x could not be found."),
    "forbidden": nova(403, "Policy"),
}
#: Answers that show neither.
NEUTRAL = {
    "503": answer(503),
    "500 of Nova": nova(500, "Unexpected API Error."),
    "429": answer(429),
    "unanswered": Unanswered("ReadTimeout"),
    "unsent": Unsent("ConnectError"),
    # The next sends with that token decide (`decide`).
    "401 with a token that was never good": keystone(),
}


def stops(
    rejections: Rejections, seen: Observation, *servers: str, at: float, kind: RequestKind = RequestKind.SEND
) -> StopReason | None:
    """Record one answer for each of the servers, and return why the run stops."""
    told = [rejections.record(kind, seen, server, at, sent_at=at) for server in servers]
    return next((stop.reason for stop in told if isinstance(stop, Stop)), None)


@pytest.mark.parametrize(("seen", "reason"), REJECTED.values(), ids=REJECTED)
@pytest.mark.parametrize("kind", [RequestKind.SEND, RequestKind.SERVER])
def test_what_repeats_from_three_servers_stops_the_run(
    kind: RequestKind, seen: Observation, reason: StopReason
) -> None:
    """Neither one such answer, nor many of one or two servers, nor a burst of them, stops the run."""
    rejections = Rejections()

    assert stops(rejections, seen, *["a"] * 20, "b", kind=kind, at=0.0) is None
    assert stops(rejections, seen, "a", "b", kind=kind, at=60.0) is None
    pause = None if reason is StopReason.UNAUTHORIZED else Hold(REJECTED_PAUSE)
    assert rejections.record(kind, seen, "c", 60.0, sent_at=59.0) == pause
    assert stops(rejections, seen, *"abcdefgh", kind=kind, at=60.0) is None
    assert rejections.record(kind, seen, "d", 90.0, sent_at=61.0) is None, "it left before the pause"
    assert stops(rejections, seen, "d", kind=kind, at=60.0 + REJECTED_PAUSE) is reason
    assert stops(Rejections(), seen, "a", "b", "c", "d", kind=kind, at=0.0) is None


def test_a_burst_that_lasts_stops_the_run() -> None:
    """A gateway that reloads answers oddly for a moment; if it goes on, the endpoint is wrong."""
    rejections = Rejections()

    assert stops(rejections, page(404, "no"), "a", "b", "c", at=10.0) is None
    assert stops(rejections, page(404, "no"), "a", at=10.0 + REJECTED_PAUSE - 0.01) is None
    assert stops(rejections, page(404, "no"), "a", at=10.0 + REJECTED_PAUSE) is StopReason.WRONG_ENDPOINT


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_a_good_answer_ends_the_row(good: Observation) -> None:
    """A good answer proves more than the rejections before it."""
    rejections = Rejections()
    stops(rejections, page(404, "no"), "a", "b", "c", at=0.0)

    assert stops(rejections, good, "d", at=1.0) is None
    assert stops(rejections, page(404, "no"), "a", "b", at=100.0) is None


@pytest.mark.parametrize("neutral", NEUTRAL.values(), ids=NEUTRAL)
def test_what_says_nothing_does_not_end_the_row(neutral: Observation) -> None:
    """An outage between rejections does not prove that the endpoint is right."""
    rejections = Rejections()
    stops(rejections, page(404, "no"), "a", "b", at=0.0)
    stops(rejections, neutral, "c", at=1.0)
    stops(rejections, page(404, "no"), "c", at=2.0)

    assert stops(rejections, page(404, "no"), "c", at=100.0) is StopReason.WRONG_ENDPOINT


def test_looks_prove_nothing_about_sends() -> None:
    """A gateway may let looks through and reject sends."""
    rejections = Rejections()
    stops(rejections, page(404, "no"), "a", "b", at=0.0)
    rejections.record(RequestKind.SERVER, Server(id="a"), "a", 1.0, sent_at=1.0)
    stops(rejections, page(404, "no"), "c", at=2.0)

    assert stops(rejections, page(404, "no"), "c", at=100.0) is StopReason.WRONG_ENDPOINT


#: Requests beside sends, and what comes back if the endpoint is right.
LOOKED = {
    "a server": (RequestKind.SERVER, Server(id="a")),
    "an action log": (RequestKind.LOG, ()),
    "a list": (RequestKind.LIST, ()),
    "not found by Nova": (RequestKind.SERVER, nova(404, "Instance x could not be found.")),
}
looked = pytest.mark.parametrize(("kind", "look"), LOOKED.values(), ids=LOOKED)
rejected = pytest.mark.parametrize(("seen", "reason"), REJECTED.values(), ids=REJECTED)


def ids(count: int) -> list[str]:
    """Name some servers."""
    return [f"server-{number}" for number in range(count)]


@looked
@rejected
def test_sends_alone_that_are_rejected_need_more_servers(
    seen: Observation, reason: StopReason, kind: RequestKind, look: object
) -> None:
    """If a send got through before, and looks succeed between rejected sends, three servers are not enough."""
    rejections = Rejections()
    rejections.record(RequestKind.SEND, answer(202), "first", 0.0, sent_at=0.0)
    at = 1.0
    for server in ids(REJECTED_SENDS - 1) * 3:
        at += 10.0
        assert stops(rejections, seen, server, at=at) is None
        assert rejections.record(kind, look, server, at, sent_at=at) is None
    pause = None if reason is StopReason.UNAUTHORIZED else Hold(REJECTED_PAUSE)
    assert rejections.record(RequestKind.SEND, seen, "last", at, sent_at=at) == pause
    rejections.record(kind, look, "last", at, sent_at=at)

    assert stops(rejections, seen, "last", at=at + REJECTED_PAUSE - 0.01) is None
    assert stops(rejections, seen, "last", at=at + REJECTED_PAUSE) is reason


@looked
def test_a_look_in_the_pause_after_three_servers_asks_for_more(kind: RequestKind, look: object) -> None:
    """Three servers were enough until a look succeeded: the endpoint is right, so more servers are needed."""
    rejections = Rejections()
    rejections.record(RequestKind.SEND, answer(202), "first", 0.0, sent_at=0.0)
    stops(rejections, answer(302), *ids(3), at=1.0)
    rejections.record(kind, look, "a", 2.0, sent_at=2.0)

    assert stops(rejections, answer(302), *ids(REJECTED_SENDS), at=100.0) is None
    assert stops(rejections, answer(302), "a", at=100.0 + REJECTED_PAUSE) is StopReason.WRONG_ENDPOINT


@rejected
def test_three_servers_stay_enough_if_nothing_good_comes_between(seen: Observation, reason: StopReason) -> None:
    """An endpoint that was right may be replaced by another: looks before the first rejection prove nothing."""
    rejections = Rejections()
    rejections.record(RequestKind.SERVER, Server(id="a"), "a", 0.0, sent_at=0.0)
    rejections.record(RequestKind.SEND, answer(202), "a", 1.0, sent_at=1.0)

    assert stops(rejections, seen, "b", "c", "d", at=2.0) is None
    assert stops(rejections, seen, "b", at=2.0 + REJECTED_PAUSE) is reason


@looked
@pytest.mark.parametrize("acceptance", ["answer", "look"])
def test_a_send_that_gets_through_begins_the_count_anew(kind: RequestKind, look: object, acceptance: str) -> None:
    """Afterwards three servers are enough again, until a look succeeds."""
    rejections = Rejections()
    rejections.note_accepted()
    stops(rejections, answer(302), "a", at=0.0)
    rejections.record(kind, look, "a", 1.0, sent_at=1.0)
    if acceptance == "answer":
        rejections.record(RequestKind.SEND, answer(202), "b", 2.0, sent_at=2.0)
    else:
        rejections.note_accepted()

    assert stops(rejections, answer(302), "c", "d", "e", at=3.0) is None
    assert stops(rejections, answer(302), "c", at=3.0 + REJECTED_PAUSE) is StopReason.WRONG_ENDPOINT


@pytest.mark.parametrize("neutral", NEUTRAL.values(), ids=NEUTRAL)
@pytest.mark.parametrize("kind", [RequestKind.SERVER, RequestKind.LOG, RequestKind.LIST])
def test_looks_that_say_nothing_do_not_ask_for_more(kind: RequestKind, neutral: Observation) -> None:
    """Only a good answer shows that the endpoint is right."""
    rejections = Rejections()
    rejections.note_accepted()
    stops(rejections, answer(302), "a", "b", at=0.0)
    rejections.record(kind, neutral, "a", 1.0, sent_at=1.0)
    stops(rejections, answer(302), "c", at=2.0)

    assert stops(rejections, answer(302), "a", at=2.0 + REJECTED_PAUSE) is StopReason.WRONG_ENDPOINT


def test_an_acceptance_that_a_look_shows_ends_the_row() -> None:
    """A send whose answer was odd may have been accepted."""
    rejections = Rejections()
    stops(rejections, answer(302), "a", "b", at=0.0)
    rejections.note_accepted()

    assert stops(rejections, answer(302), "c", at=100.0) is None


@pytest.mark.parametrize("kind", [RequestKind.LOG, RequestKind.LIST, RequestKind.GROUPS])
@pytest.mark.parametrize(("seen", "_"), REJECTED.values(), ids=REJECTED)
def test_sources_that_are_kept_from_us_stop_nothing(kind: RequestKind, seen: Observation, _: object) -> None:
    """A user who may not read logs or lists is refused there alone."""
    rejections = Rejections()

    assert stops(rejections, seen, "a", "b", "c", kind=kind, at=0.0) is None
    assert stops(rejections, seen, "d", kind=kind, at=100.0) is None


def test_good_answers_of_other_kinds_are_counted() -> None:
    """Odd answers of a source count only if requests of other kinds succeed."""
    rejections = Rejections()
    rejections.record(RequestKind.SEND, answer(202), "a", 0.0, sent_at=0.0)
    rejections.record(RequestKind.LOG, (), "a", 0.0, sent_at=0.0)
    rejections.record(RequestKind.LOG, keystone(), "a", 0.0, sent_at=0.0)
    rejections.record(RequestKind.SERVER, answer(503), "a", 0.0, sent_at=0.0)

    assert rejections.count_good_except(RequestKind.LOG) == 1
    assert rejections.count_good_except(RequestKind.SEND) == 1
    assert rejections.count_good_except(RequestKind.LIST) == 2


def test_a_redirect_is_told_with_its_target() -> None:
    """The stop names where the compute API may be, and how to say so."""
    rejections, seen = Rejections(), replace(answer(301), location="https://nova.test/v2.1/p")
    told = [
        rejections.record(RequestKind.SEND, seen, server, at, sent_at=at)
        for server, at in [("a", 0.0), ("b", 0.0), ("c", 0.0), ("d", REJECTED_PAUSE)]
    ]
    assert told[-1] == Stop(
        StopReason.WRONG_ENDPOINT,
        "this is not the compute endpoint of the project (301, which points to https://nova.test/v2.1/p); if the "
        "compute API is there, set --endpoint, or compute_endpoint_override in clouds.yaml; or check the URL and the "
        "project in it",
    )
