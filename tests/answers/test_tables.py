"""The two tables of the retry policy, row by row, through the real client: what comes of it, and what the cloud saw."""

import json
import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Unpack

import httpx
import pytest
import trio

from bulkrestart import Outcome, Proof, Reason, RebootType, Report, RestartClient, StopReason, Token
from bulkrestart.simulator import Call, Cloud, Fault, HostFault, LogAccess, asgi
from bulkrestart.simulator.records import Changes
from tests.core.samples import REBOOTING, TASK_STATES, conflict_words, ecs_body
from tests.virtual import client_of, cloud_of, virtually

from .wire import HOST, Arguments

#: Does something to a server of the cloud before the run, or plans it.
Prepare = Callable[[Cloud, str], object]
Ends = tuple[Outcome, Reason | None]

#: Seconds from the preparation to the run: long enough for the clocks to tell the order.
AHEAD: Final = 5.0
#: Seconds that a task takes from the beginning of the run.
TASK: Final = 45.0

COMPLETED: Final = (Outcome.COMPLETED, None)
IN_DOUBT: Final = (Outcome.IN_DOUBT, Reason.UNANSWERED)
GONE: Final = (Outcome.IN_DOUBT, Reason.GONE)
NOT_BACK: Final = (Outcome.FAILED, Reason.NOT_BACK)


def refused(reason: Reason) -> Ends:
    """Spell a refusal."""
    return Outcome.REFUSED, reason


def skipped(reason: Reason) -> Ends:
    """Spell that nothing was sent."""
    return Outcome.SKIPPED, reason


def nothing(cloud: Cloud, server_id: str) -> None:
    """Leave it as it is."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Attributes:
        name: The row, in the table's words.
        meets: What the sends to the server meet, one each.
        lost: What a lost reply raises in the lent client.
        sign: How the lent client signs; None: as usual.
        prepare: What is done to it before the run.
        ahead: How many seconds before.
        arguments: The arguments of the restart.
        has_witness: Whether another server of the run is accepted first, so that the log has named and dated us.
        ends: The outcome and its reason.
        posts: Sends that the cloud saw; None: two or more.
        cycles: Real power cycles, by whomever.
        after: Seconds from the first send until the second, at least.
        took: Seconds from the first look or send until the outcome, at least.
        proof: How a completed reboot is known; None: either.
        stop: Why the run stopped.
    """

    name: str
    meets: Sequence[Fault | None] = ()
    lost: Callable[[str], Exception] = httpx.ReadError
    sign: Callable[[], httpx.Auth] | None = None
    prepare: Prepare = nothing
    ahead: float = AHEAD
    arguments: Arguments = field(default_factory=Arguments)
    has_witness: bool = False
    ends: Ends = COMPLETED
    posts: int | None = 1
    cycles: int = 1
    after: float = 0.0
    took: float = 0.0
    proof: Proof | None = None
    stop: StopReason | None = None


async def restart(cloud: Cloud, row: Row) -> Report:
    """Restart all servers of a cloud, one at once."""
    transport = httpx.ASGITransport(asgi(cloud, lost=row.lost))
    auth = Token(cloud.token) if row.sign is None else row.sign()
    async with httpx.AsyncClient(transport=transport, headers={"X-Auth-Token": cloud.token}) as http:
        client = RestartClient(f"{HOST}/v2.1/{cloud.project_id}", auth=auth, http=http, max_at_once=1)
        return await client.restart(cloud.ids, **row.arguments)


async def play(row: Row) -> None:
    """Play one row, and hold it to what it says; call it within `virtually`."""
    cloud = cloud_of(2 if row.has_witness else 1, reboot_seconds=(20.0, 20.0))
    server_id = cloud.ids[-1]
    cloud.script(server_id, *row.meets)
    row.prepare(cloud, server_id)
    await trio.sleep(row.ahead)
    report = await restart(cloud, row)
    result = report[server_id]
    sent_at = [record.time for record in cloud.requests if (record.call, record.server_id) == (Call.REBOOT, server_id)]
    assert (result.outcome, result.reason) == row.ends, result
    assert len(sent_at) == row.posts or (row.posts is None and len(sent_at) >= 2), result
    assert cloud.cycles[server_id] == row.cycles, result
    assert len(result.attempts) == len(sent_at) + (row.sign is FailingSignIn)
    assert (report.stopped and report.stopped.reason) == row.stop
    assert result.elapsed >= row.took
    assert row.proof in (None, result.proof)
    assert row.after == 0.0 or sent_at[1] - sent_at[0] >= row.after


def rows(*table: Row) -> pytest.MarkDecorator:
    """Name a test after each row."""
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in table])


# What sends and looks meet.


def gateway(status: int, code: str = "", *, applied: bool = False, **headers: str) -> Fault:
    """Answer as ECS does, or with nothing, behind a gateway whose ids no action log shows."""
    body = ecs_body(code, "in its own words") if code else b""
    return Fault.respond(status, body, headers, applied=applied)


def page(status: int) -> Fault:
    """Answer with a page for people."""
    return Fault.respond(status, b"<html><title>Please sign in</title></html>")


def conflict(attribute: str, state: str, *, applied: bool = False) -> Fault:
    """Answer 409 in Nova's words, whatever the server's state is."""
    return Fault.error(409, conflict_words(attribute, state), applied=applied)


LOST: Final = Fault.no_reply(applied=False)
LOST_AFTER: Final = Fault.no_reply(applied=True)
#: Carried out at once, and answered a second later: what happens in between happens before the first look.
LOST_A_SECOND_AFTER: Final = Fault.no_reply(applied=True, after=1.0)
FAILED_A_SECOND_AFTER: Final = replace(Fault.error(500, applied=True), answered_after=1.0)
#: Another user's reboot gets in just before, and the reply to ours, which is not carried out, is lost.
LOST_BESIDE: Final = Fault(lost=True, by_other=True)
REFUSED_TOKEN: Final = gateway(401)


# What is done to a server.


def changed(**changes: Unpack[Changes]) -> Prepare:
    """Set its states."""
    return lambda cloud, server_id: cloud.change(server_id, **changes)


def occupied(task_state: str, /, *, ends_in: str | None = None, **changes: Unpack[Changes]) -> Prepare:
    """Put it, in these states, into a task that passes."""

    def prepare(cloud: Cloud, server_id: str) -> None:
        cloud.change(server_id, **changes)
        cloud.occupy(server_id, task_state, AHEAD + TASK, ends_in=ends_in)

    return prepare


def rebooted_by_other(cloud: Cloud, server_id: str) -> None:
    """Let another user reboot it."""
    cloud.reboot_by_other(server_id)


def rebooted_by_other_later(cloud: Cloud, server_id: str) -> None:
    """Let another user reboot it right before the first server of the run is sent to."""
    cloud.later(AHEAD - 4.0, lambda: cloud.reboot_by_other(server_id))


def rebooted_by_us(cloud: Cloud, server_id: str) -> None:
    """Reboot it with another program of ours."""
    cloud.reboot(server_id, RebootType.SOFT)


def deleted(cloud: Cloud, server_id: str) -> None:
    """Delete it."""
    cloud.delete(server_id)


def hung(cloud: Cloud, server_id: str) -> None:
    """Let its reboot never end."""
    cloud.break_host(server_id, HostFault.HANG)


def at(seconds: float, prepare: Prepare) -> Prepare:
    """Do it so many seconds after the run began."""

    def plan(cloud: Cloud, server_id: str) -> None:
        cloud.later(AHEAD + seconds, lambda: prepare(cloud, server_id))

    return plan


def both(first: Prepare, second: Prepare) -> Prepare:
    """Do one after the other."""

    def prepare(cloud: Cloud, server_id: str) -> None:
        first(cloud, server_id)
        second(cloud, server_id)

    return prepare


def looks_meet(*faults: Fault | None) -> Prepare:
    """Let looks at it meet these, after the one before the run."""
    return lambda cloud, server_id: cloud.script(server_id, None, *faults, call=Call.SHOW)


def reads_meet(*faults: Fault | None) -> Prepare:
    """Let looks at it meet these, after the one before the run, and lists as well."""

    def prepare(cloud: Cloud, server_id: str) -> None:
        looks_meet(*faults)(cloud, server_id)
        cloud.script(None, *faults, call=Call.LIST)

    return prepare


def logs_meet(*faults: Fault | None) -> Prepare:
    """Let looks at its log meet these."""
    return lambda cloud, server_id: cloud.script(server_id, *faults, call=Call.LOG)


def shown_as(**states: str) -> Prepare:
    """Let the first look show it like this, and nothing more."""

    def prepare(cloud: Cloud, server_id: str) -> None:
        body = json.dumps({"server": {"id": server_id, **states}}).encode()
        looks_meet(Fault.respond(200, body), Fault.respond(200, body))(cloud, server_id)

    return prepare


def kept(access: LogAccess) -> Prepare:
    """Keep the logs from us."""
    return lambda cloud, _: setattr(cloud, "log_access", access)


def lagging(seconds: float) -> Prepare:
    """Show the rows of logs so late."""
    return lambda cloud, _: setattr(cloud, "log_delay", seconds)


class FailingSignIn(httpx.Auth):
    """Fails to sign the first POST, so that nothing of it leaves."""

    def __init__(self) -> None:
        self._has_failed = False

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Fail once."""
        if request.method == "POST" and not self._has_failed:
            self._has_failed = True
            raise httpx.ConnectError("no way to the identity service")
        yield request


class LoginPage(httpx.Auth):
    """Follows the answer to a POST with a request of its own, whose answer the client then sees."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Ask for the versions of the API after a POST."""
        yield request
        if request.method == "POST":
            yield httpx.Request("GET", HOST)


#: Seconds: longer than any run, and less than the age of the rows of the servers' creation, which are shown.
FOR_EVER: Final = 36_000.0
HARD: Final[Arguments] = {"reboot_type": "HARD"}
HARD_WITH_LEAVE: Final[Arguments] = {"reboot_type": "HARD", "start_stopped": True}
ESCALATE: Final[Arguments] = {"escalate": True}
ALL_LEAVE: Final[Arguments] = {"escalate": True, "start_stopped": True}
ONE_ATTEMPT: Final[Arguments] = {"max_attempts": 1}
ONE_HARD_ATTEMPT: Final[Arguments] = {"reboot_type": "HARD", "max_attempts": 1}
WRONG_STATE: Final = refused(Reason.WRONG_STATE)
NEVER_LAUNCHED: Final = refused(Reason.NEVER_LAUNCHED)
LOCKED: Final = refused(Reason.LOCKED)

#: The classes of task_states; a task that ends elsewhere with the vm_state that it ends in.
ENDS_IN_ACTIVE: Final = (
    *("image_snapshot", "image_snapshot_pending", "image_pending_upload", "image_uploading", "image_backup"),
    *("updating_password", "migrating", "rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"),
    *("scheduling", "block_device_mapping", "networking", "spawning", "resize_reverting", "resize_confirming"),
    *("unpausing", "resuming", "powering-on", "unrescuing", "restoring", "unshelving"),
)
ENDS_ELSEWHERE: Final = {
    **dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "resized"),
    "rescuing": "rescued",
    **dict.fromkeys(("shelving", "shelving_image_pending_upload", "shelving_image_uploading"), "shelved"),
    "shelving_offloading": "shelved_offloaded",
    "soft-deleting": "soft-delete",
    "deleting": "deleted",
}
#: A HARD works in these, so with leave they pass.
ENDS_IN_HARD_ONLY: Final = {"pausing": "paused", "suspending": "suspended", "powering-off": "stopped"}
#: Nova names the vm_state first, so that it hides the task behind it.
HIDDEN_TASKS: Final = (
    *(("building", task) for task in ("scheduling", "block_device_mapping", "networking", "spawning")),
    *(("stopped", "powering-on"), ("paused", "unpausing"), ("suspended", "resuming"), ("rescued", "unrescuing")),
    *(("shelved_offloaded", "unshelving"), ("soft-delete", "restoring"), ("error", "rebuild_spawning")),
    *(("resized", "resize_reverting"), ("resized", "resize_confirming"), ("stopped", "rebuilding")),
)
HARD_ONLY: Final = ("paused", "suspended", "error")
NEVER: Final = ("resized", "rescued", "shelved", "shelved_offloaded", "soft-delete")


def test_no_task_state_is_left_out() -> None:
    """Every task_state of Nova's is of one class, and so in the rows below."""
    classes = [*REBOOTING, *ENDS_IN_ACTIVE, *ENDS_ELSEWHERE, *ENDS_IN_HARD_ONLY]
    assert sorted(classes) == sorted(TASK_STATES)


# The first table: an answer.


def looked_up(
    name: str, fault: Fault, *, after: float = 10.0, lost: Callable[[str], Exception] = httpx.ReadError
) -> tuple[Row, Row]:
    """Look: what was not carried out is sent again after the grace, and what was is found."""
    return (
        Row(name=f"{name}, not carried out", meets=[fault], lost=lost, posts=2, after=after),
        Row(name=f"{name}, carried out", meets=[replace(fault, applied_after=0.0)], lost=lost),
    )


def looked_up_hard(name: str, fault: Fault) -> tuple[Row, Row]:
    """Look: a HARD is sent again only where the log has shown a reboot of this run, and after its own grace."""
    return (
        Row(
            name=f"{name}, not carried out, HARD",
            meets=[fault],
            arguments=HARD,
            has_witness=True,
            posts=2,
            after=90.0,
        ),
        Row(name=f"{name}, carried out, HARD", meets=[replace(fault, applied_after=0.0)], arguments=HARD),
    )


@rows(
    Row(name="empty", proof=Proof.ACTION),
    Row(name="empty, HARD", arguments=HARD, proof=Proof.ACTION),
    *(
        Row(name=f"empty, without a request id: {status}", meets=[gateway(status, applied=True)], proof=Proof.ACTION)
        for status in (200, 201, 202, 204, 299)
    ),
    Row(name="JSON without an error code", meets=[Fault.respond(200, b'{"job_id": "ff80"}', applied=True)]),
    *looked_up("Common.0024", Fault.flow_limited(), after=90.0),
    Row(name="Common.0024, carried out 60 s later", meets=[replace(Fault.flow_limited(), applied_after=60.0)]),
    *looked_up_hard("Common.0024", Fault.flow_limited()),
    *looked_up("another error code", gateway(200, "Ecs.0005")),
    *looked_up("a body that is not JSON", page(200)),
    *looked_up("cut short", Fault.cut_short(applied=False)),
    *looked_up_hard("cut short", Fault.cut_short(applied=False)),
)
def test_success(row: Row) -> None:
    """A 2xx is an acceptance where it is plain, and otherwise looked into."""
    virtually(lambda: play(row))


@rows(
    *(
        row
        for status in (300, 301, 302, 303, 307, 308)
        for row in looked_up(str(status), gateway(status, location="/login"))
    ),
    Row(
        name="no longer our POST, not carried out",
        meets=[gateway(302)],
        sign=LoginPage,
        posts=2,
        after=10.0,
    ),
    Row(name="no longer our POST, carried out", sign=LoginPage),
)
def test_redirect(row: Row) -> None:
    """A single 3xx stops no run: its server is looked at, and sent to again if nothing was started."""
    virtually(lambda: play(row))


@rows(
    *(
        row
        for name, fault, after in (
            ("413", Fault.throttled(None, status=413), 1.0),
            ("429", Fault.throttled(None), 1.0),
            ("429 with Retry-After", Fault.throttled(17.0), 17.0),
            ("Common.1503 with 429", gateway(429, "Common.1503"), 1.0),
            ("Common.1503 with 503", gateway(503, "Common.1503"), 1.0),
            ("APIGW.0308", Fault.gateway_throttled(), 60.0),
            ("APIG.0308 with another status", gateway(400, "APIG.0308"), 1.0),
        )
        for row in (
            Row(name=f"{name}, seven times", meets=[fault] * 7, arguments=ONE_ATTEMPT, posts=8, after=after),
            Row(name=f"{name}, HARD", meets=[fault], arguments=ONE_HARD_ATTEMPT, posts=2, after=after),
        )
    )
)
def test_throttled(row: Row) -> None:
    """A throttled send is sent again once everybody may, and is not an attempt."""
    virtually(lambda: play(row))


@pytest.mark.unmeasured
@rows(
    *(
        row
        for state in REBOOTING
        for row in (
            Row(name=f"{state}, our own", meets=[conflict("task_state", state, applied=True)]),
            Row(name=f"{state}, our own, HARD", meets=[conflict("task_state", state, applied=True)], arguments=HARD),
            Row(name=f"{state}, over by the first look", meets=[conflict("task_state", state)], posts=2, after=10.0),
        )
    ),
    Row(name="is locked", prepare=changed(locked=True), ends=LOCKED, cycles=0),
    Row(
        name="is locked since the look, HARD",
        meets=[Fault.error(409, "Instance X is locked")],
        arguments=HARD,
        ends=LOCKED,
        cycles=0,
    ),
    Row(name="Ecs.0605", meets=[gateway(400, "Ecs.0605")], ends=LOCKED, cycles=0),
    Row(name="ECS.0605, HARD", meets=[gateway(400, "ECS.0605")], arguments=HARD, ends=LOCKED, cycles=0),
    *(
        Row(name=f"{task}, which ends in active", prepare=occupied(task), arguments=ONE_ATTEMPT, posts=None, took=TASK)
        for task in ENDS_IN_ACTIVE
    ),
    *(
        Row(
            name=f"{task}, begun since the look, HARD",
            meets=[Fault.busy(TASK, task)],
            arguments=ONE_HARD_ATTEMPT,
            posts=2,
            after=TASK,
        )
        for task in ("image_snapshot", "migrating", "rebuilding", "powering-on", "defragmenting")
    ),
    Row(
        name="vm_state building",
        prepare=occupied("spawning", vm_state="building", ends_in="active"),
        arguments=ONE_ATTEMPT,
        posts=None,
        took=TASK,
    ),
    *(
        Row(name=f"{task}, which ends elsewhere", prepare=occupied(task, ends_in=ends_in), ends=WRONG_STATE, cycles=0)
        for task, ends_in in (ENDS_ELSEWHERE | ENDS_IN_HARD_ONLY).items()
    ),
    *(
        Row(
            name=f"{task}, which ends elsewhere, begun since the look, HARD",
            meets=[Fault.busy(TASK, task)],
            arguments=HARD,
            ends=WRONG_STATE,
            cycles=0,
        )
        for task in (*ENDS_ELSEWHERE, "powering-off")
    ),
    *(
        Row(name=f"{task}, {words}", prepare=occupied(task, ends_in=ends_in), arguments=leave, posts=None, took=TASK)
        for task, ends_in, leave, words in (
            ("pausing", "paused", ESCALATE, "with leave to escalate"),
            ("suspending", "suspended", ESCALATE, "with leave to escalate"),
            ("powering-off", "stopped", ALL_LEAVE, "with all leave"),
        )
    ),
    Row(
        name="powering-off, with leave to escalate only",
        prepare=occupied("powering-off", ends_in="stopped"),
        arguments=ESCALATE,
        ends=WRONG_STATE,
        cycles=0,
    ),
    Row(name="in an invalid state", prepare=changed(launched_at=None), ends=NEVER_LAUNCHED, cycles=0),
    Row(
        name="in an invalid state, HARD",
        prepare=changed(launched_at=None),
        arguments=HARD,
        ends=NEVER_LAUNCHED,
        cycles=0,
    ),
    Row(name="launched_at", meets=[conflict("launched_at", "None")], ends=NEVER_LAUNCHED, cycles=0),
    *(
        row
        for name, fault in (
            ("vm_state", conflict("vm_state", "stopped")),
            ("unreadable: translated", Fault.error(409, "Instanz befindet sich im Zustand rebooting")),
            ("unreadable: a page", page(409)),
            ("unreadable: empty", gateway(409)),
            ("Ecs.0100", gateway(400, "Ecs.0100")),
        )
        for row in (
            Row(name=f"{name}, not carried out", meets=[fault], posts=2),
            Row(name=f"{name}, carried out", meets=[replace(fault, applied_after=0.0)]),
            Row(name=f"{name}, not carried out, HARD", meets=[fault], arguments=HARD, posts=2),
        )
    ),
)
def test_conflict(row: Row) -> None:
    """A conflict is read: what may be our own is looked up, what passes is waited for, what never does is refused."""
    virtually(lambda: play(row))


@rows(
    Row(name="501 Ecs.0603", meets=[Fault.commands_executing()], posts=2, after=60.0),
    Row(name="501 Ecs.0603, HARD", meets=[Fault.commands_executing()], arguments=HARD, posts=2, after=60.0),
    Row(
        name="501 Ecs.0603 is an attempt",
        meets=[Fault.commands_executing()] * 9,
        ends=refused(Reason.ATTEMPTS_EXHAUSTED),
        posts=5,
        cycles=0,
    ),
    *(row for status in (500, 502, 503, 501, 599) for row in looked_up(f"{status} of Nova's", Fault.error(status))),
    *(row for status in (500, 502, 503, 501, 599) for row in looked_up(f"{status} of a gateway", gateway(status))),
    *(row for status in (504, 408) for row in looked_up(f"{status} at once", gateway(status))),
    *(
        row
        for status in (504, 408)
        for row in looked_up(f"{status} after a wait", replace(gateway(status), answered_after=5.0), after=90.0)
    ),
    *(
        row
        for code in ("Ecs.0000", "Ecs.0227", "Ecs.1000", "Ecs.1001", "Ecs.1002")
        for row in looked_up(code, gateway(400, code))
    ),
    *(
        row
        for lost in (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ConnectError)
        for row in looked_up(f"unanswered: {lost.__name__}", LOST, lost=lost)
    ),
    *(
        row
        for lost in (httpx.ReadTimeout, httpx.WriteTimeout, httpx.ConnectTimeout)
        for row in looked_up(f"unanswered: {lost.__name__}", LOST, lost=lost, after=90.0)
    ),
    *(
        row
        for name, fault in (
            ("500 of Nova's", Fault.error(500)),
            ("503 of a gateway", gateway(503)),
            ("504", gateway(504)),
            ("Ecs.1002", gateway(400, "Ecs.1002")),
            ("unanswered", LOST),
        )
        for row in looked_up_hard(name, fault)
    ),
    *looked_up("unanswered in time", Fault(lost=True, answered_after=1000.0), after=90.0),
    Row(name="unsent: PoolTimeout", meets=[LOST] * 4, lost=httpx.PoolTimeout, posts=5),
    Row(
        name="unsent: PoolTimeout for ever",
        meets=[LOST] * 9,
        lost=httpx.PoolTimeout,
        ends=skipped(Reason.UNREACHABLE),
        posts=5,
        cycles=0,
    ),
    Row(name="unsent: a sign-in that fails", sign=FailingSignIn),
    Row(
        name="500 for ever",
        meets=[Fault.error()] * 9,
        ends=refused(Reason.ATTEMPTS_EXHAUSTED),
        posts=5,
        cycles=0,
    ),
)
def test_trouble(row: Row) -> None:
    """After trouble the fate of a send is unknown, and nothing is sent before it is known."""
    virtually(lambda: play(row))


@pytest.mark.unmeasured
@rows(
    Row(name="401 once", meets=[REFUSED_TOKEN], arguments=ONE_ATTEMPT, posts=2),
    Row(name="401 once, HARD", meets=[REFUSED_TOKEN], arguments=ONE_HARD_ATTEMPT, posts=2),
    Row(name="401 five times", meets=[REFUSED_TOKEN] * 5, arguments=ONE_ATTEMPT, posts=6),
    Row(
        name="401 of this server always",
        meets=[REFUSED_TOKEN] * 99,
        ends=refused(Reason.UNAUTHORIZED),
        posts=10,
        cycles=0,
    ),
    Row(name="401 twice, not in a row", meets=[REFUSED_TOKEN, Fault.throttled(1.0), REFUSED_TOKEN], posts=4),
    Row(name="403", meets=[Fault.error(403, "Policy")], ends=refused(Reason.FORBIDDEN), cycles=0),
    *(
        Row(name=name, meets=[fault], posts=2)
        for name, fault in {
            "407": gateway(407),
            "wrong project: Ecs.0023": gateway(400, "Ecs.0023"),
            "wrong project: Common.0018": gateway(400, "Common.0018"),
            "wrong project: Nova's 400": Fault.error(400, "URL's project_id 'a' doesn't match 'b'"),
            "404 that is not the cloud's own: empty": gateway(404),
            "404 that is not the cloud's own: a page": page(404),
            "404 that is not the cloud's own: the gateway's": gateway(404, "APIG.0101"),
        }.items()
    ),
    *(
        Row(name=name, meets=[fault], ends=refused(reason), cycles=0)
        for reason, faults in (
            (
                Reason.NOT_FOUND,
                {
                    "404 itemNotFound": Fault.error(404, "Instance X could not be found."),
                    "404 Ecs.0114": gateway(404, "Ecs.0114"),
                    "404 Ecs.0614": gateway(404, "Ecs.0614"),
                },
            ),
            (
                Reason.REJECTED,
                {
                    f"any other 4xx: {status}": gateway(status)
                    for status in (400, 402, 405, 406, 410, 415, 422, 431, 499)
                },
            ),
        )
        for name, fault in faults.items()
    ),
    Row(name="404, really", prepare=deleted, ends=refused(Reason.NOT_FOUND), cycles=0),
)
def test_refusal(row: Row) -> None:
    """A refusal is kept in the cloud's own words; one that would meet every server stops the run."""
    virtually(lambda: play(row))


# The second table: a look, while the fate of a send is unknown.


@pytest.mark.unmeasured
@rows(
    Row(name="the cloud's own 404", meets=[LOST], prepare=at(3.0, deleted), ends=GONE, cycles=0),
    Row(
        name="the cloud's own 404, and the log shows it",
        meets=[LOST_A_SECOND_AFTER],
        prepare=at(0.5, deleted),
        ends=GONE,
        cycles=0,
    ),
    Row(name="a 404 that is not the cloud's own", meets=[LOST], prepare=looks_meet(page(404)), posts=2, after=10.0),
    Row(name="the log holds the id of our answer", meets=[Fault.error(500, applied=True)], proof=Proof.ACTION),
    Row(
        name="the log holds the id of our answer, whatever the states say",
        meets=[FAILED_A_SECOND_AFTER],
        prepare=at(0.5, changed(locked=True)),
    ),
    Row(
        name="absent after a 500: a lost race, once we are named",
        meets=[Fault.race()],
        has_witness=True,
        posts=2,
        cycles=2,
    ),
    Row(
        name="absent after a 500: a lost race, HARD",
        meets=[Fault.race()],
        arguments=HARD,
        has_witness=True,
        posts=2,
        cycles=2,
    ),
    Row(name="absent after a 500: a lost race, nobody named", meets=[Fault.race()]),
    Row(name="a reboot of ours since", meets=[LOST_AFTER]),
    Row(name="a reboot of ours since, carried out 8 s later", meets=[Fault.late(8.0)]),
    Row(name="a reboot by another since", meets=[LOST], prepare=at(4.0, rebooted_by_other)),
    Row(
        name="a reboot by another since, once we are named",
        meets=[LOST],
        prepare=at(4.0, rebooted_by_other),
        has_witness=True,
    ),
    Row(name="a reboot by another inside the uncertainty", meets=[LOST_BESIDE], has_witness=True, ends=IN_DOUBT),
    Row(name="a reboot by anyone inside the uncertainty, nobody named", meets=[LOST_BESIDE]),
    Row(
        name="a reboot by another before",
        meets=[LOST],
        prepare=rebooted_by_other,
        has_witness=True,
        posts=2,
        cycles=2,
        after=10.0,
    ),
    Row(name="a reboot by anyone before, nobody named", meets=[LOST], prepare=rebooted_by_other, ends=IN_DOUBT),
    Row(
        name="a reboot of ours before, within what clocks may differ",
        meets=[LOST],
        prepare=rebooted_by_us,
        ahead=40.0,
        has_witness=True,
        ends=IN_DOUBT,
    ),
    Row(
        name="a reboot of ours before, beyond that",
        meets=[LOST],
        prepare=rebooted_by_us,
        ahead=70.0,
        has_witness=True,
        posts=2,
        cycles=2,
        after=10.0,
    ),
    Row(
        name="a reboot of ours before, within what an unchecked log may differ",
        meets=[LOST],
        prepare=rebooted_by_us,
        ahead=800.0,
        ends=IN_DOUBT,
    ),
    Row(
        name="a reboot of ours before, beyond that too",
        meets=[LOST],
        prepare=rebooted_by_us,
        ahead=1000.0,
        posts=2,
        cycles=2,
        after=10.0,
    ),
    Row(name="a reboot of ours before, seen in the first look", prepare=rebooted_by_us, cycles=2),
    Row(
        name="a reboot of ours before, and a 409",
        meets=[conflict("task_state", "rebooting")],
        prepare=rebooted_by_us,
        ahead=30.0,
        ends=IN_DOUBT,
        took=40.0,
    ),
)
def test_look_finds_the_send(row: Row) -> None:
    """What landed is accepted, by whatever proves it; what cannot be told from another's is in doubt."""
    virtually(lambda: play(row))


@pytest.mark.unmeasured
@rows(
    Row(name="log silent yet", meets=[LOST_AFTER], prepare=lagging(8.0)),
    Row(
        name="log silent, and the reboot is over before the row is there",
        meets=[LOST_AFTER],
        prepare=lagging(40.0),
    ),
    Row(name="log silent, and idle again", meets=[LOST_AFTER], prepare=lagging(FOR_EVER), ends=IN_DOUBT, took=300.0),
    Row(
        name="log silent for all of look_timeout",
        meets=[LOST_AFTER],
        prepare=both(lagging(FOR_EVER), hung),
        ends=NOT_BACK,
        cycles=0,
        took=300.0,
    ),
    *(
        Row(
            name=f"log not readable: {access}, {type_}",
            meets=[LOST_AFTER],
            prepare=kept(access),
            arguments=arguments,
            proof=Proof.STATE,
        )
        for access in (LogAccess.FORBIDDEN, LogAccess.MISSING, LogAccess.EMPTY)
        for type_, arguments in (("SOFT", Arguments()), ("HARD", HARD))
    ),
    *(
        Row(name=f"log {words} for now", meets=[LOST_AFTER], prepare=logs_meet(*[fault] * 4), proof=Proof.ACTION)
        for words, fault in (("fails", Fault.error(500)), ("503, a page", page(503)), ("unanswered", LOST))
    ),
)
def test_look_shows_a_reboot(row: Row) -> None:
    """A server that was seen in a reboot is never sent to again before the log explains it."""
    virtually(lambda: play(row))


@pytest.mark.unmeasured
@rows(
    Row(name="none: sent again after the grace of SOFT", meets=[LOST], posts=2, after=10.0),
    Row(
        name="none: sent again after the grace of HARD",
        meets=[LOST],
        arguments=HARD,
        has_witness=True,
        posts=2,
        after=90.0,
    ),
    Row(
        name="none, HARD, in a log that has shown no reboot, of a server that was saved long ago",
        meets=[LOST],
        arguments=HARD,
        posts=2,
        after=90.0,
    ),
    Row(
        name="none, HARD, in a log that has shown no reboot, of a server that was saved lately",
        meets=[LOST],
        prepare=at(0.0, changed(name="renamed")),
        arguments=HARD,
        ends=IN_DOUBT,
        cycles=0,
        took=300.0,
    ),
    Row(name="none; now it is locked", meets=[LOST], prepare=at(3.0, changed(locked=True)), ends=LOCKED, cycles=0),
    Row(
        name="none; now it is stopped",
        meets=[LOST],
        prepare=at(3.0, changed(vm_state="stopped")),
        ends=WRONG_STATE,
        cycles=0,
    ),
    Row(
        name="none; now it is stopped, with all leave",
        meets=[LOST],
        prepare=at(3.0, changed(vm_state="stopped")),
        arguments=ALL_LEAVE,
        posts=2,
        after=10.0,
    ),
    Row(
        name="none; now it is in a passing task",
        meets=[LOST],
        prepare=at(3.0, lambda cloud, server_id: cloud.occupy(server_id, "migrating", TASK)),
        posts=2,
        after=3.0 + TASK,
    ),
    Row(name="none, twice", meets=[LOST, LOST], posts=3, after=10.0),
    *(
        Row(
            name=f"idle, log not readable: {access}, {type_}",
            meets=[LOST],
            prepare=kept(access),
            arguments=arguments,
            ends=IN_DOUBT,
            cycles=0,
            took=took,
        )
        for access, type_, arguments, took in (
            # A log that is kept from us is not waited for: only a state may show a send that is late.
            (LogAccess.FORBIDDEN, "SOFT", Arguments(), 40.0),
            (LogAccess.FORBIDDEN, "HARD", HARD, 120.0),
            (LogAccess.MISSING, "SOFT", Arguments(), 40.0),
            (LogAccess.MISSING, "HARD", HARD, 120.0),
            (LogAccess.EMPTY, "SOFT", Arguments(), 300.0),
            (LogAccess.EMPTY, "HARD", HARD, 300.0),
        )
    ),
    *(
        Row(name=f"log {words}, for now", meets=[LOST], prepare=logs_meet(*[fault] * 4), posts=2, after=10.0)
        for words, fault in (("fails", Fault.error(500)), ("503, a page", page(503)), ("unanswered", LOST))
    ),
    *(
        Row(
            name=f"log {words}, for all of look_timeout",
            meets=[LOST],
            prepare=logs_meet(*[fault] * 99),
            ends=IN_DOUBT,
            cycles=0,
            took=300.0,
        )
        for words, fault in (("fails", Fault.error(500)), ("503, a page", page(503)), ("unanswered", LOST))
    ),
    Row(name="the log is throttled", meets=[LOST], prepare=logs_meet(Fault.throttled(40.0)), posts=2, after=40.0),
    Row(name="the server is throttled", meets=[LOST], prepare=looks_meet(Fault.throttled(40.0)), posts=2, after=40.0),
    Row(name="401 on the log", meets=[LOST], prepare=logs_meet(REFUSED_TOKEN), posts=2, after=10.0),
    Row(name="401 on the server", meets=[LOST], prepare=looks_meet(REFUSED_TOKEN), posts=2, after=10.0),
    Row(
        name="401 on both, twice",
        meets=[LOST],
        prepare=both(logs_meet(*[REFUSED_TOKEN] * 2), looks_meet(*[REFUSED_TOKEN] * 2)),
        posts=2,
        after=10.0,
    ),
    Row(
        name="401 on the server, twice",
        meets=[LOST],
        prepare=looks_meet(REFUSED_TOKEN, REFUSED_TOKEN),
        posts=2,
        after=10.0,
    ),
    Row(
        name="401 on the log alone: it is kept from us",
        meets=[LOST],
        prepare=logs_meet(REFUSED_TOKEN, REFUSED_TOKEN),
        ends=IN_DOUBT,
        cycles=0,
        took=40.0,
    ),
)
def test_look_finds_nothing(row: Row) -> None:
    """Silence is proof only of a log that can be read, after the grace; what cannot be learnt is in doubt."""
    virtually(lambda: play(row))


# The second table: a look with nothing unresolved. HARD looks first, and what it finds then is skipped.


@pytest.mark.unmeasured
@rows(
    Row(name="somebody else's reboot", prepare=rebooted_by_other, cycles=2, took=15.0),
    Row(
        name="somebody else's reboot, which its own send meets",
        prepare=rebooted_by_other_later,
        has_witness=True,
        posts=2,
        cycles=2,
        after=15.0,
    ),
    Row(
        name="somebody else's reboot is not an attempt",
        prepare=rebooted_by_other_later,
        arguments=ONE_ATTEMPT,
        has_witness=True,
        posts=2,
        cycles=2,
        after=15.0,
    ),
    Row(
        name="somebody else's reboot, HARD", prepare=rebooted_by_other, arguments=ONE_HARD_ATTEMPT, cycles=2, took=15.0
    ),
    *(
        Row(name=f"{state}, HARD", prepare=occupied(state), arguments=ONE_HARD_ATTEMPT, took=TASK)
        for state in REBOOTING
    ),
    Row(
        name="locked, HARD",
        prepare=changed(locked=True),
        arguments=HARD_WITH_LEAVE,
        ends=skipped(Reason.LOCKED),
        posts=0,
        cycles=0,
    ),
    Row(
        name="locked, after a refusal",
        meets=[gateway(400, "Ecs.0100")],
        prepare=changed(locked=True),
        ends=LOCKED,
        cycles=0,
    ),
    Row(
        name="locked, in a passing task, HARD",
        prepare=occupied("migrating", locked=True),
        arguments=HARD,
        ends=skipped(Reason.LOCKED),
        posts=0,
        cycles=0,
    ),
    *(
        Row(name=f"{task}, a passing task, HARD", prepare=occupied(task), arguments=ONE_HARD_ATTEMPT, took=TASK)
        for task in (*ENDS_IN_ACTIVE, "pausing", "suspending", "defragmenting")
    ),
    *(
        row
        for vm_state, task in HIDDEN_TASKS
        for prepare in (occupied(task, vm_state=vm_state, ends_in="active"),)
        for row in (
            Row(name=f"{vm_state} and {task}, HARD", prepare=prepare, arguments=ONE_HARD_ATTEMPT, took=TASK),
            Row(name=f"{vm_state} and {task}", prepare=prepare, posts=None, took=TASK),
        )
    ),
    Row(
        name="building, HARD",
        prepare=both(changed(vm_state="building"), at(30.0, changed(vm_state="active"))),
        arguments=HARD,
        took=30.0,
    ),
    Row(name="UNKNOWN, HARD", prepare=shown_as(status="UNKNOWN"), arguments=HARD, took=2.0),
    Row(name="UNKNOWN, after a refusal", meets=[gateway(400, "Ecs.0100")], prepare=shown_as(status="UNKNOWN"), posts=2),
    Row(name="shown without its states, HARD", prepare=shown_as(status="ACTIVE"), arguments=HARD, took=2.0),
    *(
        Row(
            name=f"{task}, which ends elsewhere, HARD",
            prepare=occupied(task, ends_in=ends_in),
            arguments=HARD_WITH_LEAVE,
            ends=skipped(Reason.WRONG_STATE),
            posts=0,
            cycles=0,
        )
        for task, ends_in in ENDS_ELSEWHERE.items()
    ),
    Row(
        name="powering-off, HARD",
        prepare=occupied("powering-off", ends_in="stopped"),
        arguments=HARD,
        ends=skipped(Reason.WRONG_STATE),
        posts=0,
        cycles=0,
    ),
    Row(
        name="powering-off, HARD with leave",
        prepare=occupied("powering-off", ends_in="stopped"),
        arguments=HARD_WITH_LEAVE,
        took=TASK,
    ),
    *(
        row
        for vm_state in NEVER
        for row in (
            Row(
                name=f"{vm_state}", prepare=changed(vm_state=vm_state), arguments=ALL_LEAVE, ends=WRONG_STATE, cycles=0
            ),
            Row(
                name=f"{vm_state}, HARD",
                prepare=changed(vm_state=vm_state),
                arguments=HARD_WITH_LEAVE,
                ends=skipped(Reason.WRONG_STATE),
                posts=0,
                cycles=0,
            ),
        )
    ),
    Row(name="deleted, HARD", prepare=deleted, arguments=HARD, ends=refused(Reason.NOT_FOUND), posts=0, cycles=0),
    Row(name="active and idle", meets=[gateway(400, "Ecs.0100")], posts=2),
    Row(name="active and idle, HARD", arguments=HARD),
    *(
        row
        for vm_state in HARD_ONLY
        for row in (
            Row(name=f"{vm_state}, HARD", prepare=changed(vm_state=vm_state), arguments=HARD),
            Row(name=f"{vm_state}, escalated", prepare=changed(vm_state=vm_state), arguments=ESCALATE, posts=2),
            Row(name=f"{vm_state}", prepare=changed(vm_state=vm_state), ends=WRONG_STATE, cycles=0),
        )
    ),
    Row(
        name="stopped, HARD",
        prepare=changed(vm_state="stopped"),
        arguments=HARD,
        ends=skipped(Reason.WRONG_STATE),
        posts=0,
        cycles=0,
    ),
    Row(name="stopped, HARD with leave", prepare=changed(vm_state="stopped"), arguments=HARD_WITH_LEAVE),
    Row(name="stopped", prepare=changed(vm_state="stopped"), ends=WRONG_STATE, cycles=0),
    Row(
        name="stopped, with leave to escalate",
        prepare=changed(vm_state="stopped"),
        arguments=ESCALATE,
        ends=WRONG_STATE,
        cycles=0,
    ),
    Row(
        name="stopped, with leave to start",
        prepare=changed(vm_state="stopped"),
        arguments={"start_stopped": True},
        ends=WRONG_STATE,
        cycles=0,
    ),
    Row(name="stopped, with all leave", prepare=changed(vm_state="stopped"), arguments=ALL_LEAVE, posts=2),
    Row(
        name="stopped while an image is taken, HARD",
        prepare=occupied("image_uploading", vm_state="stopped"),
        arguments=HARD,
        ends=skipped(Reason.WRONG_STATE),
        posts=0,
        cycles=0,
    ),
    Row(
        name="stopped while an image is taken, HARD with leave",
        prepare=occupied("image_uploading", vm_state="stopped"),
        arguments=HARD_WITH_LEAVE,
        took=TASK,
    ),
    Row(name="a look that is throttled, HARD", prepare=looks_meet(Fault.throttled(40.0)), arguments=HARD, took=40.0),
    Row(name="a look that fails, HARD", prepare=looks_meet(*[Fault.error(500)] * 4), arguments=HARD),
    Row(name="a look with a refused token, HARD", prepare=looks_meet(REFUSED_TOKEN), arguments=HARD),
    Row(name="403 on looks, and a list, HARD", prepare=looks_meet(*[Fault.error(403, "Policy")] * 99), arguments=HARD),
    Row(
        name="403 on looks and lists, HARD",
        prepare=reads_meet(*[Fault.error(403, "Policy")] * 99),
        arguments=HARD,
        ends=refused(Reason.FORBIDDEN),
        posts=0,
        cycles=0,
    ),
)
def test_look_with_nothing_unresolved(row: Row) -> None:
    """With nothing unresolved the server's states decide."""
    virtually(lambda: play(row))


@pytest.mark.parametrize(
    ("refused_servers", "stop"),
    [
        pytest.param(range(10), StopReason.FORBIDDEN, id="ten in a row"),
        pytest.param(range(1, 11), StopReason.FORBIDDEN, id="ten in a row after an acceptance"),
        pytest.param([*range(9), *range(10, 19)], None, id="an acceptance between"),
    ],
)
def test_forbidden_in_a_row(refused_servers: Sequence[int], stop: StopReason | None) -> None:
    """403: ten in a row with no acceptance between stop the run."""

    async def main() -> None:
        cloud = cloud_of(20)
        for number in refused_servers:
            cloud.script(cloud.ids[number], Fault.error(403, "Policy"))
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(cloud.ids)
        assert (report.stopped and report.stopped.reason) == stop
        assert report.summary[Outcome.REFUSED] == len(refused_servers)
        assert sum(cloud.posts.values()) == (max(refused_servers) + 1 if stop else 20)

    virtually(main)


def test_403_on_a_look_is_found_out_before_the_first_send(caplog: pytest.LogCaptureFixture) -> None:
    """One GET before the first POST shows that single servers cannot be read; the run goes on, and says so."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.script(server_id, *[Fault.error(403, "Policy does not allow it")] * 999, call=Call.SHOW)
        cloud.script(server_id, LOST)
        cloud.log_access = LogAccess.FORBIDDEN
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id])
        assert (result.outcome, result.reason) == IN_DOUBT
        assert result.elapsed < 15.0
        assert [record.call for record in cloud.requests[:2]] == [Call.SHOW, Call.REBOOT]

    with caplog.at_level(logging.WARNING, "bulkrestart"):
        virtually(main)
    assert caplog.text.count("single servers cannot be read (Policy does not allow it)") == 1
