"""Waves, budgets and what is down at once, held against a real Nova by its own action log."""

from collections.abc import Sequence

import pytest

from bulkrestart import Outcome, Reason, RestartClient, Rollout, StopReason, Token

from .bed import Nova


def peak_down(nova: Nova, ids: Sequence[str]) -> int:
    """Tell how many of the servers were down at once, at most."""
    spans = [nova.downtime(server_id) for server_id in ids if nova.reboots(server_id)]
    return max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)


def client_of(nova: Nova) -> RestartClient:
    """Give a client of the project."""
    return RestartClient(nova.endpoint, auth=Token(nova.token))


@pytest.mark.asyncio
async def test_max_down(nova: Nova) -> None:
    """No more servers are down at once than may be, though more requests could be made."""
    ids = nova.take(10)
    with nova.knobs(reboot_seconds=1):
        async with client_of(nova) as client:
            report = await client.restart(ids, rollout=Rollout(max_down=3))
    assert report.summary == {Outcome.COMPLETED: 10}
    assert peak_down(nova, ids) == 3


@pytest.mark.asyncio
async def test_canary_and_waves(nova: Nova) -> None:
    """Each wave begins when every server of the last is back."""
    ids = nova.take(7)
    with nova.knobs(reboot_seconds=0.5):
        async with client_of(nova) as client:
            report = await client.restart(ids, rollout=Rollout(canary=1, wave="50%"))
    assert report.summary == {Outcome.COMPLETED: 7}
    before = 0.0
    for wave in (ids[:1], ids[1:4], ids[4:]):
        spans = [nova.downtime(server_id) for server_id in wave]
        assert min(began for began, _ in spans) >= before
        before = max(ended for _, ended in spans)


@pytest.mark.asyncio
@pytest.mark.parametrize("max_failures", [0, 1])
async def test_budget_as_a_guarantee(nova: Nova, max_failures: int) -> None:
    """Where every reboot fails, no more servers fail than the budget and one, and the rest are not touched."""
    ids = nova.take(6)
    rollout = Rollout(max_down="budget", max_failures=max_failures)
    with nova.knobs(reboot_fail="dead"):
        async with client_of(nova) as client:
            report = await client.restart(ids, rollout=rollout)
    assert report.summary == {Outcome.FAILED: max_failures + 1, Outcome.SKIPPED: 5 - max_failures}
    assert report.stopped is not None
    assert report.stopped.reason is StopReason.MAX_FAILURES
    assert sum(nova.posts(server_id) for server_id in ids) == max_failures + 1


@pytest.mark.asyncio
async def test_servers_that_hang_stay_down(nova: Nova) -> None:
    """A host that does not answer holds its place, and the run stops when all places are held so."""
    ids = nova.take(5)
    with nova.knobs(reboot_hang=True):
        async with client_of(nova) as client:
            report = await client.restart(ids, rollout=Rollout(max_down=2), wait_timeout=8.0)
    assert report.summary == {Outcome.FAILED: 2, Outcome.SKIPPED: 3}
    assert [result.reason for result in report][:3] == [Reason.NOT_BACK, Reason.NOT_BACK, Reason.STOPPED]
    assert report.stopped is not None
    assert report.stopped.reason is StopReason.MAX_DOWN


@pytest.mark.asyncio
async def test_one_of_a_host_at_a_time(nova: Nova) -> None:
    """All servers of this Nova are on one host, so they go one after another; and none is in a server group."""
    ids = nova.take(3)
    with nova.knobs(reboot_seconds=0.5):
        async with client_of(nova) as client:
            spread = await client.anti_affinity()
            assert [spread(server) async for server in client.servers(name="^none$")] == []
            report = await client.restart(ids, rollout=Rollout(spread="host"))
    assert report.summary == {Outcome.COMPLETED: 3}
    assert peak_down(nova, ids) == 1


@pytest.mark.asyncio
async def test_plan(nova: Nova) -> None:
    """A plan tells locked, stopped and unknown servers, and nothing is sent."""
    good, locked, stopped = nova.take(3)
    nova.act(locked, "lock")
    nova.act(stopped, "os-stop", status="SHUTOFF")
    stranger = "616fb98f-46ca-475e-917e-2563e5a8cd19"
    async with client_of(nova) as client:
        plan = await client.plan([good, locked, stopped, stranger], rollout=Rollout(canary=1, spread="az"))
    reasons = [one.reason for one in plan.forecasts]
    assert reasons == [None, Reason.LOCKED, Reason.WRONG_STATE, Reason.NOT_FOUND]
    assert [one.domain for one in plan.forecasts][:3] == ["nova"] * 3
    assert [nova.posts(server_id) for server_id in (good, locked, stopped)] == [0, 0, 0]
