"""What goes wrong: faults of one request, faults of the host, and seeded shares of a fleet that meet them.

Law: a fault passes. Each is met by a stated number of requests, so a correct client can finish.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from math import ceil
from random import Random
from typing import Annotated, Final, Literal, Self, TypeVar

from bulkrestart.simulator.answers import (
    Answer,
    ecs_answer,
    gateway_throttled,
    json_answer,
    nova_answer,
    unexpected_error,
)

_T = TypeVar("_T")

#: What a server may be at birth instead of active and unlocked.
Birth = Literal["locked", "stopped", "error"]

#: One of the two deliveries of a request.
Delivery = Literal["first", "second"]

#: Marks those fields of `Faults` that are shares, among its seconds and counts.
Share = Annotated[float, "of the fleet, 0 to 1"]


class HostFault(StrEnum):
    """How a reboot that was accepted goes wrong on the host; the guest is not cycled by any of them."""

    #: The driver fails and the guest is off: ERROR, with a fault that is shown.
    DEAD = "dead"
    #: The driver fails and the guest keeps running: ACTIVE, and the action log says Success.
    ALIVE = "alive"
    #: The host fails before it calls the driver, and reverts the task: ACTIVE, and the action log says Error
    #: (nova/compute/manager.py `reverts_task_state`).
    REVERTED = "reverted"
    #: The driver never comes back: the server stays in reboot_started.
    HANG = "hang"
    #: The host is down and never picks the reboot up: the server stays in rebooting.
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What becomes of one request; the class methods name the usual ones.

    Attributes:
        applied_after: Seconds after which the cloud carries the request out; None: never.
        answered_after: Seconds for which the answer (or the cut) is held back.
        answer: The answer in place of the cloud's own; None: the cloud's own, if it carries the request out.
        lost: Whether the connection is cut with no byte answered.
        cut: Whether the connection is cut in the middle of the answer's body.
        task_state: A passing task that takes the server just before the request, or None.
        task_seconds: How long that task takes.
        by_other: Whether another user's SOFT reboot gets in just before the request.
        again_after: Seconds from the first delivery of the request to the second, which is a request of its own to the
            cloud; None: it is delivered once.
        answered_by: Which delivery's answer the client gets.
    """

    applied_after: float | None = None
    answered_after: float = 0.0
    answer: Answer | None = None
    lost: bool = False
    cut: bool = False
    task_state: str | None = None
    task_seconds: float = 0.0
    by_other: bool = False
    again_after: float | None = None
    answered_by: Delivery = "second"

    def __post_init__(self) -> None:
        if self.again_after is not None and self.applied_after is None:
            raise ValueError("again_after needs applied_after: a second delivery follows a first one")
        if self.answer is None and self.applied_after is None and not self.lost:
            raise ValueError("a fault needs an answer, a request that is applied, or a lost reply")

    @classmethod
    def respond(
        cls, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, *, applied: bool = False
    ) -> Self:
        """Answer with exactly this, as a gateway does, with or without carrying the request out."""
        return cls(answer=Answer(status, body, headers or {}, from_nova=False), applied_after=0.0 if applied else None)

    @classmethod
    def error(cls, status: int = 500, message: str = "The server has failed.", *, applied: bool = False) -> Self:
        """Answer with Nova's error body, with or without carrying the request out."""
        return cls(answer=nova_answer(status, message), applied_after=0.0 if applied else None)

    @classmethod
    def no_reply(cls, *, applied: bool, after: float = 0.0) -> Self:
        """Cut the connection with no byte answered.

        Args:
            applied: Whether the request is carried out, at once.
            after: Seconds until the cut.
        """
        return cls(lost=True, applied_after=0.0 if applied else None, answered_after=after)

    @classmethod
    def late(cls, seconds: float) -> Self:
        """Cut the connection now, and carry the request out `seconds` later, as a gateway may."""
        return cls(lost=True, applied_after=seconds)

    @classmethod
    def delivered_twice(cls, after: float = 0.0, answer: Delivery = "second") -> Self:
        """Deliver the request twice, as a proxy does that tries the next node when the first is slow.

        The second delivery is a request of its own to Nova, with its own id: 409 while the first reboot runs; 202, and
        a second reboot, when the first is over or Nova accepts another HARD.

        Args:
            after: Seconds from the first delivery to the second.
            answer: Which delivery's answer the client gets: that of the "first" at once, or that of the "second".
        """
        return cls(applied_after=0.0, again_after=after, answered_by=answer)

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """Carry the request out at once, and answer `seconds` later."""
        return cls(applied_after=0.0, answered_after=seconds)

    @classmethod
    def cut_short(cls, status: int = 202, body: bytes = b'{"accepted": true}', *, applied: bool = True) -> Self:
        """Cut the connection in the middle of the body, with or without carrying the request out."""
        headers = {"content-type": "application/json"}
        return cls(answer=Answer(status, body, headers), applied_after=0.0 if applied else None, cut=True)

    @classmethod
    def throttled(cls, retry_after: float | None = 2.0, *, status: int = 429) -> Self:
        """Answer overLimit; `retry_after` seconds, rounded up, in the header and the body, None for neither."""
        if retry_after is None:
            return cls(answer=nova_answer(status, "This request was rate-limited."))
        seconds = str(ceil(retry_after))
        document = {"overLimit": {"code": status, "message": "This request was rate-limited.", "retryAfter": seconds}}
        return cls(answer=json_answer(status, document, {"retry-after": seconds}))

    @classmethod
    def gateway_throttled(cls, limit: int = 60, minutes: int = 1) -> Self:
        """Answer as the API gateway of Huawei Cloud does: 429 APIGW.0308, and no Retry-After."""
        return cls(answer=gateway_throttled(limit, f"{minutes} minute"))

    @classmethod
    def flow_limited(cls) -> Self:
        """Answer Common.0024: throttled, in spite of its 202."""
        return cls(answer=ecs_answer(202, "Common.0024", "Flow limit exceeded."))

    @classmethod
    def commands_executing(cls) -> Self:
        """Answer Ecs.0603: a 501 that says to try again a minute later."""
        return cls(answer=ecs_answer(501, "Ecs.0603", "The commands are being executed. Try again later."))

    @classmethod
    def busy(cls, seconds: float = 5.0, task_state: str = "image_snapshot") -> Self:
        """Let a passing task take the server just before the request, which then meets Nova's rules."""
        return cls(applied_after=0.0, task_state=task_state, task_seconds=seconds)

    @classmethod
    def race(cls) -> Self:
        """Let another user's SOFT reboot in between check and save: Nova answers 500, and starts nothing for us."""
        return cls(answer=unexpected_error("nova.exception.UnexpectedTaskStateError"), by_other=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """What one server was dealt: its state, what its first requests and its first reboot meet, how late its log is."""

    state: Birth | None
    faults: tuple[Fault, ...]
    host_fault: HostFault | None
    log_delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Shares of a fleet that meet a fault, drawn for each server from the cloud's seed.

    There are four draws for a server: one of its state, one of what its first reboot requests meet, one of what its
    first reboot meets on the host, one of its action log. Shares of one draw exclude each other, so each draw's must
    not be over 1 in sum.

    Attributes:
        locked: Share of servers that are locked.
        stopped: Share of servers that are stopped.
        error: Share of servers in vm_state error.
        busy: Share whose first request finds a passing task.
        busy_seconds: How long that task takes.
        throttled: Share that is answered 429.
        retry_after: What the 429 says, in seconds; None: nothing.
        gateway_throttled: Share that is answered APIGW.0308.
        flow_limited: Share that is answered 202 with Common.0024.
        commands_executing: Share that is answered 501 Ecs.0603.
        error_before: Share that is answered 500 without being carried out.
        error_after: Share that is answered 500 after being carried out.
        lost_before: Share whose request is lost.
        lost_after: Share whose request is carried out, and whose reply is lost.
        late: Share whose reply is lost, and whose request is carried out later.
        late_seconds: How much later.
        slow: Share whose reply is held back.
        slow_seconds: For how long.
        raced: Share that loses a race against another user's reboot.
        delivered_twice: Share whose request is delivered twice; the client gets the second answer.
        delivered_twice_after: Seconds from the first delivery to the second.
        times: How many requests to a server meet its request fault before it has passed.
        dead: Share whose first reboot fails with the guest off.
        alive: Share whose first reboot fails with the guest running.
        reverted: Share whose first reboot fails before the driver is called, which the action log tells.
        hang: Share whose first reboot never ends.
        log_late: Share whose action log shows new rows late.
        log_late_seconds: How late.

    Raises:
        ValueError: A share is not between 0 and 1, or the shares of one draw are over 1 in sum.
    """

    locked: Share = 0.0
    stopped: Share = 0.0
    error: Share = 0.0
    busy: Share = 0.0
    busy_seconds: float = 5.0
    throttled: Share = 0.0
    retry_after: float | None = 2.0
    gateway_throttled: Share = 0.0
    flow_limited: Share = 0.0
    commands_executing: Share = 0.0
    error_before: Share = 0.0
    error_after: Share = 0.0
    lost_before: Share = 0.0
    lost_after: Share = 0.0
    late: Share = 0.0
    late_seconds: float = 5.0
    slow: Share = 0.0
    slow_seconds: float = 1.0
    raced: Share = 0.0
    delivered_twice: Share = 0.0
    delivered_twice_after: float = 0.5
    times: int = 1
    dead: Share = 0.0
    alive: Share = 0.0
    reverted: Share = 0.0
    hang: Share = 0.0
    log_late: Share = 0.0
    log_late_seconds: float = 20.0

    def __post_init__(self) -> None:
        for draw in (self._states(), self._requests(), self._hosts(), self._logs()):
            shares = [share for share, _ in draw]
            if any(not 0 <= share <= 1 for share in shares):
                raise ValueError("a share of the fleet is between 0 and 1")
            # Ten shares of 0.1 are over 1 by a rounding error.
            if sum(shares) > 1 + 1e-9:
                raise ValueError("shares that exclude each other are over 1 in sum")

    def _states(self) -> tuple[tuple[float, Birth], ...]:
        return ((self.locked, "locked"), (self.stopped, "stopped"), (self.error, "error"))

    def _requests(self) -> tuple[tuple[float, Fault], ...]:
        return (
            (self.busy, Fault.busy(self.busy_seconds)),
            (self.throttled, Fault.throttled(self.retry_after)),
            (self.gateway_throttled, Fault.gateway_throttled()),
            (self.flow_limited, Fault.flow_limited()),
            (self.commands_executing, Fault.commands_executing()),
            (self.error_before, Fault.error(applied=False)),
            (self.error_after, Fault.error(applied=True)),
            (self.lost_before, Fault.no_reply(applied=False)),
            (self.lost_after, Fault.no_reply(applied=True)),
            (self.late, Fault.late(self.late_seconds)),
            (self.slow, Fault.slow(self.slow_seconds)),
            (self.raced, Fault.race()),
            (self.delivered_twice, Fault.delivered_twice(self.delivered_twice_after)),
        )

    def _hosts(self) -> tuple[tuple[float, HostFault], ...]:
        return (
            (self.dead, HostFault.DEAD),
            (self.alive, HostFault.ALIVE),
            (self.hang, HostFault.HANG),
            (self.reverted, HostFault.REVERTED),
        )

    def _logs(self) -> tuple[tuple[float, float], ...]:
        return ((self.log_late, self.log_late_seconds),)

    def lots(self, rng: Random) -> Iterator[Lot]:
        """Draw one server's lot after another's, without end."""
        states, requests, hosts, logs = self._states(), self._requests(), self._hosts(), self._logs()
        while True:
            fault = _pick(requests, rng.random())
            yield Lot(
                state=_pick(states, rng.random()),
                faults=(fault,) * self.times if fault else (),
                host_fault=_pick(hosts, rng.random()),
                # Drawn only where it is asked for, so that a seed deals as before where it is not.
                log_delay=(_pick(logs, rng.random()) or 0.0) if self.log_late else 0.0,
            )


#: The names of the fields of `Faults` that are shares of the fleet.
SHARES: Final = tuple(field.name for field in fields(Faults) if field.type == Share)


def _pick(shares: tuple[tuple[float, _T], ...], drawn: float) -> _T | None:
    for share, item in shares:
        if drawn < share:
            return item
        drawn -= share
    return None
