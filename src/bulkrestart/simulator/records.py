"""What the cloud holds and tells: servers, rows of their logs, who asks, and what arrived."""

from bisect import bisect_right
from copy import copy
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha224
from typing import Final, Literal, Self, TypedDict

from bulkrestart.core.model import RebootType
from bulkrestart.simulator.rules import POWER_STATES, REBOOT_TASKS, RUNNING, status_of

_REBOOTING: Final = frozenset(task for tasks in REBOOT_TASKS.values() for task in tasks)


class Face(StrEnum):
    """Whose answers the cloud gives over HTTP; what happens to servers is the same behind each."""

    #: Nova's own, behind Keystone's middleware.
    NOVA = "nova"
    #: Those of Huawei Cloud's gateway, and of ECS behind it.
    HUAWEI = "huawei"


class Role(StrEnum):
    """What a token may do."""

    #: Sees servers, reboots none: 403.
    READER = "reader"
    MEMBER = "member"
    #: Sees every project's servers, and reboots locked ones.
    ADMIN = "admin"


class LogAccess(StrEnum):
    """What the cloud gives of action logs."""

    OPEN = "open"
    #: 403.
    FORBIDDEN = "forbidden"
    #: 404 of a gateway that does not publish that call.
    MISSING = "missing"
    #: 200 with no rows, not even that of the creation.
    EMPTY = "empty"


class RequestIds(StrEnum):
    """Which ids of requests Nova's answers carry; the action log always has Nova's own."""

    #: Nova's, in `x-openstack-request-id` and `x-compute-request-id`.
    SHOWN = "shown"
    #: None: a gateway removes both headers.
    HIDDEN = "hidden"
    #: A gateway's own in `x-openstack-request-id`, in Nova's form but in no row of the log; the other is removed.
    REPLACED = "replaced"


class Call(StrEnum):
    """The calls of the API, as faults and the record of requests name them."""

    REBOOT = "reboot"
    #: Any other POST to /action, whatever its body; and DELETE.
    ACTION = "action"
    SHOW = "show"
    LIST = "list"
    #: A server's action log.
    LOG = "log"
    #: One row of it.
    LOG_ROW = "log_row"
    #: The server groups of the project.
    GROUPS = "groups"
    #: Version documents, and paths that lead nowhere.
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a token or an access key speaks for."""

    user_id: str
    project_id: str
    role: Role = Role.MEMBER


@dataclass(frozen=True, slots=True)
class Cycle:
    """One real power cycle of a guest.

    Attributes:
        time: Seconds since the epoch.
        server_id: The server.
        reboot_type: What was asked for.
        send: The number of the request that asked for it, as in `LogRow`.
    """

    time: float
    server_id: str
    reboot_type: RebootType
    send: int | None = None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request that arrived; `status` is None while it is not answered, and for good if its reply was lost."""

    time: float
    call: Call
    server_id: str | None
    status: int | None


@dataclass(slots=True, kw_only=True)
class LogRow:
    """A row of a server's action log; times are seconds since the epoch, `message` is None or "Error".

    Attributes:
        send: The number of the request in `Cloud.requests` that it belongs to. Two rows with the same number are one
            request that was delivered twice. None: it did not come over HTTP.
    """

    action: str
    request_id: str
    user_id: str
    project_id: str
    start_time: float
    updated_at: float
    message: str | None = None
    event: str = ""
    event_start: float | None = None
    event_finish: float | None = None
    result: str | None = None
    send: int | None = None

    def seen(self, at: float, *, ahead: float) -> Self:
        """Return the row as a read showed it at an earlier time, written by a clock that is `ahead` seconds ahead."""
        has_begun = self.event_start is not None and self.event_start <= at
        is_over = self.event_finish is not None and self.event_finish <= at
        start, finish = self.event_start if has_begun else None, self.event_finish if is_over else None
        newest = max(time for time in (self.start_time, start, finish) if time is not None)
        return replace(
            self,
            start_time=self.start_time + ahead,
            updated_at=newest + ahead,
            message=self.message if is_over else None,
            event=self.event if has_begun else "",
            event_start=None if start is None else start + ahead,
            event_finish=None if finish is None else finish + ahead,
            result=self.result if is_over else None,
        )


@dataclass(frozen=True, slots=True)
class ServerFault:
    """The last fault of a server; the API shows it in ERROR and DELETED only."""

    code: int
    message: str
    created: float


#: `OS-EXT-IPS:type`.
AddressKind = Literal["fixed", "floating"]


@dataclass(slots=True)
class Downtime:
    """A time in which a server was not active, or in a reboot.

    Attributes:
        server_id: The server.
        began: Seconds since the epoch.
        ended: The same; None while it lasts.
    """

    server_id: str
    began: float
    ended: float | None = None


class Changes(TypedDict, total=False):
    """What `Cloud.change` and `Cloud.add` set; what is not named stays."""

    name: str
    vm_state: str
    task_state: str | None
    locked: bool
    #: 1 running, 4 off, 3 paused; follows vm_state unless given.
    power_state: int
    #: Seconds since the epoch; None for a server that was never launched.
    launched_at: float | None
    host: str
    availability_zone: str
    tags: tuple[str, ...]
    metadata: dict[str, str]
    #: The name of its server group, whose policy is anti-affinity; "" for none.
    group: str
    #: By network: each address, and whether it is "fixed" or "floating".
    addresses: dict[str, dict[str, AddressKind]]
    fault: ServerFault | None


@dataclass(slots=True, kw_only=True)
class SimulatedServer:
    """A server as the cloud holds it, to be read; `Cloud.change` sets it.

    Attributes:
        cycles: Real power cycles of the guest.
        posts: Reboot requests that arrived for it.
        log: Its action log, the oldest row first.
        downtimes: When it was down, the oldest first.
        log_delay: Seconds after which a new row of its log can be read, besides the cloud's own `log_delay`.
        past: What it was before each change, with the time of the change, the oldest first; None: it is not kept.
    """

    id: str
    name: str
    project_id: str
    user_id: str
    created: float
    updated: float
    launched_at: float | None
    terminated_at: float | None = None
    vm_state: str = "active"
    task_state: str | None = None
    power_state: int = RUNNING
    locked: bool = False
    host: str = "compute-1"
    availability_zone: str = "az-1"
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    group: str = ""
    addresses: dict[str, dict[str, AddressKind]] = field(default_factory=dict)
    fault: ServerFault | None = None
    cycles: int = 0
    posts: int = 0
    log: list[LogRow] = field(default_factory=list)
    downtimes: list[Downtime] = field(default_factory=list)
    log_delay: float = 0.0
    past: list[tuple[float, "SimulatedServer"]] | None = None

    @property
    def status(self) -> str:
        """What the API derives from the two states."""
        return status_of(self.vm_state, self.task_state)

    @property
    def host_id(self) -> str:
        """What the API shows of the host: nova/utils.py `generate_hostid`."""
        return sha224((self.project_id + self.host).encode()).hexdigest()

    @property
    def is_up(self) -> bool:
        """Whether it is active and in no reboot."""
        return self.vm_state == "active" and self.task_state not in _REBOOTING

    @property
    def is_deleted(self) -> bool:
        """Whether only a list of changes still shows it."""
        return self.vm_state == "deleted"


def server_at(server: SimulatedServer, at: float) -> SimulatedServer:
    """Return a server as it was at a time, if its past is kept."""
    past = server.past or []
    number = bisect_right(past, at, key=lambda change: change[0])
    return past[number][1] if number < len(past) else server


def apply_changes(server: SimulatedServer, changes: Changes, *, at: float) -> None:
    """Set what a server is; the time of it is what the API shows as `updated`."""
    if server.past is not None:
        server.past.append((at, copy(server)))
    for name, value in changes.items():
        setattr(server, name, value)
    if "vm_state" in changes and "power_state" not in changes:
        server.power_state = POWER_STATES.get(changes["vm_state"], server.power_state)
    server.updated = at
    is_down_already = bool(server.downtimes) and server.downtimes[-1].ended is None
    if server.is_up and is_down_already:
        server.downtimes[-1].ended = at
    elif not server.is_up and not is_down_already:
        server.downtimes.append(Downtime(server.id, at))


class ConflictError(Exception):
    """Nova's 409, in its own words."""

    @property
    def is_busy(self) -> bool:
        """Whether a task that is under way is the reason."""
        return "in task_state" in str(self)


class RaceError(Exception):
    """A save that found another task_state than the check before it: Nova's 500."""


class MarkerError(LookupError):
    """The marker of a page is no server of the project."""


class StatusError(ValueError):
    """No status of the filter is one that Nova knows."""
