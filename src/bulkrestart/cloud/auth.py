"""How a request is signed."""

from collections.abc import Generator

import httpx


class Token(httpx.Auth):
    """Signs with a token that was issued elsewhere: `openstack token issue -f value -c id`.

    Args:
        value: The token, scoped to the project whose servers are restarted. It has to outlive the run.

    Raises:
        ValueError: It is empty, or holds characters that no token has.
    """

    def __init__(self, value: str) -> None:
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("the token is empty or holds white space: give it as `openstack token issue` prints it")
        self._value = value

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add `X-Auth-Token`."""
        request.headers["X-Auth-Token"] = self._value
        yield request

    def __repr__(self) -> str:
        return "Token(...)"
