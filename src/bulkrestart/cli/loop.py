"""Runs what is async, and waits for nothing that nobody waits for any more."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class _Impatient(ThreadPoolExecutor):
    """The threads that look names up: nothing can cancel a lookup, and asyncio would wait for it at its end."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def run_async(main: Coroutine[object, object, T]) -> T:
    """Run on a new event loop."""

    async def run() -> T:
        asyncio.get_running_loop().set_default_executor(_Impatient())
        return await main

    return asyncio.run(run())
