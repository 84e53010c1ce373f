"""Reboot requests over a limit: who is let in, and what the others are told."""

import pytest

from bulkrestart.simulator import Call, Cloud, Face, Fault, ManualClock

WINDOW = "policy user over ratelimit,limit:2,time:60 second"


def arrive(cloud: Cloud, count: int) -> list[Fault | None]:
    """Let reboot requests arrive, and give what each meets."""
    return [cloud.arrive(Call.REBOOT, cloud.ids[0])[1] for _ in range(count)]


def waits(cloud: Cloud, count: int) -> list[int]:
    """Let reboot requests arrive, and give the Retry-After of each; 0: it was let in."""
    met = arrive(cloud, count)
    return [int(fault.answer.headers["retry-after"]) if fault and fault.answer else 0 for fault in met]


@pytest.mark.parametrize("face", Face)
def test_without_a_limit(clock: ManualClock, face: Face) -> None:
    """Without a limit every request is let in."""
    assert arrive(Cloud(1, clock=clock, face=face), 50) == [None] * 50


@pytest.mark.parametrize("face", Face)
def test_only_reboots_are_limited(clock: ManualClock, face: Face) -> None:
    """Requests of other kinds neither count nor are refused."""
    cloud = Cloud(1, clock=clock, face=face, rate_limit=(1, 60.0))
    arrive(cloud, 1)
    assert cloud.arrive(Call.SHOW, cloud.ids[0])[1] is None
    assert arrive(cloud, 1) != [None]


def test_windows_one_after_another(clock: ManualClock) -> None:
    """Nova's throttle tells those over the limit to wait for the window's end, and then lets them in."""
    cloud = Cloud(1, clock=clock, rate_limit=(2, 60.0))
    assert waits(cloud, 3) == [0, 0, 60]
    clock.advance(19.5)
    assert waits(cloud, 1) == [41]
    clock.advance(40.5)
    assert waits(cloud, 3) == [0, 0, 60]


def test_rolling_window(clock: ManualClock) -> None:
    """The gateway lets in as many as its limit in any window, and tells the others how long one is, but not when."""
    cloud = Cloud(1, clock=clock, face=Face.HUAWEI, rate_limit=(2, 60.0))
    assert arrive(cloud, 1) == [None]
    clock.advance(30)
    assert arrive(cloud, 1) == [None]
    clock.advance(30)
    assert arrive(cloud, 1) == [None]
    [refused] = arrive(cloud, 1)
    assert refused is not None
    assert refused.answer is not None
    assert refused.answer.status == 429
    assert b'"error_code": "APIGW.0308"' in refused.answer.body
    assert WINDOW.encode() in refused.answer.body
    assert "retry-after" not in refused.answer.headers


def test_refused_requests_count(clock: ManualClock) -> None:
    """Who goes on asking the gateway within its window is never let in; who waits for a whole window is."""
    cloud = Cloud(1, clock=clock, face=Face.HUAWEI, rate_limit=(1, 60.0))
    assert arrive(cloud, 1) == [None]
    for _ in range(10):
        clock.advance(59)
        assert arrive(cloud, 1) != [None]
    clock.advance(60)
    assert arrive(cloud, 1) == [None]
