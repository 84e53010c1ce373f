"""Many servers, few tasks."""

from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import Final, TypeVar

import anyio

T = TypeVar("T")

#: Items that are dealt with without a pause: at twenty microseconds each, as a task takes, they hold the loop for 2 ms.
_PART: Final = 100


async def work_through(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, lanes: int) -> None:
    """Do the work for every item, `lanes` at a time: the lanes pull from one iterator, so memory does not grow."""
    source = iter(items)

    async def lane() -> None:
        for item in source:
            await work(item)

    async with anyio.create_task_group() as group:
        await unhurried(range(lanes), lambda _: group.start_soon(lane))


async def unhurried(items: Iterable[T], act: Callable[[T], object]) -> None:
    """Do something quick with each item of a large collection, and let others run in between."""
    source = iter(items)
    while part := list(islice(source, _PART)):
        for item in part:
            act(item)
        await anyio.lowlevel.checkpoint()
