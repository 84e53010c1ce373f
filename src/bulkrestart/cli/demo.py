"""`bulkrestart demo`: a simulated fleet with faults, restarted end to end, and checked against what the cloud saw."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bulkrestart.cli.end import End, ExitCode
from bulkrestart.cli.follow import follow, nothing_done
from bulkrestart.cli.show import closing_words, why
from bulkrestart.cli.signals import Interrupts
from bulkrestart.cli.streams import Streams, safe
from bulkrestart.client import RestartClient, Run
from bulkrestart.cloud.auth import Token
from bulkrestart.core.model import Attempt, Outcome, RebootType, ServerResult
from bulkrestart.core.report import Report
from bulkrestart.simulator import Call, Cloud, Faults, LoopbackCloud

_SERVERS = 200
_MAX_AT_ONCE = 20
#: A reboot of the simulated hosts, in seconds: real ones take minutes, and nobody watches a demo for that long.
_REBOOT_SECONDS = (1.0, 3.0)
_FAULTS = Faults(
    busy=0.04,
    busy_seconds=3.0,
    locked=0.02,
    stopped=0.02,
    throttled=0.02,
    retry_after=1.0,
    error_before=0.03,
    error_after=0.03,
    lost_before=0.03,
    lost_after=0.04,
    late=0.02,
    late_seconds=4.0,
    slow=0.04,
    slow_seconds=2.0,
)


def demo_cloud() -> Cloud:
    """Make the fleet that the demo restarts, the same each time."""
    return Cloud(_SERVERS, seed=1, reboot_seconds=_REBOOT_SECONDS, faults=_FAULTS)


async def demo(cloud: Cloud, streams: Streams) -> End:
    """Restart every server of a simulated cloud, and tell what was promised and what was seen.

    Returns:
        `WELL` if the cloud saw what the report says, and no server twice; `PROBLEMS` if not; `INTERRUPTED`.
    """
    interrupts = Interrupts(streams)
    with interrupts.handled(), interrupts.absorbed():
        async with LoopbackCloud(cloud) as served:
            streams.line(f"{len(cloud.ids)} simulated servers at {served.endpoint}; shown are those with a story")
            report = await follow(
                _restarting(served),
                before=nothing_done(cloud.ids, RebootType.SOFT),
                display=_Stories(cloud, streams),
                interrupts=interrupts,
                streams=streams,
            )
            if not interrupts.count:
                broken = broken_promises(cloud, report)
                for line in (*sightings(cloud, report), *(broken or ["every promise held"])):
                    streams.line(line)
    if interrupts.count:
        return End(ExitCode.INTERRUPTED)
    return End(ExitCode.PROBLEMS if broken else ExitCode.WELL, [*closing_words(report), *broken])


@asynccontextmanager
async def _restarting(served: LoopbackCloud) -> AsyncIterator[Run]:
    auth = Token(served.cloud.token)
    async with (
        RestartClient(served.endpoint, auth=auth, max_at_once=_MAX_AT_ONCE) as client,
        client.restarting(served.cloud.ids) as run,
    ):
        yield run


class _Stories:
    """Prints the servers that did not simply come back."""

    def __init__(self, cloud: Cloud, streams: Streams) -> None:
        self._names = {server_id: cloud.server(server_id).name for server_id in cloud.ids}
        self._streams = streams

    def show(self, result: ServerResult) -> None:
        if story := _story(result):
            line = f"  {self._names[result.server_id]}  {result.outcome:<9}  {result.elapsed:5.1f} s  {story}"
            self._streams.line(safe(line))

    def close(self, report: Report) -> None:
        for line in closing_words(report):
            self._streams.line(line)


def _story(result: ServerResult) -> str:
    """Tell what was answered on the way; "" if that was one plain 202."""
    answers = [_in_short(attempt) for attempt in result.attempts]
    if result.outcome is not Outcome.COMPLETED:
        return why(result)
    if answers == ["202"]:
        return ""
    if answers[-1] != "202":
        answers.append("found in the action log")
    return ", then ".join(answers)


def _in_short(attempt: Attempt) -> str:
    return "no reply" if attempt.answer.startswith("unanswered") else attempt.answer


def sightings(cloud: Cloud, report: Report) -> list[str]:
    """Count, from the cloud's side, what the run met."""
    sends = [record for record in cloud.requests if record.call is Call.REBOOT]
    cycles = Counter(cloud.cycles.values())
    twice = sum(count for number, count in cycles.items() if number > 1)
    statuses = Counter(record.status for record in sends)
    lines = [
        "what the cloud saw:",
        f"  {len(sends)} reboot requests, at most {cloud.peak_posts_in_flight} at once",
        f"  {cycles[1]} servers power-cycled once, {twice} more than once, {cycles[0]} not at all",
        f"  {statuses[429]} requests throttled, {statuses[409]} answered 409",
    ]
    back = {result.server_id for result in report if result.outcome is Outcome.COMPLETED}
    for what, status in (("replies lost", None), ("answers 500", 500)):
        unclear = {record.server_id for record in sends if record.status == status and record.server_id}
        found = sum(cloud.posts[server_id] == 1 for server_id in unclear & back)
        again = sum(cloud.posts[server_id] > 1 for server_id in unclear)
        lines.append(
            f"  {len(unclear)} {what}: {found} reboots had started all the same and were found in the action log, "
            f"{again} had not and were sent again, {len(unclear) - found - again} servers were in no state for it"
        )
    return lines


def broken_promises(cloud: Cloud, report: Report) -> list[str]:
    """Compare the report with what the cloud saw, and name each promise that was not kept."""
    cycles = cloud.cycles
    back = {result.server_id for result in report if result.outcome is Outcome.COMPLETED}
    promises = (
        ("every server is in the report once", [result.server_id for result in report] == cloud.ids),
        ("no server was power-cycled twice", all(count <= 1 for count in cycles.values())),
        ("those completed are those power-cycled", back == {one for one, count in cycles.items() if count}),
        ("never more requests at once than asked", cloud.peak_in_flight <= _MAX_AT_ONCE),
    )
    return [f"BROKEN: {promise}" for promise, is_kept in promises if not is_kept]
