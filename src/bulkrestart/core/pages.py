"""The pages of a list of servers: how many rows to ask for, where the next page begins, and whether the list is over.

Law: every list ends. Only a bounded number of pages may show nothing new.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Self

from bulkrestart.core.faults import Body
from bulkrestart.core.model import Server
from bulkrestart.core.observation import Answer, Observation, Unanswered

#: Servers a page: Nova's default `max_limit`; more is refused by Huawei Cloud.
PAGE_LIMIT: Final = 1000

#: After a page fails, the next request has a limit this many times smaller: after four failures, 3 instead of 1000.
_SHRINK: Final = 4
#: The smallest limit of a page after a position was refused: the page begins earlier, and has to reach past it.
_LIMIT_AFTER_REFUSAL: Final = 16
#: Pages that have to come before a larger one is tried, at first. Each larger page that fails multiplies this number.
_PAGES_BEFORE_GROWTH: Final = 4
_MOST_PAGES_BEFORE_GROWTH: Final = 1024

#: Statuses of an answer that refuses the position of a page: its marker is not found, or its offset is past the end.
_POSITION_REFUSED: Final = frozenset({400, 404, 410, 416, 422})
#: Statuses of an answer that refuses the limit of a page; the message has to name it.
_LIMIT_REFUSED: Final = frozenset({400, 403, 413, 422})
_LIMIT: Final = re.compile(r"\blimit\b|page.?size", re.IGNORECASE)
#: Statuses with which a gateway refuses a page that begins at a position, if it does not know the parameter.
_PARAMETER_REFUSED: Final = frozenset({403, 405})
#: Pages in a row that may show nothing new although the cloud says that more follows.
_MOST_REPEATS: Final = 10
#: Positions in a row that the cloud may ignore, answering with the page of another position.
_MOST_IGNORED: Final = 3
#: Times that a list is started over.
_MOST_FRESH_STARTS: Final = 10
#: Positions in a row that may count as the cause of failures, although the cloud did not refuse them.
_MOST_SUSPECTED: Final = 3


class Position(NamedTuple):
    """Where a page begins, as a parameter of the query.

    Attributes:
        name: `marker`, or `offset`, whose meaning differs between clouds: rows, or pages of the limit.
        value: The id that the page begins after, or the value in a link of the cloud.
    """

    name: str
    value: str

    @classmethod
    def after(cls, server_id: str) -> Self:
        """Return the position after a server."""
        return cls("marker", server_id)

    @property
    def depends_on_limit(self) -> bool:
        """Whether it may mean another row if the limit changes."""
        return self.name == "offset"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of servers.

    Attributes:
        servers: The servers of the page.
        rows: How many rows it has, those without a readable id included.
        limit: How many rows were asked for.
        has_link: Whether the cloud links to another page.
        next: Where the linked page begins; None if the link does not say, or there is no link.
        is_cut: Whether the answer was too long to be read whole: more rows follow on the same page.
    """

    servers: Sequence[Server]
    rows: int
    limit: int
    has_link: bool = False
    next: Position | None = None
    is_cut: bool = False

    @property
    def unread(self) -> int:
        """How many rows have no readable id."""
        return self.rows - len(self.servers)

    @property
    def says_more(self) -> bool:
        """Whether the page shows that more rows follow. More rows than the limit mean that the cloud ignores limits."""
        return self.has_link or self.is_cut or self.rows == self.limit


class PageSize:
    """Chooses how many servers to ask for on one page: fewer after a page that is too large or too slow.

    After some pages have come, a larger one is tried; if that fails, the next try comes after more pages.

    Attributes:
        limit: Servers to ask for on the next page.
    """

    def __init__(self, most: int = PAGE_LIMIT) -> None:
        self.limit = most
        self._most = most
        #: The limit of the last smaller page that came; 0 if none has come.
        self._good = 0
        #: How many pages of this limit have come since it changed.
        self._came = 0
        self._pages_before_growth = _PAGES_BEFORE_GROWTH
        #: A page without a link that has fewer rows than this is the last one of its list.
        self._short = 0

    def note_page(self, page: Page) -> None:
        """Record a page that came."""
        if page.is_cut:
            self.note_failure(page.limit)
        elif page.limit == self.limit < self._most:
            self._good = page.limit
            self._came += 1
            if self._came >= self._pages_before_growth:
                self._came = 0
                self.limit = min(page.limit * 2, self._most)
        self._short = max(self._short, page.rows)

    def note_failure(self, limit: int) -> None:
        """Record a page of this limit that was too large or too slow."""
        if limit > self.limit:
            # The limit has become smaller since that page was asked for.
            return
        self._came = 0
        if 0 < self._good < limit:
            self.limit = self._good
            self._pages_before_growth = min(self._pages_before_growth * _SHRINK, _MOST_PAGES_BEFORE_GROWTH)
        else:
            self._good = 0
            self.limit = max(limit // _SHRINK, 1)

    def note_refused_position(self) -> None:
        """Record that pages failed because of their position, and not because of their size."""
        self.limit = max(self.limit, min(_LIMIT_AFTER_REFUSAL, self._most))

    def is_last(self, page: Page) -> bool:
        """Return whether a page is so short that it must be the last one of its list.

        Some clouds give fewer rows than are asked for, and no links. But they fill every page except the last, so a
        page with fewer rows than an earlier one is the last.
        """
        return not page.says_more and page.rows < self._short

    def note_last(self, rows: int) -> None:
        """Record that nothing came after a page of this many rows."""
        self._short = max(self._short, rows + 1)


class PageFailure(Enum):
    """Why a page did not come. The value is the number of such failures after which the position counts as the cause.

    If each page fails with a probability of 5 %, four failures in a row happen in one of 8,000 lists of 20 pages.
    """

    #: The cloud refuses the position.
    POSITION = 1
    #: The answer is something else than a list: 403, 405, a redirect, a success without a list.
    STRAY = 2
    #: The cloud refuses the token. The third request is signed by a new sign-in, if one is possible.
    TOKEN = 3
    #: The page is too large or too slow, or the cloud is in trouble.
    TROUBLE = 4


class ListEnd(Enum):
    """How a list ended."""

    #: Nothing follows.
    WHOLE = "whole"
    #: The last page does not say that more follows, and the cloud refuses the request for the next one.
    UNCONFIRMED = "unconfirmed"
    #: The cloud says that more follows, but repeats earlier pages.
    REPEATED = "repeated"
    #: The cloud says that more follows, but refuses the request for it.
    REFUSED = "refused"
    #: The requests for the next page failed, so it is not known whether more follows.
    FAILED = "failed"
    #: No row of the last page has a readable id, and there is no link, so the next page cannot be asked for.
    UNREADABLE = "unreadable"

    @property
    def is_whole(self) -> bool:
        """Whether all servers were shown, as far as the cloud says."""
        return self in (ListEnd.WHOLE, ListEnd.UNCONFIRMED)


class ListCursor:
    """The position in one list, page by page.

    If the cloud links to the next page, the link says where it begins; otherwise it begins after the last server. If
    the cloud refuses or ignores that position, for example because the server has been deleted, the next page begins
    after an earlier server.

    Attributes:
        position: Where the next page begins; None for the beginning of the list.
        end: How the list ended; None while it goes on.
        rows: How many rows have come since the list was started, without pages that showed nothing new.
        unread: How many rows without a readable id have come.
        pages: How many pages have come since the list was started, without pages that showed nothing new.
    """

    def __init__(self) -> None:
        self.position: Position | None = None
        self.end: ListEnd | None = None
        self.rows = self.unread = self.pages = 0
        self._asked: set[Position | None] = set()
        self._refused: set[Position] = set()
        #: The servers of the last page with a new server, and their places on that page.
        self._places: dict[str, int] = {}
        #: Where that page began.
        self._began: Position | None = None
        self._says_more = False
        self._largest = 0
        self._has_links = False
        self._earlier: Iterator[Position | None] = iter(())
        self._repeats = 0
        self._ignored = 0
        #: The failures at this position.
        self._failures: Counter[PageFailure] = Counter()
        #: The failures because of which positions were refused since the list last went on.
        self._causes: Counter[PageFailure] = Counter()
        #: The most rows that came before the list was started over.
        self._furthest = 0
        self._fresh_starts = 0

    def take(self, page: Page) -> None:
        """Record the page that came, and find where the next one begins."""
        self._asked.add(self.position)
        self._failures.clear()
        ids = [server.id for server in page.servers]
        following = self._following(page, ids)
        is_new = any(server_id not in self._places for server_id in ids)
        self._has_links |= page.has_link
        if is_new and following:
            self.rows += page.rows
            self.unread += page.unread
            self.pages += 1
            self._repeats = self._ignored = 0
            if self.rows > self._furthest:
                self._furthest = self.rows
                self._causes.clear()
            self._places = {server_id: place for place, server_id in enumerate(ids)}
            self._says_more = self._shows_more(page)
            self._largest = max(self._largest, page.rows)
            self._earlier = iter([*following[1:], *self._before(ids)])
            self._began = self.position
            self.position = following[0]
        elif not page.rows:
            # The page that should follow is empty.
            self._says_more = False
            self._earlier = iter(())
            self._pass_over(following, ListEnd.WHOLE)
        elif not ids:
            self.unread += page.unread
            self._pass_over(following, ListEnd.UNREADABLE)
        elif is_new or self._is_ignored(ids):
            self._ignored += 1
            self._step_back(ListEnd.REPEATED)
        elif not self._shows_more(page):
            self.end = ListEnd.WHOLE
        elif following:
            self._pass_over(following, ListEnd.REPEATED)
        elif Position.after(ids[-1]) in self._refused:
            self._step_back(ListEnd.REFUSED)
        else:
            self.end = ListEnd.REPEATED

    def record_failure(self, failure: PageFailure) -> bool:
        """Record that the request for the page failed; return whether the position counts as the cause."""
        if self.position is None:
            return False
        self._failures[failure] += 1
        is_repeated = self._failures[failure] >= failure.value
        # Trouble may pass, so it is repeated at each position. Any other failure is only repeated at the first.
        return is_repeated or (failure is not PageFailure.TROUBLE and self._causes[failure] > 0)

    def give_up_position(self, failure: PageFailure) -> None:
        """Go back to an earlier position, because this one is the cause of a failure."""
        assert self.position is not None, "the beginning of a list has no position to refuse"
        self._refused.add(self.position)
        self._causes[failure] += 1
        if self._causes.total() - self._causes[PageFailure.POSITION] >= _MOST_SUSPECTED:
            # One more request without a position tells whether the cloud still gives lists.
            is_in_trouble = self._causes[PageFailure.TROUBLE] > 0
            self._earlier = iter(() if is_in_trouble or self._fresh_starts else (None,))
        self._step_back(ListEnd.REFUSED)

    def start_over(self) -> None:
        """Start the list over; give it up if that has been done too often."""
        self._start_over(ListEnd.REPEATED)

    def _start_over(self, end: ListEnd) -> None:
        self._fresh_starts += 1
        if self._fresh_starts > _MOST_FRESH_STARTS:
            self.end = end
            return
        self.position = None
        self._failures.clear()
        self.rows = self.unread = self.pages = self._largest = 0
        self._asked.clear()
        self._refused.clear()
        self._places = {}

    def _shows_more(self, page: Page) -> bool:
        """Return whether a page shows that more rows follow it.

        A cloud that gives links gives one on every page except the last. Without links, more may follow a page that is
        at least as long as the longest page so far.
        """
        if self._has_links:
            return page.has_link or page.is_cut
        return page.says_more or (self.pages > 1 and page.rows >= self._largest)

    def _following(self, page: Page, ids: Sequence[str]) -> list[Position]:
        """Return the positions where the next page may begin, the best one first."""
        last = next((after for one in reversed(ids) if (after := Position.after(one)) not in self._refused), None)
        following = dict.fromkeys(one for one in (page.next, last) if one is not None)
        return [one for one in following if one not in self._asked and one not in self._refused]

    def _before(self, ids: Sequence[str]) -> list[Position | None]:
        """Return positions to go back to: after servers of this page in growing steps, this page, and the beginning."""
        earlier: list[Position | None] = []
        step = 2
        while step < len(ids):
            earlier.append(Position.after(ids[-step]))
            step *= 2
        # Servers that were deleted may have moved the following rows up to this page.
        return [*earlier, Position.after(ids[0]), *dict.fromkeys([self.position, None])]

    def _is_ignored(self, ids: Sequence[str]) -> bool:
        """Return whether the cloud ignored the position: the page has servers from before it."""
        if self.position is None or self.position == self._began:
            # The same page once more.
            return False
        place = self._places.get(self.position.value)
        return place is None or any(self._places[server_id] < place for server_id in ids)

    def _pass_over(self, following: Sequence[Position], end: ListEnd) -> None:
        """Go on after a page that shows nothing new; end the list if no position is left or this happens too often."""
        self._repeats += 1
        if following and self._repeats <= _MOST_REPEATS:
            self.position = following[0]
        else:
            self.end = end

    def _step_back(self, end: ListEnd) -> None:
        """Go back to an earlier position. If none is left, end the list: as `end` if more should follow."""
        self._failures.clear()
        may_start_over = self._says_more or not self._fresh_starts
        for earlier in self._earlier if self._ignored <= _MOST_IGNORED else ():
            if earlier is None and may_start_over:
                self._start_over(end)
                return
            if earlier is not None and earlier not in self._refused:
                self.position = earlier
                return
        if self._causes[PageFailure.TROUBLE]:
            self.end = ListEnd.FAILED
        else:
            self.end = end if self._says_more else ListEnd.UNCONFIRMED


def page_failure(seen: Observation) -> PageFailure | None:
    """Return why a page did not come; None if neither the page nor its position can be the cause."""
    if is_too_large(seen):
        return PageFailure.TROUBLE
    if not isinstance(seen, Answer) or asks_for_time(seen):
        return None
    if refuses_position(seen):
        return PageFailure.POSITION
    if seen.status == 401:
        return PageFailure.TOKEN
    # A success with other content than 200 has may hold servers.
    is_without_list = seen.status == 200 or (200 < seen.status < 300 and seen.fault.body is Body.EMPTY)
    if seen.is_redirect or (is_without_list and not seen.fault.code) or seen.status in _PARAMETER_REFUSED:
        return PageFailure.STRAY
    return None


def is_too_large(seen: Observation) -> bool:
    """Return whether a page failed because it has too many rows or is too slow, so that a smaller one may come."""
    if not isinstance(seen, Answer):
        return isinstance(seen, Unanswered)
    if seen.fault.body is Body.CUT_SHORT:
        return True
    # 501 says that there are no lists.
    if asks_for_time(seen) or seen.status == 501:
        return False
    return refuses_limit(seen) or seen.status in (408, 413) or seen.status >= 500


def asks_for_time(seen: Observation) -> bool:
    """Return whether the cloud asks to wait, so that another page would fail as well."""
    if not isinstance(seen, Answer):
        return False
    # A 413 may also say that the page is too large.
    is_throttled = seen.is_throttled and seen.status != 413
    return is_throttled or seen.fault.retry_after is not None or seen.fault.has_code("overLimit")


def refuses_limit(answer: Answer) -> bool:
    """Return whether an answer refuses this many rows on one page."""
    return answer.status in _LIMIT_REFUSED and _LIMIT.search(answer.fault.message) is not None


def refuses_position(seen: Observation) -> bool:
    """Return whether an answer refuses the position of a page, and not lists in general."""
    if not isinstance(seen, Answer) or seen.status not in _POSITION_REFUSED:
        return False
    return seen.status == 404 or not seen.is_wrong_endpoint
