"""What a run has learnt of the cloud's action log, from rows that are certainly ours."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import anyio

from bulkrestart.core.clock import SKEW, UNCHECKED_SKEW, CloudClock, LogTime, log_shift
from bulkrestart.core.model import Action

#: Seconds for which a witness is kept, although a newer one is there: a row may be shown late.
_WITNESS_LIFE: Final = 60.0
#: The longest that its send may have taken: a row that was written at any time of it dates nothing.
_LONGEST_SEND: Final = 10.0


@dataclass(frozen=True, slots=True)
class Witness:
    """An accepted send: its row tells how the log names and dates what is ours.

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

    Attributes:
        is_log_proven: The log has shown a reboot of this run.
        user_id: Who we are in it; None while unknown.
        witness: An accepted send, as long as none has told its time; None while there is none.
    """

    def __init__(self, clock: CloudClock) -> None:
        self._clock = clock
        self.is_log_proven = False
        self.user_id: str | None = None
        self.witness: Witness | None = None
        self._shift: tuple[float, float] | None = None

    def note(self, witness: Witness) -> None:
        """Take a send that was accepted."""
        least, most = witness.written
        is_needed = self.witness is None or least - self.witness.written[0] > _WITNESS_LIFE
        if self._shift is None and is_needed and most - least <= _LONGEST_SEND:
            self.witness = witness

    def learn(self, log: Iterable[Action], request_id: str | None) -> None:
        """Look for the row of a request that was certainly ours, because an answer to us carried its id."""
        for row in log:
            if row.request_id == request_id:
                self.is_log_proven = True
                self.user_id = row.user_id or self.user_id

    def compare(self, log: Iterable[Action], witness: Witness) -> None:
        """Learn from the row of a witness, and compare the log's clock with the one that `Date` shows."""
        self.learn(log, witness.request_id)
        for row in log:
            if row.request_id == witness.request_id:
                self._shift = log_shift(row.start_time, witness.written)
                self.witness = None

    def log_time(self, since: tuple[float, float] | None) -> LogTime | None:
        """Translate the time of a send from the cloud's `Date` into the log's; None if it is unknown."""
        now = self._clock.at(anyio.current_time())
        if since is None or now is None:
            return None
        least, most = self._shift or (0.0, 0.0)
        skew = UNCHECKED_SKEW if self._shift is None else SKEW
        return LogTime((since[0] + least, since[1] + most), now[1] + most, skew + self._clock.spread)
