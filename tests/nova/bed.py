"""The real Nova of a test session, as the tests see it: its users' words, its own truth, and its knobs.

Its own requests name no project in their path; those of bulkrestart do, which tells the two apart in Nova's log.
"""

import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

#: Reads everything that Nova tells, the events of actions and locks among them.
MICROVERSION = "compute 2.90"
#: Seconds until something that Nova was asked for must have happened; it takes less than two.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Reboot:
    """A reboot as the action log of its server tells it, to an administrator.

    Attributes:
        request_id: Of the request that asked for it.
        is_error: Whether the row of the action says Error.
        results: Of its events: "Success", "Error", or None while one runs.
    """

    request_id: str
    is_error: bool
    results: tuple[str | None, ...]


class Nova:
    """A running Nova.

    Args:
        facts: What `harness/up.py` printed.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self.url: str = facts["url"]
        self.project_id: str = facts["project_id"]
        self.endpoint: str = facts["endpoint"]
        self.legacy_endpoint = f"{self.url}/v2/{self.project_id}"
        self.token: str = facts["token"]
        self.admin_token: str = facts["admin_token"]
        self.reader_token: str = facts["reader_token"]
        self.other_project_id: str = facts["other_project_id"]
        self.other_endpoint = f"{self.url}/v2.1/{self.other_project_id}"
        self.other_token: str = facts["other_token"]
        self.other_ids: list[str] = facts["other_ids"]
        self.folder = Path(facts["folder"])
        self._fresh = iter(facts["ids"])
        self._knobs = Path(facts["knobs"])
        self._log = Path(facts["log"])
        self._http = httpx.Client(
            base_url=f"{self.url}/v2.1", headers={"OpenStack-API-Version": MICROVERSION}, timeout=60, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def take(self, count: int) -> list[str]:
        """Give the ids of servers that no test has had before: ACTIVE and never rebooted."""
        taken = list(itertools.islice(self._fresh, count))
        if len(taken) < count:
            raise LookupError("the session has no fresh servers left: raise SERVERS in tests/nova/conftest.py")
        return taken

    @contextlib.contextmanager
    def knobs(self, **values: object) -> Iterator[None]:
        """Make reboots slow or failing meanwhile; the knobs are those of harness/slow_fake_driver.py."""
        self._turn(values)
        try:
            yield
        finally:
            self._turn({})

    def _turn(self, values: dict[str, object]) -> None:
        new = self._knobs.with_suffix(".new")
        new.write_text(json.dumps(values))
        new.replace(self._knobs)

    def _get(self, path: str) -> Any:
        return self._http.get(path, headers={"X-Auth-Token": self.admin_token}).raise_for_status().json()

    def show(self, server_id: str) -> dict[str, Any]:
        """Give a server as an administrator sees it."""
        server: dict[str, Any] = self._get(f"/servers/{server_id}")["server"]
        return server

    def reboots(self, server_id: str) -> list[Reboot]:
        """Give the reboots in a server's action log, the oldest first."""
        log = f"/servers/{server_id}/os-instance-actions"
        rows = [row for row in self._get(log)["instanceActions"] if row["action"] == "reboot"]
        return [
            Reboot(
                row["request_id"],
                row["message"] == "Error",
                tuple(event["result"] for event in self._get(f"{log}/{row['request_id']}")["instanceAction"]["events"]),
            )
            for row in reversed(rows)
        ]

    def act(self, server_id: str, action: str, argument: object = None, *, status: str | None = None) -> None:
        """Do something to a server, as a member of its project.

        Args:
            server_id: The server.
            action: Its name in the API: "lock", "os-stop", "pause", "reboot".
            argument: What the API wants with it.
            status: If given, wait until this is its status and no task runs.
        """
        answer = self._http.post(
            f"/servers/{server_id}/action", json={action: argument}, headers={"X-Auth-Token": self.token}
        )
        answer.raise_for_status()
        if status is not None:
            self.wait_for(server_id, lambda server: _is_idle(server) and server["status"] == status)

    def reboot(self, server_id: str, reboot_type: str) -> None:
        """Start a reboot that is somebody else's, as bulkrestart sees it, and do not wait for its end."""
        self.act(server_id, "reboot", {"type": reboot_type})

    def wait_for(self, server_id: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Look at a server until the condition holds; TimeoutError if it does not in time."""
        deadline = time.monotonic() + PATIENCE
        while not condition(server := self.show(server_id)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {PATIENCE:.0f} s the server is still {server}")
            time.sleep(0.1)

    def wait_for_task(self, server_id: str, task_state: str | None) -> None:
        """Look at a server until this task runs."""
        self.wait_for(server_id, lambda server: bool(server["OS-EXT-STS:task_state"] == task_state))

    def posts(self, server_id: str, endpoint: str | None = None) -> int:
        """Count the action requests that bulkrestart sent for a server, by the request log of Nova itself.

        Args:
            server_id: Or whatever was sent as one.
            endpoint: The one that bulkrestart was given; None is `self.endpoint`.
        """
        path = httpx.URL(endpoint or self.endpoint).path
        request = re.escape(f'"POST {path}/servers/{server_id}/action" status: ')
        return len(re.findall(request, self._log.read_text(errors="replace")))


def _is_idle(server: dict[str, Any]) -> bool:
    return server["OS-EXT-STS:task_state"] is None
