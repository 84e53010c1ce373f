"""Locks the file of a journal itself, so that it cannot be opened twice by two paths.

Law: while one open file has the lock, no other gets it, in this process or another. It ends with the process.

On Linux it is an open file description lock (fcntl_locking(2)), on one byte far beyond the end of the file. A classic
POSIX lock is not enough: it belongs to the process, so two threads share it, and closing any descriptor of the file
releases it. Elsewhere, and on kernels without these locks, it is flock(2), which belongs to the open file as well. On a
network file system that does not share locks, another machine can open the journal all the same.
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

#: `_LAYOUT` is Linux's `struct flock`. macOS has such locks too, but another order of the fields.
_HAS_OPEN_FILE_LOCKS = sys.platform == "linux"
#: Beyond the end of any file, because a file system with mandatory locks (SMB) would not let others read the byte.
_BYTE: Final = 1 << 60
_LAYOUT: Final = "@hhqqi"


def lock(descriptor: int, file: Path) -> None:
    """Lock a journal, without waiting. Closing the descriptor unlocks it.

    Args:
        descriptor: The file, open for writing.
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
    """Write into a journal which process has locked it: this one.

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
        # It is locked for a moment. A process that opens the journal in that moment is refused, and can try again.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        return _words_on_holder(descriptor)
    return None


def _open_file_lock(descriptor: int, *, is_taken: bool) -> int | None:
    """Take an open file description lock, or return the type of the lock that another open file has.

    Returns:
        `F_UNLCK` if the file is not locked; None if the system has no such locks.

    Raises:
        BlockingIOError: `is_taken` is True, and another open file has the lock.
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
    # A pid is valid only on the machine and in the container of its process. A process that has ended may have left the
    # lock to a child.
    match read_note(descriptor).split():
        case [b"held", b"by", pid, fingerprint] if pid.isdigit() and fingerprint == _fingerprint(int(pid)):
            return f"process {int(pid)}"
    return "another process, which cannot be seen from here"


def _fingerprint(pid: int) -> bytes:
    """Return a digest that identifies a process among all of this machine, its containers, and other machines."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = os.stat("/proc/self/ns/pid").st_ino
        # The name, in brackets, may hold any character. The 22nd field is the start time (proc_pid_stat(5)).
        started = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]
        text = f"{boot} {namespace} {pid} {started!r}"
    except (OSError, IndexError):
        # There is no such process, or the system has no /proc.
        text = f"{os.uname().nodename} {pid}"
    return blake2b(text.encode(), digest_size=16).hexdigest().encode()
