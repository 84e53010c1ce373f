"""Whatever fails, nothing that is left behind tells a secret: no stream, log, report, repr or traceback."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import httpx
import pytest

from bulkrestart import AccessKey, RestartClient, Rollout, Token
from bulkrestart.simulator import Cloud, Face, Fault, LoopbackCloud
from tests.core.test_secrets import ACCESS_KEY, BASE64_KEY, FERNET, FORMS, JWT, UUID_TOKEN, letters
from tests.core.test_secrets import PASSWORD as PASSPHRASE

pytestmark = pytest.mark.unmeasured

ROOT: Final = Path(__file__).parents[1]
PASSWORD: Final = "s3cret-of-the-user"
TOKEN: Final = "s3cret-of-the-environment"
ISSUED: Final = "s3cret-that-was-issued"
SECRET_KEY: Final = "s3cret-of-the-key"
SECURITY_TOKEN: Final = "s3cret-of-temporary-keys"
PROXY_PASSWORD: Final = "s3cret-of-the-proxy"
#: What every secret here begins with.
MARK: Final = "s3cret"


class Keystone(BaseHTTPRequestHandler):
    """A Keystone that knows one password, and issues one token."""

    protocol_version = "HTTP/1.1"
    password = PASSWORD
    compute = ""

    def do_GET(self) -> None:
        """Tell the versions."""
        links = [{"rel": "self", "href": f"http://{self.headers['host']}/v3/"}]
        self._answer(200, {"version": {"id": "v3.14", "status": "stable", "links": links}})

    def do_POST(self) -> None:
        """Issue the token."""
        given = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if given["auth"]["identity"]["password"]["user"]["password"] != self.password:
            self._answer(
                401, {"error": {"code": 401, "title": "Unauthorized", "message": "It requires authentication."}}
            )
            return
        endpoint = {"interface": "public", "region": "r", "region_id": "r", "url": self.compute, "id": "e"}
        token = {
            "user": {"id": "u", "name": "demo", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "demo", "domain": {"id": "default", "name": "Default"}},
            "catalog": [{"type": "compute", "name": "nova", "id": "s", "endpoints": [endpoint]}],
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2026-01-01T01:00:00.000000Z",
            "methods": ["password"],
        }
        self._answer(201, {"token": token}, {"X-Subject-Token": ISSUED})

    def _answer(self, status: int, document: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep it to oneself."""


class Proxy(Keystone):
    """A proxy that lets nobody through."""

    def _refuse(self) -> None:
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_CONNECT = _refuse  # noqa: N815 - http.server looks for these names


@contextmanager
def serving(handler: type[Keystone]) -> Iterator[str]:
    """Serve on loopback; give the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Scenario:
    """A run, and what fails in it.

    Attributes:
        says: What is said of it.
        by: What signs: "token", "function", "keys" or "cloud".
        password: What Keystone takes.
        tokens: What the cloud takes.
        face: Who answers.
        faults: What the first send meets.
        proxy: "refusing", "absent" or "rubbish"; the cloud is named so that it is gone through.
        defect: What raises a `TypeError`, in our package.
        is_interrupted: Whether a signal comes when the cloud is asked first, which then does not answer.
    """

    says: str
    _: KW_ONLY
    by: str = "token"
    password: str = PASSWORD
    tokens: tuple[str, ...] = (TOKEN, ISSUED)
    face: Face = Face.NOVA
    faults: tuple[Fault, ...] = ()
    proxy: str = ""
    defect: str = ""
    is_interrupted: bool = False


#: Where a defect is raised: when an answer is read, when it is decided on, and when a sign-in has come back.
READ, DECIDE, SIGN = "cloud.compute.read_fault", "run.submit.decide", "cloud.credentials.Credential"

FAILURES: Final = {
    "nothing": Scenario("2 accepted in"),
    "nothing, keys": Scenario("2 accepted in", by="keys", face=Face.HUAWEI),
    "nothing, cloud": Scenario("2 accepted in", by="cloud"),
    "refused token": Scenario("the cloud does not let us in", tokens=()),
    "refused function": Scenario("the cloud does not let us in", by="function", tokens=()),
    "refused keys": Scenario("check the access key", by="keys", face=Face.HUAWEI, tokens=()),
    "wrong password": Scenario("is refused: Unauthorized", by="cloud", password="another"),
    "refused issued token": Scenario("the cloud does not let us in", by="cloud", tokens=()),
    "lost replies, keys": Scenario(
        "2 accepted in", by="keys", face=Face.HUAWEI, faults=(Fault.no_reply(applied=True),)
    ),
    "refused in the middle": Scenario("2 accepted in", faults=(Fault.error(401),) * 2),
    "refused in the middle, cloud": Scenario("2 accepted in", by="cloud", faults=(Fault.error(401),) * 3),
    "refusing proxy": Scenario("407", proxy="refusing"),
    "refusing proxy, cloud": Scenario("HTTP 407", by="cloud", proxy="refusing"),
    "absent proxy, keys": Scenario("does not answer", by="keys", proxy="absent"),
    "absent proxy, cloud": Scenario("through the proxy", by="cloud", proxy="absent"),
    "rubbish proxy": Scenario("names no usable proxy", proxy="rubbish"),
    "rubbish proxy, cloud": Scenario("names no usable proxy", by="cloud", proxy="rubbish"),
    "defect in an answer": Scenario("TypeError: a defect", defect=READ),
    "defect in an answer, keys": Scenario("TypeError: a defect", by="keys", face=Face.HUAWEI, defect=READ),
    "defect in a decision, cloud": Scenario("TypeError: a defect", by="cloud", defect=DECIDE),
    "defect in a sign-in, cloud": Scenario("TypeError: a defect", by="cloud", defect=SIGN),
    "defect in a sign-in, function": Scenario("TypeError: a defect", by="function", defect=SIGN),
    "Ctrl-C": Scenario("ancelled", is_interrupted=True),
    "Ctrl-C, cloud": Scenario("ancelled", by="cloud", is_interrupted=True),
}
#: Those of which the command line says something else than the others.
SHOWN: Final = (
    "nothing, cloud",
    "refused token",
    "refused keys",
    "wrong password",
    "refused in the middle, cloud",
    "refusing proxy",
    "rubbish proxy",
    "defect in a decision, cloud",
    "defect in a sign-in, cloud",
    "Ctrl-C, cloud",
)


@dataclass(frozen=True)
class Stage:
    """A scenario that is set up.

    Attributes:
        arguments: Those of `tests/telling.py`.
        options: Those of the command line that say the same.
        environment: The environment that has the secrets.
        hanging: What will be connected to when it is time to interrupt; None otherwise.
    """

    arguments: dict[str, Any]
    options: list[str]
    environment: dict[str, str]
    hanging: socket.socket | None


@contextmanager
def staged(scenario: Scenario, folder: Path) -> Iterator[Stage]:
    """Set a scenario up."""
    cloud = Cloud(2, face=scenario.face, reboot_seconds=(0.01, 0.02))
    cloud.tokens.clear()
    for token in scenario.tokens:
        cloud.add_token(token)
    if scenario.tokens:
        cloud.add_access_key("AKAKAK")
    cloud.script(cloud.ids[0], *scenario.faults)
    with ExitStack() as stack:
        served = stack.enter_context(LoopbackCloud(cloud))
        hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0))) if scenario.is_interrupted else None
        endpoint = served.endpoint
        if hanging is not None:
            hanging.settimeout(20)
            endpoint = f"http://127.0.0.1:{hanging.getsockname()[1]}/v2.1/p"
        if scenario.proxy:
            endpoint = "http://compute.test/v2.1/p"
        handler = type("Handler", (Keystone,), {"password": scenario.password, "compute": endpoint})
        keystone = stack.enter_context(serving(handler))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OS_", "HUAWEICLOUD_SDK_"))},
            "OS_CLIENT_CONFIG_FILE": str(folder / "clouds.yaml"),
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(folder),
            **_secrets(scenario.by),
            **(_proxied(stack, scenario.proxy) if scenario.proxy else {}),
        }
        _write_clouds(folder / "clouds.yaml", "keystone.test" if scenario.proxy else keystone)
        (folder / "bulkrestart").mkdir()
        journal = str(folder / "bulkrestart" / "journal")
        arguments = {"endpoint": endpoint, "by": scenario.by, "cloud": "one", "ids": cloud.ids, "journal": journal}
        yield Stage(
            arguments | {"defect": scenario.defect},
            [*(["--cloud", "one"] if scenario.by == "cloud" else ["--endpoint", endpoint]), *cloud.ids],
            environment,
            hanging,
        )


def _secrets(by: str) -> dict[str, str]:
    if by == "keys":
        names = ("AK", "SK", "SECURITY_TOKEN")
        values = ("AKAKAK", SECRET_KEY, SECURITY_TOKEN)
        return {f"HUAWEICLOUD_SDK_{name}": value for name, value in zip(names, values, strict=True)}
    return {"OS_TOKEN": TOKEN} if by != "cloud" else {}


def _proxied(stack: ExitStack, kind: str) -> dict[str, str]:
    where = {"absent": "127.0.0.1:9", "rubbish": "127.0.0.1:port"}.get(kind) or stack.enter_context(serving(Proxy))
    url = f"http://user:{PROXY_PASSWORD}@{where}"
    return dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), url) | {"NO_PROXY": ""}


def _write_clouds(path: Path, keystone: str) -> None:
    auth = {
        "auth_url": f"http://{keystone}/v3",
        "username": "demo",
        "password": PASSWORD,
        "project_name": "demo",
        "user_domain_id": "default",
        "project_domain_id": "default",
    }
    path.write_text(json.dumps({"clouds": {"one": {"auth": auth}}}))


def run(stage: Stage, *command: str) -> tuple[int, str]:
    """Run a program to its end, or until it is interrupted; give all that it wrote, its journal as well."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=stage.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            if stage.hanging is not None:
                connection, _ = stage.hanging.accept()
                with connection:
                    process.send_signal(signal.SIGINT)
                    written, _ = process.communicate(timeout=30)
            else:
                written, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    folder = Path(stage.environment["XDG_STATE_HOME"], "bulkrestart")
    journals = [path.read_bytes().decode("latin-1") for path in folder.iterdir()]
    return process.returncode, "\n".join([written, *journals])


def told(written: str) -> list[str]:
    """Find the lines that tell a secret."""
    return [line[:300] for line in written.splitlines() if MARK in line]


@pytest.mark.parametrize("name", FAILURES)
def test_library(name: str, tmp_path: Path) -> None:
    """Of the library no log of any level, no report, no repr and no local of ours tells a secret."""
    with staged(FAILURES[name], tmp_path) as stage:
        code, written = run(stage, "-m", "tests.telling", json.dumps(stage.arguments))
    assert code == 0, written
    assert "DEBUG:asyncio" in written
    assert FAILURES[name].says in written
    assert not told(written)


_COMMAND_LINE: Final = """
import sys
from tests.telling import prepare
prepare(sys.argv.pop(1))
from bulkrestart.__main__ import main
main()
"""


@pytest.mark.parametrize("name", SHOWN)
def test_command_line(name: str, tmp_path: Path) -> None:
    """Neither stream of the command line tells a secret."""
    scenario = FAILURES[name]
    with staged(scenario, tmp_path) as stage:
        command = ("restart", "--no-wait", "--output", "json", *stage.options)
        code, written = run(stage, "-c", _COMMAND_LINE, scenario.defect, *command)
    assert (code == 0) is name.startswith(("nothing", "lost", "refused in the middle")), written
    assert scenario.says in written
    assert not told(written)


#: What the cloud repeats of each header, and of what a Basic one holds.
ECHOES: Final = ("as it is", "json, some characters", "url, every character", "html, decimal", "base64", "hexadecimal")


def _echo(request: httpx.Request) -> str:
    names = ("x-auth-token", "authorization", "x-security-token", "cookie", "x-api-key")
    values = [request.headers[name] for name in names if name in request.headers]
    return " ".join(FORMS[form](value) for form in ECHOES for value in values)


def _answer(request: httpx.Request) -> httpx.Response:
    """Show a server, accept nothing, and repeat the request in each answer."""
    echo = _echo(request)
    server_id = request.url.path.split("/")[4]
    if request.method == "GET":
        row = {"id": server_id, "name": request.headers["x-api-key"], "status": "ACTIVE", "OS-EXT-STS:task_state": None}
        return httpx.Response(200, json={"server": {**row, "fault": {"message": echo}}})
    bodies = {
        "page": httpx.Response(500, html=f"<p>{echo}</p>"),
        "nova": httpx.Response(403, json={"forbidden": {"code": 403, "message": f"{server_id} {echo}"}}),
        "huawei": httpx.Response(400, json={"error": {"code": echo[:90], "message": echo}}),
        "busy": httpx.Response(200, json={"error": {"code": "x", "message": echo}}),
    }
    return bodies[server_id]


def files_of(folder: Path) -> list[str]:
    """Read all files of a folder."""
    return [path.read_bytes().decode("latin-1") for path in folder.iterdir()]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("auth", "secrets"),
    [
        (lambda: Token(FERNET), (FERNET,)),
        (lambda: AccessKey(ACCESS_KEY, FERNET, security_token=JWT), (ACCESS_KEY, FERNET, JWT)),
        (lambda: httpx.BasicAuth("operator", PASSPHRASE), (PASSPHRASE,)),
    ],
    ids=["token", "keys", "basic"],
)
async def test_what_a_run_leaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, auth: Callable[[], httpx.Auth], secrets: tuple[str, ...]
) -> None:
    """Of a cloud that repeats every header in many forms, nothing is left in reports, pickles, journals and logs."""
    headers = {"X-Api-Key": UUID_TOKEN, "Cookie": f"session={BASE64_KEY}"}
    journal = tmp_path / "journal"
    ids = ["page", "nova", "huawei", "busy"]
    with caplog.at_level("DEBUG"):
        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(_answer), headers=headers, trust_env=False) as http,
            RestartClient("http://cloud.test/v2.1/p", auth=auth(), http=http) as client,
        ):
            report = await client.restart(
                ids,
                wait=False,
                max_attempts=1,
                server_timeout=0.05,
                journal=journal,
                rollout=Rollout(max_refused="100%"),
            )
    left = [repr(report), json.dumps(report.to_dict()), pickle.dumps(report).decode("latin-1"), caplog.text]
    left += files_of(tmp_path)
    assert all(server_id in left[1] for server_id in ids)
    assert "***" in left[1]
    for secret in (*secrets, UUID_TOKEN, BASE64_KEY):
        lines = [line[:200] for text in left for line in text.splitlines() if secret in line or secret[:12] in line]
        assert not lines
        forms = {letters(FORMS[form](secret))[4:20] for form in ECHOES}
        assert not [form for form in forms for text in left if form in letters(text)]
