"""What a restart would do: its waves, what is to be expected of each server, and what it takes at the least."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from bulkrestart.core.decision import Decision, End, Send
from bulkrestart.core.look import decide_look
from bulkrestart.core.model import Reason, RebootType, Server, ServerResult
from bulkrestart.core.observation import Observation, Sighting
from bulkrestart.core.options import Options
from bulkrestart.core.progress import Progress
from bulkrestart.core.rollout import NOT_ABOUT_SERVER, is_harm, is_refusal
from bulkrestart.core.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is to be expected of one server, as it was seen when the plan was made.

    Attributes:
        server_id: The server.
        name: Its name, "" where it was not seen.
        wave: The number of its wave, from 1 up.
        domain: Its failure domain in words, or its zone where the run goes by zones; "" for none.
        reboot_type: What would be asked for first; HARD where that is an escalation.
        reason: Why it would not be sent to, or not at once: `not_found`, `locked`, `wrong_state` (stopped, paused,
            ...), `busy` (in a passing task, or its state is not known now), `in_flight` (a former process has sent to
            it, and it is followed); None: it would be.
        detail: Its states, or what came instead of them.
    """

    server_id: str
    name: str
    wave: int
    domain: str
    reboot_type: RebootType
    reason: Reason | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run is reckoned by.

    Attributes:
        pages: Requests for a look at all servers.
        first_poll: Seconds until the first poll of a wave, at the least.
        max_per_second: Requests a second, at most; None: no bound.
    """

    pages: int
    first_poll: float
    max_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a restart would do. Nothing was sent.

    Attributes:
        forecasts: What is to be expected of each server, in the order in which the ids were given.
        waves: The ids of each wave.
        max_down: How many servers may be down at once; None: no bound.
        max_failures: How many may come to harm.
        max_refused: How many may be left out by themselves.
        failures: How many have come to harm in a former process.
        refused: How many were left out by themselves in a former process.
        requests: How many requests the run makes if all goes well, at the least.
        seconds: How long it takes at the least: pauses, polls and the pace of requests, and not the reboots themselves.
        target: The project of the servers; None if the plan was made without a client.
    """

    forecasts: tuple[Forecast, ...]
    waves: tuple[tuple[str, ...], ...]
    max_down: int | None
    max_failures: int
    max_refused: int
    failures: int
    refused: int
    requests: int
    seconds: float
    target: Target | None = None

    @cached_property
    def expected(self) -> dict[Reason | None, int]:
        """How many servers would not be sent to at once, and why; None: those that would."""
        counts = Counter(forecast.reason for forecast in self.forecasts)
        return {reason: counts[reason] for reason in (None, *Reason) if counts[reason]}

    @property
    def refusals(self) -> int:
        """How many servers are expected to be left out by themselves."""
        others = (None, Reason.BUSY, Reason.IN_FLIGHT, *NOT_ABOUT_SERVER)
        return sum(one.reason not in others for one in self.forecasts)

    @property
    def is_to_stop(self) -> bool:
        """The run would stop itself before its end, unless servers fare better than is expected."""
        is_over_budget = self.failures > self.max_failures or self.refused + self.refusals > self.max_refused
        return is_over_budget and bool(self.forecasts)

    def to_dict(self) -> dict[str, object]:
        """Give the plan as plain values that `json.dumps` takes."""
        return {
            "expected": {str(reason or "sent"): count for reason, count in self.expected.items()},
            "waves": [len(wave) for wave in self.waves],
            "max_down": self.max_down,
            "max_failures": self.max_failures,
            "max_refused": self.max_refused,
            "failures": self.failures,
            "refused": self.refused,
            "refusals": self.refusals,
            "is_to_stop": self.is_to_stop,
            "requests": self.requests,
            "seconds": self.seconds,
            "servers": [asdict(forecast) for forecast in self.forecasts],
            "target": None if self.target is None else asdict(self.target),
        }

    def __str__(self) -> str:
        counts = [
            f"{count} {'to send to' if reason is None else reason.replace('_', ' ')}"
            for reason, count in self.expected.items()
        ]
        waves = f"{len(self.waves)} wave{'' if len(self.waves) == 1 else 's'}"
        return (
            f"{', '.join(counts) or 'no servers'} in {waves}: "
            f"at least {self.requests} requests and {self.seconds:.0f} s besides the reboots"
        )


def forecast(
    server_id: str,
    seen: Server | Observation,
    *,
    wave: int,
    domain: Hashable | None,
    options: Options,
    is_sent: bool = False,
) -> Forecast:
    """Tell what the second table says of a server that nothing was sent to.

    Args:
        server_id: The server.
        seen: What was seen of it, or what came instead.
        wave: The number of its wave.
        domain: Its failure domain; None for none.
        options: What is asked for.
        is_sent: A former process has sent to it: it is followed.
    """
    progress = Progress(
        server_id=server_id,
        order=options.order(0.0),
        reboot_type=options.reboot_type,
    )
    decision = decide_look(Sighting(server=seen, log=None, at=0.0), progress)
    return Forecast(
        server_id=server_id,
        name=seen.name if isinstance(seen, Server) else "",
        wave=wave,
        domain="" if domain is None else str(domain),
        reboot_type=decision.reboot_type if isinstance(decision, Send) else options.reboot_type,
        reason=Reason.IN_FLIGHT if is_sent else _reason_of(decision),
        detail=seen.words,
    )


def _reason_of(decision: Decision) -> Reason | None:
    if isinstance(decision, Send):
        return None
    return decision.reason if isinstance(decision, End) else Reason.BUSY


def draw_up(
    forecasts: Sequence[Forecast],
    waves: Sequence[Sequence[str]],
    options: Options,
    cost: Cost,
    former: Sequence[ServerResult] = (),
) -> Plan:
    """Draw up a plan.

    Args:
        forecasts: What is to be expected of each server with which something is left to do, in the order given.
        waves: Their ids, wave by wave.
        options: What is asked for.
        cost: What polls and requests take.
        former: What became of the servers that a former process finished.
    """
    rollout, fleet = options.rollout, len(forecasts) + len(former)
    requests = _requests(forecasts, waves, options, cost)
    pause = 0.0 if callable(rollout.pause) else rollout.pause
    polling = len(waves) * cost.first_poll if options.wait else 0.0
    pacing = 0.0 if cost.max_per_second is None else requests / cost.max_per_second
    return Plan(
        forecasts=tuple(forecasts),
        waves=tuple(map(tuple, waves)),
        max_down=rollout.places(fleet),
        max_failures=rollout.failures_allowed(fleet),
        max_refused=rollout.refusals_allowed(fleet),
        failures=sum(map(is_harm, former)),
        refused=sum(map(is_refusal, former)),
        requests=requests,
        seconds=max(polling, pacing) + pause * max(0, len(waves) - 1),
    )


def _requests(forecasts: Sequence[Forecast], waves: Sequence[Sequence[str]], options: Options, cost: Cost) -> int:
    """Count one request to find the cloud, the survey, a send for each server, polls by wave, and proofs."""
    sent = sum(one.reason is Reason.IN_FLIGHT for one in forecasts)
    going = sum(one.reason in (None, Reason.BUSY) for one in forecasts)
    # A SOFT learns by its answer that it is refused.
    sends = going if options.looks_ahead else len(forecasts) - sent
    requests = 1 + sends
    if options.looks_ahead or options.rollout.spread is not None:
        requests += min(cost.pages, len(forecasts))
    if options.since is not None:
        requests += len(forecasts)
    if options.wait:
        requests += sum(min(cost.pages, len(wave)) for wave in waves) + going + sent
    return requests
