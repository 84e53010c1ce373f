"""Explains why a connection failed, whichever library made it: the error's name, the address, and whose fault it is."""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from bulkrestart.cloud.clone import PORTS
from bulkrestart.core.observation import CHECK_URL

_FILES: Final = "raise the limit of open files (ulimit -n), or lower --max-at-once (max_at_once=)"
_MEMORY: Final = "free memory or network buffers, or lower --max-at-once (max_at_once=)"
_PORTS: Final = "no local port or address is free: lower --max-at-once (max_at_once=)"
_POLICY: Final = "a firewall or a route here forbids it: allow the connection"
_ROUTE: Final = "check the network and the VPN of this machine"
#: Errors that a limit of this machine causes, whatever was asked of it.
_LIMITS: Final = {errno.EMFILE: _FILES, errno.ENFILE: _FILES, errno.ENOBUFS: _MEMORY, errno.ENOMEM: _MEMORY}
#: Errors that a limit or a rule of this machine causes before anything reaches the network (connect(2), socket(2)).
_LOCAL: Final = _LIMITS | {
    errno.EADDRNOTAVAIL: _PORTS,
    errno.EACCES: _POLICY,
    errno.EPERM: _POLICY,
}
_CUT: Final = frozenset({errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE})
_ERRNO_OF: Final = {ConnectionResetError: errno.ECONNRESET, BrokenPipeError: errno.EPIPE}
_WITHOUT_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH})
#: OpenSSL's reasons for a connection that broke, or a server with an internal error. Every other reason concerns the
#: certificate, the host name or the protocol.
_TRANSIENT: Final = frozenset(
    {
        *("UNEXPECTED_EOF_WHILE_READING", "TLSV1_ALERT_INTERNAL_ERROR", "TLSV1_ALERT_USER_CANCELLED"),
        *("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "SSLV3_ALERT_BAD_RECORD_MAC", "SSLV3_ALERT_CLOSE_NOTIFY"),
        *("BAD_RECORD_MAC", "APPLICATION_DATA_AFTER_CLOSE_NOTIFY", "RECORD_LAYER_FAILURE"),
    }
)
#: What Python's ssl module adds to OpenSSL's message.
_SSL_FRAME: Final = re.compile(r"^\[[^\]]*\] | \(_ssl\.c:\d+\)$")
#: The address in asyncio's message: "Connect call failed ('10.0.0.5', 8774)".
_ADDRESS: Final = re.compile(r"\('([^']+)', \d+")
_LOOKUPS: Final = {
    code: name
    for name in ("EAI_AGAIN", "EAI_FAIL", "EAI_FAMILY", "EAI_MEMORY", "EAI_NONAME", "EAI_NODATA", "EAI_SERVICE")
    if (code := getattr(socket, name, None)) is not None
}
#: The most exceptions of a chain that are searched.
_DEEPEST: Final = 30


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection failed.

    Attributes:
        words: The name of the error, the address, and the message of the system or of OpenSSL.
        remedy: What the user can do about it.
        is_local: Whether a limit or a rule of this machine is the cause.
        is_insecure: Whether TLS rejected the certificate, the host name or the protocol; another try would fail too.
        is_cut: Whether the other side closed the connection, or TLS broke; the next try may succeed at once.
    """

    words: str
    remedy: str = CHECK_URL
    is_local: bool = False
    is_insecure: bool = False
    is_cut: bool = False


def peer(host: str, port: int, proxy: httpx.Proxy | None = None) -> str:
    """Return the other end of a connection as text: its host and port, and the proxy."""
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if proxy is None:
        return name
    return f"{name} through the proxy {peer_at(str(proxy.url))}"


def peer_at(url: str, proxy: httpx.Proxy | None = None) -> str:
    """Return the other end of the connection to a URL as text; see `peer`."""
    parts = urlsplit(url)
    return peer(parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0), proxy)


def failure_of(error: BaseException, address: str) -> Failure | None:
    """Find in an exception and its causes why a connection failed; None if they do not say.

    Args:
        error: The exception, of any library.
        address: The other end, as `peer` returns it.
    """
    # If a host has several addresses, an error from one that was reached says more than "no route" from another.
    cause = min(_causes_of(error), key=_rank, default=None)
    if cause is None:
        return None
    if isinstance(cause, ssl.SSLError):
        return _tls_failure(cause, address)
    if isinstance(cause, socket.gaierror):
        return Failure(f"{_LOOKUPS.get(cause.errno, 'EAI_SYSTEM')} {address}: {cause.strerror}")
    number = _number_of(cause)
    seen = _ADDRESS.search(str(cause))
    if seen is not None and seen[1] not in address:
        address = f"{address} ({seen[1]})"
    words = f"{errno.errorcode[number]} {address}: {str(cause) if cause.errno is None else os.strerror(number)}"
    if number in _LOCAL:
        return Failure(f"{words} on this machine", _LOCAL[number], is_local=True)
    return Failure(words, _ROUTE if number in _WITHOUT_ROUTE else CHECK_URL, is_cut=number in _CUT)


def limit_of_machine(error: OSError) -> str | None:
    """Return the limit of this machine that caused an error, with the remedy; None if there is another cause."""
    number = error.errno or 0
    if number not in _LIMITS:
        return None
    return f"{errno.errorcode[number]}: {os.strerror(number)} on this machine; {_LIMITS[number]}"


def _tls_failure(cause: ssl.SSLError, address: str) -> Failure:
    # An SSLError that was not raised by OpenSSL has no reason.
    reason = getattr(cause, "reason", None) or type(cause).__name__
    is_transient = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError) or reason in _TRANSIENT
    words = _SSL_FRAME.sub("", cause.strerror or str(cause))
    if isinstance(cause, ssl.SSLEOFError):
        words = "the other side ended the connection during TLS"
    return Failure(f"{reason} {address}: {words}", is_insecure=not is_transient, is_cut=is_transient)


def _causes_of(error: BaseException) -> Iterator[OSError]:
    """Yield the nearest causes: one, or one for each address of a host that was tried."""
    source: BaseException | None = error
    for _ in range(_DEEPEST):
        if source is None:
            return
        if isinstance(source, BaseExceptionGroup):
            for one in source.exceptions:
                yield from _causes_of(one)
            return
        if isinstance(source, OSError) and _is_cause(source):
            yield source
            return
        source = source.__cause__ or source.__context__


def _is_cause(error: OSError) -> bool:
    if isinstance(error, ssl.SSLError):
        # These two are no failures: they only ask to wait for the socket.
        return not isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError)
    return isinstance(error, socket.gaierror) or bool(_number_of(error))


def _number_of(cause: OSError) -> int:
    """Return the errno; 0 for none. http.client raises a ConnectionResetError without one."""
    if cause.errno is None:
        return next((number for kind, number in _ERRNO_OF.items() if isinstance(cause, kind)), 0)
    return cause.errno if cause.errno in errno.errorcode else 0


def _rank(cause: OSError) -> int:
    return 2 if cause.errno in _WITHOUT_ROUTE else 1 if cause.errno in _LOCAL else 0
