"""Sends the requests of a sign-in. keystoneauth1 uses requests, whose own rules for TLS and proxies this replaces.

Laws: the TLS context and the proxy are those of the compute API. An answer is decompressed step by step, has at most
one content coding, and never takes more memory than the bound.
"""

import ssl
from typing import Any, Final

import requests
from keystoneauth1.session import TCPKeepAliveAdapter
from urllib3 import HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPSConnection

from bulkrestart.cloud.network import proxies_for_requests
from bulkrestart.core.faults import plain

#: Bytes of one answer after decompression. A token with a catalog of several hundred services has some 200 KB.
_LONGEST: Final = 2 * 1024 * 1024
_STEP: Final = 16 * 1024


class _Connection(HTTPSConnection):
    """A connection without urllib3's warning at each request: `tls_context` warns once if nothing is verified."""

    def connect(self) -> None:
        super().connect()
        self.is_verified = True


class _ConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _Connection


class BoundedAdapter(TCPKeepAliveAdapter):
    """Sends requests as keystoneauth1's own adapter does, and reads each answer up to the bound.

    Args:
        context: The TLS context; `verify` and `cert` of a request are ignored.

    Attributes:
        latest: The latest answer; None before the first.
        versions_url: The URL that is asked for the versions of Keystone before a sign-in.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.latest: requests.Response | None = None
        self.versions_url = ""
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Use the context for direct connections."""
        super().init_poolmanager(*args, ssl_context=self._context, **options)
        _use_own_pool(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> PoolManager:
        """Use the context for connections to a proxy and through it."""
        if proxy.startswith("https:"):
            options["proxy_ssl_context"] = self._context
        manager: PoolManager = super().proxy_manager_for(proxy, ssl_context=self._context, **options)
        _use_own_pool(manager)
        return manager

    def cert_verify(self, *args: object) -> None:
        """Do nothing: requests would add certifi's certificates to those of the context."""

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        """Send a request, and read its answer.

        Raises:
            requests.RequestException: The answer is longer than the bound, has several content codings, or is broken.
        """
        # urllib3 sets the context's verify_mode from this argument.
        is_verified = self._context.verify_mode is not ssl.CERT_NONE
        response = super().send(
            request,
            stream=True,
            timeout=timeout,
            verify=is_verified,
            cert=None,
            proxies=proxies_for_requests(str(request.url)),
        )
        try:
            coding = plain(response.headers.get("Content-Encoding", ""))
            if "," in coding:
                raise requests.exceptions.ContentDecodingError(f"the answer has several content codings ({coding})")
            body = bytearray()
            try:
                for chunk in response.iter_content(_STEP):
                    body += chunk
                    if len(body) > _LONGEST:
                        raise requests.exceptions.RequestException(f"the answer is longer than {_LONGEST} bytes")
            except requests.exceptions.ContentDecodingError as error:
                words = f"the body of the answer cannot be decoded (Content-Encoding: {coding})"
                raise requests.exceptions.ContentDecodingError(words) from error
            if response.status_code == 401 and self._asks_for_versions(request):
                # keystoneauth1 would ask again with the token of this same sign-in, and wait for itself forever.
                raise requests.exceptions.RequestException("Keystone answers HTTP 401 to the request for its versions")
        except BaseException:
            response.close()
            raise
        # Where requests keeps what it has read.
        response._content = bytes(body)
        self.latest = response
        return response

    def _asks_for_versions(self, request: requests.PreparedRequest) -> bool:
        is_same = str(request.url).rstrip("/") == self.versions_url.rstrip("/")
        return is_same and request.method == "GET" and "X-Auth-Token" not in request.headers


def _use_own_pool(manager: PoolManager) -> None:
    # The manager of a SOCKS proxy has its own kind of pools, and keeps them.
    if manager.pool_classes_by_scheme["https"] is HTTPSConnectionPool:
        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": _ConnectionPool}
