"""A journal that another user may have written, or put where it is, is refused in a line that names what is wrong."""

import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from bulkrestart import JournalError
from bulkrestart.journal import Journal, read_contents, read_journal, trust, why_not_trusted
from tests.test_journal import IDS, begun, checkpoint

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
#: Users that are neither we nor root.
STRANGER, OTHER = 54321, 54322


def refused(path: Path) -> str:
    """Hold that a run would neither begin nor go on with a journal, and give the line."""
    lines = set[str]()
    for open_ in (Journal.open, read_contents) if os.path.lexists(path) else (Journal.open,):
        with pytest.raises(JournalError) as caught:
            open_(path)
        lines.add(str(caught.value))
    (line,) = lines
    assert "\n" not in line
    if path.exists():
        doubt = why_not_trusted(path)
        assert doubt is not None
        assert line.startswith(doubt)
    return line


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a folder that other users may go through."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


# The file.


@ROOT
def test_a_file_of_another_owner(tmp_path: Path) -> None:
    """A journal that belongs to another user is not gone on with; to look at it is possible, with a word on that."""
    path = begun(tmp_path / "journal", checkpoint())
    os.chown(path, STRANGER, -1)
    words = f"the journal {path} belongs to user {STRANGER}, who may have written anything in it: give another file"
    assert refused(path) == words
    assert read_journal(path)[0].ids == IDS
    assert why_not_trusted(path) == words


@ROOT
def test_a_file_of_root_or_another_in_a_shared_folder(place: Path) -> None:
    """In a folder like /tmp we may make our journal, and do not take one that another user, or root, has put there."""
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    begun(shared / "of root")
    begun(shared / "of other")
    for path in shared.iterdir():
        path.chmod(0o644)
    os.chown(shared / "of other", OTHER, -1)
    os.seteuid(STRANGER)
    try:
        assert refused(shared / "of root").startswith(f"the journal {shared}/of root belongs to user 0, who ")
        assert refused(shared / "of other").startswith(f"the journal {shared}/of other belongs to user {OTHER}, who ")
        assert read_journal(shared / "of other")[0].ids == IDS
        assert read_contents(begun(shared / "ours")) is not None
        assert why_not_trusted(shared / "ours") is None
    finally:
        os.seteuid(0)
    assert "belongs to user 54321, who" in refused(shared / "ours")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o660, 0o777])
def test_a_file_that_others_may_write(tmp_path: Path, mode: int) -> None:
    """A journal that its group or all may write is refused; the line names the mode and the remedies."""
    path = begun(tmp_path / "journal", checkpoint())
    path.chmod(mode)
    assert refused(path) == (
        f"other users may write to the journal {path} (its mode is 0{mode:o}): give another file and --since "
        "(or `chmod go-w` it, if you know that none has)"
    )
    path.chmod(mode & ~0o022)
    assert read_contents(path) is not None


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444 | 0o200])
def test_a_file_that_others_may_read(tmp_path: Path, mode: int) -> None:
    """A journal holds no secret: others may read it."""
    path = begun(tmp_path / "journal", checkpoint())
    path.chmod(mode)
    with closing(Journal.open(path)) as journal:
        assert journal.read() == read_contents(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_file_with_two_names(tmp_path: Path) -> None:
    """A hard link may have been laid by another user, to another journal of ours."""
    path = begun(tmp_path / "journal")
    (tmp_path / "name").hardlink_to(path)
    for name in ("journal", "name"):
        assert refused(tmp_path / name) == (
            f"the journal {tmp_path / name} cannot be used: it has more than one name (hard links); give another file"
        )


@pytest.mark.parametrize("target", ["journal", "nowhere"])
def test_a_symbolic_link(tmp_path: Path, target: str) -> None:
    """A journal is not opened, and none is made, by a symbolic link; the line names the file that it leads to."""
    begun(tmp_path / "journal")
    link = tmp_path / "link"
    link.symlink_to(target)
    words = (
        f"the journal {link} is a symbolic link to {tmp_path / target}: give {tmp_path / target} itself, if it is yours"
    )
    assert refused(link) == words
    assert not (tmp_path / "nowhere").exists()
    if target == "journal":
        assert read_journal(link)[0].ids == IDS


# The way to it.


def open_to_all(folder: Path) -> None:
    """Let all write to a folder."""
    folder.chmod(0o777)


def given_away(folder: Path) -> None:
    """Give a folder to another user."""
    os.chown(folder, STRANGER, -1)


def sticky_and_given_away(folder: Path) -> None:
    """Give a folder to another user, who may move what is in it, sticky or not."""
    os.chown(folder, STRANGER, -1)
    folder.chmod(0o1777)


def of_a_group(folder: Path) -> None:
    """Let a group that does not exist write to a folder: its members are not known."""
    os.chown(folder, -1, STRANGER)
    folder.chmod(0o775)


REMEDY = "give a file in a folder that only you may write to"
OPEN = (
    f"other users may write to the folder {{}} of the journal (its mode is {{}}), and put another file in its place: "
    f"{REMEDY}"
)
FOREIGN = f"the folder {{}} of the journal belongs to user {STRANGER}, who may put another file in its place: {REMEDY}"
FOLDERS: list[tuple[Callable[[Path], None], str]] = [
    (open_to_all, OPEN.format("{}", "0777")),
    (given_away, FOREIGN),
    (sticky_and_given_away, FOREIGN),
    (of_a_group, OPEN.format("{}", "0775")),
]


@ROOT
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize(("spoil", "words"), FOLDERS, ids=[spoil.__name__ for spoil, _ in FOLDERS])
def test_a_folder_of_others(
    tmp_path: Path, spoil: Callable[[Path], None], words: str, depth: int, *, is_there: bool
) -> None:
    """Where another user may move a folder on the way, or the file, none is made, and one that is there is refused."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    if is_there:
        begun(folder / "journal", checkpoint())
    spoiled = [folder, *folder.parents][depth]
    spoil(spoiled)
    assert refused(folder / "journal") == words.format(spoiled)
    assert (folder / "journal").exists() is is_there


def test_a_folder_that_all_may_write(tmp_path: Path) -> None:
    """Whether we are root or not, a folder that all may write is refused, unless it is sticky as /tmp."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    assert "other users may write to the folder" in refused(folder / "journal")
    folder.chmod(0o1777)
    assert read_contents(begun(folder / "journal")) is not None


@ROOT
def test_a_link_on_the_way(place: Path) -> None:
    """A link on the way is followed if it is ours or root's; one that another user laid in a shared folder is not."""
    shared, ours = place / "shared", place / "ours"
    shared.mkdir()
    shared.chmod(0o1777)
    ours.mkdir()
    begun(ours / "journal", checkpoint())
    for name, target in {"link": "../ours", "absolute": str(ours), "twice": "link"}.items():
        (shared / name).symlink_to(target)
        assert read_contents(shared / name / "journal") == read_contents(ours / "journal")
        assert read_contents(shared / name / ".." / "ours" / "journal") == read_contents(ours / "journal")
        assert why_not_trusted(shared / name / "journal") is None
    os.lchown(shared / "link", STRANGER, -1)
    for name in ("link", "twice"):
        assert refused(shared / name / "journal") == (
            f"{shared}/link, on the way to the journal, is a symbolic link of user {STRANGER}: {REMEDY}"
        )


def test_links_in_a_circle(tmp_path: Path) -> None:
    """Links that lead to each other are refused as the system does it."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert refused(tmp_path / "a" / "journal").endswith(
        "/a/journal cannot be used: Too many levels of symbolic links; give another file"
    )


# Folders of a group.


@pytest.mark.parametrize(
    ("named", "by_default", "is_private"),
    [
        ([], ["us"], True),
        (["us"], ["us"], True),
        (["us", "root"], [], True),
        ([], [], True),
        (["other"], ["us"], False),
        (["us", "other"], [], False),
        ([], ["us", "other"], False),
        (["unknown"], ["us"], False),
    ],
)
def test_a_private_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: list[str], by_default: list[str], *, is_private: bool
) -> None:
    """A folder that a group may write is good if the group is of us only: many systems make one for each user."""
    users = {"us": os.geteuid(), "root": 0, "other": OTHER}
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o775)
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_mem=named))
    monkeypatch.setattr("pwd.getpwnam", lambda name: SimpleNamespace(pw_uid=users[name]))
    everyone = [SimpleNamespace(pw_uid=OTHER, pw_gid=-1)]
    everyone += [SimpleNamespace(pw_uid=users[name], pw_gid=folder.stat().st_gid) for name in by_default]
    monkeypatch.setattr("pwd.getpwall", lambda: everyone)
    if is_private:
        assert read_contents(begun(folder / "journal")) is not None
    else:
        assert "(its mode is 0775)" in refused(folder / "journal")


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """Write an access control list as Linux keeps it (linux/posix_acl_xattr.h): tag, permissions, user."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_a_folder_with_an_access_control_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list may name other users, whatever the group is: the bits of the group are then those of the list."""
    folder = tmp_path / "folder"
    folder.mkdir()
    nobody = 0xFFFFFFFF
    entries = ((0x01, 7, nobody), (0x02, 7, OTHER), (0x04, 5, nobody), (0x10, 7, nobody), (0x20, 5, nobody))
    try:
        os.setxattr(folder, "system.posix_acl_access", access_list(*entries))
    except OSError as error:
        pytest.skip(f"the file system has no access control lists: {error}")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o775
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_mem=[]))
    monkeypatch.setattr("pwd.getpwall", list)
    assert "(its mode is 0775)" in refused(folder / "journal")


def test_a_file_system_without_such_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file system has no such lists the bits of the group are the group's."""

    def none(path: Path) -> list[str]:
        raise OSError(95, "Operation not supported")

    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o775)
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_mem=[]))
    monkeypatch.setattr("pwd.getpwall", list)
    monkeypatch.setattr(os, "listxattr", none)
    assert read_contents(begun(folder / "journal")) is not None


def test_the_owner_of_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a user namespace the owner of the root is shown as `nobody`: who owns the root can change all anyway."""
    really = os.stat
    assert really("/").st_uid == 0

    def shown(path: str | Path, **options: bool) -> object:
        status = really(path, **options)
        return SimpleNamespace(st_uid=STRANGER) if path == "/" else status

    monkeypatch.setattr(os, "stat", shown)
    assert trust._trusted() == {0, os.geteuid(), STRANGER}
