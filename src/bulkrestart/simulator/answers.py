"""Answers as they go on the wire: any, JSON documents, and the errors of Nova, of ECS, and of its gateway."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it goes on the wire, whatever its shape.

    Attributes:
        status: The HTTP status.
        body: The bytes of the body.
        headers: Headers, by lower-case name, beside the Date that the cloud adds; one named here replaces the cloud's.
        from_nova: Whether Nova made it, so that it carries Nova's id of the request; a gateway's does not.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    from_nova: bool = True


#: What Huawei Cloud's gateway says of a call that it does not pass on.
NOT_PUBLISHED: Final = "The API does not exist or has not been published in the environment"

#: A gateway's id of a request, where the request is not at hand.
SAMPLE_REQUEST_ID: Final = "d4e8174b8df00840aef0c6907ec0e384"

#: nova/api/openstack/wsgi.py `Fault._fault_names`; any other status is a computeFault.
_FAULT_NAMES: Final = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def json_answer(
    status: int, document: object, headers: Mapping[str, str] | None = None, *, from_nova: bool = True
) -> Answer:
    """Make an answer of a JSON document."""
    all_headers = {"content-type": "application/json", **(headers or {})}
    return Answer(status, json.dumps(document).encode(), all_headers, from_nova)


def nova_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Make Nova's error answer: an object whose one key is the name of the fault."""
    name = _FAULT_NAMES.get(status, "computeFault")
    return json_answer(
        status,
        {name: {"code": status, "message": message}},
        {"content-type": "application/json; charset=UTF-8", **(headers or {})},
    )


class RefusedError(Exception):
    """Raised in place of an answer, by whatever refuses a request.

    Attributes:
        answer: What is answered instead.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


def refused(status: int, message: str) -> RefusedError:
    """Refuse a request in Nova's words."""
    return RefusedError(nova_answer(status, message))


def ecs_answer(status: int, code: str, message: str) -> Answer:
    """Make the error answer of Huawei Cloud's ECS: an object named error, with a code of its own."""
    return json_answer(status, {"error": {"code": code, "message": message}}, from_nova=False)


def gateway_answer(status: int, code: str, message: str, request_id: str = SAMPLE_REQUEST_ID) -> Answer:
    """Make the error answer of Huawei Cloud's gateway; its id of the request is in the body and in a header."""
    document = {"error_msg": message, "error_code": code, "request_id": request_id}
    return json_answer(status, document, {"x-request-id": request_id}, from_nova=False)


def gateway_throttled(limit: int, time: str) -> Answer:
    """Make the gateway's answer to a call too many: it names the window, "1 minute", and has no Retry-After."""
    message = f"The throttling threshold has been reached: policy user over ratelimit,limit:{limit},time:{time}"
    return gateway_answer(429, "APIGW.0308", message)


def unexpected_error(exception: str) -> Answer:
    """Make Nova's 500 for an exception that no controller expects."""
    return nova_answer(
        500,
        "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log "
        f"if possible.\n<class '{exception}'>",
    )
