"""The compute API: each method is one request. Here, and nowhere else, exceptions become observations."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import anyio
import httpx

from bulkrestart.cloud.body import INCOMPLETE, coding_fault, read_body
from bulkrestart.cloud.clone import PROXY, address_of
from bulkrestart.cloud.credentials import CloudAuth, Renewed, is_authenticated
from bulkrestart.cloud.failures import failure_of, peer
from bulkrestart.cloud.masking import secrets_of
from bulkrestart.cloud.rows import Rows
from bulkrestart.cloud.sender import Draft, Sender, Trace, is_other
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.endpoint import Endpoint, check_id
from bulkrestart.core.faults import Body, cloud_time, plain, read_fault
from bulkrestart.core.model import Action, Address, RebootType, Server
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.pages import PAGE_LIMIT, Page, PageSize, Position
from bulkrestart.core.secrets import NO_SECRETS, SecretMask
from bulkrestart.core.stall import RequestKind
from bulkrestart.core.states import OTHER_ACTIONS, REBOOT, STATES_OF

T = TypeVar("T")
R = TypeVar("R")

#: What Huawei Cloud and Open Telekom Cloud document as their newest (Nova's Queens release), and enough for all that
#: is read here: `locked` needs 2.9, the events of an action 2.51, both for members of the project.
MICROVERSION: Final = (2, 60)

#: Bytes that are read of an answer to a send, of one server or its log, and of a page; the rest is cut off. The last
#: is ten times a page of a thousand servers at 5 KiB each; if a page is longer, its first rows are used. A page is
#: parsed as it arrives, and its bytes are not kept.
_FAULT_BOUND: Final = 64 * 1024
_RECORD_BOUND: Final = 1024 * 1024
_PAGE_BOUND: Final = 50 * 1024 * 1024
_BODIES: Final = {reboot_type: json.dumps({"reboot": {"type": reboot_type}}).encode() for reboot_type in RebootType}
#: Nova translates its messages (nova/i18n.py), and the decisions read them.
_HEADERS: Final = {"Accept": "application/json", "Accept-Language": "en"}
_LONGEST_WORD: Final = 64
#: The most characters of a position in a link.
_LONGEST_POSITION: Final = 1000
#: The members that may hold a link to the next page. Nova uses `servers_links`.
_LINKS: Final = frozenset({"servers_links", "links"})
#: Words that some clouds write in place of null for "no state".
_NO_STATE: Final = frozenset({"", "none", "null", "-"})
_MAXIMUM: Final = re.compile(r"maximum is (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class ServerGroup:
    """A server group.

    Attributes:
        id: Its id.
        is_anti_affine: Its members are kept on different hosts, as far as may be.
        members: The ids of its servers.
    """

    id: str
    is_anti_affine: bool
    members: Sequence[str]


class RequestObserver(Protocol):
    """Sees each request when it leaves, and when it is over."""

    def record_sent(self) -> float:
        """Record that a request leaves now, and return the time."""
        ...

    def record_answer(
        self, kind: RequestKind, seen: object, server_id: str | None, sent_at: float, *, is_about_page: bool = False
    ) -> None:
        """Record how a request ended.

        Args:
            kind: What was asked for.
            seen: What came back.
            server_id: The server of the request; None if it was for many.
            sent_at: When the request left.
            is_about_page: Whether the request failed because of the page of a list that it asked for. Such a failure
                says nothing about the cloud.
        """
        ...


class Compute:
    """One project's servers, over a sender that is owned elsewhere.

    Args:
        endpoint: Where they are.
        sender: What sends.
        auth: How to sign; None for not at all.
        clock: Learns the cloud's time from every answer.
        timeout: Seconds for one request, from its first byte to the answer's last.
        observer: Sees each request when it leaves, and when it is over; None for no observer.
        page_size: How many servers to ask for on one page, as learnt from earlier lists; None: nothing is known.

    Attributes:
        page_size: How many servers to ask for on one page. The readers of lists update it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        sender: Sender,
        auth: httpx.Auth | None,
        clock: CloudClock,
        timeout: float,
        observer: RequestObserver | None = None,
        page_size: PageSize | None = None,
    ) -> None:
        self.page_size = page_size or PageSize()
        self._sender = sender
        self._observer = observer
        self._auth = auth or httpx.Auth()
        self._clock = clock
        self._seconds = timeout
        self._was_authenticated = False
        self._microversion = MICROVERSION if endpoint.has_microversions else None
        headers = {**_HEADERS, "Content-Type": "application/json"}
        self._root = endpoint.url
        self._reboots = {kind: Draft("POST", self._root, headers, body) for kind, body in _BODIES.items()}
        self._read = self._draft_read()

    async def reboot(
        self, server_id: str, reboot_type: RebootType, *, veto: Callable[[], str | None] | None = None
    ) -> Observation:
        """`POST /servers/{server_id}/action` with the reboot action.

        It carries no microversion: the action is the same in all of them, and so no cloud can refuse it for that.

        Args:
            server_id: The server.
            reboot_type: SOFT or HARD.
            veto: Called right before the first byte of the request is written, when the connection is open and the
                request is signed. It must not block, and may be called more than once. If it returns a reason, nothing
                is sent, and the observation is `Unsent` with this reason and `is_withheld`. None: the request is sent.
                If the transport of a lent client has no trace, it is called when that transport gets the request.
        """
        path = f"/servers/{quote(server_id, safe='')}/action"
        sent = self._record_sent()
        seen, _ = await self._exchange(RequestKind.SEND, self._reboots[reboot_type], path, _FAULT_BOUND, veto=veto)
        return self._recorded(RequestKind.SEND, seen, sent, server_id)

    async def show(self, server_id: str) -> Server | Observation:
        """`GET /servers/{server_id}`."""
        rows = Rows("", _nothing, frozenset({"server"}))
        path = f"/servers/{quote(server_id, safe='')}"
        return await self._ask(
            RequestKind.SERVER,
            path,
            _RECORD_BOUND,
            rows,
            lambda: _read_server(rows.others.get("server"), rows.secrets),
            server_id=server_id,
        )

    async def page(
        self,
        *,
        position: Position | None = None,
        limit: int = PAGE_LIMIT,
        changes_since: float | None = None,
        filters: Mapping[str, str] | None = None,
        is_about_page: Callable[[Page | Observation], bool] | None = None,
    ) -> Page | Observation:
        """`GET /servers/detail`, one page.

        Args:
            position: Where the page begins; None for the first page.
            limit: How many servers it may have.
            changes_since: Only servers that changed since then, the deleted among them; seconds since the epoch, by
                the cloud's clock. None for all.
            filters: What the cloud may leave out, as it names it; it ignores what it does not know.
            is_about_page: Judges what came back before it is recorded: whether the request failed because of the page,
                and not because of the cloud. None: it did not.
        """
        query = {"limit": str(limit), **(filters or {})}
        if position is not None:
            query[position.name] = position.value
        if changes_since is not None:
            query["changes-since"] = datetime.fromtimestamp(changes_since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows = Rows("servers", _read_server, _LINKS, is_paged=True)
        return await self._ask(
            RequestKind.LIST,
            "/servers/detail",
            _PAGE_BOUND,
            rows,
            lambda: _read_page(rows, limit),
            query,
            is_about_page=is_about_page,
        )

    async def groups(self, *, offset: int = 0, limit: int = PAGE_LIMIT) -> Sequence[ServerGroup | None] | Observation:
        """`GET /os-server-groups`, one page: it is the last if it is empty.

        Args:
            offset: How many groups came before.
            limit: How many groups it may have.

        Returns:
            The groups, with None for a row that cannot be read; or what came instead.
        """
        query = {"limit": str(limit), "offset": str(offset)}
        rows = Rows("server_groups", _read_group)
        return await self._ask(
            RequestKind.GROUPS,
            "/os-server-groups",
            _PAGE_BOUND,
            rows,
            lambda: rows.items if rows.has_list else None,
            query,
        )

    async def actions(self, server_id: str) -> tuple[Action, ...] | Observation:
        """`GET /servers/{server_id}/os-instance-actions`: the action log, the newest row first, without events."""
        path = f"/servers/{quote(server_id, safe='')}/os-instance-actions"
        rows = Rows("instanceActions", _read_action)
        return await self._ask(
            RequestKind.LOG,
            path,
            _RECORD_BOUND,
            rows,
            lambda: _read_log(rows.items) if rows.has_list else None,
            server_id=server_id,
        )

    async def action(self, server_id: str, request_id: str) -> tuple[Action, ...] | Observation:
        """`GET /servers/{server_id}/os-instance-actions/{request_id}`: a log of that one row, with its events."""
        path = f"/servers/{quote(server_id, safe='')}/os-instance-actions/{quote(request_id, safe='')}"
        rows = Rows("", _nothing, frozenset({"instanceAction"}))
        return await self._ask(
            RequestKind.LOG,
            path,
            _RECORD_BOUND,
            rows,
            lambda: _read_log([_read_action(rows.others.get("instanceAction"), rows.secrets)]),
            server_id=server_id,
        )

    def _record_sent(self) -> float:
        return anyio.current_time() if self._observer is None else self._observer.record_sent()

    def _recorded(
        self, kind: RequestKind, seen: T, sent: float, server_id: str | None = None, *, is_about_page: bool = False
    ) -> T:
        if self._observer is not None:
            self._observer.record_answer(kind, seen, server_id, sent, is_about_page=is_about_page)
        return seen

    def lower_microversion(self, refusal: Answer) -> bool:
        """Take the newest microversion that a 406 names; False if there is nothing to lower."""
        if refusal.status != 406 or self._microversion is None:
            return False
        newest = _MAXIMUM.search(refusal.fault.message)
        offered = (int(newest[1]), int(newest[2])) if newest else None
        self._microversion = offered if offered is not None and offered < self._microversion else None
        self._read = self._draft_read()
        return True

    def _draft_read(self) -> Draft:
        headers = dict(_HEADERS)
        if self._microversion is not None:
            version = f"{self._microversion[0]}.{self._microversion[1]}"
            headers["X-OpenStack-Nova-API-Version"] = version
            headers["OpenStack-API-Version"] = f"compute {version}"
        return Draft("GET", self._root, headers)

    async def _ask(
        self,
        kind: RequestKind,
        path: str,
        bound: int,
        rows: Rows[R],
        take: Callable[[], T | None],
        query: Mapping[str, str] | None = None,
        *,
        server_id: str | None = None,
        is_about_page: Callable[[T | Observation], bool] | None = None,
    ) -> T | Observation:
        """Make a request that changes nothing, let `rows` parse its answer, and record how it ended.

        Returns:
            What `take` returns after the answer was parsed; or what came instead of such an answer.
        """
        sent = self._record_sent()
        seen, body = await self._exchange(kind, self._read, path, bound, query, rows=rows)
        result: T | Observation = seen
        if isinstance(seen, Answer) and seen.status == 200 and seen.fault.body is not Body.CUT_SHORT and rows.is_valid:
            found = take()
            result = _with_fault(seen, body, rows.secrets) if found is None else found
        is_of_page = is_about_page is not None and is_about_page(result)
        return self._recorded(kind, result, sent, server_id, is_about_page=is_of_page)

    async def _exchange(
        self,
        kind: RequestKind,
        draft: Draft,
        path: str,
        bound: int,
        query: Mapping[str, str] | None = None,
        *,
        rows: Rows[R] | None = None,
        veto: Callable[[], str | None] | None = None,
    ) -> tuple[Observation, bytes]:
        """Make one request, and read its answer and its body; with `rows`, return only the beginning of the body."""
        if self._sender.is_closed:
            return Unsent("the client is closed", is_final=True), b""
        request = self._sender.write(draft, path, query=query, seconds=self._seconds)
        trace = Trace(veto, self._sender.answered)
        sent = anyio.current_time()
        # httpx bounds each phase; a body that drips needs a bound for the whole.
        with anyio.CancelScope(deadline=sent + self._seconds):
            try:
                response = await self._sender.send(request, self._auth, trace)
            except Exception as error:  # whatever a lent client's transport, hook or sign-in may raise
                if trace.withheld is not None:
                    return Unsent(trace.withheld, is_withheld=True), b""
                if not isinstance(error, httpx.HTTPStatusError) or is_other(error.request, request):
                    return _explain(error, request, trace, self._auth), b""
                # A lent client's own hook raised for the status: the answer is in all the same.
                response = error.response
            except BaseException as error:
                # Frames of transports hold headers in local variables, which error trackers print.
                error.__traceback__ = None
                raise
            secrets = NO_SECRETS
            if rows is not None:
                secrets = rows.secrets = secrets_of(response.request, trace, self._auth)
                if response.status_code != 200:
                    rows.reject()
            body, is_cut_short = await read_body(response, bound, rows)
            # An accepted send has an answer without a body, in which no secret can be.
            if rows is None and (body or response.status_code >= 300):
                secrets = secrets_of(response.request, trace, self._auth)
            if body:
                body = secrets.replace_bytes(body)
            headers = _read_headers(response.headers)
            date = cloud_time(headers)
            received = anyio.current_time()
            if date is not None:
                self._clock.learn(date, sent=sent, received=received)
            elif self._clock.is_guess:
                self._clock.guess(received, time.time())
            # A body that the rows have parsed holds no fault.
            is_found = rows is not None and rows.is_valid and not is_cut_short
            status, is_redirected = response.status_code, is_other(response.request, request)
            fault = read_fault(status, headers, b"" if is_found else body, is_cut_short=is_cut_short, secrets=secrets)
            incomplete = INCOMPLETE if is_cut_short and response.is_success else ""
            if words := coding_fault(headers, body, is_cut_short=is_cut_short) or incomplete:
                fault = replace(fault, message=plain(words, secrets=secrets))
            answer = Answer(
                status,
                fault,
                is_redirected=is_redirected,
                has_stale_token=self._note_credential(kind, request, status),
                location=_location(response, request, secrets) if is_redirected or 300 <= status < 400 else "",
            )
            if answer.status == 401 and isinstance(self._auth, CloudAuth):
                answer = replace(answer, remedy=self._auth.remedy(response))
            return answer, body
        if trace.withheld is not None:
            return Unsent(trace.withheld, is_withheld=True), b""
        words = f"no answer within {self._seconds:g} s"
        return (Unsent(words) if trace.is_unsent else Unanswered(words, may_come_late=True)), b""

    def _note_credential(self, kind: RequestKind, request: httpx.Request, status: int) -> bool:
        """Return whether an answer refuses credentials that the cloud has accepted with another request."""
        if isinstance(self._auth, Renewed):
            # A user who may not read action logs is refused there alone, and would be with a new token too.
            return self._auth.note(request, status, is_for_all=kind is not RequestKind.LOG)
        self._was_authenticated |= is_authenticated(status)
        return status == 401 and self._was_authenticated


def _explain(error: Exception, request: httpx.Request, trace: Trace, auth: httpx.Auth) -> Observation:
    failed = (_request_of(error) if isinstance(error, httpx.HTTPError) else None) or request
    _, host, port = address_of(failed)[0]
    address = peer(host, port, failed.extensions.get(PROXY))
    failure = None if isinstance(error, httpx.TimeoutException) else failure_of(error, address)
    text = _text_of(error, address) if failure is None else failure.words
    words, text = type(error).__name__, plain(text, secrets=secrets_of(failed, trace, auth))
    if text:
        words = f"{words}: {text}"
    is_ours = not is_other(failed, request)
    if not trace.is_unsent and not (is_ours and isinstance(error, httpx.PoolTimeout)):
        return Unanswered(words, isinstance(error, httpx.TimeoutException | TimeoutError))
    if failure is None:
        return Unsent(words)
    return Unsent(words, is_insecure=failure.is_insecure, is_local=failure.is_local, remedy=failure.remedy)


def _text_of(error: Exception, address: str) -> str:
    """Return the text of an error that is no failed connection; "" if the text may hold a secret."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"ETIMEDOUT {address}: no connection in time"
    # The text of a LocalProtocolError repeats the header that it is about, which may be the token.
    return "" if isinstance(error, httpx.LocalProtocolError) else str(error)


def _location(response: httpx.Response, request: httpx.Request, secrets: SecretMask) -> str:
    """Return the target of a redirect, without user, password and query, which may be secrets."""
    url = response.request.url
    if not is_other(response.request, request):
        named = response.headers.get("Location")
        if named is None:
            return ""
        try:
            url = url.join(named)
        except httpx.InvalidURL:
            return ""
    return plain(str(url.copy_with(userinfo=b"", query=None, fragment=None)), secrets=secrets)


def _request_of(error: httpx.HTTPError) -> httpx.Request | None:
    try:
        return error.request
    except RuntimeError:  # httpx raises it where an error was made without a request
        return None


def _read_headers(headers: httpx.Headers) -> Mapping[str, str]:
    """Read headers as httpx shows them, which for each name that it is asked for goes through all of them."""
    read: dict[str, str] = {}
    for name, value in headers.raw:
        key, text = name.lower().decode("latin-1"), value.decode("latin-1")
        read[key] = f"{read[key]}, {text}" if key in read else text
    return read


def _nothing(row: object, secrets: SecretMask) -> None:
    """Keep nothing of a row: no list is asked for."""


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _id(value: object) -> str | None:
    try:
        return check_id(value)
    except ValueError:
        return None


def _word(value: object) -> str | None:
    """Read the name of a state."""
    return _plain_word(value) if isinstance(value, str) else None


def _state(value: object) -> str | None:
    """Read a state in any letter case, as Nova's lower case; None without a state."""
    state = (_word(value) or "").lower()
    return None if state in _NO_STATE else state


def _time(value: object) -> float | None:
    """Read a time, in seconds since the epoch."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        # Nova writes its times in UTC, some of them without a zone.
        return None if moment is None else (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=128)
def _plain_word(text: str) -> str:
    return plain(text, _LONGEST_WORD)


def _read_server(row: object, secrets: SecretMask) -> Server | None:
    server_id = _id(_member(row, "id"))
    if server_id is None:
        return None
    locked = _member(row, "locked")
    status = (_word(_member(row, "status")) or "").upper()
    vm_state, task_state = (_state(_member(row, f"OS-EXT-STS:{name}")) for name in ("vm_state", "task_state"))
    by_status = STATES_OF.get(status)
    is_derived = by_status is not None and isinstance(row, dict) and "OS-EXT-STS:task_state" not in row
    if by_status is not None:
        vm_state = vm_state or by_status[0]
        task_state = by_status[1] if is_derived else task_state
    return Server(
        id=server_id,
        name=secrets.replace(_text(_member(row, "name")) or ""),
        status=status,
        vm_state=vm_state,
        task_state=task_state,
        is_derived=is_derived,
        locked=locked if isinstance(locked, bool) else None,
        fault=plain(_text(_member(_member(row, "fault"), "message")) or "", secrets=secrets),
        updated=_time(_member(row, "updated")),
        availability_zone=_text(_member(row, "OS-EXT-AZ:availability_zone")) or "",
        host_id=_text(_member(row, "hostId")) or "",
        tags=_texts(_member(row, "tags")),
        metadata=_pairs(_member(row, "metadata")),
        addresses=_addresses(_member(row, "addresses")),
    )


def _read_page(rows: Rows[Server | None], limit: int) -> Page | None:
    """Make a page of its rows; None if the answer has no list."""
    # Some clouds write null for an empty list.
    if not rows.has_list and rows.others.get("servers", "") is not None:
        return None
    servers = [server for server in rows.items if server is not None]
    links = [href for name in sorted(_LINKS) for href in _next_links(rows.others.get(name))]
    positions = [position for href in links if (position := _read_position(href)) is not None]
    return Page(
        servers,
        rows=len(rows.items),
        limit=limit,
        has_link=bool(links),
        next=positions[0] if positions else None,
        is_cut=rows.is_cut,
    )


def _next_links(value: object) -> list[object]:
    """Return the targets of links to the next page, in each of the formats that clouds use."""
    if isinstance(value, dict):
        # {"next": "..."}, or a single link outside of a list.
        return _next_links([value]) if "rel" in value else [href for href in [value.get("next")] if href]
    return [
        _member(link, "href")
        for link in _items(value)
        if isinstance(rel := _member(link, "rel"), str) and rel.lower() == "next"
    ]


def _read_position(href: object) -> Position | None:
    """Read the position in a link. The rest is ignored: the link may name another host, or http instead of https."""
    if not isinstance(href, str):
        return None
    try:
        query = parse_qs(urlsplit(href).query, errors="strict", max_num_fields=100)
    except ValueError:
        return None
    for name in ("marker", "offset"):
        value = query.get(name, [""])[0]
        if value and value.isprintable() and len(value) <= _LONGEST_POSITION:
            return Position(name, value)
    return None


def _with_fault(seen: Answer, body: bytes, secrets: SecretMask) -> Answer:
    """Read what a success says where it does not hold what was asked for."""
    fault = read_fault(seen.status, {}, body, secrets=secrets)
    retry_after = fault.retry_after if seen.fault.retry_after is None else seen.fault.retry_after
    return replace(seen, fault=replace(fault, retry_after=retry_after, request_id=seen.fault.request_id))


def _read_group(row: object, _: SecretMask) -> ServerGroup | None:
    group_id, listed = _text(_member(row, "id")), _member(row, "members")
    if group_id is None or not isinstance(listed, list):
        return None
    # Up to microversion 2.63 there is a list of policies, of which Nova takes one.
    policies = [_member(row, "policy"), *_items(_member(row, "policies"))]
    members = [server_id for one in listed if (server_id := _id(one)) is not None]
    is_anti_affine = any(policy in ("anti-affinity", "soft-anti-affinity") for policy in policies)
    return ServerGroup(group_id, is_anti_affine, members)


def _addresses(networks: object) -> tuple[Address, ...]:
    """Read the addresses in all networks: floating ones first, then version 4, else as they are listed."""
    addresses = [
        address
        for network, items in (networks.items() if isinstance(networks, dict) else ())
        for item in _items(items)
        if (address := _address(network, item)) is not None
    ]
    return tuple(sorted(addresses, key=lambda address: (not address.is_floating, address.version)))


def _address(network: str, item: object) -> Address | None:
    address, version = _text(_member(item, "addr")), _member(item, "version")
    if address is None or not isinstance(version, int) or version not in (4, 6):
        return None
    is_floating = _member(item, "OS-EXT-IPS:type") == "floating"
    return Address(address=address, network=network, version=version, is_floating=is_floating)


def _texts(value: object) -> tuple[str, ...] | None:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else None


def _pairs(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(name, str) and isinstance(text, str)}


def _read_log(rows: Sequence[Action | None]) -> tuple[Action, ...] | None:
    """Return the rows of an action log, the newest reboot first; None if one that may be a reboot cannot be read."""
    if None in rows:
        return None
    return tuple(sorted((row for row in rows if row is not None), key=lambda row: -row.start_time))


def _read_action(row: object, _: SecretMask) -> Action | None:
    """Read a row of the action log; None if it may be a reboot whose time or request id cannot be read.

    For any other action of Nova's the name is enough. Without a readable time, such a row counts as one from long ago.
    """
    name, request_id = (_text(_member(row, key)) for key in ("action", "request_id"))
    name = (name or "").strip().lower()
    if REBOOT in name:
        # Clouds have names of their own, such as "os-reboot" and "rebootServer".
        name = REBOOT
    start_time = _time(_member(row, "start_time"))
    # The request id may become part of a path, and one that is not printable may not even be UTF-8.
    is_odd = start_time is None or request_id is None or not request_id.isprintable()
    if not name or (is_odd and name == REBOOT) or (start_time is None and name not in OTHER_ACTIONS):
        return None
    events = _member(row, "events")
    results = [_member(row, "message"), *(_member(event, "result") for event in _items(events))]
    return Action(
        action=name,
        request_id="" if is_odd or request_id is None else request_id,
        start_time=start_time or 0.0,
        user_id=_text(_member(row, "user_id")) or "",
        is_error=any(isinstance(result, str) and result.strip().lower() == "error" for result in results),
        is_finished=_is_finished(events) if isinstance(events, list) else None,
    )


def _is_finished(events: Sequence[object]) -> bool | None:
    """Return whether all events of a row have finished; None if one of them does not tell.

    Without any event, no host has begun.
    """
    ends = [_is_event_finished(event) for event in events]
    if not ends or False in ends:
        return False
    return None if None in ends else True


def _is_event_finished(event: object) -> bool | None:
    """Return whether an event has finished; None if it has no member that tells.

    Until an event has finished, Nova writes null; other clouds write an empty string.
    """
    told = [event[name] for name in ("finish_time", "result") if name in event] if isinstance(event, dict) else []
    return bool(told[0]) if told else None
