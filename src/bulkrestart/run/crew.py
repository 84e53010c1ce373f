"""Many servers, few tasks."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def work_through(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, lanes: int) -> None:
    """Do the work for every item, `lanes` at a time: the lanes pull from one iterator, so memory does not grow."""
    source = iter(items)

    async def lane() -> None:
        for item in source:
            await work(item)

    async with anyio.create_task_group() as group:
        for _ in range(lanes):
            group.start_soon(lane)
