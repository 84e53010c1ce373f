"""The tables of states, over every state that Nova has."""

from itertools import product

import pytest

from bulkrestart.core.model import RebootType
from bulkrestart.simulator.rules import PowerAction, power_conflict, reboot_conflict, states_of, status_of

#: nova/objects/fields.py `InstanceState` and `InstanceTaskState`
VM_WORDS = """
active building paused suspended stopped rescued resized soft-delete deleted error shelved shelved_offloaded
"""
TASK_WORDS = """
scheduling block_device_mapping networking spawning image_snapshot image_snapshot_pending image_pending_upload
image_uploading image_backup updating_password resize_prep resize_migrating resize_migrated resize_finish
resize_reverting resize_confirming rebooting reboot_pending reboot_started rebooting_hard reboot_pending_hard
reboot_started_hard pausing unpausing suspending resuming powering-off powering-on rescuing unrescuing rebuilding
rebuild_block_device_mapping rebuild_spawning migrating deleting soft-deleting restoring shelving
shelving_image_pending_upload shelving_image_uploading shelving_offloading unshelving
"""
VM_STATES, TASK_STATES = VM_WORDS.split(), TASK_WORDS.split()
#: The pairs that a reboot is accepted in; everything else is a conflict.
SOFT_ACCEPTED = {("active", None)}
HARD_ACCEPTED = set(
    product(
        ("active", "stopped", "paused", "suspended", "error"),
        (
            None,
            "rebooting",
            "reboot_pending",
            "reboot_started",
            "rebooting_hard",
            "resuming",
            "unpausing",
            "pausing",
            "suspending",
        ),
    )
)


def conflict(reboot_type: RebootType, vm_state: str, task_state: str | None, *, locked: bool = False) -> str | None:
    """Ask about a server "x" that was launched."""
    return reboot_conflict(
        reboot_type, server_id="x", vm_state=vm_state, task_state=task_state, locked=locked, launched=True
    )


@pytest.mark.parametrize("vm_state", VM_STATES)
@pytest.mark.parametrize(
    ("reboot_type", "accepted"), [(RebootType.SOFT, SOFT_ACCEPTED), (RebootType.HARD, HARD_ACCEPTED)]
)
def test_every_state(reboot_type: RebootType, accepted: set[tuple[str, str | None]], vm_state: str) -> None:
    """Of every vm_state and task_state, a reboot is accepted in Nova's pairs, and refused in Nova's words elsewhere."""
    vm_state_passes = vm_state in {vm for vm, _ in accepted}
    for task_state in (None, *TASK_STATES):
        seen = conflict(reboot_type, vm_state, task_state)
        if (vm_state, task_state) in accepted:
            assert seen is None
        elif vm_state_passes:
            assert seen == f"Cannot 'reboot' instance x while it is in task_state {task_state}"
        else:
            assert seen == f"Cannot 'reboot' instance x while it is in vm_state {vm_state}"


@pytest.mark.parametrize("reboot_type", RebootType)
def test_lock_comes_first(reboot_type: RebootType) -> None:
    """A lock is told before any state."""
    assert conflict(reboot_type, "shelved", "deleting", locked=True) == "Instance x is locked"


@pytest.mark.parametrize("reboot_type", RebootType)
def test_launched_comes_last(reboot_type: RebootType) -> None:
    """A server that was never launched is told so only when its states would do."""
    said = reboot_conflict(reboot_type, server_id="x", vm_state="active", task_state=None, locked=False, launched=False)
    assert said == "Instance x is in an invalid state for 'reboot'"


@pytest.mark.parametrize(("action", "begins_in"), [("start", {"stopped"}), ("stop", {"active", "error"})])
def test_power(action: PowerAction, begins_in: set[str]) -> None:
    """A start or a stop is accepted in Nova's vm_states, with no task and no lock; the lock is told first."""
    for vm_state, task_state in product(VM_STATES, (None, *TASK_STATES)):
        state = f"task_state {task_state}" if vm_state in begins_in else f"vm_state {vm_state}"
        is_accepted = vm_state in begins_in and task_state is None
        refused = f"Cannot '{action}' instance x while it is in {state}"
        for locked, expected in ((True, "Instance x is locked"), (False, None if is_accepted else refused)):
            said = power_conflict(action, server_id="x", vm_state=vm_state, task_state=task_state, locked=locked)
            assert said == expected


@pytest.mark.parametrize(
    ("vm_state", "task_state", "status"),
    [
        ("active", None, "ACTIVE"),
        ("active", "image_snapshot", "ACTIVE"),
        ("active", "rebooting", "REBOOT"),
        ("active", "reboot_pending", "REBOOT"),
        ("active", "reboot_started", "REBOOT"),
        ("active", "rebooting_hard", "HARD_REBOOT"),
        ("active", "reboot_pending_hard", "HARD_REBOOT"),
        ("active", "reboot_started_hard", "HARD_REBOOT"),
        ("stopped", "rebooting_hard", "SHUTOFF"),
        ("paused", "reboot_started_hard", "PAUSED"),
        ("suspended", "rebooting_hard", "SUSPENDED"),
        ("error", "rebooting_hard", "ERROR"),
        ("error", "rebuilding", "REBUILD"),
        ("resized", None, "VERIFY_RESIZE"),
        ("resized", "resize_reverting", "REVERT_RESIZE"),
        ("rescued", None, "RESCUE"),
        ("building", "spawning", "BUILD"),
        ("shelved_offloaded", None, "SHELVED_OFFLOADED"),
        ("soft-delete", None, "SOFT_DELETED"),
        ("nonsense", None, "UNKNOWN"),
    ],
)
def test_status(vm_state: str, task_state: str | None, status: str) -> None:
    """A HARD reboot shows in the status of an active server only."""
    assert status_of(vm_state, task_state) == status


@pytest.mark.parametrize(
    ("statuses", "vm_states", "task_states"),
    [
        (["REBOOT"], {"active"}, {"rebooting", "reboot_pending", "reboot_started"}),
        (["active"], {"active"}, None),
        (["ERROR"], {"error"}, None),
        (["REBOOT", "ERROR"], {"active", "error"}, None),
        (["BANANA", "PAUSED"], {"paused"}, None),
        (["BANANA"], set(), set()),
    ],
)
def test_status_filter(statuses: list[str], vm_states: set[str], task_states: set[str] | None) -> None:
    """A filter on statuses is as loose as Nova's: one whole vm_state in it, and task_states no longer count."""
    assert states_of(statuses) == (frozenset(vm_states), None if task_states is None else frozenset(task_states))
