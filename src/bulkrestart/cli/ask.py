"""The question before a large run."""

from collections.abc import Sequence

from bulkrestart.cli.errors import InputError
from bulkrestart.cli.streams import Notes, safe

#: A run over more servers than this asks first.
ASKS_OVER = 10
#: Where the answer is read, also when ids come by standard input.
TERMINAL = "/dev/tty"
_NAMED = 3


def question(ids: Sequence[str], *, reboot_type: str, endpoint: str, project_id: str, max_at_once: int) -> str:
    """Say what is about to be done to whom."""
    named = ", ".join(ids[:_NAMED])
    lines = (
        f"{reboot_type} restart of {len(ids)} servers, at most {max_at_once} requests at once",
        f"  endpoint  {endpoint}",
        f"  project   {project_id}",
        f"  servers   {named} and {len(ids) - _NAMED} more",
    )
    return "\n".join(safe(line) for line in lines)


def confirm(notes: Notes, text: str) -> None:
    """Ask on the terminal whether to go on.

    Raises:
        InputError: There is no terminal to ask on, or the answer is not yes.
    """
    try:
        with open(TERMINAL, encoding="utf-8", errors="replace") as terminal:
            notes.ask(f"{text}\nRestart them? [y/N]")
            answer = terminal.readline()
    except OSError as error:
        raise InputError(
            f"over {ASKS_OVER} servers, and no terminal to ask on: give --yes to go on without a question"
        ) from error
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError("not confirmed; nothing was sent")
