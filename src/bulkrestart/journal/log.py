"""A write-ahead log in one file: commits are appended, chained by digests, and counted at the start of the file.

Law: the lines of each `Log.append` that has returned are on the disk. They are read back exactly, or `DamagedError` is
raised.

SQLite was measured and not used. Its write-ahead log is a second file that can be lost. Its rollback journal takes four
syncs for each commit, and an old one can undo commits. It has no checksums of pages.

The file is text. Its first four blocks of 512 bytes, which a disk writes as a whole, are

1. the format's name and version, and the random id of this log;
2. and 3. two marks, written alternately: the number of commits, where the last one ends, and its digest;
4. a note that the log does not need: the process that has locked it.

Lines follow. Each is a digest, one sign (`+`: the commit has more lines; `.`: it ends here), and the payload. The
digest covers the digest of the line before, the sign and the payload; before the first line comes the id.

A mark is written after its commit is synced, so it never counts a commit that is not there. The mark is not synced: it
survives the process, and after a loss of power it counts at most one commit too few. Commits after the mark are whole,
and are read. A line that is cut off there belongs to an `append` that did not return, and is ignored.

An older copy of the whole file, put in its place, cannot be detected.
"""

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Self

_FORMAT: Final = b"bulkrestart journal "
_VERSION: Final = 3
_BLOCK: Final = 512
_NOTE_AT: Final = 3 * _BLOCK
_LINES_AT: Final = 4 * _BLOCK
#: Bytes of a digest: two different texts have the same one in 1 of 2 ** 128 cases.
_DIGEST: Final = 16
_TITLE: Final = re.compile(rb"bulkrestart journal ([0-9]+)\n(?:id ([0-9a-f]{32})\n)?")
_MARK: Final = re.compile(rb"mark ([0-9]{12}) ([0-9]{15}) ([0-9a-f]{32}) ([0-9a-f]{32})\n")
_MORE, _LAST = b"+", b"."


class DamagedError(Exception):
    """Raised when a log does not hold what was written to it."""


class ForeignError(Exception):
    """Raised when a file is not a log of this version. The message names the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How much of a log must be there.

    Attributes:
        count: The number of its commits.
        end: Where the last one ends, in bytes.
        digest: The digest of its last line.
    """

    count: int
    end: int
    digest: bytes

    def text(self, log_id: bytes) -> bytes:
        """Write it for the start of the file."""
        body = b"mark %012d %015d %s " % (self.count, self.end, self.digest.hex().encode())
        return body + _digest(log_id, body).hex().encode() + b"\n"


class Log:
    """A log that is open for writing. Its methods may be called in any thread, one at a time.

    Args:
        descriptor: The file; the caller closes it.
        log_id: The id of the log.
        mark: How much of it is there.
    """

    def __init__(self, descriptor: int, log_id: bytes, mark: Mark) -> None:
        self._descriptor = descriptor
        self._id = log_id
        self._mark = mark

    @classmethod
    def create(cls, descriptor: int) -> Self:
        """Create a log in an empty file.

        Raises:
            OSError: It cannot be written.
        """
        log_id = secrets.token_hex(16).encode()
        mark = _first_mark(log_id)
        title = b"%s%d\nid %s\n" % (_FORMAT, _VERSION, log_id)
        blocks = (title, mark.text(log_id), mark.text(log_id), b"")
        _write_all(descriptor, b"".join(block.ljust(_BLOCK - 1) + b"\n" for block in blocks), 0)
        os.fsync(descriptor)
        return cls(descriptor, log_id, mark)

    @classmethod
    def open(cls, descriptor: int) -> Self:
        """Open a log. Commits that a former process wrote and did not mark are synced and marked.

        Raises:
            DamagedError: It does not hold what was written to it.
            ForeignError: It is not a log of this version.
            OSError: It cannot be read or written.
        """
        log_id, marked = _read_start(descriptor)
        log = cls(descriptor, log_id, _first_mark(log_id))
        for mark, _ in read_commits(descriptor):
            log._mark = mark
        if os.fstat(descriptor).st_size > log.end:
            os.ftruncate(descriptor, log.end)
        if log._mark != marked:
            os.fsync(descriptor)
            log._write_mark()
        return log

    @property
    def end(self) -> int:
        """The size that the file must have at least, in bytes."""
        return self._mark.end

    def append(self, payloads: Sequence[bytes]) -> None:
        """Commit some lines. When it returns all are on the disk; if it fails, none is part of the log.

        Args:
            payloads: The contents of the lines, without line feeds; at least one.

        Raises:
            OSError: They cannot be written. The next call may succeed.
        """
        digest = self._mark.digest
        lines: list[bytes] = []
        for number, payload in enumerate(payloads, 1):
            text = (_LAST if number == len(payloads) else _MORE) + payload
            digest = _digest(digest, text)
            lines.append(b"%s%s\n" % (digest.hex().encode(), text))
        data = b"".join(lines)
        former = self._mark
        self._mark = Mark(count=former.count + 1, end=former.end + len(data), digest=digest)
        try:
            _write_all(self._descriptor, data, former.end)
            os.fsync(self._descriptor)
            self._write_mark()
        except BaseException:
            slot = self._slot
            self._mark = former
            # If this fails too, the next commit overwrites the rest.
            with suppress(OSError):
                os.ftruncate(self._descriptor, former.end)
                _write_all(self._descriptor, former.text(self._id), slot)
            raise

    @property
    def _slot(self) -> int:
        return _BLOCK * (1 + self._mark.count % 2)

    def _write_mark(self) -> None:
        _write_all(self._descriptor, self._mark.text(self._id), self._slot)


def read_commits(descriptor: int) -> Iterator[tuple[Mark, list[bytes]]]:
    """Yield the commits of a log, also while it is written, each with the mark that counts it.

    Raises:
        DamagedError: It does not hold what was written to it. Commits may have been yielded before.
        ForeignError: It is not a log of this version.
        OSError: It cannot be read.
    """
    # The mark is read first, so commits that are written meanwhile only add to its count.
    log_id, marked = _read_start(descriptor)
    read = _first_mark(log_id)
    digest, end = read.digest, read.end
    payloads: list[bytes] = []
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(end)
        for line in file:
            text = line[2 * _DIGEST : -1]
            digest = _digest(digest, text)
            if line[: 2 * _DIGEST] != digest.hex().encode() or line[-1:] != b"\n":
                break
            end += len(line)
            payloads.append(text[1:])
            if text[:1] == _LAST:
                read = Mark(count=read.count + 1, end=end, digest=digest)
                if read.count == marked.count and read != marked:
                    raise DamagedError("its mark does not match its commits")
                yield read, payloads
                payloads = []
    if read.count < marked.count:
        raise DamagedError(f"{marked.count} commits were written to it, and only {read.count} can be read")


def read_note(descriptor: int) -> bytes:
    """Return the note at the start of a log; empty if there is none.

    Raises:
        OSError: It cannot be read.
    """
    return os.pread(descriptor, _BLOCK, _NOTE_AT).strip()


def write_note(descriptor: int, note: bytes) -> None:
    """Write the note at the start of a log: one short line. It is not synced.

    Raises:
        OSError: It cannot be written.
    """
    _write_all(descriptor, note.ljust(_BLOCK - 1) + b"\n", _NOTE_AT)


def _read_start(descriptor: int) -> tuple[bytes, Mark]:
    """Read the id of a log, and the newer of its two marks."""
    start = os.pread(descriptor, _LINES_AT, 0)
    if start.startswith(b"SQLite format 3\0") and start[68:72] == b"blkr":
        raise _other_version(1)
    if (title := _TITLE.match(start)) is None:
        raise ForeignError(
            "it is not a journal of bulkrestart, or its first line is damaged; give another file, and --since if it "
            "was a journal"
        )
    if int(title[1]) != _VERSION:
        raise _other_version(int(title[1]))
    if (log_id := title[2]) is None or len(start) < _LINES_AT:
        raise DamagedError("its start cannot be read")
    marks: list[Mark] = []
    for at in (_BLOCK, 2 * _BLOCK):
        text = _MARK.match(start, at)
        if text is not None:
            mark = Mark(count=int(text[1]), end=int(text[2]), digest=bytes.fromhex(text[3].decode()))
            if mark.text(log_id) == text[0]:
                marks.append(mark)
    if not marks:
        raise DamagedError("neither of its marks can be read")
    return log_id, max(marks, key=lambda mark: mark.count)


def _other_version(version: int) -> ForeignError:
    other = "an older" if version < _VERSION else "a newer"
    return ForeignError(
        f"{other} bulkrestart wrote it (journal format {version}), and this one reads format {_VERSION}; finish its "
        f"run with {other} bulkrestart, or give another file, and --since with the time at which its run began"
    )


def _first_mark(log_id: bytes) -> Mark:
    return Mark(count=0, end=_LINES_AT, digest=_digest(log_id, b""))


def _digest(before: bytes, text: bytes) -> bytes:
    digest = blake2b(before, digest_size=_DIGEST)
    digest.update(text)
    return digest.digest()


def _write_all(descriptor: int, data: bytes, at: int) -> None:
    # A full disk takes what still fits, and fails at the next call.
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written
