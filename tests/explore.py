"""Explores worlds by the thousand on virtual time: `python -m tests.explore --servers 100000 --seed 1`.

One large fleet, and other worlds for the rest; `tests.worlds` says what they are made of and what is held in each. The
exit status is 1 if a promise broke, and the seed of its world is named: `python -m tests.explore --world SEED`.
"""

import argparse
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from bulkrestart import Outcome
from bulkrestart.simulator import LogAccess
from tests.worlds import Account, Cut, Moment, World, play, world_of

#: How many servers a world has: most have few, and most servers are in those that have many.
SIZES: Final = (*(1, 2, 3, 5, 12, 40) * 8, 3000)
#: The share of all servers that are in the large fleet.
_FLEET_SHARE: Final = 0.2
#: Kinds of events at which the large fleet is killed, one after another.
_KILLS: Final = (Moment.COMMITTED, Moment.REACHED, Moment.TIME)
#: Worlds whose broken promises are shown, and promises of each.
_WORLDS_SHOWN: Final = 40
_SHOWN: Final = 3


def any_world(seed: int) -> World:
    """Draw a world of any kind."""
    rng = random.Random(seed)
    return world_of(rng, rng.choice(SIZES))


def large_fleet(seed: int, servers: int) -> World:
    """Draw one large fleet, whose log can be read, and which is killed three times on its way."""
    rng = random.Random(seed)
    world = world_of(rng, servers)
    # About a tenth of the way in each process: grouped commits, sends, seconds.
    numbers = (rng.randint(5, 5 + servers // 1000), rng.randint(1, 1 + servers // 10), rng.uniform(1.0, 30.0))
    cuts = tuple(Cut(moment=moment, number=number) for moment, number in zip(_KILLS, numbers, strict=True))
    return replace(world, log_access=LogAccess.OPEN, latency=0.05, max_at_once=200, outage=None, cuts=cuts)


def worlds(servers: int, seed: int) -> Iterator[tuple[str, World]]:
    """Give worlds with so many servers in all, each with the arguments that play it again."""
    fleet = int(servers * _FLEET_SHARE)
    if fleet:
        yield f"--fleet {fleet} --world {seed}", large_fleet(seed, fleet)
    left = servers - fleet
    while left > 0:
        seed += 1
        world = any_world(seed)
        left -= len(world.fates)
        yield f"--world {seed}", world


class Tally:
    """What was seen in all worlds."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        self.broken: dict[str, list[str]] = {}

    def add(self, name: str, account: Account) -> None:
        """Take the account of a world."""
        self.counts.update(
            {
                "worlds": 1,
                "servers": len(account.ids),
                "processes": account.processes,
                "of which killed": account.kills,
                "of which cancelled or stopped": account.ends,
                "sends": account.sends.total(),
                "reboots begun for us": account.started.total(),
                "faults met": account.faults,
                "servers rebooted twice by us": account.twice,
                "servers lost": account.lost,
                "in doubt, log readable": account.doubts,
                "in doubt for a documented reason": account.fair_doubts,
            }
        )
        if account.report is not None:
            self.outcomes.update(account.report.summary)
        if account.broken:
            self.broken[name] = account.broken

    def __str__(self) -> str:
        lines = [f"{count:10,}  {name}" for name, count in self.counts.items()]
        lines.append(", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items())))
        for name, words in list(self.broken.items())[:_WORLDS_SHOWN]:
            lines += [f"BROKEN {name}", *(f"    {word}" for word in words[:_SHOWN])]
        lines.append(f"{len(self.broken):,} worlds with a broken promise")
        return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Play what was asked for, tell what was seen, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.explore", description=__doc__)
    parser.add_argument("--servers", type=int, default=100_000, help="servers in all worlds together")
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--world", type=int, help="the seed of one world to play again")
    parser.add_argument("--fleet", type=int, default=0, help="with --world: the large fleet, of so many servers")
    given = parser.parse_args(arguments)
    # Half of what they log is what the worlds are for.
    logging.disable(logging.CRITICAL)
    if given.world is None:
        chosen = worlds(given.servers, given.seed)
    else:
        world = large_fleet(given.world, given.fleet) if given.fleet else any_world(given.world)
        chosen = iter([(f"--world {given.world}", world)])
    tally, began = Tally(), time.monotonic()
    for name, world in chosen:
        tally.add(name, play(world))
    sys.stdout.write(f"{tally}\nin {time.monotonic() - began:.0f} s\n")
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
