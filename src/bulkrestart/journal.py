"""The journal of a run: the ledger that survives the process. SQLite, and synchronous.

Law: what `write` has returned from is on the disk, and no two processes write one journal.
"""

import errno
import fcntl
import json
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Final, Self

from bulkrestart.core.clock import moment_text
from bulkrestart.core.decision import End
from bulkrestart.core.endpoint import check_id
from bulkrestart.core.errors import JournalError
from bulkrestart.core.model import Attempt, Outcome, Proof, Reason, RebootType
from bulkrestart.core.record import Contents, Head, LogFacts, Purpose, Record
from bulkrestart.core.target import Target

#: What marks a database as a journal of ours ("blkr"), and the version of its tables.
_APPLICATION_ID: Final = 0x626C6B72
_VERSION: Final = 1

_TABLES: Final = (
    "CREATE TABLE run (only INTEGER PRIMARY KEY CHECK (only = 1), head TEXT NOT NULL)",
    "CREATE TABLE fleet (position INTEGER PRIMARY KEY, server_id TEXT NOT NULL)",
    "CREATE TABLE records (server_id TEXT PRIMARY KEY, record TEXT NOT NULL, written REAL NOT NULL) WITHOUT ROWID",
)
#: Neither by a link that somebody has laid, nor waiting for whoever may write to a FIFO.
_PLAINLY: Final = os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE_HEAD: Final = "INSERT OR REPLACE INTO run VALUES (1, ?)"
#: One statement for all rows, and so one transaction: sqlite3 gives the interpreter's lock away at each statement, and
#: in a busy program it may take 5 ms to have it back (`sys.getswitchinterval`).
_WRITE_RECORDS: Final = (
    "INSERT OR REPLACE INTO records SELECT json_extract(value, '$.server_id'), value, ? FROM json_each(?)"
)


class Journal:
    """A journal that is open for writing, and held: nobody else can open it until it is closed, or its process ends.

    Its methods may be called in any thread, one at a time.

    Args:
        path: The file.
        connection: The database.
        hold: The descriptor of the lock.
        is_new: The file was made just now.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, hold: int, *, is_new: bool) -> None:
        self.path = path
        self._connection = connection
        self._file = path.stat()
        self._hold = hold
        self._is_new = is_new

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a journal for writing; make it if there is none.

        Raises:
            JournalError: Another process holds it, it is none of ours, or it cannot be written.
        """
        with _explained(path, "; give another file"):
            file = _file(path)
            hold = _hold(file)
            is_new = False
            try:
                is_new = _make(file)
                connection = _connect(file)
            except BaseException:
                _let_go(file, hold, is_unbegun=is_new)
                raise
        return cls(file, connection, hold, is_new=is_new)

    def read(self) -> Contents | None:
        """Read all that it holds; None if its run has not begun.

        Raises:
            JournalError: It is damaged, or of a newer version.
        """
        with _explained(self.path, "; give another file"):
            return _read(self._connection, self.path)

    def begin(self, head: Head, ids: Iterable[str]) -> None:
        """Write what the run is for, and its whole fleet.

        Raises:
            JournalError: It cannot be written.
        """
        with _explained(self.path, "; give another file"), _transaction(self._connection):
            for statement in _TABLES:
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")
            self._connection.executemany("INSERT INTO fleet VALUES (?, ?)", enumerate(ids))
            self._connection.execute(_WRITE_HEAD, (_dump(head),))
        self._is_new = False

    @staticmethod
    def dump(records: Iterable[Record]) -> str:
        """Write records as JSON. In the thread of `write` it would contend with the event loop for the interpreter."""
        return _dump(list(records))

    def write(self, rows: str, now: float) -> None:
        """Write what is known of some servers; on the disk when it returns, or not at all.

        Args:
            rows: Their records, as `dump` writes them.
            now: The moment, in seconds since the epoch.

        Raises:
            JournalError: It cannot be written.
        """
        with _explained(self.path):
            self._check_in_place()
            self._connection.execute(_WRITE_RECORDS, (now, rows))

    def _check_in_place(self) -> None:
        """See that whoever comes finds this journal, and finds it held; somebody may have moved the one or the other.

        Raises:
            JournalError: It is not so.
        """
        if not _is_at(self.path, self._file) or not _is_at(_lock_path(self.path), self._hold):
            raise JournalError(
                f"the journal {self.path} or its lock was moved, replaced or deleted while it was in use"
            )

    def write_head(self, head: Head) -> None:
        """Write what has been learnt for the whole run.

        Raises:
            JournalError: It cannot be written.
        """
        with _explained(self.path):
            self._connection.execute(_WRITE_HEAD, (_dump(head),))

    def close(self) -> None:
        """Close it, and let others open it. Nothing is left of one that was made for a run that never began."""
        with _explained(self.path):
            try:
                self._connection.close()
            finally:
                _let_go(self.path, self._hold, is_unbegun=self._is_new)


def read_contents(path: str | os.PathLike[str]) -> Contents | None:
    """Read a journal, also while a process holds it; None if its run has not begun.

    Raises:
        JournalError: There is none, or it cannot be read.
    """
    with _explained(path, "; give another file"):
        file = _file(path)
        if not file.exists():
            raise JournalError(f"there is no journal {file}")
        _check_file(file.stat())
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            _check_ours(connection, file)
            return _read(connection, file)


def read_journal(path: str | os.PathLike[str]) -> tuple[Contents, int | None]:
    """Read the journal of a run, and find the process that holds it; None if none does.

    Raises:
        JournalError: There is none, it cannot be read, or its run has not begun.
    """
    contents = read_contents(path)
    if contents is None:
        raise JournalError(f"the run of the journal {path} has not begun: there is nothing to read")
    with _explained(path, "; give another file"):
        return contents, _holder(_file(path))


def _file(path: str | os.PathLike[str]) -> Path:
    """Give the one name of a file: its lock stands beside it, whatever links lead there."""
    return Path(os.path.realpath(path))


@contextmanager
def _explained(path: str | os.PathLike[str], remedy: str = "") -> Iterator[None]:
    """Turn what the disk and the database say into one line."""
    try:
        yield
    except (OSError, sqlite3.Error, ValueError) as error:
        # A ValueError: a path with a NUL character.
        why = error.strerror if isinstance(error, OSError) else error
        raise JournalError(f"the journal {path} cannot be used: {why}{remedy}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled it back already (sqlite.org/lang_transaction.html, section 3).
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _connect(file: Path) -> sqlite3.Connection:
    # Autocommit: `_transaction` says where one of several statements begins and ends.
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        _check_ours(connection, file)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # Proves that it can be written, before anything is sent.
        with _transaction(connection):
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    except BaseException:
        connection.close()
        raise
    return connection


def _lock_path(file: Path) -> Path:
    return file.with_name(f"{file.name}.held")


def _hold(file: Path) -> int:
    """Lock the file beside a journal, and name ourselves in it; the system lets it go when the process ends.

    Raises:
        JournalError: Another process holds it.
    """
    path = _lock_path(file)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _PLAINLY, 0o600)
        try:
            _check_lock(descriptor, path)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it until now may have taken it away with it: then this is the lock of nothing.
            if _is_at(path, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        except BlockingIOError:
            holder = _named_in(descriptor)
            os.close(descriptor)
            process = "another process" if holder is None else f"process {holder}"
            raise JournalError(f"the journal {file} is held by {process}: wait for it, or end it") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _let_go(file: Path, hold: int, *, is_unbegun: bool) -> None:
    # What cannot be taken away does no harm: the lock ends with its descriptor.
    with suppress(OSError):
        if is_unbegun:
            file.unlink()
        if _is_at(_lock_path(file), hold):
            _lock_path(file).unlink()
    os.close(hold)


def _is_at(path: Path, file: os.stat_result | int) -> bool:
    """Tell whether a path leads to a file, that of a descriptor or one that was seen before."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file) if isinstance(file, int) else file)
    except FileNotFoundError:
        return False


def _check_lock(descriptor: int, path: Path) -> None:
    """See that a file is one that only locks: what is in it is written over."""
    _check_file(os.fstat(descriptor))
    text = os.pread(descriptor, 20, 0).strip()
    if text and not text.isdigit():
        raise JournalError(f"{path} is no lock of a journal, and would be written over: give another file")


def _named_in(lock: int) -> int | None:
    text = os.pread(lock, 20, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None


def _holder(file: Path) -> int | None:
    """Tell which process holds a journal; None if none does."""
    try:
        descriptor = os.open(_lock_path(file), os.O_RDONLY | _PLAINLY)
    except FileNotFoundError:
        return None
    try:
        _check_lock(descriptor, _lock_path(file))
        # For a moment: whoever opens the journal in it is refused, and has only to try again.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def _make(file: Path) -> bool:
    """Make the file, for its owner only; the database makes its own beside it with the same mode.

    Returns:
        Whether it was not there.
    """
    is_new = not file.exists()
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
    try:
        _check_file(os.fstat(descriptor))
        if os.fstat(descriptor).st_size == 0:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return is_new


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a file")
    if status.st_nlink > 1:
        # Each name would have a lock of its own.
        raise OSError(errno.EMLINK, "it has more than one name (hard links)")


def _check_ours(connection: sqlite3.Connection, file: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id != _APPLICATION_ID and not is_empty:
        raise JournalError(f"{file} is a database of another program: give another file")
    if version > _VERSION:
        raise JournalError(f"a newer version of bulkrestart wrote the journal {file}: use that one")


def _read(connection: sqlite3.Connection, file: Path) -> Contents | None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        return None
    # One moment of the database, whoever writes meanwhile.
    connection.execute("BEGIN")
    try:
        head = _read_head(connection.execute("SELECT head FROM run").fetchone()[0])
        ids = connection.execute("SELECT server_id FROM fleet ORDER BY position").fetchall()
        records = [_read_record(text) for (text,) in connection.execute("SELECT record FROM records")]
        (written,) = connection.execute("SELECT max(written) FROM records").fetchone()
        contents = Contents(
            head=head,
            ids=tuple(check_id(server_id) for (server_id,) in ids),
            records={record.server_id: record for record in records},
            written=head.began if written is None else written,
        )
        _check_sense(contents)
        return contents
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        words = "restore it, or give another file and --since, so that nobody is restarted again"
        raise JournalError(f"the journal {file} is damaged ({error}): {words}") from error
    finally:
        connection.execute("COMMIT")


def _check_sense(contents: Contents) -> None:
    """See that what somebody may have edited is what a run can go on with."""
    if len(set(contents.ids)) < len(contents.ids) or not contents.records.keys() <= set(contents.ids):
        raise ValueError("its fleet is not that of its records")
    for moment in (contents.head.began, contents.written, contents.head.purpose.since):
        if moment is not None:
            moment_text(moment)
    for record in contents.records.values():
        if not all(map(isfinite, (record.began, record.elapsed, record.sent_at or 0.0, *(record.since or ())))):
            raise ValueError(f"a number of {record.server_id} is none")


def _dump(value: object) -> str:
    return json.dumps(value, default=_fields_of, allow_nan=False)


def _fields_of(record: object) -> dict[str, object]:
    """Take a record of ours apart; `dataclasses.asdict` copies deeply, and takes ten times as long."""
    assert is_dataclass(record), f"{record!r} is no record"
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _read_head(text: str) -> Head:
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


def _read_record(text: str) -> Record:
    values = json.loads(text)
    end = values.pop("end")
    if end is not None:
        end = End(
            outcome=Outcome(end["outcome"]),
            reason=None if end["reason"] is None else Reason(end["reason"]),
            detail=end["detail"],
            proof=_read_proof(end["proof"]),
        )
    since = values.pop("since")
    return Record(
        reboot_type=RebootType(values.pop("reboot_type")),
        attempts=tuple(Attempt(**attempt) for attempt in values.pop("attempts")),
        since=None if since is None else _pair(since),
        proof=_read_proof(values.pop("proof")),
        end=end,
        **values,
    )


def _read_proof(word: str | None) -> Proof | None:
    return None if word is None else Proof(word)


def _pair(values: Sequence[float]) -> tuple[float, float]:
    least, most = values
    return least, most
