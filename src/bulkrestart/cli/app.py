"""The commands and their options."""

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import typer

from bulkrestart import __version__
from bulkrestart.cli.access import Access, TargetOptions, Trust, locate, read_access
from bulkrestart.cli.ask import ASKS_OVER, check_terminal, confirm, question
from bulkrestart.cli.end import End, ExitCode
from bulkrestart.cli.errors import InputError, options_checked
from bulkrestart.cli.fleet import choose
from bulkrestart.cli.ids import IdsFormat, check_format
from bulkrestart.cli.journal import contents_of, new_path, print_journal
from bulkrestart.cli.loop import run_async, run_before_sending
from bulkrestart.cli.options import (
    AllOption,
    AzOption,
    CacertOption,
    CertOption,
    CloudOption,
    EndpointOption,
    InsecureOption,
    InterfaceOption,
    KeyOption,
    MetadataOption,
    NameOption,
    OutputOption,
    ProjectOption,
    RegionOption,
    StatusOption,
    TagOption,
)
from bulkrestart.cli.plan import make_plan, print_plan
from bulkrestart.cli.restart import Request, read_since, read_verify, restart
from bulkrestart.cli.select import SELECTORS, read_selectors
from bulkrestart.cli.servers import list_servers
from bulkrestart.cli.show import Output
from bulkrestart.cli.spreading import read_spreading
from bulkrestart.cli.streams import Streams
from bulkrestart.cloud.failures import limit_of_machine
from bulkrestart.core.arguments import check_count, check_rate
from bulkrestart.core.model import RebootType
from bulkrestart.core.options import Options
from bulkrestart.core.plan import Plan
from bulkrestart.core.stall import STALL_TIMEOUT

app = typer.Typer(
    name="bulkrestart",
    help="Restart whole fleets of cloud servers, and account for every one of them.",
    epilog="'bulkrestart COMMAND --help' explains a command.",
    # Plain text can be searched, piped and pasted.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

#: A command line that was read and checked: what is left is to do it.
Command = Callable[[Streams], End]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, that of the process if None, and return the exit code.

    Raises:
        KeyboardInterrupt: A signal came before anything was sent.
    """
    streams = Streams()
    end = _run(arguments, streams)
    is_lost = streams.close(end.account)
    return max(end.code, ExitCode.LOST) if is_lost else end.code


def _run(arguments: Sequence[str] | None, streams: Streams) -> End:
    try:
        with streams.showing_warnings():
            return _read(arguments)(streams)
    except InputError as error:
        streams.warn(str(error))
        return End(error.code)
    except Exception as error:
        if isinstance(error, _UsageError):
            streams.warn(f"{error.format_message().rstrip('.')}; see bulkrestart --help")
            return End(ExitCode.USAGE)
        limit = limit_of_machine(error) if isinstance(error, OSError) else None
        streams.warn(limit or f"a defect of bulkrestart, please report it: {type(error).__name__}: {error}")
        return End(ExitCode.STOPPED)


@runtime_checkable
class _UsageError(Protocol):
    """What typer raises for a bad command line: click's class up to typer 0.25, one of its own since."""

    def format_message(self) -> str: ...


def _read(arguments: Sequence[str] | None) -> Command:
    """Read a command line."""
    with redirect_stdout(io.StringIO()) as printed:
        read: Command | int = app(arguments, prog_name="bulkrestart", standalone_mode=False)
    if not isinstance(read, int):
        return read
    if read == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt

    def show(streams: Streams) -> End:
        """Show the help, or the version."""
        streams.line(printed.getvalue().removesuffix("\n"))
        return End(ExitCode.WELL)

    return show


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
    "5 standard output could not be written, and the problems and the summary are on standard error; "
    "4 the run stopped itself, or nothing could be sent because the cloud made no progress; "
    "3 some servers are in doubt; 1 some were refused, failed or skipped; 0 all is well.",
)
def _restart(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", show_default=False, help="Ids of servers.")] = None,
    ids_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|-",
            help="A file of ids, one a line; blank lines and # comments are ignored. - reads standard input. "
            "May be repeated; the arguments come first.",
        ),
    ] = None,
    ids_format: Annotated[
        IdsFormat,
        typer.Option(
            metavar="FORMAT",
            case_sensitive=False,
            help="The format of those files: lines (one id a line), csv (with a header) or json (a list of ids or of "
            "objects). csv and json as openstack server list -f prints them.",
        ),
    ] = IdsFormat.LINES,
    ids_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column (csv) or key (json) with the ids. By default it is id or ID."),
    ] = None,
    is_all: AllOption = False,
    name: NameOption = None,
    status: StatusOption = None,
    tag: TagOption = None,
    az: AzOption = None,
    metadata: MetadataOption = None,
    endpoint: EndpointOption = None,
    cloud: CloudOption = None,
    region: RegionOption = None,
    interface: InterfaceOption = None,
    project: ProjectOption = None,
    cacert: CacertOption = "",
    cert: CertOption = "",
    key: KeyOption = "",
    is_insecure: InsecureOption = False,
    reboot_type: Annotated[
        RebootType,
        typer.Option(
            "--type",
            metavar="soft|hard",
            case_sensitive=False,
            help="soft asks the guest to shut down; hard resets it like a power button.",
        ),
    ] = RebootType.SOFT,
    max_at_once: Annotated[int, typer.Option(metavar="N", help="Requests in flight at once, at most.")] = 50,
    max_per_second: Annotated[
        float | None,
        typer.Option(metavar="N", help="Requests a second, at most, polls and looks included; no bound by default."),
    ] = None,
    max_attempts: Annotated[
        int, typer.Option(metavar="N", help="Sends to one server, at most; waiting for a busy one is not counted.")
    ] = 5,
    request_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For one request.")] = 60.0,
    server_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Until a server is accepted, or given up.")
    ] = 900.0,
    wait_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="From the acceptance until a server is back. Below 150, good soft reboots can count as failed.",
        ),
    ] = 600.0,
    stall_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Stop the run if no server is accepted, comes back or finishes for this long, whatever the cause, and "
            "say why. The time between two waves does not count. A longer time-out of a server extends it.",
        ),
    ] = STALL_TIMEOUT,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Wait until the servers are back, or only until they are accepted."),
    ] = True,
    start_stopped: Annotated[
        bool, typer.Option("--start-stopped", help="Leave to send hard to a stopped server, which starts it.")
    ] = False,
    escalate: Annotated[
        bool,
        typer.Option(
            "--escalate",
            help="Leave to send hard where soft is always refused (paused, suspended, error), and once where a soft "
            "has left a server in error.",
        ),
    ] = False,
    canary: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default=False,
            help=f"Restart so many servers first, and go on when they are back. [default: 1 over {ASKS_OVER} servers]",
        ),
    ] = None,
    wave: Annotated[
        str | None,
        typer.Option(metavar="N|P%", help="Go on by waves of so many servers, each when all of the last have an end."),
    ] = None,
    pause: Annotated[float, typer.Option(metavar="SECONDS", help="Between two waves.")] = 0.0,
    max_down: Annotated[
        str | None,
        typer.Option(
            metavar="N|P%|budget",
            show_default=False,
            help="Servers down at once, at most; those that do not come back count. budget: no more than may still "
            f"fail. [default: 50 over {ASKS_OVER} servers]",
        ),
    ] = None,
    max_failures: Annotated[
        str | None,
        typer.Option(
            metavar="N|P%",
            show_default=False,
            help="Stop when more servers than that failed or are in doubt. [default: 5%, or 5 if that is more]",
        ),
    ] = None,
    max_refused: Annotated[
        str | None,
        typer.Option(
            metavar="N|P%",
            show_default=False,
            help="Stop when more servers than that were refused or skipped. [default: 10%, or 20 if that is more]",
        ),
    ] = None,
    spread: Annotated[
        str | None,
        typer.Option(
            metavar="az|host",
            help="az: one availability zone after the other. host: one server of a host down at a time.",
        ),
    ] = None,
    verify_tcp: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="When a server is back, wait until this TCP port of it is open; floating addresses come first.",
        ),
    ] = None,
    verify_http: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="When a server is back, wait until a GET is answered 200, such as 'http://{address}/health'; {name} "
            "and {id} can be used too.",
        ),
    ] = None,
    verify_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="From the first of these checks of a server to the last.")
    ] = 300.0,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="ISO8601",
            help="Leave alone who has rebooted since, such as 2026-11-23T02:00Z, by the cloud's action log; so asking "
            "twice is asking once. Stopping and starting does not count.",
        ),
    ] = None,
    journal: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write down each send before it leaves. The same command with the same FILE goes on where the run "
            "ended; without ids it takes those in FILE. Without this option there is one in the state directory.",
        ),
    ] = None,
    is_unkept: Annotated[bool, typer.Option("--no-journal", help="Keep no journal.")] = False,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and what is to be expected. Sends no reboot.")
    ] = False,
    is_confirmed: Annotated[
        bool, typer.Option("--yes", help=f"Do not ask before a run over more than {ASKS_OVER} servers.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> Command:
    """Restart servers, wait until they are back, and tell what became of each.

    Name them by their ids, or select them. Results go to standard output, all else to standard error. A reply that is
    lost is not sent again blindly: what cannot be learnt from the cloud is reported as in doubt.
    """
    verify = read_verify(tcp=verify_tcp, http=verify_http)
    if verify is not None and not wait:
        raise InputError("a server is verified when it is back: leave out --no-wait, or the check")
    with options_checked():
        options = Options(
            reboot_type=reboot_type,
            wait=wait,
            max_attempts=max_attempts,
            request_timeout=request_timeout,
            server_timeout=server_timeout,
            wait_timeout=wait_timeout,
            escalate=escalate,
            start_stopped=start_stopped,
            verify=verify,
            verify_timeout=verify_timeout,
            stall_timeout=stall_timeout,
            max_at_once=max_at_once,
        )
        check_rate("max_per_second", max_per_second)
        moment = read_since(since)
    if journal == "":
        raise InputError("--journal is empty: give the name of a file, or --no-journal")
    if journal is not None and is_unkept:
        raise InputError("give --journal FILE or --no-journal, one of them")
    selectors = read_selectors(
        is_all=is_all, name=name, status=status or (), tags=tag or (), az=az or (), metadata=metadata or ()
    )
    if selectors is not None and (ids or ids_from):
        raise InputError("give ids, or select servers, not both")
    check_format(ids_from or (), ids_format, ids_column)

    access = read_access(
        TargetOptions(endpoint=endpoint, cloud=cloud, region=region, interface=interface, project=project),
        Trust(cacert=cacert, cert=cert, key=key, is_insecure=is_insecure),
    )

    spreading = read_spreading(
        canary=canary,
        wave=wave,
        pause=pause,
        max_down=max_down,
        max_failures=max_failures,
        max_refused=max_refused,
        spread=spread,
        wait=wait,
    )

    def command(streams: Streams) -> End:
        streams.secrets = lambda: access.auth.secrets
        contents = contents_of(journal)
        chosen = choose(
            arguments=ids or (),
            sources=ids_from or (),
            ids_format=ids_format,
            ids_column=ids_column,
            selectors=selectors,
            contents=contents,
            goal=options.goal,
            access=access,
            streams=streams,
        )
        asked = replace(options, rollout=spreading.over(len(chosen.ids)))

        def plan_by(way_in: Access) -> Plan:
            return run_before_sending(
                make_plan(
                    way_in,
                    chosen,
                    asked,
                    journal=journal,
                    since=moment,
                    max_per_second=max_per_second,
                )
            )

        if is_dry_run:
            return print_plan(plan_by(access), output, streams)
        path = None if is_unkept else Path(journal).absolute() if journal is not None else new_path()
        way_in = access
        if len(chosen.to_do) > ASKS_OVER and not is_confirmed:
            way_in = run_before_sending(locate(access))
            check_terminal()
            confirm(
                question(
                    plan_by(way_in),
                    reboot_type=reboot_type,
                    max_at_once=max_at_once,
                    since=since,
                    journal=path,
                )
            )
        request = Request(
            access=way_in,
            ids=chosen.ids,
            contents=contents,
            options=asked,
            max_per_second=max_per_second,
            since=moment,
            journal=path,
            output=output,
        )
        return run_async(restart(request, streams))

    return command


@app.command(
    "servers",
    short_help="List the servers that would be selected.",
    epilog="Exit code, the first that fits: 130 interrupted; 2 bad input, or the cloud does not let us in; "
    "5 standard output could not be written; 4 the list was not read to its end in 30 min; 0 all is well, also where "
    "no server fits.",
)
def _servers(
    is_all: AllOption = False,
    name: NameOption = None,
    status: StatusOption = None,
    tag: TagOption = None,
    az: AzOption = None,
    metadata: MetadataOption = None,
    endpoint: EndpointOption = None,
    cloud: CloudOption = None,
    region: RegionOption = None,
    interface: InterfaceOption = None,
    project: ProjectOption = None,
    cacert: CacertOption = "",
    cert: CertOption = "",
    key: KeyOption = "",
    is_insecure: InsecureOption = False,
    output: OutputOption = Output.TABLE,
) -> Command:
    """List the servers that a restart with the same selectors is about."""
    selectors = read_selectors(
        is_all=is_all, name=name, status=status or (), tags=tag or (), az=az or (), metadata=metadata or ()
    )
    if selectors is None:
        raise InputError(f"nothing selects servers: give {SELECTORS}")
    access = read_access(
        TargetOptions(endpoint=endpoint, cloud=cloud, region=region, interface=interface, project=project),
        Trust(cacert=cacert, cert=cert, key=key, is_insecure=is_insecure),
    )

    def command(streams: Streams) -> End:
        streams.secrets = lambda: access.auth.secrets
        return run_before_sending(list_servers(access, selectors, output, streams))

    return command


@app.command("journal", short_help="Print what the journal of a restart holds.")
def _journal(
    path: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="The journal.")],
    output: OutputOption = Output.TABLE,
) -> Command:
    """Print what the journal of a restart holds: what was asked, and what has become of each server.

    It may be read while the restart goes on. The exit code is 0 if it can be read, and 2 if not.
    """
    return lambda streams: print_journal(path, output, streams)


@app.command("simulate", short_help="Serve a simulated cloud on loopback.")
def _simulate(
    servers: Annotated[int, typer.Option(metavar="N", help="Servers to simulate.")] = 100,
    port: Annotated[int, typer.Option(metavar="PORT", help="Port on 127.0.0.1; 0 is a free one.")] = 0,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same ids and faults.")] = 0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SHARE",
            help="Share of the servers, 0 to 1, that meet a fault, such as lost-after=0.05; may be repeated. "
            "An unknown name lists them all.",
        ),
    ] = None,
    face: Annotated[
        str, typer.Option(metavar="nova|huawei", help="Who answers: Nova itself, or Huawei Cloud's gateway before it.")
    ] = "nova",
    ids_to: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the ids to FILE, one a line.")] = None,
) -> Command:
    """Serve a simulated cloud on loopback until Ctrl-C, and say how to restart its servers."""
    with options_checked():
        check_count("servers", servers)
    if not 0 <= port <= 65535:
        raise InputError(f"--port must be from 0 to 65535, not {port}")
    try:
        from bulkrestart.cli.simulate import read_face, read_faults, simulate
        from bulkrestart.simulator import Cloud
    except ImportError as error:
        raise InputError(str(error)) from error
    faults, shown_face = read_faults(fault or ()), read_face(face)

    def command(streams: Streams) -> End:
        cloud = Cloud(servers, seed=seed, faults=faults, face=shown_face)
        return run_async(simulate(cloud, port=port, ids_to=ids_to, streams=streams))

    return command


@app.command("demo", short_help="Restart a simulated fleet, end to end.")
def _demo() -> Command:
    """Restart 200 simulated servers, some of them with faults, and check the report against what the cloud saw."""
    try:
        from bulkrestart.cli.demo import demo, demo_cloud
    except ImportError as error:
        raise InputError(str(error)) from error
    return lambda streams: run_async(demo(demo_cloud(), streams))
