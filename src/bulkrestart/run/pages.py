"""Reads a list of servers page by page, and adapts the next request when a page fails."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.pages import ListCursor, Page, Position, is_too_large, refuses_limit, refuses_position

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PageUnavailable:
    """A page that the cloud does not give. The next request asks for another page, or the list is over.

    Attributes:
        seen: What came instead of the page.
    """

    seen: Observation


class PageWalk:
    """Requests the pages of one list, one after the other.

    Args:
        compute: The cloud.
        filters: Query parameters by which the cloud may leave servers out.
        changes_since: Only servers that changed since then; None for all.

    Attributes:
        cursor: The position in the list.
    """

    def __init__(
        self, compute: Compute, *, filters: Mapping[str, str] | None = None, changes_since: float | None = None
    ) -> None:
        self.cursor = ListCursor()
        self._compute = compute
        self._size = compute.page_size
        self._limit = self._size.limit
        self._filters = filters
        self._changes_since = changes_since

    @property
    def next_query(self) -> tuple[Position | None, int]:
        """The position and the limit of the next request."""
        position = self.cursor.position
        # An offset may count pages of the former limit.
        is_kept = position is not None and position.depends_on_limit
        return position, self._limit if is_kept else self._size.limit

    async def request(self) -> Page | PageUnavailable | Observation:
        """Ask for the next page, and record what came.

        Returns:
            The page; or what came instead of it: `PageUnavailable` if that is about this page and not about the cloud.
        """
        position, limit = self.next_query
        self._limit = limit
        seen = await self._compute.page(
            position=position, limit=limit, filters=self._filters, changes_since=self._changes_since
        )
        if isinstance(seen, Page):
            self._size.note_page(seen)
            self.cursor.take(seen)
            return seen
        if is_too_large(seen):
            return self._ask_for_less(seen, position, limit)
        if position is not None and refuses_position(seen):
            self.cursor.refuse()
            return PageUnavailable(seen)
        return seen

    def _ask_for_less(self, seen: Observation, position: Position | None, limit: int) -> PageUnavailable | Observation:
        self._size.note_failure(limit)
        is_smaller = self._size.limit < limit
        if is_smaller:
            _log.info("a page of %d servers failed (%s): %d are requested next", limit, seen, self._size.limit)
        if is_smaller and position is not None and position.depends_on_limit:
            self.cursor.start_over()
        else:
            self.cursor.fail()
        is_refused = is_smaller and isinstance(seen, Answer) and refuses_limit(seen)
        return PageUnavailable(seen) if is_refused or self.cursor.end is not None else seen
