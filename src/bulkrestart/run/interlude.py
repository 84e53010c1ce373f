"""What is between two waves: time, or somebody's word."""

from collections.abc import Callable

import anyio

from bulkrestart.core.faults import plain
from bulkrestart.core.model import Stop, StopReason
from bulkrestart.core.report import Report
from bulkrestart.core.rollout import Pause
from bulkrestart.run.course import Course


async def interlude(pause: float | Pause, report: Callable[[], Report], course: Course) -> None:
    """Wait, or ask whether to go on, and halt the run if not. A run that stops meanwhile waits no longer.

    Args:
        pause: Seconds, or who is asked.
        report: Gives the report so far.
        course: Whether the run still sends.
    """
    async with anyio.create_task_group() as group:

        async def end_at_stop() -> None:
            await course.stopped.wait()
            group.cancel_scope.cancel()

        group.start_soon(end_at_stop)
        if callable(pause):
            await _ask(pause, report(), course)
        else:
            await anyio.sleep(pause)
        group.cancel_scope.cancel()


async def _ask(pause: Pause, report: Report, course: Course) -> None:
    try:
        goes_on = await pause(report)
    except Exception as error:
        course.halt(Stop(StopReason.PAUSE, plain(f"the function of pause failed: {type(error).__name__}: {error}")))
        return
    if goes_on is not True:
        course.halt(Stop(StopReason.PAUSE, f"the function of pause says {goes_on!r:.60}"))
