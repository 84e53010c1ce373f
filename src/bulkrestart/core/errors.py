"""What is raised. One server's failure never is: it stands in the report.

BulkRestartError
├── AuthError       before the first send
├── EndpointError   before the first send
│   └── StalledError
├── JournalError    before the first send
└── FleetError      by `Report.raise_for_failures` alone (it lives beside the report that it carries)

Bad arguments raise `ValueError`, also before anything is sent.
"""


class BulkRestartError(Exception):
    """The base of every error that is not a bad argument."""


class AuthError(BulkRestartError):
    """Raised when the cloud refuses the token, or whatever else signs the requests. Nothing was sent."""


class EndpointError(BulkRestartError):
    """Raised when the endpoint does not answer, or not as the compute API of this project does.

    Also where its list of servers is refused, or has no end. Nothing was sent.
    """


class StalledError(EndpointError):
    """Raised when the requests before the first send make no progress for too long. Nothing was sent.

    Also where the cloud asks for a wait that is too long, or fails all requests for too long.
    """


class JournalError(BulkRestartError):
    """Raised when a journal cannot be used: held by another process, of another run, or not to be written.

    Before a run nothing was sent. A run whose journal fails later stops (`StopReason.JOURNAL`).
    """
