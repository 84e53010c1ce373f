"""A cloud of two regions on loopback, with projects and users of its own: it shows which of all was taken.

Each region and interface has a compute URL of its own, and the project is the last part of it. So the path of a request
tells what was taken, whoever sends it: `openstack`, or bulkrestart.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from .fake_keystone import FakeKeystone, Reply, Seen

REGIONS: Final = ("eu-1", "eu-2")
INTERFACES: Final = ("public", "internal", "admin")
DOMAINS: Final = {"default": "Default", "d2": "Second"}
#: Projects by domain and name. Each domain has one that is called web.
PROJECTS: Final = {
    ("default", "web"): "aaaa0000aaaa0000aaaa0000aaaa0001",
    ("default", "db"): "aaaa0000aaaa0000aaaa0000aaaa0002",
    ("d2", "web"): "bbbb0000bbbb0000bbbb0000bbbb0001",
}
#: Users by domain and name, with their ids.
USERS: Final = {("default", "ops"): "u-ops", ("default", "root"): "u-root", ("d2", "ops"): "u-ops-2"}
PASSWORD: Final = "s3cret-passw0rd"
SERVER: Final = "616fb98f-46ca-475e-917e-2563e5a8cd19"


@dataclass(slots=True)
class Taken:
    """What a program took.

    Attributes:
        compute: The compute URLs, up to and with the project, of its requests about servers.
        posts: Those of its reboots.
        users: The ids of the users that signed in.
        projects: The ids of the projects that they signed in for.
    """

    compute: set[str] = field(default_factory=set)
    posts: list[str] = field(default_factory=list)
    users: set[str] = field(default_factory=set)
    projects: set[str] = field(default_factory=set)


class TwoRegions(FakeKeystone):
    """A Keystone that knows its users and projects, with a Nova for each region and interface.

    Attributes:
        taken: What the program that runs took.
        regions: The regions in the catalog.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken = Taken()
        self.regions: tuple[str, ...] = REGIONS

    def compute_url(self, region: str = "eu-1", interface: str = "public") -> str:
        """Give the compute URL of a region, without a project."""
        return f"{self.url}/compute-{region}-{interface}/v2.1"

    def answer(self, seen: Seen) -> Reply:
        """Answer one request, of Keystone or of Nova."""
        head, slash, tail = seen.path.partition("/servers")
        if slash:
            return self._serve_servers(f"{self.url}{head}", seen.method, tail)
        return super().answer(seen)

    def _serve_servers(self, compute: str, method: str, tail: str) -> Reply:
        self.taken.compute.add(compute)
        if method == "POST":
            self.taken.posts.append(compute)
            return Reply(status=202, headers={"x-openstack-request-id": "req-616fb98f-46ca-475e-917e-2563e5a8cd19"})
        server: dict[str, object] = {
            "id": SERVER,
            "name": "one",
            "status": "ACTIVE",
            "OS-EXT-STS:vm_state": "active",
            "OS-EXT-STS:task_state": None,
            "OS-EXT-STS:power_state": 1,
            "tenant_id": compute.rsplit("/", 1)[1],
            "metadata": {},
            "addresses": {},
            "image": "",
            "flavor": {"original_name": "m1", "vcpus": 1, "ram": 1, "disk": 1, "ephemeral": 0, "swap": 0},
            "links": [],
        }
        path, _, query = tail.partition("?")
        if path in ("", "/detail"):
            return self._json({"servers": [] if "marker=" in query else [server]}, 200)
        return self._json({"server": server}, 200)

    def _issue(self, number: int) -> Reply:
        auth = self.sign_ins[-1]
        user, scope = self._user(auth.get("identity")), auth.get("scope")
        project = self._project(scope)
        if user is None or (scope is not None and project is None):
            return Reply.error(401, "The request you have made requires authentication.")
        (user_domain, user_name), user_id = user
        self.taken.users.add(user_id)
        now = datetime.now(UTC)
        token: dict[str, object] = {
            "methods": ["password"],
            "user": {"id": user_id, "name": user_name, "domain": _domain(user_domain)},
            "audit_ids": ["a"],
            "issued_at": _time(now),
            "expires_at": _time(now + timedelta(hours=1)),
        }
        if project is not None:
            (project_domain, name), project_id = project
            self.taken.projects.add(project_id)
            endpoints = [
                {
                    "id": f"{region}-{interface}",
                    "interface": interface,
                    "region": region,
                    "region_id": region,
                    "url": f"{self.compute_url(region, interface)}/{project_id}",
                }
                for region in self.regions
                for interface in INTERFACES
            ]
            identity = [{**one, "url": f"{self.url}/v3"} for one in endpoints]
            token["project"] = {"id": project_id, "name": name, "domain": _domain(project_domain)}
            token["roles"] = [{"id": "r", "name": "member"}]
            token["catalog"] = [
                {"id": "i", "type": "identity", "name": "keystone", "endpoints": identity},
                {"id": "c", "type": "compute", "name": "nova", "endpoints": endpoints},
            ]
        return self._json({"token": token}, 201, {"X-Subject-Token": f"token-{number}"})

    def _user(self, identity: object) -> tuple[tuple[str, str], str] | None:
        if not isinstance(identity, dict):
            return None
        if "token" in identity:
            return ("default", "ops"), "u-ops"
        user = identity.get("password", {}).get("user", {})
        return _find(USERS, user) if user.get("password") == PASSWORD else None

    def _project(self, scope: object) -> tuple[tuple[str, str], str] | None:
        return _find(PROJECTS, scope["project"]) if isinstance(scope, dict) and "project" in scope else None


def _find(known: Mapping[tuple[str, str], str], asked: Mapping[str, object]) -> tuple[tuple[str, str], str] | None:
    """Find a user or a project by its id, or by its name in its domain."""
    domain = asked.get("domain")
    where = domain if isinstance(domain, dict) else {}
    for (domain_id, name), id_ in known.items():
        is_there = domain_id == where.get("id") or DOMAINS[domain_id] == where.get("name")
        if id_ == asked.get("id") or (name == asked.get("name") and is_there):
            return (domain_id, name), id_
    return None


def _domain(domain_id: str) -> dict[str, str]:
    return {"id": domain_id, "name": DOMAINS[domain_id]}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def dump(clouds: Mapping[str, object]) -> str:
    """Write clouds.yaml; JSON is YAML."""
    return json.dumps({"clouds": clouds})
