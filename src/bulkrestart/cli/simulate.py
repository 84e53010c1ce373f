"""`bulkrestart simulate`: the embedded cloud on loopback, until a signal ends it."""

import asyncio
import shlex
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from bulkrestart.cli.end import End, ExitCode
from bulkrestart.cli.errors import InputError, input_checked
from bulkrestart.cli.signals import on_signals
from bulkrestart.cli.streams import Streams, safe
from bulkrestart.simulator import Cloud, Face, Faults, LoopbackCloud
from bulkrestart.simulator.faults import SHARES


def read_faults(given: Sequence[str]) -> Faults:
    """Read shares given as NAME=SHARE.

    Raises:
        InputError: There is no such fault, or it is no share.
    """
    shares: dict[str, float] = {}
    for one in given:
        name, _, share = one.partition("=")
        name = name.replace("-", "_")
        if name not in SHARES:
            raise InputError(f"--fault {one!r}: there is no such fault; there are {', '.join(SHARES)}")
        try:
            shares[name] = float(share)
        except ValueError as error:
            raise InputError(f"--fault {one!r}: the share must be a number from 0 to 1: {name}=0.05") from error
    with input_checked("--fault: "):
        return replace(Faults(), **shares)  # type: ignore[arg-type]  # the one field that is an int is no share


def read_face(name: str) -> Face:
    """Read who answers.

    Raises:
        InputError: There is no such face.
    """
    try:
        return Face(name.lower())
    except ValueError as error:
        raise InputError(f"--face must be {' or '.join(Face)}, not {name!r}") from error


def write_ids(cloud: Cloud, path: Path) -> None:
    """Write the ids of a cloud's servers to a file, one a line.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        path.write_text("".join(f"{server_id}\n" for server_id in cloud.ids), encoding="utf-8")
    except (OSError, ValueError) as error:
        # ValueError: a path with a NUL character.
        raise InputError(f"cannot write ids to {path}: {error}") from error


async def simulate(cloud: Cloud, *, port: int, ids_to: Path | None, streams: Streams) -> End:
    """Serve a cloud until a signal, and say how to restart its servers, whose ids are in the file `ids_to` if any.

    Raises:
        InputError: The port is taken, or the file cannot be written.
    """
    ended = asyncio.Event()
    async with AsyncExitStack() as stack:
        try:
            served = await stack.enter_async_context(LoopbackCloud(cloud, port=port))
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror}; give another, or 0 for a free one") from error
        if ids_to is not None:
            write_ids(cloud, ids_to)
        with on_signals(ended.set):
            for line in _directions(cloud, served.endpoint, ids_to):
                streams.line(safe(line))
            await ended.wait()
        cycles = [count for count in cloud.cycles.values() if count]
        streams.line(f"{sum(cycles)} power cycles of {len(cycles)} servers in answer to {len(cloud.requests)} requests")
    return End(ExitCode.WELL)


def _directions(cloud: Cloud, endpoint: str, ids_to: Path | None) -> list[str]:
    which = "--all" if ids_to is None else f"--ids-from {shlex.quote(str(ids_to))}"
    return [
        f"# {len(cloud.ids)} simulated servers at {endpoint} until Ctrl-C; in another shell:",
        f"export OS_TOKEN={shlex.quote(cloud.token)}",
        f"bulkrestart servers --endpoint {endpoint} --all",
        f"bulkrestart restart --endpoint {endpoint} {which}",
    ]
