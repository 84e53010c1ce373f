"""The servers of a project that are meant, page by page."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Self

from bulkrestart.core.errors import EndpointError
from bulkrestart.core.model import Server
from bulkrestart.core.observation import CHECK_URL, Answer, Observation
from bulkrestart.core.pages import ListEnd, Page
from bulkrestart.core.selection import Selection
from bulkrestart.run.pages import PageUnavailable, PageWalk
from bulkrestart.run.preflight import Preflight

_log = logging.getLogger(__name__)

#: Servers of one list: no project has as many, and a list with ever new ones would fill the memory.
_MOST_SERVERS: Final = 1_000_000
#: Servers that a warning names.
_NAMED: Final = 3


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
        self._walk: PageWalk | None = None
        self._seen: set[str] = set()
        self._ready: deque[Server] = deque()
        self._undecided: dict[str, None] = {}
        self._refusal: Observation | None = None
        self._is_told = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Server:
        while not self._ready:
            if self._walk is not None and (end := self._walk.cursor.end) is not None:
                self._finish(end, self._walk.cursor.unread)
                raise StopAsyncIteration
            await self._read()
        return self._ready.popleft()

    async def _read(self) -> None:
        """Read the next page."""
        if self._preflight is None or self._walk is None:
            self._preflight = await self._prepare()
            self._walk = PageWalk(self._preflight.compute, filters=self._selection.filters)
        with self._preflight.stall.bounded():
            # Once a page has come, the URL is known to be right.
            remedy = f"give ids, or {'try again later' if self._walk.cursor.pages else CHECK_URL}"
            seen: Page | PageUnavailable | Answer = await self._preflight.ask(
                self._walk.request, what="its list of servers", remedy=remedy
            )
        match seen:
            case Page():
                self._take(seen)
                if self._walk.cursor.rows > _MOST_SERVERS:
                    raise EndpointError(f"the list has more than {_MOST_SERVERS} servers; give ids; nothing was sent")
            case PageUnavailable():
                self._refusal = seen.seen
            case Answer() if self._walk.may_repeat:
                self._refusal = seen
            case Answer():
                if seen.status == 400 and self._walk.cursor.position is None:
                    raise ValueError(f"the cloud cannot select so: {seen.words}")
                raise EndpointError(f"servers cannot be listed: {seen.words}; give their ids; nothing was sent")

    def _take(self, page: Page) -> None:
        for server in page.servers:
            if self._selection.tags and server.tags is None and server.name:
                raise ValueError("tags are not shown by this cloud (microversion 2.26 does): select by something else")
            if server.id in self._seen:
                continue
            if self._selection.fits(server):
                self._seen.add(server.id)
                self._ready.append(server)
            elif self._selection.is_undecided(server):
                self._undecided[server.id] = None

    def _finish(self, end: ListEnd, unread: int) -> None:
        """Warn once about servers that the list lacks.

        Raises:
            EndpointError: The cloud says that there are more servers than it shows.
        """
        lacking = f"{unread} servers of the list have no readable id"
        if end is ListEnd.REPEATED:
            raise EndpointError("the list of servers has no end: its pages repeat; give ids; nothing was sent")
        if end in (ListEnd.REFUSED, ListEnd.FAILED):
            remedy = "give ids" if end is ListEnd.REFUSED else "give ids, or try again later"
            words = self._refusal.words if isinstance(self._refusal, Answer) else str(self._refusal)
            raise EndpointError(f"the list of servers cannot be read to its end: {words}; {remedy}; nothing was sent")
        if end is ListEnd.UNREADABLE:
            raise EndpointError(f"{lacking}, and what follows them cannot be asked for; give ids; nothing was sent")
        if self._is_told:
            return
        self._is_told = True
        if unread:
            _log.warning("%s: they are left out", lacking)
        if undecided := [server_id for server_id in self._undecided if server_id not in self._seen]:
            named = ", ".join(undecided[:_NAMED]) + (", ..." if len(undecided) > _NAMED else "")
            words = "%d servers are shown without what they are selected by (%s): they are left out; give their ids"
            _log.warning(words, len(undecided), named)
        if end is ListEnd.UNCONFIRMED:
            _log.warning("the cloud refuses the page after its last server: the list is taken as complete")
