"""The HTTP face of a `Cloud`: paths, tokens, microversions and the exact words of Nova's answers.

Law: it decides nothing about servers. What it says of them, and what becomes of them, is the cloud's.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final
from urllib.parse import urlencode

import anyio
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from bulkrestart.core.model import RebootType
from bulkrestart.simulator.cloud import Cloud
from bulkrestart.simulator.faults import Answer, Fault, json_answer, nova_answer, unexpected_error
from bulkrestart.simulator.records import (
    Call,
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
from bulkrestart.simulator.views import Version, brief_server, detailed_server, log_row, log_row_with_events

#: A server that can cut a connection puts a function into the scope's extensions under this name; it cuts it at once.
CUT_EXTENSION: Final = "bulkrestart.cut"

_MINIMUM: Final[Version] = (2, 1)
#: nova/api/openstack/compute/schemas/servers.py `reboot`.
_REBOOT_TYPES: Final = ("HARD", "Hard", "hard", "SOFT", "Soft", "soft")
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class LostReplyError(ConnectionError):
    """The reply was lost on its way; what became of the request only the cloud knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request, taken apart; a part that the path does not have is ""."""

    token: str
    api: str
    project_id: str
    server_id: str
    row_id: str
    query: QueryParams
    body: bytes
    accept: str
    microversion: str
    request_id: str
    origin: str
    path: str

    @property
    def base(self) -> str:
        """The URL of the API up to the project."""
        return f"{self.origin}/{self.api}{self.project_path}"

    @property
    def root(self) -> str:
        """The same without the version, where Nova's bookmarks point."""
        return f"{self.origin}{self.project_path}"

    @property
    def project_path(self) -> str:
        """The project as the path has it: Nova serves URLs without one too."""
        return f"/{self.project_id}" if self.project_id else ""


@dataclass(frozen=True, slots=True)
class _Context:
    """What a controller works with."""

    cloud: Cloud
    identity: Identity
    version: Version
    asked: _Asked


class _HttpError(Exception):
    """An answer that ends a controller."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


def _refusal(status: int, message: str) -> _HttpError:
    return _HttpError(nova_answer(status, message))


_Controller = Callable[[_Context], Answer]


def asgi(
    cloud: Cloud,
    *,
    lost: Callable[[str], Exception] = LostReplyError,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> ASGIApp:
    """Make an ASGI application of a cloud; `httpx.ASGITransport` calls it in-process, on asyncio and on trio.

    In-process there is no connection to cut: a lost reply is an exception that the application raises, and that the
    client's call raises in turn. An `httpx` client expects one of its own: `asgi(cloud, lost=httpx.ReadError)`.

    Args:
        cloud: The cloud.
        lost: Makes the exception of a lost reply from one line of text.
        sleep: Waits some seconds, where the cloud's latency or a fault holds an answer back.
    """

    def route(method: str, path: str, call: Call, controller: _Controller) -> Route:
        return Route(path, _endpoint(cloud, call, controller, lost, sleep), methods=[method])

    routes: list[Route] = []
    for prefix in ("/{api}/{project_id}", "/{api}"):
        server = f"{prefix}/servers/{{server_id}}"
        routes += [
            route("POST", f"{server}/action", Call.ACTION, _act),
            route("GET", f"{prefix}/servers/detail", Call.LIST, _list_detailed),
            route("GET", server, Call.SHOW, _show),
            route("GET", f"{server}/os-instance-actions/{{row_id}}", Call.LOG_ROW, _show_row),
            route("GET", f"{server}/os-instance-actions", Call.LOG, _list_rows),
            route("GET", f"{prefix}/servers", Call.LIST, _list_brief),
            route("DELETE", server, Call.ACTION, _delete),
        ]
    # After the others, so that a wrong method comes here too: Nova answers it with 404, not 405.
    routes.append(Route("/{path:path}", _endpoint(cloud, Call.OTHER, None, lost, sleep), methods=_METHODS))
    return Router(routes, redirect_slashes=False)


def _endpoint(
    cloud: Cloud,
    call: Call,
    controller: _Controller | None,
    lost: Callable[[str], Exception],
    sleep: Callable[[float], Awaitable[None]],
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        asked = _take_apart(request, await request.body(), cloud.new_request_id())
        kind = Call.REBOOT if call is Call.ACTION and b'"reboot"' in asked.body else call
        number, fault = cloud.arrive(kind, asked.server_id or None)
        status = None
        try:
            if fault is None:
                answer: Answer | None = _answer(cloud, controller, asked)
            else:
                answer = await _meet(cloud, fault, asked, lambda: _answer(cloud, controller, asked), sleep)
            if cloud.latency:
                await sleep(cloud.latency)
            status = answer.status if answer else None
        finally:
            cloud.leave(number, status)
        if answer is None:
            return _Lost(lost)
        headers = {"date": formatdate(cloud.now + cloud.date_skew, usegmt=True)}
        if answer.from_nova:
            headers |= {"x-openstack-request-id": asked.request_id, "x-compute-request-id": asked.request_id}
        response = Response(answer.body, answer.status, {**headers, **answer.headers})
        return _Lost(lost, response) if fault and fault.cut else response

    return endpoint


async def _meet(
    cloud: Cloud,
    fault: Fault,
    asked: _Asked,
    carry_out: Callable[[], Answer],
    sleep: Callable[[float], Awaitable[None]],
) -> Answer | None:
    """Let a request meet its fault; None: its reply is lost."""
    answers: list[Answer] = []

    def carry_out_once() -> None:
        if not answers:
            answers.append(carry_out())

    if asked.server_id:
        _interfere(cloud, fault, asked.server_id)
    wait = fault.answered_after
    if fault.applied_after:
        # On the cloud's agenda, so that it happens also when the client has gone away meanwhile.
        cloud.later(fault.applied_after, carry_out_once)
        if not fault.lost and not fault.answer:
            wait = max(wait, fault.applied_after)
    elif fault.applied_after is not None:
        carry_out_once()
    if wait:
        await sleep(wait)
    if fault.lost:
        return None
    if fault.answer:
        return fault.answer
    # What fell due during the wait is done first, and then not once more.
    cloud.catch_up()
    carry_out_once()
    return answers[0]


def _interfere(cloud: Cloud, fault: Fault, server_id: str) -> None:
    """Let in what a fault puts just before the request, where the server allows for it."""
    try:
        if fault.task_state and cloud.server(server_id).task_state is None:
            cloud.occupy(server_id, fault.task_state, fault.task_seconds)
        if fault.by_other:
            cloud.reboot_by_other(server_id)
    except (KeyError, ConflictError):
        pass


class _Lost(Response):
    """No reply, or half of one: the connection is cut."""

    def __init__(self, lost: Callable[[str], Exception], half: Response | None = None) -> None:
        super().__init__()
        self._lost = lost
        self._half = half

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._half:
            body = self._half.body
            start = {"type": "http.response.start", "status": self._half.status_code, "headers": self._half.raw_headers}
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body[: len(body) // 2]), "more_body": True})
        cut = scope.get("extensions", {}).get(CUT_EXTENSION)
        if cut is None:
            raise self._lost("the simulated connection was cut before the reply was complete")
        cut()
        # The request was read to its end, so the next message is the disconnect: nothing may be answered before it.
        await receive()


def _take_apart(request: Request, body: bytes, request_id: str) -> _Asked:
    headers, parts, path = request.headers, request.path_params, request.scope["path"]
    return _Asked(
        token=headers.get("x-auth-token", ""),
        api=parts.get("api", path.strip("/").partition("/")[0]),
        project_id=parts.get("project_id", ""),
        server_id=parts.get("server_id", ""),
        row_id=parts.get("row_id", ""),
        query=request.query_params,
        body=body,
        accept=headers.get("accept", ""),
        microversion=_wanted_microversion(
            headers.get("openstack-api-version", ""), headers.get("x-openstack-nova-api-version", "")
        ),
        request_id=request_id,
        origin=f"{request.scope['scheme']}://{headers.get('host', '')}",
        path=path,
    )


def _wanted_microversion(of_all_services: str, of_nova: str) -> str:
    """Read "compute 2.60" or "2.60"; the first counts if it names compute (microversion_parse)."""
    for one in of_all_services.split(","):
        service, _, version = one.strip().partition(" ")
        if service.lower() == "compute":
            return version.strip()
    return of_nova.strip()


def _answer(cloud: Cloud, controller: _Controller | None, asked: _Asked) -> Answer:
    if document := _version_document(cloud, asked):
        return document
    identity = cloud.tokens.get(asked.token)
    if identity is None:
        return _unauthorized(asked)
    if controller is None or re.fullmatch("[0-9a-f-]*", asked.project_id) is None:
        return _no_such_path(asked.accept)
    if asked.api == "v2":
        # Microversion headers are stripped: nova/api/openstack/__init__.py `LegacyV2CompatibleWrapper`.
        return _control(controller, _Context(cloud, identity, _MINIMUM, asked))
    version = _MINIMUM
    maximum = _parse_version(cloud.max_microversion)
    if asked.microversion == "latest":
        version = maximum
    elif asked.microversion:
        try:
            version = _parse_version(asked.microversion)
        except ValueError:
            return nova_answer(
                400,
                f"API Version String {asked.microversion} is of invalid format. Must be of format MajorNum.MinorNum.",
            )
    if _MINIMUM <= version <= maximum:
        answer = _control(controller, _Context(cloud, identity, version, asked))
    else:
        answer = nova_answer(
            406,
            f"Version {_write_version(version)} is not supported by the API. "
            f"Minimum is {_write_version(_MINIMUM)} and maximum is {_write_version(maximum)}.",
        )
    written = _write_version(version)
    headers = {
        "openstack-api-version": f"compute {written}",
        "x-openstack-nova-api-version": written,
        "vary": "OpenStack-API-Version, X-OpenStack-Nova-API-Version",
    }
    return Answer(answer.status, answer.body, {**headers, **answer.headers}, answer.from_nova)


def _control(controller: _Controller, context: _Context) -> Answer:
    asked = context.asked
    if asked.project_id not in ("", context.identity.project_id):
        return nova_answer(
            400,
            f"Malformed request URL: URL's project_id '{asked.project_id}' doesn't match Context's project_id "
            f"'{context.identity.project_id}'",
        )
    try:
        return controller(context)
    except _HttpError as error:
        return error.answer


def _parse_version(text: str) -> Version:
    matched = re.fullmatch(r"([1-9]\d*)\.([1-9]\d*|0)", text)
    if matched is None:
        raise ValueError(text)
    return int(matched[1]), int(matched[2])


def _write_version(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _unauthorized(asked: _Asked) -> Answer:
    """Answer as keystonemiddleware does, which Nova sits behind."""
    message = "The request you have made requires authentication."
    document = {"error": {"code": 401, "title": "Unauthorized", "message": message}}
    return json_answer(401, document, {"www-authenticate": f'Keystone uri="{asked.origin}/identity/v3"'})


def _no_such_path(accept: str) -> Answer:
    """Answer as webob does, in the form that is asked for."""
    if "*/*" in accept or "text/html" in accept:
        page = (
            "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  <h1>404 Not Found</h1>\n"
            "  The resource could not be found.<br /><br />\n\n\n\n </body>\n</html>"
        )
        return Answer(404, page.encode(), {"content-type": "text/html; charset=UTF-8"})
    if "application/json" in accept:
        message = "The resource could not be found.<br /><br />\n\n\n"
        return json_answer(404, {"message": message, "code": "404 Not Found", "title": "Not Found"})
    text = b"404 Not Found\n\nThe resource could not be found.\n\n   "
    return Answer(404, text, {"content-type": "text/plain; charset=UTF-8"})


def _version_document(cloud: Cloud, asked: _Asked) -> Answer | None:
    """Answer what is asked without a token: which versions there are. None: something else is asked."""
    v2: dict[str, object] = {
        "id": "v2.0",
        "status": "SUPPORTED",
        "version": "",
        "min_version": "",
        "updated": "2011-01-21T11:33:21Z",
        "links": [{"rel": "self", "href": f"{asked.origin}/v2/"}],
    }
    v21: dict[str, object] = {
        "id": "v2.1",
        "status": "CURRENT",
        "version": cloud.max_microversion,
        "min_version": _write_version(_MINIMUM),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": f"{asked.origin}/v2.1/"}],
    }
    documents = {"": {"versions": [v2, v21]}, "v2": {"version": v2}, "v2.1": {"version": v21}}
    if document := documents.get(asked.path.strip("/")):
        return json_answer(200, document)
    if asked.api not in ("v2", "v2.1"):
        choices = [{"id": one["id"], "status": one["status"], "links": one["links"]} for one in (v2, v21)]
        return json_answer(300, {"choices": choices})
    return None


def _find(context: _Context, *, with_deleted: bool = False) -> SimulatedServer:
    server_id = context.asked.server_id
    try:
        return context.cloud.find(server_id, context.identity, with_deleted=with_deleted)
    except KeyError:
        raise _refusal(404, f"Instance {server_id} could not be found.") from None


def _show(context: _Context) -> Answer:
    asked = context.asked
    shown = detailed_server(_find(context), context.version, base=asked.base, root=asked.root)
    return json_answer(200, {"server": shown})


def _list_brief(context: _Context) -> Answer:
    asked = context.asked
    return _list(context, lambda server: brief_server(server, base=asked.base, root=asked.root))


def _list_detailed(context: _Context) -> Answer:
    asked = context.asked
    return _list(context, lambda server: detailed_server(server, context.version, base=asked.base, root=asked.root))


def _list(context: _Context, show: Callable[[SimulatedServer], dict[str, object]]) -> Answer:
    cloud, query = context.cloud, context.asked.query
    limit, statuses = _limit(context), query.getlist("status")
    if "DELETED" in (status.upper() for status in statuses) and context.identity.role is not Role.ADMIN:
        raise _refusal(403, "Only administrators may list deleted instances")
    try:
        page = cloud.page(
            context.identity.project_id,
            limit=limit,
            marker=query.get("marker"),
            changes_since=_changes_since(query),
            statuses=statuses,
        )
    except MarkerError:
        raise _refusal(400, f"marker [{query['marker']}] not found") from None
    except StatusError:
        if context.version >= (2, 38):
            raise _refusal(400, "Invalid status value") from None
        page = []
    document: dict[str, object] = {"servers": [show(server) for server in page]}
    if page and len(page) == limit:
        document["servers_links"] = _next(context, page[-1].id)
    return json_answer(200, document)


def _limit(context: _Context) -> int:
    asked = context.asked.query.get("limit", "")
    if re.fullmatch("[0-9]*", asked) is None:
        raise _refusal(
            400, f"Invalid input for query parameters limit. Value: {asked}. '{asked}' does not match '^[0-9]*$'"
        )
    return min(int(asked or context.cloud.max_limit), context.cloud.max_limit)


def _changes_since(query: QueryParams) -> float | None:
    asked = query.get("changes-since")
    if asked is None:
        return None
    try:
        at = datetime.fromisoformat(asked)
    except ValueError:
        raise _refusal(
            400, f"Invalid input for query parameters changes-since. Value: {asked}. '{asked}' is not a 'date-time'"
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _next(context: _Context, marker: str) -> list[dict[str, str]]:
    """Link to the page after a full one, which may turn out to be empty: Nova does not look ahead."""
    asked = context.asked
    query = [(name, value) for name, value in asked.query.multi_items() if name != "marker"]
    query.append(("marker", marker))
    return [{"rel": "next", "href": f"{asked.origin}{asked.path}?{urlencode(query)}"}]


def _readable_log(context: _Context) -> tuple[SimulatedServer, list[LogRow]]:
    cloud = context.cloud
    if cloud.log_access is LogAccess.FORBIDDEN:
        raise _refusal(403, "Policy doesn't allow os_compute_api:os-instance-actions:list to be performed.")
    if cloud.log_access is LogAccess.MISSING:
        raise _HttpError(_NOT_PUBLISHED)
    server = _find(context, with_deleted=context.version >= (2, 21))
    return server, cloud.log(server)


#: What the gateway of Huawei Cloud says of a call that it does not pass on.
_NOT_PUBLISHED: Final = json_answer(
    404,
    {
        "error_msg": "The API does not exist or has not been published in the environment",
        "error_code": "APIGW.0101",
        "request_id": "d4e8174b8df00840aef0c6907ec0e384",
    },
    from_nova=False,
)


#: nova/api/openstack/compute/schemas/instance_actions.py: other than a list of servers, it takes nothing else.
_LOG_QUERY: Final = frozenset({"limit", "marker", "changes-since"})


def _list_rows(context: _Context) -> Answer:
    server, rows = _readable_log(context)
    version, query, resolution = context.version, context.asked.query, context.cloud.log_resolution
    document: dict[str, object] = {}
    if version >= (2, 58):
        if extra := sorted(set(query) - _LOG_QUERY):
            raise _refusal(400, _not_allowed(extra))
        since, marker, limit = _changes_since(query), query.get("marker"), _limit(context)
        rows = [row for row in rows if since is None or row.updated_at >= since]
        if marker:
            ids = [row.request_id for row in rows]
            if marker not in ids:
                # Nova 34 says "None" here, whatever the marker was.
                raise _refusal(400, "Marker None could not be found.")
            rows = rows[ids.index(marker) + 1 :]
        rows = rows[:limit]
        if rows and len(rows) == limit:
            document["links"] = _next(context, rows[-1].request_id)
    shown = [log_row(server, row, version, resolution=resolution) for row in rows]
    return json_answer(200, {"instanceActions": shown, **document})


def _show_row(context: _Context) -> Answer:
    server, rows = _readable_log(context)
    for row in rows:
        if row.request_id == context.asked.row_id:
            shown = log_row_with_events(server, row, context.version, resolution=context.cloud.log_resolution)
            return json_answer(200, {"instanceAction": shown})
    raise _refusal(404, f"Action {context.asked.row_id} not found")


def _act(context: _Context) -> Answer:
    action, argument = _read_action(context.asked.body)
    reboot_type = _read_reboot_type(argument) if action == "reboot" else RebootType.SOFT
    cloud, identity, request_id = context.cloud, context.identity, context.asked.request_id
    server = _find(context)
    if identity.role is Role.READER:
        raise _refusal(403, f"Policy doesn't allow {_POLICIES[action]} to be performed.")
    try:
        if action == "reboot":
            cloud.reboot(server.id, reboot_type, identity=identity, request_id=request_id)
        elif action in ("lock", "unlock"):
            cloud.set_lock(server.id, action == "lock", identity=identity, request_id=request_id)
        else:
            cloud.power(server.id, action == "os-start", identity=identity, request_id=request_id)
    except ConflictError as conflict:
        raise _refusal(409, str(conflict)) from None
    except RaceError:
        return unexpected_error("nova.exception.UnexpectedTaskStateError")
    return Answer(202, b"", {"content-type": "application/json"})


#: The actions that are played, and the policy rule of each.
_POLICIES: Final = {
    "reboot": "os_compute_api:servers:reboot",
    "lock": "os_compute_api:os-lock-server:lock",
    "unlock": "os_compute_api:os-lock-server:unlock",
    "os-start": "os_compute_api:servers:start",
    "os-stop": "os_compute_api:servers:stop",
}


def _read_action(body: bytes) -> tuple[str, object]:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or len(document) != 1:
        raise _refusal(400, "Malformed request body")
    [(action, argument)] = document.items()
    if action not in _POLICIES:
        raise _refusal(400, f"There is no such action: {action}")
    return action, argument


def _not_allowed(names: list[str]) -> str:
    """Say what jsonschema says of properties that it does not know."""
    verb = "was" if len(names) == 1 else "were"
    return f"Additional properties are not allowed ({', '.join(map(repr, names))} {verb} unexpected)"


def _read_reboot_type(argument: object) -> RebootType:
    """Check the argument as Nova's schema does, in the words of its validator."""
    where = f"Invalid input for field/attribute reboot. Value: {argument}."
    if not isinstance(argument, dict):
        raise _refusal(400, f"{where} {argument!r} is not of type 'object'")
    if "type" not in argument:
        raise _refusal(400, f"{where} 'type' is a required property")
    extra = sorted(set(argument) - {"type"})
    if extra:
        raise _refusal(400, f"{where} {_not_allowed(extra)}")
    reboot_type = argument["type"]
    where = f"Invalid input for field/attribute type. Value: {reboot_type}."
    if not isinstance(reboot_type, str):
        raise _refusal(400, f"{where} {reboot_type!r} is not of type 'string'")
    if reboot_type not in _REBOOT_TYPES:
        raise _refusal(400, f"{where} {reboot_type!r} is not one of {list(_REBOOT_TYPES)}")
    return RebootType(reboot_type.upper())


def _delete(context: _Context) -> Answer:
    server = _find(context)
    if context.identity.role is Role.READER:
        raise _refusal(403, "Policy doesn't allow os_compute_api:servers:delete to be performed.")
    context.cloud.delete(server.id)
    return Answer(204)
