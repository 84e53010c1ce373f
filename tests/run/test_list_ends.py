"""However a cloud pages its lists, each server comes once, or the list is an error."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, cast

import anyio
import httpx
import pytest
import trio

from bulkrestart import BulkRestartError, EndpointError, Outcome, RestartClient, Server
from bulkrestart.cloud import rows
from bulkrestart.cloud.compute import Compute
from bulkrestart.core.observation import Answer as Answered
from bulkrestart.core.observation import Observation, Unanswered
from bulkrestart.core.pages import ListEnd, Page, PageSize, Position
from bulkrestart.run.pages import PageWalk
from bulkrestart.run.preflight import TRIES
from bulkrestart.run.sweep import _FAILED_PAGES
from bulkrestart.simulator import Call, Fault
from tests.virtual import client_of, cloud_of, virtually

Answer = Callable[[], httpx.Response]

HOST: Final = "http://cloud.test"
PATH: Final = "/v2.1/p/servers/detail"

#: The links to the next page of clouds that page by marker, by their form.
LINKS: Final = {
    "absolute": f"{HOST}{PATH}?limit={{limit}}&marker={{last}}",
    "relative": "/v2.1/p/servers/detail?marker={last}",
    "query": "?marker={last}",
    "https": f"https://cloud.test{PATH}?marker={{last}}",
    "another host": "http://internal.example:8774/v2.1/p/servers/detail?marker={last}",
    "another port": f"{HOST}:8774{PATH}?marker={{last}}",
    "without a query": f"{HOST}{PATH}",
}


def nova(status: int, name: str, message: str = "no") -> Answer:
    """Answer as Nova does."""
    return lambda: httpx.Response(status, json={name: {"code": status, "message": message}})


def gateway(status: int) -> Answer:
    """Answer as a gateway that gets no answer from Nova."""
    return lambda: httpx.Response(status, html=f"<html><head><title>{status}</title></head></html>")


def timed_out() -> httpx.Response:
    """Give no answer in time."""
    raise httpx.ReadTimeout("no answer within 60 s")


def broken_off() -> httpx.Response:
    """Break the connection before an answer."""
    raise httpx.RemoteProtocolError("the connection was closed without an answer")


def row(server_id: str) -> dict[str, object]:
    """Show a server that is active and idle."""
    states = {"OS-EXT-STS:vm_state": "active", "OS-EXT-STS:task_state": None}
    return {"id": server_id, "name": f"web-{server_id}", "status": "ACTIVE", "locked": False, **states}


@dataclass
class Lists:
    """A cloud whose lists are odd.

    Attributes:
        ids: The servers, in the order of the list.
        cap: Servers of one page, at most.
        link: The link to the next page, if there is one; "" for none.
        refuses: Servers that are no marker, and the answer to those.
        page: What answers instead of `listed`, which it may call; None: nothing does.
        queries: What lists were asked for.
        shown: How often each server was asked for singly.
    """

    ids: list[str] = field(default_factory=lambda: names(25))
    cap: int = 1000
    link: str = ""
    refuses: dict[str, Answer] = field(default_factory=dict)
    page: Callable[[httpx.QueryParams], httpx.Response] | None = None
    queries: list[dict[str, str]] = field(default_factory=list)
    shown: Counter[str] = field(default_factory=Counter)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        assert str(request.url).startswith(f"{HOST}/v2.1/p/"), request.url
        if request.url.path != PATH:
            server_id = request.url.path.rpartition("/")[2]
            self.shown[server_id] += 1
            if server_id not in self.ids:
                return nova(404, "itemNotFound")()
            return httpx.Response(200, json={"server": row(server_id)})
        query = request.url.params
        self.queries.append(dict(query))
        return self.listed(query) if self.page is None else self.page(query)

    def listed(self, query: httpx.QueryParams) -> httpx.Response:
        """Answer with a page, which begins after a marker."""
        marker = query.get("marker")
        if marker in self.refuses:
            return self.refuses[marker]()
        start = 0
        if marker is not None:
            if marker not in self.ids:
                return nova(400, "badRequest", f"marker [{marker}] not found")()
            start = self.ids.index(marker) + 1
        limit = min(int(query["limit"]), self.cap)
        return self.rows(self.ids[start : start + limit], limit, has_more=start + limit < len(self.ids))

    def rows(self, ids: Sequence[str], limit: int, *, has_more: bool) -> httpx.Response:
        """Answer with these servers."""
        document: dict[str, object] = {"servers": [row(one) for one in ids]}
        if has_more and self.link:
            href = self.link.format(limit=limit, last=ids[-1])
            document["servers_links"] = [{"rel": "next", "href": href}]
        return httpx.Response(200, json=document)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[RestartClient]:
        """Give a client of it."""
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.answer)) as http:
            yield RestartClient(f"{HOST}/v2.1/p", http=http)

    def read(self, **selection: Any) -> list[str]:
        """List its servers."""

        async def main() -> list[str]:
            async with self.client() as client:
                return [server.id async for server in client.servers(**selection)]

        return virtually(main)

    def plan(self) -> tuple[int, set[str]]:
        """Plan a run over all servers and one that is gone.

        Returns:
            How many servers the run would restart, and which of them were read singly.
        """

        async def main() -> int:
            async with self.client() as client:
                plan = await client.plan([*self.ids, "gone"])
                return plan.expected[None]

        return virtually(main), set(self.shown) - {"gone"}


def names(count: int) -> list[str]:
    """Name servers, in the order of their names."""
    return [f"s{number:05}" for number in range(count)]


def assert_whole(make: Callable[[], Lists], *, most: int) -> None:
    """Assert that a selection has each server once, that a plan needs no single looks, and that lists end soon."""
    cloud = make()
    assert cloud.read() == cloud.ids
    assert len(cloud.queries) <= most, cloud.queries
    cloud = make()
    # Preflight looks at the first server before the list is read.
    assert cloud.plan() == (len(cloud.ids), {cloud.ids[0]})
    assert len(cloud.queries) <= most, cloud.queries


def assert_refused(make: Callable[[], Lists], words: str, *, most: int) -> None:
    """Assert that a selection is an error with these words, and that a plan looks at each server singly."""
    cloud = make()
    with pytest.raises(EndpointError, match=words) as caught:
        cloud.read()
    assert "nothing was sent" in str(caught.value)
    assert len(cloud.queries) <= most, cloud.queries
    cloud = make()
    assert cloud.plan()[0] == len(cloud.ids)
    assert len(cloud.queries) <= most, cloud.queries


@pytest.mark.unmeasured
@pytest.mark.parametrize("cap", [1, 3, 12, 24, 25, 1000])
@pytest.mark.parametrize("link", ["", *LINKS.values()], ids=["no links", *LINKS])
def test_short_pages(link: str, cap: int) -> None:
    """However short a page is and whatever it links to, the next one is requested, from this endpoint only."""
    assert_whole(lambda: Lists(cap=cap, link=link), most=-(-25 // cap) + 1)


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2000])
@pytest.mark.parametrize("link", ["", LINKS["absolute"]], ids=["no links", "links"])
def test_full_pages(link: str, count: int) -> None:
    """After full pages, the list ends with an empty or a short one."""
    cloud = Lists(names(count), link=link)
    assert cloud.read() == cloud.ids
    assert len(cloud.queries) <= count // 1000 + 2


def by_offset(cloud: Lists, *, counts_pages: bool) -> Callable[[httpx.QueryParams], httpx.Response]:
    """Answer by the offsets in links, and refuse every marker."""

    def page(query: httpx.QueryParams) -> httpx.Response:
        if "marker" in query:
            return nova(400, "badRequest", "marker is not supported")()
        limit = min(int(query["limit"]), cloud.cap)
        offset = int(query.get("offset", "1" if counts_pages else "0"))
        start = (offset - 1) * limit if counts_pages else offset
        ids = cloud.ids[start : start + limit]
        cloud.link = f"{PATH}?limit={limit}&offset={offset + 1 if counts_pages else start + limit}"
        return cloud.rows(ids, limit, has_more=start + limit < len(cloud.ids))

    return page


@pytest.mark.parametrize("cap", [4, 12, 1000])
@pytest.mark.parametrize("counts_pages", [True, False])
def test_links_with_an_offset(counts_pages: bool, cap: int) -> None:
    """An offset in a link is sent unchanged, whether it counts servers or pages."""

    def make() -> Lists:
        cloud = Lists(cap=cap)
        cloud.page = by_offset(cloud, counts_pages=counts_pages)
        return cloud

    # After the last page, at most six markers are refused, twice.
    assert_whole(make, most=-(-25 // cap) + 14)


@pytest.mark.parametrize("counts_pages", [True, False])
def test_an_offset_of_large_pages_is_not_used_for_small_ones(counts_pages: bool) -> None:
    """If a page in the middle is too large, the list starts over with smaller ones, and no server is lost."""

    def make() -> Lists:
        cloud = Lists(names(2500))
        paged = by_offset(cloud, counts_pages=counts_pages)

        def page(query: httpx.QueryParams) -> httpx.Response:
            return gateway(504)() if "offset" in query and int(query["limit"]) > 300 else paged(query)

        cloud.page = page
        return cloud

    cloud = make()
    assert cloud.read() == cloud.ids


def with_link(cloud: Lists, link: str, *ids: str) -> httpx.Response:
    """Answer with these servers and a link."""
    cloud.link = link
    document = {"servers": [row(one) for one in ids], "servers_links": [{"rel": "next", "href": link}]}
    return httpx.Response(200, json=document)


#: The page for each marker, None for the first page; and the servers that the list has.
EMPTY_PAGES: Final[dict[str, tuple[dict[str | None, tuple[tuple[str, ...], str]], str]]] = {
    "the end": ({None: (("a", "b"), ""), "b": ((), "")}, "ab"),
    "nothing at all": ({None: ((), "")}, ""),
    "the end, with the same link": ({None: (("a", "b"), "b"), "b": ((), "b")}, "ab"),
    "the end, with a link back": ({None: (("a",), "a"), "a": (("b",), "b"), "b": ((), "a")}, "ab"),
    "the end, with a link that is refused": ({None: (("a", "b"), "b"), "b": ((), "x")}, "ab"),
    "in the middle": ({None: (("a", "b"), "b"), "b": ((), "x"), "x": (("c",), "")}, "abc"),
    "at the beginning": ({None: ((), "x"), "x": (("a", "b"), "")}, "ab"),
    "twice in the middle": ({None: (("a",), "a"), "a": ((), "x"), "x": ((), "y"), "y": (("b",), "")}, "ab"),
}


@pytest.mark.parametrize(("pages", "ids"), EMPTY_PAGES.values(), ids=EMPTY_PAGES)
def test_empty_pages(pages: dict[str | None, tuple[tuple[str, ...], str]], ids: str) -> None:
    """An empty page ends a list, unless its link leads to a page that has not been asked for."""
    cloud = Lists([*ids])

    def page(query: httpx.QueryParams) -> httpx.Response:
        if (marker := query.get("marker")) not in pages:
            return cloud.listed(query) if marker in cloud.ids else nova(404, "itemNotFound")()
        shown, link = pages[marker]
        return with_link(cloud, f"?marker={link}", *shown) if link else cloud.rows(shown, 1000, has_more=False)

    cloud.page = page
    assert cloud.read() == cloud.ids


def ignoring(cloud: Lists, *names_: str) -> Callable[[httpx.QueryParams], httpx.Response]:
    """Ignore some parameters of the query."""

    def page(query: httpx.QueryParams) -> httpx.Response:
        for name in names_:
            query = query.remove(name) if name != "limit" else query.set(name, "1000000")
        return cloud.listed(query)

    return page


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("count", "cap", "link", "ignored", "is_whole"),
    [
        pytest.param(1, 1000, "", ["marker"], True, id="one server"),
        pytest.param(2, 1000, "", ["marker"], True, id="two servers"),
        pytest.param(25, 1000, "", ["marker"], True, id="all on a short page"),
        pytest.param(1500, 10_000, "", ["marker", "limit"], True, id="all on a page that is longer than asked"),
        pytest.param(1500, 1000, "", ["marker"], False, id="a full page"),
        pytest.param(25, 10, LINKS["query"], ["marker"], False, id="a page with a link"),
        pytest.param(2, 1, LINKS["query"], ["marker"], False, id="a page of one server with a link"),
        pytest.param(2_500, 10**6, "", ["marker", "limit"], False, id="a page that is longer than is read"),
    ],
)
def test_a_marker_that_is_ignored(
    monkeypatch: pytest.MonkeyPatch, count: int, cap: int, link: str, ignored: list[str], is_whole: bool
) -> None:
    """Always the same first page: the list ends, and is whole only if the cloud does not say that more follows."""
    monkeypatch.setattr(rows, "_MOST_ROWS", 2_000)

    def make() -> Lists:
        cloud = Lists(names(count), cap=cap, link=link)
        cloud.page = ignoring(cloud, *ignored)
        return cloud

    if is_whole:
        cloud = make()
        assert cloud.read() == cloud.ids
        assert len(cloud.queries) <= 6
    else:
        assert_refused(make, "has no end: its pages repeat", most=12)


@pytest.mark.parametrize("count", [2_500, 4_500])
def test_a_limit_that_is_ignored(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Of a page that is longer than is read the first servers count, and the next page begins after them."""
    monkeypatch.setattr(rows, "_MOST_ROWS", 2_000)
    cloud = Lists(names(count), cap=10**6)
    cloud.page = ignoring(cloud, "limit")
    assert cloud.read() == cloud.ids
    assert len(cloud.queries) <= 4


def test_unknown_markers_that_are_ignored() -> None:
    """If the cloud gives the first page for a deleted server, the next page begins after an earlier one."""
    cloud = Lists(cap=10, link=LINKS["query"])
    deleted = cloud.ids[9]

    def page(query: httpx.QueryParams) -> httpx.Response:
        return cloud.listed(query.remove("marker") if query.get("marker") == deleted else query)

    cloud.page = page
    assert cloud.read() == cloud.ids


#: How a request for a page fails without a refusal.
FAILED: Final[dict[str, Answer]] = {
    "500": nova(500, "computeFault", "Unexpected API Error."),
    "502": gateway(502),
    "503": gateway(503),
    "504": gateway(504),
    "time-out": timed_out,
    "connection closed": broken_off,
}
#: How a cloud refuses a marker.
REFUSALS: Final[dict[str, Answer]] = {
    "400": nova(400, "badRequest", "marker [x] not found"),
    "404": nova(404, "itemNotFound", "marker [x] not found"),
    "404 of a gateway": gateway(404),
    "410": gateway(410),
    "422": nova(422, "unprocessableEntity", "marker"),
    **FAILED,
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("cap", [5, 1000])
@pytest.mark.parametrize("link", ["", LINKS["absolute"]], ids=["no links", "links"])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_marker_that_is_refused(refusal: Answer, link: str, cap: int) -> None:
    """If some servers are refused as markers, even the last one, the next pages are found by earlier servers."""
    for refused in ([24], [4], [4, 3], [23, 24], [4, 9, 14, 19, 24]):
        ids = names(25)
        refuses = {ids[number]: refusal for number in refused}
        cloud = Lists(ids, cap=cap, link=link, refuses=refuses)
        assert cloud.read() == ids
        assert Lists(ids, cap=cap, link=link, refuses=refuses).plan() == (25, {ids[0]})


@pytest.mark.parametrize("refusal", [REFUSALS["400"], REFUSALS["404 of a gateway"]], ids=["400", "404"])
def test_every_marker_is_refused(refusal: Answer) -> None:
    """A short page without a link counts as the whole list; a page that says that more follows does not."""
    ids = names(25)
    cloud = Lists(ids, refuses=dict.fromkeys(ids, refusal))
    assert cloud.read() == ids
    assert len(cloud.queries) < 20
    assert_refused(
        lambda: Lists(ids, cap=10, link=LINKS["query"], refuses=dict.fromkeys(ids, refusal)),
        r"cannot be read to its end: .*; give ids; nothing was sent",
        most=250,
    )


def said(status: int, text: str = "", **headers: str) -> Answer:
    """Answer with this text."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: httpx.Response(status, text=text, headers=named)


#: What answers instead of an empty page, if a gateway does not know the marker or a policy forbids it.
STRAYS: Final[dict[str, Answer]] = {
    "{}": said(200, "{}"),
    "[]": said(200, "[]"),
    "null": said(200, "null"),
    "an empty 200": said(200),
    "204": said(204),
    "another name": said(200, '{"server": []}'),
    "an object for the list": said(200, '{"servers": {}}'),
    "a login page": said(200, "<html><title>Sign in</title></html>"),
    "301": said(301, location="/login"),
    "302": said(302, location="https://login.example/"),
    "307 without a target": said(307),
    "403": nova(403, "forbidden", "Policy doesn't allow marker"),
    "403 of a gateway": gateway(403),
    "405": nova(405, "badMethod"),
    "405 of a gateway": gateway(405),
    "401": nova(401, "unauthorized"),
    "401 of a gateway": gateway(401),
}
UNCONFIRMED: Final = "the cloud refuses the page after its last server: the list is taken as complete"
strays = pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)


@strays
@pytest.mark.parametrize(("cap", "most"), [(5, 1000), (24, 1000), (25, 1000), (1000, 25), (1000, 5), (1000, 1000)])
@pytest.mark.parametrize("link", ["", LINKS["absolute"]], ids=["no links", "links"])
def test_a_stray_answer_after_the_last_page(
    stray: Answer, cap: int, most: int, link: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after a full page, the page after an earlier server shows that nothing follows."""
    monkeypatch.setattr("bulkrestart.client.PageSize", lambda: PageSize(most))
    ids = names(25)
    assert_whole(lambda: Lists(ids, cap=cap, link=link, refuses={ids[-1]: stray}), most=10)
    assert not caplog.records


@strays
def test_a_stray_answer_to_every_marker(stray: Answer, caplog: pytest.LogCaptureFixture) -> None:
    """A short page counts as the whole list, with a warning, after the list came once more without a marker."""
    ids = names(25)
    assert_whole(lambda: Lists(ids, refuses=dict.fromkeys(ids, stray)), most=10)
    assert [record.message for record in caplog.records] == [UNCONFIRMED]
    cloud = Lists(ids, refuses=dict.fromkeys(ids, stray))
    cloud.read()
    markers = [query.get("marker") for query in cloud.queries]
    # Once the answer has been repeated for the last server, one request for each earlier server is enough.
    repeats = 3 if stray in (STRAYS["401"], STRAYS["401 of a gateway"]) else 2
    assert markers == [None, *[ids[-1]] * repeats, ids[-2], ids[-4], None, ids[-1]]


@strays
@pytest.mark.parametrize(
    ("cap", "most", "link"),
    [(1000, 10, ""), (1000, 25, ""), (10, 1000, LINKS["query"]), (24, 1000, LINKS["without a query"])],
    ids=["full pages", "one full page", "a link", "a link without a position"],
)
def test_a_stray_answer_where_more_follows(
    stray: Answer, cap: int, most: int, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the page before says that more follows and no marker works, servers may be missing: an error."""
    monkeypatch.setattr("bulkrestart.client.PageSize", lambda: PageSize(most))
    ids = names(25)
    assert_refused(
        lambda: Lists(ids, cap=cap, link=link, refuses=dict.fromkeys(ids, stray)),
        r"cannot be read to its end: .*; give ids; nothing was sent",
        most=10,
    )


@strays
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("cap", [5, 1000])
def test_a_stray_answer_that_passes(stray: Answer, times: int, cap: int, caplog: pytest.LogCaptureFixture) -> None:
    """A stray answer in the middle of a list or at its end, even if repeated, loses no server and is no end."""
    for number in (0, 1, 4):

        def make(first: int = number) -> Lists:
            cloud = Lists(cap=cap)

            def page(query: httpx.QueryParams) -> httpx.Response:
                asked = len(cloud.queries) - 1
                return stray() if first < asked <= first + times else cloud.listed(query)

            cloud.page = page
            return cloud

        assert_whole(make, most=25 // min(cap, 25) + 6)
    assert not caplog.records


@pytest.mark.parametrize(
    "stray", [STRAYS[one] for one in ["403", "302", "401", "405"]], ids=["403", "302", "401", "405"]
)
def test_stray_answers_to_every_request_after_a_page(stray: Answer) -> None:
    """If lists without a marker are refused too, the cause is not the marker, and the list is an error."""
    cloud = Lists()
    cloud.page = lambda query: stray() if len(cloud.queries) > 1 else cloud.listed(query)
    with pytest.raises(BulkRestartError, match="nothing was sent"):
        cloud.read()
    assert len(cloud.queries) <= 10


@pytest.mark.parametrize(
    "stray",
    [
        nova(406, "notAcceptable"),
        said(407),
        nova(409, "conflictingRequest", "busy"),
        nova(501, "notImplemented"),
        said(200, '{"error_code": "Ecs.0000", "error_msg": "no"}'),
        said(203, '{"servers": []}'),
        said(206, '{"servers": [{"id": "more"}]}'),
    ],
    ids=["406", "407", "409", "501", "an error in a 200", "203", "206"],
)
def test_an_answer_that_is_no_end(stray: Answer, caplog: pytest.LogCaptureFixture) -> None:
    """An answer to markers that is none of the known ones is an error, even after a short page."""
    ids = names(25)
    cloud = Lists(ids, refuses=dict.fromkeys(ids, stray))
    with pytest.raises(EndpointError, match="nothing was sent"):
        cloud.read()
    assert UNCONFIRMED not in caplog.text
    assert Lists(ids, refuses=dict.fromkeys(ids, stray)).plan()[0] == 25


@pytest.mark.parametrize("link", ["", LINKS["absolute"]], ids=["no links", "links"])
@pytest.mark.parametrize("cap", [2, 10, 1000])
@pytest.mark.parametrize("failure", FAILED.values(), ids=FAILED)
def test_failures_are_no_end(failure: Answer, cap: int, link: str, caplog: pytest.LogCaptureFixture) -> None:
    """If every page after the first fails, also after a short one, it is not known whether more follows."""
    cloud = Lists(cap=cap, link=link)
    cloud.page = lambda query: failure() if "marker" in query else cloud.listed(query)
    with pytest.raises(EndpointError, match=r"read to its end: .*; give ids, or try again later; nothing was"):
        cloud.read()
    assert len(cloud.queries) <= 14
    assert UNCONFIRMED not in caplog.text


@pytest.mark.parametrize("stray", [STRAYS["403"], STRAYS["302"], STRAYS["{}"]], ids=["403", "302", "{}"])
@pytest.mark.parametrize("failure", FAILED.values(), ids=FAILED)
def test_failures_between_stray_answers_are_no_end(failure: Answer, stray: Answer) -> None:
    """If some markers fail and others get a stray answer, the list is not taken as complete."""
    ids = names(25)
    cloud = Lists(ids, refuses={**dict.fromkeys(ids, stray), ids[-2]: failure})
    with pytest.raises(EndpointError, match="give ids, or try again later"):
        cloud.read()


@pytest.mark.parametrize("stray", [STRAYS[one] for one in ["403", "302", "401", "{}"]], ids=["403", "302", "401", "{}"])
def test_polls_after_an_end_that_is_not_confirmed(stray: Answer) -> None:
    """A second list that is as long as the first is not asked for more."""
    ids = names(25)
    cloud = Lists(ids, refuses=dict.fromkeys(ids, stray))

    async def main() -> list[int]:
        counts = []
        async with cloud.client() as client:
            for _ in range(2):
                before = len(cloud.queries)
                await client.plan([*ids, "gone"])
                counts.append(len(cloud.queries) - before)
        return counts

    first, second = virtually(main)
    assert first > 5
    assert second == 1


def with_faults(cloud: Lists, share: float, seed: int) -> Callable[[httpx.QueryParams], httpx.Response]:
    """Let this share of the pages fail, at random."""
    draw = Random(seed)
    failures = [*FAILED.values(), said(503, retry_after="1")]
    return lambda query: draw.choice(failures)() if draw.random() < share else cloud.listed(query)


@pytest.mark.parametrize("share", [0.05, 0.15])
@pytest.mark.parametrize("link", ["", LINKS["absolute"], "offset"], ids=["no links", "links", "offsets"])
def test_some_pages_fail(link: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However pages are linked, lists of 20 pages come although some pages fail, and no server is read singly."""
    monkeypatch.setattr("bulkrestart.client.PageSize", lambda: PageSize(10))
    for seed in range(10):

        def make(seed: int = seed) -> Lists:
            cloud = Lists(names(200), link=link)
            listed = by_offset(cloud, counts_pages=False) if link == "offset" else cloud.listed
            faulty = with_faults(cloud, share, seed)
            cloud.page = lambda query: answer if (answer := faulty(query)).status_code >= 500 else listed(query)
            return cloud

        cloud = make()
        assert cloud.read() == cloud.ids
        assert make().plan() == (200, {cloud.ids[0]})


@pytest.mark.parametrize("refusal", [*REFUSALS.values(), *STRAYS.values()], ids=[*REFUSALS, *STRAYS])
def test_markers_that_are_refused_again_and_again(refusal: Answer) -> None:
    """Each time that the list has gone on meanwhile, earlier servers are tried anew."""
    ids = names(25)
    assert_whole(lambda: Lists(ids, cap=5, refuses=dict.fromkeys(ids[4:24:4], refusal)), most=40)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("page", [0, 1, 4, 5])
@pytest.mark.parametrize(
    "answer",
    [
        said(503, retry_after="1"),
        said(500, retry_after="1"),
        said(429, retry_after="2"),
        said(429),
        nova(413, "overLimit"),
    ],
    ids=["503", "500", "429", "429 without a time", "413"],
)
def test_a_page_that_asks_for_time(answer: Answer, page: int, count: int) -> None:
    """The same page is requested again: no list is given up, and no server is read singly."""

    def make() -> Lists:
        cloud = Lists(cap=5)
        cloud.page = lambda query: answer() if page < len(cloud.queries) <= page + count else cloud.listed(query)
        return cloud

    assert_whole(make, most=6 + count)


@pytest.mark.parametrize("status", [403, 405, 501])
def test_lists_go_on_after_a_marker_was_refused(status: int) -> None:
    """An answer to a marker does not say that lists are refused: later polls list servers by page."""

    async def main() -> None:
        cloud = cloud_of(30, max_limit=10, reboot_seconds=(20.0, 40.0))
        cloud.script(None, None, Fault.error(status, "no"), call=Call.LIST)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 30}
        calls = Counter(record.call for record in cloud.requests)
        assert calls[Call.SHOW] < 10
        assert calls[Call.LIST] > 5

    virtually(main)


class FaultyCompute:
    """Answers with pages of a list of 20 pages, some of which fail at random."""

    def __init__(self, share: float, draw: Random) -> None:
        self.page_size = PageSize(16)
        self._share = share
        self._draw = draw
        self._servers = [Server(id=server_id) for server_id in names(320)]

    async def page(
        self,
        *,
        position: Position | None,
        limit: int,
        is_about_page: Callable[[Page | Observation], bool],
        **_: object,
    ) -> Page | Observation:
        """Answer with a page, or with a failure, and have it judged."""
        seen = self._answer(position, limit)
        is_about_page(seen)
        return seen

    def _answer(self, position: Position | None, limit: int) -> Page | Observation:
        if self._draw.random() < self._share:
            return self._draw.choice((Answered(503), Answered(500), Unanswered("no answer within 60 s")))
        start = 0 if position is None else int(position.value[1:]) + 1
        servers = self._servers[start : start + limit]
        return Page(servers, rows=len(servers), limit=limit)


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(3))
def test_how_many_lists_are_given_up(seed: int) -> None:
    """With 5 % of failed pages, fewer than one list of 20 pages in a thousand is given up."""
    lists = 3_000
    draw = Random(seed)

    async def read() -> bool:
        walk = PageWalk(cast(Compute, FaultyCompute(0.05, draw)))
        failed = 0
        while walk.cursor.end is None:
            failed = failed + 1 if isinstance(await walk.request(), Observation) else 0
            if failed == min(TRIES, _FAILED_PAGES):
                return False
        return walk.cursor.end is ListEnd.WHOLE

    async def main() -> int:
        return [await read() for _ in range(lists)].count(False)

    assert trio.run(main) < lists / 1000


def test_no_rows_may_be_null() -> None:
    """A page whose list is null has no servers."""
    cloud = Lists()

    def page(query: httpx.QueryParams) -> httpx.Response:
        return httpx.Response(200, json={"servers": None}) if "marker" in query else cloud.listed(query)

    cloud.page = page
    assert cloud.read() == cloud.ids
    cloud.page = lambda _: httpx.Response(200, json={"servers": None})
    assert cloud.read() == []


def test_a_server_that_is_deleted_at_each_page() -> None:
    """If the last server of each page is deleted before the next page is requested, each server still comes once."""
    for cap in (1, 2, 5):
        cloud = Lists(names(25), cap=cap, link=LINKS["query"])
        stays = [one for number, one in enumerate(cloud.ids) if number % 4]
        came: set[str] = set()

        def page(query: httpx.QueryParams, cloud: Lists = cloud) -> httpx.Response:
            if (marker := query.get("marker")) in cloud.ids[::4] and len(cloud.ids) > 19:
                cloud.ids.remove(str(marker))
            return cloud.listed(query)

        cloud.page = page
        read = cloud.read()
        came.update(read)
        assert len(read) == len(came)
        assert came >= set(stays)


#: Pages for each marker, None for the first page; each has its rows and its links, as they stand in the document.
ODD_PAGES: Final[dict[str, dict[str | None, tuple[str, object]]]] = {
    "no links": {None: ("ab", []), "b": ("cd", []), "d": ("", [])},
    "null for links": {None: ("ab", None), "b": ("cd", None), "d": ("", None)},
    "an object for links": {None: ("ab", {}), "b": ("cd", {"next": None}), "d": ("", {"next": ""})},
    "a link of another kind": {None: ("ab", [{"rel": "self", "href": "?marker=x"}]), "b": ("cd", [7]), "d": ("", [])},
    "a link to its own page": {None: ("ab", "?limit=2"), "b": ("cd", "?marker=b"), "d": ("", "?marker=b")},
    "a loop of two pages": {None: ("ab", "?marker=b"), "b": ("cd", "?limit=2"), "d": ("", [])},
    "a link back": {None: ("ab", "?marker=b"), "b": ("cd", "?marker=d"), "d": ("", "?marker=b")},
    "a link to another host": {None: ("ab", "http://other.example/?marker=b"), "b": ("cd", []), "d": ("", [])},
    "two markers": {None: ("ab", "?marker=b&marker=x"), "b": ("cd", []), "d": ("", [])},
    "an empty marker": {None: ("ab", "?marker=&marker=b"), "b": ("cd", "?marker="), "d": ("", [])},
    "a marker in escapes": {None: ("ab", "?%6darker=%62&limit=-1"), "b": ("cd", []), "d": ("", [])},
    "a marker in the fragment": {None: ("ab", "/#?marker=x"), "b": ("cd", []), "d": ("", [])},
    "a marker with a line break": {None: ("ab", "?marker=%0d%0ax"), "b": ("cd", []), "d": ("", [])},
    "bytes that are no text": {None: ("ab", "?marker=%ff%fe"), "b": ("cd", []), "d": ("", [])},
    "a URL that is none": {None: ("ab", "http://[::?marker=b"), "b": ("cd", []), "d": ("", [])},
    "an overlap": {None: ("ab", []), "b": ("bcd", []), "d": ("", [])},
    "an overlap of all but one": {None: ("abc", []), "c": ("abcd", []), "d": ("", [])},
    "a row again, and a link": {None: ("ab", "?marker=b"), "b": ("b", "?marker=a"), "a": ("bcd", []), "d": ("", [])},
    "rows twice": {None: ("aab", []), "b": ("cdc", []), "c": ("d", []), "d": ("", [])},
}


@pytest.mark.parametrize("pages", ODD_PAGES.values(), ids=ODD_PAGES)
def test_odd_pages(pages: dict[str | None, tuple[str, object]]) -> None:
    """However odd a page or its link is, all servers come, each once, and only this endpoint is asked."""

    def page(query: httpx.QueryParams) -> httpx.Response:
        assert query.get_list("marker") in ([], ["a"], ["b"], ["c"], ["d"]), query
        shown, link = pages[query.get("marker")]
        links = [{"rel": "next", "href": link}] if isinstance(link, str) else link
        return httpx.Response(200, json={"servers": [row(one) for one in shown], "servers_links": links})

    assert_whole(lambda: Lists([*"abcd"], page=page), most=12)


UUID: Final = "616fb98f-46ca-475e-917e-2563e5a8cd19"


@pytest.mark.parametrize(
    "spelling", [UUID.upper(), UUID.title(), f"{{{UUID}}}", UUID.replace("-", ""), f"urn:uuid:{UUID}"]
)
@pytest.mark.parametrize("is_same_page", [True, False])
def test_a_server_in_two_spellings(spelling: str, is_same_page: bool) -> None:
    """If a list shows a server again, its id spelt otherwise, the server is selected once."""
    pages = {None: [UUID, spelling], UUID: []} if is_same_page else {None: [UUID], UUID: [spelling, "b"], "b": []}
    cloud = Lists()
    cloud.page = lambda query: cloud.rows(pages[query.get("marker")], 1000, has_more=False)
    assert cloud.read() == ([UUID] if is_same_page else [UUID, "b"])


#: How a cloud answers a page that is too large.
TOO_LARGE: Final[dict[str, Answer]] = {
    "408": gateway(408),
    "413": gateway(413),
    **FAILED,
    "400, which names the limit": nova(400, "badRequest", "limit may not be greater than 100"),
    "403, which names the limit": nova(403, "forbidden", "Page size is at most 100"),
    "422, which names the limit": nova(422, "unprocessableEntity", "Invalid limit"),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("most", [3, 100, 999])
@pytest.mark.parametrize("failure", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_page_that_is_too_large(failure: Answer, most: int) -> None:
    """It is requested again with fewer servers, and all servers come."""

    def make() -> Lists:
        cloud = Lists(names(150))
        cloud.page = lambda query: failure() if int(query["limit"]) > most else cloud.listed(query)
        return cloud

    cloud = make()
    assert cloud.read() == cloud.ids
    cloud = make()
    if most > 3:
        assert cloud.plan() == (150, {cloud.ids[0]})
    assert cloud.plan()[0] == 150


@pytest.mark.unmeasured
def test_a_page_in_the_middle_that_is_too_large() -> None:
    """Large rows may be anywhere in a list: pages shrink there, and grow again after them."""
    cloud = Lists(names(20_000))
    heavy = range(5_000, 6_000)

    def page(query: httpx.QueryParams) -> httpx.Response:
        start = cloud.ids.index(query["marker"]) + 1 if "marker" in query else 0
        asked = range(start, start + int(query["limit"]))
        is_heavy = asked.start < heavy.stop and heavy.start < asked.stop and len(asked) > 100
        return gateway(504)() if is_heavy else cloud.listed(query)

    cloud.page = page
    assert cloud.read() == cloud.ids
    assert int(cloud.queries[-1]["limit"]) > 500


@pytest.mark.parametrize("failure", [TOO_LARGE["500"], TOO_LARGE["time-out"]], ids=["500", "time-out"])
def test_a_list_that_never_comes(failure: Answer) -> None:
    """If pages of any size fail, the error says so, and does not doubt the URL once a page has come."""
    cloud = Lists()
    cloud.page = lambda _: failure()
    with pytest.raises(
        EndpointError,
        match=r"(gives no usable|does not) answer when it is asked for its list of servers .*; give ids, or",
    ):
        cloud.read()
    assert [query["limit"] for query in cloud.queries] == ["1000", "250", "62", "15", "3"]
    cloud = Lists(cap=10)
    cloud.page = lambda query: failure() if "marker" in query else cloud.listed(query)
    with pytest.raises(EndpointError, match="give ids, or try again later; nothing was sent") as caught:
        cloud.read()
    assert "URL" not in str(caught.value)


def test_rows_that_cannot_be_read_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """One warning at the end of the list counts the servers that cannot be selected."""
    cloud = Lists(names(6), cap=3)
    odd: dict[str, list[object]] = {
        "": [{"id": "a b", "name": "web-1"}, None, {"name": "web-2"}],
        "s00002": [{"id": 7}, {"id": "down-1", "status": "UNKNOWN"}, {"id": "down-2", "status": "UNKNOWN"}],
    }

    def page(query: httpx.QueryParams) -> httpx.Response:
        document = cloud.listed(query).json()
        document["servers"][:0] = odd.get(query.get("marker", ""), [])
        return httpx.Response(200, json=document)

    cloud.page = page
    assert cloud.read(name="web") == cloud.ids
    warnings = [record.message for record in caplog.records]
    assert warnings == [
        "4 servers of the list have no readable id: they are left out",
        "2 servers are shown without what they are selected by (down-1, down-2): they are left out; give their ids",
    ]
    caplog.clear()
    # A server that is shown by its id and its status alone can be selected by these.
    assert {"down-1", "down-2"} <= set(cloud.read())
    assert cloud.read(status="UNKNOWN") == ["down-1", "down-2"]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("link", ["", "?marker=next"])
def test_a_page_of_rows_that_cannot_be_read(link: str, caplog: pytest.LogCaptureFixture) -> None:
    """A page without any id is skipped if a link says where the next one begins, and is an error otherwise."""
    cloud = Lists(["a", "b"])

    def page(query: httpx.QueryParams) -> httpx.Response:
        document: dict[str, object] = {"servers": [None, {}, {"id": "/"}]}
        match query.get("marker"):
            case None:
                return with_link(cloud, "?marker=odd", "a")
            case "odd":
                return httpx.Response(200, json=document | {"links": [{"rel": "next", "href": link}] if link else []})
            case _:
                return cloud.rows(["b"] if query["marker"] == "next" else [], 1000, has_more=False)

    cloud.page = page
    if link:
        assert cloud.read() == ["a", "b"]
        assert [record.message for record in caplog.records] == [
            "3 servers of the list have no readable id: they are left out"
        ]
    else:
        with pytest.raises(EndpointError, match=r"^3 servers of the list have no readable id"):
            cloud.read()


def endless(kind: str) -> Callable[[httpx.QueryParams], httpx.Response]:
    """Answer with a list that has no end."""
    cloud = Lists(names(10))
    asked = 0

    def page(query: httpx.QueryParams) -> httpx.Response:
        nonlocal asked
        asked += 1
        match kind:
            case "empty pages with ever new links":
                return with_link(cloud, f"?marker=m{asked}", *(cloud.ids if asked == 1 else []))
            case "the same page with ever new links":
                return with_link(cloud, f"?marker=m{asked}", *cloud.ids)
            case "the same page with ever new offsets":
                return with_link(cloud, f"?offset={asked * 10}", *cloud.ids)
            case "the same page in another order":
                return with_link(cloud, "?marker=x", *cloud.ids[asked % 10 :], *cloud.ids[: asked % 10])
            case "the first page after the last":
                last = {None: cloud.ids[:5], cloud.ids[4]: cloud.ids[5:]}
                shown = last.get(query.get("marker"), cloud.ids[:5])
                return with_link(cloud, f"?marker={shown[-1]}", *shown)
            case _:
                return with_link(cloud, "?marker=x", *(f"n{asked * 1000 + number}" for number in range(500)))

    return page


def test_polls_of_a_list_without_an_end() -> None:
    """If a list shows ever new servers, none of them the run's, the run reads its servers singly after some minutes."""
    cloud = Lists(names(30))
    asked = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        if request.url.path != PATH:
            return cloud.answer(request)
        await anyio.sleep(30.0)
        asked += 1
        return with_link(cloud, f"?marker=m{asked}", f"new-{asked}")

    async def main() -> int:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            plan = await RestartClient(f"{HOST}/v2.1/p", http=http).plan(cloud.ids)
            return plan.expected[None]

    assert virtually(main) == 30
    assert set(cloud.shown) == set(cloud.ids)
    assert asked < 12


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("kind", "words", "most"),
    [
        ("empty pages with ever new links", None, 20),
        ("the same page with ever new links", "its pages repeat", 20),
        ("the same page with ever new offsets", "its pages repeat", 20),
        ("the same page in another order", "its pages repeat", 30),
        ("the first page after the last", "its pages repeat", 60),
        ("ever new servers", "more than 10000 servers", 25),
    ],
)
def test_a_list_without_an_end(kind: str, words: str | None, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list without an end is given up after a few pages."""
    monkeypatch.setattr("bulkrestart.run.listing._MOST_SERVERS", 10_000)
    cloud = Lists(names(10), page=endless(kind))
    if words is None:
        assert cloud.read() == cloud.ids
    else:
        with pytest.raises(EndpointError, match=re.escape(words)):
            cloud.read()
    assert len(cloud.queries) <= most
