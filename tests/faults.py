"""Holds a run of full size against a network that fails: `python -m tests.faults`.

A simulated fleet, the faulty proxy before it, and the library with its real graces, over real connections. What became
of each server is counted by the cloud. The exit status is 1 if a promise broke.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import anyio

from bulkrestart import Outcome, RebootType, Report, RestartClient, Token
from bulkrestart.simulator import Cloud, LoopbackCloud
from tests.faulty_proxy import QUICK_LOOKS, QUICK_SENDS, STALLS, FaultyProxy, Kind, faulty_proxy, seeded

#: Seconds for one request: a stall lasts as long.
REQUEST_TIMEOUT: Final = 10.0
#: Seconds after which a late request is delivered: half of the grace of a SOFT.
LATE: Final = 5.0
#: Seconds in which a run must end. A request that is cut off four times in a row takes four graces of 90 s, and looks
#: up to 30 s apart.
BOUND: Final = 1500.0
#: Outcomes that say that the server was rebooted, and those that say that it was not: no host fails here.
REBOOTED: Final = (Outcome.COMPLETED, Outcome.ACCEPTED)
NOT_REBOOTED: Final = (Outcome.REFUSED, Outcome.SKIPPED, Outcome.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One run, as the report tells it and as the cloud counted it.

    Attributes:
        twice: Servers whose guest was cycled more than once.
        posted_twice: Servers for which more than one reboot request of ours reached the cloud.
        missing: Ids that the report lacks, has more than once, or has out of order.
        falsely_rebooted: Servers that the report says were rebooted, and that were not.
        falsely_not_rebooted: Servers that the report says were not, and that were.
        in_doubt: Servers whose fate the report does not know.
    """

    twice: int
    posted_twice: int
    missing: int
    falsely_rebooted: int
    falsely_not_rebooted: int
    in_doubt: int

    @property
    def is_kept(self) -> bool:
        """Whether every promise was kept; a doubt is honest, and breaks none."""
        return not (
            self.twice or self.posted_twice or self.missing or self.falsely_rebooted or self.falsely_not_rebooted
        )


def account(report: Report, cloud: Cloud, again: Mapping[str, int]) -> Account:
    """Hold a report against the cloud's own count.

    Args:
        report: The report.
        cloud: The cloud.
        again: How many requests for each server the proxy delivered a second time.
    """
    cycles = cloud.cycles
    reported = Counter(result.server_id for result in report)
    order = [result.server_id for result in report]
    return Account(
        twice=sum(count > 1 for count in cycles.values()),
        posted_twice=sum(count - again.get(server_id, 0) > 1 for server_id, count in cloud.posts.items()),
        missing=sum(reported[server_id] != 1 for server_id in cloud.ids) or int(order != cloud.ids),
        falsely_rebooted=sum(result.outcome in REBOOTED and not cycles[result.server_id] for result in report),
        falsely_not_rebooted=sum(result.outcome in NOT_REBOOTED and cycles[result.server_id] > 0 for result in report),
        in_doubt=sum(result.outcome is Outcome.IN_DOUBT for result in report),
    )


def main() -> int:
    """Run, print, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--servers", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--share", type=float, default=0.3, help="of the sends that fail (default: %(default)s)")
    parser.add_argument("--looks", type=float, default=0.05, help="of the other requests (default: %(default)s)")
    parser.add_argument("--connections", type=float, default=0.05, help="of the connections (default: %(default)s)")
    parser.add_argument("--type", type=RebootType, choices=list(RebootType), help="default: one after the other")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="default: %(default)s")
    options = parser.parse_args()
    were_kept = [_hold(reboot_type, options) for reboot_type in ([options.type] if options.type else RebootType)]
    return 0 if all(were_kept) else 1


def _hold(reboot_type: RebootType, options: argparse.Namespace) -> bool:
    choose = seeded(
        options.seed,
        sends=options.share,
        looks=options.looks,
        connections=options.connections,
        send_kinds=[*QUICK_SENDS, *STALLS, Kind.TWICE],
        look_kinds=[*QUICK_LOOKS, *STALLS],
    )
    cloud = Cloud(options.servers, seed=options.seed)
    with LoopbackCloud(cloud) as served:
        with faulty_proxy(served.endpoint, choose, late=LATE) as proxy:
            report = anyio.run(_restart, proxy.endpoint, cloud, reboot_type, backend=options.backend)
        # What was still under way when the run ended is counted as well.
        time.sleep(cloud.reboot_seconds[1])
        again = Counter({path.split("/")[-2]: count for path, count in proxy.again.items()})
        found = account(report, cloud, again)
    _print(reboot_type, report, proxy, found)
    for result in report:
        if result.outcome is not Outcome.COMPLETED:
            sys.stdout.write(f"{result}: {cloud.log(cloud.server(result.server_id))}\n")
    return found.is_kept


async def _restart(endpoint: str, cloud: Cloud, reboot_type: RebootType) -> Report:
    with anyio.fail_after(BOUND):
        async with RestartClient(endpoint, auth=Token(cloud.token)) as client:
            return await client.restart(cloud.ids, reboot_type=reboot_type, request_timeout=REQUEST_TIMEOUT)


def _print(reboot_type: RebootType, report: Report, proxy: FaultyProxy, found: Account) -> None:
    sends = sum(count for what, count in proxy.came.items() if what.startswith("POST "))
    looks = sum(count for what, count in proxy.came.items() if what.startswith("GET "))
    faults = sorted({*proxy.sends, *proxy.looks, *proxy.connections})
    _print_table(
        f"{reboot_type}, {len(report)} servers",
        ("fault", "sends", "looks", "connections"),
        [
            *((kind, proxy.sends[kind], proxy.looks[kind], proxy.connections[kind]) for kind in faults),
            ("all faults", proxy.sends.total(), proxy.looks.total(), proxy.connections.total()),
            ("of", sends, looks, proxy.came["opened"] + proxy.came["kept"]),
        ],
    )
    _print_table(
        "The end",
        ("", "servers"),
        [
            *report.summary.items(),
            ("sent to more than once", sum(len(result.attempts) > 1 for result in report)),
            ("in doubt, share", f"{found.in_doubt / len(report):.2%}"),
            ("cycled twice (must be 0)", found.twice),
            ("asked twice (must be 0)", found.posted_twice),
            ("missing (must be 0)", found.missing),
            ("falsely rebooted (must be 0)", found.falsely_rebooted),
            ("falsely not rebooted (must be 0)", found.falsely_not_rebooted),
            ("seconds", f"{report.elapsed:.0f}"),
        ],
    )


def _print_table(title: str, head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    lines = [f"\n{title}\n", head, ("---", *("---:" for _ in head[1:])), *rows]
    for line in lines:
        sys.stdout.write(line if isinstance(line, str) else f"| {' | '.join(map(str, line))} |")
        sys.stdout.write("\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
