"""The cloud itself: a state machine with Nova's rules, without I/O.

Law: whatever looks at the cloud first brings it up to the present; in between, no time passes.
"""

import time
from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, islice
from random import Random
from threading import RLock
from types import MappingProxyType
from typing import Final, Unpack
from uuid import UUID

from bulkrestart.core.model import RebootType
from bulkrestart.simulator.agenda import Agenda
from bulkrestart.simulator.answers import Answer
from bulkrestart.simulator.faults import Birth, Fault, Faults, HostFault, Lot
from bulkrestart.simulator.filters import Filter
from bulkrestart.simulator.host import Hosts
from bulkrestart.simulator.records import (
    Call,
    Changes,
    ConflictError,
    Cycle,
    Downtime,
    Face,
    Identity,
    LogAccess,
    LogRow,
    MarkerError,
    RaceError,
    RequestIds,
    RequestRecord,
    Role,
    ServerFault,
    SimulatedServer,
    apply_changes,
    server_at,
)
from bulkrestart.simulator.rules import (
    POWER_ACTIONS,
    REBOOT_TASKS,
    SHUTDOWN,
    PowerAction,
    power_conflict,
    reboot_conflict,
)
from bulkrestart.simulator.throttles import FixedWindows, RollingWindow
from bulkrestart.simulator.workers import Workers

#: Servers of a new cloud were built this long ago, so that a list of changes does not begin with all of them.
_AGE: Final = 86_400.0

#: The newest microversion behind each face: that of 2024.2, and the one that Huawei Cloud documents.
_NEWEST: Final = {Face.NOVA: "2.96", Face.HUAWEI: "2.60"}

#: What a server may be dealt to be at birth.
_BIRTHS: Final[dict[Birth, Changes]] = {
    "locked": {"locked": True},
    "stopped": {"vm_state": "stopped"},
    "error": {"vm_state": "error", "power_state": SHUTDOWN},
}


def _uuid(rng: Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))


def _range(seconds: float | tuple[float, float]) -> tuple[float, float]:
    return seconds if isinstance(seconds, tuple) else (seconds, seconds)


def _is_locked(server: SimulatedServer, identity: Identity) -> bool:
    return server.locked and identity.role is not Role.ADMIN


class Cloud:
    """A compute API's worth of servers, with the truth about what really happened to each.

    It may be asked from several threads. Seconds are floats everywhere.

    Args:
        servers: How many servers to begin with, named web-0001 and so on, all active.
        seed: Of ids, reboot times and faults; the same seed gives the same cloud.
        face: Whose answers it gives over HTTP.
        clock: Gives the time, in seconds since the epoch; see `ManualClock` for one that is turned by hand.
        reboot_seconds: The least and the most that a reboot takes.
        faults: Shares of the servers that meet a fault.
        project_id: The project of the servers and of `token`.
        user_id: Whom `token` speaks for.
        token: The token that is accepted; `add_token` adds others.
        hosts: How many hosts the servers are spread over.
        zones: The availability zones that they are spread over.
        max_limit: The largest page of a list.
        max_microversion: The newest microversion that is answered; the oldest is 2.1. None: 2.96, and 2.60 behind
            Huawei Cloud's gateway.
        latency: Seconds from the moment that a request is carried out to its answer, over HTTP.
        capacity: How many requests the API works on at once, and how many seconds each takes it; the others queue,
            each for its turn, and are carried out when that ends, also where their client has gone away. None: any
            number at once, in no time. What meets a fault that answers in the API's place does not queue.
        rate_limit: How many reboot requests are let in within how many seconds; the others are answered 429. None:
            no limit. As Nova, it counts in windows one after another, and says in a Retry-After when the next one
            begins. As Huawei Cloud's gateway, it counts whatever came in the last so many seconds, refused requests
            too, and says how long that is.
        legacy_host: Whether hosts reboot as they did up to Train: without a lock, so that two reboots accepted for
            one server both cycle it.
        date_skew: Seconds by which the `Date` header is ahead of the cloud's clock.
        has_date: Whether answers have a `Date` header.
        log_skew: Seconds by which Nova's times (those of the action log, and `updated` of servers) are ahead of the
            cloud's clock.
        node_skews: Seconds by which the clocks of Nova's nodes are ahead besides. Each `Date`, each row of a log and
            each `updated` is written by a node that the seed chooses.
        log_delay: Seconds after which a new row of an action log can be read; `delay_log` says it of one server.
        log_lag: Seconds by which reads of action logs lag, as with a replica of a database: a number, or the least and
            the most, between which each read's lag is drawn.
        view_lag: The same for servers and lists of them. Both are read when the cloud is made.
        request_ids: Which request ids Nova's answers carry.
        busy_answer: The answer to an action that a running task forbids, instead of Nova's 409. None: Nova's.
        log_resolution: Steps of the log's `start_time` in seconds, cut off: 1.0 as MySQL keeps it, 0.0 for
            microseconds.

    Attributes:
        ids: The ids of the project's servers, in the order of their creation; deleted ones too.
        tokens: The identities of the accepted tokens; delete one to revoke it.
        access_keys: The identities of the access keys that may sign requests to Huawei Cloud's gateway.
        log_access: What is given of action logs.
        outage: A fault that every request meets while it is set.
        requests: Every request that arrived, the oldest first.
        posts: Reboot requests that arrived, by server id, also for ids that are no server's.
        in_flight: Requests that have arrived and are not answered.
        peak_in_flight: The most that there were at once.
        posts_in_flight: As `in_flight`, of reboot requests only.
        peak_posts_in_flight: The most that there were at once.
    """

    def __init__(
        self,
        servers: int = 100,
        *,
        seed: int = 0,
        face: Face = Face.NOVA,
        clock: Callable[[], float] = time.time,
        reboot_seconds: tuple[float, float] = (2.0, 5.0),
        faults: Faults | None = None,
        project_id: str = "0123456789abcdef0123456789abcdef",
        user_id: str = "fedcba9876543210fedcba9876543210",
        token: str = "token",  # noqa: S107 - the simulator's token guards nothing
        hosts: int = 10,
        zones: Sequence[str] = ("az-1", "az-2", "az-3"),
        max_limit: int = 1000,
        max_microversion: str | None = None,
        latency: float = 0.0,
        capacity: tuple[int, float] | None = None,
        rate_limit: tuple[int, float] | None = None,
        legacy_host: bool = False,
        date_skew: float = 0.0,
        has_date: bool = True,
        log_skew: float = 0.0,
        node_skews: Sequence[float] = (),
        log_delay: float = 0.0,
        log_lag: float | tuple[float, float] = 0.0,
        view_lag: float | tuple[float, float] = 0.0,
        log_resolution: float = 1.0,
        request_ids: RequestIds = RequestIds.SHOWN,
        busy_answer: Answer | None = None,
    ) -> None:
        self.face = face
        self.clock = clock
        self.reboot_seconds = reboot_seconds
        self.project_id = project_id
        self.user_id = user_id
        self.token = token
        self.max_limit = max_limit
        self.max_microversion = max_microversion or _NEWEST[face]
        self.latency = latency
        self.capacity = capacity
        self.rate_limit = rate_limit
        self.legacy_host = legacy_host
        self.date_skew = date_skew
        self.has_date = has_date
        self.log_skew = log_skew
        self.node_skews = tuple(node_skews)
        self.log_delay = log_delay
        self.log_resolution = log_resolution
        self.request_ids = request_ids
        self.busy_answer = busy_answer
        self.ids: list[str] = []
        self.tokens: dict[str, Identity] = {}
        self.access_keys: dict[str, Identity] = {}
        self.log_access = LogAccess.OPEN
        self.outage: Fault | None = None
        self.requests: list[RequestRecord] = []
        self.posts: Counter[str] = Counter()
        self.in_flight = 0
        self.peak_in_flight = 0
        self.posts_in_flight = 0
        self.peak_posts_in_flight = 0
        self._host_count = hosts
        self._zones = tuple(zones)
        # Streams of their own, so that a request more does not change which servers there are.
        self._server_ids = Random(seed)
        self._request_ids = Random(seed + 2)
        self._log_lag, self._view_lag = _range(log_lag), _range(view_lag)
        self._lags = Random(seed + 3)
        self._date_numbers = count()
        self._seed = seed
        self._lock = RLock()
        now = clock()
        self._agenda = Agenda(now - _AGE)
        self._hosts = Hosts(self._agenda)
        self._servers: dict[str, SimulatedServer] = {}
        self._pages: dict[str, list[tuple[float, str]]] = {}
        self._scripts: dict[tuple[Call, str | None], deque[Fault | None]] = {}
        self._workers = Workers()
        self._throttle = RollingWindow() if face is Face.HUAWEI else FixedWindows()
        self._issued: set[str] = set()
        self.add_token(token)
        lots = (faults or Faults()).lots(Random(seed + 1))
        for lot in islice(lots, servers):
            self._deal(self._build(self.project_id), lot)
        self._agenda.run_until(now)

    @property
    def cycles(self) -> Mapping[str, int]:
        """Real power cycles by server id, up to now; 0 for a server that had none."""
        with self._present():
            return MappingProxyType(self._hosts.cycle_counts)

    @property
    def cycle_log(self) -> list[Cycle]:
        """Every real power cycle up to now, the oldest first."""
        with self._present():
            return list(self._hosts.cycles)

    @property
    def downtimes(self) -> list[Downtime]:
        """When servers were down, up to now, the earliest first."""
        with self._present():
            times = [replace(one) for server in self._servers.values() for one in server.downtimes]
            return sorted(times, key=lambda one: one.began)

    @property
    def now(self) -> float:
        """The time that the cloud has been brought up to, seconds since the epoch."""
        with self._present():
            return self._agenda.now

    def date(self) -> float | None:
        """Return the time that the `Date` of an answer shows, in seconds since the epoch; None: it has no `Date`."""
        if not self.has_date:
            return None
        with self._present():
            return self._agenda.now + self.date_skew + self._node_skew(f"date {next(self._date_numbers)}")

    def server(self, server_id: str) -> SimulatedServer:
        """Return a server as it is now; ask again after the clock has moved.

        Raises:
            KeyError: There never was such a server.
        """
        with self._present():
            return self._servers[server_id]

    def add(self, *, project_id: str | None = None, **changes: Unpack[Changes]) -> SimulatedServer:
        """Add a server, built now; active unless told.

        Args:
            project_id: Its project, the cloud's own unless told.
            changes: Its states, as for `change`.
        """
        with self._present():
            return self._change(self._build(project_id or self.project_id), changes)

    def change(self, server_id: str, **changes: Unpack[Changes]) -> SimulatedServer:
        """Set what a server is, at once, whatever Nova would say.

        Raises:
            KeyError: There never was such a server.
        """
        with self._present():
            return self._change(self._servers[server_id], changes)

    def occupy(self, server_id: str, task_state: str, seconds: float, *, ends_in: str | None = None) -> None:
        """Put a server into a task that passes.

        Args:
            server_id: The server.
            task_state: The task.
            seconds: How long it takes.
            ends_in: The vm_state that it leads to; the same as before unless told.
        """
        with self._present():
            self._hosts.occupy(self._servers[server_id], task_state, seconds, ends_in=ends_in)

    def delete(self, server_id: str) -> None:
        """Delete a server: 404 from now on, and DELETED in lists of changes."""
        with self._present():
            server = self._servers[server_id]
            self._record(server, "delete", self._identity(), self.new_request_id(), event="compute_terminate_instance")
            self._change(server, {"vm_state": "deleted", "task_state": None})
            server.terminated_at = self._agenda.now

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Do something in `seconds`, when the clock has come to it."""
        with self._present():
            self._agenda.add(seconds, do)

    def reboot_by_other(self, server_id: str, reboot_type: RebootType = RebootType.SOFT) -> LogRow:
        """Let another user of the project reboot a server.

        Raises:
            ConflictError: Nova refuses it.
        """
        other = Identity(user_id="another-user", project_id=self.project_id)
        return self.reboot(server_id, reboot_type, identity=other)

    def break_host(self, server_id: str, *faults: HostFault) -> None:
        """Let the next reboots of a server meet these on the host, one each, in order."""
        with self._lock:
            self._hosts.fail(server_id, *faults)

    def delay_log(self, server_id: str, seconds: float) -> None:
        """Show new rows of a server's action log only after `seconds`, in addition to the cloud's `log_delay`."""
        with self._lock:
            self._servers[server_id].log_delay = seconds

    def script(self, server_id: str | None, *faults: Fault | None, call: Call = Call.REBOOT) -> None:
        """Let the next requests for a server meet these, one each, in order.

        Args:
            server_id: The server; None for lists, which have none.
            faults: What each request meets; None: nothing.
            call: The kind of request.
        """
        with self._lock:
            self._scripts.setdefault((call, server_id), deque()).extend(faults)

    def add_token(self, token: str, *, user_id: str | None = None, role: Role = Role.MEMBER) -> None:
        """Accept another token for the cloud's project."""
        self._issued.add(token)
        self.tokens[token] = Identity(user_id=user_id or self.user_id, project_id=self.project_id, role=role)

    def was_issued(self, token: str) -> bool:
        """Tell whether a token was accepted at some time; if not now, then it has been revoked."""
        return token in self._issued

    def add_access_key(self, access_key: str, *, user_id: str | None = None, role: Role = Role.MEMBER) -> None:
        """Accept requests that are signed with an access key, for the cloud's project.

        Huawei Cloud's gateway alone knows such requests. The signature is not verified, so there is no secret key.
        """
        self.access_keys[access_key] = Identity(user_id=user_id or self.user_id, project_id=self.project_id, role=role)

    def reboot(
        self,
        server_id: str,
        reboot_type: RebootType,
        *,
        identity: Identity | None = None,
        request_id: str | None = None,
        send: int | None = None,
    ) -> LogRow:
        """Ask for a reboot, as the API does when the request has reached it.

        Args:
            server_id: The server.
            reboot_type: SOFT or HARD.
            identity: Who asks; the cloud's own user unless told.
            request_id: The id of the request; a new one unless told.
            send: The number of the request in `requests`; None: it did not come over HTTP.

        Returns:
            The row of the action log.

        Raises:
            KeyError: There is no such server any more.
            ConflictError: Nova refuses it: 409.
            RaceError: Nova fails to save the task: 500.
        """
        with self._present():
            who = identity or self._identity()
            server = self._live(server_id)
            conflict = reboot_conflict(
                reboot_type,
                server_id=server.id,
                vm_state=server.vm_state,
                task_state=server.task_state,
                locked=_is_locked(server, who),
                launched=server.launched_at is not None,
            )
            if conflict:
                raise ConflictError(conflict)
            # Queens saves a HARD reboot with a list of expected states that lacks pausing.
            if self.legacy_host and server.task_state == "pausing":
                raise RaceError
            self._change(server, {"task_state": REBOOT_TASKS[reboot_type][0]})
            row = self._record(server, "reboot", who, request_id or self.new_request_id())
            row.send = send
            seconds = self._draw_seconds(server)
            self._hosts.reboot(server, row, reboot_type, seconds=seconds, is_legacy=self.legacy_host)
            return row

    def set_lock(self, server_id: str, locked: bool, *, identity: Identity, request_id: str) -> None:
        """Lock or unlock a server.

        Raises:
            KeyError: There is no such server any more.
        """
        with self._present():
            server = self._live(server_id)
            action = "lock" if locked else "unlock"
            self._record(server, action, identity, request_id, event=f"api_{action}")
            self._change(server, {"locked": locked})

    def power(self, server_id: str, on: bool, *, identity: Identity, request_id: str) -> None:
        """Start or stop a server; it takes as long as a reboot.

        Raises:
            KeyError: There is no such server any more.
            ConflictError: Nova refuses it: 409.
        """
        action: PowerAction = "start" if on else "stop"
        _, task_state, ends_in = POWER_ACTIONS[action]
        with self._present():
            server = self._live(server_id)
            conflict = power_conflict(
                action,
                server_id=server.id,
                vm_state=server.vm_state,
                task_state=server.task_state,
                locked=_is_locked(server, identity),
            )
            if conflict:
                raise ConflictError(conflict)
            self._record(server, action, identity, request_id, event=f"compute_{action}_instance")
            self._hosts.occupy(server, task_state, self._draw_seconds(server), ends_in=ends_in)

    def find(self, server_id: str, identity: Identity, *, with_deleted: bool = False) -> SimulatedServer:
        """Return a server that a token may see.

        Raises:
            KeyError: There is none: 404.
        """
        with self._present():
            server = self._servers[server_id]
            is_visible = identity.role is Role.ADMIN or server.project_id == identity.project_id
            if not is_visible or (server.is_deleted and not with_deleted):
                raise KeyError(server_id)
            return server

    def view(self, server_id: str, identity: Identity) -> SimulatedServer:
        """Return a server that is not deleted as a read shows it to a token: with `view_lag`, and with Nova's times.

        Raises:
            KeyError: The read shows no such server: 404.
        """
        with self._present():
            server = self._shown(self.find(server_id, identity, with_deleted=True), self._read_at(self._view_lag))
            if server is None or server.is_deleted:
                raise KeyError(server_id)
            return server

    def page(
        self,
        project_id: str,
        *,
        limit: int,
        marker: str | None = None,
        only: Filter | None = None,
    ) -> list[SimulatedServer]:
        """Return one page of a project's servers: the newest first, then by id.

        Args:
            project_id: The project.
            limit: The most that the page holds.
            marker: The id of the last server of the page before; it may have been deleted meanwhile.
            only: Which servers it holds; all living ones unless told.

        Raises:
            MarkerError: The marker is no server of the project.
            StatusError: None of the statuses is known.
        """
        with self._present():
            is_wanted = (only or Filter()).test()
            order = self._pages.get(project_id, [])
            start = 0
            if marker:
                last = self._servers.get(marker)
                if last is None or last.project_id != project_id:
                    raise MarkerError(marker)
                start = bisect_right(order, (-last.created, last.id))
            at = self._read_at(self._view_lag)
            shown = (self._shown(self._servers[server_id], at) for _, server_id in order[start:])
            return list(islice((server for server in shown if server is not None and is_wanted(server)), limit))

    def groups(self, project_id: str) -> dict[str, list[str]]:
        """Return the server groups of a project, by name: the ids of the living members."""
        with self._present():
            groups: dict[str, list[str]] = {}
            for server in self._servers.values():
                if server.group and server.project_id == project_id and not server.is_deleted:
                    groups.setdefault(server.group, []).append(server.id)
            return groups

    def log(self, server: SimulatedServer) -> list[LogRow]:
        """Return a server's action log as it can be read now, the newest row first."""
        with self._present():
            if self.log_access is LogAccess.EMPTY:
                return []
            at, delay = self._read_at(self._log_lag), self.log_delay + server.log_delay
            rows = [row for row in reversed(server.log) if row.start_time + delay <= at]
            if at == self._agenda.now and not self.log_skew and not self.node_skews:
                return rows
            return [row.seen(at, ahead=self.log_skew + self._node_skew(row.request_id)) for row in rows]

    def arrive(self, call: Call, server_id: str | None) -> tuple[int, Fault | None]:
        """Note a request that has arrived.

        Returns:
            Its number, for `leave`; and the fault that it meets.
        """
        with self._present():
            self.requests.append(RequestRecord(self._agenda.now, call, server_id, None))
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            if call is Call.REBOOT and server_id is not None:
                self.posts[server_id] += 1
                self.posts_in_flight += 1
                self.peak_posts_in_flight = max(self.peak_posts_in_flight, self.posts_in_flight)
                if server_id in self._servers:
                    self._servers[server_id].posts += 1
            return len(self.requests) - 1, self._fault_of(call, server_id)

    def queue(self) -> float:
        """Let a request that has arrived queue for the API; give the seconds until that has done its work."""
        if self.capacity is None:
            return 0.0
        with self._present():
            at_once, seconds = self.capacity
            return self._workers.take(at_once, seconds, now=self._agenda.now)

    def leave(self, number: int, status: int | None) -> None:
        """Note that a request is done with: answered with `status`, or with nothing."""
        with self._lock:
            request = self.requests[number]
            self.requests[number] = replace(request, status=status)
            self.in_flight -= 1
            if request.call is Call.REBOOT and request.server_id is not None:
                self.posts_in_flight -= 1

    def new_request_id(self) -> str:
        """Return an id as the API gives one to each request."""
        with self._lock:
            return f"req-{_uuid(self._request_ids)}"

    def catch_up(self) -> None:
        """Do what is due by now; whatever looks at the cloud does this first."""
        with self._present():
            pass

    @contextmanager
    def _present(self) -> Iterator[None]:
        """Hold the cloud, brought up to the present; while an entry of the agenda is done, that is the entry's time."""
        with self._lock:
            self._agenda.run_until(self.clock())
            yield

    def _fault_of(self, call: Call, server_id: str | None) -> Fault | None:
        if self.outage:
            return self.outage
        if call is Call.REBOOT and self.rate_limit:
            limit, window = self.rate_limit
            if throttled := self._throttle.refuse(limit, window, now=self._agenda.now):
                return throttled
        script = self._scripts.get((call, server_id))
        return script.popleft() if script else None

    def _read_at(self, lag: tuple[float, float]) -> float:
        """Draw the time whose state a read shows."""
        least, most = lag
        return self._agenda.now - (self._lags.uniform(least, most) if least < most else least)

    def _shown(self, server: SimulatedServer, at: float) -> SimulatedServer | None:
        """Return a server as it was at a time, with `updated` by Nova's clocks; None if it did not exist."""
        if server.created > at:
            return None
        seen = server_at(server, at)
        if not self.log_skew and not self.node_skews:
            return seen
        ahead = self.log_skew + self._node_skew(f"{server.id} {seen.updated}")
        return replace(seen, updated=seen.updated + ahead)

    def _node_skew(self, key: str) -> float:
        """Return how far ahead the clock of the node is that wrote something; the same key has the same node."""
        return Random(f"{self._seed} {key}").choice(self.node_skews) if self.node_skews else 0.0

    def _identity(self) -> Identity:
        return Identity(user_id=self.user_id, project_id=self.project_id)

    def _draw_seconds(self, server: SimulatedServer) -> float:
        """Draw how long a server takes; it does not depend on what happens to others meanwhile."""
        return Random(f"{self._seed} {server.id} {len(server.log)}").uniform(*self.reboot_seconds)

    def _live(self, server_id: str) -> SimulatedServer:
        server = self._servers[server_id]
        if server.is_deleted:
            raise KeyError(server_id)
        return server

    def _build(self, project_id: str) -> SimulatedServer:
        number, now = len(self._servers), self._agenda.now
        server = SimulatedServer(
            id=_uuid(self._server_ids),
            name=f"web-{number + 1:04}",
            project_id=project_id,
            user_id=self.user_id,
            created=now,
            updated=now,
            launched_at=now,
            host=f"compute-{number % self._host_count + 1}",
            availability_zone=self._zones[number % len(self._zones)],
            past=[] if self._view_lag[1] else None,
        )
        self._servers[server.id] = server
        self._hosts.add(server)
        if project_id == self.project_id:
            self.ids.append(server.id)
        insort(self._pages.setdefault(project_id, []), (-server.created, server.id))
        who = Identity(user_id=self.user_id, project_id=project_id)
        self._record(server, "create", who, self.new_request_id(), event="compute__do_build_and_run_instance")
        return server

    def _deal(self, server: SimulatedServer, lot: Lot) -> None:
        if lot.state:
            self._change(server, _BIRTHS[lot.state])
        if server.vm_state == "error":
            server.fault = ServerFault(500, "Build of instance aborted", server.created)
        if lot.faults:
            self.script(server.id, *lot.faults)
        if lot.host_fault:
            self.break_host(server.id, lot.host_fault)
        server.log_delay = lot.log_delay

    def _change(self, server: SimulatedServer, changes: Changes) -> SimulatedServer:
        apply_changes(server, changes, at=self._agenda.now)
        return server

    def _record(
        self, server: SimulatedServer, action: str, identity: Identity, request_id: str, *, event: str = ""
    ) -> LogRow:
        """Add a row to a server's log, with an event that is over at once, or without one until it begins."""
        now = self._agenda.now
        row = LogRow(
            action=action,
            request_id=request_id,
            user_id=identity.user_id,
            project_id=identity.project_id,
            start_time=now,
            updated_at=now,
        )
        if event:
            row.event, row.result = event, "Success"
            row.event_start = row.event_finish = now
        server.log.append(row)
        return row
