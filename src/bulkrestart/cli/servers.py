"""`bulkrestart servers`: the servers that a restart with the same selectors is about."""

import json
from dataclasses import asdict

from bulkrestart.cli.access import Access
from bulkrestart.cli.end import End, ExitCode
from bulkrestart.cli.errors import refusals_told
from bulkrestart.cli.select import Selectors
from bulkrestart.cli.show import Output
from bulkrestart.cli.streams import Streams, safe
from bulkrestart.core.model import Server

_STATUS_WIDTH = len("SHELVED_OFFLOADED")


async def list_servers(access: Access, selectors: Selectors, output: Output, streams: Streams) -> End:
    """Print the servers that are selected, as pages come; JSON when all have come.

    Raises:
        InputError: The cloud refuses us, or is not there.
    """
    shown: list[Server] = []
    count = 0
    with refusals_told():
        async with access.client() as client:
            async for server in client.servers(**selectors):
                count += 1
                if output is Output.JSON:
                    shown.append(server)
                else:
                    streams.line(_row(server) if output is Output.TABLE else json.dumps(asdict(server)))
    if output is Output.JSON:
        streams.line(json.dumps([asdict(server) for server in shown], indent=2))
    if not count:
        streams.warn("no server fits")
    return End(ExitCode.WELL)


def _row(server: Server) -> str:
    lock = "  locked" if server.locked else ""
    line = f"{server.id}  {server.status:<{_STATUS_WIDTH}}  {server.availability_zone}  {server.name}{lock}"
    return safe(line.rstrip())
