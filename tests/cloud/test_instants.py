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
    monkeypatch.setattr(instants, "_suspension", instants._Suspension())
    monkeypatch.setattr(time, "clock_gettime", read.__getitem__)

    assert instants._suspended() == 180.0


@pytest.mark.skipif(instants._CLOCKS is None, reason="the system has no clock that counts suspension")
def test_the_time_between_two_readings_is_no_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clocks are never read at once: what passes between them neither adds to an age nor takes from it."""
    assert instants._CLOCKS is not None
    counting, _ = instants._CLOCKS
    now = 1000.0

    def read(clock: int) -> float:
        nonlocal now
        now += 0.000_003 if clock == counting else 0.07
        return now + (180.0 if clock == counting else 0.0)

    monkeypatch.setattr(instants, "_suspension", instants._Suspension())
    monkeypatch.setattr(time, "clock_gettime", read)

    first = instants._suspended()
    assert first == pytest.approx(180.0, abs=0.1)
    assert {instants._suspended() for _ in range(100)} == {first}


def test_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such clock, only the event loop's and the one on the wall tell an age."""
    monkeypatch.setattr(instants, "_CLOCKS", None)

    assert instants._suspended() == 0.0
