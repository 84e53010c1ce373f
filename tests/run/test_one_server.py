"""What becomes of one server, whatever its first sends meet: through the real client, on virtual time."""

import json
from dataclasses import dataclass, replace

import pytest
import trio

from bulkrestart import Outcome, Proof, Reason
from bulkrestart.simulator import Call, Fault, HostFault, LogAccess
from tests.virtual import client_of, cloud_of, slow_down, virtually

COMPLETED = (Outcome.COMPLETED, None)


def refused(reason: Reason) -> tuple[Outcome, Reason]:
    """Spell a refusal."""
    return Outcome.REFUSED, reason


@dataclass(frozen=True)
class Case:
    """What the sends meet, and what must come of it: the outcome, the sends, the real power cycles."""

    name: str
    faults: tuple[Fault, ...]
    ends: tuple[Outcome, Reason | None]
    posts: int
    cycles: int


GATEWAY_TIMEOUT = Fault.respond(504, b"<html><title>504 Gateway Time-out</title></html>")
GATEWAY_TIMEOUT_APPLIED = Fault.respond(504, b"<html><title>504 Gateway Time-out</title></html>", applied=True)
LOGIN_PAGE = Fault.respond(200, b"<html><title>Please sign in</title></html>")

CASES = [
    Case("nothing", (), COMPLETED, 1, 1),
    Case("500, not applied", (Fault.error(),), COMPLETED, 2, 1),
    Case("500, applied", (Fault.error(applied=True),), COMPLETED, 1, 1),
    Case("503, not applied", (Fault.error(503),), COMPLETED, 2, 1),
    Case("504 by a gateway, not applied", (GATEWAY_TIMEOUT,), COMPLETED, 2, 1),
    Case("504 by a gateway, applied", (GATEWAY_TIMEOUT_APPLIED,), COMPLETED, 1, 1),
    Case("reply lost, not applied", (Fault.no_reply(applied=False),), COMPLETED, 2, 1),
    Case("reply lost, applied", (Fault.no_reply(applied=True),), COMPLETED, 1, 1),
    Case("reply lost, applied 6 s later", (Fault.late(6.0),), COMPLETED, 1, 1),
    Case("reply lost three times", (Fault.no_reply(applied=False),) * 3, COMPLETED, 4, 1),
    Case("reply cut in its body, applied", (Fault.cut_short(),), COMPLETED, 1, 1),
    Case("a login page with 200", (LOGIN_PAGE,), COMPLETED, 2, 1),
    Case("202 with Common.0024", (Fault.flow_limited(),), COMPLETED, 2, 1),
    Case("429 with Retry-After", (Fault.throttled(7.0),), COMPLETED, 2, 1),
    Case("429 without", (Fault.throttled(None),) * 3, COMPLETED, 4, 1),
    Case("429 more often than max_attempts", (Fault.throttled(1.0),) * 12, COMPLETED, 13, 1),
    Case("APIGW.0308", (Fault.gateway_throttled(),), COMPLETED, 2, 1),
    Case("501 Ecs.0603", (Fault.commands_executing(),), COMPLETED, 2, 1),
    Case("501 Ecs.0603 for ever", (Fault.commands_executing(),) * 9, refused(Reason.ATTEMPTS_EXHAUSTED), 5, 0),
    Case("500 for ever", (Fault.error(),) * 9, refused(Reason.ATTEMPTS_EXHAUSTED), 5, 0),
    Case("slower than the request timeout", (Fault.slow(100.0),), COMPLETED, 1, 1),
    Case("400 of any other kind", (Fault.error(400, "Invalid input"),), refused(Reason.REJECTED), 1, 0),
    Case("403", (Fault.error(403, "Policy does not allow it"),), refused(Reason.FORBIDDEN), 1, 0),
    Case("404 in the cloud's own words", (Fault.error(404, "not found"),), refused(Reason.NOT_FOUND), 1, 0),
    Case("404 by a proxy", (Fault.respond(404, b"<html>"),), COMPLETED, 2, 1),
    Case("404 by a proxy for ever", (Fault.respond(404, b"<html>"),) * 9, refused(Reason.ATTEMPTS_EXHAUSTED), 5, 0),
    Case("401 once", (Fault.respond(401, b"{}"),), COMPLETED, 2, 1),
    Case("401 nine times", (Fault.respond(401, b"{}"),) * 9, COMPLETED, 10, 1),
    Case("401 for ever", (Fault.respond(401, b"{}"),) * 99, refused(Reason.UNAUTHORIZED), 10, 0),
]


def test_a_passing_task_is_waited_for() -> None:
    """A task that ends in active is waited for, however many sends that takes, and none of them is an attempt."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.occupy(server_id, "image_uploading", 120.0)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], max_attempts=1)
        assert (result.outcome, result.reason) == COMPLETED
        assert {attempt.answer for attempt in result.attempts[:-1]} == {"409 conflictingRequest"}
        assert 120.0 < result.elapsed < 180.0
        assert cloud.cycles[server_id] == 1

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_soft(case: Case) -> None:
    """A SOFT reboot ends as the table says, and the guest was really cycled so often."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.script(server_id, *case.faults)
        async with client_of(cloud) as client:
            report = await client.restart([server_id])
        [result] = report
        assert (result.outcome, result.reason) == case.ends, result
        assert cloud.posts[server_id] == case.posts, result
        assert cloud.cycles[server_id] == case.cycles
        assert len(result.attempts) == case.posts

    virtually(main)


HARD_IN_DOUBT = (Outcome.IN_DOUBT, Reason.UNANSWERED)
HARD_CASES = [
    Case("nothing", (), COMPLETED, 1, 1),
    Case("reply lost, applied", (Fault.no_reply(applied=True),), COMPLETED, 1, 1),
    Case("reply lost, applied 60 s later", (Fault.late(60.0),), COMPLETED, 1, 1),
    Case("reply lost, not applied", (Fault.no_reply(applied=False),), HARD_IN_DOUBT, 1, 0),
    Case("504 by a gateway, not applied", (GATEWAY_TIMEOUT,), HARD_IN_DOUBT, 1, 0),
    Case("429", (Fault.throttled(3.0),), COMPLETED, 2, 1),
]


@pytest.mark.parametrize("case", HARD_CASES, ids=lambda case: case.name)
def test_hard_without_a_proven_log(case: Case) -> None:
    """A HARD whose reply was lost is not sent again while neither the log nor the server itself proves anything."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        # It was saved lately, so it does not show that nothing was done since.
        cloud.change(server_id, name="renamed")
        cloud.script(server_id, *case.faults)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], reboot_type="HARD")
        assert (result.outcome, result.reason) == case.ends, result
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (case.posts, case.cycles)

    virtually(main)


@pytest.mark.parametrize("fault", [Fault.no_reply(applied=False), GATEWAY_TIMEOUT], ids=["lost", "504"])
def test_hard_of_a_server_that_was_saved_long_ago(fault: Fault) -> None:
    """A server that nothing has saved for long before the send tells, with a silent log, that it never came."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.script(server_id, fault)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], reboot_type="HARD")
        assert result.outcome == "completed"
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (2, 1)

    virtually(main)


def test_hard_with_a_proven_log() -> None:
    """Once the log has shown a reboot of this run, its silence about another HARD is proof, and that is sent again."""

    async def main() -> None:
        cloud = cloud_of(5)
        lost = cloud.ids[0]
        cloud.script(lost, Fault.no_reply(applied=False))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, reboot_type="HARD")
        assert report.summary == {Outcome.COMPLETED: 5}
        assert cloud.posts[lost] == 2
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


@pytest.mark.parametrize("access", [LogAccess.FORBIDDEN, LogAccess.MISSING, LogAccess.EMPTY])
@pytest.mark.parametrize(
    ("fault", "ends", "proof"),
    [
        (None, COMPLETED, Proof.STATE),
        (Fault.no_reply(applied=True), COMPLETED, Proof.STATE),
        (Fault.no_reply(applied=False), (Outcome.IN_DOUBT, Reason.UNANSWERED), None),
    ],
    ids=["answered", "lost and seen rebooting", "lost and never seen"],
)
def test_an_unreadable_log(
    access: LogAccess, fault: Fault | None, ends: tuple[Outcome, Reason | None], proof: Proof | None
) -> None:
    """Without a log, a reboot that is seen is proved by the state alone, and one that is not seen is in doubt."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(5.0, 5.0))
        [server_id] = cloud.ids
        cloud.log_access = access
        if fault is not None:
            cloud.script(server_id, fault)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id])
        assert (result.outcome, result.reason, result.proof) == (*ends, proof), result
        assert cloud.posts[server_id] == 1

    virtually(main)


def test_after_a_lost_reply_the_log_is_read_first() -> None:
    """While the fate of a send is unknown, nothing is sent, and the log is asked before the state."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.script(server_id, Fault.no_reply(applied=False))
        async with client_of(cloud) as client:
            await client.restart([server_id])
        calls = [record.call for record in cloud.requests if record.call is not Call.LIST]
        first, second = (at for at, call in enumerate(calls) if call is Call.REBOOT)
        between = calls[first + 1 : second]
        assert between == [Call.LOG, Call.SHOW] * (len(between) // 2)
        assert len(between) >= 4

    virtually(main)


@pytest.mark.parametrize(
    ("change", "ends", "words"),
    [
        ({"locked": True}, refused(Reason.LOCKED), "is locked"),
        ({"vm_state": "stopped"}, refused(Reason.WRONG_STATE), "vm_state stopped"),
        ({"vm_state": "paused"}, refused(Reason.WRONG_STATE), "vm_state paused"),
        ({"vm_state": "resized"}, refused(Reason.WRONG_STATE), "vm_state resized"),
        ({"launched_at": None}, refused(Reason.NEVER_LAUNCHED), "invalid state for 'reboot'"),
        ({"task_state": "resize_prep"}, refused(Reason.WRONG_STATE), "task_state resize_prep"),
        ({"task_state": "powering-off"}, refused(Reason.WRONG_STATE), "task_state powering-off"),
        ({"task_state": "image_uploading"}, refused(Reason.BUSY), "task_state image_uploading"),
        ({"vm_state": "building", "task_state": "spawning"}, refused(Reason.BUSY), "vm_state building"),
    ],
    ids=str,
)
def test_a_state_that_does_not_pass(change: dict[str, str], ends: tuple[Outcome, Reason], words: str) -> None:
    """A server whose state refuses a SOFT keeps the cloud's own words, and is not sent to again in vain."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.change(server_id, **change)  # type: ignore[arg-type]
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id])
        assert (result.outcome, result.reason) == ends, result
        assert words in result.detail
        assert cloud.cycles[server_id] == 0
        if result.reason is not Reason.BUSY:
            assert cloud.posts[server_id] == 1

    virtually(main)


@pytest.mark.parametrize(
    ("change", "leave", "ends"),
    [
        ({"vm_state": "stopped"}, {}, (Outcome.SKIPPED, Reason.WRONG_STATE)),
        ({"vm_state": "stopped"}, {"start_stopped": True}, COMPLETED),
        ({"vm_state": "error"}, {}, COMPLETED),
        ({"vm_state": "paused"}, {}, COMPLETED),
        ({"vm_state": "rescued"}, {"start_stopped": True}, (Outcome.SKIPPED, Reason.WRONG_STATE)),
        ({"locked": True}, {"start_stopped": True}, (Outcome.SKIPPED, Reason.LOCKED)),
    ],
    ids=str,
)
def test_hard_looks_first(change: dict[str, str], leave: dict[str, bool], ends: tuple[Outcome, Reason | None]) -> None:
    """A HARD is never sent to a locked server, nor, without leave, to a stopped one, though Nova would take it."""

    async def main() -> None:
        cloud = cloud_of(3)
        server_id = cloud.ids[1]
        cloud.change(server_id, **change)  # type: ignore[arg-type]
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, reboot_type="HARD", **leave)  # type: ignore[arg-type]
        result = report.results[1]
        assert (result.outcome, result.reason) == ends, result
        assert cloud.posts[server_id] == (1 if result.outcome is Outcome.COMPLETED else 0)
        assert [report.results[at].outcome for at in (0, 2)] == [Outcome.COMPLETED] * 2

    virtually(main)


def test_hard_looks_again_after_a_while() -> None:
    """A look at the fleet that is a minute old does not stand for one at a server that was stopped since."""

    async def main() -> None:
        cloud = cloud_of(20)
        last = cloud.ids[-1]
        slow_down(cloud, 10.0)
        cloud.later(60.0, lambda: cloud.change(last, vm_state="stopped"))
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(cloud.ids, reboot_type="HARD")
        assert (report[last].outcome, report[last].reason) == (Outcome.SKIPPED, Reason.WRONG_STATE)
        assert report.summary == {Outcome.COMPLETED: 19, Outcome.SKIPPED: 1}
        assert cloud.server(last).vm_state == "stopped"

    virtually(main)


def test_hard_looks_again_before_it_is_sent_again() -> None:
    """A HARD that was throttled is not sent to a server that was stopped while it waited."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.script(server_id, Fault.throttled(60.0))
        cloud.later(30.0, lambda: cloud.change(server_id, vm_state="stopped"))
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], reboot_type="HARD")
        assert (result.outcome, result.reason) == refused(Reason.WRONG_STATE)
        assert cloud.posts[server_id] == 1
        assert cloud.server(server_id).vm_state == "stopped"

    virtually(main)


def test_hard_when_the_first_look_fails() -> None:
    """A server that could not be looked at is looked at again, and only then sent to."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.script(server_id, None, Fault.error(503), call=Call.SHOW)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], reboot_type="HARD")
        assert (result.outcome, result.reason) == COMPLETED
        calls = [record.call for record in cloud.requests]
        assert calls[: calls.index(Call.REBOOT)] == [Call.SHOW] * 3

    virtually(main)


def test_hard_of_a_server_that_no_list_shows() -> None:
    """A server that the list does not show is looked at singly, and an unknown one keeps the cloud's own words."""

    async def main() -> None:
        cloud = cloud_of(3)
        ids = [*cloud.ids, "unknown"]
        async with client_of(cloud) as client:
            report = await client.restart(ids, reboot_type="HARD")
        assert report.summary == {Outcome.COMPLETED: 3, Outcome.REFUSED: 1}
        assert report["unknown"].reason is Reason.NOT_FOUND
        assert cloud.posts["unknown"] == 0

    virtually(main)


@pytest.mark.parametrize(
    ("vm_state", "leave", "ends"),
    [
        ("paused", {"escalate": True}, COMPLETED),
        ("stopped", {"escalate": True}, refused(Reason.WRONG_STATE)),
        ("stopped", {"escalate": True, "start_stopped": True}, COMPLETED),
        ("stopped", {"start_stopped": True}, refused(Reason.WRONG_STATE)),
        ("shelved", {"escalate": True, "start_stopped": True}, refused(Reason.WRONG_STATE)),
    ],
)
def test_escalation(vm_state: str, leave: dict[str, bool], ends: tuple[Outcome, Reason | None]) -> None:
    """A SOFT becomes a HARD only with leave, where no SOFT can work; and the result says so."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.change(server_id, vm_state=vm_state)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], **leave)  # type: ignore[arg-type]
        assert (result.outcome, result.reason) == ends, result
        assert result.reboot_type == ("HARD" if ends is COMPLETED else "SOFT")
        assert cloud.server(server_id).vm_state == ("active" if ends is COMPLETED else vm_state)

    virtually(main)


def test_somebody_elses_reboot_is_waited_for() -> None:
    """A server that another user reboots is sent to when that is over, and is cycled once by each."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(40.0, 40.0))
        [server_id] = cloud.ids
        cloud.reboot_by_other(server_id)
        # Long enough before our send for the cloud's clock to tell the order.
        await trio.sleep(5.0)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id])
        assert (result.outcome, result.reason) == COMPLETED
        assert cloud.cycles[server_id] == 2
        assert [attempt.answer for attempt in result.attempts] == ["202"]

    virtually(main)


def test_a_lost_race_is_not_ours() -> None:
    """After Nova's own 500, another user's row says who won: that reboot is waited for, then ours is sent."""

    async def main() -> None:
        cloud = cloud_of(2)
        first, raced = cloud.ids
        cloud.script(raced, Fault.race())
        # One after the other: the log of the first names us when the race is looked into.
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 2}
        assert cloud.posts == {first: 1, raced: 2}
        ours = [row for row in cloud.server(raced).log if row.request_id == report[raced].request_id]
        assert [row.user_id for row in ours] == [cloud.user_id]

    virtually(main)


def test_a_lost_race_with_nobody_to_name() -> None:
    """Before the log has named us, the winner of a race may be ourselves: it counts, and nothing is sent again."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.script(server_id, Fault.race())
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id])
        assert (result.outcome, result.reason) == COMPLETED
        assert cloud.posts[server_id] == 1

    virtually(main)


SLOW_API = Fault(applied_after=15.0, answered_after=15.0)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("faults", "log_delay", "request_timeout"),
    [
        ([Fault.error(500, applied=True)], 1.0, 60.0),
        ([Fault.error(500, applied=True)], 5.0, 60.0),
        ([SLOW_API] * 3, 0.0, 1.0),
        ([Fault(answer=Fault.flow_limited().answer, applied_after=25.0)], 0.0, 60.0),
        ([Fault.respond(504, applied=True)], 8.0, 60.0),
        ([Fault.no_reply(applied=True)], 20.0, 60.0),
        ([Fault(lost=True, applied_after=0.0)], 12.0, 60.0),
    ],
)
@pytest.mark.parametrize("attempt", range(4))
def test_a_log_that_lags_and_a_cloud_that_is_slow(
    faults: list[Fault], log_delay: float, request_timeout: float, attempt: int
) -> None:
    """Neither a row that is visible late nor a request that works on after we gave up makes a second reboot."""

    async def main() -> None:
        cloud = cloud_of(1, seed=attempt, log_delay=log_delay, reboot_seconds=(20.0, 40.0))
        [server_id] = cloud.ids
        cloud.script(server_id, *faults)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], request_timeout=request_timeout)
        assert cloud.cycles[server_id] == 1
        assert result.outcome in (Outcome.COMPLETED, Outcome.IN_DOUBT)

    virtually(main)


@pytest.mark.parametrize("second", [Fault.respond(400, b'{"error": {"code": "Ecs.0100", "message": "status"}}')])
def test_delivered_twice(second: Fault) -> None:
    """A refusal for a state that is our own reboot, delivered by somebody before, is found to be ours."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(20.0, 20.0))
        [server_id] = cloud.ids
        cloud.script(server_id, replace(second, applied_after=0.0))
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id])
        assert (result.outcome, result.reason) == COMPLETED
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (1, 1)

    virtually(main)


def test_hard_looks_again_after_the_brake() -> None:
    """A look does not stand for one that would be older than a minute once a brake has ended."""

    async def main() -> None:
        cloud = cloud_of(2)
        first, second = cloud.ids
        cloud.script(first, Fault.throttled(300.0))
        cloud.later(100.0, lambda: cloud.change(second, vm_state="stopped"))
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(cloud.ids, reboot_type="HARD")
        assert (report[second].outcome, report[second].reason) == (Outcome.SKIPPED, Reason.WRONG_STATE)
        assert cloud.server(second).vm_state == "stopped"

    virtually(main)


def test_a_server_deleted_while_its_fate_is_unknown() -> None:
    """The cloud's own 404 ends the looks; that a reboot may have been sent before is said."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.script(server_id, Fault.no_reply(applied=False))
        cloud.later(3.0, lambda: cloud.delete(server_id))
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id])
        assert (result.outcome, result.reason) == (Outcome.IN_DOUBT, Reason.GONE)
        assert "may have been sent" in result.detail

    virtually(main)


@pytest.mark.parametrize("host_fault", [HostFault.HANG, HostFault.DOWN])
def test_a_host_that_does_not_come_back(host_fault: HostFault) -> None:
    """A server that stays in a reboot state is `not_back` when `wait_timeout` is over, and not before."""

    async def main() -> None:
        cloud = cloud_of(1)
        [server_id] = cloud.ids
        cloud.break_host(server_id, host_fault)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], wait_timeout=200.0)
        assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.NOT_BACK)
        assert 200.0 <= result.elapsed < 230.0

    virtually(main)


def test_a_token_that_the_cloud_repeats_is_not_shown() -> None:
    """What a cloud says is in reports and journals, and the token of the request is not."""

    async def main() -> None:
        cloud = cloud_of(1)
        cloud.add_token("S3CR3T-of-ours")
        words = "the token S3CR3T-of-ours may not reboot it"
        body = json.dumps({"forbidden": {"code": 403, "message": words}}).encode()
        cloud.script(cloud.ids[0], Fault.respond(403, body))
        async with client_of(cloud, token="S3CR3T-of-ours") as client:
            [result] = await client.restart(cloud.ids)
        assert (result.outcome, result.detail) == (Outcome.REFUSED, "the token *** may not reboot it")
        assert "S3CR3T-of-ours" not in repr(result)

    virtually(main)


@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
@pytest.mark.parametrize("seconds", [2.0, 5.0, 8.0, 20.0, 30.0])
def test_shed_send_is_looked_for_no_longer_than_the_server_has_time(seconds: float, reboot_type: str) -> None:
    """After a 503 the log would prove something later than `server_timeout` ends: the last look comes at its end."""

    async def main() -> None:
        cloud = cloud_of(1, log_delay=300.0)
        [server_id] = cloud.ids
        cloud.script(server_id, *[Fault.error(503)] * 9)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type, server_timeout=seconds)
        assert report.results[0].elapsed <= seconds + 1.0
        assert [record.call for record in cloud.requests].count(Call.LOG) in (2, 3)

    virtually(main)


@pytest.mark.parametrize("fault", [Fault.error(503), Fault.no_reply(applied=False)], ids=["503", "lost"])
@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
def test_lag_that_is_measured_meanwhile_is_not_waited_for(fault: Fault, reboot_type: str) -> None:
    """The first server of a run is sent to again after the grace, once others have shown that the log does not lag."""

    async def main() -> None:
        cloud = cloud_of(8, reboot_seconds=(1.0, 1.0), latency=0.1)
        cloud.script(cloud.ids[0], fault)
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type)
        assert report.summary == {Outcome.COMPLETED: 8}
        assert report.results[0].elapsed < (20.0 if reboot_type == "SOFT" else 100.0)

    virtually(main)
