"""Faults of requests and of fleets, as values."""

import json
from dataclasses import fields
from itertools import islice
from random import Random
from typing import Any

import pytest

from bulkrestart.core.model import RebootType
from bulkrestart.simulator import Call, Cloud, Fault, Faults, HostFault, ManualClock
from bulkrestart.simulator.faults import SHARES, Lot
from bulkrestart.simulator.filters import Filter

WORDS = """
busy throttled gateway_throttled flow_limited commands_executing error_before error_after lost_before lost_after late
slow raced delivered_twice
"""
REQUEST_FAULTS = WORDS.split()


def test_a_fault_does_something() -> None:
    """A fault without an answer, a lost reply or a request to carry out would answer nothing, and is refused."""
    with pytest.raises(ValueError, match="needs an answer"):
        Fault()


def test_throttled() -> None:
    """Retry-After stands in the header and, as a string, in the body; or in neither."""
    answer = Fault.throttled(3.0, status=413).answer
    assert answer is not None
    assert (answer.status, answer.headers["retry-after"]) == (413, "3")
    assert json.loads(answer.body)["overLimit"]["retryAfter"] == "3"
    silent = Fault.throttled(None).answer
    assert silent is not None
    assert "retry-after" not in silent.headers
    assert "retryAfter" not in json.loads(silent.body)["overLimit"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault.gateway_throttled(), 429, "APIGW.0308"),
        (Fault.flow_limited(), 202, "Common.0024"),
        (Fault.commands_executing(), 501, "Ecs.0603"),
    ],
)
def test_gateway_answers(fault: Fault, status: int, code: str) -> None:
    """A gateway's answer has its own code, and no request id of Nova's; the request is not carried out."""
    assert fault.answer is not None
    assert (fault.answer.status, fault.answer.from_nova, fault.applied_after) == (status, False, None)
    assert code in fault.answer.body.decode()


@pytest.mark.parametrize("share", REQUEST_FAULTS)
def test_every_share_is_met(share: str) -> None:
    """A share of 1 deals its fault to every server, as often as told."""
    for lot in islice(shares(**{share: 1.0, "times": 2}).lots(Random(0)), 20):
        assert len(lot.faults) == 2
        assert lot.faults[0] == lot.faults[1]
        assert (lot.state, lot.host_fault) == (None, None)


@pytest.mark.parametrize("name", [field.name for field in fields(Faults)])
def test_shares_are_named(name: str) -> None:
    """What is named a share deals something when it is 1; what is not, a duration or a count, deals nothing."""
    lot = next(shares(**{name: 1}).lots(Random(0)))
    assert (lot != Lot(state=None, faults=(), host_fault=None)) is (name in SHARES)


def shares(**asked: Any) -> Faults:
    """Make shares of names that are only known at run time."""
    return Faults(**asked)


def test_dealt_faults_are_met() -> None:
    """A server's dealt faults are what its first requests and its first reboot meet."""
    cloud = Cloud(1, faults=Faults(throttled=1.0, times=2, hang=1.0), clock=(clock := ManualClock()))
    met = [cloud.arrive(Call.REBOOT, cloud.ids[0])[1] for _ in range(3)]
    assert met == [Fault.throttled(), Fault.throttled(), None]
    cloud.reboot(cloud.ids[0], RebootType.SOFT)
    clock.advance(60)
    assert cloud.server(cloud.ids[0]).task_state == "reboot_started"


@pytest.mark.parametrize("share", ["locked", "stopped", "error"])
def test_states_at_birth(share: str) -> None:
    """A share of states is there from the beginning, and does not count as a change."""
    cloud = Cloud(5, faults=shares(**{share: 1.0}), clock=ManualClock())
    server = cloud.server(cloud.ids[0])
    assert {
        "locked": (True, "active", 1, False),
        "stopped": (False, "stopped", 4, False),
        "error": (False, "error", 4, True),
    }[share] == (server.locked, server.vm_state, server.power_state, server.fault is not None)
    assert cloud.page(cloud.project_id, limit=5, only=Filter(changes_since=cloud.now)) == []


@pytest.mark.parametrize("fault", [HostFault.DEAD, HostFault.ALIVE, HostFault.HANG, HostFault.REVERTED])
def test_host_shares(fault: HostFault) -> None:
    """A share of host faults is dealt too."""
    assert next(shares(**{fault.value: 1.0}).lots(Random(0))).host_fault is fault


def test_shares_are_about_what_is_asked() -> None:
    """Of many servers, about the asked share meets each fault, and the three draws do not depend on each other."""
    faults = Faults(lost_after=0.2, throttled=0.3, locked=0.5, alive=0.1)
    lots = list(islice(faults.lots(Random(7)), 5000))
    lost = sum(lot.faults == (Fault.no_reply(applied=True),) for lot in lots)
    both = sum(bool(lot.faults) and lot.state == "locked" for lot in lots)
    assert abs(lost / 5000 - 0.2) < 0.03
    assert abs(both / 5000 - 0.25) < 0.03


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"busy": 1.1}, "between 0 and 1"),
        ({"locked": -0.1}, "between 0 and 1"),
        ({"dead": 0.6, "hang": 0.6}, "over 1 in sum"),
    ],
)
def test_impossible_shares(asked: dict[str, float], message: str) -> None:
    """Shares that cannot be are refused."""
    with pytest.raises(ValueError, match=message):
        shares(**asked)


def test_ten_tenths() -> None:
    """Shares that fill the fleet exactly are not refused for a rounding error."""
    faults = shares(**dict.fromkeys(REQUEST_FAULTS[:10], 0.1))
    assert all(lot.faults for lot in islice(faults.lots(Random(0)), 100))
