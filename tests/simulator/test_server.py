"""The cloud on loopback: real sockets, real cuts, quick to start and to stop."""

import asyncio
import logging
import socket
import threading
from contextlib import suppress

import httpx
import pytest

from bulkrestart.simulator import Cloud, Fault, LoopbackCloud

SOFT = {"reboot": {"type": "SOFT"}}


def client_of(served: LoopbackCloud) -> httpx.Client:
    """Give a client of a served cloud, with a token."""
    return httpx.Client(base_url=served.endpoint, headers={"x-auth-token": served.cloud.token})


def test_with() -> None:
    """A cloud is served from a thread, on a free port of its own, until its context ends."""
    threads = threading.active_count()
    with LoopbackCloud(Cloud(2)) as one, LoopbackCloud(Cloud(3)) as other:
        assert one.url != other.url
        assert one.url.startswith("http://127.0.0.1:")
        for served, count in ((one, 2), (other, 3)):
            with client_of(served) as client:
                answer = client.get("/servers")
                assert len(answer.json()["servers"]) == count
                assert [name for name in answer.headers if name in ("date", "server")] == ["date"]
    assert one.url == ""
    assert threading.active_count() == threads


def test_port() -> None:
    """A port that is asked for is the one that is served, and one that is taken is refused."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            LoopbackCloud(Cloud(1), port=port).__enter__()
    with LoopbackCloud(Cloud(1), port=port) as served:
        assert served.url == f"http://127.0.0.1:{port}"


@pytest.mark.asyncio
async def test_async_with(caplog: pytest.LogCaptureFixture) -> None:
    """A cloud is served from the running loop; a request that still waits at the end is cut off in silence."""
    caplog.set_level(logging.DEBUG)
    cloud = Cloud(2)
    cloud.script(cloud.ids[0], Fault.slow(3600))
    headers = {"x-auth-token": cloud.token}
    async with httpx.AsyncClient(headers=headers) as client:
        async with LoopbackCloud(cloud) as served:
            assert (await client.get(f"{served.endpoint}/servers")).status_code == 200
            request = asyncio.create_task(client.post(f"{served.endpoint}/servers/{cloud.ids[0]}/action", json=SOFT))
            while not cloud.posts:  # noqa: ASYNC110 - the cloud tells nobody that a request has arrived
                await asyncio.sleep(0)
        with pytest.raises(httpx.TransportError):
            await request
    assert served.url == ""
    assert cloud.server(cloud.ids[0]).task_state is not None
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


@pytest.mark.parametrize("applied", [False, True])
def test_lost_reply_is_a_cut_connection(applied: bool) -> None:
    """A lost reply is a connection that ends with no byte answered."""
    cloud = Cloud(1)
    cloud.script(cloud.ids[0], Fault.no_reply(applied=applied))
    body = b'{"reboot": {"type": "SOFT"}}'
    head = (
        f"POST /v2.1/{cloud.project_id}/servers/{cloud.ids[0]}/action HTTP/1.1\r\n"
        f"Host: cloud\r\nX-Auth-Token: {cloud.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with LoopbackCloud(cloud) as served:
        port = int(served.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head.encode() + body)
            received = b""
            # The end may come as a reset.
            with suppress(ConnectionResetError):
                received = connection.recv(1)
    assert received == b""
    assert len(cloud.server(cloud.ids[0]).log) == (2 if applied else 1)
    assert cloud.in_flight == 0


def test_cut_short() -> None:
    """A reply may be cut in the middle of its body."""
    cloud = Cloud(1)
    cloud.script(cloud.ids[0], Fault.cut_short(202, b"12345678"))
    with LoopbackCloud(cloud) as served, client_of(served) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="received 4 bytes, expected 8"):
            client.post(f"/servers/{cloud.ids[0]}/action", json=SOFT)
        assert client.get("/servers").status_code == 200


def test_connection_is_kept() -> None:
    """Whatever is answered is answered on one connection, which is kept."""
    cloud = Cloud(3)
    cloud.script(cloud.ids[0], Fault.error(503))
    with LoopbackCloud(cloud) as served, client_of(served) as client:
        seen = set()
        for server_id in (*cloud.ids, "nope"):
            answer = client.post(f"/servers/{server_id}/action", json=SOFT)
            seen.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(seen) == 1
