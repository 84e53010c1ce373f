"""Kills runs at random moments, and resumes them from their journals: `python -m tests.kills`.

Simulated fleets live in this process, and each run in one of its own, which is killed by SIGKILL: once, or several
times in a row. What became of each server is counted by the cloud. The exit status is 1 if a promise broke.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from bulkrestart import JournalError, Outcome, RebootType
from bulkrestart.core.checkpoint import Checkpoint, Contents
from bulkrestart.journal import read_journal
from bulkrestart.simulator import Call, Cloud, Fault, Faults, LoopbackCloud

#: Requests at once: as many may be under way when a process dies.
MAX_AT_ONCE: Final = 20
#: Seconds for one process, after which it has no end; one that resumes takes about 4.
PATIENCE: Final = 90.0
#: Seconds in place of the library's graces. The simulator acts on a request at once, and on one whose sender is dead
#: either at once or never; with the real 90 s after each kill, a hundred would take hours.
GRACE: Final = 1.0
#: Seconds between two polls.
POLL: Final = 0.5
#: Seconds from each request to its answer, which is where most kills by the clock fall.
LATENCY: Final = 0.02
REBOOT_SECONDS: Final = (0.2, 0.8)
#: What goes wrong in every other fleet besides the kills.
FAULTS: Final = Faults(
    lost_before=0.04, lost_after=0.04, error_before=0.04, error_after=0.04, late=0.04, late_seconds=GRACE / 3, slow=0.04
)
_ROOT: Final = Path(__file__).parents[1]


class Moment(StrEnum):
    """When a process is killed, as it does something for the nth time; `TIME` is seconds after its first request."""

    TIME = "by the clock"
    COMMITTING = "in the midst of a commit"
    COMMITTED = "right after a commit"
    ARRIVED = "as a send reaches the cloud"
    ANSWERED = "before a send is answered"
    LOOKING = "as a send is looked for"
    PROVING = "as a server is back"


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: at which moment, and the how-manieth of them, or after how many seconds."""

    moment: Moment
    count: float


class LethalCloud(Cloud):
    """A cloud that kills the process that asks it."""

    _aim: "_Aim | None" = None

    def aim(self, process: subprocess.Popen[str], kill: Kill | None) -> threading.Event:
        """Kill a process that has asked nothing yet, or let it live; give the event of its first request."""
        self._aim = _Aim(process, kill)
        return self._aim.has_asked

    def arrive(self, call: Call, server_id: str | None) -> tuple[int, Fault | None]:
        """Note a request that has arrived; its sender may be dead when it is carried out."""
        came = super().arrive(call, server_id)
        if self._aim is not None:
            self._aim.has_asked.set()
        match call:
            case Call.REBOOT:
                self._meet(Moment.ARRIVED)
            case Call.LOG:
                self._meet(Moment.LOOKING)
            case Call.LOG_ROW:
                self._meet(Moment.PROVING)
            case _:
                pass
        return came

    def leave(self, number: int, status: int | None) -> None:
        """Note a request that is done with; its sender may be dead before the answer leaves."""
        if self.requests[number].call is Call.REBOOT:
            self._meet(Moment.ANSWERED)
        super().leave(number, status)

    def _meet(self, moment: Moment) -> None:
        if self._aim is not None and self._aim.kill is not None and self._aim.kill.moment is moment:
            self._aim.met += 1
            if self._aim.met == self._aim.kill.count:
                self._aim.process.kill()


@dataclass(slots=True)
class _Aim:
    """A process that may have to die.

    Attributes:
        process: The process.
        kill: When it dies; None: it is let live.
        has_asked: Set when its first request has come.
        met: How often the moment has come.
    """

    process: subprocess.Popen[str]
    kill: Kill | None
    has_asked: threading.Event = field(default_factory=threading.Event)
    met: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended.

    Attributes:
        code: Its exit status, negative for a signal.
        results: Its report: server, outcome, reason, number of sends, request id; empty if it did not come to that.
        err: What it said on standard error.
        is_overdue: Its end did not come in time.
    """

    code: int
    results: Sequence[tuple[str, str, str | None, int, str | None]]
    err: str
    is_overdue: bool = False

    @property
    def is_killed(self) -> bool:
        """Whether it was killed, and not because it came to no end."""
        return self.code == -signal.SIGKILL and not self.is_overdue


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What each of the processes of one run is started with.

    Attributes:
        endpoint: The cloud.
        token: What it asks for.
        ids: The fleet.
        reboot_type: SOFT or HARD.
        folder: Where the journal is kept.
        max_at_once: Requests at once.
        grace: Seconds in which the cloud acts on a request, or never.
        poll: Seconds between two polls.
    """

    endpoint: str
    token: str
    ids: Sequence[str]
    reboot_type: RebootType
    folder: Path
    max_at_once: int = MAX_AT_ONCE
    grace: float = GRACE
    poll: float = POLL

    @property
    def journal(self) -> Path:
        """The journal."""
        return self.folder / "journal"

    @contextmanager
    def started(self, kill: Kill | None = None) -> Iterator[subprocess.Popen[str]]:
        """Start a process; at the end of the block it is dead."""
        file = self.folder / "ids"
        file.write_text("\n".join(self.ids))
        command = [sys.executable, "-m", "tests.kill_child", self.endpoint, str(self.journal), str(file)]
        command += [self.reboot_type, f"--max-at-once={self.max_at_once}"]
        command += [f"--grace={self.grace}", f"--poll={self.poll}"]
        if kill is not None and kill.moment in (Moment.COMMITTING, Moment.COMMITTED):
            command.append(f"--{kill.moment.name.lower()}={kill.count}")
        environment = {**os.environ, "OS_TOKEN": self.token, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        with subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def contents(self) -> Contents | None:
        """Read the journal of a dead process, which nobody may hold; None if the run has not begun."""
        try:
            contents, holder = read_journal(self.journal)
        except JournalError:
            return None
        assert holder is None, f"the journal is held by {holder}"
        return contents


def end_of(process: subprocess.Popen[str], *, after: float = PATIENCE) -> End:
    """Wait for the end of a process; kill it if it does not come in time."""
    is_overdue = False
    try:
        out, err = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        is_overdue = True
        process.kill()
        out, err = process.communicate()
    return End(process.returncode, [tuple(one) for one in json.loads(out or "[]")], err, is_overdue)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something holds, while a process lives."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "the process has ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_unresolved(checkpoint: Checkpoint) -> bool:
    """Tell whether nobody knows what became of the last send."""
    return checkpoint.sent_at is not None or (checkpoint.is_unresolved and checkpoint.end is None)


@dataclass(slots=True)
class Account:
    """What one fleet went through, as the cloud counted it.

    Attributes:
        killed: The moments at which its processes were killed.
        unresolved: The servers of unknown fate that each kill left.
        sends: Reboot requests that reached the cloud.
        cycled: How many servers were cycled how often.
        seconds: How long it took.
        broken: The promises that broke.
    """

    killed: list[Moment] = field(default_factory=list)
    unresolved: list[int] = field(default_factory=list)
    sends: int = 0
    cycled: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)

    def hold(self, is_kept: bool, promise: str) -> None:
        """Note a promise that broke."""
        if not is_kept:
            self.broken.append(promise)


#: Chooses the next kill by what the cloud has seen, and what the journal holds; None: nobody is killed any more.
Choose = Callable[[Cloud, Contents | None], Kill | None]


def restart_killed(
    cloud: LethalCloud, reboot_type: RebootType, choose: Choose, *, grace: float = GRACE, poll: float = POLL
) -> Account:
    """Restart a whole fleet, with one process after the other until one comes to its end, and hold the promises."""
    account, began = Account(), time.monotonic()
    with LoopbackCloud(cloud) as served, TemporaryDirectory() as folder:
        program = Program(
            endpoint=served.endpoint,
            token=cloud.token,
            ids=cloud.ids,
            reboot_type=reboot_type,
            folder=Path(folder),
            grace=grace,
            poll=poll,
        )
        contents, finished = None, dict[str, Checkpoint]()
        while (kill := choose(cloud, contents)) is not None:
            end = run_once(cloud, program, kill)
            if not end.is_killed:
                break
            contents = program.contents()
            finished |= _check_killed(account, cloud, contents)
            account.killed.append(kill.moment)
        else:
            end = run_once(cloud, program)
        # What the killed have sent twice would be under way.
        time.sleep(cloud.reboot_seconds[1])
        _check_end(account, cloud, end, finished)
        _check_again(account, cloud, program)
    account.seconds = time.monotonic() - began
    return account


def run_once(cloud: LethalCloud, program: Program, kill: Kill | None = None) -> End:
    """Run one process to its end, natural or not."""
    with program.started(kill) as process:
        has_asked = cloud.aim(process, kill)
        if kill is None or kill.moment is not Moment.TIME:
            return end_of(process)
        while process.poll() is None and not has_asked.wait(0.01):
            pass
        return replace(end_of(process, after=kill.count), is_overdue=False)


def _check_killed(account: Account, cloud: Cloud, contents: Contents | None) -> dict[str, Checkpoint]:
    """Hold what a journal promises whenever its process is killed; give the servers that it knows to be back."""
    if contents is None:
        account.unresolved.append(0)
        account.hold(not cloud.posts, "something was sent before the run had begun on the disk")
        return {}
    checkpoints = contents.checkpoints
    account.hold(list(contents.ids) == cloud.ids, "the journal lost a server")
    account.unresolved.append(sum(map(is_unresolved, checkpoints.values())))
    # A copy, because what a dead process has sent may still arrive.
    for server_id, count in dict(cloud.posts).items():
        checkpoint = checkpoints.get(server_id)
        written = 0 if checkpoint is None else len(checkpoint.attempts) + (checkpoint.sent_at is not None)
        account.hold(count <= written, f"{server_id}: {count} sends came, {written} were on the disk")
    back = {one.server_id: one for one in checkpoints.values() if one.end and one.end.outcome is Outcome.COMPLETED}
    for server_id in back:
        account.hold(cloud.cycles[server_id] == 1, f"{server_id}: completed, and not cycled once")
    return back


def _check_end(account: Account, cloud: Cloud, end: End, finished: dict[str, Checkpoint]) -> None:
    """Hold what is promised of a run that came to its end."""
    account.sends = cloud.posts.total()
    account.cycled = Counter(cloud.cycles.values())
    account.hold(end.code == 0, f"exit {end.code}{', overdue' if end.is_overdue else ''}: {end.err[-2000:]}")
    account.hold([one[0] for one in end.results] == cloud.ids, "the report lost a server, or has one twice")
    for server_id, outcome, reason, sends, request_id in end.results:
        account.hold(outcome == Outcome.COMPLETED, f"{server_id}: {outcome}, {reason}")
        came = cloud.posts[server_id]
        account.hold(came <= sends, f"{server_id}: {came} sends came, {sends} were reported")
        before = finished.get(server_id)
        is_kept = before is None or (len(before.attempts), before.result().request_id) == (sends, request_id)
        account.hold(is_kept, f"{server_id}: it was finished, and has changed")
    for server_id, count in cloud.cycles.items():
        account.hold(count == 1, f"{server_id}: cycled {count} times")
        # A send that Nova refuses has no row.
        rows = sum(row.action == "reboot" for row in cloud.server(server_id).log)
        account.hold(rows == 1, f"{server_id}: {rows} reboots were accepted")


def _check_again(account: Account, cloud: LethalCloud, program: Program) -> None:
    """Hold that once more asks nothing, and tells the same."""
    before = len(cloud.requests)
    end = run_once(cloud, program)
    account.hold(len(cloud.requests) == before, "a finished run asked the cloud again")
    is_same = [one[0] for one in end.results] == cloud.ids and {one[1] for one in end.results} == {Outcome.COMPLETED}
    account.hold(is_same, "a finished run does not tell its results again")


def in_order(*kills: Kill) -> Choose:
    """Choose these kills, one after the other."""
    rest = iter(kills)
    return lambda cloud, contents: next(rest, None)


def at_random(rng: Random, count: int) -> Choose:
    """Choose so many kills that are likely to come."""
    left = count

    def choose(cloud: Cloud, contents: Contents | None) -> Kill | None:
        nonlocal left
        if not left:
            return None
        left -= 1
        checkpoints = list(contents.checkpoints.values()) if contents else []
        unsent = len(cloud.ids) - len(cloud.posts)
        unproven = len(cloud.ids) - sum(checkpoint.end is not None for checkpoint in checkpoints)
        # How many there may be of each: each kill leaves something to the next.
        share = left + 2
        counts = {
            Moment.COMMITTING: unproven // MAX_AT_ONCE,
            Moment.COMMITTED: unproven // MAX_AT_ONCE,
            Moment.ARRIVED: unsent // share,
            Moment.ANSWERED: unsent // share,
            Moment.LOOKING: sum(map(is_unresolved, checkpoints)),
            Moment.PROVING: unproven // share,
        }
        moment = rng.choice([Moment.TIME, *(moment for moment, most in counts.items() if most)])
        if moment is Moment.TIME:
            return Kill(moment, rng.uniform(0.0, 2.0))
        return Kill(moment, rng.randint(1, counts[moment]))

    return choose


def main() -> int:
    """Kill, print, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--servers", type=int, default=300, help="of each fleet (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--at-once", type=int, default=2, help="fleets at once (default: %(default)s)")
    parser.add_argument("--bound", type=float, default=1800.0, help="seconds for all (default: %(default)s)")
    options = parser.parse_args()
    began = time.monotonic()
    accounts: list[Account] = []
    with ThreadPoolExecutor(options.at_once) as pool:
        # A kill whose moment never comes does not count: more fleets make up for it.
        while (left := options.kills - _kills(accounts)) > 0 and time.monotonic() < began + options.bound:
            fates = _fates(options.seed, len(accounts), left)
            accounts += pool.map(lambda fate: _restart_one(options, *fate), fates)
    seconds = time.monotonic() - began
    _print(options, accounts, seconds)
    is_kept = not any(account.broken for account in accounts)
    return 0 if is_kept and _kills(accounts) >= options.kills and seconds < options.bound else 1


def _fates(seed: int, number: int, kills: int) -> Iterator[tuple[int, int]]:
    """Give the next fleets, and how often each is killed: most of them once."""
    while kills > 0:
        count = min(kills, Random(f"{seed} {number} kills").choice([1, 1, 1, 2, 3, 5]))
        yield number, count
        number, kills = number + 1, kills - count


def _kills(accounts: Iterable[Account]) -> int:
    return sum(len(account.killed) for account in accounts)


def _kind(number: int) -> tuple[RebootType, Faults | None]:
    """Give the type and the faults of a fleet."""
    return tuple(RebootType)[number % 2], FAULTS if number % 4 > 1 else None


def _restart_one(options: argparse.Namespace, number: int, kills: int) -> Account:
    rng = Random(f"{options.seed} {number}")
    reboot_type, faults = _kind(number)
    # On a legacy host two accepted reboots both cycle the guest.
    cloud = LethalCloud(
        options.servers,
        seed=rng.getrandbits(32),
        reboot_seconds=REBOOT_SECONDS,
        latency=LATENCY,
        faults=faults,
        legacy_host=True,
    )
    account = restart_killed(cloud, reboot_type, at_random(rng, kills))
    for line in account.broken:
        sys.stdout.write(f"--seed {options.seed}, fleet {number} ({reboot_type}, {account.killed}): {line}\n")
    sys.stdout.flush()
    return account


def _print(options: argparse.Namespace, accounts: Sequence[Account], seconds: float) -> None:
    by_moment: dict[Moment, list[int]] = {moment: [] for moment in Moment}
    by_kind: dict[str, list[Account]] = {}
    for number, account in enumerate(accounts):
        reboot_type, faults = _kind(number)
        by_kind.setdefault(f"{reboot_type}{', with faults' if faults else ''}", []).append(account)
        for moment, unresolved in zip(account.killed, account.unresolved, strict=True):
            by_moment[moment].append(unresolved)
    rows = [(moment, len(counts), sum(counts), max(counts, default=0)) for moment, counts in by_moment.items()]
    _print_table(("killed", "kills", "resumed as unresolved", "at most"), rows)
    head = ("runs", "fleets", "kills", "in a row", "servers", "sends", "resumed as unresolved")
    _print_table(
        (*head, "cycled once", "twice", "never", "promises broken", "seconds at most"),
        [(kind, *_sums(some)) for kind, some in (*by_kind.items(), ("all", accounts))],
    )
    each = f"{options.servers} servers in each run, seed {options.seed}"
    sys.stdout.write(f"\n{_kills(accounts)} kills, {each}: {seconds:.0f} s\n")


def _sums(accounts: Sequence[Account]) -> tuple[object, ...]:
    cycled = sum((account.cycled for account in accounts), Counter[int]())
    return (
        len(accounts),
        _kills(accounts),
        max(len(account.killed) for account in accounts),
        cycled.total(),
        sum(account.sends for account in accounts),
        sum(sum(account.unresolved) for account in accounts),
        cycled[1],
        sum(servers for count, servers in cycled.items() if count > 1),
        cycled[0],
        sum(len(account.broken) for account in accounts),
        f"{max(account.seconds for account in accounts):.0f}",
    )


def _print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    sys.stdout.write("\n")
    for line in (head, ("---", *("---:" for _ in head[1:])), *rows):
        sys.stdout.write(f"| {' | '.join(map(str, line))} |\n")


if __name__ == "__main__":
    sys.exit(main())
