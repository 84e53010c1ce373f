"""Pages of a list: their size, and what an answer other than a page says about the request."""

import pytest

from bulkrestart.core.faults import Body, Fault
from bulkrestart.core.model import Server
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.pages import (
    ListCursor,
    ListEnd,
    Page,
    PageFailure,
    PageSize,
    Position,
    asks_for_time,
    is_too_large,
    page_failure,
    refuses_limit,
    refuses_position,
)


def page(rows: int, limit: int = 1000, *, has_link: bool = False, is_cut: bool = False) -> Page:
    """Make a page of so many servers."""
    return Page([Server(id=f"s{number}") for number in range(rows)], rows, limit, has_link=has_link, is_cut=is_cut)


def said(status: int, message: str = "", code: str = "", *, retry_after: float | None = None) -> Answer:
    """Make an answer."""
    return Answer(status, Fault(code=code, message=message, retry_after=retry_after, body=Body.JSON))


@pytest.mark.parametrize(
    ("seen", "too_large", "limit", "position"),
    [
        (Unsent("refused"), False, False, False),
        (Unanswered("no answer within 60 s"), True, False, False),
        (Answer(200, Fault(body=Body.CUT_SHORT)), True, False, False),
        (said(200), False, False, False),
        (said(400, "marker [x] not found", "badRequest"), False, False, True),
        (said(400, "limit must be at most 100", "badRequest"), True, True, True),
        (said(400, "project_id 'a' doesn't match Context's project_id 'b'"), False, False, False),
        (said(403, "Policy says no"), False, False, False),
        (said(403, "The page size is over 100"), True, True, False),
        (said(404, "", "itemNotFound"), False, False, True),
        (Answer(404, Fault(body=Body.OTHER)), False, False, True),
        (said(408), True, False, False),
        (said(410), False, False, True),
        (said(413), True, False, False),
        (said(413, "This request was rate-limited.", "overLimit"), False, False, False),
        (said(413, retry_after=5.0), False, False, False),
        (said(422, "marker"), False, False, True),
        (said(429, "limit"), False, False, False),
        (said(500), True, False, False),
        (said(501), False, False, False),
        (said(503), True, False, False),
        (said(503, retry_after=1.0), False, False, False),
        (said(504), True, False, False),
    ],
    ids=str,
)
def test_what_an_answer_refuses(seen: Observation, too_large: bool, limit: bool, position: bool) -> None:
    """A page may be too large, or its limit or position refused; a rate limit is none of these."""
    assert is_too_large(seen) is too_large
    assert (isinstance(seen, Answer) and refuses_limit(seen)) is limit
    assert refuses_position(seen) is position


def void(status: int, body: Body = Body.JSON, code: str = "", *, is_redirected: bool = False) -> Answer:
    """Make an answer that shows no list."""
    return Answer(status, Fault(body=body, code=code), is_redirected=is_redirected)


@pytest.mark.parametrize(
    ("seen", "failure"),
    [
        (Unsent("refused"), None),
        (Unanswered("no answer within 60 s"), PageFailure.TROUBLE),
        (void(200, Body.CUT_SHORT), PageFailure.TROUBLE),
        (said(500), PageFailure.TROUBLE),
        (said(503), PageFailure.TROUBLE),
        (said(408), PageFailure.TROUBLE),
        (said(403, "Page size is at most 100"), PageFailure.TROUBLE),
        (said(400, "marker [x] not found"), PageFailure.POSITION),
        (said(404, "", "itemNotFound"), PageFailure.POSITION),
        (said(416), PageFailure.POSITION),
        (said(401), PageFailure.TOKEN),
        (void(401, Body.OTHER), PageFailure.TOKEN),
        (void(200), PageFailure.STRAY),
        (void(200, Body.EMPTY), PageFailure.STRAY),
        (void(200, Body.OTHER), PageFailure.STRAY),
        (void(204, Body.EMPTY), PageFailure.STRAY),
        (void(202, Body.EMPTY), PageFailure.STRAY),
        (void(302, Body.OTHER), PageFailure.STRAY),
        (void(404, Body.JSON, "itemNotFound", is_redirected=True), PageFailure.POSITION),
        (void(409, is_redirected=True), PageFailure.STRAY),
        (said(403, "Policy says no"), PageFailure.STRAY),
        (said(405), PageFailure.STRAY),
        # These may hold servers, or say what is wrong.
        (void(203), None),
        (void(206, Body.OTHER), None),
        (void(200, code="Ecs.0000"), None),
        (void(202, code="Common.0024"), None),
        (said(406), None),
        (said(407), None),
        (said(409, "busy"), None),
        (said(501), None),
        (said(400, "project_id 'a' doesn't match Context's project_id 'b'"), None),
    ],
    ids=str,
)
def test_why_a_page_did_not_come(seen: Observation, failure: PageFailure | None) -> None:
    """Only some answers may be about the position of a page."""
    assert page_failure(seen) is failure
    assert not asks_for_time(seen)


@pytest.mark.parametrize(
    "seen",
    [
        said(429),
        said(413, "This request was rate-limited.", "overLimit"),
        said(413, retry_after=1.0),
        said(503, retry_after=0.0),
        said(500, retry_after=60.0),
        said(403, retry_after=1.0),
        said(401, retry_after=1.0),
        said(403, "", "APIGW.0308"),
        said(503, "", "APIG.0308"),
        void(200, code="Common.1503"),
    ],
    ids=str,
)
def test_what_asks_for_time(seen: Observation) -> None:
    """A page that the cloud gives later is neither too large, nor is its position the cause."""
    assert asks_for_time(seen)
    assert page_failure(seen) is None


@pytest.mark.parametrize("failure", PageFailure, ids=lambda failure: failure.name)
def test_how_often_a_failure_is_repeated(failure: PageFailure) -> None:
    """A failure counts at one position, and never at the beginning; a page between begins the count anew."""
    cursor = ListCursor()
    assert not any(cursor.record_failure(failure) for _ in range(10))
    for start in range(3):
        ids = [f"{start}-{number}" for number in range(4)]
        cursor.take(Page([Server(id=one) for one in ids], 4, 4))
        assert [cursor.record_failure(failure) for _ in range(failure.value - 1)] == [False] * (failure.value - 1)
    for other in PageFailure:
        if other.value > 1:
            assert other is failure or not cursor.record_failure(other)
    assert cursor.record_failure(failure)
    cursor.give_up_position(failure)
    # At the position before, only what may pass by itself is repeated as often.
    assert cursor.record_failure(failure) is (failure is not PageFailure.TROUBLE)


def test_pages_shrink_and_grow() -> None:
    """After a failure, a quarter is asked for; larger pages than those that came are tried ever more rarely."""
    size = PageSize(1000)
    limits = []
    for _ in range(400):
        limits.append(size.limit)
        if size.limit > 100:
            size.note_failure(size.limit)
        else:
            size.note_page(page(size.limit, size.limit))
    assert limits[:8] == [1000, 250, 62, 62, 62, 62, 124, 62]
    assert set(limits) == {1000, 250, 124, 62}
    assert 3 <= limits.count(124) <= 5


def test_pages_grow_to_what_they_were() -> None:
    """When the trouble has passed, pages become as large as before, and stay so."""
    size = PageSize(1000)
    for _ in range(10):
        size.note_failure(size.limit)
    assert size.limit == 1
    for _ in range(100):
        size.note_page(page(1, size.limit))
    assert size.limit == 1000


def test_late_pages_change_no_size() -> None:
    """A page that was asked for before the size changed says nothing of the new one."""
    size = PageSize(1000)
    size.note_failure(1000)
    size.note_failure(1000)
    for _ in range(10):
        size.note_page(page(5, 1000))
    assert size.limit == 250


def test_a_page_that_is_cut_is_too_large() -> None:
    """The next page after one that is longer than is read is smaller."""
    size = PageSize(1000)
    size.note_page(page(800, is_cut=True))
    assert size.limit == 250


def test_what_is_the_last_page() -> None:
    """Only a page that has fewer rows than an earlier one, or than the last one of a list, is known to be the last."""
    size = PageSize(1000)
    assert not size.is_last(page(0))
    size.note_page(page(40))
    assert size.is_last(page(39))
    assert not size.is_last(page(40))
    assert not size.is_last(page(39, has_link=True))
    assert not size.is_last(page(39, is_cut=True))
    assert not size.is_last(page(39, 39))
    size.note_last(40)
    assert size.is_last(page(40))
    assert not size.is_last(page(41))


def test_an_offset_depends_on_the_limit() -> None:
    """A marker names a server, and an offset may count pages."""
    assert not Position.after("a").depends_on_limit
    assert Position("offset", "2").depends_on_limit


def test_a_list_is_not_begun_anew_for_ever() -> None:
    """Whatever makes a list start over, it is given up in the end."""
    cursor = ListCursor()
    starts = 0
    while cursor.end is None:
        cursor.start_over()
        starts += 1
    assert (starts, cursor.end, cursor.end.is_whole) == (11, ListEnd.REPEATED, False)
