"""What a cloud holds before its users come: projects, users and servers, all made through the HTTP APIs."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

from configuration import OLDER_REGION, PASSWORD, REGION

IMAGE = "155d900f-4e14-4e4c-a73d-069cbf4541e6"  # one of those of Nova's GlanceFixture
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Api:
    """One of the APIs, as one user.

    Args:
        url: Its root, with the version.
        token: Of the user; None only to ask for one.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.headers = {"Content-Type": "application/json", "OpenStack-API-Version": "compute 2.90"}
        if token is not None:
            self.headers["X-Auth-Token"] = token

    def send(self, method: str, path: str, body: object = None) -> tuple[Any, Any]:
        """Send one request and give the headers and the JSON of its answer; RuntimeError for a refusal."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self.headers, method=method)
        try:
            with DIRECT.open(request, timeout=120) as answer:
                text = answer.read()
                return answer.headers, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {request.full_url}: {error.code} {error.read().decode()}") from None

    def get(self, path: str) -> Any:
        """Read."""
        return self.send("GET", path)[1]

    def post(self, path: str, **body: object) -> Any:
        """Make something."""
        return self.send("POST", path, body)[1]


def sign_in(keystone: str, user: str, project: str) -> str:
    """Give a token of this user for this project."""
    domain = {"id": "default"}
    headers, _ = Api(keystone, None).send(
        "POST",
        "/auth/tokens",
        {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": user, "domain": domain, "password": PASSWORD}},
                },
                "scope": {"project": {"name": project, "domain": domain}},
            }
        },
    )
    return str(headers["X-Subject-Token"])


def application_credential(keystone: str, user: str, project: str) -> dict[str, str]:
    """Make an application credential of this user for this project, as the user; give its id and its secret."""
    api = Api(keystone, sign_in(keystone, user, project))
    api.headers["X-Subject-Token"] = api.headers["X-Auth-Token"]
    user_id = api.get("/auth/tokens")["token"]["user"]["id"]
    path = f"/users/{user_id}/application_credentials"
    made = api.post(path, application_credential={"name": "tests"})["application_credential"]
    return {"id": made["id"], "secret": made["secret"]}


def identity(keystone: str, nova: str) -> dict[str, str]:
    """Make the projects, the users and the catalog; give the ids of the projects by name."""
    api = Api(keystone, sign_in(keystone, "admin", "admin"))
    roles = {role["name"]: role["id"] for role in api.get("/roles")["roles"]}
    if "service" not in roles:
        roles["service"] = api.post("/roles", role={"name": "service"})["role"]["id"]
    projects: dict[str, str] = {}
    for name in ("service", "demo", "other"):
        projects[name] = api.post("/projects", project={"name": name, "domain_id": "default"})["project"]["id"]
    for name, project, user_roles in (
        ("nova", "service", ("admin", "service")),
        ("demo", "demo", ("member", "reader")),
        ("operator", "demo", ("member", "reader")),
        ("reader", "demo", ("reader",)),
        ("other", "other", ("member", "reader")),
    ):
        user = api.post("/users", user={"name": name, "password": PASSWORD, "domain_id": "default"})["user"]["id"]
        for role in user_roles:
            api.send("PUT", f"/projects/{projects[project]}/users/{user}/roles/{roles[role]}")
    service = api.post("/services", service={"name": "nova", "type": "compute"})["service"]["id"]
    api.post("/regions", region={"id": OLDER_REGION})
    for region, url in ((REGION, nova), (OLDER_REGION, f"{nova}/$(project_id)s")):
        endpoint = {"service_id": service, "interface": "public", "url": url, "region_id": region}
        api.post("/endpoints", endpoint=endpoint)
    return projects


def make_servers(nova: str, token: str, name: str, count: int) -> list[str]:
    """Make servers, wait until they are ACTIVE, and give their ids.

    They come of one request: concurrent ones fight for the one host in Placement and end in NoValidHost.
    """
    api = Api(nova, token)
    api.post(
        "/servers",
        server={
            "name": name,
            "flavorRef": "1",
            "imageRef": IMAGE,
            "networks": "none",
            "min_count": count,
            "max_count": count,
        },
    )
    deadline = time.monotonic() + 60 + 3 * count
    while api.get("/servers?status=BUILD&limit=1")["servers"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count} servers did not become ACTIVE")
        time.sleep(0.3)
    servers = api.get("/servers/detail")["servers"]
    if not_active := [server for server in servers if server["status"] != "ACTIVE"]:
        raise RuntimeError(f"{len(not_active)} of {count} servers are not ACTIVE, the first: {not_active[0]}")
    return [server["id"] for server in servers]


def servers(keystone: str, nova: str, count: int) -> dict[str, object]:
    """Make the servers of the projects demo and other; give the tokens of all users and the ids."""
    tokens = {
        "token": sign_in(keystone, "demo", "demo"),
        "admin_token": sign_in(keystone, "admin", "admin"),
        "operator_token": sign_in(keystone, "operator", "demo"),
        "reader_token": sign_in(keystone, "reader", "demo"),
        "other_token": sign_in(keystone, "other", "other"),
    }
    flavor = {"id": "1", "name": "tiny", "ram": 64, "vcpus": 1, "disk": 1}
    Api(nova, tokens["admin_token"]).post("/flavors", flavor=flavor)
    return {
        **tokens,
        "ids": make_servers(nova, tokens["token"], "web", count),
        "other_ids": make_servers(nova, tokens["other_token"], "other", 2),
    }
