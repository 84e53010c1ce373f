"""The cloud behind Huawei Cloud's gateway: who is let through, and in whose words refusals come out."""

from datetime import UTC, datetime
from typing import Any

import pytest

from bulkrestart.simulator import Call, Cloud, Face, Fault, LogAccess, ManualClock, Role
from tests.simulator.asking import HARD, SOFT, ask, post, states

NOT_PUBLISHED = "The API does not exist or has not been published in the environment"
WRONG_STATE = "The ECS status does not meet requirements. Make the ECS in the required status and try again."
IAM = "Incorrect IAM authentication information: "


@pytest.fixture
def cloud(clock: ManualClock) -> Cloud:
    """Five servers whose reboots take exactly ten seconds."""
    return Cloud(5, clock=clock, face=Face.HUAWEI, reboot_seconds=(10, 10))


def signature(access_key: str) -> str:
    """Make the header of a signed request, with a signature of the right form."""
    return f"SDK-HMAC-SHA256 Access={access_key}, SignedHeaders=host;x-sdk-date, Signature={'0f' * 32}"


def signed(clock: ManualClock, *, access_key: str = "AK", ahead: float = 0.0) -> dict[str, str]:
    """Make the headers of a request that was signed `ahead` seconds from now."""
    at = datetime.fromtimestamp(clock() + ahead, UTC)
    return {"x-auth-token": "", "authorization": signature(access_key), "x-sdk-date": f"{at:%Y%m%dT%H%M%SZ}"}


def ecs(code: str, message: str) -> dict[str, object]:
    """Make the body of an error of ECS."""
    return {"error": {"code": code, "message": message}}


def test_one_restart(cloud: Cloud, clock: ManualClock) -> None:
    """What succeeds is Nova's own, but for the id of the request, which is not the one in the action log."""
    server_id = cloud.ids[0]
    accepted = post(cloud, server_id)
    assert (accepted.status_code, accepted.content) == (202, b"")
    assert states(cloud, server_id) == ("REBOOT", "rebooting")
    clock.advance(10)
    assert states(cloud, server_id) == ("ACTIVE", None)
    path = f"/servers/{server_id}/os-instance-actions"
    row = ask(cloud, "GET", path).json()["instanceActions"][0]
    assert ask(cloud, "GET", f"{path}/{row['request_id']}").json()["instanceAction"]["events"][0]["result"] == "Success"
    assert len(accepted.headers["x-request-id"]) == 32
    assert accepted.headers["x-request-id"] not in row["request_id"].replace("-", "")
    assert cloud.cycles[server_id] == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [(None, 202), (Fault.error(500), 500), (Fault.throttled(), 429), (Fault.race(), 500), (Fault.flow_limited(), 202)],
)
def test_request_ids(cloud: Cloud, fault: Fault | None, status: int) -> None:
    """The gateway writes its own id of every request, and passes none of Nova's on, not even in scripted answers."""
    cloud.script(cloud.ids[0], fault)
    answer = post(cloud, cloud.ids[0])
    assert answer.status_code == status
    assert "x-openstack-request-id" not in answer.headers
    assert "x-compute-request-id" not in answer.headers
    assert answer.headers["x-request-id"] != ask(cloud, "GET", "/servers").headers["x-request-id"]


def test_scripted_answers(cloud: Cloud) -> None:
    """A scripted answer is answered as it stands, with the id that it names."""
    cloud.script(cloud.ids[0], Fault.error(409, "is locked"), Fault.gateway_throttled())
    assert post(cloud, cloud.ids[0]).json() == {"conflictingRequest": {"code": 409, "message": "is locked"}}
    throttled = post(cloud, cloud.ids[0])
    assert throttled.headers["x-request-id"] == throttled.json()["request_id"]


@pytest.mark.parametrize(
    ("changes", "body", "status", "code", "message"),
    [
        ({"locked": True}, SOFT, 400, "Ecs.0605", "ECS locked."),
        ({"locked": True, "vm_state": "stopped"}, HARD, 400, "Ecs.0605", "ECS locked."),
        ({"vm_state": "stopped"}, SOFT, 400, "Ecs.0100", WRONG_STATE),
        ({"vm_state": "stopped", "task_state": "powering-on"}, SOFT, 400, "Ecs.0100", WRONG_STATE),
        ({"vm_state": "rescued"}, HARD, 400, "Ecs.0100", WRONG_STATE),
        ({"launched_at": None}, SOFT, 400, "Ecs.0100", WRONG_STATE),
        ({"vm_state": "stopped"}, {"os-stop": None}, 400, "Ecs.0100", WRONG_STATE),
        (
            {"task_state": "image_snapshot"},
            SOFT,
            501,
            "Ecs.0603",
            "The commands are being executed. Try again later.",
        ),
        (
            {"task_state": "reboot_started_hard"},
            HARD,
            501,
            "Ecs.0603",
            "The commands are being executed. Try again later.",
        ),
        ({}, {"reboot": {"type": "WARM"}}, 400, "Ecs.0005", "Invalid input for field/attribute type. Value: WARM. "),
        ({}, {"nope": None}, 400, "Ecs.0005", "There is no such action: nope"),
    ],
)
def test_refused_actions(cloud: Cloud, changes: Any, body: object, status: int, code: str, message: str) -> None:
    """What Nova refuses with 409 or 400 is refused with a code of ECS, never with 409."""
    cloud.change(cloud.ids[0], **changes)
    answer = post(cloud, cloud.ids[0], body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"].startswith(message)
    assert "openstack-api-version" not in answer.headers


def test_busy_passes(cloud: Cloud, clock: ManualClock) -> None:
    """A server that is busy for a while is told so, and then takes the request."""
    cloud.script(cloud.ids[0], Fault.busy(5))
    assert post(cloud, cloud.ids[0]).status_code == 501
    clock.advance(5)
    assert post(cloud, cloud.ids[0]).status_code == 202


@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", ""), ("DELETE", ""), ("POST", "/action"), ("GET", "/os-instance-actions")]
)
def test_not_found(cloud: Cloud, method: str, suffix: str) -> None:
    """A server that is not there is Ecs.0114."""
    answer = ask(cloud, method, f"/servers/nope{suffix}", json=SOFT if method == "POST" else None)
    assert (answer.status_code, answer.json()) == (404, ecs("Ecs.0114", "Instance[nope] could not be found."))


def test_untranslated(cloud: Cloud) -> None:
    """What ECS has no code for comes as Nova wrote it: a row that is not there, a microversion, a race."""
    server_id = cloud.ids[0]
    row = ask(cloud, "GET", f"/servers/{server_id}/os-instance-actions/req-x")
    assert (row.status_code, row.json()["itemNotFound"]["message"]) == (404, "Action req-x not found")
    version = ask(cloud, "GET", "/servers", microversion="2.61")
    assert version.status_code == 406
    assert version.json()["computeFault"]["message"].endswith("Minimum is 2.1 and maximum is 2.60.")
    cloud.legacy_host = True
    cloud.change(server_id, task_state="pausing")
    race = post(cloud, server_id, HARD)
    assert (race.status_code, list(race.json())) == (500, ["computeFault"])


@pytest.mark.parametrize(
    ("method", "path", "body", "action"),
    [
        ("POST", "/action", SOFT, "reboot"),
        ("POST", "/action", {"lock": None}, "lock"),
        ("POST", "/action", {"unlock": None}, "unlock"),
        ("POST", "/action", {"os-start": None}, "start"),
        ("POST", "/action", {"os-stop": None}, "stop"),
        ("DELETE", "", None, "delete"),
    ],
)
def test_no_permission(cloud: Cloud, method: str, path: str, body: object, action: str) -> None:
    """Who may not act is told by Pdp.0001 which action it is, as IAM names it."""
    cloud.add_token("reader", role=Role.READER)
    answer = ask(cloud, method, f"/servers/{cloud.ids[0]}{path}", json=body, headers={"x-auth-token": "reader"})
    message = f"Policy doesn't allow ecs:servers:{action} to be performed."
    assert (answer.status_code, answer.json()) == (403, ecs("Pdp.0001", message))


def test_other_permissions(cloud: Cloud) -> None:
    """What else is forbidden is Ecs.0110."""
    cloud.log_access = LogAccess.FORBIDDEN
    forbidden = ecs("Ecs.0110", "Contact the main account to obtain permission.")
    for path in (f"/servers/{cloud.ids[0]}/os-instance-actions", "/servers?status=DELETED"):
        answer = ask(cloud, "GET", path)
        assert (answer.status_code, answer.json()) == (403, forbidden)


@pytest.mark.parametrize("project_id", ["abcdef", "not-hexadecimal"])
def test_wrong_project(cloud: Cloud, project_id: str) -> None:
    """A URL of another project than the token's is Ecs.0023."""
    answer = ask(cloud, "GET", f"http://cloud.test/v2.1/{project_id}/servers")
    message = "project_id in token mismatches with project_id in url."
    assert (answer.status_code, answer.json()) == (400, ecs("Ecs.0023", message))


@pytest.mark.parametrize("token", ["token", "", "old"])
@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/nowhere"),
        ("PUT", "/servers/x/action"),
        ("GET", "http://cloud.test/v2.1/servers"),
        ("GET", "http://cloud.test/v3/abc/servers"),
        ("GET", "http://cloud.test/nowhere"),
    ],
)
def test_unpublished(cloud: Cloud, method: str, url: str, token: str) -> None:
    """A call that is not published is not there, whoever asks; nor is one without a project in its path."""
    answer = ask(cloud, method, url, headers={"x-auth-token": token})
    assert answer.status_code == 404
    request_id = answer.headers["x-request-id"]
    assert answer.json() == {"error_msg": NOT_PUBLISHED, "error_code": "APIGW.0101", "request_id": request_id}


def test_unpublished_log(cloud: Cloud) -> None:
    """A log that the gateway withholds is a call that is not published."""
    cloud.log_access = LogAccess.MISSING
    answer = ask(cloud, "GET", f"/servers/{cloud.ids[0]}/os-instance-actions")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "APIGW.0101")


@pytest.mark.parametrize(("path", "newest"), [("/", "2.60"), ("/v2", ""), ("/v2.1/", "2.60")])
def test_versions(cloud: Cloud, path: str, newest: str) -> None:
    """Versions are told without a token; the newest is the one that Huawei Cloud documents."""
    answer = ask(cloud, "GET", f"http://cloud.test{path}", headers={"x-auth-token": ""})
    assert answer.status_code == 200
    document = answer.json()
    assert newest == (document["version"] if "version" in document else document["versions"][1])["version"]


def test_newest_version_as_told(clock: ManualClock) -> None:
    """The newest microversion is another one if the cloud is told so."""
    cloud = Cloud(1, clock=clock, face=Face.HUAWEI, max_microversion="2.79")
    answer = ask(cloud, "GET", "/servers", microversion="latest")
    assert answer.headers["openstack-api-version"] == "compute 2.79"


@pytest.mark.parametrize(
    ("token", "code", "message"),
    [
        ("", "APIGW.0301", f"{IAM}x-auth-token not found"),
        ("never", "APIGW.0301", f"{IAM}decrypt token fail"),
        ("token", "APIGW.0307", "The token must be updated."),
        ("second", "APIGW.0307", "The token must be updated."),
    ],
)
def test_tokens(cloud: Cloud, token: str, code: str, message: str) -> None:
    """A token that was good once must be updated; one that never was cannot be read."""
    cloud.add_token("second")
    cloud.tokens.clear()
    answer = ask(cloud, "GET", "/servers", headers={"x-auth-token": token})
    assert answer.status_code == 401
    assert answer.json() == {"error_msg": message, "error_code": code, "request_id": answer.headers["x-request-id"]}


@pytest.mark.parametrize("ahead", [-900, 0, 900])
def test_signed(cloud: Cloud, clock: ManualClock, ahead: float) -> None:
    """A request that a known key signed within 15 minutes is its user's."""
    cloud.add_access_key("AK", user_id="signer")
    assert post(cloud, cloud.ids[0], headers=signed(clock, ahead=ahead)).status_code == 202
    assert cloud.server(cloud.ids[0]).log[-1].user_id == "signer"


def test_signature_before_token(cloud: Cloud, clock: ManualClock) -> None:
    """Of a signature and a token the signature counts; anything else in its header is not looked at."""
    cloud.add_access_key("AK", role=Role.READER)
    both = {**signed(clock), "x-auth-token": cloud.token}
    assert post(cloud, cloud.ids[0], headers=both).status_code == 403
    assert post(cloud, cloud.ids[0], headers={"authorization": "Basic YTpi"}).status_code == 202


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"authorization": signature("SECOND")}, "ak SECOND not exist"),
        ({"authorization": "SDK-HMAC-SHA256 Access=AK"}, "verify aksk signature fail"),
        ({"authorization": signature("AK")[:-1]}, "verify aksk signature fail"),
        ({"x-sdk-date": ""}, "verify aksk signature fail"),
        ({"x-sdk-date": "2030-01-01T00:00:00Z"}, "verify aksk signature fail"),
        (
            {"x-sdk-date": "20300101T001501Z"},
            "calc aksk signature fail:signature expired, signature time:20300101T001501Z,server time:20300101T000000Z",
        ),
        (
            {"x-sdk-date": "20291231T234459Z"},
            "calc aksk signature fail:signature expired, signature time:20291231T234459Z,server time:20300101T000000Z",
        ),
    ],
)
def test_bad_signatures(cloud: Cloud, clock: ManualClock, headers: dict[str, str], message: str) -> None:
    """A key that is unknown, a signature of no known form, and one of another time are 401, each in its words."""
    cloud.add_access_key("AK")
    answer = ask(cloud, "GET", "/servers", headers={**signed(clock), **headers})
    assert answer.status_code == 401
    assert answer.json() == {
        "error_msg": IAM + message,
        "error_code": "APIGW.0301",
        "request_id": answer.headers["x-request-id"],
    }


def test_time_of_signatures(cloud: Cloud, clock: ManualClock) -> None:
    """A signature is dated by the clock that the gateway's Date shows."""
    cloud.add_access_key("AK")
    cloud.date_skew = 3600.0
    assert ask(cloud, "GET", "/servers", headers=signed(clock)).status_code == 401
    assert ask(cloud, "GET", "/servers", headers=signed(clock, ahead=3600)).status_code == 200


def test_revoked_access_key(cloud: Cloud, clock: ManualClock) -> None:
    """A key that was taken away is one that does not exist."""
    cloud.add_access_key("AK")
    del cloud.access_keys["AK"]
    assert "ak AK not exist" in ask(cloud, "GET", "/servers", headers=signed(clock)).text


def test_nova_knows_no_signatures(clock: ManualClock) -> None:
    """Without the gateway a signed request is one without a token."""
    cloud = Cloud(1, clock=clock)
    cloud.add_access_key("AK")
    assert ask(cloud, "GET", "/servers", headers=signed(clock)).status_code == 401


@pytest.mark.parametrize("path", ["/servers", "/servers/detail"])
@pytest.mark.parametrize(
    ("query", "count"), [("", 25), ("limit=", 25), ("limit=30", 30), ("limit=1000", 60), ("limit=0", 0)]
)
def test_page(clock: ManualClock, path: str, query: str, count: int) -> None:
    """A page of servers holds 25 unless the request says how many, and its links lead on as Nova's do."""
    cloud = Cloud(60, clock=clock, face=Face.HUAWEI)
    document = ask(cloud, "GET", f"{path}?{query}").json()
    assert len(document["servers"]) == count
    seen = list(document["servers"])
    while count and "servers_links" in document:
        document = ask(cloud, "GET", document["servers_links"][0]["href"]).json()
        seen += document["servers"]
    assert len({server["id"] for server in seen}) == (60 if count else 0)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("limit=1001", 403, "Ecs.0005"),
        ("limit=-1", 400, "Ecs.0005"),
        ("limit=x", 400, "Ecs.0005"),
        ("marker=x", 400, "Ecs.0005"),
        ("name=(", 400, "Ecs.0005"),
    ],
)
def test_bad_page(cloud: Cloud, query: str, status: int, code: str) -> None:
    """A page over the maximum is forbidden; what Nova refuses of a query is an invalid parameter."""
    answer = ask(cloud, "GET", f"/servers?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_logs_have_pages_of_novas(cloud: Cloud) -> None:
    """The size of a page of servers is not that of a page of a log."""
    path = f"/servers/{cloud.ids[0]}/os-instance-actions?limit=1001"
    assert ask(cloud, "GET", path).status_code == 200


def test_rate_limit(clock: ManualClock) -> None:
    """Requests over the limit are 429 APIGW.0308, with the window in the message and no Retry-After."""
    cloud = Cloud(2, clock=clock, face=Face.HUAWEI, rate_limit=(1, 30.0))
    assert post(cloud, cloud.ids[0]).status_code == 202
    answer = post(cloud, cloud.ids[1])
    assert answer.status_code == 429
    assert answer.json() == {
        "error_msg": "The throttling threshold has been reached: policy user over ratelimit,limit:1,time:30 second",
        "error_code": "APIGW.0308",
        "request_id": answer.headers["x-request-id"],
    }
    assert "retry-after" not in answer.headers
    assert [request.call for request in cloud.requests] == [Call.REBOOT] * 2
