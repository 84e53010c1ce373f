"""Servers that are selected: what may be given, who is restarted, and what is asked before."""

import os
import ssl

import pytest

from bulkrestart.cli.select import Selectors, read_selectors
from bulkrestart.cloud.credentials import CatalogAuth, Issued, SignInError, Trouble
from bulkrestart.core.errors import EndpointError
from bulkrestart.core.target import Target
from bulkrestart.simulator import Call, Cloud, Fault

from .conftest import Cli, Clouds, Serve, sdk_warns
from .test_ask import read_until, terminal

NOWHERE = "http://127.0.0.1:9/v2.1/0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--all", "--name", "web"), "--all selects every server: give it alone"),
        (("--all", "--status", "ACTIVE"), "--all selects every server: give it alone"),
        (("--all", "--tag", "a"), "--all selects every server: give it alone"),
        (("--all", "--az", "az-1"), "--all selects every server: give it alone"),
        (("--all", "--metadata", "a=b"), "--all selects every server: give it alone"),
        (("--all", "--name", ""), "--all selects every server: give it alone"),
        (("--name", ""), "--name must be a regular expression of at least one character, not ''"),
        (("--name", "("), "--name must be a regular expression, not '(': missing )"),
        (("--name", "(tags"), "--name must be a regular expression, not '(tags': missing )"),
        (("--name", "[\x1b[31m"), "--name must be a regular expression, not '[\\x1b[31m'"),
        (("--status", ""), "--status must be words that are not empty, one each, not ''"),
        (("--status", "ACTIVE,ERROR"), "--status must be words that are not empty, one each, not 'ACTIVE,ERROR'"),
        (("--status", "tags,more"), "--status must be words that are not empty, one each, not 'tags,more'"),
        (("--tag", ""), "--tag must be words that are not empty, one each, not ''"),
        (("--tag", "a", "--tag", " "), "--tag must be words that are not empty, one each, not ' '"),
        (("--tag", "a,b"), "--tag must be words that are not empty, one each, not 'a,b'"),
        (("--az", ""), "--az must be words that are not empty, one each, not ''"),
        (("--metadata", "role"), "--metadata must be KEY=VALUE, not 'role'"),
        (("--metadata", ""), "--metadata must be KEY=VALUE, not ''"),
        (("--metadata", "=web"), "--metadata must be KEY=VALUE, not '=web'"),
        # Servers with either are not meant, and none has both.
        (("--metadata", "role=web", "--metadata", "role=db"), "--metadata"),
    ],
)
def test_bad_selectors(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    """What cannot be meant is one line that names the option, and selects neither nobody nor everybody."""
    for command in "servers", "restart":
        end = cli(command, "--endpoint", NOWHERE, *arguments)
        assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end
        assert words in end.err


@pytest.mark.parametrize("selectors", [("--all",), ("--name", "web"), ("--tag", "a"), ("--metadata", "a=")])
@pytest.mark.parametrize("ids", [("ID",), ("--ids-from", "-"), ("ID", "--ids-from", "/no/such/file")])
def test_ids_and_selectors(cli: Cli, selectors: tuple[str, ...], ids: tuple[str, ...]) -> None:
    """Ids and selectors exclude each other."""
    end = cli("restart", "--endpoint", NOWHERE, *selectors, *ids)
    assert (end.code, end.err) == (2, "bulkrestart: give ids, or select servers, not both\n")


def test_nothing_to_go_by(cli: Cli) -> None:
    """No selector selects nothing: there is no default of all."""
    end = cli("servers", "--endpoint", NOWHERE)
    words = "nothing selects servers: give --all, or --name, --status, --tag, --az and --metadata"
    assert (end.code, end.err) == (2, f"bulkrestart: {words}\n")
    end = cli("restart", "--endpoint", NOWHERE)
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert "no server ids: " in end.err


def test_selectors_that_are_given() -> None:
    """What the options give is what the library takes; a value may be empty, and may hold an equals sign."""
    assert read_selectors(
        is_all=False,
        name="^web",
        status=["active", "ERROR"],
        tags=["a", "b"],
        az=["az-1"],
        metadata=["role=web", "note=", "expression=a=b"],
    ) == Selectors(
        name="^web",
        status=["active", "ERROR"],
        tags=["a", "b"],
        az=["az-1"],
        metadata={"role": "web", "note": "", "expression": "a=b"},
    )
    nothing = Selectors(name=None, status=(), tags=(), az=(), metadata={})
    assert read_selectors(is_all=True, name=None, status=(), tags=(), az=(), metadata=()) == nothing
    assert read_selectors(is_all=False, name=None, status=(), tags=(), az=(), metadata=()) is None


def some_cloud() -> Cloud:
    """Make a cloud of six servers that differ, in pages of two."""
    cloud = Cloud(6, max_limit=2, reboot_seconds=(0.01, 0.02))
    first, second, third, fourth, fifth, _ = cloud.ids
    cloud.change(first, tags=("fix",), metadata={"role": "web"})
    cloud.change(second, tags=("fix", "blue"), metadata={"role": "web", "note": ""})
    cloud.change(third, name="db-1")
    cloud.change(fourth, name="db-2", vm_state="error")
    cloud.change(fifth, vm_state="stopped")
    return cloud


SELECTED = [
    (("--all",), {0, 1, 2, 3, 4, 5}),
    (("--name", "^db-"), {2, 3}),
    (("--name", "1$"), {0, 2}),
    (("--status", "shutoff"), {4}),
    (("--status", "SHUTOFF", "--status", "error"), {3, 4}),
    (("--tag", "fix"), {0, 1}),
    (("--tag", "fix", "--tag", "blue"), {1}),
    (("--az", "az-1", "--az", "az-2"), {0, 1, 3, 4}),
    (("--metadata", "role=web"), {0, 1}),
    (("--metadata", "role=web", "--metadata", "note="), {1}),
    (("--name", "db", "--status", "ACTIVE"), {2}),
]


@pytest.mark.parametrize(("selectors", "numbers"), SELECTED)
def test_restart_of_the_selected(cli: Cli, serve: Serve, selectors: tuple[str, ...], numbers: set[int]) -> None:
    """Those who are selected are sent to, and nobody else."""
    served = serve(some_cloud())
    end = cli("restart", "--endpoint", served.endpoint, "--no-wait", *selectors)
    assert end.code in (0, 1)
    assert end.err == ""
    chosen = {served.cloud.ids[number] for number in numbers}
    assert {line.split()[0] for line in end.out.splitlines()[:-1]} == chosen
    assert set(served.cloud.posts) == chosen


def test_restart_to_the_end(cli: Cli, serve: Serve) -> None:
    """Servers that were selected come back like others, each cycled once."""
    served = serve(some_cloud())
    end = cli("restart", "--endpoint", served.endpoint, "--tag", "fix")
    assert (end.code, end.err) == (0, "")
    assert end.out.splitlines()[-1].startswith("2 completed in ")
    assert list(served.cloud.cycles.values()) == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_restart_of_nobody(cli: Cli, serve: Serve, output: str) -> None:
    """A restart for which nobody fits is exit 2: whoever gave it expected somebody."""
    served = serve(some_cloud())
    end = cli("restart", "--endpoint", served.endpoint, "--name", "nobody", "--output", output)
    words = "no server fits the selection; see what there is with bulkrestart servers --all"
    assert (end.code, end.out, end.err) == (2, "", f"bulkrestart: {words}\n")
    assert not served.cloud.posts


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([Fault.error(403, "Policy says \x1b[31mno")], "servers cannot be listed: Policy says"),
        ([None, *[Fault.error(403, "no")] * 20], "give their ids; nothing was sent"),
        ([Fault.respond(404, b"<html>")] * 3, "check the URL"),
        ([Fault.respond(200, b"<html>")] * 3, "check the URL"),
        ([Fault.error(400, "Invalid status value")], "the cloud cannot select so: Invalid status value"),
    ],
)
@pytest.mark.parametrize("command", ["servers", "restart"])
def test_a_list_that_is_refused(cli: Cli, serve: Serve, command: str, faults: list[Fault | None], words: str) -> None:
    """A list that cannot be read to its end restarts nobody; one line says why, and exit 2."""
    served = serve(some_cloud())
    served.cloud.script(None, *faults, call=Call.LIST)
    end = cli(command, "--endpoint", served.endpoint, "--all", "--yes" if command == "restart" else "--output=json")
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end
    assert words in end.err
    assert "\x1b" not in end.err
    assert not served.cloud.posts


def test_tags_that_are_not_shown(cli: Cli, serve: Serve) -> None:
    """Where a cloud shows no tags, selecting by them is refused; it does not select nobody, or everybody."""
    served = serve(Cloud(3, max_microversion="2.25"))
    for command in "servers", "restart":
        end = cli(command, "--endpoint", served.endpoint, "--tag", "fix")
        assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
        assert "tags are not shown by this cloud" in end.err
    assert not served.cloud.posts


class OtherKeystone(CatalogAuth):
    """A sign-in that gives the simulator's token, and knows where it is."""

    def __init__(self, endpoint: str, trouble: Trouble | None = None) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._signs_in_with = trouble
        self.fetches = 0

    async def fetch(self) -> Issued:
        """Give the token."""
        self.fetches += 1
        if self._signs_in_with is not None:
            raise SignInError(self._signs_in_with)
        return Issued({"X-Auth-Token": "token"}, 3600.0)

    async def find_target(self) -> Target:
        """Give the target, if there is one."""
        if not self._endpoint:
            raise EndpointError("the catalog has no compute service; nothing was sent")
        return Target(
            endpoint=self._endpoint,
            project_id=self._endpoint.rsplit("/", 1)[1],
            project_name="web",
            cloud="production",
            region="west",
        )

    def remedy(self, refusal: object) -> str:
        """Say what may help."""
        return "ask the other one"

    def tls_context(self) -> ssl.SSLContext:
        """Trust the system's certificates."""
        return ssl.create_default_context()


def sign_in_by(monkeypatch: pytest.MonkeyPatch, keystone: OtherKeystone) -> OtherKeystone:
    """Let every cloud be this one."""
    monkeypatch.setattr("bulkrestart.cloud.keystone.Keystone.from_cloud", lambda *_, **__: keystone)
    return keystone


@sdk_warns
@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 2), (b"\x04", 2)])
@pytest.mark.parametrize("is_selected", [True, False])
def test_question(
    cli: Cli, serve: Serve, clouds: Clouds, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: int, is_selected: bool
) -> None:
    """The question names the cloud, its endpoint, the project, and what is to be expected; one sign-in does."""
    served = serve(Cloud(11))
    cloud = served.cloud
    keystone = sign_in_by(monkeypatch, OtherKeystone(served.endpoint))
    which = ["--all"] if is_selected else cloud.ids
    with terminal() as (master, name):
        monkeypatch.setattr("bulkrestart.cli.ask.TERMINAL", name)
        os.write(master, answer)
        end = cli("restart", "--cloud", "production", "--no-wait", *which)
        os.write(master, b"end\n")
        seen = read_until(master, "end").replace("\r", "")
    assert end.code == code
    listed = cloud.page(cloud.project_id, limit=3) if is_selected else map(cloud.server, cloud.ids[:3])
    named = [server.name for server in listed]
    assert (
        "SOFT restart of 11 servers, at most 50 requests at once\n"
        "  cloud     production\n"
        "  region    west\n"
        f"  project   web ({cloud.project_id})\n"
        f"  endpoint  {served.endpoint}\n"
        f"  servers   {', '.join(named)} and 8 more\n"
        "  expected  11 to be sent to\n"
        "  waves     1 of 11 servers\n"
        "  stops     if more than 5 fail, or more than 20 are refused\n"
        "  takes     12 requests and 0 s at the least, besides the reboots\n"
        "Restart them? [y/N] "
    ) in seen
    assert cloud.posts.total() == (0 if code else 11)
    assert keystone.fetches == 1


def test_names_in_the_question_are_text(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What users call their servers reaches the terminal as text, and a server without a name is its id."""
    served = serve(Cloud(11))
    nameless, tricky = (server.id for server in served.cloud.page(served.cloud.project_id, limit=2))
    served.cloud.change(nameless, name="")
    served.cloud.change(tricky, name="\x1b[2J\u202eweb")
    with terminal() as (master, name):
        monkeypatch.setattr("bulkrestart.cli.ask.TERMINAL", name)
        os.write(master, b"n\n")
        assert cli("restart", "--endpoint", served.endpoint, "--all").code == 2
        os.write(master, b"end\n")
        seen = read_until(master, "end")
    assert f"  servers   {nameless}, \\x1b[2J\\u202eweb, web-00" in seen
    assert "\x1b[2J" not in seen
    assert "  cloud " not in seen


@pytest.mark.parametrize(
    ("endpoint", "trouble", "words"),
    [
        ("", None, "the catalog has no compute service; nothing was sent"),
        ("http://127.0.0.1:9/compute", None, "the catalog names http://127.0.0.1:9/compute: the endpoint must end in"),
        ("x", Trouble("the password is refused", "check it", is_final=True), "the password is refused; check it"),
    ],
)
@pytest.mark.parametrize("command", [("servers", "--all"), ("restart", "--all"), ("restart", "ID"), ("restart",)])
@sdk_warns
def test_no_sign_in(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
    trouble: Trouble | None,
    words: str,
    command: tuple[str, ...],
) -> None:
    """A sign-in that is refused, or finds no compute API, is one line and exit 2, whoever asks for it first."""
    keystone = sign_in_by(monkeypatch, OtherKeystone(endpoint, trouble))
    ids = [f"server-{number}" for number in range(11)] if command == ("restart",) else []
    end = cli(*command, *ids, "--cloud", "production")
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1), end
    assert words in end.err
    assert keystone.fetches == 1
