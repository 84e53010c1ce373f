"""How fast a client goes makes no difference to what becomes of the servers of a real Nova."""

from typing import Literal

import pytest

from bulkrestart import RebootType, RestartClient, Token

from .bed import Nova
from .test_restart import assert_each_came_back, assert_rebooted_once


@pytest.mark.asyncio
async def test_max_per_second(nova: Nova) -> None:
    """Sends, polls and proofs are paced, and every server comes back; no two sends are closer than the rate allows."""
    ids = nova.take(10)
    async with RestartClient(nova.endpoint, auth=Token(nova.token), max_per_second=8.0) as client:
        report = await client.restart(ids)
    assert_each_came_back(report, ids)
    for result in report:
        assert_rebooted_once(nova, result)
    sends = sorted(result.attempts[0].sent_at for result in report)
    # Two intervals less the lateness that a timer is allowed to make up for.
    assert all(later - earlier > 2 / 8.0 - 0.01 for earlier, later in zip(sends, sends[2:], strict=False))


@pytest.mark.asyncio
@pytest.mark.parametrize("reboot_type", RebootType)
@pytest.mark.parametrize("adaptive", [False, "latency"])
async def test_adaptive(nova: Nova, adaptive: bool | Literal["latency"], reboot_type: RebootType) -> None:
    """Whatever finds how many requests are at once, each server is sent one, and comes back once."""
    ids = nova.take(15)
    async with RestartClient(nova.endpoint, auth=Token(nova.token), max_at_once=100, adaptive=adaptive) as client:
        report = await client.restart(ids, reboot_type=reboot_type)
    assert_each_came_back(report, ids)
    for result in report:
        assert_rebooted_once(nova, result)
        assert nova.posts(result.server_id) == 1
