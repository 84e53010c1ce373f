"""A send that follows a look leaves while the look is fresh, or not at all: whatever stood still in between."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
import trio

from bulkrestart import Outcome, Report
from bulkrestart.cloud import instants
from bulkrestart.core.clock import Instant
from bulkrestart.run import submit
from bulkrestart.simulator import Call, Cloud, Fault
from tests.virtual import REGARDLESS, client_of, cloud_of, virtually

#: Where virtual time begins here, in seconds since the epoch: `since` has to be past for this machine as well.
BEGAN = 1_700_000_000.0
SINCE = datetime.fromtimestamp(BEGAN, UTC)
#: When the restart is asked for, after `SINCE`.
NOW = 1000.0


def past_cloud(servers: int = 1) -> Cloud:
    """Make a cloud of the past that lives on virtual time."""
    return Cloud(servers, clock=lambda: BEGAN + trio.current_time())


class Ended(NamedTuple):
    """How a run ended: its report, the sends that the cloud saw, the power cycles, and the readings of the log."""

    report: Report
    posts: int
    cycles: int
    reads: int


def restart(prepare: Callable[[Cloud], object], *, reboot_type: str = "SOFT", since: datetime | None = None) -> Ended:
    """Restart one server of a cloud that was prepared."""

    async def main() -> Ended:
        cloud = past_cloud()
        prepare(cloud)
        await trio.sleep(NOW)
        # Saved since, so that only the log tells of reboots.
        cloud.change(cloud.ids[0], name="renamed")
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type, since=since)
        reads = [record.call for record in cloud.requests].count(Call.LOG)
        return Ended(report, cloud.posts.total(), sum(cloud.cycles.values()), reads)

    return virtually(main)


def answers_of(report: Report) -> list[str]:
    """Give what each send to the only server was answered with."""
    [result] = report
    assert result.outcome is Outcome.COMPLETED, result
    return [attempt.answer for attempt in result.attempts]


@pytest.mark.parametrize(
    ("seconds", "is_stale"), [(14.0, False), (16.0, True), (40.0, True)], ids=["fresh", "stale", "very stale"]
)
def test_log_that_took_long_to_be_read_lets_no_send_follow(seconds: float, is_stale: bool) -> None:
    """With `since`, what the log showed is too old when its answer took more than 15 s: it is read again."""
    ended = restart(lambda cloud: cloud.script(cloud.ids[0], Fault.slow(seconds), call=Call.LOG), since=SINCE)

    answers = answers_of(ended.report)
    assert len(answers) == (2 if is_stale else 1)
    assert answers[-1] == "202"
    assert not is_stale or answers[0] == f"unsent: the look at the server before it was {seconds:.0f} s old"
    assert (ended.posts, ended.cycles) == (1, 1)
    assert ended.reads >= len(answers)


def test_reboot_while_the_log_was_on_its_way_is_not_doubled() -> None:
    """Another client's reboot after the log was read, and before our send, is found by the second look."""

    def prepare(cloud: Cloud) -> None:
        [server_id] = cloud.ids
        cloud.script(server_id, Fault.slow(30.0), call=Call.LOG)
        cloud.later(NOW + 10.0, lambda: cloud.reboot_by_other(server_id))

    ended = restart(prepare, since=SINCE)

    [result] = ended.report
    assert result.outcome is Outcome.SATISFIED
    assert (ended.posts, ended.cycles) == (0, 1)


@pytest.fixture(params=[("suspended", 180.0), ("running", 180.0), ("wall", 180.0)], ids=lambda param: param[0])
def jump(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let one of the clocks jump between the last look before the first send and that send."""
    clock, seconds = request.param
    checks = 0

    def current_instant() -> Instant:
        now = instants.current_instant()
        # The first two calls are the look's; the third is the check right before the send.
        nonlocal checks
        checks += 1
        ahead = seconds if checks >= 3 else 0.0
        return Instant(
            monotonic=now.monotonic + ahead * (clock == "running"),
            suspended=now.suspended + ahead * (clock == "suspended"),
            wall=now.wall + ahead * (clock == "wall"),
        )

    monkeypatch.setattr(submit, "current_instant", current_instant)
    yield
    assert checks > 3


@pytest.mark.usefixtures("jump")
def test_machine_that_stood_still_between_look_and_send() -> None:
    """Suspended, stopped or paused for 3 minutes: the look is too old, and a new one is made before anything leaves."""
    ended = restart(lambda _: None, since=SINCE)

    first, last = answers_of(ended.report)
    assert first == "unsent: the look at the server before it was 180 s old"
    assert last == "202"
    assert ended.posts == 1


def test_hard_does_not_follow_a_look_of_more_than_a_minute_ago() -> None:
    """A HARD whose look was answered late is kept back, since the server may have been stopped meanwhile."""

    def prepare(cloud: Cloud) -> None:
        [server_id] = cloud.ids
        # One look before the run, and the one before the send.
        cloud.script(server_id, None, Fault.slow(59.0), call=Call.SHOW)

    ended = restart(prepare, reboot_type="HARD")

    assert answers_of(ended.report) == ["202"]
    assert ended.cycles == 1


@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
def test_send_that_waits_longer_than_its_look_is_valid_looks_again(reboot_type: str) -> None:
    """One request in 100 s: the look before a second send is always too old, so the send looks in its own slot."""

    async def main() -> None:
        cloud = past_cloud()
        [server_id] = cloud.ids
        cloud.script(server_id, Fault.busy(1.0, "image_snapshot"))
        async with client_of(cloud, max_per_second=0.01) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type)
        answers = answers_of(report)
        assert len(answers) == 2
        assert answers[-1] == "202"
        assert cloud.cycles == {server_id: 1}

    virtually(main)


@pytest.mark.parametrize("max_at_once", [1, 4])
@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
def test_refused_send_that_was_delivered_again_while_the_next_one_waited(reboot_type: str, max_at_once: int) -> None:
    """The look in the slot reads the action log as well, because the refused send may have been delivered again."""

    async def main() -> None:
        cloud = cloud_of(60, reboot_seconds=(1.0, 2.0), latency=1.0)
        for server_id in cloud.ids[1:4]:
            cloud.script(server_id, replace(Fault.busy(3.0), again_after=20.0, answered_by="first"))
        for server_id in cloud.ids[4:]:
            cloud.script(server_id, Fault.throttled(75.0))
        async with client_of(cloud, max_at_once=max_at_once) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type, rollout=REGARDLESS)
        assert report.summary == {Outcome.COMPLETED: 60}
        assert set(cloud.cycles.values()) == {1}

    virtually(main)


def test_send_that_is_kept_back_is_no_trouble_of_the_clouds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that are always too old send nothing, hold up no other request, and end with the time for the server."""
    monkeypatch.setattr(submit, "CLOSE_LOOK_LIFE", -1.0)

    async def main() -> None:
        cloud = past_cloud(3)
        await trio.sleep(NOW)
        async with client_of(cloud, adaptive=False) as client:
            report = await client.restart(cloud.ids, since=SINCE, server_timeout=60.0)
        assert cloud.posts.total() == 0
        assert report.summary == {Outcome.SKIPPED: 3}
        assert report.stopped is None
        assert {attempt.answer.split(":")[0] for result in report for attempt in result.attempts} == {"unsent"}

    virtually(main)
