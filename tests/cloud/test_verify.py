"""The checks that are shipped: where they lead, what passes them, and what is refused before any server is checked."""

import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.streams.tls import TLSStream

from bulkrestart import Server, http_ok, tcp_open
from bulkrestart.cloud.network import tls_context
from bulkrestart.cloud.verify import NotWellError
from bulkrestart.core.model import Address, Verify

from .certificates import Authority
from .loopback import Connection, both_backends, closed_port, listening, read_request

ID: Final = "616fb98f-46ca-475e-917e-2563e5a8cd19"
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n"


def server(*addresses: str, name: str = "web-1") -> Server:
    """Give a server with these addresses."""
    shown = tuple(Address(address=one, network="private", version=6 if ":" in one else 4) for one in addresses)
    return Server(id=ID, name=name, addresses=shown)


def run(backend: str, main: Callable[[], Awaitable[object]]) -> object:
    """Run to the end on one of the two event loops."""
    return anyio.run(main, backend=backend)


def answering(answer: bytes, requests: list[bytes]) -> AbstractAsyncContextManager[str]:
    """Answer every request so, and note it."""

    async def serve(connection: Connection) -> None:
        requests.append(await read_request(connection))
        await connection.send(answer)

    return listening(serve)


async def failure(check: Verify, whom: Server) -> str:
    """Give the words of a check that is not passed."""
    with pytest.raises(NotWellError) as caught:
        await check(whom)
    return str(caught.value)


# A port.


@both_backends
def test_port_that_is_open(backend: str) -> None:
    """A connection that is taken passes, and is closed without a word."""

    async def main() -> None:
        received: list[bytes] = []

        async def serve(connection: Connection) -> None:
            try:
                received.append(await connection.receive())
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                received.append(b"")

        async with listening(serve) as where:
            host, port = where.split(":")
            assert await tcp_open(int(port))(server(host)) is True
            assert await tcp_open(int(port), host="{name}")(server("192.0.2.1", name=host)) is True
            assert await tcp_open(int(port), host=host)(server()) is True
            with anyio.fail_after(5):
                while len(received) < 3:
                    await anyio.lowlevel.checkpoint()
        assert received == [b""] * 3

    run(backend, main)


@both_backends
def test_port_that_is_closed(backend: str) -> None:
    """A port where nobody listens is told with what the system said."""

    async def main() -> None:
        port = closed_port()
        words = await failure(tcp_open(port), server("127.0.0.1"))
        refused = f"ECONNREFUSED 127.0.0.1:{port}: Connection refused"
        assert words == f"port {port} of 127.0.0.1 is not open: {refused}"

    run(backend, main)


@both_backends
def test_port_that_does_not_answer(backend: str) -> None:
    """A try ends with its time."""

    async def main() -> None:
        with socket.socket() as full:
            # A queue that is full drops what comes after.
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            try:
                for filler in fillers:
                    filler.setblocking(False)
                    filler.connect_ex(("127.0.0.1", port))
                words = await failure(tcp_open(port, timeout=0.2), server("127.0.0.1"))
            finally:
                for filler in fillers:
                    filler.close()
        assert words == f"port {port} of 127.0.0.1 is not open: no answer within 0.2 s"

    run(backend, main)


@both_backends
@pytest.mark.parametrize("name", ["no.such.host.invalid", "x" * 64, "a..b", "\udcff"])
def test_port_of_a_name_that_leads_nowhere(backend: str, name: str) -> None:
    """A name that cannot be looked up is not yet, and not an error of another kind."""

    async def main() -> None:
        assert "is not open" in await failure(tcp_open(22, host="{name}"), server(name=name))

    run(backend, main)


# A URL.


@both_backends
def test_url_that_answers_200(backend: str) -> None:
    """The fields of the URL are the server's, and a name cannot lead elsewhere."""

    async def main() -> None:
        requests: list[bytes] = []
        async with answering(OK, requests) as where:
            port = where.split(":")[1]
            check = http_ok(f"http://{{address}}:{port}/{{id}}?name={{name}}")
            assert await check(server("127.0.0.1", name="a/b?c#d@e f")) is True
        assert requests[0].startswith(f"GET /{ID}?name=a%2Fb%3Fc%23d%40e%20f HTTP/1.1\r\n".encode())

    run(backend, main)


@both_backends
@pytest.mark.parametrize("status", [b"201 Created", b"204 No Content", b"302 Found", b"404 Not Found", b"503 Busy"])
def test_url_that_answers_otherwise(backend: str, status: bytes) -> None:
    """Only 200 is 200: no other success, and no redirect, which is not followed."""

    async def main() -> None:
        requests: list[bytes] = []
        head = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nLocation: /fine\r\n\r\n"
        async with answering(head, requests) as where:
            words = await failure(http_ok(f"http://{where}/"), server())
        assert words == f"http://{where}/ answers {status[:3].decode()}, not 200"
        assert len(requests) == 1

    run(backend, main)


@both_backends
def test_url_that_does_not_answer(backend: str) -> None:
    """Silence, and a connection that is refused, are what httpx or the clock says."""

    async def main() -> None:
        async def keep_silent(connection: Connection) -> None:
            await read_request(connection)
            await anyio.sleep_forever()

        async with listening(keep_silent) as where:
            words = await failure(http_ok(f"http://{where}/", timeout=0.2), server())
            assert words == f"http://{where}/ does not answer: no answer within 0.2 s"
        url = f"http://127.0.0.1:{closed_port()}/"
        words = await failure(http_ok(url), server())
        assert words.startswith(f"{url} does not answer: ")
        assert len(words) > len(f"{url} does not answer: ")

    run(backend, main)


@both_backends
def test_url_with_a_certificate(backend: str, tmp_path: Path) -> None:
    """Certificates are verified, by those that are trusted; by anybody's where that is said."""

    async def main() -> None:
        authority = Authority(tmp_path)
        requests: list[bytes] = []

        async def serve(connection: Connection) -> None:
            try:
                secure = await TLSStream.wrap(
                    connection, server_side=True, ssl_context=authority.server("127.0.0.1"), standard_compatible=False
                )
                requests.append(await secure.receive())
                await secure.send(OK)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

        async with listening(serve) as where:
            assert "certificate" in await failure(http_ok(f"https://{where}/"), server())
            assert await http_ok(f"https://{where}/", verify=False)(server()) is True
            context = tls_context(cacert=authority.cacert)
            assert await http_ok(f"https://{where}/", verify=context)(server()) is True
        assert len(requests) == 2

    run(backend, main)


@both_backends
def test_it_goes_straight_to_the_server(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not for the servers of a project."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def main() -> None:
        async with answering(OK, []) as where:
            assert await http_ok(f"http://{where}/")(server()) is True

    run(backend, main)


# Where they lead.


@pytest.mark.parametrize("check", [tcp_open(22), http_ok("http://{address}/")])
@pytest.mark.parametrize(
    ("addresses", "words"),
    [((), "the cloud shows no address of it"), (("evil.example/x?",), "does not appear to be an IPv4 or IPv6 address")],
)
def test_server_without_an_address(check: Verify, addresses: tuple[str, ...], words: str) -> None:
    """What is no address leads nowhere."""

    async def main() -> None:
        with pytest.raises((NotWellError, ValueError), match=re.escape(words)):
            await check(server(*addresses))

    anyio.run(main)


@both_backends
def test_address_of_version_6(backend: str) -> None:
    """An address of version 6 stands in brackets in a URL, and bare elsewhere."""

    async def main() -> None:
        requests: list[bytes] = []

        async def serve(connection: Connection) -> None:
            async with connection:
                if request := await read_request(connection):
                    requests.append(request)
                    await connection.send(OK)

        listener = await anyio.create_tcp_listener(local_host="::1")
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (anyio's `extra`, not Django's)
            assert await tcp_open(port)(server("::1", "192.0.2.1")) is True
            assert await http_ok(f"http://{{address}}:{port}/")(server("::1")) is True
            group.cancel_scope.cancel()
        assert f"\r\nhost: [::1]:{port}\r\n" in requests[-1].decode().lower()

    run(backend, main)


# What makes no sense.


def anything(value: Any) -> Any:
    """Pass for whatever type is asked for."""
    return value


WRONG: Final = [
    (lambda: tcp_open(0), "port must be a whole number from 1 to 65535, not 0"),
    (lambda: tcp_open(65536), "port must be a whole number from 1 to 65535, not 65536"),
    (lambda: tcp_open(True), "port must be a whole number from 1 to 65535, not True"),
    (lambda: tcp_open(anything("22")), "port must be a whole number from 1 to 65535, not '22'"),
    (lambda: tcp_open(22, host=""), "host must be text such as {address}, not ''"),
    (lambda: tcp_open(22, host=anything(None)), "host must be text such as {address}, not None"),
    (lambda: tcp_open(22, host="{adress}"), "host must have no other fields than {address}, {id}, {name}, not "),
    (lambda: tcp_open(22, host="{}"), "host must have no other fields than "),
    (lambda: tcp_open(22, host="{address!r}"), "host must have no other fields than "),
    (lambda: tcp_open(22, host="{address:>20}"), "host must have no other fields than "),
    (lambda: tcp_open(22, host="{address.__class__}"), "host must have no other fields than "),
    (lambda: tcp_open(22, host="{address"), "host must have its braces in pairs: "),
    (lambda: tcp_open(22, timeout=0), "timeout must be a positive number of seconds, not 0"),
    (lambda: http_ok(anything(server())), "url must be text such as {address}, not Server("),
    (lambda: http_ok("{address}/health"), "url must be such as http://{address}/health, not "),
    (lambda: http_ok("ftp://{address}/"), "url must be such as http://{address}/health, not "),
    (lambda: http_ok("http:///health"), "url must be such as http://{address}/health, not "),
    (
        lambda: http_ok("ftp://me:s3cret@{address}/"),
        "url must be such as http://{address}/health, not 'ftp://…@{address}/'",
    ),
    (
        lambda: http_ok("http://me:s3cret@{host}/"),
        "url must have no other fields than {address}, {id}, {name}, not 'http://…@",
    ),
    (lambda: http_ok("http://[{address}]/"), "url must be a URL when its fields are filled in: "),
    (lambda: http_ok("http://{address}:port/"), "url must be a URL when its fields are filled in: "),
    (lambda: http_ok("http://{address}:{port}/"), "url must have no other fields than {address}, {id}, {name}, not "),
    (lambda: http_ok("http://{address}/", timeout=-1.0), "timeout must be a positive number of seconds, not -1.0"),
    (
        lambda: http_ok("http://{address}/", verify=anything("ca.pem")),
        "verify must be True, False or an ssl.SSLContext, not str",
    ),
]


@pytest.mark.parametrize(("make", "words"), WRONG, ids=[f"{number}" for number, _ in enumerate(WRONG)])
def test_check_that_makes_no_sense(make: Callable[[], object], words: str) -> None:
    """A check that could never be passed is refused where it is made, with what is meant."""
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        make()
