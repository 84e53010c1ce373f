"""Makes the plan of a run: looks at its fleet, and sends no reboot."""

import random
from collections.abc import Mapping, Sequence

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.checkpoint import Checkpoint
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.observation import Unanswered
from bulkrestart.core.options import Options
from bulkrestart.core.plan import Cost, Forecast, Plan, draw_up, forecast
from bulkrestart.engine.limiter import RunLimiter
from bulkrestart.run.crew import unhurried
from bulkrestart.run.preflight import TRIES, Preflight, require_past
from bulkrestart.run.settle import SHORTEST_INTERVAL
from bulkrestart.run.survey import Survey
from bulkrestart.run.sweep import Sweep


async def make_plan(
    fleet: Sequence[str],
    options: Options,
    *,
    compute: Compute,
    limiter: RunLimiter,
    clock: CloudClock,
    rng: random.Random,
    max_per_second: float | None,
    checkpoints: Mapping[str, Checkpoint],
) -> Plan:
    """Make the plan of a run.

    Args:
        fleet: The ids, without duplicates.
        options: What is asked for.
        compute: The cloud.
        limiter: Limits its requests.
        clock: The cloud's time.
        rng: The source of jitter.
        max_per_second: Requests a second, at most; None: no bound.
        checkpoints: What a journal knows of them.

    Raises:
        AuthError: Our credentials are refused.
        EndpointError: Nothing answers, or something else than the compute API of the project; or `since` is yet to
            come by the cloud's clock; or it takes too long (`StalledError`).
    """
    sweep = Sweep(compute, limiter, clock, options.max_at_once, wait_timeout=options.wait_timeout)
    survey = Survey(sweep, options.rollout, keeps_states=True, is_thorough=True)
    former = {one.server_id: one.result() for one in checkpoints.values() if one.is_finished(options.goal)}
    left = [server_id for server_id in fleet if server_id not in former]
    if left:
        with limiter.stall.bounded():
            await Preflight(compute, limiter, rng).look(left[:TRIES])
            require_past(options.since, clock)
            await survey.read(fleet if options.rollout.spread is not None else left)
    waves = [
        rest
        for wave in options.rollout.waves(await survey.zones(fleet))
        if (rest := [server_id for server_id in wave if server_id not in former])
    ]
    numbers = {server_id: number for number, wave in enumerate(waves, 1) for server_id in wave}
    forecasts: list[Forecast] = []

    def expect(server_id: str) -> None:
        seen = survey.pop(server_id)
        forecasts.append(
            forecast(
                server_id,
                Unanswered("it was not shown") if seen is None else seen[0],
                wave=numbers[server_id],
                domain=survey.domain(server_id),
                options=options,
                is_sent=server_id in checkpoints and checkpoints[server_id].resume(options.order(0.0), now=0.0).is_sent,
            )
        )

    await unhurried(left, expect)
    cost = Cost(pages=sweep.pages, first_poll=SHORTEST_INTERVAL, max_per_second=max_per_second)
    return draw_up(forecasts, waves, options, cost, list(former.values()))
