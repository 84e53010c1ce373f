"""What bulkrestart promises, held against a real Nova: each claim is checked in Nova's own action and request logs."""

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import anyio
import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from bulkrestart import (
    AuthError,
    EndpointError,
    Outcome,
    Proof,
    Reason,
    RebootType,
    Report,
    RestartClient,
    ServerResult,
    Token,
)

from .bed import Nova, Reboot


def assert_each_came_back(report: Report, ids: Sequence[str], *, proof: Proof = Proof.ACTION) -> None:
    """Check that the report has every server in the order given, completed."""
    assert [(result.server_id, result.outcome, result.reason, result.proof) for result in report.results] == [
        (server_id, Outcome.COMPLETED, None, proof) for server_id in ids
    ]


def assert_rebooted_once(nova: Nova, result: ServerResult, *, endpoint: str | None = None) -> None:
    """Check that Nova saw one request for the server, and that its one reboot is the one that the result names."""
    assert nova.posts(result.server_id, endpoint) == 1
    assert nova.reboots(result.server_id) == [Reboot(str(result.request_id), is_error=False, results=("Success",))]


def assert_both_came_back(nova: Nova, ids: Sequence[str], reports: Sequence[Report]) -> None:
    """Check that two runs name the reboots that happened, all of them, and every request that Nova saw."""
    for report in reports:
        assert_each_came_back(report, ids)
    for server_id in ids:
        ours = [report[server_id].request_id for report in reports]
        assert {reboot.request_id for reboot in nova.reboots(server_id)} == set(ours)
        assert nova.posts(server_id) == sum(len(report[server_id].attempts) for report in reports)


def outcome(result: ServerResult) -> tuple[Outcome, Reason | None]:
    """Give what became of a server, and why."""
    return result.outcome, result.reason


async def restart_soft(nova: Nova, ids: Sequence[str], reports: list[Report], token: str) -> None:
    """Restart servers with a client of its own, and add the report to the others."""
    async with RestartClient(nova.endpoint, auth=Token(token)) as client:
        reports.append(await client.restart(ids))


async def restart_one(nova: Nova, server_id: str, reboot_type: RebootType, *, wait_timeout: float = 60) -> ServerResult:
    """Restart one server with a client of its own."""
    async with RestartClient(nova.endpoint, auth=Token(nova.token)) as client:
        report = await client.restart([server_id], reboot_type=reboot_type, wait_timeout=wait_timeout)
    return report[server_id]


class TestAFleet:
    """Servers that nothing ails."""

    @pytest.mark.asyncio
    @pytest.mark.parametrize("seconds", [0, 1])
    @pytest.mark.parametrize("reboot_type", RebootType)
    async def test_comes_back(self, nova: Nova, reboot_type: RebootType, seconds: float) -> None:
        """Every server is rebooted once by one request, whether its reboot is over before the first look or not."""
        ids = nova.take(3)
        with nova.knobs(reboot_seconds=seconds):
            async with RestartClient(nova.endpoint, auth=Token(nova.token)) as client:
                report = await client.restart(ids, reboot_type=reboot_type)
        assert_each_came_back(report, ids)
        for result in report.results:
            assert_rebooted_once(nova, result)

    def test_comes_back_on_trio(self, nova: Nova) -> None:
        """The same holds on trio."""
        ids = nova.take(3)

        async def restart() -> Report:
            async with RestartClient(nova.endpoint, auth=Token(nova.token)) as client:
                return await client.restart(ids)

        report = anyio.run(restart, backend="trio")
        assert_each_came_back(report, ids)
        for result in report.results:
            assert_rebooted_once(nova, result)

    @pytest.mark.asyncio
    async def test_is_streamed(self, nova: Nova) -> None:
        """Each result comes once, and the report holds the same ones."""
        ids = nova.take(3)
        async with (
            RestartClient(nova.endpoint, auth=Token(nova.token)) as client,
            client.restarting(ids) as run,
        ):
            streamed = {result.server_id: result async for result in run}
            assert [streamed[server_id] for server_id in ids] == list(run.report.results)
        assert_each_came_back(run.report, ids)

    @pytest.mark.asyncio
    async def test_is_not_waited_for(self, nova: Nova) -> None:
        """Without waiting, a server is accepted, and its attempt carries the request id of the reboot."""
        [server_id] = nova.take(1)
        async with RestartClient(nova.endpoint, auth=Token(nova.token)) as client:
            report = await client.restart([server_id], wait=False)
        assert outcome(report[server_id]) == (Outcome.ACCEPTED, None)
        nova.wait_for_task(server_id, None)
        assert [reboot.request_id for reboot in nova.reboots(server_id)] == [
            attempt.request_id for attempt in report[server_id].attempts
        ]


class TestRefusals:
    """Servers that are not to be rebooted, and stay untouched."""

    @pytest.mark.asyncio
    async def test_are_told_in_the_words_of_nova(self, nova: Nova) -> None:
        """A refused server gets its reason and Nova's own words, and is sent nothing more; its neighbour comes back."""
        locked, stopped, well = nova.take(3)
        nova.act(locked, "lock")
        nova.act(stopped, "os-stop", status="SHUTOFF")
        unknown = str(uuid.uuid4())
        expected = {
            locked: (Reason.LOCKED, f"Instance {locked} is locked"),
            stopped: (Reason.WRONG_STATE, f"Cannot 'reboot' instance {stopped} while it is in vm_state stopped"),
            unknown: (Reason.NOT_FOUND, f"Instance {unknown} could not be found"),
            "malformed": (Reason.NOT_FOUND, "Instance malformed could not be found"),
            nova.other_ids[0]: (Reason.NOT_FOUND, f"Instance {nova.other_ids[0]} could not be found"),
        }
        async with RestartClient(nova.endpoint, auth=Token(nova.token)) as client:
            report = await client.restart([*expected, well])
        assert report.summary == {Outcome.COMPLETED: 1, Outcome.REFUSED: len(expected)}
        assert {result.server_id: result.reason for result in report.problems} == {
            server_id: reason for server_id, (reason, _) in expected.items()
        }
        for server_id, (_, words) in expected.items():
            assert words in report[server_id].detail
            assert nova.posts(server_id) == len(report[server_id].attempts) == 1
        for server_id in (locked, stopped, nova.other_ids[0]):
            assert nova.reboots(server_id) == []
        assert_rebooted_once(nova, report[well])

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("action", "status", "vm_state"),
        [("os-stop", "SHUTOFF", "stopped"), ("pause", "PAUSED", "paused"), ("suspend", "SUSPENDED", "suspended")],
    )
    async def test_of_soft_are_mended_by_hard(self, nova: Nova, action: str, status: str, vm_state: str) -> None:
        """SOFT is refused in a state that HARD, with leave to start stopped servers, brings back to active."""
        [server_id] = nova.take(1)
        nova.act(server_id, action, status=status)
        async with RestartClient(nova.endpoint, auth=Token(nova.token)) as client:
            soft = await client.restart([server_id])
            hard = await client.restart([server_id], reboot_type="HARD", start_stopped=True)
        assert outcome(soft[server_id]) == (Outcome.REFUSED, Reason.WRONG_STATE)
        assert f"vm_state {vm_state}" in soft[server_id].detail
        assert_each_came_back(hard, [server_id])
        assert [reboot.request_id for reboot in nova.reboots(server_id)] == [hard[server_id].request_id]
        assert nova.show(server_id)["status"] == "ACTIVE"

    @pytest.mark.asyncio
    async def test_of_a_reader_are_forbidden(self, nova: Nova) -> None:
        """A user who may look but not act is refused in the words of Nova's policy."""
        [server_id] = nova.take(1)
        async with RestartClient(nova.endpoint, auth=Token(nova.reader_token)) as client:
            report = await client.restart([server_id])
        assert outcome(report[server_id]) == (Outcome.REFUSED, Reason.FORBIDDEN)
        assert "Policy doesn't allow" in report[server_id].detail
        assert nova.reboots(server_id) == []


class TestMistakes:
    """What belongs to no single server is an error before anything is sent."""

    @pytest.mark.asyncio
    async def test_a_bad_token_is_an_auth_error(self, nova: Nova) -> None:
        """A token that Keystone does not know is an AuthError, which does not show it, and no request is sent."""
        [server_id] = nova.take(1)
        async with RestartClient(nova.endpoint, auth=Token("made-up-token")) as client:
            with pytest.raises(AuthError) as caught:
                await client.restart([server_id])
        assert "made-up-token" not in str(caught.value)
        assert nova.posts(server_id) == 0

    @pytest.mark.asyncio
    @pytest.mark.parametrize("path", ["/v2.1/{other}", "/nothing/v2.1/{own}"])
    async def test_a_wrong_endpoint_is_an_endpoint_error(self, nova: Nova, path: str) -> None:
        """Another project's endpoint, or a path where no compute API is, is an EndpointError; no request is sent."""
        [server_id] = nova.take(1)
        endpoint = nova.url + path.format(other=nova.other_project_id, own=nova.project_id)
        async with RestartClient(endpoint, auth=Token(nova.token)) as client:
            with pytest.raises(EndpointError):
                await client.restart([server_id])
        assert nova.posts(server_id, endpoint) == 0


class TestOtherReboots:
    """Reboots that somebody else started, and reboots that come to nothing."""

    @pytest.mark.asyncio
    async def test_a_second_run_waits_for_the_first(self, nova: Nova) -> None:
        """A SOFT run over servers that another user's run is rebooting meets Nova's 409, waits, and gets through."""
        ids = nova.take(3)
        reports: list[Report] = []

        with nova.knobs(reboot_seconds=6):
            async with anyio.create_task_group() as both:
                both.start_soon(restart_soft, nova, ids, reports, nova.operator_token)
                for server_id in ids:
                    await anyio.to_thread.run_sync(nova.wait_for_task, server_id, "reboot_started")
                # The log tells whole seconds: a reboot that began in the one of our send could be since it.
                await anyio.sleep(2.5)
                both.start_soon(restart_soft, nova, ids, reports, nova.token)
        assert_both_came_back(nova, ids, reports)
        answers = [attempt.answer for report in reports for result in report for attempt in result.attempts]
        # The first server is looked at before anything is sent, and is waited for without a 409.
        assert any(answer.startswith("409") for answer in answers)
        for server_id in ids:
            assert len(nova.reboots(server_id)) == 2

    @pytest.mark.asyncio
    async def test_two_runs_at_once_end_well(self, nova: Nova) -> None:
        """Two SOFT runs that begin together race inside Nova, where the loser gets a 409 or a 500: both end well.

        They are one user's and begin within a second, so one may take the other's reboot for its own, but none is lost.
        """
        ids = nova.take(3)
        reports: list[Report] = []

        with nova.knobs(reboot_seconds=1):
            async with anyio.create_task_group() as both:
                both.start_soon(restart_soft, nova, ids, reports, nova.token)
                both.start_soon(restart_soft, nova, ids, reports, nova.token)
        assert_both_came_back(nova, ids, reports)

    @pytest.mark.asyncio
    async def test_hard_waits_for_a_running_soft(self, nova: Nova) -> None:
        """A HARD is not fired into a SOFT in flight, which Nova would accept and drop: it waits, and reboots."""
        [server_id] = nova.take(1)
        with nova.knobs(reboot_seconds=3):
            nova.reboot(server_id, "SOFT")
            nova.wait_for_task(server_id, "reboot_started")
            result = await restart_one(nova, server_id, RebootType.HARD)
        assert outcome(result) == (Outcome.COMPLETED, None)
        theirs, ours = nova.reboots(server_id)
        assert not theirs.is_error
        assert not ours.is_error
        assert result.request_id == ours.request_id
        assert nova.posts(server_id) == 1

    @pytest.mark.asyncio
    async def test_a_hard_that_nova_dropped_is_not_completed(self, nova: Nova) -> None:
        """A SOFT that begins just before our HARD arrives swallows it: the server is back, but not by our reboot."""
        [server_id] = nova.take(1)

        async def meddle(request: httpx.Request) -> None:
            if request.method == "POST":
                await anyio.to_thread.run_sync(nova.reboot, server_id, "SOFT")
                await anyio.to_thread.run_sync(nova.wait_for_task, server_id, "reboot_started")

        with nova.knobs(reboot_seconds=3):
            async with (
                httpx.AsyncClient(event_hooks={"request": [meddle]}) as http,
                RestartClient(nova.endpoint, auth=Token(nova.token), http=http) as client,
            ):
                report = await client.restart([server_id], reboot_type="HARD")
        theirs, ours = nova.reboots(server_id)
        assert not theirs.is_error
        assert ours.is_error
        assert nova.show(server_id)["status"] == "ACTIVE"
        assert outcome(report[server_id]) == (Outcome.FAILED, Reason.NOT_REBOOTED)
        assert report[server_id].request_id == ours.request_id
        assert nova.posts(server_id) == 1

    @pytest.mark.asyncio
    @pytest.mark.parametrize("reboot_type", RebootType)
    async def test_a_guest_that_dies_is_an_error(self, nova: Nova, reboot_type: RebootType) -> None:
        """A server that ends in error has failed, in the words of its fault; a HARD restart brings it back."""
        [server_id] = nova.take(1)
        with nova.knobs(reboot_fail="dead"):
            failed = await restart_one(nova, server_id, reboot_type)
        server = nova.show(server_id)
        assert server["status"] == "ERROR"
        assert outcome(failed) == (Outcome.FAILED, Reason.ERROR)
        assert server["fault"]["message"] in failed.detail
        assert nova.posts(server_id) == 1
        mended = await restart_one(nova, server_id, RebootType.HARD)
        assert outcome(mended) == (Outcome.COMPLETED, None)

    @pytest.mark.asyncio
    async def test_a_dead_host_is_not_waited_for_forever(self, nova: Nova) -> None:
        """A server whose host took the reboot and fell silent is not back when wait_timeout ends."""
        [server_id] = nova.take(1)
        with nova.knobs(reboot_hang=True):
            result = await restart_one(nova, server_id, RebootType.SOFT, wait_timeout=3)
        assert outcome(result) == (Outcome.FAILED, Reason.NOT_BACK)
        assert nova.show(server_id)["OS-EXT-STS:task_state"] == "reboot_started"
        assert nova.posts(server_id) == 1


class LosingTransport(httpx.AsyncBaseTransport):
    """A network that loses the first POST: its answer, or the request before it arrives."""

    def __init__(self, *, delivers: bool) -> None:
        self.delivers = delivers
        self.has_lost = False
        self.network = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, or lose."""
        is_lost = request.method == "POST" and not self.has_lost
        if is_lost:
            self.has_lost = True
            if self.delivers:
                response = await self.network.handle_async_request(request)
                await response.aclose()
            raise httpx.ReadTimeout("lost", request=request)
        return await self.network.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the network below."""
        await self.network.aclose()


@pytest.fixture(scope="module", autouse=True)
def sent_to_nobody(nova: Nova) -> Iterator[Future[Report]]:
    """Restart a server whose first request is lost, beside the other tests: its log has to stay silent for minutes."""
    server_id = nova.take_spared()

    async def restart() -> Report:
        async with (
            httpx.AsyncClient(transport=LosingTransport(delivers=False)) as http,
            RestartClient(nova.endpoint, auth=Token(nova.token), http=http) as client,
        ):
            return await client.restart([server_id])

    with start_blocking_portal() as portal:
        report = portal.start_task_soon(restart)
        yield report
        report.cancel()


class TestALostAnswer:
    """A reply that never came is neither a failure nor a licence to send again."""

    @pytest.mark.asyncio
    @pytest.mark.parametrize("reboot_type", RebootType)
    async def test_is_found_in_the_action_log(self, nova: Nova, reboot_type: RebootType) -> None:
        """A reboot whose answer was lost is found, awaited and not sent again."""
        [server_id] = nova.take(1)
        async with (
            httpx.AsyncClient(transport=LosingTransport(delivers=True)) as http,
            RestartClient(nova.endpoint, auth=Token(nova.token), http=http) as client,
        ):
            report = await client.restart([server_id], reboot_type=reboot_type)
        assert_each_came_back(report, [server_id])
        assert_rebooted_once(nova, report[server_id])

    def test_to_what_never_arrived_is_sent_again(self, nova: Nova, sent_to_nobody: Future[Report]) -> None:
        """A SOFT that never reached Nova is sent again once the log has stayed silent: one reboot in all."""
        report = sent_to_nobody.result(timeout=300)
        [result] = report.results
        assert_each_came_back(report, [result.server_id])
        assert len(result.attempts) == 2
        assert_rebooted_once(nova, result)


class TestOlderClouds:
    """What an older Nova shows less of."""

    @pytest.mark.asyncio
    async def test_v2_comes_back(self, nova: Nova) -> None:
        """On /v2, which shows no events to its users, a fleet comes back by state."""
        ids = nova.take(2)
        async with RestartClient(nova.legacy_endpoint, auth=Token(nova.token)) as client:
            report = await client.restart(ids)
        assert_each_came_back(report, ids, proof=Proof.STATE)
        for result in report.results:
            assert_rebooted_once(nova, result, endpoint=nova.legacy_endpoint)

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("version", "proof"),
        [("2.1", Proof.STATE), ("2.50", Proof.STATE), ("2.51", Proof.ACTION), ("2.60", Proof.ACTION)],
    )
    async def test_each_microversion_comes_back(self, nova: Nova, version: str, proof: Proof) -> None:
        """A cloud that answers at an older microversion proves no more than it shows: events since 2.51."""
        [server_id] = nova.take(1)

        async def pin(request: httpx.Request) -> None:
            request.headers["OpenStack-API-Version"] = f"compute {version}"
            request.headers["X-OpenStack-Nova-API-Version"] = version

        async with (
            httpx.AsyncClient(event_hooks={"request": [pin]}) as http,
            RestartClient(nova.endpoint, auth=Token(nova.token), http=http) as client,
        ):
            report = await client.restart([server_id])
        assert_each_came_back(report, [server_id], proof=proof)
        assert_rebooted_once(nova, report[server_id])
