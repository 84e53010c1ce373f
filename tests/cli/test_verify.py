"""`--verify-tcp` and `--verify-http`: what is checked when a server is back, and what the command says of it."""

import json
from pathlib import Path
from typing import Final

import pytest

from bulkrestart.simulator import Cloud

from .conftest import Cli, Serve

ENDPOINT: Final = "http://127.0.0.1:9/v2.1/p"


def quick_cloud() -> Cloud:
    """Make a cloud of two servers on loopback, whose reboots take no time."""
    cloud = Cloud(2, reboot_seconds=(0.1, 0.1))
    for server_id in cloud.ids:
        cloud.change(server_id, addresses={"private": {"127.0.0.1": "fixed"}})
    return cloud


def test_verified(cli: Cli, serve: Serve) -> None:
    """Servers that pass are verified, which is well: exit 0. The journal's command knows the word as well."""
    served = serve(quick_cloud())
    port = served.endpoint.split(":")[2].split("/")[0]
    end = cli("restart", "--endpoint", served.endpoint, *served.cloud.ids, "--verify-tcp", port)
    assert (end.code, end.err) == (0, "")
    assert end.out.splitlines()[-1].startswith("2 verified in ")
    assert end.out.count("  verified") == 2


def test_not_verified(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """Servers that do not pass have failed: exit 1, in the words of the check; the journal has it so."""
    served = serve(quick_cloud())
    host = served.endpoint.removeprefix("http://").split("/")[0]
    url, journal = f"http://{{address}}:{host.split(':')[1]}/nothing/{{id}}", str(tmp_path / "journal")
    end = cli(
        *("restart", "--endpoint", served.endpoint, *served.cloud.ids, "--journal", journal, "--output", "json"),
        *("--verify-http", url, "--verify-timeout", "0.5"),
    )
    assert end.code == 1
    report = json.loads(end.out)
    assert report["summary"] == {"failed": 2}
    for result in report["results"]:
        where = f"http://127.0.0.1:{host.split(':')[1]}/nothing/{result['server_id']}"
        assert (result["reason"], result["proof"]) == ("verify_failed", "action")
        assert result["detail"] == f"NotWellError: {where} answers 300, not 200"
    assert cli("journal", journal).out.count("verify_failed") == 2


def test_whoever_was_not_verified_is_left(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    """A run that did not check is finished; the same command with a check goes on with that."""
    served = serve(quick_cloud())
    port = served.endpoint.split(":")[2].split("/")[0]
    command = ("restart", "--endpoint", served.endpoint, *served.cloud.ids, "--journal", str(tmp_path / "journal"))
    assert cli(*command).out.splitlines()[-1].startswith("2 completed in ")
    assert cli(*command, "--verify-tcp", port).out.splitlines()[-1].startswith("2 verified in ")
    assert "nothing is left to do" in cli(*command, "--verify-tcp", port).err
    assert set(served.cloud.posts.values()) == {1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--verify-tcp", "22", "--verify-http", "http://{address}/"), "give --verify-tcp or --verify-http, one of"),
        (("--verify-tcp", "0"), "--verify-tcp: port must be a whole number from 1 to 65535, not 0"),
        (("--verify-http", "{address}"), "--verify-http: url must be such as http://{address}/health, not "),
        (
            ("--verify-http", "http://{ip}/"),
            "--verify-http: url must have no other fields than {address}, {id}, {name}",
        ),
        (
            ("--verify-tcp", "22", "--no-wait"),
            "a server is verified when it is back: leave out --no-wait, or the check",
        ),
        (("--verify-tcp", "22", "--verify-timeout", "0"), "--verify-timeout must be a positive number of seconds"),
    ],
)
def test_bad_options(cli: Cli, options: tuple[str, ...], words: str) -> None:
    """A check that makes no sense is exit 2 and one line, before anything is sent."""
    end = cli("restart", "--endpoint", ENDPOINT, "a", *options)
    assert (end.code, end.out) == (2, "")
    assert end.err.startswith(f"bulkrestart: {words}")
    assert end.err.count("\n") == 1
