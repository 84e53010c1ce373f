"""The anti-affinity groups of a project."""

from functools import partial

from bulkrestart.core.errors import EndpointError
from bulkrestart.core.observation import Answer
from bulkrestart.run.preflight import Preflight


async def read_anti_affinity(preflight: Preflight) -> dict[str, str]:
    """Read which anti-affinity group each server is in that is in one: Nova has each in one group at most.

    Raises:
        AuthError: Our credentials are refused.
        EndpointError: Nothing answers, or something else than the compute API of the project; or it does not list
            groups, or has not listed all of them for too long (`StalledError`).
    """
    group_of: dict[str, str] = {}
    seen: set[str] = set()
    offset = 0
    while True:
        with preflight.stall.bounded():
            page = await preflight.ask(partial(preflight.compute.groups, offset=offset))
        if isinstance(page, Answer):
            raise EndpointError(f"server groups cannot be listed: {page.words}; spread by another function")
        # A gateway that ignores the offset gives the same page for ever.
        new = [group for group in page if group.id not in seen]
        if not new:
            return group_of
        for group in new:
            seen.add(group.id)
            if group.is_anti_affine:
                group_of.update(dict.fromkeys(group.members, group.id))
        offset += len(page)
