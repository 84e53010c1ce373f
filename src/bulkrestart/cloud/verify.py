"""Checks of a server that is back, for `verify`: a TCP port that is open, and a URL that answers 200.

Law: they go straight to the server, through no proxy and with no credentials, and raise what they see.
"""

import ssl
from ipaddress import IPv6Address, ip_address
from string import Formatter
from typing import Final
from urllib.parse import quote

import anyio
import httpx

from bulkrestart.cloud.failures import failure_of, peer, peer_at
from bulkrestart.cloud.network import tls_context
from bulkrestart.core.arguments import check_seconds
from bulkrestart.core.faults import plain
from bulkrestart.core.model import Address, Server, Verify

_FIELDS: Final = ("address", "id", "name")
_LAST_PORT: Final = 65535
#: Characters of what was given that a message shows.
_LONGEST_SHOWN: Final = 60
#: What a template is tried with.
_SAMPLE: Final = Server(
    id="616fb98f-46ca-475e-917e-2563e5a8cd19",
    name="web-1",
    addresses=(Address(address="2001:db8::1", network="private", version=6),),
)


class NotWellError(Exception):
    """Raised by a check that was not passed; its words become the `detail` of the result."""


def tcp_open(port: int, *, host: str = "{address}", timeout: float = 5.0) -> Verify:
    """Make a check that is passed when a TCP port of the server takes a connection.

    Args:
        port: The port.
        host: Where: text in which `{address}` stands for the server's first address (floating ones come first, then
            version 4), `{name}` for its name and `{id}` for its id.
        timeout: Seconds for one try; a run gives it no more than 30.

    Raises:
        ValueError: An argument makes no sense; the message names the remedy.

    Example:
        ```python
        report = await client.restart(server_ids, verify=tcp_open(22))
        ```
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= _LAST_PORT:
        raise ValueError(f"port must be a whole number from 1 to {_LAST_PORT}, not {port!r:.40}")
    _check_template("host", host)
    check_seconds("timeout", timeout)

    async def check(server: Server) -> bool:
        where = host.format_map(_values(host, server))
        try:
            with anyio.fail_after(timeout):
                stream = await anyio.connect_tcp(where, port)
        except (OSError, UnicodeError) as error:  # IDNA raises a UnicodeError
            why = _said_by(error, timeout, peer(where, port))
            raise NotWellError(f"port {port} of {where} is not open: {why}") from error
        await anyio.aclose_forcefully(stream)
        return True

    return check


def http_ok(url: str, *, timeout: float = 10.0, verify: bool | ssl.SSLContext = True) -> Verify:
    """Make a check that is passed when a GET of a URL is answered 200; a redirect is not followed, and is not 200.

    Args:
        url: The URL: text in which `{address}` stands for the server's first address (floating ones come first, then
            version 4; version 6 in brackets), `{name}` for its name and `{id}` for its id.
        timeout: Seconds for one try; a run gives it no more than 30.
        verify: Whose certificates are trusted: True for those of the system, an `ssl.SSLContext` for others, False for
            anybody's.

    Raises:
        ValueError: An argument makes no sense; the message names the remedy.

    Example:
        ```python
        report = await client.restart(server_ids, verify=http_ok("http://{address}:8080/health"))
        ```
    """
    _check_template("url", url)
    check_seconds("timeout", timeout)
    if not isinstance(verify, bool | ssl.SSLContext):
        raise ValueError(f"verify must be True, False or an ssl.SSLContext, not {type(verify).__name__}")
    _check_url(url)
    # It is dear to make, and no connection changes it.
    trust = tls_context() if verify is True else verify

    async def check(server: Server) -> bool:
        where = _url(url, server)
        try:
            with anyio.fail_after(timeout):
                async with (
                    httpx.AsyncClient(verify=trust, trust_env=False, timeout=timeout) as http,
                    http.stream("GET", where) as response,
                ):
                    status = response.status_code
        except (OSError, httpx.HTTPError) as error:
            why = _said_by(error, timeout, peer_at(where))
            raise NotWellError(f"{where} does not answer: {why}") from error
        if status != httpx.codes.OK:
            raise NotWellError(f"{where} answers {status}, not 200")
        return True

    return check


def _said_by(error: BaseException, timeout: float, address: str) -> str:
    """Say what kept an answer away; what wraps an error may say less than what is in it, or nothing."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"no answer within {timeout:g} s"
    if (failure := failure_of(error, address)) is not None:
        return failure.words
    sources = [error]
    while source := sources[-1].__cause__ or sources[-1].__context__:
        sources.append(source)
    return next((text for source in reversed(sources) if (text := str(source))), type(error).__name__)


def _check_template(argument: str, template: object) -> None:
    if not isinstance(template, str) or not template:
        raise ValueError(f"{argument} must be text such as {{address}}, not {_shown(template)}")
    try:
        fields = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"{argument} must have its braces in pairs: {_shown(template)}: {error}") from error
    for field, form, conversion in fields:
        if field not in _FIELDS or form or conversion:
            known = ", ".join(f"{{{name}}}" for name in _FIELDS)
            raise ValueError(f"{argument} must have no other fields than {known}, not {_shown(template)}")


def _shown(template: object) -> str:
    """Show what was given; a URL may hold a password."""
    return plain(repr(template), _LONGEST_SHOWN)


def _check_url(template: str) -> None:
    try:
        sample = httpx.URL(_url(template, _SAMPLE))
    except httpx.InvalidURL as error:
        raise ValueError(f"url must be a URL when its fields are filled in: {_shown(template)}: {error}") from error
    if sample.scheme not in ("http", "https") or not sample.host:
        raise ValueError(f"url must be such as http://{{address}}/health, not {_shown(template)}")


def _url(template: str, server: Server) -> str:
    values = _values(template, server)
    # What somebody calls a server is not to lead elsewhere.
    values |= {name: quote(values[name], safe="") for name in ("id", "name")}
    if "address" in values and isinstance(ip_address(values["address"]), IPv6Address):
        values["address"] = f"[{values['address']}]"
    return template.format_map(values)


def _values(template: str, server: Server) -> dict[str, str]:
    values = {"id": server.id, "name": server.name}
    if any(field == "address" for _, field, _, _ in Formatter().parse(template)):
        if not server.addresses:
            raise NotWellError("the cloud shows no address of it: give a host or a URL with {name} or {id}")
        values["address"] = server.addresses[0].address
        # It may be anything that a cloud writes.
        ip_address(values["address"])
    return values
