"""Decides once for a whole run whether a source can be read: the action log, its single rows, the servers' states.

Law: a source that cannot be read is not asked again. A few odd answers do not end a source that was read before, and
answers about one server end no source. A source that fails is asked rarely, until it can be read again.
"""

from dataclasses import replace
from typing import Final, TypeGuard, TypeVar

from bulkrestart.core.faults import Body
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from bulkrestart.core.stall import span
from bulkrestart.core.trouble import is_trouble

T = TypeVar("T")

#: Odd answers in a row after which a source counts as unreadable, if it was never read, and if it was read before. If
#: the cloud itself says that a source that was never read cannot be read, one answer is enough.
_ODD_IN_A_ROW: Final = 2
_ODD_AFTER_A_READ: Final = 10
#: Different servers that they must be about. A policy may forbid the log of one server (of another project) and allow
#: others.
_ODD_SERVERS: Final = 2
#: Statuses by which the cloud itself says that we may not read a source, or that it does not exist.
_FINAL: Final = frozenset({403, 404, 405, 501})

#: Failures in a row after which only one request at a time is made to a source, and the different servers that they
#: must be about: as many as stop all requests if the whole cloud fails (`pacing.FAILURES`, `pacing.SOURCES`). A server
#: whose own requests are among the failures does not need those of other servers.
_FAILURES: Final = 5
_FAILED_SERVERS: Final = 3
#: A source counts as failing after this many failures, each at least `_MOMENTS_APART` seconds after the one before, if
#: they cover `_FAILING_AFTER` seconds. A service that restarts is back by then.
_MOMENTS: Final = 3
_MOMENTS_APART: Final = 30.0
_FAILING_AFTER: Final = 90.0
#: Seconds from one request to a failing source to the next, at least.
PROBE_INTERVAL: Final = 30.0
#: The same as a multiple of what a request costs, in seconds: it may pause all requests, or take a slot until its
#: time-out. So probes cost a tenth of the time at most.
_PROBE_INTERVAL_PER_COST: Final = 10.0
#: What a request costs at least, in seconds: after a rate limit without Retry-After, all requests are paused for 1 s.
_LEAST_COST: Final = 1.0


class SourceHealth:
    """Whether one source can be read.

    Args:
        servers: How many servers the run has.

    Attributes:
        permanent_answer: The answer that takes the place of all further ones, because the source cannot be read; None
            if it can, as far as is known.
        refusal: The last answer after which a server is judged without the source; None if the source was read since.
    """

    def __init__(self, servers: int) -> None:
        self.permanent_answer: Answer | None = None
        self.refusal: Answer | None = None
        self._enough_servers = min(_ODD_SERVERS, servers)
        self._server_ids: set[str] = set()
        self._was_read = False
        self._odd = 0
        self._good_elsewhere = -1

    def record_read(self) -> None:
        """Record that the source was read."""
        self._was_read = True
        self._odd = 0
        self._server_ids.clear()
        self.refusal = None

    def judge(self, seen: T, server_id: str, good_elsewhere: int, *, is_shown: bool = False) -> T | Answer:
        """Record an answer of the source, and return what stands for it.

        If the answers about one server alone show that the source cannot be read, that server is judged without the
        source from then on, and the source is asked about others.

        Args:
            seen: What was read, or what came instead.
            server_id: The server that the request was about.
            good_elsewhere: How many requests to other sources have succeeded so far. An odd answer counts only if this
                number has grown since the last odd answer; otherwise all requests may be answered oddly.
            is_shown: Whether the cloud shows the server of the request. If not, "not found" is about the server.

        Returns:
            The answer; as a permanent one if the source cannot be read.
        """
        if self.permanent_answer is not None:
            return self.permanent_answer
        if not isinstance(seen, Observation):
            self.record_read()
            return seen
        if not isinstance(seen, Answer) or not _is_about_source(seen, is_shown=is_shown):
            return seen
        if len(self._server_ids) < self._enough_servers:
            self._server_ids.add(server_id)
        is_from_cloud = seen.status in _FINAL and bool(seen.fault.code) and not seen.is_not_found
        is_final = is_from_cloud and not self._was_read
        if good_elsewhere > self._good_elsewhere:
            self._good_elsewhere = good_elsewhere
            self._odd += 1
        if not is_final and self._odd < (_ODD_AFTER_A_READ if self._was_read else _ODD_IN_A_ROW):
            return seen
        self.refusal = replace(seen, is_permanent=True)
        # A feature that is missing is missing for all servers.
        if len(self._server_ids) >= self._enough_servers or (is_final and seen.status != 403):
            self.permanent_answer = self.refusal
        return self.refusal


class SourceOutage:
    """Whether requests to one source fail in a row although others succeed, and when to ask it again.

    Attributes:
        related: A source that is likely to fail with this one: its failures count as well.
    """

    def __init__(self) -> None:
        self.related: SourceOutage | None = None
        self._failures = 0
        #: The failures that show that this source fails alone: `_MOMENTS_APART`, and others succeeded before each.
        self._moments = 0
        self._counted_at = float("-inf")
        self._server_ids: set[str] = set()
        self._began = float("inf")
        self._read_at = float("-inf")
        #: When the last probe was made, what the last failure cost in seconds, and when the next probe is due.
        self._asked_at = float("-inf")
        self._cost = 0.0
        self._next_at = float("-inf")
        self._good_elsewhere = -1
        self._last_failure = ""

    def record_read(self, now: float) -> None:
        """Record that the source was read."""
        self._failures = self._moments = 0
        self._server_ids.clear()
        self._began = float("inf")
        self._counted_at = float("-inf")
        self._read_at = now

    def record_failure(
        self, seen: Observation, server_id: str, now: float, good_elsewhere: int, *, asked_at: float
    ) -> None:
        """Record a request that failed.

        Args:
            seen: What came back.
            server_id: The server that the request was about.
            now: The time, in seconds.
            good_elsewhere: How many requests to other sources have succeeded so far. A failure shows that this source
                fails alone only if this number has grown since the last failure; otherwise all requests may fail.
            asked_at: When the request left.
        """
        self._began = min(self._began, asked_at)
        self._failures += 1
        if len(self._server_ids) < _FAILED_SERVERS:
            self._server_ids.add(server_id)
        if good_elsewhere > self._good_elsewhere and now - self._counted_at >= _MOMENTS_APART:
            self._moments += 1
            self._counted_at = now
        self._good_elsewhere = good_elsewhere
        self._last_failure = str(seen)
        pause = (seen.fault.retry_after or 0.0) if isinstance(seen, Answer) else 0.0
        self._cost = max(_LEAST_COST, pause, now - asked_at)
        if self.is_failing(server_id, now):
            self._next_at = now + max(PROBE_INTERVAL, _PROBE_INTERVAL_PER_COST * self._cost)
        else:
            self._next_at = now + _MOMENTS_APART

    def is_suspect(self, server_id: str) -> bool:
        """Return whether so many requests failed in a row that only one request at a time is made."""
        related = self.related
        if related is None or self._read_at >= related._began:
            return self._has_many_failures(server_id)
        return self._has_many_failures(server_id) or related._has_many_failures(server_id)

    def _has_many_failures(self, server_id: str) -> bool:
        is_about_server = server_id in self._server_ids or len(self._server_ids) >= _FAILED_SERVERS
        return is_about_server and self._failures >= _FAILURES

    def is_failing(self, server_id: str, now: float) -> bool:
        """Return whether a server is judged without the source for now."""
        moments = self._moments + (0 if self.related is None else self.related._moments)
        is_long = self._moments >= 1 and moments >= _MOMENTS and self.lasts(now) >= _FAILING_AFTER
        return is_long and self.is_suspect(server_id)

    def needs_comparison(self, good_elsewhere: int) -> bool:
        """Return whether another source should be asked first, to tell if only this one fails."""
        return self._failures > 0 and good_elsewhere <= self._good_elsewhere

    def withhold(self, server_id: str, now: float, *, is_last: bool) -> Unsent | Unanswered | None:
        """Return what a reader gets if no request is to be made now; None if it is to make one.

        While the source is suspect, None is given to one reader at a time: it probes the source for all of them.

        Args:
            server_id: The server that the request is about.
            now: The time, in seconds.
            is_last: Whether the reader will not ask again, so that it needs the latest knowledge.
        """
        if not self.is_suspect(server_id):
            return None
        if now >= self._next_at or (is_last and now >= self._asked_at + self._cost):
            self._asked_at, self._next_at = now, now + _MOMENTS_APART
            return None
        return self.answer(now) if self.is_failing(server_id, now) else Unanswered(self._text(now))

    def lasts(self, now: float) -> float:
        """Return the seconds since the first failure in the row."""
        return now - min(self._began, float("inf") if self.related is None else self.related._began)

    def answer(self, now: float) -> Unsent:
        """Return what a reader gets while the source fails."""
        return Unsent(self._text(now), is_withheld=True)

    def _text(self, now: float) -> str:
        failing = self if self._failures or self.related is None else self.related
        return f"every request has failed for {span(self.lasts(now))} ({failing._last_failure})"


def is_source_outage(seen: object) -> bool:
    """Return whether a source was not read because it fails (`SourceOutage.answer`)."""
    return isinstance(seen, Unsent) and seen.is_withheld


def is_failure(seen: object) -> TypeGuard[Answer | Unanswered]:
    """Return whether a request reached a source, and failed in a way that may pass."""
    if isinstance(seen, Answer):
        return is_trouble(seen) or seen.is_throttled or seen.fault.body is Body.CUT_SHORT
    return isinstance(seen, Unanswered)


def _is_about_source(seen: Answer, *, is_shown: bool) -> bool:
    """Return whether an answer may be about the source, and not about one server, the token or the whole cloud."""
    if seen.is_not_found:
        return is_shown
    return not seen.is_refused_token and not is_failure(seen)
