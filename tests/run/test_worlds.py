"""Whatever goes wrong, and wherever a run is cut off, each server is rebooted once at most and accounted for."""

import random
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkrestart import Outcome, RebootType
from bulkrestart.simulator import Call, Fault
from tests.worlds import Cut, Deed, Doing, Fate, Moment, Outage, Way, World, play, world_of

HARD: Final = RebootType.HARD
LOST: Final = Fault.no_reply(applied=True)
NEVER_CAME: Final = Fault.no_reply(applied=False)
#: A kill between the intent and the send; with the send at the cloud; with its answer in; while it is waited for.
BEFORE: Final = Cut(moment=Moment.LEAVING)
DURING: Final = Cut(moment=Moment.REACHED)
AFTER: Final = Cut(moment=Moment.ANSWERED)
SETTLING: Final = Cut(moment=Moment.TIME, number=1.0)

#: A world of one server, what becomes of it, and how many requests for a reboot leave.
ONE: Final[dict[str, tuple[World, Outcome, int]]] = {
    "nothing goes wrong": (World(), Outcome.COMPLETED, 1),
    "before there is a journal": (World(cuts=(Cut(moment=Moment.COMMITTING),)), Outcome.COMPLETED, 1),
    "before the run is in the journal": (World(cuts=(Cut(moment=Moment.COMMITTED, number=2),)), Outcome.COMPLETED, 1),
    "half of the run is in the journal": (World(cuts=(Cut(moment=Moment.COMMITTING, number=3),)), Outcome.COMPLETED, 1),
    "half of the intent is": (World(cuts=(Cut(moment=Moment.COMMITTING, number=4),)), Outcome.COMPLETED, 1),
    "between the intent and the send": (World(cuts=(BEFORE,)), Outcome.COMPLETED, 1),
    "the send is at the cloud": (World(cuts=(DURING,)), Outcome.COMPLETED, 1),
    "its answer is about to be seen": (World(cuts=(AFTER,)), Outcome.COMPLETED, 1),
    "right after the acceptance": (World(cuts=(SETTLING,)), Outcome.COMPLETED, 1),
    "accepted, and nobody waits": (World(wait=False, cuts=(AFTER,)), Outcome.ACCEPTED, 1),
    "the result was given, and not written": (World(cuts=(Cut(moment=Moment.RESULT),)), Outcome.COMPLETED, 1),
    "unresolved, and it was carried out": (
        World(fates=(Fate(sends=(LOST,)),), cuts=(Cut(moment=Moment.TIME, number=0.1),)),
        *(Outcome.COMPLETED, 1),
    ),
    "unresolved, and it was not": (
        World(fates=(Fate(sends=(NEVER_CAME,)),), cuts=(Cut(moment=Moment.TIME, number=5.0),)),
        *(Outcome.COMPLETED, 2),
    ),
    "carried out seconds after the reply was lost": (
        World(fates=(Fate(sends=(Fault.late(8.0),)),)),
        *(Outcome.COMPLETED, 1),
    ),
    "carried out a minute after the kill": (
        World(fates=(Fate(sends=(Fault(applied_after=75.0),)),), cuts=(replace(SETTLING, pause=0.0),)),
        *(Outcome.COMPLETED, 1),
    ),
    "carried out after two kills": (
        World(
            fates=(Fate(sends=(Fault(applied_after=75.0),)),),
            cuts=(replace(SETTLING, pause=0.0), Cut(moment=Moment.TIME, number=20.0, pause=0.0)),
        ),
        *(Outcome.COMPLETED, 1),
    ),
    "twice before the send": (World(cuts=(BEFORE, BEFORE)), Outcome.COMPLETED, 1),
    "before the send, and during the next": (World(cuts=(BEFORE, DURING)), Outcome.COMPLETED, 1),
    "during the send, and while it is looked for": (
        World(fates=(Fate(sends=(LOST,)),), cuts=(DURING, Cut(moment=Moment.ASKED, number=2), AFTER)),
        *(Outcome.COMPLETED, 1),
    ),
    "a long time, and the clock is set back": (
        World(cuts=(replace(DURING, pause=1000.0, wall=-3600.0),)),
        *(Outcome.COMPLETED, 1),
    ),
    "throttled, and before the second send": (
        World(fates=(Fate(sends=(Fault.throttled(20.0),)),), cuts=(replace(BEFORE, number=2),)),
        *(Outcome.COMPLETED, 2),
    ),
    "refused for a minute, and then cancelled": (
        World(
            fates=(Fate(sends=(Fault.commands_executing(),)),),
            cuts=(Cut(moment=Moment.TIME, number=3.0, way=Way.CANCEL),),
        ),
        *(Outcome.COMPLETED, 2),
    ),
    "stopped while it is unresolved": (
        World(fates=(Fate(sends=(NEVER_CAME,)),), cuts=(Cut(moment=Moment.TIME, number=3.0, way=Way.STOP),)),
        *(Outcome.COMPLETED, 2),
    ),
    "escalated, and before the HARD": (
        World(fates=(Fate(born={"vm_state": "paused"}),), escalate=True, cuts=(replace(BEFORE, number=2),)),
        # The log of a fleet of one has never shown a reboot of ours, and Nova takes a second HARD.
        *(Outcome.IN_DOUBT, 1),
    ),
    "HARD, alone, and before the send": (World(reboot_type=HARD, cuts=(BEFORE,)), Outcome.IN_DOUBT, 0),
    "HARD, alone, and during the send": (World(reboot_type=HARD, cuts=(DURING,)), Outcome.COMPLETED, 1),
    "since, and during the send": (World(since=100.0, cuts=(DURING,)), Outcome.COMPLETED, 1),
    "since, and somebody reboots it meanwhile": (
        World(fates=(Fate(deeds=(Deed(30.0, Doing.SOFT),)),), since=10.0, cuts=(replace(BEFORE, pause=100.0),)),
        *(Outcome.COMPLETED, 0),
    ),
    "somebody reboots it before the send that was killed": (
        World(fates=(Fate(deeds=(Deed(-60.0, Doing.SOFT),)),), cuts=(BEFORE,)),
        # Who we are in the log is not known before it has shown a reboot of ours, nor how its clock compares.
        *(Outcome.IN_DOUBT, 0),
    ),
    "deleted after the send that was killed": (
        World(fates=(Fate(deeds=(Deed(5.0, Doing.DELETE),)),), cuts=(replace(DURING, pause=10.0),)),
        *(Outcome.IN_DOUBT, 1),
    ),
    "the cloud is out when it is taken up": (
        World(outage=Outage(1.0, 60.0, Fault.error(503)), cuts=(DURING,)),
        *(Outcome.COMPLETED, 1),
    ),
    "the log fails when it is taken up": (
        World(fates=(Fate(looks=((Call.LOG, Fault.error(500)), (Call.LOG, Fault.error(500)))),), cuts=(DURING,)),
        *(Outcome.COMPLETED, 1),
    ),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize(("world", "outcome", "sends"), ONE.values(), ids=ONE)
def test_one_server(world: World, outcome: Outcome, sends: int) -> None:
    """Wherever a run of one server is cut off, it is sent to as often as it has to be, and rebooted once at most."""
    account = play(world)

    assert account.broken == []
    assert account.report is not None
    assert [result.outcome for result in account.report] == [outcome]
    assert account.sends.total() == sends


def test_what_looks_back_waits_as_well() -> None:
    """With `since`, no request of a look before a send leaves while the cloud has asked everybody to wait."""
    throttled, slow = Fate(sends=(Fault.throttled(20.0),)), Fate(looks=((Call.SHOW, Fault.slow(2.0)),))

    assert play(World(fates=(throttled, slow), since=180.0, latency=0.5)).broken == []


@pytest.mark.unmeasured
@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("reboot_type", RebootType)
def test_any_moment(reboot_type: RebootType, moment: Moment) -> None:
    """Three servers, two replies lost: whenever the run is killed, all are rebooted once and come back.

    A HARD may stay in doubt, where the log has shown no reboot of which an answer told the id.
    """
    fates = (Fate(), Fate(sends=(LOST,)), Fate(sends=(NEVER_CAME,)))
    for number in range(1, 7):
        world = World(reboot_type=reboot_type, fates=fates, cuts=(Cut(moment=moment, number=number),))
        account = play(world)

        assert account.broken == [], world
        assert account.report is not None
        doubts = account.report.summary.get(Outcome.IN_DOUBT, 0) if reboot_type is HARD else 0
        assert account.report.summary.get(Outcome.COMPLETED, 0) == len(fates) - doubts, world


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(rng=st.randoms(use_true_random=False), servers=st.integers(1, 4))
def test_any_world(rng: random.Random, servers: int) -> None:
    """Whatever the cloud, the network, other users and the ends of processes do, no promise is broken."""
    world = world_of(rng, servers)

    assert play(world).broken == [], world
