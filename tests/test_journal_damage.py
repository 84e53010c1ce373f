"""A journal that is not what was written is read exactly all the same, or refused with the remedy."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Final

import pytest

from bulkrestart import JournalError, RebootType
from bulkrestart.core.checkpoint import Contents
from bulkrestart.journal import Journal, read_contents, read_journal
from bulkrestart.simulator import LoopbackCloud
from tests.kills import FAULTS, Kill, LethalCloud, Moment, Program, run_once
from tests.test_journal import HEADER, IDS, NOW, checkpoint

#: Places at which a bit is flipped, and lengths to which a file is cut.
PLACES: Final = 200


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Restart a fleet of a cloud that fails, and kill the process in its midst; give the journal that it left."""
    folder = tmp_path_factory.mktemp("killed")
    cloud = LethalCloud(60, latency=0.02, faults=FAULTS, legacy_host=True)
    with LoopbackCloud(cloud) as served:
        program = Program(
            endpoint=served.endpoint, token=cloud.token, ids=cloud.ids, reboot_type=RebootType.SOFT, folder=folder
        )
        assert run_once(cloud, program, Kill(Moment.ANSWERED, 25)).is_killed
    contents = read_contents(program.journal)
    assert contents is not None
    # A send that came was on the disk before, and some are under way.
    assert set(cloud.posts) <= set(contents.checkpoints)
    assert any(known.sent_at is not None for known in contents.checkpoints.values())
    assert sorted(file.name for file in folder.iterdir()) == ["ids", "journal"]
    return program.journal


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Make a small journal of a few commits."""
    path = tmp_path / "small"
    with closing(Journal.open(path)) as journal:
        journal.begin(HEADER, IDS)
        journal.write(journal.dump([checkpoint("a"), checkpoint("b")]), NOW)
        journal.write(journal.dump([checkpoint("a", doubts=1)]), NOW + 1)
    return path


def held_to(path: Path, *truths: Contents | None, ways: int = 3) -> bool:
    """Hold that a journal tells one of the truths, or is refused with the remedy, by so many ways in; tell which."""
    readers = (read_contents, lambda path: read_journal(path)[0], _open_and_read)
    told = [_tell(read, path) for read in readers[:ways]]
    for one in told:
        if isinstance(one, str):
            assert "give another file, and --since" in one
            assert "\n" not in one
        else:
            assert one in truths
    assert len({isinstance(one, str) for one in told}) == 1
    return not isinstance(told[0], str)


def _tell(read: Callable[[Path], Contents | None], path: Path) -> Contents | str | None:
    try:
        return read(path)
    except JournalError as error:
        return str(error)


def _open_and_read(path: Path) -> Contents | None:
    with closing(Journal.open(path)) as journal:
        return journal.read()


def promised(killed: Path) -> int:
    """Give the size that a journal had when its last commit had returned. Its process may have died in the next one."""
    marks = re.findall(rb"mark [0-9]{12} ([0-9]{15}) ", killed.read_bytes()[:2048])
    assert len(marks) == 2
    return max(map(int, marks))


def truths_of(killed: Path, scratch: Path) -> list[Contents | None]:
    """Give what a journal holds with the commit in which its process died, and without."""
    scratch.touch(0o600)
    scratch.write_bytes(killed.read_bytes()[: promised(killed)])
    return [read_contents(killed), read_contents(scratch)]


def flipped(data: bytes, bit: int) -> bytes:
    """Flip one bit."""
    at, place = divmod(bit, 8)
    return data[:at] + bytes([data[at] ^ 1 << place]) + data[at + 1 :]


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit(killed: Path, tmp_path: Path, seed: int) -> None:
    """One bit that is flipped anywhere is noticed, or is where nothing is said."""
    rng, data, truths = Random(seed), killed.read_bytes(), truths_of(killed, tmp_path / "scratch")
    for number in range(PLACES // 4):
        path = tmp_path / str(number)
        path.touch(0o600)
        path.write_bytes(flipped(data, rng.randrange(8 * len(data))))
        held_to(path, *truths)


def test_a_flipped_bit_in_each_byte(small: Path) -> None:
    """Of a small journal each byte is damaged in turn: in a line it is noticed, in the blocks before it is harmless."""
    rng, data, truth = Random(1), small.read_bytes(), read_contents(small)
    harmless = set[int]()
    for at in range(len(data)):
        small.write_bytes(flipped(data, 8 * at + rng.randrange(8)))
        if held_to(small, truth, ways=3 if at % 16 == 0 else 1):
            harmless.add(at)
    title = len(b"bulkrestart journal 3\nid ") + 32 + 1
    assert harmless == set(range(title, 2048))


@pytest.mark.unmeasured
def test_a_cut_at_any_length(small: Path) -> None:
    """A small journal that is cut anywhere is refused."""
    data, truth = small.read_bytes(), read_contents(small)
    for length in range(len(data)):
        small.write_bytes(data[:length])
        assert not held_to(small, truth, ways=3 if length % 16 == 0 else 1), length


def test_a_cut_of_a_run_that_was_killed(killed: Path, tmp_path: Path) -> None:
    """The journal of a killed run that is cut at a random place is refused; behind its last commit it is whole."""
    rng, data, truths = Random(2), killed.read_bytes(), truths_of(killed, tmp_path / "scratch")
    path = tmp_path / "journal"
    path.touch(0o600)
    for length in [*(rng.randrange(len(data)) for _ in range(PLACES)), len(data)]:
        path.write_bytes(data[:length])
        assert held_to(path, *truths) is (length >= promised(killed))


@pytest.mark.parametrize("seed", range(20))
def test_bytes_that_are_lost_or_repeated(killed: Path, tmp_path: Path, seed: int) -> None:
    """A hole, zeros in place of what was written, a line that is missing, doubled or moved: all are noticed."""
    rng, data = Random(seed), killed.read_bytes()[: promised(killed)]
    start, lines = data[:2048], data[2048:].splitlines(keepends=True)
    at = rng.randrange(2048, len(data) - 1)
    size = rng.randrange(1, min(4096, len(data) - at))
    line = rng.randrange(len(lines) - 1)
    for damaged in (
        data[:at] + data[at + size :],
        data[:at] + bytes(size) + data[at + size :],
        start + b"".join(lines[:line] + lines[line + 1 :]),
        start + b"".join(lines[: line + 1] + lines[line:]),
        start + b"".join([*lines[:line], lines[line + 1], lines[line], *lines[line + 2 :]]),
        bytes(len(data)),
    ):
        path = tmp_path / "journal"
        path.touch(0o600)
        path.write_bytes(damaged)
        assert not held_to(path)


def test_the_start_of_another_moment(small: Path) -> None:
    """With the start of an earlier moment the newest commits are read all the same; that of a later one is refused."""
    early = small.read_bytes()
    with closing(Journal.open(small)) as journal:
        for doubts in (2, 3):
            journal.write(journal.dump([checkpoint("a", doubts=doubts)]), NOW)
    late, truth = small.read_bytes(), read_contents(small)
    small.write_bytes(early[:2048] + late[2048:])
    assert held_to(small, truth)
    small.write_bytes(late[:2048] + early[2048:])
    assert not held_to(small, truth)


def test_lines_of_another_journal(small: Path, tmp_path: Path) -> None:
    """Two journals of the same run share no line: each begins with an id of its own."""
    other = tmp_path / "other"
    with closing(Journal.open(other)) as journal:
        journal.begin(HEADER, IDS)
        journal.write(journal.dump([checkpoint("a"), checkpoint("b")]), NOW)
        journal.write(journal.dump([checkpoint("a", doubts=1)]), NOW + 1)
    ours, theirs = small.read_bytes(), other.read_bytes()
    assert len(ours) == len(theirs)
    assert read_contents(small) == read_contents(other)
    for mixed in (ours[:512] + theirs[512:], ours[:2048] + theirs[2048:]):
        small.write_bytes(mixed)
        assert not held_to(small, None)


def test_a_mark_that_names_other_commits(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark that is good in itself, and not that of the commits, is noticed."""
    early = small.read_bytes()
    with closing(Journal.open(small)) as journal:
        journal.write(journal.dump([checkpoint("a", doubts=2)]), NOW)
    late = small.read_bytes()
    small.write_bytes(early)
    with closing(Journal.open(small)) as journal:
        journal.write(journal.dump([checkpoint("a", doubts=7)]), NOW)
    fork = small.read_bytes()
    assert len(fork) == len(late)
    small.write_bytes(late[:2048] + fork[2048:])
    assert not held_to(small, None)


# Killed in the midst of a commit, or copied.


def states(monkeypatch: pytest.MonkeyPatch, path: Path) -> Iterator[tuple[bytes, Contents, Contents]]:
    """Give the file at each step of some commits, each write cut into pieces, with what it held before and after."""
    pwrite, fsync = os.pwrite, os.fsync
    seen: list[bytes] = []

    def in_pieces(descriptor: int, data: bytes, at: int) -> int:
        seen.append(path.read_bytes())
        for begin in range(0, len(data), 7):
            pwrite(descriptor, data[begin : begin + 7], at + begin)
            seen.append(path.read_bytes())
        return len(data)

    def sync(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(path.read_bytes())

    with closing(Journal.open(path)) as journal:
        for doubts in range(2, 5):
            before = journal.read()
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", in_pieces)
                patch.setattr(os, "fsync", sync)
                journal.write(journal.dump([checkpoint("a", doubts=doubts), checkpoint("c")]), NOW + doubts)
            after = journal.read()
            assert before is not None
            assert after is not None
            assert before != after
            yield from ((data, before, after) for data in seen)
            seen.clear()
            # The commit has returned: its send may leave.
            yield path.read_bytes(), after, after


def test_a_copy_at_any_moment(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one file, copied at any step of a commit, holds every commit that has returned, and the next whole or not."""
    copy = tmp_path / "copy"
    copy.touch(0o600)
    kinds = set[bool]()
    for data, before, after in states(monkeypatch, small):
        copy.write_bytes(data)
        contents = read_contents(copy)
        assert contents in (before, after)
        kinds.add(contents == before)
        with closing(Journal.open(copy)) as journal:
            assert journal.read() == contents
            # It goes on from there, with nothing left of what was cut off.
            journal.write(journal.dump([checkpoint("b", doubts=9)]), NOW)
            again = journal.read()
        assert again is not None
        assert again.checkpoints == {**contents.checkpoints, "b": checkpoint("b", doubts=9)} if contents else {}
        assert read_contents(copy) == again
    assert kinds == {True, False}


def test_what_was_not_marked_is_marked(small: Path, tmp_path: Path) -> None:
    """A commit that a process wrote and did not mark is marked by the next one, and cannot be cut off from then on."""
    before = small.read_bytes()
    with closing(Journal.open(small)) as journal:
        journal.write(journal.dump([checkpoint("a", doubts=2)]), NOW)
    after, truth = small.read_bytes(), read_contents(small)
    small.write_bytes(before[:2048] + after[2048:])
    with closing(Journal.open(small)) as journal:
        assert journal.read() == truth
    small.write_bytes(small.read_bytes()[: len(before)])
    assert not held_to(small, truth)


def test_a_fleet_that_is_there_in_part(tmp_path: Path) -> None:
    """A process that is killed while it writes a large fleet leaves a run that has not begun."""
    path = tmp_path / "journal"
    ids = [f"{number:036}" for number in range(2500)]
    with closing(Journal.open(path)) as journal:
        start = path.read_bytes()
        journal.begin(HEADER, ids)
    data = path.read_bytes()
    lines = data[2048:].splitlines(keepends=True)
    assert len(lines) == 4
    for count in range(4):
        path.write_bytes(start + b"".join(lines[:count]))
        assert read_contents(path) is None
        with closing(Journal.open(path)) as journal:
            assert journal.read() is None
            journal.begin(HEADER, ids)
            contents = journal.read()
        assert contents is not None
        assert contents.ids == tuple(ids)
