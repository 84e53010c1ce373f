"""Finds the secrets that a request carries.

Law: the value of a header is a secret, unless the header is known to carry none.
"""

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import parse_qsl

import httpx

from bulkrestart.cloud.clone import address_of
from bulkrestart.cloud.credentials import CloudAuth
from bulkrestart.cloud.sender import Trace
from bulkrestart.core.secrets import SecretMask

#: Headers that carry no secret: those that every client writes, those that we or Huawei Cloud's signature need, and
#: those that proxies and tracing add. Messages of the cloud may need to repeat their values.
_HARMLESS: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection content-encoding content-length "
    b"content-type date expect forwarded from host if-modified-since if-none-match keep-alive openstack-api-version "
    b"origin pragma priority prefer range referer te traceparent tracestate trailer transfer-encoding upgrade "
    b"upgrade-insecure-requests user-agent via x-correlation-id x-domain-id x-forwarded-for x-forwarded-host "
    b"x-forwarded-port x-forwarded-proto x-language x-openstack-nova-api-version x-openstack-request-id x-project-id "
    b"x-real-ip x-request-id x-requested-with x-sdk-content-sha256 x-sdk-date".split()
)
_AUTHORIZATION: Final = frozenset((b"authorization", b"proxy-authorization"))
_COOKIE: Final = b"cookie"
#: Parameters of a URL that carry a signature or a token.
_SECRET_PARAMETER: Final = re.compile("sign|token|key|secret|auth|credential|passw|session", re.IGNORECASE)


def secrets_of(request: httpx.Request, trace: Trace, auth: httpx.Auth) -> SecretMask:
    """Return a mask for the secrets of a request as it was sent.

    A part of its URL's path, such as the project's id, is no secret.

    Args:
        request: The request that was sent last: an auth flow, a hook or a client may have added headers.
        trace: The trace of the request, which also knows the headers that httpcore sent to a proxy.
        auth: The auth that signed it, which may know secrets that it does not send.
    """
    path, _, query = address_of(request)[1].decode("ascii").partition("?")
    values = [value for headers in (request.headers.raw, *trace.headers) for value in _values_of(headers)]
    values += (value for name, value in parse_qsl(query) if _SECRET_PARAMETER.search(name))
    if isinstance(auth, CloudAuth):
        values += (secret.reveal() for secret in auth.secrets)
    return SecretMask(value for value in values if value not in path)


def _values_of(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    for raw_name, raw_value in headers:
        name = raw_name.lower()
        if name in _HARMLESS:
            continue
        value = raw_value.decode("latin-1").strip()
        if name in _AUTHORIZATION:
            scheme, _, credentials = value.partition(" ")
            yield credentials or scheme
            if scheme.lower() == "basic":
                yield from _basic(credentials)
        else:
            yield value
        if name == _COOKIE:
            yield from (cookie.partition("=")[2].strip('" ') for cookie in value.split(";"))


def _basic(credentials: str) -> Iterator[str]:
    """Yield the user name with its password, and the password alone (RFC 7617, section 2)."""
    try:
        pair = b64decode(credentials).decode()
    except ValueError:
        return
    yield pair
    yield pair.partition(":")[2]
