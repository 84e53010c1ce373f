"""Tells all parts of a run that it stops, and why."""

import logging
from collections.abc import Callable

import anyio

from bulkrestart.core.model import Stop, StopReason

_log = logging.getLogger(__name__)


class StopSignal:
    """Whether a run stops. The first reason stands.

    Attributes:
        stop: Why nothing more is sent; None while the run sends.
        stopped: Set when the run stops.
        abandoned: Set when the run does not even wait for answers any more: the cloud does not answer, or asks to wait
            for too long.
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self.stopped = anyio.Event()
        self.abandoned = anyio.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._is_logged = False

    def begin(self) -> None:
        """Log why the run stops, from now on. Until then an error that is raised says it, and the log would repeat it.

        If the run has stopped already, that is logged now.
        """
        if not self._is_logged and self.stop is not None:
            _log_stop(self.stop)
        self._is_logged = True

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call this as soon as the run stops, and when it is abandoned."""
        self._callbacks.append(callback)

    def halt(self, stop: Stop, *, is_abandoned: bool | None = None) -> None:
        """Send nothing from now on.

        Args:
            stop: Why.
            is_abandoned: Whether the run also stops waiting for answers. None: yes after an outage or a stall.
        """
        if self.stop is None:
            self.stop = stop
            self.stopped.set()
            if self._is_logged:
                _log_stop(stop)
        elif stop.reason is StopReason.STALLED:
            _log.warning("the run waits no longer: %s", stop.detail)
        if is_abandoned is None:
            is_abandoned = stop.reason in (StopReason.OUTAGE, StopReason.STALLED)
        if is_abandoned:
            self.abandoned.set()
        for callback in self._callbacks:
            callback()


def _log_stop(stop: Stop) -> None:
    _log.warning("the run stops: %s", stop.detail)
