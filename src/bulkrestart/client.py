"""What users hold: a client of one project's servers, and a run over some of them."""

import os
import random
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

import anyio
import httpx
from anyio.lowlevel import current_token

from bulkrestart.cloud.compute import Compute
from bulkrestart.cloud.credentials import CatalogAuth, Renewed
from bulkrestart.cloud.network import proxy_of, tls_context
from bulkrestart.cloud.proxied import ProxiedTransport
from bulkrestart.cloud.seam import Seam
from bulkrestart.cloud.sender import LaneSender, LentSender, Sender
from bulkrestart.cloud.transport import LaneTransport
from bulkrestart.core.arguments import check_count, check_rate
from bulkrestart.core.checkpoint import RunIdentity
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.endpoint import Endpoint, check_id
from bulkrestart.core.errors import EndpointError
from bulkrestart.core.faults import plain
from bulkrestart.core.model import RebootType, Server, ServerResult, Stop, StopReason, Verify
from bulkrestart.core.options import Options, parse_deadline, parse_reboot_type, parse_since
from bulkrestart.core.pages import PageSize
from bulkrestart.core.plan import Plan
from bulkrestart.core.report import Ledger, Report, Statistics
from bulkrestart.core.rollout import Domain, Rollout
from bulkrestart.core.selection import Selection
from bulkrestart.core.stall import STALL_TIMEOUT, bound
from bulkrestart.core.target import Target
from bulkrestart.engine.limiter import RequestLimiter, RunLimiter
from bulkrestart.engine.stall import StallWatch
from bulkrestart.limits.admission import Admission
from bulkrestart.run.crew import unhurried
from bulkrestart.run.fleet import Fleet
from bulkrestart.run.groups import read_anti_affinity
from bulkrestart.run.listing import Listing
from bulkrestart.run.planning import make_plan
from bulkrestart.run.preflight import Preflight, require_sign_in
from bulkrestart.run.recorder import read_ahead, recording

#: Seconds for one request where the caller has no say in it.
_REQUEST_TIMEOUT = 60.0

Ids = Iterable[str | Server] | AsyncIterable[str | Server]


class Run:
    """A run under way: an async iterator of results, each server once, as it gets its outcome.

    A slow reader does not hold the fleet back. `RestartClient.restarting` makes it.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerResult:
        result = await self._fleet.account.next_result()
        if result is None:
            raise StopAsyncIteration
        return result

    @property
    def report(self) -> Report:
        """The report as things stand: at any moment, also when the run is over or was cancelled.

        While the run goes on, a server that was not sent to is `skipped` (`not_started`), one whose answer is not in
        is `in_doubt` (`in_flight`), one that is being waited for is `accepted`, and one that is being checked is
        `completed`.
        """
        return self._fleet.account.report()

    def stop(self) -> None:
        """Send nothing more. What was sent is followed to its end; the rest is `skipped`."""
        self._fleet.halt(Stop(StopReason.ASKED, "the run was asked to stop"))

    def statistics(self) -> Statistics:
        """Count where the servers are at this moment."""
        return self._fleet.statistics()


class RestartClient:
    """Restarts servers of one project.

    It holds no task group: it may be built outside an event loop, entered in one task and closed in another. Any
    number of tasks may call it at once; they share its bound on requests, its pauses and its connections. All of them
    are tasks of one event loop: a second `asyncio.run` or `trio.run` needs a client of its own.

    Args:
        endpoint: The project's compute endpoint, `https://HOST/v2.1/PROJECT_ID` or `.../v2/PROJECT_ID`, as the
            service catalogue shows it. None where `auth` knows it, as `from_cloud` has it.
        auth: How requests are signed: `Token("...")`, a `Token` with a function that gives one, an `AccessKey`, or any
            `httpx.Auth`. None leaves them as they are, or as `http` signs them.
        http: A client of yours to send with: its proxies, TLS, hooks and cookies are used, and its own auth unless
            `auth` is given. Redirects are not followed, its time-outs do not count, and it is never closed. A
            transport in it that sends a request again by itself voids the promise that no server is rebooted twice.
            None for a client of our own, whose cost does not grow with the number of requests at once. It goes
            through the proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY`).
        verify: Whose certificates our own client trusts: True for those of the system, an `ssl.SSLContext` for others
            or for a certificate of one's own, False for anybody's, with a warning.
        max_at_once: Requests in flight at once, over all concurrent calls.
        max_per_second: Requests a second, of whatever kind, over all concurrent calls; polls and looks before sends.
            Time in which nothing was sent makes no room for more afterwards. A look that has to come right before a
            send leaves with it, and both count. None for no bound.
        adaptive: Whether to lower the number of requests in flight when the cloud is overloaded. True halves it when
            the cloud throttles, and raises it again one by one (AIMD, as in TCP). It also lowers the number, to what
            the API can work on, when a large share of the requests that left together is answered 503 or not in time;
            a few faulty servers do not lower it. "latency" also measures how long sends take, to find how many requests
            the API works on at once: more would only wait in its queue. It begins with 10, so it takes some hundred
            sends until it is fast on a fast API (the gradient controller of Envoy's adaptive concurrency filter). False
            keeps `max_at_once`. With each of them, after a pause of all requests one request leaves first, and the
            others follow as answers come.

    Raises:
        ValueError: An argument makes no sense; the message names the remedy.

    Example:
        ```python
        async with RestartClient("https://compute.example.com/v2.1/PROJECT_ID", auth=Token("...")) as client:
            report = await client.restart(server_ids)
        ```
    """

    def __init__(
        self,
        endpoint: str | None,
        *,
        auth: httpx.Auth | None = None,
        http: httpx.AsyncClient | None = None,
        verify: bool | ssl.SSLContext = True,
        max_at_once: int = 50,
        max_per_second: float | None = None,
        adaptive: bool | Literal["latency"] = True,
    ) -> None:
        check_count("max_at_once", max_at_once)
        check_rate("max_per_second", max_per_second)
        if not isinstance(adaptive, bool) and adaptive != "latency":
            raise ValueError(f'adaptive must be True, False or "latency", not {adaptive!r:.40}')
        if auth is not None and not isinstance(auth, httpx.Auth):
            kind = "a class" if isinstance(auth, type) else type(auth).__name__
            raise ValueError(f'auth must be Token("...") or another httpx.Auth, not {kind}')
        if http is not None and not isinstance(http, httpx.AsyncClient):
            raise ValueError(f"http must be an httpx.AsyncClient, not {type(http).__name__}")
        if not isinstance(verify, bool | ssl.SSLContext):
            raise ValueError(f"verify must be True, False or an ssl.SSLContext, not {type(verify).__name__}")
        if http is not None and verify is not True:
            raise ValueError("verify is for a client of our own: set up the one that is lent")
        self._target: Target | None = None
        if endpoint is not None or not isinstance(auth, CatalogAuth):
            parsed = _parse_endpoint(endpoint)
            self._target = Target(endpoint=parsed.url, project_id=parsed.project_id)
        self._auth = auth
        self._verify = tls_context(verify=False) if verify is False else verify
        self._max_at_once = max_at_once
        self._max_per_second = max_per_second
        self._page_size = PageSize()
        self._request_limiter = RequestLimiter(Admission(max_at_once, max_per_second, adaptive))
        self._clock = CloudClock()
        self._rng = random.Random()
        self._sender: Sender | None = None if http is None else LentSender(http)
        self._is_closed = False
        self._loop: object = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; a lent client stays open.

        Raises:
            RuntimeError: The connections belong to another event loop.
        """
        self._is_closed = True
        if isinstance(self._sender, LaneSender):
            self._keep_to_loop()
            await self._sender.aclose()

    @classmethod
    def from_cloud(
        cls,
        name: str | None = None,
        *,
        region: str | None = None,
        interface: str | None = None,
        project: str | None = None,
        max_at_once: int = 50,
        max_per_second: float | None = None,
        adaptive: bool | Literal["latency"] = True,
    ) -> Self:
        """Make a client of a cloud that the OpenStack tools know: by clouds.yaml, or by `OS_*` variables.

        They are read as `openstack` (python-openstackclient) reads them in the same shell: the auth types of
        keystoneauth1, secure.yaml, vendor profiles (`otc`), region, interface, `compute_endpoint_override`, and
        `verify`, `cacert`, `cert` and `key`. An `OS_*` variable overrides the file, also for a named cloud. Settings
        that contradict each other are refused, and so is a cloud with several regions if none is named. The network is
        not used yet, unless a profile is a URL: the client signs in and reads the catalog at the first use.

        Args:
            name: The cloud in clouds.yaml; None for `OS_CLOUD`, or for the cloud that the `OS_*` variables describe.
            region: The region. It overrides `OS_REGION_NAME`, which overrides the file. None: they decide.
            interface: "public", "internal" or "admin". It overrides `OS_INTERFACE` and the file. None: they decide.
            project: The project. It overrides `OS_PROJECT_NAME`, `OS_PROJECT_ID` and the file. 32 hexadecimal digits,
                with or without dashes, are an id; anything else is a name in the configured project domain. None: they
                decide.
            max_at_once: Requests in flight at once, over all concurrent calls.
            max_per_second: Requests a second; `RestartClient` says more.
            adaptive: Whether to lower the number in flight when the cloud is overloaded; see `RestartClient`.

        Raises:
            ValueError: There is no such cloud, a setting is missing, settings contradict each other, or the cloud has
                several regions and none is named.
            ImportError: The extra `openstack` is not installed.

        Example:
            ```python
            async with RestartClient.from_cloud("production") as client:
                report = await client.restart(client.servers(tags="kernel-fix"))
            ```
        """
        # It takes half a second, which is for those to pay who use it.
        from bulkrestart.cloud.keystone import Keystone, Overrides

        keystone = Keystone.from_cloud(name, Overrides(region=region, interface=interface, project=project))
        return cls(
            None,
            auth=keystone,
            verify=keystone.tls_context(),
            max_at_once=max_at_once,
            max_per_second=max_per_second,
            adaptive=adaptive,
        )

    async def locate(self) -> Target:
        """Return the project whose servers a run would restart: cloud, region, project and endpoint.

        The client signs in first if only the catalog knows the endpoint.

        Raises:
            AuthError: The sign-in fails.
            EndpointError: The catalog has no compute API, or has it in several regions and none is named.
            RuntimeError: The client has been used in another event loop.
        """
        self._check_usable()
        return await self._locate()

    def servers(
        self,
        *,
        name: str | None = None,
        status: str | Collection[str] = (),
        tags: str | Collection[str] = (),
        az: str | Collection[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Server]:
        """List the servers of the project to which everything fits that is given; all of them if nothing is.

        They come as the cloud lists them, each once, and a page is read when it is needed. What a cloud's own filters
        leave out is checked again here, because clouds ignore a filter that they do not know.

        Args:
            name: A regular expression that is found in the name (`re.search`).
            status: One status, or several of which one fits: "ACTIVE", "SHUTOFF".
            tags: One tag, or several, all of which the server carries. Needs microversion 2.26.
            az: One availability zone, or several of which one fits.
            metadata: Keys and values, all of which the server's metadata holds.

        Raises:
            ValueError: An argument makes no sense (at once), or the cloud cannot select so (while iterating).
            AuthError: The credentials are refused, or nobody signs us in.
            EndpointError: The endpoint does not answer, or not as this project's compute API; or its list is refused,
                or has no end: it is read for 30 min at most, and the time that the caller takes does not count.
            RuntimeError: The client has been used in another event loop.

        Example:
            ```python
            stopped = [server async for server in client.servers(name="^web-", status="SHUTOFF")]
            ```
        """
        selection = Selection.parse(name=name, status=status, tags=tags, az=az, metadata=metadata)
        return Listing(self._preflight, selection)

    async def restart(
        self,
        ids: Ids,
        *,
        reboot_type: RebootType | str = RebootType.SOFT,
        wait: bool = True,
        rollout: Rollout = Rollout(),
        max_attempts: int = 5,
        request_timeout: float = 60.0,
        server_timeout: float = 900.0,
        wait_timeout: float = 600.0,
        escalate: bool = False,
        start_stopped: bool = False,
        verify: Verify | None = None,
        verify_timeout: float = 300.0,
        stall_timeout: float = STALL_TIMEOUT,
        since: datetime | None = None,
        deadline: datetime | None = None,
        journal: str | os.PathLike[str] | None = None,
        max_at_once: int | None = None,
    ) -> Report:
        """Restart servers, and report what became of each.

        One server is looked at first, to see that the endpoint and the credentials are good. A reply that is lost is
        not sent again blindly: the cloud's action log is read first, and what cannot be learnt is `in_doubt`.

        Args:
            ids: Ids of servers, or `Server`s; an iterable, or an async one. Duplicates are merged.
            reboot_type: "SOFT" or "HARD". Before a HARD the servers are looked at: one that is locked, or stopped
                without `start_stopped`, is `skipped`.
            wait: Whether to wait until the servers are back. If not, the outcome of a good one is `accepted`.
            rollout: How the run spreads over the fleet, and when it stops itself.
            max_attempts: Sends to one server, at most. Waiting for a server that is busy, or for a cloud that
                throttles, is not counted.
            request_timeout: Seconds for one request. A short one makes lost replies of slow ones; each costs looks.
            server_timeout: Seconds until a server is accepted, or is given up. While everybody is held because the
                cloud throttles, it stands still; so does `wait_timeout`.
            wait_timeout: Seconds from the acceptance until a server is back. libvirt gives the guest 120 s to shut
                down before it resets it, so less than 150 s makes failures of good SOFT reboots.
            escalate: Leave to send HARD to a server in whose state SOFT is always refused (paused, suspended, error,
                and with `start_stopped` also stopped), and to one that an accepted SOFT has left in error: once, if the
                action log says that the SOFT ended in Error. Its time-outs and attempts count anew then.
            start_stopped: Leave to send HARD to a stopped server. It will run afterwards.
            verify: An async function that is given the newest snapshot of a server that has completed, and gives True
                if it is well, such as `tcp_open(22)` or `http_ok("http://{address}/health")`. False or an exception
                means not yet: it is called again. The outcome is `verified` then, or `failed` (`verify_failed`).
                Anything else that it gives fails at once. One call may take 30 s, and 150 run at once, at most; one
                that blocks the event loop blocks everything.
            verify_timeout: Seconds from the first call for a server until the last one begins.
            stall_timeout: Seconds without progress after which the run stops (`stalled`), whatever the cause: a cloud
                that throttles without end, a sign-in that never succeeds, a list without an end. Progress is a server
                that is accepted, comes back, or gets an outcome of its own. `Report.stopped` names the cause in the
                cloud's own words. The run then ends within 60 s, and does not wait for servers that were accepted. Only
                the time between two waves (`Rollout.pause`) does not count. The default is extended to the longest
                time-out of a server, and to the time that 60 requests take with a low `max_per_second`. A value below
                the time-out of a server is refused.
            since: A moment of the past, with a zone. A server that the action log shows to have rebooted since, without
                Error, is `satisfied` and left alone; so asking twice is asking once. Only the reboot action counts: not
                a stop and a start, a rebuild, or a reboot from inside the guest. Each server is looked at right before
                its own send, which costs a request, and a send whose look is older than 15 s does not leave. A server
                is left alone if its log cannot be read (`history_unreadable`), and if it rebooted less than a minute
                before or after the moment, because the cloud's clocks may differ by that much (`history_uncertain`); a
                measured difference between the log's clock and the cloud's `Date` is added. Two runs at once reboot a
                server twice if both looked at it before either of them sent.
            deadline: A moment that is yet to come, with a zone. The run ends then as if it were cancelled, but that the
                report is returned: what is in flight is awaited for up to 10 s, and nothing more is sent.
            journal: A file that outlives the process. Every send is written to it before it leaves. The same call again
                goes on where the former one ended, however that was: finished servers stay as they were, accepted ones
                are waited for anew, a send of unknown fate is looked for, and the rest is sent, also what was
                `skipped`. Attempts and time-outs count anew. It is made if it is not there. Of one that is there, the
                endpoint, the ids, the type and `since` must be the same. Ids from `servers` are not listed again: the
                journal's are the fleet. One process at a time holds it. If it cannot be written any more, nothing more
                is sent.
            max_at_once: Requests at once for this call; the client's bound if None, and never more than that.

        Returns:
            The report: one result for each id, in the order given.

        Raises:
            ValueError: An argument makes no sense. Nothing was sent.
            AuthError: The credentials are refused, or nobody signs us in. Nothing was sent.
            EndpointError: The endpoint does not answer, or not as this project's compute API; or `since` is yet to
                come by the cloud's clock; or there is no progress for `stall_timeout` before the first send. Nothing
                was sent.
            JournalError: The journal is held by another process, is of another run, or cannot be used. Nothing was
                sent.
            RuntimeError: The client has been used in another event loop. Nothing was sent.
        """
        async with self.restarting(
            ids,
            reboot_type=reboot_type,
            wait=wait,
            rollout=rollout,
            max_attempts=max_attempts,
            request_timeout=request_timeout,
            server_timeout=server_timeout,
            wait_timeout=wait_timeout,
            escalate=escalate,
            start_stopped=start_stopped,
            verify=verify,
            verify_timeout=verify_timeout,
            stall_timeout=stall_timeout,
            since=since,
            deadline=deadline,
            journal=journal,
            max_at_once=max_at_once,
        ) as run:
            async for _ in run:
                pass
        return run.report

    @asynccontextmanager
    async def restarting(
        self,
        ids: Ids,
        *,
        reboot_type: RebootType | str = RebootType.SOFT,
        wait: bool = True,
        rollout: Rollout = Rollout(),
        max_attempts: int = 5,
        request_timeout: float = 60.0,
        server_timeout: float = 900.0,
        wait_timeout: float = 600.0,
        escalate: bool = False,
        start_stopped: bool = False,
        verify: Verify | None = None,
        verify_timeout: float = 300.0,
        stall_timeout: float = STALL_TIMEOUT,
        since: datetime | None = None,
        deadline: datetime | None = None,
        journal: str | os.PathLike[str] | None = None,
        max_at_once: int | None = None,
        keep_details: bool = True,
    ) -> AsyncIterator[Run]:
        """Restart servers, and give the results as they come.

        `restart` is this, drained; it documents the arguments and what is raised. What a journal shows as finished
        comes first. Leaving the block early cancels the run: what is in flight is still awaited for up to 10 s, and
        `Run.report` accounts for every server.

        With `keep_details=False` it tells no more than the outcome of a server that has one: the rest is in the stream
        alone, and so a large fleet takes little memory.

        Example:
            ```python
            async with client.restarting(server_ids) as run:
                async for result in run:
                    print(result.server_id, result.outcome)
            print(run.report)
            ```
        """
        self._check_usable()
        now = time.time()
        options = Options(
            reboot_type=parse_reboot_type(reboot_type),
            wait=wait,
            rollout=rollout,
            max_attempts=max_attempts,
            request_timeout=request_timeout,
            server_timeout=server_timeout,
            wait_timeout=wait_timeout,
            escalate=escalate,
            start_stopped=start_stopped,
            verify=verify,
            verify_timeout=verify_timeout,
            stall_timeout=stall_timeout,
            max_at_once=self._max_at_once if max_at_once is None else max_at_once,
            since=parse_since(since, now),
            deadline=parse_deadline(deadline, now),
        )
        until = float("inf") if options.deadline is None else anyio.current_time() + options.deadline - now
        async with recording(_check_path(journal)) as recorder:
            is_listed = recorder.contents is not None and isinstance(ids, Listing)
            given = None if is_listed else await _collect(ids)
            stall = StallWatch(bound(options.longest_stall, self._max_per_second))
            compute, limiter = await self._way(options.request_timeout, options.max_at_once, stall)
            target = await self._locate()
            identity = RunIdentity(target=target, reboot_type=options.reboot_type, since=options.since)
            fleet = Fleet(
                compute=compute,
                limiter=limiter,
                clock=self._clock,
                ledger=Ledger(
                    recorder.prepare(identity, given), options.reboot_type, target=target, keeps_details=keep_details
                ),
                recorder=recorder,
                options=options,
                deadline=until,
                rng=self._rng,
            )
            async with _alongside(fleet):
                yield Run(fleet)

    async def plan(
        self,
        ids: Ids,
        *,
        reboot_type: RebootType | str = RebootType.SOFT,
        wait: bool = True,
        rollout: Rollout = Rollout(),
        escalate: bool = False,
        start_stopped: bool = False,
        verify: Verify | None = None,
        since: datetime | None = None,
        journal: str | os.PathLike[str] | None = None,
    ) -> Plan:
        """Tell what a restart would do, and send no reboot: its waves, what is to be expected of each server, its cost.

        The servers are listed. The arguments are those of `restart`; of `since` only the extra request of each server
        is reckoned with. A journal that is there is read, and not held: the plan is of what is left to do. It tells as
        well whether the run would stop itself (`Plan.is_to_stop`).

        Raises:
            ValueError: An argument makes no sense.
            AuthError: The credentials are refused, or nobody signs us in.
            EndpointError: The endpoint does not answer, or not as this project's compute API; or `since` is yet to
                come by the cloud's clock; or the cloud has not told all that is needed within 30 min.
            JournalError: The journal is of another run, or cannot be read.
            RuntimeError: The client has been used in another event loop.

        Example:
            ```python
            plan = await client.plan(server_ids, rollout=Rollout(canary=1, wave="10%"))
            print(plan)  # 297 to send to, 2 locked, 1 not found in 11 waves: at least ...
            ```
        """
        self._check_usable()
        options = Options(
            reboot_type=parse_reboot_type(reboot_type),
            wait=wait,
            rollout=rollout,
            escalate=escalate,
            start_stopped=start_stopped,
            verify=verify,
            max_at_once=self._max_at_once,
            since=parse_since(since, time.time()),
        )
        path = _check_path(journal)
        contents = None if path is None else await read_ahead(path)
        is_listed = contents is not None and isinstance(ids, Listing)
        given = None if is_listed else await _collect(ids)
        compute, limiter = await self._way(_REQUEST_TIMEOUT)
        target = await self._locate()
        if contents is not None:
            identity = RunIdentity(target=target, reboot_type=options.reboot_type, since=options.since)
            contents.check(path, identity, given)
        fleet = given if contents is None else contents.ids
        assert fleet is not None, "without a journal the ids are read"
        plan = await make_plan(
            fleet,
            options,
            compute=compute,
            limiter=limiter,
            clock=self._clock,
            rng=self._rng,
            max_per_second=self._max_per_second,
            checkpoints={} if contents is None else contents.checkpoints,
        )
        return replace(plan, target=target)

    async def anti_affinity(self) -> Domain:
        """Give a `Rollout.spread` by which no two servers of one anti-affinity group are down at once.

        The server groups of the project are read now, 1,000 at a time.

        Raises:
            AuthError: The credentials are refused, or nobody signs us in.
            EndpointError: The endpoint does not answer, or not as this project's compute API; or it does not list
                server groups, or not all of them within 30 min.
            RuntimeError: The client has been used in another event loop.

        Example:
            ```python
            report = await client.restart(server_ids, rollout=Rollout(spread=await client.anti_affinity()))
            ```
        """
        group_of = await read_anti_affinity(await self._preflight())
        return lambda server: group_of.get(server.id)

    def _check_usable(self) -> None:
        if self._is_closed or (self._sender is not None and self._sender.is_closed):
            raise ValueError("the client is closed: make a new one")
        self._keep_to_loop()

    def _keep_to_loop(self) -> None:
        """Refuse a second event loop: it has a clock of its own, and cannot use the connections of the first."""
        loop = current_token()
        if self._loop is None:
            self._loop = loop
        elif self._loop != loop:
            raise RuntimeError("the client has been used in another event loop: make one client for each")

    async def _preflight(self) -> Preflight:
        self._check_usable()
        return Preflight(*await self._way(_REQUEST_TIMEOUT), self._rng)

    async def _way(
        self, request_timeout: float, max_at_once: int | None = None, stall: StallWatch | None = None
    ) -> tuple[Compute, RunLimiter]:
        """Return the cloud and the limiter of its requests, after the endpoint is found.

        Args:
            request_timeout: Seconds for one request.
            max_at_once: Requests at once; None for the client's bound.
            stall: The stall watch of a run; None outside a run.
        """
        target = await self._locate()
        if self._sender is None:
            context = self._verify
            if not isinstance(context, ssl.SSLContext):
                # Those of the system take a while to read, for which everybody is held.
                is_secure = target.endpoint.startswith("https")
                context = tls_context() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            proxy = proxy_of(target.endpoint)
            lanes = LaneTransport(context, max_at_once=self._max_at_once)
            seam = Seam(lambda: ProxiedTransport(context, proxy))
            self._sender = LaneSender(lanes if proxy is None else ProxiedTransport(context, proxy), seam)
        auth = self._auth or self._sender.auth
        stall = stall or self._watch_alone()
        endpoint = Endpoint.parse(target.endpoint)
        limiter = RunLimiter(self._request_limiter, auth if isinstance(auth, Renewed) else None, max_at_once, stall)
        compute = Compute(endpoint, self._sender, auth, self._clock, request_timeout, limiter, self._page_size)
        return compute, limiter

    def _watch_alone(self) -> StallWatch:
        """Return a stall watch for requests outside a run."""
        return StallWatch(bound(STALL_TIMEOUT, self._max_per_second), is_run=False)

    async def _locate(self) -> Target:
        if self._target is not None:
            return self._target
        assert isinstance(self._auth, CatalogAuth), "only with such an auth is the endpoint unknown"
        limiter = RunLimiter(self._request_limiter, self._auth, stall=self._watch_alone())
        with limiter.stall.bounded():
            await require_sign_in(limiter)
            target = await self._auth.find_target()
        try:
            _parse_endpoint(target.endpoint)
        except ValueError as error:
            raise EndpointError(f"the catalog names {plain(target.endpoint)}: {error}; nothing was sent") from error
        self._target = target
        return target


def _parse_endpoint(url: str | None) -> Endpoint:
    """Read the endpoint, and see that httpx makes a request of it: it has a say on ports, addresses and IDNA."""
    endpoint = Endpoint.parse(url)
    try:
        httpx.Request("GET", endpoint.url)
    except (httpx.InvalidURL, UnicodeError) as error:  # an idna.IDNAError is a UnicodeError
        raise ValueError(f"the endpoint must be a URL that requests can be sent to: {error}") from error
    return endpoint


def _check_path(journal: object) -> str | None:
    """Read the path of a journal."""
    if journal is None:
        return None
    path = os.fspath(journal) if isinstance(journal, str | os.PathLike) else None
    if not isinstance(path, str) or not path:
        raise ValueError(f"journal must be the path of a file, not {journal!r:.60}")
    return path


async def _collect(ids: Ids) -> Sequence[str]:
    """Read the ids, check each, and merge duplicates, in the order given."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable | AsyncIterable):
        raise ValueError(f"ids must be an iterable of server ids, not {type(ids).__name__}: put a single id in a list")
    given = [item async for item in ids] if isinstance(ids, AsyncIterable) else ids
    fleet: dict[str, None] = {}
    await unhurried(given, lambda item: fleet.setdefault(check_id(item.id if isinstance(item, Server) else item)))
    return list(fleet)


@asynccontextmanager
async def _alongside(fleet: Fleet) -> AsyncIterator[None]:
    """Run a fleet beside the caller's block. Nothing of it outlives the block, and its errors come out bare."""
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run)
            try:
                await fleet.ready.wait()
                if fleet.refusal is None:
                    yield
                failure = fleet.refusal
            # Not a cancellation: that has to pass through the group.
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                failure = error
            finally:
                group.cancel_scope.cancel()
                await _drained(fleet)
    except BaseExceptionGroup as errors:
        # Something that a lent client raised beyond `Exception`, or a defect of ours.
        failure = _first(errors)
    if failure is not None:
        raise failure


async def _drained(fleet: Fleet) -> None:
    """Wait until the run is over; a second, native cancellation (asyncio's) cuts off what is still in flight."""
    try:
        with anyio.CancelScope(shield=True):
            await fleet.account.over.wait()
    except anyio.get_cancelled_exc_class():
        fleet.abandon()
        raise


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
