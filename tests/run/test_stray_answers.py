"""No single odd answer, and no single odd server, stops a run: over HTTP, on virtual time."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from bulkrestart import Outcome, Reason, Report, RestartClient, Rollout, StopReason, Token
from bulkrestart.simulator import Call, Cloud, Fault, asgi
from tests.virtual import EPOCH, REGARDLESS, assert_accounted, client_of, cloud_of, virtually

COMPLETED = {Outcome.COMPLETED: 40}
WRONG_PROJECT = "Malformed request URL: URL's project_id 'a' doesn't match Context's project_id 'b'"

#: Answers of a proxy or gateway instead of the compute API; nothing was started.
STRAY = {
    "404 of an ingress": Fault.respond(404, b"default backend - 404"),
    "404 without a body": Fault.respond(404),
    "302 to a login page": Fault.respond(302, headers={"location": "/login"}),
    "307": Fault.respond(307, headers={"location": "http://elsewhere.test/"}),
    "407 of a proxy": Fault.respond(407),
    "a login page": Fault.respond(200, b"<html><title>Please sign in</title></html>"),
    "another project": Fault.error(400, WRONG_PROJECT),
    "401": Fault.respond(401, b"{}"),
}


async def restart(cloud: Cloud, *, max_at_once: int = 5, reboot_type: str = "SOFT") -> Report:
    """Restart all servers of a cloud."""
    async with client_of(cloud, max_at_once=max_at_once) as client:
        return await client.restart(cloud.ids, reboot_type=reboot_type, rollout=REGARDLESS)


@pytest.mark.unmeasured
@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize("hit", [[19], [0], [39], [3, 20, 37]], ids=["one", "the first", "the last", "three apart"])
def test_stray_answers_to_sends(stray: Fault, hit: list[int]) -> None:
    """After an odd answer, the run sends again once it is known that nothing was started; the others go on."""

    async def main() -> None:
        cloud = cloud_of(40)
        for number in hit:
            cloud.script(cloud.ids[number], stray)
        report = await restart(cloud)
        assert (report.summary, report.stopped) == (COMPLETED, None)
        assert_accounted(report, cloud)

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("log_lag", [0.0, 3.0, 25.0])
@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
@pytest.mark.parametrize("applied", [302, 407, 404, 200])
def test_stray_answers_to_sends_that_were_carried_out(applied: int, reboot_type: str, log_lag: float) -> None:
    """A send that was carried out despite its odd answer is found in the action log, and not repeated."""

    async def main() -> None:
        cloud = Cloud(10, clock=lambda: EPOCH + trio.current_time(), reboot_seconds=(1.0, 2.0), log_lag=log_lag)
        for server_id in cloud.ids[5:7]:
            cloud.script(server_id, Fault.respond(applied, b"<html>", applied=True))
        report = await restart(cloud, reboot_type=reboot_type)
        assert (report.summary, report.stopped) == ({Outcome.COMPLETED: 10}, None)
        assert set(cloud.cycles.values()) == {1}
        assert_accounted(report, cloud)

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
def test_what_all_servers_meet_stops_the_run(stray: Fault) -> None:
    """If only such answers come for several servers, the run soon stops and names the cause."""

    async def main() -> None:
        cloud = cloud_of(60, reboot_seconds=(5.0, 5.0))
        for server_id in cloud.ids[20:]:
            cloud.script(server_id, *[stray] * 99)
        report = await restart(cloud)
        assert report.stopped is not None
        expected = StopReason.UNAUTHORIZED if stray.answer and stray.answer.status == 401 else StopReason.WRONG_ENDPOINT
        assert report.stopped.reason is expected
        assert report.summary[Outcome.COMPLETED] == 20
        # Looks succeed, so the sends to 10 servers were rejected, and those of one more round, unless nothing can have
        # been started.
        assert expected is StopReason.UNAUTHORIZED or report.summary[Outcome.SKIPPED] >= 40 - 10 - 5
        assert report.elapsed < 120.0
        assert_accounted(report, cloud)

    virtually(main)


#: Answers to sends alone, and how a server ends whose sends are all answered so.
ALONE = {
    "404 of an ingress": (STRAY["404 of an ingress"], Reason.ATTEMPTS_EXHAUSTED),
    "302 to a login page": (STRAY["302 to a login page"], Reason.ATTEMPTS_EXHAUSTED),
    "407 of a proxy": (STRAY["407 of a proxy"], Reason.ATTEMPTS_EXHAUSTED),
    "403 of a login page": (Fault.respond(403, b"<html><title>Login</title></html>"), Reason.FORBIDDEN),
    "401": (STRAY["401"], Reason.UNAUTHORIZED),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize(("stray", "reason"), ALONE.values(), ids=ALONE)
@pytest.mark.parametrize("max_down", [1, 3])
@pytest.mark.parametrize(
    ("servers", "rejected"), [(1, range(1)), (5, range(2, 5)), (50, range(20, 23)), (50, range(20, 29))]
)
def test_sends_to_a_few_servers_that_are_rejected_alone(
    servers: int, rejected: range, max_down: int, stray: Fault, reason: Reason
) -> None:
    """Looks at them succeed: they end by themselves, and the run goes on with the others."""

    async def main() -> None:
        cloud = cloud_of(servers, reboot_seconds=(1.0, 1.0))
        for number in rejected:
            cloud.script(cloud.ids[number], *[stray] * 99)
        rollout = Rollout(max_failures="100%", max_refused="100%", max_down=max_down)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=rollout)
        assert report.stopped is None
        ends = [(result.outcome, result.reason) for result in report]
        assert ends == [
            (Outcome.REFUSED, reason) if number in rejected else (Outcome.COMPLETED, None) for number in range(servers)
        ]
        assert_accounted(report, cloud)

    virtually(main)


@pytest.mark.parametrize("max_down", [1, 3])
@pytest.mark.parametrize(
    ("servers", "good", "most"), [(5, 0, 3), (50, 0, 3), (50, 20, 12)], ids=["5, all", "50, all", "50, the later"]
)
@pytest.mark.parametrize("name", ["404 of an ingress", "302 to a login page", "407 of a proxy", "401"])
def test_sends_that_are_all_rejected_stop_the_run(name: str, servers: int, good: int, most: int, max_down: int) -> None:
    """If no send ever got through, three servers are enough; if sends did, a few more are needed."""

    async def main() -> None:
        cloud = cloud_of(servers, reboot_seconds=(1.0, 1.0))
        for server_id in cloud.ids[good:]:
            cloud.script(server_id, *[STRAY[name]] * 99)
        rollout = Rollout(max_failures="100%", max_refused="100%", max_down=max_down)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=rollout)
        assert report.stopped is not None
        assert report.stopped.reason is (StopReason.UNAUTHORIZED if name == "401" else StopReason.WRONG_ENDPOINT)
        assert report.summary.get(Outcome.COMPLETED, 0) == good
        assert report.summary[Outcome.SKIPPED] >= servers - good - most
        assert_accounted(report, cloud)

    virtually(main)


#: What one broken server answers to the first look.
BROKEN = {
    "500 of Nova": Fault.error(500, "Unexpected API Error. <class 'AttributeError'>"),
    "503 of Nova": Fault.error(503),
    "500, a page": Fault.respond(500, b"<html>"),
    "cut": Fault.no_reply(applied=False),
    "404 of a gateway": Fault.respond(404, b"<html>"),
    "302": Fault.respond(302),
    "a login page": Fault.respond(200, b"<html>"),
    "another project": Fault.error(400, WRONG_PROJECT),
    "JSON of another kind": Fault.respond(200, b"{}"),
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN)
def test_one_broken_server_does_not_keep_a_run_from_beginning(fault: Fault) -> None:
    """The next request before a run is for another server of the list."""

    async def main() -> None:
        cloud = cloud_of(5)
        cloud.script(cloud.ids[0], *[fault] * 999, call=Call.SHOW)
        report = await restart(cloud)
        assert report.summary == {Outcome.COMPLETED: 5}

    virtually(main)


@pytest.mark.parametrize("fault", [*BROKEN.values(), Fault.respond(407)], ids=[*BROKEN, "407"])
def test_a_single_server_that_is_odd_once(fault: Fault) -> None:
    """If there is no other server, the request for the same one is repeated."""

    async def main() -> None:
        cloud = cloud_of(1)
        cloud.script(cloud.ids[0], fault, call=Call.SHOW)
        report = await restart(cloud)
        assert report.summary == {Outcome.COMPLETED: 1}

    virtually(main)


class Refusing(httpx.AsyncBaseTransport):
    """A transport to a cloud one of whose nodes refuses good tokens: requests that `refuses` picks by their number."""

    def __init__(self, cloud: Cloud, refuses: Callable[[int], bool]) -> None:
        self._cloud = httpx.ASGITransport(asgi(cloud))
        self._refuses = refuses
        self.made = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Refuse a request, or pass it on."""
        self.made += 1
        if self._refuses(self.made):
            return httpx.Response(401, json={"error": {"code": 401, "title": "Unauthorized", "message": "no"}})
        return await self._cloud.handle_async_request(request)


@asynccontextmanager
async def over(
    transport: httpx.AsyncBaseTransport, cloud: Cloud, auth: Token | None = None, max_at_once: int = 20
) -> AsyncIterator[RestartClient]:
    """Give a client over a transport."""
    async with httpx.AsyncClient(transport=transport) as http:
        endpoint = f"http://cloud.test/v2.1/{cloud.project_id}"
        yield RestartClient(endpoint, auth=auth or Token(cloud.token), http=http, max_at_once=max_at_once)


@pytest.mark.unmeasured
@pytest.mark.parametrize("max_at_once", [1, 5, 50])
@pytest.mark.parametrize("third", [0, 1, 2])
@pytest.mark.parametrize("is_renewed", [True, False], ids=["function", "text"])
def test_one_node_of_three_that_refuses_a_good_token(third: int, max_at_once: int, is_renewed: bool) -> None:
    """A token that other nodes accept is kept: sign-ins are few, and no server is lost."""

    async def main() -> None:
        cloud = cloud_of(60)
        signed_in = 0

        async def sign_in() -> str:
            nonlocal signed_in
            signed_in += 1
            return cloud.token

        transport = Refusing(cloud, lambda number: number % 3 == third)
        auth = Token(sign_in) if is_renewed else Token(cloud.token)
        async with over(transport, cloud, auth, max_at_once) as client:
            report = await client.restart(cloud.ids)
        assert (report.summary, report.stopped) == ({Outcome.COMPLETED: 60}, None)
        assert signed_in <= 5
        assert report.elapsed < 180.0

    virtually(main)


def test_a_token_that_ends_is_renewed_once() -> None:
    """If every request is refused until there is a new token, one sign-in is enough for all."""

    async def main() -> None:
        cloud = cloud_of(60)
        signed_in = 0
        refused_until = 2

        async def sign_in() -> str:
            nonlocal signed_in
            signed_in += 1
            return cloud.token

        transport = Refusing(cloud, lambda number: number > 30 and signed_in < refused_until)
        async with over(transport, cloud, Token(sign_in), max_at_once=10) as client:
            report = await client.restart(cloud.ids)
        assert (report.summary, signed_in) == ({Outcome.COMPLETED: 60}, 2)

    virtually(main)


def test_a_token_as_text_that_ends_stops_the_run() -> None:
    """There is no other token: the run stops within seconds, and says what to do."""

    async def main() -> None:
        cloud = cloud_of(60)
        async with over(Refusing(cloud, lambda number: number > 30), cloud, max_at_once=10) as client:
            report = await client.restart(cloud.ids)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.UNAUTHORIZED
        assert "get a new token" in report.stopped.detail
        assert report.elapsed < 60.0

    virtually(main)


@pytest.mark.parametrize("number", [0, 2, 4], ids=["the first", "one", "the last"])
@pytest.mark.parametrize("with_lists", [True, False], ids=["lists too", "alone"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault.error(500, "Unexpected API Error."),
        Fault.respond(500, b"<html>"),
        Fault.respond(504, b"<html>"),
        Fault.no_reply(applied=False),
    ],
    ids=["500 of Nova", "500, a page", "504", "cut"],
)
def test_a_server_that_is_never_shown(fault: Fault, with_lists: bool, number: int) -> None:
    """It ends at its own `wait_timeout`, and neither delays the others nor stops the run."""

    async def main() -> None:
        cloud = cloud_of(5, reboot_seconds=(1.0, 1.0))
        broken = cloud.ids[number]
        cloud.script(broken, *[fault] * 9999, call=Call.SHOW)
        if with_lists:
            cloud.script(None, *[Fault.error(500, "Unexpected API Error.")] * 9999, call=Call.LIST)
        else:
            cloud.script(None, *[Fault.respond(403)] * 9999, call=Call.LIST)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=60.0, rollout=REGARDLESS)
        assert report.stopped is None
        assert (report[broken].outcome, report[broken].reason) == (Outcome.IN_DOUBT, Reason.UNANSWERED)
        assert report.summary == {Outcome.COMPLETED: 4, Outcome.IN_DOUBT: 1}
        assert 60.0 <= report.elapsed < 120.0

    virtually(main)


def test_a_run_of_one_server_that_is_never_shown() -> None:
    """If there is no other server to ask for, Nova's own error is an answer about this one."""

    async def main() -> None:
        cloud = cloud_of(1)
        cloud.script(cloud.ids[0], *[Fault.error(500, "Unexpected API Error.")] * 9999, call=Call.SHOW)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, wait_timeout=60.0)
        assert report.stopped is None
        assert report.summary == {Outcome.IN_DOUBT: 1}
        assert 60.0 <= report.elapsed < 120.0

    virtually(main)
