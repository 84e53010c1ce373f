"""`bulkrestart restart`: what was asked for, and the run that does it."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from bulkrestart.cli.access import Access
from bulkrestart.cli.end import End
from bulkrestart.cli.errors import InputError, input_checked
from bulkrestart.cli.follow import exit_code, follow, nothing_done
from bulkrestart.cli.journal import words_on_rest
from bulkrestart.cli.show import Display, Output
from bulkrestart.cli.signals import Interrupts
from bulkrestart.cli.streams import Streams
from bulkrestart.client import Run
from bulkrestart.cloud.verify import http_ok, tcp_open
from bulkrestart.core.checkpoint import Contents
from bulkrestart.core.model import Verify
from bulkrestart.core.options import Options, parse_since


def read_since(text: str | None) -> datetime | None:
    """Read a moment of the past.

    Raises:
        ValueError: It is none.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"since must be a moment such as 2026-11-23T02:00Z, not {text!r}") from None
    parse_since(moment, time.time())
    return moment


def read_verify(*, tcp: int | None, http: str | None) -> Verify | None:
    """Read what is checked when a server is back.

    Raises:
        InputError: It cannot be checked.
    """
    if tcp is not None and http is not None:
        raise InputError("give --verify-tcp or --verify-http, one of them")
    if tcp is not None:
        with input_checked("--verify-tcp: "):
            return tcp_open(tcp)
    if http is not None:
        with input_checked("--verify-http: "):
            return http_ok(http)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A restart that was asked for, read and checked.

    Attributes:
        access: The way in.
        ids: The fleet, each server once.
        contents: What the journal holds already; None if its run has not begun.
        options: How.
        max_per_second: Requests a second, at most; None for no bound.
        since: Who has rebooted since is left alone; None: nobody is.
        journal: The file of the journal; None to keep none.
        output: How results are printed.
    """

    access: Access
    ids: Sequence[str]
    contents: Contents | None
    options: Options
    max_per_second: float | None
    since: datetime | None
    journal: Path | None
    output: Output


async def restart(request: Request, streams: Streams) -> End:
    """Carry a request out, printing results as they come.

    Raises:
        InputError: The cloud refuses the token, or is not at the endpoint. Nothing was sent.
    """
    contents, reboot_type = request.contents, request.options.reboot_type
    before = nothing_done(request.ids, reboot_type) if contents is None else contents.report(is_over=True)
    interrupts = Interrupts(streams)
    display = Display(request.output, request.ids, streams)
    with interrupts.handled():
        report = await follow(
            _restarting(request, streams),
            before=before,
            display=display,
            interrupts=interrupts,
            streams=streams,
        )
    account = display.account(report)
    # Nothing is left of the journal of a run that never began.
    if request.journal is not None and request.journal.exists():
        rest = words_on_rest(report, request.journal, request.options.goal)
        if rest is not None:
            streams.warn(rest)
    return End(exit_code(report, is_interrupted=interrupts.count > 0), account)


@asynccontextmanager
async def _restarting(request: Request, streams: Streams) -> AsyncIterator[Run]:
    options = request.options
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    settings = given | {"since": request.since, "journal": request.journal}
    async with (
        request.access.client(max_at_once=options.max_at_once, max_per_second=request.max_per_second) as client,
        client.restarting(request.ids, **settings) as run,
    ):
        if request.journal is not None:
            streams.warn(f"the journal is {request.journal}")
        yield run
