"""Nova's states, in the classes that a restart needs.

Sources: nova/compute/vm_states.py, nova/compute/task_states.py, nova/objects/fields.py (`InstanceTaskState`), and for
the action log nova/compute/instance_actions.py.
"""

from typing import Final

ACTIVE: Final = "active"
BUILDING: Final = "building"
DELETED: Final = "deleted"
#: A status, of a server in a cell that is down: its states are not known (Nova's api-guide, down_cells).
UNKNOWN: Final = "UNKNOWN"
ERROR: Final = "error"
STOPPED: Final = "stopped"

#: The `vm_state` and `task_state` for each status, used if a cloud does not show the two states (the reverse of
#: `_STATE_MAP` in nova/api/openstack/common.py). Tasks without a status of their own are missing; Nova refuses a reboot
#: during most of them.
STATES_OF: Final[dict[str, tuple[str, str | None]]] = {
    "ACTIVE": (ACTIVE, None),
    "REBOOT": (ACTIVE, "rebooting"),
    "HARD_REBOOT": (ACTIVE, "rebooting_hard"),
    "PASSWORD": (ACTIVE, "updating_password"),
    "REBUILD": (ACTIVE, "rebuilding"),
    "MIGRATING": (ACTIVE, "migrating"),
    "RESIZE": (ACTIVE, "resize_prep"),
    "REVERT_RESIZE": ("resized", "resize_reverting"),
    "VERIFY_RESIZE": ("resized", None),
    "BUILD": (BUILDING, None),
    "SHUTOFF": (STOPPED, None),
    "PAUSED": ("paused", None),
    "SUSPENDED": ("suspended", None),
    "RESCUE": ("rescued", None),
    "ERROR": (ERROR, None),
    "DELETED": (DELETED, None),
    "SOFT_DELETED": ("soft-delete", None),
    "SHELVED": ("shelved", None),
    "SHELVED_OFFLOADED": ("shelved_offloaded", None),
}

#: The six task states of a reboot, SOFT and HARD.
REBOOT_TASKS: Final = frozenset(
    {
        "rebooting",
        "reboot_pending",
        "reboot_started",
        "rebooting_hard",
        "reboot_pending_hard",
        "reboot_started_hard",
    }
)

#: The name of a reboot in the action log.
REBOOT: Final = "reboot"
#: The names of all other actions in Nova's action log and of some in its API, in lower case.
OTHER_ACTIONS: Final = frozenset(
    {
        *("create", "delete", "restore", "evacuate", "rebuild", "createbackup", "createimage"),
        *("start", "stop", "pause", "unpause", "suspend", "resume", "rescue", "unrescue", "lock", "unlock"),
        *("resize", "revertresize", "confirmresize", "migrate", "live-migration", "live_migration_cancel"),
        *("live_migration_force_complete", "shelve", "shelveoffload", "unshelve", "changepassword"),
        *("trigger_crash_dump", "extend_volume", "attach_volume", "detach_volume", "swap_volume"),
        *("attach_interface", "detach_interface"),
    }
)
#: A name in the action log that is not one of these is the cloud's own, and may mean a reboot.
KNOWN_ACTIONS: Final = OTHER_ACTIONS | {REBOOT}

#: vm_states, besides active, in which Nova takes a HARD reboot (nova/compute/api.py `_hard_reboot`).
HARD_ONLY_STATES: Final = frozenset({STOPPED, "paused", "suspended", ERROR})

#: Tasks that leave the vm_state as it is.
KEEPING_TASKS: Final = frozenset(
    {
        "image_snapshot",
        "image_snapshot_pending",
        "image_pending_upload",
        "image_uploading",
        "image_backup",
        "updating_password",
        "migrating",
    }
)

#: The vm_state that every other task ends in when it goes well.
TASK_ENDS_IN: Final = {
    "scheduling": ACTIVE,
    "block_device_mapping": ACTIVE,
    "networking": ACTIVE,
    "spawning": ACTIVE,
    "resize_prep": "resized",
    "resize_migrating": "resized",
    "resize_migrated": "resized",
    "resize_finish": "resized",
    "resize_reverting": ACTIVE,
    "resize_confirming": ACTIVE,
    "pausing": "paused",
    "unpausing": ACTIVE,
    "suspending": "suspended",
    "resuming": ACTIVE,
    "powering-off": STOPPED,
    "powering-on": ACTIVE,
    "rescuing": "rescued",
    "unrescuing": ACTIVE,
    "rebuilding": ACTIVE,
    "rebuild_block_device_mapping": ACTIVE,
    "rebuild_spawning": ACTIVE,
    "deleting": "deleted",
    "soft-deleting": "soft-delete",
    "restoring": ACTIVE,
    "shelving": "shelved",
    "shelving_image_pending_upload": "shelved",
    "shelving_image_uploading": "shelved",
    "shelving_offloading": "shelved_offloaded",
    "unshelving": ACTIVE,
}
