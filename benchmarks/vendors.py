"""The vendors' own clients: each restarts servers in threads, because they know no other way."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks.contenders import TOKEN, Restart

if TYPE_CHECKING:
    from keystoneauth1.session import Session


@asynccontextmanager
async def keystoneauth(endpoint: str, at_once: int) -> AsyncIterator[Restart]:
    """A session of keystoneauth1 with a token, and a pool as wide as needed: its own keeps 10 connections."""
    session = _session(endpoint, at_once)

    def reboot(server_id: str) -> None:
        body = {"reboot": {"type": "SOFT"}}
        answer = session.post(f"/servers/{server_id}/action", endpoint_filter={"service_type": "compute"}, json=body)
        assert answer.status_code == 202

    with _in_threads(reboot, at_once) as restart:
        yield restart


@asynccontextmanager
async def openstacksdk(endpoint: str, at_once: int) -> AsyncIterator[Restart]:
    """The client of openstacksdk over that session; the endpoint is given, so no catalog is read."""
    from openstack.connection import Connection

    connection = Connection(
        session=_session(endpoint, at_once), compute_endpoint_override=endpoint, compute_api_version="2.1"
    )
    compute = connection.compute

    def reboot(server_id: str) -> None:
        compute.reboot_server(server_id, "SOFT")

    with _in_threads(reboot, at_once) as restart:
        yield restart


@asynccontextmanager
async def huaweicloudsdk(endpoint: str, at_once: int) -> AsyncIterator[Restart]:
    """The client of huaweicloudsdkecs, which signs every request; its call takes a list of servers, here one."""
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.http.http_config import HttpConfig
    from huaweicloudsdkecs import v2

    credentials = BasicCredentials("access-key", "secret-key", "project")
    config = HttpConfig(pool_maxsize=at_once)
    root = f"http://{urlsplit(endpoint).netloc}"
    builder = v2.EcsClient.new_builder().with_http_config(config).with_credentials(credentials)
    client = builder.with_endpoint(root).build()

    def reboot(server_id: str) -> None:
        option = v2.BatchRebootSeversOption(servers=[v2.ServerId(id=server_id)], type="SOFT")
        body = v2.BatchRebootServersRequestBody(reboot=option)
        answer = client.batch_reboot_servers(v2.BatchRebootServersRequest(body=body))
        assert answer.job_id

    with _in_threads(reboot, at_once) as restart:
        yield restart


def _session(endpoint: str, at_once: int) -> "Session":
    from keystoneauth1.session import Session, TCPKeepAliveAdapter
    from keystoneauth1.token_endpoint import Token

    session = Session(auth=Token(endpoint, TOKEN))
    session.mount("http://", TCPKeepAliveAdapter(pool_maxsize=at_once))
    return session


@contextmanager
def _in_threads(reboot: Callable[[str], None], at_once: int) -> Iterator[Restart]:
    with ThreadPoolExecutor(at_once) as threads:

        async def restart(ids: Sequence[str]) -> None:
            # It blocks the loop, on which nothing else runs.
            list(threads.map(reboot, ids))

        yield restart
