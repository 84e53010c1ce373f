"""Measures what each of our own layers costs a restart: each alone, with the real thing and nothing around it."""

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx

from benchmarks import cpu
from benchmarks.apart import apart
from benchmarks.contenders import TOKEN
from benchmarks.loopback import fleet, serving
from benchmarks.tables import Section, spread, table
from bulkrestart import Outcome, RebootType, Token
from bulkrestart.cloud.body import EMPTY
from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.network import tls_context
from bulkrestart.cloud.sender import LaneSender
from bulkrestart.cloud.transport import LaneTransport
from bulkrestart.core.calibration import ActionLogCalibration
from bulkrestart.core.checkpoint import Checkpoint, JournalHeader, LogFacts, RunIdentity
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.decide import decide, hold_for
from bulkrestart.core.decision import Accept, End
from bulkrestart.core.endpoint import Endpoint
from bulkrestart.core.faults import Fault
from bulkrestart.core.observation import Answer
from bulkrestart.core.options import Options
from bulkrestart.core.progress import Order, Progress
from bulkrestart.core.report import Ledger
from bulkrestart.core.stall import RequestKind
from bulkrestart.core.target import Target
from bulkrestart.engine.limiter import RequestLimiter, RunLimiter
from bulkrestart.journal import Journal
from bulkrestart.limits.admission import Admission
from bulkrestart.limits.permit import Priority
from bulkrestart.run.crew import work_through
from bulkrestart.run.recorder import Recorder
from bulkrestart.run.shields import Shields
from bulkrestart.run.sources import Sources
from bulkrestart.run.submit import Submitter

_SERVERS: Final = 2_000
_AT_ONCE: Final = 10
#: Records that one commit takes: about as many as are sent at once.
_BATCH: Final = 100

_ACCEPTED: Final = Answer(202, Fault(request_id="req-00000001-0000-4000-8000-000000000000"))
_ORDER: Final = Order(reboot_type=RebootType.SOFT)
_END: Final = End(outcome=Outcome.ACCEPTED)
_HEADERS: Final = {
    "Date": "Mon, 23 Nov 2026 18:00:00 GMT",
    "Content-Length": "0",
    "x-compute-request-id": "req-00000001-0000-4000-8000-000000000000",
}


class _Accepting(httpx.AsyncBaseTransport):
    """Answers at once, over no network."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(202, headers=_HEADERS, stream=EMPTY)


def run(rounds: int) -> Section:
    """Measure, and write the table."""
    layers: dict[str, Callable[[str], Awaitable[float]]] = {
        "decide": _decide,
        "ledger: entry, send, answer and result": _ledger,
        "limiter: one permit": _limiter,
        "shield": _shield,
        "edge: request written, answer read, without a transport": _edge,
        "transport: an exchange over a lane, alone": _transport,
        f"the whole engine, without a journal, {_AT_ONCE} at once": _whole,
        "only with a journal: two checkpoints, and their commits": _journal,
        "only who is parked: tenacity": _tenacity,
    }
    taken: dict[str, list[float]] = {name: [] for name in layers}
    with serving(0.0) as endpoint:
        for number in range(rounds):
            print(f"layers: round {number + 1} of {rounds}", file=sys.stderr)
            for name, layer in layers.items():
                taken[name].append(apart(_measure, layer, endpoint) / _SERVERS)
    rows = [(name, spread(seconds, 1e6, ".1f")) for name, seconds in taken.items()]
    return Section(text=table(("", "CPU microseconds per restart"), rows))


def _measure(layer: Callable[[str], Awaitable[float]], endpoint: str) -> float:
    """Run a layer in this process; give the CPU seconds that it took for all servers."""

    async def main() -> float:
        return await layer(endpoint)

    return asyncio.run(main())


async def _decide(endpoint: str) -> float:
    progress = _progress("server")
    began = time.process_time()
    for _ in range(_SERVERS):
        decide(_ACCEPTED, progress)
        hold_for(_ACCEPTED)
    return time.process_time() - began


async def _ledger(endpoint: str) -> float:
    ids = fleet(_SERVERS)
    ledger = Ledger(ids, RebootType.SOFT)
    decision = Accept(request_id=_ACCEPTED.fault.request_id)
    began = time.process_time()
    for server_id in ids:
        progress = _progress(server_id)
        ledger.begin(progress)
        progress.sends.leave(1.0, (1.0, 2.0))
        progress.answer(2.0, _ACCEPTED, decision)
        ledger.close(progress.result(2.0, _END))
    return time.process_time() - began


async def _limiter(endpoint: str) -> float:
    limiter = _limiter_of(_AT_ONCE)

    async def pass_through(server_id: str) -> None:
        async with limiter.permit(Priority.SEND, probe=_no_probe):
            pass
        limiter.record_answer(RequestKind.SEND, _ACCEPTED, server_id, 0.0)

    return await _through(pass_through)


async def _shield(endpoint: str) -> float:
    shields = Shields()
    began = time.process_time()
    for _ in range(_SERVERS):
        with shields.up():
            pass
    return time.process_time() - began


async def _edge(endpoint: str) -> float:
    compute = _compute(endpoint, _Accepting())

    async def reboot(server_id: str) -> None:
        await compute.reboot(server_id, RebootType.SOFT)

    return await _through(reboot)


async def _transport(endpoint: str) -> float:
    lanes = LaneTransport(tls_context(), max_at_once=_AT_ONCE)
    request = httpx.Request("POST", f"{endpoint}/servers/server/action", headers={"X-Auth-Token": TOKEN}, json={})

    async def exchange(server_id: str) -> None:
        await lanes.handle_async_request(request)

    try:
        await work_through(fleet(_AT_ONCE), exchange, lanes=_AT_ONCE)
        return await _through(exchange)
    finally:
        await lanes.aclose()


async def _whole(endpoint: str) -> float:
    async with cpu.CONTENDERS[cpu.OWN].open(endpoint, _AT_ONCE) as restart:
        await restart(fleet(_AT_ONCE))
        began = time.process_time()
        await restart(fleet(_SERVERS))
        return time.process_time() - began


async def _journal(endpoint: str) -> float:
    ids = fleet(_SERVERS)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        journal = Journal.open(Path(folder) / "journal")
        target = Target(endpoint=endpoint, project_id=endpoint.rsplit("/", 1)[1])
        identity = RunIdentity(target=target, reboot_type=RebootType.SOFT)
        journal.begin(JournalHeader(identity=identity, began=0.0, facts=LogFacts()), ids)
        began = time.process_time()
        for first in range(0, _SERVERS, _BATCH):
            progresses = [_progress(server_id) for server_id in ids[first : first + _BATCH]]
            for end in (None, _END):
                journal.write(journal.dump(Checkpoint.of(progress, 1.0, end) for progress in progresses), 1.0)
        taken = time.process_time() - began
        journal.close()
    return taken


async def _tenacity(endpoint: str) -> float:
    clock = CloudClock()
    compute, limiter = _compute(endpoint, _Accepting()), _limiter_of(_AT_ONCE)
    submitter = Submitter(
        compute=compute,
        limiter=limiter,
        sources=Sources(compute, limiter, 1),
        shields=Shields(),
        clock=clock,
        options=Options(
            reboot_type=RebootType.SOFT,
            wait=False,
            max_attempts=5,
            request_timeout=60.0,
            server_timeout=900.0,
            wait_timeout=600.0,
            escalate=False,
            start_stopped=False,
            max_at_once=_AT_ONCE,
        ),
        calibration=ActionLogCalibration(clock, LogFacts()),
        recorder=Recorder(),
        rng=random.Random(),
    )
    progress, decision = _progress("server"), Accept()

    async def pursue(server_id: str) -> None:
        await submitter.pursue(progress, decision)

    return await _through(pursue)


async def _through(work: Callable[[str], Awaitable[None]]) -> float:
    ids = fleet(_SERVERS)
    began = time.process_time()
    await work_through(ids, work, lanes=_AT_ONCE)
    return time.process_time() - began


def _progress(server_id: str) -> Progress:
    return Progress(server_id=server_id, order=_ORDER, reboot_type=_ORDER.reboot_type)


def _limiter_of(at_once: int) -> RunLimiter:
    return RunLimiter(RequestLimiter(Admission(at_once)), None)


async def _no_probe() -> None:
    """Stand for the look at a cloud that is in trouble."""


def _compute(endpoint: str, transport: httpx.AsyncBaseTransport) -> Compute:
    return Compute(Endpoint.parse(endpoint), LaneSender(transport), Token(TOKEN), CloudClock(), 60.0)
