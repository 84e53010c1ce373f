"""Whose trouble an answer shows, or the lack of one: the cloud's or one server's; and when a run waits no longer."""

from bulkrestart.core.decide import hold_for
from bulkrestart.core.model import Stop, StopReason
from bulkrestart.core.observation import EXECUTING, POSTPONED, Answer, Observation, Unanswered, Unsent


def is_rate_signal(seen: Observation) -> bool:
    """Return whether an answer says that there are too many requests; such an answer is about all of them."""
    return isinstance(seen, Answer) and (seen.is_throttled or is_postponed(seen))


def is_overload(seen: Observation) -> bool:
    """Return whether an answer, or the lack of one, may come from an overloaded cloud. It may also be one server's."""
    match seen:
        case Unsent():
            return False
        case Unanswered():
            return seen.may_come_late
        case Answer():
            return (seen.may_come_late or seen.status == 503) and not is_rate_signal(seen)


def is_trouble(seen: Observation) -> bool:
    """Tell whether an answer, or the lack of one, may be the trouble of the cloud: it says nothing of the question."""
    if isinstance(seen, Unsent):
        return not seen.is_local
    if not isinstance(seen, Answer):
        return True
    # A 501 is no outage: the feature is missing, and stays so.
    is_in_trouble = (seen.status >= 500 and seen.status != 501) or seen.status == 408
    return is_in_trouble and not seen.is_throttled and not seen.fault.has_code(EXECUTING)


def may_lie_in_server(trouble: Observation) -> bool:
    """Tell whether one server may be to blame for a trouble: for Nova's own 500, and for what never came back.

    What never left never got as far as a server, and a gateway that has nobody to ask says 502 or 503.
    """
    match trouble:
        case Unsent():
            return False
        case Unanswered():
            return True
        case Answer():
            return trouble.status not in (502, 503)


def is_postponed(seen: Observation) -> bool:
    """Tell whether a send was taken for later because the cloud throttles, which is no attempt of its server."""
    return isinstance(seen, Answer) and 200 <= seen.status < 300 and seen.fault.has_code(POSTPONED)


def is_down(trouble: Observation) -> bool:
    """Return whether a gateway answered that there is no compute service behind it."""
    return isinstance(trouble, Answer) and is_trouble(trouble) and not may_lie_in_server(trouble)


def gets_through(seen: Observation) -> bool:
    """Return whether the compute service has answered this request itself, whatever it answered."""
    return isinstance(seen, Answer) and seen.status != 401 and hold_for(seen) is None and not is_trouble(seen)


def too_long(seconds: float, words: str) -> Stop:
    """Stop a run that is asked to wait for longer than a run waits."""
    remedy = "what is left can be restarted after that"
    return Stop(StopReason.OUTAGE, f"the cloud asks to wait for {seconds:.0f} s ({words}); {remedy}")


def closed(words: str) -> Stop:
    """Stop a run whose client was closed."""
    return Stop(StopReason.OUTAGE, f"{words}: what was not sent to is skipped, and what was is not waited for")


def sends_fail(seconds: float, words: str) -> Stop:
    """Return the reason to stop a run whose sends all fail for too long."""
    remedy = "what was accepted is followed to its end, and the rest can be restarted when the cloud is back"
    return Stop(StopReason.OUTAGE, f"no reboot request has got through for {seconds:.0f} s ({words}); {remedy}")


def outage(seconds: float, words: str) -> Stop:
    """Stop a run whose cloud is in trouble for too long."""
    remedy = "what was not sent to is skipped: give it again when the cloud is back"
    return Stop(StopReason.OUTAGE, f"the cloud has been in trouble for {seconds:.0f} s ({words}); {remedy}")
