"""The account of a run while it is kept: in the ledger, in the journal, and in the stream of its results."""

from collections import deque
from collections.abc import Iterator

import anyio

from bulkrestart.core.checkpoint import Checkpoint, Contents
from bulkrestart.core.decision import End
from bulkrestart.core.model import Outcome, ServerResult
from bulkrestart.core.options import Options
from bulkrestart.core.progress import Progress
from bulkrestart.core.report import Ledger, Report, Statistics
from bulkrestart.engine.stop_signal import StopSignal
from bulkrestart.run.crew import unhurried
from bulkrestart.run.recorder import Recorder


class Account:
    """Opens the entry of each server before anything is sent to it, and closes it with its outcome.

    Args:
        ledger: What is known of each server.
        recorder: Keeps the journal, and knows what it held.
        options: What was asked for.
        stop_signal: Tells why the run stopped, if it did.

    Attributes:
        over: Set when the run is over and the account is whole, on the disk as well.
    """

    def __init__(self, ledger: Ledger, recorder: Recorder, options: Options, stop_signal: StopSignal) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._options = options
        self._stop_signal = stop_signal
        self.over = anyio.Event()
        # Of a run that goes on in another process: before this one began.
        self._began = anyio.current_time() - recorder.age
        self._order = options.order(self._began)
        self._ended: float | None = None
        self._started = 0
        self._results: deque[ServerResult] = deque()
        self._rest: Iterator[ServerResult] = iter(())
        self._news = anyio.Event()

    async def take_up(self) -> None:
        """Go on where the journal ends: what is finished stays, and so does what is accepted if that is enough."""
        await unhurried(self._recorder.checkpoints.values(), self._take_up)

    def _take_up(self, checkpoint: Checkpoint) -> None:
        progress = checkpoint.resume(self._order, now=anyio.current_time())
        self._ledger.begin(progress)
        if checkpoint.is_finished(self._options.goal):
            self._started += 1
            self._close(checkpoint.result())
        elif progress.accepted is not None and not self._options.wait:
            self._started += 1
            self.close(progress, End(outcome=Outcome.ACCEPTED, proof=progress.accepted.proof))

    def leave_as_it_is(self, contents: Contents) -> None:
        """Let a run that a former process finished have taken as long as it took then."""
        self._ended = self._began + contents.lasted

    def come_to(self, server_id: str) -> Progress:
        """Open the entry of a server whose turn it is, or go on with the one that a former process opened."""
        self._started += 1
        progress = self._ledger.progress(server_id)
        if progress is not None:
            return progress
        progress = Progress(
            server_id=server_id,
            order=self._order,
            reboot_type=self._order.reboot_type,
            began=anyio.current_time(),
        )
        self._ledger.begin(progress)
        return progress

    def refund_attempt(self, server_id: str) -> None:
        """Take back an attempt of a server, because an outage was the cause of its failure."""
        progress = self._ledger.progress(server_id)
        if progress is not None:
            progress.sends.refund_attempt()

    def close(self, progress: Progress, end: End) -> ServerResult:
        """Give a server its outcome."""
        self._recorder.note(progress, end)
        result = progress.result(anyio.current_time(), end)
        self._close(result)
        return result

    def _close(self, result: ServerResult) -> None:
        self._ledger.close(result)
        self._results.append(result)
        self._news.set()

    def end(self) -> None:
        """Have the journal written to its end. What became of a server without an outcome is told when it is asked."""
        if self._ended is None:
            self._ended = anyio.current_time()
        # The journal gets the progress of unfinished servers, not the outcome in the report: the next process continues
        # from that progress. An accepted server is already in the journal as such, unless its checkpoint
        # still holds the end that an earlier process wrote.
        for progress in self._ledger.under_way():
            checkpoint = self._recorder.checkpoints.get(progress.server_id)
            if progress.accepted is None or (checkpoint is not None and checkpoint.end is not None):
                self._recorder.note(progress)
        self._recorder.close()
        self._rest = self._ledger.unfinished(self._ended)

    def tell_it_is_over(self) -> None:
        """Let those go that wait for the end, or for one more result."""
        self.over.set()
        self._news.set()

    async def next_result(self) -> ServerResult | None:
        """Give the next server that has its outcome; None when all have been given."""
        while not self._results:
            if self.over.is_set():
                return next(self._rest, None)
            if self._news.is_set():
                self._news = anyio.Event()
            await self._news.wait()
        return self._results.popleft()

    def report(self) -> Report:
        """Write the report as things stand."""
        now = self._ended if self._ended is not None else anyio.current_time()
        return self._ledger.report(
            now, began=self._began, stopped=self._stop_signal.stop, is_over=self._ended is not None
        )

    def statistics(self, *, parked: int, accepted: int) -> Statistics:
        """Count where the servers are.

        Args:
            parked: How many wait to be looked at or sent to again.
            accepted: How many are waited for.
        """
        total = len(self._ledger)
        if self._ended is not None:
            return Statistics(total=total, not_started=0, in_flight=0, parked=0, accepted=0, finished=total)
        return Statistics(
            total=total,
            not_started=total - self._started,
            in_flight=self._started - parked - accepted - self._ledger.finished,
            parked=parked,
            accepted=accepted,
            finished=self._ledger.finished,
        )
