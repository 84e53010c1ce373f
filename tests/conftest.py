"""What all tests share: nothing is left in the state directory of whoever runs them, and what is measured of them."""

import sys
from collections.abc import Generator, Iterator

import coverage
import pytest


@pytest.fixture(autouse=True, scope="session")
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the journals that commands make by default elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _programs() -> Iterator[None]:
    """Measure the tests, and not the programs that they start: one that is killed leaves half a measurement."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no test that goes the same ways thousands of times: it would take thrice its time.

    Nor what Hypothesis draws: whether a line is reached must not be left to chance.
    """
    is_measured = not any(map(item.get_closest_marker, ("unmeasured", "hypothesis")))
    if is_measured or coverage.Coverage.current() is None:
        return (yield)
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
