"""Bad input is one line that names the remedy, and nothing is sent."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from bulkrestart.cli.ids import gather_ids
from bulkrestart.simulator import Cloud

from .conftest import Cli, Serve

NOWHERE = "http://127.0.0.1:9/v2.1/0123456789abcdef0123456789abcdef"
ID = "11111111-2222-3333-4444-aaaaaaaaaaaa"
OTHER = "99999999-2222-3333-4444-bbbbbbbbbbbb"
GOOD = ("restart", "--endpoint", NOWHERE, ID)


class Stdin(io.TextIOWrapper):
    """Standard input that holds these bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing command"),
        (("reboot",), "No such command 'reboot'"),
        (("restart", ID, "--cloud"), "--cloud"),
        (("restart", ID), "give --endpoint https://HOST/v2.1/PROJECT_ID"),
        (("restart", ID, "--endpoint", "compute.example.com/v2.1/abc"), "with its scheme"),
        (("restart", ID, "--endpoint", "https://compute.example.com/v2.1"), "the project id"),
        (("restart", ID, "--endpoint", "https://me:secret@compute.example.com/v2.1/abc"), "neither user name"),
        ((*GOOD, "--max-at-once", "0"), "--max-at-once must be a whole number from 1 up"),
        ((*GOOD, "--max-at-once", "many"), "--max-at-once"),
        ((*GOOD, "--max-per-second", "0"), "--max-per-second must be a number of requests a second"),
        ((*GOOD, "--max-per-second", "-1"), "--max-per-second must be a number of requests a second"),
        ((*GOOD, "--max-per-second", "fast"), "--max-per-second"),
        ((*GOOD, "--max-attempts", "-1"), "--max-attempts must be"),
        ((*GOOD, "--request-timeout", "0"), "--request-timeout must be a positive number of seconds"),
        ((*GOOD, "--server-timeout", "inf"), "--server-timeout must be"),
        ((*GOOD, "--wait-timeout", "nan"), "--wait-timeout must be"),
        ((*GOOD, "--wait-timeout", "-1"), "--wait-timeout must be"),
        ((*GOOD, "--type", "warm"), "'soft'"),
        ((*GOOD, "--output", "xml"), "'table'"),
        (
            ("restart", "--endpoint", NOWHERE),
            "no server ids: give ids as arguments, --ids-from FILE, or a selector such as --name",
        ),
        (("restart", "--endpoint", NOWHERE, "a b"), "white space"),
        (("restart", "--endpoint", NOWHERE, "a\x1b[2Jb"), "control characters"),
        (("simulate", "--servers", "0"), "--servers must be"),
        (("simulate", "--port", "65536"), "--port must be from 0 to 65535"),
        (("simulate", "--fault", "gremlins=0.1"), "there are locked, stopped"),
        (("simulate", "--fault", "busy_seconds=3"), "no such fault"),
        (("simulate", "--fault", "busy"), "from 0 to 1: busy=0.05"),
        (("simulate", "--fault", "busy=2"), "between 0 and 1"),
        (("simulate", "--fault", "busy=nan"), "between 0 and 1"),
        (("simulate", "--face", "azure"), "--face must be nova or huawei, not 'azure'"),
        (("simulate", "--face", ""), "--face must be"),
        (("simulate", "--ids-to", "/no/such/directory/ids"), "No such file or directory"),
    ],
)
def test_bad_arguments(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    """A bad argument is one line that names it, and exit 2."""
    end = cli(*arguments)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end
    assert words in end.err
    assert "\x1b" not in end.err
    assert "secret" not in end.err


@pytest.mark.parametrize("token", [None, "", "two words", "line\n"])
def test_bad_token(cli: Cli, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    """Without a token in the environment, or with one that cannot be one, nothing is sent."""
    if token is None:
        monkeypatch.delenv("OS_TOKEN")
    else:
        monkeypatch.setenv("OS_TOKEN", token)
    end = cli(*GOOD)
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert "openstack token issue" in end.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no server ids"),
        (b"\xef\xbb\xbf\n# nobody\r\n\n", "holds no server ids"),
        (b"# comment\n\nfirst second\n", "line 3: 'first second' cannot be the id of a server"),
        (b"a\n" + b"b" * 256, "line 2: 'bbb"),
        (b"a\n\n" + b"#" * 4097, "line 3: it is longer than 4096 characters"),
        (f"{ID}\r\n\x1b[31m\r\n".encode(), "line 2: '\\x1b[31m' cannot be"),
        (f"{ID}\n{OTHER}\n".encode("utf-16"), "line 1: it is not UTF-8"),
        (f"{ID}\n\nserver-\xfc\n".encode("latin-1"), "line 3: it is not UTF-8"),
    ],
)
def test_bad_file(cli: Cli, tmp_path: Path, content: bytes, words: str) -> None:
    """A file that holds no ids, or something else, is refused by name and line."""
    path = tmp_path / "ids"
    path.write_bytes(content)
    end = cli("restart", "--endpoint", NOWHERE, "--ids-from", str(path))
    assert (end.code, end.err.count("\n")) == (2, 1), end.err
    assert str(path) in end.err
    assert words in end.err


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing", "No such file"), ("", "Is a directory"), ("a\0b", "null byte"), ("bad\x1b[31m", "bad\\x1b[31m: No")],
)
def test_unreadable_file(cli: Cli, tmp_path: Path, name: str, words: str) -> None:
    """A file that cannot be read is refused by name, which is printed safely."""
    end = cli("restart", "--endpoint", NOWHERE, "--ids-from", f"{tmp_path}/{name}")
    assert (end.code, end.err.count("\n")) == (2, 1), end.err
    assert words in end.err


def test_file_format(tmp_path: Path) -> None:
    """Blank lines, comments, a byte order mark and every kind of line end are read over; arguments come first."""
    path = tmp_path / "ids"
    path.write_bytes(f"\ufeff# fleet\r\n\r\n  {ID}  # web\rplain\n{OTHER}".encode())
    assert gather_ids(["first"], [str(path)]) == (["first", ID, "plain", OTHER], 0)


def test_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of several sources none is dropped: the arguments come first, then each as it was given."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("b\nc\n")
    other.write_text("e\nb\n")
    monkeypatch.setattr("sys.stdin", Stdin(b"d\n"))
    assert gather_ids(["a"], [str(one), "-", str(other)]) == (["a", "b", "c", "d", "e"], 1)


def test_files_of_a_command_line(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """--ids-from may be repeated."""
    served = serve(Cloud(3))
    options = []
    for number, server_id in enumerate(served.cloud.ids):
        path = tmp_path / str(number)
        path.write_text(server_id)
        options += ["--ids-from", str(path)]
    assert cli("restart", "--endpoint", served.endpoint, "--no-wait", *options).code == 0
    assert [served.cloud.posts[server_id] for server_id in served.cloud.ids] == [1, 1, 1]


def test_standard_input_twice(cli: Cli) -> None:
    """Standard input can be read once, and asking for more is refused before that."""
    end = cli("restart", "--endpoint", NOWHERE, "--ids-from", "-", "--ids-from", "-")
    assert (end.code, end.err) == (2, "bulkrestart: standard input can be read once: give --ids-from - once\n")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """- reads standard input, and other spellings of one UUID are one server."""
    monkeypatch.setattr("sys.stdin", Stdin(f"{ID.upper()}\n{{{ID}}}\n{OTHER}\n".encode()))
    assert gather_ids([ID], ["-"]) == ([ID, OTHER], 2)


def test_endless_line() -> None:
    """A line that does not end is refused, and takes no more memory than another."""
    command = [sys.executable, "-m", "bulkrestart", "restart", "--endpoint", NOWHERE, "--ids-from", "/dev/zero"]
    limited = ["/bin/sh", "-c", 'ulimit -v 2000000; exec "$@"', "sh", *command]
    end = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=60)
    words = "bulkrestart: /dev/zero, line 1: it is longer than 4096 characters; write one id a line\n"
    assert (end.returncode, end.stderr) == (2, words)


def test_endless_lines(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """More lines than any fleet has are refused as well."""
    monkeypatch.setattr("bulkrestart.cli.ids._MOST_LINES", 1000)
    monkeypatch.setattr("sys.stdin", Stdin(b"a\n" * 1001))
    end = cli("restart", "--endpoint", NOWHERE, "--ids-from", "-")
    words = "bulkrestart: standard input, line 1001: there are more than 1000; give a list that ends\n"
    assert (end.code, end.err) == (2, words)


@pytest.mark.parametrize("stdin", [None, Stdin(b"")])
def test_no_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch, stdin: Stdin | None) -> None:
    """Standard input that is closed or empty is refused."""
    monkeypatch.setattr("sys.stdin", stdin)
    end = cli("restart", "--endpoint", NOWHERE, "--ids-from", "-")
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert "standard input" in end.err


def test_duplicates_are_counted(cli: Cli, serve: Serve) -> None:
    """Duplicates are merged with a warning that counts them."""
    served = serve(Cloud(1))
    (server_id,) = served.cloud.ids
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", server_id, server_id.upper(), server_id)
    assert end.code == 0
    assert end.err == "bulkrestart: 2 of the ids given are duplicates; each server is restarted once\n"
    assert served.cloud.posts[server_id] == 1


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_wrong_project(cli: Cli, serve: Serve, output: str) -> None:
    """What the library finds against a run before its first send is one line and exit 2."""
    served = serve(Cloud(1))
    endpoint = served.endpoint.replace("0123", "9999")
    end = cli("restart", "--endpoint", endpoint, "--output", output, *served.cloud.ids)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
    assert "check the URL and the project in it; nothing was sent" in end.err
    assert not served.cloud.posts


def test_taken_port(cli: Cli, serve: Serve) -> None:
    """A port that is taken is one line and exit 2."""
    served = serve(Cloud(1))
    end = cli("simulate", "--port", served.url.rpartition(":")[2])
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
    assert "or 0 for a free one" in end.err
