"""The wire between the real client and a simulated cloud: what goes over it, when, and what one server is answered."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypedDict, Unpack

import httpx
import respx
import trio

from bulkrestart import Report, RestartClient, ServerResult, StopReason, Token
from bulkrestart.simulator import Cloud, asgi
from tests.virtual import cloud_of

HOST: Final = "http://cloud.test"
#: Seconds that a scripted answer takes, and one of the cloud's: requests sent together are in flight together.
SCRIPTED_LATENCY: Final = 0.5
LATENCY: Final = 1.0
#: Long enough for a look to find a reboot under way.
REBOOT_SECONDS: Final = 60.0


class Arguments(TypedDict, total=False):
    """The arguments of a restart that the tables vary."""

    reboot_type: str
    escalate: bool
    start_stopped: bool
    max_attempts: int


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer as it goes on the wire; if `is_broken`, the connection ends before the body does."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_broken: bool = False

    def write(self) -> httpx.Response:
        """Make the response of it."""
        if self.is_broken:
            return httpx.Response(self.status, headers=self.headers, stream=_BrokenStream(self.body))
        return httpx.Response(self.status, headers=self.headers, content=self.body)


class _BrokenStream(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body
        raise httpx.ReadError("the connection was cut")


@dataclass(frozen=True)
class Sent:
    """A request that left, and when, in seconds of virtual time."""

    at: float
    request: httpx.Request

    @property
    def is_send(self) -> bool:
        """Whether it asks for a reboot."""
        return self.request.method == "POST"

    @property
    def kind(self) -> str:
        """What it asks: `send`, `log`, `row`, `list` or `show`."""
        path = self.request.url.path
        if self.is_send:
            return "send"
        if "/os-instance-actions" in path:
            return "log" if path.endswith("/os-instance-actions") else "row"
        return "list" if path.endswith("/detail") else "show"


class Wire:
    """Sees every request; what `router` does not answer, the cloud answers.

    Attributes:
        cloud: The cloud.
        router: Routes that come before the cloud.
        sent: Every request, in the order in which they left.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.router = respx.MockRouter(assert_all_called=False)
        self.sent: list[Sent] = []
        self._transport = httpx.ASGITransport(asgi(cloud, lost=httpx.ReadError))

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.sent.append(Sent(trio.current_time(), request))
        return await self.router.async_handler(request)

    async def pass_on(self, request: httpx.Request) -> httpx.Response:
        """Let the cloud answer."""
        return await self._transport.handle_async_request(request)

    @asynccontextmanager
    async def client(self, *, version: str = "v2.1", max_at_once: int = 20) -> AsyncIterator[RestartClient]:
        """Give the real client over this wire."""
        self.router.route().mock(side_effect=self.pass_on)
        endpoint = f"{HOST}/{version}/{self.cloud.project_id}"
        async with httpx.AsyncClient(transport=httpx.MockTransport(self)) as http:
            # With a fixed limit, who waits waits for the brake.
            yield RestartClient(
                endpoint, auth=Token(self.cloud.token), http=http, max_at_once=max_at_once, adaptive=False
            )

    def about(self, server_id: str) -> list[Sent]:
        """Give the requests about one server, but for the first look of all."""
        return [sent for sent in self.sent[1:] if f"/servers/{server_id}" in sent.request.url.path]


@dataclass(frozen=True, kw_only=True)
class Met:
    """What became of a fleet of three, two at once, whose first server met scripted answers.

    Attributes:
        report: The report; the first server's result is `result`.
        cycles: Real power cycles of the first server.
        posts: Its sends.
        looks: What was asked about it between its first send and its second one; all that followed if there was none.
        quiet: Seconds after the first answer in which nobody sent anything; infinite if nobody did again.
        waited: Seconds after it until something was asked about the first server; infinite if nothing was.
        resent: Seconds after it until the second send; infinite if there was none.
    """

    report: Report
    cycles: int
    posts: list[Sent]
    looks: list[str]
    quiet: float
    waited: float
    resent: float

    @property
    def result(self) -> ServerResult:
        """What became of the server that met the answers."""
        return self.report.results[0]

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run stopped."""
        return None if self.report.stopped is None else self.report.stopped.reason


async def meet(
    replies: Sequence[Reply], *, is_carried_out: bool = False, version: str = "v2.1", **arguments: Unpack[Arguments]
) -> Met:
    """Restart three servers, two at once, of which the first is answered so at first; call it within `virtually`.

    Args:
        replies: The answers to its first sends, one each; the cloud answers the others.
        is_carried_out: Whether the cloud carries the first send out all the same.
        version: The version in the endpoint.
        arguments: The arguments of the restart.
    """
    cloud = cloud_of(3, latency=LATENCY, reboot_seconds=(REBOOT_SECONDS, REBOOT_SECONDS))
    hit = cloud.ids[0]
    wire = Wire(cloud)
    coming = iter(replies)
    answered: list[tuple[float, int]] = []

    async def reply(request: httpx.Request) -> httpx.Response | None:
        scripted = next(coming, None)
        if scripted is None:
            return None
        if is_carried_out and not answered:
            await wire.pass_on(request)
        else:
            await trio.sleep(SCRIPTED_LATENCY)
        answered.append((trio.current_time(), len(wire.sent)))
        return scripted.write()

    wire.router.post(f"{HOST}/{version}/{cloud.project_id}/servers/{hit}/action").mock(side_effect=reply)
    async with wire.client(version=version, max_at_once=2) as client:
        report = await client.restart(cloud.ids, **arguments)
    at, count = answered[0]
    about = wire.about(hit)
    others = about[1:]
    sends = [number for number, sent in enumerate(others) if sent.is_send]
    until = others[: sends[0]] if sends else others
    return Met(
        report=report,
        cycles=cloud.cycles[hit],
        posts=[sent for sent in about if sent.is_send],
        looks=[sent.kind for sent in until],
        quiet=min((sent.at for sent in wire.sent[count:]), default=float("inf")) - at,
        waited=min((sent.at for sent in others), default=float("inf")) - at,
        resent=min((sent.at for sent in others if sent.is_send), default=float("inf")) - at,
    )
