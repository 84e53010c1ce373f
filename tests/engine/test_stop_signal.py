"""Why a run stops, and whether it still waits for answers."""

import logging

import anyio
import pytest

from bulkrestart.core.model import Stop, StopReason
from bulkrestart.engine.stop_signal import StopSignal

ASKED = Stop(StopReason.ASKED, "the run was asked to stop")


@pytest.mark.parametrize("reason", StopReason)
@pytest.mark.parametrize("is_abandoned", [None, True, False])
def test_only_an_outage_and_a_stall_abandon_a_run(reason: StopReason, is_abandoned: bool | None) -> None:
    """After any other stop, what was sent is followed to its end, unless the caller says otherwise."""

    async def main() -> None:
        signal = StopSignal()
        signal.halt(Stop(reason, "why"), is_abandoned=is_abandoned)
        expected = reason in (StopReason.OUTAGE, StopReason.STALLED) if is_abandoned is None else is_abandoned
        assert signal.stopped.is_set()
        assert signal.abandoned.is_set() is expected

    anyio.run(main)


@pytest.mark.parametrize("later", StopReason)
def test_the_first_reason_stands(later: StopReason, caplog: pytest.LogCaptureFixture) -> None:
    """A later stop may abandon the run, and changes no reason; each is told to all parts of the run."""

    async def main() -> None:
        signal = StopSignal()
        signal.begin()
        told: list[Stop | None] = []
        for _ in range(2):
            signal.subscribe(lambda: told.append(signal.stop))
        signal.halt(ASKED)
        assert not signal.abandoned.is_set()
        signal.halt(Stop(later, "later"))
        assert signal.stop is ASKED
        assert signal.abandoned.is_set() is (later in (StopReason.OUTAGE, StopReason.STALLED))
        assert told == [ASKED] * 4

    with caplog.at_level(logging.WARNING, "bulkrestart"):
        anyio.run(main)
    words = ["the run stops: the run was asked to stop"]
    if later is StopReason.STALLED:
        words.append("the run waits no longer: later")
    assert [record.getMessage() for record in caplog.records] == words


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
        signal = StopSignal()
        for step in steps.split():
            if step == "begin":
                signal.begin()
            else:
                signal.halt(Stop(reason, "why"))

    with caplog.at_level(logging.WARNING):
        anyio.run(main)
    assert [line for line in caplog.messages if line.startswith("the run stops")] == lines
