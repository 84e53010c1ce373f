"""A Keystone on loopback, in a thread of its own, with the version discovery of a Nova beside it."""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread

PROJECT = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request.

    Attributes:
        method: Its method.
        path: Its path.
        body: Its body, if it is JSON.
        token: Its token; "" without one.
    """

    method: str
    path: str
    body: Mapping[str, object] = field(default_factory=dict)
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered in place of the usual.

    Attributes:
        status: The status; 0 cuts the connection.
        body: The body.
        headers: The headers.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def error(cls, status: int, message: str, title: str = "Error") -> "Reply":
        """Answer as Keystone does when it refuses."""
        document = {"error": {"code": status, "message": message, "title": title}}
        return cls(status=status, body=json.dumps(document).encode(), headers={"Content-Type": "application/json"})


def compute(
    url: str, *, interface: str = "public", region: str = "RegionOne", service_type: str = "compute"
) -> dict[str, object]:
    """Make an entry of a catalog."""
    endpoint = {"id": "e", "interface": interface, "url": url, "region": region, "region_id": region}
    return {"id": "s", "type": service_type, "name": "nova", "endpoints": [endpoint]}


class FakeKeystone:
    """Signs everybody in.

    Args:
        tls: Speaks TLS so; None: plain HTTP.

    Attributes:
        url: Its URL, without a path.
        seen: Every request.
        catalog: What every token's catalog holds.
        reply: What sign-ins are answered in place of a token.
        discovery: What questions for its versions are answered in place of them.
        compute_discovery: The same, of the compute service.
        life: Seconds that a token lives; None: neither of its times is said.
        scope: The project of a token; None: it is for no project.
        issued: Called with each token that is issued.
        going: Clear it, and nothing is answered until it is set again.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.catalog: list[dict[str, object]] = []
        self.reply: Reply | None = None
        self.discovery: Reply | None = None
        self.compute_discovery: Reply | None = None
        self.life: float | None = 3600.0
        self.scope: str | None = PROJECT
        self.issued: Callable[[str], object] = lambda _: None
        self.going = Event()
        self.going.set()
        self._lock = Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        scheme = "http"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["FakeKeystone"]:
        """Serve."""
        # It looks for the end that often; it is no wait of the tests but for that.
        thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.going.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    @property
    def sign_ins(self) -> list[Mapping[str, object]]:
        """What each sign-in said who it is, and for what."""
        bodies = [one.body.get("auth") for one in self.seen if one.method == "POST"]
        return [body for body in bodies if isinstance(body, dict)]

    def paths(self, method: str = "GET") -> list[str]:
        """Give the paths that were asked for."""
        return [one.path for one in self.seen if one.method == method]

    def answer(self, seen: Seen) -> Reply:
        """Answer one request."""
        with self._lock:
            self.seen.append(seen)
            number = len(self.sign_ins)
        self.going.wait(10.0)
        if seen.method == "POST" and seen.path.endswith("/auth/tokens"):
            return self.reply or self._issue(number)
        if seen.path.startswith("/compute"):
            return self.compute_discovery or self._json(self._compute_versions(seen.path), 200)
        return self.discovery or self._json(self._versions(), 300 if seen.path in ("", "/") else 200)

    def _issue(self, number: int) -> Reply:
        now = datetime.now(UTC)
        token: dict[str, object] = {
            "methods": ["password"],
            "user": {"id": "u", "name": "demo", "domain": {"id": "default", "name": "Default"}},
            "audit_ids": ["a"],
        }
        if self.life is not None:
            token["issued_at"] = _time(now)
            token["expires_at"] = _time(now + timedelta(seconds=self.life))
        if self.scope is not None:
            token["project"] = {"id": self.scope, "name": "demo", "domain": {"id": "default", "name": "Default"}}
            token["catalog"] = self.catalog
            token["roles"] = [{"id": "r", "name": "member"}]
        name = f"token-{number}"
        self.issued(name)
        return self._json({"token": token}, 201, {"X-Subject-Token": name})

    def _versions(self) -> object:
        links = [{"rel": "self", "href": f"{self.url}/v3/"}]
        version = {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "links": links}
        return {"versions": {"values": [version]}, "version": version}

    def _compute_versions(self, path: str) -> object:
        base = f"{self.url}/{path.split('/')[1]}"
        old = {
            "id": "v2.0",
            "status": "SUPPORTED",
            "version": "",
            "min_version": "",
            "links": [{"rel": "self", "href": f"{base}/v2/"}],
        }
        new = {
            "id": "v2.1",
            "status": "CURRENT",
            "version": "2.96",
            "min_version": "2.1",
            "links": [{"rel": "self", "href": f"{base}/v2.1/"}],
        }
        return {"versions": [old] if path.startswith("/compute-old") else [old, new]}

    def _json(self, document: object, status: int, headers: Mapping[str, str] | None = None) -> Reply:
        usual = {"Content-Type": "application/json", **(headers or {})}
        return Reply(status=status, body=json.dumps(document).encode(), headers=usual)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        keystone = self

        class Handler(BaseHTTPRequestHandler):
            """Hands requests to the Keystone."""

            def _serve(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen = Seen(
                    method=self.command,
                    path=self.path,
                    body=json.loads(raw) if raw else {},
                    token=self.headers.get("X-Auth-Token", ""),
                )
                reply = keystone.answer(seen)
                self.close_connection = True
                if reply.status == 0:
                    return
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                # Whoever asked may be gone.
                with suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(reply.body)

            do_GET = do_POST = _serve  # noqa: N815 (the names that http.server calls)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
