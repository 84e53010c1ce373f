"""Bounds what is read of Keystone's answers: keystoneauth1 reads them by requests, which decompresses without a bound.

Law: an answer is decompressed step by step, has at most one content coding, and never takes more memory than the bound.
"""

from typing import Final

import requests
from keystoneauth1.session import TCPKeepAliveAdapter

#: Bytes of one answer after decompression. A token with a catalog of several hundred services has some 200 KB.
_LONGEST: Final = 2 * 1024 * 1024
_STEP: Final = 16 * 1024


class BoundedAdapter(TCPKeepAliveAdapter):
    """Sends requests as keystoneauth1's own adapter does, and reads each answer up to the bound."""

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
        response = super().send(request, stream=True, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        try:
            if "," in response.headers.get("Content-Encoding", ""):
                raise requests.exceptions.ContentDecodingError("the answer has several content codings")
            body = bytearray()
            for chunk in response.iter_content(_STEP):
                body += chunk
                if len(body) > _LONGEST:
                    raise requests.exceptions.ContentDecodingError(f"the answer is longer than {_LONGEST} bytes")
        except BaseException:
            response.close()
            raise
        # Where requests keeps what it has read.
        response._content = bytes(body)
        return response
