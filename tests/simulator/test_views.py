"""What is shown of servers and of their logs."""

import pytest

from bulkrestart.simulator import Cloud, HostFault, ManualClock
from bulkrestart.simulator.views import server_group
from tests.simulator.asking import HARD, ask, post


def test_what_microversions_show(cloud: Cloud, clock: ManualClock) -> None:
    """Members see `locked` from 2.9, events from 2.51, `updated_at` from 2.58, hosts of events from 2.62."""
    server_id = cloud.ids[0]
    request_id = post(cloud, server_id).headers["x-openstack-request-id"]

    def keys(microversion: str, *, api: str = "v2.1") -> tuple[set[str], set[str], set[str]]:
        shown = ask(cloud, "GET", f"/servers/{server_id}", microversion=microversion, api=api).json()["server"]
        path = f"/servers/{server_id}/os-instance-actions/{request_id}"
        row = ask(cloud, "GET", path, microversion=microversion, api=api).json()["instanceAction"]
        return set(shown), set(row), set(row["events"][0]) if row.get("events") else set()

    assert (
        ask(cloud, "GET", f"/servers/{server_id}/os-instance-actions/{request_id}").json()["instanceAction"]["events"]
        == []
    )
    clock.advance(10)
    oldest = keys("2.1")
    assert oldest == keys("2.60", api="v2")
    assert not {"locked", "description", "tags"} & oldest[0]
    assert keys("2.8")[0] == oldest[0]
    assert keys("2.9")[0] == oldest[0] | {"locked"}
    assert keys("2.26")[0] == oldest[0] | {"locked", "description", "tags"}
    assert keys("2.96")[0] == keys("2.26")[0] | {
        "trusted_image_certificates",
        "server_groups",
        "locked_reason",
        "OS-EXT-SRV-ATTR:hostname",
        "pinned_availability_zone",
    }
    assert keys("2.50")[1] == oldest[1]
    assert keys("2.51")[1:] == (oldest[1] | {"events"}, {"event", "start_time", "finish_time", "result"})
    assert keys("2.58")[1] == oldest[1] | {"events", "updated_at"}
    assert keys("2.62")[2] == {"event", "start_time", "finish_time", "result", "hostId"}


def test_server_as_shown(cloud: Cloud, clock: ManualClock) -> None:
    """A fault shows in ERROR only, and progress where Nova shows it."""
    server_id = cloud.ids[0]
    cloud.break_host(server_id, HostFault.DEAD)
    post(cloud, server_id)
    assert "progress" not in ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    clock.advance(10)
    broken = ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    assert broken["fault"] == {
        "code": 500,
        "created": "2030-01-01T00:00:10Z",
        "message": "Failed to reboot instance: the driver has failed",
    }
    post(cloud, server_id, HARD)
    clock.advance(10)
    well = ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    assert "fault" not in well
    assert well["progress"] == 0
    assert (well["updated"], well["OS-SRV-USG:terminated_at"]) == ("2030-01-01T00:00:20Z", None)
    assert well["links"][0]["href"] == f"http://cloud.test/v2.1/{cloud.project_id}/servers/{server_id}"
    assert well["links"][1]["href"] == f"http://cloud.test/{cloud.project_id}/servers/{server_id}"


def test_deleted_in_changes(cloud: Cloud, clock: ManualClock) -> None:
    """A list of changes shows a deleted server, with the time of its end."""
    clock.advance(5)
    cloud.delete(cloud.ids[0])
    [server] = ask(cloud, "GET", "/servers/detail?changes-since=2030-01-01T00:00:05Z").json()["servers"]
    assert (server["id"], server["status"]) == (cloud.ids[0], "DELETED")
    assert server["OS-SRV-USG:terminated_at"] == "2030-01-01T00:00:05.000000"


@pytest.mark.parametrize(("resolution", "written"), [(1.0, "00.000000"), (0.0, "00.750000")])
def test_log_times(clock: ManualClock, resolution: float, written: str) -> None:
    """The log's times are cut off to the seconds that its database keeps."""
    cloud = Cloud(1, clock=clock, log_resolution=resolution)
    clock.advance(0.75)
    post(cloud, cloud.ids[0])
    rows = ask(cloud, "GET", f"/servers/{cloud.ids[0]}/os-instance-actions").json()["instanceActions"]
    assert rows[0]["start_time"] == f"2030-01-01T00:00:{written}"


def test_tags_and_metadata(cloud: Cloud) -> None:
    """Metadata is shown always, tags from 2.26 on; a server has none of either unless told."""
    labelled = cloud.change(cloud.ids[0], tags=("canary", "blue"), metadata={"role": "web"}).id

    def shown(server_id: str, microversion: str) -> tuple[object, object]:
        one = ask(cloud, "GET", f"/servers/{server_id}", microversion=microversion).json()["server"]
        [listed] = [
            server
            for server in ask(cloud, "GET", "/servers/detail", microversion=microversion).json()["servers"]
            if server["id"] == server_id
        ]
        assert one == listed
        return one.get("tags"), one["metadata"]

    assert shown(labelled, "2.25") == (None, {"role": "web"})
    assert shown(labelled, "2.26") == (["canary", "blue"], {"role": "web"})
    assert shown(cloud.ids[1], "2.60") == ([], {})


def test_addresses(cloud: Cloud) -> None:
    """A server shows the addresses that it is given, by network, and none before."""
    first, second = cloud.ids[:2]
    cloud.change(first, addresses={"private": {"10.0.0.7": "fixed", "192.0.2.7": "floating"}, "v6": {"::7": "fixed"}})
    shown = ask(cloud, "GET", f"/servers/{first}").json()["server"]["addresses"]
    assert {
        network: [(one["addr"], one["version"], one["OS-EXT-IPS:type"]) for one in addresses]
        for network, addresses in shown.items()
    } == {
        "private": [("10.0.0.7", 4, "fixed"), ("192.0.2.7", 4, "floating")],
        "v6": [("::7", 6, "fixed")],
    }
    assert ask(cloud, "GET", f"/servers/{second}").json()["server"]["addresses"] == {}


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ((2, 1), {"policies": ["anti-affinity"], "metadata": {}}),
        ((2, 13), {"policies": ["anti-affinity"], "metadata": {}, "project_id": "p", "user_id": "u"}),
        ((2, 64), {"policy": "anti-affinity", "rules": {}, "project_id": "p", "user_id": "u"}),
    ],
)
def test_server_group(version: tuple[int, int], shown: dict[str, object]) -> None:
    """A server group shows its owner from 2.13 on, and one policy in place of a list from 2.64 on."""
    group = server_group("g", ["a", "b"], version, project_id="p", user_id="u")
    assert group == {"id": group["id"], "name": "g", "members": ["a", "b"], **shown}
