"""The real Nova of a test session, as the tests see it: its users' words, its own truth, and its knobs.

Its own requests name no project in their path; those of bulkrestart do, which tells the two apart in Nova's log.
"""

import contextlib
import itertools
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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
        self.operator_token: str = facts["operator_token"]
        self.reader_token: str = facts["reader_token"]
        self.other_project_id: str = facts["other_project_id"]
        self.other_endpoint = f"{self.url}/v2.1/{self.other_project_id}"
        self.other_token: str = facts["other_token"]
        self.other_ids: list[str] = facts["other_ids"]
        self.keystone: str = facts["keystone"]
        self.brief_keystone: str = facts["brief_keystone"]
        self.brief_token_seconds: int = facts["brief_token_seconds"]
        self.region: str = facts["region"]
        self.older_region: str = facts["older_region"]
        self.password: str = facts["password"]
        self.application_credential: dict[str, str] = facts["application_credential"]
        self.folder = Path(facts["folder"])
        self._fresh = iter(facts["ids"])
        self._knobs = Path(facts["knobs"])
        self._spared: list[str] = []
        self._log = Path(facts["log"])
        self._brief_keystone_log = Path(facts["brief_keystone_log"])
        self._openstack: str = facts["openstack"]
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

    def take_spared(self) -> str:
        """Give the id of another one, whose reboots no knob makes slow or failing: for a test beside the others."""
        [server_id] = self.take(1)
        self._spared.append(server_id)
        return server_id

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
        new.write_text(json.dumps(values | {"spared": self._spared}))
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

    def downtime(self, server_id: str) -> tuple[float, float]:
        """Tell when the only reboot of a server began and ended; `inf` for one that has not, or ended in Error."""
        log = f"/servers/{server_id}/os-instance-actions"
        [row] = [row for row in self._get(log)["instanceActions"] if row["action"] == "reboot"]
        [event] = self._get(f"{log}/{row['request_id']}")["instanceAction"]["events"]
        is_over = event["result"] == "Success"
        return _seconds(row["start_time"]), _seconds(event["finish_time"]) if is_over else float("inf")

    def act(
        self,
        server_id: str,
        action: str,
        argument: object = None,
        *,
        status: str | None = None,
        token: str | None = None,
    ) -> None:
        """Do something to a server, as a member of its project.

        Args:
            server_id: The server.
            action: Its name in the API: "lock", "os-stop", "pause", "reboot".
            argument: What the API wants with it.
            status: If given, wait until this is its status and no task runs.
            token: Of the member; None is the user whose token bulkrestart has.
        """
        answer = self._http.post(
            f"/servers/{server_id}/action", json={action: argument}, headers={"X-Auth-Token": token or self.token}
        )
        answer.raise_for_status()
        if status is not None:
            self.wait_for(server_id, lambda server: _is_idle(server) and server["status"] == status)

    def reboot(self, server_id: str, reboot_type: str) -> None:
        """Start a reboot as another user of the project, and do not wait for its end."""
        self.act(server_id, "reboot", {"type": reboot_type}, token=self.operator_token)

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
        return _count(self._log, re.escape(f'"POST {path}/servers/{server_id}/action" status: '))

    def all_posts(self) -> int:
        """Count all that ever asked Nova to do something, the tests' own requests among them."""
        return _count(self._log, '"POST ')

    def sign_ins(self) -> int:
        """Count the tokens that the brief Keystone was ever asked for, by its own request log."""
        return _count(self._brief_keystone_log, '"POST /v3/auth/tokens" status: ')

    def unscoped_token(self) -> str:
        """Give a token of the user demo that is for no project."""
        return self._sign_in(self.keystone)

    def brief_token(self) -> str:
        """Give a token of the user demo that soon ends."""
        return self._sign_in(self.brief_keystone, scope={"project": {"id": self.project_id}})

    def _sign_in(self, keystone: str, **scope: object) -> str:
        user = {"name": "demo", "domain": {"id": "default"}, "password": self.password}
        identity = {"methods": ["password"], "password": {"user": user}}
        answer = self._http.post(f"{keystone}/auth/tokens", json={"auth": {"identity": identity, **scope}})
        return str(answer.raise_for_status().headers["X-Subject-Token"])

    def change(self, server_id: str, *, tags: Collection[str] = (), metadata: Mapping[str, str] | None = None) -> None:
        """Put these tags and this metadata on a server, as a member of its project."""
        headers = {"X-Auth-Token": self.token}
        for part, body in (("tags", {"tags": list(tags)}), ("metadata", {"metadata": metadata or {}})):
            self._http.put(f"/servers/{server_id}/{part}", json=body, headers=headers).raise_for_status()

    def clouds_yaml(self, path: Path) -> None:
        """Write a clouds.yaml: `password`, `application_credential`, and one cloud for each way to go wrong."""
        password = {
            "auth_url": self.keystone,
            "username": "demo",
            "password": self.password,
            "project_name": "demo",
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        application_credential = {
            "auth_url": self.keystone,
            "application_credential_id": self.application_credential["id"],
            "application_credential_secret": self.application_credential["secret"],
        }
        clouds: dict[str, dict[str, object]] = {
            "password": {"auth": password},
            "application_credential": {"auth_type": "v3applicationcredential", "auth": application_credential},
            "older_region": {"auth": password, "region_name": self.older_region},
            "older_url": {"auth": password, "compute_endpoint_override": self.legacy_endpoint},
            "brief": {"auth": password | {"auth_url": self.brief_keystone}},
            "reader": {"auth": password | {"username": "reader"}},
            "wrong_password": {"auth": password | {"password": "wrong-password"}},
            "wrong_secret": {
                "auth_type": "v3applicationcredential",
                "auth": application_credential | {"application_credential_secret": "wrong-secret"},
            },
            "wrong_project": {"auth": password | {"project_name": "nowhere"}},
            "unscoped": {"auth": {key: value for key, value in password.items() if not key.startswith("project")}},
            "unreachable": {"auth": password | {"auth_url": f"http://127.0.0.1:{_closed_port()}/v3"}},
            "no_keystone": {"auth": password | {"auth_url": f"{self.url}/nothing/v3"}},
            "no_region": {"auth": password, "region_name": "RegionNowhere"},
            "no_interface": {"auth": password, "interface": "internal"},
        }
        # JSON is YAML.
        path.write_text(json.dumps({"clouds": {name: {"region_name": self.region} | clouds[name] for name in clouds}}))

    def openstack(self, *arguments: str, env: Mapping[str, str]) -> Any:
        """Run the OpenStack client of the installation, and give what it prints as JSON."""
        end = subprocess.run(
            [self._openstack, *arguments, "-f", "json"],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return json.loads(end.stdout)


def user_environment(home: Path, **variables: str) -> dict[str, str]:
    """Give an environment in which no tool finds a cloud but the one that the variables name.

    Args:
        home: An empty folder: a clouds.yaml of the person who runs the tests is not to be found.
        variables: What is set in it.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "XDG_"))}
    return inherited | {"HOME": str(home)} | variables


def _count(log: Path, request: str) -> int:
    return len(re.findall(request, log.read_text(errors="replace")))


def _seconds(moment: str) -> float:
    """Read a time of the action log, which is in UTC and does not say so."""
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


def _closed_port() -> int:
    """Give a port where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _is_idle(server: dict[str, Any]) -> bool:
    return server["OS-EXT-STS:task_state"] is None
