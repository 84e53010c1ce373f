"""The anti-affinity groups of a project."""

import logging
from collections.abc import Sequence
from typing import Final

from bulkrestart.cloud.compute import ServerGroup
from bulkrestart.core.errors import EndpointError
from bulkrestart.core.observation import CHECK_URL, Answer, Observation
from bulkrestart.core.pages import PageSize, is_too_large, refuses_limit
from bulkrestart.run.preflight import Preflight

_log = logging.getLogger(__name__)

_REMEDY: Final = f"spread by another function, or {CHECK_URL}"


async def read_anti_affinity(preflight: Preflight) -> dict[str, str]:
    """Read which anti-affinity group each server is in that is in one: Nova has each in one group at most.

    Raises:
        AuthError: Our credentials are refused.
        EndpointError: Nothing answers, or something else than the compute API of the project; or it does not list
            groups, or has not listed all of them for too long (`StalledError`).
    """
    group_of: dict[str, str] = {}
    seen: set[str] = set()
    size = PageSize()
    offset = unread = 0

    async def request() -> Sequence[ServerGroup | None] | Observation | None:
        """Ask for the next page; return None if the cloud refuses so many groups on one page."""
        limit = size.limit
        page = await preflight.compute.groups(offset=offset, limit=limit)
        if isinstance(page, Observation) and is_too_large(page):
            size.note_failure(limit)
            if size.limit < limit and isinstance(page, Answer) and refuses_limit(page):
                return None
        return page

    while True:
        with preflight.stall.bounded():
            page = await preflight.ask(request, what="its server groups", remedy=_REMEDY)
        if page is None:
            continue
        if isinstance(page, Answer):
            raise EndpointError(f"server groups cannot be listed: {page.words}; spread by another function")
        new = [group for group in page if group is not None and group.id not in seen]
        if page and all(group is None for group in page):
            raise EndpointError(f"none of {len(page)} server groups can be read; spread by another function")
        # A gateway that ignores the offset gives the same page for ever.
        if not new:
            break
        for group in new:
            seen.add(group.id)
            if group.is_anti_affine:
                group_of.update(dict.fromkeys(group.members, group.id))
        unread += sum(group is None for group in page)
        offset += len(page)
    if unread:
        _log.warning("%d server groups cannot be read: their servers are not kept apart", unread)
    return group_of
