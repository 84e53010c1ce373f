"""The account of a run: every id once, in the order given, whatever happened and whenever it is read."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import repeat
from typing import Final

from bulkrestart.core.decision import End
from bulkrestart.core.endpoint import check_id
from bulkrestart.core.errors import BulkRestartError
from bulkrestart.core.model import Outcome, RebootType, ServerResult, Stop
from bulkrestart.core.progress import Progress, untouched
from bulkrestart.core.target import Target

#: The outcomes that `Report.problems` and `Report.raise_for_failures` look for.
PROBLEMS = frozenset({Outcome.REFUSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.IN_DOUBT})

#: What is kept of a server where details are not: it takes no memory of its own.
_END_ALONE: Final = {outcome: End(outcome=outcome) for outcome in Outcome}


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

    Where no more than the end of a server is known its result is written when it is asked for: 100,000 of them at once
    would hold the event loop for a fifth of a second.

    Attributes:
        server_ids: The fleet, in the order in which the ids were given.
        ends: What is known of each, in that order: its result, or its end alone.
        reboot_type: The type that was asked for.
        stopped: Why the run stopped; None if nothing stopped it.
        elapsed: Seconds since the run began.
        target: The project of the servers; None if the run was refused before that was known.
    """

    server_ids: tuple[str, ...]
    ends: tuple[ServerResult | End, ...]
    reboot_type: RebootType
    stopped: Stop | None
    elapsed: float
    target: Target | None = None

    @cached_property
    def results(self) -> tuple[ServerResult, ...]:
        """One result for each server, in the order in which the ids were given."""
        return tuple(self)

    @property
    def summary(self) -> dict[Outcome, int]:
        """How many servers came to each outcome, in the order of `Outcome`; only outcomes that occur."""
        counts = Counter(end.outcome for end in self.ends)
        return {outcome: counts[outcome] for outcome in Outcome if counts[outcome]}

    @property
    def problems(self) -> tuple[ServerResult, ...]:
        """The results that are refused, failed, skipped or in doubt."""
        known = zip(self.server_ids, self.ends, strict=True)
        return tuple(_result(server_id, end, self.reboot_type) for server_id, end in known if end.outcome in PROBLEMS)

    def raise_for_failures(self) -> None:
        """Do nothing if every server is well.

        Raises:
            FleetError: Some server was refused, failed, skipped or left in doubt.
        """
        if any(end.outcome in PROBLEMS for end in self.ends):
            raise FleetError(self)

    def to_dict(self) -> dict[str, object]:
        """Give the report as plain values that `json.dumps` takes.

        The keys are `summary`, `results`, `stopped`, `elapsed` and `target`.
        """
        return {
            "summary": {str(outcome): count for outcome, count in self.summary.items()},
            "results": [asdict(result) for result in self],
            "stopped": None if self.stopped is None else asdict(self.stopped),
            "elapsed": self.elapsed,
            "target": None if self.target is None else asdict(self.target),
        }

    def __getitem__(self, server_id: str) -> ServerResult:
        try:
            place = self._places[check_id(server_id)]
        except ValueError:
            raise KeyError(server_id) from None
        return _result(self.server_ids[place], self.ends[place], self.reboot_type)

    def __contains__(self, server_id: object) -> bool:
        try:
            return check_id(server_id) in self._places
        except ValueError:
            return False

    @cached_property
    def _places(self) -> dict[str, int]:
        return {server_id: place for place, server_id in enumerate(self.server_ids)}

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[ServerResult]:
        return map(_result, self.server_ids, self.ends, repeat(self.reboot_type))

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
        target: The project of the servers; None if that is not known yet.
        keeps_details: Whether more than its outcome is kept of a server that has one.
    """

    def __init__(
        self,
        ids: Iterable[str],
        reboot_type: RebootType,
        *,
        target: Target | None = None,
        keeps_details: bool = True,
    ) -> None:
        self._reboot_type = reboot_type
        self._target = target
        self._keeps_details = keeps_details
        self._entries: dict[str, Progress | ServerResult | End | None] = dict.fromkeys(ids)
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
        return isinstance(self._entries[server_id], ServerResult | End)

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
        self._entries[result.server_id] = result if self._keeps_details else _END_ALONE[result.outcome]
        self._finished += 1

    def report(self, now: float, *, began: float, stopped: Stop | None, is_over: bool) -> Report:
        """Write the report as things stand."""
        # Whoever asks for it is held meanwhile, by a fleet of 100,000 for a few milliseconds.
        none_sent = untouched(is_over=is_over)
        ends = [
            entry.result(now, entry.so_far(is_over=is_over)) if isinstance(entry, Progress) else entry or none_sent
            for entry in self._entries.values()
        ]
        return Report(
            server_ids=tuple(self._entries),
            ends=tuple(ends),
            reboot_type=self._reboot_type,
            stopped=stopped,
            elapsed=now - began,
            target=self._target,
        )

    def unfinished(self, now: float) -> Iterator[ServerResult]:
        """Tell, when a run is over, what became of the servers that have no outcome of their own."""
        none_sent = untouched(is_over=True)
        for server_id, entry in self._entries.items():
            if isinstance(entry, Progress):
                yield entry.result(now, entry.so_far(is_over=True))
            elif entry is None:
                yield _result(server_id, none_sent, self._reboot_type)


def _result(server_id: str, end: ServerResult | End, reboot_type: RebootType) -> ServerResult:
    """Write the result of a server of which its end alone is known."""
    if isinstance(end, ServerResult):
        return end
    return ServerResult(server_id=server_id, outcome=end.outcome, reason=end.reason, reboot_type=reboot_type)
