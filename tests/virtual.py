"""Runs the whole stack on virtual time, over a simulated cloud: hours of a fleet in seconds."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from time import clock_gettime
from types import SimpleNamespace
from typing import Literal, TypedDict, TypeVar, Unpack

import httpx
import pytest
import trio
from trio.testing import MockClock

from bulkrestart import Outcome, Reason, Report, RestartClient, Rollout, ServerResult, Token
from bulkrestart.run import recorder
from bulkrestart.simulator import Cloud, Fault, Faults, RequestIds, asgi

T = TypeVar("T")

#: Where virtual time begins, in seconds since the epoch.
EPOCH = 1_800_000_000.0
#: Budgets that never stop a run: what is tested is what becomes of each server.
REGARDLESS = Rollout(max_failures="100%", max_refused="100%")


class CloudSettings(TypedDict, total=False):
    """What the tests set of a cloud."""

    seed: int
    reboot_seconds: tuple[float, float]
    faults: Faults
    max_limit: int
    hosts: int
    max_microversion: str
    log_delay: float
    date_skew: float
    has_date: bool
    request_ids: RequestIds
    legacy_host: bool
    latency: float
    capacity: tuple[int, float]
    rate_limit: tuple[int, float]


def virtually(main: Callable[[], Awaitable[T]], *, seed: int = 0) -> T:
    """Run `main` on a clock that jumps to the next thing to do whenever there is nothing to do.

    The clock does not see threads, so the journal is written without one. The wall clock by which ages are measured is
    virtual as well: on a busy machine 0.3 virtual seconds may take several real ones. Of what is left to chance, the
    jitter and the order in which trio runs tasks, the seed decides: a test that fails fails again. `make proof` draws
    other seeds.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "in_thread", _in_place)
        wall = SimpleNamespace(time=lambda: EPOCH + trio.current_time(), clock_gettime=clock_gettime)
        patch.setattr("bulkrestart.cloud.instants.time", wall)
        patch.setattr("bulkrestart.client.random", SimpleNamespace(Random=partial(Random, seed)))
        patch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr("trio._core._run._r", Random(seed))
        return trio.run(main, clock=MockClock(autojump_threshold=0))


async def _in_place(function: Callable[[], T]) -> T:
    return function()


def cloud_of(servers: int, **settings: Unpack[CloudSettings]) -> Cloud:
    """Make a cloud that lives on virtual time; call it within `virtually`."""
    return Cloud(servers, clock=lambda: EPOCH + trio.current_time(), **settings)


@asynccontextmanager
async def client_of(
    cloud: Cloud,
    *,
    max_at_once: int = 20,
    max_per_second: float | None = None,
    adaptive: bool | Literal["latency"] = True,
    version: str = "v2.1",
    token: str | None = None,
) -> AsyncIterator[RestartClient]:
    """Give a client of a simulated cloud, in process."""
    transport = httpx.ASGITransport(asgi(cloud))
    async with httpx.AsyncClient(transport=transport) as http:
        endpoint = f"http://cloud.test/{version}/{cloud.project_id}"
        auth = Token(cloud.token if token is None else token)
        yield RestartClient(
            endpoint, auth=auth, http=http, max_at_once=max_at_once, max_per_second=max_per_second, adaptive=adaptive
        )


def slow_down(cloud: Cloud, seconds: float, *, but: Collection[str] = ()) -> None:
    """Let the first send to every server be answered `seconds` later, but for some."""
    for server_id in cloud.ids:
        if server_id not in but:
            cloud.script(server_id, Fault.slow(seconds))


def end_of(result: ServerResult) -> tuple[Outcome, Reason | None]:
    """Give what became of a server, and why."""
    return result.outcome, result.reason


def assert_accounted(report: Report, cloud: Cloud) -> None:
    """Hold the promises: every id once and in order, none cycled twice, and no outcome that is not so."""
    assert [result.server_id for result in report] == cloud.ids
    cycles = cloud.cycles
    for result in report:
        count = cycles[result.server_id]
        assert count <= 1, result
        if result.outcome == "completed":
            assert count == 1, result
        if result.outcome in ("refused", "skipped"):
            assert count == 0, result
