"""Measures what a journal costs: seconds and CPU seconds of a restart with one, over the same without.

Both restart the same servers over one open client, in turns, in a fresh process for each round; the order changes from
round to round. The journal is on the disk that the folder is on, where each commit waits for the disk (fsync).
"""

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

from benchmarks.loopback import serving
from benchmarks.restart import spread
from bulkrestart import Outcome, RestartClient, Token

_KINDS: Final = ("without", "with")


class Taken(NamedTuple):
    """What a restart took, in seconds."""

    time: float
    cpu: float


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each figure is taken (default: 7)")
    parser.add_argument("--servers", type=int, default=2000, help="servers in a restart (default: 2000)")
    parser.add_argument("--at-once", type=int, default=100, help="requests at once (default: 100)")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds to each answer (default: 0.05)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the journal is (default: here)")
    options = parser.parse_args()
    rounds: list[dict[str, Taken]] = []
    with serving(options.delay) as endpoint, tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            kinds = _KINDS if number % 2 == 0 else _KINDS[::-1]
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                path = str(Path(folder) / str(number))
                taken = process.submit(measure, endpoint, path, options.servers, options.at_once, kinds).result()
                rounds.append(taken)
    print(f"{options.servers} servers, {options.at_once} at once, answers of {options.delay * 1000:.0f} ms\n")
    print("| | seconds | CPU microseconds per restart |")
    print("|---|---:|---:|")
    for kind in _KINDS:
        seconds = spread([taken[kind].time for taken in rounds], 1.0, ".2f")
        cpu = spread([taken[kind].cpu for taken in rounds], 1e6 / options.servers, ".0f")
        print(f"| {kind} a journal | {seconds} | {cpu} |")
    ratios = [spread([taken["with"][at] / taken["without"][at] for taken in rounds], 1.0, ".2f") for at in (0, 1)]
    print(f"| ratio within a round | {ratios[0]} | {ratios[1]} |")


def measure(endpoint: str, path: str, servers: int, at_once: int, kinds: Sequence[str]) -> dict[str, Taken]:
    """Restart the servers once for each kind, once the connections are open."""
    ids = [str(UUID(int=number)) for number in range(servers)]

    async def run() -> dict[str, Taken]:
        taken: dict[str, Taken] = {}
        async with RestartClient(endpoint, auth=Token("token"), max_at_once=at_once) as client:
            await client.restart(ids[: 2 * at_once], wait=False)
            for kind in kinds:
                began, cpu_began = time.perf_counter(), time.process_time()
                report = await client.restart(ids, wait=False, journal=path if kind == "with" else None)
                taken[kind] = Taken(time.perf_counter() - began, time.process_time() - cpu_began)
                assert report.summary == {Outcome.ACCEPTED: servers}
        return taken

    return asyncio.run(run())


if __name__ == "__main__":
    main()
