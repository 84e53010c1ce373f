"""Which servers are meant: what a user may give, what fits it, and what may be left to the cloud."""

import re
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from bulkrestart.core.model import Server
from bulkrestart.core.selection import Selection
from bulkrestart.simulator import Cloud, SimulatedServer
from bulkrestart.simulator.queries import read_filter
from bulkrestart.simulator.rules import STATUSES
from tests.naming import name_of

SERVER: Final = Server(
    id="616fb98f-46ca-475e-917e-2563e5a8cd19",
    name="web-0001.example",
    status="ACTIVE",
    availability_zone="az-1",
    tags=("kernel-fix", "Blue"),
    metadata={"role": "web", "note": ""},
)
BARE: Final = Server(id="s")


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [
        ({}, Selection()),
        ({"name": "^web"}, Selection(name=re.compile("^web"))),
        ({"name": " "}, Selection(name=re.compile(" "))),
        ({"status": "shutoff"}, Selection(statuses=frozenset({"SHUTOFF"}))),
        ({"status": ["Active", "ACTIVE", "error"]}, Selection(statuses=frozenset({"ACTIVE", "ERROR"}))),
        ({"status": ()}, Selection()),
        ({"tags": "a b"}, Selection(tags=frozenset({"a b"}))),
        ({"tags": {"a", "A"}}, Selection(tags=frozenset({"a", "A"}))),
        ({"az": ("az-1", "az-2")}, Selection(zones=frozenset({"az-1", "az-2"}))),
        ({"metadata": {"role": "web", "note": ""}}, Selection(metadata={"role": "web", "note": ""})),
        ({"metadata": None}, Selection()),
        ({"metadata": {}}, Selection()),
    ],
)
def test_parse(arguments: dict[str, Any], parsed: Selection) -> None:
    """One word is as good as several, and statuses are read in any case."""
    assert Selection.parse(**arguments) == parsed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": ""}, "name must be a regular expression of at least one character, not ''"),
        ({"name": 5}, "name must be a regular expression of at least one character, not 5"),
        ({"name": b"web"}, "name must be a regular expression of at least one character, not b'web'"),
        ({"name": re.compile("web")}, "name must be a regular expression of at least one character, not re.compile"),
        ({"name": "("}, "name must be a regular expression, not '(': missing )"),
        ({"name": "*web"}, "name must be a regular expression, not '*web': nothing to repeat"),
        ({"name": "a{99999999999999999999}"}, "name must be a regular expression, not 'a{"),
        ({"name": "(" * 5000 + ")" * 5000}, "name must be a regular expression, not '(("),
        ({"status": ""}, "status must be words that are not empty, one each, not ''"),
        ({"status": " \t"}, "status must be words that are not empty, one each, not"),
        ({"status": "ACTIVE,ERROR"}, "status must be words that are not empty, one each, not 'ACTIVE,ERROR'"),
        ({"status": None}, "status must be a word or several, not None"),
        ({"status": 5}, "status must be a word or several, not 5"),
        ({"status": iter(["ACTIVE"])}, "status must be a word or several, not <"),
        ({"status": b"ACTIVE"}, "status must be"),
        ({"status": ["ACTIVE", None]}, "status must be words that are not empty, one each, not None"),
        ({"tags": ""}, "tags must be words that are not empty, one each, not ''"),
        ({"tags": ["a", ""]}, "tags must be words that are not empty, one each, not ''"),
        ({"tags": "a,b"}, "tags must be words that are not empty, one each, not 'a,b'"),
        ({"tags": [["a"]]}, "tags must be words that are not empty, one each, not ['a']"),
        ({"az": ""}, "az must be words that are not empty, one each, not ''"),
        ({"az": 1}, "az must be a word or several, not 1"),
        ({"metadata": "role=web"}, "metadata must be a mapping of keys to values, not 'role=web'"),
        ({"metadata": [("role", "web")]}, "metadata must be a mapping of keys to values, not [("),
        ({"metadata": {"role": None}}, "metadata must be keys and values of text, not 'role': None"),
        ({"metadata": {1: "a"}}, "metadata must be keys and values of text, not 1: 'a'"),
        ({"metadata": {"": "a"}}, "metadata must be keys and values of text, not '': 'a'"),
    ],
    ids=name_of,
)
def test_what_cannot_be_meant(arguments: dict[str, Any], words: str) -> None:
    """What cannot be meant is one line that names the argument; it becomes no selection of nobody, or of everybody."""
    with pytest.raises(ValueError, match=f"^{re.escape(words)}") as caught:
        Selection.parse(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "server", "is_meant"),
    [
        ({}, SERVER, True),
        ({}, BARE, True),
        ({"name": "^web-"}, SERVER, True),
        ({"name": r"0001\."}, SERVER, True),
        ({"name": "^0001"}, SERVER, False),
        ({"name": "^WEB"}, SERVER, False),
        ({"name": "(?i)^WEB"}, SERVER, True),
        ({"name": "."}, BARE, False),
        ({"status": "active"}, SERVER, True),
        ({"status": ["ERROR", "ACTIVE"]}, SERVER, True),
        ({"status": "ERROR"}, SERVER, False),
        ({"status": "ACT"}, SERVER, False),
        ({"status": "ACTIVE"}, BARE, False),
        ({"tags": "kernel-fix"}, SERVER, True),
        ({"tags": ["kernel-fix", "Blue"]}, SERVER, True),
        ({"tags": ["kernel-fix", "Green"]}, SERVER, False),
        ({"tags": "blue"}, SERVER, False),
        ({"tags": "kernel"}, SERVER, False),
        ({"tags": "Blue"}, BARE, False),
        ({"az": "az-1"}, SERVER, True),
        ({"az": ["az-2", "az-1"]}, SERVER, True),
        ({"az": "az"}, SERVER, False),
        ({"az": "AZ-1"}, SERVER, False),
        ({"az": "az-1"}, BARE, False),
        ({"metadata": {"role": "web"}}, SERVER, True),
        ({"metadata": {"role": "web", "note": ""}}, SERVER, True),
        ({"metadata": {"role": "web", "other": ""}}, SERVER, False),
        ({"metadata": {"role": "Web"}}, SERVER, False),
        ({"metadata": {"note": ""}}, BARE, False),
        ({"name": "web", "status": "ACTIVE", "tags": "Blue", "az": "az-1", "metadata": {"note": ""}}, SERVER, True),
        ({"name": "web", "status": "ERROR", "tags": "Blue", "az": "az-1", "metadata": {"note": ""}}, SERVER, False),
        ({"name": "web", "status": "ACTIVE", "tags": "Blue", "az": "az-2", "metadata": {"note": ""}}, SERVER, False),
    ],
)
def test_fits(arguments: dict[str, Any], server: Server, is_meant: bool) -> None:
    """Everything that is given must fit; what the cloud does not show fits nothing."""
    assert Selection.parse(**arguments).fits(server) is is_meant


#: A server of a cell that is down (Nova's api-guide, down cells).
DOWN = Server(id="s", status="UNKNOWN")


@pytest.mark.parametrize(
    ("arguments", "server", "is_undecided"),
    [
        ({}, BARE, False),
        ({"name": "web"}, DOWN, True),
        ({"tags": "Blue"}, DOWN, True),
        ({"az": "az-1"}, DOWN, True),
        ({"metadata": {"role": "web"}}, DOWN, True),
        ({"status": "UNKNOWN"}, DOWN, False),
        ({"status": "ACTIVE"}, DOWN, False),
        ({"status": "ACTIVE"}, BARE, True),
        ({"status": "ACTIVE", "name": "web"}, DOWN, False),
        ({"status": "UNKNOWN", "name": "web"}, DOWN, True),
        ({"az": "az-1"}, Server(id="s", name="never-launched"), False),
        ({"metadata": {"role": "web"}}, Server(id="s", name="without"), False),
        ({"tags": "Blue"}, Server(id="s", name="without", tags=()), False),
        ({"name": "db"}, SERVER, False),
    ],
)
def test_is_undecided(arguments: dict[str, Any], server: Server, is_undecided: bool) -> None:
    """A server that is shown without the selected attributes is neither selected nor silently left out."""
    selection = Selection.parse(**arguments)
    assert selection.is_undecided(server) is is_undecided
    assert not (is_undecided and selection.fits(server))


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ({}, {}),
        ({"name": "^web", "az": "az-1", "metadata": {"role": "web"}}, {}),
        ({"status": "shutoff"}, {"status": "SHUTOFF"}),
        ({"status": ["SHUTOFF", "ERROR"]}, {}),
        ({"tags": ["b", "a"]}, {"tags": "a,b"}),
        ({"tags": ["a", "*"]}, {}),
        ({"status": ["active", "ACTIVE"], "tags": "a"}, {"status": "ACTIVE", "tags": "a"}),
    ],
)
def test_filters(arguments: dict[str, Any], query: dict[str, str]) -> None:
    """The cloud is asked to leave out by one status and by tags, and by nothing else."""
    assert Selection.parse(**arguments).filters == query


TASKS: Final = sorted({task for _, tasks in STATUSES.values() for task in tasks})
#: As Nova takes them (nova/api/validation/parameter_types.py `tag`).
TAG: Final = st.text(st.characters(exclude_characters=",/", exclude_categories=["C"]), min_size=1, max_size=60)
WORDS: Final = st.sampled_from(["a", "b", "A"]) | st.text("ab*+?([{\\", min_size=1) | TAG.filter(str.strip)


@cache
def every_state() -> Cloud:
    """Make a cloud that has a server in every state that Nova has a status for, and in each of its tasks."""
    cloud = Cloud(0)
    for vm_state in STATUSES.keys() - {"deleted"}:
        for task_state in (None, *TASKS, "image_snapshot"):
            cloud.add(vm_state=vm_state, task_state=task_state)
    return cloud


def listed(cloud: Cloud, query: dict[str, str]) -> set[str]:
    """List the ids of the servers that Nova's filters let through."""
    only = read_filter(QueryParams(query), (2, 60), is_admin=False)
    return {server.id for server in cloud.page(cloud.project_id, limit=10_000, only=only)}


def shown(server: SimulatedServer) -> Server:
    """Show a server as the client reads it."""
    return Server(
        id=server.id,
        name=server.name,
        status=server.status,
        availability_zone=server.availability_zone,
        tags=server.tags,
        metadata=server.metadata,
    )


@pytest.mark.parametrize(
    "status",
    sorted({status for default, tasks in STATUSES.values() for status in (default, *tasks.values())} - {"DELETED"}),
)
def test_a_status_leaves_out_nobody_who_fits(status: str) -> None:
    """Whatever status is asked for, Nova's filter lets every server through that shows it."""
    cloud = every_state()
    selection = Selection.parse(status=status.lower())
    fitting = {server_id for server_id in cloud.ids if selection.fits(shown(cloud.server(server_id)))}
    assert fitting
    assert fitting <= listed(cloud, selection.filters)


@given(
    tags=st.sets(WORDS, max_size=3),
    status=st.sets(st.sampled_from(["ACTIVE", "REBOOT", "SHUTOFF", "ERROR"]), max_size=2),
    carried=st.lists(st.lists(WORDS, max_size=4, unique=True), max_size=4),
    vm_state=st.sampled_from(["active", "stopped", "error"]),
    task_state=st.sampled_from([None, "rebooting", "rebuilding"]),
)
def test_filters_leave_out_nobody_who_fits(
    tags: set[str], status: set[str], carried: list[list[str]], vm_state: str, task_state: str | None
) -> None:
    """Whatever is asked for, Nova's own filters refuse nothing, and let every server through that fits."""
    cloud = Cloud(0)
    for extra in carried:
        for own in ((), tuple(tags)):
            all_tags = tuple(dict.fromkeys((*own, *extra)))
            cloud.add(tags=all_tags, vm_state=vm_state, task_state=task_state, metadata={"role": "web"})
    selection = Selection.parse(tags=tags, status=status)
    fitting = {server_id for server_id in cloud.ids if selection.fits(shown(cloud.server(server_id)))}
    assert fitting <= listed(cloud, selection.filters)
