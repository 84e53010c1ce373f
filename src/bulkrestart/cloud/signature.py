"""Huawei Cloud's signature of a request: SDK-HMAC-SHA256, as huaweicloudsdkcore/signer/signer.py makes it."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

from bulkrestart.core.secrets import Secret

ALGORITHM = "SDK-HMAC-SHA256"


def sign(
    *,
    method: str,
    path: str,
    query: Iterable[tuple[str, str]],
    headers: Secret[Mapping[str, str]],
    body: bytes,
    access_key: Secret[str],
    secret_key: Secret[str],
) -> str:
    """Sign a request.

    Args:
        method: Its method.
        path: Its path, percent-encoded or not.
        query: The names and values of its query, decoded.
        headers: The headers to sign, by lower-case names; `host` and `x-sdk-date` among them. Others may be sent too.
        body: Its body.
        access_key: Whose signature it is.
        secret_key: What only the cloud and its holder know.

    Returns:
        The value of the header `Authorization`.
    """
    # The gateway ends the path with a slash; the URL that is sent is left alone.
    segments = "/".join(_encode(segment) for segment in unquote(path).split("/"))
    names = sorted(headers.reveal())
    # No local variable may hold the canonical request, because a temporary security token is in it.
    digest = hashlib.sha256(
        "\n".join(
            (
                method,
                segments if segments.endswith("/") else f"{segments}/",
                "&".join(f"{_encode(name)}={_encode(value)}" for name, value in sorted(query)),
                "".join(f"{name}:{headers.reveal()[name].strip()}\n" for name in names),
                ";".join(names),
                hashlib.sha256(body).hexdigest(),
            )
        ).encode()
    ).hexdigest()
    to_sign = f"{ALGORITHM}\n{headers.reveal()['x-sdk-date']}\n{digest}"
    signature = hmac.new(secret_key.reveal().encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    return f"{ALGORITHM} Access={access_key.reveal()}, SignedHeaders={';'.join(names)}, Signature={signature}"


def _encode(text: str) -> str:
    return quote(text, safe="~")
