"""Decides once for a whole run whether a source can be read: the action log, its single rows, the servers' states.

Law: a source that cannot be read is not asked again; a source that was read before is not given up for a few odd
answers.
"""

from dataclasses import replace
from typing import Final

from bulkrestart.core.faults import Body
from bulkrestart.core.observation import Answer, Observation
from bulkrestart.core.trouble import is_trouble

#: Odd answers in a row after which a source counts as unreadable, unless the cloud itself says that it is; and the same
#: for a source that was read before.
_ODD_IN_A_ROW: Final = 2
_ODD_AFTER_A_READ: Final = 10
#: Statuses by which the cloud itself says that we may not read a source, or that it does not exist.
_FINAL: Final = frozenset({403, 404, 405, 501})


class SourceHealth:
    """Whether one source can be read.

    Attributes:
        permanent_answer: The answer that takes the place of all further ones, because the source cannot be read; None
            if it can, as far as is known.
    """

    def __init__(self) -> None:
        self.permanent_answer: Answer | None = None
        self._was_read = False
        self._odd = 0
        self._good_elsewhere = -1

    def record_read(self) -> None:
        """Record that the source was read."""
        self._was_read = True
        self._odd = 0

    def judge(self, seen: object, good_elsewhere: int, *, is_shown: bool = False) -> bool:
        """Record an answer of the source.

        Args:
            seen: What was read, or what came instead.
            good_elsewhere: How many requests to other sources have succeeded so far. An odd answer counts only if this
                number has grown since the last odd answer; otherwise all requests may be answered oddly.
            is_shown: Whether the cloud shows the server of the request. If not, "not found" is about the server.

        Returns:
            Whether this answer shows, for the first time, that the source cannot be read.
        """
        if self.permanent_answer is not None:
            return False
        if not isinstance(seen, Observation):
            self.record_read()
            return False
        if not isinstance(seen, Answer) or not _is_about_source(seen, is_shown=is_shown):
            return False
        is_from_cloud = seen.status in _FINAL and bool(seen.fault.code) and not seen.is_not_found
        is_final = is_from_cloud and not self._was_read
        if good_elsewhere > self._good_elsewhere:
            self._good_elsewhere = good_elsewhere
            self._odd += 1
        if is_final or self._odd >= (_ODD_AFTER_A_READ if self._was_read else _ODD_IN_A_ROW):
            self.permanent_answer = replace(seen, is_permanent=True)
        return self.permanent_answer is not None


def _is_about_source(seen: Answer, *, is_shown: bool) -> bool:
    """Return whether an answer may be about the source, and not about one server, the token or the whole cloud."""
    if seen.is_not_found:
        return is_shown
    is_general = seen.is_throttled or seen.is_refused_token or seen.fault.body is Body.CUT_SHORT
    return not is_general and not is_trouble(seen)
