"""Nova's rules on states, as tables: what a status is made of, and when a reboot is refused.

They are written here a second time on purpose: the cloud must not share a mistake with the client that is tested
against it, so nothing in this package imports `bulkrestart.core.decide`.
"""

from collections.abc import Iterable
from typing import Final, Literal

from bulkrestart.core.model import RebootType

#: nova/compute/task_states.py `soft_reboot_states` and `hard_reboot_states`: accepted, picked up by the host, running.
REBOOT_TASKS: Final = {
    RebootType.SOFT: ("rebooting", "reboot_pending", "reboot_started"),
    RebootType.HARD: ("rebooting_hard", "reboot_pending_hard", "reboot_started_hard"),
}

#: nova/compute/vm_states.py `ALLOW_SOFT_REBOOT` and `ALLOW_HARD_REBOOT`.
ALLOWED_VM_STATES: Final = {
    RebootType.SOFT: frozenset({"active"}),
    RebootType.HARD: frozenset({"active", "stopped", "paused", "suspended", "error"}),
}

#: nova/compute/api.py `_soft_reboot`, and nova/compute/task_states.py `ALLOW_REBOOT`.
ALLOWED_TASK_STATES: Final[dict[RebootType, frozenset[str | None]]] = {
    RebootType.SOFT: frozenset({None}),
    RebootType.HARD: frozenset(
        {
            None,
            "rebooting",
            "reboot_pending",
            "reboot_started",
            "rebooting_hard",
            "resuming",
            "unpausing",
            "pausing",
            "suspending",
        }
    ),
}

#: The two actions on a server's power.
PowerAction = Literal["start", "stop"]

#: nova/compute/api.py `start` and `stop`: the vm_states that each begins in, its task, and the vm_state it ends in.
POWER_ACTIONS: Final[dict[PowerAction, tuple[frozenset[str], str, str]]] = {
    "start": (frozenset({"stopped"}), "powering-on", "active"),
    "stop": (frozenset({"active", "error"}), "powering-off", "stopped"),
}

_RESIZE: Final = dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE")
_REBUILD: Final = dict.fromkeys(("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"), "REBUILD")

#: nova/api/openstack/common.py `_STATE_MAP`: the status of each vm_state, and of the tasks that change it.
STATUSES: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "active": (
        "ACTIVE",
        {
            **dict.fromkeys(REBOOT_TASKS[RebootType.SOFT], "REBOOT"),
            **dict.fromkeys(REBOOT_TASKS[RebootType.HARD], "HARD_REBOOT"),
            "updating_password": "PASSWORD",
            "migrating": "MIGRATING",
            **_RESIZE,
            **_REBUILD,
        },
    ),
    "building": ("BUILD", {}),
    "stopped": ("SHUTOFF", {**_RESIZE, **_REBUILD}),
    "resized": ("VERIFY_RESIZE", {"resize_reverting": "REVERT_RESIZE"}),
    "paused": ("PAUSED", {"migrating": "MIGRATING"}),
    "suspended": ("SUSPENDED", {}),
    "rescued": ("RESCUE", {}),
    "error": ("ERROR", _REBUILD),
    "deleted": ("DELETED", {}),
    "soft-delete": ("SOFT_DELETED", {}),
    "shelved": ("SHELVED", {}),
    "shelved_offloaded": ("SHELVED_OFFLOADED", {}),
}

#: nova/compute/power_state.py.
NO_STATE: Final = 0
RUNNING: Final = 1
PAUSED: Final = 3
SHUTDOWN: Final = 4

#: What each vm_state says of the guest. An error says nothing of it.
POWER_STATES: Final = {
    "active": RUNNING,
    "building": NO_STATE,
    "stopped": SHUTDOWN,
    "resized": RUNNING,
    "paused": PAUSED,
    "suspended": SHUTDOWN,
    "rescued": RUNNING,
    "deleted": NO_STATE,
    "soft-delete": SHUTDOWN,
    "shelved": SHUTDOWN,
    "shelved_offloaded": SHUTDOWN,
}


def status_of(vm_state: str, task_state: str | None) -> str:
    """Derive the `status` of a server, as the API does."""
    default, of_tasks = STATUSES.get(vm_state, ("UNKNOWN", {}))
    return of_tasks.get(task_state or "", default)


def states_of(statuses: Iterable[str]) -> tuple[frozenset[str], frozenset[str] | None]:
    """Turn a filter on statuses into one on states.

    Nova selects vm_states and task_states each for itself, and drops the second filter when one status stands for
    a vm_state without a task: so ACTIVE brings rebooting servers too, and REBOOT with ERROR brings all active ones
    (nova/api/openstack/common.py `task_and_vm_state_from_status`).

    Returns:
        The vm_states, and the task_states or None for any. No vm_states: no such status.
    """
    wanted = {status.upper() for status in statuses}
    vm_states = {vm for vm, (default, tasks) in STATUSES.items() if wanted & {default, *tasks.values()}}
    task_states = {task for _, tasks in STATUSES.values() for task, status in tasks.items() if status in wanted}
    is_default = any(default in wanted for default, _ in STATUSES.values())
    return frozenset(vm_states), None if is_default else frozenset(task_states)


def reboot_conflict(
    reboot_type: RebootType, *, server_id: str, vm_state: str, task_state: str | None, locked: bool, launched: bool
) -> str | None:
    """Tell why a reboot is refused, in Nova's words, or None.

    The first check that fails is the message (nova/compute/api.py, `check_instance_lock` and
    `check_instance_state`; nova/api/openstack/common.py `raise_http_conflict_for_instance_invalid_state`).
    """
    if locked:
        return _locked(server_id)
    if vm_state not in ALLOWED_VM_STATES[reboot_type]:
        return _wrong_state("reboot", server_id, "vm_state", vm_state)
    if task_state not in ALLOWED_TASK_STATES[reboot_type]:
        return _wrong_state("reboot", server_id, "task_state", task_state)
    if not launched:
        return f"Instance {server_id} is in an invalid state for 'reboot'"
    return None


def power_conflict(
    action: PowerAction, *, server_id: str, vm_state: str, task_state: str | None, locked: bool
) -> str | None:
    """Tell why a start or a stop is refused, in Nova's words, or None."""
    if locked:
        return _locked(server_id)
    allowed_vm_states, _, _ = POWER_ACTIONS[action]
    if vm_state not in allowed_vm_states:
        return _wrong_state(action, server_id, "vm_state", vm_state)
    if task_state is not None:
        return _wrong_state(action, server_id, "task_state", task_state)
    return None


def _locked(server_id: str) -> str:
    return f"Instance {server_id} is locked"


def _wrong_state(action: str, server_id: str, attribute: str, state: str | None) -> str:
    return f"Cannot '{action}' instance {server_id} while it is in {attribute} {state}"
