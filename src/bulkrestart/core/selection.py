"""Which servers of a project are meant, by what the cloud shows of them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from bulkrestart.core.model import Server
from bulkrestart.core.states import UNKNOWN

#: What stands for a byte that is not UTF-8 in what the command line was given.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
#: A URL has its bounds.
_LONGEST_FILTER: Final = 1000
#: What clouds read as it stands: Nova takes a tag filter for a regular expression when it checks it, and not after.
_PLAIN_TAG: Final = re.compile(r"[\w:.=-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A server is meant if everything that is given fits; with nothing given, all are.

    The cloud's own filters are never relied on: one that it does not know, or does not grant to this user, it ignores
    silently (nova/api/openstack/compute/servers.py `remove_invalid_options`).

    Attributes:
        name: What must be found in the name; None for any.
        statuses: The status must be one of these, in upper case; empty for any.
        tags: The server must carry all of these.
        zones: The availability zone must be one of these; empty for any.
        metadata: The metadata must hold all of these.
    """

    name: re.Pattern[str] | None = None
    statuses: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        *,
        name: str | None = None,
        status: str | Collection[str] = (),
        tags: str | Collection[str] = (),
        az: str | Collection[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> "Selection":
        """Read what a user gives; `RestartClient.servers` documents it.

        Raises:
            ValueError: One of them cannot be what is meant.
        """
        return cls(
            name=_pattern(name),
            statuses=frozenset(word.upper() for word in _words("status", status)),
            tags=_words("tags", tags),
            zones=_words("az", az),
            metadata=_pairs(metadata or {}),
        )

    @property
    def filters(self) -> dict[str, str]:
        """What the cloud may leave out by itself, as the query of a list.

        These are the filters that leave out nothing that is meant: of several statuses clouds may use only one, and the
        database's regular expressions are not Python's.
        """
        query: dict[str, str] = {}
        # Nova shows UNKNOWN, and knows no such filter.
        if len(self.statuses) == 1 and UNKNOWN not in self.statuses:
            query["status"] = next(iter(self.statuses))
        if self.tags and all(map(_PLAIN_TAG.fullmatch, self.tags)):
            query["tags"] = ",".join(sorted(self.tags))
        return {name: value for name, value in query.items() if len(value) <= _LONGEST_FILTER}

    def fits(self, server: Server) -> bool:
        """Tell whether a server is meant."""
        return self._decide(server) is True

    def is_undecided(self, server: Server) -> bool:
        """Return whether a server is shown without the attributes that it is selected by.

        Nova shows only the id and the status of a server whose cell is down ("Handling Down Cells" in its API guide).
        Every server has a name, so a row without a name is such a partial one.
        """
        return self._decide(server) is None

    def _decide(self, server: Server) -> bool | None:
        is_whole = server.name != ""
        answers = [
            self.name is None or (self.name.search(server.name) is not None if is_whole else None),
            not self.statuses or (server.status.upper() in self.statuses if server.status else None),
            not self.tags or (self.tags <= set(server.tags) if server.tags is not None else None),
            not self.zones or server.availability_zone in self.zones or (False if is_whole else None),
            self.metadata.items() <= server.metadata.items() or (False if is_whole else None),
        ]
        return False if False in answers else None if None in answers else True


def _pattern(name: str | None) -> re.Pattern[str] | None:
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a regular expression of at least one character, not {name!r}")
    try:
        return re.compile(name)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"name must be a regular expression, not {name!r:.60}: {error}") from error


def _words(option: str, given: str | Collection[str]) -> frozenset[str]:
    """Read one word, or several."""
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given, Collection):
        raise ValueError(f"{option} must be a word or several, not {given!r}")
    for word in given:
        # Nova separates tags by commas, and has none with a comma or a slash (nova/api/validation `tag`).
        if not isinstance(word, str) or not word.strip() or "," in word or _SURROGATE.search(word):
            raise ValueError(f"{option} must be words that are not empty, one each, not {word!r:.60}")
    return frozenset(given)


def _pairs(given: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise ValueError(f"metadata must be a mapping of keys to values, not {given!r}")
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise ValueError(f"metadata must be keys and values of text, not {key!r}: {value!r}")
    return dict(given)
