"""Whose turn it is: servers in line, as far as what is down lets them go.

Law: never more servers down at once than there are places, and never two of one domain.
"""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from bulkrestart.core.decision import End
from bulkrestart.core.model import Outcome, Reason, ServerResult, Stop, StopReason
from bulkrestart.core.rollout import BUDGET, Rollout, is_harm, servers, stays_down


@dataclass(slots=True, eq=False)
class _Domain:
    """Servers of which one may be down.

    Attributes:
        waiting: Those in line.
        down: How many of them are; more than one only where a former process was not bound by it.
        is_in_line: It has its place in the line, for the first of them.
    """

    waiting: deque[str] = field(default_factory=deque)
    down: int = 0
    is_in_line: bool = False


class Turns:
    """The line of servers: who is in it, and who of them may go.

    Args:
        rollout: What may be down at once.
        fleet: How many servers there are.
        domains: The failure domain of each server that has one.
    """

    def __init__(self, rollout: Rollout, fleet: int, domains: Mapping[str, Hashable]) -> None:
        self._places = rollout.places(fleet)
        self._is_by_budget = rollout.max_down == BUDGET
        self._domain_of = domains
        self._domains: dict[Hashable, _Domain] = {}
        self._line: deque[str | _Domain] = deque()
        self._waiting = 0
        self._under_way = 0
        self._lost = 0

    @property
    def waiting(self) -> int:
        """Servers in line."""
        return self._waiting

    @property
    def under_way(self) -> int:
        """Servers that had their turn, and have no outcome."""
        return self._under_way

    @property
    def is_full(self) -> bool:
        """As many are down as may be."""
        return self._places is not None and self._under_way + self._lost >= self._places

    @property
    def is_stuck(self) -> bool:
        """Servers are in line, and none of them will ever have its turn."""
        return self._waiting > 0 and self._under_way == 0 and (self.is_full or not self._line)

    def impasse(self) -> Stop | End:
        """Tell what a line that is stuck comes to: the run stops, or those who are in it have this end."""
        if self.is_full:
            words = f"{servers(self._lost)} did not come back, and more may not be down (max_down)"
            return Stop(StopReason.MAX_DOWN, f"{words}: see to them first, or allow for more")
        detail = "another server of its failure domain did not come back"
        return End(outcome=Outcome.SKIPPED, reason=Reason.HELD_BACK, detail=detail)

    def line_up(self, server_id: str) -> None:
        """Put a server at the end of the line."""
        self._waiting += 1
        domain = self._domain(server_id)
        if domain is None:
            self._line.append(server_id)
        else:
            domain.waiting.append(server_id)
            self._queue(domain)

    def take(self) -> str | None:
        """Give the next server whose turn it is; None if there is none now."""
        if self.is_full or not self._line:
            return None
        first = self._line.popleft()
        self._waiting -= 1
        self._under_way += 1
        if isinstance(first, str):
            return first
        first.is_in_line = False
        first.down += 1
        return first.waiting.popleft()

    def begin(self, server_id: str) -> None:
        """Count a server that is down already, whatever the bounds: a former process sent to it."""
        self._under_way += 1
        domain = self._domain(server_id)
        if domain is not None:
            domain.down += 1

    def count_former(self, result: ServerResult) -> None:
        """Take the outcome that a former process gave a server: a budget is of the whole run, what is down is not."""
        self._lost += self._is_by_budget and is_harm(result)

    def end(self, result: ServerResult) -> None:
        """Take the outcome of a server that had its turn."""
        self._under_way -= 1
        # Of the places of a budget, one is gone with each server that came to harm, down or not.
        self._lost += is_harm(result) if self._is_by_budget else stays_down(result)
        domain = self._domain(result.server_id)
        if domain is not None and not stays_down(result):
            domain.down -= 1
            self._queue(domain)

    def give_up(self) -> list[str]:
        """Empty the line, and give those who were in it."""
        left = [server_id for first in self._line for server_id in ([first] if isinstance(first, str) else [])]
        for domain in self._domains.values():
            left.extend(domain.waiting)
            domain.waiting.clear()
            domain.is_in_line = False
        self._line.clear()
        self._waiting = 0
        return left

    def _domain(self, server_id: str) -> _Domain | None:
        name = self._domain_of.get(server_id)
        return None if name is None else self._domains.setdefault(name, _Domain())

    def _queue(self, domain: _Domain) -> None:
        if domain.waiting and not domain.down and not domain.is_in_line:
            domain.is_in_line = True
            self._line.append(domain)
