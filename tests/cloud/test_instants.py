"""The present moment, on clocks of this machine that count the time in which it stood still."""

import time

import anyio
import pytest

from bulkrestart.cloud import instants


@pytest.mark.asyncio
async def test_present_moment() -> None:
    """An instant is read from the event loop, the machine and the clock on the wall; nothing has passed since."""
    then = instants.current_instant()
    now = instants.current_instant()

    assert 0.0 <= then.age(now) < 60.0
    assert then.wall == pytest.approx(time.time(), abs=60.0)
    assert instants.boottime() == pytest.approx(anyio.current_time() + then.suspended, abs=60.0)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="the system has no clock that counts suspension")
def test_suspension_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC is the time that the machine has been suspended."""
    read = {time.CLOCK_BOOTTIME: 1180.0, time.CLOCK_MONOTONIC: 1000.0}
    monkeypatch.setattr(time, "clock_gettime", read.__getitem__)

    assert instants._suspended() == 180.0


def test_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such clock, only the event loop's and the one on the wall tell an age."""
    monkeypatch.setattr(instants, "_CLOCKS", None)

    assert instants._suspended() == 0.0
