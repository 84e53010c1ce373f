"""A network that fails before a real Nova never doubles a reboot and never loses a server, by Nova's own logs."""

from itertools import cycle

import pytest

from bulkrestart import RebootType, RestartClient, Token
from tests.faulty_proxy import QUICK_SENDS, faulty_proxy, first_sends, seeded

from .bed import Nova
from .test_restart import assert_each_came_back, assert_rebooted_once

#: Seconds after which a late request is delivered: half of the grace of a SOFT.
LATE = 5.0


@pytest.mark.asyncio
@pytest.mark.parametrize(("reboot_type", "count"), [(RebootType.SOFT, 24), (RebootType.HARD, 12)])
async def test_a_fleet_comes_back(
    nova: Nova, monkeypatch: pytest.MonkeyPatch, reboot_type: RebootType, count: int
) -> None:
    """Every server is rebooted once, and one request reaches Nova for it, whatever became of that or of its answer."""
    # HARD and time-outs have 90 s, for gateways that deliver as late as that; this proxy is never that late.
    monkeypatch.setattr("bulkrestart.core.look.LATE_GRACE", 15.0)
    ids = nova.take(count)
    fates = dict(zip(ids, cycle([None, *QUICK_SENDS]), strict=False))  # each kind as often
    choose = first_sends(fates, seeded(1, sends=0.0, looks=0.1, connections=0.1))
    with faulty_proxy(nova.endpoint, choose, late=LATE) as proxy:
        async with RestartClient(proxy.endpoint, auth=Token(nova.token)) as client:
            report = await client.restart(ids, reboot_type=reboot_type)
    assert proxy.sends == dict.fromkeys(QUICK_SENDS, count // 6)
    assert_each_came_back(report, ids)
    for result in report.results:
        assert_rebooted_once(nova, result)
