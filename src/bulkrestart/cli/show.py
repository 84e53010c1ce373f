"""What a run prints on standard output: a line for each server as it comes, or the whole report at the end."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum

from bulkrestart.cli.streams import Notes, Results, safe
from bulkrestart.core.model import Outcome, ServerResult
from bulkrestart.core.report import Report

_OUTCOME_WIDTH = max(map(len, Outcome))


class Output(StrEnum):
    """How results are printed."""

    #: For people: a line for each server as it gets its outcome, and a summary.
    TABLE = "table"
    #: The whole report at the end, as one JSON object.
    JSON = "json"
    #: A JSON object for each server as it gets its outcome.
    JSONL = "jsonl"


class Display:
    """Prints a run, each server once.

    Args:
        output: How.
        ids: The fleet, for the width of a column.
        results: Standard output.
        notes: Standard error: the summary goes there if standard output is for machines.
    """

    def __init__(self, output: Output, ids: Iterable[str], results: Results, notes: Notes) -> None:
        self._output = output
        self._width = max(map(len, ids))
        self._results = results
        self._notes = notes
        self._shown: set[str] = set()

    def show(self, result: ServerResult) -> None:
        """Take a server that has its outcome."""
        if result.server_id in self._shown:
            return
        self._shown.add(result.server_id)
        if self._output is Output.TABLE:
            self._results.line(row(result, self._width))
        elif self._output is Output.JSONL:
            self._results.line(json.dumps(asdict(result)))

    def close(self, report: Report) -> None:
        """Print what is left, and how it all ended."""
        for result in report:
            self.show(result)
        if self._output is Output.JSON:
            self._results.line(json.dumps(report.to_dict(), indent=2))
        write = self._results.line if self._output is Output.TABLE else self._notes.say
        for line in closing_words(report):
            write(line)


def row(result: ServerResult, width: int) -> str:
    """Write one server as a line: id, outcome, seconds, and why where there is something to say."""
    why = ": ".join(part for part in (result.reason or "", " ".join(result.detail.split())) if part)
    line = f"{result.server_id:<{width}}  {result.outcome:<{_OUTCOME_WIDTH}}  {result.elapsed:7.1f} s  {why}"
    return safe(line.rstrip())


def closing_words(report: Report) -> list[str]:
    """Sum a run up: the counts, and why it stopped if it did."""
    lines = [str(report)]
    if report.stopped is not None:
        lines.append(f"stopped ({report.stopped.reason.replace('_', ' ')}): {report.stopped.detail}")
    return [safe(" ".join(line.split())) for line in lines]
