"""Done means done: how accepted servers are watched, and what each end of a reboot is called."""

from collections import Counter
from datetime import datetime
from functools import cached_property
from itertools import pairwise

import httpx
import pytest
import trio

from bulkrestart import Outcome, Proof, Reason, RebootType, RestartClient, Rollout, StopReason, Token
from bulkrestart.core.calibration import UNMEASURED_LAG
from bulkrestart.core.look import GRACE
from bulkrestart.run.settle import FIRST_INTERVAL, LAST_INTERVAL
from bulkrestart.simulator import (
    Answer,
    Call,
    Cloud,
    Fault,
    HostFault,
    LogAccess,
    LogRow,
    RequestIds,
    asgi,
    json_answer,
)
from bulkrestart.simulator.records import SimulatedServer
from tests.virtual import EPOCH, REGARDLESS, assert_accounted, client_of, cloud_of, virtually

FAILED = Outcome.FAILED


def calls(cloud: Cloud) -> Counter[Call]:
    """Count the requests that arrived."""
    return Counter(record.call for record in cloud.requests)


def test_a_driver_that_fails_with_the_guest_off() -> None:
    """A server that ends in error fails with the words of its fault."""

    async def main() -> None:
        cloud = cloud_of(2)
        cloud.break_host(cloud.ids[0], HostFault.DEAD)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert (report.results[0].outcome, report.results[0].reason) == (FAILED, Reason.ERROR)
        assert report.results[0].detail == cloud.server(cloud.ids[0]).fault.message  # type: ignore[union-attr]
        assert report.results[1].outcome is Outcome.COMPLETED

    virtually(main)


def test_a_reboot_that_never_reached_the_host() -> None:
    """Active and idle is no proof: a HARD that was dropped behind another user's SOFT is `not_rebooted`."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(60.0, 60.0))
        [server_id] = cloud.ids
        # The other's reboot gets in after our look, and its driver is at work when our request does.
        cloud.script(server_id, Fault(by_other=True, applied_after=20.0, answered_after=20.0))
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], reboot_type="HARD")
        assert cloud.server(server_id).status == "ACTIVE"
        assert (result.outcome, result.reason) == (FAILED, Reason.NOT_REBOOTED)

    virtually(main)


def test_deleted_meanwhile() -> None:
    """A server that is deleted while it reboots is `gone`, by the cloud's own 404."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(30.0, 30.0))
        cloud.later(10.0, lambda: cloud.delete(cloud.ids[1]))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        ends = [(result.outcome, result.reason) for result in report]
        assert ends == [(Outcome.COMPLETED, None), (FAILED, Reason.GONE), (Outcome.COMPLETED, None)]

    virtually(main)


def test_it_ends_in_another_state() -> None:
    """A server that is found stopped when its reboot is over has not come back."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(30.0, 30.0))
        [server_id] = cloud.ids
        cloud.later(10.0, lambda: cloud.change(server_id, vm_state="stopped", task_state=None))
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id])
        assert (result.outcome, result.reason) == (FAILED, Reason.WRONG_STATE)
        assert "stopped" in result.detail

    virtually(main)


def test_a_snapshot_from_before_the_acceptance_does_not_count() -> None:
    """A page that was asked for before a server was accepted shows it active, and proves nothing."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(30.0, 30.0))
        late = cloud.ids[2]
        # It has changed a moment ago, so that lists of changes show it.
        cloud.change(late, name="renamed")
        cloud.log_access = LogAccess.FORBIDDEN
        cloud.script(late, Fault(applied_after=5.0, answered_after=5.0))
        # The first page is asked for at about 2 s, and comes when the late server was accepted.
        cloud.script(None, Fault.slow(10.0), call=Call.LIST)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.results[2].proof is Proof.STATE
        assert report.results[2].elapsed >= 35.0
        assert_accounted(report, cloud)

    virtually(main)


def test_a_gateway_that_strips_request_ids() -> None:
    """An acceptance without a request id is proved all the same: its row is found by its time."""

    async def main() -> None:
        cloud = cloud_of(2)
        for server_id in cloud.ids:
            cloud.script(server_id, Fault.respond(202, applied=True))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        for result in report:
            assert (result.outcome, result.proof) == (Outcome.COMPLETED, Proof.ACTION)
            assert result.attempts[0].request_id is None
            assert result.request_id == cloud.server(result.server_id).log[-1].request_id

    virtually(main)


def test_an_acceptance_that_came_to_nothing() -> None:
    """A 202 of a gateway that the readable log never shows is no reboot, however active the server is."""

    async def main() -> None:
        cloud = cloud_of(2)
        cloud.script(cloud.ids[0], Fault.respond(202))
        cloud.script(cloud.ids[1], Fault(answer=Answer(202, from_nova=False), applied_after=20.0))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=200.0)
        never, late = report
        assert (never.outcome, never.reason) == (FAILED, Reason.NOT_REBOOTED)
        assert (late.outcome, late.proof) == (Outcome.COMPLETED, Proof.ACTION)
        assert list(cloud.cycles.values()) == [0, 1]

    virtually(main)


def test_a_row_that_is_visible_late() -> None:
    """A row that is not in the log yet is waited for, and not taken for a log that is kept from us."""

    async def main() -> None:
        cloud = cloud_of(2, log_delay=20.0)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert {result.proof for result in report} == {Proof.ACTION}
        assert report.elapsed > 20.0

    virtually(main)


def test_a_server_on_two_pages() -> None:
    """A list that changes while it is read may show a server twice: it gets one outcome."""

    async def main() -> None:
        cloud = cloud_of(6, reboot_seconds=(1.0, 1.0))
        shown = [
            {"id": server_id, "OS-EXT-STS:vm_state": "error", "OS-EXT-STS:task_state": None}
            for server_id in cloud.ids[:2]
        ]
        twice = json_answer(200, {"servers": [*shown, *shown, *shown]})
        cloud.script(None, Fault(answer=twice), call=Call.LIST)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {FAILED: 2, Outcome.COMPLETED: 4}

    virtually(main)


@pytest.mark.parametrize(
    ("version", "newest", "proof"),
    [
        ("v2.1", "2.96", Proof.ACTION),
        ("v2.1", "2.60", Proof.ACTION),
        ("v2.1", "2.50", Proof.STATE),
        ("v2.1", "2.1", Proof.STATE),
        ("v2", "2.96", Proof.STATE),
    ],
)
def test_old_clouds(version: str, newest: str, proof: Proof) -> None:
    """A cloud that shows no events of an action is believed by the state, and the result says so."""

    async def main() -> None:
        cloud = cloud_of(5, max_microversion=newest)
        async with client_of(cloud, version=version) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 5}
        assert {result.proof for result in report} == {proof}

    virtually(main)


def test_small_pages() -> None:
    """Every page is read, also where the cloud's pages are smaller than what was asked for."""

    async def main() -> None:
        cloud = cloud_of(95, max_limit=10)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 95}
        assert calls(cloud)[Call.SHOW] < 40

    virtually(main)


def test_a_marker_that_vanishes() -> None:
    """A walk whose marker is deleted between two pages begins anew, and nobody is taken for gone."""

    async def main() -> None:
        cloud = cloud_of(30, max_limit=10)
        cloud.script(None, None, Fault.error(400, "marker [x] not found"), call=Call.LIST)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 30}

    virtually(main)


def test_lists_that_are_forbidden() -> None:
    """Where lists are not allowed, servers are read one by one."""

    async def main() -> None:
        cloud = cloud_of(20)
        cloud.script(None, *[Fault.error(403, "no")] * 50, call=Call.LIST)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 20}
        assert calls(cloud)[Call.LIST] == 1

    virtually(main)


def test_lists_that_always_fail() -> None:
    """Where every list fails and single servers can be read, they are, after some walks."""

    async def main() -> None:
        cloud = cloud_of(30)
        cloud.script(None, *[Fault.error(500, "Unexpected API Error.")] * 1000, call=Call.LIST)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 30}
        assert report.stopped is None
        # Five of the first walk, each for a smaller page, and one of each other.
        assert calls(cloud)[Call.LIST] == 7

    virtually(main)


def test_pages_that_lead_in_a_circle() -> None:
    """A walk ends at a page that it has read: a cloud whose markers repeat does not hold it for ever."""

    async def main() -> None:
        cloud = cloud_of(30)
        entry = {"OS-EXT-STS:vm_state": "active", "OS-EXT-STS:task_state": "reboot_started"}
        links = [{"rel": "next", "href": "http://cloud.test/"}]
        pages = [
            json_answer(200, {"servers": [{"id": server_id, **entry}], "servers_links": links})
            for server_id in (cloud.ids[0], cloud.ids[1], cloud.ids[2])
        ]
        cloud.script(None, *[Fault(answer=page) for page in (*pages, pages[1])], call=Call.LIST)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 30}
        assert calls(cloud)[Call.LIST] < 10

    virtually(main)


@pytest.mark.unmeasured
def test_few_requests_for_many_servers() -> None:
    """Waiting costs a request per page and poll, and one per server for its proof."""

    async def main() -> None:
        cloud = cloud_of(590, reboot_seconds=(2.0, 40.0), max_limit=200)
        async with client_of(cloud, max_at_once=100) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 590}
        counts = calls(cloud)
        assert counts[Call.REBOOT] == 590
        # A server whose event is not yet finished when it is seen back is asked again at the next poll.
        assert 590 <= counts[Call.LOG_ROW] <= 650
        assert counts[Call.LIST] <= 3 * 25
        assert counts[Call.SHOW] <= 25

    virtually(main)


def test_a_cloud_that_fails_meanwhile() -> None:
    """Watching survives 90 s without any answer."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(5.0, 5.0))
        cloud.later(1.0, lambda: setattr(cloud, "outage", Fault.error(503)))
        cloud.later(91.0, lambda: setattr(cloud, "outage", None))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 20}

    virtually(main)


def test_a_cloud_that_is_gone_for_good() -> None:
    """A cloud that answers no poll for 300 s ends the wait: accepted servers stay accepted, and the report says why."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(5.0, 5.0))
        cloud.later(1.0, lambda: setattr(cloud, "outage", Fault.no_reply(applied=False)))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.ACCEPTED: 20}
        assert {result.reason for result in report} == {Reason.INTERRUPTED}
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.OUTAGE
        assert 300.0 < report.elapsed < 400.0

    virtually(main)


def test_held_time_extends_the_wait() -> None:
    """Time in which everybody was held is not counted against a server that is waited for."""

    async def main() -> None:
        cloud = cloud_of(2, reboot_seconds=(100.0, 100.0))
        cloud.script(None, Fault.throttled(80.0), call=Call.LIST)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=50.0)
        assert report.summary == {Outcome.COMPLETED: 2}

    virtually(main)


def test_without_waiting() -> None:
    """Without `wait` a server that was taken is `accepted`, and nothing is polled."""

    async def main() -> None:
        cloud = cloud_of(5)
        began = trio.current_time()
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait=False)
        assert report.summary == {Outcome.ACCEPTED: 5}
        assert {result.reason for result in report} == {None}
        assert trio.current_time() == began
        assert calls(cloud) == {Call.SHOW: 1, Call.REBOOT: 5}

    virtually(main)


@pytest.mark.parametrize("fault", [HostFault.HANG, HostFault.DOWN])
@pytest.mark.parametrize("escalate", [True, False])
def test_a_host_that_never_comes_back(fault: HostFault, escalate: bool) -> None:
    """A server that stays in its reboot has failed as such when its time is over; nothing is sent into that reboot."""

    async def main() -> None:
        cloud = cloud_of(2)
        cloud.break_host(cloud.ids[0], fault)
        async with client_of(cloud) as client:
            late, back = await client.restart(cloud.ids, escalate=escalate)
        task_state = "reboot_started" if fault is HostFault.HANG else "rebooting"
        assert (late.outcome, late.reason) == (FAILED, Reason.NOT_BACK)
        assert late.detail == f"its reboot has not finished: vm_state active, task_state {task_state}"
        assert 600.0 <= late.elapsed <= 640.0
        assert back.outcome is Outcome.COMPLETED
        assert set(cloud.posts.values()) == {1}

    virtually(main)


def test_an_action_that_ended_in_error() -> None:
    """A server that is active, and whose action ended in Error, was not rebooted by it."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(30.0, 30.0))
        [server_id] = cloud.ids
        cloud.later(1.0, lambda: cloud.reboot_by_other(server_id, RebootType.HARD))
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id])
        assert (result.outcome, result.reason) == (FAILED, Reason.NOT_REBOOTED)
        assert result.detail == "the action log says that the reboot ended in Error"

    virtually(main)


@pytest.mark.parametrize("vm_state", ["error", "stopped"])
def test_an_end_that_is_seen_once(vm_state: str) -> None:
    """Error and stopped are looked at twice before they are failures: one that passes is none."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(30.0, 30.0))
        [server_id] = cloud.ids
        entry = {"id": server_id, "OS-EXT-STS:vm_state": vm_state, "OS-EXT-STS:task_state": None}
        # The first look is that of the preflight.
        cloud.script(server_id, None, None, Fault(answer=json_answer(200, {"server": entry})), call=Call.SHOW)
        async with client_of(cloud) as client:
            [result] = await client.restart([server_id], escalate=True)
        assert (result.outcome, result.proof) == (Outcome.COMPLETED, Proof.ACTION)
        assert cloud.posts[server_id] == cloud.cycles[server_id] == 1

    virtually(main)


def test_an_end_that_is_seen_late() -> None:
    """A server that is found in error when its time is over has failed in its own way: it is looked at once more."""

    async def main() -> None:
        cloud = cloud_of(1, reboot_seconds=(50.0, 50.0))
        cloud.break_host(cloud.ids[0], HostFault.DEAD)
        async with client_of(cloud) as client:
            [result] = await client.restart(cloud.ids, wait_timeout=51.0)
        assert (result.outcome, result.reason) == (FAILED, Reason.ERROR)

    virtually(main)


def test_absence_is_no_end() -> None:
    """A server that no list shows, and for which a gateway answers 404, is not gone: only the cloud's own 404 is."""

    async def main() -> None:
        cloud = cloud_of(4, reboot_seconds=(30.0, 30.0))
        hidden = cloud.ids[2]
        # As cells that are down, or a policy of the list, leave servers out.
        cloud.script(None, *[Fault(answer=json_answer(200, {"servers": []}))] * 100, call=Call.LIST)
        cloud.script(hidden, *[Fault.respond(404, b"<html>Not Found</html>")] * 4, call=Call.SHOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 4}

    virtually(main)


def test_changes_are_asked_for_since_the_walk_before() -> None:
    """Each walk asks for what changed since the one before it began, by the cloud's clock less 60 s; or for all."""

    async def main() -> None:
        cloud = cloud_of(30, reboot_seconds=(100.0, 100.0), date_skew=40.0)
        walks: list[tuple[float, float | None]] = []

        async def note(request: httpx.Request) -> None:
            if request.url.path.endswith("/detail"):
                since = request.url.params.get("changes-since")
                moment = None if since is None else datetime.fromisoformat(since).timestamp() - EPOCH - 40.0
                walks.append((trio.current_time(), moment))

        transport = httpx.ASGITransport(asgi(cloud))
        async with httpx.AsyncClient(transport=transport, event_hooks={"request": [note]}) as http:
            client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 30}
        assert len(walks) > 8
        assert walks[0][1] == pytest.approx(-60.0, abs=1.0)
        assert sum(since is None for _, since in walks) in (1, 2)
        for (before, _), (began, since) in pairwise(walks):
            assert since is None or since == pytest.approx(before - 60.0, abs=1.0)
            assert began - before <= LAST_INTERVAL * 1.2

    virtually(main)


def test_polls_come_only_as_often_as_needed() -> None:
    """Between polls that bring nothing the wait grows, up to a bound, and is never the same for two runs at once."""

    async def main() -> None:
        beats: list[tuple[float, ...]] = []
        for _ in range(3):
            began = trio.current_time()
            cloud = cloud_of(2, reboot_seconds=(300.0, 300.0))
            async with client_of(cloud) as client:
                await client.restart(cloud.ids)
            polls = sorted({record.time for record in cloud.requests if record.call is Call.LIST})
            assert polls[0] - EPOCH - began <= FIRST_INTERVAL * 1.2
            waits = tuple(later - earlier for earlier, later in pairwise(polls))
            for number, wait in enumerate(waits[:-1], start=1):
                usual = min(FIRST_INTERVAL * 1.5**number, LAST_INTERVAL)
                assert 0.8 * usual <= wait <= 1.2 * usual
            assert len(polls) < 30
            beats.append(waits)
        assert len(set(beats)) == 3

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "fault",
    [
        Fault.error(500),
        Fault.error(503),
        Fault.throttled(3.0),
        Fault.throttled(None),
        Fault.no_reply(applied=False),
    ],
)
def test_polls_and_proofs_that_fail(fault: Fault) -> None:
    """Whatever kind of request fails some times, it is made again, and every server is proved back."""

    async def main() -> None:
        cloud = cloud_of(12, reboot_seconds=(5.0, 40.0))
        cloud.script(None, *[None, fault, fault] * 2, call=Call.LIST)
        for server_id in cloud.ids:
            cloud.script(server_id, fault, call=Call.LOG_ROW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert {(result.outcome, result.proof) for result in report} == {(Outcome.COMPLETED, Proof.ACTION)}

    virtually(main)


def test_nobody_is_failed_unseen() -> None:
    """A server that comes back after its time, while nothing could be seen, is completed: it is looked at first."""

    async def main() -> None:
        cloud = cloud_of(2, reboot_seconds=(50.0, 50.0))
        cloud.later(10.0, lambda: setattr(cloud, "outage", Fault.error(503)))
        cloud.later(100.0, lambda: setattr(cloud, "outage", None))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=20.0)
        assert report.summary == {Outcome.COMPLETED: 2}

    virtually(main)


def test_blind_time_extends_the_wait() -> None:
    """Time in which nothing could be seen is not counted against a server, and other time is."""

    async def main() -> None:
        for seconds, outcome in ((150.0, Outcome.COMPLETED), (250.0, FAILED)):
            cloud = cloud_of(2, reboot_seconds=(seconds, seconds))
            cloud.later(10.0, lambda cloud=cloud: setattr(cloud, "outage", Fault.error(503)))  # type: ignore[misc]
            cloud.later(110.0, lambda cloud=cloud: setattr(cloud, "outage", None))  # type: ignore[misc]
            async with client_of(cloud) as client:
                report = await client.restart(cloud.ids, wait_timeout=80.0)
            assert report.summary == {outcome: 2}

    virtually(main)


def test_blind_time_before_the_first_sight() -> None:
    """Nor is it where no poll was ever answered before; and what was blind before a server was sent to is not its."""

    async def main() -> None:
        await trio.sleep(5000.0)
        cloud = cloud_of(2, reboot_seconds=(10_000.0, 10_000.0))
        # The preflight and both sends are through.
        cloud.later(1.0, lambda: setattr(cloud, "outage", Fault.error(503)))
        cloud.later(101.0, lambda: setattr(cloud, "outage", None))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=80.0)
        assert {result.reason for result in report} == {Reason.NOT_BACK}
        assert 180.0 <= report.elapsed <= 230.0

    virtually(main)


def test_a_guest_that_ignores_its_soft_reboot() -> None:
    """Libvirt resets a guest that does not shut down within 120 s: by default that is waited for."""

    async def main() -> None:
        cloud = cloud_of(2, reboot_seconds=(149.0, 149.0))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 2}

    virtually(main)


@pytest.mark.unmeasured
def test_a_fleet_costs_few_requests() -> None:
    """Waiting for a fleet costs fewer than three requests per page and poll, and one for each server as its proof."""

    async def main() -> None:
        cloud = cloud_of(400, reboot_seconds=(2.0, 30.0), max_limit=200)
        async with client_of(cloud, max_at_once=100) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 400}
        assert {result.proof for result in report} == {Proof.ACTION}
        waiting = [record for record in cloud.requests[1:] if record.call in (Call.LIST, Call.SHOW)]
        # What a poll asks for is asked in one instant of virtual time.
        polls = len({record.time for record in waiting})
        pages = 400 // cloud.max_limit
        assert polls > 8
        assert len(waiting) < 3 * pages * polls
        assert calls(cloud)[Call.LOG] == 0
        # A server whose event is not finished when it is seen back is asked again at the next poll.
        assert 400 <= calls(cloud)[Call.LOG_ROW] <= 420

    virtually(main)


@pytest.mark.parametrize("fault", [HostFault.HANG, HostFault.REVERTED])
def test_states_that_are_shown_late_prove_nothing_on_an_old_cloud(fault: HostFault) -> None:
    """Where rows show no finish the state tells, and not one of before the reboot, though the log is up to date."""

    async def main() -> None:
        cloud = Cloud(
            8,
            clock=lambda: EPOCH + trio.current_time(),
            reboot_seconds=(40.0, 60.0),
            view_lag=30.0,
            max_microversion="2.40",
        )
        for server_id in cloud.ids:
            cloud.break_host(server_id, fault)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=REGARDLESS)
        assert report.summary == {FAILED: 8}
        assert sum(cloud.cycles.values()) == 0

    virtually(main)


class _Replicated(Cloud):
    """A cloud whose first reading of each action log comes from a copy that is behind; the others are up to date."""

    def log(self, server: SimulatedServer) -> list[LogRow]:
        """Return the log; the first time as it was before any reboot."""
        is_first = server.id not in self.read
        self.read.add(server.id)
        return [row for row in super().log(server) if row.action == "create" or not is_first]

    @cached_property
    def read(self) -> set[str]:
        """The servers whose log was read."""
        return set()


def test_row_that_is_missing_where_it_is_asked_for_singly_is_late() -> None:
    """A log is not taken to be up to date when it shows each row only at the second reading."""

    async def main() -> None:
        cloud = _Replicated(8, clock=lambda: EPOCH + trio.current_time(), reboot_seconds=(0.3, 0.3))
        last = cloud.ids[-1]
        cloud.script(last, Fault.no_reply(applied=False))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(canary=7))
        lost, again = report[last].attempts
        # Twice as late as the latest row is no less than what is allowed for before anything was measured.
        assert again.sent_at - lost.sent_at >= GRACE + UNMEASURED_LAG

    virtually(main)


@pytest.mark.parametrize("request_ids", [RequestIds.HIDDEN, RequestIds.REPLACED])
def test_lone_server_whose_reboot_failed_is_not_completed_by_its_state(request_ids: RequestIds) -> None:
    """A log that can be read is searched at the end of the wait at the latest, however its ids and its clock differ."""

    async def main() -> None:
        cloud = cloud_of(1, date_skew=30.0, request_ids=request_ids)
        [server_id] = cloud.ids
        cloud.break_host(server_id, HostFault.REVERTED)
        async with client_of(cloud) as client:
            [result] = await client.restart(cloud.ids)
        assert (result.outcome, result.reason) == (FAILED, Reason.NOT_REBOOTED)

    virtually(main)


def test_row_that_cannot_be_read_singly_once_is_read_again() -> None:
    """Where ids are hidden, the row found in the log is read singly, and a 500 for it does not end the server."""

    async def main() -> None:
        cloud = cloud_of(1, request_ids=RequestIds.HIDDEN)
        [server_id] = cloud.ids
        cloud.break_host(server_id, HostFault.REVERTED)
        cloud.script(server_id, Fault.error(500, "Unexpected API Error."), call=Call.LOG_ROW)
        async with client_of(cloud) as client:
            [result] = await client.restart(cloud.ids)
        assert (result.outcome, result.reason) == (FAILED, Reason.NOT_REBOOTED)
        assert calls(cloud)[Call.LOG_ROW] >= 2

    virtually(main)


def test_log_that_lags_behind_the_states_may_yet_show_an_error() -> None:
    """On an old cloud, whose rows show no finish, a server that is back waits until the log would show an Error."""

    async def main() -> None:
        cloud = Cloud(
            2,
            clock=lambda: EPOCH + trio.current_time(),
            reboot_seconds=(60.0, 60.0),
            log_lag=20.0,
            max_microversion="2.40",
        )
        for server_id in cloud.ids:
            cloud.break_host(server_id, HostFault.REVERTED)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {FAILED: 2}

    virtually(main)
