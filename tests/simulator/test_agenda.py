"""Time: what is due happens in order and at its own time, when somebody looks."""

from functools import partial

import pytest

from bulkrestart.core.model import RebootType
from bulkrestart.simulator import Cloud, ManualClock
from bulkrestart.simulator.agenda import Agenda


def test_order() -> None:
    """Entries are done by their time, and those of one time as they came; each sees its own time."""
    agenda, seen = Agenda(100.0), list[tuple[str, float]]()

    def see(name: str) -> None:
        seen.append((name, agenda.now))

    for name, seconds in (("c", 5), ("a", 2), ("b", 2), ("not yet", 6)):
        agenda.add(seconds, partial(see, name))
    agenda.run_until(105.0)
    assert seen == [("a", 102.0), ("b", 102.0), ("c", 105.0)]
    assert agenda.now == 105.0


def test_entry_that_looks() -> None:
    """An entry that looks at the agenda sees its own time, and what it adds has its turn in the same run."""
    agenda, seen = Agenda(100.0), list[float]()

    def look() -> None:
        agenda.run_until(200.0)
        seen.append(agenda.now)
        agenda.add(1, lambda: seen.append(agenda.now))

    agenda.add(2, look)
    agenda.run_until(110.0)
    assert seen == [102.0, 103.0]


def test_entry_that_fails() -> None:
    """An entry that fails is done with: the next look goes on behind it."""
    agenda, seen = Agenda(100.0), list[float]()
    agenda.add(1, lambda: 1 / 0)
    agenda.add(2, lambda: seen.append(agenda.now))
    with pytest.raises(ZeroDivisionError):
        agenda.run_until(110.0)
    agenda.run_until(110.0)
    assert seen == [102.0]


def test_time_passes_at_once(cloud: Cloud, clock: ManualClock) -> None:
    """However long nobody looked, what was due happened in order and at its own time."""
    rows = [cloud.reboot(server_id, RebootType.SOFT) for server_id in cloud.ids]
    began = clock()
    clock.advance(3600)
    assert set(cloud.cycles.values()) == {1}
    assert {row.event_finish for row in rows} == {began + 10}
    assert {cloud.server(server_id).updated for server_id in cloud.ids} == {began + 10}


def test_clock_never_runs_back(cloud: Cloud, clock: ManualClock) -> None:
    """A clock that is set back does not take the cloud back with it."""
    now = cloud.now
    cloud.clock = lambda: clock() - 100
    assert cloud.now == now


def test_later(cloud: Cloud, clock: ManualClock) -> None:
    """What is put on the agenda happens in its turn, and sees the time of its turn."""
    began, seen = clock(), list[float]()
    cloud.later(5, lambda: seen.append(cloud.now))
    cloud.later(2, lambda: seen.append(cloud.now))
    clock.advance(60)
    cloud.catch_up()
    assert seen == [began + 2, began + 5]


def test_clock_turns_forward_only() -> None:
    """A manual clock is not turned back."""
    clock = ManualClock(5.0)
    clock.advance(1.5)
    assert clock() == 6.5
    with pytest.raises(ValueError, match="forward only"):
        clock.advance(-1)
