"""Waves, budgets and what is down at once, seen from the cloud's side, on virtual time."""

from collections.abc import Callable, Generator, Hashable, Iterable
from pathlib import Path
from random import Random

import anyio
import pytest
import trio

from bulkrestart import Outcome, Reason, Report, Rollout, Server, Stop, StopReason
from bulkrestart.simulator import Call, Cloud, Fault, Faults, HostFault
from tests.rollouts import ending, peak_down, play_budget, sent
from tests.virtual import REGARDLESS, assert_accounted, client_of, cloud_of, virtually

#: Ids of servers that the cloud does not have.
STRANGERS = [f"616fb98f-46ca-475e-917e-{number:012}" for number in range(1000)]


def kinds_at_once(cloud: Cloud, by: Callable[[str], Hashable]) -> int:
    """Tell of how many kinds servers were down at once, at most."""
    spans: dict[Hashable, tuple[float, float]] = {}
    for down in cloud.downtimes:
        first, last = spans.get(by(down.server_id), (float("inf"), 0.0))
        spans[by(down.server_id)] = (min(first, down.began), max(last, down.ended or float("inf")))
    return max(sum(one[0] <= other[0] < one[1] for one in spans.values()) for other in spans.values())


def assert_waves(cloud: Cloud, waves: Iterable[Iterable[str]], *, pause: float = 0.0) -> None:
    """Hold that nobody of a wave is sent to before all of the last one are back, and the pause is over."""
    times = sent(cloud)
    before = 0.0
    for wave in waves:
        ids = set(wave)
        assert min(times[one] for one in ids) >= before
        before = max(down.ended or 0.0 for down in cloud.downtimes if down.server_id in ids) + pause


def test_canary_and_waves() -> None:
    """The canary is back before anybody else is sent to, and each wave before the next."""

    async def main() -> None:
        cloud = cloud_of(11, reboot_seconds=(3.0, 30.0))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(canary=1, wave=5))
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 11}
        ids = cloud.ids
        assert_waves(cloud, [ids[:1], ids[1:6], ids[6:]])
        assert peak_down(cloud) == 5

    virtually(main)


def test_pause_in_seconds() -> None:
    """So long nobody is sent to after a wave; nobody waits after the last one."""

    async def main() -> None:
        cloud = cloud_of(4, reboot_seconds=(2.0, 2.0))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(wave=2, pause=100.0))
        assert report.summary == {Outcome.COMPLETED: 4}
        assert_waves(cloud, [cloud.ids[:2], cloud.ids[2:]], pause=100.0)
        assert report.elapsed < 120.0

    virtually(main)


def test_pause_that_decides() -> None:
    """Between two waves the function is given the report so far, and its word goes on or stops the run."""

    async def main() -> None:
        cloud = cloud_of(6)
        seen: list[tuple[int, ...]] = []

        async def decide(report: Report) -> bool:
            seen.append(tuple(report.summary.values()))
            await trio.sleep(50.0)
            return len(seen) < 2

        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(wave=2, pause=decide))
        assert seen == [(2, 4), (4, 2)]
        assert report.summary == {Outcome.COMPLETED: 4, Outcome.SKIPPED: 2}
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.PAUSE
        assert "says False" in report.stopped.detail
        assert_waves(cloud, [cloud.ids[:2], cloud.ids[2:4]], pause=50.0)

    virtually(main)


@pytest.mark.parametrize("word", [None, 1, "yes"])
def test_pause_that_does_not_say_true(word: object) -> None:
    """Whatever is not True stops the run: a function that forgets to return does not let a fleet go on."""

    async def main() -> None:
        cloud = cloud_of(2)

        async def decide(_: Report) -> object:
            return word

        async with client_of(cloud) as client:
            rollout = Rollout(canary=1, pause=decide)  # type: ignore[arg-type]
            report = await client.restart(cloud.ids, rollout=rollout)
        assert report.summary == {Outcome.COMPLETED: 1, Outcome.SKIPPED: 1}
        assert report.stopped is not None
        assert repr(word) in report.stopped.detail

    virtually(main)


def test_pause_that_fails() -> None:
    """What the function raises stops the run, which still has its report."""

    async def main() -> None:
        cloud = cloud_of(2)

        async def decide(_: Report) -> bool:
            raise LookupError("no such dashboard")

        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(canary=1, pause=decide))
        assert report.summary == {Outcome.COMPLETED: 1, Outcome.SKIPPED: 1}
        assert report.stopped is not None
        assert "LookupError: no such dashboard" in report.stopped.detail

    virtually(main)


def test_pause_that_is_not_async() -> None:
    """A plain function stops the run before the next wave, and the words name the remedy."""

    async def main() -> None:
        cloud = cloud_of(2)
        rollout = Rollout(canary=1, pause=lambda _: True)  # type: ignore[arg-type, return-value]
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=rollout)
        assert report.summary == {Outcome.COMPLETED: 1, Outcome.SKIPPED: 1}
        words = "pause must be an async function (async def): what it gave is a bool"
        assert report.stopped == Stop(StopReason.PAUSE, words)

    virtually(main)


@pytest.mark.parametrize("asks", [False, True])
def test_stop_in_a_pause(asks: bool) -> None:
    """A run that is stopped in a pause ends then, and does not sit it out."""

    async def main() -> None:
        cloud = cloud_of(2)

        async def decide(_: Report) -> bool:
            await trio.sleep_forever()
            return True

        rollout = Rollout(canary=1, pause=decide if asks else 10_000.0)
        async with client_of(cloud) as client, client.restarting(cloud.ids, rollout=rollout) as run:
            async for _ in run:
                break
            await trio.sleep(5.0)
            run.stop()
            assert [result.outcome async for result in run] == [Outcome.SKIPPED]
        assert run.report.elapsed < 100.0
        assert run.report.stopped is not None
        assert run.report.stopped.reason is StopReason.ASKED

    virtually(main)


def test_cancelled_in_a_pause() -> None:
    """A cancellation ends a pause, and the account is whole."""

    async def main() -> None:
        cloud = cloud_of(3)
        async with client_of(cloud) as client:
            with anyio.move_on_after(100.0):
                async with client.restarting(cloud.ids, rollout=Rollout(canary=1, pause=10_000.0)) as run:
                    async for _ in run:
                        pass
        assert run.report.summary == {Outcome.COMPLETED: 1, Outcome.SKIPPED: 2}
        assert_accounted(run.report, cloud)

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("max_failures", "allowed"), [(0, 0), (1, 1), (7, 7), ("5%", 5), ("0.9%", 0), ("100%", 100), (None, 5)]
)
def test_failures(max_failures: int | str | None, allowed: int) -> None:
    """Once more servers failed than may, nobody new is sent to."""

    async def main() -> None:
        cloud = cloud_of(100, reboot_seconds=(1.0, 5.0))
        for server_id in cloud.ids[::3]:
            cloud.break_host(server_id, HostFault.DEAD)
        rollout = Rollout(max_failures=max_failures, max_down=5)
        rollout = Rollout(max_failures=max_failures, wave=5) if allowed < 5 else rollout
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(max_failures=max_failures, wave=1))
        assert_accounted(report, cloud)
        failed = report.summary.get(Outcome.FAILED, 0)
        if allowed >= 34:
            assert report.stopped is None
            assert failed == 34
        else:
            assert report.stopped is not None
            assert report.stopped.reason is StopReason.MAX_FAILURES
            assert failed == allowed + 1
            assert len(cloud.posts) == 3 * allowed + 1

    virtually(main)


def test_failures_that_were_in_flight() -> None:
    """What was sent before the budget was exceeded is followed to its end, and may fail as well."""

    async def main() -> None:
        cloud = cloud_of(60, reboot_seconds=(10.0, 10.0))
        for server_id in cloud.ids:
            cloud.break_host(server_id, HostFault.DEAD)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(max_failures=2, wave=20))
        assert report.summary == {Outcome.FAILED: 20, Outcome.SKIPPED: 40}
        assert len(cloud.posts) == 20

    virtually(main)


@pytest.mark.parametrize(("max_refused", "allowed"), [(0, 0), (5, 5), ("10%", 10), (None, 20)])
def test_refusals(max_refused: int | str | None, allowed: int) -> None:
    """A wrong list stops the run, though nothing was harmed; a few stale ids do not."""

    async def main() -> None:
        cloud = cloud_of(1)
        ids = [*cloud.ids, *STRANGERS[:99]]
        async with client_of(cloud, max_at_once=1) as client:
            report = await client.restart(ids, rollout=Rollout(max_refused=max_refused, max_failures=0))
            assert report.stopped is not None
            assert report.stopped.reason is StopReason.MAX_REFUSED
            assert report.summary[Outcome.REFUSED] == allowed + 1
            assert report[cloud.ids[0]].outcome is Outcome.COMPLETED
            few = await client.restart([*STRANGERS[:allowed], *cloud.ids], rollout=Rollout(max_refused=allowed))
        assert few.stopped is None

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("max_down", [1, 3, "10%"])
@pytest.mark.parametrize("seed", range(3))
def test_max_down(max_down: int | str, seed: int) -> None:
    """No more servers are ever down at once, whatever goes wrong; the next goes as soon as one is back."""

    async def main() -> None:
        faults = Faults(busy=0.1, error_after=0.1, lost_after=0.1, lost_before=0.1, late=0.1, throttled=0.05)
        cloud = cloud_of(40, seed=seed, reboot_seconds=(2.0, 40.0), faults=faults)
        async with client_of(cloud) as client:
            rollout = Rollout(max_down=max_down, max_refused="100%")
            report = await client.restart(cloud.ids, rollout=rollout)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 40}
        assert peak_down(cloud) == (4 if max_down == "10%" else max_down)

    virtually(main)


def test_max_down_and_servers_that_do_not_come_back() -> None:
    """Failed servers are down: no more than may be are, and when all places are theirs the run stops and says so."""

    async def main() -> None:
        cloud = cloud_of(30, reboot_seconds=(1.0, 5.0))
        for server_id, fault in zip(cloud.ids[4:10:2], [HostFault.DEAD, HostFault.HANG, HostFault.DOWN], strict=True):
            cloud.break_host(server_id, fault)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(max_down=3))
        assert_accounted(report, cloud)
        assert peak_down(cloud) == 3
        assert report.summary[Outcome.FAILED] == 3
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.MAX_DOWN
        assert "3 servers did not come back" in report.stopped.detail
        assert report.summary[Outcome.SKIPPED] == 30 - len(cloud.posts)

    virtually(main)


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(40))
def test_budget_as_a_guarantee(seed: int) -> None:
    """With max_down="budget", never more than max_failures + 1 servers fail, however many would."""
    virtually(lambda: play_budget(seed))


def test_one_zone_after_the_other() -> None:
    """No two availability zones are ever down together, in whatever order the ids come."""

    async def main() -> None:
        cloud = cloud_of(30, reboot_seconds=(2.0, 20.0))
        ids = list(cloud.ids)
        Random(5).shuffle(ids)
        async with client_of(cloud) as client:
            report = await client.restart(ids, rollout=Rollout(spread="az", canary=1))
        assert report.summary == {Outcome.COMPLETED: 30}
        assert [result.server_id for result in report] == ids
        assert kinds_at_once(cloud, lambda one: cloud.server(one).availability_zone) == 1
        first = ids[0]
        assert min(sent(cloud), key=lambda one: sent(cloud)[one]) == first

    virtually(main)


@pytest.mark.parametrize("max_down", [None, 3])
def test_one_of_a_host_at_a_time(max_down: int | None) -> None:
    """No host ever has two servers down, while other hosts go on."""

    async def main() -> None:
        cloud = cloud_of(30, reboot_seconds=(2.0, 20.0))
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(spread="host", max_down=max_down))
        assert report.summary == {Outcome.COMPLETED: 30}
        assert peak_down(cloud, by=lambda one: cloud.server(one).host) == 1
        assert peak_down(cloud) == (max_down or 10)

    virtually(main)


def test_domains_of_the_user() -> None:
    """A function names the domains; those of none go as they come."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(5.0, 20.0))
        databases = cloud.ids[:6]
        for server_id in databases:
            cloud.change(server_id, metadata={"role": "database"})

        def role(server: Server) -> str | None:
            return server.metadata.get("role")

        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, rollout=Rollout(spread=role))
        assert report.summary == {Outcome.COMPLETED: 20}
        assert peak_down(cloud, by=lambda one: one if one not in databases else "") == 1
        assert peak_down(cloud) == 15

    virtually(main)


def test_a_function_that_fails() -> None:
    """What the user's function raises comes out as it is, before anything is sent."""

    async def main() -> None:
        cloud = cloud_of(2)

        def role(server: Server) -> str:
            return server.metadata["role"]

        async with client_of(cloud) as client:
            with pytest.raises(KeyError, match="role"):
                await client.restart(cloud.ids, rollout=Rollout(spread=role))
        assert not cloud.posts

    virtually(main)


def test_a_domain_that_is_no_key() -> None:
    """A function that returns what cannot be compared is refused by its own words, before anything is sent."""

    async def main() -> None:
        cloud = cloud_of(2)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match="spread must return what can be a key, such as a string, not a list"):
                await client.restart(cloud.ids, rollout=Rollout(spread=lambda server: [server.name]))  # type: ignore[arg-type, return-value]
        assert not cloud.posts

    virtually(main)


def test_a_domain_that_is_to_be_awaited() -> None:
    """What an async function gives is a key that no two servers share: it is refused, and nothing is sent."""

    class Later:
        def __await__(self) -> Generator[None, None, str]:
            raise NotImplementedError

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match="spread must be a plain function of a Server: what it gave is to be"):
                await client.restart(cloud.ids, rollout=Rollout(spread=lambda _: Later()))
        assert not cloud.posts

    virtually(main)


def test_a_domain_with_a_server_that_does_not_come_back() -> None:
    """The others of its domain are held back, and said to be; other domains go on."""

    async def main() -> None:
        cloud = cloud_of(30, reboot_seconds=(1.0, 5.0))
        cloud.break_host(cloud.ids[0], HostFault.DEAD)
        async with client_of(cloud) as client, client.restarting(cloud.ids, rollout=Rollout(spread="host")) as run:
            shown = [result.server_id async for result in run]
        report = run.report
        assert sorted(shown) == sorted(cloud.ids)
        assert_accounted(report, cloud)
        held = [result.server_id for result in report if result.reason is Reason.HELD_BACK]
        assert held == [cloud.ids[10], cloud.ids[20]]
        assert report.summary == {Outcome.COMPLETED: 27, Outcome.FAILED: 1, Outcome.SKIPPED: 2}
        assert report.stopped is None
        assert peak_down(cloud, by=lambda one: cloud.server(one).host) == 1

    virtually(main)


@pytest.mark.parametrize("spread", ["az", "host"])
def test_servers_that_nobody_can_place(spread: str) -> None:
    """Who cannot be looked at is restarted by himself, at the end; who is not there is refused.

    He may be on any host, so anybody else who is down meanwhile may be of the same.
    """

    async def main() -> None:
        cloud = cloud_of(9, hosts=2, reboot_seconds=(2.0, 5.0))
        cloud.script(None, *[Fault.respond(403)] * 50, call=Call.LIST)
        hidden = cloud.ids[1:4]
        for server_id in hidden:
            cloud.script(server_id, Fault.error(500), call=Call.SHOW)
        async with client_of(cloud, max_at_once=5) as client:
            ids = [*cloud.ids, STRANGERS[0]]
            rollout = Rollout(spread="host" if spread == "host" else "az")
            report = await client.restart(ids, rollout=rollout)
        assert report.summary == {Outcome.COMPLETED: 9, Outcome.REFUSED: 1}
        times, is_hidden = sent(cloud), set(hidden).__contains__
        back = max(down.ended or 0.0 for down in cloud.downtimes if not is_hidden(down.server_id))
        assert min(times[server_id] for server_id in hidden) >= back
        assert peak_down(cloud, by=lambda server_id: server_id if not is_hidden(server_id) else "hidden") == 1
        if spread == "host":
            assert peak_down(cloud, by=lambda server_id: cloud.server(server_id).host) == 1

    virtually(main)


@pytest.mark.unmeasured
def test_a_spread_run_lists_once() -> None:
    """The fleet is listed by page before the first send: not server by server."""

    async def main() -> None:
        cloud = cloud_of(2500)
        async with client_of(cloud) as client:
            rollout = Rollout(spread="host")
            async with client.restarting(cloud.ids, rollout=rollout) as run:
                before = [request.call for request in cloud.requests]
                run.stop()
        assert before == [Call.SHOW, Call.LIST, Call.LIST, Call.LIST]

    virtually(main)


@pytest.mark.parametrize("rollout", [Rollout(canary=1), Rollout(wave=5), Rollout(max_down=5), Rollout(spread="host")])
def test_rollouts_wait(rollout: Rollout) -> None:
    """What goes by servers that are back cannot do without waiting for them; nothing is sent."""

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match=r"rollout with a canary, .* spread .*: wait too"):
                await client.restart(cloud.ids, wait=False, rollout=rollout)
            with pytest.raises(ValueError, match="rollout must be a Rollout, not"):
                await client.restart(cloud.ids, rollout={"canary": 1})  # type: ignore[arg-type]
        assert not cloud.requests

    virtually(main)


def test_budgets_without_waiting() -> None:
    """Refusals stop also a run that only sends."""

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud, max_at_once=1) as client:
            rollout = Rollout(max_refused=3)
            report = await client.restart([*cloud.ids, *STRANGERS], wait=False, rollout=rollout)
        assert report.summary == {Outcome.ACCEPTED: 1, Outcome.REFUSED: 4, Outcome.SKIPPED: 996}

    virtually(main)


def test_budgets_of_a_resumed_run(tmp_path: Path) -> None:
    """What failed in a former process counts; the same call stops again, and one that allows for more goes on."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(1.0, 2.0))
        for server_id in cloud.ids[:2]:
            cloud.break_host(server_id, HostFault.DEAD)
        journal = tmp_path / "journal"
        async with client_of(cloud) as client:
            first = await client.restart(cloud.ids, rollout=Rollout(wave=1, max_failures=1), journal=journal)
            assert first.summary == {Outcome.FAILED: 2, Outcome.SKIPPED: 18}
            again = await client.restart(cloud.ids, rollout=Rollout(wave=1, max_failures=1), journal=journal)
            assert again.summary == first.summary
            assert again.stopped is not None
            assert again.stopped.reason is StopReason.MAX_FAILURES
            assert len(cloud.posts) == 2
            rest = await client.restart(cloud.ids, rollout=Rollout(max_down=5, max_failures=2), journal=journal)
        assert rest.summary == {Outcome.COMPLETED: 18, Outcome.FAILED: 2}
        assert_accounted(rest, cloud)

    virtually(main)


def test_budget_as_a_guarantee_of_a_resumed_run(tmp_path: Path) -> None:
    """What failed in a former process has used up its places: no more than the budget and one fail over the whole run.

    Were the resumed run to have them all anew, it could lose as many again.
    """

    async def main() -> None:
        cloud = cloud_of(12, reboot_seconds=(10.0, 10.0))
        for server_id in cloud.ids:
            cloud.break_host(server_id, HostFault.DEAD)
        journal = tmp_path / "journal"
        async with client_of(cloud) as client:
            with anyio.CancelScope() as scope:
                first = Rollout(max_down="budget", max_failures=2, wave=1, pause=ending(scope, 5.0))
                await client.restart(cloud.ids, rollout=first, journal=journal)
            assert len(cloud.posts) == 2
            rest = Rollout(max_down="budget", max_failures=2)
            report = await client.restart(cloud.ids, rollout=rest, journal=journal)
        assert report.summary == {Outcome.FAILED: 3, Outcome.SKIPPED: 9}
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.MAX_FAILURES

    virtually(main)


def test_a_resumed_run_knows_who_is_down(tmp_path: Path) -> None:
    """Servers that a former process sent to count as down, and their wave is awaited, before anybody new is sent to."""

    async def main() -> None:
        cloud = cloud_of(12, reboot_seconds=(60.0, 60.0))
        journal = tmp_path / "journal"
        async with client_of(cloud) as client:
            with anyio.move_on_after(5.0):
                await client.restart(cloud.ids, rollout=Rollout(max_down=4), journal=journal)
            assert len(cloud.posts) == 4
            report = await client.restart(cloud.ids, rollout=Rollout(max_down=4), journal=journal)
        assert report.summary == {Outcome.COMPLETED: 12}
        assert_accounted(report, cloud)
        assert peak_down(cloud) == 4

    virtually(main)


def test_a_resumed_run_waits_for_its_canary(tmp_path: Path) -> None:
    """A canary whose process ended is awaited by the next, and so is the pause after it."""

    async def main() -> None:
        cloud = cloud_of(5, reboot_seconds=(60.0, 60.0))
        journal = tmp_path / "journal"
        rollout = Rollout(canary=1, pause=30.0)
        async with client_of(cloud) as client:
            with anyio.move_on_after(5.0):
                await client.restart(cloud.ids, rollout=rollout, journal=journal)
            report = await client.restart(cloud.ids, rollout=rollout, journal=journal)
        assert report.summary == {Outcome.COMPLETED: 5}
        assert_waves(cloud, [cloud.ids[:1], cloud.ids[1:]], pause=30.0)

    virtually(main)


def test_a_resumed_run_goes_back_to_a_wave_that_was_left(tmp_path: Path) -> None:
    """Whom a wave left out has a turn again, when nobody is down of the wave that the former process had come to."""

    async def main() -> None:
        cloud = cloud_of(6, reboot_seconds=(60.0, 60.0))
        for number, server_id in enumerate(cloud.ids):
            cloud.change(server_id, availability_zone="a" if number < 3 else "b", locked=number == 0)
        journal = tmp_path / "journal"
        async with client_of(cloud) as client:
            with anyio.CancelScope() as scope:
                first = Rollout(spread="az", pause=ending(scope, 5.0))
                await client.restart(cloud.ids, reboot_type="HARD", rollout=first, journal=journal)
            assert set(cloud.posts) == set(cloud.ids[1:])
            cloud.change(cloud.ids[0], locked=False)
            report = await client.restart(cloud.ids, reboot_type="HARD", rollout=Rollout(spread="az"), journal=journal)
        assert report.summary == {Outcome.COMPLETED: 6}
        assert_accounted(report, cloud)
        back = max(down.ended or 0.0 for down in cloud.downtimes if down.server_id in cloud.ids[3:])
        assert sent(cloud)[cloud.ids[0]] >= back

    virtually(main)


def test_a_finished_canary_is_not_waited_for_again(tmp_path: Path) -> None:
    """Waves that a former process finished are over: no pause follows them."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(1.0, 1.0))
        journal = tmp_path / "journal"
        rollout = Rollout(canary=1, pause=1000.0)
        async with client_of(cloud) as client:
            with anyio.move_on_after(100.0):
                await client.restart(cloud.ids, rollout=rollout, journal=journal)
            before = trio.current_time()
            report = await client.restart(cloud.ids, rollout=rollout, journal=journal)
            assert trio.current_time() - before < 60.0
        assert report.summary == {Outcome.COMPLETED: 3}

    virtually(main)


@pytest.mark.unmeasured
def test_a_whole_rollout() -> None:
    """A rollout of a thousand servers: an hour of it in seconds, zone by zone, with lost replies."""

    async def main() -> None:
        cloud = cloud_of(1_000, reboot_seconds=(2.0, 15.0))
        for server_id in cloud.ids[::50]:
            cloud.script(server_id, Fault.no_reply(applied=True))
        async with client_of(cloud, max_at_once=50) as client:
            rollout = Rollout(canary=1, wave="25%", pause=600.0, spread="az")
            report = await client.restart(cloud.ids, rollout=rollout)
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 1_000}
        assert kinds_at_once(cloud, lambda one: cloud.server(one).availability_zone) == 1
        assert peak_down(cloud) <= 250
        assert report.elapsed > 3000.0

    virtually(main)


def test_regardless() -> None:
    """Budgets of the whole fleet never stop a run."""

    async def main() -> None:
        cloud = cloud_of(4)
        for server_id in cloud.ids:
            cloud.break_host(server_id, HostFault.DEAD)
        async with client_of(cloud) as client:
            report = await client.restart([*cloud.ids, *STRANGERS[:50]], rollout=REGARDLESS)
        assert report.stopped is None
        assert report.summary == {Outcome.REFUSED: 50, Outcome.FAILED: 4}

    virtually(main)
