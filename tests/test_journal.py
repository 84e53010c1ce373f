"""The journal on a real disk: what was written is read, nobody else writes it, and what goes wrong is one line."""

import errno
import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
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
from bulkrestart.journal import Journal, read_contents, read_journal
from bulkrestart.journal.codec import dump_head
from bulkrestart.journal.log import Log
from tests.full_disk import fill_disk

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
        journal.write(journal.dump(records), NOW)
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


def append(path: Path, *lines: bytes) -> None:
    """Write lines with good digests, as another program may."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        Log.open(descriptor).append(lines)
    finally:
        os.close(descriptor)


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
            journal.write(journal.dump([first]), NOW)
            journal.write_head(head)
            journal.write(journal.dump([last]), NOW + 1)
            assert journal.read() == Contents(head=head, ids=IDS, records={"a": last}, written=NOW + 1)
        with closing(Journal.open(path)) as journal:
            assert journal.read() == Contents(head=head, ids=IDS, records={"a": last}, written=NOW + 1)
        assert read_journal(path) == (Contents(head=head, ids=IDS, records={"a": last}, written=NOW + 1), None)


def test_the_order_of_the_fleet(tmp_path: Path) -> None:
    """The ids come back in the order in which they were given, whatever was written first."""
    ids = [f"{(number * 7919) % 1000:03}" for number in range(1000)]
    with closing(Journal.open(tmp_path / "journal")) as journal:
        journal.begin(HEAD, ids)
        journal.write(journal.dump([record(ids[900]), record(ids[3])]), NOW)
        contents = journal.read()

    assert contents is not None
    assert contents.ids == tuple(ids)
    assert set(contents.records) == {ids[3], ids[900]}


def test_a_journal_whose_run_has_not_begun(tmp_path: Path) -> None:
    """One that was made for a run that never began is not left behind."""
    for _ in range(2):
        with closing(Journal.open(tmp_path / "journal")) as journal:
            assert journal.read() is None
        assert list(tmp_path.iterdir()) == []


def test_a_journal_that_was_there_is_left_there(tmp_path: Path) -> None:
    """A journal whose run never began stays if another process made it; to read it says so."""
    path = tmp_path / "journal"
    with held_elsewhere(path):
        pass
    for _ in range(2):
        assert read_contents(path) is None
        with closing(Journal.open(path)) as journal:
            assert journal.read() is None

    with pytest.raises(JournalError, match=rf"^the run of the journal {path} has not begun: there is nothing to read$"):
        read_journal(path)
    assert read_journal(begun(path))[0].ids == IDS


@pytest.mark.parametrize("deed", [Path.unlink, lambda path: replace_file(path)], ids=["deleted", "replaced"])
def test_only_its_own_file_is_removed(tmp_path: Path, deed: Callable[[Path], None]) -> None:
    """Closing a journal that never began removes the file that it made, and no other one in its place."""
    path = tmp_path / "journal"
    with closing(Journal.open(path)):
        deed(path)
        before = path.exists()

    assert path.exists() is before


def test_a_journal_is_one_file(tmp_path: Path) -> None:
    """While it is in use and afterwards a journal is one file, so whatever copies that file has all of it."""
    with closing(Journal.open(tmp_path / "journal")) as journal:
        journal.begin(HEAD, IDS)
        journal.write(journal.dump([record()]), NOW)
        assert [file.name for file in tmp_path.iterdir()] == ["journal"]

    assert [file.name for file in tmp_path.iterdir()] == ["journal"]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """A copy to a full disk is an empty file: it may have been a journal, so no run begins in it."""
    path = tmp_path / "journal"
    path.touch(mode=0o600)
    words = rf"^the journal {path} is an empty file: if it was the journal of a run, .* --since .*; if not, remove it$"
    for open_ in (Journal.open, read_contents, read_journal):
        with pytest.raises(JournalError, match=words):
            open_(path)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_only_the_owner_may_read_it(tmp_path: Path, umask: int) -> None:
    """The journal is 0600, whatever the umask."""
    before = os.umask(umask)
    try:
        with closing(Journal.open(tmp_path / "journal")) as journal:
            journal.begin(HEAD, IDS)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o600


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
        assert read_journal(path) == (
            Contents(head=HEAD, ids=IDS, records={}, written=HEAD.began),
            f"process {holder.pid}",
        )

    assert read_journal(path) == (Contents(head=HEAD, ids=IDS, records={}, written=HEAD.began), None)
    with closing(Journal.open(path)) as journal:
        assert journal.read() == Contents(head=HEAD, ids=IDS, records={}, written=HEAD.began)
        journal.write(journal.dump([record()]), NOW)


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


def move_away(path: Path) -> None:
    """Give a file another name."""
    path.rename(path.with_name("moved"))


def replace_file(path: Path) -> None:
    """Put a copy in the place of a file."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def cut_to_nothing(path: Path) -> None:
    """Cut a file, as the `>` of a shell does."""
    os.truncate(path, 0)


@pytest.mark.parametrize("deed", [Path.unlink, move_away, replace_file, cut_to_nothing])
def test_what_is_moved_while_it_is_in_use(tmp_path: Path, deed: Callable[[Path], None]) -> None:
    """A journal that the next process would not find is not written any more, and the line names the remedy."""
    with closing(Journal.open(tmp_path / "journal")) as journal:
        journal.begin(HEAD, IDS)
        journal.write(journal.dump([record()]), NOW)
        deed(tmp_path / "journal")
        words = (
            r" was moved, replaced, cut or deleted while it was in use: put it back, and the same call goes on, or "
            r"give another file, and --since "
        )
        with pytest.raises(JournalError, match=words):
            journal.write(journal.dump([record(doubts=1)]), NOW)


def test_a_folder_that_vanishes(tmp_path: Path) -> None:
    """When the folder is moved while the journal is in use the write is refused in one line."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with closing(Journal.open(folder / "journal")) as journal:
        journal.begin(HEAD, IDS)
        folder.rename(tmp_path / "moved")
        with pytest.raises(JournalError, match="was moved, replaced, cut or deleted while it was in use"):
            journal.write(journal.dump([record()]), NOW)
        folder.touch()
        with pytest.raises(JournalError, match="cannot be used: Not a directory"):
            journal.write(journal.dump([record()]), NOW)


def test_a_reader_holds_no_writer_up(tmp_path: Path) -> None:
    """A program that keeps the file open, and locks all of it as far as it can, keeps no commit from the disk."""
    path = tmp_path / "journal"
    with closing(Journal.open(path)) as journal:
        journal.begin(HEAD, IDS)
        with path.open("rb") as reader:
            fcntl.flock(reader, fcntl.LOCK_SH)
            fcntl.lockf(reader, fcntl.LOCK_SH, path.stat().st_size)
            journal.write(journal.dump([record("a"), record("b")]), NOW)
        assert read_journal(path) == (
            Contents(head=HEAD, ids=IDS, records={"a": record("a"), "b": record("b")}, written=NOW),
            f"process {os.getpid()}",
        )


def test_reading_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads between two steps of a commit reads what was committed before, or all of the commit."""
    path = tmp_path / "journal"
    pwrite, fsync = os.pwrite, os.fsync
    seen: list[int] = []

    def look() -> None:
        contents, holder = read_journal(path)
        assert holder == f"process {os.getpid()}"
        seen.append(sum(record.doubts for record in contents.records.values()))

    def write_in_halves(descriptor: int, data: bytes, at: int) -> int:
        half = pwrite(descriptor, data[: len(data) // 2], at)
        look()
        rest = pwrite(descriptor, data[half:], at + half)
        look()
        return half + rest

    def sync(descriptor: int) -> None:
        fsync(descriptor)
        look()

    with closing(Journal.open(path)) as journal:
        journal.begin(HEAD, IDS)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", write_in_halves)
            patch.setattr(os, "fsync", sync)
            for number in range(1, 4):
                journal.write(journal.dump([record("a", doubts=number), record("b", doubts=number)]), NOW)
                assert seen[0] == 2 * (number - 1)
                assert set(seen) == {2 * (number - 1), 2 * number}
                assert seen[-1] == 2 * number
                assert seen == sorted(seen)
                seen.clear()


# All or nothing.


def test_a_disk_that_is_full_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that the disk does not take is refused whole, and the journal is as good as new."""
    path = tmp_path / "journal"
    with monkeypatch.context() as patch:
        fill_disk(patch, room=50_000)
        with closing(Journal.open(path)) as journal:
            with pytest.raises(
                JournalError, match=rf"^the journal {path} cannot be used: No space left on device; give another file$"
            ):
                journal.begin(HEAD, [f"{number:036}" for number in range(10_000)])
            assert journal.read() is None

    assert read_journal(begun(path))[0].ids == IDS


def test_a_disk_that_takes_no_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the start of a journal fits nothing is left behind."""
    fill_disk(monkeypatch, room=1000)

    with pytest.raises(JournalError, match=r" cannot be used: No space left on device; give another file$"):
        Journal.open(tmp_path / "journal")

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed before the disk was full is kept, the rest is not there in part, and it is written later."""
    path = tmp_path / "journal"
    long = [record("a"), record("b", words="x" * 100_000), record("c")]
    with monkeypatch.context() as patch:
        fill_disk(patch, room=50_000)
        with closing(Journal.open(path)) as journal:
            journal.begin(HEAD, IDS)
            journal.write(journal.dump([record("a", doubts=1)]), NOW)
            with pytest.raises(JournalError, match=r"No space left on device; mend that, and the same call goes on$"):
                journal.write(journal.dump(long), 2e9)
            assert path.stat().st_size < 4000
            assert journal.read() == Contents(head=HEAD, ids=IDS, records={"a": record("a", doubts=1)}, written=NOW)
            journal.write(journal.dump([record("a", doubts=2)]), NOW)

    with closing(Journal.open(path)) as journal:
        assert journal.read() == Contents(head=HEAD, ids=IDS, records={"a": record("a", doubts=2)}, written=NOW)
        journal.write(journal.dump(long), NOW)
    assert set(read_journal(path)[0].records) == set(IDS)


@pytest.mark.parametrize("call", ["fsync", "mark"])
@pytest.mark.parametrize("is_cut_back", [True, False])
def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, *, is_cut_back: bool) -> None:
    """A commit that could not be synced, or marked, is not there, or is written over by the next one."""
    path = tmp_path / "journal"
    pwrite = os.pwrite

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(Journal.open(path)) as journal:
        journal.begin(HEAD, IDS)
        with monkeypatch.context() as patch:
            if call == "fsync":
                patch.setattr(os, "fsync", fail)
            else:
                patch.setattr(os, "pwrite", lambda fd, data, at: fail() if at < 2048 else pwrite(fd, data, at))
            if not is_cut_back:
                patch.setattr(os, "ftruncate", fail)
            with pytest.raises(JournalError, match=r"cannot be used: Input/output error; mend that"):
                journal.write(journal.dump([record("a", doubts=1, words="x" * 1000)]), NOW)
        for doubts in (2, 3):
            journal.write(journal.dump([record("b", doubts=doubts)]), NOW)
            records = {"b": record("b", doubts=doubts)}
            assert journal.read() == Contents(head=HEAD, ids=IDS, records=records, written=NOW)

    assert read_contents(path) == Contents(head=HEAD, ids=IDS, records=records, written=NOW)
    with closing(Journal.open(path)) as journal:
        journal.write(journal.dump([record("c")]), NOW)
    assert set(read_journal(path)[0].records) == {"b", "c"}


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


def test_many_attempts_are_written_once(tmp_path: Path) -> None:
    """A server that is sent to for hours takes bytes in proportion to its sends, and all of them are read again."""
    path = tmp_path / "journal"
    sizes: list[int] = []

    def known(count: int, end: End | None = None) -> Record:
        attempts = tuple(Attempt(float(number), "429 overLimit", f"req-{number}") for number in range(count))
        return replace(record(end=end), attempts=attempts)

    with closing(Journal.open(path)) as journal:
        journal.begin(HEAD, IDS)
        for count in range(200):
            before = path.stat().st_size
            if count % 7 == 3:
                # A commit that fails is not counted on.
                with pytest.MonkeyPatch.context() as patch:
                    fill_disk(patch, room=before + 100)
                    with pytest.raises(JournalError, match="No space left"):
                        journal.write(journal.dump([known(count)]), NOW)
            journal.write(journal.dump([known(count)]), NOW)
            sizes.append(path.stat().st_size - before)
            contents = journal.read()
            assert contents is not None
            assert contents.records == {"a": known(count)}
    assert max(sizes[10:]) < 2 * sizes[1] + 300
    end = End(outcome=Outcome.REFUSED, reason=Reason.BUSY)
    with closing(Journal.open(path)) as journal:
        for last in (known(201), known(202), known(203, end)):
            journal.write(journal.dump([last]), NOW)
            assert read_journal(path)[0].records == {"a": last}


# What is none of ours.


def other_database(path: Path) -> None:
    """Make a database of another program."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE letters (text TEXT)")
        connection.execute("PRAGMA application_id = 7")


def version_1(path: Path) -> None:
    """Make a journal as the first version kept it, in SQLite."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE run (only INTEGER PRIMARY KEY, head TEXT NOT NULL)")
        connection.execute(f"PRAGMA application_id = {0x626C6B72}")
        connection.execute("PRAGMA user_version = 1")


def text_file(path: Path) -> None:
    """Make a file of ids, as may be given in the journal's place by mistake."""
    path.write_text("616fb98f-46ca-475e-917e-2563e5a8cd19\n" * 100)


def newer(path: Path) -> None:
    """Make a journal of a version that is yet to come."""
    path.write_bytes(begun(path).read_bytes().replace(b"bulkrestart journal 2", b"bulkrestart journal 3", 1))


NOT_OURS: list[tuple[Callable[[Path], None], str]] = [
    (other_database, "it is not a journal of bulkrestart, or its first line is damaged"),
    (text_file, "it is not a journal of bulkrestart, or its first line is damaged"),
    (version_1, "it is of version 1, and this is bulkrestart for version 2"),
    (newer, "it is of version 3, and this is bulkrestart for version 2"),
]


@pytest.mark.parametrize(("make", "words"), NOT_OURS, ids=[make.__name__ for make, _ in NOT_OURS])
def test_a_file_that_is_none_of_ours(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """A file that is no journal is refused in one line that says why, is left as it was, and is not held."""
    path = tmp_path / "journal"
    make(path)
    path.chmod(0o600)
    before = path.read_bytes()
    remedy = "give another file, and --since if it was a journal"

    for open_ in (Journal.open, read_journal, read_contents, Journal.open):
        with pytest.raises(JournalError, match=rf"^the journal {path} cannot be used: {words}; {remedy}$"):
            open_(path)

    assert path.read_bytes() == before


def folder(path: Path) -> None:
    """Make a folder."""
    path.mkdir()


def dangling(path: Path) -> None:
    """Make a link to a folder that is not there."""
    path.symlink_to(path.parent / "nowhere" / "journal")


@pytest.mark.parametrize(
    ("make", "words"),
    [(folder, "it is not a file"), (os.mkfifo, "it is not a file")],
    ids=["folder", "FIFO"],
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """A folder and a FIFO are refused at once: nothing waits for a writer."""
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


def test_a_file_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the system does not let us open is refused in its words, and is not held."""
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


def test_a_file_that_another_process_makes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was not there, and is when it is to be made, is opened as any other."""
    path, really = tmp_path / "journal", os.open
    calls: list[int] = []

    def late(file: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not calls:
            calls.append(flags)
            begun(path)
        return really(file, flags, mode)

    monkeypatch.setattr(os, "open", late)
    with closing(Journal.open(path)) as journal:
        contents = journal.read()

    assert contents is not None
    assert contents.ids == IDS


def test_a_file_system_that_cannot_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a folder cannot be synced a journal is kept all the same."""
    really = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)

    assert read_journal(begun(tmp_path / "journal"))[0].ids == IDS


# Lines that another program wrote, with good digests.


HEAD_LINE = dump_head(HEAD)
RECORD_LINE = b'server a {"reboot_type":"SOFT","began":0.5}'


def changed(line: bytes, old: str, new: str) -> bytes:
    """Change a line."""
    assert old.encode() in line
    return line.replace(old.encode(), new.encode(), 1)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"word {}",
        b"server",
        b"\xff",
        b"head no JSON",
        b"head []",
        b"head {}",
        changed(HEAD_LINE, '"purpose"', '"aim"'),
        changed(HEAD_LINE, "SOFT", "WARM"),
        changed(HEAD_LINE, '"shift":null', '"shift":[1]'),
        changed(HEAD_LINE, '"shift":null', '"shift":1'),
        changed(HEAD_LINE, '"began":1800000000.25', '"began":1e300'),
        b"server a",
        b"server a 1",
        b"server a {}",
        b"server \xff {}",
        b"server a " + b"[" * 100_000,
        changed(RECORD_LINE, " a ", " d "),
        changed(RECORD_LINE, " a ", " "),
        changed(RECORD_LINE, "}", ',"server_id":"a"}'),
        changed(RECORD_LINE, "}", ',"more":1}'),
        changed(RECORD_LINE, "SOFT", "WARM"),
        changed(RECORD_LINE, '"SOFT"', "null"),
        changed(RECORD_LINE, "}", ',"attempts":1}'),
        changed(RECORD_LINE, "}", ',"attempts":[{"at":1}]}'),
        changed(RECORD_LINE, "}", ',"known_attempts":1}'),
        changed(RECORD_LINE, " a ", " b ").replace(b"}", b',"known_attempts":1}'),
        changed(RECORD_LINE, "}", ',"end":{"outcome":"rebooted","reason":null,"detail":"","proof":null}}'),
        changed(RECORD_LINE, "}", ',"end":{"outcome":"refused","reason":"why not","detail":"","proof":null}}'),
        changed(RECORD_LINE, "}", ',"end":{"outcome":"completed","reason":null,"detail":"","proof":"faith"}}'),
        changed(RECORD_LINE, "}", ',"proof":"faith"}'),
        changed(RECORD_LINE, "}", ',"since":[1]}'),
        changed(RECORD_LINE, "0.5", "Infinity"),
        changed(RECORD_LINE, "}", ',"elapsed":"long"}'),
        b"time yesterday",
        b"time 1e300",
        b'fleet ["a"]',
        b'fleet ["../../x"]',
        b"fleet [7]",
        b"fleet 7",
    ],
)
def test_lines_that_make_no_sense(tmp_path: Path, line: bytes) -> None:
    """A journal whose lines make no sense is refused in one line that names the remedy; it is not held afterwards."""
    path = begun(tmp_path / "journal", record())
    append(path, line)
    words = (
        rf"^the journal {path} is damaged \(.*\): give another file, and --since with the time at which its run began"
    )

    for _ in range(2):
        with closing(Journal.open(path)) as journal, pytest.raises(JournalError, match=words):
            journal.read()
        for read in (read_journal, read_contents):
            with pytest.raises(JournalError, match=words):
                read(path)


@pytest.mark.parametrize("lines", [[b'fleet ["a"]'], [RECORD_LINE], [b"time 1.5"]])
def test_a_run_without_a_head(tmp_path: Path, lines: list[bytes]) -> None:
    """A journal that does not say what its run is for is refused."""
    path = tmp_path / "journal"
    with held_elsewhere(path):
        pass
    append(path, *lines)

    with pytest.raises(JournalError, match=r"is damaged \(it has no head\): give another file, and --since"):
        read_contents(path)
