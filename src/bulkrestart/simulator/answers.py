"""Answers as they go on the wire: any, JSON documents, and Nova's errors."""

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
        from_nova: Whether Nova made it, so that it carries the request id; a gateway's does not.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    from_nova: bool = True


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


def unexpected_error(exception: str) -> Answer:
    """Make Nova's 500 for an exception that no controller expects."""
    return nova_answer(
        500,
        "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log "
        f"if possible.\n<class '{exception}'>",
    )
