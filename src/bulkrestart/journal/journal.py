"""The journal of a run. What `write` has written is on the disk, and a file is open as one journal at most."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from bulkrestart.core.checkpoint import Checkpoint, Contents, JournalHeader
from bulkrestart.core.errors import JournalError
from bulkrestart.journal.codec import (
    UNREADABLE,
    ContentsReader,
    EncodedCheckpoints,
    dump_checkpoints,
    dump_fleet,
    dump_header,
    dump_time,
)
from bulkrestart.journal.lock import find_holder, lock, write_holder
from bulkrestart.journal.log import DamagedError, ForeignError, Log, read_commits
from bulkrestart.journal.trust import check_file, check_kind, resolve

#: Do not follow a symbolic link, and do not wait for the other end of a FIFO.
_OPEN_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ANOTHER: Final = "; give another file"
_SINCE: Final = "give another file, and --since with the time at which its run began, so that no server reboots twice"


class Journal:
    """A journal that is open for writing and locked, until it is closed or its process ends.

    Its methods may be called in any thread, one at a time.

    Args:
        path: The file.
        descriptor: The file, open and locked.
        log: The log in the file.
        is_new: Whether the file was made just now.
    """

    def __init__(self, path: Path, descriptor: int, log: Log, *, is_new: bool) -> None:
        self.path = path
        self._descriptor = descriptor
        self._file = os.fstat(descriptor)
        self._log = log
        self._is_new = is_new
        self._attempts: dict[str, int] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a journal for writing; create it if there is none.

        Raises:
            JournalError: It is locked, another user may have written it or put it there, it is not a journal of this
                version, it is damaged, or it cannot be written.
        """
        with _as_journal_error(path, _ANOTHER):
            file = resolve(path)
            descriptor, is_new = _open_locked(file)
            try:
                log = Log.create(descriptor) if is_new else Log.open(descriptor)
                write_holder(descriptor)
            except BaseException:
                _close(file, descriptor, is_unbegun=is_new)
                raise
        return cls(file, descriptor, log, is_new=is_new)

    def read(self) -> Contents | None:
        """Read its contents; None if its run has not begun.

        Raises:
            JournalError: It is damaged.
        """
        with _as_journal_error(self.path, _ANOTHER):
            return _read(self._descriptor)

    def begin(self, header: JournalHeader, ids: Iterable[str]) -> None:
        """Write the header and the whole fleet.

        Raises:
            JournalError: It cannot be written.
        """
        with _as_journal_error(self.path, _ANOTHER):
            self._log.append([*dump_fleet(ids), dump_header(header)])
            _sync_folder(self.path)
        self._is_new = False

    def dump(self, checkpoints: Iterable[Checkpoint]) -> EncodedCheckpoints:
        """Encode checkpoints; not in the thread of `write`, because it would compete for the interpreter."""
        return dump_checkpoints(checkpoints, self._attempts)

    def write(self, rows: EncodedCheckpoints, now: float) -> None:
        """Write the checkpoints of some servers. When it returns they are on the disk; if it fails, none is written.

        Args:
            rows: The checkpoints, encoded by `dump`.
            now: The time, in seconds since the epoch.

        Raises:
            JournalError: It cannot be written.
        """
        self._append([*rows.lines, dump_time(now)])
        self._attempts |= rows.attempts

    def write_header(self, header: JournalHeader) -> None:
        """Write a new header, with what the run has learnt.

        Raises:
            JournalError: It cannot be written.
        """
        self._append([dump_header(header)])

    def _append(self, lines: list[bytes]) -> None:
        with _as_journal_error(self.path, "; mend that, and the same call goes on"):
            self._check_in_place()
            self._log.append(lines)

    def _check_in_place(self) -> None:
        """Check that the next process will find this journal at its path.

        Raises:
            JournalError: It will not.
        """
        if not _is_at(self.path, self._file, self._log.end):
            raise JournalError(
                f"the journal {self.path} was moved, replaced, cut or deleted while it was in use: put it back, and "
                f"the same call goes on, or {_SINCE}"
            )

    def close(self) -> None:
        """Close and unlock it. If its run never began, the new file is removed."""
        with _as_journal_error(self.path):
            _close(self.path, self._descriptor, is_unbegun=self._is_new)


def read_contents(path: str | os.PathLike[str]) -> Contents | None:
    """Read a journal from which a run will resume, also while it is locked; None if its run has not begun.

    Raises:
        JournalError: There is none, or `Journal.open` would refuse it.
    """
    with _as_journal_error(path, _ANOTHER), _opened_to_read(path, is_checked=True) as descriptor:
        return _read(descriptor)


def read_journal(path: str | os.PathLike[str]) -> tuple[Contents, str | None]:
    """Read a journal to show it, also that of another user; see `why_not_trusted`.

    Returns:
        Its contents, and a text that names the process that has locked it; None if it is not locked.

    Raises:
        JournalError: There is none, it cannot be read, or its run has not begun.
    """
    with _as_journal_error(path, _ANOTHER), _opened_to_read(path, is_checked=False) as descriptor:
        contents = _read(descriptor)
        if contents is None:
            raise JournalError(f"the run of the journal {path} has not begun: there is nothing to read")
        return contents, find_holder(descriptor)


def why_not_trusted(path: str | os.PathLike[str]) -> str | None:
    """Return why another user may have written a journal; None if only we may have."""
    try:
        with _as_journal_error(path), _opened_to_read(path, is_checked=True):
            return None
    except JournalError as error:
        return str(error)


@contextmanager
def _as_journal_error(path: str | os.PathLike[str], remedy: str = "") -> Iterator[None]:
    """Convert the errors of the block to a `JournalError` of one line."""
    try:
        yield
    except DamagedError as error:
        raise JournalError(f"the journal {path} is damaged ({error}): {_SINCE}") from error
    except ForeignError as error:
        raise JournalError(f"the journal {path} cannot be used: {error}") from error
    except (OSError, ValueError) as error:
        # A ValueError: a path with a NUL character.
        why = error.strerror if isinstance(error, OSError) else error
        raise JournalError(f"the journal {path} cannot be used: {why}{remedy}") from error


def _open_locked(file: Path) -> tuple[int, bool]:
    """Open and lock a journal; create the file, for its owner only, if there is none.

    Returns:
        The descriptor, and whether the file was created.
    """
    while True:
        is_new = False
        try:
            descriptor = os.open(file, os.O_RDWR | _OPEN_FLAGS)
        except FileNotFoundError:
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS, 0o600)
            except FileExistsError:
                # Another process has created it just now.
                continue
            is_new = True
        try:
            if is_new:
                # The umask may have removed bits.
                os.fchmod(descriptor, 0o600)
            check_file(file, os.fstat(descriptor))
            lock(descriptor, file)
            if not is_new:
                _check_not_empty(file, descriptor)
            # The process that had locked it until now may have removed it, because its run never began.
            if _is_at(file, os.fstat(descriptor)):
                return descriptor, is_new
        except BaseException:
            _close(file, descriptor, is_unbegun=is_new)
            raise
        os.close(descriptor)


def _check_not_empty(file: Path, descriptor: int) -> None:
    # A copy on a full disk is empty, and so is a file that a shell's `>` has cut. It may have held sends.
    if os.fstat(descriptor).st_size == 0:
        raise JournalError(
            f"the journal {file} is an empty file: if it was the journal of a run, {_SINCE}; if not, remove it"
        )


@contextmanager
def _opened_to_read(path: str | os.PathLike[str], *, is_checked: bool) -> Iterator[int]:
    try:
        file = resolve(path) if is_checked else Path(os.path.realpath(path))
        descriptor = os.open(file, os.O_RDONLY | _OPEN_FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        raise JournalError(f"there is no journal {os.path.abspath(path)}") from None
    try:
        check_kind(os.fstat(descriptor))
        if is_checked:
            check_file(file, os.fstat(descriptor))
        _check_not_empty(file, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Contents | None:
    reader, number = ContentsReader(), 0
    try:
        for _, lines in read_commits(descriptor):
            for line in lines:
                number += 1
                reader.read(line)
    except UNREADABLE as error:
        raise DamagedError(f"entry {number}: {error}") from error
    try:
        return reader.contents() if number else None
    except UNREADABLE as error:
        raise DamagedError(str(error)) from error


def _is_at(path: Path, file: os.stat_result, size: int = 0) -> bool:
    """Return whether a path leads to this file, with at least this size."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, file) and found.st_size >= size


def _close(file: Path, descriptor: int, *, is_unbegun: bool) -> None:
    try:
        # A file that cannot be removed does no harm: it says that no run has begun.
        with suppress(OSError):
            if is_unbegun and _is_at(file, os.fstat(descriptor)):
                file.unlink()
    finally:
        os.close(descriptor)


def _sync_folder(file: Path) -> None:
    """Sync a folder, so that the name of a new file survives a loss of power. Some file systems cannot do it."""
    with suppress(OSError):
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
