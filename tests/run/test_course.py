"""What is logged of a run that stops: nothing that an error says as well."""

import logging

import anyio
import pytest

from bulkrestart.core.model import Stop, StopReason
from bulkrestart.run.course import Course

REASONS = [StopReason.OUTAGE, StopReason.STALLED, StopReason.WRONG_ENDPOINT, StopReason.UNAUTHORIZED]


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize(
    ("steps", "lines"),
    [
        ("stop", []),
        ("stop stop", []),
        ("stop begin", ["the run stops: why"]),
        ("begin stop", ["the run stops: why"]),
        ("begin begin stop", ["the run stops: why"]),
        ("stop begin begin", ["the run stops: why"]),
        ("begin stop begin", ["the run stops: why"]),
    ],
)
def test_when_a_stop_is_logged(
    steps: str, lines: list[str], reason: StopReason, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and only if the run begins: before that, nothing was sent, and an error is raised."""

    async def main() -> None:
        course = Course()
        for step in steps.split():
            if step == "begin":
                course.begin()
            else:
                course.halt(Stop(reason, "why"))

    with caplog.at_level(logging.WARNING):
        anyio.run(main)
    assert [line for line in caplog.messages if line.startswith("the run stops")] == lines
