"""Measures how good a guest a run is: how late the event loop comes to what others wait for.

A task beside the run sleeps a millisecond at a time, and notes how late it wakes. Every callback of the loop is timed
as well, and the longest is named.
"""

import asyncio
import gc
import logging
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final
from unittest.mock import patch

import bulkrestart
from benchmarks.apart import apart
from benchmarks.contenders import TOKEN
from benchmarks.cpu import AIOHTTP, CONTENDERS
from benchmarks.loopback import PAGE, fleet, serving
from benchmarks.tables import Figure, Section, judged, spread, table
from bulkrestart import Outcome, RestartClient, Token

_AT_ONCE: Final = 500
_SERVERS: Final = 5_000
#: Planned, and not restarted.
_PLANNED: Final = 100_000
_PAGES: Final = 5
#: Seconds to each answer.
_DELAY: Final = 0.05
#: Seconds that the task beside the run sleeps.
_NAP: Final = 0.001


@dataclass(slots=True)
class Lag:
    """How late the loop was.

    Attributes:
        late: Seconds by which each nap took longer.
        longest: Seconds of the longest callback.
        name: What it was.
    """

    late: list[float] = field(default_factory=list)
    longest: float = 0.0
    name: str = ""

    def at(self, share: float) -> float:
        """Give the lateness that such a share of the naps does not exceed."""
        return sorted(self.late)[min(int(share * len(self.late)), len(self.late) - 1)]


#: Seconds of CPU time between two glances at what a callback is at: a timer of real time would interrupt the naps.
_GLANCE: Final = 0.002
#: Where the functions are that a callback is named after.
_PACKAGE: Final = str(Path(bulkrestart.__file__).parent)
_RESTART: Final = f"restarting {_SERVERS:,} servers, {_AT_ONCE} at once"


def run(rounds: int) -> Section:
    """Measure, and write the tables."""
    found: dict[str, list[Lag]] = {}
    with serving(_DELAY, servers=PAGE * _PAGES) as endpoint:
        for number in range(rounds):
            print(f"lag: round {number + 1} of {rounds}", file=sys.stderr)
            for measure in (_idle, _restart, _restart_with_journal, _restart_and_wait, _plan, _list, _aiohttp):
                for name, lag in apart(_within_folder, measure, endpoint).items():
                    found.setdefault(name, []).append(lag)
    rows = []
    for name, lags in found.items():
        late = [spread([lag.at(share) for lag in lags], 1e3, ".1f") for share in (0.5, 0.99, 1.0)]
        longest = max(lags, key=lambda lag: lag.longest)
        rows.append(
            (name, *late, spread([lag.longest for lag in lags], 1e3, ".1f"), longest.name and f"`{longest.name}`")
        )
    busy = found[_RESTART]
    figures = [
        Figure(name="p99, ms", values=[lag.at(0.99) * 1e3 for lag in busy], must=10.0, wanted=5.0, form=".1f"),
        Figure(name="max, ms", values=[lag.at(1.0) * 1e3 for lag in busy], must=50.0, wanted=20.0, form=".1f"),
    ]
    columns = ("", "p50, ms", "p99, ms", "max, ms", "longest callback, ms", "which")
    return Section(text=f"{_RESTART.capitalize()}:\n\n{judged(figures)}\n\n{table(columns, rows)}")


def _within_folder(measure: Callable[[str, Path], Awaitable[dict[str, Lag]]], endpoint: str) -> dict[str, Lag]:
    logging.disable(logging.WARNING)  # a run that is planned and not made says that it stops

    async def main() -> dict[str, Lag]:
        return await measure(endpoint, Path(folder))

    with tempfile.TemporaryDirectory(dir=".") as folder:
        return asyncio.run(main())


async def _idle(endpoint: str, folder: Path) -> dict[str, Lag]:
    async with _watched() as lag:
        await asyncio.sleep(1.0)
    return {"nothing": lag}


async def _restart(endpoint: str, folder: Path) -> dict[str, Lag]:
    ids = fleet(_SERVERS)
    async with _client(endpoint) as client, _watched() as lag:
        report = await client.restart(ids, wait=False)
    assert report.summary == {Outcome.ACCEPTED: _SERVERS}
    return {_RESTART: lag}


async def _restart_with_journal(endpoint: str, folder: Path) -> dict[str, Lag]:
    ids = fleet(_SERVERS)
    async with _client(endpoint) as client, _watched() as lag:
        report = await client.restart(ids, wait=False, journal=folder / "journal")
    assert report.summary == {Outcome.ACCEPTED: _SERVERS}
    return {"the same with a journal": lag}


async def _restart_and_wait(endpoint: str, folder: Path) -> dict[str, Lag]:
    ids = fleet(_SERVERS)
    async with _client(endpoint) as client, _watched() as lag:
        report = await client.restart(ids)
    assert report.summary == {Outcome.COMPLETED: _SERVERS}
    return {"the same, waited for": lag}


async def _plan(endpoint: str, folder: Path) -> dict[str, Lag]:
    ids = fleet(_PLANNED)
    words = f"{_PLANNED:,} ids"
    found = {}
    for kind, journal in (("", None), (" with a journal", folder / "journal")):
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(_client(endpoint, at_once=1))
            async with _watched() as found[f"planning {words}{kind}"]:
                run = await stack.enter_async_context(client.restarting(ids, wait=False, journal=journal))
            if journal is None:
                async with _watched() as found[f"a report of {words}, meanwhile"]:
                    assert len(run.report) == _PLANNED
            async with _watched() as found[f"ending a run of {words}{kind}"]:
                await stack.aclose()
    return found


async def _list(endpoint: str, folder: Path) -> dict[str, Lag]:
    async with _client(endpoint) as client, _watched() as lag:
        count = len([server async for server in client.servers()])
    assert count == PAGE * _PAGES
    return {f"listing {_PAGES} pages of {PAGE:,} servers": lag}


async def _aiohttp(endpoint: str, folder: Path) -> dict[str, Lag]:
    if not CONTENDERS[AIOHTTP].is_installed:
        return {}
    ids = fleet(_SERVERS)
    async with CONTENDERS[AIOHTTP].open(endpoint, _AT_ONCE) as restart, _watched() as lag:
        await restart(ids)
    return {f"{AIOHTTP} alone, {_SERVERS:,} servers, {_AT_ONCE} at once": lag}


def _client(endpoint: str, *, at_once: int = _AT_ONCE) -> RestartClient:
    return RestartClient(endpoint, auth=Token(TOKEN), max_at_once=at_once)


@asynccontextmanager
async def _watched() -> AsyncIterator[Lag]:
    """Note how late the loop is within."""
    lag = Lag()
    loop = asyncio.get_running_loop()

    async def nap() -> None:
        while True:
            due = loop.time() + _NAP
            await asyncio.sleep(_NAP)
            lag.late.append(loop.time() - due)

    napping = asyncio.create_task(nap())
    with _timed(lag):
        # What is done without an await is seen only by a nap that began before it and ends after it.
        await asyncio.sleep(10 * _NAP)
        yield lag
        await asyncio.sleep(10 * _NAP)
    napping.cancel()


@contextmanager
def _timed(lag: Lag) -> Iterator[None]:
    """Time every callback of the loop: its debug mode would do so too, but slows down what it times."""
    call = asyncio.Handle._run
    seen: list[str] = []
    collected = began_collecting = 0.0

    def look(number: int, frame: FrameType | None) -> None:
        seen.append(_name(frame))

    def collect(phase: str, information: dict[str, int]) -> None:
        nonlocal collected, began_collecting
        if phase == "start":
            began_collecting = time.perf_counter()
        else:
            collected += time.perf_counter() - began_collecting

    def timed(handle: asyncio.Handle) -> None:
        nonlocal collected
        collected = 0.0
        seen.clear()
        began = time.perf_counter()
        call(handle)
        taken = time.perf_counter() - began
        if taken > lag.longest:
            names = ["the garbage collector"] if collected > taken / 2 else seen
            lag.longest, lag.name = taken, Counter(names).most_common(1)[0][0] if names else ""

    previous = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, _GLANCE, _GLANCE)
    gc.callbacks.append(collect)
    try:
        with patch.object(asyncio.Handle, "_run", timed):
            yield
    finally:
        gc.callbacks.remove(collect)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, previous)


def _name(frame: FrameType | None) -> str:
    """Name the innermost function of ours that runs; of a library's if none does."""
    names = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            return frame.f_code.co_qualname
        names.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return names[0] if names else ""
