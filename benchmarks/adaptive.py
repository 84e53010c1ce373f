"""Measures what `adaptive="latency"` makes of sends, beside a fixed limit: how many a second, and how late they are.

On the real Nova of tests/nova, which works on few requests at once, and on servers that bear whatever comes. The two
take turns in one run, in pairs, because the speed of a machine drifts; ratios are taken within a pair.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple
from unittest.mock import patch
from uuid import UUID

from benchmarks.loopback import serving
from benchmarks.restart import spread
from bulkrestart import Outcome, RestartClient, Token
from bulkrestart.cloud.compute import Compute
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Observation
from bulkrestart.simulator import Cloud, LoopbackCloud

_UP: Final = Path(__file__).parents[1] / "tests" / "nova" / "harness" / "up.py"
_AT_ONCE: Final = 100


class Kind(NamedTuple):
    """A contender."""

    name: str
    adaptive: bool | Literal["latency"]


_KINDS: Final = (Kind("fixed", False), Kind('adaptive="latency"', "latency"))


class Place(NamedTuple):
    """Where servers are restarted; only a cloud knows in which state they are."""

    endpoint: str
    token: str
    ids: Sequence[str]
    is_cloud: bool


class Taken(NamedTuple):
    """What a restart took: sends a second, and the seconds that 95 of 100 sends took at most."""

    rate: float
    late: float


class TimedCompute(Compute):
    """Notes when each send leaves, and when its answer is in."""

    sends: Final[list[tuple[float, float]]] = []

    async def reboot(self, server_id: str, reboot_type: RebootType) -> Observation:
        """Send."""
        began = time.perf_counter()
        seen = await super().reboot(server_id, reboot_type)
        self.sends.append((began, time.perf_counter()))
        return seen


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of restarts in each place (default: 5)")
    parser.add_argument("--servers", type=int, default=5000, help="servers in a restart, but for Nova (default: 5000)")
    parser.add_argument("--nova", type=int, default=0, metavar="N", help="also restart N servers of a real Nova")
    options = parser.parse_args()
    ids = [str(UUID(int=number)) for number in range(options.servers)]
    places: dict[str, AbstractContextManager[Place]] = {
        "a bare server, answers at once": _bare(0.0, ids),
        "a bare server, answers after 50 ms": _bare(0.05, ids),
        "the embedded cloud": _simulated(options.servers // 2),
    }
    if options.nova:
        places["Nova"] = _nova(options.nova)
    for name, opening in places.items():
        with opening as place, patch("bulkrestart.client.Compute", TimedCompute):
            rounds = [asyncio.run(_measure(place, number)) for number in range(options.rounds)]
        print(f"\n{name}: {len(place.ids)} servers, at most {_AT_ONCE} at once, {options.rounds} rounds\n")
        _print_table(rounds)


async def _measure(place: Place, number: int) -> dict[Kind, Taken]:
    print(f"round {number + 1}", file=sys.stderr)
    return {kind: await _restart(place, kind) for kind in (_KINDS if number % 2 == 0 else _KINDS[::-1])}


async def _restart(place: Place, kind: Kind) -> Taken:
    TimedCompute.sends.clear()
    async with _client(place, kind) as client:
        report = await client.restart(place.ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: len(place.ids)}, report.summary
        sends = sorted(TimedCompute.sends)
        latencies = sorted(answered - sent for sent, answered in sends)
        if place.is_cloud:
            # A server that still reboots would refuse the next one.
            while [server async for server in client.servers() if server.task_state]:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(1.0)
    took = max(answered for _, answered in sends) - sends[0][0]
    return Taken(len(sends) / took, latencies[len(latencies) * 95 // 100])


@asynccontextmanager
async def _client(place: Place, kind: Kind) -> AsyncIterator[RestartClient]:
    token = Token(place.token)
    async with RestartClient(place.endpoint, auth=token, max_at_once=_AT_ONCE, adaptive=kind.adaptive) as client:
        yield client


@contextmanager
def _bare(delay: float, ids: Sequence[str]) -> Iterator[Place]:
    with serving(delay) as endpoint:
        yield Place(endpoint, "token", ids, is_cloud=False)


@contextmanager
def _simulated(servers: int) -> Iterator[Place]:
    cloud = Cloud(servers, reboot_seconds=(0.0, 0.0))
    with LoopbackCloud(cloud) as served:
        yield Place(served.endpoint, cloud.token, cloud.ids, is_cloud=True)


@contextmanager
def _nova(servers: int) -> Iterator[Place]:
    command = [sys.executable, str(_UP), "--servers", str(servers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        yield Place(facts["endpoint"], facts["token"], facts["ids"], is_cloud=True)


def _print_table(rounds: Sequence[dict[Kind, Taken]]) -> None:
    print("| | sends a second | 95 % of the sends take, in ms, at most |")
    print("|---|---:|---:|")
    for kind in _KINDS:
        rate = spread([taken[kind].rate for taken in rounds], 1.0, ".1f")
        late = spread([taken[kind].late for taken in rounds], 1e3, ".0f")
        print(f"| {kind.name} | {rate} | {late} |")
    fixed, latency = _KINDS
    rates = spread([taken[latency].rate / taken[fixed].rate for taken in rounds], 1.0, ".2f")
    lates = spread([taken[latency].late / taken[fixed].late for taken in rounds], 1.0, ".2f")
    print(f"| ratio within a round | {rates} | {lates} |")


if __name__ == "__main__":
    main()
