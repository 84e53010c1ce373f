"""What is used instead of each unreadable source, row by row of `docs/sources.md`: over HTTP, on virtual time."""

import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import httpx
import pytest
import trio

from bulkrestart import Outcome, Proof, Reason, Report, RestartClient, Rollout, Token
from bulkrestart.simulator import Call, Cloud, Fault, HostFault, RequestIds, asgi
from tests.virtual import REGARDLESS, client_of, cloud_of, slow_down, virtually

#: The sources, by what their requests look like.
PATHS: Final = {
    "list": re.compile(r"/servers/detail$"),
    "show": re.compile(r"/servers/[^/]+$"),
    "log": re.compile(r"/os-instance-actions$"),
    "row": re.compile(r"/os-instance-actions/.+$"),
}
UNAUTHORIZED: Final = {"error": {"code": 401, "title": "Unauthorized", "message": "It requires authentication."}}
FORBIDDEN: Final = {"forbidden": {"code": 403, "message": "Policy doesn't allow it"}}
NOT_IMPLEMENTED: Final = {"notImplemented": {"code": 501, "message": "Unable to use the feature"}}

#: A moment in the past of this machine and of the cloud.
SINCE: Final = datetime(2024, 1, 1, tzinfo=UTC)

#: The ways in which a source is refused.
WAYS: Final[Mapping[str, Callable[[], httpx.Response]]] = {
    "401 there alone": lambda: httpx.Response(401, json=UNAUTHORIZED),
    "403": lambda: httpx.Response(403, json=FORBIDDEN),
    "404 of a gateway": lambda: httpx.Response(404, text="default backend - 404"),
    "501": lambda: httpx.Response(501, json=NOT_IMPLEMENTED),
    "a page": lambda: httpx.Response(200, text="<html>Please sign in</html>"),
    "JSON of another kind": lambda: httpx.Response(200, json={"items": []}),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def time_out() -> httpx.Response:
    """Do not answer in time; the transport waits for 60 s before."""
    raise httpx.ReadTimeout("")


def cut() -> httpx.Response:
    """Cut the connection."""
    raise httpx.ReadError("")


OVER_LIMIT: Final = {"overLimit": {"code": 429, "message": "This request was rate-limited."}}
#: The ways in which a source fails for a time.
FAILS: Final[Mapping[str, Callable[[], httpx.Response]]] = {
    "500": lambda: httpx.Response(500, json={"computeFault": {"code": 500, "message": "Unexpected API Error."}}),
    "503": lambda: httpx.Response(503, text="no"),
    "503 with Retry-After": lambda: httpx.Response(503, text="no", headers={"retry-after": "5"}),
    "429": lambda: httpx.Response(429, json=OVER_LIMIT),
    "429 with Retry-After": lambda: httpx.Response(429, json=OVER_LIMIT, headers={"retry-after": "5"}),
    "time-out": time_out,
    "cut": cut,
}
fails = pytest.mark.parametrize("way", FAILS.values(), ids=FAILS)


def kind_of(request: httpx.Request) -> str:
    """Name what a request asks for."""
    return next((kind for kind, path in PATHS.items() if path.search(request.url.path)), "send")


@dataclass
class Keeping(httpx.AsyncBaseTransport):
    """A transport to a cloud that refuses some sources, or changes what they show."""

    cloud: Cloud
    kept: Collection[str] = ()
    way: Callable[[], httpx.Response] = WAYS["403"]
    change: Callable[[str, object], object] = lambda _, document: document
    #: The servers whose sources are refused; None for all.
    servers: Collection[str] | None = None
    #: From when to when they are refused, in seconds.
    times: tuple[float, float] = (0.0, float("inf"))
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._transport = httpx.ASGITransport(asgi(self.cloud, lost=httpx.ReadError))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, or let the cloud answer."""
        kind = kind_of(request)
        self.asked.append(kind)
        began, end = self.times
        is_kept = self.servers is None or any(server_id in request.url.path for server_id in self.servers)
        if kind in self.kept and is_kept and began <= trio.current_time() < end:
            if self.way is time_out:
                await trio.sleep(60.0)
            return self.way()
        response = await self._transport.handle_async_request(request)
        body = await response.aread()
        if kind == "send" or response.status_code != 200:
            return response
        headers = [(name, value) for name, value in response.headers.items() if name != "content-length"]
        return httpx.Response(200, headers=headers, content=json.dumps(self.change(kind, json.loads(body))))


@asynccontextmanager
async def over(transport: Keeping) -> AsyncIterator[RestartClient]:
    """Give a client over a transport."""
    async with httpx.AsyncClient(transport=transport) as http:
        cloud = transport.cloud
        yield RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)


async def restart(transport: Keeping, **arguments: object) -> Report:
    """Restart all servers."""
    async with over(transport) as client:
        return await client.restart(transport.cloud.ids, **{"rollout": REGARDLESS, **arguments})  # type: ignore[arg-type]


def ends(report: Report) -> set[tuple[Outcome, Reason | None, Proof | None]]:
    """Give the ends of the servers."""
    return {(result.outcome, result.reason, result.proof) for result in report}


def lose(cloud: Cloud, *, applied: bool) -> None:
    """Lose the replies to the first sends to all servers."""
    for server_id in cloud.ids:
        cloud.script(server_id, Fault.no_reply(applied=applied))


def test_logs_that_are_not_found_for_servers_that_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Nova's "not found" is about the log then, and not about a server: it is done without after the second one."""

    async def main() -> None:
        cloud = cloud_of(5)
        lose(cloud, applied=False)
        for server_id in cloud.ids:
            cloud.script(server_id, *[Fault.error(404, "Instance could not be found.")] * 99, call=Call.LOG)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=REGARDLESS)
        assert {(result.outcome, result.reason) for result in report} == {(Outcome.IN_DOUBT, Reason.UNANSWERED)}
        assert set(cloud.posts.values()) == {1}
        assert [request.call for request in cloud.requests].count(Call.LOG) <= 2 * len(cloud.ids)

    virtually(main)
    assert caplog.text.count("reboots are judged by the states of servers alone") == 1


@pytest.mark.unmeasured
@ways
def test_single_rows(way: Callable[[], httpx.Response], caplog: pytest.LogCaptureFixture) -> None:
    """The whole log is used instead of single rows."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), {"row"}, way)
        report = await restart(transport)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.STATE)}
        assert report.elapsed < 120.0

    virtually(main)
    assert caplog.text.count("single rows of action logs cannot be read") == 1


@pytest.mark.unmeasured
@ways
@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_the_action_log(way: Callable[[], httpx.Response], seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    """The state is used instead, soon after the reboot has ended; nothing waits for a time-out."""

    async def main() -> None:
        transport = Keeping(cloud_of(30, reboot_seconds=(seconds, seconds)), {"log", "row"}, way)
        report = await restart(transport)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.STATE)}
        # `updated` shows a reboot that no poll has shown.
        assert report.elapsed < seconds + 30.0
        # Logs of servers that are back in the same poll may be requested at once; after that none is.
        assert transport.asked.count("log") <= 60

    virtually(main)
    assert caplog.text.count("reboots are judged by the states of servers alone") == 1


@pytest.mark.unmeasured
@ways
@pytest.mark.parametrize("applied", [True, False])
def test_the_action_log_after_a_lost_reply(way: Callable[[], httpx.Response], applied: bool) -> None:
    """A reboot that is seen is accepted; otherwise the server is in doubt once a late send would have shown."""

    async def main() -> None:
        transport = Keeping(cloud_of(30, reboot_seconds=(30.0, 30.0)), {"log", "row"}, way)
        lose(transport.cloud, applied=applied)
        report = await restart(transport)
        done = {(Outcome.COMPLETED, None, Proof.STATE)}
        assert ends(report) == (done if applied else {(Outcome.IN_DOUBT, Reason.UNANSWERED, None)})
        assert set(transport.cloud.posts.values()) == {1}
        assert report.elapsed < 150.0

    virtually(main)


@ways
@pytest.mark.parametrize("saved", [True, False], ids=["saved since", "not saved since"])
def test_the_action_log_with_since(
    way: Callable[[], httpx.Response], saved: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent if it is unknown whether a server has rebooted already; one that was not saved has not."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), {"log", "row"}, way)
        if not saved:
            transport.change = lambda _, document: saved_long_ago(document, transport.cloud)
        report = await restart(transport, since=SINCE)
        assert report.elapsed < 60.0
        # Two odd answers are needed, and requests for 20 servers are in flight at once.
        assert transport.asked.count("log") <= 40
        if saved:
            assert ends(report) == {(Outcome.SKIPPED, Reason.HISTORY_UNREADABLE, None)}
            assert transport.asked.count("send") == 0
            assert transport.asked.count("show") <= 70
        else:
            assert ends(report) == {(Outcome.COMPLETED, None, Proof.STATE)}
            assert set(transport.cloud.posts.values()) == {1}

    virtually(main)
    assert caplog.text.count("reboots are judged by the states of servers alone") == 1


@ways
def test_single_servers(way: Callable[[], httpx.Response], caplog: pytest.LogCaptureFixture) -> None:
    """The list is used instead of single servers; a server that would be sent to again is not."""

    async def main() -> None:
        # The look before the run succeeds: if that cannot be read, the endpoint may be wrong.
        transport = Keeping(cloud_of(30), {"show"}, way, times=(1.0, float("inf")))
        # Rejected looks at three servers would stop the run.
        lost = transport.cloud.ids[10:12]
        for server_id in lost:
            transport.cloud.script(server_id, Fault.no_reply(applied=False))
        report = await restart(transport)
        assert report.stopped is None
        for result in report:
            is_lost = result.server_id in lost
            expected = (Outcome.REFUSED, Reason.FORBIDDEN) if is_lost else (Outcome.COMPLETED, None)
            assert (result.outcome, result.reason) == expected
            assert result.proof is (None if is_lost else Proof.ACTION)
        assert set(transport.cloud.posts.values()) == {1}
        assert report.elapsed < 120.0
        assert transport.asked.count("show") <= 1 + 10 * len(lost)

    virtually(main)
    assert caplog.text.count("only lists can show whether servers are back") == 1


@pytest.mark.unmeasured
@ways
@pytest.mark.parametrize("max_down", [None, 1, 2])
@pytest.mark.parametrize("servers", [1, 2, 12])
def test_single_servers_while_few_are_watched(
    way: Callable[[], httpx.Response], servers: int, max_down: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The list is used also for one server, and single servers are soon not asked for again."""

    async def main() -> None:
        # The look before the run succeeds: if that cannot be read, the endpoint may be wrong.
        transport = Keeping(cloud_of(servers, reboot_seconds=(20.0, 20.0)), {"show"}, way, times=(1.0, float("inf")))
        rollout = Rollout(max_failures="100%", max_refused="100%", max_down=max_down)
        report = await restart(transport, rollout=rollout)
        assert report.stopped is None
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}
        assert set(transport.cloud.cycles.values()) == {1}
        assert transport.asked.count("show") <= 5 + 2
        assert report.elapsed < 60.0 * servers

    virtually(main)
    assert "the run does not wait for any" not in caplog.text


@pytest.mark.parametrize("way", [WAYS["403"], WAYS["404 of a gateway"], WAYS["501"]], ids=["403", "404", "501"])
@pytest.mark.parametrize("seconds", [1.0, 20.0, 90.0])
@pytest.mark.parametrize("servers", [1, 2, 12])
def test_single_servers_that_are_refused_for_a_time(
    way: Callable[[], httpx.Response], seconds: float, servers: int
) -> None:
    """The list is used as long as they are refused, or longer."""

    async def main() -> None:
        times = (1.0, 1.0 + seconds)
        transport = Keeping(cloud_of(servers, reboot_seconds=(50.0, 50.0)), {"show"}, way, times=times)
        report = await restart(transport)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}

    virtually(main)


@ways
@pytest.mark.parametrize("max_down", [None, 1])
@pytest.mark.parametrize("servers", [1, 2, 12])
def test_single_servers_and_a_server_that_hangs(
    way: Callable[[], httpx.Response], servers: int, max_down: int | None
) -> None:
    """The list shows that its reboot has not finished: it is not in doubt, and not completed."""

    async def main() -> None:
        transport = Keeping(cloud_of(servers, reboot_seconds=(20.0, 20.0)), {"show"}, way, times=(1.0, float("inf")))
        hung = transport.cloud.ids[-1]
        transport.cloud.break_host(hung, HostFault.HANG)
        rollout = Rollout(max_failures="100%", max_refused="100%", max_down=max_down)
        report = await restart(transport, rollout=rollout, wait_timeout=120.0)
        assert (report[hung].outcome, report[hung].reason) == (Outcome.FAILED, Reason.NOT_BACK)
        assert report.summary.get(Outcome.COMPLETED, 0) == servers - 1

    virtually(main)


@fails
@pytest.mark.parametrize("servers", [1, 2])
def test_single_servers_that_are_refused_while_lists_fail(way: Callable[[], httpx.Response], servers: int) -> None:
    """It is waited for the list, which may be read again."""

    async def main() -> None:
        transport = Keeping(cloud_of(servers, reboot_seconds=(20.0, 20.0)))
        refused = Keeping.handle_async_request

        async def answer(request: httpx.Request) -> httpx.Response:
            kind = kind_of(request)
            if kind == "show" and trio.current_time() >= 1.0:
                return WAYS["403"]()
            if kind == "list" and 1.0 <= trio.current_time() < 60.0:
                if way is time_out:
                    await trio.sleep(60.0)
                return way()
            return await refused(transport, request)

        transport.handle_async_request = answer  # type: ignore[method-assign]
        report = await restart(transport)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}

    virtually(main)


#: What a warning says of whole logs that fail, and at the end of that.
FAILING: Final = "reboots are judged by the states of servers alone, until they can be read again"
MODES: Final[Mapping[str, Mapping[str, object]]] = {
    "default": {},
    "HARD": {"reboot_type": "HARD"},
    "one at once": {"max_at_once": 1},
    "max_down=10": {"rollout": Rollout(max_failures="100%", max_refused="100%", max_down=10)},
}


@fails
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_an_action_log_that_fails(
    way: Callable[[], httpx.Response], mode: Mapping[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """Servers that are back are judged by their states after 90 s of failures, not after their `wait_timeout`."""

    async def main() -> None:
        transport = Keeping(cloud_of(30, reboot_seconds=(20.0, 20.0)), {"log", "row"}, way)
        report = await restart(transport, **mode)
        assert report.stopped is None
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.STATE)}
        assert set(transport.cloud.posts.values()) == {1}
        assert 110.0 <= report.elapsed < 400.0
        assert transport.asked.count("row") + transport.asked.count("log") <= 50
        assert transport.asked.count("show") <= 50

    virtually(main)
    assert caplog.text.count(FAILING) == 1
    assert "run stops" not in caplog.text


@fails
def test_an_action_log_that_fails_with_since(
    way: Callable[[], httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent; after 5 min of failures no server waits for the log any more."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), {"log", "row"}, way)
        report = await restart(transport, since=SINCE)
        assert report.stopped is None
        assert ends(report) == {(Outcome.SKIPPED, Reason.HISTORY_UNREADABLE, None)}
        assert transport.asked.count("send") == 0
        assert 290.0 <= report.elapsed < 400.0
        assert transport.asked.count("log") <= 60

    virtually(main)
    assert caplog.text.count(FAILING) == 1


@pytest.mark.unmeasured
@fails
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
def test_an_action_log_that_fails_after_a_lost_reply(
    way: Callable[[], httpx.Response], applied: bool, reboot_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A send of unknown fate is in doubt after 5 min, as after any log that does not tell; nothing is sent again."""

    async def main() -> None:
        transport = Keeping(cloud_of(12, reboot_seconds=(20.0, 20.0)), {"log", "row"}, way)
        lose(transport.cloud, applied=applied)
        report = await restart(transport, reboot_type=reboot_type)
        assert report.stopped is None
        assert ends(report) == {(Outcome.IN_DOUBT, Reason.UNANSWERED, None)}
        assert set(transport.cloud.posts.values()) == {1}
        assert all(result.elapsed >= 300.0 for result in report)
        # While nothing is answered, requests are made one at a time: the last sends leave late.
        assert report.elapsed < (900.0 if way is time_out else 400.0)
        assert transport.asked.count("log") <= 100

    virtually(main)
    assert caplog.text.count(FAILING) == 1


@pytest.mark.unmeasured
@fails
@pytest.mark.parametrize("lasts", [30.0, 120.0, 200.0])
@pytest.mark.parametrize("applied", [True, False])
def test_an_action_log_that_fails_for_a_time_after_a_lost_reply(
    way: Callable[[], httpx.Response], applied: bool, lasts: float
) -> None:
    """No send is in doubt because of that: the log tells its fate when it can be read again."""

    async def main() -> None:
        transport = Keeping(cloud_of(12, reboot_seconds=(20.0, 20.0)), {"log", "row"}, way, times=(0.0, lasts))
        lose(transport.cloud, applied=applied)
        report = await restart(transport)
        assert {outcome for outcome, _, _ in ends(report)} == {Outcome.COMPLETED}
        assert set(transport.cloud.cycles.values()) == {1}
        assert set(transport.cloud.posts.values()) == ({1} if applied else {2})

    virtually(main)


@pytest.mark.unmeasured
@fails
@pytest.mark.parametrize("lasts", [30.0, 60.0])
def test_an_action_log_that_restarts(
    way: Callable[[], httpx.Response], lasts: float, caplog: pytest.LogCaptureFixture
) -> None:
    """It is waited for, and the log proves every reboot."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), {"log", "row"}, way, times=(10.0, 10.0 + lasts))
        report = await restart(transport)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}
        assert report.elapsed < 200.0

    virtually(main)
    assert FAILING not in caplog.text


@fails
def test_an_action_log_that_can_be_read_again(
    way: Callable[[], httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    """A probe notices it; servers that are back after that are proved by the log again."""

    async def main() -> None:
        cloud = cloud_of(60, reboot_seconds=(20.0, 20.0))
        transport = Keeping(cloud, {"log", "row"}, way, times=(0.0, 420.0))
        rollout = Rollout(max_failures="100%", max_refused="100%", max_down=2)
        report = await restart(transport, rollout=rollout)
        assert report.stopped is None
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.STATE), (Outcome.COMPLETED, None, Proof.ACTION)}
        assert {result.proof for result in list(report)[-5:]} == {Proof.ACTION}

    virtually(main)
    assert caplog.text.count(FAILING) == 1
    assert caplog.text.count("action logs can be read again") >= 1


@fails
@pytest.mark.parametrize("servers", [1, 2, 5])
def test_an_action_log_that_fails_in_a_small_run(way: Callable[[], httpx.Response], servers: int) -> None:
    """Servers that are restarted one at a time do not each wait for the log."""

    async def main() -> None:
        transport = Keeping(cloud_of(servers, reboot_seconds=(5.0, 5.0)), {"log", "row"}, way)
        rollout = Rollout(max_failures="100%", max_refused="100%", max_down=1)
        report = await restart(transport, rollout=rollout)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.STATE)}
        assert report.elapsed < 450.0 + 60.0 * servers
        assert report.elapsed < 600.0

    virtually(main)


@fails
def test_the_action_log_of_one_server_that_fails(
    way: Callable[[], httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    """The logs of all others are read as before."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), {"log", "row"}, way)
        broken = transport.cloud.ids[7]
        transport.servers = {broken}
        report = await restart(transport)
        assert report[broken].outcome is Outcome.COMPLETED
        assert report[broken].proof is Proof.STATE
        assert [result.proof for result in report if result.server_id != broken] == [Proof.ACTION] * 29

    virtually(main)


@fails
def test_single_rows_that_fail(way: Callable[[], httpx.Response], caplog: pytest.LogCaptureFixture) -> None:
    """The whole log is used instead of rows that fail."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), {"row"}, way)
        report = await restart(transport)
        assert report.stopped is None
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.STATE)}
        assert report.elapsed < 400.0
        assert transport.asked.count("log") >= 30

    virtually(main)
    assert caplog.text.count("whole logs do not show when a reboot ends, until they can be read again") == 1
    assert FAILING not in caplog.text


@fails
@pytest.mark.parametrize("servers", [1, 2, 12])
@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
def test_single_rows_of_one_server_that_fail(way: Callable[[], httpx.Response], servers: int, reboot_type: str) -> None:
    """The whole log shows the Error of its reboot: as soon as some requests have failed, at the latest at the end."""

    async def main() -> None:
        transport = Keeping(cloud_of(servers, reboot_seconds=(5.0, 5.0)), {"row"}, way)
        broken = transport.cloud.ids[0]
        transport.servers = {broken}
        transport.cloud.break_host(broken, HostFault.REVERTED)
        report = await restart(transport, reboot_type=reboot_type, wait_timeout=120.0)
        assert (report[broken].outcome, report[broken].reason) == (Outcome.FAILED, Reason.NOT_REBOOTED)
        assert report.summary.get(Outcome.COMPLETED, 0) == servers - 1
        assert set(transport.cloud.posts.values()) == {1}
        # Where a request times out, the log may do so too: it is read when the wait is over.
        assert report[broken].elapsed < (300.0 if way in (time_out, cut) else 60.0)
        assert transport.asked.count("log") <= 4

    virtually(main)


@fails
def test_single_rows_of_one_server_that_fail_without_ids(way: Callable[[], httpx.Response]) -> None:
    """When the wait is over, the whole log shows the Error of a row that was found in it and cannot be read."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(5.0, 5.0), request_ids=RequestIds.HIDDEN)
        transport = Keeping(cloud, {"row"}, way, servers={cloud.ids[0]})
        cloud.break_host(cloud.ids[0], HostFault.REVERTED)
        report = await restart(transport, wait_timeout=50.0)
        assert (report[cloud.ids[0]].outcome, report[cloud.ids[0]].reason) == (Outcome.FAILED, Reason.NOT_REBOOTED)
        assert report.summary[Outcome.COMPLETED] == 2

    virtually(main)


@fails
@pytest.mark.parametrize("servers", [1, 2, 12])
def test_single_rows_of_one_server_that_fail_after_a_reboot(way: Callable[[], httpx.Response], servers: int) -> None:
    """Its row is waited for to the end, because the whole log does not show when a reboot ends."""

    async def main() -> None:
        transport = Keeping(cloud_of(servers, reboot_seconds=(5.0, 5.0)), {"row"}, way)
        broken = transport.cloud.ids[0]
        transport.servers = {broken}
        report = await restart(transport, wait_timeout=80.0)
        assert [result.proof for result in report] == [Proof.STATE, *[Proof.ACTION] * (servers - 1)]
        assert report[broken].elapsed >= 80.0
        assert transport.asked.count("log") <= 6

    virtually(main)


@pytest.mark.parametrize("wait_timeout", [20.0, 120.0])
@pytest.mark.parametrize("status", [400, 404, 418])
@pytest.mark.parametrize("request_ids", RequestIds)
@pytest.mark.parametrize("is_broken", [True, False])
def test_single_rows_of_one_server_that_are_answered_oddly(
    status: int, request_ids: RequestIds, is_broken: bool, wait_timeout: float
) -> None:
    """The whole log shows an Error too if it is read before each row."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(5.0, 5.0), request_ids=request_ids)
        transport = Keeping(cloud, {"row"}, lambda: httpx.Response(status, text="default backend"))
        broken = cloud.ids[0]
        transport.servers = {broken}
        if is_broken:
            cloud.break_host(broken, HostFault.REVERTED)
        report = await restart(transport, wait_timeout=wait_timeout)
        assert report[broken].outcome is (Outcome.FAILED if is_broken else Outcome.COMPLETED)
        assert report.summary.get(Outcome.COMPLETED, 0) == 3 - is_broken

    virtually(main)


@fails
def test_a_cloud_that_fails_is_not_an_action_log_that_fails(
    way: Callable[[], httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is said of the logs, and all servers are proved by them when the cloud is back."""

    async def main() -> None:
        cloud = cloud_of(30, reboot_seconds=(5.0, 60.0))
        transport = Keeping(cloud, {*PATHS, "send"}, way, times=(20.0, 200.0))
        report = await restart(transport)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}

    virtually(main)
    assert "until they can be read again" not in caplog.text


@pytest.mark.parametrize("servers", [1, 5, 30])
@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
def test_the_action_log_of_one_server_that_is_forbidden(
    servers: int, reboot_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is judged by its states at once; the logs of all others are read, also if it comes first."""

    async def main() -> None:
        transport = Keeping(cloud_of(servers), {"log", "row"}, WAYS["403"])
        transport.servers = {transport.cloud.ids[0]}
        rollout = Rollout(max_failures="100%", max_refused="100%", max_down=1)
        report = await restart(transport, reboot_type=reboot_type, rollout=rollout)
        proofs = [result.proof for result in report]
        assert proofs == [Proof.STATE, *[Proof.ACTION] * (servers - 1)]
        assert report[transport.cloud.ids[0]].elapsed < 60.0

    virtually(main)
    assert caplog.text.count("action logs cannot be read") == (2 if servers == 1 else 0)


@pytest.mark.parametrize("applied", [True, False])
def test_a_lost_reply_of_one_server_whose_action_log_is_forbidden(applied: bool) -> None:
    """Its fate is learnt from its state, and that of others from their logs."""

    async def main() -> None:
        transport = Keeping(cloud_of(5, reboot_seconds=(20.0, 20.0)), {"log", "row"}, WAYS["403"])
        forbidden, *others = transport.cloud.ids
        transport.servers = {forbidden}
        lose(transport.cloud, applied=applied)
        report = await restart(transport)
        first = (Outcome.COMPLETED, Proof.STATE) if applied else (Outcome.IN_DOUBT, None)
        assert (report[forbidden].outcome, report[forbidden].proof) == first
        assert [(report[other].outcome, report[other].proof) for other in others] == [
            (Outcome.COMPLETED, Proof.ACTION)
        ] * 4
        # Because other logs were read, it is asked again until the end.
        assert report[forbidden].elapsed < 330.0

    virtually(main)


@pytest.mark.unmeasured
@ways
def test_lists(way: Callable[[], httpx.Response]) -> None:
    """Single servers are used instead of lists."""

    async def main() -> None:
        report = await restart(Keeping(cloud_of(30), {"list"}, way))
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}
        assert report.elapsed < 120.0

    virtually(main)


@pytest.mark.parametrize("kept", [{"list", "show"}, {"list", "show", "log", "row"}], ids=["states", "all"])
@pytest.mark.parametrize(
    ("rollout", "end"),
    [
        (REGARDLESS, (Outcome.ACCEPTED, None, None)),
        (Rollout(max_failures="100%", max_down=30), (Outcome.IN_DOUBT, Reason.UNANSWERED, None)),
    ],
    ids=["wait", "max_down"],
)
def test_all_states(
    kept: Collection[str],
    rollout: Rollout,
    end: tuple[Outcome, Reason | None, Proof | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing replaces the states: the run does not wait for servers that it may not see."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), kept)
        # Some servers are accepted after it is known that none can be seen.
        slow_down(transport.cloud, 20.0, but=transport.cloud.ids[:20])
        report = await restart(transport, rollout=rollout)
        assert ends(report) == {end}
        assert (report.stopped, set(transport.cloud.posts.values())) == (None, {1})
        assert report.elapsed < 40.0
        assert transport.asked.count("show") <= 31

    virtually(main)
    assert caplog.text.count("the run does not wait for any") == 1


@pytest.mark.parametrize("applied", [True, False])
def test_all_sources_after_a_lost_reply(applied: bool) -> None:
    """Nothing can show the fate of a send: the server is in doubt at once, and is not sent to again."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), set(PATHS))
        lose(transport.cloud, applied=applied)
        report = await restart(transport)
        assert ends(report) == {(Outcome.IN_DOUBT, Reason.UNANSWERED, None)}
        assert set(transport.cloud.posts.values()) == {1}
        assert report.elapsed < 20.0

    virtually(main)


@pytest.mark.parametrize("reboot_type", ["soft", "hard"])
def test_servers_without_states(reboot_type: str) -> None:
    """If the extension with the two states is missing, they are derived from `status`."""

    def change(_: str, document: object) -> object:
        return without(document, "OS-EXT-STS:vm_state", "OS-EXT-STS:task_state", "OS-EXT-STS:power_state")

    async def main() -> None:
        transport = Keeping(cloud_of(30), change=change)
        report = await restart(transport, reboot_type=reboot_type)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}
        assert report.elapsed < 120.0

    virtually(main)


@pytest.mark.parametrize("request_ids", [RequestIds.HIDDEN, RequestIds.REPLACED])
def test_request_ids(request_ids: RequestIds) -> None:
    """User and time in the log replace the request id of an answer."""

    async def main() -> None:
        report = await restart(Keeping(cloud_of(30, request_ids=request_ids)))
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}

    virtually(main)


def test_the_clock() -> None:
    """Rows of the run's own reboots replace `Date`."""

    async def main() -> None:
        report = await restart(Keeping(cloud_of(30, has_date=False)))
        assert {outcome for outcome, _, _ in ends(report)} == {Outcome.COMPLETED}

    virtually(main)


def without(document: object, *names: str) -> object:
    """Leave out members, however deep."""
    if isinstance(document, list):
        return [without(item, *names) for item in document]
    if isinstance(document, dict):
        return {name: without(value, *names) for name, value in document.items() if name not in names}
    return document


def mapped(document: object, change: Callable[[str, object], object]) -> object:
    """Change the values of members, however deep."""
    if isinstance(document, list):
        return [mapped(item, change) for item in document]
    if isinstance(document, dict):
        return {name: change(name, mapped(value, change)) for name, value in document.items()}
    return document


def in_upper_case(name: str, value: object) -> object:
    """Write states and actions in another letter case."""
    names = ("status", "action", "message", "result", "OS-EXT-STS:vm_state", "OS-EXT-STS:task_state")
    return value.title() if name in names and isinstance(value, str) else value


def as_empty_strings(_: str, value: object) -> object:
    """Write an empty string for what is null."""
    return "" if value is None else value


def as_words(name: str, value: object) -> object:
    """Write a word for no state."""
    return "None" if name.startswith("OS-EXT-STS:") and value is None else value


def saved_long_ago(document: Any, cloud: Cloud) -> object:
    """Show servers that were not sent to as saved long ago."""
    for server in document.get("servers", [document.get("server", {})]):
        if not cloud.posts[server.get("id")]:
            server["updated"] = "2020-01-01T00:00:00Z"
    return document


def with_more(name: str, value: object) -> object:
    """Add members that are not known."""
    return {**value, "x": None, "nested": {"code": 404, "message": "no"}} if isinstance(value, dict) else value


@pytest.mark.unmeasured
@pytest.mark.parametrize("change", [in_upper_case, as_empty_strings, as_words, with_more])
@pytest.mark.parametrize("loses", [False, True], ids=["answered", "lost"])
def test_what_is_said_in_another_way(change: Callable[[str, object], object], loses: bool) -> None:
    """Other letter case, empty strings, words for "none" and unknown members are understood."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), change=lambda _, document: mapped(document, change))
        if loses:
            lose(transport.cloud, applied=True)
        report = await restart(transport)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}
        assert set(transport.cloud.posts.values()) == {1}
        assert report.elapsed < 120.0

    virtually(main)


#: Clouds whose rows do not tell when an action ends.
UNTOLD_ENDS: Final[Mapping[str, Callable[[object], object]]] = {
    "no events": lambda document: without(document, "events"),
    "events without their ends": lambda document: without(document, "finish_time", "result"),
    "events that are null": lambda document: mapped(document, lambda name, value: None if name == "events" else value),
    "events that are names": lambda document: mapped(
        document, lambda name, value: ["compute_reboot_instance"] if name == "events" else value
    ),
}


@pytest.mark.parametrize("change", UNTOLD_ENDS.values(), ids=UNTOLD_ENDS)
@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_rows_that_do_not_tell_the_end(
    change: Callable[[object], object], seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The state tells that a server is back, and no server waits for a finish that the cloud never shows."""

    async def main() -> None:
        cloud = cloud_of(30, reboot_seconds=(seconds, seconds))
        report = await restart(Keeping(cloud, change=lambda kind, document: change(document)))
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.STATE)}
        assert report.elapsed < max(seconds + 20.0, 60.0)

    virtually(main)
    assert caplog.text.count("the action log does not show when a reboot ends") == 1


@pytest.mark.parametrize("change", UNTOLD_ENDS.values(), ids=UNTOLD_ENDS)
def test_error_counts_where_rows_do_not_tell_the_end(change: Callable[[object], object]) -> None:
    """A reboot that the log calls an Error has failed, whether or not its end is told."""

    async def main() -> None:
        cloud = cloud_of(5)
        for server_id in cloud.ids:
            cloud.break_host(server_id, HostFault.REVERTED)
        report = await restart(Keeping(cloud, change=lambda kind, document: change(document)))
        assert ends(report) == {(Outcome.FAILED, Reason.NOT_REBOOTED, None)}

    virtually(main)


def test_row_under_way_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """A null is no missing member: it says that the action has not ended."""

    def change(kind: str, document: object) -> object:
        return mapped(document, lambda name, value: None if name in ("finish_time", "result") else value)

    async def main() -> None:
        report = await restart(Keeping(cloud_of(3), change=change), wait_timeout=100.0)
        assert ends(report) == {(Outcome.FAILED, Reason.NOT_BACK, None)}

    virtually(main)
    assert "does not show when a reboot ends" not in caplog.text


#: Names that clouds may have for a reboot.
NAMES: Final = ("REBOOT", "os-reboot", "rebootServer", "batch-reboot", "power-cycle", "restart", "stop")


def named(name: str) -> Callable[[str, object], object]:
    """Call reboots so in the action log."""

    def change(_: str, document: object) -> object:
        return mapped(document, lambda key, value: name if key == "action" and value == "reboot" else value)

    return change


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("loses", [False, True], ids=["answered", "500"])
def test_row_with_our_own_id_has_any_name(name: str, loses: bool) -> None:
    """A row with the id of an answer to a send of ours is that send, whatever the cloud calls it."""

    async def main() -> None:
        cloud = cloud_of(10)
        if loses:
            for server_id in cloud.ids:
                cloud.script(server_id, Fault.error(500, applied=True))
        report = await restart(Keeping(cloud, change=named(name)))
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}
        assert set(cloud.cycles.values()) == {1}
        assert report.elapsed < 60.0

    virtually(main)


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("reboot_type", ["soft", "hard"])
@pytest.mark.parametrize("request_ids", RequestIds)
def test_lost_reply_and_a_row_of_any_name(name: str, reboot_type: str, request_ids: RequestIds) -> None:
    """Where no id tells, an action of ours of a name that Nova has not prevents a second send."""

    async def main() -> None:
        cloud = cloud_of(10, request_ids=request_ids, reboot_seconds=(0.5, 0.5))
        lose(cloud, applied=True)
        report = await restart(Keeping(cloud, change=named(name)), reboot_type=reboot_type)
        assert {outcome for outcome, _, _ in ends(report)} <= {Outcome.COMPLETED, Outcome.IN_DOUBT}
        assert "reboot" not in name.lower() or report.summary == {Outcome.COMPLETED: 10}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("answer", ["first", "second"])
def test_hard_that_was_delivered_twice_by_any_name(name: str, answer: Literal["first", "second"]) -> None:
    """Nova drops the second of two, and its row says Error; the other row is known as a reboot by its name."""

    async def main() -> None:
        cloud = cloud_of(10)
        for server_id in cloud.ids:
            cloud.script(server_id, Fault.delivered_twice(0.1, answer))
        report = await restart(Keeping(cloud, change=named(name)), reboot_type="hard")
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_accepted_reboot_of_any_name_without_ids(name: str) -> None:
    """An accepted reboot whose row has a name that only this cloud has is in doubt, and no failure."""

    async def main() -> None:
        report = await restart(Keeping(cloud_of(10, request_ids=RequestIds.HIDDEN), change=named(name)))
        is_known = "reboot" in name.lower()
        assert {outcome for outcome, _, _ in ends(report)} == {Outcome.COMPLETED if is_known else Outcome.IN_DOUBT}

    virtually(main)


@pytest.mark.parametrize("name", ["reboot", *NAMES])
@pytest.mark.parametrize("status", [202, 500])
def test_one_id_for_all_answers_is_none(name: str, status: int) -> None:
    """An id that a gateway writes on every answer, and in every row, does not make an old row ours."""

    def change(kind: str, document: object) -> object:
        renamed = named(name)(kind, document)
        return mapped(renamed, lambda key, value: "req-fixed" if key == "request_id" else value)

    async def main() -> None:
        cloud = cloud_of(10)
        for server_id in cloud.ids:
            cloud.reboot_by_other(server_id)
        await trio.sleep(7200.0)
        for server_id in cloud.ids:
            # Nothing is done, and the answer says otherwise, or nothing.
            cloud.script(server_id, Fault.respond(status, headers={"x-openstack-request-id": "req-fixed"}))
        report = await restart(Keeping(cloud, change=change), wait_timeout=200.0)
        assert Outcome.COMPLETED not in report.summary or status == 500
        assert set(cloud.cycles.values()) <= {1, 2}
        for result in report:
            assert (result.outcome is Outcome.COMPLETED) <= (cloud.cycles[result.server_id] == 2)

    virtually(main)


@pytest.mark.parametrize("reboot_type", ["soft", "hard"])
@pytest.mark.parametrize("servers", [1, 2, 12])
def test_one_id_for_all_answers_is_not_that_of_a_creation(servers: int, reboot_type: str) -> None:
    """A server whose only row is its creation has not rebooted, though that row carries the id of an answer."""

    def one_id(_: str, document: object) -> object:
        return mapped(document, lambda key, value: "req-fixed" if key == "request_id" else value)

    async def main() -> None:
        cloud = cloud_of(servers)
        for server_id in cloud.ids:
            cloud.script(server_id, Fault.respond(202, headers={"x-openstack-request-id": "req-fixed"}))
        report = await restart(Keeping(cloud, change=one_id), wait_timeout=200.0, reboot_type=reboot_type)
        assert Outcome.COMPLETED not in report.summary
        assert set(cloud.cycles.values()) == {0}

    virtually(main)


ODD_ROWS: Final[Mapping[str, Mapping[str, object]]] = {
    "no request id": {"action": "live-migration", "request_id": None, "start_time": "2021-05-05T00:00:00.000000"},
    "no time": {"action": "stop", "request_id": "req-1", "start_time": None},
    "a time that is none": {"action": "lock", "request_id": "req-2", "start_time": "yesterday"},
    "a time far ahead": {"action": "resize", "request_id": "req-3", "start_time": "9999-01-01T00:00:00.000000"},
    "an id that is no text": {"action": "pause", "request_id": 7, "start_time": "2021-05-05T00:00:00.000000"},
    "nothing but a name": {"action": "rebuild"},
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("row", ODD_ROWS.values(), ids=ODD_ROWS)
@pytest.mark.parametrize("kind", ["accepted", "since", "lost"])
def test_odd_rows_of_other_actions(row: Mapping[str, object], kind: str) -> None:
    """A row that cannot be the reboot never makes a log unreadable."""

    def change(source: str, document: object) -> object:
        if source == "log":
            assert isinstance(document, dict)
            document["instanceActions"].insert(0, dict(row))
        return document

    async def main() -> None:
        transport = Keeping(cloud_of(30), change=change)
        since = None
        if kind == "since":
            since = SINCE
        elif kind == "lost":
            lose(transport.cloud, applied=False)
        report = await restart(transport, since=since)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}
        assert set(transport.cloud.cycles.values()) == {1}
        assert report.elapsed < 200.0

    virtually(main)


@pytest.mark.parametrize("name", ["start_time", "request_id", "action"])
@pytest.mark.parametrize("value", [None, "", 7])
def test_a_reboot_that_cannot_be_read_is_no_silence(name: str, value: object) -> None:
    """An unreadable row that may be our reboot prevents a second send."""

    def change(source: str, document: object) -> object:
        if source == "log":
            assert isinstance(document, dict)
            for row in document["instanceActions"]:
                if row["action"] == "reboot":
                    row[name] = value
        return document

    async def main() -> None:
        transport = Keeping(cloud_of(3, reboot_seconds=(1.0, 1.0)), change=change)
        lose(transport.cloud, applied=True)
        report = await restart(transport)
        assert set(transport.cloud.cycles.values()) == {1}
        assert all(outcome in (Outcome.COMPLETED, Outcome.IN_DOUBT) for outcome, _, _ in ends(report))

    virtually(main)


@pytest.fixture(autouse=True)
def _with_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "bulkrestart")


@dataclass
class OddGets(Keeping):
    """A transport to a cloud whose action logs fail, and whose single servers are shown oddly after a second."""

    odd: Callable[[], httpx.Response] = WAYS["403"]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        if kind_of(request) == "show" and trio.current_time() > 1.0:
            self.asked.append("show")
            return self.odd()
        return await super().handle_async_request(request)


@pytest.mark.unmeasured
@pytest.mark.parametrize("odd", [*WAYS.values(), *(way for name, way in FAILS.items() if way is not time_out)])
@pytest.mark.parametrize("is_short", [True, False], ids=["one failure", "failures for ever"])
def test_logs_that_fail_where_single_servers_are_odd(odd: Callable[[], httpx.Response], is_short: bool) -> None:
    """Where the other source is odd as well, each reader makes two requests, and not one after the other for ever."""

    async def main() -> None:
        cloud = cloud_of(5, latency=0.1, reboot_seconds=(20.0, 20.0))
        lose(cloud, applied=True)
        transport = OddGets(cloud, {"log"}, FAILS["503"], times=(0.0, 1.5 if is_short else float("inf")), odd=odd)
        report = await restart(transport)
        assert report.elapsed < 1900.0
        assert len(transport.asked) < 1500
        assert set(transport.cloud.posts.values()) == {1}
        assert {result.outcome for result in report} <= {Outcome.COMPLETED, Outcome.ACCEPTED, Outcome.IN_DOUBT}

    virtually(main)
