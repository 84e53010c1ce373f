"""Judges the endpoint and the token of a run by all answers, so that no single odd answer stops it.

Law: a run is stopped only by rejections of several servers with no good answer between them, of which one was
sent some time later. The time is an argument.
"""

from collections import Counter
from typing import Final

from bulkrestart.core.decide import unauthorized, wrong_endpoint
from bulkrestart.core.decision import Hold
from bulkrestart.core.model import Stop
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.stall import RequestKind
from bulkrestart.core.trouble import gets_through

#: Servers whose requests have to be rejected. What one server alone meets is about that server.
REJECTED_SERVERS: Final = 3
#: Seconds for which all requests are paused then: a gateway that is set anew answers oddly for less.
REJECTED_PAUSE: Final = 2.0


class _Streak:
    """Rejections that follow each other."""

    def __init__(self) -> None:
        self.server_ids: set[str | None] = set()
        #: When there were enough servers.
        self.reached_at = float("inf")

    def add(self, now: float, server_id: str | None) -> bool:
        """Add a rejection; return whether there are enough servers from now on."""
        if len(self.server_ids) == REJECTED_SERVERS:
            return False
        self.server_ids.add(server_id)
        if len(self.server_ids) < REJECTED_SERVERS:
            return False
        self.reached_at = now
        return True

    def clear(self) -> None:
        self.server_ids.clear()
        self.reached_at = float("inf")


class Rejections:
    """Counts answers that speak against the endpoint or the token (`Answer.is_rejection`).

    Sends have a count of their own, because a gateway may let other requests through. Only they and looks at single
    servers are counted: a user who may not read an action log or a list is refused there alone (`SourceHealth`).
    """

    def __init__(self) -> None:
        self._sends = _Streak()
        self._looks = _Streak()
        self._good: Counter[RequestKind] = Counter()

    def record(
        self, kind: RequestKind, seen: object, server_id: str | None, now: float, *, sent_at: float
    ) -> Stop | Hold | None:
        """Take the answer to a request.

        Args:
            kind: What was asked for.
            seen: What came back.
            server_id: The server that it was about; None if it was about many.
            now: The time, in seconds.
            sent_at: When the request left.

        Returns:
            Why the run is to stop; or a pause of all requests, after which one more rejection stops it; else None.
        """
        if isinstance(seen, Answer) and seen.is_rejection:
            is_counted = kind in (RequestKind.SEND, RequestKind.SERVER)
            return self._reject(kind, seen, server_id, now, sent_at) if is_counted else None
        if not isinstance(seen, Observation) or gets_through(seen):
            self._good[kind] += 1
            if kind is RequestKind.SEND:
                self._sends.clear()
            if kind is not RequestKind.LOG:
                self._looks.clear()
        return None

    def note_accepted(self) -> None:
        """Record that a look has shown that a send was accepted."""
        self._sends.clear()

    def count_good_except(self, kind: RequestKind) -> int:
        """Return how many requests of other kinds got a good answer so far."""
        return self._good.total() - self._good[kind]

    def _reject(
        self, kind: RequestKind, answer: Answer, server_id: str | None, now: float, sent_at: float
    ) -> Stop | Hold | None:
        streak = self._sends if kind is RequestKind.SEND else self._looks
        if streak.add(now, server_id):
            # What is refused for its token has started nothing, and a new sign-in must not wait.
            return None if answer.status == 401 else Hold(REJECTED_PAUSE)
        if sent_at < streak.reached_at + REJECTED_PAUSE:
            return None
        return unauthorized(answer) if answer.status == 401 else wrong_endpoint(answer)
