"""What clouds answer, byte for byte as they write it, one server on its way through such answers, and a report."""

import json
from collections.abc import Mapping
from typing import Final

from bulkrestart.core.clock import SKEW, LogTime
from bulkrestart.core.decide import decide
from bulkrestart.core.faults import read_fault
from bulkrestart.core.model import RebootType, ServerResult, Stop
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.progress import Order, Progress
from bulkrestart.core.report import Report
from bulkrestart.simulator import nova_answer

SERVER: Final = "616fb98f-46ca-475e-917e-2563e5a8cd19"
REQUEST: Final = "req-7f1b3c62-9b43-4a0e-8f0c-0d2f3c1a5b77"
OTHER_REQUEST: Final = "req-0b7e9f1c-3d55-4a55-9d1e-0c6d7f2b8a10"

SOFT: Final = RebootType.SOFT
HARD: Final = RebootType.HARD

#: nova/compute/vm_states.py
VM_STATES: Final = (
    "active",
    "building",
    "paused",
    "suspended",
    "stopped",
    "rescued",
    "resized",
    "soft-delete",
    "deleted",
    "error",
    "shelved",
    "shelved_offloaded",
)
#: nova/objects/fields.py InstanceTaskState
TASK_STATES: Final = (
    *("scheduling", "block_device_mapping", "networking", "spawning"),
    *("image_snapshot", "image_snapshot_pending", "image_pending_upload", "image_uploading", "image_backup"),
    "updating_password",
    *("resize_prep", "resize_migrating", "resize_migrated", "resize_finish", "resize_reverting", "resize_confirming"),
    *("rebooting", "reboot_pending", "reboot_started"),
    *("rebooting_hard", "reboot_pending_hard", "reboot_started_hard"),
    *("pausing", "unpausing", "suspending", "resuming", "powering-off", "powering-on", "rescuing", "unrescuing"),
    *("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"),
    *("migrating", "deleting", "soft-deleting", "restoring"),
    *("shelving", "shelving_image_pending_upload", "shelving_image_uploading", "shelving_offloading", "unshelving"),
)
REBOOTING: Final = tuple(state for state in TASK_STATES if state.startswith("reboot"))


def answer(
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    is_cut_short: bool = False,
    is_redirected: bool = False,
    has_stale_token: bool = False,
) -> Answer:
    """Read an answer as the transport does."""
    fault = read_fault(status, headers or {}, body, is_cut_short=is_cut_short)
    return Answer(status, fault, is_redirected=is_redirected, has_stale_token=has_stale_token)


def nova_body(status: int, message: str) -> bytes:
    """Write Nova's envelope."""
    return nova_answer(status, message).body


def nova(status: int, message: str, request_id: str | None = REQUEST) -> Answer:
    """Answer as Nova does, with the id of the request that its action log will show."""
    headers = {} if request_id is None else {"x-compute-request-id": request_id}
    return answer(status, nova_body(status, message), headers)


def conflict_words(attribute: str, state: str) -> str:
    """Write what Nova says of a server in the wrong state (raise_http_conflict_for_instance_invalid_state)."""
    return f"Cannot 'reboot' instance {SERVER} while it is in {attribute} {state}"


def conflict(attribute: str, state: str) -> Answer:
    """Answer 409 as Nova does."""
    return nova(409, conflict_words(attribute, state))


def ecs_body(code: str, message: str) -> bytes:
    """Write the error of Huawei Cloud ECS and Open Telekom Cloud ECS."""
    return json.dumps({"error": {"code": code, "message": message}}).encode()


def ecs(status: int, code: str, message: str) -> Answer:
    """Answer as Huawei Cloud ECS and Open Telekom Cloud ECS do."""
    return answer(status, ecs_body(code, message))


def gateway(status: int, code: str, message: str) -> Answer:
    """Answer as the API gateway in front of ECS does."""
    body = {"error_msg": message, "error_code": code, "request_id": "d4e8174b8df00840aef0c6907ec0e384"}
    return answer(status, json.dumps(body).encode())


def keystone(*, has_stale_token: bool = False) -> Answer:
    """Answer 401 as keystonemiddleware does."""
    error = {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}
    return answer(401, json.dumps({"error": error}).encode(), has_stale_token=has_stale_token)


def page(status: int, title: str) -> Answer:
    """Answer as a proxy on the way does: with a page for people."""
    return answer(status, f"<html><head><title>{title}</title></head><body></body></html>".encode())


def begun(
    *,
    server_id: str = SERVER,
    reboot_type: RebootType = SOFT,
    may_escalate: bool = False,
    may_start: bool = False,
    run_began: float = 0.0,
    began: float = 0.0,
) -> Progress:
    """Give a server that the run has come to."""
    order = Order(reboot_type=reboot_type, may_escalate=may_escalate, may_start=may_start, run_began=run_began)
    return Progress(server_id=server_id, order=order, reboot_type=reboot_type, began=began)


def sent(
    *seen: Observation,
    reboot_type: RebootType = SOFT,
    may_escalate: bool = False,
    may_start: bool = False,
    cloud_time: tuple[float, float] | None = None,
    at: float = 100.0,
) -> Progress:
    """Take a server through sends that were answered so, all at one moment."""
    progress = begun(reboot_type=reboot_type, may_escalate=may_escalate, may_start=may_start, began=at)
    for observation in seen:
        progress.sends.leave(at, cloud_time)
        progress.answer(at, observation, decide(observation, progress))
    return progress


def in_log(progress: Progress, age: float = 0.0, skew: float = SKEW) -> LogTime | None:
    """Give the time of a send in a log whose clock agrees with `Date`, so many seconds after its answer."""
    return None if progress.sends.since is None else LogTime(progress.sends.since, progress.sends.since[1] + age, skew)


def report(*results: ServerResult, stopped: Stop | None = None, elapsed: float = 312.4) -> Report:
    """Write a report."""
    server_ids = tuple(result.server_id for result in results)
    return Report(server_ids=server_ids, ends=results, reboot_type=SOFT, stopped=stopped, elapsed=elapsed)
