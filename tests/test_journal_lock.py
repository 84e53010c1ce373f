"""Two names of one file are one journal, and the process that holds it is named where that names the right one."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest

from bulkrestart import JournalError
from bulkrestart.journal import Journal, read_journal
from bulkrestart.journal.lock import find_holder
from bulkrestart.simulator import Cloud
from tests.test_journal import BEGIN, HOLDER, begun, checkpoint, held_elsewhere
from tests.virtual import client_of

UNSEEN = "another process, which cannot be seen from here"


def enters(*namespaces: str) -> bool:
    """Tell whether this system lets us make such namespaces."""
    try:
        return not subprocess.run(["unshare", *namespaces, "true"], capture_output=True, check=False).returncode  # noqa: S607
    except FileNotFoundError:
        return False


MOUNTS = pytest.mark.skipif(not enters("--mount"), reason="needs leave to make a mount namespace (unshare --mount)")
PROCESSES = pytest.mark.skipif(
    not enters("--pid", "--fork", "--mount-proc"), reason="needs leave to make a process namespace (unshare --pid)"
)


@contextmanager
def held_in_container(path: Path) -> Iterator[int]:
    """Let a process hold a journal where processes have numbers of their own; give its number there."""
    program = HOLDER.format(then=BEGIN + "import os; print(os.getpid(), flush=True)")
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            number = int(child.stdout.readline())
            assert child.stdout.readline() == "open\n"
            yield number
        finally:
            child.kill()


def open_in(command: list[str], path: Path) -> subprocess.CompletedProcess[str]:
    """Open a journal in another process, and read it."""
    program = "import sys; from bulkrestart.journal import Journal; Journal.open(sys.argv[1]).read()"
    return subprocess.run(
        [*command, sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=30.0, check=False
    )


# Names.


@MOUNTS
def test_a_file_that_is_mounted_elsewhere(tmp_path: Path) -> None:
    """A bind mount, as of a container's volume, is another name of the same file: the second process is refused."""
    path, other = begun(tmp_path / "journal"), tmp_path / "volume"
    other.touch(0o600)
    mount = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(path), str(other)]
    with held_elsewhere(path) as holder:
        done = open_in(mount, other)
        assert done.returncode == 1
        words = f"JournalError: the journal {other} is held by process {holder.pid}: wait for it, or end it\n"
        assert done.stderr.endswith(words)
    done = open_in(mount, other)
    assert done.returncode == 0, done.stderr


@MOUNTS
def test_a_folder_that_is_mounted_elsewhere(tmp_path: Path) -> None:
    """The same for a folder, and for a journal that is made under the one name while it is held under the other."""
    ours, volume = tmp_path / "ours", tmp_path / "volume"
    ours.mkdir()
    volume.mkdir()
    mount = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(ours), str(volume)]
    with held_elsewhere(ours / "journal", then=BEGIN) as holder:
        done = open_in(mount, volume / "journal")
        assert f"is held by process {holder.pid}: " in done.stderr
    done = open_in(mount, volume / "journal")
    assert done.returncode == 0, done.stderr


def test_a_second_name(tmp_path: Path) -> None:
    """A hard link made while a journal is held leads to the same lock; one that was there before is refused."""
    path = tmp_path / "journal"
    with closing(Journal.open(path)):
        (tmp_path / "name").hardlink_to(path)
        descriptor = os.open(tmp_path / "name", os.O_RDWR)
        try:
            assert find_holder(descriptor) == f"process {os.getpid()}"
        finally:
            os.close(descriptor)
        for name in ("name", "journal"):
            with pytest.raises(JournalError, match=r"it has more than one name \(hard links\); give another file$"):
                Journal.open(tmp_path / name)


# Holders in one process.


def test_two_threads(tmp_path: Path) -> None:
    """Of many threads that open one journal in the same moment one gets it; the others are refused, and keep it so."""
    path = begun(tmp_path / "journal")
    start, opened, refused = threading.Barrier(8), list[Journal](), list[str]()

    def open_it() -> None:
        start.wait(10.0)
        for _ in range(5):
            try:
                opened.append(Journal.open(path))
            except JournalError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len(refused) == 39
    assert all(f"the journal {path} is held by " in words for words in refused)
    opened[0].close()
    Journal.open(path).close()


def test_reading_lets_no_lock_go(tmp_path: Path) -> None:
    """Opening and closing the file again in the process that holds it, as a report does, does not release the lock."""
    path = tmp_path / "journal"
    with held_elsewhere(path, then=f"{BEGIN}\nopen({str(path)!r}).close()") as holder:
        assert f"is held by process {holder.pid}: " in open_in([], path).stderr
    with closing(Journal.open(path)) as journal:
        for _ in range(2):
            path.read_bytes()
            assert read_journal(path)[1] == f"process {os.getpid()}"
            assert f"is held by process {os.getpid()}: " in open_in([], path).stderr
        journal.write(journal.dump([checkpoint()]), 1.0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_tasks_of_two_clients(tmp_path: Path, backend: str) -> None:
    """A second run with the same journal, in the same program, is refused before it asks anything."""

    async def main() -> None:
        cloud = Cloud(3, reboot_seconds=(0.0, 0.0))
        path = tmp_path / "journal"
        async with (
            client_of(cloud) as client,
            client_of(cloud) as other,
            client.restarting(cloud.ids, journal=path) as run,
        ):
            for one in (client, other):
                with pytest.raises(JournalError, match=f"is held by process {os.getpid()}: "):
                    await one.restart(cloud.ids, journal=tmp_path / "." / "journal")
            async for _ in run:
                pass
        assert [result.server_id for result in run.report] == cloud.ids
        assert set(cloud.posts.values()) == {1}

    anyio.run(main, backend=backend)


# The name of the holder.


@PROCESSES
def test_a_holder_in_a_container(tmp_path: Path) -> None:
    """A process in another process namespace has a number that means another one here: it is not named."""
    path = tmp_path / "journal"
    with held_in_container(path) as number:
        assert number != os.getpid()
        with pytest.raises(JournalError, match=rf"^the journal {path} is held by {UNSEEN}: wait for it, or end it$"):
            Journal.open(path)
        assert read_journal(path)[1] == UNSEEN


@PROCESSES
def test_a_holder_outside_of_the_container(tmp_path: Path) -> None:
    """And the other way round."""
    path = begun(tmp_path / "journal")
    with held_elsewhere(path):
        done = open_in(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"], path)
    assert f"is held by {UNSEEN}: " in done.stderr


def test_a_holder_that_left_the_lock_to_its_child(tmp_path: Path) -> None:
    """A process that forked and was killed is not named: its number may be another's by now."""
    path = tmp_path / "journal"
    fork = BEGIN + "import os\nif os.fork():\n    os.kill(os.getpid(), 9)\n"
    program = HOLDER.format(then=fork) + "\n"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "open\n"
        assert parent.wait(10.0) == -signal.SIGKILL
        assert read_journal(path)[1] == UNSEEN
        with pytest.raises(JournalError, match=f"is held by {UNSEEN}: "):
            Journal.open(path)


@pytest.mark.parametrize(
    "note", [b"", b"held by", b"held by x y", b"held by 1 2 3", b"\xff" * 100, b"held by 1 " + b"0" * 32]
)
def test_a_note_that_names_no_process(tmp_path: Path, note: bytes) -> None:
    """Whatever stands where the holder's name would, the lock counts, and no process is named."""
    path = begun(tmp_path / "journal")
    with closing(Journal.open(path)):
        with path.open("r+b") as file:
            file.seek(3 * 512)
            file.write(note.ljust(512))
        with pytest.raises(JournalError, match=f"is held by {UNSEEN}: "):
            Journal.open(path)
    assert read_journal(path)[1] is None


def test_a_system_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system shows no processes as files, as macOS, the name of the machine stands for them."""
    path = begun(tmp_path / "journal")
    really = Path.read_text

    def none(self: Path, *arguments: str) -> str:
        if self.is_relative_to("/proc"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return really(self, *arguments)

    monkeypatch.setattr(Path, "read_text", none)
    with closing(Journal.open(path)):
        assert read_journal(path)[1] == f"process {os.getpid()}"
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "another machine", "", "", "")))
        assert read_journal(path)[1] == UNSEEN


# Systems without these locks.


def no_such_command(descriptor: int, command: int, argument: bytes) -> bytes:
    """Refuse as a kernel does that does not know a command."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize("way", ["another system", "an old kernel"])
def test_a_system_without_open_file_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Without them another lock that belongs to the open file does the same."""
    if way == "an old kernel":
        monkeypatch.setattr(fcntl, "fcntl", no_such_command)
    else:
        monkeypatch.setattr("bulkrestart.journal.lock._HAS_OPEN_FILE_LOCKS", False)
    path = begun(tmp_path / "journal")
    with closing(Journal.open(path)):
        for _ in range(2):
            with pytest.raises(JournalError, match=f"is held by process {os.getpid()}: "):
                Journal.open(path)
            assert read_journal(path)[1] == f"process {os.getpid()}"
    for _ in range(2):
        assert read_journal(path)[1] is None
        Journal.open(path).close()


@pytest.mark.parametrize("way", ["fcntl", "flock"])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Where nothing can be locked no journal is kept: two processes might write it. Nothing is left behind."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path = begun(tmp_path / "journal")
    monkeypatch.setattr("bulkrestart.journal.lock._HAS_OPEN_FILE_LOCKS", way == "fcntl")
    monkeypatch.setattr(fcntl, way, refuse)
    for name in ("new", "journal"):
        with pytest.raises(JournalError, match=r"cannot be used: No locks available; give another file$"):
            Journal.open(tmp_path / name)
    with pytest.raises(JournalError, match=r"cannot be used: No locks available; give another file$"):
        read_journal(path)
    assert [file.name for file in tmp_path.iterdir()] == ["journal"]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_is_removed_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_replaced: bool
) -> None:
    """A file that its former holder removed, or that was replaced since, is not the journal: the new one is."""
    path, really = begun(tmp_path / "journal", checkpoint()), fcntl.fcntl
    commands: list[int] = []

    def late(descriptor: int, command: int, argument: bytes) -> bytes:
        commands.append(command)
        if len(commands) == 1:
            path.unlink()
            if is_replaced:
                begun(path, checkpoint(doubts=1))
        return really(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", late)
    with closing(Journal.open(path)) as journal:
        contents = journal.read()
        if is_replaced:
            assert contents is not None
            assert contents.checkpoints == {"a": checkpoint(doubts=1)}
        else:
            assert contents is None
        with pytest.raises(JournalError, match=f"is held by process {os.getpid()}: "):
            Journal.open(path)
