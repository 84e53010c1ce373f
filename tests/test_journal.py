"""The journal on a real disk: what was written is read, nobody else writes it, and what goes wrong is one line."""

import errno
import fcntl
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkrestart import JournalError, RebootType
from bulkrestart.core.checkpoint import Checkpoint, Contents, JournalHeader, LogFacts, RunIdentity
from bulkrestart.core.decision import Accept, End
from bulkrestart.core.model import Attempt, Outcome, Proof, Reason, Stop, StopReason
from bulkrestart.core.progress import FailedSoft, Progress
from bulkrestart.core.target import Target
from bulkrestart.journal import Journal, read_contents, read_journal
from bulkrestart.journal.codec import UNREADABLE, ContentsReader, dump_checkpoints, dump_fleet, dump_header
from bulkrestart.journal.log import Log
from tests.core.test_checkpoint import ways
from tests.full_disk import fill_disk

IDS = ("a", "b", "c")
TARGET = Target(endpoint="https://cloud.test/v2.1/p", project_id="p")
IDENTITY = RunIdentity(target=TARGET, reboot_type=RebootType.SOFT)
#: When it is written, in seconds since the epoch.
NOW = 1_800_000_040.5
HEADER = JournalHeader(identity=IDENTITY, began=1_800_000_000.25, facts=LogFacts())
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
from tests.test_journal import HEADER, IDS
journal.begin(HEADER, IDS)
"""


def checkpoint(server_id: str = "a", *, doubts: int = 0, words: str = "", end: End | None = None) -> Checkpoint:
    """Give a checkpoint of a server that was come to."""
    return Checkpoint(server_id=server_id, reboot_type=RebootType.SOFT, began=0.5, doubts=doubts, words=words, end=end)


def begun(path: Path, *checkpoints: Checkpoint) -> Path:
    """Make a journal whose run has begun, and which nobody holds."""
    with closing(Journal.open(path)) as journal:
        journal.begin(HEADER, IDS)
        journal.write(journal.dump(checkpoints), NOW)
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
#: Lone surrogates as well, which UTF-8 does not have. JSON makes one character of a pair of them.
TEXTS = st.text(st.characters(), max_size=40).map(
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
PAIRS = st.tuples(FLOATS, FLOATS)
PROOFS = st.none() | st.sampled_from(Proof)
CHECKPOINTS = st.builds(
    Checkpoint,
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
    accepted=st.none() | st.builds(Accept, st.none() | TEXTS, PROOFS),
    failed_soft=st.none() | st.builds(FailedSoft, request_id=TEXTS, words=TEXTS),
    elapsed=FLOATS,
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
HEADERS = st.builds(
    JournalHeader,
    identity=st.builds(
        RunIdentity,
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
@given(header=HEADERS, first=CHECKPOINTS, last=CHECKPOINTS)
def test_what_is_read_is_what_was_written(header: JournalHeader, first: Checkpoint, last: Checkpoint) -> None:
    """Each field of a header and of a checkpoint comes back as it was; the newest checkpoint of a server counts."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "run.journal")
        with closing(Journal.open(path)) as journal:
            journal.begin(HEADER, IDS)
            journal.write(journal.dump([first]), NOW)
            journal.write_header(header)
            journal.write(journal.dump([last]), NOW + 1)
            assert journal.read() == Contents(header=header, ids=IDS, checkpoints={"a": last}, written=NOW + 1)
        with closing(Journal.open(path)) as journal:
            assert journal.read() == Contents(header=header, ids=IDS, checkpoints={"a": last}, written=NOW + 1)
        assert read_journal(path) == (Contents(header=header, ids=IDS, checkpoints={"a": last}, written=NOW + 1), None)


def test_the_order_of_the_fleet(tmp_path: Path) -> None:
    """The ids come back in the order in which they were given, whatever was written first."""
    ids = [f"{(number * 7919) % 1000:03}" for number in range(1000)]
    with closing(Journal.open(tmp_path / "journal")) as journal:
        journal.begin(HEADER, ids)
        journal.write(journal.dump([checkpoint(ids[900]), checkpoint(ids[3])]), NOW)
        contents = journal.read()

    assert contents is not None
    assert contents.ids == tuple(ids)
    assert set(contents.checkpoints) == {ids[3], ids[900]}


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
        journal.begin(HEADER, IDS)
        journal.write(journal.dump([checkpoint()]), NOW)
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
            journal.begin(HEADER, IDS)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o600


def test_relative_paths_stay_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its folder meanwhile goes on writing the same file."""
    monkeypatch.chdir(tmp_path)
    with closing(Journal.open("journal")) as journal:
        monkeypatch.chdir("/")
        journal.begin(HEADER, IDS)
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
            Contents(header=HEADER, ids=IDS, checkpoints={}, written=HEADER.began),
            f"process {holder.pid}",
        )

    assert read_journal(path) == (Contents(header=HEADER, ids=IDS, checkpoints={}, written=HEADER.began), None)
    with closing(Journal.open(path)) as journal:
        assert journal.read() == Contents(header=HEADER, ids=IDS, checkpoints={}, written=HEADER.began)
        journal.write(journal.dump([checkpoint()]), NOW)


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
        journal.begin(HEADER, IDS)
        journal.write(journal.dump([checkpoint()]), NOW)
        deed(tmp_path / "journal")
        words = (
            r" was moved, replaced, cut or deleted while it was in use: put it back, and the same call goes on, or "
            r"give another file, and --since "
        )
        with pytest.raises(JournalError, match=words):
            journal.write(journal.dump([checkpoint(doubts=1)]), NOW)


def test_a_folder_that_vanishes(tmp_path: Path) -> None:
    """When the folder is moved while the journal is in use the write is refused in one line."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with closing(Journal.open(folder / "journal")) as journal:
        journal.begin(HEADER, IDS)
        folder.rename(tmp_path / "moved")
        with pytest.raises(JournalError, match="was moved, replaced, cut or deleted while it was in use"):
            journal.write(journal.dump([checkpoint()]), NOW)
        folder.touch()
        with pytest.raises(JournalError, match="cannot be used: Not a directory"):
            journal.write(journal.dump([checkpoint()]), NOW)


def test_a_reader_holds_no_writer_up(tmp_path: Path) -> None:
    """A program that keeps the file open, and locks all of it as far as it can, keeps no commit from the disk."""
    path = tmp_path / "journal"
    with closing(Journal.open(path)) as journal:
        journal.begin(HEADER, IDS)
        with path.open("rb") as reader:
            fcntl.flock(reader, fcntl.LOCK_SH)
            fcntl.lockf(reader, fcntl.LOCK_SH, path.stat().st_size)
            journal.write(journal.dump([checkpoint("a"), checkpoint("b")]), NOW)
        assert read_journal(path) == (
            Contents(header=HEADER, ids=IDS, checkpoints={"a": checkpoint("a"), "b": checkpoint("b")}, written=NOW),
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
        seen.append(sum(checkpoint.doubts for checkpoint in contents.checkpoints.values()))

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
        journal.begin(HEADER, IDS)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", write_in_halves)
            patch.setattr(os, "fsync", sync)
            for number in range(1, 4):
                journal.write(journal.dump([checkpoint("a", doubts=number), checkpoint("b", doubts=number)]), NOW)
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
                journal.begin(HEADER, [f"{number:036}" for number in range(10_000)])
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
    long = [checkpoint("a"), checkpoint("b", words="x" * 100_000), checkpoint("c")]
    with monkeypatch.context() as patch:
        fill_disk(patch, room=50_000)
        with closing(Journal.open(path)) as journal:
            journal.begin(HEADER, IDS)
            journal.write(journal.dump([checkpoint("a", doubts=1)]), NOW)
            with pytest.raises(JournalError, match=r"No space left on device; mend that, and the same call goes on$"):
                journal.write(journal.dump(long), 2e9)
            assert path.stat().st_size < 4000
            assert journal.read() == Contents(
                header=HEADER, ids=IDS, checkpoints={"a": checkpoint("a", doubts=1)}, written=NOW
            )
            journal.write(journal.dump([checkpoint("a", doubts=2)]), NOW)

    with closing(Journal.open(path)) as journal:
        assert journal.read() == Contents(
            header=HEADER, ids=IDS, checkpoints={"a": checkpoint("a", doubts=2)}, written=NOW
        )
        journal.write(journal.dump(long), NOW)
    assert set(read_journal(path)[0].checkpoints) == set(IDS)


@pytest.mark.parametrize("call", ["fsync", "mark"])
@pytest.mark.parametrize("is_cut_back", [True, False])
def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, *, is_cut_back: bool) -> None:
    """A commit that could not be synced, or marked, is not there, or is written over by the next one."""
    path = tmp_path / "journal"
    pwrite = os.pwrite

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(Journal.open(path)) as journal:
        journal.begin(HEADER, IDS)
        with monkeypatch.context() as patch:
            if call == "fsync":
                patch.setattr(os, "fsync", fail)
            else:
                patch.setattr(os, "pwrite", lambda fd, data, at: fail() if at < 2048 else pwrite(fd, data, at))
            if not is_cut_back:
                patch.setattr(os, "ftruncate", fail)
            with pytest.raises(JournalError, match=r"cannot be used: Input/output error; mend that"):
                journal.write(journal.dump([checkpoint("a", doubts=1, words="x" * 1000)]), NOW)
        for doubts in (2, 3):
            journal.write(journal.dump([checkpoint("b", doubts=doubts)]), NOW)
            checkpoints = {"b": checkpoint("b", doubts=doubts)}
            assert journal.read() == Contents(header=HEADER, ids=IDS, checkpoints=checkpoints, written=NOW)

    assert read_contents(path) == Contents(header=HEADER, ids=IDS, checkpoints=checkpoints, written=NOW)
    with closing(Journal.open(path)) as journal:
        journal.write(journal.dump([checkpoint("c")]), NOW)
    assert set(read_journal(path)[0].checkpoints) == {"b", "c"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_write_that_breaks_off(tmp_path: Path, error: type[BaseException]) -> None:
    """Whatever breaks a write off, nothing of it is there, and the next one goes through."""

    def broken(ids: tuple[str, ...]) -> Iterator[str]:
        yield from ids
        raise error

    with closing(Journal.open(tmp_path / "journal")) as journal:
        with pytest.raises(error):
            journal.begin(HEADER, broken(IDS))
        assert journal.read() is None
        journal.begin(HEADER, IDS)
        assert journal.read() == Contents(header=HEADER, ids=IDS, checkpoints={}, written=HEADER.began)


def test_many_attempts_are_written_once(tmp_path: Path) -> None:
    """A server that is sent to for hours takes bytes in proportion to its sends, and all of them are read again."""
    path = tmp_path / "journal"
    sizes: list[int] = []

    def known(count: int, end: End | None = None) -> Checkpoint:
        attempts = tuple(Attempt(float(number), "429 overLimit", f"req-{number}") for number in range(count))
        return replace(checkpoint(end=end), attempts=attempts)

    with closing(Journal.open(path)) as journal:
        journal.begin(HEADER, IDS)
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
            assert contents.checkpoints == {"a": known(count)}
    assert max(sizes[10:]) < 2 * sizes[1] + 300
    end = End(outcome=Outcome.REFUSED, reason=Reason.BUSY)
    with closing(Journal.open(path)) as journal:
        # After an outcome, which holds all attempts, those of the line before the outcome are still counted on.
        for last in (known(201), known(202), known(203, end), known(204), known(205)):
            journal.write(journal.dump([last]), NOW)
            assert read_journal(path)[0].checkpoints == {"a": last}


# What is none of ours.


def other_database(path: Path) -> None:
    """Make a database of another program."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE letters (text TEXT)")
        connection.execute("PRAGMA application_id = 7")


def version_1(path: Path) -> None:
    """Make a journal of format 1, which was a database of SQLite."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE run (only INTEGER PRIMARY KEY, head TEXT NOT NULL)")
        connection.execute(f"PRAGMA application_id = {0x626C6B72}")
        connection.execute("PRAGMA user_version = 1")


def text_file(path: Path) -> None:
    """Make a file of ids, as may be given in the journal's place by mistake."""
    path.write_text("616fb98f-46ca-475e-917e-2563e5a8cd19\n" * 100)


def version_2(path: Path) -> None:
    """Make a journal of format 2."""
    path.write_bytes(begun(path).read_bytes().replace(b"bulkrestart journal 3", b"bulkrestart journal 2", 1))


def newer(path: Path) -> None:
    """Make a journal of a format that is yet to come."""
    path.write_bytes(begun(path).read_bytes().replace(b"bulkrestart journal 3", b"bulkrestart journal 4", 1))


FOREIGN = (
    "it is not a journal of bulkrestart, or its first line is damaged; give another file, and --since if it was a "
    "journal"
)


def of_format(number: int, age: str) -> str:
    """Return the refusal of a journal of another format."""
    return (
        rf"{age} bulkrestart wrote it \(journal format {number}\), and this one reads format 3; finish its run with "
        rf"{age} bulkrestart, or give another file, and --since with the time at which its run began"
    )


NOT_OURS: list[tuple[Callable[[Path], None], str]] = [
    (other_database, FOREIGN),
    (text_file, FOREIGN),
    (version_1, of_format(1, "an older")),
    (version_2, of_format(2, "an older")),
    (newer, of_format(4, "a newer")),
]


@pytest.mark.parametrize(("make", "words"), NOT_OURS, ids=[make.__name__ for make, _ in NOT_OURS])
def test_a_file_that_is_none_of_ours(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """A file that is no journal is refused in one line that says why, is left as it was, and is not held."""
    path = tmp_path / "journal"
    make(path)
    path.chmod(0o600)
    before = path.read_bytes()

    for open_ in (Journal.open, read_journal, read_contents, Journal.open):
        with pytest.raises(JournalError, match=rf"^the journal {path} cannot be used: {words}$"):
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


HEADER_LINE = dump_header(HEADER)
CHECKPOINT_LINE = b'server 0 {"server_id":"a","reboot_type":"SOFT","began":0.5}'
(END_LINE,) = dump_checkpoints([checkpoint(end=End(outcome=Outcome.COMPLETED))], {}).lines


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
        b"header no JSON",
        b"header []",
        b"header {}",
        changed(HEADER_LINE, '"identity"', '"aim"'),
        changed(HEADER_LINE, "SOFT", "WARM"),
        changed(HEADER_LINE, '"shift":null', '"shift":[1]'),
        changed(HEADER_LINE, '"shift":null', '"shift":1'),
        changed(HEADER_LINE, '"shift":null', '"shift":[null,null]'),
        changed(HEADER_LINE, '"is_proven":false', '"is_proven":"no"'),
        changed(HEADER_LINE, '"is_proven":false', '"is_proven":false,"more":1'),
        changed(HEADER_LINE, '"region":""', '"region":"","more":1'),
        changed(HEADER_LINE, ',"region":""', ""),
        changed(HEADER_LINE, '"began":1800000000.25', '"began":1e300'),
        b"server 0",
        b"server 0 1",
        b"server 0 {}",
        b'server 0 {"server_id":"\xff"}',
        b'server 0 {"server_id":"a"}',
        b'server 0 {"server_id":"a",' + b"[" * 100_000,
        b"server 0 " + b'{"server_id":"a","words":' * 100_000,
        b"server 0 []",
        b'server 0 ["server_id","a","b"]',
        changed(CHECKPOINT_LINE, '"a"', '"d"'),
        changed(CHECKPOINT_LINE, '"a"', '""'),
        changed(CHECKPOINT_LINE, "}", ',"began":0.5}'),
        changed(CHECKPOINT_LINE, '"reboot_type":"SOFT","began":0.5', '"began":0.5,"reboot_type":"SOFT"'),
        changed(CHECKPOINT_LINE, "}", ',"server_id":"b"}'),
        changed(CHECKPOINT_LINE, "}", ',"more":1}'),
        changed(CHECKPOINT_LINE, "SOFT", "WARM"),
        changed(CHECKPOINT_LINE, '"SOFT"', "null"),
        changed(CHECKPOINT_LINE, "}", ',"attempts":1}'),
        changed(CHECKPOINT_LINE, "}", ',"attempts":[{"at":1}]}'),
        changed(CHECKPOINT_LINE, " 0 ", " 1 "),
        changed(CHECKPOINT_LINE, " 0 ", " -1 "),
        changed(CHECKPOINT_LINE, " 0 ", " 00 "),
        changed(CHECKPOINT_LINE, " 0 ", " "),
        changed(CHECKPOINT_LINE, '0 {"server_id":"a"', '1 {"server_id":"b"'),
        changed(CHECKPOINT_LINE, "}", ',"doubts":0}'),
        changed(CHECKPOINT_LINE, "}", ',"doubts":1.0}'),
        changed(CHECKPOINT_LINE, "}", ',"words":"\\ud800","elapsed":NaN}'),
        changed(CHECKPOINT_LINE, "}", ',"words":"\\ud800","elapsed":1e999}'),
        changed(CHECKPOINT_LINE, "}", ',"accepted":{"request_id":null,"proof":null,"more":1}}'),
        changed(CHECKPOINT_LINE, "}", ',"end":{"outcome":"completed","reason":null,"detail":"","proof":null}}'),
        changed(END_LINE, '"stop":null', '"stop":null,"more":1'),
        changed(END_LINE, '"completed"', '"rebooted"'),
        changed(END_LINE, '"reason":null', '"reason":"why not"'),
        changed(END_LINE, '"proof":null', '"proof":"faith"'),
        changed(
            CHECKPOINT_LINE, "}", ',"end":{"outcome":"rebooted","reason":null,"detail":"","proof":null,"stop":null}}'
        ),
        changed(
            CHECKPOINT_LINE,
            "}",
            ',"end":{"outcome":"refused","reason":"why not","detail":"","proof":null,"stop":null}}',
        ),
        changed(
            CHECKPOINT_LINE,
            "}",
            ',"end":{"outcome":"completed","reason":null,"detail":"","proof":"faith","stop":null}}',
        ),
        changed(CHECKPOINT_LINE, "}", ',"accepted":{"request_id":null,"proof":"faith"}}'),
        changed(CHECKPOINT_LINE, "}", ',"since":[1]}'),
        changed(CHECKPOINT_LINE, "0.5", "Infinity"),
        changed(CHECKPOINT_LINE, "}", ',"elapsed":"long"}'),
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
    path = begun(tmp_path / "journal", checkpoint())
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


def test_a_line_that_a_newer_one_replaces(tmp_path: Path) -> None:
    """A line that makes no sense is refused, also if a newer checkpoint of its server follows."""
    path = begun(tmp_path / "journal", checkpoint())
    append(path, changed(CHECKPOINT_LINE, "}", ',"has_reached":"no"}'), CHECKPOINT_LINE)

    with pytest.raises(JournalError, match=r"is damaged \(entry 5: Expected `bool`, got `str` - at "):
        read_contents(path)


@pytest.mark.parametrize("lines", [[b'fleet ["a"]'], [CHECKPOINT_LINE], [b"time 1.5"]])
def test_a_run_without_a_header(tmp_path: Path, lines: list[bytes]) -> None:
    """A journal that does not say what its run is for is refused."""
    path = tmp_path / "journal"
    with held_elsewhere(path):
        pass
    append(path, *lines)

    with pytest.raises(JournalError, match=r"is damaged \(it has no header\): give another file, and --since"):
        read_contents(path)


#: A checkpoint and a header without any default value.
FULL: Final = Checkpoint(
    server_id="a",
    reboot_type=RebootType.HARD,
    began=0.5,
    attempts=(Attempt(0.25, "409 conflictingRequest", "req-1"), Attempt(1.5, "202", "req-2")),
    sent_at=2.5,
    is_unresolved=True,
    doubts=2,
    last_status=409,
    has_reached=True,
    since=(1.5, 2.5),
    may_come_late=True,
    was_seen_rebooting=True,
    words="words",
    accepted=Accept("req-2", Proof.STATE),
    failed_soft=FailedSoft(request_id="req-1", words="it failed"),
    elapsed=9.5,
    end=End(
        outcome=Outcome.IN_DOUBT,
        reason=Reason.UNANSWERED,
        detail="detail",
        proof=Proof.ACTION,
        stop=Stop(StopReason.OUTAGE, "no answer"),
    ),
)
FULL_HEADER: Final = JournalHeader(
    identity=RunIdentity(
        target=Target(endpoint="e", project_id="p", project_name="n", cloud="c", region="r"),
        reboot_type=RebootType.HARD,
        since=1.5,
    ),
    began=2.5,
    facts=LogFacts(is_proven=True, user_id="me", shift=(0.5, 1.5)),
)
#: The fields of `FULL` and `FULL_HEADER` that may be null, by the end of their path.
OPTIONAL: Final = {
    *("sent_at", "last_status", "since", "accepted", "failed_soft", "end", "request_id", "reason", "proof", "stop"),
    *("user_id", "shift"),
}
#: One value of each kind of JSON.
KINDS: Final = {bool: True, float: 0.75, str: "no", list: [], dict: {}, type(None): None}
WRITTEN: Final = {
    "server 0 ": dump_checkpoints([FULL], {}).lines[0],
    "header ": dump_header(FULL_HEADER),
}


def reread(line: bytes) -> bytes:
    """Read a line beside those that a journal needs, and return it as it is written again."""
    reader = ContentsReader()
    for one in (*dump_fleet(["a"]), dump_header(FULL_HEADER), line):
        reader.read(one)
    contents = reader.contents()
    if line.startswith(b"header"):
        return dump_header(contents.header)
    return dump_checkpoints(contents.checkpoints.values(), {}).lines[0]


def is_refused(line: bytes) -> bool:
    """Return whether a line is refused, in words that make one line; if it is not, hold that all of it was read."""
    try:
        again = reread(line)
    except UNREADABLE as error:
        words = str(error)
        assert words.isprintable()
        return True
    # All the same, "-0" is a number of attempts.
    (start, rest), (start_again, rest_again) = (one.replace(b" -0 ", b" 0 ").split(b" {", 1) for one in (line, again))
    assert (start, json.loads(b"{" + rest)) == (start_again, json.loads(b"{" + rest_again))
    return False


def paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Give the path of each part of a JSON value, and of the value itself."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(part, (*path, key))


def part_of(value: Any, path: Iterable[str | int]) -> Any:
    """Return a part of a JSON value."""
    return reduce(lambda part, key: part[key], path, value)


@pytest.mark.parametrize("prefix", WRITTEN)
def test_nothing_is_left_out_of_what_is_damaged(prefix: str) -> None:
    """The samples below have each field, so that each is damaged."""
    values = json.loads(WRITTEN[prefix].removeprefix(prefix.encode()))
    kind = Checkpoint if prefix.startswith("server") else JournalHeader
    assert set(values) == {field.name for field in fields(kind)}
    assert not is_refused(WRITTEN[prefix])
    assert reread(WRITTEN[prefix]) == WRITTEN[prefix]


@pytest.mark.parametrize("prefix", WRITTEN)
def test_a_value_of_another_type(prefix: str) -> None:
    """At each place of a line, a value of another type is refused."""
    text = WRITTEN[prefix].removeprefix(prefix.encode())
    taken: list[tuple[object, ...]] = []
    for path in paths(json.loads(text)):
        for kind, wrong in KINDS.items():
            values = json.loads(text)
            part = part_of(values, path)
            is_number = kind is float and type(part) in (int, float)
            if (
                type(part) is kind
                or (is_number and type(part) is float)
                or (wrong is None and path[-1:] and path[-1] in OPTIONAL)
            ):
                continue
            if path:
                part_of(values, path[:-1])[path[-1]] = wrong
            else:
                values = wrong
            if not is_refused(prefix.encode() + json.dumps(values, separators=(",", ":")).encode()):
                taken.append((*path, wrong))
    assert taken == []


@pytest.mark.parametrize("prefix", WRITTEN)
def test_an_unknown_field(prefix: str) -> None:
    """In each object of a line, a field that this version does not write is refused."""
    text = WRITTEN[prefix].removeprefix(prefix.encode())
    found = 0
    for path in paths(json.loads(text)):
        values = json.loads(text)
        if isinstance(part := part_of(values, path), dict):
            found += 1
            for name in ("more", "", "identity", "END"):
                part[name] = 1
                assert is_refused(prefix.encode() + json.dumps(values, separators=(",", ":")).encode()), (path, name)
                del part[name]
    assert found > 2


@pytest.mark.parametrize("prefix", WRITTEN)
def test_a_missing_field(prefix: str) -> None:
    """A field that is always written is missed; a checkpoint leaves out only fields of its own with default values."""
    text = WRITTEN[prefix].removeprefix(prefix.encode())
    missed = set[tuple[str | int, ...]]()
    everywhere = [path for path in paths(json.loads(text)) if path and isinstance(path[-1], str)]
    for path in everywhere:
        values = json.loads(text)
        del part_of(values, path[:-1])[path[-1]]
        if is_refused(prefix.encode() + json.dumps(values, separators=(",", ":")).encode()):
            missed.add(path)
    always = {("server_id",), ("reboot_type",), ("began",)} if prefix.startswith("server") else set(everywhere)
    assert missed == {path for path in everywhere if len(path) > 1 or path in always}


@settings(deadline=None, max_examples=300)
@given(data=st.data(), prefix=st.sampled_from(sorted(WRITTEN)))
def test_bytes_that_are_changed(data: st.DataObject, prefix: str) -> None:
    """Bytes of a line that are flipped, lost or put in are refused, or are all read: none is ignored."""
    line = bytearray(WRITTEN[prefix])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(line) - 1))
        match data.draw(st.sampled_from(("flip", "cut", "put", "end"))):
            case "flip":
                line[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del line[at : at + data.draw(st.integers(1, 30))]
            case "put":
                line[at:at] = data.draw(st.binary(min_size=1, max_size=4) | st.sampled_from((b'"', b"{}", b",", b"0")))
            case _:
                del line[at:]
        if not line:
            return
    is_refused(bytes(line).replace(b"\n", b" "))


@settings(deadline=None)
@given(way=ways())
def test_any_state_of_a_server_is_read_as_it_was_written(way: tuple[Progress, End | None]) -> None:
    """However far a run has come with a server, its checkpoint is read exactly, with the types that it had."""
    progress, end = way
    server_id = progress.server_id
    written = Checkpoint.of(progress, 5000.0, end)
    reader = ContentsReader()
    for line in (*dump_fleet([server_id]), dump_header(HEADER), *dump_checkpoints([written], {}).lines):
        reader.read(line)

    read = reader.contents().checkpoints[server_id]

    assert read == written
    assert repr(read) == repr(written)


@pytest.mark.parametrize("odd", ["\ud800", "a\udfffb", "\udc80\ud83d", "\x00\x1b[31m\u202e\U0001f600 \ud800"])
def test_lone_surrogates(odd: str) -> None:
    """Text that no UTF-8 holds is read exactly: a reboot by a user with another id is not ours."""
    header = replace(HEADER, facts=LogFacts(is_proven=True, user_id=odd))
    written = checkpoint(words=odd, end=End(outcome=Outcome.REFUSED, detail=odd))
    lines = (*dump_fleet(IDS), dump_header(header), *dump_checkpoints([written], {}).lines)
    reader = ContentsReader()
    for line in lines:
        assert b"\n" not in line
        reader.read(line)

    assert (reader.contents().header, reader.contents().checkpoints) == (header, {"a": written})


@pytest.mark.parametrize("began", [0, 1, 1_800_000_000, -7])
def test_an_integer_where_a_float_is_expected(began: int) -> None:
    """A clock that counts whole seconds makes a journal that can be read."""
    reader = ContentsReader()
    written = checkpoint() if began < 0 else replace(checkpoint(), began=began, sent_at=began, since=(began, began))
    for line in (*dump_fleet(IDS), dump_header(replace(HEADER, began=began)), *dump_checkpoints([written], {}).lines):
        reader.read(line)

    assert reader.contents().header == replace(HEADER, began=began)
    assert reader.contents().checkpoints == {"a": written}


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("field", ["began", "sent_at", "since", "elapsed"])
def test_a_number_that_is_not_finite(field: str, number: float) -> None:
    """JSON has no such number. What is written in its place is refused, and never read as a missing value."""
    values: dict[str, Any] = {field: (number, number) if field == "since" else number}
    written = replace(checkpoint(), **values)

    with pytest.raises(UNREADABLE):
        reread(dump_checkpoints([written], {}).lines[0])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"word {}", r"entry 5: it begins with 'word'"),
        (b"header {}", r"entry 5: Object missing required field `identity`"),
        (
            b'server 0 {"server_id":"a","began":0.5}',
            r"entry 5: Object missing required field `reboot_type`",
        ),
        (
            b'server 0 {"server_id":"a","reboot_type":"SOFT","began":0.5,"has_reached":"no"}',
            r"entry 5: Expected `bool`, got `str` - at `\$\.has_reached`",
        ),
        (
            b'server 0 {"server_id":"b","reboot_type":"SOFT","began":0.5,"is_accepted":true}',
            r"entry 5: it has a field that this version does not write",
        ),
        (
            b'server 2 {"server_id":"c","reboot_type":"SOFT","began":0.5}',
            r"entry 5: it lacks attempts that no line before it holds",
        ),
        (b'server 0 {"server_id":"d","reboot_type":"SOFT","began":0.5}', r"its fleet and its checkpoints do not match"),
    ],
)
def test_a_refusal_names_the_place_and_the_remedy(tmp_path: Path, line: bytes, words: str) -> None:
    """A refusal names the file, the entry or the server, what is wrong, and the remedy."""
    path = begun(tmp_path / "journal", checkpoint())
    append(path, line)

    with pytest.raises(
        JournalError, match=rf"^the journal {path} is damaged \({words}\): give another file, and --since with the time"
    ):
        read_contents(path)
