"""Makes the plan of a run: looks at its fleet, and sends no reboot."""

import random
from collections.abc import Sequence

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.clock import CloudClock
from bulkrestart.core.observation import Unanswered
from bulkrestart.core.options import Options
from bulkrestart.core.plan import Cost, Plan, draw_up
from bulkrestart.run.gate import Gate
from bulkrestart.run.preflight import Preflight
from bulkrestart.run.settle import SHORTEST_INTERVAL
from bulkrestart.run.survey import Survey
from bulkrestart.run.sweep import Sweep


async def make_plan(
    fleet: Sequence[str],
    options: Options,
    *,
    compute: Compute,
    gate: Gate,
    clock: CloudClock,
    rng: random.Random,
    max_per_second: float | None,
) -> Plan:
    """Make the plan of a run.

    Args:
        fleet: The ids, without duplicates.
        options: What is asked for.
        compute: The cloud.
        gate: The way to it.
        clock: The cloud's time.
        rng: The source of jitter.
        max_per_second: Requests a second, at most; None: no bound.

    Raises:
        AuthError: Our credentials are refused.
        EndpointError: Nothing answers, or something else than the compute API of the project.
    """
    sweep = Sweep(compute, gate, clock, options.max_at_once)
    survey = Survey(sweep, options.rollout, keeps_states=True, is_thorough=True)
    if fleet:
        await Preflight(compute, gate, rng).look(fleet[0])
        await survey.read(fleet)
    unseen = Unanswered("it was not shown"), anyio.current_time()
    seen = {server_id: (survey.pop(server_id) or unseen)[0] for server_id in fleet}
    domains = {server_id: domain for server_id in fleet if (domain := survey.domain(server_id)) is not None}
    waves = options.rollout.waves(survey.zones(fleet))
    cost = Cost(pages=sweep.pages, first_poll=SHORTEST_INTERVAL, max_per_second=max_per_second)
    return draw_up(fleet, waves, seen, domains, options, cost)
