"""The same cloud behind Huawei Cloud's gateway: who is let through, and in whose words Nova's answer comes out.

Law: what becomes of servers is decided behind it. It sees requests and Nova's answers, and of the cloud who may ask.

Where nothing else is named, words and codes are those of the API reference of ECS ("Error Codes") and of the API
Request Signing Guide ("Error Codes", "Common Errors Related to IAM Authentication Information"). Neither shows an error
of the native OpenStack URLs: that ECS answers there with codes of its own is a guess. On Open Telekom Cloud, Nova's own
403 was seen there (opentelekomcloud/terraform-provider-opentelekomcloud issue 1983).
"""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from starlette.datastructures import QueryParams

from bulkrestart.simulator import controllers
from bulkrestart.simulator.answers import NOT_PUBLISHED, Answer, RefusedError, ecs_answer, gateway_answer
from bulkrestart.simulator.cloud import Cloud
from bulkrestart.simulator.controllers import Controller
from bulkrestart.simulator.pipeline import APIS, answer_identified, version_document
from bulkrestart.simulator.records import Identity
from bulkrestart.simulator.request import Asked

#: Servers on a page unless the request says how many: "Listing ECS Details" of Open Telekom Cloud.
_PAGE: Final = 25

#: How far the time of a signature may be from the gateway's, in seconds.
_SIGNATURE_AGE: Final = 900.0
_SIGNATURE_TIME: Final = "%Y%m%dT%H%M%SZ"
_SIGNED: Final = re.compile(r"SDK-HMAC-SHA256 Access=([^,\s]+),\s*SignedHeaders=[^,\s]+,\s*Signature=[0-9a-f]{64}")

#: Nova's status, what its message holds, and what ECS answers instead; the first row that fits counts. What fits none
#: passes as Nova wrote it, as its 500 was seen to (opentelekomcloud/terraform-provider-opentelekomcloud issue 644).
_TRANSLATIONS: Final = (
    (409, r"is locked$", 400, "Ecs.0605", "ECS locked."),
    # "Other commands are being executed. Try again 1 minute later." is what a running task is in Nova.
    (409, r"in task_state", 501, "Ecs.0603", "The commands are being executed. Try again later."),
    (
        409,
        r"",
        400,
        "Ecs.0100",
        "The ECS status does not meet requirements. Make the ECS in the required status and try again.",
    ),
    # In the words of an answer that the guide to Huawei's command line shows.
    (404, r"Instance (\S+) could not be found", 404, "Ecs.0114", r"Instance[\1] could not be found."),
    # "API Permissions" names the actions that a user may be granted.
    (
        403,
        r"Policy doesn't allow os_compute_api:(?:servers|os-lock-server):(\w+) to be performed",
        403,
        "Pdp.0001",
        r"Policy doesn't allow ecs:servers:\1 to be performed.",
    ),
    (403, r"", 403, "Ecs.0110", "Contact the main account to obtain permission."),
    (400, r"(?s).+", 400, "Ecs.0005", r"\g<0>"),
)


def answer(cloud: Cloud, controller: Controller | None, asked: Asked) -> Answer:
    """Answer what is asked.

    Args:
        cloud: The cloud.
        controller: Where the path leads; None: nowhere.
        asked: The request.
    """
    if document := version_document(cloud, asked):
        return document
    # Every call is documented with a project in its path. That it is looked for before its sender is, is a guess.
    if controller is None or asked.api not in APIS or not asked.project_id:
        return gateway_answer(404, "APIGW.0101", NOT_PUBLISHED, _own_id(asked.request_id))
    try:
        identity = _identify(cloud, asked)
        if asked.project_id != identity.project_id:
            return ecs_answer(400, "Ecs.0023", "project_id in token mismatches with project_id in url.")
        if controller in (controllers.list_brief, controllers.list_detailed):
            asked = _with_limit(asked, cloud.max_limit)
    except RefusedError as error:
        return error.answer
    return _translate(answer_identified(cloud, controller, asked, identity))


def ids(_: Cloud, answered: Answer, request_id: str) -> dict[str, str]:
    """Name the header in which an answer carries the gateway's id of its request; Nova's id is not passed on."""
    return {"x-request-id": _own_id(request_id)}


def _own_id(request_id: str) -> str:
    """Make the gateway's id of a request, from which nobody can tell Nova's."""
    return sha256(request_id.encode()).hexdigest()[:32]


def _identify(cloud: Cloud, asked: Asked) -> Identity:
    """Find out who asks: a signature counts before a token."""
    if asked.authorization.startswith("SDK-HMAC-SHA256 "):
        return _identify_signer(cloud, asked)
    if not asked.token:
        raise _unauthorized(asked, "x-auth-token not found")
    if identity := cloud.tokens.get(asked.token):
        return identity
    if cloud.was_issued(asked.token):
        message = "The token must be updated."
        raise RefusedError(gateway_answer(401, "APIGW.0307", message, _own_id(asked.request_id)))
    raise _unauthorized(asked, "decrypt token fail")


def _identify_signer(cloud: Cloud, asked: Asked) -> Identity:
    """Find out who signed; of the signature only its form and its time are looked at."""
    signed = _SIGNED.fullmatch(asked.authorization)
    try:
        at = datetime.strptime(asked.signed_at, _SIGNATURE_TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        signed = None
    if signed is None:
        raise _unauthorized(asked, "verify aksk signature fail")
    identity = cloud.access_keys.get(signed[1])
    if identity is None:
        # jeessy2/ddns-go issue 844.
        raise _unauthorized(asked, f"ak {signed[1]} not exist")
    # The gateway's clock is the one that it writes the Date by.
    now = cloud.now + cloud.date_skew
    if abs(now - at) > _SIGNATURE_AGE:
        # huaweicloud/huaweicloud-sdk-java-v3 issue 44.
        times = f"signature time:{asked.signed_at},server time:{datetime.fromtimestamp(now, UTC):{_SIGNATURE_TIME}}"
        raise _unauthorized(asked, f"calc aksk signature fail:signature expired, {times}")
    return identity


def _unauthorized(asked: Asked, why: str) -> RefusedError:
    message = f"Incorrect IAM authentication information: {why}"
    return RefusedError(gateway_answer(401, "APIGW.0301", message, _own_id(asked.request_id)))


def _with_limit(asked: Asked, maximum: int) -> Asked:
    """Limit a page of servers that has no limit, and refuse one that is too large.

    The status of the refusal is that of "Pagination Query" in the Chinese API reference; its code stands nowhere.
    """
    limit = asked.query.get("limit", "")
    if re.fullmatch("[0-9]+", limit) and int(limit) > maximum:
        raise RefusedError(ecs_answer(403, "Ecs.0005", f"limit {limit} is over {maximum}"))
    if limit:
        return asked
    query = [(name, text) for name, text in asked.query.multi_items() if name != "limit"]
    return replace(asked, query=QueryParams([*query, ("limit", str(_PAGE))]))


def _translate(answered: Answer) -> Answer:
    """Put ECS's error in the place of Nova's."""
    for status, pattern, ecs_status, code, message in _TRANSLATIONS:
        if answered.status == status and answered.from_nova:
            [fault] = json.loads(answered.body).values()
            if words := re.search(pattern, fault["message"]):
                return ecs_answer(ecs_status, code, words.expand(message))
    return answered
