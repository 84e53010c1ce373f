"""`bulkrestart servers`: the servers that would be selected, in each form, and what is said where they cannot be."""

import errno
import io
import json
import os
import sys
from dataclasses import fields

import pytest

from bulkrestart import Server
from bulkrestart.simulator import Call, Cloud, Fault

from .conftest import Cli, Serve
from .test_select import SELECTED, some_cloud


@pytest.mark.parametrize(("selectors", "numbers"), SELECTED)
def test_selected(cli: Cli, serve: Serve, selectors: tuple[str, ...], numbers: set[int]) -> None:
    """It shows whom a restart with the same selectors would be about, and sends nothing."""
    served = serve(some_cloud())
    end = cli("servers", "--endpoint", served.endpoint, *selectors)
    assert (end.code, end.err) == (0, "")
    assert {line.split()[0] for line in end.out.splitlines()} == {served.cloud.ids[number] for number in numbers}
    assert {record.call for record in served.cloud.requests} == {Call.LIST}


def test_table(cli: Cli, serve: Serve) -> None:
    """The table has id, status, zone, name and lock, safely, as the cloud lists them."""
    served = serve(Cloud(3))
    first, second, third = served.cloud.ids
    served.cloud.change(first, vm_state="shelved_offloaded", locked=True)
    served.cloud.change(second, name="\x1b[31mred\u202e", availability_zone="")
    served.cloud.change(third, name="")
    end = cli("servers", "--endpoint", served.endpoint, "--all")
    lines = {line.split()[0]: line for line in end.out.splitlines()}
    assert lines == {
        first: f"{first}  SHELVED_OFFLOADED  az-1  web-0001  locked",
        second: f"{second}  ACTIVE               \\x1b[31mred\\u202e",
        third: f"{third}  ACTIVE             az-3",
    }


@pytest.mark.parametrize("output", ["json", "jsonl"])
def test_json(cli: Cli, serve: Serve, output: str) -> None:
    """JSON has every field of a server, by its name in the library; control characters are escaped."""
    served = serve(some_cloud())
    server_id = served.cloud.ids[1]
    served.cloud.change(server_id, name="\x1b[31mZ\u00fcrich", addresses={"private": {"10.0.0.7": "fixed"}})
    end = cli("servers", "--endpoint", served.endpoint, "--tag", "fix", "--output", output)
    rows = json.loads(end.out) if output == "json" else [json.loads(line) for line in end.out.splitlines()]
    assert (end.code, end.err) == (0, "")
    assert [list(row) for row in rows] == [[field.name for field in fields(Server)]] * 2
    [row] = [row for row in rows if row["id"] == server_id]
    assert row == {
        "id": server_id,
        "name": "\x1b[31mZ\u00fcrich",
        "status": "ACTIVE",
        "vm_state": "active",
        "task_state": None,
        "locked": False,
        "fault": "",
        "is_derived": False,
        "updated": row["updated"],
        "availability_zone": "az-2",
        "host_id": served.cloud.server(server_id).host_id,
        "tags": ["fix", "blue"],
        "metadata": {"role": "web", "note": ""},
        "addresses": [{"address": "10.0.0.7", "network": "private", "version": 4, "is_floating": False}],
    }
    assert "\x1b" not in end.out


@pytest.mark.parametrize(("output", "out"), [("table", ""), ("json", "[]\n"), ("jsonl", "")])
def test_nobody(cli: Cli, serve: Serve, output: str, out: str) -> None:
    """That nobody fits is an answer: exit 0, a line on standard error, and JSON that is whole."""
    served = serve(some_cloud())
    end = cli("servers", "--endpoint", served.endpoint, "--name", "nobody", "--output", output)
    assert (end.code, end.out, end.err) == (0, out, "bulkrestart: no server fits\n")


@pytest.mark.parametrize("output", ["table", "jsonl"])
def test_a_list_that_breaks_off(cli: Cli, serve: Serve, output: str) -> None:
    """Where a later page is refused, what was shown before stays, and exit 2 says that it is not all."""
    served = serve(some_cloud())
    served.cloud.script(None, None, *[Fault.error(403, "no")] * 20, call=Call.LIST)
    end = cli("servers", "--endpoint", served.endpoint, "--all", "--output", output)
    assert (end.code, len(end.out.splitlines()), end.err.count("\n")) == (2, 2, 1)
    assert "servers cannot be listed: no" in end.err


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
@pytest.mark.parametrize("trouble", ["closed", "full", "no reader"])
def test_standard_output(cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch, output: str, trouble: str) -> None:
    """What is lost is said, and exit 5; a reader that wants no more (head) is not told."""
    served = serve(some_cloud())
    if trouble == "closed":
        descriptor = -1
        monkeypatch.setattr("sys.stdout", None)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
        if trouble == "full":
            os.close(descriptor)
            descriptor = os.open("/dev/full", os.O_WRONLY)
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), "utf-8"))
    end = cli("servers", "--endpoint", served.endpoint, "--all", "--output", output)
    if descriptor >= 0:
        os.close(descriptor)
    lost = {"closed": "it is closed", "full": os.strerror(errno.ENOSPC)}
    if trouble == "no reader":
        assert (end.code, end.err) == (0, "")
    else:
        assert (end.code, end.err) == (5, f"bulkrestart: standard output could not be written: {lost[trouble]}\n")
