"""The query of a list of servers, by microversion, in Nova's words."""

import pytest

from bulkrestart.simulator import Cloud, Role
from tests.simulator.asking import ask


@pytest.fixture
def mixed(cloud: Cloud) -> Cloud:
    """Five servers of which only the first has tags, a zone and a name of its own."""
    cloud.change(cloud.ids[0], tags=("blue", "canary"), availability_zone="remote", name="db")
    return cloud


@pytest.mark.parametrize(
    ("query", "microversion", "count"),
    [
        ("name=d.$", "2.1", 1),
        ("name=DB", "2.60", 1),
        ("name=web&name=db", "2.60", 1),
        ("name=db&status=SHUTOFF", "2.60", 0),
        ("display_name=db", "2.60", 5),
        ("tags=nope", "2.25", 5),
        ("tags=(", "2.25", 5),
        ("tags=blue", "2.26", 1),
        ("tags=blue,canary", "2.60", 1),
        ("tags=blue,nope", "2.60", 0),
        ("tags=blue&tags=nope", "2.60", 0),
        ("tags-any=blue,nope", "2.60", 1),
        ("not-tags=blue,nope", "2.60", 5),
        ("not-tags-any=blue,nope", "2.60", 4),
        ("availability_zone=remote", "2.60", 5),
        ("availability_zone=remote", "2.82", 5),
        ("availability_zone=remote", "2.83", 1),
        ("metadata=x&uuid=y&foo=z&_bar=z", "2.74", 5),
        ("metadata=x&uuid=y&_bar=z&sort_key=uuid&sort_dir=asc", "2.75", 5),
    ],
)
@pytest.mark.parametrize("path", ["/servers", "/servers/detail"])
def test_filters(mixed: Cloud, path: str, query: str, microversion: str, count: int) -> None:
    """What a member may filter by is heeded from its microversion on, and anything else ignored; the last counts."""
    assert len(ask(mixed, "GET", f"{path}?{query}", microversion=microversion).json()["servers"]) == count


def test_admin_filters(mixed: Cloud) -> None:
    """An admin may filter by zones in every microversion."""
    mixed.add_token("admin", role=Role.ADMIN)
    headers = {"x-auth-token": "admin"}
    found = ask(mixed, "GET", "/servers?availability_zone=REMOTE", headers=headers, microversion="2.1")
    assert [server["name"] for server in found.json()["servers"]] == ["db"]


@pytest.mark.parametrize(
    ("query", "microversion", "message"),
    [
        ("name=(", "2.1", "Invalid input for query parameters name. Value: (. '(' is not a 'regex'"),
        ("name=", "2.60", "Invalid input for query parameters name. Value: . '' is not a 'regex'"),
        ("name=(&name=x", "2.60", "Invalid input for query parameters name. Value: (. '(' is not a 'regex'"),
        ("key_name=*", "2.60", "Invalid input for query parameters key_name. Value: *. '*' is not a 'regex'"),
        (
            "availability_zone=[",
            "2.1",
            "Invalid input for query parameters availability_zone. Value: [. '[' is not a 'regex'",
        ),
        ("tags=a(", "2.26", "Invalid input for query parameters tags. Value: a(. 'a(' is not a 'regex'"),
        ("foo=1", "2.75", "'foo' does not match any of the regexes: '^_'"),
        ("foo=1&az=2&limit=1", "2.96", "'az', 'foo' do not match any of the regexes: '^_'"),
    ],
)
def test_bad_filters(cloud: Cloud, query: str, microversion: str, message: str) -> None:
    """What is no pattern is refused wherever Nova wants one, and from 2.75 on what is no parameter."""
    answer = ask(cloud, "GET", f"/servers?{query}", microversion=microversion)
    assert (answer.status_code, answer.json()) == (400, {"badRequest": {"code": 400, "message": message}})
