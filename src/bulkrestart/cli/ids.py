"""Where the ids come from: arguments, a file, or standard input."""

import io
import sys
from collections.abc import Iterator, Sequence

from bulkrestart.cli.errors import InputError, input_checked
from bulkrestart.core.endpoint import check_id

_REMEDY = "give ids as arguments, or --ids-from FILE"


def gather_ids(arguments: Sequence[str], source: str | None) -> tuple[list[str], int]:
    """Read and check all ids, the arguments first, and merge those that name one server.

    Args:
        arguments: Ids from the command line.
        source: A file of ids, one a line; "-" for standard input; None for no file.

    Returns:
        The ids, each once and in the order given, and how many were left out as duplicates.

    Raises:
        InputError: There is no id, one cannot be an id, or the file cannot be read.
    """
    given: list[str] = []
    for argument in arguments:
        with input_checked():
            given.append(check_id(argument))
    if source is not None:
        given += _read_ids(source)
    if not given:
        raise InputError(f"no server ids: {_REMEDY}")
    ids = list(dict.fromkeys(given))
    return ids, len(given) - len(ids)


def _read_ids(source: str) -> Iterator[str]:
    name = "standard input" if source == "-" else source
    text = _decode(_read(source, name), name)
    is_empty = True
    # Universal newlines: files of ids come from every kind of system.
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if raw := line.partition("#")[0].strip():
            is_empty = False
            with input_checked(f"{name}, line {number}: "):
                yield check_id(raw)
    if is_empty:
        raise InputError(f"{name} holds no server ids: write one a line")


def _read(source: str, name: str) -> bytes:
    try:
        if source != "-":
            with open(source, "rb") as file:
                return file.read()
        if sys.stdin is None:
            raise InputError(f"standard input is closed: {_REMEDY}")
        return sys.stdin.buffer.read()
    except OSError as error:
        raise InputError(f"cannot read ids from {name}: {error.strerror}") from error
    except ValueError as error:
        # A path with a NUL character.
        raise InputError(f"cannot read ids from {name}: {error}") from error


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}, line {line}: it is not UTF-8; save it as plain text in UTF-8") from error
