"""What all tests share: nothing is left in the state directory of whoever runs them, and what is measured of them."""

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import certifi
import coverage
import pytest


@pytest.fixture(autouse=True, scope="session")
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the journals that commands make by default elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one certificate in place of the system's 150: each client of httpx, and of ours, loads them for 20 ms."""
    folder = tmp_path_factory.mktemp("certificates")
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    (folder / "one.pem").write_text(first + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "one.pem"))
        patch.setenv("SSL_CERT_DIR", str(folder))
        for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            patch.delenv(variable, raising=False)
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
