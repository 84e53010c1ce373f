"""`--dry-run`, and what the question before a large run is made of."""

import json
from dataclasses import asdict
from datetime import datetime

from bulkrestart.cli.access import Access
from bulkrestart.cli.ask import in_short
from bulkrestart.cli.end import End, ExitCode
from bulkrestart.cli.errors import refusals_told
from bulkrestart.cli.fleet import Chosen
from bulkrestart.cli.show import Output
from bulkrestart.cli.streams import Streams, safe
from bulkrestart.core.model import Reason
from bulkrestart.core.options import Options
from bulkrestart.core.plan import Forecast, Plan
from bulkrestart.core.record import Contents, Purpose

_EXPECTED_WIDTH = max(map(len, Reason))


async def make_plan(
    access: Access,
    chosen: Chosen,
    options: Options,
    *,
    journal: str | None,
    contents: Contents | None,
    since: datetime | None,
    max_per_second: float | None,
) -> Plan:
    """Ask the library what a restart would do.

    Args:
        access: The way in.
        chosen: The fleet.
        options: What is asked for.
        journal: The file of the journal that was named; None if none was.
        contents: What it holds already; None if its run has not begun.
        since: Who has rebooted since is left alone; None: nobody is.
        max_per_second: Requests a second, at most; None for no bound.

    Raises:
        InputError: The cloud refuses us, or is not there, or the journal is of another run.
    """
    with refusals_told():
        async with access.client(max_at_once=options.max_at_once, max_per_second=max_per_second) as client:
            if contents is not None:
                moment = None if since is None else since.timestamp()
                purpose = Purpose(endpoint=await client.locate(), reboot_type=options.reboot_type, since=moment)
                contents.check(journal, purpose, chosen.ids)
            return await client.plan(
                chosen.to_do,
                reboot_type=options.reboot_type,
                wait=options.wait,
                rollout=options.rollout,
                escalate=options.escalate,
                start_stopped=options.start_stopped,
                since=since,
            )


def print_plan(plan: Plan, output: Output, streams: Streams) -> End:
    """Print what a restart would do."""
    if output is Output.JSON:
        streams.line(json.dumps(plan.to_dict(), indent=2))
    for one in plan.forecasts:
        if output is Output.TABLE:
            streams.line(_row(one))
        elif output is Output.JSONL:
            streams.line(json.dumps(asdict(one)))
    write = streams.line if output is Output.TABLE else streams.say
    for line in (*in_short(plan), "nothing was sent"):
        write(line)
    return End(ExitCode.WELL)


def _row(one: Forecast) -> str:
    expected = one.reboot_type if one.reason is None else one.reason
    place = f"wave {one.wave}" + (f", {one.domain}" if one.domain else "")
    return safe(f"{one.server_id}  {expected:<{_EXPECTED_WIDTH}}  {place}  {one.name}  {one.detail}".rstrip())
