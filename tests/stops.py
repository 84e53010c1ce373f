"""Stops real processes (SIGSTOP) between their look at a server and their send, and wakes them much later.

Meanwhile another client reboots the same server, or stops it. What the process then does is counted by the cloud.
`python -m tests.attacks stops` runs it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Final

from bulkrestart import RebootType
from bulkrestart.simulator import Call, Cloud, ConflictError, Identity, LoopbackCloud
from bulkrestart.simulator.records import RequestRecord

#: Seconds that a reboot takes: the other client's is over long before the process is woken.
REBOOT_SECONDS: Final = (0.2, 0.5)
#: Seconds from the stop until the other client acts, at most: what the process had sent before it was stopped has come
#: by then, also on a busy machine.
_ACTS_AFTER: Final = 5.0
#: Processes that start at once: each takes most of a second of a processor before it looks.
_STARTS: Final = threading.BoundedSemaphore(4)
#: Seconds in which a process must look at its server, and in which it must end when it is woken.
PATIENCE: Final = 400.0
#: The most seconds after a look's answer at which a process is stopped that is not stopped before the answer.
_SOON: Final = 0.003
_ROOT: Final = Path(__file__).parents[1]
_OTHER: Final = "another-user"


class Way(StrEnum):
    """What a process does, and what happens to its server while it is stopped."""

    #: A SOFT with `since`; another client reboots the server.
    SOFT_SINCE = "SOFT with since, rebooted meanwhile"
    #: A HARD with `since`; another client reboots the server.
    HARD_SINCE = "HARD with since, rebooted meanwhile"
    #: The same of a server that was changed lately, so that the action log is a part of the look.
    SOFT_LOG = "SOFT with since and a log, rebooted meanwhile"
    #: A HARD without permission to start a server; another client stops it.
    HARD_STOPPED = "HARD, stopped meanwhile"


class When(StrEnum):
    """When a process is stopped."""

    #: The cloud has answered the look in full, and the process has not read it.
    BEFORE = "before it reads the answer"
    #: Up to 3 ms after the answer has left.
    AFTER = "a moment after the answer"


class StoppingCloud(Cloud):
    """A cloud that stops the process that has looked at a server, as the last answer of the look leaves."""

    def __init__(self, servers: int) -> None:
        super().__init__(servers, reboot_seconds=REBOOT_SECONDS)
        self.aims: dict[str, Aim] = {}

    def leave(self, number: int, status: int | None) -> None:
        """Note a request that is done with; its sender may be stopped before the answer leaves."""
        super().leave(number, status)
        request = self.requests[number]
        aim = self.aims.get(request.server_id or "")
        if aim is not None:
            aim.take(request)


@dataclass(slots=True)
class Aim:
    """A process that is to be stopped.

    Attributes:
        looks: How many requests for its server it makes before it sends.
        delay: Seconds from the last of them to the stop; 0.0 stops it before the answer leaves.
        process: The process.
        taken: How many requests were answered.
        stopped: Set when it is stopped.
        stopped_at: When that was, seconds since the epoch.
    """

    looks: int
    delay: float
    process: subprocess.Popen[str] | None = None
    taken: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    stopped_at: float = 0.0

    def take(self, request: RequestRecord) -> None:
        """Take a request that is about to be answered."""
        self.taken += request.call is not Call.REBOOT
        if self.taken == self.looks and not self.stopped.is_set() and request.call is not Call.REBOOT:
            if self.delay:
                threading.Timer(self.delay, self._stop).start()
            else:
                self._stop()

    def _stop(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)
        self.stopped_at = time.time()
        self.stopped.set()


@dataclass(frozen=True, slots=True)
class Stop:
    """What became of one process.

    Attributes:
        way: What it did, and what happened meanwhile.
        when: When it was stopped.
        outcome: What it reported; "" if it did not end well.
        has_sent_before: Its send had left before it was stopped, so that no look could have held it back.
        is_doubled: Its send came after what the other client did, and was carried out.
        trouble: Why nothing can be said of it; "" if it can.
    """

    way: Way
    when: When
    outcome: str
    has_sent_before: bool
    is_doubled: bool
    trouble: str = ""


@dataclass(slots=True)
class Stops:
    """What became of all."""

    seconds: float
    each: list[Stop] = field(default_factory=list)

    @property
    def broken(self) -> list[Stop]:
        """Those that broke a promise, or that did not come to an end."""
        return [one for one in self.each if one.is_doubled or one.trouble]

    def __str__(self) -> str:
        lines = [f"{len(self.each):10,}  processes stopped for {self.seconds:g} s"]
        lines.append(f"{'stopped':>10}{'sent before':>13}{'doubled':>10}  process; stopped when; outcomes")
        for way in Way:
            for when in When:
                some = [one for one in self.each if (one.way, one.when) == (way, when)]
                outcomes = ", ".join(f"{n} {outcome}" for outcome, n in Counter(one.outcome for one in some).items())
                before, doubled = sum(one.has_sent_before for one in some), sum(one.is_doubled for one in some)
                lines.append(f"{len(some):10,}{before:13,}{doubled:10,}  {way}; {when}; {outcomes}")
        lines += [f"BROKEN {one.way}: {one.trouble}" for one in self.each if one.trouble]
        lines.append(f"{len(self.broken):,} broken")
        return "\n".join(lines)


def stop_processes(
    number: int,
    seconds: float,
    *,
    at_once: int = 100,
    seed: int = 0,
    whens: tuple[When, ...] = tuple(When),
    look_life: float | None = None,
) -> Stops:
    """Stop so many processes between look and send.

    Args:
        number: How many.
        seconds: How long each is stopped.
        at_once: How many there are at once.
        seed: Of the moments.
        whens: When they are stopped, one after the other.
        look_life: Seconds for which a look stands before a send; None for as long as it does.
    """
    cloud, stops = StoppingCloud(number + len(Way)), Stops(seconds)
    with LoopbackCloud(cloud) as served, ThreadPoolExecutor(at_once) as pool:
        ids = iter(cloud.ids)
        # How many requests a look takes is learnt from a process that is let go on.
        counts = {way: pool.submit(_count_looks, served, way, next(ids)) for way in Way}
        looks = {way: count.result() for way, count in counts.items()}
        ways, moments, rng = cycle(Way), cycle(when for when in whens for _ in Way), Random(seed)
        tries = []
        for server_id, way, when in zip(ids, ways, moments, strict=False):
            delay = rng.uniform(0.0, _SOON) if when is When.AFTER else 0.0
            aim = Aim(looks[way], delay)
            tries.append(pool.submit(_stop, served, way, when, server_id, aim, seconds, look_life))
        stops.each.extend(one.result() for one in tries)
    return stops


@contextmanager
def _started(
    served: LoopbackCloud, way: Way, server_id: str, look_life: float | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a process; at the end of the block it is dead."""
    reboot_type = RebootType.SOFT if way in (Way.SOFT_SINCE, Way.SOFT_LOG) else RebootType.HARD
    command = [sys.executable, "-m", "tests.stop_child", served.endpoint, server_id, reboot_type]
    if way is not Way.HARD_STOPPED:
        command.append(f"--since={time.time()}")
    if look_life is not None:
        command.append(f"--look-life={look_life}")
    if way is Way.SOFT_LOG:
        served.cloud.change(server_id, locked=False)
    environment = {**os.environ, "OS_TOKEN": served.cloud.token, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with subprocess.Popen(
        command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _count_looks(served: LoopbackCloud, way: Way, server_id: str) -> int:
    """Let a process restart a server undisturbed, and count what it asks about it before it sends."""
    with _started(served, way, server_id) as process:
        _, err = process.communicate(timeout=PATIENCE)
    calls = [request.call for request in served.cloud.requests if request.server_id == server_id]
    assert Call.REBOOT in calls, f"nothing was sent: {err[-500:]}"
    assert calls.index(Call.REBOOT) > 0, "nothing was asked before the send"
    return calls.index(Call.REBOOT)


def _stop(
    served: LoopbackCloud, way: Way, when: When, server_id: str, aim: Aim, seconds: float, look_life: float | None
) -> Stop:
    cloud = served.cloud
    assert isinstance(cloud, StoppingCloud)
    out = trouble = ""
    acted_at = time.time()
    acts_after = min(_ACTS_AFTER, seconds / 4.0)
    with ExitStack() as stack:
        with _STARTS:
            process = stack.enter_context(_started(served, way, server_id, look_life))
            aim.process = process
            cloud.aims[server_id] = aim
            has_looked = aim.stopped.wait(PATIENCE)
        if not has_looked:
            trouble = "it never looked at its server"
        else:
            time.sleep(acts_after)
            acted_at = cloud.now
            trouble = _act(cloud, way, server_id)
            time.sleep(max(0.0, seconds - acts_after))
            process.send_signal(signal.SIGCONT)
            try:
                out, err = process.communicate(timeout=PATIENCE)
                trouble = trouble or err[-500:]
            except subprocess.TimeoutExpired:
                trouble = "it did not end"
    sends = [r for r in cloud.requests if r.server_id == server_id and r.call is Call.REBOOT]
    later = [r for r in sends if r.time > acted_at and r.status == 202]
    has_sent_before = any(r.time <= acted_at for r in sends)
    # What the other client did may be refused where our send was first; then nothing is doubled.
    outcome = json.loads(out)[0] if out else ""
    return Stop(way, when, outcome, has_sent_before, bool(later), "" if has_sent_before else trouble)


def _act(cloud: Cloud, way: Way, server_id: str) -> str:
    """Do what the other client does; tell if the cloud refuses it."""
    other = Identity(user_id=_OTHER, project_id=cloud.project_id)
    try:
        if way is Way.HARD_STOPPED:
            cloud.power(server_id, on=False, identity=other, request_id=cloud.new_request_id())
        else:
            cloud.reboot_by_other(server_id)
    except ConflictError as refusal:
        return str(refusal)
    return ""
