"""A run from its first request to its report, and the exit code that it ends with."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from enum import IntEnum
from typing import Protocol

from bulkrestart.cli.errors import InputError
from bulkrestart.cli.signals import Interrupts
from bulkrestart.cli.streams import Notes
from bulkrestart.client import Run
from bulkrestart.core.errors import BulkRestartError
from bulkrestart.core.model import Outcome, RebootType, ServerResult, Stop, StopReason
from bulkrestart.core.report import PROBLEMS, Ledger, Report


class ExitCode(IntEnum):
    """How a command ended; of several that fit a run, the highest."""

    WELL = 0
    #: Some servers were refused, failed or skipped.
    PROBLEMS = 1
    #: What was given cannot be used; nothing was sent.
    USAGE = 2
    IN_DOUBT = 3
    #: The run stopped itself.
    STOPPED = 4
    INTERRUPTED = 130


class Shows(Protocol):
    """What prints a run."""

    def show(self, result: ServerResult) -> None:
        """Take a server that has its outcome; not twice for one server."""
        ...

    def close(self, report: Report) -> None:
        """Take the report, with servers that were not shown yet."""
        ...


async def follow(
    restarting: AbstractAsyncContextManager[Run],
    *,
    ids: Sequence[str],
    reboot_type: RebootType,
    display: Shows,
    interrupts: Interrupts,
    notes: Notes,
) -> Report:
    """Enter a run, show its results as they come, and show its report however it ends.

    Raises:
        InputError: The run cannot begin. Nothing was sent.
    """
    run: Run | None = None
    try:
        with interrupts.absorbed(), notes.showing_warnings():
            async with AsyncExitStack() as stack:
                try:
                    run = await stack.enter_async_context(restarting)
                except (BulkRestartError, ValueError) as error:
                    raise InputError(str(error)) from error
                with notes.bar(run.statistics):
                    async for result in run:
                        display.show(result)
    finally:
        if run is not None:
            display.close(run.report)
    if run is not None:
        return run.report
    # The first look was interrupted.
    stop = Stop(StopReason.INTERRUPTED, "the run was cancelled; nothing was sent")
    report = Ledger(ids, reboot_type).report(0.0, began=0.0, stopped=stop, is_over=True)
    display.close(report)
    return report


def exit_code(report: Report, *, is_interrupted: bool) -> ExitCode:
    """Tell how a run ended."""
    outcomes = report.summary.keys()
    if is_interrupted:
        return ExitCode.INTERRUPTED
    if report.stopped is not None and report.stopped.reason not in (StopReason.INTERRUPTED, StopReason.ASKED):
        return ExitCode.STOPPED
    if Outcome.IN_DOUBT in outcomes:
        return ExitCode.IN_DOUBT
    return ExitCode.PROBLEMS if outcomes & PROBLEMS else ExitCode.WELL
