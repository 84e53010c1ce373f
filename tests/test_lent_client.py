"""A client that a user lends, with all that it may bring along: what it brings is used, and no promise is broken."""

import itertools
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

import httpx
import pytest
import trio

from bulkrestart import AuthError, EndpointError, Outcome, Proof, Reason, Report, RestartClient, StopReason, Token
from tests.virtual import EPOCH, virtually

ENDPOINT: Final = "http://nova.test/v2.1/p"
SIGN_IN: Final = "http://keystone.test/v3/auth/tokens"
REBOOT_SECONDS: Final = 10.0

#: What becomes of one POST: whether the server reboots, and the status of the answer, or the error instead of it.
Fate = tuple[bool, int | Exception]
Hook = Callable[[httpx.Response], Awaitable[None]]

GOOD: Final[Fate] = (True, 202)
LOST: Final[Fate] = (True, httpx.ReadTimeout("lost"))
LOST_BEFORE: Final[Fate] = (False, httpx.ReadTimeout("lost"))


def shown(moment: float) -> str:
    """Write a time as Nova does: in UTC, without saying so."""
    return datetime.fromtimestamp(EPOCH + moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000")


@dataclass
class Nova:
    """A cloud of one function: it reboots, keeps the action log, and notes what the promises forbid.

    Attributes:
        fates: What becomes of each POST in turn; the good one when they have run out.
        seconds: How long it thinks about a POST before it answers, in seconds.
        requests: All requests.
        reboots: When each server was rebooted.
        unlooked: Servers that got a second POST without a look at their log in between.
        on_answer: Called with each request before its answer goes out.
    """

    fates: list[Fate] = field(default_factory=list)
    seconds: float = 0.0
    requests: list[httpx.Request] = field(default_factory=list)
    reboots: dict[str, list[float]] = field(default_factory=dict)
    unlooked: list[str] = field(default_factory=list)
    on_answer: Callable[[httpx.Request], Awaitable[None]] | None = None
    _unseen: set[str] = field(default_factory=set)

    @property
    def posts(self) -> int:
        """How many sends there were."""
        return sum(request.url.path.endswith("/action") for request in self.requests)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        now = datetime.fromtimestamp(int(EPOCH + trio.current_time()), UTC)
        try:
            response = await self._answer(request)
        finally:
            if self.on_answer is not None:
                await self.on_answer(request)
        response.headers["Date"] = format_datetime(now, usegmt=True)
        return response

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "keystone.test":
            return httpx.Response(201, headers={"X-Subject-Token": "issued"})
        assert request.url.path.startswith("/v2.1/p/servers/"), request.url
        match request.url.path.removeprefix("/v2.1/p/servers/").split("/"):
            case ["detail"]:
                return httpx.Response(200, json={"servers": [self._server(name) for name in self.reboots]})
            case [server_id]:
                return httpx.Response(200, json={"server": self._server(server_id)})
            case [server_id, "action"]:
                return await self._reboot(server_id)
            case [server_id, "os-instance-actions"]:
                self._unseen.discard(server_id)
                return httpx.Response(200, json={"instanceActions": self._log(server_id)})
            case other:
                server_id, _, request_id = other
                [row] = [row for row in self._log(server_id) if row["request_id"] == request_id]
                return httpx.Response(200, json={"instanceAction": row})

    async def _reboot(self, server_id: str) -> httpx.Response:
        if server_id in self._unseen:
            self.unlooked.append(server_id)
        self._unseen.add(server_id)
        is_rebooted, answer = self.fates.pop(0) if self.fates else GOOD
        headers = {"Location": "http://elsewhere.test/"}
        if is_rebooted:
            times = self.reboots.setdefault(server_id, [])
            times.append(trio.current_time())
            headers["X-Openstack-Request-Id"] = f"req-{server_id}-{len(times)}"
        await trio.sleep(self.seconds)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, headers=headers)

    def _server(self, server_id: str) -> dict[str, object]:
        times = self.reboots.get(server_id, ())
        is_rebooting = any(trio.current_time() < moment + REBOOT_SECONDS for moment in times)
        return {
            "id": server_id,
            "OS-EXT-STS:vm_state": "active",
            "OS-EXT-STS:task_state": "rebooting" if is_rebooting else None,
        }

    def _log(self, server_id: str) -> list[dict[str, object]]:
        times = list(enumerate(self.reboots.get(server_id, ()), start=1))
        rows: list[dict[str, object]] = [
            {
                "action": "reboot",
                "request_id": f"req-{server_id}-{number}",
                "start_time": shown(moment),
                "user_id": "u",
                "message": None,
                "events": [{"finish_time": shown(moment + REBOOT_SECONDS), "result": "Success"}],
            }
            for number, moment in reversed(times)
        ]
        created: dict[str, object] = {
            "action": "create",
            "request_id": "req-create",
            "start_time": shown(-9999),
            "user_id": "u",
        }
        return [*rows, created]

    def assert_never_twice(self) -> None:
        """Hold promise 2."""
        assert self.unlooked == []
        assert all(len(times) == 1 for times in self.reboots.values())


def lend(nova: Nova, **settings: object) -> httpx.AsyncClient:
    """Make a client of this cloud."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(nova))
    for name, value in settings.items():
        setattr(http, name, value)
    return http


async def restart(http: httpx.AsyncClient, ids: Sequence[str] = ("s",), **arguments: float) -> Report:
    """Restart servers through a lent client."""
    async with RestartClient(ENDPOINT, http=http) as client:
        return await client.restart(
            ids,
            request_timeout=arguments.get("request_timeout", 60.0),
            server_timeout=arguments.get("server_timeout", 900.0),
        )


def assert_completed(report: Report) -> None:
    """Check that every server came back, with proof."""
    assert report.stopped is None
    assert {(result.outcome, result.reason, result.proof) for result in report} == {
        (Outcome.COMPLETED, None, Proof.ACTION)
    }


# What it brings is used, and it stays its owner's.


def test_its_headers_and_cookies_are_used() -> None:
    """Every request carries the lent client's headers and cookies, those among them that the cloud set meanwhile."""

    async def main() -> None:
        nova = Nova()
        http = lend(nova, headers={"X-Audit": "night shift", "User-Agent": "ours/1"}, cookies={"route": "a"})

        async def set_cookie(response: httpx.Response) -> None:
            http.cookies.set("node", "b")

        http.event_hooks = {"response": [set_cookie]}
        assert_completed(await restart(http))
        first, *others = [request.headers for request in nova.requests]
        assert first["Cookie"] == "route=a"
        assert {headers["Cookie"] for headers in others} == {"route=a; node=b"}
        assert {headers["X-Audit"] for headers in (first, *others)} == {"night shift"}
        assert {headers["User-Agent"] for headers in (first, *others)} == {"ours/1"}

    virtually(main)


def test_it_is_not_closed() -> None:
    """A lent client is open after the run and after the RestartClient, and serves its owner and the next one."""

    async def main() -> None:
        nova = Nova()
        http = lend(nova)
        assert_completed(await restart(http, ["s1"]))
        assert not http.is_closed
        assert_completed(await restart(http, ["s2"]))
        assert (await http.get(f"{ENDPOINT}/servers/s1")).status_code == 200

    virtually(main)


def test_its_base_url_does_not_count() -> None:
    """The endpoint is the one that was given, whatever base URL the lent client has."""

    async def main() -> None:
        nova = Nova()
        assert_completed(await restart(lend(nova, base_url="http://elsewhere.test/api")))
        assert {request.url.host for request in nova.requests} == {"nova.test"}

    virtually(main)


@pytest.mark.parametrize("auth", [None, Token("ours")])
def test_its_auth_is_used_unless_one_is_given(auth: httpx.Auth | None) -> None:
    """The lent client signs as it always does, unless `auth` is given."""

    async def main() -> None:
        nova = Nova()
        http = lend(nova, auth=Token("lent"))
        async with RestartClient(ENDPOINT, auth=auth, http=http) as client:
            assert_completed(await client.restart(["s"]))
        expected = "lent" if auth is None else "ours"
        assert {request.headers["X-Auth-Token"] for request in nova.requests} == {expected}

    virtually(main)


# Redirects and time-outs.


@pytest.mark.unmeasured
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("is_rebooted", [False, True])
def test_redirects_stop_the_run(status: int, is_rebooted: bool) -> None:
    """A client that follows redirects does not follow ours: the servers are looked at, and the run stops.

    It goes on if the looks show that the sends are carried out.
    """

    async def main() -> None:
        nova = Nova([(is_rebooted, status)] * 99)
        ids = [f"s{number}" for number in range(60)]
        report = await restart(lend(nova, follow_redirects=True), ids)
        assert (report.stopped and report.stopped.reason) == (None if is_rebooted else StopReason.WRONG_ENDPOINT)
        assert {request.url.host for request in nova.requests} == {"nova.test"}
        assert [result.server_id for result in report] == ids
        # Those that were under way when it repeated, and one after the pause.
        assert nova.posts <= (60 if is_rebooted else 55)
        nova.assert_never_twice()
        for result in report:
            # Rebooted or not, nothing may be told that is not so.
            assert (result.outcome is Outcome.COMPLETED) <= (result.server_id in nova.reboots)
            assert (result.outcome in (Outcome.REFUSED, Outcome.SKIPPED)) <= (result.server_id not in nova.reboots)

    virtually(main)


def test_a_redirect_of_the_first_look_is_an_error() -> None:
    """An endpoint that redirects is told before anything is sent."""

    async def main() -> None:
        asked: list[str] = []

        def redirect(request: httpx.Request) -> httpx.Response:
            asked.append(f"{request.method} {request.url.host}")
            return httpx.Response(302, headers={"Location": "http://login.test/"})

        http = httpx.AsyncClient(transport=httpx.MockTransport(redirect), follow_redirects=True)
        with pytest.raises(EndpointError, match="check the URL"):
            await restart(http)
        assert asked == ["GET nova.test"] * 3

    virtually(main)


@pytest.mark.parametrize(("request_timeout", "is_answered"), [(60.0, True), (21.0, True), (19.0, False), (1.0, False)])
def test_our_timeout_counts(request_timeout: float, is_answered: bool) -> None:
    """The time for a request is the run's, not the five seconds of the lent client; a late reply is looked for."""

    async def main() -> None:
        nova = Nova(seconds=20.0)
        http = lend(nova, timeout=5.0)
        report = await restart(http, request_timeout=request_timeout)
        assert_completed(report)
        [result] = report
        assert [attempt.answer.startswith("202") for attempt in result.attempts] == [is_answered]
        assert {request.extensions["timeout"]["read"] for request in nova.requests} == {request_timeout}
        assert http.timeout == httpx.Timeout(5.0)
        nova.assert_never_twice()

    virtually(main)


def test_a_transport_without_time_outs_is_bounded_all_the_same() -> None:
    """A transport that knows no time-outs does not hold the run: the request is given up, and its fate looked for."""

    async def main() -> None:
        nova = Nova(seconds=5000.0)
        assert_completed(await restart(lend(nova), request_timeout=5.0))
        assert nova.posts == 1
        assert trio.current_time() < 60
        nova.assert_never_twice()

    virtually(main)


# Hooks.


async def raise_for_status(response: httpx.Response) -> None:
    """Raise for the status, as httpx's documentation shows it."""
    response.raise_for_status()


async def read_and_raise_for_status(response: httpx.Response) -> None:
    """Read the body first, so that whoever catches the error can tell why."""
    await response.aread()
    response.raise_for_status()


@pytest.mark.parametrize("hook", [raise_for_status, read_and_raise_for_status])
@pytest.mark.parametrize(
    ("fates", "posts"),
    [
        pytest.param([], 1, id="202"),
        pytest.param([(True, 500)], 1, id="500, rebooted"),
        pytest.param([(False, 500)], 2, id="500, not rebooted"),
        pytest.param([(True, 504), LOST], 1, id="504, rebooted"),
        pytest.param([(False, 503), LOST], 2, id="503, not rebooted, then lost"),
    ],
)
def test_a_hook_that_raises_for_the_status(hook: Hook, fates: list[Fate], posts: int) -> None:
    """A hook that raises for the status hides no answer: each server completes, with as few sends as without it."""

    async def main() -> None:
        nova = Nova(list(fates))
        http = lend(nova, event_hooks={"response": [hook]})
        assert_completed(await restart(http))
        assert nova.posts == posts
        nova.assert_never_twice()

    virtually(main)


async def fail_oddly(_: object) -> None:
    """Fail in a way of its own."""
    raise RuntimeError("the hook is broken")


async def fail_elsewhere(_: object) -> None:
    """Tell an audit service, which is down."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("the audit service is down")

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as audit:
        await audit.post("http://audit.test/")


async def fail_elsewhere_by_status(_: object) -> None:
    """Tell an audit service, which refuses."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(403))) as audit:
        (await audit.post("http://audit.test/")).raise_for_status()


each_failure = pytest.mark.parametrize("fail", [fail_oddly, fail_elsewhere, fail_elsewhere_by_status])


@each_failure
def test_a_response_hook_that_fails_never_makes_a_second_reboot(fail: Hook) -> None:
    """A response hook that fails after a reboot was accepted loses the answer; it is found, and not sent for again."""

    async def main() -> None:
        async def audit(response: httpx.Response) -> None:
            if response.request.method == "POST":
                await fail(response)

        nova = Nova()
        http = lend(nova, event_hooks={"response": [audit]})
        ids = [f"s{number}" for number in range(5)]
        report = await restart(http, ids)
        assert nova.posts == 5
        nova.assert_never_twice()
        assert_completed(report)

    virtually(main)


@each_failure
@pytest.mark.parametrize("kind", ["request", "response"])
def test_hooks_that_always_fail_are_one_error_before_the_run(kind: str, fail: Hook) -> None:
    """A client with which nothing can be seen is one clear error, and nothing was sent."""

    async def main() -> None:
        nova = Nova()
        with pytest.raises(EndpointError, match="nothing was sent"):
            await restart(lend(nova, event_hooks={kind: [fail]}))
        assert nova.posts == 0

    virtually(main)


@each_failure
def test_a_request_hook_that_fails_for_each_send_reboots_nothing(fail: Hook) -> None:
    """A request hook that lets no send through (its owner's policy) reboots nothing, and no server is `completed`."""

    async def main() -> None:
        async def forbid(request: httpx.Request) -> None:
            if request.method == "POST":
                await fail(httpx.Response(200))

        nova = Nova()
        ids = ["s1", "s2", "s3"]
        report = await restart(lend(nova, event_hooks={"request": [forbid]}), ids)
        assert [result.server_id for result in report] == ids
        assert {result.outcome for result in report} <= {Outcome.SKIPPED, Outcome.REFUSED, Outcome.IN_DOUBT}
        assert (nova.posts, nova.reboots) == (0, {})

    virtually(main)


def test_what_a_hook_raises_beyond_exceptions_comes_out_bare() -> None:
    """What a hook raises beyond `Exception` ends the run and comes out bare; the report accounts for each server."""

    class Stop(BaseException):
        """Beyond what is caught."""

    async def main() -> None:
        async def stop(response: httpx.Response) -> None:
            if response.request.method == "POST":
                raise Stop

        nova = Nova()
        ids = ["s1", "s2", "s3"]
        async with RestartClient(ENDPOINT, http=lend(nova, event_hooks={"response": [stop]}), max_at_once=1) as client:
            with pytest.raises(Stop):
                async with client.restarting(ids) as run:
                    await trio.sleep_forever()
        assert [(result.server_id, result.outcome) for result in run.report] == [
            ("s1", Outcome.IN_DOUBT),
            ("s2", Outcome.SKIPPED),
            ("s3", Outcome.SKIPPED),
        ]
        nova.assert_never_twice()

    virtually(main)


# Its own auth, with a sign-in inside.


class SignIn(httpx.Auth):
    """Signs in before the first request, and again after a 401, as Keystone's clients do."""

    requires_response_body = True

    def __init__(self) -> None:
        self._token = ""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign in if need be, send, and once more if the token has run out."""
        if not self._token:
            self._token = (yield httpx.Request("POST", SIGN_IN)).headers["X-Subject-Token"]
        request.headers["X-Auth-Token"] = self._token
        response = yield request
        if response.status_code == 401:
            self._token = (yield httpx.Request("POST", SIGN_IN)).headers["X-Subject-Token"]
            request.headers["X-Auth-Token"] = self._token
            yield request

    def forget(self) -> None:
        """Sign in again before the next request."""
        self._token = ""


def failing_keystone(nova: Nova, error: Exception, when: Callable[[], bool]) -> httpx.AsyncClient:
    """Make a client whose sign-ins fail at times."""

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "keystone.test" and when():
            raise error
        return await nova(request)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=SignIn())


each_sign_in_error = pytest.mark.parametrize(
    "error", [httpx.ConnectError("down"), httpx.ReadTimeout("slow"), RuntimeError("odd")], ids=repr
)


@each_sign_in_error
def test_a_sign_in_that_never_works_is_one_error_before_the_run(error: Exception) -> None:
    """A sign-in that fails at every try is told before anything is sent."""

    async def main() -> None:
        nova = Nova()
        with pytest.raises(EndpointError, match="nothing was sent"):
            await restart(failing_keystone(nova, error, lambda: True))
        assert nova.requests == []

    virtually(main)


@each_sign_in_error
def test_a_sign_in_that_fails_at_times_costs_no_server(error: Exception) -> None:
    """A sign-in that fails between two requests is tried again, and no server is rebooted twice or lost for it."""

    async def main() -> None:
        nova = Nova([LOST, GOOD, LOST_BEFORE, (True, 500)])
        sign_ins = itertools.count(1)
        # The first is for the look before the run, the next ten are for sends.
        http = failing_keystone(nova, error, lambda: next(sign_ins) in (4, 9, 10))
        auth = http.auth
        assert isinstance(auth, SignIn)

        async def forget(_: httpx.Request) -> None:
            auth.forget()

        nova.on_answer = forget
        assert_completed(await restart(http, [f"s{number}" for number in range(10)]))
        assert nova.posts - 1 == len(nova.reboots) == 10
        nova.assert_never_twice()

    virtually(main)


def test_a_token_that_runs_out_is_the_auths_own_affair() -> None:
    """A 401 that the lent auth answers with a new sign-in is never seen by the run."""

    async def main() -> None:
        nova = Nova()
        spent: list[str] = []

        async def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/action") and not spent:
                spent.append(request.headers["X-Auth-Token"])
                return httpx.Response(401)
            return await nova(request)

        http = httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=SignIn())
        report = await restart(http)
        assert_completed(report)
        [result] = report
        assert len(result.attempts) == 1
        nova.assert_never_twice()

    virtually(main)


def test_a_token_that_is_refused_for_good_is_one_error_before_the_run() -> None:
    """A token that no sign-in makes good is told before anything is sent."""

    async def main() -> None:
        def refuse(request: httpx.Request) -> httpx.Response:
            is_sign_in = request.url.host == "keystone.test"
            return httpx.Response(201 if is_sign_in else 401, headers={"X-Subject-Token": "issued"})

        http = httpx.AsyncClient(transport=httpx.MockTransport(refuse), auth=SignIn())
        with pytest.raises(AuthError, match="nothing was sent"):
            await restart(http)

    virtually(main)


# Closed.


def test_a_client_that_is_closed_is_one_error_before_the_run() -> None:
    """A client that is closed is a ValueError with the remedy, and nothing was asked."""

    async def main() -> None:
        nova = Nova()
        http = lend(nova)
        await http.aclose()
        with pytest.raises(ValueError, match="closed"):
            await restart(http)
        assert nova.requests == []

    virtually(main)


def test_a_client_that_is_closed_before_the_first_send() -> None:
    """A client that its owner closes before anything was sent leaves every server skipped, and the run ends."""

    async def main() -> None:
        nova = Nova()
        http = lend(nova)

        async def close(_: httpx.Request) -> None:
            await http.aclose()

        nova.on_answer = close
        report = await restart(http, ["s1", "s2"])
        assert [(result.outcome, result.reason) for result in report] == [(Outcome.SKIPPED, Reason.STOPPED)] * 2
        assert report.stopped is not None
        assert report.stopped.detail.startswith("the client is closed: ")
        assert report.elapsed < 5.0
        assert nova.posts == 0

    virtually(main)


@pytest.mark.parametrize("fate", [LOST, (True, 202)], ids=["lost", "answered"])
def test_a_client_that_is_closed_while_a_send_is_in_flight(fate: Fate) -> None:
    """A server that was sent to when the owner closed the client is not told to be untouched."""

    async def main() -> None:
        nova = Nova([fate])
        http = lend(nova)

        async def close(request: httpx.Request) -> None:
            if request.method == "POST":
                await http.aclose()

        nova.on_answer = close
        [result] = await restart(http)
        assert result.outcome in (Outcome.IN_DOUBT, Outcome.ACCEPTED)
        assert nova.posts == 1
        nova.assert_never_twice()

    virtually(main)


# All of it together.


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_no_server_is_rebooted_twice(seed: int) -> None:
    """Lost replies, errors, failing hooks and failing sign-ins, mixed at random: promises 1 and 2 hold."""

    async def main() -> None:
        rng = random.Random(seed)
        fates = [GOOD, LOST, LOST_BEFORE, (True, 500), (False, 502), (True, httpx.ConnectTimeout("lost"))]
        nova = Nova(rng.choices(fates, k=60))
        http = failing_keystone(nova, httpx.ConnectError("down"), lambda: rng.random() < 0.2)
        auth = http.auth
        assert isinstance(auth, SignIn)

        async def upset(response: httpx.Response) -> None:
            if response.request.method == "POST" and rng.random() < 0.2:
                auth.forget()
                await rng.choice([fail_oddly, fail_elsewhere, fail_elsewhere_by_status, raise_for_status])(response)

        http.event_hooks = {"response": [upset]}
        ids = [f"s{number}" for number in range(30)]
        report = await restart(http, ids)
        assert [result.server_id for result in report] == ids
        nova.assert_never_twice()
        for result in report:
            assert (result.outcome is Outcome.COMPLETED) <= (result.server_id in nova.reboots)
            assert (result.outcome in (Outcome.REFUSED, Outcome.SKIPPED)) <= (result.server_id not in nova.reboots)

    virtually(main)
