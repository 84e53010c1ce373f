"""A compute API on loopback that costs as little as it can, in a process of its own: no rules, no faults, no state.

It answers what a restart asks, in HTTP and with the headers that Nova sends: every reboot is accepted, and every
server is back at once.
"""

import asyncio
import multiprocessing
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import lru_cache
from itertools import count
from multiprocessing.connection import Connection
from typing import Final
from urllib.parse import parse_qs
from uuid import UUID

from benchmarks.apart import raise_descriptors

#: Servers on a page: Nova's default `max_limit`.
PAGE: Final = 1_000

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REQUEST_ID: Final = "req-%08x-0000-4000-8000-000000000000"
_ANSWER: Final = (
    "HTTP/1.1 %s\r\nDate: %s\r\nServer: Apache\r\nContent-Length: %d\r\nContent-Type: application/json\r\n"
    "OpenStack-API-Version: compute 2.1\r\nX-OpenStack-Nova-API-Version: 2.1\r\n"
    "Vary: OpenStack-API-Version, X-OpenStack-Nova-API-Version\r\n"
    "x-openstack-request-id: %s\r\nx-compute-request-id: %s\r\n\r\n%s"
)
_VERSION: Final = (
    '{"version": {"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1", '
    '"links": [{"rel": "self", "href": "http://%s%s"}]}}'
)
_HOST: Final = re.compile(r"\r\nhost: *(\S+)", re.IGNORECASE)
#: What Nova shows of one: 1.8 KB.
_SERVER: Final = (
    '{"id": "%s", "name": "server", "status": "ACTIVE", "tenant_id": "project", "user_id": "user", "metadata": {}, '
    '"hostId": "2091634baaccdc4c5a1d57069c833e402921df696b7f970791b12ec6", "image": {"id": '
    '"70a599e0-31e7-49b7-b260-868f441e862b", "links": [{"rel": "bookmark", "href": '
    '"http://127.0.0.1/images/70a599e0-31e7-49b7-b260-868f441e862b"}]}, "flavor": {"vcpus": 1, "ram": 512, "disk": 1, '
    '"ephemeral": 0, "swap": 0, "original_name": "m1.tiny", "extra_specs": {"hw:numa_nodes": "1"}}, "created": '
    '"2026-11-23T18:00:00Z", "updated": "2026-11-23T18:00:00Z", "addresses": {"private": [{"addr": "192.168.1.30", '
    '"OS-EXT-IPS-MAC:mac_addr": "00:0c:29:0d:11:74", "OS-EXT-IPS:type": "fixed", "version": 4}]}, "accessIPv4": '
    '"1.2.3.4", "accessIPv6": "80fe::", "links": [{"rel": "self", "href": "http://127.0.0.1/v2.1/servers/0"}, {"rel": '
    '"bookmark", "href": "http://127.0.0.1/servers/0"}], "OS-DCF:diskConfig": "AUTO", "progress": 0, '
    '"OS-EXT-AZ:availability_zone": "nova", "config_drive": "", "key_name": null, "OS-SRV-USG:launched_at": '
    '"2026-11-23T18:00:00.000000", "OS-SRV-USG:terminated_at": null, "OS-EXT-SRV-ATTR:host": "compute", '
    '"OS-EXT-SRV-ATTR:instance_name": "instance-00000001", "OS-EXT-SRV-ATTR:hypervisor_hostname": "fake-mini", '
    '"OS-EXT-STS:task_state": null, "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1, '
    '"os-extended-volumes:volumes_attached": [{"id": "volume_id1", "delete_on_termination": false}], '
    '"security_groups": [{"name": "default"}], "locked": false, "locked_reason": null, "description": null, "tags": []}'
)
_JOB: Final = '{"job_id": "%s"}'
_ACTION: Final = (
    '{"instanceAction": {"action": "reboot", "request_id": "%s", "start_time": "2026-11-23T18:00:00.000000", '
    '"message": null, "events": [{"finish_time": "2026-11-23T18:00:01.000000", "result": "Success"}]}}'
)


@contextmanager
def serving(delay: float, servers: int = 0) -> Iterator[str]:
    """Serve for as long as the block lasts, and give the compute endpoint of the project.

    Args:
        delay: Seconds from each request to its answer.
        servers: How many the list shows: those of `fleet`.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_serve, args=(theirs, delay, servers), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v2.1/project"
    finally:
        process.terminate()
        process.join()


def fleet(servers: int) -> list[str]:
    """Give so many ids."""
    return [str(UUID(int=number)) for number in range(servers)]


def _serve(pipe: "Connection[int, None]", delay: float, servers: int) -> None:
    raise_descriptors()
    asyncio.run(_listen(pipe, delay, servers))


async def _listen(pipe: "Connection[int, None]", delay: float, servers: int) -> None:
    loop = asyncio.get_running_loop()
    answers = _Answers(servers)
    server = await loop.create_server(lambda: _Client(answers, delay), "127.0.0.1", backlog=2048)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class _Answers:
    """What the server says.

    Args:
        servers: How many the list shows.
    """

    def __init__(self, servers: int) -> None:
        self._servers = servers
        self._numbers = count(1)

    def to(self, head: bytes) -> bytes:
        """Answer a request, of which the head tells all."""
        method, target, rest_of_head = head.decode("latin-1").split(" ", 2)
        request_id = _REQUEST_ID % next(self._numbers)
        status, body = "200 OK", ""
        path, _, query = target.partition("?")
        _, is_server, rest = path.partition("/servers")
        if method == "POST":
            # ECS, which takes a list of servers, and gives a job; Nova, which takes one, and gives nothing.
            status, body = ("202 Accepted", "") if is_server else ("200 OK", _JOB % request_id)
        elif rest == "/detail":
            body = _page(parse_qs(query).get("marker", [""])[0], self._servers)
        elif "/os-instance-actions/" in rest:
            body = _ACTION % rest.rpartition("/")[2]
        elif rest:
            body = f'{{"server": {_SERVER % rest[1:]}}}'
        else:
            host = _HOST.search(rest_of_head)
            body = _VERSION % (host[1] if host else "", path)
        date = _date(int(time.time()))
        return (_ANSWER % (status, date, len(body), request_id, request_id, body)).encode("latin-1")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


@lru_cache(maxsize=16)
def _page(marker: str, servers: int) -> str:
    first = UUID(marker).int + 1 if marker else 0
    shown = (_SERVER % UUID(int=number) for number in range(first, min(first + PAGE, servers)))
    return f'{{"servers": [{", ".join(shown)}]}}'


class _Client(asyncio.Protocol):
    """One kept connection, which carries one request at a time."""

    def __init__(self, answers: _Answers, delay: float) -> None:
        self._answers = answers
        self._delay = delay
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._received = b""
        answer = self._answers.to(head)
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)
        else:
            self._transport.write(answer)
