"""The installation of Nova, Keystone and Placement: made once for each set of pins, shared by all runs."""

import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"


class Installation:
    """A virtual environment in the user's cache, named after the pins and the Python that it was made with.

    A run installs under a lock, so that several runs that start at once install once.
    """

    def __init__(self) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        key = hashlib.sha256(REQUIREMENTS.read_bytes() + f"{sys.version} {sysconfig.get_platform()}".encode())
        self.home = cache / "bulkrestart-nova-tests"
        self.venv = self.home / key.hexdigest()[:16]

    def program(self, name: str) -> str:
        """Give the path of one of its programs."""
        return str(self.venv / "bin" / name)

    def ensure(self) -> None:
        """Install, unless it was done before; a broken attempt is thrown away.

        Raises:
            RuntimeError: The installation failed; the message ends with pip's last lines.
        """
        done = self.venv / "installed"
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "install.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if done.exists():
                return
            print(f"installing Nova into {self.venv} (once; 0.5 GB)", file=sys.stderr, flush=True)
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(self.venv)],
                [self.program("python"), "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check"]
                + ["--requirement", str(REQUIREMENTS)],
            ):
                end = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock.fileno(),),  # an installer that outlives this process keeps the lock
                )
                if end.returncode:
                    last_lines = end.stdout.decode(errors="replace").splitlines()[-15:]
                    raise RuntimeError("\n".join(["Nova could not be installed:", *last_lines]))
            done.touch()
