"""The servers of a project that are meant, page by page."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Self

from bulkrestart.cloud.compute import Page
from bulkrestart.core.errors import EndpointError
from bulkrestart.core.model import Server
from bulkrestart.core.observation import Answer
from bulkrestart.core.selection import Selection
from bulkrestart.run.preflight import Preflight

_log = logging.getLogger(__name__)

#: Servers of one list: no project has as many, and a list with ever new ones would fill the memory.
_MOST_SERVERS: Final = 1_000_000
#: Times that a list is begun anew, because the server that a page was to begin after is gone.
_FRESH_STARTS: Final = 10


class Listing:
    """An async iterator over the servers that are meant, each once. A page is read when it is needed.

    Args:
        prepare: Gives the way to the cloud, at the first server.
        selection: Who is meant.
    """

    def __init__(self, prepare: Callable[[], Awaitable[Preflight]], selection: Selection) -> None:
        self._prepare = prepare
        self._selection = selection
        self._preflight: Preflight | None = None
        self._seen: set[str] = set()
        self._ready: deque[Server] = deque()
        self._marker: str | None = None
        self._markers: set[str] = set()
        self._listed = 0
        self._fresh_starts = 0
        self._is_read = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Server:
        while not self._ready:
            if self._is_read:
                raise StopAsyncIteration
            self._take(await self._read())
        return self._ready.popleft()

    async def _read(self) -> Page | Answer:
        if self._preflight is None:
            self._preflight = await self._prepare()
        page = partial(self._preflight.compute.page, marker=self._marker, filters=self._selection.filters)
        with self._preflight.stall.bounded():
            return await self._preflight.ask(page)

    def _take(self, page: Page | Answer) -> None:
        if isinstance(page, Answer):
            self._begin_anew(page)
            return
        if page.unread:
            words = f"{page.unread} servers of the list have no id that can be read"
            if not page.servers:
                raise EndpointError(f"{words}, and what follows them cannot be asked for; give ids; nothing was sent")
            _log.warning("%s: they are left out", words)
        for server in page.servers:
            if self._selection.tags and server.tags is None:
                raise ValueError("tags are not shown by this cloud (microversion 2.26 does): select by something else")
            if server.id not in self._seen and self._selection.fits(server):
                self._seen.add(server.id)
                self._ready.append(server)
        self._listed += len(page.servers)
        if self._listed > _MOST_SERVERS:
            raise EndpointError(f"the list has more than {_MOST_SERVERS} servers; give ids; nothing was sent")
        # The end is a page without servers: one that is short and names no next may be cut by a gateway. A sweep looks
        # at each server that it misses; of one that is missing here nobody would know.
        self._is_read = not page.servers
        if page.servers:
            self._go_on_after(page.servers[-1].id)

    def _go_on_after(self, marker: str) -> None:
        if marker in self._markers:
            raise EndpointError("the list of servers has no end: its pages repeat; give ids; nothing was sent")
        self._markers.add(marker)
        self._marker = marker

    def _begin_anew(self, refusal: Answer) -> None:
        """Begin anew if the server that the page was to begin after was deleted meanwhile."""
        if refusal.status != 400:
            raise EndpointError(f"servers cannot be listed: {refusal.words}; give their ids; nothing was sent")
        if self._marker is None:
            raise ValueError(f"the cloud cannot select so: {refusal.words}")
        if self._fresh_starts == _FRESH_STARTS:
            raise EndpointError(f"the list of servers cannot be read to its end: {refusal.words}; nothing was sent")
        self._fresh_starts += 1
        self._marker = None
        self._listed = 0
        self._markers.clear()
