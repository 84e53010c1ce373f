"""Bad input is one line that names the remedy, and nothing is sent."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from bulkrestart.cli.ids import IdsFormat, gather_ids
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


CSV, JSON = "give --ids-format csv --ids-column id", "give --ids-format json"


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        pytest.param(f'"{ID}"\n', 1, ("it holds '\"'", CSV), id="quotes"),
        pytest.param(f"'{ID}'\n", 1, ('it holds "\'"', CSV), id="single quotes"),
        pytest.param(f"{ID}\n{OTHER},\n", 2, ("it holds ','", CSV), id="comma at the end"),
        pytest.param(f"{ID},web-1\n", 1, (f"'{ID},web-1' cannot be", CSV), id="columns"),
        pytest.param(f"{ID}, web-1\n", 1, ("white space", CSV), id="columns and blanks"),
        pytest.param(f"{ID};web-1\n", 1, ("it holds ';'", CSV), id="semicolon"),
        pytest.param(f"{ID}\tweb-1\n", 1, ("white space", CSV), id="tab"),
        pytest.param(f"id,name\n{ID},web-1\n", 1, ("it holds ','", CSV), id="a header of two"),
        pytest.param(f'"ID","Name"\n"{ID}","web-1"\n', 1, ('\'"ID","Name"\' cannot be', CSV), id="openstack -f csv"),
        pytest.param(f"\n# fleet\nID\n{ID}\n", 3, ("'ID' is a header", "remove the line", CSV), id="a header"),
        pytest.param(f"\ufeffserver_id\n{ID}\n", 1, ("'server_id' is a header", CSV), id="a header, marked"),
        pytest.param("Name\nweb-1\n", 1, ("'Name' is a header", CSV), id="a header of names"),
        pytest.param(f"{ID}\nweb server 1\n", 2, ("'web server 1'", "white space"), id="a name with blanks"),
        pytest.param(f"{ID}\nJürgen\n", 2, ("it holds 'ü'", "select servers by name"), id="a name with an umlaut"),
        pytest.param(f'["{ID}"]\n', 1, ("cannot be", JSON), id="json"),
        pytest.param(f'[\n  "{ID}"\n]\n', 1, ("'[' cannot be", JSON), id="json in lines"),
        pytest.param(f'{{"id": "{ID}"}}\n', 1, ("cannot be", JSON), id="json object"),
        pytest.param(f'  "ID": "{ID}",\n', 1, ("cannot be", JSON), id="json in the middle"),
        pytest.param("+------+------+\n| ID   | Name |\n", 1, ("openstack server list -f value -c ID",), id="table"),
        pytest.param(f"| {ID} | web-1 |\n", 1, ("openstack server list -f value -c ID",), id="row of a table"),
        pytest.param(f"{ID}#web\n", 1, ("it holds '#'",), id="comment without a blank"),
        pytest.param(f"{ID}?x=1\n", 1, ("it holds '?'", "give ids"), id="query"),
        pytest.param(f"{ID}%2f\n", 1, ("it holds '%'",), id="percent"),
        pytest.param(f"{ID}\\n\n", 1, ("cannot be",), id="backslash"),
        pytest.param(f"http://h/servers/{ID}\n", 1, ("a slash; give the id alone",), id="URL"),
        pytest.param("--all\n", 1, ("it begins with '-'",), id="option"),
        pytest.param(f"{ID}\n\0\n", 2, ("null bytes", "UTF-8"), id="NUL"),
        pytest.param(f"{ID}\x1b[2J\x07\n", 1, ("\\x1b[2J\\x07' cannot be",), id="escape sequence"),
        pytest.param("x" * 4000 + "\n", 1, ("...' cannot be the id",), id="long"),
    ],
)
def test_what_a_file_holds_besides(cli: Cli, tmp_path: Path, content: str, line: int, words: tuple[str, ...]) -> None:
    """What is no list of ids is refused with the file, the line, what is in it, and how to read it; nothing is sent."""
    path = tmp_path / "ids"
    path.write_bytes(content.encode())
    end = cli("restart", "--endpoint", NOWHERE, "--ids-from", str(path))
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end.err
    assert end.err.startswith(f"bulkrestart: {path}, line {line}: ")
    assert end.err.strip().isprintable()
    assert len(end.err) < 400
    for word in words:
        assert word in end.err


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp500"])
@pytest.mark.parametrize(
    "options", [(), ("--ids-format", "csv"), ("--ids-format", "json")], ids=["lines", "csv", "json"]
)
def test_other_encodings(cli: Cli, tmp_path: Path, encoding: str, options: tuple[str, ...]) -> None:
    """A file in another encoding is refused, whichever half of its bytes looks like text."""
    path = tmp_path / "ids"
    path.write_bytes(f"{ID}\n{OTHER}\n".encode(encoding))
    end = cli("restart", "--endpoint", NOWHERE, "--ids-from", str(path), *options)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end.err
    assert end.err.strip().isprintable()


@pytest.mark.parametrize(
    ("content", "column"),
    [
        pytest.param(f"id\n{ID}\n{OTHER}\n", None, id="one column"),
        pytest.param(f'"ID","Name"\n"{ID}","web-1"\n"{OTHER}","web, 2"\n', None, id="openstack server list -f csv"),
        pytest.param(f"\ufeffname;id\r\nweb;{ID}\r\n;{OTHER}\r\n", None, id="spreadsheet"),
        pytest.param(f"name\tID\nweb\t{ID}\nx\t{OTHER}\tmore\n", None, id="tabs"),
        pytest.param(f'\n\nname,id\n"two\nlines",{ID}\n\n"a ""b""", {OTHER} \n', None, id="lines in a field"),
        pytest.param(f"id,Server\n1,{ID}\n2,{OTHER}", "server", id="another column"),
        pytest.param(f"ID,id\n1,{ID}\n2,{OTHER}", None, id="two spellings"),
    ],
)
def test_csv(tmp_path: Path, content: str, column: str | None) -> None:
    """The column of a CSV file is read as spreadsheets and openstackclient write it."""
    path = tmp_path / "ids"
    path.write_bytes(content.encode())
    assert gather_ids([], [str(path)], ids_format=IdsFormat.CSV, column=column) == ([ID, OTHER], 0)


@pytest.mark.parametrize(
    ("content", "where", "words"),
    [
        pytest.param("", "", "holds no server ids", id="empty"),
        pytest.param("id\n", "", "holds no server ids", id="header alone"),
        pytest.param(f"{ID}\n", ", line 1", f"the header '{ID}' has no column 'id'", id="no header"),
        pytest.param("uuid,name\n", ", line 1", "has no column 'id': name it with --ids-column", id="other columns"),
        pytest.param("\nid,ID,Id,id\n", ", line 2", "2 columns are named 'id'", id="two of them"),
        pytest.param("ID,Id\n", ", line 1", "2 columns are named 'id'", id="two in other case"),
        pytest.param(f"name,id\nweb,{ID}\nalone\n", ", line 3", "'alone' has no column 'id'", id="short row"),
        pytest.param("name,id\nweb,\n", ", line 2", "'' cannot be the id", id="empty cell"),
        pytest.param(
            'name,id\n"a\nb",web 1\n', ", line 2", "'web 1' cannot be the id", id="name in a row of two lines"
        ),
        pytest.param('id\n"a"b\n', ", line 2", "it is not valid CSV", id="quote in the middle"),
        pytest.param('id\n"a\n', ", line 2", "it is not valid CSV", id="quote that is not closed"),
        pytest.param("id\na\0\n", ", line 2", "null bytes", id="NUL"),
        pytest.param("id\n" + "a" * 70_000, ", line 2", "longer than 65536", id="endless row"),
        pytest.param("x" * 900 + "\n", ", line 1", "xxx...' has no column", id="long header"),
    ],
)
def test_bad_csv(cli: Cli, tmp_path: Path, content: str, where: str, words: str) -> None:
    """A CSV file without such a column, or with something else in it, is refused by file and line."""
    path = tmp_path / "ids"
    path.write_text(content)
    end = cli("restart", "--endpoint", NOWHERE, "--ids-from", str(path), "--ids-format", "csv")
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end.err
    assert f"{path}{where}" in end.err
    assert words in end.err


@pytest.mark.parametrize(
    "content",
    [
        f'["{ID}", "{OTHER}"]',
        f'\ufeff[{{"ID": "{ID}", "Name": "a"}},\n {{"ID": "{OTHER}", "Networks": {{"n": ["10.0.0.1"]}}}}]',
        f'[{{"id": "{ID}", "ID": 7}}, "{OTHER}"]',
    ],
)
def test_json(tmp_path: Path, content: str) -> None:
    """A list of ids, or of objects, is read as openstackclient writes it."""
    path = tmp_path / "ids"
    path.write_text(content)
    assert gather_ids([], [str(path)], ids_format=IdsFormat.JSON) == ([ID, OTHER], 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "it is not valid JSON"),
        (ID, "it is not valid JSON"),
        ("[" * 100_000, "it is not valid JSON"),
        ("[1" + "0" * 5000 + "]", "it is not valid JSON"),
        ("[]", "holds no server ids"),
        ('{"servers": []}', "it is not a list: give what openstack server list -f json prints"),
        ("7", "it is not a list"),
        (f'["{ID}", 7]', "entry 2: a server id must be a string, not int"),
        (f'["{ID}", "web 1"]', "entry 2: 'web 1' cannot be the id"),
        ('[{"Name": "web"}]', "entry 1: '{\"Name\": \"web\"}' has no key 'id': name it with --ids-column"),
        ('[{"ID": "a", "Id": "b"}]', "entry 1: "),
        ('["a\\u0000"]', "entry 1: 'a\\x00' cannot be the id"),
        ("x" * 300, "it is longer than 200 characters"),
        ('["a\0"]', "null bytes"),
    ],
)
def test_bad_json(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, words: str) -> None:
    """What is no such list is refused by file and entry."""
    if words.startswith("it is longer"):
        monkeypatch.setattr("bulkrestart.cli.ids._LONGEST_DOCUMENT", 200)
    path = tmp_path / "ids"
    path.write_text(content)
    end = cli("restart", "--endpoint", NOWHERE, "--ids-from", str(path), "--ids-format", "json")
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end.err
    assert str(path) in end.err
    assert words in end.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ids-format", "csv", ID), "give --ids-from FILE too"),
        (("--ids-column", "id", ID), "give --ids-from FILE too"),
        (("--ids-format", "json", "--all"), "give --ids-from FILE too"),
        (("--ids-from", "-", "--ids-column", "id"), "give --ids-format csv or json too"),
        (("--ids-from", "-", "--ids-format", "xml"), "'lines', 'csv', 'json'"),
    ],
)
def test_options_about_files(cli: Cli, options: tuple[str, ...], words: str) -> None:
    """Options that say how a file is read, without such a file, are refused and not ignored."""
    end = cli("restart", "--endpoint", NOWHERE, *options)
    assert (end.code, end.err.count("\n")) == (2, 1), end.err
    assert words in end.err


def test_csv_on_a_command_line(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """A CSV file restarts the servers of its column, and those only."""
    served = serve(Cloud(3))
    path = tmp_path / "servers.csv"
    path.write_text("Name,ID\n" + "".join(f"web-{server_id[:2]},{server_id}\n" for server_id in served.cloud.ids[:2]))
    options = ("--ids-from", str(path), "--ids-format", "csv", "--ids-column", "id")
    assert cli("restart", "--endpoint", served.endpoint, "--no-wait", *options).code == 0
    assert [served.cloud.posts[server_id] for server_id in served.cloud.ids] == [1, 1, 0]


@pytest.mark.parametrize(
    "server_id", [f'"{ID}"', f"{ID},{OTHER}", f"{ID}?a", f"{ID}#a", "%2e", "-", "a b", "ü", "a\\b"]
)
def test_odd_arguments(cli: Cli, serve: Serve, server_id: str) -> None:
    """An argument that cannot be an id is refused before anything is sent."""
    served = serve(Cloud(1))
    end = cli("restart", "--endpoint", served.endpoint, "--", served.cloud.ids[0], server_id)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end.err
    assert "cannot be the id of a server" in end.err
    assert not served.cloud.posts


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
