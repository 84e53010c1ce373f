"""A process that restarts one server, and may be stopped and woken; `tests/stops.py` runs it.

The token is in OS_TOKEN. The outcome, its reason and the number of sends go to standard output.
"""

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from typing import Final

import anyio

from bulkrestart import Report, RestartClient, Token
from bulkrestart.run import submit

#: Seconds besides the stop in which the run must end: nobody is there to end it if its parent is killed.
BOUND: Final = 400.0


def main() -> int:
    """Restart, print, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.stop_child", description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("id")
    parser.add_argument("type")
    parser.add_argument("--since", type=float, help="seconds since the epoch")
    parser.add_argument("--look-life", type=float, help="seconds for which a look stands before a send")
    options = parser.parse_args()
    if options.look_life is not None:
        submit.LOOK_LIFE = submit.CLOSE_LOOK_LIFE = options.look_life  # type: ignore[misc]
    [result] = anyio.run(_restart, options)
    sys.stdout.write(json.dumps((result.outcome, result.reason, len(result.attempts))))
    return 0


async def _restart(options: argparse.Namespace) -> Report:
    since = None if options.since is None else datetime.fromtimestamp(options.since, UTC)
    with anyio.fail_after(BOUND):
        async with RestartClient(options.endpoint, auth=Token(os.environ["OS_TOKEN"])) as client:
            return await client.restart([options.id], reboot_type=options.type, since=since)


if __name__ == "__main__":
    sys.exit(main())
