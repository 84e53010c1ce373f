"""A client that meets answers which grow when they are decompressed; run as a program.

`python -m tests.bombed BACKEND WAY BOMB` writes a line of JSON: `grown`, the bytes of memory that the process needed
besides what it had before, `held`, the longest time between two passes of the event loop, in seconds of CPU, so that a
busy machine makes no difference, and `seen`, what came of each request. The server is a process of its own.
"""

import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.model import RebootType
from tests.cloud.loopback import compute_of, sender_of

#: Requests at once, and the seconds that each may take.
AT_ONCE: Final = 10
_SECONDS: Final = 5.0


@contextmanager
def _serving(bomb: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.bombs", bomb]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


def _memory(name: str) -> int:
    """The bytes of memory that this process has (VmRSS), or has had at most (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


async def _measure(way: str, url: str) -> dict[str, object]:
    held = 0.0
    seen: list[str] = []

    async def watch() -> None:
        nonlocal held
        last = time.thread_time()
        while True:
            await anyio.sleep(0.001)
            now = time.thread_time()
            held = max(held, now - last)
            last = now

    async def ask(request: Callable[[Compute], Awaitable[object]]) -> None:
        async with sender_of(way) as sender:
            compute = compute_of(sender, url, timeout=_SECONDS)
            seen.append(type(await request(compute)).__name__)

    requests: list[Callable[[Compute], Awaitable[object]]] = [
        lambda compute: compute.reboot("s", RebootType.SOFT),
        lambda compute: compute.page(),
        lambda compute: compute.show("s"),
        lambda compute: compute.actions("s"),
        lambda compute: compute.groups(),
    ]
    # What is imported and set up at first use is not the bombs'.
    await ask(requests[0])
    seen.clear()
    before = _memory("VmRSS")
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await anyio.sleep(0.01)
        held = 0.0
        async with anyio.create_task_group() as asking:
            for number in range(AT_ONCE):
                asking.start_soon(ask, requests[number % len(requests)])
        group.cancel_scope.cancel()
    return {"grown": _memory("VmHWM") - before, "held": held, "seen": sorted(seen)}


def main(backend: str, way: str, bomb: str) -> None:
    """Measure."""
    with _serving(bomb) as url:
        sys.stdout.write(json.dumps(anyio.run(_measure, way, url, backend=backend)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
