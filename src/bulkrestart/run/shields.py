"""Keeps what is in flight from being cancelled."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Shields:
    """Up around each send, until there is a bound to that.

    A request that is abandoned leaves a server whose fate is unknown, so a cancelled run awaits its requests until
    `bound` gives them a deadline. Native asyncio cancellation does not reach a child task, so a shield holds there, and
    only there.
    """

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self._deadline = float("inf")

    @contextmanager
    def up(self) -> Iterator[anyio.CancelScope]:
        """Shield what is awaited within."""
        with anyio.CancelScope(shield=True, deadline=self._deadline) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def bound(self, deadline: float) -> None:
        """End every shield at the deadline."""
        self._deadline = deadline
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, deadline)
