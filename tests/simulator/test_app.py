"""The HTTP face, in-process on asyncio and on trio: arrivals, faults on the wire, and lost replies."""

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from functools import partial

import anyio
import anyio.lowlevel
import httpx
import pytest
import trio
import trio.testing
from starlette.types import Message

from bulkrestart.core.model import RebootType
from bulkrestart.simulator import Call, Cloud, Fault, LostReplyError, ManualClock, RequestRecord, asgi
from tests.simulator.asking import SOFT, ask, client_of, post


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Run an async test body on each of the event loops."""
    return partial(anyio.run, backend=request.param)


def test_a_client_that_dies_while_it_asks(cloud: Cloud, run: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
    """What was not asked to its end was not asked at all, and is no error."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def body() -> None:
        path = f"/v2.1/{cloud.project_id}/servers/{cloud.ids[0]}/action"
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        await asgi(cloud)(scope, receive, send)

    run(body)
    assert cloud.requests == []


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
