"""How requests leave this machine: whose certificates are trusted, and through which proxy."""

import ipaddress
import logging
import os
import re
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import httpx

from bulkrestart.cloud.clone import PORTS

_log = logging.getLogger(__name__)

#: A name or an address, of either family.
_HOST: Final = re.compile(r"[\w.:-]+")
_LAST_PORT: Final = 65535
#: The schemes of proxies that httpx knows (httpx/_config.py `Proxy`).
_PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
#: Variables that name trusted certificates: OpenSSL's, and those of requests, which other OpenStack tools read.
_OF_OPENSSL: Final = "SSL_CERT_FILE"
_OF_REQUESTS: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: What separates the entries of NO_PROXY: commas, or spaces as for curl.
_SEPARATORS: Final = re.compile(r"[,\s]+")
#: An entry with a port. An address of IPv6 without brackets has no port.
_WITH_PORT: Final = re.compile(r"(\[.+\].*|[^:]+):(\d+)")
#: The short forms of an address, as inet_aton(3) reads them: 127.1, 0x7f.1, 2130706433.
_NUMBERS: Final = re.compile(r"(0x[0-9a-f]+|\d+)(\.(0x[0-9a-f]+|\d+)){0,3}")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class CertificatesError(ValueError):
    """Raised when a file of certificates or keys cannot be used; the message names it."""


def tls_context(
    *,
    verify: bool = True,
    cacert: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
) -> ssl.SSLContext:
    """Make the TLS context for all connections to a cloud, those of the sign-in included.

    The trusted certificates are those of the first source that is given: `cacert`, `SSL_CERT_FILE`,
    `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, the system's store (`SSL_CERT_DIR` may set its folder), or certifi's if the
    system has none.

    Args:
        verify: Whether certificates are verified at all; if not, a warning is logged.
        cacert: A file of certificates, or a folder, that are trusted; None for those of the environment or the system.
        cert: A file of our own certificate, and of its key unless `key` is given.
        key: The file of that key; not encrypted.

    Raises:
        CertificatesError: A file cannot be read, or holds something else.
    """
    if not verify:
        _log.warning("certificates are not verified: whoever is on the way can read the token and change the answers")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = _default_context() if cacert is None else _context_of(Path(cacert))
    if cert is not None:
        _load_own(context, Path(cert), None if key is None else Path(key))
    elif key is not None:
        raise CertificatesError(f"a key without a certificate: give the certificate of {key} too")
    return context


def _default_context() -> ssl.SSLContext:
    if path := os.environ.get(_OF_OPENSSL):
        # OpenSSL reads this variable itself below, but would silently ignore a file that it cannot read.
        _context_named(_OF_OPENSSL, path)
        return ssl.create_default_context()
    for variable in _OF_REQUESTS:
        if path := os.environ.get(variable):
            return _context_named(variable, path)
    # Loading the system's certificates takes 20 ms, so this comes last.
    context = ssl.create_default_context()
    folders = os.environ.get("SSL_CERT_DIR") or ssl.get_default_verify_paths().capath or ""
    if not context.get_ca_certs() and not any(map(_has_files, folders.split(os.pathsep))):
        context.load_verify_locations(certifi.where())
    return context


def _has_files(folder: str) -> bool:
    return os.path.isdir(folder) and bool(os.listdir(folder))


def _context_named(variable: str, trusted: str) -> ssl.SSLContext:
    try:
        return _context_of(Path(trusted))
    except CertificatesError as error:
        raise CertificatesError(f"{variable}: {error}; correct it, or unset it") from error


def _context_of(trusted: Path) -> ssl.SSLContext:
    try:
        if trusted.is_dir():
            return ssl.create_default_context(capath=trusted)
        return ssl.create_default_context(cafile=trusted)
    except ssl.SSLError as error:
        raise CertificatesError(f"{trusted} holds no certificates: give a file in PEM format") from error
    except (OSError, ValueError) as error:
        raise CertificatesError(f"cannot read certificates from {trusted}: {error}") from error


def _load_own(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    def refuse() -> str:
        # OpenSSL would ask on the terminal.
        raise CertificatesError(f"the key in {key or cert} is encrypted: decrypt it first")

    try:
        context.load_cert_chain(cert, key, password=refuse)
    except ssl.SSLError as error:
        files = f"{cert} and {key} hold" if key is not None else f"{cert} holds"
        raise CertificatesError(f"{files} no certificate with its key: give them in PEM format") from error
    except OSError as error:
        raise CertificatesError(f"cannot read the certificate {cert}, or its key: {error.strerror}") from error


def proxy_of(url: str) -> httpx.Proxy | None:
    """Find the proxy that the environment names for a URL: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.

    The same rule holds for the sign-in and the compute API. Commas or spaces separate the entries of
    `NO_PROXY`. An entry is:

    - `*`: every host;
    - `example.com`, `.example.com` or `*.example.com`: that host and all below it;
    - `10.1.2.3`, `fd00::1` or `[fd00::1]`: an address;
    - `10.0.0.0/8`, `fd00::/8` or `[fd00::]/8`: a network.

    Each may end in a port, before which an address of IPv6 needs brackets. Case and a dot at the end do not matter, and
    no name is looked up. No proxy is used for loopback (`localhost`, names below it, 127.0.0.0/8, ::1), as in Go's
    net/http: a proxy cannot reach it.

    Raises:
        ValueError: The environment names something that is no proxy.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
    # On macOS and Windows `proxy_bypass` reads the system's settings too.
    if _is_loopback(host) or _is_excluded(host, port) or proxy_bypass(f"{host}:{port}"):
        return None
    proxy = _proxy_named_for(parts.scheme)
    if isinstance(proxy, str):
        raise ValueError(proxy)
    return proxy


def _proxy_named_for(scheme: str) -> httpx.Proxy | str | None:
    """Read the environment; give back in words what is wrong with it: a traceback from here would show the password."""
    proxies = getproxies()
    named = proxies.get(scheme) or proxies.get("all")
    if not named:
        return None
    unusable = f"the environment names no usable proxy: see {scheme.upper()}_PROXY and ALL_PROXY"
    url = named if "://" in named else f"http://{named}"
    if url.partition("://")[0].lower() not in _PROXY_SCHEMES:
        return f"{unusable}; its scheme must be {', '.join(_PROXY_SCHEMES[:-1])} or {_PROXY_SCHEMES[-1]}"
    unusable += "; its host or its port is missing or not valid"
    try:
        proxy = httpx.Proxy(url)
        # What it needs to be reached by (socksio) is found out now.
        httpx.AsyncHTTPTransport(proxy=proxy)
    except ImportError:
        return "the proxy in the environment speaks SOCKS: pip install 'httpx[socks]'"
    except (ValueError, httpx.InvalidURL):
        return unusable
    is_address = _HOST.fullmatch(proxy.url.host) is not None and (proxy.url.port or 1) <= _LAST_PORT
    return proxy if is_address else unusable


def proxies_for_requests(url: str) -> dict[str, str]:
    """Return the proxy for a URL as the `proxies` argument of requests; empty without a proxy.

    Raises:
        ValueError: The environment names something that is no proxy.
    """
    proxy = proxy_of(url)
    if proxy is None:
        return {}
    user, password = proxy.auth or ("", "")
    named = proxy.url.copy_with(username=user, password=password) if user or password else proxy.url
    return {urlsplit(url).scheme: str(named)}


def _is_excluded(host: str, port: int) -> bool:
    """Return whether an entry of `NO_PROXY` covers a host; `proxy_of` says what an entry may be.

    An entry in a form that several of urllib, requests, curl and Go's net/http read covers all that any of these covers
    by it. So a cloud that `openstack` or curl reaches directly is reached directly here.
    """
    name = host.rstrip(".").lower()
    address = _address_of(name)
    return any(
        _covers(entry, name, address, port) for entry in _SEPARATORS.split(getproxies().get("no", "").lower()) if entry
    )


def _covers(entry: str, name: str, address: _Address | None, port: int) -> bool:
    if match := _WITH_PORT.fullmatch(entry):
        if match[2] != str(port):
            return False
        entry = match[1]
    entry = entry.replace("[", "").replace("]", "")
    if address is not None:
        with suppress(ValueError):  # the entry is a name
            # Not strict: requests takes 10.0.0.1/8 for 10.0.0.0/8.
            return address in ipaddress.ip_network(entry, strict=False)
    domain = entry.removeprefix("*").strip(".")
    return entry == "*" or (bool(domain) and (name == domain or name.endswith(f".{domain}")))


def _address_of(host: str) -> _Address | None:
    """Return the address that a host is, also if it is in a short form such as 127.1; None if it is a name."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return getattr(address, "ipv4_mapped", None) or address
    if _NUMBERS.fullmatch(host):
        with suppress(OSError):
            return ipaddress.IPv4Address(socket.inet_aton(host))
    return None


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".").lower()
    address = _address_of(name)
    if address is not None:
        return address.is_loopback
    # RFC 6761, section 6.3: all names under localhost are loopback.
    return name == "localhost" or name.endswith(".localhost")
