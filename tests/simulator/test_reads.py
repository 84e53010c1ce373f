"""What reads show: clocks that differ, ids that are hidden, and reads that are behind."""

from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from bulkrestart.simulator import Cloud, Face, Faults, LoopbackCloud, ManualClock, RequestIds
from tests.simulator.asking import ask, post

T0 = "2030-01-01T00:00:"


def make(clock: ManualClock, **settings: Any) -> Cloud:
    """Make a cloud of two servers whose reboots take ten seconds."""
    return Cloud(2, clock=clock, reboot_seconds=(10.0, 10.0), **settings)


def rows_of(cloud: Cloud, server_id: str) -> list[dict[str, Any]]:
    """Read the reboots in a server's log, the newest first."""
    log = ask(cloud, "GET", f"/servers/{server_id}/os-instance-actions").json()["instanceActions"]
    return [row for row in log if row["action"] == "reboot"]


def shown(cloud: Cloud, server_id: str) -> dict[str, Any]:
    """Read a server."""
    server: dict[str, Any] = ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    return server


def listed(cloud: Cloud, query: str = "") -> list[str]:
    """List servers."""
    return [server["id"] for server in ask(cloud, "GET", f"/servers/detail{query}").json()["servers"]]


def date_of(cloud: Cloud) -> float:
    """Tell what `Date` shows."""
    return parsedate_to_datetime(ask(cloud, "GET", "/servers").headers["date"]).timestamp()


def test_log_and_date_differ(clock: ManualClock) -> None:
    """`Date` goes by one clock; the times of the log and `updated` go by Nova's."""
    cloud = make(clock, date_skew=5.0, log_skew=30.0)

    request_id = post(cloud, cloud.ids[0]).headers["x-openstack-request-id"]
    clock.advance(10)

    row = ask(cloud, "GET", f"/servers/{cloud.ids[0]}/os-instance-actions/{request_id}").json()["instanceAction"]
    [event] = row["events"]
    assert (row["start_time"], row["updated_at"]) == (f"{T0}30.000000", f"{T0}40.000000")
    assert (event["start_time"], event["finish_time"]) == (f"{T0}31.000000", f"{T0}40.000000")
    assert shown(cloud, cloud.ids[0])["updated"] == f"{T0}40Z"
    assert listed(cloud, f"?changes-since={T0}40Z") == [cloud.ids[0]]
    assert date_of(cloud) == clock() + 5.0


def test_nodes_differ(clock: ManualClock) -> None:
    """Each `Date`, row and `updated` is by the clock of some node; a row or an `updated` is written only once."""
    cloud = make(clock, node_skews=(-2.0, 3.0))
    for server_id in cloud.ids:
        for _ in range(20):
            cloud.reboot_by_other(server_id)
            clock.advance(10)
    begun = [server.start_time for server in reversed(cloud.server(cloud.ids[0]).log[1:])]

    rows = cloud.log(cloud.server(cloud.ids[0]))[:-1]

    assert {row.start_time - at for row, at in zip(rows, begun, strict=True)} == {-2.0, 3.0}
    assert rows == cloud.log(cloud.server(cloud.ids[0]))[:-1]
    assert {date_of(cloud) - clock() for _ in range(20)} == {-2.0, 3.0}
    assert shown(cloud, cloud.ids[0])["updated"] == shown(cloud, cloud.ids[0])["updated"]


def test_no_date(clock: ManualClock) -> None:
    """`Date` may be hidden, on a socket too."""
    cloud = make(clock, has_date=False)
    assert "date" not in ask(cloud, "GET", "/servers").headers
    with LoopbackCloud(cloud) as served:
        assert "date" not in httpx.get(served.url, trust_env=False).headers


@pytest.mark.parametrize("face", Face)
@pytest.mark.parametrize("request_ids", RequestIds)
def test_request_ids(clock: ManualClock, request_ids: RequestIds, face: Face) -> None:
    """Nova's ids are shown, hidden, or replaced by one that no log knows; the log has Nova's; Huawei hides them."""
    cloud = make(clock, request_ids=request_ids, face=face)

    headers = post(cloud, cloud.ids[0]).headers

    nova, compute = headers.get("x-openstack-request-id"), headers.get("x-compute-request-id")
    [row] = rows_of(cloud, cloud.ids[0])
    is_shown = request_ids is RequestIds.SHOWN and face is Face.NOVA
    assert (compute is not None) is is_shown
    assert (nova is not None) is (face is Face.NOVA and request_ids is not RequestIds.HIDDEN)
    assert (nova == row["request_id"]) is is_shown
    assert nova is None or nova.startswith("req-")


def test_a_log_that_lags(clock: ManualClock) -> None:
    """The log shows what was true so many seconds ago: first no row, then one under way, then how it ended."""
    cloud = make(clock, log_lag=5.0)
    request_id = post(cloud, cloud.ids[0]).headers["x-openstack-request-id"]
    path = f"/servers/{cloud.ids[0]}/os-instance-actions/{request_id}"
    seen = []
    for _ in range(16):
        answer = ask(cloud, "GET", path)
        events = answer.json()["instanceAction"]["events"] if answer.status_code == 200 else []
        seen.append((answer.status_code, [event["result"] for event in events], len(rows_of(cloud, cloud.ids[0]))))
        clock.advance(1)

    assert seen[:5] == [(404, [], 0)] * 5
    assert seen[5] == (200, [], 1)
    assert seen[6:15] == [(200, [None], 1)] * 9
    assert seen[15] == (200, ["Success"], 1)


def test_views_that_lag(clock: ManualClock) -> None:
    """Servers and lists show what was true so many seconds ago; an action meets what is true now."""
    cloud = make(clock, view_lag=5.0)
    server_id = cloud.ids[0]
    before = shown(cloud, server_id)

    post(cloud, server_id)
    clock.advance(4)

    assert shown(cloud, server_id) == before
    assert post(cloud, server_id).status_code == 409
    assert listed(cloud, f"?changes-since={T0}00Z") == []
    clock.advance(1)
    assert (shown(cloud, server_id)["status"], listed(cloud, f"?changes-since={T0}00Z")) == ("REBOOT", [server_id])
    clock.advance(5)
    assert (shown(cloud, server_id)["status"], cloud.server(server_id).status) == ("REBOOT", "ACTIVE")
    clock.advance(5)
    assert shown(cloud, server_id)["status"] == "ACTIVE"


def test_servers_that_come_and_go(clock: ManualClock) -> None:
    """A read that lags shows a deleted server for a while, and a new one late."""
    cloud = make(clock, view_lag=5.0)
    new = cloud.add()
    cloud.delete(cloud.ids[0])
    clock.advance(4)
    assert ask(cloud, "GET", f"/servers/{cloud.ids[0]}").status_code == 200
    assert ask(cloud, "GET", f"/servers/{new.id}").status_code == 404
    assert set(listed(cloud)) == set(cloud.ids[:2])
    clock.advance(1)
    assert ask(cloud, "GET", f"/servers/{cloud.ids[0]}").status_code == 404
    assert ask(cloud, "GET", f"/servers/{new.id}").status_code == 200
    assert set(listed(cloud)) == {cloud.ids[1], new.id}


def test_each_read_has_a_lag_of_its_own(clock: ManualClock) -> None:
    """Where the lag is a range each read is of another replica: a later read may show what is older."""
    cloud = make(clock, log_lag=(0.0, 10.0), view_lag=(0.0, 10.0))
    post(cloud, cloud.ids[0])
    clock.advance(5)

    assert {len(rows_of(cloud, cloud.ids[0])) for _ in range(20)} == {0, 1}
    assert {shown(cloud, cloud.ids[0])["status"] for _ in range(20)} == {"ACTIVE", "REBOOT"}
    clock.advance(15)
    assert {len(rows_of(cloud, cloud.ids[0])) for _ in range(20)} == {1}
    assert {shown(cloud, cloud.ids[0])["status"] for _ in range(20)} == {"ACTIVE"}


def test_rows_that_come_late(clock: ManualClock) -> None:
    """The log of one server may show new rows late, and the others' not; a share of the fleet may be so too."""
    cloud = make(clock)
    cloud.delay_log(cloud.ids[0], 7.0)
    for server_id in cloud.ids:
        post(cloud, server_id)
    clock.advance(6)
    assert [len(rows_of(cloud, server_id)) for server_id in cloud.ids] == [0, 1]
    clock.advance(1)
    assert [len(rows_of(cloud, server_id)) for server_id in cloud.ids] == [1, 1]

    cloud = Cloud(200, clock=clock, faults=Faults(log_late=0.5, log_late_seconds=3.0, lost_after=0.5))
    delays = [cloud.server(server_id).log_delay for server_id in cloud.ids]
    assert set(delays) == {0.0, 3.0}
    assert abs(delays.count(3.0) - 100) < 25
