"""A network that fails, on loopback: a proxy before a cloud that loses, cuts, stalls, delays and resets connections.

What it does to a request is chosen for it, never by what the cloud answers. It knows one request at a time of each
connection, and delivers none twice unless it is told to.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

import anyio
import anyio.abc
import h11
import httpx
from anyio.from_thread import start_blocking_portal

from tests.cloud.loopback import Connection, listening, reset

#: Connections that are served at once; more wait for one of them to end.
MOST_CONNECTIONS: Final = 500
#: What a choice is made for besides requests: a connection that was just opened, and one that has carried an answer.
OPENED: Final = "opened"
KEPT: Final = "kept"


class Kind(StrEnum):
    """What becomes of a request, or of its connection."""

    #: Delivered; closed in place of the answer.
    LOST = "lost"
    #: Read, and closed; never delivered.
    CUT = "cut"
    #: Closed before a byte was read of it, on a connection that was just opened.
    REFUSED = "refused"
    #: A kept connection is closed right behind an answer. A client that is quick meets this in its next request.
    DROPPED = "dropped"
    #: Delivered; the answer is held back until the client gives up.
    STALL = "stall"
    #: Never delivered, and never answered.
    STALL_BEFORE = "stall_before"
    #: Delivered; reset (RFC 9293, section 3.10.5) in place of the answer.
    RESET = "reset"
    #: Delivered; closed after the first half of the answer: within the head of one that has no body.
    TRUNCATE = "truncate"
    #: Closed at once, and delivered later.
    LATE = "late"
    #: Delivered, and delivered again behind that; the client gets the second answer.
    TWICE = "twice"


#: The kinds that a request may meet, as against a connection; the first are over at once, a stall when the client
#: gives up. A look that is delivered late is a look that is cut.
QUICK_SENDS: Final = (Kind.LOST, Kind.CUT, Kind.RESET, Kind.TRUNCATE, Kind.LATE)
STALLS: Final = (Kind.STALL, Kind.STALL_BEFORE)
QUICK_LOOKS: Final = (Kind.LOST, Kind.CUT, Kind.RESET, Kind.TRUNCATE)

#: Chooses for what comes: `OPENED`, `KEPT`, or the method and the path of a request; and how many of the same came
#: before it. None: nothing is done to it.
Choose = Callable[[str, int], Kind | None]


def seeded(
    seed: int,
    *,
    sends: float,
    looks: float = 0.0,
    connections: float = 0.0,
    send_kinds: Sequence[Kind] = QUICK_SENDS,
    look_kinds: Sequence[Kind] = QUICK_LOOKS,
) -> Choose:
    """Choose by lot: the same seed is the same fate for the nth request for a path, whatever comes between.

    Args:
        seed: Of all lots.
        sends: Share of the requests to `.../action` that meet a fault.
        looks: Share of the GETs.
        connections: Share of the connections that are closed when they were just opened; the same share of answers is
            followed by a close.
        send_kinds: What a send may meet, each as often.
        look_kinds: What a look may meet, each as often.
    """

    def choose(what: str, number: int) -> Kind | None:
        lot = Random(f"{seed} {what} {number}")
        if what in (OPENED, KEPT):
            share, kinds = connections, [Kind.REFUSED if what == OPENED else Kind.DROPPED]
        elif is_send(what):
            share, kinds = sends, [*send_kinds]
        else:
            share, kinds = looks, [*look_kinds]
        return lot.choice(kinds) if lot.random() < share else None

    return choose


def nothing(_: str, __: int) -> None:
    """Choose that everything passes."""


def first_sends(fates: Mapping[str, Kind | None], others: Choose = nothing) -> Choose:
    """Choose for the first send to each server what stands for it, and let all later ones pass.

    Args:
        fates: What the first send meets, by server id.
        others: Chooses for all that is no send.
    """

    def choose(what: str, number: int) -> Kind | None:
        if not is_send(what):
            return others(what, number)
        server_id = what.split("/")[-2]
        return fates[server_id] if number == 0 else None

    return choose


def is_send(what: str) -> bool:
    """Tell whether a choice is made for a reboot action."""
    return what.startswith("POST ") and what.endswith("/action")


@dataclass(frozen=True, slots=True)
class _Request:
    """A whole request.

    Attributes:
        what: Its method and its path, without the query: a list of changes is another at each moment.
        parts: What h11 read of it.
    """

    what: str
    parts: Sequence[h11.Event]


class FaultyProxy:
    """A proxy between clients and a cloud; `faulty_proxy` runs it.

    Args:
        endpoint: The cloud's compute endpoint, on loopback.
        choose: Chooses what becomes of requests and connections.
        late: Seconds after which a late request is delivered.

    Attributes:
        endpoint: The compute endpoint by way of the proxy; "" while it does not run.
        came: How many requests and connections there were, by what a choice was made for.
        sends: How many sends met each kind.
        looks: How many other requests did.
        connections: How many connections did.
        again: How many requests of each path were delivered a second time.
    """

    def __init__(self, endpoint: str, choose: Choose, *, late: float) -> None:
        self.endpoint = ""
        self.came: Counter[str] = Counter()
        self.sends: Counter[Kind] = Counter()
        self.looks: Counter[Kind] = Counter()
        self.connections: Counter[Kind] = Counter()
        self.again: Counter[str] = Counter()
        self._cloud = httpx.URL(endpoint)
        self._choose = choose
        self._late = late
        # Made by `run`, in the loop that they belong to.
        self._places: anyio.Semaphore
        self._belated: anyio.abc.TaskGroup
        self._stopped: anyio.Event

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Serve until it is stopped; what is late is still delivered."""
        self._places, self._stopped = anyio.Semaphore(MOST_CONNECTIONS), anyio.Event()
        async with anyio.create_task_group() as self._belated, listening(self._serve) as address:
            self.endpoint = f"http://{address}{self._cloud.path}"
            task_status.started()
            await self._stopped.wait()
            self.endpoint = ""

    async def stop(self) -> None:
        """Take no more requests, and close the connections that are open."""
        self._stopped.set()

    async def _serve(self, client: Connection) -> None:
        async with self._places:
            if self._meet(OPENED, self.connections):
                return
            while (request := await _read_request(client)) and await self._carry(client, request):
                if self._meet(KEPT, self.connections):
                    return

    def _meet(self, what: str, counts: Counter[Kind]) -> Kind | None:
        kind = self._choose(what, self.came[what])
        self.came[what] += 1
        if kind is not None:
            counts[kind] += 1
        return kind

    async def _carry(self, client: Connection, request: _Request) -> bool:
        """Let a request meet its fate; tell whether its connection goes on."""
        match self._meet(request.what, self.sends if is_send(request.what) else self.looks):
            case None:
                answer, is_last = await self._deliver(request)
                await client.send(answer)
                return not is_last
            case Kind.TWICE:
                await self._deliver(request)
                self.again[request.what.partition(" ")[2]] += 1
                answer, is_last = await self._deliver(request)
                await client.send(answer)
                return not is_last
            case Kind.CUT | Kind.REFUSED | Kind.DROPPED:
                pass
            case Kind.LATE:
                self._belated.start_soon(self._deliver_late, request)
            case Kind.LOST:
                await self._deliver(request)
            case Kind.RESET:
                await self._deliver(request)
                reset(client)
            case Kind.TRUNCATE:
                answer, _ = await self._deliver(request)
                await client.send(answer[: len(answer) // 2])
            case Kind.STALL:
                await self._deliver(request)
                await client.receive()
            case Kind.STALL_BEFORE:
                await client.receive()
        return False

    async def _deliver_late(self, request: _Request) -> None:
        await anyio.sleep(self._late)
        await self._deliver(request)

    async def _deliver(self, request: _Request) -> tuple[bytes, bool]:
        """Ask the cloud; give its whole answer, and whether it ends the connection.

        Each request has a connection of its own to the cloud: none is ever lost because a kept one was closed.
        """
        h11_side = h11.Connection(h11.CLIENT)
        sent = b"".join(h11_side.send(part) or b"" for part in request.parts)
        assert self._cloud.port is not None, "a cloud on loopback has a port"
        async with await anyio.connect_tcp(self._cloud.host, self._cloud.port) as cloud:
            try:
                await cloud.send(sent)
                answer, _ = await _read(cloud, h11_side)
            except (anyio.BrokenResourceError, h11.RemoteProtocolError) as error:
                # Not a fault that was asked for: whoever counts must know.
                raise ConnectionError(f"the cloud itself did not answer: {request.what}") from error
        return answer, h11_side.their_state is not h11.DONE


async def _read_request(client: Connection) -> _Request | None:
    """Read one request; None if the client closed the connection instead."""
    h11_side = h11.Connection(h11.SERVER)
    try:
        _, parts = await _read(client, h11_side)
    except (anyio.BrokenResourceError, h11.RemoteProtocolError):
        return None
    if not parts:
        return None
    [head] = [part for part in parts if isinstance(part, h11.Request)]
    return _Request(f"{head.method.decode()} {head.target.partition(b'?')[0].decode()}", parts)


async def _read(connection: Connection, h11_side: h11.Connection) -> tuple[bytes, Sequence[h11.Event]]:
    """Read one message as it came, and its parts; no parts if the connection was closed before it began."""
    raw, parts = bytearray(), list[h11.Event]()
    while True:
        part = h11_side.next_event()
        if part is h11.NEED_DATA:
            try:
                received = await connection.receive()
            except anyio.EndOfStream:
                received = b""
            raw += received
            h11_side.receive_data(received)
        elif isinstance(part, h11.ConnectionClosed):
            return bytes(raw), ()
        elif isinstance(part, h11.EndOfMessage):
            return bytes(raw), (*parts, part)
        else:
            assert isinstance(part, h11.Event), "requests do not come before the answer to the one before"
            parts.append(part)


@contextmanager
def faulty_proxy(endpoint: str, choose: Choose, *, late: float = 5.0) -> Iterator[FaultyProxy]:
    """Run a proxy before a cloud, in a thread of its own, until the block ends.

    Args:
        endpoint: The cloud's compute endpoint, on loopback.
        choose: Chooses what becomes of requests and connections.
        late: Seconds after which a late request is delivered. The library allows for 10 s of SOFT, and for 90 s of HARD
            and after a time-out.

    Raises:
        ExceptionGroup: Of a ConnectionError, at the end of the block: the cloud itself did not answer.
    """
    proxy = FaultyProxy(endpoint, choose, late=late)
    # On trio, because on asyncio a close says FIN before it resets.
    with start_blocking_portal("trio") as portal:
        running, _ = portal.start_task(proxy.run)
        try:
            yield proxy
        finally:
            portal.call(proxy.stop)
            running.result()
