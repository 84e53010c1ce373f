"""Measures the CPU time that a client spends on one restart, from 10 to 1,000 requests at once.

Every figure comes from a fresh process, and the contenders take turns: the speed of a machine drifts, so only figures
of one round compare, and ratios are taken within a round.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from statistics import median
from typing import Final

from benchmarks import contenders, vendors
from benchmarks.apart import apart
from benchmarks.contenders import Open
from benchmarks.loopback import fleet, serving
from benchmarks.plot import draw
from benchmarks.tables import Figure, Section, judged, ratios, spread, table

LEVELS: Final = (10, 100, 500, 1_000)
#: Seconds to each answer: at once, and as a cloud does.
AT_ONCE: Final = 0.0
SLOW: Final = 0.05


class Pace(StrEnum):
    """How quick a contender is, and so of how many restarts a figure of it is the mean."""

    FAST = "fast"
    #: About a millisecond.
    SLOW = "slow"
    #: Over httpx's own pool: up to 20 ms where it is wide.
    POOLED = "pooled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to restart servers.

    Attributes:
        open: Opens it.
        pace: How quick it is.
        package: The package that it needs, of those that may be missing; None if none.
    """

    open: Open
    pace: Pace = Pace.FAST
    package: str | None = None

    @property
    def is_installed(self) -> bool:
        """What it needs is there."""
        return self.package is None or find_spec(self.package) is not None


OWN: Final = "RestartClient"
LENT: Final = "RestartClient, stock httpx lent"
AIOHTTP: Final = "aiohttp"
WIDE: Final = "httpx, a wide pool"
DEFAULT: Final = "httpx, default limits"
KEYSTONEAUTH: Final = "keystoneauth1 in threads"
OPENSTACKSDK: Final = "openstacksdk in threads"
HUAWEICLOUDSDK: Final = "huaweicloudsdkecs in threads"
STREAMS: Final = "asyncio streams by hand"

CONTENDERS: Final = {
    OWN: Contender(open=contenders.own),
    LENT: Contender(open=contenders.lent, pace=Pace.POOLED),
    AIOHTTP: Contender(open=contenders.raw_aiohttp, package="aiohttp"),
    WIDE: Contender(open=contenders.stock_wide, pace=Pace.POOLED),
    DEFAULT: Contender(open=contenders.stock_default, pace=Pace.POOLED),
    KEYSTONEAUTH: Contender(open=vendors.keystoneauth, pace=Pace.SLOW, package="keystoneauth1"),
    OPENSTACKSDK: Contender(open=vendors.openstacksdk, pace=Pace.SLOW, package="openstack"),
    HUAWEICLOUDSDK: Contender(open=vendors.huaweicloudsdk, pace=Pace.SLOW, package="huaweicloudsdkecs"),
    STREAMS: Contender(open=contenders.streams),
}


@dataclass(slots=True)
class Comparison:
    """CPU seconds per restart, one for each round, by contender and requests at once.

    Attributes:
        levels: The numbers of requests at once.
        times: The seconds.
        counts: Of how many restarts each is the mean.
    """

    levels: Sequence[int]
    times: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    counts: dict[tuple[str, int], int] = field(default_factory=dict)

    def of(self, name: str, at_once: int) -> list[float]:
        """Give what was measured; nothing if nothing was."""
        return self.times.get((name, at_once), [])

    def ratio(self, name: str, at_once: int, base: str) -> list[float]:
        """Give the ratio to another contender in each round."""
        return ratios(self.of(name, at_once), self.of(base, at_once))

    def costs(self) -> str:
        """Write the table of CPU microseconds."""
        return self._table(
            lambda name, at_once: (
                f"{spread(self.of(name, at_once), 1e6, '.0f')} "
                f"[{len(self.of(name, at_once))} x {self.counts[name, at_once]}]"
            )
        )

    def ratios(self, base: str) -> str:
        """Write the table of ratios to one of them."""
        return self._table(lambda name, at_once: spread(self.ratio(name, at_once, base)))

    def _table(self, cell: Callable[[str, int], str]) -> str:
        rows = [
            (name, *(cell(name, at_once) if self.of(name, at_once) else "" for at_once in self.levels))
            for name in dict.fromkeys(name for name, _ in self.times)
        ]
        return table(("", *(f"{at_once:,} at once" for at_once in self.levels)), rows)


def run(rounds: int) -> Section:
    """Measure all, and write the tables and the picture."""
    present = [name for name, each in CONTENDERS.items() if each.is_installed]
    quick = compare(present, LEVELS, AT_ONCE, rounds)
    few = [name for name in (OWN, AIOHTTP, STREAMS) if name in present]
    slow = compare(few, LEVELS, SLOW, rounds)
    pools = compare([name for name in (OWN, AIOHTTP, LENT, WIDE, DEFAULT) if name in present], (100,), SLOW, rounds)
    texts = [judged(_figures(quick, slow, pools))]
    for found, words in (
        (quick, "Answers at once"),
        (slow, "Answers of 50 ms"),
        (pools, "Answers of 50 ms, over the pools of httpx"),
    ):
        texts.append(f"{words}; CPU microseconds per restart, in brackets rounds x restarts:\n\n{found.costs()}")
        if AIOHTTP in present:
            texts.append(f"The same as a ratio to {AIOHTTP} in the same round:\n\n{found.ratios(AIOHTTP)}")
    texts += [f"Not installed, and so not measured: {name}." for name in CONTENDERS if name not in present]
    points = {
        name: [(at_once, 1e6 * median(times)) for at_once in LEVELS if (times := quick.of(name, at_once))]
        for name in present
    }
    return Section(text="\n\n".join(texts), drawing=draw(points))


def compare(
    names: Sequence[str], levels: Sequence[int], delay: float, rounds: int, count: int | None = None
) -> Comparison:
    """Let contenders take turns.

    Args:
        names: Who.
        levels: Numbers of requests at once.
        delay: Seconds to each answer.
        rounds: How often each figure is taken.
        count: Of how many restarts a figure is the mean; None for as many as each is quick enough for.
    """
    found = Comparison(levels)
    for number in range(rounds):
        for at_once in levels:
            print(f"cpu: round {number + 1} of {rounds}, {at_once} at once, {delay:g} s", file=sys.stderr)
            with serving(delay) as endpoint:
                for name in names if number % 2 == 0 else names[::-1]:
                    is_pooled = CONTENDERS[name].pace is Pace.POOLED
                    # A wide pool takes half a minute: once is enough to see it.
                    is_wide = is_pooled and at_once >= 500
                    if is_wide and number > 0:
                        continue
                    restarts = count or _count(CONTENDERS[name].pace, at_once, delay)
                    taken = apart(measure, name, endpoint, at_once, restarts, warm=not is_wide)
                    found.times.setdefault((name, at_once), []).append(taken / restarts)
                    found.counts[name, at_once] = restarts
    return found


def measure(name: str, endpoint: str, at_once: int, count: int, *, warm: bool = True) -> float:
    """Restart so many servers in this process, and give the seconds of CPU time that it took.

    Args:
        name: The contender.
        endpoint: Where.
        at_once: Requests at once.
        count: Restarts.
        warm: Open the connections first, which is not counted in the CPU time then.
    """
    ids = fleet(count)

    async def main() -> float:
        async with CONTENDERS[name].open(endpoint, at_once) as restart:
            if warm:
                await restart(fleet(at_once))
            began = time.process_time()
            await restart(ids)
            return time.process_time() - began

    return asyncio.run(main())


def _count(pace: Pace, at_once: int, delay: float) -> int:
    match pace:
        case Pace.FAST:
            # Ten at once get no more than 200 answers a second where each takes 50 ms.
            return 400 if delay and at_once < 100 else 2_000
        case Pace.SLOW:
            return max(400, at_once)
        case Pace.POOLED:
            return max(200, at_once)


def _figures(quick: Comparison, slow: Comparison, pools: Comparison) -> list[Figure]:
    figures = [
        Figure(
            name=f"CPU per restart over {AIOHTTP}'s, {words}, {at_once} at once",
            values=found.ratio(OWN, at_once, AIOHTTP),
            must=2.5,
            wanted=1.5,
        )
        for found, words in ((quick, "answers at once"), (slow, "answers of 50 ms"))
        for at_once in (10, 100, 500)
    ]
    growth = ratios(quick.of(OWN, 1_000), quick.of(OWN, 10))
    figures.append(Figure(name="CPU per restart at 1,000 at once over that at 10", values=growth, must=1.3, wanted=1.1))
    for found, words in ((quick, "answers at once"), (pools, "answers of 50 ms")):
        for name, must, wanted in ((WIDE, 20.0, 30.0), (DEFAULT, 6.0, 10.0)):
            figures.append(_cheaper(name, found, f"{words}, 100 at once", must, wanted))
    in_threads = (KEYSTONEAUTH, OPENSTACKSDK, HUAWEICLOUDSDK)
    return figures + [_cheaper(name, quick, "answers at once, 100 at once", 3.0, 8.0) for name in in_threads]


def _cheaper(name: str, found: Comparison, words: str, must: float, wanted: float) -> Figure:
    return Figure(
        name=f"times cheaper than {name}, {words}",
        values=found.ratio(name, 100, OWN),
        must=must,
        wanted=wanted,
        form=".1f",
        is_most=False,
    )
