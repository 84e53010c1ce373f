"""Permits: when they are granted, in which order, and that none is lost when a request is cancelled."""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest

from bulkrestart.engine.limiter import PER_TURN, RequestLimiter, RunLimiter
from bulkrestart.limits.admission import Admission
from bulkrestart.limits.permit import Priority

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def limiter_of(most: int) -> RunLimiter:
    """Return the limiter of the only run of a client."""
    return RunLimiter(RequestLimiter(Admission(most)), None)


async def hold(limiter: RunLimiter, end: anyio.Event, number: int, granted: list[int]) -> None:
    """Hold a permit until the end."""
    async with limiter.permit(Priority.SEND):
        granted.append(number)
        await end.wait()


async def settle() -> None:
    """Let all tasks go on until each waits for something."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


# Turns of the event loop.


@BACKENDS
def test_few_go_on_in_one_turn_of_the_loop(backend: str) -> None:
    """Of many requests that come together few leave in one turn of the event loop; all leave in the end."""

    async def main() -> None:
        limiter = limiter_of(100)
        gone: list[int] = []

        async def go(number: int) -> None:
            async with limiter.permit(Priority.SEND):
                gone.append(number)

        for first in (0, 100):
            async with anyio.create_task_group() as group:
                for number in range(first, first + 100):
                    group.start_soon(go, number)
                before = len(gone)
                for _ in range(400):
                    # A loop may take its tasks in any order: between two turns of this one are two of the others.
                    await anyio.lowlevel.checkpoint()
                    assert len(gone) - before <= 2 * PER_TURN
                    before = len(gone)
        assert sorted(gone) == list(range(200))

    anyio.run(main, backend=backend)


@BACKENDS
@pytest.mark.parametrize("after", range(5))
def test_a_cancelled_request_leaves_its_turn_to_others(backend: str, after: int) -> None:
    """Whenever requests are cancelled, before or after their turn of the loop has come, all others leave."""

    async def main() -> None:
        limiter = limiter_of(7)
        gone: list[int] = []
        scopes = [anyio.CancelScope() for _ in range(200)]

        async def go(number: int) -> None:
            with scopes[number]:
                async with limiter.permit(Priority.SEND):
                    gone.append(number)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(go, number)
            for _ in range(after):
                await anyio.lowlevel.checkpoint()
            for scope in scopes[::3]:
                scope.cancel()
        assert {number for number in range(200) if number % 3} <= set(gone)
        assert len(gone) == len(set(gone))
        assert limiter.requests.admission.in_flight == limiter.flow.in_flight == 0

    anyio.run(main, backend=backend)


# Places that become free.


async def cancel_at_once(scope: anyio.CancelScope, end: anyio.Event) -> None:
    """Cancel a request before the place that it waits for is free."""
    scope.cancel()
    end.set()


async def cancel_together(scope: anyio.CancelScope, end: anyio.Event) -> None:
    """Wake a request and cancel it in the same turn of the loop."""
    end.set()
    await anyio.lowlevel.checkpoint()
    scope.cancel()


async def cancel_after(scope: anyio.CancelScope, end: anyio.Event) -> None:
    """Cancel a request that has its permit."""
    end.set()
    await settle()
    scope.cancel()


async def cancel_while_it_waits(scope: anyio.CancelScope, end: anyio.Event) -> None:
    """Cancel a request, and free the place when it is gone."""
    scope.cancel()
    await settle()
    end.set()


@BACKENDS
@pytest.mark.parametrize("cancel", [cancel_at_once, cancel_together, cancel_after, cancel_while_it_waits])
def test_a_cancelled_request_passes_its_wake_up_on(
    backend: str, cancel: Callable[[anyio.CancelScope, anyio.Event], Awaitable[None]]
) -> None:
    """If the first that waits is cancelled around the time it is woken, the second gets the place."""

    async def main() -> None:
        limiter = limiter_of(1)
        granted: list[int] = []
        ends = [anyio.Event() for _ in range(3)]
        scope = anyio.CancelScope()

        async def first() -> None:
            with scope:
                await hold(limiter, ends[1], 1, granted)

        with anyio.fail_after(5.0):
            async with anyio.create_task_group() as group:
                group.start_soon(hold, limiter, ends[0], 0, granted)
                await settle()
                group.start_soon(first)
                await settle()
                group.start_soon(hold, limiter, ends[2], 2, granted)
                await settle()
                assert granted == [0]
                await cancel(scope, ends[0])
                await settle()
                assert granted[-1] == 2
                ends[2].set()
        assert limiter.requests.admission.in_flight == limiter.flow.in_flight == 0

    anyio.run(main, backend=backend)


@BACKENDS
@pytest.mark.parametrize("priority", Priority)
def test_a_look_leaves_before_sends_that_wait(backend: str, priority: Priority) -> None:
    """The next free place is for the look, although sends came before it; a send waits behind them."""

    async def main() -> None:
        limiter = limiter_of(1)
        granted: list[str] = []
        end = anyio.Event()

        async def take(name: str, priority: Priority) -> None:
            async with limiter.permit(priority):
                granted.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(partial(hold, limiter, end, 0, []))
            await settle()
            for number in range(3):
                group.start_soon(take, f"send {number}", Priority.SEND)
                await settle()
            group.start_soon(take, "last", priority)
            await settle()
            end.set()
        sends = [f"send {number}" for number in range(3)]
        assert granted == (["last", *sends] if priority is Priority.LOOK else [*sends, "last"])

    anyio.run(main, backend=backend)
