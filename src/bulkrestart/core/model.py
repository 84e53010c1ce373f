"""The words of a restart: what is asked, what is seen of a server, and what became of it.

Durations are float seconds. Records are frozen; closed sets are enums whose values are what reports print.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class RebootType(StrEnum):
    """What the reboot action asks of the host."""

    #: Ask the guest to shut down; libvirt resets it after 120 s if it does not.
    SOFT = "SOFT"
    #: Reset the guest, as its power button would. Starts a server that is stopped.
    HARD = "HARD"


class Outcome(StrEnum):
    """What became of one server. `accepted` and `completed` are two different things."""

    #: The cloud took the request; its end was not waited for, or the wait was interrupted.
    ACCEPTED = "accepted"
    #: The reboot ended and the server is active; `ServerResult.proof` says how that is known.
    COMPLETED = "completed"
    #: Completed, and it passed the user's own check (`verify`).
    VERIFIED = "verified"
    #: `since`: it had rebooted already, and no reboot of this run was accepted.
    SATISFIED = "satisfied"
    #: The cloud said no; the server was not touched.
    REFUSED = "refused"
    #: Accepted, and not back as it should be.
    FAILED = "failed"
    #: Nothing was sent, or nothing that got as far as the cloud.
    SKIPPED = "skipped"
    #: Sent, and its fate cannot be learnt. It may have rebooted.
    IN_DOUBT = "in_doubt"


class Reason(StrEnum):
    """Why an outcome is not the good one. `ServerResult.detail` holds the cloud's own words."""

    # refused
    LOCKED = "locked"
    WRONG_STATE = "wrong_state"
    NEVER_LAUNCHED = "never_launched"
    NOT_FOUND = "not_found"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    WRONG_ENDPOINT = "wrong_endpoint"
    #: Any other refusal.
    REJECTED = "rejected"
    #: In a passing state, or another user's reboot, for all of `server_timeout`.
    BUSY = "busy"
    #: `max_attempts` sends, each known to have started nothing.
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"

    #: Refused so far, and waiting to be looked at or sent to again.
    PARKED = "parked"

    # failed, in doubt
    #: The server was deleted meanwhile.
    GONE = "gone"

    # failed; also WRONG_STATE where the reboot ended in a state other than active
    #: The reboot ended with the server in vm_state error.
    ERROR = "error"
    #: Still rebooting when `wait_timeout` ended.
    NOT_BACK = "not_back"
    #: Active, but the action log says that the reboot ended in Error.
    NOT_REBOOTED = "not_rebooted"
    #: Completed, and it has not passed the user's own check when `verify_timeout` ended.
    VERIFY_FAILED = "verify_failed"

    # skipped; STOPPED and HISTORY_* also of a refused server that would have been sent to again
    #: The run has not come to it yet.
    NOT_STARTED = "not_started"
    #: The run stopped before it was sent; `Report.stopped` says why.
    STOPPED = "stopped"
    #: `Rollout.spread`: another server of its domain is down, and did not come back.
    HELD_BACK = "held_back"
    #: No request got as far as the cloud.
    UNREACHABLE = "unreachable"
    #: `since`: the action log does not tell whether it has rebooted.
    HISTORY_UNREADABLE = "history_unreadable"
    #: `since`: it rebooted at about that moment, and the cloud's clocks do not show whether before or after.
    HISTORY_UNCERTAIN = "history_uncertain"

    # in doubt
    #: The request is out, and its answer is not in yet.
    IN_FLIGHT = "in_flight"
    #: No answer, or one that says nothing, and the cloud does not tell either.
    UNANSWERED = "unanswered"

    # accepted, completed, in doubt
    #: The run ended before its fate was known; where it is completed, before it was verified.
    INTERRUPTED = "interrupted"


class Proof(StrEnum):
    """How a reboot is known to have happened."""

    #: The row of the action log says that it finished without Error.
    ACTION = "action"
    #: The server was seen to be back; the log could not be read, or does not show a finish.
    STATE = "state"


class StopReason(StrEnum):
    """Why a run sent nothing more."""

    #: It was cancelled, timed out from outside, or its block was left early.
    INTERRUPTED = "interrupted"
    #: `Run.stop()` was called.
    ASKED = "asked"
    #: `deadline` came.
    DEADLINE = "deadline"
    #: The journal could not be written.
    JOURNAL = "journal"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    WRONG_ENDPOINT = "wrong_endpoint"
    #: The cloud did not answer, or throttled every request, for too long.
    OUTAGE = "outage"
    #: No server was accepted, came back, or got an outcome of its own for `stall_timeout`.
    STALLED = "stalled"
    #: More servers failed, or are in doubt, than `Rollout.max_failures` allows.
    MAX_FAILURES = "max_failures"
    #: More servers were refused, or skipped, than `Rollout.max_refused` allows.
    MAX_REFUSED = "max_refused"
    #: As many servers as `Rollout.max_down` allows did not come back.
    MAX_DOWN = "max_down"
    #: The function that decides between two waves (`Rollout.pause`) said no.
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run stopped.

    Attributes:
        reason: The kind of stop.
        detail: One line for a person: what was seen, and the remedy.
    """

    reason: StopReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of a server.

    Attributes:
        address: The address itself, as the cloud writes it.
        network: The network that it is in.
        version: 4 or 6, of the Internet Protocol.
        is_floating: It leads to the server from elsewhere, as against one that its port has in the network.
    """

    address: str
    network: str
    version: int
    is_floating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server as one answer of the cloud showed it.

    Attributes:
        id: Its id.
        name: Its name, "" where the cloud does not show one.
        status: What the API derives from the two states; not used for decisions, because a HARD reboot of a
            stopped server never shows in it (nova/api/openstack/common.py `_STATE_MAP`).
        vm_state: `OS-EXT-STS:vm_state`; None where it is not shown.
        task_state: `OS-EXT-STS:task_state`; None while no task runs, or where it is not shown.
        locked: Whether it is locked; None where it is not shown (microversions before 2.9).
        fault: The message of its last fault, "" without one. Nova shows it in ERROR and DELETED only.
        is_derived: Whether `task_state` is derived from `status`, because the cloud does not show it. `vm_state` is
            derived in the same way if the cloud does not show it.
        updated: When the cloud last saved it, which every task does; seconds since the epoch by the cloud's clock. None
            where it is not shown.
        availability_zone: `OS-EXT-AZ:availability_zone`; "" where it is not shown.
        host_id: `hostId`: the same for servers of one project on one physical host (nova/utils.py `generate_hostid`);
            "" where it is not shown, or while the server is on none.
        tags: Its tags; None where they are not shown (microversions before 2.26).
        metadata: Its metadata.
        addresses: Its addresses: floating ones before others, then version 4 before 6, else as the cloud lists them.
    """

    id: str
    name: str = ""
    status: str = ""
    vm_state: str | None = None
    task_state: str | None = None
    locked: bool | None = None
    fault: str = ""
    is_derived: bool = False
    updated: float | None = None
    availability_zone: str = ""
    host_id: str = ""
    tags: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    addresses: tuple[Address, ...] = ()

    @property
    def words(self) -> str:
        """Its states in words."""
        lock = ", locked" if self.locked else ""
        return f"vm_state {self.vm_state}, task_state {self.task_state}{lock}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A row of a server's action log (`os-instance-actions`).

    Attributes:
        action: What was done, in lower case; "reboot" for a reboot, whatever the cloud calls it.
        request_id: The `x-openstack-request-id` of the request that started it; "" where the log does not show it.
        start_time: Seconds since the epoch by the cloud's clock.
        user_id: Who asked for it.
        is_error: Whether it ended in Error.
        is_finished: Whether its events show a finish; None where events are not shown (in lists, and to members
            before microversion 2.51), or do not tell when they finish.
    """

    action: str
    request_id: str
    start_time: float
    user_id: str = ""
    is_error: bool = False
    is_finished: bool | None = None


#: A user's own check of a server that is back, given the newest snapshot of it: whether it is well.
Verify = Callable[[Server], Awaitable[bool]]

#: A server's action log, or what was read of it: the newest row first.
Log = tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One send of the reboot action.

    Attributes:
        sent_at: Seconds since the run began.
        answer: What came back, in a few words: "202", "409 conflictingRequest", "unanswered: ReadTimeout".
        request_id: The request id that the answer carried.
    """

    sent_at: float
    answer: str
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerResult:
    """What became of one server.

    Attributes:
        server_id: The server.
        outcome: What became of it.
        reason: Why, where the outcome is not the good one; else None.
        detail: The cloud's own words, or what was seen; "" where there is nothing to add.
        reboot_type: The type that was asked for last; HARD after an escalation. Where it followed a SOFT that was
            accepted, `detail` names that one, if it does not say why the outcome is not the good one.
        attempts: Every send, the oldest first; empty if nothing was sent.
        request_id: The cloud's id of the reboot itself, as its action log shows it; None if unknown.
        proof: How the reboot is known; None unless it completed (also if it was not verified then), or was satisfied.
        elapsed: Seconds from the first look or send to the outcome; 0.0 if the run never came to it.
    """

    server_id: str
    outcome: Outcome
    reason: Reason | None = None
    detail: str = ""
    reboot_type: RebootType
    attempts: tuple[Attempt, ...] = ()
    request_id: str | None = None
    proof: Proof | None = None
    elapsed: float = 0.0
