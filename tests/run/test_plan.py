"""What a plan shows, and that making one sends no reboot."""

import pickle
from dataclasses import replace
from typing import Any

import pytest

from bulkrestart import AuthError, EndpointError, Forecast, Plan, Reason, Rollout
from bulkrestart.core.model import RebootType, Server
from bulkrestart.core.observation import Unanswered
from bulkrestart.core.options import Options
from bulkrestart.core.plan import Cost, draw_up, forecast
from bulkrestart.simulator import Call, Cloud, Fault
from tests.virtual import client_of, cloud_of, virtually

STRANGER = "616fb98f-46ca-475e-917e-2563e5a8cd19"
SOFT = Options(reboot_type=RebootType.SOFT, wait=True, escalate=False, start_stopped=False, max_at_once=50)
HARD = replace(SOFT, reboot_type=RebootType.HARD)


def active(**states: Any) -> Server:
    """Give a server that is active, but for some of its states."""
    return Server(**{"id": "s", "name": "web", "vm_state": "active", "status": "ACTIVE", **states})


@pytest.mark.parametrize(
    ("options", "seen", "reboot_type", "reason"),
    [
        (SOFT, active(), "SOFT", None),
        (HARD, active(), "HARD", None),
        (SOFT, active(locked=True), "SOFT", Reason.LOCKED),
        (HARD, active(locked=True), "HARD", Reason.LOCKED),
        (SOFT, active(vm_state="stopped"), "SOFT", Reason.WRONG_STATE),
        (HARD, active(vm_state="stopped"), "HARD", Reason.WRONG_STATE),
        (replace(HARD, start_stopped=True), active(vm_state="stopped"), "HARD", None),
        (replace(SOFT, escalate=True), active(vm_state="paused"), "HARD", None),
        (replace(SOFT, escalate=True), active(vm_state="stopped"), "SOFT", Reason.WRONG_STATE),
        (SOFT, active(vm_state="rescued"), "SOFT", Reason.WRONG_STATE),
        (SOFT, active(task_state="image_snapshot"), "SOFT", Reason.BUSY),
        (SOFT, active(task_state="rebooting"), "SOFT", Reason.BUSY),
        (SOFT, active(task_state="powering-off"), "SOFT", Reason.WRONG_STATE),
        (SOFT, active(vm_state=None), "SOFT", Reason.BUSY),
        (SOFT, Unanswered("ReadTimeout"), "SOFT", Reason.BUSY),
    ],
)
def test_forecasts(options: Options, seen: Server | Unanswered, reboot_type: str, reason: Reason | None) -> None:
    """What is to be expected of a server is what the second table says of it."""
    one = forecast("s", seen, wave=3, domain=7, options=options)
    assert (one.server_id, one.wave, one.domain) == ("s", 3, "7")
    assert (one.reboot_type, one.reason, one.detail) == (reboot_type, reason, seen.words)
    assert one.name == ("web" if isinstance(seen, Server) else "")


CHEAP = Cost(pages=2, first_poll=1.5, max_per_second=None)
FOUR = ["a", "b", "c", "d"]


def forecasts_of(options: Options) -> list[Forecast]:
    """Give what is to be expected of four servers, of which the last is locked."""
    return [forecast(one, active(id=one, locked=one == "d"), wave=1, domain=None, options=options) for one in FOUR]


@pytest.mark.parametrize(
    ("options", "waves", "cost", "requests", "seconds"),
    [
        # One look, four sends (a SOFT learns by its answer that it is refused), a poll of two pages, three proofs.
        (SOFT, [FOUR], CHEAP, 1 + 4 + 2 + 3, 1.5),
        # The survey of a HARD leaves the locked one out.
        (HARD, [FOUR], CHEAP, 1 + 2 + 3 + 2 + 3, 1.5),
        (replace(SOFT, wait=False), [FOUR], CHEAP, 1 + 4, 0.0),
        (replace(SOFT, since=1.0), [FOUR], CHEAP, 1 + 4 + 4 + 2 + 3, 1.5),
        (replace(HARD, since=1.0), [FOUR], CHEAP, 1 + 4 + 4 + 2 + 3, 1.5),
        # A wave of one is polled by one request.
        (replace(SOFT, rollout=Rollout(canary=1)), [FOUR[:1], FOUR[1:]], CHEAP, 1 + 4 + 1 + 2 + 3, 3.0),
        (replace(SOFT, rollout=Rollout(canary=1, pause=60.0)), [FOUR[:1], FOUR[1:]], CHEAP, 11, 63.0),
        (replace(SOFT, rollout=Rollout(spread="host")), [FOUR], CHEAP, 1 + 2 + 4 + 2 + 3, 1.5),
        (SOFT, [FOUR], replace(CHEAP, max_per_second=0.5), 10, 20.0),
        (SOFT, [FOUR], replace(CHEAP, max_per_second=100.0), 10, 1.5),
    ],
)
def test_what_it_takes(options: Options, waves: list[list[str]], cost: Cost, requests: int, seconds: float) -> None:
    """Requests and seconds are counted at the least, by wave and by pace."""
    plan = draw_up(forecasts_of(options), waves, options, cost)
    assert (plan.requests, plan.seconds) == (requests, seconds)


def test_a_plan_in_words_and_values() -> None:
    """A plan says what it comes to on one line, is plain values for programs, and can be sent to another process."""
    options = replace(SOFT, rollout=Rollout(canary=1, max_down="50%", max_failures=0))
    plan = draw_up(forecasts_of(options), [FOUR[:1], FOUR[1:]], options, CHEAP)
    assert str(plan) == "3 to send to, 1 locked in 2 waves: at least 11 requests and 3 s besides the reboots"
    values = plan.to_dict()
    assert values["expected"] == {"sent": 3, "locked": 1}
    assert (values["waves"], values["max_down"], values["max_failures"], values["max_refused"]) == ([1, 3], 2, 0, 20)
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301 - our own
    assert str(draw_up([], [], SOFT, CHEAP)).startswith("no servers in 0 waves: ")


def troubled_cloud() -> Cloud:
    """Make a cloud of which one server each is locked, stopped and busy."""
    cloud = cloud_of(9)
    cloud.change(cloud.ids[1], locked=True)
    cloud.change(cloud.ids[2], vm_state="stopped")
    cloud.occupy(cloud.ids[3], "image_snapshot", 1000.0)
    return cloud


def plan_of(cloud: Cloud, ids: list[str], **arguments: Any) -> Plan:
    """Make a plan for servers of a cloud."""

    async def main() -> Plan:
        async with client_of(cloud) as client:
            return await client.plan(ids, **arguments)

    return virtually(main)


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
