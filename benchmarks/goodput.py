"""Measures on virtual time how long a run takes when the cloud is partly broken, overloaded, or limits the rate.

The figures do not depend on the machine. The seed decides which servers are faulty, and the jitter.
"""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Final, NamedTuple

import httpx
import trio
from tests.virtual import REGARDLESS, client_of, cloud_of, virtually

from benchmarks.tables import Figure, Section, judged, spread, table
from bulkrestart import Outcome, Report, RestartClient, Token
from bulkrestart.simulator import Call, Fault, asgi

_SERVERS: Final = 5_000
AT_ONCE: Final = 50
#: Seconds to each answer.
LATENCY: Final = 0.3
#: Seconds: the default `request_timeout` of a restart.
_REQUEST_TIMEOUT: Final = 60.0
#: Seconds that the bound for time-outs adds for the looks and sends that follow them.
_TAIL: Final = 60.0

#: The answer to the first send to a faulty server.
FAULTS: Final[Mapping[str, Callable[[], Fault]]] = {
    "503": lambda: Fault.error(503),
    "503 with Retry-After: 1": lambda: Fault.respond(503, headers={"retry-after": "1"}),
    "504": lambda: Fault.respond(504),
    "504 after 5 s": lambda: replace(Fault.respond(504), answered_after=5.0),
    "500": lambda: Fault.error(500),
    "connection cut": lambda: Fault.no_reply(applied=False),
    "no answer for 70 s": lambda: Fault.slow(70.0),
    "429 with Retry-After: 1": lambda: Fault.throttled(1.0),
}
_LATE: Final = "no answer for 70 s"
#: They have no bound: a rate signal pauses all requests each time, and a gateway that waited costs a grace of 90 s.
_UNBOUNDED: Final = ("429 with Retry-After: 1", "504 after 5 s")
#: Each share of faulty servers, and the seconds that it may cost.
_SHARES: Final = {0.005: 60.0, 0.02: 60.0, 0.1: 120.0}

#: Rate limits: the requests that are accepted in a window, and its seconds.
_RATE_LIMITS: Final = ((100, 10.0), (600, 60.0), (200, 60.0))
_RATE_LIMITED: Final = (1_000, 3_000)
#: Answers 429 by servers and limit with AIMD alone (measured at 70e0c7b, before `OverloadLimit`).
_FORMER_429S: Final = {
    (1_000, 100): 153,
    (1_000, 600): 50,
    (1_000, 200): 97,
    (3_000, 100): 453,
    (3_000, 600): 103,
    (3_000, 200): 317,
}

#: Requests that an overloaded API works on at once.
CAPACITY: Final = 10
#: Seconds to the 503 of a request that is shed: as slow as any answer, or almost at once.
_SHED_AFTER: Final = (LATENCY, 0.02)


class Shedding(NamedTuple):
    """The figures of a run over an overloaded API.

    Attributes:
        seconds: How long the run took.
        share: The share of requests that were shed.
        later_share: The share of requests after the first 20 s that were shed.
    """

    seconds: float
    share: float
    later_share: float


class Limited(NamedTuple):
    """The figures of a run over a rate-limited API: how long it took, and how many requests were answered 429."""

    seconds: float
    refused: int


def run(rounds: int) -> Section:
    """Measure each case, and return the tables."""
    logging.getLogger("bulkrestart").addHandler(logging.NullHandler())
    seeds = range(rounds)
    figures: list[Figure] = []
    ideal = faulty(None, 0.0)
    texts = [
        f"Faulty servers: {_SERVERS:,} servers, {AT_ONCE} at once, answers after {LATENCY:g} s, `wait=False`. "
        f"A share of the servers meets the fault once, on its first send. Without faults: {ideal:.1f} s. "
        "Seconds beyond that:",
        _faults(seeds, ideal, figures),
        f"An API that works on {CAPACITY} requests at once and answers 503 to the others; {_SERVERS:,} servers:",
        _shedding(seeds, figures),
        f"An API that limits the rate; {AT_ONCE} requests at once. The ideal time is servers x window / limit:",
        _rate_limits(seeds, figures),
    ]
    return Section(text="\n\n".join([judged(figures), *texts]))


def _faults(seeds: range, ideal: float, figures: list[Figure]) -> str:
    rows = []
    for name in FAULTS:
        cells = []
        for share, bound in _SHARES.items():
            print(f"goodput: {name}, {share:.1%}", file=sys.stderr)
            beyond = [faulty(name, share, seed=seed) - ideal for seed in seeds]
            cells.append(spread(beyond, form=".0f"))
            if name == _LATE:
                bound = share * _SERVERS * _REQUEST_TIMEOUT / AT_ONCE + _TAIL
            if name not in _UNBOUNDED:
                case = f"seconds beyond the run without faults, {name}, {share:.1%}"
                figures.append(Figure(name=case, values=beyond, must=bound, form=".0f"))
        rows.append((name, *cells))
    return table(("first answer", *(f"{share:.1%}" for share in _SHARES)), rows)


def _shedding(seeds: range, figures: list[Figure]) -> str:
    rows = []
    for after in _SHED_AFTER:
        fixed = shed(_SERVERS, after=after, at_once=CAPACITY, adaptive=False)
        found = [shed(_SERVERS, after=after, seed=seed) for seed in seeds]
        ratios = [fixed.seconds / one.seconds for one in found]
        later = [one.later_share for one in found]
        case = f"503 after {after:g} s"
        figures.append(
            Figure(name=f"goodput over that of a fixed limit, {case}", values=ratios, must=0.9, is_most=False)
        )
        figures.append(Figure(name=f"share of 503 after 20 s, {case}", values=later, must=0.1, form=".3f"))
        shares = [one.share for one in found]
        rows.append((case, spread(ratios), spread(shares, form=".3f"), spread(later, form=".3f")))
    return table(("", "goodput over that of a fixed limit", "share of 503", "after 20 s"), rows)


def _rate_limits(seeds: range, figures: list[Figure]) -> str:
    rows = []
    for servers in _RATE_LIMITED:
        for limit, window in _RATE_LIMITS:
            print(f"goodput: {servers} servers, {limit} in {window:g} s", file=sys.stderr)
            found = [rate_limited(servers, limit, window, seed=seed) for seed in seeds]
            over = [one.seconds / (servers * window / limit) for one in found]
            refused = [float(one.refused) for one in found]
            case = f"{servers:,} servers, {limit} in {window:g} s"
            former = _FORMER_429S[servers, limit]
            figures.append(Figure(name=f"time over the ideal, {case}", values=over, must=1.05))
            figures.append(Figure(name=f"answers 429, {case}", values=refused, must=float(former), form=".0f"))
            rows.append((case, spread(over), spread(refused, form=".0f")))
    return table(("", "time over the ideal", "answers 429"), rows)


def faulty(fault: str | None, share: float, *, servers: int = _SERVERS, seed: int = 0) -> float:
    """Restart a fleet of which a share of the servers is faulty, and return the seconds that it takes."""

    async def main() -> Report:
        cloud = cloud_of(servers, latency=LATENCY)
        for server_id in Random(seed).sample(cloud.ids, round(share * servers)):
            assert fault is not None, "without a fault there is no share"
            cloud.script(server_id, FAULTS[fault]())
        async with client_of(cloud, max_at_once=AT_ONCE) as client:
            report = await client.restart(cloud.ids, wait=False, rollout=REGARDLESS)
        assert max(cloud.posts.values()) <= 2, "a server was sent to more than twice"
        return report

    return _taken(virtually(main, seed=seed), servers)


def rate_limited(servers: int, limit: int, window: float, *, seed: int = 0) -> Limited:
    """Restart a fleet over an API that accepts `limit` sends in each window."""

    async def main() -> tuple[Report, int]:
        cloud = cloud_of(servers, latency=LATENCY, rate_limit=(limit, window))
        async with client_of(cloud, max_at_once=AT_ONCE) as client:
            report = await client.restart(cloud.ids, wait=False, rollout=REGARDLESS)
        statuses = Counter(record.status for record in cloud.requests if record.call is Call.REBOOT)
        return report, statuses[429]

    report, refused = virtually(main, seed=seed)
    return Limited(_taken(report, servers), refused)


def shed(
    servers: int,
    *,
    capacity: int = CAPACITY,
    after: float = LATENCY,
    at_once: int = AT_ONCE,
    adaptive: bool = True,
    headers: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Shedding:
    """Restart a fleet over an API that works on `capacity` requests at once and sheds the others.

    Args:
        servers: How many servers the fleet has.
        capacity: How many requests the API works on at once.
        after: Seconds to the 503 of a request that is shed.
        at_once: `max_at_once` of the client.
        adaptive: `adaptive` of the client.
        headers: Headers of the 503.
        seed: The seed of the run.
    """

    async def main() -> tuple[Report, list[tuple[float, bool]]]:
        cloud = cloud_of(servers, latency=LATENCY)
        inner = httpx.ASGITransport(asgi(cloud))
        requests: list[tuple[float, bool]] = []
        in_work = 0

        async def answer(request: httpx.Request) -> httpx.Response:
            nonlocal in_work
            is_shed = in_work >= capacity
            requests.append((trio.current_time() - began, is_shed))
            if is_shed:
                await trio.sleep(after)
                return httpx.Response(503, headers=headers, json={"serviceUnavailable": {"code": 503, "message": ""}})
            in_work += 1
            try:
                return await inner.handle_async_request(request)
            finally:
                in_work -= 1

        began = trio.current_time()
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            endpoint = f"http://cloud.test/v2.1/{cloud.project_id}"
            auth = Token(cloud.token)
            client = RestartClient(endpoint, auth=auth, http=http, max_at_once=at_once, adaptive=adaptive)
            report = await client.restart(cloud.ids, wait=False, rollout=REGARDLESS)
        assert set(cloud.posts.values()) == {1}, "a server was restarted twice"
        return report, requests

    report, requests = virtually(main, seed=seed)
    later = [is_shed for at, is_shed in requests if at >= 20.0]
    share = sum(is_shed for _, is_shed in requests) / len(requests)
    return Shedding(_taken(report, servers), share, sum(later) / max(1, len(later)))


def _taken(report: Report, servers: int) -> float:
    assert report.summary == {Outcome.ACCEPTED: servers}, report.summary
    return report.elapsed
