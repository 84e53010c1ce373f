"""Done means done, against a real Nova: how each end of a reboot is called, what HARD follows, and what is checked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from bulkrestart import (
    Outcome,
    Proof,
    Reason,
    RebootType,
    RestartClient,
    Server,
    ServerResult,
    Token,
    http_ok,
    tcp_open,
)
from bulkrestart.core.model import Verify

from .bed import Nova


async def restarted(
    nova: Nova,
    server_id: str,
    *,
    reboot_type: RebootType = RebootType.SOFT,
    escalate: bool = False,
    verify: Verify | None = None,
    wait_timeout: float = 60.0,
    verify_timeout: float = 20.0,
) -> ServerResult:
    """Restart one server with a client of its own."""
    async with RestartClient(nova.endpoint, auth=Token(nova.token)) as client:
        report = await client.restart(
            [server_id],
            reboot_type=reboot_type,
            escalate=escalate,
            verify=verify,
            wait_timeout=wait_timeout,
            verify_timeout=verify_timeout,
        )
    return report[server_id]


def outcome(result: ServerResult) -> tuple[Outcome, Reason | None]:
    """Give what became of a server, and why."""
    return result.outcome, result.reason


def has_failed(server: dict[str, object]) -> bool:
    """Tell whether a server is in ERROR."""
    return server["status"] == "ERROR"


class TestEnds:
    """Reboots that are accepted, and end as they should not."""

    @pytest.mark.asyncio
    async def test_a_driver_that_fails_with_the_guest_running_is_invisible(self, nova: Nova) -> None:
        """Nova records a success where the driver failed and the guest kept running: no client can know."""
        [server_id] = nova.take(1)
        with nova.knobs(reboot_fail="alive"):
            result = await restarted(nova, server_id, escalate=True)
        assert (outcome(result), result.proof) == ((Outcome.COMPLETED, None), Proof.ACTION)
        [reboot] = nova.reboots(server_id)
        assert (reboot.is_error, reboot.results) == (False, ("Success",))
        assert nova.posts(server_id) == 1

    @pytest.mark.asyncio
    async def test_a_host_that_hangs_is_not_back(self, nova: Nova) -> None:
        """A server that stays rebooting has failed as such, and leave to escalate sends nothing into its reboot."""
        [server_id] = nova.take(1)
        with nova.knobs(reboot_hang=True):
            result = await restarted(nova, server_id, escalate=True, wait_timeout=4.0)
        assert outcome(result) == (Outcome.FAILED, Reason.NOT_BACK)
        assert "task_state reboot_started" in result.detail
        assert nova.posts(server_id) == 1


class TestEscalation:
    """A SOFT that leaves its server in ERROR."""

    @pytest.mark.asyncio
    async def test_hard_brings_it_back(self, nova: Nova) -> None:
        """With leave one HARD follows, and the result names both, as Nova's log does."""
        [server_id] = nova.take(1)
        results: list[ServerResult] = []

        async def restart() -> None:
            results.append(await restarted(nova, server_id, escalate=True))

        async with anyio.create_task_group() as group:
            with nova.knobs(reboot_fail="dead"):
                group.start_soon(restart)
                await anyio.to_thread.run_sync(nova.wait_for, server_id, has_failed)
        [result] = results
        soft, hard = nova.reboots(server_id)
        assert (outcome(result), result.proof) == ((Outcome.COMPLETED, None), Proof.ACTION)
        assert (result.reboot_type, result.request_id) == (RebootType.HARD, hard.request_id)
        assert [attempt.request_id for attempt in result.attempts] == [soft.request_id, hard.request_id]
        assert result.detail.startswith(f"HARD followed the SOFT {soft.request_id}, which ended in error: ")
        assert (soft.is_error, hard.is_error) == (True, False)
        assert nova.posts(server_id) == 2
        assert nova.show(server_id)["status"] == "ACTIVE"

    @pytest.mark.asyncio
    async def test_a_hard_that_fails_too_is_the_last(self, nova: Nova) -> None:
        """The HARD is judged by its own row, and nothing follows it."""
        [server_id] = nova.take(1)
        with nova.knobs(reboot_fail="dead"):
            result = await restarted(nova, server_id, escalate=True)
        assert (outcome(result), result.reboot_type) == ((Outcome.FAILED, Reason.ERROR), RebootType.HARD)
        assert nova.show(server_id)["fault"]["message"] in result.detail
        assert [reboot.is_error for reboot in nova.reboots(server_id)] == [True, True]
        assert nova.posts(server_id) == 2


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[int]:
    """Give a port of loopback where every connection is answered so."""

    async def serve(connection: anyio.abc.SocketStream) -> None:
        async with connection:
            try:
                await connection.receive()
                await connection.send(answer)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        port: int = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (anyio's `extra`, not Django's)
        yield port
        group.cancel_scope.cancel()


class TestVerification:
    """Checks of servers that are back. Those of the bed have no network, so a listener stands for them all."""

    @pytest.mark.asyncio
    async def test_a_server_that_passes_is_verified(self, nova: Nova) -> None:
        """It is verified once it is proved back, and its proof stays."""
        [by_port, by_url] = nova.take(2)
        async with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port:
            checks = {
                by_port: tcp_open(port, host="127.0.0.1"),
                by_url: http_ok(f"http://127.0.0.1:{port}/health/{{id}}"),
            }
            for server_id, check in checks.items():
                result = await restarted(nova, server_id, verify=check)
                assert (outcome(result), result.proof) == ((Outcome.VERIFIED, None), Proof.ACTION)
                assert nova.posts(server_id) == 1

    @pytest.mark.asyncio
    async def test_a_server_that_does_not_pass_has_failed(self, nova: Nova) -> None:
        """It has failed when its time is up, in the words of the check, although Nova calls it ACTIVE."""
        [server_id] = nova.take(1)
        async with listening(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") as port:
            check = http_ok(f"http://127.0.0.1:{port}/health")
            result = await restarted(nova, server_id, verify=check, verify_timeout=3.0)
        assert outcome(result) == (Outcome.FAILED, Reason.VERIFY_FAILED)
        assert result.detail == f"NotWellError: http://127.0.0.1:{port}/health answers 503, not 200"
        assert nova.show(server_id)["status"] == "ACTIVE"
        assert nova.posts(server_id) == 1

    @pytest.mark.asyncio
    async def test_a_check_sees_what_no_client_can(self, nova: Nova) -> None:
        """Where the driver failed and the guest kept running, the user's check is what tells."""
        [server_id] = nova.take(1)
        seen: list[Server] = []

        async def has_new_kernel(server: Server) -> bool:
            seen.append(server)
            return False

        with nova.knobs(reboot_fail="alive"):
            result = await restarted(nova, server_id, verify=has_new_kernel, verify_timeout=1.0)
        assert outcome(result) == (Outcome.FAILED, Reason.VERIFY_FAILED)
        assert {(server.id, server.vm_state, server.task_state) for server in seen} == {(server_id, "active", None)}
