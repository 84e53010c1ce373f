"""Runs the async part of a command, and does not wait for name lookups at its end."""

import asyncio
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Final, TypeVar

from bulkrestart.cli.errors import InputError
from bulkrestart.cli.signals import cancelled_by_signals
from bulkrestart.cloud.failures import limit_of_machine

T = TypeVar("T")

#: Files that must be free when a command starts: for the loop, modules, signals, the journal and a connection.
_SPARE_FILES: Final = 10


class _Impatient(ThreadPoolExecutor):
    """The threads that look names up: nothing can cancel a lookup, and asyncio would wait for it at its end."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def run_async(main: Coroutine[object, object, T]) -> T:
    """Run on a new event loop.

    Raises:
        InputError: This machine does not let an event loop start. Nothing was sent.
    """

    async def run() -> T:
        asyncio.get_running_loop().set_default_executor(_Impatient())
        return await main

    with closing(main), ExitStack() as stack:
        try:
            # First, because a loop that is half made prints a traceback when it is deleted.
            _check_files()
            runner = stack.enter_context(asyncio.Runner())
        except OSError as error:
            why = limit_of_machine(error) or f"{error.strerror}; check the limits of this machine (ulimit -a)"
            raise InputError(f"the event loop cannot start: {why}; nothing was sent") from error
        return runner.run(run())


def _check_files() -> None:
    """Open as many files as a command needs at least, and close them.

    Raises:
        OSError: They cannot be opened.
    """
    with ExitStack() as stack:
        for _ in range(_SPARE_FILES):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))


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
        with closing(main):
            return run_async(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
