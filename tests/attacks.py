"""Plays the attacks on a run by the thousand: `python -m tests.attacks`, or one part: `python -m tests.attacks lags`.

All but the last part are worlds on virtual time (`tests.worlds`); the last one stops real processes (`tests.stops`).
The exit status is 1 if a server was rebooted twice by us, was lost, or was reported falsely. A doubt breaks no promise;
its share is told for each kind of world. A world that broke a promise is played again by its number:
`python -m tests.attacks lags --number 7`, with the same share and seed.
"""

import argparse
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import cycle, product
from math import ceil
from typing import Final

from bulkrestart import Outcome, RebootType
from bulkrestart.simulator import Fault, HostFault, RequestIds
from tests.stops import stop_processes
from tests.worlds import (
    APART,
    BEHIND,
    BUSY_ANSWERS,
    LATE,
    SOON,
    TWICE,
    Account,
    Fate,
    World,
    attack_world_of,
    play,
    twice_of,
)

#: Servers in a world of the first part.
_FLEET: Final = 100
#: How many servers a drawn world has.
_SIZES: Final = (1, 3, 12, 40)
#: Worlds whose broken promises are shown, and promises of each.
_WORLDS_SHOWN: Final = 10
_SHOWN: Final = 3
_SHORT_AND_LONG: Final = (0.3, 5.0)
REBOOTS: Final = ((0.3, 0.9), (2.0, 5.0), (20.0, 40.0))
#: How the ids and `Date` may be kept from us, and by how many seconds `Date` is ahead of the log.
FACES: Final[Mapping[str, tuple[RequestIds, bool, float]]] = {
    "ids shown": (RequestIds.SHOWN, True, 0.0),
    "ids hidden, Date 5 s ahead": (RequestIds.HIDDEN, True, 5.0),
    "ids replaced": (RequestIds.REPLACED, True, 0.0),
    "ids hidden, no Date": (RequestIds.HIDDEN, False, 0.0),
}


def duplicates(servers: int, seed: int = 0, *, fleet: int = _FLEET) -> Iterator[World]:
    """Give worlds in which 30 % of all POSTs are delivered twice, and clocks are off by up to a minute either way."""
    kinds = cycle(product(REBOOTS, RequestIds, RebootType))
    number = ceil(servers / fleet)
    for index, (reboot_seconds, request_ids, reboot_type) in zip(range(number), kinds, strict=False):
        rng = random.Random(f"duplicates {seed} {index}")
        soon = LATE if reboot_type is RebootType.HARD else SOON
        # Evenly spread over the whole range, the two ends included, and in no step with the kinds.
        apart = -APART + 2 * APART * ((index * 7) % number) / max(1, number - 1)
        yield World(
            seed=rng.randrange(2**32),
            fates=tuple(Fate(sends=_some_twice(rng, soon)) for _ in range(fleet)),
            reboot_type=reboot_type,
            request_ids=request_ids,
            reboot_seconds=reboot_seconds,
            latency=0.05,
            date_skew=apart,
            kinds=(reboot_type, f"ids {request_ids}", f"reboots of {reboot_seconds[0]:g} s and more"),
            may_doubt=True,
        )


def _some_twice(rng: random.Random, soon: float) -> tuple[Fault | None, ...]:
    return tuple(twice_of(rng, soon) if rng.random() < TWICE else None for _ in range(6))


def lags(
    servers: int, seed: int = 0, *, seconds: Iterable[float] = (0, 5, 10, 11, 15, 20, 25, BEHIND)
) -> Iterator[World]:
    """Give worlds in which 30 % of the replies are lost, and reads are behind: by so much, or by up to so much.

    Args:
        servers: How many each world has.
        seed: Of what is drawn.
        seconds: How far reads are behind.
    """
    for reboot_type, lag, is_any in product(RebootType, seconds, (False, True)):
        rng = random.Random(f"lags {seed} {reboot_type} {lag} {is_any}")
        behind: float | tuple[float, float] = (0.0, float(lag)) if is_any else float(lag)
        yield World(
            seed=rng.randrange(2**32),
            fates=tuple(Fate(sends=_some_lost(rng)) for _ in range(servers)),
            reboot_type=reboot_type,
            latency=0.05,
            # Some are over before a look can see them.
            reboot_seconds=_SHORT_AND_LONG,
            log_lag=behind,
            view_lag=behind,
            kinds=(reboot_type, f"behind by {'up to ' if is_any else ''}{lag:g} s"),
            may_doubt=True,
        )


def _some_lost(rng: random.Random) -> tuple[Fault | None, ...]:
    return tuple(Fault.no_reply(applied=rng.random() < 0.7) if rng.random() < 0.3 else None for _ in range(4))


def reverted(servers: int, seed: int = 0) -> Iterator[World]:
    """Give worlds in which every reboot fails before the guest is cycled, and only the log's row tells."""
    for reboot_type, (name, (request_ids, has_date, ahead)) in product(RebootType, FACES.items()):
        rng = random.Random(f"reverted {seed} {reboot_type} {name}")
        yield World(
            seed=rng.randrange(2**32),
            fates=(Fate(host=HostFault.REVERTED),) * servers,
            reboot_type=reboot_type,
            request_ids=request_ids,
            has_date=has_date,
            date_skew=ahead,
            reboot_seconds=(5.0, 5.0),
            kinds=(reboot_type, name),
            may_doubt=True,
        )


def words(servers: int, seed: int = 0) -> Iterator[World]:
    """Give worlds in which every send is delivered twice, and the second is refused in all sorts of words."""
    for reboot_type, name, reboot_seconds in product(RebootType, BUSY_ANSWERS, REBOOTS):
        rng = random.Random(f"words {seed} {reboot_type} {name} {reboot_seconds}")
        # The second meets the first: later it would be accepted.
        delays = [rng.uniform(0.0, 0.5 * reboot_seconds[0]) for _ in range(servers)]
        yield World(
            seed=rng.randrange(2**32),
            fates=tuple(Fate(sends=(Fault.delivered_twice(delay),)) for delay in delays),
            reboot_type=reboot_type,
            request_ids=rng.choice(tuple(RequestIds)),
            busy_answer=BUSY_ANSWERS[name],
            reboot_seconds=reboot_seconds,
            date_skew=rng.choice((0.0, 5.0, -5.0)),
            kinds=(reboot_type, name, f"reboots of {reboot_seconds[0]:g} s and more"),
            may_doubt=True,
        )


def late_rows(servers: int, seed: int = 0) -> Iterator[World]:
    """Give worlds in which 30 % of the replies are lost, and some logs show new rows up to 30 s late."""
    for reboot_type, share in product(RebootType, (0.1, 1.0)):
        rng = random.Random(f"late rows {seed} {reboot_type} {share}")
        fates = [
            Fate(sends=_some_lost(rng), log_delay=rng.uniform(0.0, BEHIND) if rng.random() < share else 0.0)
            for _ in range(servers)
        ]
        yield World(
            seed=rng.randrange(2**32),
            fates=tuple(fates),
            reboot_type=reboot_type,
            # Most are over before a look can see them.
            reboot_seconds=REBOOTS[0],
            kinds=(reboot_type, f"{share:.0%} of the logs late"),
            may_doubt=True,
        )


def drawn(servers: int, seed: int = 0) -> Iterator[World]:
    """Give worlds in which all this is mixed with lost replies, other users, and processes that end."""
    while servers > 0:
        rng = random.Random(f"drawn {seed}")
        world = attack_world_of(rng, min(servers, rng.choice(_SIZES)))
        servers -= len(world.fates)
        seed += 1
        yield world


#: The parts, and how many servers each has in full (of the middle ones: each of its worlds).
PARTS: Final[Mapping[str, tuple[Callable[[int, int], Iterator[World]], int]]] = {
    "duplicates": (duplicates, 10_000),
    "lags": (lags, 400),
    "reverted": (reverted, 100),
    "words": (words, 100),
    "late-rows": (late_rows, 400),
    "drawn": (drawn, 10_000),
}


class Tally:
    """What was seen in the worlds of one part."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        self.servers: Counter[str] = Counter()
        self.doubts: Counter[str] = Counter()
        self.doubled: Counter[str] = Counter()
        self.falsely: Counter[str] = Counter()
        self.broken: list[tuple[int, World, list[str]]] = []

    def add(self, number: int, world: World, account: Account) -> None:
        """Take the account of the world with this number."""
        doubts = account.doubts + account.fair_doubts
        self.counts.update(
            {
                "worlds": 1,
                "servers": len(account.ids),
                "sends": account.sends.total(),
                "cycled twice by one send, which was delivered twice": account.twice_delivered,
                "rebooted twice by us (must be 0)": account.twice,
                "rebooted again, despite since (must be 0)": account.since_broken,
                "lost (must be 0)": account.lost,
                "falsely reported (must be 0)": len(account.falsely),
                "in doubt": doubts,
            }
        )
        if account.report is not None:
            self.outcomes.update(account.report.summary)
        for kind in world.kinds:
            self.servers[kind] += len(account.ids)
            self.doubts[kind] += doubts
            self.doubled[kind] += account.twice
            self.falsely[kind] += len(account.falsely)
        if account.broken:
            self.broken.append((number, world, account.broken))

    def __str__(self) -> str:
        lines = [f"{count:10,}  {name}" for name, count in self.counts.items()]
        lines.append(", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items())))
        lines.append(f"{'servers':>10}{'in doubt':>10}{'doubled':>10}{'falsely':>10}  of worlds with")
        for kind, servers in sorted(self.servers.items()):
            share = f"{self.doubts[kind] / servers:.1%}"
            lines.append(f"{servers:10,}{share:>10}{self.doubled[kind]:10,}{self.falsely[kind]:10,}  {kind}")
        for number, world, promises in self.broken[:_WORLDS_SHOWN]:
            lines.append(f"BROKEN --number {number}: {', '.join(world.kinds)}")
            lines += [f"    {promise}" for promise in promises[:_SHOWN]]
        lines.append(f"{len(self.broken):,} of {self.counts['worlds']:,} worlds with a broken promise")
        return "\n".join(lines)


def tally_of(chosen: Iterable[World], only: int | None = None) -> Tally:
    """Play worlds, or the one with this number, and tell what was seen."""
    tally = Tally()
    for number, world in enumerate(chosen):
        if only in (None, number):
            tally.add(number, world, play(world))
    return tally


def main(arguments: list[str]) -> int:
    """Play what was asked for, tell what was seen, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}, stops; default: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--number", type=int, help="with one part: the number of one world to play again")
    parser.add_argument("--stops", type=int, default=200, help="processes that are stopped (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=100, help="of them at once (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=180.0, help="that each is stopped (default: %(default)s)")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - {*PARTS, "stops"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    # Half of what they log is what the worlds are for.
    logging.disable(logging.CRITICAL)
    is_broken = False
    for part in given.parts or (*PARTS, "stops"):
        began = time.monotonic()
        if part == "stops":
            stops = stop_processes(
                ceil(given.stops * given.share), given.seconds, at_once=given.at_once, seed=given.seed
            )
            shown, is_bad = str(stops), bool(stops.broken)
        else:
            make, servers = PARTS[part]
            tally = tally_of(make(ceil(servers * given.share), given.seed), given.number)
            shown, is_bad = str(tally), bool(tally.broken)
        is_broken |= is_bad
        sys.stdout.write(f"\n{part}\n{shown}\nin {time.monotonic() - began:.0f} s\n")
        sys.stdout.flush()
    return 1 if is_broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
