"""The journal of a run: the ledger that survives the process. SQLite, and synchronous.

Law: what `write` has returned from is on the disk, and no two processes write one journal.
"""

import errno
import fcntl
import json
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from bulkrestart.core.decision import End
from bulkrestart.core.errors import JournalError
from bulkrestart.core.model import Attempt, Outcome, Proof, Reason, RebootType
from bulkrestart.core.record import Contents, Head, LogFacts, Purpose, Record, Witness

#: What marks a database as a journal of ours ("blkr"), and the version of its tables.
_APPLICATION_ID: Final = 0x626C6B72
_VERSION: Final = 1

_TABLES: Final = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE servers (
    position INTEGER PRIMARY KEY,
    server_id TEXT NOT NULL UNIQUE,
    reboot_type TEXT,
    began REAL,
    sent_at REAL,
    is_unresolved INTEGER,
    doubts INTEGER,
    last_status INTEGER,
    has_reached INTEGER,
    since_least REAL,
    since_most REAL,
    may_come_late INTEGER,
    was_seen_rebooting INTEGER,
    words TEXT,
    is_accepted INTEGER,
    request_id TEXT,
    proof TEXT,
    elapsed REAL,
    outcome TEXT,
    reason TEXT,
    detail TEXT,
    end_proof TEXT
);
CREATE TABLE attempts (
    server_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    sent_at REAL NOT NULL,
    answer TEXT NOT NULL,
    request_id TEXT,
    PRIMARY KEY (server_id, number)
) WITHOUT ROWID;
"""
_UPDATE: Final = """
UPDATE servers SET
    reboot_type = :reboot_type, began = :began, sent_at = :sent_at, is_unresolved = :is_unresolved, doubts = :doubts,
    last_status = :last_status, has_reached = :has_reached, since_least = :since_least, since_most = :since_most,
    may_come_late = :may_come_late, was_seen_rebooting = :was_seen_rebooting, words = :words,
    is_accepted = :is_accepted, request_id = :request_id, proof = :proof, elapsed = :elapsed, outcome = :outcome,
    reason = :reason, detail = :detail, end_proof = :end_proof
WHERE server_id = :server_id
"""
_INSERT_ATTEMPT: Final = "INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?, ?)"
_SET: Final = "INSERT OR REPLACE INTO run VALUES (?, ?)"


class Journal:
    """A journal that is open for writing, and held: nobody else can open it until it is closed, or its process ends.

    Its methods may be called in any thread, one at a time.

    Args:
        path: The file.
        connection: The database.
        hold: The descriptor of the file that is locked.
        is_new: The file was made just now.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, hold: int, *, is_new: bool) -> None:
        self.path = path
        self._connection = connection
        self._hold = hold
        self._is_new = is_new

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a journal for writing; make it if there is none.

        Raises:
            JournalError: Another process holds it, it is none of ours, or it cannot be written.
        """
        file = Path(path).absolute()
        with _explained(file, "; give another file"):
            hold = _hold(file)
            try:
                is_new = _make(file)
                # Autocommit: `write` says where a transaction begins and ends.
                connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
                try:
                    _check_ours(connection)
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = FULL")
                    # Proves that it can be written, before anything is sent.
                    with _transaction(connection):
                        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                except BaseException:
                    connection.close()
                    raise
            except BaseException:
                os.close(hold)
                raise
        return cls(file, connection, hold, is_new=is_new)

    def read(self) -> Contents | None:
        """Read all that it holds; None if its run has not begun.

        Raises:
            JournalError: It is damaged, or of a newer version.
        """
        with _explained(self.path):
            return _read(self._connection)

    def begin(self, head: Head, ids: Iterable[str]) -> None:
        """Write what the run is for, and its whole fleet.

        Raises:
            JournalError: It cannot be written.
        """
        with _explained(self.path), _transaction(self._connection):
            for statement in filter(str.strip, _TABLES.split(";")):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")
            rows = enumerate(ids)
            self._connection.executemany("INSERT INTO servers (position, server_id) VALUES (?, ?)", rows)
            self._connection.executemany(_SET, _write_head(head))
        self._is_new = False

    def write(self, head: Head, records: Iterable[Record]) -> None:
        """Write what is known of some servers, and of the run; on the disk when it returns, or not at all.

        Raises:
            JournalError: It cannot be written.
        """
        records = list(records)
        attempts = [
            (record.server_id, number, attempt.sent_at, attempt.answer, attempt.request_id)
            for record in records
            for number, attempt in enumerate(record.attempts)
        ]
        with _explained(self.path), _transaction(self._connection):
            self._connection.executemany(_UPDATE, map(_write_record, records))
            self._connection.executemany(_INSERT_ATTEMPT, attempts)
            self._connection.executemany(_SET, _write_head(head))

    def close(self) -> None:
        """Close it, and let others open it. Nothing is left of one that was made for a run that never began."""
        with _explained(self.path):
            try:
                self._connection.close()
                # What cannot be taken away does no harm: the lock ends with its descriptor.
                with suppress(OSError):
                    if self._is_new:
                        self.path.unlink()
                    _lock_path(self.path).unlink()
            finally:
                os.close(self._hold)


def read_journal(path: str | os.PathLike[str]) -> tuple[Contents, int | None]:
    """Read a journal, also while a process holds it.

    Returns:
        What it holds, and the process that holds it, None if none does.

    Raises:
        JournalError: There is none, or it cannot be read.
    """
    file = Path(path).absolute()
    with _explained(file):
        if not file.is_file():
            raise JournalError(f"there is no journal {file}")
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            _check_ours(connection)
            contents = _read(connection)
    if contents is None:
        raise JournalError(f"{file} is empty: its run has not begun")
    return contents, _holder(file)


@contextmanager
def _explained(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn what the disk and the database say into one line."""
    try:
        yield
    except (OSError, sqlite3.Error, ValueError) as error:
        # A ValueError: a path with a NUL character, or rows that somebody has edited.
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


def _lock_path(file: Path) -> Path:
    return file.with_name(f"{file.name}.lock")


def _hold(file: Path) -> int:
    """Lock the file beside a journal, and name ourselves in it; the system lets it go when the process ends.

    Raises:
        JournalError: Another process holds it.
    """
    path = _lock_path(file)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
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


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _named_in(lock: int) -> int | None:
    text = os.pread(lock, 20, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None


def _holder(file: Path) -> int | None:
    """Tell which process holds a journal; None if none does."""
    try:
        descriptor = os.open(_lock_path(file), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
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
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        if os.fstat(descriptor).st_size == 0:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return is_new


def _check_ours(connection: sqlite3.Connection) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id != _APPLICATION_ID and not is_empty:
        raise ValueError("it is a database of another program; give another file")
    if version > _VERSION:
        raise ValueError("a newer version of bulkrestart wrote it; use that one")


def _read(connection: sqlite3.Connection) -> Contents | None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        return None
    connection.row_factory = sqlite3.Row
    # One moment of the database, whoever writes meanwhile.
    connection.execute("BEGIN")
    try:
        head = _read_head(dict(connection.execute("SELECT name, value FROM run")))
        attempts: dict[str, list[Attempt]] = {}
        query = "SELECT server_id, sent_at, answer, request_id FROM attempts ORDER BY server_id, number"
        for server_id, *values in connection.execute(query):
            attempts.setdefault(server_id, []).append(Attempt(*values))
        ids: list[str] = []
        records: dict[str, Record] = {}
        for row in connection.execute("SELECT * FROM servers ORDER BY position"):
            ids.append(row["server_id"])
            if row["began"] is not None:
                record = _read_record(row)
                records[record.server_id] = replace(record, attempts=tuple(attempts.get(record.server_id, ())))
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"it is damaged ({error})") from error
    finally:
        connection.execute("COMMIT")
        connection.row_factory = None
    return Contents(head=head, ids=tuple(ids), records=records)


def _write_record(record: Record) -> dict[str, object]:
    end = record.end
    since = record.since or (None, None)
    return {
        "server_id": record.server_id,
        "reboot_type": record.reboot_type,
        "began": record.began,
        "sent_at": record.sent_at,
        "is_unresolved": record.is_unresolved,
        "doubts": record.doubts,
        "last_status": record.last_status,
        "has_reached": record.has_reached,
        "since_least": since[0],
        "since_most": since[1],
        "may_come_late": record.may_come_late,
        "was_seen_rebooting": record.was_seen_rebooting,
        "words": record.words,
        "is_accepted": record.is_accepted,
        "request_id": record.request_id,
        "proof": record.proof,
        "elapsed": record.elapsed,
        "outcome": end and end.outcome,
        "reason": end and end.reason,
        "detail": end and end.detail,
        "end_proof": end and end.proof,
    }


def _read_record(row: sqlite3.Row) -> Record:
    end = None
    if row["outcome"] is not None:
        end = End(
            outcome=Outcome(row["outcome"]),
            reason=None if row["reason"] is None else Reason(row["reason"]),
            detail=row["detail"],
            proof=None if row["end_proof"] is None else Proof(row["end_proof"]),
        )
    return Record(
        server_id=row["server_id"],
        reboot_type=RebootType(row["reboot_type"]),
        began=row["began"],
        sent_at=row["sent_at"],
        is_unresolved=bool(row["is_unresolved"]),
        doubts=row["doubts"],
        last_status=row["last_status"],
        has_reached=bool(row["has_reached"]),
        since=None if row["since_least"] is None else (row["since_least"], row["since_most"]),
        may_come_late=bool(row["may_come_late"]),
        was_seen_rebooting=bool(row["was_seen_rebooting"]),
        words=row["words"],
        is_accepted=bool(row["is_accepted"]),
        request_id=row["request_id"],
        proof=None if row["proof"] is None else Proof(row["proof"]),
        elapsed=row["elapsed"],
        end=end,
    )


def _write_head(head: Head) -> list[tuple[str, str | None]]:
    purpose, facts = head.purpose, head.facts
    witness = facts.witness and [facts.witness.server_id, facts.witness.request_id, facts.witness.written]
    return [
        ("endpoint", purpose.endpoint),
        ("reboot_type", purpose.reboot_type),
        ("since", json.dumps(purpose.since)),
        ("began", json.dumps(head.began)),
        ("written", json.dumps(head.written)),
        ("log_is_proven", json.dumps(facts.is_proven)),
        ("log_user_id", facts.user_id),
        ("log_shift", json.dumps(facts.shift)),
        ("log_witness", json.dumps(witness)),
    ]


def _read_head(values: Mapping[str, str]) -> Head:
    shift, witness = json.loads(values["log_shift"]), json.loads(values["log_witness"])
    return Head(
        purpose=Purpose(
            endpoint=values["endpoint"],
            reboot_type=RebootType(values["reboot_type"]),
            since=json.loads(values["since"]),
        ),
        began=json.loads(values["began"]),
        written=json.loads(values["written"]),
        facts=LogFacts(
            is_proven=json.loads(values["log_is_proven"]),
            user_id=values["log_user_id"],
            shift=shift and tuple(shift),
            witness=witness and Witness(witness[0], witness[1], tuple(witness[2])),
        ),
    )
