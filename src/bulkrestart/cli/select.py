"""Which servers a command is about, by what the cloud shows of them."""

from collections.abc import Sequence
from typing import TypedDict

from bulkrestart.cli.access import Access
from bulkrestart.cli.errors import InputError, refusals_told
from bulkrestart.core.model import Server
from bulkrestart.core.selection import Selection

SELECTORS = "--all, or --name, --status, --tag, --az and --metadata"


class Selectors(TypedDict):
    """The arguments of `RestartClient.servers`."""

    name: str | None
    status: Sequence[str]
    tags: Sequence[str]
    az: Sequence[str]
    metadata: dict[str, str]


def read_selectors(
    *,
    is_all: bool,
    name: str | None,
    status: Sequence[str],
    tags: Sequence[str],
    az: Sequence[str],
    metadata: Sequence[str],
) -> Selectors | None:
    """Read what the options select by; None if they select by nothing.

    Raises:
        InputError: They contradict each other, or one of them cannot be what is meant.
    """
    has_some = name is not None or any((status, tags, az, metadata))
    if is_all and has_some:
        raise InputError("--all selects every server: give it alone, or select by the others alone")
    selectors = Selectors(name=name, status=status, tags=tags, az=az, metadata=_read_pairs(metadata))
    try:
        Selection.parse(**selectors)
    except ValueError as error:
        option, _, words = str(error).partition(" ")
        raise InputError(f"--{'tag' if option == 'tags' else option} {words}") from error
    return selectors if is_all or has_some else None


def _read_pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError(f"--metadata must be KEY=VALUE, not {text!r}")
        if pairs.setdefault(key, value) != value:
            raise InputError(
                f"--metadata {text!r}: no server has two values of one key; select each by a run of its own"
            )
    return pairs


async def select(access: Access, selectors: Selectors) -> list[Server]:
    """Find the servers that are selected.

    Raises:
        InputError: There is none; the cloud refuses us, or is not there.
    """
    with refusals_told():
        async with access.client() as client:
            servers = [server async for server in client.servers(**selectors)]
    if not servers:
        raise InputError("no server fits the selection; see what there is with bulkrestart servers --all")
    return servers
