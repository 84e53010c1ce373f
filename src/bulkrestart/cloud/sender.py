"""Two ways to send a request: over lanes of our own, or through a client that somebody lent.

Law: a request is sent with its auth, once, without following redirects; and its trace learns when it is handed out.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from bulkrestart.cloud.body import ACCEPT_ENCODING, is_readable
from bulkrestart.cloud.clone import Clone, Template
from bulkrestart.cloud.seam import Seam

#: The User-Agent of httpx's own client, and the codings that are decoded here.
_HEADERS: Final = {"Accept-Encoding": ACCEPT_ENCODING, "User-Agent": f"python-httpx/{httpx.__version__}"}

_AGE: Final = b"age"
#: That, and the headers that carry Nova's own id of the request: nova/api/openstack/wsgi.py,
#: oslo_middleware/request_id.py.
_NAMES: Final = frozenset({_AGE, b"x-compute-request-id", b"x-openstack-request-id"})
#: At least so many of the latest ids are remembered, and at most twice as many: a repeated answer comes soon.
_MOST_IDS: Final = 2048
#: So many different ids prove that this cloud does not give the same id to all its answers.
_FEW_IDS: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What many requests have in common.

    Attributes:
        method: Their method.
        base: What their URLs begin with.
        headers: Their headers.
        content: Their body.
    """

    method: str
    base: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = b""


class AnsweredIds:
    """The request ids of the latest answers. The cloud gives each request its own id, so none may come twice."""

    def __init__(self) -> None:
        self._latest: set[bytes] = set()
        self._before: set[bytes] = set()

    def add(self, request_id: bytes) -> bool:
        """Remember an id; return whether an earlier answer had it, in a cloud whose ids are known to differ."""
        if request_id in self._latest or request_id in self._before:
            return len(self._latest) + len(self._before) >= _FEW_IDS
        if len(self._latest) == _MOST_IDS:
            self._latest, self._before = set(), self._latest
        self._latest.add(request_id)
        return False


class WithheldError(Exception):
    """Raised when `veto` stops a request at the last moment. No byte of it has left."""


class Trace:
    """Tells whether a byte of a request may have left. What is unknown may have.

    httpcore and our own connections report when they connect, when they are about to write the first byte of a request,
    and what the head of the answer holds. Another transport reports nothing.

    Args:
        veto: Called when the transport gets the request, and right before the first byte is written. If it returns a
            reason, the request is not sent. None: no call.
        answered: The request ids of earlier answers over the same connections.
    """

    __slots__ = ("_answered", "_is_connecting", "_is_sending", "_sent", "_veto", "is_handed_out", "withheld")

    def __init__(self, veto: Callable[[], str | None] | None = None, answered: AnsweredIds | None = None) -> None:
        #: The transport has it; before that, only a sign-in can have been sent.
        self.is_handed_out = False
        #: The reason that `veto` returned, if no byte has left.
        self.withheld: str | None = None
        self._veto = veto
        self._answered = answered
        self._is_connecting = False
        self._is_sending = False
        #: The requests that httpcore has written.
        self._sent: list[object] = []

    def hand_out(self) -> None:
        """Record that the transport gets the request now.

        Raises:
            WithheldError: `veto` returned a reason.
        """
        self._check(is_unsent=self.is_unsent)
        self.is_handed_out = True

    async def __call__(self, event: str, info: Mapping[str, object]) -> None:
        """Record a step that httpx's `trace` extension reports.

        Raises:
            WithheldError: `veto` returned a reason right before the request would be written. httpcore and our own
                transport then write nothing and close the connection.
            httpx.RemoteProtocolError: The answer repeats that to another request.
        """
        if not event.startswith("http"):
            self._is_connecting = True
        elif ".send_request_" in event and event.endswith(".started"):
            request = info.get("request")
            # What a proxy is asked for first, to be connected to the cloud, is no request to the cloud.
            if getattr(request, "method", None) != b"CONNECT":
                if event.endswith("_headers.started"):
                    self._check(is_unsent=not self._is_sending)
                self._is_sending = True
            if not isinstance(request, httpx.Request):
                self._sent.append(request)
        elif event.endswith(".receive_response_headers.complete") and self._answered is not None:
            _check_answer(info.get("return_value"), self._answered)

    def _check(self, *, is_unsent: bool) -> None:
        if self._veto is not None and (words := self._veto()) is not None:
            self.withheld = words if is_unsent else None
            raise WithheldError(words)
        self.withheld = None

    @property
    def headers(self) -> Iterator[Sequence[tuple[bytes, bytes]]]:
        """The headers that httpcore wrote: for a proxy it adds some to those of the request."""
        for request in self._sent:
            yield getattr(request, "headers", ())

    @property
    def is_unsent(self) -> bool:
        """No byte of it has left."""
        return not self.is_handed_out or (self._is_connecting and not self._is_sending)


def _check_answer(head: object, answered: AnsweredIds) -> None:
    """Refuse an answer whose request id an earlier answer had.

    If a proxy sends an answer twice over a kept connection, the second would be taken for the answer to the next
    request, and so on for each later request. An answer with `Age` comes from a cache (RFC 9111, section 5.1), which
    may repeat it.
    """
    headers = head[-1] if isinstance(head, tuple) and head else None
    if not isinstance(headers, list):
        return
    named = {key: value for name, value in headers if (key := name.lower()) in _NAMES}
    if _AGE in named:
        return
    # Both headers of an answer carry the same id.
    for request_id in set(named.values()):
        if answered.add(request_id):
            raise httpx.RemoteProtocolError("the answer carries the request id of an earlier answer")


class Sender(ABC):
    """One of the two ways.

    Attributes:
        answered: The request ids of the latest answers.
    """

    def __init__(self) -> None:
        self.answered = AnsweredIds()

    @property
    @abstractmethod
    def is_closed(self) -> bool:
        """Nothing can be sent any more."""

    @property
    @abstractmethod
    def auth(self) -> httpx.Auth:
        """What signs a request where nothing else does."""

    @abstractmethod
    def write(self, draft: Draft, path: str, *, query: Mapping[str, str] | None, seconds: float) -> httpx.Request:
        """Write a request.

        Args:
            draft: What it has in common with others.
            path: What its URL adds to the draft's.
            query: The query of its URL; None for none.
            seconds: How long the whole request may take: whoever sends it holds it to that.
        """

    @abstractmethod
    async def send(self, request: httpx.Request, auth: httpx.Auth, trace: Trace) -> httpx.Response:
        """Send a request, and give its answer, the body of which is still to be read.

        Raises:
            Exception: Whatever auth, hooks and transports may raise.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close what is ours."""


class LaneSender(Sender):
    """Sends over a transport of our own, without the layers of an httpx client, which cost as much as a lane does.

    Requests are clones of a template for each draft. What a client does of itself is done here: it runs the auth flow,
    and an answer and an error know their request. It keeps no cookies: what is sent here needs no session.

    Args:
        transport: The transport; it is closed with the sender.
        seam: Sends instead of the transport while a test has replaced a part of httpx or httpcore; it is closed with
            the sender. None for a transport that uses httpx anyway, or that a test made.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, seam: Seam | None = None) -> None:
        super().__init__()
        self._seam = seam
        self._transport = transport
        self._templates: dict[Draft, Template] = {}
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """It was closed."""
        return self._is_closed

    @property
    def auth(self) -> httpx.Auth:
        """Nothing signs a request by itself."""
        return httpx.Auth()

    def write(self, draft: Draft, path: str, *, query: Mapping[str, str] | None, seconds: float) -> httpx.Request:
        """Clone the draft's template."""
        template = self._templates.get(draft)
        if template is None:
            headers = {**_HEADERS, **draft.headers}
            template = Template(httpx.Request(draft.method, draft.base, headers=headers, content=draft.content))
            self._templates[draft] = template
        clone = Clone(template, path, {"timeout": {"connect": seconds / 2, "pool": seconds / 2}})
        if query is not None:
            clone.url = clone.url.copy_with(params=query)
        return clone

    async def send(self, request: httpx.Request, auth: httpx.Auth, trace: Trace) -> httpx.Response:
        """Run the auth flow, as httpx does."""
        flow = auth.async_auth_flow(request)
        try:
            handed_out = await anext(flow)
            while True:
                if not is_other(handed_out, request):
                    # An auth flow may sign a copy.
                    handed_out.extensions["trace"] = trace
                    trace.hand_out()
                response = await self._send(handed_out)
                try:
                    try:
                        handed_out = await flow.asend(response)
                    except StopAsyncIteration:
                        return response
                    await response.aread()
                except BaseException:
                    await response.aclose()
                    raise
        finally:
            await flow.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            if self._seam is not None and self._seam.is_needed():
                response = await self._seam.send(request)
            else:
                response = await self._transport.handle_async_request(request)
        except httpx.RequestError as error:
            error.request = request
            raise
        response.request = request
        return response

    async def aclose(self) -> None:
        """Close the transport."""
        self._is_closed = True
        if self._seam is not None:
            await self._seam.aclose()
        await self._transport.aclose()


class LentSender(Sender):
    """Sends through a client that somebody lent, with all that it brings along.

    Args:
        http: The client; it is never closed here.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        super().__init__()
        self._http = http

    @property
    def is_closed(self) -> bool:
        """Whoever lent it has closed it."""
        return self._http.is_closed

    @property
    def auth(self) -> httpx.Auth:
        """What it signs with by itself."""
        return self._http.auth or httpx.Auth()

    def write(self, draft: Draft, path: str, *, query: Mapping[str, str] | None, seconds: float) -> httpx.Request:
        """Let the client build it, with the headers and cookies that it has at this moment."""
        # Half for each phase in which nothing is sent, so that what never left is known as such when time is up.
        timeout = httpx.Timeout(seconds, connect=seconds / 2, pool=seconds / 2)
        headers = dict(draft.headers)
        # With the packages for them httpx asks for Brotli and Zstandard too.
        if not is_readable(self._http.headers.get("Accept-Encoding", "")):
            headers["Accept-Encoding"] = ACCEPT_ENCODING
        return self._http.build_request(
            draft.method,
            draft.base + path,
            headers=headers,
            content=draft.content or None,
            params=query,
            timeout=timeout,
        )

    async def send(self, request: httpx.Request, auth: httpx.Auth, trace: Trace) -> httpx.Response:
        """Let the client send it, with all its hooks."""
        request.extensions = {**request.extensions, "trace": trace}
        watched = _WatchedAuth(auth, request, trace)
        return await self._http.send(request, auth=watched, stream=True, follow_redirects=False)

    async def aclose(self) -> None:
        """Leave it open: it is somebody else's."""


class _WatchedAuth(httpx.Auth):
    """Notes when an auth flow hands our request out, as against a sign-in of its own."""

    def __init__(self, auth: httpx.Auth, request: httpx.Request, trace: Trace) -> None:
        self._auth = auth
        self._request = request
        self._trace = trace

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        flow = self._auth.async_auth_flow(request)
        try:
            handed_out = await flow.__anext__()
            while True:
                if not is_other(handed_out, self._request):
                    self._trace.hand_out()
                response = yield handed_out
                try:
                    handed_out = await flow.asend(response)
                except StopAsyncIteration:
                    return
        finally:
            await flow.aclose()


def is_other(request: httpx.Request, ours: httpx.Request) -> bool:
    """Tell whether it is another request than ours; a signature may stand in the query."""
    if request is ours:
        return False
    return request.method != ours.method or request.url.copy_with(query=None) != ours.url.copy_with(query=None)
