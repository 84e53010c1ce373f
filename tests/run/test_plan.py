"""A plan is made of what the cloud shows, a run does what it says, and making one sends no reboot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from bulkrestart import AuthError, EndpointError, JournalError, Reason, Rollout
from bulkrestart.simulator import Call, Cloud, Fault, HostFault
from tests.rollouts import ending
from tests.virtual import client_of, cloud_of, virtually

STRANGER = "616fb98f-46ca-475e-917e-2563e5a8cd19"


def troubled_cloud() -> Cloud:
    """Make a cloud of which one server each is locked, stopped and busy."""
    cloud = cloud_of(9)
    cloud.change(cloud.ids[1], locked=True)
    cloud.change(cloud.ids[2], vm_state="stopped")
    cloud.occupy(cloud.ids[3], "image_snapshot", 1000.0)
    return cloud


def test_a_plan_of_a_cloud() -> None:
    """Unknown, locked, stopped and busy servers are named, waves and zones are shown, and nothing is sent."""

    async def main() -> None:
        cloud = troubled_cloud()
        ids = [*cloud.ids, STRANGER]
        async with client_of(cloud) as client:
            plan = await client.plan(ids, rollout=Rollout(canary=1, wave=2, spread="az"))
        assert [one.server_id for one in plan.forecasts] == ids
        reasons = {one.server_id: one.reason for one in plan.forecasts if one.reason is not None}
        assert reasons == {
            cloud.ids[1]: Reason.LOCKED,
            cloud.ids[2]: Reason.WRONG_STATE,
            cloud.ids[3]: Reason.BUSY,
            STRANGER: Reason.NOT_FOUND,
        }
        assert plan.expected == {None: 6, Reason.LOCKED: 1, Reason.WRONG_STATE: 1, Reason.NOT_FOUND: 1, Reason.BUSY: 1}
        zones = [cloud.ids[start::3] for start in range(3)]
        assert [list(wave) for wave in plan.waves] == [
            zones[0][:1],
            zones[0][1:],
            *(part for zone in zones[1:] for part in (zone[:2], zone[2:])),
            [STRANGER],
        ]
        assert [one.domain for one in plan.forecasts] == [*["az-1", "az-2", "az-3"] * 3, ""]
        assert {request.call for request in cloud.requests} == {Call.SHOW, Call.LIST}
        assert not cloud.posts

    virtually(main)


def test_the_run_follows_its_plan() -> None:
    """What a plan expects of each server is what a run makes of it."""

    async def main() -> None:
        cloud = cloud_of(30, seed=4)
        for number, server_id in enumerate(cloud.ids):
            cloud.change(server_id, locked=number % 5 == 1, vm_state="stopped" if number % 7 == 2 else "active")
        async with client_of(cloud) as client:
            plan = await client.plan(cloud.ids)
            report = await client.restart(cloud.ids)
        for one, result in zip(plan.forecasts, report, strict=True):
            assert result.reason == one.reason, one
            assert (result.outcome == "completed") == (one.reason is None)

    virtually(main)


def test_nobody_to_plan_for() -> None:
    """An empty fleet has a plan, for which nobody is asked."""

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud) as client:
            plan = await client.plan([])
        assert (plan.waves, plan.forecasts) == ((), ())
        assert not cloud.requests

    virtually(main)


def test_servers_that_are_not_shown() -> None:
    """A server that neither a page nor a look of its own shows is one whose state is not known now."""

    async def main() -> None:
        cloud = cloud_of(3)
        hidden = cloud.ids[1]
        cloud.script(None, *[Fault.error(500)] * 9, call=Call.LIST)
        cloud.script(hidden, *[Fault.no_reply(applied=True)] * 9, call=Call.SHOW)
        async with client_of(cloud) as client:
            plan = await client.plan(cloud.ids)
        assert [one.reason for one in plan.forecasts] == [None, Reason.BUSY, None]

    virtually(main)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault.respond(401), AuthError, "does not let us in"),
        (Fault.respond(302), EndpointError, "not the compute endpoint"),
    ],
)
def test_a_plan_is_refused_like_a_run(fault: Fault, error: type[Exception], words: str) -> None:
    """What ends a run before it begins is raised by its plan as well."""

    async def main() -> None:
        cloud = cloud_of(2)
        cloud.outage = fault
        async with client_of(cloud) as client:
            with pytest.raises(error, match=words):
                await client.plan(cloud.ids)

    virtually(main)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ids": "one"}, "put a single id in a list"),
        ({"reboot_type": "MEDIUM"}, "reboot_type must be"),
        ({"wait": False, "rollout": Rollout(canary=1)}, "wait too"),
        ({"rollout": None}, "rollout must be a Rollout"),
        ({"escalate": 1}, "escalate must be"),
    ],
)
def test_arguments_of_a_plan(arguments: dict[str, Any], words: str) -> None:
    """They are checked as those of a run are, before anybody is asked."""

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match=words):
                await client.plan(**{"ids": cloud.ids, **arguments})
        assert not cloud.requests

    virtually(main)


def test_a_plan_of_what_is_left(tmp_path: Path) -> None:
    """With a journal the plan is of the rest: waves of the whole fleet, budgets that are spent, and whom it follows."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(60.0, 60.0))
        cloud.break_host(cloud.ids[0], HostFault.DEAD)
        journal = tmp_path / "journal"
        rollout = Rollout(canary=1, wave="50%", max_failures="10%")
        async with client_of(cloud) as client:
            before = await client.plan(cloud.ids, rollout=rollout, journal=journal)
            assert not journal.exists()
            with anyio.CancelScope() as scope:
                cut = replace(rollout, pause=ending(scope, 5.0))
                await client.restart(cloud.ids, rollout=cut, journal=journal)
            sent = list(cloud.posts)
            assert len(sent) == 11
            plan = await client.plan(client.servers(), rollout=rollout, journal=journal)
            with pytest.raises(JournalError, match="of type SOFT, not HARD"):
                await client.plan(cloud.ids, reboot_type="HARD", journal=journal)
        assert [len(wave) for wave in before.waves] == [1, 10, 9]
        assert [len(wave) for wave in plan.waves] == [10, 9]
        assert (plan.max_failures, plan.failures, plan.refused) == (2, 1, 0)
        assert [one.server_id for one in plan.forecasts] == cloud.ids[1:]
        assert plan.expected == {None: 9, Reason.IN_FLIGHT: 10}
        assert len(cloud.posts) == 11

    virtually(main)


def test_a_plan_of_a_finished_run(tmp_path: Path) -> None:
    """Nothing is left to do, and nobody is asked."""

    async def main() -> None:
        cloud = cloud_of(2)
        async with client_of(cloud) as client:
            await client.restart(cloud.ids, journal=tmp_path / "journal")
            asked = len(cloud.requests)
            plan = await client.plan(cloud.ids, journal=tmp_path / "journal")
        assert (plan.forecasts, plan.waves) == ((), ())
        assert len(cloud.requests) == asked

    virtually(main)
