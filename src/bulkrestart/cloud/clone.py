"""Requests that are copies of one another but for the end of their path."""

from typing import Final

import httpx

#: Scheme, host and port.
Origin = tuple[str, str, int]

PORTS: Final = {"http": 80, "https": 443}
#: The request extension that holds the proxy of the request; None or absent without a proxy.
PROXY: Final = "bulkrestart.proxy"


class Template:
    """What clones have in common, worked out once.

    Args:
        request: The request that they are clones of; the path of a clone begins with its path.
    """

    def __init__(self, request: httpx.Request) -> None:
        self.request = request
        self.origin, self.target = address_of(request)


class Clone(httpx.Request):
    """A request of which only the end of the path is its own.

    Its URL is parsed when somebody looks at it: that takes longer than all the rest, and most auth flows do not.

    Args:
        template: All the rest.
        end: The end of its path, quoted.
        extensions: httpx's extensions of a request.
    """

    def __init__(self, template: Template, end: str, extensions: dict[str, object]) -> None:
        request = template.request
        super().__init__(
            request.method, request.url, headers=request.headers, stream=request.stream, extensions=extensions
        )
        self._template = template
        self._end = end
        self._url: httpx.URL | None = None
        self.read()

    @property
    def url(self) -> httpx.URL:
        """The URL."""
        if self._url is None:
            self._url = httpx.URL(f"{self._template.request.url}{self._end}")
        return self._url

    @url.setter
    def url(self, url: httpx.URL) -> None:
        self._url = url

    @property
    def address(self) -> tuple[Origin, bytes]:
        """Where it goes, and what it asks for there."""
        if self._url is not None:
            return _address_of(self._url)
        return self._template.origin, self._template.target + self._end.encode("ascii")


def address_of(request: httpx.Request) -> tuple[Origin, bytes]:
    """Tell where a request goes, and what it asks for there."""
    return request.address if isinstance(request, Clone) else _address_of(request.url)


def _address_of(url: httpx.URL) -> tuple[Origin, bytes]:
    return (url.scheme, url.raw_host.decode("ascii"), url.port or PORTS.get(url.scheme, 0)), url.raw_path
