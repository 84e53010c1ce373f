"""What is used instead of each unreadable source, row by row of `docs/sources.md`: over HTTP, on virtual time."""

import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

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
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._transport = httpx.ASGITransport(asgi(self.cloud, lost=httpx.ReadError))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, or let the cloud answer."""
        kind = kind_of(request)
        self.asked.append(kind)
        if kind in self.kept:
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


@ways
@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_the_action_log(way: Callable[[], httpx.Response], seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    """The state is used instead, soon after it was seen in the reboot, or after 30 s; nothing waits for a time-out."""

    async def main() -> None:
        transport = Keeping(cloud_of(30, reboot_seconds=(seconds, seconds)), {"log", "row"}, way)
        report = await restart(transport)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.STATE)}
        # A reboot that no poll has shown is waited for as long as states may lag.
        assert report.elapsed < max(seconds + 20.0, 50.0)
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
def test_the_action_log_with_since(way: Callable[[], httpx.Response]) -> None:
    """Nothing is sent if it is unknown whether a server has rebooted already."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), {"log", "row"}, way)
        for server_id in transport.cloud.ids:
            transport.cloud.change(server_id, vm_state="active")
        report = await restart(transport, since=SINCE)
        assert {outcome for outcome, _, _ in ends(report)} <= {Outcome.SKIPPED, Outcome.COMPLETED}
        assert report.elapsed < 60.0

    virtually(main)


@ways
def test_single_servers(way: Callable[[], httpx.Response]) -> None:
    """The list is used instead of single servers."""

    async def main() -> None:
        transport = Keeping(cloud_of(30), way=way)
        async with over(transport) as client:
            await client.plan(transport.cloud.ids)
            transport.kept = {"show"}
            report = await client.restart(transport.cloud.ids, rollout=REGARDLESS)
        assert ends(report) == {(Outcome.COMPLETED, None, Proof.ACTION)}

    if way in (WAYS["403"],):
        virtually(main)


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
