"""How a run spreads over a fleet, and when it stops itself: waves, budgets, and what may be down at once.

Law: budgets count over the whole run, a resumed one as well, and a percentage is of its servers, each counted once.
"""

import re
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from inspect import iscoroutinefunction
from math import floor
from typing import Final, Literal

from bulkrestart.core.arguments import check_count, check_seconds
from bulkrestart.core.model import Outcome, Reason, Server, ServerResult, Stop, StopReason
from bulkrestart.core.report import Report

#: A number of servers, or a percentage of the fleet: 50, "10%", "0.5%".
Share = int | str
#: Decides between two waves, by the report so far: True goes on, False stops the run.
Pause = Callable[[Report], Awaitable[bool]]
#: Names the failure domain of a server; None for none.
Domain = Callable[[Server], Hashable | None]

#: `max_down` as large as the failures that are still allowed.
BUDGET: Final = "budget"
_PERCENTAGE: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?) ?%", re.ASCII)
_WHOLE: Final = 100
#: Budgets that were not given: a percentage of the fleet, and what they are at least, for a small one.
_FAILURES: Final = ("5%", 5)
_REFUSED: Final = ("10%", 20)

#: Reasons that are about the cloud, about us or about the run, and not about the server.
NOT_ABOUT_SERVER: Final = frozenset(
    {
        *(Reason.UNREACHABLE, Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.WRONG_ENDPOINT),
        *(Reason.HISTORY_UNREADABLE, Reason.STOPPED, Reason.NOT_STARTED, Reason.PARKED, Reason.HELD_BACK),
        Reason.INTERRUPTED,
    }
)
#: Reasons of a server that was tried until its attempts or its time were used up. The server or the cloud is the cause.
EXHAUSTED: Final = frozenset({Reason.BUSY, Reason.ATTEMPTS_EXHAUSTED})
#: Servers that were exhausted together before the cloud counts as the cause.
_SEVERAL: Final = 3
#: Failures of servers that are up, or are no more: nothing is gained by holding others back for them.
_NOT_DOWN: Final = frozenset({Reason.NOT_REBOOTED, Reason.GONE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How a restart spreads over its fleet. As it is, all servers are one wave, and the two budgets alone stop it.

    A share is a number of servers, or a percentage of the fleet such as "10%", rounded down.

    Attributes:
        canary: The first so many servers are a wave of their own; 0: none are.
        wave: The share that is restarted before the next wave begins, at least one server. It begins when every server
            of the last one has its outcome. None: the rest of the fleet is one wave.
        pause: Seconds between two waves; or an async function that is given the report so far, and returns whether to
            go on (True) or to stop the run (False). What it raises stops the run as well.
        max_down: The share that may be down at once, at least one server: being restarted, or not come back. A server
            that failed so that it is down, or is in doubt, keeps its place to the end of this call; when no place is
            left that can become free, the run stops. One that is waited for because it is busy has its place as well.
            "budget": never more than `max_failures` + 1 - failures so far,
            so that no more than `max_failures` + 1 servers can ever fail. None: no bound (`max_at_once` bounds
            requests, not servers that are down).
        max_failures: The share that may come to harm (`failed` or `in_doubt`). One more, and nothing new is sent; so
            0 stops at the first. None: 5 %, or 5 servers if that is more.
        max_refused: The share that may be left out by themselves (`refused` or `skipped`: not found, locked, in a
            wrong state): many of them mean a wrong list. None: 10 %, or 20 servers if that is more. Neither budget
            counts what the cloud does to all servers: `unreachable`, `unauthorized`, `forbidden`, `wrong_endpoint`,
            `history_unreadable`; and `busy` and `attempts_exhausted` of three or more servers that were tried while
            none was accepted or came back.
        spread: "az": one availability zone after the other. "host": at most one server of a physical host down at
            once. A function of a `Server`: at most one down at once of those for which it returns the same value;
            None leaves a server free. Where such a one does not come back, the others of its domain are skipped
            (`held_back`). The fleet is listed before anything is sent.

    Raises:
        ValueError: One of them makes no sense.
    """

    canary: int = 0
    wave: Share | None = None
    pause: float | Pause = 0.0
    max_down: Share | None = None
    max_failures: Share | None = None
    max_refused: Share | None = None
    spread: Literal["az", "host"] | Domain | None = None

    def __post_init__(self) -> None:
        check_count("canary", self.canary, least=0)
        _check_share("wave", self.wave, least=1)
        if self.max_down != BUDGET:
            _check_share("max_down", self.max_down, least=1, besides=', or "budget"')
        _check_share("max_failures", self.max_failures, least=0)
        _check_share("max_refused", self.max_refused, least=0)
        if not callable(self.pause) and self.pause != 0:
            check_seconds("pause", self.pause)
        if self.pause != 0 and not (self.canary or self.wave is not None or self.spread == "az"):
            raise ValueError('pause is between waves, and there is one: give canary, wave or spread="az" too')
        is_function = callable(self.spread) and not iscoroutinefunction(self.spread)
        if not (self.spread is None or is_function or self.spread in ("az", "host")):
            raise ValueError(f'spread must be "az", "host" or a plain function of a Server, not {self.spread!r:.60}')

    @property
    def needs_wait(self) -> bool:
        """It goes by servers that come back."""
        return bool(self.canary) or not (self.wave is None and self.max_down is None and self.spread is None)

    @property
    def domain(self) -> Domain | None:
        """What keeps servers of one domain from being down together; None: nothing does."""
        if self.spread == "host":
            return lambda server: server.host_id or None
        return self.spread if callable(self.spread) else None

    def failures_allowed(self, fleet: int) -> int:
        """Tell how many servers of a fleet of this size may come to harm."""
        return _allowed(self.max_failures, _FAILURES, fleet)

    def refusals_allowed(self, fleet: int) -> int:
        """Tell how many may be left out by themselves."""
        return _allowed(self.max_refused, _REFUSED, fleet)

    def places(self, fleet: int) -> int | None:
        """Tell how many may be down at once; None: no bound."""
        if self.max_down is None:
            return None
        return self.failures_allowed(fleet) + 1 if self.max_down == BUDGET else max(1, _count(self.max_down, fleet))

    def waves(self, zones: Sequence[Sequence[str]]) -> list[Sequence[str]]:
        """Cut a fleet into waves. None reaches over two zones, and the canary is of the first.

        Args:
            zones: The ids of the servers, zone by zone; without zones, all of them as one.
        """
        fleet = sum(map(len, zones))
        step = max(1, fleet if self.wave is None else _count(self.wave, fleet))
        waves: list[Sequence[str]] = []
        canary = self.canary
        for zone in filter(None, zones):
            if canary:
                waves.append(zone[:canary])
            waves.extend(zone[start : start + step] for start in range(canary, len(zone), step))
            canary = 0
        return waves


class Budgets:
    """Counts harm and refusals, each against its own budget.

    Args:
        rollout: The budgets.
        fleet: How many servers there are.
    """

    def __init__(self, rollout: Rollout, fleet: int) -> None:
        self._most_failures = rollout.failures_allowed(fleet)
        self._most_refused = rollout.refusals_allowed(fleet)
        self._failures = 0
        self._refused = 0

    def note(self, result: ServerResult) -> Stop | None:
        """Count an outcome; give the reason to stop if it is one too many."""
        self._failures += is_harm(result)
        self._refused += is_refusal(result)
        if self._failures > self._most_failures:
            words = f"{servers(self._failures)} failed or in doubt, and max_failures is {self._most_failures}"
            return Stop(StopReason.MAX_FAILURES, f"{words}: see to them first, or allow for more")
        if self._refused > self._most_refused:
            words = f"{servers(self._refused)} refused or skipped, and max_refused is {self._most_refused}"
            return Stop(StopReason.MAX_REFUSED, f"{words}: is it the right list? If so, allow for more")
        return None


def servers(count: int) -> str:
    """Say how many servers."""
    return f"{count} server{'' if count == 1 else 's'}"


def is_about_server(result: ServerResult, *, exhausted: int) -> bool:
    """Return whether an outcome is about the server, and not about the cloud or the run.

    If several servers were tried until their attempts or their time were used up, and none made progress meanwhile, the
    cloud refuses all of them. A canary that is tried alone is about itself.

    Args:
        result: The outcome.
        exhausted: Servers that were exhausted so far, this one among them; 0 if a server was accepted, came back, or
            got an outcome of its own since this one began.
    """
    if result.reason in EXHAUSTED:
        return exhausted < _SEVERAL
    return result.reason not in NOT_ABOUT_SERVER


def is_harm(result: ServerResult) -> bool:
    """Tell whether a server was sent to, and is not known to be well."""
    return result.outcome in (Outcome.FAILED, Outcome.IN_DOUBT)


def is_refusal(result: ServerResult) -> bool:
    """Tell whether a server was left out for what it is, and not because the run stopped or held it back."""
    is_ours = result.reason in (Reason.STOPPED, Reason.NOT_STARTED, Reason.PARKED, Reason.HELD_BACK)
    return result.outcome in (Outcome.REFUSED, Outcome.SKIPPED) and not is_ours


def stays_down(result: ServerResult) -> bool:
    """Tell whether a server that has its outcome may be down for all that is known."""
    return is_harm(result) and result.reason not in _NOT_DOWN


def _check_share(name: str, value: object, *, least: int, besides: str = "") -> None:
    match value:
        case None:
            return
        case str():
            percent = _percent(value)
            # Of what cannot be nothing, 0 % would be one server.
            is_good = percent is not None and percent <= _WHOLE and (percent > 0 or least == 0)
        case _:
            is_good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not is_good:
        shape = f'a whole number from {least} up, or a percentage such as "10%"{besides}'
        raise ValueError(f"{name} must be {shape}, not {value!r:.60}")


def _percent(text: str) -> Decimal | None:
    percentage = _PERCENTAGE.fullmatch(text)
    return None if percentage is None else Decimal(percentage[1])


def _allowed(given: Share | None, default: tuple[str, int], fleet: int) -> int:
    if given is not None:
        return _count(given, fleet)
    percentage, least = default
    return max(_count(percentage, fleet), least)


def _count(share: Share, fleet: int) -> int:
    percent = _percent(share) if isinstance(share, str) else None
    return int(share) if percent is None else floor(percent * fleet / _WHOLE)
