"""The second table: a look, the action log first, and what is done next. Row by row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, LogTime
from bulkrestart.core.decide import hold_for
from bulkrestart.core.decision import Accept, Decision, End, Look, Send
from bulkrestart.core.look import decide_delivered_again, decide_look, reboots_since
from bulkrestart.core.model import Action, Log, Outcome, Proof, Reason, RebootType, Server, Stop, StopReason
from bulkrestart.core.observation import Answer, Observation, Sighting, Unanswered, Unsent
from bulkrestart.core.progress import Progress
from tests.core.samples import (
    HARD,
    OTHER_REQUEST,
    REBOOTING,
    REQUEST,
    SERVER,
    SOFT,
    answer,
    conflict,
    conflict_words,
    ecs,
    gateway,
    in_log,
    keystone,
    nova,
    page,
    sent,
)

#: When the first send of unknown fate left, by the cloud's clock: not before the first, not after the second.
EARLIEST = 1_800_000_000.0
LATEST = EARLIEST + 3.0
ME = "0f3d3c5b0c6c4b0f9a7c0a52ad1b1f0e"
SOMEBODY_ELSE = "9b2a1d7e5f0444b6a1d0c1c9a4f8e7d6"
LOST_REPLY = Unanswered("ReadTimeout")
LOST_RACE = "Unexpected API Error. <class 'nova.exception.UnexpectedTaskStateError'>"
NOT_FOUND = nova(404, f"Instance {SERVER} could not be found.")
FORBIDDEN = nova(403, "Policy doesn't allow os_compute_api:os-instance-actions:list to be performed.")
REFUSED_TOKEN = keystone()
STOP_UNAUTHORIZED = Stop(
    StopReason.UNAUTHORIZED,
    "the cloud does not let us in (The request you have made requires authentication.); check what signs the requests",
)

IDLE = Server(id=SERVER, status="ACTIVE", vm_state="active", locked=False)
LOOK_AGAIN = Look(is_unresolved=True)
#: In a state that passes; nothing of ours is unresolved.
WAIT = Look(is_unresolved=False, delay=2.0)
SEND_SOFT = Send(reboot_type=SOFT)
SEND_HARD = Send(reboot_type=HARD)

CREATED = Action(action="create", request_id="req-created", start_time=EARLIEST - 86_400.0, user_id=ME)
#: Every server has the row of its creation, so this log is readable and silent.
SILENT = (CREATED,)
#: What can stand in place of a log that will never be read.
UNREADABLE: dict[str, Log | Observation] = {
    "403": FORBIDDEN,
    "404": gateway(404, "APIGW.0101", "The API does not exist"),
    "empty": (),
}
#: What can stand in place of a log that may be read the next time.
FAILED: dict[str, Observation] = {
    "500": nova(500, "Unexpected API Error."),
    "503, a page": page(503, "Service Unavailable"),
    "unanswered": Unanswered("ReadTimeout"),
    "unsent": Unsent("ConnectError"),
}


def reboot(
    after: float, by: str = ME, request_id: str = OTHER_REQUEST, *, action: str = "reboot"
) -> tuple[Action, ...]:
    """Write a log with a row that started so many seconds after the earliest time of our send."""
    return (Action(action=action, request_id=request_id, start_time=EARLIEST + after, user_id=by), CREATED)


def shown(vm_state: str | None, task_state: str | None = None, *, locked: bool | None = False) -> Server:
    """Show a server in these states."""
    return Server(id=SERVER, vm_state=vm_state, task_state=task_state, locked=locked)


def in_doubt(why: str, words: str = "ReadTimeout") -> End:
    """Give up looking."""
    return End(outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail=f"{words}; {why}")


NO_LOG = "the action log cannot be read"
NO_WORD = "the action log does not tell"
SAME_TIME = "a reboot began at about the same time, and the log does not show whether it is ours"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One look, `age` seconds after the answers that left the fate of the last send open."""

    words: str
    expected: Decision
    log: Log | Observation | None = SILENT
    server: Server | Observation = IDLE
    age: float = 0.0
    readable_looks: int = 0
    reboot_type: RebootType = SOFT
    answers: Sequence[Observation] = (LOST_REPLY,)
    is_log_proven: bool = False
    has_clock: bool = True
    user_id: str | None = ME
    refused_looks: int = 0
    skew: float = SKEW
    lag: float = 0.0
    may_be_dated_soon: bool = False

    def progress(self) -> Progress:
        """Give the server's way before the look."""
        cloud_time = (EARLIEST, LATEST) if self.has_clock else None
        progress = sent(*self.answers, reboot_type=self.reboot_type, cloud_time=cloud_time)
        progress.fate = replace(progress.fate, readable_looks=self.readable_looks)
        progress.last_look = replace(progress.last_look, refused=self.refused_looks)
        return progress

    def decide(self) -> Decision:
        """Decide on the look."""
        progress = self.progress()
        at = progress.fate.answered_at + self.age
        return decide_look(
            Sighting(
                server=self.server,
                log=self.log,
                at=at,
                is_log_proven=self.is_log_proven,
                user_id=self.user_id,
                log_time=in_log(progress, self.age, self.skew),
                lag=self.lag,
                may_be_dated_soon=self.may_be_dated_soon,
            ),
            progress,
        )


GONE = [
    Row(
        words=f"the cloud's own 404, log {words}",
        log=log,
        server=NOT_FOUND,
        expected=End(
            outcome=Outcome.IN_DOUBT,
            reason=Reason.GONE,
            detail=f"{NOT_FOUND.words} (a reboot may have been sent before)",
        ),
    )
    for words, log in ({"silent": SILENT, "shows it": reboot(0.0)} | UNREADABLE | FAILED).items()
] + [Row(words="a 404 that is not the cloud's own", log=FORBIDDEN, server=page(404, "Not Found"), expected=LOOK_AGAIN)]

#: Nova wrote our request's id on its 500; the log decides whose fault that was.
OURS = [
    Row(
        words="the log holds the request id that our answer carried",
        answers=(nova(500, "MessagingTimeout"),),
        log=reboot(0.0, request_id=REQUEST),
        expected=Accept(request_id=REQUEST),
    ),
    Row(
        words="the log holds our request id, whatever the clocks, the user and the states say",
        answers=(nova(504, "Gateway Timeout"),),
        log=reboot(-600.0, SOMEBODY_ELSE, REQUEST),
        server=shown("stopped", "powering-off", locked=True),
        has_clock=False,
        expected=Accept(request_id=REQUEST),
    ),
    Row(
        words="absent after a 500, and nobody who won: the row may only be late",
        answers=(nova(500, LOST_RACE),),
        expected=LOOK_AGAIN,
    ),
    Row(
        words="absent after a 500, and another row carries its id",
        answers=(nova(500, LOST_RACE),),
        log=reboot(5.0, request_id=REQUEST, action="lock"),
        expected=LOOK_AGAIN,
    ),
    Row(
        words="absent after a 500, after the grace and a second look",
        answers=(nova(500, LOST_RACE),),
        age=10.0,
        readable_looks=1,
        expected=SEND_SOFT,
    ),
    Row(
        words="absent after a 500: we lost the race to another's reboot that is still at work",
        answers=(nova(500, LOST_RACE),),
        log=reboot(5.0, SOMEBODY_ELSE),
        server=shown("active", "rebooting"),
        expected=WAIT,
    ),
    Row(
        words="absent after a 500: we lost the race, not knowing who we are",
        answers=(nova(500, LOST_RACE),),
        log=reboot(5.0, SOMEBODY_ELSE),
        user_id=None,
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(
        words="absent after a 500 of HARD: we lost the race, in a log that has shown a reboot of this run",
        answers=(nova(500, LOST_RACE),),
        log=reboot(5.0, SOMEBODY_ELSE),
        reboot_type=HARD,
        is_log_proven=True,
        expected=SEND_HARD,
    ),
    Row(
        words="absent after a 500 of HARD, in a log that has not yet shown any",
        answers=(nova(500, LOST_RACE),),
        reboot_type=HARD,
        expected=LOOK_AGAIN,
    ),
    Row(words="absent after a 500 without an id", answers=(page(500, "Oops"),), expected=LOOK_AGAIN),
    Row(words="absent after a 502 with an id", answers=(nova(502, "Bad Gateway"),), expected=LOOK_AGAIN),
    Row(
        words="absent after a 500: we lost the race to another's reboot",
        answers=(nova(500, LOST_RACE),),
        log=reboot(5.0, SOMEBODY_ELSE),
        expected=SEND_SOFT,
    ),
    Row(
        words="absent after a 500: we lost the race to an earlier send of ours",
        answers=(LOST_REPLY, nova(500, LOST_RACE)),
        log=reboot(5.0),
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(
        words="absent after a 500: we may have lost the race to an earlier send of ours, not knowing who we are",
        answers=(LOST_REPLY, nova(500, LOST_RACE)),
        log=reboot(5.0),
        user_id=None,
        expected=Accept(request_id=OTHER_REQUEST),
    ),
]

#: `start_time` is a whole second: it stands for anything up to the next.
SINCE = [
    Row(words="a reboot of ours since", log=reboot(5.0), expected=Accept(request_id=OTHER_REQUEST)),
    Row(
        words="a reboot by another since: it landed all the same",
        log=reboot(4.0, SOMEBODY_ELSE),
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(
        words="a reboot since, whatever the states say",
        log=reboot(5.0, SOMEBODY_ELSE),
        server=shown("stopped", locked=True),
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(
        words="a reboot since, and the server cannot be read",
        log=reboot(5.0),
        server=LOST_REPLY,
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(
        words="a reboot of ours, begun inside the uncertainty: it counts for us",
        log=reboot(2.0),
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(
        words="a reboot of ours, begun in the second in which we sent at the earliest",
        log=reboot(-0.5),
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(words="a reboot of ours, begun a whole second before", log=reboot(-1.0), expected=LOOK_AGAIN),
    *(
        Row(
            words=f"{words} by a name that Nova has not",
            log=reboot(after, user_id, action="power-cycle"),
            age=10.0,
            readable_looks=1,
            expected=expected,
        )
        for words, after, user_id, expected in (
            ("an action of ours since", 5.0, ME, in_doubt(SAME_TIME)),
            ("an action of ours right before", -59.0, ME, in_doubt(SAME_TIME)),
            ("an action of ours long before", -60.0, ME, SEND_SOFT),
            ("another user's action since", 5.0, SOMEBODY_ELSE, SEND_SOFT),
        )
    ),
    *(
        Row(
            words=f"{action} of ours since",
            log=reboot(5.0, action=action),
            age=10.0,
            readable_looks=1,
            expected=SEND_SOFT,
        )
        for action in ("stop", "attach_volume", "live-migration", "revertresize")
    ),
    Row(
        words="a reboot by another in the second after, which a database that rounds may show too late",
        log=reboot(3.0, SOMEBODY_ELSE),
        expected=LOOK_AGAIN,
    ),
    Row(
        words="a reboot of ours before, within what two nodes' clocks may differ",
        log=reboot(-59.0),
        age=10.0,
        readable_looks=1,
        expected=in_doubt(SAME_TIME),
    ),
    Row(
        words="a reboot before by nobody knows whom, within what two nodes' clocks may differ",
        log=reboot(-59.0, SOMEBODY_ELSE),
        user_id=None,
        age=10.0,
        readable_looks=1,
        expected=in_doubt(SAME_TIME),
    ),
    Row(
        words="a reboot by another before",
        log=reboot(-59.0, SOMEBODY_ELSE),
        age=10.0,
        readable_looks=1,
        expected=SEND_SOFT,
    ),
    Row(
        words="a reboot of ours before, beyond what two nodes' clocks may differ",
        log=reboot(-60.0),
        age=10.0,
        readable_looks=1,
        expected=SEND_SOFT,
    ),
    Row(
        words="a reboot of ours before, and a 409: it may have met the first delivery of this very request",
        answers=(conflict("task_state", "rebooting"),),
        log=reboot(-59.0),
        age=10.0,
        readable_looks=1,
        expected=in_doubt(SAME_TIME, conflict_words("task_state", "rebooting")),
    ),
    *(
        Row(
            words=f"a reboot of ours since, and an answer that it met one: {seen.words}",
            answers=(seen,),
            log=reboot(after),
            server=server,
            expected=Accept(request_id=OTHER_REQUEST),
        )
        for seen in (
            conflict("task_state", "rebooting"),
            conflict("vm_state", "error"),
            answer(409),
            nova(409, "Instanz befindet sich im Zustand rebooting"),
            ecs(400, "Ecs.0100", "The ECS status does not meet requirements."),
            ecs(501, "Ecs.0603", "The commands are being executed."),
            ecs(400, "Ecs.0999", "A reboot is in progress."),
        )
        for after, server in ((0.0, IDLE), (2.0, shown("active", "rebooting")), (5.0, shown("error")))
    ),
    Row(
        words="a reboot of ours at about that time, while the log is being dated",
        log=reboot(-59.0),
        age=299.9,
        readable_looks=9,
        may_be_dated_soon=True,
        expected=LOOK_AGAIN,
    ),
    Row(
        words="a reboot of ours at about that time, and the log was not dated in all of look_timeout",
        log=reboot(-59.0),
        age=300.0,
        readable_looks=9,
        may_be_dated_soon=True,
        expected=in_doubt(SAME_TIME),
    ),
    Row(
        words="a reboot of ours of long ago, by a clock that nothing vouches for",
        log=reboot(-86_400.0),
        skew=float("inf"),
        age=10.0,
        readable_looks=1,
        expected=in_doubt(SAME_TIME),
    ),
    Row(
        words="no reboot ever, by a clock that nothing vouches for",
        skew=float("inf"),
        age=10.0,
        readable_looks=1,
        expected=SEND_SOFT,
    ),
    Row(
        words="a reboot of ours before, within what an unchecked log may differ from Date",
        log=reboot(-899.0),
        skew=UNCHECKED_SKEW,
        age=10.0,
        readable_looks=1,
        expected=in_doubt(SAME_TIME),
    ),
    Row(
        words="a reboot of ours before, beyond what an unchecked log may differ from Date",
        log=reboot(-900.0),
        skew=UNCHECKED_SKEW,
        age=10.0,
        readable_looks=1,
        expected=SEND_SOFT,
    ),
    Row(
        words="a reboot of ours a minute from now, which another node's clock explains",
        log=reboot(63.0),
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(
        words="a reboot that comes from the future: the log cannot be dated",
        log=reboot(64.0),
        age=0.0,
        expected=LOOK_AGAIN,
    ),
    Row(
        words="a silent log with a row that comes from the future",
        log=reboot(1000.0, action="lock"),
        age=300.0,
        readable_looks=9,
        expected=in_doubt(NO_WORD),
    ),
    Row(
        words="a reboot inside the uncertainty, and we do not know who we are",
        log=reboot(2.0, SOMEBODY_ELSE),
        user_id=None,
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(
        words="a reboot by another inside the uncertainty, before the grace",
        log=reboot(2.0, SOMEBODY_ELSE),
        age=9.9,
        expected=LOOK_AGAIN,
    ),
    Row(
        words="a reboot by another inside the uncertainty, after the grace",
        log=reboot(2.0, SOMEBODY_ELSE),
        age=10.0,
        readable_looks=9,
        expected=in_doubt(SAME_TIME),
    ),
    Row(
        words="a HARD by another inside the uncertainty, before the grace",
        log=reboot(2.0, SOMEBODY_ELSE),
        reboot_type=HARD,
        age=89.9,
        expected=LOOK_AGAIN,
    ),
    Row(
        words="a HARD by another inside the uncertainty, after the grace",
        log=reboot(2.0, SOMEBODY_ELSE),
        reboot_type=HARD,
        age=90.0,
        expected=in_doubt(SAME_TIME),
    ),
    Row(
        words="one by another inside the uncertainty, and one of ours",
        log=reboot(2.0, SOMEBODY_ELSE, "req-theirs") + reboot(2.0),
        expected=Accept(request_id=OTHER_REQUEST),
    ),
    Row(
        words="a row that an earlier answer of ours carried is settled",
        answers=(nova(500, LOST_RACE), LOST_REPLY),
        log=reboot(5.0, request_id=REQUEST),
        expected=LOOK_AGAIN,
    ),
    Row(words="a row that is no reboot", log=reboot(5.0, action="stop"), expected=LOOK_AGAIN),
    Row(words="a row since, by a clock that is unknown", log=reboot(5.0), has_clock=False, expected=LOOK_AGAIN),
    Row(
        words="in a reboot, by a clock that is unknown",
        log=reboot(5.0),
        server=shown("active", "rebooting"),
        has_clock=False,
        expected=Accept(proof=Proof.STATE),
    ),
]

IN_A_REBOOT_TASK = [
    row
    for state in REBOOTING
    for row in (
        Row(words=f"{state}, log silent yet", server=shown("active", state), expected=LOOK_AGAIN),
        *(
            Row(
                words=f"{state}, log not readable: {words}",
                log=log,
                server=shown("active", state),
                expected=Accept(proof=Proof.STATE),
            )
            for words, log in UNREADABLE.items()
        ),
        *(
            Row(words=f"{state}, log {words}", log=log, server=shown("active", state), age=299.9, expected=LOOK_AGAIN)
            for words, log in FAILED.items()
        ),
        *(
            Row(
                words=f"{state}, log {words} for all of look_timeout",
                log=log,
                server=shown("active", state),
                age=300.0,
                expected=Accept(proof=Proof.STATE),
            )
            for words, log in FAILED.items()
        ),
        Row(
            words=f"{state}, log silent after the grace: the row may only be late",
            server=shown("active", state),
            age=10.0,
            readable_looks=1,
            expected=LOOK_AGAIN,
        ),
        Row(
            words=f"{state}, log silent for ever: it is not sent to again",
            server=shown("active", state),
            age=300.0,
            readable_looks=9,
            expected=Accept(proof=Proof.STATE),
        ),
        *(
            Row(
                words=f"{state} after a 409, log with {words} for all of look_timeout",
                answers=(conflict("task_state", state),),
                log=log,
                server=shown("active", state),
                age=300.0,
                readable_looks=9,
                expected=expected,
            )
            for words, log, expected in (
                ("no reboot: it lags", SILENT, Accept(proof=Proof.STATE)),
                (
                    "one of yesterday: the server hangs in it",
                    reboot(-86_400.0),
                    End(outcome=Outcome.REFUSED, reason=Reason.BUSY, detail=conflict_words("task_state", state)),
                ),
            )
        ),
        Row(
            words=f"{state} after a lost reply, log with a reboot of yesterday for all of look_timeout",
            log=reboot(-86_400.0),
            server=shown("active", state),
            age=300.0,
            readable_looks=9,
            expected=Accept(proof=Proof.STATE),
        ),
        Row(
            words=f"{state}, after the grace, and another's reboot of five minutes ago: it is that one",
            server=shown("active", state),
            log=reboot(-300.0, SOMEBODY_ELSE),
            age=10.0,
            readable_looks=1,
            expected=WAIT,
        ),
        Row(
            words=f"{state}, after the grace, and another's reboot of yesterday: the row may only be late",
            server=shown("active", state),
            log=reboot(-86400.0, SOMEBODY_ELSE),
            age=10.0,
            readable_looks=1,
            expected=LOOK_AGAIN,
        ),
    )
]

SILENT_LOG = [
    Row(words="none, before the grace", age=9.9, readable_looks=9, expected=LOOK_AGAIN),
    Row(words="none, after the grace, at the first look", age=10.0, expected=LOOK_AGAIN),
    Row(words="none, after the grace and a second look", age=10.0, readable_looks=1, expected=SEND_SOFT),
    *(
        Row(
            words=f"none, {reboot_type}, where reads lag by 30 s: {words}",
            reboot_type=reboot_type,
            age=age,
            lag=30.0,
            readable_looks=1,
            is_log_proven=True,
            expected=expected,
        )
        for words, reboot_type, age, expected in (
            ("before the grace and the lag", SOFT, 39.9, LOOK_AGAIN),
            ("after them", SOFT, 40.0, SEND_SOFT),
            ("before the grace and the lag", HARD, 119.9, LOOK_AGAIN),
            ("after them", HARD, 120.0, SEND_HARD),
        )
    ),
    Row(
        words="none, resolved: not sent; now it is locked",
        server=shown("active", locked=True),
        age=10.0,
        readable_looks=1,
        expected=End(outcome=Outcome.REFUSED, reason=Reason.LOCKED, detail="vm_state active, task_state None, locked"),
    ),
    Row(
        words="none, resolved: not sent; now it is stopped",
        server=shown("stopped"),
        age=10.0,
        readable_looks=1,
        expected=End(outcome=Outcome.REFUSED, reason=Reason.WRONG_STATE, detail="vm_state stopped, task_state None"),
    ),
    Row(
        words="none, resolved; the server does not answer", server=LOST_REPLY, age=10.0, readable_looks=1, expected=WAIT
    ),
    *(
        Row(
            words=f"none, HARD: {words}",
            reboot_type=HARD,
            age=age,
            readable_looks=looks,
            is_log_proven=is_log_proven,
            expected=expected,
        )
        for words, age, looks, is_log_proven, expected in (
            ("before the grace", 89.9, 9, True, LOOK_AGAIN),
            ("after the grace, at the first look", 90.0, 0, True, LOOK_AGAIN),
            ("after the grace and a second look", 90.0, 1, True, SEND_HARD),
            ("a log that has not yet shown any reboot of this run", 90.0, 1, False, LOOK_AGAIN),
            ("the same, nearly at look_timeout", 299.9, 9, False, LOOK_AGAIN),
            ("the same, at look_timeout", 300.0, 9, False, in_doubt(NO_WORD)),
        )
    ),
    *(
        Row(
            words=f"none, HARD, a log that has not yet shown any reboot of this run, and the server {words}",
            reboot_type=HARD,
            server=replace(IDLE, updated=EARLIEST + updated, task_state=task_state),
            age=90.0,
            readable_looks=1,
            skew=skew,
            expected=expected,
        )
        for words, updated, skew, task_state, expected in (
            ("was last saved before the send by more than clocks differ", -61.1, SKEW, None, SEND_HARD),
            ("was last saved before it by less", -61.0, SKEW, None, LOOK_AGAIN),
            (
                "was last saved before it by less, by clocks that nobody checked",
                -899.0,
                UNCHECKED_SKEW,
                None,
                LOOK_AGAIN,
            ),
            ("was last saved since", 5.0, SKEW, None, LOOK_AGAIN),
            ("is in another task", -3600.0, SKEW, "image_snapshot", LOOK_AGAIN),
        )
    ),
    Row(words="none, by a clock that is unknown", age=299.9, readable_looks=9, has_clock=False, expected=LOOK_AGAIN),
    Row(
        words="none, by a clock that is unknown, at look_timeout",
        age=300.0,
        readable_looks=9,
        has_clock=False,
        expected=in_doubt(NO_WORD),
    ),
    *(
        Row(words=f"idle, log {words}", log=log, age=299.9, readable_looks=9, expected=LOOK_AGAIN)
        for words, log in (UNREADABLE | FAILED).items()
    ),
    *(
        Row(
            words=f"idle, log {words}, at look_timeout",
            log=log,
            age=300.0,
            readable_looks=9,
            expected=in_doubt(f"{NO_LOG} ({log})" if log else NO_WORD),
        )
        for words, log in (UNREADABLE | FAILED).items()
    ),
]

LOOKS_THAT_FAIL = [
    *(
        Row(words=f"throttled, {where}", log=log, server=server, expected=LOOK_AGAIN)
        for where, log, server in (
            ("the log", answer(429, b"", {"retry-after": "17"}), IDLE),
            ("the server", SILENT, answer(429)),
            ("the log, in ECS's words", gateway(503, "Common.1503", "slow"), NOT_FOUND),
        )
    ),
    *(
        row
        for where, log, server in (("the log", REFUSED_TOKEN, IDLE), ("the server", SILENT, REFUSED_TOKEN))
        for row in (
            Row(words=f"401, {where}", log=log, server=server, expected=replace(LOOK_AGAIN, delay=5.0)),
            Row(
                words=f"401 for the third time, {where}",
                log=log,
                server=server,
                refused_looks=2,
                expected=End(
                    outcome=Outcome.IN_DOUBT, reason=Reason.UNANSWERED, detail="ReadTimeout", stop=STOP_UNAUTHORIZED
                ),
            ),
        )
    ),
    Row(
        words="401 with an older token",
        log=keystone(has_stale_token=True),
        refused_looks=1,
        expected=LOOK_AGAIN,
    ),
]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.words)
        for row in (*GONE, *OURS, *SINCE, *IN_A_REBOOT_TASK, *SILENT_LOG, *LOOKS_THAT_FAIL)
    ],
)
def test_look_while_a_send_is_unresolved(row: Row) -> None:
    """While the fate of a send is unknown, the log decides, whatever the server shows."""
    assert row.progress().fate.is_unresolved
    assert row.decide() == row.expected


def no(reason: Reason, words: str, outcome: Outcome = Outcome.SKIPPED) -> End:
    """End a server that was never sent to."""
    return End(outcome=outcome, reason=reason, detail=words)


WRONG_STATE = Reason.WRONG_STATE
#: What may be sent: (type, leave to escalate, leave to start).
PLAIN_SOFT = (SOFT, False, False)
SOFT_WITH_LEAVE = (SOFT, True, False)
SOFT_WITH_ALL_LEAVE = (SOFT, True, True)
PLAIN_HARD = (HARD, False, False)
HARD_WITH_LEAVE = (HARD, False, True)
EVERY_WAY = (PLAIN_SOFT, SOFT_WITH_LEAVE, SOFT_WITH_ALL_LEAVE, PLAIN_HARD, HARD_WITH_LEAVE)

Way = tuple[RebootType, bool, bool]
RESOLVED: list[tuple[str, Sequence[Way], Server | Observation, Decision]] = [
    *(
        (f"in {state}: somebody else's", EVERY_WAY, shown("active", state, locked=locked), WAIT)
        for state in REBOOTING
        for locked in (False, True)
    ),
    ("locked", EVERY_WAY, shown("active", locked=True), no(Reason.LOCKED, "vm_state active, task_state None, locked")),
    (
        "locked, in a passing task",
        EVERY_WAY,
        shown("active", "migrating", locked=True),
        no(Reason.LOCKED, "vm_state active, task_state migrating, locked"),
    ),
    (
        "locked, and stopped",
        EVERY_WAY,
        shown("stopped", locked=True),
        no(Reason.LOCKED, "vm_state stopped, task_state None, locked"),
    ),
    *(
        (f"in {task}, a passing task", EVERY_WAY, shown("active", task), WAIT)
        for task in ("image_snapshot", "updating_password", "migrating", "rebuilding", "resize_confirming")
    ),
    *(
        (f"{vm_state} and {task}, a passing task", EVERY_WAY, shown(vm_state, task), WAIT)
        for vm_state, task in (
            ("stopped", "powering-on"),
            ("paused", "unpausing"),
            ("suspended", "resuming"),
            ("building", "spawning"),
            ("resized", "resize_reverting"),
            ("rescued", "unrescuing"),
            ("shelved_offloaded", "unshelving"),
            ("soft-delete", "restoring"),
        )
    ),
    ("in a task that Nova does not have", EVERY_WAY, shown("active", "defragmenting"), WAIT),
    ("building", EVERY_WAY, shown("building"), WAIT),
    ("UNKNOWN: its cell is down", EVERY_WAY, Server(id=SERVER, status="UNKNOWN"), WAIT),
    ("shown without its states", EVERY_WAY, Server(id=SERVER, status="ACTIVE"), WAIT),
    *(
        (
            f"in {task}, a task that ends elsewhere",
            EVERY_WAY,
            shown("active", task),
            no(WRONG_STATE, f"vm_state active, task_state {task}"),
        )
        for task in ("resize_prep", "resize_finish", "rescuing", "shelving", "deleting", "soft-deleting")
    ),
    (
        "powering-off",
        (PLAIN_SOFT, SOFT_WITH_LEAVE, PLAIN_HARD),
        shown("active", "powering-off"),
        no(WRONG_STATE, "vm_state active, task_state powering-off"),
    ),
    ("powering-off", (SOFT_WITH_ALL_LEAVE, HARD_WITH_LEAVE), shown("active", "powering-off"), WAIT),
    (
        "pausing",
        (PLAIN_SOFT,),
        shown("active", "pausing"),
        no(WRONG_STATE, "vm_state active, task_state pausing"),
    ),
    ("pausing", (SOFT_WITH_LEAVE, PLAIN_HARD), shown("active", "pausing"), WAIT),
    (
        "stopped while an image is taken",
        (PLAIN_SOFT, SOFT_WITH_LEAVE, PLAIN_HARD),
        shown("stopped", "image_uploading"),
        no(WRONG_STATE, "vm_state stopped, task_state image_uploading"),
    ),
    (
        "stopped while an image is taken",
        (SOFT_WITH_ALL_LEAVE, HARD_WITH_LEAVE),
        shown("stopped", "image_uploading"),
        WAIT,
    ),
    *(
        (vm_state, EVERY_WAY, shown(vm_state), no(WRONG_STATE, f"vm_state {vm_state}, task_state None"))
        for vm_state in ("resized", "rescued", "shelved", "shelved_offloaded", "soft-delete", "deleted")
    ),
    ("active and idle", (PLAIN_SOFT, SOFT_WITH_LEAVE, SOFT_WITH_ALL_LEAVE), shown("active"), SEND_SOFT),
    ("active and idle", (PLAIN_HARD, HARD_WITH_LEAVE), shown("active"), SEND_HARD),
    ("active and idle, its lock not shown", (PLAIN_SOFT,), shown("active", locked=None), SEND_SOFT),
    *(
        (f"{vm_state}, idle", (PLAIN_HARD, HARD_WITH_LEAVE), shown(vm_state), SEND_HARD)
        for vm_state in ("paused", "suspended", "error")
    ),
    *(
        (f"{vm_state}, idle: escalate", (SOFT_WITH_LEAVE, SOFT_WITH_ALL_LEAVE), shown(vm_state), SEND_HARD)
        for vm_state in ("paused", "suspended", "error")
    ),
    *(
        (
            f"{vm_state}, idle",
            (PLAIN_SOFT,),
            shown(vm_state),
            no(WRONG_STATE, f"vm_state {vm_state}, task_state None"),
        )
        for vm_state in ("paused", "suspended", "error")
    ),
    ("stopped, idle", (SOFT_WITH_ALL_LEAVE, HARD_WITH_LEAVE), shown("stopped"), SEND_HARD),
    (
        "stopped, idle",
        (PLAIN_SOFT, SOFT_WITH_LEAVE, PLAIN_HARD),
        shown("stopped"),
        no(WRONG_STATE, "vm_state stopped, task_state None"),
    ),
    ("the cloud's own 404", EVERY_WAY, NOT_FOUND, no(Reason.NOT_FOUND, NOT_FOUND.words, Outcome.REFUSED)),
    ("403", EVERY_WAY, FORBIDDEN, no(Reason.FORBIDDEN, FORBIDDEN.words, Outcome.REFUSED)),
    ("a 404 that is not the cloud's own", EVERY_WAY, page(404, "Not Found"), WAIT),
    ("a look that is throttled", EVERY_WAY, answer(429), Look(is_unresolved=False)),
    ("a look with a refused token", EVERY_WAY, REFUSED_TOKEN, Look(is_unresolved=False, delay=5.0)),
    ("a look with an older token", EVERY_WAY, keystone(has_stale_token=True), WAIT),
    *((f"a look that fails: {words}", EVERY_WAY, seen, WAIT) for words, seen in FAILED.items()),
]


def name(way: Way) -> str:
    """Name a type and what may be done beyond it."""
    reboot_type, may_escalate, may_start = way
    return f"{reboot_type}{' escalate' * may_escalate}{' start' * may_start}"


@pytest.mark.parametrize(
    ("way", "server", "expected"),
    [
        pytest.param(way, server, expected, id=f"{name(way)}: {words}")
        for words, ways, server, expected in RESOLVED
        for way in ways
    ],
)
def test_look_with_nothing_unresolved(way: Way, server: Server | Observation, expected: Decision) -> None:
    """With nothing unresolved the server's states decide, and the log was not asked for."""
    reboot_type, may_escalate, may_start = way
    progress = sent(reboot_type=reboot_type, may_escalate=may_escalate, may_start=may_start)

    assert decide_look(Sighting(server=server, log=None, at=0.0), progress) == expected


def test_refusal_by_state_after_a_send_is_the_clouds() -> None:
    """Once the cloud has refused a send, the server is refused and not skipped, in the cloud's words."""
    progress = sent(conflict("vm_state", "stopped"))

    decision = decide_look(Sighting(server=shown("stopped"), log=None, at=0.0), progress)

    assert decision == no(WRONG_STATE, conflict_words("vm_state", "stopped"), Outcome.REFUSED)


def test_third_refused_token_of_a_look_ends_the_run() -> None:
    """A look whose token was never good and is refused three times says that every send would be, too."""
    progress = sent(conflict("vm_state", "stopped"))
    look = Sighting(server=REFUSED_TOKEN, log=None, at=0.0)
    for _ in range(2):
        decision = decide_look(look, progress)
        assert isinstance(decision, Look)
        progress.look(look, decision)

    assert decide_look(look, progress) == End(
        outcome=Outcome.REFUSED, reason=Reason.UNAUTHORIZED, detail=REFUSED_TOKEN.words, stop=STOP_UNAUTHORIZED
    )


ASKED_TO_WAIT: list[Answer] = [
    answer(status, b"", {"retry-after": "777"}) for status in (401, 408, 413, 429, 500, 502, 503, 504)
]


@pytest.mark.parametrize("is_unresolved", [True, False])
@pytest.mark.parametrize("seen", ASKED_TO_WAIT, ids=str)
def test_look_heeds_retry_after(seen: Answer, is_unresolved: bool) -> None:
    """What the cloud asks to wait on a look is waited before the next."""
    progress = sent(LOST_REPLY if is_unresolved else conflict("vm_state", "stopped"))
    log = seen if is_unresolved else None

    decision = decide_look(Sighting(server=seen, log=log, at=progress.fate.answered_at), progress)

    assert isinstance(decision, Look)
    hold = hold_for(seen)
    assert hold is not None
    assert max(decision.delay, hold.seconds or 0.0) >= 777.0


def test_row_of_the_last_send_may_still_be_ours() -> None:
    """Only the ids of earlier answers are settled: the row of the last send is found when its proof is looked for."""
    progress = sent(nova(500, LOST_RACE, OTHER_REQUEST), nova(500, LOST_RACE), cloud_time=(EARLIEST, LATEST))
    log = reboot(5.0, request_id=OTHER_REQUEST) + reboot(5.0, request_id=REQUEST)

    assert [row.request_id for row in reboots_since(log, progress, LogTime((EARLIEST, LATEST), LATEST))] == [REQUEST]


def test_a_reboot_that_was_seen_and_never_shown_by_the_log_is_never_sent_again() -> None:
    """Idle again, with a log that lacks the reboot that was seen: the log lags, and the fate stays unknown."""
    progress = sent(LOST_REPLY, cloud_time=(EARLIEST, EARLIEST + 2.0))
    at = progress.fate.answered_at + 1.0
    rebooting = Sighting(server=shown("active", "reboot_started"), log=SILENT, at=at, log_time=in_log(progress))
    progress.look(rebooting, decide_look(rebooting, progress))

    late = Sighting(server=IDLE, log=SILENT, at=progress.fate.answered_at + 100.0, log_time=in_log(progress, 100.0))
    assert decide_look(late, progress) == LOOK_AGAIN
    last = Sighting(server=IDLE, log=SILENT, at=progress.fate.answered_at + 300.0, log_time=in_log(progress, 300.0))
    assert decide_look(last, progress) == in_doubt("it was seen in a reboot that the action log does not show")


@pytest.mark.parametrize("seen", [answer(504), answer(408), ecs(202, "Common.0024", "Flow limit exceeded")], ids=str)
def test_what_may_come_late_has_a_longer_grace(seen: Observation) -> None:
    """Where a gateway gave up, or postponed the request, a silent log says nothing before 90 s."""
    progress = sent(seen, cloud_time=(EARLIEST, EARLIEST + 2.0))
    progress.fate = replace(progress.fate, readable_looks=5)

    for age, expected in ((89.9, LOOK_AGAIN), (90.0, SEND_SOFT)):
        look = Sighting(server=IDLE, log=SILENT, at=progress.fate.answered_at + age, log_time=in_log(progress, age))
        assert decide_look(look, progress) == expected


@pytest.mark.parametrize(
    ("user_id", "began", "decision"),
    [
        (ME, 1.0, Accept(request_id=REQUEST)),
        (ME, 60.0, Accept(request_id=REQUEST)),
        # Another user's reboot may have begun before the send, and then it is not what the send is for.
        (SOMEBODY_ELSE, 1.0, None),
        (SOMEBODY_ELSE, 60.0, Accept(request_id=REQUEST)),
    ],
)
def test_a_reboot_since_a_refused_send(user_id: str, began: float, decision: Accept | None) -> None:
    """It is the refused request's second delivery, or it makes the next send a second reboot."""
    progress = sent(conflict("task_state", "pausing"))
    row = Action(action="reboot", request_id=REQUEST, start_time=EARLIEST + began, user_id=user_id)
    log_time = LogTime((EARLIEST, LATEST), LATEST + 100.0)
    assert decide_delivered_again((row, CREATED), progress, log_time, ME) == decision


@pytest.mark.parametrize(
    ("updated", "age", "expected"),
    [
        # Saved before the send by more than the clocks differ: nothing was started.
        (-62.0, 10.0, SEND_SOFT),
        (-60.0, 10.0, LOOK_AGAIN),
        (0.5, 39.9, LOOK_AGAIN),
        (0.5, 40.0, SEND_SOFT),
        (None, 39.9, LOOK_AGAIN),
        (None, 40.0, SEND_SOFT),
    ],
)
def test_a_server_that_was_saved_since_the_send_may_have_a_late_row(
    updated: float | None, age: float, expected: Decision
) -> None:
    """The logs of other servers are up to date, and that of this one may lag by as much as nobody has measured."""
    progress = sent(LOST_REPLY, cloud_time=(EARLIEST, EARLIEST + 2.0))
    progress.fate = replace(progress.fate, readable_looks=5)
    server = replace(IDLE, updated=None if updated is None else EARLIEST + updated)
    at = progress.fate.answered_at + age

    look = Sighting(server=server, log=SILENT, at=at, log_time=in_log(progress, age), lag=0.0, view_lag=30.0)
    assert decide_look(look, progress) == expected
