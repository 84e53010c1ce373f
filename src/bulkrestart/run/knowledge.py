"""What a run has learnt of the cloud's action log, from rows that are certainly ours."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import anyio

from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, CloudClock, LogTime, log_shift
from bulkrestart.core.model import Action
from bulkrestart.core.record import LogFacts, Witness

#: Seconds for which a witness is kept, although a newer one is there: a row may be shown late.
_WITNESS_LIFE: Final = 60.0
#: The longest that its send may have taken: a row that was written at any time of it dates nothing.
_LONGEST_SEND: Final = 10.0


class LogKnowledge:
    """Learns.

    Args:
        clock: The cloud's time, as `Date` shows it.
        facts: What is known from before.

    Attributes:
        facts: What is known.
    """

    def __init__(self, clock: CloudClock, facts: LogFacts | None = None) -> None:
        self._clock = clock
        self.facts = facts or LogFacts()

    def note(self, witness: Witness) -> None:
        """Take a send that was accepted."""
        least, most = witness.written
        before = self.facts.witness
        is_needed = before is None or least - before.written[0] > _WITNESS_LIFE
        if self.facts.shift is None and is_needed and most - least <= _LONGEST_SEND:
            self.facts = replace(self.facts, witness=witness)

    def dismiss(self) -> None:
        """Forget the witness: its row is kept from us."""
        self.facts = replace(self.facts, witness=None)

    def prove(self) -> None:
        """Note that the log has shown a reboot that was looked for."""
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
                self.facts = replace(self.facts, shift=log_shift(row.start_time, witness.written), witness=None)

    def log_time(self, since: tuple[float, float] | None) -> LogTime | None:
        """Translate the time of a send from the cloud's `Date` into the log's; None if it is unknown."""
        now = self._clock.at(anyio.current_time())
        if since is None or now is None:
            return None
        shift = self.facts.shift
        least, most = shift or (0.0, 0.0)
        skew = UNCHECKED_SKEW if shift is None else SKEW
        return LogTime((since[0] + least, since[1] + most), now[1] + most, skew + self._clock.spread)
