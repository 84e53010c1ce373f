"""Measures what a journal costs: seconds and CPU seconds of a restart with one, over the same without.

Both restart the same servers over one open client, in turns, in a fresh process for each round; the order changes from
round to round. The journal is on the disk of the working directory, where each commit waits for the disk (fsync).
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.apart import apart
from benchmarks.contenders import TOKEN
from benchmarks.loopback import fleet, serving
from benchmarks.tables import Figure, Section, judged, spread, table
from bulkrestart import Outcome, RestartClient, Token

_KINDS: Final = ("without", "with")
_SERVERS: Final = 2_000
_AT_ONCE: Final = 100
#: Seconds to each answer.
_DELAY: Final = 0.05


class Taken(NamedTuple):
    """What a restart took, in seconds."""

    time: float
    cpu: float


def run(rounds: int) -> Section:
    """Measure, and write the tables."""
    taken: list[dict[str, Taken]] = []
    with serving(_DELAY) as endpoint, tempfile.TemporaryDirectory(dir=".") as folder:
        for number in range(rounds):
            print(f"journal: round {number + 1} of {rounds}", file=sys.stderr)
            kinds = _KINDS if number % 2 == 0 else _KINDS[::-1]
            taken.append(apart(_measure, endpoint, str(Path(folder) / str(number)), kinds))
    rows = []
    for kind in _KINDS:
        seconds = spread([each[kind].time for each in taken])
        cpu = spread([each[kind].cpu for each in taken], 1e6 / _SERVERS, ".0f")
        rows.append((f"{kind} a journal", seconds, cpu))
    times, cpus = ([each["with"][at] / each["without"][at] for each in taken] for at in (0, 1))
    rows.append(("ratio within a round", spread(times), spread(cpus)))
    figure = Figure(name="time with a journal over that without", values=times, must=1.15)
    case = f"{_SERVERS:,} servers, {_AT_ONCE} at once, answers of {_DELAY * 1000:.0f} ms:"
    columns = ("", "seconds", "CPU microseconds per restart")
    return Section(text=f"{judged([figure])}\n\n{case}\n\n{table(columns, rows)}")


def _measure(endpoint: str, path: str, kinds: Sequence[str]) -> dict[str, Taken]:
    """Restart the servers once for each kind, once the connections are open."""
    ids = fleet(_SERVERS)

    async def main() -> dict[str, Taken]:
        taken: dict[str, Taken] = {}
        async with RestartClient(endpoint, auth=Token(TOKEN), max_at_once=_AT_ONCE) as client:
            await client.restart(ids[: 2 * _AT_ONCE], wait=False)
            for kind in kinds:
                began, cpu_began = time.perf_counter(), time.process_time()
                report = await client.restart(ids, wait=False, journal=path if kind == "with" else None)
                taken[kind] = Taken(time.perf_counter() - began, time.process_time() - cpu_began)
                assert report.summary == {Outcome.ACCEPTED: len(ids)}
        return taken

    return asyncio.run(main())
