"""Encodes and decodes the lines of a journal: its header, the ids of its fleet, and the checkpoint of each server.

A line is a word and JSON: `header {...}` (the newest counts), `fleet [...]` (the next ids of the fleet),
`server KNOWN {...}` (the newest of each server counts; its first KNOWN attempts are those of the lines before),
`time 1.8e9` (when the checkpoints before it were written).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Final, TypeVar

import msgspec

from bulkrestart.core.checkpoint import Checkpoint, Contents, JournalHeader
from bulkrestart.core.clock import moment_text
from bulkrestart.core.endpoint import check_id

T = TypeVar("T")

#: Ids in one `fleet` line: encoding one line for all ids would hold the interpreter for too long.
_SERVERS: Final = 1000
#: A checkpoint with more attempts than this does not repeat the attempts that the journal already holds, so its size
#: grows with the number of sends, and not with the square of it.
_REPEATED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedCheckpoints:
    """Checkpoints, encoded as lines.

    Attributes:
        lines: The lines.
        attempts: By server, how many attempts the journal holds after the lines are written. Servers with few attempts
            are left out.
    """

    lines: Sequence[bytes]
    attempts: Mapping[str, int]


def dump_checkpoints(checkpoints: Iterable[Checkpoint], kept: Mapping[str, int]) -> EncodedCheckpoints:
    """Encode checkpoints.

    Args:
        checkpoints: The checkpoints.
        kept: By server, how many of its attempts the journal already holds; 0 without an entry.
    """
    lines: list[bytes] = []
    attempts: dict[str, int] = {}
    for checkpoint in checkpoints:
        known = 0
        if len(checkpoint.attempts) > _REPEATED and checkpoint.end is None:
            attempts[checkpoint.server_id] = len(checkpoint.attempts)
            if known := kept.get(checkpoint.server_id, 0):
                checkpoint = replace(checkpoint, attempts=checkpoint.attempts[known:])
        lines.append(b"server %d %s" % (known, _dump(checkpoint)))
    return EncodedCheckpoints(lines=lines, attempts=attempts)


def dump_time(now: float) -> bytes:
    """Encode when the checkpoints before were written, in seconds since the epoch."""
    return b"time " + _dump(now)


def dump_header(header: JournalHeader) -> bytes:
    """Encode the header of a journal."""
    return b"header " + _dump(header)


def dump_fleet(ids: Iterable[str]) -> Iterator[bytes]:
    """Encode the ids of a fleet, in their order."""
    rest = iter(ids)
    while some := list(islice(rest, _SERVERS)):
        yield b"fleet " + _dump(some)


class ContentsReader:
    """Decodes the lines of a journal, in their order, into its contents."""

    def __init__(self) -> None:
        self._header: JournalHeader | None = None
        self._ids: list[str] = []
        self._checkpoints: dict[str, Checkpoint] = {}
        self._written: float | None = None

    def read(self, line: bytes) -> None:
        """Decode one line.

        Raises:
            Exception: One of `UNREADABLE`: this version does not write such a line.
        """
        word, _, text = line.partition(b" ")
        match word:
            case b"server":
                known, _, checkpoint = text.partition(b" ")
                self._add(_load(checkpoint, _CHECKPOINT), _load(known, _NUMBER))
            case b"time":
                self._written = _load(text, _MOMENT)
            case b"fleet":
                ids = _load(text, _IDS)
                self._ids += map(check_id, ids)
            case b"header":
                self._header = _load(text, _HEADER)
            case _:
                raise ValueError(f"it begins with {word.decode(errors='replace')!r:.40}")

    def _add(self, checkpoint: Checkpoint, known: int) -> None:
        if known:
            former = self._checkpoints.get(checkpoint.server_id)
            if former is None or not 0 < known <= len(former.attempts):
                raise ValueError("it lacks attempts that no line before it holds")
            checkpoint = replace(checkpoint, attempts=(*former.attempts[:known], *checkpoint.attempts))
        self._checkpoints[checkpoint.server_id] = checkpoint

    def contents(self) -> Contents:
        """Return the contents of the lines.

        Raises:
            Exception: One of `UNREADABLE`: the lines contradict each other, or no run can resume from them.
        """
        if self._header is None:
            raise ValueError("it has no header")
        ids = set(self._ids)
        if len(ids) < len(self._ids) or not self._checkpoints.keys() <= ids:
            raise ValueError("its fleet and its checkpoints do not match")
        written = self._header.began if self._written is None else self._written
        for moment in (self._header.began, written, self._header.identity.since):
            if moment is not None:
                # A moment that no calendar has would be found only when it is shown.
                moment_text(moment)
        return Contents(
            header=self._header,
            ids=tuple(self._ids),
            checkpoints=self._checkpoints,
            written=written,
        )


#: The exceptions of a reader for lines that another program wrote: their digests are right.
UNREADABLE: Final = (ArithmeticError, RecursionError, ValueError, msgspec.MsgspecError)

_ENCODER: Final = msgspec.json.Encoder()
_NUMBER: Final = msgspec.json.Decoder(int)
_MOMENT: Final = msgspec.json.Decoder(float)
_IDS: Final = msgspec.json.Decoder(list[str])
_HEADER: Final = msgspec.json.Decoder(JournalHeader)
_CHECKPOINT: Final = msgspec.json.Decoder(Checkpoint)
_DEFAULTS: Final = tuple((field.name, field.default) for field in fields(Checkpoint))


def _dump(value: object) -> bytes:
    if isinstance(value, Checkpoint):
        # Leaving out default values halves the journal.
        value = {name: held for name, default in _DEFAULTS if (held := getattr(value, name)) != default}
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        # UTF-8 has no lone surrogates, but a cloud may send one in the id of our user. It must be read exactly: a
        # reboot by another id is not ours.
        return json.dumps(msgspec.to_builtins(value), allow_nan=False, separators=(",", ":")).encode()


def _load(text: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a text, and refuse what this version does not write."""
    try:
        value = decoder.decode(text)
    except msgspec.DecodeError:
        # It may hold a lone surrogate, escaped; see `_dump`.
        value = msgspec.convert(json.loads(text.decode()), decoder.type)
    again = _dump(value)
    # msgspec ignores unknown fields of dataclasses, and takes the last of two fields with one name. The two texts of a
    # value differ without harm if an integer was written where a float is expected.
    if again != text and _pairs(again) != _pairs(text):
        raise ValueError("it has a field that this version does not write")
    return value


def _pairs(text: bytes) -> object:
    return json.loads(text.decode(), object_pairs_hook=list)
