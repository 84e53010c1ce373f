"""What a run has learnt of the cloud's action log, from rows that are certainly ours."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import anyio

from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, CloudClock, LogTime, log_shift
from bulkrestart.core.model import Action
from bulkrestart.core.progress import Progress
from bulkrestart.core.record import LogFacts

#: Seconds for which a witness is kept, although a newer one is there: a row may be shown late.
_WITNESS_LIFE: Final = 60.0
#: The longest that its send may have taken: a row that was written at any time of it dates nothing.
_LONGEST_SEND: Final = 10.0


@dataclass(frozen=True, slots=True)
class Witness:
    """An accepted send: its row tells how the action log names and dates what is ours.

    Attributes:
        server_id: The server.
        request_id: The cloud's id of the reboot.
        written: The earliest and the latest that the cloud's `Date` can have shown when the row was written.
    """

    server_id: str
    request_id: str
    written: tuple[float, float]


class LogKnowledge:
    """Learns.

    Args:
        clock: The cloud's time, as `Date` shows it.
        facts: What a former process of the run knew. Its shift is of the `Date` that it saw, which may have been
            another: it only serves to read what that process noted.

    Attributes:
        facts: What is known.
        witness: An accepted send, as long as none has told the shift; None while there is none.
    """

    def __init__(self, clock: CloudClock, facts: LogFacts) -> None:
        self._clock = clock
        self.facts = facts
        self.witness: Witness | None = None
        self._has_shift = False

    def note(self, witness: Witness) -> None:
        """Take a send that was accepted."""
        least, most = witness.written
        is_needed = self.witness is None or least - self.witness.written[0] > _WITNESS_LIFE
        if not self._has_shift and is_needed and most - least <= _LONGEST_SEND:
            self.witness = witness

    def prove(self) -> None:
        """Note that the log has shown a reboot that was looked for, whoever it is by."""
        self.facts = replace(self.facts, is_proven=True)

    def learn(self, log: Iterable[Action], request_id: str | None) -> None:
        """Look for the row of a request that was certainly ours, because an answer to us carried its id."""
        for row in log:
            if row.request_id == request_id:
                self.facts = replace(self.facts, is_proven=True, user_id=row.user_id or self.facts.user_id)

    def compare(self, log: Iterable[Action], witness: Witness) -> None:
        """Learn from the row of a witness, and compare the log's clock with the one that `Date` shows."""
        self.learn(log, witness.request_id)
        for row in log:
            if row.request_id == witness.request_id:
                self.facts = replace(self.facts, shift=log_shift(row.start_time, witness.written))
                self.witness, self._has_shift = None, True

    def log_time(self, progress: Progress) -> LogTime | None:
        """Translate the time of a send from the cloud's `Date` into the log's; None if it is unknown."""
        since, now = progress.sends.since, self._clock.at(anyio.current_time())
        if since is None or now is None:
            return None
        shift = self.facts.shift if self._has_shift or progress.sends.is_since_former else None
        is_checked = self._has_shift and not progress.sends.is_since_former
        least, most = shift or (0.0, 0.0)
        ahead = most if self._has_shift else 0.0
        skew = SKEW if is_checked else UNCHECKED_SKEW
        return LogTime((since[0] + least, since[1] + most), now[1] + ahead, skew + self._clock.spread)
