"""What a reboot does to a server, to its action log, and to the count of power cycles."""

import pytest

from bulkrestart.core.model import RebootType
from bulkrestart.simulator import Cloud, ConflictError, HostFault, ManualClock

SOFT, HARD = RebootType.SOFT, RebootType.HARD


def results(cloud: Cloud, server_id: str) -> list[tuple[str, str | None, str | None]]:
    """The reboot rows of a server, the oldest first: user, message, result of the event."""
    rows = [row for row in cloud.server(server_id).log if row.action == "reboot"]
    return [(row.user_id[:5], row.message, row.result) for row in rows]


@pytest.mark.parametrize(("reboot_type", "suffix"), [(SOFT, ""), (HARD, "_hard")])
def test_reboot(cloud: Cloud, clock: ManualClock, reboot_type: RebootType, suffix: str) -> None:
    """A reboot goes through the three task_states of its type, cycles the guest once, and ends active and idle."""
    server = cloud.server(cloud.ids[0])
    row = cloud.reboot(server.id, reboot_type)
    assert server.task_state == f"rebooting{suffix}"
    assert (row.event, row.result) == ("", None)
    clock.advance(1)
    assert cloud.server(server.id).task_state == f"reboot_pending{suffix}"
    assert row.event == "compute_reboot_instance"
    clock.advance(1)
    assert cloud.server(server.id).task_state == f"reboot_started{suffix}"
    assert cloud.cycles[server.id] == 0
    clock.advance(4)
    assert cloud.cycles[server.id] == 1
    assert server.task_state == f"reboot_started{suffix}"
    clock.advance(4)
    assert cloud.server(server.id).task_state is None
    assert server.status == "ACTIVE"
    assert (row.message, row.result, row.event_finish) == (None, "Success", clock())
    assert [(cycle.server_id, cycle.reboot_type) for cycle in cloud.cycle_log] == [(server.id, reboot_type)]
    assert cloud.cycle_log[0].time == clock() - 4


def test_reboot_over_before_the_first_look(clock: ManualClock) -> None:
    """A reboot that takes no time leaves nothing but its row of the log."""
    cloud = Cloud(1, clock=clock, reboot_seconds=(0, 0))
    cloud.reboot(cloud.ids[0], SOFT)
    assert cloud.server(cloud.ids[0]).task_state is None
    assert cloud.cycles[cloud.ids[0]] == 1


@pytest.mark.parametrize("vm_state", ["stopped", "paused", "suspended", "error"])
def test_hard_starts_a_server(cloud: Cloud, clock: ManualClock, vm_state: str) -> None:
    """HARD on a server that is not active never shows in its status, and ends active."""
    server = cloud.change(cloud.ids[0], vm_state=vm_state)
    status = server.status
    cloud.reboot(server.id, HARD)
    for _ in range(9):
        assert cloud.server(server.id).status == status
        assert server.task_state is not None
        clock.advance(1)
    clock.advance(1)
    assert cloud.server(server.id).status == "ACTIVE"
    assert server.power_state == 1
    assert cloud.cycles[server.id] == 1


@pytest.mark.parametrize("pause", [2, 3, 9])
def test_hard_over_a_running_soft(cloud: Cloud, clock: ManualClock, pause: float) -> None:
    """HARD over a SOFT that runs is accepted and dropped: one cycle, and its own action ends in Error."""
    server_id = cloud.ids[0]
    cloud.reboot(server_id, SOFT)
    clock.advance(pause)
    cloud.reboot(server_id, HARD)
    assert cloud.server(server_id).status == "HARD_REBOOT"
    clock.advance(10 - pause)
    assert cloud.server(server_id).task_state is None
    clock.advance(20)
    assert cloud.cycles[server_id] == 1
    assert results(cloud, server_id) == [("fedcb", None, "Success"), ("fedcb", "Error", "Error")]


def test_hard_before_the_soft_is_picked_up(cloud: Cloud, clock: ManualClock) -> None:
    """HARD over a SOFT that no host has picked up preempts it: the SOFT ends in Error, the HARD cycles."""
    server_id = cloud.ids[0]
    cloud.reboot(server_id, SOFT)
    cloud.reboot(server_id, HARD)
    clock.advance(20)
    assert results(cloud, server_id) == [("fedcb", "Error", "Error"), ("fedcb", None, "Success")]
    assert [cycle.reboot_type for cycle in cloud.cycle_log] == [HARD]


def test_hard_between_pick_up_and_driver(cloud: Cloud, clock: ManualClock) -> None:
    """HARD over a SOFT that is pending undoes both: the SOFT ends in Success and the HARD in Error, with no cycle."""
    server_id = cloud.ids[0]
    cloud.reboot(server_id, SOFT)
    clock.advance(1.5)
    cloud.reboot(server_id, HARD)
    clock.advance(20)
    assert cloud.server(server_id).status == "ACTIVE"
    assert results(cloud, server_id) == [("fedcb", None, "Success"), ("fedcb", "Error", "Error")]
    assert cloud.cycles[server_id] == 0


def test_second_hard(cloud: Cloud, clock: ManualClock) -> None:
    """A second HARD is accepted until the host picks the first one up, and dropped then."""
    server_id = cloud.ids[0]
    cloud.reboot(server_id, HARD)
    cloud.reboot(server_id, HARD)
    clock.advance(1)
    with pytest.raises(ConflictError, match=r"task_state reboot_pending_hard$"):
        cloud.reboot(server_id, HARD)
    clock.advance(20)
    assert cloud.cycles[server_id] == 1
    assert results(cloud, server_id) == [("fedcb", None, "Success"), ("fedcb", "Error", "Error")]


def test_legacy_host_cycles_twice(clock: ManualClock) -> None:
    """Without a lock on the host, a HARD over a SOFT cycles the guest a second time."""
    cloud = Cloud(1, clock=clock, reboot_seconds=(10, 10), legacy_host=True)
    server_id = cloud.ids[0]
    cloud.reboot(server_id, SOFT)
    clock.advance(3)
    cloud.reboot(server_id, HARD)
    clock.advance(7)
    assert cloud.server(server_id).task_state is None
    clock.advance(20)
    assert [cycle.reboot_type for cycle in cloud.cycle_log] == [SOFT, HARD]
    assert results(cloud, server_id) == [("fedcb", None, "Success")] * 2


def test_dead_host(cloud: Cloud, clock: ManualClock) -> None:
    """A driver that fails with the guest off ends in ERROR with a fault, and a HARD brings the server back."""
    server = cloud.server(cloud.ids[0])
    cloud.break_host(server.id, HostFault.DEAD)
    cloud.reboot(server.id, SOFT)
    clock.advance(10)
    assert cloud.server(server.id).status == "ERROR"
    assert server.fault is not None
    assert results(cloud, server.id) == [("fedcb", "Error", "Error")]
    assert cloud.cycles[server.id] == 0
    cloud.reboot(server.id, HARD)
    clock.advance(10)
    assert cloud.server(server.id).status == "ACTIVE"
    assert cloud.cycles[server.id] == 1


def test_failed_driver_with_a_running_guest(cloud: Cloud, clock: ManualClock) -> None:
    """A driver that fails with the guest running is recorded as Success, without a cycle."""
    server_id = cloud.ids[0]
    cloud.break_host(server_id, HostFault.ALIVE)
    cloud.reboot(server_id, SOFT)
    clock.advance(10)
    assert cloud.server(server_id).status == "ACTIVE"
    assert results(cloud, server_id) == [("fedcb", None, "Success")]
    assert cloud.cycles[server_id] == 0


@pytest.mark.parametrize(("fault", "task_state"), [(HostFault.HANG, "reboot_started"), (HostFault.DOWN, "rebooting")])
def test_host_that_never_comes_back(cloud: Cloud, clock: ManualClock, fault: HostFault, task_state: str) -> None:
    """A driver that hangs, or a host that is down, leaves the server in its task for ever."""
    server_id = cloud.ids[0]
    cloud.break_host(server_id, fault)
    cloud.reboot(server_id, SOFT)
    clock.advance(86_400)
    assert cloud.server(server_id).task_state == task_state
    assert cloud.cycles[server_id] == 0


@pytest.mark.parametrize("pause", [0.5, 1.5, 3, 8])
def test_delete_during_a_reboot(cloud: Cloud, clock: ManualClock, pause: float) -> None:
    """A server that is deleted while it reboots stays deleted, and its reboot ends."""
    server = cloud.server(cloud.ids[0])
    cloud.reboot(server.id, SOFT)
    clock.advance(pause)
    cloud.delete(server.id)
    clock.advance(20)
    assert cloud.cycles[server.id] == (1 if pause == 8 else 0)
    assert server.status == "DELETED"
    assert server.terminated_at == clock() - 20
    assert results(cloud, server.id) == [("fedcb", "Error", "Error")]
    with pytest.raises(KeyError):
        cloud.reboot(server.id, SOFT)


def test_reboot_by_other(cloud: Cloud, clock: ManualClock) -> None:
    """Another user's reboot stands in the log under another name."""
    cloud.reboot_by_other(cloud.ids[0], HARD)
    clock.advance(10)
    assert results(cloud, cloud.ids[0]) == [("anoth", None, "Success")]


def test_occupy(cloud: Cloud, clock: ManualClock) -> None:
    """A passing task ends by itself, in the vm_state that it leads to."""
    snapshot, stop = cloud.ids[:2]
    cloud.occupy(snapshot, "image_snapshot", 5)
    cloud.occupy(stop, "powering-off", 5, ends_in="stopped")
    clock.advance(4)
    assert cloud.server(snapshot).task_state == "image_snapshot"
    clock.advance(1)
    assert [cloud.server(one).status for one in (snapshot, stop)] == ["ACTIVE", "SHUTOFF"]
    assert [cloud.server(one).task_state for one in (snapshot, stop)] == [None, None]


def test_hard_preempts_a_passing_task(cloud: Cloud, clock: ManualClock) -> None:
    """A task that a HARD reboot has preempted does not end the reboot's task."""
    server_id = cloud.ids[0]
    cloud.occupy(server_id, "pausing", 1, ends_in="paused")
    cloud.reboot(server_id, HARD)
    clock.advance(5)
    assert cloud.server(server_id).task_state == "reboot_started_hard"
