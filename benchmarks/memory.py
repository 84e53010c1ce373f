"""Measures what a run adds to the memory of its process, for fleets of up to a million servers.

The peak is that of the memory which the system has given to a fresh process (`VmHWM`), less what it had when the ids
were there. The cloud is in the same process and remembers nothing, so what grows is the client's; a million requests
would take a quarter of an hour, so the answer to a send is made in their place.
"""

import asyncio
import json
import multiprocessing
import re
import sys
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final
from unittest.mock import patch

import anyio
import anyio.lowlevel
import httpx

from benchmarks.contenders import TOKEN
from benchmarks.loopback import PAGE, fleet
from benchmarks.tables import Figure, Section, judged, spread, table
from bulkrestart import Outcome, RestartClient, Token
from bulkrestart.cloud.compute import Compute
from bulkrestart.core.faults import Fault
from bulkrestart.core.model import RebootType
from bulkrestart.core.observation import Answer

_SIZES: Final = (100_000, 1_000_000)
#: The two sizes of a fleet whose difference tells what one more server takes that is waited for.
_WAITED: Final = (1_000, 4_000)
_KINDS: Final = ("results kept", "streamed")
_ENDPOINT: Final = "http://cloud.test/v2.1/project"
_MIB: Final = 2**20


class StatelessCloud(httpx.AsyncBaseTransport):
    """Accepts every reboot, and says of every server that it is back.

    Args:
        ids: The servers, in the order of the list.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._at = {server_id: at for at, server_id in enumerate(ids)}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer out of nothing, but not at once: other lanes come to be in flight too."""
        await anyio.lowlevel.checkpoint()
        server_id, _, rest = request.url.path.partition("/servers/")[2].partition("/")
        headers = {"Date": "Mon, 23 Nov 2026 18:00:00 GMT", "x-compute-request-id": f"req-{server_id}"}
        if request.method == "POST":
            return httpx.Response(202, headers=headers)
        return httpx.Response(200, headers=headers, content=json.dumps(self._seen(server_id, rest, request)))

    def _seen(self, server_id: str, rest: str, request: httpx.Request) -> dict[str, object]:
        if server_id == "detail":
            marker = request.url.params.get("marker")
            first = self._at[marker] + 1 if marker else 0
            return {"servers": [_active(each) for each in self._ids[first : first + PAGE]]}
        if rest.startswith("os-instance-actions/"):
            return {"instanceAction": _finished(f"req-{server_id}")}
        return {"server": _active(server_id)}


def _active(server_id: str) -> dict[str, object]:
    return {"id": server_id, "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:task_state": None, "locked": False}


def _finished(request_id: str) -> dict[str, object]:
    return {
        "action": "reboot",
        "request_id": request_id,
        "start_time": "2026-11-23T18:00:00.000000",
        "message": None,
        "events": [{"finish_time": "2026-11-23T18:00:01.000000", "result": "Success"}],
    }


async def peak(size: int) -> int:
    """Restart so many servers and wait for them; give the peak of traced memory in bytes, the ids not counted."""
    ids = fleet(size)
    async with httpx.AsyncClient(transport=StatelessCloud(ids)) as http:
        client = RestartClient(_ENDPOINT, auth=Token(TOKEN), http=http)
        tracemalloc.start()
        report = await client.restart(ids)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert report.summary == {Outcome.COMPLETED: size}
    return most


def run(rounds: int) -> Section:
    """Measure, and write the tables."""
    cases = [(kind, size) for size in _SIZES[::-1] for kind in _KINDS]
    grown: dict[tuple[str, int], list[int]] = {case: [] for case in cases}
    for number in range(rounds):
        print(f"memory: round {number + 1} of {rounds}", file=sys.stderr)
        # Two at a time: memory does not depend on who else is at work.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=spawn, max_tasks_per_child=1) as processes:
            for case, added in zip(cases, processes.map(grow, *zip(*cases, strict=True)), strict=True):
                grown[case].append(added)
    rows = [
        (kind, *(spread(grown[kind, size], 1 / _MIB, ".0f") for size in _SIZES), f"{_each(grown[kind, _SIZES[1]]):.0f}")
        for kind in _KINDS
    ]
    bounds = {"results kept": (600.0, 300.0), "streamed": (150.0, 80.0)}
    figures = [
        Figure(
            name=f"MB added for {_SIZES[1]:,} ids, {kind}",
            values=[added / 1e6 for added in grown[kind, _SIZES[1]]],
            must=bounds[kind][0],
            wanted=bounds[kind][1],
            form=".0f",
        )
        for kind in _KINDS
    ]
    asyncio.run(peak(100))  # what is made once, such as imports and caches, is no part of either figure
    small, large = (asyncio.run(peak(size)) for size in _WAITED)
    each = (large - small) / (_WAITED[1] - _WAITED[0])
    figures.append(
        Figure(name="bytes for each server that is waited for", values=[each], must=1024.0, wanted=700.0, form=".0f")
    )
    columns = ("`wait=False`", *(f"{size:,} ids, MiB" for size in _SIZES), "bytes per server")
    waited = (
        f"With `wait=True`, a server takes {each:.0f} bytes at the peak, result included, as `tracemalloc` sees it: "
        f"from the difference of {_WAITED[0]:,} and {_WAITED[1]:,} servers."
    )
    return Section(text=f"{judged(figures)}\n\n{table(columns, rows)}\n\n{waited}")


def _each(added: Sequence[int]) -> float:
    return median(added) / _SIZES[1]


def grow(kind: str, size: int) -> int:
    """Restart so many servers in this process; give the bytes by which its peak is above what it had before."""
    numbers = count(1)

    async def accept(compute: Compute, server_id: str, reboot_type: RebootType, *, veto: object) -> Answer:
        await anyio.lowlevel.checkpoint()
        return Answer(202, Fault(request_id=f"req-{next(numbers):08x}-0000-4000-8000-000000000000"))

    async def main() -> int:
        ids = fleet(size)
        async with httpx.AsyncClient(transport=StatelessCloud(ids[:100])) as http:
            client = RestartClient(_ENDPOINT, auth=Token(TOKEN), http=http)
            await client.restart(ids[:100], wait=False)
            before = _status("VmRSS")
            if kind == "streamed":
                async with client.restarting(ids, wait=False, keep_details=False) as run:
                    accepted = 0
                    async for result in run:
                        accepted += result.outcome is Outcome.ACCEPTED
            else:
                accepted = (await client.restart(ids, wait=False)).summary[Outcome.ACCEPTED]
        assert accepted == size
        return _status("VmHWM") - before

    with patch.object(Compute, "reboot", accept):
        return asyncio.run(main())


def _status(name: str) -> int:
    """Read what Linux says of this process's memory, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, f"there is no {name}"
    return int(found[1]) * 1024
