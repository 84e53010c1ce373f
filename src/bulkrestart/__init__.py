"""Restart whole fleets of cloud servers. Every duration is in seconds."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bulkrestart.client import RestartClient, Run
    from bulkrestart.cloud.auth import AccessKey, Token
    from bulkrestart.cloud.verify import http_ok, tcp_open
    from bulkrestart.core.errors import AuthError, BulkRestartError, EndpointError, JournalError
    from bulkrestart.core.model import (
        Address,
        Attempt,
        Outcome,
        Proof,
        Reason,
        RebootType,
        Server,
        ServerResult,
        Stop,
        StopReason,
    )
    from bulkrestart.core.plan import Forecast, Plan
    from bulkrestart.core.report import FleetError, Report, Statistics
    from bulkrestart.core.rollout import Rollout
    from bulkrestart.core.target import Target

__version__ = "0.1.0"

__all__ = [
    "AccessKey",
    "Address",
    "Attempt",
    "AuthError",
    "BulkRestartError",
    "EndpointError",
    "FleetError",
    "Forecast",
    "JournalError",
    "Outcome",
    "Plan",
    "Proof",
    "Reason",
    "RebootType",
    "Report",
    "RestartClient",
    "Rollout",
    "Run",
    "Server",
    "ServerResult",
    "Statistics",
    "Stop",
    "StopReason",
    "Target",
    "Token",
    "http_ok",
    "tcp_open",
]

#: The module of each public name that is not in core.model.
_HOMES: Final = {
    "AccessKey": "bulkrestart.cloud.auth",
    "AuthError": "bulkrestart.core.errors",
    "BulkRestartError": "bulkrestart.core.errors",
    "EndpointError": "bulkrestart.core.errors",
    "FleetError": "bulkrestart.core.report",
    "Forecast": "bulkrestart.core.plan",
    "JournalError": "bulkrestart.core.errors",
    "Plan": "bulkrestart.core.plan",
    "Report": "bulkrestart.core.report",
    "RestartClient": "bulkrestart.client",
    "Rollout": "bulkrestart.core.rollout",
    "Run": "bulkrestart.client",
    "Statistics": "bulkrestart.core.report",
    "Target": "bulkrestart.core.target",
    "Token": "bulkrestart.cloud.auth",
    "http_ok": "bulkrestart.cloud.verify",
    "tcp_open": "bulkrestart.cloud.verify",
}


def __getattr__(name: str) -> object:
    """Import a name when it is asked for: the command line takes signals before it imports the rest."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "bulkrestart.core.model")), name)
    globals()[name] = value
    return value
