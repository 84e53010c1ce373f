"""A process that restarts servers with a journal, and may die of it; `tests/kills.py` runs it.

The token is in OS_TOKEN. The report goes to standard output; what refuses the run, to standard error, with exit 2.
"""

import argparse
import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Final
from unittest.mock import patch

import anyio

from bulkrestart import BulkRestartError, Report, RestartClient, Token

#: Seconds in which the run must end: nobody is there to end it if its parent is killed.
BOUND: Final = 150.0


class Mortal:
    """A disk that kills its process at one of the journal's syncs: there is one for the start, and for each commit.

    Args:
        syncs: Which sync is the last.
        is_kept: Whether what was to be synced is on the disk whole when the process dies; if not, a commit is there in
            part, and its mark is not.
    """

    def __init__(self, syncs: int, *, is_kept: bool) -> None:
        self._left = syncs
        self._is_kept = is_kept
        self._pwrite, self._fsync = os.pwrite, os.fsync

    def pwrite(self, descriptor: int, data: bytes, at: int) -> int:
        """Write; die in the midst of the last commit, or after its mark."""
        is_commit = at == os.fstat(descriptor).st_size > 0
        if is_commit and self._left == 1 and not self._is_kept:
            self._pwrite(descriptor, data[: len(data) // 2], at)
            _die()
        written = self._pwrite(descriptor, data, at)
        if self._left == 0:
            _die()
        return written

    def fsync(self, descriptor: int) -> None:
        """Sync, and count."""
        self._left -= stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._fsync(descriptor)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Restart, print, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill_child", description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("journal")
    parser.add_argument("ids", type=Path, help="a file of ids, one a line")
    parser.add_argument("type")
    parser.add_argument("--max-at-once", type=int, required=True)
    parser.add_argument("--grace", type=float, required=True, help="seconds in place of the library's graces")
    parser.add_argument("--poll", type=float, required=True, help="seconds between two polls, and looks, at most")
    parser.add_argument("--committing", type=int, default=0, help="die at this commit, in the midst of it")
    parser.add_argument("--committed", type=int, default=0, help="die at this commit, right after it")
    options = parser.parse_args()
    if commits := options.committing or options.committed:
        mortal = Mortal(commits, is_kept=bool(options.committed))
        patch("os.pwrite", mortal.pwrite).start()
        patch("os.fsync", mortal.fsync).start()
    # The graces allow for gateways that deliver a request long after they have given up, and for reads that lag. The
    # cloud of this process is known to act on a request within these seconds, or never, and to show it at once.
    for name in ("look.GRACE", "look.LATE_GRACE", "calibration.UNMEASURED_LAG"):
        patch(f"bulkrestart.core.{name}", options.grace).start()
    for name in ("submit.LAST_CEILING", "settle.FIRST_INTERVAL", "settle.LAST_INTERVAL"):
        patch(f"bulkrestart.run.{name}", options.poll).start()
    try:
        report = anyio.run(_restart, options)
    except BulkRestartError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    results = [(one.server_id, one.outcome, one.reason, len(one.attempts), one.request_id) for one in report]
    sys.stdout.write(json.dumps(results))
    return 0


async def _restart(options: argparse.Namespace) -> Report:
    ids = options.ids.read_text().split()
    token = Token(os.environ["OS_TOKEN"])
    with anyio.fail_after(BOUND):
        async with RestartClient(options.endpoint, auth=token, max_at_once=options.max_at_once) as client:
            return await client.restart(ids, reboot_type=options.type, journal=options.journal)


if __name__ == "__main__":
    sys.exit(main())
