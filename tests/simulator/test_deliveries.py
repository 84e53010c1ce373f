"""A request that something on the way delivers twice."""

from typing import Any, Literal

import pytest

from bulkrestart.core.model import RebootType
from bulkrestart.simulator import Call, Cloud, Face, Fault, Faults, HostFault, ManualClock, json_answer, nova_answer
from tests.simulator.asking import HARD, SOFT, ask, post


def make(clock: ManualClock, **settings: Any) -> Cloud:
    """Make a cloud of one server whose reboots take ten seconds."""
    return Cloud(1, clock=clock, reboot_seconds=(10.0, 10.0), **settings)


def test_a_second_delivery_needs_a_first() -> None:
    """A request that is never applied cannot be delivered again."""
    with pytest.raises(ValueError, match="follows a first one"):
        Fault(lost=True, again_after=1.0)


@pytest.mark.parametrize(("answer", "status"), [("first", 202), ("second", 409)])
def test_the_second_meets_the_first(cloud: Cloud, answer: Literal["first", "second"], status: int) -> None:
    """The second delivery is refused by the reboot that the first began, and the client gets the answer that is asked.

    The client sent one request, and the server is rebooted once.
    """
    server = cloud.server(cloud.ids[0])
    cloud.script(server.id, Fault.delivered_twice(answer=answer))

    answered = post(cloud, server.id)

    assert answered.status_code == status
    rows = [row for row in server.log if row.action == "reboot"]
    assert [row.send for row in rows] == [0]
    assert (answered.headers["x-openstack-request-id"] == rows[0].request_id) is (answer == "first")
    assert (cloud.posts[server.id], len(cloud.requests)) == (1, 1)


def test_a_second_that_is_accepted_is_of_the_same_send(cloud: Cloud, clock: ManualClock) -> None:
    """A HARD that is delivered twice at once is accepted twice; the number of the send tells that it was one."""
    server = cloud.server(cloud.ids[0])
    cloud.script(server.id, Fault.delivered_twice())

    answered = post(cloud, server.id, HARD)
    clock.advance(60)

    rows = [row for row in cloud.server(server.id).log if row.action == "reboot"]
    assert answered.status_code == 202
    assert [(row.send, row.result) for row in rows] == [(0, "Success"), (0, "Error")]
    assert answered.headers["x-openstack-request-id"] == rows[1].request_id
    assert [cycle.send for cycle in cloud.cycle_log] == [0]


def test_a_second_that_comes_when_the_first_is_over(cloud: Cloud, clock: ManualClock) -> None:
    """A second delivery after the end of the first reboot cycles the guest again, by the same send."""
    server = cloud.server(cloud.ids[0])
    cloud.script(server.id, Fault.delivered_twice(20.0, "first"))

    post(cloud, server.id)
    clock.advance(60)

    assert [cycle.send for cycle in cloud.cycle_log] == [0, 0]
    assert [cycle.time for cycle in cloud.cycle_log] == [clock() - 54, clock() - 34]


def test_sends_are_told_apart(cloud: Cloud, clock: ManualClock) -> None:
    """Each request has a number of its own, and a reboot that was not asked for over HTTP has none."""
    server = cloud.server(cloud.ids[0])
    for _ in range(2):
        post(cloud, server.id)
        clock.advance(10)
    cloud.reboot_by_other(server.id)
    clock.advance(10)

    assert [cycle.send for cycle in cloud.cycle_log] == [0, 1, None]


def test_a_lost_reply_and_a_second_delivery(cloud: Cloud, clock: ManualClock) -> None:
    """A request whose reply is lost may be delivered twice as well."""
    server = cloud.server(cloud.ids[0])
    fault = Fault(lost=True, applied_after=2.0, again_after=12.0)
    cloud.script(server.id, fault)

    with pytest.raises(Exception, match="cut"):
        post(cloud, server.id)
    clock.advance(60)

    assert [cycle.time - clock() for cycle in cloud.cycle_log] == [-52, -40]


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [
        ({}, 409, "in task_state rebooting"),
        ({"face": Face.HUAWEI}, 501, "Ecs.0603"),
        ({"busy_answer": Fault.commands_executing().answer}, 501, "Ecs.0603"),
        ({"busy_answer": json_answer(400, {"error": {"code": "Ecs.0100", "message": "status"}})}, 400, "Ecs.0100"),
        ({"busy_answer": nova_answer(409, "The request conflicts.")}, 409, "The request conflicts."),
    ],
)
def test_words_of_the_refusal(clock: ManualClock, settings: dict[str, Any], status: int, words: str) -> None:
    """What a task under way forbids is refused in the words that the cloud is given; other conflicts are Nova's."""
    cloud = make(clock, **settings)
    cloud.script(cloud.ids[0], Fault.delivered_twice())

    answered = post(cloud, cloud.ids[0])

    assert answered.status_code == status
    assert words in answered.text
    clock.advance(60)
    cloud.change(cloud.ids[0], locked=True)
    assert post(cloud, cloud.ids[0]).status_code == (400 if "face" in settings else 409)


def test_a_share_is_delivered_twice(clock: ManualClock) -> None:
    """A share of the fleet may be delivered twice, so many seconds apart."""
    cloud = make(clock, faults=Faults(delivered_twice=1.0, delivered_twice_after=11.0))
    assert cloud.arrive(Call.REBOOT, cloud.ids[0])[1] == Fault.delivered_twice(11.0)


def test_a_reboot_that_the_host_reverts(cloud: Cloud, clock: ManualClock) -> None:
    """A host that fails before the driver leaves the server active, the guest as it was, and Error in the log."""
    server_id = cloud.ids[0]
    cloud.break_host(server_id, HostFault.REVERTED)
    request_id = post(cloud, server_id, SOFT).headers["x-openstack-request-id"]
    clock.advance(10)

    shown = ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    row = ask(cloud, "GET", f"/servers/{server_id}/os-instance-actions/{request_id}").json()["instanceAction"]

    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert (row["message"], row["events"][0]["result"]) == ("Error", "Error")
    assert row["events"][0]["finish_time"] == "2030-01-01T00:00:02.000000"
    assert cloud.cycles[server_id] == 0
    cloud.reboot(server_id, RebootType.SOFT)
    clock.advance(10)
    assert cloud.cycles[server_id] == 1
