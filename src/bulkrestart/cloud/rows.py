"""Reads a long list in a JSON object row by row: read in one go, a page of servers holds everybody for a while."""

import json
import re
from collections.abc import Iterator
from typing import Final

_DECODER: Final = json.JSONDecoder()
_WHITE: Final = re.compile(r"[ \t\n\r]*")


class Rows:
    """The rows of one list of an object. Read to the end, it is known that the whole text is one object.

    Args:
        text: The object.
        name: The name of the list.

    Attributes:
        others: The other members of the object, when the rows are read to the end; also what is no list by that name.
        has_list: There is such a list.
    """

    def __init__(self, text: str, name: str) -> None:
        self.others: dict[str, object] = {}
        self.has_list = False
        self._text = text
        self._name = name
        self._at = 0

    def __iter__(self) -> Iterator[object]:
        """Give one row after the other.

        Raises:
            ValueError: The text is no JSON object.
            RecursionError: It is too deep.
        """
        self._take("{")
        is_more = not self._has("}")
        while is_more:
            name = self._decode()
            if not isinstance(name, str):
                raise ValueError("the name of a member is no string")
            self._take(":")
            if name == self._name and self._has("["):
                self.has_list = True
                yield from self._rows()
            else:
                self.others[name] = self._decode()
            is_more = self._has(",")
            if not is_more:
                self._take("}")
        self._skip()
        if self._at != len(self._text):
            raise ValueError("something follows the object")

    def _rows(self) -> Iterator[object]:
        is_more = not self._has("]")
        while is_more:
            yield self._decode()
            is_more = self._has(",")
            if not is_more:
                self._take("]")

    def _decode(self) -> object:
        self._skip()
        value: object
        value, self._at = _DECODER.raw_decode(self._text, self._at)
        return value

    def _has(self, sign: str) -> bool:
        """Tell whether this comes next, and pass it if it does."""
        self._skip()
        is_next = self._text.startswith(sign, self._at)
        self._at += is_next
        return is_next

    def _take(self, sign: str) -> None:
        if not self._has(sign):
            raise ValueError(f"{sign} is missing at {self._at}")

    def _skip(self) -> None:
        white = _WHITE.match(self._text, self._at)
        assert white is not None, "it matches nothing as well"
        self._at = white.end()
