"""When an accepted reboot is over, and how it went. Done means done: back by its state, and proved by its action.

Only a snapshot that was asked for after the acceptance may come here; the run sees to that.
"""

from dataclasses import dataclass, replace
from typing import Final

from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, LogTime
from bulkrestart.core.decision import Confirm, End, Look, Prove, Send, Unmet, Watch
from bulkrestart.core.look import LATE_GRACE, is_log_unreadable
from bulkrestart.core.model import Action, Log, Outcome, Proof, Reason, RebootType, Server
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.progress import Progress
from bulkrestart.core.sources import is_source_outage
from bulkrestart.core.states import ACTIVE, DELETED, ERROR, KNOWN_ACTIONS, REBOOT, REBOOT_TASKS

#: Why a row does not tell how the reboot ended: another row did not end in Error, and may be a second delivery of the
#: same send.
_DISPUTED: Final = (
    "of two reboots at about that time one ended in Error, and the clocks do not show which of them is ours"
)
#: The same: a row has a name that is not one of Nova's.
_UNKNOWN_NAME: Final = "an action of that time has a name that does not show whether it was the reboot"


def decide_back(server: Server, progress: Progress, *, is_second_look: bool) -> Watch | Prove | Confirm | Look | End:
    """Decide on a snapshot of a server whose reboot was accepted.

    `status` is not read: ACTIVE is shown before and after a reboot, and a HARD of a stopped server never shows in it.
    Leaving the six reboot states ends the reboot, whatever task follows. States other than active are seen twice
    before they count.

    Args:
        server: A snapshot that was asked for after the acceptance.
        progress: The server's way so far; it is not changed.
        is_second_look: The look before it showed the reboot ended as well, and the server not active
            (`has_ended_badly`).
    """
    if not _is_over(server):
        return Watch()
    if server.vm_state == ACTIVE:
        return Prove()
    if server.vm_state == DELETED:
        # Lists of changes show it; only the cloud's own 404 says that it is gone.
        return Look(is_unresolved=False)
    if not is_second_look or (server.is_derived and progress.reboot_type is RebootType.HARD):
        # While a HARD reboot runs, the status of a server that was not active does not change.
        return Watch()
    if server.vm_state == ERROR:
        failure = End(outcome=Outcome.FAILED, reason=Reason.ERROR, detail=server.fault or "vm_state error")
        may_escalate = progress.order.may_escalate and progress.reboot_type is RebootType.SOFT
        return Confirm(failure) if may_escalate and server.task_state is None else failure
    return End(outcome=Outcome.FAILED, reason=Reason.WRONG_STATE, detail=f"it ended in vm_state {server.vm_state}")


def has_ended_badly(server: Server) -> bool:
    """Tell whether a snapshot shows the reboot ended, and the server not active."""
    return _is_over(server) and server.vm_state != ACTIVE


def _is_over(server: Server) -> bool:
    return server.vm_state is not None and server.task_state not in REBOOT_TASKS


@dataclass(frozen=True, slots=True)
class FoundRow:
    """The row of an accepted reboot in the action log.

    Attributes:
        row: The row.
        doubt: Why the log does not tell how the reboot ended, although it has this row; "" if it tells.
    """

    row: Action
    doubt: str = ""


def find_accepted(
    log: Log, progress: Progress, log_time: LogTime | None, user_id: str | None, *, is_shown: bool
) -> FoundRow | None:
    """Find the row of an accepted reboot in the action log of its server.

    It is the row whose id an answer carried. If the log has no such row, because a gateway hides or replaces Nova's
    ids, it is the newest reboot of our user that may have begun since the send.

    A reboot that was delivered twice has two rows. One may end in Error although the other cycled the guest
    (nova/compute/manager.py `reboot_instance` drops the second), so the row without Error counts.

    Args:
        log: The action log, the newest row first.
        progress: The server's progress.
        log_time: The send on the log's clock; None if that is unknown.
        user_id: Our user in the log; None while unknown.
        is_shown: Whether enough time has passed since the acceptance for the log to show the row. Until then, a row
            that seems to precede the send is not used, because it may be an earlier reboot.
    """
    settled = progress.settled_ids
    rows = [row for row in log if row.action == REBOOT and row.request_id not in settled]
    named = next((row for row in rows if row.request_id == progress.request_id), None)
    if user_id is None and named is not None and named.request_id == progress.sends.attempts[-1].request_id:
        user_id = named.user_id or None
    ours = [row for row in rows if row is named or user_id in (None, row.user_id)]
    skew = float("inf") if log_time is None else log_time.skew
    since = float("-inf") if log_time is None else log_time.since[0]
    newest = next((row for row in ours if row.start_time + skew > since), None)
    found = named or newest
    # These may be the reboot, under this cloud's own name for it.
    unknown = [
        row
        for row in log
        if row.action not in KNOWN_ACTIONS and row.start_time + skew > since and user_id in (None, row.user_id)
    ]
    if found is None and is_shown and unknown:
        return FoundRow(unknown[0], _UNKNOWN_NAME)
    if found is None or (named is None and not is_shown and (log_time is None or found.start_time + 1.0 <= since)):
        return None
    if not found.is_error:
        return FoundRow(found)
    # Two deliveries of one send are at most as far apart as a request may be late.
    others = [
        row
        for row in ours
        if not row.is_error
        and row.start_time > found.start_time - LATE_GRACE - SKEW
        and (row.start_time + skew > since or found is named)
    ]
    can_date = log_time is not None and skew < UNCHECKED_SKEW
    for row in reversed(others):
        is_since = (can_date and row.start_time + 1.0 > since) or row.start_time > found.start_time - 2.0
        if is_since and user_id is not None:
            return FoundRow(row)
    if others:
        return FoundRow(found, _DISPUTED)
    return FoundRow(found, "" if all(row.is_error for row in unknown) else _UNKNOWN_NAME)


def decide_proof(
    log: Log | Observation,
    found: FoundRow | None,
    progress: Progress,
    *,
    can_date: bool,
    is_view_fresh: bool,
    is_untouched: bool,
    is_log_fresh: bool,
    is_late: bool,
) -> Watch | End:
    """Decide on the action log of a server that is back by its state.

    Active and idle alone proves nothing: a reboot that failed before it reached the host ends so too.

    Args:
        log: The action log, or what came instead.
        found: The row of the accepted reboot in it (`find_accepted`), read singly if we may; None if there is none.
        progress: The server's progress; it is not changed.
        can_date: Whether the log's clock is known well enough to say that a row is older than the send.
        is_view_fresh: Whether the snapshot that shows the server back must be younger than the reboot, although views
            of servers may lag: the server was seen in the reboot, or enough time has passed since the acceptance.
        is_untouched: Whether no snapshot showed the server in the reboot, and the last one shows that nothing has saved
            it since the send, as each reboot does: views of servers lag, or there was no reboot.
        is_log_fresh: Whether enough time has passed since the server was back for the log to show an Error.
        is_late: Whether the wait for this server is over.
    """
    by_state: Watch | End = Watch()
    if is_untouched and is_late:
        detail = "the server is active, and its state does not show that anything has changed it since the send"
        by_state = End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=detail)
    elif is_late or (is_view_fresh and not is_untouched):
        by_state = End(outcome=Outcome.COMPLETED, proof=Proof.STATE)
    if not isinstance(log, tuple):
        return by_state if is_log_unreadable(log) or is_source_outage(log) or is_late else Watch()
    if not log:
        # An empty log is no log: every server has the row of its creation.
        return by_state
    if found is None:
        if not is_late:
            return Watch()
        if not can_date and any(one.action == REBOOT for one in log):
            # One of them may be the accepted reboot, if the log's clock is wrong by more than the allowed skew.
            return by_state
        detail = "the action log shows no reboot since it was sent"
        return End(outcome=Outcome.FAILED, reason=Reason.NOT_REBOOTED, detail=detail)
    if found.doubt:
        return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=found.doubt)
    if found.row.is_error:
        detail = "the action log says that the reboot ended in Error"
        return End(outcome=Outcome.FAILED, reason=Reason.NOT_REBOOTED, detail=detail)
    match found.row.is_finished:
        case True:
            return End(outcome=Outcome.COMPLETED, proof=Proof.ACTION)
        case None:
            return by_state if is_log_fresh or is_late else Watch()
        case False:
            return late(Server(id=progress.server_id, vm_state=ACTIVE)) if is_late else Watch()


def decide_escalation(log: Log | Observation, progress: Progress, failure: End, *, is_late: bool) -> Watch | Send | End:
    """Decide whether HARD follows an accepted SOFT that left its server in error.

    It does only where the action log says that the SOFT ended in Error, and that no later reboot did not. The server
    may be in error for another reason, and its guest was cycled then: HARD would be our second.

    Args:
        log: The whole action log, with the row of the accepted reboot read singly; or what came instead.
        progress: The server's way so far; it is not changed.
        failure: What became of the server if nothing follows.
        is_late: The wait for this server is over.
    """
    if not isinstance(log, tuple) or not log:
        # An empty log is no log: every server has the row of its creation.
        is_kept = not log or is_log_unreadable(log)
        return _left(failure, "the action log cannot be read") if is_kept or is_late else Watch()
    row = next((row for row in log if row.request_id == progress.request_id), None)
    # The state is saved before the row is.
    if row is None or not (row.is_error or row.is_finished):
        return _left(failure, "the action log does not show how it ended") if is_late else Watch()
    since = log[: log.index(row) + 1]
    if all(later.is_error for later in since if later.action == REBOOT):
        return Send(reboot_type=RebootType.HARD)
    return _left(failure, "the action log shows a reboot that did not end in Error")


def _left(failure: End, why: str) -> End:
    """Leave a server as it is, although HARD may follow."""
    return replace(failure, detail=f"{failure.detail}; no HARD followed: {why}")


def decide_check(unmet: Unmet | None, back: End, *, is_late: bool) -> Watch | End:
    """Decide on a call of the user's own check.

    Args:
        unmet: Why it was not passed; None if it was.
        back: What became of the server before.
        is_late: The call began when the time for it was over.
    """
    if unmet is None:
        return replace(back, outcome=Outcome.VERIFIED)
    if unmet.is_final or is_late:
        return replace(back, outcome=Outcome.FAILED, reason=Reason.VERIFY_FAILED, detail=unmet.words)
    return Watch()


def gone(answer: Answer) -> End:
    """The cloud's own 404: the server was deleted after its reboot was accepted."""
    return End(outcome=Outcome.FAILED, reason=Reason.GONE, detail=answer.words)


def never_shown(seen: Observation) -> End:
    """Return the end of a server that the cloud has not shown by the end of `wait_timeout`, while it shows others."""
    detail = f"the cloud did not show the server before wait_timeout ended ({seen})"
    return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=detail)


def states_unreadable(seen: Observation, *, may_be_down: bool) -> End:
    """Return the end of an accepted server where the states of servers cannot be read.

    Args:
        seen: The answer that says so.
        may_be_down: Whether the run limits the servers that are down (`max_down`, `spread`). This server may be one of
            them, so its end is in doubt.
    """
    detail = f"the cloud does not show whether the server is back ({seen})"
    if may_be_down:
        return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=detail)
    return End(outcome=Outcome.ACCEPTED, detail=detail)


def late(server: Server) -> End:
    """`wait_timeout` ended, and a snapshot later than that still shows the reboot unfinished."""
    return End(outcome=Outcome.FAILED, reason=Reason.NOT_BACK, detail=f"its reboot has not finished: {server.words}")
