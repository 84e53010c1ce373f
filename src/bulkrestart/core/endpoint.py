"""The compute endpoint that a user names, and the ids of its servers."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

_EXAMPLE: Final = "https://compute.example.com/v2.1/PROJECT_ID"
#: Labels of 1 to 63 characters (RFC 1035, section 2.3.4); an IPv6 address passes for one.
_HOST: Final = re.compile(r"[^.]{1,63}(\.[^.]{1,63})*\.?")
_PATH: Final = re.compile(r"/(v2|v2\.1)/([^/]+)/?$")
_PLAIN_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UUID_DIGITS: Final = re.compile(r"[0-9a-f]{32}")
_LONGEST_ID: Final = 255
#: Nova's ids are UUIDs; other clouds have made ids of these characters. Any other character would change the path of a
#: URL, or shows that the word comes from a table, a CSV file or a list of names.
_ID: Final = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.:-]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the servers of one project are.

    Attributes:
        url: The URL up to and with the project, without a slash at its end.
        project_id: The project.
        has_microversions: Whether it is `/v2.1`; `/v2` ignores microversion headers
            (nova/api/openstack/compute/routes.py, `LegacyV2CompatibleWrapper`).
    """

    url: str
    project_id: str
    has_microversions: bool

    @classmethod
    def parse(cls, url: object) -> "Endpoint":
        """Read an endpoint.

        Raises:
            ValueError: It is no URL of a compute endpoint with its project.
        """
        if not isinstance(url, str):
            raise ValueError(f"the endpoint must be a string such as {_EXAMPLE}, not {type(url).__name__}")
        try:
            # urlsplit drops tabs and line ends, and strips blanks.
            is_one_word = url.isprintable() and " " not in url
            parts = urlsplit(url)
            is_host = _HOST.fullmatch(parts.hostname or "") is not None
            is_url = is_one_word and parts.scheme in ("http", "https") and is_host and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:
            raise ValueError(f"the endpoint must be a URL with its scheme and a valid host, such as {_EXAMPLE}")
        if parts.username is not None or not set(url).isdisjoint("?#"):
            raise ValueError(f"the endpoint must have neither user name nor query, such as {_EXAMPLE}")
        path = _PATH.search(parts.path)
        if path is None:
            raise ValueError(f"the endpoint must end in /v2.1/ or /v2/ and the project id, such as {_EXAMPLE}")
        return cls(url=url.rstrip("/"), project_id=path[2], has_microversions=path[1] == "v2.1")


def check_id(raw: object) -> str:
    """Give the one way to write a server's id.

    Two spellings of one UUID are one server: Nova takes upper case and braces as well (oslo.utils `is_uuid_like`), and
    would reboot it for each.

    Raises:
        ValueError: It cannot be the id of a server.
    """
    if not isinstance(raw, str):
        raise ValueError(f"a server id must be a string, not {type(raw).__name__}: give the id itself")
    if _PLAIN_UUID.fullmatch(raw):
        return raw
    shown = repr(raw if len(raw) <= 60 else f"{raw[:60]}...")
    if not raw or raw in (".", "..") or len(raw) > _LONGEST_ID:
        raise ValueError(f"{shown} cannot be the id of a server")
    digits = raw.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "").lower()
    if _UUID_DIGITS.fullmatch(digits):
        return str(UUID(digits))
    if _ID.fullmatch(raw):
        return raw
    if "/" in raw:
        # A cloud takes it for another path, and answers as whoever is not the compute API of the project would.
        raise ValueError(f"{shown} cannot be the id of a server: it holds a slash; give the id alone")
    if not raw.isprintable() or any(character.isspace() for character in raw):
        raise ValueError(f"{shown} cannot be the id of a server: it holds white space or control characters")
    odd = next((char for char in raw if not _ID.fullmatch(f"_{char}")), "")
    why = f"it holds {odd!r}" if odd else f"it begins with {raw[0]!r}"
    raise ValueError(f"{shown} cannot be the id of a server: {why}; give ids, or select servers by name")
