"""What the servers of a fleet are like before anything is sent: where they are, and for HARD their states."""

import logging
from collections.abc import Awaitable, Callable, Collection, Hashable
from typing import Final

from bulkrestart.cloud.instants import current_instant
from bulkrestart.core.model import Server
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.rollout import Rollout
from bulkrestart.run.crew import unhurried
from bulkrestart.run.sweep import Sweep

_log = logging.getLogger(__name__)

#: The domain, and the zone, of servers of which nobody says where they are: none of them is down beside any other.
_UNKNOWN: Final = ""


class Survey:
    """Reads a fleet by page, and those that no page shows singly.

    Args:
        sweep: Reads the states of servers.
        rollout: What is to be known of them.
        keeps_states: Whether what is seen of each is kept, until `pop` takes it.
        is_thorough: Whether each has to be seen. If not, one that no page shows is looked at later.
        advance: Called when a server is seen for the first time; None: no call.

    Attributes:
        domains: The failure domain of each server that has one.
        began: When the last look at the servers began.
    """

    def __init__(
        self,
        sweep: Sweep,
        rollout: Rollout,
        *,
        keeps_states: bool,
        is_thorough: bool = False,
        advance: Callable[[], None] | None = None,
    ) -> None:
        self.domains: dict[str, Hashable] = {}
        self.began = current_instant()
        self._sweep = sweep
        self._domain = rollout.domain
        self._is_by_zone = rollout.spread == "az"
        self._is_spread = rollout.spread is not None
        self._is_thorough = is_thorough or self._is_spread
        self._keeps_states = keeps_states
        self._advance = advance
        self._zones: dict[str, str] = {}
        self._unplaced: frozenset[str] = frozenset()
        self._states: dict[str, tuple[Server | Observation, float]] = {}

    @property
    def is_wanted(self) -> bool:
        """There is something to know of the servers."""
        return self._is_spread or self._keeps_states

    async def read(self, server_ids: Collection[str]) -> None:
        """Look at these servers."""
        self.began = current_instant()
        unseen = dict.fromkeys(server_ids)

        def take(server_id: str, server: Server | Observation, asked: float) -> None:
            if self._keeps_states:
                self._states[server_id] = (server, asked)
            if isinstance(server, Server):
                if server_id in unseen:
                    del unseen[server_id]
                    if self._advance is not None:
                        self._advance()
                self._place(server_id, server)
            elif isinstance(server, Answer) and server.is_not_found:
                unseen.pop(server_id, None)

        swept = await self._sweep.read(frozenset(server_ids), take, is_for_send=True)
        if self._is_thorough:
            await self._sweep.read_each(list(unseen), take, swept, is_for_send=True)
        if self._is_spread and unseen:
            _log.warning("nobody says where %d servers are: they are restarted last, one at a time", len(unseen))
            self._unplaced = frozenset(unseen)
            self.domains.update(dict.fromkeys(unseen, _UNKNOWN))

    def _place(self, server_id: str, server: Server) -> None:
        if self._is_by_zone:
            self._zones[server_id] = server.availability_zone
        elif self._domain is not None:
            domain = self._domain(server)
            if domain is not None:
                _check_domain(domain)
                self.domains[server_id] = domain

    def pop(self, server_id: str) -> tuple[Server | Observation, float] | None:
        """Give what was seen of a server, and when it was asked for; once. None if nothing was."""
        return self._states.pop(server_id, None)

    def domain(self, server_id: str) -> Hashable | None:
        """Name the failure domain of a server, its zone where the run goes by zones; None: it has none."""
        return self._zones.get(server_id) if self._is_by_zone else self.domains.get(server_id)

    async def zones(self, server_ids: Collection[str]) -> list[list[str]]:
        """Sort servers by their zones, in the order in which these come.

        Whom nobody can place is of none, and comes last: he may be on any host, and in any domain.
        """
        zones: dict[str, list[str]] = {}
        last: list[str] = []

        def put(server_id: str) -> None:
            if server_id in self._unplaced:
                last.append(server_id)
            else:
                zones.setdefault(self._zones.get(server_id, _UNKNOWN), []).append(server_id)

        await unhurried(server_ids, put)
        unknown = zones.pop(_UNKNOWN, [])
        return [zone for zone in (*zones.values(), unknown, last) if zone]


def _check_domain(domain: object) -> None:
    if isinstance(domain, Awaitable):
        # Each is a key of its own: they would keep nobody apart.
        raise ValueError("spread must be a plain function of a Server: what it gave is to be awaited")
    try:
        hash(domain)
    except TypeError:
        kind = type(domain).__name__
        raise ValueError(f"spread must return what can be a key, such as a string, not a {kind}") from None
