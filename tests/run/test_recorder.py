"""The journal beside a run: no send leaves before it is on the disk, and a disk that fails sends nothing more."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import httpx
import pytest
import trio

from bulkrestart import AuthError, JournalError, Outcome, Report, RestartClient, StopReason, Token
from bulkrestart.core.checkpoint import Contents, JournalHeader, LogFacts, RunIdentity
from bulkrestart.core.model import RebootType
from bulkrestart.core.target import Target
from bulkrestart.journal import Journal, read_journal
from bulkrestart.journal.codec import EncodedCheckpoints
from bulkrestart.run.recorder import in_thread, recording
from bulkrestart.simulator import Call, Cloud, Fault, Faults, asgi
from tests.full_disk import fill_disk
from tests.virtual import assert_accounted, client_of, cloud_of, virtually

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

TARGET: Final = Target(endpoint="http://cloud.test/v2.1/p", project_id="p")
IDENTITY: Final = RunIdentity(target=TARGET, reboot_type=RebootType.SOFT)


class Watched(httpx.ASGITransport):
    """A cloud that calls a function with the server's id the moment that a reboot request reaches it."""

    def __init__(self, cloud: Cloud, watch: Callable[[str], None]) -> None:
        super().__init__(asgi(cloud, lost=httpx.ReadError))
        self._watch = watch

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on."""
        if request.method == "POST":
            self._watch(request.url.path.split("/")[-2])
        return await super().handle_async_request(request)


@asynccontextmanager
async def watched(cloud: Cloud, watch: Callable[[str], None]) -> AsyncIterator[RestartClient]:
    """Give a client of a simulated cloud that is watched."""
    async with httpx.AsyncClient(transport=Watched(cloud, watch)) as http:
        yield RestartClient(f"http://cloud.test/v2.1/{cloud.project_id}", auth=Token(cloud.token), http=http)


def assert_free(journal: Path) -> None:
    """Hold that nobody holds a journal."""
    Journal.open(journal).close()


# Before it leaves.


def watch_of(journal: Path, posts: dict[str, int]) -> Callable[[str], None]:
    """Hold, at each request, that the journal has it, and all that came of those before it."""

    def watch(server_id: str) -> None:
        contents, holder = read_journal(journal)
        checkpoint = contents.checkpoints[server_id]
        assert holder == f"process {os.getpid()}"
        assert checkpoint.sent_at is not None
        assert checkpoint.has_reached is (posts.get(server_id, 0) > 0)
        assert len(checkpoint.attempts) == posts.get(server_id, 0)
        posts[server_id] = posts.get(server_id, 0) + 1

    return watch


@pytest.mark.unmeasured
@pytest.mark.parametrize("reboot_type", RebootType)
def test_every_send_is_on_the_disk_before_it_leaves(tmp_path: Path, reboot_type: RebootType) -> None:
    """The first send, and each that follows a refusal, a throttling or a lost reply, is an intent in the file first."""
    posts: dict[str, int] = {}

    async def main() -> None:
        cloud = cloud_of(
            60,
            seed=3,
            faults=Faults(
                throttled=0.15, busy=0.15, lost_before=0.15, error_before=0.15, commands_executing=0.1, times=2
            ),
        )
        async with watched(cloud, watch_of(tmp_path / "journal", posts)) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type, journal=tmp_path / "journal")
        assert_accounted(report, cloud)
        assert report.summary == {Outcome.COMPLETED: 60}
        assert posts == dict(cloud.posts)
        assert max(posts.values()) >= 3

    virtually(main)


@BACKENDS
def test_every_send_is_on_the_disk_with_a_thread_that_writes(tmp_path: Path, backend: str) -> None:
    """In real time, where a thread commits, no send overtakes its commit either."""
    posts: dict[str, int] = {}

    async def main() -> None:
        cloud = Cloud(60, reboot_seconds=(0.0, 0.0))
        async with watched(cloud, watch_of(tmp_path / "journal", posts)) as client:
            report = await client.restart(cloud.ids, journal=tmp_path / "journal", wait=False)
        assert report.summary == {Outcome.ACCEPTED: 60}
        assert set(posts.values()) == {1}

    anyio.run(main, backend=backend)
    assert_free(tmp_path / "journal")


def test_what_came_of_it_follows(tmp_path: Path) -> None:
    """When a run is over, its journal tells of every server what the report tells."""

    async def main() -> tuple[Report, Cloud]:
        cloud = cloud_of(60, seed=5, faults=Faults(locked=0.1, dead=0.1, lost_after=0.2, busy=0.1))
        async with client_of(cloud) as client:
            return await client.restart(cloud.ids, journal=tmp_path / "journal"), cloud

    report, cloud = virtually(main)
    contents, holder = read_journal(tmp_path / "journal")

    assert holder is None
    assert {*report.summary} == {Outcome.COMPLETED, Outcome.REFUSED, Outcome.FAILED}
    assert contents.ids == tuple(cloud.ids)
    assert contents.header.identity.target.endpoint == f"http://cloud.test/v2.1/{cloud.project_id}"
    told = [contents.checkpoints[server_id].result() for server_id in cloud.ids]
    for result, recorded in zip(report, told, strict=True):
        assert recorded.elapsed == pytest.approx(result.elapsed)
        assert (recorded.outcome, recorded.reason, recorded.detail) == (result.outcome, result.reason, result.detail)
        assert (recorded.attempts, recorded.request_id) == (result.attempts, result.request_id)


@pytest.mark.unmeasured
def test_commits_are_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that come at once are committed at once: a disk that is slow costs a wave a commit, not a server."""
    sizes: list[int] = []
    write = Journal.write

    def counted(journal: Journal, rows: EncodedCheckpoints, now: float) -> None:
        sizes.append(len(rows.lines))
        write(journal, rows, now)

    monkeypatch.setattr(Journal, "write", counted)

    async def main() -> None:
        cloud = cloud_of(400, latency=0.1)
        async with client_of(cloud, max_at_once=50) as client:
            report = await client.restart(cloud.ids, wait=False, journal=tmp_path / "journal")
        assert report.summary == {Outcome.ACCEPTED: 400}

    virtually(main)
    # Each server has an intent and an outcome; 50 are on their way at once.
    assert sum(sizes) >= 400
    assert len(sizes) <= 2 * 400 / 50 + 4


def test_knowledge_of_the_log_is_kept(tmp_path: Path) -> None:
    """What a run learnt of the action log's clock stands in the journal, so that whoever resumes need not learn it."""

    async def main() -> LogFacts:
        cloud = cloud_of(6, date_skew=1200.0)
        cloud.script(cloud.ids[-1], Fault.no_reply(applied=True))
        async with client_of(cloud, max_at_once=1) as client:
            await client.restart(cloud.ids, journal=tmp_path / "journal")
        return read_journal(tmp_path / "journal")[0].header.facts

    facts = virtually(main)

    assert facts.is_proven
    assert facts.user_id is not None
    assert facts.shift is not None
    assert facts.shift[0] < -1190.0


# A disk that fails.


def fail_writes(patch: pytest.MonkeyPatch, *, first: int, times: int) -> None:
    """Let some commits fail as on a full disk."""
    calls, write = [0], Journal.write

    def failing(journal: Journal, rows: EncodedCheckpoints, now: float) -> None:
        calls[0] += 1
        if first <= calls[0] < first + times:
            raise JournalError("the journal cannot be used: No space left on device")
        write(journal, rows, now)

    patch.setattr(Journal, "write", failing)


@pytest.mark.unmeasured
@pytest.mark.parametrize("times", [1, 2, 1000])
@pytest.mark.parametrize("first", [1, 2, 3, 6, 9])
def test_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, times: int) -> None:
    """From the commit that fails on nothing is sent, everything sent is followed to its end, and all is accounted for.

    Whatever the disk holds of it in the end, whoever resumes doubles nothing and loses nothing.
    """

    async def main() -> None:
        cloud = cloud_of(100, latency=0.2)
        cloud.script(cloud.ids[0], Fault.no_reply(applied=False))
        cloud.script(cloud.ids[1], Fault.no_reply(applied=True))
        cloud.script(cloud.ids[2], Fault.busy(5.0))
        journal = tmp_path / "journal"
        async with client_of(cloud, max_at_once=5) as client:
            with monkeypatch.context() as patch:
                fail_writes(patch, first=first, times=times)
                report = await client.restart(cloud.ids, journal=journal)
            assert_accounted(report, cloud)
            assert report.stopped is not None
            assert report.stopped.reason is StopReason.JOURNAL
            assert "No space left on device" in report.stopped.detail
            if first == 1:
                assert not cloud.posts
            assert cloud.posts.total() < 100
            assert_free(journal)
            again = await client.restart(cloud.ids, journal=journal)
        assert_accounted(again, cloud)
        assert again.summary == {Outcome.COMPLETED: 100}

    virtually(main)


def test_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own word that the disk is full stops the run, before a send that it does not hold."""

    async def main() -> None:
        cloud = cloud_of(300)
        journal = tmp_path / "journal"
        async with client_of(cloud, max_at_once=5) as client:
            with monkeypatch.context() as patch:
                fill_disk(patch, room=100_000)
                report = await client.restart(cloud.ids, journal=journal)
            assert_accounted(report, cloud)
            assert {*report.summary} == {Outcome.COMPLETED, Outcome.SKIPPED}
            assert report.stopped is not None
            assert report.stopped.reason is StopReason.JOURNAL
            assert f"the journal {journal} cannot be used: No space left on device" in report.stopped.detail
            again = await client.restart(cloud.ids, journal=journal)
        assert_accounted(again, cloud)
        assert again.summary == {Outcome.COMPLETED: 300}

    virtually(main)


def test_disk_that_is_full_before_the_first_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that cannot even be begun is an error, and nothing was sent."""

    def full(journal: Journal, header: JournalHeader, ids: Iterable[str]) -> None:
        raise JournalError(f"the journal {journal.path} cannot be used: No space left on device")

    async def main() -> None:
        cloud = cloud_of(5)
        async with client_of(cloud) as client:
            with monkeypatch.context() as patch:
                patch.setattr(Journal, "begin", full)
                with pytest.raises(JournalError, match="No space left on device"):
                    await client.restart(cloud.ids, journal=tmp_path / "journal")
            assert not cloud.posts
            report = await client.restart(cloud.ids, journal=tmp_path / "journal")
        assert report.summary == {Outcome.COMPLETED: 5}

    virtually(main)


# What is refused before anything is asked.


def difference(asked: Callable[[RestartClient, list[str]], object], tmp_path: Path) -> str:
    """Keep a journal of one run, ask for another with it, and tell what is said."""

    async def main() -> str:
        cloud = cloud_of(4)
        ids = cloud.ids[:3]
        async with client_of(cloud) as client:
            await client.restart(ids, journal=tmp_path / "journal")
            before = len(cloud.requests)
            with pytest.raises(JournalError) as caught:
                await asked(client, cloud.ids)  # type: ignore[misc]
            assert len(cloud.requests) == before
            report = await client.restart(ids, journal=tmp_path / "journal")
            assert report.summary == {Outcome.COMPLETED: 3}
            assert len(cloud.requests) == before
        words = str(caught.value)
        for number, server_id in enumerate(cloud.ids):
            words = words.replace(server_id, f"id-{number}")
        return words.replace(str(tmp_path), "").replace(cloud.project_id, "P")

    return virtually(main)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (slice(0, 4), "over 3 servers, not over these 4"),
        (slice(0, 2), "over 3 servers, not over these 2"),
        (slice(1, 4), "over 3 servers, not over these 3; number 1 is id-0, not id-1"),
        (slice(2, None, -1), "over 3 servers, not over these 3; number 1 is id-0, not id-2"),
        (slice(0, 0), "over 3 servers, not over these 0"),
    ],
)
def test_another_fleet(tmp_path: Path, chosen: slice, words: str) -> None:
    """A journal is of its ids in their order; others are refused, and the first that differs is named."""
    journal = tmp_path / "journal"

    said = difference(lambda client, ids: client.restart(ids[chosen], journal=journal), tmp_path)

    assert said == f"the journal /journal is of a run {words}: give another journal"


def test_another_type(tmp_path: Path) -> None:
    """A journal of SOFT reboots is not gone on with by HARD ones."""
    journal = tmp_path / "journal"

    said = difference(lambda client, ids: client.restart(ids[:3], reboot_type="HARD", journal=journal), tmp_path)

    assert said == "the journal /journal is of a run of type SOFT, not HARD: give another journal"


def test_another_endpoint(tmp_path: Path) -> None:
    """A journal of one project is not gone on with in another: ids may be the same, servers are not."""

    async def elsewhere(_: RestartClient, ids: list[str]) -> None:
        other = RestartClient("http://cloud.test/v2.1/other", auth=Token("t"))
        await other.restart(ids[:3], journal=tmp_path / "journal")

    said = difference(elsewhere, tmp_path)

    assert said == (
        "the journal /journal is of a run at http://cloud.test/v2.1/P, not at http://cloud.test/v2.1/other: "
        "give another journal"
    )


def test_duplicates_are_merged_first(tmp_path: Path) -> None:
    """Ids that are given twice are the same fleet as those that are given once."""

    async def main() -> None:
        cloud = cloud_of(3)
        async with client_of(cloud) as client:
            await client.restart(cloud.ids, journal=tmp_path / "journal")
            report = await client.restart(cloud.ids * 2, journal=tmp_path / "journal")
        assert_accounted(report, cloud)

    virtually(main)


def test_a_selection_is_not_made_again(tmp_path: Path) -> None:
    """The servers that a journal was begun with stay its fleet, whatever a selection would give by now."""

    async def main() -> None:
        cloud = cloud_of(6)
        cloud.script(cloud.ids[0], Fault.error(403))
        async with client_of(cloud) as client:
            first = await client.restart(client.servers(name="web"), journal=tmp_path / "journal")
            assert first.summary == {Outcome.COMPLETED: 5, Outcome.REFUSED: 1}
            cloud.add(name="web-new")
            lists = [request.call for request in cloud.requests].count(Call.LIST)
            report = await client.restart(client.servers(name="web"), journal=tmp_path / "journal", wait=False)
            assert [request.call for request in cloud.requests].count(Call.LIST) == lists
        assert [result.server_id for result in report] == [result.server_id for result in first]
        assert report.summary == {Outcome.ACCEPTED: 1, Outcome.COMPLETED: 5}
        assert cloud.posts.total() == 7

    virtually(main)


@pytest.mark.parametrize("journal", ["", b"journal", 7, True, object()])
def test_what_is_no_path(journal: object) -> None:
    """What names no file is a bad argument, and is refused before anything is asked."""

    async def main() -> None:
        cloud = cloud_of(1)
        async with client_of(cloud) as client:
            with pytest.raises(ValueError, match=r"^journal must be the path of a file, not "):
                await client.restart(cloud.ids, journal=journal)  # type: ignore[arg-type]
        assert not cloud.requests

    virtually(main)


def test_held_by_another_run(tmp_path: Path) -> None:
    """Two runs of one program do not share a journal: the second is refused, and the first goes on."""

    async def main() -> None:
        cloud = cloud_of(3)
        journal = tmp_path / "journal"
        async with client_of(cloud) as client, client.restarting(cloud.ids, journal=journal) as run:
            with pytest.raises(JournalError, match=f"is held by process {os.getpid()}: "):
                await client.restart(cloud.ids, journal=journal)
            async for _ in run:
                pass
        assert run.report.summary == {Outcome.COMPLETED: 3}
        assert_free(tmp_path / "journal")

    virtually(main)


def test_a_run_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    """Where the preflight refuses the run, or the arguments do, no journal is left, and the next one is of any run."""

    async def main() -> None:
        cloud = cloud_of(3)
        async with client_of(cloud, token="wrong") as client:
            with pytest.raises(AuthError, match="does not let us in"):
                await client.restart(cloud.ids, journal=tmp_path / "journal")
            with pytest.raises(ValueError, match=r"^ids must"):
                await client.restart("id", journal=tmp_path / "journal")

    virtually(main)
    assert list(tmp_path.iterdir()) == []


# Around it.


async def contents_of(path: Path) -> Contents | None:
    """Open a journal as a run does, and give what it held."""
    async with recording(path) as recorder:
        return recorder.contents


async def begin_and_fail(path: Path) -> None:
    """Begin a run as a run does, and end it with an error."""
    async with recording(path) as recorder:
        recorder.prepare(IDENTITY, ["a"])
        await recorder.begin()
        raise LookupError


@BACKENDS
def test_a_journal_is_closed_whatever_happens_to_its_run(tmp_path: Path, backend: str) -> None:
    """An error while it is kept, and one while it is read, leave it open to the next."""
    path = tmp_path / "journal"

    async def main() -> None:
        with pytest.raises(LookupError):
            await begin_and_fail(path)
        contents = await contents_of(path)
        assert contents is not None
        assert contents.ids == ("a",)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "read", broken)
            with pytest.raises(JournalError, match="it is damaged"):
                await contents_of(path)
        assert await contents_of(path) == contents

    anyio.run(main, backend=backend)
    assert_free(path)


def broken(journal: Journal) -> None:
    """Read what is damaged."""
    raise JournalError("it is damaged")


@BACKENDS
@pytest.mark.parametrize("method", ["open", "read", "close"])
def test_a_journal_is_closed_when_it_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, method: str
) -> None:
    """A cancellation in the midst of opening, reading or closing waits for the thread, and leaves nothing open."""
    path = tmp_path / "journal"
    with closing(Journal.open(path)) as journal:
        journal.begin(JournalHeader(identity=IDENTITY, began=1.0, facts=LogFacts()), ["a"])
    started, go_on = threading.Event(), threading.Event()
    slow(monkeypatch, method, started, go_on)

    async def main() -> None:
        over = anyio.Event()

        async def keep() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await contents_of(path)
            over.set()

        scopes: list[anyio.CancelScope] = []
        async with anyio.create_task_group() as group:
            group.start_soon(keep)
            while not started.is_set():
                await anyio.lowlevel.checkpoint()
            scopes[0].cancel()
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            assert not over.is_set()
            go_on.set()

    anyio.run(main, backend=backend)
    assert_free(path)


@pytest.mark.parametrize("method", ["open", "read", "close"])
def test_a_journal_is_closed_when_its_task_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The same for `Task.cancel` of asyncio, which no scope of ours keeps away; also when it comes twice."""
    path = tmp_path / "journal"
    started, go_on = threading.Event(), threading.Event()
    slow(monkeypatch, method, started, go_on)

    async def main() -> None:
        task = asyncio.create_task(contents_of(path))
        while not started.is_set():
            await anyio.lowlevel.checkpoint()
        for _ in range(2):
            task.cancel()
            await anyio.lowlevel.checkpoint()
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert_free(path)


def slow(monkeypatch: pytest.MonkeyPatch, method: str, started: threading.Event, go_on: threading.Event) -> None:
    """Let a method of the journal, the next time that it is called in a thread, say so and wait for a word."""
    really = getattr(Journal, method)

    def slowly(*args: object) -> object:
        if threading.current_thread() is not threading.main_thread() and not started.is_set():
            started.set()
            assert go_on.wait(10.0)
        return really(*args)

    monkeypatch.setattr(Journal, method, slowly)


@BACKENDS
def test_what_runs_in_a_thread_comes_back(backend: str) -> None:
    """A value and an error come out bare, and no thread of the embedding program is taken."""

    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        assert await in_thread(lambda: limiter.borrowed_tokens) == 0
        assert await in_thread(threading.get_ident) != threading.get_ident()
        with pytest.raises(JournalError, match=r"^mine$"):
            await in_thread(partial(throw, JournalError("mine")))

    anyio.run(main, backend=backend)


def throw(error: Exception) -> None:
    """Raise it."""
    raise error


def test_no_journal_keeps_no_record() -> None:
    """Without a journal there is nothing to hold a send up, and nothing is opened."""

    async def main() -> None:
        async with recording(None) as recorder:
            assert (recorder.contents, recorder.checkpoints, recorder.facts, recorder.age) == (
                None,
                {},
                LogFacts(),
                0.0,
            )
            assert recorder.prepare(IDENTITY, ["a", "b"]) == ["a", "b"]
            await recorder.begin()

    trio.run(main)


def test_clock_on_the_wall_that_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that seems to have begun in the future has just begun."""
    path = tmp_path / "journal"
    with closing(Journal.open(path)) as journal:
        journal.begin(JournalHeader(identity=IDENTITY, began=2e9, facts=LogFacts()), ["a"])

    async def age() -> float:
        async with recording(path) as recorder:
            return recorder.age

    monkeypatch.setattr("time.time", lambda: 1.5e9)
    assert trio.run(age) == 0.0
    monkeypatch.setattr("time.time", lambda: 2e9 + 60.0)
    assert trio.run(age) == 60.0
