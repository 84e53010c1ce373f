"""Whole fleets, on virtual time: every id accounted for, none cycled twice, and never more at once than asked."""

from collections.abc import AsyncIterator

import pytest
import trio

from bulkrestart import Outcome, Server, ServerResult
from bulkrestart.core.model import RebootType
from bulkrestart.simulator import Fault, Faults
from tests.virtual import REGARDLESS, assert_accounted, client_of, cloud_of, virtually

pytestmark = pytest.mark.unmeasured

#: Every fault of one request, and every state, that the cloud can be seeded with.
ALL_FAULTS = Faults(
    locked=0.03,
    stopped=0.03,
    error=0.02,
    busy=0.05,
    throttled=0.03,
    flow_limited=0.03,
    commands_executing=0.03,
    error_before=0.04,
    error_after=0.04,
    lost_before=0.04,
    lost_after=0.05,
    late=0.04,
    slow=0.05,
    times=2,
    dead=0.02,
    hang=0.01,
)


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reboot_type", RebootType)
def test_any_faults(reboot_type: RebootType, seed: int) -> None:
    """Under every kind of fault at once nothing is doubled or lost, and what the log can tell is not left in doubt."""

    async def main() -> None:
        cloud = cloud_of(100, seed=seed, faults=ALL_FAULTS)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type, rollout=REGARDLESS)
        assert_accounted(report, cloud)
        assert report.stopped is None
        assert Outcome.IN_DOUBT not in report.summary
        assert report.summary[Outcome.COMPLETED] > 75
        for result in report:
            if result.reason == "not_back":
                assert cloud.server(result.server_id).task_state in ("reboot_started", "reboot_started_hard")
        assert cloud.peak_posts_in_flight <= 20

    virtually(main)


def test_a_fleet_and_its_slow_servers() -> None:
    """Five hundred servers: each once, in order, cycled once; fifty that ask for 60 s do not slow the others."""

    async def main() -> None:
        cloud = cloud_of(500, reboot_seconds=(2.0, 20.0))
        slow = cloud.ids[100:400:6]
        for server_id in slow:
            cloud.script(server_id, Fault.commands_executing())
        async with client_of(cloud, max_at_once=50) as client:
            report = await client.restart(cloud.ids)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 500}
        assert cloud.peak_in_flight <= 50
        assert set(cloud.posts.values()) == {1, 2}
        assert max(result.attempts[0].sent_at for result in report) < 1.0
        others = max(result.elapsed for result in report if result.server_id not in set(slow))
        assert others < 60.0

    virtually(main)


def test_two_calls_share_the_bound() -> None:
    """`max_at_once` bounds all concurrent calls of a client; a call may narrow it for itself."""

    async def main() -> None:
        cloud = cloud_of(60, faults=Faults(slow=1.0, slow_seconds=3.0))
        async with client_of(cloud, max_at_once=8) as client, trio.open_nursery() as nursery:
            for part in (cloud.ids[:30], cloud.ids[30:]):
                nursery.start_soon(client.restart, part)
        assert cloud.peak_in_flight == 8

        cloud = cloud_of(30, faults=Faults(slow=1.0, slow_seconds=3.0))
        async with client_of(cloud, max_at_once=8) as client:
            await client.restart(cloud.ids, max_at_once=3)
        assert cloud.peak_in_flight == 3

    virtually(main)


def test_ids_in_any_form() -> None:
    """Ids come from any iterable, sync or async, as ids or `Server`s; spellings of one UUID are one server."""

    async def main() -> None:
        cloud = cloud_of(3)
        first, second, third = cloud.ids

        async def stream() -> AsyncIterator[str | Server]:
            yield second.upper()
            yield Server(id=first)
            yield f"{{{second}}}"
            yield third
            yield first

        async with client_of(cloud) as client:
            report = await client.restart(stream(), wait=False)
            assert [result.server_id for result in report] == [second, first, third]
            assert report.summary == {Outcome.ACCEPTED: 3}
            assert sum(cloud.posts.values()) == 3
            assert len(await client.restart([])) == 0

    virtually(main)


@pytest.mark.parametrize(
    ("ids", "remedy"),
    [
        ("616fb98f-46ca-475e-917e-2563e5a8cd19", "put a single id in a list"),
        (None, "must be an iterable"),
        (["a", ""], "cannot be the id"),
        (["a", "b c"], "white space"),
        ([7], "must be a string"),
    ],
)
def test_ids_that_cannot_be(ids: list[str], remedy: str) -> None:
    """What cannot be ids is refused before anything is sent."""

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match=remedy):
                await client.restart(ids)
        assert not cloud.requests

    virtually(main)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"reboot_type": "MEDIUM"}, "reboot_type"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_at_once": True}, "max_at_once"),
        ({"request_timeout": 0.0}, "request_timeout"),
        ({"server_timeout": float("nan")}, "server_timeout"),
        ({"wait_timeout": float("inf")}, "wait_timeout"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, object], name: str) -> None:
    """An argument out of its range is refused by name before anything is sent."""

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match=name):
                await client.restart(cloud.ids, **options)  # type: ignore[arg-type]
        assert not cloud.requests

    virtually(main)


def test_a_stream_gives_each_server_once() -> None:
    """The stream gives every server once, as it is known, and the statistics always add up."""

    async def main() -> None:
        cloud = cloud_of(50, seed=3, faults=ALL_FAULTS)
        seen = []
        async with client_of(cloud, max_at_once=5) as client, client.restarting(cloud.ids) as run:
            async for result in run:
                seen.append(result)
                counts = run.statistics()
                parts = (counts.not_started, counts.in_flight, counts.parked, counts.accepted, counts.finished)
                assert sum(parts) == counts.total == 50
                assert min(parts) >= 0
                assert len(run.report) == 50
        assert sorted(result.server_id for result in seen) == sorted(cloud.ids)
        assert {result.server_id: result for result in seen} == {result.server_id: result for result in run.report}

    virtually(main)


def test_details_in_the_stream_alone() -> None:
    """Where the report keeps no details, the stream gives them, and the report has every outcome."""

    async def main() -> None:
        cloud = cloud_of(50, seed=3, faults=ALL_FAULTS)
        async with client_of(cloud) as client:
            async with client.restarting(cloud.ids, rollout=REGARDLESS, keep_details=False) as run:
                results = {result.server_id: result async for result in run}
            assert list(run.report) == [
                ServerResult(server_id=one, outcome=results[one].outcome, reboot_type=RebootType.SOFT)
                for one in cloud.ids
            ]
        assert any(result.attempts and result.elapsed for result in results.values())

    virtually(main)


def test_the_report_while_the_run_goes_on() -> None:
    """A report that is read meanwhile says what is known: not started, in flight, accepted."""

    async def main() -> None:
        cloud = cloud_of(3, faults=Faults(slow=1.0, slow_seconds=10.0), reboot_seconds=(30.0, 30.0))
        async with client_of(cloud, max_at_once=1) as client, client.restarting(cloud.ids) as run:
            await trio.sleep(15.0)
            seen = [(result.outcome, result.reason) for result in run.report]
        assert seen == [("accepted", None), ("in_doubt", "in_flight"), ("skipped", "not_started")]

    virtually(main)
