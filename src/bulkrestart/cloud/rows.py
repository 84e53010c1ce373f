"""Parses the JSON object of an answer while it arrives, in short steps, and keeps only what was asked for.

`json.loads` holds the GIL until it has parsed the whole text, so a worker thread would not help: 50 MB take 0.5 s.
"""

import codecs
import json
import re
from collections.abc import Callable, Generator
from typing import Final, Generic, TypeVar

from bulkrestart.core.secrets import NO_SECRETS, SecretMask

T = TypeVar("T")

_DECODER: Final = json.JSONDecoder()
_WHITE: Final = re.compile(r"[ \t\n\r]*")
#: The signs that may follow a complete value. Until one of them is seen, "1" may be the beginning of "1.5".
_ENDS: Final = (",", "]", "}", ":")
_PARTS: Final = (",", "[", "{")
#: Characters that are parsed at the first attempt: nearly every row is shorter, and the worst takes 0.4 ms.
_SHORT_VALUE: Final = 8 * 1024
#: Characters of one row, or of one other member. Nova's longest has about half of it: 64 KiB of user data, and 128
#: metadata items of 510 characters.
_LONGEST_VALUE: Final = 256 * 1024
#: Commas and opening brackets in a longer value: the time to parse grows with their number, and so many take 1 ms.
_MOST_PARTS: Final = 8_000
#: The most rows of one list that are read: twenty full pages. Some clouds ignore the limit of a request.
_MOST_ROWS: Final = 20_000
#: Members of the object. Nova's have up to three, and an error that a gateway words has a handful.
_MOST_MEMBERS: Final = 1_000
#: Rows that are parsed without a pause: about 30 microseconds each.
_ROWS_AT_ONCE: Final = 20


class Rows(Generic[T]):
    """The rows of one list of a JSON object, and some of its other members.

    `feed` takes the next bytes of the text. After it, and after `end`, `step` is called until it returns False.

    Args:
        name: The name of the list; "" for none.
        read: Converts a row to the value that is kept.
        members: The names of the other members that are kept.
        is_paged: Whether the list continues on other pages. If so, the first rows of a list that is too long are kept.

    Attributes:
        items: The values that `read` returned.
        others: The other members that are kept, and the value under the list's name if that is no list.
        has_list: Whether the list was found.
        secrets: Masks the secrets of the request in the text before it is parsed; `read` masks them in the values.
        is_valid: Whether the text so far is one JSON object within the bounds.
        is_cut: Whether the list was too long to be read whole; `items` are its first rows.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[object, SecretMask], T],
        members: frozenset[str] = frozenset(),
        *,
        is_paged: bool = False,
    ) -> None:
        self.items: list[T] = []
        self.others: dict[str, object] = {}
        self.has_list = False
        self.is_valid = True
        self.is_cut = False
        self._is_paged = is_paged
        self._name = name
        self._read = read
        self._members = members | {name}
        self._decode_bytes = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._is_whole = False
        self.secrets = NO_SECRETS
        self._parser = self._parse()

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the text."""
        self._extend(data, is_last=False)

    def end(self) -> None:
        """Mark the text as whole."""
        self._is_whole = True
        self._extend(b"", is_last=True)

    def step(self) -> bool:
        """Parse for a short while.

        Returns:
            Whether more of the text can be parsed now.
        """
        if not self.is_valid or self.is_cut:
            return False
        try:
            return next(self._parser)
        except StopIteration:
            return False
        except (ValueError, RecursionError):
            self.reject()
            return False

    def _extend(self, data: bytes, *, is_last: bool) -> None:
        if not self.is_valid or self.is_cut:
            return
        try:
            text = self._decode_bytes.decode(data, is_last)
        except UnicodeDecodeError:
            self.reject()
            return
        self._text = self._text[self._at :] + text
        self._at = 0
        # A secret may be split between the former bytes and these.
        self._text = self.secrets.replace(self._text)

    def reject(self) -> None:
        """Stop parsing: the text is not what was asked for."""
        self.is_valid = False
        self.items, self.others, self._text = [], {}, ""

    def cut(self) -> bool:
        """Stop parsing because the text is too long.

        Returns:
            Whether the rows so far can be used as a page.
        """
        self.is_cut = self._is_paged and self.is_valid and bool(self.items)
        if self.is_cut:
            self._text = ""
        return self.is_cut

    # Each of these parses on and yields False if it needs more text, and True to pause.

    def _parse(self) -> Generator[bool, None, None]:
        yield from self._take("{")
        is_more = not (yield from self._has("}"))
        members = 0
        while is_more:
            members += 1
            if members > _MOST_MEMBERS:
                raise ValueError("too many members")
            name = yield from self._value()
            if not isinstance(name, str):
                raise ValueError("the name of a member is not a string")
            yield from self._take(":")
            if name == self._name and (yield from self._has("[")):
                self.has_list = True
                yield from self._rows()
                if self.is_cut:
                    return
            else:
                value = yield from self._value()
                if name in self._members:
                    self.others[name] = value
                yield True
            is_more = yield from self._has(",")
            if not is_more:
                yield from self._take("}")
        if (yield from self._next()):
            raise ValueError("something follows the object")

    def _rows(self) -> Generator[bool, None, None]:
        is_more = not (yield from self._has("]"))
        while is_more:
            if len(self.items) >= _MOST_ROWS:
                if not self.cut():
                    raise ValueError("too many rows")
                return
            self.items.append(self._read((yield from self._value()), self.secrets))
            if not len(self.items) % _ROWS_AT_ONCE:
                yield True
            is_more = yield from self._has(",")
            if not is_more:
                yield from self._take("]")

    def _value(self) -> Generator[bool, None, object]:
        yield from self._next()
        while True:
            for length in (_SHORT_VALUE, _LONGEST_VALUE):
                window = self._text[self._at : self._at + length]
                if length > _SHORT_VALUE and sum(map(window.count, _PARTS)) > _MOST_PARTS:
                    raise ValueError("a value has too many parts")
                is_all = self._at + len(window) == len(self._text)
                value: object
                try:
                    value, end = _DECODER.raw_decode(window)
                except ValueError:
                    if is_all and self._is_whole:
                        raise
                else:
                    end += self._at
                    if self._text.startswith(_ENDS, self._skip(end)) or (is_all and self._is_whole):
                        self._at = end
                        return value
                if is_all:
                    break
            else:
                raise ValueError("a value is too long")
            yield False

    def _has(self, sign: str) -> Generator[bool, None, bool]:
        """Return whether this sign comes next, and skip it if it does."""
        is_next = (yield from self._next()) == sign
        self._at += is_next
        return is_next

    def _take(self, sign: str) -> Generator[bool, None, None]:
        if not (yield from self._has(sign)):
            raise ValueError(f"{sign} is missing")

    def _next(self) -> Generator[bool, None, str]:
        """Skip white space, and return the sign after it; "" at the end of the text."""
        while True:
            self._at = self._skip(self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_whole:
                return ""
            yield False

    def _skip(self, at: int) -> int:
        white = _WHITE.match(self._text, at)
        assert white is not None, "the pattern matches an empty text too"
        return white.end()
