"""Reads a list of servers page by page, and adapts the next request when a page fails."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.pages import ListCursor, Page, PageFailure, Position, page_failure, refuses_limit

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
        may_repeat: Whether the last request failed for a cause that only a repeated request shows.
    """

    def __init__(
        self, compute: Compute, *, filters: Mapping[str, str] | None = None, changes_since: float | None = None
    ) -> None:
        self.cursor = ListCursor()
        self.may_repeat = False
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
        self.may_repeat = False
        judged: Page | PageUnavailable | Observation | None = None

        def is_about_page(seen: Page | Observation) -> bool:
            nonlocal judged
            judged = self._judge(seen, position, limit)
            return isinstance(judged, PageUnavailable)

        await self._compute.page(
            position=position,
            limit=limit,
            filters=self._filters,
            changes_since=self._changes_since,
            is_about_page=is_about_page,
        )
        assert judged is not None, "each answer is judged before it is recorded"
        return judged

    def _judge(
        self, seen: Page | Observation, position: Position | None, limit: int
    ) -> Page | PageUnavailable | Observation:
        if isinstance(seen, Page):
            self._size.note_page(seen)
            self.cursor.take(seen)
            return seen
        failure = page_failure(seen)
        if failure is None:
            return seen
        is_cause = self.cursor.record_failure(failure)
        if failure is PageFailure.TROUBLE and self._lower_limit(seen, position, limit, is_cause=is_cause):
            return PageUnavailable(seen)
        if not is_cause:
            self.may_repeat = position is not None
            return seen
        self.cursor.give_up_position(failure)
        self._size.note_refused_position()
        return PageUnavailable(seen)

    def _lower_limit(self, seen: Observation, position: Position | None, limit: int, *, is_cause: bool) -> bool:
        """Choose a lower limit, if one may help; return whether the list goes on with it at once."""
        is_refused = isinstance(seen, Answer) and refuses_limit(seen)
        depends_on_limit = position is not None and position.depends_on_limit
        if depends_on_limit and not is_refused and not is_cause:
            # A lower limit would start the list over, so the same page is first requested a few times.
            return False
        self._size.note_failure(limit)
        is_lower = self._size.limit < limit
        if is_lower:
            _log.info("a page of %d servers failed (%s): %d are requested next", limit, seen, self._size.limit)
        if is_lower and depends_on_limit:
            self.cursor.start_over()
        return is_lower and (is_refused or depends_on_limit)
