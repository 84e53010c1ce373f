"""What the API shows of servers and their actions, by microversion."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from math import floor
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from bulkrestart.simulator.records import LogRow, SimulatedServer

#: (major, minor)
Version = tuple[int, int]

#: nova/api/openstack/compute/views/servers.py `_progress_statuses`, and `_fault_statuses`.
_PROGRESS_STATUSES: Final = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"})
_FAULT_STATUSES: Final = frozenset({"ERROR", "DELETED"})

_FLAVOR: Final[Mapping[str, object]] = {
    "vcpus": 1,
    "ram": 64,
    "disk": 1,
    "ephemeral": 0,
    "swap": 0,
    "original_name": "m1.tiny",
    "extra_specs": {},
}


def _second(at: float) -> str:
    """Write a time as the fields of a server do."""
    return f"{datetime.fromtimestamp(floor(at), UTC):%Y-%m-%dT%H:%M:%SZ}"


def _microsecond(at: float | None, resolution: float = 0.0) -> str | None:
    """Write a time as the action log does, without a zone, cut off to steps of `resolution` seconds."""
    if at is None:
        return None
    cut = floor(at / resolution) * resolution if resolution else at
    return f"{datetime.fromtimestamp(cut, UTC):%Y-%m-%dT%H:%M:%S.%f}"


def _addresses(server: SimulatedServer) -> dict[str, list[dict[str, object]]]:
    """Show addresses as nova/api/openstack/compute/views/addresses.py does, all with the MAC address of one port."""
    return {
        network: [
            {
                "version": ip_address(address).version,
                "addr": address,
                "OS-EXT-IPS:type": kind,
                "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:00",
            }
            for address, kind in addresses.items()
        ]
        for network, addresses in server.addresses.items()
    }


def brief_server(server: SimulatedServer, *, base: str, root: str) -> dict[str, object]:
    """Show a server as a list without details does.

    Args:
        server: The server.
        base: The URL of the API with version and project.
        root: The URL without the version, which is where Nova's bookmarks point.
    """
    return {"id": server.id, "name": server.name, "links": _links(server, base=base, root=root)}


def detailed_server(server: SimulatedServer, version: Version, *, base: str, root: str) -> dict[str, object]:
    """Show a server whole, as a member sees it."""
    status = server.status
    shown: dict[str, object] = {
        "accessIPv4": "",
        "accessIPv6": "",
        "addresses": _addresses(server),
        "created": _second(server.created),
        "flavor": _FLAVOR if version >= (2, 47) else {"id": "1", "links": []},
        "hostId": server.host_id,
        "id": server.id,
        "image": "",
        "links": _links(server, base=base, root=root),
        "metadata": server.metadata,
        "name": server.name,
        "status": status,
        "tenant_id": server.project_id,
        "user_id": server.user_id,
        "updated": _second(server.updated),
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": server.availability_zone,
        "config_drive": "",
        "key_name": None,
        "OS-SRV-USG:launched_at": _microsecond(server.launched_at),
        "OS-SRV-USG:terminated_at": _microsecond(server.terminated_at),
        "OS-EXT-STS:task_state": server.task_state,
        "OS-EXT-STS:vm_state": server.vm_state,
        "OS-EXT-STS:power_state": server.power_state,
        "os-extended-volumes:volumes_attached": [],
    }
    if status in _PROGRESS_STATUSES:
        shown["progress"] = 0
    if server.fault and status in _FAULT_STATUSES:
        shown["fault"] = {
            "code": server.fault.code,
            "created": _second(server.fault.created),
            "message": server.fault.message,
        }
    return shown | {key: value for since, key, value in _additions(server) if version >= since}


def _additions(server: SimulatedServer) -> tuple[tuple[Version, str, object], ...]:
    """List the keys that a server has got over time, with the microversion of each."""
    return (
        ((2, 9), "locked", server.locked),
        ((2, 19), "description", None),
        ((2, 26), "tags", list(server.tags)),
        ((2, 63), "trusted_image_certificates", None),
        ((2, 71), "server_groups", []),
        ((2, 73), "locked_reason", None),
        ((2, 90), "OS-EXT-SRV-ATTR:hostname", server.name),
        ((2, 96), "pinned_availability_zone", None),
    )


def log_row(server: SimulatedServer, row: LogRow, version: Version, *, resolution: float) -> dict[str, object]:
    """Show a row of the action log as the list of them does."""
    shown: dict[str, object] = {
        "action": row.action,
        "instance_uuid": server.id,
        "request_id": row.request_id,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "start_time": _microsecond(row.start_time, resolution),
        "message": row.message,
    }
    if version >= (2, 58):
        shown["updated_at"] = _microsecond(row.updated_at, resolution)
    return shown


def log_row_with_events(
    server: SimulatedServer, row: LogRow, version: Version, *, resolution: float
) -> dict[str, object]:
    """Show one row by itself; members see its events from 2.51 on."""
    shown = log_row(server, row, version, resolution=resolution)
    if version >= (2, 51):
        event: dict[str, object] = {
            "event": row.event,
            "start_time": _microsecond(row.event_start, resolution),
            "finish_time": _microsecond(row.event_finish, resolution),
            "result": row.result,
        }
        if version >= (2, 62):
            event["hostId"] = server.host_id
        shown["events"] = [event] if row.event else []
    return shown


def server_group(
    name: str, members: Sequence[str], version: Version, *, project_id: str, user_id: str
) -> dict[str, object]:
    """Show a server group whose policy is anti-affinity; its form changes with 2.64."""
    group_id = str(uuid5(NAMESPACE_OID, name))
    shown: dict[str, object] = {"id": group_id, "name": name, "members": list(members)}
    if version >= (2, 13):
        shown |= {"project_id": project_id, "user_id": user_id}
    if version >= (2, 64):
        return shown | {"policy": "anti-affinity", "rules": {}}
    return shown | {"policies": ["anti-affinity"], "metadata": {}}


def _links(server: SimulatedServer, *, base: str, root: str) -> list[dict[str, str]]:
    path = f"/servers/{server.id}"
    return [{"rel": "self", "href": base + path}, {"rel": "bookmark", "href": root + path}]
