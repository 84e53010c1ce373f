"""The HTTP face, in-process on asyncio and on trio: Nova's paths, headers and words."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import trio
import trio.testing

from bulkrestart.core.model import RebootType
from bulkrestart.simulator import (
    Call,
    Cloud,
    Fault,
    HostFault,
    LogAccess,
    LostReplyError,
    ManualClock,
    RequestRecord,
    Role,
    asgi,
)

Client = httpx.AsyncClient
SOFT = {"reboot": {"type": "SOFT"}}
HARD = {"reboot": {"type": "HARD"}}


@pytest.fixture
def clock() -> ManualClock:
    """A clock at the start of 2030."""
    return ManualClock()


@pytest.fixture
def cloud(clock: ManualClock) -> Cloud:
    """Five servers whose reboots take exactly ten seconds."""
    return Cloud(5, clock=clock, reboot_seconds=(10, 10))


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Run an async test body on each of the event loops."""
    return partial(anyio.run, backend=request.param)


@asynccontextmanager
async def client_of(cloud: Cloud, *, api: str = "v2.1", microversion: str | None = "2.60") -> AsyncIterator[Client]:
    """Give a client of the cloud's project, with a token."""
    headers = {"x-auth-token": cloud.token}
    if microversion:
        headers["openstack-api-version"] = f"compute {microversion}"
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(asgi(cloud, lost=httpx.ReadError)),
        base_url=f"http://cloud.test/{api}/{cloud.project_id}",
        headers=headers,
    ) as client:
        yield client


def ask(cloud: Cloud, method: str, path: str, **options: Any) -> httpx.Response:
    """Send one request of a client of its own, on asyncio."""
    api, microversion = options.pop("api", "v2.1"), options.pop("microversion", "2.60")

    async def send() -> httpx.Response:
        async with client_of(cloud, api=api, microversion=microversion) as client:
            return await client.request(method, path, **options)

    return anyio.run(send)


def post(cloud: Cloud, server_id: str, body: object = SOFT, **options: Any) -> httpx.Response:
    """Send an action."""
    return ask(cloud, "POST", f"/servers/{server_id}/action", json=body, **options)


def states(cloud: Cloud, server_id: str) -> tuple[str, str | None]:
    """Ask for the status and task_state of a server."""
    server = ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    return server["status"], server["OS-EXT-STS:task_state"]


def test_one_restart(cloud: Cloud, clock: ManualClock, run: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
    """A reboot is accepted without a body, shows at once, and ends with its own row of the log; on both loops."""

    async def body() -> None:
        async with client_of(cloud) as client:
            server_id = cloud.ids[0]
            accepted = await client.post(f"/servers/{server_id}/action", json=SOFT)
            assert (accepted.status_code, accepted.content) == (202, b"")
            assert accepted.headers["content-type"] == "application/json"
            shown = (await client.get(f"/servers/{server_id}")).json()["server"]
            assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("REBOOT", "rebooting")
            clock.advance(10)
            shown = (await client.get(f"/servers/{server_id}")).json()["server"]
            assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
            request_id = accepted.headers["x-openstack-request-id"]
            assert accepted.headers["x-compute-request-id"] == request_id
            log = (await client.get(f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"]
            assert [row["action"] for row in log] == ["reboot", "create"]
            assert log[0]["request_id"] == request_id
            row = await client.get(f"/servers/{server_id}/os-instance-actions/{request_id}")
            assert row.json()["instanceAction"] == {
                "action": "reboot",
                "instance_uuid": server_id,
                "request_id": request_id,
                "user_id": cloud.user_id,
                "project_id": cloud.project_id,
                "start_time": "2030-01-01T00:00:00.000000",
                "message": None,
                "updated_at": "2030-01-01T00:00:10.000000",
                "events": [
                    {
                        "event": "compute_reboot_instance",
                        "start_time": "2030-01-01T00:00:01.000000",
                        "finish_time": "2030-01-01T00:00:10.000000",
                        "result": "Success",
                    }
                ],
            }

    run(body)
    assert cloud.cycles[cloud.ids[0]] == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"reboot', "Malformed request body"),
        (b"", "Malformed request body"),
        (b"[]", "Malformed request body"),
        (b"{}", "Malformed request body"),
        (b'{"reboot": {"type": "SOFT"}, "os-stop": null}', "Malformed request body"),
        (b'{"nope": null}', "There is no such action: nope"),
        (
            b'{"reboot": null}',
            "Invalid input for field/attribute reboot. Value: None. None is not of type 'object'",
        ),
        (
            b'{"reboot": {}}',
            "Invalid input for field/attribute reboot. Value: {}. 'type' is a required property",
        ),
        (
            b'{"reboot": {"type": "soft", "x": 1}}',
            "Invalid input for field/attribute reboot. Value: {'type': 'soft', 'x': 1}. "
            "Additional properties are not allowed ('x' was unexpected)",
        ),
        (
            b'{"reboot": {"type": null}}',
            "Invalid input for field/attribute type. Value: None. None is not of type 'string'",
        ),
        (
            b'{"reboot": {"type": "WARM"}}',
            "Invalid input for field/attribute type. Value: WARM. "
            "'WARM' is not one of ['HARD', 'Hard', 'hard', 'SOFT', 'Soft', 'soft']",
        ),
    ],
)
@pytest.mark.parametrize("api", ["v2.1", "v2"])
def test_bad_body(cloud: Cloud, api: str, body: bytes, message: str) -> None:
    """A body that is no action is refused in Nova's words, before the server is looked for."""
    answer = ask(cloud, "POST", "/servers/nope/action", content=body, api=api)
    assert answer.status_code == 400
    assert answer.json() == {"badRequest": {"code": 400, "message": message}}


@pytest.mark.parametrize("word", ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"])
def test_reboot_types(cloud: Cloud, word: str) -> None:
    """A type is taken in three ways of writing it."""
    assert post(cloud, cloud.ids[0], {"reboot": {"type": word}}).status_code == 202
    assert states(cloud, cloud.ids[0])[0] == ("HARD_REBOOT" if word.upper() == "HARD" else "REBOOT")


@pytest.mark.parametrize("which", ["malformed", "unknown", "upper case", "another project's", "deleted"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/action"), ("GET", ""), ("DELETE", ""), ("GET", "/os-instance-actions")],
)
def test_not_found(cloud: Cloud, which: str, method: str, path: str) -> None:
    """A server that the token cannot see is Nova's own 404; only the log of a deleted one can still be read."""
    server_id = {
        "malformed": "xyz",
        "unknown": "7b0c1a4e-2c5f-4a0e-9a51-000000000000",
        "upper case": cloud.ids[0].upper(),
        "another project's": cloud.add(project_id="f" * 32).id,
        "deleted": cloud.ids[1],
    }[which]
    cloud.delete(cloud.ids[1])
    answer = ask(cloud, method, f"/servers/{server_id}{path}", json=SOFT if method == "POST" else None)
    if which == "deleted" and path == "/os-instance-actions":
        assert answer.status_code == 200
        answer = ask(cloud, method, f"/servers/{server_id}{path}", microversion="2.20")
    assert answer.status_code == 404
    assert answer.json() == {"itemNotFound": {"code": 404, "message": f"Instance {server_id} could not be found."}}


def test_conflict(cloud: Cloud) -> None:
    """A refused reboot is 409 conflictingRequest, with Nova's message."""
    server_id = cloud.ids[0]
    post(cloud, server_id)
    answer = post(cloud, server_id)
    assert answer.status_code == 409
    assert answer.json() == {
        "conflictingRequest": {
            "code": 409,
            "message": f"Cannot 'reboot' instance {server_id} while it is in task_state rebooting",
        }
    }


def test_race_of_queens(clock: ManualClock) -> None:
    """A save that fails is a 500 that names the exception, and leaves no row."""
    cloud = Cloud(1, clock=clock, legacy_host=True)
    cloud.change(cloud.ids[0], task_state="pausing")
    answer = post(cloud, cloud.ids[0], HARD)
    assert answer.status_code == 500
    assert "<class 'nova.exception.UnexpectedTaskStateError'>" in answer.json()["computeFault"]["message"]
    assert [row.action for row in cloud.server(cloud.ids[0]).log] == ["create"]


def test_lock_and_power(cloud: Cloud, clock: ManualClock) -> None:
    """Lock, unlock, stop, start and delete do what they say."""
    server_id = cloud.ids[0]
    assert post(cloud, server_id, {"lock": None}).status_code == 202
    assert post(cloud, server_id).json()["conflictingRequest"]["message"] == f"Instance {server_id} is locked"
    assert post(cloud, server_id, {"unlock": None}).status_code == 202
    assert post(cloud, server_id, {"os-stop": None}).status_code == 202
    clock.advance(10)
    assert states(cloud, server_id) == ("SHUTOFF", None)
    assert post(cloud, server_id, {"os-start": None}).status_code == 202
    clock.advance(10)
    assert states(cloud, server_id) == ("ACTIVE", None)
    assert ask(cloud, "DELETE", f"/servers/{server_id}").status_code == 204
    assert cloud.server(server_id).is_deleted
    assert {request.call for request in cloud.requests} == {Call.ACTION, Call.REBOOT, Call.SHOW}


def test_roles(cloud: Cloud) -> None:
    """A reader is forbidden to act, an admin passes locks, and a revoked token is worth nothing."""
    cloud.add_token("reader", role=Role.READER)
    cloud.add_token("admin", user_id="root", role=Role.ADMIN)
    locked = cloud.change(cloud.ids[0], locked=True).id
    reader, admin = {"x-auth-token": "reader"}, {"x-auth-token": "admin"}
    assert ask(cloud, "GET", f"/servers/{locked}", headers=reader).status_code == 200
    answer = post(cloud, locked, headers=reader)
    assert answer.status_code == 403
    assert answer.json()["forbidden"]["message"] == (
        "Policy doesn't allow os_compute_api:servers:reboot to be performed."
    )
    assert ask(cloud, "DELETE", f"/servers/{locked}", headers=reader).status_code == 403
    assert post(cloud, locked, headers=admin).status_code == 202
    assert cloud.server(locked).log[-1].user_id == "root"
    del cloud.tokens["admin"]
    assert ask(cloud, "GET", f"/servers/{locked}", headers=admin).status_code == 401


@pytest.mark.parametrize("path", ["/servers", "/servers/x/action", "/nowhere"])
def test_unauthorized(cloud: Cloud, path: str) -> None:
    """Without a token that counts, Keystone's middleware answers whatever is asked."""
    answer = ask(cloud, "GET", path, headers={"x-auth-token": "old"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Keystone uri="http')
    message = "The request you have made requires authentication."
    assert answer.json() == {"error": {"code": 401, "title": "Unauthorized", "message": message}}
    assert "openstack-api-version" not in answer.headers


def test_wrong_project(cloud: Cloud) -> None:
    """A URL of another project than the token's is malformed; one without a project is not."""
    answer = ask(cloud, "GET", "http://cloud.test/v2.1/abcdef/servers")
    assert answer.status_code == 400
    assert answer.json()["badRequest"]["message"] == (
        f"Malformed request URL: URL's project_id 'abcdef' doesn't match Context's project_id '{cloud.project_id}'"
    )
    answer = ask(cloud, "GET", "http://cloud.test/v2.1/servers?limit=1")
    assert len(answer.json()["servers"]) == 1
    assert answer.json()["servers_links"][0]["href"].startswith("http://cloud.test/v2.1/servers?limit=1&marker=")


@pytest.mark.parametrize(
    ("accept", "content_type", "text"),
    [
        ("*/*", "text/html; charset=UTF-8", "<title>404 Not Found</title>"),
        ("application/json", "application/json", '"code": "404 Not Found"'),
        ("image/png", "text/plain; charset=UTF-8", "404 Not Found\n\nThe resource could not be found."),
    ],
)
@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/nowhere"),
        ("GET", "/servers/x/action"),
        ("PUT", "/servers/x/action"),
        ("POST", "/servers/x/os-instance-actions"),
        ("GET", "/servers/"),
        ("GET", "http://cloud.test/v2.1/not-hexadecimal/servers"),
    ],
)
def test_no_such_path(cloud: Cloud, method: str, url: str, accept: str, content_type: str, text: str) -> None:
    """A path or method that leads nowhere is webob's 404, in the form that is asked for; never 405."""
    answer = ask(cloud, method, url, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (404, content_type)
    assert text in answer.text


@pytest.mark.parametrize(
    ("path", "status", "ids"),
    [("/", 200, ["v2.0", "v2.1"]), ("/v2", 200, "v2.0"), ("/v2.1/", 200, "v2.1"), ("/v2.1", 200, "v2.1")],
)
def test_version_documents(cloud: Cloud, path: str, status: int, ids: object) -> None:
    """The versions are told without a token."""
    answer = ask(cloud, "GET", f"http://cloud.test{path}", headers={"x-auth-token": ""})
    assert answer.status_code == status
    document = answer.json()
    assert ids == ([one["id"] for one in document["versions"]] if path == "/" else document["version"]["id"])


@pytest.mark.parametrize("path", ["/v3", "/v3/abc/servers", "/nowhere"])
def test_multiple_choices(cloud: Cloud, path: str) -> None:
    """A version that is none is answered with a choice of those that are."""
    answer = ask(cloud, "GET", f"http://cloud.test{path}")
    assert answer.status_code == 300
    assert [choice["id"] for choice in answer.json()["choices"]] == ["v2.0", "v2.1"]


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({}, "2.1"),
        ({"openstack-api-version": "compute 2.60"}, "2.60"),
        ({"openstack-api-version": "volume 3.1, compute 2.9"}, "2.9"),
        ({"openstack-api-version": "volume 3.1"}, "2.1"),
        ({"x-openstack-nova-api-version": "2.60"}, "2.60"),
        ({"x-openstack-nova-api-version": "2.60", "openstack-api-version": "compute 2.9"}, "2.9"),
        ({"x-openstack-nova-api-version": "latest"}, "2.96"),
    ],
)
def test_microversion(cloud: Cloud, headers: dict[str, str], seen: str) -> None:
    """Either header asks for a microversion on /v2.1; the newer header counts; none is 2.1."""
    answer = ask(cloud, "GET", "/servers", headers=headers, microversion=None)
    assert answer.status_code == 200
    assert answer.headers["openstack-api-version"] == f"compute {seen}"
    assert answer.headers["x-openstack-nova-api-version"] == seen


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        (
            "2.200",
            406,
            {
                "computeFault": {
                    "code": 406,
                    "message": "Version 2.200 is not supported by the API. Minimum is 2.1 and maximum is 2.96.",
                }
            },
        ),
        (
            "1.0",
            406,
            {
                "computeFault": {
                    "code": 406,
                    "message": "Version 1.0 is not supported by the API. Minimum is 2.1 and maximum is 2.96.",
                }
            },
        ),
        (
            "x",
            400,
            {
                "badRequest": {
                    "code": 400,
                    "message": "API Version String x is of invalid format. Must be of format MajorNum.MinorNum.",
                }
            },
        ),
    ],
)
def test_bad_microversion(cloud: Cloud, wanted: str, status: int, body: object) -> None:
    """A microversion that is not there is refused on /v2.1, and not looked at on /v2."""
    answer = ask(cloud, "GET", "/servers", microversion=wanted)
    assert (answer.status_code, answer.json()) == (status, body)
    on_v2 = ask(cloud, "GET", "/servers", microversion=wanted, api="v2")
    assert on_v2.status_code == 200
    assert "openstack-api-version" not in on_v2.headers


def test_what_microversions_show(cloud: Cloud, clock: ManualClock) -> None:
    """Members see `locked` from 2.9, events from 2.51, `updated_at` from 2.58, hosts of events from 2.62."""
    server_id = cloud.ids[0]
    request_id = post(cloud, server_id).headers["x-openstack-request-id"]

    def keys(microversion: str, *, api: str = "v2.1") -> tuple[set[str], set[str], set[str]]:
        shown = ask(cloud, "GET", f"/servers/{server_id}", microversion=microversion, api=api).json()["server"]
        path = f"/servers/{server_id}/os-instance-actions/{request_id}"
        row = ask(cloud, "GET", path, microversion=microversion, api=api).json()["instanceAction"]
        return set(shown), set(row), set(row["events"][0]) if row.get("events") else set()

    assert (
        ask(cloud, "GET", f"/servers/{server_id}/os-instance-actions/{request_id}").json()["instanceAction"]["events"]
        == []
    )
    clock.advance(10)
    oldest = keys("2.1")
    assert oldest == keys("2.60", api="v2")
    assert not {"locked", "description", "tags"} & oldest[0]
    assert keys("2.8")[0] == oldest[0]
    assert keys("2.9")[0] == oldest[0] | {"locked"}
    assert keys("2.26")[0] == oldest[0] | {"locked", "description", "tags"}
    assert keys("2.96")[0] == keys("2.26")[0] | {
        "trusted_image_certificates",
        "server_groups",
        "locked_reason",
        "OS-EXT-SRV-ATTR:hostname",
        "pinned_availability_zone",
    }
    assert keys("2.50")[1] == oldest[1]
    assert keys("2.51")[1:] == (oldest[1] | {"events"}, {"event", "start_time", "finish_time", "result"})
    assert keys("2.58")[1] == oldest[1] | {"events", "updated_at"}
    assert keys("2.62")[2] == {"event", "start_time", "finish_time", "result", "hostId"}


def test_server_as_shown(cloud: Cloud, clock: ManualClock) -> None:
    """A fault shows in ERROR only, and progress where Nova shows it."""
    server_id = cloud.ids[0]
    cloud.break_host(server_id, HostFault.DEAD)
    post(cloud, server_id)
    assert "progress" not in ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    clock.advance(10)
    broken = ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    assert broken["fault"] == {
        "code": 500,
        "created": "2030-01-01T00:00:10Z",
        "message": "Failed to reboot instance: the driver has failed",
    }
    post(cloud, server_id, HARD)
    clock.advance(10)
    well = ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    assert "fault" not in well
    assert well["progress"] == 0
    assert (well["updated"], well["OS-SRV-USG:terminated_at"]) == ("2030-01-01T00:00:20Z", None)
    assert well["links"][0]["href"] == f"http://cloud.test/v2.1/{cloud.project_id}/servers/{server_id}"
    assert well["links"][1]["href"] == f"http://cloud.test/{cloud.project_id}/servers/{server_id}"


@pytest.mark.parametrize("path", ["/servers", "/servers/detail"])
def test_pages(cloud: Cloud, path: str) -> None:
    """Pages are joined by links to the next, which a full page always has, even the last."""
    cloud.max_limit = 2
    url, seen, pages = f"{path}?status=ACTIVE&foo=bar", list[str](), 0
    while url:
        document = ask(cloud, "GET", url).json()
        seen += [server["id"] for server in document["servers"]]
        url = document["servers_links"][0]["href"] if "servers_links" in document else ""
        assert not url or "status=ACTIVE&foo=bar&marker=" in url
        pages += 1
    assert (sorted(seen), pages) == (sorted(cloud.ids), 3)
    full = ask(cloud, "GET", f"{path}?limit=1&marker={seen[3]}").json()
    assert (full["servers"][0]["id"], "servers_links" in full) == (seen[4], True)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("limit=-1", 400, "Invalid input for query parameters limit. Value: -1. '-1' does not match '^[0-9]*$'"),
        ("limit=abc", 400, "Invalid input for query parameters limit. Value: abc. 'abc' does not match '^[0-9]*$'"),
        ("marker=x", 400, "marker [x] not found"),
        (
            "changes-since=xx",
            400,
            "Invalid input for query parameters changes-since. Value: xx. 'xx' is not a 'date-time'",
        ),
        ("status=BANANA", 400, "Invalid status value"),
        ("status=DELETED", 403, "Only administrators may list deleted instances"),
    ],
)
def test_bad_query(cloud: Cloud, query: str, status: int, message: str) -> None:
    """A query that cannot be answered is refused in Nova's words."""
    answer = ask(cloud, "GET", f"/servers?{query}")
    assert answer.status_code == status
    [fault] = answer.json().values()
    assert fault == {"code": status, "message": message}


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("limit=0", 0),
        ("limit=1&limit=2", 2),
        ("limit=", 5),
        ("marker=", 5),
        ("uuid=x&task_state=rebooting", 5),
        ("status=BANANA&status=active", 5),
        ("status=REBOOT", 0),
        ("changes-since=2030-01-01T00:00:00Z", 0),
        ("changes-since=2029-01-01", 5),
        ("changes-since=2029-12-31T00:00:00%2B01:00", 5),
    ],
)
def test_queries(cloud: Cloud, query: str, count: int) -> None:
    """Unknown filters and statuses are ignored, the last limit counts, a time without a zone is UTC."""
    assert len(ask(cloud, "GET", f"/servers?{query}").json()["servers"]) == count


def test_unknown_status_before_2_38(cloud: Cloud) -> None:
    """Before 2.38 a status that is none finds nothing."""
    assert ask(cloud, "GET", "/servers?status=BANANA", microversion="2.37").json() == {"servers": []}


def test_deleted_in_changes(cloud: Cloud, clock: ManualClock) -> None:
    """A list of changes shows a deleted server, with the time of its end."""
    clock.advance(5)
    cloud.delete(cloud.ids[0])
    [server] = ask(cloud, "GET", "/servers/detail?changes-since=2030-01-01T00:00:05Z").json()["servers"]
    assert (server["id"], server["status"]) == (cloud.ids[0], "DELETED")
    assert server["OS-SRV-USG:terminated_at"] == "2030-01-01T00:00:05.000000"


def test_log_pages(cloud: Cloud, clock: ManualClock) -> None:
    """From 2.58 on the log has pages and changes; before, such a query is ignored."""
    server_id = cloud.ids[0]
    post(cloud, server_id)
    clock.advance(20)
    post(cloud, server_id)
    path = f"/servers/{server_id}/os-instance-actions"
    first = ask(cloud, "GET", f"{path}?limit=2").json()
    assert [row["action"] for row in first["instanceActions"]] == ["reboot", "reboot"]
    last = ask(cloud, "GET", first["links"][0]["href"]).json()
    assert [row["action"] for row in last["instanceActions"]] == ["create"]
    assert "links" not in last
    changed = ask(cloud, "GET", f"{path}?changes-since=2030-01-01T00:00:15Z").json()["instanceActions"]
    assert len(changed) == 1
    assert len(ask(cloud, "GET", f"{path}?limit=1", microversion="2.57").json()["instanceActions"]) == 3
    bad = ask(cloud, "GET", f"{path}?marker=x")
    assert bad.json() == {"badRequest": {"code": 400, "message": "Marker None could not be found."}}
    foreign = ask(cloud, "GET", f"{path}?foo=1&limit=1")
    assert foreign.json() == {
        "badRequest": {"code": 400, "message": "Additional properties are not allowed ('foo' was unexpected)"}
    }
    missing = ask(cloud, "GET", f"{path}/req-x")
    assert missing.json() == {"itemNotFound": {"code": 404, "message": "Action req-x not found"}}


@pytest.mark.parametrize(
    ("access", "status", "text"),
    [
        (LogAccess.FORBIDDEN, 403, "Policy doesn't allow os_compute_api:os-instance-actions:list"),
        (LogAccess.MISSING, 404, "APIGW.0101"),
        (LogAccess.EMPTY, 200, '{"instanceActions": []}'),
    ],
)
def test_unreadable_log(cloud: Cloud, access: LogAccess, status: int, text: str) -> None:
    """A cloud may withhold its logs: by policy, by a gateway, or by showing nothing."""
    cloud.log_access = access
    answer = ask(cloud, "GET", f"/servers/{cloud.ids[0]}/os-instance-actions")
    assert answer.status_code == status
    assert text in answer.text


@pytest.mark.parametrize(("resolution", "written"), [(1.0, "00.000000"), (0.0, "00.750000")])
def test_log_times(clock: ManualClock, resolution: float, written: str) -> None:
    """The log's times are cut off to the seconds that its database keeps."""
    cloud = Cloud(1, clock=clock, log_resolution=resolution)
    clock.advance(0.75)
    post(cloud, cloud.ids[0])
    rows = ask(cloud, "GET", f"/servers/{cloud.ids[0]}/os-instance-actions").json()["instanceActions"]
    assert rows[0]["start_time"] == f"2030-01-01T00:00:{written}"


def test_date(cloud: Cloud, clock: ManualClock) -> None:
    """The Date header is the cloud's own, and may be ahead of the clock of its log."""
    answer = ask(cloud, "GET", "/servers")
    assert parsedate_to_datetime(answer.headers["date"]).timestamp() == clock()
    cloud.date_skew = -30
    answer = ask(cloud, "GET", "/servers")
    assert parsedate_to_datetime(answer.headers["date"]).timestamp() == clock() - 30


@pytest.mark.parametrize(
    ("fault", "status", "applied", "has_request_id"),
    [
        (Fault.respond(418, b"tea", {"content-type": "x/y"}), 418, False, False),
        (Fault.respond(504, b"<html>", applied=True), 504, True, False),
        (Fault.error(500), 500, False, True),
        (Fault.error(500, applied=True), 500, True, True),
        (Fault.throttled(), 429, False, True),
        (Fault.gateway_throttled(), 429, False, False),
        (Fault.flow_limited(), 202, False, False),
        (Fault.commands_executing(), 501, False, False),
        (Fault.busy(5), 409, False, True),
    ],
)
def test_answered_faults(cloud: Cloud, fault: Fault, status: int, applied: bool, has_request_id: bool) -> None:
    """A fault's answer takes the place of the cloud's, the request is carried out or not, and the next one is well."""
    server_id = cloud.ids[0]
    cloud.script(server_id, fault)
    answer = post(cloud, server_id)
    assert answer.status_code == status
    assert ("x-openstack-request-id" in answer.headers) is has_request_id
    assert (cloud.server(server_id).task_state == "rebooting") is applied
    if applied and has_request_id:
        assert cloud.server(server_id).log[-1].request_id == answer.headers["x-openstack-request-id"]
    assert post(cloud, cloud.ids[1]).status_code == 202
    assert cloud.requests[0] == RequestRecord(cloud.now, Call.REBOOT, server_id, status)


def test_busy_passes(cloud: Cloud, clock: ManualClock) -> None:
    """A busy server is in its task for as long as told, and then takes the request."""
    server_id = cloud.ids[0]
    cloud.script(server_id, Fault.busy(5, "image_uploading"))
    assert "task_state image_uploading" in post(cloud, server_id).text
    clock.advance(4)
    assert post(cloud, server_id).status_code == 409
    clock.advance(1)
    assert post(cloud, server_id).status_code == 202


@pytest.mark.parametrize("fault", [Fault.busy(5), Fault.race()])
def test_interference_where_there_is_no_server(cloud: Cloud, fault: Fault) -> None:
    """A fault that would touch a server is met all the same where there is none."""
    cloud.script("nope", fault)
    assert post(cloud, "nope").status_code in (404, 500)


def test_busy_leaves_a_running_task_alone(cloud: Cloud) -> None:
    """A passing task does not take a server that another task has."""
    server_id = cloud.ids[0]
    cloud.reboot(server_id, RebootType.SOFT)
    cloud.script(server_id, Fault.busy(5))
    assert "task_state rebooting" in post(cloud, server_id).text


def test_race(cloud: Cloud, clock: ManualClock) -> None:
    """The loser of a race gets a 500 whose request id the log does not hold: only the other's reboot is there."""
    server_id = cloud.ids[0]
    cloud.script(server_id, Fault.race())
    answer = post(cloud, server_id)
    assert answer.status_code == 500
    rows = ask(cloud, "GET", f"/servers/{server_id}/os-instance-actions").json()["instanceActions"]
    assert [(row["action"], row["user_id"]) for row in rows][:1] == [("reboot", "another-user")]
    assert answer.headers["x-openstack-request-id"] not in [row["request_id"] for row in rows]
    clock.advance(10)
    assert cloud.cycles[server_id] == 1


@pytest.mark.parametrize(
    ("fault", "applied"),
    [
        (Fault.no_reply(applied=True), True),
        (Fault.no_reply(applied=False), False),
        (Fault.cut_short(), True),
        (Fault.cut_short(500, b'{"computeFault"', applied=False), False),
    ],
)
def test_lost_replies(
    cloud: Cloud, run: Callable[[Callable[[], Awaitable[None]]], None], fault: Fault, applied: bool
) -> None:
    """In-process a lost reply is the exception that was asked for, raised in the client; on both loops."""
    server_id = cloud.ids[0]
    cloud.script(server_id, fault)

    async def body() -> None:
        async with client_of(cloud) as client:
            with pytest.raises(httpx.ReadError, match="connection was cut"):
                await client.post(f"/servers/{server_id}/action", json=SOFT)

    run(body)
    assert (cloud.server(server_id).task_state == "rebooting") is applied
    assert (cloud.in_flight, cloud.posts[server_id]) == (0, 1)


def test_lost_reply_by_default(cloud: Cloud) -> None:
    """Unless told otherwise a lost reply is an exception of the simulator's own."""
    cloud.outage = Fault.no_reply(applied=False)

    async def body() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi(cloud))) as client:
            with pytest.raises(LostReplyError):
                await client.get("http://cloud.test/")

    anyio.run(body)
    assert [(request.call, request.status) for request in cloud.requests] == [(Call.OTHER, None)]


def test_late(cloud: Cloud, clock: ManualClock) -> None:
    """A late request is carried out after its reply was lost, once."""
    server_id = cloud.ids[0]
    cloud.script(server_id, Fault.late(5))
    with pytest.raises(httpx.ReadError):
        post(cloud, server_id)
    assert cloud.server(server_id).task_state is None
    clock.advance(5)
    assert cloud.server(server_id).task_state == "rebooting"
    clock.advance(60)
    assert cloud.cycles[server_id] == 1


def test_faults_of_other_calls(cloud: Cloud) -> None:
    """Shows, logs, rows and lists meet faults of their own; an outage meets everything."""
    server_id = cloud.ids[0]
    paths = {
        Call.SHOW: f"/servers/{server_id}",
        Call.LOG: f"/servers/{server_id}/os-instance-actions",
        Call.LOG_ROW: f"/servers/{server_id}/os-instance-actions/x",
        Call.LIST: "/servers/detail",
    }
    for call in paths:
        cloud.script(None if call is Call.LIST else server_id, Fault.error(502), None, call=call)
    assert [ask(cloud, "GET", path).status_code for path in paths.values()] == [502] * 4
    assert [ask(cloud, "GET", path).status_code for path in paths.values()] == [200, 200, 404, 200]
    cloud.outage = Fault.error(503)
    assert {ask(cloud, "GET", path).status_code for path in (*paths.values(), "/", "/nowhere")} == {503}


@pytest.mark.parametrize(
    "fault", [Fault.slow(7), Fault(applied_after=7.0), Fault(applied_after=3.0, answered_after=7.0)]
)
def test_waiting_under_a_virtual_clock(fault: Fault) -> None:
    """Under trio's mock clock, with the cloud's clock taken from it, a slow answer takes no time and comes once."""

    async def body() -> None:
        cloud = Cloud(1, clock=lambda: 1_893_456_000 + trio.current_time(), reboot_seconds=(10, 10))
        cloud.script(cloud.ids[0], fault)
        began = trio.current_time()
        async with client_of(cloud) as client:
            answer = await client.post(f"/servers/{cloud.ids[0]}/action", json=SOFT)
        assert answer.status_code == 202
        assert trio.current_time() - began == pytest.approx(7)
        await trio.sleep(20)
        assert cloud.cycles[cloud.ids[0]] == 1
        assert [row.action for row in cloud.server(cloud.ids[0]).log] == ["create", "reboot"]

    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))


def test_client_gone_meanwhile(cloud: Cloud, clock: ManualClock) -> None:
    """A request whose client has gone away is carried out all the same, and is no longer in flight."""
    server_id = cloud.ids[0]
    cloud.script(server_id, Fault(applied_after=5.0))

    async def body() -> None:
        async with client_of(cloud) as client:
            request = asyncio.create_task(client.post(f"/servers/{server_id}/action", json=SOFT))
            while not cloud.in_flight:
                await anyio.lowlevel.checkpoint()
            request.cancel()
            await asyncio.wait([request])

    asyncio.run(body())
    assert cloud.in_flight == 0
    clock.advance(5)
    assert cloud.server(server_id).task_state == "rebooting"


def test_latency_and_requests_in_flight() -> None:
    """Every answer takes the cloud's latency, and the most requests at once is what a client had going."""

    async def body() -> None:
        cloud = Cloud(5, clock=lambda: 1_893_456_000 + trio.current_time(), latency=0.5)
        began = trio.current_time()
        async with client_of(cloud) as client, trio.open_nursery() as nursery:
            for server_id in cloud.ids:
                nursery.start_soon(partial(client.post, f"/servers/{server_id}/action", json=SOFT))
            nursery.start_soon(client.get, "/servers")
        assert trio.current_time() == pytest.approx(began + 0.5)
        assert (cloud.peak_posts_in_flight, cloud.peak_in_flight) == (5, 6)
        assert (cloud.posts_in_flight, cloud.in_flight) == (0, 0)

    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))
