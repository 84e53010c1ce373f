"""The controllers, in Nova's words."""

import pytest

from bulkrestart.simulator import Call, Cloud, LogAccess, ManualClock, Role
from tests.simulator.asking import HARD, SOFT, ask, post, states


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"reboot', "Malformed request body"),
        (b"", "Malformed request body"),
        (b"[]", "Malformed request body"),
        (b"{}", "Malformed request body"),
        (b'{"reboot": {"type": "SOFT"}, "os-stop": null}', "Malformed request body"),
        (b'{"nope": null}', "There is no such action: nope"),
        (
            b'{"reboot": null}',
            "Invalid input for field/attribute reboot. Value: None. None is not of type 'object'",
        ),
        (
            b'{"reboot": {}}',
            "Invalid input for field/attribute reboot. Value: {}. 'type' is a required property",
        ),
        (
            b'{"reboot": {"type": "soft", "x": 1}}',
            "Invalid input for field/attribute reboot. Value: {'type': 'soft', 'x': 1}. "
            "Additional properties are not allowed ('x' was unexpected)",
        ),
        (
            b'{"reboot": {"type": null}}',
            "Invalid input for field/attribute type. Value: None. None is not of type 'string'",
        ),
        (
            b'{"reboot": {"type": "WARM"}}',
            "Invalid input for field/attribute type. Value: WARM. "
            "'WARM' is not one of ['HARD', 'Hard', 'hard', 'SOFT', 'Soft', 'soft']",
        ),
    ],
)
@pytest.mark.parametrize("api", ["v2.1", "v2"])
def test_bad_body(cloud: Cloud, api: str, body: bytes, message: str) -> None:
    """A body that is no action is refused in Nova's words, before the server is looked for."""
    answer = ask(cloud, "POST", "/servers/nope/action", content=body, api=api)
    assert answer.status_code == 400
    assert answer.json() == {"badRequest": {"code": 400, "message": message}}


@pytest.mark.parametrize("word", ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"])
def test_reboot_types(cloud: Cloud, word: str) -> None:
    """A type is taken in three ways of writing it."""
    assert post(cloud, cloud.ids[0], {"reboot": {"type": word}}).status_code == 202
    assert states(cloud, cloud.ids[0])[0] == ("HARD_REBOOT" if word.upper() == "HARD" else "REBOOT")


@pytest.mark.parametrize("which", ["malformed", "unknown", "upper case", "another project's", "deleted"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/action"), ("GET", ""), ("DELETE", ""), ("GET", "/os-instance-actions")],
)
def test_not_found(cloud: Cloud, which: str, method: str, path: str) -> None:
    """A server that the token cannot see is Nova's own 404; only the log of a deleted one can still be read."""
    server_id = {
        "malformed": "xyz",
        "unknown": "7b0c1a4e-2c5f-4a0e-9a51-000000000000",
        "upper case": cloud.ids[0].upper(),
        "another project's": cloud.add(project_id="f" * 32).id,
        "deleted": cloud.ids[1],
    }[which]
    cloud.delete(cloud.ids[1])
    answer = ask(cloud, method, f"/servers/{server_id}{path}", json=SOFT if method == "POST" else None)
    if which == "deleted" and path == "/os-instance-actions":
        assert answer.status_code == 200
        answer = ask(cloud, method, f"/servers/{server_id}{path}", microversion="2.20")
    assert answer.status_code == 404
    assert answer.json() == {"itemNotFound": {"code": 404, "message": f"Instance {server_id} could not be found."}}


def test_conflict(cloud: Cloud) -> None:
    """A refused reboot is 409 conflictingRequest, with Nova's message."""
    server_id = cloud.ids[0]
    post(cloud, server_id)
    answer = post(cloud, server_id)
    assert answer.status_code == 409
    assert answer.json() == {
        "conflictingRequest": {
            "code": 409,
            "message": f"Cannot 'reboot' instance {server_id} while it is in task_state rebooting",
        }
    }


def test_race_of_queens(clock: ManualClock) -> None:
    """A save that fails is a 500 that names the exception, and leaves no row."""
    cloud = Cloud(1, clock=clock, legacy_host=True)
    cloud.change(cloud.ids[0], task_state="pausing")
    answer = post(cloud, cloud.ids[0], HARD)
    assert answer.status_code == 500
    assert "<class 'nova.exception.UnexpectedTaskStateError'>" in answer.json()["computeFault"]["message"]
    assert [row.action for row in cloud.server(cloud.ids[0]).log] == ["create"]


def test_lock_and_power(cloud: Cloud, clock: ManualClock) -> None:
    """Lock, unlock, stop, start and delete do what they say."""
    server_id = cloud.ids[0]
    assert post(cloud, server_id, {"lock": None}).status_code == 202
    assert post(cloud, server_id).json()["conflictingRequest"]["message"] == f"Instance {server_id} is locked"
    assert post(cloud, server_id, {"unlock": None}).status_code == 202
    assert post(cloud, server_id, {"os-stop": None}).status_code == 202
    clock.advance(10)
    assert states(cloud, server_id) == ("SHUTOFF", None)
    assert post(cloud, server_id, {"os-start": None}).status_code == 202
    clock.advance(10)
    assert states(cloud, server_id) == ("ACTIVE", None)
    assert ask(cloud, "DELETE", f"/servers/{server_id}").status_code == 204
    assert cloud.server(server_id).is_deleted
    assert {request.call for request in cloud.requests} == {Call.ACTION, Call.REBOOT, Call.SHOW}


def test_roles(cloud: Cloud) -> None:
    """A reader is forbidden to act, an admin passes locks, and a revoked token is worth nothing."""
    cloud.add_token("reader", role=Role.READER)
    cloud.add_token("admin", user_id="root", role=Role.ADMIN)
    locked = cloud.change(cloud.ids[0], locked=True).id
    reader, admin = {"x-auth-token": "reader"}, {"x-auth-token": "admin"}
    assert ask(cloud, "GET", f"/servers/{locked}", headers=reader).status_code == 200
    answer = post(cloud, locked, headers=reader)
    assert answer.status_code == 403
    assert answer.json()["forbidden"]["message"] == (
        "Policy doesn't allow os_compute_api:servers:reboot to be performed."
    )
    assert ask(cloud, "DELETE", f"/servers/{locked}", headers=reader).status_code == 403
    assert post(cloud, locked, headers=admin).status_code == 202
    assert cloud.server(locked).log[-1].user_id == "root"
    del cloud.tokens["admin"]
    assert ask(cloud, "GET", f"/servers/{locked}", headers=admin).status_code == 401


@pytest.mark.parametrize("path", ["/servers", "/servers/detail"])
def test_pages(cloud: Cloud, path: str) -> None:
    """Pages are joined by links to the next, which a full page always has, even the last."""
    cloud.max_limit = 2
    url, seen, pages = f"{path}?status=ACTIVE&foo=bar", list[str](), 0
    while url:
        document = ask(cloud, "GET", url).json()
        seen += [server["id"] for server in document["servers"]]
        url = document["servers_links"][0]["href"] if "servers_links" in document else ""
        assert not url or "status=ACTIVE&foo=bar&marker=" in url
        pages += 1
    assert (sorted(seen), pages) == (sorted(cloud.ids), 3)
    full = ask(cloud, "GET", f"{path}?limit=1&marker={seen[3]}").json()
    assert (full["servers"][0]["id"], "servers_links" in full) == (seen[4], True)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("limit=-1", 400, "Invalid input for query parameters limit. Value: -1. '-1' does not match '^[0-9]*$'"),
        ("limit=abc", 400, "Invalid input for query parameters limit. Value: abc. 'abc' does not match '^[0-9]*$'"),
        ("marker=x", 400, "marker [x] not found"),
        (
            "changes-since=xx",
            400,
            "Invalid input for query parameters changes-since. Value: xx. 'xx' is not a 'date-time'",
        ),
        ("status=BANANA", 400, "Invalid status value"),
        ("status=DELETED", 403, "Only administrators may list deleted instances"),
    ],
)
def test_bad_query(cloud: Cloud, query: str, status: int, message: str) -> None:
    """A query that cannot be answered is refused in Nova's words."""
    answer = ask(cloud, "GET", f"/servers?{query}")
    assert answer.status_code == status
    [fault] = answer.json().values()
    assert fault == {"code": status, "message": message}


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("limit=0", 0),
        ("limit=1&limit=2", 2),
        ("limit=", 5),
        ("marker=", 5),
        ("uuid=x&task_state=rebooting", 5),
        ("status=BANANA&status=active", 5),
        ("status=REBOOT", 0),
        ("changes-since=2030-01-01T00:00:00Z", 0),
        ("changes-since=2029-01-01", 5),
        ("changes-since=2029-12-31T00:00:00%2B01:00", 5),
    ],
)
def test_queries(cloud: Cloud, query: str, count: int) -> None:
    """Unknown filters and statuses are ignored, the last limit counts, a time without a zone is UTC."""
    assert len(ask(cloud, "GET", f"/servers?{query}").json()["servers"]) == count


def test_unknown_status_before_2_38(cloud: Cloud) -> None:
    """Before 2.38 a status that is none finds nothing."""
    assert ask(cloud, "GET", "/servers?status=BANANA", microversion="2.37").json() == {"servers": []}


def test_log_pages(cloud: Cloud, clock: ManualClock) -> None:
    """From 2.58 on the log has pages and changes; before, such a query is ignored."""
    server_id = cloud.ids[0]
    post(cloud, server_id)
    clock.advance(20)
    post(cloud, server_id)
    path = f"/servers/{server_id}/os-instance-actions"
    first = ask(cloud, "GET", f"{path}?limit=2").json()
    assert [row["action"] for row in first["instanceActions"]] == ["reboot", "reboot"]
    last = ask(cloud, "GET", first["links"][0]["href"]).json()
    assert [row["action"] for row in last["instanceActions"]] == ["create"]
    assert "links" not in last
    changed = ask(cloud, "GET", f"{path}?changes-since=2030-01-01T00:00:15Z").json()["instanceActions"]
    assert len(changed) == 1
    assert len(ask(cloud, "GET", f"{path}?limit=1", microversion="2.57").json()["instanceActions"]) == 3
    bad = ask(cloud, "GET", f"{path}?marker=x")
    assert bad.json() == {"badRequest": {"code": 400, "message": "Marker None could not be found."}}
    foreign = ask(cloud, "GET", f"{path}?foo=1&limit=1")
    assert foreign.json() == {
        "badRequest": {"code": 400, "message": "Additional properties are not allowed ('foo' was unexpected)"}
    }
    missing = ask(cloud, "GET", f"{path}/req-x")
    assert missing.json() == {"itemNotFound": {"code": 404, "message": "Action req-x not found"}}


@pytest.mark.parametrize(
    ("access", "status", "text"),
    [
        (LogAccess.FORBIDDEN, 403, "Policy doesn't allow os_compute_api:os-instance-actions:list"),
        (LogAccess.MISSING, 404, "APIGW.0101"),
        (LogAccess.EMPTY, 200, '{"instanceActions": []}'),
    ],
)
def test_unreadable_log(cloud: Cloud, access: LogAccess, status: int, text: str) -> None:
    """A cloud may withhold its logs: by policy, by a gateway, or by showing nothing."""
    cloud.log_access = access
    answer = ask(cloud, "GET", f"/servers/{cloud.ids[0]}/os-instance-actions")
    assert answer.status_code == status
    assert text in answer.text
