"""A pytest fixture that serves simulated clouds: `pytest_plugins = ["bulkrestart.simulator.pytest_plugin"]`."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from bulkrestart.simulator.cloud import Cloud
from bulkrestart.simulator.server import LoopbackCloud


class ServeCloud(Protocol):
    """What the fixture gives: call it with a cloud to have it served until the test ends."""

    def __call__(self, cloud: Cloud | None = None) -> LoopbackCloud:
        """Serve `cloud`, or a new one of 100 servers; may be called again for another cloud."""
        ...


@pytest.fixture
def simulated_cloud() -> Iterator[ServeCloud]:
    """Serve clouds on loopback until the test ends.

    Example: `served = simulated_cloud(Cloud(servers=10))`, then `served.endpoint` and `served.cloud`.
    """
    with ExitStack() as served:

        def serve(cloud: Cloud | None = None) -> LoopbackCloud:
            return served.enter_context(LoopbackCloud(cloud or Cloud()))

        yield serve
