"""Which servers a list holds: the filters that Nova gives to members.

Law: every filter that is given must let a server through.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bulkrestart.simulator.records import SimulatedServer, StatusError
from bulkrestart.simulator.rules import states_of


class TagFilter(StrEnum):
    """Nova's filters on tags, each of a list of them."""

    ALL = "tags"
    ANY = "tags-any"
    NOT_ALL = "not-tags"
    NOT_ANY = "not-tags-any"

    def lets_through(self, tags: frozenset[str], listed: frozenset[str]) -> bool:
        """Tell whether a server with these tags passes (nova/db/main/api.py `instance_get_all_by_filters_sort`)."""
        is_met = bool(listed & tags) if self in (TagFilter.ANY, TagFilter.NOT_ANY) else listed <= tags
        return is_met is not (self in (TagFilter.NOT_ALL, TagFilter.NOT_ANY))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a list is limited to; as it stands, to living servers.

    Names and zones are searched by a regular expression. Upper and lower case are one in it, as in the collation that
    MySQL gives Nova's tables (nova/db/main/api.py `_regex_instance_filter`); under SQLite they are two.

    Attributes:
        changes_since: Only servers changed since then, deleted ones too; seconds since the epoch.
        statuses: Only servers of these statuses, as loosely as Nova does it (`rules.states_of`).
        name: Found in the name; "" in any.
        zone: Found in the availability zone; "" in any.
        tags: Tags by the filter that they were listed for.
    """

    changes_since: float | None = None
    statuses: tuple[str, ...] = ()
    name: str = ""
    zone: str = ""
    tags: Mapping[TagFilter, frozenset[str]] = field(default_factory=dict)

    def test(self) -> Callable[[SimulatedServer], bool]:
        """Make the test that a server of the list passes.

        Raises:
            StatusError: None of the statuses is known.
        """
        vm_states, task_states = states_of(self.statuses)
        if self.statuses and not vm_states:
            raise StatusError
        name, zone = (re.compile(text, re.IGNORECASE) for text in (self.name, self.zone))

        def is_wanted(server: SimulatedServer) -> bool:
            is_in_time = not server.is_deleted if self.changes_since is None else server.updated >= self.changes_since
            is_of_status = not self.statuses or (
                server.vm_state in vm_states and (task_states is None or server.task_state in task_states)
            )
            is_found = bool(name.search(server.name) and zone.search(server.availability_zone))
            tags = frozenset(server.tags)
            has_tags = all(kind.lets_through(tags, listed) for kind, listed in self.tags.items())
            return is_in_time and is_of_status and is_found and has_tags

        return is_wanted
