"""The endpoint and the ids that a user gives are checked before anything is sent."""

import re
from typing import Any

import pytest

from bulkrestart.core.endpoint import Endpoint, check_id

PROJECT = "6f70656e737461636b20342065766572"
SERVER = "616fb98f-46ca-475e-917e-2563e5a8cd19"
HEX = SERVER.replace("-", "")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(
            f"https://compute.example.com/v2.1/{PROJECT}",
            (f"https://compute.example.com/v2.1/{PROJECT}", PROJECT, True),
            id="v2.1",
        ),
        pytest.param(
            f"https://ecs.eu-de.otc.t-systems.com/v2/{PROJECT}",
            (f"https://ecs.eu-de.otc.t-systems.com/v2/{PROJECT}", PROJECT, False),
            id="v2",
        ),
        pytest.param("https://h/v2.1/p/", ("https://h/v2.1/p", "p", True), id="a slash at the end"),
        pytest.param("https://h/compute/v2.1/p", ("https://h/compute/v2.1/p", "p", True), id="under a path"),
        pytest.param("https://h/v2/v2.1/p", ("https://h/v2/v2.1/p", "p", True), id="the last version counts"),
        pytest.param("http://127.0.0.1:8774/v2.1/p", ("http://127.0.0.1:8774/v2.1/p", "p", True), id="a port"),
        pytest.param("http://[::1]:8774/v2.1/p", ("http://[::1]:8774/v2.1/p", "p", True), id="IPv6"),
        pytest.param("https://h.example./v2.1/p", ("https://h.example./v2.1/p", "p", True), id="a rooted name"),
        pytest.param(f"https://{'h' * 63}/v2.1/p", (f"https://{'h' * 63}/v2.1/p", "p", True), id="a long label"),
        pytest.param("HTTPS://H/v2.1/p", ("HTTPS://H/v2.1/p", "p", True), id="upper case"),
        pytest.param("https://h/v2/AUTH_p", ("https://h/v2/AUTH_p", "AUTH_p", False), id="a project that is no UUID"),
    ],
)
def test_endpoint(url: str, expected: tuple[str, str, bool]) -> None:
    """An endpoint is a URL that ends in its version and its project."""
    endpoint = Endpoint.parse(url)

    assert (endpoint.url, endpoint.project_id, endpoint.has_microversions) == expected


NO_URL = "must be a URL with its scheme and a valid host"
NO_PROJECT = "must end in /v2.1/ or /v2/ and the project id"
TOO_MUCH = "must have neither user name nor query"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("", NO_URL, id="empty"),
        pytest.param("compute.example.com/v2.1/p", NO_URL, id="no scheme"),
        pytest.param("compute.example.com:8774/v2.1/p", NO_URL, id="a host where the scheme should be"),
        pytest.param("ftp://h/v2.1/p", NO_URL, id="another scheme"),
        pytest.param("https:///v2.1/p", NO_URL, id="no host"),
        pytest.param("https://:8774/v2.1/p", NO_URL, id="a port without a host"),
        pytest.param("https://a..b/v2.1/p", NO_URL, id="a label too few"),
        pytest.param("https://.h/v2.1/p", NO_URL, id="a dot before the host"),
        pytest.param("https://h../v2.1/p", NO_URL, id="two dots after the host"),
        pytest.param(f"https://{'h' * 64}.example/v2.1/p", NO_URL, id="a label too long"),
        pytest.param("https://a b/v2.1/p", NO_URL, id="a host with a blank"),
        pytest.param("https://h\x00/v2.1/p", NO_URL, id="a host with NUL"),
        pytest.param("https://h\n/v2.1/p", NO_URL, id="a host with a line end"),
        pytest.param("https://h\ud800/v2.1/p", NO_URL, id="a host with half a character"),
        pytest.param("https://h\xad/v2.1/p", NO_URL, id="a host with a soft hyphen"),
        pytest.param("https://h:0/v2.1/p", NO_URL, id="port 0"),
        pytest.param("https://h:65536/v2.1/p", NO_URL, id="a port too large"),
        pytest.param("https://h:http/v2.1/p", NO_URL, id="a port that is no number"),
        pytest.param("https://[::1/v2.1/p", NO_URL, id="a bracket too few"),
        pytest.param("https://admin:s3cret@h/v2.1/p", TOO_MUCH, id="user and password"),
        pytest.param("https://:s3cret@h/v2.1/p", TOO_MUCH, id="a password alone"),
        pytest.param("https://@h/v2.1/p", TOO_MUCH, id="an empty user"),
        pytest.param("https://h/v2.1/p?limit=1", TOO_MUCH, id="a query"),
        pytest.param("https://h/v2.1/p#top", TOO_MUCH, id="a fragment"),
        pytest.param("https://h/v2.1/p?", TOO_MUCH, id="an empty query, which would swallow the path of each request"),
        pytest.param("https://h/v2.1/p#", TOO_MUCH, id="an empty fragment, which would swallow it too"),
        pytest.param("https://h", NO_PROJECT, id="no path"),
        pytest.param("https://h/v2.1", NO_PROJECT, id="no project"),
        pytest.param("https://h/v2.1/", NO_PROJECT, id="an empty project"),
        pytest.param("https://h/v2.1/p/servers", NO_PROJECT, id="more than the project"),
        pytest.param("https://h/v3/p", NO_PROJECT, id="another version"),
        pytest.param("https://h/v1/p", NO_PROJECT, id="the provider's own API"),
        pytest.param("https://h/v2.10/p", NO_PROJECT, id="a version that only begins so"),
        pytest.param("https://h/xv2/p", NO_PROJECT, id="a version that only ends so"),
        pytest.param("https://h/v2.1/p//", NO_PROJECT, id="two slashes at the end"),
    ],
)
def test_endpoint_that_is_none(url: str, words: str) -> None:
    """What cannot be an endpoint is refused with an example of one, and never repeated: it may hold a password."""
    with pytest.raises(ValueError, match=words) as caught:
        Endpoint.parse(url)

    assert "https://compute.example.com/v2.1/PROJECT_ID" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("url", "kind"), [(None, "NoneType"), (5, "int"), (b"https://h/v2.1/p", "bytes")])
def test_endpoint_must_be_a_string(url: Any, kind: str) -> None:
    """A variable that is not set, or a URL of another type, is refused with an example."""
    with pytest.raises(ValueError, match=f"^the endpoint must be a string such as https://.*, not {kind}$"):
        Endpoint.parse(url)


@pytest.mark.parametrize(
    "url",
    ["https://h/v2.1/p\n", "https://h/v2.1/p\t", " https://h/v2.1/p", "https://h/v2.1/p ", "https://h/v2.1/\np"],
    ids=repr,
)
def test_white_space_never_becomes_part_of_a_request(url: str) -> None:
    """White space around or in an endpoint, as a file or a variable leaves it, is dropped or refused, not kept."""
    try:
        endpoint = Endpoint.parse(url)
    except ValueError:
        return

    assert endpoint == Endpoint(url="https://h/v2.1/p", project_id="p", has_microversions=True)


@pytest.mark.parametrize(
    "raw",
    [
        SERVER,
        SERVER.upper(),
        HEX,
        HEX.upper(),
        f"{{{SERVER}}}",
        f"urn:uuid:{SERVER}",
        f"URN:UUID:{SERVER}".lower(),
    ],
)
def test_one_server_has_one_id(raw: str) -> None:
    """Every spelling of a UUID that Nova takes is one server, so it cannot be restarted for each."""
    assert check_id(raw) == SERVER


@pytest.mark.parametrize(
    "raw",
    [
        "1",
        "web-1",
        "i-0a1b2c3d",
        "Web_1.example.com",
        "_1",
        "eu-de-1:7",
        HEX[:-1],
        f"{SERVER}0",
        "g" + HEX[1:],
        "x" * 255,
    ],
)
def test_odd_id_is_left_as_it_is(raw: str) -> None:
    """What is no UUID may still be the id of a server: that is for the cloud to say, in its own case."""
    assert check_id(raw) == raw


@pytest.mark.parametrize("raw", ["0x" + HEX[2:], HEX[0] + "_" + HEX[2:]], ids=["a prefix", "an underscore"])
def test_id_that_python_alone_takes_for_a_uuid_is_not_rewritten(raw: str) -> None:
    """int() reads more than Nova does; rewriting such an id would name another server than the user did."""
    assert check_id(raw) == raw


@pytest.mark.parametrize(
    "raw",
    [
        "",
        ".",
        "..",
        "a/b",
        f"servers/{SERVER}",
        f"{SERVER}/",
        " ",
        f" {SERVER}",
        f"{SERVER}\n",
        "a b",
        "a\tb",
        "a\u00a0b",
        "a\u2028b",
        "a\x00b",
        "a\x1b[2Jb",
        "a\u202eb",
        "\ufeffa",
        "\ud800",
        "x" * 256,
        "x" * 100_000,
        "+" + HEX[1:],
        "\uff16" + HEX[1:],
    ],
    ids=lambda raw: ascii(raw[:20]),
)
def test_id_that_cannot_be_one(raw: str) -> None:
    """What cannot be the id of a server is refused on one short, printable line."""
    with pytest.raises(ValueError, match="cannot be the id of a server") as caught:
        check_id(raw)

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("position", ["begin", "middle", "end"])
@pytest.mark.parametrize("char", [*"?#\"',;%\\|&=<>()[]{}*!@$^`~+", "Ä", "\u200b", "\u2019", "\uff11"])
def test_a_character_that_no_id_holds(char: str, position: str) -> None:
    """Quotes, commas, what ends a path, and all that is not ASCII are refused with the character and the remedy."""
    raw = {"begin": f"{char}web-1", "middle": f"web{char}1", "end": f"web-1{char}"}[position]
    words = (
        "white space or control" if char == "\u200b" else re.escape(f"it holds {char!r}; give ids, or select servers")
    )
    with pytest.raises(ValueError, match=words):
        check_id(raw)


@pytest.mark.parametrize("raw", ["-1", "--all", ".hidden", "..a", ":1"])
def test_a_beginning_that_no_id_has(raw: str) -> None:
    """What looks like an option or a hidden file is refused."""
    with pytest.raises(ValueError, match=f"it begins with '{raw[0]}'; give ids"):
        check_id(raw)


@pytest.mark.parametrize(
    ("raw", "kind"), [(None, "NoneType"), (7, "int"), (SERVER.encode(), "bytes"), ([SERVER], "list")]
)
def test_id_must_be_a_string(raw: object, kind: str) -> None:
    """A number or bytes are a mistake of the caller's, not an odd id."""
    with pytest.raises(ValueError, match=f"^a server id must be a string, not {kind}: give the id itself$"):
        check_id(raw)
