"""Every answer becomes one fault: the bodies that clouds are documented or were seen to send, and any other bytes."""

import json
from collections.abc import Callable, Mapping

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkrestart.core.faults import Body, Fault, cloud_time, read_fault

SERVER = "616fb98f-46ca-475e-917e-2563e5a8cd19"
REQUEST = "req-7f1b3c62-9b43-4a0e-8f0c-0d2f3c1a5b77"
OTHER_REQUEST = "req-0b7e9f1c-3d55-4a55-9d1e-0c6d7f2b8a10"
NOW = "Mon, 23 Nov 2026 18:00:00 GMT"
NOW_EPOCH = 1795456800.0


def fault_of(status: int, document: object, headers: Mapping[str, str] | None = None) -> Fault:
    """Read the fault of an answer with a JSON body."""
    return read_fault(status, headers or {}, json.dumps(document).encode())


# nova/api/openstack/wsgi.py Fault._fault_names; the messages are those of the reboot action.
NOVA = [
    (400, "badRequest", "Invalid input for field/attribute type. Value: x. 'x' is not one of ['SOFT', 'HARD']"),
    (403, "forbidden", "Policy doesn't allow os_compute_api:servers:reboot to be performed."),
    (404, "itemNotFound", f"Instance {SERVER} could not be found."),
    (405, "badMethod", "Method not allowed"),
    (406, "computeFault", "Version 9.9 is not supported by the API. Minimum is 2.1 and maximum is 2.60."),
    (409, "conflictingRequest", f"Cannot 'reboot' instance {SERVER} while it is in task_state reboot_started"),
    (409, "conflictingRequest", f"Cannot 'reboot' instance {SERVER} while it is in vm_state stopped"),
    (409, "conflictingRequest", f"Instance {SERVER} is in an invalid state for 'reboot'"),
    (409, "conflictingRequest", f"Instance {SERVER} is locked"),
    (413, "overLimit", "This request was rate-limited."),
    (415, "badMediaType", "Unsupported Content-Type"),
    (429, "overLimit", "This request was rate-limited."),
    (500, "computeFault", "Unexpected API Error. <class 'nova.exception.UnexpectedTaskStateError'>"),
    (501, "notImplemented", "Unable to use the feature"),
    (503, "serviceUnavailable", "The server is currently unavailable."),
]


@pytest.mark.parametrize(("status", "name", "message"), NOVA, ids=[f"{row[0]}-{row[2][:30]}" for row in NOVA])
def test_nova_envelope_names_the_code(status: int, name: str, message: str) -> None:
    """Nova's number repeats the status, so the name of its envelope is the code; its words are kept as they are."""
    fault = fault_of(status, {name: {"code": status, "message": message}}, {"x-compute-request-id": REQUEST})

    assert fault == Fault(code=name, message=message, request_id=REQUEST, body=Body.JSON)


# The ECS API reference of Open Telekom Cloud, appendix "Error Codes"; Common.1503 is a 503 in Huawei Cloud's.
# APIG. and APIGW.: the error codes of the API Gateway user guide, in both clouds' spelling.
VENDOR = [
    (400, "Ecs.0000", "Request error. Try again later or contact customer service."),
    (400, "Ecs.0005", "Invalid parameter values."),
    (403, "Ecs.0003", "You do not have permission to perform this operation."),
    (400, "Ecs.0023", "project_id in token mismatches with project_id in url."),
    (400, "Common.0018", "project_id in token mismatches with project_id in url."),
    (400, "Ecs.0100", "The ECS status does not meet requirements. Make the ECS in the required status and try again."),
    (404, "Ecs.0114", "The ECS does not exist."),
    (404, "Ecs.0614", "The ECS does not exist."),
    (400, "Ecs.0118", "The number of ECSs exceeds the maximum allowed limit."),
    (400, "Ecs.0227", "Failed to reboot."),
    (501, "Ecs.0603", "The commands are being executed. Try again later."),
    (400, "Ecs.0605", "ECS locked."),
    (400, "Ecs.0611", "Batch operation failed."),
    (400, "Ecs.1002", "OpenStack access timed out."),
    (403, "Pdp.0001", "Policy does not allow ecs:servers:reboot to be performed."),
    (401, "Common.0013", "Invalid token."),
    (500, "Common.0001", "A system exception occurred."),
    (202, "Common.0024", "Flow limit exceeded."),
    (429, "Common.1503", "Api flow control Error because of too many requests."),
    (503, "Common.1503", "Api flow control Error because of too many requests."),
    (404, "APIG.0101", "The API does not exist or has not been published in the environment."),
    (502, "APIG.0201", "Backend unavailable."),
    (504, "APIG.0203", "Backend timeout."),
    (401, "APIGW.0301", "Incorrect IAM authentication information: verify aksk signature fail"),
    (401, "APIG.0307", "The token must be updated."),
    (429, "APIG.0308", "The throttling threshold has been reached."),
    (429, "APIGW.0308", "The throttling threshold has been reached."),
    (503, "APIG.0613", "IAM is unavailable."),
]
SPELLINGS: dict[str, Callable[[str, str], object]] = {
    "ECS v1": lambda code, message: {"error": {"code": code, "message": message}},
    "gateway": lambda code, message: {"error_msg": message, "error_code": code, "request_id": "d4e8174b8df00840aef0"},
    "Huawei SDK": lambda code, message: {"errorCode": code, "errorMsg": message},
    "ShowJob": lambda code, message: {"code": code, "message": message},
    "unknown envelope": lambda code, message: {"fault": {"code": code, "message": message}},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("status", "code", "message"), VENDOR, ids=[f"{row[0]}-{row[1]}" for row in VENDOR])
def test_vendor_code_is_kept_in_every_spelling(status: int, code: str, message: str, spelling: str) -> None:
    """A code of the vendor's is read as it stands in every documented spelling, and on a 2xx too."""
    document = SPELLINGS[spelling](code, message)

    assert fault_of(status, document) == Fault(code=code, message=message, body=Body.JSON)


# "Returned Values for General Requests" and the appendix "HTTP Status Codes" of the same reference.
@pytest.mark.parametrize(
    "status",
    [200, 201, 202, 204, 300, 400, 401, 403, 404, 405, 406, 407, 408, 409, 413, 415, 429, 500, 501, 502, 503, 504],
)
def test_status_alone_says_nothing(status: int) -> None:
    """An answer without a body has no code: its status is the caller's to read."""
    assert read_fault(status, {}, b"") == Fault()


# Each row names where the shape comes from.
SHAPES = [
    pytest.param(
        401,
        {"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires it."}},
        ("Unauthorized", "The request you have made requires it."),
        id="keystonemiddleware: title in place of the number",
    ),
    pytest.param(401, {"error": {"code": 401, "message": "No."}}, ("401", "No."), id="Keystone without a title"),
    pytest.param(401, {"error": {"code": 401, "title": 7, "message": "No."}}, ("7", "No."), id="a title of digits"),
    pytest.param(
        429,
        {"error": {"status": "429 Too Many Requests", "message": "Too Many Requests"}},
        ("error", "Too Many Requests"),
        id="OVH gateway: names no code",
    ),
    pytest.param(
        400,
        {
            "internalError": [{"id": SERVER, "error_code": "ECS.0605", "error_message": "locked"}],
            "error": {"code": "Ecs.0611", "message": "Batch operation failed."},
        },
        ("Ecs.0611", "Batch operation failed."),
        id="ECS v1 batch: the outer code",
    ),
    pytest.param(
        400,
        {"internalError": [{"id": SERVER, "error_code": "ECS.0605", "error_message": "locked"}]},
        ("ECS.0605", "locked"),
        id="ECS v1 batch without an outer code",
    ),
    pytest.param(
        400,
        {"error": {"code": "Ecs.0000", "message": "outer", "details": [{"code": "Ecs.0605", "message": "inner"}]}},
        ("Ecs.0000", "outer"),
        id="ECS v1 details: the outer code",
    ),
    pytest.param(
        400,
        {"error": {"code": "", "message": "outer", "details": [{"code": "Ecs.0605", "message": "inner"}]}},
        ("Ecs.0605", "inner"),
        id="ECS v1 details with an empty outer code",
    ),
    pytest.param(
        400,
        {"items": [{"code": "A", "message": "b"}]},
        ("", '{"items": [{"code": "A", "message": "b"}]}'),
        id="other list",
    ),
    pytest.param(400, {"a": {"b": {"code": "X.1", "message": "m"}}}, ("X.1", "m"), id="Huawei SDK: any depth"),
    pytest.param(
        400,
        {"a": {"code": "X.1", "message": "inner"}, "error_code": "X.0", "error_msg": "outer"},
        ("X.0", "outer"),
        id="the outermost first",
    ),
    pytest.param(
        400,
        {"code": "third", "message": "m", "errorCode": "second", "error_code": "first", "error_msg": "e"},
        ("first", "e"),
        id="Huawei SDK: order of the spellings",
    ),
    pytest.param(
        403, {"error": {"code": "Ecs.0003"}}, ("Ecs.0003", '{"error": {"code": "Ecs.0003"}}'), id="no message"
    ),
    pytest.param(404, {"itemNotFound": {"message": "gone"}}, ("itemNotFound", "gone"), id="Nova without its number"),
    pytest.param(404, {"itemNotFound": {"code": "404", "message": "x"}}, ("itemNotFound", "x"), id="number as text"),
    pytest.param(
        404,
        {"status": 404, "error": "Not Found", "message": "No handler", "path": "/v2"},
        ("error", "No handler"),
        id="error as text, message beside it",
    ),
    pytest.param(403, {"error": "denied"}, ("error", "denied"), id="error as text"),
    pytest.param(404, {"message": "no Route matched"}, ("", "no Route matched"), id="a message and no code"),
    pytest.param(404, {"code": "A"}, ("", '{"code": "A"}'), id="a bare code is not an error's"),
    pytest.param(404, {"error": None, "code": True, "message": 1}, ("", "1"), id="code that is no text"),
    pytest.param(
        400, {"error_code": None, "error_msg": None}, ("", '{"error_code": null, "error_msg": null}'), id="nulls"
    ),
    pytest.param(404, {}, ("", ""), id="empty object"),
    pytest.param(404, ["a"], ("", '["a"]'), id="list"),
    pytest.param(404, "gone", ("", '"gone"'), id="scalar"),
    pytest.param(404, None, ("", ""), id="null"),
]


@pytest.mark.parametrize(("status", "document", "expected"), SHAPES)
def test_shape_of_a_refusal(status: int, document: object, expected: tuple[str, str]) -> None:
    """The outermost code is the code; a refusal without a message shows its body."""
    fault = fault_of(status, document)

    assert (fault.code, fault.message, fault.body) == (*expected, Body.JSON)


SUCCESSES = [
    pytest.param({}, "", id="empty object"),
    pytest.param([], "", id="list"),
    pytest.param({"job_id": "ff80808288d41e1b018990260955686a", "error": None, "error_code": None}, "", id="nulls"),
    pytest.param({"message": "delivered"}, "", id="a message and no code"),
    pytest.param({"server": {"fault": {"code": 500, "message": "No valid host"}}}, "", id="a server's past fault"),
    pytest.param({"server": {"metadata": {"error_code": "a", "error_msg": "b"}}}, "", id="a server's metadata"),
    pytest.param({"servers": [{"code": "a", "message": "b"}]}, "", id="a page"),
    pytest.param({"instanceAction": {"action": "reboot", "message": "Error"}}, "", id="a row of the action log"),
    pytest.param({"error": {"status": "429 Too Many Requests"}}, "error", id="an error without a code"),
    pytest.param({"overLimit": {"code": 413, "message": "wait"}}, "overLimit", id="Nova's envelope"),
    pytest.param({"error_code": "Common.0024"}, "Common.0024", id="a code without a message"),
]


@pytest.mark.parametrize(("document", "code"), SUCCESSES)
@pytest.mark.parametrize("status", [200, 202, 299])
def test_success_has_a_code_only_if_the_answer_itself_is_an_error(status: int, document: object, code: str) -> None:
    """A 2xx that names no error has neither code nor message; what it shows of a server is not its own fault."""
    fault = fault_of(status, document)

    assert fault.code == code
    assert bool(fault.message) == bool(code)


NOT_JSON = [
    pytest.param(b"", Body.EMPTY, "", id="empty"),
    pytest.param(b" \r\n", Body.EMPTY, "", id="white space"),
    pytest.param(b"\xef\xbb\xbf", Body.EMPTY, "", id="nothing but a BOM"),
    pytest.param(b"upstream connect error", Body.OTHER, "upstream connect error", id="a proxy's text"),
    pytest.param(
        b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502</h1></body></html>",
        Body.OTHER,
        "502 Bad Gateway",
        id="nginx: the title",
    ),
    pytest.param(
        b"<!DOCTYPE html><TITLE lang='en'>Sign in &amp; go\n on</TITLE><p>Hello",
        Body.OTHER,
        "Sign in & go on",
        id="login",
    ),
    pytest.param(
        b"<html><!-- <title>no</title> --><style>p{}</style><script>let a = '<b>'</script><h1>503</h1><p>No server",
        Body.OTHER,
        "503 No server",
        id="haproxy: no title, the text",
    ),
    pytest.param(b"<html><title> </title><p>Busy</p>", Body.OTHER, "Busy", id="empty title"),
    pytest.param(b"<html><script>never closed", Body.OTHER, "", id="nothing to read"),
    pytest.param(b"<p>&#" + b"9" * 5000 + b";", Body.OTHER, "\ufffd", id="an entity of 5000 digits"),
    pytest.param(
        b'{"error": {"message": "", "code": XXX,""}}',
        Body.OTHER,
        '{"error": {"message": "", "code": XXX,""}}',
        id="OTC's sample",
    ),
    pytest.param(
        b'{"conflictingRequest": {"code": 409, "mes',
        Body.OTHER,
        '{"conflictingRequest": {"code": 409, "mes',
        id="truncated",
    ),
    pytest.param(b"caf\xe9 \xff", Body.OTHER, "caf\ufffd \ufffd", id="not UTF-8"),
    pytest.param(b"\x00\x1b[31mred\x07 \xe2\x80\xaetxt", Body.OTHER, "[31mred txt", id="control characters"),
]


@pytest.mark.parametrize(("body", "kind", "message"), NOT_JSON)
@pytest.mark.parametrize("status", [202, 502])
def test_body_that_is_not_json(status: int, body: bytes, kind: Body, message: str) -> None:
    """What is not JSON has no code, and its message is the title or the text and never the page."""
    assert read_fault(status, {}, body) == Fault(message=message, body=kind)


def test_deep_nesting_is_not_json() -> None:
    """A body too deep to be read counts as unreadable, not as an error of ours."""
    fault = read_fault(202, {}, b'{"error":' * 200_000)

    assert (fault.code, fault.body) == ("", Body.OTHER)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        pytest.param(b'\xef\xbb\xbf{"error_code":"A.1","error_msg":"m"}', "A.1", "m", id="BOM"),
        pytest.param(b'{"error_code":"A.1","error_msg":"caf\xe9"}', "A.1", "caf\ufffd", id="not UTF-8"),
        pytest.param(b'{"error_code":"A.1","error_code":"A.2","error_msg":"m"}', "A.2", "m", id="duplicate keys"),
        pytest.param(b'{"error_code":"A.1","error_msg":"m","n":' + b"1" * 5000 + b"}", "A.1", "m", id="huge int"),
        pytest.param(b'{"forbidden":{"code":1e999,"message":"m"}}', "1e999", "m", id="number that is no status"),
        pytest.param(b'{"error":{"code":NaN,"message":"m"}}', "NaN", "m", id="NaN"),
        pytest.param(b'{"error_code":"A.1","error_msg":"a\\ud800\\u0000b"}', "A.1", "ab", id="lone surrogate"),
        pytest.param(
            b'{"error_code":" A.1\\n","error_msg":" a \\n\\t b\\u2028c\\u0085 "}', "A.1", "a b c", id="white space"
        ),
        pytest.param(b'{"error_code":"' + b"A." * 99 + b'","error_msg":"m"}', "A." * 49 + "A…", "m", id="long code"),
    ],
)
def test_json_that_is_odd(body: bytes, code: str, message: str) -> None:
    """Odd JSON is read as far as it can be, into one printable line."""
    fault = read_fault(400, {}, body)

    assert (fault.code, fault.message, fault.body) == (code, message, Body.JSON)


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", ""), (b'{"error_code":"Common.00', ""), (b'{"error_code":"Common.0024","error_msg":"m"}', "Common.0024")],
)
def test_cut_short_body_is_called_so_and_read_as_far_as_it_came(body: bytes, code: str) -> None:
    """The connection's early end outweighs what the bytes look like; a code that did come is not lost."""
    fault = read_fault(202, {}, body, is_cut_short=True)

    assert (fault.code, fault.body) == (code, Body.CUT_SHORT)


def test_long_message_is_cut_with_an_ellipsis() -> None:
    """A message is at most 500 characters, and shows that it was cut."""
    message = fault_of(500, {"computeFault": {"code": 500, "message": "word " * 300}}).message

    assert len(message) <= 500
    assert message.endswith("word…")


TOKEN = "gAAAAABn" + "Zx9_-k" * 30


@pytest.mark.parametrize(
    ("body", "message"),
    [
        # Named by a word, as Keystone and debugging proxies do.
        ('{"error":{"message":"Could not find token: 6c2cdeadbeef4d9bb3a8","code":404}}', "Could not find token: …"),
        ('{"error":{"message":"Bad X-Auth-Token=abcdefghijkl.","code":401}}', "Bad X-Auth-Token=…"),
        ('{"headers": {"X-Auth-Token": "abcdefghijklm"}}', '{"headers": {"X-Auth-Token": "…"}}'),
        ("Authorization: Bearer abcdefghijklm failed", "Authorization: Bearer … failed"),
        ("to\x00ken:\n abcdefghijklm", "token: …"),
        # Known by its length: a Fernet token, an SDK-HMAC-SHA256 signature.
        (f"I saw {TOKEN} here", "I saw … here"),
        (f"Mismatch {'0a' * 32}", "Mismatch …"),
        # Words and ids stay.
        ("The token must be updated.", "The token must be updated."),
        ("Invalid token: expired", "Invalid token: expired"),
        (f"Instance {SERVER} is locked", f"Instance {SERVER} is locked"),
    ],
)
def test_message_carries_no_secret(body: str, message: str) -> None:
    """A token or a signature that an answer echoes does not reach the message; ids and words do."""
    assert read_fault(401, {}, body.encode()).message == message


def test_headers_do_not_reach_the_message() -> None:
    """No header is ever echoed."""
    headers = {
        "www-authenticate": "Keystone uri=x",
        "x-request-id": "d4e8",
        "set-cookie": "a=b",
        "location": "/sign-in",
    }

    assert read_fault(401, headers, b"") == Fault()


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"x-compute-request-id": REQUEST}, REQUEST),
        ({"x-openstack-request-id": REQUEST}, REQUEST),
        ({"x-compute-request-id": REQUEST, "x-openstack-request-id": OTHER_REQUEST}, REQUEST),
        ({"x-compute-request-id": "4711", "x-openstack-request-id": REQUEST}, REQUEST),
        ({"x-openstack-request-id": f"{REQUEST}, {REQUEST}"}, REQUEST),
        ({"x-openstack-request-id": f"d4e8174b, {REQUEST}"}, REQUEST),
        ({"x-openstack-request-id": f"{REQUEST}, {OTHER_REQUEST}"}, None),
        ({"x-openstack-request-id": "req-../../servers"}, None),
        ({"x-openstack-request-id": "req-" + "a" * 65}, None),
        ({"x-openstack-request-id": ""}, None),
        ({"x-request-id": REQUEST}, None),
        ({}, None),
    ],
)
def test_request_id_is_one_that_the_action_log_can_show(headers: dict[str, str], request_id: str | None) -> None:
    """Only Nova's own id counts: a gateway's, a doubtful or a malformed one would never be found in the log."""
    fault = fault_of(500, {"error_code": "APIG.0201", "error_msg": "m", "request_id": OTHER_REQUEST}, headers)

    assert (fault.request_id, fault.message) == (request_id, "m")


WINDOW = "The throttling threshold has been reached: policy user over ratelimit,limit:{}"
WINDOWS = [
    # huaweicloud/terraform-provider-huaweicloud#1335 (VPC)
    (WINDOW.format("200,time:5 minute"), 300.0),
    # DataArts FAQ of Open Telekom Cloud (MRS)
    (WINDOW.format("60,time:1 minute"), 60.0),
    # seen for writes of CCE: with a space
    (WINDOW.format("10, time:1 minute"), 60.0),
    (WINDOW.format("200,time:1 second").replace("policy user", "policy api"), 1.0),
    (WINDOW.format("200,time:2 hour"), 7200.0),
    (WINDOW.format("200,time:1 DAY"), 86400.0),
    (WINDOW.format("200,time:1 week"), None),
    (WINDOW.format("200,time:-1 minute"), None),
    (WINDOW.format("200,time:" + "9" * 5000 + " minute"), None),
    ("The throttling threshold has been reached", None),
]


@pytest.mark.parametrize(("message", "seconds"), WINDOWS, ids=[row[0][-20:] for row in WINDOWS])
def test_window_of_the_gateway_is_waited_for_as_a_whole(message: str, seconds: float | None) -> None:
    """The gateway's window is the wait: a limit's share of it would be too short after a burst."""
    document = {"error_msg": message, "error_code": "APIGW.0308", "request_id": "d4e8174b8df00840aef0c6907ec0e384"}

    assert fault_of(429, document).retry_after == seconds


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        # RFC 9110 section 10.2.3: delay-seconds; fractions are not in it, and are sent.
        ("120", None, 120.0),
        ("0", None, 0.0),
        ("1.5", None, 1.5),
        (" 7 ", None, 7.0),
        # A header that came twice: never undercut.
        ("5, 10", None, 10.0),
        # RFC 9110 section 5.6.7: the three forms of a date.
        ("Mon, 23 Nov 2026 18:00:30 GMT", NOW, 30.0),
        ("Monday, 23-Nov-26 18:00:30 GMT", NOW, 30.0),
        ("Mon Nov 23 18:00:30 2026", NOW, 30.0),
        ("Mon, 23 Nov 2026 19:00:30 +0100", NOW, 30.0),
        (NOW, NOW, 0.0),
        # A date that has passed, and one without a clock to read it by.
        ("Mon, 23 Nov 2026 17:59:59 GMT", NOW, None),
        ("Mon, 23 Nov 2026 18:00:30 GMT", None, None),
        ("Mon, 23 Nov 2026 18:00:30 GMT", "yesterday", None),
        ("-5", None, None),
        ("+5", None, 5.0),
        ("nan", None, None),
        ("inf", None, None),
        ("1e3", None, None),
        ("1_000", None, None),
        ("٣", None, None),
        ("9" * 400, None, None),
        ("", NOW, None),
        ("soon", NOW, None),
        ("5, soon", NOW, None),
    ],
)
def test_retry_after_header(value: str, date: str | None, seconds: float | None) -> None:
    """Retry-After is seconds, or a date by the same answer's clock; nonsense is no wait at all."""
    headers = {"retry-after": value} | ({"date": date} if date else {})

    assert read_fault(503, headers, b"").retry_after == seconds


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"x-ratelimit-reset": "30"}, 30.0),
        (413, {"x-ratelimit-reset": "30"}, 30.0),
        (503, {"x-ratelimit-reset": "30"}, 30.0),
        (429, {"x-ratelimit-reset": "1000000000"}, None),
        (429, {"x-ratelimit-reset": f"{NOW_EPOCH + 30:.0f}", "date": NOW}, 30.0),
        (429, {"x-ratelimit-reset": f"{NOW_EPOCH - 1:.0f}", "date": NOW}, None),
        (429, {"x-ratelimit-reset": f"{NOW_EPOCH + 30:.0f}"}, None),
        (429, {"x-ratelimit-reset": "-1"}, None),
        (429, {"x-ratelimit-reset": "NaN"}, None),
        (429, {"x-ratelimit-reset": "30", "x-ratelimit-remaining": "7"}, 30.0),
        # Sent with every answer, it is news and not a wait, unless nothing remains.
        (409, {"x-ratelimit-reset": "30"}, None),
        (409, {"x-ratelimit-reset": "30", "x-ratelimit-remaining": "some"}, None),
        (409, {"x-ratelimit-reset": "30", "x-ratelimit-remaining": "7"}, None),
        (409, {"x-ratelimit-reset": "30", "x-ratelimit-remaining": "0"}, 30.0),
        (202, {"x-ratelimit-reset": "30", "x-ratelimit-remaining": "7"}, None),
    ],
)
def test_ratelimit_reset(status: int, headers: dict[str, str], seconds: float | None) -> None:
    """x-ratelimit-reset is a delay, or an epoch by the same answer's clock, where the answer is about a rate."""
    assert read_fault(status, headers, b"").retry_after == seconds


@pytest.mark.parametrize(
    ("headers", "hint", "seconds"),
    [
        ({"retry-after": "1", "x-ratelimit-reset": "3"}, "2", 1.0),
        ({"retry-after": "0", "x-ratelimit-reset": "3"}, "2", 0.0),
        ({"retry-after": "soon", "x-ratelimit-reset": "3"}, "2", 2.0),
        ({"x-ratelimit-reset": "3"}, "soon", 3.0),
        ({"x-ratelimit-reset": "soon"}, "soon", 300.0),
        ({}, 2, 2.0),
        ({"date": NOW}, "Mon, 23 Nov 2026 18:00:30 GMT", 30.0),
    ],
)
def test_order_of_the_waits(headers: dict[str, str], hint: object, seconds: float) -> None:
    """The header outweighs Nova's body, that the reset, that the window; what cannot be read gives way to the next."""
    words = "policy user over ratelimit,limit:200,time:5 minute"
    document = {"overLimit": {"code": 413, "message": words, "retryAfter": hint}}

    assert fault_of(413, document, headers).retry_after == seconds


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        (NOW, NOW_EPOCH),
        ("Monday, 23-Nov-26 18:00:00 GMT", NOW_EPOCH),
        ("Mon Nov 23 18:00:00 2026", NOW_EPOCH),
        ("Mon, 23 Nov 2026 18:00:00 -0000", NOW_EPOCH),
        ("", None),
        ("now", None),
        ("Mon, 31 Feb 2026 18:00:00 GMT", None),
        ("Mon, 23 Nov 2026 25:00:00 GMT", None),
        ("Mon, 23 Nov 2026 18:00:00 +99999999999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("Tue, 23 Nov 1926 18:00:00 GMT", None),
    ],
)
def test_cloud_time(date: str, seconds: float | None) -> None:
    """The cloud's clock is its Date header, whose zone is UTC even where it names none."""
    assert cloud_time({"date": date}) == seconds


def test_cloud_time_without_a_date() -> None:
    """An answer without a Date tells no time."""
    assert cloud_time({}) is None


def test_headers_of_httpx_are_read_in_any_case() -> None:
    """What the wire spells in any case is found, and a repeated header does not hide it."""
    headers = httpx.Headers(
        [("X-OpenStack-Request-Id", REQUEST), ("DATE", NOW), ("Retry-After", "5"), ("retry-after", "10")]
    )

    assert read_fault(429, headers, b"") == Fault(retry_after=10.0, request_id=REQUEST)
    assert cloud_time(headers) == NOW_EPOCH


@pytest.mark.parametrize(
    ("code", "asked", "expected"),
    [
        ("ECS.0605", ("Ecs.0605",), True),
        ("Ecs.0605", ("Ecs.0603", "ecs.0605"), True),
        ("Ecs.0605", ("Ecs.060",), False),
        ("Ecs.0605", (), False),
        ("", ("Ecs.0605",), False),
    ],
)
def test_codes_are_compared_in_any_case(code: str, asked: tuple[str, ...], expected: bool) -> None:
    """ECS itself writes one code in two cases."""
    assert Fault(code=code).has_code(*asked) is expected


FRAGMENTS = st.sampled_from(
    [
        "error",
        "code",
        "message",
        "error_code",
        "error_msg",
        "details",
        "internalError",
        "retryAfter",
        "title",
        "forbidden",
    ]
)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | FRAGMENTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FRAGMENTS | st.text(), inner, max_size=6),
    max_leaves=20,
)
PAGES = st.lists(
    st.sampled_from(
        ["<html>", "<title>", "</title>", "<script", "<!--", "-->", "<", ">", "&#", "&amp;", "9" * 5000, "\x1b"]
    )
    | st.text()
).map("".join)
BODIES = st.binary() | DOCUMENTS.map(lambda document: json.dumps(document).encode()) | PAGES.map(str.encode)
HEADERS = st.dictionaries(
    st.sampled_from(["date", "retry-after", "x-ratelimit-reset", "x-ratelimit-remaining", "x-openstack-request-id"]),
    st.text()
    | st.integers().map(str)
    | st.floats().map(str)
    | st.lists(st.sampled_from(["Mon,", "23", "Nov", "2026", "18:00:00", "GMT", "+", "-", ",", "9" * 20, "0"])).map(
        " ".join
    ),
)


# No deadline: a shared machine may pause anywhere.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(status=st.integers(), headers=HEADERS, body=BODIES, is_cut_short=st.booleans())
def test_no_answer_raises(status: int, headers: dict[str, str], body: bytes, is_cut_short: bool) -> None:
    """Whatever the answer, there is a fault: bounded, on one printable line, with a finite wait or none."""
    fault = read_fault(status, headers, body, is_cut_short=is_cut_short)

    assert len(fault.code) <= 100
    assert len(fault.message) <= 500
    assert (fault.code + fault.message).isprintable()
    assert fault.message == " ".join(fault.message.split())
    assert fault.retry_after is None or 0.0 <= fault.retry_after < float("inf")
    assert (fault.body is Body.CUT_SHORT) == is_cut_short


@pytest.mark.parametrize(
    "piece", ["<", "<title>", "<script", "<!--", "<a", "token", "a", " ", "&#9", "over ratelimit,", '{"a":']
)
def test_cost_of_a_body_is_bounded(piece: str) -> None:
    """A megabyte of one fragment, the worst case of every search, is read at once and shortened."""
    page = "<html>" + piece * (1_000_000 // len(piece))

    assert len(read_fault(502, {}, page.encode()).message) <= 500


EPOCH = int(NOW_EPOCH)


@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset"])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        # A moment, in seconds, milliseconds, microseconds and nanoseconds since the epoch.
        (f"{EPOCH + 30}", 30.0),
        (f"{EPOCH + 30}000", 30.0),
        (f"{EPOCH + 30}000000", 30.0),
        (f"{EPOCH + 30}000000000", 30.0),
        (f"{EPOCH - 30}", None),
        (f"{EPOCH}000000000000", None),
        # A moment in another notation.
        ("2026-11-23T18:00:30Z", 30.0),
        # Numbers too large for a delay that are no time since the epoch either.
        ("99999999999", None),
        ("3999999999", None),
        ("2592001", None),
        ("-5", None),
        ("1e9", None),
        ("0x10", None),
        ("soon", None),
        ("", None),
        ("5 parsecs", None),
        # Numbers that are plausible as seconds.
        ("2592000", 2_592_000.0),
        ("+5", 5.0),
        ("5.0", 5.0),
        ("5s", 5.0),
        ("5 seconds", 5.0),
        ("5000ms", 5.0),
        ("2 minutes", 120.0),
        ("5, 7", 7.0),
        (f"5, {EPOCH + 30}", 30.0),
        (f"5, {EPOCH - 30}", 5.0),
        ("5, soon", None),
    ],
)
def test_numbers_that_make_no_sense_as_seconds(name: str, text: str, seconds: float | None) -> None:
    """A number that is too large for a delay is read as a time since the epoch, or ignored; it stops no run."""
    assert read_fault(429, {name: text, "date": NOW}, b"").retry_after == seconds


@pytest.mark.parametrize(
    "date",
    ["Thu, 01 Jan 1970 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:00 GMT", "1700000000", "now", "", "-1", "9999999999999"],
)
def test_dates_that_cannot_be_true(date: str) -> None:
    """Dates of a clock that was never set, and texts that are no date, are ignored."""
    headers = {"date": date, "retry-after": f"{EPOCH + 30}"}

    assert cloud_time(headers) is None
    assert read_fault(429, headers, b"").retry_after is None
