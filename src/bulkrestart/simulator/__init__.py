"""An embedded cloud with Nova's rules: for demos, for tests, and for the tests of code that restarts servers.

The cloud itself is pure; its HTTP face needs the `simulator` extra.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from bulkrestart.simulator.answers import Answer, json_answer, nova_answer
from bulkrestart.simulator.clock import ManualClock
from bulkrestart.simulator.cloud import Cloud
from bulkrestart.simulator.faults import Fault, Faults, HostFault
from bulkrestart.simulator.records import (
    Call,
    ConflictError,
    Cycle,
    Downtime,
    Face,
    Identity,
    LogAccess,
    LogRow,
    RaceError,
    RequestIds,
    RequestRecord,
    Role,
    ServerFault,
    SimulatedServer,
)

if TYPE_CHECKING:
    from bulkrestart.simulator.app import LostReplyError, asgi
    from bulkrestart.simulator.server import LoopbackCloud

__all__ = [
    "Answer",
    "Call",
    "Cloud",
    "ConflictError",
    "Cycle",
    "Downtime",
    "Face",
    "Fault",
    "Faults",
    "HostFault",
    "Identity",
    "LogAccess",
    "LogRow",
    "LoopbackCloud",
    "LostReplyError",
    "ManualClock",
    "RaceError",
    "RequestIds",
    "RequestRecord",
    "Role",
    "ServerFault",
    "SimulatedServer",
    "asgi",
    "json_answer",
    "nova_answer",
]

#: Where the names live that need starlette or uvicorn.
_WITH_EXTRA: Final = {
    "LoopbackCloud": "bulkrestart.simulator.server",
    "LostReplyError": "bulkrestart.simulator.app",
    "asgi": "bulkrestart.simulator.app",
}


def __getattr__(name: str) -> object:
    """Import what needs the extra when it is asked for, so that the cloud itself does not."""
    if name not in _WITH_EXTRA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_WITH_EXTRA[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ImportError(f"{__name__}.{name} needs {error.name}: pip install 'bulkrestart[simulator]'") from error
