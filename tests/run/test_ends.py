"""However a run ends: nothing in flight is forgotten, the report accounts for all, and errors come out bare."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
import trio

from bulkrestart import Outcome, Reason, Report, RestartClient, Rollout, Run, Stop, StopReason, Token
from bulkrestart.simulator import Cloud, Fault, asgi
from tests.virtual import assert_accounted, client_of, cloud_of, slow_down, virtually

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

#: Seconds that answers take here; real ones on asyncio.
SLOW = 0.3


@asynccontextmanager
async def slow_cloud(servers: int = 12) -> AsyncIterator[tuple[Cloud, RestartClient]]:
    """Give a cloud in real time whose answers are slow, and a client that sends four at once."""
    cloud = Cloud(servers, reboot_seconds=(0.0, 0.0))
    slow_down(cloud, SLOW)
    async with client_of(cloud, max_at_once=4) as client:
        yield cloud, client


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another task brings about."""
    with anyio.fail_after(10.0):
        while not condition():
            await anyio.lowlevel.checkpoint()


def assert_drained(report: Report, cloud: Cloud) -> None:
    """Hold that the first four were awaited, and that no other was sent."""
    assert_accounted(report, cloud)
    assert report.summary == {Outcome.ACCEPTED: 4, Outcome.SKIPPED: 8}
    assert sum(cloud.posts.values()) == 4
    assert cloud.in_flight == 0


async def interrupted(cloud: Cloud, client: RestartClient, error: Exception) -> None:
    """Raise an error in the block of a run, and hold the account however that ends."""
    try:
        async with client.restarting(cloud.ids) as run:
            await until(lambda: cloud.in_flight == 4)
            raise error
    finally:
        assert_drained(run.report, cloud)
        assert run.report.stopped is not None


@BACKENDS
def test_an_error_in_the_block_comes_out_bare(backend: str) -> None:
    """The user's own exception ends the run and is raised as it is, in no group, after what was in flight is in."""

    async def main() -> None:
        async with slow_cloud() as (cloud, client):
            error = LookupError("mine")
            with pytest.raises(LookupError) as caught:
                await interrupted(cloud, client, error)
            assert caught.value is error

    anyio.run(main, backend=backend)


@BACKENDS
def test_a_stream_left_early(backend: str) -> None:
    """Leaving the block early sends nothing more, and awaits what is in flight."""

    async def main() -> None:
        async with slow_cloud() as (cloud, client):
            async with client.restarting(cloud.ids) as run:
                await until(lambda: cloud.in_flight == 4)
            assert_drained(run.report, cloud)

    anyio.run(main, backend=backend)


@BACKENDS
def test_a_time_limit_from_outside(backend: str) -> None:
    """`anyio.fail_after` raises its own TimeoutError, and the client is usable again afterwards."""

    async def main() -> None:
        async with slow_cloud() as (cloud, client):
            with pytest.raises(TimeoutError), anyio.fail_after(SLOW / 2):
                await client.restart(cloud.ids)
            assert sum(cloud.posts.values()) == 4
            assert cloud.in_flight == 0
            report = await client.restart(cloud.ids[4:], wait=False)
            assert report.summary == {Outcome.ACCEPTED: 8}

    anyio.run(main, backend=backend)


@BACKENDS
def test_stop(backend: str) -> None:
    """`Run.stop` sends nothing more, and follows what was sent to its end."""

    async def main() -> None:
        async with slow_cloud() as (cloud, client):
            async with client.restarting(cloud.ids, wait=False) as run:
                await until(lambda: cloud.in_flight == 4)
                run.stop()
                results = [result async for result in run]
            assert len(results) == 12
            assert_drained(run.report, cloud)
            assert run.report.stopped is not None
            assert run.report.stopped.reason is StopReason.ASKED

    anyio.run(main, backend=backend)


def test_stop_after_the_end() -> None:
    """A run that is over stays as it ended."""

    async def main() -> None:
        cloud = cloud_of(2)
        async with client_of(cloud) as client, client.restarting(cloud.ids) as run:
            async for _ in run:
                pass
            run.stop()
        assert run.report.summary == {Outcome.COMPLETED: 2}
        assert run.report.stopped is None
        assert run.statistics().finished == 2

    virtually(main)


def test_stop_settles_what_was_sent() -> None:
    """After `Run.stop` accepted servers are still waited for, and sends of unknown fate are looked for."""

    async def main() -> None:
        cloud = cloud_of(30)
        cloud.script(cloud.ids[0], Fault.commands_executing())
        cloud.script(cloud.ids[1], Fault.no_reply(applied=True))
        slow_down(cloud, 5.0, but=cloud.ids[:2])
        async with client_of(cloud, max_at_once=10) as client, client.restarting(cloud.ids) as run:
            await trio.sleep(0.001)
            run.stop()
            async for _ in run:
                pass
        assert_accounted(run.report, cloud)
        assert run.report.summary == {Outcome.COMPLETED: 11, Outcome.REFUSED: 1, Outcome.SKIPPED: 18}
        assert run.report.results[0].reason is Reason.STOPPED
        # The answer that asks to wait for 60 s may be to a second delivery of the send: it is looked for.
        assert run.report.elapsed < 75.0

    virtually(main)


def test_native_cancellation() -> None:
    """`Task.cancel` of asyncio ends the run: what is in flight is awaited first, and no task is left behind."""

    async def main() -> None:
        async with slow_cloud() as (cloud, client):
            runs: list[Run] = []

            async def drive() -> None:
                async with client.restarting(cloud.ids) as run:
                    runs.append(run)
                    async for _ in run:
                        pass

            tasks = asyncio.all_tasks()
            task = asyncio.create_task(drive())
            await until(lambda: cloud.in_flight == 4)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert_drained(runs[0].report, cloud)
            assert runs[0].report.stopped is not None
            assert runs[0].report.stopped.reason is StopReason.INTERRUPTED
            assert asyncio.all_tasks() == tasks

    asyncio.run(main())


def test_a_second_native_cancellation() -> None:
    """A second `Task.cancel` does not even await what is in flight: that is in doubt, and said to be."""

    async def main() -> None:
        cloud = Cloud(4)
        slow_down(cloud, 60.0)
        async with client_of(cloud) as client:
            runs: list[Run] = []

            async def drive() -> None:
                async with client.restarting(cloud.ids) as run:
                    runs.append(run)
                    await anyio.sleep_forever()

            task = asyncio.create_task(drive())
            await until(lambda: cloud.in_flight == 4)
            task.cancel()
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            assert not task.done()
            task.cancel()
            with anyio.fail_after(5.0), pytest.raises(asyncio.CancelledError):
                await task
            assert runs[0].report.summary == {Outcome.IN_DOUBT: 4}
            assert {result.reason for result in runs[0].report} == {Reason.INTERRUPTED}

    asyncio.run(main())


def test_the_drain_is_bounded() -> None:
    """What has no answer 10 s after a cancellation is given up, in doubt."""

    async def main() -> None:
        cloud = cloud_of(3)
        slow_down(cloud, 50.0)
        async with client_of(cloud) as client:
            began = trio.current_time()
            async with client.restarting(cloud.ids) as run:
                await trio.sleep(1.0)
            assert trio.current_time() - began == pytest.approx(11.0)
            assert run.report.summary == {Outcome.IN_DOUBT: 3}

    virtually(main)


def test_cancelled_while_looking() -> None:
    """A run that is cancelled before it learnt the fate of a send reports that server in doubt, and no other."""

    async def main() -> None:
        cloud = cloud_of(2)
        cloud.script(cloud.ids[0], Fault.no_reply(applied=False))
        async with client_of(cloud) as client, client.restarting(cloud.ids) as run:
            await trio.sleep(5.0)
        counts = run.statistics()
        assert (counts.finished, counts.accepted, counts.parked, counts.in_flight, counts.not_started) == (
            2,
            0,
            0,
            0,
            0,
        )
        first, second = run.report
        assert (first.outcome, first.reason) == (Outcome.IN_DOUBT, Reason.INTERRUPTED)
        assert second.outcome in (Outcome.ACCEPTED, Outcome.COMPLETED)

    virtually(main)


class Abrupt(BaseException):
    """Something that is no `Exception`."""


@BACKENDS
def test_what_a_lent_client_raises_beyond_exception(backend: str) -> None:
    """Even a BaseException out of a lent client's hook leaves the library bare."""

    async def main() -> None:
        cloud = Cloud(3)

        async def hook(request: httpx.Request) -> None:
            if request.method == "POST":
                raise Abrupt

        transport = httpx.ASGITransport(asgi(cloud))
        async with httpx.AsyncClient(transport=transport, event_hooks={"request": [hook]}) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
            with pytest.raises(Abrupt):
                await client.restart(cloud.ids)

    anyio.run(main, backend=backend)


@BACKENDS
def test_built_outside_a_loop_and_closed_in_another_task(backend: str) -> None:
    """A client holds no task group: it is built outside a loop, used in one task and closed in another."""
    client = RestartClient("http://127.0.0.1:9/v2.1/project", auth=Token("t"))

    async def main() -> None:
        async def use() -> None:
            assert len(await client.restart([])) == 0

        for step in (use, client.aclose):
            async with anyio.create_task_group() as group:
                group.start_soon(step)
        with pytest.raises(ValueError, match="closed"):
            await client.restart(["a"])

    anyio.run(main, backend=backend)


def test_pause_that_is_cancelled() -> None:
    """A cancellation that the function raises itself, as asyncio lets it, stops the run as any other failure of it."""

    async def decide(_: Report) -> bool:
        other = asyncio.create_task(asyncio.sleep(100.0))
        other.cancel()
        await other
        return True

    async def main() -> Report:
        cloud = Cloud(2, reboot_seconds=(0.0, 0.0))
        async with client_of(cloud) as client:
            return await client.restart(cloud.ids, rollout=Rollout(canary=1, pause=decide))

    report = asyncio.run(main())
    assert report.summary == {Outcome.COMPLETED: 1, Outcome.SKIPPED: 1}
    assert report.stopped == Stop(StopReason.PAUSE, "the function of pause was cancelled")
