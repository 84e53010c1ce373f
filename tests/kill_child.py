"""A process that restarts servers with a journal, and may die of it; `tests/kills.py` runs it.

The token is in OS_TOKEN. The report goes to standard output; what refuses the run, to standard error, with exit 2.
"""

import argparse
import json
import os
import signal
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import anyio

from bulkrestart import BulkRestartError, Report, RestartClient, Token

#: Seconds in which the run must end: nobody is there to end it if its parent is killed.
BOUND: Final = 150.0


class Mortal(sqlite3.Connection):
    """A database that kills its process at one of its commits.

    Attributes:
        commits: How many are left until then.
        is_kept: Whether that one is on the disk when the process dies.
    """

    commits: int
    is_kept: bool

    def __init__(self, *arguments: Any, commits: int, is_kept: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.commits, self.is_kept = commits, is_kept

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Execute a statement; die at the commit that is the last, in the midst of it or right after it."""
        # Outside of a transaction, a statement that writes is one of its own.
        is_commit = sql == "COMMIT" or (sql.startswith("INSERT") and not self.in_transaction)
        self.commits -= is_commit
        is_last = is_commit and not self.commits
        if is_last and not self.is_kept:
            # Called by the database after so many of its own instructions, before it comes to the commit.
            self.set_progress_handler(_die, 1 if sql == "COMMIT" else 20)
        cursor = super().execute(sql, parameters)
        if is_last:
            _die()
        return cursor


def _die() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


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
        mortal = partial(Mortal, commits=commits, is_kept=bool(options.committed))
        patch("sqlite3.connect", partial(sqlite3.connect, factory=mortal)).start()
    # The graces allow for gateways that deliver a request long after they have given up. Who starts this process knows
    # of the cloud that it acts on a request within these seconds, or never.
    for name in ("look.GRACE", "look.LATE_GRACE"):
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
