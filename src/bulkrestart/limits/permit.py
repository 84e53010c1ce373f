"""What the limits know of a request: its flow, its priority, and whether it may leave."""

from collections.abc import Callable
from enum import IntEnum

from bulkrestart.core.model import Stop


def _ignore(report: object) -> None:
    """Do nothing with a report: no run has subscribed."""


class Flow:
    """The requests of one run, or of one listing, among those that share a client.

    Args:
        most: Its own bound on requests at once; None for none.
        began: When it began.

    Attributes:
        in_flight: How many of its requests are in flight.
        on_outage: Called with the id of a server whenever an outage turns out to be the cause of a failed send to it.
        on_stop: Called with the reason if its requests would wait for too long.
    """

    def __init__(self, most: int | None, began: float) -> None:
        self._most = float("inf") if most is None else most
        self.began = began
        self.in_flight = 0
        self.on_outage: Callable[[str], object] = _ignore
        self.on_stop: Callable[[Stop], object] = _ignore

    @property
    def has_room(self) -> bool:
        """Whether its own bound allows one more request."""
        return self.in_flight < self._most


class Priority(IntEnum):
    """Which waiting requests leave first."""

    #: Polls and looks: the fate of what was sent has to be known before more is sent.
    LOOK = 0
    SEND = 1


class BasePermit:
    """Permission for one request to leave; the limits record in it what they have to know when the request is over.

    Args:
        flow: The flow of the request.
        priority: Its priority.

    Attributes:
        turn: Its position among the requests that wait; the lowest leaves first.
        granted_at: When the request could leave; None before that, and when it is over.
        epoch: How many pauses and outages there were before that.
        is_probe: Whether the circuit breaker was open then.
    """

    __slots__ = ("epoch", "flow", "granted_at", "is_probe", "priority", "turn")

    def __init__(self, flow: Flow, priority: Priority) -> None:
        self.flow = flow
        self.priority = priority
        self.turn = (priority, 0)
        self.granted_at: float | None = None
        self.epoch = 0
        self.is_probe = False
