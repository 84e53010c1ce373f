"""Where the ids come from: arguments, files, and standard input."""

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, TextIO

from bulkrestart.cli.errors import InputError, input_checked
from bulkrestart.core.endpoint import check_id

_REMEDY = "give ids as arguments, --ids-from FILE, or a selector such as --name"
#: Characters of a line with an id and a comment.
_LONGEST_LINE: Final = 4096
#: Characters of a CSV row, with a server's addresses, image and flavor.
_LONGEST_ROW: Final = 65536
#: Characters of a JSON file: a million ids have about 40 million.
_LONGEST_DOCUMENT: Final = 100_000_000
#: Lines of a file: far more than a project has servers. A source that never ends has more.
_MOST_LINES: Final = 1_000_000
#: The column with the ids, in upper or lower case: `openstack server list -f csv` writes "ID".
_COLUMN: Final = "id"
#: Spreadsheets write semicolons in countries with a decimal comma, and tabs for "text".
_DELIMITERS: Final = ",;\t"
#: Headers of a single column, without separators. No cloud has such an id.
_HEADERS: Final = re.compile(r"(server|instance|vm)?s?(id|uuid|name)?s?")
_CSV_REMEDY: Final = "for CSV give --ids-format csv --ids-column id"
_JSON_REMEDY: Final = "for JSON give --ids-format json"


class IdsFormat(StrEnum):
    """The format of a file of ids."""

    #: One a line; blank lines and comments are ignored.
    LINES = "lines"
    #: Comma-separated values with a header, as `openstack server list -f csv` prints them.
    CSV = "csv"
    #: A list of ids, or of objects that have one, as `openstack server list -f json` prints them.
    JSON = "json"


def gather_ids(
    arguments: Sequence[str],
    sources: Sequence[str],
    *,
    ids_format: IdsFormat = IdsFormat.LINES,
    column: str | None = None,
) -> tuple[list[str], int]:
    """Read and check all ids, the arguments first, and merge those that name one server.

    Args:
        arguments: Ids from the command line.
        sources: Files of ids; "-", at most once, for standard input.
        ids_format: The format of the files.
        column: The column of a CSV file, or the key of JSON objects, that holds the ids. None: "id" or "ID".

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
        given += _read_ids(source, ids_format, _COLUMN if column is None else column)
    if not given:
        raise InputError(f"no server ids: {_REMEDY}")
    ids = list(dict.fromkeys(given))
    return ids, len(given) - len(ids)


def check_format(sources: Sequence[str], ids_format: IdsFormat, column: str | None) -> None:
    """Check the options that say how the files of ids are read.

    Raises:
        InputError: There is no file of ids, or the options contradict each other.
    """
    if not sources and (ids_format is not IdsFormat.LINES or column is not None):
        raise InputError("--ids-format and --ids-column say how to read a file of ids: give --ids-from FILE too")
    if ids_format is IdsFormat.LINES and column is not None:
        raise InputError("--ids-column names a column: give --ids-format csv or json too")


def _read_ids(source: str, ids_format: IdsFormat, column: str) -> list[str]:
    name = "standard input" if source == "-" else source
    if ids_format is IdsFormat.LINES:
        ids = list(_read_plain(source, name))
    else:
        read = _read_csv if ids_format is IdsFormat.CSV else _read_json
        ids = list(read(source, name, column))
    if not ids:
        remedy = "write one a line" if ids_format is IdsFormat.LINES else f"it was read as {ids_format}"
        raise InputError(f"{name} holds no server ids: {remedy}")
    return ids


def _read_plain(source: str, name: str) -> Iterator[str]:
    is_first = True
    for number, line in enumerate(_read_lines(source, name, _LONGEST_LINE), start=1):
        with input_checked(f"{name}, line {number}: "):
            _check_line(number, line, _LONGEST_LINE)
            word = _without_comment(line)
            if not word:
                continue
            if is_first and _HEADERS.fullmatch(re.sub("[_-]", "", word.casefold())):
                raise ValueError(f"{word!r} is a header, not an id: remove the line; {_CSV_REMEDY}")
            is_first = False
            yield _parse(word)


def _without_comment(line: str) -> str:
    """Remove a comment: it begins with `#` at the start of the line or after white space."""
    words = line.split()
    comment = next((place for place, word in enumerate(words) if word.startswith("#")), len(words))
    return line.strip() if comment == len(words) else " ".join(words[:comment])


def _parse(word: str) -> str:
    """Return the id that a line holds.

    Raises:
        ValueError: It holds something else. The message says how to read such a file.
    """
    try:
        return check_id(word)
    except ValueError as error:
        if word.startswith(("[", "{")) or word in ("]", "}") or '":' in word:
            remedy = _JSON_REMEDY
        elif word.startswith(("|", "+-")):
            remedy = "for a table, print the ids alone: openstack server list -f value -c ID"
        elif any(char in word for char in (*_DELIMITERS, '"', "'")):
            remedy = _CSV_REMEDY
        else:
            raise
        raise ValueError(f"{error}; {remedy}") from error


def _check_line(number: int, line: str, longest: int) -> None:
    """Check that a line is text, and that it and its number are within the bounds.

    Raises:
        ValueError: It is not.
    """
    if len(line) > longest:
        raise ValueError(f"it is longer than {longest} characters; write one id a line")
    if number > _MOST_LINES:
        raise ValueError(f"there are more than {_MOST_LINES}; give a list that ends")
    _check_text(line)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it is not UTF-8; save it as plain text in UTF-8") from error
    if "\0" in text:
        raise ValueError("it holds null bytes, as UTF-16 does; save it as plain text in UTF-8")


def _read_csv(source: str, name: str, column: str) -> Iterator[str]:
    lines = _checked_lines(source, name)
    before, header = next(((number, line) for number, line in enumerate(lines, start=1) if line.strip()), (1, ""))
    if not header:
        return
    with input_checked(f"{name}, line {before}: "):
        delimiter, place = _find_column(header, column)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        with input_checked(f"{name}, line {before + rows.line_num + 1}: "):
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise ValueError(f"it is not valid CSV ({error}): check its quotes") from error
            if row is None:
                return
            if len(row) > place:
                yield check_id(row[place].strip())
            elif row:
                raise ValueError(f"{_shown(delimiter.join(row))} has no column {column!r}")


def _find_column(header: str, column: str) -> tuple[str, int]:
    """Return the delimiter of the columns, and the index of the column with the ids."""
    names: list[str] = []
    for delimiter in _DELIMITERS:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        places = [place for place, name in enumerate(names) if name == column] or [
            place for place, name in enumerate(names) if name.casefold() == column.casefold()
        ]
        if len(places) == 1:
            return delimiter, places[0]
        if places:
            raise ValueError(f"{len(places)} columns are named {column!r}: name another with --ids-column")
    raise ValueError(f"the header {_shown(header.strip())} has no column {column!r}: name it with --ids-column")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _checked_lines(source: str, name: str) -> Iterator[str]:
    for number, line in enumerate(_read_lines(source, name, _LONGEST_ROW), start=1):
        with input_checked(f"{name}, line {number}: "):
            _check_line(number, line, _LONGEST_ROW)
        yield line


def _read_json(source: str, name: str, key: str) -> Iterator[str]:
    with _opened(source, name) as file:
        text = file.read(_LONGEST_DOCUMENT + 1)
    with input_checked(f"{name}: "):
        if len(text) > _LONGEST_DOCUMENT:
            raise ValueError(f"it is longer than {_LONGEST_DOCUMENT} characters; give a list that ends")
        _check_text(text)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not valid JSON ({error}); for one id a line give --ids-format lines") from error
        if not isinstance(document, list):
            raise ValueError("it is not a list: give what openstack server list -f json prints")
    for number, entry in enumerate(document, start=1):
        with input_checked(f"{name}, entry {number}: "):
            yield check_id(_value_of(entry, key))


def _value_of(entry: object, key: str) -> object:
    """Return the id that an entry of a list is, or has under a key."""
    if not isinstance(entry, dict):
        return entry
    names = [name for name in entry if name == key] or [name for name in entry if name.casefold() == key.casefold()]
    if len(names) != 1:
        raise ValueError(f"{_shown(json.dumps(entry))} has no key {key!r}: name it with --ids-column")
    return entry[names[0]]


def _read_lines(source: str, name: str, longest: int) -> Iterator[str]:
    """Yield the lines; of a line that is too long, only as much as shows that it is."""
    with _opened(source, name) as file:
        while line := file.readline(longest + 1):
            yield line


@contextmanager
def _opened(source: str, name: str) -> Iterator[TextIO]:
    try:
        with _open(source) as file:
            yield file
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
