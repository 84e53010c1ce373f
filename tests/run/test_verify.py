"""The user's own check of servers that are back: when it is called, what it may do, and what becomes of the server."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

import httpx
import pytest
import trio

from bulkrestart import Outcome, Proof, Reason, RestartClient, Server, ServerResult, StopReason, Token
from bulkrestart.run import settle, verify
from bulkrestart.simulator import Call, Cloud, Fault, HostFault, asgi
from tests.naming import name_of
from tests.run.test_resume import killed
from tests.virtual import assert_accounted, client_of, cloud_of, end_of, virtually

VERIFIED: Final = (Outcome.VERIFIED, None)
VERIFY_FAILED: Final = (Outcome.FAILED, Reason.VERIFY_FAILED)


class Check:
    """A check that notes its calls.

    Args:
        answers: What it gives, one call after the other; an exception is raised, and the last one stays.
        seconds: How long each call takes.

    Attributes:
        calls: When each server was checked.
        peak: The most calls at once.
    """

    def __init__(self, *answers: object, seconds: float = 0.0) -> None:
        self.calls: dict[str, list[float]] = {}
        self.seen: list[Server] = []
        self.peak = 0
        self._now = 0
        self._answers = answers or (True,)
        self._seconds = seconds

    async def __call__(self, server: Server) -> bool:
        """Check a server."""
        calls = self.calls.setdefault(server.id, [])
        calls.append(trio.current_time())
        self.seen.append(server)
        self._now += 1
        self.peak = max(self.peak, self._now)
        try:
            await trio.sleep(self._seconds)
        finally:
            self._now -= 1
        answer = self._answers[min(len(calls), len(self._answers)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]

    @property
    def count(self) -> int:
        """How many calls there were."""
        return sum(map(len, self.calls.values()))


async def hang(server: Server) -> bool:
    """Check nothing, for ever."""
    await trio.sleep_forever()
    raise AssertionError(server)


async def checked(cloud: Cloud, check: Callable[[Server], Awaitable[bool]], **options: object) -> ServerResult:
    """Restart the one server of a cloud, and check it."""
    async with client_of(cloud) as client:
        [result] = await client.restart(cloud.ids, verify=check, **options)  # type: ignore[arg-type]
    return result


def test_verified() -> None:
    """Each server is checked once it is proved back, by the newest snapshot of it, and its proof stays."""

    async def main() -> None:
        cloud = cloud_of(30)
        cloud.change(cloud.ids[0], addresses={"private": {"10.0.0.7": "fixed"}})
        check = Check()
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, verify=check)
        assert report.summary == {Outcome.VERIFIED: 30}
        assert {result.proof for result in report} == {Proof.ACTION}
        assert not report.problems
        assert Counter(server.id for server in check.seen) == Counter(cloud.ids)
        assert {(server.vm_state, server.task_state) for server in check.seen} == {("active", None)}
        assert [server.addresses[0].address for server in check.seen if server.addresses] == ["10.0.0.7"]
        assert_accounted(report, cloud)

    virtually(main)


def test_results_are_streamed_once_after_the_check() -> None:
    """A server has its outcome when it was checked, and not before; until then it is completed, and counted so."""

    async def main() -> None:
        cloud = cloud_of(5, reboot_seconds=(1.0, 1.0))
        async with client_of(cloud) as client, client.restarting(cloud.ids, verify=Check(seconds=20.0)) as run:
            await trio.sleep(15.0)
            counts = run.statistics()
            assert (counts.accepted, counts.finished, counts.in_flight) == (5, 0, 0)
            assert {end_of(result) for result in run.report} == {(Outcome.COMPLETED, None)}
            results = [result async for result in run]
        assert Counter(map(end_of, results)) == {VERIFIED: 5}

    virtually(main)


@pytest.mark.parametrize("not_yet", [False, ValueError("boom"), ExceptionGroup("several", [OSError("boom")])])
def test_not_yet(not_yet: object) -> None:
    """False and exceptions mean not yet: it is called again, less often each time, and never at a steady beat."""

    async def main() -> None:
        cloud = cloud_of(1)
        check = Check(*[not_yet] * 7, True)
        result = await checked(cloud, check)
        assert end_of(result) == VERIFIED
        [calls] = check.calls.values()
        waits = [later - earlier for earlier, later in pairwise(calls)]
        for number, wait in enumerate(waits):
            usual = min(verify.FIRST_INTERVAL * 1.5**number, verify.LAST_INTERVAL)
            assert 0.8 * usual <= wait <= 1.2 * usual
        assert waits[-1] > 5 * waits[0]

    virtually(main)


WORDS: Final = [
    (False, "it gave False"),
    (ValueError("boom"), "ValueError: boom"),
    (ValueError(), "ValueError"),
    (ExceptionGroup("several", [ExceptionGroup("inner", [OSError("boom")]), ValueError()]), "OSError: boom"),
    (ValueError("\x1b[31mred\nand more"), "ValueError: [31mred and more"),
    (ConnectionError("https://operator:s3cret@10.0.0.7/ failed"), "ConnectionError: https://…@10.0.0.7/ failed"),
    (ValueError("X-Auth-Token: gAAAAABsecretsecret"), "ValueError: X-Auth-Token: …"),
]


@pytest.mark.parametrize(("answer", "words"), WORDS, ids=name_of)
def test_never(answer: object, words: str) -> None:
    """A check that is not passed in time fails the server, in the words of the last call, plain and without secrets."""

    async def main() -> None:
        cloud = cloud_of(1)
        check = Check(answer)
        result = await checked(cloud, check, verify_timeout=60.0)
        assert (end_of(result), result.detail, result.proof) == (VERIFY_FAILED, words, Proof.ACTION)
        [calls] = check.calls.values()
        # Nobody fails whose last call began any earlier.
        assert calls[-1] - calls[0] == pytest.approx(60.0)
        assert cloud.cycles[result.server_id] == 1

    virtually(main)


def test_call_that_hangs() -> None:
    """One call has 30 s, or as long as all of them if that is less; the words say so."""

    async def main() -> None:
        began = trio.current_time()
        result = await checked(cloud_of(1), hang, verify_timeout=100.0)
        assert (end_of(result), result.detail) == (VERIFY_FAILED, "no answer within 30 s")
        # The first call comes with the first poll, and the last one begins 100 s later.
        assert 130.0 <= trio.current_time() - began <= 140.0
        result = await checked(cloud_of(1), hang, verify_timeout=5.0)
        assert (end_of(result), result.detail) == (VERIFY_FAILED, "no answer within 5 s")

    virtually(main)


def test_call_that_hangs_once() -> None:
    """A call that takes too long is given up, and the next one counts."""

    async def main() -> None:
        cloud = cloud_of(1)
        check = Check(seconds=1000.0)

        async def quick_at_last(server: Server) -> bool:
            return True if check.calls else await check(server)

        assert end_of(await checked(cloud, quick_at_last)) == VERIFIED

    virtually(main)


@pytest.mark.unmeasured
def test_many_that_hang() -> None:
    """However many hang, so many are called at once; each has its calls, and whoever is well is verified among them."""

    async def main() -> None:
        cloud = cloud_of(300)
        well = set(cloud.ids[::10])
        check, hanging = Check(), Check(seconds=1e9)

        async def mixed(server: Server) -> bool:
            return await (check if server.id in well else hanging)(server)

        async with client_of(cloud, max_at_once=50) as client:
            report = await client.restart(cloud.ids, verify=mixed, verify_timeout=60.0)
        assert report.summary == {Outcome.VERIFIED: 30, Outcome.FAILED: 270}
        assert hanging.peak <= verify.CHECKS_AT_ONCE
        assert min(map(len, hanging.calls.values())) >= 2
        assert_accounted(report, cloud)

    virtually(main)


def test_hanging_checks_hold_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends, polls and proofs go on beside checks that hang, also where as many hang as may be called at once."""
    monkeypatch.setattr(verify, "CHECKS_AT_ONCE", 2)

    async def main() -> None:
        cloud = cloud_of(40, latency=0.5, reboot_seconds=(2.0, 10.0))
        async with client_of(cloud, max_at_once=2) as client, client.restarting(cloud.ids, verify=hang) as run:
            while run.report.summary != {Outcome.COMPLETED: 40}:
                await trio.sleep(1.0)
                assert trio.current_time() < 120.0
            assert run.statistics().accepted == 40
        assert {end_of(result) for result in run.report} == {(Outcome.COMPLETED, Reason.INTERRUPTED)}

    virtually(main)


def test_only_what_is_completed_is_checked() -> None:
    """A server that is refused, has failed, or had rebooted already is not checked."""

    async def main() -> None:
        cloud = cloud_of(4)
        cloud.change(cloud.ids[0], locked=True)
        cloud.break_host(cloud.ids[1], HostFault.DEAD)
        check = Check()
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, verify=check)
        assert list(map(end_of, report)) == [
            (Outcome.REFUSED, Reason.LOCKED),
            (Outcome.FAILED, Reason.ERROR),
            VERIFIED,
            VERIFIED,
        ]
        assert check.calls.keys() == set(cloud.ids[2:])
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids[2:], verify=check, since=datetime(2026, 1, 1, tzinfo=UTC))
        assert report.summary == {Outcome.SATISFIED: 2}
        assert check.count == 2

    virtually(main)


def test_server_that_is_back_by_its_hard_is_checked() -> None:
    """A server that HARD brought back is checked like any other, and the result still names the SOFT."""

    async def main() -> None:
        cloud = cloud_of(1)
        cloud.break_host(cloud.ids[0], HostFault.DEAD)
        result = await checked(cloud, Check(), escalate=True)
        assert end_of(result) == VERIFIED
        assert result.detail.startswith("HARD followed the SOFT req-")

    virtually(main)


def gives(answer: object) -> Callable[[Server], Awaitable[bool]]:
    """Make a function that is not async."""

    def check(server: Server) -> object:
        return answer

    return check  # type: ignore[return-value]


NO_BOOL: Final = "verify must give True or False, not "
NOT_ASYNC: Final = "verify must be an async function (async def): what it gave is a "
WRONG: Final = [
    (Check(None), f"{NO_BOOL}NoneType"),
    (Check(1), f"{NO_BOOL}int"),
    (Check("yes"), f"{NO_BOOL}str"),
    (Check(httpx.Response(200)), f"{NO_BOOL}Response"),
    (gives(True), f"{NOT_ASYNC}bool"),
    (gives(None), f"{NOT_ASYNC}NoneType"),
]


@pytest.mark.parametrize(("check", "words"), WRONG, ids=[words for _, words in WRONG])
def test_check_that_is_none(check: Callable[[Server], Awaitable[bool]], words: str) -> None:
    """What a check gives is True or False; anything else fails at once, with the remedy, and is not asked again."""

    async def main() -> None:
        began = trio.current_time()
        result = await checked(cloud_of(1), check)
        assert (end_of(result), result.detail) == (VERIFY_FAILED, words)
        assert trio.current_time() - began < 15.0

    virtually(main)


def test_check_that_raises_where_it_is_called() -> None:
    """A function that raises before there is anything to await is one that raises: not yet."""

    async def main() -> None:
        cloud = cloud_of(1)
        calls = 0

        def check(server: Server) -> Awaitable[bool]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise LookupError(server.id)
            return Check()(server)

        assert end_of(await checked(cloud, check)) == VERIFIED
        assert calls == 2

    virtually(main)


def test_check_that_never_awaits() -> None:
    """A function that blocks cannot be cut off; what it gives at last is taken."""

    async def main() -> None:
        async def check(server: Server) -> bool:
            return True

        assert end_of(await checked(cloud_of(1), check, verify_timeout=0.001)) == VERIFIED

    virtually(main)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt("mine"), BaseExceptionGroup("several", [KeyboardInterrupt("mine"), ValueError()])]
)
def test_what_ends_the_program_ends_the_run(error: BaseException) -> None:
    """What is no Exception comes out bare, as from the caller's own code, and every server is accounted for."""

    async def main() -> None:
        cloud = cloud_of(10)
        async with client_of(cloud) as client:
            with pytest.raises(KeyboardInterrupt, match="mine"):
                async with client.restarting(cloud.ids, verify=Check(error)) as run:
                    await trio.sleep(60.0)
        assert [result.server_id for result in run.report] == cloud.ids
        assert run.report.summary[Outcome.COMPLETED] > 0
        assert {result.reason for result in run.report} == {Reason.INTERRUPTED}

    virtually(main)


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [asyncio.CancelledError(), asyncio.CancelledError("mine")])
async def test_cancellation_of_its_own_making(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """On asyncio a check may raise a cancellation that nobody asked for: not yet."""
    monkeypatch.setattr(settle, "FIRST_INTERVAL", 0.01)
    monkeypatch.setattr(verify, "FIRST_INTERVAL", 0.01)
    cloud = Cloud(3, reboot_seconds=(0.01, 0.01))
    calls: Counter[str] = Counter()

    async def check(server: Server) -> bool:
        calls[server.id] += 1
        if calls[server.id] == 1:
            raise error
        return calls[server.id] == 2

    async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi(cloud))) as http:
        client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
        report = await client.restart(cloud.ids, verify=check)
    assert report.summary == {Outcome.VERIFIED: 3}
    assert set(calls.values()) == {2}


@pytest.mark.asyncio
async def test_native_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled, asyncio's way, while it checks ends at once, and its report is whole."""
    monkeypatch.setattr(settle, "FIRST_INTERVAL", 0.01)
    cloud = Cloud(3, reboot_seconds=(0.01, 0.01))
    is_called = asyncio.Event()

    async def check(server: Server) -> bool:
        is_called.set()
        await asyncio.Event().wait()
        raise AssertionError(server)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi(cloud))) as http:
        client = RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)
        task = asyncio.current_task()
        assert task is not None
        with suppress(asyncio.CancelledError):
            async with client.restarting(cloud.ids, verify=check) as run:
                await is_called.wait()
                task.cancel()
                await asyncio.sleep(60)
        task.uncancel()
    assert len(run.report) == 3
    assert (Outcome.COMPLETED, Reason.INTERRUPTED) in map(end_of, run.report)


def test_leaving_the_run() -> None:
    """A run that is left is over at once; who was being checked is completed, and was not verified to the end."""

    async def main() -> None:
        cloud = cloud_of(5, reboot_seconds=(1.0, 1.0))
        async with client_of(cloud) as client, client.restarting(cloud.ids, verify=hang) as run:
            await trio.sleep(20.0)
        assert trio.current_time() == pytest.approx(20.0)
        for result in run.report:
            assert end_of(result) == (Outcome.COMPLETED, Reason.INTERRUPTED)
            assert (result.detail, result.proof) == ("it was not verified to the end", Proof.ACTION)
        assert run.statistics().finished == 5

    virtually(main)


def test_deadline() -> None:
    """The deadline of the run ends its checks as well, and the report is returned."""

    async def main() -> None:
        cloud = cloud_of(5, reboot_seconds=(1.0, 1.0))
        async with client_of(cloud) as client:
            deadline = datetime.now(UTC) + timedelta(seconds=60)
            report = await client.restart(cloud.ids, verify=hang, deadline=deadline)
        assert {end_of(result) for result in report} == {(Outcome.COMPLETED, Reason.INTERRUPTED)}
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.DEADLINE
        assert trio.current_time() < 61.0

    virtually(main)


def test_stopping_the_run() -> None:
    """A run that sends nothing more follows what was sent to its end, which is the check."""

    async def main() -> None:
        cloud = cloud_of(5, reboot_seconds=(1.0, 1.0))
        check = Check(False, False, True)
        async with client_of(cloud) as client, client.restarting(cloud.ids, verify=check) as run:
            await trio.sleep(1.0)
            run.stop()
            results = [result async for result in run]
        assert Counter(map(end_of, results)) == {VERIFIED: 5}

    virtually(main)


def test_cloud_that_is_gone_meanwhile() -> None:
    """Checks need no cloud: who was back before it went is verified, and the rest stays accepted."""

    async def main() -> None:
        cloud = cloud_of(2, reboot_seconds=(1.0, 1.0))
        cloud.later(30.0, lambda: setattr(cloud, "outage", Fault.no_reply(applied=False)))
        cloud.break_host(cloud.ids[1], HostFault.HANG)
        async with client_of(cloud) as client:
            report = await client.restart(cloud.ids, verify=Check(*[False] * 40, True), verify_timeout=900.0)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.OUTAGE
        assert list(map(end_of, report)) == [VERIFIED, (Outcome.ACCEPTED, Reason.INTERRUPTED)]

    virtually(main)


def test_killed_while_it_checks(tmp_path: Path) -> None:
    """Whoever goes on checks who was completed and not verified, by a snapshot of its own, and reboots nobody."""

    async def main() -> None:
        cloud = cloud_of(20, reboot_seconds=(1.0, 1.0))
        well = set(cloud.ids[:8])
        first, second = Check(), Check()

        async def some(server: Server) -> bool:
            return server.id in well and await first(server)

        async with client_of(cloud) as client:
            async with client.restarting(cloud.ids, verify=some, journal=tmp_path / "journal"):
                await trio.sleep(20.0)
                copy = killed(tmp_path / "journal")
            asked = len(cloud.requests)
            report = await client.restart(cloud.ids, verify=second, journal=copy)
            assert report.summary == {Outcome.VERIFIED: 20}
            assert second.calls.keys() == set(cloud.ids[8:])
            # The preflight, and a look at each.
            assert Counter(record.call for record in cloud.requests[asked:]) == {Call.SHOW: 13}
        assert {result.proof for result in report} == {Proof.ACTION}
        assert_accounted(report, cloud)
        assert set(cloud.posts.values()) == {1}

    virtually(main)


def test_check_that_comes_later(tmp_path: Path) -> None:
    """Who is completed without a check is finished without one, and is left where the same call comes with one."""

    async def main() -> None:
        cloud = cloud_of(3)
        check = Check()
        async with client_of(cloud) as client:
            for _ in range(2):
                report = await client.restart(cloud.ids, journal=tmp_path / "journal")
                assert report.summary == {Outcome.COMPLETED: 3}
            for _ in range(2):
                report = await client.restart(cloud.ids, journal=tmp_path / "journal", verify=check)
                assert report.summary == {Outcome.VERIFIED: 3}
            report = await client.restart(cloud.ids, journal=tmp_path / "journal")
            assert report.summary == {Outcome.VERIFIED: 3}
        assert check.count == 3
        assert set(cloud.posts.values()) == {1}

    virtually(main)


def test_check_that_was_given_up(tmp_path: Path) -> None:
    """Who was completed and being checked when its process died is completed where the same call comes without one."""

    async def main() -> None:
        cloud = cloud_of(3, reboot_seconds=(1.0, 1.0))
        async with client_of(cloud) as client:
            async with client.restarting(cloud.ids, journal=tmp_path / "journal", verify=hang):
                await trio.sleep(20.0)
            for wait in (True, False):
                report = await client.restart(cloud.ids, journal=tmp_path / "journal", wait=wait)
                assert {end_of(result) for result in report} == {(Outcome.COMPLETED, None)}
                assert {result.proof for result in report} == {Proof.ACTION}
        assert set(cloud.posts.values()) == {1}

    virtually(main)


def test_server_that_cannot_be_looked_at(tmp_path: Path) -> None:
    """Whoever goes on looks before it checks, again and again; one that was deleted since has not passed."""

    async def main() -> None:
        cloud = cloud_of(3)
        busy, gone, _ = cloud.ids
        check = Check()
        async with client_of(cloud) as client:
            await client.restart(cloud.ids, journal=tmp_path / "journal")
            cloud.delete(gone)
            # The preflight looks at the first.
            cloud.script(busy, None, *[Fault.error(503)] * 3, call=Call.SHOW)
            report = await client.restart(cloud.ids, journal=tmp_path / "journal", verify=check)
        assert list(map(end_of, report)) == [VERIFIED, VERIFY_FAILED, VERIFIED]
        assert report[gone].detail == f"it cannot be looked at: Instance {gone} could not be found."
        assert gone not in check.calls

    virtually(main)
