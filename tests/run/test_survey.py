"""The first look at all servers: what counts as progress of a list."""

from collections.abc import Callable, Collection

import pytest

from bulkrestart.core.model import Server
from bulkrestart.core.observation import Observation
from bulkrestart.core.rollout import Rollout
from bulkrestart.run.survey import Survey

Take = Callable[[str, Server | Observation, float], None]


class _Repeating:
    """Reads of a list that shows each server twice."""

    async def read(self, server_ids: Collection[str], take: Take, *, is_for_send: bool) -> None:
        """Show each server twice."""
        for server_id in [*server_ids, *server_ids]:
            take(server_id, Server(id=server_id, status="ACTIVE", vm_state="active"), 0.0)


@pytest.mark.asyncio
async def test_a_server_that_is_shown_again_is_no_progress() -> None:
    """A list without an end would otherwise advance for ever, and the run would never stop as stalled."""
    advances = 0

    def advance() -> None:
        nonlocal advances
        advances += 1

    survey = Survey(_Repeating(), Rollout(), keeps_states=True, advance=advance)  # type: ignore[arg-type]
    await survey.read(["a", "b"])
    assert advances == 2
    assert survey.pop("a") is not None
