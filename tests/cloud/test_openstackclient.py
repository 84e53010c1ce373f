"""Beside `openstack` itself: for a clouds.yaml and a shell's `OS_*`, both take the same servers, or ours is refused."""

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from bulkrestart import EndpointError, Plan, Report, RestartClient, Target
from bulkrestart.cli.app import run

from .loopback import both_backends
from .two_regions import PASSWORD, PROJECTS, SERVER, Taken, TwoRegions, dump

with warnings.catch_warnings():
    # osc-lib warns of modules of its own.
    warnings.simplefilter("ignore")
    from openstackclient.shell import OpenStackShell
    from osc_lib.clientmanager import ClientCache, ClientManager

#: keystoneauth1 keeps its connections in a session that nobody closes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

WEB, DB, OTHER_WEB = PROJECTS["default", "web"], PROJECTS["default", "db"], PROJECTS["d2", "web"]
Settings = dict[str, object]


@pytest.fixture(scope="module")
def served() -> Iterator[TwoRegions]:
    """Give the cloud."""
    with TwoRegions().serving() as cloud:
        assert isinstance(cloud, TwoRegions)
        yield cloud


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("OS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("OS_CLIENT_SECURE_FILE", str(tmp_path / "secure.yaml"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One combination.

    Attributes:
        env: The shell's variables; URL/ stands for the cloud's own.
        cloud: The settings of the cloud "lab" in clouds.yaml, besides the usual sign-in.
        auth: Changes of its `auth` section; None leaves something out.
        secure: Its settings in secure.yaml.
        others: Other clouds of clouds.yaml.
        options: Options of ours; `openstack` is given its own for the same.
        takes: Region, interface and project that are taken; None: ours is refused.
        words: What the refusal says.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    cloud: Settings = field(default_factory=dict)
    auth: Settings = field(default_factory=dict)
    secure: Settings = field(default_factory=dict)
    others: Settings = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    takes: tuple[str, str, str] | None = None
    words: str = ""


EU1: Final[Settings] = {"region_name": "eu-1"}
BOTH: Final[Settings] = {"regions": ["eu-1", "eu-2"]}
BY_ID: Final[Settings] = {"project_id": WEB, "project_name": None}
#: A user with no cloud in clouds.yaml, as an openrc file has it.
OPENRC: Final = {
    "OS_CLOUD": "",
    "OS_AUTH_URL": "URL/v3",
    "OS_USERNAME": "ops",
    "OS_PASSWORD": PASSWORD,
    "OS_PROJECT_NAME": "web",
    "OS_USER_DOMAIN_NAME": "Default",
    "OS_PROJECT_DOMAIN_NAME": "Default",
}


def one(region: str = "eu-1", interface: str = "public", project: str = WEB) -> tuple[str, str, str]:
    """Say what is taken."""
    return region, interface, project


CASES: Final = {
    # Regions.
    "region of the file": Case(cloud=EU1, takes=one()),
    "region of the shell": Case(env={"OS_REGION_NAME": "eu-2"}, takes=one("eu-2")),
    "region of the shell, regions": Case(cloud=BOTH, env={"OS_REGION_NAME": "eu-2"}, takes=one("eu-2")),
    "regions, none named": Case(cloud=BOTH, words="several regions (eu-1, eu-2): name one, such as --region eu-2"),
    "no region anywhere": Case(words="several regions (eu-1, eu-2): name one, such as --region eu-2"),
    "region of the shell is empty": Case(cloud=EU1, env={"OS_REGION_NAME": ""}, takes=one()),
    "regions, empty in the shell": Case(cloud=BOTH, env={"OS_REGION_NAME": ""}, words="several regions"),
    "another region than the file's": Case(
        cloud=EU1, env={"OS_REGION_NAME": "eu-2"}, words="it has no region eu-2, only eu-1"
    ),
    "a region in another case": Case(cloud=BOTH, env={"OS_REGION_NAME": "EU-2"}, words="it has no region EU-2"),
    "a region that the catalog has not": Case(env={"OS_REGION_NAME": "eu-3"}, words="it has it in eu-1, eu-2"),
    "a comma in region_name": Case(cloud={"region_name": "eu-1,eu-2"}, words="several regions (eu-1, eu-2)"),
    "a list in region_name": Case(cloud={"region_name": ["eu-1", "eu-2"]}, words="several regions (eu-1, eu-2)"),
    "regions with values": Case(
        cloud={"regions": ["eu-1", {"name": "eu-2", "values": {"auth": {"project_name": "db"}}}]},
        env={"OS_REGION_NAME": "eu-2"},
        takes=one("eu-2", project=DB),
    ),
    "regions with values, project of the shell": Case(
        cloud={"regions": ["eu-1", {"name": "eu-2", "values": {"auth": {"project_name": "db"}}}]},
        env={"OS_REGION_NAME": "eu-2", "OS_PROJECT_NAME": "web"},
        takes=one("eu-2"),
    ),
    "one region in regions": Case(cloud={"regions": ["eu-2"]}, takes=one("eu-2")),
    "regions against region_name": Case(
        cloud={"regions": ["eu-2"], "region_name": "eu-1"}, words="region_name is eu-1, and regions has only eu-2"
    ),
    "both name one, and the shell none": Case(cloud={**BOTH, "region_name": "eu-2"}, words="several regions"),
    "region of the service": Case(cloud={**EU1, "compute_region_name": "eu-2"}, takes=one("eu-2")),
    "region of the service against the shell": Case(
        cloud={"compute_region_name": "eu-1"}, env={"OS_REGION_NAME": "eu-2"}, words="compute_region_name is eu-1"
    ),
    # Interfaces.
    "interface of the file": Case(cloud={**EU1, "interface": "internal"}, takes=one(interface="internal")),
    "interface of the shell": Case(cloud=EU1, env={"OS_INTERFACE": "internal"}, takes=one(interface="internal")),
    "interface of the shell against the file": Case(
        cloud={**EU1, "interface": "internal"}, env={"OS_INTERFACE": "admin"}, takes=one(interface="admin")
    ),
    "endpoint_type of the file": Case(cloud={**EU1, "endpoint_type": "internalURL"}, takes=one(interface="internal")),
    "endpoint_type of the file against the shell": Case(
        cloud={**EU1, "endpoint_type": "internal"}, env={"OS_INTERFACE": "public"}, words="OS_INTERFACE is public"
    ),
    "interface of the service against the shell": Case(
        cloud={**EU1, "compute_interface": "internal"}, env={"OS_INTERFACE": "admin"}, words="OS_INTERFACE is admin"
    ),
    "OS_ENDPOINT_TYPE": Case(cloud=EU1, env={"OS_ENDPOINT_TYPE": "internalURL"}, words="OS_ENDPOINT_TYPE is internal"),
    "OS_ENDPOINT_TYPE and OS_INTERFACE": Case(
        cloud=EU1,
        env={"OS_ENDPOINT_TYPE": "internalURL", "OS_INTERFACE": "internal"},
        takes=one(interface="internal"),
    ),
    "interfaces in order": Case(cloud={**EU1, "interface": ["internal", "public"]}, takes=one(interface="internal")),
    # Projects.
    "project of the shell by name": Case(cloud=EU1, env={"OS_PROJECT_NAME": "db"}, takes=one(project=DB)),
    "project of the shell by id": Case(cloud=EU1, env={"OS_PROJECT_ID": DB}, takes=one(project=DB)),
    "tenant of the shell by name": Case(cloud=EU1, env={"OS_TENANT_NAME": "db"}, takes=one(project=DB)),
    "tenant of the shell by id": Case(cloud=EU1, env={"OS_TENANT_ID": DB}, takes=one(project=DB)),
    "project before tenant": Case(
        cloud=EU1, env={"OS_PROJECT_NAME": "db", "OS_TENANT_NAME": "web"}, takes=one(project=DB)
    ),
    "project of the shell is empty": Case(
        cloud=EU1, env={"OS_PROJECT_NAME": "", "OS_TENANT_NAME": ""}, takes=one(project=WEB)
    ),
    "id of the file, id of the shell": Case(cloud=EU1, auth=BY_ID, env={"OS_PROJECT_ID": DB}, takes=one(project=DB)),
    "id of the file, name of the shell": Case(
        cloud=EU1,
        auth=BY_ID,
        env={"OS_PROJECT_NAME": "db"},
        words="is for the project web, which has the configured id",
    ),
    "id of the file, the same name in the shell": Case(
        cloud=EU1, auth=BY_ID, env={"OS_PROJECT_NAME": "Web"}, takes=one()
    ),
    "a project that is not there": Case(cloud=EU1, env={"OS_PROJECT_NAME": "nothing"}, words="is refused"),
    "a project-id with a dash in the file": Case(
        cloud=EU1, auth={"project_name": None, "project-id": WEB}, env={"OS_PROJECT_ID": DB}, takes=one()
    ),
    "no project": Case(cloud=EU1, auth={"project_name": None}, words="is for no project"),
    # Domains and users.
    "domain of the project by name": Case(
        cloud=EU1, env={"OS_PROJECT_DOMAIN_NAME": "Second"}, takes=one(project=OTHER_WEB)
    ),
    "domain of the project by id": Case(
        cloud=EU1,
        auth={"project_domain_name": None, "project_domain_id": "default"},
        env={"OS_PROJECT_DOMAIN_ID": "d2"},
        takes=one(project=OTHER_WEB),
    ),
    "domain by id in the file, by name in the shell": Case(
        cloud=EU1,
        auth={"project_domain_name": None, "project_domain_id": "default"},
        env={"OS_PROJECT_DOMAIN_NAME": "Second"},
        words="is for the project domain Default",
    ),
    "no domain, version 3": Case(
        cloud=EU1,
        auth={"project_domain_name": None, "user_domain_name": None},
        env={"OS_IDENTITY_API_VERSION": "3"},
        takes=one(),
    ),
    "default domain of the shell": Case(
        cloud=EU1,
        auth={"project_domain_name": None, "user_domain_name": None},
        env={"OS_IDENTITY_API_VERSION": "3", "OS_DEFAULT_DOMAIN": "d2"},
        takes=one(project=OTHER_WEB),
    ),
    "user of the shell": Case(cloud=EU1, env={"OS_USERNAME": "root"}, takes=one()),
    "user of the shell in another domain": Case(cloud=EU1, env={"OS_USER_DOMAIN_NAME": "Second"}, takes=one()),
    "user by id in the file, by name in the shell": Case(
        cloud=EU1, auth={"username": None, "user_id": "u-ops"}, env={"OS_USERNAME": "root"}, words="for the user ops"
    ),
    "password of the shell": Case(cloud=EU1, auth={"password": None}, env={"OS_PASSWORD": PASSWORD}, takes=one()),
    "a wrong password in the shell": Case(cloud=EU1, env={"OS_PASSWORD": "wrong"}, words="is refused"),
    # Where the sign-in goes.
    "auth_url of the shell": Case(cloud=EU1, env={"OS_AUTH_URL": "URL/v3/"}, takes=one()),
    "auth_url of the shell alone": Case(cloud=EU1, auth={"auth_url": None}, env={"OS_AUTH_URL": "URL/v3"}, takes=one()),
    "another auth_url in the shell": Case(
        cloud=EU1, auth={"auth_url": "http://127.0.0.1:9/v3"}, env={"OS_AUTH_URL": "URL/v3"}, words="is another cloud"
    ),
    "a token in the shell": Case(cloud=EU1, env={"OS_TOKEN": "t"}, words="no use for OS_TOKEN"),
    "a token and its type in the shell": Case(
        cloud=EU1,
        auth={"username": None, "password": None, "user_domain_name": None},
        env={"OS_TOKEN": "t", "OS_AUTH_TYPE": "v3token"},
        takes=one(),
    ),
    "an unknown type in the shell": Case(cloud=EU1, env={"OS_AUTH_TYPE": "odd"}, words="odd"),
    "the system as scope": Case(cloud=EU1, env={"OS_SYSTEM_SCOPE": "all"}, words="cannot be scoped to multiple"),
    "a trust": Case(cloud=EU1, env={"OS_TRUST_ID": "t"}, words="cannot be scoped to multiple"),
    "another service provider": Case(cloud=EU1, env={"OS_SERVICE_PROVIDER": "sp"}, words="service_provider"),
    "an endpoint of the service in the shell": Case(
        cloud=EU1, env={"OS_COMPUTE_ENDPOINT_OVERRIDE": "URL/compute-eu-2-public/v2.1"}, words="OS_COMPUTE_ENDPOINT"
    ),
    # Files.
    "secure.yaml": Case(cloud=EU1, auth={"password": None}, secure={"auth": {"password": PASSWORD}}, takes=one()),
    "secure.yaml counts before clouds.yaml": Case(
        cloud=EU1, secure={"auth": {"project_name": "db"}}, takes=one(project=DB)
    ),
    "another cloud of the file": Case(
        cloud=EU1, env={"OS_CLOUD": "other"}, others={"other": {"region_name": "eu-2"}}, takes=one("eu-2")
    ),
    "a cloud that is not there": Case(cloud=EU1, env={"OS_CLOUD": "none"}, words="there is no cloud of that name"),
    "a file that is not there": Case(
        cloud=EU1, env={"OS_CLIENT_CONFIG_FILE": "/nonexistent"}, words="there is no such file"
    ),
    "a profile": Case(cloud={**EU1, "profile": "otc"}, takes=one()),
    "the only cloud of the file": Case(cloud=EU1, env={"OS_CLOUD": ""}, words="no endpoint"),
    # Options.
    "region by option": Case(options={"--region": "eu-2"}, takes=one("eu-2")),
    "region by option before the shell": Case(
        cloud=BOTH, env={"OS_REGION_NAME": "eu-1"}, options={"--region": "eu-2"}, takes=one("eu-2")
    ),
    "region by option against the file": Case(
        cloud=EU1, options={"--region": "eu-2"}, words="it has no region eu-2, only eu-1"
    ),
    "interface by option before the shell and the file": Case(
        cloud={**EU1, "interface": "internal"},
        env={"OS_INTERFACE": "public"},
        options={"--interface": "admin"},
        takes=one(interface="admin"),
    ),
    "project by option by name": Case(
        cloud=EU1, env={"OS_PROJECT_NAME": "web"}, options={"--project": "db"}, takes=one(project=DB)
    ),
    "project by option by id": Case(
        cloud=EU1, env={"OS_PROJECT_NAME": "db"}, options={"--project": OTHER_WEB}, takes=one(project=OTHER_WEB)
    ),
    "all of them, an openrc file": Case(
        env=OPENRC,
        options={"--region": "eu-2", "--interface": "internal", "--project": "db"},
        takes=one("eu-2", "internal", DB),
    ),
    # No cloud is named.
    "an openrc file": Case(env={**OPENRC, "OS_REGION_NAME": "eu-2"}, takes=one("eu-2")),
    "an openrc file without a region": Case(env=OPENRC, words="several regions (eu-1, eu-2)"),
    "an openrc file with an interface": Case(
        env={**OPENRC, "OS_REGION_NAME": "eu-2", "OS_INTERFACE": "internal"}, takes=one("eu-2", "internal")
    ),
    "an openrc file with an endpoint type": Case(
        env={**OPENRC, "OS_REGION_NAME": "eu-2", "OS_ENDPOINT_TYPE": "internalURL"}, takes=one("eu-2", "internal")
    ),
    "an openrc file with both": Case(
        env={**OPENRC, "OS_REGION_NAME": "eu-2", "OS_ENDPOINT_TYPE": "admin", "OS_INTERFACE": "public"},
        words="OS_INTERFACE is public, and the interface is admin",
    ),
    "an openrc file with an endpoint": Case(
        env={
            **OPENRC,
            "OS_REGION_NAME": "eu-2",
            "OS_COMPUTE_ENDPOINT_OVERRIDE": "URL/compute-eu-2-public/v2.1/%(project_id)s",
        },
        takes=one("eu-2"),
    ),
    "an openrc file with the endpoint of another region": Case(
        env={**OPENRC, "OS_REGION_NAME": "eu-2", "OS_COMPUTE_ENDPOINT_OVERRIDE": "URL/compute-eu-1-public/v2.1"},
        words="is the endpoint of region eu-1, and the configured region is eu-2",
    ),
    "an openrc file with a project by both": Case(
        env={**OPENRC, "OS_REGION_NAME": "eu-1", "OS_PROJECT_ID": DB}, words="for the project db"
    ),
    "an openrc file beside OS_CLOUD": Case(
        cloud=EU1, env={**OPENRC, "OS_CLOUD": "lab", "OS_PROJECT_NAME": "db"}, takes=one(project=DB)
    ),
}


def prepare(case: Case, served: TwoRegions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the files and the variables of a case."""

    def filled(value: object) -> object:
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items() if one is not None}
        return value

    auth: Settings = {
        "auth_url": f"{served.url}/v3",
        "username": "ops",
        "password": PASSWORD,
        "project_name": "web",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    others = {name: {"auth": auth, **settings} for name, settings in case.others.items() if isinstance(settings, dict)}
    lab = {"auth": {**auth, **case.auth}, **case.cloud}
    Path("clouds.yaml").write_text(dump({"lab": filled(lab), **others}))
    Path("secure.yaml").write_text(dump({"lab": case.secure} if case.secure else {}))
    for name, value in {"OS_CLOUD": "lab", **case.env}.items():
        monkeypatch.setenv(name, value.replace("URL/", f"{served.url}/"))


def run_openstack(served: TwoRegions, options: Mapping[str, str]) -> tuple[int, Taken]:
    """List the servers with openstackclient; tell its exit code, and what it took."""
    project = "--os-project-id" if options.get("--project") in PROJECTS.values() else "--os-project-name"
    names = {"--region": "--os-region-name", "--interface": "--os-interface", "--project": project}
    given = [word for name, value in options.items() for word in (names[name], value)]
    served.taken = Taken()
    for cache in vars(ClientManager).values():
        if isinstance(cache, ClientCache):
            # It is made for one command in a process.
            cache._handle = None
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            code = OpenStackShell().run([*given, "server", "list", "--no-name-lookup", "-f", "json"])
    finally:
        root.handlers[:], root.level = handlers, level
    return code, served.taken


def run_ours(served: TwoRegions, *options: str) -> tuple[int, Taken]:
    """Restart the servers with ours; tell its exit code, and what it took."""
    served.taken = Taken()
    return run(["restart", "--all", "--no-wait", "--no-journal", "--yes", *options]), served.taken


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_same_servers_are_taken_or_it_is_refused(
    case: Case, served: TwoRegions, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The endpoint, with its project, and the user are those that `openstack` takes; or nothing is sent, exit 2."""
    prepare(case, served, monkeypatch)
    code, ours = run_ours(served, *(word for option in case.options.items() for word in option))
    out, err = capfd.readouterr()
    assert PASSWORD not in out + err
    if case.takes is None:
        assert (code, out, err.count("\n"), ours.posts) == (2, "", 1, []), err
        assert case.words in err
        return
    region, interface, project = case.takes
    endpoint = served.compute_url(region, interface)
    assert code == 0, err
    theirs_code, theirs = run_openstack(served, case.options)
    assert theirs_code == 0
    # Of an endpoint that is configured `openstack` may leave out the project: to Nova the token names it then.
    assert {url.removesuffix(f"/{project}") for url in theirs.compute} == {endpoint}
    assert ours.posts == [f"{endpoint}/{project}"]
    assert (ours.users, ours.projects) == (theirs.users, theirs.projects)
    assert theirs.projects == {project}


# What an option says that openstackclient has no like of, or sees otherwise.


@pytest.mark.parametrize(
    ("options", "env", "cloud", "takes"),
    [
        pytest.param(
            {"--project": "db"}, {"OS_PROJECT_ID": WEB}, EU1, one(project=DB), id="a name before an id of the shell"
        ),
        pytest.param(
            {"--project": DB.upper()}, {}, {**EU1, "auth_type": "v3password"}, one(project=DB), id="an id in capitals"
        ),
        pytest.param(
            {"--interface": "public"},
            {"OS_ENDPOINT_TYPE": "admin"},
            {**EU1, "endpoint_type": "internal", "compute_interface": "internal"},
            one(),
            id="an interface before the file's endpoint_type and that of the service",
        ),
        pytest.param(
            {"--region": "eu-2"}, {}, {"compute_region_name": "eu-1"}, one("eu-2"), id="a region before the service's"
        ),
        pytest.param(
            {"--region": "eu-2"}, {**OPENRC, "OS_REGION_NAME": "eu-1"}, {}, one("eu-2"), id="a region before openrc's"
        ),
    ],
)
def test_an_option_counts_first(
    options: Mapping[str, str],
    env: Mapping[str, str],
    cloud: Settings,
    takes: tuple[str, str, str],
    served: TwoRegions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An option counts before the shell and the file, also where `openstack` lets another setting count first."""
    prepare(Case(env=env, cloud=cloud), served, monkeypatch)
    code, ours = run_ours(served, *(word for option in options.items() for word in option))
    region, interface, project = takes
    assert (code, ours.posts) == (0, [f"{served.compute_url(region, interface)}/{project}"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--region", ""), "region is empty"),
        (("--project", " "), "project is empty"),
        (("--region", "eu\n2"), "region is empty or holds control characters"),
        (("--interface", "internalURL"), "interface must be public, internal or admin, not 'internalURL'"),
        (("--region", "eu-2", "--endpoint", f"https://h/v2.1/{WEB}"), "give --endpoint or --region, not both"),
        (("--interface", "admin", "--endpoint", f"https://h/v2.1/{WEB}"), "give --endpoint or --interface, not both"),
        (("--project", "web", "--endpoint", f"https://h/v2.1/{WEB}"), "give --endpoint or --project, not both"),
    ],
)
@pytest.mark.parametrize("command", [("restart", "--all", "--no-journal"), ("servers", "--all")])
def test_an_option_that_cannot_be_meant_is_refused(
    command: tuple[str, ...],
    options: tuple[str, ...],
    words: str,
    served: TwoRegions,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It is one line that names the option, exit 2, and the network is not used."""
    prepare(Case(), served, monkeypatch)
    served.seen.clear()
    code = run([*command, *options])
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not served.seen


@pytest.mark.parametrize("name", ["region", "interface", "project"])
@pytest.mark.parametrize("value", [5, b"eu-2", ["eu-2"], True])
def test_an_argument_that_is_no_text_is_refused(name: str, value: object) -> None:
    """`from_cloud` says what came in place of a name."""
    given: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be a string, not {type(value).__name__}"):
        RestartClient.from_cloud("lab", **given)


@both_backends
def test_the_library_takes_what_the_command_takes(
    backend: str, served: TwoRegions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`from_cloud` reads a named cloud by the shell's variables and its arguments, and `locate` names what it took."""
    prepare(Case(cloud=BOTH, env={"OS_REGION_NAME": "eu-2"}), served, monkeypatch)

    async def main() -> tuple[Target, Plan, Report]:
        async with RestartClient.from_cloud("lab", interface="internal", project="db") as client:
            plan = await client.plan([SERVER])
            return await client.locate(), plan, await client.restart([SERVER], wait=False)

    target, plan, report = anyio.run(main, backend=backend)
    endpoint = f"{served.compute_url('eu-2', 'internal')}/{DB}"
    assert target == Target(endpoint=endpoint, project_id=DB, project_name="db", cloud="lab", region="eu-2")
    assert (plan.target, report.target) == (target, target)
    assert plan.to_dict()["target"] == report.to_dict()["target"] == asdict(target)


@pytest.mark.parametrize("cloud", [BOTH, {}], ids=["file", "catalog"])
def test_the_library_refuses_what_is_left_open(
    cloud: Settings, served: TwoRegions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several regions are a ValueError where the file names them, and an EndpointError where the catalog does."""
    prepare(Case(cloud=cloud), served, monkeypatch)
    served.taken = Taken()

    async def main() -> None:
        async with RestartClient.from_cloud("lab") as client:
            await client.restart([SERVER])

    with pytest.raises((ValueError, EndpointError), match=r'several regions \(eu-1, eu-2\).*region="eu-2"'):
        anyio.run(main)
    assert not served.taken.compute


# What names the target.


def test_the_plan_the_journal_and_the_report_name_the_target(
    served: TwoRegions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Cloud, region, project by name and id, and endpoint are in each, and the sign-in's secrets in none."""
    prepare(Case(cloud=EU1), served, monkeypatch)
    journal = str(tmp_path / "run.journal")
    endpoint = f"{served.compute_url()}/{WEB}"
    expected = {"endpoint": endpoint, "project_id": WEB, "project_name": "web", "cloud": "lab", "region": "eu-1"}
    restart = ["restart", "--all", "--no-wait", "--yes", "--journal", journal]

    def printed(*arguments: str) -> str:
        assert run(arguments) == 0
        out, err = capfd.readouterr()
        assert PASSWORD not in out + err
        return str(out)

    lines = ("cloud     lab", "region    eu-1", f"project   web ({WEB})", f"endpoint  {endpoint}")
    assert "\n".join(lines) in printed(*restart, "--dry-run")
    assert json.loads(printed(*restart, "--dry-run", "--output", "json"))["target"] == expected
    assert f"at cloud lab, region eu-1, project web ({WEB}), endpoint {endpoint}\n" in printed(*restart)
    assert json.loads(printed(*restart, "--output", "json"))["target"] == expected
    heading = printed("journal", journal).splitlines()[0]
    assert f" at cloud lab, region eu-1, project web ({WEB}), endpoint {endpoint}, begun " in heading
    assert json.loads(printed("journal", journal, "--output", "json"))["target"] == expected
    assert PASSWORD.encode() not in Path(journal).read_bytes()


def test_a_run_is_resumed_at_its_endpoint(
    served: TwoRegions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another name of the cloud goes on with a journal of the same endpoint; another region or project does not."""
    prepare(Case(cloud=EU1, others={"other": EU1}), served, monkeypatch)
    journal = str(tmp_path / "run.journal")
    restart = ["restart", SERVER, "--no-wait", "--journal", journal]
    served.taken = Taken()
    assert run(restart) == 0
    assert run([*restart, "--cloud", "other"]) == 0
    assert run(["restart", SERVER, "--no-wait", "--journal", journal, "--endpoint", served.compute_url()]) == 2
    capfd.readouterr()
    assert run([*restart, "--project", "db"]) == 2
    err = capfd.readouterr().err
    assert f"project web ({WEB}), endpoint" in err
    assert f"not at cloud lab, region eu-1, project db ({DB}), endpoint" in err
    assert run([*restart, "--interface", "internal"]) == 2
    assert len(served.taken.posts) == 1
