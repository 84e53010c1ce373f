"""`bulkrestart restart`: what was asked for, and the run that does it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from bulkrestart.cli.access import Access
from bulkrestart.cli.end import End
from bulkrestart.cli.follow import exit_code, follow
from bulkrestart.cli.show import Display, Output
from bulkrestart.cli.signals import Interrupts
from bulkrestart.cli.streams import Streams
from bulkrestart.client import Run
from bulkrestart.core.options import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A restart that was asked for, read and checked.

    Attributes:
        access: The way in.
        ids: The fleet, each server once.
        options: How.
        output: How results are printed.
    """

    access: Access
    ids: Sequence[str]
    options: Options
    output: Output


async def restart(request: Request, streams: Streams) -> End:
    """Carry a request out, printing results as they come.

    Raises:
        InputError: The cloud refuses the token, or is not at the endpoint. Nothing was sent.
    """
    interrupts = Interrupts(streams)
    display = Display(request.output, request.ids, streams)
    with interrupts.handled():
        report = await follow(
            _restarting(request),
            ids=request.ids,
            reboot_type=request.options.reboot_type,
            display=display,
            interrupts=interrupts,
            streams=streams,
        )
    return End(exit_code(report, is_interrupted=interrupts.count > 0), display.account(report))


@asynccontextmanager
async def _restarting(request: Request) -> AsyncIterator[Run]:
    options = request.options
    async with (
        request.access.client(max_at_once=options.max_at_once) as client,
        client.restarting(request.ids, **asdict(options)) as run,
    ):
        yield run
