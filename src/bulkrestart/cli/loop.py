"""Runs the async part of a command, and does not wait for name lookups at its end."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bulkrestart.cli.signals import cancelled_by_signals

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


def run_before_sending(main: Coroutine[object, object, T]) -> T:
    """Run what sends no reboot: a signal ends it.

    Raises:
        KeyboardInterrupt: A signal came. Python's own handler would raise it in the midst of the event loop, where it
            can come out as anything.
    """

    async def run() -> T:
        with cancelled_by_signals():
            return await main

    try:
        return run_async(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
