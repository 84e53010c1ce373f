"""When a run is stalled, and what is said to be the cause: nothing that is not so of every request it speaks of."""

from collections.abc import Sequence

import pytest

from bulkrestart.core.model import Server, StopReason
from bulkrestart.core.observation import Answer, Unanswered, Unsent
from bulkrestart.core.stall import RequestKind, StallDetector, bound, span
from tests.core.samples import answer, ecs, nova, page

THROTTLED = nova(429, "This request was rate-limited.")
DOWN = page(503, "503 Service Unavailable")
GOOD = Server(id="s")
LATE = Unanswered("no answer within 60 s", may_come_late=True)
REFUSED = Unsent("ConnectError: refused")
HELD_BACK = Unsent("the look at the server before it was 800 s old", is_withheld=True)
LACKING = "no server was accepted or came back for 30 min"

#: What was heard, and when; and the cause after 1,800 s without progress.
Event = tuple[float, RequestKind, object]


def every(step: float, kind: RequestKind, seen: object, *, since: float = 1.0, until: float = 1800.0) -> list[Event]:
    """Let a request end so every few seconds."""
    return [(since + step * number, kind, seen) for number in range(int((until - since) // step) + 1)]


CAUSES = [
    pytest.param(
        every(60.0, RequestKind.SEND, THROTTLED),
        "the cloud has answered 429 to every request for 30 min (overLimit: This request was rate-limited.)",
        id="one kind, and nothing else is asked",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, THROTTLED) + every(7.0, RequestKind.SERVER, GOOD),
        "the cloud has answered 429 to every reboot request for 30 min (overLimit: This request was rate-limited.)",
        id="sends, while looks are answered",
    ),
    pytest.param(
        every(60.0, RequestKind.LOG, answer(500)) + every(7.0, RequestKind.LIST, GOOD),
        "the cloud has answered 500 to every look at an action log for 30 min",
        id="the log, without a word",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, THROTTLED) + every(60.0, RequestKind.LIST, DOWN, since=31.0),
        "the cloud has answered 429 or 503 to every request for 30 min (503 Service Unavailable)",
        id="two kinds of answers",
    ),
    pytest.param(
        [event for status in (500, 502, 503, 504) for event in every(60.0, RequestKind.SEND, answer(status))],
        "the cloud has answered 500 or 502 or 503 or others to every request for 30 min",
        id="more kinds than are named",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, ecs(202, "Common.0024", "Flow limit exceeded.")),
        "the cloud has answered 202 to every request for 30 min (Common.0024: Flow limit exceeded.)",
        id="a success that is none",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, LATE),
        "the cloud has not answered any request for 30 min (no answer within 60 s)",
        id="no answers",
    ),
    pytest.param(
        every(60.0, RequestKind.LIST, REFUSED),
        "no request has reached the cloud for 30 min (ConnectError: refused)",
        id="no connections",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, HELD_BACK) + every(7.0, RequestKind.SERVER, GOOD),
        "no reboot request was sent for 30 min (the look at the server before it was 800 s old)",
        id="held back",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, HELD_BACK) + every(60.0, RequestKind.SEND, THROTTLED, since=2.0),
        "every request has failed (held back, 429) for 30 min (overLimit: This request was rate-limited.)",
        id="held back, and answers",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, HELD_BACK, until=2.0) + every(60.0, RequestKind.SEND, GOOD, since=61.0),
        f"{LACKING}; the cloud answers, and the last failure was a request that was held back "
        "(the look at the server before it was 800 s old)",
        id="once held back",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, LATE) + every(60.0, RequestKind.SEND, THROTTLED, since=2.0),
        "every request has failed (no answer, 429) for 30 min (overLimit: This request was rate-limited.)",
        id="no answers, and answers",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, GOOD, until=600.0) + every(60.0, RequestKind.SEND, THROTTLED, since=660.0),
        "the cloud has answered 429 to every request for 19 min (overLimit: This request was rate-limited.)",
        id="not all the time: the true time is said",
    ),
    pytest.param(
        every(60.0, RequestKind.SEND, GOOD, until=1200.0) + every(60.0, RequestKind.SEND, THROTTLED, since=1260.0),
        f"{LACKING}; the cloud answers, and the last failure was 429 (overLimit: This request was rate-limited.)",
        id="for too short a time to be the cause",
    ),
    pytest.param(
        [*every(60.0, RequestKind.SEND, GOOD), (1000.0, RequestKind.SERVER, answer(500))],
        f"{LACKING}; the cloud answers, and the last failure was 500",
        id="one failure among many answers",
    ),
    pytest.param(every(60.0, RequestKind.SERVER, GOOD), f"{LACKING}; the cloud answers", id="no failure"),
    pytest.param([], f"{LACKING}; no request was answered", id="silence"),
    pytest.param(
        [(1.0, RequestKind.SEND, THROTTLED)], f"{LACKING}; no request was answered", id="silence after a first answer"
    ),
    pytest.param(
        every(60.0, RequestKind.LIST, GOOD),
        f"{LACKING}; the list has not ended after 30 pages",
        id="a list without an end",
    ),
]


def stalled(heard: Sequence[Event]) -> StallDetector:
    """Make one that has heard this, in the order of time, and whose progress was at 0."""
    stall = StallDetector(1800.0, 0.0)
    for now, asked, seen in sorted(heard, key=lambda event: event[0]):
        stall.record(asked, seen, now)
    return stall


@pytest.mark.parametrize(("heard", "cause"), CAUSES)
def test_causes(heard: list[Event], cause: str) -> None:
    """The cause is what is true of all requests, or of all of a kind, for most of the time; else no more is claimed."""
    stop = stalled(heard).stop(1800.0)

    assert stop.reason is StopReason.STALLED
    assert stop.detail == f"{cause}; what is left can be restarted when that has passed"


def test_an_earlier_answer_holds_all_requests() -> None:
    """Where nothing may be asked, what forbids it is the cause."""
    cause = stalled([]).cause(1800.0, pause_cause="429 overLimit")

    assert cause == f"{LACKING}; all requests are paused because of an earlier answer (429 overLimit)"


def test_a_sign_in_comes_before_all_else() -> None:
    """Without a sign-in no request can leave: what they were answered before is no cause."""
    stall = stalled(every(60.0, RequestKind.SEND, answer(401), until=900.0))
    for now in (1.0, 600.0, 1200.0, 1799.0):
        stall.record_sign_in(Answer(401, answer(401).fault), now)
    assert stall.cause(1800.0) == "no sign-in has succeeded for 30 min"

    stall.record_sign_in(None, 1799.5)
    assert "sign-in" not in stall.cause(1800.0)


def test_progress_moves_the_bound() -> None:
    """The bound begins anew with each progress; only that of a server says that others got anywhere."""
    stall = StallDetector(100.0, 0.0)
    assert stall.remaining(99.0) == 1.0
    assert stall.remaining(99.9999) == 0.0
    stall.advance(50.0)
    assert not stall.has_progressed_since(0.0)
    assert stall.remaining(100.0) == 50.0
    stall.note_server(120.0)
    assert stall.has_progressed_since(119.0)
    assert not stall.has_progressed_since(120.0)
    assert stall.remaining(300.0) == 0.0


def test_time_stands_still_in_a_pause() -> None:
    """A pause takes nothing from what is left, and gives nothing."""
    stall = StallDetector(100.0, 0.0)
    stall.pause(60.0)
    assert stall.is_paused
    assert stall.remaining(5000.0) == 40.0
    stall.resume(5000.0)
    assert not stall.is_paused
    assert stall.remaining(5010.0) == 30.0


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [(None, 1800.0), (10.0, 1800.0), (1 / 30.0, 1800.0), (0.01, 6000.0), (1 / 86_400.0, 5_184_000.0)],
)
def test_a_slow_rate_extends_the_bound(rate: float | None, seconds: float) -> None:
    """Sixty requests at least have their turn within it."""
    assert bound(1800.0, rate) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (119.4, "119 s"), (120.0, "2 min"), (1799.7, "30 min"), (1790.0, "29 min"), (1854.0, "30 min")],
)
def test_spans(seconds: float, words: str) -> None:
    """A span is told in seconds, and from two minutes on in whole minutes, of which a few seconds may be lacking."""
    assert span(seconds) == words
