"""Measures the CPU time that a client spends on one restart, at 10, 100 and 500 requests at once.

Every figure comes from a fresh process, and the contenders take turns: the speed of a machine drifts, so only figures
of one round compare, and ratios are taken within a round.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Final

from benchmarks.contenders import CONTENDERS, POOLED, measure
from benchmarks.loopback import serving

AT_ONCE: Final = (10, 100, 500)
#: Seconds of delay for each request at once, so that each level has at most 500 requests a second. An answer that came
#: before the client can send the next request would leave most connections unused, however many are allowed.
DELAY: Final = 0.002

#: CPU seconds per restart, one for each round, by contender and requests at once.
Times = dict[tuple[str, int], list[float]]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken (default: 3)")
    parser.add_argument("--delay", type=float, help="seconds to each answer (default: 0.002 for each request at once)")
    options = parser.parse_args()
    times: Times = {(name, at_once): [] for name in CONTENDERS for at_once in AT_ONCE}
    for number in range(1, options.rounds + 1):
        print(f"round {number} of {options.rounds}", file=sys.stderr)
        for at_once in AT_ONCE:
            with serving(DELAY * at_once if options.delay is None else options.delay) as endpoint:
                for name in CONTENDERS:
                    # A pool takes half a minute there: once is enough to see it.
                    if number == 1 or at_once < 500 or name not in POOLED:
                        times[name, at_once].append(_measure_apart(name, endpoint, at_once))
    print("CPU microseconds per restart: median (lowest to highest)\n")
    _print_table(lambda name, at_once: _figure(times[name, at_once], _count(name, at_once)))
    print("\nIn brackets: rounds x restarts. Ratio to RestartClient in the same round:\n")
    own = next(iter(CONTENDERS))
    _print_table(lambda name, at_once: _ratio(times[name, at_once], times[own, at_once]))
    print("\nRatio of 500 at once to 10 at once in the same round:\n")
    for name in CONTENDERS:
        print(f"- {name}: {_ratio(times[name, AT_ONCE[-1]], times[name, AT_ONCE[0]])}")


def _count(name: str, at_once: int) -> int:
    return max(200, at_once) if name in POOLED else max(500, 2 * at_once)


def _measure_apart(name: str, endpoint: str, at_once: int) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, name, endpoint, at_once, _count(name, at_once)).result()


def _print_table(cell: Callable[[str, int], str]) -> None:
    print("| |", " | ".join(f"{at_once} at once" for at_once in AT_ONCE), "|")
    print("|---|" + "---:|" * len(AT_ONCE))
    for name in CONTENDERS:
        print(f"| {name} |", " | ".join(cell(name, at_once) for at_once in AT_ONCE), "|")


def _figure(times: Sequence[float], count: int) -> str:
    return f"{spread(times, 1e6, '.0f')} [{len(times)} x {count}]"


def _ratio(times: Sequence[float], base: Sequence[float]) -> str:
    return spread([time / of for time, of in zip(times, base, strict=False)], 1.0, ".2f")


def spread(values: Sequence[float], unit: float, form: str) -> str:
    """Write the median, and the lowest and the highest of several values."""
    middle, lowest, highest = (format(value * unit, form) for value in (median(values), min(values), max(values)))
    return f"{middle} ({lowest} to {highest})" if len(values) > 1 else middle


if __name__ == "__main__":
    main()
