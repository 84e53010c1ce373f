"""Every documented answer to a reboot, as the real client meets it on the wire: what follows, and who waits."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import pytest

from bulkrestart import Outcome, Reason, StopReason
from tests.core.samples import OTHER_REQUEST, REBOOTING, REQUEST, SERVER, VM_STATES
from tests.virtual import EPOCH, virtually

from .wire import HOST, Reply, meet

pytestmark = pytest.mark.unmeasured

#: The second in which a scripted answer is written.
NOW: Final = EPOCH + 1.0


@dataclass(frozen=True, kw_only=True)
class Then:
    """What follows a first answer. Times are seconds since that answer.

    Attributes:
        ends: The outcome of the server and its reason.
        detail: The words of the result; None where the cloud's truth, and not the answer, ended the server.
        posts: Sends.
        looks: What is asked of the server at first, and nothing else, before the second send; None: anything.
        holds: How long nobody sends anything.
        waits: How long nothing is asked about this server, at least.
        resent: How long it is not sent to again, at least.
        stop: Why the run stops.
    """

    ends: tuple[Outcome, Reason | None] = (Outcome.COMPLETED, None)
    detail: str | None = None
    posts: int = 2
    looks: tuple[str, ...] | None = ()
    holds: float = 0.0
    waits: float = 0.0
    resent: float = 0.0
    stop: StopReason | None = None

    def saying(self, words: str) -> "Then":
        """End in these words, if it is the answer that ends it."""
        is_refused_by_it = self.ends[0] is Outcome.REFUSED and self.ends[1] is not Reason.STOPPED
        return replace(self, detail=words) if is_refused_by_it else self


def refused(reason: Reason, stop: StopReason | None = None) -> Then:
    """End it at once: the cloud said no."""
    return Then(ends=(Outcome.REFUSED, reason), posts=1, stop=stop)


#: The first two looks at least: one does not prove the silence of a log.
LOOKS = ("log", "show", "log", "show")

ACCEPTED = Then(posts=1, looks=None)
#: The fate of the send is unknown: the action log first, over and over, and no send before its silence is proof.
LOOKED_UP = Then(looks=LOOKS, resent=10.0)
#: The request may still be at work behind a gateway.
LOOKED_UP_LONG = replace(LOOKED_UP, resent=90.0)
#: Nothing was started, and the state decides; the log tells whether the send was delivered once more.
LOOKED_AT = Then(looks=("show", "log"))
#: A state that passes.
WAITED = Then(looks=("show", "log"), waits=2.0)
#: No wait is named, so the brake's own first one.
THROTTLED = Then(holds=1.0)
#: Nobody waits for as long as that.
TOO_LONG = refused(Reason.STOPPED, StopReason.OUTAGE)
EXECUTING = replace(LOOKED_UP, waits=60.0)
#: Other requests are let in with the token: only this one is sent again.
TOKEN_REFUSED = Then()
#: A failed reboot of ours, delivered before, leaves a server in error.
AFTER_VM_STATE = {"building": WAITED, "error": LOOKED_UP}
TOKEN_REFUSED_TWICE = Then(posts=3)
LOCKED = refused(Reason.LOCKED)
WRONG_STATE = refused(Reason.WRONG_STATE)
FORBIDDEN = refused(Reason.FORBIDDEN)
NOT_FOUND = refused(Reason.NOT_FOUND)
REJECTED = refused(Reason.REJECTED)


def held(seconds: float) -> Then:
    """Throttle everybody for so long."""
    return Then(holds=seconds)


@dataclass(frozen=True, kw_only=True)
class Case:
    """The first answers to a server, and what follows them."""

    id: str
    reply: Reply
    then: Then
    times: int = 1


def plain(status: int, then: Then) -> Case:
    """Answer with a status alone."""
    return Case(id=f"{status} alone", reply=Reply(status=status), then=then.saying(f"{status}"))


def nova(status: int, name: str, message: str, then: Then, *, times: int = 1, **more: str) -> Case:
    """Answer as Nova does (nova/api/openstack/wsgi.py `Fault`)."""
    body = {name: {"code": status, "message": message, **more}}
    headers = {"x-openstack-request-id": REQUEST, "x-compute-request-id": REQUEST}
    shown = " ".join(message.replace(SERVER, "X").split())
    reply = Reply(status=status, body=json.dumps(body).encode(), headers={**headers, "vary": "Accept-Language"})
    return Case(id=f"{status} {name} {shown}", reply=reply, then=then.saying(" ".join(message.split())), times=times)


def document(status: int, body: object, then: Then, words: str, what: str, *, times: int = 1) -> Case:
    """Answer with a JSON document."""
    reply = Reply(status=status, body=json.dumps(body).encode(), headers={"content-type": "application/json"})
    return Case(id=what, reply=reply, then=then.saying(words), times=times)


def ecs(status: int, code: str, message: str, then: Then, *, times: int = 1) -> Case:
    """Answer as ECS v1 does."""
    body = {"error": {"code": code, "message": message}}
    return document(status, body, then, message, f"{code} with {status}", times=times)


def gateway(status: int, code: str, message: str, then: Then, *, times: int = 1) -> Case:
    """Answer as the API gateway does."""
    body = {"error_msg": message, "error_code": code, "request_id": "d4e8174b8df00840aef0c6907ec0e384"}
    return document(status, body, then, message, f"{code} with {status}: {message}", times=times)


def page(status: int, title: str, then: Then) -> Case:
    """Answer as a proxy does."""
    body = f"<html>\r\n<head><title>{title}</title></head>\r\n<body><center><h1>{title}</h1></center></body></html>"
    reply = Reply(status=status, body=body.encode(), headers={"content-type": "text/html"})
    return Case(id=f"a page: {title} with {status}", reply=reply, then=then.saying(title))


def conflict(attribute: str, state: str, then: Then) -> Case:
    """Answer as nova/api/openstack/common.py `raise_http_conflict_for_instance_invalid_state` does."""
    message = f"Cannot 'reboot' instance {SERVER} while it is in {attribute} {state}"
    return nova(409, "conflictingRequest", message, then)


UNEXPECTED = (
    "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log if "
    "possible.\n<class '{}'>"
)
WRONG_PROJECT = "Malformed request URL: URL's project_id 'a' doesn't match Context's project_id 'b'"

#: What Nova's API answers to a reboot, documented or not.
NOVA = [
    Case(
        id="202",
        reply=Reply(status=202, headers={"x-openstack-request-id": REQUEST, "content-length": "0"}),
        then=ACCEPTED,
    ),
    nova(400, "badRequest", "Invalid input for field/attribute type. Value: x. 'x' is not one of ['HARD']", REJECTED),
    nova(400, "badRequest", "API Version String 2.x is of invalid format.", REJECTED),
    nova(400, "badRequest", "Unable to reboot this kind of server: not supported", REJECTED),
    nova(400, "badRequest", WRONG_PROJECT, LOOKED_UP),
    nova(401, "unauthorized", "No.", TOKEN_REFUSED),
    nova(403, "forbidden", "Policy doesn't allow os_compute_api:servers:reboot to be performed.", FORBIDDEN),
    nova(404, "itemNotFound", f"Instance {SERVER} could not be found.", NOT_FOUND),
    nova(405, "badMethod", "Method not allowed", REJECTED),
    nova(406, "computeFault", "Version 9.9 is not supported by the API. Minimum is 2.1 and maximum is 2.60.", REJECTED),
    nova(415, "badMediaType", "Unsupported Content-Type", REJECTED),
    nova(422, "computeFault", "Unprocessable", REJECTED),
    nova(413, "overLimit", "This request was rate-limited.", THROTTLED),
    nova(429, "overLimit", "This request was rate-limited.", THROTTLED),
    nova(500, "computeFault", UNEXPECTED.format("nova.exception.UnexpectedTaskStateError"), LOOKED_UP),
    nova(500, "computeFault", UNEXPECTED.format("nova.exception.InstanceUpdateConflict"), LOOKED_UP),
    nova(500, "computeFault", "Messaging timed out", LOOKED_UP),
    nova(500, "computeFault", "The cell is down", LOOKED_UP),
    nova(501, "notImplemented", "Unable to use the feature", LOOKED_UP),
    nova(503, "serviceUnavailable", "The server is currently unavailable.", LOOKED_UP),
    page(503, "503 Service Unavailable", LOOKED_UP),
    nova(507, "computeFault", "Any other status is a computeFault", LOOKED_UP),
]

#: Section by section of the rule: what passes, what never does, and what may be our own.
CONFLICTS = [
    nova(409, "conflictingRequest", f"Instance {SERVER} is locked", LOCKED),
    nova(
        409,
        "conflictingRequest",
        f"Instance {SERVER} is in an invalid state for 'reboot'",
        refused(Reason.NEVER_LAUNCHED),
    ),
    conflict("launched_at", "None", refused(Reason.NEVER_LAUNCHED)),
    *(conflict("task_state", state, LOOKED_UP) for state in REBOOTING),
    *(
        conflict("task_state", state, WAITED)
        for state in (
            *("scheduling", "block_device_mapping", "networking", "spawning"),
            *("image_snapshot", "image_snapshot_pending", "image_pending_upload", "image_uploading", "image_backup"),
            *("updating_password", "migrating", "resize_reverting", "resize_confirming"),
            *("unpausing", "resuming", "powering-on", "unrescuing", "restoring", "unshelving"),
            *("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"),
        )
    ),
    *(
        conflict("task_state", state, WRONG_STATE)
        for state in (
            *("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"),
            *("pausing", "suspending", "powering-off", "rescuing", "deleting", "soft-deleting"),
            *("shelving", "shelving_image_pending_upload", "shelving_image_uploading", "shelving_offloading"),
        )
    ),
    conflict("task_state", "defragmenting", LOOKED_AT),
    *(conflict("vm_state", state, AFTER_VM_STATE.get(state, LOOKED_AT)) for state in VM_STATES),
    nova(409, "conflictingRequest", "Instanz befindet sich im Zustand rebooting", LOOKED_UP),
    page(409, "Conflict", LOOKED_UP),
]

#: "Returned Values for General Requests", and what its appendix has besides; each without a body.
GENERAL = [
    *(plain(status, ACCEPTED) for status in (200, 201, 202, 204)),
    plain(300, LOOKED_UP),
    plain(400, REJECTED),
    replace(plain(401, TOKEN_REFUSED), id="401 alone, once"),
    replace(plain(401, TOKEN_REFUSED_TWICE), id="401 alone, twice", times=2),
    plain(403, FORBIDDEN),
    plain(404, LOOKED_UP),
    plain(405, REJECTED),
    plain(406, REJECTED),
    plain(407, LOOKED_UP),
    plain(408, LOOKED_UP),
    plain(409, LOOKED_UP),
    plain(413, THROTTLED),
    plain(415, REJECTED),
    plain(429, THROTTLED),
    *(plain(status, LOOKED_UP) for status in (500, 501, 502, 503)),
    plain(504, LOOKED_UP),
]

#: The codes of ECS that matter to a reboot.
CODES = [
    ecs(400, "Ecs.0000", "Request error. Try again later or contact customer service.", LOOKED_UP),
    ecs(400, "Ecs.0005", "Invalid parameter values.", REJECTED),
    ecs(403, "Ecs.0003", "You do not have permission to perform this operation.", FORBIDDEN),
    ecs(400, "Ecs.0023", "project_id in token mismatches with project_id in url.", LOOKED_UP),
    ecs(400, "Common.0018", "project_id in token mismatches with project_id in url.", LOOKED_UP),
    ecs(400, "Ecs.0100", "The ECS status does not meet requirements.", LOOKED_UP),
    ecs(404, "Ecs.0114", "The ECS does not exist.", NOT_FOUND),
    ecs(404, "Ecs.0614", "The ECS does not exist.", NOT_FOUND),
    ecs(400, "Ecs.0118", "The number of ECSs exceeds the maximum allowed limit.", REJECTED),
    ecs(400, "Ecs.0227", "Failed to reboot.", LOOKED_UP),
    ecs(501, "Ecs.0603", "The commands are being executed. Try again later.", EXECUTING),
    ecs(400, "Ecs.0605", "ECS locked.", LOCKED),
    ecs(400, "Ecs.0611", "Batch operation failed.", REJECTED),
    ecs(500, "Ecs.0615", "The thread list is empty.", LOOKED_UP),
    ecs(400, "Ecs.1000", "Failed to access Nova.", LOOKED_UP),
    ecs(400, "Ecs.1001", "OpenStack error.", LOOKED_UP),
    ecs(400, "Ecs.1002", "OpenStack access timed out.", LOOKED_UP),
    ecs(403, "Ecs.0110", "No permission.", FORBIDDEN),
    ecs(403, "Pdp.0001", "Policy does not allow ecs:servers:reboot to be performed.", FORBIDDEN),
    ecs(401, "Common.0013", "Invalid token.", TOKEN_REFUSED),
    replace(ecs(401, "Common.0013", "Invalid token.", TOKEN_REFUSED_TWICE, times=2), id="Common.0013 twice"),
    ecs(500, "Common.0001", "A system exception occurred.", LOOKED_UP),
    ecs(202, "Common.0024", "Flow limit exceeded.", replace(LOOKED_UP_LONG, holds=1.0)),
    ecs(429, "Common.1503", "Api flow control Error because of too many requests.", THROTTLED),
    ecs(503, "Common.1503", "Api flow control Error because of too many requests.", THROTTLED),
    *(
        ecs(400, code, message, REJECTED)
        for code, message in (
            ("Common.0011", "Invalid job id."),
            ("Common.0021", "Subjob fails."),
            ("Common.0022", "Mission fails."),
            ("Common.0025", "Query job Error because it is gone."),
        )
    ),
]

#: The codes of the API gateway, as Huawei Cloud spells them; Open Telekom Cloud writes `APIG.`.
GATEWAY = [
    gateway(status, code, message, then)
    for status, code, message, then in (
        (404, "APIGW.0101", "The API does not exist or has not been published in the environment.", LOOKED_UP),
        (400, "APIGW.0201", "Bad request", REJECTED),
        (413, "APIGW.0201", "Request entity too large", THROTTLED),
        (414, "APIGW.0201", "Request URI too large", REJECTED),
        (494, "APIGW.0201", "Request headers too large", REJECTED),
        (502, "APIGW.0201", "Backend unavailable", LOOKED_UP),
        (504, "APIGW.0201", "Backend timeout", LOOKED_UP),
        (500, "APIGW.0201", "An unexpected error occurred", LOOKED_UP),
        (502, "APIGW.0202", "Backend unavailable", LOOKED_UP),
        (504, "APIGW.0203", "Backend timeout", LOOKED_UP),
        (401, "APIGW.0301", "Incorrect IAM authentication information", TOKEN_REFUSED),
        (403, "APIGW.0302", "The IAM user is not authorized to access the API.", FORBIDDEN),
        (401, "APIGW.0303", "Incorrect app authentication information", TOKEN_REFUSED),
        (401, "APIGW.0305", "Incorrect authentication information", TOKEN_REFUSED),
        (403, "APIGW.0306", "API access denied.", FORBIDDEN),
        (401, "APIGW.0307", "The token must be updated.", TOKEN_REFUSED),
        (429, "APIGW.0308", "The throttling threshold has been reached.", THROTTLED),
        (403, "APIGW.0310", "The project is unavailable.", FORBIDDEN),
        (403, "APIGW.0401", "Unknown client IP address.", FORBIDDEN),
        (403, "APIGW.0402", "The IP address is not authorized to access the API.", FORBIDDEN),
        (500, "APIGW.0601", "Internal server error", LOOKED_UP),
        (400, "APIGW.0602", "Bad request", REJECTED),
        (502, "APIGW.0610", "No backend available.", LOOKED_UP),
        (503, "APIGW.0613", "IAM is unavailable.", LOOKED_UP),
        (404, "APIG.0101", "The API does not exist or has not been published in the environment.", LOOKED_UP),
        (504, "APIG.0203", "Backend timeout", LOOKED_UP),
        (401, "APIG.0307", "The token must be updated.", TOKEN_REFUSED),
        (429, "APIG.0308", "The throttling threshold has been reached.", THROTTLED),
        (403, "APIGW.0802", "The IAM user is forbidden in the currently selected region", FORBIDDEN),
    )
]

LOCK = "ECS locked."
LOST = "upstream connect error or disconnect/reset before headers"
DETAILS = [{"code": "Ecs.0605", "message": "inner"}]
INNER = [{"id": SERVER, "error_code": "ECS.0605", "error_message": LOCK}]
#: Every shape of an error body; most say "locked", which only a reader of that shape finds.
SHAPES = [
    document(
        409,
        {"conflictingRequest": {"code": 409, "message": "Instance X is locked"}},
        LOCKED,
        "Instance X is locked",
        "Nova",
    ),
    document(
        400, {"error": {"code": "Ecs.0605", "message": LOCK, "details": DETAILS}}, LOCKED, LOCK, "ECS v1, with details"
    ),
    document(
        400, {"error": {"code": "", "message": "o", "details": DETAILS}}, LOCKED, "inner", "ECS v1, its details alone"
    ),
    document(
        400,
        {"error": {"code": "Ecs.0611", "message": "failed"}, "internalError": INNER},
        REJECTED,
        "failed",
        "ECS v1 batch",
    ),
    document(400, {"internalError": INNER}, LOCKED, LOCK, "ECS v1 batch, its inner errors alone, in upper case"),
    document(400, {"error_msg": LOCK, "error_code": "Ecs.0605", "request_id": "d4e8"}, LOCKED, LOCK, "gateway"),
    document(400, {"error_code": "IMG.0001", "error_msg": "generic"}, REJECTED, "generic", "generic: another service"),
    document(400, {"error_code": "Ecs.0605", "error_msg": LOCK}, LOCKED, LOCK, "generic"),
    document(400, {"errorCode": "Ecs.0605", "errorMsg": LOCK}, LOCKED, LOCK, "Huawei's SDK"),
    document(400, {"code": "Ecs.0605", "message": LOCK}, LOCKED, LOCK, "ShowJob: at top level"),
    document(400, {"fault": {"code": "Ecs.0605", "message": LOCK}}, LOCKED, LOCK, "an unknown envelope"),
    document(
        401,
        {"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires it."}},
        TOKEN_REFUSED_TWICE,
        "The request you have made requires it.",
        "Keystone and keystonemiddleware",
        times=2,
    ),
    document(
        429,
        {"error": {"status": "429 Too Many Requests", "message": "Too Many Requests"}},
        THROTTLED,
        "",
        "OVH's gateway",
    ),
    Case(
        id="the provider's own sample, which is not JSON",
        reply=Reply(status=400, body=b'{"error": {"message": "", "code": XXX,""}}'),
        then=REJECTED.saying('{"error": {"message": "", "code": XXX,""}}'),
    ),
    page(502, "502 Bad Gateway", LOOKED_UP),
    page(504, "504 Gateway Time-out", LOOKED_UP),
    page(500, "500 Internal Server Error", LOOKED_UP),
    page(404, "404 Not Found", LOOKED_UP),
    page(403, "Access denied", FORBIDDEN),
    page(302, "302 Found", LOOKED_UP),
    page(200, "Please sign in", LOOKED_UP),
    Case(id="a proxy's text", reply=Reply(status=503, body=LOST.encode()), then=LOOKED_UP),
    document(202, {"job_id": "ff80808288d41e1b018990260955686a"}, ACCEPTED, "", "a success with a document"),
    document(200, {"error": None, "error_code": None}, ACCEPTED, "", "a success that names no error"),
    document(200, {"error_code": "Ecs.0005", "error_msg": "m"}, LOOKED_UP, "", "a success with an error code"),
    document(202, {"error": {"message": "m"}}, LOOKED_UP, "", "a success with an error that names no code"),
    document(
        202,
        {"error_code": "Common.0024", "error_msg": "m"},
        replace(LOOKED_UP_LONG, holds=1.0),
        "",
        "Common.0024 of a gateway",
    ),
    Case(id="a success cut short", reply=Reply(status=202, body=b'{"job', is_broken=True), then=LOOKED_UP),
    Case(id="a conflict cut short", reply=Reply(status=409, body=b'{"conf', is_broken=True), then=LOOKED_UP),
    Case(id="a 404 cut short", reply=Reply(status=404, body=b'{"item', is_broken=True), then=LOOKED_UP),
]


def asking(case: Case, then: Then, what: str, **headers: str) -> Case:
    """Let an answer ask to wait, by these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = replace(case.reply, headers={**case.reply.headers, **named})
    return replace(case, id=f"{case.id}: {what}", reply=reply, then=then)


def threshold(words: str, then: Then) -> Case:
    """Answer as the gateway does whose limit was reached."""
    return gateway(429, "APIGW.0308", f"The throttling threshold has been reached: {words}", then)


def over_limit(status: int, then: Then, hint: str, **headers: str) -> Case:
    """Answer as Nova does that was told how long to wait: a string in the body."""
    case = nova(status, "overLimit", "This request was rate-limited.", then, retryAfter=hint)
    return asking(case, then, f"retryAfter {hint} and {headers}", **headers)


def later(seconds: float, form: str = "%a, %d %b %Y %H:%M:%S GMT") -> str:
    """Write a date so many seconds after the answer."""
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime(form)


TOO_MANY = plain(429, THROTTLED)
UNAVAILABLE = plain(503, LOOKED_UP)
FLOW_LIMITED = ecs(202, "Common.0024", "Flow limit exceeded.", LOOKED_UP_LONG)
COMMANDS = ecs(501, "Ecs.0603", "The commands are being executed.", EXECUTING)
WRONG_STATUS = ecs(400, "Ecs.0100", "The ECS status does not meet requirements.", LOOKED_UP)
BUSY = conflict("task_state", "image_uploading", WAITED)
IN_A_REBOOT = conflict("task_state", "reboot_started", LOOKED_UP)
STOPPED = conflict("vm_state", "stopped", LOOKED_AT)
FLOW_CONTROL = "Api flow control Error because of too many requests."
#: How clouds ask to wait. The first that can be read counts: the header, Nova's body, the reset, the gateway's window.
WAITS = [
    asking(plain(413, THROTTLED), held(30.0), "seconds, as the middleware of old did", retry_after="30"),
    asking(TOO_MANY, held(17.0), "seconds", retry_after="17"),
    asking(TOO_MANY, THROTTLED, "no seconds", retry_after="0"),
    asking(TOO_MANY, held(1.5), "a fraction", retry_after="1.5"),
    asking(TOO_MANY, held(10.0), "twice, the longer counts", retry_after="5, 10"),
    asking(TOO_MANY, held(30.0), "a date", retry_after=later(30), date=later(0)),
    asking(
        TOO_MANY, held(30.0), "a date of RFC 850", retry_after=later(30, "%A, %d-%b-%y %H:%M:%S GMT"), date=later(0)
    ),
    asking(TOO_MANY, held(30.0), "a date of asctime", retry_after=later(30, "%a %b %d %H:%M:%S %Y"), date=later(0)),
    asking(TOO_MANY, held(30.0), "a date by a clock of its own", retry_after=later(9030), date=later(9000)),
    asking(TOO_MANY, THROTTLED, "a date that has passed", retry_after=later(-1), date=later(0)),
    asking(TOO_MANY, THROTTLED, "a date without a clock", retry_after=later(30)),
    asking(TOO_MANY, THROTTLED, "nonsense", retry_after="soon"),
    asking(TOO_MANY, THROTTLED, "less than nothing", retry_after="-5"),
    asking(TOO_MANY, held(25.0), "x-ratelimit-reset, a duration", x_ratelimit_reset="25"),
    asking(TOO_MANY, held(30.0), "x-ratelimit-reset, a time", x_ratelimit_reset=f"{NOW + 30:.0f}", date=later(0)),
    asking(TOO_MANY, held(7.0), "Retry-After before the reset", retry_after="7", x_ratelimit_reset="25"),
    over_limit(413, held(12.0), "12"),
    over_limit(429, held(12.0), "12"),
    over_limit(429, held(40.0), "12", retry_after="40"),
    over_limit(413, held(6.0), "6", x_ratelimit_reset="25"),
    asking(ecs(429, "Common.1503", FLOW_CONTROL, THROTTLED), held(8.0), "seconds", retry_after="8"),
    asking(ecs(503, "Common.1503", FLOW_CONTROL, THROTTLED), held(8.0), "seconds", retry_after="8"),
    threshold("policy user over ratelimit,limit:200,time:5 minute", held(300.0)),
    threshold("policy user over ratelimit,limit:60,time:1 minute", held(60.0)),
    threshold("policy user over ratelimit,limit:100,time:1 minute", held(60.0)),
    threshold("policy user over ratelimit,limit:10, time:1 minute", held(60.0)),
    threshold("policy api over ratelimit,limit:200,time:1 second", held(1.0)),
    threshold("policy api over ratelimit,limit: 200,time: 30 second", held(30.0)),
    threshold("policy user over ratelimit,limit:1000,time:2 hour", TOO_LONG),
    threshold("policy user over ratelimit,limit:5000,time:1 day", TOO_LONG),
    threshold("policy user over ratelimit,limit:5000,time:1 fortnight", THROTTLED),
    asking(
        threshold("policy user over ratelimit,limit:60,time:1 minute", THROTTLED),
        held(5.0),
        "Retry-After before the window",
        retry_after="5",
    ),
    asking(
        threshold("policy user over ratelimit,limit:60,time:1 minute", THROTTLED),
        held(25.0),
        "the reset before the window",
        x_ratelimit_reset="25",
    ),
    # Trouble that asks to wait makes everybody wait; what was sent is looked up after that.
    asking(UNAVAILABLE, replace(LOOKED_UP, holds=120.0), "seconds", retry_after="120"),
    asking(UNAVAILABLE, replace(LOOKED_UP, holds=30.0), "a date", retry_after=later(30), date=later(0)),
    asking(UNAVAILABLE, replace(LOOKED_UP, holds=30.0), "x-ratelimit-reset", x_ratelimit_reset="30"),
    *(
        asking(plain(status, LOOKED_UP), replace(LOOKED_UP, holds=20.0), "seconds", retry_after="20")
        for status in (408, 500, 501, 502, 504)
    ),
    asking(FLOW_LIMITED, replace(LOOKED_UP_LONG, holds=120.0), "seconds", retry_after="120"),
    asking(plain(401, TOKEN_REFUSED), replace(TOKEN_REFUSED, waits=30.0), "seconds", retry_after="30"),
    asking(plain(401, TOKEN_REFUSED), TOKEN_REFUSED, "fewer seconds than a token takes", retry_after="2"),
    # What concerns one server makes that one wait.
    asking(BUSY, replace(WAITED, waits=40.0), "seconds", retry_after="40"),
    asking(BUSY, WAITED, "fewer seconds than a task takes", retry_after="1"),
    asking(IN_A_REBOOT, replace(LOOKED_UP, waits=40.0), "seconds", retry_after="40"),
    asking(STOPPED, replace(LOOKED_AT, waits=40.0), "seconds", retry_after="40"),
    asking(WRONG_STATUS, replace(LOOKED_UP, waits=40.0), "seconds", retry_after="40"),
    asking(COMMANDS, replace(EXECUTING, waits=90.0), "seconds", retry_after="90"),
    asking(COMMANDS, EXECUTING, "fewer than the minute in its words", retry_after="5"),
    asking(plain(302, LOOKED_UP), replace(LOOKED_UP, waits=40.0), "seconds", retry_after="40"),
    asking(BUSY, replace(WAITED, waits=30.0), "nothing remains", x_ratelimit_remaining="0", x_ratelimit_reset="30"),
    asking(BUSY, WAITED, "a reset that is mere news", x_ratelimit_remaining="7", x_ratelimit_reset="30"),
    # What is said for good makes nobody wait.
    asking(plain(202, ACCEPTED), ACCEPTED, "seconds", retry_after="30"),
    asking(
        plain(202, ACCEPTED), ACCEPTED, "a reset that is mere news", x_ratelimit_remaining="7", x_ratelimit_reset="30"
    ),
    asking(plain(403, FORBIDDEN), FORBIDDEN.saying("403"), "seconds", retry_after="30"),
    asking(plain(400, REJECTED), REJECTED.saying("400"), "seconds", retry_after="30"),
]

CASES = [*NOVA, *CONFLICTS, *GENERAL, *CODES, *GATEWAY, *SHAPES, *WAITS]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_answer(case: Case) -> None:
    """What follows an answer is what the table says: the outcome, the looks before a second send, and who waits."""
    then = case.then
    met = virtually(lambda: meet([case.reply] * case.times, is_carried_out=then.looks is None))
    assert (met.result.outcome, met.result.reason) == then.ends, met.result
    assert then.detail in (None, met.result.detail)
    assert (len(met.posts), met.cycles) == (then.posts, then.ends[0] is Outcome.COMPLETED)
    assert met.stop_reason == then.stop
    if then.stop is not None and then.posts == 1:
        last = met.report.results[-1]
        assert (last.outcome, last.reason, last.attempts) == (Outcome.SKIPPED, Reason.STOPPED, ())
    else:
        assert met.quiet == pytest.approx(then.holds)
    least = max(then.holds, then.waits)
    assert met.waited >= least
    # No longer than is asked for, but for the jitter and a turn among two.
    assert met.waited <= least + 3.0 or not (then.looks or then.posts == 2)
    assert met.resent >= then.resent
    if then.looks is not None:
        assert tuple(met.looks[: len(then.looks)]) == then.looks
        assert set(met.looks) == set(then.looks)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id) for case in CASES if case.then.looks and case.reply.status != 404]
)
def test_answer_to_what_was_carried_out(case: Case) -> None:
    """Where the table says look, what was carried out all the same is found, and not sent again."""
    met = virtually(lambda: meet([case.reply], is_carried_out=True))
    assert (met.result.outcome, met.result.reason) == (Outcome.COMPLETED, None), met.result
    assert (len(met.posts), met.cycles) == (1, 1)
    assert met.stop_reason == case.then.stop


@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
@pytest.mark.parametrize("version", ["v2", "v2.1"])
def test_the_reboot_on_the_wire(version: str, reboot_type: str) -> None:
    """A reboot is this request and no other, the second time as the first; it carries no microversion."""
    met = virtually(lambda: meet([Reply(status=429)], version=version, reboot_type=reboot_type))
    project, server_id = "0123456789abcdef0123456789abcdef", met.result.server_id
    for sent in met.posts:
        request = sent.request
        assert request.method == "POST"
        assert str(request.url) == f"{HOST}/{version}/{project}/servers/{server_id}/action"
        assert request.content == b'{"reboot": {"type": "%s"}}' % reboot_type.encode()
        of_httpx = ("host", "user-agent", "accept-encoding", "connection")
        assert {name: value for name, value in request.headers.multi_items() if name not in of_httpx} == {
            "accept": "application/json",
            "accept-language": "en",
            "content-type": "application/json",
            "content-length": "28",
            "x-auth-token": "token",
        }
    assert len(met.posts) == 2


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        pytest.param({"X-Compute-Request-Id": REQUEST}, REQUEST, id="Nova's own"),
        pytest.param({"X-Openstack-Request-Id": REQUEST}, REQUEST, id="any service's"),
        pytest.param({"X-Compute-Request-Id": REQUEST, "X-Openstack-Request-Id": OTHER_REQUEST}, REQUEST, id="both"),
        pytest.param({"X-Request-Id": REQUEST}, None, id="the gateway's, which no action log shows"),
        pytest.param({}, None, id="none"),
    ],
)
def test_request_id_of_an_answer(headers: dict[str, str], request_id: str | None) -> None:
    """Each send keeps the id that its answer carried, if it is one that the action log can show."""
    met = virtually(lambda: meet([Reply(status=409, headers=headers)]))
    assert met.result.attempts[0].request_id == request_id
    assert (met.result.outcome, met.cycles) == (Outcome.COMPLETED, 1)
