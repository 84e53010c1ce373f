"""Reads the states of many servers, by page or one by one, whichever takes fewer requests."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import anyio

from bulkrestart.cloud.compute import Compute, Page
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.decision import Hold
from bulkrestart.core.model import Server
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.run.crew import work_through
from bulkrestart.run.gate import Gate

#: Seconds that a walk looks back behind the start of the one before: clocks of a cloud's nodes differ, and a change
#: is visible later than its time says.
OVERLAP: Final = 60.0


@dataclass(slots=True)
class Sight:
    """What one sweep saw.

    Attributes:
        servers: Of the servers that were asked for, what was seen of each, and when the request for it left.
        is_complete: Every page was read. A server that is absent all the same may be anywhere: only the cloud's own
            404 says that one is gone (nova's api-guide, down cells).
        trouble: The last answer that was no page, or no server; None if there was none.
    """

    servers: dict[str, tuple[Server | Observation, float]] = field(default_factory=dict)
    is_complete: bool = True
    trouble: Observation | None = None


class Sweep:
    """A reader that remembers how many pages there were and when it last read them.

    Args:
        compute: The cloud.
        gate: The way to it.
        clock: The cloud's time.
        lanes: Single requests at once.
    """

    def __init__(self, compute: Compute, gate: Gate, clock: CloudClock, lanes: int) -> None:
        self._compute = compute
        self._gate = gate
        self._clock = clock
        self._lanes = lanes
        self._pages = 1
        self._may_list = True
        self._walked: float | None = None

    async def read(self, wanted: Collection[str], *, changed_since: float | None = None) -> Sight:
        """Read the states of the servers that are wanted.

        Args:
            wanted: Their ids.
            changed_since: Servers that have not changed since this moment (ours, in seconds) need not be seen; the
                start of the walk before counts if it is later. None to see them all.
        """
        sight = Sight()
        if self._may_list and len(wanted) > self._pages:
            await self._walk(wanted, changed_since, sight)
        else:
            await self.read_each(wanted, sight)
        return sight

    async def read_each(self, wanted: Collection[str], sight: Sight) -> None:
        """Read each of the servers by a request of its own."""

        async def show(server_id: str) -> None:
            async with self._gate:
                asked = anyio.current_time()
                server = await self._compute.show(server_id)
            sight.servers[server_id] = (server, asked)
            if not isinstance(server, Server):
                self._note(server, asked, sight)

        if wanted:
            await work_through(wanted, show, lanes=min(self._lanes, len(wanted)))

    async def _walk(self, wanted: Collection[str], changed_since: float | None, sight: Sight) -> None:
        since = None
        if changed_since is not None:
            start = self._clock.at(max(changed_since, self._walked if self._walked is not None else changed_since))
            since = start[0] - OVERLAP if start is not None else None
        walked = anyio.current_time()
        marker: str | None = None
        pages = 0
        while True:
            async with self._gate:
                asked = anyio.current_time()
                page = await self._compute.list(marker=marker, changes_since=since)
            if not isinstance(page, Page):
                # Also where the marker was deleted meanwhile: the next sweep starts the walk anew.
                self._note(page, asked, sight)
                self._may_list = not (isinstance(page, Answer) and page.status in (403, 404, 405, 501))
                sight.is_complete = False
                return
            pages += 1
            for server in page.servers:
                if server.id in wanted:
                    sight.servers[server.id] = (server, asked)
            if page.marker is None or page.marker == marker:
                break
            marker = page.marker
        self._pages = max(pages, 1)
        self._walked = walked

    def _note(self, seen: Observation, asked: float, sight: Sight) -> None:
        sight.trouble = seen
        if isinstance(seen, Answer) and seen.is_throttled:
            self._gate.hold(Hold(seen.fault.retry_after), sent_at=asked)
