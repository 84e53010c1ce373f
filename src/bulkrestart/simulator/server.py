"""A cloud served on loopback, where a lost reply is a connection that is really cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import Self

from anyio.from_thread import start_blocking_portal
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from bulkrestart.simulator.app import CUT_EXTENSION, asgi
from bulkrestart.simulator.cloud import Cloud


class LoopbackCloud:
    """Serves a cloud on 127.0.0.1 for as long as its context lasts.

    `with LoopbackCloud(cloud) as served:` serves from a thread of its own; `async with` serves from the running
    asyncio loop. The cloud may be asked and set up meanwhile.

    Args:
        cloud: The cloud.
        port: The port to listen on; 0 finds a free one.

    Attributes:
        cloud: The cloud.
        url: The URL of the server, without a path; "" while it does not serve.

    Raises:
        OSError: The port is taken; raised on entering.
    """

    def __init__(self, cloud: Cloud, *, port: int = 0) -> None:
        self.cloud = cloud
        self.url = ""
        self._port = port
        self._in_thread = ExitStack()
        self._in_loop = AsyncExitStack()

    @property
    def endpoint(self) -> str:
        """The compute endpoint, project included."""
        return f"{self.url}/v2.1/{self.cloud.project_id}"

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            portal = entered.enter_context(start_blocking_portal("asyncio"))
            entered.enter_context(portal.wrap_async_context_manager(self._serve()))
            self._in_thread = entered.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._in_thread.close()

    async def __aenter__(self) -> Self:
        await self._in_loop.enter_async_context(self._serve())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._in_loop.aclose()

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        # uvicorn's Server would take over the signals of the process and look at its state ten times a second; its
        # protocol needs neither.
        state = ServerState()
        config = Config(asgi(self.cloud), http="h11", ws="none", lifespan="off", log_config=None, log_level=None)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Protocol(config, state, {}), "127.0.0.1", self._port)
        host, port = server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        try:
            yield
        finally:
            self.url = ""
            server.close()
            for connection in list(state.connections):
                connection.transport.abort()
            tasks = list(state.tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, with connections that the application can cut."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, object]) -> None:
        super().__init__(config, server_state, app_state)
        self.access_log = False
        self._whole = self.app
        self.app = self._with_cut

    async def _with_cut(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {CUT_EXTENSION: self.transport.abort}
        # Cancelled when the server goes down, and this connection with it; uvicorn would log an error.
        with suppress(asyncio.CancelledError):
            await self._whole(scope, receive, send)
