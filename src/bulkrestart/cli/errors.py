"""Errors that end a command before anything is sent: one line with the remedy, and exit code 2, or 4 if it stalled."""

from collections.abc import Iterator
from contextlib import contextmanager

from bulkrestart.cli.end import ExitCode
from bulkrestart.core.arguments import without_userinfo
from bulkrestart.core.errors import BulkRestartError, StalledError


class InputError(Exception):
    """Raised when what was given cannot be used. Nothing was sent."""

    @property
    def code(self) -> ExitCode:
        """The exit code: STOPPED if the cloud made no progress, because the input may be good, and else USAGE."""
        return ExitCode.STOPPED if isinstance(self.__cause__, StalledError) else ExitCode.USAGE


@contextmanager
def input_checked(prefix: str = "") -> Iterator[None]:
    """Turn the library's `ValueError` about an argument into an `InputError`, with `prefix` before its words."""
    try:
        yield
    except ValueError as error:
        raise InputError(without_userinfo(f"{prefix}{error}")) from error


@contextmanager
def options_checked() -> Iterator[None]:
    """Do the same where arguments are options: `max_attempts must be ...` becomes `--max-attempts must be ...`."""
    try:
        yield
    except ValueError as error:
        name, _, words = str(error).partition(" ")
        raise InputError(f"--{name.replace('_', '-')} {words}") from error


@contextmanager
def refusals_told() -> Iterator[None]:
    """Turn what the library refuses before anything is sent into an `InputError`."""
    try:
        yield
    except (BulkRestartError, ValueError) as error:
        raise InputError(str(error)) from error
