"""What is between two waves: time, or somebody's word."""

from collections.abc import Awaitable, Callable

import anyio

from bulkrestart.core.faults import plain
from bulkrestart.core.model import Stop, StopReason
from bulkrestart.core.report import Report
from bulkrestart.core.rollout import Pause
from bulkrestart.engine.stop_signal import StopSignal


async def interlude(pause: float | Pause, report: Callable[[], Report], stop_signal: StopSignal) -> None:
    """Wait, or ask whether to go on, and halt the run if not. A run that stops meanwhile waits no longer.

    Args:
        pause: Seconds, or who is asked.
        report: Gives the report so far.
        stop_signal: Tells when the run stops.
    """
    said: list[str] = []
    async with anyio.create_task_group() as group:

        async def end_at_stop() -> None:
            await stop_signal.stopped.wait()
            group.cancel_scope.cancel()

        async def ask(decide: Pause) -> None:
            try:
                said.append(await _ask(decide, report()))
            finally:
                group.cancel_scope.cancel()

        group.start_soon(end_at_stop)
        if callable(pause):
            # A task of its own: asyncio lets anybody raise a cancellation, and here it ends nothing but the question.
            group.start_soon(ask, pause)
        else:
            await anyio.sleep(pause)
            group.cancel_scope.cancel()
    if callable(pause) and (words := said[0] if said else "the function of pause was cancelled"):
        stop_signal.halt(Stop(StopReason.PAUSE, words))


async def _ask(pause: Callable[[Report], object], report: Report) -> str:
    """Say what speaks against going on; "" if nothing does."""
    try:
        answer = pause(report)
        if not isinstance(answer, Awaitable):
            return f"pause must be an async function (async def): what it gave is a {type(answer).__name__}"
        goes_on: object = await answer
    except Exception as error:  # whatever a user's function may raise
        return plain(f"the function of pause failed: {type(error).__name__}: {error}")
    return "" if goes_on is True else f"the function of pause says {goes_on!r:.60}"
