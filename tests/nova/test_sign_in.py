"""Signing in at a real Keystone as users do, with clouds.yaml, with OS_* and with a token, and choosing servers."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bulkrestart import AuthError, EndpointError, Outcome, Reason, Report, RestartClient, StopReason, Token

from .bed import Nova, user_environment


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, nova: Nova) -> Path:
    """Give the folder of a user who has a clouds.yaml at the usual place, and nothing else."""
    home = tmp_path_factory.mktemp("home")
    folder = home / ".config" / "openstack"
    folder.mkdir(parents=True)
    nova.clouds_yaml(folder / "clouds.yaml")
    return home


@pytest.fixture
def clouds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find the same clouds.yaml, and no other cloud."""
    for name in ("OS_CLOUD", "OS_AUTH_URL", "OS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(home / ".config" / "openstack" / "clouds.yaml"))


@pytest.fixture(scope="module")
def fleet(nova: Nova) -> dict[str, str]:
    """Give four servers by what they are: three of a fleet, one of them paused, and one that only looks like it."""
    fleet = dict(zip(("web", "database", "paused", "stranger"), nova.take(4), strict=True))
    nova.change(fleet["web"], tags=["fleet", "blue"], metadata={"fleet": "x", "role": "web"})
    nova.change(fleet["database"], tags=["fleet"], metadata={"fleet": "x", "role": "database"})
    nova.change(fleet["paused"], tags=["fleet", "blue"], metadata={"fleet": "x", "role": "web"})
    nova.change(fleet["stranger"], tags=["fleet-2"], metadata={"fleet": "xy", "role": "web"})
    nova.act(fleet["paused"], "pause", status="PAUSED")
    return fleet


@pytest.fixture(scope="module")
def spared(nova: Nova) -> str:
    """Give the id of a server that is never to be rebooted."""
    return nova.take(1)[0]


def bulkrestart(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal, in the home folder of its user."""
    return subprocess.run(
        [sys.executable, "-m", "bulkrestart", *arguments],
        env=env,
        cwd=env["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def restarted(end: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Give the request id of each server's reboot, having checked that all of them completed."""
    assert end.returncode == 0, end.stderr
    report = json.loads(end.stdout)
    assert report["summary"] == {"completed": len(report["results"])}
    return {one["server_id"]: one["request_id"] for one in report["results"]}


def completed(report: Report) -> dict[str, str]:
    """Give the same of a report of the library."""
    assert report.summary == {Outcome.COMPLETED: len(report.results)}, report.problems
    return {result.server_id: str(result.request_id) for result in report.results}


def assert_rebooted_once(nova: Nova, ids: Sequence[str], requests: Mapping[str, str], **of: str) -> None:
    """Check that these servers were restarted and no others, each rebooted once, by one request."""
    assert set(requests) == set(ids)
    for server_id in ids:
        assert [reboot.request_id for reboot in nova.reboots(server_id)] == [requests[server_id]]
        assert nova.posts(server_id, **of) == 1


def listed(*arguments: str, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give what `bulkrestart servers` shows."""
    end = bulkrestart("servers", *arguments, "--output", "jsonl", env=env)
    assert end.returncode == 0, end.stderr
    return [json.loads(line) for line in end.stdout.splitlines()]


class TestTheCommandLine:
    """Each way to say who one is, and where the servers are."""

    @pytest.mark.parametrize("cloud", ["password", "application_credential", "older_region"])
    def test_signs_in_by_clouds_yaml(self, nova: Nova, home: Path, cloud: str) -> None:
        """--cloud is all it takes, whatever the kind of secret, and whether the catalogue's URL names the project."""
        ids = nova.take(1)
        end = bulkrestart("restart", *ids, "--cloud", cloud, "--output", "json", env=user_environment(home))
        assert_rebooted_once(nova, ids, restarted(end))

    def test_takes_the_cloud_of_the_environment(self, nova: Nova, home: Path) -> None:
        """OS_CLOUD is as good as --cloud."""
        ids = nova.take(1)
        end = bulkrestart("restart", *ids, "--output", "json", env=user_environment(home, OS_CLOUD="password"))
        assert_rebooted_once(nova, ids, restarted(end))

    def test_signs_in_with_a_password_of_the_environment(self, nova: Nova, tmp_path: Path) -> None:
        """An openrc file of a dashboard is enough."""
        ids = nova.take(1)
        env = user_environment(
            tmp_path,
            OS_AUTH_URL=nova.keystone,
            OS_USERNAME="demo",
            OS_PASSWORD=nova.password,
            OS_PROJECT_NAME="demo",
            OS_USER_DOMAIN_ID="default",
            OS_PROJECT_DOMAIN_ID="default",
            OS_REGION_NAME=nova.region,
        )
        assert_rebooted_once(nova, ids, restarted(bulkrestart("restart", *ids, "--output", "json", env=env)))

    def test_signs_in_with_an_application_credential_of_the_environment(self, nova: Nova, tmp_path: Path) -> None:
        """So is one with an application credential."""
        ids = nova.take(1)
        env = user_environment(
            tmp_path,
            OS_AUTH_TYPE="v3applicationcredential",
            OS_AUTH_URL=nova.keystone,
            OS_APPLICATION_CREDENTIAL_ID=nova.application_credential["id"],
            OS_APPLICATION_CREDENTIAL_SECRET=nova.application_credential["secret"],
            OS_REGION_NAME=nova.region,
        )
        assert_rebooted_once(nova, ids, restarted(bulkrestart("restart", *ids, "--output", "json", env=env)))

    def test_takes_an_endpoint_and_a_token(self, nova: Nova, tmp_path: Path) -> None:
        """--endpoint with OS_TOKEN needs no Keystone."""
        ids = nova.take(1)
        env = user_environment(tmp_path, OS_TOKEN=nova.token)
        end = bulkrestart("restart", *ids, "--endpoint", nova.endpoint, "--output", "json", env=env)
        assert_rebooted_once(nova, ids, restarted(end))


@pytest.mark.usefixtures("clouds")
class TestTheLibrary:
    """`RestartClient.from_cloud`."""

    @pytest.mark.asyncio
    @pytest.mark.parametrize("cloud", ["password", "application_credential"])
    async def test_signs_in_by_clouds_yaml(self, nova: Nova, cloud: str) -> None:
        """A fleet comes back, and the client tells where the project's servers are."""
        ids = nova.take(2)
        async with RestartClient.from_cloud(cloud) as client:
            report = await client.restart(ids)
            endpoint = (await client.locate()).endpoint
        assert endpoint == nova.endpoint
        assert_rebooted_once(nova, ids, completed(report))

    def test_signs_in_on_trio(self, nova: Nova) -> None:
        """The same holds on trio."""
        ids = nova.take(1)

        async def restart() -> Report:
            async with RestartClient.from_cloud("password") as client:
                return await client.restart(ids)

        assert_rebooted_once(nova, ids, completed(anyio.run(restart, backend="trio")))

    @pytest.mark.asyncio
    async def test_heeds_an_endpoint_override(self, nova: Nova) -> None:
        """compute_endpoint_override leads to /v2 though the catalogue knows none."""
        ids = nova.take(1)
        async with RestartClient.from_cloud("older_url") as client:
            report = await client.restart(ids)
            endpoint = (await client.locate()).endpoint
        assert endpoint == nova.legacy_endpoint
        assert_rebooted_once(nova, ids, completed(report), endpoint=nova.legacy_endpoint)

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("cloud", "error"),
        [("wrong_password", AuthError), ("unscoped", AuthError), ("no_region", EndpointError)],
    )
    async def test_refuses_before_it_sends(self, nova: Nova, spared: str, cloud: str, error: type[Exception]) -> None:
        """What is wrong with the sign-in, or with the catalogue, is an error before anything is sent."""
        async with RestartClient.from_cloud(cloud) as client:
            with pytest.raises(error):
                await client.restart([spared])
        assert nova.posts(spared) == 0


class TestTokensThatEnd:
    """Runs that take longer than their tokens live."""

    @pytest.mark.asyncio
    @pytest.mark.usefixtures("clouds")
    async def test_are_renewed(self, nova: Nova) -> None:
        """No server is lost, none is sent to twice, and no more tokens are asked for than two in a token's life.

        Four of the servers are being rebooted by somebody else when the run begins: they are sent to when the first
        token has ended.
        """
        ids = nova.take(10)
        busy = ids[::3]
        before, began = nova.sign_ins(), time.monotonic()
        with nova.knobs(reboot_seconds=nova.brief_token_seconds * 2 / 3):
            for server_id in busy:
                nova.reboot(server_id, "SOFT")
            for server_id in busy:
                await anyio.to_thread.run_sync(nova.wait_for_task, server_id, "reboot_started")
            # The log tells whole seconds: a reboot that began in the one of our send could be since it.
            await anyio.sleep(2.5)
            async with RestartClient.from_cloud("brief", max_at_once=2) as client:
                report = await client.restart(ids)
        seconds = time.monotonic() - began
        requests = completed(report)
        assert seconds > 2 * nova.brief_token_seconds
        for server_id in ids:
            reboots = [reboot.request_id for reboot in nova.reboots(server_id)]
            assert (len(reboots), reboots[-1]) == (1 + (server_id in busy), requests[server_id])
            assert nova.posts(server_id) == len(report[server_id].attempts)
        assert 2 <= nova.sign_ins() - before <= seconds / (nova.brief_token_seconds / 2) + 2

    def test_are_renewed_for_the_command_line(self, nova: Nova, home: Path) -> None:
        """The same holds for a command."""
        ids = nova.take(3)
        before = nova.sign_ins()
        with nova.knobs(reboot_seconds=nova.brief_token_seconds + 2):
            end = bulkrestart("restart", *ids, "--cloud", "brief", "--output", "json", env=user_environment(home))
        assert_rebooted_once(nova, ids, restarted(end))
        assert 2 <= nova.sign_ins() - before <= 5

    @pytest.mark.asyncio
    async def test_are_asked_for_again_or_stop_the_run(self, nova: Nova) -> None:
        """Where only Nova tells that a token has ended, a function is asked for another, and a text ends the run.

        In both runs every server is accounted for, and none is sent to twice.
        """
        ids, others = nova.take(2), nova.take(2)
        given: list[str] = []
        reports: dict[bool, Report] = {}

        def give() -> str:
            given.append(nova.brief_token())
            return given[-1]

        async def restart(ids: Sequence[str], auth: Token, *, can_renew: bool) -> None:
            async with RestartClient(nova.endpoint, auth=auth) as client:
                reports[can_renew] = await client.restart(ids)

        with nova.knobs(reboot_seconds=nova.brief_token_seconds + 4):
            async with anyio.create_task_group() as both:
                both.start_soon(partial(restart, ids, Token(give), can_renew=True))
                both.start_soon(partial(restart, others, Token(nova.brief_token()), can_renew=False))
        assert_rebooted_once(nova, ids, completed(reports[True]))
        assert len(given) == 2
        stopped = reports[False].stopped
        assert stopped is not None
        assert stopped.reason is StopReason.UNAUTHORIZED
        assert reports[False].summary == {Outcome.ACCEPTED: 2}
        assert [nova.posts(server_id) for server_id in others] == [1, 1]


def test_a_reader_stops_after_ten(nova: Nova, home: Path) -> None:
    """A user who may not restart is refused by ten servers, and the rest are not sent to."""
    ids = nova.take(12)
    options = ("--cloud", "reader", "--yes", "--max-at-once", "1", "--output", "json")
    end = bulkrestart("restart", *ids, *options, env=user_environment(home))
    assert end.returncode == 4, end.stderr
    report = json.loads(end.stdout)
    assert report["summary"] == {"refused": 10, "skipped": 2}
    assert {one["reason"] for one in report["results"]} == {Reason.FORBIDDEN, Reason.STOPPED}
    assert [nova.posts(server_id) for server_id in ids] == [1] * 10 + [0] * 2


class TestRefusals:
    """What cannot work is one line on standard error that names the remedy, and exit 2; nothing is sent."""

    def assert_refused(
        self, nova: Nova, spared: str, *arguments: str, env: Mapping[str, str], words: str, secrets: Sequence[str] = ()
    ) -> None:
        """Run `restart` on a server, and check that it is refused in these words (a regular expression)."""
        before = nova.all_posts()
        end = bulkrestart("restart", spared, *arguments, env=env)
        assert (end.returncode, end.stdout, len(end.stderr.splitlines())) == (2, "", 1), end.stderr
        assert re.search(words, end.stderr), end.stderr
        for secret in (nova.password, nova.application_credential["secret"], nova.token, *secrets):
            assert secret not in end.stderr
        assert nova.all_posts() == before

    @pytest.mark.parametrize(
        ("cloud", "words"),
        [
            pytest.param("wrong_password", "auth section in clouds.yaml", id="wrong password"),
            pytest.param("wrong_secret", "auth section in clouds.yaml", id="wrong secret of an application credential"),
            pytest.param("wrong_project", "auth section in clouds.yaml", id="no such project"),
            pytest.param("unreachable", "auth_url", id="unreachable Keystone"),
            pytest.param("no_keystone", "auth_url", id="no Keystone at its URL"),
            pytest.param("no_region", "region RegionNowhere.*check region_name", id="no such region"),
            pytest.param("no_interface", "interface internal.*check region_name and interface", id="no such interface"),
            pytest.param("unscoped", "project_name", id="no project"),
            pytest.param("nowhere", "clouds.yaml", id="no such cloud"),
        ],
    )
    def test_of_a_cloud(self, nova: Nova, home: Path, spared: str, cloud: str, words: str) -> None:
        """What clouds.yaml says does not lead to a project's servers."""
        secrets = ("wrong-password", "wrong-secret")
        env = user_environment(home)
        self.assert_refused(nova, spared, "--cloud", cloud, env=env, words=words, secrets=secrets)

    def test_of_an_unscoped_token(self, nova: Nova, tmp_path: Path, spared: str) -> None:
        """A token for no project opens none."""
        token = nova.unscoped_token()
        env = user_environment(tmp_path, OS_TOKEN=token)
        self.assert_refused(nova, spared, "--endpoint", nova.endpoint, env=env, words="project", secrets=[token])

    def test_of_another_project(self, nova: Nova, tmp_path: Path, spared: str) -> None:
        """A token for one project does not open another."""
        env = user_environment(tmp_path, OS_TOKEN=nova.token)
        self.assert_refused(nova, spared, "--endpoint", nova.other_endpoint, env=env, words="project")

    def test_of_a_password_that_is_missing(self, nova: Nova, tmp_path: Path, spared: str) -> None:
        """Half an openrc file is refused for what it lacks."""
        env = user_environment(tmp_path, OS_AUTH_URL=nova.keystone, OS_USERNAME="demo", OS_PROJECT_NAME="demo")
        self.assert_refused(nova, spared, env=env, words="OS_PASSWORD|password")

    def test_of_no_cloud_at_all(self, nova: Nova, tmp_path: Path, spared: str) -> None:
        """Without any of them, the line names the ways there are."""
        self.assert_refused(nova, spared, env=user_environment(tmp_path), words="--cloud")

    @pytest.mark.parametrize("cloud", ["wrong_password", "no_region"])
    def test_of_a_list(self, home: Path, cloud: str) -> None:
        """`servers` refuses as `restart` does."""
        end = bulkrestart("servers", "--all", "--cloud", cloud, env=user_environment(home))
        assert (end.returncode, end.stdout, len(end.stderr.splitlines())) == (2, "", 1), end.stderr


class TestTheServers:
    """Which servers there are, and which are chosen."""

    def test_are_those_of_the_openstack_client(self, nova: Nova, home: Path) -> None:
        """The same user sees the same servers with both tools: ids, names and statuses."""
        env = user_environment(home, OS_CLOUD="password")
        theirs = nova.openstack("server", "list", env=env)
        ours = listed("--all", env=env)
        assert len(ours) > 4
        assert {(one["id"], one["name"], one["status"]) for one in ours} == {
            (one["ID"], one["Name"], one["Status"]) for one in theirs
        }
        assert len(ours) == len(theirs)

    @pytest.mark.parametrize(
        ("options", "chosen"),
        [
            ("--tag fleet", {"web", "database", "paused"}),
            ("--tag fleet --tag blue", {"web", "paused"}),
            ("--metadata fleet=x", {"web", "database", "paused"}),
            ("--metadata fleet=x --metadata role=web", {"web", "paused"}),
            ("--name ^({web}|{database})$", {"web", "database"}),
            ("--tag fleet --status PAUSED", {"paused"}),
            ("--tag fleet --status paused --status ACTIVE", {"web", "database", "paused"}),
            ("--tag fleet --status active --name ^{database}$", {"database"}),
            ("--tag fleet --az nova", {"web", "database", "paused"}),
            ("--tag fleet --az nova --az nowhere", {"web", "database", "paused"}),
        ],
    )
    def test_are_chosen(self, nova: Nova, home: Path, fleet: Mapping[str, str], options: str, chosen: set[str]) -> None:
        """All kinds of options must fit, as Nova has the servers."""
        names = {one: nova.show(server_id)["name"] for one, server_id in fleet.items()}
        shown = listed("--cloud", "password", *options.format(**names).split(), env=user_environment(home))
        assert {one["id"] for one in shown} == {fleet[one] for one in chosen}

    @pytest.mark.parametrize("options", ["--tag {tag} --status ACTIVE", "--metadata key={tag} --status active"])
    def test_that_are_chosen_are_restarted(self, nova: Nova, home: Path, options: str) -> None:
        """Only those that fit are restarted."""
        *ids, spared, stopped = nova.take(4)
        tag = f"only-{ids[0]}"
        for server_id in (*ids, stopped):
            nova.change(server_id, tags=[tag], metadata={"key": tag})
        nova.change(spared, tags=[f"{tag}-not"], metadata={"key": f"{tag}-not"})
        nova.act(stopped, "os-stop", status="SHUTOFF")
        arguments = ("--cloud", "password", *options.format(tag=tag).split(), "--output", "json")
        end = bulkrestart("restart", *arguments, env=user_environment(home))
        assert_rebooted_once(nova, ids, restarted(end))
        assert [nova.posts(server_id) for server_id in (spared, stopped)] == [0, 0]

    @pytest.mark.asyncio
    @pytest.mark.usefixtures("clouds")
    async def test_are_restarted_as_they_are_found(self, nova: Nova) -> None:
        """What `servers` gives, `restart` takes."""
        ids = nova.take(2)
        for server_id in ids:
            nova.change(server_id, tags=[f"found-{ids[0]}"], metadata={"of": "found"})
        async with RestartClient.from_cloud("password") as client:
            servers = [server async for server in client.servers(tags=[f"found-{ids[0]}"])]
            report = await client.restart(servers)
        assert {(server.availability_zone, server.metadata["of"]) for server in servers} == {("nova", "found")}
        assert_rebooted_once(nova, ids, completed(report))
