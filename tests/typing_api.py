"""What a user's type checker must accept, and what the public names give it. It is checked and never run."""

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import assert_type

import httpx

from bulkrestart import (
    AccessKey,
    Address,
    Outcome,
    Reason,
    RebootType,
    Report,
    RestartClient,
    Run,
    Server,
    ServerResult,
    Statistics,
    Target,
    Token,
    http_ok,
    tcp_open,
)


def fetch_token() -> str:
    """Give a token."""
    return "..."


async def fetch_token_later() -> str:
    """Give a token."""
    return "..."


async def is_well(server: Server) -> bool:
    """Tell whether a server is well."""
    assert_type(server.addresses, tuple[Address, ...])
    return bool(server.addresses)


async def check(ids: list[str], servers: tuple[Server, ...], stream: AsyncIterator[str | Server]) -> None:
    """Use every way to call the library."""
    async with RestartClient("https://compute.example.com/v2.1/project", auth=Token("...")) as client:
        assert_type(client, RestartClient)
        assert_type(await client.restart(ids), Report)
        await client.restart(servers, reboot_type="HARD", start_stopped=True)
        await client.restart(stream, reboot_type=RebootType.SOFT, wait=False, max_at_once=5)
        for verify in (is_well, tcp_open(22), http_ok("http://{address}/health"), lambda server: is_well(server)):
            await client.restart(ids, verify=verify, verify_timeout=60)
        async with client.restarting({*ids}) as run:
            assert_type(run, Run)
            async for result in run:
                assert_type(result, ServerResult)
                assert_type(result.outcome, Outcome)
                assert_type(result.reason, Reason | None)
            assert_type(run.statistics(), Statistics)
        assert_type(run.report["id"], ServerResult)
        assert_type(run.report.summary, dict[Outcome, int])
    async with RestartClient.from_cloud("production", max_at_once=5, max_per_second=2, adaptive="latency") as client:
        assert_type(client, RestartClient)
        assert_type(await client.locate(), Target)
        assert_type(client.servers(), AsyncIterator[Server])
        await client.restart(client.servers(name="^web", status="ACTIVE", tags=["a", "b"], az={"az-1"}))
        chosen = [server async for server in client.servers(metadata={"role": "web"})]
        assert_type(chosen[0].tags, tuple[str, ...] | None)
        assert_type(chosen[0].metadata, Mapping[str, str])
        await client.restart(chosen)
    for auth in (Token(fetch_token), Token(fetch_token_later), AccessKey("AK", "SK", project_id="project")):
        RestartClient("https://compute.example.com/v2.1/project", auth=auth, verify=ssl.create_default_context())
    RestartClient("https://compute.example.com/v2/project", auth=httpx.BasicAuth("u", "p"), http=httpx.AsyncClient())
