"""The compute API: each method is one request. Here, and nowhere else, exceptions become observations."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeVar
from urllib.parse import quote

import anyio
import httpx

from bulkrestart.cloud.body import read_body
from bulkrestart.cloud.credentials import CloudAuth, Renewed, shows_known
from bulkrestart.cloud.masking import secrets_of
from bulkrestart.cloud.rows import Rows
from bulkrestart.cloud.sender import Draft, Sender, Trace, is_other
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.endpoint import Endpoint, check_id
from bulkrestart.core.faults import Body, cloud_time, plain, read_fault
from bulkrestart.core.model import Action, Address, RebootType, Server
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.secrets import NO_SECRETS, SecretMask
from bulkrestart.core.stall import RequestKind
from bulkrestart.core.states import STATES_OF

T = TypeVar("T")
R = TypeVar("R")

#: What Huawei Cloud and Open Telekom Cloud document as their newest (Nova's Queens release), and enough for all that
#: is read here: `locked` needs 2.9, the events of an action 2.51, both for members of the project.
MICROVERSION: Final = (2, 60)
#: Servers a page: Nova's default `max_limit`; more is refused by Huawei Cloud.
PAGE_LIMIT: Final = 1000

#: Bytes that are read of an answer to a send, of one server or its log, and of a page; the rest is cut off. The last
#: is ten times a page of a thousand servers at 5 KiB each. A page is parsed as it arrives, and its bytes are not kept.
_FAULT_BOUND: Final = 64 * 1024
_RECORD_BOUND: Final = 1024 * 1024
_PAGE_BOUND: Final = 50 * 1024 * 1024
_BODIES: Final = {reboot_type: json.dumps({"reboot": {"type": reboot_type}}).encode() for reboot_type in RebootType}
#: Nova translates its messages (nova/i18n.py), and the decisions read them.
_HEADERS: Final = {"Accept": "application/json", "Accept-Language": "en"}
_LONGEST_WORD: Final = 64
#: The action of our rows in the action log.
_REBOOT: Final = "reboot"
#: What stands for no state where a cloud writes a word for it.
_NO_STATE: Final = frozenset({"", "none", "null", "-"})
_MAXIMUM: Final = re.compile(r"maximum is (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of servers.

    Attributes:
        servers: The servers of the page.
        marker: What the next page begins after; None at the last one.
        unread: How many rows of the page have no id that can be read.
    """

    servers: Sequence[Server]
    marker: str | None
    unread: int = 0


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


class Compute:
    """One project's servers, over a sender that is owned elsewhere.

    Args:
        endpoint: Where they are.
        sender: What sends.
        auth: How to sign; None for not at all.
        clock: Learns the cloud's time from every answer.
        timeout: Seconds for one request, from its first byte to the answer's last.
        record: Called with what each request was for, how it ended, the server that it was about, and when it left;
            None: no call.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        sender: Sender,
        auth: httpx.Auth | None,
        clock: CloudClock,
        timeout: float,
        record: Callable[[RequestKind, object, str | None, float], None] | None = None,
    ) -> None:
        self._sender = sender
        self._record = record
        self._auth = auth or httpx.Auth()
        self._clock = clock
        self._seconds = timeout
        self._was_let_in = False
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
        sent = anyio.current_time()
        seen, _ = await self._exchange(RequestKind.SEND, self._reboots[reboot_type], path, _FAULT_BOUND, veto=veto)
        return self._recorded(RequestKind.SEND, seen, sent, server_id)

    async def show(self, server_id: str) -> Server | Observation:
        """`GET /servers/{server_id}`."""
        rows = Rows("", _nothing, frozenset({"server"}))
        path = f"/servers/{quote(server_id, safe='')}"
        sent = anyio.current_time()
        seen = await self._ask(
            RequestKind.SERVER,
            path,
            _RECORD_BOUND,
            rows,
            lambda: _read_server(rows.others.get("server"), rows.secrets),
        )
        return self._recorded(RequestKind.SERVER, seen, sent, server_id)

    async def page(
        self,
        *,
        marker: str | None = None,
        changes_since: float | None = None,
        filters: Mapping[str, str] | None = None,
    ) -> Page | Observation:
        """`GET /servers/detail`, one page.

        Args:
            marker: The id that the page begins after; None for the first page.
            changes_since: Only servers that changed since then, the deleted among them; seconds since the epoch, by
                the cloud's clock. None for all.
            filters: What the cloud may leave out, as it names it; it ignores what it does not know.
        """
        query = {"limit": str(PAGE_LIMIT), **(filters or {})}
        if marker is not None:
            query["marker"] = marker
        if changes_since is not None:
            query["changes-since"] = datetime.fromtimestamp(changes_since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows = Rows("servers", _read_server, frozenset({"servers_links"}))
        sent = anyio.current_time()
        seen = await self._ask(RequestKind.LIST, "/servers/detail", _PAGE_BOUND, rows, lambda: _read_page(rows), query)
        return self._recorded(RequestKind.LIST, seen, sent)

    async def groups(self, *, offset: int = 0) -> Sequence[ServerGroup] | Observation:
        """`GET /os-server-groups`, one page: it is the last if it is empty.

        Args:
            offset: How many groups came before.
        """
        query = {"limit": str(PAGE_LIMIT), "offset": str(offset)}
        rows = Rows("server_groups", _read_group)
        sent = anyio.current_time()
        seen = await self._ask(
            RequestKind.GROUPS,
            "/os-server-groups",
            _PAGE_BOUND,
            rows,
            lambda: rows.items if rows.has_list else None,
            query,
        )
        return self._recorded(RequestKind.GROUPS, seen, sent)

    async def actions(self, server_id: str) -> tuple[Action, ...] | Observation:
        """`GET /servers/{server_id}/os-instance-actions`: the action log, the newest row first, without events."""
        path = f"/servers/{quote(server_id, safe='')}/os-instance-actions"
        rows = Rows("instanceActions", _read_action)
        sent = anyio.current_time()
        seen = await self._ask(
            RequestKind.LOG, path, _RECORD_BOUND, rows, lambda: _read_log(rows.items) if rows.has_list else None
        )
        return self._recorded(RequestKind.LOG, seen, sent, server_id)

    async def action(self, server_id: str, request_id: str) -> tuple[Action, ...] | Observation:
        """`GET /servers/{server_id}/os-instance-actions/{request_id}`: a log of that one row, with its events."""
        path = f"/servers/{quote(server_id, safe='')}/os-instance-actions/{quote(request_id, safe='')}"
        rows = Rows("", _nothing, frozenset({"instanceAction"}))
        sent = anyio.current_time()
        seen = await self._ask(
            RequestKind.LOG,
            path,
            _RECORD_BOUND,
            rows,
            lambda: _read_log([_read_action(rows.others.get("instanceAction"), rows.secrets)]),
        )
        return self._recorded(RequestKind.LOG, seen, sent, server_id)

    def _recorded(self, asked: RequestKind, seen: T, sent: float, server_id: str | None = None) -> T:
        if self._record is not None:
            self._record(asked, seen, server_id, sent)
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
    ) -> T | Observation:
        """Make a request that changes nothing, and let `rows` parse its answer.

        Returns:
            What `take` returns after the answer was parsed; or what came instead of such an answer.
        """
        seen, body = await self._exchange(kind, self._read, path, bound, query, rows=rows)
        if not isinstance(seen, Answer) or seen.status != 200 or seen.fault.body is Body.CUT_SHORT:
            return seen
        if not rows.is_valid:
            return seen
        found = take()
        return _with_fault(seen, body, rows.secrets) if found is None else found

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
            answer = Answer(
                response.status_code,
                read_fault(
                    response.status_code,
                    headers,
                    b"" if is_found else body,
                    is_cut_short=is_cut_short,
                    secrets=secrets,
                ),
                is_redirected=is_other(response.request, request),
                has_stale_token=self._note_credential(kind, request, response.status_code),
            )
            if answer.status == 401 and isinstance(self._auth, CloudAuth):
                answer = replace(answer, remedy=self._auth.remedy(response))
            return answer, body
        if trace.withheld is not None:
            return Unsent(trace.withheld, is_withheld=True), b""
        words = f"no answer within {self._seconds:g} s"
        return (Unsent(words) if trace.is_unsent else Unanswered(words, may_come_late=True)), b""

    def _note_credential(self, kind: RequestKind, request: httpx.Request, status: int) -> bool:
        """Return whether an answer refuses what the cloud has accepted from another request."""
        if isinstance(self._auth, Renewed):
            # Who may not read action logs is refused there alone: another token would be refused as well.
            return self._auth.note(request, status, is_for_all=kind is not RequestKind.LOG)
        self._was_let_in |= shows_known(status)
        return status == 401 and self._was_let_in


def _explain(error: Exception, request: httpx.Request, trace: Trace, auth: httpx.Auth) -> Observation:
    words = type(error).__name__
    failed = (_request_of(error) if isinstance(error, httpx.HTTPError) else None) or request
    # The text of a LocalProtocolError repeats the header that it is about, which may be the token.
    if not isinstance(error, httpx.LocalProtocolError) and (text := _text_of(error, secrets_of(failed, trace, auth))):
        words = f"{words}: {text}"
    is_ours = not is_other(failed, request)
    is_unsent = trace.is_unsent or (is_ours and isinstance(error, httpx.PoolTimeout))
    return Unsent(words) if is_unsent else Unanswered(words, isinstance(error, httpx.TimeoutException | TimeoutError))


def _text_of(error: Exception, secrets: SecretMask) -> str:
    """Read what an error says. Where TLS fails on trio, httpx's is empty: then what it came from."""
    source: BaseException | None = error
    if isinstance(error, httpx.ConnectError):
        while source is not None and not str(source):
            source = source.__cause__ or source.__context__
    return plain(str(source or ""), secrets=secrets)


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
    """Read a state, which Nova writes in lower case; None where there is none."""
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


def _read_page(rows: Rows[Server | None]) -> Page | None:
    """Make a page of its rows; None if the answer has no list."""
    if not rows.has_list:
        return None
    servers = [server for server in rows.items if server is not None]
    links = _items(rows.others.get("servers_links"))
    has_next = len(rows.items) >= PAGE_LIMIT or any(_member(link, "rel") == "next" for link in links)
    marker = servers[-1].id if servers and has_next else None
    return Page(servers, marker, unread=len(rows.items) - len(servers))


def _with_fault(seen: Answer, body: bytes, secrets: SecretMask) -> Answer:
    """Read what a success says where it does not hold what was asked for."""
    fault = read_fault(seen.status, {}, body, secrets=secrets)
    retry_after = fault.retry_after if seen.fault.retry_after is None else seen.fault.retry_after
    return replace(seen, fault=replace(fault, retry_after=retry_after, request_id=seen.fault.request_id))


def _read_group(row: object, _: SecretMask) -> ServerGroup:
    # Up to microversion 2.63 there is a list of policies, of which Nova takes one.
    policies = [_member(row, "policy"), *_items(_member(row, "policies"))]
    members = [server_id for one in _items(_member(row, "members")) if (server_id := _id(one)) is not None]
    is_anti_affine = any(policy in ("anti-affinity", "soft-anti-affinity") for policy in policies)
    return ServerGroup(_text(_member(row, "id")) or "", is_anti_affine, members)


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
    """Read a row of the action log; None if it may be a reboot, and does not say which.

    Of another action no more is needed than its name. Without a time that can be read it counts as ended long ago.
    """
    name, request_id = (_text(_member(row, key)) for key in ("action", "request_id"))
    name = (name or "").strip().lower()
    start_time = _time(_member(row, "start_time"))
    # It may become part of a path, and what is not printable may not even be UTF-8.
    is_odd = start_time is None or request_id is None or not request_id.isprintable()
    if not name or (name == _REBOOT and is_odd):
        return None
    events = _member(row, "events")
    results = [_member(row, "message"), *(_member(event, "result") for event in _items(events))]
    # Nova writes null for what has not finished, other clouds an empty string.
    finishes = [_member(event, "finish_time") for event in _items(events)]
    return Action(
        action=name,
        request_id="" if is_odd or request_id is None else request_id,
        start_time=start_time or 0.0,
        user_id=_text(_member(row, "user_id")) or "",
        is_error=any(isinstance(result, str) and result.strip().lower() == "error" for result in results),
        is_finished=bool(finishes) and all(finishes) if isinstance(events, list) else None,
    )
