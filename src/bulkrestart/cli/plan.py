"""`--dry-run`, and what the question before a large run is made of."""

import json
from dataclasses import asdict
from datetime import datetime

from bulkrestart.cli.access import Access
from bulkrestart.cli.end import End, ExitCode
from bulkrestart.cli.errors import refusals_told
from bulkrestart.cli.fleet import Chosen
from bulkrestart.cli.show import Output
from bulkrestart.cli.streams import Streams, safe
from bulkrestart.core.model import Reason
from bulkrestart.core.options import Options
from bulkrestart.core.plan import Forecast, Plan
from bulkrestart.core.target import Target

_EXPECTED_WIDTH = max(map(len, Reason))
#: Waves whose sizes are named.
_NAMED = 3


async def make_plan(
    access: Access,
    chosen: Chosen,
    options: Options,
    *,
    journal: str | None,
    since: datetime | None,
    max_per_second: float | None,
) -> Plan:
    """Ask the library what a restart would do.

    Args:
        access: The way in.
        chosen: The fleet.
        options: What is asked for.
        journal: The file of the journal that was named; None if none was.
        since: Who has rebooted since is left alone; None: nobody is.
        max_per_second: Requests a second, at most; None for no bound.

    Raises:
        InputError: The cloud refuses us, or is not there, or the journal is of another run.
    """
    with refusals_told():
        async with access.client(max_at_once=options.max_at_once, max_per_second=max_per_second) as client:
            return await client.plan(
                chosen.ids,
                reboot_type=options.reboot_type,
                wait=options.wait,
                rollout=options.rollout,
                escalate=options.escalate,
                start_stopped=options.start_stopped,
                verify=options.verify,
                since=since,
                journal=journal,
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
    for line in (*target_lines(plan.target), *in_short(plan), "nothing was sent"):
        write(safe(line))
    return End(ExitCode.WELL)


def target_lines(target: Target | None) -> list[str]:
    """Return what is known of the target, one line each."""
    if target is None:
        return []
    named = (("cloud", target.cloud), ("region", target.region), ("project", target.project))
    lines = [f"{kind:<10}{name}" for kind, name in named if name]
    return [*lines, f"endpoint  {target.endpoint}"]


def in_short(plan: Plan) -> list[str]:
    """Say in a few lines what a plan comes to."""
    if not plan.forecasts:
        return ["nothing is left to do"]
    expected = ", ".join(
        f"{count} {'to be sent to' if reason is None else reason.replace('_', ' ')}"
        for reason, count in plan.expected.items()
    )
    sizes = [len(wave) for wave in plan.waves]
    waves = f"{len(sizes)} of {', '.join(map(str, sizes[:_NAMED]))}{', ...' if len(sizes) > _NAMED else ''} servers"
    stops = (
        f"more than {plan.max_failures} fail{_counts(already=plan.failures)}, "
        f"or more than {plan.max_refused} are refused{_counts(already=plan.refused, expected=plan.refusals)}"
    )
    down = "" if plan.max_down is None else f", at most {plan.max_down} down at once"
    return [
        f"expected  {expected}",
        f"waves     {waves}{down}",
        f"stops     if {stops}{': it will' if plan.is_to_stop else ''}",
        f"takes     {plan.requests} requests and {plan.seconds:.0f} s at the least, besides the reboots",
    ]


def _counts(**counts: int) -> str:
    named = [f"{count} {word}" for word, count in counts.items() if count]
    return f" ({', '.join(named)})" if named else ""


def _row(one: Forecast) -> str:
    expected = one.reboot_type if one.reason is None else one.reason
    place = f"wave {one.wave}" + (f", {one.domain}" if one.domain else "")
    return safe(f"{one.server_id}  {expected:<{_EXPECTED_WIDTH}}  {place}  {one.name}  {one.detail}".rstrip())
