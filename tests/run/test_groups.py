"""Anti-affinity groups: read by page, and never two servers of one down at once."""

import pytest

from bulkrestart import AuthError, EndpointError, Outcome, Rollout, Server
from bulkrestart.simulator import Call, Fault, json_answer
from tests.rollouts import peak_down
from tests.virtual import client_of, cloud_of, virtually


@pytest.mark.parametrize("max_microversion", ["2.1", "2.60", "2.96"])
@pytest.mark.parametrize("max_limit", [1000, 2])
def test_no_two_of_a_group(max_microversion: str, max_limit: int) -> None:
    """Whatever the microversion and the size of a page, no group has two servers down."""

    async def main() -> None:
        cloud = cloud_of(20, max_microversion=max_microversion, max_limit=max_limit, reboot_seconds=(5.0, 20.0))
        for number, server_id in enumerate(cloud.ids[:15]):
            cloud.change(server_id, group=f"group-{number % 5}")
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(spread=await client.anti_affinity()))
        assert report.summary == {Outcome.COMPLETED: 20}
        assert peak_down(cloud, by=lambda one: cloud.server(one).group or one) == 1
        assert peak_down(cloud) == 10

    virtually(main)


@pytest.mark.parametrize(
    ("policy", "domain"),
    [
        ({"policies": ["anti-affinity"]}, "g"),
        ({"policies": ["soft-anti-affinity"]}, "g"),
        ({"policy": "anti-affinity"}, "g"),
        ({"policies": ["affinity"]}, None),
        ({"policy": "soft-affinity"}, None),
        ({"policies": []}, None),
        ({"policies": "anti-affinity"}, None),
        ({}, None),
    ],
)
def test_which_groups_count(policy: dict[str, object], domain: str | None) -> None:
    """Anti-affinity counts, strict or soft, in the form of every microversion; what is no policy does not."""

    async def main() -> None:
        cloud = cloud_of(1)
        (server_id,) = cloud.ids
        group = {"id": "g", "members": [server_id, 5, "not an id"], **policy}
        pages = [json_answer(200, {"server_groups": [group, "odd"]}), json_answer(200, {"server_groups": []})]
        cloud.script(None, *(Fault(answer=page) for page in pages), call=Call.GROUPS)
        async with client_of(cloud) as client:
            domain_of = await client.anti_affinity()
        assert domain_of(Server(id=server_id)) == domain
        assert domain_of(Server(id="other")) is None

    virtually(main)


def test_pages_that_repeat() -> None:
    """A gateway that gives the same page for ever does not hold the reader for ever."""

    async def main() -> None:
        cloud = cloud_of(1)
        page = json_answer(200, {"server_groups": [{"id": "g", "policies": ["anti-affinity"], "members": cloud.ids}]})
        cloud.script(None, *[Fault(answer=page)] * 50, call=Call.GROUPS)
        async with client_of(cloud) as client:
            domain_of = await client.anti_affinity()
        assert domain_of(Server(id=cloud.ids[0])) == "g"
        assert len(cloud.requests) == 2

    virtually(main)


def test_groups_that_cannot_be_read_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A warning counts groups without an id or members; the other groups are used."""

    async def main() -> None:
        cloud = cloud_of(1)
        group = {"id": "g", "policies": ["anti-affinity"], "members": cloud.ids}
        odd: list[object] = [None, {"id": "x"}, {"members": []}, {"id": "y", "members": "z"}]
        pages = [json_answer(200, {"server_groups": rows}) for rows in ([*odd, group], [])]
        cloud.script(None, *(Fault(answer=page) for page in pages), call=Call.GROUPS)
        async with client_of(cloud) as client:
            domain_of = await client.anti_affinity()
        assert domain_of(Server(id=cloud.ids[0])) == "g"
        cloud.script(None, Fault(answer=json_answer(200, {"server_groups": odd})), call=Call.GROUPS)
        async with client_of(cloud) as client:
            with pytest.raises(EndpointError, match="none of 4 server groups can be read"):
                await client.anti_affinity()

    virtually(main)
    assert [record.message for record in caplog.records] == [
        "4 server groups cannot be read: their servers are not kept apart"
    ]


@pytest.mark.parametrize(
    "failure",
    [Fault.error(500), Fault.respond(504), Fault.respond(413), Fault.error(400, "limit is at most 100")],
    ids=["500", "504", "413", "400"],
)
def test_a_page_of_groups_that_is_too_large(failure: Fault) -> None:
    """A page of groups that is too large is requested again with fewer groups."""

    async def main() -> None:
        cloud = cloud_of(1)
        group = {"id": "g", "policies": ["anti-affinity"], "members": cloud.ids}
        pages = [json_answer(200, {"server_groups": rows}) for rows in ([group], [])]
        cloud.script(None, failure, failure, *(Fault(answer=page) for page in pages), call=Call.GROUPS)
        async with client_of(cloud) as client:
            domain_of = await client.anti_affinity()
        assert domain_of(Server(id=cloud.ids[0])) == "g"
        assert len(cloud.requests) == 4

    virtually(main)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.respond(403), EndpointError),
        (Fault(answer=json_answer(200, {"server_groups": None})), EndpointError),
        (Fault.respond(404), EndpointError),
        (Fault.respond(401), AuthError),
    ],
)
def test_groups_that_cannot_be_listed(fault: Fault, error: type[Exception]) -> None:
    """It is one error that names the remedy, before anything is sent."""

    async def main() -> None:
        cloud = cloud_of(1)
        cloud.script(None, *[fault] * 9, call=Call.GROUPS)
        async with client_of(cloud) as client:
            with pytest.raises(error):
                await client.anti_affinity()
        assert not cloud.posts

    virtually(main)
