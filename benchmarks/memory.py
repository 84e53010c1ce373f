"""Measures what a run holds of a server: its peak of traced memory, at two sizes of a fleet.

The cloud is in the same process and remembers nothing, so what grows is the client's.
"""

import asyncio
import json
import tracemalloc
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import anyio
import anyio.lowlevel
import httpx

from bulkrestart import Outcome, RestartClient, Token

SIZES: Final = (1_000, 10_000)
_PAGE: Final = 1_000


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
            return {"servers": [_active(each) for each in self._ids[first : first + _PAGE]]}
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
    ids = [str(UUID(int=number)) for number in range(size)]
    async with httpx.AsyncClient(transport=StatelessCloud(ids)) as http:
        client = RestartClient("http://cloud.test/v2.1/project", auth=Token("token"), http=http)
        tracemalloc.start()
        report = await client.restart(ids)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert report.summary == {Outcome.COMPLETED: size}
    return most


def main() -> None:
    """Measure, and print the table."""
    asyncio.run(peak(100))  # what is made once, such as imports and caches, is no part of either figure
    peaks = [asyncio.run(peak(size)) for size in SIZES]
    print("| servers | peak, MiB |\n|---:|---:|")
    for size, most in zip(SIZES, peaks, strict=True):
        print(f"| {size:,} | {most / 2**20:.2f} |")
    print(f"\nBytes per server, from the difference: {(peaks[1] - peaks[0]) / (SIZES[1] - SIZES[0]):.0f}")


if __name__ == "__main__":
    main()
