"""How requests leave this machine: whose certificates are trusted, and through which proxy."""

import ipaddress
import logging
import re
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

_log = logging.getLogger(__name__)

#: A name or an address, of either family.
_HOST: Final = re.compile(r"[\w.:-]+")
_LAST_PORT: Final = 65535


def tls_context(
    *,
    verify: bool = True,
    cacert: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
) -> ssl.SSLContext:
    """Say whose certificates are trusted, and who we are.

    Args:
        verify: Whether certificates are verified at all; if not, a warning is logged.
        cacert: A file of certificates, or a folder, that are trusted; None for those that the system trusts.
        cert: A file of our own certificate, and of its key unless `key` is given.
        key: The file of that key; not encrypted.

    Raises:
        ValueError: A file cannot be read, or holds something else.
    """
    # To load the certificates of the system takes 20 ms, so it is not done for nothing.
    context = _context_of(Path(cacert)) if verify and cacert is not None else ssl.create_default_context()
    if not verify:
        _log.warning("certificates are not verified: whoever is on the way can read the token and change the answers")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        _load_own(context, Path(cert), None if key is None else Path(key))
    elif key is not None:
        raise ValueError(f"a key without a certificate: give the certificate of {key} too")
    return context


def _context_of(trusted: Path) -> ssl.SSLContext:
    try:
        if trusted.is_dir():
            return ssl.create_default_context(capath=trusted)
        return ssl.create_default_context(cafile=trusted)
    except ssl.SSLError as error:
        raise ValueError(f"{trusted} holds no certificates: give a file in PEM format") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read certificates from {trusted}: {error}") from error


def _load_own(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    def refuse() -> str:
        # OpenSSL would ask on the terminal.
        raise ValueError(f"the key in {key or cert} is encrypted: decrypt it first")

    try:
        context.load_cert_chain(cert, key, password=refuse)
    except ssl.SSLError as error:
        files = f"{cert} and {key} hold" if key is not None else f"{cert} holds"
        raise ValueError(f"{files} no certificate with its key: give them in PEM format") from error
    except OSError as error:
        raise ValueError(f"cannot read the certificate {cert}, or its key: {error.strerror}") from error


def proxy_of(url: str) -> httpx.Proxy | None:
    """Find the proxy that the environment names for a URL: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.

    A proxy does not reach this machine's own loopback, so none is used for it, as Go's net/http has it.

    Raises:
        ValueError: The environment names something that is no proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or _is_in_network(host) or proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
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
    try:
        proxy = httpx.Proxy(named if "://" in named else f"http://{named}")
        # What it needs to be reached by (socksio) is found out now.
        httpx.AsyncHTTPTransport(proxy=proxy)
    except ImportError:
        return "the proxy in the environment speaks SOCKS: pip install 'httpx[socks]'"
    except (ValueError, httpx.InvalidURL):
        return unusable
    is_address = _HOST.fullmatch(proxy.url.host) is not None and (proxy.url.port or 1) <= _LAST_PORT
    return proxy if is_address else unusable


def _is_in_network(host: str) -> bool:
    """Tell whether `NO_PROXY` names a network that an address is in: requests heeds it, and urllib does not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _unproxied_networks())


def _unproxied_networks() -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for one in getproxies().get("no", "").split(","):
        with suppress(ValueError):  # a name
            if "/" in one:
                # Not strict: requests takes 10.0.0.1/8 for 10.0.0.0/8.
                yield ipaddress.ip_network(one.strip(), strict=False)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
