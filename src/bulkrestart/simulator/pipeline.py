"""What a request passes on its way to a controller, as in Nova's pipeline; each stage may answer in its place.

Versions are told to everybody; then come the token, the path, the microversion, and the project.
"""

import re
from dataclasses import replace
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from bulkrestart.simulator.answers import Answer, RefusedError, json_answer, nova_answer
from bulkrestart.simulator.cloud import Cloud
from bulkrestart.simulator.controllers import Context, Controller
from bulkrestart.simulator.records import Identity, RequestIds
from bulkrestart.simulator.request import Asked
from bulkrestart.simulator.views import Version

#: The first parts of paths that lead to the API.
APIS: Final = ("v2", "v2.1")

_MINIMUM: Final[Version] = (2, 1)


def answer(cloud: Cloud, controller: Controller | None, asked: Asked) -> Answer:
    """Answer what is asked.

    Args:
        cloud: The cloud.
        controller: Where the path leads; None: nowhere.
        asked: The request.
    """
    if document := version_document(cloud, asked):
        return document
    if asked.api not in APIS:
        return _choices(cloud, asked)
    identity = cloud.tokens.get(asked.token)
    if identity is None:
        return _unauthorized(asked)
    if controller is None or re.fullmatch("[0-9a-f-]*", asked.project_id) is None:
        return _no_such_path(asked.accept)
    return answer_identified(cloud, controller, asked, identity)


def answer_identified(cloud: Cloud, controller: Controller, asked: Asked, identity: Identity) -> Answer:
    """Answer what is asked, from the microversion on; who asks is known, and that the path leads somewhere."""
    context = Context(cloud=cloud, identity=identity, version=_MINIMUM, asked=asked)
    if asked.api == "v2":
        # Microversion headers are stripped: nova/api/openstack/__init__.py `LegacyV2CompatibleWrapper`.
        return _control(controller, context)
    return _control_in_version(controller, context)


def version_document(cloud: Cloud, asked: Asked) -> Answer | None:
    """Answer what is asked without a token: which versions there are. None: something else is asked."""
    v2, v21 = _versions(cloud, asked)
    documents = {"": {"versions": [v2, v21]}, "v2": {"version": v2}, "v2.1": {"version": v21}}
    document = documents.get(asked.path.strip("/"))
    return json_answer(200, document) if document else None


def ids(cloud: Cloud, answered: Answer, request_id: str) -> dict[str, str]:
    """Name the headers in which an answer of Nova's carries the id of its request, or a gateway's id in its place."""
    if not answered.from_nova or cloud.request_ids is RequestIds.HIDDEN:
        return {}
    if cloud.request_ids is RequestIds.REPLACED:
        return {"x-openstack-request-id": f"req-{uuid5(NAMESPACE_OID, request_id)}"}
    return {"x-openstack-request-id": request_id, "x-compute-request-id": request_id}


def _versions(cloud: Cloud, asked: Asked) -> tuple[dict[str, object], dict[str, object]]:
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
    return v2, v21


def _choices(cloud: Cloud, asked: Asked) -> Answer:
    """Answer who asks for a version that is none."""
    versions = _versions(cloud, asked)
    choices = [{"id": one["id"], "status": one["status"], "links": one["links"]} for one in versions]
    return json_answer(300, {"choices": choices})


def _unauthorized(asked: Asked) -> Answer:
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


def _control_in_version(controller: Controller, context: Context) -> Answer:
    """Let a controller answer in the microversion that is asked for, if there is one, and say which that was."""
    wanted, version, maximum = context.asked.microversion, _MINIMUM, _parse_version(context.cloud.max_microversion)
    if wanted == "latest":
        version = maximum
    elif wanted:
        try:
            version = _parse_version(wanted)
        except ValueError:
            message = f"API Version String {wanted} is of invalid format. Must be of format MajorNum.MinorNum."
            return nova_answer(400, message)
    written = _write_version(version)
    if _MINIMUM <= version <= maximum:
        answered = _control(controller, replace(context, version=version))
    else:
        answered = nova_answer(
            406,
            f"Version {written} is not supported by the API. "
            f"Minimum is {_write_version(_MINIMUM)} and maximum is {_write_version(maximum)}.",
        )
    headers = {
        "openstack-api-version": f"compute {written}",
        "x-openstack-nova-api-version": written,
        "vary": "OpenStack-API-Version, X-OpenStack-Nova-API-Version",
    }
    return replace(answered, headers={**headers, **answered.headers})


def _control(controller: Controller, context: Context) -> Answer:
    """Let a controller answer, where the path is of the token's project or of none."""
    asked = context.asked
    if asked.project_id not in ("", context.identity.project_id):
        return nova_answer(
            400,
            f"Malformed request URL: URL's project_id '{asked.project_id}' doesn't match Context's project_id "
            f"'{context.identity.project_id}'",
        )
    try:
        return controller(context)
    except RefusedError as error:
        return error.answer


def _parse_version(text: str) -> Version:
    matched = re.fullmatch(r"([1-9]\d*)\.([1-9]\d*|0)", text)
    if matched is None:
        raise ValueError(text)
    return int(matched[1]), int(matched[2])


def _write_version(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
