"""What can be seen from outside: the answer to one request, or a look at one server."""

import re
from dataclasses import dataclass, field
from sys import intern
from typing import Final

from bulkrestart.core.clock import Instant, LogTime
from bulkrestart.core.faults import Body, Fault
from bulkrestart.core.model import Log, Server

#: "Flow limit exceeded", documented with 202: the request is delivered, but postponed.
POSTPONED: Final = "Common.0024"
#: "The commands are being executed. Try again later."
EXECUTING: Final = "Ecs.0603"
_THROTTLED_STATUSES: Final = frozenset({413, 429})
_THROTTLED_CODES: Final = ("Common.1503", "APIGW.0308", "APIG.0308")
_NOT_FOUND_CODES: Final = ("itemNotFound", "Ecs.0114", "Ecs.0614")
_WRONG_PROJECT_CODES: Final = ("Ecs.0023", "Common.0018")
#: nova/api/openstack/wsgi.py: "Malformed request URL: URL's project_id '..' doesn't match Context's project_id '..'"
_WRONG_PROJECT: Final = re.compile(r"project_id .*doesn't match", re.IGNORECASE)
#: The remedy if nothing answers at the endpoint.
CHECK_URL: Final = "check the URL (and HTTPS_PROXY)"
_NO_PROJECT: Final = re.compile(r"doesn't match Context's project_id '?None", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete status line came back.

    Attributes:
        status: The HTTP status.
        fault: What its headers and its body say.
        is_redirected: It answers another request than the one that was sent (a followed redirect).
        has_stale_token: It refuses a token, or keys, that the cloud accepted with another request of this client.
        is_permanent: Every further request of its kind is expected to be answered like this, so none is made.
        remedy: What may help where it refuses our credentials.
        location: Where a redirect points, without its query; "" where it does not say.
    """

    status: int
    fault: Fault = field(default_factory=Fault)
    is_redirected: bool = False
    has_stale_token: bool = False
    is_permanent: bool = False
    remedy: str = "check what signs the requests"
    location: str = ""

    @property
    def is_throttled(self) -> bool:
        """The cloud asks everybody to slow down."""
        return self.status in _THROTTLED_STATUSES or self.fault.has_code(*_THROTTLED_CODES)

    @property
    def is_refused_token(self) -> bool:
        """It refuses a token, or whatever else signs our requests, that was never accepted."""
        return self.status == 401 and not self.has_stale_token

    @property
    def is_unscoped(self) -> bool:
        """It says that the token belongs to no project."""
        return self.status == 400 and _NO_PROJECT.search(self.fault.message) is not None

    @property
    def is_time_out(self) -> bool:
        """A gateway says that it gave up waiting."""
        return self.status in (408, 504)

    @property
    def may_come_late(self) -> bool:
        """A gateway gave up waiting, or says that the request is postponed: it may still be at work."""
        return self.is_time_out or self.fault.has_code(POSTPONED)

    @property
    def is_not_found(self) -> bool:
        """It is the cloud's own word, not a proxy's, that there is no such server."""
        return self.status == 404 and self.fault.has_code(*_NOT_FOUND_CODES)

    @property
    def is_rejection(self) -> bool:
        """It suggests a wrong endpoint, or a token that has become invalid. If several do, the run stops."""
        return self.has_stale_token or self.is_wrong_endpoint or self.is_web_page

    @property
    def is_web_page(self) -> bool:
        """A success without JSON, such as the login page of a proxy."""
        return 200 <= self.status < 300 and self.fault.body is Body.OTHER

    @property
    def is_wrong_endpoint(self) -> bool:
        """No server can be restarted through the endpoint that gave this answer."""
        if self.status == 404:
            return not self.is_not_found and self.fault.body is not Body.CUT_SHORT
        if self.status == 400 and _WRONG_PROJECT.search(self.fault.message):
            return True
        return self.status == 407 or self.is_redirect or self.fault.has_code(*_WRONG_PROJECT_CODES)

    @property
    def is_redirect(self) -> bool:
        """It sends us elsewhere, or comes from elsewhere."""
        return self.is_redirected or 300 <= self.status < 400

    @property
    def words(self) -> str:
        """The cloud's own words, or what stands for them."""
        return self.fault.message or str(self)

    def __str__(self) -> str:
        # A fleet gives the same few answers over and over: keep each once.
        return intern(f"{self.status} {self.fault.code}".rstrip())


@dataclass(frozen=True, slots=True)
class Unsent:
    """No byte of the request left: the cloud never saw it.

    Attributes:
        words: Why.
        is_final: Nothing will ever leave again: the client is closed.
        is_withheld: Our own check stopped it right before it would have left. It says nothing about the cloud.
        is_insecure: TLS rejected the certificate, the host name or the protocol; another try would fail too.
        is_local: A limit or a rule of this machine stopped it. It says nothing about the cloud.
        remedy: What the user can do about it.
    """

    words: str
    is_final: bool = False
    is_withheld: bool = False
    is_insecure: bool = False
    is_local: bool = False
    remedy: str = CHECK_URL

    def __str__(self) -> str:
        return f"unsent: {self.words}"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Bytes may have left, and no status line came back.

    Attributes:
        words: What was seen instead.
        may_come_late: We gave up waiting: the request may still be on its way, or at work.
    """

    words: str
    may_come_late: bool = False

    def __str__(self) -> str:
        return f"unanswered: {self.words}"


Observation = Answer | Unsent | Unanswered


def is_refused_token(seen: object) -> bool:
    """Tell whether what came is an answer that refuses the newest token, or whatever else signs our requests."""
    return isinstance(seen, Answer) and seen.is_refused_token


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One look: the action log first, then the server.

    Attributes:
        server: The server, or what came instead of it.
        log: Its action log, or what came instead; None if it was not asked for, which is right while nothing is
            unresolved.
        at: When the look began, in seconds on the run's clock.
        instant: When the request left whose answer lets a send follow, on clocks that count suspension; None if no
            send follows.
        is_log_proven: The log has shown a reboot of this run, of any server.
        user_id: Who we are, as the log names us; None while unknown.
        log_time: The send of unknown fate on the log's clock; None if the cloud's clock is unknown.
        lag: Seconds by which reads of the log lag behind writes, as far as the run has measured it.
        view_lag: Seconds by which the states of servers may lag, and the log of a single server: neither is measured.
        may_be_dated_soon: Whether the run may soon learn the offset between the log's clock and `Date`.
    """

    server: Server | Observation
    log: Log | Observation | None
    at: float
    instant: Instant | None = None
    is_log_proven: bool = False
    user_id: str | None = None
    log_time: LogTime | None = None
    lag: float = 0.0
    view_lag: float = 0.0
    may_be_dated_soon: bool = False
