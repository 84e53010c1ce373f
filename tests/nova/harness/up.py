#!/usr/bin/env python3
"""Run a real Nova with its Keystone and Placement on loopback: the APIs of a cloud, with a fake hypervisor.

A second Keystone on the same database and keys gives tokens that soon expire.
It prints one line of JSON when the servers are ACTIVE (endpoint, tokens, ids, paths), and lives until its standard
input closes or a signal ends it. Then it ends its processes and removes its temporary folder; a line "keep" on the
standard input keeps the folder. It needs Python 3.11 or later and nothing else; the first run installs Nova.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import configuration
import seed
from installation import Installation

HERE = Path(__file__).resolve().parent
#: The signals that end a run in order.
ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Bed:
    """One run: its folder, its processes, and how they end.

    Args:
        installation: What it runs.
        keep: Whether the folder is to outlive the run; it does too if the run fails.
    """

    def __init__(self, installation: Installation, keep: threading.Event) -> None:
        self.installation = installation
        self.keep = keep
        self.folder = Path(tempfile.mkdtemp(prefix="bulkrestart-nova-"))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.sockets = {name: socket.socket() for name in ("keystone", "brief_keystone", "placement", "nova")}
        for listener in self.sockets.values():
            listener.bind(("127.0.0.1", 0))
        self.ports = {name: listener.getsockname()[1] for name, listener in self.sockets.items()}

    def spawn(self, name: str, command: list[str], *descriptors: int) -> None:
        """Start a process whose standard input stays open for as long as this process lives."""
        etc = self.folder / "etc"
        environment = {
            variable: value
            for variable, value in os.environ.items()
            if not variable.startswith(("OS_", "PYTHON")) and not variable.lower().endswith("_proxy")
        } | {
            "BULKRESTART_NOVA_KNOBS": str(self.folder / "knobs.json"),
            "OS_KEYSTONE_CONFIG_DIR": str(etc),
            "OS_KEYSTONE_CONFIG_FILES": f"{name}.conf",
            "OS_NOVA_DISABLE_EVENTLET_PATCHING": "1",
            "OS_PLACEMENT_CONFIG_DIR": str(etc),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
        }
        with (self.folder / f"{name}.out").open("wb") as output:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
                pass_fds=descriptors,
                process_group=0,  # a Ctrl-C in the terminal is for this process alone
            )

    def fail(self, name: str, what: str) -> RuntimeError:
        """Make the error that tells what a process said last."""
        last_lines = (self.folder / f"{name}.out").read_text(errors="replace").splitlines()[-15:]
        return RuntimeError("\n".join([f"{name} {what}; it said:", *last_lines]))

    def make_databases(self) -> None:
        """Make the schemas; Keystone's at the same time as the others."""
        etc = self.folder / "etc"
        url = shlex.quote(f"http://127.0.0.1:{self.ports['keystone']}/v3")
        cell0 = shlex.quote(f"sqlite:///{self.folder}/nova_cell0.db?timeout=60")

        def manage(program: str, conf: str) -> str:
            return shlex.join([self.installation.program(program), "--config-file", str(etc / conf)])

        keystone = manage("keystone-manage", "keystone.conf")
        nova = manage("nova-manage", "nova.conf")
        bootstrap = f"--bootstrap-password {configuration.PASSWORD} --bootstrap-region-id {configuration.REGION}"
        chains = {
            "keystone-database": [
                f"{keystone} db_sync",
                f"{keystone} bootstrap {bootstrap} --bootstrap-public-url {url} --bootstrap-internal-url {url}",
            ],
            "nova-database": [
                f"{manage('placement-manage', 'placement.conf')} db sync",
                f"{nova} api_db sync",
                f"{nova} cell_v2 map_cell0 --database_connection {cell0}",
                f"{nova} db sync",
                f"{nova} cell_v2 create_cell --name cell1",
            ],
        }
        for name, commands in chains.items():
            self.spawn(name, ["sh", "-ec", "\n".join(commands)])
        for name in chains:
            if self.processes[name].wait():
                raise self.fail(name, "failed")
        for database in self.folder.glob("*.db"):
            connection = sqlite3.connect(database)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.close()

    def serve(self, name: str, script: str, argument: str, *, timeout: float = 120.0) -> None:
        """Start a service on its socket and wait until it answers there."""
        descriptor = self.sockets[name].fileno()
        command = [self.installation.program("python"), str(HERE / script), argument, str(descriptor)]
        self.spawn(name, command, descriptor)
        self.sockets[name].close()  # the service holds it now; if it dies, connections are refused
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.ports[name]), timeout=5).close()
                return
            except ConnectionRefusedError:
                if self.processes[name].poll() is not None:
                    raise self.fail(name, "died") from None
                if time.monotonic() > deadline:
                    raise self.fail(name, f"does not answer after {timeout:.0f} s") from None
                time.sleep(0.1)

    def start(self, *, servers: int, token_seconds: int, brief_token_seconds: int) -> dict[str, object]:
        """Make the cloud and give what its users must know."""
        configuration.write(
            self.folder,
            venv=self.installation.venv,
            ports=self.ports,
            token_seconds=token_seconds,
            brief_token_seconds=brief_token_seconds,
        )
        (self.folder / "knobs.json").write_text("{}")
        self.make_databases()
        keystone, brief_keystone = (
            f"http://127.0.0.1:{self.ports[name]}/v3" for name in ("keystone", "brief_keystone")
        )
        nova = f"http://127.0.0.1:{self.ports['nova']}"
        self.serve("keystone", "serve_wsgi.py", "keystone.wsgi.api")
        self.serve("brief_keystone", "serve_wsgi.py", "keystone.wsgi.api")
        self.serve("placement", "serve_wsgi.py", "placement.wsgi.api")
        projects = seed.identity(keystone, f"{nova}/v2.1")
        self.serve("nova", "serve_nova.py", str(self.folder))
        return {
            "url": nova,
            "keystone": keystone,
            "brief_keystone": brief_keystone,
            "brief_token_seconds": brief_token_seconds,
            "region": configuration.REGION,
            "older_region": configuration.OLDER_REGION,
            "password": configuration.PASSWORD,
            "endpoint": f"{nova}/v2.1/{projects['demo']}",
            "project_id": projects["demo"],
            "other_project_id": projects["other"],
            "application_credential": seed.application_credential(keystone, "demo", "demo"),
            **seed.servers(keystone, f"{nova}/v2.1", servers),
            "folder": str(self.folder),
            "knobs": str(self.folder / "knobs.json"),
            "log": str(self.folder / "nova.log"),
            "brief_keystone_log": str(self.folder / "brief_keystone.out"),
            "openstack": self.installation.program("openstack"),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the processes, and remove the folder unless it is to be kept."""
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        for process in self.processes.values():
            if process.stdin is not None:
                process.stdin.close()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for listener in self.sockets.values():
            listener.close()
        if self.keep.is_set() or isinstance(error, Exception):
            print(f"databases and logs are kept in {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def obey_input() -> threading.Event:
    """Let the standard input rule from now on: its end ends this process, and "keep" sets what is given here."""
    keep = threading.Event()

    def watch() -> None:
        for line in sys.stdin:
            if line.strip() == "keep":
                keep.set()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return keep


def main() -> int:
    """Run the cloud until it is to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=30, help="servers to make (30)")
    parser.add_argument("--token-seconds", type=int, default=14400, help="life of a token (14400)")
    parser.add_argument("--brief-token-seconds", type=int, default=12, help="life of one of the second Keystone (12)")
    options = parser.parse_args()
    for number in ENDINGS:
        signal.signal(number, lambda *_: sys.exit(0))
    keep = obey_input()
    installation = Installation()
    try:
        installation.ensure()
        with Bed(installation, keep) as bed:
            facts = bed.start(
                servers=options.servers,
                token_seconds=options.token_seconds,
                brief_token_seconds=options.brief_token_seconds,
            )
            print(json.dumps(facts), flush=True)
            while True:
                signal.pause()
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
