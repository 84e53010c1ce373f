"""The simulated cloud beside the real one: the same request gets the same answer, but for what names the cloud itself.

What names it are ids, times and addresses. What docs/simulator.md calls different on purpose is left out by name.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from bulkrestart.simulator import Cloud, LoopbackCloud

from .bed import Nova

NOBODY = "7b0c1a4e-2c5f-4a0e-9a51-000000000000"
#: What the server under Nova adds, and what follows from the length of an address or an id.
IGNORED_HEADERS = {"date", "server", "connection", "content-length", "www-authenticate", "vary"}
#: Servers have no image, and a flavor without links.
IGNORED_KEYS = {"image", "flavor"}
VARYING = {
    r"req-[0-9a-f-]{36}": "REQUEST",
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b": "ID",
    r"\b[0-9a-f]{56}\b": "HOST",
    r"20\d\d-\d\d-\d\dT[\d:.]+Z?": "TIME",
}


def version(wanted: str) -> dict[str, str]:
    """Ask for a microversion."""
    return {"OpenStack-API-Version": f"compute {wanted}"}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two clouds.

    Attributes:
        names: What names the cloud in its answers, and the word for it.
    """

    http: httpx.Client
    project_id: str
    server_id: str
    names: dict[str, str]

    def ask(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, str], object]:
        """Send a request, and give what the answer says, with the cloud's own names taken out."""
        path = path.replace("PROJECT", self.project_id).replace("SERVER", self.server_id)
        if path.endswith("/ROW"):
            path = path.replace("ROW", self.row()["request_id"])
        answer = self.http.request(method, path, **options)
        headers = {name: self.plain(text) for name, text in answer.headers.items() if name not in IGNORED_HEADERS}
        text = self.plain(answer.text)
        try:
            return answer.status_code, headers, _without(json.loads(text), IGNORED_KEYS)
        except ValueError:
            return answer.status_code, headers, text

    def plain(self, text: str) -> str:
        """Put words in the place of what names the cloud."""
        for name, word in self.names.items():
            text = text.replace(name, word)
        for pattern, word in VARYING.items():
            text = re.sub(pattern, word, text)
        return text

    def row(self) -> Any:
        """Give the newest row of the server's action log, with its events."""
        log = f"/{self.project_id}/servers/{self.server_id}/os-instance-actions"
        newest = self.http.get(log).raise_for_status().json()["instanceActions"][0]["request_id"]
        shown = self.http.get(f"{log}/{newest}", headers=version("2.62")).raise_for_status().json()
        return shown["instanceAction"]

    def is_over(self) -> bool:
        """Tell whether no task runs, and the events of the newest action have ended."""
        shown = self.http.get(f"/{self.project_id}/servers/{self.server_id}").raise_for_status().json()
        is_idle = shown["server"]["OS-EXT-STS:task_state"] is None
        return is_idle and all(event["result"] for event in self.row()["events"])


def _without(document: Any, keys: set[str]) -> Any:
    if isinstance(document, dict):
        return {key: _without(value, keys) for key, value in document.items() if key not in keys}
    return [_without(one, keys) for one in document] if isinstance(document, list) else document


@pytest.fixture(scope="module")
def sides(nova: Nova) -> Iterator[tuple[Side, Side]]:
    """Give the real cloud and a simulated one, each with a server that nothing ails."""
    [server_id] = nova.take(1)
    maximum = httpx.get(f"{nova.url}/v2.1", trust_env=False).json()["version"]["version"]
    cloud = Cloud(30, max_microversion=maximum, reboot_seconds=(1, 1))
    cloud.change(cloud.ids[0], name=nova.show(server_id)["name"])
    with ExitStack() as stack:
        served = stack.enter_context(LoopbackCloud(cloud))

        def side(url: str, token: str, project_id: str, server_id: str) -> Side:
            http = httpx.Client(base_url=f"{url}/v2.1", headers={"X-Auth-Token": token}, timeout=60, trust_env=False)
            shown = stack.enter_context(http).get(f"/{project_id}/servers/{server_id}").json()["server"]
            names = {
                project_id: "PROJECT",
                server_id: "SERVER",
                url: "URL",
                shown["user_id"]: "USER",
                shown["OS-EXT-AZ:availability_zone"]: "ZONE",
            }
            return Side(http, project_id, server_id, names)

        yield (
            side(nova.url, nova.token, nova.project_id, server_id),
            side(served.url, cloud.token, cloud.project_id, cloud.ids[0]),
        )


S = "/PROJECT/servers/SERVER"
LOG = f"{S}/os-instance-actions"


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        *(
            ("GET", S, wanted)
            for wanted in ("2.1", "2.8", "2.9", "2.19", "2.26", "2.60", "2.63", "2.73", "2.90", "2.96")
        ),
        *(
            ("GET", f"/PROJECT/servers?{query}", wanted)
            for wanted in ("2.1", "2.60")
            for query in (
                "limit=0",
                "limit=-1",
                "limit=x",
                "marker=x",
                f"marker={NOBODY}",
                "changes-since=xx",
                "changes-since=2099-01-01",
                "status=BANANA",
                "status=DELETED",
                "status=RESCUE&status=SUSPENDED",  # no other test leaves a server so
            )
        ),
        *(
            ("GET", "/PROJECT/servers?limit=0", wanted)
            for wanted in ("2.200", "1.0", "3.0", "x", "2", "2.x", "2.060", "latest")
        ),
        ("GET", f"/PROJECT/servers/{NOBODY}", "2.60"),
        ("GET", "/PROJECT/servers/xyz", "2.60"),
        ("GET", "/PROJECT/servers/xyz/os-instance-actions", "2.60"),
        ("GET", f"/PROJECT/servers/{NOBODY}/os-instance-actions/req-x", "2.60"),
        ("GET", f"{LOG}/req-x", "2.60"),
        *(("GET", LOG, wanted) for wanted in ("2.1", "2.57", "2.58", "2.60")),
        ("GET", f"{LOG}?limit=x", "2.1"),
        *(
            ("GET", f"{LOG}?{query}", "2.60")
            for query in ("limit=0", "limit=x", "changes-since=x", "foo=0", "foo=0&bar=0")
        ),
        ("GET", f"{LOG}?marker=x", "2.60"),
        ("GET", "/abc/servers", "2.60"),
        ("GET", "/xyz/servers", "2.60"),
        ("GET", "/PROJECT/nope", "2.60"),
        ("GET", f"{S}/action", "2.60"),
        ("PUT", f"{S}/action", "2.60"),
        ("GET", "/PROJECT/servers/", "2.60"),
    ],
)
def test_questions(sides: tuple[Side, Side], method: str, path: str, wanted: str) -> None:
    """What is asked is answered alike: status, headers, keys and words."""
    real, simulated = (side.ask(method, path, headers=version(wanted)) for side in sides)
    assert simulated == real


@pytest.mark.parametrize("path", ["/PROJECT/servers", "/nope", S])
def test_unknown_token(sides: tuple[Side, Side], path: str) -> None:
    """A token that counts for nothing is answered alike, wherever it leads."""
    real, simulated = (side.ask("GET", path, headers={"X-Auth-Token": "bad"}) for side in sides)
    assert simulated == real


@pytest.mark.parametrize("accept", ["*/*", "application/json", "image/png"])
def test_no_such_path(sides: tuple[Side, Side], accept: str) -> None:
    """A path that leads nowhere is answered alike in each form."""
    real, simulated = (side.ask("GET", "/PROJECT/nope", headers={"Accept": accept}) for side in sides)
    assert simulated == real


@pytest.mark.parametrize(
    "body",
    [
        b'{"reboot',
        b"",
        b"[]",
        b"{}",
        b'"reboot"',
        b"\xff",
        b'{"reboot": {"type": "SOFT"}, "os-stop": null}',
        b'{"nope": null}',
        b'{"reboot": null}',
        b'{"reboot": []}',
        b'{"reboot": {}}',
        b'{"reboot": {"type": "soft", "x": 1}}',
        b'{"reboot": {"type": "soft", "x": 1, "y": 2}}',
        b'{"reboot": {"x": 1}}',
        b'{"reboot": {"type": null}}',
        b'{"reboot": {"type": 1}}',
        b'{"reboot": {"type": "WARM"}}',
    ],
)
def test_bad_bodies(sides: tuple[Side, Side], body: bytes) -> None:
    """A body that is no action of Nova's is refused in the same words."""
    headers = {"Content-Type": "application/json"}
    real, simulated = (side.ask("POST", f"{S}/action", content=body, headers=headers) for side in sides)
    assert simulated == real


def test_a_life(sides: tuple[Side, Side], nova: Nova) -> None:
    """Locked, rebooted, stopped and started, a server answers alike, is shown alike, and has the same log."""
    steps: list[tuple[str, object]] = [
        ("lock", None),
        ("reboot", {"type": "HARD"}),
        ("os-stop", None),
        ("unlock", None),
        ("os-start", None),
        ("os-stop", None),
        ("os-stop", None),
        ("reboot", {"type": "SOFT"}),
        ("os-start", None),
        ("reboot", {"type": "SOFT"}),
        ("reboot", {"type": "HARD"}),
    ]
    for action, argument in steps:
        real, simulated = (side.ask("POST", f"{S}/action", json={action: argument}) for side in sides)
        assert simulated == real, action
        nova.wait_for(sides[0].server_id, lambda _: all(side.is_over() for side in sides))
        for path in (S, LOG, f"{LOG}/ROW"):
            real, simulated = (side.ask("GET", path, headers=version("2.62")) for side in sides)
            assert simulated == real, (action, path)
