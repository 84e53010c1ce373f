"""Where the ids come from: arguments, files, and standard input."""

import io
import sys
from collections.abc import Iterator, Sequence
from typing import Final, TextIO

from bulkrestart.cli.errors import InputError, input_checked
from bulkrestart.core.endpoint import check_id

_REMEDY = "give ids as arguments, --ids-from FILE, or a selector such as --name"
#: Characters: an id, and a comment behind it.
_LONGEST_LINE: Final = 4096
#: Far more than a project holds; a source that never ends has more.
_MOST_LINES: Final = 1_000_000


def gather_ids(arguments: Sequence[str], sources: Sequence[str]) -> tuple[list[str], int]:
    """Read and check all ids, the arguments first, and merge those that name one server.

    Args:
        arguments: Ids from the command line.
        sources: Files of ids, one a line; "-", at most once, for standard input.

    Returns:
        The ids, each once and in the order given, and how many were left out as duplicates.

    Raises:
        InputError: There is no id, one cannot be an id, or a file cannot be read.
    """
    if sources.count("-") > 1:
        raise InputError("standard input can be read once: give --ids-from - once")
    given: list[str] = []
    for argument in arguments:
        with input_checked():
            given.append(check_id(argument))
    for source in sources:
        given += _read_ids(source)
    if not given:
        raise InputError(f"no server ids: {_REMEDY}")
    ids = list(dict.fromkeys(given))
    return ids, len(given) - len(ids)


def _read_ids(source: str) -> Iterator[str]:
    name = "standard input" if source == "-" else source
    is_empty = True
    for number, line in enumerate(_read_lines(source, name), start=1):
        with input_checked(f"{name}, line {number}: "):
            server_id = _parse(number, line)
        if server_id is not None:
            is_empty = False
            yield server_id
    if is_empty:
        raise InputError(f"{name} holds no server ids: write one a line")


def _parse(number: int, line: str) -> str | None:
    """Give the id in a line; None if there is none.

    Raises:
        ValueError: It holds something else, or it comes of a source that never ends.
    """
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"it is longer than {_LONGEST_LINE} characters; write one id a line")
    if number > _MOST_LINES:
        raise ValueError(f"there are more than {_MOST_LINES}; give a list that ends")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it is not UTF-8; save it as plain text in UTF-8") from error
    raw = line.partition("#")[0].strip()
    return check_id(raw) if raw else None


def _read_lines(source: str, name: str) -> Iterator[str]:
    """Read one line after the other, and of one that is too long no more than shows it."""
    try:
        with _open(source) as file:
            while line := file.readline(_LONGEST_LINE + 1):
                yield line
    except OSError as error:
        raise InputError(f"cannot read ids from {name}: {error.strerror}") from error
    except ValueError as error:
        # A path with a NUL character.
        raise InputError(f"cannot read ids from {name}: {error}") from error


def _open(source: str) -> TextIO:
    # Bytes that are not UTF-8 come out as surrogates, so that the line they are in can be named.
    if source != "-":
        return open(source, encoding="utf-8-sig", errors="surrogateescape")
    if sys.stdin is None:
        raise InputError(f"standard input is closed: {_REMEDY}")
    return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape")
