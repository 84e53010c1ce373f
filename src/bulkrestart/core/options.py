"""What a restart is asked to do, checked before anything is sent."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from bulkrestart.core.arguments import check_count, check_flag, check_seconds, check_verify
from bulkrestart.core.model import Outcome, RebootType, Verify
from bulkrestart.core.progress import Order
from bulkrestart.core.rollout import Rollout
from bulkrestart.core.stall import STALL_TIMEOUT

#: Seconds that a cancelled run still awaits the requests that are in flight.
DRAIN: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of a restart; `RestartClient.restart` documents them. Moments are in seconds since the epoch.

    Raises:
        ValueError: One of them makes no sense.
    """

    reboot_type: RebootType
    wait: bool
    max_attempts: int = 5
    request_timeout: float = 60.0
    server_timeout: float = 900.0
    wait_timeout: float = 600.0
    escalate: bool
    start_stopped: bool
    max_at_once: int
    verify: Verify | None = None
    verify_timeout: float = 300.0
    stall_timeout: float = STALL_TIMEOUT
    since: float | None = None
    deadline: float | None = None
    rollout: Rollout = field(default_factory=Rollout)

    def __post_init__(self) -> None:
        for name in ("max_attempts", "max_at_once"):
            check_count(name, getattr(self, name))
        for name in ("request_timeout", "server_timeout", "wait_timeout", "verify_timeout", "stall_timeout"):
            check_seconds(name, getattr(self, name))
        for name in ("wait", "escalate", "start_stopped"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.rollout, Rollout):
            raise ValueError(f"rollout must be a Rollout, not {self.rollout!r:.60}")
        if self.rollout.needs_wait and not self.wait:
            raise ValueError("rollout with a canary, waves, max_down or spread goes by servers that are back: wait too")
        check_verify(self.verify)
        if self.verify is not None and not self.wait:
            raise ValueError("verify needs wait: a server is verified when it is back; leave out the one or the other")
        longest, name = self._longest_patience
        # The default gives way to a longer time-out.
        if self.stall_timeout < longest and self.stall_timeout != STALL_TIMEOUT:
            raise ValueError(
                f"stall_timeout is {self.stall_timeout:g}, which is less than {name} ({longest:g}): "
                f"raise it, or lower {name}"
            )

    @property
    def longest_stall(self) -> float:
        """Seconds without progress after which the run stops; at least the longest time-out of a server."""
        return max(self.stall_timeout, self._longest_patience[0])

    @property
    def _longest_patience(self) -> tuple[float, str]:
        """The longest time-out of a server that applies, and the name of its option."""
        names = ["server_timeout", *(["wait_timeout"] if self.wait else [])]
        if self.verify is not None:
            names.append("verify_timeout")
        return max((getattr(self, name), name) for name in names)

    @property
    def goal(self) -> Outcome:
        """How far servers are to come: accepted, completed or verified."""
        if self.verify is not None:
            return Outcome.VERIFIED
        return Outcome.COMPLETED if self.wait else Outcome.ACCEPTED

    def order(self, run_began: float) -> Order:
        """Give what is asked for each server, in a run that began then, by its clock."""
        return Order(
            reboot_type=self.reboot_type,
            may_escalate=self.escalate,
            may_start=self.start_stopped,
            run_began=run_began,
        )

    @property
    def looks_ahead(self) -> bool:
        """All servers are looked at before any is sent to: a HARD would start a stopped one, and as admin bypass locks.

        With `since` each is looked at in its turn.
        """
        return self.reboot_type is RebootType.HARD and self.since is None


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
