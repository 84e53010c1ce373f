"""Keeps secrets out of reprs, tracebacks with local variables, pickles, and text that a cloud wrote.

Law: a secret that a request carried is masked in the final text, in whatever encoding the cloud repeats it.
"""

import html
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, NoReturn, TypeVar

T_co = TypeVar("T_co", covariant=True)

#: What stands in place of a secret.
MASK: Final = "***"
#: Characters. A shorter secret could be any word of a message. Keystone's shortest tokens, UUIDs, have 32.
_SHORTEST: Final = 8
#: The same for a value that mixes letters and digits, as no word does.
_SHORTEST_MIXED: Final = 6
#: A part of a random secret is masked if it has this many letters and digits and is at either end of the secret. In the
#: middle only one position in `_STEP` is looked up, so a part of `_PART + _STEP - 1` (11) is always found.
_PART: Final = 8
_STEP: Final = 4
#: How many encodings on top of one another are decoded: "%25252B" has three.
_MOST_ENCODINGS: Final = 8

#: Escapes of JSON, JavaScript, Python, C, URLs and HTML. `&#43`, without a semicolon, is valid HTML too.
_ESCAPE: Final = re.compile(
    r"(?:\\u|%u)([0-9A-Fa-f]{4})|(?:\\x|%)([0-9A-Fa-f]{2})|\\u\{([0-9A-Fa-f]{1,6})\}|\\U([0-9A-Fa-f]{8})"
    r"|&\#[xX]([0-9A-Fa-f]{1,8});?|&\#([0-9]{1,8});?|\\([0-3][0-7]{2})|(&[A-Za-z]{2,31}[0-9]{0,2};)|\\(.)",
    re.DOTALL,
)
_TAG: Final = re.compile(r"<[^<>]*>")
_ALPHANUMERIC: Final = re.compile(r"[0-9A-Za-z]+")
_RUN: Final = re.compile(rb"\x01+|\x00+")
#: Characters that separate the parts of a header's value.
_SEPARATOR: Final = re.compile(r"[\s,;:=&|\"'()<>{}\[\]]+")


class Secret(Generic[T_co]):
    """Holds a value that no repr, traceback, pickle or copy shows.

    Args:
        value: The value; `reveal` gives it back.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T_co) -> None:
        self._value = value

    def reveal(self) -> T_co:
        """Return the value. Do not keep it in a local variable: a traceback may show it."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class _View:
    """The letters and digits of a text, decoded and in lower case.

    Attributes:
        text: Those characters.
        starts: The position in the original text at which each character begins.
        ends: The position at which it ends: an escape is several characters long.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


class SecretMask:
    """Masks secrets in text.

    Each secret is found in plain text, in any case, escaped (JSON, URL, HTML, also several times), in base64 or
    hexadecimal, and split by white space, punctuation or markup. Of a secret that looks random, parts are found too: at
    least 8 letters and digits at either end, or 11 in the middle. A secret of plain words is masked only as a whole.

    Args:
        values: The secrets. Those of less than 8 characters are ignored (6 if they mix letters and digits).
    """

    __slots__ = ("_forms", "_values")

    def __init__(self, values: Iterable[str] = ()) -> None:
        # The longest first, because one secret may be a part of another.
        self._values = tuple(sorted({value for value in values if _is_long_enough(value)}, key=len, reverse=True))
        self._forms: tuple[Sequence[str], Sequence[str]] | None = None

    def __repr__(self) -> str:
        return f"SecretMask({MASK})"

    def replace(self, text: str) -> str:
        """Replace the secrets that a text holds unchanged. It takes about a microsecond."""
        for value in self._values:
            if value in text:
                text = text.replace(value, MASK)
        return text

    def replace_bytes(self, data: bytes) -> bytes:
        """Replace the secrets that these bytes hold unchanged."""
        for value in self._values:
            data = data.replace(value.encode(), MASK.encode())
        return data

    def apply(self, text: str) -> str:
        """Replace the secrets in a text, in whatever form it holds them. It may take a millisecond."""
        if not self._values or not text:
            return text
        text = self.replace(text)
        if self._forms is None:
            self._forms = _forms_of(self._values)
        is_secret = bytearray(len(text))
        for view in _views(text):
            for start, end in _find(view.text, *self._forms):
                first, last = view.starts[start], view.ends[end - 1]
                is_secret[first:last] = b"\1" * (last - first)
        return "".join(MASK if run[0][0] else text[slice(*run.span())] for run in _RUN.finditer(is_secret))


#: Masks nothing.
NO_SECRETS: Final = SecretMask()


def _is_long_enough(value: str) -> bool:
    return len(value) >= (_SHORTEST_MIXED if _is_mixed(value) else _SHORTEST)


def _is_mixed(word: str) -> bool:
    return any(char.isdigit() for char in word) and any(char.isalpha() for char in word)


def _is_random(chunk: str) -> bool:
    """Return whether it looks random: a part of it mixes letters with digits, or upper with lower case."""
    words = [word for word in _ALPHANUMERIC.findall(chunk) if len(word) >= 4]
    return any(
        _is_mixed(word) or (word.isalpha() and not (word.islower() or word.isupper() or word.istitle()))
        for word in words
    )


@lru_cache(maxsize=4)  # a token signs many requests, and Huawei Cloud's tokens have several KiB
def _forms_of(values: tuple[str, ...]) -> tuple[Sequence[str], Sequence[str]]:
    """Derive the forms to look for: those that are found only as a whole, and those that are also found in part."""
    whole: dict[str, None] = {}
    random: dict[str, None] = {}
    for value in values:
        chunks = [chunk for chunk in _SEPARATOR.split(value) if len(chunk) >= _PART and _is_random(chunk)]
        for chunk in chunks:
            random.update(dict.fromkeys(_encodings(chunk)))
        if chunks != [value]:
            whole.update(dict.fromkeys(_encodings(value)))
    # A form that is shorter than a part is found as a whole.
    whole.update((form, None) for form in random if len(form) < _PART)
    return list(whole), [form for form in random if len(form) >= _PART]


def _encodings(value: str) -> Iterator[str]:
    """Yield the letters and digits of a value, its hexadecimal, and its base64 at each offset in a longer text."""
    data = value.encode()
    # A base64 digit holds 6 bits. The digits at the ends that share bits with a neighbour are left out.
    parts = [b64encode(b"\0" * offset + data).decode().rstrip("=") for offset in range(3)]
    whole = [part[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6] for offset, part in enumerate(parts)]
    for form in (_decoded(value)[0], data.hex(), *whole):
        skeleton = "".join(_ALPHANUMERIC.findall(form)).lower()
        if len(skeleton) >= _SHORTEST_MIXED:
            yield skeleton


def _find(text: str, whole: Iterable[str], random: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield the spans of a text that hold a form, or a long enough part of one."""
    for form in whole:
        start = text.find(form)
        while start >= 0:
            yield start, start + len(form)
            start = text.find(form, start + len(form))
    places: dict[str, list[int]] = {}
    for place in range(len(text) - _PART + 1):
        places.setdefault(text[place : place + _PART], []).append(place)
    for form in random:
        last = len(form) - _PART
        is_found = bytearray(len(text))
        for offset in [at for at in (*range(0, last, _STEP), last) if form[at : at + _PART] in places]:
            for start in places[form[offset : offset + _PART]]:
                if is_found[start] and is_found[start + _PART - 1]:
                    continue
                before = _shared(form[:offset][::-1], text[:start][::-1])
                after = _shared(form[offset:], text[start:])
                is_found[start - before : start + after] = b"\1" * (before + after)
                yield start - before, start + after


def _shared(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    return next(
        (at for at, (char, its) in enumerate(zip(one, other, strict=False)) if char != its), min(len(one), len(other))
    )


def _views(text: str) -> Iterator[_View]:
    """Yield the views of a text: with its markup, and without it."""
    decoded = _decoded(text)
    yield _view(decoded)
    if _TAG.search(decoded[0]):
        yield _view(_substituted(decoded, _TAG, lambda _: ""))


#: Characters, and the positions at which each begins and ends in the text that they were decoded from.
_Decoded = tuple[str, Sequence[int], Sequence[int]]


def _decoded(text: str) -> _Decoded:
    """Decode the escapes in a text, and the escapes that result from that."""
    decoded: _Decoded = (text, range(len(text)), range(1, len(text) + 1))
    for _ in range(_MOST_ENCODINGS):
        if _ESCAPE.search(decoded[0]) is None:
            break
        decoded = _substituted(decoded, _ESCAPE, _unescape)
    return decoded


def _substituted(decoded: _Decoded, pattern: re.Pattern[str], read: Callable[[re.Match[str]], str]) -> _Decoded:
    """Replace each match by at most one character."""
    text, starts, ends = decoded
    pieces: list[str] = []
    new_starts: list[int] = []
    new_ends: list[int] = []
    position = 0
    for match in pattern.finditer(text):
        char = read(match)
        pieces += (text[position : match.start()], char)
        new_starts += starts[position : match.start()]
        new_ends += ends[position : match.start()]
        if char:
            new_starts.append(starts[match.start()])
            new_ends.append(ends[match.end() - 1])
        position = match.end()
    pieces.append(text[position:])
    return "".join(pieces), [*new_starts, *starts[position:]], [*new_ends, *ends[position:]]


def _unescape(match: re.Match[str]) -> str:
    """Decode an escape; a blank stands for a character that no secret holds."""
    *hexadecimal, decimal, octal, entity, other = match.groups()
    if entity:
        return html.unescape(entity)[0]
    if other:
        return " " if other in "nrtbf" else str(other)
    digits = next(filter(None, hexadecimal), "")
    code = int(decimal or octal or digits, 10 if decimal else 8 if octal else 16)
    return chr(code) if code < 0x7F else " "


def _view(decoded: _Decoded) -> _View:
    text, starts, ends = decoded
    kept = [place for match in _ALPHANUMERIC.finditer(text) for place in range(*match.span())]
    return _View(
        "".join(text[place] for place in kept).lower(),
        [starts[place] for place in kept],
        [ends[place] for place in kept],
    )
