"""How a command ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended; of several that fit, the highest."""

    WELL = 0
    #: Some servers were refused, failed or skipped.
    PROBLEMS = 1
    #: What was given cannot be used; nothing was sent.
    USAGE = 2
    IN_DOUBT = 3
    #: The run stopped itself.
    STOPPED = 4
    #: Standard output could not be written: the account is on standard error.
    LOST = 5
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class End:
    """The end of a command.

    Attributes:
        code: The exit code.
        account: What standard error is told if standard output cannot be written.
    """

    code: ExitCode
    account: Sequence[str] = ()
