"""The question before a large run."""

import io
import os
from pathlib import Path

from bulkrestart.cli.errors import InputError
from bulkrestart.cli.plan import in_short, target_lines
from bulkrestart.cli.streams import safe
from bulkrestart.core.plan import Plan

#: A run over more servers than this asks first.
ASKS_OVER = 10
#: TargetOptions it is asked and answered, wherever the standard streams go.
TERMINAL = "/dev/tty"
_NAMED = 3


def question(
    plan: Plan,
    *,
    reboot_type: str,
    max_at_once: int,
    since: str | None,
    journal: Path | None,
) -> str:
    """Say what is about to be done to whom; servers by their names where the cloud shows them.

    Args:
        plan: What would be done.
        reboot_type: What is asked of their hosts.
        max_at_once: Requests in flight at once.
        since: Who has rebooted since is left alone; None: nobody is.
        journal: TargetOptions it is written down; None: nowhere.
    """
    named = ", ".join(one.name or one.server_id for one in plan.forecasts[:_NAMED])
    lines = (
        f"{reboot_type} restart of {len(plan.forecasts)} servers, at most {max_at_once} requests at once",
        *(f"  {line}" for line in target_lines(plan.target)),
        f"  servers   {named} and {len(plan.forecasts) - _NAMED} more",
        *([f"  but not   those that have rebooted since {since}"] if since else []),
        *(f"  {line}" for line in in_short(plan)),
        *([f"  journal   {journal}"] if journal else []),
    )
    return "\n".join(safe(line) for line in lines)


def check_terminal() -> None:
    """See that there is somebody to ask, before there is a question.

    Raises:
        InputError: There is no terminal.
    """
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        raise _nobody() from error


def confirm(text: str) -> None:
    """Ask on the terminal whether to go on.

    Raises:
        InputError: There is no terminal to ask on, or the answer is not yes.
    """
    try:
        # As getpass does it: a terminal cannot seek, so nothing that buffers can read and write it.
        file = io.FileIO(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY), "r+")
        with io.TextIOWrapper(file, encoding="utf-8", errors="replace") as terminal:
            terminal.write(f"{text}\nRestart them? [y/N] ")
            terminal.flush()
            answer = terminal.readline()
    except OSError as error:
        raise _nobody() from error
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError("not confirmed; nothing was sent")


def _nobody() -> InputError:
    return InputError(f"over {ASKS_OVER} servers, and no terminal to ask on: give --yes to go on without a question")
