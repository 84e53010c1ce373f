"""Which servers a restart is about: those of its journal, those that are named, or those that are selected."""

from collections.abc import Sequence
from dataclasses import dataclass

from bulkrestart.cli.access import Access
from bulkrestart.cli.ids import IdsFormat, gather_ids
from bulkrestart.cli.loop import run_before_sending
from bulkrestart.cli.select import Selectors, select
from bulkrestart.cli.streams import Streams
from bulkrestart.core.checkpoint import Contents
from bulkrestart.core.model import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A fleet.

    Attributes:
        ids: The servers, each once.
        to_do: Those with which something is left to do.
    """

    ids: Sequence[str]
    to_do: Sequence[str]

    @classmethod
    def untouched(cls, ids: Sequence[str]) -> "Chosen":
        """Give a fleet with which everything is left to do."""
        return cls(ids=ids, to_do=ids)


def choose(
    *,
    arguments: Sequence[str],
    sources: Sequence[str],
    ids_format: IdsFormat,
    ids_column: str | None,
    selectors: Selectors | None,
    contents: Contents | None,
    goal: Outcome,
    access: Access,
    streams: Streams,
) -> Chosen:
    """Find the fleet. That of a journal stands: nothing is selected again.

    Args:
        arguments: Ids from the command line.
        sources: Files of ids.
        ids_format: The format of those files.
        ids_column: The column that holds the ids; None for "id".
        selectors: What servers are selected by; None if they are not.
        contents: What the journal holds; None if its run has not begun.
        goal: How far the servers are to come.
        access: The way in.
        streams: Where to say what is not as it may seem.

    Raises:
        InputError: There are no servers, or they cannot be read.
    """
    if contents is None and selectors is not None:
        return Chosen.untouched([server.id for server in run_before_sending(select(access, selectors))])
    if contents is None or arguments or sources:
        ids, duplicates = gather_ids(arguments, sources, ids_format=ids_format, column=ids_column)
        if duplicates:
            streams.warn(f"{duplicates} of the ids given are duplicates; each server is restarted once")
    else:
        ids = list(contents.ids)
        if selectors is not None:
            streams.warn(f"the fleet is that of the journal, {len(ids)} servers: none are selected again")
    checkpoints = {} if contents is None else contents.checkpoints
    to_do = [id_ for id_ in ids if id_ not in checkpoints or not checkpoints[id_].is_finished(goal)]
    return Chosen(ids=ids, to_do=to_do)
