"""Measures how long a fleet takes, over the ideal: servers x time to an answer / requests at once."""

import asyncio
import sys
import time
from typing import Final

from benchmarks.apart import apart
from benchmarks.cpu import AIOHTTP, CONTENDERS, OWN, STREAMS
from benchmarks.loopback import fleet, serving
from benchmarks.tables import Figure, Section, judged, spread, table

_SERVERS: Final = 5_000
_AT_ONCE: Final = 100
#: Seconds to each answer.
_DELAY: Final = 0.05
_IDEAL: Final = _SERVERS * _DELAY / _AT_ONCE


def run(rounds: int) -> Section:
    """Measure, and write the tables."""
    cases = [
        (name, is_warm)
        for name in (OWN, AIOHTTP, STREAMS)
        if CONTENDERS[name].is_installed
        for is_warm in (True, False)
    ]
    taken: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
    with serving(_DELAY) as endpoint:
        for number in range(rounds):
            print(f"ideal: round {number + 1} of {rounds}", file=sys.stderr)
            for name, is_warm in cases if number % 2 == 0 else cases[::-1]:
                taken[name, is_warm].append(apart(_measure, name, endpoint, is_warm=is_warm))
    words = {True: "connections open", False: "from a new client"}
    rows = [
        (f"{name}, {words[is_warm]}", spread(seconds), spread(seconds, 1 / _IDEAL, ".3f"))
        for (name, is_warm), seconds in taken.items()
    ]
    figures = [
        Figure(
            name=f"time over the ideal, {words[is_warm]}",
            values=[seconds / _IDEAL for seconds in taken[OWN, is_warm]],
            must=1.10,
            wanted=1.03,
            form=".3f",
        )
        for is_warm in (True, False)
    ]
    case = f"{_SERVERS:,} servers, {_AT_ONCE} at once, answers of {_DELAY * 1000:.0f} ms: ideally {_IDEAL:.2f} s."
    return Section(text=f"{judged(figures)}\n\n{case}\n\n{table(('', 'seconds', 'over the ideal'), rows)}")


def _measure(name: str, endpoint: str, *, is_warm: bool) -> float:
    async def main() -> float:
        async with CONTENDERS[name].open(endpoint, _AT_ONCE) as restart:
            if is_warm:
                await restart(fleet(_AT_ONCE))
            servers = fleet(_SERVERS)
            began = time.perf_counter()
            await restart(servers)
            return time.perf_counter() - began

    return asyncio.run(main())
