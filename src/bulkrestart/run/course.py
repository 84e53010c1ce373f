"""Whether a run still sends."""

import logging

import anyio

from bulkrestart.core.model import Stop

_log = logging.getLogger(__name__)


class Course:
    """Open until something stops the run; the first reason stands.

    Attributes:
        stop: Why nothing more is sent; None while the run sends.
        stopped: Set when it stops.
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self.stopped = anyio.Event()

    def halt(self, stop: Stop) -> None:
        """Send nothing from now on."""
        if self.stop is None:
            self.stop = stop
            self.stopped.set()
            _log.warning("the run stops: %s", stop.detail)
