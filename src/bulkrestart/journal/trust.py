"""Checks that only we, or the owner of the system, can have written a journal or put it where it is.

Law: no other user can make a path that has passed lead elsewhere, so it may be used after it was checked.

Folders are checked up to the root, as OpenSSH does for authorized_keys (auth.c, `secure_filename` and, for private
groups, Debian's `secure_permissions`). A folder with the sticky bit, such as /tmp, passes: only the owner of a file
there can move it.
"""

import errno
import grp
import os
import pwd
import stat
import sys
from pathlib import Path
from typing import Final

from bulkrestart.core.errors import JournalError

#: Symbolic links that Linux follows in one path (path_resolution(7)).
_MOST_LINKS: Final = 40
_REMEDY: Final = "give a file in a folder that only you may write to"


def resolve(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a journal, without symbolic links, after checking the file and each folder.

    Raises:
        JournalError: Another user may change where the path leads, or may have written the file, or the file is a
            symbolic link.
        OSError: A folder does not exist, or the file is not a regular one.
    """
    folder, name = os.path.split(os.path.join(os.getcwd(), os.fspath(path)))
    file = _check_path(folder) / name
    try:
        status = file.lstat()
    except FileNotFoundError:
        return file
    if stat.S_ISLNK(status.st_mode):
        target = os.path.realpath(file)
        raise JournalError(f"the journal {file} is a symbolic link to {target}: give {target} itself, if it is yours")
    check_file(file, status)
    return file


def check_file(file: Path, status: os.stat_result) -> None:
    """Check that a file is a regular one with one name, and that only we may write to it.

    Raises:
        JournalError: Another user owns it, or may write to it.
        OSError: It is not a regular file, or has more than one name.
    """
    check_kind(status)
    if status.st_uid != os.geteuid():
        raise JournalError(
            f"the journal {file} belongs to {_user(status.st_uid)}, who may have written anything in it: "
            "give another file"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JournalError(
            f"other users may write to the journal {file} (its mode is {_mode(status)}): give another file and --since "
            "(or `chmod go-w` it, if you know that none has)"
        )
    if status.st_nlink > 1:
        # Another user may have made the other name.
        raise OSError(errno.EMLINK, "it has more than one name (hard links)")


def check_kind(status: os.stat_result) -> None:
    """Check that a file is a regular one.

    Raises:
        OSError: It is not.
    """
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a file")


def _check_path(path: str) -> Path:
    """Resolve the path of a folder step by step, as the system does, and check each folder and each link."""
    here, links = Path("/"), 0
    _check_folder(here, here.stat())
    steps = path.split(os.sep)[::-1]
    while steps:
        step = steps.pop()
        if step in ("", os.curdir):
            continue
        if step == os.pardir:
            here = here.parent
            continue
        entry = here / step
        status = entry.lstat()
        if not stat.S_ISLNK(status.st_mode):
            _check_folder(entry, status)
            here = entry
            continue
        if status.st_uid not in _trusted():
            # In a folder with the sticky bit any user can make a link.
            raise JournalError(
                f"{entry}, on the way to the journal, is a symbolic link of {_user(status.st_uid)}: {_REMEDY}"
            )
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(entry)
        here = Path("/") if target.startswith(os.sep) else here
        steps += target.split(os.sep)[::-1]
    return here


def _check_folder(folder: Path, status: os.stat_result) -> None:
    """Check that no other user can replace a file in a folder."""
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if status.st_uid not in _trusted():
        raise JournalError(
            f"the folder {folder} of the journal belongs to {_user(status.st_uid)}, who may put another file in its "
            f"place: {_REMEDY}"
        )
    if status.st_mode & stat.S_ISVTX:
        return
    is_open_to_group = bool(status.st_mode & stat.S_IWGRP) and not _is_private(folder, status.st_gid)
    if status.st_mode & stat.S_IWOTH or is_open_to_group:
        raise JournalError(
            f"other users may write to the folder {folder} of the journal (its mode is {_mode(status)}), and put "
            f"another file in its place: {_REMEDY}"
        )


def _trusted() -> set[int]:
    # In a user namespace the owner of `/` is shown as the overflow user id (user_namespaces(7)). The owner of `/` can
    # replace any file, so it is trusted.
    return {0, os.geteuid(), os.stat("/").st_uid}


def _is_private(folder: Path, gid: int) -> bool:
    """Return whether we are the only member of a group, such as the private group that most systems make for a user.

    Users that a directory service does not list are not found.
    """
    if _has_list(folder):
        return False
    trusted = _trusted()
    try:
        named = [pwd.getpwnam(name).pw_uid for name in grp.getgrgid(gid).gr_mem]
    except KeyError:
        return False
    return {*named, *(user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid)} <= trusted


def _has_list(folder: Path) -> bool:
    # With an access control list the group's bits apply to all users that the list names (acl(5)).
    try:
        return sys.platform == "linux" and "system.posix_acl_access" in os.listxattr(folder)
    except OSError:
        # The file system has no such lists.
        return False


def _user(uid: int) -> str:
    return f"user {uid}"


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
