"""What can be done next for one server. A decision is a value; the run performs it."""

from dataclasses import dataclass

from bulkrestart.core.model import Outcome, Proof, Reason, RebootType, Stop
from bulkrestart.core.observation import Answer


@dataclass(frozen=True, slots=True)
class Accept:
    """The reboot is the cloud's now.

    Attributes:
        request_id: The cloud's id of it, as the action log shows it; None if unknown.
        proof: Set where nothing more than the server's state can ever prove it.
    """

    request_id: str | None = None
    proof: Proof | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send it, for the first time or again.

    Attributes:
        reboot_type: What to ask for.
        delay: Seconds to wait at least.
        is_attempt: Whether the send before it counts against `max_attempts`.
    """

    reboot_type: RebootType
    delay: float = 0.0
    is_attempt: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Look at the server before anything is sent to it.

    Attributes:
        is_unresolved: The fate of the last send is unknown, so the action log is read as well.
        delay: Seconds to wait at least.
        is_attempt: Whether the send before it counts against `max_attempts`.
    """

    is_unresolved: bool
    delay: float = 0.0
    is_attempt: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """This is what became of it.

    Attributes:
        outcome: The outcome.
        reason: Why; None with the good outcomes.
        detail: The cloud's own words, or what was seen.
        proof: How a completed reboot is known.
        stop: The run sends to no other server.
    """

    outcome: Outcome
    reason: Reason | None = None
    detail: str = ""
    proof: Proof | None = None
    stop: Stop | None = None


Decision = Accept | Send | Look | End


def leaves_doubt(decision: Decision) -> bool:
    """Tell whether the fate of the last send is unknown after a decision."""
    return isinstance(decision, Look) and decision.is_unresolved


@dataclass(frozen=True, slots=True)
class Watch:
    """Not back yet: look again at the next poll."""


@dataclass(frozen=True, slots=True)
class Prove:
    """Back, by its state: read the row of its action."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """It ended in error, and HARD may follow: read in the action log whether the SOFT did.

    Attributes:
        failure: What became of it if none follows.
    """

    failure: End


@dataclass(frozen=True, slots=True)
class Unmet:
    """A user's check was not passed.

    Attributes:
        words: Why.
        is_final: To call it again is of no use.
    """

    words: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Everybody waits for so many seconds; None where the cloud did not say how long."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Ready:
    """It is the project's compute API, and it knows us.

    Attributes:
        refusal: What it said to the question that was asked, about which it is right.
    """

    refusal: Answer


@dataclass(frozen=True, slots=True)
class Again:
    """Ask once more before the run begins.

    Attributes:
        is_try: Whether this one counts against the tries; if not, the limiter makes it wait.
    """

    is_try: bool
