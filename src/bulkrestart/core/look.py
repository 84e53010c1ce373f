"""What a look at a server means: the second of the two tables that are the retry policy.

While the fate of a send is unknown, the action log decides before any state does, and the only state that counts is
that of a reboot.
"""

from collections.abc import Sequence
from typing import Final

from bulkrestart.core.clock import SKEW, LogTime
from bulkrestart.core.decide import (
    PASSING_DELAY,
    REFUSED_IN_A_ROW,
    REFUSED_TOKEN_DELAY,
    refuse,
    sendable_type,
    state_after,
    unauthorized,
)
from bulkrestart.core.decision import Accept, Decision, End, Look, Send
from bulkrestart.core.model import Action, Log, Outcome, Proof, Reason, RebootType, Server
from bulkrestart.core.observation import Answer, Observation, Sighting
from bulkrestart.core.progress import Progress
from bulkrestart.core.states import BUILDING, OTHER_ACTIONS, REBOOT, REBOOT_TASKS, UNKNOWN

#: Seconds that the fate of a send is looked for.
LOOK_TIMEOUT: Final = 300.0
#: Seconds after which a log that shows no reboot proves that none was started, if reads do not lag.
GRACE: Final = 10.0
#: The same where the request may still be at work, behind a gateway or in a slow API: gateways give up after 60 s. And
#: for HARD, always, because the cloud does not refuse a second one (nova/compute/api.py `_hard_reboot`).
LATE_GRACE: Final = 90.0
#: Seconds for which a reboot may still be under way; providers call one that takes longer stuck (30 min).
LONGEST_REBOOT: Final = 1800.0
_DAY: Final = 86_400.0


def decide_look(sighting: Sighting, progress: Progress) -> Decision:
    """Decide on a look at a server.

    Args:
        sighting: What was seen; with the action log if the fate of a send is unknown.
        progress: The server's way so far; it is not changed.

    Returns:
        What to do next. The fate of the last send stays unknown if, and only if, it is a `Look` that is unresolved.
    """
    for seen in (sighting.log, sighting.server):
        if isinstance(seen, Answer) and seen.is_throttled:
            return Look(is_unresolved=progress.fate.is_unresolved)
        if isinstance(seen, Answer) and seen.is_refused_token:
            return _decide_refused_look(seen, progress)
    decide = _decide_unresolved if progress.fate.is_unresolved else _decide_resolved
    return decide(sighting, progress)


def _decide_refused_look(answer: Answer, progress: Progress) -> Decision:
    if progress.last_look.refused + 1 < REFUSED_IN_A_ROW:
        return Look(is_unresolved=progress.fate.is_unresolved, delay=REFUSED_TOKEN_DELAY)
    stop = unauthorized(answer)
    if progress.fate.is_unresolved:
        return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=progress.words, stop=stop)
    outcome = Outcome.REFUSED if progress.sends.attempts else Outcome.SKIPPED
    return End(outcome=outcome, reason=Reason.UNAUTHORIZED, detail=answer.words, stop=stop)


def _decide_unresolved(sighting: Sighting, progress: Progress) -> Decision:
    server, log = sighting.server, sighting.log
    if isinstance(server, Answer) and server.is_not_found:
        detail = f"{server.words} (a reboot may have been sent before)"
        return End(outcome=Outcome.IN_DOUBT, reason=Reason.GONE, detail=detail)
    age = sighting.at - progress.fate.answered_at
    if isinstance(log, tuple):
        sent_id = progress.sends.attempts[-1].request_id
        if any(row.action == REBOOT and row.request_id == sent_id for row in log):
            return Accept(request_id=sent_id)
        if sighting.log_time is not None and _is_datable(log, sighting.log_time):
            return _decide_by_log(log, sighting.log_time, age, sighting, progress)
    is_rebooting = isinstance(server, Server) and server.task_state in REBOOT_TASKS
    is_useless = isinstance(log, tuple) or is_log_unreadable(log)
    if is_rebooting and (is_useless or age >= LOOK_TIMEOUT):
        return Accept(proof=Proof.STATE)
    if not isinstance(log, Answer) or not log.is_permanent:
        why = "does not tell" if isinstance(log, tuple) else f"cannot be read ({log})"
        return _look_on(age, progress, f"the action log {why}")
    if isinstance(server, Answer) and server.is_permanent:
        return _in_doubt(progress, f"neither the action log ({log}) nor the server ({server}) can be read")
    # Only the server's state can still show the reboot. It can do so while the send may be late or the view may lag.
    longest = min(LOOK_TIMEOUT, grace_of(progress, max(sighting.lag, sighting.view_lag)))
    return Look(is_unresolved=True) if age < longest else _in_doubt(progress, f"the action log cannot be read ({log})")


def _is_datable(log: Log, log_time: LogTime) -> bool:
    """Tell whether rows can be compared with the send; not by a clock that makes them come from the future.

    An empty log is no log: every server has the row of its creation.
    """
    # A row of another action that is dated days ahead is a fault of its own, and says nothing about the clock.
    rows = (row for row in log if row.action == REBOOT or row.start_time < log_time.now + _DAY)
    return bool(log) and all(row.start_time <= log_time.now + SKEW for row in rows)


def is_log_unreadable(log: Log | Observation | None) -> bool:
    """Return whether we may not read the log at all; a read that failed now may succeed later."""
    if not isinstance(log, Answer):
        return False
    # A 404 without a fault code comes from a gateway, which may route the next request correctly.
    is_from_cloud = log.status == 403 or (log.status == 404 and bool(log.fault.code))
    return log.is_permanent or (is_from_cloud and not log.is_throttled)


def grace_of(progress: Progress, lag: float) -> float:
    """Return the seconds after which a log that shows no reboot proves that the last send started none.

    Args:
        progress: The server's progress.
        lag: Seconds by which reads may lag behind writes.
    """
    is_late = progress.fate.may_come_late or progress.reboot_type is RebootType.HARD
    return (LATE_GRACE if is_late else GRACE) + lag


def next_look(progress: Progress, now: float, lag: float, *, drawn: float, after_grace: float, left: float) -> float:
    """Return the seconds until the next look at a server.

    After a send of unknown fate, a look is due as soon as an action log without a new row proves that the send started
    nothing. A send that was answered 503 has most likely started nothing. Once a look has found no row for it, there
    are only two more looks until that is proved: one when the log proves it if reads do not lag, because the lag may be
    measured by then, and one when the log proves it with the lag. More looks would load an overloaded API more than the
    sends that it shed.

    Law: the wait after such a 503 ends with `server_timeout` at the latest, because the last look may show the fate of
    the send. A drawn wait may end later, as for any other server.

    Args:
        progress: The server's progress.
        now: The time, in seconds on the run's clock.
        lag: Seconds by which reads may lag behind writes.
        drawn: Seconds to wait if the server's progress calls for nothing else.
        after_grace: Seconds from the moment at which the log proves something to the look.
        left: Seconds that are left of `server_timeout`.
    """
    if not progress.fate.is_unresolved:
        return drawn
    moments = (progress.fate.answered_at + grace_of(progress, one) for one in (0.0, lag))
    due = next((moment for moment in moments if progress.last_look.at < moment), None)
    if due is None:
        return drawn
    wait = max(0.0, due - now) + after_grace
    is_shed = progress.sends.last_status == 503 and progress.fate.readable_looks > 0
    is_quiet = is_shed and not progress.fate.was_seen_rebooting
    latest = max(drawn, left) if is_quiet else drawn
    return min(wait, latest)


def _decide_by_log(log: Log, log_time: LogTime, age: float, sighting: Sighting, progress: Progress) -> Decision:
    reboots = [row for row in log if row.action == REBOOT]
    candidates = reboots_since(reboots, progress, log_time)
    is_untouched = is_untouched_since(sighting.server, log_time)
    # The log of one server may lag while those of others do not. If the server was saved since the send, the row of a
    # reboot may still be missing.
    grace = grace_of(progress, sighting.lag if is_untouched else max(sighting.lag, sighting.view_lag))
    is_trusted = progress.reboot_type is RebootType.SOFT or sighting.is_log_proven or is_untouched
    is_others = bool(candidates) and all(sighting.user_id not in (None, row.user_id) for row in candidates)
    if progress.sends.has_lost_race and is_trusted and is_others:
        # Nova's own 500, and the log shows who won the race for the task_state: for us nothing was started
        # (nova/compute/api.py `_soft_reboot` saves the task_state first, and records the action after that).
        return _decide_resolved(sighting, progress)
    for row in candidates:
        if not _may_precede(row, log_time) or sighting.user_id in (None, row.user_id):
            return Accept(request_id=row.request_id or None)
    if candidates or are_within_skew(log, progress, log_time, sighting.user_id):
        why = "a reboot began at about the same time, and the log does not show whether it is ours"
        patience = LOOK_TIMEOUT if sighting.may_be_dated_soon else grace
        return Look(is_unresolved=True) if age < patience else _in_doubt(progress, why)
    is_rebooting = isinstance(sighting.server, Server) and sighting.server.task_state in REBOOT_TASKS
    if (is_rebooting or progress.fate.was_seen_rebooting) and not _is_explained(reboots, log_time):
        # The row is written right after the task_state is: a log that lacks it lags, and proves nothing.
        if is_rebooting and age >= LOOK_TIMEOUT:
            # After such an answer the server may hang in an earlier reboot, which the log shows.
            may_hang = progress.sends.last_status in (400, 409, 501) and bool(reboots)
            return _refuse_state(Reason.BUSY, "", progress) if may_hang else Accept(proof=Proof.STATE)
        return _look_on(age, progress, "it was seen in a reboot that the action log does not show")
    if is_trusted and age >= grace:
        # One look does not prove the silence of a log, however late it comes: the cloud may have been gone till now.
        return _decide_resolved(sighting, progress) if progress.fate.readable_looks > 0 else Look(is_unresolved=True)
    return _look_on(age, progress, "the action log does not tell")


def decide_delivered_again(
    log: Log, progress: Progress, log_time: LogTime, user_id: str | None
) -> Accept | Look | None:
    """Decide whether a request that was refused for a passing state was delivered a second time, and accepted.

    Args:
        log: The action log, read right before the next send.
        progress: The server's progress.
        log_time: The last send on the log's clock.
        user_id: Our user in the log; None while unknown.

    Returns:
        The acceptance; a look if the clocks do not tell whether a reboot of ours began since the send; None if the log
        shows no such reboot.
    """
    for row in reboots_since(log, progress, log_time):
        # As for a send of unknown fate: a reboot by another user counts if it certainly began since.
        if not _may_precede(row, log_time) or user_id in (None, row.user_id):
            return Accept(request_id=row.request_id or None)
    return Look(is_unresolved=True) if are_within_skew(log, progress, log_time, user_id) else None


def is_untouched_since(server: Server | Observation, log_time: LogTime) -> bool:
    """Return whether the state of a server shows, like a log without a row, that nothing was started since the send.

    A reboot saves the server before it is answered (nova/compute/api.py `_hard_reboot`), and `updated` with it.
    """
    is_idle = isinstance(server, Server) and server.task_state is None
    updated = server.updated if isinstance(server, Server) else None
    return is_idle and updated is not None and updated + 1.0 < log_time.since[0] - log_time.skew


def _is_explained(reboots: Sequence[Action], log_time: LogTime) -> bool:
    """Tell whether somebody else's reboot, begun before the send, may be the one that is seen."""
    return any(row.start_time > log_time.since[0] - LONGEST_REBOOT for row in reboots)


def reboots_since(log: Sequence[Action], progress: Progress, log_time: LogTime) -> list[Action]:
    """Find the reboots, by anyone, that may have started since the send, but for those already settled.

    Args:
        log: Rows of the action log, the newest first.
        progress: The server's way so far.
        log_time: The send in the log's time.

    Returns:
        Their rows, the oldest first: the one that follows the send most closely is the likeliest to be ours.
    """
    settled = progress.settled_ids
    # start_time has a resolution of 1 s: it stands for anything up to the next second.
    return [
        row
        for row in reversed(log)
        if row.action == REBOOT and row.request_id not in settled and row.start_time + 1.0 > log_time.since[0]
    ]


def _may_precede(row: Action, log_time: LogTime) -> bool:
    # A database that rounds may show a start_time half a second too late (MySQL's DATETIME).
    return row.start_time - 0.5 < log_time.since[1]


def are_within_skew(log: Sequence[Action], progress: Progress, log_time: LogTime, user_id: str | None) -> bool:
    """Return whether a row of our user may be the send, although it seems older or has a name that Nova does not use.

    Its time may come from the clock of another node, and a cloud may have its own name for a reboot. The answer to the
    send does not matter: a 409 may be the answer to its second delivery, which met the first.
    """
    settled = progress.settled_ids
    return any(
        row.start_time + log_time.skew > log_time.since[0]
        for row in log
        if row.action not in OTHER_ACTIONS and row.request_id not in settled and user_id in (None, row.user_id)
    )


def _decide_resolved(sighting: Sighting, progress: Progress) -> Decision:
    server = sighting.server
    wait = Look(is_unresolved=False, delay=PASSING_DELAY)
    if isinstance(server, Answer) and server.is_not_found:
        return refuse(Reason.NOT_FOUND, server)
    if isinstance(server, Answer) and (server.status == 403 or server.is_permanent):
        return refuse(Reason.FORBIDDEN, server)
    if not isinstance(server, Server):
        return wait
    if server.task_state in REBOOT_TASKS:
        # It may be our own reboot, if the send was delivered twice and the refusal did not name a reboot.
        is_unsaid = progress.sends.last_status in (400, 409) and progress.fate.readable_looks == 0
        return Look(is_unresolved=True) if is_unsaid else wait
    if server.vm_state is None or server.status == UNKNOWN:
        return wait
    if server.locked:
        return _refuse_state(Reason.LOCKED, server.words, progress)
    shown = server.words
    if server.task_state is not None:
        ends_in = state_after(server.task_state, server.vm_state)
        is_passing = ends_in is None or sendable_type(ends_in, progress) is not None
        return wait if is_passing else _refuse_state(Reason.WRONG_STATE, shown, progress)
    if server.vm_state == BUILDING:
        return wait
    reboot_type = sendable_type(server.vm_state, progress)
    return Send(reboot_type=reboot_type) if reboot_type else _refuse_state(Reason.WRONG_STATE, shown, progress)


def _look_on(age: float, progress: Progress, why: str) -> Decision:
    return Look(is_unresolved=True) if age < LOOK_TIMEOUT else _in_doubt(progress, why)


def _in_doubt(progress: Progress, why: str) -> End:
    return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=f"{progress.words}; {why}")


def _refuse_state(reason: Reason, shown: str, progress: Progress) -> End:
    """End a server in whose state no reboot may be sent: the cloud said so, or we saw it before we sent."""
    outcome = Outcome.REFUSED if progress.sends.attempts else Outcome.SKIPPED
    # What was refused for the state has the cloud's own words for it.
    is_said = progress.sends.last_status in (400, 409)
    return End(outcome=outcome, reason=reason, detail=progress.words if is_said else shown)
