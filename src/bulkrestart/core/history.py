"""Decides whether a server has rebooted `since` a moment, right before a reboot would be sent.

Law: only the reboot action counts (not a stop and a start, a rebuild, or a reboot from inside the guest), and nothing
is sent if the action log does not show it.
"""

from bulkrestart.core.clock import LogMoment, moment_text
from bulkrestart.core.decide import PASSING_DELAY
from bulkrestart.core.decision import Decision, End, Look
from bulkrestart.core.look import decide_look, is_log_unreadable
from bulkrestart.core.model import Action, Log, Outcome, Proof, Server
from bulkrestart.core.observation import Answer, Observation, Sighting
from bulkrestart.core.progress import Progress
from bulkrestart.core.sources import is_source_outage
from bulkrestart.core.states import KNOWN_ACTIONS, REBOOT, REBOOT_TASKS


def needs_log(server: Server | Observation, since: LogMoment) -> bool:
    """Return whether only the action log can show if a server has rebooted.

    A server whose `updated` is before `since.earliest` has not rebooted: each task saves the server, and sets
    `updated`. A server that is in a reboot is waited for first.
    """
    if not isinstance(server, Server) or server.task_state in REBOOT_TASKS:
        return False
    is_older = server.updated is not None and server.updated < since.earliest
    return not is_older or server.task_state is not None


def last_reboot(log: Log, since: float) -> Action | None:
    """Find the newest reboot that began at that moment or later and did not end in Error; None if there is none.

    A row names the whole second in which its reboot began.
    """
    rows = (row for row in log if row.action == REBOOT and not row.is_error)
    return next((row for row in rows if row.start_time + 1.0 > since), None)


def _last_unknown(log: Log, since: float) -> Action | None:
    """Find the newest row that may be such a reboot, because its name is not one of Nova's; None if there is none."""
    rows = (row for row in log if row.action not in KNOWN_ACTIONS and not row.is_error)
    return next((row for row in rows if row.start_time + 1.0 > since), None)


def with_row(log: Log, row: Log | Observation) -> Log | Observation:
    """Replace a row of the log by the same row as read singly, which shows whether it has finished.

    If single rows cannot be read, or all requests for them fail, the log stays as it is. If only this request failed,
    return its answer.
    """
    if not isinstance(row, tuple):
        return log if is_log_unreadable(row) or is_source_outage(row) else row
    single = {one.request_id: one for one in row}
    return tuple(single.get(one.request_id, one) for one in log)


def decide_since(
    sighting: Sighting, since: LogMoment, progress: Progress, *, is_log_given_up: bool = False
) -> Decision:
    """Decide on a look at a server that is left alone if it has rebooted since a moment.

    The server is also left alone if its last reboot began so close to the moment that the difference between the clocks
    of the cloud's nodes may hide the order.

    Args:
        sighting: What was seen; with the action log if it needs one, and the last reboot in it read singly.
        since: The moment, on the log's clock.
        progress: The server's progress; it is not changed.
        is_log_given_up: Whether the log has failed for so long that it is no longer waited for.
    """
    decision = decide_look(sighting, progress)
    log = sighting.log
    if log is None or (isinstance(log, Answer) and (log.is_throttled or log.is_refused_token)):
        return decision
    if not isinstance(log, tuple) and not is_log_unreadable(log) and not is_log_given_up:
        return Look(is_unresolved=False, delay=PASSING_DELAY)
    if not isinstance(log, tuple) or not log:
        # An empty log is no log: every server has the row of its creation.
        why = str(log) if log else "it is empty"
        return progress.history_unreadable(f"the action log does not tell whether it has rebooted: {why}")
    last = last_reboot(log, since.earliest)
    if last is None:
        unknown = _last_unknown(log, since.earliest)
        if unknown is None:
            return decision
        return progress.history_uncertain(
            f"{unknown.request_id} began at {moment_text(unknown.start_time)}, and its name in the action log does not "
            "show whether it was a reboot"
        )
    is_rebooting = isinstance(sighting.server, Server) and sighting.server.task_state in REBOOT_TASKS
    if last.is_finished is False or is_rebooting or not isinstance(sighting.server, Server):
        return Look(is_unresolved=progress.fate.is_unresolved, delay=PASSING_DELAY)
    if last.start_time + 1.0 <= since.latest:
        return progress.history_uncertain(
            f"{last.request_id} began at {moment_text(last.start_time)} by the action log's clock, on which `since` is "
            f"between {moment_text(since.earliest)} and {moment_text(since.latest)}"
        )
    # Where no finish is shown the state tells: the server is in no reboot.
    proof = Proof.ACTION if last.is_finished else Proof.STATE
    detail = f"{last.request_id} began at {moment_text(last.start_time)}"
    return End(outcome=Outcome.SATISFIED, detail=detail, proof=proof)
