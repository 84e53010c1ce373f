"""Many servers, few tasks."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import islice
from typing import Final, TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")

#: Items that are dealt with without a pause: at some microseconds for each they hold the loop for a few milliseconds.
_PART: Final = 500
#: Lanes that begin in one turn of the event loop: a first request, with its connection, takes half a millisecond.
_LANES_AT_ONCE: Final = 10


async def work_through(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, lanes: int) -> None:
    """Do the work for every item, `lanes` at a time: the lanes pull from one iterator, so memory does not grow."""
    source = iter(items)

    async def lane() -> None:
        for item in source:
            await work(item)

    async with anyio.create_task_group() as group:
        await start_lanes(group, lane, lanes=lanes)


async def start_lanes(group: TaskGroup, lane: Callable[[], Coroutine[object, None, None]], *, lanes: int) -> None:
    """Start many tasks that do the same, and let others run in between."""
    await unhurried(range(lanes), lambda _: group.start_soon(lane), part=_LANES_AT_ONCE)


async def unhurried(items: Iterable[T], act: Callable[[T], object], *, part: int = _PART) -> None:
    """Do something quick with each item of a large collection, and let others run after each part of it."""
    source = iter(items)
    while quick := list(islice(source, part)):
        for item in quick:
            act(item)
        await anyio.lowlevel.checkpoint()
