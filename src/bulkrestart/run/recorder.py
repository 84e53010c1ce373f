"""Writes the journal beside a run: a send is on the disk before it leaves, and what came of it follows.

Law: commits are grouped, and made by one task that outlives the workers. A worker that called the thread itself would
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
from bulkrestart.core.checkpoint import Checkpoint, Contents, JournalHeader, LogFacts, RunIdentity
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.decision import End
from bulkrestart.core.errors import JournalError
from bulkrestart.core.model import Stop, StopReason
from bulkrestart.core.progress import Progress
from bulkrestart.engine.stop_signal import StopSignal

if TYPE_CHECKING:
    from bulkrestart.journal import Journal

T = TypeVar("T")


@dataclass(slots=True)
class _Batch:
    """Checkpoints that are committed together, the newest of each server.

    Attributes:
        checkpoints: The checkpoints, by the server's id.
        is_written: They are on the disk.
        over: Set when they are on the disk, or cannot be written.
    """

    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    is_written: bool = False
    over: anyio.Event = field(default_factory=anyio.Event)


class Recorder:
    """Writes one process's part of a run; without a journal it does nothing.

    Args:
        journal: The journal; None to keep none.
        contents: What the journal held when it was opened; None if its run had not begun.
    """

    def __init__(self, journal: "Journal | None" = None, contents: Contents | None = None) -> None:
        self._journal = journal
        self._contents = contents
        self._header: JournalHeader | None = None
        self._fleet: Sequence[str] = ()
        self._batch = _Batch()
        self._news = anyio.Event()
        self._is_closed = False

    @property
    def is_kept(self) -> bool:
        """Whether there is a journal."""
        return self._journal is not None

    @property
    def contents(self) -> Contents | None:
        """What the journal held when it was opened; None if its run had not begun."""
        return self._contents

    @property
    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """The checkpoints that the journal held when it was opened."""
        return {} if self._contents is None else self._contents.checkpoints

    @property
    def facts(self) -> LogFacts:
        """What the journal held of the action log."""
        return LogFacts() if self._contents is None else self._contents.header.facts

    @property
    def age(self) -> float:
        """Seconds since the run began, by the wall clock, which may have been set."""
        return 0.0 if self._contents is None else max(0.0, time.time() - self._contents.header.began)

    def prepare(self, identity: RunIdentity, fleet: Sequence[str] | None) -> Sequence[str]:
        """Take what the run is for, and check that the journal is of the same run.

        Args:
            identity: What the run is for.
            fleet: The servers, without duplicates; None for those of the journal.

        Returns:
            The fleet.

        Raises:
            JournalError: The journal is of another run.
        """
        if self._contents is None:
            assert fleet is not None, "a journal whose run has not begun holds no fleet"
            self._fleet = fleet
            self._header = JournalHeader(identity=identity, began=time.time(), facts=LogFacts())
        else:
            assert self._journal is not None, "contents come from a journal"
            self._contents.check(self._journal.path, identity, fleet)
            self._fleet = self._contents.ids
            self._header = self._contents.header
        return self._fleet

    async def begin(self) -> None:
        """Write what the run is for, unless the journal holds it. This is called before the first send.

        Raises:
            JournalError: It cannot be written.
        """
        if self._journal is not None and self._contents is None:
            assert self._header is not None, "prepare is called first"
            await in_thread(partial(self._journal.begin, self._header, self._fleet))

    async def run(self, stop_signal: StopSignal, calibration: ActionLogCalibration) -> None:
        """Commit checkpoints until closed; halt the run if they cannot be written.

        Checkpoints that could not be written are tried again with the next ones, and at the end.
        """
        if self._journal is None or self._header is None:
            return
        is_last = False
        with anyio.CancelScope(shield=True):
            while not is_last:
                await self._news.wait()
                is_last = self._is_closed
                self._news = anyio.Event()
                batch, self._batch = self._batch, _Batch()
                if not batch.checkpoints:
                    continue
                try:
                    rows = self._journal.dump(batch.checkpoints.values())
                    await in_thread(partial(self._journal.write, rows, time.time()))
                    batch.is_written = True
                    if self._header.facts != calibration.facts:
                        header = replace(self._header, facts=calibration.facts)
                        await in_thread(partial(self._journal.write_header, header))
                        self._header = header
                except JournalError as error:
                    stop_signal.halt(Stop(StopReason.JOURNAL, str(error)))
                    self._batch.checkpoints = batch.checkpoints | self._batch.checkpoints
                finally:
                    batch.over.set()

    async def write_ahead(self, progress: Progress, clock: CloudClock) -> bool:
        """Write that a send is about to leave, and wait until that is on the disk.

        Args:
            progress: How far the run has come with the server; it is not changed.
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
        """Have a checkpoint of a server written with the next commit."""
        if self._journal is not None:
            self._batch.checkpoints[progress.server_id] = Checkpoint.of(progress, anyio.current_time(), end)
            self._news.set()

    def close(self) -> None:
        """End the task of `run` after a last commit."""
        self._is_closed = True
        self._news.set()


@asynccontextmanager
async def recording(path: str | os.PathLike[str] | None) -> AsyncIterator[Recorder]:
    """Open a journal, give its recorder, and close it afterwards.

    Args:
        path: The file; None to keep none.

    Raises:
        JournalError: It cannot be used.
    """
    if path is None:
        yield Recorder()
        return
    # Imported late: a run without a journal needs no locks on files, which not every system has.
    from bulkrestart.journal import Journal

    # If a cancellation comes while it is opened, the stack still closes it.
    opened = ExitStack()
    try:
        journal = await in_thread(lambda: opened.enter_context(closing(Journal.open(path))))
        yield Recorder(journal, await in_thread(journal.read))
    finally:
        await in_thread(opened.close)


async def read_ahead(path: str) -> Contents | None:
    """Read a journal without locking it; None if there is none, or its run has not begun.

    Raises:
        JournalError: It cannot be read.
    """
    from bulkrestart.journal import read_contents

    return await in_thread(lambda: read_contents(path) if os.path.exists(path) else None)


async def in_thread(function: Callable[[], T]) -> T:
    """Call a blocking function in a worker thread, and return when it is over, even if the caller is cancelled.

    The thread does not count against the thread limit of the program that embeds us.
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
