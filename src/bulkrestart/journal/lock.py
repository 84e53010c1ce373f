"""The lock on a journal: it is on the file itself, so that two names of one file are one journal.

Law: while one open file holds the lock no other one gets it, in this process or another; it ends with the process.

On Linux it is an open file description lock (fcntl_locking(2)), on one byte far beyond the end of the file. A classic
POSIX lock is not enough: it belongs to the process, so two threads share it, and closing any descriptor of the file
drops it. Elsewhere, and on a kernel that does not know these locks, it is flock(2), which belongs to the open file as
well. Neither is held against another machine where a network's file system keeps locks to itself.
"""

import errno
import fcntl
import os
import struct
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Final

from bulkrestart.core.errors import JournalError
from bulkrestart.journal.log import read_note, write_note

#: Its `struct flock` is Linux's: macOS has such locks too, but orders the fields in another way.
_HAS_OPEN_FILE_LOCKS = sys.platform == "linux"
#: Beyond the end of any file: a file system with mandatory locks (SMB) would keep readers from a byte of ours.
_BYTE: Final = 1 << 60
_LAYOUT: Final = "@hhqqi"


def lock(descriptor: int, file: Path) -> None:
    """Lock a journal, without waiting. Closing the descriptor unlocks it.

    Args:
        descriptor: It, open for writing.
        file: Its path, for the message.

    Raises:
        JournalError: It is locked already.
        OSError: It cannot be locked.
    """
    try:
        if _open_file_lock(descriptor, is_taken=True) is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalError(
            f"the journal {file} is held by {_words_on_holder(descriptor)}: wait for it, or end it"
        ) from None


def write_holder(descriptor: int) -> None:
    """Write into a journal that this process has locked it.

    Raises:
        OSError: It cannot be written.
    """
    pid = os.getpid()
    write_note(descriptor, b"held by %d %s" % (pid, _fingerprint(pid)))


def find_holder(descriptor: int) -> str | None:
    """Name the process that has locked a journal; None if none has.

    Raises:
        OSError: The lock cannot be read.
    """
    told = _open_file_lock(descriptor, is_taken=False)
    if told is not None:
        return None if told == fcntl.F_UNLCK else _words_on_holder(descriptor)
    try:
        # For a moment: a process that opens the journal in it is refused, and has only to try again.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        return _words_on_holder(descriptor)
    return None


def _open_file_lock(descriptor: int, *, is_taken: bool) -> int | None:
    """Take an open file description lock, or find the type of the one that another file holds.

    Returns:
        `F_UNLCK` if none is held; None where there are no such locks.

    Raises:
        BlockingIOError: It was to be taken, and another file holds it.
    """
    if not _HAS_OPEN_FILE_LOCKS:
        return None
    command = fcntl.F_OFD_SETLK if is_taken else fcntl.F_OFD_GETLK
    asked = struct.pack(_LAYOUT, fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0)
    try:
        (lock_type, *_) = struct.unpack(_LAYOUT, fcntl.fcntl(descriptor, command, asked))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
    return int(lock_type)


def _words_on_holder(descriptor: int) -> str:
    # A number means the process that wrote it only where that process is: a container has numbers of its own. One that
    # has ended may have left the lock to a child.
    match read_note(descriptor).split():
        case [b"held", b"by", pid, fingerprint] if pid.isdigit() and fingerprint == _fingerprint(int(pid)):
            return f"process {int(pid)}"
    return "another process, which cannot be seen from here"


def _fingerprint(pid: int) -> bytes:
    """Tell one process from all others: of this machine since it started, of its containers, and of other machines."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = os.stat("/proc/self/ns/pid").st_ino
        # The name, in brackets, may hold anything. The 22nd field is when the process started (proc_pid_stat(5)).
        started = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]
        text = f"{boot} {namespace} {pid} {started!r}"
    except (OSError, IndexError):
        # There is no such process, or the system has no /proc.
        text = f"{os.uname().nodename} {pid}"
    return blake2b(text.encode(), digest_size=16).hexdigest().encode()
