"""Encodes and decodes the lines of a journal: its head, the ids of its fleet, and the record of each server.

A line is a word and JSON: `head {...}` (the newest counts), `fleet [...]` (the next ids of the fleet),
`server ID {...}` (the newest of each server counts), `time 1.8e9` (when the records before it were written).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from math import isfinite
from typing import Final

from bulkrestart.core.clock import moment_text
from bulkrestart.core.decision import End
from bulkrestart.core.endpoint import check_id
from bulkrestart.core.model import Attempt, Outcome, Proof, Reason, RebootType
from bulkrestart.core.record import Contents, Head, LogFacts, Purpose, Record
from bulkrestart.core.target import Target

#: Ids in one `fleet` line: encoding one line for all ids would hold the interpreter for too long.
_SERVERS: Final = 1000
#: A record with more attempts than this does not repeat the attempts that the journal already holds, so its size grows
#: with the number of sends, and not with the square of it.
_REPEATED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRecords:
    """Records, encoded as lines.

    Attributes:
        lines: The lines.
        attempts: By server, how many attempts the journal holds after the lines are written. Servers with few attempts
            are left out.
    """

    lines: Sequence[bytes]
    attempts: Mapping[str, int]


def dump_records(records: Iterable[Record], kept: Mapping[str, int]) -> EncodedRecords:
    """Encode records.

    Args:
        records: The records.
        kept: By server, how many of its attempts the journal already holds; 0 without an entry.
    """
    lines: list[bytes] = []
    attempts: dict[str, int] = {}
    for record in records:
        # Leaving out default values halves the journal.
        values = {name: value for name, default in _FIELDS if (value := getattr(record, name)) != default}
        if len(record.attempts) > _REPEATED and record.end is None:
            attempts[record.server_id] = len(record.attempts)
            if known := kept.get(record.server_id, 0):
                values |= {"known_attempts": known, "attempts": record.attempts[known:]}
        lines.append(b"server %s %s" % (record.server_id.encode(), _dump(values)))
    return EncodedRecords(lines=lines, attempts=attempts)


def dump_time(now: float) -> bytes:
    """Encode when the records before were written, in seconds since the epoch."""
    return b"time " + _dump(now)


def dump_head(head: Head) -> bytes:
    """Encode the head of a journal."""
    return b"head " + _dump(head)


def dump_fleet(ids: Iterable[str]) -> Iterator[bytes]:
    """Encode the ids of a fleet, in their order."""
    rest = iter(ids)
    while some := list(islice(rest, _SERVERS)):
        yield b"fleet " + _dump(some)


class ContentsReader:
    """Decodes the lines of a journal, in their order, into its contents."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._ids: list[str] = []
        # The lines of each server that count: several only if the later ones do not repeat its attempts.
        self._records: dict[str, list[bytes]] = {}
        self._written: float | None = None

    def read(self, line: bytes) -> None:
        """Decode one line.

        Raises:
            Exception: One of `UNREADABLE`: this version does not write such a line.
        """
        word, _, text = line.partition(b" ")
        match word:
            case b"server":
                server_id, _, record = text.partition(b" ")
                lines = self._records.setdefault(server_id.decode(), [])
                if _KNOWN not in record:
                    lines.clear()
                lines.append(record)
            case b"time":
                self._written = float(json.loads(text))
            case b"fleet":
                self._ids += map(check_id, json.loads(text))
            case b"head":
                self._head = _read_head(text)
            case _:
                raise ValueError(f"a line begins with {word.decode(errors='replace')!r:.40}")

    def contents(self) -> Contents:
        """Return the contents of the lines.

        Raises:
            Exception: One of `UNREADABLE`: the lines contradict each other, or no run can resume from them.
        """
        if self._head is None:
            raise ValueError("it has no head")
        contents = Contents(
            head=self._head,
            ids=tuple(self._ids),
            records={server_id: _read_records(server_id, lines) for server_id, lines in self._records.items()},
            written=self._head.began if self._written is None else self._written,
        )
        _check_sense(contents)
        return contents


#: The exceptions of a reader for lines that another program wrote: their digests are right.
UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

_ENCODER: Final = json.JSONEncoder(default=lambda value: _fields_of(value), allow_nan=False, separators=(",", ":"))
#: It shows, without parsing the JSON, that a record does not repeat its attempts: in a string the quotes are escaped.
_KNOWN: Final = b'"known_attempts":'
_FIELDS: Final = tuple((field.name, field.default) for field in fields(Record) if field.name != "server_id")


def _dump(value: object) -> bytes:
    return _ENCODER.encode(value).encode()


def _fields_of(record: object) -> dict[str, object]:
    """Return the fields of a dataclass; `dataclasses.asdict` copies deeply, and takes ten times as long."""
    assert is_dataclass(record), f"{record!r} is not a dataclass"
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _check_sense(contents: Contents) -> None:
    """Check that a run can resume from the contents."""
    if len(set(contents.ids)) < len(contents.ids) or not contents.records.keys() <= set(contents.ids):
        raise ValueError("its fleet and its records do not match")
    for moment in (contents.head.began, contents.written, contents.head.purpose.since):
        if moment is not None:
            moment_text(moment)
    for record in contents.records.values():
        if not all(map(isfinite, (record.began, record.elapsed, record.sent_at or 0.0, *(record.since or ())))):
            raise ValueError(f"a number of {record.server_id} is not finite")


def _read_head(text: bytes) -> Head:
    values = json.loads(text)
    purpose, facts = values.pop("purpose"), values.pop("facts")
    shift = facts.pop("shift")
    return Head(
        purpose=Purpose(
            **purpose | {"target": Target(**purpose["target"]), "reboot_type": RebootType(purpose["reboot_type"])}
        ),
        facts=LogFacts(
            shift=None if shift is None else _pair(shift),
            **facts,
        ),
        **values,
    )


def _read_records(server_id: str, lines: Iterable[bytes]) -> Record:
    record = None
    for line in lines:
        record = _read_record(server_id, line, record)
    assert record is not None, "each server has a line"
    return record


def _read_record(server_id: str, text: bytes, former: Record | None) -> Record:
    values = json.loads(text)
    end = values.pop("end", None)
    if end is not None:
        end = End(
            outcome=Outcome(end["outcome"]),
            reason=None if end["reason"] is None else Reason(end["reason"]),
            detail=end["detail"],
            proof=_read_proof(end["proof"]),
        )
    since = values.pop("since", None)
    attempts = tuple(Attempt(**attempt) for attempt in values.pop("attempts", ()))
    if known := values.pop("known_attempts", 0):
        if former is None or len(former.attempts) < known:
            raise ValueError(f"attempts at {server_id} are missing")
        attempts = (*former.attempts[:known], *attempts)
    return Record(
        server_id=server_id,
        reboot_type=RebootType(values.pop("reboot_type")),
        attempts=attempts,
        since=None if since is None else _pair(since),
        proof=_read_proof(values.pop("proof", None)),
        end=end,
        **values,
    )


def _read_proof(word: str | None) -> Proof | None:
    return None if word is None else Proof(word)


def _pair(values: Sequence[float]) -> tuple[float, float]:
    least, most = values
    return least, most
