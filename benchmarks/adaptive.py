"""Measures what `adaptive="latency"` makes of sends, beside a fixed limit: how many a second, and how late they are.

On servers that bear what comes; and, by `python -m benchmarks.adaptive`, on the real Nova of tests/nova, which bears
few requests at once, and has to be installed first (`make test-nova`).
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple
from unittest.mock import patch

from benchmarks.loopback import fleet, serving
from benchmarks.tables import Figure, Section, judged, ratios, spread, table
from bulkrestart import Outcome, RestartClient, Token
from bulkrestart.cloud.compute import Compute
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Observation
from bulkrestart.simulator import Cloud, LoopbackCloud

_UP: Final = Path(__file__).parents[1] / "tests" / "nova" / "harness" / "up.py"
_AT_ONCE: Final = 100
_SERVERS: Final = 4_000
_NOVA: Final = "Nova"


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

    async def reboot(
        self, server_id: str, reboot_type: RebootType, *, veto: Callable[[], str | None] | None = None
    ) -> Observation:
        """Send."""
        began = time.perf_counter()
        seen = await super().reboot(server_id, reboot_type, veto=veto)
        self.sends.append((began, time.perf_counter()))
        return seen


def run(rounds: int) -> Section:
    """Measure, and write the tables."""
    ids = fleet(_SERVERS)
    return _compare(
        {
            "a bare server that answers at once": _bare(0.0, ids),
            "a bare server that answers after 50 ms": _bare(0.05, ids),
            "the embedded cloud": _simulated(_SERVERS),
        },
        rounds,
    )


def main() -> None:
    """Measure on the real Nova, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptive", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of restarts (default: 3)")
    parser.add_argument("--nova", type=int, default=150, metavar="N", help="servers (default: 150)")
    options = parser.parse_args()
    print(_compare({_NOVA: _nova(options.nova)}, options.rounds).text)


def _compare(places: Mapping[str, AbstractContextManager[Place]], rounds: int) -> Section:
    figures: list[Figure] = []
    rows: list[tuple[str, str, str]] = []
    fixed, latency = _KINDS
    for name, opening in places.items():
        with opening as place, patch("bulkrestart.client.Compute", TimedCompute):
            taken = [asyncio.run(_measure(place, number)) for number in range(rounds)]
        rates = {kind: [one[kind].rate for one in taken] for kind in _KINDS}
        lates = {kind: [one[kind].late for one in taken] for kind in _KINDS}
        case = f"{name}, {len(place.ids):,} servers"
        rows += [
            (f"{case}: {kind.name}", spread(rates[kind], form=".1f"), spread(lates[kind], 1e3, ".0f"))
            for kind in _KINDS
        ]
        rate, late = ratios(rates[latency], rates[fixed]), ratios(lates[latency], lates[fixed])
        rows.append((f"{case}: ratio within a round", spread(rate), spread(late)))
        if place.is_cloud:
            figures.append(
                Figure(name=f"sends a second over those of a fixed limit, {name}", values=rate, must=0.9, is_most=False)
            )
            # A quick API is to be as quick as ever; a slow one is what the limit is for.
            most = 0.5 if name == _NOVA else 1.0
            figures.append(Figure(name=f"95 % latency over that of a fixed limit, {name}", values=late, must=most))
    head = ("", "sends a second", "95 % of the sends take, in ms, at most")
    return Section(text=f"{judged(figures)}\n\n{table(head, rows)}")


async def _measure(place: Place, number: int) -> dict[Kind, Taken]:
    print(f"adaptive: round {number + 1}", file=sys.stderr)
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


if __name__ == "__main__":
    main()
