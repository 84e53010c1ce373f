"""Reads the states of many servers, by page or one by one, whichever takes fewer requests."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.clock import SKEW, CloudClock
from bulkrestart.core.model import Server
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.pages import Page, asks_for_time
from bulkrestart.core.trouble import is_trouble
from bulkrestart.engine.limiter import RunLimiter
from bulkrestart.run.crew import work_through
from bulkrestart.run.pages import PageUnavailable, PageWalk

_log = logging.getLogger(__name__)

#: Seconds after which a walk shows every server, also those that have not changed by the cloud's clock: `Date` may be
#: ahead of the clock that dates changes.
_WHOLE_INTERVAL: Final = 60.0
#: Seconds that a walk may always take: twenty pages of a thousand servers, at six seconds each.
_SHORTEST_BOUND: Final = 120.0
#: Requests in a row of one walk that may fail. After each, the page is requested again, or a smaller one.
_FAILED_PAGES: Final = 5
#: Walks in a row that may fail. One record that Nova cannot show fails every list that it stands in.
_WALKS: Final = 3
#: How many servers are read singly then: the first may be the one that Nova cannot show.
_TRIED_SINGLY: Final = 3
#: Reads in a row in which all requests for single servers are refused, after which lists are read at once.
_REFUSED_READS: Final = 3
#: Answers that say that lists are not for us: servers are read one by one from then on.
_NO_LISTS: Final = (403, 404, 405, 501)


#: Takes what was seen of a server, and when the request for it left.
Take = Callable[[str, Server | Observation, float], None]


@dataclass(slots=True)
class Swept:
    """How a sweep went.

    Attributes:
        is_complete: Every page was read, or enough pages to show all the servers. An absent server may still exist:
            only the cloud's own 404 says that it is gone (Nova's api-guide, down cells).
        answered: Requests that were answered with a page or a server.
        trouble: The last answer that was neither; None if there was none.
        took: How long the sweep took, in seconds, without the time in which all requests were paused.
    """

    is_complete: bool = True
    answered: int = 0
    trouble: Observation | None = None
    took: float = 0.0

    def note(self, seen: Page | Server | Observation) -> None:
        """Count an answer; the cloud's own 404 is one."""
        if isinstance(seen, Page | Server):
            self.answered += 1
            return
        self.trouble = seen
        self.answered += isinstance(seen, Answer) and seen.is_not_found


class Sweep:
    """A reader that remembers how many pages there were and when it last read them.

    Args:
        compute: The cloud.
        limiter: Limits its requests.
        clock: The cloud's time.
        lanes: Single requests at once.
        wait_timeout: Seconds to wait for a server. A list that has not ended after half of that, and at least two
            minutes, counts as endless: from then on servers are read one by one, before any is late. Time in which all
            requests were paused does not count.
    """

    def __init__(
        self, compute: Compute, limiter: RunLimiter, clock: CloudClock, lanes: int, *, wait_timeout: float
    ) -> None:
        self._compute = compute
        self._limiter = limiter
        self._clock = clock
        self._lanes = lanes
        self._longest_walk = max(_SHORTEST_BOUND, wait_timeout / 2.0)
        self._pages = 1
        self._may_list = True
        self._failed_walks = 0
        self._refused_reads = 0
        self._walked: float | None = None
        self._whole = anyio.current_time()

    @property
    def pages(self) -> int:
        """How many pages the project's list has, as far as is known."""
        return self._pages

    async def read(
        self,
        wanted: Collection[str],
        take: Take,
        *,
        changed_since: float | None = None,
        is_for_send: bool = False,
    ) -> Swept:
        """Read the states of the servers that are wanted.

        If single servers are refused, the list is read instead, also for one server, and whole: it is in no other
        answer.

        Args:
            wanted: Their ids.
            take: Is given each that is seen, page by page, so that no more than a page is ever in memory.
            changed_since: Servers that have not changed since this moment (ours, in seconds) need not be seen; the
                start of the walk before counts if it is later. None to see them all.
            is_for_send: It is of no use once the run has stopped.
        """
        swept = Swept()
        are_few = len(wanted) <= self._pages
        if not self._may_list or (are_few and self._refused_reads < _REFUSED_READS):
            await self.read_each(wanted, take, swept, is_for_send=is_for_send)
            if not self._may_list or swept.answered or not _is_refusal(swept.trouble):
                return swept
            self._refused_reads += 1
        if are_few:
            changed_since = None
        await self._walk(wanted, take, changed_since, swept, is_for_send=is_for_send)
        if swept.is_complete:
            self._failed_walks = 0
        else:
            self._failed_walks += 1
            await self._try_without_lists(wanted, take, swept)
        return swept

    async def _try_without_lists(self, wanted: Collection[str], take: Take, swept: Swept) -> None:
        """Read a few servers singly after failed walks; if one can be read, stop using lists."""
        if self._failed_walks >= _WALKS:
            answered, trouble = swept.answered, swept.trouble
            await self.read_each(list(wanted)[:_TRIED_SINGLY], take, swept)
            if swept.answered > answered:
                self._may_list = False
            elif _is_refusal(swept.trouble):
                # Lists may work again; a refusal would say that states cannot be read at all.
                swept.trouble = trouble

    async def read_each(self, wanted: Collection[str], take: Take, swept: Swept, *, is_for_send: bool = False) -> None:
        """Read each of the servers by a request of its own."""

        async def show(server_id: str) -> None:
            server, asked = await self._limiter.ask(lambda: self._compute.show(server_id), is_for_send=is_for_send)
            swept.note(server)
            if isinstance(server, Server):
                self._refused_reads = 0
            take(server_id, server, asked)

        if wanted:
            await work_through(list(wanted), show, lanes=min(self._lanes, len(wanted)))

    async def _walk(
        self, wanted: Collection[str], take: Take, changed_since: float | None, swept: Swept, *, is_for_send: bool
    ) -> None:
        walked = anyio.current_time()
        since = None
        is_due = walked - self._whole >= _WHOLE_INTERVAL
        if changed_since is not None and not is_due:
            start = self._clock.at(changed_since if self._walked is None else max(changed_since, self._walked))
            since = start[0] - SKEW if start is not None else None
        ends = self._limiter.active_time(walked) + self._longest_walk
        # Our own strings, and not those of the pages, which would stay in memory until the walk ends.
        unseen = set(wanted)
        walk = PageWalk(self._compute, changes_since=since)
        size = self._compute.page_size
        rows = failed = 0
        while walk.cursor.end is None and unseen:
            if self._limiter.active_time(anyio.current_time()) >= ends:
                _log.warning("the list of servers has no end: servers are read one by one")
                self._may_list, swept.is_complete = False, False
                return
            next_query = walk.next_query
            seen, asked = await self._limiter.ask(walk.request, is_for_send=is_for_send)
            if isinstance(seen, PageUnavailable):
                failed = 0
                continue
            swept.note(seen)
            if not isinstance(seen, Page):
                failed += 1
                is_first = walk.cursor.position is None
                self._may_list = not (is_first and isinstance(seen, Answer) and seen.status in _NO_LISTS)
                may_pass = walk.may_repeat or walk.next_query != next_query or asks_for_time(seen)
                if failed >= _FAILED_PAGES or not may_pass:
                    swept.is_complete = False
                    return
                continue
            failed = 0
            for server in seen.servers:
                if server.id in wanted:
                    unseen.discard(server.id)
                    take(server.id, server, asked)
            if size.is_last(seen):
                break
            rows = seen.rows or rows
        end = walk.cursor.end
        if end is not None and not end.is_whole:
            swept.is_complete = False
            return
        if end is not None:
            size.note_last(rows)
        if since is None:
            self._whole = walked
        if changed_since is None or not is_due:
            self._pages = max(walk.cursor.pages, 1)
        self._walked = walked


def _is_refusal(seen: Observation | None) -> bool:
    """Return whether an answer may say that single servers are not for us, although lists may be."""
    return isinstance(seen, Answer) and not is_trouble(seen) and not seen.is_throttled
