"""Asks a simulated cloud over HTTP, in-process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from bulkrestart.simulator import Cloud, asgi

SOFT = {"reboot": {"type": "SOFT"}}
HARD = {"reboot": {"type": "HARD"}}


@asynccontextmanager
async def client_of(
    cloud: Cloud, *, api: str = "v2.1", microversion: str | None = "2.60"
) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of the cloud's project, with a token."""
    headers = {"x-auth-token": cloud.token}
    if microversion:
        headers["openstack-api-version"] = f"compute {microversion}"
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(asgi(cloud, lost=httpx.ReadError)),
        base_url=f"http://cloud.test/{api}/{cloud.project_id}",
        headers=headers,
    ) as client:
        yield client


def ask(cloud: Cloud, method: str, path: str, **options: Any) -> httpx.Response:
    """Send one request of a client of its own, on asyncio."""
    api, microversion = options.pop("api", "v2.1"), options.pop("microversion", "2.60")

    async def send() -> httpx.Response:
        async with client_of(cloud, api=api, microversion=microversion) as client:
            return await client.request(method, path, **options)

    return anyio.run(send)


def post(cloud: Cloud, server_id: str, body: object = SOFT, **options: Any) -> httpx.Response:
    """Send an action."""
    return ask(cloud, "POST", f"/servers/{server_id}/action", json=body, **options)


def states(cloud: Cloud, server_id: str) -> tuple[str, str | None]:
    """Ask for the status and task_state of a server."""
    server = ask(cloud, "GET", f"/servers/{server_id}").json()["server"]
    return server["status"], server["OS-EXT-STS:task_state"]
