"""One real Nova for all tests of this folder: started by the first, ended with the session, however that ends."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .bed import Nova

#: What the tests take together, and a few more.
SERVERS = 330
KEPT = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def nova(request: pytest.FixtureRequest) -> Iterator[Nova]:
    """Give a Nova with fresh servers; its databases and logs are kept if a test fails."""
    up = Path(__file__).parent / "harness" / "up.py"
    # Its standard input is its leash: it closes even if this process is killed, and the cloud then ends itself.
    # A session of its own keeps a Ctrl-C away from it, so that it can end in order.
    with subprocess.Popen(
        [sys.executable, str(up), "--servers", str(SERVERS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        facts = process.stdout.readline()
        if not facts:
            pytest.fail("Nova did not start; what it said stands below", pytrace=False)
        with Nova(json.loads(facts)) as bed, pytest.MonkeyPatch.context() as environment:
            environment.setenv("NO_PROXY", "127.0.0.1")
            environment.setenv("no_proxy", "127.0.0.1")  # which wins where both are set
            yield bed
        if request.session.testsfailed:
            request.config.stash[KEPT] = bed.folder
            process.stdin.write("keep\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was kept."""
    if KEPT in config.stash:
        terminalreporter.write_line(f"Nova's databases and logs are kept in {config.stash[KEPT]}")
