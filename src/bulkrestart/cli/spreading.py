"""How the command line spreads a restart over its fleet: what was given, and what stands for what was not."""

from dataclasses import dataclass
from typing import Final, Literal

from bulkrestart.cli.ask import ASKS_OVER
from bulkrestart.cli.errors import InputError, options_checked
from bulkrestart.core.rollout import BUDGET, Rollout, Share

#: Over as many servers as are asked about: one goes first, and no more than so many are down at once.
_CANARY: Final = 1
_MAX_DOWN: Final = 50
#: As many as no number of servers has.
_DIGITS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Spreading:
    """The options of a rollout; None for what was not given. They mean what `Rollout` says."""

    canary: int | None
    wave: Share | None
    pause: float
    max_down: Share | None
    max_failures: Share | None
    max_refused: Share | None
    spread: Literal["az", "host"] | None
    wait: bool

    def over(self, servers: int) -> Rollout:
        """Give the rollout over a fleet of this size.

        Raises:
            InputError: It makes no sense.
        """
        is_large = servers > ASKS_OVER and self.wait
        canary, max_down = self.canary, self.max_down
        if canary is None:
            canary = _CANARY if is_large else 0
        if max_down is None and is_large:
            max_down = _MAX_DOWN
        with options_checked():
            return Rollout(
                canary=canary,
                wave=self.wave,
                pause=self.pause,
                max_down=max_down,
                max_failures=self.max_failures,
                max_refused=self.max_refused,
                spread=self.spread,
            )


def read_spreading(
    *,
    canary: int | None,
    wave: str | None,
    pause: float,
    max_down: str | None,
    max_failures: str | None,
    max_refused: str | None,
    spread: str | None,
    wait: bool,
) -> Spreading:
    """Read the options of a rollout.

    Raises:
        InputError: One of them makes no sense.
    """
    if not wait and (canary or any(one is not None for one in (wave, max_down, spread))):
        raise InputError("--canary, --wave, --max-down and --spread go by servers that are back: leave out --no-wait")
    if pause < 0:
        raise InputError(f"--pause must be a number of seconds from 0 up, not {pause}")
    spreading = Spreading(
        canary=canary,
        wave=_share(wave),
        pause=pause,
        max_down=_share(max_down),
        max_failures=_share(max_failures),
        max_refused=_share(max_refused),
        spread=_read_spread(spread),
        wait=wait,
    )
    # As over a fleet that has waves: whether there are some, its size tells.
    spreading.over(ASKS_OVER + 1)
    return spreading


def _share(text: str | None) -> Share | None:
    if text is None:
        return None
    if text.lower() == BUDGET:
        return BUDGET
    # Python refuses to read a number of too many digits (4,300), and no fleet has so many servers.
    is_number = text.isascii() and text.isdigit() and len(text) < _DIGITS
    return int(text) if is_number else text


def _read_spread(text: str | None) -> Literal["az", "host"] | None:
    match text.lower() if text is not None else None:
        case None:
            return None
        case "az":
            return "az"
        case "host":
            return "host"
        case _:
            raise InputError(f"--spread must be az or host, not {text!r:.60}")
