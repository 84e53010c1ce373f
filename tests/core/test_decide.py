"""The first table: an answer to a send, and what is done next. Row by row, from the bytes that clouds write."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from bulkrestart.core.decide import decide, hold_for
from bulkrestart.core.decision import Accept, Decision, End, Hold, Look, Send
from bulkrestart.core.model import Outcome, Reason, RebootType, Stop, StopReason
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.progress import Progress
from tests.core.samples import (
    HARD,
    REBOOTING,
    REQUEST,
    SERVER,
    SOFT,
    TASK_STATES,
    answer,
    conflict,
    conflict_words,
    ecs,
    ecs_body,
    gateway,
    keystone,
    nova,
    nova_body,
    page,
    sent,
)

LOOK = Look(is_unresolved=False)
LOOK_FOR_IT = Look(is_unresolved=True)
AGAIN = Send(reboot_type=SOFT)
#: A state that passes by itself: the server is not to blame.
LOOK_LATER = Look(is_unresolved=False, delay=2.0, is_attempt=False)
AGAIN_LATER = Send(reboot_type=SOFT, delay=2.0, is_attempt=False)
AGAIN_WITH_THE_TOKEN = Send(reboot_type=SOFT, delay=5.0, is_attempt=False)
#: Everybody waits, because everybody sends with that token.
HOLD_FOR_THE_TOKEN = Hold(5.0)


def refused(reason: Reason, words: str, stop: Stop | None = None) -> End:
    """End a server that was not touched."""
    return End(outcome=Outcome.REFUSED, reason=reason, detail=words, stop=stop)


TOKEN_REFUSED = "The request you have made requires authentication."
STOP_UNAUTHORIZED = Stop(
    StopReason.UNAUTHORIZED, f"the cloud does not let us in ({TOKEN_REFUSED}); check what signs the requests"
)
NOT_FOUND = f"Instance {SERVER} could not be found."
LOCKED = f"Instance {SERVER} is locked"
NEVER_LAUNCHED = f"Instance {SERVER} is in an invalid state for 'reboot'"
WRONG_PROJECT = "Malformed request URL: URL's project_id 'a' doesn't match Context's project_id 'b'"
MISMATCH = "project_id in token mismatches with project_id in url."
WINDOW = "The throttling threshold has been reached: policy user over ratelimit,limit:200,time:5 minute"
NO_API = "The API does not exist or has not been published in the environment."
POLICY = "Policy doesn't allow os_compute_api:servers:reboot to be performed."
LOST_RACE = "Unexpected API Error. <class 'nova.exception.UnexpectedTaskStateError'>"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: what a server met that had come so far, for these types; what is done next, and who else waits.

    What a `Send` sends is the type that was asked for, so `expected` says SOFT for both.
    """

    words: str
    seen: Observation
    expected: Decision
    hold: Hold | None = None
    before: Sequence[Observation] = ()
    types: Sequence[RebootType] = (SOFT, HARD)
    may_escalate: bool = False
    may_start: bool = False

    def progress(self, reboot_type: RebootType) -> Progress:
        """Give the server's way before the answer came."""
        return sent(*self.before, reboot_type=reboot_type, may_escalate=self.may_escalate, may_start=self.may_start)

    def decision(self, reboot_type: RebootType) -> Decision:
        """Give the decision for a type."""
        return replace(self.expected, reboot_type=reboot_type) if isinstance(self.expected, Send) else self.expected


def row(words: str, seen: Observation, expected: Decision, *before: Observation, hold: Hold | None = None) -> Row:
    """Write a row that is the same for both types."""
    return Row(words=words, seen=seen, expected=expected, hold=hold, before=before)


def throttled(words: str, seen: Answer, seconds: float | None = None) -> Row:
    """Brake for all, and send again; the server is not to blame."""
    again = Send(reboot_type=SOFT, delay=seconds or 0.0, is_attempt=False)
    return Row(words=words, seen=seen, expected=again, hold=Hold(seconds))


def soft(
    words: str, seen: Observation, expected: Decision, *, may_escalate: bool = False, may_start: bool = False
) -> Row:
    """Write a row for SOFT."""
    return Row(words=words, seen=seen, expected=expected, types=(SOFT,), may_escalate=may_escalate, may_start=may_start)


def hard(words: str, seen: Observation, expected: Decision) -> Row:
    """Write a row for HARD."""
    return Row(words=words, seen=seen, expected=expected, types=(HARD,))


def in_task(state: str) -> Answer:
    """Answer 409 for a task."""
    return conflict("task_state", state)


ACCEPTED = [
    row("2xx: empty", answer(202, b"", {"x-compute-request-id": REQUEST}), Accept(request_id=REQUEST)),
    row("2xx: empty, without a request id", answer(202), Accept()),
    row("2xx: any of them", answer(299), Accept()),
    row("2xx: JSON without an error code", answer(200, b'{"job_id": "ff80808288d41e1b"}'), Accept()),
]

TWO_HUNDREDS_THAT_SAY_NOTHING = [
    row(
        "2xx with Common.0024",
        ecs(202, "Common.0024", "Flow limit exceeded."),
        replace(LOOK_FOR_IT, is_attempt=False),
        hold=Hold(None),
    ),
    row(
        "2xx with Common.0024 and Retry-After",
        answer(202, ecs_body("Common.0024", "Flow limit exceeded."), {"retry-after": "30"}),
        replace(LOOK_FOR_IT, delay=30.0, is_attempt=False),
        hold=Hold(30.0),
    ),
    row("2xx with another error code", ecs(200, "Ecs.0005", "Invalid parameter values."), LOOK_FOR_IT),
    row("2xx with an error that names no code", answer(200, b'{"error": {"message": "m"}}'), LOOK_FOR_IT),
    row("2xx with a body that is not JSON: a login page", page(200, "Sign in"), LOOK_FOR_IT),
    row("2xx cut short", answer(202, b'{"job', is_cut_short=True), LOOK_FOR_IT),
    row("2xx cut short before the body began", answer(202, is_cut_short=True), LOOK_FOR_IT),
]

REDIRECTS = [
    row("3xx", page(302, "Found"), LOOK_FOR_IT),
    row("3xx that points elsewhere", replace(answer(301), location="https://nova.test/v2.1/p"), LOOK_FOR_IT),
    row("3xx without a body", answer(300), LOOK_FOR_IT),
    row(
        "an answer whose request is no longer our POST",
        answer(200, b"{}", is_redirected=True),
        LOOK_FOR_IT,
    ),
    row(
        "a 404 whose request is no longer our POST",
        replace(nova(404, NOT_FOUND), is_redirected=True),
        LOOK_FOR_IT,
    ),
]

THROTTLED = [
    throttled("413", nova(413, "This request was rate-limited.")),
    throttled("429", page(429, "Too Many Requests")),
    throttled("429 with Retry-After", answer(429, b"", {"retry-after": "17"}), 17.0),
    throttled("429 with Retry-After 0, which is no answer to how long", answer(429, b"", {"retry-after": "0"})),
    throttled("429 with a window", gateway(429, "APIGW.0308", WINDOW), 300.0),
    throttled("Common.1503 with 429", ecs(429, "Common.1503", "Api flow control Error")),
    throttled("Common.1503 with 503", ecs(503, "Common.1503", "Api flow control Error")),
    throttled("APIGW.0308 with 403", gateway(403, "APIGW.0308", "slow")),
    throttled("APIG.0308 with 400", gateway(400, "APIG.0308", "slow")),
    throttled("apigw.0308 in lower case", gateway(429, "apigw.0308", "slow")),
]

CONFLICTS = [
    *(
        row(f"409 on {state}: it may be our own", in_task(state), Look(is_unresolved=True, is_attempt=False))
        for state in REBOOTING
    ),
    row("409 is locked", nova(409, LOCKED), refused(Reason.LOCKED, LOCKED)),
    row("Ecs.0605", ecs(400, "Ecs.0605", "ECS locked."), refused(Reason.LOCKED, "ECS locked.")),
    row("ECS.0605 in upper case", ecs(400, "ECS.0605", "ECS locked."), refused(Reason.LOCKED, "ECS locked.")),
    *(
        soft(f"409 on {state}, a task_state that ends in active", in_task(state), LOOK_LATER)
        for state in (
            *("scheduling", "block_device_mapping", "networking", "spawning"),
            *("image_snapshot", "image_snapshot_pending", "image_pending_upload", "image_uploading", "image_backup"),
            *("updating_password", "migrating", "resize_reverting", "resize_confirming"),
            *("unpausing", "resuming", "powering-on", "unrescuing", "restoring", "unshelving"),
            *("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"),
        )
    ),
    row("409 on vm_state building", conflict("vm_state", "building"), LOOK_LATER),
    *(
        soft(
            f"409 on {state}, a task_state that ends elsewhere",
            in_task(state),
            refused(Reason.WRONG_STATE, conflict_words("task_state", state)),
        )
        for state in (
            *("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"),
            *("pausing", "suspending", "powering-off", "rescuing", "deleting", "soft-deleting"),
            *("shelving", "shelving_image_pending_upload", "shelving_image_uploading", "shelving_offloading"),
        )
    ),
    *(
        soft(f"409 on {state} with leave to escalate", in_task(state), LOOK_LATER, may_escalate=True)
        for state in ("pausing", "suspending")
    ),
    soft(
        "409 on powering-off with leave to escalate, and none to start it",
        in_task("powering-off"),
        refused(Reason.WRONG_STATE, conflict_words("task_state", "powering-off")),
        may_escalate=True,
    ),
    soft(
        "409 on powering-off with leave to escalate and to start it",
        in_task("powering-off"),
        LOOK_LATER,
        may_escalate=True,
        may_start=True,
    ),
    *(
        hard(
            f"409 on {state}: HARD could start a stopped server",
            in_task(state),
            replace(LOOK, delay=2.0, is_attempt=False),
        )
        for state in TASK_STATES
        if state not in REBOOTING
    ),
    soft("409 on a task_state that Nova does not have", in_task("defragmenting"), LOOK),
    hard(
        "409 on a task_state that Nova does not have",
        in_task("defragmenting"),
        replace(LOOK, delay=2.0, is_attempt=False),
    ),
    row(
        "409 in an invalid state for 'reboot'",
        nova(409, NEVER_LAUNCHED),
        refused(Reason.NEVER_LAUNCHED, NEVER_LAUNCHED),
    ),
    row(
        "409 on launched_at",
        conflict("launched_at", "None"),
        refused(Reason.NEVER_LAUNCHED, conflict_words("launched_at", "None")),
    ),
    *(
        row(f"409 on vm_state {state}: a task may be at work behind it", conflict("vm_state", state), LOOK)
        for state in ("active", "stopped", "paused", "suspended", "resized", "rescued", "shelved", "deleted")
    ),
    row("409 on vm_state error: our own may have failed", conflict("vm_state", "error"), LOOK_FOR_IT),
    row("409 unreadable: translated", nova(409, "Instanz befindet sich im Zustand rebooting"), LOOK_FOR_IT),
    row("409 unreadable: a page", page(409, "Conflict"), LOOK_FOR_IT),
    row("409 unreadable: empty", answer(409), LOOK_FOR_IT),
    row("409 unreadable: cut short", answer(409, nova_body(409, LOCKED)[:60], is_cut_short=True), LOOK_FOR_IT),
    row("409 that says locked of something else", nova(409, "Volume 7 is locked by another process"), LOOK_FOR_IT),
    row("400 Ecs.0100", ecs(400, "Ecs.0100", "The ECS status does not meet requirements."), LOOK_FOR_IT),
    *(
        row(f"400 in words of a gateway's own: {words}", ecs(400, "Ecs.0999", words), LOOK_FOR_IT)
        for words in (
            "A reboot is in progress.",
            "An operation is under way",
            "The server is already being restarted",
            "The instance is rebooting",
            "Server is restarting, please wait",
        )
    ),
]

TROUBLE = [
    row("501 Ecs.0603", ecs(501, "Ecs.0603", "The commands are being executed."), replace(LOOK_FOR_IT, delay=60.0)),
    row(
        "501 Ecs.0603 with a longer Retry-After",
        answer(501, ecs_body("Ecs.0603", "The commands are being executed."), {"retry-after": "90"}),
        replace(LOOK_FOR_IT, delay=90.0),
    ),
    *(row(f"{status}, a page", page(status, "Oops"), LOOK_FOR_IT) for status in (500, 502, 504, 408, 503)),
    row("500 of Nova's own", nova(500, LOST_RACE), LOOK_FOR_IT),
    row(
        "503 with Retry-After",
        answer(503, b"", {"retry-after": "8"}),
        replace(LOOK_FOR_IT, delay=8.0, is_attempt=False),
        hold=Hold(8.0),
    ),
    row("503 with Retry-After 0, which asks for nothing", answer(503, b"", {"retry-after": "0"}), LOOK_FOR_IT),
    row("other 5xx: 501", nova(501, "Unable to use the feature"), LOOK_FOR_IT),
    row("other 5xx: 599", answer(599), LOOK_FOR_IT),
    row("1xx as the last word", answer(101), LOOK_FOR_IT),
    *(
        row(f"{code} with 400", ecs(400, code, "OpenStack access timed out."), LOOK_FOR_IT)
        for code in ("Ecs.0000", "Ecs.0227", "Ecs.1000", "Ecs.1001", "Ecs.1002")
    ),
    row("unanswered", Unanswered("ReadTimeout"), LOOK_FOR_IT),
    row("unsent", Unsent("ConnectTimeout"), AGAIN),
    row("a limit of this machine", Unsent("EMFILE", is_local=True), replace(AGAIN, is_attempt=False)),
    row("kept back by a check of ours", Unsent("the look is old", is_withheld=True), replace(LOOK, is_attempt=False)),
]

TOKENS = [
    row(
        "401 signed with an older token than the newest",
        keystone(has_stale_token=True),
        replace(AGAIN_LATER, delay=0.0),
    ),
    row(
        "401 signed with an older token, after one with the newest",
        keystone(has_stale_token=True),
        replace(AGAIN_LATER, delay=0.0),
        keystone(),
    ),
    row(
        "401 of one server alone, for the tenth time",
        keystone(has_stale_token=True),
        refused(Reason.UNAUTHORIZED, TOKEN_REFUSED),
        *[keystone(has_stale_token=True)] * 9,
    ),
    row("401 with the newest token", keystone(), AGAIN_WITH_THE_TOKEN, hold=HOLD_FOR_THE_TOKEN),
    row(
        "401 with a token that was never good, for the third time",
        keystone(),
        refused(Reason.UNAUTHORIZED, TOKEN_REFUSED, STOP_UNAUTHORIZED),
        keystone(),
        keystone(),
        hold=HOLD_FOR_THE_TOKEN,
    ),
    row(
        "401 with the newest token, not in a row",
        keystone(),
        AGAIN_WITH_THE_TOKEN,
        keystone(),
        keystone(),
        Unsent("ConnectError"),
        hold=HOLD_FOR_THE_TOKEN,
    ),
]

REFUSALS = [
    row("403", nova(403, POLICY), refused(Reason.FORBIDDEN, POLICY)),
    row("403 of ECS", ecs(403, "Ecs.0003", "no permission"), refused(Reason.FORBIDDEN, "no permission")),
    row("403 without a word", answer(403), refused(Reason.FORBIDDEN, "403")),
    row("407", page(407, "Proxy"), LOOK_FOR_IT),
    *(
        row(
            f"wrong project: {code}",
            ecs(400, code, MISMATCH),
            LOOK_FOR_IT,
        )
        for code in ("Ecs.0023", "Common.0018")
    ),
    row(
        "wrong project: Nova's 400",
        nova(400, WRONG_PROJECT),
        LOOK_FOR_IT,
    ),
    row(
        "404 that is not the cloud's own: a page",
        page(404, "404 Not Found"),
        LOOK_FOR_IT,
    ),
    row(
        "404 that is not the cloud's own: the gateway's",
        gateway(404, "APIG.0101", NO_API),
        LOOK_FOR_IT,
    ),
    row("404 itemNotFound", nova(404, NOT_FOUND), refused(Reason.NOT_FOUND, NOT_FOUND)),
    row("404 Ecs.0114", ecs(404, "Ecs.0114", "no such ECS"), refused(Reason.NOT_FOUND, "no such ECS")),
    row("404 Ecs.0614", ecs(404, "Ecs.0614", "no such ECS"), refused(Reason.NOT_FOUND, "no such ECS")),
    row("any other 4xx: 400", nova(400, "Invalid input"), refused(Reason.REJECTED, "Invalid input")),
    row("any other 4xx: 405", nova(405, "Method not allowed"), refused(Reason.REJECTED, "Method not allowed")),
    row("any other 4xx: 499 without a word", answer(499), refused(Reason.REJECTED, "499")),
]

TABLE = [
    *ACCEPTED,
    *TWO_HUNDREDS_THAT_SAY_NOTHING,
    *REDIRECTS,
    *THROTTLED,
    *CONFLICTS,
    *TROUBLE,
    *TOKENS,
    *REFUSALS,
]


@pytest.mark.parametrize(
    ("row", "reboot_type"),
    [pytest.param(row, type_, id=f"{type_}: {row.words}") for row in TABLE for type_ in row.types],
)
def test_answer(row: Row, reboot_type: RebootType) -> None:
    """Every answer has its decision, and holds everybody or only this server."""
    assert decide(row.seen, row.progress(reboot_type)) == row.decision(reboot_type)
    assert hold_for(row.seen) == row.hold


@pytest.mark.parametrize("reboot_type", RebootType)
def test_retry_after_is_never_undercut(reboot_type: RebootType) -> None:
    """What the cloud asks to wait is waited, whatever its answer is: no send and no look comes sooner."""
    undercut = []
    for row in TABLE:
        if isinstance(row.seen, Answer) and reboot_type in row.types:
            seen = replace(row.seen, fault=replace(row.seen.fault, retry_after=777.0))
            decision = decide(seen, row.progress(reboot_type))
            if isinstance(decision, Send | Look) and decision.delay < 777.0:
                undercut.append(row.words)

    assert undercut == []


@pytest.mark.parametrize("row", [pytest.param(row, id=row.words) for row in TABLE if row.hold is not None])
def test_hold_is_never_undercut(row: Row) -> None:
    """An answer that holds everybody holds them for no less than it asks."""
    assert isinstance(row.seen, Answer)
    seen = replace(row.seen, fault=replace(row.seen.fault, retry_after=777.0))

    assert hold_for(seen) == Hold(777.0)
