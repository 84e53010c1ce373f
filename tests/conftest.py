"""What all tests share: nothing is left in the state directory of whoever runs them, and what is measured of them."""

import gc
import importlib
import pkgutil
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import certifi
import coverage
import pytest

import bulkrestart


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


@contextmanager
def _unmeasured() -> Iterator[None]:
    """Run without the tracer of coverage, in this thread and in those that start meanwhile."""
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        yield
    finally:
        threading.settrace(of_threads)
        sys.settrace(tracer)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect without measuring and without the garbage collector: both double its time.

    All modules are imported first, so that what an import reaches is measured.
    """
    if session.config.pluginmanager.has_plugin("dsession"):  # The workers of pytest-xdist collect.
        return (yield)
    for module in pkgutil.walk_packages(bulkrestart.__path__, "bulkrestart."):
        if module.name != "bulkrestart.simulator.pytest_plugin":  # pytest warns of a plugin that it does not import.
            importlib.import_module(module.name)
    gc.disable()
    try:
        with _unmeasured():
            return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Trace no test whose lines others reach: it would take twice its time.

    Nor what Hypothesis draws: whether a line is reached must not be left to chance.
    """
    is_measured = not any(map(item.get_closest_marker, ("unmeasured", "hypothesis")))
    if is_measured or coverage.Coverage.current() is None:
        return (yield)
    with _unmeasured():
        return (yield)
