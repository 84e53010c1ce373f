"""An API that works on so many requests at once: the others queue, and are carried out in their turn."""

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.simulator import Cloud, Fault, asgi
from bulkrestart.simulator.workers import Workers
from tests.virtual import cloud_of, virtually

REBOOT = {"reboot": {"type": "SOFT"}}


def test_more_than_there_are_workers_queue() -> None:
    """Two workers are done with five requests that come at once after 1, 1, 2, 2 and 3 turns."""
    workers = Workers()

    assert [workers.take(2, 10.0, now=5.0) for _ in range(5)] == [10.0, 10.0, 20.0, 20.0, 30.0]


def test_who_comes_when_a_worker_is_free_does_not_queue() -> None:
    """What has been done is forgotten."""
    workers = Workers()
    workers.take(1, 10.0, now=0.0)

    assert [workers.take(1, 10.0, now=now) for now in (9.0, 20.0, 31.0)] == [11.0, 10.0, 10.0]


@given(at_once=st.integers(1, 5), gaps=st.lists(st.floats(0.0, 3.0), max_size=50))
def test_no_worker_does_two_things_at_a_time(at_once: int, gaps: list[float]) -> None:
    """At no moment are there more at work than workers, and nobody queues before one that is free."""
    workers, now = Workers(), 0.0
    spans: list[tuple[float, float]] = []
    for gap in gaps:
        now += gap
        end = now + workers.take(at_once, 1.0, now=now)
        ahead = sum(until > now for _, until in spans)
        assert end >= now + 1.0 - 1e-9
        assert ahead >= at_once or end == pytest.approx(now + 1.0)
        spans.append((end - 1.0, end))
    for begin, _ in spans:
        assert sum(first <= begin + 1e-9 < until - 1e-9 for first, until in spans) <= at_once


async def post(cloud: Cloud, server_id: str) -> int:
    """Ask for a reboot, and give the status."""
    transport = httpx.ASGITransport(asgi(cloud, lost=httpx.ReadError))
    async with httpx.AsyncClient(transport=transport, headers={"X-Auth-Token": cloud.token}) as http:
        url = f"http://cloud.test/v2.1/{cloud.project_id}/servers/{server_id}/action"
        return (await http.post(url, json=REBOOT)).status_code


def test_latency_grows_with_how_many_are_at_once() -> None:
    """Ten requests at once to an API that works on two for a second each are answered two a second."""

    async def main() -> None:
        cloud = cloud_of(10, capacity=(2, 1.0))
        times = []

        async def ask(server_id: str) -> None:
            assert await post(cloud, server_id) == 202
            times.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for server_id in cloud.ids:
                nursery.start_soon(ask, server_id)
        assert sorted(times) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0]

    virtually(main)


def test_it_is_carried_out_in_its_turn_though_its_client_is_gone() -> None:
    """Who gives up waiting in the queue is not taken out of it."""

    async def main() -> None:
        cloud = cloud_of(2, capacity=(1, 30.0), reboot_seconds=(0.0, 0.0))
        first, second = cloud.ids
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, cloud, first)
            await trio.sleep(0.1)
            with trio.move_on_after(10.0):
                await post(cloud, second)
            assert cloud.cycles == {first: 0, second: 0}
        await trio.sleep(29.0)
        assert cloud.cycles == {first: 1, second: 0}
        await trio.sleep(2.0)
        assert cloud.cycles == {first: 1, second: 1}

    virtually(main)


def test_what_is_answered_in_the_api_s_place_does_not_queue() -> None:
    """A gateway that throttles does so at once, however long the queue behind it is."""

    async def main() -> None:
        cloud = cloud_of(2, capacity=(1, 30.0))
        cloud.script(cloud.ids[1], Fault.throttled(1.0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, cloud, cloud.ids[0])
            await trio.sleep(0.1)
            assert await post(cloud, cloud.ids[1]) == 429
            assert trio.current_time() == pytest.approx(0.1)

    virtually(main)


def test_a_reply_that_is_lost_is_lost_after_the_queue() -> None:
    """What is carried out and then lost has waited for its turn as well."""

    async def main() -> None:
        cloud = cloud_of(1, capacity=(1, 5.0))
        cloud.script(cloud.ids[0], Fault.no_reply(applied=True))
        with pytest.raises(httpx.ReadError):
            await post(cloud, cloud.ids[0])
        assert trio.current_time() == 5.0

    virtually(main)
