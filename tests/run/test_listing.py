"""Choosing servers: each that is meant comes once, whatever happens to the list meanwhile, and nothing is guessed."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import Any, Final

import anyio
import httpx
import pytest
import trio

from bulkrestart import AuthError, BulkRestartError, EndpointError, Outcome, RestartClient, Server, Token
from bulkrestart.simulator import Call, Cloud, Fault, LoopbackCloud, asgi, nova_answer
from tests.cloud.scripted import Scripted
from tests.virtual import EPOCH, client_of, cloud_of, virtually

#: Refuses every microversion (nova/api/openstack/wsgi.py `set_api_version_request`).
UNSUPPORTED: Final = Fault(answer=nova_answer(406, "Version 2.60 is not supported by the API."))
UP_TO_2_25: Final = Fault(
    answer=nova_answer(406, "Version 2.60 is not supported by the API. Minimum is 2.1 and maximum is 2.25.")
)
MARKER_GONE: Final = Fault.error(400, "marker [616fb98f-46ca-475e-917e-2563e5a8cd19] not found")


async def ids_of(servers: AsyncIterator[Server]) -> list[str]:
    """Read a list to its end."""
    return [server.id async for server in servers]


def lists(cloud: Cloud) -> int:
    """Count the requests for a page."""
    return sum(record.call is Call.LIST for record in cloud.requests)


@asynccontextmanager
async def client_without(cloud: Cloud, *ignored: str) -> AsyncIterator[RestartClient]:
    """Give a client of a cloud that ignores some filters."""

    async def ignore(request: httpx.Request) -> None:
        for name in ignored:
            request.url = request.url.copy_remove_param(name)

    transport = httpx.ASGITransport(asgi(cloud))
    async with httpx.AsyncClient(transport=transport, event_hooks={"request": [ignore]}) as http:
        yield RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 1000])
def test_pages(size: int) -> None:
    """However many servers come on a page, all come, in the order of the cloud, and a page is read when needed."""

    async def main() -> None:
        cloud = cloud_of(7, max_limit=size)
        async with client_of(cloud) as client:
            servers = client.servers()
            assert cloud.requests == []
            first = await anext(servers)
            assert lists(cloud) == 1
            ids = [first.id, *await ids_of(servers)]
            # An empty page is the end: no gateway on the way has cut the one before short.
            assert lists(cloud) == ceil(7 / size) + 1
            with pytest.raises(StopAsyncIteration):
                await anext(servers)
            assert lists(cloud) == ceil(7 / size) + 1
        page = cloud.page(cloud.project_id, limit=1000)
        assert ids == [server.id for server in page]

    virtually(main)


def _listing(*pages: list[object]) -> Callable[[], Awaitable[list[str]]]:
    """Give a way to list the servers of a cloud that answers with these pages, and then with an empty one."""
    left = list(pages)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"servers": left.pop(0) if left else []})

    async def read() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            return await ids_of(RestartClient("http://cloud.test/v2.1/p", auth=Token("token"), http=http).servers())

    return read


NO_IDS: Final[list[object]] = [{"id": "a/b"}, {"id": 5}, {}, None]


def test_rows_without_an_id_are_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A server whose id cannot be read is not left out in silence, and the list goes on after it."""
    read = _listing([{"id": "a"}, *NO_IDS], [*NO_IDS, {"id": "b"}])

    assert trio.run(read) == ["a", "b"]
    assert [record.message for record in caplog.records] == [
        "8 servers of the list have no readable id: they are left out"
    ]


def test_a_page_without_any_id_is_no_end() -> None:
    """Where no row of a page has an id, the list is not taken for read to its end."""
    with pytest.raises(EndpointError, match="4 servers of the list have no readable id"):
        trio.run(_listing([{"id": "a"}], NO_IDS, [{"id": "b"}]))


def test_a_list_of_ever_new_servers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is longer than any project's does not fill the memory until the time is up."""
    monkeypatch.setattr("bulkrestart.run.listing._MOST_SERVERS", 3)

    assert trio.run(_listing([{"id": "a"}, {"id": "b"}], [{"id": "c"}])) == ["a", "b", "c"]
    with pytest.raises(EndpointError, match="the list has more than 3 servers"):
        trio.run(_listing([{"id": "a"}, {"id": "b"}], [{"id": "c"}, {"id": "d"}]))


def test_what_is_shown() -> None:
    """A server is shown as the cloud shows it."""

    async def main() -> None:
        cloud = cloud_of(1)
        (server_id,) = cloud.ids
        cloud.change(server_id, vm_state="stopped", locked=True, tags=("a", "b"), metadata={"role": "web"})
        async with client_of(cloud) as client:
            assert [server async for server in client.servers()] == [
                Server(
                    id=server_id,
                    name="web-0001",
                    status="SHUTOFF",
                    vm_state="stopped",
                    locked=True,
                    updated=EPOCH,
                    availability_zone="az-1",
                    host_id=cloud.server(server_id).host_id,
                    tags=("a", "b"),
                    metadata={"role": "web"},
                )
            ]

    virtually(main)


@pytest.mark.parametrize("ignored", [(), ("status",), ("tags",), ("status", "tags", "limit")])
@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ({}, {0, 1, 2, 3, 4, 5}),
        ({"status": "shutoff"}, {1, 2}),
        ({"status": ["SHUTOFF", "ERROR"]}, {1, 2, 3}),
        ({"status": "ACTIVE"}, {0, 5}),
        ({"tags": "fix"}, {0, 1, 3}),
        ({"tags": ["fix", "blue"]}, {1}),
        ({"tags": "(fix"}, set()),
        ({"status": "SHUTOFF", "tags": "fix"}, {1}),
        ({"name": "^db"}, {2, 4}),
        ({"az": ["az-1"], "status": ["ACTIVE", "REBOOT", "ERROR"]}, {0, 3}),
        ({"metadata": {"role": "db"}}, {4}),
        ({"name": "nobody"}, set()),
    ],
)
def test_selection(ignored: tuple[str, ...], arguments: dict[str, Any], numbers: set[int]) -> None:
    """Those who are meant come, and nobody else, also where the cloud ignores a filter."""

    async def main() -> None:
        cloud = cloud_of(6, max_limit=4)
        web, off, off_db, broken, rebooting, _ = cloud.ids
        cloud.change(web, tags=("fix",))
        cloud.change(off, vm_state="stopped", tags=("blue", "fix", "more"))
        cloud.change(off_db, vm_state="stopped", name="db-1", tags=("blue",))
        cloud.change(broken, vm_state="error", tags=("fix",))
        cloud.change(rebooting, task_state="rebooting", name="db-2", metadata={"role": "db", "more": "x"})
        async with client_without(cloud, *ignored) as client:
            chosen = await ids_of(client.servers(**arguments))
        assert sorted(chosen) == sorted(cloud.ids[number] for number in numbers)

    virtually(main)


URL: Final = "check the URL"
LATER: Final = "read to its end: .*; give ids, or try again later"
#: What becomes of the request for a page: the answer, and for the first page and for all after it, what is raised, what
#: its words say, and how often the answer comes. After the first page, earlier servers are tried, and the first page.
REFUSALS: Final = [
    pytest.param(Fault.error(401, "no"), AuthError, ("get a new token for this project",) * 2, (3, 9), id="401"),
    pytest.param(
        Fault.error(403, "No."), EndpointError, ("cannot be listed: No.; give their ids",) * 2, (1, 5), id="403"
    ),
    pytest.param(
        Fault.error(405, "No."), EndpointError, ("cannot be listed: No.; give their ids",) * 2, (1, 5), id="405"
    ),
    pytest.param(UNSUPPORTED, EndpointError, ("is not supported",) * 2, (2, 2), id="406"),
    pytest.param(Fault.error(409, "busy"), EndpointError, ("busy; give their ids",) * 2, (1, 1), id="409"),
    pytest.param(Fault.error(500), EndpointError, ("gives no usable answer", LATER), (5, 12), id="500"),
    pytest.param(Fault.respond(503), EndpointError, ("gives no usable answer", LATER), (5, 12), id="503"),
    pytest.param(Fault.no_reply(applied=False), EndpointError, ("does not answer", LATER), (5, 12), id="lost"),
    pytest.param(Fault.slow(1000.0), EndpointError, ("no answer within 60 s", LATER), (5, 12), id="slow"),
    pytest.param(Fault.respond(200, b'{"servers": 5}'), EndpointError, (URL, URL), (3, 7), id="no-list"),
    pytest.param(Fault.respond(200, b"<html>"), EndpointError, (URL, URL), (3, 7), id="html"),
    pytest.param(Fault.respond(302, headers={"location": "/"}), EndpointError, (URL, URL), (3, 7), id="302"),
]


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize(("fault", "error", "words", "counts"), REFUSALS)
def test_refused(
    page: int, fault: Fault, error: type[BulkRestartError], words: Sequence[str], counts: Sequence[int]
) -> None:
    """A list that cannot be read is an error at any page, never a shorter list, and a restart of it sends nothing."""

    async def main() -> None:
        cloud = cloud_of(6, max_limit=4)
        met = [*[None] * (page - 1), *[fault] * counts[page - 1]]
        for _ in range(2):
            cloud.script(None, *met, call=Call.LIST)
        async with client_of(cloud) as client:
            with pytest.raises(error, match=words[page - 1]) as caught:
                await ids_of(client.servers())
            assert "nothing was sent" in str(caught.value)
            assert lists(cloud) == len(met)
            with pytest.raises(error, match=words[page - 1]):
                await client.restart(client.servers())
        assert not cloud.posts
        assert {record.call for record in cloud.requests} == {Call.LIST}

    virtually(main)


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Fault.error(401, "no")], id="401"),
        pytest.param([UNSUPPORTED], id="406"),
        pytest.param([UP_TO_2_25], id="406 up to"),
        pytest.param([Fault.throttled(30.0)] * 8, id="429"),
        pytest.param([Fault.gateway_throttled()] * 3, id="429 of a gateway"),
        pytest.param([Fault.error(500)] * 4, id="500"),
        pytest.param([Fault.no_reply(applied=True), Fault.respond(502), Fault.respond(408)], id="several"),
        pytest.param([Fault.slow(61.0)] * 2, id="slow"),
    ],
)
def test_what_passes(page: int, faults: Sequence[Fault]) -> None:
    """What passes is waited for, at whatever page, and the list is whole."""

    async def main() -> None:
        cloud = cloud_of(6, max_limit=4)
        cloud.script(None, *[None] * (page - 1), *faults, call=Call.LIST)
        async with client_of(cloud) as client:
            assert sorted(await ids_of(client.servers())) == sorted(cloud.ids)

    virtually(main)


@pytest.mark.parametrize("page", [1, 2, 3])
def test_a_token_that_ends_between_two_pages(page: int) -> None:
    """The page is requested again with a new sign-in, and its 401 does not end the list."""

    async def main() -> None:
        cloud = cloud_of(6, max_limit=2)
        auth = Scripted(cloud)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi(cloud))) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=auth, http=http)
            servers = client.servers()
            ids = [(await anext(servers)).id for _ in range(2 * page)]
            auth.revoke()
            ids += await ids_of(servers)
        assert sorted(ids) == sorted(cloud.ids)
        assert len(auth.asked) == 2
        # No page is requested for an earlier server, and none twice but for the sign-in.
        assert lists(cloud) == 6

    virtually(main)


@pytest.mark.parametrize("page", [1, 2])
def test_cut_short(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page whose body breaks off is no page: it is read again."""
    monkeypatch.setattr("bulkrestart.run.preflight._FIRST_CEILING", 0.01)
    cloud = Cloud(6, max_limit=4)
    cut = Fault.cut_short(200, b'{"servers": [{"id": "a"}, {"id": "b"}]}', applied=False)
    cloud.script(None, *[None] * (page - 1), cut, cut, call=Call.LIST)

    async def main(served: LoopbackCloud) -> list[str]:
        async with RestartClient(served.endpoint, auth=Token(cloud.token)) as client:
            return await ids_of(client.servers())

    with LoopbackCloud(cloud) as served:
        assert sorted(asyncio.run(main(served))) == sorted(cloud.ids)


@pytest.mark.parametrize("status", ["NO_SUCH_STATUS", " ACTIVE"])
def test_what_the_cloud_cannot_select_by(status: str) -> None:
    """What the cloud refuses to select by is a bad argument, in the cloud's words."""

    async def main() -> None:
        cloud = cloud_of(3)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match="the cloud cannot select so: Invalid status value"):
                await client.restart(client.servers(status=status))
        assert not cloud.posts

    virtually(main)


@pytest.mark.parametrize(
    ("version", "max_microversion"),
    [("v2", "2.96"), ("v2.1", "2.25"), ("v2.1", "2.1")],
)
def test_tags_that_are_not_shown(version: str, max_microversion: str) -> None:
    """Where tags are not shown, nobody is taken for having none, nor for having them; the rest is as good as ever."""

    async def main() -> None:
        cloud = cloud_of(3, max_microversion=max_microversion)
        cloud.change(cloud.ids[0], tags=("fix",))
        async with client_of(cloud, version=version) as client:
            with pytest.raises(ValueError, match="tags are not shown by this cloud"):
                await ids_of(client.servers(tags="fix"))
            with pytest.raises(ValueError, match="tags are not shown by this cloud"):
                await client.restart(client.servers(tags="fix", status="ACTIVE"))
            assert await ids_of(client.servers(name="0002$")) == [cloud.ids[1]]
        assert not cloud.posts

    virtually(main)


def test_a_microversion_that_is_refused_in_mid_list() -> None:
    """Where an older node behind the same address shows no tags on a later page, the list ends there, loudly."""

    async def main() -> None:
        cloud = cloud_of(6, max_limit=4)
        for server_id in cloud.ids:
            cloud.change(server_id, tags=("fix",))
        cloud.script(None, None, UP_TO_2_25, call=Call.LIST)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match="tags are not shown by this cloud"):
                await client.restart(client.servers(tags="fix"))
        assert not cloud.posts

    virtually(main)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_list_begins_anew(size: int) -> None:
    """Where the server that a page begins after is not found any more, the list begins anew, and nobody comes twice."""

    async def main() -> None:
        cloud = cloud_of(7, max_limit=size)
        async with client_of(cloud) as client:
            servers = client.servers()
            ids = [(await anext(servers)).id for _ in range(size)]
            cloud.delete(ids[-1])
            cloud.script(None, MARKER_GONE, None, None, MARKER_GONE, call=Call.LIST)
            ids += await ids_of(servers)
        assert sorted(ids) == sorted(cloud.ids)

    virtually(main)


@pytest.mark.parametrize(
    ("fault", "count", "words"),
    [
        (Fault.error(404, "Not here"), 1, "Not here; give their ids"),
        # A single page of a gateway proves nothing.
        (Fault.respond(404, b"<html>"), 3, "check the URL"),
    ],
)
def test_no_list(fault: Fault, count: int, words: str) -> None:
    """A 404 for the first page is an error; for a later page, the server that it begins after may be deleted."""

    async def main() -> None:
        cloud = cloud_of(6, max_limit=4)
        cloud.script(None, *[fault] * count, call=Call.LIST)
        async with client_of(cloud) as client:
            with pytest.raises(EndpointError, match=words):
                await ids_of(client.servers())
            cloud.script(None, None, fault, call=Call.LIST)
            assert sorted(await ids_of(client.servers())) == sorted(cloud.ids)

    virtually(main)


def test_a_marker_that_is_never_found() -> None:
    """A list that has to begin anew again and again is given up, in the cloud's words."""

    async def main() -> None:
        cloud = cloud_of(6, max_limit=4)
        # Three of the four servers of the first page are tried.
        cloud.script(None, *(None, *[MARKER_GONE] * 3) * 11, call=Call.LIST)
        async with client_of(cloud) as client:
            with pytest.raises(
                EndpointError, match=r"cannot be read to its end: marker .* not found; give ids; nothing was sent"
            ):
                await client.restart(client.servers())
        assert lists(cloud) == 44
        assert not cloud.posts

    virtually(main)


def test_servers_that_come_and_go_meanwhile() -> None:
    """While servers are built and deleted, those that stay come, and nobody comes twice."""

    async def main() -> None:
        cloud = cloud_of(12, max_limit=2)
        staying, leaving = set(cloud.ids[::2]), cloud.ids[1::2]
        came: list[str] = []
        async with client_of(cloud) as client:
            async for server in client.servers():
                came.append(server.id)
                await anyio.sleep(1.0)
                cloud.add()
                if leaving:
                    cloud.delete(leaving.pop())
        assert len(came) == len(set(came))
        assert staying <= set(came)

    virtually(main)


def page(*names: str, next_of: str | None = None) -> httpx.Response:
    """Make a page of servers."""
    links = [] if next_of is None else [{"rel": "next", "href": f"http://cloud.test/?marker={next_of}"}]
    return httpx.Response(200, json={"servers": [{"id": name} for name in names], "servers_links": links})


@pytest.mark.parametrize(
    ("pages", "ids"),
    [
        pytest.param({None: ("a", "b"), "b": ("b", "c"), "c": ()}, ["a", "b", "c"], id="overlapping"),
        pytest.param({None: ("a", "a", "b"), "b": ()}, ["a", "b"], id="twice on a page"),
        pytest.param({None: ()}, [], id="empty, with a next page"),
        pytest.param({None: ("a", "b"), "b": ("c", "d"), "d": ("a", "b")}, None, id="back to the first"),
        pytest.param({None: ("a", "b"), "b": ("c", "d"), "d": ("e", "d")}, None, id="back to itself"),
    ],
)
@pytest.mark.parametrize("next_of", [None, "whatever"])
def test_pages_that_repeat(
    pages: dict[str | None, tuple[str, ...]], ids: list[str] | None, next_of: str | None
) -> None:
    """No server comes twice, pages need no links, and a list without an end is an error: it may lack some."""

    def answer(request: httpx.Request) -> httpx.Response:
        marker = request.url.params.get("marker")
        return httpx.Response(404) if marker not in pages else page(*pages[marker], next_of=next_of)

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            servers = RestartClient("http://cloud.test/v2.1/p", http=http).servers()
            if ids is None:
                with pytest.raises(EndpointError, match=r"(has no|to its) end: .*; give ids; nothing was sent"):
                    await ids_of(servers)
            else:
                assert await ids_of(servers) == ids

    virtually(main)


def test_a_restart_of_those_who_are_chosen() -> None:
    """The list can be given to a restart as it is: those who are meant are restarted, and nobody else."""

    async def main() -> None:
        cloud = cloud_of(9, max_limit=2)
        meant = cloud.ids[2:5]
        for server_id in meant:
            cloud.change(server_id, tags=("fix",))
        async with client_of(cloud) as client:
            report = await client.restart(client.servers(tags="fix"))
        assert report.summary == {Outcome.COMPLETED: 3}
        assert {result.server_id for result in report} == set(meant)
        assert {server_id for server_id, count in cloud.cycles.items() if count} == set(meant)

    virtually(main)


def test_a_restart_of_nobody() -> None:
    """Where nobody is meant the report is empty, and nothing but the list was asked for."""

    async def main() -> None:
        cloud = cloud_of(3)
        async with client_of(cloud) as client:
            assert len(await client.restart(client.servers(name="nobody"))) == 0
        assert {record.call for record in cloud.requests} == {Call.LIST}

    virtually(main)


def test_max_at_once() -> None:
    """Lists and restarts share the bound on requests, and a list that nobody reads on holds nobody up."""

    async def main() -> None:
        cloud = cloud_of(8, max_limit=2, latency=1.0)
        async with client_of(cloud, max_at_once=2) as client:
            idle = [client.servers() for _ in range(5)]
            for servers in idle:
                await anext(servers)
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(ids_of, client.servers())
                group.start_soon(client.restart, cloud.ids)
        assert cloud.peak_in_flight == 2
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


def in_asyncio(main: Callable[[], Awaitable[None]]) -> None:
    """Run to the end in asyncio."""

    async def awaited() -> None:
        await main()

    asyncio.run(awaited())


@pytest.mark.unmeasured
@pytest.mark.parametrize("run", [in_asyncio, trio.run])
@pytest.mark.parametrize("is_own", [True, False])
def test_leaving_early(run: Callable[[Callable[[], Awaitable[None]]], None], is_own: bool) -> None:
    """A list may be left at any server, or in the middle of a page, and warns of nothing."""
    cloud = Cloud(6, max_limit=2)

    async def leave(client: RestartClient) -> None:
        async for _ in client.servers():
            break
        servers = client.servers()
        for _ in range(3):
            await anext(servers)
        never_read = client.servers()
        assert aiter(never_read) is never_read
        cloud.latency = 60.0
        with anyio.move_on_after(0.05):
            await ids_of(client.servers())
        cloud.latency = 0.0
        assert len(await ids_of(client.servers())) == 6

    async def main() -> None:
        if is_own:
            async with RestartClient(served.endpoint, auth=Token(cloud.token)) as client:
                await leave(client)
        else:
            async with client_of(cloud) as client:
                await leave(client)

    with LoopbackCloud(cloud) as served:
        run(main)
    gc.collect()


def test_what_is_wrong_is_said_at_once() -> None:
    """A selection that makes no sense is refused where it is written, not where the list is read."""
    client = RestartClient("http://cloud.test/v2.1/p", auth=Token("t"))
    with pytest.raises(ValueError, match="name must be a regular expression, not '\\('"):
        client.servers(name="(")


def test_a_closed_client() -> None:
    """A closed client lists nothing."""

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud) as client:
            servers = client.servers()
            await client.aclose()
            with pytest.raises(ValueError, match="the client is closed"):
                await anext(servers)
        assert not cloud.requests

    virtually(main)
