"""What a run prints on standard output: a line for each server as it comes, or the whole report at the end."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum

from bulkrestart.cli.streams import Streams, safe
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
    """Prints a run.

    Args:
        output: How.
        ids: The fleet, for the width of a column.
        streams: Where; the summary goes to standard error if standard output is for machines.
    """

    def __init__(self, output: Output, ids: Iterable[str], streams: Streams) -> None:
        self._output = output
        self._width = max(map(len, ids), default=0)
        self._streams = streams

    def show(self, result: ServerResult) -> None:
        """Print a server that has its outcome."""
        if self._output is Output.TABLE:
            self._streams.line(row(result, self._width))
        elif self._output is Output.JSONL:
            self._streams.line(json.dumps(asdict(result)))

    def close(self, report: Report) -> None:
        """Print how it all ended."""
        if self._output is Output.JSON:
            self._streams.line(json.dumps(report.to_dict(), indent=2))
        write = self._streams.line if self._output is Output.TABLE else self._streams.say
        for line in closing_words(report):
            write(line)

    def account(self, report: Report) -> list[str]:
        """Give the lines to go by if standard output is lost: the problems, and the summary if that went there."""
        problems = [row(result, self._width) for result in report.problems]
        return problems + closing_words(report) if self._output is Output.TABLE else problems


def row(result: ServerResult, width: int) -> str:
    """Write one server as a line: id, outcome, seconds, and why where there is something to say."""
    line = f"{result.server_id:<{width}}  {result.outcome:<{_OUTCOME_WIDTH}}  {result.elapsed:7.1f} s  {why(result)}"
    return safe(line.rstrip())


def why(result: ServerResult) -> str:
    """Say on one line why a server has its outcome; "" where there is nothing to say."""
    return ": ".join(part for part in (result.reason or "", " ".join(result.detail.split())) if part)


def closing_words(report: Report) -> list[str]:
    """Return the summary of a run: its target (unless the user gave the endpoint), counts, and why it stopped."""
    is_found = report.target is not None and report.target.cloud != ""
    lines = [*([f"at {report.target}"] if is_found else []), str(report)]
    if report.stopped is not None:
        lines.append(f"stopped ({report.stopped.reason.replace('_', ' ')}): {report.stopped.detail}")
    return [safe(" ".join(line.split())) for line in lines]
