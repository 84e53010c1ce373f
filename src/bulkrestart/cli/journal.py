"""Where a command keeps its journal, and `bulkrestart journal`, which prints what one holds."""

import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bulkrestart.cli.end import End, ExitCode
from bulkrestart.cli.errors import InputError, refusals_told
from bulkrestart.cli.show import Display, Output
from bulkrestart.cli.streams import Streams, safe
from bulkrestart.core.checkpoint import Contents, leaves_nothing_to_do
from bulkrestart.core.clock import moment_text
from bulkrestart.core.model import Outcome, StopReason
from bulkrestart.core.report import Report

_REMEDY: Final = "give --journal FILE, or --no-journal"


def new_path() -> Path:
    """Give the path for a journal that nobody has named, in the user's state directory (XDG Base Directory 0.8).

    Raises:
        InputError: There is no such directory, and it cannot be made.
    """
    try:
        stated = Path(os.environ.get("XDG_STATE_HOME", ""))
        # A relative one is to be ignored.
        folder = (stated if stated.is_absolute() else Path.home() / ".local" / "state") / "bulkrestart"
        if not folder.is_absolute() or os.environ.get("HOME") == "":
            raise RuntimeError("HOME is no absolute path")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"there is no place for a journal of this run: {why}; {_REMEDY}") from error
    return folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.journal"


def contents_of(path: str | None) -> Contents | None:
    """Read what a journal that was named holds already; None if its run has not begun.

    Raises:
        InputError: It cannot be read.
    """
    # A restart without a journal needs no locks on files, which not every system has.
    from bulkrestart.journal import read_contents

    with refusals_told():
        return None if path is None or not os.path.exists(path) else read_contents(path)


def words_on_rest(report: Report, path: Path, goal: Outcome) -> str | None:
    """Say how to go on with a run; None if nothing is left to do.

    Args:
        report: What has become of the servers.
        path: The journal.
        goal: How far the servers are to come.
    """
    rest = sum(not leaves_nothing_to_do(result, goal) for result in report)
    if not rest:
        return None
    # Budgets count over the whole run: with the same one it would stop again, whoever has seen to the servers.
    reason = None if report.stopped is None else report.stopped.reason
    is_spent = reason in (StopReason.MAX_FAILURES, StopReason.MAX_REFUSED)
    budget = f"a larger --{reason.replace('_', '-')} and " if reason is not None and is_spent else ""
    journal = f"--journal {shlex.quote(str(path))}"
    return f"{rest} of {len(report)} servers are left: the same command with {budget}{journal} goes on"


def print_journal(path: str, output: Output, streams: Streams) -> End:
    """Print what a journal holds, also while a run is at it.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    from bulkrestart.journal import read_journal, why_not_trusted

    with refusals_told():
        contents, holder = read_journal(path)
    doubt = why_not_trusted(path)
    if doubt is not None:
        streams.warn(f"another user may have changed this journal, and a restart refuses it: {doubt}")
    report = contents.report(is_over=holder is None)
    write = streams.line if output is Output.TABLE else streams.say
    write(safe(_heading(contents, holder)))
    display = Display(output, contents.ids, streams)
    for result in report:
        display.show(result)
    display.close(report)
    if holder is None:
        # Whether accepted, or completed, was enough, only who gave the command knows.
        unawaited = report.summary.get(Outcome.ACCEPTED, 0)
        write(safe(words_on_rest(report, Path(path), Outcome.ACCEPTED) or "nothing is left to do"))
        if unawaited:
            write(f"{unawaited} accepted ones were not waited for to the end: the same command does, without --no-wait")
    return End(ExitCode.WELL, display.account(report))


def _heading(contents: Contents, holder: str | None) -> str:
    header = contents.header
    since = f" since {moment_text(header.identity.since)}" if header.identity.since is not None else ""
    held = "" if holder is None else f", held by {holder}"
    return (
        f"{header.identity.reboot_type} restart of {len(contents.ids)} servers at {header.identity.target}{since}, "
        f"begun {moment_text(header.began)}, last written {moment_text(contents.written)}{held}"
    )
