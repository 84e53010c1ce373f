"""Of many that are ready at once few go on in one turn of the event loop, and nobody is left behind."""

import anyio
import pytest

from bulkrestart.run.turnstile import PASSING, Turnstile


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_few_go_on_in_one_turn_of_the_loop(backend: str) -> None:
    """Of many that come together so many go on in a turn of the loop, and each has its turn; so do those after them."""

    async def main() -> None:
        turnstile = Turnstile()
        gone: list[int] = []

        async def go(number: int) -> None:
            await turnstile.wait()
            gone.append(number)

        for first in (0, 100):
            async with anyio.create_task_group() as group:
                for number in range(first, first + 100):
                    group.start_soon(go, number)
                before = len(gone)
                for _ in range(200):
                    # A loop may take its tasks in any order: between two turns of this one are two of the others.
                    await anyio.lowlevel.checkpoint()
                    assert len(gone) - before <= 2 * PASSING
                    before = len(gone)
        assert sorted(gone) == list(range(200))

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_who_is_cancelled_leaves_the_turns_to_others(backend: str) -> None:
    """Whoever gives up while waiting, or as his turn comes, takes nobody else's turn away."""

    async def main() -> None:
        turnstile = Turnstile()
        gone: list[int] = []

        async def go(number: int) -> None:
            with anyio.CancelScope() as scope:
                if number % 3 == 0:
                    scope.cancel()
                await turnstile.wait()
                gone.append(number)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(go, number)
        assert {number for number in range(200) if number % 3} <= set(gone)
        assert len(gone) == len(set(gone))

    anyio.run(main, backend=backend)
