"""Fair queueing: waiting requests leave by priority, and then in the order in which they came."""

from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Generic, TypeVar

from bulkrestart.limits.permit import BasePermit, Flow, Priority

P = TypeVar("P", bound=BasePermit)


class FairQueue(Generic[P]):
    """One queue for each priority of each flow. A flow without room does not block the others."""

    def __init__(self) -> None:
        self._queues: defaultdict[Flow, tuple[deque[P], deque[P]]] = defaultdict(lambda: (deque(), deque()))
        self._numbers = count()

    @property
    def is_empty(self) -> bool:
        """Whether no request waits."""
        return not self._queues

    def join(self, permit: P) -> None:
        """Add a request, behind those of the same priority."""
        permit.turn = (permit.priority, next(self._numbers))
        self._queues[permit.flow][permit.priority].append(permit)

    def quit(self, permit: P) -> None:
        """Remove a request."""
        queues = self._queues[permit.flow]
        queues[permit.priority].remove(permit)
        if not any(queues):
            del self._queues[permit.flow]

    def heads(self) -> list[P]:
        """Return the first of each queue: one or two of each flow."""
        return [queue[0] for queues in self._queues.values() for queue in queues if queue]

    def of(self, flow: Flow) -> Iterator[P]:
        """Return all requests of a flow."""
        return chain(*self._queues.get(flow, ()))

    def first(self) -> P | None:
        """Return the request that leaves next, of the flows with room; None if there is none."""
        return min((head for head in self.heads() if head.flow.has_room), key=lambda head: head.turn, default=None)

    def next(self, most: int) -> Iterator[P]:
        """Return the first, and then up to so many of each queue that may leave together with it."""
        if (first := self.first()) is None:
            return
        yield first
        for priority in Priority:
            for flow, queues in self._queues.items():
                if flow.has_room:
                    yield from islice(queues[priority], most)
