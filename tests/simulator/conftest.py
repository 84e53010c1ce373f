"""What the tests of the simulated cloud have in common."""

import pytest

from bulkrestart.simulator import Cloud, ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """A clock at the start of 2030."""
    return ManualClock()


@pytest.fixture
def cloud(clock: ManualClock) -> Cloud:
    """Five servers whose reboots take exactly ten seconds."""
    return Cloud(5, clock=clock, reboot_seconds=(10, 10))
