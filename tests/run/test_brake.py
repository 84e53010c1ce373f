"""One throttled answer holds everybody, for no less than it asks; and what stops the whole run."""

from dataclasses import replace

import pytest
import trio

from bulkrestart import Outcome, Reason, StopReason
from bulkrestart.simulator import Call, Fault, Role
from tests.virtual import EPOCH, client_of, cloud_of, slow_down, virtually


@pytest.mark.unmeasured
@pytest.mark.parametrize("call", [Call.REBOOT, Call.SHOW, Call.LOG, Call.LIST, Call.LOG_ROW])
def test_one_throttled_answer_holds_every_lane(call: Call) -> None:
    """After a 429 with Retry-After 30 nobody sends anything for 30 s, beyond what was in flight."""

    async def main() -> None:
        cloud = cloud_of(200, reboot_seconds=(20.0, 20.0))
        lost, throttled = cloud.ids[3], cloud.ids[60]
        slow_down(cloud, 0.5, but={lost, throttled})
        # A look needs a lost reply, and the first look of all is the preflight's.
        cloud.script(lost, Fault.no_reply(applied=False))
        at = {Call.LIST: None, Call.SHOW: lost, Call.LOG: lost}.get(call, throttled)
        cloud.script(at, Fault.throttled(30.0), call=call)
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
        assert report.summary == {Outcome.COMPLETED: 200}
        [hit] = [record.time for record in cloud.requests if record.status == 429]
        later = sorted(record.time - hit for record in cloud.requests if record.time > hit)
        # Requests that left in the same instant as the throttled one were in flight with it.
        assert later[0] >= 30.0

    virtually(main)


def test_throttled_for_long_costs_no_server_its_attempts_or_its_time() -> None:
    """Servers wait out an hour of throttling: it is neither an attempt nor a second of `server_timeout`."""

    async def main() -> None:
        cloud = cloud_of(20)
        cloud.outage = Fault.throttled(120.0)
        cloud.later(3600.0, lambda: setattr(cloud, "outage", None))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, server_timeout=60.0, max_attempts=1, stall_timeout=7200.0)
        assert report.summary == {Outcome.COMPLETED: 20}
        assert len(cloud.requests) < 20 * 4 + 31

    virtually(main)


def test_a_token_that_expires_stops_the_run() -> None:
    """A 401 that stands stops the run: what was accepted says so, and nothing is sent any more."""

    async def main() -> None:
        cloud = cloud_of(100, reboot_seconds=(60.0, 60.0))
        slow_down(cloud, 1.0)
        cloud.later(3.5, lambda: cloud.tokens.clear())
        async with client_of(cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.UNAUTHORIZED
        assert "get a new token" in report.stopped.detail
        assert report.summary[Outcome.ACCEPTED] == 40
        assert [record.status for record in cloud.requests].count(202) == 40
        assert len(cloud.requests) < 100
        assert {result.reason for result in report if result.outcome == "skipped"} == {Reason.STOPPED}

    virtually(main)


def test_ten_forbidden_in_a_row_stop_the_run() -> None:
    """A user who may not reboot is told after ten servers, not after all of them."""

    async def main() -> None:
        cloud = cloud_of(100)
        cloud.add_token("reader", role=Role.READER)
        async with client_of(cloud, max_at_once=1, token="reader") as client:
            report = await client.restart(cloud.ids)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.FORBIDDEN
        assert report.summary == {Outcome.REFUSED: 10, Outcome.SKIPPED: 90}

    virtually(main)


def test_redirects_of_several_servers_stop_the_run_and_the_servers_are_looked_at() -> None:
    """A 3xx may come from any proxy: once it repeats, nothing more is sent, and the run looks at these servers."""

    async def main() -> None:
        cloud = cloud_of(60)
        moved = Fault.respond(302, headers={"location": "https://login.example.com/"})
        moved_ids = cloud.ids[12:]
        slow_down(cloud, 1.0, but=moved_ids)
        for server_id in moved_ids:
            cloud.script(server_id, replace(moved, answered_after=1.0))
        async with client_of(cloud, max_at_once=5) as client:
            report = await client.restart(cloud.ids)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.WRONG_ENDPOINT
        assert all(cloud.posts[server_id] <= 1 for server_id in cloud.ids)
        assert (report.results[12].outcome, report.results[12].reason) == (Outcome.REFUSED, Reason.STOPPED)
        assert report.results[-1].outcome is Outcome.SKIPPED
        assert report.results[0].outcome is Outcome.COMPLETED

    virtually(main)


def test_virtual_time_begins_where_the_cloud_does() -> None:
    """The cloud of these tests lives on the virtual clock."""

    async def main() -> None:
        cloud = cloud_of(1)
        await trio.sleep(100.0)
        assert cloud.now == EPOCH + 100.0

    virtually(main)
