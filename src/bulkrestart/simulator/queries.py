"""What the query of a list asks for, read and checked as Nova's schemas do it.

Law: a filter that a member may not use is ignored. From 2.75 on, what is no parameter at all is refused.
"""

import re
from datetime import UTC, datetime
from typing import Final

from starlette.datastructures import QueryParams

from bulkrestart.simulator.answers import refused
from bulkrestart.simulator.filters import Filter, TagFilter
from bulkrestart.simulator.views import Version

_TAG_FILTERS: Final = frozenset(map(str, TagFilter))
#: nova/api/openstack/compute/schemas/servers.py `index_query`: parameters that must be regular expressions, also
#: where the filter is then ignored.
_PATTERNS: Final = frozenset(
    {
        *("kernel_id", "ramdisk_id", "hostname", "key_name", "power_state", "node", "flavor", "reservation_id"),
        *("launched_at", "terminated_at", "created_at", "availability_zone", "name", "display_name"),
        *("description", "display_description", "locked_by", "root_device_name", "config_drive"),
        *("access_ip_v4", "access_ip_v6", "auto_disk_config", "progress", "ip", "ip6"),
    }
)
#: All parameters of the same schema in 2.75, where it was closed to others.
_KNOWN: Final = frozenset(
    {
        *_PATTERNS,
        *_TAG_FILTERS,
        *("user_id", "project_id", "tenant_id", "launch_index", "image_ref", "image", "vm_state", "task_state"),
        *("host", "uuid", "sort_key", "sort_dir", "all_tenants", "soft_deleted", "deleted", "status"),
        *("changes-since", "changes-before", "locked", "limit", "marker"),
        *("block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups"),
        "pci_devices",
    }
)


def read_filter(query: QueryParams, version: Version, *, is_admin: bool) -> Filter:
    """Read what a list of servers is limited to.

    Args:
        query: The query; of a parameter that is given twice, the last counts, but each status does.
        version: The microversion.
        is_admin: Whether everything may be filtered by (nova/api/openstack/compute/servers.py
            `remove_invalid_options`); a member may by zones from 2.83 on (`_get_server_search_options`).

    Raises:
        RefusedError: The query is none of Nova's: 400.
    """
    if version >= (2, 75):
        _refuse_others(query)
    has_tags = version >= (2, 26)
    for name in sorted(set(query) & (_PATTERNS | _TAG_FILTERS if has_tags else _PATTERNS)):
        for text in query.getlist(name):
            _check_pattern(name, text)
    return Filter(
        changes_since=read_changes_since(query),
        statuses=tuple(query.getlist("status")),
        name=query.get("name", ""),
        zone=query.get("availability_zone", "") if is_admin or version >= (2, 83) else "",
        tags={kind: frozenset(query[kind].split(",")) for kind in TagFilter if has_tags and kind in query},
    )


def read_limit(query: QueryParams, maximum: int) -> int:
    """Read how many rows a page may have: `maximum` unless told, and no more.

    Raises:
        RefusedError: It is no number: 400.
    """
    return min(_read_number(query, "limit", maximum), maximum)


def read_offset(query: QueryParams) -> int:
    """Read how many rows are left out before the page.

    Raises:
        RefusedError: It is no number: 400.
    """
    return _read_number(query, "offset", 0)


def _read_number(query: QueryParams, name: str, default: int) -> int:
    asked = query.get(name, "")
    if re.fullmatch("[0-9]*", asked) is None:
        raise refused(400, f"{_invalid(name, asked)} '{asked}' does not match '^[0-9]*$'")
    return int(asked or default)


def read_changes_since(query: QueryParams) -> float | None:
    """Read since when a row must have changed, in seconds since the epoch; None: whenever.

    Raises:
        RefusedError: It is no time: 400.
    """
    asked = query.get("changes-since")
    if asked is None:
        return None
    try:
        at = datetime.fromisoformat(asked)
    except ValueError:
        raise refused(400, f"{_invalid('changes-since', asked)} '{asked}' is not a 'date-time'") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def not_allowed(names: list[str]) -> str:
    """Say what jsonschema says of properties that it does not know."""
    verb = "was" if len(names) == 1 else "were"
    return f"Additional properties are not allowed ({', '.join(map(repr, names))} {verb} unexpected)"


def _refuse_others(query: QueryParams) -> None:
    """Refuse parameters that are not known, as jsonschema does where a pattern lets some through: those with a "_"."""
    others = sorted(name for name in set(query) - _KNOWN if not name.startswith("_"))
    if others:
        verb = "does" if len(others) == 1 else "do"
        raise refused(400, f"{', '.join(map(repr, others))} {verb} not match any of the regexes: '^_'")


def _check_pattern(name: str, text: str) -> None:
    """Refuse what is no regular expression, and the empty one: nova/api/validation/validators.py."""
    try:
        is_pattern = bool(re.compile(text).pattern)
    except re.error:
        is_pattern = False
    if not is_pattern:
        raise refused(400, f"{_invalid(name, text)} {text!r} is not a 'regex'")


def _invalid(name: str, text: str) -> str:
    return f"Invalid input for query parameters {name}. Value: {text}."
