"""Done means done: how accepted servers are watched, and what each end of a reboot is called."""

from collections import Counter

import pytest
import trio

from bulkrestart import Outcome, Proof, Reason, StopReason
from bulkrestart.simulator import Answer, Call, Cloud, Fault, HostFault, LogAccess, json_answer
from tests.virtual import assert_accounted, client_of, cloud_of, virtually

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
        assert calls(cloud)[Call.LIST] == 3

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
