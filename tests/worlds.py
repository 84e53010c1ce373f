"""Whole worlds on virtual time: a simulated cloud, what goes wrong in it, and a run that is cut off and taken up again.

Law: a world is a value, and the same world always goes the same way. What it shows is judged by what the cloud itself
did, never by what the run believes.
"""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, Literal, TypeVar

import httpx
import pytest
import trio
from trio.testing import MockClock

from bulkrestart import Outcome, Report, RestartClient, Rollout, Server, ServerResult, Token
from bulkrestart.client import Run
from bulkrestart.core.checkpoint import Checkpoint, Contents
from bulkrestart.core.errors import BulkRestartError, JournalError
from bulkrestart.core.model import Proof, Reason, RebootType, StopReason
from bulkrestart.core.rollout import BUDGET
from bulkrestart.journal import read_journal
from bulkrestart.limits.pacing import LATENESS
from bulkrestart.run import recorder
from bulkrestart.simulator import (
    Answer,
    Call,
    Cloud,
    ConflictError,
    Fault,
    HostFault,
    LogAccess,
    LogRow,
    RequestIds,
    asgi,
    json_answer,
    nova_answer,
)
from bulkrestart.simulator.records import Changes
from tests.virtual import EPOCH, REGARDLESS

T = TypeVar("T")

#: Seconds from the birth of a cloud to the beginning of the run: what happened before has room in it.
LEAD: Final = 200.0
#: Seconds after the last process in which the cloud may still carry out what it was sent.
AFTERWARDS: Final = 4000.0
#: Virtual seconds that no process needs: more is a run without an end.
ENDLESS: Final = 100_000.0
#: Processes after the last cut, at most: each takes up what the one before left open.
RESUMES: Final = 3
#: Processes at all, at most.
_PROCESSES: Final = 30
#: Seconds between two processes of which the first could not begin.
_BREATHER: Final = 120.0
#: Seconds in which a late request has to reach the cloud, so that the README's exception does not apply: less than the
#: grace of 10 s, and less than that of 90 s (HARD; a time-out; a 504 of a gateway that waited; a process that ended).
SOON: Final = 9.0
LATE: Final = 80.0
#: Seconds by which the cloud's `Date`, and a round trip, may make a reboot of somebody else look later than the run.
_UNCERTAINTY: Final = 5.0
#: Seconds by which `Date`, the log's clock and ours may differ from each other, and by which the log and the views may
#: be behind: what `attack_world_of` assumes of a cloud.
APART: Final = 60.0
BEHIND: Final = 30.0
#: Seconds from the last look before a send, with its requests, to the send.
_LOOK_AGE: Final = 15.0
#: Fleets up to this size are looked at as a whole at every result.
_SMALL: Final = 50


class Moment(StrEnum):
    """What a process can be in the midst of when it is cut off."""

    #: A write to the journal, of which a part is on the disk.
    COMMITTING = "committing"
    #: A write to the journal that is on the disk, and of which nobody was told yet.
    COMMITTED = "committed"
    #: A send that is about to leave.
    LEAVING = "leaving"
    #: A send that has reached the cloud.
    REACHED = "reached"
    #: A send whose answer, or the end of whose connection, is about to be seen.
    ANSWERED = "answered"
    #: The same of any other request.
    ASKED = "asked"
    #: A result that was just given.
    RESULT = "result"
    #: So many seconds after the process began.
    TIME = "time"


class Way(StrEnum):
    """How a process is cut off."""

    #: As `kill -9` does it.
    KILL = "kill"
    #: By a cancellation: what is in flight is awaited for a while.
    CANCEL = "cancel"
    #: By `Run.stop`.
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The end of a process, and the beginning of the next.

    Attributes:
        moment: In the midst of what.
        number: The how manieth of them in this process, from 1 up; for `TIME`, seconds since it began.
        way: How.
        pause: Seconds until the next process.
        torn: For `COMMITTING`, the share of the write that is on the disk.
        wall: Seconds by which somebody sets the clock on the wall meanwhile; not the cloud's.
    """

    moment: Moment
    number: float = 1
    way: Way = Way.KILL
    pause: float = 1.0
    torn: float = 0.5
    wall: float = 0.0


class Doing(StrEnum):
    """What somebody else does to a server."""

    SOFT = "soft"
    HARD = "hard"
    #: A SOFT reboot by the very user that the run signs in as; only before the run.
    OWN = "own"
    DELETE = "delete"
    LOCK = "lock"
    UNLOCK = "unlock"


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that somebody else does, `at` seconds after the run began, or before it."""

    at: float
    doing: Doing


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What is in store for one server.

    Attributes:
        born: Its states at first.
        sends: What the sends to it meet, one each.
        looks: What other requests for it meet, each by its call.
        host: What its first reboot meets on the host.
        deeds: What others do to it.
        log_delay: Seconds by which its action log shows new rows late.
    """

    born: Changes = field(default_factory=Changes)
    sends: tuple[Fault | None, ...] = ()
    looks: tuple[tuple[Call, Fault], ...] = ()
    host: HostFault | None = None
    deeds: tuple[Deed, ...] = ()
    log_delay: float = 0.0

    @property
    def has_company(self) -> bool:
        """Somebody else reboots it, or it was rebooted before."""
        is_rebooted = any(deed.doing in (Doing.SOFT, Doing.HARD, Doing.OWN) for deed in self.deeds)
        return is_rebooted or any(fault is not None and fault.by_other for fault in self.sends)


@dataclass(frozen=True, slots=True)
class Outage:
    """A fault that every request meets for some seconds, from so many seconds after the run began."""

    at: float
    seconds: float
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that decides how things go. What it does not say is as `RestartClient.restart` and `Cloud` have it.

    Attributes:
        seed: Of the servers' ids, of the time that each reboot takes, of jitter, and of the order among tasks.
        fates: The servers.
        rollout: How the run spreads, and when it stops itself; unless given, no budget stops it.
        verify: Servers that are back are checked, and pass at the second call that a process makes.
        since: Seconds before the beginning of the run; None for no `since`.
        lists: What lists meet, one each.
        outage: What all requests meet for a while.
        cuts: How one process after another ends; the last ones are left alone.
        kinds: What it is an example of; doubts are counted by these.
        may_doubt: A doubt breaks no promise, whatever its reason; it is only counted.
    """

    seed: int = 0
    fates: tuple[Fate, ...] = (Fate(),)
    reboot_type: RebootType = RebootType.SOFT
    wait: bool = True
    escalate: bool = False
    start_stopped: bool = False
    rollout: Rollout = REGARDLESS
    verify: bool = False
    since: float | None = None
    max_at_once: int = 20
    max_per_second: float | None = None
    adaptive: bool = True
    request_timeout: float = 60.0
    version: str = "v2.1"
    reboot_seconds: tuple[float, float] = (2.0, 5.0)
    hosts: int = 10
    latency: float = 0.0
    log_delay: float = 0.0
    log_resolution: float = 1.0
    log_access: LogAccess = LogAccess.OPEN
    date_skew: float = 0.0
    has_date: bool = True
    log_skew: float = 0.0
    node_skews: tuple[float, ...] = ()
    log_lag: float | tuple[float, float] = 0.0
    view_lag: float | tuple[float, float] = 0.0
    request_ids: RequestIds = RequestIds.SHOWN
    busy_answer: Answer | None = None
    legacy_host: bool = False
    max_limit: int = 1000
    max_microversion: str = "2.96"
    rate_limit: tuple[int, float] | None = None
    lists: tuple[Fault | None, ...] = ()
    outage: Outage | None = None
    cuts: tuple[Cut, ...] = ()
    kinds: tuple[str, ...] = ()
    may_doubt: bool = False

    @property
    def date_lead(self) -> float:
        """Seconds by which `Date` may be ahead of the log."""
        return self.date_skew - self.log_skew + self._spread

    @property
    def log_lead(self) -> float:
        """Seconds by which the log may be ahead of `Date`; without a `Date`, of whatever else is taken for it."""
        return self.log_skew - self.date_skew + self._spread if self.has_date else APART

    @property
    def since_uncertainty(self) -> float:
        """Seconds before `since` at which a reboot may begin for which a server is left alone."""
        # Our own clock, by which `since` is given, may be as far from the log's as the log's nodes from each other.
        return APART + max(0.0, self.log_skew) + self._spread if self.may_doubt else 0.0

    @property
    def slowest_log(self) -> float:
        """The most seconds after which the log shows a new row of a server that has no delay of its own."""
        return self.log_delay + (self.log_lag[1] if isinstance(self.log_lag, tuple) else self.log_lag)

    @property
    def _spread(self) -> float:
        return max(self.node_skews) - min(self.node_skews) if self.node_skews else 0.0

    @property
    def goal(self) -> Outcome:
        """How far servers are to come."""
        if self.verify:
            return Outcome.VERIFIED
        return Outcome.COMPLETED if self.wait else Outcome.ACCEPTED


@dataclass(slots=True, kw_only=True)
class Account:
    """How a world went.

    Attributes:
        broken: Every promise that was not kept, in words; empty if all were.
        report: The last process's; None if it could not begin.
        ids: The servers.
        sends: Reboot requests that left, by server.
        started: Sends for which the cloud began a reboot, by server: one that was delivered twice is one.
        twice_delivered: Servers whose guest was cycled more than once by one send, which a middlebox delivered twice.
        falsely: Servers whose outcome is not what the cloud did.
        since_broken: Servers that were rebooted although the log showed that they had rebooted since.
        cycled: Power cycles since the run began, whoever asked, by server.
        faults: Requests that met a fault.
        kills: Processes that were killed.
        ends: Processes that were cancelled or stopped.
        processes: All processes.
        lost: Servers that some account lacked, or whose outcome was lost.
        doubts: Servers in doubt at the end whose action log could be read, and told.
        fair_doubts: Servers in doubt at the end for a reason that is documented.
    """

    broken: list[str] = field(default_factory=list)
    report: Report | None = None
    ids: list[str] = field(default_factory=list)
    sends: Counter[str] = field(default_factory=Counter)
    started: Counter[str] = field(default_factory=Counter)
    cycled: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    kills: int = 0
    ends: int = 0
    processes: int = 0
    lost: int = 0
    doubts: int = 0
    fair_doubts: int = 0
    twice_delivered: int = 0
    falsely: set[str] = field(default_factory=set)
    since_broken: int = 0

    @property
    def twice(self) -> int:
        """Servers that were rebooted more than once by our own doing."""
        return sum(starts > 1 for starts in self.started.values())


class _Time:
    """The cloud's time, through all processes: the clock of each begins at 0, and the cloud's goes on."""

    def __init__(self) -> None:
        self.passed = 0.0
        self._is_running = False

    def __call__(self) -> float:
        return EPOCH + self.passed + self._of_process()

    def run(self) -> None:
        """Let it pass as the clock of a process does."""
        self._is_running = True

    def stop(self) -> None:
        """Let it stand still: what is left of a dead process takes no time."""
        self.passed += self._of_process()
        self._is_running = False

    def _of_process(self) -> float:
        return trio.current_time() if self._is_running else 0.0


class _Wall:
    """Stands for the module `time`: the clock on the wall, which somebody may set."""

    def __init__(self, clock: _Time) -> None:
        self._clock = clock
        self.ahead = 0.0

    def time(self) -> float:
        return self._clock() + self.ahead


class _Cloud(Cloud):
    """A cloud that counts the faults that were met."""

    faults_met = 0

    def arrive(self, call: Call, server_id: str | None) -> tuple[int, Fault | None]:
        number, fault = super().arrive(call, server_id)
        self.faults_met += fault is not None
        return number, fault


@dataclass(slots=True)
class _Exchange:
    """One request on its way."""

    is_send: bool
    has_reached: bool = False


_exchange: ContextVar[_Exchange] = ContextVar("exchange")


class _Line(httpx.AsyncBaseTransport):
    """The way from one process to the cloud; dead, it carries nothing.

    Args:
        process: Whose way it is.
        stage: What it leads to.
    """

    def __init__(self, process: "_Process", stage: "_Stage") -> None:
        self._process = process
        self._stage = stage
        self._inner = httpx.ASGITransport(asgi(stage.cloud, lost=httpx.ReadError, sleep=self._sleep))
        self._on_the_way: set[trio.CancelScope] = set()
        self._held = (float("-inf"), float("-inf"))
        self._held_servers: dict[str, tuple[float, float]] = {}
        # When the next request would be due, were they evenly spread.
        self._due = float("-inf")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry a request to the cloud, and its answer back, and have the process cut off at its moments."""
        exchange = _Exchange(is_send=request.method == "POST")
        if exchange.is_send:
            self._process.come_to(Moment.LEAVING)
        self._die_if_dead()
        now, (seen, until) = trio.current_time(), self._held
        # What leaves in the very instant of an answer cannot know of it.
        if seen < now < until - 1e-6:
            self._stage.breaks(f"{request.method} left {until - now:g} s before the cloud's Retry-After was over")
        if exchange.is_send:
            seen, until = self._held_servers.get(request.url.path.split("/")[-2], (now, now))
            if seen < now < until - 1e-6:
                self._stage.breaks(f"a send left {until - now:g} s before the Retry-After of its server was over")
        self._judge_pace(now)
        if exchange.is_send:
            server_id = request.url.path.split("/")[-2]
            self._stage.account.sends[server_id] += 1
            self._process.judge_turn(server_id)
        if len(self._on_the_way) >= self._stage.world.max_at_once:
            self._stage.breaks("more requests were in flight than max_at_once")
        _exchange.set(exchange)
        with trio.CancelScope() as scope:
            self._on_the_way.add(scope)
            try:
                response = await self._inner.handle_async_request(request)
                self._heed(request, response)
                return response
            finally:
                self._on_the_way.discard(scope)
                self._reach(exchange)
                if not self._process.is_dead:
                    self._process.come_to(Moment.ANSWERED if exchange.is_send else Moment.ASKED)
                self._die_if_dead()
        raise AssertionError("only a dead process's requests are cut off")

    def _judge_pace(self, now: float) -> None:
        world = self._stage.world
        if world.max_per_second is None:
            return
        self._due = max(self._due, now) + 1.0 / world.max_per_second
        # Looks leave in the slot of the send that follows: up to three, or two if the send waited for too long after
        # its last look. The requests after them wait for all of them.
        is_looked_first = world.reboot_type is RebootType.HARD or world.escalate or world.since is not None
        together = (3 if is_looked_first else 2) * world.max_at_once
        if self._due - now > (1.5 + together) / world.max_per_second + LATENESS:
            self._stage.breaks("more requests left than max_per_second")

    def cut(self) -> None:
        """Let nothing come back any more."""
        for scope in self._on_the_way:
            scope.cancel()

    async def _sleep(self, seconds: float) -> None:
        self._reach(_exchange.get())
        self._die_if_dead()
        await trio.sleep(seconds)

    def _reach(self, exchange: _Exchange) -> None:
        if exchange.is_send and not exchange.has_reached:
            exchange.has_reached = True
            self._process.come_to(Moment.REACHED)

    def _die_if_dead(self) -> None:
        if self._process.is_dead:
            raise httpx.ReadError("the process is dead")

    def _heed(self, request: httpx.Request, response: httpx.Response) -> None:
        seconds = response.headers.get("retry-after")
        if seconds is None:
            return
        held = (trio.current_time(), trio.current_time() + float(seconds))
        if response.status_code in (413, 429):
            self._held = max(held, self._held, key=lambda one: one[1])
        elif request.method == "POST" and response.status_code >= 408:
            # It pauses all requests once. After that it is about its server, as long as others are answered well.
            self._held_servers[request.url.path.split("/")[-2]] = held


class _Process:
    """One process of a run.

    Args:
        stage: Where it plays.
        path: Its journal.
        heir: Where the journal is copied to, as it is, when the process is killed.
        cut: How it is cut off; None to leave it alone.
    """

    def __init__(self, stage: "_Stage", path: Path, heir: Path, cut: Cut | None) -> None:
        self.is_dead = False
        self.is_cut = False
        self.refusal: BulkRestartError | None = None
        self.streamed: Counter[str] = Counter()
        self._stage = stage
        self._path = path
        self._heir = heir
        self._cut = cut
        self._counts: Counter[Moment] = Counter()
        self._checks: Counter[str] = Counter()
        self._line = _Line(self, stage)
        self._scope = trio.CancelScope()
        self._run: Run | None = None

    async def live(self) -> None:
        """Restart what the world holds, until done or cut off."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    if self._cut is not None and self._cut.moment is Moment.TIME:
                        nursery.start_soon(self._wait_for_the_end, self._cut.number)
                    with trio.move_on_after(ENDLESS) as patience:
                        await self._restart()
                    if patience.cancelled_caught:
                        self._stage.breaks("the run has no end")
                    nursery.cancel_scope.cancel()
        finally:
            self._stage.time.stop()

    async def _restart(self) -> None:
        stage, world = self._stage, self._stage.world
        try:
            async with (
                _client(stage, self._line) as client,
                client.restarting(
                    stage.cloud.ids,
                    reboot_type=world.reboot_type,
                    wait=world.wait,
                    request_timeout=world.request_timeout,
                    escalate=world.escalate,
                    start_stopped=world.start_stopped,
                    rollout=world.rollout,
                    verify=self._check if world.verify else None,
                    since=stage.since,
                    journal=self._path,
                ) as self._run,
            ):
                async for result in self._run:
                    self._take(result)
        except BulkRestartError as error:
            self.refusal = error

    async def _check(self, server: Server) -> bool:
        self._checks[server.id] += 1
        await trio.sleep(1.0)
        return self._checks[server.id] > 1

    @property
    def report(self) -> Report | None:
        """Its report; None if it never began, or died before it could give one."""
        return None if self._run is None or self.is_dead else self._run.report

    def judge_turn(self, server_id: str) -> None:
        """Hold that a wave begins when every server of those before it has its outcome."""
        # What a former process sent, or was about to, may not have arrived, and be sent again, whatever wave is now.
        before = frozenset() if server_id in self._stage.sent_before else self._stage.before[server_id]
        report = self.report if before else None
        for result in report or ():
            is_under_way = result.outcome is Outcome.ACCEPTED or result.reason in self._stage.under_way
            if result.server_id in before and is_under_way:
                self._stage.breaks(f"{server_id}, of a later wave, was sent to before there was an end of {result}")

    def _take(self, result: ServerResult) -> None:
        if self.is_dead:
            return
        self._stage.note_end(result.server_id)
        self.streamed[result.server_id] += 1
        # A report costs as much as the fleet is large.
        report = self.report if len(self._stage.cloud.ids) <= _SMALL else None
        if report is not None and [one.server_id for one in report] != self._stage.cloud.ids:
            self._stage.loses("a report of a run under way lacks a server, or has it out of order")
        self.come_to(Moment.RESULT)

    async def _wait_for_the_end(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._end()

    def come_to(self, moment: Moment) -> None:
        """Note a moment, and end if it is the one."""
        if self._is_next(moment):
            self._end()

    def write(self, function: Callable[[], T]) -> T:
        """Do what blocks, and end in its midst or right after it if that is the moment."""
        if self.is_dead:
            return function()
        before = _bytes(self._path)
        result = function()
        if self._is_next(Moment.COMMITTING):
            assert self._cut is not None
            after = _bytes(self._path)
            # The mark at the start of the file follows the commit. A new file's first write is whole or not there.
            is_commit = 0 < len(before) < len(after)
            kept = len(before) + int((len(after) - len(before)) * self._cut.torn)
            self._end(keep=before + after[len(before) : kept] if is_commit else None)
        self.come_to(Moment.COMMITTED)
        return result

    def _is_next(self, moment: Moment) -> bool:
        self._counts[moment] += 1
        cut = self._cut
        return not self.is_cut and cut is not None and cut.moment is moment and cut.number == self._counts[moment]

    def _end(self, keep: bytes | None = None) -> None:
        assert self._cut is not None
        self.is_cut = True
        match self._cut.way:
            case Way.STOP:
                if self._run is not None:
                    self._run.stop()
            case Way.CANCEL:
                self._scope.cancel()
            case Way.KILL:
                self.is_dead = True
                self._bequeath(keep)
                self._stage.time.stop()
                self._scope.cancel()
                self._line.cut()

    def _bequeath(self, keep: bytes | None) -> None:
        if keep is not None:
            self._heir.write_bytes(keep)
        elif self._path.exists():
            shutil.copyfile(self._path, self._heir)


@asynccontextmanager
async def _client(stage: "_Stage", line: _Line) -> AsyncIterator[RestartClient]:
    async with httpx.AsyncClient(transport=line) as http:
        endpoint = f"http://cloud.test/{stage.world.version}/{stage.cloud.project_id}"
        token = Token(stage.cloud.token)
        async with RestartClient(
            endpoint,
            auth=token,
            http=http,
            max_at_once=stage.world.max_at_once,
            max_per_second=stage.world.max_per_second,
            adaptive=stage.world.adaptive,
        ) as client:
            client._rng = random.Random(f"{stage.world.seed} {stage.account.processes}")
            yield client


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


class _Stage:
    """Plays one world.

    Args:
        world: The world.
        folder: Where the journals are.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.account = Account()
        self.time = _Time()
        self.wall = _Wall(self.time)
        self.cloud = self._build()
        self.account.ids = self.cloud.ids
        self._folder = folder
        self._process: _Process | None = None
        #: Who is of an earlier wave than each server.
        self.before = self._waves()
        # What a process finds may change the order of zones: who was not come to, or comes again, is not under way.
        self.under_way = _UNDER_WAY if world.rollout.spread is None else {Reason.IN_FLIGHT}
        #: Whom the former processes sent to, by their journal.
        self.sent_before: frozenset[str] = frozenset()
        #: When a server last got an outcome.
        self._ended: dict[str, float] = {}
        #: When the process ended in which a server was finished.
        self._left: dict[str, float] = {}
        #: What was finished in some journal, which no later process may change.
        self._finished: dict[str, ServerResult] = {}
        self.time.passed += LEAD
        self.began = self.time()
        self.since = None if world.since is None else datetime.fromtimestamp(self.began - world.since, UTC)

    def _build(self) -> _Cloud:
        world = self.world
        cloud = _Cloud(
            len(world.fates),
            seed=world.seed,
            clock=self.time,
            reboot_seconds=world.reboot_seconds,
            hosts=world.hosts,
            latency=world.latency,
            log_delay=world.log_delay,
            log_resolution=world.log_resolution,
            date_skew=world.date_skew,
            has_date=world.has_date,
            log_skew=world.log_skew,
            node_skews=world.node_skews,
            log_lag=world.log_lag,
            view_lag=world.view_lag,
            request_ids=world.request_ids,
            busy_answer=world.busy_answer,
            legacy_host=world.legacy_host,
            max_limit=world.max_limit,
            max_microversion=world.max_microversion,
            rate_limit=world.rate_limit,
        )
        cloud.log_access = world.log_access
        for server_id, fate in zip(cloud.ids, world.fates, strict=True):
            cloud.change(server_id, **fate.born)
            cloud.script(server_id, *fate.sends)
            cloud.delay_log(server_id, fate.log_delay)
            for call, fault in fate.looks:
                cloud.script(server_id, fault, call=call)
            if fate.host is not None:
                cloud.break_host(server_id, fate.host)
            for deed in fate.deeds:
                cloud.later(LEAD + deed.at, partial(_do, cloud, server_id, deed.doing))
        cloud.script(None, *world.lists, call=Call.LIST)
        if world.outage is not None:
            cloud.later(LEAD + world.outage.at, partial(setattr, cloud, "outage", world.outage.fault))
            cloud.later(LEAD + world.outage.at + world.outage.seconds, partial(setattr, cloud, "outage", None))
        return cloud

    def _waves(self) -> dict[str, frozenset[str]]:
        before: dict[str, frozenset[str]] = {}
        rollout = self.world.rollout
        zones: dict[str, list[str]] = {}
        for server_id in self.cloud.ids:
            zone = self.cloud.server(server_id).availability_zone if rollout.spread == "az" else ""
            zones.setdefault(zone, []).append(server_id)
        earlier: frozenset[str] = frozenset()
        # Where nobody could say where a server is, it is restarted last, and the waves of its zone are cut otherwise.
        waves = rollout.waves([self.cloud.ids]) if rollout.spread is None else list(zones.values())
        for wave in waves:
            before.update(dict.fromkeys(wave, earlier))
            earlier |= frozenset(wave)
        return before

    async def in_place(self, function: Callable[[], T]) -> T:
        """Stand for the recorder's thread, which virtual time does not see."""
        assert self._process is not None
        return self._process.write(function)

    def breaks(self, words: str) -> None:
        """Note that a promise is broken."""
        if words not in self.account.broken:
            self.account.broken.append(words)

    def note_end(self, server_id: str) -> None:
        """Note that a server has an outcome now, unless it had its last one in a former process."""
        if server_id not in self._finished:
            self._ended[server_id] = self.time()

    def loses(self, words: str) -> None:
        """Note that a server was lost."""
        self.account.lost += 1
        self.breaks(words)

    def play(self) -> Account:
        """Let one process after another live, and judge each account, and the last one once more at the end."""
        path = self._folder / "journal-0"
        cuts, left_alone = iter(self.world.cuts), 0
        for number in count(1):
            cut = next(cuts, None)
            heir = self._folder / f"journal-{number}"
            process = self._run(path, heir, cut)
            path = heir if process.is_dead else path
            contents = self._read(path)
            self._judge_process(process, contents)
            report = process.report
            # One that was not let in has changed nothing; the answers that kept it out come to an end.
            left_alone += cut is None and process.refusal is None
            if left_alone == RESUMES or number == _PROCESSES:
                break
            if left_alone and report is not None and not any(map(self._is_open, report)):
                break
            self.time.passed += _BREATHER if process.refusal else cut.pause if cut else 0.0
            self.wall.ahead += 0.0 if cut is None or self.since is not None else cut.wall
        self.account.report = report
        self.time.passed += AFTERWARDS
        self._judge_the_end(report, contents)
        if contents is not None and len(self._finished) == len(self.cloud.ids):
            self._judge_finished(path)
        self.account.faults = self.cloud.faults_met
        return self.account

    def _run(self, path: Path, heir: Path, cut: Cut | None) -> _Process:
        self.account.processes += 1
        self._process = process = _Process(self, path, heir, cut)
        self.time.run()
        trio.run(process.live, clock=MockClock(autojump_threshold=0))
        self.account.kills += process.is_dead
        self.account.ends += process.is_cut and not process.is_dead
        return process

    def _read(self, path: Path) -> Contents | None:
        if not path.exists():
            return None
        try:
            contents, holder = read_journal(path)
        except JournalError as error:
            if "has not begun" not in str(error):
                self.loses(f"the journal cannot be read: {error}")
            return None
        if holder is not None:
            self.breaks("a process is over and holds its journal still")
        return contents

    def _judge_process(self, process: _Process, contents: Contents | None) -> None:
        """Hold the journal that a process left, and its report, against what it sent and what the cloud did."""
        if contents is None:
            if self.account.sends:
                self.loses("something was sent, and the journal is empty")
            return
        if list(contents.ids) != self.cloud.ids:
            self.loses("the journal lacks a server, or has it out of order")
        for server_id, sends in self.account.sends.items():
            if sends > _known_sends(contents.checkpoints.get(server_id)):
                self.breaks(f"{server_id}: {sends} sends left, and the journal knows of fewer")
        self._keep_finished(contents)
        self.sent_before = frozenset(
            one for one, checkpoint in contents.checkpoints.items() if _known_sends(checkpoint)
        )
        if process.report is not None:
            self._judge_report(process, process.report, contents)

    def _keep_finished(self, contents: Contents) -> None:
        for server_id, checkpoint in contents.checkpoints.items():
            if checkpoint.is_finished(self.world.goal):
                result = checkpoint.result()
                self._left.setdefault(server_id, self.time())
                if self._finished.setdefault(server_id, result) != result:
                    self.loses(f"{server_id}: a finished server has another outcome now: {result}")
            elif server_id in self._finished:
                self.loses(f"{server_id}: a finished server is no longer finished")

    def _judge_report(self, process: _Process, report: Report, contents: Contents) -> None:
        if [result.server_id for result in report] != self.cloud.ids:
            self.loses("the report lacks a server, or has it out of order")
        if not process.is_cut and process.refusal is None and process.streamed != Counter(self.cloud.ids):
            self.loses("the results that were given are not each server once")
        for result in report:
            checkpoint = contents.checkpoints.get(result.server_id)
            if checkpoint is None:
                is_told = result.outcome is Outcome.SKIPPED
            elif checkpoint.end is None:
                is_told = result.reason in (Reason.STOPPED, Reason.INTERRUPTED)
            elif result.reason is Reason.INTERRUPTED and result.outcome is Outcome.COMPLETED:
                is_told = checkpoint.end.outcome is Outcome.COMPLETED and self.world.verify
            else:
                is_told = (checkpoint.end.outcome, checkpoint.end.reason) == (result.outcome, result.reason)
            if not is_told:
                self.loses(f"{result.server_id}: the journal and the report differ: {checkpoint} {result}")
        self._judge_truth(report)

    def _judge_truth(self, report: Report) -> None:
        """Hold each outcome against what the cloud did."""
        # As far as `Date` is behind, an earlier reboot may be taken for ours until a row has told (README).
        began = self.began - _UNCERTAINTY - max(0.0, self.world.log_lead)
        cycled = Counter(cycle.server_id for cycle in self.cloud.cycle_log if cycle.time >= began)
        for result, fate in zip(report, self.world.fates, strict=True):
            server_id = result.server_id
            rows = [row for row in self.cloud.server(server_id).log if row.action == "reboot"]
            ours = [row for row in rows if self._is_ours(row)]
            # Where the log cannot be read, a server that is in a reboot counts as accepted, whoever began it.
            under_way = [row for row in rows if row.event_finish is None or row.event_finish >= began]
            recent = [row for row in rows if row.start_time >= began] if self._is_log_open else under_way
            match result.outcome:
                case Outcome.COMPLETED | Outcome.VERIFIED:
                    # What the README says no client can know: a driver that fails while the guest keeps running, as
                    # it also does when somebody's HARD takes the task from under it.
                    is_swallowed = fate.host is HostFault.ALIVE or any(deed.doing is Doing.HARD for deed in fate.deeds)
                    is_true = cycled[server_id] > 0 or is_swallowed
                    is_true = is_true or (result.proof is Proof.STATE and not self._is_log_open and bool(under_way))
                case Outcome.REFUSED | Outcome.SKIPPED:
                    is_true = not ours
                case Outcome.ACCEPTED | Outcome.FAILED:
                    is_not_rebooted = result.reason is Reason.NOT_REBOOTED
                    is_true = bool(recent) and not (is_not_rebooted and self._is_shown_rebooted(server_id, fate, ours))
                case Outcome.SATISFIED:
                    is_true = self._has_rebooted_since(rows)
                case Outcome.IN_DOUBT:
                    is_true = True
            if not is_true:
                self.account.falsely.add(server_id)
                self.breaks(f"{server_id}: {result.outcome} is not true: {result}; {rows}")

    def _is_shown_rebooted(self, server_id: str, fate: Fate, ours: Sequence[LogRow]) -> bool:
        """Tell whether a send of ours cycled the guest, and the log showed its row before there was an outcome."""
        cycled = {cycle.send for cycle in self.cloud.cycle_log if cycle.server_id == server_id}
        shown_by = self._ended.get(server_id, self.time()) - self.world.slowest_log - fate.log_delay
        return any(row.send in cycled and row.result == "Success" and row.start_time < shown_by for row in ours)

    @property
    def _is_log_open(self) -> bool:
        return self.world.log_access is LogAccess.OPEN

    def _is_ours(self, row: LogRow) -> bool:
        return row.user_id == self.cloud.user_id and row.start_time >= self.began

    def _has_rebooted_since(self, rows: Sequence[LogRow]) -> bool:
        assert self.world.since is not None
        since = self.began - self.world.since - self.world.since_uncertainty
        return any(row.start_time >= since and row.message is None for row in rows)

    def _judge_the_end(self, report: Report | None, contents: Contents | None) -> None:
        """Judge what is left when nothing more can come."""
        account = self.account
        account.cycled = Counter(cycle.server_id for cycle in self.cloud.cycle_log if cycle.time >= self.began)
        for server_id in self.cloud.ids:
            reboots = [row for row in self.cloud.server(server_id).log if row.action == "reboot"]
            rows = [row for row in reboots if self._is_ours(row)]
            # What one send began is one, however often something on the way delivered it.
            sends = sorted({row.send for row in rows if row.send is not None})
            if self.world.escalate and len(sends) == 2 and {r.message for r in rows if r.send == sends[0]} == {"Error"}:
                # HARD followed the SOFT; had that been cycled, or this not been the last, it shows below.
                del sends[0]
            account.started[server_id] = len(sends)
            if len(sends) > 1:
                self.breaks(f"{server_id}: rebooted {len(sends)} times by our own doing: {rows}")
            if self.world.since is not None and sends:
                self._judge_since(server_id, reboots, self.cloud.requests[sends[0]].time)
        cycles = Counter((cycle.server_id, cycle.send) for cycle in self.cloud.cycle_log if cycle.send is not None)
        account.twice_delivered = sum(number > 1 for number in cycles.values())
        self._judge_downtimes()
        if report is None or contents is None:
            self.loses("no process could begin")
            return
        self._judge_truth(report)
        self._judge_budgets(report)
        is_stopped = report.stopped is not None and report.stopped.reason in _BY_ROLLOUT
        for result, fate in zip(report, self.world.fates, strict=True):
            if result.outcome is Outcome.IN_DOUBT:
                self._judge_doubt(result, fate, contents)
            elif self._is_open(result) and not is_stopped and not self._may_stay_open(result, fate):
                self.breaks(f"{result.server_id}: left open by {RESUMES} processes: {result}")

    def _judge_since(self, server_id: str, reboots: Sequence[LogRow], sent_at: float) -> None:
        """Hold that a server that had rebooted since was left alone, where the last look could show that it had."""
        assert self.world.since is not None
        number = self.cloud.ids.index(server_id)
        fate = self.world.fates[number]
        # A look that failed, or took long, may be older than the log is behind.
        if fate.looks or not self._is_log_open:
            return
        shown_by = sent_at - self.world.slowest_log - fate.log_delay - _LOOK_AGE
        since = self.began - self.world.since
        before = [row for row in reboots if row.send is None and since <= row.start_time < shown_by]
        if any(row.result == "Success" for row in before):
            self.breaks(f"{server_id}: rebooted by us, though it had rebooted since: {reboots}")
            self.account.since_broken += 1

    def _judge_downtimes(self) -> None:
        """Hold what may be down at once against when servers were down by our own doing."""
        rollout = self.world.rollout
        places = rollout.places(len(self.cloud.ids))
        if places is not None and (peak := self._peak(self._left, lambda _: "")) > places:
            self.breaks(f"{peak} servers were down at once, and max_down is {places}")
        # Whom no look placed is restarted last, though a server that failed may be of his host.
        is_placed = not any(fate.looks for fate in self.world.fates) and self.world.outage is None
        left = self._left if is_placed else self._ended
        if rollout.spread == "host" and (peak := self._peak(left, lambda one: self.cloud.server(one).host)) > 1:
            self.breaks(f"{peak} servers of a host were down at once")

    def _peak(self, left: Mapping[str, float], kind: Callable[[str], str]) -> int:
        """Tell how many servers of one kind were down at once at most.

        Args:
            left: From when on a server no longer counts, down or not.
            kind: Names the kind.
        """
        moves: list[tuple[float, int, str]] = []
        for down in self.cloud.downtimes:
            server = self.cloud.server(down.server_id)
            ends = (down.ended, server.terminated_at, left.get(server.id))
            ended = min((end for end in ends if end is not None), default=float("inf"))
            began = [row.start_time for row in server.log if row.action == "reboot" and self._is_ours(row)]
            began = [at for at in began if down.began <= at < ended]
            if began:
                moves += [(began[0], 1, kind(server.id)), (ended, -1, kind(server.id))]
        now: Counter[str] = Counter()
        peak = 0
        for _, step, name in sorted(moves):
            now[name] += step
            peak = max(peak, now[name])
        return peak

    def _judge_budgets(self, report: Report) -> None:
        """Hold that no more came to harm than the budget allows for, and what was down when the last one did."""
        rollout, fleet = self.world.rollout, len(report)
        places = rollout.places(fleet)
        if places is None:
            return
        harm = sum(result.outcome in (Outcome.FAILED, Outcome.IN_DOUBT) for result in report)
        most = rollout.failures_allowed(fleet) + (1 if rollout.max_down == BUDGET else places)
        if harm > most:
            self.breaks(f"{harm} came to harm, and {most} may")

    def _judge_doubt(self, result: ServerResult, fate: Fate, contents: Contents) -> None:
        """Tell a doubt that is documented from one that a readable log should have ended."""
        is_fair = (
            # Only the log of a server that is there can be read.
            result.reason is Reason.GONE
            or not self._is_log_open
            # A reboot by another in the same second: the clocks do not tell whose it is.
            or fate.has_company
            # `Date` is ahead of the log, so that our own row seems to precede the send: another node's clock would
            # make the same of somebody's reboot before it.
            or (self.world.date_lead > 0.0 and self.account.started[result.server_id] > 0)
            # Nova takes a second HARD, so a log is believed only once it has shown a reboot of this run.
            or (result.reboot_type is RebootType.HARD and not contents.header.facts.is_proven)
        )
        self.account.fair_doubts += is_fair
        self.account.doubts += not is_fair
        if not is_fair and not self.world.may_doubt:
            self.breaks(f"{result.server_id}: in doubt, and its log can be read: {result}")

    def _is_open(self, result: ServerResult) -> bool:
        is_awaited = result.outcome is Outcome.ACCEPTED and self.world.wait
        return is_awaited or result.reason in (_OPEN if self._is_log_open else _OPEN - _TOLD_BY_LOG)

    def _may_stay_open(self, result: ServerResult, fate: Fate) -> bool:
        # A reboot by another that never ends keeps everybody out.
        return result.reason is Reason.BUSY and fate.host in (HostFault.HANG, HostFault.DOWN) and fate.has_company

    def _judge_finished(self, path: Path) -> None:
        """See that a finished journal is told once more without a word to the cloud."""
        asked = len(self.cloud.requests)
        process = self._run(path, path, None)
        results = None if process.report is None else [(one.server_id, one.outcome) for one in process.report]
        if results != [(server_id, self._finished[server_id].outcome) for server_id in self.cloud.ids]:
            self.loses(f"a finished journal is told otherwise: {results} {process.refusal}")
        if len(self.cloud.requests) > asked:
            self.breaks("a finished journal made requests")


#: Why a server may be taken up again with another end.
_OPEN: Final = frozenset(
    {
        *(Reason.STOPPED, Reason.NOT_STARTED, Reason.IN_FLIGHT, Reason.PARKED, Reason.INTERRUPTED, Reason.UNANSWERED),
        *(Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.UNREACHABLE, Reason.BUSY, Reason.HISTORY_UNREADABLE),
    }
)
#: What only the action log can end.
_TOLD_BY_LOG: Final = frozenset({Reason.UNANSWERED, Reason.HISTORY_UNREADABLE})


#: Why a run stops itself that was not told to go on regardless.
_BY_ROLLOUT: Final = (StopReason.MAX_FAILURES, StopReason.MAX_REFUSED, StopReason.MAX_DOWN)
#: Why a server has no outcome yet in a report of a run under way.
_UNDER_WAY: Final = frozenset({Reason.IN_FLIGHT, Reason.PARKED, Reason.NOT_STARTED})


def _known_sends(checkpoint: Checkpoint | None) -> int:
    return 0 if checkpoint is None else len(checkpoint.attempts) + (checkpoint.sent_at is not None)


def _do(cloud: Cloud, server_id: str, doing: Doing) -> None:
    """Do what somebody else does, where Nova allows for it."""
    with suppress(KeyError, ConflictError):
        match doing:
            case Doing.SOFT | Doing.HARD:
                cloud.reboot_by_other(server_id, RebootType(doing.upper()))
            case Doing.OWN:
                cloud.reboot(server_id, RebootType.SOFT)
            case Doing.DELETE:
                if not cloud.server(server_id).is_deleted:
                    cloud.delete(server_id)
            case Doing.LOCK | Doing.UNLOCK:
                cloud.change(server_id, locked=doing is Doing.LOCK)


def play(world: World) -> Account:
    """Play a world to its end, and judge it."""
    with _folder() as folder, pytest.MonkeyPatch.context() as patch:
        stage = _Stage(world, folder)
        patch.setattr(recorder, "in_thread", stage.in_place)
        patch.setattr(recorder, "time", stage.wall)
        patch.setattr("bulkrestart.client.time", stage.wall)
        # Where there is no `Date`, this machine's clock stands for it.
        patch.setattr("bulkrestart.cloud.compute.time", stage.wall)
        # trio shuffles tasks that could go on in any order, so that nobody relies on one.
        patch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr("trio._core._run._r", random.Random(world.seed))
        return stage.play()


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder in memory where there is one: a commit waits for the disk, and a world makes hundreds."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder within is made by tempfile
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


# What worlds are made of. Only what the README leaves out is left out here: requests that are delivered later than the
# graces, and credentials that are refused for good.

_TASKS: Final = ("image_snapshot", "migrating", "resize_prep", "pausing", "powering-off", "rebuilding")
_Draw = Callable[[random.Random, float, float], Fault]


def _timed_out(waited: float, late: float) -> Fault:
    """Return a 504 of a gateway that has waited, and a request that arrives later than the answer."""
    return Fault(answer=Fault.error(504).answer, answered_after=waited, applied_after=waited + late)


#: Faults of a send: drawn from, with the seconds within which a late one has to come, and within which one has to come
#: of which we do not know that it is over.
_SENDS: Final[tuple[_Draw, ...]] = (
    lambda _, __, ___: Fault.no_reply(applied=True),
    lambda _, __, ___: Fault.no_reply(applied=False),
    lambda rng, _, __: Fault.no_reply(applied=rng.random() < 0.5, after=rng.choice((5.0, 50.0, 100.0))),
    lambda rng, soon, _: Fault.late(rng.uniform(0.1, soon)),
    lambda rng, _, __: Fault.slow(rng.choice((0.5, 20.0, 70.0, 200.0))),
    lambda rng, _, late: Fault(applied_after=rng.uniform(0.1, late)),
    lambda rng, soon, _: Fault(answer=Fault.error(502).answer, applied_after=rng.uniform(0.1, soon)),
    lambda rng, soon, _: Fault(answer=Fault.error(504).answer, applied_after=rng.uniform(0.1, soon)),
    lambda rng, _, late: _timed_out(rng.choice((1.5, 5.0, 20.0)), rng.uniform(0.1, late)),
    lambda rng, _, __: Fault.cut_short(applied=rng.random() < 0.5),
    lambda _, __, ___: Fault.cut_short(409, b'{"conflictingRequest": {"code": 409, "message": "x"}}', applied=False),
    lambda rng, _, __: Fault.throttled(rng.choice((None, 0.0, 2.0, 50.0))),
    lambda _, __, ___: Fault.gateway_throttled(),
    lambda _, __, ___: Fault.flow_limited(),
    lambda _, __, ___: Fault.commands_executing(),
    lambda rng, _, __: Fault.busy(rng.uniform(1.0, 30.0), rng.choice(_TASKS)),
    lambda _, __, ___: Fault.race(),
    lambda rng, _, __: Fault.error(rng.choice((500, 503)), applied=rng.random() < 0.5),
    lambda rng, _, __: Fault.respond(502, b"<html>Bad Gateway</html>", applied=rng.random() < 0.5),
    lambda rng, _, __: Fault.respond(504, b"", {"retry-after": rng.choice("19")}, applied=rng.random() < 0.5),
    lambda rng, _, __: Fault.respond(202, b"<html>Sign in</html>", applied=rng.random() < 0.5),
    lambda rng, _, __: Fault.respond(408, b"", applied=rng.random() < 0.5),
    lambda _, __, ___: Fault.respond(400, b'{"error": {"code": "Ecs.0100", "message": "state"}}'),
    lambda _, __, ___: Fault.respond(409, b"conflict"),
    lambda rng, _, __: Fault(lost=True, by_other=True, applied_after=0.0 if rng.random() < 0.5 else None),
    lambda _, __, ___: Fault(answer=Fault.error(502).answer, by_other=True, applied_after=0.0),
)

#: Faults of a request that changes nothing.
_LOOKS: Final[tuple[Callable[[random.Random], Fault], ...]] = (
    lambda _: Fault.no_reply(applied=False),
    lambda _: Fault.error(500),
    lambda _: Fault.error(503),
    lambda _: Fault.respond(502, b"<html>Bad Gateway</html>"),
    lambda rng: Fault.throttled(rng.choice((None, 3.0))),
    lambda rng: Fault.slow(rng.choice((0.5, 10.0, 80.0))),
    lambda _: Fault.respond(200, b"<html>Sign in</html>"),
    lambda _: Fault.respond(200, b'{"server": {}}'),
    lambda _: Fault.respond(401, b"{}"),
    lambda _: Fault.cut_short(200, b'{"a": 1}', applied=False),
)
_OUTAGES: Final = (Fault.error(503), Fault.no_reply(applied=False), Fault.respond(504, b""), Fault.throttled(5.0))
_SPREADS: Final[tuple[Literal["az", "host"] | None, ...]] = (None, None, "az", "host")
_BIRTHS: Final[tuple[Changes, ...]] = (
    {"locked": True},
    {"vm_state": "stopped"},
    {"vm_state": "error"},
    {"vm_state": "paused"},
    {"vm_state": "suspended"},
    {"vm_state": "rescued"},
    {"launched_at": None},
)


def world_of(rng: random.Random, servers: int) -> World:
    """Draw a world.

    Args:
        rng: What is drawn from.
        servers: How many servers it has.
    """
    reboot_type = rng.choice((RebootType.SOFT, RebootType.SOFT, RebootType.HARD))
    log_delay = rng.choice((0.0, 0.0, 0.0, 0.5, 3.0))
    late = LATE - log_delay
    soon = (late if reboot_type is RebootType.HARD else SOON) - log_delay
    share = rng.choice((0.05, 0.3, 0.9)) if servers <= _SMALL else rng.uniform(0.01, 0.1)
    return World(
        seed=rng.randrange(2**32),
        fates=tuple(_fate_of(rng, share, soon, late) for _ in range(servers)),
        reboot_type=reboot_type,
        wait=(wait := rng.random() < 0.8),
        escalate=rng.random() < 0.3,
        start_stopped=rng.random() < 0.3,
        since=rng.choice((None, None, None, 0.0, 10.0, 100.0)),
        max_at_once=rng.choice((1, 3, 20)) if servers <= _SMALL else rng.choice((20, 50, 200)),
        request_timeout=rng.choice((60.0, 60.0, 25.0)),
        version=rng.choice(("v2.1", "v2.1", "v2.1", "v2")),
        reboot_seconds=rng.choice(((0.3, 0.5), (2.0, 5.0), (20.0, 40.0), (100.0, 130.0))),
        latency=rng.choice((0.0, 0.0, 0.05, 1.5)),
        log_delay=log_delay,
        log_resolution=rng.choice((1.0, 1.0, 0.0)),
        log_access=rng.choice((*[LogAccess.OPEN] * 7, LogAccess.FORBIDDEN, LogAccess.MISSING, LogAccess.EMPTY)),
        date_skew=rng.choice((0.0, 0.0, 0.4, -3.0, 25.0, -25.0, 55.0, -55.0)),
        legacy_host=rng.random() < 0.3,
        max_limit=rng.choice((1000, 1000, 5, 2)) if servers <= _SMALL else 1000,
        max_microversion=rng.choice(("2.96", "2.60", "2.40", "2.1")),
        rate_limit=rng.choice((None, None, None, (5, 20.0))) if servers <= _SMALL else None,
        lists=tuple(_look_of(rng) for _ in range(rng.choice((0, 0, 3)))),
        outage=Outage(rng.uniform(0.0, 30.0), rng.uniform(1.0, 100.0), rng.choice(_OUTAGES))
        if rng.random() < 0.07
        else None,
        cuts=tuple(_cut_of(rng, servers) for _ in range(rng.choice((0, 1, 1, 2, 3)))),
        verify=wait and rng.random() < 0.25,
        rollout=_rollout_of(rng) if wait and servers <= _SMALL and rng.random() < 0.5 else REGARDLESS,
        hosts=rng.choice((10, 2)),
        max_per_second=rng.choice((None, None, 0.5, 5.0, 50.0)) if servers <= _SMALL else None,
        adaptive=rng.random() < 0.7,
    )


#: Seconds by which the clocks of a cloud's nodes are off.
_NODES: Final = ((), (), (-2.0, 0.0, 1.0), (0.0, 2.0))
#: The share of sends that are delivered twice.
TWICE: Final = 0.3
#: How a cloud may say that a task is under way: as Nova does; in words that we do not know; as ECS does, both ways.
BUSY_ANSWERS: Final[Mapping[str, Answer | None]] = {
    "Nova's 409": None,
    "409 in other words": nova_answer(409, "The request conflicts with one that is being processed."),
    "409 without words": Answer(409, b"conflict", from_nova=False),
    "400 Ecs.0100": json_answer(400, {"error": {"code": "Ecs.0100", "message": "status"}}, from_nova=False),
    "501 Ecs.0603": Fault.commands_executing().answer,
}


def twice_of(rng: random.Random, soon: float) -> Fault:
    """Draw a send that is delivered twice.

    Args:
        rng: What is drawn from.
        soon: The most seconds from the first delivery to the second.
    """
    after = rng.choice((0.0, 0.0, rng.uniform(0.0, 1.0), rng.uniform(0.0, soon)))
    if rng.random() < 0.2:
        return Fault(lost=True, applied_after=0.0, again_after=after)
    return Fault.delivered_twice(after, rng.choice(("first", "second", "second")))


def attack_world_of(rng: random.Random, servers: int) -> World:
    """Draw a world of what was tried against the graces, the clocks and the ids, with doubts that are only counted.

    What it assumes of a cloud: `Date` and the log's clock differ by up to 60 s, nodes by up to 3 s besides, or there is
    no `Date`; reads are up to 30 s behind, rows that come late included; a request is delivered, or delivered again,
    within 9 s of its reply (SOFT) or 80 s (HARD, a 504 after more than a second, and cut off by us). No server has
    company whose send is delivered twice, nor another task: the second delivery may then begin what the answer to the
    first denied. No send to a host up to Train is delivered twice: such a host may drop the second reboot, and the log
    says that it succeeded.

    Args:
        rng: What is drawn from.
        servers: How many servers it has.
    """
    reboot_type = rng.choice((RebootType.SOFT, RebootType.HARD))
    apart = rng.choice((0.0, rng.uniform(-APART, APART), rng.choice((5.0, -5.0))))
    nodes = rng.choice(_NODES)
    since = rng.choice((None, None, 0.0, 100.0))
    is_by_date = since is None and rng.random() < 0.5
    lag = rng.choice((0.0, 0.0, rng.uniform(0.0, BEHIND)))
    is_any = rng.random() < 0.5
    log_lag, view_lag = ((0.0, lag), (0.0, lag)) if is_any else (lag, lag)
    request_ids, has_date = rng.choice(tuple(RequestIds)), rng.random() < 0.8
    busy = rng.choice(tuple(BUSY_ANSWERS))
    log_access = rng.choice((*[LogAccess.OPEN] * 9, LogAccess.FORBIDDEN, LogAccess.EMPTY))
    reboot_seconds = rng.choice(((0.3, 0.9), (2.0, 5.0), (20.0, 40.0)))
    soon = LATE if reboot_type is RebootType.HARD else SOON
    kinds = (
        reboot_type,
        f"ids {request_ids}",
        "no Date" if not has_date else "Date and log apart" if apart else "Date and log agree",
        "nodes apart" if nodes else "nodes agree",
        ("reads behind, each by another time" if is_any else "reads behind") if lag else "reads up to date",
        busy,
        f"reboots of {reboot_seconds[0]:g} to {reboot_seconds[1]:g} s",
        "log readable" if log_access is LogAccess.OPEN else "log not readable",
        "since" if since is not None else "no since",
    )
    seed = rng.randrange(2**32)
    fates = tuple(_attack_fate_of(rng, soon, BEHIND - lag) for _ in range(servers))
    is_twice = any(fault is not None and fault.again_after is not None for fate in fates for fault in fate.sends)
    return World(
        seed=seed,
        fates=fates,
        reboot_type=reboot_type,
        wait=rng.random() < 0.9,
        escalate=rng.random() < 0.2,
        since=since,
        max_at_once=20,
        reboot_seconds=reboot_seconds,
        latency=rng.choice((0.0, 0.05, 1.0)),
        log_resolution=rng.choice((1.0, 0.0)),
        log_access=log_access,
        date_skew=apart if is_by_date else 0.0,
        log_skew=0.0 if is_by_date else -max(min(apart, APART - 3.0), 3.0 - APART),
        has_date=has_date,
        node_skews=nodes,
        log_lag=log_lag,
        view_lag=view_lag,
        request_ids=request_ids,
        busy_answer=BUSY_ANSWERS[busy],
        legacy_host=rng.random() < 0.4 and not is_twice,
        max_microversion=rng.choice(("2.96", "2.96", "2.60", "2.40")),
        adaptive=rng.random() < 0.7,
        cuts=tuple(_cut_of(rng, servers) for _ in range(rng.choice((0, 0, 1, 2)))),
        kinds=kinds,
        may_doubt=True,
    )


def _attack_fate_of(rng: random.Random, soon: float, spare: float) -> Fate:
    host = rng.choice((HostFault.REVERTED, *HostFault)) if rng.random() < 0.1 else None
    log_delay = rng.uniform(0.0, spare) if rng.random() < 0.1 else 0.0
    if rng.random() < 0.5:
        sends = tuple(twice_of(rng, soon) if rng.random() < 2 * TWICE else None for _ in range(3))
        return Fate(sends=sends, host=host, log_delay=log_delay)
    if rng.random() < 0.5:
        return Fate(host=host, log_delay=log_delay)
    sends = tuple(rng.choice(_SENDS)(rng, soon, LATE) for _ in range(rng.choice((1, 2))))
    deeds = _deeds_of(rng) if rng.random() < 0.2 else ()
    return Fate(sends=sends, host=host, deeds=deeds, log_delay=log_delay)


def _rollout_of(rng: random.Random) -> Rollout:
    canary, wave, spread = rng.choice((0, 0, 1, 2)), rng.choice((None, None, 1, 3, "34%")), rng.choice(_SPREADS)
    has_waves = bool(canary) or wave is not None or spread == "az"
    return Rollout(
        canary=canary,
        wave=wave,
        pause=rng.choice((0.0, 1.0, 200.0)) if has_waves else 0.0,
        max_down=rng.choice((None, 1, 2, "50%", "budget")),
        max_failures=rng.choice(("100%", "100%", None, 0, 1, 3)),
        max_refused=rng.choice(("100%", "100%", None, 2)),
        spread=spread,
    )


def _fate_of(rng: random.Random, share: float, soon: float, late: float) -> Fate:
    if rng.random() >= share:
        return Fate()
    sends = rng.choice((0, 1, 1, 2, 4))
    looks = rng.choice((0, 0, 0, 1, 2, 4))
    calls = (Call.SHOW, Call.LOG, Call.LOG_ROW)
    return Fate(
        born=rng.choice(_BIRTHS) if rng.random() < 0.1 else {},
        sends=tuple(rng.choice(_SENDS)(rng, soon, late) if rng.random() < 0.9 else None for _ in range(sends)),
        looks=tuple((rng.choice(calls), _look_of(rng)) for _ in range(looks)),
        host=rng.choice(tuple(HostFault)) if rng.random() < 0.1 else None,
        deeds=_deeds_of(rng) if rng.random() < 0.2 else (),
    )


def _look_of(rng: random.Random) -> Fault:
    return rng.choice(_LOOKS)(rng)


def _deeds_of(rng: random.Random) -> tuple[Deed, ...]:
    deeds = []
    for _ in range(rng.choice((1, 1, 3))):
        if rng.random() < 0.3:
            deeds.append(Deed(-rng.uniform(1.0, LEAD), rng.choice((Doing.OWN, Doing.SOFT))))
        else:
            kinds = (Doing.SOFT, Doing.HARD, Doing.SOFT, Doing.HARD, Doing.DELETE, Doing.LOCK, Doing.UNLOCK)
            deeds.append(Deed(rng.uniform(0.0, 40.0), rng.choice(kinds)))
    return tuple(deeds)


def _cut_of(rng: random.Random, servers: int) -> Cut:
    moment = rng.choice(tuple(Moment))
    if moment is Moment.TIME:
        number: float = rng.uniform(0.0, rng.choice((1.0, 30.0, 200.0)))
    else:
        number = rng.randint(1, rng.choice((3, 8, 8 + 2 * servers)))
    return Cut(
        moment=moment,
        number=number,
        way=rng.choice((Way.KILL, Way.KILL, Way.KILL, Way.KILL, Way.CANCEL, Way.STOP)),
        pause=rng.choice((0.0, 0.0, 1.0, 15.0, 100.0, 1000.0)),
        torn=rng.random(),
        wall=rng.choice((0.0, 0.0, 3600.0, -3600.0)),
    )
