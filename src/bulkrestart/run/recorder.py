"""Keeps the journal beside a run: a send is on the disk before it leaves, and what came of it follows.

Law: commits are grouped, and made by one task that outlives the lanes. A lane that called the thread itself would
return at a native cancellation (asyncio's) before the commit is done.
"""

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio

from bulkrestart.core.calibration import ActionLogCalibration
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.decision import End
from bulkrestart.core.errors import JournalError
from bulkrestart.core.model import Stop, StopReason
from bulkrestart.core.progress import Progress
from bulkrestart.core.record import Contents, Head, LogFacts, Purpose, Record, record_of
from bulkrestart.engine.stop_signal import StopSignal

if TYPE_CHECKING:
    from bulkrestart.journal import Journal

T = TypeVar("T")


@dataclass(slots=True)
class _Batch:
    """Records that are committed together, the newest of each server.

    Attributes:
        records: They, by the server's id.
        is_written: They are on the disk.
        over: Set when they are, or cannot be.
    """

    records: dict[str, Record] = field(default_factory=dict)
    is_written: bool = False
    over: anyio.Event = field(default_factory=anyio.Event)


class Recorder:
    """Records one process's part of a run; without a journal it does nothing.

    Args:
        journal: The journal; None to keep none.
        contents: What it holds already; None if its run has not begun.
    """

    def __init__(self, journal: "Journal | None" = None, contents: Contents | None = None) -> None:
        self._journal = journal
        self._contents = contents
        self._head: Head | None = None
        self._fleet: Sequence[str] = ()
        self._batch = _Batch()
        self._news = anyio.Event()
        self._is_closed = False

    @property
    def is_kept(self) -> bool:
        """There is a journal."""
        return self._journal is not None

    @property
    def contents(self) -> Contents | None:
        """What the journal held when it was opened; None if its run had not begun."""
        return self._contents

    @property
    def records(self) -> Mapping[str, Record]:
        """What the journal knew of the servers when it was opened."""
        return {} if self._contents is None else self._contents.records

    @property
    def facts(self) -> LogFacts:
        """What it knew of the action log."""
        return LogFacts() if self._contents is None else self._contents.head.facts

    @property
    def age(self) -> float:
        """Seconds since the run first began, by the clock on the wall, which somebody may have set."""
        return 0.0 if self._contents is None else max(0.0, time.time() - self._contents.head.began)

    def prepare(self, purpose: Purpose, fleet: Sequence[str] | None) -> Sequence[str]:
        """Take what the run is for, and see that the journal is of no other.

        Args:
            purpose: What it is for.
            fleet: The servers, without duplicates; None for the journal's.

        Returns:
            The fleet.

        Raises:
            JournalError: The journal is of another run.
        """
        if self._contents is None:
            assert fleet is not None, "a run that has not begun has no other fleet"
            self._fleet = fleet
            self._head = Head(purpose=purpose, began=time.time(), facts=LogFacts())
        else:
            assert self._journal is not None, "what is held is held by a journal"
            self._contents.check(self._journal.path, purpose, fleet)
            self._fleet = self._contents.ids
            self._head = self._contents.head
        return self._fleet

    async def begin(self) -> None:
        """Write what the run is for, unless the journal has it: now something is to be sent.

        Raises:
            JournalError: It cannot be written.
        """
        if self._journal is not None and self._contents is None:
            assert self._head is not None, "it is prepared first"
            await in_thread(partial(self._journal.begin, self._head, self._fleet))

    async def run(self, stop_signal: StopSignal, calibration: ActionLogCalibration) -> None:
        """Commit what comes, until closed; halt the run if it cannot be.

        What could not be committed is tried again with what comes next, and at the end.
        """
        if self._journal is None or self._head is None:
            return
        is_last = False
        with anyio.CancelScope(shield=True):
            while not is_last:
                await self._news.wait()
                is_last = self._is_closed
                self._news = anyio.Event()
                batch, self._batch = self._batch, _Batch()
                if not batch.records:
                    continue
                try:
                    rows = self._journal.dump(batch.records.values())
                    await in_thread(partial(self._journal.write, rows, time.time()))
                    batch.is_written = True
                    if self._head.facts != calibration.facts:
                        head = replace(self._head, facts=calibration.facts)
                        await in_thread(partial(self._journal.write_head, head))
                        self._head = head
                except JournalError as error:
                    stop_signal.halt(Stop(StopReason.JOURNAL, str(error)))
                    self._batch.records = batch.records | self._batch.records
                finally:
                    batch.over.set()

    async def intend(self, progress: Progress, clock: CloudClock) -> bool:
        """Write that a send is about to leave.

        Args:
            progress: The server's way so far; it is not changed.
            clock: The cloud's time.

        Returns:
            Whether it is on the disk; if not, the send must not leave.
        """
        if self._journal is None:
            return True
        now = anyio.current_time()
        self.note(progress.leaving(now, clock.at(now)))
        batch = self._batch
        await batch.over.wait()
        return batch.is_written

    def note(self, progress: Progress, end: End | None = None) -> None:
        """Write, soon, how far a server has come."""
        if self._journal is not None:
            self._batch.records[progress.server_id] = record_of(progress, anyio.current_time(), end)
            self._news.set()

    def close(self) -> None:
        """Expect nothing more: the task ends with what it has."""
        self._is_closed = True
        self._news.set()


@asynccontextmanager
async def recording(path: str | os.PathLike[str] | None) -> AsyncIterator[Recorder]:
    """Open a journal, and close it afterwards.

    Args:
        path: The file; None to keep none.

    Raises:
        JournalError: It cannot be used.
    """
    if path is None:
        yield Recorder()
        return
    # A run without a journal needs no locks on files, which not every system has.
    from bulkrestart.journal import Journal

    # A cancellation may come while it is opened: then the stack has it nonetheless.
    opened = ExitStack()
    try:
        journal = await in_thread(lambda: opened.enter_context(closing(Journal.open(path))))
        yield Recorder(journal, await in_thread(journal.read))
    finally:
        await in_thread(opened.close)


async def read_ahead(path: str) -> Contents | None:
    """Read what a journal holds, without holding it; None if there is none, or its run has not begun.

    Raises:
        JournalError: It cannot be read.
    """
    from bulkrestart.journal import read_contents

    return await in_thread(lambda: read_contents(path) if os.path.exists(path) else None)


async def in_thread(function: Callable[[], T]) -> T:
    """Call what blocks in a worker thread, and come back when it is over, however the caller is cancelled meanwhile.

    The thread is not counted among those of the program that embeds us.
    """
    ends: list[T | Exception] = []

    async def call() -> None:
        with anyio.CancelScope(shield=True):
            try:
                ends.append(await anyio.to_thread.run_sync(function, limiter=anyio.CapacityLimiter(1)))
            except Exception as error:
                ends.append(error)

    # A native cancellation reaches the task that awaits the group, and not the one that awaits the thread.
    async with anyio.create_task_group() as group:
        group.start_soon(call)
    (end,) = ends
    if isinstance(end, Exception):
        raise end
    return end
