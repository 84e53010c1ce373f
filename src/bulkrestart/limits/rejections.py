"""Decides from all answers whether the endpoint or the token of a run is wrong, so that no single odd answer stops it.

Law: a run stops only after requests for several servers were rejected, with no good answer between them, and a request
that left after a pause was rejected as well. The time is an argument.
"""

from collections import Counter
from typing import Final

from bulkrestart.core.decide import unauthorized, wrong_endpoint
from bulkrestart.core.decision import Hold
from bulkrestart.core.model import Stop
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.stall import RequestKind
from bulkrestart.core.trouble import gets_through

#: How many servers' requests have to be rejected. Fewer may be the fault of these servers.
REJECTED_SERVERS: Final = 3
#: The same for sends, if a send got through before and other requests have since: the endpoint is right, and something
#: on the way rejects the sends to some servers. As many servers in a row that refuse by policy stop a run as well
#: (`decide.FORBIDDEN_IN_A_ROW`).
REJECTED_SENDS: Final = 10
#: Seconds for which all requests are paused then: a gateway that reloads its configuration answers oddly for less.
REJECTED_PAUSE: Final = 2.0


class _Streak:
    """Rejections in a row."""

    def __init__(self) -> None:
        self._server_ids: set[str | None] = set()
        self._enough = REJECTED_SERVERS
        #: When the streak reached `_enough` servers; `inf` before that.
        self.reached_at = float("inf")

    def add(self, now: float, server_id: str | None) -> bool:
        """Add a rejection; return whether the streak has just reached as many servers as it needs."""
        if len(self._server_ids) >= self._enough:
            return False
        self._server_ids.add(server_id)
        if len(self._server_ids) < self._enough:
            return False
        self.reached_at = now
        return True

    def demand_more(self) -> None:
        """Require `REJECTED_SENDS` servers from now on."""
        self._enough = REJECTED_SENDS
        if len(self._server_ids) < REJECTED_SENDS:
            self.reached_at = float("inf")

    def clear(self) -> None:
        self._server_ids.clear()
        self._enough = REJECTED_SERVERS
        self.reached_at = float("inf")


class Rejections:
    """Counts answers that suggest a wrong endpoint or an invalid token (`Answer.is_rejection`).

    Only sends and looks at single servers are counted: a user who may not read action logs or lists is refused there
    alone (`SourceHealth`). Sends are counted apart, because a gateway may let looks through and reject sends. If looks
    succeed between rejected sends, and a send got through before, more servers are needed: `REJECTED_SENDS`.
    """

    def __init__(self) -> None:
        #: Whether a send got through in this run.
        self._has_sent = False
        self._sends = _Streak()
        self._looks = _Streak()
        self._good: Counter[RequestKind] = Counter()

    def record(
        self, kind: RequestKind, seen: object, server_id: str | None, now: float, *, sent_at: float
    ) -> Stop | Hold | None:
        """Record the answer to a request.

        Args:
            kind: What was asked for.
            seen: What came back.
            server_id: The server of the request; None if it was for many.
            now: The time, in seconds.
            sent_at: When the request left.

        Returns:
            Why the run stops; or a pause of all requests, after which one more rejection stops the run; or None.
        """
        if isinstance(seen, Answer) and seen.is_rejection:
            is_counted = kind in (RequestKind.SEND, RequestKind.SERVER)
            return self._reject(kind, seen, server_id, now, sent_at) if is_counted else None
        if not isinstance(seen, Observation) or gets_through(seen):
            self._good[kind] += 1
            if kind is RequestKind.SEND:
                self.note_accepted()
            elif self._has_sent:
                self._sends.demand_more()
            if kind is not RequestKind.LOG:
                self._looks.clear()
        return None

    def note_accepted(self) -> None:
        """Record that a send got through: an answer shows it, or a later look at the server."""
        self._has_sent = True
        self._sends.clear()

    def count_good_except(self, kind: RequestKind) -> int:
        """Return how many requests of other kinds got a good answer so far."""
        return self._good.total() - self._good[kind]

    def _reject(
        self, kind: RequestKind, answer: Answer, server_id: str | None, now: float, sent_at: float
    ) -> Stop | Hold | None:
        streak = self._sends if kind is RequestKind.SEND else self._looks
        if streak.add(now, server_id):
            # A refused token needs a new sign-in, which must not wait.
            return None if answer.status == 401 else Hold(REJECTED_PAUSE)
        if sent_at < streak.reached_at + REJECTED_PAUSE:
            return None
        return unauthorized(answer) if answer.status == 401 else wrong_endpoint(answer)
