"""Rollouts by the thousand on virtual time, judged by what the cloud saw: `python -m tests.rollouts --runs 1000`.

Each run is bounded by `max_down="budget"`, on a cloud where any share of the reboots fails, hangs or loses its reply.
The exit status is 1 if in some run more servers came to harm, or more were down at once, than the budget and one.
"""

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from random import Random

import anyio

from bulkrestart import Outcome, Report, Rollout
from bulkrestart.simulator import Call, Cloud, Faults
from tests.virtual import assert_accounted, client_of, cloud_of, virtually


def sent(cloud: Cloud) -> dict[str, float]:
    """Tell when the first reboot of each server arrived."""
    times: dict[str, float] = {}
    for request in cloud.requests:
        if request.call is Call.REBOOT and request.server_id is not None:
            times.setdefault(request.server_id, request.time)
    return times


def peak_down(cloud: Cloud, *, by: Callable[[str], Hashable] = lambda _: None) -> int:
    """Tell how many servers of one kind were down at once, at most, as far as a reboot of ours was the reason."""
    began = min(sent(cloud).values(), default=0.0)
    moves: list[tuple[float, int, Hashable]] = []
    for down in cloud.downtimes:
        if down.began >= began:
            moves.append((down.began, 1, by(down.server_id)))
            moves.append((float("inf") if down.ended is None else down.ended, -1, by(down.server_id)))
    now: dict[Hashable, int] = {}
    peak = 0
    # Who is back at the moment at which another goes down was not down with it.
    for _, step, kind in sorted(moves, key=lambda move: move[:2]):
        now[kind] = now.get(kind, 0) + step
        peak = max(peak, now[kind])
    return peak


def ending(scope: anyio.CancelScope, seconds: float) -> Callable[[Report], Awaitable[bool]]:
    """Give a pause that ends a block so many seconds after the next wave has begun.

    When that is nobody knows before: servers are seen back by polls, the intervals of which are left to chance.
    """

    async def pause(_: Report) -> bool:
        scope.deadline = anyio.current_time() + seconds
        return True

    return pause


async def play_budget(seed: int) -> int:
    """Play one run by the budget, hold its promise, and tell how many servers came to harm beyond the budget."""
    rng = Random(seed)
    faults = Faults(dead=rng.random() * 0.6, hang=rng.random() * 0.2, lost_after=0.1, error_after=0.1, locked=0.05)
    cloud = cloud_of(rng.randint(1, 40), seed=seed, reboot_seconds=(1.0, rng.uniform(1.0, 60.0)), faults=faults)
    max_failures: int | str = rng.choice((0, 1, 2, 5, "10%"))
    wave = rng.choice([None, 3, "50%"])
    rollout = Rollout(max_down="budget", max_failures=max_failures, max_refused="100%", wave=wave)
    allowed = rollout.failures_allowed(len(cloud.ids))
    async with client_of(cloud, max_at_once=rng.choice([1, 5, 20])) as client:
        report = await client.restart(cloud.ids, rollout=rollout, wait_timeout=100.0)
    assert_accounted(report, cloud)
    harm = report.summary.get(Outcome.FAILED, 0) + report.summary.get(Outcome.IN_DOUBT, 0)
    assert harm <= allowed + 1, seed
    assert (report.stopped is not None) == (harm > allowed), seed
    assert peak_down(cloud) <= allowed + 1, seed
    return harm - allowed


def main(arguments: list[str]) -> int:
    """Play what was asked for, tell what was seen, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.rollouts", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    given = parser.parse_args(arguments)
    # Half of what they log is what the runs are for.
    logging.disable(logging.CRITICAL)
    ends: Counter[str] = Counter()
    began = time.monotonic()
    for seed in range(given.seed, given.seed + given.runs):
        try:
            beyond = virtually(partial(play_budget, seed), seed=seed)
            ends["stopped at the budget and one" if beyond == 1 else "went to the end"] += 1
        except AssertionError as error:
            ends["BROKEN"] += 1
            sys.stdout.write(f"BROKEN seed {seed}: {error}\n")
    lines = [f"{count:6,}  {words}" for words, count in ends.items()]
    sys.stdout.write("\n".join([*lines, f"{given.runs:,} runs in {time.monotonic() - began:.0f} s", ""]))
    return 1 if ends["BROKEN"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
