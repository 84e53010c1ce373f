"""What a run has learnt of the cloud's action log."""

from collections.abc import Iterable

from bulkrestart.core.model import Action


class LogKnowledge:
    """Learns from rows that are certainly ours.

    Attributes:
        is_log_proven: The log has shown a reboot of this run.
        user_id: Who we are in it; None while unknown.
    """

    def __init__(self) -> None:
        self.is_log_proven = False
        self.user_id: str | None = None

    def learn(self, log: Iterable[Action], request_id: str | None) -> None:
        """Look for the row of a request that was certainly ours, because an answer to us carried its id."""
        for row in log:
            if row.request_id == request_id:
                self.is_log_proven = True
                self.user_id = row.user_id or self.user_id
