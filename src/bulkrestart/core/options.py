"""What a restart is asked to do, checked before anything is sent."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bulkrestart.core.model import RebootType

#: Seconds that a cancelled run still awaits the requests that are in flight.
DRAIN: Final = 10.0
#: Requests a second: fewer would never come to an end.
_SLOWEST: Final = 1.0 / 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of a restart; `RestartClient.restart` documents them. Moments are in seconds since the epoch.

    Raises:
        ValueError: One of them makes no sense.
    """

    reboot_type: RebootType
    wait: bool
    max_attempts: int
    request_timeout: float
    server_timeout: float
    wait_timeout: float
    escalate: bool
    start_stopped: bool
    max_at_once: int
    since: float | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_attempts", "max_at_once"):
            check_count(name, getattr(self, name))
        for name in ("request_timeout", "server_timeout", "wait_timeout"):
            check_seconds(name, getattr(self, name))
        for name in ("wait", "escalate", "start_stopped"):
            check_flag(name, getattr(self, name))


def parse_reboot_type(value: str) -> RebootType:
    """Read "SOFT" or "HARD", in any case.

    Raises:
        ValueError: It is neither.
    """
    try:
        return RebootType(value.upper())
    except (ValueError, AttributeError):
        raise ValueError(f'reboot_type must be "SOFT" or "HARD", not {value!r}') from None


def parse_since(value: object, now: float) -> float | None:
    """Read a moment of the past.

    Args:
        value: A `datetime` with a zone; None for none.
        now: The present, in seconds since the epoch.

    Returns:
        Seconds since the epoch.

    Raises:
        ValueError: It has no zone, or is yet to come.
    """
    since = _parse_moment("since", value)
    if since is not None and since > now:
        raise ValueError(f"since must be a moment of the past, not {value}: nothing can have rebooted after it")
    return since


def parse_deadline(value: object, now: float) -> float | None:
    """Read a moment that is yet to come; the rest is as in `parse_since`."""
    deadline = _parse_moment("deadline", value)
    if deadline is not None and deadline <= now:
        raise ValueError(f"deadline must be a moment that is yet to come, not {value}")
    return deadline


def _parse_moment(name: str, value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise ValueError(f"{name} must be a datetime with a zone, not {value!r:.60}")
    if value.utcoffset() is None:
        raise ValueError(
            f"{name} must have a zone: {value.isoformat()} is another moment in each; add one, such as UTC"
        )
    try:
        datetime.fromtimestamp(value.timestamp(), UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} must be a moment between the years 1 and 9999 in UTC, not {value}") from None
    return value.timestamp()


def check_count(name: str, value: object) -> None:
    """Refuse what is not a whole number from 1 up."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 up, not {value!r}")


def check_seconds(name: str, value: object) -> None:
    """Refuse what is not a positive, finite number; a whole number may be too large for a float."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r:.40}")


def check_rate(name: str, value: object) -> None:
    """Refuse what is neither None nor a finite number of requests a second, from one a day up."""
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not _SLOWEST <= value <= sys.float_info.max:
        raise ValueError(
            f"{name} must be a number of requests a second, one a day at least, or None for no bound, not {value!r:.40}"
        )


def check_flag(name: str, value: object) -> None:
    """Refuse what is not a bool: "no" would count as yes."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")
