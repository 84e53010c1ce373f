"""Whether a run still sends."""

import logging
from collections.abc import Callable

import anyio

from bulkrestart.core.model import Stop, StopReason

_log = logging.getLogger(__name__)


class Course:
    """Open until something stops the run; the first reason stands.

    Attributes:
        stop: Why nothing more is sent; None while the run sends.
        stopped: Set when it stops.
        lost: Set when not even an answer is waited for any more: the cloud is gone, or is not to be asked for long.
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self.stopped = anyio.Event()
        self.lost = anyio.Event()
        self._told: list[Callable[[], None]] = []
        self._is_logged = False

    def begin(self) -> None:
        """Log why the run stops, from now on. Until then an error that is raised says it, and the log would repeat it.

        If the run has stopped already, that is logged now.
        """
        if not self._is_logged and self.stop is not None:
            _log_stop(self.stop)
        self._is_logged = True

    def tell(self, callback: Callable[[], None]) -> None:
        """Call this as soon as the run stops, or is lost."""
        self._told.append(callback)

    def halt(self, stop: Stop, *, is_lost: bool | None = None) -> None:
        """Send nothing from now on.

        Args:
            stop: Why.
            is_lost: Whether the run also stops waiting for answers. None: yes after an outage or a stall.
        """
        if self.stop is None:
            self.stop = stop
            self.stopped.set()
            if self._is_logged:
                _log_stop(stop)
        elif stop.reason is StopReason.STALLED:
            _log.warning("the run waits no longer: %s", stop.detail)
        if stop.reason in (StopReason.OUTAGE, StopReason.STALLED) if is_lost is None else is_lost:
            self.lost.set()
        for callback in self._told:
            callback()


def _log_stop(stop: Stop) -> None:
    _log.warning("the run stops: %s", stop.detail)
