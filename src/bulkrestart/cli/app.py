"""The commands and their options."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import typer

from bulkrestart import __version__
from bulkrestart.cli.ask import ASKS_OVER, confirm, question
from bulkrestart.cli.errors import InputError, input_checked
from bulkrestart.cli.follow import ExitCode
from bulkrestart.cli.ids import gather_ids
from bulkrestart.cli.restart import Request, restart
from bulkrestart.cli.show import Output
from bulkrestart.cli.streams import Notes
from bulkrestart.cloud.auth import Token
from bulkrestart.core.endpoint import Endpoint
from bulkrestart.core.model import RebootType
from bulkrestart.core.options import Options, check_count, check_seconds

_ENDPOINT_REMEDY = "give --endpoint https://HOST/v2.1/PROJECT_ID"
_TOKEN_REMEDY = "export OS_TOKEN=$(openstack token issue -f value -c id)"  # noqa: S105 - how to get one

app = typer.Typer(
    name="bulkrestart",
    help="Restart whole fleets of cloud servers, and account for every one of them.",
    epilog="'bulkrestart COMMAND --help' explains a command.",
    # Plain text can be searched, piped and pasted.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, that of the process if None, and return the exit code."""
    notes = Notes()
    try:
        return int(app(arguments, prog_name="bulkrestart", standalone_mode=False) or 0)
    except InputError as error:
        notes.warn(str(error))
        return ExitCode.USAGE
    except Exception as error:
        if isinstance(error, _UsageError):
            notes.warn(f"{error.format_message().rstrip('.')}; see bulkrestart --help")
            return ExitCode.USAGE
        notes.warn(f"a defect of bulkrestart, please report it: {type(error).__name__}: {error}")
        return ExitCode.STOPPED


@runtime_checkable
class _UsageError(Protocol):
    """What typer raises for a bad command line: click's class up to typer 0.25, one of its own since."""

    def format_message(self) -> str: ...


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"bulkrestart {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    is_version_asked: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(
    "restart",
    short_help="Restart servers of a project.",
    epilog="Exit code, the first that fits: 130 interrupted; 2 bad input, nothing was sent; "
    "4 the run stopped itself; 3 some servers are in doubt; 1 some were refused, failed or skipped; 0 all is well.",
)
def _restart(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", show_default=False, help="Ids of servers.")] = None,
    ids_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="A file of ids, one a line; blank lines and # comments are ignored. - reads standard input. "
            "The arguments come first.",
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The project's compute endpoint: https://HOST/v2.1/PROJECT_ID. Required."),
    ] = None,
    reboot_type: Annotated[
        RebootType,
        typer.Option(
            "--type",
            metavar="soft|hard",
            case_sensitive=False,
            show_default=False,
            help="soft asks the guest to shut down; hard resets it like a power button. Default: soft.",
        ),
    ] = RebootType.SOFT,
    max_at_once: Annotated[
        int, typer.Option(metavar="N", show_default=False, help="Requests in flight at once, at most. Default: 50.")
    ] = 50,
    max_attempts: Annotated[
        int,
        typer.Option(
            metavar="N",
            show_default=False,
            help="Sends to one server, at most; waiting for a busy one is not counted. Default: 5.",
        ),
    ] = 5,
    request_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", show_default=False, help="For one request. Default: 60.")
    ] = 60.0,
    server_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", show_default=False, help="Until a server is accepted, or given up. Default: 900."
        ),
    ] = 900.0,
    wait_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            show_default=False,
            help="From the acceptance until a server is back. Below 150, good soft reboots can count as failed. "
            "Default: 600.",
        ),
    ] = 600.0,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            show_default=False,
            help="Wait until the servers are back, or only until they are accepted. Default: --wait.",
        ),
    ] = True,
    start_stopped: Annotated[
        bool,
        typer.Option("--start-stopped", help="Leave to send hard to a stopped server, which starts it. Default: no."),
    ] = False,
    escalate: Annotated[
        bool,
        typer.Option(
            "--escalate",
            help="Leave to send hard where soft is always refused: paused, suspended, error. Default: no.",
        ),
    ] = False,
    is_confirmed: Annotated[
        bool, typer.Option("--yes", help=f"Do not ask before a run over more than {ASKS_OVER} servers. Default: ask.")
    ] = False,
    output: Annotated[
        Output,
        typer.Option(
            metavar="table|json|jsonl",
            show_default=False,
            help="table: a line for each server as it gets its outcome, and a summary. jsonl: an object for each "
            "instead. json: one report at the end. Default: table.",
        ),
    ] = Output.TABLE,
) -> int:
    """Restart servers, wait until they are back, and tell what became of each.

    The token is read from OS_TOKEN. Results go to standard output, all else to standard error. A reply that is lost
    is not sent again blindly: what cannot be learnt from the cloud is reported as in doubt.
    """
    with input_checked():
        check_count("--max-at-once", max_at_once)
        check_count("--max-attempts", max_attempts)
        check_seconds("--request-timeout", request_timeout)
        check_seconds("--server-timeout", server_timeout)
        check_seconds("--wait-timeout", wait_timeout)
    notes = Notes()
    project, auth = _read_endpoint(endpoint), _read_token()
    try:
        fleet, duplicates = gather_ids(ids or (), ids_from)
        if duplicates:
            notes.warn(f"{duplicates} of the ids given are duplicates; each server is restarted once")
        if len(fleet) > ASKS_OVER and not is_confirmed:
            confirm(
                notes,
                question(
                    fleet,
                    reboot_type=reboot_type,
                    endpoint=project.url,
                    project_id=project.project_id,
                    max_at_once=max_at_once,
                ),
            )
    except KeyboardInterrupt:
        notes.warn("interrupted; nothing was sent")
        return ExitCode.INTERRUPTED
    options = Options(
        reboot_type=reboot_type,
        wait=wait,
        max_attempts=max_attempts,
        request_timeout=request_timeout,
        server_timeout=server_timeout,
        wait_timeout=wait_timeout,
        escalate=escalate,
        start_stopped=start_stopped,
        max_at_once=max_at_once,
    )
    return asyncio.run(restart(Request(endpoint=project, auth=auth, ids=fleet, options=options, output=output), notes))


def _read_endpoint(url: str | None) -> Endpoint:
    if url is None:
        raise InputError(f"no endpoint: {_ENDPOINT_REMEDY}")
    with input_checked("--endpoint: "):
        return Endpoint.parse(url)


def _read_token() -> Token:
    value = os.environ.get("OS_TOKEN", "")
    if not value:
        raise InputError(f"no token in OS_TOKEN: {_TOKEN_REMEDY}")
    with input_checked("OS_TOKEN: "):
        return Token(value)


@app.command("simulate", short_help="Serve a simulated cloud on loopback.")
def _simulate(
    servers: Annotated[
        int, typer.Option(metavar="N", show_default=False, help="Servers to simulate. Default: 100.")
    ] = 100,
    port: Annotated[
        int, typer.Option(metavar="PORT", show_default=False, help="Port on 127.0.0.1. Default: 0, a free one.")
    ] = 0,
    seed: Annotated[
        int,
        typer.Option(metavar="N", show_default=False, help="The same seed gives the same ids and faults. Default: 0."),
    ] = 0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SHARE",
            show_default=False,
            help="Share of the servers, 0 to 1, that meet a fault, such as lost-after=0.05; may be repeated. "
            "An unknown name lists them all. Default: none.",
        ),
    ] = None,
    ids_to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Write the ids to FILE, one a line. Default: no file."),
    ] = None,
) -> int:
    """Serve a simulated cloud on loopback until Ctrl-C, and say how to restart its servers."""
    with input_checked():
        check_count("--servers", servers)
    if not 0 <= port <= 65535:
        raise InputError(f"--port must be from 0 to 65535, not {port}")
    try:
        from bulkrestart.cli.simulate import read_faults, simulate, write_ids
        from bulkrestart.simulator import Cloud
    except ImportError as error:
        raise InputError(str(error)) from error
    cloud = Cloud(servers, seed=seed, faults=read_faults(fault or ()))
    if ids_to is not None:
        write_ids(cloud, ids_to)
    asyncio.run(simulate(cloud, port=port, ids_to=ids_to, notes=Notes()))
    return ExitCode.WELL


@app.command("demo", short_help="Restart a simulated fleet, end to end.")
def _demo() -> int:
    """Restart 200 simulated servers, some of them with faults, and check the report against what the cloud saw."""
    try:
        from bulkrestart.cli.demo import demo, demo_cloud
    except ImportError as error:
        raise InputError(str(error)) from error
    return asyncio.run(demo(demo_cloud(), Notes()))
