"""Lanes over a server that we did not write: nginx, as distributions have it."""

import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import httpx
import pytest

from bulkrestart.cloud import transport as transport_module
from bulkrestart.cloud.network import tls_context
from bulkrestart.cloud.sender import LaneSender
from bulkrestart.cloud.transport import LaneTransport
from bulkrestart.core.faults import Body
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer, Unanswered

from .certificates import Authority
from .loopback import both_backends, closed_port, compute_of, free_port

#: Debian has it where not every user's PATH leads.
NGINX: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt install nginx-light)")

CONFIGURATION: Final = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    log_format connections '$connection $request';
    access_log {folder}/requests.log connections;
    keepalive_timeout 300ms;
    gzip on;
    gzip_min_length 1;
    gzip_types text/plain;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        root {folder};
        location /v2.1/accepted/ {{ return 202; }}
        location /v2.1/twice/ {{ keepalive_requests 2; return 202; }}
        location /v2.1/closing/ {{ keepalive_timeout 0; return 202; }}
        location /v2.1/down/ {{ proxy_pass http://127.0.0.1:{nobody}; }}
        location /v2.1/gone/ {{ return 444; }}
        location /v2.1/small/ {{ client_max_body_size 1; proxy_pass http://127.0.0.1:{nobody}; }}
    }}
}}
"""


class Running(NamedTuple):
    """A server that runs.

    Attributes:
        plain: Its URL without TLS.
        tls: Its URL with TLS.
        log: Names the connection of each request.
        authority: Who issued its certificate.
        process: What runs.
    """

    plain: str
    tls: str
    log: Path
    authority: Authority
    process: subprocess.Popen[bytes]

    def connections(self) -> list[int]:
        """Stop it, and give the connection of each request, numbered from 1 in order of appearance."""
        # nginx writes the line of a request after its answer; only a graceful stop waits for that.
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(10)
        numbers = [line.split()[0] for line in self.log.read_text().splitlines()]
        seen = list(dict.fromkeys(numbers))
        return [seen.index(number) + 1 for number in numbers]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Running]:
    """Run nginx for one test."""
    assert NGINX is not None
    authority = Authority(tmp_path)
    files = authority.issue("nginx", "127.0.0.1")
    plain, tls, nobody = free_port(), free_port(), closed_port()
    (tmp_path / "text.txt").write_text("hello " * 50_000)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(folder=tmp_path, plain=plain, tls=tls, nobody=nobody, cert=files.cert, key=files.key)
    )
    process = subprocess.Popen([NGINX, "-p", tmp_path, "-c", configuration, "-e", tmp_path / "error.log"])
    try:
        until_it_listens(tls)
        urls = (f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}")
        yield Running(*urls, tmp_path / "requests.log", authority, process)
    finally:
        process.terminate()
        process.wait(10)


def until_it_listens(port: int) -> None:
    """Wait for a server; it has no other way to say that it is there."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
        else:
            return


each_scheme = pytest.mark.parametrize("is_secured", [False, True], ids=["http", "https"])


def lanes_to(nginx: Running, *, is_secured: bool) -> tuple[LaneTransport, str]:
    """Make a transport that trusts it, and give its URL."""
    context = tls_context(cacert=nginx.authority.cacert)
    return LaneTransport(context, max_at_once=8), nginx.tls if is_secured else nginx.plain


async def ask(transport: LaneTransport, url: str, method: str = "POST") -> httpx.Response:
    """Send one request, and read the answer to its end."""
    response = await transport.handle_async_request(httpx.Request(method, url, content=b"{}"))
    async with aclosing(response):
        await response.aread()
    return response


@both_backends
@each_scheme
def test_many_requests_share_few_connections(backend: str, nginx: Running, is_secured: bool) -> None:
    """As many connections as requests at once, each used over and over."""

    async def main() -> None:
        transport, url = lanes_to(nginx, is_secured=is_secured)

        async def work() -> None:
            for _ in range(10):
                assert (await ask(transport, f"{url}/v2.1/accepted/")).status_code == 202

        async with aclosing(transport), anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(work)
        connections = nginx.connections()
        assert (len(connections), max(connections)) == (40, 4)

    anyio.run(main, backend=backend)


@both_backends
@each_scheme
def test_a_connection_that_it_closed_costs_no_request(
    backend: str, nginx: Running, is_secured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its keep-alive time is over, the next request goes over a new connection, without a word."""
    monkeypatch.setattr(transport_module, "_IDLE_LIFE", 60.0)

    async def main() -> None:
        transport, url = lanes_to(nginx, is_secured=is_secured)
        async with aclosing(transport):
            for _ in range(2):
                assert (await ask(transport, f"{url}/v2.1/accepted/")).status_code == 202
            [idle] = transport._idle.values()
            assert select.select([idle[0]._socket], [], [], 10)[0]
            assert (await ask(transport, f"{url}/v2.1/accepted/")).status_code == 202
        assert nginx.connections() == [1, 1, 2]

    anyio.run(main, backend=backend)


@both_backends
@each_scheme
@pytest.mark.parametrize(("path", "connections"), [("twice", [1, 1, 2, 2]), ("closing", [1, 2, 3, 4])])
def test_a_connection_that_it_will_close_is_not_used_again(
    backend: str, nginx: Running, is_secured: bool, path: str, connections: list[int]
) -> None:
    """`Connection: close` is heeded, though the connection may still look whole."""

    async def main() -> None:
        transport, url = lanes_to(nginx, is_secured=is_secured)
        async with aclosing(transport):
            for _ in range(4):
                assert (await ask(transport, f"{url}/v2.1/{path}/")).status_code == 202
        assert nginx.connections() == connections

    anyio.run(main, backend=backend)


@both_backends
@each_scheme
def test_what_it_compresses_in_chunks_is_read(backend: str, nginx: Running, is_secured: bool) -> None:
    """A body that is compressed on the fly comes in chunks, and is what it was."""

    async def main() -> None:
        transport, url = lanes_to(nginx, is_secured=is_secured)
        async with aclosing(transport):
            request = httpx.Request("GET", f"{url}/text.txt", headers={"Accept-Encoding": "gzip"})
            for _ in range(2):
                response = await transport.handle_async_request(request)
                async with aclosing(response):
                    assert await response.aread() == b"hello " * 50_000
                coding = (response.headers["Transfer-Encoding"], response.headers["Content-Encoding"])
                assert coding == ("chunked", "gzip")
            assert (await ask(transport, f"{url}/text.txt", "HEAD")).content == b""
        assert nginx.connections()[:2] == [1, 1]

    anyio.run(main, backend=backend)


@both_backends
@each_scheme
def test_its_pages_are_answers(backend: str, nginx: Running, is_secured: bool) -> None:
    """Its own page for a cloud that is down is an answer that is no JSON; a connection that it drops is none."""

    async def main() -> None:
        transport, url = lanes_to(nginx, is_secured=is_secured)
        async with aclosing(LaneSender(transport)) as sender:
            seen = [
                await compute_of(sender, f"{url}", project=project).reboot("s", RebootType.SOFT)
                for project in ("accepted", "down", "small", "gone", "accepted")
            ]
        assert seen[0] == seen[4] == Answer(202)
        for answer, status, words in (
            (seen[1], 502, "502 Bad Gateway"),
            (seen[2], 413, "413 Request Entity Too Large"),
        ):
            assert isinstance(answer, Answer)
            assert (answer.status, answer.fault.body, answer.fault.message) == (status, Body.OTHER, words)
        assert isinstance(seen[3], Unanswered)

    anyio.run(main, backend=backend)
