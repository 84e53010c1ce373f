"""The journal on a real disk: what was written is read, nobody else writes it, and what goes wrong is one line."""

import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkrestart import JournalError, RebootType
from bulkrestart.core.decision import End
from bulkrestart.core.model import Attempt, Outcome, Proof, Reason
from bulkrestart.core.record import Contents, Head, LogFacts, Purpose, Record
from bulkrestart.core.target import Target
from bulkrestart.journal import Journal, read_journal

IDS = ("a", "b", "c")
TARGET = Target(endpoint="https://cloud.test/v2.1/p", project_id="p")
PURPOSE = Purpose(target=TARGET, reboot_type=RebootType.SOFT)
#: When it is written, in seconds since the epoch.
NOW = 1_800_000_040.5
HEAD = Head(purpose=PURPOSE, began=1_800_000_000.25, facts=LogFacts())
#: A child that opens the journal named by its argument, says so, and waits to be killed.
HOLDER = """
import sys
from bulkrestart.journal import Journal
journal = Journal.open(sys.argv[1])
{then}
print("open", flush=True)
sys.stdin.read()
"""
BEGIN = """
from tests.test_journal import HEAD, IDS
journal.begin(HEAD, IDS)
"""


def record(server_id: str = "a", *, doubts: int = 0, words: str = "", end: End | None = None) -> Record:
    """Give a record of a server that was come to."""
    return Record(server_id=server_id, reboot_type=RebootType.SOFT, began=0.5, doubts=doubts, words=words, end=end)


def begun(path: Path, *records: Record) -> Path:
    """Make a journal whose run has begun, and which nobody holds."""
    with closing(Journal.open(path)) as journal:
        journal.begin(HEAD, IDS)
        journal.write(Journal.dump(records), NOW)
    return path


@contextmanager
def held_elsewhere(path: Path, *, then: str = "") -> Iterator[subprocess.Popen[str]]:
    """Let another process open a journal; kill it as `kill -9` does at the end."""
    program = HOLDER.format(then=then)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            yield child
        finally:
            child.kill()
    assert child.returncode == -signal.SIGKILL


def edit(path: Path, *statements: str) -> None:
    """Change a journal as somebody with another program may."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


# The journal's law: what is read is what was written.

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
#: What a calendar holds, in seconds since the epoch.
MOMENTS = st.floats(0.0, 4e9)
#: Lone surrogates as well, which no file takes as they are.
TEXTS = st.text(max_size=40)
PAIRS = st.tuples(FLOATS, FLOATS)
PROOFS = st.none() | st.sampled_from(Proof)
RECORDS = st.builds(
    Record,
    server_id=st.just("a"),
    reboot_type=st.sampled_from(RebootType),
    began=FLOATS,
    attempts=st.lists(st.builds(Attempt, FLOATS, TEXTS, st.none() | TEXTS), max_size=3).map(tuple),
    sent_at=st.none() | FLOATS,
    is_unresolved=st.booleans(),
    doubts=st.integers(0, 2**31),
    last_status=st.none() | st.integers(0, 999),
    has_reached=st.booleans(),
    since=st.none() | PAIRS,
    may_come_late=st.booleans(),
    was_seen_rebooting=st.booleans(),
    words=TEXTS,
    is_accepted=st.booleans(),
    request_id=st.none() | TEXTS,
    proof=PROOFS,
    elapsed=FLOATS,
    # `stop` is of the process that was told to stop: whoever resumes is not.
    end=st.none()
    | st.builds(
        End,
        outcome=st.sampled_from(Outcome),
        reason=st.none() | st.sampled_from(Reason),
        detail=TEXTS,
        proof=PROOFS,
        stop=st.none(),
    ),
)
HEADS = st.builds(
    Head,
    purpose=st.builds(
        Purpose,
        target=st.builds(Target, **dict.fromkeys(("endpoint", "project_id", "project_name", "cloud", "region"), TEXTS)),
        reboot_type=st.sampled_from(RebootType),
        since=st.none() | MOMENTS,
    ),
    began=MOMENTS,
    facts=st.builds(
        LogFacts,
        is_proven=st.booleans(),
        user_id=st.none() | TEXTS,
        shift=st.none() | PAIRS,
    ),
)


@settings(deadline=None, max_examples=40)
@given(head=HEADS, first=RECORDS, last=RECORDS)
def test_what_is_read_is_what_was_written(head: Head, first: Record, last: Record) -> None:
    """Every field of a head and of a record comes back as it was, and the newest record of a server counts."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "run.journal")
        with closing(Journal.open(path)) as journal:
            journal.begin(HEAD, IDS)
            journal.write(Journal.dump([first]), NOW)
            journal.write_head(head)
            journal.write(Journal.dump([last]), NOW + 1)
            assert journal.read() == Contents(head=head, ids=IDS, records={"a": last}, written=NOW + 1)
        with closing(Journal.open(path)) as journal:
            assert journal.read() == Contents(head=head, ids=IDS, records={"a": last}, written=NOW + 1)
        assert read_journal(path) == (Contents(head=head, ids=IDS, records={"a": last}, written=NOW + 1), None)


def test_the_order_of_the_fleet(tmp_path: Path) -> None:
    """The ids come back in the order in which they were given, whatever was written first."""
    ids = [f"{(number * 7919) % 1000:03}" for number in range(1000)]
    with closing(Journal.open(tmp_path / "journal")) as journal:
        journal.begin(HEAD, ids)
        journal.write(Journal.dump([record(ids[900]), record(ids[3])]), NOW)
        contents = journal.read()

    assert contents is not None
    assert contents.ids == tuple(ids)
    assert set(contents.records) == {ids[3], ids[900]}


def test_a_journal_whose_run_has_not_begun(tmp_path: Path) -> None:
    """One that was made for a run that never began is not left behind, nor its lock."""
    for _ in range(2):
        with closing(Journal.open(tmp_path / "journal")) as journal:
            assert journal.read() is None
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_is_left_there(tmp_path: Path) -> None:
    """An empty file that somebody else made stays, though its run never began; to read it says so."""
    path = tmp_path / "journal"
    path.touch()
    for _ in range(2):
        with closing(Journal.open(path)) as journal:
            assert journal.read() is None

    with pytest.raises(JournalError, match=rf"^the run of the journal {path} has not begun: there is nothing to read$"):
        read_journal(path)
    assert read_journal(begun(path))[0].ids == IDS


def test_only_the_journal_is_left(tmp_path: Path) -> None:
    """Once it is closed a journal is one file, which may be copied."""
    begun(tmp_path / "journal")

    assert [file.name for file in tmp_path.iterdir()] == ["journal"]


def test_an_empty_file_is_new(tmp_path: Path) -> None:
    """A file that `mktemp` or `touch` made is taken as a new journal, and closed to others."""
    path = tmp_path / "journal"
    path.touch(mode=0o644)

    begun(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_journal(path)[0].ids == IDS


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_only_the_owner_may_read_it(tmp_path: Path, umask: int) -> None:
    """The journal, what the database keeps beside it, and the lock are 0600 or less, whatever the umask."""
    before = os.umask(umask)
    try:
        with closing(Journal.open(tmp_path / "journal")) as journal:
            journal.begin(HEAD, IDS)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) & 0o177 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)

    assert modes == dict.fromkeys(("journal", "journal-wal", "journal-shm", "journal.held"), 0)


def test_relative_paths_stay_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its folder meanwhile goes on writing the same file."""
    monkeypatch.chdir(tmp_path)
    with closing(Journal.open("journal")) as journal:
        monkeypatch.chdir("/")
        journal.begin(HEAD, IDS)
        assert journal.path == tmp_path / "journal"

    assert read_journal(tmp_path / "journal")[0].ids == IDS


# One process at a time.


def test_a_second_time_in_this_process(tmp_path: Path) -> None:
    """An open journal is refused to whoever else wants it, in one line that names the process, until it is closed."""
    path = tmp_path / "journal"
    words = rf"^the journal {path} is held by process {os.getpid()}: wait for it, or end it$"
    with closing(Journal.open(path)):
        for _ in range(2):
            with pytest.raises(JournalError, match=words):
                Journal.open(path)

    Journal.open(path).close()


def test_a_second_process(tmp_path: Path) -> None:
    """Another process that holds it is named; once it is killed its lock is gone with it, and what it wrote is not."""
    path = tmp_path / "journal"
    with held_elsewhere(path, then=BEGIN) as holder:
        with pytest.raises(JournalError, match=rf"is held by process {holder.pid}: wait for it, or end it$"):
            Journal.open(path)
        assert read_journal(path) == (Contents(head=HEAD, ids=IDS, records={}, written=HEAD.began), holder.pid)

    assert read_journal(path) == (Contents(head=HEAD, ids=IDS, records={}, written=HEAD.began), None)
    with closing(Journal.open(path)) as journal:
        assert journal.read() == Contents(head=HEAD, ids=IDS, records={}, written=HEAD.began)
        journal.write(Journal.dump([record()]), NOW)


def test_killed_before_it_began(tmp_path: Path) -> None:
    """A process that is killed between opening and beginning leaves a journal that is as good as new."""
    path = tmp_path / "journal"
    with held_elsewhere(path), pytest.raises(JournalError, match=" has not begun: "):
        read_journal(path)

    assert read_journal(begun(path))[0].ids == IDS


def test_a_journal_is_not_inherited(tmp_path: Path) -> None:
    """A program that ours starts does not keep the lock when ours is over."""
    path = tmp_path / "journal"
    journal = Journal.open(path)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:  # noqa: S607 - whichever it is
        try:
            journal.close()
            Journal.open(path).close()
        finally:
            child.kill()


@pytest.mark.parametrize("text", ["", "\n"])
def test_lock_without_a_name(tmp_path: Path, text: str) -> None:
    """A holder that has not written its number yet is refused to as well, without its number."""
    path = begun(tmp_path / "journal")
    with closing(Journal.open(path)):
        (tmp_path / "journal.held").write_text(text)
        with pytest.raises(JournalError, match="is held by another process: "):
            Journal.open(path)
        assert read_journal(path)[1] is None


@pytest.mark.parametrize("text", ["\udcff", "x", "# yarn lockfile v1"])
def test_a_file_of_others_where_the_lock_would_be(tmp_path: Path, text: str) -> None:
    """A file that is no lock of ours is not written over, and the remedy is another journal."""
    lock = tmp_path / "journal.held"
    lock.write_text(text, errors="surrogateescape")
    with pytest.raises(JournalError, match=rf"^{lock} is no lock of a journal, .*: give another file$"):
        Journal.open(tmp_path / "journal")
    assert lock.read_text(errors="surrogateescape") == text
    assert [path.name for path in tmp_path.iterdir()] == ["journal.held"]


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("elsewhere"), os.mkfifo, Path.mkdir], ids=["link", "FIFO", "folder"]
)
def test_what_cannot_be_a_lock(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Where a link, a FIFO or a folder stands in the place of the lock, nobody waits, and nothing is made elsewhere."""
    begun(tmp_path / "journal")
    make(tmp_path / "journal.held")
    for open_ in (Journal.open, read_journal):
        with pytest.raises(JournalError, match=r" cannot be used: .*; give another file$"):
            open_(tmp_path / "journal")
    assert not (tmp_path / "elsewhere").exists()


def move_away(path: Path) -> None:
    """Give a file another name."""
    path.rename(path.with_name("moved"))


def replace_file(path: Path) -> None:
    """Put a copy in the place of a file."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize("name", ["journal", "journal.held"])
@pytest.mark.parametrize(
    "deed", [Path.unlink, lambda path: path.rename(f"{path}.old"), lambda path: replace_file(path)]
)
def test_what_is_moved_while_it_is_in_use(tmp_path: Path, name: str, deed: Callable[[Path], None]) -> None:
    """A journal that nobody would find, or that somebody else could hold, is not written any more."""
    with closing(Journal.open(tmp_path / "journal")) as journal:
        journal.begin(HEAD, IDS)
        journal.write(Journal.dump([record()]), NOW)
        deed(tmp_path / name)
        with pytest.raises(JournalError, match=r" or its lock was moved, replaced or deleted while it was in use$"):
            journal.write(Journal.dump([record(doubts=1)]), NOW)


def test_one_journal_by_two_names(tmp_path: Path) -> None:
    """A symbolic link leads to the same lock, and a second name, which would have another one, is refused."""
    path = begun(tmp_path / "journal")
    (tmp_path / "link").symlink_to(path)
    with closing(Journal.open(path)), pytest.raises(JournalError, match="is held by process"):
        Journal.open(tmp_path / "link")
    (tmp_path / "name").hardlink_to(path)
    with pytest.raises(JournalError, match="it has more than one name"):
        Journal.open(tmp_path / "name")


def test_a_lock_that_was_left(tmp_path: Path) -> None:
    """A lock that no living process holds, as one that was killed leaves it, keeps nobody out."""
    path = begun(tmp_path / "journal")
    (tmp_path / "journal.held").write_text("1\n")

    assert read_journal(path) == (Contents(head=HEAD, ids=IDS, records={}, written=HEAD.began), None)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_lock_that_is_taken_away_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_replaced: bool) -> None:
    """A lock whose file its former holder took away, or that another has made anew since, is the lock of nothing."""
    lock, flock = tmp_path / "journal.held", fcntl.flock
    calls: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        if not calls:
            lock.unlink()
            if is_replaced:
                lock.touch()
        calls.append(descriptor)
        flock(descriptor, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        journal = Journal.open(tmp_path / "journal")
    with closing(journal), pytest.raises(JournalError, match=f"is held by process {os.getpid()}: "):
        Journal.open(tmp_path / "journal")
    assert len(calls) == 2


def test_reading_holds_nobody_up(tmp_path: Path) -> None:
    """Readers see one moment of it, and a commit does not wait for them."""
    path = tmp_path / "journal"
    with closing(Journal.open(path)) as journal:
        journal.begin(HEAD, IDS)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM records").fetchone() == (0,)
            journal.write(Journal.dump([record("a"), record("b")]), NOW)
            assert reader.execute("SELECT count(*) FROM records").fetchone() == (0,)
        assert read_journal(path) == (
            Contents(head=HEAD, ids=IDS, records={"a": record("a"), "b": record("b")}, written=NOW),
            os.getpid(),
        )


# All or nothing.


def limit_pages(monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    """Let the database be full at so many pages, as a disk may be: SQLite says of both "database or disk is full"."""
    connect = sqlite3.connect

    def limited(database: Path, *, isolation_level: None, check_same_thread: bool) -> sqlite3.Connection:
        connection = connect(database, isolation_level=isolation_level, check_same_thread=check_same_thread)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)


def test_a_disk_that_is_full_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that the disk does not take is refused whole, and the journal is as good as new."""
    path = tmp_path / "journal"
    with monkeypatch.context() as patch:
        limit_pages(patch, 8)
        with closing(Journal.open(path)) as journal:
            with pytest.raises(
                JournalError, match=rf"^the journal {path} cannot be used: database or disk is full; give another file$"
            ):
                journal.begin(HEAD, [f"{number:036}" for number in range(10_000)])
            assert journal.read() is None

    assert read_journal(begun(path))[0].ids == IDS


def test_a_disk_that_is_full_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed before the disk was full is kept, the rest is not there in part, and it is written later."""
    path = tmp_path / "journal"
    long = [record("a"), record("b", words="x" * 100_000), record("c")]
    with monkeypatch.context() as patch:
        limit_pages(patch, 16)
        with closing(Journal.open(path)) as journal:
            journal.begin(HEAD, IDS)
            journal.write(Journal.dump([record("a", doubts=1)]), NOW)
            with pytest.raises(JournalError, match=r"database or disk is full$"):
                journal.write(Journal.dump(long), 2e9)
            assert journal.read() == Contents(head=HEAD, ids=IDS, records={"a": record("a", doubts=1)}, written=NOW)
            journal.write(Journal.dump([record("a", doubts=2)]), NOW)

    with closing(Journal.open(path)) as journal:
        assert journal.read() == Contents(head=HEAD, ids=IDS, records={"a": record("a", doubts=2)}, written=NOW)
        journal.write(Journal.dump(long), NOW)
    assert set(read_journal(path)[0].records) == set(IDS)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_write_that_breaks_off(tmp_path: Path, error: type[BaseException]) -> None:
    """Whatever breaks a write off, nothing of it is there, and the next one goes through."""

    def broken(ids: tuple[str, ...]) -> Iterator[str]:
        yield from ids
        raise error

    with closing(Journal.open(tmp_path / "journal")) as journal:
        with pytest.raises(error):
            journal.begin(HEAD, broken(IDS))
        assert journal.read() is None
        journal.begin(HEAD, IDS)
        assert journal.read() == Contents(head=HEAD, ids=IDS, records={}, written=HEAD.began)


def test_a_database_that_another_program_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that cannot be written for a time says so, each time, and is written again afterwards."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", partial(connect, timeout=0.0))
    path = tmp_path / "journal"
    with closing(Journal.open(path)) as journal:
        journal.begin(HEAD, IDS)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                with pytest.raises(JournalError, match=rf"^the journal {path} cannot be used: database is locked$"):
                    journal.write(Journal.dump([record()]), NOW)
            other.execute("ROLLBACK")
        journal.write(Journal.dump([record()]), NOW)


# What is none of ours.


def other_database(path: Path) -> None:
    """Make somebody else's database."""
    edit(path, "CREATE TABLE letters (text TEXT)", "PRAGMA application_id = 7")


def unmarked_database(path: Path) -> None:
    """Make a database that does not say whose it is."""
    edit(path, "CREATE TABLE run (name TEXT, value TEXT)")


def text_file(path: Path) -> None:
    """Make a file of ids, as may be given in the journal's place by mistake."""
    path.write_text("616fb98f-46ca-475e-917e-2563e5a8cd19\n" * 100)


def newer(path: Path) -> None:
    """Make a journal of a version that is yet to come."""
    edit(begun(path), "PRAGMA user_version = 2")


def cut_off(path: Path) -> None:
    """Make a journal that lost its second half."""
    size = begun(path).stat().st_size
    os.truncate(path, size // 2)


def folder(path: Path) -> None:
    """Make a folder."""
    path.mkdir()


def dangling(path: Path) -> None:
    """Make a link to a folder that is not there."""
    path.symlink_to(path.parent / "nowhere" / "journal")


NOT_OURS: list[tuple[Callable[[Path], None], str]] = [
    (other_database, " is a database of another program: give another file"),
    (unmarked_database, " is a database of another program: give another file"),
    (text_file, " cannot be used: file is not a database; give another file"),
    (newer, "a newer version of bulkrestart wrote the journal "),
    (cut_off, " cannot be used: database disk image is malformed; give another file"),
]


@pytest.mark.parametrize(("make", "words"), NOT_OURS, ids=[make.__name__ for make, _ in NOT_OURS])
def test_a_file_that_is_none_of_ours(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """A file that is no journal is refused in one line that says why, is left as it was, and is not held."""
    path = tmp_path / "journal"
    make(path)
    before = path.read_bytes()

    for open_ in (Journal.open, read_journal, Journal.open):
        with pytest.raises(JournalError, match=words) as caught:
            open_(path)
        assert str(path) in str(caught.value)

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "words"),
    [(folder, "Is a directory"), (os.mkfifo, "it is not a file"), (dangling, "No such file or directory")],
    ids=["folder", "FIFO", "dangling link"],
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """A folder, a FIFO and a link to nowhere are refused at once: nothing waits for a writer."""
    path = tmp_path / "journal"
    make(path)

    with pytest.raises(JournalError, match=rf"^the journal {path} cannot be used: {words}\b"):
        Journal.open(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (folder, "the journal {} cannot be used: it is not a file; give another file"),
        (os.mkfifo, "the journal {} cannot be used: it is not a file; give another file"),
        (dangling, "there is no journal "),
    ],
    ids=["folder", "FIFO", "dangling link"],
)
def test_reading_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """A folder, a FIFO and a link to nowhere are no journals to read either, and nothing waits for a writer."""
    path = tmp_path / "journal"
    make(path)
    program = "import sys; from bulkrestart.journal import read_journal; read_journal(sys.argv[1])"

    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], timeout=10.0, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert f"JournalError: {words.format(path)}" in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere/journal", "No such file or directory"),
        ("file/journal", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("a\0b", "embedded null byte"),
    ],
)
def test_a_place_where_nothing_can_be_made(tmp_path: Path, name: str, words: str) -> None:
    """A path that leads nowhere is refused in the system's own words, and nothing is left behind."""
    (tmp_path / "file").touch()

    with pytest.raises(JournalError, match=rf"cannot be used: {words}\b"):
        Journal.open(tmp_path / name)

    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["journal", "nowhere/journal", "file/journal"])
def test_reading_where_nothing_is(tmp_path: Path, name: str) -> None:
    """To read a journal makes none."""
    (tmp_path / "file").touch()

    with pytest.raises(JournalError, match=rf"^there is no journal {tmp_path / name}$"):
        read_journal(tmp_path / name)

    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_reading_a_path_that_is_none() -> None:
    """There can be nothing where a path has a NUL character."""
    with pytest.raises(JournalError, match="embedded null byte"):
        read_journal("a\0b")


def refuse_lock(descriptor: int, operation: int) -> None:
    """Refuse as a network's file system does that has no locks."""
    raise OSError(37, "No locks available")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be locked no journal is kept: two processes might write it."""
    monkeypatch.setattr("fcntl.flock", refuse_lock)

    with pytest.raises(JournalError, match="cannot be used: No locks available"):
        Journal.open(tmp_path / "journal")


def test_a_file_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is another user's is refused, and the lock beside it is let go."""
    path = begun(tmp_path / "journal")
    really = os.open

    def refuse(file: Path, flags: int, mode: int = 0o777) -> int:
        if Path(file) == path:
            raise PermissionError(13, "Permission denied")
        return really(file, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(JournalError, match="cannot be used: Permission denied"):
            Journal.open(path)

    Journal.open(path).close()


# What somebody has edited.


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM run",
        "UPDATE run SET head = 'no JSON'",
        "UPDATE run SET head = '[]'",
        "UPDATE run SET head = json_remove(head, '$.purpose')",
        "UPDATE run SET head = json_set(head, '$.purpose.reboot_type', 'WARM')",
        "UPDATE run SET head = json_set(head, '$.facts.shift', json('[1]'))",
        "UPDATE run SET head = json_set(head, '$.facts.shift', 1)",
        "UPDATE records SET record = '1'",
        "UPDATE records SET record = json_remove(record, '$.server_id')",
        "UPDATE records SET record = json_set(record, '$.more', 1)",
        "UPDATE records SET record = json_set(record, '$.reboot_type', 'WARM')",
        "UPDATE records SET record = json_set(record, '$.reboot_type', NULL)",
        "UPDATE records SET record = json_set(record, '$.attempts', 1)",
        "UPDATE records SET record = json_set(record, '$.end.outcome', 'rebooted')",
        "UPDATE records SET record = json_set(record, '$.end.reason', 'why not')",
        "UPDATE records SET record = json_set(record, '$.end.proof', 'faith')",
        "UPDATE records SET record = json_set(record, '$.proof', 'faith')",
        "UPDATE records SET record = replace(record, '\"began\":0.5', '\"began\":Infinity')",
        "UPDATE records SET record = json_set(record, '$.elapsed', 'long')",
        "UPDATE records SET written = 'yesterday'",
        "UPDATE run SET head = json_set(head, '$.began', 1e300)",
        "UPDATE fleet SET server_id = 'a'",
        "UPDATE fleet SET server_id = '../../x' WHERE server_id = 'a'",
        "UPDATE fleet SET server_id = x'00' WHERE server_id = 'c'",
        "DELETE FROM fleet",
    ],
)
def test_rows_that_were_edited(tmp_path: Path, statement: str) -> None:
    """A journal whose rows make no sense is refused in one line; it is not held afterwards."""
    path = begun(tmp_path / "journal", record(end=End(outcome=Outcome.REFUSED, reason=Reason.LOCKED)))
    edit(path, statement)
    words = rf"^the journal {path} is damaged \(.*\): restore it, or give another file"

    for _ in range(2):
        with closing(Journal.open(path)) as journal, pytest.raises(JournalError, match=words):
            journal.read()
        with pytest.raises(JournalError, match=words):
            read_journal(path)


@pytest.mark.parametrize("table", ["run", "fleet", "records"])
def test_tables_that_are_missing(tmp_path: Path, table: str) -> None:
    """A journal without one of its tables is refused in the database's own words."""
    path = begun(tmp_path / "journal")
    edit(path, f"DROP TABLE {table}")

    with pytest.raises(
        JournalError, match=rf"^the journal {path} cannot be used: no such table: {table}; give another file$"
    ):
        read_journal(path)
