"""The HTTP face of a `Cloud`: where paths lead, and what becomes of requests and replies on the wire.

Law: what is answered is said elsewhere. Here a request arrives, meets the fault that the cloud has for it, and is
answered, answered late, or lost.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial
from typing import Final

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from bulkrestart.simulator import controllers, gateway, pipeline
from bulkrestart.simulator.answers import Answer
from bulkrestart.simulator.cloud import Cloud
from bulkrestart.simulator.controllers import Controller
from bulkrestart.simulator.faults import Fault
from bulkrestart.simulator.records import Call, ConflictError, Face
from bulkrestart.simulator.request import Asked, take_apart

#: A server that can cut a connection puts a function into the scope's extensions under this name; it cuts it at once.
CUT_EXTENSION: Final = "bulkrestart.cut"

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_PREFIXES: Final = ("/{api}/{project_id}", "/{api}")
_ROUTES: Final[tuple[tuple[str, str, Call, Controller], ...]] = (
    ("POST", "/servers/{server_id}/action", Call.ACTION, controllers.act),
    ("GET", "/servers/detail", Call.LIST, controllers.list_detailed),
    ("GET", "/servers/{server_id}", Call.SHOW, controllers.show),
    ("GET", "/servers/{server_id}/os-instance-actions/{row_id}", Call.LOG_ROW, controllers.show_row),
    ("GET", "/servers/{server_id}/os-instance-actions", Call.LOG, controllers.list_rows),
    ("GET", "/servers", Call.LIST, controllers.list_brief),
    ("GET", "/os-server-groups", Call.GROUPS, controllers.list_groups),
    ("DELETE", "/servers/{server_id}", Call.ACTION, controllers.delete),
)

_Answering = Callable[[Cloud, Controller | None, Asked], Answer]
_Naming = Callable[[Cloud, Answer, str], dict[str, str]]

#: What answers behind each face: the whole answer to a request, and the headers that carry its id.
_FACES: Final[dict[Face, tuple[_Answering, _Naming]]] = {
    Face.NOVA: (pipeline.answer, pipeline.ids),
    Face.HUAWEI: (gateway.answer, gateway.ids),
}

_NO_FAULT: Final = Fault(applied_after=0.0)


class LostReplyError(ConnectionError):
    """The reply was lost on its way; what became of the request only the cloud knows."""


def asgi(
    cloud: Cloud,
    *,
    lost: Callable[[str], Exception] = LostReplyError,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> ASGIApp:
    """Make an ASGI application of a cloud; `httpx.ASGITransport` calls it in-process, on asyncio and on trio.

    In-process there is no connection to cut: a lost reply is an exception that the application raises, and that the
    client's call raises in turn. An `httpx` client expects one of its own: `asgi(cloud, lost=httpx.ReadError)`.

    Args:
        cloud: The cloud.
        lost: Makes the exception of a lost reply from one line of text.
        sleep: Waits some seconds, where the cloud's latency or a fault holds an answer back.
    """
    answer, ids = _FACES[cloud.face]
    wire = _Wire(cloud, answer, ids, lost, sleep)
    routes = [
        Route(prefix + path, wire.endpoint(call, controller), methods=[method])
        for prefix in _PREFIXES
        for method, path, call, controller in _ROUTES
    ]
    # After the others, so that a wrong method comes here too: Nova answers it with 404, not 405.
    routes.append(Route("/{path:path}", wire.endpoint(Call.OTHER, None), methods=_METHODS))
    return Router(routes, redirect_slashes=False)


@dataclass(frozen=True, slots=True)
class _Wire:
    """What lies between a client and the pipeline."""

    cloud: Cloud
    answer: _Answering
    ids: _Naming
    lost: Callable[[str], Exception]
    sleep: Callable[[float], Awaitable[None]]

    def endpoint(self, call: Call, controller: Controller | None) -> Callable[[Request], Awaitable[Response]]:
        """Make the endpoint of a route."""

        async def endpoint(request: Request) -> Response:
            cloud = self.cloud
            try:
                body = await request.body()
            except ClientDisconnect:
                # Its client died in the midst of it: nothing was asked, and nobody reads the answer.
                return Response()
            kind = Call.REBOOT if call is Call.ACTION and b'"reboot"' in body else call
            number, met = cloud.arrive(kind, request.path_params.get("server_id"))
            asked = take_apart(request, body, cloud.new_request_id(), number)
            fault, status = self._queue(met or _NO_FAULT), None
            try:
                answered = await self._meet(fault, asked, partial(self.answer, cloud, controller))
                if cloud.latency:
                    await self.sleep(cloud.latency)
                status = answered[0].status if answered else None
            finally:
                cloud.leave(number, status)
            if answered is None:
                return _Lost(self.lost)
            response = self._write(*answered)
            return _Lost(self.lost, response) if fault.cut else response

        return endpoint

    def _queue(self, fault: Fault) -> Fault:
        """Let a request that gets as far as the API queue there."""
        if fault.applied_after is None:
            return fault
        wait = self.cloud.queue()
        applied_after, answered_after = fault.applied_after + wait, fault.answered_after + wait
        return replace(fault, applied_after=applied_after, answered_after=answered_after) if wait else fault

    async def _meet(
        self, fault: Fault, asked: Asked, carry_out: Callable[[Asked], Answer]
    ) -> tuple[Answer, str] | None:
        """Apply a fault to a request; return the answer and the id of the delivery that it answers, or None if lost."""
        if asked.server_id:
            self._interfere(fault, asked.server_id)
        delivery, applied_after = _Delivery(asked, carry_out), fault.applied_after
        if applied_after:
            # On the cloud's agenda, so that it happens also when the client has gone away meanwhile.
            self.cloud.later(applied_after, delivery.arrive)
        elif applied_after is not None:
            delivery.arrive()
        if applied_after is not None and fault.again_after is not None:
            again_after = applied_after + fault.again_after
            again = _Delivery(replace(asked, request_id=self.cloud.new_request_id()), carry_out)
            self.cloud.later(again_after, again.arrive)
            if fault.answered_by == "second":
                delivery, applied_after = again, again_after
        wait = fault.answered_after
        if not fault.lost and not fault.answer:
            wait = max(wait, applied_after or 0.0)
        if wait:
            await self.sleep(wait)
        if fault.lost:
            return None
        if fault.answer:
            return fault.answer, asked.request_id
        # What fell due during the wait is done first, and then not once more.
        self.cloud.catch_up()
        return delivery.arrive(), delivery.asked.request_id

    def _interfere(self, fault: Fault, server_id: str) -> None:
        """Let in what a fault puts just before the request, where the server allows for it."""
        with suppress(KeyError, ConflictError):
            if fault.task_state and self.cloud.server(server_id).task_state is None:
                self.cloud.occupy(server_id, fault.task_state, fault.task_seconds)
            if fault.by_other:
                self.cloud.reboot_by_other(server_id)

    def _write(self, answer: Answer, request_id: str) -> Response:
        date = self.cloud.date()
        headers = {} if date is None else {"date": formatdate(date, usegmt=True)}
        headers |= self.ids(self.cloud, answer, request_id)
        return Response(answer.body, answer.status, {**headers, **answer.headers})


class _Delivery:
    """One delivery of a request to the cloud, which carries it out once.

    Args:
        asked: The request.
        carry_out: Carries it out.
    """

    def __init__(self, asked: Asked, carry_out: Callable[[Asked], Answer]) -> None:
        self.asked = asked
        self._carry_out = carry_out
        self._answer: Answer | None = None

    def arrive(self) -> Answer:
        """Carry the request out, unless that was done before, and return the answer."""
        self._answer = self._answer or self._carry_out(self.asked)
        return self._answer


class _Lost(Response):
    """No reply, or half of one: the connection is cut."""

    def __init__(self, lost: Callable[[str], Exception], half: Response | None = None) -> None:
        super().__init__()
        self._lost = lost
        self._half = half

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._half:
            body = self._half.body
            start = {"type": "http.response.start", "status": self._half.status_code, "headers": self._half.raw_headers}
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body[: len(body) // 2]), "more_body": True})
        cut = scope.get("extensions", {}).get(CUT_EXTENSION)
        if cut is None:
            raise self._lost("the simulated connection was cut before the reply was complete")
        cut()
        # The request was read to its end, so the next message is the disconnect: nothing may be answered before it.
        await receive()
