"""Nova's controllers: each makes of what is asked a question to the cloud, and of what the cloud says Nova's answer.

Law: they decide nothing about servers. What is said of them, and what becomes of them, is the cloud's.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from bulkrestart.core.model import RebootType
from bulkrestart.simulator.answers import (
    NOT_PUBLISHED,
    Answer,
    RefusedError,
    gateway_answer,
    json_answer,
    refused,
    unexpected_error,
)
from bulkrestart.simulator.cloud import Cloud
from bulkrestart.simulator.queries import not_allowed, read_changes_since, read_filter, read_limit, read_offset
from bulkrestart.simulator.records import (
    ConflictError,
    Identity,
    LogAccess,
    LogRow,
    MarkerError,
    RaceError,
    Role,
    SimulatedServer,
    StatusError,
)
from bulkrestart.simulator.request import Asked
from bulkrestart.simulator.views import (
    Version,
    brief_server,
    detailed_server,
    log_row,
    log_row_with_events,
    server_group,
)

#: nova/api/openstack/compute/schemas/servers.py `reboot`.
_REBOOT_TYPES: Final = ("HARD", "Hard", "hard", "SOFT", "Soft", "soft")

#: The actions that are played, and the policy rule of each.
_POLICIES: Final = {
    "reboot": "os_compute_api:servers:reboot",
    "lock": "os_compute_api:os-lock-server:lock",
    "unlock": "os_compute_api:os-lock-server:unlock",
    "os-start": "os_compute_api:servers:start",
    "os-stop": "os_compute_api:servers:stop",
}

#: nova/api/openstack/compute/schemas/instance_actions.py: other than a list of servers, it takes nothing else.
_LOG_QUERY: Final = frozenset({"limit", "marker", "changes-since"})

#: What a gateway says of a call that it does not pass on.
_NOT_PUBLISHED: Final = gateway_answer(404, "APIGW.0101", NOT_PUBLISHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a controller works with."""

    cloud: Cloud
    identity: Identity
    version: Version
    asked: Asked


Controller = Callable[[Context], Answer]


def show(context: Context) -> Answer:
    """Show a server."""
    asked, cloud = context.asked, context.cloud
    try:
        server = cloud.view(asked.server_id, context.identity)
    except KeyError:
        raise _no_such_server(asked.server_id) from None
    shown = detailed_server(server, context.version, base=asked.base, root=asked.root)
    return json_answer(200, {"server": shown})


def list_brief(context: Context) -> Answer:
    """List servers by id and name."""
    asked = context.asked
    return _list(context, lambda server: brief_server(server, base=asked.base, root=asked.root))


def list_detailed(context: Context) -> Answer:
    """List servers whole."""
    asked = context.asked
    return _list(context, lambda server: detailed_server(server, context.version, base=asked.base, root=asked.root))


def delete(context: Context) -> Answer:
    """Delete a server."""
    server = _find(context)
    if context.identity.role is Role.READER:
        raise refused(403, "Policy doesn't allow os_compute_api:servers:delete to be performed.")
    context.cloud.delete(server.id)
    return Answer(204)


def act(context: Context) -> Answer:
    """Carry out the one action that the body names."""
    action, argument = _read_action(context.asked.body)
    reboot_type = _read_reboot_type(argument) if action == "reboot" else RebootType.SOFT
    cloud, identity, request_id = context.cloud, context.identity, context.asked.request_id
    server = _find(context)
    if identity.role is Role.READER:
        raise refused(403, f"Policy doesn't allow {_POLICIES[action]} to be performed.")
    try:
        if action == "reboot":
            number = context.asked.number
            cloud.reboot(server.id, reboot_type, identity=identity, request_id=request_id, send=number)
        elif action in ("lock", "unlock"):
            cloud.set_lock(server.id, action == "lock", identity=identity, request_id=request_id)
        else:
            cloud.power(server.id, action == "os-start", identity=identity, request_id=request_id)
    except ConflictError as conflict:
        if cloud.busy_answer is not None and conflict.is_busy:
            raise RefusedError(cloud.busy_answer) from None
        raise refused(409, str(conflict)) from None
    except RaceError:
        return unexpected_error("nova.exception.UnexpectedTaskStateError")
    return Answer(202, b"", {"content-type": "application/json"})


def list_rows(context: Context) -> Answer:
    """List the action log of a server; from 2.58 on in pages."""
    server, rows = _readable_log(context)
    version, query, resolution = context.version, context.asked.query, context.cloud.log_resolution
    document: dict[str, object] = {}
    if version >= (2, 58):
        if extra := sorted(set(query) - _LOG_QUERY):
            raise refused(400, not_allowed(extra))
        since, marker = read_changes_since(query), query.get("marker")
        limit = read_limit(query, context.cloud.max_limit)
        rows = [row for row in rows if since is None or row.updated_at >= since]
        if marker:
            ids = [row.request_id for row in rows]
            if marker not in ids:
                # Nova 34 says "None" here, whatever the marker was.
                raise refused(400, "Marker None could not be found.")
            rows = rows[ids.index(marker) + 1 :]
        rows = rows[:limit]
        if rows and len(rows) == limit:
            document["links"] = _next(context, rows[-1].request_id)
    shown = [log_row(server, row, version, resolution=resolution) for row in rows]
    return json_answer(200, {"instanceActions": shown, **document})


def show_row(context: Context) -> Answer:
    """Show one row of the action log of a server."""
    server, rows = _readable_log(context)
    for row in rows:
        if row.request_id == context.asked.row_id:
            shown = log_row_with_events(server, row, context.version, resolution=context.cloud.log_resolution)
            return json_answer(200, {"instanceAction": shown})
    raise refused(404, f"Action {context.asked.row_id} not found")


def list_groups(context: Context) -> Answer:
    """List the server groups of the project, in pages by number (nova/api/openstack/compute/server_groups.py)."""
    query, cloud = context.asked.query, context.cloud
    limit, offset = read_limit(query, cloud.max_limit), read_offset(query)
    groups = list(cloud.groups(context.identity.project_id).items())[offset : offset + limit]
    owner = {"project_id": context.identity.project_id, "user_id": cloud.user_id}
    shown = [server_group(name, members, context.version, **owner) for name, members in groups]
    return json_answer(200, {"server_groups": shown})


def _find(context: Context, *, with_deleted: bool = False) -> SimulatedServer:
    server_id = context.asked.server_id
    try:
        return context.cloud.find(server_id, context.identity, with_deleted=with_deleted)
    except KeyError:
        raise _no_such_server(server_id) from None


def _no_such_server(server_id: str) -> RefusedError:
    return refused(404, f"Instance {server_id} could not be found.")


def _list(context: Context, view: Callable[[SimulatedServer], dict[str, object]]) -> Answer:
    cloud, query, identity = context.cloud, context.asked.query, context.identity
    limit = read_limit(query, cloud.max_limit)
    only = read_filter(query, context.version, is_admin=identity.role is Role.ADMIN)
    if "DELETED" in (status.upper() for status in only.statuses) and identity.role is not Role.ADMIN:
        raise refused(403, "Only administrators may list deleted instances")
    try:
        page = cloud.page(identity.project_id, limit=limit, marker=query.get("marker"), only=only)
    except MarkerError:
        raise refused(400, f"marker [{query['marker']}] not found") from None
    except StatusError:
        if context.version >= (2, 38):
            raise refused(400, "Invalid status value") from None
        page = []
    document: dict[str, object] = {"servers": [view(server) for server in page]}
    if page and len(page) == limit:
        document["servers_links"] = _next(context, page[-1].id)
    return json_answer(200, document)


def _next(context: Context, marker: str) -> list[dict[str, str]]:
    """Link to the page after a full one, which may turn out to be empty: Nova does not look ahead."""
    asked = context.asked
    query = [(name, value) for name, value in asked.query.multi_items() if name != "marker"]
    query.append(("marker", marker))
    return [{"rel": "next", "href": f"{asked.origin}{asked.path}?{urlencode(query)}"}]


def _readable_log(context: Context) -> tuple[SimulatedServer, list[LogRow]]:
    cloud = context.cloud
    if cloud.log_access is LogAccess.FORBIDDEN:
        raise refused(403, "Policy doesn't allow os_compute_api:os-instance-actions:list to be performed.")
    if cloud.log_access is LogAccess.MISSING:
        raise RefusedError(_NOT_PUBLISHED)
    server = _find(context, with_deleted=context.version >= (2, 21))
    return server, cloud.log(server)


def _read_action(body: bytes) -> tuple[str, object]:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or len(document) != 1:
        raise refused(400, "Malformed request body")
    [(action, argument)] = document.items()
    if action not in _POLICIES:
        raise refused(400, f"There is no such action: {action}")
    return action, argument


def _read_reboot_type(argument: object) -> RebootType:
    """Check the argument as Nova's schema does, in the words of its validator."""
    where = f"Invalid input for field/attribute reboot. Value: {argument}."
    if not isinstance(argument, dict):
        raise refused(400, f"{where} {argument!r} is not of type 'object'")
    if "type" not in argument:
        raise refused(400, f"{where} 'type' is a required property")
    extra = sorted(set(argument) - {"type"})
    if extra:
        raise refused(400, f"{where} {not_allowed(extra)}")
    reboot_type = argument["type"]
    where = f"Invalid input for field/attribute type. Value: {reboot_type}."
    if not isinstance(reboot_type, str):
        raise refused(400, f"{where} {reboot_type!r} is not of type 'string'")
    if reboot_type not in _REBOOT_TYPES:
        raise refused(400, f"{where} {reboot_type!r} is not one of {list(_REBOOT_TYPES)}")
    return RebootType(reboot_type.upper())
