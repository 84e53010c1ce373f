"""What the hosts do over time: a reboot's way to its power cycle and its end, and tasks that pass.

Law: a host refuses nothing. What the API has accepted is played as nova/compute/manager.py `reboot_instance` and
`_reboot_instance` do it, save by save; how it went stands in the server's states and in its action log.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from bulkrestart.core.model import RebootType
from bulkrestart.simulator.agenda import Agenda
from bulkrestart.simulator.faults import HostFault
from bulkrestart.simulator.records import Changes, Cycle, LogRow, ServerFault, SimulatedServer, apply_changes
from bulkrestart.simulator.rules import REBOOT_TASKS, RUNNING, SHUTDOWN

#: Shares of a reboot's time at which the host picks it up, starts the driver, and cycles the guest.
_PICKED_UP: Final = 0.1
_STARTED: Final = 0.2
_CYCLED: Final = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A reboot on its way through the host."""

    server: SimulatedServer
    row: LogRow
    reboot_type: RebootType
    seconds: float
    is_legacy: bool
    fault: HostFault | None


class Hosts:
    """All hosts of a cloud.

    Args:
        agenda: Where they put what they will do.

    Attributes:
        cycles: Real power cycles, the oldest first.
        cycle_counts: The number of them by server id.
    """

    def __init__(self, agenda: Agenda) -> None:
        self.cycles: list[Cycle] = []
        self.cycle_counts: dict[str, int] = {}
        self._agenda = agenda
        self._faults: dict[str, deque[HostFault]] = {}
        # The jobs that hold or wait for the lock of their server, the holder first.
        self._queues: dict[str, deque[_Job]] = {}

    def add(self, server: SimulatedServer) -> None:
        """Count the power cycles of a server that has had none."""
        self.cycle_counts[server.id] = 0

    def fail(self, server_id: str, *faults: HostFault) -> None:
        """Let the next reboots of a server meet these, one each, in order."""
        self._faults.setdefault(server_id, deque()).extend(faults)

    def occupy(self, server: SimulatedServer, task_state: str, seconds: float, *, ends_in: str | None = None) -> None:
        """Put a server into a task that passes, and that leads to the vm_state `ends_in` or back to its own."""
        self._change(server, {"task_state": task_state})

        def end() -> None:
            # A HARD reboot may have preempted it.
            if server.task_state == task_state:
                self._change(server, {"task_state": None, "vm_state": ends_in or server.vm_state})

        self._agenda.add(seconds, end)

    def reboot(
        self, server: SimulatedServer, row: LogRow, reboot_type: RebootType, *, seconds: float, is_legacy: bool
    ) -> None:
        """Take on a reboot that the API has accepted.

        Args:
            server: The server.
            row: The row of its action log.
            reboot_type: SOFT or HARD.
            seconds: How long it takes from now.
            is_legacy: Whether its host has no lock, as up to Train: it waits for no other reboot, and none for it.
        """
        faults = self._faults.get(server.id)
        job = _Job(
            server=server,
            row=row,
            reboot_type=reboot_type,
            seconds=seconds,
            is_legacy=is_legacy,
            fault=faults.popleft() if faults else None,
        )
        if job.fault is not HostFault.DOWN:
            self._agenda.add(seconds * _PICKED_UP, lambda: self._pick_up(job))

    def _pick_up(self, job: _Job) -> None:
        job.row.event = "compute_reboot_instance"
        job.row.event_start = job.row.updated_at = self._agenda.now
        if job.is_legacy:
            self._begin(job)
            return
        queue = self._queues.setdefault(job.server.id, deque())
        queue.append(job)
        if len(queue) == 1:
            self._begin(job)

    def _begin(self, job: _Job) -> None:
        tasks = REBOOT_TASKS[job.reboot_type]
        if job.server.task_state not in tasks:
            # UnexpectedTaskStateError: another reboot ended, or was accepted, in between. The task is left alone.
            self._finish(job, is_error=True)
            return
        self._change(job.server, {"task_state": tasks[1]})
        self._agenda.add(job.seconds * (_STARTED - _PICKED_UP), lambda: self._start(job))

    def _start(self, job: _Job) -> None:
        _, pending, started = REBOOT_TASKS[job.reboot_type]
        if job.server.task_state != pending:
            # Preempted just before the driver: this save is inside the `try`, so it counts as a failed driver.
            self._end(job, is_failed=True)
            return
        if job.fault is HostFault.REVERTED:
            self._change(job.server, {"task_state": None})
            self._finish(job, is_error=True)
            return
        self._change(job.server, {"task_state": started})
        if job.fault is HostFault.HANG:
            return
        if job.fault is None:
            self._agenda.add(job.seconds * (_CYCLED - _STARTED), lambda: self._cycle(job))
        is_failed = job.fault is not None
        self._agenda.add(job.seconds * (1 - _STARTED), lambda: self._end(job, is_failed=is_failed))

    def _cycle(self, job: _Job) -> None:
        if not job.server.is_deleted:
            job.server.cycles += 1
            self.cycle_counts[job.server.id] += 1
            self.cycles.append(Cycle(self._agenda.now, job.server.id, job.reboot_type, job.row.send))

    def _end(self, job: _Job, *, is_failed: bool) -> None:
        server = job.server
        if server.is_deleted:
            self._finish(job, is_error=True)
            return
        if job.fault is HostFault.DEAD:
            server.power_state = SHUTDOWN
        if is_failed and server.power_state != RUNNING:
            fault = ServerFault(500, "Failed to reboot instance: the driver has failed", self._agenda.now)
            self._change(server, {"vm_state": "error", "task_state": None, "fault": fault})
            self._finish(job, is_error=True)
            return
        # Also after a failure: "Reboot failed but instance is running" is swallowed.
        self._change(server, {"vm_state": "active", "task_state": None})
        self._finish(job, is_error=False)

    def _finish(self, job: _Job, *, is_error: bool) -> None:
        row = job.row
        row.event_finish = row.updated_at = self._agenda.now
        row.result = "Error" if is_error else "Success"
        row.message = "Error" if is_error else None
        if job.is_legacy:
            return
        queue = self._queues[job.server.id]
        queue.popleft()
        if queue:
            self._begin(queue[0])
        else:
            del self._queues[job.server.id]

    def _change(self, server: SimulatedServer, changes: Changes) -> None:
        apply_changes(server, changes, at=self._agenda.now)
