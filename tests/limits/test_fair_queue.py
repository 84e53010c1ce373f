"""Whose turn it is: looks before sends, first come first served, and nobody behind a flow that has no room."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.limits.fair_queue import FairQueue
from bulkrestart.limits.permit import BasePermit, Flow, Priority

LOOK, SEND = Priority.LOOK, Priority.SEND


def wide() -> Flow:
    """Give a flow without a bound of its own."""
    return Flow(None, 0.0)


def full() -> Flow:
    """Give a flow that has as many in flight as its own bound allows."""
    flow = Flow(1, 0.0)
    flow.in_flight = 1
    return flow


def joined(permits: Iterable[BasePermit]) -> FairQueue[BasePermit]:
    """Let these wait, one after the other."""
    queues: FairQueue[BasePermit] = FairQueue()
    for permit in permits:
        queues.join(permit)
    return queues


def served(queues: FairQueue[BasePermit]) -> list[BasePermit]:
    """Give those that wait in the order in which they have their turn."""
    order = []
    while (first := queues.first()) is not None:
        order.append(first)
        queues.quit(first)
    return order


def test_nobody_waits_at_first() -> None:
    """Where nobody has joined, nobody has a turn, whoever asks."""
    queues: FairQueue[BasePermit] = FairQueue()

    assert queues.is_empty
    assert queues.first() is None
    assert (queues.heads(), list(queues.next(5)), list(queues.of(wide()))) == ([], [], [])
    assert queues.is_empty


@pytest.mark.parametrize(
    ("priorities", "order"),
    [
        pytest.param([SEND, SEND, SEND], [0, 1, 2], id="as they came"),
        pytest.param([SEND, SEND, LOOK], [2, 0, 1], id="a look that came last"),
        pytest.param([SEND, LOOK, SEND, LOOK], [1, 3, 0, 2], id="looks among themselves"),
    ],
)
@pytest.mark.parametrize("flows", [1, 2, 4])
def test_order(priorities: list[Priority], order: list[int], flows: int) -> None:
    """What is asked decides, then who came first; whose it is does not."""
    shared = [wide() for _ in range(flows)]
    permits = [BasePermit(shared[number % flows], priority) for number, priority in enumerate(priorities)]

    assert [permits.index(permit) for permit in served(joined(permits))] == order


@pytest.mark.parametrize("priority", [LOOK, SEND])
def test_who_has_no_room_is_passed_by(priority: Priority) -> None:
    """Not even a look goes first, nor is woken, where its flow may have no more in flight."""
    narrow, other = BasePermit(full(), priority), BasePermit(wide(), SEND)
    queues = joined([narrow, other])

    assert queues.first() is other
    assert set(queues.next(5)) == {other}
    assert queues.heads() == [narrow, other]


def test_where_no_party_has_room_nobody_goes() -> None:
    """They wait on, and the first of them goes when one of its flow is done."""
    flow = full()
    narrow = BasePermit(flow, SEND)
    queues = joined([narrow, BasePermit(full(), LOOK)])
    assert queues.first() is None
    assert not list(queues.next(5))

    flow.in_flight = 0

    assert queues.first() is narrow


def test_who_quits_is_no_longer_counted() -> None:
    """From the middle of a queue, or as the last of its flow; the others keep their turns."""
    flow, lonely = wide(), wide()
    permits = [BasePermit(flow, SEND), BasePermit(flow, SEND), BasePermit(flow, SEND), BasePermit(lonely, LOOK)]
    queues = joined(permits)
    queues.quit(permits[1])
    queues.quit(permits[3])

    assert list(queues.of(flow)) == [permits[0], permits[2]]
    assert not list(queues.of(lonely))
    assert served(queues) == [permits[0], permits[2]]
    assert queues.is_empty


def test_who_joins_again_is_last() -> None:
    """Who has had its turn in vain lets all others of its priority go first, those of other flows as well."""
    flow = wide()
    permits = [BasePermit(flow, SEND), BasePermit(wide(), SEND), BasePermit(flow, SEND)]
    queues = joined(permits)
    queues.quit(permits[0])
    queues.join(permits[0])

    assert served(queues) == [permits[1], permits[2], permits[0]]


@pytest.mark.parametrize(("most", "count"), [(1, 2), (2, 4), (9, 6)])
def test_who_may_go_together(most: int, count: int) -> None:
    """The first comes first, and of each queue there are no more than there is room for."""
    flow = wide()
    permits = [BasePermit(flow, priority) for priority in (SEND, SEND, SEND, LOOK, LOOK, LOOK)]
    going = list(joined(permits).next(most))

    assert going[0] is permits[3]
    assert len(set(going)) == count


RANKS = st.sampled_from(Priority)


@given(
    bounds=st.lists(st.one_of(st.none(), st.integers(1, 3)), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 3), RANKS, st.sampled_from(["join", "quit", "go", "done"])), max_size=80),
)
def test_turns_are_kept(bounds: list[int | None], steps: list[tuple[int, Priority, str]]) -> None:
    """Whatever comes and goes, whoever goes is of the lowest priority of those that could, and the first of that."""
    flows = [Flow(most, 0.0) for most in bounds]
    queues: FairQueue[BasePermit] = FairQueue()
    waiting: list[BasePermit] = []
    for number, priority, what in steps:
        flow = flows[number % len(flows)]
        match what:
            case "join":
                waiting.append(BasePermit(flow, priority))
                queues.join(waiting[-1])
            case "quit" if waiting:
                queues.quit(waiting.pop(number % len(waiting)))
            case "done" if flow.in_flight:
                flow.in_flight -= 1
            case "go" if (first := queues.first()) is not None:
                could = [permit for permit in waiting if permit.flow.has_room]
                assert first is min(could, key=lambda permit: permit.priority)
                queues.quit(first)
                waiting.remove(first)
                first.flow.in_flight += 1
            case _:
                pass
        assert queues.is_empty is not bool(waiting)
        assert {permit for flow in flows for permit in queues.of(flow)} == set(waiting)
        assert (queues.first() is None) is not any(permit.flow.has_room for permit in waiting)
