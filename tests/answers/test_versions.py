"""Clouds old and new: which microversion is asked for, and what comes of a restart without one."""

from collections.abc import Sequence
from typing import Final, Unpack

import pytest

from bulkrestart import Outcome, Proof, Reason, Report
from bulkrestart.simulator import Call, Cloud, Fault
from tests.virtual import CloudSettings, cloud_of, virtually

from .wire import Arguments, Wire

HARD: Final[Arguments] = {"reboot_type": "HARD"}
COMPLETED: Final = (Outcome.COMPLETED, None)
LOST: Final = Fault.no_reply(applied=False)
LOST_AFTER: Final = Fault.no_reply(applied=True)

#: A cloud's newest microversion, and the endpoint's version; what GETs ask for one after the other, what all others ask
#: for, and how far a completed reboot can then be proved.
CLOUDS = [
    pytest.param("2.1", "v2.1", ["2.60"], "2.1", Proof.STATE, id="2.1: the oldest"),
    pytest.param("2.8", "v2.1", ["2.60"], "2.8", Proof.STATE, id="2.8: locks are not shown"),
    pytest.param("2.50", "v2.1", ["2.60"], "2.50", Proof.STATE, id="2.50: events are not shown"),
    pytest.param("2.51", "v2.1", ["2.60"], "2.51", Proof.ACTION, id="2.51: events are shown"),
    pytest.param("2.59", "v2.1", ["2.60"], "2.59", Proof.ACTION, id="2.59"),
    pytest.param("2.60", "v2.1", [], "2.60", Proof.ACTION, id="2.60: the providers' newest"),
    pytest.param("2.104", "v2.1", [], "2.60", Proof.ACTION, id="2.104: newer than we ask for"),
    *(
        pytest.param(newest, "v2", [], None, Proof.STATE, id=f"{newest} behind v2, which has none")
        for newest in ("2.1", "2.60", "2.104")
    ),
]


def asked(wire: Wire) -> list[str | None]:
    """Give the microversion that each GET asks for, in both headers alike; no POST asks for any."""
    versions = []
    for sent in wire.sent:
        new, old = (sent.request.headers.get(f"{name}-api-version") for name in ("openstack", "x-openstack-nova"))
        assert new == (old and f"compute {old}")
        if sent.is_send:
            assert old is None
        else:
            versions.append(old)
    return versions


async def restart(cloud: Cloud, version: str, **arguments: Unpack[Arguments]) -> tuple[Report, list[str | None]]:
    """Restart all servers of a cloud; give the report, and the microversions that were asked for."""
    wire = Wire(cloud)
    async with wire.client(version=version) as client:
        report = await client.restart(cloud.ids, **arguments)
    return report, asked(wire)


@pytest.mark.unmeasured
@pytest.mark.parametrize(("newest", "version", "first", "then", "proof"), CLOUDS)
@pytest.mark.parametrize(
    ("fault", "arguments", "posts"),
    [
        pytest.param(None, {}, 1, id="answered"),
        pytest.param(None, HARD, 1, id="answered, HARD"),
        pytest.param(LOST, {}, 2, id="lost, not carried out"),
        pytest.param(LOST_AFTER, {}, 1, id="lost, carried out"),
        pytest.param(LOST_AFTER, HARD, 1, id="lost, carried out, HARD"),
    ],
)
def test_every_cloud_is_restarted(
    newest: str,
    version: str,
    first: Sequence[str],
    then: str | None,
    proof: Proof,
    fault: Fault | None,
    arguments: Arguments,
    posts: int,
) -> None:
    """Of what a cloud has, at most 2.60 is asked for, on GETs only; servers come back on every cloud, once each."""

    async def main() -> None:
        settings: CloudSettings = {"max_microversion": newest, "reboot_seconds": (8.0, 8.0)}
        cloud = cloud_of(2, **settings)
        cloud.script(cloud.ids[0], fault)
        report, versions = await restart(cloud, version, **arguments)
        assert {(result.outcome, result.reason, result.proof) for result in report} == {(*COMPLETED, proof)}
        assert cloud.posts == {cloud.ids[0]: posts, cloud.ids[1]: 1}
        assert set(cloud.cycles.values()) == {1}
        assert versions == [*first, *[then] * (len(versions) - len(first))]
        refused = [record.status for record in cloud.requests].count(406)
        assert refused == len(first)

    virtually(main)


@pytest.mark.parametrize(
    ("newest", "version", "outcome", "posts"),
    [
        pytest.param("2.9", "v2.1", Outcome.SKIPPED, 0, id="2.9: seen before it is sent to"),
        pytest.param("2.104", "v2.1", Outcome.SKIPPED, 0, id="2.104: seen before it is sent to"),
        pytest.param("2.8", "v2.1", Outcome.REFUSED, 1, id="2.8: not shown, and the cloud says so"),
        pytest.param("2.104", "v2", Outcome.REFUSED, 1, id="v2: not shown, and the cloud says so"),
    ],
)
def test_a_lock_is_heeded(newest: str, version: str, outcome: Outcome, posts: int) -> None:
    """A HARD by a member never cycles a locked server, whether or not the cloud shows locks."""

    async def main() -> None:
        cloud = cloud_of(1, max_microversion=newest)
        [server_id] = cloud.ids
        cloud.change(server_id, locked=True)
        report, _ = await restart(cloud, version, **HARD)
        assert [(result.outcome, result.reason) for result in report] == [(outcome, Reason.LOCKED)]
        assert (cloud.posts[server_id], cloud.cycles[server_id]) == (posts, 0)

    virtually(main)


def not_supported(minimum: str, maximum: str) -> Fault:
    """Answer 406 as Nova does."""
    message = f"Version 2.60 is not supported by the API. Minimum is {minimum} and maximum is {maximum}."
    return Fault.error(406, message)


PAGE: Final = Fault.respond(406, b"<html><title>Not Acceptable</title></html>")


@pytest.mark.parametrize(
    ("faults", "versions", "proof"),
    [
        pytest.param([not_supported("2.1", "2.53")], ["2.60", "2.53"], Proof.ACTION, id="names a maximum"),
        pytest.param([not_supported("2.1", "2.1")], ["2.60", "2.1"], Proof.STATE, id="names the oldest"),
        pytest.param([Fault.respond(406)], ["2.60", None], Proof.STATE, id="says nothing"),
        pytest.param([PAGE], ["2.60", None], Proof.STATE, id="a page"),
        pytest.param([not_supported("2.61", "2.104")], ["2.60", None], Proof.STATE, id="has only newer ones"),
        pytest.param([not_supported("2.1", "2.60")], ["2.60", None], Proof.STATE, id="names what was asked for"),
        pytest.param(
            [not_supported("2.1", "2.53"), not_supported("2.1", "2.52")],
            ["2.60", "2.53", "2.52"],
            Proof.ACTION,
            id="two nodes, each older",
        ),
        pytest.param(
            [not_supported("2.1", "2.53"), PAGE], ["2.60", "2.53", None], Proof.STATE, id="names a maximum, then a page"
        ),
    ],
)
def test_a_406_lowers_what_is_asked_for(faults: Sequence[Fault], versions: list[str | None], proof: Proof) -> None:
    """A 406 before the run lowers the microversion to what it names, or else to none, for all that follows."""

    async def main() -> None:
        cloud = cloud_of(2)
        cloud.script(cloud.ids[0], *faults, call=Call.SHOW)
        report, made = await restart(cloud, "v2.1")
        assert {(result.outcome, result.reason, result.proof) for result in report} == {(*COMPLETED, proof)}
        assert made == [*versions, *versions[-1:] * (len(made) - len(versions))]
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


@pytest.mark.parametrize(
    ("version", "fault", "versions"),
    [
        pytest.param("v2.1", Fault.respond(406), ["2.60", None], id="says nothing"),
        pytest.param("v2.1", PAGE, ["2.60", None], id="a page"),
        pytest.param("v2.1", not_supported("2.1", "2.53"), ["2.60", "2.53", None], id="names a maximum"),
        pytest.param("v2.1", not_supported("2.70", "2.104"), ["2.60", None], id="has only newer ones"),
        pytest.param("v2", Fault.respond(406), [None], id="v2, where there is nothing to lower"),
        pytest.param("v2", not_supported("2.1", "2.53"), [None], id="v2, and it names a maximum"),
    ],
)
def test_a_cloud_that_answers_406_to_everything(version: str, fault: Fault, versions: list[str | None]) -> None:
    """It is asked with fewer headers until there are none to drop; each send is then refused in its words, once."""

    async def main() -> None:
        cloud = cloud_of(3)
        cloud.outage = fault
        report, made = await restart(cloud, version)
        assert {(result.outcome, result.reason) for result in report} == {(Outcome.REFUSED, Reason.REJECTED)}
        assert report.stopped is None
        assert all(result.detail for result in report)
        assert made == versions
        assert cloud.posts == dict.fromkeys(cloud.ids, 1)
        assert not any(cloud.cycles.values())

    virtually(main)


def test_a_cloud_that_answers_406_to_every_look() -> None:
    """No states can be read, so the run does not wait for accepted servers; nothing is sent twice."""

    async def main() -> None:
        cloud = cloud_of(2)
        for server_id in (None, *cloud.ids):
            for call in (Call.SHOW, Call.LIST, Call.LOG, Call.LOG_ROW):
                cloud.script(server_id, *[Fault.respond(406)] * 999, call=call)
        report, versions = await restart(cloud, "v2.1")
        assert {(result.outcome, result.reason) for result in report} == {(Outcome.ACCEPTED, None)}
        assert report.stopped is None
        assert report.elapsed < 30.0
        assert versions[:2] == ["2.60", None]
        assert cloud.posts == dict.fromkeys(cloud.ids, 1)

    virtually(main)


def test_a_node_that_is_older_than_the_others() -> None:
    """A 406 to a single poll of a run that has begun is one poll lost."""

    async def main() -> None:
        cloud = cloud_of(2)
        cloud.script(None, not_supported("2.1", "2.53"), call=Call.LIST)
        report, versions = await restart(cloud, "v2.1")
        assert {(result.outcome, result.proof) for result in report} == {(Outcome.COMPLETED, Proof.ACTION)}
        assert set(versions) == {"2.60"}

    virtually(main)
