"""The attacks on a run, at small counts: no server is rebooted twice by us, lost, or reported falsely.

`python -m tests.attacks` plays the same worlds at their full counts.
"""

import pytest

from bulkrestart import Outcome
from tests.attacks import PARTS, duplicates, lags, late_rows, reverted, tally_of, words
from tests.stops import When, stop_processes
from tests.worlds import World, play

#: The worlds of each part at small counts.
SMALL: dict[str, list[World]] = {
    "duplicates": list(duplicates(180, fleet=10)),
    "lags": list(lags(20, seconds=(0, 11, 30))),
    "reverted": list(reverted(3)),
    "words": list(words(3)),
    "late rows": list(late_rows(20)),
}
#: Seconds for which a look stands before a send in processes that are stopped, and for which they are stopped.
LOOK_LIFE = 3.0
STOPPED = 8.0


#: The share of a world's servers that may be in doubt, where not a tenth. Where every send is delivered twice no server
#: is accepted: nothing tells who we are, or how the log's clock compares with `Date`.
DOUBTS = {"words": 1.0}


def worlds() -> list[object]:
    """Give each world as a test of its own, named by what it is an example of."""
    return [
        pytest.param(world, DOUBTS.get(part, 0.1), id=f"{part}: {', '.join(world.kinds)}: {number}")
        for part, some in SMALL.items()
        for number, world in enumerate(some)
    ]


@pytest.mark.unmeasured
@pytest.mark.parametrize(("world", "doubts"), worlds())
def test_attack(world: World, doubts: float) -> None:
    """Where a send is delivered twice, or reads are late or do not tell, no promise is broken, and few are in doubt."""
    account = play(world)

    assert account.broken == []
    assert account.doubts + account.fair_doubts <= doubts * len(account.ids)


@pytest.mark.unmeasured
@pytest.mark.parametrize("world", SMALL["reverted"], ids=lambda world: ", ".join(world.kinds))
def test_a_reboot_that_never_reached_the_guest(world: World) -> None:
    """A row that says Error is found by action, user and time where its id is not known: the server has failed."""
    report = play(world).report

    assert report is not None
    assert {result.outcome for result in report} == {Outcome.FAILED}


# httpx does not close the stream below `aiter_raw` when a process is killed between two pieces of a body.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")
@pytest.mark.unmeasured
def test_drawn_worlds() -> None:
    """Where all of it is mixed with lost replies, other users and processes that end, no promise is broken."""
    make, _ = PARTS["drawn"]

    assert tally_of(make(100, 0)).broken == []


@pytest.mark.unmeasured
def test_stopped_between_look_and_send() -> None:
    """A process that is stopped between its look and its send looks again, and leaves alone what was done meanwhile."""
    stops = stop_processes(4, STOPPED, whens=(When.BEFORE,), look_life=LOOK_LIFE)

    assert len(stops.each) == 4
    assert not any(one.has_sent_before for one in stops.each)
    assert stops.broken == []
