"""Whose turn it is of the requests that wait: looks before sends, and each in the order in which they came."""

from collections import defaultdict, deque
from collections.abc import Iterator
from enum import IntEnum
from itertools import chain, count, islice
from typing import Generic, TypeVar

from bulkrestart.core.admission import Party


class Rank(IntEnum):
    """Who goes first of those that wait."""

    #: Polls and looks: what was sent is to be known before more is.
    LOOK = 0
    SEND = 1


class Place:
    """A request's place in the queues.

    Args:
        party: Whose request it is.
        rank: Who goes first.

    Attributes:
        turn: The lowest goes first.
    """

    __slots__ = ("party", "rank", "turn")

    def __init__(self, party: Party, rank: Rank) -> None:
        self.party = party
        self.rank = rank
        self.turn = (rank, 0)


P = TypeVar("P", bound=Place)


class Queues(Generic[P]):
    """One queue for each rank of each party. A party that has no room keeps nobody else waiting."""

    def __init__(self) -> None:
        self._queues: defaultdict[Party, tuple[deque[P], deque[P]]] = defaultdict(lambda: (deque(), deque()))
        self._numbers = count()

    @property
    def is_empty(self) -> bool:
        """Nobody waits."""
        return not self._queues

    def join(self, place: P) -> None:
        """Wait behind those of the same rank."""
        place.turn = (place.rank, next(self._numbers))
        self._queues[place.party][place.rank].append(place)

    def quit(self, place: P) -> None:
        """Wait no longer."""
        queues = self._queues[place.party]
        queues[place.rank].remove(place)
        if not any(queues):
            del self._queues[place.party]

    def heads(self) -> list[P]:
        """Give the first of each queue: one or two of each party that waits."""
        return [queue[0] for queues in self._queues.values() for queue in queues if queue]

    def of(self, party: Party) -> Iterator[P]:
        """Give all of one party."""
        return chain(*self._queues.get(party, ()))

    def first(self) -> P | None:
        """Find who goes next, of those whose party has room for one more; None if there is nobody."""
        return min((head for head in self.heads() if head.party.has_room), key=lambda head: head.turn, default=None)

    def next(self, most: int) -> Iterator[P]:
        """Give the first, and then, of each queue no more than so many, whoever else may go at once."""
        if (first := self.first()) is None:
            return
        yield first
        for rank in Rank:
            for party, queues in self._queues.items():
                if party.has_room:
                    yield from islice(queues[rank], most)
