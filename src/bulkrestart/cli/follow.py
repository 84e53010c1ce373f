"""A run from its first request to its report, and the exit code that it ends with."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import Protocol

from bulkrestart.cli.end import ExitCode
from bulkrestart.cli.errors import InputError
from bulkrestart.cli.signals import Interrupts, leave_on_signals
from bulkrestart.cli.streams import Streams
from bulkrestart.client import Run
from bulkrestart.core.errors import BulkRestartError
from bulkrestart.core.model import Outcome, RebootType, ServerResult, Stop, StopReason
from bulkrestart.core.report import PROBLEMS, Ledger, Report


class Shows(Protocol):
    """What prints a run."""

    def show(self, result: ServerResult) -> None:
        """Take a server that has its outcome: each once."""
        ...

    def close(self, report: Report) -> None:
        """Take the report, when every server was shown."""
        ...


async def follow(
    restarting: AbstractAsyncContextManager[Run],
    *,
    before: Report,
    display: Shows,
    interrupts: Interrupts,
    streams: Streams,
) -> Report:
    """Enter a run, show its results as they come, and show its report however it ends.

    Args:
        restarting: The run.
        before: What is known of its servers before it begins.
        display: Shows them.
        interrupts: The signals.
        streams: Where to draw the bar.

    Raises:
        InputError: The run cannot begin. Nothing was sent.
    """
    run: Run | None = None
    shown: set[str] = set()

    def show(result: ServerResult) -> None:
        if result.server_id not in shown:
            display.show(result)
            shown.add(result.server_id)

    def close(report: Report) -> None:
        # The run is over, and what is printed now holds the event loop: a signal could not be acted on in good order.
        leave_on_signals()
        for result in report:
            show(result)
        display.close(report)

    try:
        with interrupts.absorbed():
            async with AsyncExitStack() as stack:
                try:
                    run = await stack.enter_async_context(restarting)
                except (BulkRestartError, ValueError) as error:
                    raise InputError(str(error)) from error
                with streams.bar(run.statistics):
                    async for result in run:
                        show(result)
    finally:
        if run is not None:
            close(run.report)
    if run is not None:
        return run.report
    # The first look was interrupted.
    stop = Stop(StopReason.INTERRUPTED, "the run was cancelled; nothing was sent by this command")
    report = replace(before, stopped=stop)
    close(report)
    return report


def nothing_done(ids: Sequence[str], reboot_type: RebootType) -> Report:
    """Tell of a fleet that nothing has been done for it."""
    return Ledger(ids, reboot_type).report(0.0, began=0.0, stopped=None, is_over=True)


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
