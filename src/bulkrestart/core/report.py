"""The account of a run: every id once, in the order given, whatever happened and whenever it is read."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

from bulkrestart.core.decision import End
from bulkrestart.core.endpoint import check_id
from bulkrestart.core.errors import BulkRestartError
from bulkrestart.core.model import Outcome, RebootType, ServerResult, Stop
from bulkrestart.core.progress import Progress

#: The outcomes that `Report.problems` and `Report.raise_for_failures` look for.
PROBLEMS = frozenset({Outcome.REFUSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.IN_DOUBT})


class FleetError(BulkRestartError):
    """Raised by `Report.raise_for_failures` when some server was refused, failed, skipped or left in doubt.

    Attributes:
        report: The whole report.
    """

    def __init__(self, report: "Report") -> None:
        super().__init__(str(report))
        self.report = report

    def __reduce__(self) -> tuple[type["FleetError"], tuple["Report"]]:
        return type(self), (self.report,)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of every server of a run: `report[server_id]`, or one after the other in the order given.

    Attributes:
        results: One result for each server, in the order in which the ids were given.
        stopped: Why the run stopped; None if nothing stopped it.
        elapsed: Seconds since the run began.
    """

    results: tuple[ServerResult, ...]
    stopped: Stop | None
    elapsed: float

    @property
    def summary(self) -> dict[Outcome, int]:
        """How many servers came to each outcome, in the order of `Outcome`; only outcomes that occur."""
        counts = Counter(result.outcome for result in self.results)
        return {outcome: counts[outcome] for outcome in Outcome if counts[outcome]}

    @property
    def problems(self) -> tuple[ServerResult, ...]:
        """The results that are refused, failed, skipped or in doubt."""
        return tuple(result for result in self.results if result.outcome in PROBLEMS)

    def raise_for_failures(self) -> None:
        """Do nothing if every server is well.

        Raises:
            FleetError: Some server was refused, failed, skipped or left in doubt.
        """
        if any(result.outcome in PROBLEMS for result in self.results):
            raise FleetError(self)

    def to_dict(self) -> dict[str, object]:
        """Give the report as plain values that `json.dumps` takes: `summary`, `results`, `stopped`, `elapsed`."""
        return {
            "summary": {str(outcome): count for outcome, count in self.summary.items()},
            "results": [asdict(result) for result in self.results],
            "stopped": None if self.stopped is None else asdict(self.stopped),
            "elapsed": self.elapsed,
        }

    def __getitem__(self, server_id: str) -> ServerResult:
        try:
            return self._by_id[check_id(server_id)]
        except ValueError:
            raise KeyError(server_id) from None

    def __contains__(self, server_id: object) -> bool:
        try:
            return check_id(server_id) in self._by_id
        except ValueError:
            return False

    @cached_property
    def _by_id(self) -> dict[str, ServerResult]:
        return {result.server_id: result for result in self.results}

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[ServerResult]:
        return iter(self.results)

    def __str__(self) -> str:
        counts = [f"{count} {outcome.replace('_', ' ')}" for outcome, count in self.summary.items()]
        return f"{', '.join(counts) or 'no servers'} in {self.elapsed:.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Where the servers of a run are at this moment; the five add up to `total`.

    Attributes:
        total: All servers.
        not_started: Not come to yet.
        in_flight: Being sent to. With a journal this is up to twice the bound on requests: half of them wait for the
            disk.
        parked: Waiting to be looked at or sent to again.
        accepted: Accepted and being waited for, or verified.
        finished: With their outcome.
    """

    total: int
    not_started: int
    in_flight: int
    parked: int
    accepted: int
    finished: int


class Ledger:
    """The account while it is being written: an entry is opened before anything is sent to its server.

    It lives outside whatever may be cancelled, so a report can be had at any moment.

    Args:
        ids: The fleet, without duplicates, in the order of the report.
        reboot_type: What was asked for.
        keeps_details: Whether more than its outcome is kept of a server that has one.
    """

    def __init__(self, ids: Iterable[str], reboot_type: RebootType, *, keeps_details: bool = True) -> None:
        self._reboot_type = reboot_type
        self._keeps_details = keeps_details
        self._entries: dict[str, Progress | ServerResult | Outcome | None] = dict.fromkeys(ids)
        self._finished = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    @property
    def finished(self) -> int:
        """How many servers have their outcome."""
        return self._finished

    def is_finished(self, server_id: str) -> bool:
        """Tell whether a server has its outcome."""
        return isinstance(self._entries[server_id], ServerResult | Outcome)

    def progress(self, server_id: str) -> Progress | None:
        """Give the open entry of a server; None if it has none."""
        entry = self._entries[server_id]
        return entry if isinstance(entry, Progress) else None

    def under_way(self) -> Iterator[Progress]:
        """Give the entries that are open."""
        return (entry for entry in self._entries.values() if isinstance(entry, Progress))

    def begin(self, progress: Progress) -> None:
        """Open the entry of a server."""
        self._entries[progress.server_id] = progress

    def close(self, result: ServerResult) -> None:
        """Close a server's entry with its outcome, once."""
        assert not self.is_finished(result.server_id), "an outcome is never changed"
        self._entries[result.server_id] = result if self._keeps_details else result.outcome
        self._finished += 1

    def report(self, now: float, *, began: float, stopped: Stop | None, is_over: bool) -> Report:
        """Write the report as things stand."""
        # Whoever asks for it is held meanwhile, by a fleet of 100,000 for a few milliseconds where all have an outcome.
        untouched = Progress(server_id="", reboot_type=self._reboot_type).so_far(is_over=is_over)
        results = tuple(
            [
                entry
                if isinstance(entry, ServerResult)
                else self._read(server_id, entry, now, untouched, is_over=is_over)
                for server_id, entry in self._entries.items()
            ]
        )
        return Report(results=results, stopped=stopped, elapsed=now - began)

    def unfinished(self, now: float) -> Iterator[ServerResult]:
        """Tell, when a run is over, what became of the servers that have no outcome of their own."""
        untouched = Progress(server_id="", reboot_type=self._reboot_type).so_far(is_over=True)
        for server_id, entry in self._entries.items():
            if entry is None or isinstance(entry, Progress):
                yield self._read(server_id, entry, now, untouched, is_over=True)

    def _read(
        self, server_id: str, entry: Progress | Outcome | None, now: float, untouched: End, *, is_over: bool
    ) -> ServerResult:
        match entry:
            case Outcome():
                return ServerResult(server_id=server_id, outcome=entry, reboot_type=self._reboot_type)
            case Progress():
                return entry.result(now, entry.so_far(is_over=is_over))
            case None:
                return ServerResult(
                    server_id=server_id,
                    outcome=untouched.outcome,
                    reason=untouched.reason,
                    reboot_type=self._reboot_type,
                )
