"""The compute API on the wire: what each method sends, and what it makes of every answer."""

import gzip
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import anyio
import httpx
import pytest
import respx
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.sender import Sender
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.faults import Body, Fault
from bulkrestart.core.model import Action, Address, RebootType, Server
from bulkrestart.core.observation import Answer, Unanswered
from bulkrestart.core.pages import PAGE_LIMIT, Page, Position

from .loopback import (
    Connection,
    KeepAlive,
    both_backends,
    by_each_way,
    compute_of,
    each_way,
    leaves_generators,
    listening,
    read_request,
    sender_of,
)

SOFT, HARD = RebootType.SOFT, RebootType.HARD
ID = "616fb98f-46ca-475e-917e-2563e5a8cd19"
BASE = "http://cloud.test/v2.1/p"

Call = Callable[[Compute], Awaitable[object]]
Handler = Callable[[httpx.Request], httpx.Response]

GETS: dict[str, Call] = {
    "show": lambda compute: compute.show(ID),
    "list": lambda compute: compute.page(),
    "actions": lambda compute: compute.actions(ID),
    "action": lambda compute: compute.action(ID, "req-1"),
}
CALLS: dict[str, Call] = {"reboot": lambda compute: compute.reboot(ID, SOFT), **GETS}

each_get = pytest.mark.parametrize("call", GETS.values(), ids=GETS)
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def over(handler: Handler, *, version: str = "v2.1", clock: CloudClock | None = None) -> Compute:
    """Make a compute API over a cloud that is one function."""
    return compute_of(httpx.AsyncClient(transport=httpx.MockTransport(handler)), version=version, clock=clock)


def saying(content: bytes | str, status: int = 200, headers: Mapping[str, str] | None = None) -> Compute:
    """Make a compute API that says the same to everything."""
    return over(lambda _: httpx.Response(status, content=content, headers=headers))


def saying_json(document: object, status: int = 200) -> Compute:
    """Make a compute API that says the same JSON to everything."""
    return saying(json.dumps(document), status)


# What is sent.


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("call", "method", "url", "body"),
    [
        pytest.param(
            lambda c: c.reboot(ID, SOFT), "POST", f"/servers/{ID}/action", b'{"reboot": {"type": "SOFT"}}', id="soft"
        ),
        pytest.param(
            lambda c: c.reboot(ID, HARD), "POST", f"/servers/{ID}/action", b'{"reboot": {"type": "HARD"}}', id="hard"
        ),
        pytest.param(lambda c: c.show(ID), "GET", f"/servers/{ID}", b"", id="show"),
        pytest.param(lambda c: c.page(), "GET", "/servers/detail?limit=1000", b"", id="first page"),
        pytest.param(
            lambda c: c.page(position=Position.after(ID)),
            "GET",
            f"/servers/detail?limit=1000&marker={ID}",
            b"",
            id="next page",
        ),
        pytest.param(
            lambda c: c.page(changes_since=1_700_000_000.9),
            "GET",
            "/servers/detail?limit=1000&changes-since=2023-11-14T22%3A13%3A20Z",
            b"",
            id="changes, rounded down",
        ),
        pytest.param(
            lambda c: c.page(position=Position.after("a&b=c d"), changes_since=0.0),
            "GET",
            "/servers/detail?limit=1000&marker=a%26b%3Dc+d&changes-since=1970-01-01T00%3A00%3A00Z",
            b"",
            id="a marker that needs quotes",
        ),
        pytest.param(lambda c: c.actions(ID), "GET", f"/servers/{ID}/os-instance-actions", b"", id="log"),
        pytest.param(
            lambda c: c.action(ID, "req-1"), "GET", f"/servers/{ID}/os-instance-actions/req-1", b"", id="row of the log"
        ),
    ],
)
async def test_a_method_is_one_request(
    respx_mock: respx.MockRouter, call: Call, method: str, url: str, body: bytes
) -> None:
    """Each method makes exactly one request, and this one."""
    route = respx_mock.route().respond(404)
    async with httpx.AsyncClient(trust_env=False) as http:
        await call(compute_of(http))
    [sent] = [made.request for made in route.calls]
    assert (sent.method, str(sent.url), sent.content) == (method, BASE + url, body)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("server_id", "segment"),
    [
        ("a/b", "a%2Fb"),
        ("../../v2.1/other", "..%2F..%2Fv2.1%2Fother"),
        ("ü", "%C3%BC"),
        ("%41", "%2541"),
        ("a%2Fb", "a%252Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("a;b=c&d", "a%3Bb%3Dc%26d"),
        ("a\\b", "a%5Cb"),
        ("[a]{b}|^`", "%5Ba%5D%7Bb%7D%7C%5E%60"),
        ("a:b@c", "a%3Ab%40c"),
        ("~-._", "~-._"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
    ],
)
async def test_an_id_is_one_segment_of_the_path(server_id: str, segment: str) -> None:
    """Whatever an id holds, it stays one segment of the path, and reads back as that id."""
    paths: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(404)

    compute = over(answer)
    await compute.reboot(server_id, SOFT)
    await compute.show(server_id)
    await compute.actions(server_id)
    await compute.action(server_id, server_id)
    assert [path.decode() for path in paths] == [
        f"/v2.1/p/servers/{segment}/action",
        f"/v2.1/p/servers/{segment}",
        f"/v2.1/p/servers/{segment}/os-instance-actions",
        f"/v2.1/p/servers/{segment}/os-instance-actions/{segment}",
    ]


@pytest.mark.asyncio
async def test_the_bytes_of_a_reboot() -> None:
    """The reboot on the wire, byte for byte but for the headers that say who asks."""
    server = KeepAlive()
    async with listening(server) as address, sender_of("lanes") as sender:
        await compute_of(sender, f"http://{address}").reboot("%41/ü", HARD)
    [(_, request)] = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /v2.1/p/servers/%2541%2F%C3%BC/action HTTP/1.1"
    assert body == b'{"reboot": {"type": "HARD"}}'
    named = dict(header.split(": ", 1) for header in headers)
    assert (named["Host"], named["Content-Length"]) == (address, str(len(body)))
    assert (named["Content-Type"], named["Accept"]) == ("application/json", "application/json")


@pytest.mark.asyncio
@each_call
async def test_the_cloud_is_asked_for_json_in_english(call: Call) -> None:
    """Every request asks for JSON and for English, which the decisions read, whatever a lent client would ask for."""
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(404)

    lent = {"Accept-Language": "de", "Accept": "text/html"}
    await call(compute_of(httpx.AsyncClient(transport=httpx.MockTransport(answer), headers=lent)))
    assert [(headers.get_list("accept"), headers.get_list("accept-language")) for headers in seen] == [
        (["application/json"], ["en"])
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("version", ["v2", "v2.1"])
async def test_only_reads_of_v21_carry_a_microversion(version: str) -> None:
    """Both headers of the microversion are on each GET of /v2.1, on nothing of /v2, and on no POST."""
    seen: list[tuple[str, str | None, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        headers = request.headers
        version_headers = (headers.get("x-openstack-nova-api-version"), headers.get("openstack-api-version"))
        seen.append((request.method, *version_headers))
        return httpx.Response(404)

    compute = over(answer, version=version)
    for call in CALLS.values():
        await call(compute)
    asked = ("2.60", "compute 2.60") if version == "v2.1" else (None, None)
    assert seen == [("POST", None, None), *[("GET", *asked)] * 4]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("version", "messages", "asked"),
    [
        ("v2.1", ["Version 2.60 is not supported by the API. Minimum is 2.1 and maximum is 2.53."], ["2.53"]),
        ("v2.1", ["maximum is 2.53", "maximum is 2.1"], ["2.53", "2.1"]),
        ("v2.1", ["maximum is 2.60"], [None]),
        ("v2.1", ["maximum is 2.100"], [None]),
        ("v2.1", ["maximum is 3.0"], [None]),
        ("v2.1", ["Not Acceptable"], [None]),
        ("v2.1", [""], [None]),
        ("v2.1", ["maximum is 2.53", "Not Acceptable", "Not Acceptable"], ["2.53", None, "refused"]),
        ("v2", ["maximum is 2.53"], ["refused"]),
    ],
)
async def test_a_406_lowers_the_microversion(version: str, messages: list[str], asked: list[str | None]) -> None:
    """A 406 lowers what is asked for to the newest that it names, or to none, until there is nothing to lower."""
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("x-openstack-nova-api-version"))
        return httpx.Response(404)

    compute = over(answer, version=version)
    for message, newest in zip(messages, asked, strict=True):
        assert compute.lower_microversion(Answer(406, Fault(message=message))) is (newest != "refused")
        await compute.show(ID)
        assert seen[-1] == (None if newest == "refused" else newest)


@pytest.mark.parametrize("status", [200, 400, 404, 409, 500])
def test_only_a_406_lowers_the_microversion(status: int) -> None:
    """No other refusal lowers what is asked for, whatever its words are."""
    assert not saying("").lower_microversion(Answer(status, Fault(message="maximum is 2.53")))


# What comes back.


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [200, 202, 204, 307, 400, 401, 404, 406, 409, 413, 429, 500, 501, 502, 503, 504])
@each_call
async def test_every_status_is_an_answer(call: Call, status: int) -> None:
    """Every status is an answer, with what its headers and its body say; nothing is raised for it."""
    body = json.dumps({"conflictingRequest": {"code": status, "message": "no"}})
    seen = await call(saying(body, status, {"x-openstack-request-id": "req-7", "Location": "/elsewhere"}))
    assert isinstance(seen, Answer)
    assert (seen.status, seen.fault.code, seen.fault.message) == (status, "conflictingRequest", "no")
    assert (seen.fault.request_id, seen.is_redirected) == ("req-7", False)


@pytest.mark.asyncio
async def test_every_answer_tells_the_time() -> None:
    """The clock learns from the `Date` of every answer, also of a refusal; one without a date leaves it as it was.

    Before any `Date` this machine's clock stands for it.
    """
    clock = CloudClock()
    dates = ["", "Tue, 14 Nov 2023 22:13:20 GMT", "yesterday", "Tue, 14 Nov 2023 23:13:20 GMT"]
    known = iter([None, 1_700_000_000, 1_700_000_000, 1_700_003_600])
    compute = over(lambda _: httpx.Response(503, headers={"Date": dates.pop(0)}), clock=clock)
    for seconds in known:
        await compute.show(ID)
        span = clock.at(anyio.current_time())
        assert span is not None
        earliest, latest = span
        assert clock.is_guess is (seconds is None)
        if seconds is None:
            assert earliest == latest == pytest.approx(time.time(), abs=60.0)
        else:
            assert earliest <= seconds + 1
            assert latest >= seconds
            assert 1.0 <= latest - earliest < 2.0


SHOWN = {
    "id": ID,
    "name": "web-1",
    "status": "REBOOT",
    "OS-EXT-STS:vm_state": "active",
    "OS-EXT-STS:task_state": "reboot_started",
    "locked": False,
    "fault": {"code": 500, "message": "No valid host", "created": "2030-01-01T00:00:00Z"},
}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("row", "server"),
    [
        pytest.param(
            SHOWN,
            Server(
                id=ID,
                name="web-1",
                status="REBOOT",
                vm_state="active",
                task_state="reboot_started",
                locked=False,
                fault="No valid host",
            ),
            id="all",
        ),
        pytest.param({"id": ID, "status": "UNKNOWN"}, Server(id=ID, status="UNKNOWN"), id="cell that is down"),
        pytest.param({"id": ID, "OS-EXT-STS:task_state": None}, Server(id=ID), id="idle"),
        pytest.param({**SHOWN, "id": 7}, None, id="id that is a number"),
        pytest.param({**SHOWN, "id": None}, None, id="no id"),
        pytest.param(dict.fromkeys(SHOWN, 7) | {"id": ID}, Server(id=ID), id="numbers everywhere"),
        pytest.param(dict.fromkeys(SHOWN, ()) | {"id": ID}, Server(id=ID), id="lists everywhere"),
        pytest.param({"id": ID, "locked": "false"}, Server(id=ID), id="locked that is text"),
        pytest.param({"id": ID, "locked": 0}, Server(id=ID), id="locked that is a number"),
        pytest.param({"id": ID, "fault": "broken"}, Server(id=ID), id="fault that is text"),
        pytest.param({"id": ID, "fault": {"message": None}}, Server(id=ID), id="fault without words"),
        pytest.param({"id": ID.upper()}, Server(id=ID), id="another spelling of the id"),
        pytest.param({"id": "\ud800"}, None, id="id that is not UTF-8"),
        pytest.param({"id": "a\nb"}, None, id="id of two lines"),
        pytest.param(
            {"id": ID, "fault": {"message": "\x1b[2J\ud800X-Auth-Token: 0123456789abcdef" + "!" * 600}},
            Server(id=ID, fault="[2JX-Auth-Token: …" + "!" * 481 + "…"),
            id="fault that is not fit to print",
        ),
        pytest.param(
            {"id": ID, "OS-EXT-STS:vm_state": "\x1b[2J\ud800active"},
            Server(id=ID, vm_state="[2jactive"),
            id="state that is not fit to print",
        ),
        pytest.param(
            {
                "id": ID,
                "addresses": {
                    "a": [
                        {"addr": "2001:db8::1", "version": 6, "OS-EXT-IPS:type": "fixed"},
                        {"addr": "10.0.0.7", "version": 4, "OS-EXT-IPS:type": "fixed"},
                        {"addr": "192.0.2.7", "version": 4, "OS-EXT-IPS:type": "floating"},
                    ],
                    "b": [{"addr": "10.1.0.7", "version": 4}],
                },
            },
            Server(
                id=ID,
                addresses=(
                    Address(address="192.0.2.7", network="a", version=4, is_floating=True),
                    Address(address="10.0.0.7", network="a", version=4),
                    Address(address="10.1.0.7", network="b", version=4),
                    Address(address="2001:db8::1", network="a", version=6),
                ),
            ),
            id="addresses: floating ones, then version 4, then as they are listed",
        ),
        pytest.param(
            {
                "id": ID,
                "addresses": {
                    "a": [
                        {"addr": 7, "version": 4},
                        {"addr": "10.0.0.7"},
                        {"addr": "10.0.0.7", "version": "4"},
                        {"version": 4},
                        None,
                    ],
                    "b": {"addr": "10.0.0.7", "version": 4},
                    "c": None,
                },
            },
            Server(id=ID),
            id="addresses that are none",
        ),
        pytest.param({"id": ID, "addresses": [["10.0.0.7"]]}, Server(id=ID), id="addresses that are a list"),
        pytest.param([SHOWN], None, id="list"),
        pytest.param("server", None, id="text"),
        pytest.param(None, None, id="null"),
    ],
)
async def test_a_server_is_read(row: object, server: Server | None) -> None:
    """A server is read as far as it can be: what has the wrong type counts as not shown; without an id it is none."""
    shown = await saying_json({"server": row}).show(ID)
    page = await saying_json({"servers": [row]}).page()
    assert isinstance(page, Page)
    if server is None:
        assert shown == Answer(200, Fault(body=Body.JSON))
        assert list(page.servers) == []
    else:
        assert shown == server
        assert list(page.servers) == [server]


def rows(count: int) -> list[dict[str, str]]:
    """Make servers named s0, s1, ..."""
    return [{"id": f"s{number}"} for number in range(count)]


NEXT = [{"rel": "next", "href": "http://elsewhere.test/servers/detail?marker=s1"}]
S1 = Position.after("s1")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("document", "count", "says_more", "position"),
    [
        pytest.param({"servers": []}, 0, False, None, id="no servers"),
        pytest.param({"servers": None}, 0, False, None, id="null"),
        pytest.param({"servers": [], "servers_links": NEXT}, 0, True, S1, id="no servers, and a link"),
        pytest.param({"servers": rows(2)}, 2, False, None, id="short page"),
        pytest.param({"servers": rows(2), "servers_links": []}, 2, False, None, id="short page, no links"),
        pytest.param({"servers": rows(2), "servers_links": NEXT}, 2, True, S1, id="short page with a link"),
        pytest.param(
            {"servers": rows(2), "servers_links": [{"rel": "self"}, *NEXT]}, 2, True, S1, id="a link among others"
        ),
        pytest.param({"servers": rows(2), "servers_links": [{"rel": "previous"}]}, 2, False, None, id="a link back"),
        pytest.param({"servers": rows(2), "servers_links": NEXT[0]}, 2, True, S1, id="a link that stands in no list"),
        pytest.param({"servers": rows(2), "servers_links": ["next", None]}, 2, False, None, id="links of other types"),
        pytest.param({"servers": rows(2), "links": NEXT}, 2, True, S1, id="links under another name"),
        pytest.param({"servers": rows(2), "links": {"next": "?marker=s1"}}, 2, True, S1, id="links by their names"),
        pytest.param({"servers": rows(2), "links": {"next": None}}, 2, False, None, id="no next link"),
        pytest.param({"servers": rows(2), "servers_links": [{"rel": "next"}]}, 2, True, None, id="a link to nowhere"),
        pytest.param({"servers": rows(PAGE_LIMIT - 1)}, PAGE_LIMIT - 1, False, None, id="one less than a full page"),
        pytest.param({"servers": rows(PAGE_LIMIT)}, PAGE_LIMIT, True, None, id="full page without a link"),
        pytest.param({"servers": rows(PAGE_LIMIT + 1)}, PAGE_LIMIT + 1, False, None, id="the limit is ignored"),
        pytest.param(
            {"servers": [*rows(1), *[None] * (PAGE_LIMIT - 1)]},
            1,
            True,
            None,
            id="full page of rows that cannot be read",
        ),
        pytest.param({"servers": [None, 7, "x", {}], "servers_links": NEXT}, 0, True, S1, id="no row that can be read"),
    ],
)
async def test_a_page_is_read(document: object, count: int, says_more: bool, position: Position | None) -> None:
    """More rows follow if there is a link or the page is full; a link also says where."""
    page = await saying_json(document).page()
    assert isinstance(page, Page)
    assert (len(page.servers), page.says_more, page.next) == (count, says_more, position)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("href", "position"),
    [
        ("https://cloud.test/v2.1/p/servers/detail?limit=2&marker=s1", S1),
        ("http://cloud.test/v2.1/p/servers/detail?limit=2&marker=s1", S1),
        ("https://elsewhere.test:8774/servers/detail?marker=s1", S1),
        ("//elsewhere.test/servers/detail?marker=s1", S1),
        ("/v2.1/p/servers/detail?marker=s1", S1),
        ("servers/detail?marker=s1#top", S1),
        ("?marker=s1", S1),
        ("?marker=a%26b%3Dc%20d", Position.after("a&b=c d")),
        ("?limit=2&offset=2", Position("offset", "2")),
        ("?offset=2&marker=s1", S1),
        ("?marker=&offset=2", Position("offset", "2")),
        ("?limit=2", None),
        ("?marker=", None),
        ("?marker=a%0ab", None),
        ("?marker=%ff", None),
        ("?marker=" + "x" * 1001, None),
        ("http://[::1/?marker=s1", None),
        ("", None),
        (5, None),
        (None, None),
    ],
)
async def test_a_link_says_where_the_next_page_begins(href: object, position: Position | None) -> None:
    """Whatever host a link names, only the marker or the offset in it counts."""
    document = {"servers": rows(2), "servers_links": [{"rel": "next", "href": href}]}
    page = await saying_json(document).page()
    assert isinstance(page, Page)
    assert (page.has_link, page.next) == (True, position)


@pytest.mark.unmeasured
@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param("[" + ",".join('{"id": "a"}' for _ in range(20_001)) + "]", 20_000, id="too many rows"),
        pytest.param(
            "[" + ",".join('{"id": "a", "x": "' + "x" * 200_000 + '"}' for _ in range(300)) + "]", 262, id="bytes"
        ),
    ],
)
async def test_a_page_that_is_too_long_is_cut(text: str, count: int) -> None:
    """If a page is too long to be read whole, its first rows are used, and it is not the last page."""
    page = await saying(b'{"servers": ' + text.encode() + b"}").page()
    assert isinstance(page, Page)
    assert (page.rows, page.is_cut, page.says_more) == (count, True, True)


@pytest.mark.asyncio
async def test_a_row_that_is_too_long_makes_no_page() -> None:
    """If not even the first row can be read whole, nothing of the page is used."""
    seen = await saying(b'{"servers": [' + b" " * (51 * 1024 * 1024)).page()
    assert isinstance(seen, Answer)
    assert seen.fault.body is Body.CUT_SHORT


ROW = {
    "action": "reboot",
    "request_id": "req-1",
    "start_time": "2014-12-16T10:58:14.000000",
    "user_id": "u",
    "message": None,
    "project_id": "p",
    "instance_uuid": ID,
}
BEGAN = 1_418_727_494.0
DONE = {"event": "compute_reboot_instance", "finish_time": "2014-12-16T10:58:20.000000", "result": "Success"}
UNDONE = {**DONE, "finish_time": None, "result": None}
FAILED = {**DONE, "result": "Error"}
UNTOLD = {"event": "compute_reboot_instance", "start_time": "2014-12-16T10:58:15.000000"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("row", "action"),
    [
        pytest.param(ROW, {"user_id": "u"}, id="without events"),
        pytest.param({**ROW, "start_time": "2014-12-16T10:58:14Z"}, {"user_id": "u"}, id="time with Z"),
        pytest.param({**ROW, "start_time": "2014-12-16T11:58:14+01:00"}, {"user_id": "u"}, id="time of another zone"),
        pytest.param({**ROW, "message": "Error"}, {"user_id": "u", "is_error": True}, id="Error"),
        pytest.param({**ROW, "message": "Error", "events": [UNDONE]}, {"is_error": True, "is_finished": False}, id="E"),
        pytest.param({**ROW, "events": [DONE]}, {"is_finished": True}, id="finished"),
        pytest.param({**ROW, "events": [UNDONE]}, {"is_finished": False}, id="unfinished"),
        pytest.param({**ROW, "events": [DONE, UNDONE]}, {"is_finished": False}, id="one of two unfinished"),
        pytest.param({**ROW, "events": []}, {"is_finished": False}, id="not begun on the host"),
        pytest.param({**ROW, "events": [FAILED]}, {"is_finished": True, "is_error": True}, id="event with Error"),
        pytest.param({**ROW, "events": [FAILED, DONE]}, {"is_finished": True, "is_error": True}, id="one with Error"),
        pytest.param({**ROW, "events": None}, {}, id="events not shown"),
        pytest.param({**ROW, "events": {"finish_time": "x"}}, {}, id="events that are no list"),
        pytest.param({**ROW, "events": ["x", 7]}, {}, id="events of other types"),
        pytest.param({**ROW, "events": [UNTOLD]}, {}, id="event that does not tell its end"),
        pytest.param({**ROW, "events": [DONE, UNTOLD]}, {}, id="one of two does not tell its end"),
        pytest.param({**ROW, "events": [UNDONE, UNTOLD]}, {"is_finished": False}, id="one unfinished, one untold"),
        pytest.param({**ROW, "message": "Error", "events": [UNTOLD]}, {"is_error": True}, id="Error, and no end told"),
        pytest.param({**ROW, "events": [{**UNTOLD, "result": "Success"}]}, {"is_finished": True}, id="only a result"),
        pytest.param({**ROW, "events": [{**UNTOLD, "result": None}]}, {"is_finished": False}, id="only null"),
        pytest.param({**ROW, "events": [{**UNTOLD, "finish_time": ""}]}, {"is_finished": False}, id="empty finish"),
        *(
            pytest.param({**ROW, "action": name}, {"user_id": "u"}, id=f"reboot that is called {name}")
            for name in ("REBOOT", " Reboot ", "os-reboot", "rebootServer", "batch_reboot", "hard-reboot")
        ),
        pytest.param({**ROW, "action": "os-reboot", "start_time": None}, None, id="reboot of another name, no time"),
        pytest.param({**ROW, "action": "power-cycle", "start_time": None}, None, id="unknown action, no time"),
        pytest.param({**ROW, "user_id": None}, {"user_id": ""}, id="no user"),
        pytest.param({**ROW, "action": None}, None, id="no action"),
        pytest.param({**ROW, "request_id": 7}, None, id="request id that is a number"),
        pytest.param({**ROW, "request_id": "\ud800"}, None, id="request id that is not UTF-8"),
        pytest.param({**ROW, "start_time": None}, None, id="no time"),
        pytest.param({**ROW, "start_time": "today"}, None, id="no time that can be read"),
        pytest.param({**ROW, "start_time": 1418727494}, None, id="time that is a number"),
        pytest.param([], None, id="list"),
        pytest.param(None, None, id="null"),
    ],
)
async def test_a_row_of_the_log_is_read(row: object, action: dict[str, object] | None) -> None:
    """A row tells who, when (in UTC, where no zone is said) and how it ended; one unreadable row spoils the log."""
    log = await saying_json({"instanceActions": [ROW, row]}).actions(ID)
    one = await saying_json({"instanceAction": row}).action(ID, "req-1")
    if action is None:
        unreadable = Answer(200, Fault(body=Body.JSON))
        assert log == unreadable
        assert one == unreadable
        return
    assert isinstance(log, tuple)
    [_, seen] = log
    assert one == (seen,)
    assert (seen.action, seen.request_id, seen.start_time) == ("reboot", "req-1", BEGAN)
    expected = {"is_error": False, "is_finished": None, **action}
    assert {name: getattr(seen, name) for name in expected} == expected


@pytest.mark.asyncio
async def test_the_log_keeps_its_order() -> None:
    """The log is given as the cloud gives it, the newest first; an empty one is a log too."""
    names = ["reboot", "stop", "create"]
    log = await saying_json({"instanceActions": [{**ROW, "action": name} for name in names]}).actions(ID)
    assert isinstance(log, tuple)
    assert [row.action for row in log] == names
    assert await saying_json({"instanceActions": []}).actions(ID) == ()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "body"),
    [
        (b"", Body.EMPTY),
        (b"null", Body.JSON),
        (b"[]", Body.JSON),
        (b"7", Body.JSON),
        (b'"server"', Body.JSON),
        (b"{}", Body.JSON),
        (b'{"server": [], "servers": {}, "instanceActions": {}, "instanceAction": 7}', Body.JSON),
        (b'{"Server": {"id": "s"}}', Body.JSON),
        (b"<html><title>Sign in</title></html>", Body.OTHER),
        (b'{"server": {"id": "s"}', Body.OTHER),
        (b"\xff\xfe\x00", Body.OTHER),
        (b"\x00" * 100, Body.OTHER),
        (b"[" * 100_000, Body.OTHER),
        (b'{"server": ' + b"9" * 5_000 + b"}", Body.JSON),
    ],
)
@each_get
async def test_a_body_of_another_shape_is_an_answer(call: Call, content: bytes, body: Body) -> None:
    """A 200 that does not show what was asked for is the answer that it is, never an error of ours."""
    seen = await call(saying(content))
    assert isinstance(seen, Answer)
    assert (seen.status, seen.fault.body) == (200, body)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [201, 202, 203, 206, 300, 404, 500])
async def test_only_a_200_shows_something(status: int) -> None:
    """What comes with another status than 200 is not taken for what was asked for."""
    document = {"server": SHOWN, "servers": [SHOWN], "instanceActions": [ROW], "instanceAction": ROW}
    compute = saying_json(document, status)
    for call in GETS.values():
        seen = await call(compute)
        assert isinstance(seen, Answer)
        assert seen.status == status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TIME = st.datetimes(timezones=st.none() | st.timezones()).map(lambda moment: moment.isoformat()) | JSON
EVENT = JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(DONE, JSON))
LOG_ROW = JSON | st.fixed_dictionaries(
    {"action": st.text() | JSON, "request_id": st.text() | JSON, "start_time": TIME},
    optional={"user_id": JSON, "message": JSON, "events": st.lists(EVENT, max_size=3) | JSON},
)
SERVER_ROW = JSON | st.fixed_dictionaries({"id": st.text() | JSON}, optional=dict.fromkeys(set(SHOWN) - {"id"}, JSON))
DOCUMENT = JSON | st.fixed_dictionaries(
    {},
    optional={
        "server": SERVER_ROW,
        "servers": st.lists(SERVER_ROW, max_size=3) | JSON,
        "servers_links": st.lists(st.fixed_dictionaries({"rel": JSON}) | JSON, max_size=3) | JSON,
        "instanceActions": st.lists(LOG_ROW, max_size=3) | JSON,
        "instanceAction": LOG_ROW,
    },
)


def take_all(compute: Compute) -> None:
    """Call every method, and check the type of what comes back."""

    async def main() -> None:
        shown = await compute.show(ID)
        assert isinstance(shown, Server | Answer)
        page = await compute.page()
        assert isinstance(page, Page | Answer)
        if isinstance(page, Page):
            assert all(isinstance(server, Server) for server in page.servers)
        for log in (await compute.actions(ID), await compute.action(ID, "req-1")):
            assert isinstance(log, tuple | Answer)
            if isinstance(log, tuple):
                assert all(isinstance(row, Action) and isinstance(row.start_time, float) for row in log)
        assert isinstance(await compute.reboot(ID, SOFT), Answer)

    anyio.run(main)


@settings(deadline=None, max_examples=100)
@given(DOCUMENT)
def test_no_json_is_an_error(document: object) -> None:
    """Whatever JSON the cloud answers with, each method gives what it promises to give, and raises nothing."""
    take_all(saying_json(document))


@settings(deadline=None, max_examples=50)
@given(st.binary(), st.integers(200, 599))
def test_no_bytes_are_an_error(content: bytes, status: int) -> None:
    """Whatever bytes the cloud answers with, with whatever status, nothing is raised."""
    take_all(saying(content, status))


@both_backends
@each_way
@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 202\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 202 Accepted\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_acceptance_in_any_form_is_plain(backend: str, way: str, reply: bytes) -> None:
    """An empty 202 is the same however HTTP ends it; the server closes after each."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await read_request(connection)
            await connection.send(reply)

        async with listening(answer) as address, sender_of(way) as sender:
            compute = compute_of(sender, f"http://{address}")
            assert await compute.reboot(ID, SOFT) == Answer(202)

    anyio.run(main, backend=backend)


# Bodies that do not end well.


@leaves_generators
@both_backends
def test_an_endless_body_ends(backend: str) -> None:
    """A body that never ends is cut at a bound: the answer is what had come by then, and no more is asked for."""

    async def main() -> None:
        sent = itertools.count()

        async def endless() -> AsyncIterator[bytes]:
            while True:
                next(sent)
                await anyio.lowlevel.checkpoint()
                yield b"x" * 65536

        seen = await over(lambda _: httpx.Response(409, content=endless())).reboot(ID, SOFT)
        assert isinstance(seen, Answer)
        assert (seen.status, seen.fault.body) == (409, Body.CUT_SHORT)
        assert next(sent) < 5

    anyio.run(main, backend=backend)


@leaves_generators
@both_backends
@each_way
def test_an_endless_body_over_a_connection_ends(backend: str, way: str) -> None:
    """An endless body of a real connection ends that connection, and the client goes on."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            if len(server.requests) > 1:
                await connection.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                return
            await connection.send(b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await connection.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")

        server = KeepAlive(answer)
        async with listening(server) as address, sender_of(way) as sender:
            compute = compute_of(sender, f"http://{address}")
            first = await compute.reboot(ID, SOFT)
            assert isinstance(first, Answer)
            assert (first.status, first.fault.body) == (409, Body.CUT_SHORT)
            assert await compute.reboot(ID, SOFT) == Answer(202)

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
async def test_a_large_page_is_read_whole() -> None:
    """The bound on a page lets a full page of large servers through."""
    padding = "x" * 8192
    page = await saying_json({"servers": [{**row, "metadata": {"x": padding}} for row in rows(PAGE_LIMIT)]}).page()
    assert isinstance(page, Page)
    assert len(page.servers) == PAGE_LIMIT


@leaves_generators
@both_backends
@each_way
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b'HTTP/1.1 409 Conflict\r\nContent-Length: 100\r\n\r\n{"conflict', id="Content-Length"),
        pytest.param(b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{ab", id="chunked"),
        pytest.param(b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n", id="bad chunk"),
        pytest.param(
            b"HTTP/1.1 409 Conflict\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip", id="bad gzip"
        ),
        pytest.param(
            b"HTTP/1.1 409 Conflict\r\nContent-Encoding: gzip\r\nContent-Length: 500\r\n\r\n"
            + gzip.compress(b"{}" * 99)[:20],
            id="gzip cut short",
        ),
    ],
)
def test_a_body_that_breaks_off_is_an_answer(backend: str, way: str, reply: bytes) -> None:
    """Once the status line is in, the answer is in: a body that breaks off is told as cut short."""

    async def main() -> None:
        async def answer(connection: Connection) -> None:
            await read_request(connection)
            await connection.send(reply)

        async with listening(answer) as address, sender_of(way) as sender:
            seen = await compute_of(sender, f"http://{address}").reboot(ID, SOFT)
        assert isinstance(seen, Answer)
        assert (seen.status, seen.fault.body) == (409, Body.CUT_SHORT)

    anyio.run(main, backend=backend)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error", [OSError("gone"), ValueError("odd"), httpx.ReadError("gone"), anyio.ClosedResourceError()], ids=repr
)
async def test_a_body_that_fails_in_any_way_is_an_answer(error: Exception) -> None:
    """Whatever a lent client's transport raises in the middle of a body, the answer is told as cut short."""

    async def failing() -> AsyncIterator[bytes]:
        yield b'{"conflict'
        raise error

    seen = await over(lambda _: httpx.Response(409, content=failing())).reboot(ID, SOFT)
    assert isinstance(seen, Answer)
    assert (seen.status, seen.fault.body) == (409, Body.CUT_SHORT)


@pytest.mark.asyncio
async def test_a_compressed_body_is_read() -> None:
    """A body that is compressed is read as what it holds."""
    content = gzip.compress(json.dumps({"server": SHOWN}).encode())
    seen = await saying(content, headers={"Content-Encoding": "gzip"}).show(ID)
    assert isinstance(seen, Server)
    assert seen.name == "web-1"


@both_backends
def test_a_dripping_body_ends_at_the_timeout(backend: str) -> None:
    """A body that comes byte by byte, each in time, ends when the time for the whole request is up."""

    async def main() -> None:
        async def drip(connection: Connection) -> None:
            await read_request(connection)
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                await connection.send(b" ")
                await anyio.sleep(0.01)

        async with listening(drip) as address:

            async def show(sender: Sender) -> None:
                # Half of it is for the connection, which a busy machine needs.
                seen = await compute_of(sender, f"http://{address}", timeout=2.0).show(ID)
                assert seen == Unanswered("no answer within 2 s", may_come_late=True)

            await by_each_way(show)

    anyio.run(main, backend=backend)
