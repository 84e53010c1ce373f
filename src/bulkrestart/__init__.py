"""Restart whole fleets of cloud servers. Every duration is in seconds."""

from bulkrestart.client import RestartClient, Run
from bulkrestart.cloud.auth import AccessKey, Token
from bulkrestart.core.errors import AuthError, BulkRestartError, EndpointError
from bulkrestart.core.model import Attempt, Outcome, Proof, Reason, RebootType, Server, ServerResult, Stop, StopReason
from bulkrestart.core.report import FleetError, Report, Statistics

__version__ = "0.1.0"

__all__ = [
    "AccessKey",
    "Attempt",
    "AuthError",
    "BulkRestartError",
    "EndpointError",
    "FleetError",
    "Outcome",
    "Proof",
    "Reason",
    "RebootType",
    "Report",
    "RestartClient",
    "Run",
    "Server",
    "ServerResult",
    "Statistics",
    "Stop",
    "StopReason",
    "Token",
]
