"""The cloud without HTTP: what is accepted, found, listed and counted."""

from itertools import pairwise

import pytest

from bulkrestart.core.model import RebootType
from bulkrestart.simulator import (
    Call,
    Cloud,
    ConflictError,
    Fault,
    Faults,
    Identity,
    LogAccess,
    ManualClock,
    RaceError,
    Role,
    ServerFault,
)
from bulkrestart.simulator.filters import Filter
from bulkrestart.simulator.records import MarkerError, StatusError

SOFT, HARD = RebootType.SOFT, RebootType.HARD


@pytest.mark.parametrize("reboot_type", RebootType)
def test_refusal_changes_nothing(cloud: Cloud, reboot_type: RebootType) -> None:
    """A reboot that is refused leaves no row and no task."""
    server = cloud.change(cloud.ids[0], locked=True)
    rows = len(server.log)
    with pytest.raises(ConflictError, match=rf"^Instance {server.id} is locked$"):
        cloud.reboot(server.id, reboot_type)
    assert (server.task_state, len(server.log)) == (None, rows)


def test_admin_passes_a_lock(cloud: Cloud) -> None:
    """A lock does not hold an admin."""
    server = cloud.change(cloud.ids[0], locked=True)
    cloud.reboot(server.id, SOFT, identity=Identity(user_id="root", project_id="p", role=Role.ADMIN))
    assert server.task_state == "rebooting"


def test_never_launched(cloud: Cloud) -> None:
    """A server that was never launched is in an invalid state."""
    server = cloud.add(launched_at=None)
    with pytest.raises(ConflictError, match=r"is in an invalid state for 'reboot'$"):
        cloud.reboot(server.id, SOFT)


def test_legacy_race_while_pausing(clock: ManualClock) -> None:
    """Queens fails to save a HARD reboot over a server that is pausing; a modern cloud accepts it."""
    legacy, modern = (Cloud(1, clock=clock, legacy_host=legacy_host) for legacy_host in (True, False))
    for cloud in (legacy, modern):
        cloud.change(cloud.ids[0], task_state="pausing")
    with pytest.raises(RaceError):
        legacy.reboot(legacy.ids[0], HARD)
    modern.reboot(modern.ids[0], HARD)


def test_same_seed_same_cloud(clock: ManualClock) -> None:
    """The same seed gives the same ids, lots and reboot times; another gives others."""

    def run(seed: int) -> tuple[list[str], list[bool], list[float]]:
        clock = ManualClock()
        cloud = Cloud(20, seed=seed, clock=clock, faults=Faults(locked=0.3, alive=0.2))
        locked = [cloud.server(server_id).locked for server_id in cloud.ids]
        for server_id in cloud.ids:
            if not cloud.server(server_id).locked:
                cloud.reboot(server_id, SOFT)
        clock.advance(60)
        return cloud.ids, locked, [cycle.time for cycle in cloud.cycle_log]

    assert run(1) == run(1)
    for one, other in zip(run(1), run(2), strict=True):
        assert one != other


def test_servers_are_spread(clock: ManualClock) -> None:
    """Servers have names in order, and are spread over hosts and zones."""
    cloud = Cloud(4, clock=clock, hosts=2, zones=("a", "b", "c"))
    servers = [cloud.server(server_id) for server_id in cloud.ids]
    assert [server.name for server in servers] == ["web-0001", "web-0002", "web-0003", "web-0004"]
    assert [server.availability_zone for server in servers] == ["a", "b", "c", "a"]
    assert servers[0].host_id == servers[2].host_id != servers[1].host_id


def test_change_follows_the_vm_state(cloud: Cloud, clock: ManualClock) -> None:
    """Setting a vm_state sets what it says of the guest, unless that is given; and the server counts as changed."""
    server_id = cloud.ids[0]
    assert cloud.change(server_id, vm_state="stopped").power_state == 4
    assert cloud.change(server_id, vm_state="error").power_state == 4
    assert cloud.change(server_id, vm_state="error", power_state=1).power_state == 1
    clock.advance(5)
    fault = ServerFault(500, "boom", clock())
    server = cloud.change(server_id, fault=fault, name="db", host="h", availability_zone="z")
    assert (server.fault, server.name, server.host, server.availability_zone) == (fault, "db", "h", "z")
    assert server.updated == clock()


def test_unknown_server(cloud: Cloud) -> None:
    """A server that never was is a KeyError everywhere."""
    with pytest.raises(KeyError):
        cloud.server("nope")
    with pytest.raises(KeyError):
        cloud.change("nope", locked=True)
    with pytest.raises(KeyError):
        cloud.reboot("nope", SOFT)


def test_find(cloud: Cloud) -> None:
    """A token sees the living servers of its project; an admin's sees those of others."""
    member = Identity(user_id="u", project_id=cloud.project_id)
    other = cloud.add(project_id="other")
    assert cloud.find(cloud.ids[0], member).id == cloud.ids[0]
    with pytest.raises(KeyError):
        cloud.find(other.id, member)
    admin = Identity(user_id="u", project_id=cloud.project_id, role=Role.ADMIN)
    assert cloud.find(other.id, admin) is other
    cloud.delete(cloud.ids[0])
    with pytest.raises(KeyError):
        cloud.find(cloud.ids[0], member)
    assert cloud.find(cloud.ids[0], member, with_deleted=True).is_deleted
    assert other.id not in cloud.ids


def test_power(cloud: Cloud, clock: ManualClock) -> None:
    """Stopping and starting take time, leave rows, and are refused in Nova's words."""
    server_id, who = cloud.ids[0], Identity(user_id="u", project_id=cloud.project_id)
    with pytest.raises(ConflictError, match=r"^Cannot 'start' instance .* while it is in vm_state active$"):
        cloud.power(server_id, True, identity=who, request_id="req-0")
    cloud.power(server_id, False, identity=who, request_id="req-1")
    assert cloud.server(server_id).task_state == "powering-off"
    with pytest.raises(ConflictError, match=r"^Cannot 'stop' instance .* in task_state powering-off$"):
        cloud.power(server_id, False, identity=who, request_id="req-2")
    clock.advance(10)
    cloud.power(server_id, True, identity=who, request_id="req-3")
    assert cloud.server(server_id).task_state == "powering-on"
    clock.advance(10)
    assert cloud.server(server_id).status == "ACTIVE"
    cloud.set_lock(server_id, True, identity=who, request_id="req-4")
    with pytest.raises(ConflictError, match=r"is locked$"):
        cloud.power(server_id, False, identity=who, request_id="req-5")
    assert [row.action for row in cloud.server(server_id).log] == ["create", "stop", "start", "lock"]


def test_pages_cover_the_fleet_once(clock: ManualClock) -> None:
    """Pages joined by their markers hold every living server once, the newest first."""
    cloud = Cloud(25, clock=clock)
    clock.advance(1)
    newest = cloud.add()
    cloud.add(project_id="other")
    deleted = cloud.ids[3]
    cloud.delete(deleted)
    seen: list[str] = []
    while page := cloud.page(cloud.project_id, limit=10, marker=seen[-1] if seen else None):
        seen += [server.id for server in page]
    assert seen[0] == newest.id
    assert sorted(seen) == sorted(set(cloud.ids) - {deleted})


def test_marker_may_be_deleted(cloud: Cloud) -> None:
    """A page goes on after a server that was deleted meanwhile; not after one that never was, or is another's."""
    order = [server.id for server in cloud.page(cloud.project_id, limit=10)]
    cloud.delete(order[0])
    assert [server.id for server in cloud.page(cloud.project_id, limit=1, marker=order[0])] == [order[1]]
    for marker in ("nope", cloud.add(project_id="other").id):
        with pytest.raises(MarkerError):
            cloud.page(cloud.project_id, limit=1, marker=marker)


def test_changes_since(cloud: Cloud, clock: ManualClock) -> None:
    """A list of changes holds what changed since then, deleted servers too."""
    changed, deleted = cloud.ids[:2]
    clock.advance(5)
    since = clock()
    clock.advance(5)
    cloud.change(changed, locked=True)
    cloud.delete(deleted)
    page = cloud.page(cloud.project_id, limit=10, only=Filter(changes_since=since))
    assert {server.id: server.status for server in page} == {changed: "ACTIVE", deleted: "DELETED"}
    everything = cloud.page(cloud.project_id, limit=10, only=Filter(changes_since=0))
    assert {server.id for server in everything} == set(cloud.ids)


def test_page_by_status(cloud: Cloud) -> None:
    """A list by status finds rebooting servers exactly, and by ACTIVE those that reboot too."""
    cloud.reboot(cloud.ids[0], SOFT)
    cloud.change(cloud.ids[1], vm_state="error")

    def found(*statuses: str) -> set[str]:
        page = cloud.page(cloud.project_id, limit=10, only=Filter(statuses=statuses))
        return {server.id for server in page}

    first, second, *others = cloud.ids
    assert found("REBOOT", "HARD_REBOOT") == {first}
    assert found("ACTIVE") == {first, *others}
    assert found("REBOOT", "ERROR") == {first, second, *others}
    with pytest.raises(StatusError):
        found("BANANA")


def test_log(cloud: Cloud, clock: ManualClock) -> None:
    """The log begins with the creation, and is read newest first; an empty one shows not even that."""
    server = cloud.server(cloud.ids[0])
    cloud.reboot(server.id, SOFT)
    assert [row.action for row in cloud.log(server)] == ["reboot", "create"]
    cloud.log_delay = 3
    assert [row.action for row in cloud.log(server)] == ["create"]
    clock.advance(3)
    assert [row.action for row in cloud.log(server)] == ["reboot", "create"]
    cloud.log_access = LogAccess.EMPTY
    assert cloud.log(server) == []


def test_requests_are_counted(cloud: Cloud) -> None:
    """Requests are recorded with their answers, and the most that were in flight is kept, of reboots and of all."""
    first, second = cloud.ids[:2]
    numbers = [
        cloud.arrive(call, server_id)[0]
        for call, server_id in ((Call.REBOOT, first), (Call.REBOOT, second), (Call.LIST, None), (Call.REBOOT, "nope"))
    ]
    assert (cloud.in_flight, cloud.posts_in_flight) == (4, 3)
    for number, status in zip(numbers, (202, None, 200, 404), strict=True):
        cloud.leave(number, status)
    assert (cloud.in_flight, cloud.posts_in_flight) == (0, 0)
    assert (cloud.peak_in_flight, cloud.peak_posts_in_flight) == (4, 3)
    assert [(request.call, request.status) for request in cloud.requests] == [
        (Call.REBOOT, 202),
        (Call.REBOOT, None),
        (Call.LIST, 200),
        (Call.REBOOT, 404),
    ]
    assert cloud.posts == {first: 1, second: 1, "nope": 1}
    assert cloud.server(first).posts == 1


def test_reboot_request_for_no_server(cloud: Cloud) -> None:
    """A reboot request that names no server is in flight as a request only, and leaves no debt."""
    number, _ = cloud.arrive(Call.REBOOT, None)
    assert (cloud.in_flight, cloud.posts_in_flight) == (1, 0)
    cloud.leave(number, 404)
    assert (cloud.in_flight, cloud.posts_in_flight) == (0, 0)


def test_script(cloud: Cloud) -> None:
    """Scripted faults are met in order, by the call and server they are for, and pass; an outage comes before them."""
    server_id = cloud.ids[0]
    first, second, third = Fault.error(500), Fault.error(502), Fault.error(503)
    cloud.script(server_id, first, None, second)
    cloud.script(None, third, call=Call.LIST)

    def meet(call: Call, server: str | None) -> Fault | None:
        number, fault = cloud.arrive(call, server)
        cloud.leave(number, None)
        return fault

    assert meet(Call.SHOW, server_id) is None
    assert meet(Call.REBOOT, cloud.ids[1]) is None
    assert meet(Call.LIST, None) is third
    assert meet(Call.REBOOT, server_id) is first
    cloud.outage = third
    assert meet(Call.REBOOT, server_id) is third
    cloud.outage = None
    assert [meet(Call.REBOOT, server_id) for _ in range(3)] == [None, second, None]


def test_requests_do_not_change_later_servers(clock: ManualClock) -> None:
    """Which servers there are does not depend on how much was asked before."""
    one, other = Cloud(1, clock=clock), Cloud(1, clock=clock)
    other.new_request_id()
    assert one.add().id == other.add().id


def test_ids_of_a_large_cloud_differ() -> None:
    """Ten thousand servers have ten thousand ids, and are there at once."""
    cloud = Cloud(10_000)
    assert len(set(cloud.ids)) == 10_000
    order = cloud.page(cloud.project_id, limit=10_000)
    assert all(one.id < other.id for one, other in pairwise(order))
